//! Objects on their way into a store.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::Digest;

use super::at_rest::{Compressor, start_of, temporary};
use super::{Form, ObjectError, ObjectStore, copy_verified, set_mode};
use crate::durable;

/// A batch larger than this should be committed: what a power cut may cost stays small.
const BATCH_BYTES: u64 = 256 << 20;
const BATCH_OBJECTS: usize = 2000;
/// Objects from this size on begin their way to the disk as soon as they are taken, so that it is busy while the next ones
/// are decoded and hashed; smaller ones are laid out better by the sync, all at once.
const WRITTEN_EARLY_BYTES: u64 = 64 << 10;

/// Objects on their way into a store. Dropped without [`Batch::commit`], it leaves nothing behind.
#[must_use = "objects are in the store only after `commit`"]
pub struct Batch {
    store: ObjectStore,
    staged: Vec<Staged>,
    bytes: u64,
    /// Made for the first object, in a store that compresses.
    compressor: Option<Compressor>,
}

struct Staged {
    object: Digest,
    form: Form,
    path: tempfile::TempPath,
}

impl Batch {
    pub(super) fn new(store: ObjectStore) -> Self {
        Self { store, staged: Vec::new(), bytes: 0, compressor: None }
    }

    /// Copies one object in from `source`, which must end after `size` bytes of digest `object`.
    pub fn add(&mut self, source: &mut dyn Read, object: Digest, size: u64) -> Result<(), ObjectError> {
        let incoming = self.store.incoming();
        let (form, path) = if let Some(compressor) = self.compressor()? {
            compressor.copy(source, &incoming, object, size)?
        } else {
            let (mut file, path) = temporary(&incoming)?;
            copy_verified(source, &mut file, object, size)?;
            (Form::Plain, path)
        };
        self.stage(object, size, form, path)
    }

    /// Takes over a file that already holds an object's plain bytes, after reading it through: it moves into the store,
    /// or is removed where its compressed form goes there.
    pub fn adopt(&mut self, path: &Path, object: Digest, size: u64) -> Result<(), ObjectError> {
        let mut file = fs::File::open(path)?;
        if let Some(compressor) = self.compressor()?
            && compressor.is_worth_trying(&start_of(&mut file)?)?
        {
            self.add(&mut file, object, size)?;
            return Ok(durable::remove_file(path)?);
        }
        copy_verified(&mut file, &mut io::sink(), object, size)?;
        let (_, temporary) = temporary(&self.store.incoming())?;
        durable::rename(path, &temporary)?;
        self.stage(object, size, Form::Plain, temporary)
    }

    fn compressor(&mut self) -> io::Result<Option<&mut Compressor>> {
        if self.store.compresses && self.compressor.is_none() {
            self.compressor = Some(Compressor::new()?);
        }
        Ok(self.compressor.as_mut())
    }

    fn stage(
        &mut self,
        object: Digest,
        size: u64,
        form: Form,
        path: tempfile::TempPath,
    ) -> Result<(), ObjectError> {
        set_mode(&path, 0o444)?;
        if size >= WRITTEN_EARLY_BYTES {
            durable::begin_writing(&path)?;
        }
        self.bytes += size;
        self.staged.push(Staged { object, form, path });
        Ok(())
    }

    /// True when it is time to commit and begin another.
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.staged.len() >= BATCH_OBJECTS
    }

    /// The objects taken so far.
    pub fn objects(&self) -> impl Iterator<Item = Digest> {
        self.staged.iter().map(|staged| staged.object)
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
        let mut made: BTreeSet<PathBuf> = BTreeSet::new();
        for Staged { object, form, path: temporary } in self.staged {
            let path = self.store.path_as(object, form);
            if let Some(directory) = path.parent()
                && !made.contains(directory)
            {
                fs::create_dir_all(directory)?;
                made.insert(directory.to_owned());
            }
            durable::persist(temporary, &path)?;
            if form == Form::Zstd {
                // Who looked for the plain form and came too late finds this one.
                durable::remove_file(&self.store.path(object))?;
            }
        }
        Ok(())
    }
}
