//! `[deltas]` in `repository.toml`: which deltas are made, and what making them may take.
//!
//! They stand in a file, not in flags alone, so that `publish` and `deltas` want the same: what one makes the other must
//! not drop.

use std::num::NonZeroUsize;

use mirabelle_terminal::{ByteCount, Failure};
use serde::{Deserialize, Serialize};

use crate::deltas::{Budget, Policy};

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeltaSettings {
    /// From so many releases before each target.
    pub(crate) last: usize,
    /// From these too: `["geogebra@6.2.0"]`.
    pub(crate) also: Vec<String>,
    /// From nothing, too, for first installs.
    pub(crate) packs: bool,
    /// 1 (quick) to 3 (smallest).
    pub(crate) effort: u8,
    /// Threads; all processors, if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// `2 GiB`
    pub(crate) memory: String,
}

impl Default for DeltaSettings {
    fn default() -> Self {
        Self { last: 3, also: Vec::new(), packs: true, effort: 2, jobs: None, memory: "2 GiB".to_owned() }
    }
}

impl DeltaSettings {
    /// Which deltas are wanted.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        let also = self.also.iter().map(|also| also.parse().map_err(|error| wrong("also", &error)));
        Ok(Policy { last: self.last, also: also.collect::<Result<_, _>>()?, packs: self.packs })
    }

    /// What making them may take.
    pub(crate) fn budget(&self) -> Result<Budget, Failure> {
        if !(1..=3).contains(&self.effort) {
            return Err(wrong("effort", &"it goes from 1 to 3".to_owned()));
        }
        let memory: ByteCount = self.memory.parse().map_err(|error| wrong("memory", &error))?;
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Budget { jobs: self.jobs.unwrap_or_else(all), memory: memory.0, effort: self.effort })
    }
}

fn wrong(setting: &str, error: &impl std::fmt::Display) -> Failure {
    Failure::usage(format!("`{setting}` below [deltas] in repository.toml: {error}"))
}
