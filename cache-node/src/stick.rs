//! A directory that somebody carries from place to place: a USB stick, a disk.
//!
//! Invariant: whatever is read or written by its name below the directory lies in it. The directory itself is the one that a
//! person named, and may be a link.
//!
//! Threats and the defence for each:
//! - *A link on the stick that leads elsewhere*: no part of a name below the directory may be one, for reading or writing.
//! - *A pipe or a device, which a reader would wait for or wake*: only plain files are looked into.
//! - *Somebody who changes the stick between the look and the use*: not defended here. What is read is compared with its signed
//!   digest, so that she gains a failed import; a stick should be written while nobody else can.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Such a directory.
#[derive(Clone, Debug)]
pub(crate) struct Stick {
    directory: PathBuf,
}

/// Why a name on it is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StickError {
    /// It, or a directory on the way to it, is a symbolic link.
    #[error("`{0}` is a symbolic link, and none is followed there")]
    Link(PathBuf),
    /// It is no plain file, or a part of the way to it is no directory.
    #[error("`{0}` is neither a plain file nor a directory that leads to one")]
    Special(PathBuf),
    /// It ends before it should.
    #[error("`{0}` is shorter than it should be")]
    Short(PathBuf),
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Stick {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a name leads, unlooked at.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    /// The length of the plain file of this name; `None` if nothing is there.
    pub(crate) fn length(&self, below: &str) -> Result<Option<u64>, StickError> {
        let mut path = self.directory.clone();
        let mut parts = below.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let is_last = parts.peek().is_none();
            if found.is_symlink() {
                return Err(StickError::Link(path));
            } else if is_last && found.is_file() {
                return Ok(Some(found.len()));
            } else if is_last || !found.is_dir() {
                return Err(StickError::Special(path));
            }
        }
        Ok(None)
    }

    /// Where a file of this name is to be written, once the directories that lead there are made.
    pub(crate) fn place(&self, below: &str) -> Result<PathBuf, StickError> {
        self.length(below)?;
        let path = self.path(below);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(path)
    }

    /// The names of all plain files below a directory of it. Links and whatever else there is are not among them.
    pub(crate) fn files(&self, below: &str) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        let mut directories = vec![below.to_owned()];
        while let Some(directory) = directories.pop() {
            let path = self.path(&directory);
            if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let (below, kind) = (format!("{directory}/{name}"), entry.file_type()?);
                if kind.is_dir() {
                    directories.push(below);
                } else if kind.is_file() {
                    files.push(below);
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_within_are_looked_at_and_written() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stick = Stick::new(directory.path());
        fs::write(elsewhere.path().join("secret"), "x").unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/file"), "four").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), directory.path().join("out")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("secret"), directory.path().join("a/link")).unwrap();

        assert_eq!(stick.length("a/b/file").unwrap(), Some(4));
        assert_eq!(stick.length("a/b/none").unwrap(), None);
        assert_eq!(stick.length("none/at/all").unwrap(), None);
        for link in ["out/secret", "a/link"] {
            assert!(matches!(stick.length(link), Err(StickError::Link(_))), "{link}");
            assert!(matches!(stick.place(link), Err(StickError::Link(_))), "{link}");
        }
        for special in ["a/b", "a/b/file/more"] {
            assert!(matches!(stick.length(special), Err(StickError::Special(_))), "{special}");
        }
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        assert!(matches!(stick.length("socket"), Err(StickError::Special(_))));
        assert!(stick.place("new/directory/file").unwrap().parent().unwrap().is_dir());
        assert_eq!(stick.files("a").unwrap(), ["a/b/file"]);
        assert!(stick.files("out").unwrap().is_empty());
    }
}
