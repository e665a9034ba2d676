//! What the process knows about files that it serves: small ones with their content, others open, or with their place.
//!
//! All make an answer cheap: the first two need no system call but to send it, the last no search for the form in which
//! an object is stored. It is bounded by bytes, everything counted ([`keep_in_memory`]); what was not asked for since the
//! hand came round last loses its content first and then its place (the clock algorithm).
//!
//! It is the process's and not a server's, as its memory is.
//!
//! Invariant: never answer with what is no longer there. What is known is compared with the file's device, inode, length
//! and both times: at each request, but for a small file whose name says what is in it, every ten seconds (`file.rs`). Who
//! takes such a file away and cannot wait for that says so ([`forget`], [`forget_object`]).
//!
//! Threats: *a client that asks for everything once*: what is asked for again stays.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderValue;
use mirabelle_content::{Form, ObjectStore};
use mirabelle_manifests::Digest;

/// What a node keeps when nobody says otherwise.
const DEFAULT_BYTES: usize = 32 << 20;
/// What an entry costs beside its content: path twice, etag, table.
const ENTRY_BYTES: usize = 640;
/// A file whose name says what is in it is looked at again after so long: looking costs a tenth of an answer.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// Files kept open.
const MOST_OPEN: usize = 8192;

/// What a file is asked for as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    pub(super) fn of_file(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().into())
    }

    /// No path has a zero in it.
    pub(super) fn of_object(store: &ObjectStore, object: Digest) -> Self {
        let root = store.root().as_os_str().as_bytes();
        Self([root, &[0], object.as_bytes()].concat().into())
    }
}

/// Which file it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// When it was written, in nanoseconds since 1970.
    pub(super) fn written(&self) -> i128 {
        i128::from(self.modified.0) * 1_000_000_000 + i128::from(self.modified.1)
    }
}

/// What an answer is made of.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// The whole of a small file.
    Memory(Bytes),
    /// A larger one, open.
    Open(Arc<File>),
    /// Neither, at present.
    OnDisk,
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Open(_) | Self::OnDisk => 0,
        }
    }
}

/// What is known about a file.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) path: Arc<Path>,
    pub(super) form: Form,
    pub(super) identity: Identity,
    pub(super) etag: HeaderValue,
    pub(super) content: Content,
    /// When it was last compared with the file.
    pub(super) seen: Instant,
}

impl Known {
    /// True when it need not be compared with the file again yet.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < FRESH_FOR
    }

    fn cost(&self) -> usize {
        ENTRY_BYTES + self.content.bytes()
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    known: Known,
    asked_for: bool,
}

#[derive(Debug)]
struct Cache {
    entries: Vec<Entry>,
    places: HashMap<Key, usize>,
    hand: usize,
    bytes: usize,
    content_bytes: usize,
    /// Entries whose file is open.
    open: usize,
    most: usize,
    hits: u64,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(|| Mutex::new(Cache::new(DEFAULT_BYTES)));

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets how many bytes of small files, and of what is known about others, this process keeps.
pub fn keep_in_memory(bytes: usize) {
    let mut cache = cache();
    cache.most = bytes;
    cache.make_room();
}

/// Forgets the file at `path`, which was taken away or replaced.
pub fn forget(path: &Path) {
    cache().remove(&Key::of_file(path));
}

/// Forgets an object that was taken away or replaced, in every form.
pub fn forget_object(store: &ObjectStore, object: Digest) {
    cache().remove(&Key::of_object(store, object));
}

/// Forgets what is asked for so.
pub(super) fn remove(key: &Key) {
    cache().remove(key);
}

/// Forgets every file.
pub fn forget_everything() {
    let mut cache = cache();
    *cache = Cache { hits: cache.hits, ..Cache::new(cache.most) };
}

/// What is known about the file asked for as `key`.
pub(super) fn look_up(key: &Key) -> Option<Known> {
    cache().look_up(key)
}

/// Keeps what was found out about it.
pub(super) fn keep(key: Key, known: Known) {
    cache().keep(key, known);
}

/// Notes that it was compared with the file.
pub(super) fn saw(key: &Key, now: Instant) {
    let mut cache = cache();
    if let Some(place) = cache.places.get(key).copied() {
        cache.entries[place].known.seen = now;
    }
}

/// Closes files that nobody looked at lately: one that is deleted takes up room for as long as it is open.
pub(super) fn close_unused() {
    cache().close_unused(Instant::now());
}

pub(super) fn hits_and_bytes() -> (u64, u64) {
    let cache = cache();
    (cache.hits, cache.content_bytes as u64)
}

impl Cache {
    fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            places: HashMap::new(),
            hand: 0,
            bytes: 0,
            content_bytes: 0,
            open: 0,
            most,
            hits: 0,
        }
    }

    fn look_up(&mut self, key: &Key) -> Option<Known> {
        let entry = &mut self.entries[*self.places.get(key)?];
        entry.asked_for = true;
        self.hits += u64::from(matches!(entry.known.content, Content::Memory(_)));
        Some(entry.known.clone())
    }

    fn keep(&mut self, key: Key, mut known: Known) {
        self.remove(&key);
        if known.cost() > self.most {
            return;
        }
        if self.open >= MOST_OPEN && matches!(known.content, Content::Open(_)) {
            known.content = Content::OnDisk;
        }
        self.bytes += known.cost();
        self.content_bytes += known.content.bytes();
        if matches!(known.content, Content::Open(_)) {
            self.open += 1;
        }
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key, known, asked_for: false });
        self.make_room();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(place) = self.places.get(key).copied() {
            self.remove_at(place);
        }
    }

    fn remove_at(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.key);
        self.bytes -= entry.known.cost();
        self.content_bytes -= entry.known.content.bytes();
        self.open -= usize::from(matches!(entry.known.content, Content::Open(_)));
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key.clone(), place);
        }
    }

    fn close_unused(&mut self, now: Instant) {
        if self.open == 0 {
            return;
        }
        for entry in &mut self.entries {
            if matches!(entry.known.content, Content::Open(_)) && !entry.known.is_fresh(now) {
                entry.known.content = Content::OnDisk;
                self.open -= 1;
            }
        }
    }

    fn make_room(&mut self) {
        while self.bytes > self.most {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if std::mem::take(&mut entry.asked_for) {
                self.hand += 1;
            } else if let Content::Memory(content) = &entry.known.content {
                self.bytes -= content.len();
                self.content_bytes -= content.len();
                entry.known.content = Content::OnDisk;
                self.hand += 1;
            } else {
                self.remove_at(self.hand);
                // What took its place is the newest.
                self.hand += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(length: usize) -> Known {
        let file = tempfile::tempfile().unwrap();
        Known {
            path: Path::new("x").into(),
            form: Form::Plain,
            identity: Identity::of(&file.metadata().unwrap()),
            etag: HeaderValue::from_static("\"x\""),
            content: Content::Memory(vec![0; length].into()),
            seen: Instant::now(),
        }
    }

    fn key(number: usize) -> Key {
        Key::of_file(Path::new(&number.to_string()))
    }

    #[test]
    fn keeps_no_more_than_it_may_and_rather_what_is_asked_for_again() {
        let mut cache = Cache::new(10 * (1000 + ENTRY_BYTES));
        cache.keep(key(0), known(1000));
        for number in 1..100 {
            cache.keep(key(number), known(1000));
            let first = cache.look_up(&key(0)).expect("it is asked for all the time");
            assert!(number < 12 || first.content.bytes() > 0);
            assert!(cache.bytes <= cache.most);
            assert_eq!(cache.bytes, cache.entries.iter().map(|entry| entry.known.cost()).sum::<usize>());
            assert!(cache.places.iter().all(|(key, place)| cache.entries[*place].key == *key));
        }
        assert!(cache.entries.len() > 5);
        cache.most = 0;
        cache.make_room();
        assert_eq!((cache.bytes, cache.content_bytes, cache.entries.len()), (0, 0, 0));
    }

    #[test]
    fn forgets_what_it_is_told_to_and_takes_nothing_larger_than_itself() {
        let mut cache = Cache::new(2000);
        cache.keep(key(1), known(10));
        cache.remove(&key(1));
        cache.remove(&key(2));
        assert!(cache.look_up(&key(1)).is_none());
        cache.keep(key(3), known(2000));
        assert!(cache.look_up(&key(3)).is_none() && cache.bytes == 0);
    }
}
