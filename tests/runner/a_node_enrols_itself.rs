//! A box is taken out of its carton, plugged in, and works: a code from the publisher is all that its node is told, whenever the
//! link comes. The code says whose root is trusted, and nobody who answers in the origin's place can change that.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use mirabelle_tests::{App, Fault, Outcome, Programs, Running, Wan, World, get, run};

/// The code for college 57009, whose node reaches the origin at `origin`.
fn code(world: &World, origin: &str) -> String {
    let arguments = ["--json", "enrolment-code", "--college", "57009", "--origin", origin];
    let printed = world.publisher(arguments).succeeds().json();
    let code = printed["code"].as_str().unwrap().to_owned();
    assert_eq!(
        world.publisher(&arguments[1..]).succeeds().stdout,
        format!("{code}\n"),
        "alone, to be copied"
    );
    code
}

fn link(world: &World) -> Wan {
    Wan::start(world.origin(), None, std::time::Duration::ZERO)
}

/// The command line of a node that was never set up.
fn command(root: &Path) -> Command {
    let mut command = Command::new(Programs::built().node());
    command.env_remove("MIRABELLE_LOG").arg("--root").arg(root).args(["--disk-reserve", "1 MiB"]);
    command
}

fn node<const N: usize>(root: &Path, arguments: [&str; N]) -> Outcome {
    run(command(root).args(arguments))
}

fn fresh(world: &World) -> PathBuf {
    world.path("fresh-node")
}

#[test]
fn a_code_is_all_that_a_node_is_told() {
    let world = World::new().start();
    world.release(&App::new("hello", 1));
    let wan = link(&world);
    let root = fresh(&world);
    let code = code(&world, &wan.address());

    // As a mail program breaks it, in a file.
    let (left, right) = code.split_at(70);
    fs::write(world.path("code"), format!("{left}\n{right}\n")).unwrap();
    let file = world.path("code");
    let done = node(&root, ["--json", "init", "--code-file", file.to_str().unwrap()]).succeeds().json();
    assert_eq!((&done["college"], &done["root_version"]), (&"57009".into(), &1.into()));
    let synced = node(&root, ["--json", "sync"]).succeeds().json();
    assert_eq!(synced["releases"].as_array().map_or(0, Vec::len), 1, "{synced}");
    node(&root, ["init", "--code", &code]).fails(1, "this node is set up");
}

#[test]
fn a_node_that_is_plugged_in_before_the_link_is_there_enrols_once_it_is() {
    let world = World::new().start();
    world.release(&App::new("hello", 1));
    let wan = link(&world);
    let root = fresh(&world);
    let credentials = world.path("credentials");
    fs::create_dir_all(&credentials).unwrap();
    fs::write(credentials.join("enrolment"), code(&world, &wan.address())).unwrap();

    // What it asks goes up, and no answer comes down: the link comes up between two of its attempts.
    wan.fail(Fault::CutEvery(0));
    let node = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let options = ["--json", "--listen", "127.0.0.1:0", "--sync-every", "100 ms", "run"];
            let mut command = command(&root);
            Running::start(command.env("CREDENTIALS_DIRECTORY", &credentials).args(options))
        });
        while wan.requests() < 2 {
            std::thread::yield_now();
        }
        assert!(!root.exists(), "nothing is written before it is known whom to trust");
        wan.fail(Fault::None);
        starting.join().unwrap()
    });
    while get(node.address(), "metadata/timestamp.json", "").status() != 200 {
        std::thread::yield_now();
    }
    let status = self::node(&root, ["--json", "status"]).succeeds().json();
    assert_eq!(status["college"], "57009");
    assert_eq!(status["running"]["address"], node.address());
    assert!(node.stop().success());

    // From now on it is a node like any other, whatever the credential says.
    fs::write(credentials.join("enrolment"), "mirabelle-node:1:nonsense").unwrap();
    let options = ["--json", "--listen", "127.0.0.1:0", "run"];
    let node = Running::start(command(&root).env("CREDENTIALS_DIRECTORY", &credentials).args(options));
    assert_eq!(get(node.address(), "metadata/timestamp.json", "").status(), 200);
}

#[test]
fn another_root_in_the_origins_place_is_refused_and_leaves_nothing() {
    let ours = World::new().start();
    let theirs = World::new().bins(1).start();
    let wan = link(&ours);
    let root = fresh(&ours);
    let code = code(&ours, &wan.address());
    wan.lead_to(theirs.origin());

    let refused =
        node(&root, ["init", "--code", &code]).fails(4, "another root than the enrolment code says");
    for words in [ours.trusted_root(), theirs.trusted_root()] {
        let digest = mirabelle_manifests::Digest::of(&fs::read(words).unwrap()).to_string();
        assert!(refused.stderr.contains(&digest), "{}", refused.stderr);
    }
    assert!(refused.stderr.contains(&wan.address()), "{}", refused.stderr);
    assert!(!root.exists());

    // Whoever stood there is gone.
    wan.lead_to(ours.origin());
    node(&root, ["init", "--code", &code]).succeeds();
}

#[test]
fn a_node_that_was_switched_off_in_the_middle_begins_anew() {
    let world = World::new().start();
    let wan = link(&world);
    let root = fresh(&world);
    let code = code(&world, &wan.address());
    fs::create_dir_all(root.join("trust")).unwrap();
    fs::copy(world.trusted_root(), root.join("trust/root.json")).unwrap();
    node(&root, ["init", "--code", &code]).succeeds();

    // One that trusts another repository already is not turned round by a code.
    let theirs = World::new().bins(1).start();
    fs::remove_file(root.join("node.toml")).unwrap();
    fs::copy(theirs.trusted_root(), root.join("trust/root.json")).unwrap();
    node(&root, ["init", "--code", &code]).fails(4, "another root is trusted already");
    assert!(!root.join("node.toml").exists());
}

#[test]
fn what_is_no_code_is_refused_by_its_name() {
    let world = World::new().start();
    let root = fresh(&world);
    let code = code(&world, "http://127.0.0.1:9/");
    node(&root, ["init", "--code", &code[..code.len() - 3]]).fails(2, "copy all of its line");
    node(&root, ["init", "--code", "http://127.0.0.1:9/"]).fails(2, "begins with `mirabelle-node:`");
    node(&root, ["init", "--code-file", "/nowhere"]).fails(2, "there is no code");
    node(&root, ["--college", "57001", "init", "--code", &code]).fails(2, "is for college 57009");
    node(&root, ["init"]).fails(2, "nobody says whom to trust");
    node(&root, ["init", "--code", &code]).fails(3, "cannot enrol at http://127.0.0.1:9/");
    run(command(&root).env("MIRABELLE_ENROLMENT", "?").arg("run")).fails(2, "`MIRABELLE_ENROLMENT`");
    assert!(!root.exists());
}

#[test]
fn no_code_is_given_out_that_could_not_work() {
    let world = World::new().start();
    let code = |college: &str, origin: &str| {
        world.publisher(["enrolment-code", "--college", college, "--origin", origin])
    };
    code("57 001", "https://origin.example/").fails(2, "college");
    code("57001", "origin.example").fails(2, "not the address of a server");
    code("57001", "https://somebody@origin.example/").fails(2, "not the address of an origin");
    fs::remove_file(world.trusted_root()).unwrap();
    code("57001", "https://origin.example/").fails(1, "is not published yet");
}
