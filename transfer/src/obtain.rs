//! Getting a release's objects into a store, by the cheapest route a server offers.
//!
//! Decide first, act after: an [`ObtainPlan`] says what is missing, by which route it comes and what that costs;
//! executing it fetches, checks and commits, and can be broken off at any instant: what was committed is not asked for
//! again, and what was half fetched goes on at the byte.
//!
//! By bundle: `obtain/bundle.rs`. One object at a time: `obtain/objects.rs`; one that is read while it arrives:
//! `obtain/streamed.rs`. Whoever wants a whole release, by deltas if
//! that is cheaper, makes a [`ReleaseRequest`]: `obtain/request.rs`.

mod bundle;
mod delta;
mod objects;
mod plan;
mod request;
mod search;
mod streamed;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mirabelle_content::bundle::BundleError;
use mirabelle_content::{ObjectError, ObjectStore};
use mirabelle_manifests::network::routes_path;
use mirabelle_manifests::{ApprovedRelease, Digest, MAX_ROUTES_BYTES, Routes};
use tokio::task::{JoinError, spawn_blocking};

use crate::fetch::{FetchError, Fetcher};
use crate::network::RefreshError;

pub use delta::UsedDelta;
pub use plan::{Candidate, PassedOver, ReleasePlan, WayKind};
pub use request::{HeldManifest, Obtained, ReleaseRequest, Stock};
pub use streamed::Streamed;

/// Compressed bytes after which a segment ends: enough to keep a link busy, little enough to hold on a disk.
const SEGMENT_BYTES: u64 = 8 << 20;
/// How long what was taken waits, at most, to be committed: what a cut may cost on a fast link, and on a slow one every
/// segment and object is committed as it comes. Committing syncs the disk, which takes longer than decoding.
const COMMIT_EVERY: Duration = Duration::from_secs(2);

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
    /// The manifest could not be had, or is refused.
    #[error(transparent)]
    Manifest(#[from] RefreshError),
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
            Self::Fetch(error) => error.is_tampering(),
            Self::Manifest(error) => error.is_tampering(),
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
        let objects = release.objects().into_iter().map(|(digest, object)| (digest, object.size)).collect();
        Self::of(fetcher, release, objects, store).await
    }

    /// The same of some of its objects, which have these sizes.
    pub async fn of(
        fetcher: &Fetcher,
        release: Arc<ApprovedRelease>,
        objects: BTreeMap<Digest, u64>,
        store: &ObjectStore,
    ) -> Result<Self, ObtainError> {
        let missing = {
            let store = store.clone();
            spawn_blocking(move || lacking(objects, &store)).await?
        };
        let routes =
            if missing.is_empty() { Routes::default() } else { routes_of(fetcher, release.digest()).await? };
        let plans = Self::all(&release, &missing, &routes);
        plans.into_iter().min_by_key(|plan| plan.cost).ok_or_else(|| ObtainError::NoRoute {
            upstream: fetcher.upstream().to_string(),
            package: package_of(&release),
        })
    }

    /// Every way to get what is `missing` from a server with these routes. Pure.
    fn all(release: &Arc<ApprovedRelease>, missing: &BTreeMap<Digest, u64>, routes: &Routes) -> Vec<Self> {
        let plan = |route, cost| Self { release: release.clone(), missing: missing.clone(), route, cost };
        if missing.is_empty() {
            return vec![plan(Route::Nothing, 0)];
        }
        let mut plans = Vec::new();
        if routes.bundle {
            let segments = segments_for(release, missing);
            let cost = segments.iter().map(|segment| segment.bytes.end - segment.bytes.start).sum();
            plans.push(plan(Route::Bundle(segments), cost));
        }
        if routes.objects {
            plans.push(plan(Route::Objects, missing.values().sum()));
        }
        plans
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
            Route::Bundle(segments) => bundle::fetch(&self, segments, fetcher, store, partials).await,
            Route::Objects => objects::fetch(&self, fetcher, store, partials).await,
        }
    }

    /// The release's name and version, for messages.
    fn package(&self) -> String {
        package_of(&self.release)
    }
}

fn package_of(release: &ApprovedRelease) -> String {
    format!("{} {}", release.name, release.version)
}

/// Those of these objects that are not in `store`.
fn lacking(mut objects: BTreeMap<Digest, u64>, store: &ObjectStore) -> BTreeMap<Digest, u64> {
    objects.retain(|digest, size| !store.holds(*digest, *size));
    objects
}

/// What the server offers; a server without a routes file offers nothing.
async fn routes_of(fetcher: &Fetcher, release: Digest) -> Result<Routes, FetchError> {
    match fetcher.bytes(&routes_path(release), MAX_ROUTES_BYTES).await {
        // Unsigned: whatever it says, at worst a request is answered with 404.
        Ok(bytes) => Ok(Routes::read(&bytes)),
        Err(FetchError::NotFound { .. }) => Ok(Routes::default()),
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
