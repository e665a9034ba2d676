//! The deployment: it comes back as it was written, its closest line counts, and a node holds what its workstations are told.

use std::collections::BTreeSet;

use mirabelle_manifests::tuf::{TargetFile, Targets};
use mirabelle_manifests::{
    Asker, Assignment, AssignmentMode, Audience, Brake, Catalogue, Custom, Deployment, DeploymentError,
    Groups, Halt, InstalledRelease, Instant, Listing, Machine, MachineState, PackageName, Relation, Ring,
    Rollout, SiteId, Situation, Text, Track, Values, release_target,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::timetables::{any_hours, any_instant};

const COLLEGES: [&str; 2] = ["57001", "57002"];
const PACKAGES: [&str; 4] = ["a", "b", "c", "d"];
const PLATFORMS: [&str; 3] = ["any", "linux-x86_64", "windows-x86_64"];

fn some<T: std::str::FromStr<Err: std::fmt::Debug> + Ord + std::fmt::Debug>(
    names: &'static [&'static str],
) -> impl Strategy<Value = BTreeSet<T>> {
    let listed = subsequence(names.to_vec(), 0..=names.len());
    // Most audiences say nothing of most things.
    proptest::option::weighted(0.3, listed)
        .prop_map(|names| names.unwrap_or_default().into_iter().map(|name| name.parse().unwrap()).collect())
}

fn one<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    names: &'static [&'static str],
) -> impl Strategy<Value = T> {
    select(names).prop_map(|name| name.parse().unwrap())
}

/// An audience of anything but groups.
fn plain_audience() -> impl Strategy<Value = Audience> {
    (
        some(&COLLEGES),
        some(&["m1", "m2"]),
        some(&PLATFORMS),
        some(&["r1", "r2"]),
        some(&["t1", "t2"]),
        models(),
    )
        .prop_map(|(colleges, machines, platforms, rooms, tags, models)| Audience {
            colleges,
            groups: BTreeSet::new(),
            machines,
            models,
            platforms,
            rooms,
            tags,
        })
}

fn models() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::option::of(select(vec!["m3070", "m400"]))
        .prop_map(|model| model.map(str::to_owned).into_iter().collect())
}

fn audience() -> impl Strategy<Value = Audience> {
    (plain_audience(), some(&["g1", "g2"])).prop_map(|(audience, groups)| Audience { groups, ..audience })
}

fn machine() -> impl Strategy<Value = Machine> {
    (
        one(&COLLEGES),
        one(&["m1", "m2", "m3"]),
        proptest::option::of(select(vec!["m3070".to_owned(), "m400".to_owned()])),
        one(&PLATFORMS[1..]),
        proptest::option::of(one(&["r1", "r2"])),
        some(&["t1", "t2"]),
    )
        .prop_map(|(college, id, model, platform, room, tags)| Machine {
            college,
            id,
            model,
            platform,
            room,
            tags,
        })
}

fn track() -> impl Strategy<Value = Track> {
    let until = proptest::option::of(any_instant());
    prop_oneof![
        Just(Track::Newest),
        (1..6_u64, until).prop_map(|(sequence, until)| {
            Track::Pinned { sequence, until, version: sequence.to_string().parse().unwrap() }
        }),
    ]
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let mode = select(vec![
        AssignmentMode::Required,
        AssignmentMode::Available,
        AssignmentMode::AvailableToTeachers,
        AssignmentMode::Blocked,
        AssignmentMode::Removed,
    ]);
    let instant = || proptest::option::of(any_instant());
    (
        instant(),
        mode,
        one(&PACKAGES),
        proptest::option::of(one(&["slow", "quick"])),
        instant(),
        audience(),
        track(),
    )
        .prop_map(|(deadline, mode, package, rollout, since, to, track)| Assignment {
            deadline,
            mode,
            package,
            rollout,
            since,
            to,
            track,
        })
}

fn rollout() -> impl Strategy<Value = Rollout> {
    let ring = (any::<bool>(), 1..=100_u8, 0..=672_u32, audience()).prop_map(
        |(confirm, percent, soak_hours, to)| Ring {
            name: "ring".parse().unwrap(),
            confirm,
            percent,
            soak_hours,
            to,
        },
    );
    let halt = (1..=100_u8, 1..5_u32, 1..=672_u32, 0..=100_u8).prop_map(
        |(percent, machines, silent_hours, success_percent)| Halt {
            percent,
            machines,
            silent_hours,
            success_percent,
        },
    );
    (halt, proptest::collection::vec(ring, 1..4)).prop_map(|(halt, mut rings)| {
        for (number, ring) in rings.iter_mut().enumerate() {
            ring.name = format!("ring-{number}").parse().unwrap();
        }
        Rollout { halt, rings }
    })
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let group = || plain_audience().prop_filter("it says something", |group| *group != Audience::everyone());
    let values = (audience(), proptest::collection::btree_map(one(&["proxy", "home"]), "[ -~é]{0,12}", 0..3))
        .prop_map(|(to, values)| Values { to, values });
    (
        proptest::collection::vec(assignment(), 0..12),
        (group(), group()),
        (rollout(), rollout()),
        proptest::collection::vec(any_hours(audience()), 0..3),
        proptest::collection::vec(values, 0..3),
    )
        .prop_map(|(lines, groups, rollouts, hours, values)| {
            let mut deployment = Deployment::default();
            let name = |name: &str| name.parse().unwrap();
            deployment.groups = Groups::from([(name("g1"), groups.0), (name("g2"), groups.1)]);
            deployment.rollouts = [(name("slow"), rollouts.0), (name("quick"), rollouts.1)].into();
            (deployment.hours, deployment.values) = (hours, values);
            for line in lines {
                let before = deployment.clone();
                deployment.assignments.push(line);
                deployment = match deployment.checked() {
                    Ok(deployment) => deployment,
                    Err(DeploymentError::Ambiguous { .. }) => before,
                    Err(error) => panic!("{error}"),
                };
            }
            deployment
        })
}

/// A release as the catalogue lists it.
fn listing(name: &str, platform: &str, sequence: u64, requires: &[&str]) -> Listing {
    let text = Text { fr: "x".into(), en: "x".into() };
    let relation =
        |package: &&str| Relation { package: package.parse().unwrap(), at_least: None, at_most: None };
    Listing {
        categories: vec![],
        conflicts: vec![],
        download_size: 1,
        installed_size: 1,
        licence: "MIT".into(),
        name: name.parse().unwrap(),
        platform: platform.parse().unwrap(),
        requires: requires.iter().map(relation).collect(),
        sequence,
        showcase: None,
        summary: text.clone(),
        title: text,
        version: sequence.to_string().parse().unwrap(),
    }
}

fn catalogue_of(releases: Vec<Custom>) -> Catalogue {
    let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
    for custom in releases {
        let listing = &custom.listing;
        let path = release_target(&listing.name, &listing.version, &listing.platform);
        let file = TargetFile::of(path.as_str().as_bytes(), Some(serde_json::to_value(&custom).unwrap()));
        role.targets.insert(path, file);
    }
    Catalogue::read(&role).unwrap()
}

/// Releases of each package for each platform, some of them. The first package requires the last two.
fn catalogue() -> impl Strategy<Value = Catalogue> {
    let releases = PACKAGES.into_iter().flat_map(|name| PLATFORMS.map(|platform| (name, platform)));
    let releases: Vec<(&str, &str, u64)> = releases
        .flat_map(|(name, platform)| (1..6).map(move |sequence| (name, platform, sequence)))
        .collect();
    let chosen = subsequence(releases, 0..=40);
    chosen
        .prop_flat_map(|chosen| {
            let approved = proptest::collection::vec(proptest::option::of(any_instant()), chosen.len());
            (Just(chosen), approved)
        })
        .prop_map(|(chosen, approved)| {
            let custom = |((name, platform, sequence), approved): ((&str, &str, u64), Option<Instant>)| {
                let requires: &[&str] = if name == "a" { &["c", "d"] } else { &[] };
                Custom { approved, listing: listing(name, platform, sequence, requires) }
            };
            catalogue_of(chosen.into_iter().zip(approved).map(custom).collect())
        })
}

/// A machine that has some of the catalogue's releases, and on which somebody asked for some packages.
fn state(
    catalogue: &Catalogue,
    machine: &Machine,
    asked: &BTreeSet<PackageName>,
    luck: usize,
) -> MachineState {
    let mut state = MachineState::default();
    let here = catalogue.iter().filter(|entry| entry.listing.platform.runs_on(&machine.platform));
    for entry in here.skip(luck % 3).step_by(luck % 4 + 2) {
        let installed = InstalledRelease {
            release: entry.digest,
            sequence: entry.listing.sequence,
            requires: entry.listing.requires.clone(),
            conflicts: vec![],
            automatic: false,
        };
        state.installed.insert(entry.listing.name.clone(), installed);
    }
    state.asked = asked.iter().map(|package| (package.clone(), Asker::Teacher)).collect();
    state
}

proptest! {
    #[test]
    fn comes_back_as_it_was_written(deployment in deployment()) {
        prop_assert_eq!(Deployment::parse(&deployment.to_bytes().unwrap()).unwrap(), deployment);
    }

    #[test]
    fn the_closest_line_counts_wherever_it_stands(
        (deployment, shuffled) in deployment().prop_flat_map(|deployment| {
            let lines = Just(deployment.assignments.clone()).prop_shuffle();
            (Just(deployment), lines)
        }),
        machine in machine(),
    ) {
        let mut other = deployment.clone();
        other.assignments = shuffled;
        for (package, (_, counts)) in deployment.assignments_of(&machine) {
            let closeness = |line: &Assignment| line.to.closeness(&deployment.groups);
            let equal = deployment.assignments.iter().filter(|line| {
                line.package == *package
                    && line.to.includes(&machine, &deployment.groups)
                    && closeness(line) >= closeness(counts)
            });
            // No other is as close: then the order is nothing.
            if equal.count() == 1 {
                let (_, same) = other.assignment(package, &machine).unwrap();
                prop_assert_eq!(same, counts);
                prop_assert_eq!(other.assignments_of(&machine)[package].1, counts);
            }
        }
    }

    #[test]
    fn a_wider_audience_includes_whoever_the_narrower_does(
        (wide, narrow) in (audience(), audience()),
        machine in machine(),
        deployment in deployment(),
    ) {
        let groups = &deployment.groups;
        if narrow.includes(&machine, groups) {
            prop_assert!(narrow.within(&machine.college).includes(&machine, groups));
            prop_assert!(!wide.includes_all_of(&narrow) || wide.includes(&machine, groups));
        }
        if narrow.includes(&machine, groups) {
            prop_assert!(narrow.may_include_some_of(&machine.college, groups));
        }
    }

    /// The invariant of `owed.rs`, with rings that open and pins that end.
    #[test]
    fn a_node_holds_whatever_its_workstations_are_told_to_install(
        deployment in deployment(),
        catalogue in catalogue(),
        machines in proptest::collection::vec(machine(), 1..4),
        now in any_instant(),
        asked in some(&PACKAGES),
        luck in any::<usize>(),
    ) {
        let brake = Brake::default();
        for machine in &machines {
            let owed = deployment.owed(&catalogue, &machine.college, now);
            let state = state(&catalogue, machine, &asked, luck);
            let situation =
                Situation { catalogue: &catalogue, deployment: &deployment, brake: &brake, machine, state: &state, now };
            for (package, decision) in situation.decide() {
                if let Some(entry) = decision.release() {
                    prop_assert!(owed.contains(&entry), "{package}: {:?}", decision.reasons);
                }
            }
        }
    }
}

#[test]
fn a_node_is_not_owed_what_a_closer_line_overrules_for_the_whole_college() {
    let catalogue = catalogue_of(
        [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 2), ("d", 1)]
            .map(|(name, sequence)| Custom { approved: None, listing: listing(name, "any", sequence, &[]) })
            .into(),
    );
    let college: SiteId = "57001".parse().unwrap();
    let pin = |sequence: u64| format!(r#""track":{{"pinned":{{"sequence":{sequence},"version":"1"}}}}"#);
    let line = |package: &str, to: &str, rest: &str| {
        format!(r#"{{"mode":"required","package":"{package}","to":{to},{rest}}}"#)
    };
    let (all, own, room) = ("{}", r#"{"colleges":["57001"]}"#, r#"{"rooms":["B12"]}"#);
    for (lines, expected) in [
        (vec![line("a", all, &pin(1)), line("a", own, &pin(2))], vec!["a 2"]),
        (vec![line("a", own, &pin(2)), line("a", all, &pin(1))], vec!["a 2"]),
        // One room has its own, and the others what all have.
        (vec![line("a", all, &pin(1)), line("a", room, &pin(2))], vec!["a 1", "a 2"]),
        (vec![line("a", all, &pin(9))], vec![]),
        (vec![line("a", r#"{"colleges":["57002"]}"#, &pin(1))], vec![]),
        (vec![line("a", r#"{"platforms":["linux-x86_64"]}"#, r#""track":"newest""#)], vec!["a 2"]),
    ] {
        let policy = format!(r#"{{"_type":"deployment","assignments":[{}]}}"#, lines.join(","));
        let deployment = Deployment::parse(policy.as_bytes()).unwrap();
        let owed = deployment.owed(&catalogue, &college, Instant::UNIX_EPOCH);
        let labels: Vec<String> =
            owed.iter().map(|entry| format!("{} {}", entry.listing.name, entry.listing.sequence)).collect();
        assert_eq!(labels, expected, "{policy}");
    }
}

#[test]
fn what_releases_require_is_owed_too_in_the_newest_release_that_does() {
    let requires = |at_most| {
        let package = "jre".parse().unwrap();
        Custom {
            approved: None,
            listing: Listing {
                requires: vec![Relation { package, at_least: None, at_most }],
                ..listing("a", "any", 1, &[])
            },
        }
    };
    let jre = |sequence| Custom { approved: None, listing: listing("jre", "any", sequence, &[]) };
    let unbounded = Custom { approved: None, listing: listing("b", "any", 1, &["jre"]) };
    let catalogue = catalogue_of(vec![requires(Some(2)), unbounded, jre(1), jre(2), jre(3)]);
    let policy = br#"{"_type":"deployment","assignments":[{"mode":"required","package":"a"},{"mode":"available","package":"b"}]}"#;
    let deployment = Deployment::parse(policy).unwrap();
    let owed = deployment.owed(&catalogue, &"57001".parse().unwrap(), Instant::UNIX_EPOCH);
    let labels: Vec<String> =
        owed.iter().map(|entry| format!("{} {}", entry.listing.name, entry.listing.sequence)).collect();
    assert_eq!(labels, ["a 1", "b 1", "jre 2", "jre 3"]);
}
