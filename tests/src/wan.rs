//! A link: a TCP proxy with a rate, a delay, counters and faults, since the kernel here shapes rates but not delays.
//!
//! All connections share the link, each direction by itself: a token bucket without burst says when the next piece may
//! leave, and each piece arrives `delay` after it left. Counters see payload bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Bytes that travel as one over a link with a rate: short enough that a slow link is smooth.
const PIECE_BYTES: usize = 8 << 10;
/// Bytes that travel as one over a link without.
const LARGE_PIECE_BYTES: usize = 256 << 10;
/// How late a timer may fire without the link losing what it could have carried meanwhile.
const LATENESS: Duration = Duration::from_millis(10);
/// Waits shorter than this are left out, since timers are no finer; the next piece makes up for them.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// Pieces under way in one direction of one connection.
const PIECES_UNDER_WAY: usize = 64;

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// Megabits a second.
pub const fn mbit(megabits: u64) -> Rate {
    Rate(megabits * 1_000_000 / 8)
}

/// What goes wrong on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are closed as soon as they are accepted.
    Down,
    /// Every connection is cut after so many bytes downstream.
    CutEvery(u64),
    /// The link is down once so many requests were carried up; those are answered.
    AfterRequests(u64),
}

/// A link that runs until it is dropped.
pub struct Wan {
    address: SocketAddr,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    upstream: Mutex<SocketAddr>,
    rate: Option<Rate>,
    delay: Duration,
    down: Direction,
    up: Direction,
    fault: Mutex<Fault>,
    /// Requests that were carried up, or would have been.
    requests: AtomicU64,
}

#[derive(Default)]
struct Direction {
    bytes: AtomicU64,
    /// When the link is free again.
    free: Mutex<Option<Instant>>,
}

impl Wan {
    /// A link to `upstream`, as fast as `rate` if one is given, every piece arriving `delay` later.
    pub fn start(upstream: &str, rate: Option<Rate>, delay: Duration) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream: Mutex::new(socket(upstream)),
            rate,
            delay,
            down: Direction::default(),
            up: Direction::default(),
            fault: Mutex::new(Fault::None),
            requests: AtomicU64::new(0),
        });
        runtime.spawn(accept(listener, state.clone()));
        Self { address, state, _runtime: runtime }
    }

    /// Where its near end listens.
    pub fn address(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Points its far end elsewhere, for connections to come.
    pub fn lead_to(&self, upstream: &str) {
        *self.state.upstream.lock().unwrap() = socket(upstream);
    }

    /// Bytes that came down so far.
    pub fn down(&self) -> u64 {
        self.state.down.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that went up so far.
    pub fn up(&self) -> u64 {
        self.state.up.bytes.load(Ordering::Relaxed)
    }

    /// Requests that went up so far.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Makes something go wrong from now on.
    pub fn fail(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }
}

fn socket(url: &str) -> SocketAddr {
    url.trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .expect("the address of a server on loopback")
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let state = state.clone();
        tokio::spawn(async move {
            let fault = *state.fault.lock().unwrap();
            let budget = match fault {
                Fault::Down => return,
                Fault::AfterRequests(most) if state.requests.load(Ordering::Relaxed) >= most => return,
                Fault::CutEvery(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
                Fault::None | Fault::AfterRequests(_) => i64::MAX,
            };
            let upstream = *state.upstream.lock().unwrap();
            let Ok(far) = TcpStream::connect(upstream).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            let budget = Arc::new(AtomicI64::new(budget));
            let down = carry(far_read, near_write, &state, &state.down, Some(&budget));
            let up = carry(near_read, far_write, &state, &state.up, None);
            // Whichever end closes first, the other is closed once its last piece has arrived.
            tokio::join!(down, up);
        });
    }
}

/// Carries one direction of one connection, until it ends or its budget is spent. Only what comes down has a budget.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: &State,
    direction: &Direction,
    budget: Option<&AtomicI64>,
) {
    let (send, mut receive) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(PIECES_UNDER_WAY);
    let reading = async {
        let mut buffer = vec![0; if state.rate.is_some() { PIECE_BYTES } else { LARGE_PIECE_BYTES }];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let left = budget
                .map_or(i64::MAX, |budget| budget.fetch_sub(i64::try_from(read).unwrap(), Ordering::Relaxed));
            if left <= 0 {
                break;
            }
            if budget.is_none() && !state.admits(&buffer[..read]) {
                break;
            }
            let leaves = direction.leave(read as u64, state.rate);
            wait_until(leaves).await;
            direction.bytes.fetch_add(read as u64, Ordering::Relaxed);
            if send.send((leaves + state.delay, buffer[..read].to_vec())).await.is_err() {
                break;
            }
        }
        drop(send);
    };
    let writing = async {
        while let Some((arrives, piece)) = receive.recv().await {
            wait_until(arrives).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        receive.close();
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

async fn wait_until(instant: Instant) {
    if instant > Instant::now() + SHORTEST_WAIT {
        tokio::time::sleep_until(instant).await;
    }
}

impl State {
    /// Counts what goes up; false for a request beyond those that the link carries. A client waits for each answer before it
    /// asks again, so that a request begins a piece.
    fn admits(&self, piece: &[u8]) -> bool {
        if !piece.starts_with(b"GET ") && !piece.starts_with(b"HEAD ") {
            return true;
        }
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        !matches!(*self.fault.lock().unwrap(), Fault::AfterRequests(most) if before >= most)
    }
}

impl Direction {
    /// When `bytes` more have left, if they queue up now.
    fn leave(&self, bytes: u64, rate: Option<Rate>) -> Instant {
        let now = Instant::now();
        let Some(Rate(rate)) = rate else { return now };
        let mut free = self.free.lock().unwrap();
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        // A timer that fired late does not slow the link down: the piece after it leaves when it would have.
        let earliest = now.checked_sub(LATENESS).unwrap_or(now);
        let leaves =
            free.unwrap_or(now).max(earliest) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap());
        *free = Some(leaves);
        leaves
    }
}
