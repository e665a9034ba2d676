//! What a command would do, decided before anything is done: it prints, it dry-runs, and it is what gets executed.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_manifests::{CatalogueEntry, PackageName};
use mirabelle_terminal::Failure;
use serde::Serialize;

use crate::decide::{Decision, Reason, Situation};
use crate::generation::Generation;

/// The way from the current generation to the next.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Releases to activate, in place of what is installed of the package.
    pub(crate) activate: BTreeMap<PackageName, CatalogueEntry>,
    /// Packages to take away.
    pub(crate) remove: BTreeSet<PackageName>,
    /// Packages that stay as they are, although somebody or something wanted otherwise.
    pub(crate) kept: BTreeMap<PackageName, Reason>,
    /// Packages that a person asked for.
    pub(crate) asked_for: BTreeSet<PackageName>,
}

/// A plan as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    install: Vec<String>,
    update: Vec<String>,
    remove: Vec<String>,
    kept: BTreeMap<PackageName, String>,
}

impl Plan {
    /// The plan for packages that a person asked for. One that may not be had refuses the whole.
    pub(crate) fn for_install(
        situation: &Situation<'_>,
        packages: &BTreeSet<PackageName>,
    ) -> Result<Self, Failure> {
        let mut plan = Self { asked_for: packages.clone(), ..Self::default() };
        for package in packages {
            match situation.decide(package, true) {
                Decision::Install(entry) | Decision::Update(entry) => {
                    plan.activate.insert(package.clone(), entry);
                }
                Decision::Keep(Reason::UpToDate) => {
                    plan.kept.insert(package.clone(), Reason::UpToDate);
                }
                Decision::Keep(reason) => {
                    return Err(
                        Failure::no(format!("cannot install `{package}`: {reason}")).hint(advice(&reason))
                    );
                }
            }
        }
        Ok(plan)
    }

    /// The plan that brings the workstation to what the deployment says, and goes on with what was interrupted.
    pub(crate) fn for_update(situation: &Situation<'_>, interrupted: &[PackageName]) -> Self {
        let mut plan = Self::default();
        let mut decisions = situation.decide_all();
        for package in interrupted {
            decisions.insert(package.clone(), situation.decide(package, true));
            plan.asked_for.insert(package.clone());
        }
        for (package, decision) in decisions {
            match decision {
                Decision::Install(entry) | Decision::Update(entry) => {
                    plan.activate.insert(package, entry);
                }
                Decision::Keep(reason) => {
                    plan.kept.insert(package, reason);
                }
            }
        }
        plan
    }

    /// The plan that takes packages away.
    pub(crate) fn for_remove(current: &Generation, packages: &[PackageName]) -> Result<Self, Failure> {
        if let Some(missing) = packages.iter().find(|package| !current.packages.contains_key(package)) {
            return Err(Failure::no(format!("`{missing}` is not installed")));
        }
        Ok(Self { remove: packages.iter().cloned().collect(), ..Self::default() })
    }

    /// True when there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.activate.is_empty() && self.remove.is_empty()
    }

    /// The plan in words.
    pub(crate) fn show(&self, current: &Generation) -> Shown {
        let mut shown =
            Shown { install: Vec::new(), update: Vec::new(), remove: Vec::new(), kept: BTreeMap::new() };
        for (package, entry) in &self.activate {
            match current.packages.get(package) {
                Some(installed) => {
                    shown.update.push(format!("{package} {} → {}", installed.version, entry.listing.version));
                }
                None => shown.install.push(format!("{package} {}", entry.listing.version)),
            }
        }
        shown.remove = self.remove.iter().map(ToString::to_string).collect();
        shown.kept =
            self.kept.iter().map(|(package, reason)| (package.clone(), reason.to_string())).collect();
        shown
    }
}

fn advice(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotDeployed { .. } | Reason::OnlyOffered { .. } => {
            "the département's operators deploy software to colleges"
        }
        Reason::OtherPlatform { .. } => "it does not run on this workstation",
        Reason::NotApproved { .. } => "it installs once the rectorat has approved it",
        Reason::Paused { .. } => "it installs once the pause ends",
        Reason::HeldBack { .. } | Reason::UpToDate => "nothing needs to be done",
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
