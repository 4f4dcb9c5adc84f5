//! IP in IP without a header between: ipip (RFC 2003), sit (RFC 4213), ip6ip6 and ip4ip6 (RFC 2473).
//!
//! The outer protocol number says what is inside. RFC 2473's Tunnel Encapsulation Limit is read over, as any option of
//! the outer IPv6 header, and not sent: nothing here nests by itself.

use super::{Found, Inside, Outer};
use crate::packet::Family;
use wire::{Rewrite, protocol};

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpInIp {
    /// Which IP is outside.
    pub outer: Family,
    /// Which IP is inside.
    pub inner: Family,
}

impl IpInIp {
    /// As the configuration calls it.
    pub const fn name(&self) -> &'static str {
        match (self.outer, self.inner) {
            (Family::V4, Family::V4) => "ipip",
            (Family::V4, Family::V6) => "sit",
            (Family::V6, Family::V6) => "ip6ip6",
            (Family::V6, Family::V4) => "ip4ip6",
        }
    }

    /// The outer protocol number.
    pub const fn protocol(&self) -> u8 {
        match self.inner {
            Family::V4 => protocol::IPV4,
            Family::V6 => protocol::IPV6,
        }
    }

    /// Appends the outer IP header.
    pub fn headers(&self, outer: &Outer, rewrite: &mut Rewrite) {
        outer.ip(self.protocol(), rewrite);
    }

    /// What a packet of such a protocol holds.
    #[inline(always)]
    pub(super) const fn read(protocol: u8) -> Found {
        let family = if protocol == protocol::IPV4 { Family::V4 } else { Family::V6 };
        Found { identifier: 0, size: 0, options: 0, inside: Inside::Ip(family) }
    }
}
