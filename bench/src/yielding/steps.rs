//! The processes of a run, each in its namespace: a server, a node that fetches, the two sides of a call.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use fs_err as fs;
use mirabelle_transfer::serve::{self, Naming};
use mirabelle_transfer::{Fetcher, Limits, Link, Priority, RetryPolicy};
use tokio_util::sync::CancellationToken;

use super::call::{self, Heard};
use super::network::Network;
use super::{Fetching, LINK_BITS, Run, WARM_UP};

/// The port of the server, and those of the call's two sides.
const SERVER_PORT: u16 = 8700;
const CALL_PORT: u16 = 8702;
/// How long processes have to begin.
const BEGINNING: Duration = Duration::from_millis(1500);
/// A file that is fetched again and again, with names of its own each time, as releases are.
const FILE_BYTES: u64 = 24 << 20;

/// One process of a run.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Serves a directory.
    Serve {
        /// The directory.
        directory: PathBuf,
        /// Where.
        listen: SocketAddr,
    },
    /// Fetches until it is stopped.
    Fetch {
        /// From where.
        upstream: String,
        /// How.
        fetching: Fetching,
        /// The delay that is aimed at, in milliseconds.
        #[arg(long)]
        target: Option<u64>,
    },
    /// Takes part in a call.
    Call {
        /// This side.
        own: String,
        /// The other side.
        other: String,
        /// When it begins, in milliseconds of the clock.
        begin: u64,
        /// Milliseconds that are left out, and that are measured.
        warm_up: u64,
        /// See there.
        measured: u64,
        /// Where to write what was heard.
        heard: PathBuf,
    },
}

impl Step {
    pub(crate) fn run(self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        match self {
            Self::Serve { directory, listen } => runtime.block_on(give_out(directory, listen)),
            Self::Fetch { upstream, fetching, target } => {
                runtime.block_on(fetch(&upstream, fetching, target));
            }
            Self::Call { own, other, begin, warm_up, measured, heard } => {
                let milliseconds = Duration::from_millis;
                let times = (milliseconds(warm_up), milliseconds(measured));
                call::take_part((&own, &other), milliseconds(begin), times, &heard);
            }
        }
    }
}

async fn give_out(directory: PathBuf, listen: SocketAddr) {
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    let handler = move |request: hyper::Request<hyper::body::Incoming>, _| {
        let directory = directory.clone();
        async move {
            let name = request.uri().path().trim_start_matches('/').replace('/', "-");
            // Every name but the timestamp's is the one large file.
            let name = if name.starts_with("metadata") { "metadata" } else { "large" };
            let path = directory.join(name);
            serve::serve_file(request.method(), request.headers(), &path, Naming::Immutable).await
        }
    };
    serve::run(listener, handler, CancellationToken::new()).await;
}

async fn fetch(upstream: &str, fetching: Fetching, target: Option<u64>) {
    let link = Link::unlimited();
    if fetching == Fetching::Yielding {
        let target = target.map_or(Limits::TARGET, Duration::from_millis);
        link.set_limits(Limits { yielding: Some(target), ..Limits::default() });
    }
    let fetcher = Fetcher::new(upstream.parse().unwrap(), RetryPolicy::default()).unwrap();
    let fetcher = fetcher.over(link.clone()).at(Priority::Required);
    let said = link.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let report = said.report(SystemTime::now().try_into().unwrap());
            eprintln!(
                "  {:?} {} B/s, pace {:?}, queue {:?} ms, base {:?} ms",
                report.state, report.rate, report.pace, report.queueing_delay_ms, report.base_delay_ms
            );
        }
    });
    for number in 0.. {
        fetcher.bytes(&format!("objects/{number}"), FILE_BYTES).await.unwrap();
    }
}

/// Ends a process with the run.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn step(mut command: Command, words: &[&str]) -> Ended {
    let own = std::env::current_exe().unwrap();
    command.arg(own).arg("yield-step").args(words).stdin(Stdio::null()).stdout(Stdio::null());
    if std::env::var_os("MIRABELLE_LOG").is_none() {
        command.stderr(Stdio::null());
    }
    Ended(command.spawn().unwrap())
}

/// One run over `network`.
pub(super) fn run_all(
    network: &Network,
    fetching: Fetching,
    with_call: bool,
    measured: Duration,
    target: Option<u64>,
) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::File::create(path("large")).unwrap().set_len(FILE_BYTES).unwrap();
    fs::write(path("metadata"), b"{}").unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let milliseconds = |duration: Duration| duration.as_millis().to_string();

    let server = format!("{}:{SERVER_PORT}", Network::FAR_ADDRESS);
    let _server = step(network.far(), &["serve", &text(directory.path()), &server]);
    let origin = Instant::now() + BEGINNING;
    let begin = milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + BEGINNING);
    let sides = [Network::NEAR_ADDRESS, Network::FAR_ADDRESS].map(|address| format!("{address}:{CALL_PORT}"));
    let heard = [path("down.json"), path("up.json")];
    let mut calls = Vec::new();
    if with_call {
        let (warm_up, length) = (milliseconds(WARM_UP), milliseconds(measured));
        for (side, command) in [network.near(), network.far()].into_iter().enumerate() {
            let words =
                ["call", &sides[side], &sides[1 - side], &begin, &warm_up, &length, &text(&heard[side])];
            calls.push(step(command, &words));
        }
    }
    wait_until(origin);
    let target = target.map(|target| target.to_string());
    let upstream = format!("http://{server}/");
    let how = if fetching == Fetching::Full { "full" } else { "yielding" };
    let mut words = vec!["fetch", &upstream, how];
    words.extend(target.as_deref().into_iter().flat_map(|target| ["--target", target]));
    let _fetching = (fetching != Fetching::Idle).then(|| step(network.near(), &words));

    wait_until(origin + WARM_UP);
    let (before, begun) = (network.came_down(), Instant::now());
    wait_until(origin + WARM_UP + measured);
    let (bytes, seconds) = (network.came_down() - before, begun.elapsed().as_secs_f64());
    for call in &mut calls {
        assert!(call.0.wait().unwrap().success(), "a side of the call broke down");
    }
    let [down, up] = heard.map(|path| -> Option<Heard> {
        with_call.then(|| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    });
    let call_bits = down.as_ref().map_or(0.0, |heard| heard.bits_per_second);
    let fetched_bits = bytes as f64 * 8.0 / seconds - call_bits;
    assert!(fetched_bits < LINK_BITS as f64 * 1.02, "the link carried more than it can: it is not shaped");
    Run { fetching, down, up, fetched_bits: fetched_bits.max(0.0) }
}

fn wait_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
