//! `yield`: what a node that fetches costs a video call over the same link, and what it still gets.
//!
//! ```text
//!   namespace near                     namespace router               namespace far
//!   step fetch   (transfer, the link) ── tbf 8 Mbit/s each way ──  step serve (transfer::serve)
//!   step call    1.5 Mbit/s                                        step call   1.5 Mbit/s
//! ```
//!
//! Every process is this program in a namespace of its own side. Delays are one way, from packets that carry the time at which
//! they were sent: all is one machine, with one clock. Bytes are those that the shaped interfaces counted, Ethernet and all,
//! which is what the shaper shapes. It needs root, and `tc` and `ip` of iproute2, which it installs.

mod call;
mod network;
mod page;
mod picture;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mirabelle_terminal::Table;

use call::Heard;
use network::Network;
pub(crate) use steps::Step;

/// What the link carries, in bits a second.
const LINK_BITS: u64 = 8_000_000;
/// Seconds that are left out at the beginning of each run: connections are set up, and the rate is found.
const WARM_UP: Duration = Duration::from_secs(8);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds that each run is measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Queueing delay at which transfers stop to go faster, in milliseconds; that of the node, if not given.
    #[arg(long)]
    target: Option<u64>,
    /// Writes the page, and its picture beside it.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What the node does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fetching {
    /// Nothing.
    Idle,
    /// It fetches as fast as it goes.
    Full,
    /// It fetches, and gives way.
    Yielding,
}

impl Fetching {
    fn words(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Full => "full rate",
            Self::Yielding => "yielding",
        }
    }
}

/// What one run came to.
struct Run {
    fetching: Fetching,
    /// What came down to the node's side, and what went up.
    down: Option<Heard>,
    up: Option<Heard>,
    /// Bits a second down the link, without those of the call.
    fetched_bits: f64,
}

impl Run {
    /// The 95th percentile of the delay in the worse direction, in milliseconds.
    fn p95(&self) -> f64 {
        [&self.down, &self.up].into_iter().flatten().map(|heard| heard.percentile(95)).fold(0.0, f64::max)
    }

    fn lost(&self) -> u64 {
        [&self.down, &self.up].into_iter().flatten().map(|heard| heard.lost).sum()
    }
}

/// What all of it came to.
struct Measured {
    idle: Run,
    full: Run,
    yielding: Run,
    alone: Run,
    seconds: u64,
}

impl Measured {
    fn beside_call(&self) -> [&Run; 3] {
        [&self.idle, &self.full, &self.yielding]
    }

    /// What the call takes of the link downwards, in bits a second.
    fn call_bits(&self) -> f64 {
        self.yielding.down.as_ref().map_or(0.0, |heard| heard.bits_per_second)
    }

    fn used_of_rest(&self) -> f64 {
        self.yielding.fetched_bits / (LINK_BITS as f64 - self.call_bits())
    }

    fn used_alone(&self) -> f64 {
        self.alone.fetched_bits / LINK_BITS as f64
    }

    fn added(&self) -> f64 {
        self.yielding.p95() - self.idle.p95()
    }

    fn result(&self) -> String {
        format!(
            "result: call_p95_added_ms={:.1} call_lost={} used_of_rest={:.3} used_alone={:.3}",
            self.added(),
            self.yielding.lost(),
            self.used_of_rest(),
            self.used_alone()
        )
    }
}

pub(crate) fn run(arguments: &Arguments) {
    network::install();
    let measured_for = Duration::from_secs(arguments.seconds);
    let run = |fetching: Fetching, with_call: bool| {
        eprintln!("{}{}", fetching.words(), if with_call { ", beside a call" } else { ", alone" });
        // A new link each time: nothing stands in its queues.
        let network = Network::build(LINK_BITS);
        steps::run_all(&network, fetching, with_call, measured_for, arguments.target)
    };
    let measured = Measured {
        idle: run(Fetching::Idle, true),
        full: run(Fetching::Full, true),
        yielding: run(Fetching::Yielding, true),
        alone: run(Fetching::Yielding, false),
        seconds: arguments.seconds,
    };
    println!("{}\n{}", table(&measured).render(), measured.result());
    if let Some(page) = &arguments.page {
        page::write(page, &measured);
        eprintln!("wrote {}", page.display());
    }
}

fn table(measured: &Measured) -> Table {
    let mut table = Table::new(page::HEADER).right([1, 2, 3, 4, 5, 6, 7]);
    for row in page::rows(measured) {
        table.row(row);
    }
    table
}
