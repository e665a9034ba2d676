//! Asking the network's DNS servers where its node is: SRV (RFC 2782) of `_mirabelle._tcp` in each search domain.
//!
//! A query over UDP of our own, beside a strict reader of a hundred lines: a resolver's library would bring thirty crates for
//! one record. The answer's names are resolved by the system, as any address is. Nodes of one priority are asked in the order of their
//! weights, not drawn: all workstations of a college have one node, and another is for when it fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::message::{Kind, MAX_MESSAGE_BYTES, Record, answers, host, question};
use super::network::Resolver;

const PORT: u16 = 53;
/// A server of one's own network answers in milliseconds; one that has to ask others, in less than this.
const ANSWER: Duration = Duration::from_secs(2);

/// The addresses of nodes, in the order in which they should be asked.
pub(super) async fn search(service: &str, resolver: &Resolver, id: u16) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for domain in &resolver.domains {
        let name = format!("{service}.{domain}");
        for server in &resolver.servers {
            match ask(SocketAddr::new(*server, PORT), &name, id).await {
                Ok(records) => {
                    found.extend(nodes(&name, records));
                    // A server that answers, if only that there is none, has answered.
                    break;
                }
                Err(error) => tracing::debug!(%server, name, %error, "a DNS server did not answer"),
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

async fn ask(server: SocketAddr, name: &str, id: u16) -> io::Result<Vec<Record>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: only that server's answers arrive.
    socket.connect(server).await?;
    socket.send(&question(id, name, Kind::Service, false).map_err(io::Error::other)?).await?;
    let answering = async {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let length = socket.recv(&mut buffer).await?;
        answers(&buffer[..length], id).map_err(io::Error::other)
    };
    timeout(ANSWER, answering).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn nodes(name: &str, records: Vec<Record>) -> Vec<String> {
    let wanted = format!("{}.", name.to_ascii_lowercase());
    let mut services: Vec<(u16, u16, String)> = records
        .into_iter()
        .filter_map(|record| match record {
            Record::Service { name, priority, weight, port, target } if name == wanted => {
                // A target of `.` says that there is none (RFC 2782).
                Some((priority, u16::MAX - weight, format!("http://{}:{port}/", host(&target)?)))
            }
            _ => None,
        })
        .collect();
    services.sort();
    services.into_iter().map(|(_, _, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::packed;
    use super::*;

    #[test]
    fn the_lowest_priority_is_asked_first_and_other_names_are_passed_over() {
        let records = answers(&packed(7), 7).unwrap();
        assert_eq!(
            nodes("_mirabelle._tcp.College.example", records.clone()),
            ["http://node.college.example:8701/", "http://spare.college.example:8701/"]
        );
        assert!(nodes("_mirabelle._tcp.other.example", records).is_empty());
    }
}
