//! What other TUF clients got wrong, each by the id under which it was published. The rows that are not here are named
//! on the test that covers them (docs/THREATS.md lists all); those that need a server or a store are in `transfer`.

use std::time::{Duration, Instant};

use mirabelle_keys::{KeyId, PublicKey, Signature, SigningKey};
use mirabelle_manifests::tuf::{
    DelegatedRole, Delegations, FileMeta, MetadataError, RoleKeys, RoleName, SuccinctRoles, Targets,
    TrustedMetadata, attach, sign,
};
use mirabelle_manifests::{Json, PackageName, PathPattern, Platform, SiteId, Version};

use crate::hostile_metadata::word;
use crate::repository::{NOW, Repository, time};

/// Far more than any machine needs, and far less than anything quadratic in 100,000 takes.
const BOUNDED: Duration = Duration::from_mins(1);

/// A repository whose targets role delegates `dir/*` to `a`, which is at version 5 like everything else.
fn delegating() -> Repository {
    let mut repository = Repository::new();
    let key = SigningKey::generate();
    let public = key.public();
    repository.targets.delegations = Some(Delegations {
        keys: [(public.id(), public.clone())].into(),
        roles: vec![DelegatedRole {
            name: RoleName::new("a"),
            keys: RoleKeys { keyids: vec![public.id()], threshold: 1 },
            terminating: false,
            paths: Some(vec![PathPattern::new("dir/*")]),
            path_hash_prefixes: None,
        }],
        bins: None,
    });
    repository.delegated.insert("a".to_owned(), (Targets::new(5, time("2027-01-01T00:00:00Z")), key));
    for version in
        [&mut repository.targets.version, &mut repository.snapshot.version, &mut repository.timestamp.version]
    {
        *version = 5;
    }
    repository
}

/// The delegation to `a`.
fn delegation(
    repository: &mut Repository,
) -> (&mut DelegatedRole, &mut std::collections::BTreeMap<KeyId, PublicKey>) {
    let delegations = repository.targets.delegations.as_mut().unwrap();
    (&mut delegations.roles[0], &mut delegations.keys)
}

/// A refresh, then `a` as `signed` makes it; the snapshot vouches for it with `meta`.
fn load(
    repository: &mut Repository,
    signed: impl Fn(&Targets, &SigningKey) -> Vec<u8>,
    meta: impl Fn(&Targets, &[u8]) -> FileMeta,
) -> Result<TrustedMetadata, MetadataError> {
    let mut published = repository.publish();
    let (document, key) = &repository.delegated["a"];
    let bytes = signed(document, key);
    let meta = meta(document, &bytes);
    repository.snapshot.meta.insert("a.json".to_owned(), meta);
    published.snapshot = sign(&repository.snapshot, &[repository.key("snapshot")]).unwrap();
    let described = FileMeta::of(repository.snapshot.version, &published.snapshot);
    repository.timestamp.meta.insert("snapshot.json".to_owned(), described);
    published.timestamp = sign(&repository.timestamp, &[repository.key("timestamp")]).unwrap();
    let mut trusted = published.refresh()?;
    trusted.update_delegated(&bytes, &RoleName::new("a"), &RoleName::targets(), &RoleName::root())?;
    Ok(trusted)
}

fn honestly(document: &Targets, key: &SigningKey) -> Vec<u8> {
    sign(document, &[key]).unwrap()
}

fn described(document: &Targets, bytes: &[u8]) -> FileMeta {
    FileMeta::of(document.version, bytes)
}

fn signature(document: &Targets, key: &SigningKey) -> Signature {
    key.sign(&Json::of(document).unwrap().canonical())
}

fn id(text: &str) -> KeyId {
    serde_json::from_value(text.into()).unwrap()
}

/// CVE-2020-6174, CVE-2020-15093, and again CVE-2026-6966: on a delegated role.
#[test]
fn a_delegated_role_counts_no_signature_and_no_key_id_twice() {
    let mut repository = delegating();
    delegation(&mut repository).0.keys.threshold = 2;
    let twice = |document: &Targets, key: &SigningKey| {
        attach(document, &[signature(document, key), signature(document, key)]).unwrap()
    };
    assert_eq!(word(load(&mut repository, twice, described)), "a signatures");
    let (role, _) = delegation(&mut repository);
    role.keys.keyids = vec![role.keys.keyids[0].clone(); 9];
    assert_eq!(word(load(&mut repository, honestly, described)), "a signatures");
    // Not even when one would have been enough: a document that signs twice was made by nobody's honest tool.
    delegation(&mut repository).0.keys.threshold = 1;
    assert_eq!(word(load(&mut repository, twice, described)), "a signatures");
    assert_eq!(word(load(&mut repository, honestly, described)), "trusted");
}

/// GHSA-3633-5h82-39pq (go-tuf), and in python-tuf 7.0.1, tuf-js 6.0.2 and sigstore-tuf 0.15.1 still.
#[test]
fn one_key_under_two_ids_is_one_signer_of_every_role() {
    let mut repository = delegating();
    let key = repository.delegated["a"].1.public();
    let (role, keys) = delegation(&mut repository);
    role.keys = RoleKeys { keyids: vec![key.id(), id("alias")], threshold: 2 };
    keys.insert(id("alias"), key);
    let under_both = |document: &Targets, key: &SigningKey| {
        let first = signature(document, key);
        let second = Signature { keyid: id("alias"), ..first.clone() };
        attach(document, &[first, second]).unwrap()
    };
    assert_eq!(word(load(&mut repository, under_both, described)), "a signatures");

    let mut repository = Repository::new();
    let key = repository.key("root").public();
    repository.root.keys.insert(id("alias"), key.clone());
    let root_keys = RoleKeys { keyids: vec![key.id(), id("alias")], threshold: 2 };
    repository.root.roles.insert(RoleName::root(), root_keys);
    let first = repository.key("root").sign(&Json::of(&repository.root).unwrap().canonical());
    let second = Signature { keyid: id("alias"), ..first.clone() };
    let root = attach(&repository.root, &[first, second]).unwrap();
    assert_eq!(word(TrustedMetadata::begin(&root, time(NOW))), "root signatures");
}

/// GMS-2022-4197: repeated key ids in the next root's own role.
#[test]
fn the_next_root_counts_no_key_id_twice() {
    let mut repository = Repository::new();
    let first = repository.publish();
    let key = repository.key("root").public();
    repository.root.version = 2;
    repository
        .root
        .roles
        .insert(RoleName::root(), RoleKeys { keyids: vec![key.id(), key.id(), key.id()], threshold: 2 });
    let next = repository.publish();
    let mut trusted = first.refresh().unwrap();
    assert_eq!(word(trusted.update_root(&next.root)), "root signatures");
    assert_eq!(trusted.root().version, 1);
}

/// CVE-2026-23992: unsigned documents under a threshold of nothing.
#[test]
fn a_delegation_with_a_threshold_below_one_trusts_nothing() {
    let unsigned = |document: &Targets, _: &SigningKey| attach(document, &[]).unwrap();
    for threshold in [0, -1, i64::MIN] {
        let mut repository = delegating();
        delegation(&mut repository).0.keys.threshold = threshold;
        assert_eq!(word(load(&mut repository, unsigned, described)), "a signatures", "{threshold}");
        assert_eq!(word(load(&mut repository, honestly, described)), "a signatures", "{threshold}");
    }
}

/// CVE-2020-6173: what somebody without keys can add is read in time that grows with the document, and no faster.
#[test]
fn a_hundred_thousand_signatures_or_keys_take_bounded_time() {
    let begun = Instant::now();
    let mut repository = delegating();
    let many = |document: &Targets, key: &SigningKey| {
        let honest = signature(document, key);
        let stranger = |number: u32| Signature { keyid: id(&number.to_string()), ..honest.clone() };
        let signatures: Vec<Signature> = (0..100_000).map(stranger).chain([honest.clone()]).collect();
        attach(document, &signatures).unwrap()
    };
    assert_eq!(word(load(&mut repository, many, described)), "trusted");

    // A key each of its own would take minutes to make, not to read: aliases of two, in turn, are as much to read.
    let [one, other] = std::array::from_fn(|_| SigningKey::generate().public());
    let (role, keys) = delegation(&mut repository);
    for number in 0..50_000_u32 {
        for (key, name) in [(&one, "one"), (&other, "other")] {
            let alias = id(&format!("{name}-{number}"));
            keys.insert(alias.clone(), key.clone());
            role.keys.keyids.push(alias);
        }
    }
    assert_eq!(word(load(&mut repository, honestly, described)), "trusted");
    // Signatures by each of them, none valid: each costs a verification, and there are as many as the delegator named.
    let all = |document: &Targets, key: &SigningKey| {
        let honest = signature(document, key);
        let forged = |number: u32| Signature { keyid: id(&format!("one-{number}")), ..honest.clone() };
        attach(document, &(0..5_000).map(forged).chain([honest.clone()]).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(word(load(&mut repository, all, described)), "trusted");
    assert!(begun.elapsed() < BOUNDED, "{:?}", begun.elapsed());
}

/// CVE-2025-2887: a delegated role may not go back, in the snapshot or behind its back.
#[test]
fn a_delegated_role_does_not_go_back() {
    let mut repository = delegating();
    let kept = repository.publish();
    repository.next().delegated.get_mut("a").unwrap().0.version = 4;
    assert_eq!(word(repository.publish().refresh_after(&kept)), "a rollback");
    let behind = |_: &Targets, bytes: &[u8]| FileMeta::of(5, bytes);
    assert_eq!(word(load(&mut repository, honestly, behind)), "a wrong version");
}

/// CVE-2026-6967: what holds for targets holds for a delegated role.
#[test]
fn a_delegated_role_is_checked_like_targets() {
    type Change = fn(&mut Repository);
    type Meta = fn(&Targets, &[u8]) -> FileMeta;
    let cases: [(&str, Change, Meta); 7] = [
        ("trusted", |_| {}, described),
        ("trusted", |_| {}, |document, _| FileMeta { hashes: None, length: None, version: document.version }),
        ("a expired", |r| r.delegated.get_mut("a").unwrap().0.expires = time(NOW), described),
        (
            "a mismatch",
            |_| {},
            |document, bytes| {
                let other = FileMeta::of(document.version, b"another file").hashes;
                FileMeta { hashes: other, ..described(document, bytes) }
            },
        ),
        (
            "a mismatch",
            |_| {},
            |document, bytes| FileMeta { length: Some(bytes.len() as u64 + 1), ..described(document, bytes) },
        ),
        ("a wrong version", |_| {}, |document, bytes| FileMeta::of(document.version + 1, bytes)),
        ("a wrong version", |_| {}, |document, bytes| FileMeta::of(document.version - 1, bytes)),
    ];
    for (number, (expected, change, meta)) in cases.into_iter().enumerate() {
        let mut repository = delegating();
        change(&mut repository);
        assert_eq!(word(load(&mut repository, honestly, meta)), expected, "case {number}");
    }
}

/// GHSA-77hh-43cm-v8j6: asking for a role that nobody delegates to is answered, not guessed at.
#[test]
fn names_that_nobody_delegated_are_no_roles() {
    let names = ["", "root", "timestamp", "snapshot", "targets", "A", "a ", "a.json", "../a", "b", "bin-0"];
    let mut plain = delegating();
    let published = plain.publish();
    let mut bins = delegating();
    let delegations = bins.targets.delegations.as_mut().unwrap();
    let keys = delegations.roles.remove(0).keys;
    // A prefix that spells a top-level role must not help either: a bin is `root-0`, never `root`.
    delegations.bins = Some(SuccinctRoles::new(1, keys, "root").unwrap());
    let binned = bins.publish();
    for (published, extra) in [(&published, "root-0"), (&binned, "root-2")] {
        for name in names.into_iter().chain([extra, "root-", "root-00"]) {
            let mut trusted = published.refresh().unwrap();
            let bytes = &published.delegated["a"];
            let loaded = trusted.update_delegated(
                bytes,
                &RoleName::new(name),
                &RoleName::targets(),
                &RoleName::root(),
            );
            assert_eq!(word(loaded), format!("{name} unnamed"));
            // A delegator that was never verified vouches for nobody.
            let foreign = RoleName::new("b");
            let loaded = trusted.update_delegated(bytes, &RoleName::new("a"), &foreign, &RoleName::targets());
            assert_eq!(word(loaded), "b out of order");
        }
    }
}

/// CVE-2026-24686: no name that we take from a document or a configuration is a path.
#[test]
fn a_name_that_is_a_path_is_no_name() {
    for name in ["", ".", "..", "../x", "/x", "a/b", "a\\b", "C:x", "a\0b", "a\nb", "é/x", "%2e%2e/x"] {
        assert!(name.parse::<PackageName>().is_err(), "{name:?}");
        assert!(name.parse::<Version>().is_err(), "{name:?}");
        assert!(name.parse::<Platform>().is_err(), "{name:?}");
        assert!(name.parse::<SiteId>().is_err(), "{name:?}");
    }
}

/// sigstore's root signing moved to new key types with such roots; tuf-js, python-tuf 7.0.1 differ (trust.md 1).
#[test]
fn an_unknown_key_type_does_not_void_a_root() {
    let unknown = |scheme: &str| -> PublicKey {
        let json = serde_json::json!({"keytype": scheme, "scheme": scheme, "keyval": {"public": "AAAA"}});
        serde_json::from_value(json).unwrap()
    };
    let mut repository = Repository::new();
    let key = unknown("ml-dsa-65");
    for role in [RoleName::root(), RoleName::timestamp()] {
        repository.root.roles.get_mut(&role).unwrap().keyids.push(key.id());
    }
    repository.root.keys.insert(key.id(), key);
    assert_eq!(word(repository.publish().refresh()), "trusted");
    // And it counts for nothing.
    repository.root.roles.get_mut(&RoleName::timestamp()).unwrap().threshold = 2;
    assert_eq!(word(repository.publish().refresh()), "timestamp signatures");
}

/// Numbers at the ends of 63 and 64 bits are versions like others, and there is none after the last.
#[test]
fn versions_at_the_end_of_the_numbers_neither_wrap_nor_repeat() {
    for version in [i64::MAX as u64 - 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
        let mut repository = Repository::new();
        repository.timestamp.version = version;
        repository.snapshot.version = version;
        repository.targets.version = version;
        repository.root.version = version;
        let kept = repository.publish();
        assert_eq!(word(kept.refresh()), "trusted", "{version}");
        assert_eq!(word(kept.refresh_after(&kept)), "trusted", "{version}");
        repository.timestamp.version = version - 1;
        assert_eq!(word(repository.publish().refresh_after(&kept)), "timestamp rollback", "{version}");

        // A root of the same version is not the next one, even where no next one can be.
        let mut trusted = kept.refresh().unwrap();
        assert_eq!(word(trusted.update_root(&kept.root)), "root wrong version", "{version}");
        let Some(next) = version.checked_add(1) else { continue };
        repository.root.version = next;
        assert_eq!(word(trusted.update_root(&repository.publish().root)), "trusted");
    }
}

/// Sigstore's repository says "1.0"; what comes after 1 we cannot read.
#[test]
fn the_first_specification_is_read_whatever_its_point() {
    for (stated, expected) in [
        ("1.0", "trusted"),
        ("1", "trusted"),
        ("1.99.7", "trusted"),
        ("2.0", "root malformed"),
        ("10.0", "root malformed"),
        ("", "root malformed"),
    ] {
        let repository = Repository::new();
        let mut root = Json::of(&repository.root).unwrap();
        let Json::Object(members) = &mut root else { unreachable!("a root is an object") };
        members.insert("spec_version".to_owned(), Json::String(stated.to_owned()));
        let bytes = sign(&root, &[repository.key("root")]).unwrap();
        assert_eq!(word(TrustedMetadata::begin(&bytes, time(NOW))), expected, "{stated}");
    }
}
