//! `status`: what the node holds, since when, and how fresh it is.

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, Table, bytes};
use serde::Serialize;

use super::Context;
use crate::running::{self, Running};
use crate::site::State;

#[derive(Serialize)]
struct Status {
    college: String,
    /// The node's process, if it runs.
    running: Option<Running>,
    stale: bool,
    /// Since when what is served has not been renewed.
    stale_since: Option<Instant>,
    #[serde(flatten)]
    state: State,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let state = context.site.state();
    let stale = state.is_stale(Instant::now());
    let stale_since = state.fresh_until.filter(|_| stale);
    let running = running::find(&context.site)?.map(|found| found.running);
    let status = Status { college: config.college.to_string(), running, stale, stale_since, state };
    context.output.print(&status, |status| {
        let state = &status.state;
        let when =
            |instant: Option<Instant>| instant.map_or("never".to_owned(), |instant| format!("{instant:.0}"));
        let mut table =
            Table::new(["package", "version", "platform", "objects", "bytes", "came by"]).right([3, 4]);
        for held in &state.releases {
            let (objects, size) = (held.objects.to_string(), bytes(held.bytes));
            let came = held
                .came
                .as_ref()
                .map_or_else(String::new, |came| format!("{}, {}", came.way, bytes(came.received_bytes)));
            let (package, version) = (held.package.clone(), held.version.clone());
            table.row([package, version, held.platform.clone(), objects, size, came]);
        }
        let fresh = if status.stale { "STALE since" } else { "fresh until" };
        let failure = state
            .last_failure
            .as_ref()
            .map_or(String::new(), |failure| format!("\nlast sync failed:\n{failure}\n"));
        let runs = status.running.as_ref().map_or("the node does not run".to_owned(), |running| {
            format!("running since {:.0} on {}", running.since, running.address)
        });
        format!(
            "college {}\n{runs}\ncomplete at snapshot {} since {}\n{fresh} {}\nlast looked upstream {}\n\
             received {} in all\n{failure}\n{}",
            status.college,
            state.snapshot,
            when(state.complete_since),
            when(state.fresh_until),
            when(state.refreshed),
            bytes(state.received_bytes),
            table.render()
        )
    });
    Ok(())
}
