//! The packet that wakes a machine, and where it is sent.
//!
//! ```text
//! magic packet      6 × ff, 16 × the address, by UDP, port 9 (AMD, publication 20213)
//! wake-to           a broadcast address: 255.255.255.255 for the node's own network, 10.57.2.255 for the one behind a router
//!                   that lets directed broadcasts through
//! ```
//!
//! Bounded: a machine costs at most [`MAX_PACKETS`] packets, whatever it says of itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::UdpSocket;

/// The port that nobody listens on: cards look at the packet's bytes, not at its port.
const DISCARD_PORT: u16 = 9;
/// A packet may be lost, and waking twice does nothing.
const ROUNDS: usize = 3;
/// Interfaces of a machine times networks times rounds: more are not sent.
const MAX_PACKETS: usize = 96;
/// Networks of a college.
const MAX_NETWORKS: usize = 16;

/// The address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HardwareAddress([u8; 6]);

/// Why a text is no such address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no hardware address")]
pub(crate) struct HardwareAddressError(String);

impl FromStr for HardwareAddress {
    type Err = HardwareAddressError;

    fn from_str(text: &str) -> Result<Self, HardwareAddressError> {
        let read = || {
            let mut bytes = [0; 6];
            let mut parts = text.split(':');
            for byte in &mut bytes {
                let part = parts
                    .next()
                    .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
                *byte = u8::from_str_radix(part, 16).ok()?;
            }
            // One bit says that it is no card's, but a group's.
            (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
        };
        read().ok_or_else(|| HardwareAddressError(text.chars().take(32).collect()))
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&shown.join(":"))
    }
}

impl Serialize for HardwareAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HardwareAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl HardwareAddress {
    fn magic_packet(self) -> Vec<u8> {
        let mut packet = vec![0xff; 6];
        packet.extend(self.0.iter().copied().cycle().take(16 * 6));
        packet
    }
}

/// Where the packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WakeTo(Vec<SocketAddr>);

/// Why texts are no such addresses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WakeToError {
    #[error("`{0}` is no address to wake machines at")]
    Address(String),
    #[error("machines are woken at {MAX_NETWORKS} addresses at most")]
    TooMany,
}

impl WakeTo {
    /// Reads addresses, each with its port or without.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, WakeToError> {
        if texts.len() > MAX_NETWORKS {
            return Err(WakeToError::TooMany);
        }
        let read = |text: &String| {
            let with_port = text.parse::<SocketAddr>().ok();
            with_port
                .or_else(|| Some(SocketAddr::new(text.parse().ok()?, DISCARD_PORT)))
                .ok_or_else(|| WakeToError::Address(text.clone()))
        };
        texts.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The node's own network.
    pub(crate) fn own_network() -> Self {
        Self(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), DISCARD_PORT)])
    }

    /// Wakes the machine with these cards: on every network, since which one it is plugged into today nobody knows.
    ///
    /// # Errors
    /// When nothing could be sent at all; with one network of several down, the others have been sent to.
    pub(super) async fn wake(&self, cards: &[HardwareAddress]) -> io::Result<()> {
        let mut packets =
            cards.iter().flat_map(|card| self.0.iter().map(|network| (card.magic_packet(), network)));
        let mut left = MAX_PACKETS / ROUNDS;
        let (mut sent, mut failed) = (0_usize, None);
        while left > 0
            && let Some((packet, network)) = packets.next()
        {
            left -= 1;
            match send(&packet, *network).await {
                Ok(()) => sent += 1,
                Err(error) => failed = Some(error),
            }
        }
        failed.filter(|_| sent == 0).map_or(Ok(()), Err)
    }
}

impl fmt::Display for WakeTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&shown.join(" "))
    }
}

async fn send(packet: &[u8], to: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.set_broadcast(true)?;
    for _ in 0..ROUNDS {
        socket.send_to(packet, to).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_names_the_machine_sixteen_times() {
        let packet = "02:00:00:12:34:56".parse::<HardwareAddress>().unwrap().magic_packet();
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..6], [0xff; 6]);
        assert!(packet[6..].chunks(6).all(|part| part == [2, 0, 0, 0x12, 0x34, 0x56]));
    }

    #[test]
    fn only_the_address_of_one_card_is_one() {
        for text in [
            "",
            "02:00:00:12:34",
            "02:00:00:12:34:5g",
            "02:00:00:12:34:56:78",
            "+2:00:00:12:34:56",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<HardwareAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn every_network_hears_of_every_card_and_no_more_than_so_much() {
        let networks =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        let addresses = networks.each_ref().map(|network| network.local_addr().unwrap().to_string());
        let cards: Vec<HardwareAddress> =
            (1..=100).map(|n| format!("02:00:00:00:00:{n:02x}").parse().unwrap()).collect();
        WakeTo::parse(&addresses).unwrap().wake(&cards).await.unwrap();
        for network in networks {
            let mut packet = [0; 200];
            for number in 0..MAX_PACKETS / 2 {
                let length = network.recv(&mut packet).await.unwrap();
                assert_eq!(packet[..length], cards[number / ROUNDS].magic_packet(), "{number}");
            }
            assert!(network.try_recv(&mut packet).is_err(), "no more than that");
        }
    }

    #[test]
    fn networks_are_named_with_a_port_or_without() {
        let read = |texts: &[&str]| {
            WakeTo::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map(|read| read.to_string())
        };
        assert_eq!(read(&["10.57.1.255", "10.57.2.255:7"]).unwrap(), "10.57.1.255:9 10.57.2.255:7");
        assert!(read(&["broadcast"]).is_err());
        assert!(read(&["10.0.0.255"; 17]).is_err());
        assert_eq!(WakeTo::own_network().to_string(), "255.255.255.255:9");
    }
}
