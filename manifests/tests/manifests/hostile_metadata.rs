//! Every way a server or a thief of some keys can lie, and the reason each is refused with.

use mirabelle_keys::SigningKey;
use mirabelle_manifests::tuf::{
    FileMeta, MetadataError, RoleKeys, RoleName, TimestampOutcome, TrustedMetadata, attach, sign,
};

use crate::repository::{NOW, Published, Repository, time};

type Change = fn(&mut Repository);
type Tamper = fn(&Repository, &mut Published);

/// What a refresh comes to, in a word.
pub(crate) fn word<T>(result: Result<T, MetadataError>) -> String {
    match result {
        Ok(_) => "trusted".to_owned(),
        Err(MetadataError::Malformed { role, .. }) => format!("{role} malformed"),
        Err(MetadataError::Signatures { role, .. }) => format!("{role} signatures"),
        Err(MetadataError::Rollback { role, .. }) => format!("{role} rollback"),
        Err(MetadataError::WrongVersion { role, .. }) => format!("{role} wrong version"),
        Err(MetadataError::Mismatch { role, .. }) => format!("{role} mismatch"),
        Err(MetadataError::Expired { role, .. }) => format!("{role} expired"),
        Err(MetadataError::Vanished { role }) => format!("{role} vanished"),
        Err(MetadataError::Unnamed { role, .. }) => format!("{role} unnamed"),
        Err(MetadataError::OutOfOrder { role }) => format!("{role} out of order"),
    }
}

/// Thresholds below one: CVE-2026-23992. One role's document as another's: suite `incorrect_metadata_type`.
#[test]
fn a_fresh_client_refuses_each_lie() {
    let past = |repository: &mut Repository| repository.timestamp.expires = time("2026-05-31T23:59:59Z");
    let cases: Vec<(&str, Change, Tamper)> = vec![
        ("trusted", |_| {}, |_, _| {}),
        ("timestamp expired", past, |_, _| {}),
        ("snapshot expired", |r| r.snapshot.expires = time(NOW), |_, _| {}),
        ("targets expired", |r| r.targets.expires = time(NOW), |_, _| {}),
        ("root expired", |r| r.root.expires = time(NOW), |_, _| {}),
        ("timestamp malformed", |_| {}, |_, p| p.timestamp = b"{}".to_vec()),
        ("timestamp malformed", |_| {}, |_, p| p.timestamp = p.snapshot.clone()),
        ("snapshot mismatch", |_| {}, |_, p| p.snapshot = p.targets.clone()),
        (
            "timestamp signatures",
            |_| {},
            |r, p| p.timestamp = sign(&r.timestamp, &[r.key("targets")]).unwrap(),
        ),
        ("timestamp signatures", |_| {}, |r, p| p.timestamp = attach(&r.timestamp, &[]).unwrap()),
        ("snapshot mismatch", |_| {}, |r, p| p.snapshot = attach(&r.snapshot, &[]).unwrap()),
        ("targets mismatch", |_| {}, |r, p| p.targets = sign(&r.targets, &[r.key("root")]).unwrap()),
        ("timestamp unnamed", |r| drop(r.root.roles.remove(&RoleName::timestamp())), |_, _| {}),
        ("timestamp signatures", |r| threshold(r, "timestamp", 2), |_, _| {}),
        ("timestamp signatures", |r| threshold(r, "timestamp", 0), |_, _| {}),
        ("timestamp signatures", |r| threshold(r, "timestamp", -1), |_, _| {}),
        ("root signatures", |r| threshold(r, "root", 0), |_, _| {}),
        ("root signatures", |_| {}, |r, p| p.root = sign(&r.root, &[r.key("targets")]).unwrap()),
    ];
    for (number, (expected, change, tamper)) in cases.into_iter().enumerate() {
        let mut repository = Repository::new();
        change(&mut repository);
        let mut published = repository.publish();
        tamper(&repository, &mut published);
        assert_eq!(word(published.refresh()), expected, "case {number}");
    }
}

fn threshold(repository: &mut Repository, role: &str, threshold: i64) {
    repository.root.roles.get_mut(&RoleName::new(role)).unwrap().threshold = threshold;
}

#[test]
fn signatures_by_hash_less_metadata_are_still_checked() {
    // The specification lets timestamp and snapshot say versions only; then signatures alone decide.
    let mut repository = Repository::new();
    let mut published = repository.publish();
    let bare = |version| FileMeta { hashes: None, length: None, version };
    repository.snapshot.meta.insert("targets.json".into(), bare(1));
    published.snapshot = sign(&repository.snapshot, &[repository.key("snapshot")]).unwrap();
    repository.timestamp.meta.insert("snapshot.json".into(), bare(1));
    published.timestamp = sign(&repository.timestamp, &[repository.key("timestamp")]).unwrap();
    assert_eq!(word(published.refresh()), "trusted");
    published.targets = sign(&repository.targets, &[&SigningKey::generate()]).unwrap();
    assert_eq!(word(published.refresh()), "targets signatures");
}

/// CVE-2022-29173, sigstore-java#1061, sigstore-ruby#89.
#[test]
fn a_client_that_was_here_before_refuses_what_is_older() {
    let cases: Vec<(&str, Change)> = vec![
        ("trusted", |r| {
            r.next();
        }),
        ("timestamp rollback", |r| r.timestamp.version = 4),
        ("snapshot rollback", |r| {
            r.next();
            r.snapshot.version = 4;
        }),
        ("targets rollback", |r| {
            r.next();
            r.targets.version = 4;
        }),
        ("extra vanished", |r| drop(r.next().snapshot.meta.remove("extra.json"))),
    ];
    for (expected, change) in cases {
        let mut repository = Repository::new();
        for version in [
            &mut repository.targets.version,
            &mut repository.snapshot.version,
            &mut repository.timestamp.version,
        ] {
            *version = 5;
        }
        repository
            .snapshot
            .meta
            .insert("extra.json".into(), FileMeta { hashes: None, length: None, version: 1 });
        let kept = repository.publish();
        change(&mut repository);
        assert_eq!(word(repository.publish().refresh_after(&kept)), expected);
    }
}

/// sigstore-rust#198.
#[test]
fn an_expired_copy_is_still_a_floor() {
    let mut repository = Repository::new();
    repository.timestamp.version = 9;
    repository.timestamp.expires = time("2026-01-01T00:00:00Z");
    let kept = repository.publish();
    repository.timestamp.version = 8;
    repository.timestamp.expires = time("2027-01-01T00:00:00Z");
    assert_eq!(word(repository.publish().refresh_after(&kept)), "timestamp rollback");
    repository.timestamp.version = 10;
    assert_eq!(word(repository.publish().refresh_after(&kept)), "trusted");
}

/// TUF 1.0.34, 5.4.3.
#[test]
fn an_equal_timestamp_with_other_content_is_passed_over() {
    let mut repository = Repository::new();
    let kept = repository.publish();
    repository.snapshot.version = 7;
    let other = repository.publish();
    let mut trusted = kept.refresh().unwrap();
    assert_eq!(trusted.update_timestamp(&other.timestamp).unwrap(), TimestampOutcome::Same);
    assert_eq!(trusted.timestamp().unwrap().snapshot().unwrap().version, 1);
}

#[test]
fn roots_follow_one_another_signed_by_old_and_new() {
    let stranger = SigningKey::generate();
    let mut repository = Repository::new();
    let first = repository.publish();
    let old = repository.keys.remove("root").unwrap();
    let new = SigningKey::generate();
    repository.root.version = 2;
    let public = new.public();
    repository.root.roles.insert(RoleName::root(), RoleKeys { keyids: vec![public.id()], threshold: 1 });
    repository.root.keys.insert(public.id(), public);
    let both = sign(&repository.root, &[&old, &new]).unwrap();

    let follow = |bytes: &[u8]| {
        let mut trusted = TrustedMetadata::begin(&first.root, time(NOW)).unwrap();
        trusted.update_root(bytes).map(|()| trusted)
    };
    assert_eq!(follow(&both).unwrap().root().version, 2);
    for signers in [vec![&old], vec![&new], vec![&stranger], vec![]] {
        assert_eq!(word(follow(&sign(&repository.root, &signers).unwrap())), "root signatures");
    }
    // CVE-2025-2885: the next root is N + 1 and no other.
    for version in [1, 3, 9] {
        repository.root.version = version;
        assert_eq!(word(follow(&sign(&repository.root, &[&old, &new]).unwrap())), "root wrong version");
    }
    // GMS-2022-4197: the new root's own threshold counts keys, not signatures.
    repository.root.version = 2;
    threshold(&mut repository, "root", 2);
    let signature = |key: &SigningKey| {
        let bytes = sign(&repository.root, &[key]).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["signatures"][0].clone()
    };
    let repeated = serde_json::from_value::<Vec<mirabelle_keys::Signature>>(
        vec![signature(&old), signature(&new), signature(&new)].into(),
    );
    assert_eq!(word(follow(&attach(&repository.root, &repeated.unwrap()).unwrap())), "root signatures");
}

#[test]
fn lower_versions_are_accepted_after_the_keys_changed() {
    let mut repository = Repository::new();
    repository.timestamp.version = 900;
    repository.snapshot.version = 900;
    let kept = repository.publish();
    // A thief had raced the versions ahead; the keys are replaced and counting begins anew (5.3.11).
    for role in ["timestamp", "snapshot"] {
        let key = SigningKey::generate();
        let public = key.public();
        repository
            .root
            .roles
            .insert(RoleName::new(role), RoleKeys { keyids: vec![public.id()], threshold: 1 });
        repository.root.keys.insert(public.id(), public);
        repository.keys.insert(role, key);
    }
    repository.root.version = 2;
    (repository.timestamp.version, repository.snapshot.version) = (2, 2);
    let published = repository.publish();
    let mut trusted = TrustedMetadata::begin(&kept.root, time(NOW)).unwrap();
    trusted.update_root(&published.root).unwrap();
    assert!(trusted.update_timestamp(&kept.timestamp).is_err());
    published.continue_in(&mut trusted).unwrap();
}

#[test]
fn nothing_is_taken_out_of_order() {
    let published = Repository::new().publish();
    let begin = || TrustedMetadata::begin(&published.root, time(NOW)).unwrap();
    assert!(matches!(
        begin().update_snapshot(&published.snapshot, false),
        Err(MetadataError::OutOfOrder { .. })
    ));
    assert!(matches!(begin().update_targets(&published.targets), Err(MetadataError::OutOfOrder { .. })));
    let mut trusted = begin();
    trusted.update_timestamp(&published.timestamp).unwrap();
    assert!(matches!(trusted.update_targets(&published.targets), Err(MetadataError::OutOfOrder { .. })));
}
