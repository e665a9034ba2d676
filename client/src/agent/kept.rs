//! What the agent keeps between its turns, each a small file that is replaced as a whole.
//!
//! ```text
//! <root>/outlook.json       what is to come (`outlook.rs`)
//! <root>/measured.json      how long installs took here
//! <root>/evening.json       the last evening: what was planned, done, left and why
//! <root>/reports.json       what the node does not know yet of this machine (`reports.rs`)
//! <root>/self.json          the agent's own update, while it is on trial (`self_update.rs`)
//! ```
//!
//! None of them is needed: one that is missing or cannot be read is made again; without `reports.json` the machine enrols under a new key.

use mirabelle_content::durable;
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::layout::Layout;

const MAX_KEPT_BYTES: u64 = 16 << 20;

pub(crate) const OUTLOOK: &str = "outlook.json";
pub(crate) const MEASURED: &str = "measured.json";
pub(crate) const EVENING: &str = "evening.json";
pub(crate) const OWN: &str = "self.json";
pub(crate) const REPORTS: &str = "reports.json";

impl Layout {
    /// Reads one of them.
    pub(crate) fn kept<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = durable::read_if_present(&self.root().join(name), MAX_KEPT_BYTES).ok()??;
        match serde_json::from_slice(&bytes) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(name, %error, "what the agent kept cannot be read and is made again");
                None
            }
        }
    }

    /// Writes one of them.
    pub(crate) fn keep<T: Serialize>(&self, name: &str, kept: &T) -> Result<(), Failure> {
        let what = || format!("cannot write `{name}`");
        let bytes = serde_json::to_vec_pretty(kept).or_fail(what)?;
        durable::write_atomically(&self.root().join(name), &bytes).or_fail(what)
    }

    pub(crate) fn forget(&self, name: &str) -> Result<(), Failure> {
        durable::remove_file(&self.root().join(name)).or_fail(|| format!("cannot remove `{name}`"))
    }
}
