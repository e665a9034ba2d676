//! Sweeping what nothing needs any more.
//!
//! Roots: the current generation and [`KEPT`] more, both by age and by where `rollback` leads; every release that is
//! running (its lock is held); what was fetched ahead of the hour at which it may be installed. What is not reachable from them goes: generations, then trees, then manifests, then
//! objects (`mirabelle_content::gc`). Each tree goes by one rename ([`Layout::discard`]): killed at any instant, the sweep has removed things that
//! nothing needed, and left none of them half there.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::gc::{Garbage, Sweep};
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, Instant, PackageName};
use mirabelle_terminal::{Failure, OrFail};

use crate::faults::point;
use crate::generation::Generation;
use crate::layout::Layout;

/// Generations kept before the current one.
const KEPT: usize = 3;

/// Sweeps. Needs the lock on the directory.
pub(crate) fn collect(layout: &Layout, store: &ObjectStore) -> Result<(), Failure> {
    let (young, swept) = sweep_generations(layout)?;
    let mut manifests: BTreeSet<Digest> = BTreeSet::new();
    let mut trees: BTreeSet<(PackageName, String)> = BTreeSet::new();
    for generation in &young {
        for (package, installed) in &generation.packages {
            manifests.insert(installed.release);
            trees.insert((package.clone(), installed.id.clone()));
        }
    }
    // What was fetched ahead of its hour is about to be needed.
    for release in layout.read_state()?.ahead {
        let Some(manifest) = layout.known_manifest(release)? else { continue };
        manifests.insert(release);
        trees.insert((manifest.name.clone(), Layout::release_id(manifest.sequence, release)));
    }
    let removed = sweep_trees(layout, &trees)?;
    if removed == 0 && swept == 0 {
        return Ok(());
    }
    sweep_objects(layout, store, &manifests)
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
            point("generation-swept").or_fail(|| "cannot go on sweeping".to_owned())?;
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
            point("tree-swept").or_fail(what)?;
            durable::remove_file(&lock).or_fail(what)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn sweep_objects(layout: &Layout, store: &ObjectStore, manifests: &BTreeSet<Digest>) -> Result<(), Failure> {
    let what = || "cannot sweep objects".to_owned();
    let mut needed: BTreeSet<Digest> = BTreeSet::new();
    for release in manifests {
        let manifest = layout.known_manifest(*release)?.ok_or_else(|| {
            Failure::no(format!(
                "the manifest {release} is missing: what it needs cannot be told from what nothing needs"
            ))
            .hint("`mirabelle repair` brings it back")
        })?;
        needed.extend(manifest.objects().into_keys());
    }
    for name in list(&layout.manifests())? {
        let digest = name.strip_suffix(".json").and_then(|digest| digest.parse::<Digest>().ok());
        if digest.is_some_and(|digest| !manifests.contains(&digest)) {
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
