//! The journal: what is under way, so that the next start knows.
//!
//! One file, written before a transaction fetches anything and removed when it has ended. What it means after a crash:
//!
//! | `current` | then |
//! |---|---|
//! | is still the base | nothing a person sees has changed: half-built trees are swept, and the next `update` or `install` goes on with what was asked for; what had been fetched is kept |
//! | is the new generation | the switch was made, after all of it had been looked through: what comes after it is done again, and the journal ends |

use mirabelle_content::durable;
use mirabelle_manifests::PackageName;
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

const MAX_JOURNAL_BYTES: u64 = 1 << 20;

/// A transaction under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transaction {
    /// The generation it starts from.
    pub(crate) base: u64,
    /// The generation it makes.
    pub(crate) next: u64,
    /// What it is: `install ruff`.
    pub(crate) reason: String,
    /// What a person asked to have installed.
    pub(crate) asked_for: Vec<PackageName>,
}

impl Layout {
    /// The transaction under way, if one is; a journal that cannot be read stands for none, since it is only ever
    /// replaced as a whole.
    pub(crate) fn journaled(&self) -> Result<Option<Transaction>, Failure> {
        let bytes = durable::read_if_present(&self.journal(), MAX_JOURNAL_BYTES)
            .or_fail(|| "cannot read the journal".to_owned())?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(crate) fn begin(&self, transaction: &Transaction) -> Result<(), Failure> {
        let what = || "cannot write the journal".to_owned();
        let bytes = serde_json::to_vec(transaction).or_fail(what)?;
        durable::write_atomically(&self.journal(), &bytes).or_fail(what)
    }

    pub(crate) fn end(&self) -> Result<(), Failure> {
        durable::remove_file(&self.journal()).or_fail(|| "cannot end the journal".to_owned())
    }

    /// Brings the directory in order after whatever happened before, as the table above says. Returns what a person
    /// had asked for and did not get. Needs the lock.
    pub(crate) fn recover(&self) -> Result<Vec<PackageName>, Failure> {
        let what = || format!("cannot bring `{}` in order", self.root().display());
        durable::remove_tree(&self.staging()).or_fail(what)?;
        let Some(transaction) = self.journaled()? else { return Ok(Vec::new()) };
        if self.current_number()? == transaction.next {
            tracing::info!(
                reason = transaction.reason,
                "an interrupted transaction had been made, and is finished"
            );
            self.show_current(transaction.next)?;
            self.end()?;
            return Ok(Vec::new());
        }
        tracing::info!(reason = transaction.reason, "an interrupted transaction is taken up again");
        self.discard(&self.generation(transaction.next))?;
        Ok(transaction.asked_for)
    }
}
