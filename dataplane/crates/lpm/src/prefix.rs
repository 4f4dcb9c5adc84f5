//! Prefixes that cannot be wrong: no length above the width, no host bits.

use std::fmt;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::Address;

/// A prefix of `len` bits; the bits of `address` behind them are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<A> {
    address: A,
    len: u8,
}

/// Why an address and a length make no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The length exceeds the width of the address.
    #[error("prefix length {len}: a prefix of {address} has 0..={bits} bits")]
    Length {
        /// The address given.
        address: IpAddr,
        /// The length given.
        len: u8,
        /// The greatest length of this family.
        bits: u8,
    },
    /// Bits behind the length are set.
    #[error("{address}/{len}: host bits are set, the prefix is {first}/{len}")]
    HostBits {
        /// The address given.
        address: IpAddr,
        /// The length given.
        len: u8,
        /// The address with its host bits cleared.
        first: IpAddr,
    },
}

impl<A: Address> Prefix<A> {
    /// The prefix of `len` bits that `address` is the first address of.
    ///
    /// # Errors
    ///
    /// When `len` exceeds the width, or `address` has bits set behind `len`.
    pub fn new(address: A, len: u8) -> Result<Self, PrefixError> {
        let prefix = Self::containing(address, len)?;
        if prefix.address != address {
            return Err(PrefixError::HostBits { address: address.to_ip(), len, first: prefix.address.to_ip() });
        }
        Ok(prefix)
    }

    /// The prefix of `len` bits that contains `address`, whatever its host bits: what an
    /// interface's address and its prefix length make.
    ///
    /// # Errors
    ///
    /// When `len` exceeds the width.
    pub fn containing(address: A, len: u8) -> Result<Self, PrefixError> {
        if len > A::BITS {
            return Err(PrefixError::Length { address: address.to_ip(), len, bits: A::BITS });
        }
        Ok(Self { address: address.first(len), len })
    }

    /// The prefix of full length that holds `address` alone.
    pub fn host(address: A) -> Self {
        Self { address, len: A::BITS }
    }

    /// The first address, in host byte order.
    pub fn address(self) -> A {
        self.address
    }

    /// The last address, in host byte order.
    pub fn last(self) -> A {
        self.address.last(self.len)
    }

    /// The length in bits.
    #[expect(clippy::len_without_is_empty, reason = "a length in bits, and no prefix is empty")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether the prefix holds `address`.
    pub fn contains(self, address: A) -> bool {
        address.first(self.len) == self.address
    }
}

impl<A: Address> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address.to_ip(), self.len)
    }
}

impl TryFrom<Ipv4Net> for Prefix<u32> {
    type Error = PrefixError;

    /// Fails when host bits are set.
    fn try_from(net: Ipv4Net) -> Result<Self, PrefixError> {
        Self::new(net.addr().to_bits(), net.prefix_len())
    }
}

impl TryFrom<Ipv6Net> for Prefix<u128> {
    type Error = PrefixError;

    /// Fails when host bits are set.
    fn try_from(net: Ipv6Net) -> Result<Self, PrefixError> {
        Self::new(net.addr().to_bits(), net.prefix_len())
    }
}

impl From<Prefix<u32>> for Ipv4Net {
    fn from(prefix: Prefix<u32>) -> Self {
        Self::new(prefix.address.into(), prefix.len).expect("a prefix has at most 32 bits")
    }
}

impl From<Prefix<u128>> for Ipv6Net {
    fn from(prefix: Prefix<u128>) -> Self {
        Self::new(prefix.address.into(), prefix.len).expect("a prefix has at most 128 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: u32, len: u8, expected: Result<&str, &str>) {
        let prefix = Prefix::new(address, len);
        let text = prefix.map(|prefix| prefix.to_string()).map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn takes_every_length_and_refuses_host_bits() {
        check(0, 0, Ok("0.0.0.0/0"));
        check(0x8000_0000, 1, Ok("128.0.0.0/1"));
        check(0xc000_0200, 24, Ok("192.0.2.0/24"));
        check(0xc000_0201, 32, Ok("192.0.2.1/32"));
        check(0xc000_0201, 24, Err("192.0.2.1/24: host bits are set, the prefix is 192.0.2.0/24"));
        check(1, 0, Err("0.0.0.1/0: host bits are set, the prefix is 0.0.0.0/0"));
        check(0xc000_0200, 33, Err("prefix length 33: a prefix of 192.0.2.0 has 0..=32 bits"));
    }

    #[test]
    fn holds_its_first_and_last_address_and_no_neighbour() {
        for len in 1..=128_u8 {
            let prefix = Prefix::containing(0x2001_0db8_u128 << 96 | 1 << 127 | 1, len).unwrap();
            assert!(prefix.contains(prefix.address()) && prefix.contains(prefix.last()));
            assert!(!prefix.contains(prefix.address() - 1));
            assert!(!prefix.contains(prefix.last().wrapping_add(1)));
            assert_eq!(prefix.last() - prefix.address(), (1 << (128 - len)) - 1);
        }
        let all = Prefix::new(0_u128, 0).unwrap();
        assert_eq!(all.last(), u128::MAX);
        assert!(all.contains(0) && all.contains(u128::MAX));
        assert_eq!(Prefix::host(7_u128), Prefix::new(7, 128).unwrap());
    }

    #[test]
    fn goes_to_ipnet_and_back() {
        let net: Ipv4Net = "192.0.2.0/25".parse().unwrap();
        assert_eq!(Ipv4Net::from(Prefix::try_from(net).unwrap()), net);
        let net: Ipv6Net = "2001:db8::/33".parse().unwrap();
        assert_eq!(Ipv6Net::from(Prefix::try_from(net).unwrap()), net);
        assert_eq!(Prefix::try_from(net).unwrap().address() >> 96, 0x2001_0db8);

        let net: Ipv4Net = "192.0.2.1/25".parse().unwrap();
        Prefix::<u32>::try_from(net).unwrap_err();
        let net: Ipv6Net = "2001:db8::1/64".parse().unwrap();
        Prefix::<u128>::try_from(net).unwrap_err();
    }
}
