//! The peers: each makes its update of a pair, applies it, and what came out is compared.
//!
//! Each is given what it does best with: windows as large as both trees, no size past which OSTree gives up bsdiff or
//! leaves a file out, LZMA2 at its strongest for HDiffPatch. All run in one thread. Making tars, commits and the like
//! is not counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use fs_err as fs;
use mirabelle_content::{SourceFile, SourceNode};
use mirabelle_manifests::Digest;
use mirabelle_tests::{Outcome, run_within};

use super::corpus::Pair;
use super::tools::{self, Tools};
use super::tree::{Tree, bytes_below, digest_of};
use super::{Cost, Measured};

/// bsdiff needs 17 times the old file: past this, 1.1 GB.
const BSDIFF_BYTES: u64 = 64 << 20;

/// OSTree took 629 s for a browser.
const LONGEST: Duration = Duration::from_mins(90);

/// A way of moving a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The whole new tree, compressed: a first install.
    Zstd,
    /// `zstd --patch-from`
    PatchFrom,
    /// Static deltas.
    #[value(name = "ostree")]
    OsTree,
    /// HDIFF13 with LZMA2.
    #[value(name = "hdiffpatch")]
    HDiffPatch,
    /// Chunks of 64 KiB.
    Casync,
    /// File by file.
    Bsdiff,
}

impl Peer {
    pub(super) const ALL: [Self; 6] =
        [Self::Zstd, Self::PatchFrom, Self::OsTree, Self::HDiffPatch, Self::Casync, Self::Bsdiff];

    /// Those that start from the old release.
    pub(super) const UPDATES: [Self; 5] =
        [Self::OsTree, Self::HDiffPatch, Self::PatchFrom, Self::Bsdiff, Self::Casync];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd -19",
            Self::PatchFrom => "zstd --patch-from",
            Self::OsTree => "OSTree",
            Self::HDiffPatch => "HDiffPatch",
            Self::Casync => "casync",
            Self::Bsdiff => "bsdiff",
        }
    }
}

impl Peer {
    /// Counts up when it is run otherwise, so that what was kept is measured anew.
    fn revision(self) -> u32 {
        if self == Self::Bsdiff { 2 } else { 1 }
    }
}

/// One pair, ready to be measured.
pub(super) struct Bench<'a> {
    pub(super) pair: &'a Pair,
    pub(super) old: Tree,
    pub(super) new: Tree,
    /// Empty at first; everything in it goes when the pair is done.
    pub(super) work: &'a Path,
    tools: &'a Tools,
    old_tar: PathBuf,
    new_tar: PathBuf,
}

impl<'a> Bench<'a> {
    pub(super) fn prepare(pair: &'a Pair, tools: &'a Tools, work: &'a Path) -> Self {
        let (old, new) = (Tree::read(&pair.old.tree), Tree::read(&pair.new.tree));
        let (old_tar, new_tar) = (work.join("old.tar"), work.join("new.tar"));
        old.write_tar(&old_tar, &|_| true);
        new.write_tar(&new_tar, &|_| true);
        Self { pair, old, new, work, tools, old_tar, new_tar }
    }

    /// What an earlier run measured of the same trees with the same tool.
    pub(super) fn kept(&self, peer: Peer) -> Option<Measured> {
        serde_json::from_slice(&fs::read(self.place(peer)).ok()?).ok()
    }

    pub(super) fn keep(&self, peer: Peer, measured: Measured) {
        let place = self.place(peer);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, serde_json::to_vec(&measured).unwrap()).unwrap();
    }

    fn place(&self, peer: Peer) -> PathBuf {
        let (old, new) = (self.old.digest(), self.new.digest());
        let (revision, version) = (peer.revision(), self.tools.version(peer));
        let key = format!("{revision} {peer:?} {version} {} {old} {new}", self.pair.label());
        tools::cache().join(format!("wan-bytes/peers/{}.json", Digest::of(key.as_bytes())))
    }

    /// Makes the update, applies it and compares. `None`: the tool failed.
    pub(super) fn measure(&self, peer: Peer) -> Option<Measured> {
        match peer {
            Peer::Zstd => self.zstd(None),
            Peer::PatchFrom => self.zstd(Some(&self.old_tar)),
            Peer::OsTree => self.ostree(),
            Peer::HDiffPatch => self.hdiffpatch(),
            Peer::Casync => self.casync(),
            Peer::Bsdiff => self.bsdiff(),
        }
    }

    fn zstd(&self, base: Option<&Path>) -> Option<Measured> {
        let (packed, out) = (self.work.join("zst"), self.work.join("zst.out"));
        zstd(base, &self.new_tar, &packed, &out)
    }

    fn hdiffpatch(&self) -> Option<Measured> {
        let (script, delta, out) =
            (self.work.join("peer.py"), self.work.join("hdiff"), self.work.join("h.out"));
        fs::write(&script, include_str!("hdiffpatch.py")).unwrap();
        let python = tools::python()?;
        let command = |verb: &str| {
            let mut command = Command::new(&python);
            command.arg(&script).arg(verb).arg(&self.old_tar);
            command
        };
        let encode = ran(command("diff").arg(&self.new_tar).arg(&delta))?;
        let decode = ran(command("apply").arg(&delta).arg(&out))?;
        same(&out, &self.new_tar)?;
        Some(Measured { bytes: length(&delta), encode: Cost::of(&encode), decode: Cost::of(&decode) })
    }

    fn ostree(&self) -> Option<Measured> {
        let (origin, client) = (self.work.join("ostree"), self.work.join("ostree-client"));
        let (delta, checkout) = (self.work.join("ostree.delta"), self.work.join("ostree.out"));
        let ostree = |repository: &Path, words: &[&str]| {
            let mut command = Command::new("ostree");
            command.args(words).arg(format!("--repo={}", repository.display()));
            command
        };
        ran(&mut ostree(&origin, &["init", "--mode=bare-user-only"]))?;
        let commit = |tree: &Path| {
            let mut commit = ostree(&origin, &["commit", "--branch=app", "--timestamp=@0", "--no-bindings"]);
            commit
                .args(["--canonical-permissions", "--no-xattrs"])
                .arg(format!("--tree=dir={}", tree.display()));
            ran(&mut commit).map(|outcome| outcome.stdout.trim().to_owned())
        };
        let (old, new) = (commit(&self.old.root)?, commit(&self.new.root)?);
        let mut generate =
            ostree(&origin, &["static-delta", "generate", "--inline", "--max-bsdiff-size=512"]);
        // Nothing is left to be fetched beside the delta.
        generate.args(["--min-fallback-size=0", &format!("--from={old}"), &format!("--to={new}")]);
        let encode = ran(generate.arg(format!("--filename={}", delta.display())))?;

        ran(&mut ostree(&client, &["init", "--mode=bare-user-only"]))?;
        ran(ostree(&client, &["pull-local", "--disable-fsync"]).arg(&origin).arg(&old))?;
        let decode = ran(ostree(&client, &["static-delta", "apply-offline"]).arg(&delta))?;
        ran(ostree(&client, &["checkout", "--user-mode"]).arg(&new).arg(&checkout))?;
        (Tree::read(&checkout).files == self.new.files).then_some(())?;
        for directory in [origin, client, checkout] {
            fs::remove_dir_all(directory).unwrap();
        }
        Some(Measured { bytes: length(&delta), encode: Cost::of(&encode), decode: Cost::of(&decode) })
    }

    /// The chunks that the old release does not have, as they are stored, and the index.
    fn casync(&self) -> Option<Measured> {
        let store = self.work.join("casync.castr");
        let out = self.work.join("casync.out");
        let make = |index: &Path, of: &Path| {
            let mut make = Command::new("casync");
            make.args(["make", "--chunk-size=65536"]).arg(format!("--store={}", store.display()));
            ran(make.arg(index).arg(of))
        };
        let (old_index, new_index) = (self.work.join("old.caibx"), self.work.join("new.caibx"));
        make(&old_index, &self.old_tar)?;
        let before = bytes_below(&store);
        let encode = make(&new_index, &self.new_tar)?;
        let bytes = bytes_below(&store) - before + length(&new_index);
        let mut extract = Command::new("casync");
        extract.arg("extract").arg(format!("--store={}", store.display())).arg(&new_index).arg(&out);
        let decode = ran(&mut extract)?;
        same(&out, &self.new_tar)?;
        fs::remove_dir_all(store).unwrap();
        Some(Measured { bytes, encode: Cost::of(&encode), decode: Cost::of(&decode) })
    }

    /// Changed files one by one; new ones together in one compressed tar. Unchanged and moved ones cost nothing.
    fn bsdiff(&self) -> Option<Measured> {
        tools::need("zstd", "zstd")?;
        let mut total = Measured { bytes: 0, encode: Cost::default(), decode: Cost::default() };
        let mut add = |part: Measured| {
            total.bytes += part.bytes;
            total.encode = total.encode.and(part.encode);
            total.decode = total.decode.and(part.decode);
        };
        let (patch, out) = (self.work.join("bsdiff"), self.work.join("bsdiff.out"));
        let mut whole = Vec::new();
        for file in &self.new.files {
            let SourceNode::File { sha256, size, .. } = file.node else { continue };
            if self.old.files.iter().any(|old| content(old).is_some_and(|(digest, _)| digest == sha256)) {
                continue;
            }
            let Some((before, old_size)) = self.predecessor(file).filter(|_| size > 0) else {
                whole.push(&file.path);
                continue;
            };
            let (old, new) = (self.old.root.join(before), self.new.root.join(file.path.as_str()));
            if old_size.max(size) > BSDIFF_BYTES {
                add(zstd(Some(&old), &new, &patch, &out)?);
                continue;
            }
            let encode = ran(Command::new("bsdiff").args([&old, &new, &patch]))?;
            let decode = ran(Command::new("bspatch").args([&old, &out, &patch]))?;
            same(&out, &new)?;
            add(Measured { bytes: length(&patch), encode: Cost::of(&encode), decode: Cost::of(&decode) });
        }
        if !whole.is_empty() {
            let tar = self.work.join("bsdiff.tar");
            self.new.write_tar(&tar, &|file| whole.contains(&&file.path));
            add(zstd(None, &tar, &patch, &out)?);
        }
        Some(total)
    }

    /// The old file at a new one's path, or where the path has the old version for the new (`ruff-0.17.6.data`).
    fn predecessor(&self, file: &SourceFile) -> Option<(&str, u64)> {
        let path = file.path.as_str();
        [path.to_owned(), path.replace(&self.pair.new.version, &self.pair.old.version)].iter().find_map(
            |path| {
                let found = self.old.files.iter().find(|old| old.path.as_str() == path)?;
                let (_, size) = content(found).filter(|(_, size)| *size > 0)?;
                Some((found.path.as_str(), size))
            },
        )
    }
}

/// `zstd -19` in one window, with or without an old file, and back.
fn zstd(base: Option<&Path>, file: &Path, packed: &Path, out: &Path) -> Option<Measured> {
    let both = length(file) + base.map_or(0, length);
    // zstd goes from 1 KiB to 2 GiB.
    let window = format!("--long={}", (both.max(2) - 1).ilog2().saturating_add(1).clamp(10, 31));
    let command = |words: &[&str], from: &Path, to: &Path| {
        let mut command = Command::new("zstd");
        command.args(["-q", "-f", &window]).args(words);
        if let Some(base) = base {
            command.arg(format!("--patch-from={}", base.display()));
        }
        command.arg(from).arg("-o").arg(to);
        ran(&mut command)
    };
    let encode = command(&["-19", "--single-thread"], file, packed)?;
    let decode = command(&["-d"], packed, out)?;
    same(out, file)?;
    Some(Measured { bytes: length(packed), encode: Cost::of(&encode), decode: Cost::of(&decode) })
}

fn content(file: &SourceFile) -> Option<(Digest, u64)> {
    if let SourceNode::File { sha256, size, .. } = file.node { Some((sha256, size)) } else { None }
}

/// Runs a step of a peer; says why when it fails.
fn ran(command: &mut Command) -> Option<Outcome> {
    let outcome = run_within(command, LONGEST);
    if outcome.code != Some(0) {
        let said = outcome.stderr.trim().lines().next_back().unwrap_or_default();
        eprintln!("  {command:?} failed: {said}");
        return None;
    }
    Some(outcome)
}

fn same(a: &Path, b: &Path) -> Option<()> {
    let same = digest_of(a).is_some() && digest_of(a) == digest_of(b);
    if !same {
        eprintln!("  {} is not {}", a.display(), b.display());
    }
    same.then_some(())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
