//! The incident: the machine is switched off in the middle of something, and on again in the morning, with no index, half of one, or
//! one that says nonsense.
//!
//! The promise: whoever had what goes on with it by itself. Nothing that arrived is asked for again, nothing half is served, and the
//! index is rebuilt from what lies there (10).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::Digest;
use mirabelle_tests::{App, Wan, World, get, mbit};

use super::{LONGEST, app, copy, for_every_change, nodes, until};
use crate::agents::eventually;

/// Metadata, headers, and what was in the buffers of both ends at each cut.
const OVERHEAD: u64 = 400_000;

fn large(name: &str, seed: u64) -> App {
    App::new(name, 1).noise("data", 4_000_000, seed)
}

/// Waits until so much has come over a link.
#[track_caller]
fn until_received(wan: &Wan, bytes: u64) {
    assert!(eventually(LONGEST, || wan.down() >= bytes), "only {} of {bytes} bytes came", wan.down());
}

#[test]
fn in_the_middle_of_a_mirror() {
    let mut world = World::new().college("57001").wan(mbit(40)).workstations(1).start();
    world.release(&large("large", 1));
    let college = world.college("57001");
    for kills in 1..=3 {
        college.start_node();
        until_received(college.wan(), kills * 1_000_000);
        college.kill_node();
        assert!(
            !college.node_root().join("served/metadata/timestamp.json").exists(),
            "nothing is complete yet"
        );
    }
    college.start_node();
    until(college.running_node().unwrap(), "the mirror", |said| said["complete_since"].is_string());
    let received = college.wan().down();
    assert!(received < 4_000_000 + 3 * OVERHEAD, "{received}");
    college.node(["fsck"]).succeeds();
    college.workstation(0).run(["install", "large"]).succeeds();
}

#[test]
fn in_the_middle_of_what_somebody_waits_for() {
    let mut world = World::new().college("57001").wan(mbit(40)).start();
    world.release(&App::new("base", 1));
    let asked = large("asked-for", 3);
    let content = asked.content("data");
    world.submit(&asked);
    world.approve(&asked);
    world.publish();
    let college = world.college("57001");
    college.sync();
    let release = college.approved("asked-for");
    let path = format!("objects/{}", Digest::of(&content).fanned_out());
    let address = college.running_node().unwrap().address().to_owned();
    get(&address, &release.path, "");
    let before = college.wan().down();
    let mut waiting =
        TcpStream::connect(address.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    write!(waiting, "GET /{path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    until_received(college.wan(), before + 2_000_000);
    college.kill_node();
    let mut got = Vec::new();
    let _ = waiting.read_to_end(&mut got);
    assert!(got.len() < content.len(), "it was cut, and so is the answer");
    let object = college.node_root().join(&path);
    assert!(!object.exists(), "half of it is no object");
    college.start_node();
    let node = college.running_node().unwrap().address().to_owned();
    assert!(get(&node, &path, "").body == content);
    let received = college.wan().down() - before;
    assert!(received < 4_000_000 + OVERHEAD, "{received}: what had come is not asked for again");
    assert!(eventually(LONGEST, || object.exists()));
    college.node(["fsck"]).succeeds();
}

#[test]
fn in_the_middle_of_an_import_from_a_stick() {
    let mut world = World::new().college("57001").start();
    let nodes = nodes(&mut world, "imports");
    let kept = nodes[0].root.with_file_name("kept");
    copy(&nodes[0].root, &kept);
    world.release(&app(1));
    let stick = world.path("stick");
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    college.node(["export".as_ref(), stick.as_os_str()]).succeeds();
    let import = ["import", stick.to_str().unwrap()];
    let changes = for_every_change(&nodes, |node, number| {
        // The first half one by one, then every third: those of a sync are visited elsewhere.
        let number = if number <= 20 { number } else { 20 + (number - 20) * 3 };
        node.put_back(&kept);
        let outcome = node.with_fault(&import, &format!("{number}:kill"));
        if outcome.code == Some(0) {
            return false;
        }
        let cell = format!("import, change {number}");
        node.whole(&cell);
        let again = node.run(&import);
        assert_eq!(again.code, Some(0), "{cell}: {}", again.stderr);
        assert!(node.whole(&cell).is_some(), "{cell}");
        assert_eq!(node.wan.down(), 0, "{cell}: nothing came over the link");
        true
    });
    println!("the machine went off at {changes} changes of an import");
    assert!(changes >= 20, "{changes}");
}

#[test]
fn in_the_middle_of_a_legacy_download() {
    let mut world = World::new().college("57001").start();
    let public = world.path("old");
    fs::create_dir_all(public.join("debian/pool")).unwrap();
    let content = large("old", 5).content("data");
    fs::write(public.join("debian/pool/old.deb"), &content).unwrap();
    let server = FileServer::start(&public);
    let wan = Wan::start(&server.0, Some(mbit(40)), Duration::ZERO);
    let college = world.college("57001");
    let config = college.node_root().join("node.toml");
    let known = fs::read_to_string(&config).unwrap();
    let declared = format!("[[legacy]]\nname = \"debian\"\nupstream = \"{}debian/\"\n", wan.address());
    fs::write(&config, format!("{known}\n{declared}")).unwrap();
    for kills in 1..=2 {
        college.start_node();
        let address = college.running_node().unwrap().address().to_owned();
        let mut asks =
            TcpStream::connect(address.trim_start_matches("http://").trim_end_matches('/')).unwrap();
        write!(asks, "GET /legacy/debian/pool/old.deb HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
            .unwrap();
        let before = wan.down();
        until_received(&wan, before + kills * 1_000_000);
        college.kill_node();
    }
    college.start_node();
    let address = college.running_node().unwrap().address().to_owned();
    // What the dead process was writing is gone, and nothing half is given.
    let left = fs::read_dir(college.node_root().join("legacy/incoming")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "half a file is left");
    assert!(get(&address, "legacy/debian/pool/old.deb", "").body == content);
    drop(server);
    assert!(get(&address, "legacy/debian/pool/old.deb", "").body == content, "it is here");
}

/// A plain web server of a directory, until the test ends.
struct FileServer(String);

impl FileServer {
    fn start(directory: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let directory = directory.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let directory = directory.clone();
                std::thread::spawn(move || {
                    let _ = answer(stream, &directory);
                });
            }
        });
        Self(address)
    }
}

fn answer(mut stream: TcpStream, directory: &Path) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let content = fs::read(directory.join(path.trim_start_matches('/'))).unwrap_or_default();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
    stream.write_all(&content)
}

/// What lies below the index's folder.
fn index_files(index: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(index).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { index_files(&path) } else { vec![path] }).collect()
}

#[test]
fn with_the_index_deleted_truncated_or_changed_while_it_was_off() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.sync();
    college.stop_node();
    let index = college.node_root().join("index");
    let rewrite = |change: &dyn Fn(&Path, Vec<u8>) -> Vec<u8>| {
        for path in index_files(&index) {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, change(&path, bytes)).unwrap();
        }
    };
    // With and without the mark of a stop in order: `clean` says that it may be believed.
    let but_the_mark =
        |path: &Path, bytes: Vec<u8>, changed: Vec<u8>| if path.ends_with("clean") { bytes } else { changed };
    let half = |path: &Path, bytes: Vec<u8>| {
        let changed = bytes[..bytes.len() / 2].to_vec();
        but_the_mark(path, bytes, changed)
    };
    let last_bytes = |path: &Path, bytes: Vec<u8>| {
        let changed = bytes[..bytes.len().saturating_sub(7)].to_vec();
        but_the_mark(path, bytes, changed)
    };
    let bits = |path: &Path, bytes: Vec<u8>| {
        let changed = bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 97 == 13)).collect();
        but_the_mark(path, bytes, changed)
    };
    let zeros = |path: &Path, bytes: Vec<u8>| {
        let changed = vec![0; bytes.len()];
        but_the_mark(path, bytes, changed)
    };
    let damage: [(&str, &dyn Fn()); 8] = [
        ("deleted", &|| fs::remove_dir_all(&index).unwrap()),
        ("deleted but for its mark", &|| {
            for path in index_files(&index).iter().filter(|path| !path.ends_with("clean")) {
                fs::remove_file(path).unwrap();
            }
        }),
        ("truncated to half", &|| rewrite(&half)),
        ("without its last bytes", &|| rewrite(&last_bytes)),
        ("with bits changed", &|| rewrite(&bits)),
        ("with zeros in it", &|| rewrite(&zeros)),
        ("a link to nowhere", &|| {
            fs::remove_dir_all(&index).unwrap();
            std::os::unix::fs::symlink("/nonexistent/index", &index).unwrap();
        }),
        ("of another node, which had more", &|| {
            // It says of a release that it is here, and it is not.
            fs::remove_dir_all(college_objects(&index)).unwrap();
            fs::create_dir(college_objects(&index)).unwrap();
            fs::write(index.parent().unwrap().join("doubt"), "").unwrap();
        }),
    ];
    for (name, damage) in damage {
        damage();
        let before = college.wan().down();
        let lost = name.starts_with("of another");
        college.start_node();
        let node = college.running_node().unwrap();
        let looked = get(node.address(), "status", "").body;
        let looked: serde_json::Value = serde_json::from_slice(&looked).unwrap();
        until(node, name, |said| {
            said["received_bytes"] != looked["received_bytes"] && said["last_failure"].is_null()
        });
        college.stop_node();
        college.node(["fsck"]).succeeds();
        let again = college.wan().down() - before;
        assert!(lost || again < 20_000, "{name}: {again} bytes are fetched again");
    }
    college.start_node();
    college.workstation(0).run(["install", "hello"]).succeeds();
}

fn college_objects(index: &Path) -> PathBuf {
    index.with_file_name("objects")
}

#[test]
fn a_node_that_is_off_and_on_again_serves_before_it_reaches_anybody() {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&app(1));
    let college = world.college("57001");
    college.sync();
    college.kill_node();
    college.wan().fail(mirabelle_tests::Fault::Down);
    college.start_node();
    college.workstation(0).run(["install", "hello"]).succeeds();
}
