//! A review for a terminal.

use std::fmt::Write as _;

use mirabelle_manifests::Launcher;
use mirabelle_terminal::{Table, bytes};

use super::behaviour::{Sort, Trait};
use super::launchers::{command_line, environment};
use super::tree::{Item, Thing};
use super::{Change, InStore, Review, SbomChanges, visible};
use crate::sbom::Listed;

/// Lines of each sort of change; the JSON has them all.
const LISTED: usize = 12;

/// What an approver reads.
pub(crate) fn render(review: &Review) -> String {
    let mut text = format!(
        "{} {} for {}, sequence {}\n{}\n",
        review.package,
        review.version,
        review.platform,
        review.sequence,
        visible(&review.title.en)
    );
    let _ = match &review.previous {
        Some(previous) => writeln!(text, "compared with {}, approved before it", previous.version),
        None => writeln!(text, "the first release of this package"),
    };
    if !review.attention.is_empty() {
        text.push_str("\nlook at\n");
        for remark in &review.attention {
            let _ = writeln!(text, "  ! {}", remark.words().1);
        }
    }
    text.push('\n');
    text.push_str(&facts(review));
    launchers(review, &mut text);
    behaviour(review, &mut text);
    files(review, &mut text);
    match &review.sbom {
        Some(sbom) => components(sbom, &mut text),
        None => text.push_str("\nno SBOM: it was signed without one\n"),
    }
    if let Some(store) = &review.store {
        in_store(store, &mut text);
    }
    text
}

fn in_store(store: &InStore, text: &mut String) {
    let InStore { showcase, page, changed } = store;
    let _ = writeln!(text, "\nin the store{}", if *changed { ", OTHER THAN BEFORE" } else { "" });
    let list = |words: &mut dyn Iterator<Item = &str>| words.map(visible).collect::<Vec<_>>().join(", ");
    let pictures = usize::from(showcase.icon.is_some()) + page.screenshots.len();
    for (what, value) in [
        ("author", page.author.as_deref().map_or(String::new(), visible)),
        ("homepage", page.homepage.as_deref().map_or(String::new(), visible)),
        ("keywords", list(&mut showcase.keywords.iter().map(String::as_str))),
        ("subjects", list(&mut showcase.subjects.iter().map(mirabelle_manifests::Tag::as_str))),
        ("levels", list(&mut showcase.levels.iter().map(mirabelle_manifests::Tag::as_str))),
        ("pictures", pictures.to_string()),
    ] {
        if !value.is_empty() {
            let _ = writeln!(text, "  {what:<12}{value}");
        }
    }
    for (what, said) in [("description", &page.description), ("news", &page.news)] {
        for (language, said) in said.iter().flat_map(|said| [("fr", &said.fr), ("en", &said.en)]) {
            let _ = writeln!(text, "  {what} ({language})");
            for line in said.lines() {
                let _ = writeln!(text, "    {}", visible(line));
            }
        }
    }
}

fn facts(review: &Review) -> String {
    let sizes = |change: &Change<u64>| match change.before {
        Some(before) => format!("{} (was {})", bytes(change.now), bytes(before)),
        None => bytes(change.now),
    };
    let licence = match &review.licence.before {
        Some(before) if review.licence.changed() => {
            format!("{} (WAS {})", visible(&review.licence.now), visible(before))
        }
        _ => visible(&review.licence.now),
    };
    let signer = &review.packager;
    let today = if signer.authorised_today { "" } else { ", NOT TODAY" };
    let rows = [
        ("packaged", format!("{} with key {}", review.date, signer.key)),
        ("authorised", format!("until {:.0} for {}{today}", signer.until, signer.packages.join(" "))),
        ("release", review.release.to_string()),
        ("licence", licence),
        ("installed", sizes(&review.sizes.installed)),
        ("download", format!("{} at most", sizes(&review.sizes.download))),
        (
            "on the WAN",
            format!("{} at most for a node that holds the release before", bytes(review.sizes.wan)),
        ),
    ];
    let lines = rows.map(|(what, value)| format!("{what:<12}{value}\n"));
    lines.concat()
}

fn launchers(review: &Review, text: &mut String) {
    let changes = &review.launchers;
    if changes.any() || !changes.unchanged.is_empty() {
        text.push_str("\nlaunchers\n");
    }
    let mut line = |mark: &str, launcher: &Launcher| {
        let set = environment(launcher);
        let set = if set.is_empty() { set } else { format!("{set} ") };
        let _ = writeln!(
            text,
            "  {mark} {} = {}",
            launcher.name,
            visible(&(set + &command_line(&launcher.command)))
        );
    };
    changes.added.iter().for_each(|launcher| line("+", launcher));
    changes.removed.iter().for_each(|launcher| line("-", launcher));
    changes.unchanged.iter().for_each(|launcher| line(" ", launcher));
    for launcher in &changes.changed {
        for change in &launcher.fields {
            let _ = writeln!(text, "  ~ {}, {}", launcher.name, change.field.words().1);
            let _ = writeln!(text, "      was {}", visible(&change.before));
            let _ = writeln!(text, "      is  {}", visible(&change.now));
        }
    }
}

fn behaviour(review: &Review, text: &mut String) {
    let changes = &review.behaviour;
    if changes.is_empty() {
        return;
    }
    text.push_str("\nwhat it needs of a workstation and does to it\n");
    let heading = |mark: &str, sort: Sort, of: &str| {
        format!("  {mark} {} {}", sort.words().1, visible(of)).trim_end().to_owned()
    };
    let mut line = |mark: &str, one: &Trait| {
        let _ = writeln!(text, "{}", heading(mark, one.sort, &one.of));
        lines(text, "      ", &one.says);
    };
    changes.added.iter().for_each(|one| line("+", one));
    changes.removed.iter().for_each(|one| line("-", one));
    changes.unchanged.iter().for_each(|one| line(" ", one));
    for change in &changes.changed {
        let _ = writeln!(text, "{}", heading("~", change.sort, &change.of));
        lines(text, "      was ", &change.before);
        lines(text, "      is  ", &change.now);
    }
}

/// A text of the package's that may have several lines, each after `margin`, so that none looks like one of ours.
fn lines(text: &mut String, margin: &str, theirs: &str) {
    for line in theirs.lines() {
        let _ = writeln!(text, "{margin}{}", visible(line));
    }
}

fn files(review: &Review, text: &mut String) {
    let tree = &review.tree;
    let item = |item: &Item| [visible(item.path.as_str()), describe(&item.thing)];
    let added: Vec<_> = tree.added.iter().map(item).collect();
    let removed: Vec<_> = tree.removed.iter().map(item).collect();
    let changed: Vec<_> = tree
        .changed
        .iter()
        .map(|change| {
            let now = describe(&change.now);
            let before = describe(&change.before);
            let what = if before == now { now } else { format!("{now}, was {before}") };
            [visible(change.path.as_str()), what]
        })
        .collect();
    let executables = |paths: &[mirabelle_manifests::EntryPath]| -> Vec<[String; 2]> {
        paths.iter().map(|path| [visible(path.as_str()), String::new()]).collect()
    };
    section(text, &format!("files added: {}, {}", added.len(), bytes(tree.added_bytes)), added);
    section(text, &format!("files removed: {}, {}", removed.len(), bytes(tree.removed_bytes)), removed);
    section(text, &format!("files changed: {}, {}", changed.len(), bytes(tree.changed_bytes)), changed);
    let _ = writeln!(text, "\nfiles unchanged: {}", tree.unchanged);
    let became = executables(&tree.became_executable);
    section(text, &format!("newly executable: {}", became.len()), became);
    let no_longer = executables(&tree.no_longer_executable);
    section(text, &format!("no longer executable: {}", no_longer.len()), no_longer);
    text.push_str("\nset-uid: none; the format has no such thing\n");
}

fn components(sbom: &SbomChanges, text: &mut String) {
    let _ = writeln!(
        text,
        "\ncomponents (SBOM): {}, of them {} as before",
        sbom.components, sbom.changes.unchanged
    );
    let rows = |listed: &std::collections::BTreeMap<String, Listed>| -> Vec<[String; 2]> {
        listed.iter().map(|(identity, listed)| [visible(identity), visible(&listed.to_string())]).collect()
    };
    let (added, removed) = (rows(&sbom.changes.added), rows(&sbom.changes.removed));
    let changed = sbom.changes.changed.iter();
    let changed: Vec<_> = changed
        .map(|(identity, (before, now))| [visible(identity), visible(&format!("{now}, was {before}"))])
        .collect();
    section(text, &format!("components added: {}", added.len()), added);
    section(text, &format!("components removed: {}", removed.len()), removed);
    section(text, &format!("components changed: {}", changed.len()), changed);
}

fn describe(thing: &Thing) -> String {
    match thing {
        Thing::File { size, executable: true, .. } => format!("{} executable", bytes(*size)),
        Thing::File { size, .. } => bytes(*size),
        Thing::Link { target } => format!("link to {}", visible(target)),
        Thing::Directory => "directory".to_owned(),
    }
}

/// A heading and the first of its rows.
fn section(text: &mut String, heading: &str, rows: Vec<[String; 2]>) {
    let _ = writeln!(text, "\n{heading}");
    let count = rows.len();
    let mut table = Table::default();
    for row in rows.into_iter().take(LISTED) {
        table.row(row);
    }
    for line in table.render().lines() {
        let _ = writeln!(text, "  {line}");
    }
    if count > LISTED {
        let _ = writeln!(text, "  … and {} more (--json and --html list all)", count - LISTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::sample;

    #[test]
    fn says_what_changes() {
        let text = render(&sample::review());
        for words in [
            "essai 2.0 for any, sequence 2",
            "compared with 1.0, approved before it",
            "! the licence changes",
            "(WAS MIT)",
            "23 B at most",
            "~ essai, command",
            "! it sets files of the machine, outside the release",
            "+ sets the file /etc/<b>essai</b>\n      root:root 0644, from conf",
            "+ template of /etc/<b>essai</b>\n      one\n      <script>alert(1)</script>\"'&\\u{202e}",
            "+ checks sh -c '<script>alert(1)</script>\"'\\''&', in 30 s",
            "files added: 41, 164 B",
            "files removed: 1, 4 B",
            "files changed: 1, 5 B",
            "… and 29 more",
            "set-uid: none",
            "no SBOM",
        ] {
            assert!(text.contains(words), "`{words}` is not in:\n{text}");
        }
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}
