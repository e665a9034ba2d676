//! The `[link]` table of `node.toml`. Every value has its unit, and a word that is not understood is refused with its line.
//!
//! ```toml
//! [link]
//! daily-budget = "4 GiB"        # everything counts: retries, repairs, what was received in vain
//! reserve-per-cent = 5          # of it, for metadata and for workstations that wait
//! yield = true                  # give way to others; so if nothing is said, once there is this table
//! yield-target = "5 ms"         # the queue that transfers may make
//! otherwise = "2 MiB/s"         # or "unlimited", or "closed"
//! time-zone = "Europe/Paris"    # the deployment's, if not given; so the holidays
//! holidays = [{ name = "Noël", from = "2026-12-19", to = "2027-01-04" }]
//!
//! [[link.rule]]                 # the first whose hours it is counts
//! days = ["mon", "tue", "thu", "fri"]
//! from = "08:00"
//! to = "17:30"
//! rate = "256 KiB/s"
//! on-holidays = false           # so if nothing is said
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use mirabelle_manifests::{Clock, Day, Holiday};
use mirabelle_terminal::ByteCount;
use mirabelle_transfer::{Rate, RateRule};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Queues that nobody would notice, and that nobody would bear.
const TARGETS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct LinkTable {
    #[serde(with = "byte_count", skip_serializing_if = "Option::is_none")]
    pub(crate) daily_budget: Option<ByteCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reserve_per_cent: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#yield: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) yield_target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otherwise: Option<Speed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<Zone>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) holidays: Option<Vec<Holiday>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rule: Vec<LinkRule>,
}

/// A rate for some hours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LinkRule {
    #[serde(deserialize_with = "some_days")]
    days: Vec<Day>,
    from: Clock,
    to: Clock,
    rate: Speed,
    #[serde(default)]
    on_holidays: bool,
}

impl LinkRule {
    pub(crate) fn rule(&self) -> RateRule {
        let Self { days, from, to, rate, on_holidays } = self;
        RateRule { days: days.clone(), from: *from, to: *to, rate: rate.0, on_holidays: *on_holidays }
    }
}

fn some_days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Day>, D::Error> {
    let days = Vec::deserialize(deserializer)?;
    if days.is_empty() {
        return Err(serde::de::Error::custom("a rule is for some days: `[\"mon\", \"tue\"]`"));
    }
    Ok(days)
}

/// `256 KiB/s`, `unlimited`, `closed`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speed(pub(crate) Rate);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = match text {
            "unlimited" => Some(Rate::Unlimited),
            "closed" => Some(Rate::Closed),
            _ => text.strip_suffix("/s").and_then(|bytes| {
                let ByteCount(bytes) = bytes.parse().ok()?;
                Some(Rate::BytesPerSecond(bytes))
            }),
        };
        rate.map(Self).ok_or_else(|| {
            format!("`{text}` is not a rate: it should look like `256 KiB/s`, or be `unlimited` or `closed`")
        })
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rate::Unlimited => f.write_str("unlimited"),
            Rate::Closed => f.write_str("closed"),
            Rate::BytesPerSecond(bytes) => write!(f, "{bytes} B/s"),
        }
    }
}

/// Hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Share(pub(crate) u8);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = u8::deserialize(deserializer)?;
        if share > 100 {
            return Err(serde::de::Error::custom("a share is at most 100 per cent"));
        }
        Ok(Self(share))
    }
}

/// `5 ms`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(pub(crate) Duration);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let delay = text.parse::<SignedDuration>().ok().and_then(|delay| Duration::try_from(delay).ok());
        delay
            .filter(|delay| TARGETS.contains(delay))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a delay between `1 ms` and `100 ms`"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us", self.0.as_micros())
    }
}

/// `Europe/Paris`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Zone(pub(crate) TimeZone);

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TimeZone::get(text).map(Self).map_err(|_| format!("`{text}` is no time zone, such as `Europe/Paris`"))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

/// Values that are written as text.
macro_rules! as_text {
    ($($type:ty),*) => {
        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }
            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                }
            }
        )*
    };
}
as_text!(Speed, Target, Zone);

mod byte_count {
    //! `4 GiB`

    use super::{ByteCount, Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's shape")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<ByteCount>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(ByteCount(bytes)) => serializer.collect_str(&format_args!("{bytes} B")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ByteCount>, D::Error> {
        let bytes = String::deserialize(deserializer)?.parse();
        bytes.map(Some).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_table_is_read_and_written_the_same() {
        let text = "
            daily-budget = '4 GiB'
            reserve-per-cent = 10
            yield = true
            yield-target = '8 ms'
            otherwise = '2 MiB/s'
            time-zone = 'Europe/Paris'
            holidays = [{ name = 'Noël', from = '2026-12-19', to = '2027-01-04' }]
            [[rule]]
            days = ['mon', 'fri']
            from = '08:00'
            to = '17:30'
            rate = '256 KiB/s'
            [[rule]]
            days = ['sat']
            from = '22:00'
            to = '05:00'
            rate = 'closed'
            on-holidays = true";
        let table: LinkTable = toml::from_str(text).unwrap();
        assert_eq!(table.daily_budget, Some(ByteCount(4 << 30)));
        assert_eq!(table.rule[0].rule().rate, Rate::BytesPerSecond(256 << 10));
        assert_eq!(toml::from_str::<LinkTable>(&toml::to_string(&table).unwrap()).unwrap(), table);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, said) in [
            ("\ndaily-budget = '4'", "`4` is not a number of bytes"),
            ("\nreserve-per-cent = 101", "at most 100"),
            ("\nyield-target = '2 s'", "between `1 ms` and `100 ms`"),
            ("\notherwise = '2 MiB'", "is not a rate"),
            ("\ntime-zone = 'Europe/Metz'", "no time zone"),
            ("\nrates = 1", "unknown field `rates`"),
            ("\nrule = [{ days = [], from = '08:00', to = '09:00', rate = 'closed' }]", "some days"),
            (
                "\nrule = [{ days = ['mon'], from = '8:00', to = '09:00', rate = 'closed' }]",
                "no time of the day",
            ),
        ] {
            let error = toml::from_str::<LinkTable>(text).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("line 2"), "{text}: {error}");
        }
    }
}
