//! `review`: what a submitted release changes against the one approved before it.

use std::path;

use mirabelle_content::durable;
use mirabelle_manifests::SignedRelease;
use mirabelle_terminal::{Failure, OrFail};

use super::Context;
use crate::cli;
use crate::repository::Repository;
use crate::review::{Review, Side, html, text};
use crate::sbom::Inventory;
use crate::submission::read_catalogue;

pub(super) fn run(context: &Context, arguments: &cli::Review) -> Result<(), Failure> {
    let repository = context.repository()?;
    let wanted = &arguments.release;
    let submission = repository.submission(&wanted.release, wanted.platform.as_ref())?;
    let now = &submission.signed;
    let packagers = repository.packagers()?;
    let packager =
        packagers.packager_of(now).or_fail(|| format!("`{}` must not be approved", submission.label()))?;
    let inventory = inventory(&repository, now)?;
    let now = Side { signed: now, packager: Some(packager), inventory: inventory.as_ref() };

    let previous = approved_before(&repository, now.signed)?;
    let before = match &previous {
        Some(signed) => Some((signed, self::inventory(&repository, signed)?)),
        None => None,
    };
    let before = before.as_ref().map(|(signed, inventory)| Side {
        signed,
        packager: packagers.packager_of(signed).ok(),
        inventory: inventory.as_ref(),
    });

    let review = Review::new(before.as_ref(), &now, packager, context.now);
    if let Some(file) = &arguments.html {
        let what = || format!("cannot write the page `{}`", file.display());
        let file = path::absolute(file).or_fail(what)?;
        durable::write_atomically(&file, html::render(&review).as_bytes()).or_fail(what)?;
    }
    context.output.print(&review, text::render);
    Ok(())
}

/// The release of the same package and platform that is approved with the highest sequence below.
fn approved_before(repository: &Repository, now: &SignedRelease) -> Result<Option<SignedRelease>, Failure> {
    let release = &now.release;
    let catalogue = read_catalogue(&repository.catalogue()?)?;
    let Some(entry) = catalogue.before(&release.name, &release.platform, release.sequence) else {
        return Ok(None);
    };
    let bytes = repository.target(&entry.path, entry.digest)?;
    SignedRelease::parse(&bytes).or_fail(|| format!("`{}` cannot be read", entry.path)).map(Some)
}

fn inventory(repository: &Repository, signed: &SignedRelease) -> Result<Option<Inventory>, Failure> {
    let what = || format!("cannot read the SBOM of `{} {}`", signed.release.name, signed.release.version);
    let Some(bytes) = repository.sbom(signed)? else { return Ok(None) };
    Inventory::parse(&bytes).or_fail(what).map(Some)
}
