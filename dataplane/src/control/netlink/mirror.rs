//! The kernel's tables, kept up to date.
//!
//! Subscribed first and dumped second, on one socket: the kernel puts dumps and events into
//! one queue, so what an event said since a dump began stands over what the dump says.
//! Three things make a table doubtful, and each is answered by dumping it again while the
//! mirror goes on: events that were lost (ENOBUFS), changes that the kernel does not announce
//! (IPv4 routes that go with their link or address), and events that do not say which of several
//! routes with one key they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sys::poll::{PollFd, PollFlags};

use super::{Channel, Error, Message, failure, message};
use crate::control::host::{Host, IfIndex, KernelHop, MirroredRoute, Neigh, RouteKey, RouteKind};

/// What is not as it was before: keys that were added, removed, or have another value.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Of [`Host::links`].
    pub links: BTreeSet<IfIndex>,
    /// Of [`Host::addresses`].
    pub addresses: BTreeSet<(IfIndex, IpNet)>,
    /// Of [`Host::neighbours`].
    pub neighbours: BTreeSet<(IfIndex, IpAddr)>,
    /// Of [`Host::routes`].
    pub routes: BTreeSet<RouteKey>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.addresses.is_empty() && self.neighbours.is_empty() && self.routes.is_empty()
    }

    /// Adds what changed since.
    pub fn extend(&mut self, more: Self) {
        self.links.extend(more.links);
        self.addresses.extend(more.addresses);
        self.neighbours.extend(more.neighbours);
        self.routes.extend(more.routes);
    }
}

/// A live copy of the links, addresses, neighbours and routes of one network namespace: the
/// one in which it was opened.
pub struct Mirror {
    channel: Channel,
    host: Host,
    /// IPv4 keys that the kernel has more than one route for; `host` holds the one it uses.
    shadowed: BTreeSet<RouteKey>,
    /// The dump that is being read. The kernel allows one per socket.
    dump: Option<Dump>,
    /// What is to be dumped after it.
    due: BTreeSet<Part>,
    doubts: Doubts,
    /// What was not told of yet.
    changes: Changes,
    overruns: u64,
    undecoded: u64,
}

/// What has happened that takes routes away without an event. Looked into once per poll, since
/// that means to look at every route.
#[derive(Default)]
struct Doubts {
    down: BTreeSet<IfIndex>,
    gone: BTreeSet<IfIndex>,
    sources: BTreeSet<IpAddr>,
}

/// What one dump request lists. In this order, so that links come before what refers to
/// them, and before routes for the reason in [`Mirror::resolve_doubts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Links,
    Addresses,
    Neighbours,
    Ipv4Routes,
    Ipv6Routes,
}

impl Part {
    const ALL: [Self; 5] = [Self::Links, Self::Addresses, Self::Neighbours, Self::Ipv4Routes, Self::Ipv6Routes];

    fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Neighbours => "neighbours",
            Self::Ipv4Routes => "IPv4 routes",
            Self::Ipv6Routes => "IPv6 routes",
        }
    }

    fn request(self) -> RouteNetlinkMessage {
        let routes = |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            RouteNetlinkMessage::GetRoute(message)
        };
        match self {
            Self::Links => {
                let mut message = LinkMessage::default();
                message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                RouteNetlinkMessage::GetLink(message)
            }
            Self::Addresses => RouteNetlinkMessage::GetAddress(Default::default()),
            Self::Neighbours => RouteNetlinkMessage::GetNeighbour(Default::default()),
            Self::Ipv4Routes => routes(AddressFamily::Inet),
            Self::Ipv6Routes => routes(AddressFamily::Inet6),
        }
    }

    fn of_route(key: &RouteKey) -> Self {
        match key.prefix {
            IpNet::V4(_) => Self::Ipv4Routes,
            IpNet::V6(_) => Self::Ipv6Routes,
        }
    }
}

/// A dump that is under way.
struct Dump {
    part: Part,
    sequence: u32,
    /// What it has listed.
    listed: Host,
    shadowed: BTreeSet<RouteKey>,
    /// What events have told of since it began: they stand.
    told: Changes,
    /// The table changed under the kernel's cursor (NLM_F_DUMP_INTR), so something may be
    /// missing from the list.
    interrupted: bool,
}

/// Datagrams read by one `poll` at most, so that a storm cannot hold up the control loop. A
/// datagram is one event or up to 32 KiB of a dump.
const POLL_DATAGRAMS: usize = 64;

/// Receive buffer in octets: some ten thousand events, which come while a large dump is read.
const RECEIVE_BUFFER_OCTETS: usize = 16 << 20;

/// How long the first dumps may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

// RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];

impl Mirror {
    /// Subscribes, then reads everything once. In the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Open`] without a socket, [`Error::Dump`] when the kernel will not list a
    /// table, [`Error::Silent`] when that takes longer than half a minute.
    pub fn open() -> Result<Self, Error> {
        Self::open_with_buffer(RECEIVE_BUFFER_OCTETS)
    }

    pub(super) fn open_with_buffer(receive_buffer_octets: usize) -> Result<Self, Error> {
        let channel = Channel::open().map_err(Error::Open)?;
        sys::netdev::set_receive_buffer(&channel, receive_buffer_octets).map_err(Error::Open)?;
        for group in GROUPS {
            channel.socket.add_membership(group).map_err(Error::Open)?;
        }
        let mut mirror = Self {
            channel,
            host: Host::default(),
            shadowed: BTreeSet::new(),
            dump: None,
            due: Part::ALL.into(),
            doubts: Doubts::default(),
            changes: Changes::default(),
            overruns: 0,
            undecoded: 0,
        };
        mirror.settle(OPEN_TIMEOUT)?;
        Ok(mirror)
    }

    /// The host as of the last [`poll`](Self::poll).
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Reads what the kernel has sent, without waiting, and says what changed by it. A bounded
    /// amount: while more waits, the descriptor stays readable.
    ///
    /// # Errors
    /// [`Error::Socket`] or [`Error::Dump`]. Nothing is lost: another poll goes on from there.
    pub fn poll(&mut self) -> Result<Changes, Error> {
        let result = self.read();
        let changes = std::mem::take(&mut self.changes);
        match result {
            Ok(()) => Ok(changes),
            Err(error) => {
                // To be told of by the poll that succeeds.
                self.changes = changes;
                Err(error)
            }
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        for _ in 0..POLL_DATAGRAMS {
            self.start_due()?;
            if !self.receive()? {
                break;
            }
        }
        self.resolve_doubts();
        // So that the descriptor is readable if anything is left to do.
        self.start_due()
    }

    /// Whether a dump is under way or due, so that something may be missing or out of date.
    pub fn is_resynchronising(&self) -> bool {
        self.dump.is_some() || !self.due.is_empty()
    }

    /// How often events were lost since it was opened; each time all tables were read again.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// How many messages could not be understood, and were passed over, since it was opened.
    pub fn undecoded(&self) -> u64 {
        self.undecoded
    }

    /// Polls until no dump is under way or due.
    fn settle(&mut self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            self.poll()?;
            let Some(part) = self.dump.as_ref().map(|dump| dump.part) else {
                if self.due.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let left = deadline
                .checked_duration_since(Instant::now())
                .ok_or(Error::Silent { what: part.name(), seconds: timeout.as_secs() })?;
            let mut fds = [PollFd::new(&self.channel, PollFlags::IN)];
            sys::poll::poll(&mut fds, Some(left)).map_err(Error::Socket)?;
        }
    }

    fn start_due(&mut self) -> Result<(), Error> {
        if self.dump.is_some() {
            return Ok(());
        }
        let Some(part) = self.due.pop_first() else {
            return Ok(());
        };
        let sequence = self
            .channel
            .send(part.request(), NLM_F_DUMP)
            .inspect_err(|_| {
                self.due.insert(part);
            })
            .map_err(|source| Error::Dump { what: part.name(), source })?;
        self.dump = Some(Dump {
            part,
            sequence,
            listed: Host::default(),
            shadowed: BTreeSet::new(),
            told: Changes::default(),
            interrupted: false,
        });
        Ok(())
    }

    /// Reads one datagram; whether there was one.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut messages = Vec::new();
        match self.channel.receive(|message| messages.push(message)) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                // A dump under way goes on, but what it listed before may have changed since
                // without our hearing of it.
                self.overruns += 1;
                self.due = Part::ALL.into();
                return Ok(true);
            }
            Err(error) => return Err(Error::Socket(error)),
        }
        for message in messages {
            let Some(message) = message else {
                self.undecoded += 1;
                continue;
            };
            match &self.dump {
                Some(dump) if self.channel.answers(&message, dump.sequence) => {
                    self.list(message)?;
                }
                _ => self.event(&message),
            }
        }
        Ok(true)
    }

    /// One message of the dump under way.
    fn list(&mut self, message: Message) -> Result<(), Error> {
        let Some(dump) = &mut self.dump else {
            return Ok(());
        };
        dump.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match &message.payload {
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => {
                let part = dump.part;
                let Some(source) = failure(&message.payload) else {
                    self.finish();
                    return Ok(());
                };
                match source.raw_os_error() {
                    // A kernel without IPv6 has none of its tables.
                    Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => self.finish(),
                    // There was no room to begin in, but begun it is, and it goes on as
                    // we make room.
                    Some(libc::ENOBUFS) => {}
                    // Another one is under way, whose end got lost.
                    Some(libc::EBUSY) => {
                        self.dump = None;
                        self.due.insert(part);
                    }
                    _ => {
                        self.dump = None;
                        self.due.insert(part);
                        return Err(Error::Dump { what: part.name(), source });
                    }
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                dump.listed.links.extend(message::link(message));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                if let Some((address, true)) = message::address(message) {
                    dump.listed.addresses.insert(address);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                if let Some((key, Some(neighbour))) = message::neighbour(message) {
                    dump.listed.neighbours.insert(key, neighbour);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => {
                if let Some((key, route)) = message::route(message) {
                    let routes = &mut dump.listed.routes;
                    match routes.get_mut(&key) {
                        None => {
                            routes.insert(key, route);
                        }
                        // The kernel lists them in the order in which it looks at them.
                        Some(_) if key.prefix.addr().is_ipv4() => {
                            dump.shadowed.insert(key);
                        }
                        Some(first) => join(first, route),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The dump is complete: what it lists is so, and what it does not list is gone.
    fn finish(&mut self) {
        let Some(dump) = self.dump.take() else { return };
        let Dump { part, listed, told, .. } = dump;
        // Nothing is taken for gone because an interrupted list lacks it.
        let sweep = !dump.interrupted;
        if dump.interrupted {
            self.due.insert(part);
        }
        let (host, changes) = (&mut self.host, &mut self.changes);
        match part {
            Part::Links => replace(&mut host.links, listed.links, &told.links, &mut changes.links, |_| sweep),
            Part::Neighbours => {
                replace(&mut host.neighbours, listed.neighbours, &told.neighbours, &mut changes.neighbours, |_| sweep)
            }
            Part::Addresses => {
                let gone = host.addresses.difference(&listed.addresses);
                let new = listed.addresses.difference(&host.addresses);
                let moved: Vec<_> = gone
                    .filter(|_| sweep)
                    .chain(new)
                    .filter(|address| !told.addresses.contains(*address))
                    .copied()
                    .collect();
                for address in moved {
                    if !host.addresses.remove(&address) {
                        host.addresses.insert(address);
                    }
                    changes.addresses.insert(address);
                }
            }
            Part::Ipv4Routes | Part::Ipv6Routes => {
                replace(&mut host.routes, listed.routes, &told.routes, &mut changes.routes, |key| {
                    sweep && Part::of_route(key) == part
                });
                if part == Part::Ipv4Routes {
                    self.shadowed.retain(|key| told.routes.contains(key));
                    self.shadowed.extend(dump.shadowed);
                }
            }
        }
    }

    fn event(&mut self, message: &Message) {
        let NetlinkPayload::InnerMessage(inner) = &message.payload else {
            return;
        };
        match inner {
            RouteNetlinkMessage::NewLink(message) => self.link_is(message),
            RouteNetlinkMessage::DelLink(message) => self.link_gone(message),
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some((address, in_use)) = message::address(message) {
                    self.address(address, in_use);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some((address, _)) = message::address(message) {
                    self.address(address, false);
                    self.doubts.sources.insert(address.1.addr());
                }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                if let Some((key, neighbour)) = message::neighbour(message) {
                    self.neighbour(key, neighbour);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                if let Some((key, _)) = message::neighbour(message) {
                    self.neighbour(key, None);
                }
            }
            RouteNetlinkMessage::NewRoute(route) => {
                if let Some((key, route)) = message::route(route) {
                    self.route_is(key, route, message.header.flags);
                }
            }
            RouteNetlinkMessage::DelRoute(route) => {
                if let Some((key, route)) = message::route(route) {
                    self.route_gone(key, &route);
                }
            }
            _ => {}
        }
    }

    fn link_is(&mut self, message: &LinkMessage) {
        let Some((index, link)) = message::link(message) else {
            return;
        };
        self.told(|told| told.links.insert(index));
        let (is_up, before) = (link.up, self.host.links.get(&index));
        let went_down = !is_up && before.is_some_and(|before| before.up);
        if before != Some(&link) {
            self.host.links.insert(index, link);
            self.changes.links.insert(index);
        }
        if went_down {
            self.doubts.down.insert(index);
        }
    }

    fn link_gone(&mut self, message: &LinkMessage) {
        // Of family bridge this says that the link has left its bridge.
        if message.header.interface_family != AddressFamily::Unspec {
            return;
        }
        let index = message.header.index;
        if self.host.links.remove(&index).is_some() {
            self.changes.links.insert(index);
        }
        self.told(|told| told.links.insert(index));
        self.doubts.gone.insert(index);
    }

    fn address(&mut self, address: (IfIndex, IpNet), in_use: bool) {
        let addresses = &mut self.host.addresses;
        let moved = if in_use { addresses.insert(address) } else { addresses.remove(&address) };
        if moved {
            self.changes.addresses.insert(address);
        }
        self.told(|told| told.addresses.insert(address));
    }

    fn neighbour(&mut self, key: (IfIndex, IpAddr), neighbour: Option<Neigh>) {
        let neighbours = &mut self.host.neighbours;
        let before = match neighbour {
            Some(neighbour) => neighbours.insert(key, neighbour),
            None => neighbours.remove(&key),
        };
        if before != neighbour {
            self.changes.neighbours.insert(key);
        }
        self.told(|told| told.neighbours.insert(key));
    }

    fn route_is(&mut self, key: RouteKey, route: MirroredRoute, flags: u16) {
        self.told(|told| told.routes.insert(key));
        let before = self.host.routes.get(&key);
        if before == Some(&route) {
            return;
        }
        let replaces = flags & NLM_F_REPLACE != 0;
        let route = match before {
            None => route,
            Some(before) if key.prefix.addr().is_ipv6() => {
                let extends = before.kind == route.kind && contains(&route, before);
                if !extends && replaces && !before.next_hops.iter().all(|hop| hop.gateway.is_some()) {
                    // Which of the routes without a gateway was replaced, it does not say.
                    self.due.insert(Part::Ipv6Routes);
                }
                let mut joined = before.clone();
                if replaces {
                    joined = route;
                } else {
                    join(&mut joined, route);
                    self.doubt_during_dump(!extends);
                }
                joined
            }
            Some(_) if replaces => route,
            Some(before) => {
                self.shadowed.insert(key);
                // Appended behind the one in use, or put before it.
                if flags & NLM_F_APPEND != 0 { before.clone() } else { route }
            }
        };
        if self.host.routes.get(&key) != Some(&route) {
            self.host.routes.insert(key, route);
            self.changes.routes.insert(key);
        }
    }

    fn route_gone(&mut self, key: RouteKey, route: &MirroredRoute) {
        self.told(|told| told.routes.insert(key));
        let Some(before) = self.host.routes.get_mut(&key) else {
            return;
        };
        if key.prefix.addr().is_ipv6() && !route.next_hops.is_empty() {
            let hops = before.next_hops.len();
            before.next_hops.retain(|hop| !same_hop(route, hop));
            if !before.next_hops.is_empty() {
                if before.next_hops.len() != hops {
                    self.changes.routes.insert(key);
                }
                self.doubt_during_dump(true);
                return;
            }
        }
        if self.shadowed.contains(&key) {
            // Whether it was the one in use, and which comes after it, it does not say.
            self.due.insert(Part::Ipv4Routes);
            if before != route {
                return;
            }
        }
        self.host.routes.remove(&key);
        self.changes.routes.insert(key);
    }

    /// Has the routes read again if one of them may be gone.
    ///
    /// The kernel announces that a link goes down before it takes the routes away, holding
    /// its rtnl lock meanwhile; dumps of routes do without that lock, dumps of links do not. So a
    /// dump of links first makes sure that the routes are gone by then.
    fn resolve_doubts(&mut self) {
        let Doubts { down, gone, sources } = std::mem::take(&mut self.doubts);
        if down.is_empty() && gone.is_empty() && sources.is_empty() {
            return;
        }
        let leaves_by = |route: &MirroredRoute, links: &BTreeSet<IfIndex>| {
            route.next_hops.iter().any(|hop| hop.ifindex.is_some_and(|index| links.contains(&index)))
        };
        let parts: BTreeSet<Part> = self
            .host
            .routes
            .iter()
            .filter(|(_, route)| {
                leaves_by(route, &gone)
                    // Of a link that is only down the host's own addresses stay.
                    || (route.kind != RouteKind::Local && leaves_by(route, &down))
                    || route.prefsrc.is_some_and(|source| sources.contains(&source))
            })
            .map(|(key, _)| Part::of_route(key))
            .collect();
        if !parts.is_empty() {
            self.due.insert(Part::Links);
            self.due.extend(parts);
        }
    }

    /// An event that only adds to or takes from what is mirrored says nothing final while
    /// that is itself in doubt: dump once more.
    fn doubt_during_dump(&mut self, partial: bool) {
        if partial && self.dump.as_ref().is_some_and(|dump| dump.part == Part::Ipv6Routes) {
            self.due.insert(Part::Ipv6Routes);
        }
    }

    fn told(&mut self, tell: impl FnOnce(&mut Changes) -> bool) {
        if let Some(dump) = &mut self.dump {
            tell(&mut dump.told);
        }
    }
}

impl AsFd for Mirror {
    /// Readable when [`poll`](Mirror::poll) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Makes `live` what was `listed`, except for what events `told` of; without what is neither, where
/// `sweep` says so. Notes in `moved` what changed.
fn replace<K: Ord + Copy, V: PartialEq>(
    live: &mut BTreeMap<K, V>,
    listed: BTreeMap<K, V>,
    told: &BTreeSet<K>,
    moved: &mut BTreeSet<K>,
    sweep: impl Fn(&K) -> bool,
) {
    live.retain(|key, _| {
        let stays = !sweep(key) || listed.contains_key(key) || told.contains(key);
        if !stays {
            moved.insert(*key);
        }
        stays
    });
    for (key, value) in listed {
        if !told.contains(&key) && live.get(&key) != Some(&value) {
            live.insert(key, value);
            moved.insert(key);
        }
    }
}

/// IPv6 has several routes of one key where they differ in their device; the mirror holds
/// them as one with all next hops.
fn join(route: &mut MirroredRoute, more: MirroredRoute) {
    if route.kind != more.kind {
        *route = more;
        return;
    }
    for hop in more.next_hops {
        match route.next_hops.iter_mut().find(|known| same_way(known, &hop)) {
            Some(known) => *known = hop,
            None => route.next_hops.push(hop),
        }
    }
    route.protocol = more.protocol;
    route.prefsrc = more.prefsrc;
}

fn same_way(left: &KernelHop, right: &KernelHop) -> bool {
    left.ifindex == right.ifindex && left.gateway == right.gateway
}

fn same_hop(route: &MirroredRoute, hop: &KernelHop) -> bool {
    route.next_hops.iter().any(|other| same_way(other, hop))
}

/// Whether `route` has all next hops of `other`.
fn contains(route: &MirroredRoute, other: &MirroredRoute) -> bool {
    other.next_hops.iter().all(|hop| same_hop(route, hop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_told_stands_over_what_a_dump_lists() {
        // Key: what it is about. `told` has the odd ones.
        let mut live = BTreeMap::from([(1, 'a'), (2, 'a'), (3, 'a'), (4, 'a'), (6, 'a')]);
        let listed = BTreeMap::from([(1, 'b'), (2, 'b'), (5, 'b'), (6, 'a'), (8, 'b')]);
        let told = BTreeSet::from([1, 3, 5]);
        let mut moved = BTreeSet::new();
        replace(&mut live, listed.clone(), &told, &mut moved, |_| true);
        assert_eq!(live, BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'a'), (6, 'a'), (8, 'b')]));
        assert_eq!(moved, BTreeSet::from([2, 4, 8]));
        // A list that may lack something takes nothing away.
        let mut live = BTreeMap::from([(2, 'a'), (4, 'a')]);
        let mut moved = BTreeSet::new();
        replace(&mut live, listed, &told, &mut moved, |_| false);
        assert_eq!(live[&4], 'a');
        assert_eq!(moved, BTreeSet::from([2, 6, 8]));
    }
}
