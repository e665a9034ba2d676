//! Promise 3. A node serves a catalogue only when it holds everything that catalogue obliges it to hold; until then it
//! serves the last complete one.

use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, College, Fault, World};

/// At least so many kills at random moments.
const KILLS: u32 = 30;

fn app(number: u64) -> App {
    let app =
        App::new("hello", number).noise("data", 3_000_000, number).noise("large", 6_000_000, number + 100);
    (0..40)
        .fold(app, |app, file| app.file(&format!("lib/f{file}"), format!("{file} of {number}\n").repeat(50)))
}

/// The sequence that the node's workstation would install, and the proof that the node holds all of it.
fn served_release(college: &mut College) -> Option<String> {
    if !college.node_root().join("served/metadata/timestamp.json").exists() {
        return None;
    }
    college.node(["fsck"]).succeeds();
    college.start_node();
    let refreshed = college.workstation(0).run(["--json", "refresh"]).succeeds().json();
    college.kill_node();
    Some(refreshed["pending"][0].as_str().unwrap().to_owned())
}

#[test]
fn killed_at_any_moment_it_serves_the_old_catalogue_or_the_new_one() {
    const PEACEFUL: &str = "57000";
    const KILLED: [&str; 4] = ["57001", "57002", "57003", "57004"];
    let world =
        KILLED.iter().fold(World::new().college(PEACEFUL), |world, code| world.college(code).workstations(1));
    let mut world = world.start();
    let random = Random::new(57001);
    let (mut killed, mut before_the_flip) = (0, 0);
    for number in 1..=3 {
        world.release(&app(number));
        // How long it takes when nothing comes between.
        let full = world.college(PEACEFUL).node(["sync"]).succeeds().took;
        let release = |number: u64| (number > 0).then(|| format!("install hello {number}.0"));
        for code in KILLED {
            let college = world.college(code);
            // Killed again and again, later each time, until it gets there.
            for attempt in 1.. {
                let alive = college.sync_and_kill(random.below(full) * attempt / 3);
                let served = served_release(college);
                assert!(
                    served == release(number) || served == release(number - 1),
                    "{served:?} instead of {number}"
                );
                if !alive {
                    break;
                }
                killed += 1;
                before_the_flip += u32::from(served == release(number - 1));
            }
            college.node(["sync"]).succeeds();
            assert_eq!(served_release(college), release(number));
        }
    }
    println!("{killed} kills, {before_the_flip} of them before the flip");
    assert!(killed >= KILLS, "only {killed} syncs were still under way when they were killed");
    assert!(before_the_flip >= KILLS / 2, "only {before_the_flip} kills came before the flip");
}

#[test]
fn a_bad_bundle_leaves_what_was_served() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    let mut bundles: Vec<_> =
        fs::read_dir(world.path("repository/public/bundles")).unwrap().map(|entry| entry.unwrap()).collect();
    bundles.sort_by_key(|entry| entry.metadata().unwrap().modified().unwrap());
    let bundle = bundles.pop().unwrap().path();
    let good = fs::read(&bundle).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    let mut older = fs::read(bundles.pop().unwrap().path()).unwrap();
    // Of the same length: a shorter one is a truncated one.
    older.resize(good.len(), 0);
    let cases: [(&str, Vec<u8>, i32, &str); 4] = [
        ("tampered", flipped, 4, "is refused"),
        ("swapped for another release's", older, 4, "is refused"),
        ("truncated", good[..good.len() / 3].to_vec(), 3, ""),
        ("replaced by a page", b"<html>Not found</html>".to_vec(), 3, ""),
    ];
    for (name, bytes, code, words) in cases {
        fs::write(&bundle, &bytes).unwrap();
        let college = world.college("57001");
        let outcome = college.node(["sync"]);
        assert_eq!(outcome.code, Some(code), "{name}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains(words) && outcome.stderr.contains("hello 2.0"),
            "{name}: {}",
            outcome.stderr
        );
        assert_eq!(served_release(college), Some("install hello 1.0".to_owned()), "{name}");
    }
    fs::write(&bundle, good).unwrap();
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    assert_eq!(served_release(college), Some("install hello 2.0".to_owned()));
}

#[test]
fn a_link_that_is_down_leaves_what_was_served() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    let college = world.college("57001");
    college.wan().fail(Fault::Down);
    college.node(["sync"]).fails(3, "could not be fetched in 5 attempts");
    assert_eq!(served_release(college), Some("install hello 1.0".to_owned()));
    let status = college.node(["--json", "status"]).succeeds().json();
    assert!(status["last_failure"].as_str().unwrap().contains("could not be fetched"), "{status}");
    assert_eq!(status["stale"], false);
}

#[test]
fn wrong_objects_are_found_set_aside_and_fetched_again() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1).noise("data", 100_000, 5));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let objects = college.node_root().join("objects");
    let largest = walk(&objects).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::set_permissions(&largest, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&largest, bytes).unwrap();

    college.node(["fsck", "--repair"]).fails(1, "does not have its digest");
    assert!(!largest.exists(), "it is not served any more");
    college.node(["sync"]).succeeds();
    college.node(["fsck"]).succeeds();
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Moments that are the same in every run.
pub(crate) struct Random(std::cell::Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(std::cell::Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    pub(crate) fn below(&self, limit: Duration) -> Duration {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        Duration::from_micros(state % u64::try_from(limit.as_micros()).unwrap())
    }
}
