//! Tunnels: their headers as data, and what comes out of them.
//!
//! A type is one file: how long its headers are, what they are, and how to read them. Here, a `mod` line, a variant
//! of [`Kind`] and its arms. Nothing here knows of queues or of ports' drivers.

mod encap;
mod geneve;
mod gre;
mod identification;
mod ip;
mod outer;
mod quote;
mod vxlan;

pub use encap::apply;
pub use geneve::Geneve;
pub use gre::Gre;
pub use identification::Identification;
pub use ip::IpInIp;
pub use outer::{Ends, Outer};
pub use quote::Quote;
pub use vxlan::Vxlan;

use crate::hash::{QuickMap, QuickSet};
use crate::packet::{DropReason, Exit, Family, FlowHash, Packet, Traits, TunnelId, Vrf, is_link_local};
use std::net::IpAddr;
use wire::{Be16, Ecn, EtherType, Ethernet, Ipv4, Ipv6, Mac, Octets, Rewrite, Udp, decapsulate, protocol};
use zerocopy::IntoBytes;

/// A type with what only it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VXLAN (RFC 7348).
    Vxlan(Vxlan),
    /// GENEVE (RFC 8926).
    Geneve(Geneve),
    /// GRE (RFC 2784, RFC 2890).
    Gre(Gre),
    /// IP in IP (RFC 2003, RFC 4213, RFC 2473).
    Ip(IpInIp),
}

impl Kind {
    /// The type as the configuration calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::Geneve(_) => "geneve",
            Self::Gre(_) => "gre",
            Self::Ip(ip) => ip.name(),
        }
    }

    /// Octets put before an inner IP packet, outer IP header included.
    pub const fn overhead(&self, outer: Family) -> u16 {
        let ip = match outer {
            Family::V4 => Ipv4::SIZE,
            Family::V6 => Ipv6::SIZE,
        };
        let header = match self {
            Self::Vxlan(_) => Vxlan::SIZE,
            Self::Geneve(_) => Geneve::SIZE,
            Self::Gre(gre) => gre.size(),
            Self::Ip(_) => 0,
        };
        (ip + header + if self.ethernet() { Ethernet::SIZE } else { 0 }) as u16
    }

    /// Whether Ethernet frames are inside.
    pub const fn ethernet(&self) -> bool {
        match self {
            Self::Vxlan(_) => true,
            Self::Geneve(geneve) => geneve.ethernet,
            Self::Gre(gre) => gre.ethernet,
            Self::Ip(_) => false,
        }
    }

    /// Whether packets of this family can be inside.
    pub const fn carries(&self, family: Family) -> bool {
        match self {
            Self::Vxlan(_) | Self::Geneve(_) | Self::Gre(_) => true,
            Self::Ip(ip) => matches!((ip.inner, family), (Family::V4, Family::V4) | (Family::V6, Family::V6)),
        }
    }

    /// Which IP is outside, if the type says so.
    pub const fn outer(&self) -> Option<Family> {
        match self {
            Self::Vxlan(_) | Self::Geneve(_) | Self::Gre(_) => None,
            Self::Ip(ip) => Some(ip.outer),
        }
    }

    /// Outer protocol, and UDP destination port or 0.
    pub const fn carrier(&self) -> (u8, u16) {
        match self {
            Self::Vxlan(vxlan) => (protocol::UDP, vxlan.port),
            Self::Geneve(geneve) => (protocol::UDP, geneve.port),
            Self::Gre(_) => (protocol::GRE, 0),
            Self::Ip(ip) => (ip.protocol(), 0),
        }
    }

    /// What tells this tunnel from others of its type between the same two ends.
    pub const fn identifier(&self) -> u64 {
        match self {
            Self::Vxlan(vxlan) => vxlan.vni.value() as u64,
            Self::Geneve(geneve) => geneve.vni.value() as u64,
            Self::Gre(gre) => Gre::identifier(gre.key),
            Self::Ip(_) => 0,
        }
    }

    /// Appends everything behind the link-layer header. `inner` are the addresses of the inner Ethernet header, if
    /// there is to be one; without, the packet brings its own.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        match self {
            Self::Vxlan(vxlan) => vxlan.headers(outer, inner, rewrite),
            Self::Geneve(geneve) => geneve.headers(outer, inner, rewrite),
            Self::Gre(gre) => gre.headers(outer, inner, rewrite),
            Self::Ip(ip) => ip.headers(outer, rewrite),
        }
        outer.sum_udp(rewrite);
    }

    const fn format(&self) -> Format {
        match self {
            Self::Vxlan(_) => Format::Vxlan,
            Self::Geneve(_) => Format::Geneve,
            Self::Gre(_) => Format::Gre,
            Self::Ip(_) => Format::Ip,
        }
    }
}

/// How what arrives from a tunnel's other end is read, whichever tunnel of this type it turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Vxlan,
    Geneve,
    Gre,
    Ip,
}

impl Format {
    /// Reads the header that starts `at` octets in.
    #[inline(always)]
    fn read(self, packet: &Packet, at: usize) -> Result<Found, Exit> {
        match self {
            Self::Vxlan => Vxlan::read(packet.frame.bytes(), at),
            Self::Geneve => Geneve::read(packet.frame.bytes(), at),
            Self::Gre => Gre::receive(packet),
            Self::Ip => Ok(IpInIp::read(packet.protocol)),
        }
    }

    /// What a packet with an identifier of nobody's is dropped as.
    const fn unknown(self) -> DropReason {
        match self {
            Self::Vxlan | Self::Geneve => DropReason::UnknownVni,
            Self::Gre | Self::Ip => DropReason::UnknownKey,
        }
    }
}

/// What a received tunnel header says.
struct Found {
    /// Which tunnel between the two ends.
    identifier: u64,
    /// Octets of the header.
    size: u16,
    /// Words of options at its end.
    options: u8,
    /// What is behind it.
    inside: Inside,
}

/// What a tunnel packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// An Ethernet frame.
    Ethernet,
    /// A bare IP packet.
    Ip(Family),
}

/// Appends the inner Ethernet header, whose type follows the packet; without addresses the packet keeps its own.
fn inner_ethernet(addresses: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
    match addresses {
        Some((destination, source)) => {
            rewrite.push(Ethernet { destination, source, ethertype: Be16::new(0) }.as_bytes());
            rewrite.ethertype = rewrite.count - 2;
        }
        None => rewrite.keep = 1,
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

/// The part of the demultiplexing key that says "a tunnel's", whichever it is: both ends, protocol, UDP port.
type Between = (Ends, u8, u16);

/// All tunnels, and how packets find theirs.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    tunnels: Vec<Tunnel>,
    /// One bit per protocol: of most packets this is all that is looked at.
    protocols: [u64; 4],
    /// One bit per UDP port modulo 64: most UDP needs no more than a look at it.
    ports: u64,
    /// The demultiplexing key: both ends, protocol, UDP port, identifier.
    keys: QuickMap<(Between, u64), TunnelId>,
    /// How what arrives between two ends is read.
    between: QuickMap<Between, Format>,
    /// The part of that which every fragment shows.
    ends: QuickSet<Ends>,
}

impl Tunnels {
    /// By id, in order.
    pub fn new(tunnels: Vec<Tunnel>) -> Self {
        let mut all = Self::default();
        for (at, tunnel) in tunnels.iter().enumerate() {
            let (protocol, port) = tunnel.kind.carrier();
            let errors = if tunnel.ends.family() == Family::V4 { protocol::ICMP } else { protocol::ICMPV6 };
            let between = (tunnel.ends, protocol, port);
            for protocol in [protocol, errors] {
                all.protocols[usize::from(protocol / 64)] |= 1 << (protocol % 64);
            }
            all.ports |= 1 << (port % 64);
            all.keys.insert((between, tunnel.kind.identifier()), TunnelId(at as u16));
            all.between.insert(between, tunnel.kind.format());
            all.ends.insert(tunnel.ends);
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
    /// Drops what is a tunnel's but not valid; punts what is for the tunnel's device (ARP, groups); diverts ICMP errors about
    /// what we sent into a tunnel; keeps fragments until they are whole.
    #[inline(always)]
    pub fn decap(&self, packet: &mut Packet, hash: &FlowHash) -> Result<(), Exit> {
        if packet.traits.has(Traits::FRAGMENT) {
            return self.reassemble(packet);
        }
        if self.protocols[usize::from(packet.protocol / 64)] & 1 << (packet.protocol % 64) == 0 {
            return Ok(());
        }
        self.decap_ours(packet, hash)
    }

    #[inline]
    fn decap_ours(&self, packet: &mut Packet, hash: &FlowHash) -> Result<(), Exit> {
        if matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6) {
            return self.divert_error(packet);
        }
        let mut at = usize::from(packet.l4);
        let mut port = 0;
        if packet.protocol == protocol::UDP {
            let Some(udp) = packet.frame.bytes().header::<Udp>(at) else { return Ok(()) };
            port = udp.destination.value();
            if self.ports & 1 << (port % 64) == 0 {
                return Ok(());
            }
            at += Udp::SIZE;
        }
        let between = (Ends::of_received(packet), packet.protocol, port);
        let Some(&format) = self.between.get(&between) else { return Ok(()) };
        if packet.protocol == protocol::UDP {
            verify_udp(packet)?;
        }
        let found = format.read(packet, at)?;
        let Some(&id) = self.keys.get(&(between, found.identifier)) else {
            return Err(Exit::Drop(format.unknown()));
        };
        self.enter(packet, id, at, found, hash)
    }

    /// The packet goes on as what is inside of tunnel `id`, whose header starts `at` octets in.
    #[inline]
    fn enter(&self, packet: &mut Packet, id: TunnelId, at: usize, found: Found, hash: &FlowHash) -> Result<(), Exit> {
        let Some(tunnel) = self.get(id) else { return Err(Exit::Drop(DropReason::UnknownVni)) };
        let outer = Ecn::of(packet.tos);
        if !packet.frame.advance(at + usize::from(found.size)) {
            return Err(Exit::Drop(DropReason::TunnelTruncated));
        }
        packet.tunnel = id;
        packet.vrf = tunnel.vrf;
        packet.traits = packet.traits.inner();
        // Each by itself: with one way out for both, all that go on are slower by a tenth.
        match found.inside {
            Inside::Ethernet if tunnel.kind.ethernet() => packet
                .enter_inner_ethernet(tunnel.mac, tunnel.has_device)
                .map_err(|exit| for_device(packet, exit, found.inside, outer))?,
            Inside::Ip(family) if !tunnel.kind.ethernet() => packet
                .enter_inner_ip(family, tunnel.has_device)
                .map_err(|exit| for_device(packet, exit, found.inside, outer))?,
            _ => return Err(Exit::Drop(DropReason::InnerType)),
        }
        packet.parse(hash)?;
        if let Some(allowed) = &tunnel.allowed_sources {
            let source = packet.source();
            // The other end itself speaks from such an address, and nobody behind it can: it is never forwarded.
            if !is_link_local(source) && !allowed.iter().any(|prefix| prefix.contains(&source)) {
                return Err(Exit::Drop(DropReason::SpoofedSource));
            }
        }
        packet.options = found.options;
        carry_ecn(packet, outer)
    }

    /// Fragments between two ends of a tunnel: only the first would tell whose the datagram is, and may come last.
    #[cold]
    fn reassemble(&self, packet: &Packet) -> Result<(), Exit> {
        if self.ends.contains(&Ends::of_received(packet)) { Err(Exit::Reassemble) } else { Ok(()) }
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

/// What is for the tunnel's device came out of the tunnel like any other packet: congestion met outside reaches its header
/// too. What has no such header (ARP) is as it was.
#[cold]
fn for_device(packet: &mut Packet, exit: Exit, inside: Inside, outer: Ecn) -> Exit {
    if matches!(exit, Exit::Drop(_)) {
        return exit;
    }
    packet.len = packet.frame.total().saturating_sub(packet.l3.into()) as u32;
    let family = match inside {
        Inside::Ip(family) => Some(family),
        Inside::Ethernet => match packet.frame.bytes().header(0).map(|header: &Ethernet| header.ethertype.value()) {
            Some(EtherType::IPV4) => Some(Family::V4),
            Some(EtherType::IPV6) => Some(Family::V6),
            _ => None,
        },
    };
    let tos = family.and_then(|family| {
        packet.family = family;
        match family {
            Family::V4 => packet.ipv4().filter(|header| header.version() == 4).map(|header| header.tos),
            Family::V6 => packet.ipv6().filter(|header| header.version() == 6).map(Ipv6::traffic_class),
        }
    });
    let Some(tos) = tos else { return exit };
    packet.tos = tos;
    carry_ecn(packet, outer).err().unwrap_or(exit)
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
            packet.set_ecn(ecn);
            Ok(())
        }
        None => Err(Exit::Drop(DropReason::EcnNotCapable)),
    }
}

#[cfg(test)]
mod tests;
