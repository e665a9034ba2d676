//! What the node says of itself, signed as every machine's reports are.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use mirabelle_fleet::{Event, NodeState, Report, SignedReport};
use mirabelle_manifests::Instant;
use mirabelle_transfer::Link;
use mirabelle_transfer::serve::ServeStats;

use super::Fleet;
use crate::care::{Alarms, read_scrubbed};
use crate::disk::Disk;
use crate::proof;
use crate::site::Site;

/// What does not change is said again as often as this: silence is a sign, too.
const SAID_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Where a node reads how it stands.
pub(crate) struct Sources {
    pub(crate) site: Site,
    pub(crate) stats: Arc<ServeStats>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) disk: Disk,
    pub(crate) link: Arc<Link>,
}

impl Sources {
    fn state(&self, now: Instant) -> NodeState {
        let state = self.site.state();
        let complete = proof::read(&self.site.served().path("complete.json"));
        let room = self.disk.room_lately().ok();
        let link = self.link.report(now);
        NodeState {
            alarms: self.alarms.raised().into_keys().collect(),
            bytes: state.releases.iter().map(|held| held.bytes).sum(),
            complete_at: complete.map(|complete| complete.snapshot),
            disk_capacity_bytes: room.map_or(0, |room| room.capacity),
            disk_left_bytes: room.map_or(0, |room| room.left),
            fresh_until: state.fresh_until,
            link_budget_bytes: link.budget,
            link_spent_bytes: link.spent,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            received_bytes: state.received_bytes,
            refreshed: state.refreshed,
            releases: state.releases.len() as u64,
            sent_bytes: self.stats.now().bytes,
            set_aside: read_scrubbed(&self.site.path("scrub.json")).set_aside,
        }
    }
}

/// How the node stands, and what was said of it last.
pub(super) struct Own {
    sources: Sources,
    said: Mutex<Option<(Instant, NodeState)>>,
}

impl Own {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources, said: Mutex::default() }
    }

    /// What was to be said could not be kept: it is news still.
    fn take_back(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The state, if it is worth saying.
    fn news(&self, now: Instant) -> Option<NodeState> {
        let state = self.sources.state(now);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let was_said = said
            .as_ref()
            .is_some_and(|(at, before)| state.is_like(before) && now.duration_since(*at).abs() < SAID_AGAIN);
        (!was_said).then(|| said.insert((now, state)).1.clone())
    }
}

impl Fleet {
    /// Adds what the node says of itself to what waits, if there is something to say.
    pub(super) fn report_itself(&self, now: Instant) -> io::Result<()> {
        let Some(state) = self.own.news(now) else { return Ok(()) };
        let id = self.key.public().id();
        let mut kept = self.kept();
        let report =
            |event, number| Report { at: now, college: self.college.clone(), event, machine: None, number };
        let (mut lines, before) = (Vec::new(), kept.machines.last(&id));
        if kept.machines.last(&id).is_none() {
            let report = report(Event::Enrolled { key: Box::new(self.key.public()) }, 1);
            let first = SignedReport::sign(&report, &self.key).map_err(io::Error::other)?;
            lines.push(first.to_line().map_err(io::Error::other)?);
            kept.machines.enrol(&report, self.key.public(), first);
        }
        let number = kept.machines.last(&id).map_or(1, |last| last.number) + 1;
        let report = report(Event::Node { state: Box::new(state) }, number);
        let signed = SignedReport::sign(&report, &self.key).map_err(io::Error::other)?;
        if kept.machines.take(&id, &signed) == Ok(true) {
            lines.push(signed.to_line().map_err(io::Error::other)?);
        }
        if let Err(error) = kept.spool.put(&lines) {
            kept.machines.back_to(&id, before);
            self.own.take_back();
            return Err(error);
        }
        kept.machines.keep()
    }
}
