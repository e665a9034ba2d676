//! The journal: what is under way, so that the next start knows and goes on by itself.
//!
//! One file, written before a transaction fetches anything, at each step that a person or the machine could notice, and
//! removed when it has ended. What it means after a crash (`transaction.rs` does it):
//!
//! | step | what was done | then |
//! |---|---|---|
//! | `preparing` | nothing that anybody sees | half-built trees are swept; what was fetched is kept; what was wanted is decided anew |
//! | `installing` n | the new generation is whole; n native packages are done, the next may be | it is detected: done, repeated once, or all is taken back |
//! | `switching` | native packages are done | `current` is the new generation; settings and checks follow |
//! | `checking` | `current` is the new generation, its settings are made | its checks are made: kept, or taken back |
//! | `undoing` n | something failed; n native packages are back | the rest is taken back, `current` is the base |

use mirabelle_content::durable;
use mirabelle_manifests::{Digest, PackageName};
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
    /// Native packages that it changes, in order.
    pub(crate) native: Vec<NativeStep>,
    /// How far it is.
    pub(crate) step: Step,
}

/// How far a transaction is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    Preparing,
    Installing {
        /// Native packages that are done.
        done: usize,
        /// How often the next one was begun.
        attempts: u32,
    },
    Switching,
    Checking,
    Undoing {
        /// Native packages that are to be taken back, from the front.
        left: usize,
        /// The release that failed.
        culprit: Option<Culprit>,
        /// What happened.
        why: String,
    },
}

/// A release that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Culprit {
    pub(crate) package: PackageName,
    pub(crate) release: Digest,
}

/// A native package that a transaction changes: from one release, or none, to another, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NativeStep {
    pub(crate) package: PackageName,
    /// What is there before: a release of the base generation.
    pub(crate) from: Option<Digest>,
    /// What is to be there: a release of the next one.
    pub(crate) to: Option<Digest>,
}

impl Layout {
    /// The transaction under way, if one is; a journal that cannot be read stands for none, since it is only ever
    /// replaced as a whole.
    pub(crate) fn journaled(&self) -> Result<Option<Transaction>, Failure> {
        let bytes = durable::read_if_present(&self.journal(), MAX_JOURNAL_BYTES)
            .or_fail(|| "cannot read the journal".to_owned())?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(crate) fn write_journal(&self, transaction: &Transaction) -> Result<(), Failure> {
        let what = || "cannot write the journal".to_owned();
        let bytes = serde_json::to_vec(transaction).or_fail(what)?;
        durable::write_atomically(&self.journal(), &bytes).or_fail(what)
    }

    pub(crate) fn end_journal(&self) -> Result<(), Failure> {
        durable::remove_file(&self.journal()).or_fail(|| "cannot end the journal".to_owned())
    }
}
