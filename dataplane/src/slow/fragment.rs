//! IPv4 fragmentation (RFC 791 §3.2), before any encapsulation: the far end of a tunnel has to reassemble nothing but IPv6
//! packets that no path may be too narrow for.

use crate::packet::{Batch, DropReason, Family, FlowHash, Origin, Packet, PortId, Stock, TunnelId};
use crate::pipeline::Pipeline;
use crate::tables::Tables;
use crate::tunnel;
use wire::{Be16, Be32, Ipv4, Ipv6, Ipv6Fragment, header_mut, protocol};
use xsk::Frame;
use zerocopy::IntoBytes;

/// Cuts an IPv4 packet into fragments of at most `mtu` octets, all of them or none. Returns how many.
///
/// # Errors
///
/// Frames ran out, the MTU has no room for eight octets of data or there are none, or the packet is a fragment that reaches beyond the
/// longest datagram: its offsets would not fit their field.
pub fn cut(packet: &Packet, mtu: u16, stock: &mut Stock, ready: &mut Batch) -> Result<u64, DropReason> {
    debug_assert_eq!(packet.family, Family::V4);
    let header = packet.ipv4().ok_or(DropReason::Truncated)?;
    let l3 = usize::from(packet.l3);
    let data_at = l3 + header.header_length();
    let data_len = packet.len as usize - header.header_length();
    let options = packet.frame.bytes().get(l3 + Ipv4::SIZE..data_at).ok_or(DropReason::Truncated)?;
    // The first fragment has every option, the others those with the copied flag.
    let copied = copied_options(options);
    let first = header.fragment.value();
    if header.fragment_offset() + data_len > usize::from(u16::MAX) {
        return Err(DropReason::BadLength);
    }
    if data_len == 0 {
        return Err(DropReason::FragmentationNeeded);
    }
    let mut made: Vec<Box<Packet>> = Vec::new();
    let mut at = 0;
    while at < data_len {
        let options = if at == 0 { options } else { &copied };
        let header_length = Ipv4::SIZE + options.len();
        let room = usize::from(mtu).saturating_sub(header_length) & !7;
        let count = room.min(data_len - at);
        let fragment = if room == 0 { None } else { data_of(packet, data_at + at, count, stock) };
        let Some(mut frame) = fragment else {
            made.into_iter().for_each(|packet| stock.put(packet));
            return Err(if room == 0 { DropReason::FragmentationNeeded } else { DropReason::NoFrame });
        };
        let last = at + count == data_len;
        let mut new = *header;
        new.version_ihl = 0x40 | (header_length / 4) as u8;
        new.total_length = Be16::new((header_length + count) as u16);
        let offset = (first & Ipv4::OFFSET) + (at / 8) as u16;
        // A fragment that is cut again ends the datagram only if it did before.
        let more = if last { first & Ipv4::MF } else { Ipv4::MF };
        new.fragment = Be16::new(offset | more);
        new.checksum = Be16::new(new.computed_checksum(options));
        if let Some(room) = frame.prepend(header_length) {
            room[..Ipv4::SIZE].copy_from_slice(new.as_bytes());
            room[Ipv4::SIZE..].copy_from_slice(options);
        }
        made.push(fragment_of(packet, frame, stock));
        at += count;
    }
    let count = made.len() as u64;
    made.into_iter().for_each(|packet| ready.push(packet));
    Ok(count)
}

/// The IP packet in `frame`, which was cut from another.
fn fragment_of(packet: &Packet, mut frame: Frame, stock: &mut Stock) -> Box<Packet> {
    let kept = keep_options(packet, &mut frame);
    let mut fragment = stock.wrap(frame, PortId::NONE, false, packet.arrived);
    fragment.inherit(packet);
    fragment.options = kept;
    fragment.l3 = 0;
    fragment.origin = if packet.origin == Origin::Gateway { Origin::Gateway } else { Origin::Queue };
    fragment.traits = packet.traits.inner();
    // Our own header: parse fills in what differs from the whole packet, and cannot refuse what it let in.
    let parsed = fragment.parse(&FlowHash::default());
    debug_assert!(parsed.is_ok(), "{parsed:?}");
    // All stay with the flow that they were cut from.
    fragment.flow = packet.flow;
    fragment
}

/// Puts an IPv6 packet that every link has to carry (RFC 8200 §5) into a tunnel whose path is too narrow for it, and cuts
/// the outer datagram, with DF clear, for the other end to put together (RFC 2473 §7.1 a, RFC 4213 §3.2.1). The fragments
/// are routed in the underlay. Returns how many.
///
/// # Errors
///
/// The way out is no tunnel, or as [`cut`]: the packet may have its outer headers then.
pub fn cut_outside(
    packet: &mut Packet,
    tables: &Tables,
    pipeline: &mut Pipeline,
    stock: &mut Stock,
    ready: &mut Batch,
) -> Result<u64, DropReason> {
    let id = packet.adjacency;
    let adjacency = tables.adjacencies.at(id);
    let (Some(tunnel), Some(rewrite)) = (tables.tunnels.get(adjacency.tunnel), tables.adjacencies.headers(id)) else {
        return Err(DropReason::PacketTooBig);
    };
    if rewrite.outer == 0 {
        return Err(DropReason::PacketTooBig);
    }
    let (family, inner) = (tunnel.ends.family(), packet.len);
    let path = adjacency.mtu.saturating_add(tunnel.kind.overhead(family));
    // From here on it is our own, and an error about it would be for us.
    packet.origin = Origin::Gateway;
    tunnel::apply(rewrite, packet, &mut pipeline.identification).map_err(|_| DropReason::TooLong)?;
    packet.frame.advance(rewrite.outer.into());
    let flow = packet.flow;
    (packet.family, packet.vrf, packet.tunnel, packet.l3, packet.options) =
        (family, tunnel.ends.vrf(), TunnelId::NONE, 0, 0);
    packet.traits = packet.traits.inner();
    packet.parse(&FlowHash::default()).map_err(|_| DropReason::BadLength)?;
    packet.flow = flow;
    let number = pipeline.identification.take();
    let count = match family {
        Family::V4 => {
            let header: &mut Ipv4 = header_mut(packet.frame.bytes_mut(), 0).ok_or(DropReason::Truncated)?;
            header.identification = Be16::new(number);
            cut(packet, path, stock, ready)?
        }
        // 16 bits start anew too soon for 32: the seconds of arrival go before them.
        Family::V6 => cut_v6(packet, path, (packet.arrived.0 >> 30 << 16) as u32 | u32::from(number), stock, ready)?,
    };
    pipeline.tally.adjacency_used(id);
    pipeline.tally.encapsulated(adjacency.tunnel, inner.into());
    Ok(count)
}

/// The same of an IPv6 packet of our own, which has no extension headers yet (RFC 8200 §4.5).
fn cut_v6(
    packet: &Packet,
    mtu: u16,
    identification: u32,
    stock: &mut Stock,
    ready: &mut Batch,
) -> Result<u64, DropReason> {
    const HEADERS: usize = Ipv6::SIZE + Ipv6Fragment::SIZE;
    let header = packet.ipv6().ok_or(DropReason::Truncated)?;
    let data_len = (packet.len as usize).saturating_sub(Ipv6::SIZE);
    let room = usize::from(mtu).saturating_sub(HEADERS) & !7;
    if room == 0 {
        return Err(DropReason::PacketTooBig);
    }
    let mut made: Vec<Box<Packet>> = Vec::new();
    for at in (0..data_len).step_by(room) {
        let count = room.min(data_len - at);
        let Some(mut frame) = data_of(packet, Ipv6::SIZE + at, count, stock) else {
            made.into_iter().for_each(|packet| stock.put(packet));
            return Err(DropReason::NoFrame);
        };
        let more = u16::from(at + count < data_len);
        let mut new = *header;
        new.payload_length = Be16::new((Ipv6Fragment::SIZE + count) as u16);
        new.next_header = protocol::FRAGMENT;
        let fragment = Ipv6Fragment {
            next_header: header.next_header,
            reserved: 0,
            offset_more: Be16::new(at as u16 | more),
            identification: Be32::new(identification),
        };
        if let Some(room) = frame.prepend(HEADERS) {
            room[..Ipv6::SIZE].copy_from_slice(new.as_bytes());
            room[Ipv6::SIZE..].copy_from_slice(fragment.as_bytes());
        }
        made.push(fragment_of(packet, frame, stock));
    }
    let count = made.len() as u64;
    made.into_iter().for_each(|packet| ready.push(packet));
    Ok(count)
}

/// GENEVE options go with every fragment: each is a packet of the tunnel. Returns their words.
fn keep_options(packet: &Packet, frame: &mut Frame) -> u8 {
    let octets = usize::from(packet.options) * 4;
    let (Some(options), Some(room)) = (packet.frame.before(octets), frame.prepend(octets)) else { return 0 };
    room.copy_from_slice(options);
    frame.advance(octets);
    packet.options
}

/// A copy of part of the packet, in as many chunks as it needs.
fn data_of(packet: &Packet, at: usize, count: usize, stock: &mut Stock) -> Option<Frame> {
    let mut frame = stock.frames.take()?;
    let mut done = 0;
    loop {
        let now = frame.tailroom().min(count - done);
        let copied = frame.append(now).is_some_and(|room| packet.frame.copy_to(at + done, room));
        done += now;
        if !copied || done == count {
            debug_assert!(copied, "parse has seen that many octets");
            return Some(frame);
        }
        match stock.frames.take() {
            Some(next) => frame.chain(next),
            None => {
                stock.frames.put(frame);
                return None;
            }
        }
    }
}

/// The options with the copied flag (RFC 791 §3.1), padded to words.
fn copied_options(options: &[u8]) -> Vec<u8> {
    let mut copied = Vec::new();
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)),
        };
        let Some(option) = options.get(at..at + length).filter(|option| !option.is_empty()) else { break };
        if kind & 0x80 != 0 {
            copied.extend_from_slice(option);
        }
        at += length;
    }
    copied.resize(copied.len().next_multiple_of(4), 0);
    copied
}

#[cfg(test)]
mod tests;
