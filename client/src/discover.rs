//! Which node this workstation asks: the one that is set, or one that is found on the network it is plugged into.
//!
//! ```text
//! node = "http://node.college-57001.example:8701/"   that one; where it does not answer, whichever is found
//! node = "discover"                                  whichever is found
//!
//! SRV  _mirabelle._tcp.<search domain>     asked of the network's DNS servers       discover/dns.rs, message.rs
//! PTR  _mirabelle._tcp.local               asked of the link, by multicast          discover/multicast.rs
//!
//! <root>/node.json    {"network": "college-57001.example via 10.57.1.1", "node": "http://10.57.1.2:8701/"}
//! ```
//!
//! What was found is remembered for the network it was found on, and asked first there until it stops answering. On another
//! network, or without the file, one searches again.
//!
//! Threats and the defence for each:
//! - *Anybody on the network can answer*: whatever does is believed as little as any node, in nothing that does not verify; one that
//!   answers with something else is passed over for the next. She can keep news away, as whoever holds the link can, until what is
//!   known expires.
//! - *Answers without end, or malformed*: one datagram each, read strictly; so many candidates, so long (`discover/message.rs`).
//! - *A node on this very machine*, as in tests: it is not looked for elsewhere.

mod dns;
mod message;
mod multicast;
mod network;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

use mirabelle_transfer::Upstream;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::layout::Layout;

/// What nodes are called where services are looked up.
const SERVICE: &str = "_mirabelle._tcp";
const FOUND: &str = "node.json";
/// Candidates of one search: more nodes than a college has.
const MAX_CANDIDATES: usize = 8;
/// A person may be waiting; servers that do not answer are many.
const SEARCHING: Duration = Duration::from_secs(8);
/// Addresses that lead to this machine.
const OWN: [&str; 3] = ["http://127.", "http://localhost", "http://[::1]"];

/// Which node is asked, as the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSetting {
    /// This one.
    At(Upstream),
    /// Whichever is found.
    Discover,
}

/// Why a text names no node.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither `discover` nor the address of a server, such as `http://node.example:8701/`")]
pub struct NodeSettingError(String);

impl FromStr for NodeSetting {
    type Err = NodeSettingError;

    fn from_str(text: &str) -> Result<Self, NodeSettingError> {
        if text == "discover" {
            return Ok(Self::Discover);
        }
        text.parse().map(Self::At).map_err(|_| NodeSettingError(text.to_owned()))
    }
}

impl fmt::Display for NodeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(node) => node.fmt(f),
            Self::Discover => f.write_str("discover"),
        }
    }
}

/// `node.json`
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    network: String,
    node: String,
}

/// Where one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The servers of the network's domain.
    Dns,
    /// The link.
    Multicast,
}

impl Place {
    /// First what somebody set up, then whoever answers.
    pub(crate) const ALL: [Self; 2] = [Self::Dns, Self::Multicast];

    /// The nodes that are found there, in the order in which they should be asked.
    pub(crate) async fn search(self) -> Vec<Upstream> {
        let searching = async {
            match self {
                Self::Dns => dns::search(SERVICE, &network::Resolver::of_this_machine(), random()).await,
                Self::Multicast => multicast::search(SERVICE, &network::interfaces(), random()).await,
            }
        };
        let found = tokio::time::timeout(SEARCHING, searching).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(%error, place = ?self, "nodes could not be looked for");
            Vec::new()
        });
        let mut known = BTreeSet::new();
        let distinct = found.into_iter().filter(|node| known.insert(node.clone())).take(MAX_CANDIDATES);
        distinct.filter_map(|node| node.parse().ok()).collect()
    }
}

/// What the network that this machine is plugged into is called here.
pub(crate) fn network_name() -> String {
    network::name()
}

/// True when another node than the one that is set may be looked for.
pub(crate) fn may_search(setting: &NodeSetting) -> bool {
    match setting {
        NodeSetting::Discover => true,
        NodeSetting::At(node) => !OWN.iter().any(|own| node.to_string().starts_with(own)),
    }
}

/// The node that is asked first: one that was found on this network, or the one that is set.
pub(crate) fn known(layout: &Layout, config: &Config) -> Option<Upstream> {
    let found = || {
        let found: Found = layout.kept(FOUND)?;
        (found.network == network_name()).then(|| found.node.parse().ok())?
    };
    match &config.node {
        setting if !may_search(setting) => match setting {
            NodeSetting::At(node) => Some(node.clone()),
            NodeSetting::Discover => None,
        },
        NodeSetting::At(node) => found().or_else(|| Some(node.clone())),
        NodeSetting::Discover => found(),
    }
}

/// Notes which node has answered: it is asked first on this network. Whoever may not write searches again the next time.
pub(crate) fn note(layout: &Layout, config: &Config, node: &Upstream) {
    let done = if config.node == NodeSetting::At(node.clone()) {
        layout.forget(FOUND)
    } else {
        tracing::info!(%node, "a node was found on this network");
        layout.keep(FOUND, &Found { network: network_name(), node: node.to_string() })
    };
    if let Err(failure) = done {
        tracing::debug!("which node was found could not be kept\n{}", failure.render().trim_end());
    }
}

/// A number that nobody who does not see the question can guess.
fn random() -> u16 {
    // Seeded by the system.
    RandomState::new().build_hasher().finish().to_be_bytes()[..2].try_into().map_or(0, u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_an_address_or_to_be_found() {
        assert_eq!("discover".parse::<NodeSetting>().unwrap(), NodeSetting::Discover);
        let node: NodeSetting = "http://node.example:8701".parse().unwrap();
        assert_eq!(node.to_string(), "http://node.example:8701/");
        assert!("find".parse::<NodeSetting>().is_err());
        assert!(may_search(&node) && may_search(&NodeSetting::Discover));
        assert!(!may_search(&"http://127.0.0.1:8701/".parse().unwrap()));
    }
}
