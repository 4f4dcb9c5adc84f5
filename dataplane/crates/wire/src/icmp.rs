//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use crate::{Be16, Be32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The header that every ICMP message begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Over the message; for ICMPv6 also over the pseudo-header.
    pub checksum: Be16,
    /// By type: identifier and sequence number, next-hop MTU, …
    pub rest: Be32,
}

impl Icmp {
    /// Octets of the header.
    pub const SIZE: usize = 8;
}

/// ICMP types and codes.
pub mod icmpv4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of [`UNREACHABLE`]: network.
    pub const NET: u8 = 0;
    /// Code of [`UNREACHABLE`]: host.
    pub const HOST: u8 = 1;
    /// Code of [`UNREACHABLE`]: fragmentation needed and DF set (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Code of [`UNREACHABLE`]: administratively prohibited (RFC 1812 §5.2.7.1).
    pub const PROHIBITED: u8 = 13;

    /// Whether the type reports an error, about which no error may be sent (RFC 1812 §4.3.2.7).
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// ICMPv6 types and codes.
pub mod icmpv6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation (RFC 4861).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Redirect (RFC 4861): like an error, none may be sent about it (RFC 4443 §2.4).
    pub const REDIRECT: u8 = 137;
    /// Code of [`UNREACHABLE`]: no route.
    pub const NO_ROUTE: u8 = 0;
    /// Code of [`UNREACHABLE`]: administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Code of [`UNREACHABLE`]: address.
    pub const ADDRESS: u8 = 3;

    /// Whether the type reports an error (RFC 4443 §2.1) or is a redirect (§2.4 e.2).
    #[inline(always)]
    pub const fn is_error(kind: u8) -> bool {
        kind < 128 || kind == REDIRECT
    }
}
