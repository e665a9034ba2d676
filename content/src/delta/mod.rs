//! Deltas: a release as the difference from one that is already held, or from nothing.
//!
//! A release costs the link what is new in it. A delta from nothing, a *pack*, is a first install under stronger
//! compression than a bundle's, which any `tar` must read.
//!
//! 1. The objects that only one of the releases has are put end to end, side by side with what resembles them, archives
//!    opened (`sides.rs`, `opened.rs`). Objects that both have cost nothing, wherever they stand.
//! 2. New bytes are aligned with old ones (`align.rs`): pieces that nearly stand there, and bytes between them.
//! 3. In executables, addresses are predicted from where the pieces went (`image/`, `relocate.rs`).
//! 4. What was predicted wrongly is corrected (`corrections.rs`), pieces and corrections under adaptive models
//!    (`pieces.rs`, `coder.rs`); new bytes are compressed whole (`stream.rs`).
//! 5. The manifest's lists are coded against the old ones; digests of new objects come from the objects (`manifest.rs`).
//!
//! `container.rs` draws the file. Whatever the delta says, a decoder writes objects under the digests that they have,
//! no more bytes than were signed, and gives a manifest only if it is the one that was signed: a delta need not be
//! trusted.
//!
//! The same pair of releases and effort gives the same bytes on every machine: no floating point, no clock, no order of
//! threads. What older programs made is read for as long as the format's number stands, so the models, the parser of
//! executables, the disassembler's and the deflate library's versions are part of it; a program that meets another
//! number takes the bundle instead.
//!
//! Threats: see the module that reads each part. Numbers are bounded where they are read; lengths add up or the delta is
//! refused; memory is that of one window's pieces and fields, two dictionaries of 32 MiB, and
//! one archive that is open.

mod align;
mod coder;
mod container;
mod corrections;
mod decode;
mod encode;
mod image;
mod manifest;
mod opened;
mod pieces;
mod relocate;
mod sides;
mod stream;
mod varint;
mod window;

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::{Digest, ReleaseError, SignedRelease};

use crate::held::ReadObjects;
use crate::store::{Batch, ObjectError, ObjectStore};

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
    /// 1 (quick: executables are aligned as they are) to 3 (smallest). The same effort gives the same delta.
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
    let length = encode::encode(base, target, options, scratch, out, progress)?;
    check(base, target, scratch, out.path())?;
    Ok(length)
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
    let mut batch = IntoStore { store, batch: store.batch() };
    let manifest = decode::decode(delta, base, expected, scratch, &mut batch, progress)?;
    batch.batch.commit()?;
    Ok(manifest)
}

/// Decodes what was encoded, and compares.
fn check(base: Option<Held<'_>>, target: Held<'_>, scratch: &Path, delta: &Path) -> Result<(), EncodeError> {
    let release = SignedRelease::parse(target.manifest).map_err(EncodeError::Manifest)?;
    let expected = Expected {
        manifest: release.digest,
        manifest_length: target.manifest.len() as u64,
        installed_size: release.release.installed_size(),
    };
    let known = release.release.objects().into_keys().collect();
    let mut take = Compare { known };
    decode::decode(delta, base, expected, scratch, &mut take, &mut |_| {})?;
    Ok(())
}

/// The most old bytes, and the most new ones, that are aligned at once: seven bytes of memory for each old one, and the
/// largest library of a browser is whole in it.
const WINDOW_BYTES: u64 = 256 << 20;
/// The most pieces of a window: a decoder holds them in memory, 24 bytes each, twice.
const MAX_PIECES: usize = 1 << 20;

/// Which members are archives that were opened.
struct Openings {
    opened: coder::Bit,
    choices: coder::Bit,
    lengths: [coder::Number; 2],
}

impl Openings {
    fn new() -> Self {
        let bit = coder::Bit::default();
        Self { opened: bit, choices: bit, lengths: [coder::Number::new(), coder::Number::new()] }
    }

    /// Whether anything was opened at all: the old side is looked through only then.
    fn any<C: coder::Coder>(coder: &mut C, given: bool) -> bool {
        coder.bit(&mut coder::Bit::default(), given)
    }

    /// Whether a stream of the old side is opened.
    fn choice<C: coder::Coder>(&mut self, coder: &mut C, given: bool) -> bool {
        coder.bit(&mut self.choices, given)
    }

    /// The lengths of a member of the new side that was opened.
    fn code<C: coder::Coder>(&mut self, coder: &mut C, given: Option<(u64, u64)>) -> Option<(u64, u64)> {
        let opened = coder.bit(&mut self.opened, given.is_some());
        opened.then(|| {
            let (recipe, contents) = given.unwrap_or_default();
            (self.lengths[0].code(coder, recipe), self.lengths[1].code(coder, contents))
        })
    }
}

/// What somebody holds who holds nothing.
struct Nothing;

impl ReadObjects for Nothing {
    fn open(&self, _: Digest, _: u64) -> io::Result<fs::File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Puts objects into a store.
struct IntoStore<'a> {
    store: &'a ObjectStore,
    batch: Batch,
}

impl IntoStore<'_> {
    fn commit_if_full(&mut self) -> io::Result<()> {
        if self.batch.is_full() {
            std::mem::replace(&mut self.batch, self.store.batch()).commit()?;
        }
        Ok(())
    }
}

impl decode::TakeObjects for IntoStore<'_> {
    fn small(&mut self, mut bytes: &[u8], object: Digest) -> Result<(), DeltaError> {
        let size = bytes.len() as u64;
        self.batch.add(&mut bytes, object, size).map_err(DeltaError::Object)?;
        Ok(self.commit_if_full()?)
    }

    fn large(&mut self, path: &Path, object: Digest, size: u64) -> Result<(), DeltaError> {
        self.batch.adopt(path, object, size).map_err(DeltaError::Object)?;
        Ok(self.commit_if_full()?)
    }
}

/// Compares objects with those of a manifest.
struct Compare {
    known: BTreeSet<Digest>,
}

impl decode::TakeObjects for Compare {
    fn small(&mut self, _: &[u8], object: Digest) -> Result<(), DeltaError> {
        if self.known.contains(&object) {
            Ok(())
        } else {
            Err(DeltaError::Malformed("an object came out wrong"))
        }
    }

    fn large(&mut self, _: &Path, object: Digest, _: u64) -> Result<(), DeltaError> {
        self.small(&[], object)
    }
}
