//! Whom a targets role trusts for which paths (TUF 1.0.34, 4.5), and the hash bins of TAP 15.
//!
//! A role that delegates one name twice, or to a top-level role, is refused as a whole: with one delegation for each
//! name there is one keyring that decides (python-tuf#2977, go-tuf#759).

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::{KeyId, Keyring, KeyringError, PublicKey};
use serde::{Deserialize, Serialize};

use super::{RoleKeys, RoleName};
use crate::{PathPattern, TargetPath};

/// The roles a targets role delegates to, in the order they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DelegationsDocument", into = "DelegationsDocument")]
pub struct Delegations {
    /// Every key that a role below names.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// The roles; empty when there are bins.
    pub roles: Vec<DelegatedRole>,
    /// Instead of roles: bins by hash.
    pub bins: Option<SuccinctRoles>,
}

/// As it stands in a file.
#[derive(Clone, Serialize, Deserialize)]
struct DelegationsDocument {
    keys: BTreeMap<KeyId, PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<DelegatedRole>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    succinct_roles: Option<SuccinctRoles>,
}

/// One delegation: who, for which paths, and whether the search ends there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// The role's name.
    pub name: RoleName,
    /// The keys that may sign, and how many must.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// True: what this role does not list for its paths does not exist.
    pub terminating: bool,
    /// The paths it may speak about, as patterns …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathPattern>>,
    /// … or as prefixes of the SHA-256 of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
}

/// So many roles with the same keys, of which each speaks for the paths whose SHA-256 begins with its number (TAP 15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccinctRoles {
    /// There are two to this power of them.
    bit_length: u8,
    /// The keys that may sign each, and how many must.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// Role names are this, a hyphen, and the bin's number in hex.
    pub name_prefix: String,
}

/// Why delegations are none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DelegationsError {
    /// Exactly one of the two must be there.
    #[error("delegations hold either `roles` or `succinct_roles`")]
    RolesOrBins,
    /// Which keyring would decide?
    #[error("`{0}` is delegated twice")]
    Twice(RoleName),
    /// It would take the place of a top-level role.
    #[error("`{0}` is a top-level role and cannot be delegated")]
    TopLevel(RoleName),
    /// Exactly one of the two must be there.
    #[error("the delegation to `{0}` must hold either `paths` or `path_hash_prefixes`")]
    PathsOrPrefixes(RoleName),
    /// More bins than a SHA-256's first 32 bits can tell apart, or none.
    #[error("{0} bits are no number of bins: 1 to 32 are")]
    BitLength(u8),
}

impl TryFrom<DelegationsDocument> for Delegations {
    type Error = DelegationsError;

    fn try_from(document: DelegationsDocument) -> Result<Self, DelegationsError> {
        let (roles, bins) = match (document.roles, document.succinct_roles) {
            (Some(roles), None) => (roles, None),
            (None, Some(bins)) => (Vec::new(), Some(bins)),
            _ => return Err(DelegationsError::RolesOrBins),
        };
        let mut names = BTreeSet::new();
        for role in &roles {
            if role.name.is_top_level() {
                return Err(DelegationsError::TopLevel(role.name.clone()));
            }
            if !names.insert(&role.name) {
                return Err(DelegationsError::Twice(role.name.clone()));
            }
            if role.paths.is_some() == role.path_hash_prefixes.is_some() {
                return Err(DelegationsError::PathsOrPrefixes(role.name.clone()));
            }
        }
        if let Some(bins) = &bins
            && !(1..=32).contains(&bins.bit_length)
        {
            return Err(DelegationsError::BitLength(bins.bit_length));
        }
        Ok(Self { keys: document.keys, roles, bins })
    }
}

impl From<Delegations> for DelegationsDocument {
    fn from(delegations: Delegations) -> Self {
        let roles = delegations.bins.is_none().then_some(delegations.roles);
        Self { keys: delegations.keys, roles, succinct_roles: delegations.bins }
    }
}

impl Delegations {
    /// The roles that may speak about `path`, in order, each with whether the search ends there.
    pub fn for_path(&self, path: &TargetPath) -> Vec<(RoleName, bool)> {
        match &self.bins {
            // A path has one bin: whatever is not in it is nowhere.
            Some(bins) => vec![(bins.role_of(path), true)],
            None => self
                .roles
                .iter()
                .filter(|role| role.covers(path))
                .map(|role| (role.name.clone(), role.terminating))
                .collect(),
        }
    }

    /// Who must sign for `role`; `None` when nothing is delegated to it.
    pub fn keyring(&self, role: &RoleName) -> Option<Result<Keyring, KeyringError>> {
        let keys = match &self.bins {
            Some(bins) => bins.bin_of(role).map(|_| &bins.keys)?,
            None => &self.roles.iter().find(|delegated| delegated.name == *role)?.keys,
        };
        Some(keys.keyring(&self.keys))
    }
}

impl DelegatedRole {
    /// True when the role may speak about `path`.
    pub fn covers(&self, path: &TargetPath) -> bool {
        let by_pattern = self.paths.iter().flatten().any(|pattern| pattern.matches(path.as_str()));
        let hash = path.path_hash().to_string();
        let by_hash =
            self.path_hash_prefixes.iter().flatten().any(|prefix| hash.starts_with(prefix.as_str()));
        by_pattern || by_hash
    }
}

impl SuccinctRoles {
    /// Two to the power of `bit_length` bins.
    pub fn new(bit_length: u8, keys: RoleKeys, name_prefix: &str) -> Result<Self, DelegationsError> {
        if !(1..=32).contains(&bit_length) {
            return Err(DelegationsError::BitLength(bit_length));
        }
        Ok(Self { bit_length, keys, name_prefix: name_prefix.to_owned() })
    }

    /// How many bins there are.
    pub fn count(&self) -> u64 {
        1 << self.bit_length
    }

    /// All of their names, in order.
    pub fn roles(&self) -> impl Iterator<Item = RoleName> + '_ {
        (0..self.count()).map(|bin| self.name(bin))
    }

    /// The bin that may speak about `path`.
    pub fn role_of(&self, path: &TargetPath) -> RoleName {
        let hash = path.path_hash();
        let first: [u8; 4] = std::array::from_fn(|index| hash.as_bytes()[index]);
        self.name(u64::from(u32::from_be_bytes(first) >> (32 - self.bit_length)))
    }

    /// The number of the bin that `role` is; `None` for any other name.
    pub fn bin_of(&self, role: &RoleName) -> Option<u64> {
        let number = role.as_str().strip_prefix(&self.name_prefix)?.strip_prefix('-')?;
        let bin = u64::from_str_radix(number, 16).ok().filter(|bin| *bin < self.count())?;
        // Only the spelling that we would choose ourselves: no `+`, no capitals, no other number of zeros.
        (self.name(bin) == *role).then_some(bin)
    }

    fn name(&self, bin: u64) -> RoleName {
        let width = usize::from(self.bit_length).div_ceil(4);
        RoleName::new(format!("{}-{bin:0width$x}", self.name_prefix))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refuses_delegations_that_can_be_read_in_two_ways() {
        let role = |name: &str| json!({"name": name, "keyids": [], "threshold": 1, "terminating": false, "paths": ["*"]});
        let mut both = role("a");
        both["path_hash_prefixes"] = json!(["00"]);
        let mut neither = role("a");
        neither.as_object_mut().unwrap().remove("paths");
        let bins = |bits: u8| json!({"keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "b"});
        let cases = [
            (json!({"keys": {}, "roles": [role("a"), role("b")]}), None),
            (json!({"keys": {}, "succinct_roles": bins(4)}), None),
            (json!({"keys": {}}), Some("either `roles` or `succinct_roles`")),
            (json!({"keys": {}, "roles": [], "succinct_roles": bins(4)}), Some("either `roles` or")),
            (json!({"keys": {}, "roles": [role("a"), role("a")]}), Some("`a` is delegated twice")),
            (json!({"keys": {}, "roles": [role("snapshot")]}), Some("`snapshot` is a top-level role")),
            (json!({"keys": {}, "roles": [both]}), Some("either `paths` or `path_hash_prefixes`")),
            (json!({"keys": {}, "roles": [neither]}), Some("either `paths` or `path_hash_prefixes`")),
            (json!({"keys": {}, "succinct_roles": bins(0)}), Some("0 bits")),
            (json!({"keys": {}, "succinct_roles": bins(33)}), Some("33 bits")),
        ];
        for (document, expected) in cases {
            let read = serde_json::from_value::<Delegations>(document.clone());
            match (read, expected) {
                (Ok(delegations), None) => assert_eq!(serde_json::to_value(delegations).unwrap(), document),
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (read, _) => panic!("{document}: {read:?}"),
            }
        }
    }

    /// The numbers that python-tuf gives for the same paths.
    #[test]
    fn a_path_has_the_bin_that_tap_15_gives_it() {
        let keys = || RoleKeys { keyids: vec![], threshold: 1 };
        let path = TargetPath::new("a/b");
        let hash = path.path_hash().to_string();
        for (bits, digits) in [(4_u8, 1_usize), (8, 2), (12, 3), (16, 4), (32, 8)] {
            let bins = SuccinctRoles::new(bits, keys(), "bin").unwrap();
            assert_eq!(bins.role_of(&path).as_str(), format!("bin-{}", &hash[..digits]));
        }
        let bins = SuccinctRoles::new(5, keys(), "bin").unwrap();
        let names: Vec<String> = bins.roles().map(|role| role.to_string()).collect();
        assert_eq!((names.len(), names[0].as_str(), names[31].as_str()), (32, "bin-00", "bin-1f"));
        for (name, bin) in [
            ("bin-1f", Some(31)),
            ("bin-20", None),
            ("bin-1F", None),
            ("bin-+1", None),
            ("bin-1", None),
            ("x-01", None),
        ] {
            assert_eq!(bins.bin_of(&RoleName::new(name)), bin, "{name}");
        }
    }
}
