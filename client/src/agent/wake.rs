//! Asking the node to wake this machine: it stays on at night, and is on the same network.
//!
//! ```text
//! POST <node>/wake-ups     {"machine":"b12-03","mac":["02:00:00:12:34:56"],"at":"2026-11-26T06:30:00Z",
//!                           "room":"B12","tags":["exam"],"platform":"linux-x86_64"}
//! ```
//!
//! The node remembers who can be woken, and wakes it at the hours that the deployment gives to its room; so it says where it
//! stands. A node of an older version refuses what it does not know, and is asked again without.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::{Instant, MachineId, Platform, RoomName, Tag};
use mirabelle_transfer::{FetchError, Fetcher};
use serde::Serialize;

use crate::config::Config;
use crate::platform::disk_space;

/// Where the system says which network interfaces there are.
const INTERFACES: &str = "/sys/class/net";
/// More interfaces than this are no workstation's.
const MAX_INTERFACES: usize = 16;

#[derive(Serialize)]
struct WakeUp<'a> {
    machine: &'a MachineId,
    mac: Vec<String>,
    at: Instant,
    #[serde(flatten)]
    stands: Option<Stands<'a>>,
}

/// Where it stands, as far as the deployment can tell workstations apart.
#[derive(Serialize)]
struct Stands<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a RoomName>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    tags: &'a BTreeSet<Tag>,
    platform: &'a Platform,
    /// Bytes that it has for software.
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<u64>,
}

/// Asks the node to wake this machine at `at`.
pub(super) async fn ask(fetcher: &Fetcher, config: &Config, root: &Path, at: Instant) -> io::Result<()> {
    let mac = addresses(Path::new(INTERFACES))?;
    if mac.is_empty() {
        return Err(io::Error::other("this machine has no network interface that can be woken"));
    }
    let machine = &config.machine;
    let free = disk_space(root).ok().map(|disk| disk.free.saturating_sub(config.reserve(disk.total)));
    let stands =
        Stands { room: machine.room.as_ref(), tags: &machine.tags, platform: &machine.platform, free };
    let mut wake_up = WakeUp { machine: &machine.id, mac, at, stands: Some(stands) };
    let asked = fetcher.post("wake-ups", serde_json::to_vec(&wake_up)?).await;
    if !matches!(asked, Err(FetchError::Status { status: 400, .. })) {
        return asked.map_err(io::Error::other);
    }
    wake_up.stands = None;
    fetcher.post("wake-ups", serde_json::to_vec(&wake_up)?).await.map_err(io::Error::other)
}

/// The hardware addresses of the interfaces that are devices: not loopback, not a bridge.
fn addresses(interfaces: &Path) -> io::Result<Vec<String>> {
    let mut addresses = Vec::new();
    for interface in fs::read_dir(interfaces)?.take(MAX_INTERFACES) {
        let path = interface?.path();
        if !path.join("device").exists() {
            continue;
        }
        let address = durable::read_if_present(&path.join("address"), 64)?.unwrap_or_default();
        let address = String::from_utf8_lossy(&address).trim().to_owned();
        if address.len() == 17 && address != "00:00:00:00:00:00" {
            addresses.push(address);
        }
    }
    addresses.sort();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_where_it_stands_and_to_an_older_node_nothing_that_it_refuses() {
        let (machine, room) = ("b12-03".parse().unwrap(), "B12".parse().unwrap());
        let (tags, platform) = (["exam".parse().unwrap()].into(), "linux-x86_64".parse().unwrap());
        let stands = Stands { room: Some(&room), tags: &tags, platform: &platform, free: Some(9) };
        let at = "2026-11-26T06:30:00Z".parse().unwrap();
        let mut wake_up =
            WakeUp { machine: &machine, mac: vec!["02:00:00:12:34:56".to_owned()], at, stands: Some(stands) };
        let said = |wake_up: &WakeUp<'_>| serde_json::to_string(wake_up).unwrap();
        let plain = r#"{"machine":"b12-03","mac":["02:00:00:12:34:56"],"at":"2026-11-26T06:30:00Z""#;
        let standing = r#","room":"B12","tags":["exam"],"platform":"linux-x86_64","free":9}"#;
        assert_eq!(said(&wake_up), format!("{plain}{standing}"));
        wake_up.stands = None;
        assert_eq!(said(&wake_up), format!("{plain}}}"));
    }

    #[test]
    fn only_devices_are_woken() {
        let directory = tempfile::tempdir().unwrap();
        for (name, device, address) in [
            ("lo", false, "00:00:00:00:00:00\n"),
            ("eth0", true, "02:00:00:12:34:56\n"),
            ("br0", false, "02:00:00:00:00:01\n"),
        ] {
            let path = directory.path().join(name);
            fs::create_dir_all(if device { path.join("device") } else { path.clone() }).unwrap();
            fs::write(path.join("address"), address).unwrap();
        }
        assert_eq!(addresses(directory.path()).unwrap(), ["02:00:00:12:34:56"]);
    }
}
