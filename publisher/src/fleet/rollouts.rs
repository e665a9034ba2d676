//! Rollouts that are under way, and the brake that goes with their story.

use mirabelle_fleet::{Course, Hold};
use mirabelle_manifests::{
    Assignment, Audience, Brake, Catalogue, CatalogueEntry, Deployment, Instant, Pause, Rollout, Track,
};

/// A release that goes out in rings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed<'a> {
    pub(crate) assignment: &'a Assignment,
    pub(crate) rollout: &'a Rollout,
    pub(crate) entry: &'a CatalogueEntry,
}

/// The releases that go out in rings: of each line that follows a rollout, the newest for each system.
pub(crate) fn followed<'a>(
    deployment: &'a Deployment,
    catalogue: &'a Catalogue,
    now: Instant,
) -> Vec<Followed<'a>> {
    let mut all = Vec::new();
    for assignment in &deployment.assignments {
        let Some(rollout) = deployment.rollout(assignment) else { continue };
        // Whoever pins a release has looked; rings are passed over then.
        let is_pinned =
            matches!(assignment.track, Track::Pinned { .. }) && assignment.track.pinned(now).is_some();
        if is_pinned || !assignment.mode.gives() {
            continue;
        }
        let package = &assignment.package;
        let platforms =
            catalogue.platforms(package).into_iter().filter(|platform| assignment.is_about(platform));
        let newest = platforms.filter_map(|platform| catalogue.releases(package, platform).last());
        all.extend(newest.map(|entry| Followed { assignment, rollout, entry }));
    }
    all
}

/// The brake as the story of a rollout has it: what it holds is held, and nothing of another hand is let go.
pub(crate) fn held_by(course: &Course, entry: &CatalogueEntry, brake: &Brake, now: Instant) -> Brake {
    let listing = &entry.listing;
    let is_own = |pause: &Pause| pause.is_about(&listing.name, &listing.platform, listing.sequence);
    let held = course.held.as_ref().map(|(ring, _)| ring);
    let mut brake = brake.clone();
    brake.paused.retain(|pause| !is_own(pause) || pause.after.is_none() || pause.after.as_ref() == held);
    let halts = course.halted.iter().map(|(to, why)| (None, to.clone(), why.clone()));
    let hold = course.held.as_ref().map(|(ring, until)| {
        let why = match until {
            Hold::Success => format!("ring `{ring}` has to go well first"),
            Hold::Operator => format!("an operator looks how ring `{ring}` went"),
        };
        (Some(ring.clone()), Audience::everyone(), why)
    });
    for (after, to, reason) in halts.chain(hold) {
        if brake.paused.iter().any(|pause| is_own(pause) && pause.after == after && pause.to == to) {
            continue;
        }
        brake.paused.push(Pause {
            after,
            package: listing.name.clone(),
            platform: listing.platform.clone(),
            reason,
            sequence: listing.sequence,
            since: Instant::from_second(now.as_second()).unwrap_or(now),
            to,
        });
    }
    brake
}
