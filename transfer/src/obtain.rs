//! Getting a release's objects into a store, by the cheapest route a server offers.
//!
//! Decide first, act after: an [`ObtainPlan`] says what is missing, by which route it comes and what that costs;
//! executing it fetches, checks and commits, and can be broken off at any instant: what was committed is not asked for
//! again, and what was half fetched goes on at the byte.
//!
//! A bundle is fetched in segments, a fixed partition of its frames into runs of some 8 MiB, each into a [`Partial`],
//! then decoded while the next one is under way. The partition depends on the manifest alone, so a plan made after a
//! crash finds the partial download of the plan before.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use mirabelle_content::bundle::{BundleError, read_frame};
use mirabelle_content::{ObjectError, ObjectStore};
use mirabelle_manifests::network::{bundle_path, object_path, routes_path};
use mirabelle_manifests::{ApprovedRelease, Digest, Hasher, Routes};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::fetch::{FetchError, Fetcher};
use crate::partial::Partial;

/// Compressed bytes after which a segment ends: enough to keep a link busy, little enough to hold on a disk.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Objects asked for at once when they come one by one.
const CONCURRENT_OBJECTS: usize = 8;
/// Objects up to this size pass through memory; larger ones go to a file and can resume.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;
/// The most of a routes file.
const MAX_ROUTES_BYTES: u64 = 64 << 10;

/// A run of frames that are fetched together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    frames: Range<u32>,
    bytes: Range<u64>,
}

/// How the missing objects come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing is missing.
    Nothing,
    /// Ranges of the full bundle.
    Bundle(Vec<Segment>),
    /// One by one.
    Objects,
}

/// What of a release is missing, and how it comes.
#[derive(Debug)]
pub struct ObtainPlan {
    release: Arc<ApprovedRelease>,
    missing: BTreeMap<Digest, u64>,
    route: Route,
    cost: u64,
}

/// Why a release could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// A file could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The server offers no way to get the release.
    #[error("{upstream} does not hold `{package}`")]
    NoRoute {
        /// The server.
        upstream: String,
        /// The package and version.
        package: String,
    },
    /// The server sent a bundle with wrong content.
    #[error("the bundle of `{package}` from {upstream} is refused")]
    Bundle {
        /// The server.
        upstream: String,
        /// The package and version.
        package: String,
        /// What is wrong.
        #[source]
        source: BundleError,
    },
    /// The server sent a wrong object.
    #[error("an object of `{package}` from {upstream} is refused")]
    Object {
        /// The server.
        upstream: String,
        /// The package and version.
        package: String,
        /// What is wrong.
        #[source]
        source: ObjectError,
    },
    /// The local store.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// A task on the blocking pool died.
    #[error("a background task died")]
    Task(#[from] JoinError),
}

impl ObtainError {
    /// True when the server sent what was not signed for.
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Bundle { .. } | Self::Object { .. } => true,
            Self::Fetch(error) => matches!(error, FetchError::TooLong { .. }),
            Self::NoRoute { .. } | Self::Disk(_) | Self::Task(_) => false,
        }
    }
}

impl ObtainPlan {
    /// Finds what `store` lacks of `release`, and asks the server how it can be had.
    pub async fn new(
        fetcher: &Fetcher,
        release: Arc<ApprovedRelease>,
        store: &ObjectStore,
    ) -> Result<Self, ObtainError> {
        let missing = {
            let (release, store) = (release.clone(), store.clone());
            spawn_blocking(move || missing_objects(&release, &store)).await?
        };
        let plan = |route, cost| Self { release: release.clone(), missing: missing.clone(), route, cost };
        if missing.is_empty() {
            return Ok(plan(Route::Nothing, 0));
        }
        let routes = routes_of(fetcher, release.digest()).await?;
        let segments = segments_for(&release, &missing);
        let bundle_cost: u64 = segments.iter().map(|segment| segment.bytes.end - segment.bytes.start).sum();
        let objects_cost: u64 = missing.values().sum();
        match routes {
            Routes { bundle: true, objects: true } if objects_cost < bundle_cost => {
                Ok(plan(Route::Objects, objects_cost))
            }
            Routes { bundle: true, .. } => Ok(plan(Route::Bundle(segments), bundle_cost)),
            Routes { objects: true, .. } => Ok(plan(Route::Objects, objects_cost)),
            Routes { .. } => Err(ObtainError::NoRoute {
                upstream: fetcher.upstream().to_string(),
                package: package_of(&release),
            }),
        }
    }

    /// The bytes that executing it will fetch, unless something fails.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// How it will fetch.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// How many objects are missing.
    pub fn missing_objects(&self) -> usize {
        self.missing.len()
    }

    /// Bytes that the missing objects come to in the store.
    pub fn missing_bytes(&self) -> u64 {
        self.missing.values().sum()
    }

    /// Fetches, checks and commits. `partials` is a directory for downloads under way.
    pub async fn execute(
        self,
        fetcher: &Fetcher,
        store: &ObjectStore,
        partials: &Path,
    ) -> Result<(), ObtainError> {
        match self.route.clone() {
            Route::Nothing => Ok(()),
            Route::Bundle(segments) => self.by_bundle(segments, fetcher, store, partials).await,
            Route::Objects => self.by_objects(fetcher, store, partials).await,
        }
    }

    async fn by_bundle(
        &self,
        segments: Vec<Segment>,
        fetcher: &Fetcher,
        store: &ObjectStore,
        partials: &Path,
    ) -> Result<(), ObtainError> {
        let mut decoding: Option<Decoding> = None;
        for segment in segments {
            let partial =
                Partial::new(partials, &format!("{}-{}", self.release.bundle.sha256, segment.bytes.start));
            let resumed = partial.length() > 0;
            self.fetch_segment(fetcher, &segment, &partial).await?;
            if let Some(before) = decoding.take() {
                self.settle(before, fetcher, store).await?;
            }
            let task = self.decode(&segment, &partial, store);
            decoding = Some(Decoding { task, segment, partial, resumed });
        }
        match decoding {
            Some(last) => self.settle(last, fetcher, store).await,
            None => Ok(()),
        }
    }

    async fn fetch_segment(
        &self,
        fetcher: &Fetcher,
        segment: &Segment,
        partial: &Partial,
    ) -> Result<(), ObtainError> {
        let path = bundle_path(self.release.bundle.sha256);
        Ok(fetcher.range(&path, segment.bytes.clone(), self.release.bundle.size, partial).await?)
    }

    fn decode(
        &self,
        segment: &Segment,
        partial: &Partial,
        store: &ObjectStore,
    ) -> JoinHandle<Result<(), BundleError>> {
        let (release, missing, store) = (self.release.clone(), self.missing.clone(), store.clone());
        let (segment, partial) = (segment.clone(), partial.clone());
        spawn_blocking(move || {
            let result = decode_segment(&release, &segment, &missing, &partial, &store);
            // Right or wrong, it has served: a wrong one must not be resumed.
            partial.discard()?;
            result
        })
    }

    /// Waits for a segment's decoding. Bytes left by an earlier process may have suffered in a power cut, so a segment
    /// that was resumed gets a second chance, from its first byte; fresh bytes that are wrong are the server's doing.
    async fn settle(
        &self,
        decoding: Decoding,
        fetcher: &Fetcher,
        store: &ObjectStore,
    ) -> Result<(), ObtainError> {
        let Decoding { task, segment, partial, resumed } = decoding;
        let mut result = task.await?;
        if resumed && !matches!(result, Ok(()) | Err(BundleError::Io(_))) {
            tracing::warn!(
                package = package_of(&self.release),
                "a resumed download was damaged and begins again"
            );
            self.fetch_segment(fetcher, &segment, &partial).await?;
            result = self.decode(&segment, &partial, store).await?;
        }
        result.map_err(|source| match source {
            BundleError::Io(error) => ObtainError::Disk(error),
            source => ObtainError::Bundle {
                upstream: fetcher.upstream().to_string(),
                package: package_of(&self.release),
                source,
            },
        })
    }

    async fn by_objects(
        &self,
        fetcher: &Fetcher,
        store: &ObjectStore,
        partials: &Path,
    ) -> Result<(), ObtainError> {
        let (arrived, arriving) = tokio::sync::mpsc::channel(CONCURRENT_OBJECTS);
        let writer = {
            let store = store.clone();
            spawn_blocking(move || take_objects(arriving, &store))
        };
        let fetching = futures_util::stream::iter(self.missing.clone())
            .map(|(object, size)| fetch_object(fetcher, object, size, partials))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .map_err(ObtainError::Fetch)
            .try_for_each(|object| {
                let arrived = arrived.clone();
                async move {
                    // The writer hangs up only after a failure, which is what gets reported.
                    let _ = arrived.send(object).await;
                    Ok(())
                }
            })
            .await;
        drop(arrived);
        writer.await?.map_err(|source| match source {
            ObjectError::Store(error) => ObtainError::Disk(error),
            source => ObtainError::Object {
                upstream: fetcher.upstream().to_string(),
                package: package_of(&self.release),
                source,
            },
        })?;
        fetching
    }
}

/// A segment being decoded on the blocking pool.
struct Decoding {
    task: JoinHandle<Result<(), BundleError>>,
    segment: Segment,
    partial: Partial,
    resumed: bool,
}

fn package_of(release: &ApprovedRelease) -> String {
    format!("{} {}", release.name, release.version)
}

fn missing_objects(release: &ApprovedRelease, store: &ObjectStore) -> BTreeMap<Digest, u64> {
    let objects = release.objects().into_iter().map(|(digest, object)| (digest, object.size));
    objects.filter(|(digest, size)| !store.holds(*digest, *size)).collect()
}

/// What the server offers; a server without a routes file offers nothing.
async fn routes_of(fetcher: &Fetcher, release: Digest) -> Result<Routes, FetchError> {
    match fetcher.bytes(&routes_path(release), MAX_ROUTES_BYTES).await {
        // Unsigned: whatever it says, at worst a request is answered with 404.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or(Routes { bundle: false, objects: false })),
        Err(FetchError::NotFound { .. }) => Ok(Routes { bundle: false, objects: false }),
        Err(error) => Err(error),
    }
}

/// The fixed partition of the bundle, cut down to the frames that hold something missing.
fn segments_for(release: &ApprovedRelease, missing: &BTreeMap<Digest, u64>) -> Vec<Segment> {
    let mut needed = vec![false; release.bundle.frames.len()];
    for (digest, object) in release.objects() {
        needed[object.frame as usize] |= missing.contains_key(&digest);
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut offset = 0;
    let mut in_group = 0;
    for (number, frame) in (0_u32..).zip(&release.bundle.frames) {
        let starts_group = in_group + frame.size > SEGMENT_BYTES;
        in_group = if starts_group { frame.size } else { in_group + frame.size };
        if needed[number as usize] {
            match segments.last_mut() {
                Some(last) if last.frames.end == number && !starts_group => {
                    last.frames.end += 1;
                    last.bytes.end += frame.size;
                }
                _ => {
                    segments.push(Segment { frames: number..number + 1, bytes: offset..offset + frame.size });
                }
            }
        }
        offset += frame.size;
    }
    segments
}

fn decode_segment(
    release: &ApprovedRelease,
    segment: &Segment,
    missing: &BTreeMap<Digest, u64>,
    partial: &Partial,
    store: &ObjectStore,
) -> Result<(), BundleError> {
    let mut wanted: BTreeMap<u32, BTreeMap<Digest, u64>> = BTreeMap::new();
    for (digest, object) in release.objects() {
        if segment.frames.contains(&object.frame) && missing.contains_key(&digest) {
            wanted.entry(object.frame).or_default().insert(digest, object.size);
        }
    }
    let mut file = fs_err::File::open(partial.path())?;
    let mut batch = store.batch();
    let mut offset = 0;
    for number in segment.frames.clone() {
        file.seek(io::SeekFrom::Start(offset))?;
        offset += release.bundle.frames[number as usize].size;
        read_frame(&mut file, release, number, wanted.remove(&number).unwrap_or_default(), &mut batch)?;
        if batch.is_full() {
            std::mem::replace(&mut batch, store.batch()).commit()?;
        }
    }
    Ok(batch.commit()?)
}

/// One object, as it arrived.
enum Fetched {
    InMemory { object: Digest, size: u64, bytes: Vec<u8> },
    OnDisk { object: Digest, size: u64, partial: Partial },
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
    let hashing = spawn_blocking(move || {
        let mut file = fs_err::File::open(path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0_u8; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish() == object),
                read => hasher.update(&buffer[..read]),
            }
        }
    });
    hashing.await.map_err(io::Error::other)?
}

/// Checks objects as they arrive and commits them in batches.
fn take_objects(
    mut arriving: tokio::sync::mpsc::Receiver<Fetched>,
    store: &ObjectStore,
) -> Result<(), ObjectError> {
    let mut batch = store.batch();
    while let Some(fetched) = arriving.blocking_recv() {
        match fetched {
            Fetched::InMemory { object, size, bytes } => batch.add(&mut bytes.as_slice(), object, size)?,
            Fetched::OnDisk { object, size, partial } => {
                let adopted = batch.adopt(partial.path(), object, size);
                // Right or wrong, it has served; adopted, it has moved.
                partial.discard()?;
                adopted?;
            }
        }
        if batch.is_full() {
            std::mem::replace(&mut batch, store.batch()).commit()?;
        }
    }
    Ok(batch.commit()?)
}
