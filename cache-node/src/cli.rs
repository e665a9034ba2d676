//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;
use mirabelle_manifests::{Enrolment, PackageName, SiteId, Version};
use mirabelle_terminal::DocumentKind;
use mirabelle_transfer::Upstream;

/// The caching node of a college: holds the software its workstations need, and serves it to them.
#[derive(Debug, Parser)]
#[command(name = "mirabelle-node", version, max_term_width = 110)]
pub struct Cli {
    /// The node's directory.
    #[arg(long, global = true, env = "MIRABELLE_NODE_ROOT", default_value = "/var/lib/mirabelle-node")]
    pub root: PathBuf,
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Settings that come before those of the configuration file.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Settings that come before those of the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// The college this node stands in.
    #[arg(long, global = true, env = "MIRABELLE_COLLEGE")]
    pub college: Option<SiteId>,
    /// Where to mirror from, in order of preference; may be given several times.
    #[arg(long = "upstream", global = true, env = "MIRABELLE_UPSTREAM", value_delimiter = ',')]
    pub upstreams: Vec<Upstream>,
    /// The address to serve on; port 0 takes a free one.
    #[arg(long, global = true, env = "MIRABELLE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How long to wait between two looks at the upstream: `5 min`.
    #[arg(long, global = true, env = "MIRABELLE_SYNC_EVERY")]
    pub sync_every: Option<String>,
    /// How long a release stays after the college is no longer owed it: `168 h`.
    #[arg(long, global = true, env = "MIRABELLE_KEEP_UNASSIGNED")]
    pub keep_unassigned: Option<String>,
    /// How long reading through everything that is held takes: `168 h`.
    #[arg(long, global = true, env = "MIRABELLE_SCRUB_EVERY")]
    pub scrub_every: Option<String>,
    /// What everything below the node's directory may come to: `400 GiB`.
    #[arg(long, global = true, env = "MIRABELLE_DISK_QUOTA")]
    pub disk_quota: Option<String>,
    /// Small files that are served from memory: `64 MiB`.
    #[arg(long, global = true, env = "MIRABELLE_MEMORY_CACHE")]
    pub memory_cache: Option<String>,
    /// What is left to others on the disk: `1 GiB`.
    #[arg(long, global = true, env = "MIRABELLE_DISK_RESERVE")]
    pub disk_reserve: Option<String>,
}

/// Whom a new node trusts.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Whom {
    /// The repository's root metadata, brought here by a way that is trusted; with --college and --upstream.
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// The code that `mirabelle-publisher enrolment-code` printed.
    #[arg(long)]
    pub code: Option<Enrolment>,
    /// A file with such a code.
    #[arg(long, value_name = "FILE")]
    pub code_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set the node up: its college, its upstream, the root it trusts. Without an option the code is the systemd credential
    /// `enrolment`, or else `MIRABELLE_ENROLMENT`.
    Init(Whom),
    /// Mirror and serve, until asked to stop. A node that is not set up, and has a code as `init` would, sets itself up first.
    Run,
    /// Ask the node that runs on this machine to stop in order, and wait until it has ended with what it still sends.
    Drain {
        /// How long to wait for it: `30 s`.
        #[arg(long, default_value = "2 min")]
        timeout: SignedDuration,
    },
    /// Mirror once, then end.
    Sync {
        /// Say what would be fetched, and fetch nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the ways to a release that the upstream offers, what each costs, and which one is taken.
    Routes {
        /// The package.
        package: PackageName,
        /// The version; the one that is deployed here, if not given.
        #[arg(long, value_name = "VERSION")]
        release: Option<Version>,
        /// Suppose that only this version is held, or `none`; what is held, if not given.
        #[arg(long, value_name = "VERSION")]
        from: Option<String>,
    },
    /// Say what the node holds, since when, and how fresh it is.
    Status,
    /// Say what the link does and why: rates, the bytes of the day, whether it gives way; and the last 24 hours.
    Link,
    /// Look the node over: room, alarms, upstreams, link, what is still to come. Exits with 1 when something needs a person.
    Doctor,
    /// Print the college's code: workstations that are given it report what they are and do.
    CollegeCode,
    /// Read everything the node holds, and say what is wrong.
    #[command(alias = "verify")]
    Fsck {
        /// Set aside what is wrong, to be fetched again, and remove what dead processes left.
        #[arg(long)]
        repair: bool,
    },
    /// Remove what the college is not owed any more.
    Gc {
        /// Say what would go, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write what the node serves to a directory, such as a USB stick's: for another node, or any static server.
    Export {
        /// The directory; what an earlier export left there is brought up to date.
        directory: PathBuf,
    },
    /// Fill the node from a directory: an export's, or a copy of an origin's published tree. Verified like anything else.
    Import {
        /// The directory.
        directory: PathBuf,
    },
    /// Show the configuration and where each value comes from, or check it.
    Config {
        /// Say only whether it can be used.
        #[arg(long)]
        check: bool,
    },
    /// Print the man page or shell completions.
    Print {
        /// Which.
        kind: DocumentKind,
    },
}
