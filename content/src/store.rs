//! The object store: files by the SHA-256 of their bytes.
//!
//! ```text
//! <root>/objects/ab/cdef…     one object, read-only (0444)
//! <root>/objects/ab/cdef….x   the same bytes with permission to execute (0555), where a release links them so
//! <root>/incoming/            objects being written; swept at opening
//! ```
//!
//! Invariant: what stands under an object's name was hashed on its way there and had that digest, and its bytes were
//! on the disk before the name was. A power cut can lose an object, never leave half of one.
//!
//! Threats: a disk that flips bits, or somebody who edits an object. The store does not look again by itself;
//! [`ObjectStore::verify`] does, for whoever scrubs.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::{Digest, Hasher, Mode};

use crate::durable;

/// How many bytes are copied and hashed at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// A batch larger than this should be committed: what a power cut may cost stays small.
const BATCH_BYTES: u64 = 256 << 20;
const BATCH_OBJECTS: usize = 2000;

/// A directory of objects.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    root: PathBuf,
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
    /// The bytes could not be read from where they come.
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
    /// Opens the store at `root`, making it if need be, and sweeps what was left half-written.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn open(root: &Path) -> io::Result<Self> {
        durable::remove_tree(&root.join("incoming"))?;
        fs::create_dir_all(root.join("incoming"))?;
        fs::create_dir_all(root.join("objects"))?;
        Ok(Self { root: root.to_owned() })
    }

    /// A store for reading only: nothing is made or swept.
    pub fn read_only(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where an object is, or would be.
    pub fn path(&self, object: Digest) -> PathBuf {
        self.root.join("objects").join(object.fanned_out())
    }

    /// True when the object is here with its full length.
    pub fn holds(&self, object: Digest, size: u64) -> bool {
        fs::metadata(self.path(object)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Reads an object through and compares its digest.
    pub fn verify(&self, object: Digest, size: u64) -> Result<(), ObjectError> {
        let mut file = fs::File::open(self.path(object))?;
        copy_verified(&mut file, &mut io::sink(), object, size)
    }

    /// Takes an object out, in both its forms.
    ///
    /// # Errors
    /// Any error of the file system but its absence.
    pub fn remove(&self, object: Digest) -> io::Result<()> {
        durable::remove_file(&self.path(object))?;
        durable::remove_file(&executable(&self.path(object)))
    }

    /// Every object here, with its length, in no order.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn objects(&self) -> io::Result<impl Iterator<Item = io::Result<(Digest, u64)>> + use<>> {
        let directories = fs::read_dir(self.root.join("objects"))?;
        Ok(directories.flat_map(|directory| match directory.and_then(|directory| list(&directory)) {
            Ok(objects) => objects.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }))
    }

    /// Begins to take objects in.
    pub fn batch(&self) -> Batch {
        Batch { store: self.clone(), staged: Vec::new(), bytes: 0 }
    }

    /// Puts an object's bytes at `destination`: as a reflink or hard link where the file system has them, else as a
    /// copy. The file is read-only either way.
    ///
    /// # Errors
    /// Any error of the file system; the object's absence is [`io::ErrorKind::NotFound`].
    pub fn place(&self, object: Digest, mode: Mode, destination: &Path) -> io::Result<()> {
        let plain = self.path(object);
        let source = match mode {
            Mode::Regular => plain,
            Mode::Executable => self.executable_form(&plain)?,
        };
        match fs::hard_link(&source, destination) {
            Ok(()) => Ok(()),
            // Another file system, or one that has no links (FAT refuses them as forbidden) or no more for this file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::CrossesDevices
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::Unsupported
                        | io::ErrorKind::TooManyLinks
                ) =>
            {
                fs::copy(&source, destination).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Permissions belong to a file, not to a name, so an object that is linked as a program exists a second time.
    fn executable_form(&self, plain: &Path) -> io::Result<PathBuf> {
        let path = executable(plain);
        let length = fs::metadata(plain)?.len();
        if fs::metadata(&path).is_ok_and(|form| form.len() == length) {
            return Ok(path);
        }
        let temporary = tempfile::Builder::new().tempfile_in(self.root.join("incoming"))?;
        fs::copy(plain, temporary.path())?;
        set_mode(temporary.path(), 0o555)?;
        // Its bytes before its name, as for every object.
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }
}

fn executable(plain: &Path) -> PathBuf {
    plain.with_extension("x")
}

fn list(directory: &fs::DirEntry) -> io::Result<Vec<(Digest, u64)>> {
    let prefix = directory.file_name();
    let mut objects = Vec::new();
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        let name = format!("{}{}", prefix.display(), entry.file_name().display());
        if let Ok(digest) = name.parse() {
            objects.push((digest, entry.metadata()?.len()));
        }
    }
    Ok(objects)
}

/// Sets a file's permissions where the system has Unix ones.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Objects on their way into a store. Dropped without [`Batch::commit`], it leaves nothing behind.
#[must_use = "objects are in the store only after `commit`"]
pub struct Batch {
    store: ObjectStore,
    staged: Vec<(Digest, tempfile::TempPath)>,
    bytes: u64,
}

impl Batch {
    /// Copies one object in from `source`, which must end after `size` bytes of digest `object`.
    pub fn add(&mut self, source: &mut dyn Read, object: Digest, size: u64) -> Result<(), ObjectError> {
        let mut temporary = tempfile::Builder::new().tempfile_in(self.store.root.join("incoming"))?;
        copy_verified(source, temporary.as_file_mut(), object, size)?;
        self.stage(object, size, temporary.into_temp_path())
    }

    /// Takes over a file that already holds an object's bytes, after reading it through; it moves into the store.
    pub fn adopt(&mut self, path: &Path, object: Digest, size: u64) -> Result<(), ObjectError> {
        copy_verified(&mut fs::File::open(path)?, &mut io::sink(), object, size)?;
        let temporary =
            tempfile::Builder::new().tempfile_in(self.store.root.join("incoming"))?.into_temp_path();
        fs::rename(path, &temporary)?;
        self.stage(object, size, temporary)
    }

    fn stage(&mut self, object: Digest, size: u64, path: tempfile::TempPath) -> Result<(), ObjectError> {
        set_mode(&path, 0o444)?;
        self.bytes += size;
        self.staged.push((object, path));
        Ok(())
    }

    /// True when it is time to commit and begin another.
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.staged.len() >= BATCH_OBJECTS
    }

    /// The objects taken so far.
    pub fn objects(&self) -> impl Iterator<Item = Digest> {
        self.staged.iter().map(|(object, _)| *object)
    }

    /// Gives the objects their names: first their bytes are made to survive a power cut, all at once, then each is
    /// renamed. The names themselves survive after the next sync; one that is lost is an object to fetch again.
    ///
    /// # Errors
    /// Any error of the file system. What was already named stays; it is whole.
    pub fn commit(self) -> io::Result<()> {
        if self.staged.is_empty() {
            return Ok(());
        }
        durable::sync_file_system(&self.store.root)?;
        for (object, temporary) in self.staged {
            let path = self.store.path(object);
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            temporary.persist(&path).map_err(|error| error.error)?;
        }
        Ok(())
    }
}

/// Copies exactly `size` bytes of digest `object`, reading one byte past them to be sure they end there.
fn copy_verified(
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

    #[test]
    fn places_an_object_as_a_file_and_as_a_program() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, store) = store();
        let object = Digest::of(b"#!/bin/sh\n");
        let mut batch = store.batch();
        batch.add(&mut &b"#!/bin/sh\n"[..], object, 10).unwrap();
        batch.commit().unwrap();
        for (name, mode, bits) in [("file", Mode::Regular, 0o444), ("program", Mode::Executable, 0o555)] {
            let path = directory.path().join(name);
            store.place(object, mode, &path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, bits);
            assert_eq!(fs::read(&path).unwrap(), b"#!/bin/sh\n");
        }
        store.remove(object).unwrap();
        assert_eq!(store.objects().unwrap().count(), 0);
    }
}
