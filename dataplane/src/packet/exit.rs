//! Every way off the page. Counters, ICMP errors owed, `show` and tests come from these lists.

use super::AdjacencyId;

/// Why a packet leaves the page before its queue. Stages only return it; `slow` settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ends here.
    Drop(DropReason),
    /// It is for the host: written to a device of the kernel.
    Punt(PuntReason),
    /// Too long for the adjacency, and may be cut.
    Fragment,
    /// An ICMP error about what we sent into a tunnel: heard, and passed on inward.
    TunnelError,
    /// A fragment between the two ends of a tunnel: it waits for the rest of its datagram.
    Reassemble,
    /// It waits for a neighbour of this adjacency.
    Hold(AdjacencyId),
    /// The tables moved on while it waited: routed again.
    Reroute,
}

/// What the sender of a dropped packet has a right to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Time exceeded in transit.
    TimeExceeded,
    /// Fragment reassembly time exceeded.
    ReassemblyTimeExceeded,
    /// Network unreachable, or no route.
    NetUnreachable,
    /// Host or address unreachable.
    HostUnreachable,
    /// Communication administratively prohibited.
    Prohibited,
    /// Fragmentation needed, or packet too big, with the MTU of the packet's adjacency.
    TooBig,
}

/// Declares a closed list with its names, from one place.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// As `show`, `replay` and metrics call it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        /// Shorter than its own headers say it is (RFC 1812 §5.2.2).
        Truncated = "truncated",
        /// Neither IPv4 nor IPv6, where no device takes it.
        NotIp = "not_ip",
        /// A VLAN tag that no interface has.
        UnknownVlan = "unknown_vlan",
        /// The IP version is not the one that the link layer announced (RFC 1812 §5.2.2 (3)).
        BadVersion = "bad_version",
        /// The IPv4 header length is below 20 octets or beyond the packet (RFC 1812 §5.2.2 (4)).
        BadHeaderLength = "bad_header_length",
        /// Total length is below the header length (RFC 1812 §5.2.2 (5)).
        BadLength = "bad_length",
        /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2 (2)).
        BadChecksum = "bad_checksum",
        /// A source that nobody may send from: 0/8, 127/8, 224/3, ::, ::1, ff00::/8 (RFC 1812 §5.3.7), a group
        /// MAC's, or one of our own addresses.
        MartianSource = "martian_source",
        /// No route leads back to the source, or none by the port that it came in by (RFC 3704): the port's `rpf`.
        ReversePath = "reverse_path",
        /// A destination that no router forwards to: 0/8, 127/8, group, limited broadcast, link-local.
        MartianDestination = "martian_destination",
        /// TTL or hop limit runs out here (RFC 1812 §5.3.1). Owes Time Exceeded (§5.2.7.3).
        TtlExpired = "ttl_expired",
        /// No route. Owes Destination Unreachable.
        NoRoute = "no_route",
        /// The route says `blackhole`: silence.
        Blackhole = "blackhole",
        /// The route says `unreachable`. Owes Destination Unreachable.
        Unreachable = "unreachable",
        /// The route says `prohibit`. Owes Communication Administratively Prohibited.
        Prohibited = "prohibited",
        /// IPv4 with DF, too long for the way out. Owes Fragmentation Needed (RFC 1191).
        FragmentationNeeded = "fragmentation_needed",
        /// IPv6, too long for the way out. Owes Packet Too Big (RFC 8201).
        PacketTooBig = "packet_too_big",
        /// The neighbour did not answer. Owes Host Unreachable.
        NeighbourUnresolved = "neighbour_unresolved",
        /// Too many packets wait for the neighbour.
        HoldFull = "hold_full",
        /// The adjacency was taken away while the packet waited.
        AdjacencyGone = "adjacency_gone",
        /// For the host, but no device leads there.
        NoLocalPath = "no_local_path",
        /// The device did not take it.
        DeviceFull = "device_full",
        /// The queue of the way out is full.
        QueueFull = "queue_full",
        /// Its tenant and tunnel have numbers that its queue does not know, of a file long before this one.
        UnknownNumbering = "unknown_numbering",
        /// Its queue was long for too long, and it could not carry a mark (RFC 7567).
        EarlyDrop = "early_drop",
        /// No frame was left.
        NoFrame = "no_frame",
        /// Longer than a driver can send, headers included.
        TooLong = "too_long",
        /// The port went away with packets waiting for it.
        PortDown = "port_down",
        /// Between a tunnel's ends, a fragment that no datagram has: empty, of a length that only the last may have, beyond 65,535
        /// octets, or IPv6 and without all headers at the start (RFC 8200 §4.5).
        FragmentMalformed = "fragment_malformed",
        /// Such a fragment has other octets where there are some: the whole datagram is dropped (RFC 5722 §4).
        FragmentOverlap = "fragment_overlap",
        /// Congestion was marked on one such fragment, and another could not have been marked (RFC 3168 §5.3).
        FragmentEcn = "fragment_ecn",
        /// The rest of its datagram did not come. The first fragment owes Time Exceeded (RFC 1122 §3.3.2, RFC 8200 §4.5).
        ReassemblyTimeout = "reassembly_timeout",
        /// Newer datagrams took its place, or its datagram is of too many fragments.
        ReassemblyFull = "reassembly_full",
        /// The outer UDP length is inconsistent, or the tunnel header is cut.
        TunnelTruncated = "tunnel_truncated",
        /// The outer UDP or the GRE checksum is wrong.
        TunnelChecksum = "tunnel_checksum",
        /// An ICMP error about what we sent into a tunnel, with a wrong checksum.
        IcmpChecksum = "icmp_checksum",
        /// The tunnel header is not as its RFC asks: no I flag (VXLAN, RFC 7348 §5); another version, a control message, options
        /// that end beyond their room (GENEVE, RFC 8926 §3); another version or RFC 1701's routing (GRE, RFC 2784 §2.3).
        TunnelHeader = "tunnel_header",
        /// A GENEVE option that whoever does not know it must not pass over (RFC 8926 §3.5).
        CriticalOption = "critical_option",
        /// From the tunnel's other end, but no such network identifier.
        UnknownVni = "unknown_vni",
        /// From the tunnel's other end, but no such GRE key.
        UnknownKey = "unknown_key",
        /// Not what the tunnel carries: Ethernet where IP should be or the other way round, IPv4 for IPv6, or neither.
        InnerType = "inner_type",
        /// Ethernet inside, addressed to somebody else.
        NotOurMac = "not_our_mac",
        /// The inner source is not among the tunnel's `allowed_sources`.
        SpoofedSource = "spoofed_source",
        /// Congestion was marked outside and the inner packet cannot carry the mark (RFC 6040 §4.2).
        EcnNotCapable = "ecn_not_capable",
        /// An access list says `deny`: silence.
        AclDeny = "acl_deny",
        /// An access list says `reject`. Owes Communication Administratively Prohibited.
        AclReject = "acl_reject",
        /// More came than a policer lets pass.
        Policed = "policed",
    }
}

reasons! {
    /// Why a packet was handed to the kernel.
    PuntReason {
        /// Its destination is an address of the host.
        Local = "local",
        /// Not IP, or addressed to a link-layer group, inside a tunnel with a device.
        Link = "link",
        /// Its route leaves by a device that is not ours.
        KernelRoute = "kernel_route",
        /// XDP passed it, so no worker saw it. Counted here only where there is no kernel: in `replay`.
        Steered = "steered",
    }
}

impl DropReason {
    /// What its sender is owed.
    pub const fn owes(self) -> Option<Owed> {
        match self {
            Self::TtlExpired => Some(Owed::TimeExceeded),
            Self::ReassemblyTimeout => Some(Owed::ReassemblyTimeExceeded),
            Self::NoRoute | Self::Unreachable => Some(Owed::NetUnreachable),
            Self::Prohibited | Self::AclReject => Some(Owed::Prohibited),
            Self::NeighbourUnresolved => Some(Owed::HostUnreachable),
            Self::FragmentationNeeded | Self::PacketTooBig => Some(Owed::TooBig),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_variants_in_snake_case_and_none_is_used_twice() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        for (reason, name) in DropReason::ALL.iter().zip(&names) {
            assert_eq!(format!("{reason:?}").to_lowercase(), name.replace('_', ""));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }
}
