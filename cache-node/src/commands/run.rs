//! `run`: mirror and serve, until asked to stop.
//!
//! Serving does not wait for mirroring: what was complete when the node stopped is served from the first moment on.

use std::sync::Arc;
use std::time::Duration;

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::{listen as listen_on, run as run_server};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::http;
use crate::mirror::Mirror;
use crate::wake_ups::WakeUps;

/// After a failed sync the node looks again sooner than usual, but no sooner than this.
const RETRY_AFTER_FAILURE: Duration = Duration::from_mins(1);

#[derive(Serialize)]
struct Running {
    address: String,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let listen = config.listen;
    let (sync_every, wake_to) = (config.sync_every, config.wake_to);
    let mirror = Mirror::open(context.site.clone(), config)?;
    let what = || format!("cannot listen on {listen}");
    let listener = listen_on(listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = stop_signal()?;
    context.output.print(&Running { address: format!("http://{address}/") }, |running| {
        format!("serving on {}", running.address)
    });
    tracing::info!(%address, "serving");

    let site = context.site.clone();
    let wake_ups = Arc::new(WakeUps::open(&site.path("wake-ups.json"), wake_to));
    let waking = wake_ups.clone();
    let server = tokio::spawn(run_server(
        listener,
        move |request, _| http::answer(site.clone(), wake_ups.clone(), request),
        stop.clone(),
    ));
    tokio::join!(keep_mirroring(&mirror, sync_every, &stop), waking.keep_waking(&stop));
    server.await.or_fail(|| "the server died".to_owned())?;
    mirror.close();
    tracing::info!("stopped");
    Ok(())
}

async fn keep_mirroring(mirror: &Mirror, every: Duration, stop: &CancellationToken) {
    loop {
        let wait = tokio::select! {
            () = stop.cancelled() => return,
            result = mirror.sync(Instant::now()) => match result {
                Ok(_) => every,
                Err(failure) => {
                    tracing::warn!("sync failed\n{}", failure.render().trim_end());
                    every.min(RETRY_AFTER_FAILURE)
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
