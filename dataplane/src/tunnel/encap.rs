//! Puts an adjacency's headers before a packet. Does not know which tunnel, or whether any.

use super::Identification;
use crate::packet::{DropReason, Exit, Family, FlowHash, Packet};
use wire::checksum::Sum;
use wire::{Be16, Be32, EtherType, Ethernet, Follows, Geneve, Ipv4, Ipv6, Octets, Rewrite, Udp, header_mut};

/// The packet gets its headers. `identification` numbers outer IPv4 packets that may be fragmented (RFC 6864).
///
/// # Errors
///
/// No room before the packet, which only one wrapped more often than any path does can lack.
#[inline(always)]
pub fn apply(rewrite: &Rewrite, packet: &mut Packet, identification: &mut Identification) -> Result<(), Exit> {
    if rewrite.outer == 0 { apply_plain(rewrite, packet) } else { apply_any(rewrite, packet, identification) }
}

/// One code for all tunnels, compiled once for each of the shapes that the default keys give, and once for all others:
/// where the shape is known, half of it goes away.
#[inline(always)]
fn apply_any(rewrite: &Rewrite, packet: &mut Packet, identification: &mut Identification) -> Result<(), Exit> {
    let (shape, detail) = (Shape::of(rewrite), Detail::of(rewrite));
    if packet.options != 0 {
        return apply_with_options(rewrite, packet, identification);
    }
    match (shape, detail) {
        (Shape::UDP_V4, Detail::ETHERNET_V4) => {
            apply_tunnel(Shape::UDP_V4, Detail::ETHERNET_V4, rewrite, packet, identification)
        }
        (Shape::UDP_V6, Detail::ETHERNET_V6) => apart::<0>(rewrite, packet, identification),
        (Shape::UDP_V4, _) => apart::<1>(rewrite, packet, identification),
        (Shape::UDP_V6, _) => apart::<2>(rewrite, packet, identification),
        (Shape::IP_V4, _) => apart::<3>(rewrite, packet, identification),
        (Shape::IP_V6, _) => apart::<4>(rewrite, packet, identification),
        _ => apart::<5>(rewrite, packet, identification),
    }
}

/// Not among what is always done: it would take registers from that.
#[inline(never)]
fn apart<const AT: usize>(
    rewrite: &Rewrite,
    packet: &mut Packet,
    identification: &mut Identification,
) -> Result<(), Exit> {
    let (shape, detail) = const { KNOWN[AT] };
    let (shape, detail) = (shape.unwrap_or(Shape::of(rewrite)), detail.unwrap_or(Detail::of(rewrite)));
    apply_tunnel(shape, detail, rewrite, packet, identification)
}

/// What is known of the arms above, in their order.
const KNOWN: [(Option<Shape>, Option<Detail>); 6] = [
    (Some(Shape::UDP_V6), Some(Detail::ETHERNET_V6)),
    (Some(Shape::UDP_V4), None),
    (Some(Shape::UDP_V6), None),
    (Some(Shape::IP_V4), None),
    (Some(Shape::IP_V6), None),
    (None, None),
];

/// What of a rewrite decides which code runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    outer: u8,
    version: u8,
    /// Without those that cost nothing to ask for.
    follows: Follows,
    keep: u8,
}

impl Shape {
    const UDP_V4: Self = Self::usual(4, Follows::UDP);
    const UDP_V6: Self = Self::usual(6, Follows::UDP | Follows::UDP_CHECKSUM);
    const IP_V4: Self = Self::usual(4, 0);
    const IP_V6: Self = Self::usual(6, 0);

    /// Of the default keys, without a VLAN tag.
    const fn usual(version: u8, follows: u8) -> Self {
        Self { outer: Ethernet::SIZE as u8, version, follows: Follows(follows), keep: 0 }
    }

    #[inline(always)]
    fn of(rewrite: &Rewrite) -> Self {
        let version = rewrite.octets.get(usize::from(rewrite.outer)).map_or(0, |first| first >> 4);
        let follows = rewrite.follows.0 & !(Follows::DSCP | Follows::ECN | Follows::OPTIONS);
        Self { outer: rewrite.outer, version, follows: Follows(follows), keep: rewrite.keep }
    }
}

/// What else it says: cheap to ask for, and cheaper where it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Detail {
    count: u8,
    ethertype: u8,
    /// What of DSCP and ECN is copied.
    tos: u8,
}

impl Detail {
    /// Of VXLAN, and of GENEVE with Ethernet inside.
    const ETHERNET_V4: Self = Self::last(64);
    const ETHERNET_V6: Self = Self::last(84);

    const fn last(count: u8) -> Self {
        Self { count, ethertype: count - 2, tos: 0xff }
    }

    #[inline(always)]
    fn of(rewrite: &Rewrite) -> Self {
        let Rewrite { count, ethertype, follows, .. } = *rewrite;
        Self { count, ethertype, tos: TOS_MASK[usize::from(follows.0 & (Follows::ECN | Follows::DSCP))] }
    }
}

/// By the two flags.
const TOS_MASK: [u8; 4] = [0, 0x03, 0xfc, 0xff];
const _: () = assert!(Follows::ECN == 1 && Follows::DSCP == 2);

/// The same for a packet that brings GENEVE options: they, and what stands behind them in the headers, become part of
/// what is inside.
#[cold]
fn apply_with_options(rewrite: &Rewrite, packet: &mut Packet, identification: &mut Identification) -> Result<(), Exit> {
    let shape = Shape::of(rewrite);
    if !rewrite.follows.has(Follows::OPTIONS) {
        return apply_tunnel(shape, Detail::of(rewrite), rewrite, packet, identification);
    }
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
    if rewrite.udp_sum != 0 {
        let (mut sum, mut moved) = (Sum::new(), Sum::new());
        moved.add(inside);
        sum.add_u16(rewrite.udp_sum);
        sum.add_u16(u16::from(packet.options) << 8);
        sum.add_u16(!moved.folded());
        outside.udp_sum = sum.folded();
    }
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
    apply_tunnel(Shape::of(&outside), Detail::of(&outside), &outside, packet, identification)
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
    detail: Detail,
    rewrite: &Rewrite,
    packet: &mut Packet,
    identification: &mut Identification,
) -> Result<(), Exit> {
    let follows = shape.follows;
    // What is copied from the inner header, before anything is put over it.
    let inner = if follows.0 & (Follows::TTL | Follows::DF) != 0 { inner_fields(packet) } else { (0, false) };
    let known = if follows.has(Follows::UDP_CHECKSUM) { packet.known_sum() } else { None };
    let inside = if shape.keep == 0 {
        packet.frame.advance(packet.l3.into());
        packet.len as usize
    } else {
        packet.frame.total()
    };
    let (count, outer) = (usize::from(detail.count), usize::from(shape.outer));
    let headers = packet.frame.prepend(count).ok_or(NO_ROOM)?;
    copy(headers, rewrite.octets.get(..count).ok_or(NO_ROOM)?);
    let mut udp_sum = u64::from(rewrite.udp_sum);
    if detail.ethertype != 0
        && let Some(field) = headers.get_mut(usize::from(detail.ethertype)..).and_then(<[u8]>::first_chunk_mut::<2>)
    {
        *field = ethertype(packet.family);
        udp_sum += u64::from(u16::from_be_bytes(*field));
    }
    let tos = packet.tos & detail.tos;
    let total = count - outer + inside;
    let ip = if shape.version == 4 {
        let header: &mut Ipv4 = header_mut(headers, outer).ok_or(NO_ROOM)?;
        fill_v4(header, follows, rewrite.base_sum, tos, total, inner, identification);
        Ipv4::SIZE
    } else {
        let header: &mut Ipv6 = header_mut(headers, outer).ok_or(NO_ROOM)?;
        // Read where it was copied from: in the copy it may lie across two stores, and would wait for both.
        let template: &Ipv6 = rewrite.octets.header(outer).ok_or(NO_ROOM)?;
        let word = template.version_class_flow.value() | u32::from(tos) << 20 | FlowHash::label(packet.flow);
        header.version_class_flow = Be32::new(word);
        header.payload_length = Be16::new((total - Ipv6::SIZE) as u16);
        if follows.has(Follows::TTL) {
            header.hop_limit = inner.0;
        }
        Ipv6::SIZE
    };
    if follows.has(Follows::UDP) {
        let udp: &mut Udp = header_mut(headers, outer + ip).ok_or(NO_ROOM)?;
        let (source, length) = (FlowHash::port(packet.flow), (total - ip) as u16);
        udp.source = Be16::new(source);
        udp.length = Be16::new(length);
        if follows.has(Follows::UDP_CHECKSUM) {
            let inside = match known {
                Some(known) if shape.keep == 0 => known,
                _ => sum_inside(packet, count, known).into(),
            };
            // The length is in the header and in the pseudo-header.
            let sum = udp_sum + u64::from(source) + 2 * u64::from(length) + inside;
            let sum = match !folded(sum) {
                0 => 0xffff, // RFC 768: zero means that there is none
                sum => sum,
            };
            if let Some(udp) = header_mut::<Udp>(packet.frame.bytes_mut(), outer + ip) {
                udp.checksum = Be16::new(sum);
            }
        }
    }
    Ok(())
}

/// A sum of less than 2⁴⁹ of 16-bit words, in one of them.
#[inline(always)]
const fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The folded sum of everything behind the first `count` octets. Where that of the IP packet is `known`, what stands before
/// it is all that is read.
#[inline(never)]
fn sum_inside(packet: &Packet, count: usize, known: Option<u64>) -> u16 {
    let mut sum = Sum::new();
    let before = packet.frame.bytes().get(count..count + usize::from(packet.l3));
    if let (Some(known), Some(before)) = (known, before) {
        sum.add(before);
        sum.add_u16(folded(known));
        return sum.folded();
    }
    let mut skip = count;
    for segment in packet.frame.segments() {
        sum.add(segment.get(skip..).unwrap_or(&[]));
        skip = skip.saturating_sub(segment.len());
    }
    sum.folded()
}

/// Copies headers. All tunnels' have 32 to 96 octets: two copies of a known length, which may overlap, are a few moves and
/// not a call.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        32..64 => copy_ends::<32, 32>(to, from),
        64 => copy_ends::<64, 0>(to, from),
        65..=96 => copy_ends::<64, 32>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first `N` and the last `M` octets, which are all.
#[inline(always)]
fn copy_ends<const N: usize, const M: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<M>(), from.last_chunk()) {
        *to = *from;
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
