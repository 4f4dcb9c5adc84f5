//! VXLAN (RFC 7348): Ethernet in UDP, told apart by a 24-bit identifier.

use super::Outer;
use crate::packet::{DropReason, Exit};
use wire::{Be16, Ethernet, Follows, Mac, Octets, Rewrite, Udp, Vni};
use zerocopy::IntoBytes;

/// What only VXLAN has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
}

impl Vxlan {
    /// Octets between outer and inner IP header.
    pub const OVERHEAD: usize = Udp::SIZE + wire::Vxlan::SIZE + Ethernet::SIZE;

    /// Appends outer IP, UDP, VXLAN, and the inner Ethernet header unless the packet brings one. The source port is
    /// the flow's (§5: entropy for ECMP); the UDP checksum should be zero over IPv4.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        outer.udp(self.port, rewrite);
        rewrite.push(wire::Vxlan::new(self.vni).as_bytes());
        if let Some((destination, source)) = inner {
            rewrite.follows.0 |= Follows::INNER_TYPE;
            rewrite.push(Ethernet { destination, source, ethertype: Be16::new(0) }.as_bytes());
        } else {
            rewrite.keep = 1;
        }
    }

    /// The identifier and length of a received header. Reserved bits are ignored (§5).
    ///
    /// # Errors
    ///
    /// The header is cut, or lacks the I flag.
    #[inline(always)]
    pub fn read(octets: &[u8], at: usize) -> Result<(Vni, usize), Exit> {
        let header: &wire::Vxlan = octets.header(at).ok_or(Exit::Drop(DropReason::TunnelTruncated))?;
        let vni = header.vni().ok_or(Exit::Drop(DropReason::TunnelHeader))?;
        Ok((vni, wire::Vxlan::SIZE))
    }
}
