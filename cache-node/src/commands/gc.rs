//! `gc`: remove what the college is not owed any more. The node does so by itself after each change of what it serves.

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail, bytes};
use mirabelle_transfer::kept_network;
use serde::Serialize;

use super::Context;
use crate::garbage::{Collected, Collection};

#[derive(Serialize)]
struct Outcome {
    dry_run: bool,
    #[serde(flatten)]
    collected: Collected,
}

pub(super) async fn run(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let (site, config, now) = (&context.site, context.config()?, Instant::now());
    let network = kept_network(&site.trust(), now)
        .await
        .or_fail(|| format!("cannot tell what college {} is owed", config.college))?;
    // Read before the right to sweep is had; worth something only if it is what is served once it is, which is compared.
    let collection =
        Collection { site, network: &network, college: &config.college, keep: config.keep_unassigned, now };
    let collecting = tokio::task::block_in_place(|| collection.run(dry_run))?;
    let collected = collecting.ok_or_else(|| {
        Failure::no("the node is mirroring").hint("it collects by itself once that is done")
    })?;
    context.output.print(&Outcome { dry_run, collected }, |Outcome { collected, .. }| {
        let (would, names) = (if dry_run { "would free" } else { "freed" }, collected.releases.join(", "));
        let names = if names.is_empty() { "no release".to_owned() } else { names };
        let waiting = match collected.waiting.join(", ") {
            none if none.is_empty() => none,
            some => format!("\nnot owed any more, and kept for a while: {some}"),
        };
        format!("{would} {}: {names}; {} objects{waiting}", bytes(collected.bytes), collected.objects)
    });
    Ok(())
}
