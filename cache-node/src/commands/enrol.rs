//! A node that was taken out of its carton: with a code and without a configuration, it sets itself up once the link is there.
//!
//! It tries again for as long as the origin is not reached, or answers with another root: behind a school's portal, which answers for
//! everybody until the machine is let through, both pass. Whatever else fails ends it, as it ends `init`. Meanwhile systemd
//! is told that the service has started and is alive, so that neither a start nor an installation waits for a link.

use std::pin::pin;
use std::time::Duration;

use mirabelle_manifests::Enrolment;
use mirabelle_terminal::{Failure, Kind};
use mirabelle_transfer::RetryPolicy;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::{Context, init};

/// Each attempt knocks several times by itself; between them the wait doubles up to this.
const WAITS: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_wait: Duration::from_secs(1),
    longest_wait: Duration::from_mins(1),
    stall: Duration::from_secs(30),
};
/// After another root was sent: as often as this it costs nothing, and a portal that lets us through is noticed soon.
const AFTER_ANOTHER_ROOT: Duration = Duration::from_mins(5);
/// Where nobody watches, looking whether somebody does need not be often.
const UNWATCHED: Duration = Duration::from_hours(1);

/// Sets the node up, however long that takes; false when it was asked to stop first.
pub(super) async fn until_enrolled(
    context: &Context,
    code: &Enrolment,
    stop: &CancellationToken,
) -> Result<bool, Failure> {
    tell(&[NotifyState::Ready, NotifyState::Status("waiting to be enrolled")]);
    let mut failed = 0_u32;
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => return Ok(false),
            outcome = alive(init::enrol(context, code)) => outcome,
        };
        let failure = match outcome {
            Ok(done) => {
                tracing::info!(college = done.college, root = done.root_version, "enrolled");
                tell(&[NotifyState::Status("enrolled")]);
                return Ok(true);
            }
            Err(failure) => failure,
        };
        failed = failed.saturating_add(1);
        let wait = match failure.kind() {
            Kind::Network => WAITS.wait(failed, 1.0, None),
            Kind::Trust => AFTER_ANOTHER_ROOT,
            _ if failure.may_pass() => WAITS.wait(failed, 1.0, None),
            _ => return Err(failure),
        };
        tracing::warn!(?wait, "not enrolled yet\n{}", failure.render().trim_end());
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = alive(tokio::time::sleep(wait)) => {}
        }
    }
}

/// Does `work`, and tells systemd meanwhile that the node is alive.
async fn alive<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tell(&[NotifyState::Watchdog]);
        let step = sd_notify::watchdog_enabled().map_or(UNWATCHED, |wanted| wanted / 2);
        if let Ok(done) = tokio::time::timeout(step, work.as_mut()).await {
            return done;
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Where no systemd listens, this does nothing.
    let _ = sd_notify::notify(states);
}
