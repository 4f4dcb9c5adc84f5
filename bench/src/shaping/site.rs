//! Two tenants' hosts, the gateway and the far end, in network namespaces.

use crate::lab::CommandError;
use crate::lab::command;
use std::path::{Path, PathBuf};

/// What the names of all namespaces begin with; the process number follows.
const PREFIX: &str = "penstock-qos-";

/// The far end's address.
pub const FAR: [u8; 4] = [192, 0, 2, 2];

const HOSTS: [&str; 4] = ["red", "blue", "gateway", "far"];

/// The namespaces, and a folder. Gone when dropped.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// A command fails; what it had made is gone again.
    pub fn new() -> Result<Self, CommandError> {
        let site = Self { folder: std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id())) };
        // What fails here fails again, with a message, when the first file is written.
        let _late = std::fs::create_dir_all(&site.folder);
        for host in HOSTS {
            command::run(&format!("ip netns add {}", name(host)))?;
            for key in ["all.disable_ipv6=1", "default.disable_ipv6=1"] {
                site.on(host, &format!("sysctl -qw net.ipv6.conf.{key}"))?;
            }
            site.on(host, "sysctl -qw net.ipv4.tcp_ecn=1")?;
            site.ip(host, "link set lo up")?;
        }
        for (host, device, port, addresses) in [
            ("red", "eth0", "red0", ["203.0.113.2/30", "203.0.113.1/30"]),
            ("blue", "eth0", "blue0", ["203.0.113.6/30", "203.0.113.5/30"]),
            ("far", "eth0", "wan0", ["192.0.2.2/24", "192.0.2.1/24"]),
        ] {
            site.ip(host, &format!("link add {device} type veth peer name {port} netns {}", name("gateway")))?;
            for (host, device, address) in [(host, device, addresses[0]), ("gateway", port, addresses[1])] {
                site.ip(host, &format!("address add {address} dev {device}"))?;
                site.ip(host, &format!("link set {device} up"))?;
                // All packets are as long as on a wire, whoever forwards.
                site.on(host, &format!("ethtool -K {device} tso off gso off gro off"))?;
            }
        }
        for (host, via) in [("red", "203.0.113.1"), ("blue", "203.0.113.5"), ("far", "192.0.2.1")] {
            site.ip(host, &format!("route add default via {via}"))?;
        }
        site.ip("blue", "address add 203.0.113.64/27 dev lo")?;
        for last in 65..=70 {
            site.ip("blue", &format!("address add 203.0.113.{last}/32 dev lo"))?;
        }
        site.ip("gateway", "route add 203.0.113.64/27 via 203.0.113.6")?;
        Ok(site)
    }

    /// Where to enter a host.
    pub fn path(&self, host: &str) -> PathBuf {
        format!("/run/netns/{}", name(host)).into()
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `ip` on a host.
    ///
    /// # Errors
    ///
    /// As [`command::run`].
    pub fn ip(&self, host: &str, arguments: &str) -> Result<(), CommandError> {
        command::run(&format!("ip -n {} {arguments}", name(host))).map(drop)
    }

    /// Runs another command on a host.
    ///
    /// # Errors
    ///
    /// As [`command::run`].
    pub fn on(&self, host: &str, line: &str) -> Result<String, CommandError> {
        command::run(&format!("ip netns exec {} {line}", name(host)))
    }
}

fn name(host: &str) -> String {
    format!("{PREFIX}{}-{host}", std::process::id())
}

impl Drop for Site {
    fn drop(&mut self) {
        for host in HOSTS {
            // One that was never made cannot be deleted.
            let _gone = command::run(&format!("ip netns delete {}", name(host)));
        }
        // It is in the temporary folder anyway.
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Deletes what is left of runs that were killed.
pub fn sweep() {
    crate::lab::sweep_of(PREFIX);
}
