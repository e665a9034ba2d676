//! What a change of a role means, in words: what somebody reads before she signs.
//!
//! Everything that can differ between two versions is either named here or summed up in a line that says so; nothing
//! that is signed is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::network::{BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET};
use mirabelle_manifests::tuf::{Delegations, RoleKeys, RoleName, Root, Targets};
use mirabelle_manifests::{
    Assignment, AssignmentMode, Brake, Colleges, Deployment, Json, Listing, Packager, Packagers, PathPattern,
    SiteId, TargetPath,
};

use crate::drafts::Signed;

/// The small files that a role lists, by path: what they were and what they become.
pub(crate) type Files = BTreeMap<String, (Option<Vec<u8>>, Option<Vec<u8>>)>;

/// The lines that say what `new` changes against `before`.
pub(crate) fn describe(before: Option<&Signed>, new: &Signed, files: &Files) -> Vec<String> {
    let mut lines = match (before, new) {
        (Some(Signed::Root(before)), Signed::Root(new)) => root(Some(&before.signed), &new.signed),
        (_, Signed::Root(new)) => root(None, &new.signed),
        (Some(Signed::Targets(before)), Signed::Targets(new)) => {
            targets(Some(&before.signed), &new.signed, files)
        }
        (_, Signed::Targets(new)) => targets(None, &new.signed, files),
    };
    if knows_less_than_it_holds(new) {
        lines.push(
            "HOLDS SOMETHING THAT THIS VERSION DOES NOT KNOW: ask what it is before you sign".to_owned(),
        );
    }
    if lines.is_empty() {
        let same = before.is_some_and(|before| same_content(before, new));
        let what = if same {
            "renews the signatures; nothing else changes"
        } else {
            "changes something that this version cannot put into words"
        };
        lines.push(what.to_owned());
    }
    lines
}

/// True when the document has members that were lost in reading it.
fn knows_less_than_it_holds(document: &Signed) -> bool {
    let understood = match document {
        Signed::Root(document) => Json::of(&document.signed),
        Signed::Targets(document) => Json::of(&document.signed),
    };
    understood.ok().as_ref() != Some(document.json())
}

fn same_content(before: &Signed, new: &Signed) -> bool {
    let content = |document: &Signed| {
        let Json::Object(mut members) = document.json().clone() else { return None };
        members.remove("version");
        members.remove("expires");
        Some(members)
    };
    content(before) == content(new)
}

fn root(before: Option<&Root>, new: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    let empty = BTreeMap::new();
    let held = |root: Option<&Root>| -> BTreeMap<String, (RoleKeys, bool)> {
        let roles = root.map_or(&empty, |root| &root.roles);
        let quorums = root.map_or(&empty, |root| &root.quorums);
        let named = |roles: &BTreeMap<RoleName, RoleKeys>, pinned: bool| {
            roles
                .iter()
                .map(move |(role, keys)| (role.to_string(), (keys.clone(), pinned)))
                .collect::<Vec<_>>()
        };
        named(roles, false).into_iter().chain(named(quorums, true)).collect()
    };
    holders(&mut lines, &held(before), &held(Some(new)));
    if before.map(|root| root.grace_days) != Some(new.grace_days) {
        lines.push(format!("what expired stays usable for {} days", new.grace_days.unwrap_or_default()));
    }
    if before.is_some_and(|root| root.consistent_snapshot != new.consistent_snapshot) {
        lines.push(format!("consistent snapshots: {}", new.consistent_snapshot));
    }
    lines
}

/// Keys that come and go, and thresholds.
fn holders(
    lines: &mut Vec<String>,
    before: &BTreeMap<String, (RoleKeys, bool)>,
    new: &BTreeMap<String, (RoleKeys, bool)>,
) {
    let names: BTreeSet<&String> = before.keys().chain(new.keys()).collect();
    for name in names {
        let ids = |roles: &BTreeMap<String, (RoleKeys, bool)>| -> BTreeSet<KeyId> {
            roles.get(name).map(|(keys, _)| keys.keyids.iter().cloned().collect()).unwrap_or_default()
        };
        let pinned = new.get(name).or(before.get(name)).is_some_and(|(_, pinned)| *pinned);
        let role = if pinned { format!("`{name}` as root pins it") } else { format!("`{name}`") };
        let (old_ids, new_ids) = (ids(before), ids(new));
        for id in new_ids.difference(&old_ids) {
            lines.push(format!("key {} now holds {role}", id.short()));
        }
        for id in old_ids.difference(&new_ids) {
            lines.push(format!("key {} no longer holds {role}", id.short()));
        }
        let threshold =
            |roles: &BTreeMap<String, (RoleKeys, bool)>| roles.get(name).map(|(keys, _)| keys.threshold);
        match (threshold(before), threshold(new)) {
            (Some(old), Some(now)) if old != now => {
                lines.push(format!("{role} takes {now} signatures (was {old})"));
            }
            (None, Some(now)) => lines.push(format!("{role} takes {now} of {} signatures", new_ids.len())),
            (Some(_), None) => lines.push(format!("nobody holds {role} any longer")),
            _ => {}
        }
    }
}

fn targets(before: Option<&Targets>, new: &Targets, files: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    let none = Delegations::default();
    let delegations = |role: Option<&Targets>| {
        role.and_then(|role| role.delegations.clone()).unwrap_or_else(|| none.clone())
    };
    let (old, now) = (delegations(before), delegations(Some(new)));
    let held = |delegations: &Delegations| -> BTreeMap<String, (RoleKeys, bool)> {
        delegations.roles.iter().map(|role| (role.name.to_string(), (role.keys.clone(), false))).collect()
    };
    holders(&mut lines, &held(&old), &held(&now));
    for role in &now.roles {
        let was = old.roles.iter().find(|other| other.name == role.name);
        if was.is_none_or(|was| {
            (&was.paths, &was.path_hash_prefixes, was.terminating)
                != (&role.paths, &role.path_hash_prefixes, role.terminating)
        }) {
            let paths = role.paths.iter().flatten().map(|pattern| format!("`{}`", pattern.as_str()));
            let hashes =
                role.path_hash_prefixes.iter().flatten().map(|prefix| format!("what hashes to {prefix}…"));
            let about = paths.chain(hashes).collect::<Vec<_>>().join(", ");
            let ends = if role.terminating { "" } else { ", and others after it" };
            lines.push(format!("`{}` may speak about {about}{ends}", role.name));
        }
    }
    replaced_keys(&mut lines, &old.keys, &now.keys);

    let nothing = BTreeMap::new();
    let listed = before.map_or(&nothing, |role| &role.targets);
    let paths: BTreeSet<&TargetPath> = listed.keys().chain(new.targets.keys()).collect();
    for path in paths {
        let (was, is) = (listed.get(path), new.targets.get(path));
        if was == is {
            continue;
        }
        let listing = is.or(was).and_then(|file| file.custom.clone());
        let listing = listing.and_then(|custom| serde_json::from_value::<Listing>(custom).ok());
        let digest =
            is.and_then(|file| file.hashes.sha256()).map(|digest| digest.short()).unwrap_or_default();
        match (listing, files.get(path.as_str())) {
            (Some(listing), _) => {
                let release = format!(
                    "{} {} for {} (sequence {})",
                    listing.name, listing.version, listing.platform, listing.sequence
                );
                lines.push(match (was, is) {
                    (None, _) => format!("approves {release}, manifest {digest}"),
                    (Some(_), None) => format!("withdraws the approval of {release}"),
                    (Some(_), Some(_)) => format!("REPLACES the approved {release} by manifest {digest}"),
                });
            }
            (None, Some((was, is))) => small_file(&mut lines, path.as_str(), was.as_deref(), is.as_deref()),
            (None, None) => lines.push(format!("lists `{path}` with digest {digest}")),
        }
    }
    lines
}

/// One key id that stands for another key than before would otherwise look like no change at all.
fn replaced_keys(
    lines: &mut Vec<String>,
    old: &BTreeMap<KeyId, PublicKey>,
    now: &BTreeMap<KeyId, PublicKey>,
) {
    for (id, key) in now {
        if old.get(id).is_some_and(|before| before != key) {
            lines.push(format!("key id {} STANDS FOR ANOTHER KEY than before", id.short()));
        }
    }
}

fn small_file(lines: &mut Vec<String>, path: &str, was: Option<&[u8]>, is: Option<&[u8]>) {
    let Some(is) = is else {
        lines.push(format!("no longer lists `{path}`"));
        return;
    };
    let before = lines.len();
    match path {
        DEPLOYMENT_TARGET => {
            let read = |bytes: &[u8]| Deployment::parse(bytes).ok().map(|deployment| deployment.assignments);
            items(lines, was.and_then(read), read(is), assignment);
        }
        PACKAGERS_TARGET => {
            let read = |bytes: &[u8]| Packagers::parse(bytes).ok().map(|packagers| packagers.packagers);
            items(lines, was.and_then(read), read(is), packager);
        }
        BRAKE_TARGET => {
            let read = |bytes: &[u8]| Brake::parse(bytes).ok().map(|brake| brake.paused);
            items(lines, was.and_then(read), read(is), |pause| {
                format!(
                    "{} (sequence {}, {}) is paused: {}",
                    pause.package, pause.sequence, pause.platform, pause.reason
                )
            });
        }
        _ => {}
    }
    if lines.len() == before && was != Some(is) {
        lines.push(format!("changes `{path}` in a way that this version cannot put into words"));
    }
}

fn items<T: PartialEq>(
    lines: &mut Vec<String>,
    was: Option<Vec<T>>,
    is: Option<Vec<T>>,
    words: impl Fn(&T) -> String,
) {
    let Some(is) = is else { return };
    let was = was.unwrap_or_default();
    lines.extend(
        was.iter().filter(|item| !is.contains(item)).map(|item| format!("no longer: {}", words(item))),
    );
    lines.extend(is.iter().filter(|item| !was.contains(item)).map(|item| format!("new: {}", words(item))));
}

fn assignment(assignment: &Assignment) -> String {
    let colleges = match &assignment.colleges {
        Colleges::All => "all colleges".to_owned(),
        Colleges::Only(colleges) => {
            format!("college {}", colleges.iter().map(SiteId::as_str).collect::<Vec<_>>().join(", "))
        }
    };
    let mode = match assignment.mode {
        AssignmentMode::Required => "required at",
        AssignmentMode::Available => "offered to",
    };
    format!("{} {} ({}) is {mode} {colleges}", assignment.package, assignment.version, assignment.platform)
}

fn packager(packager: &Packager) -> String {
    let packages: Vec<&str> = packager.packages.iter().map(PathPattern::as_str).collect();
    format!(
        "packager {} may sign `{}` dated from {:.0} until {:.0}",
        packager.key.id().short(),
        packages.join("`, `"),
        packager.from,
        packager.until
    )
}
