//! Who shapes: Penstock, or Linux's HTB with `fq_codel` in its leaves.

use super::site::Site;
use super::{BITS_OCTETS, Options, Rates, ShapingError, TENANTS};
use crate::lab::{CommandError, Process};
use serde_json::Value;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its scheduler.
    Penstock,
    /// HTB, a leaf for each tenant, `fq_codel` in each.
    Linux,
}

impl Kind {
    /// All, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Penstock, Self::Linux];

    /// As tables and plots say it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Linux => "linux htb + fq_codel",
        }
    }
}

/// A gateway at work. Ended when dropped.
pub struct Gateway {
    penstock: Option<(Process, PathBuf, PathBuf)>,
}

impl Gateway {
    /// Sets it up.
    ///
    /// # Errors
    ///
    /// A command fails: for Linux's own, most often because the kernel has no HTB. Penstock does not get ready.
    pub fn start(kind: Kind, site: &Site, options: &Options) -> Result<Self, ShapingError> {
        match kind {
            Kind::Penstock => {
                site.on("gateway", "sysctl -qw net.ipv4.ip_forward=0")?;
                let file = site.folder().join("penstock.toml");
                let control = file.with_extension("sock");
                let process =
                    Process::start(&site.path("gateway"), &file, &config(&control, options.rates), &options.penstock)?;
                Ok(Self { penstock: Some((process, control, options.penstock.clone())) })
            }
            Kind::Linux => {
                for line in htb(options.rates) {
                    site.on("gateway", &line).map_err(first_line)?;
                }
                site.on("gateway", "sysctl -qw net.ipv4.ip_forward=1")?;
                Ok(Self { penstock: None })
            }
        }
    }

    /// Packets that it marked, as far as it says so.
    pub fn marks(&self) -> Option<u64> {
        let (_, control, binary) = self.penstock.as_ref()?;
        let output = Command::new(binary).args(["show", "qos", "--json", "--control"]).arg(control).output().ok()?;
        Some(sum_of("marked", &serde_json::from_slice(&output.stdout).ok()?))
    }
}

/// The sum of all numbers under a name, wherever they are.
fn sum_of(name: &str, value: &Value) -> u64 {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| if key == name { value.as_u64().unwrap_or(0) } else { sum_of(name, value) })
            .sum(),
        Value::Array(values) => values.iter().map(|value| sum_of(name, value)).sum(),
        _ => 0,
    }
}

/// `tc` says much when it fails.
fn first_line(error: CommandError) -> CommandError {
    match error {
        CommandError::Failed { line, message } => {
            CommandError::Failed { line, message: message.lines().next().unwrap_or_default().into() }
        }
        other => other,
    }
}

/// The file for Penstock. Routes are the kernel's.
fn config(control: &Path, rates: Rates) -> String {
    let mut text = format!(
        "[gateway]\nworkers = 1\ncontrol = {:?}\n\n[interface.red0]\n[interface.blue0]\n[interface.wan0]\nrate = \"{}k\"\n\n\
         [qos]\nclasses = \"gpu-gateway\"\n",
        control.display().to_string(),
        rates.port / 1_000,
    );
    for tenant in TENANTS {
        let address = Ipv4Addr::from(tenant.address);
        // Writing to a string cannot fail.
        let _whole = write!(text, "\n[tenant.{}]\nmatch = {{ source = \"{address}/32\" }}\n", tenant.name);
        let _whole = match tenant.name {
            "red" => writeln!(text, "guarantee = \"{}k\"", rates.guarantee() / 1_000),
            "blue" => writeln!(text, "limit = \"{}k\"", rates.limit() / 1_000),
            "bits" => writeln!(text, "limit = \"{}k\"", rates.bit_limit() / 1_000),
            "packets" => writeln!(text, "packets = \"{}pps\"", rates.packet_limit()),
            _ => Ok(()),
        };
    }
    text
}

/// The same for Linux, as far as it has it: it counts no packets. It counts a frame's Ethernet header; what the file for
/// Penstock says counts from the IP header for a tenant, and all that is on the wire for the port. So a tenant has more by
/// its packets' Ethernet headers, and each frame costs the port what is around it.
fn htb(rates: Rates) -> Vec<String> {
    let with_headers = |bits: u64, packet: u64| bits * (packet + ETHERNET) / packet;
    let small = rates.port / 200;
    let mut lines = vec![
        "tc qdisc add dev wan0 root handle 1: htb default 99".into(),
        class("1:", "1:1", rates.port, rates.port, 0),
        class("1:1", "1:5", rates.interactive(), rates.interactive(), 0),
        "tc filter add dev wan0 parent 1: prio 1 protocol ip u32 match ip tos 0xb8 0xfc flowid 1:5".into(),
    ];
    for (at, tenant) in TENANTS.iter().enumerate() {
        let address = Ipv4Addr::from(tenant.address);
        let own = format!("1:1{at}");
        let (rate, ceil) = match tenant.name {
            "red" => (with_headers(rates.guarantee(), FULL), rates.port),
            "blue" => (small, with_headers(rates.limit(), FULL)),
            "bits" => (small, with_headers(rates.bit_limit(), BITS_OCTETS as u64 + 28)),
            _ => (small, rates.port),
        };
        lines.push(class("1:1", &own, rate, ceil, 1));
        lines.push(format!("tc qdisc add dev wan0 parent {own} fq_codel"));
        lines.push(format!(
            "tc filter add dev wan0 parent 1: prio 2 protocol ip u32 match ip src {address}/32 flowid {own}"
        ));
    }
    lines
}

/// A class of HTB. Its bursts are as long as Penstock's are by default: those that `tc` would choose hold one packet, and a
/// timer that is late once costs the class its rate. Those below the port take turns of one packet: else HTB shares what is
/// left by rates, not evenly.
fn class(parent: &str, own: &str, rate: u64, ceil: u64, prio: u32) -> String {
    // Around a frame: preamble 8, check sequence 4, gap 12.
    let more = if parent == "1:" { "overhead 24 mpu 84" } else { "quantum 1514" };
    let [burst, cburst] = [rate, ceil].map(|bits| (bits / 8 / 2_000).max(18_000));
    format!(
        "tc class add dev wan0 parent {parent} classid {own} htb rate {rate} ceil {ceil} burst {burst} cburst {cburst} \
         prio {prio} {more}"
    )
}

/// What the kernel counts of a frame beside its IP packet.
const ETHERNET: u64 = 14;
/// Most packets of TCP under load.
const FULL: u64 = 1_500;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// 1,514 octets of a frame for 1,500 of a packet, 1,242 for 1,228.
    #[test]
    fn both_have_the_same_of_a_packet() {
        let rates = Rates { port: 20_000_000 };
        let file = config(Path::new("/run/x.sock"), rates);
        for line in [
            "rate = \"20000k\"",
            "guarantee = \"14000k\"",
            "limit = \"8000k\"",
            "limit = \"5000k\"",
            "packets = \"1000pps\"",
        ] {
            assert!(file.contains(line), "{line} in {file}");
        }
        let lines = htb(rates).join("\n");
        for part in [
            "classid 1:1 htb rate 20000000 ceil 20000000 burst 18000 cburst 18000 prio 0 overhead 24 mpu 84",
            "classid 1:10 htb rate 14130666 ceil 20000000",
            "classid 1:11 htb rate 100000 ceil 8074666",
            "classid 1:16 htb rate 100000 ceil 5057003",
        ] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }

    #[test]
    fn sums_numbers_wherever_they_are() {
        let printed = json!({ "ports": [{ "marked": 3, "tenants": [{ "marked": 4 }] }, { "drops": { "marked": 5 } }], "other": 1 });
        assert_eq!(sum_of("marked", &printed), 12);
    }
}
