//! A packet, and the ways in which it can leave the page.
//!
//! A packet is 64 octets that own their frame. It is boxed once, at start; batches and queues hold the box, so
//! a packet never moves. Every decision about it is a field here.

pub mod batch;
mod exit;
mod flow;
mod layer2;
mod layer3;
pub mod stock;

pub use batch::{Batch, Exits};
pub use exit::{DropReason, Exit, Owed, PuntReason};
pub use flow::FlowHash;
pub use stock::Stock;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{Ipv4, Ipv6, Octets};
use xsk::Frame;

/// A moment, in nanoseconds since a start that the clock chooses: the system's monotonic clock in a running
/// gateway, the capture's in `replay`, virtual in simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// Nanoseconds since `earlier`; 0 if that is later.
    #[inline(always)]
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a ring was given and has not been seen to complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Descriptors.
    pub descriptors: usize,
    /// Octets on an Ethernet link: of frames, with check sequence, preamble and gap.
    pub octets: u64,
}

/// Index of a port: an interface of the configuration, a VLAN of one, a tunnel's device, or `penstock0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// Index of a tunnel of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u16);

/// Index of a tenant of the configuration; 0 is `default`, of whatever no other tenant matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u16);

/// One of the eight classes that each tenant's packets are queued in: the lower three bits. A packet's has in the others
/// which [`Numbering`] its tenant and the tunnel that it goes into are told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

/// Which numbers tenants and tunnels have. A change of the file that gives them others has the next one, so that what waits
/// is not taken for somebody else's. It wraps around: what waited for thirty changes is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numbering(u8);

/// Index of a routing table instance; 0 is `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrf(pub u16);

/// Index of an adjacency. 0 is none: what the FIB says where it has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdjacencyId(pub u32);

impl PortId {
    /// No port.
    pub const NONE: Self = Self(u16::MAX);

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TunnelId {
    /// No tunnel.
    pub const NONE: Self = Self(u16::MAX);

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl TenantId {
    /// The tenant that always exists.
    pub const DEFAULT: Self = Self(0);

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// `None` for anything that is not below [`Self::COUNT`].
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// As an index, below [`Self::COUNT`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize % Self::COUNT
    }

    /// Of a packet whose tenant and tunnel are told by these numbers.
    #[inline(always)]
    pub const fn numbered(self, numbering: Numbering) -> Self {
        Self((self.0 % Self::COUNT as u8) | (numbering.0 << 3))
    }

    /// By which numbers the packet's tenant and tunnel are told.
    #[inline(always)]
    pub const fn numbering(self) -> Numbering {
        Numbering(self.0 >> 3)
    }
}

impl Numbering {
    /// That of the next change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 + 1) % 32)
    }
}

impl AdjacencyId {
    /// No route.
    pub const NONE: Self = Self(0);

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Vrf {
    /// The VRF that always exists.
    pub const DEFAULT: Self = Self(0);

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Unique on a link only: 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291 §2.5.6).
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Which IP a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Which IP an address is of.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Where a packet enters the page, and so what it has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A port received it: it loses a hop.
    Port,
    /// The gateway made it: it loses none.
    Gateway,
    /// It was on the page before and waited, or is a fragment of one that was: it has lost its hop.
    Queue,
    /// The host sent it into a tunnel's device: it is not routed, however often it waits, and loses no hop.
    Device,
}

/// What `parse` found out beside the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(u8);

impl Traits {
    /// The port's peer may leave transport checksums to hardware that is not there (veth, TAP).
    pub const UNFINISHED: u8 = 1 << 0;
    /// A fragment, be it the first.
    pub const FRAGMENT: u8 = 1 << 1;
    /// A fragment that does not hold the transport header.
    pub const LATER_FRAGMENT: u8 = 1 << 2;
    /// Routers may not fragment it.
    pub const DONT_FRAGMENT: u8 = 1 << 3;
    /// Addressed to a group on the link layer: no ICMP error may be owed (RFC 1812 §4.3.2.7).
    pub const LINK_GROUP: u8 = 1 << 4;
    /// Source or destination is link-local: delivered, never forwarded (RFC 3927 §7, RFC 4291 §2.5.6).
    pub const LINK_LOCAL: u8 = 1 << 5;
    /// It carried a VLAN tag.
    pub const TAGGED: u8 = 1 << 6;
    /// Its ECN fields, outer and inner, make a combination that should not be (RFC 6040 §4.2).
    pub const ECN_ALARM: u8 = 1 << 7;

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// Sets `bits`.
    #[inline(always)]
    pub const fn set(&mut self, bits: u8) {
        self.0 |= bits;
    }

    /// Keeps only what is known of a frame before its IP header is looked at.
    pub const fn received(self) -> Self {
        Self(self.0 & (Self::UNFINISHED | Self::TAGGED | Self::LINK_GROUP))
    }

    /// Keeps only what the port said, for the header that stands further in.
    #[inline(always)]
    pub const fn inner(self) -> Self {
        Self(self.0 & (Self::UNFINISHED | Self::TAGGED))
    }
}

/// One packet and every decision about it.
#[repr(align(64))]
pub struct Packet {
    /// Its octets.
    pub frame: Frame,
    /// When it was received.
    pub arrived: Time,
    /// Where it goes: set by the lookup.
    pub adjacency: AdjacencyId,
    /// The adjacency's generation when the packet was queued.
    pub generation: u32,
    /// Hash of the flow that it belongs to ([`FlowHash`]).
    pub flow: u32,
    /// Octets of the IP packet.
    pub len: u32,
    /// Offset of the IP header in the frame.
    pub l3: u16,
    /// Offset of the transport header in the frame.
    pub l4: u16,
    /// The logical port it came in by.
    pub ingress: PortId,
    /// The routing table instance that it is looked up in.
    pub vrf: Vrf,
    /// The port whose queue it waits in.
    pub egress: PortId,
    /// The tunnel it came out of.
    pub tunnel: TunnelId,
    /// The tunnel it goes into: set with the port, it chooses the queue.
    pub into: TunnelId,
    /// Whose it is: set by the classifier.
    pub tenant: TenantId,
    /// Which of its tenant's queues it waits in: set by the classifier.
    pub class: Class,
    /// Octets that its tunnel puts before the IP packet; what waits is charged for them.
    pub overhead: u8,
    /// Which IP.
    pub family: Family,
    /// Transport protocol: behind all extension headers that `parse` could follow.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Where it entered the page.
    pub origin: Origin,
    /// What else `parse` found.
    pub traits: Traits,
    /// GENEVE options that it came with, in words of four octets; they stand before the frame's first octet.
    pub options: u8,
}

const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// A packet without a frame.
    pub const fn empty() -> Self {
        Self {
            frame: Frame::empty(),
            arrived: Time(0),
            adjacency: AdjacencyId::NONE,
            generation: 0,
            flow: 0,
            len: 0,
            l3: 0,
            l4: 0,
            ingress: PortId::NONE,
            vrf: Vrf::DEFAULT,
            egress: PortId::NONE,
            tunnel: TunnelId::NONE,
            into: TunnelId::NONE,
            tenant: TenantId::DEFAULT,
            class: Class(0),
            overhead: 0,
            family: Family::V4,
            protocol: 0,
            tos: 0,
            origin: Origin::Port,
            traits: Traits(0),
            options: 0,
        }
    }

    /// The IPv4 header; `None` if the packet is something else.
    #[inline(always)]
    pub fn ipv4(&self) -> Option<&Ipv4> {
        if self.family == Family::V4 { self.frame.bytes().header(self.l3.into()) } else { None }
    }

    /// The IPv6 header; `None` if the packet is something else.
    #[inline(always)]
    pub fn ipv6(&self) -> Option<&Ipv6> {
        if self.family == Family::V6 { self.frame.bytes().header(self.l3.into()) } else { None }
    }

    /// Source address, for the slow path. Unspecified if there is no header.
    pub fn source(&self) -> IpAddr {
        self.address(|v4| v4.source.value(), Ipv6::source_bits)
    }

    /// Destination address, for the slow path. Unspecified if there is no header.
    pub fn destination(&self) -> IpAddr {
        self.address(|v4| v4.destination.value(), Ipv6::destination_bits)
    }

    fn address(&self, v4: impl Fn(&Ipv4) -> u32, v6: impl Fn(&Ipv6) -> u128) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::from_bits(self.ipv4().map_or(0, v4)).into(),
            Family::V6 => Ipv6Addr::from_bits(self.ipv6().map_or(0, v6)).into(),
        }
    }

    /// Prepares a packet that has just been received: every field but the frame is as if new.
    #[inline(always)]
    pub fn receive(&mut self, frame: Frame, port: PortId, unfinished: bool, now: Time) {
        debug_assert!(self.frame.is_empty());
        self.frame = frame;
        self.arrived = now;
        self.adjacency = AdjacencyId::NONE;
        self.ingress = port;
        self.tunnel = TunnelId::NONE;
        self.tenant = TenantId::DEFAULT;
        self.class = Class(0);
        self.origin = Origin::Port;
        self.traits = Traits(if unfinished { Traits::UNFINISHED } else { 0 });
        self.options = 0;
    }

    /// Copies the decisions about `other`, not its frame: for what is made from it.
    pub fn inherit(&mut self, other: &Packet) {
        self.arrived = other.arrived;
        self.adjacency = other.adjacency;
        self.generation = other.generation;
        self.flow = other.flow;
        self.len = other.len;
        self.l3 = other.l3;
        self.l4 = other.l4;
        self.ingress = other.ingress;
        self.vrf = other.vrf;
        self.egress = other.egress;
        self.tunnel = other.tunnel;
        self.into = other.into;
        self.tenant = other.tenant;
        self.class = other.class;
        self.overhead = other.overhead;
        self.family = other.family;
        self.protocol = other.protocol;
        self.tos = other.tos;
        self.origin = other.origin;
        self.traits = other.traits;
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("source", &self.source())
            .field("destination", &self.destination())
            .field("protocol", &self.protocol)
            .field("len", &self.len)
            .field("ingress", &self.ingress)
            .field("vrf", &self.vrf)
            .field("adjacency", &self.adjacency)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
