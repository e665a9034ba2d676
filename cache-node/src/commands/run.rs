//! `run`: mirror and serve, until asked to stop.
//!
//! Serving does not wait for mirroring: what was complete when the node stopped is served from the first moment on. Asked to stop, it
//! finishes what it is sending; where systemd holds the socket, who connects meanwhile waits for the next process, and nobody
//! is refused.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, stop_signal};
use mirabelle_transfer::serve::{Limits, ServeStats, Server, Tls, keep_in_memory, listen};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Context, enrol, init};
use crate::care::{Alarms, Care, Scrub, Watchdog, keep_scrubbing};
use crate::config::{Config, TlsTable};
use crate::fleet::{Fleet, Sources};
use crate::http::{self, Node, Seen};
use crate::lan::{Announcement, Neighbours, Waking};
use crate::legacy::Legacy;
use crate::link;
use crate::media::Media;
use crate::mirror::Mirror;
use crate::on_demand::OnDemand;
use crate::people::People;
use crate::program;
use crate::running;
use crate::site::Site;

/// How long what is being sent may go on when the node stops: the unit kills it after a minute. Longer downloads are cut, and go on
/// at the byte.
const DRAINS_FOR: Duration = Duration::from_secs(50);
/// After a failed sync the node looks again sooner than usual, but no sooner than this.
const RETRY_AFTER_FAILURE: Duration = Duration::from_mins(1);
/// What is found missing is looked for at once, but no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Running {
    address: String,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let site = context.site.clone();
    program::hand_over(&site);
    let stop = stop_signal()?;
    if !site.path("node.toml").exists()
        && let Some(code) = init::provided()?
        && !enrol::until_enrolled(context, &code, &stop).await?
    {
        return Ok(());
    }
    let config = context.config()?;
    let tls = config.tls.as_ref().map(read_tls).transpose()?;
    let disk = config.disk(&site.path(""));
    let link = link::open(&site, &config, Instant::now()).await;
    let keeper = link::Keeper::new(site.clone(), &config, link.clone());
    let mirror = Mirror::open(site.clone(), config.clone(), &link)?;
    let legacy = tokio::task::block_in_place(|| {
        Legacy::open(&site, &config.legacy, config.legacy_quota, &disk, &link)
    })
    .or_fail(|| "cannot take up the files of legacy repositories".to_owned())?;
    let what = || format!("cannot listen on {}", config.listen);
    let socket_stays = std::env::var_os("LISTEN_FDS").is_some();
    let listener = listen(config.listen).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let running = Running { address: format!("{scheme}://{address}/") };
    let announced = running::announce(&site, &running.address, socket_stays, Instant::now());
    context.output.print(&running, |running| format!("serving on {}", running.address));
    tracing::info!(%address, "serving");

    keep_in_memory(usize::try_from(config.memory_cache).unwrap_or(usize::MAX));
    let look = Arc::new(Notify::new());
    let waking = Arc::new(Waking::open(&site, config.college.clone(), config.wake_to.clone()));
    let stats = Arc::new(ServeStats::default());
    let alarms = Arc::new(Alarms::open(&site.path("alarms.json")));
    let people = People::open(
        &site,
        config.college.clone(),
        mirror.upstreams(),
        mirror.served(),
        link.clone(),
        waking.clone(),
    );
    let sources = Sources {
        site: site.clone(),
        stats: stats.clone(),
        alarms: alarms.clone(),
        disk: disk.clone(),
        link: link.clone(),
    };
    let fleet = Fleet::open(sources, config.college.clone(), mirror.upstreams())?;
    let node = Arc::new(Node {
        site: site.clone(),
        config: config.clone(),
        waking: waking.clone(),
        legacy,
        on_demand: OnDemand::new(&mirror, &site, disk.clone()),
        media: Media::new(&site, mirror.upstreams(), mirror.served()),
        people: people.clone(),
        fleet: fleet.clone(),
        link,
        served: mirror.served(),
        disk: disk.clone(),
        stats,
        alarms: alarms.clone(),
        seen: Seen::default(),
    });
    let server = serve(node, tls, listener, stop.clone());
    let announcement = announce(&config, &site, address);
    let neighbours = match &announcement {
        Some(announcement) if config.neighbours => look_for_neighbours(announcement),
        _ => Neighbours::default(),
    };
    let care = Care { site: site.clone(), disk, served: mirror.served(), alarms, synced: mirror.synced() };
    let scrub = Scrub::new(&site, config.scrub_every, config.scrub_rate);
    let upstreams = mirror.upstreams();
    let watchdog = Watchdog::new(address, scheme == "https");
    let (becomes_another, ..) = tokio::join!(
        keep_mirroring(&mirror, &neighbours, config.sync_every, &look, &stop),
        prove(&site, &stop),
        waking.keep_waking(&stop),
        people.keep(&stop),
        fleet.keep(&stop),
        care.keep(&stop),
        keep_scrubbing(&scrub, &look, &stop),
        keeper.keep(&stop),
        watchdog.keep(mirror.pulse(), || upstreams.received(), &stop),
    );
    server.await.or_fail(|| "the server died".to_owned())?;
    drop((announcement, announced));
    mirror.close();
    tracing::info!("stopped");
    if becomes_another {
        std::process::exit(program::STARTS_ANEW.into());
    }
    Ok(())
}

/// Answers until `stop`, and then for as long as it drains.
fn serve(
    node: Arc<Node>,
    tls: Option<Tls>,
    listener: TcpListener,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let limits = Limits { drain_time: DRAINS_FOR, ..Limits::default() };
    let server = Server::default().stats(node.stats.clone()).limits(limits);
    let server = tls.into_iter().fold(server, Server::tls);
    tokio::spawn(server.run(listener, move |request, peer| http::answer(node.clone(), peer, request), stop))
}

fn read_tls(table: &TlsTable) -> Result<Tls, Failure> {
    let read = |path| fs::read(path).or_fail(|| "cannot speak TLS".to_owned());
    Tls::from_pem(&read(&table.certificate)?, &read(&table.key)?)
        .map_err(|error| Failure::usage(format!("cannot speak TLS: {error}")))
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

/// Mirrors until the node stops; true when it stops to be started anew as another program.
async fn keep_mirroring(
    mirror: &Mirror,
    neighbours: &Neighbours,
    every: Duration,
    look: &Notify,
    stop: &CancellationToken,
) -> bool {
    mirror.take_up(Instant::now()).await;
    loop {
        mirror.ask_too(&neighbours.upstreams());
        let wait = tokio::select! {
            () = stop.cancelled() => return false,
            result = mirror.sync(Instant::now()) => match result {
                Ok(_) => {
                    if mirror.becomes_another() {
                        stop.cancel();
                        return true;
                    }
                    every
                }
                Err(failure) => {
                    tracing::warn!("sync failed\n{}", failure.render().trim_end());
                    every.min(RETRY_AFTER_FAILURE)
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(wait) => {}
            // Somebody found something missing.
            () = look.notified() => tokio::time::sleep(LOOK_AGAIN.min(wait)).await,
        }
    }
}

/// A new program that runs for a while has come up, whether or not an upstream answers.
async fn prove(site: &Site, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(program::TRIAL) => tokio::task::block_in_place(|| program::came_up(site)),
    }
}
