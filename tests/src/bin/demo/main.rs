//! `./demo`: the main job, on real software, told as it goes.
//!
//! Publisher, origin, a node behind a slow link and two workstations, all real processes on loopback. What is measured
//! is measured on the links ([`mirabelle_tests::Wan`]), whatever the programs say of themselves.

mod ledger;
mod software;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use mirabelle_tests::{Outcome, PASSPHRASE, World, mbit};

use ledger::Ledger;
use software::Software;

const COLLEGE: &str = "57001";
const LINK_MBIT: u64 = 8;
const LINK_DELAY: Duration = Duration::from_millis(20);

/// Publishes, approves, deploys, mirrors, installs, updates and rolls back real applications.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the packages are that `./demo` fetched; without it, the project's own programs and documents are used.
    #[arg(long)]
    packages: Option<PathBuf>,
    /// Keep the world in this directory, and leave its servers running until interrupted.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Leave a store running, with a sample catalogue and people to sign in as.
    #[arg(long, conflicts_with = "packages")]
    store: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(keep) = &arguments.keep
        && fs_err::read_dir(keep).is_ok_and(|mut entries| entries.next().is_some())
    {
        eprintln!("error: `{}` is not empty\nhint: name a directory that does not exist yet", keep.display());
        std::process::exit(2);
    }
    if arguments.store {
        let builder = World::new().people();
        let builder = arguments.keep.iter().fold(builder, |builder, keep| builder.directory(keep));
        return store::run(builder.college(COLLEGE).workstations(1).start());
    }
    let work = tempfile::tempdir().expect("a temporary directory can be made");
    let software = match &arguments.packages {
        Some(packages) => software::fetched(packages, work.path()),
        None => software::own(work.path()),
    };
    let mut ledger = Ledger::default();

    say("1. Keys, roles, a repository, its origin; a college behind a link of 8 Mbit/s; two workstations");
    let begun = std::time::Instant::now();
    let mut builder = World::new();
    if let Some(keep) = &arguments.keep {
        builder = builder.directory(keep);
    }
    let builder = builder.college(COLLEGE).wan(mbit(LINK_MBIT)).delay(LINK_DELAY);
    let mut world = builder.workstations(2).start();
    ledger.add("keys, roles, repository, node", begun.elapsed(), 0, 0);
    show(&world.publisher(["status"]));

    say(
        "2. Each application: built and signed by its packager, looked at and approved by two approvers, deployed",
    );
    publish(&mut world, &mut ledger, &software, 0);
    say("3. The college's node mirrors them over the slow link, and serves them only when it has them all");
    mirror(&mut world, &mut ledger, "mirror the first releases");
    say("4. The workstations install them from the node");
    for number in [0, 1] {
        let names: Vec<&str> = software.iter().map(|application| application.name.as_str()).collect();
        let command: Vec<&str> =
            if number == 0 { [&["install"], &names[..]].concat() } else { vec!["update"] };
        on_workstation(&mut world, &mut ledger, number, &command);
    }
    say("5. One of them runs");
    run(&mut world, &software);

    say("6. New releases come; what an approver is shown of the last of them:");
    show(&publish(&mut world, &mut ledger, &software, 1));
    mirror(&mut world, &mut ledger, "mirror the second releases");
    for number in [0, 1] {
        on_workstation(&mut world, &mut ledger, number, &["update"]);
    }
    run(&mut world, &software);

    say("7. Workstation 1 goes back to what it had before; nothing is downloaded for that");
    on_workstation(&mut world, &mut ledger, 0, &["rollback"]);
    run(&mut world, &software);
    show(&world.college(COLLEGE).workstation(0).run(["history"]));

    say("8. Everything is checked once more, down to the last byte");
    show(&world.publisher(["verify"]));
    let college = world.college(COLLEGE);
    show(&college.node(["fsck"]));
    for number in [0, 1] {
        show(&college.workstation(number).run(["verify"]));
    }
    println!("\n{}", ledger.render());
    if let Some(keep) = &arguments.keep {
        stay(&mut world, keep);
    }
}

/// Builds, submits, reviews, approves, deploys and publishes one release of everything; returns the last review.
fn publish(world: &mut World, ledger: &mut Ledger, software: &[Software], release: usize) -> Outcome {
    let mut review = None;
    for application in software {
        let begun = std::time::Instant::now();
        let label = format!("{}@{}", application.name, application.versions[release]);
        let recipe = application.recipes[release].display().to_string();
        let built =
            world.publisher(["--json", "build", &recipe, "--jobs", "2", "--key", "keys/packager-1.key"]);
        let built = built.succeeds().json();
        let directory = built["directory"].as_str().unwrap_or_default().to_owned();
        world.publisher(["submit", &directory]).succeeds();
        review = Some(world.publisher(["review", &label]).succeeds());
        for approver in ["keys/approver-1.key", "keys/approver-2.key"] {
            show(&world.publisher(["approve", &label, "--key", approver]));
        }
        show(&world.publisher(["deploy", &label, "--colleges", "all", "--key", "keys/operator-1.key"]));
        ledger.add(&format!("publish {label}"), begun.elapsed(), 0, 0);
    }
    show(&world.publisher(["publish", "--key", "keys/online.key"]));
    review.expect("there is software to publish")
}

fn mirror(world: &mut World, ledger: &mut Ledger, step: &str) {
    let college = world.college(COLLEGE);
    college.stop_node();
    let before = college.wan().down() + college.wan().up();
    let outcome = college.node(["sync"]);
    let wan = college.wan().down() + college.wan().up() - before;
    show(&outcome);
    ledger.add(step, outcome.took, wan, 0);
    college.start_node();
}

fn on_workstation(world: &mut World, ledger: &mut Ledger, number: usize, command: &[&str]) {
    let college = world.college(COLLEGE);
    let (wan, lan) = (college.wan(), college.lan());
    let before = (wan.down() + wan.up(), lan.down() + lan.up());
    let outcome = college.workstation(number).run(command);
    let after = (wan.down() + wan.up(), lan.down() + lan.up());
    println!("workstation {}:", number + 1);
    show(&outcome);
    let step = format!("workstation {}: {}", number + 1, command[0]);
    ledger.add(&step, outcome.took, after.0 - before.0, after.1 - before.1);
}

/// Starts the applications that can say their version without a screen.
fn run(world: &mut World, software: &[Software]) {
    for application in software.iter().filter(|application| application.says_version) {
        let workstation = world.college(COLLEGE).workstation(0);
        print!("$ {} --version\n  ", application.name);
        show(&workstation.launch(&application.name, &["--version"]));
    }
}

fn say(title: &str) {
    println!("\n== {title}");
}

/// Prints what a command said; the demo ends where one fails.
fn show(outcome: &Outcome) {
    print!("{}", outcome.clone().succeeds().stdout);
}

/// Leaves everything running, and says what to do with it.
fn stay(world: &mut World, keep: &std::path::Path) {
    let origin = world.origin().to_owned();
    let programs = mirabelle_tests::Programs::built().directory().display().to_string();
    let node = world.college(COLLEGE).node_root().display().to_string();
    let workstation = world.college(COLLEGE).workstation(0).root().display().to_string();
    println!(
        "\nThe world stays in `{keep}`; its origin is {origin}. Play on from another terminal:\n\n  \
         cd {keep}; export PATH={programs}:$PATH MIRABELLE_PASSPHRASE='{PASSPHRASE}'\n  \
         mirabelle-publisher status\n  \
         mirabelle-node --root {node} status\n  \
         mirabelle --root {workstation} update\n  \
         mirabelle --root {workstation} history\n  \
         {workstation}/active/bin/…\n\nCtrl-C ends the servers; the files stay.",
        keep = keep.display(),
    );
    let forever = tokio::runtime::Builder::new_current_thread().enable_all().build();
    forever.expect("a runtime can be made").block_on(async {
        let _ = tokio::signal::ctrl_c().await;
    });
}
