//! A refresh that is cut anywhere, by the network or by a power cut, and two at once: the next one ends where an
//! undisturbed one would have.

use mirabelle_manifests::tuf::RoleName;

use crate::origin::{Answer, Client, Origin, change, delegate, metadata, word};
use crate::repository::Repository;

/// Two publications: another root, and everything below it new; `a` is delegated in both.
fn publish_twice(origin: &Origin, repository: &mut Repository, between: impl FnOnce()) {
    origin.publish(repository);
    between();
    repository.root.version += 1;
    change(repository);
    repository.delegated.get_mut("a").unwrap().0.version += 1;
    origin.publish(repository);
}

fn repository() -> Repository {
    let mut repository = Repository::new();
    delegate(&mut repository, "a");
    repository
}

/// A refresh and the role `a`, as everything that reads a network does.
async fn refresh(client: &Client, origin: &Origin) -> String {
    let refreshed = async {
        let mut session = client.session(origin).await?;
        session.delegated(&RoleName::new("a"), &RoleName::targets(), &RoleName::root()).await
    };
    word(refreshed.await)
}

/// The files of stores that saw the first publication, and both.
async fn undisturbed(
    origin: &Origin,
    repository: &mut Repository,
) -> [std::collections::BTreeMap<String, Vec<u8>>; 2] {
    let client = Client::trusting(repository);
    origin.publish(repository);
    assert_eq!(refresh(&client, origin).await, "done");
    let before = client.files();
    publish_twice(origin, repository, || {});
    assert_eq!(refresh(&client, origin).await, "done");
    [before, client.files()]
}

#[tokio::test]
async fn a_server_that_goes_away_after_any_request() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let [before, after] = undisturbed(&origin, &mut repository).await;
    let client = Client::trusting(&mut repository);
    for last in 0..6 {
        for answer in [Answer::Status(503), Answer::Truncated(b"{}".to_vec()), Answer::Status(404)] {
            client.hold(&before);
            let gone = answer.clone();
            origin.meddle(move |number, _, honest| if number > last { gone.clone() } else { honest });
            let cut = refresh(&client, &origin).await;
            assert!(["status 503", "broke off", "not found"].contains(&cut.as_str()), "{last}: {cut}");
            origin.behave();
            assert_eq!(refresh(&client, &origin).await, "done", "after {last} requests");
            assert_eq!(client.files(), after, "after {last} requests");
        }
    }
}

/// Files are written one at a time, each as a whole; a power cut leaves any first part of that sequence.
#[tokio::test]
async fn a_power_cut_between_any_two_writes() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let [before, after] = undisturbed(&origin, &mut repository).await;
    let client = Client::trusting(&mut repository);
    let order =
        ["roots/2.root.json", "root.json", "timestamp.json", "snapshot.json", "targets.json", "a.json"];
    let changed = after.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).count();
    assert_eq!(changed, order.len(), "a refresh writes these files");
    for written in 0..=order.len() {
        let mut files = before.clone();
        for name in &order[..written] {
            files.insert((*name).to_owned(), after[*name].clone());
        }
        // What a cut leaves beside them.
        files.insert(".new-abc".to_owned(), b"half of a fi".to_vec());
        client.hold(&files);
        assert_eq!(refresh(&client, &origin).await, "done", "after {written} writes");
        let mut files = client.files();
        files.remove(".new-abc");
        assert_eq!(files, after, "after {written} writes");
    }
}

/// TUF 1.0.34, 5.4.3 read literally would strand this client: the timestamp it has is the one that is offered.
#[tokio::test]
async fn a_refresh_cut_after_the_timestamp_is_finished_when_nothing_new_was_published() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    origin.meddle(|number, _, honest| if number > 2 { Answer::Status(503) } else { honest });
    assert_eq!(refresh(&client, &origin).await, "status 503");
    assert!(client.file("timestamp.json").exists());
    origin.behave();
    assert_eq!(refresh(&client, &origin).await, "done");
    let asked = origin.requests();
    assert_eq!(
        asked[2..],
        [
            metadata(&RoleName::snapshot(), Some(1)),
            metadata(&RoleName::targets(), Some(1)),
            metadata(&RoleName::new("a"), Some(1)),
        ]
    );
}

/// One of two refreshes of one store is told so at once, and asks nobody; the other is not disturbed.
#[tokio::test]
async fn two_sessions_never_write_to_one_store() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    let held = client.session(&origin).await.unwrap();
    let asked = origin.requests().len();
    assert_eq!(word(client.refresh(&origin).await), "busy");
    assert_eq!(origin.requests().len(), asked);
    drop(held);
    assert_eq!(refresh(&client, &origin).await, "done");

    // Many at the same moment: each is done or busy, and at least one is done.
    change(&mut repository);
    origin.publish(&mut repository);
    let several = [(); 8].map(|()| client.refresh(&origin));
    let words = futures_util::future::join_all(several).await.into_iter().map(word).collect::<Vec<_>>();
    assert!(words.iter().all(|word| word == "done" || word == "busy"), "{words:?}");
    assert!(words.iter().any(|word| word == "done"), "{words:?}");
    assert_eq!(refresh(&client, &origin).await, "done");
}
