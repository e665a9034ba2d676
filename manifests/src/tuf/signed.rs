//! `{"signatures": […], "signed": {…}}`: the envelope around every TUF document (TUF 1.0.34, 4.2).
//!
//! Signatures cover the canonical form of `signed` as parsed, so a document may be laid out in any way; what
//! parsers disagree about was refused before ([`Json`]).

use mirabelle_keys::{Signature, Signer, SigningError};
use serde::{Deserialize, Serialize};

use super::RoleDocument;
use crate::Json;

/// A document as parsed, trusted by nobody yet.
#[derive(Debug, Clone)]
pub struct Document<T> {
    /// The signatures that came with it.
    pub signatures: Vec<Signature>,
    /// What they are said to cover.
    pub signed: T,
    json: Json,
    canonical: Vec<u8>,
}

/// Why bytes are not a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or JSON with duplicate members or fractions.
    #[error("not strict JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but not of the shape the role has.
    #[error("not a document of this role")]
    WrongShape(#[source] serde_json::Error),
    /// A valid document of another role (CVE: one role's document served as another's).
    #[error("its type is `{stated}`, expected `{expected}`")]
    WrongType {
        /// What `_type` says.
        stated: String,
        /// The type of the role that was asked for.
        expected: &'static str,
    },
    /// Written to a specification whose documents we do not know.
    #[error("its specification version `{0}` is not 1.x")]
    SpecVersion(String),
    /// Versions count from 1.
    #[error("its version is 0")]
    VersionZero,
}

#[derive(Deserialize)]
struct Envelope<T> {
    signatures: Vec<Signature>,
    signed: T,
}

impl<T: RoleDocument> Document<T> {
    /// Parses a document of this role. Proves nothing about who wrote it.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let strict: Envelope<Json> = serde_json::from_slice(bytes).map_err(DocumentError::NotJson)?;
        let typed: Envelope<T> = serde_json::from_slice(bytes).map_err(DocumentError::WrongShape)?;
        let signed = typed.signed;
        if signed.stated_type() != T::TYPE {
            let stated = signed.stated_type().chars().take(80).collect();
            return Err(DocumentError::WrongType { stated, expected: T::TYPE });
        }
        if signed.spec_version() != "1" && !signed.spec_version().starts_with("1.") {
            return Err(DocumentError::SpecVersion(signed.spec_version().chars().take(80).collect()));
        }
        if signed.version() == 0 {
            return Err(DocumentError::VersionZero);
        }
        let canonical = strict.signed.canonical();
        Ok(Self { signatures: typed.signatures, signed, json: strict.signed, canonical })
    }

    /// What signatures cover, with every member, those among them that this version does not know.
    pub fn json(&self) -> &Json {
        &self.json
    }

    /// The bytes that signatures cover. Not always JSON: control characters stay raw in strings, as the line breaks of a
    /// PEM key do.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.canonical
    }
}

/// Why a document could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It cannot be written as JSON: it holds a number with a fraction.
    #[error("the document cannot be written as JSON")]
    NotJson(#[from] serde_json::Error),
    /// A key that is there did not sign.
    #[error(transparent)]
    Key(#[from] SigningError),
}

/// A document signed with `keys`, as its file holds it.
pub fn sign<T: Serialize, S: Signer + ?Sized>(document: &T, keys: &[&S]) -> Result<Vec<u8>, SignError> {
    let canonical = Json::of(document)?.canonical();
    let signatures = keys.iter().map(|key| key.sign(&canonical)).collect::<Result<Vec<Signature>, _>>()?;
    Ok(attach(document, &signatures)?)
}

/// A document with signatures that were gathered before, as its file holds it.
///
/// # Errors
/// When the document cannot be written as JSON: it holds a number with a fraction.
pub fn attach<T: Serialize>(document: &T, signatures: &[Signature]) -> Result<Vec<u8>, serde_json::Error> {
    let signed = Json::of(document)?;
    let file = std::collections::BTreeMap::from([
        ("signatures".to_owned(), Json::of(&signatures)?),
        ("signed".to_owned(), signed),
    ]);
    Ok(Json::Object(file).to_file())
}

#[cfg(test)]
mod tests {
    use mirabelle_keys::SigningKey;

    use super::*;
    use crate::tuf::{Root, Timestamp};

    #[test]
    fn a_signed_document_parses_and_its_signature_covers_it() {
        let key = SigningKey::generate();
        let bytes = sign(&Timestamp::new(3, "2030-01-01T00:00:00Z".parse().unwrap()), &[&key]).unwrap();
        let document = Document::<Timestamp>::parse(&bytes).unwrap();
        assert_eq!(document.signed.version, 3);
        assert!(key.public().verifies(document.signed_bytes(), &document.signatures[0]));
    }

    #[test]
    fn refuses_another_role_and_other_specifications() {
        let bytes = attach(&Timestamp::new(1, "2030-01-01T00:00:00Z".parse().unwrap()), &[]).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(matches!(Document::<Root>::parse(&bytes), Err(DocumentError::WrongShape(_))));
        let cases = [
            text.replace("1.0.34", "2.0"),
            text.replace(r#""version":1"#, r#""version":0"#),
            text.replace(r#""version":1"#, r#""version":-1"#),
            text.replace(r#""version":1"#, r#""version":1.5"#),
            text.replace(r#""version":1"#, r#""version":1,"version":2"#),
            text.replace(r#""timestamp""#, r#""snapshot""#),
        ];
        for case in cases {
            assert!(Document::<Timestamp>::parse(case.as_bytes()).is_err(), "{case}");
        }
    }
}
