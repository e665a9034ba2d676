//! The hours of one workstation: when it may work, when a lesson has it, when it is switched off and woken.
//!
//! Each member comes from the closest audience that gives it. All times are those of the college's clocks, with their
//! summer time: the rules are those that came with this program (`jiff`), and no file of the machine is read. A time that
//! summer time skips is taken an hour later, one that comes twice the first time.
//!
//! Spans of one kind that overlap or touch are one: five lessons without a break are a morning. Holidays are without the
//! lessons that would begin on them; a window or a shutdown has nothing to do with holidays.

use std::iter;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

use super::audience::{Groups, Machine};
use super::hours::{Clock, Day, Holiday, Hours, Moment, Span};
use crate::Instant;

/// How far ahead one looks for the next window: past the longest holidays.
const HORIZON_DAYS: u32 = 100;
/// How far ahead one looks for the next moment, all of which come every week.
const WEEK_DAYS: usize = 10;
/// Minutes before the hour at which the evening begins, where the deployment does not say.
const EVENING_MINUTES: u32 = 30;
/// How long it is night, where nobody says when machines are woken and there is no lesson.
const NIGHT: SignedDuration = SignedDuration::from_hours(10);
/// Minutes without a touch after which nobody is working.
const IDLE_MINUTES: u32 = 20;

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

impl Between {
    /// The hours that begin on `date` at `from` and end at `to`, the day after if that is not later. None where summer time
    /// skips all of them.
    pub fn on(date: Date, from: Clock, to: Clock, zone: &TimeZone) -> Option<Self> {
        let last = if to <= from { date.tomorrow().ok()? } else { date };
        let time = Self { from: instant(date, from, zone)?, to: instant(last, to, zone)? };
        // One whose hour summer time skips can end before it begins.
        (time.from < time.to).then_some(time)
    }
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

    /// The lesson at `now`, if there is one, with those that follow it without a break.
    pub fn lesson(&self, now: Instant) -> Option<Between> {
        self.lessons(now).take_while(|lesson| lesson.from <= now).find(|lesson| now < lesson.to)
    }

    /// When the next lesson after `now` begins.
    pub fn next_lesson(&self, now: Instant) -> Option<Instant> {
        self.lessons(now).map(|lesson| lesson.from).find(|from| *from > now)
    }

    /// The window that `now` lies in, if it does: one may install until it ends, or the next lesson begins. Where nobody
    /// gives windows, it began with the end of a lesson, or at `now`.
    pub fn window(&self, now: Instant) -> Option<Between> {
        let (mut free, mut lessons) = (None, self.lessons(now));
        let next = loop {
            match lessons.next() {
                Some(lesson) if lesson.to <= now => free = Some(lesson.to),
                Some(lesson) if lesson.from <= now => return None,
                next => break next.map_or(Instant::MAX, |lesson| lesson.from),
            }
        };
        let window = match &self.windows {
            None => Between { from: free.unwrap_or(now), to: Instant::MAX },
            Some(windows) => self
                .times(windows, now, |_| true)
                .take_while(|window| window.from <= now)
                .find(|window| now < window.to)?,
        };
        Some(Between { from: window.from.max(free.unwrap_or(Instant::MIN)), to: window.to.min(next) })
    }

    /// When one may next install: `now`, if one may already; none within the hundred days that are looked at.
    pub fn next_window(&self, now: Instant) -> Option<Instant> {
        let mut lessons = self.lessons(now).peekable();
        let mut outside_lessons = |window: Between| {
            let mut at = window.from.max(now);
            while lessons.next_if(|lesson| lesson.to <= at).is_some() {}
            if let Some(lesson) = lessons.peek().filter(|lesson| lesson.from <= at) {
                at = lesson.to;
            }
            (at < window.to).then_some(at)
        };
        let at = match &self.windows {
            None => outside_lessons(Between { from: now, to: Instant::MAX }),
            Some(windows) => self.times(windows, now, |_| true).find_map(outside_lessons),
        };
        // A lesson that only the end of what is looked at ended goes on.
        at.filter(|at| self.window(*at).is_some())
    }

    /// The next hour of shutdown after `now`.
    pub fn shutdown_after(&self, now: Instant) -> Option<Instant> {
        self.moments(&self.shutdown, now).find(|moment| *moment > now)
    }

    /// The last hour of shutdown, at `now` or before, less than a day ago.
    pub fn shutdown_before(&self, now: Instant) -> Option<Instant> {
        let day = SignedDuration::from_hours(24);
        let passed = self.moments(&self.shutdown, now).take_while(|moment| *moment <= now).last();
        passed.filter(|moment| now.duration_since(*moment) < day)
    }

    /// The hour that the machine should have been switched off at, while it is night: until it is woken, a lesson begins, or
    /// ten hours have passed.
    pub fn night(&self, now: Instant) -> Option<Instant> {
        let hour = self.shutdown_before(now)?;
        let ends = [self.wake_after(hour), self.next_lesson(hour), hour.checked_add(NIGHT).ok()];
        ends.into_iter().flatten().all(|end| now < end).then_some(hour)
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

    /// Days without lessons.
    pub fn holidays(&self) -> &[Holiday] {
        &self.holidays
    }

    fn is_holiday(&self, date: Date) -> bool {
        self.holidays.iter().any(|holiday| holiday.contains(date))
    }

    /// The days from the one before `now` on: what began the evening before may go on past midnight.
    fn days(&self, now: Instant) -> impl Iterator<Item = Date> + use<> {
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        let first = today.yesterday().unwrap_or(today);
        (0..HORIZON_DAYS).map_while(move |days| first.checked_add(i64::from(days).days()).ok())
    }

    fn lessons(&self, now: Instant) -> impl Iterator<Item = Between> {
        self.times(&self.lessons, now, |date| !self.is_holiday(date))
    }

    /// When `spans` are that begin on a day which `counts`: in order, and apart from each other. The first may have begun
    /// the day before `now`.
    fn times(
        &self,
        spans: &[Span],
        now: Instant,
        counts: impl Fn(Date) -> bool,
    ) -> impl Iterator<Item = Between> {
        let days = self.days(now).take_while(|_| !spans.is_empty()).filter(move |date| counts(*date));
        let mut times = days.flat_map(|date| self.times_of(spans, date)).peekable();
        iter::from_fn(move || {
            let mut time = times.next()?;
            while let Some(next) = times.next_if(|next| next.from <= time.to) {
                time.to = time.to.max(next.to);
            }
            Some(time)
        })
    }

    /// When those `spans` are that begin on `date`, in order.
    fn times_of(&self, spans: &[Span], date: Date) -> Vec<Between> {
        let today = Day::of(date.weekday());
        let time = |span: &Span| Between::on(date, span.from, span.to, &self.zone);
        let mut times: Vec<Between> =
            spans.iter().filter(|span| span.days.contains(&today)).filter_map(time).collect();
        times.sort_unstable_by_key(|time| time.from);
        times
    }

    /// The moments of a week and a bit, from the day before `now` on, in order.
    fn moments(&self, moments: &[Moment], now: Instant) -> impl Iterator<Item = Instant> {
        self.days(now).take(if moments.is_empty() { 0 } else { WEEK_DAYS }).flat_map(move |date| {
            let today = Day::of(date.weekday());
            let days = moments.iter().filter(move |moment| moment.days.contains(&today));
            let mut instants: Vec<Instant> =
                days.filter_map(|moment| instant(date, moment.at, &self.zone)).collect();
            instants.sort_unstable();
            instants
        })
    }
}

fn instant(date: Date, clock: Clock, zone: &TimeZone) -> Option<Instant> {
    date.to_datetime(clock.0).to_zoned_datetime(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

/// What the last one that gives a member says.
fn closest<'a, T>(own: &[&'a Hours], member: impl Fn(&'a Hours) -> Option<&'a T>) -> Option<&'a T> {
    own.iter().rev().find_map(|hours| member(hours))
}
