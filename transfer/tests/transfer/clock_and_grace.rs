//! What a wrong clock can do, and what a college that is cut off may go on with (`x-issued`, `x-grace-days`).

use mirabelle_manifests::Instant;
use mirabelle_transfer::TufClient;

use crate::origin::{Client, Origin, change, word};
use crate::repository::{Repository, time};

/// Everything below root expires on the 10th, is signed on the 1st, and may be used for five days more.
fn repository() -> Repository {
    let mut repository = Repository::new();
    repository.root.grace_days = Some(5);
    for expires in
        [&mut repository.timestamp.expires, &mut repository.snapshot.expires, &mut repository.targets.expires]
    {
        *expires = time("2026-06-10T00:00:00Z");
    }
    repository.timestamp.issued = Some(time("2026-06-01T00:00:00Z"));
    repository
}

async fn kept(client: &Client, now: &str) -> String {
    word(TufClient::kept(client.store(), time(now)).await)
}

async fn refresh(client: &Client, origin: &Origin, now: &str) -> String {
    word(client.refresh_at(origin, time(now)).await)
}

#[tokio::test]
async fn what_was_kept_is_usable_within_the_grace_and_not_beyond() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
    for (now, expected) in [
        ("2026-06-09T23:59:59Z", "done"),
        ("2026-06-10T00:00:00Z", "done"),
        ("2026-06-14T23:59:59Z", "done"),
        ("2026-06-15T00:00:00Z", "timestamp expired"),
        ("2040-01-01T00:00:00Z", "root expired"),
    ] {
        assert_eq!(kept(&client, now).await, expected, "{now}");
    }
    // A refresh has no grace: neither for what is here nor for what is offered.
    let before = client.files();
    assert_eq!(refresh(&client, &origin, "2026-06-11T00:00:00Z").await, "timestamp expired");
    change(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-11T00:00:00Z").await, "timestamp expired");
    assert_eq!(client.files(), before, "nothing newer was accepted in the meantime");
    assert_eq!(kept(&client, "2026-06-11T00:00:00Z").await, "done");
}

/// Only root can grant it: not the roles that would profit, nor a switch on the machine.
#[tokio::test]
async fn without_a_word_from_root_there_is_no_grace() {
    let (origin, mut repository) = (Origin::start().await, repository());
    repository.root.grace_days = None;
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
    assert_eq!(kept(&client, "2026-06-10T00:00:00Z").await, "timestamp expired");
}

#[tokio::test]
async fn a_clock_at_1970_makes_nothing_fresh() {
    let dawn = "1970-01-01T00:00:00Z";
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
    // Signed on the 20th: what expired on the 10th has expired, although the clock says 1970.
    repository.next().timestamp.issued = Some(time("2026-06-20T00:00:00Z"));
    repository.timestamp.expires = time("2026-06-30T00:00:00Z");
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, dawn).await, "snapshot expired");
    repository.snapshot.version += 1;
    repository.snapshot.expires = time("2026-06-30T00:00:00Z");
    repository.timestamp.version += 1;
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, dawn).await, "targets expired");
    change(&mut repository);
    repository.targets.expires = time("2026-06-30T00:00:00Z");
    origin.publish(&mut repository);
    let trusted = client.refresh_at(&origin, time(dawn)).await.unwrap();
    assert_eq!(trusted.now(), time("2026-06-20T00:00:00Z"));
    assert_eq!(trusted.clock_behind().unwrap().says, time(dawn));
    // And an older timestamp, which the clock would call fresh, is a rollback.
    repository.timestamp.version = 1;
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, dawn).await, "timestamp rollback");
}

/// A clock that ran ahead, and was put right.
#[tokio::test]
async fn a_clock_years_ahead_leaves_nothing_behind() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    for far in ["2035-01-01T00:00:00Z", "9999-12-30T22:00:00Z"] {
        assert_eq!(refresh(&client, &origin, far).await, "root expired");
        assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
        assert_eq!(kept(&client, far).await, "root expired");
        assert_eq!(kept(&client, "2026-06-02T00:00:00Z").await, "done");
    }
    assert_eq!(word(client.refresh_at(&origin, Instant::MAX).await), "root expired");
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
}

/// The key that signs timestamps lives on a server: a thief of it cannot bring the future nearer than expiry is.
#[tokio::test]
async fn a_timestamp_from_the_future_is_not_kept() {
    let (origin, mut repository) = (Origin::start().await, repository());
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
    let before = client.files();
    repository.next().timestamp.issued = Some(time("2090-01-01T00:00:00Z"));
    repository.timestamp.expires = time("2099-01-01T00:00:00Z");
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "root expired");
    assert_eq!(client.files(), before);
    repository.timestamp.issued = Some(time("2026-06-02T00:00:00Z"));
    repository.timestamp.expires = time("2026-06-12T00:00:00Z");
    origin.publish(&mut repository);
    assert_eq!(refresh(&client, &origin, "2026-06-02T00:00:00Z").await, "done");
}
