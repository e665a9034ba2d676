//! Releases that are held already: where the bytes of their objects can be read, plain and at random. A compressed
//! object is decoded into a file without a name first, bounded by its size.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{Digest, Node, Release};

use crate::store::{ObjectStore, PlainReader};

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
        let reader = self.read(object)?;
        if reader.size() != size {
            return Err(io::ErrorKind::NotFound.into());
        }
        reader.into_plain_file().or_else(|encoded| self.decoded(encoded, size))
    }
}

impl ObjectStore {
    /// The plain bytes of a compressed object in a file without a name, which goes with its last reader.
    fn decoded(&self, encoded: PlainReader, size: u64) -> io::Result<fs::File> {
        let directory = self.incoming();
        fs::create_dir_all(&directory)?;
        let mut file = fs::File::from_parts(tempfile::tempfile_in(&directory)?, directory);
        // One byte more tells a frame that goes on from one that ends.
        let copied = io::copy(&mut encoded.take(size + 1), &mut file)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not have the size that it states",
            ));
        }
        file.seek(io::SeekFrom::Start(0))?;
        Ok(file)
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
