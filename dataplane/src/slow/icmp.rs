//! ICMP errors: to whom, from which address, how often, with what inside.

use crate::packet::{Family, Origin, Owed, Packet, PortId, Stock, Time, Traits, TunnelId, Vrf, is_link_local};
use crate::tables::Tables;
use std::net::IpAddr;
use wire::checksum::Sum;
use wire::{Be16, Be32, Icmp, Ipv4, Ipv6, Octets, icmpv4, icmpv6, protocol};
use zerocopy::IntoBytes;

/// An IPv4 error is at most this long (RFC 1812 §4.3.2.3).
const LONGEST_V4: usize = 576;
/// An IPv6 error is at most this long (RFC 4443 §2.4 c): the minimum MTU.
const LONGEST_V6: usize = 1280;
/// Errors that may be sent at once after a pause.
const BURST: u64 = 100;
/// What errors are sent with: 64 hops, and Internetwork Control (RFC 1812 §4.3.2.5).
const HOPS: u8 = 64;
const TOS: u8 = 0xc0;

/// A token bucket over errors (RFC 4443 §2.4 f, RFC 1812 §4.3.2.8).
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    /// Errors in 10⁹ seconds, so that a nanosecond earns a whole number of tokens' parts.
    rate: u64,
    /// Parts of 10⁹ of an error, at most `full`.
    level: u64,
    full: u64,
    last: Time,
}

impl Limiter {
    /// So many errors per second; 0: none.
    pub const fn new(per_second: u32) -> Self {
        let full = if per_second == 0 { 0 } else { BURST * Time::SECOND };
        Self { rate: per_second as u64, level: full, full, last: Time(0) }
    }

    /// One's part, where `workers` have the rate and the burst together: at least an error, if there are any.
    pub const fn shared_by(self, workers: u32) -> Self {
        let workers = workers as u64;
        let full = if self.full == 0 { 0 } else { max(self.full / workers, Time::SECOND) };
        Self { rate: self.rate.div_ceil(workers), level: full, full, last: self.last }
    }

    /// Whether one more may go now.
    pub fn admit(&mut self, now: Time) -> bool {
        let earned = self.rate.saturating_mul(now.since(self.last));
        self.level = self.level.saturating_add(earned).min(self.full);
        self.last = self.last.max(now);
        if self.level < Time::SECOND {
            return false;
        }
        self.level -= Time::SECOND;
        true
    }
}

const fn max(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// Whether RFC 1812 §4.3.2.7 and RFC 4443 §2.4 e allow an error about this packet: not about an ICMP error, a
/// fragment other than the first, what was sent to a group (also on the link layer), or our own.
pub fn may_be_sent_about(packet: &Packet) -> bool {
    if packet.origin == Origin::Gateway || packet.traits.has(Traits::LATER_FRAGMENT | Traits::LINK_GROUP) {
        return false;
    }
    let kind = packet.frame.bytes().header::<Icmp>(packet.l4.into()).map(|header| header.kind);
    match packet.protocol {
        // What is cut too short to tell is not asked after.
        protocol::ICMP => kind.is_some_and(|kind| !icmpv4::is_error(kind)),
        protocol::ICMPV6 => kind.is_some_and(|kind| !icmpv6::is_error(kind)),
        _ => true,
    }
}

/// The error that is owed about `packet`, with the MTU that one of that kind names, ready to be forwarded; `None` if it is not to be sent: over the rate, no
/// address to send it from, no frame.
pub fn answer(
    packet: &Packet,
    (owed, mtu): (Owed, u16),
    tables: &Tables,
    stock: &mut Stock,
    limiter: &mut Limiter,
    now: Time,
) -> Option<Box<Packet>> {
    let to = packet.source();
    let from = source_address(packet, to, tables)?;
    if !limiter.admit(now) {
        return None;
    }
    let longest = if packet.family == Family::V4 { LONGEST_V4 - Ipv4::SIZE } else { LONGEST_V6 - Ipv6::SIZE };
    let quoted = (packet.len as usize).min(longest - Icmp::SIZE);
    let mut frame = stock.frames.take()?;
    let filled = frame.append(quoted).is_some_and(|room| packet.frame.copy_to(packet.l3.into(), room));
    if !filled {
        stock.frames.put(frame);
        return None;
    }
    let header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = message_v4(owed, mtu, frame.bytes());
            let ip = header_v4(from.to_bits(), to.to_bits(), Icmp::SIZE + quoted);
            [ip.as_bytes(), icmp.as_bytes()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = message_v6(owed, mtu, from.to_bits(), to.to_bits(), frame.bytes());
            let ip = header_v6(from.to_bits(), to.to_bits(), Icmp::SIZE + quoted);
            [ip.as_bytes(), icmp.as_bytes()].concat()
        }
        _ => Vec::new(),
    };
    if let Some(room) = frame.prepend(header.len()) {
        room.copy_from_slice(&header);
    }
    let mut answer = stock.wrap(frame, PortId::NONE, false, now);
    answer.origin = Origin::Gateway;
    answer.family = packet.family;
    answer.vrf = packet.vrf;
    answer.l3 = 0;
    if answer.parse(&tables.hash).is_err() {
        // Only a sender with an address that no packet may have: parse would have refused it before.
        stock.put(answer);
        return None;
    }
    Some(answer)
}

/// The first address of the receiving interface or tunnel, else of the port that the error leaves by, else the
/// lowest of the VRF (RFC 1812 §4.3.2.4 asks for the first where it can).
fn source_address(packet: &Packet, to: IpAddr, tables: &Tables) -> Option<IpAddr> {
    let first = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| usable(*address, to));
    let of_tunnel = |id: TunnelId| tables.tunnels.get(id).and_then(|tunnel| first(&tunnel.addresses));
    let of_port = |id: PortId| tables.ports.get(id).and_then(|port| first(&port.addresses));
    let received = if packet.tunnel == TunnelId::NONE { of_port(packet.ingress) } else { of_tunnel(packet.tunnel) };
    received
        .or_else(|| {
            let way_back = tables.adjacencies.at(tables.fib.lookup_one(packet.vrf, to));
            if way_back.tunnel == TunnelId::NONE { of_port(way_back.egress) } else { of_tunnel(way_back.tunnel) }
        })
        .or_else(|| lowest(packet.vrf, to, tables))
}

fn lowest(vrf: Vrf, to: IpAddr, tables: &Tables) -> Option<IpAddr> {
    tables.locals.iter().filter(|(of, address)| *of == vrf && usable(*address, to)).map(|(_, address)| address).min()
}

/// Of the same family, and not link-local: that means nothing beyond its link (RFC 3927 §2.7, RFC 4291 §2.5.6), and
/// an error from there would not be forwarded.
fn usable(address: IpAddr, to: IpAddr) -> bool {
    address.is_ipv4() == to.is_ipv4() && !is_link_local(address)
}

fn message_v4(owed: Owed, mtu: u16, quoted: &[u8]) -> Icmp {
    let (kind, code, rest) = match owed {
        Owed::TimeExceeded => (icmpv4::TIME_EXCEEDED, 0, 0),
        Owed::ReassemblyTimeExceeded => (icmpv4::TIME_EXCEEDED, 1, 0),
        Owed::NetUnreachable => (icmpv4::UNREACHABLE, icmpv4::NET, 0),
        Owed::HostUnreachable => (icmpv4::UNREACHABLE, icmpv4::HOST, 0),
        Owed::Prohibited => (icmpv4::UNREACHABLE, icmpv4::PROHIBITED, 0),
        Owed::TooBig => (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, u32::from(mtu)),
    };
    finished(kind, code, rest, Sum::new(), quoted)
}

fn message_v6(owed: Owed, mtu: u16, from: u128, to: u128, quoted: &[u8]) -> Icmp {
    let (kind, code, rest) = match owed {
        Owed::TimeExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
        Owed::ReassemblyTimeExceeded => (icmpv6::TIME_EXCEEDED, 1, 0),
        Owed::NetUnreachable => (icmpv6::UNREACHABLE, icmpv6::NO_ROUTE, 0),
        Owed::HostUnreachable => (icmpv6::UNREACHABLE, icmpv6::ADDRESS, 0),
        Owed::Prohibited => (icmpv6::UNREACHABLE, icmpv6::PROHIBITED, 0),
        // RFC 8200 §5: no link carries less, and a tunnel cuts what its path has no room for.
        Owed::TooBig => (icmpv6::PACKET_TOO_BIG, 0, mtu.max(Ipv6::LEAST_MTU).into()),
    };
    let mut sum = Sum::new();
    sum.add_pseudo_v6(from, to, protocol::ICMPV6, (Icmp::SIZE + quoted.len()) as u32);
    finished(kind, code, rest, sum, quoted)
}

fn finished(kind: u8, code: u8, rest: u32, sum: Sum, quoted: &[u8]) -> Icmp {
    let mut header = Icmp { kind, code, checksum: Be16::new(0), rest: Be32::new(rest) };
    let mut sum = sum;
    sum.add(header.as_bytes());
    sum.add(quoted);
    header.checksum = Be16::new(sum.checksum());
    header
}

fn header_v4(from: u32, to: u32, payload: usize) -> Ipv4 {
    let mut header = Ipv4 {
        version_ihl: 0x45,
        tos: TOS,
        total_length: Be16::new((Ipv4::SIZE + payload) as u16),
        identification: Be16::new(0),
        // Shorter than any MTU, and never to be cut: an atomic datagram needs no identification (RFC 6864).
        fragment: Be16::new(Ipv4::DF),
        ttl: HOPS,
        protocol: protocol::ICMP,
        checksum: Be16::new(0),
        source: Be32::new(from),
        destination: Be32::new(to),
    };
    header.checksum = Be16::new(header.computed_checksum(&[]));
    header
}

fn header_v6(from: u128, to: u128, payload: usize) -> Ipv6 {
    Ipv6 {
        version_class_flow: Be32::new(6 << 28 | u32::from(TOS) << 20),
        payload_length: Be16::new(payload as u16),
        next_header: protocol::ICMPV6,
        hop_limit: HOPS,
        source: Ipv6::address(from),
        destination: Ipv6::address(to),
    }
}

#[cfg(test)]
mod tests;
