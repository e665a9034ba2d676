//! `brake/paused.json`: releases that must not start anywhere now.
//!
//! Signed with a key that lives on a server, so it may only withhold (promise 2): a brake is a set of releases, and
//! the only question it answers is whether one of them is in it, for this machine.
//!
//! Readers from before pauses could be drawn for some machines refuse a brake that has one, and keep the one they have.

use jiff::Timestamp as Instant;
use serde::{Deserialize, Serialize};

use crate::Json;
use crate::deployment::Audience;
use crate::names::{GroupName, PackageName, Platform};

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
    /// For those alone whom the rollout reaches after this ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<GroupName>,
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
    /// For whom.
    #[serde(default, skip_serializing_if = "is_everyone")]
    pub to: Audience,
}

fn is_everyone(to: &Audience) -> bool {
    *to == Audience::everyone()
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

    /// The pauses that are about a release, for whomever.
    pub fn pauses<'a>(
        &'a self,
        package: &'a PackageName,
        platform: &'a Platform,
        sequence: u64,
    ) -> impl Iterator<Item = &'a Pause> {
        self.paused.iter().filter(move |pause| pause.is_about(package, platform, sequence))
    }
}

impl Pause {
    /// True when it is about this release.
    pub fn is_about(&self, package: &PackageName, platform: &Platform, sequence: u64) -> bool {
        (&self.package, &self.platform, self.sequence) == (package, platform, sequence)
    }
}
