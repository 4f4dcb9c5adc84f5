//! UDP (RFC 768), TCP (RFC 9293) and the protocol numbers.

use crate::{Be16, Be32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Protocol numbers (IANA): IPv4's protocol, IPv6's next header.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// IPsec ESP.
    pub const ESP: u8 = 50;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source: Be16,
    /// Destination port.
    pub destination: Be16,
    /// Header and payload, octets.
    pub length: Be16,
    /// Zero: not computed (RFC 768; over IPv6 for tunnels only, RFC 6935).
    pub checksum: Be16,
}

impl Udp {
    /// Octets of the header.
    pub const SIZE: usize = 8;
}

/// The TCP header, without options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source: Be16,
    /// Destination port.
    pub destination: Be16,
    /// Sequence number.
    pub sequence: Be32,
    /// Acknowledgement number.
    pub acknowledgement: Be32,
    /// Header length in words of 32 bits (4 bits), reserved (4).
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    pub flags: u8,
    /// Window.
    pub window: Be16,
    /// Over pseudo-header, header and payload.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

impl Tcp {
    /// Octets of a header without options.
    pub const SIZE: usize = 20;
    /// SYN, in `flags`.
    pub const SYN: u8 = 0x02;
    /// Where the checksum stands in the header.
    pub const CHECKSUM_AT: usize = 16;

    /// Octets of the header, 0..=60: below 20 it is malformed.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        ((self.data_offset >> 4) as usize) << 2
    }
}
