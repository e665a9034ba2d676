//! The incident: a disk that changes bits, silently; a cheap one of a school's server does, within a year.
//!
//! The promise: what is wrong is found, set aside, and fetched again without a hand, from whoever has it; while nobody has it, it is
//! served to nobody as whole; and what cannot be repaired stays in `quarantine/`.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::Digest;
use mirabelle_tests::{App, College, Fault, Running, World, get, try_get};

use super::{app, copy, nodes, until};

/// Flips a bit in the middle of a file, in place: its other names change with it, its times do not matter.
fn flip(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let Some(byte) = bytes.get(bytes.len() / 2) else { return };
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.file().write_all_at(&[byte ^ 1], bytes.len() as u64 / 2).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

fn stored(college: &College, content: &[u8]) -> PathBuf {
    let plain = college.node_root().join("objects").join(Digest::of(content).fanned_out());
    [plain.with_extension("zst"), plain].into_iter().find(|path| path.is_file()).unwrap()
}

fn object(content: &[u8]) -> String {
    format!("objects/{}", Digest::of(content).fanned_out())
}

fn quarantined(college: &College) -> BTreeSet<String> {
    let files = files_below(&college.node_root().join("quarantine"));
    files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// True when this is what the server gives for these bytes, whole.
fn gives(node: &Running, content: &[u8]) -> bool {
    try_get(node.address(), &object(content), "")
        .is_ok_and(|answer| answer.status() == 200 && answer.body == content)
}

/// Any file of the node's own, one after the other; what people wrote, and its key, nobody can fetch again.
#[test]
fn a_bit_may_flip_in_any_file_while_the_node_is_off() {
    let mut world = World::new().deltas().college("57001").start();
    world.release(&app(1));
    world.college("57001").node(["sync"]).succeeds();
    world.release(&app(2));
    world.college("57001").node(["sync"]).succeeds();
    let nodes = nodes(&mut world, "flipped");
    let kept = world.path("flipped/kept");
    copy(&nodes[0].root, &kept);
    // What it serves now. What it served before stays for whoever is half-way through a refresh, who refuses it.
    let current = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let version = |name: &str| name.split_once('.').and_then(|(version, _)| version.parse::<u64>().ok());
        let role = name.split_once('.').map_or("", |(_, role)| role).to_owned();
        let same = files_below(&kept.join(path.parent().unwrap()));
        let same = same.iter().filter_map(|other| other.file_name()?.to_str());
        let newest = same.filter(|other| other.ends_with(&role)).filter_map(version).max();
        path.starts_with("served/metadata") && version(&name).is_none_or(|own| Some(own) == newest)
    };
    let by_people = ["node.toml", "identity.key"];
    let files: Vec<PathBuf> = files_below(&kept)
        .into_iter()
        .map(|path| path.strip_prefix(&kept).unwrap().to_owned())
        .filter(|path| !by_people.iter().any(|name| path.ends_with(name)))
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for node in &nodes {
            threads.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    node.put_back(&kept);
                    flip(&node.root.join(path));
                    // As the scrub would, in the course of the week.
                    node.run(&["fsck", "--repair"]);
                    let synced = node.run(&["sync"]);
                    assert_eq!(synced.code, Some(0), "{}: {}", path.display(), synced.stderr);
                    let checked = node.run(&["fsck"]);
                    assert_eq!(checked.code, Some(0), "{}: {}", path.display(), checked.stderr);
                    if current(path) {
                        let (mended, right) = (fs::read(node.root.join(path)), fs::read(kept.join(path)));
                        assert!(mended.unwrap() == right.unwrap(), "{} is served wrong", path.display());
                    }
                }
            });
        }
    });
    println!("a bit flipped in each of {} files", files.len());
    assert!(files.len() > 40, "{files:?}");
}

fn texts(number: u64) -> App {
    let text =
        |seed: u64| (0..3_000).fold(String::new(), |text, line| text + &format!("{} {line}\n", line * seed));
    App::new("hello", number)
        .noise("media", 200_000, 7)
        .noise("more", 90_000, 8)
        .file("text", text(3 + number))
}

#[test]
fn what_flips_while_it_is_served_is_found_set_aside_and_fetched_again() {
    let mut world = World::new().deltas().college("57001").workstations(3).start();
    world.release(&texts(1));
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    world.release(&texts(2));
    let college = world.college("57001");
    college.options(["--scrub-every", "1 s"]);
    college.sync();
    let node = college.running_node().unwrap();
    until(node, "the first look upstream", |said| said["refreshed"].is_string() && said["plan"][0].is_null());
    let app = texts(2);
    let plain = stored(college, &app.content("media"));
    let compressed = stored(college, &app.content("text"));
    assert!(compressed.extension().is_some() && plain.extension().is_none());
    let manifest = college.node_root().join("served").join(college.approved("hello").path);
    let deltas = files_below(&college.node_root().join("served/deltas"));
    assert!(!deltas.is_empty(), "there is a delta to flip a bit in");
    for path in [&plain, &compressed, &manifest, &deltas[0]] {
        flip(path);
    }
    for file in ["state.json", "plan.json", "retired.json", "scrub.json", "alarms.json", "upstreams.json"] {
        let path = college.node_root().join(file);
        if path.exists() {
            flip(&path);
        }
    }
    let stays = || gives(node, &app.content("media")) && gives(node, &app.content("text"));
    until(node, "the objects", |_| {
        let found = quarantined(college);
        found.len() >= 3 && plain.exists() && compressed.exists() && manifest.exists() && stays()
    });
    let found = quarantined(college);
    assert!(found.iter().any(|name| name.contains("deltas")), "{found:?}");
    // By delta, from which nothing is left, and from nothing.
    college.workstation(0).run(["update"]).succeeds();
    college.workstation(1).run(["install", "hello"]).succeeds();
    for number in [0, 1] {
        college.workstation(number).run(["verify"]).succeeds();
    }
    college.node(["fsck"]).succeeds();
}

#[test]
fn what_is_served_beside_objects_is_put_right_at_the_next_look() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&texts(1));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let served = college.node_root().join("served");
    let files: Vec<PathBuf> = ["metadata", "targets", "routes"]
        .into_iter()
        .flat_map(|folder| files_below(&served.join(folder)))
        .filter(|path| !path.ends_with("timestamp.json"))
        .collect();
    for path in &files {
        flip(path);
    }
    // The link is down: nothing false counts as whole.
    college.wan().fail(Fault::Down);
    college.start_node();
    let outcome = college.workstation(0).run(["install", "hello"]);
    assert_ne!(outcome.code, Some(0), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    college.stop_node();
    college.wan().fail(Fault::None);
    college.start_node();
    let workstation = college.workstation(0);
    until(college.running_node().unwrap(), "what is whole", |_| {
        workstation.run(["install", "hello"]).code == Some(0)
    });
    college.node(["fsck"]).succeeds();
}

#[test]
fn what_nobody_has_whole_stays_set_aside_until_somebody_has_it() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&texts(1));
    let media = texts(1).content("media");
    let college = world.college("57001");
    college.options(["--scrub-every", "1 s"]);
    college.sync();
    let here = stored(college, &media);
    // The same bits at the origin: everything that content comes from.
    let public = world.path("repository/public");
    let content: Vec<PathBuf> = ["bundles", "deltas", "objects"]
        .into_iter()
        .flat_map(|folder| files_below(&public.join(folder)))
        .collect();
    let away = world.path("away");
    copy(&public, &away);
    for path in &content {
        let whole = fs::read(path).unwrap();
        // Every frame of it.
        let wrong: Vec<u8> =
            whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 1000 == 500)).collect();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(path, wrong).unwrap();
    }
    let college = world.college("57001");
    flip(&here);
    let node = college.running_node().unwrap();
    until(node, "a failed repair", |said| {
        !here.exists() && said["last_failure"].as_str().is_some_and(|failure| failure.contains("hello 1.0"))
    });
    assert!(quarantined(college).contains(&Digest::of(&media).to_string()), "{:?}", quarantined(college));
    // Whoever asks gets nothing rather than something else.
    if let Ok(answer) = try_get(node.address(), &object(&media), "") {
        assert_ne!(answer.status(), 200, "{}", answer.head);
    }
    assert_ne!(college.workstation(0).run(["install", "hello"]).code, Some(0));
    assert_eq!(get(node.address(), "metadata/timestamp.json", "").status(), 200, "the rest is served");
    for path in &content {
        fs::copy(away.join(path.strip_prefix(&public).unwrap()), path).unwrap();
    }
    let workstation = world.college("57001").workstation(0);
    assert!(
        crate::agents::eventually(super::LONGEST, || workstation.run(["install", "hello"]).code == Some(0))
    );
    let college = world.college("57001");
    until(college.running_node().unwrap(), "the repair", |_| here.exists());
    college.node(["fsck"]).succeeds();
}

#[test]
fn a_partial_download_that_the_disk_changed_is_begun_again() {
    let mut world = World::new().college("57001").wan(mirabelle_tests::mbit(40)).start();
    world.release(&App::new("large", 1).noise("data", 4_000_000, 7));
    let college = world.college("57001");
    let partials = college.node_root().join("partials");
    while college.sync_and_kill(std::time::Duration::from_millis(500)) {
        let begun: Vec<PathBuf> = files_below(&partials)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "part"))
            .collect();
        if begun.iter().any(|path| fs::metadata(path).unwrap().len() > 500_000) {
            for path in &begun {
                flip(path);
            }
            break;
        }
    }
    let outcome = college.node(["sync"]);
    if outcome.code != Some(0) {
        // It noticed at the end of it, and begins again by itself.
        college.node(["sync"]).succeeds();
    }
    college.node(["fsck"]).succeeds();
}
