//! Promise 4. A power cut at any instant leaves the old release or the new one, never a mix; at the next start the
//! machine knows which, and goes on by itself.

use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World};

use crate::all_or_nothing_on_a_node::Random;

/// At least so many kills at random moments.
const KILLS: u32 = 50;
/// One that is left in peace, and those that are killed.
const WORKSTATIONS: usize = 5;

/// A release whose every file says which one it belongs to: a mix would show.
fn app(number: u64) -> App {
    let script = "#!/bin/sh\nfor file in \"${0%/bin/*}\"/lib/*; do cat \"$file\"; done | sort -u\n";
    let app = App::new("hello", number).file("bin/hello", script).noise("data", 6_000_000, number);
    (0..400).fold(app, |app, file| app.file(&format!("lib/f{file}"), format!("release {number}\n")))
}

/// What runs, after checking that it is one release and whole.
fn installed(workstation: &Workstation) -> Option<u64> {
    workstation.run(["verify"]).succeeds();
    let list = workstation.run(["--json", "list"]).succeeds().json();
    let sequence = list["hello"]["sequence"].as_u64()?;
    let current = fs::read_to_string(workstation.root().join("current")).unwrap();
    let launcher = workstation.root().join("generations").join(current.trim()).join("bin/hello");
    let said = std::process::Command::new(launcher).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), format!("release {sequence}\n"));
    Some(sequence)
}

#[test]
fn killed_at_any_moment_it_has_the_old_release_or_the_new_one() {
    let mut world = World::new().college("57001").workstations(WORKSTATIONS).start();
    let random = Random::new(4);
    let (mut killed, mut before_the_switch) = (0, 0);
    // The last ones also sweep what the first ones left.
    for number in 1..=6 {
        world.release(&app(number));
        let college = world.college("57001");
        college.sync();
        let before = (number > 1).then(|| number - 1);
        let verb: &[&str] = if number == 1 { &["install", "hello"] } else { &["update"] };
        // How long it takes when nothing comes between.
        let full = college.workstation(0).run(verb).succeeds().took;
        assert_eq!(installed(college.workstation(0)), Some(number));
        for workstation in (1..WORKSTATIONS).map(|n| college.workstation(n)) {
            // Killed again and again, further on each time, until it gets there.
            for attempt in 1.. {
                let life = random.below(full) * attempt / 3;
                let alive = workstation.run_and_kill(verb, life);
                let now = installed(workstation);
                assert!(
                    now == before || now == Some(number),
                    "{now:?} on the way from {before:?} to {number}"
                );
                if !alive {
                    break;
                }
                killed += 1;
                before_the_switch += u32::from(now == before);
            }
            // It goes on by itself: what was asked for before the cuts is there after the next update.
            workstation.run(["update"]).succeeds();
            assert_eq!(installed(workstation), Some(number));
            assert!(!workstation.root().join("journal/transaction.json").exists());
            let staging = workstation.root().join("staging");
            assert!(!staging.exists() || fs::read_dir(staging).unwrap().next().is_none());
        }
    }
    println!("{killed} kills, {before_the_switch} of them before the switch");
    assert!(killed >= KILLS, "only {killed} commands were still under way when they were killed");
    assert!(before_the_switch >= KILLS / 2, "only {before_the_switch} kills came before the switch");
}

/// The states that a kill within a sweep can leave: the sweep deletes what nothing needs, a file at a time.
#[test]
fn killed_while_sweeping_it_goes_on() {
    let mut world = World::new().college("57001").workstations(1).start();
    let small = |number| App::new("hello", number).file("data", format!("{number}\n"));
    for number in 1..=2 {
        world.release(&small(number));
        world.college("57001").sync();
        world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    }
    let root = world.college("57001").workstation(0).root().to_owned();
    // A generation of which the description is gone and the rest is not.
    fs::remove_file(root.join("generations/1/generation.json")).unwrap();
    // The tree of release 1, of which one file is gone.
    let tree = fs::read_dir(root.join("releases/hello")).unwrap().map(|e| e.unwrap().path());
    let tree =
        tree.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("1-")).unwrap();
    fs::remove_file(tree.join("data")).unwrap();

    world.deploy(&small(1), "all");
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["history"]).succeeds();
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    workstation.run(["verify"]).succeeds();
    assert!(!root.join("generations/1").exists(), "what a sweep left is swept");
}

#[test]
fn a_directory_that_is_no_generation_is_in_nobodys_way() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    let root = world.college("57001").workstation(0).root().to_owned();
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    world.release(&App::new("hello", 2));
    world.college("57001").sync();
    // A directory where the new generation would go.
    fs::create_dir_all(root.join("generations/2/in-the-way")).unwrap();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
}

#[test]
fn going_back_again_and_again_finds_every_generation_it_leads_to() {
    let mut world = World::new().college("57001").workstations(1).start();
    for number in 1..=4 {
        world.release(&App::new("hello", number));
        world.college("57001").sync();
        world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    }
    let workstation = world.college("57001").workstation(0);
    for number in [3, 2, 1] {
        workstation.run(["rollback"]).succeeds();
        assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, format!("hello {number}.0\n"));
    }
}

#[test]
fn an_interrupted_install_is_taken_up_by_the_next_update() {
    let mut world = World::new().college("57001").workstations(1).start();
    let app = App::new("hello", 1).noise("data", 8_000_000, 1);
    world.submit(&app);
    world.approve(&app);
    let deploy = ["deploy", "hello@1.0", "--available", "--colleges", "all", "--key", "keys/operator-1.key"];
    world.publisher(deploy).succeeds();
    world.publish();
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    // Nobody asked for it yet: it is offered, not required.
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.run(["--json", "list"]).succeeds().json(), serde_json::json!({}));
    let journal = workstation.root().join("journal/transaction.json");
    let mut life = Duration::from_millis(30);
    while !journal.exists() {
        assert!(
            workstation.run_and_kill(["install", "hello"], life),
            "it was done before it could be killed"
        );
        life += Duration::from_millis(5);
    }
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.run(["--json", "list"]).succeeds().json()["hello"]["sequence"], 1);
}

#[test]
fn a_wrong_object_from_the_node_changes_nothing() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    world.release(&App::new("hello", 2).noise("data", 3_000_000, 9));
    let college = world.college("57001");
    college.sync();
    for prefix in fs::read_dir(college.node_root().join("objects")).unwrap() {
        for object in fs::read_dir(prefix.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            if fs::metadata(&path).unwrap().len() == 3_000_000 {
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
                fs::write(&path, vec![0; 3_000_000]).unwrap();
            }
        }
    }
    let workstation = college.workstation(0);
    workstation.run(["update"]).fails(4, "does not have its digest");
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    workstation.run(["verify"]).succeeds();
}
