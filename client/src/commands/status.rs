//! `status`: how this workstation stands, from what is kept here; nobody is asked, and nothing is changed.

use std::collections::BTreeMap;

use mirabelle_manifests::{Digest, Instant, Quarantine, Reason};
use mirabelle_terminal::Failure;
use serde::Serialize;

use super::Context;
use crate::agent::evening::Evening;
use crate::agent::kept::{EVENING, OUTLOOK};
use crate::outlook::{Due, Outlook, Verb};

#[derive(Serialize)]
struct Status {
    college: String,
    machine: String,
    generation: u64,
    packages: usize,
    /// What a cut interrupted, and the next start finishes.
    interrupted: Option<String>,
    agent: &'static str,
    outlook: Option<Outlook>,
    quarantine: BTreeMap<Digest, Quarantine>,
    evening: Option<Evening>,
    lesson_until: Option<Instant>,
    next_window: Option<Instant>,
    next_shutdown: Option<Instant>,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let layout = &context.layout;
    let current = layout.current_generation()?;
    let outlook: Option<Outlook> = layout.kept(OUTLOOK);
    let timetable = outlook.as_ref().map(|outlook| outlook.timetable(&config.machine));
    let now = context.now;
    let status = Status {
        college: config.machine.college.to_string(),
        machine: config.machine.id.to_string(),
        generation: current.number,
        packages: current.packages.len(),
        interrupted: layout.journaled()?.map(|transaction| transaction.reason),
        agent: if layout.agent_is_at_work() { "at work" } else { "not running" },
        lesson_until: timetable.as_ref().and_then(|hours| hours.lesson(now)).map(|lesson| lesson.to),
        next_window: timetable.as_ref().and_then(|hours| hours.next_window(now)),
        next_shutdown: timetable.as_ref().and_then(|hours| hours.shutdown_after(now)),
        quarantine: layout.read_state()?.quarantine,
        evening: layout.kept(EVENING),
        outlook,
    };
    context.output.print(&status, render);
    Ok(())
}

fn render(status: &Status) -> String {
    let mut lines = vec![
        format!("workstation  {} of college {}", status.machine, status.college),
        format!("generation   {}, {} packages", status.generation, status.packages),
        format!("agent        {}", status.agent),
    ];
    let time = |instant: Instant| format!("{instant:.0}");
    if let Some(reason) = &status.interrupted {
        lines.push(format!("interrupted  {reason}; the next start finishes it"));
    }
    match &status.outlook {
        None => lines.push("due          unknown: no agent has looked yet".to_owned()),
        Some(outlook) if outlook.due.is_empty() => lines.push("due          nothing".to_owned()),
        Some(outlook) => {
            lines.extend(outlook.due.iter().map(|due| format!("due          {}", due_line(due))));
        }
    }
    let kept = status.outlook.iter().flat_map(|outlook| &outlook.kept);
    for (package, reasons) in kept {
        if let Some(reason) = reasons.last().filter(|reason| !is_ordinary(reason)) {
            lines.push(format!("kept         {package}: {reason}"));
        }
    }
    lines.extend(status.lesson_until.map(|until| format!("lesson       until {}", time(until))));
    lines.extend(status.next_window.map(|from| format!("may install  from {}", time(from))));
    lines.extend(status.next_shutdown.map(|at| format!("goes off     {}", time(at))));
    if let Some(evening) = &status.evening {
        let (done, left) = (evening.done.len(), evening.left.len());
        lines.push(format!("last evening {}: {done} done, {left} left", time(evening.hour)));
        lines.extend(evening.left.iter().map(|left| format!("             {}: {}", left.package, left.why)));
    }
    lines.extend(
        status
            .quarantine
            .values()
            .map(|failed| format!("failed       {}: {}", time(failed.since), failed.why)),
    );
    lines.join("\n")
}

fn due_line(due: &Due) -> String {
    let verb = match due.verb {
        Verb::Install => "install",
        Verb::Update => "update",
        Verb::Remove => "remove",
    };
    let version = due.version.as_ref().map_or(String::new(), |version| format!(" {version}"));
    let until = due.deadline.map_or(String::new(), |deadline| format!(", until {deadline:.0}"));
    let ready = if due.prepared { "ready" } else { "to be fetched" };
    format!("{verb} {}{version} ({ready}{until})", due.package)
}

fn is_ordinary(reason: &Reason) -> bool {
    matches!(reason, Reason::UpToDate | Reason::OnlyOffered | Reason::NotDeployed { .. })
}
