//! A release manifest taken apart: its two long lists, and the rest.
//!
//! A delta codes the lists by themselves, against those of the release it leads from, and leaves out what whoever decodes
//! it can work out. Put together again the manifest has its exact bytes, or whoever takes it apart is told that it would
//! not.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::release::{Entry, Frame, Release, ReleaseError};

/// A `release.json` in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestParts {
    /// The file with empty lists.
    pub rest: Vec<u8>,
    /// The entries.
    pub entries: Vec<Entry>,
    /// The bundle's frames.
    pub frames: Vec<Frame>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a, T> {
    #[serde(borrow)]
    signatures: &'a RawValue,
    signed: T,
}

fn write(signatures: &RawValue, release: &Release) -> Result<Vec<u8>, ReleaseError> {
    let signed = Json::of(release).map_err(ReleaseError::Malformed)?.to_file();
    let mut file = format!(r#"{{"signatures":{},"signed":"#, signatures.get()).into_bytes();
    file.extend_from_slice(&signed);
    file.push(b'}');
    Ok(file)
}

impl ManifestParts {
    /// Takes a manifest apart; none if its bytes are not those that putting it together would give: another program
    /// wrote it, or a later version with members that this one does not know.
    pub fn of(manifest: &[u8]) -> Option<Self> {
        let envelope: Envelope<'_, Release> = serde_json::from_slice(manifest).ok()?;
        let mut release = envelope.signed;
        let entries = std::mem::take(&mut release.entries);
        let frames = std::mem::take(&mut release.bundle.frames);
        let rest = write(envelope.signatures, &release).ok()?;
        let parts = Self { rest, entries, frames };
        (parts.assemble().ok()? == manifest).then_some(parts)
    }

    /// The manifest's bytes. They are checked by nobody yet.
    pub fn assemble(&self) -> Result<Vec<u8>, ReleaseError> {
        let envelope: Envelope<'_, Release> =
            serde_json::from_slice(&self.rest).map_err(ReleaseError::Malformed)?;
        let mut release = envelope.signed;
        release.entries.clone_from(&self.entries);
        release.bundle.frames.clone_from(&self.frames);
        write(envelope.signatures, &release)
    }
}
