//! Accepting connections, and serving each within its limits.
//!
//! ```text
//! accept ──▶ a place for its address? ──▶ (TLS) ──▶ HTTP/1.1 or 2 ──▶ the handler ──▶ body
//!    └ one task: accepts, looks at the watch each tick, takes leave of finished connections; connections are served
//!      by threads of their own (`workers.rs`)
//! stop ──▶ accepts no more ──▶ idle connections close, others after their answer ──▶ whoever is left after drain_time
//! ```
//!
//! A server whose socket was passed to it leaves it to the next one: that accepts while this one drains.
//!
//! Threats: *no file descriptor left*: nothing is accepted for a moment, rather than spin. *A body that was announced
//! too long*: refused before the handler sees the request. For time and slowness see `watch.rs`.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::body::{Body, Outgoing};
use super::cache;
use super::limits::{Limits, Peers, raise_open_files};
use super::problem;
use super::socket::Socket;
use super::stats::ServeStats;
use super::tls::Tls;
use super::watch::{Pulse, Watch};
use super::workers::Workers;

/// How long to wait when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests at once on one connection of HTTP/2, and bytes of each that wait to be sent.
const STREAMS: u32 = 16;
const STREAM_BYTES: usize = 128 << 10;
/// A peer of HTTP/2 that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A server to be.
#[derive(Clone, Debug, Default)]
pub struct Server {
    limits: Limits,
    tls: Option<Tls>,
    stats: Arc<ServeStats>,
}

/// Serves `listener` with `handler` until `stop`, with the usual limits; see [`Server::run`].
pub async fn run<H, F>(listener: TcpListener, handler: H, stop: CancellationToken)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Server::default().run(listener, handler, stop).await;
}

impl Server {
    /// With these limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With TLS, and without it not at all.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Counts here.
    pub fn stats(mut self, stats: Arc<ServeStats>) -> Self {
        self.stats = stats;
        self
    }

    /// Serves `listener` with `handler` until `stop`, then lets running responses finish for a while.
    pub async fn run<H, F>(self, listener: TcpListener, handler: H, stop: CancellationToken)
    where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let Self { limits, tls, stats } = self;
        raise_open_files();
        let (protocol, peers, draining) = (protocol(&limits), Peers::default(), CancellationToken::new());
        let mut watch = Watch::new(limits.clone(), stats.clone());
        let mut connections = JoinSet::new();
        let mut workers = Workers::start().inspect_err(|error| {
            tracing::warn!(%error, "there are no threads to serve with: served by those of the whole process");
        });
        let mut ticks = tokio::time::interval(watch.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                // Whoever comes after that is the next server's.
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    watch.look();
                    cache::close_unused();
                    continue;
                }
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept(), if connections.len() < limits.connections => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free rather than spin.
                    tracing::warn!(%error, "connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = peers.place(peer.ip(), limits.connections_of_one) else {
                stats.refused.fetch_add(1, Relaxed);
                tracing::warn!(peer = %peer.ip(), "a machine has too many connections, and the next is closed");
                continue;
            };
            stats.accepted.fetch_add(1, Relaxed);
            let pulse = watch.pulse();
            let connection = Connection {
                peer,
                pulse: pulse.clone(),
                handler: handler.clone(),
                body_bytes: limits.body_bytes,
                protocol: protocol.clone(),
                draining: draining.clone(),
            };
            let closing = Closing(stats.clone());
            let stream = stream.into_std();
            let tls = tls.clone();
            let serving = async move {
                match stream.and_then(TcpStream::from_std) {
                    Ok(stream) => connection.serve(stream, tls).await,
                    Err(error) => tracing::warn!(%error, "connection could not be handed to its thread"),
                }
                drop((place, closing));
            };
            let task = match &mut workers {
                Ok(workers) => connections.spawn_on(serving, workers.next()),
                Err(_) => connections.spawn(serving),
            };
            watch.over(pulse, task);
        }
        drop(listener);
        draining.cancel();
        let all_done = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(limits.drain_time, all_done).await;
        connections.shutdown().await;
    }
}

/// Counts a connection as closed, however it ended.
struct Closing(Arc<ServeStats>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

type Protocol = Builder<TokioExecutor>;

fn protocol(limits: &Limits) -> Protocol {
    let mut protocol = Builder::new(TokioExecutor::new());
    protocol
        .http1()
        // The watch sees to that, without a timer for each request.
        .header_read_timeout(None)
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_bytes.max(8192))
        .writev(true)
        .timer(TokioTimer::new());
    protocol
        .http2()
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(STREAM_BYTES)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .timer(TokioTimer::new());
    protocol
}

/// One connection, and all it needs.
struct Connection<H> {
    peer: SocketAddr,
    pulse: Arc<Pulse>,
    handler: H,
    body_bytes: u64,
    protocol: Protocol,
    draining: CancellationToken,
}

impl<H, F> Connection<H>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn serve(self, stream: TcpStream, tls: Option<Tls>) {
        // Answers go out whole: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream, self.pulse.clone());
        match tls {
            None => self.speak(socket, true).await,
            Some(tls) => match tls.acceptor().accept(socket).await {
                Ok(socket) => self.speak(socket, false).await,
                Err(error) => tracing::debug!(%error, peer = %self.peer, "TLS was not agreed on"),
            },
        }
    }

    async fn speak(self, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, by_sendfile: bool) {
        let Self { peer, pulse, handler, body_bytes, protocol, draining } = self;
        let waiting = pulse.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let multiplexed = request.version() == Version::HTTP_2;
            let answering = pulse.begin(multiplexed);
            let answer = (request.body().size_hint().lower() <= body_bytes).then(|| handler(request, peer));
            async move {
                let response = match answer {
                    Some(answer) => answer.await,
                    None => too_long(multiplexed),
                };
                answering.count(response.status());
                let by_sendfile = by_sendfile && !multiplexed;
                Ok::<_, Infallible>(response.map(|body| Outgoing { body, answering, by_sendfile }))
            }
        });
        let mut connection = std::pin::pin!(protocol.serve_connection(TokioIo::new(socket), service));
        let (mut stop, mut is_draining, mut told) = (std::pin::pin!(draining.cancelled()), false, false);
        let served = std::future::poll_fn(|context| {
            loop {
                is_draining = is_draining || stop.as_mut().poll(context).is_ready();
                // Who was accepted and is about to ask gets an answer first.
                if is_draining && !told && waiting.has_asked() {
                    connection.as_mut().graceful_shutdown();
                    told = true;
                }
                let ended = connection.as_mut().poll(context);
                if ended.is_ready() || told || !is_draining || !waiting.has_asked() {
                    return ended;
                }
            }
        });
        if let Err(error) = served.await {
            tracing::debug!(%error, %peer, "connection broke");
        }
    }
}

fn too_long(multiplexed: bool) -> Response<Body> {
    let mut response = problem(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long");
    if !multiplexed {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
