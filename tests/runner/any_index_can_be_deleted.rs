//! Promise 10. The embedded database only speeds up what the files on disk already say; on doubt it is moved aside and
//! rebuilt.

use fs_err as fs;
use mirabelle_tests::{App, World};

#[test]
fn deleting_or_damaging_the_index_costs_nothing() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1).noise("data", 2_000_000, 3));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let index = college.node_root().join("index");
    let damage: [(&str, &dyn Fn()); 4] = [
        ("deleted", &|| fs::remove_dir_all(&index).unwrap()),
        ("a file in its place", &|| {
            fs::remove_dir_all(&index).unwrap();
            fs::write(&index, "no directory").unwrap();
        }),
        ("truncated", &|| {
            for entry in fs::read_dir(&index).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::write(path, "").unwrap();
                }
            }
        }),
        ("overwritten", &|| {
            for entry in fs::read_dir(&index).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::write(path, [0xff; 4096]).unwrap();
                }
            }
        }),
    ];
    for (name, damage) in damage {
        damage();
        let before = college.wan().down();
        let outcome = college.node(["--json", "sync"]).succeeds().json();
        assert_eq!(outcome["releases"].as_array().unwrap().len(), 1, "{name}");
        assert!(college.wan().down() - before < 10_000, "{name}: nothing is fetched again");
        college.node(["fsck"]).succeeds();
    }
    college.start_node();
    college.workstation(0).run(["install", "hello"]).succeeds();
}
