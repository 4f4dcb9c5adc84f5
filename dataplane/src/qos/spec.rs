//! What a shaper is built from: plain data, every value checked, every name resolved.

use crate::packet::{Class, Numbering, PortId};

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// 8 kbit/s.
    pub const MIN: u64 = 8_000;
    /// 1.6 Tbit/s.
    pub const MAX: u64 = 1_600_000_000_000;

    /// `None` outside of [`Self::MIN`] to [`Self::MAX`].
    pub const fn new(bits: u64) -> Option<Self> {
        if bits >= Self::MIN && bits <= Self::MAX { Some(Self(bits)) } else { None }
    }

    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Octets per nanosecond in Q32.32, cut.
    pub(super) const fn octets_per_ns(self) -> u64 {
        (((self.0 as u128) << 32) / 8_000_000_000) as u64
    }

    /// Octets in so many nanoseconds.
    pub const fn octets_in(self, ns: u64) -> u64 {
        (self.0 as u128 * ns as u128 / 8_000_000_000) as u64
    }
}

/// Packets per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketRate(u32);

impl PacketRate {
    /// A billion.
    pub const MAX: u32 = 1_000_000_000;

    /// `None` outside of 1 to [`Self::MAX`].
    pub const fn new(packets: u32) -> Option<Self> {
        if packets >= 1 && packets <= Self::MAX { Some(Self(packets)) } else { None }
    }

    /// Packets per second.
    pub const fn packets(self) -> u32 {
        self.0
    }

    /// Packets per nanosecond in Q16.48, cut.
    pub(super) const fn packets_per_ns(self) -> u64 {
        (((self.0 as u128) << 48) / 1_000_000_000) as u64
    }
}

/// Shares of what is left when guarantees are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The largest.
    pub const MAX: u16 = 1_000;
    /// 1.
    pub const ONE: Self = Self(1);

    /// `None` outside of 1 to [`Self::MAX`].
    pub const fn new(weight: u16) -> Option<Self> {
        if weight >= 1 && weight <= Self::MAX { Some(Self(weight)) } else { None }
    }

    /// As a number.
    pub const fn value(self) -> u16 {
        self.0
    }
}

/// What must not be exceeded: octets, packets, both or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bits per second.
    pub rate: Option<Rate>,
    /// Octets at once; half a millisecond of the rate and 18 kB at least when absent.
    pub burst: Option<u32>,
    /// Packets per second.
    pub packets: Option<PacketRate>,
    /// Packets at once; half a millisecond of the rate and 32 at least when absent.
    pub packet_burst: Option<u16>,
}

/// Nanoseconds of a rate that may go at once: what a worker may oversleep.
const BURST_NS: u64 = 500_000;
/// Two jumbo frames.
const LEAST_BURST: u64 = 18_000;

impl Limit {
    /// None at all.
    pub const NONE: Self = Self { rate: None, burst: None, packets: None, packet_burst: None };

    /// At most so many bits per second.
    pub const fn of(rate: Rate) -> Self {
        Self { rate: Some(rate), ..Self::NONE }
    }

    /// Octets at once.
    pub fn burst_of(&self, rate: Rate) -> u32 {
        self.burst.unwrap_or_else(|| rate.octets_in(BURST_NS).clamp(LEAST_BURST, Self::MOST_BURST.into()) as u32)
    }

    /// Packets at once.
    pub fn packet_burst_of(&self, rate: PacketRate) -> u16 {
        let default = u64::from(rate.packets()) * BURST_NS / 1_000_000_000;
        self.packet_burst.unwrap_or(default.clamp(32, 32_767) as u16)
    }

    /// Octets that a bucket holds at most.
    pub const MOST_BURST: u32 = 1 << 30;
}

/// Which octets of a packet count against guarantees, limits and caps. A port's own rate is always counted on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// All that passes on the wire: with preamble, gap and check sequence, padded.
    L1,
    /// The Ethernet frame.
    L2,
    /// The IP packet with its outer headers.
    #[default]
    L3Outer,
    /// The IP packet that the tenant sent.
    Inner,
}

/// A port with classes, tenants, a cap or a rate. Other ports have no shaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Which.
    pub port: PortId,
    /// The link's rate; it is the driver's room that bounds it when absent.
    pub rate: Option<Rate>,
    /// What counts.
    pub account: Account,
}

/// A tunnel, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Its name: what is kept in a change is told by it.
    pub name: String,
    /// Its cap, of the port that it leaves by.
    pub cap: Limit,
}

/// A tenant, by its id; the first is `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its name: what is kept in a change is told by it.
    pub name: String,
    /// What it gets whatever others do, of each port; with its burst.
    pub guarantee: Option<Rate>,
    /// What it never gets more of, of each port.
    pub limit: Limit,
    /// Its share of what is left.
    pub weight: Weight,
}

/// How a class shares its tenant's turn with the other classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Before all others, up to so many percent of the least of the rates above it; beyond that after all others.
    Strict {
        /// 1 to 100.
        percent: u8,
    },
    /// In turn with others, by its share.
    Drr {
        /// 1 to 1,000.
        share: u16,
    },
}

/// RED's curve over the delay of the packet that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Red {
    /// Below, nothing is marked.
    pub start_ns: u32,
    /// From here on, all is marked.
    pub end_ns: u32,
    /// Probability just before the end, in thousandths.
    pub most_permille: u16,
}

impl Red {
    /// A switch's default, 150 kB to 1.5 MB at 100 Gbit/s.
    pub const SWITCH: Self = Self { start_ns: 12_000, end_ns: 120_000, most_permille: 1_000 };
    /// DCQCN's paper, 5 kB to 200 kB at 40 Gbit/s, 1 percent.
    pub const DCQCN_PAPER: Self = Self { start_ns: 1_000, end_ns: 40_000, most_permille: 10 };
    /// A blueprint for training clusters, 150 kB to 3 MB at 100 Gbit/s, 7 percent.
    pub const BLUEPRINT: Self = Self { start_ns: 12_000, end_ns: 240_000, most_permille: 70 };
}

/// CoDel's parameters (RFC 8289).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codel {
    /// Delay that is good enough.
    pub target_ns: u32,
    /// How long a delay above it is suffered.
    pub interval_ns: u32,
    /// Whatever is capable is marked above this delay: for DCTCP.
    pub ce_threshold_ns: Option<u32>,
}

impl Codel {
    /// Over the Internet.
    pub const WAN: Self = Self { target_ns: 5_000_000, interval_ns: 100_000_000, ce_threshold_ns: None };
    /// Within a data centre.
    pub const DATA_CENTRE: Self = Self { target_ns: 500_000, interval_ns: 10_000_000, ce_threshold_ns: None };
}

/// How a class keeps its queue short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aqm {
    /// By the buffer's bound alone.
    Tail,
    /// A probability over the delay.
    Red(Red),
    /// RFC 8289.
    Codel(Codel),
    /// RFC 8290: a queue for each flow.
    FqCodel(Codel),
}

/// What happens to a packet that should carry a signal and is not capable of ECN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCapable {
    /// Dropped.
    Drop,
    /// Sent as it is.
    Pass,
}

/// One of the eight classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSpec {
    /// Its name.
    pub name: String,
    /// Its turn.
    pub service: Service,
    /// Its queue.
    pub aqm: Aqm,
    /// What the queue does with packets that cannot be marked.
    pub not_capable: NotCapable,
    /// A queue takes so many eighths of the buffer's free part.
    pub alpha_eighths: u16,
}

/// A bound of its own for what a tenant sends into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafSpec {
    /// By index.
    pub tenant: u16,
    /// By index; `None`: what leaves by ports directly.
    pub tunnel: Option<u16>,
    /// The bound.
    pub limit: Limit,
}

/// What may wait with one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Frames: chunks of memory.
    pub frames: u32,
    /// Octets.
    pub bytes: u64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which numbers tenants and tunnels have: those of the tables that are read with it.
    pub numbering: Numbering,
    /// Ports with a shaper.
    pub ports: Vec<PortSpec>,
    /// All tunnels, by id.
    pub tunnels: Vec<TunnelSpec>,
    /// All tenants, by id; `default` is the first.
    pub tenants: Vec<TenantSpec>,
    /// All classes, by number.
    pub classes: [ClassSpec; Class::COUNT],
    /// Bounds of single leaves.
    pub leaves: Vec<LeafSpec>,
    /// What may wait.
    pub buffer: Buffer,
}

/// Why there can be no such shaper.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is not even `default`.
    #[error("no tenant: the first is `default`")]
    NoTenant,
    /// Too many pairs of tenant and tunnel.
    #[error("{tenants} tenants on {ways} ways out (tunnels, and the port itself): at most {} pairs", Spec::MOST_LEAVES)]
    TooManyLeaves {
        /// Tenants.
        tenants: usize,
        /// Tunnels and one.
        ways: usize,
    },
    /// More than two classes before all others.
    #[error("{0} strict classes: at most 2")]
    TooManyStrict(usize),
    /// A share that is none.
    #[error("class {class}: a share is 1..=1000, a strict class's limit 1..=100 percent")]
    Share {
        /// Its name.
        class: String,
    },
    /// A curve that goes back, or a time of zero.
    #[error("class {class}: times are above 0, and a curve ends after its start")]
    Times {
        /// Its name.
        class: String,
    },
    /// Guarantees that the port cannot keep.
    #[error("guarantees of {guaranteed} bit/s on port {port} of {rate} bit/s")]
    Guarantees {
        /// By index.
        port: u16,
        /// Sum of all tenants'.
        guaranteed: u64,
        /// The port's.
        rate: u64,
    },
    /// A leaf of nobody.
    #[error("a bound for tenant {tenant} in tunnel {tunnel:?}: there is no such pair")]
    NoLeaf {
        /// By index.
        tenant: u16,
        /// By index.
        tunnel: Option<u16>,
    },
    /// Nothing may wait, or too much.
    #[error("a buffer of {0} frames: 64..=16777216")]
    Buffer(u32),
}

impl Spec {
    /// Pairs of tenant and tunnel at most.
    pub const MOST_LEAVES: usize = 1 << 18;

    /// One tenant, no bound, the classes of `gpu-gateway`.
    pub fn plain(tunnels: usize) -> Self {
        let tunnel = |at| TunnelSpec { name: format!("tunnel-{at}"), cap: Limit::NONE };
        Self {
            numbering: Numbering::default(),
            ports: Vec::new(),
            tunnels: (0..tunnels).map(tunnel).collect(),
            tenants: vec![TenantSpec::default()],
            classes: gpu_gateway(),
            leaves: Vec::new(),
            buffer: Buffer { frames: 4096, bytes: 64 << 20 },
        }
    }

    /// Whether it can be built.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.tenants.is_empty() {
            return Err(SpecError::NoTenant);
        }
        let (tenants, ways) = (self.tenants.len(), self.tunnels.len() + 1);
        if tenants.saturating_mul(ways) > Self::MOST_LEAVES {
            return Err(SpecError::TooManyLeaves { tenants, ways });
        }
        if !(64..=1 << 24).contains(&self.buffer.frames) {
            return Err(SpecError::Buffer(self.buffer.frames));
        }
        let strict = self.classes.iter().filter(|class| matches!(class.service, Service::Strict { .. })).count();
        if strict > 2 {
            return Err(SpecError::TooManyStrict(strict));
        }
        self.classes.iter().try_for_each(ClassSpec::check)?;
        let guaranteed: u64 = self.tenants.iter().filter_map(|tenant| tenant.guarantee).map(Rate::bits).sum();
        for port in &self.ports {
            if let Some(rate) = port.rate.map(Rate::bits).filter(|rate| guaranteed > *rate) {
                return Err(SpecError::Guarantees { port: port.port.0, guaranteed, rate });
            }
        }
        for LeafSpec { tenant, tunnel, .. } in &self.leaves {
            let exists = tunnel.is_none_or(|tunnel| usize::from(tunnel) < self.tunnels.len());
            if usize::from(*tenant) >= tenants || !exists {
                return Err(SpecError::NoLeaf { tenant: *tenant, tunnel: *tunnel });
            }
        }
        Ok(())
    }
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self { name: "default".into(), guarantee: None, limit: Limit::NONE, weight: Weight::ONE }
    }
}

impl ClassSpec {
    fn check(&self) -> Result<(), SpecError> {
        let fits = match self.service {
            Service::Strict { percent } => (1..=100).contains(&percent),
            Service::Drr { share } => (1..=1_000).contains(&share),
        };
        if !fits {
            return Err(SpecError::Share { class: self.name.clone() });
        }
        let times = match self.aqm {
            Aqm::Tail => true,
            Aqm::Red(red) => red.end_ns > red.start_ns,
            Aqm::Codel(codel) | Aqm::FqCodel(codel) => codel.target_ns > 0 && codel.interval_ns > 0,
        };
        if times { Ok(()) } else { Err(SpecError::Times { class: self.name.clone() }) }
    }
}

/// The preset `gpu-gateway`, by class number: what it matches is the classifier's.
pub fn gpu_gateway() -> [ClassSpec; Class::COUNT] {
    use NotCapable::{Drop, Pass};
    use Service::{Drr, Strict};
    let realtime = Codel { target_ns: 1_000_000, interval_ns: 20_000_000, ce_threshold_ns: None };
    let storage = Codel { ce_threshold_ns: Some(100_000), ..Codel::WAN };
    let class = |name: &str, service, aqm, not_capable, alpha_eighths| ClassSpec {
        name: name.into(),
        service,
        aqm,
        not_capable,
        alpha_eighths,
    };
    [
        class("control", Strict { percent: 5 }, Aqm::Tail, Pass, 64),
        class("realtime", Strict { percent: 20 }, Aqm::Codel(realtime), Drop, 4),
        class("roce", Drr { share: 50 }, Aqm::Red(Red::SWITCH), Pass, 16),
        class("storage", Drr { share: 20 }, Aqm::Codel(storage), Drop, 8),
        class("bulk", Drr { share: 15 }, Aqm::Codel(Codel::WAN), Drop, 4),
        class("default", Drr { share: 13 }, Aqm::FqCodel(Codel::WAN), Drop, 4),
        class("scavenger", Drr { share: 1 }, Aqm::Codel(Codel::WAN), Drop, 4),
        class("system", Drr { share: 1 }, Aqm::Tail, Pass, 4),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Spec), sentence: &str) {
        let mut spec = Spec::plain(2);
        spec.check().expect("legal before the change");
        change(&mut spec);
        assert_eq!(spec.check().expect_err("refused").to_string(), sentence);
    }

    #[test]
    fn refuses_what_cannot_be_kept() {
        refused(|spec| spec.tenants.clear(), "no tenant: the first is `default`");
        refused(
            |spec| spec.tenants.resize(100_000, TenantSpec::default()),
            "100000 tenants on 3 ways out (tunnels, and the port itself): at most 262144 pairs",
        );
        refused(|spec| spec.classes[2].service = Service::Strict { percent: 5 }, "3 strict classes: at most 2");
        let share = "class roce: a share is 1..=1000, a strict class's limit 1..=100 percent";
        refused(|spec| spec.classes[2].service = Service::Drr { share: 0 }, share);
        let red = Red { start_ns: 9, end_ns: 9, most_permille: 1 };
        let times = "class roce: times are above 0, and a curve ends after its start";
        refused(|spec| spec.classes[2].aqm = Aqm::Red(red), times);
        refused(
            |spec| {
                spec.ports.push(PortSpec { port: PortId(1), rate: Rate::new(1_000_000), account: Account::L1 });
                spec.tenants[0].guarantee = Rate::new(1_000_001);
            },
            "guarantees of 1000001 bit/s on port 1 of 1000000 bit/s",
        );
        refused(
            |spec| spec.leaves.push(LeafSpec { tenant: 0, tunnel: Some(2), limit: Limit::NONE }),
            "a bound for tenant 0 in tunnel Some(2): there is no such pair",
        );
        refused(|spec| spec.buffer.frames = 0, "a buffer of 0 frames: 64..=16777216");
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!((Rate::new(7_999), Rate::new(Rate::MAX + 1)), (None, None));
        assert_eq!((PacketRate::new(0), Weight::new(0), Weight::new(1_001)), (None, None, None));
    }
}
