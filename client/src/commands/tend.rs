//! `verify` and `repair`.

use std::sync::Arc;

use mirabelle_content::ObjectStore;
use mirabelle_manifests::{Node, PackageName, Release, check_approval};
use mirabelle_terminal::{Bar, Failure, OrFail, watch};
use mirabelle_transfer::{Fetcher, Network, ObtainPlan};
use serde::Serialize;

use super::{Context, ask_known};
use crate::config::Config;
use crate::generation::{Generation, Installed};
use crate::native;
use crate::release_tree::{self, Fault};
use crate::settings::MachineSettings;

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
    let missing = native::missing(&context.layout, &current)?;
    verified.faults.extend(
        missing.iter().map(|step| format!("{}: its native package is not on the machine", step.package)),
    );
    // A workstation that was never enrolled has set nothing.
    if let Ok(config) = context.config() {
        let settings = MachineSettings {
            layout: &context.layout,
            machine: &config.machine,
            system_root: &config.system_root,
        };
        let drifted = if settings.may_be_seen() { settings.audit(&current)? } else { Vec::new() };
        for (package, path, what) in drifted {
            verified.faults.push(format!("{package}: the setting `{path}` is {what}"));
        }
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

/// Every release that a generation still holds is put right, since their trees share files: the current ones first, and
/// on past one that cannot be, which is reported at the end.
pub(super) async fn repair(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
    let fetcher = ask_known(context, &config)?;
    let mut repair =
        Repair { context, store: &begun.executor.store, fetcher: &fetcher, config: &config, network: None };
    let mut repaired = Repaired { repaired: Vec::new(), received_bytes: 0 };
    let mut first_failure = None;
    let mut releases = kept_releases(std::slice::from_ref(&begun.current));
    let older = kept_releases(&context.layout.all_generations()?);
    releases.extend(older.into_iter().filter(|release| !releases.contains(release)).collect::<Vec<_>>());
    for (package, installed) in releases {
        match repair.put_right(&package, &installed).await {
            Ok(faults) => repaired.repaired.extend(faults),
            Err(failure) => {
                first_failure.get_or_insert(failure);
            }
        }
    }
    for step in native::missing(&context.layout, &begun.current)? {
        match native::make(&context.layout, &step, false) {
            Ok(_) => repaired.repaired.push(format!("the native package of `{}`", step.package)),
            Err(failure) => {
                first_failure.get_or_insert(failure.into());
            }
        }
    }
    let set = begun.executor.settings().apply(&begun.current)?;
    repaired.repaired.extend(set.iter().map(|path| format!("the setting `{path}`")));
    repaired.received_bytes = fetcher.meter().received();
    context.output.print(&repaired, |repaired| match repaired.repaired.as_slice() {
        [] => "nothing was put right".to_owned(),
        faults => format!("put right:\n  {}", faults.join("\n  ")),
    });
    first_failure.map_or(Ok(()), Err)
}

/// What repairing works with; the node is asked only when something is missing, and then once.
struct Repair<'a> {
    context: &'a Context,
    store: &'a ObjectStore,
    fetcher: &'a Fetcher,
    config: &'a Config,
    network: Option<Network>,
}

impl Repair<'_> {
    async fn put_right(
        &mut self,
        package: &PackageName,
        installed: &Installed,
    ) -> Result<Vec<String>, Failure> {
        let what = || format!("cannot repair `{package}` {}", installed.version);
        let (_, faults) = check(self.context, package, installed)?;
        if faults.is_empty() {
            return Ok(Vec::new());
        }
        release_tree::drop_wrong_objects(&faults, self.store).or_fail(what)?;
        let missing = faults.iter().any(|fault| match fault.entry.node {
            Node::File { sha256, size, .. } => !self.store.holds(sha256, size),
            _ => false,
        });
        if missing {
            self.fetch_missing(package, installed).await?;
        }
        let layout = &self.context.layout;
        let scratch = layout.staging().join(format!("mend-{package}"));
        release_tree::mend(&faults, self.store, &layout.release(package, &installed.id), &scratch)
            .or_fail(what)?;
        Ok(faults.iter().map(|fault| describe(package, fault)).collect())
    }

    /// The manifest is here; that both bodies still stand behind it is asked anew.
    async fn fetch_missing(&mut self, package: &PackageName, installed: &Installed) -> Result<(), Failure> {
        let what = || format!("cannot repair `{package}` {}", installed.version);
        let network = match self.network.take() {
            Some(network) => network,
            None => self.context.refresh(self.config).await?.1,
        };
        let network = self.network.insert(network);
        let entry = network.catalogue.by_digest(installed.release).ok_or_else(|| {
            Failure::no(format!("cannot repair `{package}` {}: it is no longer approved", installed.version))
        })?;
        let manifest = self.context.layout.manifest_bytes(installed)?;
        let release = check_approval(&manifest, entry, &network.packagers).or_fail(what)?;
        let plan = ObtainPlan::new(self.fetcher, Arc::new(release), self.store).await.or_fail(what)?;
        let (cost, meter, partials) =
            (plan.cost(), self.fetcher.meter().clone(), self.context.layout.partials());
        let fetching = plan.execute(self.fetcher, self.store, &partials);
        watch(&format!("repairing {package}"), cost, || meter.received(), fetching).await.or_fail(what)
    }
}

/// Each release of these generations, once.
fn kept_releases(generations: &[Generation]) -> Vec<(PackageName, Installed)> {
    let mut releases: Vec<(PackageName, Installed)> = Vec::new();
    for (package, installed) in generations.iter().rev().flat_map(|generation| &generation.packages) {
        if !releases.iter().any(|(known, other)| known == package && other.release == installed.release) {
            releases.push((package.clone(), installed.clone()));
        }
    }
    releases
}
