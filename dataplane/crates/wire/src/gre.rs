//! GRE (RFC 2784) with key and sequence number (RFC 2890).

use crate::Be16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The part that every GRE header has. Checksum with a reserved field, key, and sequence number follow in this order,
/// four octets each, where their flags are set.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |C| |K|S|       Reserved0       | Ver |         Protocol Type   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Gre {
    /// Flags, reserved, version.
    pub flags: Be16,
    /// What follows, as an EtherType.
    pub protocol: Be16,
}

impl Gre {
    /// Octets of this part.
    pub const SIZE: usize = 4;
    /// Octets of each optional field.
    pub const FIELD: usize = 4;
    /// Where [`Self::protocol`] stands.
    pub const PROTOCOL_AT: usize = 2;
    /// A checksum is there.
    pub const CHECKSUM: u16 = 0x8000;
    /// A key is there.
    pub const KEY: u16 = 0x2000;
    /// A sequence number is there.
    pub const SEQUENCE: u16 = 0x1000;
    /// Bits 1, 4 and 5 of RFC 1701's flags (routing and its kin): whoever does not know them must discard the packet
    /// (RFC 2784 §2.3). Bits 6 to 12 are ignored.
    pub const FORBIDDEN: u16 = 0x4c00;
    /// Version 1 is PPTP's.
    pub const VERSION: u16 = 0x0007;
}
