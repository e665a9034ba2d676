//! What a release changes against the one approved before it: what an approver signs for.
//!
//! The comparison ([`Review`]) is made here, from manifests and SBOMs alone, and is what `--json` prints. [`text`] and
//! [`html`] show it to people and decide nothing.
//!
//! Threat and defence: *a name or title that rewrites the page or the terminal it is shown on, or reads as another.*
//! Whatever a package says goes through [`visible`] first, and in the page through maud, which escapes.

pub(crate) mod html;
pub(crate) mod text;

mod behaviour;
mod launchers;
mod tree;

use std::collections::BTreeSet;

use mirabelle_manifests::{
    Digest, Instant, Packager, PathPattern, Release, Showcase, SignedRelease, StorePage, Text,
};
use serde::Serialize;

use crate::sbom::{ComponentChanges, Inventory};
use behaviour::BehaviourChanges;
use launchers::LauncherChanges;
use tree::TreeChanges;

pub(crate) use behaviour::Templates;

/// A release, and what goes with it.
pub(crate) struct Side<'a> {
    pub(crate) signed: &'a SignedRelease,
    /// Who packaged it, if she is in the list of packagers.
    pub(crate) packager: Option<&'a Packager>,
    /// What its SBOM lists, if it has one.
    pub(crate) inventory: Option<&'a Inventory>,
    /// The text of the templates that its settings are made from.
    pub(crate) templates: &'a Templates,
}

/// What an approver is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Review {
    package: String,
    version: String,
    platform: String,
    sequence: u64,
    /// Digest of `release.json`: what the approval names.
    release: Digest,
    title: Text,
    summary: Text,
    date: Instant,
    packager: Signer,
    previous: Option<Previous>,
    attention: BTreeSet<Attention>,
    licence: Change<String>,
    sizes: Sizes,
    tree: TreeChanges,
    launchers: LauncherChanges,
    behaviour: BehaviourChanges,
    sbom: Option<SbomChanges>,
    /// What the store will show.
    store: Option<InStore>,
}

/// What the store will show of it.
#[derive(Debug, Serialize)]
pub(crate) struct InStore {
    showcase: Showcase,
    page: StorePage,
    /// The release before shows something else.
    changed: bool,
}

/// Who packaged a release.
#[derive(Debug, Serialize)]
struct Signer {
    key: String,
    packages: Vec<String>,
    from: Instant,
    until: Instant,
    authorised_today: bool,
}

/// The release that this one is compared with.
#[derive(Debug, Serialize)]
struct Previous {
    version: String,
    sequence: u64,
    date: Instant,
    release: Digest,
}

/// Something that was, and is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Change<T> {
    before: Option<T>,
    now: T,
}

/// Sizes in bytes.
#[derive(Debug, Serialize)]
struct Sizes {
    installed: Change<u64>,
    /// The whole bundle.
    download: Change<u64>,
    /// The most that a node fetches which holds the release before: the frames with an object it lacks.
    wan: u64,
}

/// What the SBOM says, against the one before; all of it is new when there was none.
#[derive(Debug, Serialize)]
struct SbomChanges {
    sha256: Digest,
    components: usize,
    #[serde(flatten)]
    changes: ComponentChanges,
}

/// What should be looked at twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Attention {
    NotAuthorisedToday,
    FirstRelease,
    OtherPackager,
    LicenceChanged,
    LaunchersChanged,
    RunsAsAdministrator,
    SetsFiles,
    BehaviourChanged,
    BecameExecutable,
    ComponentsChanged,
    NoSbom,
}

impl Attention {
    /// In French and English.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotAuthorisedToday => (
                "la personne qui l’a préparée n’est pas autorisée aujourd’hui",
                "the packager is not authorised today",
            ),
            Self::FirstRelease => {
                ("première publication de ce logiciel : tout est nouveau", "first release: everything is new")
            }
            Self::OtherPackager => (
                "préparé avec une autre clé que la version précédente",
                "packaged with another key than the release before",
            ),
            Self::LicenceChanged => ("la licence change", "the licence changes"),
            Self::LaunchersChanged => ("les lanceurs changent", "the launchers change"),
            Self::RunsAsAdministrator => (
                "son installateur exécute des commandes en administrateur",
                "its installer runs commands as administrator",
            ),
            Self::SetsFiles => (
                "elle règle des fichiers du poste, en dehors de la version",
                "it sets files of the machine, outside the release",
            ),
            Self::BehaviourChanged => (
                "ce qu’elle demande au poste ou y fait change",
                "what it needs of a workstation or does to it changes",
            ),
            Self::BecameExecutable => ("des fichiers deviennent exécutables", "files become executable"),
            Self::ComponentsChanged => ("la liste des composants change", "the list of components changes"),
            Self::NoSbom => ("aucune liste de composants (SBOM)", "no list of components (SBOM)"),
        }
    }
}

impl Review {
    /// Compares `now`, which `packager` signed, with the release approved before it.
    pub(crate) fn new(before: Option<&Side>, now: &Side, packager: &Packager, today: Instant) -> Self {
        let release = &now.signed.release;
        let old = before.map(|side| &side.signed.release);
        let mut review = Self {
            package: release.name.to_string(),
            version: release.version.to_string(),
            platform: release.platform.to_string(),
            sequence: release.sequence,
            release: now.signed.digest,
            title: release.title.clone(),
            summary: release.summary.clone(),
            date: release.date,
            packager: Signer {
                key: packager.key.id().to_string(),
                packages: packager
                    .packages
                    .iter()
                    .map(|pattern: &PathPattern| pattern.as_str().to_owned())
                    .collect(),
                from: packager.from,
                until: packager.until,
                authorised_today: packager.authorised_at(today),
            },
            previous: before.map(|side| Previous {
                version: side.signed.release.version.to_string(),
                sequence: side.signed.release.sequence,
                date: side.signed.release.date,
                release: side.signed.digest,
            }),
            attention: BTreeSet::new(),
            licence: Change { before: old.map(|old| old.licence.clone()), now: release.licence.clone() },
            sizes: Sizes {
                installed: Change { before: old.map(Release::installed_size), now: release.installed_size() },
                download: Change { before: old.map(|old| old.bundle.size), now: release.bundle.size },
                wan: fetched_by_a_node(old, release),
            },
            tree: TreeChanges::new(old, release),
            launchers: LauncherChanges::new(old, release),
            behaviour: BehaviourChanges::new(
                before.map(|side| (&side.signed.release, side.templates)),
                (release, now.templates),
            ),
            sbom: sbom_changes(before, now),
            store: None,
        };
        let other_packager = before.and_then(|side| side.packager).is_some_and(|old| old.key != packager.key);
        review.attention = review.remarks(other_packager);
        review
    }

    /// With what the store will show of it.
    pub(crate) fn in_store(mut self, now: Option<(Showcase, StorePage)>, before: Option<&Showcase>) -> Self {
        self.store = now.map(|(showcase, page)| {
            let changed = before.is_some_and(|before| *before != showcase);
            InStore { showcase, page, changed }
        });
        self
    }

    fn remarks(&self, other_packager: bool) -> BTreeSet<Attention> {
        let update = self.previous.is_some();
        let components = self.sbom.as_ref().is_some_and(|sbom| sbom.changes.any());
        [
            (Attention::NotAuthorisedToday, !self.packager.authorised_today),
            (Attention::FirstRelease, !update),
            (Attention::OtherPackager, other_packager),
            (Attention::LicenceChanged, self.licence.changed()),
            (Attention::LaunchersChanged, update && self.launchers.any()),
            (Attention::RunsAsAdministrator, self.behaviour.installs()),
            (Attention::SetsFiles, self.behaviour.sets_files()),
            (Attention::BehaviourChanged, update && self.behaviour.any()),
            (Attention::BecameExecutable, update && !self.tree.became_executable.is_empty()),
            (Attention::ComponentsChanged, update && components),
            (Attention::NoSbom, self.sbom.is_none()),
        ]
        .into_iter()
        .filter_map(|(remark, applies)| applies.then_some(remark))
        .collect()
    }
}

impl<T: PartialEq> Change<T> {
    fn changed(&self) -> bool {
        self.before.as_ref().is_some_and(|before| *before != self.now)
    }
}

fn sbom_changes(before: Option<&Side>, now: &Side) -> Option<SbomChanges> {
    let (sbom, inventory) = (now.signed.release.sbom?, now.inventory?);
    let nothing = Inventory::default();
    let old = before.and_then(|side| side.inventory).unwrap_or(&nothing);
    let changes = inventory.changes_since(old);
    Some(SbomChanges { sha256: sbom.sha256, components: inventory.len(), changes })
}

/// Bytes of the frames that hold an object which `before` does not have; as `transfer/src/obtain.rs` plans it.
fn fetched_by_a_node(before: Option<&Release>, now: &Release) -> u64 {
    let held = before.map(Release::objects).unwrap_or_default();
    let missing = now.objects().into_iter().filter(|(digest, _)| !held.contains_key(digest));
    let frames: BTreeSet<u32> = missing.map(|(_, object)| object.frame).collect();
    let sizes = frames.into_iter().filter_map(|frame| now.bundle.frames.get(usize::try_from(frame).ok()?));
    sizes.map(|frame| frame.size).sum()
}

/// A text of somebody else's as it is, but for characters that show as nothing or as something else: controls, and
/// those that change the direction of writing or take no room ("Trojan Source", CVE-2021-42574). These are spelt out.
pub(crate) fn visible(text: &str) -> String {
    let deceives = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let spell = |c: char| if deceives(c) { c.escape_unicode().collect() } else { String::from(c) };
    text.chars().map(spell).collect()
}

#[cfg(test)]
mod sample;

#[cfg(test)]
mod tests {
    use super::sample::{self, file};
    use super::*;

    #[test]
    fn a_node_fetches_the_frames_with_something_new() {
        let before = sample::release(1, vec![file("a", "a", 0), file("b", "b", 1)]);
        // `a` stays, `b` moves to another frame, `c` is new: of the frames of 100, 20 and 3 bytes, the last.
        let now = sample::release(2, vec![file("a", "a", 0), file("b2", "b", 1), file("c", "c", 2)]);
        assert_eq!(fetched_by_a_node(Some(&before.release), &now.release), 3);
        assert_eq!(fetched_by_a_node(Some(&now.release), &now.release), 0);
        assert_eq!(fetched_by_a_node(None, &now.release), 123);
    }

    #[test]
    fn remarks_on_what_should_be_looked_at_twice() {
        let review = sample::review();
        let remarks: Vec<_> = review.attention.iter().copied().collect();
        assert_eq!(
            remarks,
            [
                Attention::LicenceChanged,
                Attention::LaunchersChanged,
                Attention::SetsFiles,
                Attention::BehaviourChanged,
                Attention::BecameExecutable,
                Attention::NoSbom
            ]
        );
        let packager = sample::packager();
        let after = packager.until;
        let signed = sample::release(1, vec![]);
        let templates = Templates::new();
        let side = Side { signed: &signed, packager: None, inventory: None, templates: &templates };
        let review = Review::new(None, &side, &packager, after);
        let remarks: Vec<_> = review.attention.into_iter().collect();
        assert_eq!(remarks, [Attention::NotAuthorisedToday, Attention::FirstRelease, Attention::NoSbom]);
    }

    #[test]
    fn remarks_on_what_a_release_does_to_a_workstation() {
        let before = sample::signed(&sample::installer());
        let mut release = before.release.clone();
        release.behaviour.conflicts.clear();
        let (now, packager) = (sample::signed(&release), sample::packager());
        let templates = Templates::new();
        let remarks = |before: Option<&SignedRelease>| {
            let side = |signed| Side { signed, packager: None, inventory: None, templates: &templates };
            let before = before.map(side);
            let review = Review::new(before.as_ref(), &side(&now), &packager, packager.from);
            review.attention.into_iter().collect::<Vec<_>>()
        };
        let always = [Attention::RunsAsAdministrator, Attention::SetsFiles, Attention::NoSbom];
        assert_eq!(remarks(Some(&now)), always);
        assert_eq!(remarks(None), [&[Attention::FirstRelease], &always[..]].concat());
        let changed = [&always[..2], &[Attention::BehaviourChanged], &always[2..]].concat();
        assert_eq!(remarks(Some(&before)), changed);
    }

    #[test]
    fn what_deceives_the_eye_is_spelt_out() {
        assert_eq!(visible("été 陳 œ.txt"), "été 陳 œ.txt");
        assert_eq!(visible("a\u{202e}txt.exe\x1b[2J"), "a\\u{202e}txt.exe\\u{1b}[2J");
    }
}
