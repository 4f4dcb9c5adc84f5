//! What packets look like: header layouts, checksums, and the values that their fields carry.
//!
//! Shared by the workers and, through [`Octets`], by the XDP program: hence `no_std`, and layouts whose
//! alignment is two. An Ethernet header of 14 octets leaves everything behind it on even addresses; the BPF
//! verifier and back end turn fields of alignment one into loads of single octets, which costs several
//! nanoseconds a packet.
//!
//! Left out on purpose: anything that knows of tables, configuration or policy.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod be;
pub mod checksum;
mod ecn;
mod ethernet;
mod geneve;
mod gre;
mod icmp;
mod ipv4;
mod ipv6;
mod rewrite;
mod transport;
mod vxlan;

pub use be::{Be16, Be32};
pub use ecn::{Decapsulated, Ecn, decapsulate};
pub use ethernet::{EtherType, Ethernet, Mac, VlanTag};
pub use geneve::{Geneve, GeneveOption};
pub use gre::Gre;
pub use icmp::{Icmp, icmpv4, icmpv6};
pub use ipv4::Ipv4;
pub use ipv6::{Ipv6, Ipv6Fragment, is_extension};
pub use rewrite::{Follows, Rewrite};
pub use transport::{Tcp, Udp, protocol};
pub use vxlan::{Vni, Vxlan};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Octets in which headers are looked at in place: a slice on the host, the packet of an XDP context in the
/// kernel (where a plain `&[u8]` does not pass the verifier).
pub trait Octets {
    /// The header that starts `at` octets in, or `None` where the packet ends before it does (or, on the host,
    /// where the header would stand on an odd address).
    fn header<T: FromBytes + Immutable + KnownLayout>(&self, at: usize) -> Option<&T>;
}

impl Octets for [u8] {
    #[inline(always)]
    fn header<T: FromBytes + Immutable + KnownLayout>(&self, at: usize) -> Option<&T> {
        T::ref_from_prefix(self.get(at..)?).ok().map(|(header, _)| header)
    }
}

/// The same as [`Octets::header`], to be written to.
#[inline(always)]
pub fn header_mut<T: FromBytes + IntoBytes + KnownLayout>(octets: &mut [u8], at: usize) -> Option<&mut T> {
    T::mut_from_prefix(octets.get_mut(at..)?).ok().map(|(header, _)| header)
}
