//! `install`: how long a workstation takes to install a release that its node holds, and to update it where 5 % of the
//! files changed, over loopback; beside tar, OSTree and dpkg with the same content, in one run.
//!
//! ```text
//! content.rs   the application ──▶ a world: published, mirrored by two nodes, installed on workstations that were empty
//! peers.rs     tar --zstd -x + sync (the limit), ostree pull + checkout, dpkg -i
//! report.rs    the tables and the result ──▶ docs/benchmarks/install.md
//! ```
//!
//! Everything is on one disk and reads from memory; whatever was written before is on the disk when a time begins. Runs
//! alternate, and the median of each is taken, since the machine drifts. Nothing is removed while times are taken.
//!
//! One college's node has the second release by ranges of the bundle, and its workstations ask it for the objects they
//! lack; the other's has it by a delta, which its workstations take.

mod content;
mod peers;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fs_err as fs;
use mirabelle_tests::{Outcome, World};

use peers::{Dpkg, OsTree};

/// For five seconds after files were deleted, ext4 looks for each new one past the inodes they had
/// (`EXT4_DEF_RECENTCY`): what building left behind would slow down whoever comes first.
const EXT4_FORGETS: Duration = Duration::from_secs(6);

/// The colleges: without deltas, and with.
const COLLEGES: [&str; 2] = ["57001", "57002"];

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Small files; beside them are 41 larger ones, of 200 MiB.
    #[arg(long, default_value_t = 3000)]
    small_files: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Leaves the update by a delta out.
    #[arg(long)]
    without_deltas: bool,
    /// Only tar and ours.
    #[arg(long)]
    without_peers: bool,
    /// Makes the world in this directory, which stays, to look closer at afterwards.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Writes the page.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What was measured: the times of each, in the order of the runs, and the most memory that ours had.
#[derive(Debug, Default)]
struct Times {
    tar: Vec<Duration>,
    install: Vec<Duration>,
    ostree: Vec<Duration>,
    dpkg: Vec<Duration>,
    update: Vec<Duration>,
    update_by_delta: Vec<Duration>,
    tar_of_update: Vec<Duration>,
    ostree_update: Vec<Duration>,
    dpkg_update: Vec<Duration>,
    install_memory: u64,
    update_memory: u64,
    /// Bytes that crossed the link for the update, without and with a delta.
    received: [u64; 2],
}

/// The content of one release.
#[derive(Clone, Copy, Debug)]
struct Size {
    files: usize,
    bytes: u64,
    bundle: u64,
}

pub(crate) fn run(arguments: &Arguments) {
    let runs = arguments.runs;
    let mut builder = World::new();
    for college in COLLEGES {
        builder = builder.college(college).workstations(runs);
    }
    if let Some(directory) = &arguments.directory {
        builder = builder.directory(directory);
    }
    let mut world = builder.start();
    let work = world.path("bench");
    fs::create_dir(&work).unwrap();
    let mut times = Times::default();

    world.release(&content::app(1, arguments.small_files));
    for college in COLLEGES {
        mirror(&mut world, college);
    }
    let first = newest_bundle(&world, None);
    let mut rivals = None;
    for run in 0..runs {
        settle(&work);
        times.tar.push(peers::tar(&first, &work.join(format!("tar-{run}"))));
        settle(&work);
        let outcome = workstation(&mut world, COLLEGES[0], run, "install");
        times.install.push(outcome.took);
        times.install_memory = times.install_memory.max(outcome.peak_rss);
        workstation(&mut world, COLLEGES[1], run, "install");
        if arguments.without_peers {
            continue;
        }
        let (ostree, dpkg) = rivals.get_or_insert_with(|| prepare(&tree(&mut world), &work));
        settle(&work);
        times
            .ostree
            .push(ostree.install(&work.join(format!("ostree-{run}")), &work.join(format!("out-1-{run}"))));
        settle(&work);
        times.dpkg.push(dpkg.install(&work.join(format!("dpkg-{run}"))));
    }
    let size = size(&tree(&mut world), &first);

    world.release(&content::app(2, arguments.small_files));
    mirror(&mut world, COLLEGES[0]);
    if !arguments.without_deltas {
        world.publisher(["deltas", "--without-packs", "--effort", "1"]).succeeds();
        mirror(&mut world, COLLEGES[1]);
    }
    let second = newest_bundle(&world, Some(&first));
    let mut newer = None;
    for run in 0..runs {
        settle(&work);
        times.tar_of_update.push(peers::tar(&second, &work.join(format!("tar-2-{run}"))));
        settle(&work);
        let outcome = workstation(&mut world, COLLEGES[0], run, "update");
        times.update.push(outcome.took);
        times.received[0] = received(&outcome);
        times.update_memory = times.update_memory.max(outcome.peak_rss);
        if !arguments.without_deltas {
            settle(&work);
            let outcome = workstation(&mut world, COLLEGES[1], run, "update");
            times.update_by_delta.push(outcome.took);
            times.received[1] = received(&outcome);
        }
        let Some((ostree, _)) = &rivals else { continue };
        let dpkg = newer.get_or_insert_with(|| {
            let tree = tree(&mut world);
            ostree.commit(&tree);
            Dpkg::build(&tree, 2, &work)
        });
        settle(&work);
        times
            .ostree_update
            .push(ostree.install(&work.join(format!("ostree-{run}")), &work.join(format!("out-2-{run}"))));
        settle(&work);
        times.dpkg_update.push(dpkg.install(&work.join(format!("dpkg-{run}"))));
    }

    println!("{}", report::text(&times, size));
    if let Some(page) = &arguments.page {
        fs::write(page, report::page(&times, size)).unwrap();
    }
    println!("result: {}", report::result(&times, size));
}

/// Lets a node take in what was published, and serve it.
fn mirror(world: &mut World, college: &str) {
    let origin = world.origin().to_owned();
    let college = world.college(college);
    college.stop_node();
    // Past the world's links, whose proxy would be what is measured.
    college.node(["--upstream", &origin, "sync"]).succeeds();
    college.start_node();
}

/// Runs `install` or `update` on a workstation, past the world's links.
fn workstation(world: &mut World, college: &str, number: usize, verb: &str) -> Outcome {
    let college = world.college(college);
    let node = college.running_node().unwrap().address().to_owned();
    let mut words = vec!["--json", "--node", &node, verb];
    words.extend((verb == "install").then_some("large"));
    college.workstation(number).run(words).succeeds()
}

fn received(outcome: &Outcome) -> u64 {
    outcome.json()["received_bytes"].as_u64().unwrap()
}

/// What the first workstation has installed.
fn tree(world: &mut World) -> PathBuf {
    world.college(COLLEGES[0]).workstation(0).root().join("active/apps/large")
}

fn prepare(tree: &Path, work: &Path) -> (OsTree, Dpkg) {
    let ostree = OsTree::start(work);
    ostree.commit(tree);
    (ostree, Dpkg::build(tree, 1, work))
}

/// Whatever was written before is on the disk, and files that were deleted are forgotten.
fn settle(directory: &Path) {
    peers::sync(directory);
    std::thread::sleep(EXT4_FORGETS);
}

/// The published bundle that is not `before`.
fn newest_bundle(world: &World, before: Option<&Path>) -> PathBuf {
    let bundles = fs::read_dir(world.path("repository/public/bundles")).unwrap();
    let mut paths = bundles.map(|entry| entry.unwrap().path());
    paths.find(|path| Some(path.as_path()) != before).unwrap()
}

fn size(tree: &Path, bundle: &Path) -> Size {
    let mut size = Size { files: 0, bytes: 0, bundle: fs::metadata(bundle).unwrap().len() };
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                size.files += 1;
                size.bytes += metadata.len();
            }
        }
    }
    size
}
