//! Which rule a packet meets first of each of some ordered lists, at a cost that hardly depends on how many there are.
//!
//! What a rule asks for is looked at one thing at a time: source, destination, and the rest. Each is looked up in a
//! table of its own, whatever the number of rules, and answers with a *row*: a bit for each rule that does not mind.
//! The lowest bit that is set in all rows is the first rule met (Lakshman and Stiliadis, SIGCOMM 1998). A row has
//! groups of 256 bits, and a summary says which of them are not empty, so a thousand rules are four steps at most. Each
//! list has groups of its own: what is looked up is looked up once for all. Short lists share a group, and one step.
//!
//! Way in, protocol, DSCP and ports take few different rows, and all their combinations are made beforehand (Gupta and
//! McKeown, SIGCOMM 1999). Where those would be too many, each has its row at run time.
//!
//! A packet has ports when it holds the header of a transport that has them: a later fragment does not, so it never
//! meets a rule that asks for a port.

mod compile;
mod rows;

use super::{Port, PortKind};
use crate::packet::{Batch, Family, Packet, PortId, Traits, TunnelId, Vrf};
use ipnet::IpNet;
use lpm::{Reader4, Reader6, TableError, Value};
use rows::{Fold, Group, PortClasses, Rows};
use std::ops::RangeInclusive;
use wire::{Udp, protocol};

/// What a packet must be to meet a rule. What is `None` or empty does not matter; of several values one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Where the packet is looked up.
    pub vrf: Option<Vrf>,
    /// The port that it came in by, but not out of a tunnel.
    pub interface: Option<PortId>,
    /// The tunnel that it came out of.
    pub tunnel: Option<TunnelId>,
    /// The tag of the VLAN that it came in by, but not out of a tunnel.
    pub vlan: Option<u16>,
    /// What its source is within.
    pub sources: Vec<IpNet>,
    /// What its destination is within.
    pub destinations: Vec<IpNet>,
    /// Its transport protocol, behind IPv6 extension headers.
    pub protocols: Vec<u8>,
    /// Its source port.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Its destination port.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// The DSCP of its header, the inner one if it came out of a tunnel.
    pub dscps: Vec<u8>,
    /// Whether only RoCEv2's congestion notifications do.
    pub cnp: bool,
}

impl Match {
    /// Protocols that have ports where TCP has them.
    pub const WITH_PORTS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];

    const fn minds_no_way(&self) -> bool {
        self.vrf.is_none() && self.interface.is_none() && self.tunnel.is_none() && self.vlan.is_none()
    }

    fn meets_way(&self, way: WayIn) -> bool {
        self.vrf.is_none_or(|vrf| vrf == way.vrf)
            && self.interface.is_none_or(|port| way.port == Some(port))
            && self.tunnel.is_none_or(|tunnel| way.tunnel == Some(tunnel))
            && self.vlan.is_none_or(|vlan| way.vlan == Some(vlan))
    }
}

/// By what a packet came in: a port, or out of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayIn {
    vrf: Vrf,
    port: Option<PortId>,
    tunnel: Option<TunnelId>,
    vlan: Option<u16>,
}

/// All ways in: ports, then tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    all: Vec<WayIn>,
    ports: usize,
}

impl Ways {
    /// Ports by id, and each tunnel's VRF.
    pub fn new(ports: &[Port], tunnels: impl Iterator<Item = Vrf>) -> Self {
        let of_port = |(at, port): (u16, &Port)| {
            let vlan = match port.kind {
                PortKind::Vlan { id, .. } => Some(id),
                _ => None,
            };
            WayIn { vrf: port.vrf, port: Some(PortId(at)), tunnel: None, vlan }
        };
        let of_tunnel = |(at, vrf)| WayIn { vrf, port: None, tunnel: Some(TunnelId(at)), vlan: None };
        let all = (0..).zip(ports).map(of_port).chain((0..).zip(tunnels).map(of_tunnel)).collect();
        Self { all, ports: ports.len() }
    }
}

/// How many lists are looked at together: an access list, tenants, classes.
pub const LISTS: usize = 3;

/// Ordered lists of rules, compiled.
#[derive(Clone, Debug)]
pub struct Filter {
    v4: Side<Reader4>,
    v6: Side<Reader6>,
    /// Where the tunnels begin among the ways in.
    tunnels_at: usize,
    /// Some rule asks for congestion notifications.
    cnp: bool,
}

/// What rules say of packets of one family.
#[derive(Clone, Debug)]
struct Side<R> {
    /// The rules that such a packet may meet, by their places in their lists: bits of a row, in order, and of the bit behind
    /// a group that is alone, none.
    rules: Box<[u16]>,
    lists: Lists,
    /// `None` where no rule asks for it.
    sources: Option<R>,
    source_rows: Rows,
    destinations: Option<R>,
    destination_rows: Rows,
    ways: Box<[u16]>,
    /// One more than there are protocols: [`CNP`].
    protocols: Box<[u16]>,
    dscps: Box<[u16]>,
    source_ports: PortClasses,
    destination_ports: PortClasses,
    rest: Rest,
}

/// Which bits of a row are whose.
#[derive(Clone, Debug)]
enum Lists {
    /// All share one group, by words: the bits of each.
    Words([Group; LISTS]),
    /// Each has groups of its own: bits of a summary.
    Groups([u64; LISTS]),
}

/// What is asked for beside addresses.
#[derive(Clone, Debug)]
enum Rest {
    /// All combinations, made beforehand.
    Folded { ways: Fold, dscps: Fold, ports: Fold, all: Fold, rows: Rows },
    /// A row for each: way in, protocol, DSCP, source port, destination port.
    Apart(Box<[Rows; 5]>),
}

/// RoCEv2's congestion notification among the protocols: UDP too, and more.
const CNP: usize = 256;
/// UDP port of RoCEv2.
const ROCE: u16 = 4791;
/// InfiniBand's opcode of a congestion notification (RoCEv2 annex A17.9.3), the first octet behind UDP.
const CNP_OPCODE: u8 = 0x81;

/// A longest match that gives each address a class: none where no prefix matches, which is class 0.
trait Classify<A> {
    fn classes(&self, addresses: &[A], classes: &mut [Option<Value>]);
}

/// Tables here have one VRF.
const VRFS: [u16; Batch::SIZE] = [0; Batch::SIZE];

impl Classify<u32> for Reader4 {
    #[inline(always)]
    fn classes(&self, addresses: &[u32], classes: &mut [Option<Value>]) {
        self.lookup_batch(&VRFS[..addresses.len()], addresses, classes);
    }
}

impl Classify<u128> for Reader6 {
    #[inline(always)]
    fn classes(&self, addresses: &[u128], classes: &mut [Option<Value>]) {
        self.lookup_batch(&VRFS[..addresses.len()], addresses, classes);
    }
}

/// What all rules look at of a packet, addresses apart.
struct Facts {
    way: usize,
    protocol: usize,
    dscp: usize,
    /// Source and destination.
    ports: Option<(u16, u16)>,
}

impl Filter {
    /// No rule.
    pub const NONE: u16 = u16::MAX;

    /// Compiles lists of rules for packets that come in by these ways.
    ///
    /// # Errors
    ///
    /// There is no memory, or no room for so many prefixes.
    pub fn new(lists: &[Vec<Match>; LISTS], ways: &Ways) -> Result<Self, TableError> {
        Ok(Self {
            v4: compile::side(lists, &ways.all, Family::V4)?,
            v6: compile::side(lists, &ways.all, Family::V6)?,
            tunnels_at: ways.ports,
            cnp: lists.iter().flatten().any(|rule| rule.cnp),
        })
    }

    /// Whether all combinations are made beforehand.
    pub const fn is_folded(&self) -> bool {
        matches!((&self.v4.rest, &self.v6.rest), (Rest::Folded { .. }, Rest::Folded { .. }))
    }

    /// Hands on the first rule that each packet meets of each of the first `N` lists, by its place in the list;
    /// [`Self::NONE`] where there is none.
    ///
    /// The packets are parsed, and at most [`Batch::SIZE`]: all their addresses are looked up at once, so that what one
    /// waits for overlaps with the others.
    #[inline(always)]
    pub fn first<const N: usize>(&self, packets: &mut [Box<Packet>], mut met: impl FnMut(&mut Packet, [u16; N])) {
        let v4 = |packet: &Packet| packet.ipv4().map(|header| (header.source.value(), header.destination.value()));
        if self.first_of(&self.v4, packets, v4, &mut met) < packets.len() {
            self.first_v6(packets, met);
        }
    }

    #[inline(never)]
    fn first_v6<const N: usize>(&self, packets: &mut [Box<Packet>], met: impl FnMut(&mut Packet, [u16; N])) {
        let v6 = |packet: &Packet| packet.ipv6().map(|header| (header.source_bits(), header.destination_bits()));
        self.first_of(&self.v6, packets, v6, met);
    }

    /// The same for packets of one family; returns how many there were.
    #[inline(always)]
    fn first_of<const N: usize, A: Copy + Default, R: Classify<A>>(
        &self,
        side: &Side<R>,
        packets: &mut [Box<Packet>],
        ends: impl Fn(&Packet) -> Option<(A, A)>,
        mut met: impl FnMut(&mut Packet, [u16; N]),
    ) -> usize {
        let mut which = [0_u8; Batch::SIZE];
        let mut addresses = [[A::default(); Batch::SIZE]; 2];
        let mut count = 0;
        for (at, packet) in packets.iter().enumerate() {
            if let Some((source, destination)) = ends(packet) {
                which[count] = at as u8;
                (addresses[0][count], addresses[1][count]) = (source, destination);
                count += 1;
            }
        }
        let mut classes = [[None; Batch::SIZE]; 2];
        for ((table, addresses), classes) in
            [&side.sources, &side.destinations].iter().zip(&addresses).zip(&mut classes)
        {
            if let Some(table) = table {
                table.classes(&addresses[..count], &mut classes[..count]);
            }
        }
        for at in 0..count {
            let packet = &mut packets[usize::from(which[at])];
            let [source, destination] = [classes[0][at], classes[1][at]].map(|class| class.map_or(0, Value::as_u16));
            let rules = side.first(&self.facts(packet), source, destination);
            met(packet, rules);
        }
        count
    }

    #[inline(always)]
    fn facts(&self, packet: &Packet) -> Facts {
        let way = match packet.tunnel {
            TunnelId::NONE => packet.ingress.index(),
            tunnel => self.tunnels_at + tunnel.index(),
        };
        let mut facts =
            Facts { way, protocol: packet.protocol.into(), dscp: usize::from(packet.tos >> 2), ports: None };
        if Match::WITH_PORTS.contains(&packet.protocol) && !packet.traits.has(Traits::LATER_FRAGMENT) {
            let transport = packet.frame.bytes().get(usize::from(packet.l4)..).unwrap_or(&[]);
            facts.ports = transport.first_chunk::<4>().map(|word| {
                let word = u32::from_be_bytes(*word);
                ((word >> 16) as u16, word as u16)
            });
            if self.cnp && is_cnp(packet.protocol, facts.ports, transport) {
                facts.protocol = CNP;
            }
        }
        facts
    }
}

fn is_cnp(protocol: u8, ports: Option<(u16, u16)>, transport: &[u8]) -> bool {
    protocol == protocol::UDP
        && ports.is_some_and(|(_, to)| to == ROCE)
        && transport.get(Udp::SIZE).is_some_and(|opcode| *opcode == CNP_OPCODE)
}

impl<R> Side<R> {
    #[inline(always)]
    fn first<const N: usize>(&self, facts: &Facts, source: u16, destination: u16) -> [u16; N] {
        let way = self.ways.get(facts.way).copied().unwrap_or(0);
        let protocol = self.protocols[facts.protocol];
        let dscp = self.dscps[facts.dscp];
        let (from, to) = match facts.ports {
            Some((from, to)) => (self.source_ports.class(from), self.destination_ports.class(to)),
            None => (self.source_ports.none(), self.destination_ports.none()),
        };
        let addresses = [(&self.source_rows, source), (&self.destination_rows, destination)];
        match &self.rest {
            Rest::Folded { ways, dscps, ports, all, rows } => {
                let class = all.class(dscps.class(ways.class(way, protocol), dscp), ports.class(from, to));
                let [source, destination] = addresses;
                self.met([source, destination, (rows, class)])
            }
            Rest::Apart(rest) => self.first_apart(addresses, rest, [way, protocol, dscp, from, to]),
        }
    }

    #[cold]
    fn first_apart<const N: usize>(
        &self,
        addresses: [(&Rows, u16); 2],
        rest: &[Rows; 5],
        classes: [u16; 5],
    ) -> [u16; N] {
        let [source, destination] = addresses;
        let [way, protocol, dscp, from, to] = std::array::from_fn(|at| (&rest[at], classes[at]));
        self.met([source, destination, way, protocol, dscp, from, to])
    }

    /// By the lowest bits that all rows have, of which these are the classes.
    #[inline(always)]
    fn met<const N: usize, const ROWS: usize>(&self, rows: [(&Rows, u16); ROWS]) -> [u16; N] {
        const { assert!(N <= LISTS) };
        match &self.lists {
            Lists::Words(lists) => {
                let all = rows.iter().fold([u64::MAX; 4], |all, (rows, class)| rows::both(&all, rows.only(*class)));
                // Whether a list has one that is met is anybody's guess too.
                std::array::from_fn(|list| self.rules[rows::lowest(&rows::both(&all, &lists[list]))])
            }
            Lists::Groups(lists) => {
                let rows = rows.map(|(rows, class)| rows.row(class));
                let first = |list: usize| rows::first(&rows, lists[list]).map_or(Filter::NONE, |bit| self.rules[bit]);
                std::array::from_fn(first)
            }
        }
    }
}

#[cfg(test)]
mod tests;
