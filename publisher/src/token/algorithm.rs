//! The two kinds of key that a token may hold for us, and how PKCS#11 writes their points and signatures.

use std::fmt;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use mirabelle_keys::{PublicKey, PublicKeyError};
use sha2::{Digest, Sha256};

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// Ed25519. A token is given the whole document: some small ones take only a few kilobytes.
    Ed25519,
    /// ECDSA on P-256. A token is given the document's SHA-256: any size will do.
    P256,
}

/// `CKA_EC_PARAMS` of P-256: the DER of 1.2.840.10045.3.1.7.
const P256_PARAMS: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `CKA_EC_PARAMS` of Ed25519 by its name in PKCS#11 3.0: the `PrintableString` "edwards25519", …
const ED25519_CURVE_NAME: &[u8] = b"\x13\x0cedwards25519";
/// … the DER of 1.3.101.112 (RFC 8410), …
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// … or that of 1.3.6.1.4.1.11591.15.1, which `OpenPGP` cards have from before the RFC.
const ED25519_OLD_OID: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

impl Algorithm {
    /// The algorithm of a key with these `CKA_EC_PARAMS`.
    pub(super) fn of_params(params: &[u8]) -> Option<Self> {
        match params {
            P256_PARAMS => Some(Self::P256),
            ED25519_CURVE_NAME | ED25519_OID | ED25519_OLD_OID => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// The `CKA_EC_PARAMS` for a new key.
    pub(super) fn params(self) -> &'static [u8] {
        match self {
            Self::Ed25519 => ED25519_CURVE_NAME,
            Self::P256 => P256_PARAMS,
        }
    }

    /// How a new key is made.
    pub(super) fn generation(self) -> Mechanism<'static> {
        match self {
            Self::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            Self::P256 => Mechanism::EccKeyPairGen,
        }
    }

    /// The public key with this `CKA_EC_POINT`.
    ///
    /// PKCS#11 wants the point in a DER OCTET STRING; some tokens leave the wrapping off. The length tells, since the
    /// first bytes of a bare point can look like the wrapping.
    pub(super) fn public_key(self, point: &[u8]) -> Result<PublicKey, PublicKeyError> {
        let bare_lengths: &[usize] = match self {
            Self::Ed25519 => &[32],
            Self::P256 => &[65, 33],
        };
        let bare = match point {
            [0x04, length, bare @ ..]
                if usize::from(*length) == bare.len() && bare_lengths.contains(&bare.len()) =>
            {
                bare
            }
            _ => point,
        };
        match self {
            Self::Ed25519 => PublicKey::from_ed25519(bare.try_into().map_err(|_| PublicKeyError)?),
            Self::P256 => PublicKey::from_p256(bare),
        }
    }

    /// How a signature is made, and of what.
    ///
    /// The hashing is done here, as not every token has `CKM_ECDSA_SHA256`.
    pub(super) fn signing(self, message: &[u8]) -> (Mechanism<'static>, Vec<u8>) {
        match self {
            Self::Ed25519 => {
                (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), message.to_vec())
            }
            Self::P256 => (Mechanism::Ecdsa, Sha256::digest(message).to_vec()),
        }
    }

    /// The signature as TUF has it, from the token's; `None` for what is no signature at all.
    ///
    /// For P-256 the token answers r and s one after the other, and TUF wants them in DER.
    pub(super) fn signature(self, answer: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Ed25519 => Some(answer),
            Self::P256 => {
                Some(p256::ecdsa::Signature::from_slice(&answer).ok()?.to_der().as_bytes().to_vec())
            }
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "Ed25519",
            Self::P256 => "P-256",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_points_wrapped_and_bare() {
        // The generator of P-256.
        let generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = hex::decode(generator).unwrap();
        let key = Algorithm::P256.public_key(&point).unwrap();
        let wrapped = [&[0x04, 65][..], &point].concat();
        assert_eq!(Algorithm::P256.public_key(&wrapped).unwrap(), key);
        let compressed = [&[0x04, 33, 0x03][..], &point[1..33]].concat();
        assert_eq!(Algorithm::P256.public_key(&compressed).unwrap(), key);

        let seed = mirabelle_keys::SigningKey::generate().public();
        let point = seed.ed25519().unwrap();
        assert_eq!(Algorithm::Ed25519.public_key(point).unwrap(), seed);
        assert_eq!(Algorithm::Ed25519.public_key(&[&[0x04, 32][..], point].concat()).unwrap(), seed);

        for bad in [&[][..], &[0x04], &[0x04, 0], &[0; 32], &[0x04; 65], &wrapped[..66]] {
            assert!(Algorithm::P256.public_key(bad).is_err(), "{bad:?}");
        }
        assert!(Algorithm::Ed25519.public_key(&point[..31]).is_err());
    }

    #[test]
    fn knows_a_curve_by_each_of_its_names() {
        for params in [ED25519_CURVE_NAME, ED25519_OID, ED25519_OLD_OID] {
            assert_eq!(Algorithm::of_params(params), Some(Algorithm::Ed25519));
        }
        assert_eq!(Algorithm::of_params(Algorithm::P256.params()), Some(Algorithm::P256));
        assert_eq!(Algorithm::of_params(&hex::decode("06052b81040022").unwrap()), None, "P-384");
    }

    #[test]
    fn a_p256_signature_goes_from_two_numbers_to_der() {
        let one_one = [[&[0; 31][..], &[1]].concat(), [&[0; 31][..], &[1]].concat()].concat();
        let der = Algorithm::P256.signature(one_one).unwrap();
        assert_eq!(der, [0x30, 6, 2, 1, 1, 2, 1, 1]);
        assert_eq!(Algorithm::P256.signature(vec![1; 63]), None);
        assert_eq!(Algorithm::P256.signature(vec![0; 64]), None);
    }
}
