//! What each step cost.

use std::time::Duration;

use mirabelle_terminal::{Table, bytes};

/// The table at the end.
#[derive(Default)]
pub(crate) struct Ledger(Vec<(String, Duration, u64, u64)>);

impl Ledger {
    /// A step, its time, and the bytes it moved over the two links, both directions together.
    pub(crate) fn add(&mut self, step: &str, took: Duration, wan: u64, lan: u64) {
        self.0.push((step.to_owned(), took, wan, lan));
    }

    pub(crate) fn render(&self) -> String {
        let amount = |count: u64| if count == 0 { "–".to_owned() } else { bytes(count) };
        let mut table = Table::new(["step", "over the WAN", "over the LAN", "seconds"]).right([1, 2, 3]);
        for (step, took, wan, lan) in &self.0 {
            table.row([step.clone(), amount(*wan), amount(*lan), format!("{:.1}", took.as_secs_f64())]);
        }
        let sum = |of: fn(&(String, Duration, u64, u64)) -> u64| amount(self.0.iter().map(of).sum());
        let time: Duration = self.0.iter().map(|(_, took, _, _)| *took).sum();
        table.row([
            "in all".into(),
            sum(|row| row.2),
            sum(|row| row.3),
            format!("{:.1}", time.as_secs_f64()),
        ]);
        table.render()
    }
}
