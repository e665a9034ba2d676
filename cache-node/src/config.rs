//! The node's configuration: default < `node.toml` < environment < flag.
//!
//! ```toml
//! college = "57001"
//! upstreams = ["http://origin.example:8700/"]     # in order of preference; another node will do
//! listen = "0.0.0.0:8701"
//! sync-every = "5 min"
//! wake-to = "255.255.255.255:9"                  # where the packets go that wake workstations
//! disk-quota = "400 GiB"                         # what everything below the node's directory may come to; no limit, if not given
//! disk-reserve = "1 GiB"                         # what is left to others; 2 % of the disk, up to 1 GiB, if not given
//! scrub-every = "168 h"                          # how long reading through everything that is held takes
//! scrub-rate = "8 MiB"                           # bytes read a second, at most
//! keep-unassigned = "168 h"                      # how long a release stays that the college is not owed any more
//! [link]                                         # what may be fetched when: `config/link.rs`
//! ```

mod link;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::SiteId;
use mirabelle_terminal::{ByteCount, Failure, Layer, Setting, read_config};
use mirabelle_transfer::Upstream;
use serde::{Deserialize, Serialize};

pub(crate) use self::link::{LinkRule, LinkTable};
use crate::cli::Settings;
use crate::disk::Disk;
use crate::wake_ups::BROADCAST;

const DEFAULT_LISTEN: &str = "127.0.0.1:8701";
const DEFAULT_SYNC_EVERY: &str = "5 min";
/// A week: an assignment that is taken back within it costs nothing over the WAN.
const DEFAULT_KEEP_UNASSIGNED: &str = "168 h";
/// Bits change slowly; a disk that goes bad is noticed within a week.
const DEFAULT_SCRUB_EVERY: &str = "168 h";
/// Bytes a second: a tenth of what a disk with heads reads, so that workstations do not notice.
const DEFAULT_SCRUB_RATE: &str = "8 MiB";
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
    pub(crate) wake_to: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_every: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_quota: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_reserve: Option<String>,
    pub(crate) link: Option<LinkTable>,
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
    pub(crate) wake_to: SocketAddr,
    /// Bytes that everything below the node's directory may come to.
    pub(crate) disk_quota: Option<u64>,
    /// Bytes of the file system that are left free.
    pub(crate) disk_reserve: Option<u64>,
    /// How long reading through everything that is held takes.
    pub(crate) scrub_every: Duration,
    /// Bytes a second that it reads, at most.
    pub(crate) scrub_rate: u64,
    /// What may be fetched when; without it, everything always.
    pub(crate) link: Option<LinkTable>,
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

        let (wake_to, layer) =
            choose(None, file.wake_to, Some(BROADCAST)).ok_or_else(|| missing("wake-to"))?;
        from("wake-to", wake_to.to_string(), layer);

        let quota = choose(settings.disk_quota.clone(), file.disk_quota, None);
        if let Some((text, layer)) = &quota {
            from("disk-quota", text.clone(), *layer);
        }
        let disk_quota = quota.map(|(text, _)| byte_count(&text)).transpose()?;
        let reserve = choose(settings.disk_reserve.clone(), file.disk_reserve, None);
        if let Some((text, layer)) = &reserve {
            from("disk-reserve", text.clone(), *layer);
        }
        let disk_reserve = reserve.map(|(text, _)| byte_count(&text)).transpose()?;

        let default = Some(DEFAULT_SCRUB_EVERY.to_owned());
        let (text, layer) = choose(settings.scrub_every.clone(), file.scrub_every, default)
            .ok_or_else(|| missing("scrub-every"))?;
        let scrub_every = duration(&text)?;
        from("scrub-every", text, layer);
        let default = Some(DEFAULT_SCRUB_RATE.to_owned());
        let (text, layer) = choose(None, file.scrub_rate, default).ok_or_else(|| missing("scrub-rate"))?;
        let scrub_rate = byte_count(&text)?;
        from("scrub-rate", text, layer);
        let layer = if file.link.is_some() { Layer::File } else { Layer::Default };
        let shown = match &file.link {
            Some(table) => serde_json::to_string(table).unwrap_or_default(),
            None => "no limits".to_owned(),
        };
        from("link", shown, layer);
        let link = file.link;
        Ok(Self {
            college,
            upstreams,
            listen,
            sync_every,
            keep_unassigned,
            wake_to,
            disk_quota,
            disk_reserve,
            scrub_every,
            scrub_rate,
            link,
            origins,
        })
    }

    /// What the node in `root` may use of its disk.
    pub(crate) fn disk(&self, root: &Path) -> Disk {
        Disk::new(root, self.disk_quota, self.disk_reserve)
    }

    /// The `[link]` table of the file as it is now.
    pub(crate) fn link_of(root: &Path) -> Result<Option<LinkTable>, Failure> {
        Ok(read_config::<ConfigFile>(&root.join("node.toml"))?.link)
    }
}

/// The value of the strongest layer that has one.
fn choose<T>(given: Option<T>, file: Option<T>, default: Option<T>) -> Option<(T, Layer)> {
    given
        .map(|value| (value, Layer::Command))
        .or_else(|| file.map(|value| (value, Layer::File)))
        .or_else(|| default.map(|value| (value, Layer::Default)))
}

fn byte_count(text: &str) -> Result<u64, Failure> {
    text.parse::<ByteCount>().map(|count| count.0).map_err(|error| Failure::usage(error.to_string()))
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
