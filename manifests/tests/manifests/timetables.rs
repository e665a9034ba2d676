//! Hours: no work in lessons, work when it is allowed, and the evening when it comes; through holidays and the days on which
//! the clocks change.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mirabelle_manifests::{
    Audience, Between, Clock, Day, Deployment, Groups, Holiday, Hours, Instant, Machine, Moment, Span,
    Timetable,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn machine() -> Machine {
    Machine {
        college: "57001".parse().unwrap(),
        id: "b12-03".parse().unwrap(),
        model: None,
        platform: "linux-x86_64".parse().unwrap(),
        room: "B12".parse().ok(),
        tags: ["exam".parse().unwrap()].into(),
    }
}

fn paris() -> TimeZone {
    TimeZone::get("Europe/Paris").unwrap()
}

/// A moment by the clocks of Paris.
fn at(clock: &str) -> Instant {
    clock.parse::<DateTime>().unwrap().to_zoned_datetime(paris()).unwrap().timestamp()
}

fn clock(instant: Instant) -> String {
    if instant == Instant::MAX {
        return "ever".to_owned();
    }
    instant.to_zoned_datetime(paris()).strftime("%m-%d %H:%M").to_string()
}

fn times(between: Option<Between>) -> String {
    between
        .map_or_else(|| "none".to_owned(), |Between { from, to }| format!("{} to {}", clock(from), clock(to)))
}

fn moment(instant: Option<Instant>) -> String {
    instant.map_or_else(|| "none".to_owned(), clock)
}

/// The timetable of a machine under these entries.
fn timetable(hours: &str) -> Timetable {
    let policy = format!(r#"{{"_type":"deployment","assignments":[],"hours":[{hours}]}}"#);
    Deployment::parse(policy.as_bytes()).unwrap().timetable(&machine())
}

/// A college: lessons in the morning and the afternoon of workdays, nights to install in, holidays in autumn.
const COLLEGE: &str = r#"{"time-zone":"Europe/Paris",
    "lessons":[{"days":["mon","tue","wed","thu","fri"],"from":"08:00","to":"10:00"},
               {"days":["mon","tue","wed","thu","fri"],"from":"10:00","to":"12:00"},
               {"days":["mon","tue","thu","fri"],"from":"13:30","to":"17:00"}],
    "windows":[{"days":["mon","tue","wed","thu","fri","sat","sun"],"from":"22:00","to":"06:00"},
               {"days":["wed"],"from":"09:00","to":"18:00"}],
    "holidays":[{"from":"2026-10-17","to":"2026-11-01","name":"Toussaint"}],
    "shutdown":[{"days":["mon","tue","thu","fri"],"at":"18:00"},{"days":["wed"],"at":"12:30"}],
    "wake":[{"days":["mon","tue","wed","thu","fri"],"at":"07:15"}]}"#;

#[test]
fn lessons_without_a_break_are_one_and_holidays_have_none() {
    let timetable = timetable(COLLEGE);
    for (now, expected) in [
        ("2026-09-07T07:59", "none"),
        ("2026-09-07T08:00", "09-07 08:00 to 09-07 12:00"),
        ("2026-09-07T10:00", "09-07 08:00 to 09-07 12:00"),
        ("2026-09-07T12:00", "none"),
        ("2026-09-07T16:59", "09-07 13:30 to 09-07 17:00"),
        ("2026-09-09T14:00", "none"),
        ("2026-09-12T09:00", "none"),
        // The first and the last day of the holidays, and the days around them.
        ("2026-10-16T09:00", "10-16 08:00 to 10-16 12:00"),
        ("2026-10-19T09:00", "none"),
        ("2026-10-30T09:00", "none"),
        ("2026-11-02T09:00", "11-02 08:00 to 11-02 12:00"),
    ] {
        assert_eq!(times(timetable.lesson(at(now))), expected, "{now}");
    }
}

#[test]
fn a_window_is_open_outside_lessons_and_says_until_when() {
    let timetable = timetable(COLLEGE);
    for (now, expected, next) in [
        // A night, from before and after midnight.
        ("2026-09-07T23:00", "09-07 22:00 to 09-08 06:00", "09-07 23:00"),
        ("2026-09-08T05:59", "09-07 22:00 to 09-08 06:00", "09-08 05:59"),
        ("2026-09-08T06:00", "none", "09-08 22:00"),
        ("2026-09-08T09:00", "none", "09-08 22:00"),
        // A window that begins within a lesson opens with its end.
        ("2026-09-09T09:30", "none", "09-09 12:00"),
        ("2026-09-09T12:00", "09-09 12:00 to 09-09 18:00", "09-09 12:00"),
        // In the holidays, there is no lesson within it.
        ("2026-10-21T09:30", "10-21 09:00 to 10-21 18:00", "10-21 09:30"),
    ] {
        assert_eq!(times(timetable.window(at(now))), expected, "{now}");
        assert_eq!(moment(timetable.next_window(at(now))), next, "{now}");
    }
}

#[test]
fn where_nobody_gives_windows_it_is_always_one_outside_lessons() {
    let lessons = r#"{"time-zone":"Europe/Paris","lessons":[{"days":["mon"],"from":"08:00","to":"12:00"}]}"#;
    for (hours, now, expected, next) in [
        (lessons, "2026-09-07T07:00", "09-07 07:00 to 09-07 08:00", "09-07 07:00"),
        (lessons, "2026-09-07T09:00", "none", "09-07 12:00"),
        (lessons, "2026-09-07T12:30", "09-07 12:00 to 09-14 08:00", "09-07 12:30"),
        ("{}", "2026-09-07T09:00", "09-07 09:00 to ever", "09-07 09:00"),
        (r#"{"windows":[]}"#, "2026-09-07T09:00", "none", "none"),
    ] {
        let timetable = timetable(hours);
        assert_eq!(times(timetable.window(at(now))), expected, "{hours} {now}");
        assert_eq!(moment(timetable.next_window(at(now))), next, "{hours} {now}");
    }
}

#[test]
fn windows_that_overlap_or_touch_are_one() {
    let windows = r#"{"time-zone":"Europe/Paris","windows":[
        {"days":["mon"],"from":"22:00","to":"00:00"},{"days":["tue"],"from":"00:00","to":"05:00"},
        {"days":["tue"],"from":"04:00","to":"06:00"},{"days":["tue"],"from":"04:30","to":"04:45"}]}"#;
    let timetable = timetable(windows);
    for now in ["2026-09-07T22:00", "2026-09-08T00:00", "2026-09-08T04:40", "2026-09-08T05:59"] {
        assert_eq!(times(timetable.window(at(now))), "09-07 22:00 to 09-08 06:00", "{now}");
    }
    assert_eq!(times(timetable.window(at("2026-09-08T06:00"))), "none");
}

/// On the last Sunday of March, 2:00 to 3:00 does not happen; on that of October, it happens twice.
#[test]
fn clocks_that_change_leave_no_hole_and_no_second_lesson() {
    let timetable = timetable(
        r#"{"time-zone":"Europe/Paris","lessons":[{"days":["sun"],"from":"02:15","to":"02:45"}],
            "windows":[{"days":["sat","sun"],"from":"22:00","to":"05:00"},{"days":["sun"],"from":"02:30","to":"03:00"}],
            "shutdown":[{"days":["sun"],"at":"02:30"}],"wake":[{"days":["sun"],"at":"02:30"}]}"#,
    );
    let utc = |text: &str| text.parse::<Instant>().unwrap();
    let minutes =
        |between: Option<Between>| between.map(|between| (between.to - between.from).as_secs() / 60);
    // The night is an hour shorter in March and an hour longer in October; each has one lesson of half an hour.
    for (before, after, lesson, length) in [
        ("2026-03-28T23:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T01:20:00Z", 360),
        ("2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T00:20:00Z", 480),
    ] {
        let lesson = timetable.lesson(utc(lesson)).unwrap();
        assert_eq!(minutes(Some(lesson)), Some(30));
        let (first, second) = (timetable.window(utc(before)).unwrap(), timetable.window(utc(after)).unwrap());
        assert_eq!((first.to, second.from), (lesson.from, lesson.to));
        assert_eq!((second.to - first.from).as_secs() / 60, length);
        assert_eq!(timetable.shutdown_after(utc(before)), timetable.wake_after(utc(before)));
        // By then, it is the second time that the clocks of October show it.
        assert_eq!(timetable.shutdown_before(utc(after)), timetable.shutdown_after(utc(before)));
    }
    assert_eq!(moment(timetable.shutdown_after(utc("2026-03-28T23:00:00Z"))), "03-29 03:30");
    assert_eq!(timetable.shutdown_after(utc("2026-10-24T23:00:00Z")), Some(utc("2026-10-25T00:30:00Z")));
}

#[test]
fn the_evening_is_the_last_one_or_the_next() {
    let timetable = timetable(COLLEGE);
    for (now, before, after, wake) in [
        ("2026-09-07T17:59", "none", "09-07 18:00", "09-08 07:15"),
        ("2026-09-07T18:00", "09-07 18:00", "09-08 18:00", "09-08 07:15"),
        ("2026-09-08T07:15", "09-07 18:00", "09-08 18:00", "09-09 07:15"),
        ("2026-09-09T12:29", "09-08 18:00", "09-09 12:30", "09-10 07:15"),
        ("2026-09-11T19:00", "09-11 18:00", "09-14 18:00", "09-14 07:15"),
        // A day later, nobody waits for Friday's evening any more.
        ("2026-09-12T17:59", "09-11 18:00", "09-14 18:00", "09-14 07:15"),
        ("2026-09-12T18:00", "none", "09-14 18:00", "09-14 07:15"),
        ("2026-09-13T17:00", "none", "09-14 18:00", "09-14 07:15"),
    ] {
        assert_eq!(moment(timetable.shutdown_before(at(now))), before, "{now}");
        assert_eq!(moment(timetable.shutdown_after(at(now))), after, "{now}");
        assert_eq!(moment(timetable.wake_after(at(now))), wake, "{now}");
    }
}

#[test]
fn every_member_comes_from_the_closest_audience_that_gives_it() {
    let all =
        r#"{"time-zone":"Europe/Paris","shutdown":[{"days":["mon"],"at":"18:00"}],"evening-minutes":10}"#;
    let college = r#"{"to":{"colleges":["57001"]},"shutdown":[{"days":["mon"],"at":"19:00"}]}"#;
    let room = r#"{"to":{"rooms":["B12"]},"evening-minutes":60}"#;
    let other = r#"{"to":{"rooms":["B13"]},"shutdown":[],"idle-minutes":1}"#;
    for order in [[all, college, room, other], [other, room, college, all], [college, all, other, room]] {
        let timetable = timetable(&order.join(","));
        assert_eq!(moment(timetable.shutdown_after(at("2026-09-07T09:00"))), "09-07 19:00");
        assert_eq!(timetable.evening(), SignedDuration::from_mins(60));
        assert_eq!(timetable.idle(), SignedDuration::from_mins(20));
        assert_eq!(timetable.zone().iana_name(), Some("Europe/Paris"));
    }
    // Of two that are equally close, the later.
    let later = timetable(r#"{"evening-minutes":1},{"evening-minutes":2}"#);
    assert_eq!(later.evening(), SignedDuration::from_mins(2));
}

#[test]
fn hours_that_cannot_be_followed_are_refused() {
    for (hours, fault) in [
        (r#"{"time-zone":"Europe/Metz"}"#, "`Europe/Metz` is no time zone"),
        (r#"{"evening-minutes":241}"#, "an evening begins at most 240 minutes before the hour"),
        (r#"{"lessons":[{"days":["mon"],"from":"08:00","to":"08:00"}]}"#, "08:00 to 08:00 is no time"),
        (r#"{"windows":[{"days":[],"from":"08:00","to":"09:00"}]}"#, "is on no day"),
        (r#"{"wake":[{"days":[],"at":"08:00"}]}"#, "08:00 is on no day"),
        (r#"{"holidays":[{"from":"2026-11-02","to":"2026-11-01","name":"x"}]}"#, "`x` ends before it begins"),
    ] {
        let policy = format!(r#"{{"_type":"deployment","assignments":[],"hours":[{hours}]}}"#);
        let error = Deployment::parse(policy.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(fault), "{error}");
    }
    for time in ["24:00", "8:00", "08:60", "08:00:00", "08-00", "+8:00"] {
        assert!(time.parse::<Clock>().is_err(), "{time}");
    }
}

/// A moment within the years that tests are about, often on a day on which the clocks change.
pub(crate) fn any_instant() -> impl Strategy<Value = Instant> {
    let seconds = |from: i64, days: i64| from..from + days * 86_400;
    prop_oneof![
        seconds(1_767_225_600, 730),
        // The last weekends of March and October 2026.
        seconds(1_774_656_000, 3),
        seconds(1_792_800_000, 3),
    ]
    .prop_map(|second| Instant::from_second(second - second % 60).unwrap())
}

fn any_days() -> impl Strategy<Value = Vec<Day>> {
    subsequence(Day::ALL.to_vec(), 1..=7)
}

fn any_clock() -> impl Strategy<Value = Clock> {
    (0..24_u32, select(vec![0_u32, 15, 30, 59]))
        .prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}").parse().unwrap())
}

fn any_spans() -> impl Strategy<Value = Option<Vec<Span>>> {
    let span = (any_days(), any_clock(), any_clock())
        .prop_filter("it takes some time", |(_, from, to)| from != to)
        .prop_map(|(days, from, to)| Span { days, from, to });
    proptest::option::of(proptest::collection::vec(span, 0..4))
}

fn any_moments() -> impl Strategy<Value = Option<Vec<Moment>>> {
    let moment = (any_days(), any_clock()).prop_map(|(days, at)| Moment { at, days });
    proptest::option::of(proptest::collection::vec(moment, 0..3))
}

pub(crate) fn any_hours(to: impl Strategy<Value = Audience>) -> impl Strategy<Value = Hours> {
    let holiday = (0..700_i64, 0..40_i64).prop_map(|(first, length)| {
        let day = |days: i64| {
            let instant = Instant::from_second(1_767_225_600 + days * 86_400).unwrap();
            instant.to_zoned_datetime(TimeZone::UTC).date()
        };
        Holiday { from: day(first), name: "vacances".to_owned(), to: day(first + length) }
    });
    let zone =
        select(vec!["Europe/Paris", "UTC", "Pacific/Apia", "America/New_York"]).prop_map(str::to_owned);
    (
        (proptest::option::of(0..=240_u32), proptest::option::of(any::<u32>())),
        proptest::option::of(proptest::collection::vec(holiday, 0..3)),
        (any_spans(), any_spans()),
        (any_moments(), any_moments()),
        proptest::option::of(zone),
        to,
    )
        .prop_map(
            |((evening_minutes, idle_minutes), holidays, (lessons, windows), moments, time_zone, to)| {
                let (shutdown, wake) = moments;
                Hours {
                    evening_minutes,
                    holidays,
                    idle_minutes,
                    lessons,
                    shutdown,
                    time_zone,
                    to,
                    wake,
                    windows,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_said_of_hours_holds_together(
        hours in any_hours(Just(Audience::everyone())),
        now in any_instant(),
    ) {
        let timetable = Timetable::of(std::slice::from_ref(&hours), &machine(), &Groups::new());
        // What has no end is seen to the end of the hundred days.
        let is_seen = |until: Instant| until < now + SignedDuration::from_hours(24 * 97);
        let lesson = timetable.lesson(now);
        prop_assert!(lesson.is_none_or(|lesson| lesson.from <= now && now < lesson.to));
        if let Some(lesson) = lesson {
            prop_assert!(!is_seen(lesson.to) || timetable.lesson(lesson.to).is_none(), "it ends");
            prop_assert!(timetable.window(now).is_none());
        }
        if let Some(window) = timetable.window(now) {
            prop_assert!(window.from <= now && now < window.to);
            prop_assert_eq!(timetable.next_window(now), Some(now));
            let last = window.to.checked_sub(SignedDuration::from_secs(1)).unwrap();
            if is_seen(window.to) {
                prop_assert!(timetable.lesson(last).is_none());
                prop_assert!(timetable.window(window.to).is_none(), "it ends where it says");
            }
        }
        if let Some(next) = timetable.next_window(now) {
            prop_assert!(next >= now);
            prop_assert!(timetable.window(next).is_some());
            prop_assert!(timetable.lesson(next).is_none());
            // None was passed over: hour by hour, as far as two days.
            let hours = (1..48).map(|hours| now + SignedDuration::from_hours(hours));
            for between in hours.take_while(|at| *at < next) {
                prop_assert!(timetable.window(between).is_none(), "one at {between}, before {next}");
            }
        }
        prop_assert!(timetable.shutdown_after(now).is_none_or(|at| at > now));
        prop_assert!(timetable.wake_after(now).is_none_or(|at| at > now));
        if let Some(before) = timetable.shutdown_before(now) {
            prop_assert!(before <= now && now.duration_since(before) < SignedDuration::from_hours(24));
            prop_assert!(timetable.shutdown_after(before).is_none_or(|next| next > now), "it is the last");
        }
        prop_assert_eq!(
            timetable.shutdown_after(now).is_some(),
            hours.shutdown.is_some_and(|moments| !moments.is_empty())
        );
    }
}
