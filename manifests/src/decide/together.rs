//! All packages together: what is required comes along, what conflicts stays away, what nobody requires any more goes.
//!
//! Begins with the decisions about each package by itself. Where they do not go together, the least important change that
//! has a part in it is left out, until the rest goes together; what is here already never has to change for that.
//!
//! What comes along follows its own line of the deployment, if it has one: its pin, its rings, and that it is blocked. It
//! is never older than what is here, unless a pin says so.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::resolve::{Candidate, Unresolvable, resolve};
use super::{Action, Decision, InstalledRelease, Reason, Situation};
use crate::Digest;
use crate::catalogue::CatalogueEntry;
use crate::deployment::{Assignment, AssignmentMode};
use crate::names::PackageName;
use crate::release::Relation;

type Assignments<'a> = BTreeMap<&'a PackageName, (usize, &'a Assignment)>;

/// The decisions about all packages, on their way to go together.
pub(super) struct Together<'s, 'a> {
    situation: &'s Situation<'a>,
    assignments: &'s Assignments<'a>,
    decisions: BTreeMap<PackageName, Decision>,
    /// What the college's node holds, once somebody wants to know: nothing else can come along.
    owed: OnceCell<BTreeSet<Digest>>,
    /// True once relations that are broken here already are no condition any more.
    lenient: bool,
}

impl<'s, 'a> Together<'s, 'a> {
    pub(super) fn new(
        situation: &'s Situation<'a>,
        assignments: &'s Assignments<'a>,
        decisions: BTreeMap<PackageName, Decision>,
    ) -> Self {
        Self { situation, assignments, decisions, owed: OnceCell::new(), lenient: false }
    }

    /// The decisions, so that they go together.
    pub(super) fn decide(mut self) -> BTreeMap<PackageName, Decision> {
        if self.has_relations() {
            let whole = self.solve();
            self.add_required(&whole);
            self.drop_unneeded(&whole);
        }
        self.decisions
    }

    /// True when anything that is here or comes says something about another package: otherwise there is nothing to solve.
    fn has_relations(&self) -> bool {
        let says =
            |requires: &[Relation], conflicts: &[Relation]| !requires.is_empty() || !conflicts.is_empty();
        let mut installed = self.situation.state.installed.values();
        let mut coming = self.decisions.values().filter_map(Decision::release);
        installed.any(|release| release.automatic || says(&release.requires, &release.conflicts))
            || coming.any(|entry| says(&entry.listing.requires, &entry.listing.conflicts))
    }

    /// Leaves out what does not go together with the rest. Returns the release of every package that there will be.
    fn solve(&mut self) -> BTreeMap<PackageName, u64> {
        let mut left_out = Vec::new();
        let mut whole = loop {
            let unresolvable = match self.resolve() {
                Ok(whole) => break whole,
                Err(unresolvable) => unresolvable,
            };
            match self.least_important(&unresolvable) {
                Some((package, decision)) => {
                    let kept = decision.clone().withheld(Reason::Unresolvable { why: unresolvable.why });
                    left_out.extend(
                        self.decisions.insert(package.clone(), kept).map(|decision| (package, decision)),
                    );
                }
                None if !self.lenient => self.lenient = true,
                // Cannot be: apart from changes, there is only what is here, and what holds among it.
                None => {
                    let installed = self.situation.state.installed.iter();
                    break installed.map(|(name, release)| (name.clone(), release.sequence)).collect();
                }
            }
        };
        // What was left out for the sake of something that was left out later may fit now.
        for (package, decision) in left_out {
            let Some(kept) = self.decisions.insert(package.clone(), decision) else { continue };
            match self.resolve() {
                Ok(solved) => whole = solved,
                Err(_) => {
                    self.decisions.insert(package, kept);
                }
            }
        }
        whole
    }

    /// Of the changes that have a part in it, the one to leave out: one that somebody asked for before one that is required
    /// here, and that before what is taken away.
    fn least_important(&self, unresolvable: &Unresolvable) -> Option<(PackageName, &Decision)> {
        let importance = |package: &PackageName, decision: &Decision| match decision.action {
            Action::Remove => 2,
            _ if self.mode(package) == Some(AssignmentMode::Required) => 1,
            _ => 0,
        };
        unresolvable
            .packages
            .iter()
            .filter_map(|package| Some((package.clone(), self.decisions.get(package)?)))
            .filter(|(_, decision)| decision.action != Action::Keep)
            .max_by_key(|(package, decision)| (Reverse(importance(package, decision)), package.clone()))
    }

    fn resolve(&self) -> Result<BTreeMap<PackageName, u64>, Unresolvable> {
        let wanted = self.decisions.iter().filter_map(|(package, decision)| {
            let sequence = match &decision.action {
                Action::Install(entry) | Action::Update(entry) => entry.listing.sequence,
                Action::Remove => return None,
                Action::Keep => self.stays(package)?.sequence,
            };
            Some((package.clone(), sequence))
        });
        resolve(&wanted.collect(), &|package| self.candidates(package))
    }

    /// What is installed of a package and is there in its own right, if it is.
    fn stays(&self, package: &PackageName) -> Option<&'a InstalledRelease> {
        let state = self.situation.state;
        let installed = state.installed.get(package)?;
        let own = !installed.automatic
            || state.asked.contains_key(package)
            || self.mode(package) == Some(AssignmentMode::Required);
        own.then_some(installed)
    }

    /// The releases of a package that may be here after this, the best first.
    fn candidates(&self, package: &PackageName) -> Vec<Candidate> {
        match self.decisions.get(package).map(|decision| &decision.action) {
            Some(Action::Install(entry) | Action::Update(entry)) => return vec![approved(entry)],
            Some(Action::Remove) => return Vec::new(),
            Some(Action::Keep) | None => {}
        }
        if let Some(installed) = self.stays(package) {
            return vec![self.as_it_is(package, installed)];
        }
        let coming = self.may_come_along(package).into_iter().map(approved);
        let installed = self.situation.state.installed.get(package);
        coming.chain(installed.map(|installed| self.as_it_is(package, installed))).collect()
    }

    /// The approved releases of a package that may come because another package requires it, the best first.
    fn may_come_along(&self, package: &PackageName) -> Vec<&'a CatalogueEntry> {
        let Situation { catalogue, deployment, state, machine, now, .. } = *self.situation;
        let assignment = self.assignments.get(package).map(|(_, assignment)| *assignment);
        if assignment.is_some_and(|assignment| !assignment.mode.gives()) {
            return Vec::new();
        }
        let pinned = assignment.and_then(|assignment| assignment.track.pinned(now));
        let installed = state.installed.get(package);
        let rollout = assignment.and_then(|assignment| Some((assignment, deployment.rollout(assignment)?)));
        let mut entries = self.situation.newest_first(package);
        let owed = self.owed.get_or_init(|| {
            let owed = deployment.owed(catalogue, &machine.college, now);
            owed.into_iter().map(|entry| entry.digest).collect()
        });
        entries.retain(|entry| {
            let sequence = entry.listing.sequence;
            let meant = match (pinned, rollout) {
                (Some(pinned), _) => pinned == sequence,
                (None, Some((assignment, rollout))) => {
                    let start = crate::deployment::Deployment::start_of(assignment, entry);
                    rollout.place(machine, &deployment.groups, package, start).opens <= now
                }
                (None, None) => true,
            };
            let older = installed.is_some_and(|installed| sequence <= installed.sequence);
            meant
                && owed.contains(&entry.digest)
                && (pinned.is_some() || !older)
                && installed.is_none_or(|installed| sequence != installed.sequence)
                && state.held.get(package) != Some(&sequence)
                && !state.quarantine.contains_key(&entry.digest)
        });
        entries
    }

    /// What is here, with its relations as conditions: of a package that is not deployed any more, those that hold.
    fn as_it_is(&self, package: &PackageName, installed: &InstalledRelease) -> Candidate {
        let strict = !self.lenient && self.assignments.contains_key(package);
        let hold = |relation: &&Relation| strict || self.situation.requirement_holds(relation);
        let apart = |relation: &&Relation| strict || self.situation.conflict_holds(relation);
        Candidate {
            sequence: installed.sequence,
            requires: installed.requires.iter().filter(hold).cloned().collect(),
            conflicts: installed.conflicts.iter().filter(apart).cloned().collect(),
        }
    }

    /// What the solution has beyond what was decided comes along; what is here for that reason says so.
    fn add_required(&mut self, whole: &BTreeMap<PackageName, u64>) {
        let mut requirers: BTreeMap<PackageName, Vec<PackageName>> = BTreeMap::new();
        for (by, sequence) in whole {
            let candidates = self.candidates(by);
            let Some(chosen) = candidates.into_iter().find(|candidate| candidate.sequence == *sequence)
            else {
                continue;
            };
            for relation in chosen.requires {
                let known = requirers.entry(relation.package).or_default();
                if known.last() != Some(by) {
                    known.push(by.clone());
                }
            }
        }
        for (package, sequence) in whole {
            let decided = self.decisions.get(package).and_then(Decision::release);
            if decided.is_some() || self.stays(package).is_some() {
                continue;
            }
            let installed = self.situation.state.installed.get(package);
            let action = if installed.is_some_and(|installed| installed.sequence == *sequence) {
                Action::Keep
            } else {
                let Some(entry) = self.situation.approved(package, *sequence) else { continue };
                match installed {
                    Some(_) => Action::Update(entry.clone()),
                    None => Action::Install(entry.clone()),
                }
            };
            let mut reasons =
                self.decisions.remove(package).map_or_else(Vec::new, |decision| decision.reasons);
            reasons.push(Reason::RequiredBy { by: requirers.remove(package).unwrap_or_default() });
            self.decisions.insert(package.clone(), Decision { action, reasons, deadline: None });
        }
    }

    /// What came only because another package required it goes when none does.
    fn drop_unneeded(&mut self, whole: &BTreeMap<PackageName, u64>) {
        let installed = self.situation.state.installed.iter().filter(|(_, installed)| installed.automatic);
        for (package, _) in installed.filter(|(package, _)| !whole.contains_key(*package)) {
            let Some(decision) = self.decisions.get_mut(package) else { continue };
            if decision.action == Action::Keep {
                decision.action = Action::Remove;
                decision.reasons.push(Reason::NoLongerRequired);
            }
        }
    }

    fn mode(&self, package: &PackageName) -> Option<AssignmentMode> {
        self.assignments.get(package).map(|(_, assignment)| assignment.mode)
    }
}

fn approved(entry: &CatalogueEntry) -> Candidate {
    let listing = &entry.listing;
    Candidate {
        sequence: listing.sequence,
        requires: listing.requires.clone(),
        conflicts: listing.conflicts.clone(),
    }
}
