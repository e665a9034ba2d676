//! `serve`: the published tree over HTTP.
//!
//! Files and nothing else: any static server, a CDN or an object store can do the same. Only `timestamp.json` and the
//! routes ever change under their names.

use std::path::PathBuf;

use hyper::StatusCode;
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::{
    Naming, file_of, keep_in_memory, listen, problem, run as run_server, serve_document,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::cli::Serve;

#[derive(Serialize)]
struct Serving {
    address: String,
}

pub(super) async fn run(context: &Context, arguments: &Serve) -> Result<(), Failure> {
    let repository = context.repository()?;
    let what = || format!("cannot listen on {}", arguments.listen);
    let listener = listen(arguments.listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = stop_signal()?;
    context.output.print(&Serving { address: format!("http://{address}/") }, |serving| {
        format!("serving on {}", serving.address)
    });
    tracing::info!(%address, repository = %context.directory.display(), "serving");
    serve(listener, repository.public(), stop).await;
    tracing::info!("stopped");
    Ok(())
}

/// Serves the tree at `public` until `stop`.
pub(super) async fn serve(listener: TcpListener, public: PathBuf, stop: CancellationToken) {
    // Whatever an operator mends or replaces by hand is served at the next request.
    keep_in_memory(0);
    let answer = move |request: hyper::Request<hyper::body::Incoming>, _| {
        let public = public.clone();
        async move {
            let Some(path) = file_of(request.uri().path()) else {
                return problem(StatusCode::NOT_FOUND, "there is no such file here");
            };
            let mutable = path.as_str() == "metadata/timestamp.json" || path.as_str().starts_with("routes/");
            let naming = if mutable { Naming::Mutable } else { Naming::Immutable };
            serve_document(request.method(), request.headers(), &public, &path, naming).await
        }
    };
    run_server(listener, answer, stop).await;
}
