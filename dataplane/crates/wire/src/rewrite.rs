//! What is put before a packet when it leaves: plain data.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which fields of the prepended octets follow the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Follows(pub u8);

impl Follows {
    /// ECN is copied from the inner header (RFC 6040 normal mode).
    pub const ECN: u8 = 1 << 0;
    /// DSCP is copied from the inner header (RFC 2983 uniform model).
    pub const DSCP: u8 = 1 << 1;
    /// TTL or hop limit is copied from the inner header.
    pub const TTL: u8 = 1 << 2;
    /// DF is copied from an inner IPv4 header; set for inner IPv6, which no router fragments.
    pub const DF: u8 = 1 << 3;
    /// A UDP header behind the outer IP header: its length, and a source port made of the flow hash.
    pub const UDP: u8 = 1 << 4;
    /// The UDP checksum is computed over the whole packet.
    pub const UDP_CHECKSUM: u8 = 1 << 5;
    /// The outer IPv4 header may be fragmented on its way: it needs an identification.
    pub const IDENTIFICATION: u8 = 1 << 6;
    /// GENEVE options that the packet came with go on behind the last of the octets that are put before it.
    pub const OPTIONS: u8 = 1 << 7;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }
}

/// An adjacency's headers, ready to be put before a packet: 128 octets without pointers or padding, so that
/// it can be a BPF map's value as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct Rewrite {
    /// Moves on whenever anything else here changes.
    pub generation: u32,
    /// Port that the packet leaves by (a copy of the adjacency's, for XDP).
    pub egress: u16,
    /// Largest IP packet that fits, octets (a copy of the adjacency's, for XDP).
    pub mtu: u16,
    /// Folded sum of the outer IPv4 header with every field zero that follows the packet.
    pub base_sum: u16,
    /// Folded sum of what the outer UDP checksum covers of `octets` and of the pseudo-header, likewise; 0 without UDP.
    pub udp_sum: u16,
    /// How many of `octets` are used.
    pub count: u8,
    /// Where in `octets` the outer IP header starts; 0: there is none.
    pub outer: u8,
    /// Which fields follow the packet.
    pub follows: Follows,
    /// 1: the packet keeps its Ethernet header (it came from a bridge port); 0: it is cut off first.
    pub keep: u8,
    /// Where in `octets` an EtherType stands that is the packet's family's; 0: nowhere.
    pub ethertype: u8,
    /// Zero.
    pub reserved: u8,
    /// The headers, from the first octet on the wire.
    pub octets: [u8; Self::CAPACITY],
}

impl Rewrite {
    /// Octets of headers at most.
    pub const CAPACITY: usize = 110;

    /// Puts nothing before the packet.
    pub const fn empty() -> Self {
        Self {
            generation: 0,
            egress: 0,
            mtu: 0,
            base_sum: 0,
            udp_sum: 0,
            count: 0,
            outer: 0,
            follows: Follows(0),
            keep: 0,
            ethertype: 0,
            reserved: 0,
            octets: [0; Self::CAPACITY],
        }
    }

    /// Appends octets.
    ///
    /// # Panics
    ///
    /// Beyond [`Self::CAPACITY`]: tunnel types know their headers' sizes.
    pub fn push(&mut self, octets: &[u8]) {
        let at = usize::from(self.count);
        self.octets[at..at + octets.len()].copy_from_slice(octets);
        self.count += octets.len() as u8;
    }

    /// The octets in use.
    #[inline(always)]
    pub fn headers(&self) -> &[u8] {
        &self.octets[..usize::from(self.count).min(Self::CAPACITY)]
    }
}

const _: () = assert!(size_of::<Rewrite>() == 128);
