//! The trusted metadata of one client, as files.
//!
//! ```text
//! <dir>/root.json timestamp.json snapshot.json targets.json    byte for byte as received (TUF 1.0.34, 5)
//! <dir>/catalogue.json …                                        delegated roles, named by `local_name.rs`
//! <dir>/roots/<n>.root.json                                    every root that was verified here
//! <dir>/targets/<digest>.<name>                                 the small targets that the roles list
//! <dir>/complete/<n>/…                                         links to all of these but root, as of timestamp n: the last
//!                                                              that a refresh came to its end with
//! <dir>/lock                                                    held by whoever refreshes
//! ```
//!
//! Invariant: each file was verified before it was written, and is replaced as a whole. Roots are written one by one
//! as they are verified, then timestamp, snapshot, targets, delegated roles: a crash between any two leaves a store
//! that the next refresh accepts, since every file is verified again when it is read. Until then, a machine that is cut off
//! reads the complete set from before, if the newest root still stands behind it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::tuf::{RoleName, TrustedMetadata};
use mirabelle_manifests::{Digest, Instant, TargetPath};

use crate::local_name::local_name;

/// The most that is read back of one file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A directory of trusted metadata.
#[derive(Clone, Debug)]
pub struct MetadataStore {
    directory: PathBuf,
    root: PathBuf,
    /// Whether an earlier root takes the place of one that the disk changed.
    heals: bool,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else is refreshing it.
    #[error("another process is refreshing `{0}`")]
    Busy(PathBuf),
    /// It was never given a root to trust.
    #[error("`{0}` holds no trusted root")]
    NoRoot(PathBuf),
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Keeps other writers out of a store until it is dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: fs::File,
}

impl MetadataStore {
    /// The store in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), root: directory.join("root.json"), heals: false }
    }

    /// For a machine that nobody comes by: a `root.json` that the disk changed gives way to the newest of `roots/`, which was
    /// verified here as well. Elsewhere it stops everything until a person has looked. Whoever can write here could have put
    /// any root in its place, so that nothing is lost by it; nobody installs on the word of such a machine.
    #[must_use]
    pub fn healing(self) -> Self {
        Self { heals: true, ..self }
    }

    /// The complete set before a refresh that was cut, under the newest root; `None` when there was none.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(crate) fn last_complete(&self) -> io::Result<Option<Self>> {
        let newest = self.complete_sets()?.into_iter().max();
        Ok(newest.map(|version| Self {
            directory: self.complete_set(version),
            root: self.root.clone(),
            heals: self.heals,
        }))
    }

    /// Tells whether another refresh has come to its end meanwhile.
    pub(crate) fn last_complete_timestamp(&self) -> Option<Vec<u8>> {
        self.last_complete().ok()??.read(&RoleName::timestamp()).ok()?
    }

    /// Takes note that what these roles and the targets hold is the whole of timestamp `version`.
    pub(crate) fn keep_complete(&self, version: u64, roles: &[RoleName]) -> io::Result<()> {
        let set = self.complete_set(version);
        let timestamp =
            |directory: &Path| durable::read_if_present(&directory.join("timestamp.json"), MAX_FILE_BYTES);
        // After a rotation versions begin anew: the number alone does not tell.
        if timestamp(&set)?.is_some_and(|held| Some(held) == timestamp(&self.directory).ok().flatten()) {
            return Ok(());
        }
        let new = self.directory.join("complete").join(".new");
        durable::remove_tree(&new)?;
        fs::create_dir_all(new.join("targets"))?;
        for role in roles {
            let file = self.path(role);
            if let Some(name) = file.file_name() {
                link(&file, &new.join(name))?;
            }
        }
        for entry in fs::read_dir(self.directory.join("targets"))? {
            let entry = entry?;
            link(&entry.path(), &new.join("targets").join(entry.file_name()))?;
        }
        // Whoever reads an older set meanwhile finds all of it, or nothing.
        let removed = self.directory.join("complete").join(".removed");
        for older in self.complete_sets()? {
            durable::remove_tree(&removed)?;
            durable::rename(&self.complete_set(older), &removed)?;
        }
        durable::rename(&new, &set)?;
        durable::remove_tree(&removed)
    }

    fn complete_set(&self, version: u64) -> PathBuf {
        self.directory.join("complete").join(version.to_string())
    }

    fn complete_sets(&self) -> io::Result<Vec<u64>> {
        let directory = self.directory.join("complete");
        if !fs::exists(&directory)? {
            return Ok(Vec::new());
        }
        let names = fs::read_dir(&directory)?
            .map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())));
        names.filter_map(Result::transpose).collect()
    }

    /// Makes the store trust `root`, if it does not have a root yet.
    pub fn trust(&self, root: &[u8]) -> Result<(), StoreError> {
        if self.read(&RoleName::root())?.is_none() {
            self.write(&RoleName::root(), root)?;
        }
        Ok(())
    }

    /// The trusted root's bytes.
    pub fn root(&self) -> Result<Vec<u8>, StoreError> {
        let held = self.read(&RoleName::root())?.ok_or_else(|| StoreError::NoRoot(self.directory.clone()))?;
        if !self.heals || is_root(&held) {
            return Ok(held);
        }
        for version in self.kept_roots()?.into_iter().rev() {
            if let Some(kept) = self.kept_root(version)?.filter(|kept| is_root(kept)) {
                tracing::warn!(
                    version,
                    "the trusted root was changed on the disk, and an earlier copy takes its place"
                );
                return Ok(kept);
            }
        }
        Ok(held)
    }

    /// The versions of the roots that were verified here, in ascending order.
    fn kept_roots(&self) -> io::Result<Vec<u64>> {
        let directory = self.directory.join("roots");
        if !fs::exists(&directory)? {
            return Ok(Vec::new());
        }
        let version = |name: &str| name.strip_suffix(".root.json")?.parse().ok();
        let names = fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name().to_str().and_then(version)));
        let mut versions = names.filter_map(Result::transpose).collect::<io::Result<Vec<u64>>>()?;
        versions.sort_unstable();
        Ok(versions)
    }

    /// A role's bytes, if there are any.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn read(&self, role: &RoleName) -> io::Result<Option<Vec<u8>>> {
        durable::read_if_present(&self.path(role), MAX_FILE_BYTES)
    }

    /// A root of this version that was verified here, if there is one.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn kept_root(&self, version: u64) -> io::Result<Option<Vec<u8>>> {
        durable::read_if_present(&self.root_path(version), MAX_FILE_BYTES)
    }

    /// Keeps a verified root, for whoever hands the chain on.
    pub(crate) fn keep_root(&self, version: u64, bytes: &[u8]) -> io::Result<()> {
        if self.kept_root(version)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        durable::write_atomically(&self.root_path(version), bytes)
    }

    fn root_path(&self, version: u64) -> PathBuf {
        self.directory.join("roots").join(format!("{version}.root.json"))
    }

    /// A small target's bytes, if there are any.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn read_target(&self, target: &TargetPath, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        durable::read_if_present(&self.target_path(target, digest), MAX_FILE_BYTES)
    }

    pub(crate) fn write(&self, role: &RoleName, bytes: &[u8]) -> io::Result<()> {
        durable::write_atomically(&self.path(role), bytes)
    }

    /// An earlier version of a small target, which a server may know a difference from.
    pub(crate) fn held_target(&self, target: &TargetPath) -> io::Result<Option<Vec<u8>>> {
        let held = self.versions_of(target)?.into_iter().next();
        held.map_or(Ok(None), |path| durable::read_if_present(&path, MAX_FILE_BYTES))
    }

    /// Keeps a small target in the place of its earlier versions.
    pub(crate) fn write_target(&self, target: &TargetPath, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.target_path(target, digest);
        durable::write_atomically(&path, bytes)?;
        let mut earlier = self.versions_of(target)?.into_iter().filter(|other| *other != path);
        earlier.try_for_each(|other| durable::remove_file(&other))
    }

    fn versions_of(&self, target: &TargetPath) -> io::Result<Vec<PathBuf>> {
        let directory = self.directory.join("targets");
        if !fs::exists(&directory)? {
            return Ok(Vec::new());
        }
        let name = format!(".{}", target_name(target));
        let mut versions = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // 64 characters of a digest, then the name.
            if entry.file_name().to_str().and_then(|file| file.get(64..)) == Some(&name) {
                versions.push(entry.path());
            }
        }
        Ok(versions)
    }

    pub(crate) fn lock(&self) -> Result<StoreLock, StoreError> {
        durable::try_lock(&self.directory.join("lock"))?
            .map(|file| StoreLock { _file: file })
            .ok_or_else(|| StoreError::Busy(self.directory.clone()))
    }

    fn path(&self, role: &RoleName) -> PathBuf {
        if *role == RoleName::root() {
            return self.root.clone();
        }
        self.directory.join(format!("{}.json", local_name(role.as_str())))
    }

    fn target_path(&self, target: &TargetPath, digest: Digest) -> PathBuf {
        self.directory.join("targets").join(format!("{digest}.{}", target_name(target)))
    }
}

/// True for the bytes of a root that its own keys signed.
fn is_root(bytes: &[u8]) -> bool {
    // When does not matter: whether it has expired is looked at by whoever uses it.
    TrustedMetadata::begin(bytes, Instant::MIN).is_ok()
}

/// The same file under another name; a copy where the file system has no links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
}

/// The last segment of a target's path, as a file name.
fn target_name(target: &TargetPath) -> String {
    local_name(target.as_str().rsplit('/').next().unwrap_or_default())
}
