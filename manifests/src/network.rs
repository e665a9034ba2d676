//! How Mirabelle uses TUF: the roles below targets, their paths, and where a repository keeps its files.
//!
//! ```text
//! root ── targets ──┬── catalogue    packages/*/*/*/release.json      and root's x-quorums
//!                   ├── deployment   deployment/policy.json
//!                   └── brake        brake/paused.json
//! ```
//!
//! A catalogue past some 15,000 releases lists nothing itself and delegates to hash bins (TAP 15), `catalogue-00` and on,
//! held by the same approvers and pinned by the same quorum.
//!
//! Each delegation is terminating and covers its paths alone, so no role can speak for another.

use crate::Digest;
use crate::tuf::{RoleName, metadata_name};
use crate::{PathPattern, TargetPath};

/// The target that authorises packagers; of the top-level targets role.
pub const PACKAGERS_TARGET: &str = "trust/packagers.json";
/// The deployment's only target.
pub const DEPLOYMENT_TARGET: &str = "deployment/policy.json";
/// The brake's only target.
pub const BRAKE_TARGET: &str = "brake/paused.json";

/// The role of the approvers.
pub fn catalogue_role() -> RoleName {
    RoleName::new("catalogue")
}

/// More bins than this are refused: each is a file that every reader fetches once.
pub const MAX_CATALOGUE_BINS: u64 = 1 << 12;

/// The role of the operators.
pub fn deployment_role() -> RoleName {
    RoleName::new("deployment")
}

/// The role that can only withhold.
pub fn brake_role() -> RoleName {
    RoleName::new("brake")
}

/// The three roles and the paths each may speak about, in the order they are delegated.
pub fn delegated_roles() -> [(RoleName, PathPattern); 3] {
    [
        (brake_role(), PathPattern::new(BRAKE_TARGET)),
        (catalogue_role(), PathPattern::new("packages/*/*/*/release.json")),
        (deployment_role(), PathPattern::new(DEPLOYMENT_TARGET)),
    ]
}

/// `metadata/<version>.<role>.json`
pub fn metadata_path(role: &RoleName, version: Option<u64>) -> String {
    format!("metadata/{}", metadata_name(role, version))
}

/// `targets/<dir>/<digest>.<name>`
pub fn target_path(path: &TargetPath, digest: Digest) -> Result<String, crate::PathError> {
    Ok(format!("targets/{}", path.hashed(&digest.to_string())?))
}

/// `bundles/<digest>.tar.zst`
pub fn bundle_path(digest: Digest) -> String {
    format!("bundles/{digest}.tar.zst")
}

/// `sboms/<digest>.cdx.json`
pub fn sbom_path(digest: Digest) -> String {
    format!("sboms/{digest}.cdx.json")
}

/// `media/<digest>`: pictures and pages of the store
pub fn media_path(digest: Digest) -> String {
    format!("media/{digest}")
}

/// `objects/ab/cdef…`
pub fn object_path(digest: Digest) -> String {
    format!("objects/{}", digest.fanned_out())
}

/// `routes/<release digest>.json`
pub fn routes_path(release: Digest) -> String {
    format!("routes/{release}.json")
}

/// `deltas/<release digest>/<digest of the release it leads from>.delta`, or `…/full.delta` from nothing.
pub fn delta_path(release: Digest, from: Option<Digest>) -> String {
    let name = from.map_or("full".to_owned(), |from| from.to_string());
    format!("deltas/{release}/{name}.delta")
}
