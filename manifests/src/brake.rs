//! `brake/paused.json`: releases that must not start anywhere now.
//!
//! Signed with a key that lives on a server, so it may only withhold (promise 2): a brake is a set of releases, and
//! the only question it answers is whether one of them is in it.

use jiff::Timestamp as Instant;
use serde::{Deserialize, Serialize};

use crate::Json;
use crate::names::{PackageName, Platform};

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brake {
    #[serde(rename = "_type")]
    type_: BrakeType,
    /// What is paused.
    pub paused: Vec<Pause>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum BrakeType {
    #[default]
    #[serde(rename = "brake")]
    Brake,
}

/// One paused release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The package.
    pub package: PackageName,
    /// The release's platform.
    pub platform: Platform,
    /// Why, for whoever asks.
    pub reason: String,
    /// The release.
    pub sequence: u64,
    /// Since when.
    pub since: Instant,
}

impl Brake {
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
    /// Never in practice: the document holds nothing that JSON cannot.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(Json::of(self)?.to_file())
    }

    /// The pause that holds a release back, if one does.
    pub fn holds_back(&self, package: &PackageName, platform: &Platform, sequence: u64) -> Option<&Pause> {
        self.paused.iter().find(|pause| {
            pause.package == *package && pause.platform == *platform && pause.sequence == sequence
        })
    }
}
