//! What was measured: the tables as cells, printed in columns or as Markdown, and the line `result: …`.

use mirabelle_terminal::{Table, bytes};

use super::peers::Peer;
use super::{Cost, Measured, Row};

/// The columns of a table of updates: ours, then these, then the best of them.
const UPDATE_HEADER: [&str; 11] = [
    "pair",
    "class",
    "new release",
    "ours",
    "OSTree",
    "HDiffPatch",
    "zstd --patch-from",
    "bsdiff",
    "casync",
    "best peer",
    "ours/best",
];

const COST_HEADER: [&str; 11] = [
    "pair",
    "ours: encode",
    "memory",
    "decode",
    "memory",
    "OSTree: encode",
    "memory",
    "decode",
    "HDiffPatch: encode",
    "memory",
    "decode",
];

const FIRST_HEADER: [&str; 11] = [
    "pair",
    "ours",
    "bundle alone",
    "zstd -19",
    "publisher's file",
    "ours/zstd",
    "from nothing: encode",
    "memory",
    "decode",
    "zstd: encode",
    "decode",
];

/// A header and its rows; every column but the first holds numbers or a word.
pub(super) type Cells<const N: usize> = ([&'static str; N], Vec<[String; N]>);

/// Updates: bytes.
pub(super) fn updates(rows: &[Row]) -> Cells<11> {
    let mut cells: Vec<[String; 11]> = rows.iter().map(update_row).collect();
    let sum = |peer: Peer| number(total(rows, |row| Some(row.peer(peer)?.bytes)));
    let best = sums(rows, |row| Some((ours(row)?, row.best()?.1.bytes)));
    cells.push([
        "total".to_owned(),
        String::new(),
        number(Some(rows.iter().map(|row| row.new_bytes).sum())),
        number(total(rows, ours)),
        sum(Peer::OsTree),
        sum(Peer::HDiffPatch),
        sum(Peer::PatchFrom),
        sum(Peer::Bsdiff),
        sum(Peer::Casync),
        number(total(rows, |row| Some(row.best()?.1.bytes))),
        ratio(best),
    ]);
    (UPDATE_HEADER, cells)
}

fn update_row(row: &Row) -> [String; 11] {
    let peer = |peer: Peer| number(row.peer(peer).map(|measured| measured.bytes));
    let best = row.best();
    [
        row.pair.label(),
        row.pair.class.to_owned(),
        number(Some(row.new_bytes)),
        number(ours(row)),
        peer(Peer::OsTree),
        peer(Peer::HDiffPatch),
        peer(Peer::PatchFrom),
        peer(Peer::Bsdiff),
        peer(Peer::Casync),
        best.map_or_else(missing, |(peer, _)| peer.name().to_owned()),
        ratio(ours(row).zip(best.map(|(_, measured)| measured.bytes))),
    ]
}

/// Updates: time and memory.
pub(super) fn costs(rows: &[Row]) -> Cells<11> {
    let mut cells: Vec<[String; 11]> = rows
        .iter()
        .map(|row| {
            let ours = row.ours.delta;
            let (ostree, hdiffpatch) = (row.peer(Peer::OsTree), row.peer(Peer::HDiffPatch));
            cost_row(&row.pair.label(), ours, ostree, hdiffpatch)
        })
        .collect();
    let peer = |peer: Peer| all(rows, |row| row.peer(peer));
    cells.push(cost_row(
        "total, and the most memory",
        all(rows, |row| row.ours.delta),
        peer(Peer::OsTree),
        peer(Peer::HDiffPatch),
    ));
    (COST_HEADER, cells)
}

fn cost_row(
    name: &str,
    ours: Option<Measured>,
    ostree: Option<Measured>,
    hdiffpatch: Option<Measured>,
) -> [String; 11] {
    [
        name.to_owned(),
        cpu(encode(ours)),
        memory(encode(ours)),
        cpu(decode(ours)),
        memory(decode(ours)),
        cpu(encode(ostree)),
        memory(encode(ostree)),
        cpu(decode(ostree)),
        cpu(encode(hdiffpatch)),
        memory(encode(hdiffpatch)),
        cpu(decode(hdiffpatch)),
    ]
}

/// All rows one after the other; `None` when one lacks it.
fn all(rows: &[Row], of: impl Fn(&Row) -> Option<Measured>) -> Option<Measured> {
    let none = Measured { bytes: 0, encode: Cost::default(), decode: Cost::default() };
    rows.iter().map(of).try_fold(none, |sum, next| {
        let next = next?;
        Some(Measured {
            bytes: sum.bytes + next.bytes,
            encode: sum.encode.and(next.encode),
            decode: sum.decode.and(next.decode),
        })
    })
}

fn encode(measured: Option<Measured>) -> Option<Cost> {
    measured.map(|measured| measured.encode)
}

fn decode(measured: Option<Measured>) -> Option<Cost> {
    measured.map(|measured| measured.decode)
}

fn cpu(cost: Option<Cost>) -> String {
    cost.map_or_else(missing, |cost| format!("{:.2} s", cost.cpu))
}

fn memory(cost: Option<Cost>) -> String {
    cost.map_or_else(missing, |cost| bytes(cost.memory))
}

/// First installs: bytes, and what making and applying cost.
pub(super) fn first_installs(rows: &[Row]) -> Cells<11> {
    let zstd = |row: &Row| row.peer(Peer::Zstd).map(|measured| measured.bytes);
    let mut cells: Vec<[String; 11]> = rows
        .iter()
        .map(|row| {
            [
                row.pair.label(),
                number(Some(row.ours.first_install())),
                number(Some(row.ours.bundle)),
                number(zstd(row)),
                number(row.pair.new.artifact),
                ratio(Some(row.ours.first_install()).zip(zstd(row))),
                cpu(encode(row.ours.pack)),
                memory(encode(row.ours.pack)),
                cpu(decode(row.ours.pack)),
                cpu(encode(row.peer(Peer::Zstd))),
                cpu(decode(row.peer(Peer::Zstd))),
            ]
        })
        .collect();
    let (pack, whole) = (all(rows, |row| row.ours.pack), all(rows, |row| row.peer(Peer::Zstd)));
    cells.push([
        "total".to_owned(),
        number(Some(rows.iter().map(|row| row.ours.first_install()).sum())),
        number(Some(rows.iter().map(|row| row.ours.bundle).sum())),
        number(total(rows, zstd)),
        number(total(rows, |row| row.pair.new.artifact)),
        ratio(sums(rows, |row| Some((row.ours.first_install(), zstd(row)?)))),
        cpu(encode(pack)),
        memory(encode(pack)),
        cpu(decode(pack)),
        cpu(encode(whole)),
        cpu(decode(whole)),
    ]);
    (FIRST_HEADER, cells)
}

/// The tables, in columns.
pub(super) fn text(rows: &[Row]) -> String {
    let note = if rows.iter().any(|row| row.reused) {
        "Peers or bundles of an earlier run were reused.\n"
    } else {
        ""
    };
    format!(
        "Updates: bytes\n\n{}\nUpdates: processor time and memory\n\n{}\nFirst installs\n\n{}\n{note}",
        columns(updates(rows)),
        columns(costs(rows)),
        columns(first_installs(rows)),
    )
}

fn columns<const N: usize>((header, rows): Cells<N>) -> String {
    let mut table = Table::new(header).right(std::array::from_fn::<usize, N, _>(|column| column + 1));
    for row in rows {
        table.row(row);
    }
    table.render()
}

/// The one line that the next change is compared with.
pub(super) fn result(rows: &[Row]) -> String {
    let mut values = vec![format!("pairs={}", rows.len())];
    let mut add = |name: &str, pair: Option<(f64, f64)>| {
        if let Some((ours, theirs)) = pair {
            values.push(format!("{name}={:.3}", ours / theirs));
        }
    };
    let bytes_beside = |peer: Peer| sums(rows, |row| Some((ours(row)?, row.peer(peer)?.bytes)));
    let cost_beside = |peer: Peer, of: fn(&Measured) -> f64| {
        let both = rows.iter().filter_map(|row| Some((of(&row.ours.delta?), of(&row.peer(peer)?))));
        both.reduce(|(a, b), (c, d)| (a + c, b + d))
    };
    add("vs_ostree", floats(bytes_beside(Peer::OsTree)));
    add("vs_hdiffpatch", floats(bytes_beside(Peer::HDiffPatch)));
    add("vs_patch_from", floats(bytes_beside(Peer::PatchFrom)));
    add("vs_best", floats(sums(rows, |row| Some((ours(row)?, row.best()?.1.bytes)))));
    let worst = rows.iter().filter_map(|row| Some((ours(row)? as f64, row.best()?.1.bytes as f64)));
    add("worst_vs_best", worst.max_by(|(a, b), (c, d)| (a / b).total_cmp(&(c / d))));
    let first = |theirs: fn(&Row) -> Option<u64>| {
        floats(sums(rows, |row| Some((row.ours.first_install(), theirs(row)?))))
    };
    add("first_vs_zstd", first(|row| Some(row.peer(Peer::Zstd)?.bytes)));
    add("first_vs_bundle", first(|row| Some(row.ours.bundle)));
    add("first_vs_publisher", first(|row| row.pair.new.artifact));
    for (name, of) in [
        ("encode", (|measured| measured.encode.cpu) as fn(&Measured) -> f64),
        ("decode", |measured| measured.decode.cpu),
    ] {
        add(&format!("{name}_vs_ostree"), cost_beside(Peer::OsTree, of));
        add(&format!("{name}_vs_hdiffpatch"), cost_beside(Peer::HDiffPatch, of));
    }
    let most = |of: fn(&Measured) -> u64| rows.iter().filter_map(|row| row.ours.delta.as_ref().map(of)).max();
    for (name, memory) in [
        ("encode_rss", most(|measured| measured.encode.memory)),
        ("decode_rss", most(|measured| measured.decode.memory)),
    ] {
        values.extend(memory.map(|memory| format!("{name}={memory}")));
    }
    format!("result: {}", values.join(" "))
}

/// What `--tsv` has of everything measured: a name and how it is written.
type Field = (&'static str, fn(&Measured) -> String);

const FIELDS: [Field; 5] = [
    ("bytes", |measured| measured.bytes.to_string()),
    ("encode_cpu", |measured| format!("{:.2}", measured.encode.cpu)),
    ("encode_rss", |measured| measured.encode.memory.to_string()),
    ("decode_cpu", |measured| format!("{:.2}", measured.decode.cpu)),
    ("decode_rss", |measured| measured.decode.memory.to_string()),
];

/// One row as tab-separated values: the names, or what was measured.
pub(super) fn values(row: Option<&Row>) -> String {
    let mut values = vec![row.map_or("name".to_owned(), |row| row.pair.name.clone())];
    values.push(row.map_or("new_bytes".to_owned(), |row| row.new_bytes.to_string()));
    let mut add = |name: &str, measured: Option<Option<Measured>>| {
        for (field, of) in FIELDS {
            values.push(match &measured {
                None => format!("{name} {field}"),
                Some(measured) => measured.as_ref().map_or_else(|| "-".to_owned(), of),
            });
        }
    };
    add("ours", row.map(|row| row.ours.delta));
    add("ours pack", row.map(|row| row.ours.pack));
    for peer in Peer::ALL {
        add(peer.name(), row.map(|row| row.peer(peer)));
    }
    values.push(row.map_or("bundle".to_owned(), |row| row.ours.bundle.to_string()));
    values.push(row.map_or("best peer".to_owned(), |row| {
        row.best().map_or_else(missing, |(peer, _)| peer.name().to_owned())
    }));
    values.join("\t")
}

pub(super) fn ours(row: &Row) -> Option<u64> {
    row.ours.delta.map(|delta| delta.bytes)
}

/// The sum over all rows; `None` when one lacks it, for a sum of the rest would be taken for the whole.
fn total(rows: &[Row], of: impl Fn(&Row) -> Option<u64>) -> Option<u64> {
    rows.iter().map(of).sum()
}

/// The sums over the rows that have both.
fn sums(rows: &[Row], of: impl Fn(&Row) -> Option<(u64, u64)>) -> Option<(u64, u64)> {
    rows.iter().filter_map(of).reduce(|(a, b), (c, d)| (a + c, b + d))
}

fn floats(pair: Option<(u64, u64)>) -> Option<(f64, f64)> {
    pair.map(|(a, b)| (a as f64, b as f64))
}

fn missing() -> String {
    "–".to_owned()
}

/// `1,234,567`
fn number(value: Option<u64>) -> String {
    let Some(value) = value else { return missing() };
    let digits = value.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

fn ratio(pair: Option<(u64, u64)>) -> String {
    floats(pair).map_or_else(missing, |(ours, theirs)| format!("{:.2}", ours / theirs))
}
