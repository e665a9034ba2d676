//! What the college allows: which rate is in force at a moment, until when, and how much a day may cost.
//!
//! The first rule whose hours a moment lies in is in force, otherwise the rate for all other hours. A rule's hours begin on
//! its days, and go on past midnight if they end before they begin. On holidays, when there are no lessons, rules that do
//! not say `on_holidays` do not begin. Everything is in the college's civil time: on a day of 23 or 25 hours a rule that
//! lasts until 17:30 lasts until 17:30, and a day's budget lasts from one midnight to the next.

use std::fmt;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use mirabelle_manifests::{Between, Clock, Day, Holiday, Instant};
use serde::{Deserialize, Serialize};

/// How many days ahead one looks for a change: every rule comes once a week.
const HORIZON_DAYS: i64 = 9;
/// How long a day is taken for where the calendar ends.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The share of a day's budget that only metadata and waiting workstations may use, unless somebody says otherwise.
const RESERVE_PER_CENT: u8 = 5;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// As fast as it goes.
    Unlimited,
    /// At most so many bytes a second; none at all if that is 0.
    BytesPerSecond(u64),
    /// Not at all.
    Closed,
}

impl Rate {
    /// Bytes a second, if there is a limit.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::BytesPerSecond(rate) => Some(rate),
            Self::Closed => Some(0),
        }
    }
}

/// A rate for some hours of some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// The days it begins on.
    pub days: Vec<Day>,
    /// From.
    pub from: Clock,
    /// Until, exclusive; of the next day if it is not later than `from`.
    pub to: Clock,
    /// How fast.
    pub rate: Rate,
    /// Whether it begins on holidays too.
    pub on_holidays: bool,
}

impl fmt::Display for RateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for day in &self.days {
            write!(f, "{day} ")?;
        }
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// What the college allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The college's time zone.
    pub zone: TimeZone,
    /// The first whose hours it is counts.
    pub rules: Vec<RateRule>,
    /// The rate in all other hours.
    pub otherwise: Rate,
    /// Days without lessons.
    pub holidays: Vec<Holiday>,
    /// Bytes that a civil day may cost, everything counted.
    pub daily_budget: Option<u64>,
    /// The share of it, in hundredths, that only metadata and waiting workstations may use.
    pub reserve_per_cent: u8,
    /// The queueing delay at which transfers stop to go faster; none, if they do not yield.
    pub yielding: Option<Duration>,
}

impl Default for Limits {
    /// No limit at all.
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
            rules: Vec::new(),
            otherwise: Rate::Unlimited,
            holidays: Vec::new(),
            daily_budget: None,
            reserve_per_cent: RESERVE_PER_CENT,
            yielding: None,
        }
    }
}

/// What is in force at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) rate: Rate,
    /// The rule that says so, by its place; none if none does.
    pub(crate) rule: Option<usize>,
    /// When something else comes in force; none within the days that are looked at.
    pub(crate) until: Option<Instant>,
}

impl Limits {
    /// The queueing delay at which transfers stop to go faster, unless somebody says otherwise: measured, by `bench yield`.
    pub const TARGET: Duration = Duration::from_millis(5);

    /// What is in force at `now`, and until when.
    pub(crate) fn in_force(&self, now: Instant) -> InForce {
        let hours = self.hours(now);
        let rule_at = |at: Instant| {
            let begun = hours.iter().filter(|(_, time)| time.from <= at && at < time.to);
            begun.map(|(rule, _)| *rule).min()
        };
        let rate = |rule: Option<usize>| rule.map_or(self.otherwise, |rule| self.rules[rule].rate);
        let rule = rule_at(now);
        let mut changes: Vec<Instant> =
            hours.iter().flat_map(|(_, time)| [time.from, time.to]).filter(|at| *at > now).collect();
        changes.sort_unstable();
        let until = changes.into_iter().find(|at| rule_at(*at) != rule);
        let rate = match rate(rule) {
            Rate::BytesPerSecond(0) => Rate::Closed,
            rate => rate,
        };
        InForce { rate, rule, until }
    }

    /// The hours of each rule, from those that began the day before `now` on.
    fn hours(&self, now: Instant) -> Vec<(usize, Between)> {
        let today = self.day(now);
        let days = (-1..HORIZON_DAYS).filter_map(|days| today.checked_add(days.days()).ok());
        let mut hours = Vec::new();
        for date in days {
            let (day, holiday) = (Day::of(date.weekday()), self.is_holiday(date));
            for (number, rule) in self.rules.iter().enumerate() {
                if rule.days.contains(&day)
                    && (rule.on_holidays || !holiday)
                    && let Some(time) = Between::on(date, rule.from, rule.to, &self.zone)
                {
                    hours.push((number, time));
                }
            }
        }
        hours
    }

    fn is_holiday(&self, date: Date) -> bool {
        self.holidays.iter().any(|holiday| holiday.contains(date))
    }

    /// The civil day that `now` lies in.
    pub(crate) fn day(&self, now: Instant) -> Date {
        now.to_zoned_datetime(self.zone.clone()).date()
    }

    /// When the civil day after that of `now` begins.
    pub(crate) fn next_day(&self, now: Instant) -> Instant {
        let today = now.to_zoned_datetime(self.zone.clone());
        let midnight = today.tomorrow().and_then(|tomorrow| tomorrow.start_of_day());
        midnight.map_or_else(|_| now.saturating_add(DAY).unwrap_or(Instant::MAX), |zoned| zoned.timestamp())
    }

    /// Bytes of the budget that only metadata and waiting workstations may use.
    pub(crate) fn reserve(&self) -> u64 {
        let share = u128::from(self.reserve_per_cent.min(100));
        let reserve = u128::from(self.daily_budget.unwrap_or(0)) * share / 100;
        u64::try_from(reserve).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(days: &[Day], from: &str, to: &str, rate: u64) -> RateRule {
        RateRule {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            rate: Rate::BytesPerSecond(rate),
            on_holidays: false,
        }
    }

    fn paris(rules: Vec<RateRule>) -> Limits {
        Limits { zone: TimeZone::get("Europe/Paris").unwrap(), rules, ..Limits::default() }
    }

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_rule_whose_hours_it_is_counts_and_says_until_when() {
        let school = [Day::Mon, Day::Tue, Day::Thu, Day::Fri];
        let limits = paris(vec![rule(&Day::ALL, "12:00", "13:00", 3), rule(&school, "08:00", "17:30", 1)]);
        for (now, expected, until) in [
            // A Thursday in winter: Paris is an hour ahead.
            ("2026-11-26T06:59:59Z", Rate::Unlimited, Some("2026-11-26T07:00:00Z")),
            ("2026-11-26T07:00:00Z", Rate::BytesPerSecond(1), Some("2026-11-26T11:00:00Z")),
            ("2026-11-26T11:30:00Z", Rate::BytesPerSecond(3), Some("2026-11-26T12:00:00Z")),
            ("2026-11-26T12:00:00Z", Rate::BytesPerSecond(1), Some("2026-11-26T16:30:00Z")),
            ("2026-11-26T16:30:00Z", Rate::Unlimited, Some("2026-11-27T07:00:00Z")),
        ] {
            let in_force = limits.in_force(at(now));
            assert_eq!((in_force.rate, in_force.until), (expected, until.map(at)), "{now}");
        }
    }

    #[test]
    fn rules_go_on_past_midnight_and_rest_on_holidays() {
        let mut limits = paris(vec![rule(&[Day::Fri], "22:00", "05:00", 1)]);
        // The night from Friday the 27th to Saturday.
        for (now, limited) in
            [("2026-11-27T20:59:00Z", false), ("2026-11-28T03:59:00Z", true), ("2026-11-28T04:00:00Z", false)]
        {
            assert_eq!(limits.in_force(at(now)).rule.is_some(), limited, "{now}");
        }
        let date = |text: &str| text.parse::<Date>().unwrap();
        let (from, to) = (date("2026-11-27"), date("2026-11-27"));
        limits.holidays = vec![Holiday { from, to, name: "a bridge".to_owned() }];
        assert_eq!(limits.in_force(at("2026-11-28T03:59:00Z")).rule, None);
        limits.rules[0].on_holidays = true;
        assert_eq!(limits.in_force(at("2026-11-28T03:59:00Z")).rule, Some(0));
    }

    #[test]
    fn on_the_days_of_summer_time_civil_hours_count() {
        let limits = paris(vec![rule(&Day::ALL, "01:00", "04:00", 1)]);
        // 29 March 2026: 02:00 becomes 03:00. 25 October: 03:00 becomes 02:00.
        for (from, to) in [
            ("2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"),
            ("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"),
        ] {
            let second = SignedDuration::from_secs(1);
            assert_eq!(limits.in_force(at(from) - second).rule, None);
            assert_eq!(limits.in_force(at(from)).until, Some(at(to)));
            assert_eq!(limits.in_force(at(to) - second).rule, Some(0));
        }
        assert_eq!(limits.next_day(at("2026-03-28T23:00:00Z")), at("2026-03-29T22:00:00Z"), "23 hours");
        assert_eq!(limits.next_day(at("2026-10-24T22:00:00Z")), at("2026-10-25T23:00:00Z"), "25 hours");
    }

    #[test]
    fn no_rate_at_all_is_closed() {
        let limits = paris(vec![rule(&Day::ALL, "00:00", "00:00", 0)]);
        assert_eq!(limits.in_force(at("2026-11-26T12:00:00Z")).rate, Rate::Closed);
        assert_eq!(Limits { daily_budget: Some(1000), ..limits }.reserve(), 50);
    }
}
