//! `submit`: a built release, checked and kept until the rectorat has looked at it.

use fs_err as fs;
use mirabelle_content::bundle::verify_bundle;
use mirabelle_content::durable;
use mirabelle_manifests::Digest;
use mirabelle_terminal::{Bar, Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::audit::{Event, Record};
use crate::cli::Submit;
use crate::sbom::{self, Inventory};
use crate::storefront::{read_files, write_files};
use crate::submission::{Submission, checked_sbom};

#[derive(Serialize)]
struct Submitted {
    release: Digest,
    label: String,
}

pub(super) fn run(context: &mut Context, arguments: &Submit) -> Result<(), Failure> {
    let repository = context.repository()?;
    let _lock = repository.lock()?;
    let built = Submission::read(arguments.built.clone())?;
    let label = built.label();
    let what = || format!("cannot submit `{label}`");

    // The packager must be authorised for this package, at its date and today.
    let packagers = repository.packagers()?;
    let packager = packagers.packager_of(&built.signed).or_fail(what)?;
    if !packager.authorised_at(context.now) {
        let id = packager.key.id();
        return Err(Failure::trust(format!(
            "cannot submit `{label}`: packager {} is not authorised today",
            id.short()
        )));
    }

    let destination = repository.submission_directory(built.signed.digest);
    if destination.exists() {
        return Err(Failure::no(format!("`{label}` was submitted before")));
    }
    let Some(expected) = built.signed.release.sbom else {
        return Err(Failure::no(format!("cannot submit `{label}`: it was signed without an SBOM"))
            .hint("build it again; `sbom` in the recipe supplies one, else it is made"));
    };
    let sbom = checked_sbom(&built.sbom(), expected)?;
    Inventory::parse(&sbom).or_fail(what)?;
    let media = read_files(built.signed.release.showcase.as_ref(), &built.directory.join("media"))?;
    let bar = Bar::bytes("checking the bundle", built.signed.release.bundle.size);
    let bundle = fs::File::open(built.bundle()).or_fail(what)?;
    verify_bundle(bundle, &built.signed.release, &mut |bytes| bar.advance(bytes)).or_fail(what)?;
    bar.finish();

    let submitted = repository.path("submitted");
    fs::create_dir_all(&submitted).or_fail(what)?;
    let staging = tempfile::Builder::new().prefix(".submitting-").tempdir_in(&submitted).or_fail(what)?;
    fs::copy(built.bundle(), staging.path().join("bundle.tar.zst")).or_fail(what)?;
    durable::write_atomically(&staging.path().join(sbom::FILE_NAME), &sbom).or_fail(what)?;
    write_files(&media, &staging.path().join("media"))?;
    durable::write_atomically(&staging.path().join("release.json"), &built.manifest).or_fail(what)?;
    fs::File::open(staging.path().join("bundle.tar.zst")).and_then(|file| file.sync_all()).or_fail(what)?;
    fs::rename(staging.path(), &destination).or_fail(what)?;
    durable::sync_directory(&submitted).or_fail(what)?;

    let what_for = vec![format!("{label}, manifest {}", built.signed.digest.short())];
    let record =
        Record { event: Event::Submitted, document: None, keys: vec![packager.key.id()], what: what_for };
    repository.record(record, context.now)?;
    let result = Submitted { release: built.signed.digest, label };
    context.output.print(&result, |result| {
        let release = &built.signed.release;
        format!(
            "submitted `{}`; the approvers look at it with `review {}@{}`",
            result.label, release.name, release.version
        )
    });
    Ok(())
}
