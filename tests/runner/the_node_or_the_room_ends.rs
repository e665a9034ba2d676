//! Promise 4, from outside: the node is gone after any number of requests, or the disk has room for any number of bytes.
//! What was there stays whole, and when the node answers again, or there is room, the next update goes on by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, Fault, Outcome, Programs, Wan, World, run};

use crate::fake_machine::{SmallDisk, configured, sets};

/// More requests than a small release takes.
const MOST_REQUESTS: u64 = 60;
/// Workstations that are cut off at the same time: each waits for its retries.
const AT_ONCE: u64 = 12;

/// A workstation's directory, wherever it is.
struct Client {
    root: PathBuf,
}

impl Client {
    fn enrolled(world: &mut World, below: &str) -> Self {
        let client = Self { root: world.path(below) };
        let trusted = world.trusted_root();
        let lan = world.college("57001").lan().address();
        let trusted = trusted.to_str().unwrap();
        client.run(&["enroll", "--college", "57001", "--node", &lan, "--trusted-root", trusted]).succeeds();
        client
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = std::process::Command::new(Programs::built().client());
        run(command.env_remove("MIRABELLE_LOG").arg("--root").arg(&self.root).args(arguments))
    }

    /// The release that is here, after checking that it is whole.
    fn whole(&self) -> Option<u64> {
        self.run(&["verify"]).succeeds();
        let number = self.run(&["--json", "list"]).succeeds().json()["hello"]["sequence"].as_u64();
        match number {
            Some(number) => {
                let said = self.run(&["run", "hello"]).succeeds().stdout;
                assert_eq!(said, format!("hello {number}.0\n"));
            }
            None => {
                self.run(&["run", "hello"]).fails(1, "is not installed");
            }
        }
        number
    }

    fn copied(&self, to: PathBuf) -> Self {
        let copied = std::process::Command::new("cp").arg("-a").arg(&self.root).arg(&to).status();
        assert!(copied.unwrap().success());
        Self { root: to }
    }
}

fn app(number: u64) -> App {
    App::new("hello", number).noise("data", 60_000, number).noise("more", 30_000, number + 10)
}

/// Cuts copies of `client` off after every number of requests, until one is enough; says how many it takes.
fn cut_after_every_request(
    client: &Client,
    node: &str,
    command: &[&str],
    before: Option<u64>,
    after: u64,
) -> u64 {
    let attempt = |requests: u64| {
        let copy = client.copied(client.root.with_extension(format!("{}-{requests}", command[0])));
        let wan = Wan::start(node, None, Duration::ZERO);
        wan.fail(Fault::AfterRequests(requests));
        let address = wan.address();
        let mut words = vec!["--node", &address];
        words.extend(command);
        let outcome = copy.run(&words);
        if outcome.code == Some(0) {
            assert_eq!(copy.whole(), Some(after));
            return true;
        }
        outcome.fails(3, "could not be");
        assert_eq!(copy.whole(), before, "after {requests} requests");
        // What was asked for is remembered from the moment at which it was known to be allowed.
        let asked = fs::read_to_string(copy.root.join("state.json")).unwrap_or_default().contains("hello");
        wan.fail(Fault::None);
        let again = if asked { &["--node", &address, "update"][..] } else { &words[..] };
        copy.run(again).succeeds();
        assert_eq!(copy.whole(), Some(after), "after {requests} requests, and all the others");
        assert!(!copy.root.join("journal/transaction.json").exists());
        false
    };
    for first in (0..MOST_REQUESTS).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let enough: Vec<bool> = std::thread::scope(|threads| {
            let attempts: Vec<_> =
                (first..first + AT_ONCE).map(|requests| threads.spawn(move || attempt(requests))).collect();
            attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
        });
        if let Some(found) = enough.iter().position(|enough| *enough) {
            return first + found as u64;
        }
    }
    panic!("`{command:?}` takes more than {MOST_REQUESTS} requests");
}

#[test]
fn the_node_may_be_gone_after_any_request() {
    let mut world = World::new().college("57001").start();
    world.release(&app(1));
    world.college("57001").sync();
    let fresh = Client::enrolled(&mut world, "fresh");
    let node = world.college("57001").running_node().unwrap().address().to_owned();
    let install = cut_after_every_request(&fresh, &node, &["install", "hello"], None, 1);
    fresh.run(&["install", "hello"]).succeeds();
    world.release(&app(2));
    world.college("57001").sync();
    let node = world.college("57001").running_node().unwrap().address().to_owned();
    let update = cut_after_every_request(&fresh, &node, &["update"], Some(1), 2);
    println!("an install takes {install} requests, an update {update}; the node was gone after each of them");
    assert!(install >= 5 && update >= 4, "{install}, {update}: requests are not counted");
}

/// Lets a transaction find room for more and more, until there is enough.
fn with_more_and_more_room(
    disk: &SmallDisk,
    client: &Client,
    command: &[&str],
    before: Option<u64>,
    after: u64,
) -> u32 {
    let mut full = 0;
    let mut room = used(&client.root);
    loop {
        disk.resize(room);
        let outcome = client.run(command);
        // `update` leaves out what has no room, and says so; `install` refuses it.
        let left_out = outcome.stdout.contains("bytes, and the disk has");
        if outcome.code == Some(0) && !left_out {
            break;
        }
        let code = outcome.code.unwrap();
        assert!(matches!(code, 1 | 5) || (code == 0 && left_out), "{}", outcome.stderr);
        assert!(
            left_out
                || outcome.stderr.contains("the disk is full")
                || outcome.stderr.contains("bytes, and the disk has"),
            "{}",
            outcome.stderr
        );
        full += u32::from(code == 5);
        // On a full disk one may still look.
        client.run(&["list"]).succeeds();
        let resumed = client.run(&["resume"]);
        let now = client.whole();
        assert!(now == before || now == Some(after), "{now:?}");
        assert!(resumed.code == Some(0) || resumed.stderr.contains("full"), "{}", resumed.stderr);
        room += 8;
        assert!(room < 20_000, "it takes no end of room");
    }
    assert_eq!(client.whole(), Some(after));
    full
}

/// Kilobytes that are in use.
fn used(at: &Path) -> u64 {
    let said = std::process::Command::new("df").args(["--output=used", "-k"]).arg(at).output().unwrap();
    String::from_utf8(said.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap()
}

#[test]
fn the_disk_may_be_full_at_any_write() {
    let mut world = World::new().college("57001").start();
    let app = |number| sets(app(number), "hello", &format!("release {number}\n"), "");
    world.release(&app(1));
    world.college("57001").sync();
    let small = world.path("small");
    let disk = SmallDisk::mount(&small, 20_000);
    let client = Client::enrolled(&mut world, "small/root");
    let config = client.root.join("client.toml");
    let system = client.root.join("system");
    let lines = format!("disk-reserve = \"0 B\"\nsystem-root = \"{}\"\n", system.display());
    fs::write(&config, lines + &fs::read_to_string(&config).unwrap()).unwrap();
    client.run(&["refresh"]).succeeds();

    let install = with_more_and_more_room(&disk, &client, &["install", "hello"], None, 1);
    assert_eq!(configured(&client.root, "hello").unwrap(), "release 1\n");
    disk.resize(20_000);
    world.release(&app(2));
    world.college("57001").sync();
    let update = with_more_and_more_room(&disk, &client, &["update"], Some(1), 2);
    assert_eq!(configured(&client.root, "hello").unwrap(), "release 2\n");
    println!("the disk was full {install} times on the way to the first release, {update} to the second");
    assert!(install >= 5 && update >= 5, "{install}, {update}");
}
