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

/// One `GET`, as any HTTP client would send it; returns the answer's head and body.
fn get(server: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    use std::io::{Read, Write};
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end + 4..].to_vec())
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
        let (_, timestamp) = get(server, "metadata/timestamp.json", "");
        let timestamp: serde_json::Value = serde_json::from_slice(&timestamp).unwrap();
        timestamp["signed"]["meta"]["snapshot.json"]["version"].as_u64().unwrap()
    };
    let node = world.college("57001").running_node().unwrap().address().to_owned();
    for server in [world.origin().to_owned(), node] {
        // Four approvals, then a fifth: versions 5 and 6 of the catalogue, after the empty first.
        assert!(newest(&server) > 5);
        let (head, plain) = get(&server, "metadata/6.catalogue.json", "");
        assert!(
            !head.contains("content-encoding")
                && head.contains("vary: accept-encoding, available-dictionary"),
            "{head}"
        );
        let (_, held) = get(&server, "metadata/5.catalogue.json", "");
        let digest = mirabelle_manifests::Digest::of(&held);
        let field = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest.as_bytes());
        let asks = format!("Accept-Encoding: dcz, zstd\r\nAvailable-Dictionary: :{field}:\r\n");
        let (head, difference) = get(&server, "metadata/6.catalogue.json", &asks);
        assert!(head.contains("content-encoding: dcz"), "{head}");
        let (head, compressed) = get(&server, "metadata/6.catalogue.json", "Accept-Encoding: zstd\r\n");
        assert!(head.contains("content-encoding: zstd"), "{head}");
        assert!(difference.len() < compressed.len() && compressed.len() < plain.len());
        // zstd itself, with the old version as its prefix, reads what follows RFC 9842's header of 40 bytes.
        let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(&difference[40..], &held).unwrap();
        let mut decoded = Vec::new();
        std::io::Read::read_to_end(&mut decoder, &mut decoded).unwrap();
        assert_eq!(decoded, plain);
    }
}
