//! The threads that serve: one for each core, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, in turn. Nobody steals work, wakes another thread or shares a
//! queue with it: for answers of some microseconds that would be a good part of them.
//!
//! They end with the server, in the order: connections, then threads.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads that serve, until they are dropped.
#[derive(Debug)]
pub(super) struct Workers {
    handles: Vec<Handle>,
    next: usize,
    _stop: DropGuard,
}

impl Workers {
    /// One for each core.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut handles = Vec::new();
        for number in 0..std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            thread.spawn(move || {
                runtime.block_on(stop.cancelled());
                // A thread that still waits for a disk holds nobody up.
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { handles, next: 0, _stop: stop.drop_guard() })
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> &Handle {
        self.next = (self.next + 1) % self.handles.len();
        &self.handles[self.next]
    }
}
