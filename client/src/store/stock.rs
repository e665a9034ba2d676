//! What there is in the store: every approved package that runs here, and how it stands for whoever asks.
//!
//! Made from the same signed documents and the same decisions as `install` and `why` use, and kept until one of them changes: a page
//! costs no decision. What may be had is decided for each kind of asker as if she had asked ([`Situation::offers`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{
    Action, Asker, AssignmentMode, CatalogueEntry, Decision, Digest, Instant, Keep, PackageName, Platform,
    Reason, SignIn, SiteId, Situation,
};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::{Network, kept_network};

use super::search::Index;
use super::view::{Installed, Item, Standing, WhoMay};
use crate::agent::self_update::OWN_PACKAGE;
use crate::config::Config;
use crate::generation::Generation;
use crate::layout::Layout;
use crate::outlook::{Outlook, Verb};
use crate::platform;
use crate::room::Room;
use crate::state::State;

/// How long a package is new.
const NEW_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Time alone changes a decision now and then: a ring that opens, a pin that ends.
const LONGEST_KEPT: SignedDuration = SignedDuration::from_mins(5);
const MAX_TIMESTAMP_BYTES: u64 = 64 << 10;
const MAX_STATE_BYTES: u64 = 4 << 20;

/// The stock of one moment, for one kind of asker.
pub(crate) struct Stock {
    pub(crate) items: Vec<Item>,
    /// Everything on the way to each item's standing.
    pub(crate) reasons: BTreeMap<PackageName, Vec<Reason>>,
    /// The newest approved version of each.
    pub(crate) newest: BTreeMap<PackageName, mirabelle_manifests::Version>,
    /// The order of that version among the package's.
    pub(crate) sequences: BTreeMap<PackageName, u64>,
    /// The digest of the release that would be fetched.
    pub(crate) releases: BTreeMap<PackageName, Digest>,
    pub(crate) featured: Vec<PackageName>,
    pub(crate) sign_in: Option<SignIn>,
    pub(crate) zone: jiff::tz::TimeZone,
    pub(crate) index: Index,
    key: Key,
}

/// What it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    asker: Asker,
    timestamp: Digest,
    state: Digest,
    generation: u64,
    made: Instant,
}

impl Key {
    fn now(layout: &Layout, asker: Asker, now: Instant) -> Result<Self, Failure> {
        let what = || "cannot look at what is known here".to_owned();
        let digest = |name: &str, limit: u64| {
            let bytes = durable::read_if_present(&layout.root().join(name), limit).or_fail(what)?;
            Ok::<_, Failure>(Digest::of(&bytes.unwrap_or_default()))
        };
        Ok(Self {
            asker,
            timestamp: digest("trust/timestamp.json", MAX_TIMESTAMP_BYTES)?,
            state: digest("state.json", MAX_STATE_BYTES)?,
            generation: layout.current_number()?,
            made: now,
        })
    }

    /// True when a stock with this key still says how things are.
    fn still_counts(&self, other: &Self) -> bool {
        let age = other.made.duration_since(self.made);
        let same = Self { made: other.made, ..self.clone() } == *other;
        same && (SignedDuration::ZERO..LONGEST_KEPT).contains(&age)
    }
}

impl Stock {
    /// `known`, if it still says how things are, or a new one.
    pub(crate) async fn fresh(
        layout: &Layout,
        config: &Config,
        asker: Asker,
        known: Option<Arc<Self>>,
        now: Instant,
    ) -> Result<Arc<Self>, Failure> {
        let key = Key::now(layout, asker, now)?;
        if let Some(known) = known.filter(|known| known.key.still_counts(&key)) {
            return Ok(known);
        }
        let network = kept_network(&layout.trust(), now)
            .await
            .or_fail(|| "cannot read what was learnt at the last refresh".to_owned())?;
        let (layout, config) = (layout.clone(), config.clone());
        let making = tokio::task::spawn_blocking(move || Self::make(&layout, &config, &network, key));
        making.await.or_fail(|| "cannot work out what the store shows".to_owned())?.map(Arc::new)
    }

    fn make(layout: &Layout, config: &Config, network: &Network, key: Key) -> Result<Self, Failure> {
        let current = layout.current_generation()?;
        let state = layout.read_state()?;
        let on_machine = state.on_machine(&current);
        let situation = Situation {
            catalogue: &network.catalogue,
            deployment: &network.deployment,
            brake: &network.brake,
            machine: &config.machine,
            state: &on_machine,
            now: key.made,
        };
        let mut decided = situation.decide();
        Room::of(layout, config)?.leave_out(&mut decided)?;
        let outlook = Outlook::of(&situation, network, layout, &current, decided.clone());
        let maker = Maker {
            college: &config.machine.college,
            asker: key.asker,
            now: key.made,
            room: Room::of(layout, config)?,
            current: &current,
            state: &state,
            outlook: &outlook,
            restart: state.waiting_for_restart(&platform::boot()).into_iter().collect(),
            offers: situation.offers(key.asker),
            decided,
            modes: situation
                .deployment
                .assignments_of(situation.machine)
                .into_iter()
                .map(|(package, (_, assignment))| (package.clone(), assignment.mode))
                .collect(),
        };
        let mut stock = Self {
            items: Vec::new(),
            reasons: BTreeMap::new(),
            newest: BTreeMap::new(),
            sequences: BTreeMap::new(),
            releases: BTreeMap::new(),
            featured: network.deployment.featured.clone(),
            sign_in: network.deployment.sign_in.clone(),
            zone: outlook.timetable(&config.machine).zone().clone(),
            index: Index::default(),
            key,
        };
        for (package, entries) in by_package(network, &config.machine.platform) {
            // The agent's own program is nobody's to choose.
            if package.as_str() == OWN_PACKAGE {
                continue;
            }
            stock.add(&maker, package, &entries)?;
        }
        stock.items.sort_by_cached_key(|item| (item.title.fr.to_lowercase(), item.package.clone()));
        stock.index = Index::of(&stock.items);
        Ok(stock)
    }

    fn add(
        &mut self,
        maker: &Maker<'_>,
        package: &PackageName,
        entries: &[&CatalogueEntry],
    ) -> Result<(), Failure> {
        let Some(newest) = entries.last() else { return Ok(()) };
        let made = maker.item(package, entries)?;
        self.newest.insert(package.clone(), newest.listing.version.clone());
        self.sequences.insert(package.clone(), newest.listing.sequence);
        self.reasons.insert(package.clone(), made.reasons);
        self.releases.extend(made.release.map(|release| (package.clone(), release)));
        self.items.push(made.item);
        Ok(())
    }
}

/// The approved releases that run here, by package, the oldest first.
fn by_package<'a>(
    network: &'a Network,
    platform: &Platform,
) -> BTreeMap<&'a PackageName, Vec<&'a CatalogueEntry>> {
    let mut all: BTreeMap<&PackageName, Vec<&CatalogueEntry>> = BTreeMap::new();
    for entry in network.catalogue.iter().filter(|entry| entry.listing.platform.runs_on(platform)) {
        all.entry(&entry.listing.name).or_default().push(entry);
    }
    for entries in all.values_mut() {
        entries.sort_by_key(|entry| entry.listing.sequence);
    }
    all
}

/// What items are made of.
struct Maker<'a> {
    college: &'a SiteId,
    asker: Asker,
    now: Instant,
    room: Room<'a>,
    current: &'a Generation,
    state: &'a State,
    outlook: &'a Outlook,
    restart: BTreeSet<PackageName>,
    /// What is decided, and what would be had this person asked.
    decided: BTreeMap<PackageName, Decision>,
    offers: BTreeMap<PackageName, Decision>,
    modes: BTreeMap<PackageName, AssignmentMode>,
}

/// An item, and what belongs to it but to no list.
struct Made {
    item: Item,
    reasons: Vec<Reason>,
    release: Option<Digest>,
}

impl Maker<'_> {
    fn item(&self, package: &PackageName, entries: &[&CatalogueEntry]) -> Result<Made, Failure> {
        let here = self.current.packages.get(package);
        let offer = self.offers.get(package);
        let decision = self.decided.get(package);
        let coming = decision.and_then(Decision::release).or_else(|| offer.and_then(Decision::release));
        let shown = here
            .and_then(|here| entries.iter().find(|entry| entry.digest == here.release).copied())
            .or(coming)
            .or_else(|| entries.last().copied());
        let Some(shown) = shown else {
            return Err(Failure::no(format!("there is no release of `{package}`")));
        };
        let (standing, reasons) = self.standing(package, decision, offer)?;
        let listing = &shown.listing;
        let showcase = listing.showcase.clone().unwrap_or_default();
        let first = entries.first().and_then(|entry| entry.approved);
        let who = match self.modes.get(package) {
            Some(AssignmentMode::Required) => WhoMay::Everybody,
            Some(AssignmentMode::Available) => WhoMay::Anyone,
            Some(AssignmentMode::AvailableToTeachers) => WhoMay::Teachers,
            Some(AssignmentMode::Blocked | AssignmentMode::Removed) | None => WhoMay::Nobody,
        };
        let item = Item {
            package: package.clone(),
            title: listing.title.clone(),
            summary: listing.summary.clone(),
            version: here.map_or_else(|| listing.version.clone(), |here| here.version.clone()),
            categories: listing.categories.clone(),
            subjects: showcase.subjects.clone(),
            levels: showcase.levels.clone(),
            keywords: showcase.keywords.clone(),
            icon: showcase.icon.map(|icon| icon.sha256),
            page: showcase.page.map(|page| page.sha256),
            licence: listing.licence.clone(),
            download_bytes: coming.map_or(listing.download_size, |entry| entry.listing.download_size),
            installed_bytes: listing.installed_size,
            approved: shown.approved,
            is_new: first.is_some_and(|first| self.now.duration_since(first) < NEW_FOR),
            who,
            standing,
            installed: here.map(|here| Installed {
                version: here.version.clone(),
                sequence: here.sequence,
                bytes: here.bytes,
                opens: !here.launchers.is_empty(),
                removable: self.may_remove(package),
                previous: entries
                    .iter()
                    .rev()
                    .find(|entry| entry.listing.sequence < here.sequence)
                    .map(|entry| (entry.listing.sequence, entry.listing.version.clone())),
                kept_until: self.kept_until(package, here.sequence),
            }),
            followed: false,
        };
        let release = coming.map(|entry| entry.digest);
        Ok(Made { item, reasons, release })
    }

    /// As `remove` decides it: what somebody like her asked for.
    fn may_remove(&self, package: &PackageName) -> bool {
        let asked = self.state.asked.get(package);
        let is_required = self.modes.get(package) == Some(&AssignmentMode::Required);
        !is_required
            && self.asker != Asker::Anyone
            && (self.asker == Asker::Administrator || asked.is_some_and(|asked| *asked <= self.asker))
    }

    fn kept_until(&self, package: &PackageName, sequence: u64) -> Option<Instant> {
        let Keep { sequence: kept, until } = self.state.kept.get(package)?;
        (*kept == sequence && *until > self.now).then_some(*until)
    }

    /// How it stands, and every reason for that.
    fn standing(
        &self,
        package: &PackageName,
        decision: Option<&Decision>,
        offer: Option<&Decision>,
    ) -> Result<(Standing, Vec<Reason>), Failure> {
        if self.restart.contains(package) {
            let reasons = decision.map(|decision| decision.reasons.clone());
            return Ok((Standing::Restart, reasons.unwrap_or_default()));
        }
        let due = self.outlook.due.iter().find(|due| due.package == *package);
        if let (Some(due), Some(decision)) = (due, decision) {
            let (deadline, prepared) = (due.deadline, due.prepared);
            let standing = match due.verb {
                Verb::Install => Standing::Coming { deadline, prepared },
                Verb::Update => match &due.version {
                    Some(version) => Standing::Newer { version: version.clone(), deadline, prepared },
                    None => Standing::Here,
                },
                Verb::Remove => Standing::Leaving { deadline },
            };
            return Ok((standing, decision.reasons.clone()));
        }
        if self.current.packages.contains_key(package) {
            let reasons = decision.map(|decision| decision.reasons.clone()).unwrap_or_default();
            return Ok((Standing::Here, reasons));
        }
        let Some(offer) = offer else {
            let reason = Reason::NotDeployed { college: self.college.clone() };
            return Ok((Standing::Blocked(reason.clone()), vec![reason]));
        };
        if let Action::Install(entry) = &offer.action {
            let needed = self.room.missing_bytes(entry)?;
            if let Some(reason) = self.room.refuses(needed) {
                let reasons = offer.reasons.iter().cloned().chain([reason.clone()]).collect();
                return Ok((Standing::Blocked(reason), reasons));
            }
            return Ok((Standing::Offered, offer.reasons.clone()));
        }
        let standing = match offer.reason() {
            Some(Reason::TeachersOnly { .. }) => Standing::ForTeachers,
            Some(reason) => Standing::Blocked(reason.clone()),
            None => Standing::Here,
        };
        Ok((standing, offer.reasons.clone()))
    }
}
