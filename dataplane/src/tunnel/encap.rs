//! Puts an adjacency's headers before a packet. Does not know which tunnel, or whether any.

use super::Identification;
use crate::packet::{DropReason, Exit, Family, FlowHash, Packet};
use wire::checksum::Sum;
use wire::{Be16, Be32, EtherType, Ethernet, Follows, Geneve, Ipv4, Ipv6, Rewrite, Udp, header_mut, protocol};

/// The packet gets its headers. `identification` numbers outer IPv4 packets that may be fragmented (RFC 6864).
///
/// # Errors
///
/// No room before the packet, which only one wrapped more often than any path does can lack.
#[inline(always)]
pub fn apply(rewrite: &Rewrite, packet: &mut Packet, identification: &mut Identification) -> Result<(), Exit> {
    let shape = Shape::of(rewrite);
    if shape.outer == 0 {
        apply_plain(rewrite, packet)
    } else if shape == Shape::VXLAN {
        // The same code as below: with every offset and flag known, half of it goes away.
        apply_tunnel(Shape::VXLAN, rewrite, packet, identification)
    } else {
        apply_any(shape, rewrite, packet, identification)
    }
}

/// What of a rewrite decides which code runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    count: u8,
    outer: u8,
    follows: Follows,
    keep: u8,
    ethertype: u8,
    version: u8,
}

impl Shape {
    /// VXLAN over IPv4 with the default keys, without a VLAN tag: the common one.
    const VXLAN: Self = Self {
        count: 64,
        outer: Ethernet::SIZE as u8,
        follows: Follows(Follows::DSCP | Follows::ECN | Follows::UDP),
        keep: 0,
        ethertype: 62,
        version: 4,
    };

    #[inline(always)]
    fn of(rewrite: &Rewrite) -> Self {
        let version = rewrite.octets.get(usize::from(rewrite.outer)).map_or(0, |first| first >> 4);
        let Rewrite { count, outer, follows, keep, ethertype, .. } = *rewrite;
        Self { count, outer, follows, keep, ethertype, version }
    }
}

#[inline(never)]
fn apply_any(
    shape: Shape,
    rewrite: &Rewrite,
    packet: &mut Packet,
    identification: &mut Identification,
) -> Result<(), Exit> {
    if packet.options != 0 && shape.follows.has(Follows::OPTIONS) {
        return apply_with_options(shape, rewrite, packet, identification);
    }
    apply_tunnel(shape, rewrite, packet, identification)
}

/// The same for a packet that brings GENEVE options: they, and what stands behind them in the headers, become part of
/// what is inside.
#[cold]
fn apply_with_options(
    shape: Shape,
    rewrite: &Rewrite,
    packet: &mut Packet,
    identification: &mut Identification,
) -> Result<(), Exit> {
    let mut buffer = [0; Geneve::OPTIONS];
    let options = &mut buffer[..usize::from(packet.options) * 4];
    options.copy_from_slice(packet.frame.before(options.len()).ok_or(NO_ROOM)?);
    let ip = if shape.version == 4 { Ipv4::SIZE } else { Ipv6::SIZE };
    let geneve = usize::from(shape.outer) + ip + Udp::SIZE;
    let mut outside = *rewrite;
    outside.octets[geneve] |= packet.options;
    outside.count = (geneve + Geneve::SIZE) as u8;
    outside.follows.0 &= !Follows::OPTIONS;
    let inside = rewrite.headers().get(outside.count.into()..).unwrap_or(&[]);
    let transport = packet.l4 - packet.l3;
    if rewrite.keep == 0 {
        packet.frame.advance(packet.l3.into());
        let room = packet.frame.prepend(inside.len()).ok_or(NO_ROOM)?;
        room.copy_from_slice(inside);
        if let Some(ethertype) = room.last_chunk_mut::<2>() {
            *ethertype = self::ethertype(packet.family);
            outside.ethertype = 0;
        }
        packet.l3 = inside.len() as u16;
    }
    packet.frame.prepend(options.len()).ok_or(NO_ROOM)?.copy_from_slice(options);
    packet.l3 += options.len() as u16;
    packet.l4 = packet.l3 + transport;
    outside.keep = 1;
    apply_tunnel(Shape::of(&outside), &outside, packet, identification)
}

const NO_ROOM: Exit = Exit::Drop(DropReason::TooLong);

#[inline(always)]
fn apply_plain(rewrite: &Rewrite, packet: &mut Packet) -> Result<(), Exit> {
    let count = usize::from(rewrite.count);
    // A packet that leaves under a header as long as the one it came with stays where it is.
    if count != usize::from(packet.l3) {
        packet.frame.advance(packet.l3.into());
        packet.frame.prepend(count).ok_or(NO_ROOM)?;
    }
    // The type follows the packet: an IPv4 route may have an IPv6 next hop (RFC 8950).
    let ethertype = ethertype(packet.family);
    let octets = packet.frame.bytes_mut();
    if count == Ethernet::SIZE
        && let (Some(header), Some(new)) = (octets.first_chunk_mut(), rewrite.octets.first_chunk())
    {
        // A copy of known length is two moves, not a call.
        let new: &[u8; Ethernet::SIZE - 2] = new;
        let header: &mut [u8; Ethernet::SIZE] = header;
        header[..Ethernet::SIZE - 2].copy_from_slice(new);
        header[Ethernet::SIZE - 2..].copy_from_slice(&ethertype);
        return Ok(());
    }
    let header = octets.get_mut(..count).ok_or(NO_ROOM)?;
    header.copy_from_slice(rewrite.headers());
    if let Some(last) = header.last_chunk_mut() {
        *last = ethertype;
    }
    Ok(())
}

#[inline(always)]
const fn ethertype(family: Family) -> [u8; 2] {
    match family {
        Family::V4 => EtherType::IPV4.to_be_bytes(),
        Family::V6 => EtherType::IPV6.to_be_bytes(),
    }
}

#[inline(always)]
fn apply_tunnel(
    shape: Shape,
    rewrite: &Rewrite,
    packet: &mut Packet,
    identification: &mut Identification,
) -> Result<(), Exit> {
    let follows = shape.follows;
    // What is copied from the inner header, before anything is put over it.
    let inner = if follows.0 & (Follows::TTL | Follows::DF) != 0 { inner_fields(packet) } else { (0, false) };
    let known = if follows.has(Follows::UDP_CHECKSUM) { packet.known_transport_sum() } else { None };
    let header_end = packet.l4 - if shape.keep == 0 { packet.l3 } else { 0 };
    let inside = if shape.keep == 0 {
        packet.frame.advance(packet.l3.into());
        packet.len as usize
    } else {
        packet.frame.total()
    };
    let (count, outer) = (usize::from(shape.count), usize::from(shape.outer));
    let headers = packet.frame.prepend(count).ok_or(NO_ROOM)?;
    copy(headers, rewrite.octets.get(..count).ok_or(NO_ROOM)?);
    if shape.ethertype != 0
        && let Some(ethertype) = headers.get_mut(usize::from(shape.ethertype)..).and_then(<[u8]>::first_chunk_mut::<2>)
    {
        *ethertype = self::ethertype(packet.family);
    }
    let mask = if follows.has(Follows::DSCP) { 0xfc } else { 0 } | if follows.has(Follows::ECN) { 3 } else { 0 };
    let tos = packet.tos & mask;
    let total = count - outer + inside;
    let ip = if shape.version == 4 {
        let header: &mut Ipv4 = header_mut(headers, outer).ok_or(NO_ROOM)?;
        fill_v4(header, follows, rewrite.base_sum, tos, total, inner, identification);
        Ipv4::SIZE
    } else {
        let header: &mut Ipv6 = header_mut(headers, outer).ok_or(NO_ROOM)?;
        let word = header.version_class_flow.value() | u32::from(tos) << 20 | FlowHash::label(packet.flow);
        header.version_class_flow = Be32::new(word);
        header.payload_length = Be16::new((total - Ipv6::SIZE) as u16);
        if follows.has(Follows::TTL) {
            header.hop_limit = inner.0;
        }
        Ipv6::SIZE
    };
    if follows.has(Follows::UDP) {
        let udp: &mut Udp = header_mut(headers, outer + ip).ok_or(NO_ROOM)?;
        udp.source = Be16::new(FlowHash::port(packet.flow));
        udp.length = Be16::new((total - ip) as u16);
        if follows.has(Follows::UDP_CHECKSUM) {
            finish_udp(packet, outer, ip, total - ip, known.map(|sum| (sum, count + usize::from(header_end))));
        }
    }
    Ok(())
}

/// Copies headers. VXLAN over IPv4 has 64 octets: a copy of known length is a few moves, not a call.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    if let (Some((to, to_rest)), Some((from, from_rest))) = (to.split_first_chunk_mut::<64>(), from.split_first_chunk())
    {
        *to = *from;
        if !from_rest.is_empty() {
            to_rest.copy_from_slice(from_rest);
        }
    } else {
        to.copy_from_slice(from);
    }
}

#[inline(always)]
fn fill_v4(
    header: &mut Ipv4,
    follows: Follows,
    base_sum: u16,
    tos: u8,
    total: usize,
    inner: (u8, bool),
    identification: &mut Identification,
) {
    header.total_length = Be16::new(total as u16);
    header.tos |= tos;
    let mut sum = u32::from(base_sum) + total as u32 + u32::from(tos);
    if follows.0 & (Follows::TTL | Follows::DF | Follows::IDENTIFICATION) != 0 {
        if follows.has(Follows::TTL) {
            header.ttl = inner.0;
            sum += u32::from(inner.0) << 8;
        }
        if follows.has(Follows::DF) && inner.1 {
            header.fragment = Be16::new(Ipv4::DF);
            sum += u32::from(Ipv4::DF);
        } else if follows.has(Follows::IDENTIFICATION) {
            let number = identification.take();
            header.identification = Be16::new(number);
            sum += u32::from(number);
        }
    }
    // RFC 1624 in its plain form: the fields were zero when the base sum was taken.
    let sum = (sum & 0xffff) + (sum >> 16);
    header.checksum = Be16::new(!((sum & 0xffff) + (sum >> 16)) as u16);
}

/// TTL and DF of the inner packet. What is not IP lives on its link: one hop, not to be cut.
fn inner_fields(packet: &Packet) -> (u8, bool) {
    if let Some(header) = packet.ipv4().filter(|header| header.version() == 4) {
        (header.ttl.max(1), header.dont_fragment())
    } else if let Some(header) = packet.ipv6() {
        (header.hop_limit.max(1), true)
    } else {
        (64, true)
    }
}

/// The UDP checksum over pseudo-header, UDP header and everything inside. Where the sum of the inner transport is `known`,
/// what stands before it (so many octets in) is all that is read.
#[inline(never)]
fn finish_udp(packet: &mut Packet, outer: usize, ip: usize, length: usize, known: Option<(u16, usize)>) {
    let octets = packet.frame.bytes();
    let mut sum = Sum::new();
    // Both addresses stand together, last in the IPv4 header and last in the IPv6 header.
    let addresses = if ip == Ipv4::SIZE { 8 } else { 32 };
    sum.add(&octets[outer + ip - addresses..outer + ip]);
    sum.add_u32(protocol::UDP.into());
    sum.add_u32(length as u32);
    let mut skip = outer + ip;
    match known.and_then(|(rest, end)| Some((rest, octets.get(skip..end)?))) {
        Some((rest, headers)) => {
            sum.add(headers);
            sum.add_u16(rest);
        }
        None => {
            for segment in packet.frame.segments() {
                sum.add(segment.get(skip..).unwrap_or(&[]));
                skip = skip.saturating_sub(segment.len());
            }
        }
    }
    let sum = match sum.checksum() {
        0 => 0xffff, // RFC 768: zero means that there is none
        sum => sum,
    };
    if let Some(udp) = header_mut::<Udp>(packet.frame.bytes_mut(), outer + ip) {
        udp.checksum = Be16::new(sum);
    }
}
