//! Who holds a connection without using it: found once a tick, and closed.
//!
//! ```text
//! waiting ──first byte──▶ head ──▶ answering ──▶ waiting        at most idle_time in waiting, head_time in head
//!                                     └ blocked: the network takes nothing more     at least slow_bytes in slow_time
//! ```
//!
//! Each connection notes where it stands in a few atomics, and one task looks at them all: no request sets a timer.
//! Times are exact to a tick, which is a quarter of the shortest of them and a second at most.
//!
//! What the network takes is what the system's buffer took, and when that has been full it says so only after a third of
//! it has drained, which at a snail's pace is later than `slow_time`. So before a connection is called slow it is nudged:
//! it tries once to send, whatever the system said.
//!
//! Threats and the defence for each:
//! - *Slowloris: a head that never ends*: the time counts from its first byte, and no further byte extends it.
//! - *Connections that ask for nothing*: when nearly all places are taken, the idle ones have a second left.
//! - *A client that asks for much and takes it by the byte*: closed, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::StatusCode;
use tokio::task::AbortHandle;

use super::limits::Limits;
use super::stats::ServeStats;
use super::window::Windows;

const NEW: u8 = 0;
const WAITING: u8 = 1;
const HEAD: u8 = 2;
const ANSWERING: u8 = 3;

/// Of the places, so many of ten are taken when idle connections are no longer kept.
const CROWDED_TENTHS: usize = 9;
/// What they have then.
const IDLE_IN_A_CROWD: Duration = Duration::from_secs(1);

/// Ticks since the server started.
#[derive(Clone, Debug, Default)]
struct Clock(Arc<AtomicU32>);

/// Where one connection stands.
#[derive(Debug)]
pub(super) struct Pulse {
    clock: Clock,
    phase: AtomicU8,
    /// The tick in which the phase began.
    since: AtomicU32,
    /// Requests being answered; more than one with HTTP/2 only.
    answering: AtomicU32,
    /// Many requests at once: bytes that come need not be a head.
    multiplexed: AtomicBool,
    blocked: AtomicBool,
    nudged: AtomicBool,
    sent: AtomicU64,
    writer: AtomicWaker,
    pub(super) windows: Windows,
    pub(super) stats: Arc<ServeStats>,
}

impl Pulse {
    /// Bytes came.
    pub(super) fn heard(&self) {
        if self.phase.load(Relaxed) <= WAITING && !self.multiplexed.load(Relaxed) {
            // A new connection's time counts from its beginning, whatever comes.
            if self.phase.swap(HEAD, Relaxed) == WAITING {
                self.since.store(self.clock.0.load(Relaxed), Relaxed);
            }
        }
    }

    /// The network took some bytes.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
        self.stats.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The network takes no more for now.
    pub(super) fn blocked(&self, writer: &std::task::Waker) {
        self.writer.register(writer);
        self.blocked.store(true, Relaxed);
    }

    /// True once after each nudge: it is time to try and send.
    pub(super) fn was_nudged(&self) -> bool {
        self.nudged.load(Relaxed) && self.nudged.swap(false, Relaxed)
    }

    /// True when no first request is awaited, and none is half here.
    pub(super) fn has_asked(&self) -> bool {
        matches!(self.phase.load(Relaxed), WAITING | ANSWERING)
    }

    /// A request is here.
    pub(super) fn begin(self: &Arc<Self>, multiplexed: bool) -> Answering {
        self.multiplexed.store(multiplexed, Relaxed);
        self.answering.fetch_add(1, Relaxed);
        self.phase.store(ANSWERING, Relaxed);
        Answering(self.clone())
    }
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Pulse>);

impl Answering {
    pub(super) fn windows(&self) -> &Windows {
        &self.0.windows
    }

    pub(super) fn count(&self, status: StatusCode) {
        self.0.stats.count(status);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.0.answering.fetch_sub(1, Relaxed) == 1 {
            self.0.since.store(self.0.clock.0.load(Relaxed), Relaxed);
            self.0.phase.store(WAITING, Relaxed);
        }
    }
}

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Clock,
    watched: Vec<Watched>,
    stats: Arc<ServeStats>,
    limits: Limits,
    tick: Duration,
}

#[derive(Debug)]
struct Watched {
    pulse: Arc<Pulse>,
    task: AbortHandle,
    /// Since when it has been blocked, and what it had sent by then.
    slow: Option<(u32, u64)>,
}

impl Watch {
    pub(super) fn new(limits: Limits, stats: Arc<ServeStats>) -> Self {
        let shortest = limits.head_time.min(limits.idle_time).min(limits.slow_time);
        let tick = (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1));
        Self { clock: Clock::default(), watched: Vec::new(), stats, limits, tick }
    }

    /// How often to [`Watch::look`].
    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    /// The pulse of a new connection.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::new(Pulse {
            clock: self.clock.clone(),
            phase: AtomicU8::new(NEW),
            since: AtomicU32::new(self.clock.0.load(Relaxed)),
            answering: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            writer: AtomicWaker::new(),
            windows: Windows::default(),
            stats: self.stats.clone(),
        })
    }

    /// Watches the connection whose pulse this is and which `task` serves.
    pub(super) fn over(&mut self, pulse: Arc<Pulse>, task: AbortHandle) {
        self.watched.push(Watched { pulse, task, slow: None });
    }

    /// Looks at all of them, a tick after the last time.
    pub(super) fn look(&mut self) {
        let now = self.clock.0.fetch_add(1, Relaxed) + 1;
        self.watched.retain(|watched| !watched.task.is_finished());
        let crowded = self.watched.len() * 10 >= self.limits.connections * CROWDED_TENTHS;
        let idle_time =
            if crowded { self.limits.idle_time.min(IDLE_IN_A_CROWD) } else { self.limits.idle_time };
        let tick = self.tick;
        let ticks = |time: Duration| {
            u32::try_from(time.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(u32::MAX)
        };
        let (idle, head, slow) =
            (ticks(idle_time), ticks(self.limits.head_time), ticks(self.limits.slow_time));
        for watched in &mut self.watched {
            let pulse = &watched.pulse;
            let passed = now.saturating_sub(pulse.since.load(Relaxed));
            // What is said last may still be on its way out.
            let blocked = pulse.blocked.load(Relaxed);
            let late = match pulse.phase.load(Relaxed) {
                NEW | HEAD => passed > head,
                WAITING => !blocked && passed > idle,
                _ => false,
            };
            if late {
                self.stats.idle_closed.fetch_add(1, Relaxed);
                watched.task.abort();
                continue;
            }
            let sent = pulse.sent.load(Relaxed);
            match watched.slow {
                _ if !blocked => watched.slow = None,
                None => watched.slow = Some((now, sent)),
                Some((_, before)) if sent - before >= self.limits.slow_bytes => {
                    watched.slow = Some((now, sent));
                }
                Some((since, _)) if now - since > slow => {
                    self.stats.slow_closed.fetch_add(1, Relaxed);
                    tracing::debug!("a connection took too little for too long, and is closed");
                    watched.task.abort();
                }
                Some((since, _)) if now - since == slow => {
                    pulse.nudged.store(true, Relaxed);
                    pulse.writer.wake();
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        let second = Duration::from_secs(1);
        let limits = Limits {
            connections: 10,
            head_time: 4 * second,
            idle_time: 10 * second,
            slow_time: 6 * second,
            slow_bytes: 1000,
            ..Limits::default()
        };
        Watch::new(limits, Arc::default())
    }

    /// A connection whose task never ends by itself.
    fn connect(watch: &mut Watch) -> (Arc<Pulse>, tokio::task::JoinHandle<()>) {
        let (pulse, task) = (watch.pulse(), tokio::spawn(std::future::pending()));
        watch.over(pulse.clone(), task.abort_handle());
        (pulse, task)
    }

    /// In which look the task is closed, of so many.
    async fn closed_after(watch: &mut Watch, task: &tokio::task::JoinHandle<()>, looks: u32) -> Option<u32> {
        for look in 1..=looks {
            watch.look();
            tokio::task::yield_now().await;
            if task.is_finished() {
                return Some(look);
            }
        }
        None
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_waited_for_whatever_trickles_in() {
        let mut watch = watch();
        let (pulse, task) = connect(&mut watch);
        watch.look();
        pulse.heard();
        watch.look();
        pulse.heard();
        assert_eq!(closed_after(&mut watch, &task, 9).await, Some(3));
    }

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_its_time_and_a_busy_one_for_as_long_as_it_takes() {
        let mut watch = watch();
        let (pulse, task) = connect(&mut watch);
        let answering = pulse.begin(false);
        assert_eq!(closed_after(&mut watch, &task, 100).await, None);
        drop(answering);
        assert_eq!(closed_after(&mut watch, &task, 100).await, Some(11));
        assert_eq!(watch.stats.now().idle_closed, 1);
    }

    #[tokio::test]
    async fn in_a_crowd_idle_connections_go_first() {
        let mut watch = watch();
        let connections: Vec<_> = (0..9).map(|_| connect(&mut watch)).collect();
        let busy: Vec<_> = connections[1..].iter().map(|(pulse, _)| pulse.begin(false)).collect();
        drop(connections[0].0.begin(false));
        assert_eq!(closed_after(&mut watch, &connections[0].1, 9).await, Some(2));
        drop(busy);
    }

    #[tokio::test]
    async fn who_takes_too_little_is_nudged_and_then_closed_and_who_takes_enough_is_not() {
        let mut watch = watch();
        let (pulse, task) = connect(&mut watch);
        let _answering = pulse.begin(false);
        let waker = std::task::Waker::noop();
        for _ in 0..5 {
            // 1000 bytes in 6 s are enough.
            pulse.blocked(waker);
            assert_eq!(closed_after(&mut watch, &task, 6).await, None);
            pulse.sent(1000);
            pulse.blocked(waker);
        }
        assert!(!pulse.was_nudged());
        pulse.sent(999);
        pulse.blocked(waker);
        assert_eq!(closed_after(&mut watch, &task, 7).await, None);
        assert!(pulse.was_nudged() && !pulse.was_nudged());
        assert_eq!(closed_after(&mut watch, &task, 1).await, Some(1));
        assert_eq!(watch.stats.now().slow_closed, 1);
    }
}
