//! What this college's node must hold, and what it had better hold, each with its urgency.
//!
//! | | priority | without it |
//! |---|---|---|
//! | a deadline within three days | deadline | nothing new is served |
//! | part of the base | required | nothing new is served |
//! | what somebody may ask for | available | nothing new is served |
//! | what will be owed within seven days | speculative | the week to come costs a lesson |
//! | the release before one that is owed | speculative | a workstation that goes back waits for the link |

use std::collections::BTreeSet;

use jiff::SignedDuration;
use mirabelle_manifests::{Assignment, AssignmentMode, CatalogueEntry, Digest, Instant, SiteId};
use mirabelle_transfer::{Network, Priority};

/// A deadline that is nearer than this goes before everything that has none.
const DEADLINE_NEAR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// How far ahead one looks.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A release that is to be here.
#[derive(Clone, Debug)]
pub(crate) struct Obligation {
    pub(crate) entry: CatalogueEntry,
    pub(crate) priority: Priority,
    /// True: a catalogue is served only with it.
    pub(crate) must: bool,
}

/// What a college is owed, and what is worth having: most urgent first.
#[derive(Clone, Debug)]
pub(crate) struct Obligations(Vec<Obligation>);

impl Obligations {
    pub(crate) fn new(network: &Network, college: &SiteId, now: Instant) -> Self {
        let Network { catalogue, deployment, .. } = network;
        for (assignment, sequence) in deployment.not_approved(catalogue, now) {
            if assignment.to.may_include_some_of(college, &deployment.groups) {
                // Promise 1: an operator cannot deploy what the rectorat has not approved.
                tracing::warn!(package = %assignment.package, sequence,
                    "a deployed release is not approved and was passed over");
            }
        }
        let counting = deployment.counting_at(college);
        let mut known = BTreeSet::new();
        let mut obligations: Vec<Obligation> = Vec::new();
        for entry in deployment.owed(catalogue, college, now) {
            let lines = counting.iter().filter(|line| line.package == entry.listing.name);
            let priority = lines.map(|line| urgency(line, now)).min().unwrap_or(Priority::Required);
            known.insert(entry.digest);
            obligations.push(Obligation { entry: entry.clone(), priority, must: true });
        }
        let later = now
            .checked_add(AHEAD)
            .map_or_else(|_| Vec::new(), |later| deployment.owed(catalogue, college, later));
        let before = obligations.iter().filter_map(|owed| previous(network, &owed.entry));
        let before: Vec<&CatalogueEntry> = before.collect();
        for entry in later.into_iter().chain(before) {
            if known.insert(entry.digest) {
                let priority = Priority::Speculative;
                obligations.push(Obligation { entry: entry.clone(), priority, must: false });
            }
        }
        obligations.sort_by_key(|obligation| obligation.priority);
        Self(obligations)
    }

    /// Without which nothing new is served, most urgent first.
    pub(crate) fn musts(&self) -> impl Iterator<Item = &Obligation> {
        self.0.iter().filter(|obligation| obligation.must)
    }

    /// What is worth having.
    pub(crate) fn wants(&self) -> impl Iterator<Item = &Obligation> {
        self.0.iter().filter(|obligation| !obligation.must)
    }

    /// All of it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Obligation> {
        self.0.iter()
    }

    /// The releases that are pinned against eviction (promise 7).
    pub(crate) fn pinned(&self) -> BTreeSet<Digest> {
        self.musts().map(|obligation| obligation.entry.digest).collect()
    }
}

fn urgency(line: &Assignment, now: Instant) -> Priority {
    let near = line.deadline.is_some_and(|deadline| deadline.duration_since(now) < DEADLINE_NEAR);
    match line.mode {
        _ if near => Priority::Deadline,
        AssignmentMode::Required => Priority::Required,
        _ => Priority::Available,
    }
}

/// The approved release that comes before this one.
fn previous<'a>(network: &'a Network, entry: &CatalogueEntry) -> Option<&'a CatalogueEntry> {
    let listing = &entry.listing;
    network
        .catalogue
        .releases(&listing.name, &listing.platform)
        .rfind(|other| other.listing.sequence < listing.sequence)
}
