//! IPv6 (RFC 8200).

use crate::{Be16, Be32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// ```text
/// +-------+---------------+---------------------------------------+
/// |Version| Traffic Class |           Flow Label                  |
/// +-------+-------+-------+-------+---------------+---------------+
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// +-------------------------------+---------------+---------------+
/// |                     Source Address (128 bits)                 |
/// +---------------------------------------------------------------+
/// |                  Destination Address (128 bits)               |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: Be32,
    /// Octets behind this header, extension headers included.
    pub payload_length: Be16,
    /// [`crate::protocol`], of an extension header or the payload.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [Be32; 4],
    /// Destination address.
    pub destination: [Be32; 4],
}

impl Ipv6 {
    /// Octets of the header.
    pub const SIZE: usize = 40;
    /// Octets of a packet that every link carries (RFC 8200 §5).
    pub const LEAST_MTU: u16 = 1280;

    /// 6 for IPv6.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.version_class_flow.value() >> 28) as u8
    }

    /// DSCP (6 bits), ECN (2).
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_flow.value() >> 20) as u8
    }

    /// Sets DSCP (6 bits) and ECN (2).
    #[inline(always)]
    pub fn set_traffic_class(&mut self, class: u8) {
        let word = self.version_class_flow.value() & !0x0ff0_0000;
        self.version_class_flow = Be32::new(word | (class as u32) << 20);
    }

    /// 20 bits (RFC 6437).
    #[inline(always)]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_flow.value() & 0x000f_ffff
    }

    /// Source address as a number.
    #[inline(always)]
    pub fn source_bits(&self) -> u128 {
        bits(&self.source)
    }

    /// Destination address as a number.
    #[inline(always)]
    pub fn destination_bits(&self) -> u128 {
        bits(&self.destination)
    }

    /// An address as the header holds it.
    pub const fn address(bits: u128) -> [Be32; 4] {
        [
            Be32::new((bits >> 96) as u32),
            Be32::new((bits >> 64) as u32),
            Be32::new((bits >> 32) as u32),
            Be32::new(bits as u32),
        ]
    }
}

#[inline(always)]
fn bits(words: &[Be32; 4]) -> u128 {
    (words[0].value() as u128) << 96
        | (words[1].value() as u128) << 64
        | (words[2].value() as u128) << 32
        | words[3].value() as u128
}

/// The fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6Fragment {
    /// What the unfragmented packet goes on with.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 octets (13 bits), reserved (2), more fragments (1).
    pub offset_more: Be16,
    /// Names the packet that the fragment belongs to.
    pub identification: Be32,
}

impl Ipv6Fragment {
    /// Octets of the header.
    pub const SIZE: usize = 8;

    /// Octets before this fragment's payload in the packet's fragmentable part.
    #[inline(always)]
    pub const fn offset(&self) -> usize {
        (self.offset_more.value() & 0xfff8) as usize
    }
}

/// Whether `next_header` is an extension header with the common layout (next header, length in units of 8
/// octets less one): hop-by-hop, routing, destination options, mobility, HIP, shim6 (RFC 6564).
#[inline(always)]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 60 | 135 | 139 | 140)
}
