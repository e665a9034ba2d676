//! `run`: mirror and serve, until asked to stop.
//!
//! Serving does not wait for mirroring: what was complete when the node stopped is served from the first moment on.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::run as run_server;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::config::Config;
use crate::http::{self, Services};
use crate::lan::{Announcement, Neighbours, Waking};
use crate::legacy::Legacy;
use crate::mirror::Mirror;
use crate::site::Site;

/// After a failed sync the node looks again sooner than usual, but no sooner than this.
const RETRY_AFTER_FAILURE: Duration = Duration::from_mins(1);

#[derive(Serialize)]
struct Running {
    address: String,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let listen = config.listen;
    let site = context.site.clone();
    let mirror = Mirror::open(site.clone(), config.clone())?;
    let legacy = tokio::task::block_in_place(|| Legacy::open(&site, &config.legacy, config.legacy_quota))
        .or_fail(|| "cannot take up the files of legacy repositories".to_owned())?;
    let legacy = Arc::new(legacy);
    let what = || format!("cannot listen on {listen}");
    let listener = TcpListener::bind(listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = stop_signal()?;
    context.output.print(&Running { address: format!("http://{address}/") }, |running| {
        format!("serving on {}", running.address)
    });
    tracing::info!(%address, "serving");

    let waking = Arc::new(Waking::open(&site, config.college.clone(), config.wake_to.clone()));
    let services = Services { site: site.clone(), waking: waking.clone(), legacy };
    let server = tokio::spawn(run_server(
        listener,
        move |request, _| http::answer(services.clone(), request),
        stop.clone(),
    ));
    let announcement = announce(&config, &site, address);
    let neighbours = match &announcement {
        Some(announcement) if config.neighbours => look_for_neighbours(announcement),
        _ => Neighbours::default(),
    };
    let mirroring = Mirroring { site, config, neighbours };
    let (mirrored, ()) = tokio::join!(mirroring.keep(mirror, &stop), waking.keep_waking(&stop));
    server.await.or_fail(|| "the server died".to_owned())?;
    drop(announcement);
    mirrored?;
    tracing::info!("stopped");
    Ok(())
}

/// Lets workstations find the node. One that cannot be found serves all the same.
fn announce(config: &Config, site: &Site, address: SocketAddr) -> Option<Announcement> {
    if !config.discovery {
        return None;
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = format!("{host}:{}", site.path("").display());
    Announcement::begin(address, &config.college, &node, &host).unwrap_or_else(|error| {
        tracing::warn!(%error, cause = ?error.source(), "this node cannot be found by workstations that look for one");
        None
    })
}

fn look_for_neighbours(announcement: &Announcement) -> Neighbours {
    announcement.neighbours().unwrap_or_else(|error| {
        tracing::warn!(%error, cause = ?error.source(), "neighbours cannot be looked for");
        Neighbours::default()
    })
}

/// What mirroring needs beside the mirror.
struct Mirroring {
    site: Site,
    config: Config,
    neighbours: Neighbours,
}

impl Mirroring {
    /// Mirrors until the node stops.
    async fn keep(&self, mut mirror: Mirror, stop: &CancellationToken) -> Result<(), Failure> {
        let every = self.config.sync_every;
        let mut asked = Vec::new();
        loop {
            let neighbours = self.neighbours.upstreams();
            if neighbours != asked {
                mirror.close();
                let mut config = self.config.clone();
                config.upstreams.extend(neighbours.iter().cloned());
                // A node that does not mirror any more should not look as if it did.
                mirror = Mirror::open(self.site.clone(), config).inspect_err(|_| stop.cancel())?;
                asked = neighbours;
            }
            let wait = tokio::select! {
                () = stop.cancelled() => break,
                result = mirror.sync(Instant::now()) => match result {
                    Ok(_) => every,
                    Err(failure) => {
                        tracing::warn!("sync failed\n{}", failure.render().trim_end());
                        every.min(RETRY_AFTER_FAILURE)
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        mirror.close();
        Ok(())
    }
}
