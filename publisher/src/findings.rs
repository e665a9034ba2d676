//! What somebody should look at: a problem is something that readers will refuse or pass over, a warning something that is
//! valid and may not be meant.

use jiff::SignedDuration;
use mirabelle_manifests::Instant;
use serde::Serialize;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) problem: bool,
    pub(crate) about: String,
    pub(crate) text: String,
}

/// Things to look at, in the order they were found.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn problem(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { problem: true, about: about.into(), text: text.into() });
    }

    pub(crate) fn warn(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding { problem: false, about: about.into(), text: text.into() });
    }

    /// An expiry that is past, or nearer than `days`.
    pub(crate) fn expiry(
        &mut self,
        about: impl Into<String>,
        expires: Instant,
        now: Instant,
        days: u16,
        remedy: &str,
    ) {
        let near = now + SignedDuration::from_hours(24 * i64::from(days));
        if expires <= now {
            self.problem(about, format!("expired {expires:.0}; {remedy}"));
        } else if expires <= near {
            self.warn(about, format!("expires {expires:.0}; {remedy}"));
        }
    }
}

impl Finding {
    /// How it is called in a list.
    pub(crate) fn kind(&self) -> &'static str {
        if self.problem { "PROBLEM" } else { "warning" }
    }
}
