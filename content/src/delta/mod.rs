//! Deltas: a release as the difference from one that is already held, or from nothing.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::{Digest, ReleaseError};

use crate::held::ReadObjects;
use crate::store::{ObjectError, ObjectStore};

/// A release that is held whole.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    /// The exact bytes of its `release.json`.
    pub manifest: &'a [u8],
    /// Where its objects can be read.
    pub objects: &'a dyn ReadObjects,
}

/// What is signed about the release that a delta leads to: the catalogue's entry.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// SHA-256 of its `release.json`.
    pub manifest: Digest,
    /// Length of its `release.json` in bytes.
    pub manifest_length: u64,
    /// Bytes of its files: the ceiling for what a decoder writes.
    pub installed_size: u64,
}

/// How hard to try, and how much of the machine to take.
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    /// 1 (quick) to 3 (smallest). The same effort gives the same delta.
    pub effort: u8,
    /// Threads. Does not change the bytes.
    pub jobs: NonZeroUsize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { effort: 2, jobs: NonZeroUsize::MIN }
    }
}

/// Why a delta could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A manifest does not read.
    #[error("a manifest of the two releases cannot be read")]
    Manifest(#[source] ReleaseError),
    /// What was made does not decode to the release: nothing is kept of it.
    #[error("the delta that was made does not decode to the release")]
    Wrong(#[source] DeltaError),
    /// Reading the releases or writing the delta failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a delta did not give the release.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// It is not a delta of a format that is known, or was damaged on its way.
    #[error("the delta is malformed: {0}")]
    Malformed(&'static str),
    /// One of its streams does not decompress.
    #[error("the delta cannot be decompressed")]
    Stream(#[source] io::Error),
    /// It leads from another release than the one given.
    #[error("the delta leads from another release")]
    OtherBase,
    /// It would write more than was signed.
    #[error("the delta holds more than the {0} bytes that were signed for the release")]
    TooLong(u64),
    /// What it gives is another release than the one that was signed.
    #[error("the delta gives manifest {got}, expected {expected}")]
    OtherRelease {
        /// The digest that was signed.
        expected: Digest,
        /// The digest of what came out.
        got: Digest,
    },
    /// An object of the base cannot be read.
    #[error("object {object} of the release that is held cannot be read")]
    Base {
        /// The object.
        object: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An object that came out is wrong.
    #[error("the delta gives a wrong object")]
    Object(#[source] ObjectError),
    /// The delta could not be read or the store not written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes to `out` the delta that leads from `base`, or from nothing, to `target`; returns its length in bytes.
/// `scratch` is a directory for files while it works. `progress` hears of bytes of the target's files as they are done.
pub fn encode(
    base: Option<Held<'_>>,
    target: Held<'_>,
    options: EncodeOptions,
    scratch: &Path,
    out: &mut fs::File,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, EncodeError> {
    let _ = (base, target, options, scratch, out, progress);
    unimplemented!()
}

/// Decodes `delta`, puts the objects that `base` lacks into `store`, and returns the bytes of `release.json`, whose
/// digest was compared. `progress` hears of bytes of objects as they come out.
///
/// Whoever holds the release's signed manifest needs no more; what was committed before an error has its digests and
/// harms nobody.
pub fn decode(
    delta: &Path,
    base: Option<Held<'_>>,
    expected: Expected,
    scratch: &Path,
    store: &ObjectStore,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u8>, DeltaError> {
    let _ = (delta, base, expected, scratch, store, progress);
    unimplemented!()
}
