//! What is kept of legacy repositories.
//!
//! ```text
//! <root>/legacy/<name>/ab/<sha256 of the path>.json     the head: status, what the upstream said of the file, when it was asked
//! <root>/legacy/<name>/ab/<sha256 of the path>.<tag>    the body that the head names
//! <root>/legacy/incoming/                               bodies being received; swept at opening
//! ```
//!
//! Invariant: a head names a body that was synced before, or none. A body is never changed: a new version has another tag, and the
//! head's replacement is the switch. A crash leaves the old version or the new one, and perhaps a body without a head, which opening
//! removes. All of it can be deleted.
//!
//! The quota is kept by last use, of all repositories together: before it would be passed, the least recently used go until nine
//! tenths are left. Only what comes without a stated length passes it, by as much, until it is here. Last uses are kept to the hour, as the time of the head's file.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Digest, Instant};
use serde::{Deserialize, Serialize};

use super::path::LegacyPath;
use crate::disk::{Disk, Stage};

/// Files of all repositories together: each takes some hundred bytes of memory.
const MAX_FILES: usize = 100_000;
const MAX_HEAD_BYTES: u64 = 8 << 10;
/// How exactly a last use is kept on the disk.
const USE_KEPT_TO: SignedDuration = SignedDuration::from_hours(1);

/// What the upstream said of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The path, for whoever looks into the directory.
    pub(super) path: String,
    pub(super) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
    /// Unknown while it arrives from an upstream that does not say.
    pub(super) length: Option<u64>,
    /// When the upstream was asked last.
    pub(super) validated: Instant,
    /// The end of the body's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
}

impl Head {
    /// True when there is such a file.
    pub(super) fn is_present(&self) -> bool {
        self.status == 200
    }

    /// The entity tag of this version: the name of its body.
    pub(super) fn own_etag(&self) -> Option<String> {
        Some(format!("\"{}.{}\"", Digest::of(self.path.as_bytes()), self.tag.as_ref()?))
    }
}

/// A file that is kept, or that is known not to exist.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) head: Head,
    pub(super) body: PathBuf,
}

/// A file by its repository and its key.
type Name = (String, Digest);

#[derive(Clone, Copy, Debug)]
struct Use {
    bytes: u64,
    /// Of what does not exist there may be endless names: it makes room first.
    is_present: bool,
    used: Instant,
    /// The last use, as it is kept on the disk.
    kept: Instant,
}

#[derive(Debug, Default)]
struct Index {
    files: HashMap<Name, Use>,
    bytes: u64,
    /// Bytes that are being received.
    coming: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    quota: u64,
    max_files: usize,
    disk: Disk,
    index: Mutex<Index>,
}

/// Room for bytes that are being received, until this is dropped.
#[derive(Debug)]
pub(super) struct Coming {
    store: Arc<Store>,
    bytes: u64,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.store.lock().coming -= self.bytes;
    }
}

impl Store {
    /// Takes up what is there of these repositories, and removes what a crash left and what is of no repository any more.
    pub(super) fn open<'a>(
        directory: &Path,
        repositories: impl Iterator<Item = &'a String>,
        quota: u64,
        disk: Disk,
    ) -> io::Result<Self> {
        let repositories: Vec<&String> = repositories.collect();
        let mut index = Index::default();
        if fs::exists(directory)? {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if repositories.contains(&&name) {
                    index.take_up(&name, &entry.path())?;
                } else {
                    durable::remove_tree(&entry.path())?;
                }
            }
        }
        let (directory, index) = (directory.to_owned(), Mutex::new(index));
        let store = Self { directory, quota, max_files: MAX_FILES, disk, index };
        if !repositories.is_empty() {
            fs::create_dir_all(store.incoming())?;
            store.make_room();
        }
        Ok(store)
    }

    /// Where a body is received.
    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// No file may be larger: it would drive out everything else.
    pub(super) fn largest(&self) -> u64 {
        self.quota / 2
    }

    /// What is kept of a path.
    pub(super) fn find(&self, path: &LegacyPath, now: Instant) -> io::Result<Option<Entry>> {
        let place = self.place(path);
        let Some(bytes) = durable::read_if_present(&place.with_extension("json"), MAX_HEAD_BYTES)? else {
            return Ok(None);
        };
        let Some(head) = serde_json::from_slice::<Head>(&bytes).ok().filter(|head| head.path == path.below())
        else {
            return Ok(None);
        };
        let body = place.with_extension(head.tag.as_deref().filter(|tag| is_tag(tag)).unwrap_or("none"));
        if head.is_present() && fs::metadata(&body).map_or(true, |found| Some(found.len()) != head.length) {
            return Ok(None);
        }
        self.used(path, now);
        Ok(Some(Entry { head, body }))
    }

    /// Keeps a body that was received and synced, under its head.
    pub(super) fn keep(
        &self,
        path: &LegacyPath,
        head: &Head,
        received: tempfile::TempPath,
    ) -> io::Result<()> {
        let place = self.place(path);
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory)?;
        }
        let tag = head.tag.as_deref().filter(|tag| is_tag(tag)).ok_or(io::ErrorKind::InvalidInput)?;
        let before = read_head(&place);
        durable::persist(received, &place.with_extension(tag))?;
        self.write_head(path, head)?;
        if let Some(old) = before.and_then(|before| before.tag).filter(|old| old != tag && is_tag(old)) {
            durable::remove_file(&place.with_extension(old))?;
        }
        Ok(())
    }

    /// Keeps a head without a body of its own: that it was asked again, or does not exist.
    pub(super) fn write_head(&self, path: &LegacyPath, head: &Head) -> io::Result<()> {
        let place = self.place(path);
        let bytes = serde_json::to_vec(head).map_err(io::Error::other)?;
        if !head.is_present()
            && let Some(old) = read_head(&place).and_then(|before| before.tag).filter(|old| is_tag(old))
        {
            durable::remove_file(&place.with_extension(old))?;
        }
        durable::write_atomically(&place.with_extension("json"), &bytes)?;
        let bytes = head.length.filter(|_| head.is_present()).unwrap_or(0) + bytes.len() as u64;
        let mut index = self.lock();
        let (is_present, used) = (head.is_present(), head.validated);
        index.note(name_of(path), Use { bytes, is_present, used, kept: used });
        drop(index);
        self.make_room();
        Ok(())
    }

    fn used(&self, path: &LegacyPath, now: Instant) {
        let mut index = self.lock();
        let Some(known) = index.files.get_mut(&name_of(path)) else { return };
        known.used = now;
        if now.duration_since(known.kept) < USE_KEPT_TO {
            return;
        }
        known.kept = now;
        drop(index);
        let head = self.place(path).with_extension("json");
        // What cannot be noted is merely evicted earlier.
        if let Ok(file) = fs::OpenOptions::new().append(true).open(head) {
            let seconds = u64::try_from(now.as_second()).unwrap_or(0);
            let _ = file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        }
    }

    /// Keeps room for bytes that are going to be received.
    pub(super) fn expect(self: &Arc<Self>, bytes: u64) -> Coming {
        self.lock().coming += bytes;
        self.make_room();
        Coming { store: self.clone(), bytes }
    }

    /// True when the node's disk has room for more of what it could do without.
    pub(super) fn has_room(&self) -> bool {
        self.disk.room_lately().is_ok_and(|room| room.stage < Stage::Cramped)
    }

    /// Makes room for what is coming, if there is too much.
    fn make_room(&self) {
        let mut index = self.lock();
        let coming = index.coming;
        if index.bytes.saturating_add(coming) <= self.quota && index.files.len() <= self.max_files {
            return;
        }
        let mut oldest: Vec<((bool, Instant), Name)> =
            index.files.iter().map(|(name, known)| ((known.is_present, known.used), name.clone())).collect();
        oldest.sort();
        let bytes = (self.quota / 10 * 9).saturating_sub(coming);
        let files = self.max_files * 9 / 10;
        let mut gone = Vec::new();
        for (_, name) in oldest {
            if index.bytes <= bytes && index.files.len() <= files {
                break;
            }
            index.forget(&name);
            gone.push(name);
        }
        drop(index);
        tracing::info!(files = gone.len(), "legacy files that were not used for long made room");
        for (repository, key) in gone {
            if let Err(error) = self.remove(&repository, key) {
                tracing::warn!(%error, "a legacy file could not be removed");
            }
        }
    }

    /// The head first: a body without one is nothing.
    fn remove(&self, repository: &str, key: Digest) -> io::Result<()> {
        let place = self.place_of(repository, key);
        let head = read_head(&place);
        durable::remove_file(&place.with_extension("json"))?;
        match head.and_then(|head| head.tag).filter(|tag| is_tag(tag)) {
            Some(tag) => durable::remove_file(&place.with_extension(tag)),
            None => Ok(()),
        }
    }

    fn place(&self, path: &LegacyPath) -> PathBuf {
        self.place_of(path.repository(), path.key())
    }

    fn place_of(&self, repository: &str, key: Digest) -> PathBuf {
        let key = key.to_string();
        self.directory.join(repository).join(&key[..2]).join(key)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Each change is whole before anything can panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn note(&mut self, name: Name, known: Use) {
        self.bytes += known.bytes;
        if let Some(before) = self.files.insert(name, known) {
            self.bytes -= before.bytes;
        }
    }

    fn forget(&mut self, name: &Name) {
        if let Some(known) = self.files.remove(name) {
            self.bytes -= known.bytes;
        }
    }

    /// Reads the heads of a repository; what none of them names goes.
    fn take_up(&mut self, repository: &str, directory: &Path) -> io::Result<()> {
        for fan in fs::read_dir(directory)? {
            let mut bodies: HashMap<String, (PathBuf, u64)> = HashMap::new();
            let mut heads = Vec::new();
            for entry in fs::read_dir(fan?.path())? {
                let entry = entry?;
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                match name.strip_suffix(".json") {
                    Some(key) => heads.push((key.to_owned(), path, entry.metadata()?)),
                    None => drop(bodies.insert(name, (path, entry.metadata()?.len()))),
                }
            }
            for (key, path, metadata) in heads {
                let head = durable::read_if_present(&path, MAX_HEAD_BYTES).ok().flatten();
                let head = head.and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok());
                let body =
                    head.as_ref().and_then(|head| bodies.remove(&format!("{key}.{}", head.tag.as_ref()?)));
                let is_whole = head.as_ref().is_some_and(|head| {
                    !head.is_present()
                        || body.as_ref().is_some_and(|(_, length)| Some(*length) == head.length)
                });
                let Some(digest) = key.parse::<Digest>().ok().filter(|_| is_whole) else {
                    durable::remove_file(&path)?;
                    if let Some((body, _)) = body {
                        durable::remove_file(&body)?;
                    }
                    continue;
                };
                let used = Instant::try_from(metadata.modified()?).unwrap_or(Instant::MIN);
                let bytes = metadata.len() + body.map_or(0, |(_, length)| length);
                let is_present = head.is_some_and(|head| head.is_present());
                self.note((repository.to_owned(), digest), Use { bytes, is_present, used, kept: used });
            }
            for (path, _) in bodies.into_values() {
                durable::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn read_head(place: &Path) -> Option<Head> {
    let bytes = durable::read_if_present(&place.with_extension("json"), MAX_HEAD_BYTES).ok()??;
    serde_json::from_slice(&bytes).ok()
}

fn name_of(path: &LegacyPath) -> Name {
    (path.repository().to_owned(), path.key())
}

/// Tags come from the disk, and become part of a name.
fn is_tag(tag: &str) -> bool {
    !tag.is_empty() && tag.len() <= 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes files below `directory` that were not used for longest, until `need` bytes are free; says how many bytes that came
/// to. For whoever needs the disk for what the college is owed; a store that is open notices at the next request.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn evict(directory: &Path, need: u64) -> io::Result<u64> {
    let mut heads: Vec<(SystemTime, PathBuf)> = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        if !fs::exists(&folder)? {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                heads.push((fs::metadata(&path)?.modified()?, path));
            }
        }
    }
    heads.sort();
    let mut freed = 0;
    for (_, path) in heads {
        if freed >= need {
            break;
        }
        let tag = read_head(&path.with_extension("")).and_then(|head| head.tag).filter(|tag| is_tag(tag));
        durable::remove_file(&path)?;
        if let Some(body) = tag.map(|tag| path.with_extension(tag)) {
            freed += fs::metadata(&body).map_or(0, |found| found.len());
            durable::remove_file(&body)?;
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Instant {
        "2026-11-26T08:00:00Z".parse::<Instant>().unwrap() + SignedDuration::from_mins(minutes)
    }

    fn path(name: &str) -> LegacyPath {
        LegacyPath::parse("debian", name).unwrap()
    }

    fn keep(store: &Store, name: &str, content: &[u8], minutes: i64) {
        let received = tempfile::NamedTempFile::new_in(store.incoming()).unwrap();
        fs::write(received.path(), content).unwrap();
        let head = Head {
            path: name.to_owned(),
            status: 200,
            content_type: None,
            content_encoding: None,
            etag: None,
            last_modified: None,
            length: Some(content.len() as u64),
            validated: at(minutes),
            tag: Some(Digest::of(content).short()),
        };
        store.keep(&path(name), &head, received.into_temp_path()).unwrap();
    }

    fn open(directory: &Path, quota: u64) -> Store {
        Store::open(directory, ["debian".to_owned()].iter(), quota, Disk::new(directory, None, Some(0)))
            .unwrap()
    }

    #[test]
    fn what_was_kept_is_found_after_a_restart_and_what_a_crash_left_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 1 << 20);
        keep(&store, "a", b"old", 0);
        keep(&store, "a", b"new!", 1);
        keep(&store, "b", b"whole", 1);
        let entry = store.find(&path("a"), at(2)).unwrap().unwrap();
        assert_eq!(fs::read(&entry.body).unwrap(), b"new!");
        let of_b = store.find(&path("b"), at(2)).unwrap().unwrap();
        fs::write(&of_b.body, b"cut").unwrap();
        let orphan = entry.body.with_extension("00ff");
        fs::write(&orphan, b"a body that no head names").unwrap();
        fs::create_dir_all(directory.path().join("gone-repository/ab")).unwrap();
        assert_eq!(fs::read_dir(entry.body.parent().unwrap()).unwrap().count(), 3, "the old version is gone");

        let store = open(directory.path(), 1 << 20);
        assert!(store.find(&path("a"), at(2)).unwrap().is_some());
        assert!(store.find(&path("b"), at(2)).unwrap().is_none(), "it is not whole");
        assert!(!orphan.exists() && !directory.path().join("gone-repository").exists());
        assert_eq!(store.lock().files.len(), 1);
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 10_000);
        for number in 0..4 {
            keep(&store, &format!("f{number}"), &vec![b'x'; 2000], number);
        }
        store.find(&path("f0"), at(10)).unwrap().unwrap();
        keep(&store, "f4", &vec![b'x'; 2000], 11);
        let here = |name: &str| store.find(&path(name), at(12)).unwrap().is_some();
        assert!(here("f0") && here("f3") && here("f4"));
        assert!(!here("f1"), "the first that was not used for longest");
        assert!(store.lock().bytes <= 9_000);

        let store = Arc::new(store);
        let coming = [store.expect(2_000), store.expect(2_000)];
        assert!(store.lock().bytes <= 6_000, "before they come, both together");
        drop(coming);
        assert_eq!(store.lock().coming, 0);
        let bytes = evict(directory.path(), 3_000).unwrap();
        assert!(bytes >= 3_000, "{bytes}");

        let directory = tempfile::tempdir().unwrap();
        let store = Store { max_files: 2, ..open(directory.path(), 10_000) };
        for number in 0..4 {
            keep(&store, &format!("f{number}"), b"x", number);
            assert!(store.lock().files.len() <= 2);
        }
        assert!(store.find(&path("f3"), at(14)).unwrap().is_some());
    }

    #[test]
    fn a_use_is_remembered_across_restarts_to_the_hour() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 1 << 20);
        keep(&store, "a", b"a", 0);
        let much_later = at(60 * 24 * 3);
        store.find(&path("a"), much_later).unwrap();
        let store = open(directory.path(), 1 << 20);
        let used = store.lock().files.values().next().unwrap().used;
        assert_eq!(used.duration_since(much_later).abs().as_secs(), 0);
    }

    #[test]
    fn names_that_do_not_exist_drive_out_nothing_that_does() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { max_files: 10, ..open(directory.path(), 1 << 20) };
        keep(&store, "a", b"a", 0);
        let absent = Head {
            status: 404,
            length: None,
            tag: None,
            ..store.find(&path("a"), at(0)).unwrap().unwrap().head
        };
        for number in 0..50 {
            let name = format!("none-{number}");
            let head = Head { path: name.clone(), validated: at(1 + number), ..absent.clone() };
            store.write_head(&path(&name), &head).unwrap();
        }
        assert!(store.find(&path("a"), at(60)).unwrap().is_some());
        assert!(store.lock().files.len() <= 10);
    }

    #[test]
    fn what_does_not_exist_any_more_takes_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), 1 << 20);
        keep(&store, "a", &vec![b'x'; 2000], 0);
        let entry = store.find(&path("a"), at(1)).unwrap().unwrap();
        let gone = Head { status: 404, length: None, tag: None, ..entry.head };
        store.write_head(&path("a"), &gone).unwrap();
        assert!(!entry.body.exists());
        assert!(store.lock().bytes < 1000);
        assert_eq!(store.find(&path("a"), at(2)).unwrap().unwrap().head.status, 404);
    }
}
