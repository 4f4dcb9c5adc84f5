//! `penstock replay`: captures through the forwarder, without privilege, host or wall clock.
//!
//! The pipeline, the slow path and the steering decision are those of a running gateway. Virtual time is that of the
//! captures; between two frames it stops at every moment at which something waiting is due.

use crate::config::{Config, ConfigError};
use crate::control::plan::Plan;
use crate::io::{Capture, CaptureError, PcapIn, PcapOut, Record};
use crate::packet::{PortId, Time, TunnelId};
use crate::simulate::{SimulateError, Simulated};
use crate::stats::Totals;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;

/// Virtual time that goes on after the last frame while something waits, nanoseconds.
const PATIENCE: u64 = 10 * Time::SECOND;

/// A file for a port: `lan0=in.pcap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFile {
    /// The port's name in the configuration.
    pub port: String,
    /// The capture.
    pub path: PathBuf,
}

impl std::str::FromStr for PortFile {
    type Err = ReplayError;

    fn from_str(text: &str) -> Result<Self, ReplayError> {
        match text.split_once('=') {
            Some((port, path)) if !port.is_empty() && !path.is_empty() => {
                Ok(Self { port: port.into(), path: path.into() })
            }
            _ => Err(ReplayError::PortFile),
        }
    }
}

/// Why a replay did not run.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Not `PORT=FILE`.
    #[error("a port and its file are written PORT=FILE, as lan0=in.pcap")]
    PortFile,
    /// No such port.
    #[error("{port}: no such {wanted} in the configuration; it has {legal}")]
    NoSuchPort {
        /// As given.
        port: String,
        /// What kind of name was expected.
        wanted: &'static str,
        /// The names that would be right.
        legal: String,
    },
    /// A port is named twice for output.
    #[error("{port}: two files for what it sends")]
    Twice {
        /// Its name.
        port: String,
    },
    /// A capture would be written over.
    #[error("{}: written for {port}, and named before: each capture needs a file of its own", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
        /// The port.
        port: String,
    },
    /// Frames could not be told to be for us.
    #[error("interface {port} has no mac in the configuration: without a host, replay takes it from there")]
    NoMac {
        /// The interface.
        port: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A capture is.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The gateway could not be made.
    #[error(transparent)]
    Gateway(#[from] SimulateError),
}

impl ReplayError {
    /// Whether the command was wrong, rather than its execution.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::PortFile
                | Self::NoSuchPort { .. }
                | Self::Twice { .. }
                | Self::SameFile { .. }
                | Self::NoMac { .. }
                | Self::Config(_)
        )
    }
}

/// Where every packet went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Frames from captures.
    pub received: u64,
    /// Packets that the gateway made.
    pub originated: u64,
    /// Packets sent.
    pub forwarded: u64,
    /// Packets for the host.
    pub punted: u64,
    /// Packets consumed.
    pub absorbed: u64,
    /// Packets that still waited at the end.
    pub queued: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl From<&Totals> for Balance {
    fn from(totals: &Totals) -> Self {
        Self {
            received: totals.received,
            originated: totals.originated,
            forwarded: totals.forwarded,
            punted: totals.punted(),
            absorbed: totals.absorbed,
            queued: totals.queued,
            dropped: totals.drops_by_name().map(|(reason, count)| (reason.name(), count)).collect(),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = self.dropped.values().sum();
        let rows = [
            ("received", self.received),
            ("originated", self.originated),
            ("forwarded", self.forwarded),
            ("punted", self.punted),
            ("absorbed", self.absorbed),
            ("queued", self.queued),
            ("dropped", dropped),
        ];
        for (name, count) in rows {
            writeln!(f, "{name:<12}{count:>12}")?;
        }
        for (reason, count) in &self.dropped {
            writeln!(f, "  {reason:<24}{count:>12}")?;
        }
        Ok(())
    }
}

/// Runs captures through a configuration's gateway.
///
/// # Errors
///
/// A name, a file or the configuration is wrong.
pub fn replay(config: &Config, inputs: &[PortFile], outputs: &[PortFile]) -> Result<Balance, ReplayError> {
    let mut captures = Vec::new();
    for input in inputs {
        let (port, kind) = input_port(config, &input.port)?;
        captures.push((port, PcapIn::open(&input.path, kind)?));
    }
    let mut writers: HashMap<PortId, PcapOut> = HashMap::new();
    for (at, output) in outputs.iter().enumerate() {
        // Anything may be written to a device such as /dev/null.
        let is_file = output.path.metadata().map_or(true, |found| found.is_file());
        if is_file && inputs.iter().chain(&outputs[..at]).any(|other| other.path == output.path) {
            return Err(ReplayError::SameFile { path: output.path.clone(), port: output.port.clone() });
        }
        let port = interface(config, &output.port)?;
        if writers.contains_key(&port) {
            return Err(ReplayError::Twice { port: output.port.clone() });
        }
        writers.insert(port, PcapOut::create(&output.path)?);
    }
    let mut gateway = Simulated::new(config)?;
    // One frame of each capture is looked at; the earliest goes next, the first of the command among equals.
    let mut heads: Vec<Option<Record>> =
        captures.iter_mut().map(|(_, capture)| capture.read()).collect::<Result<_, _>>()?;
    let interfaces: Vec<PortId> = gateway.worker.lanes.iter().filter(|l| !l.injects).map(|l| l.port).collect();
    loop {
        let due = heads.iter().enumerate().filter_map(|(at, head)| head.as_ref().map(|head| (head.at, at))).min();
        match due {
            Some((now, at)) => {
                let next = captures[at].1.read()?;
                if let Some(record) = std::mem::replace(&mut heads[at], next) {
                    gateway.receive(captures[at].0, record.octets, now);
                }
            }
            None => gateway.finish(PATIENCE),
        }
        for &port in &interfaces {
            while let Some((departed, octets)) = gateway.sent(port) {
                if let Some(writer) = writers.get_mut(&port) {
                    writer.write(departed, &octets)?;
                }
            }
        }
        if due.is_none() {
            break;
        }
    }
    writers.into_values().try_for_each(PcapOut::finish)?;
    let totals = gateway.totals();
    debug_assert!(totals.balances(), "{totals:?}");
    Ok(Balance::from(&totals))
}

/// An interface with rings: VLANs come in by their parent's.
fn interface(config: &Config, name: &str) -> Result<PortId, ReplayError> {
    let found = config.interfaces.iter().position(|interface| interface.name == name && interface.parent.is_none());
    found.map(|at| PortId(at as u16)).ok_or_else(|| ReplayError::NoSuchPort {
        port: name.into(),
        wanted: "interface (the frames of a VLAN are its parent's)",
        legal: names(config.interfaces.iter().filter(|i| i.parent.is_none()).map(|i| i.name.as_str())),
    })
}

/// An interface, or a tunnel with a device.
fn input_port(config: &Config, name: &str) -> Result<(PortId, Capture), ReplayError> {
    if let Some(at) = config.tunnels.iter().position(|t| t.name == name && !t.addresses.is_empty()) {
        return Ok((Plan::tunnel_port(config, TunnelId(at as u16)), Capture::Ethernet));
    }
    let port = interface(config, name)?;
    if config.interfaces[port.index()].mac.is_none() {
        return Err(ReplayError::NoMac { port: name.into() });
    }
    Ok((port, Capture::Ethernet))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
