//! `link`: what the link does and why, of the node that runs; otherwise what would be in force.

use std::fmt::Write as _;

use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, bytes};
use mirabelle_transfer::{Bucket, LinkReport, LinkState};
use serde::Serialize;

use super::Context;
use crate::link::{self, Kept};

/// Bars of the picture, and the five-minute buckets in each.
const BARS: usize = 72;
const BUCKETS_A_BAR: i64 = 4;
const BUCKET_SECONDS: i64 = 300;
/// From nothing to the most.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    running: bool,
    #[serde(flatten)]
    kept: Kept,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let now = Instant::now();
    let shown = match link::kept(&context.site)?.filter(|kept| kept.is_of_a_running_node(now)) {
        Some(kept) => Shown { running: true, kept },
        None => Shown { running: false, kept: would_be(context, now).await? },
    };
    context.output.print(&shown, |shown| text(shown.running, &shown.kept, now));
    Ok(())
}

/// What a node that began now would do: the ledger is read, and left as it is.
async fn would_be(context: &Context, now: Instant) -> Result<Kept, Failure> {
    let config = context.config()?;
    let report = link::open(&context.site, &config, now).await.report(now);
    Ok(Kept { report, time_zone: None, refused: None })
}

fn text(running: bool, kept: &Kept, now: Instant) -> String {
    let report = &kept.report;
    let zone = kept.time_zone.as_deref().unwrap_or("UTC");
    let time = |instant: Instant| {
        let local = instant.in_tz(zone).map(|zoned| zoned.strftime("%a %H:%M").to_string());
        local.unwrap_or_else(|_| format!("{instant:.0}"))
    };
    let mut text = String::new();
    if !running {
        text.push_str("the node is not running; what would be in force:\n");
    }
    if let Some(refused) = &kept.refused {
        let _ = writeln!(text, "what `node.toml` says now is NOT in force:\n{refused}\n");
    }
    let _ = writeln!(text, "{}", state(report));
    let limit = match report.limit {
        None => "no limit".to_owned(),
        Some(0) => "nothing".to_owned(),
        Some(limit) => format!("at most {}/s", bytes(limit)),
    };
    let until = report.until.map_or_else(String::new, |until| format!(", until {}", time(until)));
    let rule = report.rule.as_deref().unwrap_or("all other hours");
    let _ = writeln!(text, "{rule}: {limit}{until}");
    match report.budget {
        None => {
            let _ = writeln!(text, "today {}, without a budget", bytes(report.spent));
        }
        Some(budget) => {
            let _ = writeln!(
                text,
                "today {} of {}, of which {} are for metadata and waiting workstations; anew {}",
                bytes(report.spent),
                bytes(budget),
                bytes(report.reserve),
                time(report.next_day)
            );
        }
    }
    if let (Some(queue), Some(base)) = (report.queueing_delay_ms, report.base_delay_ms) {
        let _ = writeln!(text, "packets wait {queue:.1} ms beyond the {base:.1} ms of the way");
    }
    if !report.by_priority.is_empty() {
        let parts = report.by_priority.iter().map(|(what, count)| format!("{what} {}", bytes(*count)));
        let _ = writeln!(text, "since the node began: {}", parts.collect::<Vec<_>>().join(", "));
    }
    if !report.last_day.is_empty() {
        text.push_str(&picture(&report.last_day, now));
    }
    text
}

/// What it does now, in a sentence.
pub(super) fn state(report: &LinkReport) -> String {
    let rate = bytes(report.rate);
    match (report.state, report.closed, report.pace) {
        (LinkState::Closed, Some(closed), _) => closed.to_string(),
        (LinkState::Yielding, _, Some(pace)) => {
            format!("it gives way: {rate}/s, of {}/s that others leave it", bytes(pace))
        }
        (LinkState::Limited, ..) => format!("it fetches {rate}/s, which the hours limit"),
        (LinkState::Open | LinkState::Yielding, ..) => format!("it fetches {rate}/s"),
        (LinkState::Idle | LinkState::Closed, ..) => "it fetches nothing now".to_owned(),
    }
}

/// The last 24 hours, twenty minutes a bar.
fn picture(buckets: &[Bucket], now: Instant) -> String {
    let bar_seconds = BUCKETS_A_BAR * BUCKET_SECONDS;
    let last = now.as_second().div_euclid(bar_seconds);
    let mut bars = [0_u64; BARS];
    for bucket in buckets {
        let ago = last - bucket.from.as_second().div_euclid(bar_seconds);
        if let Some(bar) = usize::try_from(ago).ok().and_then(|ago| BARS.checked_sub(ago + 1)) {
            bars[bar] += bucket.bytes;
        }
    }
    let most = bars.iter().copied().max().unwrap_or(0).max(1);
    let steps = (HEIGHTS.len() - 1) as u64;
    let height = |bar: &u64| {
        let share = u128::from(*bar) * u128::from(steps);
        HEIGHTS[usize::try_from(share.div_ceil(u128::from(most))).unwrap_or(0).min(HEIGHTS.len() - 1)]
    };
    let line: String = bars.iter().map(height).collect();
    let all: u64 = bars.iter().sum();
    let legend = format!("24 h ago{:>width$}", "now", width = BARS - "24 h ago".len());
    format!(
        "\nthe last 24 hours, {}; {} in the tallest twenty minutes\n|{line}|\n {legend}\n",
        bytes(all),
        bytes(most)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_a_bar_for_each_twenty_minutes() {
        let now: Instant = "2026-11-26T12:10:00Z".parse().unwrap();
        let bucket = |from: &str, bytes| Bucket { from: from.parse().unwrap(), bytes };
        let text = picture(
            &[
                bucket("2026-11-25T12:25:00Z", 10),
                bucket("2026-11-26T11:40:00Z", 400),
                bucket("2026-11-26T11:55:00Z", 400),
                bucket("2026-11-26T12:05:00Z", 400),
            ],
            now,
        );
        let line = text.lines().nth(2).unwrap();
        assert_eq!(line.chars().count(), BARS + 2);
        assert!(line.starts_with("|▁ ") && line.ends_with(" █▄|"), "{line}");
    }
}
