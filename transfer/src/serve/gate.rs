//! What touches a disk, and so may wait: opening, and reading what is not in memory. Nobody who serves waits with it.
//!
//! ```text
//! open    openat2(RESOLVE_CACHED)     the kernel knows the name ─▶ here and now;    else ─▶ a thread, of OPENING
//! pages   preadv2(RWF_NOWAIT), 1 byte in 256 KiB    all there ─▶ send;    else ─▶ read ahead on a thread, of READING
//! ```
//!
//! A hot object is answered in 30 µs and a cold one in the time that the disk takes; without this, one cold read holds up
//! whatever else its thread would have answered (measured, at 100 MB/s: 80 hot answers a second instead of 30,000).
//!
//! A file system or kernel that knows neither call is taken for cold: slower, never stuck.
//!
//! Threats: *many clients that ask for what is cold*: threads are few, and who waits for one waits in order. What was read
//! may be gone from memory again before it is sent: it is sent all the same, so that everybody gets on.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::{Advice, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Threads that open and look: a disk answers some at once.
const OPENING_AT_ONCE: usize = 16;
/// Threads that read ahead: more than a disk of one head can use, and few enough for their memory.
const READING_AT_ONCE: usize = 8;
/// The kernel reads ahead and drops by as much or more, so a page stands for its neighbours.
const PROBE_EVERY: usize = 256 << 10;
/// What a reading thread reads at a time, to throw it away.
const SCRATCH_BYTES: usize = 64 << 10;

static OPENING: Semaphore = Semaphore::const_new(OPENING_AT_ONCE);
static READING: Semaphore = Semaphore::const_new(READING_AT_ONCE);

/// Does what may wait for a disk on a thread of its own.
///
/// # Errors
/// Those of `work`.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let _permit = OPENING.acquire().await.map_err(io::Error::other)?;
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// What can be said of a path without waiting.
#[derive(Debug)]
pub(super) enum Opened {
    Now(File),
    NotThere,
    /// Whoever can wait will know.
    Later,
}

/// Opens a file if that needs no waiting.
pub(super) fn open_at_once(path: &Path) -> Opened {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => Opened::Now(File::from(file)),
        Err(Errno::NOENT | Errno::NOTDIR) => Opened::NotThere,
        // AGAIN is the usual one; whatever else it is, the thread that opens it will know better.
        Err(_) => Opened::Later,
    }
}

/// Opens a file, with all the time it takes; `None` where there is none.
///
/// # Errors
/// Any other of the file system.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file.into_parts().0)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// True when these bytes can be sent without waiting for a disk.
pub(super) fn is_in_memory(file: &File, offset: u64, length: usize) -> bool {
    let probe = |place: usize| {
        let (mut byte, place) = ([0], offset + place as u64);
        rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], place, ReadWriteFlags::NOWAIT).is_ok()
    };
    // What is short was read whole, or not at all.
    (0..length).step_by(PROBE_EVERY).all(probe) && (length < PROBE_EVERY / 2 || probe(length - 1))
}

/// Reads these bytes into memory, as far as the file goes.
///
/// # Errors
/// Any of reading.
pub(super) async fn read_ahead(file: Arc<File>, offset: u64, length: usize) -> io::Result<()> {
    let _permit = READING.acquire().await.map_err(io::Error::other)?;
    let reading = spawn_blocking(move || {
        let _ =
            rustix::fs::fadvise(&*file, offset, std::num::NonZeroU64::new(length as u64), Advice::WillNeed);
        let mut scratch = vec![0; SCRATCH_BYTES.min(length)];
        let mut done = 0;
        while done < length {
            let want = scratch.len().min(length - done);
            match rustix::io::pread(&*file, &mut scratch[..want], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    });
    reading.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_opened_and_found_in_memory_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hot");
        fs::write(&path, vec![7; 300_000]).unwrap();
        let Opened::Now(file) = open_at_once(&path) else { panic!("its name is known, and it is there") };
        // tmpfs knows no RWF_NOWAIT in older kernels; there everything counts as cold.
        let mut byte = [0];
        let probe = rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        assert_eq!(is_in_memory(&file, 0, 300_000), probe.is_ok());
        assert!(open(&directory.path().join("none")).unwrap().is_none());
        assert!(open(&path.join("below")).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_dropped_from_memory_is_cold_until_it_was_read_ahead() {
        // Not below the temporary directory, which may be memory.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; 2 << 20]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let file = Arc::new(file);
        if is_in_memory(&file, 0, 2 << 20) {
            return; // a file system without pages to drop
        }
        read_ahead(file.clone(), 0, 2 << 20).await.unwrap();
        read_ahead(file.clone(), 0, 3 << 20).await.expect("a shorter file is no error here");
        let mut byte = [0];
        let probe = rustix::io::preadv2(&*file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        assert_eq!(is_in_memory(&file, 0, 2 << 20), probe.is_ok());
    }
}
