//! What changes among a release's files, links and empty directories.

use std::collections::BTreeMap;

use mirabelle_manifests::{Digest, EntryPath, Mode, Node, Release};
use serde::Serialize;

/// What stands at a path, without where the bundle keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Thing {
    File { size: u64, executable: bool, sha256: Digest },
    Link { target: String },
    Directory,
}

/// A path, and what stands there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Item {
    pub(super) path: EntryPath,
    #[serde(flatten)]
    pub(super) thing: Thing,
}

/// A path, and what stood and stands there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct ItemChange {
    pub(super) path: EntryPath,
    pub(super) before: Thing,
    pub(super) now: Thing,
}

/// What changes among the entries.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct TreeChanges {
    pub(super) added: Vec<Item>,
    pub(super) removed: Vec<Item>,
    pub(super) changed: Vec<ItemChange>,
    pub(super) unchanged: usize,
    /// Bytes of the files added, of those removed, and of those changed as they are now.
    pub(super) added_bytes: u64,
    pub(super) removed_bytes: u64,
    pub(super) changed_bytes: u64,
    /// Files that became executable, or are new and executable.
    pub(super) became_executable: Vec<EntryPath>,
    /// Files that were executable and are no longer, though they are still there.
    pub(super) no_longer_executable: Vec<EntryPath>,
}

impl Thing {
    fn of(node: &Node) -> Self {
        match node {
            Node::File { mode, sha256, size, .. } => {
                Self::File { size: *size, executable: *mode == Mode::Executable, sha256: *sha256 }
            }
            Node::Link { target } => Self::Link { target: target.clone() },
            Node::Directory => Self::Directory,
        }
    }

    /// Bytes of a file; nothing else has any.
    pub(super) fn size(&self) -> u64 {
        if let Self::File { size, .. } = self { *size } else { 0 }
    }

    pub(super) fn is_executable(&self) -> bool {
        matches!(self, Self::File { executable: true, .. })
    }
}

impl TreeChanges {
    pub(super) fn new(before: Option<&Release>, now: &Release) -> Self {
        let things = |release: &Release| -> BTreeMap<EntryPath, Thing> {
            release.entries.iter().map(|entry| (entry.path.clone(), Thing::of(&entry.node))).collect()
        };
        let mut old = before.map(things).unwrap_or_default();
        let mut changes = Self::default();
        for (path, now) in things(now) {
            let before = old.remove(&path);
            match (before.as_ref().is_some_and(Thing::is_executable), now.is_executable()) {
                (false, true) => changes.became_executable.push(path.clone()),
                (true, false) => changes.no_longer_executable.push(path.clone()),
                _ => {}
            }
            match before {
                None => {
                    changes.added_bytes += now.size();
                    changes.added.push(Item { path, thing: now });
                }
                Some(before) if before == now => changes.unchanged += 1,
                Some(before) => {
                    changes.changed_bytes += now.size();
                    changes.changed.push(ItemChange { path, before, now });
                }
            }
        }
        changes.removed_bytes = old.values().map(Thing::size).sum();
        changes.removed = old.into_iter().map(|(path, thing)| Item { path, thing }).collect();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::sample::{executable, file, link, release};

    #[test]
    fn tells_what_was_added_removed_and_changed() {
        let before = vec![
            file("same", "same", 0),
            file("gone", "four", 0),
            file("changed", "old", 0),
            file("tool", "tool", 0),
            executable("was", "was", 0),
            link("link", "same"),
        ];
        let now = vec![
            // The bundle keeps it elsewhere, which is no change.
            file("same", "same", 2),
            file("changed", "newer", 0),
            executable("tool", "tool", 0),
            file("was", "was", 0),
            executable("fresh", "fresh!", 1),
            link("link", "changed"),
        ];
        let changes = TreeChanges::new(Some(&release(1, before).release), &release(2, now).release);
        let paths = |paths: &[EntryPath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        let changed: Vec<_> = changes.changed.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(changed, ["changed", "link", "tool", "was"]);
        assert_eq!(changes.added.len(), 1);
        assert_eq!(changes.removed[0].path.as_str(), "gone");
        assert_eq!(changes.unchanged, 1);
        assert_eq!((changes.added_bytes, changes.removed_bytes, changes.changed_bytes), (6, 4, 12));
        assert_eq!(paths(&changes.became_executable), ["fresh", "tool"]);
        assert_eq!(paths(&changes.no_longer_executable), ["was"]);
    }
}
