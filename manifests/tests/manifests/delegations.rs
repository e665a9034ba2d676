//! Delegations: who is asked in which order, and what nobody may say.

use mirabelle_keys::SigningKey;
use mirabelle_manifests::tuf::{
    DelegatedRole, Delegations, MetadataError, RoleKeys, RoleName, Search, Step, TargetFile, Targets, sign,
};
use mirabelle_manifests::{PathPattern, TargetPath};

use crate::repository::{Published, Repository, time};

/// A delegation by `from` to `to`: name, pattern, terminating.
type Edge = (&'static str, &'static str, &'static str, bool);
/// Delegations, who lists the target, who is asked, and where it is found.
type Case<'a> = (&'a [Edge], &'a [&'a str], &'a str, Option<&'a str>);

/// A repository with these delegations; `listing` roles list the target `dir/file`.
fn repository(edges: &[Edge], listing: &[&str]) -> (Repository, Published) {
    let mut repository = Repository::new();
    let expires = time("2027-01-01T00:00:00Z");
    for (_, to, _, _) in edges {
        repository
            .delegated
            .entry((*to).to_owned())
            .or_insert_with(|| (Targets::new(1, expires), SigningKey::generate()));
    }
    for role in listing {
        let file = TargetFile::of(role.as_bytes(), None);
        document(&mut repository, role).targets.insert(TargetPath::new("dir/file"), file);
    }
    for (from, to, pattern, terminating) in edges {
        let key = repository.delegated[*to].1.public();
        let delegations =
            document(&mut repository, from).delegations.get_or_insert_with(Delegations::default);
        delegations.roles.push(DelegatedRole {
            name: RoleName::new(*to),
            keys: RoleKeys { keyids: vec![key.id()], threshold: 1 },
            terminating: *terminating,
            paths: Some(vec![PathPattern::new(*pattern)]),
            path_hash_prefixes: None,
        });
        delegations.keys.insert(key.id(), key);
    }
    let published = repository.publish();
    (repository, published)
}

fn document<'a>(repository: &'a mut Repository, role: &str) -> &'a mut Targets {
    match role {
        "targets" => &mut repository.targets,
        role => &mut repository.delegated.get_mut(role).unwrap().0,
    }
}

/// Searches for `dir/file`; returns the roles visited in order and where it was found.
fn search(published: &Published) -> (String, Option<String>) {
    let mut trusted = published.refresh().unwrap();
    let mut search = Search::new(TargetPath::new("dir/file"));
    let mut visited = Vec::new();
    loop {
        match search.step(&trusted) {
            Step::Need { role, delegator, delegators_delegator } => {
                visited.push(role.to_string());
                let bytes = &published.delegated[role.as_str()];
                trusted.update_delegated(bytes, &role, &delegator, &delegators_delegator).unwrap();
            }
            Step::Found(file, role) => {
                assert!(file.hashes.match_bytes(role.as_str().as_bytes()));
                return (visited.join(" "), Some(role.to_string()));
            }
            Step::NotFound => return (visited.join(" "), None),
        }
    }
}

/// CVE-2025-2886, CVE-2024-47534 (order, terminating), GHSA-j8x2-777p-23fc (cycles).
#[test]
fn roles_are_asked_in_pre_order() {
    let cases: Vec<Case<'_>> = vec![
        (&[("targets", "a", "dir/*", false)], &["a"], "a", Some("a")),
        (&[("targets", "a", "dir/*", false)], &[], "a", None),
        (&[("targets", "a", "*", false)], &["a"], "", None),
        (&[("targets", "a", "dir/*", false)], &["targets", "a"], "", Some("targets")),
        (
            &[("targets", "a", "dir/*", false), ("targets", "b", "dir/*", false), ("a", "c", "dir/*", false)],
            &["b"],
            "a c b",
            Some("b"),
        ),
        // A terminating delegation ends the search, also of what would have come later.
        (
            &[("targets", "a", "dir/*", true), ("targets", "b", "dir/*", false), ("a", "c", "dir/*", false)],
            &["b"],
            "a c",
            None,
        ),
        // … but only when it covers the path.
        (&[("targets", "a", "other/*", true), ("targets", "b", "dir/*", false)], &["b"], "b", Some("b")),
        // Cycles end.
        (
            &[("targets", "a", "dir/*", false), ("a", "b", "dir/*", false), ("b", "a", "dir/*", false)],
            &[],
            "a b",
            None,
        ),
    ];
    for (edges, listing, visited, found) in cases {
        let (_, published) = repository(edges, listing);
        assert_eq!(search(&published), (visited.to_owned(), found.map(ToOwned::to_owned)), "{edges:?}");
    }
}

/// python-tuf#2977, go-tuf#759, sigstore-rust#173, rust-tuf#279.
#[test]
fn a_role_trusted_through_one_delegator_is_not_through_another() {
    let edges =
        [("targets", "a", "dir/*", false), ("targets", "b", "dir/*", false), ("a", "c", "dir/*", false)];
    let (mut repository, _) = repository(&edges, &["c"]);
    // b delegates to c as well, but with another key.
    let stranger = SigningKey::generate().public();
    let delegations = document(&mut repository, "b").delegations.get_or_insert_with(Delegations::default);
    delegations.keys.insert(stranger.id(), stranger.clone());
    delegations.roles.push(DelegatedRole {
        name: RoleName::new("c"),
        keys: RoleKeys { keyids: vec![stranger.id()], threshold: 1 },
        terminating: false,
        paths: Some(vec![PathPattern::new("dir/*")]),
        path_hash_prefixes: None,
    });
    let published = repository.publish();
    let mut trusted = published.refresh().unwrap();
    let role = RoleName::new;
    for delegator in ["a", "b"] {
        trusted
            .update_delegated(
                &published.delegated[delegator],
                &role(delegator),
                &role("targets"),
                &role("root"),
            )
            .unwrap();
    }
    let mut load = |delegator| {
        trusted.update_delegated(&published.delegated["c"], &role("c"), &role(delegator), &role("targets"))
    };
    load("a").unwrap();
    assert!(matches!(load("b"), Err(MetadataError::Signatures { .. })));
    assert!(trusted.delegated(&role("c"), &role("a")).is_some());
    assert!(trusted.delegated(&role("c"), &role("b")).is_none());
}

#[test]
fn refuses_roles_that_nobody_or_the_wrong_one_vouches_for() {
    let (mut repository, published) = repository(&[("targets", "a", "dir/*", false)], &["a"]);
    let (targets, root) = (RoleName::targets(), RoleName::root());
    let load = |bytes: &[u8], name: &str| {
        let mut trusted = published.refresh().unwrap();
        trusted.update_delegated(bytes, &RoleName::new(name), &targets, &root)
    };
    assert!(load(&published.delegated["a"], "a").is_ok());
    assert!(matches!(load(&published.delegated["a"], "b"), Err(MetadataError::Unnamed { .. })));
    assert!(matches!(load(&published.targets, "snapshot"), Err(MetadataError::Unnamed { .. })));
    let forged = sign(&repository.delegated["a"].0, &[&SigningKey::generate()]).unwrap();
    assert!(matches!(load(&forged, "a"), Err(MetadataError::Mismatch { .. })));

    // Delegated, but absent from the snapshot: refused without a file (go-tuf#652).
    repository.next().snapshot.meta.remove("a.json");
    let (document, key) = repository.delegated.remove("a").unwrap();
    let published = repository.publish();
    let mut trusted = published.refresh().unwrap();
    let bytes = sign(&document, &[&key]).unwrap();
    assert!(matches!(
        trusted.update_delegated(&bytes, &RoleName::new("a"), &targets, &root),
        Err(MetadataError::Unnamed { .. })
    ));
}

#[test]
fn root_can_demand_a_quorum_of_its_own_from_a_delegated_role() {
    let (mut repository, _) = repository(&[("targets", "catalogue", "dir/*", true)], &["catalogue"]);
    let approver = SigningKey::generate();
    repository
        .root
        .quorums
        .insert(RoleName::new("catalogue"), RoleKeys { keyids: vec![approver.public().id()], threshold: 1 });
    repository.root.keys.insert(approver.public().id(), approver.public());
    let published = repository.publish();
    let mut trusted = published.refresh().unwrap();
    let role = RoleName::new;
    let result = trusted.update_delegated(
        &published.delegated["catalogue"],
        &role("catalogue"),
        &role("targets"),
        &role("root"),
    );
    let Err(MetadataError::Signatures { delegator, .. }) = result else { panic!("{result:?}") };
    assert_eq!(delegator, RoleName::root());
}
