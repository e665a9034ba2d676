//! The evening: what fits into the minutes that remain before the machine is switched off.
//!
//! Promise 8. The plan is made from how long installs took here before; each is one transaction, so that whatever the hour
//! cuts off is finished or taken back at the next start. Pure: the agent acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use mirabelle_manifests::{Instant, PackageName};
use serde::{Deserialize, Serialize};

use crate::outlook::{Due, Outlook};
use crate::platform;

/// What is kept free before the hour: for ending what is under way, and for switching off.
const MARGIN: Duration = Duration::from_secs(15);
/// What a package is expected to take that was never installed here, beside its bytes.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Bytes a second that are expected to be fetched and installed before any was measured: a slow disk and a busy node.
const UNKNOWN_RATE: u64 = 4 << 20;
/// What is already here only has to be linked and switched to: so many times faster.
const PREPARED: u64 = 8;
/// How much a new measurement counts against those before it, in quarters.
const WEIGHT: u32 = 1;

/// How long installs took here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measured {
    /// Milliseconds, by package: a mean that forgets.
    milliseconds: BTreeMap<PackageName, u64>,
}

impl Measured {
    /// Takes note of an install.
    pub(crate) fn note(&mut self, package: &PackageName, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let known = self.milliseconds.get(package).copied().unwrap_or(took);
        let weight = u64::from(WEIGHT);
        self.milliseconds
            .insert(package.clone(), (known.saturating_mul(4 - weight) + took.saturating_mul(weight)) / 4);
    }

    /// How long `due` is expected to take.
    pub(crate) fn expect(&self, due: &Due) -> Duration {
        self.expect_of(&due.package, due.bytes, due.prepared)
    }

    /// How long a package of so many bytes is expected to take, from the node or from what is here.
    pub(crate) fn expect_of(&self, package: &PackageName, bytes: u64, prepared: bool) -> Duration {
        if let Some(milliseconds) = self.milliseconds.get(package) {
            return Duration::from_millis(*milliseconds);
        }
        let rate = if prepared { UNKNOWN_RATE * PREPARED } else { UNKNOWN_RATE };
        UNKNOWN + Duration::from_secs(bytes / rate)
    }
}

/// An evening, as it is journalled: written before the first install, after each, and before the machine goes off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evening {
    /// When the machine is switched off.
    pub(crate) hour: Instant,
    pub(crate) begun: Instant,
    /// The run of the machine that it belongs to (`platform::boot`).
    pub(crate) boot: String,
    /// What fits, in order.
    pub(crate) planned: Vec<Planned>,
    /// What was done.
    pub(crate) done: Vec<PackageName>,
    /// What was not, and why.
    pub(crate) left: Vec<Left>,
    /// When the machine was told to go off.
    pub(crate) switched_off: Option<Instant>,
}

/// Something that fits into an evening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) package: PackageName,
    /// What it is expected to take.
    pub(crate) seconds: u64,
}

/// Something that was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) package: PackageName,
    pub(crate) why: WhyLeft,
}

/// Why something was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub(crate) enum WhyLeft {
    #[error("it is expected to take {seconds} s, and {remaining} s remained")]
    NoTime { seconds: u64, remaining: u64 },
    #[error("the hour came while it was being installed; it is finished or taken back at the next start")]
    CutOff,
    #[error("it failed: {said}")]
    Failed { said: String },
    #[error("it was not begun before the hour")]
    NotBegun,
    #[error("somebody was using it")]
    InUse,
}

impl Evening {
    /// Plans an evening that begins at `now`: first what must be there soonest, then what is quickest, as much as fits.
    pub(crate) fn plan(outlook: Option<&Outlook>, measured: &Measured, now: Instant, hour: Instant) -> Self {
        let mut due: Vec<(&Due, Duration)> =
            outlook.iter().flat_map(|outlook| &outlook.due).map(|due| (due, measured.expect(due))).collect();
        due.sort_by_key(|(due, expected)| (due.deadline.unwrap_or(Instant::MAX), *expected));
        let mut evening = Self {
            hour,
            begun: now,
            boot: platform::boot(),
            planned: Vec::new(),
            done: Vec::new(),
            left: Vec::new(),
            switched_off: None,
        };
        let mut remaining = remaining(now, hour);
        for (due, expected) in due {
            if let Some(rest) = remaining.checked_sub(expected) {
                remaining = rest;
                let seconds = expected.as_secs();
                evening.planned.push(Planned { package: due.package.clone(), seconds });
            } else {
                let why = WhyLeft::NoTime { seconds: expected.as_secs(), remaining: remaining.as_secs() };
                evening.left.push(Left { package: due.package.clone(), why });
            }
        }
        evening
    }

    /// The next that was neither done nor left.
    pub(crate) fn next(&self) -> Option<&PackageName> {
        self.planned.iter().map(|planned| &planned.package).find(|package| !self.is_over(package))
    }

    fn is_over(&self, package: &PackageName) -> bool {
        self.done.contains(package) || self.left.iter().any(|left| left.package == *package)
    }

    /// What is planned and not over is left when the hour comes.
    pub(crate) fn close(&mut self, cut_off: Option<&PackageName>) {
        while let Some(package) = self.next().cloned() {
            let why = if cut_off == Some(&package) { WhyLeft::CutOff } else { WhyLeft::NotBegun };
            self.left.push(Left { package, why });
        }
    }
}

/// What may be used of the time until `hour`.
pub(crate) fn remaining(now: Instant, hour: Instant) -> Duration {
    Duration::try_from(hour.duration_since(now)).unwrap_or_default().saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlook::Verb;

    fn due(package: &str, bytes: u64, deadline: Option<&str>) -> Due {
        Due {
            package: package.parse().unwrap(),
            verb: Verb::Update,
            version: None,
            deadline: deadline.map(|deadline| deadline.parse().unwrap()),
            bytes,
            prepared: true,
            reasons: vec![],
        }
    }

    fn outlook(due: Vec<Due>) -> Outlook {
        Outlook { due, ..Outlook::default() }
    }

    fn plan(outlook: &Outlook, measured: &Measured, minutes: i64) -> (Vec<String>, Vec<String>) {
        let now: Instant = "2026-11-25T17:00:00Z".parse().unwrap();
        let hour = now + jiff::SignedDuration::from_mins(minutes);
        let evening = Evening::plan(Some(outlook), measured, now, hour);
        let names = |packages: Vec<&PackageName>| packages.into_iter().map(ToString::to_string).collect();
        (
            names(evening.planned.iter().map(|planned| &planned.package).collect()),
            names(evening.left.iter().map(|left| &left.package).collect()),
        )
    }

    #[test]
    fn the_nearest_deadline_comes_first_then_the_quickest() {
        let outlook = outlook(vec![
            due("large", 2_000_000_000, None),
            due("small", 1_000_000, None),
            due("urgent", 500_000_000, Some("2026-11-26T00:00:00Z")),
        ]);
        let (planned, left) = plan(&outlook, &Measured::default(), 30);
        assert_eq!(planned, ["urgent", "small", "large"]);
        assert!(left.is_empty());
        let (planned, left) = plan(&outlook, &Measured::default(), 1);
        assert_eq!(
            (planned, left),
            (vec!["urgent".to_owned(), "small".to_owned()], vec!["large".to_owned()])
        );
    }

    #[test]
    fn what_was_measured_counts_more_than_what_is_guessed() {
        let outlook = outlook(vec![due("a", 10_000_000_000, None)]);
        let mut measured = Measured::default();
        assert_eq!(plan(&outlook, &measured, 3).1, ["a"]);
        measured.note(&"a".parse().unwrap(), Duration::from_secs(20));
        assert_eq!(plan(&outlook, &measured, 3).0, ["a"]);
        for _ in 0..20 {
            measured.note(&"a".parse().unwrap(), Duration::from_mins(10));
        }
        assert_eq!(plan(&outlook, &measured, 3).1, ["a"], "it has become slower");
    }

    #[test]
    fn nothing_is_begun_in_the_last_seconds() {
        let outlook = outlook(vec![due("a", 0, None)]);
        let (planned, left) = plan(&outlook, &Measured::default(), 0);
        assert!(planned.is_empty());
        assert_eq!(left, ["a"]);
    }

    #[test]
    fn everything_that_was_planned_is_done_or_left_in_the_end() {
        let outlook = outlook(vec![due("a", 0, None), due("b", 0, None), due("c", 0, None)]);
        let now: Instant = "2026-11-25T17:00:00Z".parse().unwrap();
        let mut evening = Evening::plan(
            Some(&outlook),
            &Measured::default(),
            now,
            now + jiff::SignedDuration::from_mins(30),
        );
        evening.done.push("a".parse().unwrap());
        evening.close(Some(&"b".parse().unwrap()));
        assert_eq!(evening.next(), None);
        let left: Vec<(&str, &WhyLeft)> =
            evening.left.iter().map(|left| (left.package.as_str(), &left.why)).collect();
        assert_eq!(left, [("b", &WhyLeft::CutOff), ("c", &WhyLeft::NotBegun)]);
    }
}
