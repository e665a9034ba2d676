//! What network this machine is plugged into, by what the system says of it: search domains and DNS servers (`resolv.conf`), the
//! gateway, the interfaces.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use fs_err as fs;
use mirabelle_content::durable;

const RESOLVER: &str = "/etc/resolv.conf";
const ROUTES: &str = "/proc/net/route";
const INTERFACES: &str = "/sys/class/net";
const MAX_FILE_BYTES: u64 = 64 << 10;
/// As the system's own resolver.
const MAX_DOMAINS: usize = 6;
const MAX_SERVERS: usize = 3;
/// Interfaces that are asked.
const MAX_INTERFACES: usize = 16;

/// Whom one asks about names, and about which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) domains: Vec<String>,
    pub(super) servers: Vec<IpAddr>,
}

/// An interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
}

impl Resolver {
    pub(super) fn of_this_machine() -> Self {
        Self::parse(&read(Path::new(RESOLVER)))
    }

    /// Of several lists of domains the last counts (resolv.conf(5)).
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_matches('.').to_ascii_lowercase());
                    resolver.domains =
                        domains.filter(|domain| !domain.is_empty()).take(MAX_DOMAINS).collect();
                }
                _ => {}
            }
        }
        resolver.servers.truncate(MAX_SERVERS);
        resolver
    }
}

/// What the network is called here: its domains, and its gateway.
pub(super) fn name() -> String {
    let domains = Resolver::of_this_machine().domains.join(" ");
    let domains = if domains.is_empty() { "a network without a name" } else { &domains };
    match gateway(&read(Path::new(ROUTES))) {
        Some(gateway) => format!("{domains} via {gateway}"),
        None => domains.to_owned(),
    }
}

/// The gateway of the first default route: addresses are words in the byte order of the machine.
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let word = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && word != 0).then(|| Ipv4Addr::from(word.to_ne_bytes()))
    })
}

/// The interfaces that are up, but loopback.
pub(super) fn interfaces() -> Vec<Interface> {
    let Ok(entries) = fs::read_dir(INTERFACES) else { return Vec::new() };
    let interfaces = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let said = |file: &str| read(&entry.path().join(file)).trim().to_owned();
        // `unknown` is what tunnels and some drivers say.
        let is_up = matches!(said("operstate").as_str(), "up" | "unknown") && name != "lo";
        is_up.then_some(Interface { index: said("ifindex").parse().ok()?, name })
    });
    let mut interfaces: Vec<Interface> = interfaces.collect();
    interfaces.sort_by_key(|interface| interface.index);
    interfaces.truncate(MAX_INTERFACES);
    interfaces
}

/// What cannot be read says nothing.
fn read(path: &Path) -> String {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_system_says_of_its_network() {
        let resolver = Resolver::parse(
            "# made by hand\ndomain old.example\nnameserver 10.57.1.1\nnameserver fe80::1%eth0\n\
             search College.example. example\nnameserver 10.57.1.2\noptions edns0\n",
        );
        assert_eq!(resolver.domains, ["college.example", "example"]);
        assert_eq!(
            resolver.servers,
            ["10.57.1.1", "10.57.1.2"].map(|server| server.parse::<IpAddr>().unwrap())
        );
        let word = u32::from_ne_bytes([10, 57, 1, 1]);
        let routes = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t0039A8C0\t00000000\t0001\neth0\t00000000\t{word:08X}\t0003\n"
        );
        assert_eq!(gateway(&routes), Some(Ipv4Addr::new(10, 57, 1, 1)));
        assert_eq!(gateway(""), None);
    }
}
