//! How much room there is, and what is given up first when it gets scarce.
//!
//! | left, of what the node may use | stage | |
//! |---|---|---|
//! | ≥ 10 % | roomy | everything |
//! | < 10 % | tight | nothing is fetched that is only worth having |
//! | < 5 % | cramped | besides, what nobody is owed goes, the cheapest to get again first |
//! | < 1 % | full | besides, what a workstation waits for passes through, and is not kept |
//!
//! What the college is owed stays whatever the stage (promise 7). What is owed and has no room is not fetched, the last complete
//! catalogue goes on being served, and an alarm says so. The reserve is never planned for: the metadata, the journal and the
//! clients' downloads that pass through live in it, so that a disk does not fill up in the middle of something else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use fs_err as fs;
use serde::Serialize;

/// Shares of the capacity, in percent, below which a stage begins.
const TIGHT: u64 = 10;
const CRAMPED: u64 = 5;
const FULL: u64 = 1;

/// The reserve where nobody gives one: so many percent of the file system, and no more than this.
const RESERVE: u64 = 2;
const MOST_RESERVED: u64 = 1 << 30;

/// Looking through all files takes a second for some hundred thousand.
const LATELY: Duration = Duration::from_secs(20);

/// What takes the space, folder by folder, and what it is called.
const FOLDERS: [(&str, &str); 9] = [
    ("objects", "releases that are held"),
    ("partials", "downloads under way"),
    ("incoming", "objects being written"),
    ("served", "metadata, manifests and deltas"),
    ("legacy", "files of old repositories"),
    ("quarantine", "what was found wrong"),
    ("programs", "versions of the node's program"),
    ("trust", "metadata being verified"),
    ("index", "what was found whole before"),
];

/// How scarce room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Roomy,
    Tight,
    Cramped,
    Full,
}

/// What the node may use of its disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// Bytes that everything below the node's directory may come to.
    quota: Option<u64>,
    /// Bytes of the file system that are left to others; a share of it, if nobody says.
    reserve: Option<u64>,
    /// What was found last, and when.
    found: Arc<Mutex<Option<(Moment, Room)>>>,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Room {
    /// Bytes that could be used if nothing were here.
    pub(crate) capacity: u64,
    /// Bytes that may still be used.
    pub(crate) left: u64,
    pub(crate) stage: Stage,
}

/// What a folder takes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Folder {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Disk {
    pub(crate) fn new(root: &Path, quota: Option<u64>, reserve: Option<u64>) -> Self {
        Self { root: root.to_owned(), quota, reserve, found: Arc::default() }
    }

    /// True when looking means looking through all files.
    pub(crate) fn has_quota(&self) -> bool {
        self.quota.is_some()
    }

    /// What was found less than [`LATELY`] ago, or is found now: for whoever asks often, and needs it roughly.
    pub(crate) fn room_lately(&self) -> io::Result<Room> {
        self.room_within(LATELY)
    }

    /// What was found less than so long ago, or is found now.
    pub(crate) fn room_within(&self, age: Duration) -> io::Result<Room> {
        let found = *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.filter(|(when, _)| when.elapsed() < age) {
            Some((_, room)) => Ok(room),
            None => self.room(),
        }
    }

    /// Looks; where there is a quota, through all files.
    pub(crate) fn room(&self) -> io::Result<Room> {
        let system = rustix::fs::statvfs(&self.root)?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let used = match self.quota {
            Some(_) => self.folders()?.iter().map(|folder| folder.bytes).sum(),
            // What the others on this disk use is not the node's to count: it looks at what is free.
            None => system.f_blocks.saturating_sub(system.f_bfree).saturating_mul(system.f_frsize),
        };
        let share = system.f_blocks.saturating_mul(system.f_frsize) / 100 * RESERVE;
        let room = Room::of(used, free, self.quota, self.reserve.unwrap_or(share.min(MOST_RESERVED)));
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((Moment::now(), room));
        Ok(room)
    }

    /// What takes the space, most first.
    pub(crate) fn folders(&self) -> io::Result<Vec<Folder>> {
        let mut folders = Vec::new();
        for (name, what) in FOLDERS {
            let (bytes, files) = weigh(&self.root.join(name))?;
            folders.push(Folder { name, what, bytes, files });
        }
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.bytes));
        Ok(folders)
    }
}

impl Room {
    fn of(used: u64, free: u64, quota: Option<u64>, reserve: u64) -> Self {
        let capacity = (used + free).saturating_sub(reserve);
        let capacity = quota.map_or(capacity, |quota| quota.min(capacity));
        let left = free.saturating_sub(reserve);
        let left = quota.map_or(left, |quota| quota.saturating_sub(used).min(left));
        let share = left.saturating_mul(100) / capacity.max(1);
        let stage = match share {
            share if share < FULL => Stage::Full,
            share if share < CRAMPED => Stage::Cramped,
            share if share < TIGHT => Stage::Tight,
            _ => Stage::Roomy,
        };
        Self { capacity, left, stage }
    }
}

/// Bytes and number of the files below a folder. What goes away meanwhile is passed over.
fn weigh(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => (bytes, files) = (bytes + metadata.len(), files + 1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok((bytes, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_left_the_more_is_given_up() {
        const GIB: u64 = 1 << 30;
        for (used, free, quota, reserve, left, stage) in [
            (10, 90, None, 5, 85, Stage::Roomy),
            (86, 14, None, 5, 9, Stage::Tight),
            (92, 8, None, 5, 3, Stage::Cramped),
            (95, 5, None, 5, 0, Stage::Full),
            (97, 3, None, 5, 0, Stage::Full),
            (10, 900, Some(100), 5, 90, Stage::Roomy),
            (92, 900, Some(100), 5, 8, Stage::Tight),
            (100, 900, Some(100), 5, 0, Stage::Full),
            (120, 900, Some(100), 5, 0, Stage::Full),
            // A quota that the disk does not have.
            (10, 10, Some(100), 5, 5, Stage::Roomy),
        ] {
            let room = Room::of(used * GIB, free * GIB, quota.map(|quota| quota * GIB), reserve * GIB);
            assert_eq!((room.left / GIB, room.stage), (left, stage), "{used} {free} {quota:?}");
        }
        assert_eq!(Room::of(0, 0, None, 0).stage, Stage::Full);
    }

    #[test]
    fn says_what_takes_the_space() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("objects/ab")).unwrap();
        fs::write(root.path().join("objects/ab/c"), [0; 1000]).unwrap();
        fs::write(root.path().join("objects/ab/d"), [0; 500]).unwrap();
        fs::create_dir_all(root.path().join("served")).unwrap();
        fs::write(root.path().join("served/x"), [0; 10]).unwrap();
        let disk = Disk::new(root.path(), Some(2000), Some(0));
        let folders = disk.folders().unwrap();
        assert_eq!((folders[0].name, folders[0].bytes, folders[0].files), ("objects", 1500, 2));
        assert_eq!((folders[1].name, folders[1].bytes), ("served", 10));
        let room = disk.room().unwrap();
        assert_eq!((room.capacity, room.left, room.stage), (2000, 490, Stage::Roomy));
    }
}
