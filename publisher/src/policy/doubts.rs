//! What of a deployment cannot work, or may not be meant: valid, and worth a look before somebody signs.

use std::collections::BTreeSet;

use mirabelle_manifests::{
    Assignment, Audience, Catalogue, CatalogueEntry, Deployment, GroupName, Hours, Instant, Platform,
    Relation, Track,
};

use crate::findings::Findings;

/// The doubts about `new` at `now`, which takes the place of `before`: what was said before and is past is nothing new.
pub(crate) fn doubts(catalogue: &Catalogue, before: &Deployment, new: &Deployment, now: Instant) -> Findings {
    let mut findings = Findings::default();
    for (line, _) in new.not_approved(catalogue, now) {
        findings.problem(
            format!("{}, {}", line.package, line.track),
            format!("is deployed to {}, and not approved: every college passes it over", line.to),
        );
    }
    for line in &new.assignments {
        releases(catalogue, new, line, now, &mut findings);
        if !before.assignments.contains(line) {
            times(line, now, &mut findings);
            overruled(new, line, &mut findings);
        }
    }
    unused(new, &mut findings);
    for hours in &new.hours {
        without_zone(new, hours, &mut findings);
    }
    findings
}

/// That there are releases to have, and what they require.
fn releases(
    catalogue: &Catalogue,
    new: &Deployment,
    line: &Assignment,
    now: Instant,
    findings: &mut Findings,
) {
    if !line.mode.gives() {
        return;
    }
    let about = |platform: &&Platform| line.is_about(platform);
    let platforms: Vec<&Platform> = catalogue.platforms(&line.package).into_iter().filter(about).collect();
    if platforms.is_empty() {
        let other = if catalogue.platforms(&line.package).is_empty() { "" } else { " for those systems" };
        let text = format!("is deployed to {}, and no release of it is approved{other}", line.to);
        // A pin on it is among what is not approved already.
        if line.track.pinned(now).is_none() {
            findings.problem(line.package.to_string(), text);
        }
        return;
    }
    let mut missing = BTreeSet::new();
    for platform in platforms {
        let meant = match line.track.pinned(now) {
            Some(sequence) => catalogue.get(&line.package, platform, sequence),
            None => catalogue.releases(&line.package, platform).next_back(),
        };
        let Some(entry) = meant else { continue };
        for relation in &entry.listing.requires {
            if !is_available(catalogue, new, line, entry, relation, now) {
                missing.insert(format!(
                    "{} {} requires {relation}, and no release that workstations may have is that",
                    line.package, entry.listing.version
                ));
            }
        }
    }
    for text in missing {
        findings.problem(line.package.to_string(), text);
    }
}

/// True when workstations with the release may have what it requires: approved for their system, and neither kept from
/// all of them nor pinned to another release for all of them.
fn is_available(
    catalogue: &Catalogue,
    new: &Deployment,
    line: &Assignment,
    entry: &CatalogueEntry,
    relation: &Relation,
    now: Instant,
) -> bool {
    // The closest line that is for all of them decides.
    let deciding = new
        .assignments
        .iter()
        .enumerate()
        .filter(|(_, other)| other.package == relation.package && other.to.includes_all_of(&line.to));
    let deciding = deciding.max_by_key(|(number, other)| (other.to.closeness(&new.groups), *number));
    let may_be_had = |release: &CatalogueEntry| {
        let sequence = release.listing.sequence;
        relation.covers(sequence)
            && deciding.is_none_or(|(_, other)| {
                other.mode.gives() && other.track.pinned(now).is_none_or(|pinned| pinned == sequence)
            })
    };
    [&entry.listing.platform, &Platform::any()]
        .into_iter()
        .any(|platform| catalogue.releases(&relation.package, platform).any(may_be_had))
        // A release for all systems may require one that every system has its own of.
        || (entry.listing.platform == Platform::any()
            && catalogue
                .platforms(&relation.package)
                .into_iter()
                .any(|platform| catalogue.releases(&relation.package, platform).any(may_be_had)))
}

fn times(line: &Assignment, now: Instant, findings: &mut Findings) {
    if let Some(deadline) = line.deadline.filter(|deadline| *deadline <= now) {
        findings.warn(
            line.package.to_string(),
            format!("its deadline {deadline:.0} is past: workstations wait for no window, only for the end of a lesson"),
        );
    }
    if let Track::Pinned { until: Some(until), .. } = line.track
        && until <= now
    {
        findings.warn(
            line.package.to_string(),
            format!("its pin ended at {until:.0}: it follows the newest release"),
        );
    }
}

/// Lines that go before this one for some of those it is for.
fn overruled(new: &Deployment, line: &Assignment, findings: &mut Findings) {
    let closeness = |line: &Assignment| line.to.closeness(&new.groups);
    for other in &new.assignments {
        let apart = !line.to.colleges.is_empty()
            && !other.to.colleges.is_empty()
            && line.to.colleges.is_disjoint(&other.to.colleges);
        if other.package == line.package && closeness(other) > closeness(line) && !apart {
            findings.warn(
                line.package.to_string(),
                format!(
                    "what is said for {} is drawn closer than what is said for {}, and goes before it",
                    other.to, line.to
                ),
            );
        }
    }
}

/// Groups and rollouts that nothing names.
fn unused(new: &Deployment, findings: &mut Findings) {
    let rollouts: BTreeSet<&GroupName> =
        new.assignments.iter().filter_map(|line| line.rollout.as_ref()).collect();
    for name in new.rollouts.keys().filter(|name| !rollouts.contains(name)) {
        findings.warn(format!("rollout {name}"), "no assignment follows it");
    }
    let rings = new.rollouts.values().flat_map(|rollout| rollout.rings.iter().map(|ring| &ring.to));
    let lines = new.assignments.iter().map(|line| &line.to);
    let others = new.hours.iter().map(|hours| &hours.to).chain(new.values.iter().map(|values| &values.to));
    let groups: BTreeSet<&GroupName> =
        lines.chain(rings).chain(others).flat_map(|to: &Audience| &to.groups).collect();
    for name in new.groups.keys().filter(|name| !groups.contains(name)) {
        findings.warn(format!("group {name}"), "nothing is for it");
    }
}

/// Hours that nobody gives a time zone for.
fn without_zone(new: &Deployment, hours: &Hours, findings: &mut Findings) {
    let gives_times = hours.lessons.is_some()
        || hours.windows.is_some()
        || hours.shutdown.is_some()
        || hours.wake.is_some();
    let zone = |other: &&Hours| other.time_zone.is_some();
    let wider = |other: &Hours| other.to.includes_all_of(&hours.to);
    if gives_times && !new.hours.iter().filter(zone).any(wider) {
        findings
            .warn(format!("hours of {}", hours.to), "nobody gives them a time zone: they are those of UTC");
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::tuf::{TargetFile, Targets};
    use mirabelle_manifests::{Listing, Text, release_target};

    use super::*;
    use crate::policy::read;

    fn catalogue() -> Catalogue {
        let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
        for (name, platform, sequence, requires) in [
            ("ruff", "any", 1, None),
            ("ruff", "any", 2, None),
            ("tool", "linux-x86_64", 1, None),
            ("java-app", "any", 1, Some(("jre", 3))),
            ("jre", "any", 2, None),
            ("other-app", "any", 1, Some(("ruff", 2))),
        ] {
            let text = Text { fr: "x".into(), en: "x".into() };
            let relation = |(package, least): (&str, u64)| Relation {
                at_least: Some(least),
                at_most: None,
                package: package.parse().unwrap(),
            };
            let listing = Listing {
                categories: vec![],
                conflicts: vec![],
                download_size: 1,
                installed_size: 1,
                licence: "MIT".into(),
                name: name.parse().unwrap(),
                platform: platform.parse().unwrap(),
                requires: requires.map(relation).into_iter().collect(),
                sequence,
                showcase: None,
                summary: text.clone(),
                title: text,
                version: format!("{sequence}.0").parse().unwrap(),
            };
            let path = release_target(&listing.name, &listing.version, &listing.platform);
            role.targets.insert(path, TargetFile::of(name.as_bytes(), serde_json::to_value(listing).ok()));
        }
        Catalogue::read(&role).unwrap()
    }

    /// The doubts about a policy that was made from nothing in September 2026.
    fn said(policy: &str) -> Vec<String> {
        let now = "2026-09-01T00:00:00Z".parse().unwrap();
        let findings = doubts(&catalogue(), &Deployment::default(), &read(policy).unwrap(), now);
        findings
            .0
            .iter()
            .map(|finding| format!("{}: {}: {}", finding.kind(), finding.about, finding.text))
            .collect()
    }

    #[test]
    fn what_cannot_work_is_doubted() {
        let line = |package: &str, rest: &str| {
            format!("[[assignments]]\nmode = \"required\"\npackage = \"{package}\"\n{rest}\n")
        };
        let pin = |sequence: u64, until: &str| {
            format!("track = {{ pinned = {{ sequence = {sequence}, version = \"{sequence}.0\"{until} }} }}")
        };
        for (policy, expected) in [
            (line("ruff", &pin(2, "")), ""),
            (line("ruff", &pin(3, "")), "PROBLEM: ruff, release 3 (3.0): is deployed to all colleges, and not approved"),
            (line("absent", &pin(1, "")), "PROBLEM: absent, release 1 (1.0): is deployed to all colleges, and not approved"),
            (line("absent", ""), "PROBLEM: absent: is deployed to all colleges, and no release of it is approved"),
            (
                line("tool", "to = { platforms = [\"windows-x86_64\"] }"),
                "PROBLEM: tool: is deployed to system windows-x86_64, and no release of it is approved for those systems",
            ),
            (line("ruff", "deadline = \"2026-08-31T00:00:00Z\""), "warning: ruff: its deadline 2026-08-31T00:00:00Z is past"),
            (line("ruff", "deadline = \"2026-09-30T00:00:00Z\""), ""),
            (line("ruff", &pin(2, ", until = \"2026-08-31T00:00:00Z\"")), "warning: ruff: its pin ended at 2026-08-31T00:00:00Z"),
            (line("java-app", ""), "PROBLEM: java-app: java-app 1.0 requires jre from release 3, and no release"),
            (line("other-app", ""), ""),
            (line("other-app", "") + &line("ruff", &pin(1, "")), "PROBLEM: other-app: other-app 1.0 requires ruff from release 2"),
            (line("other-app", "") + &line("ruff", &pin(2, "")), ""),
            // Kept from all but the room that needs it.
            (
                line("other-app", "to = { rooms = [\"B12\"] }") + &line("ruff", "").replace("required", "blocked")
                    + &line("ruff", "to = { rooms = [\"B12\"] }"),
                "warning: ruff: what is said for room B12 is drawn closer than what is said for all colleges",
            ),
            (
                line("other-app", "") + &line("ruff", "").replace("required", "blocked"),
                "PROBLEM: other-app: other-app 1.0 requires ruff from release 2",
            ),
            (line("absent", "").replace("required", "removed"), ""),
            (
                "[rollouts.careful]\nrings = [{ name = \"first\", percent = 5, soak-hours = 24, to = { groups = [\"exams\"] } }]\n[groups.exams]\ntags = [\"exam\"]\n[groups.labs]\ntags = [\"lab\"]\n".to_owned(),
                "warning: rollout careful: no assignment follows it\nwarning: group labs: nothing is for it",
            ),
            ("[[hours]]\nshutdown = [{ days = [\"mon\"], at = \"18:00\" }]".to_owned(), "warning: hours of all colleges: nobody gives them a time zone"),
            (
                "[[hours]]\ntime-zone = \"Europe/Paris\"\n[[hours]]\nto = { colleges = [\"57001\"] }\nlessons = []".to_owned(),
                "",
            ),
        ] {
            let said = said(&policy);
            let expected: Vec<&str> = expected.lines().collect();
            let as_expected = said.len() == expected.len()
                && said.iter().zip(&expected).all(|(said, expected)| said.starts_with(expected));
            assert!(as_expected, "{policy}\n{said:#?}");
        }
    }

    #[test]
    fn what_was_said_before_and_is_past_is_nothing_new() {
        let policy =
            "[[assignments]]\nmode = \"required\"\npackage = \"ruff\"\ndeadline = \"2026-08-31T00:00:00Z\"\n";
        let (before, now) = (read(policy).unwrap(), "2026-09-01T00:00:00Z".parse().unwrap());
        assert!(doubts(&catalogue(), &before, &before, now).0.is_empty());
    }
}
