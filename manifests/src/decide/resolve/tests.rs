//! Releases go together exactly when brute force finds a way, and what does not is explained.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// `a` 2, `requires jre 17..`, `conflicts b ..3`: a line of a small world.
fn world(lines: &[&str]) -> BTreeMap<PackageName, Vec<Candidate>> {
    let mut world: BTreeMap<PackageName, Vec<Candidate>> = BTreeMap::new();
    for line in lines {
        let mut parts = line.split(", ");
        let (name, sequence) = parts.next().unwrap().split_once(' ').unwrap();
        let mut candidate =
            Candidate { sequence: sequence.parse().unwrap(), requires: vec![], conflicts: vec![] };
        for part in parts {
            let (verb, other) = part.split_once(' ').unwrap();
            let (package, range) = other.split_once(' ').unwrap_or((other, ".."));
            let (least, most) = range.split_once("..").unwrap();
            let relation = Relation {
                package: package.parse().unwrap(),
                at_least: least.parse().ok(),
                at_most: most.parse().ok(),
            };
            match verb {
                "requires" => candidate.requires.push(relation),
                _ => candidate.conflicts.push(relation),
            }
        }
        world.entry(name.parse().unwrap()).or_default().push(candidate);
    }
    world
}

fn solve(
    world: &BTreeMap<PackageName, Vec<Candidate>>,
    wanted: &[(&str, u64)],
) -> Result<BTreeMap<PackageName, u64>, Unresolvable> {
    let wanted = wanted.iter().map(|(name, sequence)| (name.parse().unwrap(), *sequence)).collect();
    resolve(&wanted, &|package| world.get(package).cloned().unwrap_or_default())
}

/// What is shown, the world, what is wanted of it, what comes.
type Case = (&'static str, &'static [&'static str], &'static [(&'static str, u64)], &'static str);

#[test]
fn what_is_required_comes_along() {
    let cases: [Case; 9] = [
        ("the best first", &["a 1, requires b", "b 3", "b 2"], &[("a", 1)], "a 1, b 3"),
        ("the best that fits", &["a 1, requires b ..2", "b 3", "b 2"], &[("a", 1)], "a 1, b 2"),
        ("on and on", &["a 1, requires b", "b 1, requires c", "c 1"], &[("a", 1)], "a 1, b 1, c 1"),
        ("in a circle", &["a 1, requires b", "b 1, requires a"], &[("a", 1)], "a 1, b 1"),
        (
            "another where the best leads nowhere",
            &["a 1, requires b", "b 2, requires x", "b 1"],
            &[("a", 1)],
            "a 1, b 1",
        ),
        ("a conflict brings nothing in", &["a 1, conflicts b", "b 1"], &[("a", 1)], "a 1"),
        (
            "a conflict chooses another",
            &["a 1, requires b", "b 2, conflicts c", "b 1", "c 1"],
            &[("a", 1), ("c", 1)],
            "a 1, b 1, c 1",
        ),
        ("with itself", &["a 1, conflicts a, requires a 5.."], &[("a", 1)], "a 1"),
        ("nothing else", &["a 1", "b 1", "c 1, requires b"], &[("a", 1)], "a 1"),
    ];
    for (what, lines, wanted, expected) in cases {
        let solved = solve(&world(lines), wanted).unwrap();
        let solved: Vec<String> =
            solved.iter().map(|(name, sequence)| format!("{name} {sequence}")).collect();
        assert_eq!(solved.join(", "), expected, "{what}");
    }
}

/// The world, what is wanted of it, why that cannot be.
type Explained = (&'static [&'static str], &'static [(&'static str, u64)], &'static str);

#[test]
fn what_does_not_go_together_is_explained() {
    let cases: [Explained; 13] = [
        (
            &["geogebra 6, requires jre 17..", "jre 11"],
            &[("geogebra", 6), ("jre", 11)],
            "`geogebra` release 6 requires `jre` from release 17, but only `jre` release 11 may be installed here",
        ),
        (
            &["a 2, conflicts b ..1", "b 1"],
            &[("a", 2), ("b", 1)],
            "`a` release 2 and `b` release 1 exclude each other",
        ),
        (
            &["a 1, requires b"],
            &[("a", 1)],
            "`a` release 1 requires `b`, but no release of `b` may be installed here",
        ),
        (&[], &[("a", 3)], "`a` release 3 may not be installed here"),
        (&["a 1"], &[("a", 3)], "`a` release 3 may not be installed here"),
        (
            &["a 1, requires c 5..", "b 2, requires c ..4", "c 4", "c 5"],
            &[("a", 1), ("b", 2)],
            "`a` release 1 requires `c` from release 5, but `b` release 2 requires `c` up to release 4",
        ),
        (
            &["a 1, requires c 2..", "b 1, requires c ..3", "c 4", "c 1"],
            &[("a", 1), ("b", 1)],
            "1. `a` release 1 requires `c` from release 2. 2. `b` release 1 requires `c` up to release 3. \
             3. Only `c` releases 1, 4 may be installed here.",
        ),
        (
            &["a 1, requires b 2..2", "b 2, requires c", "c 1, conflicts d", "d 1"],
            &[("a", 1), ("d", 1)],
            "1. `a` release 1 requires `b` release 2. 2. `b` release 2 requires `c`. \
             3. `c` release 1 and `d` release 1 exclude each other.",
        ),
        (
            &["a 1, requires b", "b 1, conflicts c", "b 2, conflicts c", "b 3, conflicts c", "c 1"],
            &[("a", 1), ("c", 1)],
            "`a` release 1 requires `b`, but `b` releases 1 to 3 and `c` release 1 exclude each other",
        ),
        (
            &["a 1, requires b 1..3", "b 4"],
            &[("a", 1)],
            "`a` release 1 requires `b` from release 1 to release 3, but only `b` release 4 may be installed here",
        ),
        (
            &["a 1, requires b 3..1", "b 2"],
            &[("a", 1)],
            "`a` release 1 requires a release of `b` that cannot be",
        ),
        (
            &["a 1, requires b", "b 1, requires x", "b 2, requires x"],
            &[("a", 1)],
            "1. `a` release 1 requires `b`. 2. `b` releases 1, 2 require `x`. \
             3. No release of `x` may be installed here.",
        ),
        (
            &[
                "a 1, requires b",
                "b 1, requires c",
                "c 1, requires d",
                "d 1, requires e",
                "e 1, requires f",
                "f 1, requires g",
                "g 1, requires h",
            ],
            &[("a", 1)],
            "1. `a` release 1 requires `b`. 2. `b` release 1 requires `c`. 3. `c` release 1 requires `d`. \
             4. `d` release 1 requires `e`. 5. `e` release 1 requires `f`. 6. And 3 more.",
        ),
    ];
    for (lines, wanted, expected) in cases {
        assert_eq!(solve(&world(lines), wanted).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_explanation_names_its_packages_and_no_others() {
    let world = world(&["a 1, requires b", "b 1, conflicts c", "c 1", "d 1"]);
    let unresolvable = solve(&world, &[("a", 1), ("c", 1), ("d", 1)]).unwrap_err();
    let packages: Vec<&str> = unresolvable.packages.iter().map(PackageName::as_str).collect();
    assert_eq!(packages, ["a", "b", "c"]);
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Small worlds: five packages of at most three releases.
fn worlds() -> impl Strategy<Value = BTreeMap<PackageName, Vec<Candidate>>> {
    let relation = (0..NAMES.len(), proptest::option::of(0..4_u64), proptest::option::of(1..5_u64)).prop_map(
        |(other, at_least, at_most)| Relation { package: NAMES[other].parse().unwrap(), at_least, at_most },
    );
    let relations = proptest::collection::vec(relation, 0..3);
    let release = proptest::option::weighted(0.8, (relations.clone(), relations));
    let package = proptest::collection::vec(release, 3);
    proptest::collection::vec(package, NAMES.len()).prop_map(|packages| {
        let releases = |releases: Vec<Option<(Vec<Relation>, Vec<Relation>)>>| {
            let numbered = [1, 2, 3].into_iter().zip(releases).rev();
            numbered
                .filter_map(|(sequence, relations)| {
                    relations.map(|(requires, conflicts)| Candidate { sequence, requires, conflicts })
                })
                .collect()
        };
        NAMES.iter().zip(packages).map(|(name, own)| (name.parse().unwrap(), releases(own))).collect()
    })
}

/// True when every relation of the releases chosen holds.
fn goes_together(world: &BTreeMap<PackageName, Vec<Candidate>>, chosen: &BTreeMap<PackageName, u64>) -> bool {
    chosen.iter().all(|(name, sequence)| {
        let Some(candidate) = world[name].iter().find(|candidate| candidate.sequence == *sequence) else {
            return false;
        };
        let there = |relation: &Relation| {
            relation.package == *name
                || chosen.get(&relation.package).is_some_and(|other| relation.covers(*other))
        };
        let away = |relation: &Relation| {
            relation.package == *name
                || !chosen.get(&relation.package).is_some_and(|other| relation.covers(*other))
        };
        candidate.requires.iter().all(there) && candidate.conflicts.iter().all(away)
    })
}

/// Every choice there is of at most one release of each package.
fn choices(world: &BTreeMap<PackageName, Vec<Candidate>>) -> Vec<BTreeMap<PackageName, u64>> {
    let mut choices = vec![BTreeMap::new()];
    for (name, candidates) in world {
        let with = |choice: &BTreeMap<PackageName, u64>| {
            let choice = choice.clone();
            candidates.iter().map(move |candidate| {
                let mut choice = choice.clone();
                choice.insert(name.clone(), candidate.sequence);
                choice
            })
        };
        let more: Vec<_> = choices.iter().flat_map(with).collect();
        choices.extend(more);
    }
    choices
}

/// The packages that requirements lead to from those that are wanted.
fn reachable(
    world: &BTreeMap<PackageName, Vec<Candidate>>,
    wanted: &BTreeMap<PackageName, u64>,
    chosen: &BTreeMap<PackageName, u64>,
) -> BTreeSet<PackageName> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<PackageName> = wanted.keys().cloned().collect();
    while let Some(name) = waiting.pop() {
        let Some(sequence) = chosen.get(&name) else { continue };
        if reached.insert(name.clone()) {
            let own = world[&name].iter().find(|candidate| candidate.sequence == *sequence).unwrap();
            waiting.extend(own.requires.iter().map(|relation| relation.package.clone()));
        }
    }
    reached
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_solution_is_found_exactly_when_there_is_one(
        world in worlds(),
        wanted in proptest::collection::btree_map(0..NAMES.len(), 1..4_u64, 1..4),
    ) {
        let wanted: BTreeMap<PackageName, u64> =
            wanted.into_iter().map(|(name, sequence)| (NAMES[name].parse().unwrap(), sequence)).collect();
        let oracle = choices(&world).into_iter().any(|choice| {
            wanted.iter().all(|(name, sequence)| choice.get(name) == Some(sequence))
                && goes_together(&world, &choice)
        });
        match resolve(&wanted, &|package| world[package].clone()) {
            Ok(solved) => {
                prop_assert!(oracle && goes_together(&world, &solved), "{solved:?}");
                prop_assert!(wanted.iter().all(|(name, sequence)| solved.get(name) == Some(sequence)));
                prop_assert_eq!(reachable(&world, &wanted, &solved), solved.keys().cloned().collect());
            }
            Err(unresolvable) => {
                prop_assert!(!oracle, "{unresolvable}");
                prop_assert!(!unresolvable.packages.is_empty() && !unresolvable.why.is_empty());
            }
        }
    }
}
