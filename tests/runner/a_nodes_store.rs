//! A node keeps objects compressed where that pays and serves them so, decoded for whoever cannot read them; finds what
//! the disk changed and repairs it; and gives free what the college is not owed any more, and nothing else.

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::Digest;
use mirabelle_tests::{Answer, App, College, World, get};

fn text(seed: u64, lines: u64) -> String {
    let lines = (0..lines).map(|line| (line, (line ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    lines.fold(String::new(), |text, (line, word)| text + &line.to_string() + " " + &word.to_string() + "\n")
}

/// What both releases share, what only one has, and what does not compress.
fn app(number: u64) -> App {
    App::new("hello", number)
        .file("share/both", text(0, 60_000))
        .file("share/one", text(number, 60_000))
        .noise("media", 300_000, 7)
        .noise("other-media", 200_000, 100 + number)
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn stored(college: &College, content: &[u8]) -> Option<PathBuf> {
    let plain = college.node_root().join("objects").join(Digest::of(content).fanned_out());
    [plain.with_extension("zst"), plain].into_iter().find(|path| path.is_file())
}

fn total(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn objects_are_compressed_at_rest_and_on_the_lan_and_plain_for_whoever_asks() {
    let mut world = World::new().college("57001").workstations(2).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.sync();
    let both = text(0, 60_000).into_bytes();
    let path = stored(college, &both).unwrap();
    assert!(path.extension().is_some_and(|extension| extension == "zst"));
    let plain = both.len() as u64 * 2 + 500_000;
    let at_rest = total(&walk(&college.node_root().join("objects")));
    assert!(at_rest < plain * 3 / 4, "{at_rest} of {plain} at rest");

    let before = college.lan().down();
    college.workstation(0).run(["install", "hello"]).succeeds();
    let moved = college.lan().down() - before;
    println!("{plain} bytes of files: {at_rest} at rest, {moved} on the LAN");
    assert!(moved < at_rest + 50_000, "{moved} on the LAN, {at_rest} at rest");
    college.workstation(0).run(["verify"]).succeeds();
    assert_eq!(fs::read(college.workstation(0).root().join("active/apps/hello/share/both")).unwrap(), both);

    let address = college.running_node().unwrap().address().to_owned();
    let object = format!("objects/{}", Digest::of(&both).fanned_out());
    let Answer { head, body } = get(&address, &object, "");
    assert!(head.starts_with("http/1.1 200") && !head.contains("content-encoding"), "{head}");
    assert!(head.contains("vary: accept-encoding"), "{head}");
    assert_eq!(body, both);
    let Answer { head, body } = get(&address, &object, "range: bytes=1000000-1000009\r\n");
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert_eq!(body, both[1_000_000..1_000_010]);
    let Answer { head, body } = get(&address, &object, "accept-encoding: zstd\r\n");
    assert!(head.contains("content-encoding: zstd"), "{head}");
    assert_eq!(zstd::decode_all(&body[..]).unwrap(), both);
}

#[test]
fn fsck_finds_what_the_disk_changed_and_repair_has_it_fetched_again() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    college.node(["fsck"]).succeeds();

    let objects = college.node_root().join("objects");
    let damaged = stored(college, &text(0, 60_000).into_bytes()).unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, &bytes).unwrap();
    let lost = stored(college, &text(1, 60_000).into_bytes()).unwrap();
    fs::remove_file(&lost).unwrap();
    fs::write(objects.join("core"), "a stray file").unwrap();
    fs::write(college.node_root().join("incoming/left"), "half an object").unwrap();

    let report = college.node(["--json", "fsck"]);
    assert_eq!(report.code, Some(1));
    let words = ["is missing (hello 1.0)", "is no object", "--repair"];
    assert!(words.iter().all(|word| report.stderr.contains(word)), "{}", report.stderr);
    let found = report.json();
    assert_eq!(found["wrong"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(
        found["wrong"][0]["needed_by"][0].as_str().or(found["wrong"][1]["needed_by"][0].as_str()),
        Some("hello 1.0")
    );
    assert_eq!(found["left_over_bytes"], 14);
    assert!(damaged.exists() && objects.join("core").exists(), "nothing was changed");

    college.node(["fsck", "--repair"]).fails(1, "it was set aside");
    assert!(!damaged.exists() && !objects.join("core").exists());
    assert_eq!(walk(&college.node_root().join("incoming")).len(), 0);
    college.node(["sync"]).succeeds();
    college.node(["fsck"]).succeeds();
    college.start_node();
    college.workstation(0).run(["install", "hello"]).succeeds();
    // Beside the service too.
    college.node(["fsck"]).succeeds();
}

#[test]
fn what_is_not_owed_any_more_goes_and_what_is_shared_stays() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let hold = |college: &College, number| stored(college, &text(number, 60_000).into_bytes()).is_some();
    let gone = college.node(["--json", "--keep-unassigned", "0 s", "gc", "--dry-run"]).succeeds().json();
    assert_eq!((gone["objects"].as_u64(), gone["bytes"].as_u64()), (Some(0), Some(0)), "all of it is owed");

    // The one before what is owed stays, for whoever goes back; the one before that is owed to nobody.
    world.release(&app(2));
    world.release(&app(3));
    let college = world.college("57001");
    let outcome = college.node(["--json", "sync"]).succeeds().json();
    assert_eq!(outcome["freed_bytes"], 0, "it stays for a week");
    assert!((0..=3).all(|number| hold(college, number)));
    let waiting = college.node(["--json", "gc"]).succeeds().json();
    assert_eq!(waiting["waiting"][0], "hello 1.0 any", "{waiting}");
    assert_eq!(waiting["objects"], 0);

    // Beside the running service.
    college.start_node();
    let now = ["--json", "--keep-unassigned", "0 s", "gc"];
    // The service begins with a sync of its own, which nobody sweeps beside.
    let ask = |college: &College, more: &[&str]| {
        let outcomes = std::iter::repeat_with(|| college.node(now.iter().chain(more)));
        let mut outcomes = outcomes.skip_while(|outcome| outcome.stderr.contains("the node is mirroring"));
        outcomes.next().unwrap().succeeds().json()
    };
    let would = ask(college, &["--dry-run"]);
    assert!(hold(college, 1), "it was only asked what would go");
    let freed = ask(college, &[]);
    assert_eq!((&would["bytes"], &would["releases"]), (&freed["bytes"], &freed["releases"]));
    assert_eq!(freed["releases"][0], "hello 1.0 any");
    assert_eq!(freed["objects"], 3, "its launcher, its text, its media");
    assert!(!hold(college, 1) && hold(college, 2) && hold(college, 3) && hold(college, 0));
    college.node(["fsck"]).succeeds();
    college.workstation(0).run(["install", "hello"]).succeeds();
    college.stop_node();

    // Owed again: no index says that it is still here.
    world.deploy(&app(1), "all");
    world.publish();
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    assert!((0..=3).all(|number| hold(college, number)));
    college.node(["fsck"]).succeeds();
    // A sync that has nothing to wait for collects by itself.
    world.deploy(&app(3), "all");
    world.publish();
    let college = world.college("57001");
    let outcome = college.node(["--json", "--keep-unassigned", "0 s", "sync"]).succeeds().json();
    assert!(outcome["freed_bytes"].as_u64().unwrap() > 500_000, "{outcome}");
    assert!(!hold(college, 1) && hold(college, 2) && hold(college, 3));
    assert_eq!(fs::read_dir(college.node_root().join("partials")).map_or(0, Iterator::count), 0);
}

#[test]
fn nothing_goes_while_what_is_owed_is_not_all_here() {
    let mut world = World::new().college("57001").start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    // The catalogue comes, and the bundle does not.
    let bundles = world.path("repository/public/bundles");
    fs::rename(&bundles, world.path("away")).unwrap();
    let college = world.college("57001");
    assert_ne!(college.node(["sync"]).code, Some(0));
    college.node(["--keep-unassigned", "0 s", "gc"]).fails(1, "is not all here yet");
    fs::rename(world.path("away"), &bundles).unwrap();
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    college.node(["--keep-unassigned", "0 s", "gc"]).succeeds();
    college.node(["fsck"]).succeeds();
}
