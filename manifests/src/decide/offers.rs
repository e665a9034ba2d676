//! What would be decided about each package if somebody asked for it: what a store page says of what is not here.
//!
//! Each is asked for by itself, beside what is here and was asked for already. Most packages have nothing to do with others, and are
//! decided by themselves; those that do are decided together with everything else, exactly as `install` would.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asker, Decision, MachineState, Situation};
use crate::catalogue::CatalogueEntry;
use crate::names::PackageName;

impl Situation<'_> {
    /// The decision about every package that is deployed here, had `asker` asked for it as well.
    pub fn offers(&self, asker: Asker) -> BTreeMap<PackageName, Decision> {
        let entangled = self.entangled();
        let counts = self.lines_by_package();
        let mut offers = self.decide();
        for (package, (_, assignment)) in self.deployment.assignments_of(self.machine) {
            let is_here = self.state.installed.get(package).is_some_and(|installed| !installed.automatic);
            if is_here || self.state.asked.get(package).is_some_and(|asked| *asked >= asker) {
                continue;
            }
            let offer = if entangled.contains(package) {
                let mut state = self.state.clone();
                state.asked.insert(package.clone(), asker);
                Situation { state: &state, ..*self }.decide().remove(package)
            } else {
                let mut state = self.state.of(package);
                state.asked.insert(package.clone(), asker);
                let situation = Situation { state: &state, ..*self };
                let lines = counts.get(package).copied().unwrap_or(0);
                let decision = situation.decide_one(package, Some(assignment), lines);
                let mut alone = BTreeMap::from([(package.clone(), decision)]);
                situation.withhold(&mut alone);
                alone.remove(package)
            };
            offers.extend(offer.map(|offer| (package.clone(), offer)));
        }
        offers
    }

    /// Packages that say something about others, or that others which are here or may come say something about.
    fn entangled(&self) -> BTreeSet<&PackageName> {
        let mut entangled = BTreeSet::new();
        for CatalogueEntry { listing, .. } in self.catalogue.iter() {
            for relation in listing.requires.iter().chain(&listing.conflicts) {
                entangled.insert(&listing.name);
                entangled.insert(&relation.package);
            }
        }
        for (package, installed) in &self.state.installed {
            for relation in installed.requires.iter().chain(&installed.conflicts) {
                entangled.insert(package);
                entangled.insert(&relation.package);
            }
        }
        entangled
    }
}

impl MachineState {
    /// What of it is about one package.
    fn of(&self, package: &PackageName) -> Self {
        fn only<T: Clone>(all: &BTreeMap<PackageName, T>, package: &PackageName) -> BTreeMap<PackageName, T> {
            all.get(package).map(|one| (package.clone(), one.clone())).into_iter().collect()
        }
        Self {
            installed: only(&self.installed, package),
            asked: only(&self.asked, package),
            held: only(&self.held, package),
            quarantine: self.quarantine.clone(),
            kept: only(&self.kept, package),
        }
    }
}
