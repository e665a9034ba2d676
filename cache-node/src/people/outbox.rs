//! What people asked and upstream has not heard yet: the signed requests as they came, sent in order when the link is back.
//!
//! ```text
//! <root>/people/outbox/<number>     removed once upstream took it, or refused it for good
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_identity::MAX_REQUEST_BYTES;

/// A week without a link, of a college whose teachers choose all day. Beyond it, the oldest go: choices are merged by their times.
const MAX_WAITING: usize = 5000;

/// The outbox.
pub(super) struct Outbox {
    directory: PathBuf,
    /// The last number that was given.
    last: Mutex<u64>,
}

impl Outbox {
    pub(super) fn new(directory: &Path) -> Self {
        let outbox = Self { directory: directory.to_owned(), last: Mutex::default() };
        let last = outbox.numbers().last().copied().unwrap_or(0);
        *outbox.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        outbox
    }

    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries
            .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Keeps a request until it was sent.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = self.numbers();
        for oldest in numbers.iter().take((numbers.len() + 1).saturating_sub(MAX_WAITING)) {
            durable::remove_file(&self.directory.join(oldest.to_string()))?;
        }
        *last += 1;
        durable::write_atomically(&self.directory.join(last.to_string()), bytes)
    }

    /// The oldest; one that cannot be read is dropped.
    pub(super) fn first(&self) -> Option<(u64, Vec<u8>)> {
        for number in self.numbers() {
            let path = self.directory.join(number.to_string());
            match durable::read_if_present(&path, MAX_REQUEST_BYTES as u64) {
                Ok(Some(bytes)) => return Some((number, bytes)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "what a person asked cannot be read, and is dropped");
                    durable::remove_file(&path).ok()?;
                }
            }
        }
        None
    }

    pub(super) fn sent(&self, number: u64) -> io::Result<()> {
        durable::remove_file(&self.directory.join(number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_sent_in_order_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(directory.path());
        outbox.put(b"one").unwrap();
        outbox.put(b"two").unwrap();
        let outbox = Outbox::new(directory.path());
        outbox.put(b"three").unwrap();
        for expected in [b"one".as_slice(), b"two", b"three"] {
            let (number, bytes) = outbox.first().unwrap();
            assert_eq!(bytes, expected);
            outbox.sent(number).unwrap();
        }
        assert!(outbox.first().is_none());
    }
}
