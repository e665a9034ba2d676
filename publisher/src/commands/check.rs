//! `check`: what is valid today and will not do tomorrow. Apart from verification, which says yes or no.
//!
//! A problem is something that readers will refuse, or refuse now; a warning is something that somebody should look at.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, brake_role, catalogue_role, deployment_role, metadata_path,
};
use mirabelle_manifests::tuf::{Document, RoleKeys, RoleName, Root, Snapshot, Targets, Timestamp};
use mirabelle_manifests::{Brake, Catalogue, Deployment, Instant};
use mirabelle_terminal::{Failure, OrFail, Table};

use super::Context;
use super::draft::who;
use crate::cli::Check;
use crate::findings::Findings;
use crate::policy::doubts;
use crate::repository::{Repository, read_document};
use crate::submission::read_catalogue;

/// A step of the sequence this many times as large as any before it is more likely a slip of the finger.
const LONG_STEP: u64 = 1000;

pub(super) fn run(context: &Context, arguments: &Check) -> Result<(), Failure> {
    let repository = context.repository()?;
    let mut findings = Findings::default();
    let root = repository.role::<Root>(&RoleName::root())?.signed;
    let targets = repository.role::<Targets>(&RoleName::targets())?.signed;
    let catalogue = read_catalogue(&repository.catalogue()?)?;

    signatures(&repository, context.now, &mut findings)?;
    expiries(&repository, context.now, arguments.days, &mut findings)?;
    holders(&repository, &root, &targets, &mut findings)?;
    reach(&repository, &targets, &mut findings)?;
    packagers(&repository, &catalogue, context.now, arguments.days, &mut findings)?;
    sequences(&catalogue, &mut findings);
    deployed(&repository, &catalogue, context.now, &mut findings)?;

    let problems = findings.0.iter().filter(|finding| finding.problem).count();
    context.output.print(&findings.0, |findings| {
        if findings.is_empty() {
            return "nothing to look at".to_owned();
        }
        let mut table = Table::new(["", "about", "what"]);
        for finding in findings {
            table.row([finding.kind().to_owned(), finding.about.clone(), finding.text.clone()]);
        }
        table.render()
    });
    match problems {
        0 => Ok(()),
        one_or_more => Err(Failure::no(format!("{one_or_more} to put right"))),
    }
}

fn signatures(repository: &Repository, now: Instant, findings: &mut Findings) -> Result<(), Failure> {
    if let Err(failure) = repository.sound_roles(now) {
        findings.problem("signatures", failure.render().replace('\n', " ").trim().to_owned());
    }
    for (role, draft) in repository.drafts()? {
        let progress = repository.with_drafts()?.progress(&role)?;
        findings.warn(role.to_string(), format!("version {} waits: {}", draft.version(), who(&progress)));
    }
    Ok(())
}

fn expiries(
    repository: &Repository,
    now: Instant,
    days: u16,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let root = repository.role::<Root>(&RoleName::root())?.signed;
    findings.expiry("root", root.expires, now, days, "`role renew root`");
    for role in repository.signed_roles()?.into_iter().skip(1) {
        let expires = repository.role::<Targets>(&role)?.signed.expires;
        findings.expiry(role.to_string(), expires, now, days, &format!("`role renew {role}`"));
    }
    let public = repository.public();
    let timestamp: Option<Document<Timestamp>> =
        read_document(&public.join(metadata_path(&RoleName::timestamp(), None)))?;
    let Some(timestamp) = timestamp else {
        findings.warn("timestamp", "nothing was published yet");
        return Ok(());
    };
    // Renewed with every `publish`, so that a month's notice would be given always.
    let days = days.min(3);
    findings.expiry("timestamp", timestamp.signed.expires, now, days, "`publish` renews it");
    if let Some(version) = timestamp.signed.snapshot().map(|snapshot| snapshot.version) {
        let path = public.join(metadata_path(&RoleName::snapshot(), Some(version)));
        match read_document::<Snapshot>(&path)? {
            Some(snapshot) => {
                findings.expiry("snapshot", snapshot.signed.expires, now, days, "`publish` renews it");
            }
            None => findings.problem("snapshot", format!("version {version} is published and not there")),
        }
    }
    Ok(())
}

/// Keys in two hands, thresholds of one, roles that one lost key would lose.
fn holders(
    repository: &Repository,
    root: &Root,
    targets: &Targets,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let none = BTreeMap::new();
    let delegations = targets.delegations.as_ref();
    let delegated_keys = delegations.map_or(&none, |delegations| &delegations.keys);
    let mut roles: Vec<(RoleName, &RoleKeys, &BTreeMap<KeyId, PublicKey>)> =
        root.roles.iter().map(|(role, keys)| (role.clone(), keys, &root.keys)).collect();
    let delegated = delegations.iter().flat_map(|delegations| &delegations.roles);
    roles.extend(delegated.map(|role| (role.name.clone(), &role.keys, delegated_keys)));

    let online = |role: &RoleName| [RoleName::snapshot(), RoleName::timestamp(), brake_role()].contains(role);
    let mut hands: BTreeMap<KeyId, BTreeSet<String>> = BTreeMap::new();
    for (role, keys, known) in &roles {
        let usable = keys.keyids.iter().filter_map(|id| known.get(id)).filter(|key| !key.is_unsupported());
        let usable = i64::try_from(usable.count()).unwrap_or(i64::MAX);
        if usable < keys.threshold {
            findings.problem(
                role.to_string(),
                format!("{} must sign, and only {usable} keys can", keys.threshold),
            );
        } else if usable == keys.threshold && !online(role) && keys.threshold > 1 {
            findings.warn(role.to_string(), "one lost key would lose the role: add a holder");
        }
        if keys.threshold < 2 && [RoleName::root(), catalogue_role()].contains(role) {
            findings.warn(role.to_string(), "one key is enough to sign it");
        }
        // Freshness is one job with two roles.
        let hand =
            if online(role) && *role != brake_role() { "freshness".to_owned() } else { role.to_string() };
        for id in &keys.keyids {
            hands.entry(id.clone()).or_default().insert(hand.clone());
        }
    }
    for packager in repository.packagers()?.packagers {
        hands.entry(packager.key.id()).or_default().insert("packagers".to_owned());
    }
    for (id, held) in hands.into_iter().filter(|(_, held)| held.len() > 1) {
        let held: Vec<String> = held.into_iter().collect();
        let text = format!("is held for {}", held.join(" and "));
        // Promise 1 is two bodies: an approver who packages is both.
        if held.contains(&catalogue_role().to_string()) && held.contains(&"packagers".to_owned()) {
            findings.problem(format!("key {}", id.short()), format!("{text}: one person is both bodies"));
        } else {
            findings.warn(format!("key {}", id.short()), text);
        }
    }
    if !root.quorums.contains_key(&catalogue_role()) {
        findings.problem("root", "does not pin the approvers: whoever holds `targets` could name others");
    }
    if root.grace_days.is_none() {
        findings.warn("root", "grants no grace: a college that is cut off installs nothing after two weeks");
    }
    Ok(())
}

/// Targets that are not there, roles that nobody leads to.
fn reach(repository: &Repository, targets: &Targets, findings: &mut Findings) -> Result<(), Failure> {
    let delegated: Vec<&RoleName> = targets
        .delegations
        .iter()
        .flat_map(|delegations| &delegations.roles)
        .map(|role| &role.name)
        .collect();
    for role in repository.signed_roles()?.into_iter().skip(1) {
        let bin = repository.catalogue_bins()?.contains(&role);
        if !role.is_top_level() && !bin && !delegated.contains(&&role) {
            findings.problem(role.to_string(), "nobody delegates to it: no reader will find it");
        }
        for (path, file) in repository.role::<Targets>(&role)?.signed.targets {
            let there = file.hashes.sha256().map(|digest| repository.target(&path, digest));
            match there {
                Some(Ok(bytes)) if bytes.len() as u64 == file.length => {}
                Some(Ok(_)) => {
                    findings
                        .problem(path.to_string(), format!("does not have the length that `{role}` states"));
                }
                _ => findings
                    .problem(path.to_string(), format!("is listed by `{role}`, and is missing or damaged")),
            }
        }
    }
    let known = repository.signed_roles()?;
    for role in delegated.into_iter().filter(|role| !known.contains(role)) {
        findings.warn(role.to_string(), "is delegated to, and this publisher does not know the role");
    }
    Ok(())
}

fn packagers(
    repository: &Repository,
    catalogue: &Catalogue,
    now: Instant,
    days: u16,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let packagers = repository.packagers()?;
    for packager in &packagers.packagers {
        let about = format!("packager {}", packager.key.id().short());
        if packager.until > now {
            findings.expiry(about, packager.until, now, days, "then she can package nothing new");
        }
    }
    let active = |name| {
        packagers
            .packagers
            .iter()
            .any(|p| p.authorised_at(now) && p.packages.iter().any(|pattern| pattern.matches(name)))
    };
    let names: BTreeSet<&str> = catalogue.iter().map(|entry| entry.listing.name.as_str()).collect();
    for name in names.into_iter().filter(|name| !active(name)) {
        findings.warn(name, "has no packager today: nobody can bring its next release");
    }
    Ok(())
}

fn sequences(catalogue: &Catalogue, findings: &mut Findings) {
    let mut previous: Option<(&str, &str, u64)> = None;
    let mut longest = 1;
    for entry in catalogue.iter() {
        let listing = &entry.listing;
        let (name, platform) = (listing.name.as_str(), listing.platform.as_str());
        match previous {
            Some((before, on, sequence)) if (before, on) == (name, platform) => {
                let step = listing.sequence - sequence;
                if step > longest * LONG_STEP {
                    let text = format!(
                        "jumps from sequence {sequence} to {}: no later release can be below it",
                        listing.sequence
                    );
                    findings.warn(format!("{name} {}", listing.version), text);
                }
                longest = longest.max(step);
            }
            _ => longest = 1,
        }
        previous = Some((name, platform, listing.sequence));
    }
}

fn deployed(
    repository: &Repository,
    catalogue: &Catalogue,
    now: Instant,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let policy = repository.only_target(&deployment_role(), DEPLOYMENT_TARGET)?;
    let policy = Deployment::parse(&policy).or_fail(|| "the deployment cannot be read".to_owned())?;
    findings.0.extend(doubts(catalogue, &policy, &policy, now).0);
    let brake = repository.only_target(&brake_role(), BRAKE_TARGET)?;
    let brake = Brake::parse(&brake).or_fail(|| "the brake cannot be read".to_owned())?;
    for pause in &brake.paused {
        if catalogue.get(&pause.package, &pause.platform, pause.sequence).is_none() {
            findings.warn(
                pause.package.to_string(),
                format!("sequence {} is paused, and not in the catalogue", pause.sequence),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::tuf::TargetFile;
    use mirabelle_manifests::{Listing, Platform, Text, release_target};

    use super::*;

    #[test]
    fn a_sequence_that_jumps_is_noticed_and_steady_ones_are_not() {
        let found = |numbers: &[u64]| {
            let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
            for sequence in numbers {
                let text = Text { fr: "x".into(), en: "x".into() };
                let listing = Listing {
                    categories: vec![],
                    download_size: 1,
                    installed_size: 1,
                    conflicts: vec![],
                    requires: vec![],
                    licence: "MIT".into(),
                    name: "ruff".parse().unwrap(),
                    platform: Platform::any(),
                    sequence: *sequence,
                    showcase: None,
                    summary: text.clone(),
                    title: text,
                    version: format!("1.{sequence}").parse().unwrap(),
                };
                let path = release_target(&listing.name, &listing.version, &listing.platform);
                let custom = Some(serde_json::to_value(listing).unwrap());
                role.targets.insert(path, TargetFile::of(&sequence.to_le_bytes(), custom));
            }
            let mut findings = Findings::default();
            sequences(&Catalogue::read(&role).unwrap(), &mut findings);
            findings.0.into_iter().map(|finding| finding.about).collect::<Vec<_>>()
        };
        assert!(found(&[1, 2, 3, 40]).is_empty());
        // Dates, of one kind or in steps that grow with care.
        assert!(found(&[20_260_101, 20_260_215, 20_261_001]).is_empty());
        assert_eq!(found(&[1, 2, 20_261_001, 20_261_002]), ["ruff 1.20261001"]);
    }
}
