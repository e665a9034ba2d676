//! `fleet`: a morning of check-ins of a whole département at its origin: 92 nodes hand on what 7,000 workstations report.
//!
//! The origin and its state are real; nodes and workstations are this program, over the real protocol: keys, signed and numbered reports, packed
//! batches in signed requests. Each workstation's reports are a request of their own, which is the worst that nodes do. Times are from when a
//! request was due to when its answer was read, so that a queue counts.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use mirabelle_fleet::{Event, Hardware, Inventory, NodeState, Nonce, Power, Report, Signed, SignedReport};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::{Instant as Moment, PackageName, Version};
use mirabelle_terminal::Table;
use mirabelle_tests::{Postgres, World, post};
use mirabelle_transfer::reports::{PACKED, pack};

/// A morning of check-ins.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Colleges, each with a node.
    #[arg(long, default_value_t = 92)]
    colleges: usize,
    /// Workstations in all.
    #[arg(long, default_value_t = 7000)]
    workstations: usize,
    /// Seconds within which they come up: a real morning has 600.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Keep the state in a PostgreSQL instead of within the origin.
    #[arg(long)]
    postgres: bool,
}

/// Requests that are under way at once, at most.
const SENDERS: usize = 32;
/// Packages of a workstation.
const PACKAGES: usize = 40;

struct Node {
    college: String,
    key: SigningKey,
}

struct Workstation {
    node: usize,
    name: String,
    key: SigningKey,
    number: u64,
}

struct Sent {
    node: usize,
    packed: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) {
    let postgres = arguments.postgres.then(Postgres::start);
    let engine = postgres.as_ref().map_or_else(|| "embedded".to_owned(), Postgres::url);
    let world = World::new().fleet(&engine).start();
    eprintln!("{} nodes are accepted", arguments.colleges);
    let nodes: Vec<Node> = (0..arguments.colleges)
        .map(|number| Node { college: format!("{}", 57001 + number), key: SigningKey::generate() })
        .collect();
    for node in &nodes {
        let first =
            sign(&node.key, &node.college, None, 1, Event::Enrolled { key: Box::new(node.key.public()) });
        assert_eq!(send(&world, node, "node", &pack([first.as_str()]).unwrap()), 403);
        let key = node.key.public().id();
        world.publisher(["node", "accept", &node.college, key.as_str(), "--fleet", &engine]).succeeds();
        let state = NodeState { releases: 40, complete_at: Some(7), ..NodeState::default() };
        let state = sign(&node.key, &node.college, None, 2, Event::Node { state: Box::new(state) });
        assert_eq!(send(&world, node, "reports", &pack([first.as_str(), state.as_str()]).unwrap()), 200);
    }
    let mut workstations: Vec<Workstation> = (0..arguments.workstations)
        .map(|number| Workstation {
            node: number % nodes.len(),
            name: format!("r{:02}-{:03}", number % 23, number / nodes.len()),
            key: SigningKey::generate(),
            number: 0,
        })
        .collect();

    let mut table = Table::new([
        "morning",
        "reports",
        "requests",
        "p50 ms",
        "p99 ms",
        "slowest ms",
        "CPU s for 1,000 reports",
    ]);
    let within = Duration::from_secs(arguments.seconds);
    let mut last = (0.0, 0.0);
    for (name, within) in [
        ("the first: everybody enrols", within),
        ("an ordinary one", within),
        ("one all at once", Duration::ZERO),
    ] {
        let sent: Vec<Sent> =
            workstations.iter_mut().map(|workstation| morning(workstation, &nodes)).collect();
        let cpu = cpu_of(world.origin_process().id());
        let (mut took, elapsed) = send_within(&world, &nodes, &sent, within);
        let cpu = cpu_of(world.origin_process().id()) - cpu;
        took.sort();
        let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1000.0;
        let reports = sent.len() * 3;
        table.row([
            format!("{name}, in {:.0} s", elapsed.as_secs_f64()),
            reports.to_string(),
            sent.len().to_string(),
            format!("{:.1}", at(50)),
            format!("{:.1}", at(99)),
            format!("{:.1}", at(100)),
            format!("{:.2}", cpu * 1000.0 / reports as f64),
        ]);
        if !within.is_zero() {
            last = (at(99), cpu * 1000.0 / reports as f64);
        }
    }
    let begun = Instant::now();
    let listed = world.publisher(["--json", "machines", "--fleet", &engine]).succeeds().json();
    let listing = begun.elapsed();
    assert_eq!(listed.as_array().unwrap().len(), workstations.len() + nodes.len());
    assert!(listed.as_array().unwrap().iter().all(|machine| machine["missing"] == 0));
    println!("{}", table.render());
    println!(
        "every report is there, none is missing; listing all machines takes {:.0} ms",
        listing.as_secs_f64() * 1000.0
    );
    let rss = world.origin_process().peak_rss() as f64 / 1e6;
    let disk = size_of_state(&world.path("repository")) as f64 / 1e6;
    println!(
        "result: workstations={} engine={} p99_ms={:.1} cpu_s_per_1000={:.2} rss_mb={rss:.0} disk_mb={disk:.0}",
        workstations.len(),
        if arguments.postgres { "postgresql" } else { "embedded" },
        last.0,
        last.1,
    );
}

/// What a workstation says when it comes up.
fn morning(workstation: &mut Workstation, nodes: &[Node]) -> Sent {
    let releases = (0..PACKAGES).map(|package| {
        let name: PackageName = format!("package-{package}").parse().unwrap();
        let version: Version = format!("{}.{package}", workstation.number).parse().unwrap();
        (name, version)
    });
    let inventory = Inventory {
        hardware: Hardware {
            cpus: 4,
            disk_gib: 238,
            free_gib: 120,
            memory_mib: 7800,
            model: "OptiPlex 3070".to_owned(),
            vendor: "Dell Inc.".to_owned(),
        },
        platform: Some("linux-x86_64".parse().unwrap()),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        releases: releases.collect(),
        room: Some(workstation.name[..3].parse().unwrap()),
        system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        tags: [].into(),
    };
    let first = if workstation.number == 0 {
        Event::Enrolled { key: Box::new(workstation.key.public()) }
    } else {
        let version = |number: u64| Some(format!("{number}.0").parse().unwrap());
        let package = "package-0".parse().unwrap();
        Event::Changed { package, from: version(workstation.number - 1), to: version(workstation.number) }
    };
    let events =
        [first, Event::Power { power: Power::On }, Event::Inventory { inventory: Box::new(inventory) }];
    let college = &nodes[workstation.node].college;
    let lines = events.map(|event| {
        workstation.number += 1;
        sign(&workstation.key, college, Some(&workstation.name), workstation.number, event)
    });
    Sent { node: workstation.node, packed: pack(lines.iter().map(String::as_str)).unwrap() }
}

fn sign(key: &SigningKey, college: &str, machine: Option<&str>, number: u64, event: Event) -> String {
    let report = Report {
        at: Moment::now(),
        college: college.parse().unwrap(),
        event,
        machine: machine.map(|name| name.parse().unwrap()),
        number,
    };
    SignedReport::sign(&report, key).unwrap().to_line().unwrap()
}

fn send(world: &World, node: &Node, what: &str, packed: &[u8]) -> u16 {
    let path = format!("fleet/{}/{what}", node.college);
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(PACKED))]);
    let moment = (Moment::now(), &Nonce::random());
    Signed::sign(&node.key, &Method::POST, &format!("/{path}"), &mut headers, packed, moment).unwrap();
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    post(world.origin(), &path, &lines.collect::<String>(), packed).status()
}

/// Sends everything, spread evenly over `within`; how long each took from when it was due, and all of it.
fn send_within(world: &World, nodes: &[Node], sent: &[Sent], within: Duration) -> (Vec<Duration>, Duration) {
    let (next, took) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(sent.len())));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = sent.get(number) else { break };
                    let due = begun + within.mul_f64(number as f64 / sent.len() as f64);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let due = if within.is_zero() { Instant::now() } else { due };
                    assert_eq!(send(world, &nodes[one.node], "reports", &one.packed), 200);
                    took.lock().unwrap().push(due.elapsed());
                }
            });
        }
    });
    (took.into_inner().unwrap(), begun.elapsed())
}

/// Seconds that a process has spent on processors.
fn cpu_of(process: u32) -> f64 {
    let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // proc_pid_stat(5): after the name, utime and stime are the twelfth and thirteenth.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

fn size_of_state(repository: &Path) -> u64 {
    ["fleet.db", "fleet.db-wal"]
        .iter()
        .filter_map(|name| fs_err::metadata(repository.join(name)).ok())
        .map(|metadata| metadata.len())
        .sum()
}
