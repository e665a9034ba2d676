//! An enrolment code: all that a node has to be told, as one line that a person can copy.
//!
//! ```text
//! mirabelle-node:1:<base64url of the JSON>:<checksum>
//! {"college":"57001","origin":"https://origin.example/","root":"<SHA-256>","root_version":1}
//! ```
//!
//! The JSON is canonical and the base64 without padding (RFC 4648, 5), so that one enrolment has one code. The checksum, eight
//! hex digits, is the beginning of the SHA-256 of all before its colon: a code that was cut short or mistyped is recognised as
//! such, and not taken for another root. White space within is passed over: mail programs break long lines.
//!
//! A code is no secret. It says whom to trust, so it must come by a way that is trusted: whoever can replace it can enrol a node
//! with a repository of her own. Whoever only reads it gains nothing.
//!
//! Threats and the defence for each:
//! - *An origin, or somebody between, that sends another root*: the code has the digest of the one that is meant.
//! - *A code made to fill memory*: [`MAX_CODE_BYTES`], before anything is decoded.
//! - *Two codes that differ and look alike*: what is not exactly as this writes it is refused.
//! - *An address that hides another* (`https://origin.example@elsewhere/`): no user, query or fragment, plain ASCII.
//!
//! What an older node does with a later format: refuses it, and names the format.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{Digest, Json, SiteId};

/// The most of a code, white space included.
pub const MAX_CODE_BYTES: usize = 2048;

const PREFIX: &str = "mirabelle-node";
const FORMAT: &str = "1";
const MAX_ORIGIN_BYTES: usize = 512;
/// Hex digits; one code in four thousand million that was damaged would pass, and then name a root that nobody has.
const CHECKSUM_DIGITS: usize = 8;

/// What a node is told to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The college it stands in.
    pub college: SiteId,
    /// Where the repository is: `https://origin.example/`.
    origin: String,
    /// SHA-256 of the root metadata to begin with.
    pub root: Digest,
    /// Its version.
    pub root_version: u64,
}

/// Why a text is no enrolment code.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// It does not begin like one.
    #[error("this is no enrolment code: one begins with `mirabelle-node:`")]
    NotACode,
    /// It is longer than any.
    #[error("this is no enrolment code: one has at most {MAX_CODE_BYTES} characters")]
    TooLong,
    /// It was made by a publisher of another version.
    #[error("the enrolment code is of format `{found}`, and this program reads format {FORMAT}")]
    AnotherFormat {
        /// What it says.
        found: String,
    },
    /// Its checksum is missing or wrong.
    #[error("the enrolment code is not whole, or a character of it is wrong: copy all of its line")]
    Damaged,
    /// It does not say what a code says.
    #[error("the enrolment code does not say what one says")]
    Content(#[source] serde_json::Error),
    /// It says it in other words than a publisher would.
    #[error("the enrolment code is not written as a publisher writes it")]
    NotCanonical,
    /// The address is not one of a server.
    #[error(
        "`{origin}` is not the address of an origin: it should look like `https://origin.example/`, \
         without user, query and fragment"
    )]
    Origin {
        /// The address.
        origin: String,
    },
    /// Versions of root metadata begin at 1.
    #[error("there is no root of version 0")]
    NoVersion,
}

impl Enrolment {
    /// An enrolment of the node of `college` with the repository at `origin`, of whose root this is the SHA-256.
    pub fn new(
        college: SiteId,
        origin: &str,
        root_version: u64,
        root: Digest,
    ) -> Result<Self, EnrolmentError> {
        let enrolment = Self { college, origin: origin.to_owned(), root, root_version };
        enrolment.check()?;
        Ok(enrolment)
    }

    /// Where the repository is: `https://origin.example/`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn check(&self) -> Result<(), EnrolmentError> {
        if self.root_version == 0 {
            return Err(EnrolmentError::NoVersion);
        }
        let authority = self.origin.strip_prefix("https://").or_else(|| self.origin.strip_prefix("http://"));
        let named = authority.is_some_and(|rest| rest.starts_with(|c: char| c != '/' && c != ':'));
        let plain = self.origin.chars().all(|c| c.is_ascii_graphic() && !"@?#\"\\<>`{}|^".contains(c));
        if !named || !plain || self.origin.len() > MAX_ORIGIN_BYTES {
            return Err(EnrolmentError::Origin { origin: self.origin.chars().take(80).collect() });
        }
        Ok(())
    }

    fn json(&self) -> Result<Vec<u8>, EnrolmentError> {
        Ok(Json::of(self).map_err(EnrolmentError::Content)?.canonical())
    }
}

fn checksum(text: &str) -> String {
    let mut digits = Digest::of(text.as_bytes()).to_string();
    digits.truncate(CHECKSUM_DIGITS);
    digits
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = self.json().map_err(|_| fmt::Error)?;
        let text = format!("{PREFIX}:{FORMAT}:{}", URL_SAFE_NO_PAD.encode(json));
        write!(f, "{text}:{}", checksum(&text))
    }
}

impl FromStr for Enrolment {
    type Err = EnrolmentError;

    fn from_str(text: &str) -> Result<Self, EnrolmentError> {
        if text.len() > MAX_CODE_BYTES {
            return Err(EnrolmentError::TooLong);
        }
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(':'));
        let rest = rest.ok_or(EnrolmentError::NotACode)?;
        let (format, rest) = rest.split_once(':').ok_or(EnrolmentError::Damaged)?;
        if format != FORMAT {
            return Err(EnrolmentError::AnotherFormat { found: format.chars().take(16).collect() });
        }
        let (encoded, sum) = rest.split_once(':').ok_or(EnrolmentError::Damaged)?;
        if checksum(&text[..text.len() - sum.len() - 1]) != sum {
            return Err(EnrolmentError::Damaged);
        }

        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| EnrolmentError::Damaged)?;
        Json::check(&json).map_err(EnrolmentError::Content)?;
        let enrolment: Self = serde_json::from_slice(&json).map_err(EnrolmentError::Content)?;
        enrolment.check()?;
        if enrolment.json()? != json {
            return Err(EnrolmentError::NotCanonical);
        }
        Ok(enrolment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolment() -> Enrolment {
        let college = "57001".parse().unwrap();
        Enrolment::new(college, "https://origin.example/", 3, Digest::of(b"root")).unwrap()
    }

    /// The code of any JSON, with its checksum.
    fn code(json: &str) -> String {
        let text = format!("{PREFIX}:{FORMAT}:{}", URL_SAFE_NO_PAD.encode(json));
        format!("{text}:{}", checksum(&text))
    }

    #[test]
    fn survives_being_written_read_and_broken_over_lines() {
        let written = enrolment().to_string();
        assert!(!written.contains(char::is_whitespace), "{written}");
        assert_eq!(written.parse::<Enrolment>().unwrap(), enrolment());
        let (left, right) = written.split_at(60);
        assert_eq!(format!("  {left}\r\n{right}\n").parse::<Enrolment>().unwrap(), enrolment());
    }

    #[test]
    fn a_code_that_was_cut_short_or_mistyped_is_recognised() {
        let written = enrolment().to_string();
        for end in PREFIX.len() + 1..written.len() {
            let error = written[..end].parse::<Enrolment>().unwrap_err();
            let cut = matches!(error, EnrolmentError::Damaged)
                || matches!(&error, EnrolmentError::AnotherFormat { found } if found.is_empty());
            assert!(cut, "{end}: {error}");
        }
        for place in PREFIX.len() + 3..written.len() {
            let mut other = written.clone().into_bytes();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(matches!(other.parse::<Enrolment>(), Err(EnrolmentError::Damaged)), "{place}");
        }
    }

    #[test]
    fn what_is_no_code_or_not_written_as_one_is_refused() {
        let root = Digest::of(b"root");
        let json = |origin: &str, version: &str| {
            format!(r#"{{"college":"57001","origin":"{origin}","root":"{root}","root_version":{version}}}"#)
        };
        assert_eq!(code(&json("https://origin.example/", "3")), enrolment().to_string());
        for (text, expected) in [
            (String::new(), "begins with"),
            ("https://origin.example/".to_owned(), "begins with"),
            ("mirabelle-node:2:e30:00000000".to_owned(), "format `2`"),
            ("x".repeat(MAX_CODE_BYTES + 1), "at most"),
            (code("[]"), "does not say"),
            (code(&json("https://origin.example/", "3.5")), "does not say"),
            (code(&json("https://origin.example/", "0")), "version 0"),
            (code(&json("https://origin.example/", "3").replace("\"college\":", "\"college\": ")), "written"),
            (code(&json("https://origin.example/", "3").replace('}', ",\"x\":1}")), "does not say"),
            (code(&json("https://origin.example@elsewhere/", "3")), "not the address"),
            (code(&json("file:///etc/passwd", "3")), "not the address"),
            (code(&json("http:///metadata", "3")), "not the address"),
            (code(&json("http://origin.example/?a", "3")), "not the address"),
            (code(&json(&format!("http://{}/", "a".repeat(600)), "3")), "not the address"),
        ] {
            let error = text.parse::<Enrolment>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
