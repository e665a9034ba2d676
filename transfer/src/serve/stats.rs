//! What a server counts about itself, for a page of metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyper::StatusCode;

use super::cache;

/// The counters of a server; they only rise, but for the connections that are open.
#[derive(Debug, Default)]
pub struct ServeStats {
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) idle_closed: AtomicU64,
    pub(super) slow_closed: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) sendfile_calls: AtomicU64,
    /// By the first digit of the status, from 1 to 5.
    answered: [AtomicU64; 5],
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections closed at once, because their address had too many.
    pub refused: u64,
    /// Connections closed because no request came, or not all of its head.
    pub idle_closed: u64,
    /// Connections closed because what they had asked for was not taken.
    pub slow_closed: u64,
    /// Requests answered, by the first digit of the status: 1xx at 0, 5xx at 4.
    pub answered: [u64; 5],
    /// Bytes that the network took.
    pub bytes: u64,
    /// Calls of sendfile(2) that sent something.
    pub sendfile_calls: u64,
    /// Files answered from memory, by every server of this process.
    pub cache_hits: u64,
    /// Bytes of files in memory.
    pub cache_bytes: u64,
}

impl ServeStats {
    pub(super) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answered[class - 1].fetch_add(1, Relaxed);
    }

    /// The counters now.
    pub fn now(&self) -> Served {
        let (cache_hits, cache_bytes) = cache::hits_and_bytes();
        let (accepted, closed) = (self.accepted.load(Relaxed), self.closed.load(Relaxed));
        Served {
            connections: accepted.saturating_sub(closed),
            accepted,
            refused: self.refused.load(Relaxed),
            idle_closed: self.idle_closed.load(Relaxed),
            slow_closed: self.slow_closed.load(Relaxed),
            answered: self.answered.each_ref().map(|count| count.load(Relaxed)),
            bytes: self.bytes.load(Relaxed),
            sendfile_calls: self.sendfile_calls.load(Relaxed),
            cache_hits,
            cache_bytes,
        }
    }
}
