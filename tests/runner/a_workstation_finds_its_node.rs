//! A workstation that moves finds the node of where it is: by the network's DNS, or by multicast on its link; a node finds its
//! neighbours likewise, and wakes whom the deployment wants awake. On real links: two network namespaces and a cable between them.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::{App, Outcome, Programs, Running, World, run};

use crate::agents::deploy_also;

/// Where the node is, on the one end of the cable.
const NODE: &str = "10.77.0.1";
const WORKSTATION: &str = "10.77.0.2";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

#[track_caller]
fn system(words: &[&str]) {
    let outcome = run(&mut command(words));
    assert_eq!(outcome.code, Some(0), "{words:?} (this test needs root and iproute2)\n{}", outcome.stderr);
}

/// Two namespaces with a cable between them, until it is dropped.
struct Cable {
    node: String,
    workstation: String,
}

impl Cable {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let cable = Self { node: format!("mbn-{number}"), workstation: format!("mbw-{number}") };
        system(&["ip", "netns", "add", &cable.node]);
        system(&["ip", "netns", "add", &cable.workstation]);
        let ends = ["link", "add", "end0", "netns", &cable.node, "type", "veth", "peer", "name", "end0"];
        system(&[&["ip"], &ends[..], &["netns", &cable.workstation]].concat());
        for (name, address) in [(&cable.node, NODE), (&cable.workstation, WORKSTATION)] {
            let address = format!("{address}/24");
            system(&["ip", "-n", name, "address", "add", &address, "broadcast", "+", "dev", "end0"]);
            system(&["ip", "-n", name, "link", "set", "lo", "up"]);
            system(&["ip", "-n", name, "link", "set", "end0", "up"]);
            Self::resolver(name, "");
        }
        cable
    }

    /// What its programs read as `/etc/resolv.conf`.
    fn resolver(name: &str, text: &str) {
        let directory = Path::new("/etc/netns").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), text).unwrap();
    }

    fn at(name: &str, program: &Command) -> Command {
        let mut command = command(&["ip", "netns", "exec", name]);
        command.arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
    }

    /// Does something with the network of one end.
    fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
        let space = fs::File::open(Path::new("/run/netns").join(name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let network = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(space.file().as_fd(), network).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.node, &self.workstation] {
            let _ = run(&mut command(&["ip", "netns", "del", name]));
            let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
    }
}

/// A world whose college has everything, and the cable that its node and a workstation are moved to.
struct Moved {
    world: World,
    cable: Cable,
}

impl Moved {
    fn new(hours: &str) -> Self {
        let mut world = World::new().college("57001").start();
        world.release(&App::new("hello", 1).noise("data", 400_000, 3));
        if !hours.is_empty() {
            deploy_also(&world, hours);
            world.publish();
        }
        world.college("57001").node(["sync"]).succeeds();
        Self { world, cable: Cable::new() }
    }

    fn configure_node(&mut self, line: &str) {
        let path = self.world.college("57001").node_root().join("node.toml");
        let known = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{line}\n{known}")).unwrap();
    }

    fn start_node(&mut self, port: u16) -> Running {
        let mut program = self.world.college("57001").node_command();
        program.args(["--json", "--listen", &format!("0.0.0.0:{port}"), "run"]);
        Running::start(&mut Cable::at(&self.cable.node, &program))
    }

    fn workstation_root(&self) -> PathBuf {
        self.world.path("moved")
    }

    fn enroll(&self, node: &str) {
        let root = self.world.trusted_root();
        let enrolled = ["enroll", "--college", "57001", "--node", node, "--trusted-root"];
        self.workstation(&[&enrolled[..], &[root.to_str().unwrap()]].concat()).succeeds();
    }

    fn workstation(&self, arguments: &[&str]) -> Outcome {
        let mut program = Command::new(Programs::built().client());
        program.env_remove("MIRABELLE_LOG").arg("--root").arg(self.workstation_root()).args(arguments);
        run(&mut Cable::at(&self.cable.workstation, &program))
    }

    /// Refreshes until that succeeds: a node that has just started is announced a little later (RFC 6762, 8.1).
    #[track_caller]
    fn refreshes(&self) {
        let begun = Instant::now();
        loop {
            let outcome = self.workstation(&["refresh"]);
            if outcome.code == Some(0) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", outcome.stderr);
        }
    }

    fn found(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.workstation_root().join("node.json")).unwrap()).unwrap()
    }
}

#[test]
fn without_any_set_up_the_link_is_asked_and_a_node_that_went_is_replaced() {
    let mut moved = Moved::new("");
    let node = moved.start_node(8701);
    moved.enroll("discover");
    let refused = moved.workstation(&["install", "other"]);
    assert_ne!(refused.code, Some(0));
    moved.refreshes();
    assert_eq!(moved.found()["node"], format!("http://{NODE}:8701/"));
    moved.workstation(&["install", "hello"]).succeeds();

    // It comes back elsewhere: what was remembered does not answer, and is replaced.
    assert!(node.stop().success());
    let _node = moved.start_node(8702);
    moved.refreshes();
    assert_eq!(moved.found()["node"], format!("http://{NODE}:8702/"));
}

#[test]
fn a_node_that_is_set_and_not_on_this_network_gives_way_to_one_that_is() {
    let mut moved = Moved::new("");
    let _node = moved.start_node(8701);
    moved.enroll("http://10.88.0.1:8701/");
    moved.refreshes();
    assert_eq!(moved.found()["node"], format!("http://{NODE}:8701/"));
    moved.workstation(&["install", "hello"]).succeeds();
    // Where it is set to be silent, it is.
    moved.configure_node("discovery = false");
}

/// A server that is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_networks_dns_is_asked_first_and_a_liar_in_it_is_passed_over() {
    let mut moved = Moved::new("");
    moved.configure_node("discovery = false");
    let _node = moved.start_node(8701);
    // Somebody who answers with something else, and comes first.
    let lies = moved.world.path("lies/metadata");
    fs::create_dir_all(&lies).unwrap();
    fs::write(lies.join("timestamp.json"), r#"{"signatures":[],"signed":{"_type":"timestamp"}}"#).unwrap();
    let liar = ["python3", "-m", "http.server", "8799", "--bind", NODE, "--directory"];
    let mut liar = command(&[&liar[..], &[lies.parent().unwrap().to_str().unwrap()]].concat());
    liar.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let _liar =
        Server(Cable::at(&moved.cable.node, &liar).stderr(std::process::Stdio::null()).spawn().unwrap());
    let dns = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
        "--listen-address=10.77.0.1",
        "--bind-interfaces",
        "--local=/college.example/",
        "--address=/node.college.example/10.77.0.1",
        "--srv-host=_mirabelle._tcp.college.example,node.college.example,8799,10",
        "--srv-host=_mirabelle._tcp.college.example,node.college.example,8701,20",
    ];
    let _dns = Server(Cable::at(&moved.cable.node, &command(&dns)).spawn().unwrap());
    let resolver = format!("search nowhere.example college.example\nnameserver {NODE}\n");
    Cable::resolver(&moved.cable.workstation, &resolver);
    moved.enroll("discover");
    moved.refreshes();
    let found = moved.found();
    assert_eq!(found["node"], "http://node.college.example:8701/", "{found}");
    assert_eq!(found["network"], "nowhere.example college.example", "{found}");
    moved.workstation(&["install", "hello"]).succeeds();

    // On another network, what was found there does not count.
    Cable::resolver(&moved.cable.workstation, "search elsewhere.example\n");
    moved.workstation(&["refresh"]).fails(1, "no node was found on this network");
}

#[test]
fn a_node_without_its_upstream_mirrors_from_a_neighbour() {
    let mut moved = Moved::new("");
    let _node = moved.start_node(8701);
    let root = moved.world.path("neighbour");
    let mut program = Command::new(Programs::built().node());
    program.env_remove("MIRABELLE_LOG").arg("--root").arg(&root);
    let mut init = Command::new(Programs::built().node());
    init.arg("--root").arg(&root).args(["init", "--college", "57001", "--upstream", "http://10.88.0.1:1/"]);
    run(init.arg("--trusted-root").arg(moved.world.trusted_root())).succeeds();
    let path = root.join("node.toml");
    let known = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("neighbours = true\n{known}")).unwrap();
    program.args(["--json", "--sync-every", "500 ms", "--listen", "0.0.0.0:8701", "run"]);
    let _neighbour = Running::start(&mut Cable::at(&moved.cable.workstation, &program));
    let begun = Instant::now();
    while !root.join("served/metadata/timestamp.json").exists() {
        assert!(begun.elapsed() < PATIENCE, "it never mirrors");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Machines are woken every day, so many minutes ago.
fn hours(minutes_ago: i64) -> String {
    let hour = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes_ago);
    let hour = hour.to_zoned_datetime(jiff::tz::TimeZone::UTC).strftime("%H:%M").to_string();
    format!(
        r#"
[[hours]]
time-zone = "UTC"
wake = [{{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], at = "{hour}" }}]
"#
    )
}

#[test]
fn who_asked_once_is_woken_at_the_deployments_hour_by_broadcast_on_its_network() {
    let mut moved = Moved::new(&hours(3));
    moved.configure_node("wake-to = [\"10.77.0.255:9\"]");
    let seen = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(20);
    let machine = |number: u8, woken: &str| {
        format!(r#""b12-{number:02}":{{"cards":["02:00:00:00:00:{number:02x}"],"seen":"{seen}"{woken}}}"#)
    };
    let woken = format!(r#","woken":"{}""#, jiff::Timestamp::now() - jiff::SignedDuration::from_mins(2));
    let machines = format!("{{{},{},{}}}", machine(1, ""), machine(2, &woken), machine(3, ""));
    fs::write(moved.world.college("57001").node_root().join("machines.json"), machines).unwrap();

    let listener = Cable::within(&moved.cable.workstation, || UdpSocket::bind("0.0.0.0:9").unwrap());
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let node = moved.start_node(8701);
    let mut heard = Vec::new();
    // Three packets for each of two machines.
    for _ in 0..6 {
        let mut packet = [0; 200];
        let (length, from) = listener.recv_from(&mut packet).unwrap();
        assert_eq!((length, from.ip().to_string().as_str()), (102, NODE));
        heard.push(packet[101]);
    }
    heard.sort_unstable();
    assert_eq!(heard, [1, 1, 1, 3, 3, 3], "the second was woken before, and the node remembers it");
    assert!(node.stop().success());
    // A node that is started anew does not wake them again.
    let kept = fs::read_to_string(moved.world.college("57001").node_root().join("machines.json")).unwrap();
    assert_eq!(kept.matches("woken").count(), 3, "{kept}");
}
