//! Orders for rooms of this college: taken, looked at, woken for, and followed machine by machine.
//!
//! ```text
//! <root>/people/orders.json    the orders, whether their room was woken, and how far each machine is; replaced as a whole
//! ```
//!
//! An order changes nothing that the college holds or its machines may have: both are said by the signed deployment. It makes machines ask for
//! what a teacher could have asked for at each of them. It is given to a room's machines from when it is taken until two weeks after its
//! hour, or until what it keeps ends.
//!
//! Machines that are off are woken once, early enough to install before the hour. A crash in between wakes them a second time, at worst.
//!
//! Threats: what machines say of themselves is not signed yet. Somebody on the network may make up machines, and progress; both are few
//! for each room, and say nothing but what a page shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_identity::{
    Action, Assessment, MachineOrder, MachineProgress, Order, OrderStatus, Orders as OrderList, Person,
    Progress, Ready, RequestId, Wanted,
};
use mirabelle_manifests::{
    Action as Decided, Asker, Digest, Instant, Machine, MachineId, MachineState, Platform, Reason, RoomName,
    SiteId, Situation as Decide,
};
use mirabelle_transfer::{LinkReport, Network};
use serde::{Deserialize, Serialize};

use crate::lan::Waking;

/// Open orders of a college, and of one person.
const MAX_ORDERS: usize = 200;
const MAX_OF_ONE: usize = 20;
/// Machines of one room.
const MAX_MACHINES: usize = 200;
const MAX_BYTES: u64 = 16 << 20;
/// For so long after its hour an order is given to machines that were off.
const GIVEN_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Nobody orders further ahead.
const FURTHEST: SignedDuration = SignedDuration::from_hours(120 * 24);
/// Machines come up over some minutes, ask for what there is, and do not all begin at once.
const COMING_UP: SignedDuration = SignedDuration::from_mins(20);
/// Bytes a second that a workstation fetches and installs in a room where all do: from measurements with `bench storm` and `install`,
/// rounded down.
const INSTALLED_PER_SECOND: u64 = 1_500_000;
/// What a link carries when nothing was measured: a quarter of the slowest that there is.
const CARRIED_PER_SECOND: u64 = 125_000;

/// What an answer depends on.
pub(super) struct Situation<'a> {
    pub(super) network: &'a Network,
    pub(super) college: &'a SiteId,
    /// Whether a release is held.
    pub(super) is_here: &'a dyn Fn(Digest) -> bool,
    pub(super) link: &'a LinkReport,
    pub(super) now: Instant,
}

/// Why an order is not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    NotHers,
    TooMany,
    Past,
    Disk(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The college's orders.
pub(super) struct Orders {
    path: PathBuf,
    waking: Arc<Waking>,
    book: Mutex<Book>,
    /// Machines that asked, by room.
    asked: Mutex<BTreeMap<RoomName, BTreeSet<MachineId>>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Book {
    orders: Vec<Held>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    order: Order,
    /// It was given at another college.
    from_elsewhere: bool,
    wake_at: Option<Instant>,
    woken: bool,
    assessment: Option<Assessment>,
    machines: BTreeMap<MachineId, Progress>,
}

impl Held {
    fn is_open(&self, now: Instant) -> bool {
        let kept = self.order.wanted.keep.as_ref().map(|keep| keep.until);
        let given = self.order.wanted.by.checked_add(GIVEN_FOR).unwrap_or(Instant::MAX);
        now < kept.map_or(given, |kept| kept.max(given))
    }
}

impl Orders {
    pub(super) fn open(path: &Path, waking: Arc<Waking>) -> Self {
        let kept = durable::read_if_present(path, MAX_BYTES).ok().flatten();
        let book = kept.and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(book) => Some(book),
            Err(error) => {
                tracing::error!(%error, "the orders of rooms could not be read, and are forgotten");
                None
            }
        });
        Self {
            path: path.to_owned(),
            waking,
            book: Mutex::new(book.unwrap_or_default()),
            asked: Mutex::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, book: &Book) -> io::Result<()> {
        durable::write_atomically(&self.path, &serde_json::to_vec_pretty(book)?)
    }

    /// Does what a teacher of this college asks about orders.
    pub(super) fn act(
        &self,
        situation: &Situation<'_>,
        action: &Action,
        id: RequestId,
        at: Instant,
        person: Person,
    ) -> Result<serde_json::Value, Refusal> {
        let shown =
            |value: serde_json::Result<serde_json::Value>| value.map_err(|error| Refusal::Disk(error.into()));
        match action {
            Action::Assess { order } => shown(serde_json::to_value(self.assess(situation, order))),
            Action::Order { order } => {
                let order = Order {
                    college: situation.college.clone(),
                    id,
                    ordered: at,
                    person,
                    wanted: order.clone(),
                };
                self.take(situation, order)?;
                Ok(serde_json::json!({}))
            }
            Action::Cancel { order } => {
                self.cancel(order, person)?;
                Ok(serde_json::json!({}))
            }
            _ => shown(serde_json::to_value(self.status(situation))),
        }
    }

    /// The machines of a room that are known: by their wake-ups, or since they asked.
    fn machines(&self, room: &RoomName) -> BTreeSet<MachineId> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked.get(room).into_iter().flatten().cloned();
        self.waking.machines_in(room).into_iter().map(|known| known.id).chain(asked).collect()
    }

    /// Whether an order would be ready.
    fn assess(&self, situation: &Situation<'_>, wanted: &Wanted) -> Assessment {
        let machines = self.machines(&wanted.room);
        let known = self.waking.machines_in(&wanted.room);
        let platform =
            known.iter().find_map(|known| known.platform.clone()).unwrap_or_else(Platform::current);
        let none = |reasons: Vec<Reason>| Assessment {
            ready: Ready::No,
            reasons,
            version: None,
            machines: machines.len(),
            without_room: 0,
            wan_bytes: 0,
            wake_at: None,
        };
        // Where none is known, one that is called like its room: of names the deployment says nothing here.
        let Some(id) = machines.first().cloned().or_else(|| wanted.room.as_str().parse().ok()) else {
            return none(Vec::new());
        };
        let machine = Machine {
            college: situation.college.clone(),
            id,
            model: None,
            platform,
            room: Some(wanted.room.clone()),
            tags: known.first().map(|known| known.tags.clone()).unwrap_or_default(),
        };
        let kept = wanted.keep.iter().map(|keep| (wanted.package.clone(), keep.clone())).collect();
        let asked = BTreeMap::from([(wanted.package.clone(), Asker::Teacher)]);
        let state = MachineState { kept, asked, ..MachineState::default() };
        let Network { catalogue, deployment, brake, .. } = situation.network;
        let decide =
            Decide { catalogue, deployment, brake, machine: &machine, state: &state, now: situation.now };
        let decision = decide.decide().remove(&wanted.package);
        let reasons = decision.as_ref().map_or_else(
            || vec![Reason::NotDeployed { college: situation.college.clone() }],
            |decision| decision.reasons.clone(),
        );
        let entry = decision.and_then(|decision| match decision.action {
            Decided::Install(entry) | Decided::Update(entry) => Some(entry),
            Decided::Remove | Decided::Keep => None,
        });
        let Some(entry) = entry else { return none(reasons) };
        let wan_bytes = if (situation.is_here)(entry.digest) { 0 } else { entry.listing.download_size };
        let size = entry.listing.installed_size;
        let carrying = seconds_to_carry(situation.link, wan_bytes).unwrap_or(wan_bytes / CARRIED_PER_SECOND);
        let installing = 60 + size / INSTALLED_PER_SECOND;
        let later = |from: Instant, seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            from.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Instant::MAX)
        };
        let here = later(situation.now, carrying);
        let at = later(here, installing);
        let early = wanted.by.checked_sub(
            COMING_UP + SignedDuration::from_secs(i64::try_from(installing).unwrap_or(i64::MAX)),
        );
        let wake_at = early.unwrap_or(situation.now).max(here);
        Assessment {
            ready: match machines.len() {
                0 => Ready::No,
                _ if at <= wanted.by => Ready::Yes { at },
                _ => Ready::Late { at },
            },
            reasons,
            version: Some(entry.listing.version),
            machines: machines.len(),
            without_room: known.iter().filter(|known| known.free.is_some_and(|free| free < size)).count(),
            wan_bytes,
            wake_at: Some(wake_at),
        }
    }

    fn take(&self, situation: &Situation<'_>, order: Order) -> Result<(), Refusal> {
        let assessment = self.assess(situation, &order.wanted);
        let mut book = self.book();
        let now = situation.now;
        book.orders.retain(|held| held.is_open(now));
        if book.orders.iter().any(|held| held.order.id == order.id) {
            return Ok(());
        }
        if order.wanted.by <= now || order.wanted.by.duration_since(now) > FURTHEST {
            return Err(Refusal::Past);
        }
        let of_one = book.orders.iter().filter(|held| held.order.person == order.person).count();
        if book.orders.len() >= MAX_ORDERS || of_one >= MAX_OF_ONE {
            return Err(Refusal::TooMany);
        }
        tracing::info!(order = %order.id, room = %order.wanted.room, package = %order.wanted.package, by = %order.wanted.by, "a room was ordered");
        book.orders.push(held(order, false, Some(assessment)));
        Ok(self.keep(&book)?)
    }

    fn cancel(&self, id: &RequestId, person: Person) -> Result<(), Refusal> {
        let mut book = self.book();
        if book.orders.iter().any(|held| held.order.id == *id && held.order.person != person) {
            return Err(Refusal::NotHers);
        }
        book.orders.retain(|held| held.order.id != *id);
        Ok(self.keep(&book)?)
    }

    fn status(&self, situation: &Situation<'_>) -> Vec<OrderStatus> {
        let book = self.book().clone();
        let open = book.orders.into_iter().filter(|held| held.is_open(situation.now));
        open.map(|held| {
            let mut assessment = self.assess(situation, &held.order.wanted);
            assessment.wake_at = if held.woken { None } else { held.wake_at };
            self.status_of(held, Some(assessment))
        })
        .collect()
    }

    fn status_of(&self, held: Held, assessment: Option<Assessment>) -> OrderStatus {
        let silent =
            self.machines(&held.order.wanted.room).into_iter().map(|machine| (machine, Progress::Waiting));
        let mut machines: BTreeMap<MachineId, Progress> = silent.collect();
        machines.extend(held.machines);
        OrderStatus { order: held.order, assessment, machines }
    }

    /// Orders that were given elsewhere, as the origin lists them; says how far they are.
    pub(super) fn take_up(&self, list: OrderList, now: Instant) -> io::Result<Vec<OrderStatus>> {
        let mut book = self.book();
        let before = book.orders.len();
        book.orders.retain(|held| held.is_open(now) && !list.cancelled.contains(&held.order.id));
        let mut changed = book.orders.len() != before;
        for order in list.orders.into_iter().take(MAX_ORDERS) {
            if book.orders.len() < MAX_ORDERS && !book.orders.iter().any(|held| held.order.id == order.id) {
                tracing::info!(order = %order.id, room = %order.wanted.room, "a room was ordered from another college");
                book.orders.push(held(order, true, None));
                changed = true;
            }
        }
        if changed {
            self.keep(&book)?;
        }
        let elsewhere: Vec<Held> = book.orders.iter().filter(|held| held.from_elsewhere).cloned().collect();
        drop(book);
        Ok(elsewhere.into_iter().map(|held| self.status_of(held.clone(), held.assessment)).collect())
    }

    /// What a machine's room was ordered. That it asks is a sign of it.
    pub(super) fn of_room(&self, room: &RoomName, machine: &MachineId, now: Instant) -> Vec<MachineOrder> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let of_room = asked.entry(room.clone()).or_default();
        if of_room.len() < MAX_MACHINES {
            of_room.insert(machine.clone());
        }
        if asked.len() > MAX_MACHINES {
            asked.pop_first();
        }
        drop(asked);
        let book = self.book();
        let open = book.orders.iter().filter(|held| held.order.wanted.room == *room && held.is_open(now));
        open.map(|held| MachineOrder {
            by: held.order.wanted.by,
            id: held.order.id.clone(),
            keep: held.order.wanted.keep.clone(),
            package: held.order.wanted.package.clone(),
            wake_at: held.wake_at,
        })
        .collect()
    }

    /// How far a machine is; says whether there is such an order.
    pub(super) fn report(&self, progress: MachineProgress) -> io::Result<bool> {
        let mut book = self.book();
        let Some(held) = book.orders.iter_mut().find(|held| held.order.id == progress.order) else {
            return Ok(false);
        };
        if held.machines.len() >= MAX_MACHINES && !held.machines.contains_key(&progress.machine) {
            return Ok(false);
        }
        if held.machines.insert(progress.machine, progress.progress.clone()) != Some(progress.progress) {
            self.keep(&book)?;
        }
        Ok(true)
    }

    /// Wakes the machines of rooms whose hour has come.
    pub(super) async fn wake(&self, now: Instant) {
        let due: Vec<(RequestId, RoomName)> = {
            let book = self.book();
            let is_due = |held: &&Held| {
                !held.woken && held.wake_at.is_some_and(|at| at <= now) && now < held.order.wanted.by
            };
            book.orders
                .iter()
                .filter(is_due)
                .map(|held| (held.order.id.clone(), held.order.wanted.room.clone()))
                .collect()
        };
        for (id, room) in due {
            tracing::info!(order = %id, %room, "a room is woken for an order");
            self.waking.wake_room(&room).await;
            let mut book = self.book();
            if let Some(held) = book.orders.iter_mut().find(|held| held.order.id == id) {
                held.woken = true;
            }
            if let Err(error) = self.keep(&book) {
                tracing::warn!(%error, "that a room was woken could not be noted");
            }
        }
    }
}

fn held(order: Order, from_elsewhere: bool, assessment: Option<Assessment>) -> Held {
    let early = order.wanted.by.checked_sub(COMING_UP + COMING_UP).ok();
    let wake_at = assessment.as_ref().and_then(|assessment| assessment.wake_at).or(early);
    Held { order, from_elsewhere, wake_at, woken: false, assessment, machines: BTreeMap::new() }
}

/// How long the link takes for so many bytes, as it is now; unknown where nothing was measured and nothing limits it.
pub(super) fn seconds_to_carry(link: &LinkReport, bytes: u64) -> Option<u64> {
    if bytes == 0 {
        return Some(0);
    }
    let best = link.last_day.iter().map(|bucket| bucket.bytes / 300).max().filter(|rate| *rate > 0);
    let rate = [link.limit, link.pace, best].into_iter().flatten().min().filter(|rate| *rate > 0)?;
    let closed = link
        .closed
        .as_ref()
        .and(link.until)
        .map_or(0, |until| u64::try_from(until.duration_since(link.at).as_secs()).unwrap_or(0));
    Some(closed + bytes.div_ceil(rate))
}
