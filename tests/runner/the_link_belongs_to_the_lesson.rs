//! Promise 6: rate, hours and the budget of the day are limits that no retry, fallback or repair exceeds; and they change
//! while the node runs. That transfers yield is measured, not tested: `bench yield`.

use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::{App, College, Fault, World, mbit};

const KB: u64 = 1000;
/// What may be under way when a link closes: in the buffers of proxy and kernel, at the rate of these tests.
const IN_FLIGHT: u64 = 700 * KB;

fn limit(college: &College, link: &str) {
    let path = college.node_root().join("node.toml");
    let file = fs::read_to_string(&path).unwrap();
    let before = file.split("[link]").next().unwrap().trim_end().to_owned();
    // Renamed into place, as an editor does: nobody reads half of it.
    let new = path.with_extension("new");
    fs::write(&new, format!("{before}\n\n[link]\nyield = false\n{link}\n")).unwrap();
    fs::rename(new, path).unwrap();
}

fn carried(college: &College) -> u64 {
    college.wan().down() + college.wan().up()
}

/// Syncs until the day is spent; says how often.
fn spend(college: &College) -> u32 {
    for number in 1..200 {
        let outcome = college.node(["sync"]);
        assert_ne!(outcome.code, Some(0), "it should never get there");
        if outcome.stderr.contains("the bytes of the day are spent") {
            outcome.fails(1, "the bytes of the day are spent");
            return number;
        }
    }
    panic!("the day is never spent");
}

#[test]
fn a_link_that_cuts_every_answer_costs_no_more_than_the_day() {
    let mut world = World::new().college("57001").wan(mbit(80)).start();
    world.release(&App::new("large", 1).noise("data", 8_000_000, 7));
    let college = world.college("57001");
    limit(college, "daily-budget = \"2 MB\"\notherwise = \"4 MB/s\"");
    college.wan().fail(Fault::CutEvery(100_000));
    spend(college);
    let spent = carried(college);
    assert!((1_500 * KB..2_000 * KB + IN_FLIGHT).contains(&spent), "{spent}");
    // However often somebody asks again: what is left is for metadata.
    for _ in 0..30 {
        assert_eq!(college.node(["sync"]).code, Some(1));
    }
    let after = carried(college);
    assert!(after < 2_000 * KB + IN_FLIGHT, "{after}");
    college.wan().fail(Fault::None);
    let shown = college.node(["link"]).succeeds().stdout;
    assert!(shown.contains("the bytes of the day are spent"), "{shown}");
    assert!(shown.contains("of 2.00 MB"), "{shown}");

    // With more to spend, it goes on at the byte.
    limit(college, "daily-budget = \"100 MB\"\notherwise = \"40 MB/s\"");
    college.node(["sync"]).succeeds();
    assert!(carried(college) < after + 8_200 * KB, "{}", carried(college));
}

#[test]
fn a_damaged_release_that_is_fetched_again_and_again_costs_no_more_than_the_day_nor_does_one_that_is_killed()
{
    let mut world = World::new().college("57001").wan(mbit(80)).start();
    world.release(&App::new("damaged", 1).noise("data", 300_000, 7));
    for below in ["bundles", "objects"] {
        damage(&world.path("repository/public").join(below));
    }
    let college = world.college("57001");
    limit(college, "daily-budget = \"2 MB\"\notherwise = \"4 MB/s\"");
    for _ in 0..3 {
        college.sync_and_kill(Duration::from_millis(150));
    }
    spend(college);
    let spent = carried(college);
    assert!((1_000 * KB..2_000 * KB + IN_FLIGHT).contains(&spent), "{spent}");
}

/// Bends a byte in the middle of every large file.
fn damage(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            if bytes.len() > 10_000 {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
    }
}

#[test]
fn in_closed_hours_not_a_byte_crosses_and_a_rate_is_kept() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("small", 1).noise("data", 1_500_000, 7));
    let college = world.college("57001");
    limit(college, "otherwise = \"closed\"");
    college.node(["sync"]).fails(1, "hours in which nothing is fetched");
    assert_eq!(carried(college), 0);
    limit(
        college,
        "[[link.rule]]\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\n\
         from = \"00:00\"\nto = \"00:00\"\non-holidays = true\nrate = \"500 kB/s\"",
    );
    let took = college.node(["sync"]).succeeds().took;
    let allowed = 500 * KB * u64::try_from(took.as_millis()).unwrap() / 1000;
    assert!(carried(college) <= allowed, "{} in {took:?}", carried(college));
}

#[test]
fn limits_change_while_the_node_runs_and_a_file_that_cannot_be_read_changes_nothing() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("small", 1));
    let college = world.college("57001");
    limit(college, "daily-budget = \"1 GB\"");
    college.start_node();
    let shown = |college: &College| college.node(["--json", "link"]).succeeds().json();
    until("the budget of the file", || {
        shown(college)["running"] == true && shown(college)["budget"] == 1_000_000_000
    });
    limit(college, "daily-budget = \"2 GB\"");
    until("the new budget", || shown(college)["budget"] == 2_000_000_000_u64);
    limit(college, "daily-budget = \"much\"");
    until("the complaint", || shown(college)["refused"].as_str().is_some_and(|said| said.contains("`much`")));
    assert_eq!(shown(college)["budget"], 2_000_000_000_u64);
    assert!(college.node(["link"]).succeeds().stdout.contains("NOT in force"));
    limit(college, "");
    until("no budget", || shown(college)["budget"].is_null());
    college.stop_node();
    assert_eq!(shown(college)["running"], false);
}

fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !seen() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}
