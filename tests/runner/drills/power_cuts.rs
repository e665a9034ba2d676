//! The incident: the power goes, at any write. In a school it goes every evening at the switch of the cleaning staff.
//!
//! The promise (3): what is served is the old catalogue or the new one, whole; the next sync completes by itself; nothing that was
//! complete is fetched again.
//!
//! The matrix is every change of the disk that a node makes (`content/src/faults.rs`) on the way to its first catalogue, through
//! an update by delta, a flip, a collection of garbage: it dies instead of making it. Then 200 deaths at random moments, which come
//! between any two instructions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::World;

use super::{AT_ONCE, Node, app, copy, for_every_change, nodes, served};
use crate::all_or_nothing_on_a_node::Random;

/// Metadata and manifests, which a sync that begins anew may ask for again.
const METADATA: u64 = 60_000;
/// Bytes that were received and not yet written when the node died: what is handed to the disk at a time, twice.
const UNDER_WAY: u64 = 512 << 10;
/// Changes between a download's removal and the last name of its objects (`transfer/src/obtain/bundle.rs`, `commit`): who dies
/// there fetches one batch again, which holds the bytes of a few seconds.
const COMMIT: u64 = 12;
/// So many deaths at random moments.
const KILLS: u64 = 200;

/// Objects that are whole, by their names.
fn objects(root: &Path) -> BTreeSet<PathBuf> {
    let folders = fs::read_dir(root.join("objects")).into_iter().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path().with_extension(""))
        .map(|path| path.strip_prefix(root).unwrap().to_owned())
        .collect()
}

/// The node dies at every change on the way from `before` to what the origin has now.
fn dies_at_every_change(nodes: &[Node], name: &str, before: &Path, command: &[&str]) -> u64 {
    let old = served(before);
    // How it goes when nothing comes between.
    let peaceful = &nodes[0];
    peaceful.put_back(before);
    let received = peaceful.wan.down();
    peaceful.run(command).succeeds();
    let content = peaceful.wan.down() - received;
    let new = peaceful.whole(name);
    let all = objects(&peaceful.root);
    let fetched_again = AtomicU64::new(0);
    let changes = for_every_change(nodes, |node, number| {
        let cell = format!("{name}, change {number}");
        node.put_back(before);
        let received = node.wan.down();
        let outcome = node.with_fault(command, &format!("{number}:kill"));
        if outcome.code == Some(0) {
            return false;
        }
        assert_eq!(outcome.code, None, "{cell}: it was to die: {}", outcome.stderr);
        let now = node.whole(&cell);
        assert!(now == old || now == new, "{cell}: {now:?} is neither {old:?} nor {new:?}");
        let held = objects(&node.root);
        let between = node.wan.down();
        // Nobody does anything but switch it on again.
        let again = node.run(command);
        assert_eq!(again.code, Some(0), "{cell}: {}", again.stderr);
        assert_eq!(node.whole(&cell), new, "{cell}");
        assert_eq!(objects(&node.root), all, "{cell}: neither more nor less");
        let again = node.wan.down() - between;
        let received = node.wan.down() - received;
        assert!(received < 2 * content + METADATA, "{cell}: {again} bytes again");
        // What was received is on the disk, but for what was on its way there.
        fetched_again.fetch_add(
            u64::from(received > content + METADATA + UNDER_WAY.min(content / 2)),
            Ordering::Relaxed,
        );
        if all.is_subset(&held) {
            assert!(again < METADATA, "{cell}: {again} bytes, and everything was complete");
        }
        true
    });
    let fetched_again = fetched_again.into_inner();
    assert!(
        fetched_again <= COMMIT,
        "{name}: after {fetched_again} of {changes} deaths, everything came again"
    );
    changes
}

#[test]
fn the_power_may_go_at_every_change_of_the_disk() {
    let mut world = World::new().deltas().college("57001").start();
    let nodes = nodes(&mut world, "cut");
    let kept = |name: &str| world_path(&nodes, name);
    copy(&nodes[0].root, &kept("empty"));
    world.release(&app(1));
    let first = dies_at_every_change(&nodes, "first mirror", &kept("empty"), &["sync"]);
    copy(&nodes[0].root, &kept("first"));
    world.release(&app(2));
    let update = dies_at_every_change(&nodes, "update", &kept("first"), &["sync"]);
    assert!(nodes[0].run(&["status"]).succeeds().stdout.contains("delta"), "it came by delta");
    copy(&nodes[0].root, &kept("second"));
    // Nothing is new but that it is fresh.
    world.publisher(["publish", "--key", "keys/online.key"]).succeeds();
    world.deploy(&app(2), "57001");
    world.publish();
    let flip = dies_at_every_change(&nodes, "flip", &kept("second"), &["sync"]);
    world.release(&app(3));
    nodes[0].run(&["sync"]).succeeds();
    copy(&nodes[0].root, &kept("third"));
    let garbage =
        dies_at_every_change(&nodes, "garbage", &kept("third"), &["--keep-unassigned", "0 s", "sync"]);
    println!("changes: {first} first mirror, {update} update, {flip} flip, {garbage} garbage");
    assert!(first > 60 && update > 40 && flip > 20 && garbage > 10, "changes are not counted");
}

fn world_path(nodes: &[Node], name: &str) -> PathBuf {
    nodes[0].root.with_file_name(format!("kept-{name}"))
}

/// The service is started, and dies before long: again and again, until it is through, and then once more from the start.
#[test]
fn two_hundred_deaths_at_random_moments() {
    let mut world = World::new().deltas().college("57001").start();
    let nodes = nodes(&mut world, "killed");
    let kept = [world_path(&nodes, "empty"), world_path(&nodes, "first")];
    copy(&nodes[0].root, &kept[0]);
    world.release(&app(1));
    nodes[0].run(&["sync"]).succeeds();
    copy(&nodes[0].root, &kept[1]);
    world.release(&app(2));
    let begun = Instant::now();
    nodes[0].run(&["sync"]).succeeds();
    let full = begun.elapsed();
    let new = served(&nodes[0].root);
    let (killed, early) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for (number, node) in nodes.iter().enumerate() {
            let (kept, killed, early) = (&kept, &killed, &early);
            threads.spawn(move || {
                let random = Random::new(57_000 + number as u64);
                for round in 0.. {
                    let before = &kept[round % kept.len()];
                    node.put_back(before);
                    loop {
                        if killed.load(Ordering::Relaxed) >= KILLS {
                            return;
                        }
                        dies_within(node, random.below(full * 2));
                        killed.fetch_add(1, Ordering::Relaxed);
                        let now = node.whole("killed");
                        assert!(now == served(before) || now == new, "{now:?}");
                        if now == new {
                            break;
                        }
                        early.fetch_add(1, Ordering::Relaxed);
                    }
                    node.run(&["sync"]).succeeds();
                    assert_eq!(node.whole("in the end"), new);
                }
            });
        }
    });
    let (killed, early) = (killed.into_inner(), early.into_inner());
    println!("{killed} deaths, {early} of them before the flip");
    assert!(killed >= KILLS && killed < KILLS + AT_ONCE as u64 + 1);
    assert!(early >= KILLS / 4, "only {early} came before the flip");
}

fn dies_within(node: &Node, life: Duration) {
    let mut command = node.command();
    command.args(["--sync-every", "10 h", "run"]);
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = silent.spawn().unwrap();
    std::thread::sleep(life);
    assert!(child.try_wait().unwrap().is_none(), "the service ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}
