//! `publish`: everything that is signed, made known; freshness renewed.
//!
//! Order is the whole point: content, then documents under names that never change, then the snapshot, and
//! `timestamp.json` last. Before that rename readers see the old catalogue, after it the new one.

use std::collections::{BTreeMap, BTreeSet};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_keys::Keyring;
use mirabelle_manifests::network::{
    bundle_path, catalogue_role, metadata_path, routes_path, sbom_path, target_path,
};
use mirabelle_manifests::tuf::{self, Document, FileMeta, RoleName, Root, Snapshot, Targets, Timestamp};
use mirabelle_manifests::{Digest, Instant, Routes, SignedRelease, TargetPath};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::EncodedForms;
use serde::Serialize;

use super::Context;
use crate::audit::{Event, Record};
use crate::cli::Publish;
use crate::deltas::MANIFESTS;
use crate::keyfile;
use crate::repository::{Repository, read_document};

/// How many earlier versions of each document readers may hold and get the difference from. Nodes ask every few
/// minutes; whoever was away for longer gets the whole document, compressed.
const DICTIONARIES: usize = 8;
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// What was made known.
#[derive(Serialize)]
pub(super) struct Published {
    timestamp: u64,
    snapshot: u64,
    releases: usize,
    new_releases: Vec<String>,
    new_deltas: usize,
}

pub(super) fn run(context: &mut Context, arguments: &Publish) -> Result<(), Failure> {
    let published = publish(context, arguments)?;
    context.output.print(&published, words);
    Ok(())
}

/// Publishes, and says nothing.
pub(super) fn publish(context: &mut Context, arguments: &Publish) -> Result<Published, Failure> {
    let repository = context.repository()?;
    let key = keyfile::open(&arguments.key, &mut context.passphrase)?;
    let mut new_releases = {
        let _lock = repository.lock()?;
        repository.promote(context.now)?;
        repository.sound_roles(context.now)?;
        publish_releases(&repository)?
    };

    // Its deltas are there, or given up, before anybody hears of a release. They take their time: nobody who wants to
    // pause a release, or publish without deltas, waits for them.
    let deltas = if arguments.without_deltas {
        None
    } else {
        super::deltas::before_publishing(context, arguments.with_packs)?
    };

    let _lock = repository.lock()?;
    // What a kill left between signing and taking effect; then nothing that any reader would refuse.
    repository.promote(context.now)?;
    repository.sound_roles(context.now)?;
    let root = repository.role::<Root>(&RoleName::root())?.signed;
    for role in [RoleName::snapshot(), RoleName::timestamp()] {
        if !root.roles.get(&role).is_some_and(|keys| keys.keyids.contains(&key.public().id())) {
            return Err(Failure::trust(format!(
                "key {} does not hold the role `{role}`",
                key.public().id().short()
            )));
        }
    }

    // Content first: a name is never known before what it stands for is there.
    new_releases.extend(publish_releases(&repository)?);

    // Then the documents, each under the name that its version gives it.
    repository.publish_roots(root.version)?;
    let mut meta = BTreeMap::new();
    let mut releases = 0;
    let bins = repository.catalogue_bins()?;
    // What has encoded forms from now on; those of others are of no use.
    let mut current = BTreeSet::new();
    for role in repository.signed_roles()?.into_iter().skip(1) {
        let bytes = repository.role_bytes(&role)?;
        let document =
            Document::<Targets>::parse(&bytes).or_fail(|| format!("`{role}` cannot be published"))?.signed;
        for (path, file) in &document.targets {
            publish_target(&repository, path, file.hashes.sha256())?;
        }
        let catalogue = role == catalogue_role() || bins.contains(&role);
        if catalogue {
            releases += document.targets.len();
        }
        repository.publish_role(&role, document.version, &bytes)?;
        current.extend(encode(&repository, &role, &document, &bytes, catalogue)?);
        meta.insert(role.meta_name(), FileMeta::of(document.version, &bytes));
    }

    // Then what says which of them are current.
    let timestamp_path = repository.public().join(metadata_path(&RoleName::timestamp(), None));
    let previous: Option<Document<Timestamp>> = read_document(&timestamp_path)?;
    // One that today's key did not sign is no floor for readers either: whoever stole the last key may have raced the
    // versions ahead, and after its rotation counting begins anew (TUF 1.0.34, 5.3.11).
    let holders = root.roles.get(&RoleName::timestamp()).map(|keys| keys.keyring(&root.keys));
    let previous = previous.filter(|last| {
        let signed = |keyring: Keyring| keyring.verify(last.signed_bytes(), &last.signatures).is_ok();
        holders.is_some_and(|keyring| keyring.is_ok_and(signed))
    });
    let now = Instant::from_second(context.now.as_second()).unwrap_or(context.now);
    if let Some(last) = previous.as_ref().and_then(|last| last.signed.issued).filter(|issued| *issued > now) {
        // Readers take it for a floor under their clocks: an earlier one would look like the past to them.
        return Err(Failure::usage(format!("it is {now} by this server's clock, and the last timestamp was signed at {last}"))
            .hint("set the clock; if the last one was signed by a clock that ran ahead, replace the key: `role replace-key snapshot,timestamp …`"));
    }
    let (last_timestamp, last_snapshot) = previous.map_or((0, 0), |last| {
        (last.signed.version, last.signed.snapshot().map_or(0, |snapshot| snapshot.version))
    });
    let what = || "cannot sign the snapshot".to_owned();
    // Killed after the snapshot was written, the next run must not write another under the same name.
    let mut version = last_snapshot + 1;
    while repository.public().join(metadata_path(&RoleName::snapshot(), Some(version))).exists() {
        version += 1;
    }
    let mut snapshot = Snapshot::new(version, repository.expiry(&RoleName::snapshot(), context.now));
    snapshot.meta = meta;
    snapshot.audit = repository.audit_head()?;
    let bytes = tuf::sign(&snapshot, &[key.as_ref()]).or_fail(what)?;
    repository.publish_role(&RoleName::snapshot(), version, &bytes)?;
    let path = metadata_path(&RoleName::snapshot(), Some(version));
    let earlier = earlier_versions(&repository, &RoleName::snapshot(), version)?;
    let forms = EncodedForms::of(&repository.public());
    current.insert(path.clone());
    forms.add(&path, &bytes, &earlier).or_fail(|| "cannot encode the snapshot".to_owned())?;
    forms
        .retain(|path| current.contains(path) || path.starts_with(MANIFESTS))
        .or_fail(|| "cannot publish".to_owned())?;
    let next = last_timestamp.checked_add(1).ok_or_else(|| {
        Failure::no(format!("the last timestamp is version {last_timestamp}, and nothing comes after it"))
            .hint("somebody else may have signed it: replace its key (`role replace-key snapshot,timestamp …`), and counting begins anew")
    })?;
    let mut timestamp = Timestamp::new(next, repository.expiry(&RoleName::timestamp(), context.now));
    timestamp.issued = Some(now);
    timestamp.meta.insert(RoleName::snapshot().meta_name(), FileMeta::of(version, &bytes));
    let bytes = tuf::sign(&timestamp, &[key.as_ref()]).or_fail(what)?;
    durable::sync_file_system(&repository.public()).or_fail(|| "cannot publish".to_owned())?;
    repository.write(&format!("public/{}", metadata_path(&RoleName::timestamp(), None)), &bytes)?;

    let what =
        if new_releases.is_empty() { vec!["renews freshness".to_owned()] } else { new_releases.clone() };
    let document = Some((RoleName::snapshot().to_string(), version));
    let record = Record { event: Event::Published, document, keys: vec![key.public().id()], what };
    repository.record(record, context.now)?;
    let new_deltas = deltas.map_or(0, |report| report.made.len());
    Ok(Published { timestamp: timestamp.version, snapshot: version, releases, new_releases, new_deltas })
}

/// True when what is signed of a role is what readers see.
pub(super) fn is_published(repository: &Repository, role: &RoleName) -> Result<bool, Failure> {
    let public = repository.public();
    let read = |role: RoleName, version| public.join(metadata_path(&role, version));
    let timestamp: Option<Document<Timestamp>> = read_document(&read(RoleName::timestamp(), None))?;
    let snapshot = timestamp.as_ref().and_then(|timestamp| timestamp.signed.snapshot());
    let Some(snapshot) = snapshot.map(|snapshot| snapshot.version) else { return Ok(false) };
    let snapshot: Option<Document<Snapshot>> = read_document(&read(RoleName::snapshot(), Some(snapshot)))?;
    let published = snapshot.and_then(|snapshot| Some(snapshot.signed.meta.get(&role.meta_name())?.version));
    Ok(published == Some(repository.role::<Targets>(role)?.signed.version))
}

fn words(result: &Published) -> String {
    let new = match result.new_releases.as_slice() {
        [] => "nothing new in the catalogue".to_owned(),
        new => format!("new: {}", new.join(", ")),
    };
    let deltas = match result.new_deltas {
        0 => String::new(),
        made => format!("; {made} deltas made"),
    };
    format!("published snapshot {} with {} releases; {new}{deltas}", result.snapshot, result.releases)
}

/// The earlier versions of a role that readers may hold, newest first.
fn earlier_versions(repository: &Repository, role: &RoleName, version: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let mut earlier = Vec::new();
    for version in (1..version).rev().take(DICTIONARIES) {
        let path = repository.public().join(metadata_path(role, Some(version)));
        let bytes = durable::read_if_present(&path, MAX_METADATA_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?;
        earlier.extend(bytes);
    }
    Ok(earlier)
}

/// Makes a role's document, and the small files that it names, cheap for whoever holds an earlier version.
/// Returns the paths of all of them.
fn encode(
    repository: &Repository,
    role: &RoleName,
    document: &Targets,
    bytes: &[u8],
    catalogue: bool,
) -> Result<Vec<String>, Failure> {
    let what = || format!("cannot encode `{role}`");
    let forms = EncodedForms::of(&repository.public());
    let earlier = earlier_versions(repository, role, document.version)?;
    let path = metadata_path(role, Some(document.version));
    forms.add(&path, bytes, &earlier).or_fail(what)?;
    let mut paths = vec![path];
    if catalogue {
        // Manifests are encoded where deltas are made: against those of the releases that machines hold.
        return Ok(paths);
    }
    for (path, file) in &document.targets {
        let Some(digest) = file.hashes.sha256() else { continue };
        let mut before = Vec::new();
        for role in &earlier {
            let listed = Document::<Targets>::parse(role).ok();
            let held = listed.and_then(|role| role.signed.targets.get(path)?.hashes.sha256());
            if let Some(held) = held.filter(|held| *held != digest) {
                before.extend(repository.target(path, held).ok().filter(|bytes| !before.contains(bytes)));
            }
        }
        let below = target_path(path, digest).or_fail(what)?;
        forms.add(&below, &repository.target(path, digest)?, &before).or_fail(what)?;
        paths.push(below);
    }
    Ok(paths)
}

/// Moves the bundles, SBOMs and pictures of approved releases into the served tree, with the routes that lead to them.
fn publish_releases(repository: &Repository) -> Result<Vec<String>, Failure> {
    let mut published = Vec::new();
    for (path, file) in repository.catalogue()?.targets {
        let what = || format!("cannot publish `{path}`");
        let digest =
            file.hashes.sha256().ok_or_else(|| Failure::trust(format!("`{path}` has no SHA-256")))?;
        let manifest = repository.target(&path, digest)?;
        let signed = SignedRelease::parse(&manifest).or_fail(what)?;
        let release = &signed.release;
        let bundle = repository.public().join(bundle_path(release.bundle.sha256));
        let sbom = release.sbom.map(|sbom| repository.public().join(sbom_path(sbom.sha256)));
        let listed = sbom.as_ref().is_none_or(|sbom| sbom.exists());
        repository.publish_media(&signed)?;
        let routes = repository.public().join(routes_path(digest));
        let submitted = repository.submission_directory(digest);
        if routes.exists() && bundle.exists() && listed {
            // Killed before it had gone, it would be taken for one that still waits.
            durable::remove_tree(&submitted).or_fail(what)?;
            continue;
        }
        if let Some(path) = sbom.filter(|_| !listed)
            && let Some(bytes) = repository.sbom(&signed)?
        {
            durable::write_atomically(&path, &bytes).or_fail(what)?;
        }
        if !bundle.exists() {
            if let Some(directory) = bundle.parent() {
                fs::create_dir_all(directory).or_fail(what)?;
            }
            fs::rename(submitted.join("bundle.tar.zst"), &bundle).or_fail(what)?;
        }
        let routes_bytes = serde_json::to_vec(&Routes { bundle: true, ..Routes::default() }).or_fail(what)?;
        durable::write_atomically(&routes, &routes_bytes).or_fail(what)?;
        durable::remove_tree(&submitted).or_fail(what)?;
        published.push(format!("{} {}", release.name, release.version));
    }
    Ok(published)
}

fn publish_target(repository: &Repository, path: &TargetPath, digest: Option<Digest>) -> Result<(), Failure> {
    let digest = digest.ok_or_else(|| Failure::trust(format!("`{path}` has no SHA-256")))?;
    let below = target_path(path, digest).or_fail(|| format!("cannot publish `{path}`"))?;
    if repository.public().join(&below).exists() {
        return Ok(());
    }
    repository.write(&format!("public/{below}"), &repository.target(path, digest)?)
}
