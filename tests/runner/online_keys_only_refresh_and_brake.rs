//! Promise 2. Keys that live on a server can renew freshness and pause a release; they can never add, replace or move
//! one.

use mirabelle_manifests::network::{DEPLOYMENT_TARGET, catalogue_role, deployment_role};
use mirabelle_tests::{App, World};

use crate::forge::{key, list, publish, resign};

fn world() -> World {
    let mut world = World::new().college("57001").workstations(2).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["install", "hello"]).succeeds();
    world
}

#[test]
fn a_pause_withholds_and_takes_nothing_away() {
    let mut world = world();
    world.release(&App::new("hello", 2));
    let brake = |verb: &str| {
        world.publisher([verb, "hello@2.0", "--key", "keys/brake.key"]).succeeds();
        world.publish();
    };
    brake("pause");
    world.publisher(["pause", "hello@2.0", "--key", "keys/brake.key"]).fails(1, "is paused already");
    let college = world.college("57001");
    college.sync();
    assert!(college.workstation(0).run(["update"]).succeeds().stdout.contains("release 2 is paused since"));
    assert_eq!(college.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    college.workstation(1).run(["install", "hello"]).fails(1, "release 2 is paused since");

    world.publisher(["resume", "hello@2.0", "--key", "keys/brake.key"]).succeeds();
    world.publish();
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["update"]).succeeds();
    assert_eq!(college.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
}

#[test]
fn an_online_key_cannot_add_or_move_a_release() {
    for name in ["online", "brake"] {
        for role in [catalogue_role(), deployment_role()] {
            let mut world = world();
            resign(&world, &role, &[&key(&world, name)], |document| {
                if role == deployment_role() {
                    let empty = br#"{"_type":"deployment","assignments":[]}"#;
                    list(&world, document, DEPLOYMENT_TARGET, empty, None);
                } else {
                    document.targets.clear();
                }
            });
            publish(&world);
            let college = world.college("57001");
            college.stop_node();
            college.node(["sync"]).fails(4, &format!("`{role}` is not signed as `targets` demands"));
        }
    }
}
