//! Numbers of requests that were seen: each counts once.

use std::collections::BTreeSet;

use mirabelle_manifests::Instant;

use crate::http_signature::{COUNTS, Nonce, Signed};

/// The most that are remembered; a receiver that hears more in ten minutes is flooded, and refuses rather than forgets.
const MAX_SEEN: usize = 100_000;

/// Those of the last minutes: an older request counts no more by its time.
#[derive(Debug, Default)]
pub struct Seen {
    by_time: BTreeSet<(i64, Nonce)>,
}

impl Seen {
    /// True the first time; false when the request was seen, or too many were.
    pub fn is_first(&mut self, signed: &Signed, now: Instant) -> bool {
        let oldest = now.as_second() - COUNTS;
        while self.by_time.first().is_some_and(|(second, _)| *second < oldest) {
            self.by_time.pop_first();
        }
        self.by_time.len() < MAX_SEEN
            && self.by_time.insert((signed.created.as_second(), signed.nonce.clone()))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
    use mirabelle_keys::SigningKey;

    use super::*;

    #[test]
    fn a_request_counts_once_and_is_forgotten_when_its_time_is_over() {
        let now = |second| Instant::from_second(1_790_000_000 + second).unwrap();
        let request = |nonce: u8, second: i64| {
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
            let (key, nonce) = (SigningKey::from_seed(&[1; 32]), Nonce::of(&[nonce; 16]));
            Signed::sign(&key, &Method::POST, "/", &mut headers, b"", (now(second), &nonce)).unwrap();
            Signed::of(&headers).unwrap()
        };
        let mut seen = Seen::default();
        assert!(seen.is_first(&request(1, 0), now(1)));
        assert!(!seen.is_first(&request(1, 0), now(200)));
        assert!(seen.is_first(&request(2, 0), now(200)));
        assert!(seen.is_first(&request(3, 400), now(400)));
        assert_eq!(seen.by_time.len(), 1);
    }
}
