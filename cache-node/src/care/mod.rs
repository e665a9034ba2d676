//! What a node does for itself while nobody looks: reads through what it holds, has repaired what the disk changed, and says in
//! time what somebody must know.
//!
//! ```text
//! scrub.rs     every object read through in the course of a week, within an I/O budget
//! alarms.rs    what somebody must know, each once, with what to do
//! smart.rs     what the disk says of itself
//! watchdog.rs  systemd is told that the node is alive, as long as it is
//! ```

mod alarms;
mod scrub;
mod smart;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use mirabelle_manifests::Instant;
use mirabelle_manifests::network::{catalogue_role, deployment_role};
use mirabelle_manifests::tuf::RoleName;
use mirabelle_transfer::Network;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::alarms::{Alarm, Alarms, Raised};
pub(crate) use self::scrub::{Scrub, read_scrubbed};
use self::smart::Smart;
pub(crate) use self::watchdog::{Pulse, Watchdog};
use crate::disk::{Disk, Stage};
use crate::mirror::Current;
use crate::site::Site;

/// How often the node looks whether somebody must know something.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How old what is known of the room may be: where there is a quota, looking reads every folder.
const LOOK_AT_DISK_EVERY: Duration = Duration::from_mins(15);
/// How often the disk is asked how it is.
const ASK_DISK_EVERY: Duration = Duration::from_hours(12);
/// A node that was not complete, or did not understand its upstream, for this many hours should be looked at.
const WITHOUT_UPSTREAM_HOURS: i64 = 24;

/// What care is taken of.
pub(crate) struct Care {
    pub(crate) site: Site,
    pub(crate) disk: Disk,
    pub(crate) served: watch::Receiver<Current>,
    pub(crate) alarms: Arc<Alarms>,
    /// Told at the end of each sync.
    pub(crate) synced: watch::Receiver<u64>,
}

impl Care {
    /// Looks again and again, and after each sync, until the node stops.
    pub(crate) async fn keep(mut self, stop: &CancellationToken) {
        let smart = Smart::of(&self.site.path(""));
        let mut failing = None;
        let mut asked: Option<tokio::time::Instant> = None;
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_DISK_EVERY) {
                failing = smart.failing().await;
                asked = Some(tokio::time::Instant::now());
            }
            let now = Instant::now();
            let mut current = tokio::task::block_in_place(|| self.assess(now));
            current.extend(failing.clone());
            tokio::task::block_in_place(|| self.alarms.update(current, now));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Ok(()) = self.synced.changed() => {}
            }
        }
    }

    /// What somebody must know at `now`.
    fn assess(&self, now: Instant) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let state = self.site.state();
        if let Some(network) = self.served.borrow().network() {
            alarms.extend(
                expiries(&network).into_iter().filter_map(|(role, at)| Alarm::expiry(&role, at, now)),
            );
            if let Some(clock) = network.clock_behind() {
                alarms.push(Alarm::Clock { seems: clock.says, at_least: clock.at_least });
            }
        }
        if let Some(refreshed) = state.refreshed {
            if now < refreshed {
                alarms.push(Alarm::Clock { seems: now, at_least: refreshed });
            } else if now.duration_since(refreshed).as_hours() >= WITHOUT_UPSTREAM_HOURS {
                alarms.push(Alarm::NoUpstream { since: refreshed });
            }
        }
        if let Some(since) = state.fresh_until.filter(|_| state.snapshot > 0 && state.is_stale(now)) {
            alarms.push(Alarm::Stale { since });
        }
        let tasks = crate::mirror::read_plan(&self.site.path("plan.json"));
        let homeless = tasks.iter().filter(|task| task.must && task.state == crate::mirror::Step::NoRoom);
        let homeless: Vec<String> =
            homeless.map(|task| format!("{} {}", task.package, task.version)).collect();
        if !homeless.is_empty() {
            alarms.push(Alarm::NoRoom { releases: homeless });
        } else if self.disk.room_within(LOOK_AT_DISK_EVERY).is_ok_and(|room| room.stage >= Stage::Cramped) {
            alarms.push(Alarm::LittleRoom);
        }
        let scrubbed = read_scrubbed(&self.site.path("scrub.json"));
        if scrubbed.unreadable > 0 {
            alarms.push(Alarm::DiskErrors { files: scrubbed.unreadable });
        }
        alarms
    }
}

/// When what was signed by people expires: the online roles are renewed by themselves, and whether they are is told by what is
/// stale.
fn expiries(network: &Network) -> Vec<(RoleName, Instant)> {
    let trusted = &network.trusted;
    let mut expiries = vec![(RoleName::root(), trusted.root().expires)];
    expiries.extend(trusted.targets().map(|targets| (RoleName::targets(), targets.expires)));
    for role in [catalogue_role(), deployment_role()] {
        let found = trusted.delegated(&role, &RoleName::targets());
        expiries.extend(found.map(|targets| (role, targets.expires)));
    }
    expiries
}

/// Keeps reading through what is held, and has the mirror look when something is wrong.
pub(crate) async fn keep_scrubbing(scrub: &Scrub, look: &Notify, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            found = scrub.next_folder(stop) => if found {
                look.notify_one();
            },
        }
    }
}
