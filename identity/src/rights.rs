//! Who may sign in while the provider is out of reach, as the origin says and signs it.
//!
//! ```text
//! GET <node or origin>/rights.json
//! {"signature": {"keyid": "…", "sig": "…"}, "signed": {"_type": "rights", "expires": "…", "issued": "…", "rights": [
//!     {"colleges": ["57001"], "key": {…}, "person": "<pseudonym>", "teacher": true, "until": "…"}]}}
//! ```
//!
//! A row is made when a teacher who is signed in with the provider asks for it, counts for a bounded time, and says nothing about
//! her but a pseudonym. The key is that of her offline code, which is kept nowhere. Nodes mirror the list as it is; it is signed by
//! a key that stays on the origin's server and that the signed deployment names. That key can let somebody sign in who should not;
//! what she may install is still what was approved and deployed for teachers.

use std::collections::BTreeSet;

use mirabelle_keys::{PublicKey, Signature, SigningKey};
use mirabelle_manifests::{Instant, Json, SiteId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::person::{Identity, Person};

/// The most of a list: every teacher of a département, four times.
const MAX_LIST_BYTES: usize = 8 << 20;

/// A person's right to sign in with a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Right {
    /// Where she teaches.
    pub colleges: BTreeSet<SiteId>,
    /// The key of her code.
    pub key: PublicKey,
    /// Her pseudonym.
    pub person: Person,
    /// When the provider last vouched for her.
    pub since: Instant,
    /// True for a teacher.
    pub teacher: bool,
    /// Until when.
    pub until: Instant,
}

impl Right {
    /// Who she is at `now`, if her time is not over.
    pub fn identity(&self, now: Instant) -> Option<Identity> {
        (now < self.until).then(|| Identity {
            person: self.person,
            is_teacher: self.teacher,
            colleges: self.colleges.clone(),
            since: self.since,
            until: self.until,
        })
    }
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    #[serde(rename = "_type")]
    type_: RightsType,
    /// From when on it counts no more.
    pub expires: Instant,
    /// When it was made: of two, the later counts.
    pub issued: Instant,
    /// Whose.
    pub rights: Vec<Right>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum RightsType {
    #[serde(rename = "rights")]
    Rights,
}

impl Rights {
    /// A list.
    pub fn new(rights: Vec<Right>, issued: Instant, expires: Instant) -> Self {
        Self { type_: RightsType::Rights, expires, issued, rights }
    }

    /// The right of whoever holds this key.
    pub fn of(&self, key: &PublicKey) -> Option<&Right> {
        self.rights.iter().find(|right| right.key == *key)
    }
}

/// A list with the origin's signature over its exact bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedList {
    signature: Signature,
    signed: Box<RawValue>,
}

/// Why a list is refused.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// Longer than any.
    #[error("the list has {0} bytes, more than 8 MiB")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("the list is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The deployment names no key, or another one.
    #[error("the list is not signed by the key that the deployment names")]
    Signature,
    /// Its time is over.
    #[error("the list expired at {0:.0}")]
    Expired(Instant),
}

impl SignedList {
    /// Signs a list.
    pub fn sign(list: &impl Serialize, key: &SigningKey) -> Result<Vec<u8>, RightsError> {
        let json = Json::of(list).map_err(RightsError::Malformed)?.canonical();
        let signature = key.sign(&json);
        let json = String::from_utf8_lossy(&json).into_owned();
        let signed = RawValue::from_string(json).map_err(RightsError::Malformed)?;
        serde_json::to_vec(&Self { signature, signed }).map_err(RightsError::Malformed)
    }

    /// Reads a list that `key` signed.
    pub fn read<T: DeserializeOwned>(bytes: &[u8], key: &PublicKey) -> Result<T, RightsError> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(RightsError::TooLarge(bytes.len()));
        }
        let list: Self = serde_json::from_slice(bytes).map_err(RightsError::Malformed)?;
        if !key.verifies(list.signed.get().as_bytes(), &list.signature) {
            return Err(RightsError::Signature);
        }
        serde_json::from_str(list.signed.get()).map_err(RightsError::Malformed)
    }

    /// The list of rights that `key` signed, if it counts at `now`.
    pub fn rights(bytes: &[u8], key: &PublicKey, now: Instant) -> Result<Rights, RightsError> {
        let rights: Rights = Self::read(bytes, key)?;
        if rights.expires <= now { Err(RightsError::Expired(rights.expires)) } else { Ok(rights) }
    }
}
