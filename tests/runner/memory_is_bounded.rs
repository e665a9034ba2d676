//! No program reads a whole file or bundle into memory: publishing, mirroring and installing a release of 500 MB stay
//! under 200 MB each, the strongest compression on two cores as well.

use std::io::Write;

use fs_err as fs;
use mirabelle_tests::{Outcome, World};

const LIMIT: u64 = 200_000_000;

/// One file of 3/5 and 50 that share the rest, half of which compress.
fn write_release(directory: &std::path::Path, megabytes: u32) {
    fs::create_dir_all(directory.join("tree/parts")).unwrap();
    let mut state = 1_u64;
    let mut block = vec![0_u8; 1 << 20];
    let mut next = |text: bool| {
        for chunk in block.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = if text { state >> 60 } else { state ^ (state >> 29) };
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        block.clone()
    };
    let mut large = fs::File::create(directory.join("tree/large")).unwrap();
    for megabyte in 0..megabytes * 3 / 5 {
        large.write_all(&next(megabyte % 2 == 0)).unwrap();
    }
    for part in 0..50 {
        let mut file = fs::File::create(directory.join(format!("tree/parts/{part}"))).unwrap();
        for _ in 0..megabytes / 125 {
            file.write_all(&next(part % 2 == 0)).unwrap();
        }
    }
    let recipe = "name = \"large\"\nversion = \"1.0\"\nsequence = 1\nplatform = \"any\"\nlicence = \"MIT\"\n\
        title = { fr = \"x\", en = \"x\" }\nsummary = { fr = \"x\", en = \"x\" }\n\
        [[source]]\npath = \"tree\"\nkind = \"directory\"\n";
    fs::write(directory.join("r.toml"), recipe).unwrap();
}

#[track_caller]
fn stays_small(what: &str, outcome: Outcome) {
    let outcome = outcome.succeeds();
    println!("{what}: {} MB at most, {:.1} s", outcome.peak_rss / 1_000_000, outcome.took.as_secs_f64());
    assert!(outcome.peak_rss > 1_000_000, "the peak of {what} was not measured");
    assert!(outcome.peak_rss < LIMIT, "{what} had {} bytes resident", outcome.peak_rss);
}

#[test]
fn a_release_of_500_mb_passes_through_200() {
    let mut world = World::new().college("57001").workstations(1).start();
    write_release(world.directory(), 500);
    // At level 19 this would take minutes; level 3 reads and writes the same way. What level 19 itself takes does not
    // grow with the release, and is measured on the smaller one below.
    stays_small(
        "build",
        world.publisher(["build", "r.toml", "--level", "3", "--key", "keys/packager-1.key"]),
    );
    stays_small("submit", world.publisher(["submit", "built/large-1.0-any"]));
    fs::remove_dir_all(world.path("tree")).unwrap();
    fs::remove_dir_all(world.path("built")).unwrap();
    let keys = ["--key", "keys/approver-1.key", "--key", "keys/approver-2.key"];
    world.publisher(["approve", "large@1.0"].into_iter().chain(keys)).succeeds();
    world.publisher(["deploy", "large@1.0", "--colleges", "all", "--key", "keys/operator-1.key"]).succeeds();
    stays_small("publish", world.publisher(["publish", "--key", "keys/online.key"]));
    let college = world.college("57001");
    stays_small("mirror", college.node(["sync"]));
    college.start_node();
    stays_small("install", college.workstation(0).run(["install", "large"]));
    let serving = college.running_node().unwrap().peak_rss();
    assert!(serving < LIMIT, "the node had {serving} bytes resident while serving");
}

#[test]
fn the_strongest_compression_on_both_cores_stays_under_200() {
    let world = World::new().start();
    write_release(world.directory(), 125);
    // The large file and a frame of small ones at the same time: what costs most.
    fs::File::options().write(true).open(world.path("tree/large")).unwrap().set_len(24 << 20).unwrap();
    for part in 24..50 {
        fs::remove_file(world.path(&format!("tree/parts/{part}"))).unwrap();
    }
    let outcome =
        world.publisher(["build", "r.toml", "--jobs", "2", "--key", "keys/packager-1.key"]).succeeds();
    assert!(outcome.peak_rss < LIMIT, "{} bytes", outcome.peak_rss);
}
