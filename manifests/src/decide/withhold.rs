//! What the brake does to decisions: it withholds, and nothing else (promise 2).
//!
//! Its key is on a server, so whoever takes that may write any brake. Decisions are therefore made as if there were none.
//! Only then is each change to a paused release taken back, and each change that no longer goes together with what stays:
//! the only thing that is ever done here is to keep a package as it is. So no brake can bring a release that would not have
//! come, or take one away.

use std::collections::BTreeMap;

use super::{Action, Decision, Reason, Situation};
use crate::brake::Pause;
use crate::deployment::Deployment;
use crate::names::{GroupName, PackageName};
use crate::release::Relation;

/// What there will be of a package.
struct Here<'s> {
    sequence: u64,
    requires: &'s [Relation],
    conflicts: &'s [Relation],
    /// True when a decision brings it.
    comes: bool,
}

impl Situation<'_> {
    /// Takes back what is paused, and what does not go together without it.
    pub(super) fn withhold(&self, decisions: &mut BTreeMap<PackageName, Decision>) {
        let mut withheld = false;
        for decision in decisions.values_mut() {
            let Some(reason) = decision.release().and_then(|entry| {
                let listing = &entry.listing;
                let pauses = self.brake.pauses(&listing.name, &listing.platform, listing.sequence);
                // What stopped it altogether says more than a ring that waits.
                let pause = pauses
                    .filter(|pause| self.is_meant_by(pause))
                    .min_by_key(|pause| pause.after.is_some())?;
                let (since, why) = (pause.since, pause.reason.clone());
                Some(Reason::Paused { sequence: listing.sequence, since, why })
            }) else {
                continue;
            };
            *decision = decision.clone().withheld(reason);
            withheld = true;
        }
        // What was decided goes together: only where some of it is withheld may the rest not.
        if !withheld {
            return;
        }
        // One change less each time round.
        while let Some((package, why)) = self.first_unfit(decisions) {
            let Some(decision) = decisions.get_mut(&package) else { break };
            *decision = decision.clone().withheld(Reason::Unresolvable { why });
        }
    }

    /// True when a pause is for this machine. A ring that nobody knows here holds everybody back.
    fn is_meant_by(&self, pause: &Pause) -> bool {
        let Deployment { groups, .. } = self.deployment;
        let is_after = |ring: &GroupName| {
            let assignments = self.deployment.assignments_of(self.machine);
            let assignment = assignments.get(&pause.package).map(|(_, assignment)| *assignment);
            let rollout = assignment.and_then(|assignment| self.deployment.rollout(assignment));
            rollout.is_none_or(|rollout| rollout.comes_after(self.machine, groups, &pause.package, ring))
        };
        pause.to.includes(self.machine, groups) && pause.after.as_ref().is_none_or(is_after)
    }

    /// A change that does not go together with the rest, and why. What was broken before is nobody's fault.
    fn first_unfit(&self, decisions: &BTreeMap<PackageName, Decision>) -> Option<(PackageName, String)> {
        let after: BTreeMap<&PackageName, Here<'_>> = decisions
            .iter()
            .filter_map(|(package, decision)| Some((package, self.after(package, decision)?)))
            .collect();
        let changes = |package: &PackageName| {
            decisions.get(package).is_some_and(|decision| decision.action != Action::Keep)
        };
        let required = |package: &PackageName, by: &[PackageName]| {
            let mut requirers = by.iter().filter_map(|by| after.get(by));
            requirers.any(|here| here.requires.iter().any(|relation| relation.package == *package))
        };
        for (package, decision) in decisions {
            if let (Some(_), Some(Reason::RequiredBy { by })) = (decision.release(), decision.reason())
                && !required(package, by)
            {
                return Some((package.clone(), "what requires it does not come now".to_owned()));
            }
        }
        for (package, here) in &after {
            let sequence = here.sequence;
            for relation in here.requires {
                let other = &relation.package;
                let fits = after.get(other).is_some_and(|other| relation.covers(other.sequence));
                if fits || !here.comes && !self.requirement_holds(relation) {
                    continue;
                }
                let culprit = if here.comes { *package } else { other };
                if changes(culprit) {
                    let why = format!(
                        "`{package}` release {sequence} requires {relation}, which is not to be had now"
                    );
                    return Some((culprit.clone(), why));
                }
            }
            for relation in here.conflicts {
                let Some(other) = after.get(&relation.package) else { continue };
                if !relation.covers(other.sequence) || !here.comes && !self.conflict_holds(relation) {
                    continue;
                }
                let culprit = if here.comes { *package } else { &relation.package };
                if changes(culprit) {
                    let (name, theirs) = (&relation.package, other.sequence);
                    let why = format!(
                        "`{package}` release {sequence} and `{name}` release {theirs} exclude each other"
                    );
                    return Some((culprit.clone(), why));
                }
            }
        }
        None
    }

    fn after<'s>(&'s self, package: &PackageName, decision: &'s Decision) -> Option<Here<'s>> {
        match &decision.action {
            Action::Install(entry) | Action::Update(entry) => {
                let listing = &entry.listing;
                let (requires, conflicts) = (&listing.requires, &listing.conflicts);
                Some(Here { sequence: listing.sequence, requires, conflicts, comes: true })
            }
            Action::Remove => None,
            Action::Keep => {
                let installed = self.state.installed.get(package)?;
                let (requires, conflicts) = (&installed.requires, &installed.conflicts);
                Some(Here { sequence: installed.sequence, requires, conflicts, comes: false })
            }
        }
    }

    /// True when a requirement of what is installed is met by what is installed.
    pub(super) fn requirement_holds(&self, relation: &Relation) -> bool {
        let other = self.state.installed.get(&relation.package);
        other.is_some_and(|other| relation.covers(other.sequence))
    }

    /// True when nothing is installed that this conflict is with.
    pub(super) fn conflict_holds(&self, relation: &Relation) -> bool {
        let other = self.state.installed.get(&relation.package);
        !other.is_some_and(|other| relation.covers(other.sequence))
    }
}
