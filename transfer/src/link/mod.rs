//! The link: what a college's node may fetch, when, how fast; and that it gives way to lessons.
//!
//! ```text
//! Fetcher ──▶ near_end.rs   every byte of every connection passes here, in small pieces
//!                │ take
//!                ▼
//!             Link           waits; writes the ledger        probe.rs  measures how long others wait
//!                │ ask                                          │
//!                ▼                                              ▼
//!             governor.rs ── limits.rs  budget.rs  pace.rs  controller.rs         pure: told what time it is
//! ```
//!
//! Promise 6: rate, hours and the budget of the day are hard: there is no other way for a byte than through
//! [`Link::take`], for a retry, a fallback or a repair no more than for anything else. What counts is what crosses the
//! connections: TLS, requests and the heads of answers among it, and what a connection that is given up has received; not what TCP and IP add (about 3 %), nor the names that
//! are looked up.
//!
//! Locks: one, of the governor, never held while waiting. On a crash: `budget.rs`.

mod budget;
mod client;
mod controller;
mod governor;
mod limits;
mod near_end;
mod pace;
mod priority;
mod probe;
mod report;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirabelle_content::durable;
use mirabelle_manifests::Instant;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::budget::Ledger;
pub use self::client::{LinkClient, LinkClientError};
use self::governor::{Answer, Governor, Place};
pub use self::limits::{Limits, Rate, RateRule};
pub(crate) use self::near_end::{NearEnd, NearEndError, base_of};
pub(crate) use self::priority::Class;
pub use self::priority::Priority;
pub(crate) use self::probe::watch;
pub use self::report::{Bucket, Closed, LinkClosed, LinkReport, LinkState};

/// The most of a ledger.
const MAX_LEDGER_BYTES: u64 = 64 << 10;

/// The one link of a process, through which every byte passes.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    /// Ends what measures, with the link.
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    governor: Mutex<Governor>,
    ledger: Option<PathBuf>,
    /// Someone was served or has left, limits have changed, or the ledger was written.
    changed: Notify,
    origin: tokio::time::Instant,
    /// Whether somebody measures, and on the way to whom.
    probing: Mutex<probe::Probing>,
    stop: CancellationToken,
}

impl Link {
    /// A link without limits and without a memory.
    pub fn unlimited() -> Arc<Self> {
        Self::new(Governor::new(Limits::default(), None, Instant::UNIX_EPOCH), None)
    }

    /// A link whose spent bytes stand in a file. One that is damaged counts as a day that is spent whole; one that is not
    /// there, as a day on which nothing was.
    pub fn open(ledger: &Path, limits: Limits, now: Instant) -> Arc<Self> {
        let known = match durable::read_if_present(ledger, MAX_LEDGER_BYTES) {
            Ok(None) => Some(Ledger::default()),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).ok(),
            Err(_) => None,
        };
        let known = known.unwrap_or_else(|| {
            tracing::warn!(ledger = %ledger.display(), "the ledger of the link cannot be read: today's bytes count as spent");
            Ledger::spent(limits.day(now), limits.daily_budget.unwrap_or(0))
        });
        Self::new(Governor::new(limits, Some(known), now), Some(ledger.to_owned()))
    }

    fn new(governor: Governor, ledger: Option<PathBuf>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let shared = Shared {
            governor: Mutex::new(governor),
            ledger,
            changed: Notify::new(),
            origin: tokio::time::Instant::now(),
            probing: Mutex::default(),
            stop: stop.clone(),
        };
        Arc::new(Self { shared: Arc::new(shared), _stop: stop.drop_guard() })
    }

    /// Other limits, from now on.
    pub fn set_limits(&self, limits: Limits) {
        let now = self.shared.now();
        self.shared.governor().set_limits(limits, now);
        self.shared.changed.notify_waiters();
    }

    /// Waits until so many bytes may come, and counts them. Whoever needs them more is served first.
    ///
    /// # Errors
    /// When the bytes of the day are spent, or these are hours in which nothing is fetched. What was waited for until then
    /// is counted.
    pub async fn take(&self, priority: Priority, bytes: u64) -> Result<(), LinkClosed> {
        self.take_for(priority.into(), bytes).await
    }

    pub(crate) async fn take_for(&self, class: Class, bytes: u64) -> Result<(), LinkClosed> {
        let mut left = bytes;
        loop {
            let piece = left.min(self.piece(class));
            self.take_piece(class, piece).await?;
            left -= piece;
            if left == 0 {
                return Ok(());
            }
        }
    }

    async fn take_piece(&self, class: Class, bytes: u64) -> Result<(), LinkClosed> {
        let standing = Standing::join(&self.shared, class);
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.shared.ask(standing.place, bytes) {
                Answer::Granted => return Ok(()),
                Answer::Closed(closed) => return Err(closed),
                Answer::WaitTurn => changed.await,
                Answer::WaitUntil(at) => {
                    let _ = tokio::time::timeout_at(self.shared.origin + at, changed).await;
                }
            }
        }
    }

    /// Counts bytes that came unasked, or that nobody took.
    pub(crate) fn came_unasked(&self, class: Class, bytes: u64) {
        let now = self.shared.now();
        self.shared.governor().came_unasked(class, bytes, now);
    }

    /// Keeps bytes of the day for what a connection's buffer may hold.
    pub(crate) fn hold_back(&self, connection: u64, class: Class, bytes: u64) -> Result<(), LinkClosed> {
        let now = self.shared.now();
        self.shared.governor().hold_back(connection, class, bytes, now)
    }

    /// A connection has ended.
    pub(crate) fn let_go(&self, connection: u64) {
        self.shared.governor().let_go(connection);
    }

    /// The longest piece that should be taken at once, in bytes.
    pub(crate) fn piece(&self, class: Class) -> u64 {
        self.shared.governor().piece(class, self.shared.now())
    }

    /// Why `class` may have nothing now, if that is so.
    pub(crate) fn closed(&self, class: Class) -> Option<LinkClosed> {
        let now = self.shared.now();
        self.shared.governor().closed(class, 0, now)
    }

    /// How many bytes a server may send that a connection has not taken yet; none, if the kernel may do as it likes.
    pub(crate) fn window(&self, connection: u64, active: bool) -> Option<u64> {
        let now = self.shared.now();
        self.shared.governor().window(connection, active, now)
    }

    /// What it does and why; sets its clock.
    pub fn report(&self, now: Instant) -> LinkReport {
        let since = self.shared.now();
        let mut governor = self.shared.governor();
        governor.set_clock(now, since);
        governor.report(since)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What stands in the ledger ahead was not used after all. If this fails, the day is a block shorter.
        if let Some(path) = &self.shared.ledger {
            let last = self.shared.governor().last_ledger();
            let _ = last.map(|ledger| write(path, &ledger));
        }
    }
}

impl Shared {
    fn governor(&self) -> MutexGuard<'_, Governor> {
        // Whoever panicked left numbers, none of them half written.
        self.governor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn ask(self: &Arc<Self>, place: Place, bytes: u64) -> Answer {
        let now = self.now();
        let mut governor = self.governor();
        let answer = governor.ask(place, bytes, now);
        let ledger = match answer {
            Answer::Closed(_) | Answer::WaitUntil(_) => None,
            Answer::Granted => governor.begin_writing(0, now),
            Answer::WaitTurn => governor.begin_writing(bytes, now),
        };
        drop(governor);
        if let Some(ledger) = ledger {
            self.write(ledger);
        }
        answer
    }

    /// Writes the ledger, whoever waits for it or gives up waiting.
    fn write(self: &Arc<Self>, ledger: Ledger) {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let written = shared.ledger.as_deref().map_or(Ok(()), |path| write(path, &ledger));
            if let Err(error) = &written {
                tracing::warn!(%error, "the ledger of the link could not be written");
            }
            let now = shared.now();
            shared.governor().wrote(written.is_ok().then_some(&ledger), now);
            shared.changed.notify_waiters();
        });
    }
}

fn write(path: &Path, ledger: &Ledger) -> std::io::Result<()> {
    durable::write_atomically(path, &serde_json::to_vec(ledger)?)
}

/// A place in the line, left when nobody waits any more.
struct Standing<'a> {
    shared: &'a Shared,
    place: Place,
}

impl<'a> Standing<'a> {
    fn join(shared: &'a Shared, class: Class) -> Self {
        Self { shared, place: shared.governor().join(class) }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.shared.governor().leave(self.place);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
