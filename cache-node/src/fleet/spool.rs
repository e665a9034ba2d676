//! Reports that the origin does not have yet: files of lines, in order.
//!
//! ```text
//! <root>/fleet/spool/<number>     what came in one request; removed once the origin has stored it
//! ```

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_transfer::reports::MAX_LINES_BYTES;

/// A month without a link, of a large college. Beyond it nothing is taken: machines keep what they have to say.
const MAX_FILES: usize = 100_000;
/// What is sent at once, before it is packed: little, since an origin that does not take it is sent it again.
const MAX_SENT_BYTES: usize = 64 << 10;

/// The files.
pub(super) struct Spool {
    directory: PathBuf,
    /// Their numbers, in order.
    numbers: Vec<u64>,
    last: u64,
}

/// The oldest, as they are sent together.
pub(super) struct Batch {
    pub(super) lines: Vec<String>,
    numbers: Vec<u64>,
}

impl Spool {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(directory)? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let last = numbers.last().copied().unwrap_or(0);
        Ok(Self { directory: directory.to_owned(), numbers, last })
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Keeps lines, on the disk when this returns.
    pub(super) fn put(&mut self, lines: &[String]) -> io::Result<()> {
        if self.numbers.len() >= MAX_FILES {
            return Err(io::Error::other("the origin has not taken reports for too long"));
        }
        self.last += 1;
        durable::write_atomically(&self.directory.join(self.last.to_string()), lines.join("\n").as_bytes())?;
        self.numbers.push(self.last);
        Ok(())
    }

    /// The oldest; what cannot be read is passed over.
    pub(super) fn oldest(&self) -> Batch {
        self.read(&self.numbers, MAX_SENT_BYTES)
    }

    /// Everything.
    pub(super) fn all(&self) -> Batch {
        self.read(&self.numbers, usize::MAX)
    }

    fn read(&self, all: &[u64], most: usize) -> Batch {
        let (mut lines, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
        for number in all {
            if bytes >= most {
                break;
            }
            match durable::read_if_present(&self.directory.join(number.to_string()), MAX_LINES_BYTES as u64) {
                Ok(Some(text)) => {
                    bytes += text.len();
                    lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "reports on the disk cannot be read, and are lost"),
            }
            numbers.push(*number);
        }
        Batch { lines, numbers }
    }

    /// The origin has stored them.
    pub(super) fn sent(&mut self, batch: &Batch) -> io::Result<()> {
        for number in &batch.numbers {
            durable::remove_file(&self.directory.join(number.to_string()))?;
        }
        self.numbers.retain(|number| !batch.numbers.contains(number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_sent_in_order_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path()).unwrap();
        spool.put(&["1".to_owned(), "2".to_owned()]).unwrap();
        spool.put(&["3".to_owned()]).unwrap();
        let mut spool = Spool::open(directory.path()).unwrap();
        let batch = spool.oldest();
        assert_eq!(batch.lines, ["1", "2", "3"]);
        spool.put(&["4".to_owned()]).unwrap();
        spool.sent(&batch).unwrap();
        assert_eq!(spool.oldest().lines, ["4"]);
        assert_eq!(Spool::open(directory.path()).unwrap().oldest().lines, ["4"]);
    }
}
