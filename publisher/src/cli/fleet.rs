//! The fleet: which keys speak for nodes, and what machines reported.

use clap::{Args, Subcommand};
use mirabelle_manifests::{Instant, MachineId, SiteId};

use super::ReleaseName;
use crate::key_location::KeyLocation;

/// Where the fleet's state is.
#[derive(Clone, Debug, Args)]
pub struct FleetState {
    /// `embedded`, a file of the repository, or `postgres://user:password@host/database`.
    #[arg(
        long,
        env = "MIRABELLE_FLEET",
        value_name = "ENGINE",
        default_value = "embedded",
        hide_env_values = true
    )]
    pub fleet: String,
}

/// Nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Print the keys that speak for nodes, and those that wait to.
    List(FleetState),
    /// Accept a key as a college's node: compare it with what the node itself says.
    Accept {
        /// The college.
        college: SiteId,
        /// The key's id, or how it begins.
        key: String,
        /// Where the fleet's state is.
        #[command(flatten)]
        state: FleetState,
    },
    /// Take nothing more from a college's node, until a key is accepted again.
    Remove {
        /// The college.
        college: SiteId,
        /// Where the fleet's state is.
        #[command(flatten)]
        state: FleetState,
    },
}

/// Machines.
#[derive(Debug, Args)]
pub struct Machines {
    /// Of this college alone.
    #[arg(long)]
    pub college: Option<SiteId>,
    /// What this machine reported, the newest first; with --college.
    #[arg(requires = "college")]
    pub machine: Option<MachineId>,
    /// Where the fleet's state is.
    #[command(flatten)]
    pub state: FleetState,
}

/// Rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutsCommand {
    /// How far each is, ring by ring.
    List(FleetState),
    /// One of them: how far it is, what failed, and its whole story.
    Show {
        /// The release.
        #[command(flatten)]
        release: ReleaseName,
        /// Where the fleet's state is.
        #[command(flatten)]
        state: FleetState,
    },
    /// Open the next ring of what goes well, and halt what does not, until stopped.
    Watch(Watch),
}

/// Watch rollouts.
#[derive(Debug, Args)]
pub struct Watch {
    /// The brake's key: a sealed file, or `pkcs11:…` on a token.
    #[arg(long)]
    pub brake_key: KeyLocation,
    /// The online key, which makes the brake known.
    #[arg(long)]
    pub key: KeyLocation,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
    /// Look once, and end.
    #[arg(long)]
    pub once: bool,
    /// Where the fleet's state is.
    #[command(flatten)]
    pub state: FleetState,
}

/// What was saved.
#[derive(Debug, Args)]
pub struct Benefit {
    /// Of this college alone.
    #[arg(long)]
    pub college: Option<SiteId>,
    /// Since then: `2026-09-01T00:00:00Z`.
    #[arg(long, value_name = "INSTANT")]
    pub since: Option<Instant>,
    /// What a computer takes that is on and does nothing.
    #[arg(long, value_name = "WATTS", default_value_t = 40)]
    pub watts: u32,
    /// Where the fleet's state is.
    #[command(flatten)]
    pub state: FleetState,
}
