//! Against a linear scan of the rules.

use super::super::acl::{Action, Rule};
use super::super::{Classifier, Marks, ReversePath};
use super::*;
use crate::packet::{AdjacencyId, Class, Exits, FlowHash, TenantId, Time};
use crate::stats::{Room, Tally};
use crate::testing::{stock, written};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet as its sender would describe it.
#[derive(Clone, Debug)]
struct Sent {
    way: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    dscp: u8,
    later_fragment: bool,
    first_octet: u8,
}

/// Two ports of VRF 0, a VLAN of the first in VRF 1, two tunnels.
fn ways() -> Ways {
    let port = |kind, vrf| Port {
        kind,
        name: String::new(),
        vrf: Vrf(vrf),
        mac: wire::Mac::default(),
        mtu: 1500,
        addresses: Vec::new(),
        rpf: ReversePath::Off,
    };
    let vlan = PortKind::Vlan { parent: PortId(0), id: 110 };
    let ports = [port(PortKind::Interface, 0), port(PortKind::Interface, 0), port(vlan, 1)];
    Ways::new(&ports, [Vrf(0), Vrf(1)].into_iter())
}

/// By definition: each thing that the rule asks for, one after the other.
fn meets(rule: &Match, sent: &Sent) -> bool {
    let (vrf, port, tunnel, vlan) = [
        (0, Some(0), None, None),
        (0, Some(1), None, None),
        (1, Some(2), None, Some(110)),
        (0, None, Some(0), None),
        (1, None, Some(1), None),
    ][sent.way];
    let has_ports = [6, 17, 132].contains(&sent.protocol) && !sent.later_fragment;
    let port_in = |ranges: &[RangeInclusive<u16>], port| {
        ranges.is_empty() || (has_ports && ranges.iter().any(|range| range.contains(&port)))
    };
    let net_in = |nets: &[IpNet], address: IpAddr| nets.is_empty() || nets.iter().any(|net| net.contains(&address));
    let is_cnp = sent.protocol == 17 && has_ports && sent.ports.1 == 4791 && sent.first_octet == 0x81;
    rule.vrf.is_none_or(|it| it.0 == vrf)
        && rule.interface.is_none_or(|it| Some(it.0) == port)
        && rule.tunnel.is_none_or(|it| Some(it.0) == tunnel)
        && rule.vlan.is_none_or(|it| Some(it) == vlan)
        && net_in(&rule.sources, sent.source)
        && net_in(&rule.destinations, sent.destination)
        && (rule.protocols.is_empty() || rule.protocols.contains(&sent.protocol))
        && port_in(&rule.source_ports, sent.ports.0)
        && port_in(&rule.destination_ports, sent.ports.1)
        && (rule.dscps.is_empty() || rule.dscps.contains(&sent.dscp))
        && (!rule.cnp || is_cnp)
}

fn ip(sent: &Sent) -> Vec<u8> {
    let mut payload = [sent.ports.0.to_be_bytes(), sent.ports.1.to_be_bytes(), [0, 12], [0, 0]].concat();
    payload.extend([sent.first_octet, 0, 0, 0]);
    match (sent.source, sent.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header {
                source: source.octets(),
                destination: destination.octets(),
                protocol: IpNumber(sent.protocol),
                time_to_live: 64,
                total_len: 20 + payload.len() as u16,
                dscp: etherparse::IpDscp::try_new(sent.dscp).expect("6 bits"),
                fragment_offset: IpFragOffset::try_new(sent.later_fragment.into()).expect("13 bits"),
                ..Ipv4Header::default()
            };
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes()[..], &payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let fragment: &[u8] = if sent.later_fragment { &[sent.protocol, 0, 0, 8, 0, 0, 0, 1] } else { &[] };
            let header = Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                next_header: IpNumber(if sent.later_fragment { 44 } else { sent.protocol }),
                hop_limit: 64,
                payload_length: (fragment.len() + payload.len()) as u16,
                traffic_class: sent.dscp << 2,
                ..Ipv6Header::default()
            };
            [&header.to_bytes()[..], fragment, &payload].concat()
        }
        _ => unreachable!("both are of one family"),
    }
}

/// Packets as they are before the list, in a batch.
fn batch_of(all: &[(usize, Vec<u8>)], stock: &mut crate::packet::Stock) -> Batch {
    let mut batch = Batch::new();
    for (way, ip) in all {
        let frame = stock.frames.frame_of(ip).expect("the test's memory has more");
        let mut packet = stock.wrap(frame, PortId(0), false, Time(0));
        packet.l3 = 0;
        packet.family = if ip[0] >> 4 == 6 { Family::V6 } else { Family::V4 };
        packet.parse(&FlowHash::default()).expect("a packet that is right");
        (packet.ingress, packet.tunnel) = match *way {
            way @ 0..3 => (PortId(way as u16), TunnelId::NONE),
            way => (PortId(0), TunnelId(way as u16 - 3)),
        };
        batch.push(packet);
    }
    batch
}

/// The first list alone.
fn filter(rules: &[Match]) -> Filter {
    Filter::new(&[rules.to_vec(), Vec::new(), Vec::new()], &ways()).expect("there is memory")
}

/// The rules that each packet meets, all looked up at once.
fn found_by(filter: &Filter, all: &[(usize, Vec<u8>)]) -> Vec<[Option<usize>; LISTS]> {
    let mut stock = stock();
    let mut batch = batch_of(all, &mut stock);
    // Packets of one family are answered before those of the other.
    batch.iter_mut().zip(0..).for_each(|(packet, at)| packet.adjacency = AdjacencyId(at));
    let mut met = vec![[None; LISTS]; all.len()];
    batch.chunks_mut().for_each(|packets| {
        filter.first(packets, |packet, rules| {
            let rule = |rule| (rule != Filter::NONE).then_some(usize::from(rule));
            met[packet.adjacency.index()] = rules.map(rule);
        });
    });
    batch.drain().for_each(|packet| stock.put(packet));
    met
}

fn found(filter: &Filter, sent: &Sent) -> Option<usize> {
    let [first, none, still_none] = found_by(filter, &[(sent.way, ip(sent))])[0];
    assert_eq!((none, still_none), (None, None), "lists without rules");
    first
}

/// Few values, so that rules and packets meet; with the ends of what is possible among them.
fn port() -> impl Strategy<Value = u16> {
    select(vec![0, 1, 22, 255, 256, 443, 4791, 6000, 6063, 65_535])
}

fn protocol() -> impl Strategy<Value = u8> {
    select(vec![1, 2, 6, 17, 58, 132, 253])
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    select(vec![[10, 0, 0, 1], [10, 0, 1, 1], [10, 66, 3, 4], [198, 18, 0, 255], [223, 255, 255, 255]])
        .prop_map(Ipv4Addr::from)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    select(vec!["2001:db8::1", "2001:db8:0:1::1", "2001:db8:ffff::", "fd00::9"])
        .prop_map(|text| text.parse().expect("an address"))
}

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (v4(), 0..=32_u8).prop_map(|(address, len)| IpNet::new(address.into(), len).expect("a length").trunc());
    let v6 = (v6(), 0..=128_u8).prop_map(|(address, len)| IpNet::new(address.into(), len).expect("a length").trunc());
    prop_oneof![v4, v6]
}

fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
    (port(), port()).prop_map(|(one, other)| one.min(other)..=one.max(other))
}

/// Mostly nothing, else what `strategy` gives.
fn some<T: std::fmt::Debug>(strategy: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Vec<T>> {
    let list = vec(strategy, 1..3);
    prop::option::weighted(0.3, list).prop_map(Option::unwrap_or_default)
}

fn rule() -> impl Strategy<Value = Match> {
    let way = (
        prop::option::weighted(0.2, (0..2_u16).prop_map(Vrf)),
        prop::option::weighted(0.1, (0..3_u16).prop_map(PortId)),
        prop::option::weighted(0.1, (0..2_u16).prop_map(TunnelId)),
        prop::option::weighted(0.1, select(vec![110_u16, 111])),
    );
    let rest = (some(net()), some(net()), some(protocol()), some(range()), some(range()), some(0..4_u8));
    (way, rest, prop::bool::weighted(0.05)).prop_map(|((vrf, interface, tunnel, vlan), rest, cnp)| {
        let (sources, destinations, protocols, source_ports, destination_ports, dscps) = rest;
        Match {
            vrf,
            interface,
            tunnel,
            vlan,
            sources,
            destinations,
            protocols,
            source_ports,
            destination_ports,
            dscps,
            cnp,
        }
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let ends = prop_oneof![
        (v4(), v4()).prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to))),
        (v6(), v6()).prop_map(|(from, to)| (IpAddr::from(from), IpAddr::from(to))),
    ];
    let rest = (protocol(), (port(), port()), 0..4_u8, prop::bool::weighted(0.2), select(vec![0x81_u8, 4]));
    (0..5_usize, ends, rest).prop_map(|(way, (source, destination), rest)| {
        let (protocol, ports, dscp, later_fragment, first_octet) = rest;
        Sent { way, source, destination, protocol, ports, dscp, later_fragment, first_octet }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few rules and many, so that lists share a group, or have several each.
    #[test]
    fn finds_the_first_rule_of_each_list_that_a_scan_finds(
        lists in prop::array::uniform3(prop_oneof![
            4 => vec(rule(), 0..12),
            2 => vec(rule(), 60..130),
            1 => vec(rule(), 250..600),
        ]),
        packets in vec(sent(), 1..60),
    ) {
        let filter = Filter::new(&lists, &ways()).expect("there is memory");
        let frames: Vec<_> = packets.iter().map(|packet| (packet.way, ip(packet))).collect();
        for (packet, found) in packets.iter().zip(found_by(&filter, &frames)) {
            let expected = lists.each_ref().map(|rules| rules.iter().position(|rule| meets(rule, packet)));
            prop_assert_eq!(found, expected, "{:?}", packet);
        }
    }
}

/// Lists that share a group, fill it, and are a rule too long for it: each rule is found at its place, and no other.
#[test]
fn each_rule_is_found_wherever_its_bit_lies() {
    let rule = |port: u16| Match { protocols: vec![17], destination_ports: vec![port..=port], ..Match::default() };
    let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    for (lengths, shared) in [
        ([1, 1, 1], true),
        ([64, 64, 128], true),
        ([65, 64, 64], true),
        ([0, 0, 256], true),
        ([256, 0, 0], true),
        ([65, 64, 65], false),
        ([257, 0, 1], false),
        ([192, 64, 1], false),
    ] {
        let lists = lengths.map(|length| (0..length).map(rule).collect::<Vec<_>>());
        let filter = Filter::new(&lists, &ways()).expect("there is memory");
        assert_eq!(matches!(filter.v4.lists, Lists::Words(_)), shared, "{lengths:?}");
        let sent = |port| Sent {
            way: 0,
            source,
            destination,
            protocol: 17,
            ports: (1, port),
            dscp: 0,
            later_fragment: false,
            first_octet: 0,
        };
        let frames: Vec<_> = (0..260).map(|port| (0, ip(&sent(port)))).collect();
        let found = frames.chunks(Batch::SIZE).flat_map(|frames| found_by(&filter, frames));
        for (port, found) in (0..).zip(found) {
            let expected = lengths.map(|length| (port < length).then_some(usize::from(port)));
            assert_eq!(found, expected, "port {port} of {lengths:?}");
        }
    }
}

fn class(number: u8) -> Class {
    Class::new(number).expect("below 8")
}

/// Both ways of a classifier against a scan: what an access list is asked about, and what comes from a device.
fn assert_classified(rules: Vec<Rule>, marks: Marks, packets: &[Sent]) {
    let classifier = Classifier::new(rules.clone(), Some(marks.clone()), ways()).expect("there is memory");
    let frames: Vec<_> = packets.iter().map(|packet| (packet.way, ip(packet))).collect();
    let owner = |sent| {
        let tenant = marks.tenants.iter().position(|rule| meets(rule, sent)).map_or(0, |at| at as u16 + 1);
        let class = marks.classes.iter().find(|(rule, _)| meets(rule, sent)).map_or(marks.rest, |(_, class)| *class);
        (TenantId(tenant), class)
    };
    let mut stock = stock();
    let mut batch = batch_of(&frames, &mut stock);
    batch.iter_mut().for_each(|packet| packet.adjacency = AdjacencyId(77));
    classifier.mark(&mut batch);
    for (sent, packet) in packets.iter().zip(batch.iter()) {
        assert_eq!((packet.tenant, packet.class), owner(sent), "{sent:?}");
        assert_eq!(packet.adjacency, AdjacencyId(77), "a device's packets have theirs already");
    }
    batch.drain().for_each(|packet| stock.put(packet));

    let (mut exits, mut tally) = (Exits::new(), Tally::new(Room { rules: rules.len(), ..Room::default() }));
    let mut batch = batch_of(&frames, &mut stock);
    classifier.admit(&mut batch, &mut exits, &mut tally);
    let first = |sent: &Sent| rules.iter().position(|rule| meets(&rule.matches, sent));
    let verdict = |sent: &Sent| first(sent).map_or(Action::Permit, |at| rules[at].action).verdict();
    let (let_in, refused): (Vec<_>, Vec<_>) = packets.iter().partition(|sent| verdict(sent).is_ok());
    assert_eq!(
        batch.iter().map(|packet| (packet.tenant, packet.class)).collect::<Vec<_>>(),
        let_in.into_iter().map(owner).collect::<Vec<_>>()
    );
    assert!(batch.iter().all(|packet| packet.adjacency == AdjacencyId::NONE));
    batch.drain().for_each(|packet| stock.put(packet));
    let why: Vec<_> = exits.drain().map(|(packet, exit)| (stock.put(packet), Err(exit)).1).collect();
    assert_eq!(why, refused.into_iter().map(verdict).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_packet_is_let_in_and_is_of_the_first_tenant_and_the_first_class_that_it_meets(
        rules in vec((rule(), select(vec![Action::Permit, Action::Deny, Action::Reject])), 0..12),
        tenants in vec(rule(), 0..12),
        classes in vec((rule(), (0..8_u8).prop_map(class)), 0..12),
        rest in (0..8_u8).prop_map(class),
        packets in vec(sent(), 1..60),
    ) {
        let rules = rules.into_iter().map(|(matches, action)| Rule { matches, action }).collect();
        assert_classified(rules, Marks { tenants, classes, rest, ..Marks::default() }, &packets);
    }
}

/// What the preset makes of what a training cluster sends.
#[test]
fn the_preset_knows_congestion_notifications_rdma_and_the_usual_fields() {
    let qos = crate::config::Qos::gpu_gateway();
    let marks = Marks { classes: qos.rules, rest: qos.rest, ..Marks::default() };
    let classifier = Classifier::new(Vec::new(), Some(marks), ways()).expect("there is memory");
    let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    // Protocol, ports, DSCP, the first octet behind UDP; class.
    for (protocol, ports, dscp, first_octet, class) in [
        (17, (50_000, 4791), 0, 0x81, 0),
        (17, (50_000, 4791), 0, 0x04, 2),
        (17, (50_000, 5000), 26, 0x81, 2),
        (6, (50_000, 179), 0, 0, 0),
        (6, (179, 50_000), 0, 0, 0),
        (17, (500, 500), 0, 0, 0),
        (17, (50_000, 3784), 0, 0, 0),
        (17, (50_000, 5000), 48, 0, 0),
        (17, (50_000, 5000), 46, 0, 1),
        (6, (50_000, 443), 18, 0, 3),
        (6, (50_000, 443), 10, 0, 4),
        (6, (50_000, 443), 0, 0, 5),
        (6, (50_000, 443), 1, 0, 6),
    ] {
        let packet = Sent { way: 0, source, destination, protocol, ports, dscp, later_fragment: false, first_octet };
        let mut stock = stock();
        let mut batch = batch_of(&[(0, ip(&packet))], &mut stock);
        classifier.mark(&mut batch);
        let of: Vec<_> = batch.iter().map(|packet| packet.class.index()).collect();
        assert_eq!(of, [class], "{packet:?}");
        batch.drain().for_each(|packet| stock.put(packet));
    }
}

/// A combination for each rule of each of three things: far too many to be made beforehand.
#[test]
fn too_many_combinations_are_looked_up_apart() {
    let rule = |at: u16| Match {
        protocols: vec![17],
        source_ports: vec![at..=at + 999],
        destination_ports: vec![at * 3..=at * 3 + 2],
        dscps: vec![(at % 64) as u8],
        ..Match::default()
    };
    let rules: Vec<Match> = (0..2000).map(rule).collect();
    let filter = filter(&rules);
    assert!(!filter.is_folded(), "or this tests nothing");
    for (from, to, dscp) in [(1500, 3000, 40), (1500, 3000, 41), (1999, 5999, 15), (0, 0, 0), (999, 0, 0), (1000, 0, 0)]
    {
        let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let packet = Sent {
            way: 0,
            source,
            destination,
            protocol: 17,
            ports: (from, to),
            dscp,
            later_fragment: false,
            first_octet: 0,
        };
        let expected = rules.iter().position(|rule| meets(rule, &packet));
        assert_eq!(found(&filter, &packet), expected, "{packet:?}");
        let rules = rules.iter().map(|matches| Rule { matches: matches.clone(), action: Action::Deny }).collect();
        let tenants = vec![Match { dscps: vec![40, 41], ..Match::default() }];
        let classes = vec![(Match { destination_ports: vec![3000..=3000], ..Match::default() }, class(3))];
        assert_classified(rules, Marks { tenants, classes, rest: class(5), ..Marks::default() }, &[packet]);
    }
}

/// RFC 1858: what a later fragment says where ports would be means nothing.
#[test]
fn a_later_fragment_meets_no_rule_with_ports() {
    let any_port = Match { protocols: vec![6], destination_ports: vec![0..=65_535], ..Match::default() };
    let tcp = Match { protocols: vec![6], ..Match::default() };
    let filter = filter(&[any_port, tcp]);
    let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    let whole = Sent {
        way: 0,
        source,
        destination,
        protocol: 6,
        ports: (1, 2),
        dscp: 0,
        later_fragment: false,
        first_octet: 0,
    };
    assert_eq!(found(&filter, &whole), Some(0));
    assert_eq!(found(&filter, &Sent { later_fragment: true, ..whole }), Some(1));
}

/// Cut before its ports: it has none.
#[test]
fn a_packet_that_ends_before_its_ports_has_none() {
    let rules = [Match { protocols: vec![17], source_ports: vec![0..=65_535], ..Match::default() }];
    let filter = filter(&rules);
    let whole = written(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2), &[]);
    for (len, expected) in [(28, Some(0)), (24, Some(0)), (23, None), (20, None)] {
        let mut header = Ipv4Header::from_slice(&whole).expect("a header").0;
        header.total_len = len;
        header.header_checksum = header.calc_header_checksum();
        let ip = [&header.to_bytes()[..], &whole[20..usize::from(len)]].concat();
        let [first, ..] = found_by(&filter, &[(0, ip)])[0];
        assert_eq!(first, expected, "{len}");
    }
}
