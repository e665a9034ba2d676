//! What the link does and why, for people and for pictures.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::Instant;
use serde::{Deserialize, Serialize};

/// Seconds of one bar of the picture.
const BUCKET_SECONDS: i64 = 300;
/// Bars of the picture: a day.
const BUCKETS: usize = 288;
/// Seconds that the rate of now is a mean of.
const RECENT_SECONDS: u64 = 3;

/// Why the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closed {
    /// The hours say so.
    Hours,
    /// The bytes of the day are spent.
    Budget,
    /// What is spent cannot be written down, so that nothing may be.
    Ledger,
}

/// The link may not be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the link is closed{}: {}", until_when(*.until), words(*.why))]
pub struct LinkClosed {
    /// When that changes, as far as is known.
    pub until: Option<Instant>,
    /// Why.
    pub why: Closed,
}

fn until_when(until: Option<Instant>) -> String {
    until.map_or_else(String::new, |until| format!(" until {until:.0}"))
}

fn words(why: Closed) -> &'static str {
    match why {
        Closed::Hours => "these are hours in which nothing is fetched",
        Closed::Budget => "the bytes of the day are spent",
        Closed::Ledger => "the bytes of the day cannot be written down",
    }
}

/// What the link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Nobody fetches anything.
    Idle,
    /// It carries what there is to carry.
    Open,
    /// A rule limits the rate.
    Limited,
    /// It gives way to others, or holds its own queue short.
    Yielding,
    /// It carries nothing.
    Closed,
}

/// What the link does, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkReport {
    /// When this was so.
    pub at: Instant,
    /// What it does.
    pub state: LinkState,
    /// Why it is closed for content, if it is.
    pub closed: Option<LinkClosed>,
    /// Bytes a second, of the last few seconds.
    pub rate: u64,
    /// The most bytes a second that the hours allow; none, if there is no limit.
    pub limit: Option<u64>,
    /// The rule that says so; none for all other hours.
    pub rule: Option<String>,
    /// When another rule comes in force.
    pub until: Option<Instant>,
    /// The most bytes a second that others leave it; none, if it does not yield.
    pub pace: Option<u64>,
    /// Bytes that the day may cost.
    pub budget: Option<u64>,
    /// Of those, the bytes that only metadata and waiting workstations may use.
    pub reserve: u64,
    /// Bytes that count as spent today.
    pub spent: u64,
    /// When the next day's budget begins.
    pub next_day: Instant,
    /// How long packets wait behind others, in milliseconds.
    pub queueing_delay_ms: Option<f64>,
    /// How long a round trip takes when nothing waits, in milliseconds.
    pub base_delay_ms: Option<f64>,
    /// Bytes by what they were for, since this process began.
    pub by_priority: BTreeMap<String, u64>,
    /// The last 24 hours, in order; five minutes without a byte are left out.
    pub last_day: Vec<Bucket>,
}

/// Five minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When they began.
    pub from: Instant,
    /// Bytes that came and went.
    pub bytes: u64,
}

/// What the link carried, when.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    buckets: VecDeque<(i64, u64)>,
    /// By second since the beginning.
    recent: VecDeque<(u64, u64)>,
}

impl History {
    pub(crate) fn add(&mut self, bytes: u64, wall: Instant, now: Duration) {
        let slot = wall.as_second().div_euclid(BUCKET_SECONDS);
        match self.buckets.iter_mut().rev().find(|(known, _)| *known == slot) {
            Some((_, sum)) => *sum += bytes,
            None => self.buckets.push_back((slot, bytes)),
        }
        while self.buckets.len() > BUCKETS {
            self.buckets.pop_front();
        }
        match self.recent.back_mut() {
            Some((second, sum)) if *second == now.as_secs() => *sum += bytes,
            _ => self.recent.push_back((now.as_secs(), bytes)),
        }
        while self.recent.len() > 8 {
            self.recent.pop_front();
        }
    }

    /// Bytes a second, of the last few whole seconds.
    pub(crate) fn rate(&self, now: Duration) -> u64 {
        let second = now.as_secs();
        let whole = self.recent.iter().filter(|(at, _)| *at < second && *at + RECENT_SECONDS >= second);
        whole.map(|(_, bytes)| bytes).sum::<u64>() / RECENT_SECONDS
    }

    pub(crate) fn last_day(&self, wall: Instant) -> Vec<Bucket> {
        let day_ago = wall.checked_sub(SignedDuration::from_hours(24)).unwrap_or(Instant::MIN);
        let mut buckets: Vec<Bucket> = self
            .buckets
            .iter()
            .filter_map(|(slot, bytes)| {
                let from = Instant::from_second(slot * BUCKET_SECONDS).ok()?;
                (day_ago < from && from <= wall).then_some(Bucket { from, bytes: *bytes })
            })
            .collect();
        buckets.sort_unstable_by_key(|bucket| bucket.from);
        buckets
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}
