//! The incident: the disk is full, at any write; somebody copied a film to the server's disk, or the college was owed more than its
//! node can hold.
//!
//! The promise: never a half state. What was served goes on being served, whole; an alarm says what has no room; what is given up
//! first is what is only worth having, then what nobody is owed, the cheapest first, and never what is owed (7). When there is
//! room again, the next sync completes by itself.

use std::path::Path;

use fs_err as fs;
use mirabelle_tests::{App, College, World};

use super::{Node, alarms, app, copy, for_every_change, nodes, served, status, until};
use crate::fake_machine::SmallDisk;

/// From any change on, whatever needs room fails.
fn full_from_every_change(nodes: &[Node], name: &str, before: &Path, new: Option<u64>) -> u64 {
    let old = served(before);
    for_every_change(nodes, |node, number| {
        let cell = format!("{name}, full from change {number} on");
        node.put_back(before);
        let outcome = node.with_fault(&["sync"], &format!("{number}:full"));
        let full = outcome.code != Some(0);
        if full {
            assert_eq!(outcome.code, Some(5), "{cell}: {}", outcome.stderr);
            assert!(
                outcome.stderr.contains("full") && !outcome.stderr.contains("panicked"),
                "{cell}: {}",
                outcome.stderr
            );
        }
        let now = node.whole(&cell);
        assert!(now == old || now == new, "{cell}: {now:?}");
        assert!(full || now == new, "{cell}: it said that it was done");
        // Somebody made room.
        let again = node.run(&["sync"]);
        assert_eq!(again.code, Some(0), "{cell}: {}", again.stderr);
        assert_eq!(node.whole(&cell), new, "{cell}");
        full
    })
}

#[test]
fn the_disk_may_be_full_from_any_change_on() {
    let mut world = World::new().deltas().college("57001").start();
    let nodes = nodes(&mut world, "full");
    let kept = |name: &str| nodes[0].root.with_file_name(format!("kept-{name}"));
    let publishes = |world: &World, number: u64, before: &str| {
        world.release(&app(number));
        nodes[1].put_back(&kept(before));
        nodes[1].run(&["sync"]).succeeds();
        served(&nodes[1].root)
    };
    copy(&nodes[0].root, &kept("empty"));
    let new = publishes(&world, 1, "empty");
    copy(&nodes[1].root, &kept("first"));
    let first = full_from_every_change(&nodes, "first mirror", &kept("empty"), new);
    let new = publishes(&world, 2, "first");
    let update = full_from_every_change(&nodes, "update", &kept("first"), new);
    println!("full from {first} changes on the way to the first catalogue, {update} to the next");
    assert!(first > 40 && update > 30, "changes are not counted");
}

#[test]
fn a_small_disk_is_filled_up_to_the_last_block_and_no_further() {
    let mut world = World::new().college("57001").start();
    world.release(&app(1));
    let small = world.path("small");
    let disk = SmallDisk::mount(&small, 20_000);
    let origin = world.origin().to_owned();
    let mut node = Node::like(world.college("57001"), small.join("node"), &origin);
    node.options.extend(["--disk-reserve", "0 B"].map(str::to_owned));
    node.run(&["sync"]).succeeds();
    let old = node.whole("roomy");
    world.release(&app(2));
    let used = {
        let said =
            std::process::Command::new("df").args(["--output=used", "-k"]).arg(&small).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    let mut times = 0;
    for room in (used..).step_by(12) {
        assert!(room < 20_000, "it takes no end of room");
        disk.resize(room);
        let outcome = node.run(&["sync"]);
        if outcome.code == Some(0) {
            break;
        }
        times += 1;
        let said = outcome.stderr.contains("full") || outcome.stderr.contains("no room");
        assert!(outcome.code == Some(5) && said, "{}", outcome.stderr);
        assert_eq!(node.whole("full"), old);
    }
    disk.resize(20_000);
    node.run(&["sync"]).succeeds();
    assert!(node.whole("roomy again") > old);
    println!("the disk was full {times} times");
    assert!(times >= 5, "{times}");
}

/// Bytes that the node's directory takes.
fn weight(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { weight(&entry.path()) } else { entry.metadata().unwrap().len() }
            },
        )
        .sum()
}

fn holds(college: &College, app: &App, path: &str) -> bool {
    let name = mirabelle_manifests::Digest::of(&app.content(path)).fanned_out();
    college.node_root().join("objects").join(name).is_file()
}

fn noisy(name: &str, number: u64, bytes: usize) -> App {
    App::new(name, number).noise("data", bytes, number * 31 + bytes as u64)
}

#[test]
fn what_is_owed_and_has_no_room_raises_an_alarm_and_harms_nothing() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&noisy("small", 1, 400_000));
    let college = world.college("57001");
    college.sync();
    college.stop_node();
    world.release(&noisy("large", 1, 5_000_000));
    let college = world.college("57001");
    college.options(["--disk-quota", "3 MB"]);
    let old = served(&college.node_root());
    college.start_node();
    let said = until(college.running_node().unwrap(), "the alarm", |said| {
        alarms(said).contains(&"no-room".to_owned())
    });
    assert_eq!(said["alarms"]["no-room"]["alarm"]["releases"][0], "large 1.0", "{said:#}");
    assert!(said["last_failure"].as_str().unwrap().contains("no room"), "{said:#}");
    assert_eq!(served(&college.node_root()), old);
    college.workstation(0).run(["install", "small"]).succeeds();
    let since = said["alarms"]["no-room"]["since"].clone();
    college.stop_node();
    // Started anew, it is the same alarm.
    college.start_node();
    let node = college.running_node().unwrap();
    let before = status(node)["plan"][0]["attempts"].clone();
    let said = until(node, "another attempt", |said| said["plan"][0]["attempts"] != before);
    assert_eq!(said["alarms"]["no-room"]["since"], since, "{said:#}");
    college.stop_node();
    college.node(["fsck"]).succeeds();
    // Somebody raises the quota.
    college.options(["--disk-quota", "30 MB"]);
    college.start_node();
    until(college.running_node().unwrap(), "the end of the alarm", |said| {
        !alarms(said).contains(&"no-room".to_owned()) && said["releases"].as_array().unwrap().len() == 2
    });
    college.workstation(0).run(["install", "large"]).succeeds();
}

#[test]
fn the_scarcer_room_gets_the_more_is_given_up_and_never_what_is_owed() {
    let mut world = World::new().college("57001").college("57002").start();
    // The second is what is worth having beside the third: the release before it.
    let apps = [1, 2, 3].map(|number| noisy("hello", number, 2_000_000));
    world.release(&apps[1]);
    world.release(&apps[2]);
    let college = world.college("57002");
    college.node(["sync"]).succeeds();
    assert!(
        holds(college, &apps[1], "data") && holds(college, &apps[2], "data"),
        "where there is room, both"
    );
    // Tight once the third is here.
    let quota = weight(&college.node_root()) - 2_000_000 + 100_000;
    let college = world.college("57001");
    college.options(["--disk-quota", &format!("{quota} B")]);
    college.node(["sync"]).succeeds();
    assert!(holds(college, &apps[2], "data") && !holds(college, &apps[1], "data"), "speculative things stop");
    college.node(["fsck"]).succeeds();

    // Three that nobody is owed any more: they go for one that is, the cheapest first.
    let mut world = World::new().college("57001").start();
    let old = [("cheap", 600_000), ("dearer", 900_000), ("dearest", 2_000_000)];
    let old = old.map(|(name, bytes)| noisy(name, 1, bytes));
    let pinned = noisy("pinned", 1, 700_000);
    for app in old.iter().chain([&pinned]) {
        world.release(app);
    }
    world.college("57001").node(["sync"]).succeeds();
    for app in &old {
        let label = app.label();
        let name = label.split('@').next().unwrap().to_owned();
        let key = ["--key", "keys/operator-1.key"];
        world
            .publisher(["deploy", &name, "--colleges", "all", "--removed"].into_iter().chain(key))
            .succeeds();
    }
    world.publish();
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    assert!(old.iter().all(|app| holds(college, app, "data")), "they stay for a week, where there is room");
    let needed = noisy("needed", 1, 1_200_000);
    world.release(&needed);
    let college = world.college("57001");
    // Room for the new one if the two cheaper ones go.
    let quota = weight(&college.node_root()) + 100_000;
    college.options(["--disk-quota", &format!("{quota} B")]);
    college.node(["sync"]).succeeds();
    let held = old.each_ref().map(|app| holds(college, app, "data"));
    assert_eq!(held, [false, false, true], "the cheapest first, and no more than needed");
    assert!(holds(college, &pinned, "data") && holds(college, &needed, "data"));
    college.node(["fsck"]).succeeds();

    // What does not fit even so is not begun, and what is pinned stays.
    let huge = noisy("huge", 1, 6_000_000);
    world.release(&huge);
    let college = world.college("57001");
    let before = served(&college.node_root());
    college.node(["sync"]).fails(5, "there is no room for `huge 1.0`");
    assert_eq!(served(&college.node_root()), before);
    assert!(holds(college, &pinned, "data") && holds(college, &needed, "data"));
    college.node(["fsck"]).succeeds();
}
