//! ICMP errors about packets that we sent into a tunnel: into which one, and what was inside.

use super::{Ends, Format, Found, Geneve, Gre, Inside, IpInIp, Tunnels, Vxlan};
use crate::packet::{Exit, Family, Packet, TunnelId};
use wire::{EtherType, Ethernet, Icmp, Ipv4, Ipv6, Octets, Udp, icmpv4, icmpv6, protocol};

/// What an ICMP error quotes of a packet that went into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The tunnel; where the quote ends before the identifier, one of its type with the same ends.
    pub tunnel: TunnelId,
    /// Octets of the outer packet, as its header says.
    pub length: usize,
    /// Where in the frame the inner IP packet starts, and of which family it is, where that much is quoted.
    pub inner: Option<(usize, Family)>,
}

impl Tunnels {
    /// The part of [`Self::decap`] that is about ICMP.
    #[cold]
    pub(super) fn divert_error(&self, packet: &Packet) -> Result<(), Exit> {
        if self.quoted(packet).is_some() { Err(Exit::TunnelError) } else { Ok(()) }
    }

    /// What a packet quotes of one that went into a tunnel; `None` if it is no ICMP error about such a packet. Its checksum
    /// is not looked at.
    pub fn quoted(&self, packet: &Packet) -> Option<Quote> {
        let octets = packet.frame.bytes();
        let icmp: &Icmp = octets.header(packet.l4.into())?;
        let is_error = match packet.protocol {
            protocol::ICMP => icmpv4::is_error(icmp.kind) && icmp.kind != icmpv4::REDIRECT,
            protocol::ICMPV6 => icmpv6::is_error(icmp.kind) && icmp.kind != icmpv6::REDIRECT,
            _ => false,
        };
        if !is_error || packet.traits.has(crate::packet::Traits::FRAGMENT) {
            return None;
        }
        let l3 = usize::from(packet.l4) + Icmp::SIZE;
        let (source, destination, protocol, mut at, length) = match packet.family {
            Family::V4 => {
                let header: &Ipv4 = octets.header(l3)?;
                // A later fragment does not tell which tunnel's it is.
                if header.version() != 4 || header.header_length() < Ipv4::SIZE || header.fragment_offset() != 0 {
                    return None;
                }
                let (source, destination) = (header.source.value().into(), header.destination.value().into());
                let length = usize::from(header.total_length.value());
                (source, destination, header.protocol, l3 + header.header_length(), length)
            }
            Family::V6 => {
                let header: &Ipv6 = octets.header(l3)?;
                if header.version() != 6 {
                    return None;
                }
                let length = Ipv6::SIZE + usize::from(header.payload_length.value());
                (header.source_bits(), header.destination_bits(), header.next_header, l3 + Ipv6::SIZE, length)
            }
        };
        let mut port = 0;
        if protocol == protocol::UDP {
            port = octets.header::<Udp>(at)?.destination.value();
            at += Udp::SIZE;
        }
        let ends = Ends::of_sent(packet, source, destination)?;
        let between = (ends, protocol, port);
        let format = *self.between.get(&between)?;
        if let Some(found) = format.read_quoted(octets, at, protocol)
            && let Some(&tunnel) = self.keys.get(&(between, found.identifier))
        {
            return Some(Quote { tunnel, length, inner: found.packet_behind(octets, at) });
        }
        let (tunnel, _) =
            self.iter().find(|(_, tunnel)| (tunnel.ends, tunnel.kind.carrier()) == (ends, (protocol, port)))?;
        Some(Quote { tunnel, length, inner: None })
    }
}

impl Format {
    /// Reads a header that we sent, as far as it is quoted.
    fn read_quoted(self, octets: &[u8], at: usize, protocol: u8) -> Option<Found> {
        match self {
            Self::Vxlan => Vxlan::read(octets, at).ok(),
            Self::Geneve => Geneve::read(octets, at).ok(),
            Self::Gre => Gre::read(octets, at).ok().map(|(found, _)| found),
            Self::Ip => Some(IpInIp::read(protocol)),
        }
    }
}

impl Found {
    /// Where the inner IP packet starts behind a tunnel header at `at`.
    fn packet_behind(&self, octets: &[u8], at: usize) -> Option<(usize, Family)> {
        let at = at + usize::from(self.size);
        let family = match self.inside {
            Inside::Ip(family) => return Some((at, family)),
            Inside::Ethernet => match octets.header::<Ethernet>(at)?.ethertype.value() {
                EtherType::IPV4 => Family::V4,
                EtherType::IPV6 => Family::V6,
                _ => return None,
            },
        };
        Some((at + Ethernet::SIZE, family))
    }
}
