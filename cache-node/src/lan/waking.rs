//! Waking machines at their hour, one after the other.
//!
//! Seven hundred machines that come up in the same second blow a fuse and take the node's link and disk at once: between two of
//! them lies [`BETWEEN`], so that they come up over three minutes, in an order that has nothing to do with rooms.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirabelle_content::durable;
use mirabelle_manifests::{Deployment, Digest, Instant, MachineId, RoomName, SiteId};
use mirabelle_transfer::kept_network;
use tokio_util::sync::CancellationToken;

use super::machines::{InRoom, Machines};
use super::packet::{HardwareAddress, WakeTo};
use super::wake_ups::{WakeUpError, WakeUps};
use crate::site::Site;

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Machines that are noted together: so many may be woken twice.
const NOTED_AT_ONCE: usize = 16;
/// Between two machines: 700 take three minutes.
const BETWEEN: Duration = Duration::from_millis(250);
/// The most of a timestamp.
const MAX_TIMESTAMP_BYTES: u64 = 64 << 10;

/// Wakes machines.
#[derive(Debug)]
pub(crate) struct Waking {
    site: Site,
    college: SiteId,
    to: WakeTo,
    asked: WakeUps,
    machines: Mutex<Machines>,
}

/// The deployment, and the timestamp that led to it: read anew only when that changes.
#[derive(Default)]
struct Plan {
    timestamp: Vec<u8>,
    deployment: Option<Deployment>,
}

impl Waking {
    pub(crate) fn open(site: &Site, college: SiteId, to: WakeTo) -> Self {
        let file = |name: &str| -> PathBuf { site.path(name) };
        Self {
            asked: WakeUps::open(&file("wake-ups.json")),
            machines: Mutex::new(Machines::open(&file("machines.json"))),
            site: site.clone(),
            college,
            to,
        }
    }

    /// Takes a workstation's request.
    pub(crate) fn ask(&self, body: &[u8], now: Instant) -> Result<(), WakeUpError> {
        let asked = self.asked.ask(body, now)?;
        Ok(self.machines().remember(&asked, now)?)
    }

    /// The machines that said they stand in this room.
    pub(crate) fn machines_in(&self, room: &RoomName) -> Vec<InRoom> {
        self.machines().in_room(room)
    }

    /// Wakes a room, whatever the hour.
    pub(crate) async fn wake_room(&self, room: &RoomName) {
        for (place, machine) in self.machines_in(room).into_iter().enumerate() {
            if place > 0 {
                tokio::time::sleep(BETWEEN).await;
            }
            match self.to.wake(&machine.cards).await {
                Ok(()) => tracing::info!(machine = %machine.id, "a workstation was woken for its room"),
                Err(error) => {
                    tracing::warn!(machine = %machine.id, %error, "a workstation could not be woken");
                }
            }
        }
    }

    /// Wakes machines at their hour, until the node stops.
    pub(crate) async fn keep_waking(self: Arc<Self>, stop: &CancellationToken) {
        let mut plan = Plan::default();
        loop {
            plan.renew(&self.site).await;
            let (waking, deployment) = (self.clone(), plan.deployment.take());
            let looking = tokio::task::spawn_blocking(move || {
                (waking.due(deployment.as_ref(), Instant::now()), deployment)
            });
            let Ok((due, deployment)) = looking.await else {
                tracing::error!("who is to be woken could not be worked out, and nobody is woken any more");
                return;
            };
            plan.deployment = deployment;
            let finished = stop.run_until_cancelled(self.wake(due)).await;
            if finished.is_none() || stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none()
            {
                return;
            }
        }
    }

    /// Who is to be woken now, in the order in which it is done.
    fn due(&self, deployment: Option<&Deployment>, now: Instant) -> Vec<(MachineId, Vec<HardwareAddress>)> {
        let asked = self.asked.due(now);
        let machines = self.machines();
        let mut due: Vec<_> =
            asked.into_iter().map(|wake_up| (wake_up.machine.clone(), wake_up.cards())).collect();
        let hours = deployment.map(|deployment| machines.due(deployment, &self.college, now));
        for (machine, cards) in hours.into_iter().flatten() {
            // Who asked for an hour itself is woken then.
            let its_own = self.asked.is_waiting(&machine) || due.iter().any(|(other, _)| *other == machine);
            if !its_own {
                due.push((machine, cards));
            }
        }
        due.sort_by_cached_key(|(machine, _)| Digest::of(machine.as_str().as_bytes()));
        due
    }

    /// Wakes them, and notes it a few at a time: who was not reached before the node stopped is woken when it is back.
    async fn wake(self: &Arc<Self>, due: Vec<(MachineId, Vec<HardwareAddress>)>) {
        for (number, few) in due.chunks(NOTED_AT_ONCE).enumerate() {
            for (place, (machine, cards)) in few.iter().enumerate() {
                if number + place > 0 {
                    tokio::time::sleep(BETWEEN).await;
                }
                match self.to.wake(cards).await {
                    Ok(()) => tracing::info!(%machine, "a workstation was woken"),
                    Err(error) => tracing::warn!(%machine, %error, "a workstation could not be woken"),
                }
            }
            let woken: Vec<MachineId> = few.iter().map(|(machine, _)| machine.clone()).collect();
            let waking = self.clone();
            if tokio::task::spawn_blocking(move || waking.were_woken(&woken, Instant::now())).await.is_err() {
                tracing::error!("who was woken could not be noted");
            }
        }
    }

    fn were_woken(&self, woken: &[MachineId], now: Instant) {
        self.asked.were_woken(woken.iter(), now);
        if let Err(error) = self.machines().were_woken(woken.iter(), now) {
            tracing::warn!(%error, "who is woken could not be kept");
        }
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        // Each change is whole before anything can panic.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Reads the deployment that is trusted, if it can have changed. One that cannot be read leaves the one before.
    async fn renew(&mut self, site: &Site) {
        let path = site.served().path("metadata/timestamp.json");
        let read = tokio::task::spawn_blocking(move || durable::read_if_present(&path, MAX_TIMESTAMP_BYTES));
        let Ok(Ok(Some(timestamp))) = read.await else { return };
        if self.deployment.is_some() && timestamp == self.timestamp {
            return;
        }
        match kept_network(&site.trust(), Instant::now()).await {
            Ok(network) => *self = Self { timestamp, deployment: Some(network.deployment) },
            Err(error) => tracing::debug!(%error, "the deployment's hours cannot be read yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waking(directory: &std::path::Path) -> Waking {
        Waking::open(&Site::new(directory), "57001".parse().unwrap(), WakeTo::own_network())
    }

    fn at(text: &str) -> Instant {
        text.parse().unwrap()
    }

    fn ask(waking: &Waking, machine: &str, hour: &str, now: &str) {
        let json = format!(r#"{{"machine":"{machine}","mac":["02:00:00:12:34:56"],"at":"{hour}"}}"#);
        waking.ask(json.as_bytes(), at(now)).unwrap();
    }

    #[test]
    fn whoever_asked_for_another_hour_is_woken_then_and_not_twice() {
        let directory = tempfile::tempdir().unwrap();
        let waking = waking(directory.path());
        let json = r#"{"_type":"deployment","assignments":[],
            "hours":[{"time-zone":"UTC","to":{},"wake":[{"at":"07:00","days":["fri"]}]}]}"#;
        let deployment = Deployment::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
        let evening = "2026-11-26T17:00:00Z";
        ask(&waking, "early", "2026-11-27T06:00:00Z", evening);
        ask(&waking, "late", "2026-11-27T09:00:00Z", evening);
        ask(&waking, "same", "2026-11-27T07:00:00Z", evening);
        // It was known from before; its own wish was fulfilled days ago.
        ask(&waking, "known", "2026-11-26T18:00:00Z", evening);
        let due = |now: &str| {
            let mut woken: Vec<MachineId> =
                waking.due(Some(&deployment), at(now)).into_iter().map(|(id, _)| id).collect();
            waking.were_woken(&woken, at(now));
            woken.sort();
            woken.iter().map(MachineId::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(due("2026-11-26T18:00:01Z"), "known");
        assert_eq!(due("2026-11-27T06:00:01Z"), "early");
        assert_eq!(due("2026-11-27T07:00:01Z"), "known same");
        assert_eq!(due("2026-11-27T07:00:21Z"), "");
        assert_eq!(due("2026-11-27T09:00:01Z"), "late");
        assert_eq!(due("2026-11-27T09:00:21Z"), "");
    }

    #[test]
    fn the_machines_of_a_room_do_not_come_up_in_a_row() {
        let directory = tempfile::tempdir().unwrap();
        let waking = waking(directory.path());
        for number in 0..40 {
            let room = if number < 20 { "b12" } else { "c07" };
            ask(&waking, &format!("{room}-{number:02}"), "2026-11-27T07:00:00Z", "2026-11-26T17:00:00Z");
        }
        let order = waking.due(None, at("2026-11-27T07:00:01Z"));
        let changes = order.windows(2).filter(|two| two[0].0.as_str()[..3] != two[1].0.as_str()[..3]).count();
        assert!(changes > 8, "{changes} changes of the room among 40 machines");
    }
}
