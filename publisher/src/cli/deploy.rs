//! `deploy` on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use jiff::civil;
use jiff::tz::TimeZone;
use mirabelle_manifests::{GroupName, Instant, MachineId, PackageName, Platform, RoomName, SiteId, Tag};

use super::NameAtVersion;
use crate::key_location::KeyLocation;

/// Decide what goes where. Without a key, only a draft is made.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag, and groups say which go together")]
#[command(group(
    ArgGroup::new("change").required(true).args(["release", "show", "policy", "edit", "holidays", "lessons"])
))]
#[command(group(ArgGroup::new("mode").args(["available", "available_to_teachers", "blocked", "removed"])))]
pub struct Deploy {
    /// The package: `NAME@VERSION` pins that release; `NAME` with --newest follows the newest that is approved.
    pub release: Option<Deployable>,
    /// The release's platform, if it is approved for several.
    #[arg(long, requires = "release")]
    pub platform: Option<Platform>,
    /// For whom.
    #[command(flatten)]
    pub to: For,

    /// Follow the newest release.
    #[arg(long, requires = "release")]
    pub newest: bool,
    /// Pin until then, and follow the newest from there on: `2027-07-03` (its end) or RFC 3339.
    #[arg(long, value_name = "DATE", requires = "release", conflicts_with = "newest")]
    pub until: Option<When>,
    /// It must be there by then: `2026-12-18` (its end) or RFC 3339.
    #[arg(long, value_name = "DATE", requires = "release")]
    pub deadline: Option<When>,
    /// Ring by ring, as this rollout of the deployment says.
    #[arg(long, value_name = "NAME", requires = "release")]
    pub rollout: Option<GroupName>,
    /// Install only where somebody asks for it.
    #[arg(long, requires = "release")]
    pub available: bool,
    /// Install only where a teacher asks for it.
    #[arg(long, requires = "release")]
    pub available_to_teachers: bool,
    /// Let nobody install it; where it is, it stays.
    #[arg(long, requires = "release", conflicts_with_all = ["newest", "until", "rollout"])]
    pub blocked: bool,
    /// Take it away.
    #[arg(long, requires = "release", conflicts_with_all = ["newest", "until", "rollout"])]
    pub removed: bool,

    /// Print the deployment as TOML.
    #[arg(long)]
    pub show: bool,
    /// Put this TOML file in the deployment's place.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Edit the deployment's TOML with $VISUAL or $EDITOR.
    #[arg(long)]
    pub edit: bool,
    /// Add the all-day events of an iCalendar file as holidays; those that are over go.
    #[arg(long, value_name = "FILE")]
    pub holidays: Option<PathBuf>,
    /// Take the weekly events of an iCalendar file as the hours of lessons.
    #[arg(long, value_name = "FILE")]
    pub lessons: Option<PathBuf>,

    /// An operator's key (a sealed file, or `pkcs11:…`); may be given several times. Without one, only a draft is made.
    #[arg(long = "key")]
    pub keys: Vec<KeyLocation>,
    /// Start over from what is deployed: drop a draft that waits for signatures.
    #[arg(long)]
    pub discard_draft: bool,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// For whom: workstations of which every list that is given says one.
#[derive(Clone, Debug, Args)]
pub struct For {
    /// College codes, or `all`.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub colleges: Vec<SiteId>,
    /// Rooms.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub rooms: Vec<RoomName>,
    /// Words that are true of workstations.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub tags: Vec<Tag>,
    /// Hardware models, as `machines` shows them; may be given several times.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["show", "policy", "edit"])]
    pub models: Vec<String>,
    /// Workstations, by name.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub machines: Vec<MachineId>,
    /// Groups that the deployment names.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub groups: Vec<GroupName>,
    /// Systems.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["show", "policy", "edit"])]
    pub platforms: Vec<Platform>,
}

/// `NAME@VERSION`, or `NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployable {
    /// One release.
    Release(NameAtVersion),
    /// A package.
    Package(PackageName),
}

impl FromStr for Deployable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return text.parse().map(Self::Release);
        }
        text.parse().map(Self::Package).map_err(|error: mirabelle_manifests::NameError| error.to_string())
    }
}

/// A date, or a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The end of this day, by the colleges' clocks.
    EndOf(civil::Date),
    /// This moment.
    At(Instant),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(instant) = text.parse() {
            return Ok(Self::At(instant));
        }
        let date = civil::Date::strptime("%Y-%m-%d", text);
        date.map(Self::EndOf)
            .map_err(|_| "expected a day such as 2026-12-18, or a moment of RFC 3339".to_owned())
    }
}

impl When {
    /// The moment, where clocks are those of `zone`.
    pub fn instant(self, zone: &TimeZone) -> Option<Instant> {
        match self {
            Self::At(instant) => Some(instant),
            Self::EndOf(date) => {
                let midnight = date.tomorrow().ok()?.to_datetime(civil::Time::midnight());
                midnight.to_zoned_datetime(zone.clone()).ok().map(|zoned| zoned.timestamp())
            }
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOf(date) => date.fmt(f),
            Self::At(instant) => instant.fmt(f),
        }
    }
}
