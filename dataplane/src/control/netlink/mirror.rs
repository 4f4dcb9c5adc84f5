//! The kernel's tables, kept up to date.
//!
//! Subscribed first and dumped second, on one socket: the kernel puts dumps and events into
//! one queue, so what an event said since a dump began stands over what the dump says.
//! Three things make a table doubtful, and each is answered by dumping it again while the
//! mirror goes on: events that were lost (ENOBUFS), changes that the kernel does not announce
//! (IPv4 routes and next-hop objects that go with their link or address), and events that do not say which of several
//! routes with one key they mean.
//!
//! There is a socket for each kind of table ([`Queue`]), so that a storm of one leaves no doubt in the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sys::poll::{AnyReadable, PollFd, PollFlags};

use super::{
    Channel, Error, RTM_DELNEXTHOP, RTM_DELNEXTHOPBUCKET, RTM_DELROUTE, RTM_NEWNEXTHOP, RTM_NEWNEXTHOPBUCKET,
    RTM_NEWROUTE, Raw, message, route,
};
use crate::control::host::{Host, IfIndex, Neigh, RouteKey, RouteKind};
use dump::{Dump, Part};
use routes::{Routes, leaves_by};

mod dump;
mod routes;

/// What is not as it was before: keys that were added, removed, or have another value.
///
/// A link may be told of after what refers to it, since each kind has a queue of its own.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Of [`Host::links`].
    pub links: BTreeSet<IfIndex>,
    /// Of [`Host::addresses`].
    pub addresses: BTreeSet<(IfIndex, IpNet)>,
    /// Of [`Host::neighbours`].
    pub neighbours: BTreeSet<(IfIndex, IpAddr)>,
    /// Of [`Host::routes`]: exactly those that differ from before, however often they changed meanwhile.
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
    /// By [`Queue`].
    channels: [Channel; Queue::ALL.len()],
    readable: AnyReadable,
    host: Host,
    routes: Routes,
    /// The dump that is being read. The kernel allows one per socket; here there is one in all, for the order of
    /// [`Part`].
    dump: Option<Dump>,
    /// What is to be dumped after it.
    due: BTreeSet<Part>,
    doubts: Doubts,
    /// What was not told of yet.
    changes: Changes,
    overruns: u64,
    undecoded: u64,
    /// How often each part was read whole.
    dumps: BTreeMap<Part, u64>,
}

/// What events are waited for together, and lost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// Links and addresses: few, and what goes with them tells of routes.
    Interfaces,
    /// Neighbours: as many as hosts on the links.
    Neighbours,
    /// Routes and what they lead over.
    Routes,
}

impl Queue {
    /// In the order in which they are read.
    const ALL: [Self; 3] = [Self::Interfaces, Self::Neighbours, Self::Routes];

    /// RTNLGRP_* of linux/rtnetlink.h.
    fn groups(self) -> &'static [u32] {
        match self {
            // LINK, IPV4_IFADDR, IPV6_IFADDR
            Self::Interfaces => &[1, 5, 9],
            // NEIGH
            Self::Neighbours => &[3],
            // IPV4_ROUTE, IPV6_ROUTE, NEXTHOP
            Self::Routes => &[7, 11, 32],
        }
    }

    /// What is in doubt when events were lost. Some take routes away without an event of the routes' own.
    fn told_of(self) -> &'static [Part] {
        match self {
            Self::Interfaces => &[Part::Links, Part::Addresses, Part::NextHops, Part::Ipv4Routes, Part::Ipv6Routes],
            Self::Neighbours => &[Part::Neighbours],
            Self::Routes => &[Part::NextHops, Part::Ipv4Routes, Part::Ipv6Routes],
        }
    }

    /// Receive buffer in octets, of which an event takes about a thousand: what comes while control is elsewhere or
    /// while a large dump is read. It is memory only while it is full.
    fn buffer_octets(self) -> usize {
        match self {
            Self::Interfaces | Self::Neighbours => 16 << 20,
            Self::Routes => 128 << 20,
        }
    }
}

/// What has happened that takes routes away without an event. Looked into once per poll, since
/// that means to look at every way that routes lead.
#[derive(Default)]
struct Doubts {
    down: BTreeSet<IfIndex>,
    gone: BTreeSet<IfIndex>,
    sources: BTreeSet<IpAddr>,
}

/// Octets read from one socket by one `poll` at most, so that a storm cannot hold up the control loop.
const POLL_OCTETS: usize = 2 << 20;

/// What a datagram counts as at least: an event is a hundred octets and the work of more. A dump's have 32 KiB.
const DATAGRAM_OCTETS: usize = 2048;

/// How long the first dumps may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

impl Mirror {
    /// Subscribes, then reads everything once. In the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Open`] without a socket, [`Error::Dump`] when the kernel will not list a
    /// table, [`Error::Silent`] when that takes longer than half a minute.
    pub fn open() -> Result<Self, Error> {
        Self::open_with_buffers(Queue::buffer_octets)
    }

    fn open_with_buffers(octets: impl Fn(Queue) -> usize) -> Result<Self, Error> {
        let open = |queue| -> std::io::Result<Channel> {
            let channel = Channel::open()?;
            sys::netdev::set_receive_buffer(&channel, octets(queue))?;
            for group in queue.groups() {
                channel.socket.add_membership(*group)?;
            }
            Ok(channel)
        };
        let [interfaces, neighbours, routes] = Queue::ALL.map(open);
        let channels =
            [interfaces.map_err(Error::Open)?, neighbours.map_err(Error::Open)?, routes.map_err(Error::Open)?];
        let readable = AnyReadable::new(channels.iter().map(Channel::as_fd)).map_err(Error::Open)?;
        let mut mirror = Self {
            channels,
            readable,
            host: Host::default(),
            routes: Routes::default(),
            dump: None,
            due: Part::ALL.into(),
            doubts: Doubts::default(),
            changes: Changes::default(),
            overruns: 0,
            undecoded: 0,
            dumps: BTreeMap::new(),
        };
        mirror.settle(OPEN_TIMEOUT)?;
        Ok(mirror)
    }

    /// With the least buffers that the kernel gives, which hold a handful of events, in some queues.
    #[cfg(test)]
    pub(super) fn open_cramped(neighbours: bool, routes: bool) -> Result<Self, Error> {
        Self::open_with_buffers(|queue| match queue {
            Queue::Neighbours if neighbours => 1,
            Queue::Routes if routes => 1,
            other => other.buffer_octets(),
        })
    }

    /// Doubts everything, as after an overrun.
    #[cfg(test)]
    pub(super) fn read_again(&mut self) {
        self.due = Part::ALL.into();
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
        // What changed before an error is told of by the poll that succeeds.
        self.read()?;
        let mut changes = std::mem::take(&mut self.changes);
        changes.routes = self.routes.changed(&self.host.routes);
        Ok(changes)
    }

    fn read(&mut self) -> Result<(), Error> {
        self.start_due()?;
        for queue in Queue::ALL {
            let mut budget = POLL_OCTETS;
            while budget > 0
                && let Some(octets) = self.receive(queue)?
            {
                budget = budget.saturating_sub(octets.max(DATAGRAM_OCTETS));
                self.start_due()?;
            }
        }
        self.routes.follow_objects(&mut self.host.routes);
        self.resolve_doubts();
        // So that the descriptor is readable if anything is left to do.
        self.start_due()
    }

    /// Whether a dump is under way or due, so that something may be missing or out of date.
    pub fn is_resynchronising(&self) -> bool {
        self.dump.is_some() || !self.due.is_empty()
    }

    /// How often events were lost since it was opened; each time the tables that they told of were read again.
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// How often each table was read whole since it was opened, by its name; the first time was to open it.
    pub fn dumps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.dumps.iter().map(|(part, count)| (part.name(), *count))
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
            let mut fds = [PollFd::new(&self.readable, PollFlags::IN)];
            sys::poll::poll(&mut fds, Some(left)).map_err(Error::Socket)?;
        }
    }

    /// Reads one datagram, if there is one; how long it was.
    fn receive(&mut self, queue: Queue) -> Result<Option<usize>, Error> {
        let channel = &mut self.channels[queue as usize];
        let datagram = match channel.receive() {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                // A dump under way goes on, but what it listed before may have changed since
                // without our hearing of it.
                self.overruns += 1;
                self.due.extend(queue.told_of());
                return Ok(Some(0));
            }
            Err(error) => return Err(Error::Socket(error)),
        };
        let result = datagram.messages().try_for_each(|message| match message {
            Some(message) => self.take(queue, &message),
            None => {
                self.undecoded += 1;
                Ok(())
            }
        });
        let length = datagram.length;
        self.channels[queue as usize].reuse(datagram);
        result.map(|()| Some(length))
    }

    fn take(&mut self, queue: Queue, message: &Raw<'_>) -> Result<(), Error> {
        match &self.dump {
            Some(dump)
                if dump.part.queue() == queue && self.channels[queue as usize].answers(message, dump.sequence) =>
            {
                self.list(message)
            }
            _ => {
                self.event(message);
                Ok(())
            }
        }
    }

    fn event(&mut self, raw: &Raw<'_>) {
        match raw.kind {
            RTM_NEWROUTE | RTM_DELROUTE => self.route(raw),
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => self.next_hop(raw),
            // Which flows of a resilient group use which member now: each forwarder has its own.
            RTM_NEWNEXTHOPBUCKET | RTM_DELNEXTHOPBUCKET => {}
            // Of other kinds (NLMSG_*) there are no events.
            kind if kind < 16 => {}
            _ => match raw.decode() {
                Some(RouteNetlinkMessage::NewLink(message)) => self.link_is(&message),
                Some(RouteNetlinkMessage::DelLink(message)) => self.link_gone(&message),
                Some(RouteNetlinkMessage::NewAddress(message)) => {
                    if let Some((address, in_use)) = message::address(&message) {
                        self.address(address, in_use);
                    }
                }
                Some(RouteNetlinkMessage::DelAddress(message)) => {
                    if let Some((address, _)) = message::address(&message) {
                        self.address(address, false);
                        self.doubts.sources.insert(address.1.addr());
                    }
                }
                Some(RouteNetlinkMessage::NewNeighbour(message)) => {
                    if let Some((key, neighbour)) = message::neighbour(&message) {
                        self.neighbour(key, neighbour);
                    }
                }
                Some(RouteNetlinkMessage::DelNeighbour(message)) => {
                    if let Some((key, _)) = message::neighbour(&message) {
                        self.neighbour(key, None);
                    }
                }
                Some(_) => {}
                None => self.undecoded += 1,
            },
        }
    }

    fn link_is(&mut self, message: &LinkMessage) {
        let Some((index, link)) = message::link(message) else {
            return;
        };
        self.told(|told| told.links.insert(index));
        let (is_up, before) = (link.up, self.host.links.get(&index));
        let was_up = before.is_some_and(|before| before.up);
        if before != Some(&link) {
            self.host.links.insert(index, link);
            self.changes.links.insert(index);
        }
        if was_up && !is_up {
            self.doubts.down.insert(index);
        }
        let listing = self.dump.as_ref().is_some_and(|dump| matches!(dump.part, Part::Ipv4Routes | Part::Ipv6Routes));
        if is_up && !was_up && (self.routes.revives(index) || listing) {
            // The kernel gives routes their hops back as silently as it took them, and also after it has said this.
            self.due.extend([Part::Links, Part::Ipv4Routes, Part::Ipv6Routes]);
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

    fn route(&mut self, raw: &Raw<'_>) {
        let found = match route::route(raw.body()) {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(route::Malformed) => {
                self.undecoded += 1;
                return;
            }
        };
        self.told(|told| told.routes.insert(found.key));
        let part = Part::of_route(&found.key);
        let live = &mut self.host.routes;
        let verdict = match raw.kind {
            RTM_NEWROUTE => self.routes.is_now(live, found, raw.flags),
            _ => self.routes.is_gone(live, found),
        };
        match verdict {
            routes::Verdict::Certain => {}
            // An event that only adds to or takes from what is mirrored says nothing final while
            // that is itself in doubt: dump once more.
            routes::Verdict::Partial if self.dump.as_ref().is_none_or(|dump| dump.part != part) => {}
            routes::Verdict::Partial | routes::Verdict::Unclear => {
                self.due.insert(part);
            }
        }
    }

    fn next_hop(&mut self, raw: &Raw<'_>) {
        let Ok((id, next_hop)) = route::next_hop(raw.body()) else {
            self.undecoded += 1;
            return;
        };
        if raw.kind == RTM_NEWNEXTHOP {
            self.routes.object_is(id, next_hop);
        } else if self.routes.objects_gone(&mut self.host.routes, &BTreeSet::from([id])) {
            self.due.insert(Part::Ipv4Routes);
        }
        if let Some(dump) = &mut self.dump {
            dump.told_objects.insert(id);
            if raw.kind == RTM_DELNEXTHOP {
                dump.gone_objects.insert(id);
            }
        }
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
        let parts: BTreeSet<Part> = self.routes.parts_of(|route| {
            leaves_by(&route.next_hops, &gone)
                // Of a link that is only down the host's own addresses stay.
                || (route.kind != RouteKind::Local && leaves_by(&route.next_hops, &down))
                || route.prefsrc.is_some_and(|source| sources.contains(&source))
        });
        let objects = self.routes.objects_leave_by(&down) || self.routes.objects_leave_by(&gone);
        if !parts.is_empty() || objects {
            self.due.insert(Part::Links);
            self.due.extend(parts);
            self.due.extend(objects.then_some(Part::NextHops));
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
        self.readable.as_fd()
    }
}
