//! What the doctor says to people: first what needs them, then how things stand.

use std::fmt::Write as _;

use jiff::Unit;
use mirabelle_manifests::Instant;
use mirabelle_terminal::{Table, bytes};

use super::{Examination, Finding, Upstream};
use crate::commands::link;
use crate::mirror::{Step, Task};

/// Of what is still to come, so many are named.
const NAMED: usize = 20;

/// All of it.
pub(super) fn text(seen: &Examination, now: Instant) -> String {
    let mut text = format!("the node of college {}\n", seen.college);
    let (people, others): (Vec<_>, Vec<_>) =
        seen.findings.iter().partition(|finding: &&Finding| finding.needs_a_person);
    if people.is_empty() {
        text.push_str("nothing needs a person\n");
    }
    for (title, findings) in [("needs a person", people), ("good to know", others)] {
        if !findings.is_empty() {
            let _ = writeln!(text, "\n{title}:");
        }
        for finding in findings {
            let _ = writeln!(text, "  - {}\n    {}", finding.what, finding.to_do);
        }
    }
    text.push('\n');

    let ago = |instant: Option<Instant>| instant.map_or("never".to_owned(), |then| ago(then, now));
    let mut facts = Table::new(["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    let runs = seen.running.as_ref().map_or("it does not run".to_owned(), |running| {
        format!("process {} on {}, begun {}", running.pid, running.address, ago(Some(running.since)))
    });
    fact("service", runs);
    fact("upstream", format!("last understood {}", ago(seen.refreshed)));
    let quota = seen.quota.map_or(String::new(), |quota| format!(", quota {}", bytes(quota)));
    fact("room", format!("{} of {} left{quota}", bytes(seen.room.left), bytes(seen.room.capacity)));
    fact("link", seen.link.as_ref().map_or("not known".to_owned(), |kept| link::state(&kept.report)));
    let scrub = &seen.scrub;
    let finished = ago(scrub.finished);
    let last =
        if scrub.finished.is_some() { format!(", the last pass ended {finished}") } else { String::new() };
    fact("scrub", format!("folder {} of {}{last}", scrub.folders, scrub.of_folders));
    text.push_str(facts.render().trim_start_matches('\n'));

    let mut folders = Table::new(["takes", "files", "", ""]).right([0, 1]);
    for folder in seen.folders.iter().filter(|folder| folder.files > 0) {
        let (name, what) = (folder.name.to_owned(), folder.what.to_owned());
        folders.row([bytes(folder.bytes), folder.files.to_string(), name, what]);
    }
    for table in [folders, upstreams(&seen.upstreams, now), to_come(&seen.to_come)] {
        if !table.is_empty() {
            let _ = write!(text, "\n{}", table.render());
        }
    }
    if let Some(more) = seen.to_come.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = writeln!(text, "and {more} more");
    }
    text
}

fn upstreams(upstreams: &[Upstream], now: Instant) -> Table {
    let mut table =
        Table::new(["upstream", "gave an answer", "failures", "rests", "last failure"]).right([2]);
    for upstream in upstreams {
        let gave = upstream.last_success.map_or("never".to_owned(), |then| ago(then, now));
        let rests = upstream.rests_until.filter(|until| now < *until);
        let rests = rests.map_or(String::new(), |until| format!("until {until:.0}"));
        let failure = upstream.last_failure.as_deref().map_or("", in_short).to_owned();
        table.row([upstream.upstream.clone(), gave, upstream.failures.to_string(), rests, failure]);
    }
    table
}

fn to_come(tasks: &[Task]) -> Table {
    let mut table = Table::new(["to come", "", "bytes", "attempts", "why not yet"]).right([2, 3]);
    for task in tasks.iter().take(NAMED) {
        let state = match task.state {
            Step::Waiting => "waits its turn",
            Step::UnderWay => "under way",
            Step::Failed => "failed",
            Step::NoRoom => "no room",
        };
        let (size, attempts) = (bytes(task.bytes), task.attempts.to_string());
        let why = task.last_failure.as_deref().map_or("", in_short).to_owned();
        table.row([format!("{} {}", task.package, task.version), state.to_owned(), size, attempts, why]);
    }
    table
}

/// The innermost cause of a rendered failure: what a table has room for.
fn in_short(rendered: &str) -> &str {
    let cause = rendered.lines().rev().find_map(|line| line.trim_start().strip_prefix("caused by: "));
    cause.or_else(|| rendered.lines().next()?.strip_prefix("error: ")).unwrap_or(rendered)
}

/// `3 h ago`
fn ago(then: Instant, now: Instant) -> String {
    let seconds = now.since((Unit::Second, then)).map_or(0, |span| span.get_seconds());
    match seconds {
        ..0 => format!("at {then:.0}"),
        0..60 => "just now".to_owned(),
        60..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_in_a_line_and_a_time_as_people_say_it() {
        assert_eq!(in_short("error: a\n  caused by: b\n  caused by: c\nhint: d"), "c");
        assert_eq!(in_short("error: a"), "a");
        let now: Instant = "2026-11-26T08:00:00Z".parse().unwrap();
        for (then, said) in [
            ("2026-11-26T07:59:30Z", "just now"),
            ("2026-11-26T07:00:00Z", "60 min ago"),
            ("2026-11-25T08:00:00Z", "24 h ago"),
            ("2026-11-16T08:00:00Z", "10 days ago"),
            ("2026-11-26T09:00:00Z", "at 2026-11-26T09:00:00Z"),
        ] {
            assert_eq!(ago(then.parse().unwrap(), now), said);
        }
    }
}
