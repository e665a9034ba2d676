//! What was asked for in the store: a queue, what is under way, and how the last ones ended.
//!
//! One thing is done at a time, in the order in which it was asked for; the agent does it with its own commands, as it does everybody's
//! wishes. Whoever asked may give it up, also in its middle: what had been begun is taken back, and nothing comes later by itself.
//!
//! The list is in memory: what was under way when the power went is finished or taken back by the journal, and is in the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant as Tick;

use mirabelle_manifests::{Asker, Instant, PackageName, Text};
use mirabelle_terminal::Progress;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::view::{Phase, Task, TaskVerb};
use crate::agent::socket::{Answer, Request, Wishes};

/// Tasks that wait, at most: nobody looks further ahead.
const MAX_QUEUED: usize = 40;
/// Tasks that ended and are still shown.
const MAX_ENDED: usize = 30;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// The user of the machine.
    pub(super) user: u32,
    pub(super) asker: Asker,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) verb: TaskVerb,
    pub(super) package: PackageName,
    pub(super) title: Text,
    pub(super) request: Request,
}

struct Entry {
    id: u64,
    who: Who,
    asked: Asked,
    at: Instant,
    ended: Option<Instant>,
    phase: Phase,
    /// When bytes began to arrive, to tell how long the rest takes.
    fetching_since: Option<(Tick, u64)>,
    cancel: CancellationToken,
}

/// The queue and what became of it.
#[derive(Default)]
pub(crate) struct Activity {
    entries: Mutex<(u64, VecDeque<Entry>)>,
    /// Counts changes: pages wait for the next.
    changes: watch::Sender<u64>,
    /// Told when something is queued.
    queued: Notify,
}

impl Activity {
    fn entries(&self) -> MutexGuard<'_, (u64, VecDeque<Entry>)> {
        // Each change is whole before anything can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Tells of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Queues something; `None` if too much is queued. What is queued or under way for the package already is not queued again.
    pub(super) fn ask(&self, asked: Asked, who: Who) -> Option<u64> {
        let id = {
            let mut entries = self.entries();
            let (last, all) = &mut *entries;
            let same = |entry: &&Entry| {
                entry.ended.is_none()
                    && entry.asked.package == asked.package
                    && entry.asked.verb == asked.verb
            };
            if let Some(entry) = all.iter().find(same) {
                return Some(entry.id);
            }
            if all.iter().filter(|entry| entry.ended.is_none()).count() >= MAX_QUEUED {
                return None;
            }
            *last += 1;
            all.push_back(Entry {
                id: *last,
                who,
                asked,
                at: Instant::now(),
                ended: None,
                phase: Phase::Queued { before: 0 },
                fetching_since: None,
                cancel: CancellationToken::new(),
            });
            let ended = all.iter().filter(|entry| entry.ended.is_some()).count();
            if ended > MAX_ENDED
                && let Some(oldest) = all.iter().position(|entry| entry.ended.is_some())
            {
                all.remove(oldest);
            }
            *last
        };
        self.changed();
        self.queued.notify_one();
        Some(id)
    }

    /// Gives something up; only whoever asked, or an administrator.
    pub(super) fn cancel(&self, id: u64, who: Who) -> bool {
        let given_up = {
            let mut entries = self.entries();
            let Some(entry) = entries.1.iter_mut().find(|entry| entry.id == id && is_own(entry, who)) else {
                return false;
            };
            if entry.ended.is_some() {
                return false;
            }
            entry.cancel.cancel();
            if matches!(entry.phase, Phase::Queued { .. }) {
                (entry.phase, entry.ended) = (Phase::Cancelled, Some(Instant::now()));
            }
            true
        };
        self.changed();
        given_up
    }

    /// What was asked for, to be asked for again.
    pub(super) fn again(&self, id: u64, who: Who) -> Option<Asked> {
        let entries = self.entries();
        let entry =
            entries.1.iter().find(|entry| entry.id == id && is_own(entry, who) && entry.ended.is_some());
        entry.map(|entry| entry.asked.clone())
    }

    /// Everything, the newest first, as whoever looks sees it.
    pub(super) fn shown(&self, who: Who) -> Vec<Task> {
        let entries = self.entries();
        let mut before = 0;
        let mut shown = Vec::new();
        for entry in &entries.1 {
            let phase = match &entry.phase {
                Phase::Queued { .. } => Phase::Queued { before },
                phase => phase.clone(),
            };
            if entry.ended.is_none() {
                before += 1;
            }
            shown.push(Task {
                id: entry.id,
                package: entry.asked.package.clone(),
                title: entry.asked.title.clone(),
                verb: entry.asked.verb,
                phase,
                asked: entry.at,
                ended: entry.ended,
                own: is_own(entry, who),
            });
        }
        shown.reverse();
        shown
    }

    /// Does what is queued, one after the other, until it is dropped.
    pub(super) async fn work(self: Arc<Self>, wishes: Wishes) {
        loop {
            let Some((id, asked, asker, cancel)) = self.next() else {
                self.queued.notified().await;
                continue;
            };
            let (progress, mut followed) = watch::channel(None);
            let wish = wishes.follow(asked.request, asker, progress, cancel.clone());
            let mut wish = std::pin::pin!(wish);
            let answer = loop {
                tokio::select! {
                    answer = &mut wish => break answer,
                    Ok(()) = followed.changed() => {
                        let progress = followed.borrow_and_update().clone();
                        if let Some(progress) = progress {
                            self.advance(id, &progress);
                        }
                    }
                }
            };
            self.end(id, &answer, cancel.is_cancelled());
        }
    }

    fn next(&self) -> Option<(u64, Asked, Asker, CancellationToken)> {
        let entries = self.entries();
        let next = entries.1.iter().find(|entry| entry.ended.is_none())?;
        Some((next.id, next.asked.clone(), next.who.asker, next.cancel.clone()))
    }

    fn advance(&self, id: u64, progress: &Progress) {
        {
            let mut entries = self.entries();
            let Some(entry) = entries.1.iter_mut().find(|entry| entry.id == id) else { return };
            entry.phase = match progress {
                Progress::Bytes { done, total } => {
                    let (done, total) = (*done, *total);
                    let (since, begun) = *entry.fetching_since.get_or_insert((Tick::now(), done));
                    let seconds_left = seconds_left(
                        since.elapsed().as_secs_f64(),
                        done.saturating_sub(begun),
                        total - done.min(total),
                    );
                    Phase::Fetching { done, total, seconds_left }
                }
                Progress::Stage { .. } => {
                    entry.fetching_since = None;
                    Phase::Installing
                }
            };
        }
        self.changed();
    }

    fn end(&self, id: u64, answer: &Answer, was_cancelled: bool) {
        {
            let mut entries = self.entries();
            let Some(entry) = entries.1.iter_mut().find(|entry| entry.id == id) else { return };
            entry.ended = Some(Instant::now());
            entry.phase = match answer.code {
                0 => Phase::Done,
                _ if was_cancelled => Phase::Cancelled,
                _ => Phase::Failed { reason: None, said: complaint(&answer.said) },
            };
        }
        self.changed();
    }
}

fn is_own(entry: &Entry, who: Who) -> bool {
    entry.who.user == who.user || who.asker == Asker::Administrator
}

/// How long the rest takes at the rate so far; unknown in the first second.
fn seconds_left(elapsed: f64, done: u64, left: u64) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, reason = "an estimate for a person")]
    let rate = done as f64 / elapsed;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate for a person"
    )]
    let seconds = (left as f64 / rate).ceil() as u64;
    (elapsed >= 1.0 && done > 0).then_some(seconds)
}

/// What a command said, without the words that are for a terminal.
fn complaint(said: &str) -> String {
    let lines = said
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("hint: ") && !line.starts_with("warning: "));
    let plain = lines.map(|line| line.trim_start_matches("error: ").trim_start_matches("caused by: "));
    plain.take(4).collect::<Vec<_>>().join(" — ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Asked {
        let package: PackageName = name.parse().unwrap();
        Asked {
            verb: TaskVerb::Install,
            request: Request::Install { packages: vec![package.clone()] },
            title: Text { fr: name.to_owned(), en: name.to_owned() },
            package,
        }
    }

    const TEACHER: Who = Who { user: 1000, asker: Asker::Teacher };
    const OTHER: Who = Who { user: 1001, asker: Asker::Teacher };

    #[test]
    fn what_waits_says_how_many_are_before_it_and_is_not_queued_twice() {
        let activity = Activity::default();
        let first = activity.ask(asked("a"), TEACHER).unwrap();
        activity.ask(asked("b"), TEACHER).unwrap();
        assert_eq!(activity.ask(asked("a"), TEACHER), Some(first));
        let shown = activity.shown(TEACHER);
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0].phase, Phase::Queued { before: 1 });
        assert_eq!(shown[1].phase, Phase::Queued { before: 0 });
    }

    #[test]
    fn only_whoever_asked_gives_it_up_or_asks_again() {
        let activity = Activity::default();
        let id = activity.ask(asked("a"), TEACHER).unwrap();
        assert!(!activity.cancel(id, OTHER));
        assert!(!activity.shown(OTHER)[0].own);
        assert!(activity.again(id, TEACHER).is_none(), "it has not ended");
        assert!(activity.cancel(id, TEACHER));
        assert!(!activity.cancel(id, TEACHER), "once");
        assert_eq!(activity.shown(TEACHER)[0].phase, Phase::Cancelled);
        assert!(activity.again(id, OTHER).is_none());
        assert!(activity.again(id, TEACHER).is_some());
    }

    #[test]
    fn nobody_fills_the_memory_with_wishes() {
        let activity = Activity::default();
        let taken =
            (0..100).filter(|number| activity.ask(asked(&format!("p{number}")), TEACHER).is_some()).count();
        assert_eq!(taken, MAX_QUEUED);
        for _ in 0..200 {
            let id = activity.shown(TEACHER)[0].id;
            activity.cancel(id, TEACHER);
            activity.ask(asked("again"), TEACHER);
        }
        assert!(activity.shown(TEACHER).len() <= MAX_QUEUED + MAX_ENDED + 1);
    }

    #[test]
    fn progress_and_the_end_are_told() {
        let activity = Activity::default();
        let mut watch = activity.watch();
        let id = activity.ask(asked("a"), TEACHER).unwrap();
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        activity.advance(id, &Progress::Bytes { done: 1, total: 4 });
        assert!(watch.has_changed().unwrap());
        assert_eq!(
            activity.shown(TEACHER)[0].phase,
            Phase::Fetching { done: 1, total: 4, seconds_left: None }
        );
        activity.advance(id, &Progress::Stage { stage: "installing".to_owned() });
        assert_eq!(activity.shown(TEACHER)[0].phase, Phase::Installing);
        let said = "error: cannot install `a` 1\n  caused by: the node is away\nhint: try again\n";
        activity.end(id, &Answer { code: 3, printed: String::new(), said: said.to_owned() }, false);
        let failed =
            Phase::Failed { reason: None, said: "cannot install `a` 1 — the node is away".to_owned() };
        assert_eq!(activity.shown(TEACHER)[0].phase, failed);
    }
}
