//! A directory as a release sees it: its files with their digests, its links, its empty directories.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{Digest, EntryPath, Mode, PathError};

use crate::digest;

/// How many files one release may hold.
const MAX_ENTRIES: usize = 300_000;

/// Something at a path of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where, relative to the tree.
    pub path: EntryPath,
    /// What.
    pub node: SourceNode,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceNode {
    /// A regular file.
    File {
        /// Executable by its owner, or not.
        mode: Mode,
        /// Digest of its bytes.
        sha256: Digest,
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link that stays inside the tree.
    Link {
        /// Its target as written.
        target: String,
    },
    /// A directory with nothing in it.
    Directory,
}

/// Why a directory cannot become a release.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A name that is not UTF-8.
    #[error("`{0}` has a name that is not UTF-8")]
    NotUtf8(PathBuf),
    /// A name or link that a release may not have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A device, a pipe or a socket.
    #[error("`{0}` is neither a file, a directory nor a link")]
    Special(PathBuf),
    /// More entries than a release may have.
    #[error("more than {MAX_ENTRIES} files")]
    TooMany,
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the tree at `root`, sorted by path. Every file is read once, for its digest; `progress` hears of each.
pub fn scan_tree(root: &Path, progress: &mut dyn FnMut(u64)) -> Result<Vec<SourceFile>, TreeError> {
    let mut found = Vec::new();
    scan_directory(root, "", &mut found, progress)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn scan_directory(
    directory: &Path,
    prefix: &str,
    found: &mut Vec<SourceFile>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), TreeError> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| TreeError::NotUtf8(entry.path()))?;
        let path: EntryPath = format!("{prefix}{name}").parse()?;
        let metadata = entry.metadata()?;
        let node = if metadata.is_dir() {
            if fs::read_dir(entry.path())?.next().is_some() {
                scan_directory(&entry.path(), &format!("{path}/"), found, progress)?;
                continue;
            }
            SourceNode::Directory
        } else if metadata.is_symlink() {
            let target = fs::read_link(entry.path())?;
            let target = target.to_str().ok_or_else(|| TreeError::NotUtf8(entry.path()))?.to_owned();
            path.check_link(&target)?;
            SourceNode::Link { target }
        } else if metadata.is_file() {
            let (sha256, size) = digest(&mut fs::File::open(entry.path())?)?;
            progress(size);
            let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
            SourceNode::File { mode: if executable { Mode::Executable } else { Mode::Regular }, sha256, size }
        } else {
            return Err(TreeError::Special(entry.path()));
        };
        if found.len() >= MAX_ENTRIES {
            return Err(TreeError::TooMany);
        }
        found.push(SourceFile { path, node });
    }
    Ok(())
}
