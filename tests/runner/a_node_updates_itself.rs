//! A node becomes the release of `mirabelle-node` that is deployed to it, and is its former self again when that does not come
//! up, with nobody near: its service manager starts it again whenever it ends.

use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, College, Programs, World, run, run_within};

/// A release of the node that leaves a mark, and is the node.
fn node(world: &World, number: u64) -> App {
    let (mark, program) = (world.path(&format!("ran-{number}")), Programs::built().node());
    let script = format!("#!/bin/sh\ntouch '{}'\nexec '{}' \"$@\"\n", mark.display(), program.display());
    App::new("mirabelle-node", number).file("bin/mirabelle-node", script)
}

fn deploy(world: &World, app: &App) {
    world.submit(app);
    world.approve(app);
    let to = ["--colleges", "57001", "--tags", "node", "--key", "keys/operator-1.key"];
    world.publisher(["deploy", &app.label()].into_iter().chain(to)).succeeds();
    world.publish();
}

/// The service runs until it ends by itself, to be another.
fn run_until_it_ends(college: &College) -> Option<i32> {
    let mut command = college.node_command();
    run_within(command.args(["--sync-every", "10 h", "run"]), Duration::from_mins(2)).code
}

fn program(college: &College) -> serde_json::Value {
    serde_json::from_slice(&fs::read(college.node_root().join("program.json")).unwrap()).unwrap()
}

#[test]
fn a_new_node_takes_over_and_one_that_does_not_come_up_is_taken_back() {
    let mut world = World::new().college("57001").workstations(1).start();
    let first = node(&world, 1);
    deploy(&world, &first);
    let college = world.college("57001");
    assert_eq!(run_until_it_ends(college), Some(75), "it is to be started anew as another");
    assert_eq!(program(college)["current"]["came_up"], false);
    let mark = college.node_root().join("../../ran-1");
    assert!(!mark.exists());
    college.start_node();
    assert!(mark.exists(), "it runs");
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while program(college)["current"]["came_up"] != true {
        assert!(std::time::Instant::now() < deadline, "it never came up");
        std::thread::sleep(Duration::from_millis(50));
    }
    college.stop_node();

    // One that cannot even start; and no workstation is offered a node.
    deploy(&world, &App::new("mirabelle-node", 2).file("bin/mirabelle-node", "#!/bin/sh\nexit 3\n"));
    let college = world.college("57001");
    assert_eq!(run_until_it_ends(college), Some(75), "it is to be started anew as another");
    assert_eq!([run_until_it_ends(college), run_until_it_ends(college)], [Some(3), Some(3)]);
    let mark_of_first = college.node_root().join("../../ran-1");
    fs::remove_file(&mark_of_first).unwrap();
    college.start_node();
    assert!(mark_of_first.exists(), "the one before runs again");
    let kept = program(college);
    assert_eq!(kept["current"]["came_up"], true, "{kept}");
    assert_eq!(kept["quarantine"].as_object().unwrap().len(), 1, "{kept}");
    let refreshed = college.workstation(0).run(["--json", "refresh"]).succeeds().json();
    assert_eq!(refreshed["pending"].as_array().map(Vec::len), Some(0), "{refreshed}");

    // Somebody changes the program on the disk: it is not started, and comes out of the store again.
    college.stop_node();
    let release = kept["current"]["release"].as_str().unwrap();
    let path = college.node_root().join("programs").join(release).join("mirabelle-node");
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "#!/bin/sh\nexit 9\n").unwrap();
    fs::remove_file(&mark_of_first).unwrap();
    assert_eq!(run_until_it_ends(college), Some(75), "the machine's own program puts it right");
    assert!(!mark_of_first.exists());
    assert_eq!(fs::read(&path).unwrap(), content);
    college.start_node();
    assert!(mark_of_first.exists());
    college.stop_node();
    run(college.node_command().arg("fsck")).succeeds();
}
