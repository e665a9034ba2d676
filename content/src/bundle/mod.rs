//! Full bundles: a release as one ordinary `.tar.zst`, cut into independent zstd frames.
//!
//! ```text
//! frame 0     links and empty directories (if there are any)
//! frame 1…n   files, grouped by kind; each frame a run of whole tar entries
//! last frame  the two zero blocks that end a tar
//! ```
//!
//! `tar --zstd -x` unpacks the whole. Because frames are independent and cut between entries, any subset of objects
//! is a few HTTP ranges of a static file. Files of equal content lie in one frame, the second as a hard link.
//!
//! Deterministic: order, headers (mtime 0, owner 0) and compression depend on the tree and the level alone, not on the
//! machine, the number of threads or the clock.
//!
//! Threats: a bundle comes from a mirror or over a hostile wire, and its frames are decoded before anything about
//! them is known to be true. So a decoder stops at the frame's signed length, its window is bounded, entries are taken
//! only where the signed manifest has them with that size, and no object is kept before its digest matched.

mod read;
mod write;

pub use read::{BundleError, copy_object, read_frame, read_object, verify_bundle};
pub use write::{DEFAULT_LEVEL, WriteError, WriteOptions, write_bundle};
pub(crate) use write::{entry_tar_bytes, similarity};

/// Bytes of tar in one frame: enough that files find what resembles them, little enough for who lacks a few of them.
const FRAME_BYTES: u64 = 16 << 20;
/// A file larger than this has a frame of its own: who has it already need not fetch it again for its neighbours' sake.
const ALONE_BYTES: u64 = 16 << 20;
/// How far back a frame looks, as a power of two: over the whole of one.
const WINDOW_LOG: u32 = 24;
