//! An operator decides what goes where, how and when: she sees what she changes and what is doubtful about it before she
//! signs, and what cannot be followed is never signed.

use fs_err as fs;
use mirabelle_manifests::network::{DEPLOYMENT_TARGET, deployment_role};
use mirabelle_manifests::{AssignmentMode, Deployment, Track};
use mirabelle_tests::{App, Outcome, World};

const KEY: [&str; 2] = ["--key", "keys/operator-1.key"];

/// Two releases of `hello` and one of `tool`, all approved.
fn world() -> World {
    let world = World::new().start();
    for app in [App::new("hello", 1), App::new("hello", 2), App::new("tool", 1)] {
        world.submit(&app);
        world.approve(&app);
    }
    world
}

fn deploy<'a>(world: &World, arguments: impl IntoIterator<Item = &'a str>) -> Outcome {
    world.publisher(["deploy"].into_iter().chain(arguments).chain(KEY))
}

/// The deployment that is signed.
fn signed(world: &World) -> Deployment {
    let shown = world.publisher(["--json", "deploy", "--show"]).succeeds();
    Deployment::parse(shown.stdout.as_bytes()).unwrap()
}

fn version(world: &World) -> u64 {
    let role = fs::read(world.path(&format!("repository/roles/{}.json", deployment_role()))).unwrap();
    serde_json::from_slice::<serde_json::Value>(&role).unwrap()["signed"]["version"].as_u64().unwrap()
}

#[test]
fn one_command_says_whom_which_how_and_until_when() {
    let world = world();
    let college =
        deploy(&world, ["hello@1.0", "--colleges", "57001,57002", "--until", "2099-07-03"]).succeeds();
    let words = "new: hello: release 1 (1.0) until 2099-07-04T00:00:00Z is required at college 57001, 57002";
    assert!(college.stderr.contains(words), "{}", college.stderr);
    assert!(college.stderr.contains("touches hello at college 57001, 57002"), "{}", college.stderr);
    assert!(college.stdout.contains("deployed `hello 1.0` to college 57001, 57002"), "{}", college.stdout);

    deploy(
        &world,
        ["hello", "--newest", "--available-to-teachers", "--colleges", "57001", "--rooms", "B12,B13"],
    )
    .succeeds();
    deploy(
        &world,
        ["tool", "--newest", "--available", "--colleges", "all", "--deadline", "2099-01-01T00:00:00Z"],
    )
    .succeeds();
    deploy(&world, ["tool", "--blocked", "--tags", "exam", "--machines", "b12-03"]).succeeds();
    deploy(&world, ["games", "--removed", "--platforms", "linux-x86_64"]).succeeds();

    let policy = signed(&world);
    let said: Vec<String> = policy
        .assignments
        .iter()
        .map(|line| {
            assert!(line.since.is_some(), "rings count from when it was decided");
            format!("{} {} {}, {}", line.package, line.mode, line.to, line.track)
        })
        .collect();
    assert_eq!(
        said,
        [
            "hello required college 57001, 57002, release 1 (1.0) until 2099-07-04T00:00:00Z",
            "hello available to teachers room B12, B13; college 57001, the newest release",
            "tool available to everyone all colleges, the newest release",
            "tool blocked machine b12-03; tag exam, the newest release",
            "games removed system linux-x86_64, the newest release",
        ]
    );
    // What the same audience had is replaced; colleges that get something else leave the others' line.
    deploy(&world, ["hello@2.0", "--colleges", "57002"]).succeeds();
    let policy = signed(&world);
    let pins: Vec<(String, u64)> = policy
        .assignments
        .iter()
        .filter_map(|line| match line.track {
            Track::Pinned { sequence, .. } => Some((line.to.to_string(), sequence)),
            Track::Newest => None,
        })
        .collect();
    assert_eq!(pins, [("college 57001".to_owned(), 1), ("college 57002".to_owned(), 2)]);
    assert!(policy.assignments.iter().any(|line| line.mode == AssignmentMode::Removed));
}

#[test]
fn a_dry_run_shows_everything_and_changes_nothing() {
    let world = world();
    let before = version(&world);
    let shown = world
        .publisher(["deploy", "hello@1.0", "--colleges", "all", "--deadline", "2020-01-01", "--dry-run"])
        .succeeds();
    for words in [
        "new: hello: release 1 (1.0) is required at all colleges, there until 2020-01-02T00:00:00Z",
        "touches hello at all colleges",
        "warning: hello: its deadline 2020-01-02T00:00:00Z is past",
        "would deploy `hello 1.0` to all colleges",
    ] {
        assert!(shown.stdout.contains(words), "{words} is missing in\n{}", shown.stdout);
    }
    let json = world
        .publisher(["--json", "deploy", "hello@1.0", "--colleges", "57001", "--dry-run"])
        .succeeds()
        .json();
    assert_eq!(json["touches"]["packages"][0], "hello");
    assert_eq!(json["touches"]["colleges"][0], "57001");
    assert_eq!((json["changes"].as_array().unwrap().len(), &json["findings"]), (1, &serde_json::json!([])));
    assert!(json.get("signed").is_none());
    assert_eq!((version(&world), signed(&world)), (before, Deployment::default()));
}

#[test]
fn the_policy_is_a_file_that_people_edit() {
    let world = world();
    deploy(&world, ["hello@1.0", "--colleges", "57001"]).succeeds();
    let shown = world.publisher(["deploy", "--show"]).succeeds().stdout;
    fs::write(world.path("policy.toml"), &shown).unwrap();
    let before = version(&world);
    assert!(deploy(&world, ["--policy", "policy.toml"]).succeeds().stdout.contains("nothing changes"));
    assert_eq!(version(&world), before);

    let more = r#"
[groups.exams]
tags = ["exam"]
[rollouts.careful]
rings = [{ name = "first", percent = 5, soak-hours = 24, to = { groups = ["exams"] } }]
[[values]]
values = { proxy = "http://proxy.example:3128" }
"#;
    fs::write(world.path("policy.toml"), format!("{shown}{more}")).unwrap();
    let replaced = deploy(&world, ["--policy", "policy.toml"]).succeeds();
    for words in [
        "new: group `exams` is tag exam",
        "new: rollout `careful` has the rings `first`, 5 in a hundred at group exams",
        "new: value `proxy` at all colleges is \"http://proxy.example:3128\"",
        "warning: rollout careful: no assignment follows it",
    ] {
        assert!(replaced.stderr.contains(words), "{words} is missing in\n{}", replaced.stderr);
    }
    deploy(&world, ["hello", "--newest", "--groups", "exams", "--rollout", "careful"]).succeeds();
    assert_eq!(signed(&world).assignments.len(), 2);

    // What is wrong is named with its line, or its name; nothing is signed.
    let (before, policy) = (version(&world), fs::read_to_string(world.path("policy.toml")).unwrap());
    for (from, to, words) in [
        ("mode = \"required\"", "mode = \"needed\"", "line 2"),
        ("percent = 5", "percent = 500", "percent"),
        (
            "percent = 5",
            "percent = 0",
            "the rollout `careful` has no rings, two of one name, a percentage outside 1 to 100",
        ),
        ("groups = [\"exams\"]", "groups = [\"exam\"]", "names `exam`, which the deployment does not define"),
        ("[[values]]", "[[value]]", "unknown field `value`"),
    ] {
        fs::write(world.path("policy.toml"), policy.replace(from, to)).unwrap();
        deploy(&world, ["--policy", "policy.toml"]).fails(2, words);
    }
    deploy(&world, ["--policy", "absent.toml"]).fails(2, "`absent.toml` does not exist");
    deploy(&world, ["--edit"]).fails(2, "there is no terminal to edit at");
    assert_eq!(version(&world), before);
}

#[test]
fn calendars_become_holidays_and_lessons() {
    let world = World::new().start();
    let event = |lines: &str| format!("BEGIN:VEVENT\r\n{lines}\r\nEND:VEVENT\r\n");
    let calendar = |events: &str| format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n");
    let autumn = event("SUMMARY:Toussaint\r\nDTSTART;VALUE=DATE:20991017\r\nDTEND;VALUE=DATE:20991102");
    fs::write(world.path("holidays.ics"), calendar(&autumn)).unwrap();
    let lesson = "SUMMARY:M1\r\nDTSTART;TZID=Europe/Paris:20260907T080000\r\nDURATION:PT4H\r\nRRULE:FREQ=WEEKLY;BYDAY=MO,TU";
    fs::write(world.path("lessons.ics"), calendar(&event(lesson))).unwrap();

    let taken = deploy(&world, ["--holidays", "holidays.ics"]).succeeds();
    let words = "new: hours of all colleges: holidays from 2099-10-17 to 2099-11-01 (Toussaint)";
    assert!(taken.stderr.contains(words), "{}", taken.stderr);
    let taken = deploy(&world, ["--lessons", "lessons.ics", "--colleges", "57001"]).succeeds();
    for words in ["lessons on mon, tue from 08:00 to 12:00", "the clocks are those of Europe/Paris"] {
        assert!(taken.stderr.contains(&format!("new: hours of college 57001: {words}")), "{}", taken.stderr);
    }
    assert!(deploy(&world, ["--holidays", "holidays.ics"]).succeeds().stdout.contains("nothing changes"));

    let before = version(&world);
    for (name, content, words) in [
        (
            "utc.ics",
            calendar(&event(&lesson.replace(";TZID=Europe/Paris:20260907T080000", ":20260907T080000Z"))),
            "its event `M1` is in UTC",
        ),
        ("other.ics", calendar(&event(&lesson.replace("Paris", "Berlin"))), "Europe/Berlin"),
        ("empty.ics", calendar(""), "it holds no events that come every week"),
        ("deep.ics", "BEGIN:A\r\n".repeat(1000), "deeper in each other than 8"),
        ("none.ics", "hello".to_owned(), "it is no calendar"),
    ] {
        fs::write(world.path(name), content).unwrap();
        let refused = deploy(&world, ["--lessons", name, "--colleges", "57001"]).fails(2, words);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
    fs::write(world.path("large.ics"), vec![b' '; (1 << 20) + 1]).unwrap();
    let refused = deploy(&world, ["--holidays", "large.ics"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("large.ics"), "{}", refused.stderr);
    assert_eq!(version(&world), before);
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let world = world();
    for (arguments, code, words) in [
        (vec!["hello@1.0"], 2, "for whom?"),
        (vec!["hello", "--colleges", "all"], 2, "which release of `hello`?"),
        (vec!["hello@1.0", "--newest", "--colleges", "all"], 2, "name it without its version"),
        (vec!["hello@1.0", "--blocked", "--colleges", "all"], 2, "name it without its version"),
        (vec!["hello@3.0", "--colleges", "all"], 1, "`hello@3.0` is not approved"),
        (vec!["absent", "--newest", "--colleges", "all"], 1, "no release of `absent` is approved"),
        (vec!["hello@1.0", "--colleges", "all,57001"], 2, "`all` colleges leaves no others to name"),
        (vec!["hello@1.0", "--groups", "exams"], 2, "names `exams`, which the deployment does not define"),
        (vec!["hello@1.0", "--colleges", "all", "--rollout", "careful"], 2, "names `careful`"),
    ] {
        deploy(&world, arguments).fails(code, words);
    }
    for arguments in [
        vec![],
        vec!["hello@1.0", "--show"],
        vec!["hello@1.0", "--available", "--blocked", "--colleges", "all"],
        vec!["--policy", "p.toml", "--edit"],
        vec!["--show", "--colleges", "57001"],
        vec!["hello@1.0", "--colleges", "all", "--until", "soon"],
    ] {
        let refused = deploy(&world, arguments.iter().copied());
        assert_eq!(refused.code, Some(2), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!(signed(&world), Deployment::default());
    // Nobody else's key signs it.
    world
        .publisher(["deploy", "hello@1.0", "--colleges", "all", "--key", "keys/approver-1.key"])
        .fails(4, "does not hold the role");
    assert!(!world.path(&format!("repository/public/{DEPLOYMENT_TARGET}")).exists());
}
