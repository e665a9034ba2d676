//! The journal: what is under way, so that the next start knows and goes on by itself.
//!
//! One file, written before a transaction fetches anything, at each step that a person or the machine could notice, and
//! removed when it has ended. It is only ever replaced as a whole, and one that cannot be read stops everything that would
//! change anything, until the program that wrote it finishes it or a person moves it away. What it means after a crash (`transaction.rs` does it):
//!
//! | step | what was done | then |
//! |---|---|---|
//! | `preparing` | nothing that anybody sees | half-built trees are swept; what was fetched is kept; what was wanted is decided anew |
//! | `installing` n | the new generation is whole; n native packages are done, the next may be | it is detected: done, repeated, or, interrupted a third time, all is taken back |
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
#[serde(deny_unknown_fields)]
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
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub(crate) struct Culprit {
    pub(crate) package: PackageName,
    pub(crate) release: Digest,
}

/// A native package that a transaction changes: from one release, or none, to another, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NativeStep {
    pub(crate) package: PackageName,
    /// What is there before: a release of the base generation.
    pub(crate) from: Option<Digest>,
    /// What is to be there: a release of the next one.
    pub(crate) to: Option<Digest>,
}

impl Layout {
    /// The transaction under way, if one is. A journal that says what is not known here is refused: a newer program's
    /// transaction, dropped half-way, would leave a mix that nobody finishes.
    pub(crate) fn journaled(&self) -> Result<Option<Transaction>, Failure> {
        let bytes = durable::read_if_present(&self.journal(), MAX_JOURNAL_BYTES)
            .or_fail(|| "cannot read the journal".to_owned())?;
        let Some(bytes) = bytes else { return Ok(None) };
        let path = self.journal();
        let read = serde_json::from_slice(&bytes).or_fail(|| {
            format!("`{}` was written by another version of mirabelle, or is damaged", path.display())
        });
        read.map(Some).map_err(|failure| {
            failure.hint(
                "the newer mirabelle finishes what it began; if there is none, move the file away: `mirabelle verify` then \
                 says what is not as it should be",
            )
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        assert_eq!(layout.journaled().unwrap(), None);
        let transaction = Transaction {
            base: 1,
            next: 2,
            reason: "update".into(),
            native: Vec::new(),
            step: Step::Installing { done: 0, attempts: 1 },
        };
        layout.write_journal(&transaction).unwrap();
        assert_eq!(layout.journaled().unwrap(), Some(transaction));
        let written = fs_err::read_to_string(layout.journal()).unwrap();
        let newer = [
            written.replace("installing", "soaring"),
            written.replace("\"done\"", "\"since\":1,\"done\""),
            written.replace("\"base\"", "\"format\":2,\"base\""),
        ];
        for journal in newer.iter().map(String::as_str).chain(["", "garbage"]) {
            fs_err::write(layout.journal(), journal).unwrap();
            let said = layout.journaled().unwrap_err().render();
            assert!(said.contains("another version of mirabelle, or is damaged"), "{journal}: {said}");
            assert!(said.contains("hint: ") && said.contains("move the file away"), "{journal}: {said}");
            assert_eq!(fs_err::read_to_string(layout.journal()).unwrap(), journal);
        }
    }
}
