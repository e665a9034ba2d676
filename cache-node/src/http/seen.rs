//! Who asked lately: how many machines live from this node. By address only, in memory only, for a day.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use mirabelle_manifests::Instant;

/// More addresses than the largest college has machines.
const MAX_ADDRESSES: usize = 4096;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The addresses that asked.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<IpAddr, Instant>>);

impl Seen {
    /// Somebody asked.
    pub(crate) fn note(&self, address: IpAddr, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_ADDRESSES && !seen.contains_key(&address) {
            seen.retain(|_, last| now.duration_since(*last) < DAY);
            if seen.len() >= MAX_ADDRESSES {
                return;
            }
        }
        seen.insert(address, now);
    }

    /// How many asked within so long.
    pub(crate) fn within(&self, period: SignedDuration, now: Instant) -> usize {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|(address, last)| !address.is_loopback() && now.duration_since(**last) < period)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_machines_not_requests_and_forgets_them() {
        let seen = Seen::default();
        let at = |hour: i8| -> Instant { format!("2026-11-26T{hour:02}:00:00Z").parse().unwrap() };
        for (address, hour) in [("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 7), ("127.0.0.1", 8)] {
            seen.note(address.parse().unwrap(), at(hour));
        }
        assert_eq!(seen.within(SignedDuration::from_hours(2), at(8)), 1);
        assert_eq!(seen.within(DAY, at(8)), 2);
        for number in 0..6000_u32 {
            seen.note(std::net::Ipv4Addr::from(number).into(), at(9));
        }
        assert!(seen.within(DAY, at(9)) <= MAX_ADDRESSES);
    }
}
