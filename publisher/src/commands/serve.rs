//! `serve`: the published tree over HTTP.
//!
//! Files and nothing else, unless people are served as well (`people.rs`) or reports are taken (`fleet/`): any static server, a CDN or an object
//! store can do the same. Only `timestamp.json` and the
//! routes ever change under their names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::StatusCode;
use mirabelle_content::durable;
use mirabelle_keys::{PublicKey, SigningKey};
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::{
    Naming, file_of, keep_in_memory, listen, problem, run as run_server, serve_document,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use zeroize::Zeroizing;

use super::Context;
use crate::cli::Serve;
use crate::fleet::Fleet;
use crate::people::People;

/// The most of a key's file.
const MAX_KEY_BYTES: u64 = 4096;

#[derive(Serialize)]
struct Serving {
    address: String,
    /// As the deployment's `sign-in` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rights_key: Option<PublicKey>,
}

pub(super) async fn run(context: &Context, arguments: &Serve) -> Result<(), Failure> {
    let repository = context.repository()?;
    let what = || format!("cannot listen on {}", arguments.listen);
    let listener = listen(arguments.listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = stop_signal()?;
    let key = arguments.people.as_deref().map(people_key).transpose()?;
    let rights_key = key.as_ref().map(SigningKey::public);
    let (public, directory) = (repository.public(), repository.path(""));
    let people = key.map(|key| People::open(repository, key)).transpose()?.map(Arc::new);
    let fleet = match &arguments.fleet {
        Some(engine) => Some(Arc::new(Fleet::open(engine, &directory).await?)),
        None => None,
    };
    context.output.print(&Serving { address: format!("http://{address}/"), rights_key }, |serving| {
        let key = serving.rights_key.as_ref().and_then(|key| toml::Value::try_from(key).ok());
        let key = key.map_or(String::new(), |key| format!("\nfor the deployment: rights-key = {key}"));
        format!("serving on {}{key}", serving.address)
    });
    tracing::info!(%address, repository = %context.directory.display(), "serving");
    serve(listener, public, people, fleet, stop).await;
    tracing::info!("stopped");
    Ok(())
}

/// The key that signs the lists of people; made, readable by its owner alone, where there is none.
fn people_key(path: &Path) -> Result<SigningKey, Failure> {
    let what = || format!("cannot use the key `{}`", path.display());
    if let Some(pem) = durable::read_if_present(path, MAX_KEY_BYTES).or_fail(what)? {
        let pem = Zeroizing::new(pem);
        return SigningKey::from_unsealed_pem(&String::from_utf8_lossy(&pem)).or_fail(what);
    }
    let key = SigningKey::generate();
    durable::write_atomically_as(path, key.to_unsealed_pem().as_bytes(), 0o600, None).or_fail(what)?;
    Ok(key)
}

/// Serves the tree at `public` until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    public: PathBuf,
    people: Option<Arc<People>>,
    fleet: Option<Arc<Fleet>>,
    stop: CancellationToken,
) {
    // Whatever an operator mends or replaces by hand is served at the next request.
    keep_in_memory(0);
    let answer = move |request: hyper::Request<hyper::body::Incoming>, _| {
        let (public, people, fleet) = (public.clone(), people.clone(), fleet.clone());
        async move {
            let request = match people {
                Some(people) => match people.answer(request).await {
                    Ok(response) => return response,
                    Err(request) => request,
                },
                None => request,
            };
            let request = match fleet {
                Some(fleet) => match fleet.answer(request).await {
                    Ok(response) => return response,
                    Err(request) => request,
                },
                None => request,
            };
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
