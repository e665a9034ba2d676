//! What a machine says of itself reaches the origin once and in order, through cuts and crashes; nobody says it for another.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use mirabelle_fleet::{CollegeCode, Enrolment, Event, Nonce, Power, Report, Signed, SignedReport};
use mirabelle_keys::SigningKey;
use mirabelle_tests::{App, College, Fault, Postgres, World, get, post};
use serde_json::Value;

use crate::agents::{Agent, configure, eventually};

const LONGEST: Duration = Duration::from_mins(2);

/// Two colleges, `hello` for whoever asks for it there, and an origin that listens.
fn world() -> World {
    world_with("embedded")
}

fn world_with(engine: &str) -> World {
    let mut world =
        World::new().fleet(engine).college("57001").workstations(2).college("57002").workstations(1).start();
    let hello = App::new("hello", 1);
    world.submit(&hello);
    world.approve(&hello);
    let deploy = ["deploy", "hello@1.0", "--available", "--colleges", "all", "--key", "keys/operator-1.key"];
    world.publisher(deploy).succeeds();
    world.publish();
    for code in ["57001", "57002"] {
        world.college(code).sync();
    }
    world
}

fn code(college: &College) -> CollegeCode {
    college.node(["--json", "college-code"]).succeeds().json()["code"].as_str().unwrap().parse().unwrap()
}

/// An agent that has its college's code, and asks every second.
pub(crate) fn reporting(college: &College, number: usize) -> Agent {
    let workstation = college.workstation(number);
    let agent = "[agent]\nrefresh-every = \"1 s\"\nstore-port = 0\n";
    if !workstation.root().join("college.code").exists() {
        configure(workstation, agent);
        fs::write(workstation.root().join("college.code"), code(college).shown().as_str()).unwrap();
    }
    Agent::start(workstation, None)
}

/// Waits until a college's node has knocked, and accepts it.
pub(crate) fn accept(world: &World, college: &str) {
    accept_in(world, "embedded", college);
}

fn accept_in(world: &World, engine: &str, college: &str) {
    let waits = || {
        let nodes = world.publisher(["--json", "node", "list", "--fleet", engine]).succeeds().json();
        let mut nodes = nodes.as_array().unwrap().clone();
        nodes.retain(|node| node["college"] == college);
        nodes
            .first()
            .filter(|node| node["accepted"].is_null())
            .map(|node| node["key"].as_str().unwrap().to_owned())
    };
    assert!(eventually(LONGEST, || waits().is_some()), "the node of {college} never knocked");
    world.publisher(["node", "accept", college, &waits().unwrap()[..12], "--fleet", engine]).succeeds();
}

fn machines(world: &World, college: &str) -> Vec<Value> {
    let machines = world.publisher(["--json", "machines", "--college", college]).succeeds().json();
    machines.as_array().unwrap().clone()
}

fn machine(world: &World, college: &str, name: &str) -> Option<Value> {
    machines(world, college).into_iter().find(|machine| machine["name"] == name)
}

fn name(college: &College, number: usize) -> String {
    let text = fs::read_to_string(college.workstation(number).root().join("client.toml")).unwrap();
    text.parse::<toml::Table>().unwrap()["machine"].as_str().unwrap().to_owned()
}

/// What a machine reported, the oldest first.
fn events(world: &World, college: &str, name: &str) -> Vec<Value> {
    let events = world.publisher(["--json", "machines", "--college", college, name]).succeeds().json();
    let mut events = events.as_array().unwrap().clone();
    events.reverse();
    events
}

/// The workstation has said that `hello` is there, or not; the node may have heard it or not.
fn has_told(root: &Path, is_there: bool) -> bool {
    let reports = fs::read(root.join("reports.json")).unwrap();
    let reports: Value = serde_json::from_slice(&reports).unwrap();
    reports["packages"].get("hello").is_some() == is_there
}

/// Workstations of a college are called alike: the test gives them names of their own.
pub(crate) fn call(college: &College, number: usize, name: &str) {
    let path = college.workstation(number).root().join("client.toml");
    let own = self::name(college, number);
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace(&format!("machine = \"{own}\""), &format!("machine = \"{name}\""));
    fs::write(path, text).unwrap();
}

#[test]
fn what_machines_are_and_do_is_known_at_the_origin() {
    let mut world = world();
    for code in ["57001", "57002"] {
        call(world.college(code), 0, "b12-01");
    }
    let agents: Vec<Agent> = ["57001", "57002"].map(|code| reporting(world.college(code), 0)).into();
    for code in ["57001", "57002"] {
        accept(&world, code);
    }
    world.college("57001").workstation(0).run(["--wait", "install", "hello"]).succeeds();
    let has_hello = || {
        machine(&world, "57001", "b12-01")
            .is_some_and(|machine| machine["state"]["releases"]["hello"] == "1.0")
    };
    assert!(eventually(LONGEST, has_hello), "{:?}\n{}", machines(&world, "57001"), agents[0].log());
    let there = machine(&world, "57001", "b12-01").unwrap();
    assert!(there["state"]["hardware"]["memory_mib"].as_u64().unwrap() > 100, "{there:#}");
    assert_eq!(there["missing"], 0);
    // In order, each once.
    let events = events(&world, "57001", "b12-01");
    let numbers: Vec<u64> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["enrolled", "power", "inventory"]);
    let changed = events.iter().find(|event| event["kind"] == "changed").unwrap();
    assert_eq!(changed["report"]["event"]["package"], "hello");
    assert_eq!(changed["report"]["event"]["to"], "1.0");
    // The nodes speak for themselves: what they hold, and the snapshot at which that was whole.
    let node = machine(&world, "57001", "").unwrap();
    assert_eq!(node["state"]["releases"], 1, "{node:#}");
    assert!(node["state"]["complete_at"].as_u64().is_some(), "{node:#}");
    assert!(
        eventually(LONGEST, || machine(&world, "57002", "b12-01").is_some()),
        "the other college is heard"
    );
    // A node that nobody accepts any more is heard no more.
    world.publisher(["node", "remove", "57002"]).succeeds();
    world.college("57002").workstation(0).run(["--wait", "install", "hello"]).succeeds();
    accept_again(&world);
}

/// The node knocks again, and what it kept meanwhile comes.
fn accept_again(world: &World) {
    accept(world, "57002");
    let came = || {
        machine(world, "57002", "b12-01")
            .is_some_and(|machine| machine["state"]["releases"]["hello"] == "1.0")
    };
    assert!(eventually(LONGEST, came), "{:?}", machines(world, "57002"));
}

#[test]
fn a_workstation_that_is_enrolled_with_the_code_keeps_it_to_itself() {
    let mut world = world();
    let root = world.trusted_root();
    let college = world.college("57001");
    let (code, workstation) = (code(college), college.workstation(1));
    fs::remove_dir_all(workstation.root()).unwrap();
    let enroll = |code: &str| {
        let mut command = workstation.command();
        command.args(["enroll", "--college", "57001", "--node", &college.lan().address(), "--code", code]);
        mirabelle_tests::run(command.arg("--trusted-root").arg(&root))
    };
    enroll("K7QF-2M9X").fails(2, "sixteen letters and digits");
    // As somebody types it.
    enroll(&code.shown().to_lowercase().replace('-', " ")).succeeds();
    let path = workstation.root().join("college.code");
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), code.shown().as_str());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&college.node_root().join("fleet/code"))), (0o600, 0o600));
}

#[test]
fn a_link_that_is_cut_and_a_node_that_dies_lose_nothing() {
    let mut world = world();
    call(world.college("57001"), 0, "b12-01");
    let agent = reporting(world.college("57001"), 0);
    accept(&world, "57001");
    assert!(eventually(LONGEST, || machine(&world, "57001", "b12-01").is_some()));
    world.college("57001").wan().fail(Fault::Down);
    for _ in 0..3 {
        let college = world.college("57001");
        college.workstation(0).run(["--wait", "install", "hello"]).succeeds();
        assert!(eventually(LONGEST, || has_told(college.workstation(0).root(), true)), "{}", agent.log());
        college.workstation(0).run(["--wait", "remove", "hello"]).succeeds();
        assert!(eventually(LONGEST, || has_told(college.workstation(0).root(), false)), "{}", agent.log());
        // As a power cut would, and what was answered for is there.
        college.kill_node();
        college.start_node();
    }
    let node = world.college("57001").running_node().unwrap().address().to_owned();
    let waiting = || {
        let status: Value = serde_json::from_slice(&get(&node, "status", "").body).unwrap();
        status["reports_waiting"].as_u64().unwrap()
    };
    assert!(eventually(LONGEST, || waiting() > 0), "{}", agent.log());
    world.college("57001").wan().fail(Fault::None);
    let changes = || {
        let events = events(&world, "57001", "b12-01");
        events.iter().filter(|event| event["kind"] == "changed").count()
    };
    assert!(eventually(LONGEST, || changes() >= 6), "{} changes\n{}", changes(), agent.log());
    assert_eq!(changes(), 6);
    let machine = machine(&world, "57001", "b12-01").unwrap();
    assert_eq!(machine["missing"], 0, "{machine:#}");
}

#[test]
fn a_postgresql_that_goes_away_and_comes_back_has_everything() {
    let mut postgres = Postgres::start();
    let engine = postgres.url();
    let mut world = world_with(&engine);
    call(world.college("57001"), 0, "b12-01");
    let agent = reporting(world.college("57001"), 0);
    accept_in(&world, &engine, "57001");
    let workstation = world.college("57001").workstation(0);
    let (mut install, root) = (workstation.command(), workstation.root().to_owned());
    let machine = || {
        let listed = ["--json", "machines", "--college", "57001", "--fleet", &engine];
        let machines = world.publisher(listed).succeeds().json();
        machines.as_array().unwrap().iter().find(|machine| machine["name"] == "b12-01").cloned()
    };
    assert!(eventually(LONGEST, || machine().is_some()), "{}", agent.log());
    postgres.kill();
    world.publisher(["machines", "--fleet", &engine]).fails(5, "cannot open the fleet's state in 127.0.0.1");
    // The origin serves files as ever, and the node keeps what it cannot hand on.
    assert_eq!(get(world.origin(), "metadata/timestamp.json", "").status(), 200);
    mirabelle_tests::run(install.args(["--wait", "install", "hello"])).succeeds();
    assert!(eventually(LONGEST, || has_told(&root, true)), "{}", agent.log());
    postgres.run();
    let has_hello = || machine().is_some_and(|machine| machine["state"]["releases"]["hello"] == "1.0");
    assert!(eventually(LONGEST, has_hello), "{:?}\n{}", machine(), agent.log());
    assert_eq!(machine().unwrap()["missing"], 0);
}

/// Something in the college's network that speaks the protocol, and lies.
struct Liar {
    node: String,
    key: Arc<SigningKey>,
    name: String,
    number: u64,
}

impl Liar {
    fn new(node: &str, name: &str) -> Self {
        Self {
            node: node.to_owned(),
            key: Arc::new(SigningKey::generate()),
            name: name.to_owned(),
            number: 0,
        }
    }

    fn report(&mut self, event: Event) -> SignedReport {
        self.number += 1;
        let report = Report {
            at: jiff::Timestamp::now(),
            college: "57001".parse().unwrap(),
            event,
            machine: Some(self.name.parse().unwrap()),
            number: self.number,
        };
        SignedReport::sign(&report, &self.key).unwrap()
    }

    fn enrol(&mut self, code: &CollegeCode) -> u16 {
        let key = Box::new(self.key.public());
        let first = self.report(Event::Enrolled { key });
        let body = Enrolment::new(first, code).to_bytes().unwrap();
        post(&self.node, "fleet/57001/machines", "Content-Type: application/json\r\n", &body).status()
    }

    /// The header lines of a signed request.
    fn sign(&self, path: &str, body: &[u8]) -> String {
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))]);
        let moment = (jiff::Timestamp::now(), &Nonce::random());
        Signed::sign(&self.key, &Method::POST, path, &mut headers, body, moment).unwrap();
        headers.iter().fold(String::new(), |lines, (name, value)| {
            format!("{lines}{name}: {}\r\n", value.to_str().unwrap())
        })
    }

    fn send(&self, lines: &str) -> u16 {
        let headers = self.sign("/fleet/57001/reports", lines.as_bytes());
        post(&self.node, "fleet/57001/reports", &headers, lines.as_bytes()).status()
    }
}

#[test]
fn nobody_speaks_for_another_or_floods_the_node() {
    let mut world = world();
    let college = world.college("57001");
    let (node, code) = (college.running_node().unwrap().address().to_owned(), code(college));
    let on = || Event::Power { power: Power::On };
    let mut liar = Liar::new(&node, "b12-07");
    let line = liar.report(on()).to_line().unwrap();
    assert_eq!(liar.send(&line), 401, "nobody enrolled it");
    liar.number = 0;
    assert_eq!(liar.enrol(&CollegeCode::generate()), 403, "with a code of its own");
    liar.number = 0;
    assert_eq!(liar.enrol(&code), 200);
    let line = liar.report(on()).to_line().unwrap();
    assert_eq!(liar.send(&line), 200);
    assert_eq!(liar.send(&line), 200, "sent twice, it counts once");

    // For another machine, with its own key; and with another's, which it has not.
    let mut other = Liar::new(&node, "b12-08");
    assert_eq!(other.enrol(&code), 200);
    liar.name = "b12-08".to_owned();
    let forged = liar.report(on()).to_line().unwrap();
    assert_eq!(liar.send(&forged), 403);
    let others = other.report(on()).to_line().unwrap();
    assert_eq!(liar.send(&others), 403);
    liar.name = "b12-07".to_owned();
    liar.number -= 1;

    // The same request once more, and one whose body was changed.
    let line = liar.report(on()).to_line().unwrap();
    let headers = liar.sign("/fleet/57001/reports", line.as_bytes());
    assert_eq!(post(&node, "fleet/57001/reports", &headers, line.as_bytes()).status(), 200);
    assert_eq!(post(&node, "fleet/57001/reports", &headers, line.as_bytes()).status(), 409);
    let headers = liar.sign("/fleet/57001/reports", b"{}");
    assert_eq!(post(&node, "fleet/57001/reports", &headers, line.as_bytes()).status(), 403);
    assert_eq!(post(&node, "fleet/57001/reports", "", line.as_bytes()).status(), 400, "not signed");

    // Two with one key: the number is taken.
    let number = liar.number;
    let collides = SignedReport::sign(
        &Report {
            at: jiff::Timestamp::now(),
            college: "57001".parse().unwrap(),
            event: Event::Lost { count: 1 },
            machine: Some("b12-07".parse().unwrap()),
            number,
        },
        &liar.key,
    );
    assert_eq!(liar.send(&collides.unwrap().to_line().unwrap()), 410);

    // More than a machine can have to say.
    let flood: Vec<String> = (0..700).map(|_| liar.report(on()).to_line().unwrap()).collect();
    let sent: Vec<u16> = flood.chunks(100).map(|lines| liar.send(&lines.join("\n"))).collect();
    assert_eq!(sent.last(), Some(&429), "{sent:?}");
    // Another college's node knows nothing of this one.
    let elsewhere = world.college("57002").running_node().unwrap().address().to_owned();
    let headers = liar.sign("/fleet/57001/reports", b"");
    assert!([404, 405].contains(&post(&elsewhere, "fleet/57001/reports", &headers, b"").status()));
}

#[test]
fn a_stolen_nodes_key_counts_for_its_college_alone() {
    let mut world = world();
    accept(&world, "57001");
    accept(&world, "57002");
    let pem = fs::read_to_string(world.college("57001").node_root().join("identity.key")).unwrap();
    let mut thief = Liar::new(world.origin(), "b12-07");
    thief.key = Arc::new(SigningKey::from_unsealed_pem(&pem).unwrap());
    let packed = mirabelle_transfer::reports::pack([""]).unwrap();
    let send = |college: &str| {
        let path = format!("fleet/{college}/reports");
        let headers = thief.sign(&format!("/{path}"), &packed);
        post(world.origin(), &path, &headers, &packed).status()
    };
    assert_eq!(send("57001"), 200);
    assert_eq!(send("57002"), 403);
    // Nothing is read there, by whomever.
    assert_eq!(get(world.origin(), "fleet/57001/reports", "").status(), 404);
    world.publisher(["node", "remove", "57001"]).succeeds();
    assert_eq!(send("57001"), 403);
}

#[test]
fn a_cloned_disk_gets_a_key_of_its_own() {
    let mut world = world();
    call(world.college("57001"), 0, "b12-01");
    let first = reporting(world.college("57001"), 0);
    accept(&world, "57001");
    assert!(eventually(LONGEST, || machine(&world, "57001", "b12-01").is_some()));
    first.stop();
    // The second has the first one's disk, key and all, and a name of its own.
    let college = world.college("57001");
    let (from, to) = (college.workstation(0).root().to_owned(), college.workstation(1).root().to_owned());
    fs::remove_dir_all(&to).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).status();
    assert!(copied.unwrap().success());
    let agents = [reporting(college, 0), reporting(college, 1)];
    college.workstation(0).run(["--wait", "install", "hello"]).succeeds();
    college.workstation(1).run(["--wait", "install", "hello"]).succeeds();
    let key = |root: &Path| fs::read(root.join("machine.key")).unwrap();
    let told_apart = || {
        let both = [&from, &to].map(|root| {
            let reports: Value =
                serde_json::from_slice(&fs::read(root.join("reports.json")).unwrap()).unwrap();
            reports["enrolled"] == true && reports["waiting"].as_array().is_some_and(Vec::is_empty)
        });
        both == [true, true] && key(&from) != key(&to)
    };
    assert!(eventually(LONGEST, told_apart), "{}\n{}", agents[0].log(), agents[1].log());
}
