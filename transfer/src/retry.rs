//! How often, and after what wait, to ask again.

use std::time::Duration;

/// Exponential backoff with jitter, up to a cap, for so many attempts *without progress*: a transfer that moved bytes
/// begins to count anew, since a link that drops every minute still gets a large file across.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts without progress before giving up.
    pub attempts: u32,
    /// The wait after the first failure; it doubles each time.
    pub first_wait: Duration,
    /// The longest wait, and the most that a server's `Retry-After` is obeyed.
    pub longest_wait: Duration,
    /// How long a server may say nothing before an attempt has failed.
    pub stall: Duration,
}

/// The longest that anybody waits for a server to go on.
pub(crate) const LONGEST_STALL: Duration = Duration::from_secs(30);

impl Default for RetryPolicy {
    /// Gives up after about 15 seconds: a person may be waiting, and whoever runs unattended comes back by itself.
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(8),
            stall: LONGEST_STALL,
        }
    }
}

impl RetryPolicy {
    /// The wait after the `failed`-th attempt in a row, counted from 1. `jitter` is a number in `0.0..1.0`; waits lie
    /// between half and all of the exponential one, so that a room of machines does not come back in step.
    pub fn wait(&self, failed: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let exponential = self.first_wait.saturating_mul(1 << failed.saturating_sub(1).min(16));
        let wait = exponential.min(self.longest_wait).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        wait.max(retry_after.unwrap_or_default().min(self.longest_wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = RetryPolicy::default();
        let waits: Vec<u128> = (1..=6).map(|n| policy.wait(n, 1.0, None).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(policy.wait(1, 0.0, None).as_millis(), 250);
        assert_eq!(policy.wait(40, 1.0, None), policy.longest_wait);
    }

    #[test]
    fn obeys_retry_after_within_reason() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.wait(1, 1.0, Some(Duration::from_secs(3))), Duration::from_secs(3));
        assert_eq!(policy.wait(1, 1.0, Some(Duration::from_hours(1))), policy.longest_wait);
    }
}
