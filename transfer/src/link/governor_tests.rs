//! The rules, the budget, the pace and the line together.

use mirabelle_manifests::Day;
use proptest::prelude::*;

use super::*;
use crate::link::{Priority, RateRule};

const MS: Duration = Duration::from_millis(1);

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

fn morning() -> Instant {
    at("2026-11-26T08:00:00Z")
}

fn limits(rate: Rate, budget: Option<u64>) -> Limits {
    Limits { otherwise: rate, daily_budget: budget, ..Limits::default() }
}

fn governor(limits: Limits) -> Governor {
    Governor::new(limits, None, morning())
}

#[test]
fn whoever_needs_it_most_is_first_and_others_of_a_class_take_turns() {
    let mut governor = governor(limits(Rate::BytesPerSecond(100_000), None));
    let [speculative, first, second, waiting] =
        [Priority::Speculative, Priority::Required, Priority::Required, Priority::Waiting]
            .map(|priority| governor.join(priority.into()));
    let mut now = Duration::ZERO;
    let mut served = Vec::new();
    let places = [speculative, first, second, waiting];
    while served.len() < places.len() {
        for (number, place) in places.iter().enumerate() {
            if !served.contains(&number) && governor.ask(*place, 1000, now) == Answer::Granted {
                served.push(number);
            }
        }
        now += MS;
    }
    assert_eq!(served, [3, 1, 2, 0]);
}

#[test]
fn content_leaves_the_reserve_to_metadata_and_to_waiting_workstations() {
    let mut governor = governor(limits(Rate::Unlimited, Some(100_000)));
    let mut take = |class: Class, bytes| {
        let place = governor.join(class);
        let answer = governor.ask(place, bytes, Duration::ZERO);
        governor.leave(place);
        answer
    };
    let content = Class::from(Priority::Required);
    let closed = LinkClosed { until: Some(at("2026-11-27T00:00:00Z")), why: Closed::Budget };
    assert_eq!(take(content, 94_000), Answer::Granted);
    assert_eq!(take(content, 2_000), Answer::Closed(closed));
    assert_eq!(take(Class::Metadata, 2_000), Answer::Granted);
    assert_eq!(take(Class::Waiting, 3_000), Answer::Granted);
    assert_eq!(take(Class::Waiting, 3_000), Answer::Closed(closed));
    assert_eq!(
        closed.to_string(),
        "the link is closed until 2026-11-27T00:00:00Z: the bytes of the day are spent"
    );
}

#[test]
fn limits_change_live_and_hours_close_and_open() {
    let mut governor = governor(limits(Rate::BytesPerSecond(1), None));
    let place = governor.join(Class::Metadata);
    assert_eq!(governor.ask(place, 1_000, Duration::ZERO), Answer::Granted);
    let place = governor.join(Class::Metadata);
    assert_eq!(governor.ask(place, 1_000, MS), Answer::WaitUntil(Duration::from_secs(1000)));
    governor.set_limits(limits(Rate::BytesPerSecond(1_000_000), None), MS);
    assert!(matches!(governor.ask(place, 1_000, MS), Answer::WaitUntil(at) if at < MS * 20));
    let rule = RateRule {
        days: Day::ALL.to_vec(),
        from: "09:00".parse().unwrap(),
        to: "10:00".parse().unwrap(),
        rate: Rate::Closed,
        on_holidays: true,
    };
    governor.set_limits(Limits { rules: vec![rule], ..Limits::default() }, MS * 20);
    assert_eq!(governor.ask(place, 1_000, MS * 20), Answer::Granted);
    let place = governor.join(Class::Waiting);
    let hour = Duration::from_hours(1);
    let closed = LinkClosed { until: Some(at("2026-11-26T10:00:00Z")), why: Closed::Hours };
    assert_eq!(governor.ask(place, 0, hour), Answer::Closed(closed));
    assert_eq!(governor.report(hour).state, LinkState::Closed);
    assert_eq!(governor.ask(place, 0, hour * 2), Answer::Granted);
}

#[test]
fn nothing_is_spent_that_is_not_written_and_a_ledger_that_fails_closes_a_link_with_a_budget() {
    let mut governor =
        Governor::new(limits(Rate::Unlimited, Some(1 << 30)), Some(Ledger::default()), morning());
    let place = governor.join(Class::Metadata);
    assert_eq!(governor.ask(place, 1_000, Duration::ZERO), Answer::WaitTurn);
    let ledger = governor.begin_writing(1_000, Duration::ZERO).unwrap();
    assert_eq!(governor.begin_writing(1_000, Duration::ZERO), None, "one at a time");
    governor.wrote(None, Duration::ZERO);
    let closed = LinkClosed { until: None, why: Closed::Ledger };
    assert_eq!(governor.ask(place, 1_000, MS), Answer::Closed(closed));
    let later = LEDGER_PAUSE * 2;
    assert_eq!(governor.begin_writing(1_000, later).as_ref(), Some(&ledger));
    governor.wrote(Some(&ledger), later);
    assert_eq!(governor.ask(place, 1_000, later), Answer::Granted);
    // Written ahead, and no more than that.
    let after_crash = Governor::new(limits(Rate::Unlimited, None), Some(ledger), morning()).report(MS).spent;
    assert!((1_000..=SMALLEST_BLOCK.max((1 << 30) / BLOCKS_A_DAY)).contains(&after_crash), "{after_crash}");
}

proptest! {
    /// Whatever the interleaving, the rate and the budget hold, at every crash and every midnight.
    #[test]
    fn no_interleaving_exceeds_the_rate_or_the_budget(
        steps in prop::collection::vec((0u8..20, 0usize..4, 1u64..3000, 0u64..40_000_000), 1..300),
    ) {
        const BUDGET: u64 = 200_000;
        let classes = [Class::Waiting, Class::Metadata, Priority::Required.into(), Class::Probe];
        let limits = limits(Rate::BytesPerSecond(50_000), Some(BUDGET));
        let mut disk = Ledger::default();
        let mut governor = Governor::new(limits.clone(), Some(disk.clone()), morning());
        let mut now = Duration::ZERO;
        let mut by_day: BTreeMap<jiff::civil::Date, u64> = BTreeMap::new();
        for (what, class, bytes, wait) in steps {
            match what {
                // It crashes, and begins anew at the same time of the day.
                0 => {
                    let wall = governor.wall(now);
                    governor = Governor::new(limits.clone(), Some(disk.clone()), wall);
                    now = Duration::ZERO;
                }
                1 => now += Duration::from_millis(wait),
                _ => {
                    now += Duration::from_micros(wait % 50_000);
                    let place = governor.join(classes[class]);
                    let mut answer = governor.ask(place, bytes, now);
                    if answer == Answer::WaitTurn
                        && let Some(ledger) = governor.begin_writing(bytes, now)
                    {
                        disk = ledger;
                        governor.wrote(Some(&disk), now);
                        answer = governor.ask(place, bytes, now);
                    }
                    governor.leave(place);
                    if answer == Answer::Granted {
                        *by_day.entry(limits.day(governor.wall(now))).or_default() += bytes;
                    }
                }
            }
            prop_assert!(by_day.values().all(|bytes| *bytes <= BUDGET), "{by_day:?}");
        }
    }
}
