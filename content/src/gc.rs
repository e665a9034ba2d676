//! Removing the objects that nothing needs: mark and sweep, with roots.
//!
//! The roots are whoever calls' business: the releases a node must hold, the generations a workstation can return to. Two
//! sides meet here, perhaps in two processes:
//!
//! - Who *counts on objects* holds a [`Lease`] (shared) from before looking which objects are here until the release that
//!   they belong to is among the roots: a mirror, from its plan to its flip.
//! - Who *sweeps* holds a [`Sweep`] (alone), and reads the roots while holding it.
//!
//! Invariants:
//! 1. No object of a release that is among the roots, or of one that is being obtained, is removed. The sweep and the
//!    lease exclude one another, so that every object was either looked for after the sweep, and then found missing and
//!    fetched, or belongs to a root.
//! 2. An object younger than the grace stays, whatever the roots say: what a killed mirror had fetched is still there
//!    when it is started anew.
//! 3. Who is reading an object goes on reading: its file outlives its name.
//! 4. A sweep that dies, at whatever instant, has removed only what nothing needed; the next one removes the rest. Lease
//!    and sweep die with their process, since they are locks on a file (`objects.lock`).
//!
//! Lock order: the lock of the program's own directory, if it has one, then this one. Nobody waits for a sweep's lock: it
//! is had at once or not at all ([`Sweep::begin`]), so that a sweep never holds up a mirror for longer than it runs.
//!
//! Decide first, act after: [`Sweep::garbage`] says what would go, and [`Garbage::remove`] removes it.

use std::collections::BTreeSet;
use std::io;

use fs_err as fs;
use mirabelle_manifests::{Digest, Instant};

use crate::durable;
use crate::store::ObjectStore;

/// Held by whoever counts on objects that no root needs yet.
#[derive(Debug)]
#[must_use = "objects may be swept as soon as it is dropped"]
pub struct Lease {
    _lock: fs::File,
}

impl Lease {
    /// Keeps sweeps out; waits for one that is under way.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn take(store: &ObjectStore) -> io::Result<Self> {
        Ok(Self { _lock: durable::lock_shared(&store.lock_path())? })
    }
}

/// The right to remove objects. Roots that were read before it was had are worth nothing.
#[derive(Debug)]
pub struct Sweep<'a> {
    store: &'a ObjectStore,
    _lock: fs::File,
}

/// What a sweep found.
#[derive(Debug)]
#[must_use = "nothing is removed yet"]
pub struct Garbage<'a> {
    store: &'a ObjectStore,
    doomed: BTreeSet<Digest>,
    /// What their files come to.
    pub bytes: u64,
    /// Objects that nothing needs either, and that are too young to go.
    pub young: u64,
}

impl<'a> Sweep<'a> {
    /// Begins a sweep; `None` while somebody holds a lease or sweeps.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn begin(store: &'a ObjectStore) -> io::Result<Option<Self>> {
        Ok(durable::try_lock(&store.lock_path())?.map(|lock| Self { store, _lock: lock }))
    }

    /// The objects that are not `needed` and came before the instant `before`.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn garbage(&self, needed: &BTreeSet<Digest>, before: Instant) -> io::Result<Garbage<'_>> {
        let mut garbage = Garbage { store: self.store, doomed: BTreeSet::new(), bytes: 0, young: 0 };
        for object in self.store.objects()? {
            let (object, bytes) = object?;
            if needed.contains(&object) {
                continue;
            }
            if self.is_older(object, before)? {
                garbage.doomed.insert(object);
                garbage.bytes += bytes;
            } else {
                garbage.young += 1;
            }
        }
        Ok(garbage)
    }

    fn is_older(&self, object: Digest, before: Instant) -> io::Result<bool> {
        if before == Instant::MAX {
            return Ok(true);
        }
        let Some((_, path)) = self.store.locate(object) else { return Ok(false) };
        let modified = fs::metadata(path)?.modified()?;
        // Renaming keeps the time of writing. A file from the future is young.
        Ok(Instant::try_from(modified).is_ok_and(|modified| modified < before))
    }
}

impl Garbage<'_> {
    /// How many objects it is.
    pub fn objects(&self) -> u64 {
        self.doomed.len() as u64
    }

    /// Removes it.
    ///
    /// # Errors
    /// Any error of the file system; what was removed until then is gone, and was needed by nothing.
    pub fn remove(self) -> io::Result<()> {
        self.doomed.into_iter().try_for_each(|object| self.store.remove(object))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn add(store: &ObjectStore, bytes: &[u8]) -> Digest {
        let object = Digest::of(bytes);
        let mut batch = store.batch();
        batch.add(&mut { bytes }, object, bytes.len() as u64).unwrap();
        batch.commit().unwrap();
        object
    }

    #[test]
    fn removes_what_is_neither_needed_nor_young() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open_compressing(directory.path()).unwrap();
        let needed = add(&store, &b"needed ".repeat(1000));
        let garbage = add(&store, &b"garbage ".repeat(1000));
        let roots = BTreeSet::from([needed]);
        let sweep = Sweep::begin(&store).unwrap().unwrap();

        let found = sweep.garbage(&roots, "2020-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((found.objects(), found.bytes, found.young), (0, 0, 1), "it came later");
        let found = sweep.garbage(&roots, Instant::MAX).unwrap();
        assert_eq!((found.objects(), found.young), (1, 0));
        assert!(found.bytes > 0 && store.holds(garbage, 8000), "only said so far");
        let mut reader = store.read(garbage).unwrap();
        found.remove().unwrap();
        assert!(store.holds(needed, 7000) && !store.holds(garbage, 8000));
        let mut read = Vec::new();
        io::Read::read_to_end(&mut reader, &mut read).unwrap();
        assert_eq!(read.len(), 8000, "whoever reads it goes on");
    }

    #[test]
    fn waits_for_nobody_and_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(directory.path()).unwrap();
        let (first, second) = (Lease::take(&store).unwrap(), Lease::take(&store).unwrap());
        assert!(Sweep::begin(&store).unwrap().is_none());
        drop(first);
        assert!(Sweep::begin(&store).unwrap().is_none());
        drop(second);
        let sweep = Sweep::begin(&store).unwrap();
        assert!(sweep.is_some() && Sweep::begin(&store).unwrap().is_none());
        drop(sweep);
        let _lease = Lease::take(&store).unwrap();
    }

    /// Releases come and go while somebody sweeps as often as he can: two mirrors, each of which plans, commits and only
    /// then makes its release a root, sharing objects with one another and with what was dropped before.
    #[test]
    fn never_loses_an_object_that_a_release_needs() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open_compressing(directory.path()).unwrap();
        let roots: Mutex<Vec<BTreeSet<Digest>>> = Mutex::default();
        let done = AtomicBool::new(false);
        let content = |number: u64| format!("object {} ", number % 17).repeat(100).into_bytes();
        std::thread::scope(|threads| {
            let sweeper = threads.spawn(|| {
                let (mut sweeps, mut removed) = (0, 0);
                while !done.load(Ordering::Relaxed) {
                    if let Some(sweep) = Sweep::begin(&store).unwrap() {
                        let needed = roots.lock().unwrap().iter().flatten().copied().collect();
                        let garbage = sweep.garbage(&needed, Instant::MAX).unwrap();
                        removed += garbage.objects();
                        garbage.remove().unwrap();
                        sweeps += 1;
                    }
                    std::thread::yield_now();
                }
                (sweeps, removed)
            });
            let mirrors: Vec<_> = (0..2)
                .map(|mirror| {
                    let (store, roots) = (&store, &roots);
                    threads.spawn(move || {
                        for number in 0..40_u64 {
                            let lease = Lease::take(store).unwrap();
                            let objects: Vec<_> =
                                (0..4).map(|part| content(number * 3 + part * 5 + mirror)).collect();
                            let missing: Vec<_> = objects
                                .iter()
                                .filter(|bytes| !store.holds(Digest::of(bytes), bytes.len() as u64))
                                .collect();
                            let mut batch = store.batch();
                            for bytes in missing {
                                let (object, size) = (Digest::of(bytes), bytes.len() as u64);
                                batch.add(&mut bytes.as_slice(), object, size).unwrap();
                            }
                            batch.commit().unwrap();
                            {
                                let mut roots = roots.lock().unwrap();
                                roots.push(objects.iter().map(|bytes| Digest::of(bytes)).collect());
                                let old = roots.len().saturating_sub(3);
                                roots.drain(..old);
                            }
                            drop(lease);
                            // Gives the sweeper its turn.
                            std::thread::yield_now();
                            let _lease = Lease::take(store).unwrap();
                            for object in roots.lock().unwrap().iter().flatten() {
                                assert!(store.locate(*object).is_some(), "an object of a root is gone");
                            }
                        }
                    })
                })
                .collect();
            for mirror in mirrors {
                mirror.join().unwrap();
            }
            while Sweep::begin(&store).unwrap().is_none() {
                std::thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
            let (sweeps, removed) = sweeper.join().unwrap();
            println!("{sweeps} sweeps removed {removed} objects");
        });
    }
}
