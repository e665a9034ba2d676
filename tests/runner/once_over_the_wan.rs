//! Promise 5, as far as it holds: however many workstations ask, an object crosses the WAN once; what was received
//! before a cut is not asked for again.

use std::time::Duration;

use mirabelle_tests::{Answer, App, Fault, World, get, mbit, try_get};

const MEGABYTES: u64 = 12;

fn large(number: u64) -> App {
    App::new("large", number).noise("data", usize::try_from(MEGABYTES).unwrap() * 1_000_000, 7)
}

/// Metadata, headers, the script: what a mirrored release costs beside its content.
const OVERHEAD: u64 = 60_000;

#[test]
fn two_workstations_cost_the_wan_nothing() {
    let mut world = World::new().deltas().college("57001").workstations(2).start();
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

/// RFC 9842, from the origin and from a node; whoever does not ask for it gets plain files.
#[test]
fn metadata_travels_as_a_difference_from_what_is_held() {
    let mut world = World::new().college("57001").start();
    for number in 1..=4 {
        world.release(&App::new(&format!("app-{number}"), 1));
    }
    world.college("57001").sync();
    world.release(&App::new("app-1", 2));
    world.college("57001").sync();
    let newest = |server: &str| {
        let Answer { body: timestamp, .. } = get(server, "metadata/timestamp.json", "");
        let timestamp: serde_json::Value = serde_json::from_slice(&timestamp).unwrap();
        timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap()
    };
    let node = world.college("57001").running_node().unwrap().address().to_owned();
    for server in [world.origin().to_owned(), node] {
        // Four approvals, then a fifth: versions 5 and 6 of the catalogue, after the empty first.
        assert!(newest(&server) > 5);
        let Answer { head, body: plain } = get(&server, "metadata/6.catalogue.json", "");
        assert!(
            !head.contains("content-encoding")
                && head.contains("vary: accept-encoding, available-dictionary"),
            "{head}"
        );
        let Answer { body: held, .. } = get(&server, "metadata/5.catalogue.json", "");
        let digest = mirabelle_manifests::Digest::of(&held);
        let field = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest.as_bytes());
        let asks = format!("Accept-Encoding: dcz, zstd\r\nAvailable-Dictionary: :{field}:\r\n");
        let Answer { head, body: difference } = get(&server, "metadata/6.catalogue.json", &asks);
        assert!(head.contains("content-encoding: dcz"), "{head}");
        let Answer { head, body: compressed } =
            get(&server, "metadata/6.catalogue.json", "Accept-Encoding: zstd\r\n");
        assert!(head.contains("content-encoding: zstd"), "{head}");
        assert!(difference.len() < compressed.len() && compressed.len() < plain.len());
        // zstd itself, with the old version as its prefix, reads what follows RFC 9842's header of 40 bytes.
        let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(&difference[40..], &held).unwrap();
        let mut decoded = Vec::new();
        std::io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
        assert_eq!(decoded, plain);
    }
}

/// A release that is approved and not assigned here: nothing of it is at the node until somebody asks.
#[test]
fn what_is_asked_for_and_not_here_crosses_the_link_once_and_is_read_while_it_arrives() {
    const ASKERS: usize = 16;
    let mut world = World::new().college("57001").wan(mbit(80)).start();
    world.release(&App::new("base", 1));
    let app = App::new("asked-for", 1)
        .noise("large", 12_000_000, 3)
        .file("lib/one", "small\n".repeat(1000))
        .file("lib/two", "small too\n".repeat(1000));
    let large = app.content("large");
    world.submit(&app);
    world.approve(&app);
    world.publish();
    let college = world.college("57001");
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    let before = college.wan().down();
    let object = |bytes: &[u8]| format!("objects/{}", mirabelle_manifests::Digest::of(bytes).fanned_out());

    // Nobody may have what no manifest that is here names.
    assert_eq!(get(&node, &object(&large), "").status(), 404);
    let release = college.approved("asked-for");
    let routes = get(&node, &format!("routes/{}.json", release.digest), "");
    let routes: serde_json::Value = serde_json::from_slice(&routes.body).unwrap();
    assert_eq!(routes["objects"], true, "{routes}");
    let manifest = get(&node, &release.path, "");
    assert_eq!(mirabelle_manifests::Digest::of(&manifest.body).to_string(), release.digest);
    assert_eq!(get(&node, &release.path.replace("asked-for", "other"), "").status(), 404);

    // One goes away at once; the others get it all, late or from the middle on.
    let path = object(&large);
    let host = node.trim_start_matches("http://").trim_end_matches('/');
    let mut gone = std::net::TcpStream::connect(host).unwrap();
    std::io::Write::write_all(&mut gone, format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    std::io::Read::read_exact(&mut gone, &mut [0; 100]).unwrap();
    drop(gone);
    std::thread::scope(|threads| {
        for number in 0..ASKERS {
            let (node, path, large) = (&node, &path, &large);
            threads.spawn(move || {
                if number % 2 == 0 {
                    assert!(get(node, path, "").body == *large);
                } else {
                    let answer = get(node, path, "Range: bytes=5000000-\r\n");
                    assert_eq!(answer.status(), 206, "{}", answer.head);
                    assert!(answer.body == large[5_000_000..]);
                }
            });
        }
        for content in ["small\n".repeat(1000), "small too\n".repeat(1000)] {
            let (node, path) = (&node, object(content.as_bytes()));
            threads.spawn(move || assert_eq!(get(node, &path, "").body, content.as_bytes()));
        }
    });
    let received = college.wan().down() - before;
    assert!((12_000_000..12_000_000 + OVERHEAD).contains(&received), "{received}");
    // It is here now.
    college.wan().fail(Fault::Down);
    assert!(get(&node, &path, "").body == large);
    let digest = mirabelle_manifests::Digest::of(&large).fanned_out();
    assert!(college.node_root().join("objects").join(digest).is_file());
}

#[test]
fn an_upstream_that_fails_in_the_middle_is_passed_over_and_nothing_comes_twice() {
    let mut world = World::new().college("57001").wan(mbit(40)).college("57002").start();
    world.release(&App::new("base", 1));
    let app = App::new("asked-for", 1).noise("large", 8_000_000, 3);
    let large = app.content("large");
    world.submit(&app);
    world.approve(&app);
    world.publish();
    let second = world.college("57002").wan().address();
    let college = world.college("57001");
    college.options(["--upstream".to_owned(), college.wan().address(), "--upstream".to_owned(), second]);
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    let release = college.approved("asked-for");
    get(&node, &release.path, "");
    let path = format!("objects/{}", mirabelle_manifests::Digest::of(&large).fanned_out());
    let before = college.wan().down();
    let body = std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            let answer = get(&node, &path, "");
            assert_eq!(answer.status(), 200, "{} {}", answer.head, String::from_utf8_lossy(&answer.body));
            answer.body
        });
        while college.wan().down() - before < 3_000_000 && !asking.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        college.wan().fail(Fault::Down);
        asking.join().unwrap()
    });
    assert!(body == large);
    let first = college.wan().down() - before;
    let second = world.college("57002").wan().down();
    let both = first + second;
    assert!(both < 8_000_000 * 106 / 100, "{first} and {second}");
    assert!(second < 6_000_000, "{second}");
}

#[test]
fn an_object_that_turns_out_wrong_is_never_whole_for_anybody() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("base", 1));
    let app = App::new("asked-for", 1).noise("large", 6_000_000, 3);
    let large = app.content("large");
    world.submit(&app);
    world.approve(&app);
    world.publish();
    for bundle in fs_err::read_dir(world.path("repository/public/bundles")).unwrap() {
        let path = bundle.unwrap().path();
        let mut bytes = fs_err::read(&path).unwrap();
        if bytes.len() > 5_000_000 {
            let last = bytes.len() - 100_000;
            bytes[last] ^= 1;
            fs_err::write(&path, bytes).unwrap();
        }
    }
    let college = world.college("57001");
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    let release = college.approved("asked-for");
    get(&node, &release.path, "");
    let path = format!("objects/{}", mirabelle_manifests::Digest::of(&large).fanned_out());
    for _ in 0..2 {
        if let Ok(answer) = try_get(&node, &path, "") {
            assert_eq!(answer.status(), 503, "{}", answer.head);
        }
    }
    let digest = mirabelle_manifests::Digest::of(&large).fanned_out();
    assert!(!college.node_root().join("objects").join(digest).exists());
}
