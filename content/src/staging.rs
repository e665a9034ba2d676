//! A directory that an archive of somebody else's is unpacked into, and cannot leave.
//!
//! Threats and the defence for each:
//! - *`..`, absolute paths, drive letters*: every path is an [`EntryPath`].
//! - *Writing through a link that the archive made before* (RUSTSEC-2026-0067 and its kind): symbolic links are
//!   remembered and only made at the end, so while files are written the tree holds none.
//! - *The same path twice*: refused; which of the two counts would depend on the reader.
//! - *A hard link to a file outside*: its target must be a file this archive has already given; it becomes a copy.
//! - *Set-uid, devices, odd permissions*: only "executable" is taken over; devices are refused.
//! - *Bombs*: bytes and entries are counted against limits before they are written.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{EntryPath, PathError};

use crate::store::set_mode;

/// What an archive may at most amount to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Files, links and directories.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: mirabelle_manifests::MAX_RELEASE_BYTES, entries: 300_000 }
    }
}

/// Why an entry was refused.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Its path or link target leads elsewhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its path was given before.
    #[error("`{0}` is there twice")]
    Twice(EntryPath),
    /// It would stand beneath a file or a link.
    #[error("`{entry}` stands beneath `{parent}`, which is no directory")]
    BeneathAFile {
        /// The entry.
        entry: EntryPath,
        /// What stands above it.
        parent: String,
    },
    /// A device, pipe, or something unknown.
    #[error("`{0}` is neither a file, a directory nor a link")]
    Special(String),
    /// A hard link to something that did not come before it.
    #[error("`{entry}` is a hard link to `{target}`, which is no file of the archive before it")]
    HardLink {
        /// The entry.
        entry: EntryPath,
        /// What it links to.
        target: String,
    },
    /// More bytes than were declared for it, or fewer.
    #[error("`{entry}` does not have its declared size of {declared} bytes")]
    LyingSize {
        /// The entry.
        entry: EntryPath,
        /// What was declared.
        declared: u64,
    },
    /// More than the limits.
    #[error("`{entry}` takes the archive over {what}")]
    OverLimit {
        /// The entry that did.
        entry: EntryPath,
        /// Which limit.
        what: String,
    },
    /// The entry's bytes could not be read.
    #[error("cannot read `{entry}`")]
    Source {
        /// The entry.
        entry: EntryPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Link,
}

/// The directory and what was put into it.
pub struct Staging {
    root: PathBuf,
    limits: Limits,
    bytes: u64,
    made: BTreeMap<String, Kind>,
    links: Vec<(EntryPath, String)>,
}

impl Staging {
    /// Stages into `root`, an empty directory of ours.
    pub fn new(root: &Path, limits: Limits) -> Self {
        Self { root: root.to_owned(), limits, bytes: 0, made: BTreeMap::new(), links: Vec::new() }
    }

    /// Writes a file, of which `content` gives exactly `size` bytes.
    pub fn file(
        &mut self,
        path: &EntryPath,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), StagingError> {
        self.claim(path, Kind::File)?;
        if size > self.limits.bytes.saturating_sub(self.bytes) {
            let what = format!("{} bytes", self.limits.bytes);
            return Err(StagingError::OverLimit { entry: path.clone(), what });
        }
        self.bytes += size;
        let destination = self.root.join(path.as_str());
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&destination)?;
        let mut buffer = vec![0_u8; 64 << 10];
        let mut written = 0_u64;
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|source| StagingError::Source { entry: path.clone(), source })?;
            written += read as u64;
            if written > size || (read == 0 && written < size) {
                return Err(StagingError::LyingSize { entry: path.clone(), declared: size });
            }
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read])?;
        }
        set_mode(&destination, if executable { 0o755 } else { 0o644 })?;
        Ok(())
    }

    /// Makes a directory, or finds it made.
    pub fn directory(&mut self, path: &EntryPath) -> Result<(), StagingError> {
        if self.made.get(path.as_str()) == Some(&Kind::Directory) {
            return Ok(());
        }
        self.claim(path, Kind::Directory)?;
        Ok(fs::create_dir(self.root.join(path.as_str()))?)
    }

    /// Remembers a symbolic link, to be made at the end.
    pub fn link(&mut self, path: &EntryPath, target: &str) -> Result<(), StagingError> {
        path.check_link(target)?;
        self.claim(path, Kind::Link)?;
        self.links.push((path.clone(), target.to_owned()));
        Ok(())
    }

    /// Copies a file that the archive gave before.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), StagingError> {
        if self.made.get(target.as_str()) != Some(&Kind::File) {
            return Err(StagingError::HardLink { entry: path.clone(), target: target.to_string() });
        }
        let source = self.root.join(target.as_str());
        let metadata = fs::metadata(&source)?;
        let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
        self.file(path, executable, metadata.len(), &mut fs::File::open(&source)?)
    }

    /// Makes the links.
    pub fn finish(self) -> Result<(), StagingError> {
        for (path, target) in self.links {
            fs::os::unix::fs::symlink(&target, self.root.join(path.as_str()))?;
        }
        Ok(())
    }

    /// Registers `path` and makes the directories above it.
    fn claim(&mut self, path: &EntryPath, kind: Kind) -> Result<(), StagingError> {
        if self.made.len() >= self.limits.entries {
            let what = format!("{} entries", self.limits.entries);
            return Err(StagingError::OverLimit { entry: path.clone(), what });
        }
        for parent in path.ancestors() {
            match self.made.get(parent) {
                Some(Kind::Directory) => {}
                Some(_) => {
                    return Err(StagingError::BeneathAFile {
                        entry: path.clone(),
                        parent: parent.to_owned(),
                    });
                }
                None => {
                    fs::create_dir(self.root.join(parent))?;
                    self.made.insert(parent.to_owned(), Kind::Directory);
                }
            }
        }
        if self.made.insert(path.as_str().to_owned(), kind).is_some() {
            return Err(StagingError::Twice(path.clone()));
        }
        Ok(())
    }
}
