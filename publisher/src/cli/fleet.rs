//! The fleet: which keys speak for nodes, and what machines reported.

use clap::{Args, Subcommand};
use mirabelle_manifests::{MachineId, SiteId};

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
