//! `verify`: everything the node serves, read and checked.
//!
//! The metadata is verified as a workstation would, each manifest for both bodies, each object against its digest. A
//! wrong object is set aside, so that it is neither served nor believed, and the next sync fetches it again.

use std::sync::Arc;

use fs_err as fs;
use mirabelle_manifests::{Digest, Instant, check_approval};
use mirabelle_terminal::{Bar, Failure, OrFail};
use mirabelle_transfer::kept_network;
use serde::Serialize;

use super::Context;
use crate::index::leave_doubt;

#[derive(Serialize)]
struct Verified {
    releases: usize,
    objects: usize,
    bytes: u64,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let site = &context.site;
    let college = context.config()?.college;
    let what = || "what is served does not verify".to_owned();
    let copy = tempfile::tempdir().or_fail(what)?;
    let store = site.served().export(copy.path())?;
    store.trust(&site.trust().root().or_fail(what)?).or_fail(what)?;
    let network = kept_network(&store, Instant::now()).await.or_fail(what)?;

    let objects = site.objects_read_only();
    let mut verified = Verified { releases: 0, objects: 0, bytes: 0 };
    let mut wrong: Vec<String> = Vec::new();
    for assignment in network.deployment.for_college(&college).into_values() {
        let entry = network.catalogue.get(&assignment.package, &assignment.platform, assignment.sequence);
        let Some(entry) = entry else { continue };
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        let Some(manifest) = site.served().manifest(entry)? else {
            wrong.push(format!("`{label}`: its manifest is missing or wrong"));
            continue;
        };
        let release = check_approval(&manifest, entry, &network.packagers)
            .or_fail(|| format!("`{label}` does not verify"))?;
        let bar = Bar::bytes(&format!("verifying {label}"), release.installed_size());
        let release = Arc::new(release);
        let (reading, store, progress) = (release.clone(), objects.clone(), bar.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for (digest, object) in reading.objects() {
                if let Err(error) = store.verify(digest, object.size) {
                    found.push((digest, error.to_string()));
                }
                progress.advance(object.size);
            }
            found
        });
        for (object, error) in found.await.or_fail(what)? {
            set_aside(context, object)?;
            wrong.push(format!("`{label}`: {error}"));
        }
        bar.finish();
        verified.releases += 1;
        verified.objects += release.objects().len();
        verified.bytes += release.objects().values().map(|object| object.size).sum::<u64>();
    }
    if !wrong.is_empty() {
        leave_doubt(&site.path(""));
        let list = wrong.join("\n  ");
        return Err(Failure::no(format!("{} of what is served is wrong or missing:\n  {list}", wrong.len()))
            .hint("it was set aside; the next sync fetches it again"));
    }
    context.output.print(&verified, |verified| {
        format!(
            "all is well: {} releases, {} objects, {}",
            verified.releases,
            verified.objects,
            mirabelle_terminal::bytes(verified.bytes)
        )
    });
    Ok(())
}

fn set_aside(context: &Context, object: Digest) -> Result<(), Failure> {
    let what = || format!("cannot set object {object} aside");
    let path = context.site.objects_read_only().path(object);
    if !path.exists() {
        return Ok(());
    }
    let quarantine = context.site.path("quarantine");
    fs::create_dir_all(&quarantine).or_fail(what)?;
    fs::rename(&path, quarantine.join(object.to_string())).or_fail(what)
}
