//! A college that is cut off goes on with what it knew, for as long as root grants and no longer, and says so; a clock that
//! is wrong opens no door, and leaves nothing broken once it is set.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use mirabelle_tests::{App, Fault, Outcome, World, run, with_clock};

/// A college whose first workstation knows `hello` 2, has 1, and whose second knows nothing.
fn world() -> World {
    let mut world = World::new().college("57001").workstations(2).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["install", "hello"]).succeeds();
    world.release(&App::new("hello", 2));
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["refresh"]).succeeds();
    world
}

/// Runs a workstation's command with its clock set: `+20d`, or a date.
fn at(world: &mut World, workstation: usize, clock: &str, arguments: &[&str]) -> Outcome {
    let command = world.college("57001").workstation(workstation).command();
    run(with_clock(clock, &command).args(arguments).env_remove("MIRABELLE_LOG"))
}

#[test]
fn what_was_known_is_installed_within_the_grace_and_not_beyond() {
    let mut world = world();
    // Timestamps last 14 days, the grace 30 more.
    at(&mut world, 0, "+50d", &["update"]).fails(4, "`timestamp` expired at");
    let late = at(&mut world, 0, "+20d", &["--json", "update"]).succeeds();
    assert!(late.stderr.contains("has not been renewed since"), "{}", late.stderr);
    assert!(late.json()["stale_since"].is_string());
    let said = world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, "hello 2.0\n");
    // One that verified nothing before has nothing to go on with.
    at(&mut world, 1, "+20d", &["install", "hello"]).fails(4, "`timestamp` expired at");

    // The node says since when, and goes on serving.
    let node = world.college("57001").node_command();
    let status = run(with_clock("+20d", &node).args(["--json", "status"]));
    let status = status.succeeds().json();
    assert_eq!(status["stale"], true);
    assert!(status["stale_since"].is_string());
    assert_eq!(world.college("57001").node(["--json", "status"]).succeeds().json()["stale"], false);
}

#[test]
fn nothing_newer_is_accepted_once_it_has_expired() {
    let mut world = world();
    world.release(&App::new("hello", 3));
    world.college("57001").sync();
    // Its node offers release 3, in metadata that has expired by now: it stays with what it verified, release 2.
    at(&mut world, 0, "+20d", &["update"]).succeeds();
    let said = world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, "hello 2.0\n");
    world.college("57001").workstation(0).run(["update"]).succeeds();
    let said = world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, "hello 3.0\n");
}

#[test]
fn a_refresh_that_was_cut_leaves_what_was_complete_before() {
    let mut world = world();
    world.release(&App::new("hello", 3));
    let college = world.college("57001");
    college.sync();
    // With its link the node would mend what it serves.
    college.stop_node();
    college.wan().fail(Fault::Down);
    college.start_node();
    // The refresh has its timestamp, and then no more.
    let served = college.node_root().join("served/metadata");
    let timestamp: serde_json::Value =
        serde_json::from_slice(&fs_err::read(served.join("timestamp.json")).unwrap()).unwrap();
    let snapshot =
        served.join(format!("{}.snapshot.json", timestamp["signed"]["meta"]["snapshot.json"]["version"]));
    let encoded = college.node_root().join("served/encoded");
    let away = college.node_root().join("away");
    fs_err::rename(&snapshot, &away).unwrap();
    fs_err::remove_dir_all(encoded).unwrap();
    college.workstation(0).run(["refresh"]).fails(3, "does not exist");
    assert!(college.workstation(0).run(["search", "hello"]).succeeds().stdout.contains("hello"));
    // Nobody mends it, and freshness ends: release 2 is what was verified whole.
    at(&mut world, 0, "+20d", &["update"]).succeeds();
    let said = world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, "hello 2.0\n");
    fs_err::rename(&away, &snapshot).unwrap();
    world.college("57001").workstation(0).run(["update"]).succeeds();
    let said = world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, "hello 3.0\n");
}

#[test]
fn whoever_reads_while_a_refresh_is_under_way_reads_one_of_both() {
    let mut world = world();
    let over = AtomicBool::new(false);
    let commands: Vec<_> = (0..2).map(|_| world.college("57001").workstation(0).command()).collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = commands
            .iter()
            .map(|command| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !over.load(Ordering::Relaxed) {
                        run(Command::new(command.get_program())
                            .args(command.get_args())
                            .args(["search", "hello"]))
                        .succeeds();
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for _ in 0..8 {
            world.publish();
            world.college("57001").sync();
            world.college("57001").workstation(0).run(["refresh"]).succeeds();
        }
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 8);
        }
    });
}

#[test]
fn a_clock_that_is_wrong_is_noticed_and_does_no_lasting_harm() {
    let mut world = world();
    // A dead battery. The machine goes on, and says what is wrong.
    let past = at(&mut world, 0, "@1970-02-01 00:00:00", &["refresh"]).succeeds();
    assert!(past.stderr.contains("this machine's clock says 1970-"), "{}", past.stderr);
    // A clock ten years ahead makes everything look expired: refused, with the thought that it may be the clock.
    at(&mut world, 0, "+3650d", &["update"]).fails(4, "If this machine's clock is wrong, set it");
    // Set right, everything is as before: no time was learnt from the clock.
    let right = world.college("57001").workstation(0).run(["--json", "update"]).succeeds();
    assert!(right.json()["stale_since"].is_null());
    assert!(!right.stderr.contains("warning"), "{}", right.stderr);
}
