//! Packages that require and exclude each other go together after every decision, and no brake does anything but withhold.

use proptest::prelude::*;

use super::*;

/// `app` 1 stands alone; `app` 2 requires `lib` from release 2, which conflicts with `old`.
fn app() -> World {
    World::new()
        .release("app", 1, &[])
        .release("app", 2, &["requires lib 2.."])
        .release("lib", 1, &[])
        .release("lib", 2, &["conflicts old"])
        .release("old", 1, &[])
}

#[test]
fn what_is_required_comes_along_and_goes_again() {
    let apps = || app().line("app", "required");
    let alone = "app: keep: it is what the deployment says";
    let comes = "app: install 2: it is not here yet";
    let cases: Vec<(&str, World, Vec<String>)> = vec![
        (
            "what is required comes along",
            apps(),
            vec![comes.into(), "lib: install 2: `app` requires it".into()],
        ),
        (
            "and is updated where it is",
            apps().automatic("lib", 1),
            vec![comes.into(), "lib: update to 2: `app` requires it".into()],
        ),
        (
            "and follows the newest",
            apps().release("lib", 3, &[]).installed("app", 2).automatic("lib", 2),
            vec![alone.into(), "lib: update to 3: `app` requires it".into()],
        ),
        (
            "and stays as long as it is required",
            apps().installed("app", 2).automatic("lib", 2),
            vec![alone.into(), "lib: keep: `app` requires it".into()],
        ),
        (
            "but no longer",
            app().line("app", "required 1").installed("app", 2).automatic("lib", 2),
            vec![
                "app: update to 1: release 2 is here".into(),
                "lib: remove: nothing here requires it any more".into(),
            ],
        ),
        (
            "unless somebody asked for it",
            app()
                .line("app", "required 1")
                .installed("app", 2)
                .automatic("lib", 2)
                .asked("lib", Asker::Anyone),
            vec![
                "app: update to 1: release 2 is here".into(),
                "lib: keep: it is not deployed to college 57001".into(),
            ],
        ),
        (
            "or it is required here",
            app().line("lib", "required").automatic("lib", 2),
            vec!["lib: keep: it is what the deployment says".into()],
        ),
        (
            "being offered is not enough",
            app().line("lib", "available").automatic("lib", 2),
            vec!["lib: remove: nothing here requires it any more".into()],
        ),
        (
            "it is repaired where it is missing",
            apps().installed("app", 2),
            vec![alone.into(), "lib: install 2: `app` requires it".into()],
        ),
    ];
    for (what, world, expected) in cases {
        assert_eq!(world.decides(), expected, "{what}");
    }
}

#[test]
fn what_does_not_fit_is_left_out() {
    let apps = || app().line("app", "required");
    let unfit = "keep: it does not go together with the rest: ";
    let alone = "app: keep: it is what the deployment says";
    let cases: Vec<(&str, World, Vec<String>)> = vec![
        (
            "what is blocked does not come along",
            apps().line("lib", "blocked"),
            vec![
                format!(
                    "app: {unfit}`app` release 2 requires `lib` from release 2, but no release of `lib` may be installed here"
                ),
                "lib: keep: it is blocked here".into(),
            ],
        ),
        (
            "nor what is pinned to another release",
            apps().line("lib", "available 1"),
            vec![
                format!(
                    "app: {unfit}`app` release 2 requires `lib` from release 2, but only `lib` release 1 may be installed here"
                ),
                "lib: keep: it is offered, and nobody here asked for it".into(),
            ],
        ),
        (
            "nor what failed here",
            apps().failed("lib", 2),
            vec![format!(
                "app: {unfit}`app` release 2 requires `lib` from release 2, but no release of `lib` may be installed here"
            )],
        ),
        (
            "what is required elsewhere is not taken away",
            apps().installed("app", 2).installed("lib", 2).line("lib", "removed"),
            vec![
                alone.into(),
                format!(
                    "lib: {unfit}`app` release 2 requires `lib` from release 2, but no release of `lib` may be installed here"
                ),
            ],
        ),
        (
            "what is offered is left out, not what is required",
            app().line("lib", "required").line("old", "available").asked("old", Asker::Anyone),
            vec![
                "lib: install 2: it is not here yet".into(),
                format!("old: {unfit}`lib` release 2 and `old` release 1 exclude each other"),
            ],
        ),
        (
            "whichever says so",
            app().line("old", "required").line("lib", "available").asked("lib", Asker::Anyone),
            vec![
                format!("lib: {unfit}`lib` release 2 and `old` release 1 exclude each other"),
                "old: install 1: it is not here yet".into(),
            ],
        ),
        (
            "what is here stays, and the rest goes on",
            apps().installed("old", 1).release("ruff", 1, &[]).line("ruff", "required"),
            vec![
                format!(
                    "app: {unfit}`app` release 2 requires `lib` from release 2, but `lib` release 2 and `old` release 1 exclude each other"
                ),
                "old: keep: it is not deployed to college 57001".into(),
                "ruff: install 1: it is not here yet".into(),
            ],
        ),
    ];
    for (what, world, expected) in cases {
        assert_eq!(world.decides(), expected, "{what}");
    }
}

#[test]
fn what_is_broken_already_keeps_nothing_else_from_coming() {
    let world =
        app().installed("app", 2).installed("old", 1).release("ruff", 1, &[]).line("ruff", "required");
    let decides = world.decides();
    assert!(decides.contains(&"ruff: install 1: it is not here yet".to_owned()), "{decides:?}");
}

#[test]
fn what_a_pause_leaves_without_its_requirement_waits_too() {
    let update = |world: World| world.release("app", 3, &[]).line("app", "required").paused("app", 3);
    let cases = [
        (
            app().line("app", "required").paused("lib", 2),
            vec![
                "app: keep: it does not go together with the rest: `app` release 2 requires lib from release 2, \
                 which is not to be had now",
                "lib: keep: release 2 is paused since 2026-02-01T00:00:00Z: breaks",
            ],
        ),
        (
            app().line("app", "required").paused("app", 2),
            vec![
                "app: keep: release 2 is paused since 2026-02-01T00:00:00Z: breaks",
                "lib: keep: it does not go together with the rest: what requires it does not come now",
            ],
        ),
        (
            update(app().installed("app", 2).automatic("lib", 2)),
            vec![
                "app: keep: release 3 is paused since 2026-02-01T00:00:00Z: breaks",
                "lib: keep: it does not go together with the rest: `app` release 2 requires lib from release 2, \
                 which is not to be had now",
            ],
        ),
    ];
    for (world, expected) in cases {
        assert_eq!(world.decides(), expected);
    }
}

/// Situations of four packages that require and exclude each other.
fn worlds() -> impl Strategy<Value = World> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let name = || proptest::sample::select(&NAMES[..]);
    let says =
        (name(), 1..4_u64, any::<bool>(), any::<bool>()).prop_map(|(other, bound, least, requires)| {
            let range = if least { format!("{bound}..") } else { format!("..{bound}") };
            format!("{} {other} {range}", if requires { "requires" } else { "conflicts" })
        });
    let release = proptest::collection::vec(says, 0..2);
    let releases = proptest::collection::vec(release, 12);
    let mode = proptest::sample::select(
        &["required", "available", "blocked", "removed", "required 1", "available 2"][..],
    );
    let lines = proptest::collection::vec((name(), mode), 0..5);
    let installed = proptest::collection::vec((name(), 1..4_u64, any::<bool>()), 0..4);
    let asked = proptest::collection::vec(name(), 0..3);
    let odd = proptest::collection::vec((name(), 1..4_u64, any::<bool>()), 0..3);
    (releases, lines, installed, asked, odd).prop_map(|(releases, lines, installed, asked, odd)| {
        let mut world = World::new();
        for (number, says) in releases.iter().enumerate() {
            let name = NAMES[number / 3];
            let own = |say: &&String| say.split(' ').nth(1) != Some(name);
            let says: Vec<&str> = says.iter().filter(own).map(String::as_str).collect();
            world = world.release(name, number as u64 % 3 + 1, &says);
        }
        for (name, mode) in lines {
            world = world.line(name, mode);
        }
        for (name, sequence, automatic) in installed {
            world = if automatic { world.automatic(name, sequence) } else { world.installed(name, sequence) };
        }
        for name in asked {
            world = world.asked(name, Asker::Teacher);
        }
        for (name, sequence, failed) in odd {
            world = if failed { world.failed(name, sequence) } else { world.held(name, sequence) };
        }
        world
    })
}

/// What there will be of each package, with what it says; of those that change.
fn afterwards(
    world: &World,
    decisions: &BTreeMap<PackageName, Decision>,
) -> BTreeMap<PackageName, (bool, u64, Vec<Relation>, Vec<Relation>)> {
    let mut after = BTreeMap::new();
    for (package, decision) in decisions {
        let here = match &decision.action {
            Action::Install(entry) | Action::Update(entry) => {
                let listing = entry.listing.clone();
                Some((true, listing.sequence, listing.requires, listing.conflicts))
            }
            Action::Remove => None,
            Action::Keep => world
                .state
                .installed
                .get(package)
                .cloned()
                .map(|installed| (false, installed.sequence, installed.requires, installed.conflicts)),
        };
        after.extend(here.map(|here| (package.clone(), here)));
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Promise 2, over whatever somebody who holds the brake's key could write: a decision is what it would be without a
    /// brake, or nothing happens.
    #[test]
    fn no_brake_can_do_anything_but_withhold(
        world in worlds(),
        pauses in proptest::collection::vec(
            (
                proptest::sample::select(&["a", "b", "c", "d", "e"][..]),
                0..5_u64,
                proptest::option::of(proptest::sample::select(&["first", "rest", "nobody-knows"][..])),
                proptest::sample::select(&["", "57001", "57002"][..]),
            ),
            0..6,
        ),
    ) {
        let braked = pauses.into_iter().fold(world.clone(), |world, (name, sequence, after, college)| {
            world.paused_for(name, sequence, after, college)
        });
        let (with, without) = (braked.decide(), world.decide());
        prop_assert!(with.keys().eq(without.keys()));
        for (package, with) in &with {
            let without = &without[package];
            let withheld = with.action == Action::Keep
                && with.deadline.is_none()
                && matches!(with.reason(), Some(Reason::Paused { .. } | Reason::Unresolvable { .. }));
            prop_assert!(with == without || withheld, "{package}: {with:?} instead of {without:?}");
        }
    }

    /// With a brake or without: what changes has what it requires and nothing that it excludes, and takes nothing from
    /// what stays.
    #[test]
    fn whatever_changes_goes_together(world in worlds(), pauses in proptest::collection::vec(1..4_u64, 0..3)) {
        let braked = pauses.into_iter().fold(world, |world, sequence| world.paused("b", sequence));
        let decisions = braked.decide();
        let after = afterwards(&braked, &decisions);
        let before = &braked.state.installed;
        let is = |relation: &Relation| after.get(&relation.package).is_some_and(|here| relation.covers(here.1));
        let was = |relation: &Relation| {
            before.get(&relation.package).is_some_and(|here| relation.covers(here.sequence))
        };
        for (package, (comes, _, requires, conflicts)) in &after {
            for relation in requires {
                prop_assert!(is(relation) || !comes && !was(relation), "{package} requires {relation}: {decisions:?}");
            }
            for relation in conflicts {
                prop_assert!(!is(relation) || !comes && was(relation), "{package} excludes {relation}: {decisions:?}");
            }
        }
    }
}
