//! The incident: an upstream that goes wrong in one of the ways in which servers do: behind a portal that answers everything with a
//! page, with a proxy that cuts answers short, restored from last month's backup, replaced by somebody else's.
//!
//! The promise: nothing false is stored or served. Where there is another upstream, the node gets there through it; where there is
//! not, it keeps what it had, says why, and gets there once it is mended.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_err as fs;
use mirabelle_tests::{Hostile, Lie, Outcome, Running, World, run, with_clock};

use super::{Node, app, copy, served};

/// What is lied about: paths with these words in them.
const ABOUT: [&str; 4] = ["metadata/timestamp.json", ".catalogue.json", ".release.json", "bundles/"];
/// Cells at once: they wait for their retries most of the time.
const CELLS_AT_ONCE: usize = 8;
/// Time goes by so much faster for the node: it waits half a minute for a server that has stalled, and asks five times.
const FASTER: &str = "+0 x20";

fn sync(node: &Node, upstreams: &[&str]) -> Outcome {
    let mut command = node.command();
    for upstream in upstreams {
        command.args(["--upstream", upstream]);
    }
    run(&mut with_clock(FASTER, command.arg("sync")))
}

/// A world whose node has release 1 and whose origin has release 2.
struct Stage {
    world: World,
    kept: std::path::PathBuf,
    old: Option<u64>,
    new: Option<u64>,
}

impl Stage {
    fn set() -> Self {
        let mut world = World::new().college("57001").start();
        world.release(&app(1));
        let college = world.college("57001");
        college.node(["sync"]).succeeds();
        let kept = world.path("kept");
        copy(&world.college("57001").node_root(), &kept);
        copy(&world.path("repository"), &world.path("older"));
        world.release(&app(2));
        let college = world.college("57001");
        college.node(["sync"]).succeeds();
        let (old, new) = (served(&kept), served(&college.node_root()));
        assert!(old < new);
        Self { world, kept, old, new }
    }

    /// A node that has release 1.
    fn node(&self, name: &str) -> Node {
        let root = self.world.path(name);
        copy(&self.kept, &root);
        let wan = mirabelle_tests::Wan::start(self.world.origin(), None, std::time::Duration::ZERO);
        Node { root, wan, options: Vec::new() }
    }
}

/// All ways to go wrong, about everything that is fetched, several at once.
fn in_every_way(cell: impl Fn(usize, &'static str, Lie) + Sync) {
    let mut cells: Vec<(&str, Lie)> =
        ABOUT.into_iter().flat_map(|about| Lie::ALL.map(|lie| (about, lie))).collect();
    // What takes longest begins first.
    cells.sort_by_key(|(_, lie)| *lie != Lie::Stalls);
    let next = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..CELLS_AT_ONCE {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((about, lie)) = cells.get(number) else { break };
                    cell(number, about, *lie);
                }
            });
        }
    });
}

#[test]
fn with_a_bad_upstream_alone_it_keeps_what_it_had_and_gets_there_once_it_is_mended() {
    let stage = Stage::set();
    in_every_way(|number, about, lie| {
        let cell = format!("{lie:?} {about}");
        let node = stage.node(&format!("alone-{number}"));
        let hostile = Hostile::start(stage.world.origin());
        hostile.lie(about, lie);
        let outcome = sync(&node, &[&hostile.address()]);
        if outcome.code == Some(0) && about == "bundles/" {
            // It went on at the byte until it had all of them, and every one was right.
            assert_eq!(node.whole(&cell), stage.new, "{cell}");
            return;
        }
        assert!(matches!(outcome.code, Some(1 | 3 | 4)), "{cell}: {:?} {}", outcome.code, outcome.stderr);
        let said = &outcome.stderr;
        assert!(said.contains("error: ") && !said.contains("panicked"), "{cell}: {said}");
        assert_eq!(node.whole(&cell), stage.old, "{cell}");
        // Why, for whoever looks.
        let said = node.run(&["--upstream", &hostile.address(), "--json", "status"]).succeeds().json();
        assert!(said["last_failure"].is_string(), "{cell}: {said}");
        hostile.mend();
        let outcome = sync(&node, &[&hostile.address()]);
        assert_eq!(outcome.code, Some(0), "{cell}, mended: {}", outcome.stderr);
        assert_eq!(node.whole(&cell), stage.new, "{cell}, mended");
    });
}

#[test]
fn with_a_good_upstream_behind_it_gets_there_all_the_same() {
    let stage = Stage::set();
    in_every_way(|number, about, lie| {
        let cell = format!("{lie:?} {about}");
        let node = stage.node(&format!("beside-{number}"));
        let hostile = Hostile::start(stage.world.origin());
        hostile.lie(about, lie);
        let outcome = sync(&node, &[&hostile.address(), &node.wan.address()]);
        assert_eq!(outcome.code, Some(0), "{cell}: {}", outcome.stderr);
        assert_eq!(node.whole(&cell), stage.new, "{cell}");
    });
}

fn serves(world: &World, repository: &Path) -> Running {
    let mut command = world.publisher_command();
    command.env("MIRABELLE_REPOSITORY", repository);
    Running::start(command.args(["--json", "serve", "--listen", "127.0.0.1:0"]))
}

#[test]
fn of_two_that_disagree_the_signatures_decide_and_the_node_does_not_waver() {
    let stage = Stage::set();
    let older = serves(&stage.world, &stage.world.path("older"));
    // Somebody else's, with keys of their own and the same names.
    let mut other = World::new().bins(1).college("57001").start();
    for number in 1..=4 {
        other.release(&app(number));
    }
    other.college("57001").node(["sync"]).succeeds();
    let origin = stage.world.origin().to_owned();
    let orders = [
        ("an older copy first", vec![older.address(), &origin]),
        ("an older copy behind", vec![&origin, older.address()]),
        ("another repository first", vec![other.origin(), &origin]),
        ("another repository behind", vec![&origin, other.origin()]),
        ("both before it", vec![other.origin(), older.address(), &origin]),
    ];
    for (number, (name, upstreams)) in orders.into_iter().enumerate() {
        let node = stage.node(&format!("disagree-{number}"));
        // Once it is there, it is there: whoever is asked first says something else.
        let mut there = false;
        for round in 0..4 {
            // Nobody rests: each is believed or not for what it says.
            fs::remove_file(node.root.join("upstreams.json")).ok();
            let outcome = sync(&node, &upstreams);
            assert_eq!(outcome.code, Some(0), "{name}, {round}: {}", outcome.stderr);
            let now = node.whole(name);
            assert!(now == stage.new || (!there && now == stage.old), "{name}, {round}: {now:?}");
            there = now == stage.new;
            // The older copy is all it knows of until it has seen the newer one.
            if name == "an older copy first" || name == "both before it" {
                there |= sync(&node, &[&origin]).code == Some(0);
            }
        }
        assert!(there, "{name}");
        assert_eq!(node.whole(name), stage.new, "{name}");
    }
    // With the older copy alone, what is newer stays; with another repository alone, it is refused in so many words.
    let node = stage.node("disagree-alone");
    sync(&node, &[&origin]).succeeds();
    assert_ne!(sync(&node, &[older.address()]).code, Some(0));
    assert_eq!(node.whole("older alone"), stage.new);
    assert_eq!(sync(&node, &[other.origin()]).code, Some(4));
    assert_eq!(node.whole("another alone"), stage.new);
}
