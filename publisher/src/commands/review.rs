//! `review`: what a submitted release changes against the one approved before it.

use std::io::{Seek, SeekFrom};
use std::path;

use mirabelle_content::bundle::read_object;
use mirabelle_content::durable;
use mirabelle_manifests::{Node, SignedRelease};
use mirabelle_terminal::{Failure, OrFail};

use super::Context;
use crate::cli;
use crate::repository::Repository;
use crate::review::{Review, Side, Templates, html, text};
use crate::sbom::Inventory;
use crate::submission::read_catalogue;

/// The longest template that is shown.
const MAX_TEMPLATE_BYTES: u64 = 256 << 10;

pub(super) fn run(context: &Context, arguments: &cli::Review) -> Result<(), Failure> {
    let repository = context.repository()?;
    let wanted = &arguments.release;
    let submission = repository.submission(&wanted.release, wanted.platform.as_ref())?;
    let now = &submission.signed;
    let packagers = repository.packagers()?;
    let packager =
        packagers.packager_of(now).or_fail(|| format!("`{}` must not be approved", submission.label()))?;
    let inventory = inventory(&repository, now)?;
    let templates = templates(&repository, now)?;
    let now =
        Side { signed: now, packager: Some(packager), inventory: inventory.as_ref(), templates: &templates };

    let previous = approved_before(&repository, now.signed)?;
    let before = match &previous {
        Some(signed) => {
            Some((signed, self::inventory(&repository, signed)?, self::templates(&repository, signed)?))
        }
        None => None,
    };
    let before = before.as_ref().map(|(signed, inventory, templates)| Side {
        signed,
        packager: packagers.packager_of(signed).ok(),
        inventory: inventory.as_ref(),
        templates,
    });

    let showcase = now.signed.release.showcase.clone();
    let in_store = match showcase {
        Some(showcase) => Some((showcase, repository.store_page(now.signed)?.unwrap_or_default())),
        None => None,
    };
    let shown_before = before.as_ref().and_then(|side| side.signed.release.showcase.as_ref());
    let review = Review::new(before.as_ref(), &now, packager, context.now).in_store(in_store, shown_before);
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

/// The text of the templates that a release's settings are made from. What is no text, or too long for anybody to read, is
/// left out, and told by its digest.
fn templates(repository: &Repository, signed: &SignedRelease) -> Result<Templates, Failure> {
    let release = &signed.release;
    let what = || format!("cannot read the templates of `{} {}`", release.name, release.version);
    let mut templates = Templates::new();
    for setting in &release.behaviour.settings {
        let found = release.entries.iter().find(|entry| entry.path == setting.template);
        let Some(Node::File { frame, sha256, size, .. }) = found.map(|entry| &entry.node) else { continue };
        if *size > MAX_TEMPLATE_BYTES || templates.contains_key(&setting.template) {
            continue;
        }
        let before = release.bundle.frames.iter().take(*frame as usize).map(|frame| frame.size).sum();
        let mut bundle = repository.bundle(signed)?;
        bundle.seek(SeekFrom::Start(before)).or_fail(what)?;
        let bytes = read_object(bundle, release, *sha256, MAX_TEMPLATE_BYTES).or_fail(what)?;
        templates.extend(String::from_utf8(bytes).ok().map(|text| (setting.template.clone(), text)));
    }
    Ok(templates)
}
