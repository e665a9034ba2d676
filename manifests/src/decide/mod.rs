//! What a workstation should have of each package, and why.
//!
//! Pure: signed documents, what the machine is and has, and the time come in; for each package an action and every reason on
//! the way come out. It is the one source of `why`: whoever shows a reason shows one that was recorded here.
//!
//! ```text
//! assignment (the closest line) ─▶ which release (pin, newest, ring) ─▶ quarantine, held back: one by one
//!        ─▶ all together: requirements and conflicts (`together.rs`) ─▶ the brake withholds (`withhold.rs`)
//! ```
//!
//! Promise 2: the brake can only withhold. It comes last, and what it holds back is never replaced by another release: the
//! package stays as it is.

mod explain;
mod offers;
mod reason;
mod resolve;
mod together;
mod withhold;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::reason::{Asker, Reason};
pub use self::resolve::Unresolvable;
use self::together::Together;
use crate::brake::Brake;
use crate::catalogue::{Catalogue, CatalogueEntry};
use crate::deployment::{Assignment, AssignmentMode, Deployment, Machine, Track};
use crate::names::{PackageName, Platform};
use crate::release::Relation;
use crate::{Digest, Instant};

/// What the network says, and what the machine is and has: all that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The approved releases.
    pub catalogue: &'a Catalogue,
    /// What goes where.
    pub deployment: &'a Deployment,
    /// What must not start now.
    pub brake: &'a Brake,
    /// The machine.
    pub machine: &'a Machine,
    /// What it has.
    pub state: &'a MachineState,
    /// The time.
    pub now: Instant,
}

/// What a machine has, and what happened on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// What is installed.
    pub installed: BTreeMap<PackageName, InstalledRelease>,
    /// Who asked for what, and has it or is to get it.
    pub asked: BTreeMap<PackageName, Asker>,
    /// Sequences that somebody went back from.
    pub held: BTreeMap<PackageName, u64>,
    /// Releases that failed here.
    pub quarantine: BTreeMap<Digest, Quarantine>,
    /// Releases that somebody keeps here on purpose, for a time.
    pub kept: BTreeMap<PackageName, Keep>,
}

/// A release that somebody keeps on purpose: the one that a lesson was built on. Normal updates go on by themselves
/// afterwards; a deadline of the deployment does not wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The release.
    pub sequence: u64,
    /// Until when.
    pub until: Instant,
}

/// A release that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledRelease {
    /// Digest of its manifest.
    pub release: Digest,
    /// Its sequence.
    pub sequence: u64,
    /// What it requires.
    pub requires: Vec<Relation>,
    /// What it conflicts with.
    pub conflicts: Vec<Relation>,
    /// True when it is here only because another package requires it.
    pub automatic: bool,
}

/// Why a release is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// When it failed.
    pub since: Instant,
    /// What happened.
    pub why: String,
}

/// What is to become of a package here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Everything on the way; the last one decided.
    pub reasons: Vec<Reason>,
    /// Until when it must be done.
    pub deadline: Option<Instant>,
}

/// What to do about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Install this release; it is not here in any version.
    Install(CatalogueEntry),
    /// Go from the installed release to this one.
    Update(CatalogueEntry),
    /// Take it away.
    Remove,
    /// Leave it as it is.
    Keep,
}

impl Decision {
    /// The reason that decided.
    pub fn reason(&self) -> Option<&Reason> {
        self.reasons.last()
    }

    /// The release to activate, if one is.
    pub fn release(&self) -> Option<&CatalogueEntry> {
        match &self.action {
            Action::Install(entry) | Action::Update(entry) => Some(entry),
            Action::Remove | Action::Keep => None,
        }
    }

    /// True when the package comes, or is still here, only because another requires it.
    pub fn comes_along(&self) -> bool {
        matches!(self.reason(), Some(Reason::RequiredBy { .. }))
    }

    /// The change taken back: the package stays as it is.
    fn withheld(self, reason: Reason) -> Self {
        Self::keep(self.reasons, reason)
    }

    fn keep(mut reasons: Vec<Reason>, reason: Reason) -> Self {
        reasons.push(reason);
        Self { action: Action::Keep, reasons, deadline: None }
    }
}

impl<'a> Situation<'a> {
    /// What to do about every package that is deployed here, installed, or asked for; each by itself and all together.
    pub fn decide(&self) -> BTreeMap<PackageName, Decision> {
        let assignments = self.deployment.assignments_of(self.machine);
        let counts = self.lines_by_package();
        let installed = self.state.installed.keys();
        let packages: BTreeSet<&PackageName> =
            assignments.keys().copied().chain(installed).chain(self.state.asked.keys()).collect();
        let mut decisions = BTreeMap::new();
        for package in packages {
            let assignment = assignments.get(package).map(|(_, assignment)| *assignment);
            let lines = counts.get(package).copied().unwrap_or(0);
            decisions.insert(package.clone(), self.decide_one(package, assignment, lines));
        }
        let mut decisions = Together::new(self, &assignments, decisions).decide();
        self.withhold(&mut decisions);
        decisions
    }

    /// How many lines of the deployment are about each package and this machine.
    fn lines_by_package(&self) -> BTreeMap<&'a PackageName, usize> {
        let mut counts = BTreeMap::new();
        for assignment in &self.deployment.assignments {
            if assignment.to.includes(self.machine, &self.deployment.groups) {
                *counts.entry(&assignment.package).or_insert(0) += 1;
            }
        }
        counts
    }

    /// One package by itself.
    fn decide_one(&self, package: &PackageName, assignment: Option<&Assignment>, lines: usize) -> Decision {
        let mut reasons = Vec::new();
        let Some(assignment) = assignment else {
            let college = self.machine.college.clone();
            return Decision::keep(reasons, Reason::NotDeployed { college });
        };
        let Assignment { to, mode, track, .. } = assignment;
        reasons.push(Reason::Assigned { to: Box::new(to.clone()), mode: *mode, track: track.clone() });
        if lines > 1 {
            reasons.push(Reason::Overrules { others: lines - 1 });
        }
        let installed = self.state.installed.get(package);
        let asker = self.state.asked.get(package).copied();
        match mode {
            AssignmentMode::Removed if installed.is_some() => {
                reasons.push(Reason::TakenAway);
                return Decision { action: Action::Remove, reasons, deadline: assignment.deadline };
            }
            AssignmentMode::Removed | AssignmentMode::Blocked => {
                return Decision::keep(reasons, Reason::Blocked);
            }
            AssignmentMode::AvailableToTeachers if installed.is_none() && asker == Some(Asker::Anyone) => {
                return Decision::keep(reasons, Reason::TeachersOnly { asker: Asker::Anyone });
            }
            AssignmentMode::Available | AssignmentMode::AvailableToTeachers
                if asker.is_none() && installed.is_none_or(|installed| installed.automatic) =>
            {
                return Decision::keep(reasons, Reason::OnlyOffered);
            }
            AssignmentMode::Required | AssignmentMode::Available | AssignmentMode::AvailableToTeachers => {}
        }
        if asker.is_some() && *mode != AssignmentMode::Required {
            reasons.push(Reason::AskedFor);
        }
        let entry = match self.target(package, assignment, installed, &mut reasons) {
            Ok(entry) => self.kept(package, assignment, entry, &mut reasons).unwrap_or(entry),
            Err(reason) => return Decision::keep(reasons, reason),
        };
        self.judge(package, entry, installed, assignment, reasons)
    }

    /// The release that `assignment` means here.
    fn target(
        &self,
        package: &PackageName,
        assignment: &Assignment,
        installed: Option<&InstalledRelease>,
        reasons: &mut Vec<Reason>,
    ) -> Result<&'a CatalogueEntry, Reason> {
        let platform = self.machine.platform.clone();
        let (track, now) = (&assignment.track, self.now);
        if let Some(sequence) = track.pinned(now) {
            let entry = self.approved(package, sequence);
            return entry.ok_or(Reason::NotApproved { sequence, platform });
        }
        if let Track::Pinned { sequence, until: Some(until), .. } = track {
            reasons.push(Reason::PinEnded { sequence: *sequence, until: *until });
        }
        let mut newest = self.newest_first(package).into_iter().peekable();
        let Some(first) = newest.peek().copied() else { return Err(Reason::NoRelease { platform }) };
        let Some(rollout) = self.deployment.rollout(assignment) else { return Ok(first) };
        let mut closed = None;
        for entry in newest {
            let sequence = entry.listing.sequence;
            let start = Deployment::start_of(assignment, entry);
            let place = rollout.place(self.machine, &self.deployment.groups, package, start);
            let here = installed.map(|installed| installed.sequence);
            if closed.is_some() && here.is_some_and(|here| here >= sequence) {
                break;
            }
            // A ring keeps a release from coming, not from being here.
            if place.opens <= now || here == Some(sequence) {
                // What a later ring waits for is said, although an earlier release goes meanwhile.
                reasons.extend(closed);
                if let Some(ring) = place.ring.filter(|_| place.opens <= now) {
                    let ring = ring.to_string();
                    reasons.push(Reason::RingOpen { sequence, ring, opens: place.opens });
                }
                return Ok(entry);
            }
            let ring = place.ring.cloned();
            closed.get_or_insert(Reason::RingClosed { sequence, ring, opens: place.opens });
        }
        Err(closed.unwrap_or(Reason::NoRelease { platform }))
    }

    /// The release that somebody keeps here in place of `meant`: never a newer one, so that no ring is jumped, and none against
    /// a pin or beyond a deadline of the deployment.
    fn kept(
        &self,
        package: &PackageName,
        assignment: &Assignment,
        meant: &CatalogueEntry,
        reasons: &mut Vec<Reason>,
    ) -> Option<&'a CatalogueEntry> {
        let Keep { sequence, until } = *self.state.kept.get(package)?;
        let overruled = assignment.track.pinned(self.now).is_some()
            || assignment.deadline.is_some_and(|deadline| deadline <= self.now);
        if until <= self.now || overruled || sequence >= meant.listing.sequence {
            return None;
        }
        let entry = self.approved(package, sequence)?;
        reasons.push(Reason::KeptOnPurpose { sequence, until, newest: meant.listing.version.clone() });
        Some(entry)
    }

    /// Whether the release that is meant may come now.
    fn judge(
        &self,
        package: &PackageName,
        entry: &CatalogueEntry,
        installed: Option<&InstalledRelease>,
        assignment: &Assignment,
        mut reasons: Vec<Reason>,
    ) -> Decision {
        let (sequence, version) = (entry.listing.sequence, entry.listing.version.clone());
        reasons.push(Reason::Target { sequence, version });
        if installed.is_some_and(|installed| installed.release == entry.digest) {
            return Decision::keep(reasons, Reason::UpToDate);
        }
        if let Some(failed) = self.state.quarantine.get(&entry.digest) {
            let (since, why) = (failed.since, failed.why.clone());
            return Decision::keep(reasons, Reason::Quarantined { sequence, since, why });
        }
        if self.state.held.get(package) == Some(&sequence) && !self.keeps(package, sequence) {
            return Decision::keep(reasons, Reason::HeldBack { sequence });
        }
        let deadline = assignment.deadline;
        reasons.extend(deadline.map(|deadline| Reason::Deadline { deadline }));
        match installed.map(|installed| installed.sequence) {
            None => {
                reasons.push(Reason::Missing);
                Decision { action: Action::Install(entry.clone()), reasons, deadline }
            }
            Some(installed)
                if installed > sequence
                    && assignment.track.pinned(self.now).is_none()
                    && !self.keeps(package, sequence) =>
            {
                Decision::keep(reasons, Reason::Older { installed, target: sequence })
            }
            Some(installed) => {
                reasons.push(Reason::OtherInstalled { installed });
                Decision { action: Action::Update(entry.clone()), reasons, deadline }
            }
        }
    }

    /// True when somebody keeps this release here now.
    fn keeps(&self, package: &PackageName, sequence: u64) -> bool {
        self.state.kept.get(package).is_some_and(|keep| keep.sequence == sequence && self.now < keep.until)
    }

    /// The approved release with this sequence that runs here: one for exactly this platform before one for all.
    fn approved(&self, package: &PackageName, sequence: u64) -> Option<&'a CatalogueEntry> {
        [&self.machine.platform, &Platform::any()]
            .into_iter()
            .find_map(|platform| self.catalogue.get(package, platform, sequence))
    }

    /// The approved releases that run here, the newest first.
    fn newest_first(&self, package: &PackageName) -> Vec<&'a CatalogueEntry> {
        let mut entries: BTreeMap<u64, &CatalogueEntry> = BTreeMap::new();
        for platform in [&Platform::any(), &self.machine.platform] {
            entries.extend(
                self.catalogue.releases(package, platform).map(|entry| (entry.listing.sequence, entry)),
            );
        }
        entries.into_values().rev().collect()
    }
}

#[cfg(test)]
mod tests;
