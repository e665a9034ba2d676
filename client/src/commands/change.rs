//! `install`, `update`, `prepare`, `remove`, `rollback`: decide, then act.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use mirabelle_manifests::{
    Asker, AssignmentMode, CatalogueEntry, Instant, Keep, MachineState, PackageName, Reason,
};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::{Begun, Context, ask_known};
use crate::faults::point;
use crate::generation::Generation;
use crate::plan::{InstallPlan, Shown};
use crate::platform;
use crate::transaction::Source;

/// What a command came to.
#[derive(Serialize)]
struct Changed {
    generation: u64,
    #[serde(flatten)]
    plan: Shown,
    /// Files of the machine that were not as they should be, and are now.
    settings: Vec<String>,
    /// Native packages that count once the machine was restarted.
    restart: Vec<PackageName>,
    received_bytes: u64,
    /// Since when the catalogue it was decided by has not been renewed; null while it is fresh.
    stale_since: Option<Instant>,
}

/// What somebody asks for.
pub(super) struct Wish {
    pub(super) packages: BTreeSet<PackageName>,
    pub(super) asker: Asker,
    /// Take over what is there, and run no installer.
    pub(super) adopt: bool,
}

pub(super) async fn install(context: &Context, wish: &Wish, dry_run: bool) -> Result<(), Failure> {
    let Wish { packages, asker, adopt } = wish;
    let config = context.config()?;
    let begun = context.begin(&config)?;
    let (fetcher, network) = context.refresh(&config).await?;
    begun.learn(&network)?;
    let mut known = context.known(network, &config)?;
    known.asking(packages, *asker);
    let plan = InstallPlan::of(known.decide(&context.layout, &config)?).only(packages);
    plan.refuse_unless(packages)?;
    let source = Source { fetcher: &fetcher, network: &known.network };
    if !dry_run {
        // Whoever wants what is there taken over does not want it installed, now or later.
        if *adopt {
            begun.executor.refuse_unless_present(&plan, source).await?;
        }
        // Before anything else: whatever comes between, it is not forgotten.
        let asked = asked_for(&plan, &known.state, packages);
        context.layout.change_state(|state| {
            state.asked.extend(asked);
            // The release that is tried again is forgiven, and no other.
            state
                .quarantine
                .retain(|release, _| plan.activate.values().all(|coming| coming.entry.digest != *release));
        })?;
        point("asked").or_fail(|| "cannot remember who asked".to_owned())?;
    }
    let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
    execute(context, &begun, &plan, Some(source), &format!("install {}", names.join(" ")), dry_run).await
}

/// Who asked for what of `packages`; what everybody has is nobody's wish, and not hers to take away.
fn asked_for(
    plan: &InstallPlan,
    state: &MachineState,
    packages: &BTreeSet<PackageName>,
) -> BTreeMap<PackageName, Asker> {
    let is_required = |package: &PackageName| {
        let reasons =
            plan.activate.get(package).map(|coming| &coming.reasons).or_else(|| plan.kept.get(package));
        reasons.is_some_and(|reasons| {
            reasons
                .iter()
                .any(|reason| matches!(reason, Reason::Assigned { mode: AssignmentMode::Required, .. }))
        })
    };
    let wished =
        state.asked.iter().filter(|(package, _)| packages.contains(*package) && !is_required(package));
    wished.map(|(package, asker)| (package.clone(), *asker)).collect()
}

/// Follows the deployment. A release that fails is taken back and left out, and what else is due goes on without it.
pub(super) async fn update(
    context: &Context,
    packages: &BTreeSet<PackageName>,
    offline: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
    let (fetcher, network) = if offline {
        (ask_known(context, &config)?, context.kept().await?)
    } else {
        context.refresh(&config).await?
    };
    begun.learn(&network)?;
    let mut known = context.known(network, &config)?;
    let mut first_failure = None;
    loop {
        let plan = InstallPlan::of(known.decide(&context.layout, &config)?);
        let plan = if packages.is_empty() { plan } else { plan.only(packages) };
        let source = Source { fetcher: &fetcher, network: &known.network };
        let done = execute(context, &begun, &plan, Some(source), "update", dry_run).await;
        let state = context.layout.read_state()?.on_machine(&context.layout.current_generation()?);
        match done {
            Err(failure) if state.quarantine.len() > known.state.quarantine.len() => {
                first_failure.get_or_insert(failure);
                known.state = state;
            }
            Err(failure) => return Err(first_failure.unwrap_or(failure)),
            Ok(()) => return first_failure.map_or(Ok(()), Err),
        }
    }
}

#[derive(Serialize)]
struct Prepared {
    releases: Vec<String>,
    received_bytes: u64,
}

/// Fetches what is due, and installs nothing.
pub(super) async fn prepare(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
    let (fetcher, network) = context.refresh(&config).await?;
    begun.learn(&network)?;
    let known = context.known(network, &config)?;
    let plan = InstallPlan::of(known.decide(&context.layout, &config)?);
    begun.executor.prepare(&plan, Source { fetcher: &fetcher, network: &known.network }).await?;
    let releases =
        plan.activate.iter().map(|(package, coming)| format!("{package} {}", coming.entry.listing.version));
    let prepared = Prepared { releases: releases.collect(), received_bytes: fetcher.meter().received() };
    context.output.print(&prepared, |prepared| match prepared.releases.as_slice() {
        [] => "nothing is due".to_owned(),
        releases => format!("ready to install: {}", releases.join(", ")),
    });
    Ok(())
}

pub(super) async fn remove(
    context: &Context,
    packages: &BTreeSet<PackageName>,
    asker: Asker,
    dry_run: bool,
) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
    // Whoever is no administrator takes away only what somebody like her asked for.
    let others = |package: &&PackageName| {
        asker != Asker::Administrator && begun.state.asked.get(*package).is_none_or(|known| *known > asker)
    };
    if let Some(package) = packages.iter().find(others) {
        return Err(Failure::no(format!("cannot remove `{package}`: it is not yours to remove"))
            .hint("an administrator of this machine, or an operator of the département, can"));
    }
    // What was asked for and never came to its end is given up by removing it.
    let given_up = |package: &&PackageName| {
        begun.state.asked.contains_key(*package) && !begun.current.packages.contains_key(*package)
    };
    let installed: BTreeSet<PackageName> =
        packages.iter().filter(|package| !given_up(package)).cloned().collect();
    let plan = InstallPlan::for_remove(&begun.current, &installed)?;
    if !dry_run {
        context.layout.change_state(|state| state.asked.retain(|package, _| !packages.contains(package)))?;
    }
    let names: Vec<&str> = packages.iter().map(PackageName::as_str).collect();
    execute(context, &begun, &plan, None, &format!("remove {}", names.join(" ")), dry_run).await
}

/// The longest that anybody keeps a release: a school year.
const LONGEST_KEEP: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Keeps a release on purpose, or no longer, and goes where that leads.
pub(super) async fn keep(
    context: &Context,
    package: &PackageName,
    keep: Option<Keep>,
    asker: Asker,
) -> Result<(), Failure> {
    {
        let config = context.config()?;
        let begun = context.begin(&config)?;
        let what = || format!("cannot keep a version of `{package}`");
        let Some(installed) = begun.current.packages.get(package) else {
            return Err(Failure::no(format!("{}: it is not installed", what())));
        };
        let asked = begun.state.asked.get(package);
        if asker == Asker::Anyone && asked.is_none_or(|known| *known > Asker::Anyone) {
            return Err(Failure::no(format!("{}: it is not yours to keep", what()))
                .hint("a teacher, or an administrator of this machine, can"));
        }
        if let Some(Keep { sequence, until }) = &keep {
            if *until <= context.now || until.duration_since(context.now) > LONGEST_KEEP {
                return Err(Failure::usage(format!(
                    "{}: {until:.0} is past, or more than 400 days away",
                    what()
                )));
            }
            if *sequence > installed.sequence {
                return Err(Failure::no(format!(
                    "{}: release {sequence} is newer than what is here",
                    what()
                ))
                .hint("`update` brings newer versions"));
            }
            let network = context.kept().await?;
            let of_package = |entry: &&CatalogueEntry| {
                entry.listing.name == *package && entry.listing.platform.runs_on(&config.machine.platform)
            };
            let mut approved = network.catalogue.iter().filter(of_package);
            if !approved.any(|entry| entry.listing.sequence == *sequence) {
                return Err(Failure::no(format!(
                    "{}: there is no approved release {sequence} of it",
                    what()
                )));
            }
        }
        context.layout.change_state(|state| match keep {
            Some(keep) => {
                state.kept.insert(package.clone(), keep);
            }
            None => {
                state.kept.remove(package);
            }
        })?;
    }
    update(context, &BTreeSet::from([package.clone()]), false, false).await
}

async fn execute(
    context: &Context,
    begun: &Begun<'_>,
    plan: &InstallPlan,
    source: Option<Source<'_>>,
    reason: &str,
    dry_run: bool,
) -> Result<(), Failure> {
    let current = context.layout.current_generation()?;
    let shown = plan.show(&current);
    if dry_run {
        context.output.print(&shown, Shown::render);
        return Ok(());
    }
    let received = || source.map_or(0, |source| source.fetcher.meter().received());
    let generation = begun.executor.execute(plan, source, reason).await?;
    // What drifted since is put back, also where nothing else is to be done.
    let settings = begun.executor.settings().apply(&generation)?;
    let changed = Changed {
        generation: generation.number,
        plan: shown,
        settings: settings.iter().map(ToString::to_string).collect(),
        restart: context.layout.read_state()?.waiting_for_restart(&platform::boot()),
        received_bytes: received(),
        stale_since: source.and_then(|source| source.network.stale_since()),
    };
    context.output.print(&changed, |changed| {
        let mut lines = vec![changed.plan.render()];
        lines.extend((!plan.is_empty()).then(|| "done".to_owned()));
        lines.extend(changed.settings.iter().map(|path| format!("put right: the setting `{path}`")));
        lines.extend(
            changed.restart.iter().map(|package| format!("restart the machine to finish `{package}`")),
        );
        lines.join("\n")
    });
    Ok(())
}

#[derive(Serialize)]
struct Returned {
    generation: u64,
    changes: Vec<String>,
}

pub(super) fn rollback(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let begun = context.begin(&config)?;
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
