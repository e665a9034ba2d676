//! The page: `docs/benchmarks/yield.md`, and its picture beside it.

use std::fmt::Write as _;
use std::path::Path;

use fs_err as fs;

use super::network::CONGESTION_CONTROL;
use super::{LINK_BITS, Measured, Run, picture};
use crate::wan_bytes::machine;

pub(super) const HEADER: [&str; 8] = [
    "the node",
    "down p50, ms",
    "down p95, ms",
    "up p95, ms",
    "longest, ms",
    "lost",
    "fetched, Mbit/s",
    "of what the call leaves",
];

pub(super) fn rows(measured: &Measured) -> Vec<[String; 8]> {
    let rest = LINK_BITS as f64 - measured.call_bits();
    let mut rows: Vec<[String; 8]> = measured.beside_call().map(|run| row(run, rest)).into();
    let mut alone = row(&measured.alone, LINK_BITS as f64);
    "yielding, no call".clone_into(&mut alone[0]);
    rows.push(alone);
    rows
}

fn row(run: &Run, rest: f64) -> [String; 8] {
    let delay = |heard: &Option<super::Heard>, hundredths| {
        heard.as_ref().map_or_else(|| "–".to_owned(), |heard| format!("{:.1}", heard.percentile(hundredths)))
    };
    let longest =
        [&run.down, &run.up].into_iter().flatten().map(|heard| heard.percentile(100)).fold(0.0, f64::max);
    let called = run.down.is_some();
    [
        run.fetching.words().to_owned(),
        delay(&run.down, 50),
        delay(&run.down, 95),
        delay(&run.up, 95),
        if called { format!("{longest:.1}") } else { "–".to_owned() },
        if called { run.lost().to_string() } else { "–".to_owned() },
        format!("{:.2}", run.fetched_bits / 1e6),
        format!("{:.1} %", run.fetched_bits / rest * 100.0),
    ]
}

pub(super) fn write(page: &Path, measured: &Measured) {
    let drawing = page.with_extension("svg");
    fs::write(&drawing, picture::draw(measured)).unwrap();
    fs::write(page, text(measured, &drawing.file_name().unwrap().to_string_lossy())).unwrap();
}

fn text(measured: &Measured, drawing: &str) -> String {
    let mut table = format!("| {} |\n|---|{}\n", HEADER.join(" | "), "---:|".repeat(HEADER.len() - 1));
    for row in rows(measured) {
        let _ = writeln!(table, "| {} |", row.join(" | "));
    }
    format!(
        "\
# A video call over the same link

    cargo run --release -p mirabelle-bench -- yield

{machine}. The server's kernel controls congestion by {congestion}: by loss, which fills
queues.

Two network namespaces, and between them a third as a router, which `tbf` shapes to 8 Mbit/s each way, with a queue of 100 kB
(a tenth of a second). Over it a synthetic video call: 1.5 Mbit/s each way, 150 packets of 1,250 bytes a second, evenly spaced. Meanwhile
the node does nothing; fetches large files without a limit; fetches them and yields. Each run is measured for {seconds} seconds
after eight that are not. Delays are one way, of every packet; bytes are those that the near interface counted.
What else runs on the machine shows in the delays, of the idle run too: on a busy one, `nice -n -20` before the program.

{table}
![The delay of the call's packets over time]({drawing})

The link has no delay of its own here, since the kernel this ran on shapes rates but not delays: a real one adds its own to
all of the rows. How far its delay changes how the node yields is shown by the simulated link of the unit tests
(`transfer/src/link/controller.rs`) alone.

```text
{result}
```
",
        machine = machine(),
        congestion = CONGESTION_CONTROL,
        seconds = measured.seconds,
        result = measured.result(),
    )
}
