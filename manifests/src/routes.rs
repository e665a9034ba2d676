//! `routes/<release digest>.json`: how a release can be had from the server that serves this file.
//!
//! Unsigned, and need not be: a route only says where to ask. What comes back is checked against the signed manifest,
//! and no route may cost more than the full bundle, whose size is signed.

use serde::{Deserialize, Serialize};

/// What one server offers for one release. Members that a reader does not know are other ways, and are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// True: `bundles/<digest>.tar.zst` is here whole, and answers range requests.
    #[serde(default)]
    pub bundle: bool,
    /// True: every object of the release is here as `objects/ab/cdef…`.
    #[serde(default)]
    pub objects: bool,
}
