//! Promise 1, two bodies: an authorised packager signed the manifest *and* the rectorat's approvers signed for it.
//!
//! An [`ApprovedRelease`] can be made in one way only: from the bytes of a manifest, an entry of a catalogue whose
//! role was verified (against its delegation and against the quorum that root pins), and a verified list of
//! packagers. Nothing else in the house can be installed, mirrored or served.
//!
//! Threats and the defence for each:
//! - *An approver's key alone*: the packager's signature over the exact bytes is missing.
//! - *A packager's key alone*: no catalogue entry names the bytes.
//! - *The targets role delegates the catalogue to its own keys*: root's `x-quorums` still asks for the approvers'.
//! - *Approved bytes under another name*: manifest and listing must agree on name, version, platform, sequence.

use std::ops::Deref;

use mirabelle_keys::KeyId;

use crate::Digest;
use crate::catalogue::{CatalogueEntry, Listing};
use crate::packagers::{PackagerRefusal, Packagers};
use crate::release::{Release, ReleaseError, SignedRelease};

/// A release that both bodies stand behind.
#[derive(Clone, Debug)]
pub struct ApprovedRelease {
    release: Release,
    digest: Digest,
    packager: KeyId,
}

impl ApprovedRelease {
    /// SHA-256 of `release.json`: the release's identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose signature was found.
    pub fn packager(&self) -> &KeyId {
        &self.packager
    }
}

impl Deref for ApprovedRelease {
    type Target = Release;

    fn deref(&self) -> &Release {
        &self.release
    }
}

/// Which of the two bodies does not stand behind a release, and why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The bytes are not the ones that were approved.
    #[error("the rectorat approved another manifest: expected {expected}, got {got}")]
    NotWhatWasApproved {
        /// The digest that the catalogue names.
        expected: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// The manifest is that of another release than the catalogue lists.
    #[error("the manifest describes `{manifest}`, but the catalogue lists `{catalogue}`")]
    Misfiled {
        /// What the manifest says it is.
        manifest: String,
        /// What the catalogue says it is.
        catalogue: String,
    },
    /// No packager stands behind it.
    #[error("no packager stands behind it")]
    Packager(#[source] PackagerRefusal),
    /// The manifest cannot be read.
    #[error("its manifest cannot be used")]
    Manifest(#[source] ReleaseError),
}

/// Checks both bodies. `manifest` are the bytes of `release.json` as fetched.
pub fn check_approval(
    manifest: &[u8],
    entry: &CatalogueEntry,
    packagers: &Packagers,
) -> Result<ApprovedRelease, Refusal> {
    let got = Digest::of(manifest);
    if got != entry.digest {
        return Err(Refusal::NotWhatWasApproved { expected: entry.digest, got });
    }
    let signed = SignedRelease::parse(manifest).map_err(Refusal::Manifest)?;
    let packager = packagers.packager_of(&signed).map_err(Refusal::Packager)?.key.id();
    let listing = Listing::of(&signed.release);
    if listing != entry.listing {
        let name = |listing: &Listing| {
            format!("{} {} ({}, {})", listing.name, listing.version, listing.platform, listing.sequence)
        };
        return Err(Refusal::Misfiled { manifest: name(&listing), catalogue: name(&entry.listing) });
    }
    Ok(ApprovedRelease { release: signed.release, digest: got, packager })
}
