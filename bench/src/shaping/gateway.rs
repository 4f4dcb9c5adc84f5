//! Who shapes: Penstock, or Linux's HTB with `fq_codel` in its leaves.

use super::site::Site;
use super::{BIT_LIMIT, GUARANTEE, LIMIT, PACKET_LIMIT, PORT_RATE, ShapingError, TENANTS};
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
    pub fn start(kind: Kind, site: &Site, binary: &Path) -> Result<Self, ShapingError> {
        match kind {
            Kind::Penstock => {
                site.on("gateway", "sysctl -qw net.ipv4.ip_forward=0")?;
                let file = site.folder().join("penstock.toml");
                let control = file.with_extension("sock");
                let process = Process::start(&site.path("gateway"), &file, &config(&control), binary)?;
                Ok(Self { penstock: Some((process, control, binary.into())) })
            }
            Kind::Linux => {
                for line in htb() {
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
fn config(control: &Path) -> String {
    let mut text = format!(
        "[gateway]\nworkers = 1\ncontrol = {:?}\n\n[interface.red0]\n[interface.blue0]\n[interface.wan0]\nrate = \"{}M\"\n\n\
         [qos]\nclasses = \"gpu-gateway\"\n",
        control.display().to_string(),
        PORT_RATE / 1_000_000,
    );
    for tenant in TENANTS {
        let address = Ipv4Addr::from(tenant.address);
        // Writing to a string cannot fail.
        let _whole = write!(text, "\n[tenant.{}]\nmatch = {{ source = \"{address}/32\" }}\n", tenant.name);
        let _whole = match tenant.name {
            "red" => writeln!(text, "guarantee = \"{}M\"", GUARANTEE / 1_000_000),
            "blue" => writeln!(text, "limit = \"{}M\"", LIMIT / 1_000_000),
            "bits" => writeln!(text, "limit = \"{}M\"", BIT_LIMIT / 1_000_000),
            "packets" => writeln!(text, "packets = \"{}kpps\"", PACKET_LIMIT / 1_000),
            _ => Ok(()),
        };
    }
    text
}

/// The same for Linux, as far as it has it: it counts no packets.
fn htb() -> Vec<String> {
    let mut lines = vec![
        "tc qdisc add dev wan0 root handle 1: htb default 99".into(),
        format!("tc class add dev wan0 parent 1: classid 1:1 htb rate {PORT_RATE} ceil {PORT_RATE}"),
        "tc class add dev wan0 parent 1:1 classid 1:5 htb rate 40mbit ceil 40mbit prio 0".into(),
        "tc filter add dev wan0 parent 1: prio 1 protocol ip u32 match ip tos 0xb8 0xfc flowid 1:5".into(),
    ];
    for (at, tenant) in TENANTS.iter().enumerate() {
        let address = Ipv4Addr::from(tenant.address);
        let class = format!("1:1{at}");
        let (rate, ceil) = match tenant.name {
            "red" => (GUARANTEE, PORT_RATE),
            "blue" => (1_000_000, LIMIT),
            "bits" => (1_000_000, BIT_LIMIT),
            _ => (1_000_000, PORT_RATE),
        };
        lines.push(format!("tc class add dev wan0 parent 1:1 classid {class} htb rate {rate} ceil {ceil} prio 1"));
        lines.push(format!("tc qdisc add dev wan0 parent {class} fq_codel"));
        lines.push(format!(
            "tc filter add dev wan0 parent 1: prio 2 protocol ip u32 match ip src {address}/32 flowid {class}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sums_numbers_wherever_they_are() {
        let printed = json!({ "ports": [{ "marked": 3, "tenants": [{ "marked": 4 }] }, { "drops": { "marked": 5 } }], "other": 1 });
        assert_eq!(sum_of("marked", &printed), 12);
    }
}
