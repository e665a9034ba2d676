//! What a workstation should have of each package, and why.
//!
//! Pure: signed documents, what the machine is and has, and the time come in; for each package an action and every reason on
//! the way come out. It is the one source of `why`: whoever shows a reason shows one that was recorded here.
//!
//! ```text
//! assignment (the closest line) ─▶ which release (pin, newest, ring) ─▶ brake, quarantine, held ─▶ one by one
//!                                                    ─▶ together: requirements and conflicts (`resolve.rs`)
//! ```
//!
//! Promise 2: the brake can only withhold. What it holds back is never replaced by another release: the package stays as it
//! is.

mod reason;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::reason::{Asker, Reason};
pub use self::resolve::{Candidate, Unresolvable, resolve};
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
        self.bring_together(&mut decisions);
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
        reasons.push(Reason::Assigned { to: to.clone(), mode: *mode, track: track.clone() });
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
                if installed.is_none() && asker.is_none() =>
            {
                return Decision::keep(reasons, Reason::OnlyOffered);
            }
            AssignmentMode::Required | AssignmentMode::Available | AssignmentMode::AvailableToTeachers => {}
        }
        if asker.is_some() && *mode != AssignmentMode::Required {
            reasons.push(Reason::AskedFor);
        }
        let entry = match self.target(package, assignment, installed, &mut reasons) {
            Ok(entry) => entry,
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
            if installed.is_some_and(|installed| installed.sequence >= sequence) && closed.is_some() {
                break;
            }
            if place.opens <= now {
                // What a later ring waits for is said, although an earlier release goes meanwhile.
                reasons.extend(closed);
                if let Some(ring) = place.ring {
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
        if let Some(reason) = self.withheld(entry) {
            return Decision::keep(reasons, reason);
        }
        if self.state.held.get(package) == Some(&sequence) {
            return Decision::keep(reasons, Reason::HeldBack { sequence });
        }
        let deadline = assignment.deadline;
        reasons.extend(deadline.map(|deadline| Reason::Deadline { deadline }));
        match installed.map(|installed| installed.sequence) {
            None => {
                reasons.push(Reason::Missing);
                Decision { action: Action::Install(entry.clone()), reasons, deadline }
            }
            Some(installed) if installed > sequence && assignment.track.pinned(self.now).is_none() => {
                Decision::keep(reasons, Reason::Older { installed, target: sequence })
            }
            Some(installed) => {
                reasons.push(Reason::OtherInstalled { installed });
                Decision { action: Action::Update(entry.clone()), reasons, deadline }
            }
        }
    }

    /// Why a release must not start here now, if it must not: the brake, or its own failure.
    fn withheld(&self, entry: &CatalogueEntry) -> Option<Reason> {
        let listing = &entry.listing;
        let sequence = listing.sequence;
        if let Some(pause) = self.brake.holds_back(&listing.name, &listing.platform, sequence) {
            return Some(Reason::Paused { sequence, since: pause.since, why: pause.reason.clone() });
        }
        let failed = self.state.quarantine.get(&entry.digest)?;
        Some(Reason::Quarantined { sequence, since: failed.since, why: failed.why.clone() })
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

    /// All together: what is required comes along, what conflicts stays away, what nobody requires any more goes.
    fn bring_together(&self, decisions: &mut BTreeMap<PackageName, Decision>) {
        if !self.has_relations(decisions) {
            return;
        }
        let after = |decisions: &BTreeMap<PackageName, Decision>| -> BTreeMap<PackageName, u64> {
            let stays = |package: &PackageName| {
                let installed = self.state.installed.get(package)?;
                (!installed.automatic).then_some(installed.sequence)
            };
            decisions
                .iter()
                .filter_map(|(package, decision)| match &decision.action {
                    Action::Install(entry) | Action::Update(entry) => {
                        Some((package.clone(), entry.listing.sequence))
                    }
                    Action::Remove => None,
                    Action::Keep => stays(package).map(|sequence| (package.clone(), sequence)),
                })
                .collect()
        };
        let wanted = after(decisions);
        let whole = match self.resolve(&wanted) {
            Ok(whole) => whole,
            Err(_) => self.without_what_does_not_fit(decisions, &after),
        };
        self.add_required(decisions, &whole);
        self.drop_unneeded(decisions, &whole);
    }

    /// True when anything that is here or comes says something about another package: otherwise there is nothing to solve.
    fn has_relations(&self, decisions: &BTreeMap<PackageName, Decision>) -> bool {
        let says =
            |requires: &[Relation], conflicts: &[Relation]| !requires.is_empty() || !conflicts.is_empty();
        self.state
            .installed
            .values()
            .any(|installed| installed.automatic || says(&installed.requires, &installed.conflicts))
            || decisions
                .values()
                .filter_map(Decision::release)
                .any(|entry| says(&entry.listing.requires, &entry.listing.conflicts))
    }

    /// Takes the changes one at a time, the required ones first, and leaves out each with which the rest does not go
    /// together.
    fn without_what_does_not_fit(
        &self,
        decisions: &mut BTreeMap<PackageName, Decision>,
        after: &dyn Fn(&BTreeMap<PackageName, Decision>) -> BTreeMap<PackageName, u64>,
    ) -> BTreeMap<PackageName, u64> {
        let mut taken: BTreeMap<PackageName, Decision> = decisions.clone();
        for decision in taken.values_mut() {
            decision.action = Action::Keep;
        }
        let required = |package: &PackageName| !self.state.asked.contains_key(package);
        let mut order: Vec<PackageName> = decisions.keys().cloned().collect();
        order.sort_by_key(|package| !required(package));
        // What is here already goes together, or did when it came.
        let mut whole = after(&taken);
        for package in order {
            let Some(decision) = decisions.get_mut(&package) else { continue };
            if decision.action == Action::Keep {
                continue;
            }
            let Some(tried) = taken.get_mut(&package) else { continue };
            tried.action = decision.action.clone();
            match self.resolve(&after(&taken)) {
                Ok(solved) => whole = solved,
                Err(unresolvable) => {
                    if let Some(tried) = taken.get_mut(&package) {
                        tried.action = Action::Keep;
                    }
                    decision.action = Action::Keep;
                    decision.deadline = None;
                    decision.reasons.push(Reason::Unresolvable { why: unresolvable.to_string() });
                }
            }
        }
        whole
    }

    fn resolve(
        &self,
        wanted: &BTreeMap<PackageName, u64>,
    ) -> Result<BTreeMap<PackageName, u64>, Unresolvable> {
        resolve(wanted, &|package| self.candidates(package, wanted.get(package).copied()))
    }

    /// The releases of a package that may be here after this, the best first: what is wanted or here, then the newest that
    /// nothing withholds, in the order that an update would take them.
    fn candidates(&self, package: &PackageName, wanted: Option<u64>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        if let Some(installed) = self.state.installed.get(package)
            && wanted.is_none_or(|wanted| wanted == installed.sequence)
        {
            candidates.push(Candidate {
                sequence: installed.sequence,
                requires: installed.requires.clone(),
                conflicts: installed.conflicts.clone(),
            });
        }
        let blocked = self.deployment.assignment(package, self.machine).is_some_and(|(_, assignment)| {
            matches!(assignment.mode, AssignmentMode::Blocked | AssignmentMode::Removed)
        });
        let pinned = self.deployment.assignment(package, self.machine);
        let pinned = pinned.and_then(|(_, assignment)| assignment.track.pinned(self.now));
        for entry in self.newest_first(package) {
            let sequence = entry.listing.sequence;
            let meant = match wanted {
                Some(wanted) => wanted == sequence,
                None => {
                    !blocked
                        && pinned.is_none_or(|pinned| pinned == sequence)
                        && self.withheld(entry).is_none()
                }
            };
            if meant && !candidates.iter().any(|known| known.sequence == sequence) {
                candidates.push(Candidate {
                    sequence,
                    requires: entry.listing.requires.clone(),
                    conflicts: entry.listing.conflicts.clone(),
                });
            }
        }
        candidates
    }

    /// What the solution has beyond what was decided comes along.
    fn add_required(
        &self,
        decisions: &mut BTreeMap<PackageName, Decision>,
        whole: &BTreeMap<PackageName, u64>,
    ) {
        for (package, sequence) in whole {
            let installed = self.state.installed.get(package).map(|installed| installed.sequence);
            let decided = decisions.get(package).and_then(Decision::release);
            let here = decided.map(|entry| entry.listing.sequence).or(installed);
            if here == Some(*sequence) {
                continue;
            }
            let Some(entry) = self.approved(package, *sequence) else { continue };
            let mut reasons = decisions.remove(package).map_or_else(Vec::new, |decision| decision.reasons);
            reasons.push(Reason::RequiredBy { by: self.requirers(package, whole) });
            let action = match installed {
                Some(_) => Action::Update(entry.clone()),
                None => Action::Install(entry.clone()),
            };
            decisions.insert(package.clone(), Decision { action, reasons, deadline: None });
        }
    }

    /// What came only because another package required it goes when none does.
    fn drop_unneeded(
        &self,
        decisions: &mut BTreeMap<PackageName, Decision>,
        whole: &BTreeMap<PackageName, u64>,
    ) {
        for (package, _) in self.state.installed.iter().filter(|(_, installed)| installed.automatic) {
            let wanted = decisions.get(package).is_some_and(|decision| decision.release().is_some());
            if !wanted && !whole.contains_key(package) && !self.state.asked.contains_key(package) {
                let decision = Decision {
                    action: Action::Remove,
                    reasons: vec![Reason::NoLongerRequired],
                    deadline: None,
                };
                decisions.insert(package.clone(), decision);
            }
        }
    }

    fn requirers(&self, package: &PackageName, whole: &BTreeMap<PackageName, u64>) -> Vec<PackageName> {
        let requires = |(other, sequence): &(&PackageName, &u64)| {
            self.candidates(other, Some(**sequence))
                .iter()
                .any(|candidate| candidate.requires.iter().any(|relation| relation.package == *package))
        };
        whole.iter().filter(requires).map(|(other, _)| other.clone()).collect()
    }
}
