//! The two widths of address, as numbers in host byte order.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as a number: `u32` for IPv4, `u128` for IPv6, host byte order.
///
/// Sealed: there are no other widths.
pub trait Address: Copy + Ord + Hash + Debug + Send + Sync + 'static + sealed::Sealed {
    /// Bits in an address: 32 or 128.
    const BITS: u8;
    /// The lowest address.
    const ZERO: Self;

    /// The address with all but its first `len` bits cleared; `len` is 0..=[`Address::BITS`].
    fn first(self, len: u8) -> Self;

    /// The address with all but its first `len` bits set; `len` is 0..=[`Address::BITS`].
    fn last(self, len: u8) -> Self;

    /// The address after this one; `None` after the last.
    fn next(self) -> Option<Self>;

    /// The address for printing.
    fn to_ip(self) -> IpAddr;
}

impl Address for u32 {
    const BITS: u8 = 32;
    const ZERO: Self = 0;

    #[inline]
    fn first(self, len: u8) -> Self {
        // Shifting by the whole width gives None: nothing is left of a /0.
        self & Self::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
    }

    #[inline]
    fn last(self, len: u8) -> Self {
        self | Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn to_ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Address for u128 {
    const BITS: u8 = 128;
    const ZERO: Self = 0;

    #[inline]
    fn first(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    #[inline]
    fn last(self, len: u8) -> Self {
        self | Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u128 {}
}
