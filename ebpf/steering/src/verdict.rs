//! What becomes of a frame, and the numbers under which that is counted.

/// How many counters a row has: every code is below. A power of two, so that the XDP program can mask.
pub const CODES: usize = 32;

/// A worker should have had the frame, no socket was there, and the interface's fallback is the kernel.
pub const UNSERVED_TO_KERNEL: u8 = 28;
/// A worker should have had the frame, no socket was there, and the interface's fallback is to drop.
pub const UNSERVED_DROPPED: u8 = 29;

/// Where a frame goes.
///
/// Codes 24 to 27 are kept for what will be dropped here: the deny list and the rate limits by source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Up to the kernel.
    Pass(PassReason),
    /// To the worker that owns the receive queue.
    Worker(WorkerReason),
}

/// Why a frame is the kernel's. The numbers are stable: they index the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PassReason {
    /// Neither IPv4 nor IPv6: ARP, LLDP, and what is shorter than its own Ethernet header.
    NotIp = 0,
    /// The device is not one of ours (any more).
    UnknownInterface = 1,
    /// A VLAN tag for which no interface is configured.
    UnknownVlan = 2,
    /// More than one tag, or a service tag (IEEE 802.1ad).
    StackedTags = 3,
    /// A unicast MAC, but not the interface's.
    NotOurMac = 4,
    /// A multicast or broadcast MAC.
    GroupMac = 5,
    /// 224.0.0.0/4, ff00::/8.
    Multicast = 6,
    /// 169.254.0.0/16 (RFC 3927), fe80::/10 (RFC 4291 §2.5.6): never forwarded.
    LinkLocal = 7,
    /// 127.0.0.0/8, ::1.
    Loopback = 8,
    /// 255.255.255.255.
    LimitedBroadcast = 9,
    /// The broadcast address of a connected subnet (RFC 1812 §4.2.3.1).
    SubnetBroadcast = 10,
    /// An answer to the host's DHCP client, which may have no address yet.
    Dhcp = 11,
    /// IKE for an address of ours: UDP 500, or 4500 with the non-ESP marker (RFC 3948 §2.2).
    Ike = 12,
    /// For an address of the host in the interface's VRF.
    OwnAddress = 13,
    /// The kernel's route for it leaves by a device that is not ours.
    KernelRoute = 14,
}

/// Why a frame is a worker's. The numbers are stable: they index the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WorkerReason {
    /// Unicast IP for somebody else.
    Forward = 16,
    /// Matches a tunnel's end points.
    Tunnel = 17,
    /// A fragment between the two ends of a tunnel.
    TunnelFragment = 18,
    /// An ICMP error that quotes what we sent into a tunnel.
    TunnelError = 19,
    /// No sound IP header: the worker drops it under the right name.
    Malformed = 20,
    /// For an address of ours, behind more IPv6 extension headers than are walked here.
    Extensions = 21,
}

impl Verdict {
    /// Every verdict, by code.
    pub const ALL: [Self; 21] = [
        Self::Pass(PassReason::NotIp),
        Self::Pass(PassReason::UnknownInterface),
        Self::Pass(PassReason::UnknownVlan),
        Self::Pass(PassReason::StackedTags),
        Self::Pass(PassReason::NotOurMac),
        Self::Pass(PassReason::GroupMac),
        Self::Pass(PassReason::Multicast),
        Self::Pass(PassReason::LinkLocal),
        Self::Pass(PassReason::Loopback),
        Self::Pass(PassReason::LimitedBroadcast),
        Self::Pass(PassReason::SubnetBroadcast),
        Self::Pass(PassReason::Dhcp),
        Self::Pass(PassReason::Ike),
        Self::Pass(PassReason::OwnAddress),
        Self::Pass(PassReason::KernelRoute),
        Self::Worker(WorkerReason::Forward),
        Self::Worker(WorkerReason::Tunnel),
        Self::Worker(WorkerReason::TunnelFragment),
        Self::Worker(WorkerReason::TunnelError),
        Self::Worker(WorkerReason::Malformed),
        Self::Worker(WorkerReason::Extensions),
    ];

    /// The number of its counter, below [`CODES`].
    #[inline(always)]
    pub const fn code(self) -> u8 {
        match self {
            Self::Pass(reason) => reason as u8,
            Self::Worker(reason) => reason as u8,
        }
    }

    /// The reason in `snake_case`, as counters and `explain` print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.name(),
            Self::Worker(reason) => reason.name(),
        }
    }
}

impl PassReason {
    /// The reason in `snake_case`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::UnknownInterface => "unknown_interface",
            Self::UnknownVlan => "unknown_vlan",
            Self::StackedTags => "stacked_tags",
            Self::NotOurMac => "not_our_mac",
            Self::GroupMac => "group_mac",
            Self::Multicast => "multicast",
            Self::LinkLocal => "link_local",
            Self::Loopback => "loopback",
            Self::LimitedBroadcast => "limited_broadcast",
            Self::SubnetBroadcast => "subnet_broadcast",
            Self::Dhcp => "dhcp",
            Self::Ike => "ike",
            Self::OwnAddress => "own_address",
            Self::KernelRoute => "kernel_route",
        }
    }
}

impl WorkerReason {
    /// The reason in `snake_case`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Tunnel => "tunnel",
            Self::TunnelFragment => "tunnel_fragment",
            Self::TunnelError => "tunnel_error",
            Self::Malformed => "malformed",
            Self::Extensions => "extensions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_counter_and_a_name_of_its_own() {
        for (i, a) in Verdict::ALL.iter().enumerate() {
            assert!(usize::from(a.code()) < CODES);
            assert!(a.code() < UNSERVED_TO_KERNEL);
            for b in &Verdict::ALL[i + 1..] {
                assert!(a.code() < b.code(), "{a:?} {b:?}");
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
