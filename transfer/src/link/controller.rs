//! How fast one may fetch without making others wait: LEDBAT's idea (RFC 6817), applied by the receiver to its own rate.
//!
//! The queueing delay is what a round trip takes beyond the shortest one of the last ten minutes (RFC 6817, 3.4.2: a base
//! history of minutes). Others' packets wait exactly that long behind ours. Below a target of a few milliseconds the rate
//! grows, above it shrinks; far above it, it is cut at once.
//!
//! ```text
//! rate'  ∝ (target − queue)/target                     slowly: what the link leaves us
//! pace   = rate × (1 + a little × (target − queue)/target)   at once: drains what stands in the queue
//! ```
//!
//! The governor turns the pace into a window as well (`Governor::window`): what a pace carries in the shortest round trip and a
//! queue as long as the target, which no queue of ours can outgrow.
//!
//! A queue integrates whatever is too much of the rate; without the second line, which damps, the two swing for ever.
//! RFC 6817 has a target of at most 100 ms, and its window is bound by round trips; we have a rate, and a few milliseconds.
//!
//! - *Beginning*: from a low rate, doubling each half second until a queue shows.
//! - *Others of our kind*, and we ourselves, must not take a queue that always stands for the path: every half minute we
//!   hold back for a moment and look (as LEDBAT++ does).
//! - *A server that thinks*, a scheduler that is late: these only ever add. The least of three round trips counts.
//! - *A path that has become longer*: minutes leave the history after ten.
//! - *No answer* counts as a queue that is too long. The rate never falls below a floor, so that nothing starves for ever.

use std::collections::VecDeque;
use std::time::Duration;

/// Bytes a second at the beginning, and after a pause.
const START: f64 = 128.0 * 1024.0;
/// Bytes a second at the very least.
const FLOOR: f64 = 64.0 * 1024.0;
/// Bytes a second that no link of a college has.
const CEILING: f64 = 4.0e9;
/// Minutes of base history.
const BASE_SLOTS: usize = 10;
const BASE_SLOT: Duration = Duration::from_mins(1);
/// The least of so many round trips counts.
const FILTER: usize = 3;
/// The rate doubles in this time at the beginning.
const DOUBLING: f64 = 0.5;
/// How fast the rate grows while there is no queue, as a share of it a second.
const GROWTH: f64 = 0.10;
/// The same once there was none for [`PATIENCE`]: somebody has left.
const FAST_GROWTH: f64 = 0.5;
const PATIENCE: Duration = Duration::from_millis(1500);
/// How much of the pace answers the queue at once.
const DAMPING: f64 = 0.04;
/// A queue beyond twice the target is drained as if it had to be gone within so many seconds, for which at least this
/// share of the pace remains.
const DRAIN: f64 = 0.2;
const LEAST_SHARE: f64 = 0.3;
/// What remains after a cut, of the rate or of what came lately if that is less.
const CUT: f64 = 0.8;
/// A queue of so many targets is cut.
const CUT_AT: f64 = 3.0;
/// Time between two cuts: the first must have had its effect.
const CUT_EVERY: Duration = Duration::from_millis(300);
/// How often, and how long, one holds back to see the path without a queue of one's own.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);
/// What remains of the pace meanwhile.
const LOOKING: f64 = 0.6;
/// After a pause of so long one begins anew.
const PAUSE: Duration = Duration::from_secs(5);
/// The rate grows only while so much of it is used.
const USED: f64 = 0.7;

/// Says how fast one may fetch. Moments are told as time since some beginning.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    target: f64,
    rate: f64,
    /// The shortest round trip of each minute, with the minute's beginning.
    base: VecDeque<(Duration, Duration)>,
    recent: VecDeque<Duration>,
    queue: Duration,
    beginning: bool,
    sampled: Option<Duration>,
    received: Option<Duration>,
    cut: Option<Duration>,
    looked: Duration,
    /// When the queue was last near its target.
    queued: Duration,
    /// Bytes since the last sample, and the rate they came at, smoothed.
    bytes: u64,
    throughput: f64,
}

impl Controller {
    /// With a target.
    pub(crate) fn new(target: Duration) -> Self {
        Self {
            target: target.as_secs_f64().max(0.001),
            rate: START,
            base: VecDeque::new(),
            recent: VecDeque::new(),
            queue: Duration::ZERO,
            beginning: true,
            sampled: None,
            received: None,
            cut: None,
            looked: Duration::ZERO,
            queued: Duration::ZERO,
            bytes: 0,
            throughput: 0.0,
        }
    }

    /// Bytes came.
    pub(crate) fn received(&mut self, bytes: u64, now: Duration) {
        if self.received.is_none_or(|last| now.saturating_sub(last) > PAUSE) {
            self.begin(now);
        }
        self.received = Some(now);
        self.bytes += bytes;
    }

    fn begin(&mut self, now: Duration) {
        self.rate = START;
        self.beginning = true;
        self.recent.clear();
        (self.looked, self.queued, self.sampled) = (now, now, None);
        (self.bytes, self.throughput) = (0, 0.0);
    }

    /// A round trip took `rtt`; returns how fast one may fetch now, in bytes a second.
    pub(crate) fn sample(&mut self, rtt: Duration, now: Duration) -> u64 {
        self.remember(rtt, now);
        self.recent.push_back(rtt);
        while self.recent.len() > FILTER {
            self.recent.pop_front();
        }
        let least = self.recent.iter().min().copied().unwrap_or(rtt);
        self.queue = least.saturating_sub(self.base_delay().unwrap_or(least));
        let seconds = self.since_last_sample(now);
        if seconds > 0.0 && !self.is_looking(now) {
            self.adapt(seconds, now);
        }
        if now.saturating_sub(self.looked) >= LOOK_EVERY + LOOK {
            self.looked = now;
        }
        self.pace(now)
    }

    /// Forgets how long the way takes: it is another way from now on. The rate stays.
    pub(crate) fn forget_delays(&mut self) {
        self.base.clear();
        self.recent.clear();
        self.queue = Duration::ZERO;
    }

    /// No round trip came to an end within `waited`.
    pub(crate) fn silence(&mut self, now: Duration) -> u64 {
        let _ = self.since_last_sample(now);
        if self.may_cut(now) {
            (self.rate, self.cut, self.beginning) = ((self.rate * CUT).max(FLOOR), Some(now), false);
        }
        self.pace(now)
    }

    /// How fast one may fetch now, in bytes a second.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between floor and ceiling"
    )]
    pub(crate) fn pace(&self, now: Duration) -> u64 {
        let excess = (self.queue.as_secs_f64() - 2.0 * self.target).max(0.0);
        let answer = if self.beginning { 0.0 } else { DAMPING * self.off() - excess / DRAIN };
        let share = if self.is_looking(now) { LOOKING } else { (1.0 + answer).max(LEAST_SHARE) };
        (self.rate * share).clamp(FLOOR, CEILING) as u64
    }

    /// How long packets wait in the queue.
    pub(crate) fn queueing_delay(&self) -> Option<Duration> {
        self.sampled.map(|_| self.queue)
    }

    /// How long a round trip takes without a queue.
    pub(crate) fn base_delay(&self) -> Option<Duration> {
        self.base.iter().map(|(_, rtt)| *rtt).min()
    }

    /// True while somebody else's need, or our own queue, holds the rate back.
    pub(crate) fn is_yielding(&self, now: Duration) -> bool {
        !self.beginning && now.saturating_sub(self.queued) < PATIENCE
    }

    fn remember(&mut self, rtt: Duration, now: Duration) {
        match self.base.back_mut() {
            Some((begun, least)) if now.saturating_sub(*begun) < BASE_SLOT => *least = rtt.min(*least),
            _ => self.base.push_back((now, rtt)),
        }
        while self.base.len() > BASE_SLOTS {
            self.base.pop_front();
        }
    }

    /// Seconds since the last sample; the throughput meanwhile is taken note of.
    fn since_last_sample(&mut self, now: Duration) -> f64 {
        let last = self.sampled.replace(now);
        let seconds = last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64()).min(0.25);
        if seconds > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "bytes of a quarter of a second")]
            let rate = std::mem::take(&mut self.bytes) as f64 / seconds;
            self.throughput += (rate - self.throughput) * (seconds / 0.3).min(1.0);
        }
        seconds
    }

    /// How far the queue is from its target, as a share of that: 1 with no queue, -1 with one twice as long and more.
    fn off(&self) -> f64 {
        ((self.target - self.queue.as_secs_f64()) / self.target).clamp(-1.0, 1.0)
    }

    fn is_looking(&self, now: Duration) -> bool {
        !self.beginning && now.saturating_sub(self.looked) >= LOOK_EVERY
    }

    fn may_cut(&self, now: Duration) -> bool {
        self.cut.is_none_or(|last| now.saturating_sub(last) >= CUT_EVERY)
    }

    fn adapt(&mut self, seconds: f64, now: Duration) {
        let used = self.throughput >= USED * self.rate;
        let off = self.off();
        if off < 0.7 {
            self.queued = now;
        }
        if self.beginning {
            if off < 0.5 {
                // What comes now is what the link carries, and a queue stands already.
                self.beginning = false;
                self.rate = self.rate.min(self.throughput.max(START)) * CUT;
                self.cut = Some(now);
            } else if used {
                self.rate *= (seconds / DOUBLING).exp2();
            }
        } else if self.queue.as_secs_f64() > CUT_AT * self.target && self.may_cut(now) {
            self.rate = self.rate.min(self.throughput) * CUT;
            self.cut = Some(now);
        } else if off < 0.0 || used {
            let patient = now.saturating_sub(self.queued) >= PATIENCE;
            self.rate *= 1.0 + if patient { FAST_GROWTH } else { GROWTH } * off * seconds;
        }
        self.rate = self.rate.clamp(FLOOR, CEILING);
    }
}

#[cfg(test)]
mod tests {
    //! Against a bottleneck that is a number: what stands in its queue.

    #![expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes of a small link, and milliseconds"
    )]

    use super::*;
    use crate::link::Limits;

    const LINK: f64 = 1_000_000.0;
    const BASE: f64 = 0.020;

    /// A link with a queue; a call takes its part first.
    struct World {
        controller: Controller,
        now: f64,
        queue: f64,
        base: f64,
        /// What the transfers of the last second came to.
        delays: Vec<f64>,
        carried: f64,
        random: u64,
    }

    impl World {
        fn new() -> Self {
            let controller = Controller::new(Limits::TARGET);
            Self { controller, now: 0.0, queue: 0.0, base: BASE, delays: vec![], carried: 0.0, random: 1 }
        }

        /// Lets it run for some seconds beside a call of so many bytes a second, a probe each 50 ms.
        fn run(&mut self, seconds: f64, call: f64) {
            (self.delays, self.carried) = (Vec::new(), 0.0);
            let steps = (seconds / 0.005).round() as u64;
            for step in 0..steps {
                let now = Duration::from_secs_f64(self.now);
                let ours = self.controller.pace(now) as f64;
                // What does not fit waits.
                let before = self.queue;
                self.queue = (self.queue + (ours + call - LINK) * 0.005).max(0.0);
                let carried = (before - self.queue) + (ours + call) * 0.005;
                let carried = (carried - call * 0.005).max(0.0);
                self.carried += carried;
                self.controller.received(carried as u64, now);
                self.delays.push(self.queue / LINK);
                if step % 10 == 9 {
                    self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // A scheduler that is late now and then.
                    let late =
                        if self.random >> 60 == 0 { 0.008 } else { (self.random >> 54) as f64 / 1024e3 };
                    let rtt = self.base + self.queue / LINK + late;
                    self.controller.sample(Duration::from_secs_f64(rtt), now);
                }
                self.now += 0.005;
            }
            self.carried /= seconds;
        }

        fn p95(&self) -> f64 {
            let mut delays = self.delays.clone();
            delays.sort_by(f64::total_cmp);
            delays[delays.len() * 95 / 100]
        }
    }

    #[test]
    fn alone_it_takes_the_link_and_the_queue_stays_short() {
        let mut world = World::new();
        world.run(10.0, 0.0);
        world.run(60.0, 0.0);
        assert!(world.carried > 0.95 * LINK, "{}", world.carried);
        assert!(world.p95() < 0.015, "{}", world.p95());
    }

    #[test]
    fn beside_a_call_it_takes_most_of_the_rest_and_the_call_waits_no_longer() {
        let mut world = World::new();
        world.run(10.0, 200_000.0);
        world.run(60.0, 200_000.0);
        assert!(world.carried > 0.85 * (LINK - 200_000.0), "{}", world.carried);
        assert!(world.p95() < 0.012, "{}", world.p95());
    }

    #[test]
    fn a_call_that_begins_and_ends_is_given_way_and_its_part_taken_again() {
        let mut world = World::new();
        world.run(20.0, 0.0);
        world.run(10.0, 400_000.0);
        assert!(world.p95() < 0.060, "{}", world.p95());
        world.run(10.0, 400_000.0);
        assert!(world.p95() < 0.015, "{}", world.p95());
        world.run(10.0, 0.0);
        world.run(10.0, 0.0);
        assert!(world.carried > 0.93 * LINK, "{}", world.carried);
    }

    #[test]
    fn it_begins_slowly_and_after_a_pause_again() {
        let mut controller = Controller::new(Limits::TARGET);
        assert!(controller.pace(Duration::ZERO) as f64 <= START);
        let mut world = World::new();
        world.run(20.0, 0.0);
        world.now += 6.0;
        world.controller.received(1, Duration::from_secs_f64(world.now));
        assert!(world.controller.pace(Duration::from_secs_f64(world.now)) as f64 <= START);
        controller.received(1, Duration::ZERO);
        // Nothing is used: nothing grows.
        for tick in 1..200 {
            controller.sample(Duration::from_millis(20), Duration::from_millis(50 * tick));
        }
        assert!(controller.pace(Duration::from_secs(10)) as f64 <= START);
    }

    #[test]
    fn a_path_that_becomes_longer_is_the_path_after_ten_minutes() {
        let mut world = World::new();
        world.run(30.0, 0.0);
        world.base = 0.060;
        world.run(30.0, 0.0);
        assert!(world.carried < 0.2 * LINK, "it looks like a queue: {}", world.carried);
        assert!(world.controller.pace(Duration::from_secs_f64(world.now)) as f64 >= FLOOR);
        world.run(600.0, 0.0);
        world.run(20.0, 0.0);
        assert!(world.carried > 0.9 * LINK, "{}", world.carried);
    }

    #[test]
    fn no_answer_is_a_long_queue_and_never_less_than_the_floor() {
        let mut world = World::new();
        world.run(20.0, 0.0);
        for tick in 0..100 {
            world.controller.silence(Duration::from_secs_f64(world.now) + Duration::from_millis(500) * tick);
        }
        let pace = world.controller.pace(Duration::from_secs_f64(world.now + 50.0)) as f64;
        assert!((pace - FLOOR).abs() < 1.0, "{pace}");
    }
}
