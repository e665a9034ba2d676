//! The node's drills, each from something that happens: a power cut, a full disk, flipped bits, an upstream that is bad in any way,
//! a clock that is wrong, a reboot at the worst moment. After each: nothing false was served, nothing is lost that was complete,
//! and no hand was needed.

mod bad_upstreams;
mod flipped_bits;
mod full_disk;
mod power_cuts;
mod reboots;
mod time;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, College, Outcome, Programs, Running, Wan, World, get, run};
use serde_json::Value;

use crate::agents::eventually;

/// No event of a drill takes longer, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(90);
/// Drills that share the work of a matrix: each waits for its disk and its processes most of the time.
const AT_ONCE: usize = 4;
/// More changes of the disk than anything takes.
const MOST_CHANGES: u64 = 2_000;

/// A node that a drill does what it likes to, with a link of its own to an upstream.
struct Node {
    root: PathBuf,
    wan: Wan,
    options: Vec<String>,
}

impl Node {
    /// One that begins as a college's node is now.
    fn like(college: &College, root: PathBuf, upstream: &str) -> Self {
        copy(&college.node_root(), &root);
        let wan = Wan::start(upstream, None, Duration::ZERO);
        let options = vec!["--upstream".to_owned(), wan.address()];
        Self { root, wan, options }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(Programs::built().node());
        command.env_remove("MIRABELLE_LOG").arg("--root").arg(&self.root).args(&self.options);
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        run(self.command().args(arguments))
    }

    /// Runs a command during which the disk does something: `17:kill`, `17:full`.
    fn with_fault(&self, arguments: &[&str], fault: &str) -> Outcome {
        run(self.command().args(arguments).env("MIRABELLE_DISK_FAULT", fault))
    }

    /// Becomes again what a directory is a copy of.
    fn put_back(&self, kept: &Path) {
        fs::remove_dir_all(&self.root).unwrap();
        copy(kept, &self.root);
    }

    /// The snapshot that it serves; all of it is here, or this panics.
    fn whole(&self, cell: &str) -> Option<u64> {
        let served = served(&self.root)?;
        let checked = self.run(&["fsck"]);
        assert_eq!(checked.code, Some(0), "{cell}: {}{}", checked.stdout, checked.stderr);
        Some(served)
    }
}

/// The snapshot that the timestamp which is served leads to.
fn served(root: &Path) -> Option<u64> {
    let timestamp = fs::read(root.join("served/metadata/timestamp.json")).ok()?;
    let timestamp: Value = serde_json::from_slice(&timestamp).expect("a timestamp is replaced whole");
    timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success(), "{} could not be copied", from.display());
}

/// Nodes of one world, all alike.
fn nodes(world: &mut World, name: &str) -> Vec<Node> {
    let origin = world.origin().to_owned();
    let directory = world.path(name);
    fs::create_dir_all(&directory).unwrap();
    let college = world.college("57001");
    (0..AT_ONCE).map(|number| Node::like(college, directory.join(number.to_string()), &origin)).collect()
}

/// Goes through all changes of the disk that `attempt` makes on the way, on several nodes at once; it says whether the fault was
/// met. Returns how many there are.
fn for_every_change(nodes: &[Node], attempt: impl Fn(&Node, u64) -> bool + Sync) -> u64 {
    let next = AtomicU64::new(1);
    let past = Mutex::new(MOST_CHANGES);
    std::thread::scope(|threads| {
        for node in nodes {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= *past.lock().unwrap() {
                        break;
                    }
                    if !attempt(node, number) {
                        let mut past = past.lock().unwrap();
                        *past = number.min(*past);
                    }
                }
            });
        }
    });
    let past = *past.lock().unwrap();
    assert!(past < MOST_CHANGES, "it never ends");
    past - 1
}

/// What a node says of itself.
fn status(node: &Running) -> Value {
    serde_json::from_slice(&get(node.address(), "status", "").body).unwrap()
}

/// Waits until the node's word is what `seen` looks for; says what it was.
#[track_caller]
fn until(node: &Running, what: &str, mut seen: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let came = eventually(LONGEST, || {
        last = status(node);
        seen(&last)
    });
    assert!(came, "{what} never came: {last:#}");
    last
}

/// The names of the alarms that are on.
fn alarms(status: &Value) -> Vec<String> {
    status["alarms"].as_object().map_or_else(Vec::new, |alarms| alarms.keys().cloned().collect())
}

/// What stays the same from release to release, what changes a little, what is new.
fn app(number: u64) -> App {
    let text = (0..4_000).fold(String::new(), |text, line| {
        text + &format!("line {line} of {}\n", if line % 100 == 0 { number } else { 0 })
    });
    App::new("hello", number)
        .noise("media", 300_000, 7)
        .noise("data", 120_000, number)
        .file("lib/text", text)
        .file("lib/small", format!("release {number}\n"))
}
