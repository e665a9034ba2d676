//! `sync`: mirror once.

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, Table, bytes};

use super::Context;
use crate::link;
use crate::mirror::Mirror;

pub(super) async fn run(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let link = link::open(&context.site, &config, Instant::now()).await;
    let mirror = Mirror::open(context.site.clone(), config, &link)?;
    if dry_run {
        let forecast = mirror.forecast(Instant::now()).await?;
        context.output.print(&forecast, |forecast| {
            let mut table =
                Table::new(["package", "version", "missing objects", "way", "to fetch"]).right([2, 4]);
            for release in forecast {
                let missing = release.missing_objects.map_or_else(String::new, |count| count.to_string());
                let (way, cost) = (release.way.clone(), bytes(release.bytes));
                table.row([release.package.clone(), release.version.clone(), missing, way, cost]);
            }
            table.render()
        });
        mirror.close();
        return Ok(());
    }
    let result = mirror.sync(Instant::now()).await;
    mirror.close();
    context.output.print(&result?, |outcome| {
        let fetched =
            if outcome.fetched.is_empty() { "nothing new".to_owned() } else { outcome.fetched.join(", ") };
        format!(
            "complete at snapshot {}: {} releases held; {fetched}; {} received",
            outcome.snapshot,
            outcome.releases.len(),
            bytes(outcome.received_bytes)
        )
    });
    Ok(())
}
