//! `storm`: 80 workstations start within a minute and update five packages each; what that costs their node, and how
//! long they wait, beside nginx giving out the same bytes.
//!
//! ```text
//! a world ──▶ one workstation updates for real, through tap.rs ──▶ its requests, connection by connection
//!    80 × at its moment within --seconds: those connections again ──▶ the node itself: mirabelle-node run
//!                                                                └─▶ nginx: every answer of the node's as a file
//! ```
//!
//! Every answer is compared in status and length with what the node answered the real workstation. nginx gets each
//! distinct request as a path of its own, since it knows neither the store's forms nor differences.

mod tap;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use fs_err as fs;
use mirabelle_terminal::Table;
use mirabelle_tests::{App, World};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::serve::{Got, Process, Usage, read_answer};
use crate::wan_bytes::tools;
use tap::Tap;

const WORKSTATIONS: u32 = 80;
const PACKAGES: u64 = 5;
const COLLEGE: &str = "57001";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds over which the workstations start.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(arguments: &Arguments) {
    tools::need("nginx", "nginx").expect("nginx can be installed");
    let storm = measure(Duration::from_secs(arguments.seconds));
    println!("{}\nresult: {}", storm.text(), storm.result());
}

/// What one connection of a workstation asked, in order.
type Connection = Vec<Request>;

/// A request, and what it was answered with.
#[derive(Clone, Debug)]
struct Request {
    head: Arc<str>,
    status: u16,
    length: u64,
}

/// How a server came through.
#[derive(Clone, Debug, Default)]
struct Server {
    cpu: Duration,
    memory: u64,
    requests: usize,
    bytes: u64,
    times: Vec<Duration>,
    errors: usize,
}

/// Both servers, nginx first, and how long it lasted.
pub(crate) struct Storm {
    servers: [Server; 2],
    over: Duration,
}

impl Storm {
    pub(crate) fn result(&self) -> String {
        let [nginx, ours] = &self.servers;
        format!(
            "storm_vs_nginx={:.3} storm_p99_ms={:.2} storm_p99_nginx_ms={:.2} storm_cpu_s={:.2} storm_requests={} storm_errors={}",
            ours.cpu.as_secs_f64() / nginx.cpu.as_secs_f64(),
            p99(ours),
            p99(nginx),
            ours.cpu.as_secs_f64(),
            ours.requests,
            ours.errors
        )
    }

    fn rows(&self) -> Vec<[String; 7]> {
        let named = ["nginx", "ours"].iter().zip(&self.servers);
        let rows = named.map(|(name, server)| {
            [
                (*name).to_owned(),
                server.requests.to_string(),
                mirabelle_terminal::bytes(server.bytes),
                format!("{:.2} s", server.cpu.as_secs_f64()),
                format!("{:.2} ms", p99(server)),
                format!("{:.1} ms", server.times.last().copied().unwrap_or_default().as_secs_f64() * 1e3),
                server.errors.to_string(),
            ]
        });
        rows.collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(HEADER).right([1, 2, 3, 4, 5, 6]);
        for row in self.rows() {
            table.row(row);
        }
        format!("{WORKSTATIONS} workstations start within {} s\n\n{}", self.over.as_secs(), table.render())
    }

    pub(crate) fn page(&self) -> String {
        let mut text = format!(
            "\n## A storm\n\n{WORKSTATIONS} workstations start within {} s and update {PACKAGES} packages each: the requests of a real \
             update, again\nfrom each, connection by connection; here ours is `mirabelle-node run` itself, with all it does \
             besides.\n\n| {} |\n|---|{}\n",
            self.over.as_secs(),
            HEADER.join(" | "),
            "---:|".repeat(HEADER.len() - 1)
        );
        for row in self.rows() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

const HEADER: [&str; 7] = ["server", "requests", "bytes", "CPU", "p99", "worst", "errors"];

fn p99(server: &Server) -> f64 {
    let place = server.times.len() * 99 / 100;
    server.times.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// Lets the storm come over both servers.
pub(crate) fn measure(over: Duration) -> Storm {
    let mut world = World::new().college(COLLEGE).workstations(1).start();
    for sequence in 1..=2 {
        for number in 0..PACKAGES {
            world.submit(&app(number, sequence));
        }
        for number in 0..PACKAGES {
            world.approve(&app(number, sequence));
            world.deploy(&app(number, sequence), "all");
        }
        world.publish();
        let origin = world.origin().to_owned();
        let college = world.college(COLLEGE);
        college.stop_node();
        college.node(["--upstream", &origin, "sync"]).succeeds();
        college.start_node();
        if sequence == 1 {
            let node = college.running_node().unwrap().address().to_owned();
            for number in 0..PACKAGES {
                college.workstation(0).run(["--node", &node, "install", &name(number)]).succeeds();
            }
        }
    }
    let college = world.college(COLLEGE);
    let node = college.running_node().unwrap();
    let address: SocketAddr =
        node.address().trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tap = runtime.block_on(Tap::start(address));
    college.workstation(0).run(["--node", &tap.address(), "update"]).succeeds();
    let asked = tap.asked();

    let flat = tempfile::tempdir().unwrap();
    let (for_ours, for_nginx) = runtime.block_on(replayed(address, &asked, flat.path()));
    let nginx = Process::nginx(flat.path(), "", None);
    let process = node_process(address);
    let servers = [
        runtime.block_on(come_over(nginx.address, &for_nginx, over, || nginx.usage())),
        runtime.block_on(come_over(address, &for_ours, over, || Usage::of(process))),
    ];
    Storm { servers, over }
}

fn name(number: u64) -> String {
    format!("app-{number}")
}

/// A package of a hundred files or so, of which a third changes with each release.
fn app(number: u64, sequence: u64) -> App {
    let mut app = App::new(&name(number), sequence);
    for file in 0..120 {
        let version = if file % 3 == 0 { sequence } else { 1 };
        let bytes = 2000 + 900 * usize::try_from(file).unwrap();
        app = app.noise(&format!("lib/file-{file}"), bytes, number * 1_000_000 + file * 1000 + version);
    }
    app.noise("lib/large", 6 << 20, number * 1_000_000 + 999_000 + sequence)
}

/// What is to be asked of the node, and of nginx, where each answer of the node's now lies as a file of `directory`.
async fn replayed(
    address: SocketAddr,
    asked: &[Vec<String>],
    directory: &std::path::Path,
) -> (Vec<Connection>, Vec<Connection>) {
    let (mut numbers, mut ours, mut nginx) = (HashMap::new(), Vec::new(), Vec::new());
    for connection in asked {
        let (mut to_ours, mut to_nginx) = (Vec::new(), Vec::new());
        for head in connection {
            let (Got { status, .. }, body) = tap::answer_to(address, head).await;
            let length = body.len() as u64;
            to_ours.push(Request { head: head.as_str().into(), status, length });
            let next = numbers.len();
            let number = *numbers.entry(head.clone()).or_insert(next);
            fs::write(directory.join(number.to_string()), body).unwrap();
            let head = format!("GET /{number} HTTP/1.1\r\nHost: node\r\nAccept: */*\r\n\r\n");
            to_nginx.push(Request { head: head.into(), status: 200, length });
        }
        ours.push(to_ours);
        nginx.push(to_nginx);
    }
    (ours, nginx)
}

/// The process that listens at `address`: our own child, the node.
fn node_process(address: SocketAddr) -> u32 {
    let mut find = std::process::Command::new("sh");
    find.args([
        "-c",
        "ss -Hltnp \"sport = :$0\" | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p'",
        &address.port().to_string(),
    ]);
    tools::said(&mut find).and_then(|id| id.parse().ok()).expect("ss names the node's process")
}

async fn come_over(
    address: SocketAddr,
    connections: &[Connection],
    over: Duration,
    usage: impl Fn() -> Usage,
) -> Server {
    let before = usage();
    let mut workstations = JoinSet::new();
    for workstation in 0..WORKSTATIONS {
        for connection in connections {
            let connection = connection.clone();
            workstations.spawn(async move {
                tokio::time::sleep(over * workstation / WORKSTATIONS).await;
                again(address, &connection).await
            });
        }
    }
    let mut server = Server::default();
    while let Some(times) = workstations.join_next().await {
        let (times, errors) = times.unwrap();
        server.times.extend(times);
        server.errors += errors;
    }
    server.requests = server.times.len();
    server.bytes =
        connections.iter().flatten().map(|request| request.length).sum::<u64>() * u64::from(WORKSTATIONS);
    server.times.sort_unstable();
    let after = usage();
    server.cpu = after.cpu.saturating_sub(before.cpu);
    server.memory = after.memory;
    server
}

/// Asks what one connection asked, and how many answers were not as before.
async fn again(address: SocketAddr, connection: &[Request]) -> (Vec<Duration>, usize) {
    let (mut times, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
    let Ok(mut stream) = TcpStream::connect(address).await else { return (times, connection.len()) };
    let _ = stream.set_nodelay(true);
    for (done, request) in connection.iter().enumerate() {
        let asked = Instant::now();
        let sent = stream.write_all(request.head.as_bytes()).await;
        match read_answer(&mut stream, &mut buffer).await {
            Ok(got) if sent.is_ok() && got.status == request.status && got.length == request.length => {
                times.push(asked.elapsed());
            }
            _ => return (times, connection.len() - done),
        }
    }
    (times, 0)
}
