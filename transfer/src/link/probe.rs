//! Measures how long others wait, while something is fetched: small requests on a connection of their own.
//!
//! One at a time, over and over: what a `HEAD` of the timestamp takes from the first byte up to the answer is a round trip
//! through the same queue that a call's packets stand in. The first one on a connection, which sets it up, does not count.
//! They pass through the near end like everything else, and are counted; they wait for no turn, since a turn is no queue of
//! the link's.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::near_end::NearEnd;
use super::{Class, Shared};
use crate::fetch::client_over;

/// Between two probes, at most and at least.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// A probe with its answer and what TCP and IP add, in bytes; they have a hundredth of the rate.
const PROBE_BYTES: u64 = 500;
/// Without an answer for so long, something is wrong with the link, or there is a very long queue.
const NO_ANSWER: Duration = Duration::from_secs(1);
/// Whoever begins this asks for the first byte within this.
const FIRST_BYTE: Duration = Duration::from_secs(1);
/// How long the way to one upstream is measured after it was last asked, before another takes its place.
const STAYS_FOR: Duration = Duration::from_secs(10);
/// After a probe that failed.
const PAUSE_WITHOUT_ANSWER: Duration = Duration::from_millis(500);

/// Who is measured.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// The upstream in use: all lie behind the one link of the college.
    target: Weak<NearEnd>,
    /// When somebody last asked it for something.
    asked: Option<Instant>,
    running: bool,
}

/// Measures on the way to this upstream from now on, if anybody needs to know.
pub(crate) fn watch(near_end: &Arc<NearEnd>) {
    let shared = &near_end.link().shared;
    if !shared.governor().is_yielding() {
        return;
    }
    let mut probing = shared.probing.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = Arc::downgrade(near_end);
    let is_idle = probing.asked.is_none_or(|asked| asked.elapsed() >= STAYS_FOR);
    if !probing.target.ptr_eq(&asked) {
        if probing.target.strong_count() > 0 && !is_idle {
            // Two at once: the one that is measured stays, since a way is told from another by nothing but its delay.
            return;
        }
        probing.target = asked;
        shared.governor().another_way();
    }
    probing.asked = Some(Instant::now());
    if !std::mem::replace(&mut probing.running, true) {
        tokio::spawn(run(shared.clone()));
    }
}

async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = measure(&shared) => {}
    }
}

/// Probes until nobody fetches any more.
async fn measure(shared: &Shared) {
    let begun = Instant::now();
    let mut warm: Weak<NearEnd> = Weak::new();
    loop {
        let (rate, target, near_end) = {
            // Decided and said under one lock: whoever wants it measured from here on starts anew.
            let mut probing = shared.probing.lock().unwrap_or_else(PoisonError::into_inner);
            let (governor, now) = (shared.governor(), shared.now());
            let is_over = !governor.is_yielding() || (begun.elapsed() > FIRST_BYTE && !governor.is_busy(now));
            let target = probing.target.clone();
            let Some(near_end) = target.upgrade().filter(|_| !is_over) else {
                probing.running = false;
                return;
            };
            (governor.rate(now).unwrap_or(u64::MAX), target, near_end)
        };
        let asked = Instant::now();
        let answer = tokio::time::timeout(NO_ANSWER, ask(&near_end)).await;
        let rtt = asked.elapsed();
        let pause = if answer == Ok(Ok(())) {
            if warm.ptr_eq(&target) {
                shared.governor().probed(Some(rtt), shared.now());
                shared.changed.notify_waiters();
            }
            warm = target;
            let pause = Duration::from_millis(PROBE_BYTES * 100 * 1000 / rate.max(1));
            pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE).saturating_sub(rtt)
        } else {
            warm = Weak::new();
            shared.governor().probed(None, shared.now());
            PAUSE_WITHOUT_ANSWER
        };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(near_end: &NearEnd) -> Result<(), ()> {
    let client = near_end.client(Class::Probe, |socket| client_over(Some(socket))).map_err(|_| ())?;
    // Whatever the answer is: it came.
    client.head(near_end.base().probe.clone()).send().await.map(|_| ()).map_err(|_| ())
}
