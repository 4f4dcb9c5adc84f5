//! What the kernel knows and control needs: links, addresses, neighbours, routes.
//!
//! Plain data without I/O, so that the same code reads a live mirror (`netlink`) and a
//! host that was made up from the file (`replay`, `check`, `explain`).
//! It holds no rule of its own: which of this matters is for the RIB to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The kernel's interface index: positive, unique within a network namespace, never
/// used again for another link while the first exists.
pub type IfIndex = u32;

/// One network namespace, as of the last event read.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Every link, by index.
    pub links: BTreeMap<IfIndex, Link>,
    /// Every address with the link that it is on and the prefix length given with it,
    /// so host bits are set: `192.0.2.1/24`. Scope link (`fe80::/10`) is included.
    pub addresses: BTreeSet<(IfIndex, IpNet)>,
    /// Neighbour entries (ARP and ND) by link and protocol address.
    pub neighbours: BTreeMap<(IfIndex, IpAddr), Neigh>,
    /// Routes of every table, the kernel's `local` (255) included. What routes have in common is there once, however
    /// many share it: a full Internet table costs its keys and a pointer each.
    pub routes: BTreeMap<RouteKey, Arc<MirroredRoute>>,
}

impl Host {
    /// The route of that key.
    pub fn route(&self, key: &RouteKey) -> Option<&MirroredRoute> {
        self.routes.get(key).map(Arc::as_ref)
    }

    /// The routes of one prefix in one table, but for those of one type of service alone; first the one that the kernel uses.
    pub fn routes_to(&self, table: u32, prefix: IpNet) -> impl Iterator<Item = (&RouteKey, &MirroredRoute)> {
        let key = |metric| RouteKey { table, prefix, tos: 0, metric };
        self.routes.range(key(0)..=key(u32::MAX)).map(|(key, route)| (key, route.as_ref()))
    }

    /// Index and link of that name. Linear in the number of links, of which there are few.
    pub fn link_by_name(&self, name: &str) -> Option<(IfIndex, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(&index, link)| (index, link))
    }

    /// The addresses of one link, in order.
    pub fn addresses_of(&self, ifindex: IfIndex) -> impl Iterator<Item = IpNet> + '_ {
        // Every IPv4 prefix sorts before every IPv6 one, so this is the least there is.
        let least = IpNet::V4(ipnet::Ipv4Net::default());
        self.addresses
            .range((ifindex, least)..)
            .take_while(move |(index, _)| *index == ifindex)
            .map(|(_, address)| *address)
    }
}

/// One network interface.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name, 1 to 15 octets.
    pub name: String,
    /// Hardware address; zero where the link has none (TUN).
    pub mac: [u8; 6],
    /// Largest layer-3 packet in octets.
    pub mtu: u32,
    /// Switched on by the administrator (IFF_UP).
    pub up: bool,
    /// Has carrier and can pass packets (IFF_RUNNING).
    pub running: bool,
    /// What the driver calls itself (IFLA_INFO_KIND): `veth`, `vxlan`, `vlan`, `tun` (TUN and
    /// TAP alike), `bond`, `bridge`…; `None` for a physical NIC and for `lo`.
    pub kind: Option<String>,
    /// What sort of `tun` this is (IFLA_TUN_TYPE); `None` on all else.
    pub tun: Option<TunKind>,
    /// Bond, bridge or VRF device that this link is a port of.
    pub master: Option<IfIndex>,
    /// Link below this one (of a VLAN) or the peer (of a veth), when in this namespace.
    pub parent: Option<IfIndex>,
    /// VLAN identifier of a link of kind `vlan`, 1..=4094.
    pub vlan: Option<u16>,
    /// Receive queues that the device was made with.
    pub rx_queues: u32,
    /// Transmit queues that the device was made with.
    pub tx_queues: u32,
}

/// Whether a link of kind `tun` carries IP packets or Ethernet frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunKind {
    /// IP packets (IFF_TUN).
    Tun,
    /// Ethernet frames (IFF_TAP).
    Tap,
}

/// One neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neigh {
    /// Hardware address, where the kernel has learned one of six octets.
    pub mac: Option<[u8; 6]>,
    /// Reachability (RFC 4861 §7.3.2, and the kernel's three beside it).
    pub state: NeighState,
}

/// Reachability of a neighbour, the kernel's NUD_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NeighState {
    /// Being resolved; no address yet.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately; used until it proves wrong.
    Stale,
    /// Stale and used: probes start unless a hint comes first.
    Delay,
    /// Stale and being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution (point-to-point links).
    Noarp,
    /// Set by hand.
    Permanent,
}

impl NeighState {
    /// All, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Incomplete,
        Self::Reachable,
        Self::Stale,
        Self::Delay,
        Self::Probe,
        Self::Failed,
        Self::Noarp,
        Self::Permanent,
    ];

    /// As `ip neighbour` and operators call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::Noarp => "noarp",
            Self::Permanent => "permanent",
        }
    }
}

/// What makes a route another one rather than a new version of the same.
///
/// An IPv4 route is unique in these four fields. The kernel keeps several IPv6 routes of one
/// prefix and metric as one multipath route (and reports it so), which this matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Kernel table: 254 is `main`, 255 `local`.
    pub table: u32,
    /// Destination, host bits clear.
    pub prefix: IpNet,
    /// Type of service that the route is for; 0 is all, the only value IPv6 has.
    pub tos: u8,
    /// Priority among routes of the prefix: the least wins.
    pub metric: u32,
}

/// A route of the kernel without its key. Many routes have one of these, so it may be compared by its address first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MirroredRoute {
    /// Who installed it (RTPROT_*): 2 kernel, 3 boot, 4 static, 16 DHCP, 80 Penstock, 186 BGP…
    pub protocol: u8,
    /// What becomes of a packet that takes it.
    pub kind: RouteKind,
    /// Where it goes, in the kernel's order, without hops whose link is down; empty for kinds that go nowhere.
    pub next_hops: Vec<KernelHop>,
    /// The next-hop object (`ip nexthop`) that `kind` and `next_hops` come from, if it is by one.
    pub next_hop_id: Option<u32>,
    /// Source address that the host prefers for its own packets.
    pub prefsrc: Option<IpAddr>,
}

/// What becomes of a packet that takes a route, the kernel's RTN_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forwarded to a next hop.
    Unicast,
    /// Delivered to the host.
    Local,
    /// Delivered to the host as broadcast.
    Broadcast,
    /// An anycast address of the host.
    Anycast,
    /// A multicast route.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Dropped, answered with host (IPv4) or no route (IPv6) unreachable.
    Unreachable,
    /// Dropped, answered with administratively prohibited.
    Prohibit,
    /// The lookup goes on in the next rule's table.
    Throw,
    /// Any other RTN_* value.
    Other(u8),
}

/// One next hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelHop {
    /// Link that it leaves by; `None` where that is not all that the kernel does, as it adds a header on the way
    /// (RTA_ENCAP: MPLS, SRv6…).
    pub ifindex: Option<IfIndex>,
    /// Router that it goes to (of either family, RFC 5549); `None` when on-link.
    pub gateway: Option<IpAddr>,
    /// Share of the flows, positive: up to 256 in a route of its own, any in a group of next-hop objects.
    pub weight: u16,
}
