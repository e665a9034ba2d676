//! Waking workstations: they ask for it before they go off, and the node, which stays on and is on their network, does it.
//!
//! ```text
//! POST /wake-ups  {"machine":"b12-03","mac":["02:00:00:12:34:56"],"at":"2026-11-26T06:30:00Z"}  ─▶  200
//! <root>/wake-ups.json     what was asked for, replaced as a whole
//! magic packet             6 × ff, 16 × the address, by UDP to the network's broadcast address, port 9 (AMD, 20213)
//! ```
//!
//! A crash: who was to be woken is woken after the next start, unless the hour is long past.
//!
//! Threats: anybody on the network may ask that any machine be woken, as anybody there may send such a packet herself. What she
//! can take from the node is bounded: the request's length, how many machines are kept, how far ahead.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::{Instant, MachineId};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// The most of a request.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// More machines than the largest college has.
const MAX_MACHINES: usize = 4000;
/// Interfaces of one machine.
const MAX_ADDRESSES: usize = 16;
/// Nobody asks further ahead than the longest holidays.
const FURTHEST: SignedDuration = SignedDuration::from_hours(70 * 24);
/// Whoever was to be woken longer ago than this slept through it for a reason: the node was off.
const TOO_LATE: SignedDuration = SignedDuration::from_hours(2);
/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// A packet may be lost, and waking twice does nothing.
const PACKETS: u32 = 3;
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where magic packets go, where nobody says otherwise.
pub(crate) const BROADCAST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::BROADCAST), 9);

/// What a workstation asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WakeUp {
    machine: MachineId,
    mac: Vec<String>,
    at: Instant,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WakeUpError {
    #[error("the request cannot be read")]
    Malformed(#[from] serde_json::Error),
    #[error("`{0}` is no hardware address")]
    Address(String),
    #[error("there are none or too many hardware addresses")]
    Addresses,
    #[error("{0:.0} is past, or too far away")]
    When(Instant),
    #[error("too many machines are to be woken")]
    TooMany,
    #[error("it could not be kept")]
    Disk(#[from] std::io::Error),
}

/// The wake-ups that were asked for.
#[derive(Debug)]
pub(crate) struct WakeUps {
    path: PathBuf,
    to: SocketAddr,
    asked: Mutex<BTreeMap<MachineId, WakeUp>>,
}

impl WakeUps {
    /// Takes up what was asked for before; a file that cannot be read is forgotten, as machines ask every evening.
    pub(crate) fn open(path: &Path, to: SocketAddr) -> Self {
        let kept = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
        let asked = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: path.to_owned(), to, asked: Mutex::new(asked) }
    }

    /// Takes a request; the last one of a machine counts.
    pub(crate) fn ask(&self, body: &[u8], now: Instant) -> Result<(), WakeUpError> {
        let wake_up: WakeUp = serde_json::from_slice(body)?;
        if wake_up.mac.is_empty() || wake_up.mac.len() > MAX_ADDRESSES {
            return Err(WakeUpError::Addresses);
        }
        if let Some(wrong) = wake_up.mac.iter().find(|mac| address(mac).is_none()) {
            return Err(WakeUpError::Address(wrong.chars().take(32).collect()));
        }
        if wake_up.at <= now || wake_up.at.duration_since(now) > FURTHEST {
            return Err(WakeUpError::When(wake_up.at));
        }
        let mut asked = self.lock();
        if asked.len() >= MAX_MACHINES && !asked.contains_key(&wake_up.machine) {
            return Err(WakeUpError::TooMany);
        }
        tracing::info!(machine = %wake_up.machine, at = %wake_up.at, "a workstation asked to be woken");
        asked.insert(wake_up.machine.clone(), wake_up);
        self.keep(&asked)
    }

    /// Takes those out whose hour has come, and that are still worth waking.
    fn due(&self, now: Instant) -> Result<Vec<WakeUp>, WakeUpError> {
        let mut asked = self.lock();
        let (due, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *asked).into_iter().partition(|(_, wake_up)| wake_up.at <= now);
        *asked = later;
        if !due.is_empty() {
            self.keep(&asked)?;
        }
        Ok(due.into_values().filter(|wake_up| now.duration_since(wake_up.at) <= TOO_LATE).collect())
    }

    fn keep(&self, asked: &BTreeMap<MachineId, WakeUp>) -> Result<(), WakeUpError> {
        Ok(durable::write_atomically(&self.path, &serde_json::to_vec(asked)?)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MachineId, WakeUp>> {
        // Each change is whole before anything can panic.
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Wakes machines at their hour, until the node stops.
    pub(crate) async fn keep_waking(&self, stop: &CancellationToken) {
        loop {
            match self.due(Instant::now()) {
                Ok(due) => {
                    for wake_up in due {
                        match wake(&wake_up, self.to).await {
                            Ok(()) => tracing::info!(machine = %wake_up.machine, "a workstation was woken"),
                            Err(error) => {
                                tracing::warn!(machine = %wake_up.machine, %error, "a workstation could not be woken");
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "wake-ups could not be kept"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// The six bytes of a hardware address.
fn address(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

async fn wake(wake_up: &WakeUp, to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_broadcast(true)?;
    for mac in wake_up.mac.iter().filter_map(|mac| address(mac)) {
        let packet = magic_packet(mac);
        for _ in 0..PACKETS {
            socket.send_to(&packet, to).await?;
        }
    }
    Ok(())
}

fn magic_packet(mac: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend(mac.iter().copied().cycle().take(16 * 6));
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Instant {
        "2026-11-25T18:00:00Z".parse::<Instant>().unwrap() + SignedDuration::from_hours(hours)
    }

    fn request(machine: &str, mac: &str, hours: i64) -> Vec<u8> {
        format!(r#"{{"machine":"{machine}","mac":["{mac}"],"at":"{}"}}"#, at(hours)).into_bytes()
    }

    const MAC: &str = "02:00:00:12:34:56";

    #[test]
    fn the_last_request_of_a_machine_counts_and_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wake-ups.json");
        let wake_ups = WakeUps::open(&path, BROADCAST);
        wake_ups.ask(&request("a", MAC, 5), at(0)).unwrap();
        wake_ups.ask(&request("a", MAC, 12), at(0)).unwrap();
        wake_ups.ask(&request("b", MAC, 13), at(0)).unwrap();
        let again = WakeUps::open(&path, BROADCAST);
        assert!(again.due(at(6)).unwrap().is_empty());
        let due = again.due(at(12)).unwrap();
        assert_eq!(due.iter().map(|wake_up| wake_up.machine.as_str()).collect::<Vec<_>>(), ["a"]);
        assert!(again.due(at(12)).unwrap().is_empty(), "once");
        assert!(again.due(at(16)).unwrap().is_empty(), "it is too late for the other");
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let directory = tempfile::tempdir().unwrap();
        let wake_ups = WakeUps::open(&directory.path().join("wake-ups.json"), BROADCAST);
        for mac in ["", "02:00:00:12:34", "02:00:00:12:34:5g", "02:00:00:12:34:56:78", "+2:00:00:12:34:56"] {
            assert!(wake_ups.ask(&request("a", mac, 5), at(0)).is_err(), "{mac}");
        }
        for hours in [0, -1, 24 * 365] {
            assert!(matches!(wake_ups.ask(&request("a", MAC, hours), at(0)), Err(WakeUpError::When(_))));
        }
        assert!(matches!(wake_ups.ask(b"{}", at(0)), Err(WakeUpError::Malformed(_))));
        for number in 0..MAX_MACHINES {
            wake_ups.lock().insert(
                format!("m{number}").parse().unwrap(),
                serde_json::from_slice(&request("m", MAC, 5)).unwrap(),
            );
        }
        assert!(matches!(wake_ups.ask(&request("one-more", MAC, 5), at(0)), Err(WakeUpError::TooMany)));
    }

    #[test]
    fn a_packet_names_the_machine_sixteen_times() {
        let packet = magic_packet(address(MAC).unwrap());
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..6], [0xff; 6]);
        assert!(packet[6..].chunks(6).all(|part| part == [2, 0, 0, 0x12, 0x34, 0x56]));
    }

    #[tokio::test]
    async fn the_packet_arrives() {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let wake_up: WakeUp = serde_json::from_slice(&request("a", MAC, 5)).unwrap();
        wake(&wake_up, receiver.local_addr().unwrap()).await.unwrap();
        let mut packet = [0; 200];
        let (length, _) = receiver.recv_from(&mut packet).await.unwrap();
        assert_eq!(packet[..length], magic_packet(address(MAC).unwrap()));
    }
}
