//! What this machine says of itself, to its node: what it is and has, what changed, what failed, when it was on.
//!
//! ```text
//! <root>/college.code    the college's code (`mirabelle-node college-code`), 0600: without it, nothing is said
//! <root>/machine.key     the machine's key, made when it first has something to say, 0600
//! <root>/reports.json    what was seen last, and the signed reports that the node does not have yet
//! ```
//!
//! What is seen and what is said of it are one file, replaced as a whole: after a cut nothing is said twice, and nothing left out. It is
//! told from what is there, not from who did it: what somebody installs by hand is reported as well.
//!
//! Threats and the defence for each:
//! - *The disk is cloned*: two machines have one key. The first whose reports collide with the other's makes a key of its own, and
//!   enrols anew ([`Reports::begin_anew`]).
//! - *The machine moves to another college, or gets another name*: it makes itself a key, and enrols there.
//! - *The node was exchanged, or lost its list*: it does not know the key, and the machine enrols again.
//! - *No node takes anything for months*: so many reports are kept, and what was not kept is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mirabelle_content::durable;
use mirabelle_fleet::{CollegeCode, Enrolment, Event, Inventory, Last, Power, Report, SignedReport};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::{Digest, Instant, Machine, MachineId, PackageName, SiteId, Version};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::reports::LINES;
use mirabelle_transfer::{FetchError, Fetcher, Reply, Sent, SignedBody};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::evening::Evening;
use super::kept::{EVENING, REPORTS};
use crate::generation::Generation;
use crate::layout::Layout;
use crate::platform;
use crate::state::State;

const MAX_KEY_BYTES: u64 = 4096;
/// Reports that wait for a node: months of an ordinary machine.
const MAX_WAITING: usize = 1000;
/// Reports that are sent at once.
const MAX_SENT: usize = 200;
/// How long the node may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// After a node that did not take them, reports rest for so long.
const REST: Duration = Duration::from_mins(2);
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Where a machine's reports stand.
pub(super) struct Reports {
    machine: Machine,
    code_path: PathBuf,
    key_path: PathBuf,
    seen: Seen,
    key: Option<Arc<SigningKey>>,
    rests_until: Option<tokio::time::Instant>,
}

/// `reports.json`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Seen {
    /// For whom the key speaks.
    who: Option<(SiteId, MachineId)>,
    /// The number that was given last.
    number: u64,
    /// True once the node knows the key.
    enrolled: bool,
    /// The first report, which brings the key: for a node that does not know it any more.
    first: String,
    /// What the node does not have yet, in order.
    waiting: Vec<Waiting>,
    /// Reports that were not kept.
    lost: u64,
    /// What was said last.
    boot: String,
    /// The hour of the evening that was told.
    evening: Option<Instant>,
    /// The hour after which it was on, as it was said.
    stayed_on: Option<Instant>,
    packages: BTreeMap<PackageName, Version>,
    failed: BTreeSet<Digest>,
    inventory: Option<Inventory>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    number: u64,
    line: String,
}

/// What is there now.
pub(super) struct There {
    pub(super) current: Generation,
    pub(super) state: State,
    pub(super) evening: Option<Evening>,
    pub(super) boot: String,
    pub(super) inventory: Inventory,
}

impl Reports {
    pub(super) fn open(layout: &Layout, machine: &Machine) -> Self {
        // A machine that moved, or has another name, is another: a key speaks for one.
        let who = (machine.college.clone(), machine.id.clone());
        let seen: Option<Seen> = layout.kept(REPORTS);
        let seen = seen.filter(|seen| seen.who.as_ref() == Some(&who));
        Self {
            machine: machine.clone(),
            code_path: layout.college_code(),
            key_path: layout.root().join("machine.key"),
            seen: seen.unwrap_or_else(|| Seen { who: Some(who), ..Seen::default() }),
            key: None,
            rests_until: None,
        }
    }

    fn code(&self) -> Option<CollegeCode> {
        let text = durable::read_if_present(&self.code_path, MAX_KEY_BYTES).ok()??;
        String::from_utf8_lossy(&text)
            .parse()
            .inspect_err(|error| tracing::warn!(%error, "the college's code cannot be read"))
            .ok()
    }

    fn key(&mut self) -> Result<Arc<SigningKey>, Failure> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let what = || format!("cannot use the key `{}`", self.key_path.display());
        if self.seen.number == 0 {
            // Where nothing is known of what was said with a key, its numbers would collide with themselves.
            durable::remove_file(&self.key_path).or_fail(what)?;
        }
        let key = Arc::new(read_or_make(&self.key_path)?);
        self.key = Some(key.clone());
        Ok(key)
    }

    /// Another machine has this one's key, or says more than this one knows: from now on it has a key of its own, and says all anew.
    fn begin_anew(&mut self) -> Result<(), Failure> {
        tracing::warn!("another machine has this one's key: it makes itself another");
        let what = || format!("cannot replace `{}`", self.key_path.display());
        durable::remove_file(&self.key_path).or_fail(what)?;
        self.key = None;
        self.seen = Seen { who: self.seen.who.take(), ..Seen::default() };
        Ok(())
    }

    fn say(&mut self, at: Instant, event: Event) -> Result<(), Failure> {
        if self.seen.waiting.len() >= MAX_WAITING {
            self.seen.lost += 1;
            return Ok(());
        }
        let key = self.key()?;
        self.seen.number += 1;
        let report = Report {
            at,
            college: self.machine.college.clone(),
            event,
            machine: Some(self.machine.id.clone()),
            number: self.seen.number,
        };
        let line = SignedReport::sign(&report, &key).and_then(|signed| signed.to_line());
        let line = line.or_fail(|| "a report cannot be signed".to_owned())?;
        if self.seen.first.is_empty() {
            self.seen.first.clone_from(&line);
        }
        self.seen.waiting.push(Waiting { number: self.seen.number, line });
        Ok(())
    }

    /// Says what is another than what was said last.
    fn observe(&mut self, there: &There, now: Instant) -> Result<(), Failure> {
        if self.seen.number == 0 {
            let key = Box::new(self.key()?.public());
            self.say(now, Event::Enrolled { key })?;
        }
        if self.seen.lost > 0 && self.seen.waiting.len() < MAX_WAITING / 2 {
            let count = std::mem::take(&mut self.seen.lost);
            self.say(now, Event::Lost { count })?;
        }
        // Of the run before: what failed to go off is still here, and says so by itself.
        if let Some(evening) = there.evening.as_ref().filter(|evening| evening.boot != there.boot)
            && let Some(off) = evening.switched_off
            && self.seen.evening != Some(evening.hour)
        {
            self.seen.evening = Some(evening.hour);
            for left in &evening.left {
                let event = Event::Left { package: left.package.clone(), why: left.why.to_string() };
                self.say(off, event)?;
            }
            self.say(off, Event::Power { power: Power::Off })?;
        }
        if self.seen.boot != there.boot {
            self.seen.boot = there.boot.clone();
            self.say(now, Event::Power { power: Power::On })?;
        }
        let packages: BTreeMap<PackageName, Version> = there
            .current
            .packages
            .iter()
            .map(|(name, installed)| (name.clone(), installed.version.clone()))
            .collect();
        let before = std::mem::replace(&mut self.seen.packages, packages.clone());
        let names: BTreeSet<&PackageName> = before.keys().chain(packages.keys()).collect();
        let at = there.current.created.filter(|at| *at <= now).unwrap_or(now);
        for package in names {
            let (from, to) = (before.get(package).cloned(), packages.get(package).cloned());
            if from != to {
                self.say(at, Event::Changed { package: package.clone(), from, to })?;
            }
        }
        let failed: BTreeSet<Digest> = there.state.quarantine.keys().copied().collect();
        for (release, quarantine) in &there.state.quarantine {
            if !self.seen.failed.contains(release) {
                let event = Event::Failed { release: *release, why: quarantine.why.clone() };
                self.say(quarantine.since, event)?;
            }
        }
        self.seen.failed = failed;
        if self.seen.inventory.as_ref().is_none_or(|said| !is_alike(said, &there.inventory)) {
            self.seen.inventory = Some(there.inventory.clone());
            self.say(now, Event::Inventory { inventory: Box::new(there.inventory.clone()) })?;
        }
        Ok(())
    }

    /// The machine does not go off at its hour.
    fn stays_on(&mut self, hour: Instant, why: &str, now: Instant) -> Result<(), Failure> {
        // Said once for an evening, however often it is tried.
        if self.seen.number == 0 || self.seen.stayed_on == Some(hour) {
            return Ok(());
        }
        self.seen.stayed_on = Some(hour);
        self.say(now, Event::Power { power: Power::StayedOn { why: why.to_owned() } })
    }

    fn enrolment(&self) -> Option<Vec<u8>> {
        let first = SignedReport::parse(self.seen.first.as_bytes()).ok()?;
        Enrolment::new(first, &self.code()?).to_bytes().ok()
    }

    /// The node has everything up to here.
    fn has(&mut self, last: Last) {
        self.seen.waiting.retain(|waiting| waiting.number > last.number);
    }
}

/// A disk fills and empties all day: that alone is no news.
fn is_alike(said: &Inventory, now: &Inventory) -> bool {
    let mut now = now.clone();
    now.hardware.free_gib = said.hardware.free_gib;
    *said == now
}

fn read_or_make(path: &Path) -> Result<SigningKey, Failure> {
    let what = || format!("cannot use the key `{}`", path.display());
    if let Some(pem) = durable::read_if_present(path, MAX_KEY_BYTES).or_fail(what)? {
        return SigningKey::from_unsealed_pem(&String::from_utf8_lossy(&pem)).or_fail(what);
    }
    let key = SigningKey::generate();
    durable::write_atomically_as(path, key.to_unsealed_pem().as_bytes(), 0o600, None).or_fail(what)?;
    Ok(key)
}

impl Agent {
    /// Says what is news here, and sends what the node does not have.
    pub(super) async fn report(&mut self, stop: &CancellationToken) {
        if self.reports.code().is_none() {
            return;
        }
        let noted = tokio::task::block_in_place(|| self.note_news(Instant::now()));
        if let Err(failure) = noted {
            tracing::warn!("what happened here could not be reported\n{}", failure.render().trim_end());
            return;
        }
        let resting = self.reports.rests_until.is_some_and(|until| until > tokio::time::Instant::now());
        if resting || self.reports.seen.waiting.is_empty() {
            return;
        }
        let Some(node) = self.node() else { return };
        let sent = stop.run_until_cancelled(self.send_reports(&node)).await;
        if let Some(Err(why)) = sent {
            tracing::info!(why, "the node does not take reports now");
            self.reports.rests_until = Some(tokio::time::Instant::now() + self.jitter(REST, 3));
        }
    }

    /// Says that the machine could not be switched off at its hour.
    pub(super) fn report_staying_on(&mut self, hour: Instant, why: &str) {
        let said = self.reports.stays_on(hour, why, Instant::now()).and_then(|()| self.keep_reports());
        if let Err(failure) = said {
            tracing::warn!(
                "that the machine stays on could not be reported\n{}",
                failure.render().trim_end()
            );
        }
    }

    fn note_news(&mut self, now: Instant) -> Result<(), Failure> {
        let current = self.layout.current_generation()?;
        let inventory = Inventory {
            hardware: platform::hardware(self.layout.root()),
            platform: Some(self.config.machine.platform.clone()),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            releases: current
                .packages
                .iter()
                .map(|(name, installed)| (name.clone(), installed.version.clone()))
                .collect(),
            room: self.config.machine.room.clone(),
            system: platform::system(),
            tags: self.config.machine.tags.clone(),
        };
        let there = There {
            current,
            state: self.layout.read_state()?,
            evening: self.layout.kept(EVENING),
            boot: platform::boot(),
            inventory,
        };
        let before = self.reports.seen.clone();
        self.reports.observe(&there, now)?;
        if self.reports.seen == before { Ok(()) } else { self.keep_reports() }
    }

    fn keep_reports(&self) -> Result<(), Failure> {
        self.layout.keep(REPORTS, &self.reports.seen)
    }

    /// Sends everything that waits; why not, if the node does not take it.
    async fn send_reports(&mut self, node: &Fetcher) -> Result<(), String> {
        let college = self.config.machine.college.clone();
        let failed = |failure: Failure| failure.render();
        while !self.reports.seen.waiting.is_empty() {
            if !self.reports.seen.enrolled {
                let enrolment = self.reports.enrolment().ok_or("the enrolment cannot be signed")?;
                let path = format!("fleet/{college}/machines");
                let sent = node.exchange(&path, &[], Some(Sent::Json(enrolment)), MAX_ANSWER_BYTES);
                let reply = said(tokio::time::timeout(ANSWER_TIME, sent).await)?;
                let last = last_of(&reply)?;
                tracing::info!("this machine is enrolled with its node");
                self.reports.seen.enrolled = true;
                self.reports.has(last);
                self.keep_reports().map_err(failed)?;
                continue;
            }
            let lines: Vec<&str> = self
                .reports
                .seen
                .waiting
                .iter()
                .take(MAX_SENT)
                .map(|waiting| waiting.line.as_str())
                .collect();
            let body = SignedBody {
                bytes: lines.join("\n").into_bytes(),
                content_type: LINES,
                key: self.reports.key().map_err(failed)?,
                now: Instant::now(),
            };
            let path = format!("fleet/{college}/reports");
            let sent = node.exchange(&path, &[], Some(Sent::Signed(body)), MAX_ANSWER_BYTES);
            let reply = said(tokio::time::timeout(ANSWER_TIME, sent).await)?;
            match reply.status {
                // Another machine has the key.
                410 => {
                    self.reports.begin_anew().map_err(failed)?;
                    return self.keep_reports().map_err(failed);
                }
                401 => {
                    self.reports.seen.enrolled = false;
                    return self.keep_reports().map_err(failed);
                }
                _ => {
                    let last = last_of(&reply)?;
                    if last.number > self.reports.seen.number {
                        self.reports.begin_anew().map_err(failed)?;
                    } else {
                        self.reports.has(last);
                    }
                    self.keep_reports().map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

fn said(reply: Result<Result<Reply, FetchError>, tokio::time::error::Elapsed>) -> Result<Reply, String> {
    match reply {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn last_of(reply: &Reply) -> Result<Last, String> {
    if reply.status == 200 {
        serde_json::from_slice(&reply.body).map_err(|error| error.to_string())
    } else {
        Err(format!("status {}: {}", reply.status, String::from_utf8_lossy(&reply.body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::evening::{Left, WhyLeft};

    fn machine() -> Machine {
        Machine {
            college: "57001".parse().unwrap(),
            id: "b12-03".parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: BTreeSet::new(),
        }
    }

    fn there() -> There {
        There {
            current: Generation::none(),
            state: State::default(),
            evening: None,
            boot: "first".to_owned(),
            inventory: Inventory::default(),
        }
    }

    fn now() -> Instant {
        Instant::from_second(1_790_000_000).unwrap()
    }

    /// What was said since the last time.
    fn said(reports: &mut Reports) -> Vec<Event> {
        let key = reports.key().unwrap().public();
        let waiting = std::mem::take(&mut reports.seen.waiting);
        let read = |waiting: &Waiting| {
            SignedReport::parse(waiting.line.as_bytes()).unwrap().verify(&key).unwrap().event
        };
        waiting.iter().map(read).collect()
    }

    #[test]
    fn what_is_another_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut reports = Reports::open(&Layout::new(directory.path()), &machine());
        let mut there = there();
        reports.observe(&there, now()).unwrap();
        let names: Vec<&str> = said(&mut reports).iter().map(Event::name).collect();
        assert_eq!(names, ["enrolled", "power", "inventory"]);
        reports.observe(&there, now()).unwrap();
        assert_eq!(said(&mut reports), []);
        // A disk that fills is no news; more memory is.
        there.inventory.hardware.free_gib = 7;
        reports.observe(&there, now()).unwrap();
        assert_eq!(said(&mut reports), []);
        there.inventory.hardware.memory_mib = 8000;
        there.boot = "second".to_owned();
        reports.observe(&there, now()).unwrap();
        let names: Vec<&str> = said(&mut reports).iter().map(Event::name).collect();
        assert_eq!(names, ["power", "inventory"]);
        let failed = mirabelle_manifests::Quarantine { since: now(), why: "it did not start".to_owned() };
        there.state.quarantine(Digest::of(b"bad"), failed);
        reports.observe(&there, now()).unwrap();
        let release = Digest::of(b"bad");
        assert_eq!(said(&mut reports), [Event::Failed { release, why: "it did not start".to_owned() }]);
    }

    #[test]
    fn an_evening_is_told_with_what_it_left_and_why() {
        let directory = tempfile::tempdir().unwrap();
        let mut reports = Reports::open(&Layout::new(directory.path()), &machine());
        let mut there = there();
        reports.observe(&there, now()).unwrap();
        said(&mut reports);
        let left = Left { package: "hello".parse().unwrap(), why: WhyLeft::InUse };
        let evening = Evening {
            hour: now(),
            begun: now(),
            boot: "first".to_owned(),
            planned: Vec::new(),
            done: Vec::new(),
            left: vec![left],
            switched_off: Some(now()),
        };
        there.evening = Some(evening);
        there.boot = "second".to_owned();
        reports.observe(&there, now()).unwrap();
        let on_and_off = [Event::Power { power: Power::Off }, Event::Power { power: Power::On }];
        let why = "somebody was using it".to_owned();
        let mut expected = vec![Event::Left { package: "hello".parse().unwrap(), why }];
        expected.extend(on_and_off);
        assert_eq!(said(&mut reports), expected);
        // What cannot be switched off says so, once an evening.
        reports.stays_on(now(), "no power switch", now()).unwrap();
        reports.stays_on(now(), "no power switch", now()).unwrap();
        let why = "no power switch".to_owned();
        assert_eq!(said(&mut reports), [Event::Power { power: Power::StayedOn { why } }]);
    }

    #[test]
    fn what_nobody_takes_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut reports = Reports::open(&Layout::new(directory.path()), &machine());
        let mut there = there();
        for boot in 0..MAX_WAITING + 10 {
            there.boot = boot.to_string();
            reports.observe(&there, now()).unwrap();
        }
        assert_eq!(reports.seen.waiting.len(), MAX_WAITING);
        let lost = reports.seen.lost;
        assert!(lost > 0);
        reports.has(Last { number: reports.seen.number, digest: Digest::of(b"") });
        reports.observe(&there, now()).unwrap();
        assert_eq!(said(&mut reports), [Event::Lost { count: lost }]);
    }

    #[test]
    fn where_nothing_is_known_of_what_was_said_the_key_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        let key = || Reports::open(&layout, &machine()).key().unwrap().public();
        assert_ne!(key(), key());
        let mut reports = Reports::open(&layout, &machine());
        reports.observe(&there(), now()).unwrap();
        layout.keep(REPORTS, &reports.seen).unwrap();
        assert_eq!(key(), key());
        let before = key();
        let moved = Machine { college: "57002".parse().unwrap(), ..machine() };
        assert_ne!(Reports::open(&layout, &moved).key().unwrap().public(), before);
    }
}
