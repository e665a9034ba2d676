//! `install`, `update`, `remove`, `rollback`: decide, then act.

use std::collections::BTreeSet;

use mirabelle_manifests::{Instant, PackageName, Platform};
use mirabelle_terminal::Failure;
use serde::Serialize;

use super::{Begun, Context, situation};
use crate::decide::Decision;
use crate::generation::Generation;
use crate::plan::{Plan, Shown};
use crate::transaction::Source;

/// What a command came to.
#[derive(Serialize)]
struct Changed {
    generation: u64,
    #[serde(flatten)]
    plan: Shown,
    received_bytes: u64,
    /// Since when the catalogue it was decided by has not been renewed; null while it is fresh.
    stale_since: Option<Instant>,
}

pub(super) async fn install(
    context: &Context,
    packages: &BTreeSet<PackageName>,
    dry_run: bool,
) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin()?;
    let (fetcher, network) = context.refresh(&config).await?;
    let platform = Platform::current();
    let situation = situation(&network, &config, &platform, &begun.current);
    let mut plan = Plan::for_install(&situation, packages)?;
    // What was interrupted goes along, if it may still be had.
    for package in &begun.interrupted {
        if let Decision::Install(entry) | Decision::Update(entry) = situation.decide(package, true) {
            plan.activate.insert(package.clone(), entry);
            plan.asked_for.insert(package.clone());
        }
    }
    let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
    let source = Source { fetcher: &fetcher, network: &network };
    execute(context, &begun, &plan, Some(&source), &format!("install {}", names.join(" ")), dry_run).await
}

pub(super) async fn update(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin()?;
    let (fetcher, network) = context.refresh(&config).await?;
    let platform = Platform::current();
    let plan = Plan::for_update(&situation(&network, &config, &platform, &begun.current), &begun.interrupted);
    let source = Source { fetcher: &fetcher, network: &network };
    execute(context, &begun, &plan, Some(&source), "update", dry_run).await
}

pub(super) async fn remove(
    context: &Context,
    packages: &[PackageName],
    dry_run: bool,
) -> Result<(), Failure> {
    let begun = context.begin()?;
    // An install that never came to its end is given up by removing what it was to install.
    let given_up: BTreeSet<&PackageName> =
        begun.interrupted.iter().filter(|package| packages.contains(package)).collect();
    let installed: Vec<PackageName> =
        packages.iter().filter(|package| !given_up.contains(package)).cloned().collect();
    let plan = Plan::for_remove(&begun.current, &installed)?;
    let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
    execute(context, &begun, &plan, None, &format!("remove {}", names.join(" ")), dry_run).await
}

async fn execute(
    context: &Context,
    begun: &Begun<'_>,
    plan: &Plan,
    source: Option<&Source<'_>>,
    reason: &str,
    dry_run: bool,
) -> Result<(), Failure> {
    let shown = plan.show(&begun.current);
    if dry_run {
        context.output.print(&shown, Shown::render);
        return Ok(());
    }
    let received = || source.map_or(0, |source| source.fetcher.meter().received());
    let generation = begun.executor.execute(plan, source, reason).await?;
    let changed = Changed {
        generation: generation.number,
        plan: shown,
        received_bytes: received(),
        stale_since: source.and_then(|source| source.network.stale_since()),
    };
    context.output.print(&changed, |changed| {
        if plan.is_empty() { changed.plan.render() } else { format!("{}\ndone", changed.plan.render()) }
    });
    Ok(())
}

#[derive(Serialize)]
struct Returned {
    generation: u64,
    changes: Vec<String>,
}

pub(super) fn rollback(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let begun = context.begin()?;
    let current = &begun.current;
    if current.number == 0 {
        return Err(Failure::no("nothing was installed yet: there is nothing to go back to"));
    }
    let target = match current.parent {
        0 => Generation::none(),
        parent => context.layout.read_generation(parent)?,
    };
    let changes = differences(current, &target);
    let mut generation = current.number;
    if !dry_run {
        generation = begun.executor.return_to(going_back(current, &target))?.number;
    }
    context.output.print(&Returned { generation, changes }, |returned| {
        let changes = if returned.changes.is_empty() {
            "nothing differs".to_owned()
        } else {
            returned.changes.join("\n")
        };
        if dry_run { format!("would go back:\n{changes}") } else { format!("went back:\n{changes}") }
    });
    Ok(())
}

/// `target`'s packages under a new number. What `current` had newer is held, so that the next `update` does not bring
/// back at once what somebody has just gone back from.
fn going_back(current: &Generation, target: &Generation) -> Generation {
    let mut next = target.clone();
    next.reason = format!("rollback to {}", target.number);
    next.held.clone_from(&current.held);
    for (package, installed) in &current.packages {
        let same = target.packages.get(package).is_some_and(|before| before.release == installed.release);
        if !same {
            next.held.insert(package.clone(), installed.sequence);
        }
    }
    // A second rollback leads on into the past rather than back to where this one came from.
    next.parent = target.parent;
    next
}

fn differences(current: &Generation, target: &Generation) -> Vec<String> {
    let names: BTreeSet<&PackageName> = current.packages.keys().chain(target.packages.keys()).collect();
    let line = |package: &PackageName| match (current.packages.get(package), target.packages.get(package)) {
        (Some(now), Some(then)) if now.release != then.release => {
            Some(format!("{package} {} → {}", now.version, then.version))
        }
        (Some(now), None) => Some(format!("{package} {} is no longer installed", now.version)),
        (None, Some(then)) => Some(format!("{package} {} is installed again", then.version)),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}
