//! The tables, the result, the page.

use std::fmt::Write as _;

use mirabelle_terminal::{Table, bytes};

use super::{Answered, Case, Pair, Results, Runs};
use crate::storm::Storm;
use crate::wan_bytes::machine;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn rate(answered: &[Answered]) -> f64 {
    median(answered.iter().map(Answered::rate).collect())
}

/// The median over the runs of what nearly everybody (of 1000) and everybody waited at most, in milliseconds.
fn waits(answered: &[Answered]) -> (f64, f64) {
    let of = |of_1000| {
        median(answered.iter().map(|answered| answered.time(of_1000).as_secs_f64() * 1000.0).collect())
    };
    (of(990), of(1000))
}

/// Processor seconds per 100,000 answers, or per GiB where an answer is that of its bytes.
fn cost(case: &Case, runs: &Runs) -> f64 {
    let (requests, sent) = runs.answered.first().map_or((1, 1), |one| (one.requests, one.bytes));
    let work = if is_small(case) { requests as f64 / 1e5 } else { sent as f64 / f64::from(1 << 30) };
    median(runs.cpu.clone()) / work
}

fn is_small(case: &Case) -> bool {
    matches!(case.name, "small" | "many" | "tls_small")
}

const HEADER: [&str; 8] =
    ["what", "CPU of nginx", "of ours", "ratio", "nginx, 1/s", "ours, 1/s", "ratio", "p99, ms: nginx, ours"];

fn cells(results: &Results) -> Vec<[String; 8]> {
    let rows = results.cases.iter().map(|(case, [nginx, ours])| {
        let unit = if is_small(case) { "s/100k" } else { "s/GiB" };
        let (costs, rates) =
            ((cost(case, nginx), cost(case, ours)), (rate(&nginx.answered), rate(&ours.answered)));
        [
            case.what.to_owned(),
            format!("{:.3} {unit}", costs.0),
            format!("{:.3} {unit}", costs.1),
            format!("{:.2}", costs.1 / costs.0),
            format!("{:.0}", rates.0),
            format!("{:.0}", rates.1),
            format!("{:.2}", rates.1 / rates.0),
            format!("{:.1}, {:.1}", waits(&nginx.answered).0, waits(&ours.answered).0),
        ]
    });
    rows.collect()
}

const OTHERS: [&str; 4] = ["what", "answers/s", "p99, ms", "worst, ms"];

fn others(results: &Results) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    for (name, measured) in ["nginx", "ours"].iter().zip(&results.crowd) {
        for (beside, answered) in ["", ", beside 1,000 idle and 200 very slow clients"].iter().zip(measured) {
            if !answered.is_empty() {
                let (p99, worst) = waits(answered);
                let cells = [rate(answered), p99, worst];
                let [rate, p99, worst] =
                    [format!("{:.0}", cells[0]), format!("{:.1}", cells[1]), format!("{:.1}", cells[2])];
                rows.push([format!("{name}: 4–64 KB{beside}"), rate, p99, worst]);
            }
        }
    }
    for (name, hot, cold) in &results.cold {
        for (what, answered) in [("hot, beside cold reads", hot), ("the cold reads, of 16 MB", cold)] {
            let (p99, worst) = waits(std::slice::from_ref(answered));
            rows.push([
                format!("{name}: {what}"),
                format!("{:.1}", answered.rate()),
                format!("{p99:.1}"),
                format!("{worst:.1}"),
            ]);
        }
    }
    rows
}

fn memory(results: &Results) -> String {
    let [nginx, ours] = results.memory;
    let beside = ours.saturating_sub(results.cached);
    format!(
        "Most memory: nginx {}, ours {}, of which {} are small objects in the cache, so {} beside it.",
        bytes(nginx),
        bytes(ours),
        bytes(results.cached),
        bytes(beside)
    )
}

pub(super) fn text(results: &Results) -> String {
    let mut table = Table::new(HEADER).right([1, 2, 3, 4, 5, 6, 7]);
    for row in cells(results) {
        table.row(row);
    }
    let mut other = Table::new(OTHERS).right([1, 2, 3]);
    for row in others(results) {
        other.row(row);
    }
    let storm = results.storm.as_ref().map(Storm::text).unwrap_or_default();
    format!("{}\n{}\n{}\n{storm}", table.render(), other.render(), memory(results))
}

/// `key=value` for each.
pub(super) fn result(results: &Results) -> String {
    let mut text = String::new();
    let of = |name: &str| results.cases.iter().find(|(case, _)| case.name == name);
    let cpu = |(case, [nginx, ours]): &(Case, Pair<Runs>)| cost(case, ours) / cost(case, nginx);
    for name in ["small", "medium", "large", "range"] {
        if let Some(case) = of(name) {
            let _ = write!(text, "{name}_vs_nginx={:.3} ", cpu(case));
        }
    }
    // The worse of the two counts.
    let tls = ["tls_medium", "tls_large"].into_iter().filter_map(of).map(cpu).reduce(f64::max);
    if let Some(tls) = tls {
        let _ = write!(text, "tls_vs_nginx={tls:.3} ");
    }
    if let Some(storm) = &results.storm {
        let _ = write!(text, "{} ", storm.result());
    }
    let hot = |name| results.cold.iter().find(|(other, ..)| *other == name).map(|(_, hot, _)| hot);
    if let (Some(nginx), Some(ours)) = (hot("nginx, aio threads"), hot("ours")) {
        let worst = ours.time(1000).as_secs_f64();
        let _ = write!(text, "cold_vs_nginx={:.3} cold_worst_s={worst:.3} ", ours.rate() / nginx.rate());
    }
    for (case, [nginx, ours]) in &results.cases {
        let speed = rate(&ours.answered) / rate(&nginx.answered);
        let _ = write!(text, "{}_rate_vs_nginx={speed:.3} ", case.name);
    }
    let [_, crowd] = &results.crowd;
    if !crowd[0].is_empty() {
        let _ = write!(text, "crowd_rate={:.3} ", rate(&crowd[1]) / rate(&crowd[0]));
    }
    let _ = write!(text, "rss_beside_cache={}", results.memory[1].saturating_sub(results.cached));
    text
}

fn markdown<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut text = format!("| {} |\n|---|{}\n", header.join(" | "), "---:|".repeat(N - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

pub(super) fn page(results: &Results, runs: usize) -> String {
    format!(
        "\
# Serving

    cargo run --release -p mirabelle-bench -- serve --page docs/benchmarks/serve.md

{machine}, loopback, one disk (ext4). {runs} runs of each, alternating, medians. Clients and server share the machine;
the processor time is that of the server's processes, user and system. nginx is Debian's, with two workers, `sendfile`,
`tcp_nopush` and `open_file_cache`; ours is the code that a node answers with, in a process of its own. Both serve the same
files, all in the page cache unless it says cold.

{cases}
{memory}

{others}
- *very slow* clients take 512 bytes twice a second of an object of 256 MB.
- *cold*: 32 connections ask for small objects that are in memory, while 8 ask for objects of 16 MB that are not, from a
  disk that is held to 100 MB/s by a control group.
{storm}
`…_vs_nginx` is processor time, ours to nginx's, so less is better; but `cold_vs_nginx` and `…_rate_vs_nginx` are
answers per second, and more is better. `tls_vs_nginx` is the worse of 1 MB and 256 MB.

```text
result: {result}
```
",
        machine = machine(),
        cases = markdown(HEADER, cells(results)),
        memory = memory(results),
        others = markdown(OTHERS, others(results)),
        storm = results.storm.as_ref().map(Storm::page).unwrap_or_default(),
        result = result(results),
    )
}
