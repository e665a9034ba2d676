//! `export`: what the node serves, as a plain tree: for a stick that fills another node, or any static server.
//!
//! ```text
//! DIR/metadata/ targets/ routes/ deltas/     as the node serves them; encoded forms are left out
//! DIR/objects/ab/cdef…                       plain bytes: linked where the node has them so on the same disk, else copied
//! DIR/.incoming/                             objects being written; gone at the end
//! ```
//!
//! Invariants: `metadata/timestamp.json` is replaced last, when all that it leads to is on the stick and synced; what only the
//! export before needed goes after that. An object gets its name once its bytes, compared with its digest, are on the stick. So an
//! export that is cut leaves the one before, or none, and the next one goes on with what is there.
//!
//! Beside a running service, the lease on the objects keeps them from being swept, and what is copied is the metadata as it was at
//! the beginning.
//!
//! Threats: a stick full of links, which would make us write elsewhere: `stick.rs`. Whoever may write to a tree that was linked from
//! the node's own disk changes the node's objects: they are read-only, and `fsck` finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::gc::Lease;
use mirabelle_content::{Form, ObjectStore, durable};
use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, brake_role, delta_path, deployment_role,
    metadata_path, object_path, routes_path, target_path,
};
use mirabelle_manifests::tuf::{Document, RoleName, Snapshot};
use mirabelle_manifests::{
    CatalogueEntry, Digest, Hasher, Instant, MAX_ROUTES_BYTES, Routes, SiteId, TargetPath, check_approval,
};
use mirabelle_terminal::{Bar, Failure, Kind, OrFail, bytes, failure::Sounds};
use mirabelle_transfer::{MetadataStore, Network, kept_network};
use serde::Serialize;
use tempfile::TempPath;

use super::Context;
use crate::mirror::Obligations;
use crate::site::Site;
use crate::stick::{Stick, StickError};

/// Objects get their names after a sync for so many of them, or so many bytes: what a cut costs stays small.
const BATCH_OBJECTS: usize = 2000;
const BATCH_BYTES: u64 = 256 << 20;
/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 << 10;
const MAX_ROOT_BYTES: u64 = 512 << 10;

const INCOMING: &str = ".incoming";

/// Why nothing, or not all, was exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Stick(#[from] StickError),
    #[error("object {0} is damaged on this node")]
    Damaged(Digest),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Sounds for ExportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Stick(error) => error.kind(),
            Self::Damaged(_) => Kind::No,
            Self::Io(error) => Sounds::kind(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Damaged(_) => {
                Some("`mirabelle-node fsck --repair` sets it aside, to be fetched again".to_owned())
            }
            Self::Stick(StickError::Io(error)) | Self::Io(error) => error.advice(),
            Self::Stick(_) => None,
        }
    }
}

impl Sounds for StickError {
    fn kind(&self) -> Kind {
        match self {
            Self::Link(_) | Self::Special(_) => Kind::Trust,
            Self::Short(_) => Kind::No,
            Self::Io(error) => Sounds::kind(error),
        }
    }
}

#[derive(Serialize)]
struct Exported {
    directory: PathBuf,
    releases: usize,
    objects: usize,
    /// Objects that were there already.
    kept: usize,
    /// Bytes of objects that were written, or linked.
    written_bytes: u64,
    removed_files: usize,
}

pub(super) async fn run(context: &Context, directory: &Path) -> Result<(), Failure> {
    let (site, college) = (&context.site, context.config()?.college);
    let what = || format!("cannot export to `{}`", directory.display());
    let store = site.objects_read_only();
    // From before looking what is here until it is copied, nobody sweeps.
    let lease = tokio::task::block_in_place(|| Lease::take(&store)).or_fail(what)?;
    let plan = Plan::new(site, &college, Instant::now()).await?;
    let exported =
        tokio::task::block_in_place(|| plan.execute(site, &Stick::new(directory))).or_fail(what)?;
    drop(lease);
    context.output.print(&exported, |exported| {
        format!(
            "exported {} releases to `{}`: {} objects, {} of them there already; {} written",
            exported.releases,
            exported.directory.display(),
            exported.objects,
            exported.kept,
            bytes(exported.written_bytes)
        )
    });
    Ok(())
}

/// What an export is made of.
struct Plan {
    timestamp: Vec<u8>,
    /// Metadata and small targets, by their names.
    documents: BTreeMap<String, Vec<u8>>,
    /// Manifests, by their names.
    manifests: BTreeMap<String, Digest>,
    routes: BTreeMap<String, Routes>,
    deltas: BTreeSet<String>,
    objects: BTreeMap<Digest, u64>,
}

impl Plan {
    /// What is served now, verified as a workstation would.
    async fn new(site: &Site, college: &SiteId, now: Instant) -> Result<Self, Failure> {
        let what = || "what is served does not verify".to_owned();
        let copy = tempfile::tempdir().or_fail(what)?;
        let metadata = site.served().export(copy.path())?;
        metadata.trust(&site.trust().root().or_fail(what)?).or_fail(what)?;
        let network = kept_network(&metadata, now).await.or_fail(what)?;
        let mut plan = Self::of_metadata(site, &metadata, &network)?;
        let owed = Obligations::new(&network, college, now).pinned();
        for entry in network.catalogue.iter() {
            if !plan.add_release(site, &network, entry)? && owed.contains(&entry.digest) {
                let name = &entry.listing.name;
                return Err(Failure::no(format!("`{name}` is owed to this college, and is not all here"))
                    .hint("run `mirabelle-node sync` first; if that finds nothing to do, `fsck --repair`"));
            }
        }
        Ok(plan)
    }

    fn of_metadata(site: &Site, metadata: &MetadataStore, network: &Network) -> Result<Self, Failure> {
        let what = || "cannot read what is served".to_owned();
        let missing =
            |role: &RoleName| Failure::trust(format!("the role `{role}` is missing in what is served"));
        let read = |role: &RoleName| metadata.read(role).or_fail(what)?.ok_or_else(|| missing(role));
        let mut documents = BTreeMap::new();
        for version in 1..=network.trusted.root().version {
            let below = metadata_path(&RoleName::root(), Some(version));
            let path = site.served().path(&below);
            if let Some(bytes) = durable::read_if_present(&path, MAX_ROOT_BYTES).or_fail(what)? {
                documents.insert(below, bytes);
            }
        }
        let snapshot_bytes = read(&RoleName::snapshot())?;
        let snapshot = Document::<Snapshot>::parse(&snapshot_bytes).or_fail(what)?.signed;
        documents.insert(metadata_path(&RoleName::snapshot(), Some(snapshot.version)), snapshot_bytes);
        for role in network.roles() {
            let version = snapshot.meta.get(&role.meta_name()).ok_or_else(|| missing(&role))?.version;
            documents.insert(metadata_path(&role, Some(version)), read(&role)?);
        }
        let small = [
            (RoleName::targets(), PACKAGERS_TARGET),
            (deployment_role(), DEPLOYMENT_TARGET),
            (brake_role(), BRAKE_TARGET),
        ];
        for (role, path) in small {
            let path = TargetPath::new(path);
            let listed = network.trusted.delegated(&role, &RoleName::targets());
            let digest = listed.and_then(|targets| targets.targets.get(&path)?.hashes.sha256());
            let digest = digest.ok_or_else(|| missing(&role))?;
            let target = metadata.read_target(&path, digest).or_fail(what)?.ok_or_else(|| missing(&role))?;
            documents.insert(target_path(&path, digest).or_fail(what)?, target);
        }
        Ok(Self {
            timestamp: read(&RoleName::timestamp())?,
            documents,
            manifests: BTreeMap::new(),
            routes: BTreeMap::new(),
            deltas: BTreeSet::new(),
            objects: BTreeMap::new(),
        })
    }

    /// Adds a release, if it is here whole; says whether it is.
    fn add_release(
        &mut self,
        site: &Site,
        network: &Network,
        entry: &CatalogueEntry,
    ) -> Result<bool, Failure> {
        let (served, store) = (site.served(), site.objects_read_only());
        let Some(manifest) = served.manifest(entry)? else { return Ok(false) };
        let what = || format!("`{}` does not verify", entry.listing.name);
        let release = check_approval(&manifest, entry, &network.packagers).or_fail(what)?;
        let objects = release.objects();
        if !objects.iter().all(|(object, described)| store.holds(*object, described.size)) {
            return Ok(false);
        }
        let listed = served.path(&routes_path(entry.digest));
        let listed = durable::read_if_present(&listed, MAX_ROUTES_BYTES).or_fail(what)?;
        let known = listed.map_or_else(Routes::default, |bytes| Routes::read(&bytes));
        let mut routes = Routes { objects: true, ..Routes::default() };
        for offer in known.deltas {
            let path = delta_path(entry.digest, offer.from);
            if fs::metadata(served.path(&path)).is_ok_and(|found| found.len() == offer.size) {
                self.deltas.insert(path);
                routes.deltas.push(offer);
            }
        }
        self.routes.insert(routes_path(entry.digest), routes);
        self.manifests.insert(target_path(&entry.path, entry.digest).or_fail(what)?, entry.digest);
        self.objects.extend(objects.into_iter().map(|(object, described)| (object, described.size)));
        Ok(true)
    }

    /// Writes it: whatever is needed first, then what names it, the timestamp last.
    fn execute(mut self, site: &Site, stick: &Stick) -> Result<Exported, ExportError> {
        fs::create_dir_all(stick.directory())?;
        durable::remove_tree(&stick.path(INCOMING))?;
        let (kept, written_bytes) = self.write_objects(&site.objects_read_only(), stick)?;
        durable::remove_tree(&stick.path(INCOMING))?;
        self.write_deltas(site, stick)?;
        for (below, digest) in &self.manifests {
            let from = fs::read(site.served().path(below))?;
            if Digest::of(&from) != *digest {
                return Err(ExportError::Damaged(*digest));
            }
            write_document(stick, below, &from)?;
        }
        for (below, routes) in &self.routes {
            write_document(stick, below, &serde_json::to_vec(routes).map_err(io::Error::other)?)?;
        }
        for (below, document) in &self.documents {
            write_document(stick, below, document)?;
        }
        durable::sync_file_system(stick.directory())?;
        let timestamp = metadata_path(&RoleName::timestamp(), None);
        write_document(stick, &timestamp, &self.timestamp)?;
        let removed_files = self.remove_the_rest(stick, &timestamp)?;
        durable::sync_file_system(stick.directory())?;
        Ok(Exported {
            directory: stick.directory().to_owned(),
            releases: self.manifests.len(),
            objects: self.objects.len(),
            kept,
            written_bytes,
            removed_files,
        })
    }

    /// Writes the objects that are not there; returns how many were, and the bytes of the others.
    fn write_objects(&self, store: &ObjectStore, stick: &Stick) -> Result<(usize, u64), ExportError> {
        let mut missing = Vec::new();
        for (object, size) in &self.objects {
            if stick.length(&object_path(*object))? != Some(*size) {
                missing.push((*object, *size));
            }
        }
        let total = missing.iter().map(|(_, size)| size).sum();
        let kept = self.objects.len() - missing.len();
        fs::create_dir_all(stick.path(INCOMING))?;
        let bar = Bar::bytes("exporting objects", total);
        let mut staged = Staged::default();
        for (object, size) in missing {
            let place = stick.place(&object_path(object))?;
            if let Some((Form::Plain, path)) = store.locate(object)
                && !place.exists()
                && fs::hard_link(path, &place).is_ok()
            {
                bar.advance(size);
                continue;
            }
            let copied = copy(store, object, size, &stick.path(INCOMING), &bar)?;
            staged.push(copied, place, size);
            if staged.is_full() {
                staged.name(stick)?;
            }
        }
        staged.name(stick)?;
        bar.finish();
        Ok((kept, total))
    }

    /// Copies the deltas. One that the node dropped meanwhile is not offered.
    fn write_deltas(&mut self, site: &Site, stick: &Stick) -> Result<(), ExportError> {
        let mut gone = BTreeSet::new();
        for below in &self.deltas {
            let from = match fs::File::open(site.served().path(below)) {
                Ok(from) => from,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    gone.insert(below.clone());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if stick.length(below)? == Some(from.metadata()?.len()) {
                continue;
            }
            let place = stick.place(below)?;
            let mut temporary = temporary_in(place.parent().unwrap_or(stick.directory()))?;
            io::copy(&mut from.into_file(), temporary.as_file_mut())?;
            temporary.persist(place).map_err(|error| error.error)?;
        }
        for (below, routes) in &mut self.routes {
            let release: Option<Digest> =
                below.trim_start_matches("routes/").trim_end_matches(".json").parse().ok();
            routes.deltas.retain(|offer| {
                release.is_none_or(|release| !gone.contains(&delta_path(release, offer.from)))
            });
        }
        self.deltas.retain(|below| !gone.contains(below));
        Ok(())
    }

    /// Removes what only an export before this one needed, whatever else of the same names is there among it.
    fn remove_the_rest(&self, stick: &Stick, timestamp: &str) -> Result<usize, ExportError> {
        let mut needed: BTreeSet<String> = self.objects.keys().map(|object| object_path(*object)).collect();
        needed.extend(self.documents.keys().chain(self.manifests.keys()).chain(self.routes.keys()).cloned());
        needed.extend(self.deltas.iter().cloned());
        needed.insert(timestamp.to_owned());
        let mut removed = 0;
        for directory in ["routes", "metadata", "targets", "deltas", "objects"] {
            for file in stick.files(directory)? {
                if !needed.contains(&file) {
                    durable::remove_file(&stick.path(&file))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// Objects that are written and have no name yet.
#[derive(Default)]
struct Staged {
    objects: Vec<(TempPath, PathBuf)>,
    bytes: u64,
}

impl Staged {
    fn push(&mut self, written: TempPath, place: PathBuf, size: u64) {
        self.objects.push((written, place));
        self.bytes += size;
    }

    fn is_full(&self) -> bool {
        self.objects.len() >= BATCH_OBJECTS || self.bytes >= BATCH_BYTES
    }

    fn name(&mut self, stick: &Stick) -> io::Result<()> {
        if !self.objects.is_empty() {
            durable::sync_file_system(stick.directory())?;
        }
        self.bytes = 0;
        self.objects
            .drain(..)
            .try_for_each(|(written, place)| written.persist(place).map_err(|error| error.error))
    }
}

fn temporary_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
}

/// Copies an object's plain bytes, which must have its digest.
fn copy(
    store: &ObjectStore,
    object: Digest,
    size: u64,
    incoming: &Path,
    bar: &Bar,
) -> Result<TempPath, ExportError> {
    let mut from = store.read(object)?.take(size + 1);
    let mut to = temporary_in(incoming)?;
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER_BYTES]);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What does not decode is damaged, whatever the decoder calls it.
            Err(_) => return Err(ExportError::Damaged(object)),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bar.advance(read as u64);
    }
    if hasher.finish() == object { Ok(to.into_temp_path()) } else { Err(ExportError::Damaged(object)) }
}

/// Replaces a small file, unless it is there already.
fn write_document(stick: &Stick, below: &str, document: &[u8]) -> Result<(), ExportError> {
    let place = stick.place(below)?;
    if stick.length(below)? == Some(document.len() as u64) && fs::read(&place)? == document {
        return Ok(());
    }
    let mut temporary = temporary_in(place.parent().unwrap_or(stick.directory()))?;
    temporary.write_all(document)?;
    temporary.as_file().sync_all()?;
    temporary.persist(place).map_err(|error| error.error)?;
    Ok(())
}
