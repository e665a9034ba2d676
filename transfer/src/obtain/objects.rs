//! Objects one at a time, several at once: how a workstation gets them from its node.
//!
//! Small ones pass through memory; larger ones go to a partial download and resume. They travel compressed where the
//! server has them so. One task on the blocking pool decodes and checks them as they arrive, each bounded by its signed
//! size, and commits them together, every [`COMMIT_EVERY`].

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt;
use mirabelle_content::{ObjectError, ObjectStore, digest};
use mirabelle_manifests::Digest;
use mirabelle_manifests::network::object_path;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{COMMIT_EVERY, ObtainError, ObtainPlan};
use crate::encoding::{Encoding, unzstd};
use crate::fetch::{FetchError, Fetcher, ObjectPartials};

/// Objects asked for at once.
const CONCURRENT_OBJECTS: usize = 8;
/// Objects up to this size pass through memory.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Bytes of an encoded file read at a time.
const READ_BYTES: usize = 128 << 10;

/// One object, as it arrived.
enum Fetched {
    InMemory { object: Digest, size: u64, bytes: Vec<u8>, encoding: Option<Encoding> },
    OnDisk { object: Digest, size: u64, partials: ObjectPartials, encoding: Option<Encoding> },
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
        let (bytes, encoding) = fetcher.object_bytes(&path, size).await?;
        return Ok(Fetched::InMemory { object, size, bytes, encoding });
    }
    let partials = ObjectPartials::new(partials, &object.to_string());
    let resumed = partials.length() > 0;
    let mut encoding = fetcher.object(&path, size, &partials).await?;
    if resumed && !is_object(partials.clone(), encoding, object, size).await? {
        partials.discard()?;
        encoding = fetcher.object(&path, size, &partials).await?;
    }
    Ok(Fetched::OnDisk { object, size, partials, encoding })
}

/// True when the file that arrived holds the object.
async fn is_object(
    partials: ObjectPartials,
    encoding: Option<Encoding>,
    object: Digest,
    size: u64,
) -> io::Result<bool> {
    let hashing = spawn_blocking(move || {
        if encoding.is_none() {
            return Ok(digest(&mut fs_err::File::open(partials.plain.path())?)?.0 == object);
        }
        let mut plain = open_encoded(&partials)?.take(size + 1);
        // Whatever does not decode is not the object.
        Ok(digest(&mut plain).is_ok_and(|(found, _)| found == object))
    });
    hashing.await.map_err(io::Error::other)?
}

fn open_encoded(partials: &ObjectPartials) -> io::Result<impl Read> {
    unzstd(BufReader::with_capacity(READ_BYTES, fs_err::File::open(partials.encoded.path())?))
}

/// Checks objects as they arrive and commits them in batches; those before a wrong one are kept.
fn take(mut arriving: mpsc::Receiver<Fetched>, store: &ObjectStore) -> Result<(), ObjectError> {
    let mut batch = store.batch();
    let mut since = Instant::now();
    while let Some(fetched) = arriving.blocking_recv() {
        let taken = match fetched {
            Fetched::InMemory { object, size, bytes, encoding: None } => {
                batch.add(&mut bytes.as_slice(), object, size)
            }
            Fetched::InMemory { object, size, bytes, encoding: Some(_) } => {
                batch.add(&mut unzstd(bytes.as_slice())?, object, size)
            }
            Fetched::OnDisk { object, size, partials, encoding } => {
                let taken = match encoding {
                    None => batch.adopt(partials.plain.path(), object, size),
                    Some(_) => batch.add(&mut open_encoded(&partials)?, object, size),
                };
                // Right or wrong, it has served; adopted, it has moved.
                partials.discard()?;
                taken
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
