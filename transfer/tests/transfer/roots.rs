//! Chains of roots: long ones, refused ones, and servers that say something else than "there is none".

use mirabelle_keys::SigningKey;
use mirabelle_manifests::tuf::{RoleKeys, RoleName, attach, sign};

use crate::origin::{Answer, Client, Origin, metadata, word};
use crate::repository::Repository;

/// Publishes roots 2 to `last`, all signed by the one root key.
fn chain(origin: &Origin, repository: &mut Repository, last: u64) {
    for version in 2..=last {
        repository.root.version = version;
        origin.publish(repository);
    }
}

fn root_path(version: u64) -> String {
    metadata(&RoleName::root(), Some(version))
}

#[tokio::test]
async fn a_chain_of_forty_roots_is_followed_in_one_refresh() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    chain(&origin, &mut repository, 40);
    assert_eq!(client.refresh(&origin).await.unwrap().root().version, 40);
    let expected: Vec<String> = (2..=41).map(root_path).collect();
    assert_eq!(origin.requests()[..40], expected);
}

/// Each session ends; what it verified is kept, and the next goes on from there.
#[tokio::test]
async fn a_chain_of_three_hundred_roots_takes_two_refreshes() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    chain(&origin, &mut repository, 300);
    assert_eq!(client.refresh(&origin).await.unwrap().root().version, 257);
    assert_eq!(client.refresh(&origin).await.unwrap().root().version, 300);
}

/// Even when the last root that the first session reaches has expired: what is at the end of the chain decides.
#[tokio::test]
async fn expired_roots_on_the_way_stop_a_session_but_not_the_client() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    let expires =
        std::mem::replace(&mut repository.root.expires, crate::repository::time("2026-01-01T00:00:00Z"));
    chain(&origin, &mut repository, 299);
    repository.root.expires = expires;
    repository.root.version = 300;
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "root expired");
    assert_eq!(word(client.refresh(&origin).await), "done");
}

/// CVE-2020-15163: a root that failed is neither kept nor trusted after a restart.
#[tokio::test]
async fn a_refused_root_is_neither_kept_nor_trusted_at_the_next_start() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    client.refresh(&origin).await.unwrap();
    let before = client.files();

    // A thief's own keys in every role, correctly signed by themselves.
    let mut thief = Repository::new();
    thief.root.version = 2;
    let mut threshold = Repository::new();
    threshold.root = repository.root.clone();
    threshold.root.version = 2;
    let public = SigningKey::generate().public();
    let keyids = vec![repository.key("root").public().id(), public.id()];
    threshold.root.roles.insert(RoleName::root(), RoleKeys { keyids, threshold: 2 });
    threshold.root.keys.insert(public.id(), public);
    let mut skipped = repository.root.clone();
    skipped.version = 3;
    let key = repository.key("root");
    let cases = [
        ("root signatures", sign(&thief.root, &[thief.key("root")]).unwrap()),
        ("root signatures", attach(&thief.root, &[]).unwrap()),
        ("root signatures", sign(&threshold.root, &[key]).unwrap()),
        ("root wrong version", sign(&skipped, &[key]).unwrap()),
        ("root malformed", b"{}".to_vec()),
        ("root malformed", Vec::new()),
        ("too long", vec![b' '; (512 << 10) + 1]),
    ];
    for (expected, root) in cases {
        origin.put(&root_path(2), &root);
        assert_eq!(word(client.refresh(&origin).await), expected);
        assert_eq!(client.files(), before, "{expected}");
        origin.remove(&root_path(2));
        // The next start, with an honest server.
        assert_eq!(client.refresh(&origin).await.unwrap().root().version, 1, "{expected}");
        assert_eq!(client.files(), before, "{expected}");
    }
}

/// "There is none" is 404, or 403 from object stores that may not be listed. Anything else may hide a root.
#[tokio::test]
async fn only_an_absent_root_ends_the_chain() {
    for (status, expected) in
        [(404, "done"), (403, "done"), (500, "status 500"), (503, "status 503"), (301, "status 301")]
    {
        let (origin, mut repository) = (Origin::start().await, Repository::new());
        let client = Client::trusting(&mut repository);
        origin.publish(&mut repository);
        let hidden = root_path(2);
        origin.meddle(move |_, path, honest| if path == hidden { Answer::Status(status) } else { honest });
        assert_eq!(word(client.refresh(&origin).await), expected, "{status}");
        // A root that is there, and cannot be had, is not passed over.
        repository.root.version = 2;
        origin.publish(&mut repository);
        assert_eq!(word(client.refresh(&origin).await), expected, "{status}");
        origin.behave();
        assert_eq!(client.refresh(&origin).await.unwrap().root().version, 2, "{status}");
    }
}

/// After the last number that a version can be there is no next root to ask for.
#[tokio::test]
async fn the_last_version_of_all_is_not_asked_for_again() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    repository.root.version = u64::MAX;
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(word(client.refresh(&origin).await), "done");
    assert_eq!(
        origin.requests(),
        ["metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"]
    );
}
