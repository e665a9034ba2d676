//! The node's directory.
//!
//! ```text
//! <root>/
//!   node.toml        configuration
//!   trust/           the newest metadata that was verified
//!   objects/         objects, by digest; compressed where that pays
//!   objects.lock     held by whoever counts on objects, or sweeps them
//!   incoming/        objects being written
//!   partials/        downloads under way; they survive a restart
//!   served/          the last complete catalogue: metadata/ targets/ routes/ deltas/, and media/
//!   state.json       what the last sync came to; plan.json, upstreams.json, scrub.json, alarms.json: what it is at, shown to people
//!   identity.key     signs what the node says (`proof.rs`, `fleet/`), 0600
//!   programs/        versions of its own program (`program.rs`)
//!   link-ledger.json what the link was used for, day by day (`link.rs`); link.json  what it does now
//!   running.json     the process that runs, while it does (`running.rs`)
//!   fleet/           the college's code, machines that report, and what the origin does not have yet (`fleet/`)
//!   people/          who may do what, what teachers chose and ordered, and what the origin does not have yet (`people/`)
//!   wake-ups.json    workstations that are to be woken (`lan/wake_ups.rs`)
//!   machines.json    workstations that can be woken (`lan/machines.rs`)
//!   legacy/          files of legacy repositories (`legacy/store.rs`); delete it at will
//!   retired.json     releases that are not owed any more, and since when (`garbage.rs`)
//!   quarantine/      what was found wrong, for a while; delete it at will
//!   index/           the rebuildable index; delete it at will
//!   doubt            there when the index must not be believed
//!   lock             held by whoever mirrors
//! ```

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, Instant};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::{MetadataStore, WayKind};
use serde::{Deserialize, Serialize};

use crate::served::Served;

const MAX_STATE_BYTES: u64 = 16 << 20;

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    root: PathBuf,
}

/// `state.json`: what the last sync came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// When the node last looked at an upstream and understood the answer.
    pub(crate) refreshed: Option<Instant>,
    /// When what is served became complete.
    pub(crate) complete_since: Option<Instant>,
    /// The snapshot that is served.
    pub(crate) snapshot: u64,
    /// When the served metadata stops being fresh.
    pub(crate) fresh_until: Option<Instant>,
    /// What is held for the college.
    pub(crate) releases: Vec<HeldRelease>,
    /// Bytes received from upstreams since the node was set up.
    pub(crate) received_bytes: u64,
    /// Why the last sync failed, if it did.
    pub(crate) last_failure: Option<String>,
}

/// A release that the node holds whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HeldRelease {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) release: Digest,
    pub(crate) objects: usize,
    pub(crate) bytes: u64,
    /// How it came here, if that is still known.
    #[serde(default)]
    pub(crate) came: Option<Came>,
}

/// How a release came to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Came {
    pub(crate) by: WayKind,
    /// In words: `delta from 1.0`.
    pub(crate) way: String,
    /// Bytes that were received for it.
    pub(crate) received_bytes: u64,
}

impl Site {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Keeps other mirroring processes out until the file is dropped.
    pub(crate) fn lock(&self) -> Result<fs::File, Failure> {
        durable::try_lock(&self.path("lock"))
            .or_fail(|| format!("cannot lock `{}`", self.root.display()))?
            .ok_or_else(|| {
                Failure::no(format!("another mirabelle-node works on `{}`", self.root.display()))
                    .hint("it may be the service: ask it with `mirabelle-node status`")
            })
    }

    pub(crate) fn trust(&self) -> MetadataStore {
        MetadataStore::new(&self.path("trust")).healing()
    }

    pub(crate) fn served(&self) -> Served {
        Served::new(&self.path("served"))
    }

    /// The object store, for the process that holds the lock.
    pub(crate) fn objects(&self) -> Result<ObjectStore, Failure> {
        ObjectStore::open_compressing(&self.root)
            .or_fail(|| format!("cannot open the objects of `{}`", self.root.display()))
    }

    /// The object store for a process that only reads.
    pub(crate) fn objects_read_only(&self) -> ObjectStore {
        ObjectStore::read_only(&self.root)
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.path("partials")
    }

    /// What the last sync came to; nothing yet, if it cannot be read.
    pub(crate) fn state(&self) -> State {
        let bytes = durable::read_if_present(&self.path("state.json"), MAX_STATE_BYTES).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(crate) fn write_state(&self, state: &State) -> Result<(), Failure> {
        let what = || format!("cannot write the state of `{}`", self.root.display());
        let bytes = serde_json::to_vec_pretty(state).or_fail(what)?;
        durable::write_atomically(&self.path("state.json"), &bytes).or_fail(what)
    }
}
