//! A release's tree, linked from objects; checking it against its manifest; putting right what is wrong.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::{ObjectStore, digest, durable};
use mirabelle_manifests::{
    Digest, Entry, MAX_MANIFEST_BYTES, Mode, Node, PackageName, Release, SignedRelease,
};
use mirabelle_terminal::{Failure, OrFail};

use crate::generation::Installed;
use crate::layout::Layout;

/// At most so many threads build a tree: past that, the file system's journal is what they wait for.
const MAX_BUILDERS: usize = 4;
/// With fewer entries for each, threads are not worth it.
const ENTRIES_OF_A_BUILDER: usize = 256;

/// Builds `release`'s tree at `directory`, which must not exist: first its directories, then, in several threads, what lies
/// in them. Runs of neighbours, since two who add to one directory wait for each other.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn build(release: &Release, store: &ObjectStore, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for entry in &release.entries {
        for parent in entry.path.ancestors() {
            if made.insert(parent) {
                fs::create_dir(directory.join(parent))?;
            }
        }
        if entry.node == Node::Directory && made.insert(entry.path.as_str()) {
            fs::create_dir(directory.join(entry.path.as_str()))?;
        }
    }
    let place_all = |entries: &[Entry]| {
        let mut placed = entries.iter().filter(|entry| entry.node != Node::Directory);
        placed.try_for_each(|entry| place(entry, store, &directory.join(entry.path.as_str())))
    };
    let builders = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_BUILDERS);
    let run = release.entries.len().div_ceil(builders).max(ENTRIES_OF_A_BUILDER);
    std::thread::scope(|scope| {
        let running: Vec<_> =
            release.entries.chunks(run).map(|entries| scope.spawn(move || place_all(entries))).collect();
        running.into_iter().try_for_each(|builder| {
            builder.join().unwrap_or_else(|_| Err(io::Error::other("a thread that builds a tree died")))
        })
    })
}

fn place(entry: &Entry, store: &ObjectStore, path: &Path) -> io::Result<()> {
    match &entry.node {
        Node::File { mode, sha256, .. } => store.place(*sha256, *mode, path),
        Node::Link { target } => fs::os::unix::fs::symlink(target, path),
        Node::Directory => match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
    }
}

/// The first entry that is missing or has another length: what can be told without reading every file.
pub(crate) fn first_missing<'a>(release: &'a Release, directory: &Path) -> Option<&'a Entry> {
    release.entries.iter().find(|entry| {
        let path = directory.join(entry.path.as_str());
        match entry.node {
            Node::File { size, .. } => {
                !fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() == size)
            }
            Node::Link { .. } => !path.is_symlink(),
            Node::Directory => !path.is_dir(),
        }
    })
}

/// Something in a tree that is not as signed.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) entry: Entry,
    pub(crate) what: &'static str,
}

/// Compares a tree with its manifest. `progress` hears of every file's bytes.
///
/// # Errors
/// When a file cannot be read for another reason than its absence.
pub(crate) fn check(release: &Release, directory: &Path, progress: &dyn Fn(u64)) -> io::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for entry in &release.entries {
        let path = directory.join(entry.path.as_str());
        let fault = match &entry.node {
            Node::File { mode, sha256, size, .. } => {
                progress(*size);
                file_fault(&path, *mode, *sha256, *size)?
            }
            Node::Link { target } => match fs::read_link(&path) {
                Ok(found) if found == Path::new(target) => None,
                Ok(_) => Some("leads elsewhere"),
                Err(_) => Some("missing"),
            },
            Node::Directory => (!path.is_dir()).then_some("missing"),
        };
        faults.extend(fault.map(|what| Fault { entry: entry.clone(), what }));
    }
    Ok(faults)
}

fn file_fault(path: &Path, mode: Mode, sha256: Digest, size: u64) -> io::Result<Option<&'static str>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Some("missing"));
        }
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Ok(Some("no file any more"));
    }
    if metadata.len() != size {
        return Ok(Some("changed"));
    }
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    if executable != (mode == Mode::Executable) {
        return Ok(Some("has other permissions"));
    }
    let (found, _) = digest(&mut fs::File::open(path)?)?;
    Ok((found != sha256).then_some("changed"))
}

/// Takes out of the store the objects behind `faults` that are wrong themselves, since a tree's files and the store's
/// are often the same.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn drop_wrong_objects(faults: &[Fault], store: &ObjectStore) -> io::Result<()> {
    for fault in faults {
        if let Node::File { sha256, size, .. } = fault.entry.node
            && store.verify(sha256, size).is_err()
        {
            store.remove(sha256)?;
        }
    }
    Ok(())
}

/// Puts right what is wrong, each entry by rename. The objects must be in the store.
///
/// # Errors
/// Any error of the file system.
pub(crate) fn mend(
    faults: &[Fault],
    store: &ObjectStore,
    directory: &Path,
    scratch: &Path,
) -> io::Result<()> {
    fs::create_dir_all(scratch)?;
    for (number, fault) in faults.iter().enumerate() {
        let path = directory.join(fault.entry.path.as_str());
        let new = scratch.join(number.to_string());
        if let Node::File { sha256, mode: Mode::Executable, .. } = fault.entry.node {
            // The executable form is a copy of its own, and may be what is wrong.
            durable::remove_file(&store.path(sha256).with_extension("x"))?;
        }
        place(&fault.entry, store, &new)?;
        // Nothing is renamed over a directory, nor a directory over anything else.
        if path.is_dir() && !path.is_symlink() {
            durable::remove_tree(&path)?;
        } else if fault.entry.node == Node::Directory {
            durable::remove_file(&path)?;
        }
        make_parents(directory, &path)?;
        fs::rename(&new, &path)?;
    }
    durable::remove_tree(scratch)
}

/// Makes the directories above `path` within `directory`, in place of whatever else stands there.
fn make_parents(directory: &Path, path: &Path) -> io::Result<()> {
    let mut parents: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|parent| *parent != directory).map(Path::to_owned).collect();
    parents.reverse();
    for parent in parents {
        if parent.is_symlink() || (parent.exists() && !parent.is_dir()) {
            fs::remove_file(&parent)?;
        }
        if !parent.exists() {
            fs::create_dir(&parent)?;
        }
    }
    Ok(())
}

impl Layout {
    /// The manifest of a release that is installed, as it was approved.
    pub(crate) fn read_manifest(&self, installed: &Installed) -> Result<Release, Failure> {
        let bytes = self.manifest_bytes(installed)?;
        let signed = SignedRelease::parse(&bytes)
            .or_fail(|| format!("cannot read the manifest of `{}`", installed.title.fr))?;
        Ok(signed.release)
    }

    /// The manifest of a release that is kept here, whichever generation it belongs to.
    pub(crate) fn release_manifest(
        &self,
        package: &PackageName,
        release: Digest,
    ) -> Result<Release, Failure> {
        self.known_manifest(release)?
            .ok_or_else(|| Failure::no(format!("the manifest of a release of `{package}` is missing")))
    }

    /// The same, if it is here.
    pub(crate) fn known_manifest(&self, release: Digest) -> Result<Option<Release>, Failure> {
        let path = self.manifest(release);
        let what = || format!("cannot read `{}`", path.display());
        let Some(bytes) = durable::read_if_present(&path, MAX_MANIFEST_BYTES).or_fail(what)? else {
            return Ok(None);
        };
        if Digest::of(&bytes) != release {
            return Ok(None);
        }
        Ok(Some(SignedRelease::parse(&bytes).or_fail(what)?.release))
    }

    /// Its bytes, which have the digest that was approved.
    pub(crate) fn manifest_bytes(&self, installed: &Installed) -> Result<Vec<u8>, Failure> {
        let path = self.manifest(installed.release);
        let bytes = durable::read_if_present(&path, MAX_MANIFEST_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?
            .ok_or_else(|| Failure::no(format!("`{}` is missing", path.display())))?;
        if Digest::of(&bytes) != installed.release {
            return Err(Failure::trust(format!("`{}` is not what was approved", path.display())));
        }
        Ok(bytes)
    }
}
