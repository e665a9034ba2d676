//! What a command would do, decided before anything is done: it prints, it dry-runs, and it is what gets executed.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_manifests::{Action, CatalogueEntry, Decision, Listing, PackageName, Reason};
use mirabelle_terminal::Failure;
use serde::Serialize;

use crate::generation::Generation;

/// The way from the current generation to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstallPlan {
    /// Releases to activate, in place of what is installed of the package.
    pub(crate) activate: BTreeMap<PackageName, Activation>,
    /// Packages to take away, and why.
    pub(crate) remove: BTreeMap<PackageName, Vec<Reason>>,
    /// Packages that stay as they are, and why.
    pub(crate) kept: BTreeMap<PackageName, Vec<Reason>>,
}

/// A release that is to become active.
#[derive(Clone, Debug)]
pub(crate) struct Activation {
    pub(crate) entry: CatalogueEntry,
    /// Why it comes.
    pub(crate) reasons: Vec<Reason>,
}

impl Activation {
    /// True when it comes only because other packages require it.
    pub(crate) fn is_automatic(&self) -> bool {
        let assigned = self.reasons.iter().any(|reason| {
            matches!(reason, Reason::Missing | Reason::OtherInstalled { .. } | Reason::AskedFor)
        });
        !assigned
    }

    /// True when it requires `package`, or cannot be beside it.
    fn names(&self, package: &PackageName) -> bool {
        let Listing { requires, conflicts, .. } = &self.entry.listing;
        requires.iter().chain(conflicts).any(|relation| relation.package == *package)
    }

    fn required_by(&self) -> &[PackageName] {
        match self.reasons.last() {
            Some(Reason::RequiredBy { by }) => by,
            _ => &[],
        }
    }
}

/// A plan as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    install: Vec<String>,
    update: Vec<String>,
    remove: Vec<String>,
    kept: BTreeMap<PackageName, String>,
}

impl InstallPlan {
    /// The plan that follows all decisions.
    pub(crate) fn of(decisions: BTreeMap<PackageName, Decision>) -> Self {
        let mut plan = Self::default();
        for (package, Decision { action, reasons, .. }) in decisions {
            match action {
                Action::Install(entry) | Action::Update(entry) => {
                    plan.activate.insert(package, Activation { entry, reasons });
                }
                Action::Remove => {
                    plan.remove.insert(package, reasons);
                }
                Action::Keep => {
                    plan.kept.insert(package, reasons);
                }
            }
        }
        plan
    }

    /// The part of it that is about these packages, and about those that go together or apart with them: the whole was
    /// decided so that all of it fits, and a part fits when nothing left out has to do with what is in it.
    pub(crate) fn only(mut self, packages: &BTreeSet<PackageName>) -> Self {
        let mut chosen = packages.clone();
        loop {
            let changed = self.activate.keys().chain(self.remove.keys());
            let related: Vec<PackageName> = changed
                .filter(|package| !chosen.contains(*package))
                .filter(|package| chosen.iter().any(|known| self.relates(known, package)))
                .cloned()
                .collect();
            if related.is_empty() {
                break;
            }
            chosen.extend(related);
        }
        self.activate.retain(|package, _| chosen.contains(package));
        self.remove.retain(|package, _| chosen.contains(package));
        self.kept.retain(|package, _| chosen.contains(package));
        self
    }

    /// True when `package`, which changes, cannot be left out where `chosen` is in: it comes for its sake, or both change and
    /// one names the other.
    fn relates(&self, chosen: &PackageName, package: &PackageName) -> bool {
        let names = |by: &PackageName, other: &PackageName| {
            self.activate.get(by).is_some_and(|activation| activation.names(other))
        };
        let changes = self.activate.contains_key(chosen) || self.remove.contains_key(chosen);
        let for_its_sake =
            self.activate.get(package).is_some_and(|activation| activation.required_by().contains(chosen));
        for_its_sake || names(chosen, package) || (changes && names(package, chosen))
    }

    /// Refuses the whole when one of the packages that a person asked for may not be had.
    pub(crate) fn refuse_unless(&self, asked: &BTreeSet<PackageName>) -> Result<(), Failure> {
        for package in asked {
            if self.activate.contains_key(package) {
                continue;
            }
            let reason = self
                .kept
                .get(package)
                .or_else(|| self.remove.get(package))
                .and_then(|reasons| reasons.last());
            match reason {
                Some(Reason::UpToDate) => {}
                Some(reason) => {
                    return Err(
                        Failure::no(format!("cannot install `{package}`: {reason}")).hint(advice(reason))
                    );
                }
                None => return Err(Failure::no(format!("`{package}` is not in the catalogue"))),
            }
        }
        Ok(())
    }

    /// The plan that takes packages away, and what came only for their sake.
    pub(crate) fn for_remove(
        current: &Generation,
        packages: &BTreeSet<PackageName>,
    ) -> Result<Self, Failure> {
        if let Some(missing) = packages.iter().find(|package| !current.packages.contains_key(*package)) {
            return Err(Failure::no(format!("`{missing}` is not installed")));
        }
        let mut gone = packages.clone();
        let requires = |by: &PackageName, package: &PackageName| {
            current
                .packages
                .get(by)
                .is_some_and(|by| by.requires.iter().any(|relation| relation.package == *package))
        };
        for (package, _) in current.packages.iter().filter(|(package, _)| !gone.contains(*package)) {
            if let Some(needed) = gone.iter().find(|needed| requires(package, needed)) {
                return Err(Failure::no(format!("cannot remove `{needed}`: `{package}` requires it"))
                    .hint(format!("remove `{package}` first, or both at once")));
            }
        }
        loop {
            let unneeded = current.packages.iter().find(|(package, installed)| {
                installed.automatic
                    && !gone.contains(*package)
                    && !current.packages.keys().any(|by| !gone.contains(by) && requires(by, package))
            });
            let Some((package, _)) = unneeded else { break };
            gone.insert(package.clone());
        }
        let why = |package: &PackageName| {
            if packages.contains(package) { vec![Reason::AskedFor] } else { vec![Reason::NoLongerRequired] }
        };
        let remove = gone.into_iter().map(|package| (package.clone(), why(&package))).collect();
        Ok(Self { remove, ..Self::default() })
    }

    /// True when there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.activate.is_empty() && self.remove.is_empty()
    }

    /// The plan in words.
    pub(crate) fn show(&self, current: &Generation) -> Shown {
        let mut shown =
            Shown { install: Vec::new(), update: Vec::new(), remove: Vec::new(), kept: BTreeMap::new() };
        for (package, Activation { entry, .. }) in &self.activate {
            match current.packages.get(package) {
                Some(installed) => {
                    shown.update.push(format!("{package} {} → {}", installed.version, entry.listing.version));
                }
                None => shown.install.push(format!("{package} {}", entry.listing.version)),
            }
        }
        shown.remove = self.remove.keys().map(ToString::to_string).collect();
        shown.kept = self
            .kept
            .iter()
            .filter_map(|(package, reasons)| Some((package.clone(), reasons.last()?.to_string())))
            .collect();
        shown
    }
}

/// Who can do what about a "no".
pub(crate) fn advice(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotDeployed { .. }
        | Reason::OnlyOffered
        | Reason::Blocked
        | Reason::TakenAway
        | Reason::TeachersOnly { .. } => "the département's operators deploy software to colleges",
        Reason::NoRelease { .. } => "it does not run on this workstation",
        Reason::NotApproved { .. } => "it installs once the rectorat has approved it",
        Reason::Paused { .. } => "it installs once the pause ends",
        Reason::RingClosed { .. } => "it installs by itself then",
        Reason::Quarantined { .. } => "a later release is tried by itself; `install` tries this one again",
        Reason::Older { .. } => "an operator can pin it",
        Reason::Unresolvable { .. } => "remove what it does not go together with, or ask an operator",
        Reason::TooLarge { .. } => "make room on the disk, and try again",
        _ => "nothing needs to be done",
    }
}

impl Shown {
    pub(crate) fn render(&self) -> String {
        let mut lines = Vec::new();
        for (verb, packages) in
            [("install", &self.install), ("update", &self.update), ("remove", &self.remove)]
        {
            lines.extend(packages.iter().map(|package| format!("{verb:<8} {package}")));
        }
        for (package, reason) in &self.kept {
            lines.push(format!("keep     {package}: {reason}"));
        }
        if lines.is_empty() { "nothing to do".to_owned() } else { lines.join("\n") }
    }
}
