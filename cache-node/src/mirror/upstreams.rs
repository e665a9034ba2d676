//! The servers that are mirrored from, in order of preference, and how each has fared.
//!
//! ```text
//! <root>/upstreams.json     {"http://origin.example/": {"failures": 2, "rests_until": "…", "last_failure": "…"}}
//! ```
//!
//! One that fails rests for a while, longer each time, so that a dead one costs the college one attempt an hour and not one
//! for every file; one that sent what was not signed for rests an hour at once. Resting is an order, not a ban: where
//! all of them rest, the one that is due first is asked first. The file can be deleted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, Kind};
use mirabelle_transfer::Fetcher;
use serde::{Deserialize, Serialize};

const MAX_FILE_BYTES: u64 = 1 << 20;
/// The rest after the first failure; it doubles each time.
const FIRST_REST: SignedDuration = SignedDuration::from_mins(1);
/// The longest rest.
const LONGEST_REST: SignedDuration = SignedDuration::from_hours(1);

/// How an upstream has fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Until when the others go before it.
    pub(crate) rests_until: Option<Instant>,
    pub(crate) last_success: Option<Instant>,
    pub(crate) last_failure: Option<String>,
}

/// The servers.
pub(crate) struct Upstreams {
    /// As configured, then the neighbours.
    fetchers: RwLock<Vec<Fetcher>>,
    configured: usize,
    health: Mutex<BTreeMap<String, Health>>,
    path: PathBuf,
}

impl Upstreams {
    /// Takes up how they fared before; what cannot be read is forgotten.
    pub(crate) fn open(path: &Path, fetchers: Vec<Fetcher>) -> Self {
        let configured = fetchers.len();
        let health = Mutex::new(read_health(path));
        Self { fetchers: RwLock::new(fetchers), configured, health, path: path.to_owned() }
    }

    /// Asks these too, after those that are configured; those that were found before, and are still, keep their connections.
    pub(crate) fn ask_too(&self, found: Vec<Fetcher>) {
        let mut fetchers = self.fetchers.write().unwrap_or_else(PoisonError::into_inner);
        let known = fetchers.split_off(self.configured);
        fetchers.extend(found.into_iter().map(|fetcher| {
            let same = known.iter().find(|known| known.upstream() == fetcher.upstream());
            same.cloned().unwrap_or(fetcher)
        }));
    }

    fn fetchers(&self) -> Vec<Fetcher> {
        self.fetchers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The servers, in the order in which to ask them at `now`.
    pub(crate) fn in_order(&self, now: Instant) -> Vec<Fetcher> {
        let mut order = self.fetchers();
        let health = self.lock();
        // Stable: those that are well stay in the order of preference.
        order.sort_by_key(|fetcher| {
            let until = health.get(&name(fetcher)).and_then(|health| health.rests_until);
            // Nobody rests longer than the longest rest: that was written by a clock that was ahead.
            until.filter(|until| *until > now && until.duration_since(now) <= LONGEST_REST)
        });
        order
    }

    /// Bytes received from all of them.
    pub(crate) fn received(&self) -> u64 {
        self.fetchers().iter().map(|fetcher| fetcher.meter().received()).sum()
    }

    /// It gave what was asked for.
    pub(crate) fn succeeded(&self, fetcher: &Fetcher, now: Instant) {
        let before =
            self.lock().insert(name(fetcher), Health { last_success: Some(now), ..Health::default() });
        // Only what people or the next start may want to know is worth a write.
        if before.is_none_or(|before| before.failures > 0) {
            self.write();
        }
    }

    /// It did not; the failure is logged.
    pub(crate) fn failed(&self, fetcher: &Fetcher, failure: &Failure, now: Instant) {
        let upstream = fetcher.upstream();
        tracing::warn!(%upstream, "upstream failed\n{}", failure.render().trim_end());
        {
            let mut all = self.lock();
            let health = all.entry(name(fetcher)).or_default();
            health.failures = health.failures.saturating_add(1);
            let rest = match failure.kind() {
                Kind::Trust => LONGEST_REST,
                _ => (FIRST_REST * (1 << (health.failures - 1).min(10))).min(LONGEST_REST),
            };
            health.rests_until = now.checked_add(rest).ok();
            health.last_failure = Some(failure.render().trim_end().to_owned());
        }
        self.write();
    }

    fn write(&self) {
        let known: Vec<String> = self.fetchers().iter().map(name).collect();
        let health = {
            let mut health = self.lock();
            // Neighbours come and go, and so do sticks.
            health.retain(|upstream, _| known.contains(upstream));
            health.clone()
        };
        let written = serde_json::to_vec_pretty(&health)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::write_atomically(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "how the upstreams fared could not be kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        // Each change is whole before anything can panic.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the upstreams fared, as the node wrote it.
pub(crate) fn read_health(path: &Path) -> BTreeMap<String, Health> {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn name(fetcher: &Fetcher) -> String {
    fetcher.upstream().to_string()
}

#[cfg(test)]
mod tests {
    use mirabelle_transfer::RetryPolicy;

    use super::*;

    fn upstreams(path: &Path) -> Upstreams {
        let fetcher = |name: &str| {
            Fetcher::new(format!("http://{name}.example/").parse().unwrap(), RetryPolicy::default()).unwrap()
        };
        Upstreams::open(path, ["a", "b", "c"].map(fetcher).into())
    }

    fn order(upstreams: &Upstreams, at: &str) -> String {
        let order = upstreams.in_order(at.parse().unwrap());
        order.iter().map(|fetcher| fetcher.upstream().to_string()[7..8].to_owned()).collect()
    }

    #[test]
    fn one_that_fails_rests_longer_each_time_and_is_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("upstreams.json");
        let all = upstreams(&path);
        let at = |text: &str| text.parse::<Instant>().unwrap();
        let network = Failure::no("no answer");
        all.failed(&all.fetchers()[0], &network, at("2026-11-26T08:00:00Z"));
        assert_eq!(order(&all, "2026-11-26T08:00:30Z"), "bca");
        assert_eq!(order(&all, "2026-11-26T08:01:00Z"), "abc");
        all.failed(&all.fetchers()[0], &network, at("2026-11-26T08:01:00Z"));
        assert_eq!(order(&all, "2026-11-26T08:02:30Z"), "bca");
        all.failed(&all.fetchers()[1], &Failure::trust("another file"), at("2026-11-26T08:02:30Z"));
        assert_eq!(order(&all, "2026-11-26T08:02:45Z"), "cab", "who lied rests longest");
        all.failed(&all.fetchers()[2], &network, at("2026-11-26T08:02:45Z"));
        assert_eq!(order(&all, "2026-11-26T08:02:46Z"), "acb", "where all rest, who is due first");
        // The next process knows.
        assert_eq!(order(&upstreams(&path), "2026-11-26T08:02:46Z"), "acb");
        all.succeeded(&all.fetchers()[1], at("2026-11-26T08:02:50Z"));
        assert_eq!(order(&upstreams(&path), "2026-11-26T08:02:51Z"), "bac");
        fs_err::write(&path, "nonsense").unwrap();
        assert_eq!(order(&upstreams(&path), "2026-11-26T08:02:51Z"), "abc");
    }
    #[test]
    fn a_rest_that_a_clock_ahead_of_its_time_wrote_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let all = upstreams(&directory.path().join("upstreams.json"));
        all.failed(&all.fetchers()[0], &Failure::trust("expired"), "2036-11-26T08:00:00Z".parse().unwrap());
        assert_eq!(order(&all, "2036-11-26T08:30:00Z"), "bca");
        assert_eq!(order(&all, "2026-11-26T08:30:00Z"), "abc");
    }
}
