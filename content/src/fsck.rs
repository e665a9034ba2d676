//! Reading every object through: does it still have its digest?
//!
//! Also finds what should not be there: files that no object has such a name for, objects in both forms. It changes
//! nothing; [`Finding::set_aside`] takes a wrong file out of the store, so that it is neither served nor counted on, and
//! is fetched again.
//!
//! It needs no lock: what is being written is not in `objects/`, and a file that somebody sweeps meanwhile is passed over.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use fs_err as fs;
use mirabelle_manifests::Digest;

use crate::durable;
use crate::hash::digest;
use crate::store::{Form, ObjectStore, PlainReader, parse_name};

/// Files read at a time: enough for a disk to have something to do while a core hashes; more make a disk with heads seek.
const READERS: usize = 2;

/// What is wrong with a file of the store, or with an object that should be there.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its bytes are others.
    #[error("does not have its digest: got {got}")]
    WrongDigest {
        /// The digest of the bytes.
        got: Digest,
    },
    /// It is longer or shorter than signed.
    #[error("does not have its size of {expected} bytes: got {got}")]
    WrongSize {
        /// As signed.
        expected: u64,
        /// As found.
        got: u64,
    },
    /// It cannot be read or decoded.
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is no object.
    #[error("is no object")]
    Stray,
    /// The object is here in its compressed form as well: nothing is wrong but its bytes too many.
    #[error("is here twice, plain and compressed")]
    Twice,
    /// It is needed, and not here.
    #[error("is missing")]
    Missing,
}

impl Fault {
    /// The fault with its causes, in one line.
    pub fn describe(&self) -> String {
        match self {
            Self::Unreadable(cause) => format!("{self}: {cause}"),
            _ => self.to_string(),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// The object, unless it is none.
    pub object: Option<Digest>,
    /// The file, or where it would be.
    pub path: PathBuf,
    /// What.
    pub fault: Fault,
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that were read.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// What is wrong, by path.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Moves the file to `quarantine`. One that is gone already is fine.
    ///
    /// # Errors
    /// Any other error of the file system.
    pub fn set_aside(&self, quarantine: &Path) -> io::Result<()> {
        let name = match self.object {
            Some(object) => self
                .path
                .extension()
                .map_or_else(|| object.to_string(), |extension| format!("{object}.{}", extension.display())),
            None => self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        fs::create_dir_all(quarantine)?;
        match durable::rename(&self.path, &quarantine.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// One file to be looked at.
struct Candidate {
    path: PathBuf,
    name: Option<(Digest, Form)>,
    bytes: u64,
}

/// Bytes of all files of the store: what [`check`] will tell its progress of.
///
/// # Errors
/// Any error of the file system.
pub fn bytes_to_read(store: &ObjectStore) -> io::Result<u64> {
    Ok(candidates(store)?.iter().map(|candidate| candidate.bytes).sum())
}

/// Reads every object through. Those that are `expected`, with their sizes, must be here. `progress` hears of bytes of
/// files.
///
/// # Errors
/// Any error in listing the store; a file that cannot be read is a finding.
pub fn check(
    store: &ObjectStore,
    expected: &BTreeMap<Digest, u64>,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Report> {
    let candidates = candidates(store)?;
    let mut report = Reading { store, expected, pace: &|_| ControlFlow::Continue(()) }.read(
        &candidates,
        progress,
        READERS,
    );
    for object in expected.keys().filter(|object| store.locate(**object).is_none()) {
        let path = store.path(*object);
        report.findings.push(Finding { object: Some(*object), path, fault: Fault::Missing });
    }
    report.findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

/// Reads the objects of one folder through, `ab/` for `0xab`, one after the other. `pace` hears of each piece that was read, in
/// plain bytes; it may wait, which is how little of the disk's time this takes, or break it off: then there is no report.
///
/// # Errors
/// Any error in listing the folder; a file that cannot be read is a finding.
pub fn check_folder(
    store: &ObjectStore,
    folder: u8,
    pace: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
) -> io::Result<Option<Report>> {
    let directory = store.objects_directory().join(format!("{folder:02x}"));
    let mut candidates = Vec::new();
    if directory.is_dir() {
        list(&directory, &mut candidates)?;
    }
    let broken_off = AtomicBool::new(false);
    let pace = |bytes| {
        let flow = pace(bytes);
        broken_off.fetch_or(flow.is_break(), Ordering::Relaxed);
        flow
    };
    let report = Reading { store, expected: &BTreeMap::new(), pace: &pace }.read(&candidates, &|_| {}, 1);
    Ok((!broken_off.load(Ordering::Relaxed)).then_some(report))
}

/// How files are read through.
struct Reading<'a> {
    store: &'a ObjectStore,
    expected: &'a BTreeMap<Digest, u64>,
    pace: &'a (dyn Fn(u64) -> ControlFlow<()> + Sync),
}

impl Reading<'_> {
    fn read(&self, candidates: &[Candidate], progress: &(dyn Fn(u64) + Sync), readers: usize) -> Report {
        let next = AtomicUsize::new(0);
        let bytes = AtomicU64::new(0);
        let findings = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            for _ in 0..readers {
                threads.spawn(|| {
                    while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Some(fault) = self.look_at(candidate)
                            && let Ok(mut findings) = findings.lock()
                        {
                            let object = candidate.name.map(|(object, _)| object);
                            let path = match (&fault, object) {
                                // The plain form gives way, as it does in the store.
                                (Fault::Twice, Some(object)) => self.store.path(object),
                                _ => candidate.path.clone(),
                            };
                            findings.push(Finding { object, path, fault });
                        }
                        bytes.fetch_add(candidate.bytes, Ordering::Relaxed);
                        progress(candidate.bytes);
                        if (self.pace)(0).is_break() {
                            break;
                        }
                    }
                });
            }
        });
        let findings = findings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Report { files: candidates.len() as u64, bytes: bytes.into_inner(), findings }
    }

    fn look_at(&self, candidate: &Candidate) -> Option<Fault> {
        let Some((object, form)) = candidate.name else { return Some(Fault::Stray) };
        let reading = || -> io::Result<Option<Fault>> {
            let reader = PlainReader::open(&candidate.path, form)?;
            let size = reader.size();
            if let Some(expected) = self.expected.get(&object)
                && *expected != size
            {
                return Ok(Some(Fault::WrongSize { expected: *expected, got: size }));
            }
            // A frame that goes on past the size that it states is read no further than the byte that shows it.
            let (got, length) =
                digest(&mut Paced { inner: reader, pace: self.pace }.take(size.saturating_add(1)))?;
            Ok(if length != size {
                Some(Fault::WrongSize { expected: size, got: length })
            } else if got != object {
                Some(Fault::WrongDigest { got })
            } else {
                None
            })
        };
        match reading() {
            Ok(None) if form == Form::Zstd && self.store.path(object).is_file() => Some(Fault::Twice),
            Ok(fault) => fault,
            // Swept, or put in another form, since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Fault::Unreadable(error)),
        }
    }
}

/// A reader that tells what was read, and may be broken off.
struct Paced<'a, R> {
    inner: R,
    pace: &'a (dyn Fn(u64) -> ControlFlow<()> + Sync),
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match (self.pace)(read as u64) {
            ControlFlow::Continue(()) => Ok(read),
            ControlFlow::Break(()) => Err(io::Error::other("reading was broken off")),
        }
    }
}

fn candidates(store: &ObjectStore) -> io::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for directory in fs::read_dir(store.objects_directory())? {
        let directory = directory?;
        if directory.file_type()?.is_dir() {
            list(&directory.path(), &mut found)?;
        } else {
            found.push(Candidate { path: directory.path(), name: None, bytes: directory.metadata()?.len() });
        }
    }
    Ok(found)
}

fn list(directory: &Path, found: &mut Vec<Candidate>) -> io::Result<()> {
    let prefix = directory.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (is_file, name) = (entry.file_type()?.is_file(), entry.file_name());
        let name = name.to_str().filter(|_| is_file).and_then(|name| parse_name(&prefix, name));
        let bytes = match entry.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.push(Candidate { path: entry.path(), name, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::set_mode;

    #[test]
    fn finds_what_is_wrong_missing_or_strange_and_sets_it_aside() {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open_compressing(directory.path()).unwrap();
        let add = |bytes: &[u8]| {
            let object = Digest::of(bytes);
            let mut batch = store.batch();
            batch.add(&mut { bytes }, object, bytes.len() as u64).unwrap();
            batch.commit().unwrap();
            object
        };
        let good = add(&b"good ".repeat(1000));
        let bent = add(&b"bent ".repeat(1000));
        let plain = add(b"plain");
        let short = add(b"short");
        let twice = add(&b"twice ".repeat(1000));
        let missing = Digest::of(b"missing");
        let spoil = |path: &Path, bytes: &[u8]| {
            set_mode(path, 0o644).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let path = store.locate(bent).unwrap().1;
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        spoil(&path, &bytes);
        spoil(&store.path(plain), b"pl@in");
        spoil(&store.path(short), b"shor");
        fs::write(store.path(twice), b"twice ".repeat(1000)).unwrap();
        fs::write(directory.path().join("objects/README"), "hello").unwrap();
        fs::write(store.path(good).with_extension("tmp"), "left over").unwrap();

        let expected = [(good, 5000), (bent, 5000), (short, 5), (missing, 7)].into_iter().collect();
        let heard = AtomicU64::new(0);
        let report = check(&store, &expected, &|bytes| {
            heard.fetch_add(bytes, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(report.bytes, heard.into_inner());
        assert_eq!(report.bytes, bytes_to_read(&store).unwrap());
        let fault = |object: Digest| {
            &report.findings.iter().find(|finding| finding.object == Some(object)).unwrap().fault
        };
        assert!(matches!(fault(bent), Fault::Unreadable(_) | Fault::WrongDigest { .. }));
        assert!(matches!(fault(plain), Fault::WrongDigest { .. }));
        assert!(matches!(fault(short), Fault::WrongSize { expected: 5, got: 4 }));
        assert!(matches!(fault(twice), Fault::Twice));
        assert!(matches!(fault(missing), Fault::Missing));
        assert_eq!(report.findings.iter().filter(|finding| matches!(finding.fault, Fault::Stray)).count(), 2);
        assert_eq!(report.findings.len(), 7);

        let quarantine = directory.path().join("quarantine");
        for finding in &report.findings {
            finding.set_aside(&quarantine).unwrap();
        }
        assert_eq!(fs::read_dir(&quarantine).unwrap().count(), 6);
        let report = check(&store, &BTreeMap::new(), &|_| {}).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(store.holds(good, 5000) && store.holds(twice, 6000));
        assert_eq!(store.locate(twice).unwrap().0, Form::Zstd);
    }
}
