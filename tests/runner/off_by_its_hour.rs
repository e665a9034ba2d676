//! Promise 8. A workstation is up to date and powered off by the hour set for it, or off with the reason reported; whoever
//! works on after the hour is left in peace.

use std::io::{Read, Write};
use std::process::Command;

use fs_err as fs;
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

/// `hello` 1 on each of six workstations; 2 is due, and quick; so is `slow` 1, of which the health check takes a
/// minute.
fn world() -> World {
    let mut world = World::new().college("57001").workstations(6).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    for number in 0..6 {
        college.workstation(number).run(["install", "hello"]).succeeds();
    }
    world.release(&App::new("hello", 2));
    let slow = App::new("slow", 1)
        .recipe("[[check]]\ntype = \"command\"\ncommand = [\"sleep\", \"60\"]\nseconds = 200\n");
    world.submit(&slow);
    world.approve(&slow);
    world
        .publisher([
            "deploy",
            "slow@1.0",
            "--colleges",
            "all",
            "--tags",
            "slow",
            "--key",
            "keys/operator-1.key",
        ])
        .succeeds();
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

#[test]
fn an_agent_that_is_started_anew_keeps_its_hour_and_leaves_alone_what_is_used() {
    let mut world = world();
    let college = world.college("57001");
    let (again, used) = (college.workstation(4), college.workstation(5));
    // At both somebody sits.
    let powers = [again, used].map(|workstation| Power::connect(workstation, 0));
    let held = fs::File::open(used.root().join("active/apps/hello/bin/hello")).unwrap().into_file();
    let mut reader = Command::new("sleep").arg("600").stdin(held).spawn().unwrap();
    let agents = [Agent::start(again, Some("18:29:15")), Agent::start(used, Some("18:29:15"))];
    agents[0]
        .until("the evening's work", || kept(again, "evening.json")["done"] == serde_json::json!(["hello"]));
    let [first, waiting] = agents;
    first.kill();
    // The service manager starts it again, and the hour has come meanwhile.
    let second = Agent::start(again, Some("18:31:00"));
    second.until("going off although somebody sits there", || powers[0].went_off().is_some());

    waiting.until("the hour", || powers[1].went_off().is_some());
    let evening = kept(used, "evening.json");
    assert_eq!(evening["left"][0]["package"], "hello", "{evening}");
    assert_eq!(evening["left"][0]["why"]["why"], "in-use", "{evening}");
    assert_eq!(sequence(used, "hello"), Some(1));
    assert!(reader.try_wait().unwrap().is_none());
    reader.kill().unwrap();
    reader.wait().unwrap();
}

#[test]
fn a_node_wakes_whoever_asked_it() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    let network = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    network.set_read_timeout(Some(std::time::Duration::from_mins(2))).unwrap();
    let path = college.node_root().join("node.toml");
    let known = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("wake-to = \"{}\"\n{known}", network.local_addr().unwrap())).unwrap();
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let ask = |mac: &str| post(&node, &format!(r#"{{"machine":"b12-03","mac":["{mac}"],"at":"{at}"}}"#));
    assert!(ask("02:00:00").starts_with("HTTP/1.1 400 "));
    assert!(ask("02:00:00:12:34:56").starts_with("HTTP/1.1 200 "));
    let mut packet = [0; 200];
    let (length, _) = network.recv_from(&mut packet).unwrap();
    assert_eq!(length, 102);
    assert!(packet[6..102].chunks(6).all(|part| part == [2, 0, 0, 0x12, 0x34, 0x56]));
    assert!(jiff::Timestamp::now() >= at, "not before its hour");
}

/// Posts JSON to a node's `wake-ups`; returns what it answers.
fn post(node: &str, json: &str) -> String {
    let address = node.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = json.len();
    let request = format!(
        "POST /wake-ups HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{json}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
