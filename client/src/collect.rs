//! Sweeping what nothing needs any more.
//!
//! Roots: the current generation and the [`KEPT`] before it; every release that is running (its lock is held). What is
//! not reachable from them goes: generations, then trees, then manifests, then objects. Killed at any instant, it has
//! removed things that nothing needed.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, PackageName};
use mirabelle_terminal::{Failure, OrFail};

use crate::generation::Generation;
use crate::layout::Layout;

/// Generations kept before the current one.
const KEPT: usize = 3;

/// Sweeps. Needs the lock on the directory.
pub(crate) fn collect(layout: &Layout, store: &ObjectStore) -> Result<(), Failure> {
    let what = || format!("cannot sweep `{}`", layout.root().display());
    let current = layout.current_number()?;
    let mut kept = layout.all_generations()?;
    let surplus = kept.len().saturating_sub(KEPT + 1);
    let (old, young): (Vec<Generation>, Vec<Generation>) = {
        let mut index = 0;
        kept.drain(..).partition(|generation| {
            index += 1;
            index <= surplus && generation.number != current
        })
    };
    for generation in &old {
        durable::remove_tree(&layout.generation(generation.number)).or_fail(what)?;
    }

    let mut manifests: BTreeSet<Digest> = BTreeSet::new();
    let mut trees: BTreeSet<(PackageName, String)> = BTreeSet::new();
    for generation in &young {
        for (package, installed) in &generation.packages {
            manifests.insert(installed.release);
            trees.insert((package.clone(), installed.id.clone()));
        }
    }
    let removed = sweep_trees(layout, &trees)?;
    if removed == 0 && old.is_empty() {
        return Ok(());
    }
    sweep_objects(layout, store, &young, &manifests)
}

/// Removes trees that no generation names and nobody runs; returns how many.
fn sweep_trees(layout: &Layout, trees: &BTreeSet<(PackageName, String)>) -> Result<usize, Failure> {
    let mut removed = 0;
    for package in list(&layout.releases())? {
        let Ok(name) = package.parse::<PackageName>() else { continue };
        for id in list(&layout.releases().join(&package))? {
            let what = || format!("cannot remove `{name}` {id}");
            if trees.contains(&(name.clone(), id.clone())) {
                continue;
            }
            // Taken alone, so that nobody who runs the release, or is about to, loses it underfoot.
            let lock = layout.run_lock(&name, &id);
            let Some(_unused) = durable::try_lock(&lock).or_fail(what)? else { continue };
            durable::remove_tree(&layout.release(&name, &id)).or_fail(what)?;
            durable::remove_file(&lock).or_fail(what)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn sweep_objects(
    layout: &Layout,
    store: &ObjectStore,
    generations: &[Generation],
    manifests: &BTreeSet<Digest>,
) -> Result<(), Failure> {
    let what = || "cannot sweep objects".to_owned();
    let mut needed: BTreeSet<Digest> = BTreeSet::new();
    for installed in generations.iter().flat_map(|generation| generation.packages.values()) {
        needed.extend(layout.read_manifest(installed)?.objects().into_keys());
    }
    for name in list(&layout.manifests())? {
        let digest = name.strip_suffix(".json").and_then(|digest| digest.parse::<Digest>().ok());
        if digest.is_some_and(|digest| !manifests.contains(&digest)) {
            durable::remove_file(&layout.manifests().join(name)).or_fail(what)?;
        }
    }
    for object in store.objects().or_fail(what)? {
        let (digest, _) = object.or_fail(what)?;
        if !needed.contains(&digest) {
            store.remove(digest).or_fail(what)?;
        }
    }
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<String>, Failure> {
    let what = || format!("cannot list `{}`", directory.display());
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).or_fail(what)? {
        names.extend(entry.or_fail(what)?.file_name().into_string());
    }
    Ok(names)
}
