//! Making sure that one release is here whole: from the first upstream that can give it, where there is room.

use std::io;
use std::sync::Arc;

use mirabelle_manifests::{ApprovedRelease, CatalogueEntry, Instant, check_approval};
use mirabelle_terminal::{Failure, Kind, OrFail, bytes, watch};
use mirabelle_transfer::{Fetcher, Network, ObtainError, ReleasePlan, ReleaseRequest, Stock, WayKind};

use tokio::task::spawn_blocking;

use super::obligations::Obligation;
use super::{Mirror, Round, Step};
use crate::garbage;
use crate::site::{Came, HeldRelease, State};

/// What comes compressed is expected to take up to so many times its bytes in the store, and no more than the catalogue says
/// that it takes. Where it is more, it goes into the reserve.
const UNPACKED: u64 = 4;

/// Why a release did not come from an upstream.
enum Setback {
    /// It does not have it, which is no fault.
    NotThere(Failure),
    /// It failed: another may not.
    Upstream(Failure),
    /// It would fail with any.
    Here(Failure),
}

impl Mirror {
    /// Makes sure that a release is here whole; says whether it had to be fetched.
    pub(super) async fn hold(
        &self,
        round: &mut Round,
        obligation: &Obligation,
    ) -> Result<(HeldRelease, bool), Failure> {
        self.pulse.beat();
        let entry = &obligation.entry;
        let manifest = self.site.served().manifest(entry)?;
        let is_known = self.index.is_complete(entry.digest) && self.site.served().offers(entry.digest)?;
        if let Some(bytes) = manifest.as_ref().filter(|_| is_known) {
            let release = check_approval(bytes, entry, &round.network.packagers).or_fail(|| failed(entry))?;
            round.plan.is_here(entry.digest);
            return Ok((HeldRelease::of(&release, None), false));
        }
        let result = self.hold_from_any(round, obligation).await;
        match &result {
            Ok(_) => round.plan.is_here(entry.digest),
            // It waits for nothing but its hour: that is no attempt.
            Err(_) if self.link.report(Instant::now()).closed.is_some() => round.plan.waits(entry.digest),
            Err(failure) => {
                let state = if failure.may_pass() { Step::NoRoom } else { Step::Failed };
                round.plan.failed(entry.digest, state, failure.render().trim_end().to_owned(), round.now);
            }
        }
        result
    }

    async fn hold_from_any(
        &self,
        round: &mut Round,
        obligation: &Obligation,
    ) -> Result<(HeldRelease, bool), Failure> {
        let _alone = self.holding.begin(obligation.entry.digest).await;
        let mut first_failure: Option<Failure> = None;
        for upstream in self.upstreams.in_order(round.now) {
            let fetcher = upstream.at(obligation.priority);
            let failure = match self.hold_from(&fetcher, round, obligation).await {
                Ok(done) => return Ok(done),
                Err(Setback::Here(failure)) => return Err(failure),
                Err(Setback::NotThere(failure)) => failure,
                Err(Setback::Upstream(failure)) => {
                    self.upstreams.failed(&upstream, &failure, round.now);
                    failure
                }
            };
            // Of several, tampering is what people must hear of.
            let known = first_failure.as_ref().map(Failure::kind);
            if known.is_none() || (known != Some(Kind::Trust) && failure.kind() == Kind::Trust) {
                first_failure = Some(failure);
            }
        }
        Err(first_failure.unwrap_or_else(|| Failure::usage("no upstream is configured")))
    }

    async fn hold_from(
        &self,
        fetcher: &Fetcher,
        round: &mut Round,
        obligation: &Obligation,
    ) -> Result<(HeldRelease, bool), Setback> {
        let entry = &obligation.entry;
        let manifest = self.site.served().manifest(entry)?;
        let network = round.network.clone();
        let mut request = self.request(fetcher, &network, entry, manifest.clone()).await?;
        let mut way = request.plan().await.map_err(|error| Setback::of(error, entry))?;
        while self.make_room(&way, round, obligation)? {
            // What made room may have shared objects with it: what is here is looked at anew.
            request = self.request(fetcher, &network, entry, manifest.clone()).await?;
            way = request.plan().await.map_err(|error| Setback::of(error, entry))?;
        }
        round.plan.begins(entry.digest, way.cost());
        let label = format!("mirroring {} {}", entry.listing.name, entry.listing.version);
        let (meter, partials) = (fetcher.meter().clone(), self.site.partials());
        let fetching = request.obtain(&self.store, &partials);
        let obtained = watch(&label, way.cost(), || meter.received(), fetching)
            .await
            .map_err(|error| Setback::of(error, entry))?;
        self.lacks_nothing(&obtained.release).await?;
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
        if obligation.must {
            self.remember(&held)?;
        }
        self.site.served().add_release(entry, &obtained.manifest, obtained.deltas)?;
        self.index.mark_complete(entry.digest);
        Ok((held, new))
    }

    /// Sees to it that there is room for what must come: what nobody is owed goes first. What is owed is not fetched into a disk
    /// that cannot hold it; for what is only worth having, nothing goes. True when something went.
    fn make_room(
        &self,
        way: &ReleasePlan,
        round: &mut Round,
        obligation: &Obligation,
    ) -> Result<bool, Failure> {
        let what = || "cannot tell how much room there is".to_owned();
        let entry = &obligation.entry;
        let need = entry.listing.installed_size.min(way.cost().saturating_mul(UNPACKED));
        let room = self.room().or_fail(what)?;
        if room.left < need && obligation.must {
            let mut pinned = round.obligations.pinned();
            // What the served catalogue obliges it to hold goes on being owed until the next one is complete.
            pinned.extend(self.site.state().releases.iter().map(|held| held.release));
            round.lease = None;
            let (network, missing) = (&round.network, need - room.left);
            let evicted =
                tokio::task::block_in_place(|| garbage::evict(&self.site, network, &pinned, missing));
            round.lease = Some(self.lease()?);
            if evicted? > 0 {
                return Ok(true);
            }
        }
        if room.left < need {
            let listing = &entry.listing;
            let full = io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "the disk is full: it takes up to {}, and {} are left",
                    bytes(need),
                    bytes(room.left)
                ),
            );
            return Err(full)
                .or_fail(|| format!("there is no room for `{} {}`", listing.name, listing.version))
                .map_err(|failure| failure.hint("`mirabelle-node doctor` says what takes the space"));
        }
        Ok(false)
    }

    /// Whatever happened on the way: a release is complete when all of it is here (promise 3).
    async fn lacks_nothing(&self, release: &Arc<ApprovedRelease>) -> Result<(), Failure> {
        let (store, looked_for) = (self.store.clone(), release.clone());
        let lacking = spawn_blocking(move || {
            looked_for.objects().into_iter().find(|(object, found)| !store.holds(*object, found.size))
        });
        match lacking.await.or_fail(|| "cannot look at what is here".to_owned())? {
            None => Ok(()),
            Some((object, _)) => Err(Failure::no(format!(
                "object {object} of `{} {}` went away while the rest came",
                release.name, release.version
            ))
            .hint("the next sync fetches it again")),
        }
    }

    /// Keeps how a release came at once: a sync that is killed later does not forget it.
    fn remember(&self, held: &HeldRelease) -> Result<(), Failure> {
        if held.came.is_none() {
            return Ok(());
        }
        let mut state: State = self.site.state();
        state.releases.retain(|known| known.release != held.release);
        state.releases.push(held.clone());
        self.site.write_state(&state)
    }

    pub(super) async fn request<'a>(
        &self,
        fetcher: &'a Fetcher,
        network: &'a Network,
        entry: &'a CatalogueEntry,
        manifest: Option<Vec<u8>>,
    ) -> Result<ReleaseRequest<'a>, Failure> {
        let held = self.site.served().held_manifests(&network.catalogue, entry)?;
        ReleaseRequest::new(fetcher, network, entry, Stock::Store(self.store.clone()), held, manifest)
            .await
            .or_fail(|| failed(entry))
    }
}

fn failed(entry: &CatalogueEntry) -> String {
    format!("cannot mirror `{} {}`", entry.listing.name, entry.listing.version)
}

impl Setback {
    fn of(error: ObtainError, entry: &CatalogueEntry) -> Self {
        let not_there = matches!(error, ObtainError::NoRoute { .. });
        match Err::<(), _>(error).or_fail(|| failed(entry)) {
            Err(failure) if not_there => Self::NotThere(failure),
            Err(failure) => Self::from(failure),
            Ok(()) => Self::Here(Failure::no(failed(entry))),
        }
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        match failure.kind() {
            Kind::Network | Kind::Trust => Self::Upstream(failure),
            Kind::No | Kind::Usage | Kind::Machine => Self::Here(failure),
        }
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
