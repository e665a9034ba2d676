//! Bundles, deltas and archives as their users meet them: on a disk, and made by an enemy.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its world should stop")]

mod bundles;
mod deltas;
mod executables;
mod hostile_archives;
mod hostile_bundles;
mod hostile_deltas;

use std::num::NonZeroUsize;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::bundle::{WriteOptions, write_bundle};
use mirabelle_content::scan_tree;
use mirabelle_manifests::{Description, Platform, Release, Text};

/// A release of what is in `tree`, with its bundle at `bundle`.
pub(crate) fn release_of(tree: &Path, bundle: &Path, jobs: usize) -> Release {
    let files = scan_tree(tree, &mut |_| {}).unwrap();
    let mut out = fs::File::create(bundle).unwrap();
    let options = WriteOptions { level: 3, jobs: NonZeroUsize::new(jobs).unwrap() };
    let (entries, bundle) = write_bundle(tree, &files, options, &mut out, &|_| {}).unwrap();
    let text = Text { fr: "Essai".into(), en: "Test".into() };
    let about = Description {
        name: "essai".parse().unwrap(),
        version: "1".parse().unwrap(),
        platform: Platform::any(),
        sequence: 1,
        date: "2026-01-01T00:00:00Z".parse().unwrap(),
        title: text.clone(),
        summary: text,
        categories: vec![],
        licence: "MIT".into(),
        launchers: vec![],
        behaviour: mirabelle_manifests::Behaviour::default(),
    };
    Release::new(about, entries, bundle).unwrap()
}
