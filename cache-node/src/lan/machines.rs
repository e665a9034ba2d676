//! The machines of the college that can be woken: who asked before, and when the deployment wants them woken.
//!
//! ```text
//! <root>/machines.json   {"b12-03": {"cards": ["02:00:00:12:34:56"], "room": "B12", "tags": ["exam"], "platform": "linux-x86_64",
//!                                    "seen": "<when it last asked>", "woken": "<when it was woken last>"}}
//! ```
//!
//! A machine is woken at an hour of the deployment when its last sign of life is before that hour, the day is no holiday, and it did not
//! ask for another hour itself. Hours of a room or tag count where the machine said that it is in it.
//!
//! Invariant: an hour wakes a machine once; `woken` says so across restarts. A crash while many are being woken wakes some a
//! second time, which does nothing to a machine that is on. The file can be deleted: machines are known again the evening after.
//!
//! Threats: anybody on the network may make up machines; their number is bounded, and those that are known stay. She may say that
//! another's machine has another card or is in another room, and so let it sleep: machines have no keys yet to sign with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Deployment, Hours, Instant, Machine, MachineId, Platform, RoomName, SiteId, Tag};
use serde::{Deserialize, Serialize};

use super::packet::HardwareAddress;
use super::wake_ups::{MAX_MACHINES, TOO_LATE, WakeUp};

/// A machine that has not asked for longer than the summer holidays twice is no longer there.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(24 * 150);
/// Whoever was woken at another hour, less than this ago, has been woken for the day.
const SAME_MORNING: SignedDuration = SignedDuration::from_hours(12);
const MAX_FILE_BYTES: u64 = 8 << 20;

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    cards: Vec<HardwareAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<RoomName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free: Option<u64>,
    seen: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    woken: Option<Instant>,
}

/// A machine of a room, as it said of itself.
#[derive(Clone, Debug)]
pub(crate) struct InRoom {
    pub(crate) id: MachineId,
    pub(crate) platform: Option<Platform>,
    pub(crate) tags: BTreeSet<Tag>,
    /// Bytes that it has for software.
    pub(crate) free: Option<u64>,
    pub(super) cards: Vec<HardwareAddress>,
}

/// The machines that are known.
#[derive(Debug)]
pub(super) struct Machines {
    path: PathBuf,
    known: BTreeMap<MachineId, Known>,
}

impl Machines {
    /// Takes up who was known; from a file that cannot be read, nobody.
    pub(super) fn open(path: &Path) -> Self {
        let kept = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
        let known = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: path.to_owned(), known }
    }

    /// Remembers whoever asked; beyond the limit, only those that are known already.
    pub(super) fn remember(&mut self, asked: &WakeUp, now: Instant) -> std::io::Result<()> {
        self.known.retain(|_, known| now.duration_since(known.seen) <= FORGET_AFTER);
        let woken = self.known.get(&asked.machine).and_then(|known| known.woken);
        if self.known.len() >= MAX_MACHINES && !self.known.contains_key(&asked.machine) {
            tracing::warn!(machine = %asked.machine, "too many machines are known, and this one is not remembered");
            return Ok(());
        }
        let known = Known {
            cards: asked.cards(),
            room: asked.room.clone(),
            tags: asked.tags.clone(),
            platform: asked.platform.clone(),
            free: asked.free,
            seen: now,
            woken,
        };
        self.known.insert(asked.machine.clone(), known);
        self.keep()
    }

    /// Those that said they stand in this room.
    pub(super) fn in_room(&self, room: &RoomName) -> Vec<InRoom> {
        let of_room = self.known.iter().filter(|(_, known)| known.room.as_ref() == Some(room));
        of_room
            .map(|(id, known)| InRoom {
                id: id.clone(),
                platform: known.platform.clone(),
                tags: known.tags.clone(),
                free: known.free,
                cards: known.cards.clone(),
            })
            .collect()
    }

    /// Notes who was woken.
    pub(super) fn were_woken<'a>(
        &mut self,
        machines: impl IntoIterator<Item = &'a MachineId>,
        now: Instant,
    ) -> std::io::Result<()> {
        for machine in machines {
            if let Some(known) = self.known.get_mut(machine) {
                known.woken = Some(now);
            }
        }
        self.keep()
    }

    /// Who is to be woken at an hour of the deployment that has come, and was not yet.
    pub(super) fn due(
        &self,
        deployment: &Deployment,
        college: &SiteId,
        now: Instant,
    ) -> Vec<(MachineId, Vec<HardwareAddress>)> {
        let due = self.known.iter().filter(|(id, known)| known.is_due(id, deployment, college, now));
        due.map(|(id, known)| (id.clone(), known.cards.clone())).collect()
    }

    fn keep(&self) -> std::io::Result<()> {
        durable::write_atomically(&self.path, &serde_json::to_vec(&self.known)?)
    }
}

impl Known {
    fn is_due(&self, id: &MachineId, deployment: &Deployment, college: &SiteId, now: Instant) -> bool {
        let woken_for_the_day = self.woken.is_some_and(|woken| now.duration_since(woken) < SAME_MORNING);
        if woken_for_the_day || now.duration_since(self.seen) > FORGET_AFTER {
            return false;
        }
        let machine = Machine {
            college: college.clone(),
            id: id.clone(),
            model: None,
            platform: self.platform.clone().unwrap_or_else(Platform::any),
            room: self.room.clone(),
            tags: self.tags.clone(),
        };
        let timetable = deployment.timetable(&machine);
        let since = now.checked_sub(TOO_LATE).unwrap_or(Instant::MIN).max(self.seen);
        let hour = timetable.wake_after(since).filter(|hour| *hour <= now);
        hour.is_some_and(|hour| !is_holiday(&deployment.hours_of(&machine), timetable.zone(), hour))
    }
}

/// True when the closest audience that gives holidays gives that day.
fn is_holiday(own: &[Hours], zone: &jiff::tz::TimeZone, at: Instant) -> bool {
    let date = at.to_zoned_datetime(zone.clone()).date();
    let holidays = own.iter().rev().find_map(|hours| hours.holidays.as_ref());
    holidays.into_iter().flatten().any(|holiday| (holiday.from..=holiday.to).contains(&date))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    fn deployment() -> Deployment {
        let json = r#"{"_type":"deployment","assignments":[],"hours":[
            {"holidays":[{"from":"2026-12-19","name":"Noël","to":"2027-01-03"}],"time-zone":"Europe/Paris","to":{},
             "wake":[{"at":"07:15","days":["mon","tue","wed","thu","fri"]}]},
            {"to":{"rooms":["B12"]},"wake":[{"at":"06:15","days":["mon"]}]}]}"#;
        Deployment::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn asked(machine: &str, room: Option<&str>) -> WakeUp {
        let room = room.map_or(String::new(), |room| format!(r#","room":"{room}""#));
        let json = format!(
            r#"{{"machine":"{machine}","mac":["02:00:00:12:34:56"],"at":"2026-11-26T00:00:00Z"{room}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn names(due: &[(MachineId, Vec<HardwareAddress>)]) -> Vec<&str> {
        due.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn machines_are_woken_once_at_the_hour_of_their_room_and_not_on_holidays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machines.json");
        let (deployment, college) = (deployment(), "57001".parse().unwrap());
        let mut machines = Machines::open(&path);
        // A Friday evening.
        machines.remember(&asked("a", None), at("2026-11-27T17:00:00Z")).unwrap();
        machines.remember(&asked("b12-03", Some("B12")), at("2026-11-27T17:00:00Z")).unwrap();
        let due =
            |machines: &Machines, now: &str| names(&machines.due(&deployment, &college, at(now))).join(" ");
        assert_eq!(due(&machines, "2026-11-28T06:20:00Z"), "", "no Saturday is among them");
        assert_eq!(due(&machines, "2026-11-30T05:16:00Z"), "b12-03");
        assert_eq!(due(&machines, "2026-11-30T06:14:00Z"), "b12-03", "as long as it was not");
        let woken: Vec<MachineId> = vec!["b12-03".parse().unwrap()];
        machines.were_woken(&woken, at("2026-11-30T05:16:00Z")).unwrap();
        let mut machines = Machines::open(&path);
        assert_eq!(due(&machines, "2026-11-30T06:16:00Z"), "a", "the other was, and the node remembers it");
        assert_eq!(due(&machines, "2026-11-30T08:30:00Z"), "", "it is too late");
        assert_eq!(due(&machines, "2026-12-18T06:16:00Z"), "a");
        assert_eq!(due(&machines, "2026-12-21T06:16:00Z"), "", "holidays");
        assert_eq!(due(&machines, "2027-01-04T06:16:00Z"), "a b12-03");
        // It was on at the hour: it asked after that.
        machines.remember(&asked("a", None), at("2027-01-04T06:15:30Z")).unwrap();
        assert_eq!(due(&machines, "2027-01-04T06:16:00Z"), "b12-03");
    }

    #[test]
    fn whoever_has_not_asked_for_months_is_forgotten_and_only_so_many_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let mut machines = Machines::open(&directory.path().join("machines.json"));
        let (deployment, college) = (deployment(), "57001".parse().unwrap());
        machines.remember(&asked("old", None), at("2026-05-01T17:00:00Z")).unwrap();
        assert!(machines.due(&deployment, &college, at("2026-11-30T06:16:00Z")).is_empty());
        machines.remember(&asked("new", None), at("2026-11-27T17:00:00Z")).unwrap();
        assert_eq!(machines.known.len(), 1);
        let known = machines.known.values().next().unwrap().clone();
        for number in 1..MAX_MACHINES {
            machines.known.insert(format!("m{number}").parse().unwrap(), known.clone());
        }
        machines.remember(&asked("one-more", None), at("2026-11-27T17:00:00Z")).unwrap();
        assert_eq!(machines.known.len(), MAX_MACHINES);
        assert!(!machines.known.contains_key(&"one-more".parse().unwrap()));
    }
}
