//! The agent keeps a workstation at what the deployment says by itself, and nobody notices: not in a lesson, not whoever uses an
//! application, not the node, not the machine's memory.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, Fault, Workstation, World, run};

use crate::agents::{Agent, Power, configure, deploy_also, eventually, kept, sequence};

/// What an idle agent may have resident.
const IDLE_BYTES: u64 = 30_000_000;
/// How long to watch that nothing happens.
const WATCH: Duration = Duration::from_secs(5);

/// A lesson from midnight to midnight, every day.
const ALWAYS_LESSON: &str = r#"
[[hours]]
lessons = [{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], from = "00:00", to = "23:59" },
           { days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], from = "23:59", to = "00:00" }]
"#;

/// A college with `hello` 1 on its workstations, whose agents ask every second.
fn world(workstations: usize) -> World {
    let mut world = World::new().college("57001").workstations(workstations).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    for number in 0..workstations {
        let workstation = college.workstation(number);
        workstation.run(["install", "hello"]).succeeds();
        Power::connect(workstation, 0);
    }
    world
}

#[test]
fn it_goes_on_by_itself_whatever_comes_between() {
    let mut world = world(1);
    let workstation = world.college("57001").workstation(0);
    let root = workstation.root().to_owned();
    let agent = Agent::start(workstation, None);
    agent.until("the first outlook", || root.join("outlook.json").exists());
    world.release(&App::new("hello", 2));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    agent.until("release 2", || sequence(workstation, "hello") == Some(2));
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
    agent.until("an outlook without work", || {
        kept(workstation, "outlook.json")["due"] == serde_json::json!([])
    });
    agent.kill();

    // The node is away, comes back with news, and nobody does anything.
    college.lan().fail(Fault::Down);
    let agent = Agent::start(workstation, None);
    agent.until("an unanswered question", || agent.log().contains("does not answer"));
    world.release(&App::new("hello", 3));
    let college = world.college("57001");
    college.sync();
    college.lan().fail(Fault::None);
    let workstation = college.workstation(0);
    agent.until("release 3", || sequence(workstation, "hello") == Some(3));
    let status = workstation.run(["--json", "status"]).succeeds().json();
    assert_eq!(status["agent"], "at work");
    agent.stop();
    assert_eq!(workstation.run(["--json", "status"]).succeeds().json()["agent"], "not running");
}

#[test]
fn in_a_lesson_it_asks_and_does_nothing_else() {
    let mut world = world(1);
    deploy_also(&world, ALWAYS_LESSON);
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    let agent = Agent::start(workstation, None);
    agent.until("the lesson", || {
        workstation.run(["--json", "status"]).succeeds().json()["lesson_until"].is_string()
    });
    world.release(&App::new("hello", 2));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    agent.until("news", || kept(workstation, "outlook.json")["due"][0]["package"] == "hello");
    let known =
        |workstation: &Workstation| fs::read_dir(workstation.root().join("releases/hello")).unwrap().count();
    assert!(!eventually(WATCH, || known(workstation) != 1), "not even fetched");
    assert_eq!(sequence(workstation, "hello"), Some(1));
    // A teacher who asks for it now gets it now.
    workstation.run(["update"]).succeeds();
    assert_eq!(sequence(workstation, "hello"), Some(2));
    drop(agent);
}

#[test]
fn without_news_it_costs_one_request_and_next_to_nothing() {
    let mut world = world(1);
    let college = world.college("57001");
    let workstation = college.workstation(0);
    let agent = Agent::start(workstation, None);
    agent.until("the first outlook", || workstation.root().join("outlook.json").exists());
    let (requests, cpu) = (|| college.lan().requests(), || cpu_ticks(agent.id()));
    // Past whatever the first look still leads to.
    let settled = requests();
    agent.until("another question", || requests() >= settled + 2);
    let (requests_before, cpu_before) = (requests(), cpu());
    agent.until("ten questions", || requests() >= requests_before + 10);
    let (asked, spent) = (requests() - requests_before, cpu() - cpu_before);
    // Ticks of a hundredth of a second. Each question, its waiting and the agent's own looking around together.
    println!("{asked} questions took {spent} hundredths of a second");
    assert!(spent * 10 <= asked * 20, "{asked} questions took {spent} hundredths of a second");
    let resident = resident(agent.id());
    println!("the idle agent has {resident} bytes resident");
    assert!(resident < IDLE_BYTES, "{resident} bytes");
    assert!(!agent.log().contains("it failed"), "{}", agent.log());
}

#[test]
fn an_application_in_use_is_left_alone_until_it_closes_or_the_deadline_comes() {
    let mut world = world(2);
    let patient = App::new("hello", 2).file("bin/hello", "#!/bin/sh\necho two\n");
    let college = world.college("57001");
    // Both use it: one started it from its menu, the other opened a file of it with something else.
    let (menu, file) = (college.workstation(0), college.workstation(1));
    let stays = |workstation: &Workstation| {
        let held = workstation.root().join("active/apps/hello/bin/hello");
        let mut reader = Command::new("sleep");
        reader.arg("600").stdin(fs::File::open(held).unwrap().into_file());
        reader.spawn().unwrap()
    };
    let mut by_menu = {
        let lock = fs::read_dir(menu.root().join("locks/hello")).unwrap().next().unwrap().unwrap().path();
        let lock = fs::File::open(lock).unwrap();
        lock.file().lock_shared().unwrap();
        Some(lock)
    };
    let mut by_file = stays(file);
    let agents = [Agent::start(menu, None), Agent::start(file, None)];
    world.release(&patient);
    let college = world.college("57001");
    college.sync();
    let (menu, file) = (college.workstation(0), college.workstation(1));
    for (agent, workstation) in agents.iter().zip([menu, file]) {
        agent.until("a prepared update", || kept(workstation, "outlook.json")["due"][0]["prepared"] == true);
    }
    assert!(!eventually(WATCH, || sequence(menu, "hello") != Some(1) || sequence(file, "hello") != Some(1)));

    // One closes it; for the other the deadline comes.
    by_menu.take();
    agents[0].until("the update after it was closed", || sequence(menu, "hello") == Some(2));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let deadline =
        ["deploy", "hello@2.0", "--colleges", "all", "--deadline", &now, "--key", "keys/operator-1.key"];
    world.publisher(deadline).succeeds();
    world.publish();
    let college = world.college("57001");
    college.sync();
    let file = college.workstation(1);
    agents[1].until("the update at its deadline", || sequence(file, "hello") == Some(2));
    // What it had open, it still has.
    assert!(by_file.try_wait().unwrap().is_none());
    by_file.kill().unwrap();
    by_file.wait().unwrap();
}

#[test]
fn what_somebody_may_have_is_decided_by_who_the_kernel_says_she_is() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can ask as somebody else: not tried");
        return;
    }
    let mut world = World::new().college("57001").workstations(1).start();
    for (name, mode) in [("games", "--available"), ("marks", "--available-to-teachers")] {
        let app = App::new(name, 1);
        world.submit(&app);
        world.approve(&app);
        let label = app.label();
        world
            .publisher(["deploy", &label, mode, "--colleges", "all", "--key", "keys/operator-1.key"])
            .succeeds();
    }
    world.publish();
    world.college("57001").sync();
    open_to_all(world.directory());
    deploy_also(&world, "[[values]]\nvalues = { proxy = \"http://proxy.example:3128\" }\n");
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    Power::connect(workstation, 0);
    configure(workstation, "teachers = [\"games\"]\n");
    let agent = Agent::start(workstation, None);
    agent.until("the socket", || workstation.root().join("agent.sock").exists());
    // `nobody`, who is in no group, and `games`, whose group is that of the teachers here.
    let ask = |user: u32, arguments: &[&str]| {
        let mut command = workstation.command();
        run(command.args(arguments).uid(user).gid(user))
    };
    ask(65534, &["install", "marks"]).fails(1, "it is offered to teachers");
    ask(65534, &["install", "nothing"]).fails(1, "it is not deployed to college 57001");
    ask(65534, &["install", "games"]).succeeds();
    assert_eq!(sequence(workstation, "games"), Some(1));
    ask(5, &["install", "marks"]).succeeds();
    assert_eq!(sequence(workstation, "marks"), Some(1));
    ask(65534, &["remove", "marks"]).fails(1, "only teachers and administrators remove");
    ask(5, &["remove", "marks"]).succeeds();
    assert_eq!(sequence(workstation, "marks"), None);
    // Whoever may change nothing may look, but not at the values that settings are filled with.
    assert!(workstation.root().join("settings.json").exists());
    for look in [&["status"][..], &["plan"], &["why", "marks"], &["verify"], &["list"], &["history"]] {
        let seen = ask(65534, look).succeeds();
        assert!(!seen.stdout.contains("proxy.example"), "{}", seen.stdout);
    }
    // What is said on the socket itself counts for nothing.
    let forged =
        run(Command::new("python3").args(["-c", FORGED]).arg(workstation.root()).uid(65534).gid(65534));
    assert!(
        forged.stdout.contains("cannot be read") || forged.stdout.contains("teachers"),
        "{}",
        forged.stdout
    );
    assert_eq!(sequence(workstation, "marks"), None);
    drop(agent);
}

/// A pupil who says that she is a teacher.
const FORGED: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1] + "/agent.sock")
s.sendall(b'{"ask":"install","packages":["marks"],"asker":"teacher"}\n')
print(s.makefile().readline())
"#;

/// Lets everybody walk down to a world's files, as on a machine.
fn open_to_all(directory: &std::path::Path) {
    for path in directory
        .ancestors()
        .filter(|path| path.starts_with(std::env::temp_dir()) && *path != std::env::temp_dir())
    {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// What a process spent on a processor, in hundredths of a second; its children's time is theirs.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_ascii_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
