//! What machines say of themselves, so that whoever passes it on can neither make it nor change it.
//!
//! ```text
//!   workstation ── SignedReport, numbered, in a signed request ──▶ node ── batches, in a signed request ──▶ origin
//!        └─ Enrolment: this key is the machine's, says the college's code ──▶ node
//! ```
//!
//! Pure, as `manifests` is: bytes and the time come in.
//!
//! Threats and the defence for each:
//! - *A workstation, or a node that was broken into, reports for another*: each report is signed by the key of its machine
//!   ([`SignedReport`]), and a key speaks for one machine.
//! - *A report is left out, sent again or out of its order*: reports of a key are numbered without gaps ([`Report::number`]).
//! - *A request is sent again, or with another body*: the signature covers method, path and body, its time and a number that counts once
//!   ([`Signed`], [`Seen`]).
//! - *A disk that was cloned, so that two machines have one key*: their numbers collide ([`Standing::Forked`]), and whoever hears of it makes
//!   itself a key of its own.
//! - *Whoever stands in the college's network enrols what is no machine of the college*: the code is never sent, it signs ([`Enrolment`]).

mod enrolment;
mod http_signature;
mod report;
mod rollout;
mod seen;

pub use enrolment::{CollegeCode, Enrolment, EnrolmentError};
pub use http_signature::{Nonce, SignatureError, Signed};
pub use report::{
    Event, Hardware, Inventory, Last, MAX_REPORT_BYTES, NodeState, Power, Report, ReportError, SignedReport,
    Standing,
};
pub use rollout::{Course, Hold, Progress, RingProgress, Stand, Step, Watched, Workstation};
pub use seen::Seen;
