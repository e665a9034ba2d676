//! What the node no longer has to hold, and when it goes.
//!
//! ```text
//! <root>/retired.json     {"<release>": "<since when it is not owed any more>"}
//! ```
//!
//! Roots: the releases that the deployment obliges this college to hold, those that are worth having (`mirror/obligations.rs`),
//! and those that were either less than `keep-unassigned` ago: a workstation may be installing one, and an operator may want it back. What is
//! neither goes: first what offers it (its routes), then its manifest, then its objects; partial downloads, and what was set aside, as old as that
//! too. Killed in between, the rest goes the next time.
//!
//! Invariants, beside those of `mirabelle_content::gc`:
//! - It runs only while what is served is what was last verified, and all of it is here: half-way through a sync, nobody
//!   knows what the manifests that are still to come will need.
//! - Before anything goes, a doubt is left, so that no index says of a release that it is here when it no longer is.
//! - A release that is not in `retired.json` and not owed either has just been retired: the file can be deleted, which
//!   makes everything stay a little longer.
//!
//! `retired.json` is written by whoever has the right to sweep. Lock order: the node's lock, then the store's.
//!
//! When room is scarce ([`evict`]), what is not pinned goes before its time: the cheapest to get again first, and of each only
//! the objects that no other release needs whose manifest is here; so it may run half-way through a sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_content::gc::Sweep;
use mirabelle_manifests::network::routes_path;
use mirabelle_manifests::{Digest, Instant, MAX_MANIFEST_BYTES, SignedRelease, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::Network;
use serde::Serialize;

use crate::index::leave_doubt;
use crate::legacy;
use crate::mirror::Obligations;
use crate::site::Site;

const MAX_RETIRED_BYTES: u64 = 16 << 20;

type Retired = BTreeMap<Digest, Instant>;

/// What goes, or would.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Collected {
    /// Releases that go.
    pub(crate) releases: Vec<String>,
    /// Releases that nobody is owed, and that stay for a while.
    pub(crate) waiting: Vec<String>,
    /// Objects that go.
    pub(crate) objects: u64,
    /// Bytes that objects and partial downloads give free.
    pub(crate) bytes: u64,
    /// Objects that nothing needs, and that are too young to go.
    pub(crate) young_objects: u64,
}

/// Who collects, of what, and from when on.
pub(crate) struct Collection<'a> {
    pub(crate) site: &'a Site,
    pub(crate) network: &'a Network,
    pub(crate) college: &'a SiteId,
    pub(crate) keep: Duration,
    pub(crate) now: Instant,
}

/// A release whose manifest is here and that the college is not owed.
struct Unowed {
    digest: Digest,
    manifest: PathBuf,
    /// What it is called and needs; a manifest that cannot be read is called by its digest and needs nothing.
    label: String,
    objects: BTreeSet<Digest>,
}

/// True when something may have to go that did not the last time: cheap, for after every sync.
pub(crate) fn is_due(site: &Site, keep: Duration, now: Instant) -> bool {
    read_retired(site).values().any(|since| is_over(*since, keep, now))
}

impl Collection<'_> {
    /// Removes what is no longer needed, or only says what that is; `None` while somebody is mirroring.
    pub(crate) fn run(&self, dry_run: bool) -> Result<Option<Collected>, Failure> {
        let what = || "cannot collect what is no longer needed".to_owned();
        let store = self.site.objects_read_only();
        let Some(sweep) = Sweep::begin(&store).or_fail(what)? else { return Ok(None) };

        // The roots, read while nobody adds to them.
        let (owed, mut needed) = self.owed()?;
        let known = read_retired(self.site);
        let mut retired = Retired::new();
        let mut doomed = Vec::new();
        let mut collected = Collected::default();
        for release in unowed(&self.site.served().path("targets"), &owed).or_fail(what)? {
            let since = known.get(&release.digest).copied().unwrap_or(self.now);
            if is_over(since, self.keep, self.now) {
                collected.releases.push(release.label.clone());
                doomed.push(release);
            } else {
                collected.waiting.push(release.label);
                needed.extend(release.objects);
                retired.insert(release.digest, since);
            }
        }
        let before = self.now.checked_sub(self.keep).unwrap_or(Instant::MIN);
        let garbage = sweep.garbage(&needed, before).or_fail(what)?;
        // Downloads that nobody went on with, and what was set aside as wrong for whoever wants to look at it.
        let mut left = old_files(&self.site.partials(), before).or_fail(what)?;
        left.extend(old_files(&self.site.path("quarantine"), before).or_fail(what)?);
        collected.objects = garbage.objects();
        collected.young_objects = garbage.young;
        collected.bytes = garbage.bytes + left.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if dry_run {
            return Ok(Some(collected));
        }

        if !doomed.is_empty() || collected.objects > 0 {
            leave_doubt(&self.site.path(""));
        }
        for release in &doomed {
            release.forget(self.site).or_fail(what)?;
        }
        garbage.remove().or_fail(what)?;
        for (file, _) in left {
            durable::remove_file(&file).or_fail(what)?;
        }
        if retired != known {
            let bytes = serde_json::to_vec_pretty(&retired).or_fail(what)?;
            durable::write_atomically(&retired_path(self.site), &bytes).or_fail(what)?;
        }
        Ok(Some(collected))
    }

    /// The releases that are owed, all of which must be here, and their objects.
    fn owed(&self) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>), Failure> {
        let incomplete = || {
            Failure::no("what this college is owed is not all here yet")
                .hint("run `mirabelle-node sync` first")
        };
        let served = self.site.served();
        if served.timestamp().as_ref() != self.network.trusted.timestamp() {
            return Err(incomplete());
        }
        let (mut releases, mut objects) = (BTreeSet::new(), BTreeSet::new());
        for obligation in Obligations::new(self.network, self.college, self.now).iter() {
            let entry = &obligation.entry;
            let manifest = match served.manifest(entry)? {
                Some(manifest) => manifest,
                None if obligation.must => return Err(incomplete()),
                None => continue,
            };
            let release = SignedRelease::parse(&manifest)
                .or_fail(|| format!("cannot read the manifest of `{}`", entry.listing.name))?;
            objects.extend(release.release.objects().into_keys());
            releases.insert(entry.digest);
        }
        Ok((releases, objects))
    }
}

impl Unowed {
    /// Routes before manifest: what cannot be read is not offered.
    fn forget(&self, site: &Site) -> io::Result<()> {
        durable::remove_file(&site.served().path(&routes_path(self.digest)))?;
        durable::remove_file(&self.manifest)?;
        // The folders of its platform, version and name, as far as nothing else is in them.
        for folder in self.manifest.ancestors().skip(1).take(3) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        tracing::info!(release = self.label, "a release that is not owed any more is gone");
        Ok(())
    }
}

/// Makes room: what was set aside as wrong, then files of legacy repositories, the least recently used first, then releases that are
/// not `pinned`, the cheapest to get again first, until `need` bytes are free or none is left; says
/// how many bytes that came to. Nothing, while somebody counts on objects.
pub(crate) fn evict(
    site: &Site,
    network: &Network,
    pinned: &BTreeSet<Digest>,
    need: u64,
) -> Result<u64, Failure> {
    let what = || "cannot make room".to_owned();
    let store = site.objects_read_only();
    let Some(_sweep) = Sweep::begin(&store).or_fail(what)? else { return Ok(0) };
    let targets = site.served().path("targets");
    let mut others = unowed(&targets, &BTreeSet::new()).or_fail(what)?;
    let (mut candidates, pinned): (Vec<Unowed>, Vec<Unowed>) =
        others.drain(..).partition(|release| !pinned.contains(&release.digest));
    // What cannot be had again is not approved any more, and nobody can install it.
    let price = |release: &Unowed| {
        let mut approved = network.catalogue.iter();
        approved.find(|entry| entry.digest == release.digest).map_or(0, |entry| entry.listing.download_size)
    };
    candidates.sort_by_key(|release| std::cmp::Reverse(price(release)));
    // What nobody needs first, then what somebody else keeps a copy of.
    let mut freed = 0;
    for (file, bytes) in old_files(&site.path("quarantine"), Instant::MAX).or_fail(what)? {
        durable::remove_file(&file).or_fail(what)?;
        freed += bytes;
    }
    if freed < need {
        freed += legacy::evict(&site.path("legacy"), need - freed).or_fail(what)?;
    }
    while freed < need
        && let Some(release) = candidates.pop()
    {
        let kept = candidates.iter().chain(&pinned);
        let shared: BTreeSet<&Digest> = kept.flat_map(|other| &other.objects).collect();
        leave_doubt(&site.path(""));
        release.forget(site).or_fail(what)?;
        for object in release.objects.iter().filter(|object| !shared.contains(object)) {
            let Some((_, path)) = store.locate(*object) else { continue };
            freed += fs::metadata(path).map_or(0, |metadata| metadata.len());
            store.remove(*object).or_fail(what)?;
        }
        tracing::info!(release = release.label, freed, "a release made room");
    }
    Ok(freed)
}

fn is_over(since: Instant, keep: Duration, now: Instant) -> bool {
    since.checked_add(keep).is_ok_and(|until| until <= now)
}

fn retired_path(site: &Site) -> PathBuf {
    site.path("retired.json")
}

/// What cannot be read counts from now on.
fn read_retired(site: &Site) -> Retired {
    let bytes = durable::read_if_present(&retired_path(site), MAX_RETIRED_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The releases whose manifests are below `targets` and that are not `owed`.
fn unowed(targets: &Path, owed: &BTreeSet<Digest>) -> io::Result<Vec<Unowed>> {
    let mut found = Vec::new();
    let mut folders = vec![targets.join("packages")];
    while let Some(folder) = folders.pop() {
        if !fs::exists(&folder)? {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".release.json")?.parse().ok());
            let Some(digest) = digest.filter(|digest| !owed.contains(digest)) else { continue };
            let bytes = durable::read_if_present(&entry.path(), MAX_MANIFEST_BYTES)?.unwrap_or_default();
            let release = SignedRelease::parse(&bytes).ok().filter(|_| Digest::of(&bytes) == digest);
            let (label, objects) = match release {
                Some(SignedRelease { release, .. }) => (
                    format!("{} {} {}", release.name, release.version, release.platform),
                    release.objects().into_keys().collect(),
                ),
                None => (digest.to_string(), BTreeSet::new()),
            };
            found.push(Unowed { digest, manifest: entry.path(), label, objects });
        }
    }
    found.sort_by(|a, b| a.label.cmp(&b.label));
    Ok(found)
}

/// Files in `directory` that were last written before `before`, with their lengths.
fn old_files(directory: &Path, before: Instant) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    if !fs::exists(directory)? {
        return Ok(found);
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let is_old = Instant::try_from(metadata.modified()?).is_ok_and(|written| written < before);
        if metadata.is_file() && is_old {
            found.push((entry.path(), metadata.len()));
        }
    }
    Ok(found)
}
