//! The incident: a battery that is dead, so that the machine believes it is 1970; a clock that somebody set a decade ahead; a
//! département that is cut off for a week; signatures that nobody renews.
//!
//! The promise: nothing is destroyed on the word of a clock, what was complete goes on being served, what somebody must know is said
//! once, in time and again after no restart, and all of it is over when the clock, the link or the signature is right.

use jiff::SignedDuration;
use mirabelle_manifests::Instant;
use mirabelle_tests::{College, Fault, Running, World, run, with_clock};
use serde_json::Value;

use super::{alarms, app, served, until};

const PAST: &str = "@1970-02-01 00:00:00";
const FUTURE: &str = "+3650d";

/// The node's service, by this clock.
fn starts(college: &College, clock: &str) -> Running {
    let mut command = college.node_command();
    command.args(["--json", "--sync-every", "10 h", "run"]);
    Running::start(&mut with_clock(clock, &command))
}

/// What was found at the end of a sync, good or bad, and after it.
fn synced(node: &Running, is_good: bool) -> Value {
    until(node, "the first sync", |said| {
        said["last_failure"].is_string() != is_good && said["refreshed"].is_string()
    })
}

fn is_on(said: &Value, name: &str) -> bool {
    alarms(said).iter().any(|alarm| alarm == name)
}

fn objects(college: &College) -> usize {
    let checked = college.node(["--json", "fsck"]).succeeds().json();
    usize::try_from(checked["objects"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_clock_at_1970_is_said_and_destroys_nothing() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(3));
    let college = world.college("57001");
    let before = objects(college);
    // The first release is retired at this clock, once the third is served.
    let retired = college.node_root().join("retired.json");
    let node = starts(college, PAST);
    let said = until(&node, "the alarm", |said| {
        is_on(said, "clock") && said["releases"][0]["version"] == "3.0" && retired.exists()
    });
    assert!(said["last_failure"].is_null(), "{said:#}");
    node.kill();
    assert!(objects(college) > before, "what is new has come, and nothing went");
    // Whatever the clock says, it was not retired a lifetime ago.
    let retired = fs_err::read_to_string(&retired).unwrap();
    assert!(retired.contains("\"20") && !retired.contains("\"1970"), "{retired}");
    // Started at 1970 once more, the alarm is not raised once more.
    let node = starts(college, PAST);
    let again = until(&node, "the alarm", |said| is_on(said, "clock"));
    assert_eq!(again["alarms"]["clock"]["since"], said["alarms"]["clock"]["since"]);
    node.kill();
    let held = objects(college);
    let node = starts(college, "+0d");
    let said = until(&node, "the end of the alarm", |said| {
        said["alarms"].as_object().is_some_and(serde_json::Map::is_empty)
    });
    assert!(said["refreshed"].as_str().unwrap() > "2026", "{said:#}");
    node.kill();
    // What was retired in 1970 was retired a moment ago.
    college.node(["sync"]).succeeds();
    assert_eq!(objects(college), held);
    college.sync();
    college.workstation(0).run(["install", "hello"]).succeeds();
}

#[test]
fn a_clock_ten_years_ahead_destroys_nothing_and_leaves_no_trace() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let (before, was_served) = (objects(college), served(&college.node_root()));
    let node = starts(college, FUTURE);
    let said = synced(&node, false);
    assert!(said["stale"] == true, "{said:#}");
    let said = until(&node, "the alarms", |said| is_on(said, "stale"));
    assert!(is_on(&said, "no-upstream"), "{said:#}");
    // It goes on serving: whose clock is right may install.
    college.lan().lead_to(node.address());
    college.workstation(0).run(["install", "hello"]).succeeds();
    node.kill();
    assert_eq!((objects(college), served(&college.node_root())), (before, was_served));
    let node = starts(college, "+0d");
    until(&node, "the end of the alarms", |said| {
        said["last_failure"].is_null() && said["alarms"].as_object().is_some_and(serde_json::Map::is_empty)
    });
    node.kill();
    world.release(&app(2));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    college.node(["fsck"]).succeeds();
}

#[test]
fn a_week_without_upstream_is_served_through_and_said_once() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let was_served = served(&college.node_root());
    college.wan().fail(Fault::Down);
    let node = starts(college, "+8d");
    let week = until(&node, "the alarm", |said| is_on(said, "no-upstream"));
    assert!(week["stale"] == false, "timestamps last two weeks: {week:#}");
    college.lan().lead_to(node.address());
    let command = college.workstation(0).command();
    run(with_clock("+8d", &command).args(["install", "hello"])).succeeds();
    node.kill();
    // Started anew, and a week later: the same alarm, and one more.
    let node = starts(college, "+15d");
    let later = until(&node, "the second alarm", |said| is_on(said, "stale"));
    assert_eq!(later["alarms"]["no-upstream"]["since"], week["alarms"]["no-upstream"]["since"]);
    assert_eq!(alarms(&later), ["no-upstream", "stale"]);
    node.kill();
    assert_eq!(served(&college.node_root()), was_served);
    // The link is up again, and the publisher renewed what is fresh.
    college.wan().fail(Fault::None);
    renew(&world, "+15d");
    let college = world.college("57001");
    let node = starts(college, "+15d");
    until(&node, "the end of the alarms", |said| {
        said["last_failure"].is_null() && said["alarms"].as_object().is_some_and(serde_json::Map::is_empty)
    });
    node.kill();
    run(with_clock("+15d", &college.node_command()).arg("fsck")).succeeds();
}

/// The publisher renews what is fresh, by this clock.
fn renew(world: &World, clock: &str) {
    let mut command = world.publisher_command();
    command.args(["publish", "--key", "keys/online.key", "--without-deltas"]);
    run(&mut with_clock(clock, &command)).succeeds();
}

#[test]
fn what_expires_is_said_thirty_days_seven_and_one_before() {
    let mut world = World::new().college("57001").start();
    world.release(&app(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    // Of what people signed, what expires first.
    let expiry = |role: &str| {
        let bytes = fs_err::read(college.node_root().join(format!("trust/{role}.json"))).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        document["signed"]["expires"].as_str().unwrap().parse::<Instant>().unwrap()
    };
    let roles = ["root", "targets", "catalogue", "deployment"];
    let (expires, role) = roles.map(|role| (expiry(role), role)).into_iter().min().unwrap();
    let mut known = Vec::new();
    for (before, name) in [
        (SignedDuration::from_hours(24 * 31), None),
        (SignedDuration::from_hours(24 * 29), Some(30)),
        (SignedDuration::from_hours(24 * 6), Some(7)),
        (SignedDuration::from_hours(20), Some(1)),
    ] {
        let clock = format!("+{}s", (expires - before).duration_since(Instant::now()).as_secs());
        renew(&world, &clock);
        let college = world.college("57001");
        // Twice: what was said is not said again.
        for _ in 0..2 {
            let node = starts(college, &clock);
            let said = until(&node, "the sync", |said| {
                said["refreshed"].as_str().is_some_and(|at| {
                    at.parse::<Instant>().unwrap() > expires - before - SignedDuration::from_secs(5)
                }) && said["last_failure"].is_null()
                    && name.is_none_or(|days| is_on(said, &format!("expiry-{role}-{days}")))
            });
            let on: Vec<(String, Value)> = alarms(&said)
                .into_iter()
                .filter(|alarm| alarm.starts_with(&format!("expiry-{role}-")))
                .map(|alarm| (alarm.clone(), said["alarms"][&alarm]["since"].clone()))
                .collect();
            assert_eq!(on.len(), usize::from(name.is_some()), "{on:?}");
            if !known.is_empty() {
                assert_eq!(on, known, "raised once");
            }
            known = on;
            node.kill();
        }
        known.clear();
    }
}
