//! `run`: mirror and serve, until asked to stop.
//!
//! Serving does not wait for mirroring: what was complete when the node stopped is served from the first moment on.

use std::sync::Arc;
use std::time::Duration;

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::run as run_server;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::care::{Alarms, Care, Scrub, keep_scrubbing};
use crate::http::{self, Node};
use crate::link;
use crate::mirror::Mirror;
use crate::on_demand::OnDemand;
use crate::wake_ups::WakeUps;

/// After a failed sync the node looks again sooner than usual, but no sooner than this.
const RETRY_AFTER_FAILURE: Duration = Duration::from_mins(1);

/// What is found missing is looked for at once, but no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Running {
    address: String,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let listen = config.listen;
    let (sync_every, wake_to) = (config.sync_every, config.wake_to);
    let disk = config.disk(&context.site.path(""));
    let scrub = Scrub::new(&context.site, config.scrub_every, config.scrub_rate);
    let link = link::open(&context.site, &config, Instant::now()).await;
    let keeper = link::Keeper::new(context.site.clone(), &config, link.clone());
    let mirror = Mirror::open(context.site.clone(), config, &link)?;
    let what = || format!("cannot listen on {listen}");
    let listener = TcpListener::bind(listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = stop_signal()?;
    context.output.print(&Running { address: format!("http://{address}/") }, |running| {
        format!("serving on {}", running.address)
    });
    tracing::info!(%address, "serving");

    let site = context.site.clone();
    let wake_ups = Arc::new(WakeUps::open(&site.path("wake-ups.json"), wake_to));
    let waking = wake_ups.clone();
    let look = Arc::new(Notify::new());
    let on_demand = OnDemand::new(&mirror, &site, disk.clone());
    let care = Care {
        site: site.clone(),
        disk,
        served: mirror.served(),
        alarms: Alarms::open(&site.path("alarms.json")),
    };
    let node = Arc::new(Node { site, wake_ups, on_demand, look: look.clone() });
    let server = tokio::spawn(run_server(
        listener,
        move |request, _| http::answer(node.clone(), request),
        stop.clone(),
    ));
    tokio::join!(
        keep_mirroring(&mirror, sync_every, &look, &stop),
        waking.keep_waking(&stop),
        care.keep(&stop),
        keep_scrubbing(&scrub, &look, &stop),
        keeper.keep(&stop),
    );
    server.await.or_fail(|| "the server died".to_owned())?;
    mirror.close();
    tracing::info!("stopped");
    Ok(())
}

async fn keep_mirroring(mirror: &Mirror, every: Duration, look: &Notify, stop: &CancellationToken) {
    mirror.take_up(Instant::now()).await;
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
            // Somebody found something missing.
            () = look.notified() => tokio::time::sleep(LOOK_AGAIN.min(wait)).await,
        }
    }
}
