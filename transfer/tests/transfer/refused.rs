//! Answers that are refused, what stays as it was, and how little it takes to get well again.

use std::sync::Arc;

use mirabelle_manifests::tuf::{RoleName, sign};

use crate::origin::{Answer, Client, Origin, Twist, bare, change, delegate, metadata, word};
use crate::repository::{NOW, Repository, time};

async fn refreshed() -> (Origin, Repository, Client) {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    for _ in 0..4 {
        change(&mut repository);
    }
    origin.publish(&mut repository);
    client.refresh(&origin).await.unwrap();
    origin.behave();
    (origin, repository, client)
}

/// CVE-2025-2888: a timestamp that is refused for what it names is not kept, or the client would be stuck with it.
#[tokio::test]
async fn a_timestamp_that_is_refused_is_not_kept() {
    let (origin, mut repository, client) = refreshed().await;
    let before = client.files();
    repository.next().snapshot.version = 2;
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "snapshot rollback");
    assert_eq!(client.files(), before);
    repository.timestamp.expires = time(NOW);
    repository.snapshot.version = 9;
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "timestamp expired");
    assert_eq!(client.files(), before);
    // What was refused left no floor: the very version that was refused is taken once it is right.
    repository.timestamp.expires = time("2027-01-01T00:00:00Z");
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "done");
}

/// TUF 1.0.34, 5.4.3: an equal timestamp is passed over, whatever it says, and nothing is asked for.
#[tokio::test]
async fn an_equal_timestamp_is_passed_over() {
    let (origin, mut repository, client) = refreshed().await;
    let before = client.files();
    repository.snapshot.version += 1;
    repository.targets.version += 1;
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "done");
    assert_eq!(origin.requests(), ["metadata/2.root.json", "metadata/timestamp.json"]);
    assert_eq!(client.files(), before);
}

/// Every file in turn: cut in the middle, empty, endless, not there, a server in trouble.
#[tokio::test]
async fn a_bad_answer_changes_nothing_and_the_next_refresh_is_well() {
    let bad: [(&str, Twist); 6] = [
        ("broke off", Answer::Truncated),
        ("not found", |_| Answer::Status(404)),
        ("status 403", |_| Answer::Status(403)),
        ("status 500", |_| Answer::Status(500)),
        ("refused", |_| Answer::File(Vec::new())),
        ("refused", |bytes| Answer::File([bytes, vec![b' '; 6_000_000]].concat())),
    ];
    for role in [RoleName::timestamp(), RoleName::snapshot(), RoleName::targets(), RoleName::new("a")] {
        for (expected, answer) in bad {
            let (origin, mut repository) = (Origin::start().await, Repository::new());
            delegate(&mut repository, "a");
            let client = Client::trusting(&mut repository);
            origin.publish(&mut repository);
            let path = metadata(&role, (role != RoleName::timestamp()).then_some(1));
            let meddled = path.clone();
            origin.meddle(move |_, path, honest| match honest {
                Answer::File(bytes) if path == meddled => answer(bytes),
                honest => honest,
            });
            let all = async |origin: &Origin| {
                let mut session = client.session(origin).await?;
                session.delegated(&RoleName::new("a"), &RoleName::targets(), &RoleName::root()).await
            };
            let result = word(all(&origin).await);
            let refused = ["too long", &format!("{role} mismatch"), &format!("{role} malformed")];
            match expected {
                "refused" => assert!(refused.contains(&result.as_str()), "{path}: {result}"),
                expected => assert_eq!(result, expected, "{path}"),
            }
            assert!(!client.file(&format!("{role}.json")).exists(), "{path}: {result}");
            origin.behave();
            assert_eq!(word(all(&origin).await), "done", "{path}");
        }
    }
}

/// A server whose encodings are broken, or of another file, is asked for the plain one.
#[tokio::test]
async fn a_broken_encoding_is_asked_for_again_plain() {
    type Encode = fn(&[u8]) -> Vec<u8>;
    let broken: [(&str, &str, Encode); 6] = [
        ("done", "zstd", |_| b"garbage".to_vec()),
        ("done", "dcz", |_| b"garbage".to_vec()),
        ("done", "dcz", |_| [&[0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0][..], &[0; 64]].concat()),
        ("done", "zstd", |_| Vec::new()),
        // In order as an encoding, and of another file.
        ("done", "zstd", |bytes| zstd::encode_all(&bytes[1..], 3).unwrap()),
        // An encoding that nobody asked for is no encoding: the bytes are not those that were signed for.
        ("targets mismatch", "br", |bytes| bytes[1..].to_vec()),
    ];
    for (expected, token, encode) in broken {
        let (origin, mut repository, client) = refreshed().await;
        change(&mut repository);
        origin.publish(&mut repository);
        let path = metadata(&RoleName::targets(), Some(repository.targets.version));
        let meddled = path.clone();
        let mut asked = 0;
        origin.meddle(move |_, path, honest| match honest {
            Answer::File(bytes) if path == meddled => {
                asked += 1;
                if asked == 1 { Answer::Encoded(token, encode(&bytes)) } else { Answer::File(bytes) }
            }
            honest => honest,
        });
        assert_eq!(word(client.refresh(&origin).await), expected, "{token}");
        let asked = origin.requests().iter().filter(|asked| **asked == path).count();
        assert_eq!(asked, if expected == "done" { 2 } else { 1 }, "{token}");
    }
}

/// A server that encodes wrongly whatever it is asked is given up after the second answer.
#[tokio::test]
async fn a_server_that_can_only_encode_wrongly_is_given_up() {
    let (origin, mut repository, client) = refreshed().await;
    change(&mut repository);
    origin.publish(&mut repository);
    origin.meddle(|_, path, honest| match honest {
        Answer::File(bytes) if path.ends_with("targets.json") => Answer::Encoded("zstd", bytes),
        honest => honest,
    });
    assert_eq!(word(client.refresh(&origin).await), "undecodable");
    assert_eq!(origin.requests().len(), 5);
}

/// The next version appears between any two requests; the old files are still there, as consistent snapshots promise, or
/// are gone already.
#[tokio::test]
async fn a_publication_in_the_middle_of_a_refresh_does_no_harm() {
    for swept in [false, true] {
        for moment in 1..=4 {
            let (origin, mut repository, client) = refreshed().await;
            change(&mut repository);
            origin.publish(&mut repository);
            let (old, newest) = (repository.timestamp.version, repository.timestamp.version + 1);
            let origin = Arc::new(origin);
            let publishing = origin.clone();
            let mut published = false;
            origin.meddle(move |number, _, honest| {
                // Before the answer to the next request, which was decided already.
                if number == moment && !published {
                    published = true;
                    change(&mut repository);
                    publishing.publish(&mut repository);
                    if swept {
                        for role in [RoleName::snapshot(), RoleName::targets()] {
                            publishing.remove(&metadata(&role, Some(old)));
                        }
                    }
                }
                honest
            });
            let result = client.refresh(&origin).await.map(|trusted| trusted.timestamp().unwrap().version);
            match (swept, moment) {
                // After the first request, which is for a root, nothing else was asked yet.
                (_, 1) => assert_eq!(result.unwrap(), newest),
                // All that was needed is still there, or was there by then.
                (false, _) | (true, 4) => assert_eq!(result.unwrap(), old),
                (true, _) => assert_eq!(word(result), "not found"),
            }
            origin.behave();
            let trusted = client.refresh(&origin).await.unwrap();
            assert_eq!(trusted.timestamp().unwrap().version, newest, "{swept} {moment}");
            assert_eq!(trusted.targets().unwrap().version, newest, "{swept} {moment}");
        }
    }
}

/// TUF 1.0.34, 6.2: without consistent snapshots, files other than roots are asked for without their version; a
/// publication in between is then noticed, and the next refresh is well.
#[tokio::test]
async fn without_consistent_snapshots_nothing_is_mixed() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    repository.root.consistent_snapshot = false;
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "done");
    let order = [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/snapshot.json",
        "metadata/targets.json",
    ];
    assert_eq!(origin.requests(), order);

    change(&mut repository);
    origin.publish(&mut repository);
    let origin = Arc::new(origin);
    let publishing = origin.clone();
    origin.meddle(move |number, _, honest| {
        if number == 2 {
            change(&mut repository);
            publishing.publish(&mut repository);
        }
        honest
    });
    assert_eq!(word(client.refresh(&origin).await), "snapshot mismatch");
    origin.behave();
    assert_eq!(client.refresh(&origin).await.unwrap().targets().unwrap().version, 3);
}

/// What the role above says by version alone is bounded all the same (CVE-2020-6173).
#[tokio::test]
async fn a_file_of_unstated_length_is_bounded() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    repository.timestamp.meta.insert("snapshot.json".to_owned(), bare(1));
    let timestamp = sign(&repository.timestamp, &[repository.key("timestamp")]).unwrap();
    origin.put("metadata/timestamp.json", &timestamp);
    origin.put("metadata/1.snapshot.json", &vec![b' '; 5_000_001]);
    assert_eq!(word(client.refresh(&origin).await), "too long");
}

/// CVE-2021-41131, CVE-2021-41150: role names that are paths, or that a file system takes for another file.
#[tokio::test]
async fn a_role_name_never_leads_to_another_file() {
    let long = "x".repeat(400);
    let names = [
        "../../x",
        "/etc/x",
        "a/b",
        "..",
        ".",
        "C:\\x",
        "?",
        "#",
        "%2e",
        "é",
        "root.json",
        "roots",
        "lock",
        "NUL",
        "con",
        "ROOT",
        "Timestamp",
        "timestamp ",
        "a",
        "A",
        "",
        &long,
    ];
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    for name in names {
        delegate(&mut repository, name);
    }
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    let mut session = client.session(&origin).await.unwrap();
    for name in names {
        let loaded = session.delegated(&RoleName::new(name), &RoleName::targets(), &RoleName::root()).await;
        assert_eq!(word(loaded), "done", "{name:?}");
        assert_eq!(
            client.store().read(&RoleName::new(name)).unwrap().unwrap(),
            sign(&repository.delegated[name].0, &[&repository.delegated[name].1]).unwrap()
        );
    }
    let files = client.files();
    // Four top-level roles, the kept root, and one file for each role, none of which is below the store.
    assert_eq!(files.len(), 5 + names.len(), "{:?}", files.keys());
    assert!(files.keys().filter(|name| !name.starts_with("roots/")).all(|name| !name.contains('/')));
    let folded: std::collections::BTreeSet<String> = files.keys().map(|name| name.to_lowercase()).collect();
    assert_eq!(folded.len(), files.len(), "two of them are one file where case does not count");
    assert!(files.keys().all(|name| !crate::downloads::is_device(name)), "{:?}", files.keys());
    drop(session);
    assert_eq!(word(client.refresh(&origin).await), "done");
}
