//! `routes`: the ways to a release that the node offers, what each costs from what is installed, and which one is taken.

use mirabelle_content::ObjectStore;
use mirabelle_manifests::{Asker, CatalogueEntry, Decision, PackageName};
use mirabelle_terminal::{Failure, OrFail, ways};

use super::{Context, Known};
use crate::config::Config;
use crate::transaction::{Source, request};

pub(super) async fn run(context: &Context, package: &PackageName) -> Result<(), Failure> {
    let config = context.config()?;
    let (fetcher, network) = context.refresh(&config).await?;
    let mut known = context.known(network, &config)?;
    let entry = wanted(context, &mut known, &config, package)?;
    let source = Source { fetcher: &fetcher, network: &known.network };
    let store = ObjectStore::read_only(context.layout.root());
    let mut request = request(&context.layout, &store, &source, &entry).await?;
    let plan = request.plan().await.or_fail(|| format!("cannot plan `{package}`"))?;
    context.output.print(&plan, ways);
    Ok(())
}

/// The release that `install` or `update` would take; else the newest there is.
fn wanted(
    context: &Context,
    known: &mut Known,
    config: &Config,
    package: &PackageName,
) -> Result<CatalogueEntry, Failure> {
    known.asking(&[package.clone()].into(), Asker::Administrator);
    if let Some(entry) = known.decide(&context.layout, config)?.get(package).and_then(Decision::release) {
        return Ok(entry.clone());
    }
    let of_package = known.network.catalogue.iter().filter(|entry| {
        entry.listing.name == *package && entry.listing.platform.runs_on(&known.machine.platform)
    });
    let newest = of_package.max_by_key(|entry| entry.listing.sequence);
    newest.cloned().ok_or_else(|| Failure::no(format!("`{package}` is not in the catalogue")))
}
