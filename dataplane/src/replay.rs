//! `penstock replay`: captures through the forwarder, without privilege, host or wall clock.
//!
//! The pipeline, the slow path and the steering decision are those of a running gateway. Virtual time is that of the
//! captures; between two frames it stops at every moment at which something waiting is due.

use crate::config::{Config, ConfigError};
use crate::control::offline;
use crate::control::plan::Plan;
use crate::control::resolve::{ResolveError, Resolver};
use crate::io::{Capture, CaptureError, Memory, Outlet, Outlets, PcapIn, PcapOut, Port, Record};
use crate::packet::{PortId, PuntReason, Stock, Time, TunnelId};
use crate::pipeline::Pipeline;
use crate::qos::Shaper;
use crate::slow::{Limiter, Slow, Wanted};
use crate::stats::{Page, Tally, Totals};
use crate::worker::{Lane, Worker};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use steering::{HostTables, Verdict, steer};
use xsk::{ChunkSize, Umem};

/// Packets that wait for a port at most, as in a running gateway.
pub const QUEUE_LIMIT: usize = 4096;
/// Packet memory of a replay, in chunks.
const CHUNKS: usize = 8192;
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
    /// Tables could not be made.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Packet memory could not be had.
    #[error(transparent)]
    Memory(#[from] xsk::Error),
}

impl ReplayError {
    /// Whether the command was wrong, rather than its execution.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::PortFile | Self::NoSuchPort { .. } | Self::Twice { .. } | Self::NoMac { .. } | Self::Config(_)
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

/// A gateway in virtual time: one worker, ports in memory, devices that swallow.
pub struct Simulated {
    /// The worker.
    pub worker: Worker,
    page: Arc<Page>,
    steering: HostTables,
    now: Time,
}

impl Simulated {
    /// A gateway of a configuration, on a host that is as the file says.
    ///
    /// # Errors
    ///
    /// Tables or packet memory could not be made.
    pub fn new(config: &Config) -> Result<Self, ReplayError> {
        Self::with_memory(config, &Umem::new(CHUNKS, ChunkSize::Octets2048)?)
    }

    /// The same over packet memory that is there already.
    ///
    /// # Errors
    ///
    /// Tables could not be made.
    pub fn with_memory(config: &Config, umem: &Umem) -> Result<Self, ReplayError> {
        let plan = Plan::new(config, &offline::host(config));
        let mut resolver = Resolver::new()?;
        // Nobody reads yet, so there is nobody to wait for.
        resolver.update(config, &plan, &mut |_, _| {})?;
        let mut outlets = Outlets::none();
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            if !tunnel.addresses.is_empty() {
                outlets.set_tunnel(TunnelId(at as u16), Outlet::Virtual);
            }
        }
        outlets.set_host(Outlet::Virtual);
        let ports = plan.ports.len();
        let tally = Tally::new(ports, config.tunnels.len(), resolver.published().current().adjacencies.len());
        let page = tally.page();
        let slow = Slow::new(Limiter::new(config.gateway.icmp_errors_pps), outlets, Wanted::nobody());
        let pipeline = Pipeline::new(Shaper::new(ports, QUEUE_LIMIT), tally);
        let stock = Stock::new(umem.pool(64, 256), umem.chunks().min(CHUNKS));
        let mut worker = Worker::new(stock, pipeline, slow, resolver.published().reader());
        for (at, interface) in config.interfaces.iter().enumerate() {
            if interface.parent.is_none() {
                worker.open(Lane::interface(PortId(at as u16), 0, Port::Memory(Memory::new())));
            }
        }
        for at in 0..config.tunnels.len() {
            let port = Plan::tunnel_port(config, TunnelId(at as u16));
            worker.open(Lane::device(port, Port::Memory(Memory::new())));
        }
        Ok(Self { worker, page, steering: plan.steering(config), now: Time(0) })
    }

    /// A frame arrives at an interface, or comes from a tunnel's device, at `now`.
    pub fn receive(&mut self, port: PortId, frame: Vec<u8>, now: Time) {
        self.advance(now);
        let injects = self.worker.lanes.iter().any(|lane| lane.port == port && lane.injects);
        let steered = steer(frame.as_slice(), &self.steering.at(u32::from(port.0) + 1)).verdict;
        if !injects && matches!(steered, Verdict::Pass(_)) {
            // The kernel's: no worker sees it.
            self.worker.pipeline.tally.received(port, 1, frame.len() as u64);
            self.worker.pipeline.tally.punted(PuntReason::Steered);
            return;
        }
        if let Some(memory) = self.memory(port) {
            memory.put(frame);
        }
        self.settle();
    }

    /// Time goes on to `now`, stopping wherever something is due.
    pub fn advance(&mut self, now: Time) {
        while let Some(due) = self.worker.slow.deadline().filter(|due| *due < now) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = self.now.max(now);
    }

    /// Time goes on until nothing waits, for at most `patience` nanoseconds.
    pub fn finish(&mut self, patience: u64) {
        let end = Time(self.now.0.saturating_add(patience));
        while self.totals().queued != 0
            && let Some(due) = self.worker.slow.deadline().filter(|due| *due <= end)
        {
            self.now = self.now.max(due);
            self.settle();
        }
    }

    /// Rounds until nothing moves.
    fn settle(&mut self) {
        while self.worker.poll(self.now) != 0 {}
    }

    /// The oldest frame that a port sent.
    pub fn sent(&mut self, port: PortId) -> Option<(Time, Vec<u8>)> {
        self.memory(port)?.take()
    }

    fn memory(&mut self, port: PortId) -> Option<&mut Memory> {
        self.worker.lanes.iter_mut().find(|lane| lane.port == port).and_then(|lane| match &mut lane.driver {
            Port::Memory(memory) => Some(memory),
            _ => None,
        })
    }

    /// Where every packet went.
    pub fn totals(&self) -> Totals {
        Totals::of([&*self.page])
    }

    /// The counters.
    pub fn page(&self) -> &Page {
        &self.page
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
    for output in outputs {
        let port = interface(config, &output.port)?;
        if writers.contains_key(&port) {
            return Err(ReplayError::Twice { port: output.port.clone() });
        }
        writers.insert(port, PcapOut::create(&output.path)?);
    }
    let mut gateway = Simulated::new(config)?;
    // One frame of each capture is looked at; the earliest goes next, the first of the command among equals.
    let mut heads: Vec<Option<Record>> =
        captures.iter_mut().map(|(_, capture)| capture.next()).collect::<Result<_, _>>()?;
    let interfaces: Vec<PortId> = gateway.worker.lanes.iter().filter(|l| !l.injects).map(|l| l.port).collect();
    loop {
        let due = heads.iter().enumerate().filter_map(|(at, head)| head.as_ref().map(|head| (head.at, at))).min();
        match due {
            Some((now, at)) => {
                let next = captures[at].1.next()?;
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
