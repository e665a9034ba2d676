//! Promise 5, "by the cheapest route": an update crosses the WAN, and a slow LAN, as its difference from what is held. A
//! delta that is missing, damaged or wrong costs its own bytes at most, and the update comes all the same.

use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{Digest, Routes};
use mirabelle_tests::{App, College, World, mbit};

/// Bytes of the file that changes a little from release to release. They do not compress.
const BYTES: usize = 800_000;
/// Metadata, headers, routes: what an update costs beside its content.
const OVERHEAD: u64 = 60_000;

/// Release `number` of `hello`: it differs from every other in a few hundred places, and in `fresh` bytes of its own.
fn app_with(number: u64, fresh: usize) -> App {
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut data: Vec<u8> = (0..BYTES).map(|_| next().to_le_bytes()[0]).collect();
    for place in 0..200 {
        let at = usize::try_from(next() + number * 7919 * (place + 1)).unwrap() % BYTES;
        data[at] ^= 0x55;
    }
    App::new("hello", number).file("data", data).noise("fresh", fresh, number)
}

fn app(number: u64) -> App {
    app_with(number, 1000)
}

/// A publisher's settings, in place of the defaults.
fn settings(world: &World, deltas: &str) {
    fs::write(world.path("repository/repository.toml"), format!("[deltas]\n{deltas}\n")).unwrap();
}

/// How the node's release of `hello` came, in words.
fn came(college: &College) -> String {
    let status = college.node(["--json", "status"]).succeeds().json();
    assert_eq!(status["releases"][0]["package"], "hello");
    status["releases"][0]["came"]["way"].as_str().unwrap_or("it does not say").to_owned()
}

/// Releases of `hello` by sequence, as their digests.
fn releases(world: &World) -> Vec<Digest> {
    let directory = world.path("repository/public/targets/packages/hello");
    let mut releases: Vec<(String, Digest)> = Vec::new();
    for version in fs::read_dir(directory).unwrap() {
        let version = version.unwrap();
        for file in fs::read_dir(version.path().join("any")).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            releases.push((version.file_name().into_string().unwrap(), Digest::of(&bytes)));
        }
    }
    releases.sort();
    releases.into_iter().map(|(_, digest)| digest).collect()
}

fn delta(world: &World, to: Digest, from: Option<Digest>) -> PathBuf {
    world.path("repository/public").join(mirabelle_manifests::network::delta_path(to, from))
}

#[test]
fn a_node_and_its_workstations_fetch_the_difference() {
    let mut world = World::new().deltas().college("57001").workstations(1).start();
    settings(&world, "packs = false");
    world.release(&app(1));
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["install", "hello"]).succeeds();
    world.release(&app(2));

    let college = world.college("57001");
    college.stop_node();
    let forecast = college.node(["--json", "sync", "--dry-run"]).succeeds().json();
    assert_eq!(forecast[0]["way"], "delta from 1.0");
    let before = college.wan().down();
    let outcome = college.sync().json();
    assert_eq!(outcome["fetched"][0], "hello 2.0");
    let cost = college.wan().down() - before;
    assert!(cost < OVERHEAD, "{cost} bytes crossed the WAN");
    assert_eq!(came(college), "delta from 1.0");
    college.node(["verify"]).succeeds();

    // The node serves the delta on.
    let routes = college.workstation(0).run(["--json", "routes", "hello"]).succeeds().json();
    assert_eq!(routes["candidates"][0]["kind"], "delta", "{routes:#}");
    let before = college.lan().down();
    college.workstation(0).run(["update"]).succeeds();
    let cost = college.lan().down() - before;
    assert!(cost < OVERHEAD, "{cost} bytes crossed the LAN");
    assert_eq!(college.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
    college.workstation(0).run(["verify"]).succeeds();

    // It stays as long as the release it leads to is the one before what is owed; then the node drops it.
    world.release(&app(3));
    let two = releases(&world)[1];
    let college = world.college("57001");
    let kept = college.node_root().join(format!("served/deltas/{two}"));
    college.sync();
    assert!(kept.exists());
    world.release(&app(4));
    let college = world.college("57001");
    college.sync();
    assert!(!kept.exists());
}

#[test]
fn a_first_install_comes_packed() {
    let mut world = World::new().deltas().college("57001").workstations(1).start();
    let words = concat!(include_str!("../../docs/THREATS.md"), include_str!("../../docs/OPERATIONS.md"));
    world.release(&App::new("hello", 1).file("words", words));
    // `publish` does not wait for packs.
    assert!(!delta(&world, releases(&world)[0], None).exists());
    world.publisher(["deltas"]).succeeds();
    let bundle = fs::read_dir(world.path("repository/public/bundles")).unwrap().next().unwrap().unwrap();
    let bundle = bundle.metadata().unwrap().len();
    let pack = fs::metadata(delta(&world, releases(&world)[0], None)).unwrap().len();
    assert!(pack < bundle, "{pack} beside {bundle}");
    let college = world.college("57001");
    let before = college.wan().down();
    college.sync();
    assert_eq!(came(college), "pack");
    assert!(college.wan().down() - before < pack + 40_000, "{}", college.wan().down() - before);
    // A workstation that holds nothing takes it from the node.
    let before = college.lan().down();
    college.workstation(0).run(["install", "hello"]).succeeds();
    assert!(college.lan().down() - before < pack + 40_000, "{}", college.lan().down() - before);
    assert_eq!(college.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    college.workstation(0).run(["verify"]).succeeds();
}

#[test]
fn the_ways_are_explained() {
    let mut world = World::new().deltas().college("57001").start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    let college = world.college("57001");
    // `routes` reads what the last sync knew, beside a running service; this one learns and fetches nothing.
    college.node(["sync", "--dry-run"]).succeeds();
    let text = college.node(["routes", "hello"]).succeeds().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("hello 2.0 from http://") && lines[0].ends_with("(held: 1.0)"), "{text}");
    assert!(lines[2].contains("→  delta from 1.0"), "{text}");
    assert!(lines[3..].iter().any(|line| line.contains("ranges of the bundle  ≤ ")), "{text}");

    let plan = |from: &str| college.node(["--json", "routes", "hello", "--from", from]).succeeds().json();
    let supposed = plan("1.0");
    assert_eq!(supposed[0]["candidates"][0]["way"], "delta from 1.0");
    let nothing = plan("none");
    assert_eq!(nothing[0]["held"], serde_json::json!([]));
    assert_ne!(nothing[0]["candidates"][0]["kind"], "delta");
    let passed_over = &nothing[0]["passed_over"][0];
    assert_eq!(
        (passed_over["way"].as_str(), passed_over["why"].as_str()),
        (Some("delta from 1.0"), Some("that release is not held here"))
    );
    college.node(["routes", "hello", "--release", "9.0"]).fails(1, "is not in the catalogue");
    college.node(["routes", "hello", "--from", "9.0"]).fails(1, "is not in the catalogue");
}

#[test]
fn a_bad_delta_costs_its_bytes_at_most_and_the_update_comes_all_the_same() {
    /// What the origin has in place of the delta, whether its routes say so, and words of the warning.
    type Case<'a> = (&'a str, Option<Vec<u8>>, bool, &'a str);
    const COLLEGES: [&str; 8] = ["57001", "57002", "57003", "57004", "57005", "57006", "57007", "57008"];
    let builder = COLLEGES.iter().fold(World::new().deltas(), |world, code| world.college(code));
    let mut world = builder.start();
    settings(&world, "packs = false");
    world.release(&app_with(1, 100_000));
    for code in COLLEGES {
        world.college(code).node(["sync"]).succeeds();
    }
    world.release(&app_with(2, 100_000));
    let [one, two] = releases(&world)[..] else { panic!("two releases") };
    let path = delta(&world, two, Some(one));
    let good = fs::read(&path).unwrap();
    let routes_path = world.path(&format!("repository/public/routes/{two}.json"));
    let good_routes = Routes::read(&fs::read(&routes_path).unwrap());
    let size = good.len() as u64;
    assert!((100_000..200_000).contains(&size), "{size}");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let longer = [good.clone(), vec![0; 1000]].concat();
    let foreign = [good[..6].to_vec(), vec![0x5a; good.len()]].concat();

    let cases: [Case<'_>; 8] = [
        ("missing", None, false, "does not exist"),
        ("truncated", Some(good[..good.len() / 3].to_vec()), false, "a delta failed"),
        ("damaged", Some(flipped.clone()), false, "and the server said"),
        ("longer", Some(longer.clone()), false, "is longer than"),
        ("damaged, as the routes say", Some(flipped), true, "a delta failed"),
        ("longer, as the routes say", Some(longer), true, "a delta failed"),
        ("something else, as the routes say", Some(foreign), true, "a delta failed"),
        ("a page, as the routes say", Some(b"<html>no</html>".to_vec()), true, "a delta failed"),
    ];
    for (code, (name, bytes, told, words)) in COLLEGES.into_iter().zip(cases) {
        let mut routes = good_routes.clone();
        match &bytes {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => {
                fs::write(&path, bytes).unwrap();
                let offer = routes.deltas.iter_mut().find(|offer| offer.from == Some(one)).unwrap();
                if told {
                    (offer.size, offer.sha256) = (bytes.len() as u64, Digest::of(bytes));
                }
            }
        }
        fs::write(&routes_path, serde_json::to_vec(&routes).unwrap()).unwrap();
        let college = world.college(code);
        let before = college.wan().down();
        let outcome = college.node(["sync"]).succeeds();
        assert!(
            outcome.stderr.contains("a delta failed") && outcome.stderr.contains(words),
            "{name}: {}",
            outcome.stderr
        );
        let cost = college.wan().down() - before;
        // Another frame of the bundle is as large as it was: nothing but the delta was spent in vain.
        let bundle = BYTES as u64 + 100_000;
        assert!(cost < bundle + size + 1000 + OVERHEAD, "{name}: {cost}");
        college.node(["verify"]).succeeds();
        assert!(came(college).contains("bundle"), "{name}: {}", came(college));
        fs::write(&path, &good).unwrap();
    }
}

#[test]
fn routes_that_lie_are_passed_over() {
    let mut world = World::new().deltas().college("57001").college("57002").start();
    settings(&world, "packs = false");
    world.release(&app(1));
    for code in ["57001", "57002"] {
        world.college(code).node(["sync"]).succeeds();
    }
    world.release(&app(2));
    let two = releases(&world)[1];
    let routes_path = world.path(&format!("repository/public/routes/{two}.json"));
    let good = Routes::read(&fs::read(&routes_path).unwrap());
    for (code, size) in [("57001", 0), ("57002", u64::MAX)] {
        let mut routes = good.clone();
        routes.deltas.iter_mut().for_each(|offer| offer.size = size);
        fs::write(&routes_path, serde_json::to_vec(&routes).unwrap()).unwrap();
        let college = world.college(code);
        let outcome = college.node(["sync"]).succeeds();
        assert!(!outcome.stderr.contains("a delta failed"), "{}", outcome.stderr);
        assert!(came(college).contains("bundle"), "{}", came(college));
    }
}

#[test]
fn a_chain_stands_in_for_a_delta_that_nobody_made() {
    let mut world = World::new().deltas().college("57001").college("57002").start();
    settings(&world, "last = 1\npacks = false");
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    // The second stays with one college; the third leads on from it.
    world.release(&app(2));
    for (number, college) in [(2, "57002"), (3, "57001")] {
        let app = app(number);
        if number == 3 {
            world.submit(&app);
            world.approve(&app);
        }
        world.deploy(&app, college);
    }
    world.publish();
    let [one, two, three] = releases(&world)[..] else { panic!("three releases") };
    assert!(delta(&world, two, Some(one)).exists() && delta(&world, three, Some(two)).exists());
    assert!(!delta(&world, three, Some(one)).exists());
    let college = world.college("57001");
    let before = college.wan().down();
    college.node(["sync"]).succeeds();
    assert_eq!(came(college), "deltas from 1.0 by 2.0");
    let cost = college.wan().down() - before;
    assert!(cost < 2 * OVERHEAD, "{cost}");
    college.node(["verify"]).succeeds();
}

#[test]
fn a_node_that_is_killed_during_a_delta_goes_on_at_the_byte() {
    let mut world = World::new().deltas().college("57001").wan(mbit(8)).start();
    settings(&world, "packs = false");
    world.release(&app_with(1, 1_000_000));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app_with(2, 1_000_000));
    let [one, two] = releases(&world)[..] else { panic!("two releases") };
    let size = fs::metadata(delta(&world, two, Some(one))).unwrap().len();
    let college = world.college("57001");
    let before = college.wan().down();
    // A megabyte at 8 Mbit/s takes a second.
    let mut kills = 0;
    while college.sync_and_kill(Duration::from_millis(450 + 20 * kills)) {
        kills += 1;
        assert!(kills < 40, "it never gets there");
    }
    college.node(["sync"]).succeeds();
    assert!(kills >= 2, "killed {kills} times");
    assert_eq!(came(college), "delta from 1.0");
    let cost = college.wan().down() - before;
    // Each kill loses what was in the buffers, and refreshes anew.
    assert!(cost < size + kills * 300_000 + OVERHEAD, "{cost} after {kills} kills, for a delta of {size}");
    college.node(["verify"]).succeeds();
    let partials = fs::read_dir(college.node_root().join("partials")).unwrap();
    assert_eq!(partials.count(), 0, "nothing is left of downloads");
}

#[test]
fn a_download_that_a_power_cut_spoilt_begins_again_once() {
    let mut world = World::new().deltas().college("57001").start();
    settings(&world, "packs = false");
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    let two = releases(&world)[1];
    let routes = world.path(&format!("repository/public/routes/{two}.json"));
    let [offer] = Routes::read(&fs::read(routes).unwrap()).deltas[..] else { panic!("one delta") };
    let college = world.college("57001");
    let partials = college.node_root().join("partials");
    fs::create_dir_all(&partials).unwrap();
    // Half of it is here, as another process left it, and none of it is right; beside it what nobody wants any more.
    let half = usize::try_from(offer.size / 2).unwrap();
    fs::write(partials.join(format!("delta-{two}-{}.part", offer.sha256)), vec![0x5a; half]).unwrap();
    fs::write(partials.join(format!("delta-{two}-{two}.part")), b"of a delta that is gone").unwrap();
    let outcome = college.node(["sync"]).succeeds();
    assert!(outcome.stderr.contains("a resumed delta was damaged and begins again"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("a delta failed"), "{}", outcome.stderr);
    assert_eq!(came(college), "delta from 1.0");
    assert_eq!(fs::read_dir(partials).unwrap().count(), 0, "nothing is left of downloads");
}

#[test]
fn a_publisher_that_is_killed_makes_what_is_missing_and_drops_what_nobody_needs() {
    let mut world = World::new().college("57001").start();
    settings(&world, "last = 2\npacks = false\njobs = 1");
    for number in 1..=4 {
        world.release(&app(number));
    }
    let states = |world: &World, options: &[&str]| -> Vec<(String, String)> {
        let arguments = ["--json", "deltas", "--dry-run"].into_iter().chain(options.iter().copied());
        let lines = world.publisher(arguments).succeeds().json();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("nothing").to_owned();
        let lines = lines.as_array().unwrap();
        lines
            .iter()
            .map(|line| {
                (format!("{} from {}", text(&line["version"]), text(&line["from"])), text(&line["state"]))
            })
            .collect()
    };
    let missing = |from: &str| (format!("4.0 from {from}"), "missing".to_owned());
    assert_eq!(states(&world, &[]), [missing("3.0"), missing("2.0")]);
    assert_eq!(states(&world, &["--last", "1", "--also", "hello@1.0"]), [missing("3.0"), missing("1.0")]);
    world.publisher(["deltas", "--also", "hello@9.0"]).fails(2, "is not in the catalogue");

    // Killed at any moment, later each time, until it gets there: there is nothing but whole deltas.
    let mut kills = 0;
    for attempt in 1_u32.. {
        let mut command = world.publisher_command();
        let mut child =
            command.args(["--json", "deltas"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60) * attempt);
        let alive = child.try_wait().unwrap().is_none();
        let _ = child.kill();
        child.wait().unwrap();
        world.publisher(["verify"]).succeeds();
        if !alive {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 1, "never killed");
    let report = world.publisher(["--json", "deltas"]).succeeds().json();
    assert_eq!((&report["present"], report["made"].as_array().unwrap().len()), (&2.into(), 0), "{report:#}");
    assert!(!world.path("repository/delta-work/unpacked").exists());
    let four = releases(&world)[3];
    let routes = |release: Digest| {
        Routes::read(&fs::read(world.path(&format!("repository/public/routes/{release}.json"))).unwrap())
    };
    assert_eq!(routes(four).deltas.len(), 2);
    for offer in routes(four).deltas {
        let bytes = fs::read(delta(&world, four, offer.from)).unwrap();
        assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (offer.size, offer.sha256));
        assert!(offer.size < 20_000, "{}", offer.size);
    }

    // A fifth release: nobody goes to the fourth any more.
    world.release(&app(5));
    let report = world.publisher(["--json", "deltas"]).succeeds().json();
    assert_eq!((&report["dropped"], report["made"].as_array().unwrap().len()), (&2.into(), 2), "{report:#}");
    assert!(routes(four).deltas.is_empty() && routes(four).bundle);
    assert!(!world.path(&format!("repository/public/deltas/{four}")).exists());
    world.publisher(["verify"]).succeeds();
    world.college("57001").node(["sync"]).succeeds();
}
