//! GENEVE (RFC 8926).

use crate::{Be16, Be32, Vni};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The fixed part of the header (§3.4); up to 252 octets of options follow.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |        Virtual Network Identifier (VNI)       |    Reserved   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Geneve {
    /// Version (2 bits), length of the options in words of four octets (6).
    pub version_length: u8,
    /// O, C, reserved (6): zero on transmission and ignored on receipt.
    pub flags: u8,
    /// What follows, as an EtherType.
    pub protocol: Be16,
    /// Identifier (24 bits), reserved (8).
    pub vni_reserved: Be32,
}

impl Geneve {
    /// Octets of the fixed part.
    pub const SIZE: usize = 8;
    /// Where [`Self::protocol`] stands.
    pub const PROTOCOL_AT: usize = 2;
    /// UDP destination port (IANA).
    pub const PORT: u16 = 6081;
    /// The O flag: a message between the two ends, nothing to forward.
    pub const CONTROL: u8 = 0x80;
    /// The C flag: an option is critical.
    pub const CRITICAL: u8 = 0x40;
    /// Octets of options at most.
    pub const OPTIONS: usize = 252;

    /// A header to send, without options.
    pub const fn new(protocol: u16, vni: Vni) -> Self {
        Self { version_length: 0, flags: 0, protocol: Be16::new(protocol), vni_reserved: Be32::new(vni.value() << 8) }
    }

    /// 0 is the only one there is.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_length >> 6
    }

    /// Octets of the options, 0..=252.
    #[inline(always)]
    pub const fn options_length(&self) -> usize {
        (self.version_length & 0x3f) as usize * 4
    }

    /// The identifier.
    #[inline(always)]
    pub const fn vni(&self) -> Vni {
        Vni::of_word(self.vni_reserved.value())
    }
}

/// The head of an option (§3.5).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |          Option Class         |      Type     |R|R|R| Length  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GeneveOption {
    /// Who defines the type (IANA).
    pub class: Be16,
    /// The high bit says: whoever does not know the option must drop the packet.
    pub kind: u8,
    /// Reserved (3 bits), words of four octets behind this head (5).
    pub length: u8,
}

impl GeneveOption {
    /// Octets of the head.
    pub const SIZE: usize = 4;

    /// Whether who does not know it must drop the packet.
    pub const fn is_critical(&self) -> bool {
        self.kind & 0x80 != 0
    }

    /// Octets of head and data.
    pub const fn size(&self) -> usize {
        Self::SIZE + (self.length & 0x1f) as usize * 4
    }
}
