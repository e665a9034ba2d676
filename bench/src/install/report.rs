//! The tables, the result, the page.

use std::fmt::Write as _;
use std::time::Duration;

use mirabelle_terminal::{Table, bytes};

use super::{Size, Times};
use crate::wan_bytes::machine;

fn median(times: &[Duration]) -> Option<f64> {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).map(Duration::as_secs_f64)
}

/// What was done, how long it took, and the time of tar that it is compared with.
fn rows(times: &Times) -> Vec<(&'static str, Option<f64>, Option<f64>, String)> {
    let (first, second) = (median(&times.tar), median(&times.tar_of_update));
    let row = |what, of: &[Duration], tar, memory: u64| {
        (what, median(of), tar, if memory == 0 { String::new() } else { bytes(memory) })
    };
    vec![
        row("tar --zstd -x, sync", &times.tar, first, 0),
        row("ours: install", &times.install, first, times.install_memory),
        row("ostree pull, checkout -H, sync", &times.ostree, first, 0),
        row("dpkg -i", &times.dpkg, first, 0),
        row("tar --zstd -x, sync (of the second release)", &times.tar_of_update, second, 0),
        row("ours: update", &times.update, second, times.update_memory),
        row("ours: update by a delta", &times.update_by_delta, second, 0),
        row("ostree pull, checkout -H, sync (update)", &times.ostree_update, second, 0),
        row("dpkg -i (update)", &times.dpkg_update, second, 0),
    ]
}

fn cells(times: &Times, size: Size) -> Vec<[String; 5]> {
    let rows = rows(times).into_iter().filter_map(|(what, seconds, tar, memory)| {
        let (seconds, tar) = (seconds?, tar?);
        let speed = format!("{:.0}", size.bytes as f64 / 1e6 / seconds);
        Some([what.to_owned(), format!("{seconds:.2} s"), speed, format!("{:.2}", seconds / tar), memory])
    });
    rows.collect()
}

const HEADER: [&str; 5] = ["what", "median", "MB/s", "of tar and sync", "peak memory"];

fn described(times: &Times, size: Size) -> String {
    format!(
        "{} files of {} in all, {} as a bundle; {} runs of each, alternating",
        size.files,
        bytes(size.bytes),
        bytes(size.bundle),
        times.tar.len()
    )
}

pub(super) fn text(times: &Times, size: Size) -> String {
    let mut table = Table::new(HEADER).right([1, 2, 3, 4]);
    for row in cells(times, size) {
        table.row(row);
    }
    format!("{}\n\n{}", described(times, size), table.render())
}

/// `key=value` for each.
pub(super) fn result(times: &Times, size: Size) -> String {
    let mut text = String::new();
    let mut ratio = |name: &str, of: &[Duration], to: &[Duration]| {
        if let (Some(of), Some(to)) = (median(of), median(to)) {
            let _ = write!(text, "{name}={:.3} ", of / to);
        }
    };
    ratio("install_vs_tar", &times.install, &times.tar);
    ratio("update_vs_install", &times.update, &times.install);
    ratio("install_vs_ostree", &times.install, &times.ostree);
    ratio("install_vs_dpkg", &times.install, &times.dpkg);
    ratio("update_vs_tar", &times.update, &times.tar_of_update);
    ratio("update_vs_ostree", &times.update, &times.ostree_update);
    ratio("update_vs_dpkg", &times.update, &times.dpkg_update);
    ratio("update_by_delta_vs_install", &times.update_by_delta, &times.install);
    for (name, of) in [("install", &times.install), ("update", &times.update), ("tar", &times.tar)] {
        let _ = write!(text, "{name}_s={:.3} ", median(of).unwrap_or_default());
    }
    let _ = write!(
        text,
        "install_rss={} update_rss={} files={} bytes={} runs={}",
        times.install_memory,
        times.update_memory,
        size.files,
        size.bytes,
        times.tar.len()
    );
    text
}

pub(super) fn page(times: &Times, size: Size) -> String {
    let mut table = format!("| {} |\n|---|---:|---:|---:|---:|\n", HEADER.join(" | "));
    for row in cells(times, size) {
        let _ = writeln!(table, "| {} |", row.join(" | "));
    }
    let updates = match times.received {
        [plain, 0] => format!("For the update, {} cross the link", bytes(plain)),
        [plain, delta] => {
            format!("For the update, {} cross the link, or {} by a delta", bytes(plain), bytes(delta))
        }
    };
    format!(
        "\
# Installing and updating

    cargo run --release -p mirabelle-bench -- install --page docs/benchmarks/install.md

{machine}, loopback, one disk (ext4 there). {described}; medians. A third of the bytes is
text, the rest does not compress; a file that changes does so in a tenth of its bytes, and every twentieth does. {updates}.

{table}
- *tar*: `tar --zstd -xf` of the release's own bundle, then `sync -f`. It checks no digest but zstd's, and replaces nothing
  in one step.
- *ours*: `mirabelle install` into an empty directory, and `mirabelle update`, from a node on the same machine: the whole
  command, from its start through refresh, plan, fetching, SHA-256 of every object, the release's tree and its syncs to the
  switch and the sweep. The node's processor time is in it, since both share the machine.
- *ostree*: `ostree pull` from an archive repository that is served by the same code as ours, into a bare-user repository,
  `ostree checkout -U -H`, `sync -f`.
- *dpkg*: `dpkg -i` below a directory of its own, of a package with the same files compressed at the same level; it syncs
  by itself.

An update is compared with `tar` and `sync` of the whole second release, and, as `update_vs_install`, with our own install.

```text
result: {result}
```
",
        machine = machine(),
        described = described(times, size),
        result = result(times, size),
    )
}
