//! Two namespaces and a link between them that a token bucket shapes, each direction by itself.

use std::process::Command;

use fs_err as fs;

/// The most that stands in the queue: at 8 Mbit/s a tenth of a second.
const QUEUE_BYTES: u64 = 100_000;
/// What may leave at once: two packets with what the kernel puts around them.
const BURST_BYTES: u64 = 3_200;

/// The two ends, until it is dropped.
pub(super) struct Network {
    near: String,
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

/// How the kernel's senders control congestion.
pub(super) fn congestion_control() -> String {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    name.trim().to_owned()
}

impl Network {
    pub(super) const NEAR_ADDRESS: &str = "10.77.0.1";
    pub(super) const FAR_ADDRESS: &str = "10.77.0.2";

    /// Shaped to so many bits a second each way.
    pub(super) fn build(bits_per_second: u64) -> Self {
        let process = std::process::id();
        let network =
            Self { near: format!("mirabelle-near-{process}"), far: format!("mirabelle-far-{process}") };
        let (near, far) = (&network.near, &network.far);
        for namespace in [near, far] {
            say(&["ip", "netns", "add", namespace]);
        }
        say(&[
            "ip", "link", "add", "link0", "netns", near, "type", "veth", "peer", "name", "link0", "netns",
            far,
        ]);
        for (namespace, address) in [(near, Self::NEAR_ADDRESS), (far, Self::FAR_ADDRESS)] {
            let within = ["ip", "-netns", namespace];
            say(&[&within[..], &["address", "add", &format!("{address}/24"), "dev", "link0"]].concat());
            for device in ["lo", "link0"] {
                say(&[&within[..], &["link", "set", device, "up"]].concat());
            }
            // Packets leave as they will travel: no super-packets that the shaper would let through as one.
            say(&[&within[..], &["link", "set", "link0", "gso_max_segs", "1"]].concat());
            say(&[
                "tc",
                "-netns",
                namespace,
                "qdisc",
                "add",
                "dev",
                "link0",
                "root",
                "tbf",
                "rate",
                &format!("{bits_per_second}bit"),
                "burst",
                &BURST_BYTES.to_string(),
                "limit",
                &QUEUE_BYTES.to_string(),
            ]);
        }
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
        for namespace in [&self.near, &self.far] {
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
