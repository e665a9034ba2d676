//! Ours: a signed release with its bundle, the delta that leads to it from the old one, and the one from nothing.
//!
//! Each step runs in a process of its own (`mirabelle-bench wan-bytes-step …`), so that its time and memory are its
//! own. A built release stands as `BUILT/{release.json,bundle.tar.zst,tree → …}`. A delta carries the difference of the
//! manifests, so that its length is all that an update moves; a bundle needs its manifest beside it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Subcommand;
use fs_err as fs;
use mirabelle_content::bundle::{DEFAULT_LEVEL, WriteOptions, write_bundle};
use mirabelle_content::delta::{self, EncodeOptions, Expected, Held};
use mirabelle_content::{ObjectStore, TreeObjects, scan_tree};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::{Description, Digest, Platform, Release, SignedRelease, Text};
use mirabelle_tests::{Outcome, run_within};

use super::peers::Bench;
use super::tools;
use super::{Cost, Measured};

const LONGEST: Duration = Duration::from_hours(1);
/// The sequences of the two releases.
const OLD: u64 = 1;
const NEW: u64 = 2;

/// What ours came to.
pub(super) struct Ours {
    /// The update; `None` when it failed.
    pub(super) delta: Option<Measured>,
    /// The first install as a delta from nothing.
    pub(super) pack: Option<Measured>,
    /// Bytes of the first install as a bundle with its manifest.
    pub(super) bundle: u64,
    /// The bundles are an earlier run's.
    pub(super) reused: bool,
}

impl Ours {
    /// What a first install moves: the cheaper of the two.
    pub(super) fn first_install(&self) -> u64 {
        self.pack.map_or(self.bundle, |pack| pack.bytes.min(self.bundle))
    }
}

/// A step, as a command of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Bundles, describes and signs a tree.
    Build {
        #[arg(long)]
        tree: PathBuf,
        #[arg(long)]
        sequence: u64,
        #[arg(long)]
        out: PathBuf,
    },
    /// Writes the delta from one built release, or from nothing, to another.
    Encode {
        #[arg(long)]
        from: Option<PathBuf>,
        #[arg(long)]
        to: PathBuf,
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        effort: u8,
    },
    /// Rebuilds a release from a delta, into an object store.
    Decode {
        #[arg(long)]
        delta: PathBuf,
        #[arg(long)]
        from: Option<PathBuf>,
        /// Its `release.json` says what is expected.
        #[arg(long)]
        to: PathBuf,
        #[arg(long)]
        store: PathBuf,
    },
}

impl Step {
    pub(crate) fn run(&self) {
        match self {
            Self::Build { tree, sequence, out } => build(tree, *sequence, out),
            Self::Encode { from, to, out, effort } => encode(from.as_deref(), to, out, *effort),
            Self::Decode { delta, from, to, store } => decode(delta, from.as_deref(), to, store),
        }
    }
}

/// A built release, read back.
struct Built {
    manifest: Vec<u8>,
    release: Release,
    objects: TreeObjects,
}

impl Built {
    fn read(directory: &Path) -> Self {
        let manifest = fs::read(directory.join("release.json")).unwrap();
        let release = SignedRelease::parse(&manifest).unwrap().release;
        let objects = TreeObjects::new(&directory.join("tree"), &release);
        Self { manifest, release, objects }
    }

    fn held(&self) -> Held<'_> {
        Held { manifest: &self.manifest, objects: &self.objects }
    }
}

fn build(tree: &Path, sequence: u64, out: &Path) {
    let text = |text: &str| Text { fr: text.to_owned(), en: text.to_owned() };
    let about = Description {
        name: "application".parse().unwrap(),
        version: sequence.to_string().parse().unwrap(),
        platform: Platform::any(),
        sequence,
        date: "2026-11-24T00:00:00Z".parse().unwrap(),
        title: text("Application"),
        summary: text("An application for the classroom"),
        categories: vec!["Education".to_owned()],
        licence: "MIT".to_owned(),
        launchers: Vec::new(),
        behaviour: mirabelle_manifests::Behaviour::default(),
    };
    let files = scan_tree(tree, &mut |_| {}).unwrap();
    let mut bundle = fs::OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(out.join("bundle.tar.zst"))
        .unwrap();
    // The old release's bundle is measured by nobody; its manifest is what counts.
    let level = if sequence == OLD { 3 } else { DEFAULT_LEVEL };
    let options = WriteOptions { level, ..WriteOptions::default() };
    let (entries, described) = write_bundle(tree, &files, options, &mut bundle, &|_| {}).unwrap();
    let release = Release::new(about, entries, described).unwrap();
    // Any key: the same one for both releases, as a packager's.
    let manifest = release.sign(&SigningKey::from_seed(&[7; 32])).unwrap();
    fs::write(out.join("release.json"), manifest).unwrap();
}

fn encode(from: Option<&Path>, to: &Path, out: &Path, effort: u8) {
    let (base, target) = (from.map(Built::read), Built::read(to));
    let options = EncodeOptions { effort, jobs: NonZeroUsize::MIN };
    let scratch = tempfile::tempdir_in(out.parent().unwrap()).unwrap();
    let mut file = fs::File::create(out).unwrap();
    let held = base.as_ref().map(Built::held);
    delta::encode(held, target.held(), options, scratch.path(), &mut file, &|_| {}).unwrap();
}

fn decode(delta: &Path, from: Option<&Path>, to: &Path, store: &Path) {
    let base = from.map(Built::read);
    let wanted = fs::read(to.join("release.json")).unwrap();
    let expected = Expected {
        manifest: Digest::of(&wanted),
        manifest_length: wanted.len() as u64,
        installed_size: SignedRelease::parse(&wanted).unwrap().release.installed_size(),
    };
    let scratch = tempfile::tempdir_in(store.parent().unwrap()).unwrap();
    let store = ObjectStore::open(store).unwrap();
    let held = base.as_ref().map(Built::held);
    let manifest = delta::decode(delta, held, expected, scratch.path(), &store, &mut |_| {}).unwrap();
    assert!(manifest == wanted, "the delta gave another manifest");
}

/// Measures all of it for one pair.
pub(super) fn measure(bench: &Bench<'_>, effort: u8, reuse: bool) -> Ours {
    let (old, old_reused) = built(bench, "old", &bench.old, OLD, reuse);
    let (new, new_reused) = built(bench, "new", &bench.new, NEW, reuse);
    let length = |file: &str| fs::metadata(new.join(file)).unwrap().len();
    Ours {
        delta: there_and_back(bench.work, Some(&old), &new, effort),
        pack: there_and_back(bench.work, None, &new, effort),
        bundle: length("bundle.tar.zst") + length("release.json"),
        reused: old_reused || new_reused,
    }
}

/// Builds a release, or takes the one that was built of the same tree; says whether it was taken.
fn built(
    bench: &Bench<'_>,
    name: &str,
    tree: &super::tree::Tree,
    sequence: u64,
    reuse: bool,
) -> (PathBuf, bool) {
    let place = tools::cache().join(format!("wan-bytes/built/{sequence}-{}", tree.digest()));
    if reuse && place.join("release.json").exists() {
        return (place, true);
    }
    let fresh = bench.work.join(name);
    fs::create_dir(&fresh).unwrap();
    fs::os::unix::fs::symlink(fs::canonicalize(&tree.root).unwrap(), fresh.join("tree")).unwrap();
    let mut command = step("build");
    command.arg("--tree").arg(&tree.root).args(["--sequence", &sequence.to_string(), "--out"]).arg(&fresh);
    run_within(&mut command, LONGEST).succeeds();
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::rename(&fresh, &place).unwrap();
    (place, false)
}

/// Makes a delta and applies it in processes of their own, and compares every object.
fn there_and_back(work: &Path, from: Option<&Path>, to: &Path, effort: u8) -> Option<Measured> {
    let (delta, store) = (work.join("delta"), work.join("store"));
    let with_base = |command: &mut Command| {
        if let Some(from) = from {
            command.arg("--from").arg(from);
        }
    };
    let mut encode = step("encode");
    encode.args(["--effort", &effort.to_string(), "--to"]).arg(to).arg("--out").arg(&delta);
    with_base(&mut encode);
    let encoded = ran(&mut encode)?;
    let mut decode = step("decode");
    decode.arg("--to").arg(to).arg("--delta").arg(&delta).arg("--store").arg(&store);
    with_base(&mut decode);
    let decoded = ran(&mut decode)?;

    let base = from.map(|from| Built::read(from).release.objects()).unwrap_or_default();
    let objects = ObjectStore::open(&store).unwrap();
    for (digest, object) in Built::read(to).release.objects() {
        if !base.contains_key(&digest) {
            objects.verify(digest, object.size).unwrap();
        }
    }
    let measured = Measured {
        bytes: fs::metadata(&delta).unwrap().len(),
        encode: Cost::of(&encoded),
        decode: Cost::of(&decoded),
    };
    fs::remove_dir_all(&store).unwrap();
    Some(measured)
}

fn step(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["wan-bytes-step", name]);
    command
}

fn ran(command: &mut Command) -> Option<Outcome> {
    let outcome = run_within(command, LONGEST);
    if outcome.code != Some(0) {
        let said = outcome.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        eprintln!("  ours failed: {command:?}: {said}");
        return None;
    }
    Some(outcome)
}
