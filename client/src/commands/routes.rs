//! `routes`: the ways to a release that the node offers, what each costs from what is installed, and which one is taken.

use mirabelle_content::ObjectStore;
use mirabelle_manifests::{CatalogueEntry, PackageName, Platform};
use mirabelle_terminal::{Failure, OrFail, ways};
use mirabelle_transfer::Network;

use super::{Context, situation};
use crate::config::Config;
use crate::decide::Decision;
use crate::transaction::{Source, request};

pub(super) async fn run(context: &Context, package: &PackageName) -> Result<(), Failure> {
    let config = context.config()?;
    let (fetcher, network) = context.refresh(&config).await?;
    let entry = wanted(context, &config, &network, package)?;
    let source = Source { fetcher: &fetcher, network: &network };
    let store = ObjectStore::read_only(context.layout.root());
    let mut request = request(&context.layout, &store, &source, &entry).await?;
    let plan = request.plan().await.or_fail(|| format!("cannot plan `{package}`"))?;
    context.output.print(&plan, ways);
    Ok(())
}

/// The release that `install` or `update` would take; else the newest there is.
fn wanted(
    context: &Context,
    config: &Config,
    network: &Network,
    package: &PackageName,
) -> Result<CatalogueEntry, Failure> {
    let current = context.layout.current_generation()?;
    let platform = Platform::current();
    if let Decision::Install(entry) | Decision::Update(entry) =
        situation(network, config, &platform, &current).decide(package, true)
    {
        return Ok(entry);
    }
    let of_package = network
        .catalogue
        .iter()
        .filter(|entry| entry.listing.name == *package && entry.listing.platform.runs_on(&platform));
    let newest = of_package.max_by_key(|entry| entry.listing.sequence);
    newest.cloned().ok_or_else(|| Failure::no(format!("`{package}` is not in the catalogue")))
}
