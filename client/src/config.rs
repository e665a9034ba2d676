//! The workstation's configuration: default < `client.toml` < environment < flag.
//!
//! ```toml
//! node = "http://node.college-57001.example:8701/"     # or "discover" (`discover.rs`)
//! college = "57001"
//! machine = "b12-03"                    # its name, for the deployment
//! room = "B12"                          # optional
//! tags = ["exam"]                       # optional
//! disk-reserve = "2 GiB"                # stays free whatever is installed
//! system-root = "/"                     # where the settings of releases are written
//!
//! [agent]
//! refresh-every = "15 min"
//! power-off = ["systemctl", "poweroff", "--check-inhibitors=no"]      # how the machine is switched off
//! inhibit = ["systemd-inhibit", …]      # what holds shutdowns off while it runs
//! idle = ["…"]                          # prints the seconds since somebody touched the machine
//! teachers = ["teachers"]               # groups of the system whose members are teachers
//! store-port = 8702                     # of the store, on the loopback; 0 takes a free one
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::{Machine, MachineId, Platform, RoomName, SiteId, Tag};
use mirabelle_terminal::{ByteCount, Failure, Layer, Setting, bytes, read_config};
use serde::{Deserialize, Serialize};

use crate::cli::Settings;
use crate::discover::NodeSetting;
use crate::layout::Layout;
use crate::platform;

/// What stays free, so that people can go on working: their documents, and the system's own needs; a tenth of a disk
/// that is small.
const DISK_RESERVE: u64 = 2 << 30;
/// How often the node is asked for what is new.
const REFRESH_EVERY: Duration = Duration::from_mins(15);

const STORE_PORT: u16 = 8702;

/// A thousand workstations that ask more often than this would be an attack on their node.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// `client.toml` as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) college: Option<SiteId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<MachineId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<RoomName>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) tags: BTreeSet<Tag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_reserve: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) system_root: Option<PathBuf>,
    #[serde(skip_serializing_if = "AgentConfig::is_default")]
    pub(crate) agent: AgentConfig,
}

/// `[agent]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct AgentConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_every: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) power_off: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inhibit: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) teachers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_port: Option<u16>,
}

impl AgentConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Where the store is, on the loopback. The provider knows the address that leads back to it, so it is the same everywhere.
    pub(crate) fn store_port(&self) -> u16 {
        self.store_port.unwrap_or(STORE_PORT)
    }

    /// How often the node is asked for what is new.
    pub(crate) fn refresh_every(&self) -> Result<Duration, Failure> {
        let Some(text) = &self.refresh_every else { return Ok(REFRESH_EVERY) };
        let read = text.parse::<SignedDuration>().ok().and_then(|every| Duration::try_from(every).ok());
        read.filter(|every| *every >= SHORTEST_REFRESH).ok_or_else(|| {
            Failure::usage(format!("`refresh-every`: `{text}` is not a time to wait")).hint("write `15 min`")
        })
    }
}

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) node: NodeSetting,
    pub(crate) machine: Machine,
    /// Bytes that stay free; by default [`DISK_RESERVE`], or a tenth of a small disk.
    pub(crate) disk_reserve: Option<u64>,
    pub(crate) system_root: PathBuf,
    pub(crate) agent: AgentConfig,
    node_from: Layer,
    college_from: Layer,
    reserve_from: Layer,
}

impl Config {
    pub(crate) fn load(layout: &Layout, settings: &Settings) -> Result<Self, Failure> {
        let path = layout.config();
        let file: ConfigFile = read_config(&path)?;
        let missing = |name: &str| {
            Failure::usage(format!("`{name}` is not set"))
                .hint(format!("run `mirabelle enroll`, or set it in `{}`", path.display()))
        };
        let (node, node_from) = match (&settings.node, file.node) {
            (Some(node), _) => (node.clone(), Layer::Command),
            (None, Some(text)) => {
                let node = text.parse::<NodeSetting>();
                (node.map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))?, Layer::File)
            }
            (None, None) => return Err(missing("node")),
        };
        let (college, college_from) = match (&settings.college, file.college) {
            (Some(college), _) => (college.clone(), Layer::Command),
            (None, Some(college)) => (college, Layer::File),
            (None, None) => return Err(missing("college")),
        };
        let reserve_from = if file.disk_reserve.is_some() { Layer::File } else { Layer::Default };
        let disk_reserve = match &file.disk_reserve {
            None => None,
            Some(text) => {
                let count = text.parse::<ByteCount>();
                let wrong = |error| Failure::usage(format!("`disk-reserve`: {error}"));
                Some(count.map_err(wrong)?.0)
            }
        };
        let machine = Machine {
            college,
            id: file.machine.map_or_else(own_name, Ok)?,
            model: platform::model(),
            platform: Platform::current(),
            room: file.room,
            tags: file.tags,
        };
        Ok(Self {
            node,
            machine,
            disk_reserve,
            system_root: file.system_root.unwrap_or_else(|| PathBuf::from("/")),
            agent: file.agent,
            node_from,
            college_from,
            reserve_from,
        })
    }

    /// Bytes that stay free on a disk of `total` bytes.
    pub(crate) fn reserve(&self, total: u64) -> u64 {
        self.disk_reserve.unwrap_or_else(|| DISK_RESERVE.min(total / 10))
    }

    /// Name, value and origin of each setting.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let Machine { college, id, room, tags, .. } = &self.machine;
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        let room = room.as_ref().map_or(String::new(), ToString::to_string);
        let file = |name, value| Setting { name, value, from: Layer::File };
        vec![
            Setting { name: "node", value: self.node.to_string(), from: self.node_from },
            Setting { name: "college", value: college.to_string(), from: self.college_from },
            file("machine", id.to_string()),
            file("room", room),
            file("tags", tags.join(" ")),
            Setting {
                name: "disk-reserve",
                value: self
                    .disk_reserve
                    .map_or_else(|| format!("{}, or a tenth of the disk", bytes(DISK_RESERVE)), bytes),
                from: self.reserve_from,
            },
        ]
    }
}

/// The name that the machine gives itself, as far as it is a name here.
pub(crate) fn own_name() -> Result<MachineId, Failure> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.parse().map_err(|error| {
        Failure::usage(format!("this machine's name cannot be used: {error}")).hint("set `machine`")
    })
}
