//! VXLAN (RFC 7348): Ethernet in UDP, told apart by a 24-bit identifier.

use super::{Found, Inside, Outer};
use crate::packet::{DropReason, Exit};
use wire::{Mac, Octets, Rewrite, Udp, Vni};
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
    /// Octets behind the outer IP header.
    pub const SIZE: usize = Udp::SIZE + wire::Vxlan::SIZE;

    /// Appends outer IP, UDP, VXLAN, and the inner Ethernet header unless the packet brings one. The source port is
    /// the flow's (§5: entropy for ECMP); the UDP checksum should be zero over IPv4.
    pub fn headers(&self, outer: &Outer, inner: Option<(Mac, Mac)>, rewrite: &mut Rewrite) {
        outer.udp(self.port, rewrite);
        rewrite.push(wire::Vxlan::new(self.vni).as_bytes());
        super::inner_ethernet(inner, rewrite);
    }

    /// Reads a received header. Reserved bits are ignored (§5).
    ///
    /// # Errors
    ///
    /// The header is cut, or lacks the I flag.
    #[inline(always)]
    pub(super) fn read(octets: &[u8], at: usize) -> Result<Found, Exit> {
        let header: &wire::Vxlan = octets.header(at).ok_or(Exit::Drop(DropReason::TunnelTruncated))?;
        let vni = header.vni().ok_or(Exit::Drop(DropReason::TunnelHeader))?;
        Ok(Found {
            identifier: vni.value().into(),
            size: wire::Vxlan::SIZE as u16,
            options: 0,
            inside: Inside::Ethernet,
        })
    }
}
