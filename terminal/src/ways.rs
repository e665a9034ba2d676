//! The ways to a release, as people read them.

use std::fmt::Write as _;

use mirabelle_transfer::ReleasePlan;

use crate::{Table, bytes};

/// What was weighed, cheapest first, the first marked; then what does not count, and why.
pub fn ways(plan: &ReleasePlan) -> String {
    let held = match plan.held.as_slice() {
        [] => "nothing of it is held".to_owned(),
        held => format!("held: {}", held.join(", ")),
    };
    let mut text = format!("{} {} from {} ({held})\n", plan.package, plan.version, plan.upstream);
    let mut table = Table::new(["", "way", "to fetch"]).right([2]);
    for (number, candidate) in plan.candidates.iter().enumerate() {
        let mark = if number == 0 { "→" } else { "" };
        let limit = if candidate.at_most { "≤ " } else { "" };
        table.row([mark.to_owned(), candidate.way.clone(), format!("{limit}{}", bytes(candidate.bytes))]);
    }
    if table.is_empty() {
        text.push_str("the server offers no way to it\n");
    } else {
        text.push_str(&table.render());
    }
    for passed_over in &plan.passed_over {
        let _ = writeln!(text, "not taken: {}: {}", passed_over.way, passed_over.why);
    }
    text
}
