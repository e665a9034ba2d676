//! The index: which releases were complete when last looked at, so that a sync that changes nothing does not ask the
//! file system about a hundred thousand objects.
//!
//! Invariant (promise 10): it holds nothing that the files do not say. A release that is not in it is looked up in the
//! files; one that is in it was found whole there, by a process that ended in order. Hence:
//! - whatever happens at opening (an error, a panic inside sled, a damaged file), the folder is moved aside and an
//!   empty index takes its place;
//! - after a stop that was not in order (no `clean` marker) it begins empty, since sled's flush is no fsync;
//! - whoever finds an object missing or wrong leaves a `doubt` file, and the index begins empty again.
//!
//! One sled handle per process, small records, a bounded cache.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::Digest;

/// Bytes of sled's page cache: the index of a college is a few hundred records.
const CACHE_BYTES: u64 = 4 << 20;

/// The index of one node.
pub(crate) struct Index {
    database: Option<sled::Db>,
    directory: PathBuf,
    doubt: PathBuf,
}

impl Index {
    /// Opens the index of the node in `root`. Never fails: without an index everything works, a little slower.
    pub(crate) fn open(root: &Path) -> Self {
        let directory = root.join("index");
        let doubt = root.join("doubt");
        let clean = directory.join("clean");
        let believable = clean.exists() && !doubt.exists();
        let mut database = open_database(&directory);
        if database.is_none() {
            set_aside(&directory);
            database = open_database(&directory);
        } else if !believable && let Some(database) = &database {
            let _ = database.clear();
        }
        // From here on a stop is only in order when `close` says so.
        let _ = durable::remove_file(&clean).and_then(|()| durable::remove_file(&doubt));
        Self { database, directory, doubt }
    }

    /// True when the release was found whole before.
    pub(crate) fn is_complete(&self, release: Digest) -> bool {
        let found = self.database.as_ref().map(|database| database.contains_key(release.as_bytes()));
        matches!(found, Some(Ok(true)))
    }

    /// Remembers that the release is here, whole.
    pub(crate) fn mark_complete(&self, release: Digest) {
        if let Some(database) = &self.database {
            let _ = database.insert(release.as_bytes(), &[]);
        }
    }

    /// Begins anew when somebody left a doubt since.
    pub(crate) fn heed_doubt(&self) {
        if self.doubt.exists() {
            if let Some(database) = &self.database {
                let _ = database.clear();
            }
            let _ = durable::remove_file(&self.doubt);
        }
    }

    /// Ends in order, so that the next process may believe it.
    pub(crate) fn close(self) {
        if let Some(database) = &self.database
            && database.flush().is_ok()
        {
            let _ = durable::write_atomically(&self.directory.join("clean"), b"");
        }
    }
}

/// Makes every process begin its index anew.
pub(crate) fn leave_doubt(root: &Path) {
    let doubt = root.join("doubt");
    if !doubt.exists() {
        let _ = durable::write_atomically(&doubt, b"");
    }
}

fn open_database(directory: &Path) -> Option<sled::Db> {
    let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES);
    // sled panics on some damaged files; that is one more way of being damaged.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
    match opened {
        Ok(Ok(database)) => Some(database),
        Ok(Err(error)) => {
            tracing::warn!(%error, "index could not be opened");
            None
        }
        Err(_) => {
            tracing::warn!("index is damaged");
            None
        }
    }
}

fn set_aside(directory: &Path) {
    let aside = directory.with_extension("damaged");
    let _ = durable::remove_tree(&aside);
    if let Err(error) = fs::rename(directory, &aside) {
        tracing::warn!(%error, "damaged index could not be moved aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_believed_only_after_a_stop_in_order() {
        let root = tempfile::tempdir().unwrap();
        let release = Digest::of(b"release");
        let index = Index::open(root.path());
        index.mark_complete(release);
        index.close();
        let index = Index::open(root.path());
        assert!(index.is_complete(release));
        drop(index);
        assert!(!Index::open(root.path()).is_complete(release), "the last stop was not in order");
    }

    #[test]
    fn a_doubt_empties_it() {
        let root = tempfile::tempdir().unwrap();
        let release = Digest::of(b"release");
        let index = Index::open(root.path());
        index.mark_complete(release);
        leave_doubt(root.path());
        index.heed_doubt();
        assert!(!index.is_complete(release));
    }

    #[test]
    fn survives_being_deleted_truncated_or_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let release = Digest::of(b"release");
        for damage in ["delete", "truncate", "overwrite"] {
            let index = Index::open(root.path());
            index.mark_complete(release);
            index.close();
            let files: Vec<_> =
                fs::read_dir(root.path().join("index")).unwrap().map(|e| e.unwrap().path()).collect();
            for file in files.iter().filter(|file| file.is_file() && file.file_name().unwrap() != "clean") {
                let length = fs::metadata(file).unwrap().len();
                match damage {
                    "delete" => fs::remove_file(file).unwrap(),
                    "truncate" => {
                        fs::write(file, &fs::read(file).unwrap()[..usize::try_from(length / 2).unwrap()])
                            .unwrap();
                    }
                    _ => fs::write(file, vec![0xa5; usize::try_from(length.min(4096)).unwrap()]).unwrap(),
                }
            }
            let index = Index::open(root.path());
            index.mark_complete(release);
            assert!(index.is_complete(release), "works after `{damage}`");
            index.close();
        }
    }
}
