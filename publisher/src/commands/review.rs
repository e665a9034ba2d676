//! `review`: what a submitted release changes against the one approved before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mirabelle_manifests::{EntryPath, Launcher, Mode, Node, Release, SignedRelease};
use mirabelle_terminal::{Failure, OrFail, bytes};
use serde::Serialize;

use super::Context;
use crate::cli::ReleaseName;
use crate::submission::read_catalogue;

/// Paths listed of each sort of change; the JSON has them all.
const LISTED: usize = 12;

#[derive(Serialize)]
struct Review {
    package: String,
    version: String,
    platform: String,
    sequence: u64,
    packager: String,
    date: String,
    licence: Change<String>,
    installed_bytes: Change<u64>,
    download_bytes: Change<u64>,
    previous_version: Option<String>,
    added: Vec<EntryPath>,
    removed: Vec<EntryPath>,
    changed: Vec<EntryPath>,
    /// Files that became executable, or are new and executable.
    newly_executable: Vec<EntryPath>,
    launchers: Vec<Launcher>,
    launchers_changed: bool,
}

#[derive(Serialize)]
struct Change<T> {
    before: Option<T>,
    now: T,
}

pub(super) fn run(context: &Context, arguments: &ReleaseName) -> Result<(), Failure> {
    let repository = context.repository()?;
    let submission = repository.submission(&arguments.release, arguments.platform.as_ref())?;
    let release = &submission.signed.release;
    let packagers = repository.packagers()?;
    let packager = packagers
        .packager_of(&submission.signed)
        .or_fail(|| format!("`{}` must not be approved", submission.label()))?;

    let catalogue = read_catalogue(&repository.catalogue()?)?;
    let previous = match catalogue.before(&release.name, &release.platform, release.sequence) {
        Some(entry) => {
            let bytes = repository.target(&entry.path, entry.digest)?;
            let signed =
                SignedRelease::parse(&bytes).or_fail(|| format!("`{}` cannot be read", entry.path))?;
            Some(signed.release)
        }
        None => None,
    };
    let review = compare(previous.as_ref(), release, packager.key.id().to_string());
    context.output.print(&review, render);
    Ok(())
}

fn compare(before: Option<&Release>, now: &Release, packager: String) -> Review {
    let nodes = |release: Option<&Release>| -> BTreeMap<EntryPath, Node> {
        let entries = release.iter().flat_map(|release| &release.entries);
        entries.map(|entry| (entry.path.clone(), without_frame(&entry.node))).collect()
    };
    let (old, new) = (nodes(before), nodes(Some(now)));
    let executable = |node: Option<&Node>| matches!(node, Some(Node::File { mode: Mode::Executable, .. }));
    let paths = |keep: &dyn Fn(&EntryPath) -> bool, of: &BTreeMap<EntryPath, Node>| {
        of.keys().filter(|path| keep(path)).cloned().collect::<Vec<_>>()
    };
    Review {
        package: now.name.to_string(),
        version: now.version.to_string(),
        platform: now.platform.to_string(),
        sequence: now.sequence,
        packager,
        date: now.date.to_string(),
        licence: Change { before: before.map(|release| release.licence.clone()), now: now.licence.clone() },
        installed_bytes: Change { before: before.map(Release::installed_size), now: now.installed_size() },
        download_bytes: Change { before: before.map(|release| release.bundle.size), now: now.bundle.size },
        previous_version: before.map(|release| release.version.to_string()),
        added: paths(&|path| !old.contains_key(path), &new),
        removed: paths(&|path| !new.contains_key(path), &old),
        changed: paths(&|path| old.get(path).is_some_and(|node| Some(node) != new.get(path)), &new),
        newly_executable: paths(&|path| executable(new.get(path)) && !executable(old.get(path)), &new),
        launchers: now.launchers.clone(),
        launchers_changed: before.is_some_and(|release| release.launchers != now.launchers),
    }
}

/// A node without where the bundle keeps it, which says nothing about the release.
fn without_frame(node: &Node) -> Node {
    match node.clone() {
        Node::File { mode, sha256, size, .. } => Node::File { frame: 0, mode, sha256, size },
        other => other,
    }
}

fn render(review: &Review) -> String {
    let mut text = format!(
        "{} {} for {}, sequence {}\npackaged {} with key {}\n",
        review.package, review.version, review.platform, review.sequence, review.date, review.packager
    );
    let _ = match &review.previous_version {
        Some(previous) => writeln!(text, "compared with {previous}, approved before it"),
        None => writeln!(text, "the first release of this package"),
    };
    let sizes = |change: &Change<u64>| match change.before {
        Some(before) => format!("{} (was {})", bytes(change.now), bytes(before)),
        None => bytes(change.now),
    };
    let _ = writeln!(text, "\ninstalled   {}", sizes(&review.installed_bytes));
    let _ = writeln!(text, "download    {} at most", sizes(&review.download_bytes));
    let _ = match &review.licence.before {
        Some(before) if *before != review.licence.now => {
            writeln!(text, "licence     {} (WAS {before})", review.licence.now)
        }
        _ => writeln!(text, "licence     {}", review.licence.now),
    };
    let changed = if review.launchers_changed { " (CHANGED)" } else { "" };
    for launcher in &review.launchers {
        let _ = writeln!(text, "starts      {} = {}{changed}", launcher.name, launcher.command.join(" "));
    }
    let mut section = |title: &str, paths: &[EntryPath]| {
        let _ = writeln!(text, "\n{title}: {}", paths.len());
        for path in paths.iter().take(LISTED) {
            let _ = writeln!(text, "  {path}");
        }
        if paths.len() > LISTED {
            let _ = writeln!(text, "  … and {} more (--json lists all)", paths.len() - LISTED);
        }
    };
    section("files added", &review.added);
    section("files removed", &review.removed);
    section("files changed", &review.changed);
    section("newly executable", &review.newly_executable);
    text
}
