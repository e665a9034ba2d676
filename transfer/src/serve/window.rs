//! How a file's pages pass through hyper without being read.
//!
//! hyper writes what a body gives it as slices of memory. For a window of a file the body gives a *stand-in*: a slice of
//! one block of zeros that every window shares, as long as the window is. The socket beneath hyper knows that block by its
//! address, takes the connection's next window instead, and sends that with sendfile(2).
//!
//! ```text
//! body.rs     Window{file, 3 MiB.., 1 MiB} ──▶ Windows (a queue of this connection)
//!    └▶ hyper: [ head ][ stand-in, 1 MiB ] ──▶ socket.rs   writev(head, MSG_MORE), sendfile(file, 3 MiB.., 1 MiB)
//! ```
//!
//! Nothing of the file is mapped, so there is nothing to unmap and no SIGBUS when it becomes shorter: sendfile says so.
//!
//! Invariant: hyper writes the slices of one HTTP/1 connection in the order in which it got them, each once; so the first
//! window of the queue is the one that a stand-in stands for. How far that window was sent is where the stand-in's slice
//! must begin, and what is left of the one must be the length of the other: both are compared each time. And when hyper
//! flushes, the queue must be empty. So a hyper that copied stand-ins would be found out at once, and the connection be
//! broken off.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The most that is sent after one look whether it is in memory.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// Never written and never read, so it is no memory either: fresh zeros of the allocator's, for as long as the process.
static STAND_IN: LazyLock<&'static [u8]> =
    LazyLock::new(|| Box::leak(vec![0; WINDOW_BYTES].into_boxed_slice()));

/// A part of a file.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) file: Arc<File>,
    /// Where it begins; goes on with what was sent.
    pub(super) offset: u64,
    /// At most [`WINDOW_BYTES`].
    pub(super) left: usize,
    sent: usize,
}

impl Window {
    pub(super) fn new(file: Arc<File>, offset: u64, length: usize) -> Self {
        Self { file, offset, left: length, sent: 0 }
    }

    pub(super) fn advance(&mut self, sent: usize) {
        self.offset += sent as u64;
        self.left -= sent;
        self.sent += sent;
    }
}

/// The windows of one connection that hyper has the stand-ins of, in order.
#[derive(Debug, Default)]
pub(super) struct Windows(Mutex<VecDeque<Window>>);

impl Windows {
    /// Takes a window in; what hyper is to write for it.
    pub(super) fn push(&self, window: Window) -> Bytes {
        let stand_in = Bytes::from_static(&STAND_IN[..window.left]);
        self.lock().push_back(window);
        stand_in
    }

    /// The window that `stand_in` stands for.
    ///
    /// # Errors
    /// Where it stands for none: see the invariant.
    pub(super) fn first(&self, stand_in: &[u8]) -> io::Result<Window> {
        let queue = self.lock();
        let first = queue.front();
        let right =
            first.filter(|window| window.left == stand_in.len() && Some(window.sent) == place(stand_in));
        right
            .cloned()
            .ok_or_else(|| io::Error::other("the body's windows and what is written of it disagree"))
    }

    /// Notes that so much of the first window was sent.
    pub(super) fn advance(&self, sent: usize) {
        let mut queue = self.lock();
        if let Some(first) = queue.front_mut() {
            first.advance(sent);
            if first.left == 0 {
                queue.pop_front();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where in the block a slice begins, if it is one of it.
fn place(slice: &[u8]) -> Option<usize> {
    let place = slice.as_ptr().addr().checked_sub(STAND_IN.as_ptr().addr())?;
    (place < WINDOW_BYTES).then_some(place)
}

/// True for a stand-in.
pub(super) fn stands_in(slice: &[u8]) -> bool {
    place(slice).is_some() && !slice.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_known_by_its_address_and_stands_for_the_first_window_only() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let windows = Windows::default();
        let first = windows.push(Window::new(file.clone(), 10, 100));
        let second = windows.push(Window::new(file, 110, 50));
        assert!(stands_in(&first) && stands_in(&second[7..]));
        assert!(!stands_in(&[0; 100]) && !stands_in(b""));

        assert_eq!(windows.first(&first).unwrap().offset, 10);
        assert!(windows.first(&second).is_err(), "written before the first");
        windows.advance(30);
        assert!(windows.first(&first).is_err(), "written twice");
        assert_eq!(windows.first(&first[30..]).unwrap().offset, 40);
        windows.advance(70);
        assert_eq!(windows.first(&second).unwrap().left, 50);
        windows.advance(50);
        assert!(windows.is_empty());
    }
}
