//! CVE-2026-23991: valid JSON of the wrong shape, in every place of every role, signed or not, is refused or passed over
//! and never a crash.

use mirabelle_keys::SigningKey;
use mirabelle_manifests::tuf::{
    DelegatedRole, Delegations, MetadataError, RoleKeys, RoleName, Search, Step, TargetFile, Targets, sign,
};
use mirabelle_manifests::{PathPattern, TargetPath};
use serde_json::{Value, json};

use crate::repository::{Published, Repository, time};

/// A repository with something in every member that a role can have.
fn full() -> Repository {
    let mut repository = Repository::new();
    let expires = time("2027-01-01T00:00:00Z");
    let key = SigningKey::generate();
    let keys = RoleKeys { keyids: vec![key.public().id()], threshold: 1 };
    repository.root.quorums.insert(RoleName::new("a"), keys.clone());
    repository.root.keys.insert(key.public().id(), key.public());
    repository.root.grace_days = Some(14);
    repository.timestamp.issued = Some(time("2026-05-31T00:00:00Z"));
    repository.targets.delegations = Some(Delegations {
        keys: [(key.public().id(), key.public())].into(),
        roles: vec![DelegatedRole {
            name: RoleName::new("a"),
            keys,
            terminating: true,
            paths: Some(vec![PathPattern::new("dir/*")]),
            path_hash_prefixes: None,
        }],
        bins: None,
    });
    let file = TargetFile::of(b"content", Some(json!({"kind": "file"})));
    repository.targets.targets.insert(TargetPath::new("file"), file);
    repository.delegated.insert("a".to_owned(), (Targets::new(1, expires), key));
    repository
}

/// Where every value of a document is, as JSON pointers; the document itself is the empty one.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// What stands where something else should.
fn strangers() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}\u{202e}../\u{10ffff}"),
        json!([]),
        json!([[], {}, null]),
        json!({}),
        json!({"": {"": null}}),
    ]
}

/// Feeds `take` every document that has a stranger in one place, or lacks one member, with and without a signature that
/// covers it; returns how many these were.
fn try_all(honest: &[u8], key: &SigningKey, take: &dyn Fn(&[u8])) -> usize {
    let document: Value = serde_json::from_slice(honest).unwrap();
    let mut found = Vec::new();
    places(&document, "", &mut found);
    let mut tried = 0;
    for place in found {
        let replaced = strangers().into_iter().map(|stranger| {
            let mut changed = document.clone();
            *changed.pointer_mut(&place).unwrap() = stranger;
            changed
        });
        for changed in replaced.chain(without(&document, &place)) {
            take(&serde_json::to_vec(&changed).unwrap());
            if let Some(signed) = changed.get("signed") {
                take(&sign(signed, &[key]).unwrap());
            }
            tried += 1;
        }
    }
    tried
}

/// The document without the member or item at `place`.
fn without(document: &Value, place: &str) -> Option<Value> {
    let (parent, name) = place.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    let mut changed = document.clone();
    match changed.pointer_mut(parent)? {
        Value::Object(members) => drop(members.remove(&name)?),
        Value::Array(items) => drop(items.remove(name.parse().ok()?)),
        _ => return None,
    }
    Some(changed)
}

#[test]
fn a_stranger_in_any_place_of_any_role_is_no_crash() {
    let mut repository = full();
    let mut published = repository.publish();
    // Versions only: no digest stands before the parsers.
    for meta in repository.snapshot.meta.values_mut().chain(repository.timestamp.meta.values_mut()) {
        (meta.hashes, meta.length) = (None, None);
    }
    published.snapshot = sign(&repository.snapshot, &[repository.key("snapshot")]).unwrap();
    published.timestamp = sign(&repository.timestamp, &[repository.key("timestamp")]).unwrap();

    let refresh = |role: &str, bytes: &[u8]| {
        let of = |name: &str, honest: &Vec<u8>| if role == name { bytes.to_vec() } else { honest.clone() };
        let changed = Published {
            root: of("root", &published.root),
            targets: of("targets", &published.targets),
            snapshot: of("snapshot", &published.snapshot),
            timestamp: of("timestamp", &published.timestamp),
            delegated: [("a".to_owned(), of("a", &published.delegated["a"]))].into(),
        };
        let mut trusted = changed.refresh()?;
        let mut search = Search::new(TargetPath::new("dir/file"));
        if let Step::Need { role, delegator, delegators_delegator } = search.step(&trusted) {
            trusted.update_delegated(&changed.delegated["a"], &role, &delegator, &delegators_delegator)?;
        }
        search.step(&trusted);
        Ok::<_, MetadataError>(())
    };
    for role in ["root", "timestamp", "snapshot", "targets", "a"] {
        let (honest, key) = match role {
            "root" => (&published.root, repository.key(role)),
            "timestamp" => (&published.timestamp, repository.key(role)),
            "snapshot" => (&published.snapshot, repository.key(role)),
            "targets" => (&published.targets, repository.key(role)),
            _ => (&published.delegated["a"], &repository.delegated["a"].1),
        };
        assert!(refresh(role, honest).is_ok(), "{role}");
        let tried = try_all(honest, key, &|bytes| drop(refresh(role, bytes)));
        assert!(tried > 100, "{role}: only {tried} were tried");
    }
}
