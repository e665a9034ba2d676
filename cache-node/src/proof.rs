//! What the node can prove: that it was complete, at which snapshot, when.
//!
//! ```text
//! <root>/identity.key            the node's Ed25519 key (PKCS#8), made when it is first needed, 0600
//! <root>/served/complete.json    {"signatures": [{"keyid": …, "sig": …}], "signed": {"_type": "complete", "college": "57001",
//!                                 "snapshot": 12, "timestamp": "<SHA-256 of timestamp.json>", "at": "…", …}}
//! ```
//!
//! The signature covers the canonical JSON of `signed`, as everywhere in TUF metadata. It is written after the flip, and again at
//! each hour at which a look upstream found nothing new: so it is a statement that can grow old, not one that is repeated when
//! asked.
//!
//! Threats: whoever takes the node's disk takes its key, and can say of this node what she likes; no workstation trusts
//! anything on its account. A statement from before is recognised by its time.

use std::path::Path;

use fs_err as fs;
use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_keys::SigningKey;
use mirabelle_manifests::network::metadata_path;
use mirabelle_manifests::tuf::RoleName;
use mirabelle_manifests::{Digest, Instant, Json, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::Network;
use serde::{Deserialize, Serialize};

use crate::site::{HeldRelease, Site};

const MAX_FILE_BYTES: u64 = 64 << 10;
/// How old a statement grows before it is made anew, where nothing changed.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Complete {
    #[serde(rename = "_type")]
    kind: String,
    /// When.
    pub(crate) at: Instant,
    pub(crate) college: SiteId,
    /// Bytes of all objects, plain.
    pub(crate) bytes: u64,
    pub(crate) releases: u64,
    pub(crate) snapshot: u64,
    /// SHA-256 of the timestamp that is served.
    pub(crate) timestamp: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signed {
    signatures: Vec<mirabelle_keys::Signature>,
    signed: Complete,
}

/// States that what is served is complete, if that was not stated lately. A node that cannot sign serves none the worse.
pub(crate) fn renew(
    site: &Site,
    college: &SiteId,
    network: &Network,
    releases: &[HeldRelease],
    now: Instant,
) {
    if let Err(failure) = try_to_renew(site, college, network, releases, now) {
        tracing::warn!("completeness could not be stated\n{}", failure.render().trim_end());
    }
}

fn try_to_renew(
    site: &Site,
    college: &SiteId,
    network: &Network,
    releases: &[HeldRelease],
    now: Instant,
) -> Result<(), Failure> {
    let what = || "cannot sign".to_owned();
    let timestamp = site.served().path(&metadata_path(&RoleName::timestamp(), None));
    let timestamp = Digest::of(&fs::read(timestamp).or_fail(what)?);
    let path = site.served().path("complete.json");
    if let Some(stated) = read(&path)
        && stated.timestamp == timestamp
        && now.duration_since(stated.at).abs() < RENEWED_AFTER
    {
        return Ok(());
    }
    let signed = Complete {
        kind: "complete".to_owned(),
        at: now,
        college: college.clone(),
        bytes: releases.iter().map(|held| held.bytes).sum(),
        releases: releases.len() as u64,
        snapshot: network.trusted.snapshot().map_or(0, |snapshot| snapshot.version),
        timestamp,
    };
    let message = Json::of(&signed).or_fail(what)?.canonical();
    let signatures = vec![identity(&site.path("identity.key"))?.sign(&message)];
    let bytes = serde_json::to_vec(&Signed { signatures, signed }).or_fail(what)?;
    durable::write_atomically(&path, &bytes).or_fail(what)
}

/// What was stated last.
pub(crate) fn read(path: &Path) -> Option<Complete> {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok()??;
    serde_json::from_slice::<Signed>(&bytes).ok().map(|signed| signed.signed)
}

/// The node's key; made if there is none.
pub(crate) fn identity(path: &Path) -> Result<SigningKey, Failure> {
    let what = || format!("cannot use the key `{}`", path.display());
    if let Some(pem) = durable::read_if_present(path, MAX_FILE_BYTES).or_fail(what)? {
        return SigningKey::from_unsealed_pem(&String::from_utf8_lossy(&pem)).or_fail(what);
    }
    let key = SigningKey::generate();
    durable::write_atomically_as(path, key.to_unsealed_pem().as_bytes(), 0o600, None).or_fail(what)?;
    Ok(key)
}
