//! The bytes of the day, and the ledger that remembers them.
//!
//! Invariant: in no civil day of the college more bytes are spent than its budget, whatever crashes, and whichever way the
//! clock jumps back. A block of bytes stands in the ledger as spent before its first byte is: a process that dies loses at
//! most the rest of a block, and never has a byte twice.
//!
//! ```text
//! <ledger>   {"days": {"2026-11-25": 912384210, "2026-11-26": 4194304}}
//! ```
//!
//! *A clock that jumps back* must not give a second budget, nor one that jumps back and comes forward again: what was
//! spent on days that are now to come counts today, and still counts when they come. Days that are further than a week
//! ahead were never real: what was spent on them counts today alone, so that a clock which once said 2036 does not close the
//! link for ten years. A clock that jumps forward begins a day, as midnight does: nothing here can tell the two apart.
//! *A damaged ledger* counts as a day that is spent whole.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Days that are remembered.
const DAYS: usize = 16;
/// How far ahead a clock may have been wrong for its days to count again when they come.
const NEAR_DAYS: i64 = 7;

/// What the ledger's file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    days: BTreeMap<Date, u64>,
}

impl Ledger {
    /// A ledger that says nothing but that so many bytes were spent on `day`.
    pub(crate) fn spent(day: Date, bytes: u64) -> Self {
        Self { days: BTreeMap::from([(day, bytes)]) }
    }
}

/// One day's bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    used: u64,
    /// What the ledger says; never less than `used`.
    written: u64,
}

/// The bytes of the day.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    days: BTreeMap<Date, Spent>,
    today: Date,
}

impl Budget {
    /// Goes on where the ledger stops.
    pub(crate) fn open(ledger: Ledger, today: Date) -> Self {
        let spent = |(day, bytes)| (day, Spent { used: bytes, written: bytes });
        let mut budget = Self { days: ledger.days.into_iter().map(spent).collect(), today };
        budget.turn(today);
        budget
    }

    /// Takes note of which day it is.
    pub(crate) fn turn(&mut self, today: Date) {
        self.today = today;
        let own = self.days.entry(today).or_default();
        let near = today.checked_add(NEAR_DAYS.days()).unwrap_or(Date::MAX);
        let mut all = *own;
        while let Some(last) = self.days.last_entry().filter(|last| *last.key() > near) {
            let Spent { used, written } = last.remove();
            all.used = all.used.saturating_add(used);
            all.written = all.written.saturating_add(written);
        }
        self.days.insert(today, all);
        while self.days.len() > DAYS {
            self.days.pop_first();
        }
    }

    fn own(&self) -> Spent {
        self.days.get(&self.today).copied().unwrap_or_default()
    }

    /// Bytes that count as spent today: those of today, and of days that the clock said before and that are to come.
    pub(crate) fn used(&self) -> u64 {
        self.days.range(self.today..).fold(0, |all: u64, (_, day)| all.saturating_add(day.used))
    }

    /// Bytes that stand in the ledger as spent today and are not used yet.
    pub(crate) fn ahead(&self) -> u64 {
        let Spent { used, written } = self.own();
        written.saturating_sub(used)
    }

    /// Uses bytes that stand in the ledger already; false, and nothing is used, if they do not.
    pub(crate) fn spend(&mut self, bytes: u64) -> bool {
        let covered = bytes <= self.ahead();
        if covered {
            self.days.entry(self.today).or_default().used += bytes;
        }
        covered
    }

    /// Takes note of bytes that have come without being asked for; the next ledger says so.
    pub(crate) fn spend_anyway(&mut self, bytes: u64) {
        let own = self.days.entry(self.today).or_default();
        own.used = own.used.saturating_add(bytes);
    }

    /// The ledger in which `ahead` bytes stand as spent today beyond those that are.
    pub(crate) fn ledger(&self, ahead: u64) -> Ledger {
        let mut days: BTreeMap<Date, u64> =
            self.days.iter().map(|(day, spent)| (*day, spent.written)).collect();
        days.insert(self.today, self.own().used.saturating_add(ahead));
        Ledger { days }
    }

    /// Takes note that a ledger was written.
    pub(crate) fn wrote(&mut self, ledger: &Ledger) {
        for (day, spent) in &mut self.days {
            spent.written = ledger.days.get(day).copied().unwrap_or(0).max(spent.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(number: i8) -> Date {
        Date::new(2026, 11, number).unwrap()
    }

    fn spend(budget: &mut Budget, disk: &mut Ledger, bytes: u64, ahead: u64) {
        if budget.ahead() < bytes {
            *disk = budget.ledger(bytes.max(ahead));
            budget.wrote(disk);
        }
        assert!(budget.spend(bytes));
    }

    #[test]
    fn a_clock_that_jumps_back_gives_no_second_budget() {
        let (mut budget, mut disk) = (Budget::open(Ledger::default(), day(5)), Ledger::default());
        spend(&mut budget, &mut disk, 100, 0);
        budget.turn(day(6));
        assert_eq!(budget.used(), 0);
        spend(&mut budget, &mut disk, 10, 0);
        for (today, used) in [(5, 110), (4, 110), (5, 110), (6, 10), (7, 0), (6, 10)] {
            budget.turn(day(today));
            assert_eq!(budget.used(), used, "{today}");
            assert_eq!(Budget::open(disk.clone(), day(today)).used(), used, "and after a crash");
        }
    }

    #[test]
    fn a_year_that_never_was_costs_one_day() {
        let (mut budget, mut disk) = (Budget::open(Ledger::default(), day(5)), Ledger::default());
        spend(&mut budget, &mut disk, 1, 0);
        budget.turn(Date::constant(2036, 1, 1));
        spend(&mut budget, &mut disk, 100, 0);
        for (today, used) in [(5, 101), (6, 0)] {
            budget.turn(day(today));
            assert_eq!(budget.used(), used, "{today}");
        }
    }

    #[test]
    fn what_is_not_in_the_ledger_cannot_be_spent() {
        let mut budget = Budget::open(Ledger::default(), day(1));
        assert!(!budget.spend(1));
        let ledger = budget.ledger(10);
        assert!(!budget.spend(1), "it is not written yet");
        budget.wrote(&ledger);
        assert!(budget.spend(10) && !budget.spend(1));
    }

    proptest! {
        /// Whatever is spent, lost in crashes, and told about the time: no civil day costs more than its budget, as an oracle
        /// counts that sees the bytes alone.
        #[test]
        fn no_day_costs_more_than_its_budget(
            steps in prop::collection::vec((0u8..10, 1u64..400, 10i8..=17), 1..200),
        ) {
            const LIMIT: u64 = 1000;
            let (mut budget, mut disk) = (Budget::open(Ledger::default(), day(12)), Ledger::default());
            let mut oracle: BTreeMap<Date, u64> = BTreeMap::new();
            for (what, bytes, date) in steps {
                match what {
                    0 => budget = Budget::open(disk.clone(), budget.today),
                    1 | 2 => budget.turn(day(date)),
                    _ if budget.used() + bytes <= LIMIT => {
                        let ahead = (LIMIT - budget.used()).min(150);
                        spend(&mut budget, &mut disk, bytes, ahead);
                        *oracle.entry(budget.today).or_default() += bytes;
                    }
                    _ => {}
                }
                prop_assert!(oracle.values().all(|spent| *spent <= LIMIT), "{oracle:?}");
            }
        }
    }
}
