//! What the agent does now, and when it looks again. Pure: everything it depends on is in [`View`].
//!
//! In this order:
//!
//! 1. when the hour has come, to switch the machine off, if it was on before: whatever else there is;
//! 2. in a lesson nothing but to ask whether there is news, which costs one small request;
//! 3. the evening, from its minute on, once;
//! 4. to ask the node, when it is time;
//! 5. to put back settings that drifted;
//! 6. to install what may be installed now: in a window what nobody is using, after its deadline all of it;
//! 7. to fetch what is due, ahead of the hour at which it may be installed;
//! 8. at night, when nothing is left to do and nobody is working, to switch off a machine that somebody had switched on.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::{Instant, PackageName, Timetable};

use crate::outlook::{Due, Outlook};

/// The longest that the agent sleeps: a clock that is set, or a machine that was suspended, is noticed within it.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_mins(5);
/// How soon an application that is in use is looked at again, or a machine that somebody works on at night.
const SHORT_SLEEP: SignedDuration = SignedDuration::from_mins(1);

/// What the agent sees.
pub(crate) struct View<'a> {
    pub(crate) now: Instant,
    pub(crate) timetable: &'a Timetable,
    pub(crate) outlook: Option<&'a Outlook>,
    /// Packages that somebody is using.
    pub(crate) in_use: &'a BTreeSet<PackageName>,
    /// When the node is asked next.
    pub(crate) refresh_at: Instant,
    /// Until when installs that failed rest.
    pub(crate) resting_until: Option<Instant>,
    /// The same for fetching: what cannot be had holds up nothing that is here.
    pub(crate) fetching_rests_until: Option<Instant>,
    /// Since when the machine has been on, without a break.
    pub(crate) awake_since: Instant,
    /// Until when switching off rests, after it failed.
    pub(crate) off_rests_until: Option<Instant>,
    /// The hour of the last evening that was made.
    pub(crate) last_evening: Option<Instant>,
    /// How long nobody has touched the machine; unknown where it cannot be told.
    pub(crate) idle: Option<Duration>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The evening that ends at this hour.
    Evening(Instant),
    /// Ask the node for what is new.
    Refresh,
    /// Put back settings that are not as they should be.
    Settle,
    /// Fetch what is due.
    Prepare,
    /// Install these, one after the other.
    Install(Vec<PackageName>),
    /// It is past this hour, and nobody is working.
    SwitchOff(Instant),
    /// Nothing until then.
    Sleep(Instant),
}

impl View<'_> {
    /// What to do now.
    pub(crate) fn task(&self) -> Task {
        let now = self.now;
        let night = self.timetable.night(now).filter(|_| !rests(self.off_rests_until, now));
        if let Some(hour) = night
            && self.awake_since < hour
        {
            return Task::SwitchOff(hour);
        }
        let lesson = self.timetable.lesson(now);
        let hour = self.timetable.shutdown_after(now);
        let evening = hour.filter(|hour| self.last_evening != Some(*hour));
        if let Some(hour) = evening
            && lesson.is_none()
            && now >= self.evening_begins(hour)
        {
            return Task::Evening(hour);
        }
        if self.refresh_at <= now {
            return Task::Refresh;
        }
        if lesson.is_none()
            && let Some(task) = self.work()
        {
            return task;
        }
        if let Some(hour) = night
            && let Some(idle) = self.idle
            && SignedDuration::try_from(idle).is_ok_and(|idle| idle >= self.timetable.idle())
        {
            return Task::SwitchOff(hour);
        }
        let soon = self.timetable.window(now).is_some() && self.due().next().is_some();
        let sleep = if soon || self.timetable.night(now).is_some() { SHORT_SLEEP } else { LONGEST_SLEEP };
        let moments = [
            Some(self.refresh_at),
            hour,
            evening.map(|hour| self.evening_begins(hour)),
            lesson.map(|lesson| lesson.to),
            self.timetable.next_window(now),
            self.resting_until,
            self.fetching_rests_until,
            self.off_rests_until,
            self.outlook.and_then(|outlook| outlook.changes_at),
            self.due().filter_map(|due| due.deadline).filter(|deadline| *deadline > now).min(),
        ];
        let latest = now.checked_add(sleep).unwrap_or(Instant::MAX);
        Task::Sleep(moments.into_iter().flatten().filter(|moment| *moment > now).fold(latest, Instant::min))
    }

    /// What there is to do outside lessons.
    fn work(&self) -> Option<Task> {
        let now = self.now;
        if !rests(self.resting_until, now) {
            if self.outlook.is_some_and(|outlook| !outlook.drift.is_empty()) {
                return Some(Task::Settle);
            }
            let ready = self.due().filter(|due| due.prepared && self.may_install(due));
            let ready: Vec<PackageName> = ready.map(|due| due.package.clone()).collect();
            if !ready.is_empty() {
                return Some(Task::Install(ready));
            }
        }
        let missing = self.due().any(|due| !due.prepared);
        (missing && !rests(self.fetching_rests_until, now)).then_some(Task::Prepare)
    }

    fn due(&self) -> impl Iterator<Item = &Due> {
        self.outlook.iter().flat_map(|outlook| &outlook.due)
    }

    /// In a window what nobody uses; after its deadline in any case. Never in a lesson.
    fn may_install(&self, due: &Due) -> bool {
        let late = due.deadline.is_some_and(|deadline| deadline <= self.now);
        late || (self.timetable.window(self.now).is_some() && !self.in_use.contains(&due.package))
    }

    fn evening_begins(&self, hour: Instant) -> Instant {
        hour.checked_sub(self.timetable.evening()).unwrap_or(hour)
    }
}

fn rests(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| now < until)
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::{Groups, Hours, Machine};

    use super::*;
    use crate::outlook::Verb;

    /// Lessons 8 to 12 and 14 to 17 on weekdays; windows before, at noon and after; off at 18:30, evening of 30 minutes.
    fn timetable() -> Timetable {
        let hours: Hours = serde_json::from_str(
            r#"{"time-zone":"Europe/Paris","evening-minutes":30,"idle-minutes":20,
            "lessons":[{"days":["mon","tue","wed","thu","fri"],"from":"08:00","to":"12:00"},
                       {"days":["mon","tue","wed","thu","fri"],"from":"14:00","to":"17:00"}],
            "windows":[{"days":["mon","tue","wed","thu","fri"],"from":"07:00","to":"18:30"}],
            "shutdown":[{"days":["mon","tue","wed","thu","fri"],"at":"18:30"}],
            "wake":[{"days":["mon","tue","wed","thu","fri"],"at":"07:30"}],"to":{}}"#,
        )
        .unwrap();
        let machine = Machine {
            college: "57001".parse().unwrap(),
            id: "pc-1".parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: [].into(),
        };
        Timetable::of(&[hours], &machine, &Groups::new())
    }

    fn due(package: &str, prepared: bool, deadline: Option<&str>) -> Due {
        Due {
            package: package.parse().unwrap(),
            verb: Verb::Update,
            version: None,
            deadline: deadline.map(at),
            bytes: 1,
            prepared,
            reasons: vec![],
        }
    }

    /// A time of Wednesday, 25 November 2026, in Metz.
    fn at(clock: &str) -> Instant {
        format!("2026-11-25T{clock}:00+01:00").parse().unwrap()
    }

    struct Case<'a> {
        clock: &'a str,
        due: Vec<Due>,
        in_use: &'a [&'a str],
        last_evening: Option<Instant>,
        idle_minutes: u64,
        /// Switched on then.
        awake_since: &'a str,
    }

    fn task(case: Case<'_>) -> Task {
        let (now, outlook) = (at(case.clock), Outlook { due: case.due, ..Outlook::default() });
        View {
            now,
            timetable: &timetable(),
            outlook: Some(&outlook),
            in_use: &case.in_use.iter().map(|name| name.parse().unwrap()).collect(),
            refresh_at: now + SignedDuration::from_hours(1),
            resting_until: None,
            fetching_rests_until: None,
            awake_since: at(case.awake_since),
            off_rests_until: None,
            last_evening: case.last_evening,
            idle: Some(Duration::from_mins(case.idle_minutes)),
        }
        .task()
    }

    fn case(clock: &str, due: Vec<Due>) -> Case<'_> {
        Case { clock, due, in_use: &[], last_evening: None, idle_minutes: 0, awake_since: "00:00" }
    }

    fn install(package: &str) -> Task {
        Task::Install(vec![package.parse().unwrap()])
    }

    #[test]
    fn lessons_are_left_in_peace() {
        for clock in ["08:00", "09:30", "11:59", "14:00", "16:59"] {
            let overdue = due("a", true, Some("06:00"));
            let task = task(case(clock, vec![overdue, due("b", false, None)]));
            assert!(matches!(task, Task::Sleep(_)), "{clock}: {task:?}");
        }
    }

    #[test]
    fn fetches_first_and_installs_in_a_window() {
        assert_eq!(task(case("12:30", vec![due("a", false, None)])), Task::Prepare);
        assert_eq!(task(case("12:30", vec![due("a", true, None)])), install("a"));
        assert_eq!(
            task(case("06:30", vec![due("a", false, None)])),
            Task::Prepare,
            "no window is needed to fetch"
        );
        let Task::Sleep(until) = task(case("06:30", vec![due("a", true, None)])) else {
            panic!("no window yet")
        };
        assert!(until <= at("07:00"));
    }

    #[test]
    fn what_is_in_use_waits_until_its_deadline() {
        let in_use = |deadline| Case { in_use: &["a"], ..case("12:30", vec![due("a", true, deadline)]) };
        assert!(matches!(task(in_use(None)), Task::Sleep(_)));
        assert!(matches!(task(in_use(Some("12:31"))), Task::Sleep(until) if until == at("12:31")));
        assert_eq!(task(in_use(Some("12:30"))), install("a"));
    }

    #[test]
    fn the_evening_comes_once() {
        let hour = at("18:30");
        assert_eq!(task(case("18:00", vec![])), Task::Evening(hour));
        assert_eq!(task(case("18:29", vec![])), Task::Evening(hour));
        assert!(matches!(task(case("17:59", vec![])), Task::Sleep(until) if until == at("18:00")));
        let again = Case { last_evening: Some(hour), ..case("18:10", vec![]) };
        assert!(matches!(task(again), Task::Sleep(_)));
    }

    #[test]
    fn whoever_was_on_before_the_hour_goes_off_at_it_whatever_there_is() {
        for due in [vec![], vec![due("a", true, Some("06:00"))]] {
            for last_evening in [None, Some(at("18:30"))] {
                let on = Case { last_evening, ..case("18:30", due.clone()) };
                assert_eq!(task(on), Task::SwitchOff(at("18:30")));
            }
        }
        // Suspended over the hour and opened in the morning: that hour is past.
        let morning = Case { awake_since: "00:00", ..case("07:31", vec![]) };
        assert!(matches!(task(morning), Task::Sleep(_)));
    }

    #[test]
    fn what_cannot_be_fetched_holds_up_nothing_that_is_here() {
        assert_eq!(task(case("12:30", vec![due("a", false, None), due("b", true, None)])), install("b"));
    }

    #[test]
    fn at_night_it_goes_off_once_nobody_works() {
        let night = |idle_minutes, due| Case { idle_minutes, awake_since: "21:00", ..case("22:00", due) };
        assert_eq!(task(night(20, vec![])), Task::SwitchOff(at("18:30")));
        assert!(matches!(task(night(19, vec![])), Task::Sleep(_)));
        assert_eq!(task(night(60, vec![due("a", false, None)])), Task::Prepare, "first what there is to do");
        let day = Case { idle_minutes: 600, ..case("07:31", vec![]) };
        assert!(matches!(task(day), Task::Sleep(_)), "it was woken");
    }

    #[test]
    fn what_failed_rests() {
        let outlook = Outlook { due: vec![due("a", true, None)], ..Outlook::default() };
        let now = at("12:30");
        let view = View {
            now,
            timetable: &timetable(),
            outlook: Some(&outlook),
            in_use: &BTreeSet::new(),
            refresh_at: now + SignedDuration::from_hours(1),
            resting_until: Some(at("12:31")),
            fetching_rests_until: None,
            awake_since: at("07:30"),
            off_rests_until: None,
            last_evening: None,
            idle: None,
        };
        assert_eq!(view.task(), Task::Sleep(at("12:31")));
    }
}
