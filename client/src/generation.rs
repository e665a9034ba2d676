//! Generations: the sets of active releases this workstation has had, and which of them is current.

use std::collections::BTreeMap;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::{
    ApprovedRelease, Digest, Instant, Launcher, PackageName, Platform, Relation, Text, Version,
};
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

const MAX_GENERATION_BYTES: u64 = 16 << 20;
const MAX_CURRENT_BYTES: u64 = 64;

/// A set of active releases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// Counts up and is never used twice.
    pub(crate) number: u64,
    /// The generation it was made from, where `rollback` leads; 0 before the first.
    pub(crate) parent: u64,
    /// When it was made.
    pub(crate) created: Option<Instant>,
    /// What made it: `install ruff`.
    pub(crate) reason: String,
    /// What is active.
    pub(crate) packages: BTreeMap<PackageName, Installed>,
    /// Releases that somebody went back from: `update` does not install this sequence by itself.
    #[serde(default)]
    pub(crate) held: BTreeMap<PackageName, u64>,
}

/// An active release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    pub(crate) version: Version,
    pub(crate) platform: Platform,
    pub(crate) sequence: u64,
    /// Digest of its manifest.
    pub(crate) release: Digest,
    /// The name of its tree below `releases/<name>/`.
    pub(crate) id: String,
    pub(crate) title: Text,
    pub(crate) launchers: Vec<Launcher>,
    pub(crate) bytes: u64,
    /// True when it is here only because another package requires it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) automatic: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) requires: Vec<Relation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) conflicts: Vec<Relation>,
    /// True when a native package of the machine goes with it (kind `installer`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) native: bool,
    /// True when it sets files of the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sets: bool,
}

impl Installed {
    pub(crate) fn of(release: &ApprovedRelease, automatic: bool) -> Self {
        Self {
            version: release.version.clone(),
            platform: release.platform.clone(),
            sequence: release.sequence,
            release: release.digest(),
            id: Layout::release_id(release.sequence, release.digest()),
            title: release.title.clone(),
            launchers: release.launchers.clone(),
            bytes: release.installed_size(),
            automatic,
            requires: release.behaviour.requires.clone(),
            conflicts: release.behaviour.conflicts.clone(),
            native: release.behaviour.installer.is_some(),
            sets: !release.behaviour.settings.is_empty(),
        }
    }
}

impl Generation {
    /// Before anything was installed.
    pub(crate) fn none() -> Self {
        Self {
            number: 0,
            parent: 0,
            created: None,
            reason: String::new(),
            packages: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// The launcher that `name` stands for, and the package it belongs to; a package's name stands for its first.
    pub(crate) fn launcher(&self, name: &PackageName) -> Option<(&PackageName, &Installed, &Launcher)> {
        let mut all = self.packages.iter().flat_map(|(package, installed)| {
            installed.launchers.iter().map(move |launcher| (package, installed, launcher))
        });
        all.find(|(_, _, launcher)| launcher.name == *name).or_else(|| {
            let (package, installed) = self.packages.get_key_value(name)?;
            Some((package, installed, installed.launchers.first()?))
        })
    }
}

impl Layout {
    /// The number in `current`; 0 before anything was installed.
    pub(crate) fn current_number(&self) -> Result<u64, Failure> {
        let path = self.current();
        let what = || format!("cannot read `{}`", path.display());
        let Some(bytes) = durable::read_if_present(&path, MAX_CURRENT_BYTES).or_fail(what)? else {
            return Ok(0);
        };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| Failure::no(format!("`{}` names no generation", path.display())))
    }

    /// The current generation.
    pub(crate) fn current_generation(&self) -> Result<Generation, Failure> {
        match self.current_number()? {
            0 => Ok(Generation::none()),
            number => self.read_generation(number),
        }
    }

    pub(crate) fn read_generation(&self, number: u64) -> Result<Generation, Failure> {
        let path = self.generation(number).join("generation.json");
        let what = || format!("cannot read `{}`", path.display());
        let bytes = durable::read_if_present(&path, MAX_GENERATION_BYTES).or_fail(what)?;
        let bytes = bytes.ok_or_else(|| Failure::no(format!("generation {number} is not here any more")))?;
        serde_json::from_slice(&bytes).or_fail(what)
    }

    /// Every generation that is still here, oldest first. A directory without a description is none.
    pub(crate) fn all_generations(&self) -> Result<Vec<Generation>, Failure> {
        let described = |number: &u64| self.generation(*number).join("generation.json").exists();
        self.generation_numbers()?
            .into_iter()
            .filter(described)
            .map(|number| self.read_generation(number))
            .collect()
    }

    /// Every number that a directory below `generations/` has, in order.
    pub(crate) fn generation_numbers(&self) -> Result<Vec<u64>, Failure> {
        let directory = self.generations();
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let what = || format!("cannot list `{}`", directory.display());
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&directory).or_fail(what)? {
            numbers
                .extend(entry.or_fail(what)?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}
