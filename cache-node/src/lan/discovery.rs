//! Being found on the college's network by whoever looks for a node, and finding neighbours there: DNS-SD over multicast DNS (RFC
//! 6762, 6763).
//!
//! ```text
//! _mirabelle._tcp.local.                         PTR   Mirabelle 57001._mirabelle._tcp.local.
//! Mirabelle 57001._mirabelle._tcp.local.         SRV   0 0 8701 mirabelle-<host>.local.
//!                                                TXT   v=1  college=57001  path=/  node=<who it is>
//! mirabelle-<host>.local.                        A, AAAA
//! ```
//!
//! A thread of the library answers; it ends with the announcement. A node that listens on loopback only is found by nobody, and says
//! nothing.
//!
//! Threats and the defence for each:
//! - *A neighbour that is none*: it is an upstream like any other, asked after those that are configured, and believed in nothing that
//!   does not verify.
//! - *Many of them*: [`MAX_NEIGHBOURS`]; the others are passed over.
//! - *Whoever listens on the network* learns that a node is there, and of which college: what its clients' requests say too.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use mirabelle_manifests::{Digest, SiteId};
use mirabelle_transfer::Upstream;

/// What nodes are called where services are looked up.
const SERVICE: &str = "_mirabelle._tcp.local.";
/// What the path and the other members of TXT mean.
const PROTOCOL: &str = "1";
/// Neighbours that are asked.
const MAX_NEIGHBOURS: usize = 8;
/// The longest path of a neighbour that is looked at.
const MAX_PATH_BYTES: usize = 200;

/// Why the node cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS cannot be answered")]
pub(crate) struct DiscoveryError(#[from] mdns_sd::Error);

/// Answers who looks for a node, until it is dropped.
pub(crate) struct Announcement {
    daemon: ServiceDaemon,
    node: String,
}

impl Announcement {
    /// Begins to answer for a node that listens on `address`; `None` for one that nobody else can reach. `node` tells it from
    /// others: a name that stays the same.
    pub(crate) fn begin(
        address: SocketAddr,
        college: &SiteId,
        node: &str,
        host: &str,
    ) -> Result<Option<Self>, DiscoveryError> {
        if address.ip().is_loopback() {
            return Ok(None);
        }
        let node = Digest::of(node.as_bytes()).short();
        let txt = HashMap::from([
            ("v".to_owned(), PROTOCOL.to_owned()),
            ("college".to_owned(), college.to_string()),
            ("path".to_owned(), "/".to_owned()),
            ("node".to_owned(), node.clone()),
        ]);
        let host = format!("mirabelle-{}.local.", host_label(host));
        let name = format!("Mirabelle {college}");
        let service = if address.ip().is_unspecified() {
            ServiceInfo::new(SERVICE, &name, &host, (), address.port(), txt)?.enable_addr_auto()
        } else {
            ServiceInfo::new(SERVICE, &name, &host, address.ip(), address.port(), txt)?
        };
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        daemon.register(service)?;
        tracing::info!(port = address.port(), name, "the node can be found by multicast DNS");
        Ok(Some(Self { daemon, node }))
    }

    /// Begins to look for neighbours.
    pub(crate) fn neighbours(&self) -> Result<Neighbours, DiscoveryError> {
        let events = self.daemon.browse(SERVICE)?;
        let neighbours = Neighbours::default();
        let (found, own) = (neighbours.found.clone(), self.node.clone());
        // It ends when the daemon does, and with it the channel.
        std::thread::spawn(move || {
            while let Ok(event) = events.recv() {
                note(&mut lock(&found), event, &own);
            }
        });
        Ok(neighbours)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // It says goodbye, so that nobody is sent here in vain.
        if let Ok(ended) = self.daemon.shutdown() {
            let _ = ended.recv_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// The neighbours that were found, and are still there.
#[derive(Clone, Default)]
pub(crate) struct Neighbours {
    found: Arc<Mutex<BTreeMap<String, Upstream>>>,
}

impl Neighbours {
    /// They, in the order of their names.
    pub(crate) fn upstreams(&self) -> Vec<Upstream> {
        lock(&self.found).values().cloned().collect()
    }
}

fn lock(found: &Mutex<BTreeMap<String, Upstream>>) -> MutexGuard<'_, BTreeMap<String, Upstream>> {
    // Each change is whole before anything can panic.
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(found: &mut BTreeMap<String, Upstream>, event: ServiceEvent, own: &str) {
    match event {
        ServiceEvent::ServiceResolved(service) => {
            let name = service.get_fullname().to_owned();
            let Some(upstream) = upstream_of(&service, own) else { return };
            if found.len() >= MAX_NEIGHBOURS && !found.contains_key(&name) {
                tracing::debug!(name, "one neighbour too many is passed over");
            } else if found.insert(name, upstream.clone()).as_ref() != Some(&upstream) {
                tracing::info!(%upstream, "a neighbour was found");
            }
        }
        ServiceEvent::ServiceRemoved(_, name) => {
            if let Some(upstream) = found.remove(&name) {
                tracing::info!(%upstream, "a neighbour is gone");
            }
        }
        _ => {}
    }
}

/// Where a service that was found is asked; none of this node's own, or one that speaks something else.
fn upstream_of(service: &ResolvedService, own: &str) -> Option<Upstream> {
    let said = |key| service.get_property_val_str(key);
    if said("node") == Some(own) || said("v") != Some(PROTOCOL) {
        return None;
    }
    let path = said("path").unwrap_or("/");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.starts_with('/') || path.len() > MAX_PATH_BYTES || !path.bytes().all(plain) {
        return None;
    }
    let mut addresses: Vec<IpAddr> = service.get_addresses_v4().into_iter().map(IpAddr::V4).collect();
    addresses.sort();
    let address = SocketAddr::new(*addresses.first()?, service.get_port());
    format!("http://{address}{path}").parse().ok()
}

/// A host's name as one label of a name.
fn host_label(name: &str) -> String {
    let label = name.split('.').next().unwrap_or_default();
    let label: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    if label.is_empty() { "node".to_owned() } else { label.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str, txt: &[(&str, &str)]) -> ServiceEvent {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let service = ServiceInfo::new(SERVICE, name, "node.local.", address, 8701, txt).unwrap();
        ServiceEvent::ServiceResolved(Box::new(service.as_resolved_service()))
    }

    #[test]
    fn neighbours_come_and_go_and_are_never_oneself_nor_too_many() {
        let mut found = BTreeMap::new();
        let ours = [("v", "1"), ("node", "own"), ("path", "/")];
        note(&mut found, resolved("self", &ours), "own");
        note(&mut found, resolved("other protocol", &[("v", "2"), ("node", "b")]), "own");
        note(&mut found, resolved("odd", &[("v", "1"), ("node", "b"), ("path", "/?a=b")]), "own");
        assert!(found.is_empty());
        note(&mut found, resolved("b", &[("v", "1"), ("node", "b"), ("path", "/mirabelle")]), "own");
        let shown: Vec<String> = found.values().map(ToString::to_string).collect();
        assert_eq!(shown, ["http://192.0.2.7:8701/mirabelle/"]);
        for number in 0..20 {
            note(&mut found, resolved(&format!("n{number}"), &[("v", "1"), ("node", "c")]), "own");
        }
        assert_eq!(found.len(), MAX_NEIGHBOURS);
        note(&mut found, ServiceEvent::ServiceRemoved(SERVICE.to_owned(), format!("b.{SERVICE}")), "own");
        assert_eq!(found.len(), MAX_NEIGHBOURS - 1);
    }

    #[test]
    fn a_node_on_loopback_says_nothing_and_hosts_become_labels() {
        let college = "57001".parse().unwrap();
        let none = Announcement::begin("127.0.0.1:8701".parse().unwrap(), &college, "n", "h").unwrap();
        assert!(none.is_none());
        assert_eq!(host_label("Node_7.college.example"), "node7");
        assert_eq!(host_label("é."), "node");
    }
}
