//! Objects one at a time, several at once: how a workstation gets them from its node.
//!
//! Small ones pass through memory; larger ones go to a [`Partial`] and resume. One task on the blocking pool checks
//! them as they arrive and commits them together, every [`COMMIT_EVERY`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::StreamExt;
use mirabelle_content::{ObjectError, ObjectStore, digest};
use mirabelle_manifests::Digest;
use mirabelle_manifests::network::object_path;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{COMMIT_EVERY, ObtainError, ObtainPlan};
use crate::fetch::{FetchError, Fetcher};
use crate::partial::Partial;

/// Objects asked for at once.
const CONCURRENT_OBJECTS: usize = 8;
/// Objects up to this size pass through memory.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// One object, as it arrived.
enum Fetched {
    InMemory { object: Digest, size: u64, bytes: Vec<u8> },
    OnDisk { object: Digest, size: u64, partial: Partial },
}

/// Fetches, checks and commits every missing object.
pub(super) async fn fetch(
    plan: &ObtainPlan,
    fetcher: &Fetcher,
    store: &ObjectStore,
    partials: &Path,
) -> Result<(), ObtainError> {
    let (arrived, arriving) = mpsc::channel(CONCURRENT_OBJECTS);
    let taking = {
        let store = store.clone();
        spawn_blocking(move || take(arriving, &store))
    };
    let mut fetching = futures_util::stream::iter(plan.missing.clone())
        .map(|(object, size)| fetch_object(fetcher, object, size, partials))
        .buffer_unordered(CONCURRENT_OBJECTS);
    let mut outcome = Ok(());
    while let Some(fetched) = fetching.next().await {
        match fetched {
            Ok(object) => {
                if arrived.send(object).await.is_err() {
                    // It hangs up after a failure, which it then reports.
                    break;
                }
            }
            Err(error) => {
                outcome = Err(error.into());
                break;
            }
        }
    }
    drop((fetching, arrived));
    taking.await?.map_err(|source| match source {
        ObjectError::Store(error) => ObtainError::Disk(error),
        source => {
            ObtainError::Object { upstream: fetcher.upstream().to_string(), package: plan.package(), source }
        }
    })?;
    outcome
}

async fn fetch_object(
    fetcher: &Fetcher,
    object: Digest,
    size: u64,
    partials: &Path,
) -> Result<Fetched, FetchError> {
    let path = object_path(object);
    if size <= SMALL_OBJECT_BYTES {
        return Ok(Fetched::InMemory { object, size, bytes: fetcher.bytes(&path, size).await? });
    }
    let partial = Partial::new(partials, &object.to_string());
    let resumed = partial.length() > 0;
    fetcher.range(&path, 0..size, size, &partial).await?;
    if resumed && !is_object(partial.path().to_owned(), object).await? {
        partial.discard()?;
        fetcher.range(&path, 0..size, size, &partial).await?;
    }
    Ok(Fetched::OnDisk { object, size, partial })
}

/// True when the file at `path` has the object's digest.
async fn is_object(path: PathBuf, object: Digest) -> io::Result<bool> {
    let hashing = spawn_blocking(move || Ok(digest(&mut fs_err::File::open(path)?)?.0 == object));
    hashing.await.map_err(io::Error::other)?
}

/// Checks objects as they arrive and commits them in batches; those before a wrong one are kept.
fn take(mut arriving: mpsc::Receiver<Fetched>, store: &ObjectStore) -> Result<(), ObjectError> {
    let mut batch = store.batch();
    let mut since = Instant::now();
    while let Some(fetched) = arriving.blocking_recv() {
        let taken = match fetched {
            Fetched::InMemory { object, size, bytes } => batch.add(&mut bytes.as_slice(), object, size),
            Fetched::OnDisk { object, size, partial } => {
                let adopted = batch.adopt(partial.path(), object, size);
                // Right or wrong, it has served; adopted, it has moved.
                partial.discard()?;
                adopted
            }
        };
        if taken.is_err() {
            batch.commit()?;
            return taken;
        }
        if batch.is_full() || since.elapsed() >= COMMIT_EVERY {
            std::mem::replace(&mut batch, store.batch()).commit()?;
            since = Instant::now();
        }
    }
    Ok(batch.commit()?)
}
