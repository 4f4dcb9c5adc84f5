//! An access list and packets for it: rules as filters have them (prefixes of all lengths, well-known ports, some
//! ranges), packets that meet any of them as likely as another, and a quarter that are anybody's.

use crate::random::{Draw, Random};
use crate::rig::{BATCH, median};
use dataplane::packet::{Batch, Exits, FlowHash, Packet, PortId, Stock, Time, Vrf};
use dataplane::stats::{Room, Tally};
use dataplane::tables::acl::{Action, Rule};
use dataplane::tables::filter::{Match, Ways};
use dataplane::tables::{Classifier, Port, PortKind, ReversePath};
use etherparse::PacketBuilder;
use ipnet::{IpNet, Ipv4Net};
use lpm::Prefix4;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use wire::{Mac, protocol};

/// Packets in turn.
const PACKETS: usize = 64 * BATCH;
/// Services that rules name.
const SERVICES: [u16; 12] = [22, 25, 53, 80, 123, 179, 443, 2049, 3306, 4420, 4791, 8080];

/// The list, a worker's counters, and packets that have been parsed.
pub struct List {
    acl: Classifier,
    tally: Tally,
    at_rest: VecDeque<Box<Packet>>,
    batch: Batch,
    exits: Exits,
}

impl List {
    /// A list of so many rules.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    pub fn new(rules: usize) -> Self {
        let mut random = Random::new(0xac1);
        let all: Vec<Rule> = (0..rules).map(|_| rule(&mut random)).collect();
        let umem = xsk::Umem::new(2 * PACKETS, xsk::ChunkSize::default()).expect("some megabytes are there");
        let mut stock = Stock::new(umem.pool(64, 256), PACKETS);
        let mut packets = Vec::with_capacity(PACKETS);
        for _ in 0..PACKETS {
            let octets = packet(&all[random.below(all.len())].matches, &mut random);
            let frame = stock.frames.frame_of(&octets).expect("there are more chunks than packets");
            packets.push(stock.wrap(frame, PortId(0), false, Time(0)));
        }
        random.shuffle(&mut packets);
        let port = Port {
            kind: PortKind::Interface,
            name: "lan0".into(),
            vrf: Vrf::DEFAULT,
            mac: Mac::default(),
            mtu: 1500,
            addresses: Vec::new(),
            rpf: ReversePath::Off,
        };
        let acl = Classifier::new(all, None, Ways::new(&[port], std::iter::empty())).expect("there is memory");
        let room = Room { rules, ..Room::default() };
        Self { acl, tally: Tally::new(room), at_rest: packets.into(), batch: Batch::new(), exits: Exits::new() }
    }

    /// The time that `rounds` batches take through the list: so many times the median round.
    ///
    /// # Panics
    ///
    /// If a packet is no IP.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::new();
        for _ in 0..rounds {
            for mut packet in self.at_rest.drain(..BATCH) {
                // As behind `parse`: the headers are in the nearest cache.
                packet.parse(&FlowHash::default()).expect("a packet of ours");
                self.batch.push(packet);
            }
            let start = Instant::now();
            self.acl.admit(&mut self.batch, &mut self.exits, &mut self.tally);
            took.push(start.elapsed());
            self.at_rest.extend(self.batch.drain());
            self.at_rest.extend(self.exits.drain().map(|(packet, _)| packet));
        }
        median(took) * rounds as u32
    }
}

fn prefix(random: &mut Random) -> IpNet {
    // A site has few networks, so that rules' prefixes lie within each other.
    let network = 0x0a00_0000 | (random.below(64) as u32) << 16 | random.number() as u32 & 0xffff;
    let length = [8, 12, 16, 16, 20, 24, 24, 24, 28, 32, 32][random.below(11)];
    Ipv4Net::new(network.into(), length).expect("a length").trunc().into()
}

/// A rule as filters have them.
pub(crate) fn rule(random: &mut Random) -> Rule {
    let mut matches = Match::default();
    if random.below(10) >= 3 {
        matches.sources.push(prefix(random));
    }
    if random.below(10) >= 2 {
        matches.destinations.push(prefix(random));
    }
    matches.protocols = match random.below(20) {
        0..=10 => vec![protocol::TCP],
        11..=16 => vec![protocol::UDP],
        17 => vec![1],
        _ => Vec::new(),
    };
    if matches.protocols.first().is_some_and(|protocol| Match::WITH_PORTS.contains(protocol)) {
        let from = random.number() as u16;
        match random.below(20) {
            0..=13 => {
                let service = SERVICES[random.below(SERVICES.len())];
                matches.destination_ports.push(service..=service);
            }
            14..=16 => matches.destination_ports.push(from..=from.saturating_add(random.below(1000) as u16)),
            17 => matches.source_ports.push(1024..=65_535),
            _ => {}
        }
    }
    if random.below(20) == 0 {
        matches.dscps.push([0, 10, 26, 46][random.below(4)]);
    }
    // What a filter lets pass it says first, and what meets no rule is worth measuring too.
    let action = [Action::Permit, Action::Deny, Action::Reject][random.below(3)];
    Rule { matches, action }
}

/// A packet that meets the rule, if no earlier one: or, of four one, that may meet any.
fn packet(rule: &Match, random: &mut Random) -> Vec<u8> {
    let anybody = Match::default();
    let rule = if random.below(4) == 0 { &anybody } else { rule };
    let mut within = |nets: &[IpNet]| {
        let net = match nets.first() {
            Some(IpNet::V4(net)) => *net,
            _ => Ipv4Net::new(0x0a00_0000.into(), 8).expect("a length"),
        };
        let prefix = Prefix4::try_from(net).expect("a prefix without host bits");
        u32::within(prefix, random).to_be_bytes()
    };
    let (source, destination) = (within(&rule.sources), within(&rule.destinations));
    let mut port = |ranges: &[std::ops::RangeInclusive<u16>]| match ranges.first() {
        Some(range) => range.start() + random.below(1 + usize::from(range.end() - range.start())) as u16,
        None => random.number() as u16,
    };
    let (from, to) = (port(&rule.source_ports), port(&rule.destination_ports));
    let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(
        etherparse::Ipv4Header {
            source,
            destination,
            time_to_live: 64,
            dscp: etherparse::IpDscp::try_new(rule.dscps.first().copied().unwrap_or(0)).expect("6 bits"),
            ..Default::default()
        },
        Default::default(),
    ));
    let mut octets = Vec::new();
    let written = match rule.protocols.first() {
        Some(&protocol::TCP) => builder.tcp(from, to, 1, 1).write(&mut octets, &[0; 6]),
        Some(1) => builder.icmpv4_echo_request(1, 1).write(&mut octets, &[0; 18]),
        _ => builder.udp(from, to).write(&mut octets, &[0; 18]),
    };
    written.expect("a Vec takes everything");
    octets
}
