//! What every tunnel over IP has in common: the outer IP header, and UDP behind it where the type has it.

use crate::packet::{Family, Packet, Vrf};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::checksum::Sum;
use wire::{Be16, Be32, Follows, Ipv4, Ipv6, Rewrite, Udp, protocol};
use zerocopy::IntoBytes;

/// Both outer addresses and the VRF that they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    vrf: Vrf,
    family: Family,
    local: u128,
    remote: u128,
}

impl Ends {
    /// `None` if the families differ.
    pub fn new(vrf: Vrf, local: IpAddr, remote: IpAddr) -> Option<Self> {
        match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                Some(Self { vrf, family: Family::V4, local: local.to_bits().into(), remote: remote.to_bits().into() })
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                Some(Self { vrf, family: Family::V6, local: local.to_bits(), remote: remote.to_bits() })
            }
            _ => None,
        }
    }

    /// As a packet from the other end would have them.
    #[inline(always)]
    pub fn of_received(packet: &Packet) -> Self {
        let (local, remote) = match packet.family {
            Family::V4 => {
                packet.ipv4().map_or((0, 0), |header| (header.destination.value().into(), header.source.value().into()))
            }
            Family::V6 => packet.ipv6().map_or((0, 0), |header| (header.destination_bits(), header.source_bits())),
        };
        Self { vrf: packet.vrf, family: packet.family, local, remote }
    }

    /// As a packet had them that we sent and `error` is about; `None` unless the error is for whom had sent it.
    pub(super) fn of_sent(error: &Packet, source: u128, destination: u128) -> Option<Self> {
        let ends = Self { vrf: error.vrf, family: error.family, local: source, remote: destination };
        (Self::of_received(error).local == source).then_some(ends)
    }

    /// The VRF of the outside.
    pub const fn vrf(&self) -> Vrf {
        self.vrf
    }

    /// Which IP is outside.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Our address.
    pub fn local(&self) -> IpAddr {
        self.address(self.local)
    }

    /// The other end's.
    pub fn remote(&self) -> IpAddr {
        self.address(self.remote)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

/// How the outer header is made: the keys `dscp`, `ecn`, `ttl`, `df` and `checksum` of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Both addresses.
    pub ends: Ends,
    /// DSCP 0..=63; `None` copies the inner one.
    pub dscp: Option<u8>,
    /// Copy the inner ECN (RFC 6040 normal mode) rather than send Not-ECT (compatibility mode).
    pub copy_ecn: bool,
    /// TTL 1..=255; `None` copies the inner one.
    pub ttl: Option<u8>,
    /// DF of an outer IPv4 header; `None` copies the inner one.
    pub df: Option<bool>,
    /// Compute the UDP checksum.
    pub udp_checksum: bool,
}

impl Outer {
    /// Appends the IP header for a payload of protocol `next`.
    pub fn ip(&self, next: u8, rewrite: &mut Rewrite) {
        rewrite.outer = rewrite.count;
        let tos = self.dscp.unwrap_or(0) << 2;
        let ttl = self.ttl.unwrap_or(0);
        let mut follows = 0;
        follows |= if self.dscp.is_none() { Follows::DSCP } else { 0 };
        follows |= if self.copy_ecn { Follows::ECN } else { 0 };
        follows |= if self.ttl.is_none() { Follows::TTL } else { 0 };
        match (self.ends.local(), self.ends.remote()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                if self.df.is_none() {
                    follows |= Follows::DF;
                }
                if self.df != Some(true) {
                    follows |= Follows::IDENTIFICATION;
                }
                let header = Ipv4 {
                    version_ihl: 0x45,
                    tos,
                    total_length: Be16::new(0),
                    identification: Be16::new(0),
                    fragment: Be16::new(if self.df == Some(true) { Ipv4::DF } else { 0 }),
                    ttl,
                    protocol: next,
                    checksum: Be16::new(0),
                    source: Be32::new(local.to_bits()),
                    destination: Be32::new(remote.to_bits()),
                };
                let mut sum = Sum::new();
                sum.add(header.as_bytes());
                rewrite.base_sum = sum.folded();
                rewrite.push(header.as_bytes());
            }
            _ => {
                let header = Ipv6 {
                    version_class_flow: Be32::new(6 << 28 | u32::from(tos) << 20),
                    payload_length: Be16::new(0),
                    next_header: next,
                    hop_limit: ttl,
                    source: Ipv6::address(self.ends.local),
                    destination: Ipv6::address(self.ends.remote),
                };
                rewrite.push(header.as_bytes());
            }
        }
        rewrite.follows.0 |= follows;
    }

    /// Appends IP and UDP headers for `port`.
    pub fn udp(&self, port: u16, rewrite: &mut Rewrite) {
        self.ip(protocol::UDP, rewrite);
        rewrite.follows.0 |= Follows::UDP | if self.udp_checksum { Follows::UDP_CHECKSUM } else { 0 };
        let header =
            Udp { source: Be16::new(0), destination: Be16::new(port), length: Be16::new(0), checksum: Be16::new(0) };
        rewrite.push(header.as_bytes());
    }

    /// Once all headers are there: what the UDP checksum of every packet has in common.
    pub fn sum_udp(&self, rewrite: &mut Rewrite) {
        if !rewrite.follows.has(Follows::UDP_CHECKSUM) {
            return;
        }
        let mut sum = Sum::new();
        let ip = match (self.ends.local(), self.ends.remote()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                sum.add_pseudo_v4(local.to_bits(), remote.to_bits(), protocol::UDP, 0);
                Ipv4::SIZE
            }
            _ => {
                sum.add_pseudo_v6(self.ends.local, self.ends.remote, protocol::UDP, 0);
                Ipv6::SIZE
            }
        };
        sum.add(rewrite.headers().get(usize::from(rewrite.outer) + ip..).unwrap_or(&[]));
        rewrite.udp_sum = sum.folded();
    }
}
