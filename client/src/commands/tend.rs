//! `verify` and `repair`.

use std::collections::BTreeMap;
use std::sync::Arc;

use mirabelle_manifests::{PackageName, Release};
use mirabelle_terminal::{Bar, Failure, OrFail, watch};
use mirabelle_transfer::{ObtainPlan, fetch_release};
use serde::Serialize;

use super::{Context, ask};
use crate::generation::{Generation, Installed};
use crate::release_tree::{self, Fault};

#[derive(Serialize)]
struct Verified {
    packages: usize,
    files: usize,
    faults: Vec<String>,
}

pub(super) fn verify(context: &Context) -> Result<(), Failure> {
    let current = context.layout.current_generation()?;
    let mut verified = Verified { packages: 0, files: 0, faults: Vec::new() };
    for (package, installed) in &current.packages {
        let (release, faults) = check(context, package, installed)?;
        verified.packages += 1;
        verified.files += release.entries.len();
        verified.faults.extend(faults.iter().map(|fault| describe(package, fault)));
    }
    if !verified.faults.is_empty() {
        let list = verified.faults.join("\n  ");
        return Err(Failure::no(format!("{} files are not as signed:\n  {list}", verified.faults.len()))
            .hint("`mirabelle repair` puts them right"));
    }
    context.output.print(&verified, |verified| {
        format!("all is well: {} packages, {} files", verified.packages, verified.files)
    });
    Ok(())
}

fn describe(package: &PackageName, fault: &Fault) -> String {
    format!("{package}: `{}` is {}", fault.entry.path, fault.what)
        .replace(" is has ", " has ")
        .replace(" is leads ", " leads ")
}

fn check(
    context: &Context,
    package: &PackageName,
    installed: &Installed,
) -> Result<(Release, Vec<Fault>), Failure> {
    let release = context.layout.read_manifest(installed)?;
    let tree = context.layout.release(package, &installed.id);
    let bar = Bar::bytes(&format!("verifying {package}"), release.installed_size());
    let faults = release_tree::check(&release, &tree, &|bytes| bar.advance(bytes))
        .or_fail(|| format!("cannot verify `{package}`"))?;
    bar.finish();
    Ok((release, faults))
}

#[derive(Serialize)]
struct Repaired {
    repaired: Vec<String>,
    received_bytes: u64,
}

/// Every release that a generation still holds is put right, since their trees share files.
pub(super) async fn repair(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin()?;
    let store = &begun.executor.store;
    let fetcher = ask(&config)?;
    let mut repaired = Repaired { repaired: Vec::new(), received_bytes: 0 };
    for (id, (package, installed)) in kept_releases(&context.layout.all_generations()?) {
        let what = || format!("cannot repair `{package}` {}", installed.version);
        let (_, faults) = check(context, &package, &installed)?;
        if faults.is_empty() {
            continue;
        }
        release_tree::drop_wrong_objects(&faults, store).or_fail(what)?;
        // The manifest that is here was approved when it was installed; what is fetched is checked against it anew.
        let (_, network) = context.refresh(&config).await?;
        let entry = network.catalogue.by_digest(installed.release).ok_or_else(|| {
            Failure::no(format!("cannot repair `{package}` {}: it is no longer approved", installed.version))
        })?;
        let (release, _) = fetch_release(&fetcher, &network, entry).await.or_fail(what)?;
        let plan = ObtainPlan::new(&fetcher, Arc::new(release), store).await.or_fail(what)?;
        let (cost, meter, partials) = (plan.cost(), fetcher.meter().clone(), context.layout.partials());
        let fetching = plan.execute(&fetcher, store, &partials);
        watch(&format!("repairing {package}"), cost, || meter.received(), fetching).await.or_fail(what)?;

        let tree = context.layout.release(&package, &installed.id);
        let scratch = context.layout.staging().join(format!("mend-{id}"));
        release_tree::mend(&faults, store, &tree, &scratch).or_fail(what)?;
        repaired.repaired.extend(faults.iter().map(|fault| describe(&package, fault)));
    }
    repaired.received_bytes = fetcher.meter().received();
    context.output.print(&repaired, |repaired| match repaired.repaired.as_slice() {
        [] => "nothing was wrong".to_owned(),
        faults => format!("put right:\n  {}", faults.join("\n  ")),
    });
    Ok(())
}

fn kept_releases(generations: &[Generation]) -> BTreeMap<String, (PackageName, Installed)> {
    let all = generations.iter().flat_map(|generation| &generation.packages);
    all.map(|(package, installed)| {
        (format!("{package}-{}", installed.id), (package.clone(), installed.clone()))
    })
    .collect()
}
