//! A release goes from ring to ring while it does well, and no further when it does not, with nobody watching.

use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::{App, World, run, with_clock};
use serde_json::Value;

use crate::agents::{Agent, eventually};
use crate::every_machine_is_heard::{accept, call, reporting};

const LONGEST: Duration = Duration::from_mins(3);

/// College 57001 is the first ring, everybody else comes a day later; `hello 1.0` is everywhere already.
fn world(engine: &str) -> (World, Vec<Agent>) {
    let mut world =
        World::new().fleet(engine).college("57001").workstations(2).college("57002").workstations(1).start();
    world.submit(&App::new("hello", 1));
    world.approve(&App::new("hello", 1));
    world.deploy_policy("[[assignments]]\npackage = \"hello\"\nmode = \"required\"\n");
    world.publish();
    let mut agents = Vec::new();
    for (code, names) in [("57001", vec!["b12-01", "b12-02"]), ("57002", vec!["c3-01"])] {
        world.college(code).sync();
        for (number, name) in names.iter().enumerate() {
            call(world.college(code), number, name);
            agents.push(reporting(world.college(code), number));
        }
        accept(&world, code);
        for number in 0..names.len() {
            has(&mut world, code, number, "1.0");
        }
    }
    let shown = world.publisher(["deploy", "--show"]).succeeds().stdout;
    let shown = shown.replace("package = \"hello\"", "package = \"hello\"\nrollout = \"careful\"");
    assert!(shown.contains("careful"), "{shown}");
    world.deploy_policy(&format!(
        "{shown}\n[rollouts.careful]\nhalt = {{ success-percent = 60 }}\n\
         rings = [{{ name = \"first\", percent = 100, soak-hours = 24, to = {{ colleges = [\"57001\"] }} }}]\n"
    ));
    (world, agents)
}

fn release(world: &mut World, app: &App) {
    world.submit(app);
    world.approve(app);
    world.publish();
}

fn has(world: &mut World, code: &str, number: usize, version: &str) {
    let workstation = world.college(code).workstation(number);
    let is_there = || {
        let status = workstation.run(["--json", "list"]);
        status.stdout.contains(&format!("\"{version}\""))
    };
    let log = || fs::read_to_string(workstation.root().join("agent.log")).unwrap_or_default();
    assert!(eventually(LONGEST, is_there), "{code} never had {version}\n{}", log());
}

/// What a look at the rollouts says, by a clock that is so much ahead.
fn look_at(world: &World, clock: &str) -> Vec<String> {
    let mut command = world.publisher_command();
    command.args(["rollouts", "watch", "--once"]);
    command.args(["--brake-key", "keys/brake.key", "--key", "keys/online.key"]);
    let looked = run(&mut with_clock(clock, &command)).succeeds();
    looked.stdout.lines().map(ToOwned::to_owned).collect()
}

fn look(world: &World) -> Vec<String> {
    look_at(world, "+0")
}

/// How many workstations of the first ring stand so.
fn count(world: &World, stand: &str) -> u64 {
    let shown: Value = world.publisher(["--json", "rollouts", "show", "hello@2.0"]).succeeds().json();
    shown[0]["rings"][0]["stands"][stand].as_u64().unwrap_or(0)
}

fn paused(world: &World) -> Vec<Value> {
    let read =
        |path: &str| -> Value { serde_json::from_slice(&fs::read(world.path(path)).unwrap()).unwrap() };
    let role = read("repository/roles/brake.json");
    let digest = role["signed"]["targets"]["brake/paused.json"]["hashes"]["sha256"].as_str().unwrap();
    let brake = read(&format!("repository/public/targets/brake/{digest}.paused.json"));
    brake["paused"].as_array().unwrap().clone()
}

#[test]
fn a_bad_release_halts_in_its_first_ring_and_an_operator_resumes() {
    let (mut world, agents) = world("embedded");
    release(&mut world, &App::new("hello", 2).check("echo wrong >&2; exit 1"));
    // Before anybody has it, whoever comes later waits.
    assert_eq!(
        look(&world),
        ["hello 2.0: began", "hello 2.0: whoever comes after ring `first` waits until it went well"]
    );
    assert_eq!(paused(&world)[0]["after"], "first");
    assert_eq!(look(&world), [] as [&str; 0], "nothing is said twice");
    for code in ["57001", "57002"] {
        world.college(code).sync();
    }
    assert!(eventually(LONGEST, || count(&world, "failed") == 2), "{}", agents[0].log());
    let halted = look(&world);
    assert!(halted[0].contains("halted for all colleges: of 2 workstations 2 failed"), "{halted:?}");
    assert_eq!(paused(&world).len(), 2);
    let shown = world.publisher(["rollouts", "show", "hello@2.0"]).succeeds().stdout;
    assert!(shown.contains("halted") && shown.contains("2 failed: "), "{shown}");
    // A day later nobody else was touched: neither the clock nor the node lets it go on.
    assert_eq!(look_at(&world, "+30h"), [] as [&str; 0]);
    world.college("57002").sync();
    let mut why = world.college("57002").workstation(0).command();
    why.args(["why", "hello"]);
    let why = || run(&mut with_clock("+30h", &why)).succeeds().stdout;
    let is_paused = || why().lines().any(|line| line.contains("is paused") && line.contains("2 failed"));
    assert!(eventually(LONGEST, is_paused), "{}", why());
    has(&mut world, "57002", 0, "1.0");
    // An operator resumes: what she saw stops it no more, and the next ring still waits.
    world.publisher(["resume", "hello@2.0", "--key", "keys/brake.key", "--reason", "seen"]).succeeds();
    assert_eq!(look(&world), ["hello 2.0: an operator resumed it for all colleges"]);
    assert_eq!(paused(&world).len(), 1, "{:?}", paused(&world));
}

#[test]
fn what_went_well_opens_the_next_ring() {
    let (mut world, mut agents) = world("embedded");
    release(&mut world, &App::new("hello", 2));
    assert_eq!(look(&world).len(), 2);
    for code in ["57001", "57002"] {
        world.college(code).sync();
    }
    for number in 0..2 {
        has(&mut world, "57001", number, "2.0");
    }
    assert!(eventually(LONGEST, || count(&world, "installed") == 2), "{}", agents[0].log());
    // It soaked, and nobody started with it yet.
    assert_eq!(look_at(&world, "+25h"), [] as [&str; 0]);
    agents.drain(..2);
    // Reports count in seconds: a start in the second of the installation is none after it.
    let stopped = Instant::now();
    assert!(eventually(LONGEST, || stopped.elapsed() > Duration::from_secs(2)));
    for number in 0..2 {
        // As after a start: the machine says that it came up.
        let path = world.college("57001").workstation(number).root().join("reports.json");
        let mut reports: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        reports["boot"] = "the day before".into();
        fs::write(&path, serde_json::to_vec(&reports).unwrap()).unwrap();
        agents.push(reporting(world.college("57001"), number));
    }
    assert!(eventually(LONGEST, || count(&world, "well") == 2));
    assert_eq!(look_at(&world, "+25h"), ["hello 2.0: ring `first` went well"]);
    assert_eq!(paused(&world), [] as [Value; 0]);
    // What that saved: three times 1.0 and twice 2.0, each a bundle that did not cross the link again.
    let saved: Value = world.publisher(["--json", "benefit"]).succeeds().json();
    assert_eq!(saved["in_all"]["installations"], 5, "{saved:#}");
    assert!(saved["in_all"]["whole_bytes"].as_u64().unwrap() > 0, "{saved:#}");
    let table = world.publisher(["benefit", "--college", "57001"]).succeeds().stdout;
    assert!(table.contains("hello 2.0: installed 2 times"), "{table}");
}
