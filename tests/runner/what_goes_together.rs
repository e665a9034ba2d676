//! Packages that need each other, packages that exclude each other, and what a workstation does not take: too large, older
//! than what is here, paused. And what a desktop sees of all that.

use std::io::Write;
use std::process::{Command, Stdio};

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World};
use serde_json::{Value, json};

use crate::fake_machine::SmallDisk;
use crate::forge;

fn world(apps: &[App]) -> World {
    let world = World::new().college("57001").workstations(1).start();
    for app in apps {
        world.submit(app);
        world.approve(app);
    }
    world
}

fn deploy(world: &mut World, lines: &Value) {
    forge::deploy(world, &json!({ "_type": "deployment", "assignments": lines }));
    world.publish();
    world.college("57001").sync();
}

fn packages(workstation: &Workstation) -> Vec<String> {
    let list = workstation.run(["--json", "list"]).succeeds().json();
    list.as_object()
        .unwrap()
        .iter()
        .map(|(name, installed)| format!("{name} {}", installed["sequence"]))
        .collect()
}

#[test]
fn what_a_package_requires_comes_along_and_goes_with_the_last_that_requires_it() {
    let needs = |name: &str| App::new(name, 1).recipe("[[requires]]\npackage = \"library\"\nat-least = 2\n");
    let mut world = world(&[App::new("library", 1), App::new("library", 2), needs("hello"), needs("other")]);
    let offered = ["library", "hello", "other"].map(|name| json!({ "package": name, "mode": "available" }));
    deploy(&mut world, &json!(offered));
    let workstation = world.college("57001").workstation(0);
    let shown = workstation.run(["--json", "install", "hello", "--dry-run"]).succeeds().json();
    assert_eq!(shown["install"], json!(["hello 1.0", "library 2.0"]));
    workstation.run(["install", "hello"]).succeeds();
    assert_eq!(packages(workstation), ["hello 1", "library 2"]);
    let why = workstation.run(["why", "library"]).succeeds().stdout;
    assert!(why.contains("`hello` requires it"), "{why}");
    workstation.run(["install", "other"]).succeeds();

    workstation.run(["remove", "library"]).fails(1, "`hello` requires it");
    workstation.run(["remove", "hello"]).succeeds();
    assert_eq!(packages(workstation), ["library 2", "other 1"]);
    workstation.run(["remove", "other"]).succeeds();
    assert!(packages(workstation).is_empty(), "nobody asked for the library");
    // Whoever asks for it has it in its own right.
    workstation.run(["install", "library", "hello"]).succeeds();
    workstation.run(["remove", "hello"]).succeeds();
    assert_eq!(packages(workstation), ["library 2"]);
}

#[test]
fn what_a_package_requires_comes_along_though_the_deployment_wants_it_anyway() {
    let hello = |number: u64| {
        let needs = format!("[[requires]]\npackage = \"library\"\nat-least = {number}\n");
        App::new("hello", number).recipe(&needs)
    };
    let mut world = world(&[App::new("library", 1), hello(1)]);
    let lines =
        json!([{ "package": "hello", "mode": "available" }, { "package": "library", "mode": "required" }]);
    deploy(&mut world, &lines);
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    assert_eq!(packages(world.college("57001").workstation(0)), ["hello 1", "library 1"]);
    for (number, asked) in [(2, "hello"), (3, "library")] {
        for app in [App::new("library", number), hello(number), App::new("other", number)] {
            world.submit(&app);
            world.approve(&app);
        }
        deploy(&mut world, &json!([lines[0], lines[1], { "package": "other", "mode": "required" }]));
        let workstation = world.college("57001").workstation(0);
        workstation.run(["update", asked]).succeeds();
        // What has nothing to do with it waits.
        assert_eq!(packages(workstation), [format!("hello {number}"), format!("library {number}")]);
    }
}

#[test]
fn what_excludes_what_is_here_is_refused_with_an_explanation() {
    let rival = App::new("rival", 1).recipe("[[conflicts]]\npackage = \"hello\"\n");
    let mut world = world(&[App::new("hello", 1), rival]);
    let offered = ["hello", "rival"].map(|name| json!({ "package": name, "mode": "available" }));
    deploy(&mut world, &json!(offered));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["install", "hello"]).succeeds();
    let outcome = workstation.run(["install", "rival"]).fails(1, "it does not go together with the rest");
    assert!(outcome.stderr.contains("`rival`") && outcome.stderr.contains("hello"), "{}", outcome.stderr);
    assert_eq!(packages(workstation), ["hello 1"]);
    // Refused is not asked for.
    workstation.run(["remove", "hello"]).succeeds();
    workstation.run(["update"]).succeeds();
    assert!(packages(workstation).is_empty());
    workstation.run(["install", "rival"]).succeeds();
    assert_eq!(packages(workstation), ["rival 1"]);
}

#[test]
fn what_is_too_large_is_refused_before_anything_starts() {
    let mut world = world(&[App::new("small", 1), App::new("large", 1).noise("data", 3_000_000, 1)]);
    let offered = ["small", "large"].map(|name| json!({ "package": name, "mode": "available" }));
    deploy(&mut world, &json!(offered));
    let root = world.path("small-disk");
    let disk = SmallDisk::mount(&root, 6_000);
    let workstation = world.college("57001").workstation(0);
    let fresh = fs::read(workstation.root().join("client.toml")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(workstation.root()).arg(root.join("root")).status();
    assert!(copied.unwrap().success());
    let mut reserve = b"disk-reserve = \"4 MiB\"\n".to_vec();
    reserve.extend(&fresh);
    fs::write(root.join("root/client.toml"), reserve).unwrap();
    let client = |arguments: &[&str]| {
        let mut command = Command::new(mirabelle_tests::Programs::built().client());
        mirabelle_tests::run(command.arg("--root").arg(root.join("root")).args(arguments))
    };
    client(&["refresh"]).succeeds();
    let before = world.college("57001").lan().down();
    let outcome = client(&["install", "large"]).fails(1, "bytes, and the disk has");
    assert!(outcome.stderr.contains("make room on the disk"), "{}", outcome.stderr);
    assert!(world.college("57001").lan().down() - before < 500_000, "its content was fetched");
    assert!(!root.join("root/journal/transaction.json").exists());
    assert!(!root.join("root/current").exists());
    // What fits comes, and with more room, so does the other.
    client(&["install", "small"]).succeeds();
    disk.resize(20_000);
    client(&["install", "large"]).succeeds();
    client(&["verify"]).succeeds();
}

#[test]
fn only_a_pin_goes_back() {
    let mut world = world(&[App::new("hello", 1), App::new("hello", 2)]);
    let pinned = |sequence: u64| {
        json!([{ "package": "hello", "mode": "required",
            "track": { "pinned": { "sequence": sequence, "version": format!("{sequence}.0") } } }])
    };
    deploy(&mut world, &pinned(2));
    world.college("57001").workstation(0).run(["update"]).succeeds();
    deploy(&mut world, &pinned(1));
    let workstation = world.college("57001").workstation(0);
    let shown = workstation.run(["--json", "update"]).succeeds().json();
    assert_eq!(shown["update"], json!(["hello 2.0 → 1.0"]));
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");

    // The newest that is approved for a machine that has a newer one: the catalogue lost it, or its clock runs back.
    deploy(&mut world, &json!([{ "package": "hello", "mode": "required" }]));
    world.college("57001").workstation(0).run(["update"]).succeeds();
    let approvers = [&forge::key(&world, "approver-1"), &forge::key(&world, "approver-2")];
    forge::resign(&world, &mirabelle_manifests::network::catalogue_role(), &approvers, |catalogue| {
        catalogue.targets.retain(|path, _| !path.to_string().contains("/2.0/"));
    });
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    let kept = workstation.run(["update"]).succeeds().stdout;
    assert!(
        kept.contains("release 1 is older than release 2, which is here; only a pin goes back"),
        "{kept}"
    );
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
}

#[test]
fn a_paused_requirement_holds_back_what_requires_it_and_takes_nothing_away() {
    let hello = App::new("hello", 2).recipe("[[requires]]\npackage = \"library\"\n");
    let mut world = world(&[App::new("hello", 1)]);
    let required =
        json!([{ "package": "hello", "mode": "required" }, { "package": "library", "mode": "available" }]);
    deploy(&mut world, &required);
    world.college("57001").workstation(0).run(["update"]).succeeds();
    for app in [App::new("library", 1), hello] {
        world.submit(&app);
        world.approve(&app);
    }
    world.publisher(["pause", "library@1.0", "--key", "keys/brake.key"]).succeeds();
    world.publish();
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["update"]).succeeds();
    assert_eq!(packages(world.college("57001").workstation(0)), ["hello 1"]);
    world.publisher(["resume", "library@1.0", "--key", "keys/brake.key"]).succeeds();
    world.publish();
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["update"]).succeeds();
    assert_eq!(packages(world.college("57001").workstation(0)), ["hello 2", "library 1"]);
}

#[test]
fn what_runs_keeps_its_own_files_until_it_is_closed() {
    let patient = |number: u64| {
        let script = "#!/bin/sh\nread line\ncat \"${0%/bin/*}/data\"\n";
        App::new("patient", number).file("bin/patient", script).file("data", format!("data {number}\n"))
    };
    let mut world = world(&[patient(1)]);
    deploy(&mut world, &json!([{ "package": "patient", "mode": "required" }]));
    world.college("57001").workstation(0).run(["update"]).succeeds();
    let launcher = world.college("57001").workstation(0).root().join("active/bin/patient");
    let start = || Command::new(&launcher).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let finish = |mut running: std::process::Child| {
        running.stdin.take().unwrap().write_all(b"go\n").unwrap();
        String::from_utf8(running.wait_with_output().unwrap().stdout).unwrap()
    };
    let old = start();
    world.submit(&patient(2));
    world.approve(&patient(2));
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    // Whoever starts it now has the new one, beside the old one.
    let new = start();
    // Taken away altogether, both still run to their end.
    workstation.run(["remove", "patient"]).succeeds();
    assert_eq!(finish(new), "data 2\n");
    assert_eq!(finish(old), "data 1\n");
}

#[test]
fn a_desktop_sees_a_release_come_and_go() {
    let app = |number: u64| {
        App::new("hello", number)
            .launcher("mime-types = [\"text/x-hello\"]\nicon = \"share/icons/hicolor/48x48/apps/hello.png\"")
            .file("share/icons/hicolor/48x48/apps/hello.png", format!("icon {number}"))
            .file("share/pixmaps/hello.xpm", "pixmap")
            .file("share/mime/packages/hello.xml", MIME)
            .file("share/metainfo/hello.metainfo.xml", format!("<component>{number}</component>"))
    };
    let mut world = world(&[app(1)]);
    deploy(&mut world, &json!([{ "package": "hello", "mode": "required" }]));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    let share = workstation.root().join("active/share");
    let icon = share.join("icons/hicolor/48x48/apps/hello.png");
    let shown = [
        share.join("applications/mirabelle-hello.desktop"),
        icon.clone(),
        share.join("pixmaps/hello.xpm"),
        share.join("mime/packages/hello.xml"),
        share.join("metainfo/hello.metainfo.xml"),
    ];
    for path in &shown {
        assert!(path.is_file(), "{}", path.display());
    }
    let entry = fs::read_to_string(&shown[0]).unwrap();
    assert!(entry.contains("MimeType=text/x-hello;\n") && entry.contains(" %F\n"), "{entry}");
    let named = entry.lines().find_map(|line| line.strip_prefix("Icon=")).unwrap();
    assert_eq!(fs::read_to_string(named).unwrap(), "icon 1");
    if Command::new("update-mime-database").arg("-v").output().is_ok() {
        let globs = fs::read_to_string(share.join("mime/globs")).unwrap();
        assert!(globs.contains("text/x-hello:*.hello"), "{globs}");
    }

    world.submit(&app(2));
    world.approve(&app(2));
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert_eq!(fs::read_to_string(&icon).unwrap(), "icon 2");
    workstation.run(["rollback"]).succeeds();
    assert_eq!(fs::read_to_string(&icon).unwrap(), "icon 1");
    workstation.run(["remove", "hello"]).succeeds();
    for path in &shown {
        assert!(!path.exists(), "{}", path.display());
    }
}

const MIME: &str = r#"<?xml version="1.0"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="text/x-hello"><comment>Hello</comment><glob pattern="*.hello"/></mime-type>
</mime-info>
"#;

#[test]
fn what_another_machine_gets_and_why_can_be_asked_here() {
    let mut world = world(&[App::new("hello", 1)]);
    let room =
        json!([{ "package": "hello", "mode": "required", "to": { "rooms": ["B12"], "tags": ["exam"] } }]);
    deploy(&mut world, &room);
    let workstation = world.college("57001").workstation(0);
    workstation.run(["refresh"]).succeeds();
    let ask = |other: &[&str]| {
        workstation.run(["--json", "why", "hello"].iter().chain(other)).succeeds().json()["action"].clone()
    };
    assert_eq!(ask(&[]), "keep");
    assert_eq!(ask(&["--machine", "b12-03"]), "keep", "nobody knows where it stands");
    assert_eq!(ask(&["--machine", "b12-03", "--room", "B12", "--tags", "exam,touch"]), "install");
    assert_eq!(ask(&["--machine", "b13-03", "--room", "B13", "--tags", "exam"]), "keep");
    let said = workstation.run(["why", "hello", "--machine", "b12-03", "--room", "B13"]).succeeds().stdout;
    assert!(said.contains("hello on b12-03") && said.contains("not deployed to college 57001"), "{said}");
    assert_eq!(workstation.run(["why", "hello", "--room", "B12"]).code, Some(2), "whose room?");
}
