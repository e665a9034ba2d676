//! What somebody must know: each thing once, with what to do, until it is over.
//!
//! ```text
//! <root>/alarms.json     {"expiry-catalogue-7": {"since": "…", "alarm": {…}, "what": "…", "to_do": "…"}}
//! ```
//!
//! An alarm is a warning in the log when it begins, and a line when it is over; in between it is on the status page and in the
//! metrics. Started anew, a node does not repeat itself. The file can be deleted: then it does, once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mirabelle_content::durable;
use mirabelle_manifests::Instant;
use mirabelle_manifests::tuf::RoleName;
use serde::{Deserialize, Serialize};

const MAX_FILE_BYTES: u64 = 1 << 20;
/// Days before something expires at which it is said.
const DAYS: [i64; 3] = [1, 7, 30];

/// Something that somebody must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Alarm {
    /// What people signed expires within so many days.
    Expiry { role: String, days: i64, at: Instant },
    /// What is served is no longer fresh.
    Stale { since: Instant },
    /// No upstream was understood for a day.
    NoUpstream { since: Instant },
    /// The clock is behind what it must be.
    Clock { seems: Instant, at_least: Instant },
    /// What the college is owed has no room.
    NoRoom { releases: Vec<String> },
    /// Room is scarce.
    LittleRoom,
    /// The disk says that it will fail.
    DiskFailing { device: String },
    /// Files could not be read.
    DiskErrors { files: u64 },
}

/// An alarm that is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Raised {
    pub(crate) since: Instant,
    pub(crate) alarm: Alarm,
    /// In words.
    pub(crate) what: String,
    pub(crate) to_do: String,
}

impl Alarm {
    /// The alarm for something that expires `at`, if it is near enough at `now`.
    pub(super) fn expiry(role: &RoleName, at: Instant, now: Instant) -> Option<Self> {
        let hours = at.duration_since(now).as_hours();
        let days = DAYS.into_iter().find(|days| hours < days * 24)?;
        Some(Self::Expiry { role: role.to_string(), days, at })
    }

    /// What makes it the same alarm.
    fn key(&self) -> String {
        match self {
            Self::Expiry { role, days, .. } => format!("expiry-{role}-{days}"),
            Self::Stale { .. } => "stale".to_owned(),
            Self::NoUpstream { .. } => "no-upstream".to_owned(),
            Self::Clock { .. } => "clock".to_owned(),
            Self::NoRoom { .. } => "no-room".to_owned(),
            Self::LittleRoom => "little-room".to_owned(),
            Self::DiskFailing { .. } => "disk-failing".to_owned(),
            Self::DiskErrors { .. } => "disk-errors".to_owned(),
        }
    }

    /// In words.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Expiry { role, at, .. } => format!("what the role `{role}` signed expires on {at:.0}"),
            Self::Stale { since } => format!("what is served is stale since {since:.0}"),
            Self::NoUpstream { since } => format!("no upstream gave a valid answer since {since:.0}"),
            Self::Clock { seems, at_least } => {
                format!("the clock says {seems:.0}, and it is {at_least:.0} or later")
            }
            Self::NoRoom { releases } => format!("there is no room for {}", releases.join(", ")),
            Self::LittleRoom => "less than 5 % of the room is left".to_owned(),
            Self::DiskFailing { device } => format!("{device} says that it is about to fail"),
            Self::DiskErrors { files } => format!("{files} files could not be read from the disk"),
        }
    }

    /// What to do.
    pub(crate) fn to_do(&self) -> &'static str {
        match self {
            Self::Expiry { .. } => "have it signed again by whoever holds the role's keys",
            Self::Stale { .. } => {
                "see whether the publisher renews the timestamp, and whether an upstream is reached"
            }
            Self::NoUpstream { .. } => {
                "see `mirabelle-node status` for what each upstream says, and whether the link is up"
            }
            Self::Clock { .. } => "set the clock, or see why it is not set by the network",
            Self::NoRoom { .. } | Self::LittleRoom => {
                "`mirabelle-node doctor` says what takes the space; raise the quota, or have less deployed here"
            }
            Self::DiskFailing { .. } => {
                "replace the disk; `mirabelle-node export` first saves the way over the link"
            }
            Self::DiskErrors { .. } => {
                "what could not be read is fetched again; if it comes back, replace the disk"
            }
        }
    }
}

/// The alarms of one node.
#[derive(Debug)]
pub(crate) struct Alarms {
    path: PathBuf,
    raised: Mutex<BTreeMap<String, Raised>>,
}

impl Alarms {
    /// Those that were on when the node stopped.
    pub(crate) fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), raised: Mutex::new(read_alarms(path)) }
    }

    /// Those that are on.
    pub(crate) fn raised(&self) -> BTreeMap<String, Raised> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are on at `now`, and no others.
    pub(crate) fn update(&self, current: Vec<Alarm>, now: Instant) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *raised);
        for alarm in current {
            let key = alarm.key();
            let known = before.get(&key);
            if known.is_none() {
                tracing::warn!(alarm = key, to_do = alarm.to_do(), "{}", alarm.what());
            }
            let since = known.map_or(now, |known| known.since);
            let (what, to_do) = (alarm.what(), alarm.to_do().to_owned());
            raised.insert(key, Raised { since, alarm, what, to_do });
        }
        for (key, over) in before.iter().filter(|(key, _)| !raised.contains_key(*key)) {
            tracing::info!(alarm = key, "it is over: {}", over.what);
        }
        let same = |(a, b): (&Raised, &Raised)| a.alarm == b.alarm;
        if raised.len() == before.len() && raised.values().zip(before.values()).all(same) {
            return;
        }
        let written = serde_json::to_vec_pretty(&*raised)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::write_atomically(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "the alarms could not be kept");
        }
    }
}

/// The alarms that are on, as the node wrote them.
fn read_alarms(path: &Path) -> BTreeMap<String, Raised> {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    #[test]
    fn says_thirty_seven_and_one_days_before_something_expires() {
        let expires = at("2026-12-31T12:00:00Z");
        for (now, days) in [
            ("2026-11-30T12:00:00Z", None),
            ("2026-12-02T12:00:00Z", Some(30)),
            ("2026-12-24T11:00:00Z", Some(30)),
            ("2026-12-25T12:00:00Z", Some(7)),
            ("2026-12-30T13:00:00Z", Some(1)),
            ("2027-02-01T00:00:00Z", Some(1)),
        ] {
            let alarm = Alarm::expiry(&RoleName::root(), expires, at(now));
            let said = alarm.map(|alarm| match alarm {
                Alarm::Expiry { days, .. } => days,
                other => panic!("{other:?}"),
            });
            assert_eq!(said, days, "{now}");
        }
    }

    #[test]
    fn each_is_raised_once_survives_a_restart_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alarms.json");
        let stale = || Alarm::Stale { since: at("2026-11-26T00:00:00Z") };
        let alarms = Alarms::open(&path);
        alarms.update(vec![stale(), Alarm::LittleRoom], at("2026-11-26T08:00:00Z"));
        alarms.update(vec![stale()], at("2026-11-26T09:00:00Z"));
        Alarms::open(&path).update(vec![stale()], at("2026-11-26T10:00:00Z"));
        let on = read_alarms(&path);
        assert_eq!(on.len(), 1);
        assert_eq!(on["stale"].since, at("2026-11-26T08:00:00Z"), "since it began");
        Alarms::open(&path).update(vec![], at("2026-11-26T11:00:00Z"));
        assert!(read_alarms(&path).is_empty());
    }
}
