//! Two namespaces and a router between them, a third, whose two ways are shaped by a token bucket each.
//!
//! A queue in the server's own kernel would hold back its sender (TCP small queues), as a router's cannot.

use std::process::Command;

/// The most that stands in the queue: at 8 Mbit/s a tenth of a second.
const QUEUE_BYTES: u64 = 100_000;
/// What may leave at once: two packets with what the kernel puts around them.
const BURST_BYTES: u64 = 3_200;

/// How the server's kernel controls congestion: by loss, so that it fills queues, as most servers do; and the only one of its
/// kind that every kernel allows in a namespace.
pub(super) const CONGESTION_CONTROL: &str = "reno";

/// The two ends, until it is dropped.
pub(super) struct Network {
    near: String,
    router: String,
    far: String,
}

/// Installs `ip` and `tc` when they are missing.
pub(super) fn install() {
    let has = |program: &str| Command::new(program).arg("-V").output().is_ok();
    if !(has("ip") && has("tc")) {
        let installed = Command::new("apt-get").args(["install", "--yes", "--quiet", "iproute2"]).status();
        assert!(installed.is_ok_and(|status| status.success()), "iproute2 cannot be installed");
    }
}

impl Network {
    pub(super) const NEAR_ADDRESS: &str = "10.77.1.2";
    pub(super) const FAR_ADDRESS: &str = "10.77.2.2";

    /// Shaped to so many bits a second each way.
    pub(super) fn build(bits_per_second: u64) -> Self {
        let name = |side: &str| format!("mirabelle-{side}-{}", std::process::id());
        let network = Self { near: name("near"), router: name("router"), far: name("far") };
        let router = &network.router;
        for namespace in [router, &network.near, &network.far] {
            say(&["ip", "netns", "add", namespace]);
        }
        for (namespace, device, net) in [(&network.near, "near", "10.77.1"), (&network.far, "far", "10.77.2")]
        {
            let peer = ["type", "veth", "peer", "name", "link0", "netns", namespace];
            say(&[&["ip", "link", "add", device, "netns", router][..], &peer].concat());
            for (namespace, device, address) in
                [(router, device, format!("{net}.1/24")), (namespace, "link0", format!("{net}.2/24"))]
            {
                let within = ["ip", "-netns", namespace];
                say(&[&within[..], &["address", "add", &address, "dev", device]].concat());
                say(&[&within[..], &["link", "set", device, "up"]].concat());
                // Packets leave as they will travel: no super-packets that the shaper would let through as one.
                say(&[&within[..], &["link", "set", device, "gso_max_segs", "1"]].concat());
            }
            say(&["ip", "-netns", namespace, "route", "add", "default", "via", &format!("{net}.1")]);
            let (rate, burst, limit) =
                (format!("{bits_per_second}bit"), BURST_BYTES.to_string(), QUEUE_BYTES.to_string());
            let shaper = ["tbf", "rate", &rate, "burst", &burst, "limit", &limit];
            let words = ["tc", "-netns", router, "qdisc", "add", "dev", device, "root"];
            say(&[&words[..], &shaper].concat());
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        say(&["ip", "netns", "exec", router, "sh", "-c", forward]);
        let congestion = "/proc/sys/net/ipv4/tcp_congestion_control";
        let choose = format!("echo {CONGESTION_CONTROL} > {congestion}");
        say(&["ip", "netns", "exec", &network.far, "sh", "-c", &choose]);
        network
    }

    /// A command at the node's end.
    pub(super) fn near(&self) -> Command {
        inside(&self.near)
    }

    /// A command at the other end.
    pub(super) fn far(&self) -> Command {
        inside(&self.far)
    }

    /// Bytes that came down the link so far, as its near interface counted them.
    pub(super) fn came_down(&self) -> u64 {
        let counted = self.near().args(["cat", "/sys/class/net/link0/statistics/rx_bytes"]).output().unwrap();
        String::from_utf8_lossy(&counted.stdout).trim().parse().expect("an interface counts")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.router, &self.far] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

fn inside(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]);
    command
}

fn say(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("`{}`: {error}", words.join(" ")));
    assert!(
        output.status.success(),
        "`{}`: {}(this bench needs root)",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
