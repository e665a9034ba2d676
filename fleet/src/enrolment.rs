//! Enrolment: a machine of the college, says whoever has the college's code.
//!
//! ```text
//! {"by": {"keyid": "…", "sig": "…"}, "first": {"report": …, "signature": …}}     `by`: the code's key, over the first report's bytes
//! ```
//!
//! The node shows the code to whoever administers it; it is typed at a workstation, or put into the image that workstations are made
//! from. It is never sent: it signs. Whoever listens learns nothing, and whoever has it can add machines to this college, and no more.

use std::str::FromStr;

use mirabelle_keys::{PublicKey, Signature, SigningKey, WrittenKey, WrittenKeyError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::report::{Report, ReportError, SignedReport};

/// A college's code: `K7QF-2M9X-PWTD-8RSA`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollegeCode(WrittenKey);

impl CollegeCode {
    /// A new one.
    pub fn generate() -> Self {
        Self(WrittenKey::generate())
    }

    /// The public half of what it signs with.
    pub fn public(&self) -> PublicKey {
        self.key().public()
    }

    fn key(&self) -> SigningKey {
        self.0.key("mirabelle college code 1")
    }

    /// In groups of four, for a person.
    pub fn shown(&self) -> Zeroizing<String> {
        self.0.shown()
    }
}

impl FromStr for CollegeCode {
    type Err = WrittenKeyError;

    fn from_str(text: &str) -> Result<Self, WrittenKeyError> {
        text.parse().map(Self)
    }
}

/// A machine's first report, with the signature of the college's code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    by: Signature,
    first: SignedReport,
}

/// Why a machine is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// Not JSON of this shape, or no first report.
    #[error("the enrolment cannot be read")]
    Malformed(#[source] ReportError),
    /// Not this college's code.
    #[error("this is not the college's code")]
    Code,
}

impl Enrolment {
    /// Signs a machine's first report with the code.
    pub fn new(first: SignedReport, code: &CollegeCode) -> Self {
        Self { by: code.key().sign(&message(&first)), first }
    }

    /// Reads one; nothing of it is verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnrolmentError> {
        serde_json::from_slice(bytes)
            .map_err(|error| EnrolmentError::Malformed(ReportError::Malformed(error)))
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnrolmentError> {
        serde_json::to_vec(self).map_err(|error| EnrolmentError::Malformed(ReportError::Malformed(error)))
    }

    /// The first report and the key of a machine that the code vouches for.
    pub fn verify(self, code: &PublicKey) -> Result<(Report, PublicKey, SignedReport), EnrolmentError> {
        if !code.verifies(&message(&self.first), &self.by) {
            return Err(EnrolmentError::Code);
        }
        let (report, key) = self.first.verify_first().map_err(EnrolmentError::Malformed)?;
        Ok((report, key, self.first))
    }
}

fn message(first: &SignedReport) -> Vec<u8> {
    [b"mirabelle enrolment 1\n".as_slice(), first.text().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::Instant;

    use super::*;
    use crate::Event;

    #[test]
    fn the_code_enrols_and_no_other() {
        let (code, other) = (CollegeCode::generate(), CollegeCode::generate());
        let key = SigningKey::generate();
        let report = Report {
            at: Instant::from_second(1_790_000_000).unwrap(),
            college: "57001".parse().unwrap(),
            event: Event::Enrolled { key: Box::new(key.public()) },
            machine: Some("b12-03".parse().unwrap()),
            number: 1,
        };
        let first = SignedReport::sign(&report, &key).unwrap();
        let bytes = Enrolment::new(first, &code).to_bytes().unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(code.shown().as_str()));
        let read = || Enrolment::parse(&bytes).unwrap();
        let (enrolled, brought, _) = read().verify(&code.public()).unwrap();
        assert_eq!((enrolled, brought), (report, key.public()));
        assert!(matches!(read().verify(&other.public()), Err(EnrolmentError::Code)));
        assert!(Enrolment::parse(b"{}").is_err());
    }
}
