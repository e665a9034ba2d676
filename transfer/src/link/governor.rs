//! Who may have how many bytes, now: the rules, the budget, the pace and the controller together, without waiting.
//!
//! Everything is told it: which class asks, how many bytes, how long since the beginning, and now and then what time it is.
//! In between, the time of day goes on with the monotonic clock.
//!
//! Invariants: nobody is served before somebody whose class comes first; at a time when the hours say 0, nobody is; content
//! leaves the reserve of the day's budget to metadata and to waiting workstations; probes wait for nobody, and count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::Instant;

use super::budget::{Budget, Ledger};
use super::controller::Controller;
use super::limits::{InForce, Limits, Rate};
use super::pace::{Pace, piece};
use super::priority::Class;
use super::report::{Closed, History, LinkClosed, LinkReport, LinkState, milliseconds};

/// The least and the most that stands in the ledger ahead of what is spent; a day's budget is some hundreds of them.
const SMALLEST_BLOCK: u64 = 64 << 10;
const LARGEST_BLOCK: u64 = 4 << 20;
const BLOCKS_A_DAY: u64 = 256;
/// A request that is worth sending needs so many bytes at least.
const LEAST: u64 = 1460;
/// After the ledger could not be written, nobody tries again for so long.
const LEDGER_PAUSE: Duration = Duration::from_secs(5);
/// Whoever has received nothing for so long is not fetching.
const IDLE: Duration = Duration::from_secs(3);
/// A connection that has received nothing for so long asks for no share.
const ACTIVE: Duration = Duration::from_millis(500);
/// While it yields, bytes are let through a little faster than the controller says, and the window says the rest: whoever reads
/// slowly lets the kernel's buffer fill, and it opens the window again in lumps of several packets.
const OVER_PACE: (u64, u64) = (5, 4);
/// Rules are looked up again at least so often.
const LOOK_UP_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What a server may send unasked where only the bytes of the day are limited: what can be lost when they are spent.
const BUDGET_WINDOW: Option<u64> = Some(512 << 10);
/// Of what a budget still has, the window of one connection is at most one part in so many.
const WINDOWS_OF_A_BUDGET: u64 = 32;
/// How long a round trip is taken for while nobody has measured it.
const ROUND_TRIP: Duration = Duration::from_millis(60);

/// The answer to who asks for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They may come, and are counted.
    Granted,
    /// Others are first, or the ledger is being written: ask again when something has changed.
    WaitTurn,
    /// Ask again then.
    WaitUntil(Duration),
    /// Not today, or not at this hour.
    Closed(LinkClosed),
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) class: Class,
    number: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Governor {
    limits: Limits,
    /// What is in force, and from when on that was worked out.
    in_force: (Instant, InForce),
    /// What time it was, so long after the beginning.
    clock: (Instant, Duration),
    budget: Budget,
    /// Whether there is a ledger that must be written first.
    has_ledger: bool,
    writing: bool,
    wrote_some: bool,
    unwritable: Option<Duration>,
    pace: Pace,
    line: BTreeSet<Place>,
    next_number: u64,
    controller: Option<Controller>,
    history: History,
    by_class: BTreeMap<Class, u64>,
    granted: Option<Duration>,
    /// Connections that have received something, and when.
    active: BTreeMap<u64, Duration>,
    /// What each connection may have received and nobody has taken yet: it is not for others to spend.
    held_back: BTreeMap<u64, u64>,
}

/// What a rate carries in some time.
fn carried(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

impl Governor {
    /// Begins at `wall`. Without a ledger, nothing is remembered.
    pub(crate) fn new(limits: Limits, ledger: Option<Ledger>, wall: Instant) -> Self {
        let today = limits.day(wall);
        Self {
            in_force: (wall, limits.in_force(wall)),
            clock: (wall, Duration::ZERO),
            has_ledger: ledger.is_some(),
            budget: Budget::open(ledger.unwrap_or_default(), today),
            writing: false,
            wrote_some: false,
            unwritable: None,
            pace: Pace::default(),
            line: BTreeSet::new(),
            next_number: 0,
            controller: limits.yielding.map(Controller::new),
            history: History::default(),
            by_class: BTreeMap::new(),
            granted: None,
            active: BTreeMap::new(),
            held_back: BTreeMap::new(),
            limits,
        }
    }

    /// What time it is, so long after the beginning.
    pub(crate) fn wall(&self, now: Duration) -> Instant {
        let since = SignedDuration::try_from(now.saturating_sub(self.clock.1)).unwrap_or_default();
        self.clock.0.checked_add(since).unwrap_or(self.clock.0)
    }

    /// Sets the clock: the monotonic one knows nothing of suspends, nor of clocks that are set.
    pub(crate) fn set_clock(&mut self, wall: Instant, now: Duration) {
        self.clock = (wall, now);
        self.look_up(now);
    }

    /// Other limits, from now on.
    pub(crate) fn set_limits(&mut self, limits: Limits, now: Duration) {
        if self.limits.yielding != limits.yielding {
            self.controller = limits.yielding.map(Controller::new);
        }
        self.limits = limits;
        let wall = self.wall(now);
        self.in_force = (wall, self.limits.in_force(wall));
        self.look_up(now);
        self.pace.change(self.rate(now), self.is_yielding(), now);
    }

    /// Works out which rule is in force, if that can have changed, and which day it is.
    fn look_up(&mut self, now: Duration) {
        let wall = self.wall(now);
        self.budget.turn(self.limits.day(wall));
        let (since, InForce { until, .. }) = self.in_force;
        let longest = since.checked_add(LOOK_UP_EVERY).unwrap_or(Instant::MAX);
        if wall < since || wall >= until.unwrap_or(Instant::MAX).min(longest) {
            let before = self.in_force.1.rate;
            self.in_force = (wall, self.limits.in_force(wall));
            if before != self.in_force.1.rate {
                self.pace.change(self.rate(now), self.is_yielding(), now);
            }
        }
    }

    /// The most bytes a second, by the rules and, with some room for the window to decide, by the controller.
    pub(crate) fn rate(&self, now: Duration) -> Option<u64> {
        let rule = self.in_force.1.rate.limit();
        let pace = self.controller.as_ref().map(|controller| controller.pace(now));
        let pace = pace.map(|pace| pace / OVER_PACE.1 * OVER_PACE.0);
        [rule, pace].into_iter().flatten().min()
    }

    /// How many bytes a server may send that a connection has not taken yet; none, if the kernel may do as it likes. `active`
    /// says whether it has received anything lately.
    ///
    /// As many as the rate carries in a round trip, and while it yields, in a queue as long as the target.
    pub(crate) fn window(&mut self, connection: u64, active: bool, now: Duration) -> Option<u64> {
        if active {
            self.active.insert(connection, now);
        }
        self.active.retain(|_, last| now.saturating_sub(*last) < ACTIVE);
        let shares = (self.active.len() as u64).max(1);
        let rule = self.in_force.1.rate.limit();
        let wanted = match (&self.controller, self.limits.yielding) {
            (Some(controller), Some(target)) => {
                let pace = controller.pace(now);
                let round_trip = controller.base_delay().unwrap_or(ROUND_TRIP);
                carried(rule.map_or(pace, |rule| rule.min(pace)), round_trip + target)
            }
            _ => match rule {
                Some(rule) => carried(rule, ROUND_TRIP * 4),
                None => BUDGET_WINDOW.filter(|_| self.limits.daily_budget.is_some())?,
            },
        };
        let wanted = wanted / shares;
        // Towards the end of a budget, less than what it still has.
        Some(self.room(Class::Metadata).map_or(wanted, |room| wanted.min(room / WINDOWS_OF_A_BUDGET)))
    }

    /// The longest piece that `class` should ask for at once: no more than the day still has, so that its last bytes are
    /// used, and not asked for in vain again and again.
    pub(crate) fn piece(&self, class: Class, now: Duration) -> u64 {
        let room = self.room(class).unwrap_or(u64::MAX);
        piece(self.rate(now), self.is_yielding()).min(room.max(LEAST))
    }

    /// True when it should be measured how long others wait.
    pub(crate) fn is_yielding(&self) -> bool {
        self.controller.is_some()
    }

    /// True while somebody is fetching.
    pub(crate) fn is_busy(&self, now: Duration) -> bool {
        self.granted.is_some_and(|last| now.saturating_sub(last) < IDLE) || !self.line.is_empty()
    }

    /// A probe's round trip; none if it had no end.
    pub(crate) fn probed(&mut self, rtt: Option<Duration>, now: Duration) {
        let yielding = self.is_yielding();
        if let Some(controller) = &mut self.controller {
            match rtt {
                Some(rtt) => controller.sample(rtt, now),
                None => controller.silence(now),
            };
            let rate = self.rate(now);
            self.pace.change(rate, yielding, now);
        }
    }

    /// Stands in the line.
    pub(crate) fn join(&mut self, class: Class) -> Place {
        let place = Place { class, number: self.next_number };
        self.next_number += 1;
        if class != Class::Probe {
            self.line.insert(place);
        }
        place
    }

    /// Leaves the line.
    pub(crate) fn leave(&mut self, place: Place) {
        self.line.remove(&place);
    }

    /// Why `class` may have nothing now, if that is so.
    pub(crate) fn closed(&mut self, class: Class, bytes: u64, now: Duration) -> Option<LinkClosed> {
        self.look_up(now);
        let InForce { rate, until, .. } = self.in_force.1;
        if rate == Rate::Closed {
            return Some(LinkClosed { until, why: Closed::Hours });
        }
        if self.room(class).is_some_and(|room| bytes.max(LEAST) > room) {
            return Some(self.spent_until_the_next_day(now));
        }
        let unwritable = self.unwritable.is_some_and(|at| now.saturating_sub(at) < LEDGER_PAUSE);
        (unwritable && self.limits.daily_budget.is_some() && bytes > self.budget.ahead())
            .then_some(LinkClosed { until: None, why: Closed::Ledger })
    }

    fn spent_until_the_next_day(&self, now: Duration) -> LinkClosed {
        LinkClosed { until: Some(self.limits.next_day(self.wall(now))), why: Closed::Budget }
    }

    /// Bytes that `class` may still have today; none, if there is no budget.
    fn room(&self, class: Class) -> Option<u64> {
        let budget = self.limits.daily_budget?;
        let kept = if class.may_use_reserve() { 0 } else { self.limits.reserve() };
        let held_back = self.held_back.values().sum();
        Some(budget.saturating_sub(kept).saturating_sub(self.budget.used()).saturating_sub(held_back))
    }

    /// Keeps so many bytes of the day for what a connection's buffer may hold when it ends: they will have crossed the link, and
    /// the budget is hard.
    pub(crate) fn hold_back(
        &mut self,
        connection: u64,
        class: Class,
        bytes: u64,
        now: Duration,
    ) -> Result<(), LinkClosed> {
        if self.limits.daily_budget.is_none() {
            return Ok(());
        }
        let before = self.held_back.remove(&connection).unwrap_or(0);
        let bytes = bytes.max(before);
        if self.room(class).is_some_and(|room| bytes.saturating_add(LEAST) > room) {
            if before > 0 {
                self.held_back.insert(connection, before);
            }
            return Err(self.spent_until_the_next_day(now));
        }
        self.held_back.insert(connection, bytes);
        Ok(())
    }

    /// What is measured from now on is the way to another server: what another way takes says nothing of it.
    pub(crate) fn another_way(&mut self) {
        if let Some(controller) = &mut self.controller {
            controller.forget_delays();
        }
    }

    /// The connection has ended.
    pub(crate) fn let_go(&mut self, connection: u64) {
        self.held_back.remove(&connection);
    }

    /// Asks for bytes. Whoever was granted them has left the line.
    pub(crate) fn ask(&mut self, place: Place, bytes: u64, now: Duration) -> Answer {
        if let Some(closed) = self.closed(place.class, bytes, now) {
            return Answer::Closed(closed);
        }
        if place.class != Class::Probe {
            if self.line.first() != Some(&place) {
                return Answer::WaitTurn;
            }
            if let Some(at) = self.pace.wait(now) {
                return Answer::WaitUntil(at);
            }
        }
        if bytes > self.budget.ahead() && !self.may_spend_unwritten() {
            return Answer::WaitTurn;
        }
        if bytes > self.budget.ahead() {
            let ledger = self.budget.ledger(bytes.max(LARGEST_BLOCK));
            self.budget.wrote(&ledger);
        }
        let spent = self.budget.spend(bytes);
        debug_assert!(spent, "a block covers it");
        self.leave(place);
        self.count(place.class, bytes, now);
        Answer::Granted
    }

    /// Bytes came that nobody had asked for, or that nobody took any more. They count, whatever is left of the day.
    pub(crate) fn came_unasked(&mut self, class: Class, bytes: u64, now: Duration) {
        self.look_up(now);
        self.budget.spend_anyway(bytes);
        self.count(class, bytes, now);
    }

    fn count(&mut self, class: Class, bytes: u64, now: Duration) {
        let wall = self.wall(now);
        self.history.add(bytes, wall, now);
        *self.by_class.entry(class).or_default() += bytes;
        if class == Class::Probe {
            return;
        }
        self.granted = Some(now);
        if let Some(controller) = &mut self.controller {
            controller.received(bytes, now);
        }
        self.pace.take(bytes, self.rate(now), now);
    }

    /// Without a ledger, or without a budget while the ledger cannot be written, bytes are counted in memory alone.
    fn may_spend_unwritten(&self) -> bool {
        !self.has_ledger || (self.unwritable.is_some() && self.limits.daily_budget.is_none())
    }

    /// The ledger that should be written now, if one should: before what stands in it ahead is used up. Whoever gets it must
    /// say how that went.
    pub(crate) fn begin_writing(&mut self, needed: u64, now: Duration) -> Option<Ledger> {
        let paused = self.unwritable.is_some_and(|at| now.saturating_sub(at) < LEDGER_PAUSE);
        if self.writing || paused || !self.has_ledger {
            return None;
        }
        let block = self
            .limits
            .daily_budget
            .map_or(LARGEST_BLOCK, |budget| (budget / BLOCKS_A_DAY).clamp(SMALLEST_BLOCK, LARGEST_BLOCK));
        let room = self.room(Class::Waiting).unwrap_or(u64::MAX);
        let (ahead, wanted) = (self.budget.ahead(), block.max(needed).min(room));
        if (ahead >= needed && ahead >= block / 2) || wanted <= ahead {
            return None;
        }
        self.writing = true;
        Some(self.budget.ledger(wanted))
    }

    /// The ledger was written, or could not be.
    pub(crate) fn wrote(&mut self, ledger: Option<&Ledger>, now: Duration) {
        self.writing = false;
        self.unwritable = ledger.is_none().then_some(now);
        if let Some(ledger) = ledger {
            self.wrote_some = true;
            self.budget.wrote(ledger);
        }
    }

    /// The ledger at the end, nothing ahead of what was used; none from whoever wrote none, since it may be another's by now.
    pub(crate) fn last_ledger(&self) -> Option<Ledger> {
        self.wrote_some.then(|| self.budget.ledger(0))
    }

    /// What it does, and why.
    pub(crate) fn report(&mut self, now: Duration) -> LinkReport {
        let content = self.limits.daily_budget.map_or(0, |_| LEAST);
        let closed = self.closed(Class::Content(super::Priority::Required), content, now);
        let InForce { rate, rule, until } = self.in_force.1;
        let wall = self.wall(now);
        let controller = self.controller.as_ref();
        let pace = controller.map(|controller| controller.pace(now));
        let limit = rate.limit();
        let state = match () {
            () if closed.is_some() => LinkState::Closed,
            () if !self.is_busy(now) => LinkState::Idle,
            () if pace.is_some_and(|pace| limit.is_none_or(|limit| pace < limit))
                && controller.is_some_and(|controller| controller.is_yielding(now)) =>
            {
                LinkState::Yielding
            }
            () if limit.is_some() => LinkState::Limited,
            () => LinkState::Open,
        };
        LinkReport {
            at: wall,
            state,
            closed,
            rate: self.history.rate(now),
            limit,
            rule: rule.map(|rule| self.limits.rules[rule].to_string()),
            until,
            pace,
            budget: self.limits.daily_budget,
            reserve: self.limits.reserve(),
            spent: self.budget.used(),
            next_day: self.limits.next_day(wall),
            queueing_delay_ms: controller.and_then(Controller::queueing_delay).map(milliseconds),
            base_delay_ms: controller.and_then(Controller::base_delay).map(milliseconds),
            by_priority: self.by_class.iter().map(|(class, bytes)| (class.to_string(), *bytes)).collect(),
            last_day: self.history.last_day(wall),
        }
    }
}

#[cfg(test)]
#[path = "governor_tests.rs"]
mod tests;
