//! Stub.
use serde::{Deserialize, Serialize};
/// Who waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// A workstation waits.
    Waiting,
    /// Security.
    Security,
    /// Deadline.
    Deadline,
    /// Required.
    Required,
    /// Available.
    Available,
    /// Speculative.
    Speculative,
}
