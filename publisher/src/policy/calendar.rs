//! Calendars as other programs export them (RFC 5545): holidays and weekly lessons for the deployment.
//!
//! All-day events are holidays; events with a time that come every week are lessons. What a file says beside that (single
//! appointments, dates left out, when a series begins) is passed over: the holidays say when there are no lessons.
//! What would be read wrongly is refused with the event's name: a lesson every second week, one in UTC, one in another
//! time zone than the college's.
//!
//! Threats and the defence for each:
//! - *A file without end*: one mebibyte is read.
//! - *Events within events within events*, which would exhaust the parser's stack: refused before it is asked.
//! - *Names that move the cursor*: control characters do not come along.

use std::collections::BTreeMap;
use std::path::Path;

use icalendar::parser::{Component, Property, read_calendar_simple, unfold};
use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Span as Length, ToSpan};
use mirabelle_content::durable;
use mirabelle_manifests::{Clock, Day, Holiday, Instant, Span};
use mirabelle_terminal::{Failure, OrFail};

/// The most of a calendar: a département's timetable of ten years is smaller.
const MAX_CALENDAR_BYTES: u64 = 1 << 20;
/// How deep components lie in each other: a calendar, an event, its alarm.
const MAX_DEPTH: usize = 8;
/// The longest name of a holiday.
const MAX_NAME: usize = 100;

/// The events of a calendar.
#[derive(Debug)]
pub(crate) struct Calendar(Vec<Event>);

#[derive(Debug, Default)]
struct Event {
    name: String,
    /// What it says, and the time zone that goes with it.
    properties: BTreeMap<String, (String, Option<String>)>,
}

/// Why a calendar cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CalendarError {
    /// Not a calendar.
    #[error("it is no calendar (RFC 5545) from line {0} on")]
    Malformed(usize),
    /// Too deep.
    #[error("its components lie deeper in each other than {MAX_DEPTH}")]
    TooDeep,
    /// Nothing in it is what was asked for.
    #[error("it holds no {0}")]
    Nothing(&'static str),
    /// An event that would be read wrongly.
    #[error("its event `{event}` {fault}")]
    Event {
        /// The event.
        event: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Lessons of two time zones.
    #[error("its event `{event}` is in the time zone {zone}, and others are in {other}")]
    TwoZones {
        /// The event.
        event: String,
        /// Its zone.
        zone: String,
        /// The others'.
        other: String,
    },
}

/// The lessons of a calendar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lessons {
    pub(crate) spans: Vec<Span>,
    /// The time zone that they are given in, if they say.
    pub(crate) zone: Option<String>,
}

impl Calendar {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let what = || format!("cannot read the calendar `{}`", path.display());
        let bytes = durable::read_if_present(path, MAX_CALENDAR_BYTES).or_fail(what)?;
        let bytes = bytes.ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
        Self::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|error| Failure::usage(format!("{}: {error}", what())))
    }

    /// Reads a calendar's text.
    pub(crate) fn parse(text: &str) -> Result<Self, CalendarError> {
        let text = unfold(text);
        if depth(&text) > MAX_DEPTH {
            return Err(CalendarError::TooDeep);
        }
        let line = |rest: &str| text[..text.len().saturating_sub(rest.len())].lines().count().max(1);
        let components =
            read_calendar_simple(&text).map_err(|error| CalendarError::Malformed(line(error.input)))?;
        let calendars: Vec<&Component<'_>> =
            components.iter().filter(|component| component.name == "VCALENDAR").collect();
        if calendars.is_empty() {
            return Err(CalendarError::Malformed(1));
        }
        let events = calendars.into_iter().flat_map(|calendar| &calendar.components);
        let events = events.filter(|component| component.name == "VEVENT").map(Event::of);
        Ok(Self(events.filter(|event| event.value("STATUS") != Some("CANCELLED")).collect()))
    }

    /// Its all-day events.
    pub(crate) fn holidays(&self) -> Result<Vec<Holiday>, CalendarError> {
        let mut holidays = Vec::new();
        for event in &self.0 {
            let Some(from) = event.value("DTSTART").and_then(date) else { continue };
            if event.value("RRULE").is_some() {
                return Err(event.fault("comes again: give each year's days an event of their own"));
            }
            // RFC 5545 3.6.1: the end is the day after; without one, it is a single day.
            let after = match (event.value("DTEND"), event.value("DURATION")) {
                (Some(end), _) => date(end).ok_or_else(|| event.fault("has an end that is no day"))?,
                (None, Some(length)) => length
                    .parse::<Length>()
                    .ok()
                    .and_then(|length| from.checked_add(length).ok())
                    .ok_or_else(|| event.fault("has a duration that cannot be read"))?,
                (None, None) => from,
            };
            let to = if after > from { after.checked_sub(1.day()).unwrap_or(from) } else { from };
            if after < from {
                return Err(event.fault("ends before it begins"));
            }
            holidays.push(Holiday { from, name: event.name.clone(), to });
        }
        if holidays.is_empty() {
            return Err(CalendarError::Nothing("all-day events"));
        }
        holidays.sort_by_key(|holiday| (holiday.from, holiday.to));
        holidays.dedup();
        Ok(holidays)
    }

    /// Its weekly events that have not ended before `now`: those of the same hours together.
    pub(crate) fn lessons(&self, now: Instant) -> Result<Lessons, CalendarError> {
        let mut lessons: BTreeMap<(Clock, Clock), Vec<Day>> = BTreeMap::new();
        let mut zone: Option<String> = None;
        for event in &self.0 {
            let Some(rule) = event.value("RRULE").filter(|_| !event.is_all_day()) else { continue };
            let rule = Rule::of(event, rule)?;
            if rule.until.is_some_and(|until| until < now.to_zoned_datetime(jiff::tz::TimeZone::UTC).date()) {
                continue;
            }
            let (from, own) = event.start()?;
            match (&zone, own) {
                (Some(other), Some(own)) if *other != own => {
                    let (event, other) = (event.name.clone(), other.clone());
                    return Err(CalendarError::TwoZones { event, zone: own, other });
                }
                (None, Some(own)) => zone = Some(own),
                _ => {}
            }
            let to = event.end(from)?;
            let length = to.duration_since(from);
            if length <= SignedDuration::ZERO || length >= SignedDuration::from_hours(24) {
                return Err(event.fault("does not end within a day of its beginning"));
            }
            let days = if rule.days.is_empty() { vec![day(from.date())] } else { rule.days };
            lessons.entry((event.clock(from)?, event.clock(to)?)).or_default().extend(days);
        }
        if lessons.is_empty() {
            return Err(CalendarError::Nothing("events that come every week"));
        }
        let spans = lessons.into_iter().map(|((from, to), mut days)| {
            days.sort_unstable();
            days.dedup();
            Span { days, from, to }
        });
        Ok(Lessons { spans: spans.collect(), zone })
    }
}

impl Event {
    fn of(component: &Component<'_>) -> Self {
        let mut event = Self::default();
        for Property { name, val, params } in &component.properties {
            let zone = params.iter().find(|param| param.key.as_str().eq_ignore_ascii_case("TZID"));
            let zone = zone
                .and_then(|param| param.val.as_ref())
                .map(|zone| zone.as_str().trim_matches('"').to_owned());
            let key = name.as_str().to_ascii_uppercase();
            if key == "SUMMARY" {
                let text = val.clone().unescape_text();
                event.name = text.as_str().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            }
            event.properties.entry(key).or_insert_with(|| (val.as_str().trim().to_owned(), zone));
        }
        if event.name.is_empty() {
            event.name = event.value("DTSTART").unwrap_or("without a name").to_owned();
        }
        event
    }

    fn value(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(|(value, _)| value.as_str())
    }

    fn fault(&self, fault: impl Into<String>) -> CalendarError {
        CalendarError::Event { event: self.name.clone(), fault: fault.into() }
    }

    fn is_all_day(&self) -> bool {
        self.value("DTSTART").is_some_and(|start| date(start).is_some())
    }

    /// When it begins by the college's clocks, and in which time zone, if it says.
    fn start(&self) -> Result<(DateTime, Option<String>), CalendarError> {
        let (text, zone) =
            self.properties.get("DTSTART").ok_or_else(|| self.fault("does not say when it begins"))?;
        Ok((self.time(text)?, zone.clone()))
    }

    fn end(&self, from: DateTime) -> Result<DateTime, CalendarError> {
        match (self.value("DTEND"), self.value("DURATION")) {
            (Some(text), _) => self.time(text),
            (None, Some(length)) => length
                .parse::<Length>()
                .ok()
                .and_then(|length| from.checked_add(length).ok())
                .ok_or_else(|| self.fault("has a duration that cannot be read")),
            (None, None) => Err(self.fault("does not say when it ends")),
        }
    }

    fn time(&self, text: &str) -> Result<DateTime, CalendarError> {
        if text.ends_with('Z') {
            return Err(self.fault("is in UTC: a lesson has the hours of the college's clocks"));
        }
        DateTime::strptime("%Y%m%dT%H%M%S", text)
            .map_err(|_| self.fault(format!("has a time that cannot be read: {}", short(text))))
    }

    fn clock(&self, time: DateTime) -> Result<Clock, CalendarError> {
        let text = time.strftime("%H:%M").to_string();
        text.parse().map_err(|_| self.fault("has a time that cannot be read"))
    }
}

/// A weekly RRULE.
struct Rule {
    days: Vec<Day>,
    until: Option<Date>,
}

impl Rule {
    fn of(event: &Event, text: &str) -> Result<Self, CalendarError> {
        let mut rule = Self { days: Vec::new(), until: None };
        let mut weekly = false;
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (name.to_ascii_uppercase().as_str(), value) {
                ("FREQ", "WEEKLY") => weekly = true,
                ("INTERVAL", "1") | ("WKST" | "COUNT", _) => {}
                ("INTERVAL", weeks) => {
                    return Err(event
                        .fault(format!("comes every {} weeks, and lessons come every week", short(weeks))));
                }
                ("UNTIL", until) => rule.until = until.get(..8).and_then(date),
                ("BYDAY", days) => {
                    for name in days.split(',') {
                        let day =
                            Day::ALL.into_iter().find(|day| day.to_string()[..2].eq_ignore_ascii_case(name));
                        rule.days.push(day.ok_or_else(|| {
                            event.fault(format!("comes on `{}`, which is no day of the week", short(name)))
                        })?);
                    }
                }
                _ => {
                    return Err(
                        event.fault(format!("comes again by a rule that is not known: {}", short(part)))
                    );
                }
            }
        }
        if weekly { Ok(rule) } else { Err(event.fault("does not come every week")) }
    }
}

/// How deep components lie in each other.
fn depth(text: &str) -> usize {
    let (mut deepest, mut depth) = (0, 0_usize);
    for line in text.lines() {
        let is = |word: &str| line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if is("BEGIN:") {
            depth += 1;
            deepest = deepest.max(depth);
        } else if is("END:") {
            depth = depth.saturating_sub(1);
        }
    }
    deepest
}

fn date(text: &str) -> Option<Date> {
    (text.len() == 8).then(|| Date::strptime("%Y%m%d", text).ok()).flatten()
}

fn day(date: Date) -> Day {
    let offset = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or_default();
    Day::ALL[offset]
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(events: &[&str]) -> String {
        let events: Vec<String> = events
            .iter()
            .map(|event| format!("BEGIN:VEVENT\r\n{}\r\nEND:VEVENT\r\n", event.replace('|', "\r\n")))
            .collect();
        format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x\r\n{}END:VCALENDAR\r\n", events.concat())
    }

    fn now() -> Instant {
        "2026-09-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn all_day_events_are_holidays() {
        let text = calendar(&[
            "SUMMARY:Vacances de No\u{eb}l\\, zone B|DTSTART;VALUE=DATE:20261219|DTEND;VALUE=DATE:20270104",
            "SUMMARY:Vacances de la\r\n  Toussaint|DTSTART;VALUE=DATE:20261017|DURATION:P16D|BEGIN:VALARM|ACTION:DISPLAY|END:VALARM",
            "SUMMARY:Armistice|DTSTART;VALUE=DATE:20261111",
            "SUMMARY:Gone|STATUS:CANCELLED|DTSTART;VALUE=DATE:20261112",
            "SUMMARY:Meeting|DTSTART:20261112T100000Z|DTEND:20261112T110000Z",
        ]);
        let holidays = Calendar::parse(&text).unwrap().holidays().unwrap();
        let said: Vec<String> = holidays
            .iter()
            .map(|holiday| format!("{} {} {}", holiday.from, holiday.to, holiday.name))
            .collect();
        assert_eq!(
            said,
            [
                "2026-10-17 2026-11-01 Vacances de la Toussaint",
                "2026-11-11 2026-11-11 Armistice",
                "2026-12-19 2027-01-03 Vacances de No\u{eb}l, zone B",
            ]
        );
    }

    #[test]
    fn weekly_events_are_lessons() {
        let text = calendar(&[
            "SUMMARY:M1|DTSTART;TZID=Europe/Paris:20260831T080000|DTEND;TZID=Europe/Paris:20260831T090000|RRULE:FREQ=WEEKLY;BYDAY=MO,TU;UNTIL=20270703T000000Z",
            "SUMMARY:M1|DTSTART;TZID=Europe/Paris:20260902T080000|DURATION:PT1H|RRULE:FREQ=WEEKLY;INTERVAL=1;WKST=MO|EXDATE;TZID=Europe/Paris:20260909T080000",
            "SUMMARY:S1|DTSTART;TZID=Europe/Paris:20260904T133000|DTEND;TZID=Europe/Paris:20260904T170000|RRULE:FREQ=WEEKLY;BYDAY=FR",
            "SUMMARY:Old|DTSTART;TZID=Europe/Paris:20250904T200000|DTEND;TZID=Europe/Paris:20250904T210000|RRULE:FREQ=WEEKLY;UNTIL=20260701",
            "SUMMARY:Once|DTSTART:20260904T200000Z|DTEND:20260904T210000Z",
            "SUMMARY:Holiday|DTSTART;VALUE=DATE:20261111",
        ]);
        let lessons = Calendar::parse(&text).unwrap().lessons(now()).unwrap();
        let said: Vec<String> =
            lessons.spans.iter().map(|span| format!("{:?} {} {}", span.days, span.from, span.to)).collect();
        assert_eq!(said, ["[Mon, Tue, Wed] 08:00 09:00", "[Fri] 13:30 17:00"]);
        assert_eq!(lessons.zone.as_deref(), Some("Europe/Paris"));
    }

    #[test]
    fn what_would_be_read_wrongly_is_refused_by_name() {
        let hour = "DTSTART:20260831T080000|DTEND:20260831T090000|RRULE:FREQ=WEEKLY";
        for (event, fault) in [
            (format!("{hour};INTERVAL=2"), "comes every 2 weeks"),
            (format!("{hour};BYDAY=1MO"), "comes on `1MO`, which is no day of the week"),
            (format!("{hour};BYMONTH=3"), "by a rule that is not known: BYMONTH=3"),
            (hour.replace("WEEKLY", "DAILY"), "by a rule that is not known: FREQ=DAILY"),
            (hour.replace("T080000", "T080000Z"), "is in UTC"),
            (hour.replace("T090000", "T070000"), "does not end within a day"),
            (hour.replace("20260831T09", "20260903T09"), "does not end within a day"),
            (hour.replace("DTEND:20260831T090000|", ""), "does not say when it ends"),
            (hour.replace("T080000", "T8h"), "has a time that cannot be read: 20260831T8h"),
        ] {
            let text = calendar(&[&format!("SUMMARY:Maths|{event}")]);
            let error = Calendar::parse(&text).unwrap().lessons(now()).unwrap_err().to_string();
            assert!(error.contains("`Maths`") && error.contains(fault), "{error}");
        }
        let yearly = calendar(&["SUMMARY:Armistice|DTSTART;VALUE=DATE:20261111|RRULE:FREQ=YEARLY"]);
        let error = Calendar::parse(&yearly).unwrap().holidays().unwrap_err().to_string();
        assert!(error.contains("`Armistice` comes again"), "{error}");
        assert_eq!(
            Calendar::parse(&calendar(&[])).unwrap().holidays().unwrap_err(),
            CalendarError::Nothing("all-day events")
        );
    }

    #[test]
    fn hostile_files_are_refused_and_nothing_panics() {
        let deep = "BEGIN:A\n".repeat(100_000);
        assert_eq!(Calendar::parse(&deep).unwrap_err(), CalendarError::TooDeep);
        for text in [
            "",
            "BEGIN:",
            "BEGIN:VCALENDAR",
            "hello",
            "\u{feff}",
            "BEGIN:VCALENDAR\nEND:VEVENT\n",
            "BEGIN:VEVENT\nEND:VEVENT\n",
        ] {
            assert!(Calendar::parse(text).is_err(), "{text:?}");
        }
        // Cut anywhere, and with a byte of it replaced, a calendar is read or refused.
        let whole = calendar(&[
            "SUMMARY:\u{e9}t\u{e9}|DTSTART;VALUE=DATE:20261017|DTEND;VALUE=DATE:20261018",
            "SUMMARY:x|DTSTART;TZID=\"Europe/Paris\":20260831T080000|DURATION:PT1H|RRULE:FREQ=WEEKLY;BYDAY=MO",
        ]);
        let bytes = whole.as_bytes();
        for at in 0..bytes.len() {
            for replaced in [b'\n', b':', b'-', b'9', 0, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[at] = replaced;
                for text in [String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&bytes[..at])] {
                    if let Ok(calendar) = Calendar::parse(&text) {
                        let _ = (calendar.holidays(), calendar.lessons(now()));
                    }
                }
            }
        }
    }
}
