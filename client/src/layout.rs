//! The workstation's directory.
//!
//! ```text
//! <root>/
//!   client.toml                     configuration
//!   trust/                          the newest metadata that was verified
//!   objects/ab/cdef…                content-addressed, read-only; plain, since trees are links to them
//!   objects.lock                    held by whoever sweeps them
//!   partials/                       downloads under way; they survive a restart
//!   manifests/<digest>.json         what was approved, of every release that is here
//!   releases/<name>/<id>/           a release's tree, linked from objects
//!   generations/<n>/                an active set: generation.json, bin/, apps/, share/applications/
//!   current                         THE SWITCH: a small file naming the generation, replaced by rename
//!   active                          convenience: a link to generations/<n>, where the system has links
//!   journal/transaction.json        what is under way
//!   journal/installer               the process of an installer that is at work
//!   state.json                      who asked for what, what failed here, what was fetched ahead
//!   settings.json                   which files of the machine were set, and what stood there before
//!   logs/                           what installers and checks said
//!   locks/<name>/<id>               held, shared, by whoever runs the release
//!   staging/                        trees being built
//!   lock                            held by whoever changes anything
//!   college.code                    what enrols this machine with its node; machine.key: its key; reports.json: what it has to say (`agent/reports.rs`)
//!   agent.lock, agent.sock          the agent; what it keeps: `agent/kept.rs`
//! ```
//!
//! Invariant: `current` names a generation whose releases are all whole. Nothing outside `staging` is ever half there:
//! trees and generations appear by rename, `current` changes by rename after all they need was synced.

use std::path::{Path, PathBuf};

use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, PackageName};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::MetadataStore;

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("client.toml")
    }

    /// What enrols this machine with its node.
    pub(crate) fn college_code(&self) -> PathBuf {
        self.root.join("college.code")
    }

    pub(crate) fn trust(&self) -> MetadataStore {
        MetadataStore::new(&self.root.join("trust"))
    }

    /// The object store, for the process that holds the lock.
    pub(crate) fn objects(&self) -> Result<ObjectStore, Failure> {
        ObjectStore::open(&self.root)
            .or_fail(|| format!("cannot open the objects of `{}`", self.root.display()))
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partials")
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(crate) fn manifest(&self, release: Digest) -> PathBuf {
        self.manifests().join(format!("{release}.json"))
    }

    pub(crate) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// A release's tree.
    pub(crate) fn release(&self, package: &PackageName, id: &str) -> PathBuf {
        self.releases().join(package.as_str()).join(id)
    }

    /// The name of a release's tree: its sequence for whoever lists the directory, its digest so that no two are ever mixed
    /// up.
    pub(crate) fn release_id(sequence: u64, release: Digest) -> String {
        format!("{sequence}-{}", release.short())
    }

    pub(crate) fn generations(&self) -> PathBuf {
        self.root.join("generations")
    }

    pub(crate) fn generation(&self, number: u64) -> PathBuf {
        self.generations().join(number.to_string())
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    pub(crate) fn active(&self) -> PathBuf {
        self.root.join("active")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal/transaction.json")
    }

    /// Says which installer is at work.
    pub(crate) fn installer(&self) -> PathBuf {
        self.root.join("journal/installer")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    pub(crate) fn agent_lock(&self) -> PathBuf {
        self.root.join("agent.lock")
    }

    /// True while an agent answers, whoever asks.
    pub(crate) fn agent_is_at_work(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.agent_socket()).is_ok()
    }

    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.root.join("agent.sock")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// What an installer or check of a package said the last time.
    pub(crate) fn log(&self, package: &PackageName, what: &str) -> PathBuf {
        self.root.join("logs").join(format!("{package}-{what}.log"))
    }

    pub(crate) fn run_lock(&self, package: &PackageName, id: &str) -> PathBuf {
        self.root.join("locks").join(package.as_str()).join(id)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Removes a tree for good: first out of its place, in one rename, then file by file below `staging`, which is swept
    /// at the next start. So a kill never leaves half a tree where a whole one is expected.
    pub(crate) fn discard(&self, tree: &Path) -> Result<(), Failure> {
        let what = || format!("cannot remove `{}`", tree.display());
        if !tree.exists() {
            return Ok(());
        }
        let doomed = self.staging().join("discarded");
        durable::remove_tree(&doomed).or_fail(what)?;
        fs_err::create_dir_all(self.staging()).or_fail(what)?;
        fs_err::rename(tree, &doomed).or_fail(what)?;
        durable::remove_tree(&doomed).or_fail(what)
    }

    /// As [`Layout::lock`], once whoever holds it is done.
    pub(crate) fn wait_for_lock(&self) -> Result<fs_err::File, Failure> {
        durable::lock_alone(&self.root.join("lock"))
            .or_fail(|| format!("cannot lock `{}`", self.root.display()))
    }

    /// Keeps others from changing anything until the file is dropped.
    pub(crate) fn lock(&self) -> Result<fs_err::File, Failure> {
        durable::try_lock(&self.root.join("lock"))
            .or_fail(|| format!("cannot lock `{}`", self.root.display()))?
            .ok_or_else(|| {
                Failure::no(format!("another mirabelle is changing `{}`", self.root.display()))
                    .hint("wait for it to end, then try again")
            })
    }
}
