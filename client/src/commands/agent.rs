//! `agent`: the service; `resume`: what it does before anybody logs in; and asking it, for whoever may not do it herself.

use std::collections::BTreeSet;
use std::time::Duration;

use mirabelle_manifests::{PackageName, Quarantine};
use mirabelle_terminal::{Failure, OrFail, runtime};
use serde::Serialize;

use super::{Context, change};
use crate::agent::evening::Measured;
use crate::agent::kept::{MEASURED, OUTLOOK};
use crate::agent::self_update::{self, OWN_PACKAGE, Start};
use crate::agent::{Agent, socket};
use crate::outlook::Outlook;
use crate::platform;

/// What is short enough to be finished while somebody waits to log in, each and together.
const SHORT: Duration = Duration::from_secs(20);
const SHORT_TOGETHER: Duration = Duration::from_mins(1);

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    // Each round takes one release back, and never tries it again.
    while self_update::hand_over(&context.layout)? == Start::GoBack {
        go_back(context)?;
    }
    runtime()?.block_on(async { Agent::new(context.layout.clone(), config)?.run().await })
}

/// The installed release of this program never came up: the one before is current again, and this one is not tried again.
fn go_back(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
    let layout = &context.layout;
    let mut next = begun.current.clone();
    let Some((package, failed)) = next
        .packages
        .iter()
        .find(|(package, _)| package.as_str() == OWN_PACKAGE)
        .map(|(package, installed)| (package.clone(), installed.release))
    else {
        return Ok(());
    };
    tracing::error!("the new agent did not come up, and is taken back");
    let why = "the agent did not come up".to_owned();
    layout.change_state(|state| state.quarantine(failed, Quarantine { since: context.now, why }))?;
    let before = layout.all_generations()?.into_iter().rev().find_map(|generation| {
        generation.packages.get(&package).filter(|installed| installed.release != failed).cloned()
    });
    match before {
        Some(before) => next.packages.insert(package, before),
        None => next.packages.remove(&package),
    };
    next.reason = "the agent did not come up".to_owned();
    begun.executor.return_to(next)?;
    self_update::forget(layout)
}

#[derive(Serialize)]
struct Resumed {
    /// What had been interrupted, if something was.
    interrupted: Option<String>,
    generation: u64,
}

/// Finishes or takes back what was interrupted; before login also what an evening left and takes a moment.
pub(super) async fn resume(context: &Context, before_login: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let interrupted = context.layout.journaled()?.map(|transaction| transaction.reason);
    let resumed = {
        let begun = context.begin(&config)?;
        Resumed { interrupted, generation: begun.current.number }
    };
    let short = if before_login { short(context) } else { BTreeSet::new() };
    if !short.is_empty() {
        return change::update(context, &short, true, false).await;
    }
    context.output.print(&resumed, |resumed| match &resumed.interrupted {
        Some(reason) => {
            format!("`{reason}` had been interrupted; generation {} is current", resumed.generation)
        }
        None => "nothing had been interrupted".to_owned(),
    });
    Ok(())
}

/// What is due, here already, and known to take a moment.
fn short(context: &Context) -> BTreeSet<PackageName> {
    let outlook: Outlook = context.layout.kept(OUTLOOK).unwrap_or_default();
    let measured: Measured = context.layout.kept(MEASURED).unwrap_or_default();
    let mut left = SHORT_TOGETHER;
    let mut short = BTreeSet::new();
    for due in outlook.due.iter().filter(|due| due.prepared) {
        let expected = measured.expect(due);
        if expected <= SHORT
            && let Some(rest) = left.checked_sub(expected)
        {
            left = rest;
            short.insert(due.package.clone());
        }
    }
    short
}

/// Asks the agent, for somebody who may not change the directory herself; `None` if she may, or no agent is there.
pub(super) fn instead(context: &Context, request: &socket::Request) -> Option<Result<(), Failure>> {
    let (root, path) = (context.layout.root(), context.layout.agent_socket());
    if platform::may_write(root) || !path.exists() {
        return None;
    }
    let asked = socket::ask(&path, request).or_fail(|| "cannot ask the agent of this machine".to_owned());
    Some(asked.and_then(|answer| {
        context.output.pass_on(&answer.printed);
        if answer.code == 0 {
            return Ok(());
        }
        let said = answer.said.trim_start_matches("error: ").trim_end().to_owned();
        Err(Failure::no(said))
    }))
}
