//! `trust/packagers.json`: which packager's key may sign which packages, from when, until when.
//!
//! A target of the top-level targets role. `from` and `until` bound the *date of the release*: when an authorisation
//! runs out, what was packaged under it stays installable and nobody signs it again. A packager whose key leaked is
//! taken out of the list, or her `until` is set before the leak; an earlier date that she then writes into a release
//! still meets the approvers, whose tool asks that the packager be authorised today.

use jiff::Timestamp as Instant;
use mirabelle_keys::{KeyId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::names::PackageName;
use crate::release::SignedRelease;
use crate::{Json, PathPattern};

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packagers {
    #[serde(rename = "_type")]
    type_: PackagersType,
    /// Everyone who may package.
    pub packagers: Vec<Packager>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PackagersType {
    #[serde(rename = "packagers")]
    Packagers,
}

/// One packager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packager {
    /// Releases dated before this are not hers.
    pub from: Instant,
    /// Her key.
    pub key: PublicKey,
    /// The packages she may sign, as patterns: `geogebra`, `lib*`.
    pub packages: Vec<PathPattern>,
    /// Releases dated at or after this are not hers.
    pub until: Instant,
}

/// Why no packager stands behind a release.
#[derive(Debug, thiserror::Error)]
pub enum PackagerRefusal {
    /// No key that signed is in the list.
    #[error("no authorised packager signed it (signed by {})", list(.0))]
    Unknown(Vec<KeyId>),
    /// A listed key is named, but the signature is not valid over these bytes.
    #[error("the signature by packager {0} is not valid over this manifest")]
    InvalidSignature(KeyId),
    /// The packager may not sign this package.
    #[error("packager {keyid} may not sign `{package}`")]
    ForeignPackage {
        /// Who signed.
        keyid: KeyId,
        /// What.
        package: PackageName,
    },
    /// The release is dated outside the packager's time.
    #[error("packager {keyid} is authorised from {from} until {until}, and the release is dated {date}")]
    OutOfTime {
        /// Who signed.
        keyid: KeyId,
        /// Start of her time.
        from: Instant,
        /// End of her time.
        until: Instant,
        /// The release's date.
        date: Instant,
    },
}

fn list(ids: &[KeyId]) -> String {
    let short: Vec<&str> = ids.iter().map(KeyId::short).collect();
    if short.is_empty() { "nobody".to_owned() } else { short.join(", ") }
}

impl Packagers {
    /// A list of these packagers.
    pub fn new(packagers: Vec<Packager>) -> Self {
        Self { type_: PackagersType::Packagers, packagers }
    }

    /// Reads the target.
    ///
    /// # Errors
    /// When the bytes are not such a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        Json::parse(bytes)?;
        serde_json::from_slice(bytes)
    }

    /// The target's bytes.
    ///
    /// # Errors
    /// When a key that was carried cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(Json::of(self)?.to_file())
    }

    /// The packager who stands behind `signed`, if one does.
    pub fn packager_of(&self, signed: &SignedRelease) -> Result<&Packager, PackagerRefusal> {
        let release = &signed.release;
        let mut refusal =
            PackagerRefusal::Unknown(signed.signatures.iter().map(|s| s.keyid.clone()).collect());
        for packager in &self.packagers {
            let keyid = packager.key.id();
            let Some(signature) = signed.signatures.iter().find(|signature| signature.keyid == keyid) else {
                continue;
            };
            if !packager.key.verifies(&signed.signed_bytes, signature) {
                refusal = PackagerRefusal::InvalidSignature(keyid);
            } else if !packager.packages.iter().any(|pattern| pattern.matches(release.name.as_str())) {
                refusal = PackagerRefusal::ForeignPackage { keyid, package: release.name.clone() };
            } else if !packager.authorised_at(release.date) {
                let Packager { from, until, .. } = *packager;
                refusal = PackagerRefusal::OutOfTime { keyid, from, until, date: release.date };
            } else {
                return Ok(packager);
            }
        }
        Err(refusal)
    }
}

impl Packager {
    /// True when `instant` lies in her time.
    pub fn authorised_at(&self, instant: Instant) -> bool {
        (self.from..self.until).contains(&instant)
    }
}
