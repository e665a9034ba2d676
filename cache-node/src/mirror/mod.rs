//! One sync: refresh → obligations → plan → hold, most urgent first → flip.
//!
//! ```text
//! upstreams.rs     who is asked, in which order
//! obligations.rs   what must be here, and what had better be
//! plan.rs          what of it is still to come; on the disk
//! hold.rs          one release: from the first upstream that can give it, where there is room
//! ```
//!
//! Decide first, act after: only when everything that must be here is here does the served catalogue change (promise 3).
//! A failure leaves what was fetched, and what was served. What is only worth having comes after the flip, and its failure is no
//! failed sync.

mod hold;
mod obligations;
mod plan;
mod upstreams;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mirabelle_content::ObjectStore;
use mirabelle_content::gc::Lease;
use mirabelle_manifests::{CatalogueEntry, Digest, Instant};
use mirabelle_terminal::{Failure, Kind, OrFail};
use mirabelle_transfer::{Fetcher, Link, Network, RetryPolicy, Upstream, kept_network, refresh};
use tokio::sync::watch;

use crate::care::Pulse;
use crate::config::Config;
use crate::disk::{Disk, Room, Stage};
use crate::garbage::{self, Collection};
use crate::holding::Holding;
use crate::index::Index;
use crate::media;
use crate::program;
use crate::proof;
use crate::site::{HeldRelease, Site, State};

use self::obligations::Obligation;
pub(crate) use self::obligations::Obligations;
pub(crate) use self::plan::{Plan, Step, Task, read_plan};
pub(crate) use self::upstreams::{Upstreams, read_health};

/// Mirrors for one college.
pub(crate) struct Mirror {
    site: Site,
    config: Config,
    store: ObjectStore,
    upstreams: Arc<Upstreams>,
    disk: Disk,
    link: Arc<Link>,
    holding: Arc<Holding>,
    pulse: Pulse,
    index: Index,
    /// What is served, for whoever answers requests.
    served: watch::Sender<Current>,
    /// Syncs that came to an end, whatever end.
    synced: watch::Sender<u64>,
    /// The snapshot of which everything that the store shows is here.
    media_of: AtomicU64,
    /// Held for the mirror's life: one per directory.
    _lock: fs_err::File,
}

/// What is served.
#[derive(Clone, Debug, Default)]
pub(crate) enum Current {
    /// The node has just started, and is reading it.
    #[default]
    Unread,
    Nothing,
    Catalogue(Arc<Network>),
}

impl Current {
    pub(crate) fn network(&self) -> Option<Arc<Network>> {
        match self {
            Self::Catalogue(network) => Some(network.clone()),
            Self::Unread | Self::Nothing => None,
        }
    }
}

/// What one sync goes by.
struct Round {
    network: Arc<Network>,
    obligations: Obligations,
    plan: Plan,
    /// Keeps sweeps out; let go of only to make room.
    lease: Option<Lease>,
    now: Instant,
}

/// What one sync came to.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Outcome {
    /// The snapshot that is served now.
    pub(crate) snapshot: u64,
    /// Releases that were not complete before.
    pub(crate) fetched: Vec<String>,
    /// Bytes received from upstream.
    pub(crate) received_bytes: u64,
    /// Bytes that were freed, of what is not owed any more.
    pub(crate) freed_bytes: u64,
    /// Whether what is served changed.
    #[serde(skip)]
    flipped: bool,
    /// Everything that is held for the college.
    pub(crate) releases: Vec<HeldRelease>,
}

/// What a sync would fetch.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Forecast {
    pub(crate) package: String,
    pub(crate) version: String,
    /// Unknown while the manifest is not here.
    pub(crate) missing_objects: Option<usize>,
    /// How it would come.
    pub(crate) way: String,
    pub(crate) bytes: u64,
}

impl Mirror {
    pub(crate) fn open(site: Site, config: Config, link: &Arc<Link>) -> Result<Self, Failure> {
        let lock = site.lock()?;
        let fetchers = config.upstreams.iter().map(|upstream| {
            Fetcher::new(upstream.clone(), RetryPolicy::default())
                .map(|fetcher| fetcher.over(link.clone()))
                .or_fail(|| "cannot start mirroring".to_owned())
        });
        let fetchers = fetchers.collect::<Result<Vec<_>, _>>()?;
        let index = Index::open(&site.path(""));
        Ok(Self {
            store: site.objects()?,
            upstreams: Arc::new(Upstreams::open(&site.path("upstreams.json"), fetchers)),
            disk: config.disk(&site.path("")),
            link: link.clone(),
            holding: Arc::default(),
            pulse: Pulse::default(),
            index,
            config,
            served: watch::Sender::default(),
            synced: watch::Sender::default(),
            site,
            media_of: AtomicU64::default(),
            _lock: lock,
        })
    }

    pub(crate) fn close(self) {
        self.index.close();
    }

    /// Asks these servers too, after those that are configured.
    pub(crate) fn ask_too(&self, neighbours: &[Upstream]) {
        let fetchers = neighbours.iter().filter_map(|upstream| {
            let fetcher = Fetcher::new(upstream.clone(), RetryPolicy::default());
            fetcher.ok().map(|fetcher| fetcher.over(self.link.clone()))
        });
        self.upstreams.ask_too(fetchers.collect());
    }

    /// The servers that are asked.
    pub(crate) fn upstreams(&self) -> Arc<Upstreams> {
        self.upstreams.clone()
    }

    /// The store that is filled.
    pub(crate) fn store(&self) -> &ObjectStore {
        &self.store
    }

    /// How it gets on.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The releases that it is fetching.
    pub(crate) fn holding(&self) -> Arc<Holding> {
        self.holding.clone()
    }

    /// What is served, as it changes.
    pub(crate) fn served(&self) -> watch::Receiver<Current> {
        self.served.subscribe()
    }

    /// How many syncs came to an end, good or bad, as they do.
    pub(crate) fn synced(&self) -> watch::Receiver<u64> {
        self.synced.subscribe()
    }

    /// Takes up what was served when the node stopped, for whoever answers requests before the first sync is done.
    pub(crate) async fn take_up(&self, now: Instant) {
        let reading = async {
            let copy = tempfile::tempdir().or_fail(|| "cannot read what is served".to_owned())?;
            let store = self.site.served().export(copy.path())?;
            let root = self.site.trust().root().or_fail(|| "cannot read the root".to_owned())?;
            store.trust(&root).or_fail(|| "cannot read what is served".to_owned())?;
            kept_network(&store, now).await.or_fail(|| "cannot use what is served".to_owned())
        };
        let read = match reading.await {
            Ok(network) => Current::Catalogue(Arc::new(network)),
            Err(failure) => {
                tracing::info!("nothing is served yet\n{}", failure.render().trim_end());
                Current::Nothing
            }
        };
        self.served.send_replace(read);
    }

    /// Mirrors once, and keeps what it came to in `state.json`.
    pub(crate) async fn sync(&self, now: Instant) -> Result<Outcome, Failure> {
        let result = self.sync_once(now).await;
        self.synced.send_modify(|ended| *ended += 1);
        result
    }

    async fn sync_once(&self, now: Instant) -> Result<Outcome, Failure> {
        let _working = self.pulse.work();
        let (before, until) =
            (self.upstreams.received(), tokio::time::Instant::now() + self.config.sync_every);
        let result = self.complete(now).await;
        let written = self.write_state(&result, before, now);
        // What went wrong first is what people need to hear of: on a full disk, the state cannot be written either.
        let (mut round, mut outcome) = result?;
        written?;
        self.served.send_replace(Current::Catalogue(round.network.clone()));
        proof::renew(&self.site, &self.config.college, &round.network, &outcome.releases, now);
        // No longer than until the next look upstream: something more urgent may have come. What was begun goes on then.
        // Nor beside somebody who waits for the very release that is being fetched.
        tokio::select! {
            () = self.hold_what_is_wanted(&mut round, &mut outcome.fetched) => {}
            () = tokio::time::sleep_until(until) => {
                tracing::debug!("what is only worth having waits for the next look upstream");
            }
            () = self.holding.asked() => {
                tracing::debug!("what is only worth having gives way to somebody who waits");
            }
        }
        let network = round.network;
        drop(round.lease);
        let received = self.upstreams.received() - before;
        self.count_received(received - outcome.received_bytes)?;
        outcome.received_bytes = received;
        outcome.freed_bytes = self.collect(&network, outcome.flipped, now);
        Ok(outcome)
    }

    fn lease(&self) -> Result<Lease, Failure> {
        tokio::task::block_in_place(|| Lease::take(&self.store))
            .or_fail(|| "cannot begin to mirror".to_owned())
    }

    /// Brings here what must be here, then flips.
    async fn complete(&self, now: Instant) -> Result<(Round, Outcome), Failure> {
        // From the first look at what is here until all of it is among what is owed, nobody sweeps.
        let lease = Some(self.lease()?);
        let before = self.upstreams.received();
        self.index.heed_doubt();
        let (network, fetcher) = self.refresh(now).await?;
        self.has_refreshed(now)?;
        let obligations = Obligations::new(&network, &self.config.college, now);
        let plan = Plan::new(&self.site.path("plan.json"), &obligations, |obligation| {
            self.index.is_complete(obligation.entry.digest)
        });
        let musts: Vec<Obligation> = obligations.musts().cloned().collect();
        let mut round = Round { network: Arc::new(network), obligations, plan, lease, now };

        // Go on past a failure, so that one release does not hold up the others.
        let mut releases = Vec::new();
        let mut fetched = Vec::new();
        let mut first_failure: Option<Failure> = None;
        for obligation in &musts {
            match self.hold(&mut round, obligation).await {
                Ok((held, new)) => {
                    if new {
                        tracing::info!(package = held.package, version = held.version, "release is complete");
                        fetched.push(format!("{} {}", held.package, held.version));
                    }
                    releases.push(held);
                }
                Err(failure) => {
                    tracing::warn!(package = %obligation.entry.listing.name, "release could not be mirrored");
                    // Of several, tampering is what people must hear of.
                    if first_failure.as_ref().is_none_or(|known| known.kind() != Kind::Trust) {
                        first_failure = Some(failure);
                    }
                }
            }
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }

        self.hold_media(&round).await;
        // All of it is here: flip.
        let (served, trust, network) = (self.site.served(), self.site.trust(), &round.network);
        let snapshot = network.trusted.snapshot().map_or(0, |snapshot| snapshot.version);
        // Compared byte for byte: after a rotation of keys, versions begin anew; and what the disk changed is put right.
        let as_verified = tokio::task::block_in_place(|| served.is_as_verified(network, &trust))?;
        let flipped = !as_verified || !fetched.is_empty();
        if flipped {
            served.keep_roots(&fetcher, &trust, network).await;
            // It compresses and syncs: requests are answered meanwhile. Deltas of what will be owed stay as well.
            let obliged: BTreeSet<Digest> =
                round.obligations.iter().map(|obligation| obligation.entry.digest).collect();
            tokio::task::block_in_place(|| {
                served.flip(network, &trust)?;
                served.drop_deltas(&obliged)
            })?;
            tracing::info!(snapshot, releases = releases.len(), "a complete catalogue is served");
        }
        let received_bytes = self.upstreams.received() - before;
        let outcome = Outcome { snapshot, fetched, received_bytes, freed_bytes: 0, flipped, releases };
        Ok((round, outcome))
    }

    /// What the store shows of what the college may have; looked at once for each catalogue that is whole.
    async fn hold_media(&self, round: &Round) {
        let snapshot = round.network.trusted.snapshot().map_or(0, |snapshot| snapshot.version);
        if self.media_of.load(Ordering::Relaxed) == snapshot {
            return;
        }
        let entries: Vec<&CatalogueEntry> =
            round.obligations.iter().map(|obligation| &obligation.entry).collect();
        if media::hold(&self.site, &self.upstreams, &entries).await {
            self.media_of.store(snapshot, Ordering::Relaxed);
        }
    }

    /// Verifies what the first upstream says that can be reached and is trusted: one that is down, behind, or lies must not keep
    /// the college from the next one's truth.
    async fn refresh(&self, now: Instant) -> Result<(Network, Fetcher), Failure> {
        let mut first_failure: Option<Failure> = None;
        for fetcher in self.upstreams.in_order(now) {
            let failure = match refresh(&fetcher, &self.site.trust(), now)
                .await
                .or_fail(|| format!("cannot refresh the catalogue for college {}", self.config.college))
            {
                Ok(network) => {
                    self.upstreams.succeeded(&fetcher, now);
                    return Ok((network, fetcher));
                }
                Err(failure) if matches!(failure.kind(), Kind::Network | Kind::Trust) => failure,
                Err(failure) => return Err(failure),
            };
            self.upstreams.failed(&fetcher, &failure, now);
            if first_failure.as_ref().is_none_or(|known| known.kind() != Kind::Trust) {
                first_failure = Some(failure);
            }
        }
        Err(first_failure.unwrap_or_else(|| Failure::usage("no upstream is configured")))
    }

    /// How much room there is. Only where there is a quota does it take a while: leaving a thread of the runtime for nothing
    /// costs memory, since each keeps what it once allocated.
    fn room(&self) -> std::io::Result<Room> {
        if self.disk.has_quota() {
            tokio::task::block_in_place(|| self.disk.room())
        } else {
            self.disk.room()
        }
    }

    /// Fetches what is only worth having, while there is room; adds what came to `fetched`.
    async fn hold_what_is_wanted(&self, round: &mut Round, fetched: &mut Vec<String>) {
        let wants: Vec<Obligation> = round.obligations.wants().cloned().collect();
        for obligation in wants {
            // What the day has left is for what may yet have to come.
            let link = self.link.report(Instant::now());
            if link.budget.is_some_and(|budget| link.spent > budget / 2) {
                break;
            }
            let release = obligation.entry.digest;
            if self.index.is_complete(release) || round.plan.is_resting(release, round.now) {
                continue;
            }
            if !self.room().is_ok_and(|room| room.stage == Stage::Roomy) {
                break;
            }
            match self.hold(round, &obligation).await {
                Ok((held, true)) => fetched.push(format!("{} {}", held.package, held.version)),
                Ok((_, false)) => {}
                Err(failure) => {
                    tracing::info!("what is only worth having did not come\n{}", failure.render().trim_end());
                }
            }
        }
    }

    fn write_state(
        &self,
        result: &Result<(Round, Outcome), Failure>,
        before: u64,
        now: Instant,
    ) -> Result<(), Failure> {
        let mut state = self.site.state();
        match result {
            Ok((round, outcome)) => {
                let mut releases = outcome.releases.clone();
                for held in releases.iter_mut().filter(|held| held.came.is_none()) {
                    let known = state.releases.iter().find(|known| known.release == held.release);
                    held.came = known.and_then(|known| known.came.clone());
                }
                if state.snapshot != outcome.snapshot || state.complete_since.is_none() {
                    state.complete_since = Some(now);
                }
                state.snapshot = outcome.snapshot;
                state.fresh_until = round.network.trusted.timestamp().map(|timestamp| timestamp.expires);
                state.releases = releases;
                state.last_failure = None;
                state.received_bytes += outcome.received_bytes;
            }
            Err(failure) => {
                state.last_failure = Some(failure.render().trim_end().to_owned());
                state.received_bytes += self.upstreams.received() - before;
            }
        }
        self.site.write_state(&state)
    }

    /// An upstream was understood, whatever becomes of the rest.
    fn has_refreshed(&self, now: Instant) -> Result<(), Failure> {
        self.site.write_state(&State { refreshed: Some(now), ..self.site.state() })
    }

    fn count_received(&self, bytes: u64) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        let mut state = self.site.state();
        state.received_bytes += bytes;
        self.site.write_state(&state)
    }

    /// Removes what is no longer owed, if that can have changed; a failure is no failed sync.
    fn collect(&self, network: &Network, flipped: bool, now: Instant) -> u64 {
        // By the later of this machine's clock and what was signed: what is retired at a clock of 1970 is not a lifetime old
        // once the clock is set.
        let (keep, now) = (self.config.keep_unassigned, now.max(network.trusted.now()));
        if !flipped && !garbage::is_due(&self.site, keep, now) {
            return 0;
        }
        let before = now.checked_sub(keep).unwrap_or(Instant::MIN);
        let swept =
            tokio::task::block_in_place(|| media::sweep(&self.site, network.catalogue.iter(), before));
        if let Err(error) = swept {
            tracing::warn!(%error, "pictures that nothing shows any more were not removed");
        }
        let collection = Collection { site: &self.site, network, college: &self.config.college, keep, now };
        match tokio::task::block_in_place(|| collection.run(false)) {
            Ok(collected) => collected.map_or(0, |collected| collected.bytes),
            Err(failure) => {
                tracing::warn!("what is no longer needed was not collected\n{}", failure.render().trim_end());
                0
            }
        }
    }

    /// After a sync that succeeded: the program that runs has come up; true when another is deployed to this node, and in place.
    pub(crate) fn becomes_another(&self) -> bool {
        let Some(network) = self.served.borrow().network() else { return false };
        let becoming = tokio::task::block_in_place(|| {
            program::came_up(&self.site);
            program::update(&self.site, &self.store, &network, &self.config.college, Instant::now())
        });
        becoming.unwrap_or_else(|failure| {
            tracing::warn!("the node's own update failed\n{}", failure.render().trim_end());
            false
        })
    }

    /// What a sync would fetch. Refreshes the trusted metadata, which is never served by itself.
    pub(crate) async fn forecast(&self, now: Instant) -> Result<Vec<Forecast>, Failure> {
        let (network, fetcher) = self.refresh(now).await?;
        let mut forecast = Vec::new();
        for obligation in Obligations::new(&network, &self.config.college, now).iter() {
            let entry = &obligation.entry;
            let manifest = self.site.served().manifest(entry)?;
            let mut request = self.request(&fetcher, &network, entry, manifest).await?;
            let plan = request
                .plan()
                .await
                .or_fail(|| format!("cannot plan `{} {}`", entry.listing.name, entry.listing.version))?;
            forecast.push(Forecast {
                package: entry.listing.name.to_string(),
                version: entry.listing.version.to_string(),
                missing_objects: plan.missing_objects,
                way: plan.candidates.first().map(|candidate| candidate.way.clone()).unwrap_or_default(),
                bytes: plan.cost(),
            });
        }
        Ok(forecast)
    }
}
