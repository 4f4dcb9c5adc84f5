//! Tunnels: their headers as data, and what comes out of them.
//!
//! A type is one file: how long its headers are, what they are, and how to read them. Here, a `mod` line, a variant
//! of [`Kind`] and its arms. Nothing here knows of queues or of ports' drivers.

mod encap;
mod identification;
mod outer;
mod vxlan;

pub use encap::apply;
pub use identification::Identification;
pub use outer::{Ends, Outer};
pub use vxlan::Vxlan;

use crate::hash::{QuickMap, QuickSet};
use crate::packet::{DropReason, Exit, Family, FlowHash, Packet, Traits, TunnelId, Vrf, is_link_local};
use std::net::IpAddr;
use wire::{Be16, Ecn, Ipv4, Ipv6, Mac, Octets, Rewrite, Udp, decapsulate, header_mut, protocol};

/// A type with what only it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VXLAN (RFC 7348).
    Vxlan(Vxlan),
}

impl Kind {
    /// Octets put before an inner IP packet, outer IP header included.
    pub const fn overhead(&self, outer: Family) -> u16 {
        let ip = match outer {
            Family::V4 => Ipv4::SIZE,
            Family::V6 => Ipv6::SIZE,
        };
        (ip + match self {
            Self::Vxlan(_) => Vxlan::OVERHEAD,
        }) as u16
    }

    /// Whether Ethernet frames are inside.
    pub const fn ethernet(&self) -> bool {
        match self {
            Self::Vxlan(_) => true,
        }
    }

    /// Appends everything behind the link-layer header. `inner` are the addresses of the inner Ethernet header, if
    /// there is to be one; without, the packet brings its own.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        match self {
            Self::Vxlan(vxlan) => vxlan.headers(outer, inner, rewrite),
        }
    }

    /// What tells this tunnel from others between the same two ends.
    const fn discriminator(&self) -> (u16, u32) {
        match self {
            Self::Vxlan(vxlan) => (vxlan.port, vxlan.vni.value()),
        }
    }
}

/// The inside of a tunnel, as packets come out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name in the configuration.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Where inner packets are looked up.
    pub vrf: Vrf,
    /// Both outer addresses and the VRF that they are in.
    pub ends: Ends,
    /// Largest inner IP packet, octets.
    pub mtu: u16,
    /// Whether the MSS of TCP is clamped.
    pub clamp: bool,
    /// Its own inner MAC.
    pub mac: Mac,
    /// Whether it has a device of the kernel.
    pub has_device: bool,
    /// Inner sources that may come out of it: prefixes as (first address, length); anything when `None`.
    pub allowed_sources: Option<Vec<ipnet::IpNet>>,
    /// Its addresses: the first is the source of ICMP errors.
    pub addresses: Vec<IpAddr>,
}

/// All tunnels, and how packets find theirs.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    tunnels: Vec<Tunnel>,
    /// One bit per UDP port modulo 64: most UDP needs no more than a look at it.
    ports: u64,
    /// The demultiplexing key: both ends, UDP port, identifier.
    keys: QuickMap<(Ends, u16, u32), TunnelId>,
    /// The part of it that says "a tunnel's", whatever the identifier.
    between: QuickSet<(Ends, u16)>,
}

impl Tunnels {
    /// By id, in order.
    pub fn new(tunnels: Vec<Tunnel>) -> Self {
        let mut all = Self::default();
        for (at, tunnel) in tunnels.iter().enumerate() {
            let (port, identifier) = tunnel.kind.discriminator();
            all.ports |= 1 << (port % 64);
            all.keys.insert((tunnel.ends, port, identifier), TunnelId(at as u16));
            all.between.insert((tunnel.ends, port));
        }
        all.tunnels = tunnels;
        all
    }

    /// The tunnel of an id.
    #[inline(always)]
    pub fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.tunnels.get(id.index())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.tunnels.iter().enumerate().map(|(at, tunnel)| (TunnelId(at as u16), tunnel))
    }

    /// If the packet is one of a tunnel's, takes the outer headers off; the inner packet then has passed every check
    /// of `parse`. Any other packet stays as it is.
    ///
    /// # Errors
    ///
    /// Drops what is a tunnel's but not valid; punts what is for the tunnel's device (ARP, groups).
    #[inline(always)]
    pub fn decap(&self, packet: &mut Packet, hash: &FlowHash) -> Result<(), Exit> {
        if self.ports == 0 || packet.protocol != protocol::UDP {
            return Ok(());
        }
        self.decap_udp(packet, hash)
    }

    #[inline]
    fn decap_udp(&self, packet: &mut Packet, hash: &FlowHash) -> Result<(), Exit> {
        if packet.traits.has(Traits::FRAGMENT) {
            return self.refuse_fragment(packet);
        }
        let l4 = usize::from(packet.l4);
        let Some(udp) = packet.frame.bytes().header::<Udp>(l4) else { return Ok(()) };
        let port = udp.destination.value();
        if self.ports & 1 << (port % 64) == 0 {
            return Ok(());
        }
        let ends = Ends::of_received(packet);
        if !self.between.contains(&(ends, port)) {
            return Ok(());
        }
        verify_udp(packet)?;
        let octets = packet.frame.bytes();
        let payload = l4 + Udp::SIZE;
        // One type so far has UDP outside; a second will be told by its port.
        let (vni, header) = Vxlan::read(octets, payload)?;
        let Some(&id) = self.keys.get(&(ends, port, vni.value())) else {
            return Err(Exit::Drop(DropReason::UnknownVni));
        };
        self.enter(packet, id, payload + header, hash)
    }

    /// The packet goes on as what is inside of tunnel `id`, which starts `at` octets in.
    #[inline]
    fn enter(&self, packet: &mut Packet, id: TunnelId, at: usize, hash: &FlowHash) -> Result<(), Exit> {
        let Some(tunnel) = self.get(id) else { return Err(Exit::Drop(DropReason::UnknownVni)) };
        let outer = Ecn::of(packet.tos);
        if !packet.frame.advance(at) {
            return Err(Exit::Drop(DropReason::TunnelTruncated));
        }
        packet.tunnel = id;
        packet.vrf = tunnel.vrf;
        packet.traits = packet.traits.inner();
        packet.enter_inner_ethernet(tunnel.mac, tunnel.has_device)?;
        packet.parse(hash)?;
        if let Some(allowed) = &tunnel.allowed_sources {
            let source = packet.source();
            // The other end itself speaks from such an address, and nobody behind it can: it is never forwarded.
            if !is_link_local(source) && !allowed.iter().any(|prefix| prefix.contains(&source)) {
                return Err(Exit::Drop(DropReason::SpoofedSource));
            }
        }
        carry_ecn(packet, outer)
    }

    /// Fragments between two ends of a tunnel. The first one tells whose the datagram is; the others go where all goes that
    /// is for the host, which drops them when it never sees the first.
    #[cold]
    fn refuse_fragment(&self, packet: &Packet) -> Result<(), Exit> {
        let udp = packet.frame.bytes().header::<Udp>(packet.l4.into());
        match udp.filter(|_| !packet.traits.has(Traits::LATER_FRAGMENT)) {
            Some(udp) if self.between.contains(&(Ends::of_received(packet), udp.destination.value())) => {
                Err(Exit::Drop(DropReason::OuterFragment))
            }
            _ => Ok(()),
        }
    }
}

/// RFC 768 and RFC 6935: the length fits, and a checksum that is there is right. A zero is taken on both families:
/// RFC 6936 allows it to tunnels over IPv6.
#[inline]
fn verify_udp(packet: &Packet) -> Result<(), Exit> {
    let Some(udp) = packet.frame.bytes().header::<Udp>(packet.l4.into()) else {
        return Err(Exit::Drop(DropReason::TunnelTruncated));
    };
    let rest = u32::from(packet.l3) + packet.len - u32::from(packet.l4);
    if u32::from(udp.length.value()) != rest {
        return Err(Exit::Drop(DropReason::TunnelTruncated));
    }
    // Where hardware was to finish the checksum, the packet never left this host's memory.
    if udp.checksum.value() != 0
        && !packet.traits.has(Traits::UNFINISHED)
        && packet.transport_sum(packet.pseudo_header()).folded() != 0xffff
    {
        return Err(Exit::Drop(DropReason::TunnelChecksum));
    }
    Ok(())
}

/// RFC 6040 §4.2: congestion met outside reaches the inner header.
#[inline]
fn carry_ecn(packet: &mut Packet, outer: Ecn) -> Result<(), Exit> {
    let inner = Ecn::of(packet.tos);
    let result = decapsulate(inner, outer);
    if result.alarm {
        packet.traits.set(Traits::ECN_ALARM);
    }
    match result.inner {
        Some(ecn) if ecn == inner => Ok(()),
        Some(ecn) => {
            set_ecn(packet, ecn);
            Ok(())
        }
        None => Err(Exit::Drop(DropReason::EcnNotCapable)),
    }
}

/// Writes the ECN field of the packet's IP header.
#[cold]
fn set_ecn(packet: &mut Packet, ecn: Ecn) {
    let l3 = usize::from(packet.l3);
    let tos = packet.tos & !3 | ecn as u8;
    match packet.family {
        Family::V4 => {
            if let Some(header) = header_mut::<Ipv4>(packet.frame.bytes_mut(), l3) {
                let old = u16::from_be_bytes([header.version_ihl, header.tos]);
                let new = u16::from_be_bytes([header.version_ihl, tos]);
                header.tos = tos;
                header.checksum = Be16::new(wire::checksum::update(header.checksum.value(), old, new));
            }
        }
        Family::V6 => {
            if let Some(header) = header_mut::<Ipv6>(packet.frame.bytes_mut(), l3) {
                header.set_traffic_class(tos);
            }
        }
    }
    packet.tos = tos;
}

#[cfg(test)]
mod tests;
