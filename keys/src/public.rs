//! Public keys as TUF writes them, their ids, and signatures made with them.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::{DecodePublicKey, EncodePublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name under which metadata refers to a key (TUF 1.0.34, 4.2).
///
/// Ours are the SHA-256 of the key's canonical JSON, in hex, as the specification asks. Ids made by others are taken
/// as they come: nothing is ever decided by comparing ids, only by comparing keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The first twelve characters: enough for a person to tell keys apart.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that can verify.
///
/// A key of a type or scheme this version does not know, or an Ed25519 key that is no point on the curve, is carried
/// unchanged and verifies nothing: one newer key must not make a whole root unreadable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KeyDocument", into = "KeyDocument")]
pub enum PublicKey {
    /// Ed25519 (RFC 8032).
    Ed25519(VerifyingKey),
    /// Something else, kept as it was written.
    Unsupported(KeyDocument),
}

/// The JSON form of a key: `{"keytype", "scheme", "keyval": {"public"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocument {
    keytype: String,
    keyval: serde_json::Value,
    scheme: String,
}

/// Why a text is not a public key.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a PEM `PUBLIC KEY` block holding an Ed25519 key.
    #[error("not a PEM public key of type Ed25519")]
    NotPem(#[source] ed25519_dalek::pkcs8::spki::Error),
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` PEM block (RFC 8410), as `openssl pkey -pubout` writes it.
    pub fn from_pem(pem: &str) -> Result<Self, PublicKeyError> {
        VerifyingKey::from_public_key_pem(pem.trim()).map(Self::Ed25519).map_err(PublicKeyError::NotPem)
    }

    /// Writes the key as a `PUBLIC KEY` PEM block; `None` for a key of an unsupported type.
    pub fn to_pem(&self) -> Option<String> {
        match self {
            Self::Ed25519(key) => {
                key.to_public_key_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF).ok()
            }
            Self::Unsupported(_) => None,
        }
    }

    /// The key's TUF id: SHA-256 over its canonical JSON.
    pub fn id(&self) -> KeyId {
        let canonical = match self {
            Self::Ed25519(key) => format!(
                r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
                hex::encode(key.as_bytes())
            ),
            // serde_json sorts object members, and such a document holds nothing that canonical JSON escapes otherwise.
            Self::Unsupported(document) => serde_json::to_string(document).unwrap_or_default(),
        };
        KeyId(hex::encode(Sha256::digest(canonical.as_bytes())))
    }

    /// True when `signature` is this key's over exactly `message`.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(&signature.bytes)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Self::Unsupported(_) => false,
        }
    }
}

impl From<KeyDocument> for PublicKey {
    fn from(document: KeyDocument) -> Self {
        let ed25519 = || {
            if document.keytype != "ed25519" || document.scheme != "ed25519" {
                return None;
            }
            let public = document.keyval.get("public")?.as_str()?;
            let bytes: [u8; 32] = hex::decode(public).ok()?.try_into().ok()?;
            VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
        };
        ed25519().map_or_else(|| Self::Unsupported(document.clone()), Self::Ed25519)
    }
}

impl From<PublicKey> for KeyDocument {
    fn from(key: PublicKey) -> Self {
        match key {
            PublicKey::Ed25519(key) => Self {
                keytype: "ed25519".into(),
                keyval: serde_json::json!({ "public": hex::encode(key.as_bytes()) }),
                scheme: "ed25519".into(),
            },
            PublicKey::Unsupported(document) => document,
        }
    }
}

/// A detached signature and the id of the key that is said to have made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Who is said to have signed.
    pub keyid: KeyId,
    /// The signature; anything that is not hex becomes empty and verifies nothing, as real roots carry empty ones.
    #[serde(rename = "sig", with = "lenient_hex")]
    pub bytes: Vec<u8>,
}

mod lenient_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(hex::decode(String::deserialize(deserializer)?).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    #[test]
    fn key_id_is_the_digest_of_the_canonical_key() {
        let json = r#"{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"edcd0a32a07dce33f7c7873aaffbff36d20ea30787574ead335eefd337e4dacd"}}"#;
        let key: PublicKey = serde_json::from_str(json).unwrap();
        // The id python-securesystemslib computes for the same key.
        let canonical = r#"{"keytype":"ed25519","keyval":{"public":"edcd0a32a07dce33f7c7873aaffbff36d20ea30787574ead335eefd337e4dacd"},"scheme":"ed25519"}"#;
        assert_eq!(key.id().as_str(), hex::encode(Sha256::digest(canonical)));
        assert_eq!(key.id().short().len(), 12);
    }

    #[test]
    fn upper_and_lower_case_hex_are_one_key() {
        let hex = hex::encode(match SigningKey::generate().public() {
            PublicKey::Ed25519(key) => key.to_bytes(),
            PublicKey::Unsupported(_) => unreachable!("generated keys are Ed25519"),
        });
        let read = |public: &str| -> PublicKey {
            serde_json::from_value(
                serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}),
            )
            .unwrap()
        };
        assert_eq!(read(&hex).id(), read(&hex.to_uppercase()).id());
        assert_eq!(read(&hex), read(&hex.to_uppercase()));
    }

    #[test]
    fn carries_a_key_of_an_unknown_type_unchanged() {
        let json = serde_json::json!({"keytype": "ml-dsa", "scheme": "ml-dsa-65", "keyval": {"public": "AAAA", "n": 3}});
        let key: PublicKey = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&key).unwrap(), json);
        assert!(!key.verifies(b"x", &SigningKey::generate().sign(b"x")));
    }

    #[test]
    fn a_small_order_key_verifies_nothing() {
        let identity = format!("01{}", "00".repeat(31));
        let key: PublicKey = serde_json::from_value(
            serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": identity}}),
        )
        .unwrap();
        assert!(matches!(key, PublicKey::Unsupported(_)));
    }

    #[test]
    fn pem_goes_there_and_back() {
        let key = SigningKey::generate().public();
        assert_eq!(PublicKey::from_pem(&key.to_pem().unwrap()).unwrap(), key);
        assert!(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err());
    }
}
