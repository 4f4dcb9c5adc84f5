//! Routes in the kernel's tables: read, and written by the thousand.
//!
//! Each order goes through the kernel on its own, but a thousand travel in one system call, and only what was refused
//! is answered, with the last of each batch.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Commander, Error, Order, message, name};
use crate::control::host::{IfIndex, MirroredRoute, RouteKey, RouteKind};
use crate::control::netlink::{RTM_NEWROUTE, route};

/// RTPROT_*, who installed a route: the number of what Penstock exports.
pub const PROTOCOL: u8 = 80;

/// Orders that are sent at once: some 100 KiB, half of what a socket may send, and a thousand refusals fit the receive
/// buffer of [`Commander::open`].
const BATCH_ORDERS: usize = 1024;

/// Where an exported route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Out of that device.
    Device(IfIndex),
    /// Out of that device to a router, of the prefix's family.
    Gateway(IfIndex, IpAddr),
    /// Nowhere, answered with ICMP unreachable.
    Unreachable,
    /// Nowhere, in silence.
    Blackhole,
}

impl Target {
    /// Whether the kernel's route leads there.
    pub(crate) fn is_of(&self, route: &MirroredRoute) -> bool {
        let leads = match *self {
            Self::Unreachable => return route.kind == RouteKind::Unreachable,
            Self::Blackhole => return route.kind == RouteKind::Blackhole,
            Self::Device(ifindex) => (Some(ifindex), None),
            Self::Gateway(ifindex, router) => (Some(ifindex), Some(router)),
        };
        route.kind == RouteKind::Unicast
            && matches!(route.next_hops.as_slice(), [hop] if (hop.ifindex, hop.gateway) == leads)
    }
}

/// A route that Penstock keeps in a kernel table. IPv6 has no metric 0: the kernel makes it 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExportedRoute {
    /// Which route.
    pub key: RouteKey,
    /// Where it leads.
    pub target: Target,
}

/// A change to the kernel's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOrder {
    /// Adds a route, of protocol [`PROTOCOL`]. EEXIST when there is one of that key already, whoever installed it.
    Add(ExportedRoute),
    /// Puts a route in the place of the one with that key, whoever installed that, or adds it.
    Replace(ExportedRoute),
    /// Deletes the route of that key and of protocol [`PROTOCOL`], wherever it leads; nothing if there is none.
    Delete(RouteKey),
}

impl RouteOrder {
    /// The route that it is about.
    pub fn key(&self) -> RouteKey {
        match self {
            Self::Add(route) | Self::Replace(route) => route.key,
            Self::Delete(key) => *key,
        }
    }

    fn request(&self) -> (RouteNetlinkMessage, u16) {
        match self {
            Self::Add(route) => (RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_EXCL),
            Self::Replace(route) => (RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE),
            Self::Delete(key) => {
                let mut request = bare_route(key);
                // "Any" of the kinds and scopes that there are.
                request.header.kind = RouteType::Unspec;
                request.header.scope = RouteScope::NoWhere;
                (RouteNetlinkMessage::DelRoute(request), 0)
            }
        }
    }

    /// Whether an answer says that all is as it should be already.
    fn is_fine(&self, errno: Option<i32>) -> bool {
        matches!(self, Self::Delete(_)) && matches!(errno, Some(libc::ESRCH | libc::ENOENT))
    }
}

impl std::fmt::Display for RouteOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add(route) => write!(f, "add the route {}", described(route)),
            Self::Replace(route) => write!(f, "set the route {}", described(route)),
            Self::Delete(key) => write!(f, "delete the route {} from table {}", key.prefix, key.table),
        }
    }
}

impl Commander {
    /// Carries out orders one after the other; those that the kernel refused, by their place in `orders`, and
    /// [`Error::Refused`]. All others were carried out.
    ///
    /// # Errors
    /// [`Error::Socket`] when the kernel does not answer: how many were carried out is not known.
    pub fn write_routes(&mut self, orders: &[RouteOrder]) -> Result<Vec<(usize, Error)>, Error> {
        let mut refused = Vec::new();
        let mut octets = Vec::new();
        for (batch, orders) in orders.chunks(BATCH_ORDERS).enumerate() {
            octets.clear();
            let mut last = 0;
            for (at, order) in orders.iter().enumerate() {
                let (request, flags) = order.request();
                let acknowledge = if at + 1 == orders.len() { NLM_F_ACK } else { 0 };
                last = self.0.append(request, flags | acknowledge, &mut octets);
            }
            let first = last.wrapping_sub(orders.len() as u32 - 1);
            self.0.send(&octets).map_err(Error::Socket)?;
            self.answers(|answer| {
                let at = answer.sequence.wrapping_sub(first) as usize;
                let (Some(order), Some(outcome)) = (orders.get(at), answer.outcome()) else { return None };
                if let Err(source) = outcome
                    && !order.is_fine(source.raw_os_error())
                {
                    let order = Order(order.to_string().into());
                    refused.push((batch * BATCH_ORDERS + at, Error::Refused { order, source }));
                }
                (answer.sequence == last).then_some(())
            })
            .map_err(Error::Socket)?;
        }
        Ok(refused)
    }

    /// Every route of protocol [`PROTOCOL`], of both families and all tables.
    ///
    /// # Errors
    /// [`Error::Dump`].
    pub fn exported_routes(&mut self) -> Result<Vec<(RouteKey, MirroredRoute)>, Error> {
        let mut routes = Vec::new();
        for (family, what) in [(AddressFamily::Inet, "IPv4 routes"), (AddressFamily::Inet6, "IPv6 routes")] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = PROTOCOL.into();
            self.dump(what, RouteNetlinkMessage::GetRoute(request), |answer| {
                if answer.kind == RTM_NEWROUTE
                    && let Ok(Some(found)) = route::route(answer.body())
                    && found.route.protocol == PROTOCOL
                {
                    routes.push((found.key, found.route));
                }
            })?;
        }
        Ok(routes)
    }
}

fn described(route: &ExportedRoute) -> String {
    let RouteKey { prefix, table, .. } = route.key;
    match route.target {
        Target::Device(ifindex) | Target::Gateway(ifindex, _) => {
            format!("{prefix} via {} in table {table}", name(ifindex))
        }
        Target::Unreachable => format!("unreachable {prefix} in table {table}"),
        Target::Blackhole => format!("blackhole {prefix} in table {table}"),
    }
}

fn bare_route(key: &RouteKey) -> RouteMessage {
    let mut request = RouteMessage::default();
    let header = &mut request.header;
    header.address_family = message::family(key.prefix.addr());
    header.destination_prefix_length = key.prefix.prefix_len();
    header.tos = key.tos;
    header.protocol = PROTOCOL.into();
    request.attributes.push(RouteAttribute::Destination(route_address(key.prefix.network())));
    // The header's table has eight bits, the attribute all 32.
    request.attributes.push(RouteAttribute::Table(key.table));
    request.attributes.push(RouteAttribute::Priority(key.metric));
    request
}

fn route_message(route: &ExportedRoute) -> RouteMessage {
    let mut request = bare_route(&route.key);
    // On-link where it has a device; IPv6 has no scopes and takes any.
    (request.header.kind, request.header.scope) = match route.target {
        Target::Device(_) => (RouteType::Unicast, RouteScope::Link),
        Target::Gateway(..) => (RouteType::Unicast, RouteScope::Universe),
        Target::Unreachable => (RouteType::Unreachable, RouteScope::Universe),
        Target::Blackhole => (RouteType::BlackHole, RouteScope::Universe),
    };
    if let Target::Device(ifindex) | Target::Gateway(ifindex, _) = route.target {
        request.attributes.push(RouteAttribute::Oif(ifindex));
    }
    if let Target::Gateway(_, router) = route.target {
        request.attributes.push(RouteAttribute::Gateway(route_address(router)));
    }
    request
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}
