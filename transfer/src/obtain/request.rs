//! A whole release, from what is held, by the cheapest way a server offers: planned, explained, gone.
//!
//! The ways: a delta from a release that is held; a chain of them through releases that are not (`search.rs`); a pack;
//! ranges of the bundle, or single objects, for what no package here has. All are weighed in bytes.
//!
//! What a delta costs stands in the routes. What ranges cost is known once the manifest is here, which a delta brings
//! along and ranges do not: so the manifest is asked for only where it costs little beside what is at stake
//! ([`MANIFEST_SHARE`]), or no delta leads there.
//!
//! Falls back without loss: a delta that is missing, damaged or wrong costs its own bytes at most, is said in the log,
//! and planning goes on without it; what comes by ranges is what is still missing then. All deltas that fail together
//! cost no more than the bundle that was signed. What ends it is the link, this machine, or a server that has nothing.
//!
//! Promise 1 holds whatever the way: what is returned passed [`check_approval`](mirabelle_manifests::check_approval).
//! Releases that a chain passes through are bytes, of approved digests, and are not used otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use mirabelle_content::ObjectStore;
use mirabelle_manifests::{ApprovedRelease, CatalogueEntry, Digest, Routes, SignedRelease};
use tokio::task::spawn_blocking;

use super::delta::{self, UsedDelta};
use super::plan::{Way, WayKind, Words};
use super::search::{Chain, Edge, Ground, Search};
use super::{ObtainError, ObtainPlan, PassedOver, ReleasePlan, lacking, routes_of};
use crate::fetch::{FetchError, Fetcher};
use crate::network::{Network, RefreshError, approved, fetch_release};

/// The manifest is fetched to weigh ranges against a delta when it is no longer than this share of the delta: it is
/// halved on the wire, so at most an eighth of what is at stake is spent on knowing better.
const MANIFEST_SHARE: u64 = 4;
/// More deltas of one release than this are not tried.
const MAX_FAILED: usize = 3;
/// More releases than this are not looked at as bases.
const MAX_HELD: usize = 8;

/// The manifest of a release that may be held whole.
#[derive(Clone, Debug)]
pub struct HeldManifest {
    /// SHA-256 of the bytes.
    pub release: Digest,
    /// The exact bytes of its `release.json`.
    pub bytes: Vec<u8>,
}

/// What the asker holds beside whole releases.
#[derive(Clone, Debug)]
pub enum Stock {
    /// What is in this store; releases count as held when all of their objects are.
    Store(ObjectStore),
    /// These objects, as a supposition, to plan with: releases count as held as they are given.
    Supposed(BTreeSet<Digest>),
}

/// Somebody wants a release.
#[derive(Debug)]
pub struct ReleaseRequest<'a> {
    fetcher: &'a Fetcher,
    network: &'a Network,
    entry: &'a CatalogueEntry,
    stock: Stock,
    /// Releases of the package and platform that are held whole.
    held: BTreeMap<Digest, Vec<u8>>,
    /// Their objects, with sizes, which are not looked for again: whoever asks keeps sweeps out.
    here: BTreeMap<Digest, u64>,
    /// What the manifest's release lacks, once it was looked for, and until something is taken in.
    lacks: Option<BTreeMap<Digest, u64>>,
    /// All that are approved.
    known: BTreeMap<Digest, &'a CatalogueEntry>,
    manifest: Option<(Arc<ApprovedRelease>, Vec<u8>)>,
    routes: BTreeMap<Digest, Routes>,
    failed: BTreeSet<Edge>,
    /// Bytes of deltas that failed.
    lost: u64,
    /// True: deltas have done what they can, and what is still missing comes otherwise.
    plain_only: bool,
}

/// A release that is here whole.
#[derive(Debug)]
pub struct Obtained {
    /// Both bodies stand behind it.
    pub release: Arc<ApprovedRelease>,
    /// The bytes of its manifest.
    pub manifest: Vec<u8>,
    /// How it came.
    pub kind: WayKind,
    /// In words.
    pub way: String,
    /// Bytes that were received for it.
    pub received: u64,
    /// Deltas it came by, to keep for others or to discard.
    pub deltas: Vec<UsedDelta>,
}

impl<'a> ReleaseRequest<'a> {
    /// Asks `fetcher`'s server for the release of `entry`. `manifest` are the bytes of its `release.json`, if they are
    /// here; `held` are manifests of releases of the same package that may be held.
    pub async fn new(
        fetcher: &'a Fetcher,
        network: &'a Network,
        entry: &'a CatalogueEntry,
        stock: Stock,
        held: Vec<HeldManifest>,
        manifest: Option<Vec<u8>>,
    ) -> Result<Self, ObtainError> {
        let listing = &entry.listing;
        let of_package = network
            .catalogue
            .iter()
            .filter(|other| other.listing.name == listing.name && other.listing.platform == listing.platform);
        let known: BTreeMap<Digest, &CatalogueEntry> =
            of_package.map(|other| (other.digest, other)).collect();
        let mut held: Vec<HeldManifest> = held
            .into_iter()
            .filter(|held| held.release != entry.digest && known.contains_key(&held.release))
            .collect();
        held.sort_by_key(|held| known[&held.release].listing.sequence.abs_diff(listing.sequence));
        held.truncate(MAX_HELD);
        let (held, here) = match &stock {
            Stock::Store(store) => {
                let store = store.clone();
                spawn_blocking(move || whole(held, &store)).await?
            }
            Stock::Supposed(_) => (held, BTreeMap::new()),
        };
        let manifest = match manifest {
            Some(bytes) => Some((Arc::new(approved(&bytes, network, entry)?), bytes)),
            None => None,
        };
        Ok(Self {
            fetcher,
            network,
            entry,
            stock,
            held: held.into_iter().map(|held| (held.release, held.bytes)).collect(),
            here,
            lacks: None,
            known,
            manifest,
            routes: BTreeMap::new(),
            failed: BTreeSet::new(),
            lost: 0,
            plain_only: false,
        })
    }

    /// Weighs the ways there are.
    pub async fn plan(&mut self) -> Result<ReleasePlan, ObtainError> {
        if let Some((release, _)) = &self.manifest {
            let release = release.clone();
            let missing = self.missing(&release).await?;
            if missing.is_empty() {
                let nothing = ObtainPlan::all(&release, &missing, &Routes::default());
                let ways = nothing.into_iter().map(|plan| (0, Way::Plain(plan))).collect();
                return Ok(self.describe(ways, Vec::new(), Some(0)));
            }
        }
        let (chains, objections) = self.chains().await?;
        let words = Words(&self.known);
        let mut passed_over: Vec<PassedOver> =
            objections.into_iter().map(|(from, objection)| words.passed_over(from, objection)).collect();
        let offered = |release: &Digest| {
            let direct = self.routes.get(&self.entry.digest).into_iter().flat_map(|routes| &routes.deltas);
            direct
                .map(|offer| offer.from)
                .chain(chains.iter().map(|chain| chain.hops[0].from))
                .any(|from| from == Some(*release))
        };
        let silent = self.held.keys().filter(|release| !offered(release)).map(|release| PassedOver {
            way: words.from(Some(*release)),
            why: "the server offers none".to_owned(),
        });
        passed_over.extend(silent);

        if self.manifest.is_none() && self.is_worth_asking(chains.first()) {
            self.fetch_manifest(!chains.is_empty()).await?;
        }
        let routes = self.routes.get(&self.entry.digest).cloned().unwrap_or_default();
        let mut ways: Vec<(u64, Way)> = Vec::new();
        let mut missing_objects = None;
        if let Some((release, _)) = &self.manifest {
            let release = release.clone();
            let missing = self.missing(&release).await?;
            missing_objects = Some(missing.len());
            let plans = ObtainPlan::all(&release, &missing, &routes);
            ways.extend(plans.into_iter().map(|plan| (plan.cost(), Way::Plain(plan))));
        } else {
            let (listing, length) = (&self.entry.listing, self.entry.length);
            if routes.bundle {
                ways.push((length + listing.download_size, Way::Unmeasured(WayKind::Bundle)));
            }
            if routes.objects {
                ways.push((length + listing.installed_size, Way::Unmeasured(WayKind::Objects)));
            }
        }
        // Where costs are equal, the way without decoding.
        ways.extend(chains.into_iter().map(|chain| (chain.cost, Way::Deltas(chain))));
        ways.sort_by_key(|(cost, _)| *cost);
        Ok(self.describe(ways, passed_over, missing_objects))
    }

    /// Gets the release into `store`, whatever fails on the way. `partials` is a directory for downloads under way.
    pub async fn obtain(mut self, store: &ObjectStore, partials: &Path) -> Result<Obtained, ObtainError> {
        let before = self.fetcher.meter().received();
        let (mut kind, mut way, mut deltas) = (None, String::new(), Vec::new());
        loop {
            let mut plan = self.plan().await?;
            let described = plan.candidates.first().cloned();
            let Some((described, first)) = described.zip(plan.ways.drain(..).next()) else {
                let upstream = self.fetcher.upstream().to_string();
                let package = format!("{} {}", plan.package, plan.version);
                return Err(ObtainError::NoRoute { upstream, package });
            };
            if described.kind != WayKind::Nothing || kind.is_none() {
                // What a delta left missing comes by another way; the release came by the delta.
                way = if way.is_empty() { described.way } else { format!("{way}, then {}", described.way) };
                kind = kind.or(Some(described.kind));
            }
            match first {
                Way::Plain(plan) => {
                    plan.execute(self.fetcher, store, partials).await?;
                    break;
                }
                Way::Deltas(chain) => {
                    if let Some(used) = self.follow(&chain, store, partials).await? {
                        deltas = used;
                        self.plain_only = true;
                    } else {
                        (kind, way) = (None, String::new());
                    }
                }
                // Nothing cheaper leads there: the next plan knows the manifest.
                Way::Unmeasured(_) => {
                    self.fetch_manifest(false).await?;
                    (kind, way) = (None, String::new());
                }
            }
        }
        delta::sweep(self.entry.digest, partials, &deltas)?;
        let Some((release, manifest)) = self.manifest else {
            return Err(ObtainError::NoRoute {
                upstream: self.fetcher.upstream().to_string(),
                package: self.entry.path.to_string(),
            });
        };
        let received = self.fetcher.meter().received() - before;
        Ok(Obtained { release, manifest, kind: kind.unwrap_or(WayKind::Nothing), way, received, deltas })
    }

    /// Fetches and decodes deltas one after the other; `None`: one failed, and is not tried again.
    async fn follow(
        &mut self,
        chain: &Chain,
        store: &ObjectStore,
        partials: &Path,
    ) -> Result<Option<Vec<UsedDelta>>, ObtainError> {
        let mut used: Vec<UsedDelta> = Vec::new();
        let mut manifest: Option<Vec<u8>> = None;
        self.lacks = None;
        for hop in &chain.hops {
            // The search steps on approved releases only.
            let Some(to) = self.known.get(&hop.to).copied() else { continue };
            let base = match (manifest.take(), hop.from) {
                (None, Some(from)) => self.held.get(&from).cloned(),
                (before, _) => before,
            };
            let tried = match delta::fetch(hop, self.fetcher, partials).await? {
                Ok(fetched) => {
                    let rebuilt = delta::rebuild(&fetched, base, to, store, partials).await?;
                    rebuilt.map(|bytes| (fetched, bytes))
                }
                Err(failure) => Err(failure),
            };
            match tried {
                Ok((fetched, bytes)) => {
                    used.push(fetched);
                    manifest = Some(bytes);
                }
                Err(failure) => {
                    let words = Words(&self.known);
                    tracing::warn!(
                        package = %self.entry.listing.name,
                        version = words.version(hop.to),
                        delta = words.from(hop.from),
                        upstream = %self.fetcher.upstream(),
                        error = %Causes(&failure),
                        "a delta failed, and another way is taken"
                    );
                    self.failed.insert(hop.edge());
                    self.lost += hop.size;
                    for before in used {
                        self.lost += before.size;
                        before.discard()?;
                    }
                    return Ok(None);
                }
            }
        }
        if let Some(bytes) = manifest {
            let release = approved(&bytes, self.network, self.entry)?;
            self.manifest = Some((Arc::new(release), bytes));
        }
        Ok(Some(used))
    }

    /// The chains of deltas that lead there, cheapest first.
    async fn chains(
        &mut self,
    ) -> Result<(Vec<Chain>, Vec<(Option<Digest>, super::search::Objection)>), ObtainError> {
        let ceilings = self.known.iter().map(|(digest, entry)| {
            let ceiling = entry.length.saturating_add(entry.listing.download_size);
            // What was lost counts: all that fail together cost no more than the bundle.
            let ceiling =
                if *digest == self.entry.digest { ceiling.saturating_sub(self.lost) } else { ceiling };
            (*digest, ceiling)
        });
        let ceilings: BTreeMap<Digest, u64> = ceilings.collect();
        let held = self.held.keys().copied().collect();
        let mut search =
            Search::new(self.entry.digest, Ground { ceilings: &ceilings, held: &held, failed: &self.failed });
        while let Some(release) = search.next() {
            let routes = match self.routes.get(&release) {
                Some(routes) => routes.clone(),
                None => match routes_of(self.fetcher, release).await {
                    Ok(routes) => routes,
                    // A release on the way that the server says nothing of; the wanted one's own routes are needed.
                    Err(error) if release != self.entry.digest => {
                        tracing::debug!(%error, %release, "no routes");
                        Routes::default()
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            search.offers(release, &routes);
            self.routes.insert(release, routes);
        }
        let (mut chains, objections) = search.finish();
        if self.plain_only || self.failed.len() >= MAX_FAILED {
            chains.clear();
        }
        Ok((chains, objections))
    }

    fn is_worth_asking(&self, cheapest: Option<&Chain>) -> bool {
        cheapest.is_none_or(|chain| self.entry.length <= chain.cost / MANIFEST_SHARE)
    }

    /// Fetches the manifest. Where there is another way, it need not be there.
    async fn fetch_manifest(&mut self, another_way: bool) -> Result<(), ObtainError> {
        let newest = self.held.iter().max_by_key(|(release, _)| self.known[release].listing.sequence);
        let held = newest.map(|(_, bytes)| bytes.as_slice());
        match fetch_release(self.fetcher, self.network, self.entry, held).await {
            Ok((release, bytes)) => self.manifest = Some((Arc::new(release), bytes)),
            Err(RefreshError::Tuf(crate::TufError::Fetch(FetchError::NotFound { .. }))) if another_way => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is missing of `release`, which is that of the manifest.
    async fn missing(
        &mut self,
        release: &Arc<ApprovedRelease>,
    ) -> Result<BTreeMap<Digest, u64>, ObtainError> {
        if let Some(lacks) = &self.lacks {
            return Ok(lacks.clone());
        }
        let objects = release.objects().into_iter().map(|(object, found)| (object, found.size));
        let missing = match &self.stock {
            Stock::Store(store) => {
                let in_doubt: BTreeMap<Digest, u64> =
                    objects.filter(|(object, size)| self.here.get(object) != Some(size)).collect();
                let store = store.clone();
                spawn_blocking(move || lacking(in_doubt, &store)).await?
            }
            Stock::Supposed(held) => objects.filter(|(object, _)| !held.contains(object)).collect(),
        };
        self.lacks = Some(missing.clone());
        Ok(missing)
    }

    fn describe(
        &self,
        ways: Vec<(u64, Way)>,
        passed_over: Vec<PassedOver>,
        missing_objects: Option<usize>,
    ) -> ReleasePlan {
        let words = Words(&self.known);
        let listing = &self.entry.listing;
        let mut held: Vec<&CatalogueEntry> =
            self.held.keys().filter_map(|held| self.known.get(held).copied()).collect();
        held.sort_by_key(|entry| entry.listing.sequence);
        ReleasePlan {
            package: listing.name.to_string(),
            version: listing.version.to_string(),
            release: self.entry.digest,
            upstream: self.fetcher.upstream().to_string(),
            held: held.into_iter().map(|entry| entry.listing.version.to_string()).collect(),
            candidates: ways.iter().map(|(cost, way)| words.candidate(way, *cost)).collect(),
            passed_over,
            missing_objects,
            ways: ways.into_iter().map(|(_, way)| way).collect(),
        }
    }
}

/// The releases whose manifest is what its name says and whose objects are all here; and these objects.
fn whole(held: Vec<HeldManifest>, store: &ObjectStore) -> (Vec<HeldManifest>, BTreeMap<Digest, u64>) {
    let mut here: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut is_whole = |held: &HeldManifest| {
        if Digest::of(&held.bytes) != held.release {
            return false;
        }
        let Ok(signed) = SignedRelease::parse(&held.bytes) else { return false };
        let objects = signed.release.objects().into_iter().map(|(object, found)| (object, found.size));
        let in_doubt: BTreeMap<Digest, u64> =
            objects.filter(|(object, size)| here.get(object) != Some(size)).collect();
        let whole = in_doubt.iter().all(|(object, size)| store.holds(*object, *size));
        if whole {
            here.extend(in_doubt);
        }
        whole
    };
    let held = held.into_iter().filter(|held| is_whole(held)).collect();
    (held, here)
}

/// An error with its causes, on one line.
struct Causes<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
