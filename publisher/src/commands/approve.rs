//! `approve`: an approver's signature under the catalogue with some more releases in it.

use mirabelle_manifests::network::catalogue_role;
use mirabelle_manifests::tuf::{TargetFile, Targets};
use mirabelle_manifests::{Custom, Instant, Listing, PackageName, Platform};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use super::draft::who;
use crate::cli::Approve;
use crate::drafts::Outcome;
use crate::keyfile;
use crate::submission::{Submission, read_catalogue};

#[derive(Serialize)]
struct Approved {
    releases: Vec<String>,
    #[serde(flatten)]
    signed: Outcome,
}

pub(super) fn run(context: &mut Context, arguments: &Approve) -> Result<(), Failure> {
    let repository = context.repository()?;
    let _lock = repository.lock()?;
    let role = catalogue_role();
    if arguments.discard_draft {
        let drafts = repository.drafts()?;
        let bins = repository.catalogue_bins()?;
        for role in drafts.keys().filter(|draft| **draft == role || bins.contains(draft)) {
            repository.drop_draft(role, context.now)?;
        }
    }

    // Decide: everything named must be fit to be approved before anything is signed.
    let mut catalogue = repository.catalogue()?;
    let packagers = repository.packagers()?;
    let drafts = repository.drafts()?;
    let drafts = drafts.values().filter_map(|draft| serde_json::from_slice(&draft.json().to_file()).ok());
    let drafts: Vec<Targets> = drafts.collect();
    let now = Instant::from_second(context.now.as_second()).ok();
    let mut releases = Vec::new();
    for wanted in &arguments.releases {
        let submission = repository.submission(wanted, arguments.platform.as_ref())?;
        let label = submission.label();
        let packager =
            packagers.packager_of(&submission.signed).or_fail(|| format!("cannot approve `{label}`"))?;
        if !packager.authorised_at(context.now) {
            return Err(Failure::trust(format!(
                "cannot approve `{label}`: its packager is not authorised today"
            )));
        }
        let release = &submission.signed.release;
        let newest = newest(&read_catalogue(&catalogue)?, &release.name, &release.platform);
        if newest >= Some(release.sequence) {
            return Err(Failure::no(format!(
                "cannot approve `{label}`: its sequence {} is not above {}, which is approved already",
                release.sequence,
                newest.unwrap_or_default()
            ))
            .hint("raise `sequence` in the recipe and build again"));
        }
        if catalogue.targets.contains_key(&release.target_path()) {
            // In its place, it would take the approval from the one that colleges have.
            return Err(Failure::no(format!(
                "cannot approve `{label}`: this version is approved already, with other content"
            ))
            .hint("give it a version of its own, for example with `+2` at the end"));
        }
        let approved = drafted(&drafts, &submission).or(now);
        list(&mut catalogue.targets, &submission, &label, approved)?;
        repository.put_target(&release.target_path(), &submission.manifest)?;
        releases.push(label);
    }

    // Act.
    let keys = keyfile::open_all(&arguments.keys, &mut context.passphrase)?;
    repository.check_holders(std::slice::from_ref(&role), &keys)?;
    let signed = repository.propose_catalogue(&catalogue, &keys, context.now)?;
    context.output.print(&Approved { releases, signed }, |approved| {
        let releases = approved.releases.join("`, `");
        match &approved.signed {
            Outcome::Complete { version } => {
                format!("approved `{releases}` (catalogue version {version}); `publish` makes it known")
            }
            Outcome::Waiting(progress) => format!("`{releases}` waits: {}", who(progress)),
        }
    });
    Ok(())
}

/// When the first approver asked for this release, if others are still to sign: they sign the same words.
fn drafted(drafts: &[Targets], submission: &Submission) -> Option<Instant> {
    let path = submission.signed.release.target_path();
    let files = drafts.iter().filter_map(|draft| draft.targets.get(&path));
    let mut same = files.filter(|file| file.hashes.sha256() == Some(submission.signed.digest));
    let custom: Custom = serde_json::from_value(same.next()?.custom.clone()?).ok()?;
    custom.approved
}

fn list(
    targets: &mut std::collections::BTreeMap<mirabelle_manifests::TargetPath, TargetFile>,
    submission: &Submission,
    label: &str,
    approved: Option<Instant>,
) -> Result<(), Failure> {
    let release = &submission.signed.release;
    let custom = Custom { approved, listing: Listing::of(release) };
    let listing = serde_json::to_value(custom).or_fail(|| format!("cannot list `{label}`"))?;
    targets.insert(release.target_path(), TargetFile::of(&submission.manifest, Some(listing)));
    Ok(())
}

fn newest(
    catalogue: &mirabelle_manifests::Catalogue,
    name: &PackageName,
    platform: &Platform,
) -> Option<u64> {
    catalogue.before(name, platform, u64::MAX).map(|entry| entry.listing.sequence)
}
