//! What is heavy: objects, bundles, foreign archives, unpacking.
//!
//! Synchronous, and streaming throughout: no function holds a whole file, bundle or archive in memory. Callers run it
//! off their async threads.
//!
//! - [`ObjectStore`] keeps files by the SHA-256 of their bytes.
//! - [`bundle`] writes a tree as one `.tar.zst` of independent frames and takes objects out of any of its frames.
//! - [`delta`] writes a release as the difference from one that is held, and rebuilds it.
//! - [`archive`] reads what others made (tar, zip, wheel, .deb), bounded, into a [`Staging`] directory that nothing
//!   can leave.
//! - [`gc`] removes the objects that nothing needs; [`fsck`] reads through those that are here.
//! - [`durable`] is the only place that promises anything about a power cut.

pub mod archive;
pub mod bundle;
pub mod delta;
pub mod durable;
pub mod fsck;
pub mod gc;

mod faults;
mod hash;
mod held;
mod staging;
mod store;
mod tar_reader;
mod tree;

pub use hash::digest;
pub use held::{ReadObjects, TreeObjects};
pub use staging::{Staging, StagingError};
pub use store::{Batch, Form, ObjectError, ObjectStore, PlainReader, copy_verified};
pub use tree::{SourceFile, SourceNode, TreeError, scan_tree};
