//! What is still to come, most urgent first, on the disk: so that people see what a node is at, and a node that was switched
//! off in the middle knows what it tried.
//!
//! ```text
//! <root>/plan.json     [{"package": "hello", "version": "2.0", "priority": "required", "state": "under-way", …}, …]
//! ```
//!
//! It is made anew from what is owed at each sync; what stays from the one before are the attempts. What failed in vain waits
//! longer each time, unless a catalogue cannot be served without it. The file can be deleted.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Digest, Instant};
use mirabelle_transfer::Priority;
use serde::{Deserialize, Serialize};

use super::obligations::{Obligation, Obligations};

const MAX_FILE_BYTES: u64 = 16 << 20;
/// How long what is only worth having waits after its first failure; it doubles each time.
const FIRST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// How far a release has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    Waiting,
    UnderWay,
    Failed,
    /// There is no room for it.
    NoRoom,
}

impl Step {
    /// What a state of an earlier sync comes to.
    fn at_start(self) -> Self {
        match self {
            Self::NoRoom => Self::NoRoom,
            Self::Waiting | Self::UnderWay | Self::Failed => Self::Waiting,
        }
    }
}

/// A release that is to come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) release: Digest,
    pub(crate) priority: Priority,
    /// True: nothing new is served without it.
    pub(crate) must: bool,
    pub(crate) state: Step,
    /// Bytes over the link, at most, as far as is known.
    pub(crate) bytes: u64,
    /// Attempts that came to nothing.
    pub(crate) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<String>,
}

/// What is still to come.
pub(crate) struct Plan {
    path: PathBuf,
    tasks: Vec<Task>,
}

impl Plan {
    /// What of the obligations is not here, with what is known of earlier attempts.
    pub(crate) fn new(path: &Path, obligations: &Obligations, is_here: impl Fn(&Obligation) -> bool) -> Self {
        let known = read_plan(path);
        let missing = obligations.iter().filter(|obligation| !is_here(obligation));
        let tasks = missing.map(|obligation| {
            let listing = &obligation.entry.listing;
            let before = known.iter().find(|task| task.release == obligation.entry.digest);
            Task {
                package: listing.name.to_string(),
                version: listing.version.to_string(),
                platform: listing.platform.to_string(),
                release: obligation.entry.digest,
                priority: obligation.priority,
                must: obligation.must,
                // That there is no room stays true until there is: an alarm is raised once, not at each sync.
                state: before.map_or(Step::Waiting, |task| task.state.at_start()),
                bytes: listing.download_size,
                attempts: before.map_or(0, |task| task.attempts),
                not_before: before.and_then(|task| task.not_before),
                last_failure: before.and_then(|task| task.last_failure.clone()),
            }
        });
        let plan = Self { path: path.to_owned(), tasks: tasks.collect() };
        plan.write();
        plan
    }

    /// True when it failed lately and is only worth having.
    pub(crate) fn is_resting(&self, release: Digest, now: Instant) -> bool {
        let task = self.tasks.iter().find(|task| task.release == release);
        task.is_some_and(|task| !task.must && task.not_before.is_some_and(|instant| now < instant))
    }

    pub(crate) fn begins(&mut self, release: Digest, bytes: u64) {
        self.change(release, |task| (task.state, task.bytes) = (Step::UnderWay, bytes));
    }

    /// It did not come, for no fault of anybody's.
    pub(crate) fn waits(&mut self, release: Digest) {
        self.change(release, |task| task.state = Step::Waiting);
    }

    pub(crate) fn is_here(&mut self, release: Digest) {
        self.tasks.retain(|task| task.release != release);
        self.write();
    }

    pub(crate) fn failed(&mut self, release: Digest, state: Step, failure: String, now: Instant) {
        self.change(release, |task| {
            task.state = state;
            task.attempts = task.attempts.saturating_add(1);
            let wait = FIRST_WAIT * (1 << (task.attempts - 1).min(8));
            task.not_before = now.checked_add(wait).ok();
            task.last_failure = Some(failure);
        });
    }

    fn change(&mut self, release: Digest, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.release == release) {
            change(task);
            self.write();
        }
    }

    /// What people look at; that it cannot be written holds up nothing.
    fn write(&self) {
        let written = serde_json::to_vec_pretty(&self.tasks)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::write_atomically(&self.path, &bytes));
        if let Err(error) = written {
            tracing::debug!(%error, "the plan could not be written");
        }
    }
}

/// The plan as the node wrote it.
pub(crate) fn read_plan(path: &Path) -> Vec<Task> {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
