//! IPv4 (RFC 791).

use crate::{Be16, Be32, checksum::Sum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------+-------+---------------+-------------------------------+
/// |Version|  IHL  |Type of Service|          Total Length         |
/// +-------+-------+---------------+-----+-------------------------+
/// |         Identification        |Flags|      Fragment Offset    |
/// +---------------+---------------+-----+-------------------------+
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// +---------------+---------------+-------------------------------+
/// |                       Source Address                          |
/// +---------------------------------------------------------------+
/// |                    Destination Address                        |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4 bits), header length in words of 32 bits (4).
    pub version_ihl: u8,
    /// DSCP (6 bits), ECN (2): RFC 2474, RFC 3168.
    pub tos: u8,
    /// Header and payload, octets.
    pub total_length: Be16,
    /// Names the datagram that a fragment belongs to.
    pub identification: Be16,
    /// Reserved, DF, MF (3 bits), offset in units of 8 octets (13).
    pub fragment: Be16,
    /// Hops left.
    pub ttl: u8,
    /// [`crate::protocol`].
    pub protocol: u8,
    /// Over the header alone.
    pub checksum: Be16,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
}

impl Ipv4 {
    /// Octets of a header without options.
    pub const SIZE: usize = 20;
    /// Don't fragment, in `fragment`.
    pub const DF: u16 = 0x4000;
    /// More fragments, in `fragment`.
    pub const MF: u16 = 0x2000;
    /// The offset's bits, in `fragment`.
    pub const OFFSET: u16 = 0x1fff;

    /// 4 for IPv4.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Octets of the header, 0..=60: below 20 it is malformed.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) << 2
    }

    /// Part of a larger datagram: first, middle or last.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.fragment.value() & (Self::MF | Self::OFFSET) != 0
    }

    /// Octets before this fragment's payload in the datagram.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        ((self.fragment.value() & Self::OFFSET) as usize) << 3
    }

    /// Whether routers may not fragment it.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.fragment.value() & Self::DF != 0
    }

    /// The checksum of this header as it stands, its options (if any) given apart.
    pub fn computed_checksum(&self, options: &[u8]) -> u16 {
        let mut header = *self;
        header.checksum = Be16::new(0);
        let mut sum = Sum::new();
        sum.add(header.as_bytes());
        sum.add(options);
        sum.checksum()
    }

    /// One hop less, the checksum updated (RFC 1624): the TTL is the upper octet of its word, so the sum changes
    /// by 0x0100. All ones become zero, as if computed anew (§3): no header sums to zero.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        self.ttl -= 1;
        let sum = self.checksum.value() as u32 + 0x0100;
        self.checksum = Be16::new((sum + (sum >= 0xffff) as u32) as u16);
    }
}
