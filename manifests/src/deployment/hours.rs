//! Hours: when a workstation may work, when a lesson has it, when it is switched off and woken.
//!
//! The deployment says them for audiences, every member by itself; for one workstation they come together in a
//! [`Timetable`], each member from the closest audience that gives it. All times are those of the college's clocks, with
//! their summer time: the rules are those that came with this program (`jiff`), and no file of the machine is read.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::audience::{Audience, Groups, Machine};
use crate::Instant;

/// How far ahead one looks for the next window, shutdown or start: past the longest holidays.
const HORIZON_DAYS: u32 = 100;
/// The most minutes that an evening may begin before the hour.
const MAX_EVENING_MINUTES: u32 = 240;
/// Minutes before the hour at which the evening begins, where the deployment does not say.
const EVENING_MINUTES: u32 = 30;
/// How long it is night, where nobody says when machines are woken and there is no lesson.
const NIGHT: SignedDuration = SignedDuration::from_hours(10);
/// Minutes without a touch after which nobody is working.
const IDLE_MINUTES: u32 = 20;

/// Hours for some workstations. What is missing is said by a wider audience, or by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Hours {
    /// Minutes before the hour of shutdown at which the evening begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evening_minutes: Option<u32>,
    /// Days without lessons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holidays: Option<Vec<Holiday>>,
    /// Minutes without a touch after which nobody is working on a machine that is still on after its hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_minutes: Option<u32>,
    /// When there are lessons: no heavy work, and nothing that a person notices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lessons: Option<Vec<Span>>,
    /// When workstations are switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Vec<Moment>>,
    /// The college's time zone, by its IANA name: `Europe/Paris`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// For whom.
    pub to: Audience,
    /// When workstations are woken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake: Option<Vec<Moment>>,
    /// When releases may be installed; always outside lessons, if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<Span>>,
}

/// Some hours of some days of the week; past midnight if it ends before it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The days it begins on.
    pub days: Vec<Day>,
    /// From.
    pub from: Clock,
    /// Until, exclusive.
    pub to: Clock,
}

/// A moment of some days of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When.
    pub at: Clock,
    /// The days.
    pub days: Vec<Day>,
}

/// Days without lessons, both included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holiday {
    /// The first.
    pub from: Date,
    /// What they are called.
    pub name: String,
    /// The last.
    pub to: Date,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the days of the week")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// Every day.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn of(weekday: Weekday) -> Self {
        Self::ALL[usize::try_from(weekday.to_monday_zero_offset()).unwrap_or(0)]
    }
}

/// A time of the day, to the minute: `17:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(Time);

/// Why a text is no time of the day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time of the day, such as 17:30")]
pub struct ClockError(String);

impl FromStr for Clock {
    type Err = ClockError;

    fn from_str(text: &str) -> Result<Self, ClockError> {
        let number = |digits: &str| match digits.len() {
            2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i8>().ok(),
            _ => None,
        };
        let read = || {
            let (hour, minute) = text.split_once(':')?;
            Time::new(number(hour)?, number(minute)?, 0, 0).ok().map(Self)
        };
        read().ok_or_else(|| ClockError(text.chars().take(16).collect()))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl Serialize for Clock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Clock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Hours {
    /// What is wrong with them, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        if let Some(name) = &self.time_zone
            && TimeZone::get(name).is_err()
        {
            return Some(format!("`{name}` is no time zone"));
        }
        if self.evening_minutes.is_some_and(|minutes| minutes > MAX_EVENING_MINUTES) {
            return Some(format!("an evening begins at most {MAX_EVENING_MINUTES} minutes before the hour"));
        }
        let spans = self.lessons.iter().chain(&self.windows).flatten();
        if let Some(span) = spans.into_iter().find(|span| span.from == span.to || span.days.is_empty()) {
            return Some(format!("{} to {} is no time, or is on no day", span.from, span.to));
        }
        let holidays = self.holidays.iter().flatten();
        if let Some(holiday) = holidays.into_iter().find(|holiday| holiday.from > holiday.to) {
            return Some(format!("`{}` ends before it begins", holiday.name));
        }
        None
    }
}

/// The hours of one workstation.
#[derive(Clone, Debug)]
pub struct Timetable {
    zone: TimeZone,
    lessons: Vec<Span>,
    windows: Option<Vec<Span>>,
    holidays: Vec<Holiday>,
    shutdown: Vec<Moment>,
    wake: Vec<Moment>,
    evening: SignedDuration,
    idle: SignedDuration,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// From.
    pub from: Instant,
    /// Until, exclusive.
    pub to: Instant,
}

/// The member of the closest audience that gives it; the widest comes first in `own`.
fn closest<'a, T>(own: &[&'a Hours], member: impl Fn(&'a Hours) -> Option<&'a T>) -> Option<&'a T> {
    own.iter().rev().find_map(|hours| member(hours))
}

impl Timetable {
    /// The hours of `machine`: each member from the closest audience that gives it, of two that are equally close from the
    /// later.
    pub fn of(hours: &[Hours], machine: &Machine, groups: &Groups) -> Self {
        let mut own: Vec<&Hours> = hours.iter().filter(|hours| hours.to.includes(machine, groups)).collect();
        // Stable: of two that are equally close, the later stays later.
        own.sort_by_key(|hours| hours.to.closeness(groups));
        let zone = closest(&own, |hours| hours.time_zone.as_ref());
        let minutes = |member: Option<&u32>, default: u32| {
            SignedDuration::from_mins(member.copied().unwrap_or(default).into())
        };
        Self {
            zone: zone.and_then(|name| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC),
            lessons: closest(&own, |hours| hours.lessons.as_ref()).cloned().unwrap_or_default(),
            windows: closest(&own, |hours| hours.windows.as_ref()).cloned(),
            holidays: closest(&own, |hours| hours.holidays.as_ref()).cloned().unwrap_or_default(),
            shutdown: closest(&own, |hours| hours.shutdown.as_ref()).cloned().unwrap_or_default(),
            wake: closest(&own, |hours| hours.wake.as_ref()).cloned().unwrap_or_default(),
            evening: minutes(closest(&own, |hours| hours.evening_minutes.as_ref()), EVENING_MINUTES),
            idle: minutes(closest(&own, |hours| hours.idle_minutes.as_ref()), IDLE_MINUTES),
        }
    }

    /// The lesson at `now`, if there is one.
    pub fn lesson(&self, now: Instant) -> Option<Between> {
        self.span_at(&self.lessons, now, |date| !self.is_holiday(date))
    }

    /// When the next lesson after `now` begins.
    pub fn next_lesson(&self, now: Instant) -> Option<Instant> {
        self.next(&self.lessons, now, |date| !self.is_holiday(date)).map(|lesson| lesson.from)
    }

    /// The window that `now` lies in, if it does: one may install until it ends, or the next lesson begins.
    pub fn window(&self, now: Instant) -> Option<Between> {
        if self.lesson(now).is_some() {
            return None;
        }
        let lesson = self.next_lesson(now);
        let window = match &self.windows {
            None => Between { from: now, to: Instant::MAX },
            Some(windows) => self.span_at(windows, now, |_| true)?,
        };
        Some(Between { to: window.to.min(lesson.unwrap_or(Instant::MAX)), ..window })
    }

    /// When one may next install: `now`, if one may already; none within the hundred days that are looked at.
    pub fn next_window(&self, now: Instant) -> Option<Instant> {
        let mut at = now;
        // Each round leaves a lesson or reaches the next window: few are needed.
        for _ in 0..HORIZON_DAYS {
            if self.window(at).is_some() {
                return Some(at);
            }
            at = match (self.lesson(at), &self.windows) {
                (Some(lesson), _) => lesson.to,
                (None, Some(windows)) => self.next(windows, at, |_| true)?.from,
                (None, None) => return Some(at),
            };
        }
        None
    }

    /// The next hour of shutdown after `now`.
    pub fn shutdown_after(&self, now: Instant) -> Option<Instant> {
        self.moments(&self.shutdown, now).find(|moment| *moment > now)
    }

    /// The last hour of shutdown, at `now` or before, within a day.
    pub fn shutdown_before(&self, now: Instant) -> Option<Instant> {
        let yesterday = now.checked_sub(SignedDuration::from_hours(24)).ok()?;
        self.moments(&self.shutdown, yesterday).take_while(|moment| *moment <= now).last()
    }

    /// The hour that the machine should have been switched off at, while it is night: until it is woken, a lesson begins, or
    /// ten hours have passed.
    pub fn night(&self, now: Instant) -> Option<Instant> {
        let hour = self.shutdown_before(now)?;
        let woken = self.wake_after(hour);
        let ends =
            [woken, self.next_lesson(hour), hour.checked_add(NIGHT).ok()].into_iter().flatten().min()?;
        (now < ends).then_some(hour)
    }

    /// When the machine is woken next, after `now`.
    pub fn wake_after(&self, now: Instant) -> Option<Instant> {
        self.moments(&self.wake, now).find(|moment| *moment > now)
    }

    /// How long before its hour an evening begins.
    pub fn evening(&self) -> SignedDuration {
        self.evening
    }

    /// How long nobody must have touched a machine that is still on after its hour.
    pub fn idle(&self) -> SignedDuration {
        self.idle
    }

    /// The college's time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    fn is_holiday(&self, date: Date) -> bool {
        self.holidays.iter().any(|holiday| (holiday.from..=holiday.to).contains(&date))
    }

    fn instant(&self, date: Date, clock: Clock) -> Option<Instant> {
        // A time that summer time skips is taken an hour later, one that comes twice the first time.
        date.to_datetime(clock.0).to_zoned_datetime(self.zone.clone()).ok().map(|zoned| zoned.timestamp())
    }

    /// The days from the one before `now` on: what began the evening before may go on past midnight.
    fn days(&self, now: Instant) -> impl Iterator<Item = Date> + use<> {
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        let first = today.yesterday().unwrap_or(today);
        (0..HORIZON_DAYS).filter_map(move |days| first.checked_add(i64::from(days).days()).ok())
    }

    /// The spans that begin on a day which `counts`, day by day.
    fn spans<'a>(
        &'a self,
        spans: &'a [Span],
        now: Instant,
        counts: impl Fn(Date) -> bool + 'a,
    ) -> impl Iterator<Item = Between> + 'a {
        self.days(now).filter(move |date| counts(*date)).flat_map(move |date| {
            let today = Day::of(date.weekday());
            spans.iter().filter(move |span| span.days.contains(&today)).filter_map(move |span| {
                let last = if span.to <= span.from { date.tomorrow().ok()? } else { date };
                Some(Between { from: self.instant(date, span.from)?, to: self.instant(last, span.to)? })
            })
        })
    }

    fn span_at(&self, spans: &[Span], now: Instant, counts: impl Fn(Date) -> bool) -> Option<Between> {
        let around = |between: &Between| between.from <= now && now < between.to;
        // Yesterday's and today's.
        let found: Vec<Between> = self
            .spans(spans, now, counts)
            .take_while(|between| between.from <= now + SignedDuration::from_hours(24))
            .filter(around)
            .collect();
        let from = found.iter().map(|between| between.from).min()?;
        let to = found.iter().map(|between| between.to).max()?;
        Some(Between { from, to })
    }

    fn next(&self, spans: &[Span], now: Instant, counts: impl Fn(Date) -> bool) -> Option<Between> {
        if spans.is_empty() {
            return None;
        }
        // The first day that has one after `now`, and of that day the earliest.
        let mut first: Option<Between> = None;
        for between in self.spans(spans, now, counts).filter(|between| between.from > now) {
            match first {
                Some(known) if between.from > known.from + SignedDuration::from_hours(24) => break,
                Some(known) if known.from <= between.from => {}
                _ => first = Some(between),
            }
        }
        first
    }

    /// The moments from the day before `now` on, in order.
    fn moments<'a>(&'a self, moments: &'a [Moment], now: Instant) -> impl Iterator<Item = Instant> + 'a {
        self.days(now).take(if moments.is_empty() { 0 } else { 16 }).flat_map(move |date| {
            let today = Day::of(date.weekday());
            let days = moments.iter().filter(move |moment| moment.days.contains(&today));
            let mut instants: Vec<Instant> =
                days.filter_map(|moment| self.instant(date, moment.at)).collect();
            instants.sort_unstable();
            instants
        })
    }
}
