//! What the underlay says of packets that went into tunnels: that a path is narrower than was thought, or that the
//! other end cannot be reached (RFC 2003 §4, RFC 2473 §8).
//!
//! Control lowers the tunnel's MTU. What is quoted of the inner packet is answered to its own sender: who sent it knows
//! nothing of the tunnel, and would wait for a packet that is lost.

use super::{Slow, icmp};
use crate::packet::{DropReason, Family, Origin, Owed, Packet, PortId, PuntReason, Stock, Time, Traits, TunnelId};
use crate::pipeline::Pipeline;
use crate::tables::Tables;
use wire::checksum::Sum;
use wire::{Icmp, Ipv6, Octets, icmpv4, icmpv6};

/// Errors that a worker listens to in a second: anybody can send them.
pub const HEARD: u32 = 100;

/// A path is taken for no narrower than this, whoever says so: what every host accepts (RFC 791 §3.1), so that a forged
/// error does not cost more.
const FLOOR_V4: u16 = 576;
/// The least that IPv6 paths carry (RFC 8200 §5); who claims less is not believed (RFC 8201 §4).
const FLOOR_V6: u16 = Ipv6::LEAST_MTU;

/// Path MTUs that there are (RFC 1191 §7.1), for routers too old to name theirs.
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296];

/// What an error means to the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The path carries so many octets.
    Path(u16),
    /// The other end is not reached.
    Unreachable,
}

impl Slow {
    /// An ICMP error about a packet that we sent into a tunnel.
    pub(super) fn hear(
        &mut self,
        mut packet: Box<Packet>,
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        tables: &Tables,
        now: Time,
    ) {
        let Some(quote) = tables.tunnels.quoted(&packet) else {
            return self.punt(packet, PuntReason::Local, pipeline, stock);
        };
        let pseudo = if packet.family == Family::V4 { Sum::new() } else { packet.pseudo_header() };
        if packet.transport_sum(pseudo).folded() != 0xffff {
            return self.drop(packet, DropReason::IcmpChecksum, pipeline, stock, tables, now);
        }
        pipeline.tally.absorbed(1);
        let meaning = meaning(&packet, quote.length).filter(|_| self.heard.admit(now));
        if let (Some(meaning), Some(tunnel)) = (meaning, tables.tunnels.get(quote.tunnel)) {
            let overhead = tunnel.kind.overhead(tunnel.ends.family());
            let (owed, mtu) = match meaning {
                Meaning::Path(mtu) => {
                    let inner = mtu.saturating_sub(overhead);
                    if inner < tunnel.mtu {
                        self.wanted.lower(quote.tunnel, mtu);
                    }
                    (Owed::TooBig, inner.min(tunnel.mtu))
                }
                Meaning::Unreachable => (Owed::HostUnreachable, 0),
            };
            if let Some((at, family)) = quote.inner
                && packet.become_quoted(at, family)
                && (owed != Owed::TooBig || packet.traits.has(Traits::DONT_FRAGMENT))
                && !(owed == Owed::TooBig && packet.every_link_carries())
                && icmp::may_be_sent_about(&packet)
            {
                packet.vrf = tunnel.vrf;
                self.answer(&packet, (owed, mtu), pipeline, stock, tables, now);
            }
        }
        stock.put(packet);
    }
}

impl Packet {
    /// Becomes the packet that is quoted `at` octets in, as far as it is there; `false` if that is no header.
    fn become_quoted(&mut self, at: usize, family: Family) -> bool {
        if !self.frame.advance(at) {
            return false;
        }
        (self.l3, self.family) = (0, family);
        // Neither the port nor a tunnel brought it: it came from inside.
        (self.ingress, self.tunnel, self.origin) = (PortId::NONE, TunnelId::NONE, Origin::Queue);
        self.traits = Traits::default();
        self.len = self.frame.total() as u32;
        self.read_quoted()
    }
}

impl Packet {
    /// Its sender cannot make it shorter (RFC 8200 §5): the next of its kind is cut outside. Reads the header, since of what
    /// is quoted there may be less.
    fn every_link_carries(&self) -> bool {
        let length = |header: &Ipv6| Ipv6::SIZE as u32 + u32::from(header.payload_length.value());
        self.family == Family::V6 && self.ipv6().is_some_and(|header| length(header) <= Ipv6::LEAST_MTU.into())
    }
}

/// What an ICMP error about an outer packet of `length` octets means; `None`: nothing to us, or not credible.
fn meaning(packet: &Packet, length: usize) -> Option<Meaning> {
    let icmp: &Icmp = packet.frame.bytes().header(packet.l4.into())?;
    let told = icmp.rest.value();
    let mtu = match (packet.family, icmp.kind, icmp.code) {
        (Family::V4, icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED) => match told as u16 {
            0 => PLATEAUS.into_iter().find(|mtu| usize::from(*mtu) < length)?,
            mtu => mtu,
        }
        .max(FLOOR_V4),
        (Family::V6, icmpv6::PACKET_TOO_BIG, _) => u16::try_from(told).unwrap_or(u16::MAX),
        (Family::V4, icmpv4::UNREACHABLE | icmpv4::TIME_EXCEEDED | icmpv4::PARAMETER_PROBLEM, _)
        | (Family::V6, icmpv6::UNREACHABLE | icmpv6::TIME_EXCEEDED | icmpv6::PARAMETER_PROBLEM, _) => {
            return Some(Meaning::Unreachable);
        }
        _ => return None,
    };
    // What would have fitted was not lost for its length.
    let credible = usize::from(mtu) < length && (packet.family == Family::V4 || mtu >= FLOOR_V6);
    credible.then_some(Meaning::Path(mtu))
}
