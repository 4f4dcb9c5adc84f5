//! Keys and values of the XDP program's maps: plain data without padding, the same on both sides.
//!
//! Addresses are numbers in host order, IPv6 as four words, the most significant first; only [`RouteV4`] and
//! [`RouteV6`] hold network order, because a longest-prefix-match trie compares octets from the first on.

use core::ops::BitOr;
use wire::Mac;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Receive queues per device at most; what arrives on a later one meets the fallback. A power of two.
pub const QUEUES: u32 = 256;
/// Devices at most: [`Interface::port`] is below.
pub const PORTS: u32 = 64;
/// Rows of counters at most: [`Interface::counters`] is below.
pub const ROWS: u32 = 256;
/// Interfaces at most, those by VLAN tag included.
pub const INTERFACES: u32 = 1024;
/// Addresses of the host per family at most, all VRFs together, with subnet broadcasts and tunnel ends.
pub const LOCALS: u32 = 16_384;
/// Tunnel keys per family at most; a tunnel takes two, one for its fragments.
pub const TUNNELS: u32 = 65_536;
/// Prefixes per family at most, after those that change nothing were left out.
pub const ROUTES: u32 = 1_048_576;

/// How a frame comes in: the key of the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ingress {
    /// Interface index of the device that receives.
    pub device: u32,
    /// VLAN identifier, 1..=4094; 0: untagged, or with a priority tag.
    pub vlan: u32,
}

/// What must be known of an interface to steer what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Interface {
    /// The MAC address that frames for us carry.
    pub mac: Mac,
    /// Which sockets serve it: those of the device that receives, below [`PORTS`].
    pub port: u16,
    /// Which row of counters it has, below [`ROWS`].
    pub counters: u16,
    /// What else holds.
    pub flags: InterfaceFlags,
    /// Its VRF.
    pub vrf: u32,
}

/// A copy of what is known of an untagged interface, where it is found without hashing.
///
/// Each device has two places, [`Quick::place`] and the one behind it; where neither has it, the map of interfaces
/// does. A place is written only while it is empty and has been for longer than any packet takes, so the XDP program
/// never reads half of one interface and half of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Quick {
    /// Interface index of the device; 0: the place is empty.
    pub device: u32,
    /// What is known of it.
    pub interface: Interface,
}

impl Quick {
    /// Places in all. A power of two.
    pub const PLACES: u32 = 1024;

    /// The first place of a device.
    #[inline(always)]
    pub const fn place(device: u32) -> u32 {
        device.wrapping_mul(2) & (Self::PLACES - 1)
    }
}

/// Facts of an interface, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InterfaceFlags(pub u16);

impl InterfaceFlags {
    /// What no socket takes is dropped; without this flag it goes to the kernel.
    pub const FALLBACK_DROP: Self = Self(1 << 0);
    /// Some IPv4 prefix of its VRF is the kernel's: there is something to look up.
    pub const ROUTES_V4: Self = Self(1 << 1);
    /// Some IPv6 prefix of its VRF is the kernel's.
    pub const ROUTES_V6: Self = Self(1 << 2);

    /// Whether every flag of `other` is set here.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for InterfaceFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What an address is to us, one bit each; none set: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Local(pub u32);

impl Local {
    /// Nothing to us.
    pub const NONE: Self = Self(0);
    /// An address of the host.
    pub const OWN: Self = Self(1 << 0);
    /// The broadcast address of a connected subnet.
    pub const BROADCAST: Self = Self(1 << 1);
    /// A tunnel ends here.
    pub const TUNNEL: Self = Self(1 << 2);
    /// A tunnel ends here whose far end may be any.
    pub const ANY_REMOTE: Self = Self(1 << 3);

    /// Whether every flag of `other` is set here.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Local {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An IPv4 address in its VRF: the key of [`Local`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocalV4 {
    /// VRF.
    pub vrf: u32,
    /// Address.
    pub address: u32,
}

/// An IPv6 address in its VRF: the key of [`Local`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LocalV6 {
    /// VRF.
    pub vrf: u32,
    /// Address.
    pub address: [u32; 4],
}

/// The end points of a tunnel over IPv4. With protocol 0, the pair of ends whose fragments are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelV4 {
    /// VRF of the outside.
    pub vrf: u32,
    /// The far end; 0: any.
    pub remote: u32,
    /// Our end.
    pub local: u32,
    /// UDP destination port; 0 for other protocols.
    pub port: u16,
    /// [`wire::protocol`]; 0: fragments of whatever protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// The end points of a tunnel over IPv6. With protocol 0, the pair of ends whose fragments are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelV6 {
    /// VRF of the outside.
    pub vrf: u32,
    /// The far end; 0: any.
    pub remote: [u32; 4],
    /// Our end.
    pub local: [u32; 4],
    /// UDP destination port; 0 for other protocols.
    pub port: u16,
    /// [`wire::protocol`]; 0: fragments of whatever protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

/// What a trie compares for an IPv4 destination, VRF first: network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteV4 {
    vrf: u32,
    address: u32,
}

impl RouteV4 {
    /// Bits of the VRF, before those of the address.
    pub const VRF_BITS: u32 = 32;

    /// Of numbers in host order.
    #[inline(always)]
    pub const fn new(vrf: u32, address: u32) -> Self {
        Self { vrf: vrf.to_be(), address: address.to_be() }
    }

    /// VRF and address, in host order.
    pub const fn parts(self) -> (u32, u32) {
        (u32::from_be(self.vrf), u32::from_be(self.address))
    }
}

/// What a trie compares for an IPv6 destination, VRF first: network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteV6 {
    vrf: u32,
    address: [u32; 4],
}

impl RouteV6 {
    /// Bits of the VRF, before those of the address.
    pub const VRF_BITS: u32 = 32;

    /// Of numbers in host order.
    #[inline(always)]
    pub const fn new(vrf: u32, address: [u32; 4]) -> Self {
        let [a, b, c, d] = address;
        Self { vrf: vrf.to_be(), address: [a.to_be(), b.to_be(), c.to_be(), d.to_be()] }
    }

    /// VRF and address, in host order.
    pub const fn parts(self) -> (u32, [u32; 4]) {
        let [a, b, c, d] = self.address;
        (u32::from_be(self.vrf), [u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)])
    }
}

/// Who has a prefix: the value of the tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Keeper(pub u32);

impl Keeper {
    /// The workers forward it.
    pub const WORKER: Self = Self(0);
    /// The kernel's route leaves by a device that is not ours: it is left to the kernel.
    pub const KERNEL: Self = Self(1);
}

const _: () = assert!(size_of::<Quick>() == 20 && Quick::PLACES.is_power_of_two());
const _: () = assert!(size_of::<Interface>() == 16 && size_of::<TunnelV4>() == 16 && size_of::<TunnelV6>() == 40);
const _: () = assert!(QUEUES.is_power_of_two() && PORTS.is_power_of_two() && ROWS.is_power_of_two());
