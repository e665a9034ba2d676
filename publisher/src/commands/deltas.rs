//! `deltas`: makes the deltas that machines may need, and drops the others. Needs no key.

use mirabelle_terminal::{Failure, Table, bytes};

use super::Context;
use crate::cli::MakeDeltas;
use crate::deltas::{Deltas, Line, Report, State};

pub(super) fn run(context: &Context, arguments: &MakeDeltas) -> Result<(), Failure> {
    let repository = context.repository()?;
    let settings = repository.delta_settings();
    let mut policy = settings.policy()?;
    policy.last = arguments.last.unwrap_or(policy.last);
    policy.also.extend(arguments.also.iter().cloned());
    policy.packs &= !arguments.without_packs;
    let mut budget = settings.budget()?;
    budget.effort = arguments.effort.unwrap_or(budget.effort);
    budget.jobs = arguments.jobs.unwrap_or(budget.jobs);
    budget.memory = arguments.memory.map_or(budget.memory, |memory| memory.0);
    let deltas = Deltas::open(&repository)?;
    let plan = deltas.plan(&policy)?;
    if arguments.dry_run {
        context.output.print(&plan.lines, |lines| table(lines));
        return Ok(());
    }
    let report = deltas.execute(&plan, &budget)?;
    context.output.print(&report, words);
    if report.failed.is_empty() {
        return Ok(());
    }
    Err(Failure::no(format!(
        "{} deltas could not be made: {}",
        report.failed.len(),
        report.failed.join(", ")
    ))
    .hint("nothing depends on them: machines fetch ranges of the bundles instead"))
}

/// Makes what is missing before a publication. Whatever goes wrong, the publication goes on; it does not wait for packs, which
/// take a minute for 60 MB and save a sixth, unless somebody wants to.
pub(super) fn before_publishing(context: &Context, packs: bool) -> Result<Option<Report>, Failure> {
    let repository = context.repository()?;
    let settings = repository.delta_settings();
    let (policy, budget) = (settings.policy()?, settings.budget()?);
    let made = || -> Result<Report, Failure> {
        let deltas = Deltas::open(&repository)?;
        let mut plan = deltas.plan(&policy)?;
        plan.make.retain(|pair| packs || pair.from.is_some());
        deltas.execute(&plan, &budget)
    };
    match made() {
        Ok(report) => Ok(Some(report)),
        Err(failure) => {
            tracing::warn!("published without its deltas\n{}", failure.render().trim_end());
            Ok(None)
        }
    }
}

fn table(lines: &[Line]) -> String {
    let mut table =
        Table::new(["package", "platform", "version", "from", "state", "bytes", "bundle"]).right([5, 6]);
    for line in lines {
        let state = match line.state {
            State::Made => "there",
            State::Missing => "to be made",
            State::Worthless => "no smaller than the bundle",
            State::Unpublished => "not published yet",
            State::Unneeded => "to be dropped",
        };
        table.row([
            line.package.clone(),
            line.platform.clone(),
            line.version.clone(),
            line.from.clone().unwrap_or_else(|| "nothing".to_owned()),
            state.to_owned(),
            line.bytes.map_or_else(String::new, bytes),
            bytes(line.bundle_bytes),
        ]);
    }
    if table.is_empty() { "no machine needs any delta".to_owned() } else { table.render() }
}

fn words(report: &Report) -> String {
    let made = report
        .made
        .iter()
        .map(|made| format!("{}: {} beside {}", made.delta, bytes(made.bytes), bytes(made.bundle_bytes)));
    let worthless =
        report.worthless.iter().map(|delta| format!("{delta}: no smaller than the bundle, and not kept"));
    let (count, present, dropped) = (report.made.len(), report.present, report.dropped);
    let sum = format!("{count} made, {present} there already, {dropped} dropped");
    made.chain(worthless).chain([sum]).collect::<Vec<_>>().join("\n")
}
