//! A key that can sign, in memory.

use std::fmt;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

use crate::{KeyId, PublicKey, Signature};

/// An Ed25519 signing key. Its memory is wiped when it is dropped, and it never prints itself.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new key from the system's random number generator.
    ///
    /// # Panics
    /// When the system has no randomness to give; there is nothing safe to go on with.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut()).expect("the system's random number generator works");
        Self::from_seed(&seed)
    }

    /// The key that belongs to a seed (RFC 8032, 5.1.5): the 32 bytes that a sealed file holds.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key in a PKCS#8 file without a passphrase (RFC 8410): that of a machine which nobody unlocks. Keys of people are sealed.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn from_unsealed_pem(pem: &str) -> Result<Self, UnsealedKeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map(Self).map_err(|_| UnsealedKeyError)
    }

    /// The same, written.
    ///
    /// # Panics
    /// Never: 32 bytes always encode.
    pub fn to_unsealed_pem(&self) -> Zeroizing<String> {
        self.0.to_pkcs8_pem(LineEnding::LF).expect("32 bytes encode")
    }

    pub(crate) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    ///
    /// # Panics
    /// Never: a clamped scalar times the base point is a point of full order.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_ed25519(self.0.verifying_key().as_bytes())
            .expect("a secret scalar gives a key of full order")
    }

    /// Signs exactly `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        use ed25519_dalek::Signer;
        Signature { keyid: self.public().id(), bytes: self.0.sign(message).to_bytes().to_vec() }
    }
}

/// A text is no unsealed Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("it is no PKCS#8 file of an Ed25519 key")]
pub struct UnsealedKeyError;

/// Whoever can sign: a key in memory, or a token that never lets go of its key.
pub trait Signer {
    /// The public half.
    fn public(&self) -> PublicKey;
    /// Signs exactly `message`.
    fn sign(&self, message: &[u8]) -> Result<Signature, SigningError>;
}

/// A key that exists did not sign: the token was taken out, or refused.
#[derive(Debug, thiserror::Error)]
#[error("key {keyid} did not sign")]
pub struct SigningError {
    /// The key.
    pub keyid: KeyId,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Signer for SigningKey {
    fn public(&self) -> PublicKey {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SigningError> {
        Ok(self.sign(message))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 3.
    #[test]
    fn signs_as_the_rfc_does() {
        let seed: [u8; 32] = hex::decode("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
            .unwrap()
            .try_into()
            .unwrap();
        let key = SigningKey::from_seed(&seed);
        let signature = key.sign(&[0xaf, 0x82]);
        assert_eq!(
            hex::encode(&signature.bytes),
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        );
        assert!(key.public().verifies(&[0xaf, 0x82], &signature));
        assert!(!key.public().verifies(&[0xaf, 0x83], &signature));
    }

    #[test]
    fn never_prints_the_secret() {
        let key = SigningKey::generate();
        assert!(!format!("{key:?}").contains(&hex::encode(key.seed())));
    }
}
