//! Between rtnetlink's messages of links, addresses and neighbours and the words of `host`.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoTun, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::control::host::{IfIndex, Link, Neigh, NeighState, TunKind};

/// A link with its index. `None` for what tells of something else: a bridge port (family
/// bridge) and events without a name.
pub(super) fn link(message: &LinkMessage) -> Option<(IfIndex, Link)> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        ..Link::default()
    };
    let mut parent_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => {
                // Infiniband has twenty octets, IP tunnels four or sixteen: no MAC.
                link.mac = address.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            // 0 is how the kernel says that there is none any more.
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|&i| i != 0),
            LinkAttribute::Link(index) => link.parent = Some(*index).filter(|&i| i != 0),
            LinkAttribute::LinkNetNsId(_) => parent_elsewhere = true,
            LinkAttribute::NumRxQueues(count) => link.rx_queues = *count,
            LinkAttribute::NumTxQueues(count) => link.tx_queues = *count,
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| kind(info, &mut link)),
            _ => {}
        }
    }
    if parent_elsewhere {
        link.parent = None;
    }
    (!link.name.is_empty()).then_some((message.header.index, link))
}

fn kind(info: &LinkInfo, link: &mut Link) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Vlan(attributes)) => {
            link.vlan = attributes.iter().find_map(|attribute| match attribute {
                InfoVlan::Id(id) => Some(*id),
                _ => None,
            });
        }
        LinkInfo::Data(InfoData::Tun(attributes)) => {
            link.tun = attributes.iter().find_map(|attribute| {
                let InfoTun::Other(attribute) = attribute else {
                    return None;
                };
                if attribute.kind() != IFLA_TUN_TYPE || attribute.value_len() != 1 {
                    return None;
                }
                let mut value = [0];
                attribute.emit_value(&mut value);
                match value[0] {
                    IFF_TUN => Some(TunKind::Tun),
                    IFF_TAP => Some(TunKind::Tap),
                    _ => None,
                }
            });
        }
        _ => {}
    }
}

/// An address with the link that it is on, and whether it is in use: not while duplicate
/// address detection runs or after it has failed (RFC 4862 §5.4). The kernel lists such an address in dumps,
/// and has an event for it only once it is in use.
pub(super) fn address(message: &AddressMessage) -> Option<((IfIndex, IpNet), bool)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // IFA_LOCAL is ours; IFA_ADDRESS is the peer's on a point-to-point link, else ours too.
    let peer = find(false);
    let own = find(true).or(peer)?;
    let prefix_len = message.header.prefix_len;
    let net = IpNet::new(own, prefix_len).ok()?;
    // The prefix length belongs to the peer's address: `192.0.2.1 peer 198.51.100.0/24`
    // says nothing of the neighbourhood of 192.0.2.1.
    let net = match peer {
        Some(peer) if !net.contains(&peer) => IpNet::from(own),
        _ => net,
    };
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
        .unwrap_or(AddressFlags::empty());
    let in_use = !flags.contains(AddressFlags::Tentative) || flags.contains(AddressFlags::Optimistic);
    Some(((message.header.index, net), in_use))
}

/// A neighbour with its key, and what it is unless nobody has asked for it yet. `None` for
/// bridge entries, proxies, and groups, whose entries the kernel makes up without an event.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((IfIndex, IpAddr), Option<Neigh>)> {
    use netlink_packet_route::neighbour::NeighbourFlags;

    let header = &message.header;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    let mut destination = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            NeighbourAttribute::LinkLayerAddress(address) => {
                mac = address.as_slice().try_into().ok();
            }
            _ => {}
        }
    }
    let state = match header.state {
        NeighbourState::Incomplete => Some(NeighState::Incomplete),
        NeighbourState::Reachable => Some(NeighState::Reachable),
        NeighbourState::Stale => Some(NeighState::Stale),
        NeighbourState::Delay => Some(NeighState::Delay),
        NeighbourState::Probe => Some(NeighState::Probe),
        NeighbourState::Failed => Some(NeighState::Failed),
        NeighbourState::Noarp => Some(NeighState::Noarp),
        NeighbourState::Permanent => Some(NeighState::Permanent),
        // NUD_NONE: an entry that nobody has asked for yet.
        _ => None,
    };
    let destination = destination.filter(|destination| !destination.is_multicast())?;
    Some(((header.ifindex, destination), state.map(|state| Neigh { mac, state })))
}

/// The family that an address's tables belong to.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

// linux/if_link.h and linux/if_tun.h
const IFLA_TUN_TYPE: u16 = 3;
const IFF_TUN: u8 = 1;
const IFF_TAP: u8 = 2;
