//! The catalogue: the releases that the rectorat's approvers have signed for.
//!
//! Each is a target of the role `catalogue`; what a store page lists stands in its `custom`, so that browsing needs no
//! further download.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{PackageName, Platform, Text, Version};
use crate::release::{Relation, Release, release_target};
use crate::tuf::{TargetFile, Targets};
use crate::{Digest, Instant, Showcase, TargetPath};

/// What the catalogue says about a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Categories of the store.
    pub categories: Vec<String>,
    /// Packages that cannot be installed beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Relation>,
    /// Bytes of the full bundle: what a first download costs at most.
    pub download_size: u64,
    /// Bytes of its files.
    pub installed_size: u64,
    /// SPDX expression.
    pub licence: String,
    /// The package.
    pub name: PackageName,
    /// What it runs on.
    pub platform: Platform,
    /// Packages that must be installed beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Relation>,
    /// Orders the package's releases on a platform.
    pub sequence: u64,
    /// What a store shows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub showcase: Option<Showcase>,
    /// What it is.
    pub summary: Text,
    /// Its name for people.
    pub title: Text,
    /// Its version for people.
    pub version: Version,
}

impl Listing {
    /// What the catalogue should say about `release`.
    pub fn of(release: &Release) -> Self {
        Self {
            categories: release.categories.clone(),
            conflicts: release.behaviour.conflicts.clone(),
            download_size: release.bundle.size,
            installed_size: release.installed_size(),
            licence: release.licence.clone(),
            name: release.name.clone(),
            platform: release.platform.clone(),
            requires: release.behaviour.requires.clone(),
            sequence: release.sequence,
            showcase: release.showcase.clone(),
            summary: release.summary.clone(),
            title: release.title.clone(),
            version: release.version.clone(),
        }
    }
}

/// What the catalogue keeps for a release: its listing, and when it was approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// When the approvers were first asked to sign for it: rings of a rollout count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Instant>,
    /// The listing.
    #[serde(flatten)]
    pub listing: Listing,
}

/// An approved release: its listing, and the file that the approval names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// What the store lists.
    pub listing: Listing,
    /// When it was approved, if the catalogue says so.
    pub approved: Option<Instant>,
    /// Where `release.json` is.
    pub path: TargetPath,
    /// SHA-256 of `release.json`: the release's identity.
    pub digest: Digest,
    /// Its length.
    pub length: u64,
}

/// All approved releases.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<(PackageName, Platform, u64), CatalogueEntry>,
}

/// Why a verified catalogue role does not read as a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// `custom` is missing or of another shape.
    #[error("catalogue entry `{path}` has no readable listing")]
    Listing {
        /// The target.
        path: TargetPath,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The listing belongs to another release than the path.
    #[error("catalogue entry `{0}` lists another release than its path names")]
    Misplaced(TargetPath),
    /// No SHA-256.
    #[error("catalogue entry `{0}` has no SHA-256")]
    NoDigest(TargetPath),
    /// Two releases with one sequence.
    #[error("catalogue entry `{0}` has the sequence of another release of the package")]
    SequenceTwice(TargetPath),
}

impl Catalogue {
    /// Reads the targets of a verified catalogue role.
    pub fn read(role: &Targets) -> Result<Self, CatalogueError> {
        let mut entries = BTreeMap::new();
        for (path, file) in &role.targets {
            let entry = read_entry(path, file)?;
            let Listing { name, platform, sequence, .. } = &entry.listing;
            if entries.insert((name.clone(), platform.clone(), *sequence), entry).is_some() {
                return Err(CatalogueError::SequenceTwice(path.clone()));
            }
        }
        Ok(Self { entries })
    }

    /// Every entry, by package, platform and sequence.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &CatalogueEntry> {
        self.entries.values()
    }

    /// One release.
    pub fn get(&self, name: &PackageName, platform: &Platform, sequence: u64) -> Option<&CatalogueEntry> {
        self.entries.get(&(name.clone(), platform.clone(), sequence))
    }

    /// The entry that approves the manifest with this digest.
    pub fn by_digest(&self, digest: Digest) -> Option<&CatalogueEntry> {
        self.iter().find(|entry| entry.digest == digest)
    }

    /// The platforms that a package has releases for.
    pub fn platforms(&self, name: &PackageName) -> Vec<&Platform> {
        let mut platforms: Vec<&Platform> = Vec::new();
        for (other, platform, _) in
            self.entries.range((name.clone(), Platform::first(), 0)..).map(|(key, _)| key)
        {
            if other != name {
                break;
            }
            if platforms.last() != Some(&platform) {
                platforms.push(platform);
            }
        }
        platforms
    }

    /// Every release of a package for a platform, oldest first.
    pub fn releases(
        &self,
        name: &PackageName,
        platform: &Platform,
    ) -> impl DoubleEndedIterator<Item = &CatalogueEntry> + Clone {
        let key = |sequence| (name.clone(), platform.clone(), sequence);
        self.entries.range(key(0)..=key(u64::MAX)).map(|(_, entry)| entry)
    }

    /// The release of the highest sequence before `sequence`.
    pub fn before(&self, name: &PackageName, platform: &Platform, sequence: u64) -> Option<&CatalogueEntry> {
        let key = |sequence| (name.clone(), platform.clone(), sequence);
        self.entries.range(key(0)..key(sequence)).next_back().map(|(_, entry)| entry)
    }
}

fn read_entry(path: &TargetPath, file: &TargetFile) -> Result<CatalogueEntry, CatalogueError> {
    let custom = file.custom.clone().unwrap_or_default();
    let Custom { approved, listing } = serde_json::from_value(custom)
        .map_err(|source| CatalogueError::Listing { path: path.clone(), source })?;
    if release_target(&listing.name, &listing.version, &listing.platform) != *path {
        return Err(CatalogueError::Misplaced(path.clone()));
    }
    let digest = file.hashes.sha256().ok_or_else(|| CatalogueError::NoDigest(path.clone()))?;
    Ok(CatalogueEntry { listing, approved, path: path.clone(), digest, length: file.length })
}
