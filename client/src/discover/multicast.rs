//! Asking the link where a node is: a one-shot query by multicast DNS (RFC 6762, 5.1), from a port of our own, so that whoever
//! knows answers this machine alone (6.7). It needs nothing that listens all day.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::message::{Kind, MAX_MESSAGE_BYTES, Record, answers, host, question};
use super::network::Interface;

const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
/// Who is there answers at once, or within half a second where several may (RFC 6762, 6).
const ANSWER: Duration = Duration::from_millis(1500);
/// Once one has answered, others may for so long.
const OTHERS: Duration = Duration::from_millis(150);
/// Datagrams that are looked at.
const MAX_ANSWERS: usize = 32;
/// The longest path of a node that is looked at.
const MAX_PATH_BYTES: usize = 200;

/// The addresses of nodes on the links of these interfaces, in the order of their names.
pub(super) async fn search(service: &str, interfaces: &[Interface], id: u16) -> io::Result<Vec<String>> {
    let name = format!("{service}.local");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let asked = question(id, &name, Kind::Pointer, true).map_err(io::Error::other)?;
    let mut sent = 0;
    for interface in interfaces {
        let chosen = set_ip_multicast_if_with_ifindex(
            &socket,
            &Ipv4Addr::UNSPECIFIED,
            &Ipv4Addr::UNSPECIFIED,
            interface.index,
        );
        match chosen {
            Ok(()) if socket.send_to(&asked, GROUP).await.is_ok() => sent += 1,
            _ => tracing::debug!(interface = interface.name, "the link could not be asked"),
        }
    }
    let mut found = Vec::new();
    let mut until = Instant::now() + ANSWER;
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    for _ in 0..if sent == 0 { 0 } else { MAX_ANSWERS } {
        let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await else { break };
        let (length, _) = received?;
        match answers(&buffer[..length], id) {
            Ok(records) => found.extend(nodes(&format!("{name}."), &records)),
            Err(error) => tracing::debug!(%error, "an answer of the link was passed over"),
        }
        if !found.is_empty() {
            until = until.min(Instant::now() + OTHERS);
        }
    }
    found.sort();
    Ok(found)
}

fn nodes(service: &str, records: &[Record]) -> Vec<String> {
    let mut found = Vec::new();
    for record in records {
        let Record::Pointer { name, to: instance } = record else { continue };
        if name == service {
            found.extend(node(instance, records));
        }
    }
    found
}

/// Where an instance of the service is, by the records that came with it.
fn node(instance: &str, records: &[Record]) -> Option<String> {
    let (port, target) = records.iter().find_map(|record| match record {
        Record::Service { name, port, target, .. } if name == instance => Some((*port, target)),
        _ => None,
    })?;
    host(target)?;
    let members = records.iter().find_map(|record| match record {
        Record::Text { name, members } if name == instance => Some(members.as_slice()),
        _ => None,
    });
    let said = |key: &str| members?.iter().find_map(|member| member.strip_prefix(key)?.strip_prefix('='));
    if said("v").is_some_and(|version| version != "1") {
        return None;
    }
    let path = said("path").unwrap_or("/");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.starts_with('/') || path.len() > MAX_PATH_BYTES || !path.bytes().all(plain) {
        return None;
    }
    // Names that end in `local` the system may not know how to resolve: what came with them is used.
    let addresses = records.iter().filter_map(|record| match record {
        Record::Address { name, address } if name == target => Some(*address),
        _ => None,
    });
    let address = addresses.filter(IpAddr::is_ipv4).min()?;
    Some(format!("http://{}{path}", SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(path: &str, address: &str) -> Vec<Record> {
        let instance = "mirabelle 57001._mirabelle._tcp.local.".to_owned();
        vec![
            Record::Pointer { name: "_mirabelle._tcp.local.".to_owned(), to: instance.clone() },
            Record::Service {
                name: instance.clone(),
                priority: 0,
                weight: 0,
                port: 8701,
                target: "node.local.".to_owned(),
            },
            Record::Text { name: instance, members: vec!["v=1".to_owned(), format!("path={path}")] },
            Record::Address { name: "node.local.".to_owned(), address: address.parse().unwrap() },
        ]
    }

    #[test]
    fn a_node_is_found_by_what_comes_with_its_name() {
        let service = "_mirabelle._tcp.local.";
        assert_eq!(nodes(service, &records("/", "10.57.1.2")), ["http://10.57.1.2:8701/"]);
        assert_eq!(nodes(service, &records("/m/", "10.57.1.2")), ["http://10.57.1.2:8701/m/"]);
        for (path, address) in [("m", "10.57.1.2"), ("/?x", "10.57.1.2"), ("/", "fe80::1")] {
            assert!(nodes(service, &records(path, address)).is_empty(), "{path} {address}");
        }
        for missing in 0..4 {
            let mut some = records("/", "10.57.1.2");
            some.remove(missing);
            // Without its words it speaks what we speak.
            assert_eq!(nodes(service, &some).is_empty(), missing != 2, "{missing}");
        }
    }
}
