//! Signing keys, key ids, keyrings and detached signatures.
//!
//! The lowest room of the house: it knows bytes, not packages. Whatever is signed reaches it as a slice, whatever is
//! stored reaches it as text; it opens no file and reads no clock.
//!
//! Threats and the defence for each:
//! - *A stolen key file*: it is sealed with a passphrase under scrypt ([`SealedKey`]).
//! - *A sealed file that was tampered with* (AES-CBC has no integrity tag): the public key stands beside the seal and
//!   is compared after opening.
//! - *A sealed file that asks for endless work, or memory*: its scrypt parameters are looked at before they are used.
//! - *One signer counted twice*: [`Keyring`] counts distinct public keys, never key ids (GHSA-3633-5h82-39pq), and
//!   refuses a document in which a key id signs twice (CVE-2020-6174).
//! - *A threshold of zero* (CVE-2026-23992): a [`Keyring`] cannot be made with one.
//! - *Small-order keys and malleable signatures*: verification is `verify_strict`.

mod keyring;
mod public;
mod sealed;
mod secret;
mod written;

pub use keyring::{Keyring, KeyringError, Quorum};
pub use public::{KeyId, PublicKey, PublicKeyError, Signature};
pub use sealed::{SealError, SealedKey, SealingCost};
pub use secret::{Signer, SigningError, SigningKey, UnsealedKeyError};
pub use written::{WrittenKey, WrittenKeyError};
