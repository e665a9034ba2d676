//! Room on the disk: what comes must leave a reserve free, so that people can go on working.
//!
//! Looked at before anything is fetched, and told apart from what may come: a release that does not fit is left out with
//! its reason, and the others go on without it.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_content::ObjectStore;
use mirabelle_manifests::{Action, CatalogueEntry, Decision, Instant, PackageName, Reason};
use mirabelle_terminal::{Failure, OrFail};

use crate::config::Config;
use crate::layout::Layout;
use crate::platform::{self, DiskSpace};

/// The room that there is.
pub(crate) struct Room<'a> {
    layout: &'a Layout,
    store: ObjectStore,
    disk: DiskSpace,
    reserve: u64,
}

impl<'a> Room<'a> {
    /// The room where the workstation's directory is.
    pub(crate) fn of(layout: &'a Layout, config: &Config) -> Result<Self, Failure> {
        let disk = platform::disk_space(layout.root())
            .or_fail(|| format!("cannot tell how much room `{}` has", layout.root().display()))?;
        let (store, reserve) = (ObjectStore::read_only(layout.root()), config.reserve(disk.total));
        Ok(Self { layout, store, disk, reserve })
    }

    /// Why `needed` bytes more do not fit, if they do not.
    pub(crate) fn refuses(&self, needed: u64) -> Option<Reason> {
        let (free, reserve) = (self.disk.free, self.reserve);
        (needed.saturating_add(reserve) > free).then_some(Reason::TooLarge { needed, free, reserve })
    }

    /// Bytes of a release that are not here. What it has in common with what is installed cannot be known before its manifest
    /// is, so until then it counts whole.
    pub(crate) fn missing_bytes(&self, entry: &CatalogueEntry) -> Result<u64, Failure> {
        let Some(release) = self.layout.known_manifest(entry.digest)? else {
            return Ok(entry.listing.installed_size);
        };
        let objects = release.objects().into_iter();
        let missing = objects.filter(|(object, described)| !self.store.holds(*object, described.size));
        Ok(missing.map(|(_, described)| described.size).sum())
    }

    /// Leaves out what does not fit, and what requires it: what must be there soonest is taken first.
    pub(crate) fn leave_out(&self, decisions: &mut BTreeMap<PackageName, Decision>) -> Result<(), Failure> {
        let mut coming: Vec<(Instant, PackageName)> = decisions
            .iter()
            .filter(|(_, decision)| decision.release().is_some())
            .map(|(package, decision)| (decision.deadline.unwrap_or(Instant::MAX), package.clone()))
            .collect();
        coming.sort();
        let (mut taken, mut left_out) = (0_u64, BTreeSet::new());
        for (_, package) in coming {
            let Some(decision) = decisions.get_mut(&package) else { continue };
            let Some(entry) = decision.release() else { continue };
            let needed = taken.saturating_add(self.missing_bytes(entry)?);
            if let Some(reason) = self.refuses(needed) {
                keep(decision, reason);
                left_out.insert(package);
            } else {
                taken = needed;
            }
        }
        while let Some((package, missing)) = first_without(decisions, &left_out) {
            let why = format!("it requires `{missing}`, for which the disk has no room");
            if let Some(decision) = decisions.get_mut(&package) {
                keep(decision, Reason::Unresolvable { why });
            }
            left_out.insert(package);
        }
        Ok(())
    }
}

fn keep(decision: &mut Decision, reason: Reason) {
    decision.action = Action::Keep;
    decision.deadline = None;
    decision.reasons.push(reason);
}

/// A package that still comes although one that it requires was left out.
fn first_without(
    decisions: &BTreeMap<PackageName, Decision>,
    left_out: &BTreeSet<PackageName>,
) -> Option<(PackageName, PackageName)> {
    decisions.iter().find_map(|(package, decision)| {
        let requires = &decision.release()?.listing.requires;
        let missing = requires.iter().find(|relation| left_out.contains(&relation.package))?;
        Some((package.clone(), missing.package.clone()))
    })
}
