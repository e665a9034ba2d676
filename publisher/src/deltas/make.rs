//! Making deltas, several at once, within a budget of processors and memory.
//!
//! Releases are unpacked from the published bundles into a scratch store for each package, which goes when the last
//! delta of the package is made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use mirabelle_content::bundle::read_frame;
use mirabelle_content::delta::{EncodeError, EncodeOptions, Held, encode};
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{CatalogueEntry, Digest, SignedRelease};
use mirabelle_terminal::{Bar, Failure, OrFail};
use serde::Serialize;

use super::{Deltas, Pair};

/// What making deltas may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Threads.
    pub(crate) jobs: NonZeroUsize,
    /// Bytes of memory. One delta at a time is made even where it needs more.
    pub(crate) memory: u64,
    /// 1 to 3.
    pub(crate) effort: u8,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) made: Vec<Made>,
    /// Deltas that were there already.
    pub(crate) present: usize,
    /// Deltas that were no smaller than the bundle.
    pub(crate) worthless: Vec<String>,
    pub(crate) failed: Vec<String>,
    /// Deltas that went because no machine needs them.
    pub(crate) dropped: usize,
}

/// A delta that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    pub(crate) delta: String,
    pub(crate) bytes: u64,
    pub(crate) bundle_bytes: u64,
}

/// A window of the encoder: so much of each side is aligned at once (`content/src/delta/`).
const WINDOW_BYTES: u64 = 256 << 20;
/// Whatever the releases' size: the match finder of a dictionary of 32 MiB, an archive that is open.
const BASE_MEMORY_BYTES: u64 = 512 << 20;

/// Bytes of memory that making a delta takes at most: seven for each old byte of a window, and room for the new ones.
fn memory_needed(pair: &Pair) -> u64 {
    let window = |entry: &CatalogueEntry| entry.listing.installed_size.min(WINDOW_BYTES);
    BASE_MEMORY_BYTES + 2 * window(&pair.to) + 7 * pair.from.as_ref().map_or(0, window)
}

/// The most bytes that a delta may have to be worth keeping. A pack that saves next to nothing only takes room.
fn worth_bytes(pair: &Pair) -> u64 {
    let bundle = pair.to.listing.download_size;
    if pair.from.is_some() { bundle.saturating_sub(1) } else { bundle - bundle / 50 }
}

/// Deltas that wait, and memory that is taken.
struct Queue {
    waiting: Vec<Pair>,
    memory: u64,
    running: usize,
    report: Report,
}

/// A package's releases, unpacked.
#[derive(Default)]
struct Unpacked {
    store: Option<ObjectStore>,
    releases: BTreeSet<Digest>,
    /// Deltas of the package that are not made yet.
    left: usize,
}

impl Deltas<'_> {
    /// Makes `pairs`; what fails is in the report and does not hold up the others.
    pub(super) fn make(&self, pairs: &[Pair], budget: &Budget) -> Result<Report, Failure> {
        let what = || "cannot make deltas".to_owned();
        // Also when there is nothing to make: a run may have been killed when its last delta was made.
        self.sweep()?;
        if pairs.is_empty() {
            return Ok(Report::default());
        }
        fs::create_dir_all(self.scratch()).or_fail(what)?;
        let total = pairs.iter().map(|pair| pair.to.listing.installed_size).sum();
        let bar = Bar::bytes(&format!("making {} deltas", pairs.len()), total);
        let packages: BTreeMap<String, Mutex<Unpacked>> =
            pairs.iter().map(|pair| (package_of(pair), Mutex::default())).collect();
        for pair in pairs {
            lock(&packages[&package_of(pair)]).left += 1;
        }
        // As many at once as the memory carries, and the threads that are left over help each.
        let largest = pairs.iter().map(memory_needed).max().unwrap_or(1);
        let fit = usize::try_from(budget.memory / largest).unwrap_or(usize::MAX).max(1);
        let workers = budget.jobs.get().min(pairs.len());
        let threads = NonZeroUsize::new(budget.jobs.get() / workers.min(fit)).unwrap_or(NonZeroUsize::MIN);
        let options = EncodeOptions { effort: budget.effort, jobs: threads };
        let queue =
            Mutex::new(Queue { waiting: pairs.to_vec(), memory: 0, running: 0, report: Report::default() });
        let ended = Condvar::new();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(pair) = take(&queue, &ended, budget.memory) {
                        let make = || self.make_one(&pair, &packages[&package_of(&pair)], options, &bar);
                        // A delta that cannot be made must not keep others, or the publication, from going on.
                        let result = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| {
                            Err(Failure::no(format!(
                                "making the delta to {} panicked",
                                pair.to.listing.version
                            )))
                        });
                        let mut queue = lock(&queue);
                        queue.memory -= memory_needed(&pair);
                        queue.running -= 1;
                        queue.report.add(&pair, result);
                        drop(queue);
                        ended.notify_all();
                    }
                });
            }
        });
        bar.finish();
        self.sweep()?;
        Ok(queue.into_inner().unwrap_or_else(PoisonError::into_inner).report)
    }

    /// Makes one delta; `None`: it is no smaller than the bundle.
    fn make_one(
        &self,
        pair: &Pair,
        package: &Mutex<Unpacked>,
        options: EncodeOptions,
        bar: &Bar,
    ) -> Result<Option<u64>, Failure> {
        let made = self.encode(pair, package, options, bar);
        let mut package = lock(package);
        package.left -= 1;
        if package.left == 0 {
            package.store = None;
            durable::remove_tree(&self.unpacked(pair))
                .or_fail(|| format!("cannot sweep after {}", pair.label()))?;
        }
        made
    }

    fn encode(
        &self,
        pair: &Pair,
        package: &Mutex<Unpacked>,
        options: EncodeOptions,
        bar: &Bar,
    ) -> Result<Option<u64>, Failure> {
        let what = || format!("cannot make the delta of {}", pair.label());
        let (to, from) = pair.edge();
        let store = self.unpack(&pair.to, pair, package)?;
        if let Some(from) = &pair.from {
            self.unpack(from, pair, package)?;
        }
        let manifest = self.repository.target(&pair.to.path, pair.to.digest)?;
        let base =
            pair.from.as_ref().map(|from| self.repository.target(&from.path, from.digest)).transpose()?;
        let target = Held { manifest: &manifest, objects: &store };
        let base = base.as_deref().map(|manifest| Held { manifest, objects: &store });

        let name = from.map_or("full".to_owned(), |from| from.to_string());
        let new = self.repository.path(&format!("delta-work/new-{to}-{name}"));
        let mut options_of_file = fs::OpenOptions::new();
        let file = options_of_file.read(true).write(true).create(true).truncate(true).open(&new);
        let mut file = file.or_fail(what)?;
        let encoded = encode(base, target, options, &self.scratch(), &mut file, &|bytes| bar.advance(bytes));
        let size = match encoded {
            Ok(size) => size,
            Err(error) => {
                durable::remove_file(&new).or_fail(what)?;
                if !matches!(error, EncodeError::Io(_)) {
                    // The same two releases would fail again.
                    self.note_worthless(pair, &error.to_string())?;
                }
                return Err(error).or_fail(what);
            }
        };
        if size > worth_bytes(pair) {
            drop(file);
            durable::remove_file(&new).or_fail(what)?;
            self.note_worthless(pair, &format!("{size} bytes"))?;
            return Ok(None);
        }
        file.sync_all().or_fail(what)?;
        let place = self.file((to, from));
        let directory = place.parent().unwrap_or(&place);
        fs::create_dir_all(directory).or_fail(what)?;
        fs::rename(&new, &place).or_fail(what)?;
        durable::sync_directory(directory).or_fail(what)?;
        self.write_routes(to, &BTreeSet::new())?;
        Ok(Some(size))
    }

    /// Remembers that a delta is not worth making again.
    fn note_worthless(&self, pair: &Pair, why: &str) -> Result<(), Failure> {
        let path = self.worthless(pair.edge());
        durable::write_atomically(&path, why.as_bytes())
            .or_fail(|| format!("cannot write `{}`", path.display()))
    }

    /// Unpacks a release from its bundle into the package's store, unless it is there.
    fn unpack(
        &self,
        entry: &CatalogueEntry,
        pair: &Pair,
        package: &Mutex<Unpacked>,
    ) -> Result<ObjectStore, Failure> {
        let what = || format!("cannot unpack `{} {}`", entry.listing.name, entry.listing.version);
        // Held while it is unpacked: two deltas of one package often need the same release.
        let mut package = lock(package);
        let store = if let Some(store) = &package.store {
            store.clone()
        } else {
            let directory = self.unpacked(pair);
            fs::create_dir_all(&directory).or_fail(what)?;
            ObjectStore::open(&directory).or_fail(what)?
        };
        package.store = Some(store.clone());
        if package.releases.contains(&entry.digest) {
            return Ok(store);
        }
        let manifest = self.repository.target(&entry.path, entry.digest)?;
        let release = SignedRelease::parse(&manifest).or_fail(what)?.release;
        let mut wanted: BTreeMap<u32, BTreeMap<Digest, u64>> = BTreeMap::new();
        for (object, found) in release.objects() {
            if !store.holds(object, found.size) {
                wanted.entry(found.frame).or_default().insert(object, found.size);
            }
        }
        let mut bundle = fs::File::open(self.bundle(release.bundle.sha256)).or_fail(what)?;
        let mut batch = store.batch();
        let mut offset = 0;
        for (number, frame) in (0_u32..).zip(&release.bundle.frames) {
            if let Some(wanted) = wanted.remove(&number) {
                bundle.seek(io::SeekFrom::Start(offset)).or_fail(what)?;
                read_frame(&mut bundle, &release, number, wanted, &mut batch).or_fail(what)?;
            }
            offset += frame.size;
            if batch.is_full() {
                std::mem::replace(&mut batch, store.batch()).commit().or_fail(what)?;
            }
        }
        batch.commit().or_fail(what)?;
        package.releases.insert(entry.digest);
        Ok(store)
    }

    /// Removes what an earlier run left half done.
    fn sweep(&self) -> Result<(), Failure> {
        let directory = self.repository.path("delta-work");
        let what = || format!("cannot sweep `{}`", directory.display());
        for entry in fs::read_dir(&directory).or_fail(what)? {
            let entry = entry.or_fail(what)?;
            let name = entry.file_name();
            match name.to_str().unwrap_or_default() {
                "lock" | "worthless" => {}
                "unpacked" | "scratch" => durable::remove_tree(&entry.path()).or_fail(what)?,
                _ => durable::remove_file(&entry.path()).or_fail(what)?,
            }
        }
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.repository.path("delta-work/scratch")
    }

    fn unpacked(&self, pair: &Pair) -> PathBuf {
        self.repository.path("delta-work/unpacked").join(package_of(pair))
    }
}

impl Report {
    fn add(&mut self, pair: &Pair, result: Result<Option<u64>, Failure>) {
        match result {
            Ok(Some(bytes)) => {
                let bundle_bytes = pair.to.listing.download_size;
                self.made.push(Made { delta: pair.label(), bytes, bundle_bytes });
            }
            Ok(None) => self.worthless.push(pair.label()),
            Err(failure) => {
                tracing::warn!("a delta could not be made\n{}", failure.render().trim_end());
                self.failed.push(pair.label());
            }
        }
    }
}

/// The next delta that the memory has room for; waits until there is one, and ends when none is left.
fn take(queue: &Mutex<Queue>, ended: &Condvar, memory: u64) -> Option<Pair> {
    let mut queue = lock(queue);
    loop {
        if queue.waiting.is_empty() {
            return None;
        }
        let fits = |pair: &Pair| queue.running == 0 || queue.memory + memory_needed(pair) <= memory;
        if let Some(at) = queue.waiting.iter().position(fits) {
            let pair = queue.waiting.remove(at);
            queue.memory += memory_needed(&pair);
            queue.running += 1;
            return Some(pair);
        }
        queue = ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A poisoned lock belongs to a thread whose panic the scope passes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the scratch store of a package's releases.
fn package_of(pair: &Pair) -> String {
    format!("{}-{}", pair.to.listing.name, pair.to.listing.platform)
}
