//! Promise 4, point by point: wherever a transaction is killed, or finds the disk full, the next start alone leaves the old
//! or the new, never a mix; and from there what was wanted is reached.
//!
//! The matrix is every point of `client/src/faults.rs` × killed or full × every kind of transaction. "Old" and "new" each
//! mean all of it: the generation, its files, what its launcher says, its native package, its settings.
//!
//! Killed is not cut: what had reached the disk when the current went is the matter of `content/src/durable.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_err as fs;
use mirabelle_tests::{App, Outcome, Workstation, World, run};

use crate::fake_machine::{configured, native, on_machine, own_system, sets};
use crate::forge;

/// They share the work.
const WORKSTATIONS: usize = 3;
/// What a setting finds in place.
const ORIGINAL: &str = "as it was\n";

/// A transaction: which package, from which release to which, by which command.
struct Kind {
    name: &'static str,
    package: &'static str,
    command: &'static [&'static str],
    before: Option<u64>,
    after: Option<u64>,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "first install",
        package: "whole",
        command: &["install", "whole"],
        before: None,
        after: Some(2),
    },
    Kind { name: "update", package: "plain", command: &["update"], before: Some(1), after: Some(2) },
    Kind { name: "native update", package: "tool", command: &["update"], before: Some(1), after: Some(2) },
    Kind { name: "settings update", package: "set", command: &["update"], before: Some(1), after: Some(2) },
    Kind { name: "rollback", package: "whole", command: &["rollback"], before: Some(2), after: Some(1) },
    Kind { name: "removal", package: "whole", command: &["remove", "whole"], before: Some(1), after: None },
    // It comes, does not work, and goes again: old is all there is.
    Kind { name: "failed update", package: "broken", command: &["update"], before: Some(1), after: Some(1) },
];

fn app(name: &str, number: u64) -> App {
    let app = App::new(name, number).file("data", format!("data of {number}\n"));
    let template = format!("release {number} in {{{{ college }}}}\n");
    match name {
        "plain" => app,
        "tool" => native(app, name, ""),
        "set" => sets(app, name, &template, ""),
        // What it sets was not set before, and is to be again what it was.
        "broken" if number == 1 => native(app, name, ""),
        "broken" => sets(native(app, name, ""), name, &template, "").check("echo it does not start; exit 1"),
        _ => sets(native(app, name, ""), name, &template, ""),
    }
}

/// The points, as the client lists them.
fn points() -> Vec<String> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../client/src/faults.rs")).unwrap();
    let (_, list) = source.split_once("POINTS: &[&str] = &[").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A workstation whose directory can be put back to what it was.
struct Bench<'w> {
    workstation: &'w Workstation,
    kept: PathBuf,
}

impl Bench<'_> {
    fn root(&self) -> &Path {
        self.workstation.root()
    }

    fn keep(&self, name: &str) {
        copy(self.root(), &self.kept.join(name));
    }

    fn put_back(&self, name: &str) {
        fs::remove_dir_all(self.root()).unwrap();
        copy(&self.kept.join(name), self.root());
    }

    /// So many generations that the next transaction sweeps one, and a tree that none of them names.
    fn leave_something_to_sweep(&self, package: &str) {
        for _ in 0..2 {
            self.workstation.run(["remove", package]).succeeds();
            self.workstation.run(["install", package]).succeeds();
        }
        fs::create_dir(self.root().join("releases").join(package).join("0-of-before")).unwrap();
    }

    fn with_fault(&self, command: &[&str], fault: &str) -> Outcome {
        run(self.workstation.command().args(command).env("MIRABELLE_FAULT", fault))
    }

    /// The release that is here; all of it, or this panics.
    fn whole(&self, kind: &Kind, cell: &str) -> Option<u64> {
        let root = self.root();
        assert!(!root.join("journal/transaction.json").exists(), "{cell}: the journal is there still");
        let staging = root.join("staging");
        assert!(
            !staging.exists() || fs::read_dir(staging).unwrap().next().is_none(),
            "{cell}: half-built trees"
        );
        let verified = self.workstation.run(["verify"]);
        assert_eq!(verified.code, Some(0), "{cell}: {}", verified.stderr);
        let package = kind.package;
        let current = fs::read_to_string(root.join("current")).unwrap_or_default();
        let number = match current.trim() {
            "" | "0" => None,
            current => {
                let text = fs::read(root.join(format!("generations/{current}/generation.json"))).unwrap();
                let generation: serde_json::Value = serde_json::from_slice(&text).unwrap();
                generation["packages"][package]["sequence"].as_u64()
            }
        };
        let launcher = root.join("active/bin").join(package);
        match number {
            Some(number) => {
                let said = run(&mut std::process::Command::new(launcher)).succeeds().stdout;
                assert_eq!(said, format!("{package} {number}.0\n"), "{cell}");
            }
            None => assert!(!launcher.exists(), "{cell}: a launcher that starts nothing"),
        }
        if package != "plain" && package != "set" {
            let version = number.map(|number| format!("{number}.0"));
            assert_eq!(on_machine(root, package), version, "{cell}: the native package");
        }
        if package != "plain" && package != "tool" {
            let set = number.filter(|_| package != "broken");
            let expected = set.map_or(ORIGINAL.to_owned(), |number| format!("release {number} in 57001\n"));
            assert_eq!(configured(root, package).as_deref(), Some(expected.as_str()), "{cell}: the setting");
        }
        number
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// What became of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    NotPassed,
    Old,
    New,
}

/// One cell of the matrix.
fn visit(bench: &Bench<'_>, kind: &Kind, point: &str, fault: &str) -> Ended {
    let cell = format!("{} {point}:{fault}", kind.name);
    bench.put_back(kind.name);
    let outcome = bench.with_fault(kind.command, &format!("{point}:{fault}"));
    let struck = match fault {
        "kill" => outcome.code.is_none(),
        _ => outcome.stderr.contains("storage space") || outcome.stderr.contains("the disk is full"),
    };
    if !struck {
        return Ended::NotPassed;
    }
    bench.workstation.run(["resume"]).succeeds();
    let found = bench.whole(kind, &cell);
    assert!(found == kind.before || found == kind.after, "{cell}: {found:?}");
    // And on to where it was to go.
    if found != kind.after {
        bench.workstation.run(kind.command).succeeds();
    } else if kind.name == "failed update" {
        let again = bench.workstation.run(["update"]);
        if again.code != Some(0) {
            again.fails(1, "it does not start");
        }
        let state: serde_json::Value =
            serde_json::from_slice(&fs::read(bench.root().join("state.json")).unwrap()).unwrap();
        assert_eq!(state["quarantine"].as_object().unwrap().len(), 1, "{cell}");
        bench.workstation.run(["update"]).succeeds();
    } else {
        bench.workstation.run(["update"]).succeeds();
    }
    assert_eq!(bench.whole(kind, &cell), kind.after, "{cell}");
    if found == kind.before { Ended::Old } else { Ended::New }
}

/// The world, with every workstation's directories kept for each kind.
fn world(directory: &Path) -> World {
    let mut world = World::new().directory(directory).college("57001").workstations(WORKSTATIONS).start();
    let names = ["plain", "tool", "set", "whole", "broken"];
    for number in 1..=2 {
        for name in names {
            let app = app(name, number);
            world.submit(&app);
            world.approve(&app);
        }
        if number == 1 {
            let offered =
                names.map(|name| serde_json::json!({ "package": name, "mode": "available", "to": {} }));
            forge::deploy(&world, &serde_json::json!({ "_type": "deployment", "assignments": offered }));
        }
        world.publish();
        world.college("57001").sync();
        let college = world.college("57001");
        std::thread::scope(|threads| {
            for workstation in (0..WORKSTATIONS).map(|number| college.workstation(number)) {
                let kept = workstation.root().with_extension("kept");
                threads.spawn(move || prepare(&Bench { workstation, kept }, number, &names));
            }
        });
    }
    world
}

fn prepare(bench: &Bench<'_>, number: u64, names: &[&str]) {
    if number == 1 {
        own_system(bench.workstation);
        for name in names {
            fs::write(bench.root().join(format!("system/etc/{name}.conf")), ORIGINAL).unwrap();
        }
        fs::create_dir_all(&bench.kept).unwrap();
        bench.keep("first install");
        for kind in &KINDS[1..] {
            bench.workstation.run(["install", kind.package]).succeeds();
            if kind.name == "update" {
                bench.leave_something_to_sweep(kind.package);
            }
            bench.keep(kind.name);
            bench.put_back("first install");
        }
    } else {
        bench.put_back("rollback");
        bench.workstation.run(["update"]).succeeds();
        fs::remove_dir_all(bench.kept.join("rollback")).unwrap();
        bench.keep("rollback");
    }
}

#[test]
fn the_old_or_the_new_at_every_point_of_every_kind() {
    // In memory where there is room: each cell writes thousands of files.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let mut world = world(directory.path());
    let college = world.college("57001");
    let points = points();
    let mut cells = Vec::new();
    for kind in &KINDS {
        for point in &points {
            cells.extend(["kill", "full"].map(|fault| (kind, point.as_str(), fault)));
        }
    }
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|threads| {
        for workstation in (0..WORKSTATIONS).map(|number| college.workstation(number)) {
            let bench = Bench { workstation, kept: workstation.root().with_extension("kept") };
            let (next, results, cells) = (&next, &results, &cells);
            threads.spawn(move || {
                while let Some((kind, point, fault)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ended = visit(&bench, kind, point, fault);
                    results.lock().unwrap().insert((*point, *fault, kind.name), ended);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    show(&points, &results);
    for point in &points {
        let passed = results.iter().any(|((at, ..), ended)| at == point && *ended != Ended::NotPassed);
        assert!(passed, "no transaction came past `{point}`");
    }
}

fn show(points: &[String], results: &BTreeMap<(&str, &str, &str), Ended>) {
    println!("{:<17} {}", "point", KINDS.map(|kind| format!("{:<16}", kind.name)).join(""));
    for point in points {
        let cells = KINDS.map(|kind| {
            let of = |fault| match results[&(point.as_str(), fault, kind.name)] {
                Ended::NotPassed => "-",
                Ended::Old => "old",
                Ended::New => "new",
            };
            format!("{:<16}", format!("{} {}", of("kill"), of("full")))
        });
        println!("{point:<17} {}", cells.join(""));
    }
    let count = |wanted| results.values().filter(|ended| **ended == wanted).count();
    println!(
        "{} points, killed or full, {} kinds: {} cells struck; {} then had the old, {} the new, none a mix",
        points.len(),
        KINDS.len(),
        count(Ended::Old) + count(Ended::New),
        count(Ended::Old),
        count(Ended::New)
    );
}
