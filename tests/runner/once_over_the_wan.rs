//! Promise 5, as far as it holds: however many workstations ask, an object crosses the WAN once; what was received
//! before a cut is not asked for again.

use std::time::Duration;

use mirabelle_tests::{App, Fault, World, mbit};

const MEGABYTES: u64 = 12;

fn large(number: u64) -> App {
    App::new("large", number).noise("data", usize::try_from(MEGABYTES).unwrap() * 1_000_000, 7)
}

/// Metadata, headers, the script: what a mirrored release costs beside its content.
const OVERHEAD: u64 = 60_000;

#[test]
fn two_workstations_cost_the_wan_nothing() {
    let mut world = World::new().college("57001").workstations(2).start();
    world.release(&large(1));
    let college = world.college("57001");
    college.sync();
    let mirrored = college.wan().down();
    assert!((MEGABYTES * 1_000_000..MEGABYTES * 1_000_000 + OVERHEAD).contains(&mirrored), "{mirrored}");
    for number in [0, 1] {
        college.workstation(number).run(["install", "large"]).succeeds();
    }
    // The service looks upstream once when it starts; that is all.
    assert!(college.wan().down() - mirrored < 5_000, "{}", college.wan().down() - mirrored);

    // An update that changes a small file does not bring the large one again.
    world.release(&large(2));
    let college = world.college("57001");
    college.sync();
    assert!(college.wan().down() - mirrored < OVERHEAD, "{}", college.wan().down() - mirrored);
}

#[test]
fn a_link_that_drops_again_and_again_costs_no_byte_twice() {
    let mut world = World::new().college("57001").start();
    world.release(&large(1));
    let college = world.college("57001");
    college.wan().fail(Fault::CutEvery(1_000_000));
    college.node(["sync"]).succeeds();
    let received = college.wan().down();
    // What a cut swallows is in the buffers of the two ends: well below a piece of each cut.
    assert!(received < MEGABYTES * 1_000_000 * 11 / 10, "{received}");
}

#[test]
fn a_killed_mirror_goes_on_at_the_byte() {
    let mut world = World::new().college("57001").wan(mbit(80)).start();
    world.release(&large(1));
    let college = world.college("57001");
    // 12 MB at 80 Mbit/s take 1.2 s: killed about every third of that, it gets there all the same.
    let mut kills = 0;
    while college.sync_and_kill(Duration::from_millis(450)) {
        kills += 1;
        assert!(kills < 40, "it never gets there");
    }
    college.node(["sync"]).succeeds();
    assert!(kills >= 2, "killed {kills} times");
    let received = college.wan().down();
    assert!(received < MEGABYTES * 1_000_000 * 13 / 10, "{received} after {kills} kills");
}
