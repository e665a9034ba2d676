//! What happened on this workstation and outlives generations: who asked for what, and what failed here.
//!
//! One small file, replaced as a whole (`durable.rs`). One that cannot be read is set aside and said in the log: what the
//! deployment requires comes all the same, what somebody asked for is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::{Asker, Digest, InstalledRelease, Keep, MachineState, PackageName, Quarantine};
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::generation::Generation;
use crate::layout::Layout;
use crate::platform;

const MAX_STATE_BYTES: u64 = 4 << 20;
/// More failures than this are not remembered: the oldest are forgotten first.
const MAX_QUARANTINE: usize = 200;

/// `state.json`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Who asked for what; kept until it is removed.
    pub(crate) asked: BTreeMap<PackageName, Asker>,
    /// Releases that failed here, by the digest of their manifest.
    pub(crate) quarantine: BTreeMap<Digest, Quarantine>,
    /// Releases that somebody keeps here on purpose, until a day.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kept: BTreeMap<PackageName, Keep>,
    /// Releases that were fetched ahead of the hour at which they may be installed: not swept.
    pub(crate) ahead: BTreeSet<Digest>,
    /// Native packages that count only once the machine was restarted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) restart: BTreeMap<PackageName, Restart>,
}

/// A native package that waits for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restart {
    /// What is there then; nothing, if it was taken away.
    pub(crate) release: Option<Digest>,
    /// The run of the machine that has to end.
    pub(crate) boot: String,
}

impl State {
    /// As a decision needs it, together with what is installed.
    pub(crate) fn on_machine(&self, current: &Generation) -> MachineState {
        let installed = current.packages.iter().map(|(package, installed)| {
            let release = InstalledRelease {
                release: installed.release,
                sequence: installed.sequence,
                requires: installed.requires.clone(),
                conflicts: installed.conflicts.clone(),
                automatic: installed.automatic,
            };
            (package.clone(), release)
        });
        MachineState {
            installed: installed.collect(),
            asked: self.asked.clone(),
            held: current.held.clone(),
            quarantine: self.quarantine.clone(),
            kept: self.kept.clone(),
        }
    }

    /// Native packages that wait for the end of this run of the machine.
    pub(crate) fn waiting_for_restart(&self, boot: &str) -> Vec<PackageName> {
        let waiting = self.restart.iter().filter(|(_, noted)| noted.boot == boot);
        waiting.map(|(package, _)| package.clone()).collect()
    }

    /// Remembers that a release failed here.
    pub(crate) fn quarantine(&mut self, release: Digest, failed: Quarantine) {
        while self.quarantine.len() >= MAX_QUARANTINE {
            let oldest =
                self.quarantine.iter().min_by_key(|(_, failed)| failed.since).map(|(release, _)| *release);
            let Some(oldest) = oldest else { break };
            self.quarantine.remove(&oldest);
        }
        self.quarantine.insert(release, failed);
    }
}

impl Layout {
    pub(crate) fn read_state(&self) -> Result<State, Failure> {
        let path = self.state();
        let what = || format!("cannot read `{}`", path.display());
        let Some(bytes) = durable::read_if_present(&path, MAX_STATE_BYTES).or_fail(what)? else {
            return Ok(State::default());
        };
        match serde_json::from_slice(&bytes) {
            Ok(state) => Ok(state),
            Err(error) => {
                tracing::error!(%error, "the state of this workstation could not be read and is set aside");
                // Whoever only looks may not be allowed to move it.
                let _ = fs::rename(&path, path.with_extension("damaged"));
                Ok(State::default())
            }
        }
    }

    /// Changes the state. Needs the lock.
    pub(crate) fn change_state(&self, change: impl FnOnce(&mut State)) -> Result<State, Failure> {
        let before = self.read_state()?;
        let mut state = before.clone();
        change(&mut state);
        let boot = platform::boot();
        state.restart.retain(|_, noted| noted.boot == boot);
        if state != before {
            let what = || format!("cannot write `{}`", self.state().display());
            let bytes = serde_json::to_vec_pretty(&state).or_fail(what)?;
            durable::write_atomically(&self.state(), &bytes).or_fail(what)?;
        }
        Ok(state)
    }
}
