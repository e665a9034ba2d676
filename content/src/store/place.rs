//! Putting an object where a release's tree wants it: a reflink, a hard link or a copy, in this order of what works.
//!
//! | | the file at the destination | somebody who edits it |
//! |---|---|---|
//! | reflink (Btrfs, XFS, bcachefs) | is its own, and shares blocks with the object until either is written | changes that file alone |
//! | hard link | is the object's, under one more name | changes the object too, which `verify` finds |
//! | copy | is its own | changes that file alone |
//!
//! The file is read-only in all three. Whether there are reflinks is a property of the file system: a store asks once, and
//! does not try again after it was told that there are none.
//!
//! On a crash: the destination may be missing, empty or, where it is a copy, cut short. Whoever places objects syncs before
//! anything leads to them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use mirabelle_manifests::{Digest, Mode};
use rustix::io::Errno;

use super::{Form, ObjectError, ObjectStore, copy_verified, set_mode};
use crate::durable;

/// Whether a store's file system has reflinks, for all that know the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Reflinks {
    missing: Arc<AtomicBool>,
}

impl Reflinks {
    /// Makes `destination` a reflink of `source`; says whether it is one.
    fn make(&self, source: &Path, destination: &Path, mode: Mode) -> io::Result<bool> {
        if self.missing.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let from = fs::File::open(source)?;
        let to = fs::File::create_new(destination)?;
        let made = match rustix::fs::ioctl_ficlone(&to, &from) {
            Ok(()) => set_mode(destination, bits(mode)).map(|()| true),
            // The file system has none, or they do not reach from here to there.
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV) => {
                self.missing.store(true, Ordering::Relaxed);
                Ok(false)
            }
            // This one does not work (ZFS has no blocks to share before they are written): the next way does.
            Err(_) => Ok(false),
        };
        if !matches!(made, Ok(true)) {
            durable::remove_file(destination)?;
        }
        made
    }
}

fn bits(mode: Mode) -> u32 {
    if mode == Mode::Executable { 0o555 } else { 0o444 }
}

impl ObjectStore {
    /// Puts an object's bytes at `destination`, where nothing stands: as a reflink or hard link where the file system has
    /// them and the object is here plain, else as a copy. The file is read-only either way.
    ///
    /// # Errors
    /// Any error of the file system; the object's absence is [`io::ErrorKind::NotFound`].
    pub fn place(&self, object: Digest, mode: Mode, destination: &Path) -> io::Result<()> {
        match self.place_plain(object, mode, destination) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.locate(object) {
                Some((Form::Zstd, _)) => self.place_decoded(object, mode, destination),
                _ => Err(error),
            },
            placed => placed,
        }
    }

    fn place_plain(&self, object: Digest, mode: Mode, destination: &Path) -> io::Result<()> {
        let plain = self.path(object);
        if self.reflinks.make(&plain, destination, mode)? {
            return Ok(());
        }
        let source = match mode {
            Mode::Regular => plain,
            Mode::Executable => self.executable_form(object)?,
        };
        match fs::hard_link(&source, destination) {
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
            linked => linked,
        }
    }

    fn place_decoded(&self, object: Digest, mode: Mode, destination: &Path) -> io::Result<()> {
        let mut reader = self.read(object)?;
        let size = reader.size();
        let mut file = fs::File::create_new(destination)?;
        let copied = copy_verified(&mut reader, &mut file, object, size).map_err(|error| match error {
            ObjectError::Store(error) => error,
            wrong => io::Error::new(io::ErrorKind::InvalidData, wrong),
        });
        copied.and_then(|()| set_mode(destination, bits(mode))).inspect_err(|_| {
            let _ = durable::remove_file(destination);
        })
    }

    /// Permissions belong to a file, not to a name, so an object that is hard linked as a program exists a second time.
    fn executable_form(&self, object: Digest) -> io::Result<PathBuf> {
        let (plain, path) = (self.path(object), self.path_as(object, Form::Executable));
        let length = fs::metadata(&plain)?.len();
        if fs::metadata(&path).is_ok_and(|form| form.len() == length) {
            return Ok(path);
        }
        let temporary = tempfile::Builder::new().tempfile_in(self.incoming())?;
        fs::copy(plain, temporary.path())?;
        set_mode(temporary.path(), bits(Mode::Executable))?;
        // Its bytes before its name, as for every object.
        temporary.as_file().sync_all()?;
        temporary.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const PROGRAM: &[u8] = b"#!/bin/sh\n";

    fn store_in(directory: &Path) -> (ObjectStore, Digest) {
        let store = ObjectStore::open(directory).unwrap();
        let object = Digest::of(PROGRAM);
        let mut batch = store.batch();
        batch.add(&mut &PROGRAM[..], object, PROGRAM.len() as u64).unwrap();
        batch.commit().unwrap();
        (store, object)
    }

    fn places_in(directory: &Path, has_reflinks: Option<bool>) {
        let (store, object) = store_in(directory);
        for (name, mode, bits) in [("file", Mode::Regular, 0o444), ("program", Mode::Executable, 0o555)] {
            let path = directory.join(name);
            store.place(object, mode, &path).unwrap();
            let placed = fs::metadata(&path).unwrap();
            assert_eq!(placed.permissions().mode() & 0o777, bits);
            assert_eq!(fs::read(&path).unwrap(), PROGRAM);
            assert_eq!(store.place(object, mode, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), PROGRAM, "what stood there stays");

            let reflinked = !store.reflinks.missing.load(Ordering::Relaxed);
            assert!(has_reflinks.is_none_or(|has| has == reflinked), "{reflinked}");
            assert_eq!(placed.nlink(), if reflinked { 1 } else { 2 }, "nothing is copied here");
            if reflinked {
                // An edit does not reach the object, nor is a second form of it needed.
                set_mode(&path, 0o644).unwrap();
                fs::write(&path, b"edited").unwrap();
                store.verify(object, PROGRAM.len() as u64).unwrap();
                assert!(!store.path_as(object, Form::Executable).exists());
            }
        }
        store.remove(object).unwrap();
        assert_eq!(store.objects().unwrap().count(), 0);
        let gone = store.place(object, Mode::Regular, &directory.join("gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert!(!directory.join("gone").exists());
    }

    #[test]
    fn places_an_object_as_a_file_and_as_a_program() {
        places_in(tempfile::tempdir().unwrap().path(), None);
    }

    #[test]
    fn a_file_system_without_reflinks_is_asked_once_for_all_that_know_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let (store, object) = store_in(directory.path());
        let known = store.clone();
        store.place(object, Mode::Regular, &directory.path().join("file")).unwrap();
        let missing = store.reflinks.missing.load(Ordering::Relaxed);
        assert_eq!(known.reflinks.missing.load(Ordering::Relaxed), missing);
    }

    /// Needs root and mkfs; elsewhere it says that it was skipped.
    #[test]
    fn an_edit_of_a_reflink_does_not_change_the_object() {
        for (make, megabytes) in [("mkfs.btrfs", 128), ("mkfs.xfs", 320)] {
            let directory = tempfile::tempdir().unwrap();
            let (image, mount) = (directory.path().join("image"), directory.path().join("mount"));
            fs::create_dir(&mount).unwrap();
            fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
            let ran = |program: &str, arguments: &[&std::ffi::OsStr]| {
                let output = std::process::Command::new(program).args(arguments).output();
                output.is_ok_and(|output| output.status.success())
            };
            let made = ran(make, &["-q".as_ref(), image.as_ref()]);
            if !made || !ran("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), mount.as_ref()]) {
                eprintln!("skipped: {make} or mounting what it makes does not work here");
                continue;
            }
            let outcome = std::panic::catch_unwind(|| places_in(&mount, Some(true)));
            assert!(ran("umount", &[mount.as_ref()]));
            outcome.unwrap();
        }
    }
}
