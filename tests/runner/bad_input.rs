//! A wrong passphrase, a full disk, a refused connection, a busy port, a second process: one clear sentence, the right
//! exit code, nothing half-done.

use std::process::Command;

use fs_err as fs;
use mirabelle_tests::{App, World, run};

use crate::fake_machine::SmallDisk;

#[test]
fn a_wrong_passphrase_opens_nothing() {
    let world = World::new().start();
    let mut publish = world.publisher_command();
    publish.args(["publish", "--key", "keys/online.key"]).env("MIRABELLE_PASSPHRASE", "quetsche");
    run(&mut publish).fails(2, "wrong passphrase for key");
    let mut publish = world.publisher_command();
    publish.args(["publish", "--key", "keys/online.key"]).env_remove("MIRABELLE_PASSPHRASE");
    run(&mut publish).fails(2, "nobody is there to type it");
    fs::set_permissions(world.path("keys/online.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    world.publisher(["publish", "--key", "keys/online.key"]).fails(2, "others can read the key");
}

#[test]
fn a_passphrase_is_long_and_kept_to_oneself() {
    let world = World::new().start();
    let mut new = world.publisher_command();
    new.args(["key", "new", "keys/new.key"]).env("MIRABELLE_PASSPHRASE", "quetsche");
    run(&mut new).fails(2, "the passphrase for a new key is short: 8 characters");
    assert!(!world.path("keys/new.key").exists());

    fs::write(world.path("passphrase"), "mirabelle de Lorraine\n").unwrap();
    let publish = ["publish", "--key", "keys/online.key"];
    let with_file = |mode| {
        fs::set_permissions(world.path("passphrase"), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        let mut command = world.publisher_command();
        command.args(publish).args(["--passphrase-file", "passphrase"]).env("MIRABELLE_PASSPHRASE", "wrong");
        run(&mut command)
    };
    with_file(0o640).fails(2, "others can read the passphrase in `passphrase`");
    with_file(0o600).succeeds();

    // As a service that systemd gives a credential, which comes before the environment.
    fs::create_dir(world.path("credentials")).unwrap();
    fs::write(world.path("credentials/passphrase"), mirabelle_tests::PASSPHRASE).unwrap();
    let mut service = world.publisher_command();
    service.args(publish).env("CREDENTIALS_DIRECTORY", "credentials").env("MIRABELLE_PASSPHRASE", "wrong");
    run(&mut service).succeeds();
}

#[test]
fn a_refused_connection_is_a_network_failure() {
    let mut world = World::new().college("57001").workstations(1).start();
    let workstation = world.college("57001").workstation(0);
    let outcome = workstation.run(["refresh"]).fails(3, "could not be fetched in 5 attempts");
    assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
}

#[test]
fn a_busy_port_is_named() {
    let mut world = World::new().college("57001").start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    world.publisher(["serve", "--listen", &address]).fails(2, &format!("cannot listen on {address}"));
    world
        .college("57001")
        .node(["--listen", &address, "run"])
        .fails(2, &format!("cannot listen on {address}"));
}

#[test]
fn a_second_process_is_turned_away() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    world.college("57001").node(["sync"]).fails(1, "another mirabelle-node works on");

    let workstation = world.college("57001").workstation(0);
    let lock =
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(workstation.root().join("lock"));
    let lock = lock.unwrap();
    lock.file().lock().unwrap();
    workstation.run(["install", "hello"]).fails(1, "another mirabelle is changing");

    let lock = fs::File::open(world.path("repository/lock")).unwrap();
    lock.file().lock().unwrap();
    world.publisher(["publish", "--key", "keys/online.key"]).fails(1, "another process is writing");
}

#[test]
fn what_is_not_there_is_named() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.publisher(["--repository", "elsewhere", "status"]).fails(2, "`elsewhere` is no repository");
    world
        .publisher(["build", "nothing.toml", "--key", "keys/packager-1.key"])
        .fails(2, "`nothing.toml` does not exist");
    world.publisher(["submit", "keys"]).fails(2, "`keys` holds no built release");
    world.publisher(["review", "hello@1.0"]).fails(1, "`hello@1.0` was not submitted");
    world.publisher(["init", "--yes"]).fails(1, "is a repository already");
    let college = world.college("57001");
    college.node(["fsck"]).fails(1, "nothing is served yet");
    let workstation = college.workstation(0);
    workstation.run(["search", "x"]).fails(1, "this workstation has not asked its node yet");
    workstation.run(["run", "hello"]).fails(1, "`hello` is not installed");
    workstation.run(["rollback"]).fails(1, "nothing was installed yet");
}

#[test]
fn a_recipe_says_what_is_wrong_with_it() {
    let world = World::new().start();
    let recipe = world.path("r.toml");
    let good = "name = \"x\"\nversion = \"1\"\nsequence = 1\nplatform = \"any\"\nlicence = \"MIT\"\n\
        title = { fr = \"x\", en = \"x\" }\nsummary = { fr = \"x\", en = \"x\" }\n\
        [[source]]\npath = \"tree\"\nkind = \"directory\"\n";
    let launcher = "[[launcher]]\nname = \"x\"\ntitle = { fr = \"x\", en = \"x\" }\ncommand = [\"{release}/bin/gone\"]\n";
    fs::create_dir(world.path("tree")).unwrap();
    fs::write(world.path("tree/file"), "x").unwrap();
    let cases = [
        (good.replace("name = \"x\"\nv", "name = \"X Y\"\nv"), 2, "is not a package name"),
        (good.replace("licence", "license"), 2, "unknown field `license`"),
        (good.replace("tree", "gone"), 2, "gone` does not exist"),
        (good.replace("\"directory\"", "\"rar\""), 2, "unknown variant `rar`"),
        (format!("{good}{launcher}"), 4, "starts `{release}/bin/gone`"),
        (
            good.replace("kind = \"directory\"", "kind = \"zip\"").replace("\"tree\"", "\"tree/file\""),
            4,
            "cannot be read as Zip",
        ),
        (
            format!("{good}sha256 = \"{}\"\n", "0".repeat(64))
                .replace("directory", "tar")
                .replace("\"tree\"", "\"tree/file\""),
            4,
            "the recipe expects",
        ),
    ];
    for (text, code, words) in cases {
        fs::write(&recipe, &text).unwrap();
        world.publisher(["build", "r.toml", "--key", "keys/packager-1.key"]).fails(code, words);
        let left: Vec<_> = fs::read_dir(world.path("built"))
            .map(|d| d.map(|e| e.unwrap().path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[test]
fn configuration_mistakes_are_named_with_their_line() {
    let mut world = World::new().college("57001").workstations(1).start();
    let college = world.college("57001");
    let config = college.node_root().join("node.toml");
    fs::write(&config, "college = \"57001\"\nupstream = \"http://x/\"\n").unwrap();
    college.node(["config"]).fails(2, "unknown field `upstream`");
    fs::write(&config, "college = \"57001\"\nupstreams = [\"ftp://x/\"]\n").unwrap();
    college.node(["config"]).fails(2, "`ftp://x/` is not the address of a server");
    fs::write(&config, "college = \"57001\"\nupstreams = [\"http://x/\"]\nsync-every = \"often\"\n").unwrap();
    college.node(["config"]).fails(2, "`often` is not a time to wait");
    let shown = college.node(["--json", "--sync-every", "1 h", "config"]).succeeds().json();
    assert_eq!(shown[3], serde_json::json!({"name": "sync-every", "value": "1 h", "from": "command"}));
}

/// The states that a kill of the publisher can leave.
#[test]
fn what_a_killed_publisher_leaves_is_no_obstacle() {
    let mut world = World::new().college("57001").start();
    let app = App::new("hello", 1);
    world.submit(&app);
    let submitted = world.path("repository/submitted");
    let directory = fs::read_dir(&submitted).unwrap().next().unwrap().unwrap().path();
    let manifest = fs::read(directory.join("release.json")).unwrap();
    // Between the two approvers' signatures the draft is kept, and put back after the catalogue is complete.
    world.publisher(["approve", "hello@1.0", "--key", "keys/approver-1.key"]).succeeds();
    let draft = fs::read(world.path("repository/drafts/catalogue.json")).unwrap();
    world.publisher(["approve", "hello@1.0", "--key", "keys/approver-2.key"]).succeeds();
    fs::write(world.path("repository/drafts/catalogue.json"), draft).unwrap();
    world.deploy(&app, "all");
    world.publish();

    // Half of what was submitted, and then all that tells it from one that waits.
    fs::create_dir_all(&directory).unwrap();
    world.publisher(["status"]).succeeds();
    world.publisher(["review", "hello@1.0"]).fails(1, "was not submitted");
    fs::write(directory.join("release.json"), manifest).unwrap();
    world.publish();
    assert!(!directory.exists(), "the next publication clears it away");

    // The stale draft is in nobody's way either.
    world.release(&App::new("hello", 2));
    world.college("57001").sync();
}

#[test]
fn a_version_is_approved_once() {
    let mut world = World::new().college("57001").workstations(1).start();
    let app = App::new("hello", 1);
    world.release(&app);
    let work = world.path("again");
    fs::create_dir_all(work.join("tree/bin")).unwrap();
    fs::write(work.join("tree/bin/other"), "x").unwrap();
    let recipe = "name = \"hello\"\nversion = \"1.0\"\nsequence = 2\nplatform = \"any\"\nlicence = \"MIT\"\n\
        title = { fr = \"x\", en = \"x\" }\nsummary = { fr = \"x\", en = \"x\" }\n\
        [[source]]\npath = \"tree\"\nkind = \"directory\"\n";
    fs::write(work.join("r.toml"), recipe).unwrap();
    world.publisher(["build", "again/r.toml", "--key", "keys/packager-1.key"]).succeeds();
    world.publisher(["submit", "built/hello-1.0-any"]).succeeds();
    let approve = ["approve", "hello@1.0", "--key", "keys/approver-1.key"];
    world.publisher(approve).fails(1, "this version is approved already, with other content");
    world.publish();
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    world.release(&App::new("hello", 2).noise("data", 12_000_000, 1));

    // The node's disk.
    let upstream = world.college("57001").wan().address();
    let root = world.trusted_root();
    let small = world.path("small-node");
    let disk = SmallDisk::mount(&small, 8 << 10);
    let college = world.college("57001");
    let node = |arguments: &[&str]| {
        let mut command = Command::new(mirabelle_tests::Programs::built().node());
        run(command.arg("--root").arg(&small).args(arguments))
    };
    let root = root.to_str().unwrap();
    node(&["init", "--college", "57001", "--upstream", &upstream, "--trusted-root", root]).succeeds();
    let outcome = node(&["sync"]).fails(5, "hello 2.0");
    assert!(outcome.stderr.contains("the disk is full"), "{}", outcome.stderr);
    assert!(!small.join("served/metadata/timestamp.json").exists());
    drop(disk);

    // The workstation's.
    college.sync();
    let small = world.path("small-workstation");
    let disk = SmallDisk::mount(&small, 8 << 10);
    let lan = world.college("57001").lan().address();
    let client = |arguments: &[&str]| {
        let mut command = Command::new(mirabelle_tests::Programs::built().client());
        run(command.arg("--root").arg(&small).args(arguments))
    };
    client(&["enroll", "--college", "57001", "--node", &lan, "--trusted-root", root]).succeeds();
    // Known before anything is fetched; a disk that fills up on the way: `the_node_or_the_room_ends.rs`.
    let outcome = client(&["install", "hello"]).fails(1, "cannot install `hello`: it needs 12000");
    assert!(outcome.stderr.contains("make room on the disk"), "{}", outcome.stderr);
    assert!(!small.join("current").exists());
    client(&["list"]).succeeds();
    drop(disk);

    // The publisher's.
    let small = world.path("small-built");
    let disk = SmallDisk::mount(&small, 8 << 10);
    fs::create_dir(world.path("tree")).unwrap();
    fs::write(world.path("tree/data"), vec![7; 20_000_000]).unwrap();
    let recipe = "name = \"x\"\nversion = \"1\"\nsequence = 1\nplatform = \"any\"\nlicence = \"MIT\"\n\
        title = { fr = \"x\", en = \"x\" }\nsummary = { fr = \"x\", en = \"x\" }\n\
        [[source]]\npath = \"tree\"\nkind = \"directory\"\n";
    fs::write(world.path("r.toml"), recipe).unwrap();
    let out = small.to_str().unwrap();
    let outcome = world.publisher(["build", "r.toml", "--key", "keys/packager-1.key", "--out", out]);
    let outcome = outcome.fails(5, "cannot copy the source");
    assert!(outcome.stderr.contains("the disk is full"), "{}", outcome.stderr);
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    drop(disk);
}
