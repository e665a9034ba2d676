//! One sync: refresh → obligations → obtain → flip.
//!
//! Decide first, act after: [`Obligations`] says what the college must have; only when all of it is here does the
//! served catalogue change (promise 3). A failure leaves what was fetched, and what was served.

use std::collections::BTreeSet;
use std::sync::Arc;

use mirabelle_content::ObjectStore;
use mirabelle_content::gc::Lease;
use mirabelle_manifests::{ApprovedRelease, CatalogueEntry, Digest, Instant, SiteId, check_approval};
use mirabelle_terminal::{Failure, Kind, OrFail, watch};
use mirabelle_transfer::{Fetcher, Link, Network, ReleaseRequest, RetryPolicy, Stock, WayKind, refresh};

use crate::config::Config;
use crate::garbage::{self, Collection};
use crate::index::Index;
use crate::site::{Came, HeldRelease, Site, State};

/// Mirrors for one college.
pub(crate) struct Mirror {
    site: Site,
    config: Config,
    store: ObjectStore,
    fetchers: Vec<Fetcher>,
    index: Index,
    /// Held for the mirror's life: one per directory.
    _lock: fs_err::File,
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

/// The approved releases that the deployment obliges this college's node to hold.
pub(crate) struct Obligations(pub(crate) Vec<CatalogueEntry>);

impl Obligations {
    pub(crate) fn new(network: &Network, college: &SiteId, now: Instant) -> Self {
        let Network { catalogue, deployment, .. } = network;
        for (assignment, sequence) in deployment.not_approved(catalogue, now) {
            if assignment.to.may_include_some_of(college, &deployment.groups) {
                // Promise 1: an operator cannot deploy what the rectorat has not approved.
                tracing::warn!(package = %assignment.package, sequence,
                    "a deployed release is not approved and was passed over");
            }
        }
        Self(deployment.owed(catalogue, college, now).into_iter().cloned().collect())
    }
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
        Ok(Self { store: site.objects()?, fetchers, index, config, site, _lock: lock })
    }

    pub(crate) fn close(self) {
        self.index.close();
    }

    /// Mirrors once, from the first upstream that can be reached, and keeps what it came to in `state.json`.
    pub(crate) async fn sync(&self, now: Instant) -> Result<Outcome, Failure> {
        let before = self.received();
        // From the first look at what is here until all of it is among what is owed, nobody sweeps.
        let lease = tokio::task::block_in_place(|| Lease::take(&self.store))
            .or_fail(|| "cannot begin to mirror".to_owned())?;
        let result = self.sync_from_any(now).await;
        drop(lease);
        let mut state = self.site.state();
        state.received_bytes += self.received() - before;
        let mut result = result;
        match &mut result {
            Ok((network, outcome)) => {
                for held in outcome.releases.iter_mut().filter(|held| held.came.is_none()) {
                    let known = state.releases.iter().find(|known| known.release == held.release);
                    held.came = known.and_then(|known| known.came.clone());
                }
                if state.snapshot != outcome.snapshot || state.complete_since.is_none() {
                    state.complete_since = Some(now);
                }
                state.refreshed = Some(now);
                state.snapshot = outcome.snapshot;
                state.fresh_until = network.trusted.timestamp().map(|timestamp| timestamp.expires);
                state.releases.clone_from(&outcome.releases);
                state.last_failure = None;
            }
            Err(failure) => state.last_failure = Some(failure.render().trim_end().to_owned()),
        }
        let written = self.site.write_state(&state);
        // What went wrong first is what people need to hear of: on a full disk, the state cannot be written either.
        let (network, mut outcome) = result?;
        written?;
        outcome.received_bytes = self.received() - before;
        outcome.freed_bytes = self.collect(&network, outcome.flipped, now);
        Ok(outcome)
    }

    /// Removes what is no longer owed, if that can have changed; a failure is no failed sync.
    fn collect(&self, network: &Network, flipped: bool, now: Instant) -> u64 {
        let keep = self.config.keep_unassigned;
        if !flipped && !garbage::is_due(&self.site, keep, now) {
            return 0;
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

    fn received(&self) -> u64 {
        self.fetchers.iter().map(|fetcher| fetcher.meter().received()).sum()
    }

    async fn sync_from_any(&self, now: Instant) -> Result<(Network, Outcome), Failure> {
        let mut first_failure = None;
        for fetcher in &self.fetchers {
            match self.sync_from(fetcher, now).await {
                // One upstream that is down, behind, or lies must not keep the college from the next one's truth.
                Err(failure) if matches!(failure.kind(), Kind::Network | Kind::Trust) => {
                    let upstream = fetcher.upstream();
                    tracing::warn!(%upstream, "upstream failed\n{}", failure.render().trim_end());
                    // Of several, tampering is what people must hear of.
                    let known: Option<&Failure> = first_failure.as_ref();
                    if known.is_none_or(|known| known.kind() != Kind::Trust) {
                        first_failure = Some(failure);
                    }
                }
                done => return done,
            }
        }
        Err(first_failure.unwrap_or_else(|| Failure::usage("no upstream is configured")))
    }

    async fn sync_from(&self, fetcher: &Fetcher, now: Instant) -> Result<(Network, Outcome), Failure> {
        let college = &self.config.college;
        self.index.heed_doubt();
        let trust = self.site.trust();
        let network = refresh(fetcher, &trust, now)
            .await
            .or_fail(|| format!("cannot refresh the catalogue for college {college}"))?;
        let served = self.site.served();

        // Fetch everything that is owed; go on past a failure, so that one release does not hold up the others.
        let mut releases = Vec::new();
        let mut fetched = Vec::new();
        let mut first_failure = None;
        for entry in Obligations::new(&network, college, now).0 {
            match self.hold(fetcher, &network, &entry).await {
                Ok((held, new)) => {
                    if new {
                        tracing::info!(package = held.package, version = held.version, "release is complete");
                        fetched.push(format!("{} {}", held.package, held.version));
                    }
                    releases.push(held);
                }
                Err(failure) => {
                    tracing::warn!(package = %entry.listing.name, "release could not be mirrored");
                    first_failure.get_or_insert(failure);
                }
            }
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }

        // All of it is here: flip.
        let snapshot = network.trusted.snapshot().map_or(0, |snapshot| snapshot.version);
        // Compared whole: after a rotation of keys, versions begin anew.
        let flipped = served.timestamp().as_ref() != network.trusted.timestamp() || !fetched.is_empty();
        if flipped {
            served.keep_roots(fetcher, &trust, &network).await;
            // It compresses and syncs: requests are answered meanwhile.
            let obliged: BTreeSet<Digest> = releases.iter().map(|held| held.release).collect();
            tokio::task::block_in_place(|| {
                served.flip(&network, &trust)?;
                served.drop_deltas(&obliged)
            })?;
            tracing::info!(snapshot, releases = releases.len(), "a complete catalogue is served");
        }
        Ok((network, Outcome { snapshot, fetched, received_bytes: 0, freed_bytes: 0, flipped, releases }))
    }

    /// Makes sure that a release is here whole; says whether it had to be fetched.
    async fn hold(
        &self,
        fetcher: &Fetcher,
        network: &Network,
        entry: &CatalogueEntry,
    ) -> Result<(HeldRelease, bool), Failure> {
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        let what = || format!("cannot mirror `{label}`");
        let manifest = self.site.served().manifest(entry)?;
        if let Some(bytes) = manifest.as_ref().filter(|_| self.index.is_complete(entry.digest)) {
            let release = check_approval(bytes, entry, &network.packagers).or_fail(what)?;
            return Ok((HeldRelease::of(&release, None), false));
        }
        let mut request = self.request(fetcher, network, entry, manifest).await?;
        let cost = request.plan().await.or_fail(what)?.cost();
        let (meter, partials) = (fetcher.meter().clone(), self.site.partials());
        let fetching = request.obtain(&self.store, &partials);
        let obtained =
            watch(&format!("mirroring {label}"), cost, || meter.received(), fetching).await.or_fail(what)?;
        let new = obtained.kind != WayKind::Nothing;
        let came = new.then(|| Came {
            by: obtained.kind,
            way: obtained.way.clone(),
            received_bytes: obtained.received,
        });
        if let Some(Came { by, way, received_bytes }) = &came {
            tracing::info!(package = %entry.listing.name, version = %entry.listing.version, %by, way,
                received_bytes, "release was received");
        }
        let held = HeldRelease::of(&obtained.release, came);
        self.remember(&held)?;
        self.site.served().add_release(entry, &obtained.manifest, obtained.deltas)?;
        self.index.mark_complete(entry.digest);
        Ok((held, new))
    }

    /// Keeps how a release came at once: a sync that is killed later does not forget it.
    fn remember(&self, held: &HeldRelease) -> Result<(), Failure> {
        if held.came.is_none() {
            return Ok(());
        }
        let mut state = self.site.state();
        state.releases.retain(|known| known.release != held.release);
        state.releases.push(held.clone());
        self.site.write_state(&state)
    }

    async fn request<'a>(
        &self,
        fetcher: &'a Fetcher,
        network: &'a Network,
        entry: &'a CatalogueEntry,
        manifest: Option<Vec<u8>>,
    ) -> Result<ReleaseRequest<'a>, Failure> {
        let held = self.site.served().held_manifests(&network.catalogue, entry)?;
        ReleaseRequest::new(fetcher, network, entry, Stock::Store(self.store.clone()), held, manifest)
            .await
            .or_fail(|| format!("cannot mirror `{} {}`", entry.listing.name, entry.listing.version))
    }

    /// What a sync would fetch. Refreshes the trusted metadata, which is never served by itself.
    pub(crate) async fn forecast(&self, now: Instant) -> Result<Vec<Forecast>, Failure> {
        let fetcher = self.fetchers.first().ok_or_else(|| Failure::usage("no upstream is configured"))?;
        let network = refresh(fetcher, &self.site.trust(), now)
            .await
            .or_fail(|| format!("cannot refresh the catalogue for college {}", self.config.college))?;
        let mut forecast = Vec::new();
        for entry in Obligations::new(&network, &self.config.college, now).0 {
            let manifest = self.site.served().manifest(&entry)?;
            let mut request = self.request(fetcher, &network, &entry, manifest).await?;
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

impl HeldRelease {
    fn of(release: &ApprovedRelease, came: Option<Came>) -> Self {
        Self {
            package: release.name.to_string(),
            version: release.version.to_string(),
            platform: release.platform.to_string(),
            release: release.digest(),
            objects: release.objects().len(),
            bytes: release.objects().values().map(|object| object.size).sum(),
            came,
        }
    }
}

impl State {
    /// True when the served metadata is no longer fresh at `now`.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.fresh_until.is_none_or(|until| until <= now)
    }
}
