//! Reading whole tables while events go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Changes, Mirror, Queue};
use crate::control::host::{IfIndex, Link, MirroredRoute, Neigh, RouteKey};
use crate::control::netlink::route::{self, NextHop};
use crate::control::netlink::{Channel, Error, RTM_GETNEXTHOP, RTM_NEWNEXTHOP, RTM_NEWROUTE, Raw, message};

/// What one dump request lists. In this order, so that links come before what refers to
/// them, next-hop objects before the routes by them, and links before routes for the reason in
/// [`Mirror::resolve_doubts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Links,
    Addresses,
    Neighbours,
    NextHops,
    Ipv4Routes,
    Ipv6Routes,
}

impl Part {
    pub(super) const ALL: [Self; 6] =
        [Self::Links, Self::Addresses, Self::Neighbours, Self::NextHops, Self::Ipv4Routes, Self::Ipv6Routes];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Neighbours => "neighbours",
            Self::NextHops => "next-hop objects",
            Self::Ipv4Routes => "IPv4 routes",
            Self::Ipv6Routes => "IPv6 routes",
        }
    }

    /// Where its events come, so that a dump must come there too.
    pub(super) fn queue(self) -> Queue {
        match self {
            Self::Links | Self::Addresses => Queue::Interfaces,
            Self::Neighbours => Queue::Neighbours,
            Self::NextHops | Self::Ipv4Routes | Self::Ipv6Routes => Queue::Routes,
        }
    }

    pub(super) fn of_route(key: &RouteKey) -> Self {
        match key.prefix {
            IpNet::V4(_) => Self::Ipv4Routes,
            IpNet::V6(_) => Self::Ipv6Routes,
        }
    }

    /// Asks for the dump; the request's sequence number.
    fn request(self, channel: &mut Channel) -> std::io::Result<u32> {
        let routes = |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            RouteNetlinkMessage::GetRoute(message)
        };
        let mut octets = Vec::new();
        let request = match self {
            Self::Links => {
                let mut message = LinkMessage::default();
                message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                RouteNetlinkMessage::GetLink(message)
            }
            Self::Addresses => RouteNetlinkMessage::GetAddress(Default::default()),
            Self::Neighbours => RouteNetlinkMessage::GetNeighbour(Default::default()),
            Self::NextHops => {
                // struct nhmsg: of any family.
                let sequence = channel.append_raw(RTM_GETNEXTHOP, &[0; 8], NLM_F_DUMP, &mut octets);
                return channel.send(&octets).map(|()| sequence);
            }
            Self::Ipv4Routes => routes(AddressFamily::Inet),
            Self::Ipv6Routes => routes(AddressFamily::Inet6),
        };
        let sequence = channel.append(request, NLM_F_DUMP, &mut octets);
        channel.send(&octets).map(|()| sequence)
    }
}

/// A dump that is under way.
pub(super) struct Dump {
    pub(super) part: Part,
    pub(super) sequence: u32,
    listed: Listed,
    /// What events have told of since it began: they stand.
    pub(super) told: Changes,
    /// The same of next-hop objects.
    pub(super) told_objects: BTreeSet<u32>,
    /// Next-hop objects that went since it began, and their routes with them.
    pub(super) gone_objects: BTreeSet<u32>,
    /// The table changed under the kernel's cursor (NLM_F_DUMP_INTR), so something may be
    /// missing from the list.
    interrupted: bool,
}

/// What a dump has listed.
enum Listed {
    Links(BTreeMap<IfIndex, Link>),
    Addresses(BTreeSet<(IfIndex, IpNet)>),
    Neighbours(BTreeMap<(IfIndex, IpAddr), Neigh>),
    NextHops(BTreeMap<u32, NextHop>),
    /// In the kernel's order, and a key more than once if the kernel has several routes of it.
    Routes(Vec<(RouteKey, Arc<MirroredRoute>)>),
}

impl Listed {
    fn nothing_of(part: Part) -> Self {
        match part {
            Part::Links => Self::Links(BTreeMap::new()),
            Part::Addresses => Self::Addresses(BTreeSet::new()),
            Part::Neighbours => Self::Neighbours(BTreeMap::new()),
            Part::NextHops => Self::NextHops(BTreeMap::new()),
            Part::Ipv4Routes | Part::Ipv6Routes => Self::Routes(Vec::new()),
        }
    }
}

impl Mirror {
    /// Asks for the next dump that is due, unless one is under way.
    pub(super) fn start_due(&mut self) -> Result<(), Error> {
        if self.dump.is_some() {
            return Ok(());
        }
        let Some(part) = self.due.pop_first() else {
            return Ok(());
        };
        let sequence = part
            .request(&mut self.channels[part.queue() as usize])
            .inspect_err(|_| {
                self.due.insert(part);
            })
            .map_err(|source| Error::Dump { what: part.name(), source })?;
        self.dump = Some(Dump {
            part,
            sequence,
            listed: Listed::nothing_of(part),
            told: Changes::default(),
            told_objects: BTreeSet::new(),
            gone_objects: BTreeSet::new(),
            interrupted: false,
        });
        Ok(())
    }

    /// One message of the dump under way.
    pub(super) fn list(&mut self, raw: &Raw<'_>) -> Result<(), Error> {
        let Some(dump) = &mut self.dump else {
            return Ok(());
        };
        dump.interrupted |= raw.flags & NLM_F_DUMP_INTR != 0;
        if let Some(outcome) = raw.outcome() {
            return self.end(outcome);
        }
        let understood = match (&mut dump.listed, raw.kind) {
            (Listed::Routes(routes), RTM_NEWROUTE) => match route::route(raw.body()) {
                Ok(found) => {
                    routes.extend(found.map(|found| (found.key, self.routes.share(&found))));
                    true
                }
                Err(route::Malformed) => false,
            },
            (Listed::NextHops(objects), RTM_NEWNEXTHOP) => match route::next_hop(raw.body()) {
                Ok((id, next_hop)) => {
                    objects.insert(id, next_hop);
                    true
                }
                Err(route::Malformed) => false,
            },
            (listed, _) => match (listed, raw.decode()) {
                (Listed::Links(links), Some(RouteNetlinkMessage::NewLink(message))) => {
                    links.extend(message::link(&message));
                    true
                }
                (Listed::Addresses(addresses), Some(RouteNetlinkMessage::NewAddress(message))) => {
                    let listed = message::address(&message).filter(|(_, in_use)| *in_use);
                    addresses.extend(listed.map(|(address, _)| address));
                    true
                }
                (Listed::Neighbours(neighbours), Some(RouteNetlinkMessage::NewNeighbour(message))) => {
                    let listed = message::neighbour(&message);
                    neighbours.extend(listed.and_then(|(key, neighbour)| Some((key, neighbour?))));
                    true
                }
                (_, decoded) => decoded.is_some(),
            },
        };
        self.undecoded += u64::from(!understood);
        Ok(())
    }

    /// The dump has ended, or could not begin.
    fn end(&mut self, outcome: std::io::Result<()>) -> Result<(), Error> {
        let Some(part) = self.dump.as_ref().map(|dump| dump.part) else { return Ok(()) };
        let Err(source) = outcome else {
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
        Ok(())
    }

    /// The dump is complete: what it lists is so, and what it does not list is gone.
    fn finish(&mut self) {
        let Some(dump) = self.dump.take() else { return };
        let Dump { part, listed, told, .. } = dump;
        *self.dumps.entry(part).or_default() += 1;
        // Nothing is taken for gone because an interrupted list lacks it.
        let sweep = !dump.interrupted;
        if dump.interrupted {
            self.due.insert(part);
        }
        let (host, changes) = (&mut self.host, &mut self.changes);
        match listed {
            Listed::Links(links) => replace(&mut host.links, links, &told.links, &mut changes.links, sweep),
            Listed::Neighbours(neighbours) => {
                replace(&mut host.neighbours, neighbours, &told.neighbours, &mut changes.neighbours, sweep);
            }
            Listed::Addresses(addresses) => {
                let gone = host.addresses.difference(&addresses);
                let new = addresses.difference(&host.addresses);
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
            Listed::NextHops(objects) => {
                let told = &dump.told_objects;
                let known = self.routes.objects().filter(|id| sweep && !objects.contains_key(id));
                let gone = known.filter(|id| !told.contains(id)).collect();
                if self.routes.objects_gone(&mut host.routes, &gone) {
                    self.due.insert(Part::Ipv4Routes);
                }
                for (id, object) in objects.into_iter().filter(|(id, _)| !told.contains(id)) {
                    self.routes.object_is(id, object);
                }
            }
            Listed::Routes(mut routes) => {
                // Those by an object that went since have gone with it, and without an event.
                let gone = |route: &MirroredRoute| route.next_hop_id.is_some_and(|id| dump.gone_objects.contains(&id));
                routes.retain(|(_, route)| !gone(route));
                self.routes.are_now(&mut host.routes, part, routes, &told.routes, sweep);
            }
        }
    }
}

/// Makes `live` what was `listed`, except for what events `told` of; without what is neither, if `sweep` says so. Notes
/// in `moved` what changed.
fn replace<K: Ord + Copy, V: PartialEq>(
    live: &mut BTreeMap<K, V>,
    listed: BTreeMap<K, V>,
    told: &BTreeSet<K>,
    moved: &mut BTreeSet<K>,
    sweep: bool,
) {
    live.retain(|key, _| {
        let stays = !sweep || listed.contains_key(key) || told.contains(key);
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
        replace(&mut live, listed.clone(), &told, &mut moved, true);
        assert_eq!(live, BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'a'), (6, 'a'), (8, 'b')]));
        assert_eq!(moved, BTreeSet::from([2, 4, 8]));
        // A list that may lack something takes nothing away.
        let mut live = BTreeMap::from([(2, 'a'), (4, 'a')]);
        let mut moved = BTreeSet::new();
        replace(&mut live, listed, &told, &mut moved, false);
        assert_eq!(live[&4], 'a');
        assert_eq!(moved, BTreeSet::from([2, 6, 8]));
    }
}
