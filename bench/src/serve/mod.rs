//! `serve`: what an answer costs the server, ours beside nginx, in one run: processor time, rate, waiting, memory.
//!
//! ```text
//! tree.rs      objects: 5,000 of 4–64 KB, 64 of 1 MB, 2 of 256 MB, 96 of 16 MB to be read cold
//! servers.rs   ours (the node's code, in a process of its own) and nginx, the same tree    load.rs   their clients
//! cold.rs      a disk of 100 MB/s          crate::storm   80 workstations within a minute
//! report.rs    the tables and the result ──▶ docs/benchmarks/serve.md
//! ```
//!
//! Runs alternate, and the median of each is taken, since the machine drifts. Clients and server share the machine; what is
//! compared is the processor time of the server's processes, from `/proc`, and what clients get.

mod cold;
mod load;
mod report;
mod servers;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fs_err as fs;

use crate::storm;
use crate::wan_bytes::tools;
use cold::SlowDisk;
use load::{Answered, Crowd, End, Load};
pub(crate) use load::{Got, read_answer, read_head};
use servers::Certificate;
pub(crate) use servers::{Process, Step, Usage};
use tree::{LARGE_BYTES, Tree};

/// How long cold reads last.
const COLD_TIME: Duration = Duration::from_secs(8);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Runs of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these: a case by its name, `crowd`, `cold`, `storm`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds over which the workstations of the storm start.
    #[arg(long, default_value_t = 20)]
    storm_seconds: u64,
    /// Writes the page.
    #[arg(long)]
    page: Option<PathBuf>,
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// One way of asking.
struct Case {
    name: &'static str,
    what: &'static str,
    load: Load,
    tls: bool,
}

/// What one server did with one case, run by run.
#[derive(Default)]
struct Runs {
    /// Processor time in seconds.
    cpu: Vec<f64>,
    answered: Vec<Answered>,
}

/// Both servers, nginx first.
type Pair<T> = [T; 2];

/// Everything that was measured.
#[derive(Default)]
struct Results {
    cases: Vec<(Case, Pair<Runs>)>,
    /// The most memory of each, and what of ours was content of the cache.
    memory: Pair<u64>,
    cached: u64,
    /// Answers beside a crowd and without, by run.
    crowd: Pair<Pair<Vec<Answered>>>,
    /// Hot answers beside cold ones: of nginx with and without `aio threads`, and of ours.
    cold: Vec<(&'static str, Answered, Answered)>,
    storm: Option<storm::Storm>,
}

fn cases(tree: &Tree) -> Vec<Case> {
    let case = |name, what, connections, paths: &Arc<Vec<String>>, requests| Case {
        name,
        what,
        load: Load { connections, paths: paths.clone(), range: None, end: End::Requests(requests) },
        tls: false,
    };
    let range = Some((256 << 10, LARGE_BYTES));
    let ranges = case("range", "256 KB ranges, 32 connections", 32, &tree.large, 12_000);
    let over_tls = |case: Case| Case { tls: true, ..case };
    vec![
        case("small", "4–64 KB, 64 connections", 64, &tree.small, 60_000),
        case("many", "4–64 KB, 700 connections", 700, &tree.small, 60_000),
        case("medium", "1 MB, 32 connections", 32, &tree.medium, 3000),
        case("large", "256 MB, 8 connections", 8, &tree.large, 24),
        Case { load: Load { range, ..ranges.load }, ..ranges },
        over_tls(case("tls_small", "4–64 KB over TLS, 64 connections", 64, &tree.small, 30_000)),
        over_tls(case("tls_medium", "1 MB over TLS, 32 connections", 32, &tree.medium, 1000)),
        over_tls(case("tls_large", "256 MB over TLS, 8 connections", 8, &tree.large, 8)),
    ]
}

pub(crate) fn run(arguments: &Arguments) {
    tools::need("nginx", "nginx").expect("nginx can be installed");
    tools::need("openssl", "openssl").expect("openssl can be installed");
    let root = tools::cache().join("serve");
    fs::create_dir_all(&root).unwrap();
    let tree = Tree::at(&root);
    tree.warm();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut results = Results::default();
    // Room for all small objects and what is known of them; the memory beside it is what counts.
    let cache = tree.small_bytes + (16 << 20);

    let certificate = Certificate::make();
    {
        let plain: Pair<Process> = [Process::nginx(&root, "", None), Process::ours(&root, cache, None)];
        let tls: Pair<Process> =
            [Process::nginx(&root, "", Some(&certificate)), Process::ours(&root, cache, Some(&certificate))];
        for case in cases(&tree).into_iter().filter(|case| arguments.wants(case.name)) {
            let runs = runtime.block_on(measure(
                &case,
                if case.tls { &tls } else { &plain },
                &certificate,
                arguments.runs,
            ));
            results.cases.push((case, runs));
        }
        if arguments.wants("crowd") {
            results.crowd = runtime.block_on(crowd(&plain, &tree, arguments.runs));
        }
        results.memory = plain.each_ref().map(|server| server.usage().memory);
        results.cached = runtime.block_on(load::cached(plain[1].address));
    }
    if arguments.wants("cold") {
        results.cold = runtime.block_on(beside_cold(&tree, cache));
    }
    if arguments.wants("storm") {
        results.storm = Some(storm::measure(Duration::from_secs(arguments.storm_seconds)));
    }

    println!("{}", report::text(&results));
    if let Some(page) = &arguments.page {
        fs::write(page, report::page(&results, arguments.runs)).unwrap();
    }
    println!("result: {}", report::result(&results));
}

async fn measure(case: &Case, servers: &Pair<Process>, certificate: &Certificate, runs: usize) -> Pair<Runs> {
    let mut measured = Pair::<Runs>::default();
    let connector = case.tls.then(|| certificate.connector());
    for run in 0..=runs {
        // In turn, since who comes second may find a warmer machine.
        let order = if run % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let server = &servers[which];
            let before = server.usage().cpu;
            let answered = load::ask(server.address, connector.clone(), &case.load).await;
            let cpu = server.usage().cpu.saturating_sub(before).as_secs_f64();
            // The first run only warms up.
            if run > 0 {
                measured[which].cpu.push(cpu);
                measured[which].answered.push(answered);
            }
        }
        eprint!(".");
    }
    eprintln!(" {}", case.name);
    measured
}

/// Small objects without and with 1,000 idle and 200 very slow clients beside.
async fn crowd(servers: &Pair<Process>, tree: &Tree, runs: usize) -> Pair<Pair<Vec<Answered>>> {
    let mut measured = Pair::<Pair<Vec<Answered>>>::default();
    let load = Load { connections: 64, paths: tree.small.clone(), range: None, end: End::Requests(60_000) };
    for _ in 0..runs {
        for (server, measured) in servers.iter().zip(&mut measured) {
            measured[0].push(load::ask(server.address, None, &load).await);
            let crowd = Crowd::gather(server.address, 1000, 200, &tree.small[0], &tree.large[0]).await;
            measured[1].push(load::ask(server.address, None, &load).await);
            drop(crowd);
        }
    }
    measured
}

/// Small hot objects while others are read from a slow disk: hot answers, cold answers.
async fn beside_cold(tree: &Tree, cache: u64) -> Vec<(&'static str, Answered, Answered)> {
    let Some(disk) = SlowDisk::below(&tree.root) else {
        eprintln!("no disk can be slowed down here (root and block throttling are needed): left out");
        return Vec::new();
    };
    let mut measured = Vec::new();
    for (name, extra) in [("nginx", Some("")), ("nginx, aio threads", Some("aio threads;")), ("ours", None)] {
        let server = match extra {
            Some(extra) => Process::nginx(&tree.root, extra, None),
            None => Process::ours(&tree.root, cache, None),
        };
        let hot =
            Load { connections: 32, paths: tree.small.clone(), range: None, end: End::Requests(20_000) };
        load::ask(server.address, None, &hot).await;
        tree.chill();
        disk.slow_down(&server.ids());
        let cold = Load { connections: 8, paths: tree.cold.clone(), range: None, end: End::Time(COLD_TIME) };
        let hot = Load { end: End::Time(COLD_TIME), ..hot };
        let (hot, cold) =
            tokio::join!(load::ask(server.address, None, &hot), load::ask(server.address, None, &cold));
        measured.push((name, hot, cold));
        eprintln!(". cold ({name})");
    }
    measured
}
