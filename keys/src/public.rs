//! Public keys as TUF writes them, their ids, and signatures made with them.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use pkcs8::der::pem::LineEnding;
use pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
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

impl From<String> for KeyId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key that can verify.
///
/// Equal are keys that verify the same signatures, however they are written: hex in another case, a PEM block with
/// other line breaks. A key of a type or scheme this version does not know, or one that is malformed, is carried
/// unchanged and verifies nothing: one newer key must not make a whole root unreadable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "KeyDocument", into = "KeyDocument")]
pub struct PublicKey {
    document: KeyDocument,
    verifier: Verifier,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verifier {
    /// `ed25519` (RFC 8032).
    Ed25519(VerifyingKey),
    /// `ecdsa-sha2-nistp256` (FIPS 186-5), which many a smartcard has instead.
    EcdsaP256(p256::ecdsa::VerifyingKey),
    /// `rsassa-pss-sha256` (RFC 8017), which we meet in repositories made by others.
    RsaPss(rsa::PublicKey),
    Unsupported,
}

/// The JSON form of a key: `{"keytype", "scheme", "keyval": {"public"}}` (TUF 1.0.34, 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeyDocument {
    keytype: String,
    keyval: serde_json::Value,
    scheme: String,
}

/// RSA keys shorter than this verify nothing.
const MIN_RSA_BITS: u32 = 2048;

/// Why a text is not a public key.
#[derive(Debug, thiserror::Error)]
#[error("not a PEM public key of type Ed25519 or ECDSA P-256")]
pub struct PublicKeyError;

impl PublicKey {
    /// An Ed25519 key from its 32 bytes; [`PublicKeyError`] for what is no point on the curve or one of small order.
    pub fn from_ed25519(bytes: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let key = VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).ok_or(PublicKeyError)?;
        Ok(Self {
            document: KeyDocument::new("ed25519", "ed25519", &hex::encode(bytes)),
            verifier: Verifier::Ed25519(key),
        })
    }

    /// A P-256 key from its point as SEC 1 writes it, compressed or not.
    pub fn from_p256(point: &[u8]) -> Result<Self, PublicKeyError> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| PublicKeyError)?;
        let pem = key.to_public_key_pem(LineEnding::LF).map_err(|_| PublicKeyError)?;
        Ok(Self {
            document: KeyDocument::new("ecdsa", "ecdsa-sha2-nistp256", &pem),
            verifier: Verifier::EcdsaP256(key),
        })
    }

    /// Reads a `PUBLIC KEY` PEM block (RFC 8410, RFC 5480), as `openssl pkey -pubout` writes it.
    pub fn from_pem(pem: &str) -> Result<Self, PublicKeyError> {
        let pem = pem.trim();
        if let Ok(key) = VerifyingKey::from_public_key_pem(pem) {
            return Self::from_ed25519(key.as_bytes());
        }
        let key = p256::ecdsa::VerifyingKey::from_public_key_pem(pem).map_err(|_| PublicKeyError)?;
        Self::from_p256(key.to_sec1_point(false).as_bytes())
    }

    /// Writes the key as a `PUBLIC KEY` PEM block; `None` for a key of an unsupported type.
    pub fn to_pem(&self) -> Option<String> {
        match &self.verifier {
            Verifier::Ed25519(key) => key.to_public_key_pem(LineEnding::LF).ok(),
            Verifier::EcdsaP256(key) => key.to_public_key_pem(LineEnding::LF).ok(),
            Verifier::RsaPss(key) => key.to_public_key_pem(LineEnding::LF).ok(),
            Verifier::Unsupported => None,
        }
    }

    /// What the key is, in the words of TUF's `scheme`.
    pub fn scheme(&self) -> &str {
        &self.document.scheme
    }

    /// True for a key that can verify nothing here, since its type is unknown or its value malformed.
    pub fn is_unsupported(&self) -> bool {
        self.verifier == Verifier::Unsupported
    }

    /// The key's 32 bytes, if it is Ed25519.
    pub fn ed25519(&self) -> Option<&[u8; 32]> {
        match &self.verifier {
            Verifier::Ed25519(key) => Some(key.as_bytes()),
            _ => None,
        }
    }

    /// The key's TUF id: SHA-256 over its canonical JSON.
    pub fn id(&self) -> KeyId {
        let canonical = match self.ed25519() {
            // Hex has two cases and the key has one id.
            Some(bytes) => KeyDocument::new("ed25519", "ed25519", &hex::encode(bytes)).canonical(),
            None => self.document.canonical(),
        };
        KeyId(hex::encode(Sha256::digest(canonical.as_bytes())))
    }

    /// True when `signature` is this key's over exactly `message`.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        use p256::ecdsa::signature::Verifier as _;
        let bytes = signature.bytes.as_slice();
        match &self.verifier {
            Verifier::Ed25519(key) => ed25519_dalek::Signature::from_slice(bytes)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Verifier::EcdsaP256(key) => p256::ecdsa::Signature::from_der(bytes)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            // Whoever signed chose the length of the salt; it is no part of the key.
            Verifier::RsaPss(key) => rsa::pss::Signature::try_from(bytes).is_ok_and(|signature| {
                rsa::pss::VerifyingKey::<Sha256>::new_with_auto_salt_len(key.clone())
                    .verify(message, &signature)
                    .is_ok()
            }),
            Verifier::Unsupported => false,
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        match (&self.verifier, &other.verifier) {
            (Verifier::Unsupported, Verifier::Unsupported) => self.document == other.document,
            (mine, theirs) => mine == theirs,
        }
    }
}

impl Eq for PublicKey {}

impl KeyDocument {
    fn new(keytype: &str, scheme: &str, public: &str) -> Self {
        Self {
            keytype: keytype.to_owned(),
            keyval: serde_json::json!({ "public": public }),
            scheme: scheme.to_owned(),
        }
    }

    /// OLPC canonical JSON, which escapes `"` and `\` alone: a PEM block keeps its line breaks.
    fn canonical(&self) -> String {
        let text = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let keyval = match self.keyval.get("public").and_then(serde_json::Value::as_str) {
            Some(public) => format!(r#"{{"public":{}}}"#, text(public)),
            // Of an unknown type; nobody but us reckons with the id.
            None => self.keyval.to_string(),
        };
        format!(r#"{{"keytype":{},"keyval":{keyval},"scheme":{}}}"#, text(&self.keytype), text(&self.scheme))
    }

    fn verifier(&self) -> Option<Verifier> {
        let public = self.keyval.get("public")?.as_str()?;
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => {
                let bytes: [u8; 32] = hex::decode(public).ok()?.try_into().ok()?;
                Some(PublicKey::from_ed25519(&bytes).ok()?.verifier)
            }
            // The second key type is how python-securesystemslib wrote it before 1.0.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                p256::ecdsa::VerifyingKey::from_public_key_pem(public.trim()).ok().map(Verifier::EcdsaP256)
            }
            ("rsa", "rsassa-pss-sha256") => rsa::PublicKey::from_public_key_pem(public.trim())
                .ok()
                .filter(|key| key.n().bit_width() >= MIN_RSA_BITS)
                .map(Verifier::RsaPss),
            _ => None,
        }
    }
}

impl From<KeyDocument> for PublicKey {
    fn from(document: KeyDocument) -> Self {
        let verifier = document.verifier().unwrap_or(Verifier::Unsupported);
        Self { document, verifier }
    }
}

impl From<PublicKey> for KeyDocument {
    fn from(key: PublicKey) -> Self {
        key.document
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
        let hex = hex::encode(SigningKey::generate().public().ed25519().unwrap());
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

    /// ed25519-dalek: `verify_strict`.
    #[test]
    fn a_small_order_key_verifies_nothing() {
        let identity = format!("01{}", "00".repeat(31));
        let key: PublicKey = serde_json::from_value(
            serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": identity}}),
        )
        .unwrap();
        assert!(key.is_unsupported());
    }

    /// RFC 8032, 5.1.7: adding the group's order to S gives other bytes that careless verifiers take as well.
    #[test]
    fn a_signature_cannot_be_rewritten() {
        const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
        let key = SigningKey::generate();
        let signature = key.sign(b"m");
        let mut rewritten = signature.clone();
        let mut carry = 0;
        for (byte, order) in rewritten.bytes[32..].iter_mut().zip(hex::decode(ORDER).unwrap()) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(key.public().verifies(b"m", &signature));
        assert!(!key.public().verifies(b"m", &rewritten));
    }

    #[test]
    fn pem_goes_there_and_back() {
        let key = SigningKey::generate().public();
        assert_eq!(PublicKey::from_pem(&key.to_pem().unwrap()).unwrap(), key);
        assert!(PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err());
    }

    /// Runs openssl in `directory`: the other maker of such keys and signatures.
    fn openssl(directory: &std::path::Path, arguments: &str) {
        let done = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            .output()
            .expect("openssl is installed (./test installs it)");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn verifies_what_openssl_signed_with_p256_and_rsa() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| fs_err::read(directory.path().join(name)).unwrap();
        fs_err::write(directory.path().join("m"), "message").unwrap();
        let pss = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
        let cases = [
            ("EC -pkeyopt ec_paramgen_curve:P-256", "", "ecdsa", "ecdsa-sha2-nistp256", false),
            ("EC -pkeyopt ec_paramgen_curve:P-256", "", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", false),
            ("RSA -pkeyopt rsa_keygen_bits:2048", pss, "rsa", "rsassa-pss-sha256", false),
            ("RSA -pkeyopt rsa_keygen_bits:1024", pss, "rsa", "rsassa-pss-sha256", true),
            ("EC -pkeyopt ec_paramgen_curve:P-384", "", "ecdsa", "ecdsa-sha2-nistp256", true),
        ];
        for (algorithm, options, keytype, scheme, unsupported) in cases {
            openssl(directory.path(), &format!("genpkey -algorithm {algorithm} -out k"));
            openssl(directory.path(), "pkey -in k -pubout -out p");
            openssl(
                directory.path(),
                format!("dgst -sha256 -sign k {options} -out s m").replace("  ", " ").as_str(),
            );
            let public = String::from_utf8(read("p")).unwrap();
            let json =
                serde_json::json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}});
            let key: PublicKey = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&key).unwrap(), json);
            assert_eq!(key.is_unsupported(), unsupported, "{algorithm}");
            let signature = Signature { keyid: key.id(), bytes: read("s") };
            assert_eq!(key.verifies(b"message", &signature), !unsupported, "{algorithm}");
            assert!(!key.verifies(b"another", &signature));
            let mut bent = signature.clone();
            bent.bytes[20] ^= 1;
            assert!(!key.verifies(b"message", &bent));
            // Other line breaks, one key (GHSA-3633-5h82-39pq for PEM).
            if !unsupported {
                let spaced = format!("\n{}\n\n", public.trim());
                let json =
                    serde_json::json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": spaced}});
                assert_eq!(serde_json::from_value::<PublicKey>(json).unwrap(), key);
            }
            if scheme.starts_with("ecdsa") && !unsupported {
                assert_eq!(PublicKey::from_pem(&public).unwrap(), key);
            }
        }
    }
}
