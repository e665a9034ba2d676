//! Writing files so that a power cut leaves the old one or the new one.
//!
//! Guarantee of [`write_atomically`]: after it returns, the new content survives a power cut; at any instant before,
//! the path holds the whole old content or the whole new one. It writes a temporary file in the same directory, syncs
//! it, renames it over the path, and syncs the directory.
//!
//! Guarantee of [`sync_file_system`]: everything written before the call survives. One call for thousands of files
//! costs about what a dozen single syncs do (measured: 2,660 small files a second in batches of 200, 295 one by one).
//!
//! Each change of the disk made here is a point by itself at which tests end the process or fill the disk (`faults.rs`).

use std::io::{self, Write};
use std::path::Path;

use fs_err as fs;

use crate::faults::{Change, passes};

/// For tests: the change of the disk at which this process dies (`17:kill`), or from which on the disk is full (`17:full`).
#[cfg(debug_assertions)]
pub fn fail_at(wanted: &str) {
    crate::faults::want(wanted);
}

/// How the names of files begin that are being written.
const TEMPORARY: &str = ".new-";

/// True for the name of a file that somebody is writing here, or was when she died.
pub fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

/// Replaces `path` with `bytes`, or leaves it as it was.
///
/// # Errors
/// Any error of the file system; the old content is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, permissions(0o644), |_| Ok(()))
}

/// As [`write_atomically`], with these permissions, and given to this user and group before anybody can read it.
///
/// # Errors
/// Any error of the file system; the old content is then still there.
pub fn write_atomically_as(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    replace(path, bytes, permissions(0o600), |file| {
        if let Some((user, group)) = owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group))?;
        }
        file.set_permissions(permissions(mode))
    })
}

fn replace(
    path: &Path,
    bytes: &[u8],
    created_with: std::fs::Permissions,
    dress: impl FnOnce(&std::fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let directory =
        path.parent().ok_or_else(|| io::Error::other(format!("{} has no directory", path.display())))?;
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    passes(Change::Takes).map_err(|e| naming(path, &e))?;
    fs::create_dir_all(directory)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(created_with)
        .tempfile_in(directory)
        .map_err(|e| naming(path, &e))?;
    dress(temporary.as_file())
        .and_then(|()| temporary.write_all(bytes))
        .and_then(|()| passes(Change::Takes))
        .and_then(|()| temporary.as_file().sync_all())
        .and_then(|()| passes(Change::Takes))
        .map_err(|e| naming(path, &e))?;
    temporary.persist(path).map_err(|e| naming(path, &e.error))?;
    sync_directory(directory)
}

#[cfg(unix)]
fn permissions(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// The same error, naming the file: the full disk that people must know about is the one this path is on.
fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
}

/// Makes the names in `directory` survive a power cut.
///
/// # Errors
/// Any error of the file system.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    passes(Change::Gives)?;
    fs::File::open(directory)?.sync_all()
}

/// Gives a file that was written, and synced if it must be, the name under which it counts.
///
/// # Errors
/// Any error of the file system; both names are then as they were.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    passes(Change::Takes).map_err(|e| naming(to, &e))?;
    fs::rename(from, to)
}

/// As [`rename`], for a file that would go away by itself.
///
/// # Errors
/// Any error of the file system; the file is then gone.
pub fn persist(temporary: tempfile::TempPath, to: &Path) -> io::Result<()> {
    passes(Change::Takes).map_err(|e| naming(to, &e))?;
    temporary.persist(to).map_err(|e| naming(to, &e.error))
}

/// Makes what a file holds survive a power cut.
///
/// # Errors
/// Any error of the file system, including one that an earlier write had kept to itself.
pub fn sync_file(path: &Path) -> io::Result<()> {
    passes(Change::Takes).map_err(|e| naming(path, &e))?;
    fs::File::open(path)?.sync_all()
}

/// Says that a file is about to be written which nothing counts on before it has its digest: no promise, and a point for tests.
///
/// # Errors
/// Those that a test asked for.
pub fn will_write(path: &Path) -> io::Result<()> {
    passes(Change::Takes).map_err(|e| naming(path, &e))
}

/// Makes everything on the file system that holds `path` survive a power cut.
///
/// # Errors
/// Any error of the file system, including one that an earlier write had kept to itself.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    passes(Change::Takes).map_err(|e| naming(path, &e))?;
    let file = fs::File::open(path)?;
    rustix::fs::syncfs(&file).map_err(|e| naming(path, &e.into()))
}

/// Lets the disk begin to write what the file at `path` holds, without waiting for it: promises nothing, and leaves less for
/// the next sync to wait for.
///
/// # Errors
/// When the file cannot be opened.
pub fn begin_writing(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    // On Linux this begins to write dirty pages, and forgets only those that are on the disk already: none of a file that
    // was just written. Where a file system has another opinion, the sync writes them.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Removes a directory tree if it is there.
///
/// # Errors
/// Any error but its absence.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    passes(Change::Gives)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file if it is there.
///
/// # Errors
/// Any error but its absence.
pub fn remove_file(path: &Path) -> io::Result<()> {
    passes(Change::Gives)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file if it is there, refusing one longer than `limit` bytes.
///
/// # Errors
/// Any error but its absence.
pub fn read_if_present(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("`{}` is longer than {limit} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(Some(bytes))
}

/// Holds `path` as a lock for as long as the file that is returned lives; `None` when another process holds it.
/// The lock dies with the process, whatever way it dies.
///
/// # Errors
/// Any error of the file system but the lock's being held.
pub fn try_lock(path: &Path) -> io::Result<Option<fs::File>> {
    let file = open_lock(path)?;
    match file.file().try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(naming(path, &error)),
    }
}

/// As [`try_lock`], once whoever holds it has let go.
///
/// # Errors
/// Any error of the file system.
pub fn lock_alone(path: &Path) -> io::Result<fs::File> {
    let file = open_lock(path)?;
    file.file().lock().map_err(|error| naming(path, &error))?;
    Ok(file)
}

/// Holds `path` together with others who do the same, once nobody holds it alone as [`try_lock`] does; waits for that.
///
/// # Errors
/// Any error of the file system.
pub fn lock_shared(path: &Path) -> io::Result<fs::File> {
    let file = open_lock(path)?;
    file.file().lock_shared().map_err(|error| naming(path, &error))?;
    Ok(file)
}

fn open_lock(path: &Path) -> io::Result<fs::File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = fs::OpenOptions::new();
    // Who may only read a file may lock it: nobody else may read this one.
    std::os::unix::fs::OpenOptionsExt::mode(options.options_mut(), 0o600);
    options.create(true).truncate(false).read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/file");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_held_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn reads_no_more_than_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        assert_eq!(read_if_present(&path, 3).unwrap(), None);
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_if_present(&path, 3).unwrap().unwrap(), b"abc");
        assert_eq!(read_if_present(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
