//! What workstations see: the last catalogue of which the node holds everything it must.
//!
//! ```text
//! served/metadata/<n>.root.json …     every root from 1 on, for workstations that were away
//! served/metadata/<n>.<role>.json     snapshot, targets, catalogue, deployment, brake
//! served/metadata/timestamp.json      replaced last: the flip
//! served/targets/…                    small targets, and the manifests of the releases that are held
//! served/routes/<release>.json        which of them are here, and by which deltas they may be had
//! served/deltas/<release>/<from>.delta   the delta that a release came by, for workstations that hold the same one
//! served/encoded/…                    the newest metadata compressed, and as a difference from the one before
//! ```
//!
//! Invariant: everything that `timestamp.json` leads to, and that the deployment obliges this node to hold, is here
//! and synced before it is renamed into place. A crash at any instant leaves the old timestamp or the new one.

mod old;
mod scrub;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, brake_role, delta_path, deployment_role,
    metadata_path, routes_path, target_path,
};
use mirabelle_manifests::tuf::{
    Document, RoleDocument, RoleName, Root, Snapshot, Targets, Timestamp, TrustedMetadata,
};
use mirabelle_manifests::{
    Catalogue, CatalogueEntry, DeltaOffer, Digest, Instant, MAX_MANIFEST_BYTES, MAX_ROUTES_BYTES, Routes,
    TargetPath,
};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::{
    EncodedForms, FetchError, Fetcher, HeldManifest, MetadataStore, Network, UsedDelta,
};

const MAX_METADATA_BYTES: u64 = 64 << 20;
const MAX_ROOT_BYTES: u64 = 512 << 10;

/// The served directory.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    directory: PathBuf,
}

impl Served {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    /// The version of the timestamp that is served; `None` before the first flip.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.document(&metadata_path(&RoleName::timestamp(), None))
    }

    fn document<T: RoleDocument>(&self, below: &str) -> Option<T> {
        let bytes = durable::read_if_present(&self.path(below), MAX_METADATA_BYTES).ok()??;
        Document::parse(&bytes).ok().map(|document| document.signed)
    }

    /// A manifest that is here already, if it is the one that the catalogue names.
    pub(crate) fn manifest(&self, entry: &CatalogueEntry) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.manifest_path(entry)?;
        let bytes = durable::read_if_present(&path, MAX_MANIFEST_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == entry.digest))
    }

    fn manifest_path(&self, entry: &CatalogueEntry) -> Result<PathBuf, Failure> {
        let below =
            target_path(&entry.path, entry.digest).or_fail(|| format!("cannot store `{}`", entry.path))?;
        Ok(self.path(&below))
    }

    /// Manifests that are here of other releases of the package and platform.
    pub(crate) fn held_manifests(
        &self,
        catalogue: &Catalogue,
        entry: &CatalogueEntry,
    ) -> Result<Vec<HeldManifest>, Failure> {
        let listing = &entry.listing;
        let others = catalogue.iter().filter(|other| {
            other.digest != entry.digest
                && other.listing.name == listing.name
                && other.listing.platform == listing.platform
        });
        let mut held = Vec::new();
        for other in others {
            held.extend(self.manifest(other)?.map(|bytes| HeldManifest { release: other.digest, bytes }));
        }
        Ok(held)
    }

    /// Makes a release known: its manifest, that its objects are here, and the deltas that it may be had by. Called once
    /// its objects are here.
    ///
    /// Of the deltas it came by, the one that leads from another release straight to it is kept for workstations, and so
    /// is a pack. Those of a chain pass through releases that are not served.
    pub(crate) fn add_release(
        &self,
        entry: &CatalogueEntry,
        manifest: &[u8],
        came_by: Vec<UsedDelta>,
    ) -> Result<(), Failure> {
        let what = || format!("cannot store the manifest of `{}`", entry.listing.name);
        let mut routes = self.routes(entry.digest)?;
        routes.objects = true;
        let direct = came_by.len() == 1;
        for delta in came_by {
            if !direct {
                delta.discard().or_fail(what)?;
                continue;
            }
            let offer = DeltaOffer { from: delta.from, sha256: delta.sha256, size: delta.size };
            delta.keep(&self.path(&delta_path(entry.digest, offer.from))).or_fail(what)?;
            routes.deltas.retain(|known| known.from != offer.from);
            routes.deltas.push(offer);
        }
        self.write_routes(entry.digest, &routes)?;
        // Last: killed before, the next sync finds that there is something to do.
        durable::write_atomically(&self.manifest_path(entry)?, manifest).or_fail(what)
    }

    /// True when whoever asks is told that the release's objects are here.
    pub(crate) fn offers(&self, release: Digest) -> Result<bool, Failure> {
        Ok(self.routes(release)?.objects)
    }

    /// What is offered for a release. A delta that is no longer here is not.
    fn routes(&self, release: Digest) -> Result<Routes, Failure> {
        let path = self.path(&routes_path(release));
        let bytes = durable::read_if_present(&path, MAX_ROUTES_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?;
        let mut routes = bytes.map_or_else(Routes::default, |bytes| Routes::read(&bytes));
        routes.deltas.retain(|offer| self.path(&delta_path(release, offer.from)).is_file());
        Ok(routes)
    }

    fn write_routes(&self, release: Digest, routes: &Routes) -> Result<(), Failure> {
        let what = || format!("cannot write the routes of release {}", release.short());
        let bytes = serde_json::to_vec(routes).or_fail(what)?;
        durable::write_atomically(&self.path(&routes_path(release)), &bytes).or_fail(what)
    }

    /// Drops deltas to releases that are not `obliged`: first from what is offered, then from the disk.
    pub(crate) fn drop_deltas(&self, obliged: &BTreeSet<Digest>) -> Result<(), Failure> {
        let directory = self.path("deltas");
        let what = || format!("cannot sweep `{}`", directory.display());
        if !directory.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&directory).or_fail(what)? {
            let path = entry.or_fail(what)?.path();
            let release: Option<Digest> =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if release.is_some_and(|release| obliged.contains(&release)) {
                continue;
            }
            if let Some(release) = release.filter(|release| self.path(&routes_path(*release)).exists()) {
                let routes = Routes { deltas: Vec::new(), ..self.routes(release)? };
                self.write_routes(release, &routes)?;
            }
            durable::remove_tree(&path).or_fail(what)?;
        }
        Ok(())
    }

    /// Keeps every root up to the trusted one, for workstations that trust an older one.
    ///
    /// Those that this node verified come from its own store. Those from before it was set up nobody here can vouch for:
    /// they must at least lead to the next one, are asked for anew at every flip, and workstations verify each, so that a
    /// wrong one does no more than hold up a workstation that old until the next flip.
    pub(crate) async fn keep_roots(&self, fetcher: &Fetcher, trust: &MetadataStore, network: &Network) {
        let newest = network.trusted.root().version;
        let mut next = trust.read(&RoleName::root()).ok().flatten().unwrap_or_default();
        for version in (1..newest).rev() {
            let below = metadata_path(&RoleName::root(), Some(version));
            let bytes = match trust.kept_root(version) {
                Ok(Some(bytes)) => bytes,
                _ => match fetcher.bytes(&below, MAX_ROOT_BYTES).await {
                    Ok(bytes) if leads_to(&bytes, &next, network.trusted.now()) => bytes,
                    Ok(_) => {
                        tracing::warn!(version, upstream = %fetcher.upstream(), "an older root does not lead to the next");
                        return;
                    }
                    Err(FetchError::NotFound { .. }) => return,
                    Err(error) => {
                        tracing::warn!(%error, version, "an older root could not be fetched");
                        return;
                    }
                },
            };
            let here = durable::read_if_present(&self.path(&below), MAX_ROOT_BYTES).ok().flatten();
            if here.as_deref() != Some(&bytes[..])
                && let Err(error) = durable::write_atomically(&self.path(&below), &bytes)
            {
                tracing::warn!(%error, version, "an older root could not be kept");
            }
            next = bytes;
        }
    }

    /// The flip: puts the verified metadata in place, its timestamp last.
    pub(crate) fn flip(&self, network: &Network, trust: &MetadataStore) -> Result<(), Failure> {
        let what = || "cannot put the new catalogue in place".to_owned();
        let before = self.referenced();
        let mut versioned = vec![RoleName::root(), RoleName::snapshot()];
        versioned.extend(network.roles());
        let forms = EncodedForms::of(&self.directory);
        let mut current = BTreeSet::new();
        for role in versioned {
            let bytes = trust.read(&role).or_fail(what)?.ok_or_else(|| missing(&role))?;
            let version = version_of(&role, &bytes)?;
            let path = self.path(&metadata_path(&role, Some(version)));
            if durable::read_if_present(&path, MAX_METADATA_BYTES).or_fail(what)?.as_deref()
                != Some(&bytes[..])
            {
                forms.discard(&metadata_path(&role, Some(version))).or_fail(what)?;
                durable::write_atomically(&path, &bytes).or_fail(what)?;
            }
            if role != RoleName::root() {
                let below = metadata_path(&role, Some(version));
                let held = self.held(&role, version);
                forms.add(&below, &bytes, held.as_slice()).or_fail(what)?;
                current.insert(below);
            }
        }
        forms.retain(|path| current.contains(path)).or_fail(what)?;
        for (path, digest) in small_targets(network)? {
            let bytes = trust.read_target(&path, digest).or_fail(what)?;
            let bytes = bytes
                .ok_or_else(|| Failure::trust(format!("`{path}` is missing in what was verified before")))?;
            let below = target_path(&path, digest).or_fail(what)?;
            durable::write_atomically(&self.path(&below), &bytes).or_fail(what)?;
        }
        let timestamp = trust.read(&RoleName::timestamp()).or_fail(what)?;
        let timestamp = timestamp.ok_or_else(|| missing(&RoleName::timestamp()))?;
        // Everything before the switch, the objects among it, survives a power cut that comes after it.
        durable::sync_file_system(&self.directory).or_fail(what)?;
        durable::write_atomically(&self.path(&metadata_path(&RoleName::timestamp(), None)), &timestamp)
            .or_fail(what)?;
        if let Err(error) = self.drop_old(&before) {
            tracing::warn!(%error, "old metadata could not be removed");
        }
        Ok(())
    }

    /// True when what is served is, byte for byte, the newest metadata that was verified: nothing is new, and the disk changed
    /// nothing.
    pub(crate) fn is_as_verified(&self, network: &Network, trust: &MetadataStore) -> Result<bool, Failure> {
        let what = || "cannot compare what is served with what was verified".to_owned();
        let is_here = |below: &str, verified: Option<Vec<u8>>| {
            let served = durable::read_if_present(&self.path(below), MAX_METADATA_BYTES).or_fail(what)?;
            Ok::<_, Failure>(served.is_some() && served == verified)
        };
        let (root, snapshot) = (network.trusted.root().version, network.trusted.snapshot());
        for version in 1..=root {
            let kept = trust.kept_root(version).or_fail(what)?;
            // What nobody here verified cannot be compared.
            let below = metadata_path(&RoleName::root(), Some(version));
            if kept.is_some() && !is_here(&below, kept)? {
                return Ok(false);
            }
        }
        let mut roles = vec![(RoleName::timestamp(), None)];
        roles.push((RoleName::snapshot(), snapshot.map(|snapshot| snapshot.version)));
        roles.extend(network.roles().into_iter().map(|role| {
            let version = snapshot.and_then(|snapshot| Some(snapshot.meta.get(&role.meta_name())?.version));
            (role, version)
        }));
        for (role, version) in roles {
            if !is_here(&metadata_path(&role, version), trust.read(&role).or_fail(what)?)? {
                return Ok(false);
            }
        }
        for (path, digest) in small_targets(network)? {
            let below = target_path(&path, digest).or_fail(what)?;
            if !is_here(&below, trust.read_target(&path, digest).or_fail(what)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The version of a role that is served now, before the flip: what workstations hold.
    fn held(&self, role: &RoleName, next: u64) -> Option<Vec<u8>> {
        let snapshot = self.timestamp()?.snapshot()?.version;
        let version = if *role == RoleName::snapshot() {
            snapshot
        } else {
            let snapshot: Snapshot = self.document(&metadata_path(&RoleName::snapshot(), Some(snapshot)))?;
            snapshot.meta.get(&role.meta_name())?.version
        };
        let path = self.path(&metadata_path(role, Some(version)));
        (version != next).then(|| durable::read_if_present(&path, MAX_METADATA_BYTES).ok().flatten())?
    }

    /// Copies the served metadata into `directory` as a [`MetadataStore`], to be verified like anybody's.
    pub(crate) fn export(&self, directory: &Path) -> Result<MetadataStore, Failure> {
        let what = || "cannot read what is served".to_owned();
        let copy = |from: &str, to: &str| {
            let bytes = durable::read_if_present(&self.path(from), MAX_METADATA_BYTES)?;
            bytes.map_or(Ok(()), |bytes| durable::write_atomically(&directory.join(to), &bytes))
        };
        copy(&metadata_path(&RoleName::timestamp(), None), "timestamp.json").or_fail(what)?;
        let snapshot = self.timestamp().and_then(|timestamp| timestamp.snapshot().map(|meta| meta.version));
        let snapshot =
            snapshot.ok_or_else(|| Failure::no("nothing is served yet").hint("run `mirabelle-node sync`"))?;
        let snapshot_path = metadata_path(&RoleName::snapshot(), Some(snapshot));
        copy(&snapshot_path, "snapshot.json").or_fail(what)?;
        let snapshot: Snapshot =
            self.document(&snapshot_path).ok_or_else(|| missing(&RoleName::snapshot()))?;
        for (name, meta) in &snapshot.meta {
            let role = RoleName::new(name.strip_suffix(".json").unwrap_or(name));
            let from = metadata_path(&role, Some(meta.version));
            copy(&from, &format!("{}.json", role.file_stem())).or_fail(what)?;
            let targets: Targets = self.document(&from).ok_or_else(|| missing(&role))?;
            for path in [PACKAGERS_TARGET, DEPLOYMENT_TARGET, BRAKE_TARGET].map(TargetPath::new) {
                let Some(digest) = targets.targets.get(&path).and_then(|file| file.hashes.sha256()) else {
                    continue;
                };
                let name = path.as_str().rsplit('/').next().unwrap_or_default();
                copy(&target_path(&path, digest).or_fail(what)?, &format!("targets/{digest}.{name}"))
                    .or_fail(what)?;
            }
        }
        Ok(MetadataStore::new(directory))
    }
}

/// True when whoever trusts the root `older` would come to trust `newer`.
fn leads_to(older: &[u8], newer: &[u8], now: Instant) -> bool {
    TrustedMetadata::begin(older, now).is_ok_and(|mut trusted| trusted.update_root(newer).is_ok())
}

/// The small targets that everybody reads, with their digests.
fn small_targets(network: &Network) -> Result<[(TargetPath, Digest); 3], Failure> {
    let of = |role: RoleName, path: &str| {
        let path = TargetPath::new(path);
        let listed = network.trusted.delegated(&role, &RoleName::targets());
        let digest = listed.and_then(|targets| targets.targets.get(&path)?.hashes.sha256());
        Ok::<_, Failure>((path, digest.ok_or_else(|| missing(&role))?))
    };
    Ok([
        of(RoleName::targets(), PACKAGERS_TARGET)?,
        of(deployment_role(), DEPLOYMENT_TARGET)?,
        of(brake_role(), BRAKE_TARGET)?,
    ])
}

fn missing(role: &RoleName) -> Failure {
    Failure::trust(format!("the role `{role}` is missing or malformed in what was verified before"))
}

fn version_of(role: &RoleName, bytes: &[u8]) -> Result<u64, Failure> {
    fn version<T: RoleDocument>(bytes: &[u8]) -> Option<u64> {
        Document::<T>::parse(bytes).ok().map(|document| document.signed.version())
    }
    let version = match role.as_str() {
        Root::TYPE => version::<Root>(bytes),
        Snapshot::TYPE => version::<Snapshot>(bytes),
        _ => version::<Targets>(bytes),
    };
    version.ok_or_else(|| missing(role))
}
