//! Releases that are held already: where the bytes of their objects can be read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{Digest, Node, Release};

use crate::store::ObjectStore;

/// Somewhere that objects can be read from. What it reads is not trusted: a disk may have flipped a bit.
pub trait ReadObjects: Sync {
    /// Opens the plain bytes of an object, for reading anywhere in them.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not here, or not with that length; any other error of the file system.
    fn open(&self, object: Digest, size: u64) -> io::Result<fs::File>;
}

impl ReadObjects for ObjectStore {
    fn open(&self, object: Digest, size: u64) -> io::Result<fs::File> {
        whole(fs::File::open(self.path(object))?, size)
    }
}

/// An installed release's tree, read as objects.
#[derive(Debug)]
pub struct TreeObjects {
    paths: BTreeMap<Digest, PathBuf>,
}

impl TreeObjects {
    /// The objects of `release`, whose files stand below `root`.
    pub fn new(root: &Path, release: &Release) -> Self {
        let files = release.entries.iter().filter_map(|entry| match entry.node {
            Node::File { sha256, .. } => Some((sha256, root.join(entry.path.as_str()))),
            _ => None,
        });
        Self { paths: files.collect() }
    }
}

impl ReadObjects for TreeObjects {
    fn open(&self, object: Digest, size: u64) -> io::Result<fs::File> {
        let path = self.paths.get(&object).ok_or(io::ErrorKind::NotFound)?;
        whole(fs::File::open(path)?, size)
    }
}

fn whole(file: fs::File, size: u64) -> io::Result<fs::File> {
    if file.metadata()?.len() == size { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}
