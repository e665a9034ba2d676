//! `why`, `plan`, `status`: what was decided, and every reason on the way.

use std::collections::BTreeSet;

use mirabelle_manifests::{
    Action, Decision, Instant, Machine, MachineId, MachineState, PackageName, Reason, RoomName, Tag,
};
use mirabelle_terminal::{Failure, Table, bytes};
use serde::Serialize;

use super::Context;
use crate::generation::Generation;
use crate::outlook::{Due, Verb};
use crate::plan::advice;

/// The answer to `why`.
#[derive(Serialize)]
struct Answer {
    machine: MachineId,
    package: PackageName,
    installed: Option<String>,
    /// What is to be done: `install`, `update`, `remove`, `keep`.
    action: &'static str,
    version: Option<String>,
    deadline: Option<Instant>,
    /// Every reason on the way; the last one decided.
    reasons: Vec<Reason>,
    /// The same in words.
    words: Vec<String>,
    advice: Option<&'static str>,
}

/// Another workstation of this college, as far as the deployment tells it from this one.
pub(super) struct Other {
    pub(super) id: MachineId,
    pub(super) room: Option<RoomName>,
    pub(super) tags: BTreeSet<Tag>,
}

pub(super) async fn why(
    context: &Context,
    package: &PackageName,
    other: Option<Other>,
) -> Result<(), Failure> {
    let config = context.config()?;
    let mut known = context.known(context.kept().await?, &config)?;
    let mut decisions = match other {
        None => known.decide(&context.layout, &config)?,
        Some(Other { id, room, tags }) => {
            known.machine = Machine { id, room, tags, ..known.machine };
            (known.state, known.current) = (MachineState::default(), Generation::none());
            known.situation().decide()
        }
    };
    let decision = decisions.remove(package).unwrap_or_else(|| Decision {
        action: Action::Keep,
        reasons: vec![Reason::NotDeployed { college: config.machine.college.clone() }],
        deadline: None,
    });
    let action = match decision.action {
        Action::Install(_) => "install",
        Action::Update(_) => "update",
        Action::Remove => "remove",
        Action::Keep => "keep",
    };
    let answer = Answer {
        machine: known.machine.id.clone(),
        package: package.clone(),
        installed: known.current.packages.get(package).map(|installed| installed.version.to_string()),
        action,
        version: decision.release().map(|entry| entry.listing.version.to_string()),
        deadline: decision.deadline,
        words: decision.reasons.iter().map(ToString::to_string).collect(),
        advice: decision.reason().filter(|_| action == "keep").map(advice),
        reasons: decision.reasons,
    };
    context.output.print(&answer, |answer| {
        let version = answer.version.as_ref().map_or(String::new(), |version| format!(" {version}"));
        let installed = answer.installed.as_deref().unwrap_or("not installed");
        let mut lines = vec![format!(
            "{} on {} ({installed}): {}{version}",
            answer.package, answer.machine, answer.action
        )];
        lines.extend(
            answer.words.iter().enumerate().map(|(number, words)| format!("  {}. {words}", number + 1)),
        );
        lines.extend(answer.advice.map(|advice| format!("what helps: {advice}")));
        lines.join("\n")
    });
    Ok(())
}

pub(super) async fn plan(context: &Context, refresh: bool) -> Result<(), Failure> {
    let config = context.config()?;
    let network = if refresh { context.refresh(&config).await?.1 } else { context.kept().await? };
    let outlook = context.known(network, &config)?.outlook(&context.layout, &config)?;
    context.output.print(&outlook, |outlook| {
        let mut table =
            Table::new(["what", "package", "version", "size", "until", "ready", "why"]).right([3]);
        for due in &outlook.due {
            table.row(row(due));
        }
        let kept =
            outlook.kept.iter().filter(|(_, reasons)| !matches!(reasons.last(), Some(Reason::UpToDate)));
        let kept = kept.filter_map(|(package, reasons)| Some(format!("keep {package}: {}", reasons.last()?)));
        let due = if table.is_empty() { "nothing is due".to_owned() } else { table.render() };
        std::iter::once(due).chain(kept).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn row(due: &Due) -> [String; 7] {
    let verb = match due.verb {
        Verb::Install => "install",
        Verb::Update => "update",
        Verb::Remove => "remove",
    };
    [
        verb.to_owned(),
        due.package.to_string(),
        due.version.as_ref().map_or(String::new(), ToString::to_string),
        bytes(due.bytes),
        due.deadline.map_or(String::new(), |deadline| format!("{deadline:.0}")),
        if due.prepared { "yes" } else { "no" }.to_owned(),
        due.reasons.last().map_or(String::new(), ToString::to_string),
    ]
}
