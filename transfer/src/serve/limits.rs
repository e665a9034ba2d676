//! How much of itself a server gives to whom.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More files than this are never needed: a connection of HTTP/1 has two, one of HTTP/2 up to seventeen.
const OPEN_FILES: u64 = 65_536;

/// The limits of a server. The defaults are those of a node of a large college.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections served at once; the next ones wait to be accepted.
    pub connections: usize,
    /// Of these, how many one address may have: a machine that opens connections and never reads must not be alone.
    pub connections_of_one: usize,
    /// A request whose head takes longer than this is not one; nor is a TLS handshake.
    pub head_time: Duration,
    /// Bytes of a request's head; at least 8192.
    pub head_bytes: usize,
    /// Fields in a request's head.
    pub head_fields: usize,
    /// The longest body that a request may announce, in bytes. Of those that announce none, whoever reads them sees to it.
    pub body_bytes: u64,
    /// How long a connection may stay without a request.
    pub idle_time: Duration,
    /// Over so long a time …
    pub slow_time: Duration,
    /// … a connection that is waited for takes at least so many bytes.
    pub slow_bytes: u64,
    /// How long connections may take to finish when the server stops.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_of_one: 1024,
            head_time: Duration::from_secs(15),
            head_bytes: 16 << 10,
            head_fields: 64,
            body_bytes: 1 << 20,
            idle_time: Duration::from_secs(75),
            slow_time: Duration::from_mins(1),
            slow_bytes: 60 << 10,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// Lets this process open as many files as it ever needs, as far as it may.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let may = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < may)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(may), maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// A place for one more connection of `peer`, if it has fewer than `most`.
    pub(super) fn place(&self, peer: IpAddr, most: usize) -> Option<Place> {
        let peer = one_machine(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }
}

/// An address for the machine: a host has a whole network of 64 bits in IPv6.
fn one_machine(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(peer) => IpAddr::V4(peer),
        IpAddr::V6(peer) => IpAddr::V6((u128::from(peer) >> 64 << 64).into()),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_does_not_take_every_place() {
        let peers = Peers::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<Place> = (0..256).map_while(|_| peers.place(greedy, 256)).collect();
        assert_eq!(places.len(), 256);
        assert!(peers.place(greedy, 256).is_none() && peers.place(other, 256).is_some());
        places.pop();
        assert!(peers.place(greedy, 256).is_some());
    }
}
