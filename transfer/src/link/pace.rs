//! When the next bytes may come: a rate kept piece by piece.
//!
//! The generic cell rate algorithm: each piece moves the moment at which the next one may come. Invariant: in any interval
//! no more bytes than the rate times the interval and [`LATENESS`], and one piece.

use std::time::Duration;

/// How late a timer may fire without the rate losing what it could have carried meanwhile.
const LATENESS: Duration = Duration::from_millis(5);
/// The longest piece.
const LONGEST_PIECE: u64 = 16 << 10;
/// The longest piece where nothing limits the rate.
const FREE_PIECE: u64 = 256 << 10;
/// The shortest: a packet.
const SHORTEST_PIECE: u64 = 1460;
/// Pieces in a second, so that a window opens little by little and what follows does not come as a burst.
const PIECES_A_SECOND: u64 = 100;
/// The same when somebody else's call must not wait behind a piece.
const YIELDING_PIECES_A_SECOND: u64 = 400;

/// The longest piece that is taken as one.
pub(crate) fn piece(rate: Option<u64>, yielding: bool) -> u64 {
    let pieces = if yielding { YIELDING_PIECES_A_SECOND } else { PIECES_A_SECOND };
    rate.map_or(FREE_PIECE, |rate| (rate / pieces).clamp(SHORTEST_PIECE, LONGEST_PIECE))
}

/// When the next bytes may come. Moments are told as time since some beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    next: Duration,
}

impl Pace {
    /// When the next piece may come, if not now.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        (self.next > now).then_some(self.next)
    }

    /// Takes note of a piece that comes now.
    pub(crate) fn take(&mut self, bytes: u64, rate: Option<u64>, now: Duration) {
        self.next = self.next.max(now.saturating_sub(LATENESS));
        if let Some(rate) = rate {
            self.next += time(bytes, rate);
        }
    }

    /// Under a new rate nobody waits longer than for one piece of it.
    pub(crate) fn change(&mut self, rate: Option<u64>, yielding: bool, now: Duration) {
        let longest = rate.map_or(Duration::ZERO, |rate| time(piece(Some(rate), yielding), rate));
        self.next = self.next.min(now + longest);
    }
}

/// How long so many bytes take.
fn time(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_are_short_enough_for_the_rate() {
        assert_eq!(piece(None, false), FREE_PIECE);
        assert_eq!(piece(Some(1_000_000), false), 10_000);
        assert_eq!(piece(Some(1_000_000), true), 2_500);
        assert_eq!(piece(Some(100), true), SHORTEST_PIECE);
        assert_eq!(piece(Some(100_000_000), true), LONGEST_PIECE);
    }

    proptest! {
        /// Over any interval: never more than the rate allows, and one burst.
        #[test]
        fn never_more_than_the_rate_and_one_burst(
            rate in 1_000u64..10_000_000,
            waits in prop::collection::vec((0u64..50_000, 1u64..=16384), 1..300),
        ) {
            let mut pace = Pace::default();
            let mut now = Duration::ZERO;
            let mut taken = Vec::new();
            for (wait, bytes) in waits {
                now += Duration::from_micros(wait);
                let bytes = bytes.min(piece(Some(rate), false));
                if pace.wait(now).is_none() {
                    pace.take(bytes, Some(rate), now);
                    taken.push((now, bytes));
                }
            }
            for (first, (begin, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (end, bytes) in &taken[first..] {
                    sum += bytes;
                    let time = (end.saturating_sub(*begin) + LATENESS).as_nanos();
                    let allowed = u128::from(rate) * time / 1_000_000_000
                        + u128::from(piece(Some(rate), false)) + taken.len() as u128;
                    prop_assert!(u128::from(sum) <= allowed, "{sum} > {allowed}");
                }
            }
        }
    }
}
