//! Wake-ups that workstations ask for before they go off: the node stays on, is on their network, and does it.
//!
//! ```text
//! POST /wake-ups  {"machine":"b12-03","mac":["02:00:00:12:34:56"],"at":"2026-11-26T06:30:00Z",      ─▶  200
//!                  "room":"B12","tags":["exam"],"platform":"linux-x86_64","free":9000000000}      the last four may be missing
//! <root>/wake-ups.json     what was asked for, replaced as a whole
//! ```
//!
//! A crash: who was to be woken is woken after the next start, unless the hour is long past.
//!
//! Threats: anybody on the network may ask that any machine be woken, as anybody there may send such a packet herself; she may
//! also ask in another's name for another hour, and so let it sleep: machines have no keys yet to sign with. What she can take from
//! the node is bounded: the request's length, how many machines are kept, how far ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Instant, MachineId, Platform, RoomName, Tag};
use serde::{Deserialize, Serialize};

use super::packet::{HardwareAddress, HardwareAddressError};

/// The most of a request.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// More machines than the largest college has.
pub(super) const MAX_MACHINES: usize = 4000;
/// Interfaces of one machine.
const MAX_ADDRESSES: usize = 16;
/// Nobody asks further ahead than the longest holidays.
const FURTHEST: SignedDuration = SignedDuration::from_hours(70 * 24);
/// Whoever was to be woken longer ago than this slept through it for a reason: the node was off.
pub(super) const TOO_LATE: SignedDuration = SignedDuration::from_hours(2);
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What a workstation asks for, and says of itself. Members that a node does not know are passed over: a newer client's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WakeUp {
    pub(super) machine: MachineId,
    mac: Vec<String>,
    pub(super) at: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<RoomName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) tags: BTreeSet<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    /// Bytes that it has for software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) free: Option<u64>,
}

impl WakeUp {
    /// Its cards.
    pub(super) fn cards(&self) -> Vec<HardwareAddress> {
        self.mac.iter().filter_map(|mac| mac.parse().ok()).collect()
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WakeUpError {
    #[error("the request cannot be read")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Address(#[from] HardwareAddressError),
    #[error("there are none or too many hardware addresses")]
    Addresses,
    #[error("{0:.0} is past, or too far away")]
    When(Instant),
    #[error("too many machines are to be woken")]
    TooMany,
    #[error("it could not be kept")]
    Disk(#[from] std::io::Error),
}

/// The wake-ups that were asked for.
#[derive(Debug)]
pub(super) struct WakeUps {
    path: PathBuf,
    asked: Mutex<BTreeMap<MachineId, WakeUp>>,
}

impl WakeUps {
    /// Takes up what was asked for before; a file that cannot be read is forgotten, as machines ask every evening.
    pub(super) fn open(path: &Path) -> Self {
        let kept = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
        let asked = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: path.to_owned(), asked: Mutex::new(asked) }
    }

    /// Takes a request; the last one of a machine counts.
    pub(super) fn ask(&self, body: &[u8], now: Instant) -> Result<WakeUp, WakeUpError> {
        let wake_up: WakeUp = serde_json::from_slice(body)?;
        if wake_up.mac.is_empty() || wake_up.mac.len() > MAX_ADDRESSES {
            return Err(WakeUpError::Addresses);
        }
        for mac in &wake_up.mac {
            mac.parse::<HardwareAddress>()?;
        }
        if wake_up.at <= now || wake_up.at.duration_since(now) > FURTHEST {
            return Err(WakeUpError::When(wake_up.at));
        }
        let mut asked = self.lock();
        if asked.len() >= MAX_MACHINES && !asked.contains_key(&wake_up.machine) {
            return Err(WakeUpError::TooMany);
        }
        tracing::info!(machine = %wake_up.machine, at = %wake_up.at, "a workstation asked to be woken");
        asked.insert(wake_up.machine.clone(), wake_up.clone());
        self.keep(&asked)?;
        Ok(wake_up)
    }

    /// True when a machine asked to be woken, and has not been.
    pub(super) fn is_waiting(&self, machine: &MachineId) -> bool {
        self.lock().contains_key(machine)
    }

    /// Those whose hour has come, and that are still worth waking; the others of that hour are forgotten.
    pub(super) fn due(&self, now: Instant) -> Vec<WakeUp> {
        let mut asked = self.lock();
        asked.retain(|_, wake_up| now.duration_since(wake_up.at) <= TOO_LATE);
        asked.values().filter(|wake_up| wake_up.at <= now).cloned().collect()
    }

    /// These were woken. Whatever the disk says, they are not woken again by this process.
    pub(super) fn were_woken<'a>(&self, machines: impl Iterator<Item = &'a MachineId>, now: Instant) {
        let mut asked = self.lock();
        for machine in machines {
            if asked.get(machine).is_some_and(|wake_up| wake_up.at <= now) {
                asked.remove(machine);
            }
        }
        if let Err(error) = self.keep(&asked) {
            tracing::warn!(%error, "wake-ups could not be kept");
        }
    }

    fn keep(&self, asked: &BTreeMap<MachineId, WakeUp>) -> Result<(), WakeUpError> {
        Ok(durable::write_atomically(&self.path, &serde_json::to_vec(asked)?)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MachineId, WakeUp>> {
        // Each change is whole before anything can panic.
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Instant {
        "2026-11-25T18:00:00Z".parse::<Instant>().unwrap() + SignedDuration::from_hours(hours)
    }

    fn request(machine: &str, mac: &str, hours: i64) -> Vec<u8> {
        format!(r#"{{"machine":"{machine}","mac":["{mac}"],"at":"{}"}}"#, at(hours)).into_bytes()
    }

    const MAC: &str = "02:00:00:12:34:56";

    #[test]
    fn the_last_request_of_a_machine_counts_and_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wake-ups.json");
        let wake_ups = WakeUps::open(&path);
        wake_ups.ask(&request("a", MAC, 5), at(0)).unwrap();
        wake_ups.ask(&request("a", MAC, 12), at(0)).unwrap();
        wake_ups.ask(&request("b", MAC, 13), at(0)).unwrap();
        let again = WakeUps::open(&path);
        assert!(again.due(at(6)).is_empty());
        let due = again.due(at(12));
        assert_eq!(due.iter().map(|wake_up| wake_up.machine.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(again.due(at(12)).len(), 1, "until it was");
        again.were_woken(due.iter().map(|wake_up| &wake_up.machine), at(12));
        assert!(again.due(at(12)).is_empty(), "once");
        assert!(WakeUps::open(&path).due(at(12)).is_empty(), "also after a restart");
        assert!(again.due(at(16)).is_empty(), "it is too late for the other");
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let directory = tempfile::tempdir().unwrap();
        let wake_ups = WakeUps::open(&directory.path().join("wake-ups.json"));
        for mac in ["", "02:00:00:12:34", "ff:ff:ff:ff:ff:ff"] {
            assert!(wake_ups.ask(&request("a", mac, 5), at(0)).is_err(), "{mac}");
        }
        for hours in [0, -1, 24 * 365] {
            assert!(matches!(wake_ups.ask(&request("a", MAC, hours), at(0)), Err(WakeUpError::When(_))));
        }
        assert!(matches!(wake_ups.ask(b"{}", at(0)), Err(WakeUpError::Malformed(_))));
        for number in 0..MAX_MACHINES {
            wake_ups.lock().insert(
                format!("m{number}").parse().unwrap(),
                serde_json::from_slice(&request("m", MAC, 5)).unwrap(),
            );
        }
        assert!(matches!(wake_ups.ask(&request("one-more", MAC, 5), at(0)), Err(WakeUpError::TooMany)));
    }

    #[test]
    fn a_newer_clients_words_are_passed_over_and_its_room_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let wake_ups = WakeUps::open(&directory.path().join("wake-ups.json"));
        let request = format!(
            r#"{{"machine":"a","mac":["{MAC}"],"at":"{}","room":"B12","tags":["exam"],"mood":"sunny"}}"#,
            at(5)
        );
        let asked = wake_ups.ask(request.as_bytes(), at(0)).unwrap();
        assert_eq!(asked.room.unwrap().as_str(), "B12");
        assert!(wake_ups.is_waiting(&"a".parse().unwrap()));
    }
}
