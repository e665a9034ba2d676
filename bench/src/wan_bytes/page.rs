//! The page: `docs/benchmarks/wan-bytes.md`, and its picture beside it.

use std::fmt::Write as _;
use std::path::Path;

use fs_err as fs;

use super::report::{self, Cells};
use super::tools::{Tools, said};
use super::{Row, picture};

pub(super) fn write(page: &Path, rows: &[Row], tools: &Tools) {
    let drawing = page.with_extension("svg");
    fs::write(&drawing, picture::draw(rows)).unwrap();
    fs::write(page, text(rows, tools, &drawing.file_name().unwrap().to_string_lossy())).unwrap();
}

fn text(rows: &[Row], tools: &Tools, drawing: &str) -> String {
    let reused = if rows.iter().any(|row| row.reused) {
        "\n**Numbers of peers or bundles of an earlier run were reused (`--reuse-peers`).**\n"
    } else {
        ""
    };
    format!(
        "\
# Bytes over the link

    cargo run --release -p mirabelle-bench -- wan-bytes

{machine}. {tools}.
{reused}
Two successive releases of real applications, as their package clients install them. Whoever holds the old one gets the
new one: everything that must cross the link for it, the manifest's difference included. Every delta was applied and
what came out compared with the new release. Every tool runs in one thread and with what it does best with:

- *OSTree*: `static-delta generate --inline --max-bsdiff-size=512 --min-fallback-size=0` between two commits;
- *HDiffPatch*: the two trees as deterministic tars, LZMA2 at level 9 with a window over both;
- *zstd --patch-from*: the same tars, level 19, a window over both;
- *bsdiff*: changed files one by one, new ones together under `zstd -19`; above 64 MiB, where bsdiff would need over
  1.1 GB, `zstd --patch-from` of the file in its place;
- *casync*: the same tars, chunks of 64 KiB: those that the old one lacks, compressed, and the index.

![Bytes for each update on a logarithmic scale, ours beside five peers]({drawing})

## Updates

{updates}
`ours/best` compares with the best peer of each pair, which no single peer is everywhere.

## What they cost

Processor time (user and system) of making and applying, and the most memory that was resident. HDiffPatch starts a Python.

{costs}
## First installs

Ours is the smaller of a delta from nothing and the bundle; the bundle counts with its manifest. `zstd -19` has the whole
tree as one tar and a window over all of it. The publisher's file is what its registry serves.

{first}
```text
{result}
```
",
        machine = machine(),
        tools = tools.versions().join(", "),
        updates = markdown(report::updates(rows), 2),
        costs = markdown(report::costs(rows), 1),
        first = markdown(report::first_installs(rows), 1),
        result = report::result(rows),
    )
}

/// A Markdown table with so many columns of words at its left.
fn markdown<const N: usize>((header, rows): Cells<N>, words: usize) -> String {
    let mut text = format!("| {} |\n|", header.join(" | "));
    for column in 0..N {
        text.push_str(if column < words { "---|" } else { "---:|" });
    }
    text.push('\n');
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// `2 cores (AMD EPYC …), Debian GNU/Linux 12 (bookworm), November 2026`
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str, text: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line[name.len()..].trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').to_owned())
    };
    let model = value("model name", &cpu).unwrap_or_else(|| "an unnamed processor".to_owned());
    let system = value("PRETTY_NAME", &fs::read_to_string("/etc/os-release").unwrap_or_default());
    let month = said(std::process::Command::new("date").arg("+%B %Y")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    format!("{cores} cores ({model}), {}, {month}", system.unwrap_or_else(|| "Linux".to_owned()))
}
