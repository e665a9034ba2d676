//! Promise 4, from within: a release that is whole and does not work is taken back by itself, and not tried again by itself.
//! `why` names what failed; a later release comes as any other; who asks for it by hand has it tried again.

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World};

use crate::fake_machine::{calls, configured, native, on_machine, own_system, sets};

fn world(first: &App) -> World {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(first);
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    own_system(workstation);
    workstation.run(["update"]).succeeds();
    world
}

fn release(world: &mut World, app: &App) {
    world.release(app);
    world.college("57001").sync();
}

fn says(workstation: &Workstation, number: u64) {
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, format!("hello {number}.0\n"));
    workstation.run(["verify"]).succeeds();
    assert!(!workstation.root().join("journal/transaction.json").exists());
}

fn quarantined(workstation: &Workstation) -> Vec<String> {
    let state = fs::read(workstation.root().join("state.json")).unwrap_or_else(|_| b"{}".to_vec());
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let failed = state["quarantine"].as_object().cloned().unwrap_or_default();
    failed.values().map(|failed| failed["why"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_fails_its_checks_is_taken_back_and_waits_for_a_better_one() {
    let mut world = world(&App::new("hello", 1));
    let launcher = "[[check]]\ntype = \"launcher\"\nlauncher = \"hello\"\narguments = [\"--version\"]\n";
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo no library; exit 3; }\necho hello 2.0\n";
    let file = "[[check]]\ntype = \"file\"\npath = \"/etc/hello.d/made\"\n";
    let broken = [
        (App::new("hello", 2).file("bin/hello", script).recipe(launcher), "no library"),
        (App::new("hello", 3).recipe(file), "`/etc/hello.d/made` is not there"),
        (App::new("hello", 4).check("echo wrong >&2; exit 1"), "it ended with 1: wrong"),
        (
            App::new("hello", 5)
                .recipe("[[check]]\ntype = \"command\"\ncommand = [\"sleep\", \"60\"]\nseconds = 1\n"),
            "it did not end in its time",
        ),
        (
            App::new("hello", 6).recipe("[[check]]\ntype = \"command\"\ncommand = [\"/nowhere/check\"]\n"),
            "could not be started",
        ),
    ];
    for (count, (app, words)) in broken.iter().enumerate() {
        release(&mut world, app);
        let workstation = world.college("57001").workstation(0);
        let outcome = workstation.run(["update"]).fails(1, words);
        assert!(outcome.stderr.contains("what was there before is there again"), "{}", outcome.stderr);
        says(workstation, 1);
        let failed = quarantined(workstation);
        assert_eq!(failed.len(), count + 1);
        assert!(failed.iter().any(|why| why.contains(words)), "{failed:?}");
        // No second attempt by itself: nothing fails, nothing is made.
        let generations = || fs::read_dir(workstation.root().join("generations")).unwrap().count();
        let before = generations();
        let quiet = workstation.run(["update"]).succeeds();
        assert!(quiet.stdout.contains("failed here at"), "{}", quiet.stdout);
        assert_eq!(generations(), before);
        let why = workstation.run(["why", "hello"]).succeeds().stdout;
        assert!(why.contains(words) && why.contains("what helps: "), "{why}");
    }
    // Whoever asks by hand has it tried again, and it fails again.
    world.college("57001").workstation(0).run(["install", "hello"]).fails(1, "could not be started");
    says(world.college("57001").workstation(0), 1);
    let failed = quarantined(world.college("57001").workstation(0));
    assert!(failed.iter().any(|why| why.contains("could not be started")), "{failed:?}");
    // What comes later is not held back.
    release(&mut world, &App::new("hello", 7).check("true"));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    says(workstation, 7);
}

#[test]
fn who_asks_by_hand_has_it_tried_again_and_may_be_lucky() {
    let mut world = world(&App::new("hello", 1));
    release(
        &mut world,
        &App::new("hello", 2).recipe("[[check]]\ntype = \"file\"\npath = \"/etc/licence\"\n"),
    );
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).fails(1, "`/etc/licence` is not there");
    fs::write(workstation.root().join("system/etc/licence"), "1234").unwrap();
    workstation.run(["update"]).succeeds();
    says(workstation, 1);
    workstation.run(["install", "hello"]).succeeds();
    says(workstation, 2);
    assert!(quarantined(workstation).is_empty());
}

#[test]
fn one_that_fails_keeps_no_other_from_coming() {
    let mut world = world(&App::new("hello", 1));
    let other = App::new("other", 1);
    world.submit(&other);
    world.approve(&other);
    world.deploy(&other, "all");
    release(&mut world, &App::new("hello", 2).check("exit 1"));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).fails(1, "`hello` 2.0 does not work");
    says(workstation, 1);
    assert_eq!(workstation.launch("other", &[]).succeeds().stdout, "other 1.0\n");
}

#[test]
fn a_first_install_that_fails_leaves_nothing() {
    let mut world = world(&App::new("other", 1));
    release(&mut world, &sets(native(App::new("hello", 1), "hello", ""), "hello", "x\n", "").check("exit 1"));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).fails(1, "`hello` 1.0 does not work");
    assert!(!workstation.root().join("active/bin/hello").exists());
    assert_eq!(on_machine(workstation.root(), "hello"), None);
    assert_eq!(configured(workstation.root(), "hello"), None);
    workstation.run(["verify"]).succeeds();
    assert_eq!(workstation.launch("other", &[]).succeeds().stdout, "other 1.0\n");
    assert!(workstation.run(["update"]).succeeds().stdout.contains("failed here at"));
    assert_eq!(calls(workstation.root(), "install hello 1.0"), 1, "it was tried once");
}

#[test]
fn an_installer_that_cannot_is_taken_back_and_not_tried_again() {
    let first = native(App::new("hello", 1), "hello", "");
    let mut world = world(&first);
    let broken = |number: u64, install: &str, more: &str| {
        let app = native(App::new("hello", number), "hello", more);
        let good = format!(r#"["{{release}}/bin/manager", "install", "hello", "{number}.0"]"#);
        app.replaced(&format!("install = {good}"), &format!("install = {install}"))
    };
    let cases = [
        (
            broken(2, r#"["sh", "-c", "echo no space for it; exit 7"]"#, ""),
            "it ended with 7: no space for it",
        ),
        (broken(3, r#"["true"]"#, ""), "is not found on the machine"),
        (broken(4, r#"["/nowhere/setup"]"#, ""), "could not be started"),
        (broken(5, r#"["sleep", "60"]"#, "seconds = 1\n"), "it did not end in its time"),
    ];
    for (count, (app, words)) in cases.iter().enumerate() {
        release(&mut world, app);
        let workstation = world.college("57001").workstation(0);
        workstation.run(["update"]).fails(1, words);
        says(workstation, 1);
        assert_eq!(on_machine(workstation.root(), "hello").unwrap(), "1.0");
        assert_eq!(quarantined(workstation).len(), count + 1);
        workstation.run(["update"]).succeeds();
        says(workstation, 1);
    }
    // Busy is no fault of the release: it is tried again.
    release(&mut world, &broken(6, r#"["sh", "-c", "exit 118"]"#, "exit-codes = { \"118\" = \"later\" }\n"));
    let workstation = world.college("57001").workstation(0);
    for _ in 0..2 {
        workstation.run(["update"]).fails(1, "it ended with 118");
        says(workstation, 1);
    }
    assert_eq!(quarantined(workstation).len(), cases.len());
}
