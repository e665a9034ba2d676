//! What a college's node must hold, so that each of its workstations can have its own.
//!
//! Invariant: whatever `decide/` lets a workstation of the college install at some moment is owed at that moment. A node
//! knows no rooms, tags or machines: it holds what any could be told. What a closer line overrules for the whole college
//! is not owed. Of what a release requires, the newest that does is owed: a workstation that must go further back for it (the
//! brake holds the newest, another package conflicts with it) may find that its node does not have that, and waits.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{Assignment, Closeness, Deployment};
use crate::Instant;
use crate::catalogue::{Catalogue, CatalogueEntry};
use crate::names::{PackageName, Platform, SiteId};

/// Releases, each once.
type Owed<'a> = BTreeMap<(&'a PackageName, &'a Platform, u64), &'a CatalogueEntry>;

impl Deployment {
    /// The releases that a college must have at `now`: of an assignment that pins one, that one; of one that follows the
    /// newest, the newest, and while that is not open to everyone yet, the ones before it down to the first that is; and
    /// what they require.
    pub fn owed<'a>(
        &self,
        catalogue: &'a Catalogue,
        college: &SiteId,
        now: Instant,
    ) -> Vec<&'a CatalogueEntry> {
        let mut owed = Owed::new();
        for assignment in self.counting_at(college) {
            // `any` stands for the systems that the package has no release of their own for.
            for system in catalogue.platforms(&assignment.package) {
                if !assignment.is_about(system) {
                    continue;
                }
                let releases = running_on(catalogue, &assignment.package, system);
                if let Some(sequence) = assignment.track.pinned(now) {
                    owed.extend(releases.get(&sequence).copied().map(keyed));
                    continue;
                }
                for entry in releases.into_values().rev() {
                    owed.extend([keyed(entry)]);
                    if self.is_open_to_all(assignment, entry, now) {
                        break;
                    }
                }
            }
        }
        add_required(catalogue, &mut owed);
        owed.into_values().collect()
    }

    /// The assignments that pin a release at `now` which is not in the catalogue, or not for a system they are about:
    /// promise 1 passes them over.
    pub fn not_approved<'a>(
        &'a self,
        catalogue: &'a Catalogue,
        now: Instant,
    ) -> impl Iterator<Item = (&'a Assignment, u64)> {
        self.assignments.iter().filter_map(move |assignment| {
            let sequence = assignment.track.pinned(now).filter(|_| assignment.mode.gives())?;
            let approved = catalogue.platforms(&assignment.package).into_iter().any(|platform| {
                assignment.is_about(platform)
                    && catalogue.get(&assignment.package, platform, sequence).is_some()
            });
            (!approved).then_some((assignment, sequence))
        })
    }

    /// The assignments that let some workstation of `college` have a package, and that no closer one overrules for all of
    /// them.
    pub fn counting_at(&self, college: &SiteId) -> Vec<&Assignment> {
        let mut lines: BTreeMap<&PackageName, Vec<(Closeness, &Assignment)>> = BTreeMap::new();
        for assignment in &self.assignments {
            if assignment.to.may_include_some_of(college, &self.groups) {
                let line = (assignment.to.closeness(&self.groups), assignment);
                lines.entry(&assignment.package).or_default().push(line);
            }
        }
        let mut counting = Vec::new();
        for lines in lines.into_values() {
            let overruled = |number: usize, closeness: Closeness, assignment: &Assignment| {
                let here = assignment.to.within(college);
                lines.iter().enumerate().any(|(other_number, (other_closeness, other))| {
                    (closeness, number) < (*other_closeness, other_number) && other.to.includes_all_of(&here)
                })
            };
            counting.extend(lines.iter().enumerate().filter_map(|(number, (closeness, assignment))| {
                let counts = assignment.mode.gives() && !overruled(number, *closeness, assignment);
                counts.then_some(*assignment)
            }));
        }
        counting
    }

    fn is_open_to_all(&self, assignment: &Assignment, entry: &CatalogueEntry, now: Instant) -> bool {
        let Some(rollout) = self.rollout(assignment) else { return true };
        let hours: i64 = rollout.rings.iter().map(|ring| i64::from(ring.soak_hours)).sum();
        let soaked = Self::start_of(assignment, entry).checked_add(SignedDuration::from_hours(hours));
        soaked.is_ok_and(|soaked| soaked <= now)
    }
}

impl Assignment {
    /// True when workstations of its audience may run releases for `platform`.
    pub fn is_about(&self, platform: &Platform) -> bool {
        let own = &self.to.platforms;
        own.is_empty()
            || *platform == Platform::any()
            || own.iter().any(|audience| audience.runs_on(platform))
    }
}

/// The releases of a package that a machine of this system runs, by their sequence: one for exactly this system before one
/// for all.
fn running_on<'a>(
    catalogue: &'a Catalogue,
    package: &PackageName,
    system: &Platform,
) -> BTreeMap<u64, &'a CatalogueEntry> {
    let of = |platform| catalogue.releases(package, platform).map(|entry| (entry.listing.sequence, entry));
    of(&Platform::any()).chain(of(system)).collect()
}

/// What the releases owed require is owed too: of each relation the newest release that it covers, even where an older one
/// is held, for a workstation that has nothing to do with that one takes the newest.
fn add_required<'a>(catalogue: &'a Catalogue, owed: &mut Owed<'a>) {
    let mut waiting: Vec<&CatalogueEntry> = owed.values().copied().collect();
    while let Some(entry) = waiting.pop() {
        for relation in &entry.listing.requires {
            for platform in catalogue.platforms(&relation.package) {
                let newest = catalogue
                    .releases(&relation.package, platform)
                    .rfind(|release| relation.covers(release.listing.sequence));
                let Some((key, newest)) = newest.map(keyed) else { continue };
                if owed.insert(key, newest).is_none() {
                    waiting.push(newest);
                }
            }
        }
    }
}

fn keyed(entry: &CatalogueEntry) -> ((&PackageName, &Platform, u64), &CatalogueEntry) {
    let listing = &entry.listing;
    ((&listing.name, &listing.platform, listing.sequence), entry)
}
