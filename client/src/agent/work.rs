//! What the agent does to the machine: fetching, installing, the evening, switching off.

use std::time::Duration;

use mirabelle_manifests::{Instant, PackageName};
use tokio_util::sync::CancellationToken;

use super::evening::{Evening, Left, WhyLeft, remaining};
use super::kept::{EVENING, MEASURED};
use super::rest::{LONGEST_REST, SHORTEST_REST, longer};
use super::worker::Done;
use super::{Agent, time_until, wake};
use crate::outlook::Due;

/// How long the node may take to promise a wake-up.
const ASKING: Duration = Duration::from_secs(10);
impl Agent {
    /// Fetches what is due, until the next lesson or the evening.
    pub(super) async fn prepare(&mut self, stop: &CancellationToken) {
        let now = Instant::now();
        let evening = self
            .timetable
            .shutdown_after(now)
            .and_then(|hour| hour.checked_sub(self.timetable.evening()).ok());
        let ends = [self.timetable.next_lesson(now), evening.filter(|evening| *evening > now)];
        let limit = ends.into_iter().flatten().min().map(|end| time_until(end, now));
        let before = self.all_due();
        // Somebody's wish comes first; what was fetched stays.
        let prepared = tokio::select! {
            prepared = self.command(&["prepare"], limit, stop) => prepared,
            () = self.waiting.notified() => return,
        };
        self.look_ahead(false, stop).await;
        if prepared.is_some_and(|done| done.succeeded()) && self.all_due() != before {
            self.fetching.end();
        } else {
            self.fetching.failures += 1;
            let rest = self.jitter(longer(self.fetching.failures), 2);
            self.fetching.begin(Instant::now(), rest);
        }
    }

    /// Installs one after the other, each that is expected to end before the window does.
    pub(super) async fn install(&mut self, packages: Vec<PackageName>, stop: &CancellationToken) {
        for package in packages {
            let now = Instant::now();
            let Some(due) = self.due(&package).cloned() else { continue };
            let late = due.deadline.is_some_and(|deadline| deadline <= now);
            let window = self.timetable.window(now).map(|window| window.to);
            if self.timetable.lesson(now).is_some() || (!late && window.is_none()) {
                break;
            }
            if !late && self.in_use().await.contains(&package) {
                continue;
            }
            let until = if late { self.timetable.next_lesson(now) } else { window };
            let expected = self.measured.expect(&due);
            if until.is_some_and(|until| time_until(until, now) < expected) {
                tracing::info!(%package, expected_seconds = expected.as_secs(), "it would not end in time and waits");
                self.installing.begin(now, LONGEST_REST);
                continue;
            }
            let hold = self.power.hold();
            let done = self.update(&due, self.until_hour(), stop).await;
            drop(hold);
            self.note(done.as_ref());
            match done {
                Some(done) if done.succeeded() => self.measure(&package, done.took),
                Some(_) => {}
                None => return,
            }
        }
        self.look_ahead(false, stop).await;
    }

    /// Brings one package to what is due; without the node, if all of it is here.
    async fn update(&self, due: &Due, limit: Option<Duration>, stop: &CancellationToken) -> Option<Done> {
        let offline: &[&str] = if due.prepared { &["--offline"] } else { &[] };
        let arguments: Vec<&str> =
            ["update", due.package.as_str()].into_iter().chain(offline.iter().copied()).collect();
        self.command(&arguments, limit, stop).await
    }

    /// The evening: what fits into what remains until the hour. Whatever it comes to, the machine goes off at the hour.
    pub(super) async fn evening(&mut self, hour: Instant, stop: &CancellationToken) {
        tracing::info!(%hour, "the evening begins");
        // News of today count; asking for them must not cost the evening.
        let until_hour = || remaining(Instant::now(), hour);
        let prepare = self.command(&["prepare"], Some(until_hour() / 2), stop).await;
        if prepare.is_none() {
            return;
        }
        self.look_ahead(false, stop).await;
        let mut evening = Evening::plan(self.outlook.as_ref(), &self.measured, Instant::now(), hour);
        self.last_evening = Some(hour);
        self.journal(&evening);
        let hold = if evening.planned.is_empty() { None } else { self.power.hold() };
        let mut cut_off = None;
        while let Some(package) = evening.next().cloned() {
            let limit = until_hour();
            let due = self.due(&package).cloned();
            let Some(due) = due.filter(|_| !limit.is_zero()) else { break };
            let late = due.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !late && self.in_use().await.contains(&package) {
                evening.left.push(Left { package, why: WhyLeft::InUse });
                continue;
            }
            let Some(done) = self.update(&due, Some(limit), stop).await else { return };
            if done.succeeded() {
                self.measure(&package, done.took);
                evening.done.push(package);
            } else if done.code.is_none() {
                cut_off = Some(package);
                break;
            } else {
                let why = WhyLeft::Failed { said: done.complaint() };
                evening.left.push(Left { package, why });
            }
            self.journal(&evening);
        }
        drop(hold);
        evening.close(cut_off.as_ref());
        self.journal(&evening);
        tracing::info!(done = evening.done.len(), left = evening.left.len(), "the evening's work ends");
        self.look_ahead(false, stop).await;
    }

    fn journal(&self, evening: &Evening) {
        if let Err(failure) = self.layout.keep(EVENING, evening) {
            tracing::error!("the evening could not be journalled\n{}", failure.render().trim_end());
        }
    }

    /// Tells the node when this machine should be woken, notes how the evening went, and switches the machine off.
    pub(super) async fn switch_off(&mut self, hour: Instant) -> bool {
        tracing::info!(%hour, "the machine goes off");
        if let Some(at) = self.timetable.wake_after(hour) {
            let node = self.node();
            let asking = async {
                let node = node.ok_or(std::io::ErrorKind::NotConnected)?;
                wake::ask(&node, &self.config, self.layout.root(), at).await
            };
            let asked = tokio::time::timeout(ASKING, asking).await;
            match asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok(()) => tracing::info!(%at, "the node was asked to wake this machine"),
                Err(error) => tracing::warn!(%at, %error, "the node cannot be asked to wake this machine"),
            }
        }
        if let Some(mut evening) = self.layout.kept::<Evening>(EVENING).filter(|evening| evening.hour == hour)
        {
            evening.switched_off = Some(Instant::now());
            self.journal(&evening);
        }
        match self.power.switch_off().await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the machine cannot be switched off, and it is tried again");
                self.report_staying_on(hour, &error.to_string());
                self.switching_off.begin(Instant::now(), SHORTEST_REST);
                false
            }
        }
    }

    /// Work that fails is tried again later and later; work that succeeds is followed by more.
    pub(super) fn note(&mut self, done: Option<&Done>) {
        if done.is_some_and(Done::succeeded) {
            self.installing.end();
        } else {
            self.installing.failures += 1;
            let rest = self.jitter(longer(self.installing.failures), 2);
            self.installing.begin(Instant::now(), rest);
        }
    }

    fn measure(&mut self, package: &PackageName, took: Duration) {
        self.measured.note(package, took);
        if let Err(failure) = self.layout.keep(MEASURED, &self.measured) {
            tracing::warn!("{}", failure.render().trim_end());
        }
    }
}
