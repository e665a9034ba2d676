//! `pipeline`: a large release from its files to a workstation, over loopback without a shaped link.
//!
//! The limits are the hash and the disk: what `sha256sum` makes of the same files, and what `cp -r` with a `sync` does
//! (reading from memory, as ours do).
//! Mirroring and installing each read, hash and write every byte once, so neither can beat the lower of the two by
//! much; the ratio to it is what counts. Runs alternate, and the median of each is taken, since the machine drifts.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use mirabelle_terminal::{Table, bytes};
use mirabelle_tests::{App, World, run as run_command};

/// For five seconds after files were deleted, ext4 looks for each new one past the inodes they had
/// (`EXT4_DEF_RECENTCY`): the files that building left would slow the mirror down by half.
const EXT4_FORGETS: Duration = Duration::from_secs(6);

/// The bench's arguments.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Megabytes of the release, half in one file and half in files of 256 kB.
    #[arg(long, default_value_t = 500)]
    megabytes: usize,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

pub(crate) fn run(arguments: &Arguments) {
    let total = arguments.megabytes * 1_000_000;
    let app = |number: u64| {
        let small = (total / 2 / 256_000) as u64;
        let app = App::new("large", number).noise("large", total / 2, 1000 + number);
        (0..small).fold(app, |app, part| app.noise(&format!("parts/{part}"), 256_000, (number << 32) | part))
    };
    let mut sha256sum = Vec::new();
    let mut copy = Vec::new();
    let mut mirror = Vec::new();
    let mut install = Vec::new();
    let mut memory = [0_u64; 2];
    for number in 1..=arguments.runs as u64 {
        // A world of its own each time: nothing is there already.
        let mut world = World::new().college("57001").workstations(1).start();
        let release = app(number);
        world.release(&release);
        // Past the world's links, whose proxy would be what is measured.
        let origin = world.origin().to_owned();
        let college = world.college("57001");
        std::thread::sleep(EXT4_FORGETS);
        let outcome = college.node(["--upstream", &origin, "sync"]).succeeds();
        mirror.push(outcome.took);
        memory[0] = memory[0].max(outcome.peak_rss);
        college.start_node();
        let node = college.running_node().unwrap().address().to_owned();
        let outcome = college.workstation(0).run(["--node", &node, "install", "large"]).succeeds();
        install.push(outcome.took);
        memory[1] = memory[1].max(outcome.peak_rss);
        let tree = college.workstation(0).root().join("active/apps/large");
        sha256sum.push(hash(&tree));
        copy.push(copy_and_sync(&tree, &world.path("copy")));
    }

    let speed = |times: &mut Vec<Duration>| {
        times.sort();
        total as f64 / 1e6 / times[times.len() / 2].as_secs_f64()
    };
    let (hash, copy) = (speed(&mut sha256sum), speed(&mut copy));
    let (mirror, install) = (speed(&mut mirror), speed(&mut install));
    let limit = hash.min(copy);
    let mut table = Table::new(["what", "MB/s", "of the limit", "peak memory"]).right([1, 2, 3]);
    let mut row = |what: &str, speed: f64, memory: String| {
        table.row([what.to_owned(), format!("{speed:.0}"), format!("{:.2}", speed / limit), memory]);
    };
    row("sha256sum", hash, String::new());
    row("cp -r and sync", copy, String::new());
    row("mirror", mirror, bytes(memory[0]));
    row("install", install, bytes(memory[1]));
    println!("{} MB, {} runs, medians\n\n{}", arguments.megabytes, arguments.runs, table.render());
    println!(
        "result: mirror_vs_limit={:.2} install_vs_limit={:.2} mirror_mb_s={mirror:.0} install_mb_s={install:.0} \
         sha256sum_mb_s={hash:.0} cp_mb_s={copy:.0} mirror_rss={} install_rss={}",
        mirror / limit,
        install / limit,
        memory[0],
        memory[1]
    );
}

fn hash(tree: &Path) -> Duration {
    let begun = Instant::now();
    let all = "find -L \"$0\" -type f -print0 | xargs -0 sha256sum";
    run_command(Command::new("sh").args(["-c", all]).arg(tree)).succeeds();
    begun.elapsed()
}

fn copy_and_sync(from: &Path, to: &Path) -> Duration {
    let begun = Instant::now();
    run_command(Command::new("cp").arg("-rL").arg(from).arg(to)).succeeds();
    run_command(Command::new("sync").arg("-f").arg(to)).succeeds();
    begun.elapsed()
}
