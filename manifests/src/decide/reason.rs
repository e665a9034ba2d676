//! Why: the values that a decision is made of (promise 9).
//!
//! Each is recorded where it was found. People read its sentence; pages and reports read its fields.

use serde::{Deserialize, Serialize};

use crate::Instant;
use crate::deployment::{AssignmentMode, Audience, Track};
use crate::names::{GroupName, PackageName, Platform, SiteId, Version};

/// One thing that was found on the way to a decision. The last one decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the sentence of each says what its fields are")]
pub enum Reason {
    // What was looked at, on the way.
    #[error("the deployment says for {to}: {mode}, {track}")]
    Assigned { to: Box<Audience>, mode: AssignmentMode, track: Track },
    #[error("{others} wider or earlier lines of the deployment are overruled by that one")]
    Overrules { others: usize },
    #[error("the pin on release {sequence} ended at {until:.0}")]
    PinEnded { sequence: u64, until: Instant },
    #[error("release {sequence} ({version}) is the one to have")]
    Target { sequence: u64, version: Version },
    #[error("somebody asked for it")]
    AskedFor,
    #[error("it must be there until {deadline:.0}")]
    Deadline { deadline: Instant },
    #[error("release {sequence} is for ring `{ring}` from {opens:.0}; this workstation is in it")]
    RingOpen { sequence: u64, ring: String, opens: Instant },
    #[error("somebody keeps release {sequence} here until {until:.0}, in place of {newest}")]
    KeptOnPurpose { sequence: u64, until: Instant, newest: Version },
    #[error("{} requires it", list(.by))]
    RequiredBy { by: Vec<PackageName> },

    // What decides.
    #[error("it is what the deployment says")]
    UpToDate,
    #[error("it is not here yet")]
    Missing,
    #[error("release {installed} is here")]
    OtherInstalled { installed: u64 },
    #[error("it is offered, and nobody here asked for it")]
    OnlyOffered,
    #[error("it is offered to teachers, and {asker} asked")]
    TeachersOnly { asker: Asker },
    #[error("it is not deployed to college {college}")]
    NotDeployed { college: SiteId },
    #[error("it is blocked here")]
    Blocked,
    #[error("the deployment takes it away")]
    TakenAway,
    #[error("there is no approved release of it for {platform}")]
    NoRelease { platform: Platform },
    #[error("release {sequence} is deployed, but the rectorat has not approved it for {platform}")]
    NotApproved { sequence: u64, platform: Platform },
    #[error("release {sequence} is paused since {since:.0}: {why}")]
    Paused { sequence: u64, since: Instant, why: String },
    #[error("release {sequence} failed here at {since:.0}: {why}")]
    Quarantined { sequence: u64, since: Instant, why: String },
    #[error("somebody went back from release {sequence} on this workstation; `install` takes it again")]
    HeldBack { sequence: u64 },
    #[error("release {sequence} reaches this workstation at {opens:.0}{}", .ring.as_ref().map(|ring| format!(", with ring `{ring}`")).unwrap_or_default())]
    RingClosed { sequence: u64, ring: Option<GroupName>, opens: Instant },
    #[error("release {target} is older than release {installed}, which is here; only a pin goes back")]
    Older { installed: u64, target: u64 },
    #[error("it does not go together with the rest: {why}")]
    Unresolvable { why: String },
    #[error("nothing here requires it any more")]
    NoLongerRequired,
    #[error("it needs {needed} bytes, and the disk has {free} of which {reserve} stay free")]
    TooLarge { needed: u64, free: u64, reserve: u64 },
}

fn list(names: &[PackageName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(" and ")
}

/// On whose behalf a package is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asker {
    /// Whoever sits there.
    Anyone,
    /// A teacher.
    Teacher,
    /// Whoever administers the machine.
    Administrator,
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anyone => "somebody who is none",
            Self::Teacher => "a teacher",
            Self::Administrator => "an administrator",
        })
    }
}
