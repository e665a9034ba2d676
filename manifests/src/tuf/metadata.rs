//! The four TUF roles as they stand in files (TUF 1.0.34, section 4).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp as Instant;
use mirabelle_keys::{KeyId, Keyring, KeyringError, PublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::Delegations;
use crate::{Digest, TargetPath};

/// The version of the specification that our documents are written to.
pub const SPEC_VERSION: &str = "1.0.34";

/// The name of a role: one of the four top-level ones, or any string a delegation gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleName(String);

impl RoleName {
    /// The role of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// `root`
    pub fn root() -> Self {
        Self::new(Root::TYPE)
    }

    /// `timestamp`
    pub fn timestamp() -> Self {
        Self::new(Timestamp::TYPE)
    }

    /// `snapshot`
    pub fn snapshot() -> Self {
        Self::new(Snapshot::TYPE)
    }

    /// `targets`
    pub fn targets() -> Self {
        Self::new(Targets::TYPE)
    }

    /// True for the four roles that root names itself.
    pub fn is_top_level(&self) -> bool {
        [Root::TYPE, Timestamp::TYPE, Snapshot::TYPE, Targets::TYPE].contains(&self.as_str())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the stem of a file: everything but unreserved characters (RFC 3986, 2.3) percent-encoded, so that
    /// no role name is a path (CVE-2021-41131).
    pub fn file_stem(&self) -> String {
        use fmt::Write;
        let mut stem = String::new();
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                stem.push(byte.into());
            } else {
                let _ = write!(stem, "%{byte:02X}");
            }
        }
        stem
    }

    /// The role's member in snapshot's `meta`.
    pub fn meta_name(&self) -> String {
        format!("{}.json", self.0)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `<version>.<role>.json`; the timestamp has no version (TUF 1.0.34, 6.2).
pub fn metadata_name(role: &RoleName, version: Option<u64>) -> String {
    match version {
        Some(version) => format!("{version}.{}.json", role.file_stem()),
        None => format!("{}.json", role.file_stem()),
    }
}

/// What every role's document has.
pub trait RoleDocument: DeserializeOwned + Serialize {
    /// The value of `_type`.
    const TYPE: &'static str;
    /// The `_type` that the document states.
    fn stated_type(&self) -> &str;
    /// The version of the specification it was written to.
    fn spec_version(&self) -> &str;
    /// Its version: at least 1, counting up.
    fn version(&self) -> u64;
    /// When it stops being valid.
    fn expires(&self) -> Instant;
}

macro_rules! role_document {
    ($type:ident, $name:literal) => {
        impl RoleDocument for $type {
            const TYPE: &'static str = $name;
            fn stated_type(&self) -> &str {
                &self.kind
            }
            fn spec_version(&self) -> &str {
                &self.spec_version
            }
            fn version(&self) -> u64 {
                self.version
            }
            fn expires(&self) -> Instant {
                self.expires
            }
        }
    };
}

/// Who holds a role: key ids into the document's `keys`, and how many must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// The keys that may sign.
    pub keyids: Vec<KeyId>,
    /// How many must.
    pub threshold: i64,
}

impl RoleKeys {
    /// The keyring these ids stand for among `keys`.
    pub fn keyring(&self, keys: &BTreeMap<KeyId, PublicKey>) -> Result<Keyring, KeyringError> {
        let known = self.keyids.iter().filter_map(|id| Some((id.clone(), keys.get(id)?.clone())));
        Keyring::new(known, self.threshold)
    }
}

/// Who holds every other role (TUF 1.0.34, 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    #[serde(rename = "_type")]
    kind: String,
    /// True: metadata and targets have names that never change (6.2).
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// When it stops being valid.
    pub expires: Instant,
    /// Every key that a role below names.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// The keys and threshold of each top-level role.
    pub roles: BTreeMap<RoleName, RoleKeys>,
    spec_version: String,
    /// Counts up by one.
    pub version: u64,
    /// Ours: for a *delegated* role, a keyring that its document must satisfy beside the delegation's. Root pins the
    /// rectorat's approvers here, so that whoever holds the targets role cannot delegate the catalogue to somebody
    /// else. Other clients ignore the member (4.2, "unknown fields") and still check the delegation.
    #[serde(rename = "x-quorums", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quorums: BTreeMap<RoleName, RoleKeys>,
    /// Ours: for so many days after it expired, what a client verified before stays usable, and nothing newer is
    /// accepted. Signed here, since a switch on the machine would be the attacker's.
    #[serde(rename = "x-grace-days", default, skip_serializing_if = "Option::is_none")]
    pub grace_days: Option<u16>,
}
role_document!(Root, "root");

impl Root {
    /// The keyring that root demands of a delegated role beside its delegation; a role's holds for its hash bins.
    pub fn quorum_of(&self, role: &RoleName) -> Option<&RoleKeys> {
        let of_bins = || {
            let (prefix, number) = role.as_str().rsplit_once('-')?;
            let is_bin = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_bin.then(|| self.quorums.get(&RoleName::new(prefix)))?
        };
        self.quorums.get(role).or_else(of_bins)
    }
}

/// Which snapshot is current (TUF 1.0.34, 4.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(rename = "_type")]
    kind: String,
    /// When it stops being valid.
    pub expires: Instant,
    /// Holds `snapshot.json` and nothing else.
    pub meta: BTreeMap<String, FileMeta>,
    spec_version: String,
    /// Counts up.
    pub version: u64,
    /// Ours: when it was signed. It is not earlier than this, whatever a client's own clock says.
    #[serde(rename = "x-issued", default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Instant>,
}
role_document!(Timestamp, "timestamp");

impl Timestamp {
    /// The entry for the snapshot.
    pub fn snapshot(&self) -> Option<&FileMeta> {
        self.meta.get("snapshot.json")
    }
}

/// Which version of each targets role is current (TUF 1.0.34, 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(rename = "_type")]
    kind: String,
    /// When it stops being valid.
    pub expires: Instant,
    /// `ROLE.json` to version, length and hashes.
    pub meta: BTreeMap<String, FileMeta>,
    spec_version: String,
    /// Counts up.
    pub version: u64,
    /// Ours: the digest of the newest line of the publisher's audit log, so that its past is kept by every reader.
    #[serde(rename = "x-audit", default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Digest>,
}
role_document!(Snapshot, "snapshot");

/// What a role says about another role's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Digests of the file; optional (4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
    /// Its length in bytes; optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// The version of the document in it.
    pub version: u64,
}

impl FileMeta {
    /// What to say about `bytes`, which hold version `version`.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self { hashes: Some(Hashes::of(bytes)), length: Some(bytes.len() as u64), version }
    }
}

/// Targets and delegations (TUF 1.0.34, 4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    #[serde(rename = "_type")]
    kind: String,
    /// The roles that this one trusts for some paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// When it stops being valid.
    pub expires: Instant,
    spec_version: String,
    /// The targets this role lists itself.
    pub targets: BTreeMap<TargetPath, TargetFile>,
    /// Counts up.
    pub version: u64,
}
role_document!(Targets, "targets");

/// A target's length, digests and, opaque to TUF, what the role wants to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Signed with the role that lists it, and meaningful only for that role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<serde_json::Value>,
    /// Digests; at least one that we know must be there.
    pub hashes: Hashes,
    /// Length in bytes.
    pub length: u64,
}

impl TargetFile {
    /// What to say about `bytes`.
    pub fn of(bytes: &[u8], custom: Option<serde_json::Value>) -> Self {
        Self { custom, hashes: Hashes::of(bytes), length: bytes.len() as u64 }
    }
}

/// Digests by algorithm, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(BTreeMap::from([("sha256".to_owned(), Digest::of(bytes).to_string())]))
    }

    /// The SHA-256, if one is stated.
    pub fn sha256(&self) -> Option<Digest> {
        self.0.get("sha256")?.parse().ok()
    }

    /// Any digest: the one a consistent snapshot's file name begins with.
    pub fn for_file_name(&self) -> Option<&str> {
        self.0.get("sha256").or_else(|| self.0.get("sha512")).map(String::as_str)
    }

    /// Begins to compare a file that comes piece by piece.
    pub fn comparison(&self) -> HashComparison<'_> {
        HashComparison {
            stated: self,
            sha256: self.0.contains_key("sha256").then(sha2::Sha256::new),
            sha512: self.0.contains_key("sha512").then(sha2::Sha512::new),
        }
    }

    /// True when at least one digest is of an algorithm we know and every such digest is that of `bytes`.
    pub fn match_bytes(&self, bytes: &[u8]) -> bool {
        let mut comparison = self.comparison();
        comparison.update(bytes);
        comparison.matches()
    }
}

/// Digests under way, to be compared with those that were stated.
#[derive(Debug)]
pub struct HashComparison<'a> {
    stated: &'a Hashes,
    sha256: Option<sha2::Sha256>,
    sha512: Option<sha2::Sha512>,
}

impl HashComparison<'_> {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(piece);
        }
    }

    /// True when at least one digest is of an algorithm we know and every such digest is that of the pieces.
    pub fn matches(self) -> bool {
        if self.sha256.is_none() && self.sha512.is_none() {
            return false;
        }
        let same = |name: &str, digest: Option<String>| {
            digest.is_none_or(|digest| self.stated.0.get(name) == Some(&digest))
        };
        same("sha256", self.sha256.map(|hasher| hex::encode(hasher.finalize())))
            && same("sha512", self.sha512.map(|hasher| hex::encode(hasher.finalize())))
    }
}

/// Version, expiry and the constants of a new document.
macro_rules! constructor {
    ($type:ident { $($field:ident : $value:expr),* }) => {
        impl $type {
            /// An empty document.
            pub fn new(version: u64, expires: Instant) -> Self {
                Self {
                    kind: Self::TYPE.to_owned(),
                    spec_version: SPEC_VERSION.to_owned(),
                    version,
                    expires,
                    $($field: $value),*
                }
            }
        }
    };
}
constructor!(Root {
    consistent_snapshot: true,
    keys: BTreeMap::new(),
    roles: BTreeMap::new(),
    quorums: BTreeMap::new(),
    grace_days: None
});
constructor!(Timestamp { meta: BTreeMap::new(), issued: None });
constructor!(Snapshot { meta: BTreeMap::new(), audit: None });
constructor!(Targets { delegations: None, targets: BTreeMap::new() });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_is_never_a_path() {
        for (name, stem) in [
            ("a b?#", "a%20b%3F%23"),
            ("/x", "%2Fx"),
            ("../x", "..%2Fx"),
            ("catalogue", "catalogue"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(RoleName::new(name).file_stem(), stem);
        }
    }

    #[test]
    fn hashes_need_one_known_algorithm_and_all_known_to_match() {
        let read = |json: serde_json::Value| serde_json::from_value::<Hashes>(json).unwrap();
        let sha256 = Digest::of(b"x").to_string();
        let sha512 = hex::encode(sha2::Sha512::digest(b"x"));
        assert!(read(serde_json::json!({"sha256": sha256})).match_bytes(b"x"));
        assert!(read(serde_json::json!({"sha512": sha512})).match_bytes(b"x"));
        assert!(read(serde_json::json!({"sha256": sha256, "md9": "00"})).match_bytes(b"x"));
        assert!(!read(serde_json::json!({"sha256": sha256, "sha512": "00"})).match_bytes(b"x"));
        assert!(!read(serde_json::json!({"md9": "00"})).match_bytes(b"x"));
        assert!(!read(serde_json::json!({"sha256": sha256})).match_bytes(b"y"));
    }
}
