//! VXLAN (RFC 7348).

use crate::Be32;
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// VXLAN or Geneve network identifier: 24 bits (RFC 7348 §5, RFC 8926 §3.4).
/// Zero is legal: neither reserves it, and peers use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// The greatest.
    pub const MAX: u32 = 0x00ff_ffff;

    /// `None` for anything wider than 24 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// The upper 24 bits of a word: VXLAN and Geneve have reserved ones below.
    #[inline(always)]
    pub const fn of_word(word: u32) -> Self {
        Self(word >> 8)
    }

    /// 0..=16777215.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |R|R|R|R|I|R|R|R|            Reserved                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                VXLAN Network Identifier (VNI) |   Reserved    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vxlan {
    /// Only the I flag must be set; the reserved bits are zero on transmission and ignored on receipt.
    pub flags: Be32,
    /// Identifier (24 bits), reserved (8).
    pub vni_reserved: Be32,
}

impl Vxlan {
    /// Octets of the header.
    pub const SIZE: usize = 8;
    /// UDP destination port (IANA).
    pub const PORT: u16 = 4789;
    /// The I flag: the identifier is valid.
    pub const VALID: u32 = 0x0800_0000;

    /// A header to send.
    pub const fn new(vni: Vni) -> Self {
        Self { flags: Be32::new(Self::VALID), vni_reserved: Be32::new(vni.0 << 8) }
    }

    /// The identifier, if the I flag says that there is one.
    #[inline(always)]
    pub const fn vni(&self) -> Option<Vni> {
        if self.flags.value() & Self::VALID != 0 { Some(Vni::of_word(self.vni_reserved.value())) } else { None }
    }
}
