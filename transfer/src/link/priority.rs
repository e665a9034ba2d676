//! Who waits for bytes, and the order in which the link serves them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who waits for bytes; whoever comes first here is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// A workstation waits for it now.
    Waiting,
    /// It closes a hole.
    Security,
    /// It has an hour by which it must be here.
    Deadline,
    /// The college must have it.
    Required,
    /// The college may have it.
    Available,
    /// Nobody has asked for it yet.
    Speculative,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Security => "security",
            Self::Deadline => "deadline",
            Self::Required => "required",
            Self::Available => "available",
            Self::Speculative => "speculative",
        })
    }
}

/// What bytes are for: the order in which the link serves them, and whether they may use the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// Content, for whoever waits.
    Waiting,
    /// Signed metadata: small, and nobody knows what to fetch without it.
    Metadata,
    /// Content for everybody else.
    Content(Priority),
    /// Measures the delay; waits for nobody, since waiting is what it measures.
    Probe,
}

impl Class {
    /// True for what may use the reserve of a day's budget.
    pub(crate) fn may_use_reserve(self) -> bool {
        matches!(self, Self::Waiting | Self::Metadata)
    }
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Waiting => Self::Waiting,
            other => Self::Content(other),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => Priority::Waiting.fmt(f),
            Self::Metadata => f.write_str("metadata"),
            Self::Content(priority) => priority.fmt(f),
            Self::Probe => f.write_str("probes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_need() {
        use Priority::{Available, Deadline, Required, Security, Speculative, Waiting};
        let mut classes: Vec<Class> =
            [Speculative, Available, Required, Deadline, Security, Waiting].map(Class::from).to_vec();
        classes.push(Class::Metadata);
        classes.sort_unstable();
        let words: Vec<String> = classes.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            ["waiting", "metadata", "security", "deadline", "required", "available", "speculative"]
        );
    }
}
