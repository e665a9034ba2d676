//! Taking objects out of a bundle.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use mirabelle_manifests::{Digest, Frame, Node, Object, Release};

use crate::hash::{Hashing, digest};
use crate::store::{Batch, ObjectError, copy_verified};
use crate::tar_reader::{TarEntry, TarKind, TarReader};

/// The largest window a frame may ask for, as a power of two: 128 MiB, zstd's own default limit.
const WINDOW_LOG: u32 = 27;

/// Why bytes are not the bundle, or the frame, that the manifest describes.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A frame does not decompress, is longer than signed, or holds no proper tar.
    #[error("frame {frame} of the bundle cannot be decoded")]
    Frame {
        /// The frame's number.
        frame: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A frame holds an object with wrong bytes.
    #[error("frame {frame} of the bundle holds a wrong object")]
    Object {
        /// The frame's number.
        frame: u32,
        /// Which, and what is wrong with it.
        #[source]
        source: ObjectError,
    },
    /// The manifest says the frame holds an object, and it does not.
    #[error("frame {frame} of the bundle does not hold object {object}")]
    Missing {
        /// The frame's number.
        frame: u32,
        /// The object.
        object: Digest,
    },
    /// The file is not the one that was signed.
    #[error("the bundle has digest {got} and {size} bytes, expected {expected} and {expected_size}")]
    NotTheBundle {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the file.
        got: Digest,
        /// The size in the manifest.
        expected_size: u64,
        /// The size of the file.
        size: u64,
    },
    /// The bundle's file could not be read, or the store not written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes one object: a reader that ends with it, its digest and its size.
type TakeObject<'a> = dyn FnMut(&mut dyn Read, Digest, u64) -> Result<(), ObjectError> + 'a;

/// Reads frame `number` of `release`'s bundle from `compressed` and gives the objects it holds, as `wanted` chooses,
/// to `take`, which must read its object through. Every wanted object must be there.
fn walk_frame(
    compressed: impl Read,
    release: &Release,
    number: u32,
    frame: Frame,
    mut wanted: BTreeMap<Digest, u64>,
    take: &mut TakeObject<'_>,
) -> Result<(), BundleError> {
    let undecodable = |source| BundleError::Frame { frame: number, source };
    let mut decoder = zstd::Decoder::new(compressed).map_err(undecodable)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(undecodable)?;
    let mut tar = TarReader::new(Ceiling { inner: decoder, left: frame.length });
    while let Some(entry) = tar.next().map_err(undecodable)? {
        let Some((object, size)) = object_at(release, &entry) else { continue };
        if wanted.remove(&object).is_some() {
            take(&mut tar, object, size).map_err(|source| match source {
                // The store's own trouble, such as a full disk, is not the bundle's fault.
                ObjectError::Store(error) => BundleError::Io(error),
                ObjectError::Source { source, .. } => undecodable(source),
                source => BundleError::Object { frame: number, source },
            })?;
        }
    }
    match wanted.pop_first() {
        Some((object, _)) => Err(BundleError::Missing { frame: number, object }),
        None => Ok(()),
    }
}

/// The object that a tar entry should hold, by what the manifest says of its path; an entry that the manifest does not
/// have, or has with another size, holds none.
fn object_at(release: &Release, entry: &TarEntry) -> Option<(Digest, u64)> {
    if entry.kind != TarKind::File {
        return None;
    }
    let index = release.entries.binary_search_by(|known| known.path.as_str().cmp(&entry.path)).ok()?;
    match release.entries[index].node {
        Node::File { sha256, size, .. } if size == entry.size => Some((sha256, size)),
        _ => None,
    }
}

/// Takes the wanted objects of one frame into `batch`. `compressed` begins at the frame's first byte.
pub fn read_frame(
    compressed: impl Read,
    release: &Release,
    number: u32,
    wanted: BTreeMap<Digest, u64>,
    batch: &mut Batch,
) -> Result<(), BundleError> {
    let frame = frame_of(release, number)?;
    walk_frame(compressed.take(frame.size), release, number, frame, wanted, &mut |source, object, size| {
        batch.add(source, object, size)
    })
}

/// One object, of at most `limit` bytes, from the frame of the bundle that holds it: a file for people to look at.
/// `compressed` begins at the frame's first byte.
pub fn read_object(
    compressed: impl Read,
    release: &Release,
    object: Digest,
    limit: u64,
) -> Result<Vec<u8>, BundleError> {
    let unknown = BundleError::Missing { frame: 0, object };
    let Object { size, frame: number } = release.objects().remove(&object).ok_or(unknown)?;
    let frame = frame_of(release, number)?;
    let mut bytes = Vec::new();
    let wanted = BTreeMap::from([(object, size)]);
    walk_frame(compressed.take(frame.size), release, number, frame, wanted, &mut |source, object, size| {
        source
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| ObjectError::Source { object, source })?;
        verify_object(&mut bytes.as_slice(), object, size)
    })?;
    Ok(bytes)
}

/// Copies one object out of the frame of the bundle that holds it, as far as the frame goes; what was written is the object
/// only if this succeeds. `compressed` begins at the frame's first byte.
pub fn copy_object(
    compressed: impl Read,
    release: &Release,
    object: Digest,
    to: &mut dyn Write,
) -> Result<(), BundleError> {
    let unknown = BundleError::Missing { frame: 0, object };
    let Object { size, frame: number } = release.objects().remove(&object).ok_or(unknown)?;
    let frame = frame_of(release, number)?;
    let wanted = BTreeMap::from([(object, size)]);
    walk_frame(compressed.take(frame.size), release, number, frame, wanted, &mut |source, object, size| {
        copy_verified(source, to, object, size)
    })
}

fn frame_of(release: &Release, number: u32) -> Result<Frame, BundleError> {
    release.bundle.frames.get(number as usize).copied().ok_or_else(|| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the manifest has no such frame");
        BundleError::Frame { frame: number, source }
    })
}

/// Reads a whole bundle through: its digest, every frame, every object. `progress` hears of compressed bytes.
pub fn verify_bundle(
    bundle: impl Read,
    release: &Release,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BundleError> {
    let mut by_frame: BTreeMap<u32, BTreeMap<Digest, u64>> = BTreeMap::new();
    for (digest, object) in release.objects() {
        by_frame.entry(object.frame).or_default().insert(digest, object.size);
    }
    let mut bundle = Hashing::new(bundle);
    for (number, frame) in (0_u32..).zip(&release.bundle.frames) {
        let mut compressed = bundle.by_ref().take(frame.size);
        let wanted = by_frame.remove(&number).unwrap_or_default();
        walk_frame(&mut compressed, release, number, *frame, wanted, &mut |source, object, size| {
            verify_object(source, object, size)
        })?;
        io::copy(&mut compressed, &mut io::sink())?;
        progress(frame.size);
    }
    // One byte past the end tells a bundle that goes on from one that ends.
    io::copy(&mut bundle.by_ref().take(1), &mut io::sink())?;
    let (got, size) = bundle.finish();
    let (expected, expected_size) = (release.bundle.sha256, release.bundle.size);
    if got != expected || size != expected_size {
        return Err(BundleError::NotTheBundle { expected, got, expected_size, size });
    }
    Ok(())
}

fn verify_object(source: &mut dyn Read, object: Digest, size: u64) -> Result<(), ObjectError> {
    let (digest, got) = digest(source).map_err(|source| ObjectError::Source { object, source })?;
    if got != size {
        return Err(ObjectError::SizeMismatch { object, expected: size, got });
    }
    if digest != object {
        return Err(ObjectError::DigestMismatch { expected: object, got: digest });
    }
    Ok(())
}

/// Ends in an error where a frame goes on past its signed length.
struct Ceiling<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Ceiling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it is longer than its signed length")
        })?;
        Ok(read)
    }
}
