//! Three network namespaces in a row, joined by veth pairs:
//!
//! ```text
//! generator g0 203.0.113.2 ── 203.0.113.1 in  [ the forwarder ]  out 192.0.2.1 ── 192.0.2.2 s0 sink
//! ```
//!
//! All neighbours are static and IPv6 is off, so that nothing but the bench's frames is on the wires.

use super::command::{self, CommandError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// MAC address of the generator's device.
pub const GENERATOR: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// MAC address of the forwarder's receiving device.
pub const DUT_IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// MAC address of the forwarder's sending device.
pub const DUT_OUT: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// MAC address of the sink's own device, to which nobody sends: what comes is for another host, and its kernel drops it
/// without looking further.
const DEAF: [u8; 6] = [2, 0, 0, 0, 2, 0xfe];
/// MAC address of the next hop, which is to be sent to.
pub const SINK: [u8; 6] = [2, 0, 0, 0, 2, 2];
/// MAC address inside the tunnel, at its far end.
pub const TUNNEL_PEER: [u8; 6] = [2, 0, 0, 0, 3, 2];
/// The forwarder's end of the tunnel.
pub const TUNNEL_NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The sink: next hop, and the tunnel's far end.
pub const FAR_END: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The tunnel's network identifier.
pub const VNI: u32 = 5001;

/// What the names of all labs' namespaces begin with; the process number follows.
const PREFIX: &str = "penstock-lab-";

/// The namespaces of one forwarder. Gone when dropped.
#[derive(Debug)]
pub struct Site {
    prefix: String,
    /// The forwarder's receiving device: unlike namespaces, the names of kernel threads are the whole machine's.
    pub receiving: String,
}

impl Site {
    /// Makes the namespaces and wires. `number` is that of the site within this process.
    ///
    /// # Errors
    ///
    /// A command fails; what it had made is gone again.
    pub fn new(number: usize) -> Result<Self, CommandError> {
        let process = std::process::id();
        let site = Self { prefix: format!("{PREFIX}{process}-{number}"), receiving: format!("l{process:x}{number}") };
        let (generator, dut, sink) = (site.name("gen"), site.name("dut"), site.name("sink"));
        for namespace in [&generator, &dut, &sink] {
            command::run(&format!("ip netns add {namespace}"))?;
            for key in ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"] {
                command::run(&format!("ip netns exec {namespace} sysctl -qw {key}"))?;
            }
            command::run(&format!("ip -n {namespace} link set lo up"))?;
        }
        let receiving = &site.receiving;
        let pair = |namespace: &str, name: &str, mac: [u8; 6], peer: &str, peer_mac: [u8; 6], far: &str| {
            let (mac, peer_mac) = (text(mac), text(peer_mac));
            command::run(&format!(
                "ip -n {namespace} link add {name} address {mac} type veth peer name {peer} address {peer_mac} netns {far}"
            ))
        };
        pair(&generator, "g0", GENERATOR, receiving, DUT_IN, &dut)?;
        pair(&dut, "out", DUT_OUT, "s0", DEAF, &sink)?;
        for (namespace, device, address, neighbour, mac) in [
            (&generator, "g0", "203.0.113.2/24", "203.0.113.1", DUT_IN),
            (&dut, receiving, "203.0.113.1/24", "203.0.113.2", GENERATOR),
            (&dut, "out", "192.0.2.1/24", "192.0.2.2", SINK),
            (&sink, "s0", "192.0.2.2/24", "192.0.2.1", DUT_OUT),
        ] {
            command::run(&format!("ip -n {namespace} link set {device} up"))?;
            command::run(&format!("ip -n {namespace} address add {address} dev {device}"))?;
            let mac = text(mac);
            command::run(&format!(
                "ip -n {namespace} neighbour replace {neighbour} lladdr {mac} nud permanent dev {device}"
            ))?;
        }
        Ok(site)
    }

    /// The full name of a namespace: `gen`, `dut` or `sink`.
    pub fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Where to enter it.
    pub fn path(&self, host: &str) -> PathBuf {
        format!("/run/netns/{}", self.name(host)).into()
    }

    /// Runs `ip` on the forwarder.
    ///
    /// # Errors
    ///
    /// As [`command::run`].
    pub fn ip(&self, arguments: &str) -> Result<(), CommandError> {
        command::run(&format!("ip -n {} {arguments}", self.name("dut"))).map(drop)
    }

    /// Runs another command on the forwarder, with its `/sys`.
    ///
    /// # Errors
    ///
    /// As [`command::run`].
    pub fn on_dut(&self, line: &str) -> Result<(), CommandError> {
        command::run(&format!("ip netns exec {} {line}", self.name("dut"))).map(drop)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for host in ["gen", "dut", "sink"] {
            // One that was never made cannot be deleted.
            let _gone = command::run(&format!("ip netns delete {}", self.name(host)));
        }
    }
}

/// Deletes namespaces and folders of labs whose process is gone: it was killed before it could.
pub fn sweep() {
    sweep_of(PREFIX);
}

/// The same of those whose names begin so.
pub fn sweep_of(prefix: &str) {
    for namespace in left_in(Path::new("/run/netns"), prefix) {
        let _gone = command::run(&format!("ip netns delete {namespace}"));
    }
    let temporary = std::env::temp_dir();
    for folder in left_in(&temporary, prefix) {
        let _gone = std::fs::remove_dir_all(temporary.join(folder));
    }
}

/// Names in a directory that begin so, and are of a process that is gone.
fn left_in(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_left = |name: &String| {
        let process = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
    };
    names.filter(is_left).collect()
}

/// Where a lab of this process keeps its files.
pub fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()))
}

/// A MAC address as `ip` takes it.
pub fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_a_dead_process_left_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("penstock-sweep-{}", std::process::id()));
        // Process numbers end below 2^22.
        let dead = format!("{PREFIX}4194304-0-gen");
        for name in [&dead, &format!("{PREFIX}{}-0-gen", std::process::id()), "penstock-4194304", "penstock-lab-x"] {
            std::fs::create_dir_all(directory.join(name)).expect("the temporary directory can be written");
        }
        assert_eq!(left_in(&directory, PREFIX), [dead]);
        std::fs::remove_dir_all(directory).expect("as made above");
    }

    #[test]
    fn writes_a_mac_address_as_ip_takes_it() {
        assert_eq!(text(DEAF), "02:00:00:00:02:fe");
    }
}
