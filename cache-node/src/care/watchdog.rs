//! systemd is told that the node is alive as long as it is: it answers a request of its own, and its mirror gets on.
//!
//! A process whose threads wait for one another for ever still has a timer that fires: so what is looked at is what the node is for.
//! Half of `WatchdogSec=` is how often. Where nobody watches, nothing is done.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// A sync that moved no byte and took no step for so long is stuck: retries give up long before.
const STUCK_AFTER: Duration = Duration::from_mins(30);

/// Tells systemd that the node is ready, and goes on telling it that it is alive.
pub(crate) struct Watchdog {
    address: SocketAddr,
    /// With TLS, that a connection is accepted says enough.
    tls: bool,
}

/// What a mirror tells of its getting on.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Steps, and bytes.
    beats: AtomicU64,
    /// Syncs under way: one, or none.
    at_work: AtomicU64,
}

impl Pulse {
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// A sync is under way until this is dropped.
    pub(crate) fn work(&self) -> impl Drop + '_ {
        struct Working<'a>(&'a Pulse);
        impl Drop for Working<'_> {
            fn drop(&mut self) {
                self.0.at_work.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.at_work.fetch_add(1, Ordering::Relaxed);
        self.beat();
        Working(self)
    }

    fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Relaxed) > 0
    }
}

impl Watchdog {
    pub(crate) fn new(listening: SocketAddr, tls: bool) -> Self {
        let ip = match listening.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        Self { address: SocketAddr::new(ip, listening.port()), tls }
    }

    /// Until the node stops. `received` counts bytes from upstream.
    pub(crate) async fn keep(&self, pulse: &Pulse, received: impl Fn() -> u64, stop: &CancellationToken) {
        tell(sd_notify::NotifyState::Ready);
        let Some(wanted) = sd_notify::watchdog_enabled() else {
            stop.cancelled().await;
            tell(sd_notify::NotifyState::Stopping);
            return;
        };
        let mut moved = (0, Instant::now());
        loop {
            let sum = pulse.beats.load(Ordering::Relaxed) + received();
            if sum != moved.0 || !pulse.is_at_work() {
                moved = (sum, Instant::now());
            }
            let gets_on = moved.1.elapsed() < STUCK_AFTER;
            let answers = tokio::time::timeout(ANSWERS_WITHIN, self.ask()).await;
            match answers {
                Ok(Ok(())) if gets_on => tell(sd_notify::NotifyState::Watchdog),
                Ok(Ok(())) => tracing::error!("the mirror is stuck, and the node is started anew"),
                Ok(Err(error)) => tracing::error!(%error, "the node does not answer itself"),
                Err(_) => tracing::error!("the node does not answer itself in time"),
            }
            tokio::select! {
                () = stop.cancelled() => {
                    tell(sd_notify::NotifyState::Stopping);
                    return;
                }
                () = tokio::time::sleep(wanted / 2) => {}
            }
        }
    }

    async fn ask(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.address).await?;
        if self.tls {
            return Ok(());
        }
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        if answer == *b"HTTP/1.1 200" { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
    }
}

fn tell(state: sd_notify::NotifyState<'_>) {
    // Where no systemd listens, this does nothing.
    let _ = sd_notify::notify(&[state]);
}
