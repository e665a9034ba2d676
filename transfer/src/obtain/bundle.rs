//! Objects by ranges of a full bundle.
//!
//! The bundle is fetched in segments, a fixed partition of its frames into runs of some 8 MiB, each into a [`Partial`];
//! a segment is decoded while the next one is under way. The partition depends on the manifest alone, so a plan made
//! after a crash finds the partial downloads of the plan before.
//!
//! Decoded segments are committed together, every [`COMMIT_EVERY`]. Until then their partial downloads stay: killed
//! before a commit, the next run decodes them again without asking the server.

use std::collections::BTreeMap;
use std::io::{self, Seek};
use std::path::Path;

use mirabelle_content::bundle::{BundleError, read_frame};
use mirabelle_content::{Batch, ObjectStore};
use mirabelle_manifests::network::bundle_path;
use mirabelle_manifests::{ApprovedRelease, Digest};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::{COMMIT_EVERY, ObtainError, ObtainPlan, Segment};
use crate::fetch::Fetcher;
use crate::partial::Partial;

/// A segment being decoded on the blocking pool, which has the batch meanwhile.
struct Decoding {
    task: JoinHandle<(Batch, Result<(), BundleError>)>,
    segment: Segment,
    partial: Partial,
    resumed: bool,
}

/// What was decoded and waits to be committed.
struct Pending {
    store: ObjectStore,
    batch: Batch,
    partials: Vec<Partial>,
    since: Instant,
}

/// Fetches, decodes and commits `segments`.
pub(super) async fn fetch(
    plan: &ObtainPlan,
    segments: Vec<Segment>,
    fetcher: &Fetcher,
    store: &ObjectStore,
    partials: &Path,
) -> Result<(), ObtainError> {
    let mut pending = Pending::new(store);
    let mut decoding: Option<Decoding> = None;
    let mut outcome = Ok(());
    for segment in segments {
        let name = format!("{}-{}", plan.release.bundle.sha256, segment.bytes.start);
        let partial = Partial::new(partials, &name);
        let resumed = partial.length() > 0;
        let fetched = fetch_segment(plan, fetcher, &segment, &partial).await;
        if let Some(before) = decoding.take() {
            outcome = settle(plan, fetcher, before, &mut pending).await;
        }
        outcome = outcome.and(fetched);
        if outcome.is_err() {
            break;
        }
        if pending.is_due() {
            pending.commit().await?;
        }
        let task = decode(plan, &segment, &partial, pending.take_batch());
        decoding = Some(Decoding { task, segment, partial, resumed });
    }
    if let Some(last) = decoding {
        outcome = settle(plan, fetcher, last, &mut pending).await;
    }
    // What was decoded is kept, also when something failed after it.
    let committed = pending.commit().await;
    outcome.and(committed)
}

async fn fetch_segment(
    plan: &ObtainPlan,
    fetcher: &Fetcher,
    segment: &Segment,
    partial: &Partial,
) -> Result<(), ObtainError> {
    let bundle = &plan.release.bundle;
    Ok(fetcher.range(&bundle_path(bundle.sha256), segment.bytes.clone(), bundle.size, partial).await?)
}

fn decode(
    plan: &ObtainPlan,
    segment: &Segment,
    partial: &Partial,
    mut batch: Batch,
) -> JoinHandle<(Batch, Result<(), BundleError>)> {
    let (release, missing) = (plan.release.clone(), plan.missing.clone());
    let (segment, partial) = (segment.clone(), partial.clone());
    spawn_blocking(move || {
        let result = decode_segment(&release, &segment, &missing, &partial, &mut batch);
        (batch, result)
    })
}

/// Waits for a segment's decoding. Bytes left by an earlier process may have suffered in a power cut, so a segment that
/// was resumed gets a second chance, from its first byte; fresh bytes that are wrong are the server's doing.
async fn settle(
    plan: &ObtainPlan,
    fetcher: &Fetcher,
    decoding: Decoding,
    pending: &mut Pending,
) -> Result<(), ObtainError> {
    let Decoding { task, segment, partial, resumed } = decoding;
    let (batch, mut result) = task.await?;
    pending.batch = batch;
    if resumed && !matches!(result, Ok(()) | Err(BundleError::Io(_))) {
        tracing::warn!(package = plan.package(), "a resumed download was damaged and begins again");
        partial.discard()?;
        fetch_segment(plan, fetcher, &segment, &partial).await?;
        (pending.batch, result) = decode(plan, &segment, &partial, pending.take_batch()).await?;
    }
    if result.is_err() {
        // A wrong one must not be resumed.
        partial.discard()?;
    } else {
        pending.partials.push(partial);
    }
    result.map_err(|source| match source {
        BundleError::Io(error) => ObtainError::Disk(error),
        source => {
            ObtainError::Bundle { upstream: fetcher.upstream().to_string(), package: plan.package(), source }
        }
    })
}

impl Pending {
    fn new(store: &ObjectStore) -> Self {
        Self { store: store.clone(), batch: store.batch(), partials: Vec::new(), since: Instant::now() }
    }

    fn is_due(&self) -> bool {
        self.batch.is_full() || self.since.elapsed() >= COMMIT_EVERY
    }

    fn take_batch(&mut self) -> Batch {
        std::mem::replace(&mut self.batch, self.store.batch())
    }

    /// Gives what was decoded its names. The partial downloads go first, so that the sync does not write to the disk
    /// what is about to be deleted; killed just here, they are fetched again.
    async fn commit(&mut self) -> Result<(), ObtainError> {
        let (batch, partials) = (self.take_batch(), std::mem::take(&mut self.partials));
        let committing = spawn_blocking(move || -> io::Result<()> {
            for partial in partials {
                partial.discard()?;
            }
            batch.commit()
        });
        committing.await??;
        self.since = Instant::now();
        Ok(())
    }
}

fn decode_segment(
    release: &ApprovedRelease,
    segment: &Segment,
    missing: &BTreeMap<Digest, u64>,
    partial: &Partial,
    batch: &mut Batch,
) -> Result<(), BundleError> {
    let mut wanted: BTreeMap<u32, BTreeMap<Digest, u64>> = BTreeMap::new();
    for (digest, object) in release.objects() {
        if segment.frames.contains(&object.frame) && missing.contains_key(&digest) {
            wanted.entry(object.frame).or_default().insert(digest, object.size);
        }
    }
    let mut file = fs_err::File::open(partial.path())?;
    let mut offset = 0;
    for number in segment.frames.clone() {
        file.seek(io::SeekFrom::Start(offset))?;
        offset += release.bundle.frames[number as usize].size;
        read_frame(&mut file, release, number, wanted.remove(&number).unwrap_or_default(), batch)?;
    }
    Ok(())
}
