//! The node's configuration: default < `node.toml` < environment < flag.
//!
//! ```toml
//! college = "57001"
//! upstreams = ["http://origin.example:8700/"]     # in order of preference; another node will do
//! listen = "0.0.0.0:8701"
//! sync-every = "5 min"
//! wake-to = ["255.255.255.255", "10.57.2.255:9"] # where the packets go that wake workstations: each of their networks
//! discovery = true                               # answer who looks for a node on this network (multicast DNS)
//! neighbours = false                             # ask other nodes of this network too, after the upstreams
//! keep-unassigned = "168 h"                      # how long a release stays that the college is not owed any more
//! legacy-quota = "20 GiB"                        # for files of legacy repositories (`[[legacy]]`: `legacy/declared.rs`)
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::SiteId;
use mirabelle_terminal::{ByteCount, Failure, Layer, Setting, bytes, read_config};
use mirabelle_transfer::Upstream;
use serde::{Deserialize, Serialize};

use crate::cli::Settings;
use crate::lan::WakeTo;
use crate::legacy::{Declared, DeclaredFile};

const DEFAULT_LISTEN: &str = "127.0.0.1:8701";
const DEFAULT_SYNC_EVERY: &str = "5 min";
/// A week: an assignment that is taken back within it costs nothing over the WAN.
const DEFAULT_KEEP_UNASSIGNED: &str = "168 h";
/// The packages that a school's machines have installed, and their lists.
const DEFAULT_LEGACY_QUOTA: u64 = 20 << 30;
/// Looking more often than this helps nobody.
const SHORTEST_SYNC: Duration = Duration::from_millis(100);

/// `node.toml` as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) college: Option<SiteId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) upstreams: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sync_every: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_unassigned: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wake_to: Option<OneOrMore>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) discovery: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neighbours: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_quota: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) legacy: Vec<DeclaredFile>,
}

/// An address, or a list of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// What is in force.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) college: SiteId,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) listen: SocketAddr,
    pub(crate) sync_every: Duration,
    /// How long a release stays after the college is no longer owed it.
    pub(crate) keep_unassigned: Duration,
    /// Where the packets go that wake workstations.
    pub(crate) wake_to: WakeTo,
    /// Whether who looks for a node on this network is answered.
    pub(crate) discovery: bool,
    /// Whether other nodes of this network are asked too.
    pub(crate) neighbours: bool,
    /// Bytes that files of legacy repositories may take.
    pub(crate) legacy_quota: u64,
    /// The legacy repositories.
    pub(crate) legacy: Vec<Declared>,
    /// Name, value and origin of each setting, for `config`.
    pub(crate) origins: Vec<Setting>,
}

impl Config {
    pub(crate) fn load(root: &Path, settings: &Settings) -> Result<Self, Failure> {
        let path = root.join("node.toml");
        let file: ConfigFile = read_config(&path)?;
        let missing = |name: &str| {
            Failure::usage(format!("`{name}` is not set"))
                .hint(format!("run `mirabelle-node init`, or set it in `{}`", path.display()))
        };
        let mut origins = Vec::new();
        let mut from = |name, value: String, layer| origins.push(Setting { name, value, from: layer });

        let (college, layer) =
            choose(settings.college.clone(), file.college, None).ok_or_else(|| missing("college"))?;
        from("college", college.to_string(), layer);

        let given = (!settings.upstreams.is_empty()).then(|| settings.upstreams.clone());
        let written: Result<Vec<Upstream>, _> = file.upstreams.iter().map(|text| text.parse()).collect();
        let written = written.map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))?;
        let written = (!written.is_empty()).then_some(written);
        let (upstreams, layer) = choose(given, written, None).ok_or_else(|| missing("upstreams"))?;
        let shown: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
        from("upstreams", shown.join(" "), layer);

        let default = DEFAULT_LISTEN.parse().ok();
        let (listen, layer) =
            choose(settings.listen, file.listen, default).ok_or_else(|| missing("listen"))?;
        from("listen", listen.to_string(), layer);

        let default = Some(DEFAULT_SYNC_EVERY.to_owned());
        let (text, layer) = choose(settings.sync_every.clone(), file.sync_every, default)
            .ok_or_else(|| missing("sync-every"))?;
        let sync_every = duration(&text)?;
        if sync_every < SHORTEST_SYNC {
            return Err(not_a_time(&text));
        }
        from("sync-every", text, layer);

        let default = Some(DEFAULT_KEEP_UNASSIGNED.to_owned());
        let (text, layer) = choose(settings.keep_unassigned.clone(), file.keep_unassigned, default)
            .ok_or_else(|| missing("keep-unassigned"))?;
        let keep_unassigned = duration(&text)?;
        from("keep-unassigned", text, layer);

        let written = file.wake_to.map(|written| WakeTo::parse(&written.into_vec())).transpose();
        let written = written.map_err(|error| Failure::usage(format!("`wake-to`: {error}")))?;
        let (wake_to, layer) =
            choose(None, written, Some(WakeTo::own_network())).ok_or_else(|| missing("wake-to"))?;
        from("wake-to", wake_to.to_string(), layer);
        let (discovery, layer) =
            choose(None, file.discovery, Some(true)).ok_or_else(|| missing("discovery"))?;
        from("discovery", discovery.to_string(), layer);
        let (neighbours, layer) =
            choose(None, file.neighbours, Some(false)).ok_or_else(|| missing("neighbours"))?;
        from("neighbours", neighbours.to_string(), layer);
        let written = file.legacy_quota.map(|text| text.parse::<ByteCount>()).transpose();
        let written = written.map_err(|error| Failure::usage(format!("`legacy-quota`: {error}")))?;
        let written = written.map(|count| count.0);
        let (legacy_quota, layer) =
            choose(None, written, Some(DEFAULT_LEGACY_QUOTA)).ok_or_else(|| missing("legacy-quota"))?;
        from("legacy-quota", bytes(legacy_quota), layer);
        let legacy = Declared::read(file.legacy)
            .map_err(|error| Failure::usage(format!("`{}`: {error}", path.display())))?;
        for declared in &legacy {
            from("legacy", format!("{} {}", declared.name, declared.upstream), Layer::File);
        }
        Ok(Self {
            college,
            upstreams,
            listen,
            sync_every,
            keep_unassigned,
            wake_to,
            discovery,
            neighbours,
            legacy_quota,
            legacy,
            origins,
        })
    }
}

/// The value of the strongest layer that has one.
fn choose<T>(given: Option<T>, file: Option<T>, default: Option<T>) -> Option<(T, Layer)> {
    given
        .map(|value| (value, Layer::Command))
        .or_else(|| file.map(|value| (value, Layer::File)))
        .or_else(|| default.map(|value| (value, Layer::Default)))
}

fn duration(text: &str) -> Result<Duration, Failure> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| not_a_time(text))
}

fn not_a_time(text: &str) -> Failure {
    Failure::usage(format!("`{text}` is not a time to wait")).hint("write `5 min` or `30 s`")
}
