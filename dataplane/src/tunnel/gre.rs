//! GRE (RFC 2784): IP or Ethernet, with or without a key (RFC 2890).
//!
//! We send neither checksum nor sequence number: the one repeats what the inner packet has, the other would drop what
//! the network reorders. What a peer sends of them is checked and skipped.

use super::{Found, Inside, Outer};
use crate::packet::{DropReason, Exit, Packet, Traits};
use wire::checksum::Sum;
use wire::{Be16, Be32, EtherType, Mac, Octets, Rewrite, protocol};
use zerocopy::IntoBytes;

/// What only GRE has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    /// `None`: headers have no key field, which is not the same as a key of zero.
    pub key: Option<u32>,
    /// Ethernet frames inside rather than bare IP packets.
    pub ethernet: bool,
}

impl Gre {
    /// Octets behind the outer IP header.
    pub const fn size(&self) -> usize {
        wire::Gre::SIZE + if self.key.is_some() { wire::Gre::FIELD } else { 0 }
    }

    /// Appends outer IP, GRE, and the inner Ethernet header if there is one that the packet does not bring.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        outer.ip(protocol::GRE, rewrite);
        let flags = if self.key.is_some() { wire::Gre::KEY } else { 0 };
        if !self.ethernet {
            rewrite.ethertype = rewrite.count + wire::Gre::PROTOCOL_AT as u8;
        }
        let ethertype = if self.ethernet { EtherType::ETHERNET } else { 0 };
        rewrite.push(wire::Gre { flags: Be16::new(flags), protocol: Be16::new(ethertype) }.as_bytes());
        if let Some(key) = self.key {
            rewrite.push(Be32::new(key).as_bytes());
        }
        if self.ethernet {
            super::inner_ethernet(inner, rewrite);
        }
    }

    /// What a key is told apart by: none is not zero.
    pub const fn identifier(key: Option<u32>) -> u64 {
        match key {
            Some(key) => 1 << 32 | key as u64,
            None => 0,
        }
    }

    /// Reads the header at a received packet's transport header.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]'s, or its checksum is wrong.
    #[inline(always)]
    pub(super) fn receive(packet: &Packet) -> Result<Found, Exit> {
        let (found, has_checksum) = Self::read(packet.frame.bytes(), packet.l4.into())?;
        if has_checksum {
            verify(packet)?;
        }
        Ok(found)
    }

    /// Reads a header, and whether it has a checksum.
    ///
    /// # Errors
    ///
    /// It is cut, of another version or of RFC 1701 (RFC 2784 §2.3); what is inside is neither Ethernet nor IP.
    #[inline(always)]
    pub(super) fn read(octets: &[u8], at: usize) -> Result<(Found, bool), Exit> {
        const CUT: Exit = Exit::Drop(DropReason::TunnelTruncated);
        let header: &wire::Gre = octets.header(at).ok_or(CUT)?;
        let (flags, ethertype) = (header.flags.value(), header.protocol.value());
        if flags & (wire::Gre::VERSION | wire::Gre::FORBIDDEN) != 0 {
            return Err(Exit::Drop(DropReason::TunnelHeader));
        }
        let mut size = wire::Gre::SIZE;
        let has_checksum = flags & wire::Gre::CHECKSUM != 0;
        if has_checksum {
            size += wire::Gre::FIELD;
        }
        let mut key = None;
        if flags & wire::Gre::KEY != 0 {
            key = Some(octets.header::<Be32>(at + size).ok_or(CUT)?.value());
            size += wire::Gre::FIELD;
        }
        if flags & wire::Gre::SEQUENCE != 0 {
            size += wire::Gre::FIELD;
        }
        let inside = Inside::of_ethertype(ethertype)?;
        Ok((Found { identifier: Self::identifier(key), size: size as u16, options: 0, inside }, has_checksum))
    }
}

/// RFC 2784 §2.1: over the GRE header and all behind it.
#[cold]
fn verify(packet: &Packet) -> Result<(), Exit> {
    // Linux leaves this one to hardware too, or writes what will be right once the one inside is finished: as with UDP,
    // the packet never left this host's memory then.
    if packet.traits.has(Traits::UNFINISHED) || packet.transport_sum(Sum::new()).folded() == 0xffff {
        Ok(())
    } else {
        Err(Exit::Drop(DropReason::TunnelChecksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FlowHash;
    use crate::testing::{raw_v4, udp_v4, with_ip};

    /// A GRE header with this checksum, and IPv4 inside.
    fn received(checksum: u16, traits: u8) -> Result<(), Exit> {
        let [high, low] = checksum.to_be_bytes();
        let mut payload = vec![0x80, 0, 8, 0, high, low, 0, 0];
        payload.extend(udp_v4([198, 18, 1, 1], b"inside"));
        let ip = raw_v4([192, 0, 2, 1], &payload, |header| header.protocol = etherparse::IpNumber(protocol::GRE));
        with_ip(0, &ip, |packet| {
            packet.traits.set(traits);
            packet.parse(&FlowHash::default())?;
            Gre::receive(packet).map(|_| ())
        })
    }

    #[test]
    fn a_checksum_is_right_or_left_to_hardware() {
        let wrong = Err(Exit::Drop(DropReason::TunnelChecksum));
        assert_eq!(received(0, 0), wrong);
        assert_eq!(received(0, Traits::UNFINISHED), Ok(()));
        let right: Vec<u16> = (0..=u16::MAX).filter(|checksum| received(*checksum, 0).is_ok()).collect();
        assert_eq!(right.len(), 1, "{right:x?}");
    }
}
