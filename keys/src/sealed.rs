//! A signing key at rest: PKCS#8, encrypted with PBES2 (scrypt, AES-256-CBC), in one PEM file.
//!
//! ```text
//! Mirabelle signing key
//! Key-Id: 3f1c…                                   SHA-256 of the canonical key, hex
//! Public: 9a20…                                   the Ed25519 public key, hex
//!
//! -----BEGIN ENCRYPTED PRIVATE KEY-----           RFC 7468; `openssl pkey -in FILE` reads it
//! …
//! -----END ENCRYPTED PRIVATE KEY-----
//! ```
//!
//! The lines above the block are for people and for the check after opening: AES-CBC carries no integrity tag, so a
//! key that opens must also have the public half written beside it. They let `key show` work without the passphrase.
//!
//! A file states itself how much work it is to open: one that asks for more than [`MAX_COST`] is not tried.

use ed25519_dalek::pkcs8::KeypairBytes;
use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncodePrivateKey, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use crate::{PublicKey, SigningKey};

const LABEL: &str = "ENCRYPTED PRIVATE KEY";
const PUBLIC_FIELD: &str = "Public: ";

/// How much work one guess at a passphrase costs.
///
/// OpenSSL refuses PBES2 files whose scrypt needs more than 32 MiB (`SCRYPT_MAX_MEM`), so memory stays at 16 MiB
/// (N = 2^14, r = 8) and the work is raised by p: twice the p = 5 that OWASP pairs with this N.
#[derive(Clone, Copy, Debug)]
pub struct SealingCost {
    log2_n: u8,
    r: u32,
    p: u32,
}

impl SealingCost {
    /// For every key that anybody depends on: about half a second a guess on one core of 2020.
    pub const STANDARD: Self = Self { log2_n: 14, r: 8, p: 10 };

    /// Next to nothing. For keys that live for the length of a test.
    pub const fn dangerously_cheap() -> Self {
        Self { log2_n: 8, r: 8, p: 1 }
    }
}

/// Memory that opening may take, in bytes: OpenSSL's own limit, twice what [`SealingCost::STANDARD`] needs.
const MAX_MEMORY: u64 = 32 << 20;
/// Work that opening may take, as N × r × p: sixteen times [`SealingCost::STANDARD`], some ten seconds.
const MAX_COST: u64 = (1 << 14) * 8 * 10 * 16;

/// A signing key sealed with a passphrase, as its file holds it.
pub struct SealedKey {
    public: PublicKey,
    pem: String,
}

/// Why a key could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text has no header that names the public key.
    #[error("not a sealed Mirabelle key: the `Public:` line above the PEM block is missing or malformed")]
    NoPublicKey,
    /// The text holds no `ENCRYPTED PRIVATE KEY` block.
    #[error("not a sealed key: no PEM block `{LABEL}`")]
    NoBlock,
    /// The block does not open: the passphrase is wrong or the file is damaged.
    #[error("wrong passphrase for key {keyid}, or its file is damaged")]
    WrongPassphrase {
        /// The key that stays shut.
        keyid: crate::KeyId,
    },
    /// Trying any passphrase would take more memory or time than we give it.
    #[error(
        "the file of key {keyid} asks for another way of opening it, or for more work, than its like ever need"
    )]
    TooCostly {
        /// The key that stays shut.
        keyid: crate::KeyId,
    },
    /// The block opened to another key than the one named beside it.
    #[error("the file says it holds key {said}, but it holds key {held}")]
    AnotherKey {
        /// The id beside the block.
        said: crate::KeyId,
        /// The id of what was inside.
        held: crate::KeyId,
    },
    /// The key could not be encoded.
    #[error("cannot seal the key")]
    Encoding(#[source] pkcs8::Error),
}

impl SealedKey {
    /// Seals `key` with `passphrase`.
    pub fn seal(key: &SigningKey, passphrase: &[u8], cost: SealingCost) -> Result<Self, SealError> {
        // Version 1 of PKCS#8, without the public key: OpenSSL 3 does not read version 2 (RFC 5958).
        let plain = KeypairBytes { secret_key: *key.seed(), public_key: None };
        let plain = plain.to_pkcs8_der().map_err(SealError::Encoding)?;
        let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(SealError::Encoding)?;

        let mut salt = [0_u8; 16];
        let mut iv = [0_u8; 16];
        getrandom::fill(&mut salt)
            .and_then(|()| getrandom::fill(&mut iv))
            .map_err(|_| SealError::Encoding(pkcs8::Error::KeyMalformed(pkcs8::KeyError::Invalid)))?;
        let sealed = scrypt::Params::new(cost.log2_n, cost.r, cost.p)
            .map_err(|_| pkcs8::Error::KeyMalformed(pkcs8::KeyError::Invalid))
            .and_then(|params| {
                pbes2::Parameters::generate_scrypt_aes256cbc(params, &salt, iv)
                    .map_err(pkcs8::Error::EncryptedPrivateKey)
            })
            .and_then(|parameters| info.encrypt_with_params(parameters, passphrase))
            .map_err(SealError::Encoding)?;
        let pem = sealed.to_pem(LABEL, LineEnding::LF).map_err(|e| SealError::Encoding(e.into()))?;
        Ok(Self { public: key.public(), pem: pem.to_string() })
    }

    /// Reads a sealed key's file. Needs no passphrase: the public half stands in the clear.
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let start = text.find("-----BEGIN").ok_or(SealError::NoBlock)?;
        let (header, pem) = text.split_at(start);
        let public = header
            .lines()
            .find_map(|line| line.strip_prefix(PUBLIC_FIELD))
            .and_then(|hex| hex::decode(hex.trim()).ok()?.try_into().ok())
            .and_then(|bytes| PublicKey::from_ed25519(&bytes).ok())
            .ok_or(SealError::NoPublicKey)?;
        Ok(Self { public, pem: pem.to_owned() })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let hex = self.public.ed25519().map(hex::encode).unwrap_or_default();
        format!("Mirabelle signing key\nKey-Id: {}\n{PUBLIC_FIELD}{hex}\n\n{}", self.public.id(), self.pem)
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What one guess at the passphrase costs, as the file says: `scrypt N=16384 r=8 p=10`.
    pub fn cost(&self) -> String {
        let told = || {
            let (_, sealed) = SecretDocument::from_pem(&self.pem).ok()?;
            let info = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).ok()?;
            let scrypt = info.encryption_algorithm.pbes2()?.kdf.scrypt()?;
            Some(format!(
                "scrypt N={} r={} p={}",
                scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization
            ))
        };
        told().unwrap_or_else(|| "not scrypt".to_owned())
    }

    /// Opens the key.
    pub fn open(&self, passphrase: &[u8]) -> Result<SigningKey, SealError> {
        let (label, sealed) = SecretDocument::from_pem(&self.pem).map_err(|_| SealError::NoBlock)?;
        if label != LABEL {
            return Err(SealError::NoBlock);
        }
        let wrong = || SealError::WrongPassphrase { keyid: self.public.id() };
        let info = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|_| wrong())?;
        if !is_affordable(&info) {
            return Err(SealError::TooCostly { keyid: self.public.id() });
        }
        let plain = info.decrypt(passphrase).map_err(|_| wrong())?;
        let pair = PrivateKeyInfoRef::try_from(plain.as_bytes())
            .ok()
            .and_then(|info| KeypairBytes::try_from(info).ok())
            .ok_or_else(wrong)?;
        let key = SigningKey::from_seed(&Zeroizing::new(pair.secret_key));
        if key.public() != self.public {
            return Err(SealError::AnotherKey { said: self.public.id(), held: key.public().id() });
        }
        Ok(key)
    }
}

/// True for scrypt within our limits, which is what we seal with.
fn is_affordable(info: &EncryptedPrivateKeyInfoRef<'_>) -> bool {
    let Some(scrypt) = info.encryption_algorithm.pbes2().and_then(|parameters| parameters.kdf.scrypt())
    else {
        return false;
    };
    let (n, r, p) = (scrypt.cost_parameter, u64::from(scrypt.block_size), u64::from(scrypt.parallelization));
    let memory = n.saturating_mul(r).saturating_mul(128);
    let work = n.saturating_mul(r).saturating_mul(p);
    n.is_power_of_two() && memory <= MAX_MEMORY && work <= MAX_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_the_passphrase_and_no_other() {
        let key = SigningKey::generate();
        let text = SealedKey::seal(&key, b"mirabelle", SealingCost::dangerously_cheap()).unwrap().to_text();
        let sealed = SealedKey::from_text(&text).unwrap();
        assert_eq!(sealed.open(b"mirabelle").unwrap().public(), key.public());
        assert!(matches!(sealed.open(b"quetsche"), Err(SealError::WrongPassphrase { .. })));
        assert!(!text.contains(&hex::encode(key.seed())));
        assert_eq!(sealed.cost(), "scrypt N=256 r=8 p=1");
    }

    #[test]
    fn refuses_a_file_whose_public_key_was_swapped() {
        let cheap = SealingCost::dangerously_cheap();
        let mine = SealedKey::seal(&SigningKey::generate(), b"p", cheap).unwrap().to_text();
        let other = SealedKey::seal(&SigningKey::generate(), b"p", cheap).unwrap().to_text();
        let line = |text: &str| text.lines().find(|l| l.starts_with(PUBLIC_FIELD)).unwrap().to_owned();
        let swapped = mine.replace(&line(&mine), &line(&other));
        assert!(matches!(
            SealedKey::from_text(&swapped).unwrap().open(b"p"),
            Err(SealError::AnotherKey { .. })
        ));
    }

    /// N, r and p stand in the file, where whoever may write to it can change them.
    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        const CHEAP: [u8; 10] = [2, 2, 1, 0, 2, 1, 8, 2, 1, 1];
        let key = SigningKey::generate();
        let sealed = SealedKey::seal(&key, b"p", SealingCost::dangerously_cheap()).unwrap();
        let (_, der) = SecretDocument::from_pem(&sealed.pem).unwrap();
        let at = der.as_bytes().windows(CHEAP.len()).position(|window| window == CHEAP).unwrap();
        for costly in [
            [2, 2, 0x40, 0, 2, 1, 0x7f, 2, 1, 0x7f], // 266 MB, 125 times
            [2, 2, 0x40, 0, 2, 1, 0x7f, 2, 1, 1],
            [2, 2, 0x41, 0, 2, 1, 8, 2, 1, 1], // no power of two
            [2, 1, 0, 2, 2, 1, 0, 2, 1, 1],    // N is 0, on which pkcs5 0.8.1 panics
        ] {
            let mut bytes = der.as_bytes().to_vec();
            bytes[at..at + costly.len()].copy_from_slice(&costly);
            let changed = SecretDocument::try_from(bytes.as_slice()).unwrap();
            let pem = changed.to_pem(LABEL, LineEnding::LF).unwrap().to_string();
            let changed = SealedKey { public: sealed.public.clone(), pem };
            let begun = std::time::Instant::now();
            assert!(changed.open(b"p").is_err(), "{costly:?}");
            assert!(begun.elapsed().as_secs() < 10, "{costly:?} took {:?}", begun.elapsed());
        }
    }

    #[test]
    fn refuses_what_is_no_sealed_key() {
        assert!(matches!(SealedKey::from_text("hello"), Err(SealError::NoBlock)));
        assert!(matches!(SealedKey::from_text("-----BEGIN X-----"), Err(SealError::NoPublicKey)));
    }

    /// The tool a key holder has when we are gone.
    #[test]
    fn openssl_reads_a_sealed_key() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let key = SigningKey::generate();
        let text = SealedKey::seal(&key, b"mirabelle", SealingCost::STANDARD).unwrap().to_text();
        let mut openssl = Command::new("openssl")
            .args(["pkey", "-passin", "pass:mirabelle", "-pubout"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed (./test installs it)");
        openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(PublicKey::from_pem(&String::from_utf8(output.stdout).unwrap()).unwrap(), key.public());
    }
}
