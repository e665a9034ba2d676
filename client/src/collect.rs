//! Sweeping what nothing needs any more.
//!
//! Roots: the current generation and [`KEPT`] more, both by age and by where `rollback` leads; every release that is
//! running (its lock is held). What is not reachable from them goes: generations, then trees, then manifests, then
//! objects (`mirabelle_content::gc`). Each tree goes by one rename ([`Layout::discard`]): killed at any instant, the sweep has removed things that
//! nothing needed, and left none of them half there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;
use mirabelle_content::gc::{Garbage, Sweep};
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, Instant, PackageName};
use mirabelle_terminal::{Failure, OrFail};

use crate::generation::{Generation, Installed};
use crate::layout::Layout;

/// Generations kept before the current one.
const KEPT: usize = 3;

/// Sweeps. Needs the lock on the directory.
pub(crate) fn collect(layout: &Layout, store: &ObjectStore) -> Result<(), Failure> {
    let (young, swept) = sweep_generations(layout)?;
    // A release that stayed while others came is named by several generations, and read once.
    let mut releases: BTreeMap<Digest, &Installed> = BTreeMap::new();
    let mut trees: BTreeSet<(PackageName, String)> = BTreeSet::new();
    for generation in &young {
        for (package, installed) in &generation.packages {
            releases.insert(installed.release, installed);
            trees.insert((package.clone(), installed.id.clone()));
        }
    }
    let removed = sweep_trees(layout, &trees)?;
    if removed == 0 && swept == 0 {
        return Ok(());
    }
    sweep_objects(layout, store, &releases)
}

/// Removes generations that are neither among the newest nor where `rollback` leads from the current one, and what is
/// no generation; returns those that stay, and how many went.
fn sweep_generations(layout: &Layout) -> Result<(Vec<Generation>, usize), Failure> {
    let all = layout.all_generations()?;
    let newest = all.iter().rev().take(KEPT + 1).map(|generation| generation.number);
    let mut kept: BTreeSet<u64> = newest.collect();
    let mut number = layout.current_number()?;
    for _ in 0..=KEPT {
        kept.insert(number);
        number = all.iter().find(|generation| generation.number == number).map_or(0, |found| found.parent);
    }
    let (young, old): (Vec<Generation>, Vec<Generation>) =
        all.into_iter().partition(|generation| kept.contains(&generation.number));
    let described: BTreeSet<u64> = young.iter().map(|generation| generation.number).collect();
    for number in layout.generation_numbers()? {
        if !described.contains(&number) {
            layout.discard(&layout.generation(number))?;
        }
    }
    Ok((young, old.len()))
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
            layout.discard(&layout.release(&name, &id))?;
            durable::remove_file(&lock).or_fail(what)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn sweep_objects(
    layout: &Layout,
    store: &ObjectStore,
    releases: &BTreeMap<Digest, &Installed>,
) -> Result<(), Failure> {
    let what = || "cannot sweep objects".to_owned();
    let mut needed: BTreeSet<Digest> = BTreeSet::new();
    for installed in releases.values() {
        needed.extend(layout.read_manifest(installed)?.objects().into_keys());
    }
    for name in list(&layout.manifests())? {
        let digest = name.strip_suffix(".json").and_then(|digest| digest.parse::<Digest>().ok());
        if digest.is_some_and(|digest| !releases.contains_key(&digest)) {
            durable::remove_file(&layout.manifests().join(name)).or_fail(what)?;
        }
    }
    // Whoever counts on objects holds the directory's lock, as we do: nobody else has a claim on them.
    match Sweep::begin(store).or_fail(what)? {
        Some(sweep) => sweep.garbage(&needed, Instant::MAX).and_then(Garbage::remove).or_fail(what),
        None => Ok(()),
    }
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
