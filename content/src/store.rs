//! The object store: files by the SHA-256 of their plain bytes.
//!
//! ```text
//! <root>/objects/ab/cdef…      one object, read-only (0444)
//! <root>/objects/ab/cdef….zst  the same bytes as a zstd frame, instead, where that pays (`store/at_rest.rs`)
//! <root>/objects/ab/cdef….x    the same bytes with permission to execute (0555), where a release links them so
//! <root>/objects.lock          who counts on objects, and who sweeps them (`gc.rs`)
//! <root>/incoming/             objects being written; swept at opening
//! ```
//!
//! A workstation's store keeps every object plain, since a release's tree is made of links to them
//! ([`ObjectStore::open`], `store/place.rs`); a node's compresses what it takes in ([`ObjectStore::open_compressing`]). Both
//! read either.
//!
//! Invariant: what stands under an object's name was hashed on its way there and had that digest, and its bytes were
//! on the disk before the name was. A power cut can lose an object, never leave half of one. An object stands here in one
//! of the two forms; in both only where a crash came between the second's arrival and the first's removal, and never
//! in none: it is the plain form that gives way, so that two who take in the same object cannot remove each other's.
//!
//! Threats: a disk that flips bits, or somebody who edits an object. The store does not look again by itself;
//! [`ObjectStore::verify`] does, and `fsck.rs` for all of them. A frame that decodes to more than the object's size, or
//! asks for a window above 128 MiB, ends in an error there.

mod at_rest;
mod batch;
mod place;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{Digest, Hasher};

pub use self::at_rest::{Form, PlainReader};
pub use self::batch::Batch;
use self::place::Reflinks;
use crate::durable;

/// How many bytes are copied and hashed at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A directory of objects.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    root: PathBuf,
    compresses: bool,
    reflinks: Reflinks,
}

/// Why bytes did not become an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// They have another digest.
    #[error("object {expected} does not have its digest: got {got}")]
    DigestMismatch {
        /// The digest it should have.
        expected: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// There are fewer or more of them.
    #[error("object {object} does not have its size of {expected} bytes: got {got}")]
    SizeMismatch {
        /// The object.
        object: Digest,
        /// The size it should have.
        expected: u64,
        /// How many bytes there were; one more than `expected` stands for any number above.
        got: u64,
    },
    /// The bytes could not be read from where they come, or not decoded.
    #[error("cannot read the bytes of object {object}")]
    Source {
        /// The object.
        object: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] io::Error),
}

impl ObjectStore {
    /// Opens the store at `root`, making it if need be, and sweeps what was left half-written. What it takes in, it keeps
    /// plain.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(root: &Path) -> io::Result<Self> {
        durable::remove_tree(&root.join("incoming"))?;
        fs::create_dir_all(root.join("incoming"))?;
        fs::create_dir_all(root.join("objects"))?;
        Ok(Self::read_only(root))
    }

    /// As [`ObjectStore::open`], but what it takes in, it compresses where that pays.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open_compressing(root: &Path) -> io::Result<Self> {
        Ok(Self { compresses: true, ..Self::open(root)? })
    }

    /// A store for reading only: nothing is made or swept.
    pub fn read_only(root: &Path) -> Self {
        Self { root: root.to_owned(), compresses: false, reflinks: Reflinks::default() }
    }

    /// The directory that was opened.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object is, or would be, in its plain form.
    pub fn path(&self, object: Digest) -> PathBuf {
        self.path_as(object, Form::Plain)
    }

    fn path_as(&self, object: Digest, form: Form) -> PathBuf {
        let plain = self.root.join("objects").join(object.fanned_out());
        match form {
            Form::Plain => plain,
            Form::Zstd => plain.with_extension("zst"),
            Form::Executable => plain.with_extension("x"),
        }
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    pub(crate) fn objects_directory(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.root.join("objects.lock")
    }

    /// The form in which an object is here, and the file; `None` if it is not. Asked for in this order, an object
    /// that changes its form meanwhile is always found.
    pub fn locate(&self, object: Digest) -> Option<(Form, PathBuf)> {
        let forms = [Form::Plain, Form::Zstd].map(|form| (form, self.path_as(object, form)));
        forms.into_iter().find(|(_, path)| path.is_file())
    }

    /// True when the object is here with its full length: that of its file or, compressed, the one its frame states.
    pub fn holds(&self, object: Digest, size: u64) -> bool {
        fs::metadata(self.path(object)).is_ok_and(|found| found.is_file() && found.len() == size)
            || at_rest::stated_size(&self.path_as(object, Form::Zstd)).is_ok_and(|found| found == size)
    }

    /// Opens an object's plain bytes, to be read once from the start.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not here; any other error of the file system.
    pub fn read(&self, object: Digest) -> io::Result<PlainReader> {
        match PlainReader::open(&self.path(object), Form::Plain) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                PlainReader::open(&self.path_as(object, Form::Zstd), Form::Zstd)
            }
            opened => opened,
        }
    }

    /// Reads an object through and compares its digest.
    pub fn verify(&self, object: Digest, size: u64) -> Result<(), ObjectError> {
        copy_verified(&mut self.read(object)?, &mut io::sink(), object, size)
    }

    /// Takes an object out, in every form.
    ///
    /// # Errors
    /// Any error of the file system but its absence.
    pub fn remove(&self, object: Digest) -> io::Result<()> {
        for form in [Form::Plain, Form::Zstd, Form::Executable] {
            durable::remove_file(&self.path_as(object, form))?;
        }
        Ok(())
    }

    /// Every object here, with the bytes of its file, in no order.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn objects(&self) -> io::Result<impl Iterator<Item = io::Result<(Digest, u64)>> + use<>> {
        let directories = fs::read_dir(self.objects_directory())?;
        Ok(directories.flat_map(|directory| match directory.and_then(|directory| list(&directory)) {
            Ok(objects) => objects.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }))
    }

    /// A file for an object that arrives piece by piece, and is read meanwhile; [`Batch::adopt`] takes it in. Dropped, its path
    /// is removed; a process that dies leaves it to the next opening.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn growing(&self) -> io::Result<(fs::File, tempfile::TempPath)> {
        at_rest::temporary(&self.incoming())
    }

    /// Begins to take objects in.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }
}

/// The object and the form that a file of `objects/` stands for: `ab` and `cdef….zst`. `None` for anything else.
pub(crate) fn parse_name(directory: &str, name: &str) -> Option<(Digest, Form)> {
    let (stem, form) = match name.split_once('.') {
        None => (name, Form::Plain),
        Some((stem, "zst")) => (stem, Form::Zstd),
        Some((stem, "x")) => (stem, Form::Executable),
        Some(_) => return None,
    };
    let object: Digest = format!("{directory}{stem}").parse().ok()?;
    // Neither capitals nor another place.
    (object.fanned_out() == format!("{directory}/{stem}")).then_some((object, form))
}

fn list(directory: &fs::DirEntry) -> io::Result<Vec<(Digest, u64)>> {
    let prefix = directory.file_name();
    let Some(prefix) = prefix.to_str() else { return Ok(Vec::new()) };
    if !directory.file_type()?.is_dir() {
        return Ok(Vec::new());
    }
    let mut objects = Vec::new();
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| parse_name(prefix, name));
        if let Some((object, Form::Plain | Form::Zstd)) = name {
            objects.push((object, entry.metadata()?.len()));
        }
    }
    Ok(objects)
}

/// Sets a file's permissions where the system has Unix ones.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Copies exactly `size` bytes of digest `object`, reading one byte past them to be sure they end there. What was written is
/// the object only if this succeeds.
pub fn copy_verified(
    source: &mut dyn Read,
    to: &mut dyn Write,
    object: Digest,
    size: u64,
) -> Result<(), ObjectError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0_u8; BUFFER_BYTES.min(usize::try_from(size + 1).unwrap_or(BUFFER_BYTES))];
    let mut got = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ObjectError::Source { object, source }),
        };
        got += read as u64;
        if got > size {
            return Err(ObjectError::SizeMismatch { object, expected: size, got: size + 1 });
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
    if got != size {
        return Err(ObjectError::SizeMismatch { object, expected: size, got });
    }
    let digest = hasher.finish();
    if digest != object {
        return Err(ObjectError::DigestMismatch { expected: object, got: digest });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        (directory, store)
    }

    #[test]
    fn takes_what_has_its_digest_and_nothing_else() {
        let (_directory, store) = store();
        let object = Digest::of(b"mirabelle");
        let add = |bytes: &[u8], size| store.batch().add(&mut { bytes }, object, size);
        assert!(matches!(add(b"quetsches", 9), Err(ObjectError::DigestMismatch { .. })));
        assert!(matches!(add(b"mirabell", 9), Err(ObjectError::SizeMismatch { got: 8, .. })));
        assert!(matches!(add(b"mirabelles", 9), Err(ObjectError::SizeMismatch { got: 10, .. })));
        assert!(!store.holds(object, 9));

        let mut batch = store.batch();
        batch.add(&mut &b"mirabelle"[..], object, 9).unwrap();
        assert!(!store.holds(object, 9), "nothing is there before the commit");
        batch.commit().unwrap();
        assert!(store.holds(object, 9));
        assert_eq!(store.objects().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [(object, 9)]);
    }

    #[test]
    fn a_batch_that_is_dropped_leaves_nothing() {
        let (directory, store) = store();
        let mut batch = store.batch();
        batch.add(&mut &b"x"[..], Digest::of(b"x"), 1).unwrap();
        drop(batch);
        assert_eq!(fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
        assert_eq!(store.objects().unwrap().count(), 0);
    }

    #[test]
    fn finds_a_flipped_bit() {
        let (_directory, store) = store();
        let object = Digest::of(b"x");
        let mut batch = store.batch();
        batch.add(&mut &b"x"[..], object, 1).unwrap();
        batch.commit().unwrap();
        store.verify(object, 1).unwrap();
        set_mode(&store.path(object), 0o644).unwrap();
        fs::write(store.path(object), b"y").unwrap();
        assert!(matches!(store.verify(object, 1), Err(ObjectError::DigestMismatch { .. })));
    }
}
