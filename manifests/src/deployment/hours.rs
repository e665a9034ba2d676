//! Hours as the deployment says them: lessons, windows, holidays, hours of shutdown and waking, for audiences.
//!
//! Every member is said by itself; what is missing is said by a wider audience. For one workstation they come together in
//! a `Timetable`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::audience::Audience;

/// The most minutes that an evening may begin before the hour.
const MAX_EVENING_MINUTES: u32 = 240;

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

impl Holiday {
    /// True for a day of theirs.
    pub fn contains(&self, date: Date) -> bool {
        (self.from..=self.to).contains(&date)
    }
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

    /// The day of a calendar's weekday.
    pub fn of(weekday: Weekday) -> Self {
        Self::ALL[usize::try_from(weekday.to_monday_zero_offset()).unwrap_or(0)]
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        })
    }
}

/// A time of the day, to the minute: `17:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(pub(super) Time);

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
        let moments = self.shutdown.iter().chain(&self.wake).flatten();
        if let Some(moment) = moments.into_iter().find(|moment| moment.days.is_empty()) {
            return Some(format!("{} is on no day", moment.at));
        }
        let holidays = self.holidays.iter().flatten();
        if let Some(holiday) = holidays.into_iter().find(|holiday| holiday.from > holiday.to) {
            return Some(format!("`{}` ends before it begins", holiday.name));
        }
        None
    }
}
