//! Signed requests: HTTP Message Signatures (RFC 9421) with Ed25519, over the digest of the body (RFC 9530).
//!
//! ```text
//! POST /fleet/57001/reports
//! Content-Type: application/zstd
//! Content-Digest: sha-256=:…:
//! Signature-Input: mirabelle=("@method" "@path" "content-digest" "content-type");created=1790000000;nonce="…";keyid="…";alg="ed25519"
//! Signature: mirabelle=:…:
//! ```
//!
//! The path names the college, so that what was signed for one is nothing at another; the authority is left out, since a node is
//! known by more than one name. What must be covered is covered, or the request is refused (RFC 9421, 7.2.1).

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use mirabelle_keys::{KeyId, PublicKey, Signature, SigningKey};
use mirabelle_manifests::Instant;
use sfv::{BareItem, Dictionary, FieldType, InnerList, Item, KeyRef, ListEntry, Parser, StringRef};
use sha2::{Digest, Sha256};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The name of our signature among those of a request.
const LABEL: &str = "mirabelle";
/// What is covered, in this order.
const COVERED: [&str; 4] = ["@method", "@path", "content-digest", "content-type"];
/// How old a request may be, and how far ahead its clock, in seconds.
pub(crate) const COUNTS: i64 = 5 * 60;
/// More than this many bytes are no header of ours.
const MAX_HEADER_BYTES: usize = 1024;

/// A number that is used once: 128 random bits as 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(String);

impl Nonce {
    /// Of these bits.
    pub fn of(bits: &[u8; 16]) -> Self {
        Self(bits.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
    }

    /// From the system's random number generator.
    ///
    /// # Panics
    /// When the system has no randomness to give; there is nothing safe to go on with.
    pub fn random() -> Self {
        let mut bits = [0_u8; 16];
        getrandom::fill(&mut bits).expect("the system's random number generator works");
        Self::of(&bits)
    }

    /// The bits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("the request is not signed (RFC 9421)")]
    Missing,
    /// One of its headers cannot be read.
    #[error("`{0}` cannot be read")]
    Malformed(&'static str),
    /// It leaves out what it must cover.
    #[error("the signature does not cover `{0}`")]
    NotCovered(&'static str),
    /// It covers what we never send.
    #[error("the signature covers more than method, path, digest and type")]
    Foreign,
    /// Another body than was signed.
    #[error("the body is not the one that was signed")]
    Body,
    /// Too old, or from the future.
    #[error("the request is too old, or of the future: is the clock right?")]
    Time,
    /// Not of this key.
    #[error("the signature is not the key's")]
    Signature,
}

/// What is signed (RFC 9421, 2.5).
fn base(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    input: &InnerList,
) -> Result<String, SignatureError> {
    let mut base = String::new();
    for item in &input.items {
        let BareItem::String(name) = &item.bare_item else { return Err(SignatureError::Foreign) };
        let value = match name.as_str() {
            "@method" => method.as_str(),
            "@path" => path,
            name => {
                let value = HeaderName::try_from(name).ok().and_then(|name| headers.get(name));
                value.and_then(|value| value.to_str().ok()).ok_or(SignatureError::Missing)?.trim()
            }
        };
        let _ = writeln!(base, "\"{}\": {value}", name.as_str());
    }
    let parameters = serialize(input)?;
    Ok(base + &format!("\"@signature-params\": {parameters}"))
}

/// An inner list as it stands in a field.
fn serialize(input: &InnerList) -> Result<String, SignatureError> {
    vec![ListEntry::InnerList(input.clone())].serialize().ok_or(SignatureError::Foreign)
}

/// Who signed a request, when, and the number that it counts by: to be believed once [`Signed::verify`] was asked.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The id of the key.
    pub key: KeyId,
    /// When.
    pub created: Instant,
    /// The number.
    pub nonce: Nonce,
    input: InnerList,
    signature: Vec<u8>,
}

impl Signed {
    /// Signs a request with `key`: sets the headers for it, beside the content type that is there already.
    pub fn sign(
        key: &SigningKey,
        method: &Method,
        path: &str,
        headers: &mut HeaderMap,
        body: &[u8],
        (created, nonce): (Instant, &Nonce),
    ) -> Result<(), SignatureError> {
        let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
        set(headers, CONTENT_DIGEST, &digest)?;
        let mut input = InnerList::new(
            COVERED.iter().map(|name| text(name).map(Item::new)).collect::<Result<Vec<_>, _>>()?,
        );
        let parameters = [
            ("created", BareItem::Integer(created.as_second().try_into().map_err(|_| SignatureError::Time)?)),
            ("nonce", text(nonce.as_str())?),
            ("keyid", text(key.public().id().as_str())?),
            ("alg", text("ed25519")?),
        ];
        for (name, value) in parameters {
            let name = KeyRef::from_str(name).map_err(|_| SignatureError::Foreign)?;
            input.params.insert(name.to_owned(), value);
        }
        let base = base(method, path, headers, &input)?;
        let signature = key.sign(base.as_bytes());
        set(headers, SIGNATURE_INPUT, &format!("{LABEL}={}", serialize(&input)?))?;
        set(headers, SIGNATURE, &format!("{LABEL}=:{}:", STANDARD.encode(&signature.bytes)))
    }

    /// What a request says of its signature.
    pub fn of(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let inputs = dictionary(headers, &SIGNATURE_INPUT, "Signature-Input")?;
        let Some(ListEntry::InnerList(input)) = inputs.get(LABEL) else {
            return Err(SignatureError::Missing);
        };
        let signatures = dictionary(headers, &SIGNATURE, "Signature")?;
        let Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(signature), .. })) =
            signatures.get(LABEL)
        else {
            return Err(SignatureError::Missing);
        };
        let covered: Vec<&str> = input
            .items
            .iter()
            .filter(|item| item.params.is_empty())
            .filter_map(|item| item.bare_item.as_string().map(StringRef::as_str))
            .collect();
        if let Some(missing) = COVERED.into_iter().find(|name| !covered.contains(name)) {
            return Err(SignatureError::NotCovered(missing));
        }
        if input.items.len() != COVERED.len() {
            return Err(SignatureError::Foreign);
        }
        let parameter = |name: &str| input.params.get(name);
        let of_text = |name: &str| parameter(name).and_then(BareItem::as_string).map(StringRef::as_str);
        let created = parameter("created").and_then(BareItem::as_integer).map(i64::from);
        let created = created.and_then(|second| Instant::from_second(second).ok());
        let nonce = of_text("nonce").filter(|nonce| {
            nonce.len() == 32 && nonce.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        let key = of_text("keyid").map(|key| KeyId::from(key.to_owned()));
        let (Some(created), Some(nonce), Some(key), Some("ed25519")) = (created, nonce, key, of_text("alg"))
        else {
            return Err(SignatureError::Malformed("Signature-Input"));
        };
        Ok(Self {
            key,
            created,
            nonce: Nonce(nonce.to_owned()),
            input: input.clone(),
            signature: signature.clone(),
        })
    }

    /// True to its word: `key` signed just this request, a moment ago. Whether it was seen before is for [`crate::Seen`] to say.
    pub fn verify(
        &self,
        key: &PublicKey,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: Instant,
    ) -> Result<(), SignatureError> {
        if (now.as_second() - self.created.as_second()).abs() > COUNTS {
            return Err(SignatureError::Time);
        }
        let digests = dictionary(headers, &CONTENT_DIGEST, "Content-Digest")?;
        let Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(stated), .. })) =
            digests.get("sha-256")
        else {
            return Err(SignatureError::Malformed("Content-Digest"));
        };
        if stated.as_slice() != Sha256::digest(body).as_slice() {
            return Err(SignatureError::Body);
        }
        let base = base(method, path, headers, &self.input)?;
        let signature = Signature { keyid: self.key.clone(), bytes: self.signature.clone() };
        if key.id() == self.key && key.verifies(base.as_bytes(), &signature) {
            Ok(())
        } else {
            Err(SignatureError::Signature)
        }
    }
}

fn text(text: &str) -> Result<BareItem, SignatureError> {
    StringRef::from_str(text)
        .map(|text| BareItem::String(text.to_owned()))
        .map_err(|_| SignatureError::Foreign)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), SignatureError> {
    headers.insert(name, HeaderValue::from_str(value).map_err(|_| SignatureError::Foreign)?);
    Ok(())
}

/// A header that is there once, as a dictionary.
fn dictionary(
    headers: &HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Dictionary, SignatureError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(SignatureError::Missing)?;
    if values.next().is_some() || value.len() > MAX_HEADER_BYTES {
        return Err(SignatureError::Malformed(shown));
    }
    Parser::new(value.as_bytes()).parse().map_err(|_| SignatureError::Malformed(shown))
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn at(second: i64) -> Instant {
        Instant::from_second(second).unwrap()
    }

    fn signed(key: &SigningKey) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let nonce = Nonce::of(&[7; 16]);
        Signed::sign(key, &Method::POST, "/reports", &mut headers, b"[1]", (at(NOW), &nonce)).unwrap();
        headers
    }

    fn verify(
        key: &SigningKey,
        headers: &HeaderMap,
        path: &str,
        body: &[u8],
        now: i64,
    ) -> Result<(), SignatureError> {
        Signed::of(headers)?.verify(&key.public(), &Method::POST, path, headers, body, at(now))
    }

    /// RFC 9421, B.2.6, with the key of B.1.4.
    #[test]
    fn the_standards_own_example_comes_out() {
        let key = SigningKey::from_unsealed_pem(
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@authority", ""),
            ("content-type", "application/json"),
            ("content-length", "18"),
        ] {
            if let Ok(name) = HeaderName::try_from(name) {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let field = r#"sig=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
        let fields: Dictionary = Parser::new(field).parse().unwrap();
        let Some(ListEntry::InnerList(input)) = fields.get("sig") else { panic!("no list") };
        // The authority is none of what ours cover: here it stands as a field.
        let parts = |input: &InnerList| {
            let (before, after) = input.items.split_at(3);
            let part = |items: &[Item]| {
                base(&Method::POST, "/foo", &headers, &InnerList::new(items.to_vec())).unwrap()
            };
            let lines = |text: String| text.rsplit_once('\n').unwrap().0.to_owned();
            format!(
                "{}\n\"@authority\": example.com\n{}\n\"@signature-params\": {}",
                lines(part(before)),
                lines(part(&after[1..])),
                serialize(input).unwrap()
            )
        };
        let signature = key.sign(parts(input).as_bytes());
        assert_eq!(
            STANDARD.encode(signature.bytes),
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
        );
    }

    #[test]
    fn what_was_signed_counts_as_it_was_sent_and_for_a_while() {
        let key = SigningKey::generate();
        let headers = signed(&key);
        assert_eq!(verify(&key, &headers, "/reports", b"[1]", NOW + 20), Ok(()));
        assert_eq!(verify(&key, &headers, "/reports", b"[2]", NOW), Err(SignatureError::Body));
        assert_eq!(verify(&key, &headers, "/machines", b"[1]", NOW), Err(SignatureError::Signature));
        assert_eq!(verify(&key, &headers, "/reports", b"[1]", NOW + COUNTS + 1), Err(SignatureError::Time));
        assert_eq!(verify(&key, &headers, "/reports", b"[1]", NOW - COUNTS - 1), Err(SignatureError::Time));
        assert_eq!(
            verify(&SigningKey::generate(), &headers, "/reports", b"[1]", NOW),
            Err(SignatureError::Signature)
        );
        let mut other = headers.clone();
        other.insert(CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
        assert_eq!(verify(&key, &other, "/reports", b"[1]", NOW), Err(SignatureError::Signature));
    }

    #[test]
    fn what_leaves_something_out_or_cannot_be_read_is_refused() {
        let key = SigningKey::generate();
        let headers = signed(&key);
        let input = headers.get(SIGNATURE_INPUT).unwrap().to_str().unwrap().to_owned();
        let with = |text: &str| {
            let mut headers = headers.clone();
            headers.insert(SIGNATURE_INPUT, HeaderValue::from_str(text).unwrap());
            verify(&key, &headers, "/reports", b"[1]", NOW).unwrap_err()
        };
        let malformed = SignatureError::Malformed("Signature-Input");
        for (text, refused) in [
            (input.replace(" \"content-digest\"", ""), SignatureError::NotCovered("content-digest")),
            (input.replace("\"@method\"", "\"@method\";req"), SignatureError::NotCovered("@method")),
            (input.replace("\"content-type\")", "\"content-type\" \"host\")"), SignatureError::Foreign),
            (input.replace("ed25519", "hmac-sha256"), malformed),
            (input.replace(";nonce=", ";other="), malformed),
            (input.replace("created=1790000000", "created=\"now\""), malformed),
            (input.replace("mirabelle=", "another="), SignatureError::Missing),
            ("mirabelle=(".to_owned(), malformed),
            ("x".repeat(2000), malformed),
        ] {
            assert_eq!(with(&text), refused, "{text}");
        }
        let mut none = headers.clone();
        none.remove(SIGNATURE);
        assert_eq!(verify(&key, &none, "/reports", b"[1]", NOW), Err(SignatureError::Missing));
        let mut twice = headers.clone();
        twice.append(SIGNATURE_INPUT, HeaderValue::from_str(&input).unwrap());
        assert_eq!(verify(&key, &twice, "/reports", b"[1]", NOW), Err(malformed));
    }
}
