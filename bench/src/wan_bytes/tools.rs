//! The peers' programs: installed when they are missing, and which versions they are.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::peers::Peer;

/// The release of HDiffPatch on PyPI that is measured.
const HDIFFPATCH: &str = "2.6.0";

/// Where fetched and measured things are kept.
pub(crate) fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    PathBuf::from(home).join(".cache/mirabelle")
}

/// The programs that are here.
pub(super) struct Tools {
    versions: Vec<(Peer, String)>,
}

impl Tools {
    /// Installs what these peers need. What cannot be installed is said, and left out.
    pub(super) fn for_peers(peers: &[Peer]) -> Self {
        let versions = peers.iter().filter_map(|peer| Some((*peer, install(*peer)?))).collect();
        Self { versions }
    }

    pub(super) fn has(&self, peer: Peer) -> bool {
        self.versions.iter().any(|(other, _)| *other == peer)
    }

    /// `OSTree 2022.7`; empty where it is not here.
    pub(super) fn version(&self, peer: Peer) -> &str {
        self.versions.iter().find(|(other, _)| *other == peer).map_or("", |(_, version)| version)
    }

    /// Each program once.
    pub(super) fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<&str> = self.versions.iter().map(|(_, version)| version.as_str()).collect();
        versions.dedup();
        versions
    }
}

/// Installs a peer's program; returns its name and version.
fn install(peer: Peer) -> Option<String> {
    let (program, package) = match peer {
        Peer::Zstd | Peer::PatchFrom => ("zstd", "zstd"),
        Peer::OsTree => ("ostree", "ostree"),
        Peer::Casync => ("casync", "casync"),
        Peer::Bsdiff => ("bsdiff", "bsdiff"),
        Peer::HDiffPatch => {
            let python = python()?;
            let what = format!("hdiffpatch=={HDIFFPATCH}");
            let version = || said(Command::new(&python).args(["-c", "import hdiffpatch"]));
            if version().is_none() {
                let mut pip = Command::new(&python);
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &what]);
                installed(&mut pip, &what);
            }
            return version().map(|_| format!("HDiffPatch {HDIFFPATCH} (hdiffpatch on PyPI)"));
        }
    };
    need(program, package)?;
    let version = said(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]));
    let name = if peer == Peer::OsTree { "OSTree" } else { program };
    Some(format!("{name} {}", version.unwrap_or_default()))
}

/// Makes sure that a program can be run: from Debian if it is missing.
pub(crate) fn need(program: &str, package: &str) -> Option<()> {
    let here = || said(Command::new("sh").args(["-c", "command -v \"$0\"", program])).map(|_| ());
    here().or_else(|| {
        eprintln!("installing {package} (for {program})");
        installed(Command::new("apt-get").args(["update", "-q"]), "the list of packages");
        installed(Command::new("apt-get").args(["install", "-y", "-q", package]), package);
        here()
    })
}

/// A Python with pip, in an environment of its own.
pub(super) fn python() -> Option<PathBuf> {
    let environment = cache().join("hdiffpatch");
    let python = environment.join("bin/python");
    let works = || said(Command::new(&python).args(["-m", "pip", "--version"])).is_some();
    if !works() {
        need("python3", "python3")?;
        if said(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_none() {
            installed(Command::new("apt-get").args(["install", "-y", "-q", "python3-venv"]), "python3-venv");
        }
        installed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment), "a Python");
    }
    works().then_some(python)
}

fn installed(command: &mut Command, what: &str) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("{what} cannot be installed ({command:?}): please install it; the bench goes on without");
    }
}

/// What a command says, if it succeeds.
pub(crate) fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
