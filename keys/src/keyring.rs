//! A set of keys of which so many must sign.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::{KeyId, PublicKey, Signature};

/// Keys and a threshold: who may speak for a role, and how many of them it takes (TUF 1.0.34, 4.2 "role").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: NonZeroU32,
}

/// The keys that signed, proof that the threshold was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    signers: Vec<KeyId>,
}

impl Quorum {
    /// The ids under which the distinct keys signed.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

/// Why signatures do not speak for a keyring.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyringError {
    /// A threshold must be at least 1: zero would accept the unsigned (CVE-2026-23992).
    #[error("a threshold of {0} accepts unsigned documents")]
    ThresholdBelowOne(i64),
    /// One key id appears twice among the signatures (CVE-2020-6174, CVE-2026-6966).
    #[error("key {0} signs twice in one document")]
    SignsTwice(KeyId),
    /// Too few of the keys signed.
    #[error("{valid} of the {threshold} signatures that are needed are valid")]
    BelowThreshold {
        /// Distinct keys with a valid signature.
        valid: u32,
        /// How many it takes.
        threshold: u32,
    },
}

impl Keyring {
    /// A keyring of `keys`, of which `threshold` must sign. It may hold fewer keys than that; then nothing satisfies it.
    pub fn new(
        keys: impl IntoIterator<Item = (KeyId, PublicKey)>,
        threshold: i64,
    ) -> Result<Self, KeyringError> {
        let threshold = u32::try_from(threshold)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(KeyringError::ThresholdBelowOne(threshold))?;
        Ok(Self { keys: keys.into_iter().collect(), threshold })
    }

    /// How many must sign.
    pub fn threshold(&self) -> u32 {
        self.threshold.get()
    }

    /// The key known under `id`.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.keys.get(id)
    }

    /// Ids and keys.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &PublicKey)> {
        self.keys.iter()
    }

    /// Checks that at least the threshold of *distinct keys* signed exactly `message`.
    ///
    /// Signatures by strangers and invalid ones are passed over, as TUF asks (5.3.4 and after).
    pub fn verify(&self, message: &[u8], signatures: &[Signature]) -> Result<Quorum, KeyringError> {
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = signatures.iter().find(|signature| !seen.insert(&signature.keyid)) {
            return Err(KeyringError::SignsTwice(twice.keyid.clone()));
        }
        let mut signed: Vec<(&KeyId, &PublicKey)> = Vec::new();
        for signature in signatures {
            let Some(key) = self.keys.get(&signature.keyid) else { continue };
            let counted = signed.iter().any(|(_, counted)| *counted == key);
            if !counted && key.verifies(message, signature) {
                signed.push((&signature.keyid, key));
            }
        }
        let valid = u32::try_from(signed.len()).unwrap_or(u32::MAX);
        if valid < self.threshold.get() {
            return Err(KeyringError::BelowThreshold { valid, threshold: self.threshold.get() });
        }
        Ok(Quorum { signers: signed.into_iter().map(|(id, _)| id.clone()).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn ring(keys: &[&SigningKey], threshold: i64) -> Keyring {
        Keyring::new(keys.iter().map(|key| (key.public().id(), key.public())), threshold).unwrap()
    }

    #[test]
    fn counts_to_the_threshold() {
        let [a, b, c, stranger] = std::array::from_fn(|_| SigningKey::generate());
        let ring = ring(&[&a, &b, &c], 2);
        let verify = |signers: &[&SigningKey]| {
            ring.verify(b"message", &signers.iter().map(|key| key.sign(b"message")).collect::<Vec<_>>())
        };
        assert_eq!(verify(&[&a, &c]).unwrap().signers().len(), 2);
        assert_eq!(verify(&[&a]), Err(KeyringError::BelowThreshold { valid: 1, threshold: 2 }));
        assert_eq!(verify(&[&a, &stranger]), Err(KeyringError::BelowThreshold { valid: 1, threshold: 2 }));
        assert_eq!(verify(&[&a, &a]), Err(KeyringError::SignsTwice(a.public().id())));
        assert!(verify(&[&stranger, &a, &b]).is_ok());
    }

    /// GHSA-3633-5h82-39pq: one public key under two key ids is one signer.
    #[test]
    fn counts_one_key_under_two_ids_once() {
        let key = SigningKey::generate();
        let alias: KeyId = serde_json::from_str("\"alias\"").unwrap();
        let ring =
            Keyring::new([(key.public().id(), key.public()), (alias.clone(), key.public())], 2).unwrap();
        let signature = key.sign(b"m");
        let twice = [signature.clone(), Signature { keyid: alias, bytes: signature.bytes }];
        assert_eq!(ring.verify(b"m", &twice), Err(KeyringError::BelowThreshold { valid: 1, threshold: 2 }));
    }

    /// CVE-2026-23992.
    #[test]
    fn cannot_be_made_with_a_threshold_below_one() {
        for threshold in [0, -1, i64::MIN] {
            assert_eq!(Keyring::new([], threshold), Err(KeyringError::ThresholdBelowOne(threshold)));
        }
    }

    /// root-signing#1448: real roots carry empty signatures.
    #[test]
    fn passes_over_an_invalid_signature_beside_enough_valid_ones() {
        let [a, b] = std::array::from_fn(|_| SigningKey::generate());
        let empty = Signature { keyid: b.public().id(), bytes: Vec::new() };
        assert!(ring(&[&a, &b], 1).verify(b"m", &[empty, a.sign(b"m")]).is_ok());
    }
}
