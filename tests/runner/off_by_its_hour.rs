//! Promise 8. A workstation is up to date and powered off by the hour set for it, or off with the reason reported; whoever
//! works on after the hour is left in peace.

use mirabelle_tests::{App, World};

use crate::agents::{Agent, Power, deploy_also, kept, sequence};

/// Off at 18:30 of every day, the evening half an hour before.
const HOURS: &str = r#"
[[hours]]
time-zone = "UTC"
evening-minutes = 30
idle-minutes = 20
windows = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], from = "03:00", to = "03:01" }]
shutdown = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], at = "18:30" }]
wake = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], at = "07:30" }]
"#;

/// `hello` 1 on each of four workstations; 2 is due, and quick; so is `slow` 1, of which the health check takes a
/// minute.
fn world() -> World {
    let mut world = World::new().college("57001").workstations(4).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    for number in 0..4 {
        college.workstation(number).run(["install", "hello"]).succeeds();
    }
    world.release(&App::new("hello", 2));
    let slow = App::new("slow", 1)
        .recipe("[[check]]\ntype = \"command\"\ncommand = [\"sleep\", \"60\"]\nseconds = 200\n");
    world.submit(&slow);
    world.approve(&slow);
    world.publisher(["deploy", "slow@1.0", "--colleges", "all", "--tags", "slow", "--key", "keys/operator-1.key"]).succeeds();
    deploy_also(&world, HOURS);
    world.publish();
    world.college("57001").sync();
    world
}

#[test]
fn the_evening_installs_what_fits_and_ends_at_its_hour() {
    let mut world = world();
    let college = world.college("57001");
    let (quick, slow, late, busy) =
        (college.workstation(0), college.workstation(1), college.workstation(2), college.workstation(3));
    crate::agents::configure(slow, "tags = [\"slow\"]\n");
    let powers = [quick, slow, late].map(|workstation| Power::connect(workstation, 3600));
    let working = Power::connect(busy, 60);
    // Three quarters of a minute before the hour: of the slow one's minute, less remains.
    let mut agents = [
        Agent::start(quick, Some("18:29:15")),
        Agent::start(slow, Some("18:29:15")),
        // Somebody switched these on after the hour; at one of them somebody works.
        Agent::start(late, Some("20:00:00")),
        Agent::start(busy, Some("20:00:00")),
    ];

    // After the hour, with nothing that may be done now and nobody there, it goes off at once.
    agents[2].until("going off after the hour", || powers[2].went_off().is_some());
    assert_eq!(sequence(late, "hello"), Some(1), "no window is open");

    agents[0].until("the hour", || powers[0].went_off().is_some());
    let off = powers[0].went_off().unwrap();
    assert!(off.as_str() >= "18:30:00" && off.as_str() < "18:30:20", "it went off at {off}");
    assert_eq!(sequence(quick, "hello"), Some(2));
    let evening = kept(quick, "evening.json");
    assert_eq!(evening["done"], serde_json::json!(["hello"]), "{evening}");
    assert_eq!(evening["left"], serde_json::json!([]));
    assert!(evening["switched_off"].is_string());
    assert_eq!(powers[0].holds(), ["held", "released"], "shutdowns are held off for as long as it installs");

    // What does not end in time is ended, whatever it is.
    agents[1].until("the hour", || powers[1].went_off().is_some());
    let off = powers[1].went_off().unwrap();
    assert!(off.as_str() >= "18:30:00" && off.as_str() < "18:30:20", "it went off at {off}");
    let evening = kept(slow, "evening.json");
    assert_eq!(evening["done"], serde_json::json!(["hello"]), "{evening}");
    assert_eq!(evening["left"][0]["package"], "slow");
    assert_eq!(evening["left"][0]["why"]["why"], "cut-off", "{evening}");
    slow.run(["status"]).succeeds();

    assert!(agents[3].is_alive() && working.went_off().is_none(), "{}", agents[3].log());
    for agent in agents {
        agent.kill();
    }
    // The next start makes up its mind before anybody logs in: here or not, never half.
    slow.run(["verify"]).succeeds();
}
