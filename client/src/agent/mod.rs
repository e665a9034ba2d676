//! The agent: keeps a workstation at what the deployment says, quietly, and switches it off in the evening.
//!
//! ```text
//!            ┌────────────── clock, wishes (socket.rs), the stop signal
//!            ▼
//!   View ─▶ Task (schedule.rs) ─▶ a command of this program, in a process of its own (worker.rs)
//!            │                                   │
//!            │  outlook.json ◀── plan ◀──────────┘
//!            └▶ Evening (evening.rs) ─▶ inhibitor, installs, wake-ups, power off (power.rs)
//! ```
//!
//! It takes no focus, shows nothing, and holds up no login. In a lesson it does nothing but ask the node whether there is news, which
//! is one small request, and read it if there is; and say what is news here, which is another (`reports.rs`). Whatever it was doing when the power went, the next start finishes or takes back (`mirabelle resume`, before
//! login); what was to be done is decided anew, from signed documents.
//!
//! One agent per directory: `agent.lock`. It holds no lock while it sleeps, and its commands take theirs as anybody's do.

pub(crate) mod evening;
pub(crate) mod kept;
pub(crate) mod schedule;
pub(crate) mod self_update;
pub(crate) mod socket;

mod orders;
mod power;
mod reports;
mod rest;
mod usage;
mod wake;
mod wishes;
mod work;
mod worker;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Digest, Groups, Instant, PackageName, Timetable};
use mirabelle_terminal::{Failure, OrFail, Progress, stop_signal};
use mirabelle_transfer::{Fetcher, RetryPolicy, is_unchanged};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::evening::{Evening, Measured, remaining};
use self::kept::{EVENING, MEASURED, OUTLOOK};
use self::orders::RoomOrders;
use self::power::Power;
use self::reports::Reports;
use self::rest::{Rest, SHORTEST_REST};
use self::schedule::{Task, View};
use self::socket::{Wish, Wishes};
use self::worker::{Done, Worker};
use crate::config::Config;
use crate::discover;
use crate::layout::Layout;
use crate::outlook::{Due, Outlook};
use crate::platform;
use crate::store::Store;

/// How often the watchdog hears that the agent is alive, where nobody says how often it wants to.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often settings are compared with what they should be.
const AUDIT_EVERY: Duration = Duration::from_hours(1);
/// How long looking ahead may take.
const LOOKING: Duration = Duration::from_mins(10);
/// How often a node is looked for, while the one that is known does not answer.
const SEARCH_EVERY: Duration = Duration::from_mins(15);
/// How much further than the time at work the clock may go on: more is a suspended machine.
const LONGEST_GAP: Duration = Duration::from_mins(2);
/// Wishes that wait.
const MAX_WISHES: usize = 8;

/// The agent of one workstation.
pub(crate) struct Agent {
    layout: Layout,
    config: Config,
    worker: Worker,
    power: Power,
    /// Whoever is asked, once somebody was found.
    node: Option<Fetcher>,
    /// On which network a node was looked for last, and when.
    searched: Option<(String, Instant)>,
    refresh_every: Duration,
    timetable: Timetable,
    outlook: Option<Outlook>,
    measured: Measured,
    last_evening: Option<Instant>,
    refresh_at: Instant,
    /// Since when the machine has been on, and the agent has looked at its clock without a break.
    awake_since: Instant,
    looked_at_clock: (Instant, tokio::time::Instant),
    /// Since when the outlook is known.
    looked_ahead: Instant,
    installing: Rest,
    fetching: Rest,
    switching_off: Rest,
    /// The release of this program that is installed, as of the start.
    own_release: Option<Digest>,
    /// Its lock, held so that its tree is not swept from under it.
    _own_lock: Option<fs_err::File>,
    /// Told when somebody has a wish.
    waiting: Arc<Notify>,
    /// What the room was ordered.
    orders: RoomOrders,
    reports: Reports,
}

/// Why the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was asked to.
    Stopped,
    /// Another release of it is installed, and takes over at the next start.
    Replaced,
    /// The machine is going off.
    SwitchedOff,
}

impl Agent {
    pub(crate) fn new(layout: Layout, config: Config) -> Result<Self, Failure> {
        let what = || "cannot start the agent".to_owned();
        let refresh_every = config.agent.refresh_every()?;
        // One that did not come to its end is made again, in what remains of its time; and its hour counts, if the machine was
        // on all the time and only the agent was started anew.
        let (ended, unended): (Option<Evening>, Option<Evening>) = match layout.kept::<Evening>(EVENING) {
            Some(evening) if evening.switched_off.is_some() => (Some(evening), None),
            kept => (None, kept),
        };
        let same_run = unended.filter(|evening| !evening.boot.is_empty() && evening.boot == platform::boot());
        let now = Instant::now();
        let mut agent = Self {
            worker: Worker::new(layout.root()).or_fail(what)?,
            power: Power::new(&config.agent),
            node: None,
            searched: None,
            timetable: Timetable::of(&[], &config.machine, &Groups::new()),
            outlook: None,
            measured: layout.kept(MEASURED).unwrap_or_default(),
            last_evening: ended.map(|evening| evening.hour),
            refresh_at: Instant::MIN,
            awake_since: same_run.map_or(now, |evening| evening.begun),
            looked_at_clock: (now, tokio::time::Instant::now()),
            looked_ahead: Instant::MIN,
            installing: Rest::default(),
            fetching: Rest::default(),
            switching_off: Rest::default(),
            own_release: layout.own_release()?,
            _own_lock: layout.own_lock()?,
            waiting: Arc::default(),
            orders: RoomOrders::default(),
            reports: Reports::open(&layout, &config.machine),
            refresh_every,
            layout,
            config,
        };
        if let Some(outlook) = agent.layout.kept(OUTLOOK) {
            agent.adopt_outlook(outlook);
        }
        // All machines of a room are switched on at once: they do not all ask at once.
        let first = agent.refresh_every.min(Duration::from_mins(1));
        agent.refresh_at = soon(now, agent.jitter(first, 0));
        Ok(agent)
    }

    /// Works until it is asked to stop, is replaced, or has switched the machine off.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let path = self.layout.agent_lock();
        let what = || format!("cannot lock `{}`", path.display());
        let Some(_lock) = durable::try_lock(&path).or_fail(what)? else {
            return Err(Failure::no(format!("another agent looks after `{}`", self.layout.root().display())));
        };
        let stop = stop_signal()?;
        let (sender, mut wishes) = mpsc::channel(MAX_WISHES);
        let listener = socket::listen(&self.layout.agent_socket())
            .or_fail(|| format!("cannot listen on `{}`", self.layout.agent_socket().display()))?;
        let wishes_of = Wishes::new(sender, self.waiting.clone());
        // Before anybody can log in: nobody else takes its port.
        let store = match Store::open(self.layout.clone(), &self.config, wishes_of.clone()).await {
            Ok(store) => Some(store),
            Err(failure) => {
                tracing::error!("there is no store on this machine\n{}", failure.render().trim_end());
                None
            }
        };
        let teachers = self.config.agent.teachers.clone();
        let serving = tokio::spawn(socket::serve(listener, teachers, wishes_of, store.clone()));
        let showing = tokio::spawn(Store::serve(store, stop.clone()));
        let beating = tokio::spawn(beat(stop.clone()));
        notify(sd_notify::NotifyState::Ready);
        tracing::info!(root = %self.layout.root().display(), "the agent is at work");

        let end = self.work(&mut wishes, &stop).await;
        serving.abort();
        showing.abort();
        beating.abort();
        let _ = durable::remove_file(&self.layout.agent_socket());
        tracing::info!(?end, "the agent ends");
        Ok(())
    }

    async fn work(&mut self, wishes: &mut mpsc::Receiver<Wish>, stop: &CancellationToken) -> End {
        let begun = tokio::time::Instant::now();
        // What a cut interrupted comes before everything else.
        if self.command(&["resume"], None, stop).await.is_none() {
            return End::Stopped;
        }
        loop {
            if begun.elapsed() >= self_update::TRIAL {
                self.came_up();
            }
            if self.is_replaced() {
                return End::Replaced;
            }
            self.look_at_clock();
            self.report(stop).await;
            let sleep_until = match self.task().await {
                Task::Sleep(until) => Some(until),
                Task::Refresh => {
                    self.refresh(stop).await;
                    self.follow_orders(stop).await;
                    None
                }
                Task::Prepare => {
                    self.prepare(stop).await;
                    None
                }
                Task::Settle => {
                    let settled = self.command(&["resume"], self.until_hour(), stop).await;
                    self.note(settled.as_ref());
                    self.look_ahead(false, stop).await;
                    if self.outlook.as_ref().is_some_and(|outlook| !outlook.drift.is_empty()) {
                        self.installing.begin(Instant::now(), SHORTEST_REST);
                    }
                    None
                }
                Task::Install(packages) => {
                    let before = self.all_due();
                    self.install(packages, stop).await;
                    if self.all_due() == before && self.installing.until.is_none() {
                        // Work that succeeds and changes nothing would be begun again at once, and again.
                        self.installing.begin(Instant::now(), SHORTEST_REST);
                    }
                    None
                }
                Task::Evening(hour) => {
                    self.evening(hour, stop).await;
                    None
                }
                Task::SwitchOff(hour) => {
                    if self.switch_off(hour).await {
                        return End::SwitchedOff;
                    }
                    None
                }
            };
            if stop.is_cancelled() {
                return End::Stopped;
            }
            if let Some(until) = sleep_until {
                let nap = time_until(until, Instant::now());
                tokio::select! {
                    () = stop.cancelled() => return End::Stopped,
                    Some(wish) = wishes.recv() => self.fulfil(wish, stop).await,
                    () = tokio::time::sleep(nap) => {}
                }
            } else if let Ok(wish) = wishes.try_recv() {
                self.fulfil(wish, stop).await;
            }
        }
    }

    /// What to do now, as the schedule sees it.
    async fn task(&self) -> Task {
        let now = Instant::now();
        let due = self.outlook.iter().any(|outlook| !outlook.due.is_empty());
        let in_use =
            if due && self.timetable.lesson(now).is_none() { self.in_use().await } else { BTreeSet::new() };
        let idle = if self.timetable.night(now).is_some() { self.power.idle().await } else { None };
        let view = View {
            now,
            timetable: &self.timetable,
            outlook: self.outlook.as_ref(),
            in_use: &in_use,
            // As soon as a clock that was set back is right again, or an interval has passed.
            refresh_at: if self.refresh_at > soon(now, self.refresh_every) { now } else { self.refresh_at },
            resting_until: self.installing.until(now),
            fetching_rests_until: self.fetching.until(now),
            awake_since: self.awake_since,
            off_rests_until: self.switching_off.until(now),
            last_evening: self.last_evening,
            idle,
        };
        view.task()
    }

    /// Asks the node. Without news, and nothing that time has changed, that was all.
    async fn refresh(&mut self, stop: &CancellationToken) {
        let now = Instant::now();
        let trust = self.layout.trust();
        let Some(node) = self.node() else {
            self.searched = Some((discover::network_name(), now));
            self.look_ahead(true, stop).await;
            if self.node().is_none() {
                // The network, or the node, may be coming up only now.
                self.refresh_at = soon(Instant::now(), self.jitter(self.refresh_every.min(SHORTEST_REST), 1));
            }
            return;
        };
        let unchanged = tokio::select! {
            () = stop.cancelled() => return,
            unchanged = is_unchanged(&node, &trust) => unchanged,
        };
        let looked_ahead = self.looked_ahead;
        let passed = |outlook: &Outlook| {
            outlook.changes_at.is_some_and(|changes| changes <= now)
                || !(soon(looked_ahead, AUDIT_EVERY) > now && looked_ahead <= now)
        };
        match unchanged {
            Ok(true) if self.outlook.as_ref().is_some_and(|outlook| !passed(outlook)) => {
                self.came_up();
                self.refresh_at = soon(now, self.jitter(self.refresh_every, 1));
            }
            Ok(_) => self.look_ahead(true, stop).await,
            Err(error) => {
                tracing::info!(%error, "the node does not answer");
                if self.search_is_due(now) {
                    self.searched = Some((discover::network_name(), now));
                    self.look_ahead(true, stop).await;
                    return;
                }
                self.refresh_at = soon(now, self.jitter(self.refresh_every.min(SHORTEST_REST), 1));
                // What was known goes on: a ring that opens, a deadline, a window.
                if self.outlook.as_ref().is_none_or(passed) {
                    self.look_ahead(false, stop).await;
                }
            }
        }
    }

    /// Whoever is asked on this network.
    fn node(&mut self) -> Option<Fetcher> {
        let known = discover::known(&self.layout, &self.config)?;
        if self.node.as_ref().is_none_or(|node| *node.upstream() != known) {
            self.node = Fetcher::new(known, RetryPolicy::default()).ok();
        }
        self.node.clone()
    }

    /// A node that is silent may be on another network than this machine: at once when that is new, else now and then.
    fn search_is_due(&self, now: Instant) -> bool {
        let is_over = |(network, at): &(String, Instant)| {
            *network != discover::network_name() || soon(*at, SEARCH_EVERY) <= now || *at > now
        };
        discover::may_search(&self.config.node) && self.searched.as_ref().is_none_or(is_over)
    }

    /// Makes the outlook anew, from the node or from what is known.
    async fn look_ahead(&mut self, refresh: bool, stop: &CancellationToken) {
        let arguments: &[&str] = if refresh { &["plan", "--refresh"] } else { &["plan"] };
        let planned = self.command(arguments, Some(LOOKING), stop).await;
        self.looked_ahead = Instant::now();
        if refresh {
            self.refresh_at = soon(Instant::now(), self.jitter(self.refresh_every, 1));
        }
        let Some(planned) = planned else { return };
        if !planned.succeeded() {
            tracing::warn!(said = planned.complaint(), "there is no new outlook");
            return;
        }
        match serde_json::from_slice::<Outlook>(&planned.stdout) {
            Ok(outlook) => {
                if refresh {
                    self.came_up();
                }
                if self.outlook.as_ref() != Some(&outlook) {
                    tracing::info!(
                        snapshot = outlook.snapshot,
                        due = outlook.due.len(),
                        "the outlook has changed"
                    );
                    self.installing.end();
                    self.fetching.end();
                    if let Err(failure) = self.layout.keep(OUTLOOK, &outlook) {
                        tracing::warn!("{}", failure.render().trim_end());
                    }
                }
                self.adopt_outlook(outlook);
            }
            Err(error) => tracing::error!(%error, "the outlook cannot be read"),
        }
    }

    fn adopt_outlook(&mut self, outlook: Outlook) {
        self.timetable = outlook.timetable(&self.config.machine);
        self.outlook = Some(outlook);
    }

    /// Runs one of this program's commands; `None` when the agent is stopped meanwhile, which ends the command.
    async fn command(
        &self,
        arguments: &[&str],
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        self.command_followed(arguments, limit, None, stop).await
    }

    /// The same, where somebody wants to know how far it is.
    async fn command_followed(
        &self,
        arguments: &[&str],
        limit: Option<Duration>,
        follower: Option<&watch::Sender<Option<Progress>>>,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let done = until_stopped(stop, self.worker.run(arguments, limit, follower)).await?;
        match done {
            Ok(done) => {
                if !done.succeeded() {
                    tracing::warn!(
                        command = arguments.join(" "),
                        code = done.code,
                        said = done.complaint(),
                        "it failed"
                    );
                }
                Some(done)
            }
            Err(error) => {
                tracing::error!(%error, "this program cannot start itself");
                Some(Done {
                    code: Some(5),
                    stdout: Vec::new(),
                    stderr: error.to_string(),
                    took: Duration::ZERO,
                })
            }
        }
    }

    /// What remains until the machine goes off: nothing that was begun goes on beyond.
    fn until_hour(&self) -> Option<Duration> {
        let now = Instant::now();
        self.timetable.shutdown_after(now).map(|hour| remaining(now, hour))
    }

    /// A machine that was suspended, or whose clock was set forward, has not been on all the time: its clock went on further
    /// than the time it was at work.
    fn look_at_clock(&mut self) {
        let (now, at_work) = (Instant::now(), tokio::time::Instant::now());
        let (known, known_at_work) = self.looked_at_clock;
        if time_until(now, known) > at_work.duration_since(known_at_work) + LONGEST_GAP {
            tracing::info!(since = %known, "the clock went on without the agent");
            self.awake_since = now;
        }
        self.looked_at_clock = (now, at_work);
    }

    fn all_due(&self) -> Vec<Due> {
        self.outlook.as_ref().map_or_else(Vec::new, |outlook| outlook.due.clone())
    }

    async fn in_use(&self) -> BTreeSet<PackageName> {
        let layout = self.layout.clone();
        let look = move || layout.current_generation().map(|current| usage::in_use(&layout, &current));
        tokio::task::spawn_blocking(look).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn due(&self, package: &PackageName) -> Option<&Due> {
        self.outlook.iter().flat_map(|outlook| &outlook.due).find(|due| due.package == *package)
    }

    fn came_up(&self) {
        if let Err(failure) = self_update::came_up(&self.layout) {
            tracing::warn!("{}", failure.render().trim_end());
        }
    }

    fn is_replaced(&self) -> bool {
        self.layout.own_release().is_ok_and(|installed| installed != self.own_release)
    }

    /// Between three quarters of `period` and all of it: another part for each machine, each purpose and each time, so that a
    /// college's machines do not ask in step.
    fn jitter(&self, period: Duration, purpose: u8) -> Duration {
        let seed = format!("{} {purpose} {}", self.config.machine.id, Instant::now());
        let drawn = u32::from(Digest::of(seed.as_bytes()).as_bytes()[0]);
        period * 3 / 4 + period / 4 * drawn / 255
    }
}

fn time_until(end: Instant, now: Instant) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

async fn until_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

fn soon(now: Instant, wait: Duration) -> Instant {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Instant::MAX)
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}

/// Tells the service manager's watchdog that the agent is alive. A runtime that hangs tells nothing, and is restarted.
async fn beat(stop: CancellationToken) {
    let every = sd_notify::watchdog_enabled().map_or(HEARTBEAT, |wanted| wanted / 2);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while until_stopped(&stop, ticks.tick()).await.is_some() {
        notify(sd_notify::NotifyState::Watchdog);
    }
}
