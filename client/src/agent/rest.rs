//! Resting: work that fails is tried again later and later.

use std::time::Duration;

use mirabelle_manifests::Instant;

use super::soon;

/// Rests after work that failed: doubled with each failure, up to the longest.
pub(super) const SHORTEST_REST: Duration = Duration::from_mins(1);
pub(super) const LONGEST_REST: Duration = Duration::from_mins(30);

/// Work that fails rests: longer with each failure in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) failures: u32,
    pub(super) until: Option<Instant>,
}

impl Rest {
    pub(super) fn begin(&mut self, now: Instant, rest: Duration) {
        self.until = Some(soon(now, rest));
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Until when it rests. A clock that was set back lengthens no rest.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until <= soon(now, LONGEST_REST))
    }
}

/// The rest after so many failures.
pub(super) fn longer(failures: u32) -> Duration {
    SHORTEST_REST.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST_REST)
}
