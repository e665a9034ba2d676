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
/// After a probe that failed.
const PAUSE_WITHOUT_ANSWER: Duration = Duration::from_millis(500);

/// Who is measured.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// The upstream in use: all lie behind the one link of the college.
    target: Weak<NearEnd>,
    running: bool,
}

/// Measures on the way to this upstream from now on, if anybody needs to know.
pub(crate) fn watch(near_end: &Arc<NearEnd>) {
    let shared = &near_end.link().shared;
    if !shared.governor().is_yielding() {
        return;
    }
    let mut probing = shared.probing.lock().unwrap_or_else(PoisonError::into_inner);
    probing.target = Arc::downgrade(near_end);
    if !std::mem::replace(&mut probing.running, true) {
        tokio::spawn(run(shared.clone()));
    }
}

async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = measure(&shared) => {}
    }
    shared.probing.lock().unwrap_or_else(PoisonError::into_inner).running = false;
}

/// Probes until nobody fetches any more.
async fn measure(shared: &Shared) {
    let begun = Instant::now();
    let mut warm: Weak<NearEnd> = Weak::new();
    loop {
        let rate = {
            let (governor, now) = (shared.governor(), shared.now());
            if !governor.is_yielding() || (begun.elapsed() > FIRST_BYTE && !governor.is_busy(now)) {
                return;
            }
            governor.rate(now).unwrap_or(u64::MAX)
        };
        let target = shared.probing.lock().unwrap_or_else(PoisonError::into_inner).target.clone();
        let Some(near_end) = target.upgrade() else { return };
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
