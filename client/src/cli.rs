//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mirabelle_fleet::CollegeCode;
use mirabelle_manifests::{Asker, Instant, MachineId, PackageName, RoomName, SiteId, Tag};
use mirabelle_terminal::DocumentKind;

use crate::discover::NodeSetting;

/// Software for this workstation, from the college's node.
#[derive(Debug, Parser)]
#[command(name = "mirabelle", version, max_term_width = 110)]
pub struct Cli {
    /// Where everything is kept. Any directory of one's own works without privileges.
    #[arg(long, global = true, env = "MIRABELLE_ROOT", default_value = "/opt/mirabelle")]
    pub root: PathBuf,
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Wait for another command that is changing something, rather than give up.
    #[arg(long, global = true, hide = true)]
    pub wait: bool,
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
    /// The college's node, or `discover`.
    #[arg(long, global = true, env = "MIRABELLE_NODE")]
    pub node: Option<NodeSetting>,
    /// The college this workstation stands in.
    #[arg(long, global = true, env = "MIRABELLE_COLLEGE")]
    pub college: Option<SiteId>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set this workstation up: its node, its college, the root it trusts.
    Enroll(Enroll),
    /// Learn what is new, without changing anything.
    Refresh,
    /// Search what is approved: names, titles and descriptions, whatever the accents.
    Search {
        /// Words to look for; all of them must be there.
        words: Vec<String>,
    },
    /// Show a package: what it is, its versions, what this workstation has.
    Info {
        /// The package.
        package: PackageName,
    },
    /// Show the ways to a package's release that the node offers, what each costs, and which one would be taken.
    Routes {
        /// The package.
        package: PackageName,
    },
    /// Install packages that are deployed to this college.
    Install {
        /// The packages.
        #[arg(required = true)]
        packages: Vec<PackageName>,
        /// On whose behalf: what she may have is decided by the deployment. The agent says so for whoever asks it.
        #[arg(long, value_enum, default_value = "administrator", hide = true)]
        on_behalf_of: Behalf,
        /// Take over what is on the machine already, and run no installer: refuse if it is not there.
        #[arg(long)]
        adopt: bool,
        /// Show what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove packages.
    Remove {
        /// On whose behalf.
        #[arg(long, value_enum, default_value = "administrator", hide = true)]
        on_behalf_of: Behalf,
        /// The packages.
        #[arg(required = true)]
        packages: Vec<PackageName>,
        /// Show what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Keep a version on purpose until a day, going back to it if a newer one is here; without `--sequence`, keep it no longer.
    Keep {
        /// The package.
        package: PackageName,
        /// On whose behalf.
        #[arg(long, value_enum, default_value = "administrator", hide = true)]
        on_behalf_of: Behalf,
        /// The release; `info` shows which there are.
        #[arg(long, requires = "until")]
        sequence: Option<u64>,
        /// Until when, at most 400 days from now: afterwards the newest comes by itself.
        #[arg(long, requires = "sequence")]
        until: Option<Instant>,
    },
    /// Bring this workstation to what the deployment says, and go on with what was interrupted.
    Update {
        /// Only these packages, and what they require.
        packages: Vec<PackageName>,
        /// From what is here already, without asking the node.
        #[arg(long)]
        offline: bool,
        /// Show what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Fetch what is due, and install nothing yet.
    Prepare,
    /// Finish or take back what a power cut interrupted; without the network.
    Resume {
        /// Also install what is here already and takes a moment: what an evening had left, before anybody logs in.
        #[arg(long)]
        before_login: bool,
    },
    /// Show what is due on this workstation, until when, and what stays as it is.
    Plan {
        /// Ask the node first.
        #[arg(long)]
        refresh: bool,
    },
    /// Look after this workstation until asked to stop: the service.
    Agent,
    /// Show how this workstation stands: what is due, what failed, how the last evening went.
    Status,
    /// Write what helps to find out what is wrong into an archive. It holds no personal data.
    SupportBundle {
        /// The archive, a .tar.zst.
        #[arg(long, default_value = "mirabelle-support.tar.zst")]
        output: PathBuf,
    },
    /// Say why a package is, or is not, what it is here: every line of the deployment and every event on the way.
    Why {
        /// The package.
        package: PackageName,
        /// Of another workstation of this college, by what the deployment says of it: what is installed there is not known here.
        #[arg(long)]
        machine: Option<MachineId>,
        /// The room that it stands in.
        #[arg(long, requires = "machine")]
        room: Option<RoomName>,
        /// Words that are true of it.
        #[arg(long, requires = "machine", value_delimiter = ',')]
        tags: Vec<Tag>,
    },
    /// List what is installed.
    List,
    /// List the generations of this workstation.
    History,
    /// Go back to the generation before.
    Rollback {
        /// Show what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare every installed file with its signed digest.
    Verify,
    /// Fetch and put back what `verify` finds wrong.
    Repair,
    /// Open the store in this desktop's browser, and stay for as long as it is used.
    Store {
        /// Print its address instead of opening a browser.
        #[arg(long)]
        print: bool,
    },
    /// Start an application; what its launchers call.
    Run {
        /// The launcher, or the package.
        name: PackageName,
        /// What to pass to it.
        #[arg(last = true)]
        arguments: Vec<std::ffi::OsString>,
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

/// On whose behalf somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Behalf {
    /// Whoever sits there.
    Anyone,
    /// A teacher.
    Teacher,
    /// Whoever administers the machine.
    Administrator,
}

impl From<Behalf> for Asker {
    fn from(behalf: Behalf) -> Self {
        match behalf {
            Behalf::Anyone => Self::Anyone,
            Behalf::Teacher => Self::Teacher,
            Behalf::Administrator => Self::Administrator,
        }
    }
}

/// Set this workstation up.
#[derive(Debug, Args)]
pub struct Enroll {
    /// The repository's root metadata, brought here by a way that is trusted.
    #[arg(long)]
    pub trusted_root: PathBuf,
    /// The college's code, as `mirabelle-node college-code` shows it: the agent then reports what this machine is and does.
    #[arg(long)]
    pub code: Option<CollegeCode>,
    /// The workstation's name; by default the one it gives itself.
    #[arg(long)]
    pub machine: Option<MachineId>,
    /// The room it stands in.
    #[arg(long)]
    pub room: Option<RoomName>,
    /// Words that are true of it, for the deployment.
    #[arg(long, value_delimiter = ',')]
    pub tags: Vec<Tag>,
}
