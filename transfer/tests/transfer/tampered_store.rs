//! sigstore-rust#171, #179: whoever can write to the store can stop a client, but not make it trust anything.
//!
//! `root.json` is the anchor: it was put there by whoever enrolled the machine. One that is not signed by its own keys
//! stops the client; a server must not be able to replace it. Every other file is verified again when it is read, and
//! fetched again when it is wrong.

use std::collections::BTreeMap;

use mirabelle_manifests::tuf::{RoleName, TrustedMetadata};
use mirabelle_transfer::TufClient;

use crate::origin::{Client, Origin, delegate, word};
use crate::repository::{NOW, Repository, time};

/// What somebody may put in a file's place.
fn changes(honest: &[u8], thief: &[u8]) -> Vec<Vec<u8>> {
    let mut altered = honest.to_vec();
    let digit = altered.iter().rposition(|byte| (b'0'..=b'8').contains(byte)).unwrap();
    altered[digit] += 1;
    vec![
        Vec::new(),
        b"{}".to_vec(),
        honest[..honest.len() / 2].to_vec(),
        altered,
        thief.to_vec(),
        vec![0xff; 4096],
    ]
}

struct Tampered {
    origin: Origin,
    client: Client,
    honest: BTreeMap<String, Vec<u8>>,
    /// The same files of another repository, valid by its own keys.
    thief: BTreeMap<String, Vec<u8>>,
}

async fn world() -> Tampered {
    let mut files = Vec::new();
    let mut last = None;
    for _ in 0..2 {
        let (origin, mut repository) = (Origin::start().await, Repository::new());
        delegate(&mut repository, "a");
        let client = Client::trusting(&mut repository);
        origin.publish(&mut repository);
        let mut session = client.session(&origin).await.unwrap();
        session.delegated(&RoleName::new("a"), &RoleName::targets(), &RoleName::root()).await.unwrap();
        drop(session);
        files.push(client.files());
        last = Some((origin, client));
    }
    let ((origin, client), honest, thief) = (last.unwrap(), files.pop().unwrap(), files.pop().unwrap());
    Tampered { origin, client, honest, thief }
}

#[tokio::test]
async fn a_file_below_the_root_is_fetched_again() {
    let Tampered { origin, client, honest, thief } = world().await;
    for name in ["timestamp.json", "snapshot.json", "targets.json", "a.json", "roots/1.root.json"] {
        for change in changes(&honest[name], &thief[name]) {
            let mut files = honest.clone();
            files.insert(name.to_owned(), change.clone());
            client.hold(&files);
            let kept = TufClient::kept(client.store(), time(NOW)).await;
            let top_level = !["a.json", "roots/1.root.json"].contains(&name);
            assert_eq!(kept.is_err(), top_level, "{name}");
            let mut session = client.session(&origin).await.unwrap();
            session.delegated(&RoleName::new("a"), &RoleName::targets(), &RoleName::root()).await.unwrap();
            drop(session);
            assert_eq!(client.files(), honest, "{name}");
        }
        let mut files = honest.clone();
        files.remove(name);
        client.hold(&files);
        assert_eq!(word(client.refresh(&origin).await), "done", "{name}");
    }
}

#[tokio::test]
async fn a_changed_anchor_stops_the_client_and_nobody_replaces_it() {
    let Tampered { origin, client, honest, thief } = world().await;
    for change in changes(&honest["root.json"], &thief["root.json"]) {
        let mut files = honest.clone();
        files.insert("root.json".to_owned(), change.clone());
        client.hold(&files);
        let result = word(client.refresh(&origin).await);
        // Another repository's root is a root: then it is this repository's files that are not trusted.
        let expected = if change == thief["root.json"] { "timestamp signatures" } else { "own root" };
        assert_eq!(result, expected);
        assert!(TufClient::kept(client.store(), time(NOW)).await.is_err());
        assert_eq!(client.files()["root.json"], change, "it is as it was found");
        // Enrolling again does not pass over it either: a root that is there stays.
        client.store().trust(&honest["root.json"]).unwrap();
        assert_eq!(client.files()["root.json"], change);
    }
    let mut files = honest.clone();
    files.remove("root.json");
    client.hold(&files);
    assert_eq!(word(client.refresh(&origin).await), "no root");
    assert!(!client.file("root.json").exists());
}

/// A genuine file of an earlier day is a floor that lies lower, never a reason to trust what is older than it.
#[tokio::test]
async fn an_older_store_is_brought_up_to_date() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    client.refresh(&origin).await.unwrap();
    let old = client.files();
    crate::origin::change(&mut repository);
    origin.publish(&mut repository);
    client.refresh(&origin).await.unwrap();
    let new = client.files();
    for name in ["timestamp.json", "snapshot.json", "targets.json"] {
        let mut files = new.clone();
        files.insert(name.to_owned(), old[name].clone());
        client.hold(&files);
        let trusted: TrustedMetadata = client.refresh(&origin).await.unwrap();
        assert_eq!(trusted.targets().unwrap().version, 2, "{name}");
        assert_eq!(client.files(), new, "{name}");
    }
}
