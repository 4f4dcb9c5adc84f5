//! The gateway's own addresses.

use crate::hash::QuickSet;
use crate::packet::{DropReason, Exit, Family, Packet, Vrf, is_link_local};
use std::net::IpAddr;

/// Own addresses by VRF, with the first of each port for ICMP errors.
#[derive(Clone, Debug, Default)]
pub struct Locals {
    /// One bit per hashed address: most packets need no more than a look at it.
    filter: [u64; 8],
    set: QuickSet<(Vrf, IpAddr)>,
}

impl Locals {
    /// Adds an own address.
    pub fn insert(&mut self, vrf: Vrf, address: IpAddr) {
        let bit = Self::bit(match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        });
        self.filter[bit / 64] |= 1 << (bit % 64);
        self.set.insert((vrf, address));
    }

    /// Whether the address is ours.
    pub fn contains(&self, vrf: Vrf, address: IpAddr) -> bool {
        self.set.contains(&(vrf, address))
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Vrf, IpAddr)> {
        self.set.iter().copied()
    }

    /// Refuses a source that is our own (RFC 1812 §5.3.7: a martian) unless we made the packet.
    ///
    /// # Errors
    ///
    /// The drop `MartianSource`.
    #[inline(always)]
    pub fn admit_source(&self, packet: &Packet) -> Result<(), Exit> {
        let low = match packet.family {
            Family::V4 => packet.ipv4().map_or(0, |header| header.source.value()),
            Family::V6 => packet.ipv6().map_or(0, |header| header.source[3].value()),
        };
        let bit = Self::bit(low);
        if self.filter[bit / 64] & 1 << (bit % 64) == 0 { Ok(()) } else { self.look_closer(packet) }
    }

    #[inline(never)]
    fn look_closer(&self, packet: &Packet) -> Result<(), Exit> {
        // Link-local addresses are unique on their link only.
        if !is_link_local(packet.source()) && self.contains(packet.vrf, packet.source()) {
            return Err(Exit::Drop(DropReason::MartianSource));
        }
        Ok(())
    }

    #[inline(always)]
    fn bit(low: u32) -> usize {
        (low.wrapping_mul(0x9e37_79b1) >> 23) as usize
    }
}
