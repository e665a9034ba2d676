//! `routes`: the ways to a release that the upstream offers, what each costs from what is held, and which one is taken.

use std::collections::BTreeSet;

use mirabelle_manifests::{CatalogueEntry, Instant, PackageName, Version};
use mirabelle_terminal::{Failure, OrFail, ways};
use mirabelle_transfer::{
    Fetcher, HeldManifest, Network, ReleasePlan, ReleaseRequest, RetryPolicy, Stock, fetch_release,
    kept_network,
};

use super::Context;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) package: &'a PackageName,
    /// A version, or what the college is owed.
    pub(super) version: Option<&'a Version>,
    /// A version to suppose held, or `none`; otherwise what is held.
    pub(super) from: Option<&'a str>,
}

pub(super) async fn run(context: &Context, question: &Question<'_>) -> Result<(), Failure> {
    let config = context.config()?;
    let upstream = config.upstreams.first().ok_or_else(|| Failure::usage("no upstream is configured"))?;
    let fetcher =
        Fetcher::new(upstream.clone(), RetryPolicy::default()).or_fail(|| "cannot ask".to_owned())?;
    // Beside the running service, which keeps the metadata fresh: nothing is written here.
    let now = Instant::now();
    let network = kept_network(&context.site.trust(), now)
        .await
        .or_fail(|| "cannot read the catalogue".to_owned())
        .map_err(|failure| failure.hint("run `mirabelle-node sync`"))?;
    let package = question.package;
    let wanted: Vec<&CatalogueEntry> = match question.version {
        Some(version) => network.catalogue.iter().filter(|entry| entry.listing.version == *version).collect(),
        None => network.deployment.owed(&network.catalogue, &config.college, now),
    };
    let mut plans = Vec::new();
    for entry in wanted.into_iter().filter(|entry| entry.listing.name == *package) {
        plans.push(explain(context, &fetcher, &network, entry, question.from).await?);
    }
    if plans.is_empty() {
        return Err(match question.version {
            Some(version) => Failure::no(format!("`{package}` {version} is not in the catalogue")),
            None => Failure::no(format!("`{package}` is not deployed to college {}", config.college))
                .hint("name a version with --release"),
        });
    }
    context.output.print(&plans, |plans| plans.iter().map(ways).collect::<Vec<_>>().join("\n"));
    Ok(())
}

async fn explain(
    context: &Context,
    fetcher: &Fetcher,
    network: &Network,
    entry: &CatalogueEntry,
    from: Option<&str>,
) -> Result<ReleasePlan, Failure> {
    let served = context.site.served();
    let what = || format!("cannot plan `{} {}`", entry.listing.name, entry.listing.version);
    let (stock, held, manifest) = match from {
        None => {
            let held = served.held_manifests(&network.catalogue, entry)?;
            (Stock::Store(context.site.objects_read_only()), held, served.manifest(entry)?)
        }
        Some("none") => (Stock::Supposed(BTreeSet::new()), Vec::new(), None),
        Some(version) => {
            let base = network.catalogue.iter().find(|other| {
                let listing = &other.listing;
                listing.name == entry.listing.name
                    && listing.platform == entry.listing.platform
                    && listing.version.as_str() == version
            });
            let base = base.ok_or_else(|| {
                Failure::no(format!("`{}` {version} is not in the catalogue", entry.listing.name))
            })?;
            let (release, bytes) = fetch_release(fetcher, network, base, None).await.or_fail(what)?;
            let objects = release.objects().into_keys().collect();
            (Stock::Supposed(objects), vec![HeldManifest { release: base.digest, bytes }], None)
        }
    };
    let mut request =
        ReleaseRequest::new(fetcher, network, entry, stock, held, manifest).await.or_fail(what)?;
    request.plan().await.or_fail(what)
}
