//! Routes and next-hop objects as the kernel tells of them, straight from the octets: of these there may be a million,
//! and `netlink-packet-route`, which knows no next-hop objects, needs an allocation for every attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::control::host::{IfIndex, KernelHop, MirroredRoute, RouteKey, RouteKind};

/// A message is not laid out as the kernel's headers say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A next-hop object (`ip nexthop`), but for what it makes of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    /// One way.
    Single(KernelHop),
    /// Its link is down.
    Dead,
    /// Packets are dropped.
    Blackhole,
    /// Others by their number, with their weights; resilient or not.
    Group(Vec<(u32, u16)>),
}

/// A route of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: RouteKey,
    /// By next hops of its own; with `net.ipv4.nexthop_compat_mode` = 0 one by an object has none.
    pub(super) route: MirroredRoute,
    /// Links of hops that it lacks because they are down.
    pub(super) dead: Vec<IfIndex>,
}

/// The route of a message; `None` for what is not mirrored: other families, cached results of lookups, and IPv6 routes
/// for some sources only.
pub(super) fn route(body: &[u8]) -> Result<Option<Found>, Malformed> {
    // struct rtmsg
    let (&[family, length, source_length, tos, table, protocol, _scope, kind, f0, f1, f2, f3], rest) =
        body.split_first_chunk::<12>().ok_or(Malformed)?;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let family = match i32::from(family) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(None),
    };
    if flags & RTM_F_CLONED != 0 || source_length != 0 {
        return Ok(None);
    }
    let mut hop = Hop::default();
    let mut dead = Vec::new();
    // RTA_DST is absent from the default route, RTA_PRIORITY from metric 0, and the header's table has only eight bits.
    let mut key = RouteKey { table: table.into(), prefix: family.prefix(&[], 0)?, tos, metric: 0 };
    let mut route =
        MirroredRoute { protocol, kind: route_kind(kind), next_hops: Vec::new(), next_hop_id: None, prefsrc: None };
    attributes(rest, |attribute, value| {
        match attribute {
            RTA_DST => key.prefix = family.prefix(value, length)?,
            RTA_TABLE => key.table = number(value)?,
            RTA_PRIORITY => key.metric = number(value)?,
            RTA_PREFSRC => route.prefsrc = Some(address(value)?),
            RTA_NH_ID => route.next_hop_id = Some(number(value)?),
            RTA_MULTIPATH => multipath(value, &mut route.next_hops, &mut dead)?,
            _ => hop.attribute(attribute, value)?,
        }
        Ok(())
    })?;
    if leads_nowhere(route.kind) {
        // IPv6 says `dev lo` of those.
        route.next_hops.clear();
    } else if flags & RTNH_F_DEAD != 0 {
        dead.extend(hop.ifindex);
    } else if route.next_hops.is_empty() {
        route.next_hops.extend(hop.finish(0));
    }
    Ok(Some(Found { key, route, dead }))
}

/// A next-hop object with its number; for a deletion, whatever it was.
pub(super) fn next_hop(body: &[u8]) -> Result<(u32, NextHop), Malformed> {
    // struct nhmsg: family, scope, protocol, reserved, flags
    let (&[_, _, _, _, f0, f1, f2, f3], rest) = body.split_first_chunk::<8>().ok_or(Malformed)?;
    let dead = u32::from_ne_bytes([f0, f1, f2, f3]) & RTNH_F_DEAD != 0;
    let mut id = None;
    let mut hop = Hop::default();
    let mut blackhole = false;
    let mut group = None;
    attributes(rest, |attribute, value| {
        match attribute {
            NHA_ID => id = Some(number(value)?),
            NHA_GROUP => group = Some(members(value)?),
            NHA_BLACKHOLE => blackhole = true,
            NHA_OIF => hop.ifindex = Some(number(value)?),
            NHA_GATEWAY => hop.gateway = Some(address(value)?),
            NHA_ENCAP => hop.encapsulates = true,
            _ => {}
        }
        Ok(())
    })?;
    let next_hop = match (group, blackhole, hop.finish(0)) {
        (Some(members), ..) => NextHop::Group(members),
        (None, true, _) => NextHop::Blackhole,
        (None, false, Some(hop)) if !dead => NextHop::Single(hop),
        (None, false, _) => NextHop::Dead,
    };
    Ok((id.ok_or(Malformed)?, next_hop))
}

/// struct nexthop_grp: number, weight less one, and since Linux 6.12 the weight's upper octet, which was zero.
fn members(value: &[u8]) -> Result<Vec<(u32, u16)>, Malformed> {
    let (members, rest) = value.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    let member = |&[a, b, c, d, low, high, _, _]: &[u8; 8]| {
        (u32::from_ne_bytes([a, b, c, d]), u16::from_le_bytes([low, high]).saturating_add(1))
    };
    Ok(members.iter().map(member).collect())
}

/// A list of struct rtnexthop, each with attributes of its own.
fn multipath(mut list: &[u8], next_hops: &mut Vec<KernelHop>, dead: &mut Vec<IfIndex>) -> Result<(), Malformed> {
    while let Some((&[l0, l1, flags, weight, i0, i1, i2, i3], _)) = list.split_first_chunk::<8>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let own = list.get(8..length).ok_or(Malformed)?;
        let mut hop = Hop { ifindex: Some(u32::from_ne_bytes([i0, i1, i2, i3])), ..Hop::default() };
        attributes(own, |attribute, value| hop.attribute(attribute, value))?;
        if u32::from(flags) & RTNH_F_DEAD == 0 {
            next_hops.extend(hop.finish(weight));
        } else {
            dead.extend(hop.ifindex);
        }
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// What attributes have told of a hop.
#[derive(Default)]
struct Hop {
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    encapsulates: bool,
}

impl Hop {
    fn attribute(&mut self, attribute: u16, value: &[u8]) -> Result<(), Malformed> {
        match attribute {
            RTA_OIF => self.ifindex = Some(number(value)?),
            RTA_GATEWAY => self.gateway = Some(address(value)?),
            // struct rtvia: a family before the address.
            RTA_VIA => self.gateway = value.get(2..).and_then(|value| address(value).ok()),
            RTA_ENCAP => self.encapsulates = true,
            _ => {}
        }
        Ok(())
    }

    /// `weight` is less one, as the kernel has it. `None` if it was told nothing of.
    fn finish(self, weight: u8) -> Option<KernelHop> {
        let ifindex = self.ifindex.filter(|&index| index != 0);
        (ifindex.is_some() || self.gateway.is_some()).then_some(KernelHop {
            ifindex: ifindex.filter(|_| !self.encapsulates),
            gateway: self.gateway,
            weight: u16::from(weight) + 1,
        })
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// Host bits that the kernel would not have taken are cleared.
    fn prefix(self, octets: &[u8], length: u8) -> Result<IpNet, Malformed> {
        let address = match (self, octets) {
            (Self::V4, []) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (Self::V6, []) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            (_, octets) => address(octets)?,
        };
        match (self, address) {
            (Self::V4, IpAddr::V4(address)) => Ipv4Net::new(address, length).map(|net| net.trunc().into()),
            (Self::V6, IpAddr::V6(address)) => Ipv6Net::new(address, length).map(|net| net.trunc().into()),
            _ => return Err(Malformed),
        }
        .map_err(|_| Malformed)
    }
}

/// Hands each attribute's type, without its flags, and value to `each`.
fn attributes(mut list: &[u8], mut each: impl FnMut(u16, &[u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    while let Some((&[l0, l1, k0, k1], _)) = list.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = list.get(4..length).ok_or(Malformed)?;
        each(u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

fn number(value: &[u8]) -> Result<u32, Malformed> {
    value.try_into().map(u32::from_ne_bytes).map_err(|_| Malformed)
}

fn address(value: &[u8]) -> Result<IpAddr, Malformed> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).map(IpAddr::from),
        _ => <[u8; 16]>::try_from(value).map(IpAddr::from),
    }
    .map_err(|_| Malformed)
}

/// Whether packets that take such a route have no next hop.
pub(super) fn leads_nowhere(kind: RouteKind) -> bool {
    matches!(kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
}

fn route_kind(kind: u8) -> RouteKind {
    match kind {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_BROADCAST => RouteKind::Broadcast,
        libc::RTN_ANYCAST => RouteKind::Anycast,
        libc::RTN_MULTICAST => RouteKind::Multicast,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

// linux/netlink.h: the two upper bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
// linux/rtnetlink.h
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;
// linux/nexthop.h
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP: u16 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut octets = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    fn message(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    /// `198.51.100.0/24` in table 1001 by protocol 186, metric 20, over two hops, one of them dead.
    fn two_hops() -> Vec<u8> {
        let hop = |flags: u8, weight: u8, index: u32, gateway: &[u8]| {
            let gateway = attribute(RTA_GATEWAY, gateway);
            let mut hop = (8 + gateway.len() as u16).to_ne_bytes().to_vec();
            hop.extend([flags, weight]);
            hop.extend(index.to_ne_bytes());
            hop.extend(gateway);
            hop
        };
        let hops = [hop(0, 2, 3, &[192, 0, 2, 1]), hop(1, 0, 4, &[192, 0, 2, 2])].concat();
        message(&[
            &[2, 24, 0, 0, 252, 186, 0, 1, 0, 0, 0, 0],
            &attribute(RTA_TABLE, &1001_u32.to_ne_bytes()),
            &attribute(RTA_DST, &[198, 51, 100, 0]),
            &attribute(RTA_PRIORITY, &20_u32.to_ne_bytes()),
            &attribute(RTA_MULTIPATH | 0x8000, &hops),
        ])
    }

    #[test]
    fn a_route_is_read_whole_and_a_hop_whose_link_is_down_is_none() {
        let Found { key, route, dead } = route(&two_hops()).expect("laid out well").expect("a route of ours");
        let prefix = "198.51.100.0/24".parse().expect("a prefix");
        assert_eq!(key, RouteKey { table: 1001, prefix, tos: 0, metric: 20 });
        let gateway = Some(IpAddr::from([192, 0, 2, 1]));
        assert_eq!(route.next_hops, [KernelHop { ifindex: Some(3), gateway, weight: 3 }]);
        assert_eq!((route.protocol, route.kind, dead), (186, RouteKind::Unicast, vec![4]));
    }

    #[test]
    fn what_is_not_mirrored_is_no_error() {
        // A cached lookup, an IPv6 route for some sources, and MPLS.
        for header in [[2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0], [10, 0, 64, 0, 254, 3, 0, 1, 0, 0, 0, 0], [28; 12]] {
            assert_eq!(route(&header), Ok(None), "{header:?}");
        }
    }

    #[test]
    fn a_hop_by_which_the_kernel_adds_a_header_has_no_link() {
        let octets = message(&[
            &[2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0],
            &attribute(RTA_OIF, &3_u32.to_ne_bytes()),
            &attribute(RTA_ENCAP | 0x8000, &attribute(1, &[0, 0, 0x11, 0])),
        ]);
        let Found { route, .. } = route(&octets).expect("laid out well").expect("a route of ours");
        assert_eq!(route.next_hops, [KernelHop { ifindex: None, gateway: None, weight: 1 }]);
    }

    #[test]
    fn a_group_has_its_members_with_weights_of_sixteen_bits() {
        let group = [[7, 0, 0, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0xff, 0, 0, 0], [9, 0, 0, 0, 0, 1, 0, 0]].concat();
        let octets = message(&[&[0; 8], &attribute(NHA_ID, &[5, 0, 0, 0]), &attribute(NHA_GROUP, &group)]);
        assert_eq!(next_hop(&octets), Ok((5, NextHop::Group(vec![(7, 1), (8, 256), (9, 257)]))));
    }

    proptest! {
        /// Whatever the octets, there is an answer; and a message that is cut does not become another route.
        #[test]
        fn rubbish_is_refused_without_a_panic(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            spoilt in prop::collection::vec((0..100_usize, any::<u8>()), 1..4),
            cut in 0..100_usize,
        ) {
            let _answer = (route(&octets), next_hop(&octets));
            let mut whole = two_hops();
            if let Ok(Some(Found { key, route, .. })) = route(&whole[..cut.min(whole.len())]) {
                prop_assert!(route.next_hops.len() <= 1);
                prop_assert!(key.prefix.prefix_len() <= 24);
            }
            for (at, octet) in spoilt {
                let at = at % whole.len();
                whole[at] = octet;
            }
            let _answer = (route(&whole), next_hop(&whole));
        }
    }
}
