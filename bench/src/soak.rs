//! `soak`: a node with its workstations, new releases, faults of the link and of the disk, for half an hour or as long as is
//! said; its memory, its open files and its disk must stay flat.
//!
//! Each round brings a new release of an application that replaces an earlier one, lets the link fail in a different way, damages an
//! object, and has clients ask for everything; what is measured after each round are the node's own resident memory, its
//! descriptors, and the bytes below its directory. Flat: of the last third of the rounds, the mean is no more than a tenth
//! above that of the second third.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fs_err as fs;
use mirabelle_manifests::Digest;
use mirabelle_terminal::{Table, bytes};
use mirabelle_tests::{App, Fault, World, try_get};

use crate::wan_bytes::machine;

const COLLEGE: &str = "57001";
/// Releases whose files recur: a node that keeps what nobody is owed would grow with the others.
const CLIENTS: usize = 16;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Writes the page.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What the node took after a round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    memory: u64,
    descriptors: u64,
    disk: u64,
}

pub(crate) fn run(arguments: &Arguments) {
    let mut world = World::new().deltas().college(COLLEGE).workstations(1).start();
    let college = world.college(COLLEGE);
    college.options(["--keep-unassigned", "5 s", "--scrub-every", "20 s"]);
    let until = Instant::now() + Duration::from_secs(arguments.minutes * 60);
    let mut samples = Vec::new();
    let (mut asked, mut refused) = (0_u64, 0_u64);
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let app = app(round);
        world.release(&app);
        let college = world.college(COLLEGE);
        if round == 1 {
            college.sync();
        }
        let node = college.running_node().unwrap().address().to_owned();
        let fault = [Fault::None, Fault::CutEvery(200_000), Fault::Down, Fault::AfterRequests(3)]
            [usize::try_from(round % 4).unwrap()];
        college.wan().fail(fault);
        damage(&college.node_root(), round);
        // It looks when it is told that something is missing, which the damage does; and it is well again before the next round.
        let objects = objects_of(&app);
        let (more, failed) = ask(&node, &objects);
        (asked, refused) = (asked + more, refused + failed);
        college.wan().fail(Fault::None);
        wait_until_complete(&node, round, &objects);
        let id = college.running_node().unwrap().id();
        samples.push(Sample::of(id, &college.node_root()));
    }
    let college = world.college(COLLEGE);
    college.stop_node();
    college.node(["fsck"]).succeeds();
    let flat = |figure: fn(&Sample) -> u64| {
        let third = samples.len() / 3;
        let mean =
            |samples: &[Sample]| samples.iter().map(figure).sum::<u64>() as f64 / samples.len().max(1) as f64;
        mean(&samples[2 * third..]) / mean(&samples[third..2 * third])
    };
    let (memory, descriptors, disk) =
        (flat(|sample| sample.memory), flat(|sample| sample.descriptors), flat(|sample| sample.disk));
    let mut table = Table::new(["round", "memory", "open files", "disk"]).right([0, 1, 2, 3]);
    let step = (samples.len() / 12).max(1);
    for (round, sample) in samples.iter().enumerate().step_by(step) {
        let descriptors = sample.descriptors.to_string();
        table.row([(round + 1).to_string(), bytes(sample.memory), descriptors, bytes(sample.disk)]);
    }
    let text = format!(
        "{} rounds in {} minutes; {asked} objects asked for, {refused} not given while the link was down\n{}",
        samples.len(),
        arguments.minutes,
        table.render()
    );
    println!("{text}");
    println!(
        "result: rounds={} memory_growth={memory:.3} descriptors_growth={descriptors:.3} disk_growth={disk:.3}",
        samples.len()
    );
    if let Some(page) = &arguments.page {
        fs::write(page, format!("# Half an hour of churn\n\n{}\n\n```text\n{text}```\n", machine())).unwrap();
    }
}

/// Some files that every release has, some that only this one has.
fn app(round: u64) -> App {
    let app = App::new("churn", round).noise("large", 3_000_000, 1).noise("new", 2_000_000, 1000 + round);
    (0..50).fold(app, |app, file| {
        app.file(&format!("lib/{file}"), format!("{file} of {}\n", round % 7).repeat(200))
    })
}

fn objects_of(app: &App) -> Vec<(Digest, usize)> {
    let files =
        ["large", "new"].map(str::to_owned).into_iter().chain((0..50).map(|file| format!("lib/{file}")));
    files.map(|file| app.content(&file)).map(|content| (Digest::of(&content), content.len())).collect()
}

fn ask(node: &str, objects: &[(Digest, usize)]) -> (u64, u64) {
    let failed = std::thread::scope(|threads| {
        let asking: Vec<_> = (0..CLIENTS)
            .map(|_| {
                threads.spawn(|| {
                    let answers = objects.iter().map(|(object, _)| try_get(node, &path(*object), ""));
                    answers
                        .filter(|answer| !answer.as_ref().is_ok_and(|answer| answer.status() == 200))
                        .count()
                })
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap() as u64).sum()
    });
    ((CLIENTS * objects.len()) as u64, failed)
}

fn path(object: Digest) -> String {
    format!("objects/{}", object.fanned_out())
}

/// Flips a bit of some object that is held.
fn damage(root: &Path, round: u64) {
    let folders = fs::read_dir(root.join("objects")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> =
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect();
    let Some(file) = files.get(usize::try_from(round).unwrap() * 7919 % files.len().max(1)) else { return };
    let mut content = fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::remove_file(file).unwrap();
    fs::write(file, content).unwrap();
}

/// Asks until every object of the release is given.
fn wait_until_complete(node: &str, round: u64, objects: &[(Digest, usize)]) {
    let until = Instant::now() + Duration::from_mins(2);
    let all_here = || {
        objects.iter().all(|(object, size)| {
            try_get(node, &path(*object), "").is_ok_and(|answer| {
                answer.status() == 200 && answer.body.len() == *size && Digest::of(&answer.body) == *object
            })
        })
    };
    while !all_here() {
        assert!(Instant::now() < until, "round {round} is not complete after two minutes");
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Sample {
    fn of(id: u32, root: &Path) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory: u64 = memory.trim().trim_end_matches(" kB").trim().parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64;
        Self { memory: memory * 1024, descriptors, disk: weigh(root) }
    }
}

fn weigh(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let entries = entries.filter_map(Result::ok);
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                weigh(&entry.path())
            } else {
                entry.metadata().map_or(0, |found| found.len())
            }
        })
        .sum()
}
