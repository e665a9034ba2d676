//! A release goes from its packager to a workstation, is updated, taken back, verified and repaired.

use fs_err as fs;
use mirabelle_tests::{App, World};

#[test]
fn installs_updates_rolls_back_and_removes() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1).file("share/été.txt", "un"));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.run(["refresh"]).succeeds();
    assert!(workstation.run(["search", "ESSAI"]).succeeds().stdout.contains("hello"));
    workstation.run(["install", "hello"]).succeeds();
    assert_eq!(workstation.launch("hello", &["a b"]).succeeds().stdout, "hello 1.0 a b\n");
    let desktop =
        fs::read_to_string(workstation.root().join("active/share/applications/mirabelle-hello.desktop"));
    assert!(desktop.unwrap().contains("Name[fr]=Essai hello"));

    world.release(&App::new("hello", 2).file("share/été.txt", "deux"));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    let update = workstation.run(["--json", "update"]).succeeds().json();
    assert_eq!(update["update"][0], "hello 1.0 → 2.0");
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
    workstation.run(["verify"]).succeeds();

    workstation.run(["rollback"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    // `update` does not bring back what somebody went back from; asking for it does.
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    workstation.run(["install", "hello"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 2.0\n");

    let history = workstation.run(["--json", "history"]).succeeds().json();
    let reasons: Vec<_> =
        history.as_array().unwrap().iter().map(|past| past["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["install hello", "update", "rollback to 1", "install hello"]);
    workstation.run(["remove", "hello"]).succeeds();
    assert!(!workstation.root().join("active/bin/hello").exists());
    workstation.run(["remove", "hello"]).fails(1, "`hello` is not installed");
}

#[test]
fn a_change_to_any_installed_file_is_found_and_put_right() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1).noise("data", 300_000, 1).file("empty", "").file("a/b/c", "deep"));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.run(["install", "hello"]).succeeds();
    let tree =
        fs::read_dir(workstation.root().join("releases/hello")).unwrap().next().unwrap().unwrap().path();

    let damage: [(&str, &dyn Fn()); 5] = [
        ("`data` is changed", &|| {
            let path = tree.join("data");
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[1234] ^= 1;
            fs::write(&path, bytes).unwrap();
        }),
        ("`empty` is missing", &|| fs::remove_file(tree.join("empty")).unwrap()),
        ("`bin/hello` has other permissions", &|| {
            let path = tree.join("bin/hello");
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        }),
        ("`a/b/c` is missing", &|| {
            fs::remove_dir_all(tree.join("a")).unwrap();
            fs::write(tree.join("a"), "no directory").unwrap();
        }),
        ("`data` is no file any more", &|| {
            fs::remove_file(tree.join("data")).unwrap();
            fs::os::unix::fs::symlink("/etc/passwd", tree.join("data")).unwrap();
        }),
    ];
    for (fault, damage) in damage {
        damage();
        workstation.run(["verify"]).fails(1, fault);
        assert!(workstation.run(["repair"]).succeeds().stdout.contains(fault), "{fault}");
        workstation.run(["verify"]).succeeds();
    }
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
}

#[test]
fn what_a_college_is_not_given_it_cannot_install() {
    let mut world = World::new().college("57001").workstations(1).college("57002").workstations(1).start();
    let app = App::new("hello", 1);
    world.submit(&app);
    world.approve(&app);
    world.deploy(&app, "57001");
    world.publish();
    for (code, installs) in [("57001", true), ("57002", false)] {
        let college = world.college(code);
        college.sync();
        let outcome = college.workstation(0).run(["install", "hello"]);
        if installs {
            outcome.succeeds();
        } else {
            outcome.fails(1, "it is not deployed to college 57002");
        }
    }
}

#[test]
fn an_application_that_runs_keeps_its_release() {
    let mut world = World::new().college("57001").workstations(1).start();
    // It waits for a line, then reads a file of its own release.
    let patient = |number: u64| {
        let script = "#!/bin/sh\nread line\ncat \"${0%/bin/*}/data\"\n";
        App::new("patient", number).file("bin/patient", script).file("data", format!("data {number}\n"))
    };
    world.release(&patient(1));
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["install", "patient"]).succeeds();
    let launcher = world.college("57001").workstation(0).root().join("active/bin/patient");
    let mut running = std::process::Command::new(launcher)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Enough updates that the first release would be swept if nobody ran it.
    for number in 2..=6 {
        world.release(&patient(number));
        let college = world.college("57001");
        college.sync();
        college.workstation(0).run(["update"]).succeeds();
    }
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"go\n").unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "data 1\n");

    let releases = |world: &mut World| {
        fs::read_dir(world.college("57001").workstation(0).root().join("releases/patient")).unwrap().count()
    };
    assert_eq!(releases(&mut world), 5, "the current, three before it, and the one that ran");
    world.release(&patient(7));
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["update"]).succeeds();
    assert_eq!(releases(&mut world), 4, "nobody runs it any more");
}

#[test]
fn a_node_may_stand_behind_a_node() {
    let mut world = World::new().college("57001").college("57002").workstations(1).start();
    world.release(&App::new("hello", 1).noise("data", 2_000_000, 1));
    world.college("57001").sync();
    let parent = world.college("57001").running_node().unwrap().address().to_owned();
    let child = world.college("57002");
    child.node(["--upstream", &parent, "sync"]).succeeds();
    child.start_node();
    child.workstation(0).run(["install", "hello"]).succeeds();
    assert_eq!(child.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    // Its service looks for news at the origin when it starts; the release came from its neighbour.
    assert!(child.wan().down() < 5_000, "{} bytes came from the origin", child.wan().down());
}

#[test]
fn an_upstream_that_is_behind_or_lies_does_not_hide_the_next_one() {
    let mut world = World::new().college("57001").college("57002").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    let parent = world.college("57001").running_node().unwrap().address().to_owned();
    world.college("57002").node(["sync"]).succeeds();
    world.release(&App::new("hello", 2));
    let origin = world.origin().to_owned();
    // The child has heard of the second publication; its parent has not.
    world.college("57002").node(["sync"]).succeeds();
    world.release(&App::new("hello", 3));
    let child = world.college("57002");
    child.node(["--upstream", &parent, "sync"]).fails(4, "a rollback");
    let both = ["--json", "--upstream", &parent, "--upstream", &origin, "sync"];
    assert_eq!(child.node(both).succeeds().json()["releases"][0]["version"], "3.0");
}

#[test]
fn a_workstation_with_an_old_root_finds_the_way_to_the_new_one() {
    let mut world = World::new().college("57001").college("57002").workstations(1).start();
    world.release(&App::new("hello", 1));
    let renew = ["role", "renew", "root", "--key", "keys/root-1.key", "--key", "keys/root-2.key"];
    world.publisher(renew).succeeds();
    world.publish();
    // A node that was set up with the second root, for a workstation that was given the first.
    let origin = world.origin().to_owned();
    let late = world.path("late");
    let node = |arguments: &[&str]| {
        let mut command = std::process::Command::new(mirabelle_tests::Programs::built().node());
        mirabelle_tests::run(command.arg("--root").arg(&late).args(arguments)).succeeds()
    };
    let second = world.path("repository/public/metadata/2.root.json");
    let second = second.to_str().unwrap();
    node(&["init", "--college", "57002", "--upstream", &origin, "--trusted-root", second]);
    // The older root is here only because it leads to the newer one.
    let served = late.join("served/metadata/1.root.json");
    let public = world.path("repository/public/metadata/1.root.json");
    let first = fs::read(&public).unwrap();
    fs::write(&public, String::from_utf8(first.clone()).unwrap().replace("2027", "2028")).unwrap();
    node(&["sync"]);
    assert!(!served.exists(), "a root that its own keys did not sign is not handed on");
    fs::write(&public, &first).unwrap();
    world.publish();
    node(&["sync"]);
    assert_eq!(fs::read(&served).unwrap(), first);
    // And a node that followed the chain itself hands on what it verified.
    world.college("57002").sync();
    world.college("57002").workstation(0).run(["install", "hello"]).succeeds();
}

#[test]
fn repair_goes_on_past_what_it_cannot_have() {
    let mut world = World::new().college("57001").workstations(1).start();
    let app = |number: u64| {
        App::new("hello", number).noise("shared", 300_000, 1).noise("own", 200_000, number + 10)
    };
    for number in 1..=2 {
        world.release(&app(number));
        world.college("57001").sync();
        world.college("57001").workstation(0).run(["update"]).succeeds();
    }
    let college = world.college("57001");
    let mut trees: Vec<_> = fs::read_dir(college.workstation(0).root().join("releases/hello"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    trees.sort();
    let damage = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes[777] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let own = mirabelle_manifests::Digest::of(&fs::read(trees[0].join("own")).unwrap());
    damage(&trees[1].join("shared"));
    damage(&trees[0].join("own"));
    // The node no longer has what is only the first release's, and no link to fetch it by.
    college.wan().fail(mirabelle_tests::Fault::Down);
    let object = college.node_root().join("objects").join(own.fanned_out());
    for path in [object.with_extension("zst"), object] {
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    let outcome = college.workstation(0).run(["repair"]).fails(3, "was answered with status 503");
    assert!(outcome.stdout.contains("`shared` is changed"), "{}", outcome.stdout);
    college.workstation(0).run(["verify"]).succeeds();
}

#[test]
fn somebody_who_keeps_a_lock_keeps_nobody_from_working() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["install", "hello"]).succeeds();
    // Whoever may read a file may lock it: these two nobody else may read, the third does not matter.
    for lock in ["lock", "trust/lock"] {
        let mode = fs::metadata(workstation.root().join(lock)).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o077, 0, "{lock}");
    }
    let lock = fs::read_dir(workstation.root().join("locks/hello")).unwrap().next().unwrap().unwrap().path();
    let kept = fs::File::open(lock).unwrap();
    kept.file().lock().unwrap();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
}
