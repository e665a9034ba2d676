//! What is to come on this workstation: what is due, until when, when one may, and what changes by itself meanwhile.
//!
//! Made from what was learnt at the last refresh, printed by `plan`, kept by the agent in `outlook.json`, so that between two
//! refreshes nobody needs to read the catalogue.

use std::collections::BTreeMap;

use mirabelle_manifests::{
    Action, Decision, Groups, Hours, Instant, Machine, PackageName, Reason, Situation, Timetable, Track,
    Version,
};
use mirabelle_transfer::Network;
use serde::{Deserialize, Serialize};

use crate::generation::Generation;
use crate::layout::Layout;

/// What is to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outlook {
    /// The snapshot that it was made from.
    pub(crate) snapshot: u64,
    /// Since when the catalogue has not been renewed.
    pub(crate) stale_since: Option<Instant>,
    /// When another outlook may come out otherwise, although nothing new was published.
    pub(crate) changes_at: Option<Instant>,
    /// What is to be done.
    pub(crate) due: Vec<Due>,
    /// Files of the machine that are not as releases set them.
    pub(crate) drift: Vec<String>,
    /// What stays as it is, and why.
    pub(crate) kept: BTreeMap<PackageName, Vec<Reason>>,
    /// The hours of this workstation, the widest first.
    pub(crate) hours: Vec<Hours>,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Due {
    pub(crate) package: PackageName,
    pub(crate) verb: Verb,
    /// The version that is to be there.
    pub(crate) version: Option<Version>,
    pub(crate) deadline: Option<Instant>,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// True when all of it is here, and only has to be switched to.
    pub(crate) prepared: bool,
    pub(crate) reasons: Vec<Reason>,
}

/// What is done to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verb {
    Install,
    Update,
    Remove,
}

impl Outlook {
    /// The outlook of a machine, from what was decided.
    pub(crate) fn of(
        situation: &Situation<'_>,
        network: &Network,
        layout: &Layout,
        current: &Generation,
        decisions: BTreeMap<PackageName, Decision>,
    ) -> Self {
        let changes_at = changes_at(situation, &decisions);
        let mut outlook = Self {
            snapshot: network.trusted.snapshot().map_or(0, |snapshot| snapshot.version),
            stale_since: network.stale_since(),
            changes_at,
            due: Vec::new(),
            drift: Vec::new(),
            kept: BTreeMap::new(),
            hours: situation.deployment.hours_of(situation.machine),
        };
        for (package, Decision { action, reasons, deadline }) in decisions {
            let verb = match &action {
                Action::Install(_) => Verb::Install,
                Action::Update(_) => Verb::Update,
                Action::Remove => Verb::Remove,
                Action::Keep => {
                    outlook.kept.insert(package, reasons);
                    continue;
                }
            };
            let entry = match action {
                Action::Install(entry) | Action::Update(entry) => Some(entry),
                Action::Remove | Action::Keep => None,
            };
            let tree = entry.as_ref().map(|entry| {
                layout.release(&package, &Layout::release_id(entry.listing.sequence, entry.digest))
            });
            let installed = current.packages.get(&package);
            outlook.due.push(Due {
                verb,
                version: entry.as_ref().map(|entry| entry.listing.version.clone()),
                deadline,
                bytes: entry.as_ref().map_or_else(
                    || installed.map_or(0, |installed| installed.bytes),
                    |entry| entry.listing.installed_size,
                ),
                prepared: tree.is_none_or(|tree| tree.is_dir()),
                reasons,
                package,
            });
        }
        outlook
    }

    /// The timetable of the machine that it was made for.
    pub(crate) fn timetable(&self, machine: &Machine) -> Timetable {
        Timetable::of(&self.hours, machine, &Groups::new())
    }
}

/// The first instant at which time alone changes a decision: a ring opens, a pin ends.
fn changes_at(situation: &Situation<'_>, decisions: &BTreeMap<PackageName, Decision>) -> Option<Instant> {
    let rings = decisions.values().flat_map(|decision| &decision.reasons).filter_map(|reason| match reason {
        Reason::RingClosed { opens, .. } => Some(*opens),
        _ => None,
    });
    let pins = situation.deployment.assignments.iter().filter_map(|assignment| match assignment.track {
        Track::Pinned { until, .. } => until,
        Track::Newest => None,
    });
    let kept = situation.state.kept.values().map(|keep| keep.until);
    rings.chain(pins).chain(kept).filter(|instant| *instant > situation.now).min()
}
