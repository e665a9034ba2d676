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
//! disk-quota = "400 GiB"                         # what everything below the node's directory may come to; no limit, if not given
//! disk-reserve = "1 GiB"                         # what is left to others; 2 % of the disk, up to 1 GiB, if not given
//! memory-cache = "64 MiB"                        # small files that are served from memory
//! scrub-every = "168 h"                          # how long reading through everything that is held takes
//! scrub-rate = "8 MiB"                           # bytes read a second, at most
//! legacy-quota = "20 GiB"                        # for files of legacy repositories (`[[legacy]]`: `legacy/declared.rs`)
//! [link]                                         # what may be fetched when: `config/link.rs`
//! [tls]                                          # HTTPS instead of HTTP
//! certificate = "/etc/mirabelle/node.pem"
//! key = "/etc/mirabelle/node.key"
//! ```

mod link;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_manifests::SiteId;
use mirabelle_terminal::{ByteCount, Failure, Layer, Setting, bytes, read_config};
use mirabelle_transfer::Upstream;
use serde::{Deserialize, Serialize};

pub(crate) use self::link::{LinkRule, LinkTable};
use crate::cli::Settings;
use crate::disk::Disk;
use crate::lan::WakeTo;
use crate::legacy::{Declared, DeclaredFile};

const DEFAULT_LISTEN: &str = "127.0.0.1:8701";
const DEFAULT_SYNC_EVERY: &str = "5 min";
/// A week: an assignment that is taken back within it costs nothing over the WAN.
const DEFAULT_KEEP_UNASSIGNED: &str = "168 h";
/// The small files that a college's workstations ask for on the same day.
const DEFAULT_MEMORY_CACHE: u64 = 64 << 20;
/// Bits change slowly; a disk that goes bad is noticed within a week.
const DEFAULT_SCRUB_EVERY: &str = "168 h";
/// Bytes a second: a tenth of what a disk with heads reads, so that workstations do not notice.
const DEFAULT_SCRUB_RATE: u64 = 8 << 20;
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
    pub(crate) disk_quota: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_reserve: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_cache: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_every: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scrub_rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_quota: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<LinkTable>,
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

/// The files of a certificate, with those that vouch for it, and of its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsTable {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
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
    /// Bytes that everything below the node's directory may come to.
    pub(crate) disk_quota: Option<u64>,
    /// Bytes of the file system that are left free.
    pub(crate) disk_reserve: Option<u64>,
    /// Bytes of small files that are kept in memory.
    pub(crate) memory_cache: u64,
    /// How long reading through everything that is held takes.
    pub(crate) scrub_every: Duration,
    /// Bytes a second that it reads, at most.
    pub(crate) scrub_rate: u64,
    /// Bytes that files of legacy repositories may take.
    pub(crate) legacy_quota: u64,
    /// The legacy repositories.
    pub(crate) legacy: Vec<Declared>,
    /// What TLS is spoken with; plain HTTP without it.
    pub(crate) tls: Option<TlsTable>,
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
        let in_file =
            |error: &dyn std::fmt::Display| Failure::usage(format!("`{}`: {error}", path.display()));
        let mut layers = Layers::default();
        let given = settings.clone();

        let college = layers.of("college", given.college, file.college, ToString::to_string);
        let college = college.ok_or_else(|| missing("college"))?;
        let written: Result<Vec<Upstream>, _> = file.upstreams.iter().map(|text| text.parse()).collect();
        let written = written.map_err(|error| in_file(&error))?;
        let some = |upstreams: Vec<Upstream>| (!upstreams.is_empty()).then_some(upstreams);
        let shown = |upstreams: &Vec<Upstream>| {
            upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let upstreams = layers.of("upstreams", some(given.upstreams), some(written), shown);
        let upstreams = upstreams.ok_or_else(|| missing("upstreams"))?;
        let listen = layers.of("listen", given.listen, file.listen, ToString::to_string);
        let listen = match listen {
            Some(listen) => listen,
            None => layers.by_default("listen", DEFAULT_LISTEN).parse().map_err(|error| in_file(&error))?,
        };

        let sync_every =
            layers.duration("sync-every", given.sync_every, file.sync_every, DEFAULT_SYNC_EVERY)?;
        if sync_every < SHORTEST_SYNC {
            return Err(not_a_time(&format!("{sync_every:?}")));
        }
        let keep_unassigned = layers.duration(
            "keep-unassigned",
            given.keep_unassigned,
            file.keep_unassigned,
            DEFAULT_KEEP_UNASSIGNED,
        )?;
        let scrub_every =
            layers.duration("scrub-every", given.scrub_every, file.scrub_every, DEFAULT_SCRUB_EVERY)?;

        let disk_quota = layers.bytes("disk-quota", given.disk_quota, file.disk_quota)?;
        let disk_reserve = layers.bytes("disk-reserve", given.disk_reserve, file.disk_reserve)?;
        let memory_cache =
            layers.bytes_or("memory-cache", given.memory_cache, file.memory_cache, DEFAULT_MEMORY_CACHE)?;
        let scrub_rate = layers.bytes_or("scrub-rate", None, file.scrub_rate, DEFAULT_SCRUB_RATE)?;
        let legacy_quota = layers.bytes_or("legacy-quota", None, file.legacy_quota, DEFAULT_LEGACY_QUOTA)?;

        let written = file.wake_to.map(|written| WakeTo::parse(&written.into_vec())).transpose();
        let written = written.map_err(|error| Failure::usage(format!("`wake-to`: {error}")))?;
        let wake_to = layers.or("wake-to", written, WakeTo::own_network(), ToString::to_string);
        let discovery = layers.or("discovery", file.discovery, true, ToString::to_string);
        let neighbours = layers.or("neighbours", file.neighbours, false, ToString::to_string);
        let legacy = Declared::read(file.legacy).map_err(|error| in_file(&error))?;
        for declared in &legacy {
            let _ = layers.of("legacy", None, Some(declared), |declared| {
                format!("{} {}", declared.name, declared.upstream)
            });
        }
        let tls = layers.of("tls", None, file.tls, |tls: &TlsTable| tls.certificate.display().to_string());
        let shown = |table: &LinkTable| serde_json::to_string(table).unwrap_or_default();
        let link = layers.of("link", None, file.link, shown);
        if link.is_none() {
            layers.by_default("link", "no limits");
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
            disk_quota,
            disk_reserve,
            memory_cache,
            scrub_every,
            scrub_rate,
            legacy_quota,
            legacy,
            tls,
            link,
            origins: layers.origins,
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

/// The layers of each setting, and which one won.
#[derive(Default)]
struct Layers {
    origins: Vec<Setting>,
}

impl Layers {
    /// The value of the strongest layer that has one.
    fn of<T>(
        &mut self,
        name: &'static str,
        given: Option<T>,
        file: Option<T>,
        shown: impl Fn(&T) -> String,
    ) -> Option<T> {
        let given = given.map(|value| (value, Layer::Command));
        let (value, from) = given.or_else(|| file.map(|value| (value, Layer::File)))?;
        self.origins.push(Setting { name, value: shown(&value), from });
        Some(value)
    }

    fn or<T>(&mut self, name: &'static str, file: Option<T>, default: T, shown: impl Fn(&T) -> String) -> T {
        self.of(name, None, file, &shown).unwrap_or_else(|| {
            self.by_default(name, &shown(&default));
            default
        })
    }

    /// Takes note that a setting has its default.
    fn by_default<'a>(&mut self, name: &'static str, shown: &'a str) -> &'a str {
        self.origins.push(Setting { name, value: shown.to_owned(), from: Layer::Default });
        shown
    }

    fn duration(
        &mut self,
        name: &'static str,
        given: Option<String>,
        file: Option<String>,
        default: &str,
    ) -> Result<Duration, Failure> {
        match self.of(name, given, file, Clone::clone) {
            Some(text) => duration(&text),
            None => duration(self.by_default(name, default)),
        }
    }

    fn bytes(
        &mut self,
        name: &'static str,
        given: Option<String>,
        file: Option<String>,
    ) -> Result<Option<u64>, Failure> {
        let text = self.of(name, given, file, Clone::clone);
        let count = text.map(|text| text.parse::<ByteCount>()).transpose();
        let count = count.map_err(|error| Failure::usage(format!("`{name}`: {error}")))?;
        Ok(count.map(|count| count.0))
    }

    fn bytes_or(
        &mut self,
        name: &'static str,
        given: Option<String>,
        file: Option<String>,
        default: u64,
    ) -> Result<u64, Failure> {
        let given = self.bytes(name, given, file)?;
        Ok(given.unwrap_or_else(|| {
            self.by_default(name, &bytes(default));
            default
        }))
    }
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
