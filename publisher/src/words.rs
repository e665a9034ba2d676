//! What a change of a role means, in words: what somebody reads before she signs.
//!
//! Everything that can differ between two versions is either named here or summed up in a line that says so; nothing
//! that is signed is passed over in silence.

pub(crate) mod policy;

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::network::{BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, catalogue_role};
use mirabelle_manifests::tuf::{Delegations, RoleDocument, RoleKeys, RoleName, Root, TargetFile, Targets};
use mirabelle_manifests::{
    Brake, Deployment, Json, Listing, Packager, Packagers, PathPattern, TargetPath, release_target,
};

use crate::drafts::Signed;
use crate::review::visible;

/// The small files that a role lists, by path: what they were and what they become.
pub(crate) type Files = BTreeMap<String, (Option<Vec<u8>>, Option<Vec<u8>>)>;

/// The lines that say what `new` changes against `before`.
pub(crate) fn describe(role: &RoleName, before: Option<&Signed>, new: &Signed, files: &Files) -> Vec<String> {
    let mut lines = match (before, new) {
        (Some(Signed::Root(before)), Signed::Root(new)) => root(Some(&before.signed), &new.signed),
        (_, Signed::Root(new)) => root(None, &new.signed),
        (Some(Signed::Targets(before)), Signed::Targets(new)) => {
            targets(role, Some(&before.signed), &new.signed, files)
        }
        (_, Signed::Targets(new)) => targets(role, None, &new.signed, files),
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
    // What others wrote must not move the cursor over what is said about it.
    lines.iter().map(|line| visible(line)).collect()
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

/// Holders by role, and by whether it is root's own word about a delegated role.
type Holders = BTreeMap<(String, bool), RoleKeys>;

fn root(before: Option<&Root>, new: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    let held = |root: &Root| -> Holders {
        let roles = root.roles.iter().map(|(role, keys)| ((role.to_string(), false), keys.clone()));
        let pinned = root.quorums.iter().map(|(role, keys)| ((role.to_string(), true), keys.clone()));
        roles.chain(pinned).collect()
    };
    holders(&mut lines, &before.map(held).unwrap_or_default(), &held(new));
    if before.map(|root| root.grace_days) != Some(new.grace_days) {
        lines.push(format!("what expired stays usable for {} days", new.grace_days.unwrap_or_default()));
    }
    if before.is_none_or(|root| root.consistent_snapshot != new.consistent_snapshot) {
        lines.push(format!("consistent snapshots: {}", new.consistent_snapshot));
    }
    specification(&mut lines, before, new);
    deceptive_keys(&mut lines, before.map(|root| &root.keys), &new.keys);
    lines
}

fn specification<T: RoleDocument>(lines: &mut Vec<String>, before: Option<&T>, new: &T) {
    if before.is_some_and(|before| before.spec_version() != new.spec_version()) {
        lines.push(format!("is written to specification {}", new.spec_version()));
    }
}

/// Keys that come and go, and thresholds.
fn holders(lines: &mut Vec<String>, before: &Holders, new: &Holders) {
    let names: BTreeSet<&(String, bool)> = before.keys().chain(new.keys()).collect();
    for named in names {
        let (name, pinned) = named;
        let ids = |roles: &Holders| -> BTreeSet<KeyId> {
            roles.get(named).map(|keys| keys.keyids.iter().cloned().collect()).unwrap_or_default()
        };
        let role = if *pinned { format!("`{name}` as root pins it") } else { format!("`{name}`") };
        let (old_ids, new_ids) = (ids(before), ids(new));
        for id in new_ids.difference(&old_ids) {
            lines.push(format!("key {id} now holds {role}"));
        }
        for id in old_ids.difference(&new_ids) {
            lines.push(format!("key {id} no longer holds {role}"));
        }
        let threshold = |roles: &Holders| roles.get(named).map(|keys| keys.threshold);
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

/// An id is only a name: it could stand for another key than the one that holders know by it.
fn deceptive_keys(
    lines: &mut Vec<String>,
    before: Option<&BTreeMap<KeyId, PublicKey>>,
    new: &BTreeMap<KeyId, PublicKey>,
) {
    for (id, key) in new {
        if key.id() != *id {
            lines.push(format!("key id {id} IS NOT THAT KEY'S: its own is {}", key.id()));
        }
        if before.and_then(|before| before.get(id)).is_some_and(|before| before != key) {
            lines.push(format!("key id {id} STANDS FOR ANOTHER KEY than before"));
        }
        if key.is_unsupported() {
            lines.push(format!("key {id} is of a type that this version cannot verify"));
        }
    }
}

fn targets(role: &RoleName, before: Option<&Targets>, new: &Targets, files: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    specification(&mut lines, before, new);
    delegations(&mut lines, before.and_then(|role| role.delegations.as_ref()), new.delegations.as_ref());

    let nothing = BTreeMap::new();
    let listed = before.map_or(&nothing, |role| &role.targets);
    let paths: BTreeSet<&TargetPath> = listed.keys().chain(new.targets.keys()).collect();
    for path in paths {
        let (was, is) = (listed.get(path), new.targets.get(path));
        if was == is {
            continue;
        }
        let digest =
            is.and_then(|file| file.hashes.sha256()).map(|digest| digest.to_string()).unwrap_or_default();
        if let Some(listing) = is.or(was).and_then(|file| release_listed(role, path, file)) {
            let release = format!(
                "{} {} for {} (sequence {})",
                listing.name, listing.version, listing.platform, listing.sequence
            );
            lines.push(match (was, is) {
                (None, _) => format!("approves {release}, manifest {digest}"),
                (Some(_), None) => format!("withdraws the approval of {release}"),
                (Some(_), Some(_)) => format!("REPLACES the approved {release} by manifest {digest}"),
            });
            continue;
        }
        if is.is_some_and(|file| file.custom.is_some()) {
            lines.push(format!("`{path}` carries a note that nothing reads"));
        }
        match files.get(path.as_str()) {
            Some((was, is)) => small_file(&mut lines, path.as_str(), was.as_deref(), is.as_deref()),
            None if is.is_none() => lines.push(format!("no longer lists `{path}`")),
            None => {
                lines.push(format!("lists `{path}` with digest {digest}, and nobody shows what is in it"));
            }
        }
    }
    lines
}

/// The release that a target is, if it stands where releases do.
pub(crate) fn release_listed(role: &RoleName, path: &TargetPath, file: &TargetFile) -> Option<Listing> {
    let catalogue = catalogue_role();
    let bin = role.as_str().strip_prefix(catalogue.as_str()).is_some_and(|rest| rest.starts_with('-'));
    if *role != catalogue && !bin {
        return None;
    }
    let listing: Listing = serde_json::from_value(file.custom.clone()?).ok()?;
    (release_target(&listing.name, &listing.version, &listing.platform) == *path).then_some(listing)
}

fn delegations(lines: &mut Vec<String>, before: Option<&Delegations>, new: Option<&Delegations>) {
    let none = Delegations::default();
    let (old, now) = (before.unwrap_or(&none), new.unwrap_or(&none));
    let held = |delegations: &Delegations| -> Holders {
        let roles = delegations.roles.iter().map(|role| ((role.name.to_string(), false), role.keys.clone()));
        let bins = delegations
            .bins
            .iter()
            .map(|bins| ((format!("{}-…", bins.name_prefix), false), bins.keys.clone()));
        roles.chain(bins).collect()
    };
    holders(lines, &held(old), &held(now));
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
    let bins = |delegations: &Delegations| {
        delegations.bins.as_ref().map(|bins| format!("{} bins called `{}-…`", bins.count(), bins.name_prefix))
    };
    if bins(old) != bins(now) {
        lines.push(format!("is split into {}", bins(now).unwrap_or_else(|| "no bins".to_owned())));
    }
    let order = |delegations: &Delegations| -> Vec<RoleName> {
        delegations.roles.iter().map(|role| role.name.clone()).collect()
    };
    if before.is_some() && order(old) != order(now) {
        let names: Vec<String> = order(now).iter().map(|role| format!("`{role}`")).collect();
        lines.push(format!("asks its roles in this order: {}", names.join(", ")));
    }
    deceptive_keys(lines, before.map(|delegations| &delegations.keys), &now.keys);
}

fn small_file(lines: &mut Vec<String>, path: &str, was: Option<&[u8]>, is: Option<&[u8]>) {
    let Some(is) = is else {
        lines.push(format!("no longer lists `{path}`"));
        return;
    };
    let before = lines.len();
    match path {
        DEPLOYMENT_TARGET => {
            let read = |bytes: &[u8]| Deployment::parse(bytes).ok();
            if let Some(is) = read(is) {
                lines.extend(policy::changes(&was.and_then(read).unwrap_or_default(), &is));
            }
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

fn packager(packager: &Packager) -> String {
    let packages: Vec<&str> = packager.packages.iter().map(PathPattern::as_str).collect();
    format!(
        "packager {} may sign `{}` dated from {:.0} until {:.0}",
        packager.key.id(),
        packages.join("`, `"),
        packager.from,
        packager.until
    )
}

#[cfg(test)]
mod tests {
    use mirabelle_keys::SigningKey;
    use mirabelle_manifests::tuf::{SuccinctRoles, attach};

    use super::*;

    fn words<T: serde::Serialize>(role: &str, before: &T, new: &T) -> String {
        let role = RoleName::new(role);
        let read = |document: &T| Signed::parse(&role, &attach(document, &[]).unwrap()).unwrap();
        describe(&role, Some(&read(before)), &read(new), &Files::new()).join("\n")
    }

    fn root(holder: &SigningKey) -> Root {
        let mut root = Root::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
        let public = holder.public();
        root.roles.insert(RoleName::root(), RoleKeys { keyids: vec![public.id()], threshold: 1 });
        root.keys.insert(public.id(), public);
        root
    }

    /// Each takes over root, or hides it behind something harmless.
    #[test]
    fn no_takeover_of_root_is_passed_over_in_silence() {
        let [holder, thief] = std::array::from_fn(|_| SigningKey::generate());
        let before = root(&holder);
        let (mine, his) = (holder.public().id(), thief.public().id());

        // The role's keys are replaced, and a quorum of the same name repeats the old ones.
        let mut new = before.clone();
        new.grace_days = Some(30);
        new.quorums.insert(RoleName::root(), before.roles[&RoleName::root()].clone());
        new.roles.get_mut(&RoleName::root()).unwrap().keyids = vec![his.clone()];
        new.keys.insert(his.clone(), thief.public());
        let said = words("root", &before, &new);
        assert!(said.contains(&format!("key {his} now holds `root`\n")), "{said}");
        assert!(said.contains(&format!("key {mine} no longer holds `root`")), "{said}");

        // The id stays, and stands for another key.
        let mut new = before.clone();
        new.grace_days = Some(30);
        new.keys.insert(mine.clone(), thief.public());
        let said = words("root", &before, &new);
        assert!(said.contains("IS NOT THAT KEY'S") && said.contains("STANDS FOR ANOTHER KEY"), "{said}");

        // A role's name that would take back the line above it.
        let mut new = before.clone();
        let keys = RoleKeys { keyids: vec![his], threshold: 1 };
        new.roles.insert(RoleName::new("x\u{1b}[1A\u{1b}[2K"), keys);
        assert!(!words("root", &before, &new).contains('\u{1b}'));
    }

    #[test]
    fn bins_that_appear_are_named_with_their_holders() {
        let thief = SigningKey::generate().public();
        let before = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
        let mut new = before.clone();
        let keys = RoleKeys { keyids: vec![thief.id()], threshold: 1 };
        new.delegations = Some(Delegations {
            bins: Some(SuccinctRoles::new(1, keys, "x").unwrap()),
            keys: BTreeMap::from([(thief.id(), thief.clone())]),
            roles: vec![],
        });
        let said = words("catalogue", &before, &new);
        assert!(said.contains("2 bins called `x-…`") && said.contains(&thief.id().to_string()), "{said}");
    }

    /// A listing makes a release of a target only where releases stand.
    #[test]
    fn nothing_but_a_release_is_called_one() {
        let listing = serde_json::json!({"categories": [], "download_size": 1, "installed_size": 1, "licence": "MIT",
            "name": "geogebra", "platform": "any", "sequence": 1, "summary": {"fr": "x", "en": "x"},
            "title": {"fr": "x", "en": "x"}, "version": "1"});
        let file = TargetFile::of(b"x", Some(listing));
        let genuine = TargetPath::new("packages/geogebra/1/any/release.json");
        let named =
            |role: &str, path: &TargetPath| release_listed(&RoleName::new(role), path, &file).is_some();
        assert!(named("catalogue", &genuine) && named("catalogue-0f", &genuine));
        assert!(!named("targets", &genuine));
        assert!(!named("catalogue", &TargetPath::new(PACKAGERS_TARGET)));
    }
}
