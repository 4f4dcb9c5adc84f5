//! GENEVE (RFC 8926): Ethernet or IP in UDP, with a 24-bit identifier and options.
//!
//! We put no options on. Those that a packet came with out of one GENEVE tunnel go on with it into another, unless one
//! is critical: whoever does not know such an option must drop the packet (§3.5).

use super::{Found, Inside, Outer};
use crate::packet::{DropReason, Exit, Family};
use wire::{EtherType, Follows, GeneveOption, Mac, Octets, Rewrite, Udp, Vni};
use zerocopy::IntoBytes;

/// What only GENEVE has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geneve {
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Ethernet frames inside rather than bare IP packets.
    pub ethernet: bool,
}

impl Geneve {
    /// Octets behind the outer IP header, without options.
    pub const SIZE: usize = Udp::SIZE + wire::Geneve::SIZE;

    /// Appends outer IP, UDP, GENEVE, and the inner Ethernet header if there is one that the packet does not bring.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        outer.udp(self.port, rewrite);
        rewrite.follows.0 |= Follows::OPTIONS;
        if self.ethernet {
            rewrite.push(wire::Geneve::new(EtherType::ETHERNET, self.vni).as_bytes());
            super::inner_ethernet(inner, rewrite);
        } else {
            rewrite.ethertype = rewrite.count + wire::Geneve::PROTOCOL_AT as u8;
            rewrite.push(wire::Geneve::new(0, self.vni).as_bytes());
        }
    }

    /// Reads a received header.
    ///
    /// # Errors
    ///
    /// It is cut, of another version, or a control message (§3.4: not to be forwarded); its options do not fill
    /// the room they have, or one is critical; what is inside is neither Ethernet nor IP.
    #[inline(always)]
    pub(super) fn read(octets: &[u8], at: usize) -> Result<Found, Exit> {
        let header: &wire::Geneve = octets.header(at).ok_or(Exit::Drop(DropReason::TunnelTruncated))?;
        if header.version() != 0 || header.flags & wire::Geneve::CONTROL != 0 {
            return Err(Exit::Drop(DropReason::TunnelHeader));
        }
        let options = header.options_length();
        if options != 0 {
            admit_options(octets, at + wire::Geneve::SIZE, options)?;
        }
        Ok(Found {
            identifier: header.vni().value().into(),
            size: (wire::Geneve::SIZE + options) as u16,
            options: (options / 4) as u8,
            inside: Inside::of_ethertype(header.protocol.value())?,
        })
    }
}

/// Walks the options. Whether the C flag announces a critical one does not matter: it is there or it is not.
#[cold]
fn admit_options(octets: &[u8], mut at: usize, length: usize) -> Result<(), Exit> {
    let end = at + length;
    if octets.len() < end {
        return Err(Exit::Drop(DropReason::TunnelTruncated));
    }
    while at < end {
        let option: &GeneveOption = octets.header(at).ok_or(Exit::Drop(DropReason::TunnelTruncated))?;
        at += option.size();
        if at > end {
            return Err(Exit::Drop(DropReason::TunnelHeader));
        }
        if option.is_critical() {
            return Err(Exit::Drop(DropReason::CriticalOption));
        }
    }
    Ok(())
}

impl Inside {
    /// What an EtherType of a tunnel header announces.
    ///
    /// # Errors
    ///
    /// Neither Ethernet nor IP.
    #[inline(always)]
    pub(super) const fn of_ethertype(ethertype: u16) -> Result<Self, Exit> {
        match ethertype {
            EtherType::ETHERNET => Ok(Self::Ethernet),
            EtherType::IPV4 => Ok(Self::Ip(Family::V4)),
            EtherType::IPV6 => Ok(Self::Ip(Family::V6)),
            _ => Err(Exit::Drop(DropReason::InnerType)),
        }
    }
}
