//! The plan of how a release comes: every way there is with its cost, cheapest first, and why others do not count.
//!
//! A plan is made before anything is fetched but small lists (and the manifest, where that is worth it); it prints,
//! dry-runs, and its first way is what is gone.

use std::collections::BTreeMap;
use std::fmt;

use mirabelle_manifests::{CatalogueEntry, Digest};
use serde::Serialize;

use super::search::{Chain, Objection};
use super::{ObtainPlan, Route};

/// What sort of way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayKind {
    /// Everything is here.
    Nothing,
    /// A delta from a release that is held.
    Delta,
    /// Several, one after the other.
    Chain,
    /// The whole release, compressed harder than the bundle.
    Pack,
    /// Ranges of the full bundle.
    Bundle,
    /// One object at a time.
    Objects,
}

/// A way that was weighed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// What sort.
    pub kind: WayKind,
    /// In words: `delta from 1.0`.
    pub way: String,
    /// Bytes to fetch.
    pub bytes: u64,
    /// True: it may cost less; how much is known once the manifest is here.
    pub at_most: bool,
}

/// A way that does not count, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// In words: `delta from 1.0`.
    pub way: String,
    /// In words.
    pub why: String,
}

/// How a release comes.
#[derive(Debug, Serialize)]
pub struct ReleasePlan {
    /// The package.
    pub package: String,
    /// The version.
    pub version: String,
    /// Its release.
    pub release: Digest,
    /// The server that was asked.
    pub upstream: String,
    /// Versions of the package that are held whole, oldest first.
    pub held: Vec<String>,
    /// What was weighed, cheapest first: the first is what is gone.
    pub candidates: Vec<Candidate>,
    /// What does not count.
    pub passed_over: Vec<PassedOver>,
    /// How many objects are missing; unknown while the manifest is not here and need not be.
    pub missing_objects: Option<usize>,
    #[serde(skip)]
    pub(super) ways: Vec<Way>,
}

impl ReleasePlan {
    /// Bytes that going the cheapest way fetches, unless something fails.
    pub fn cost(&self) -> u64 {
        self.candidates.first().map_or(0, |candidate| candidate.bytes)
    }

    /// True when everything is here.
    pub fn is_nothing(&self) -> bool {
        self.candidates.first().is_some_and(|candidate| candidate.kind == WayKind::Nothing)
    }
}

/// A way that can be gone.
#[derive(Debug)]
pub(super) enum Way {
    Deltas(Chain),
    Plain(ObtainPlan),
    /// The manifest, then the bundle or objects: what it costs at most.
    Unmeasured(WayKind),
}

/// What words need: versions of releases.
pub(super) struct Words<'a>(pub(super) &'a BTreeMap<Digest, &'a CatalogueEntry>);

impl Words<'_> {
    pub(super) fn version(&self, release: Digest) -> String {
        match self.0.get(&release) {
            Some(entry) => entry.listing.version.to_string(),
            None => format!("release {}", release.short()),
        }
    }

    pub(super) fn from(&self, release: Option<Digest>) -> String {
        release.map_or_else(|| "pack".to_owned(), |release| format!("delta from {}", self.version(release)))
    }

    /// A way in words, with its kind.
    pub(super) fn candidate(&self, way: &Way, bytes: u64) -> Candidate {
        let at_most = matches!(way, Way::Unmeasured(_));
        let (kind, way) = match way {
            Way::Deltas(chain) => self.chain(chain),
            Way::Plain(plan) => match plan.route() {
                Route::Nothing => (WayKind::Nothing, "everything is here".to_owned()),
                Route::Bundle(_) => (WayKind::Bundle, ranges(plan)),
                Route::Objects => {
                    (WayKind::Objects, format!("single objects ({} missing)", plan.missing_objects()))
                }
            },
            Way::Unmeasured(WayKind::Objects) => (WayKind::Objects, "manifest and single objects".to_owned()),
            Way::Unmeasured(kind) => (*kind, "manifest and ranges of the bundle".to_owned()),
        };
        Candidate { kind, way, bytes, at_most }
    }

    fn chain(&self, chain: &Chain) -> (WayKind, String) {
        let first = chain.hops.first().and_then(|hop| hop.from);
        let through: Vec<String> =
            chain.hops.iter().skip(1).filter_map(|hop| hop.from).map(|x| self.version(x)).collect();
        match (first, through.as_slice()) {
            (None, []) => (WayKind::Pack, "pack".to_owned()),
            (Some(from), []) => (WayKind::Delta, format!("delta from {}", self.version(from))),
            (None, through) => (WayKind::Chain, format!("pack of {}", through.join(", then delta to "))),
            (Some(from), through) => {
                (WayKind::Chain, format!("deltas from {} by {}", self.version(from), through.join(" and ")))
            }
        }
    }

    pub(super) fn passed_over(&self, from: Option<Digest>, objection: Objection) -> PassedOver {
        PassedOver { way: self.from(from), why: objection.to_string() }
    }
}

fn ranges(plan: &ObtainPlan) -> String {
    let bundle = plan.release.bundle.size;
    match plan.cost() {
        cost if cost == bundle => "the whole bundle".to_owned(),
        _ => format!("ranges of the bundle ({} objects missing)", plan.missing_objects()),
    }
}

impl fmt::Display for WayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Delta => "delta",
            Self::Chain => "chain",
            Self::Pack => "pack",
            Self::Bundle => "bundle",
            Self::Objects => "objects",
        })
    }
}
