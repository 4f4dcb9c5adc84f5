//! Ethernet and 802.1Q.

use crate::Be16;
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 48-bit MAC address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Mac([Be16Raw; 3]);

// `Ord` on the raw halves: an order for maps, not a numeric one.
type Be16Raw = u16;

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xffff; 3]);

    /// From its octets in the order of transmission.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([octets[0], octets[1]]),
            u16::from_ne_bytes([octets[2], octets[3]]),
            u16::from_ne_bytes([octets[4], octets[5]]),
        ])
    }

    /// Its octets in the order of transmission.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Whether the I/G bit is set: multicast or broadcast (IEEE 802-2014 §8.2).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.octets()[0] & 1 != 0
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self::new(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = self.octets();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", o[0], o[1], o[2], o[3], o[4], o[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an Ethernet frame carries (IANA: IEEE 802 numbers).
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An Ethernet frame: Transparent Ethernet Bridging, in GRE and GENEVE.
    pub const ETHERNET: u16 = 0x6558;
    /// An 802.1Q tag follows.
    pub const VLAN: u16 = 0x8100;
    /// An 802.1ad service tag follows.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// The Ethernet II header, without preamble and frame check sequence.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ethernet {
    /// Destination MAC.
    pub destination: Mac,
    /// Source MAC.
    pub source: Mac,
    /// [`EtherType`] of what follows.
    pub ethertype: Be16,
}

impl Ethernet {
    /// Octets of the header.
    pub const SIZE: usize = 14;
}

/// What stands behind the EtherType of a tagged frame (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1), VLAN identifier (12).
    pub control: Be16,
    /// [`EtherType`] of what follows.
    pub ethertype: Be16,
}

impl VlanTag {
    /// Octets of the tag behind the EtherType.
    pub const SIZE: usize = 4;

    /// VLAN identifier; 0 is a priority tag, which belongs to no VLAN.
    #[inline(always)]
    pub const fn id(&self) -> u16 {
        self.control.value() & 0x0fff
    }
}
