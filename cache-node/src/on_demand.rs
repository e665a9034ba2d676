//! What a workstation asks for and is not here: fetched ahead of everything else, if the served catalogue approves it.
//!
//! ```text
//! GET /routes/<release>.json     approved, not here     ─▶ "objects, one by one"
//! GET /targets/…release.json     approved, not here     ─▶ fetched, both bodies checked, kept
//! GET /objects/ab/cdef…          of a manifest here     ─▶ fetched with its neighbours in the bundle; a large one is read meanwhile
//! ```
//!
//! It happens where a release was evicted for want of room, where an object was found damaged, where a workstation came from
//! elsewhere. One upstream transfer feeds everybody who waits (promise 5), and goes on when they go away. What came is kept as long
//! as a release that is not owed any more; on a disk that is full it only passes through.
//!
//! Locks: a release that is being mirrored is waited for ([`Holding`]), so that nothing crosses the link twice.
//!
//! Threats and the defence for each:
//! - *Asking for much that nobody approved*: only objects of approved releases are looked for upstream, in an index in memory.
//! - *Asking for everything that is approved*: one transfer for each object or frame, of which few are under way at once; the
//!   link's budget holds for them too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mirabelle_content::ObjectStore;
use mirabelle_content::gc::Lease;
use mirabelle_manifests::network::{routes_path, target_path};
use mirabelle_manifests::{ApprovedRelease, Digest, Instant, SignedRelease, check_approval};
use mirabelle_terminal::Failure;
use mirabelle_transfer::flight::{Cause, Flight, FlightError, Flights, Source};
use mirabelle_transfer::{
    Fetcher, Network, ObtainError, ObtainPlan, Priority, RetryPolicy, Streamed, fetch_release,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::{block_in_place, spawn_blocking};

use crate::disk::{Disk, Stage};
use crate::holding::Holding;
use crate::mirror::{Current, Mirror, Upstreams};
use crate::site::Site;

/// The largest object of a frame is read while it arrives, from this size on; the others are there a moment after it.
const STREAMED_BYTES: u64 = 4 << 20;
/// Where there is another upstream to ask: workstations wait 30 s for a byte.
const IMPATIENT: RetryPolicy = RetryPolicy {
    attempts: 2,
    first_wait: Duration::from_millis(200),
    longest_wait: Duration::from_secs(1),
    stall: Duration::from_secs(5),
};
/// Transfers at once: the link is one.
const TRANSFERS: usize = 8;
/// Manifests kept read.
const RECENT: usize = 4;

/// Fetches what is asked for.
pub(crate) struct OnDemand {
    site: Site,
    store: ObjectStore,
    upstreams: Arc<Upstreams>,
    served: watch::Receiver<Current>,
    disk: Disk,
    holding: Arc<Holding>,
    frames: Flights<(Digest, u32), Growing>,
    manifests: Flights<Digest, ()>,
    transfers: Semaphore,
    index: tokio::sync::Mutex<Option<Index>>,
    recent: Mutex<Vec<Arc<ApprovedRelease>>>,
}

/// The object of a frame that can be read while it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growing {
    object: Digest,
    pub(crate) size: u64,
}

/// Where an object that is not here can be had.
pub(crate) enum Object {
    /// It is here now.
    Here,
    /// It is arriving.
    Coming(Flight<Growing>, u64),
    /// Nobody approved it.
    Unknown,
}

/// Which release an object is of: for the approved releases whose manifests are here.
struct Index {
    network: Arc<Network>,
    releases: Vec<Digest>,
    /// The first bytes of an object, and the number of a release that has it; sorted.
    objects: Vec<(u64, u32)>,
}

impl OnDemand {
    /// Its transfers run where this is called: beside the mirror, not on the threads that answer.
    pub(crate) fn new(mirror: &Mirror, site: &Site, disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            site: site.clone(),
            store: mirror.store().clone(),
            upstreams: mirror.upstreams(),
            served: mirror.served(),
            disk,
            holding: mirror.holding(),
            frames: Flights::here(),
            manifests: Flights::here(),
            transfers: Semaphore::new(TRANSFERS),
            index: tokio::sync::Mutex::default(),
            recent: Mutex::default(),
        })
    }

    /// Transfers under way because somebody waits.
    pub(crate) fn under_way(&self) -> usize {
        self.frames.under_way() + self.manifests.under_way()
    }

    /// What is served; a node that has just started is waited for until it has read it.
    async fn network(&self) -> Option<Arc<Network>> {
        let mut served = self.served.clone();
        let read = served.wait_for(|current| !matches!(current, Current::Unread)).await;
        read.ok().and_then(|current| current.network())
    }

    /// True when `path` names the routes of a release that is approved: whatever is asked for of it will be fetched.
    pub(crate) async fn offers(&self, path: &str) -> bool {
        let Some(network) = self.network().await else { return false };
        network.catalogue.iter().any(|entry| routes_path(entry.digest) == path)
    }

    /// Fetches the manifest at `path`, if it is that of an approved release; says whether it is here now.
    pub(crate) async fn manifest(self: &Arc<Self>, path: &str) -> Result<bool, FlightError> {
        let Some(network) = self.network().await else { return Ok(false) };
        let found = network
            .catalogue
            .iter()
            .find(|entry| target_path(&entry.path, entry.digest).is_ok_and(|known| known == path));
        let Some(entry) = found.cloned() else { return Ok(false) };
        let (this, network) = (self.clone(), network.clone());
        let mut flight = self.manifests.join(entry.digest, move |_| async move {
            let _mirrored = this.holding.wait(entry.digest).await;
            let _permit = this.transfers.acquire().await?;
            let what = || "cannot look at the manifests";
            if this.site.served().manifest(&entry).map_err(|failure| said(&failure))?.is_some() {
                return Ok(());
            }
            if block_in_place(|| this.disk.room_lately())?.stage == Stage::Full {
                return Err("the disk is full".into());
            }
            let mut failure: Cause = what().into();
            for fetcher in this.in_order() {
                match fetch_release(&fetcher, &network, &entry, None).await {
                    Ok((_, bytes)) => {
                        let keeping = || this.site.served().add_release(&entry, &bytes, Vec::new());
                        block_in_place(keeping).map_err(|failure| said(&failure))?;
                        *this.index.lock().await = None;
                        return Ok(());
                    }
                    Err(error) => failure = error.into(),
                }
            }
            Err(failure)
        });
        flight.landed().await.map(|()| true)
    }

    /// Sees to it that an object comes, if it is of an approved release.
    pub(crate) async fn object(self: &Arc<Self>, object: Digest) -> Result<Object, FlightError> {
        let Some((release, frame)) = self.find(object).await else { return Ok(Object::Unknown) };
        tracing::info!(%object, package = %release.name, "an object that is not here was asked for");
        let (this, key) = (self.clone(), (release.digest(), frame));
        let mut flight =
            self.frames.join(key, move |source| async move { this.bring(release, frame, source).await });
        if let Some(growing) = flight.head().await?
            && growing.object == object
        {
            return Ok(Object::Coming(flight, growing.size));
        }
        flight.landed().await.map(|()| Object::Here)
    }

    /// What is missing of one frame.
    async fn bring(
        &self,
        release: Arc<ApprovedRelease>,
        frame: u32,
        source: Source<Growing>,
    ) -> Result<(), Cause> {
        let _mirrored = self.holding.wait(release.digest()).await;
        let _permit = self.transfers.acquire().await?;
        let _lease = block_in_place(|| Lease::take(&self.store))?;
        let of_frame = release.objects().into_iter().filter(|(_, object)| object.frame == frame);
        let mut missing: BTreeMap<Digest, u64> =
            of_frame.map(|(digest, object)| (digest, object.size)).collect();
        block_in_place(|| missing.retain(|object, size| !self.store.holds(*object, *size)));
        let room = block_in_place(|| self.disk.room_lately())?;
        let no_room = room.stage == Stage::Full || room.left < missing.values().sum();
        let (upstreams, partials) = (self.in_order(), self.site.partials());
        let largest = missing.iter().max_by_key(|(_, size)| **size).map(|(object, size)| (*object, *size));
        if let Some((object, size)) = largest.filter(|(_, size)| *size >= STREAMED_BYTES) {
            missing.remove(&object);
            let others = if no_room { BTreeMap::new() } else { missing };
            let streamed = Streamed { release, object, size, others };
            let growing = Growing { object, size };
            return Ok(streamed.fetch(&upstreams, &self.store, &partials, &source, growing, no_room).await?);
        }
        if no_room {
            // Small ones come many at a time, and do not pass through: whoever wants them asks another day.
            return Err("the disk is full".into());
        }
        let mut failure: Option<ObtainError> = None;
        for fetcher in upstreams {
            let tried = async {
                let (release, missing) = (release.clone(), missing.clone());
                let plan = ObtainPlan::of(&fetcher, release, missing, &self.store).await?;
                plan.execute(&fetcher, &self.store, &partials).await
            };
            match tried.await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, upstream = %fetcher.upstream(), "what is waited for did not come");
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.map_or_else(|| "no upstream is configured".into(), Cause::from))
    }

    fn in_order(&self) -> Vec<Fetcher> {
        let order = self.upstreams.in_order(Instant::now());
        let urgent = |fetcher: &Fetcher| fetcher.at(Priority::Waiting);
        match order.as_slice() {
            [only] => vec![urgent(only)],
            // Somebody waits: the next one is asked before the first has been tried for long.
            several => several.iter().map(|fetcher| urgent(fetcher).with_policy(IMPATIENT)).collect(),
        }
    }

    /// The approved release that an object is of, and its frame.
    async fn find(self: &Arc<Self>, object: Digest) -> Option<(Arc<ApprovedRelease>, u32)> {
        let network = self.network().await?;
        let candidates = {
            let mut index = self.index.lock().await;
            if index.as_ref().is_none_or(|index| !Arc::ptr_eq(&index.network, &network)) {
                let (site, network) = (self.site.clone(), network.clone());
                *index = spawn_blocking(move || Index::build(&site, network)).await.ok();
                self.recent().clear();
            }
            index.as_ref()?.releases_of(object)
        };
        for digest in candidates {
            let known = self.recent().iter().find(|release| release.digest() == digest).cloned();
            let release = if let Some(release) = known {
                release
            } else {
                let (this, network) = (self.clone(), network.clone());
                spawn_blocking(move || this.approved(&network, digest)).await.ok()??
            };
            if let Some(found) = release.objects().get(&object) {
                let frame = found.frame;
                return Some((release, frame));
            }
        }
        None
    }

    fn approved(&self, network: &Network, digest: Digest) -> Option<Arc<ApprovedRelease>> {
        let entry = network.catalogue.iter().find(|entry| entry.digest == digest)?;
        let bytes = self.site.served().manifest(entry).ok()??;
        let release = Arc::new(check_approval(&bytes, entry, &network.packagers).ok()?);
        let mut recent = self.recent();
        recent.truncate(RECENT - 1);
        recent.insert(0, release.clone());
        Some(release)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ApprovedRelease>>> {
        // Each change is whole before anything can panic.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn build(site: &Site, network: Arc<Network>) -> Self {
        let (mut releases, mut objects) = (Vec::new(), Vec::new());
        for entry in network.catalogue.iter() {
            let Ok(Some(bytes)) = site.served().manifest(entry) else { continue };
            let Ok(SignedRelease { release, .. }) = SignedRelease::parse(&bytes) else { continue };
            let number = u32::try_from(releases.len()).unwrap_or(u32::MAX);
            releases.push(entry.digest);
            objects.extend(release.objects().into_keys().map(|object| (first_bytes(object), number)));
        }
        objects.sort_unstable();
        Self { network, releases, objects }
    }

    /// The releases that may have it.
    fn releases_of(&self, object: Digest) -> Vec<Digest> {
        let prefix = first_bytes(object);
        let from = self.objects.partition_point(|(known, _)| *known < prefix);
        let found = self.objects[from..].iter().take_while(|(known, _)| *known == prefix);
        found.filter_map(|(_, number)| self.releases.get(*number as usize).copied()).collect()
    }
}

fn first_bytes(object: Digest) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&object.as_bytes()[..8]);
    u64::from_be_bytes(bytes)
}

fn said(failure: &Failure) -> Cause {
    failure.render().trim_end().into()
}
