//! `rollouts`: releases on their way through their rings; and `rollouts watch`, which opens the next and stops what goes wrong.
//!
//! ```text
//! reports of the fleet ─▶ next steps (`fleet::rollout`) ─▶ the brake, published ─▶ the story
//! ```
//!
//! It signs with online keys alone: it can withhold, and let go what it withheld itself; it brings nothing that was not approved and deployed. The
//! story is written last: killed before, it finds the brake as it left it, and takes the same steps.
//!
//! *Whoever takes its machine* can pause every release, and let rings open as early as the signed deployment has it by the clock; no earlier, and
//! nothing else.

use std::time::Duration;

use mirabelle_content::durable;
use mirabelle_fleet::{Course, Progress, Step, Watched};
use mirabelle_manifests::network::{DEPLOYMENT_TARGET, brake_role, deployment_role};
use mirabelle_manifests::{Brake, Catalogue, Deployment, Digest, Instant};
use mirabelle_terminal::{Failure, OrFail, Table, stop_signal};
use serde::Serialize;

use super::{Context, brake, publish};
use crate::cli::{Publish, RolloutsCommand, Watch};
use crate::fleet::{Followed, State, followed, held_by};
use crate::keyfile;
use crate::repository::Repository;
use crate::review::visible;
use crate::submission::read_catalogue;

/// A rollout as it is shown.
#[derive(Serialize)]
struct Shown {
    release: String,
    platform: String,
    state: &'static str,
    #[serde(flatten)]
    progress: Progress,
    story: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    at: Instant,
    #[serde(flatten)]
    step: Step,
}

/// What a look came to.
#[derive(Serialize)]
struct Looked {
    release: String,
    steps: Vec<Step>,
}

fn what() -> String {
    "cannot read the fleet's state".to_owned()
}

pub(super) async fn run(context: &mut Context, command: &RolloutsCommand) -> Result<(), Failure> {
    match command {
        RolloutsCommand::List(state) => {
            let shown = shown(context, &state.fleet, None).await?;
            context.output.print(&shown, |shown| rings(shown));
        }
        RolloutsCommand::Show { release, state } => {
            let repository = context.repository()?;
            let entry = repository.approved(&release.release, release.platform.as_ref())?;
            let shown = shown(context, &state.fleet, Some(entry.digest)).await?;
            if shown.is_empty() {
                return Err(Failure::no(format!("`{}` does not go out in rings now", release.release)));
            }
            context.output.print(&shown, |shown| {
                let mut lines = vec![rings(shown)];
                for rollout in shown {
                    let causes = rollout.progress.causes.iter();
                    lines.extend(causes.map(|(why, count)| format!("{count} failed: {}", visible(why))));
                    lines.extend(rollout.story.iter().map(|Told { at, step }| format!("{at:.0}  {step}")));
                }
                lines.join("\n")
            });
        }
        RolloutsCommand::Watch(arguments) => watch(context, arguments).await?,
    }
    Ok(())
}

/// What the repository says goes where.
struct Plans {
    deployment: Deployment,
    catalogue: Catalogue,
}

impl Plans {
    fn read(repository: &Repository) -> Result<Self, Failure> {
        let deployment = repository.only_target(&deployment_role(), DEPLOYMENT_TARGET)?;
        let deployment =
            Deployment::parse(&deployment).or_fail(|| "cannot read the deployment".to_owned())?;
        Ok(Self { deployment, catalogue: read_catalogue(&repository.catalogue()?)? })
    }
}

async fn shown(context: &Context, engine: &str, only: Option<Digest>) -> Result<Vec<Shown>, Failure> {
    let repository = context.repository()?;
    let state = State::open(engine, &repository.path("")).await?;
    let plans = Plans::read(&repository)?;
    let mut shown = Vec::new();
    for one in followed(&plans.deployment, &plans.catalogue, context.now) {
        if only.is_some_and(|only| only != one.entry.digest) {
            continue;
        }
        let story = state.story(one.entry.digest).await.or_fail(what)?;
        let course = Course::of(&story);
        let (workstations, nodes) = state.workstations(one.entry).await.or_fail(what)?;
        let progress = watched(&plans, one, &workstations, &nodes, context.now).progress(&course);
        let state = match &course {
            Course { halted, .. } if !halted.is_empty() => "halted",
            Course { is_finished: true, .. } => "finished",
            Course { began: None, .. } => "not watched yet",
            Course { held: Some((_, mirabelle_fleet::Hold::Operator)), .. } => "waits for an operator",
            Course { held: Some(_), .. } => "goes on",
            _ => "open to everybody",
        };
        shown.push(Shown {
            release: release(one),
            platform: one.entry.listing.platform.to_string(),
            state,
            progress,
            story: story.into_iter().map(|(at, step)| Told { at, step }).collect(),
        });
    }
    Ok(shown)
}

fn release(one: Followed<'_>) -> String {
    format!("{} {}", one.entry.listing.name, one.entry.listing.version)
}

fn watched<'a>(
    plans: &'a Plans,
    one: Followed<'a>,
    workstations: &'a [mirabelle_fleet::Workstation],
    nodes: &'a std::collections::BTreeMap<mirabelle_manifests::SiteId, Instant>,
    now: Instant,
) -> Watched<'a> {
    let Followed { assignment, rollout, entry } = one;
    Watched { deployment: &plans.deployment, assignment, rollout, entry, workstations, nodes, now }
}

fn rings(shown: &[Shown]) -> String {
    use mirabelle_fleet::Stand;
    let mut table = Table::new([
        "release",
        "state",
        "ring",
        "opens",
        "waiting",
        "installed",
        "well",
        "failed",
        "silent",
        "away",
    ]);
    for rollout in shown {
        for ring in &rollout.progress.rings {
            let count = |stand| ring.stands.get(&stand).copied().unwrap_or(0).to_string();
            let name = ring.name.as_ref().map_or("everybody else".to_owned(), ToString::to_string);
            let opens = if ring.is_open { "open".to_owned() } else { format!("{:.0}", ring.opens) };
            table.row([
                rollout.release.clone(),
                rollout.state.to_owned(),
                name,
                opens,
                count(Stand::Waiting),
                count(Stand::Installed),
                count(Stand::Well),
                count(Stand::Failed),
                count(Stand::Silent),
                ring.away.to_string(),
            ]);
        }
    }
    table.render()
}

async fn watch(context: &mut Context, arguments: &Watch) -> Result<(), Failure> {
    let stop = stop_signal()?;
    let directory = context.repository()?.path("");
    // Two that watch would tell every story twice.
    let _lock = durable::try_lock(&directory.join("rollouts.lock"))
        .or_fail(|| format!("cannot lock `{}`", directory.display()))?
        .ok_or_else(|| Failure::no(format!("rollouts of `{}` are watched already", directory.display())))?;
    let state = State::open(&arguments.state.fleet, &directory).await?;
    loop {
        if !arguments.once {
            let now = Instant::now();
            context.now = Instant::from_second(now.as_second()).unwrap_or(now);
        }
        match look(context, &state, arguments).await {
            // A look at which nothing happened says nothing.
            Ok(looked) if looked.is_empty() && !arguments.once => {}
            Ok(looked) => context.output.print(&looked, |looked| {
                let lines = looked
                    .iter()
                    .flat_map(|one| one.steps.iter().map(|step| format!("{}: {step}", one.release)));
                lines.collect::<Vec<_>>().join("\n")
            }),
            Err(failure) if arguments.once => return Err(failure),
            // What is held stays held; the next look may find the database, or the disk, again.
            Err(failure) => {
                tracing::error!("rollouts could not be looked at\n{}", failure.render().trim_end());
            }
        }
        if arguments.once
            || stop
                .run_until_cancelled(tokio::time::sleep(Duration::from_secs(arguments.every)))
                .await
                .is_none()
        {
            return Ok(());
        }
    }
}

/// Looks at every rollout once; what came of it.
async fn look(context: &mut Context, state: &State, arguments: &Watch) -> Result<Vec<Looked>, Failure> {
    let repository = context.repository()?;
    let mut looked = Vec::new();
    let mut told = Vec::new();
    let is_changed = {
        let _lock = repository.lock()?;
        let plans = Plans::read(&repository)?;
        let before = brake::read(&repository)?;
        let mut brake = before.clone();
        for one in followed(&plans.deployment, &plans.catalogue, context.now) {
            let entry = one.entry;
            let story = state.story(entry.digest).await.or_fail(what)?;
            let mut course = Course::of(&story);
            let mut steps = operators(&course, one, &before);
            for step in &steps {
                course.follow(context.now, step);
            }
            let (workstations, nodes) = state.workstations(entry).await.or_fail(what)?;
            let next = watched(&plans, one, &workstations, &nodes, context.now).next(&course);
            for step in &next {
                course.follow(context.now, step);
            }
            steps.extend(next);
            brake = held_by(&course, entry, &brake, context.now);
            if !steps.is_empty() {
                told.push((entry.digest, steps.clone()));
                looked.push(Looked { release: release(one), steps });
            }
        }
        if brake != before {
            let keys = [keyfile::open(&arguments.brake_key, &mut context.passphrase)?];
            brake::put(&repository, &brake, &keys, context.now)?;
        }
        // Killed between signing and publishing, the last look left something to make known.
        !publish::is_published(&repository, &brake_role())?
    };
    if is_changed {
        let publishing = Publish { key: arguments.key.clone(), without_deltas: true, with_packs: false };
        publish::publish(context, &publishing)?;
    }
    for (release, steps) in &told {
        state.tell(*release, steps, context.now).await.or_fail(what)?;
        for step in steps {
            tracing::warn!(%release, "{step}");
        }
    }
    Ok(looked)
}

/// What operators did to the brake since the last look.
fn operators(course: &Course, one: Followed<'_>, brake: &Brake) -> Vec<Step> {
    let listing = &one.entry.listing;
    let has = |is: &dyn Fn(&mirabelle_manifests::Pause) -> bool| {
        brake.pauses(&listing.name, &listing.platform, listing.sequence).any(is)
    };
    course.operators(
        |to| has(&|pause| pause.after.is_none() && pause.to == *to),
        |ring| has(&|pause| pause.after.as_ref() == Some(ring)),
    )
}
