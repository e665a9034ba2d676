//! `routes/<release digest>.json`: how a release can be had from the server that serves this file.
//!
//! ```text
//! {"bundle":true,"deltas":[{"from":"<release>","sha256":"<of the file>","size":4711}, …],"objects":false}
//! ```
//!
//! Unsigned, and need not be: a route only says where to ask. What comes back is checked against the signed manifest,
//! and no route may cost more than the full bundle, whose size is signed.
//!
//! Threats and the defence for each:
//! - *A list without end*: [`MAX_ROUTES_BYTES`], and [`MAX_DELTA_OFFERS`] of it are looked at.
//! - *An offer that is nonsense*: passed over, and the rest of the list holds.
//! - *A size or digest that is a lie*: whoever plans bounds the size by what is signed, and a digest that does not
//!   match costs that file, no more.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Digest;

/// The most of a routes file.
pub const MAX_ROUTES_BYTES: u64 = 64 << 10;
/// The most deltas of a list that are looked at: ten times what a publisher makes.
pub const MAX_DELTA_OFFERS: usize = 64;

/// What one server offers for one release. Members that a reader does not know are other ways, and are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// True: `bundles/<digest>.tar.zst` is here whole, and answers range requests.
    #[serde(default)]
    pub bundle: bool,
    /// Deltas that lead to the release: `deltas/<release>/<from>.delta`, or `full.delta` from nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "readable_offers")]
    pub deltas: Vec<DeltaOffer>,
    /// True: every object of the release is here as `objects/ab/cdef…`.
    #[serde(default)]
    pub objects: bool,
}

/// A delta that a server says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaOffer {
    /// The release it leads from; none: it leads from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// SHA-256 of the file, to notice early that a download is damaged.
    pub sha256: Digest,
    /// Length of the file in bytes.
    pub size: u64,
}

impl Routes {
    /// Reads what a server says; something that does not read offers nothing.
    pub fn read(bytes: &[u8]) -> Self {
        if bytes.len() as u64 > MAX_ROUTES_BYTES {
            return Self::default();
        }
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

fn readable_offers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeltaOffer>, D::Error> {
    let offers = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let read =
        offers.into_iter().take(MAX_DELTA_OFFERS).filter_map(|offer| serde_json::from_value(offer).ok());
    Ok(read.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let digest = |byte: u8| Digest::of(&[byte]);
        let deltas = vec![
            DeltaOffer { from: Some(digest(1)), sha256: digest(2), size: 3 },
            DeltaOffer { from: None, sha256: digest(4), size: 5 },
        ];
        let routes = Routes { bundle: true, deltas, objects: false };
        assert_eq!(Routes::read(&serde_json::to_vec(&routes).unwrap()), routes);
    }

    #[test]
    fn nonsense_is_passed_over_and_the_rest_holds() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"bundle":true,"torrent":{{}},"deltas":[7,{{"from":"x","sha256":"{digest}","size":1}},{{"sha256":"{digest}","size":-1}},{{"sha256":"{digest}","size":9}}]}}"#
        );
        let routes = Routes::read(text.as_bytes());
        assert!(routes.bundle && !routes.objects);
        assert_eq!(routes.deltas, [DeltaOffer { from: None, sha256: digest, size: 9 }]);
        assert_eq!(Routes::read(b"[1]"), Routes::default());
        let many = vec![DeltaOffer { from: None, sha256: digest, size: 9 }; 1000];
        let bytes = serde_json::to_vec(&Routes { deltas: many, ..Routes::default() }).unwrap();
        assert_eq!(Routes::read(&bytes).deltas.len(), 0, "longer than anything that is read");
        let many = vec![DeltaOffer { from: None, sha256: digest, size: 9 }; 100];
        let bytes = serde_json::to_vec(&Routes { deltas: many, ..Routes::default() }).unwrap();
        assert_eq!(Routes::read(&bytes).deltas.len(), MAX_DELTA_OFFERS);
    }
}
