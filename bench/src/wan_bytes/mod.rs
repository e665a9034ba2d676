//! `wan-bytes`: what must cross the link for an update, and for a first install, of real releases; ours beside the best
//! tools there are, in one run.
//!
//! ```text
//! corpus.rs   pairs of releases, fetched by the package clients ──▶ tree.rs   the same tar and tree for everybody
//!    ├─▶ peers.rs  zstd, OSTree, HDiffPatch, casync, bsdiff: made, applied, compared   (tools.rs installs them)
//!    └─▶ ours.rs   bundle and deltas, each step in a process of its own
//! report.rs   the tables and the result ──▶ page.rs   docs/benchmarks/wan-bytes.md ──▶ picture.rs   its picture
//! ```
//!
//! Nothing counts that was not decoded and compared with the new release. A tool that is missing or fails gives a `–`.

mod corpus;
mod ours;
mod page;
mod peers;
mod picture;
mod report;
pub(crate) mod tools;
mod tree;

use std::path::{Path, PathBuf};

use clap::Args;
use fs_err as fs;
use mirabelle_tests::Outcome;
use serde::{Deserialize, Serialize};

use corpus::Pair;
use ours::Ours;
pub(crate) use ours::Step;
pub(crate) use page::machine;
use peers::{Bench, Peer};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Releases as `DIR/NAME/VERSION/…`, the two newest of each; without it, real ones are fetched and kept.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Only these names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Peer>,
    /// Takes what an earlier run measured of the peers and of our bundles, where trees and tools are the same.
    #[arg(long)]
    reuse_peers: bool,
    /// How hard ours tries, 1 to 3.
    #[arg(long, default_value_t = 2)]
    effort: u8,
    /// Writes every number here as tab-separated values, pair by pair.
    #[arg(long)]
    tsv: Option<PathBuf>,
    /// Writes the page, and its picture beside it. A whole run over the real releases does so by itself.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Writes no page.
    #[arg(long, conflicts_with = "page")]
    no_page: bool,
}

/// What a process took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Cost {
    /// User and system time in seconds.
    cpu: f64,
    /// The most memory resident, in bytes.
    memory: u64,
}

impl Cost {
    fn of(outcome: &Outcome) -> Self {
        Self { cpu: outcome.cpu.as_secs_f64(), memory: outcome.peak_rss }
    }

    /// One after the other.
    fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory.max(other.memory) }
    }
}

/// One way of moving one release.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Measured {
    /// What crosses the link.
    bytes: u64,
    encode: Cost,
    decode: Cost,
}

/// Everything about one pair.
struct Row {
    pair: Pair,
    new_bytes: u64,
    ours: Ours,
    /// In the order of [`Peer::ALL`]; `None` where it was not asked for, is not here or failed.
    peers: Vec<Option<Measured>>,
    /// Some of it is an earlier run's.
    reused: bool,
}

impl Row {
    fn peer(&self, peer: Peer) -> Option<Measured> {
        self.peers[Peer::ALL.iter().position(|other| *other == peer).unwrap()]
    }

    /// The peer that moves the fewest bytes for the update.
    fn best(&self) -> Option<(Peer, Measured)> {
        let measured = Peer::UPDATES.iter().filter_map(|peer| Some((*peer, self.peer(*peer)?)));
        measured.min_by_key(|(_, measured)| measured.bytes)
    }
}

pub(crate) fn run(arguments: &Arguments) {
    let pairs = match &arguments.corpus {
        Some(directory) => corpus::found(directory, &arguments.only),
        None => corpus::fetched(&arguments.only),
    };
    assert!(!pairs.is_empty(), "there is no release of which two versions are here");
    let asked =
        |peer: &Peer| arguments.peers.is_empty() || arguments.peers.contains(peer) || *peer == Peer::Zstd;
    let wanted: Vec<Peer> = Peer::ALL.into_iter().filter(asked).collect();
    let tools = tools::Tools::for_peers(&wanted);
    let work_root = tools::cache().join("wan-bytes");
    fs::create_dir_all(&work_root).unwrap();

    let mut rows = Vec::new();
    for (number, pair) in pairs.iter().enumerate() {
        eprintln!("[{}/{}] {}", number + 1, pairs.len(), pair.label());
        // Where there is room; the system's temporary directory may be memory.
        let work = tempfile::Builder::new().prefix("work-").tempdir_in(&work_root).unwrap();
        rows.push(measure(pair, &wanted, &tools, work.path(), arguments));
        if let Some(tsv) = &arguments.tsv {
            let lines = std::iter::once(None).chain(rows.iter().map(Some)).map(report::values);
            fs::write(tsv, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
        }
    }

    let text = report::text(&rows);
    println!("{text}\n{}", report::result(&rows));
    let whole = arguments.corpus.is_none() && arguments.only.is_empty() && arguments.peers.is_empty();
    let page = match (&arguments.page, arguments.no_page) {
        (Some(page), _) => page.clone(),
        (None, false) if whole => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks/wan-bytes.md")
        }
        _ => return,
    };
    page::write(&page, &rows, &tools);
    eprintln!("wrote {}", page.display());
}

fn measure(pair: &Pair, wanted: &[Peer], tools: &tools::Tools, work: &Path, arguments: &Arguments) -> Row {
    let bench = Bench::prepare(pair, tools, work);
    let mut reused = false;
    let peers = Peer::ALL.map(|peer| {
        if !wanted.contains(&peer) || !tools.has(peer) {
            return None;
        }
        if arguments.reuse_peers
            && let Some(kept) = bench.kept(peer)
        {
            reused = true;
            return Some(kept);
        }
        eprintln!("  {}", peer.name());
        let measured = bench.measure(peer);
        match measured {
            Some(measured) => bench.keep(peer, measured),
            None => eprintln!("  {} failed on {}: left out", peer.name(), pair.label()),
        }
        measured
    });
    eprintln!("  ours");
    let ours = ours::measure(&bench, arguments.effort, arguments.reuse_peers);
    reused |= ours.reused;
    Row { pair: pair.clone(), new_bytes: bench.new.bytes(), ours, peers: peers.to_vec(), reused }
}
