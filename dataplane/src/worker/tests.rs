mod reports;

use super::*;
use crate::io::{Faults, Faulty, Memory, Port};
use crate::packet::{AdjacencyId, PuntReason, TunnelId};
use crate::slow::Limiter;
use crate::stats::{PortTotals, TunnelTotals};
use crate::tables::{Adjacency, Group, Member, Resolution, ReversePath};
use crate::testing::{
    AWS_A, AWS_B, CLIENT_MAC, CLIENT_V4, CLIENT_V6, FAR_MAC, FAR_V4, FAR_V6, LAN, LAN_MAC, LAN_V4, LAN_V6, MTU_A,
    REMOTE_V4, REMOTE_V6, ROUTER_MAC, SITE_A_V4, SITE_A_V6, SITE_B_V4, TAP, TUNNEL_MAC, VLAN, VNI_A, VNI_B, WAN,
    WAN_MAC, WAN_V4, WAN_V6, World, ethernet, framed, outer, raw_v4, ready, to, tunnel_rewrite, udp_v4, udp_v6, umem,
    v6, written,
};
use etherparse::{IpFragOffset, PacketBuilder, SlicedPacket};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Be16, Ipv4, header_mut};

mod crossing;
mod numbers;
mod outstanding;

const ETHERNET: usize = 14;

fn vxlan(id: TunnelId, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = if id == AWS_A { VNI_A } else { VNI_B }.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0], inner].concat();
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, WAN_MAC);
    let with_ip =
        if id == AWS_A { builder.ipv4(REMOTE_V4, WAN_V4, 60) } else { builder.ipv6(v6(REMOTE_V6), v6(WAN_V6), 60) };
    written(with_ip.udp(50_000, wire::Vxlan::PORT), &payload)
}

fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

fn ttl(frame: &[u8]) -> u8 {
    frame[ETHERNET + 8]
}

/// What was received or sent by a port.
fn port(world: &World, port: PortId) -> PortTotals {
    PortTotals::of([world.page()], port)
}

#[test]
fn routes_a_packet_under_a_new_link_header_with_a_hop_less() {
    let mut world = World::new();
    let ip = udp_v4(FAR_V4, b"payload");
    world.receive(ethernet(&ip));
    let sent = world.sent(WAN);
    let [frame] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame[..ETHERNET], framed(ROUTER_MAC, WAN_MAC, &ip)[..ETHERNET]);
    assert_eq!(ttl(frame), 63);
    assert_eq!(frame[ETHERNET + 12..], ip[12..]);
    world.assert_balance();
    let totals = world.totals();
    assert_eq!((totals.received, totals.forwarded, totals.dropped(), totals.punted()), (1, 1, 0, 0));
    let bytes = frame.len() as u64;
    let expected = PortTotals { received_packets: 1, received_bytes: bytes, ..PortTotals::default() };
    assert_eq!(port(&world, LAN), expected);
    let expected = PortTotals { sent_packets: 1, sent_bytes: bytes, ..PortTotals::default() };
    assert_eq!(port(&world, WAN), expected);
    assert_eq!(world.page().adjacency(AdjacencyId(to::ROUTER)), 1);
}

#[test]
fn counts_what_goes_into_a_tunnel_and_what_comes_out() {
    let mut world = World::new();
    let ip = udp_v4(SITE_A_V4, b"payload");
    world.receive(ethernet(&ip));
    world.receive(ethernet(&udp_v6(SITE_A_V6, b"x")));
    assert_eq!(world.sent(WAN).len(), 2);
    let back = framed(TUNNEL_MAC, FAR_MAC, &udp_v4(FAR_V4, b"back"));
    world.put(WAN, vxlan(AWS_A, &back));
    world.poll();
    assert_eq!(world.sent(WAN).len(), 1);
    world.assert_balance();
    let expected = TunnelTotals {
        encapsulated_packets: 2,
        encapsulated_bytes: (ip.len() + 49) as u64,
        decapsulated_packets: 1,
        decapsulated_bytes: back.len() as u64 - 14,
        ..TunnelTotals::default()
    };
    assert_eq!(TunnelTotals::of([world.page()], AWS_A), expected);
    assert_eq!(TunnelTotals::of([world.page()], AWS_B), TunnelTotals::default());
    // What dies inside is the tunnel's drop too.
    world.put(WAN, vxlan(AWS_A, &framed(FAR_MAC, FAR_MAC, &udp_v4(FAR_V4, b"back"))));
    world.poll();
    assert_eq!((TunnelTotals::of([world.page()], AWS_A).dropped, port(&world, WAN).dropped), (1, 1));
}

#[test]
fn takes_tags_off_and_puts_them_on() {
    let mut world = World::new();
    world.receive(tagged(7, &ethernet(&udp_v4(FAR_V4, b"x"))));
    world.receive(tagged(0x6000, &ethernet(&udp_v4(FAR_V4, b"x")))); // priority alone
    world.receive(tagged(8, &ethernet(&udp_v4(FAR_V4, b"x"))));
    assert_eq!(world.only_drop(), Some(DropReason::UnknownVlan));
    assert!(world.sent(WAN).iter().all(|frame| frame[12..14] == [8, 0]));
    assert_eq!((port(&world, LAN).received_packets, port(&world, VLAN).received_packets), (3, 1));
    let ip = udp_v4([10, 36, 0, 1], b"x");
    world.receive(ethernet(&ip));
    let sent = world.sent(LAN);
    assert_eq!(sent[0][..18], tagged(7, &framed(CLIENT_MAC, LAN_MAC, &ip))[..18]);
    assert_eq!(ttl(&sent[0][4..]), 63);
    assert_eq!((port(&world, VLAN).sent_packets, port(&world, LAN).sent_packets), (1, 0));
    world.assert_balance();
}

#[test]
fn hands_the_host_what_is_its_own_with_every_hop() {
    let mut world = World::new();
    world.receive(ethernet(&udp_v4(LAN_V4, b"x")));
    world.receive(ethernet(&udp_v6(LAN_V6, b"x")));
    world.receive(ethernet(&udp_v4([10, 35, 0, 1], b"x")));
    world.put(WAN, vxlan(AWS_A, &framed([0xff; 6], FAR_MAC, &udp_v4(FAR_V4, b"x"))));
    world.poll();
    world.assert_balance();
    let totals = world.totals();
    assert_eq!(totals.punts[PuntReason::Local as usize], 2);
    assert_eq!(totals.punts[PuntReason::KernelRoute as usize], 1);
    assert_eq!(totals.punts[PuntReason::Link as usize], 1);
    assert_eq!((totals.punted(), totals.dropped()), (4, 0));
}

#[test]
fn believes_nobody_who_sends_from_our_addresses() {
    let v4 = written(PacketBuilder::ipv4(WAN_V4, FAR_V4, 9).udp(1, 2), b"x");
    let v6 = written(PacketBuilder::ipv6(v6(LAN_V6), v6(FAR_V6), 9).udp(1, 2), b"x");
    for ip in [v4, v6] {
        let mut world = World::new();
        world.receive(ethernet(&ip));
        assert_eq!(world.only_drop(), Some(DropReason::MartianSource));
        world.assert_balance();
    }
}

#[test]
fn cuts_before_it_encapsulates() {
    let mut world = World::new();
    let ip = raw_v4(SITE_A_V4, &[7; 3_000], |_| {});
    world.receive(ethernet(&ip));
    let sent = world.sent(WAN);
    assert_eq!(sent.len(), 3);
    for frame in &sent {
        assert!(frame.len() <= 1_500 + ETHERNET);
        let outer = SlicedPacket::from_ethernet(frame).expect("a good frame");
        assert!(!outer.is_ip_payload_fragmented(), "the far end has nothing to reassemble outside");
        assert_eq!(ttl(&frame[50..]), 63, "one hop less, not two");
    }
    world.assert_balance();
    assert_eq!((world.totals().originated, world.totals().forwarded), (2, 3));
}

#[test]
fn clamps_the_mss_on_the_way_in_and_on_the_way_out() {
    let syn = |source: [u8; 4], destination: [u8; 4]| {
        let mut tcp = etherparse::TcpHeader::new(1000, 443, 7, 65_535);
        tcp.syn = true;
        tcp.set_options_raw(&[2, 4, 0x05, 0xb4]).expect("four octets");
        let mut octets = Vec::new();
        PacketBuilder::ipv4(source, destination, 64).tcp_header(tcp).write(&mut octets, &[]).expect("it fits");
        octets
    };
    let mss = |ip: &[u8]| u16::from_be_bytes([ip[42], ip[43]]);
    let mut world = World::new();
    world.receive(ethernet(&syn(CLIENT_V4, SITE_A_V4)));
    world.receive(ethernet(&syn(CLIENT_V4, FAR_V4)));
    let sent = world.sent(WAN);
    assert_eq!(mss(&sent[0][64..]), MTU_A - 40, "into the tunnel");
    assert_eq!(mss(&sent[1][14..]), 1460, "past it: as it was");
    world.put(WAN, vxlan(AWS_A, &framed(TUNNEL_MAC, FAR_MAC, &syn(SITE_A_V4, CLIENT_V4))));
    world.put(WAN, vxlan(AWS_B, &framed(TUNNEL_MAC, FAR_MAC, &syn(SITE_B_V4, SITE_A_V4))));
    world.poll();
    assert_eq!(mss(&world.sent(LAN)[0][14..]), MTU_A - 40, "out of the tunnel");
    assert_eq!(mss(&world.sent(WAN)[0][64..]), 1390, "the smaller of both");
}

/// The adjacency is as it was, or waits for its neighbour, from the next round on.
fn set(world: &mut World, id: u32, resolution: Resolution, generation: u32) {
    world.publish(|tables| {
        let id = AdjacencyId(id);
        let adjacency = Adjacency { resolution, generation, ..*tables.adjacencies.at(id) };
        let rewrite = *tables.adjacencies.rewrite(id).expect("it was ready once");
        tables.adjacencies.set(id, adjacency, rewrite);
    });
}

#[test]
fn a_packet_that_waited_is_routed_by_the_tables_of_its_departure_and_loses_one_hop() {
    let mut world = World::new();
    world.worker.lanes[1].sends = false;
    world.receive(ethernet(&udp_v4(SITE_A_V4, b"x")));
    assert_eq!(world.totals().queued, 1);
    world.publish(|tables| {
        let far = Some(([2, 9, 9, 9, 9, 9], TUNNEL_MAC));
        let adjacency = Adjacency { generation: 2, ..ready(WAN, WAN, AWS_A, MTU_A) };
        tables.adjacencies.set(AdjacencyId(to::AWS_A), adjacency, tunnel_rewrite(AWS_A, &outer(AWS_A), far));
    });
    world.worker.lanes[1].sends = true;
    world.poll();
    world.poll();
    let sent = world.sent(WAN);
    assert_eq!(sent[0][50..56], [2, 9, 9, 9, 9, 9], "today's header");
    assert_eq!(ttl(&sent[0][50..]), 63);
    world.assert_balance();
    // Without headers nothing leaves, whatever the generation says.
    world.worker.lanes[1].sends = false;
    world.receive(ethernet(&udp_v4(SITE_A_V4, b"x")));
    let before = world.tables.adjacencies.clone();
    world.publish(|tables| {
        let waiting = Adjacency { generation: 2, ..Adjacency::of(Resolution::Waiting) };
        tables.adjacencies.set(AdjacencyId(to::AWS_A), waiting, wire::Rewrite::empty());
    });
    world.worker.lanes[1].sends = true;
    world.poll();
    world.poll();
    assert_eq!((world.sent(WAN).len(), world.totals().queued), (0, 1), "it waits for the neighbour");
    world.publish(|tables| tables.adjacencies = before);
    world.poll();
    world.poll();
    assert_eq!(ttl(&world.sent(WAN)[0][50..]), 63);
    // And where its way out is gone, it says so.
    world.worker.lanes[1].sends = false;
    world.receive(ethernet(&udp_v4(SITE_A_V4, b"x")));
    world.publish(|tables| {
        tables.adjacencies.set(AdjacencyId(to::AWS_A), Adjacency::of(Resolution::None), wire::Rewrite::empty());
    });
    world.worker.lanes[1].sends = true;
    world.poll();
    assert_eq!(world.only_drop(), Some(DropReason::AdjacencyGone));
    world.assert_balance();
}

/// A ping from the host through the tunnel's device, to another host on the tunnel's link.
fn from_device() -> Vec<u8> {
    framed(
        FAR_MAC,
        TUNNEL_MAC,
        &written(PacketBuilder::ipv4([169, 254, 10, 2], [169, 254, 10, 1], 1).udp(3784, 3784), b"x"),
    )
}

#[test]
fn puts_what_the_host_sends_into_the_tunnel_as_it_is() {
    let arp = [&[0xff; 6][..], &TUNNEL_MAC, &[8, 6], &[1; 28]].concat();
    for frame in [from_device(), arp] {
        let mut world = World::new();
        world.put(TAP, frame.clone());
        world.poll();
        assert_eq!(world.sent(WAN)[0][50..], frame, "no lookup, no hop less");
        world.assert_balance();
    }
}

#[test]
fn what_the_host_sends_is_not_routed_after_waiting_either() {
    let arp = [&[0xff; 6][..], &TUNNEL_MAC, &[8, 6], &[1; 28]].concat();
    for frame in [from_device(), arp] {
        // For the neighbour that leads to the tunnel's other end.
        let mut world = World::new();
        set(&mut world, to::DEVICE_A, Resolution::Waiting, 2);
        world.put(TAP, frame.clone());
        world.poll();
        assert_eq!(world.totals().queued, 1);
        set(&mut world, to::DEVICE_A, Resolution::Ready, 3);
        world.poll();
        world.poll();
        assert_eq!(
            world.sent(WAN).first().map(|sent| sent[50..].to_vec()),
            Some(frame.clone()),
            "{:?}",
            world.totals()
        );
        // In the queue, while the headers changed.
        world.worker.lanes[1].sends = false;
        world.put(TAP, frame.clone());
        world.poll();
        set(&mut world, to::DEVICE_A, Resolution::Ready, 4);
        world.worker.lanes[1].sends = true;
        world.poll();
        world.poll();
        assert_eq!(world.sent(WAN).first().map(|sent| sent[50..].to_vec()), Some(frame), "{:?}", world.totals());
        world.assert_balance();
        assert_eq!(world.totals().dropped(), 0);
    }
}

/// RFC 1812 §4.3.2.7: ARP has no sender that an ICMP error could go to, and groups are not told.
#[test]
fn nobody_is_told_of_what_the_host_sends_that_is_no_packet_to_a_single_host() {
    let arp = [&[0xff; 6][..], &TUNNEL_MAC, &[8, 6], &[10; 28]].concat();
    let unicast_arp = [&FAR_MAC[..], &TUNNEL_MAC, &[8, 6], &[10; 28]].concat();
    let ospf = raw_v4([224, 0, 0, 5], &[2; 44], |h| h.source = [203, 0, 113, 9]);
    let ospf = framed([1, 0, 0x5e, 0, 0, 5], TUNNEL_MAC, &ospf);
    for (frame, originated) in [(arp, 0), (unicast_arp, 0), (ospf, 0), (from_device_of_the_client(), 1)] {
        let mut world = World::new();
        set(&mut world, to::DEVICE_A, Resolution::Failed, 2);
        world.put(TAP, frame);
        world.poll();
        world.poll();
        assert_eq!(world.totals().drops[DropReason::NeighbourUnresolved as usize], 1);
        assert_eq!(world.totals().originated, originated);
        world.assert_balance();
    }
}

fn from_device_of_the_client() -> Vec<u8> {
    framed(FAR_MAC, TUNNEL_MAC, &udp_v4([169, 254, 10, 1], b"x"))
}

#[test]
fn a_port_that_closes_gives_everything_back() {
    let mut world = World::new();
    world.worker.lanes[1].sends = false;
    for _ in 0..5 {
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    }
    world.worker.lanes[1].sends = true;
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    world.poll();
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert_eq!(world.totals().drops[DropReason::PortDown as usize], 6);
    world.assert_balance();
    world.worker.obey(Command::Open(Lane::interface(WAN, 0, Port::Memory(Memory::new()))), now);
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert_eq!(world.sent(WAN).len(), 1);
}

#[test]
fn a_worker_without_ports_has_let_everything_go_and_says_so_at_once() {
    let mut world = World::new();
    world.worker.lanes[1].sends = false;
    world.receive(ethernet(&udp_v4(FAR_V4, b"in a queue")));
    world.receive(ethernet(&udp_v4([10, 34, 0, 1], b"for a neighbour")));
    assert_eq!(world.totals().queued, 2);
    world.worker.lanes[1].sends = true;
    for port in [WAN, TAP, LAN] {
        let now = world.now;
        world.worker.obey(Command::Close(port), now);
        world.assert_balance();
    }
    assert_eq!((world.totals().drops[DropReason::PortDown as usize], world.totals().queued), (2, 0));
}

#[test]
fn what_left_and_is_not_settled_yet_counts_as_queued() {
    let mut world = World::new();
    let frame = world.worker.stock.frames.take().expect("there are some");
    let packet = world.worker.stock.wrap(frame, LAN, false, world.now);
    world.worker.pipeline.tally.received(LAN, 1, 0);
    world.worker.pipeline.exits.push(packet, crate::packet::Exit::Drop(DropReason::NoRoute));
    world.worker.count_waiting();
    assert_eq!(world.totals().queued, 1);
    world.assert_balance();
    world.poll();
    assert_eq!((world.only_drop(), world.totals().queued), (Some(DropReason::NoRoute), 0));
}

#[test]
fn a_receive_without_frames_is_a_counted_drop() {
    let mut world = World::new();
    let mut others = umem().pool(1, 2 * crate::testing::CHUNKS);
    let mut taken = xsk::Frame::empty();
    while let Some(frame) = others.take() {
        taken.chain(frame);
    }
    let left = world.worker.stock.frames.free();
    assert_eq!(left, 0, "nobody has one");
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert_eq!(world.only_drop(), Some(DropReason::NoFrame));
    assert!(world.totals().balances());
    others.put(taken);
    drop(others);
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert_eq!(world.sent(WAN).len(), 1);
    world.assert_balance();
}

/// Frames of every kind that means something to the gateway.
fn frames() -> Vec<(PortId, Vec<u8>)> {
    let mut syn = etherparse::TcpHeader::new(1000, 443, 7, 65_535);
    syn.syn = true;
    syn.set_options_raw(&[1, 2, 4, 0x05, 0xb4, 1, 1, 0]).expect("eight octets");
    let mut tcp = Vec::new();
    PacketBuilder::ipv4(CLIENT_V4, SITE_A_V4, 64).tcp_header(syn).write(&mut tcp, &[]).expect("it fits");
    let mut echo = Vec::new();
    PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), 1)
        .icmpv6_echo_request(1, 1)
        .write(&mut echo, &[5; 9])
        .expect("it fits");
    let options = raw_v4([10, 37, 0, 1], &[7; 900], |header| header.options = [131, 3, 4, 0, 7, 3, 4, 0].into());
    let fragment = raw_v4(SITE_B_V4, &[7; 64], |header| {
        (header.more_fragments, header.fragment_offset) = (true, IpFragOffset::try_new(8).expect("13 bits"));
    });
    let mut extensions = udp_v6(SITE_A_V6, &[0; 40]);
    (extensions[6], extensions[40], extensions[41]) = (0, 60, 0);
    (extensions[48], extensions[49]) = (44, 1);
    extensions[64] = 17;
    let inner_v6 = framed(TUNNEL_MAC, FAR_MAC, &udp_v6(CLIENT_V6, b"x"));
    let arp = [&[0xff; 6][..], &FAR_MAC, &[8, 6], &[1; 28]].concat();
    vec![
        (LAN, ethernet(&udp_v4(FAR_V4, b"x"))),
        (LAN, ethernet(&udp_v4(SITE_B_V4, &[9; 33]))),
        (LAN, ethernet(&udp_v4([9, 9, 9, 9], b"no route"))),
        (LAN, ethernet(&udp_v4([10, 33, 0, 1], b"failed"))),
        (LAN, ethernet(&udp_v4([10, 34, 0, 1], b"waits"))),
        (LAN, ethernet(&udp_v4([203, 0, 113, 77], b"waits too"))),
        (LAN, ethernet(&udp_v6(SITE_A_V6, &[9; 1_401]))),
        (LAN, ethernet(&raw_v4(SITE_A_V4, &[9; 3_500], |_| {}))),
        (LAN, ethernet(&options)),
        (LAN, ethernet(&fragment)),
        (LAN, ethernet(&tcp)),
        (LAN, ethernet(&echo)),
        (LAN, ethernet(&extensions)),
        (LAN, tagged(7, &ethernet(&udp_v4(LAN_V4, b"local")))),
        (WAN, vxlan(AWS_A, &framed(TUNNEL_MAC, FAR_MAC, &udp_v4(CLIENT_V4, b"in")))),
        (WAN, vxlan(AWS_A, &framed(TUNNEL_MAC, FAR_MAC, &tcp))),
        (WAN, vxlan(AWS_B, &inner_v6)),
        (WAN, vxlan(AWS_A, &arp)),
        (TAP, from_device()),
        (TAP, arp),
    ]
}

/// The IPv4 header checksum made right, so that what was changed is looked at further in.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(header) = header_mut::<Ipv4>(&mut frame, ETHERNET)
        && header.version_ihl == 0x45
    {
        header.checksum = Be16::new(header.computed_checksum(&[]));
    }
    frame
}

#[test]
fn every_frame_cut_at_every_octet_is_accounted_for() {
    let mut world = World::new();
    let mut given = 0;
    for (port, frame) in frames() {
        for end in (0..frame.len()).filter(|end| *end < 200 || end % 97 == 0) {
            world.put(port, frame[..end].to_vec());
            world.poll();
            world.sent(LAN);
            world.sent(WAN);
            world.assert_balance();
            given += 1;
        }
        world.now = Time(world.now.0 + 2 * Time::SECOND);
        world.poll();
    }
    assert_eq!(world.totals().received, given);
    assert!(world.totals().drops[DropReason::Truncated as usize] > given / 2);
}

/// A frame of the list, or of nothing in particular, with some octets changed and the end cut off or drawn out.
fn any_frame() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let random = (prop::sample::select(vec![LAN, WAN, TAP]), vec(any::<u8>(), 0..300));
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..5);
    let known =
        (prop::sample::select(frames()), changes, prop::option::of(any::<prop::sample::Index>()), any::<bool>());
    let known = known.prop_map(|((port, mut frame), changes, end, mend)| {
        for (at, octet) in changes {
            // Headers more often than what is in them.
            let at = at.index(frame.len().min(140));
            frame[at] ^= octet;
        }
        if let Some(end) = end {
            frame.resize(end.index(frame.len() + 40), 0xee);
        }
        (port, if mend { mended(frame) } else { frame })
    });
    prop_oneof![1 => random, 9 => known]
}

/// What happens beside the packets.
#[derive(Clone, Copy, Debug)]
enum Event {
    Changes(u32),
    Waits(u32),
    Moves,
    Jams(bool),
    Passes(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let id = prop::sample::select(vec![to::ROUTER, to::CLIENT, to::AWS_A, to::AWS_B, to::DEVICE_A, to::NARROW]);
    prop_oneof![
        id.clone().prop_map(Event::Changes),
        id.prop_map(Event::Waits),
        Just(Event::Moves),
        any::<bool>().prop_map(Event::Jams),
        (0..2 * Time::SECOND).prop_map(Event::Passes),
    ]
}

fn happen(world: &mut World, event: Event, generation: u32) {
    match event {
        Event::Changes(id) => set(world, id, Resolution::Ready, generation),
        Event::Waits(id) => set(world, id, Resolution::Waiting, generation),
        Event::Moves => world.publish(|_| {}),
        Event::Jams(jammed) => world.worker.lanes[1].sends = !jammed,
        Event::Passes(time) => world.now = Time(world.now.0 + time),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever comes, and whatever happens meanwhile: no panic, every packet has one fate, every frame one owner.
    #[test]
    fn whatever_comes_is_accounted_for(
        rounds in vec((vec(any_frame(), 0..20), prop::option::of(any_event())), 1..12), unfinished: bool,
    ) {
        let mut world = World::new();
        if unfinished {
            world.worker.lanes[0].driver = Port::Memory(Memory::unfinished());
        }
        let mut given = 0;
        for (generation, (frames, event)) in rounds.into_iter().enumerate() {
            given += frames.len() as u64;
            frames.into_iter().for_each(|(port, frame)| world.put(port, frame));
            if let Some(event) = event {
                happen(&mut world, event, 2 + generation as u32);
            }
            world.poll();
            world.assert_balance();
        }
        world.worker.lanes[1].sends = true;
        for _ in 0..3 {
            world.now = Time(world.now.0 + 2 * Time::SECOND);
            world.poll();
        }
        world.assert_balance();
        let totals = world.totals();
        prop_assert_eq!((totals.received, totals.queued), (given, 0));
    }
}

/// A ring to worker 1, which is this test: what crosses, and what wakes it.
fn neighbour(world: &mut World) -> (rtrb::Consumer<Packet>, Arc<Doorbell>) {
    let (ring, crossed) = rtrb::RingBuffer::new(8);
    let bell = Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
    world.worker.cross_to(Outbound::new(1, ring, Arc::clone(&bell)));
    (crossed, bell)
}

/// Takes out what crossed, as that worker would.
fn take(world: &mut World, crossed: &mut rtrb::Consumer<Packet>) -> usize {
    let mut count = 0;
    while let Ok(packet) = crossed.pop() {
        let mut place = world.worker.stock.empty();
        *place = packet;
        world.worker.stock.put(place);
        count += 1;
    }
    world.worker.pipeline.tally.crossed_in(count as u64);
    count
}

#[test]
fn packets_that_cross_wake_the_other_worker_if_it_sleeps() {
    let mut world = World::new();
    let (mut crossed, bell) = neighbour(&mut world);
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    world.worker.obey(Command::Cross(WAN, 1), now);
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert!(!bell.wake.drain(), "it is awake, and a system call would be for nothing");
    assert_eq!(take(&mut world, &mut crossed), 1);
    bell.falls_asleep();
    for _ in 0..3 {
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    }
    assert!(bell.wake.drain(), "it sleeps");
    world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
    assert!(!bell.wake.drain(), "it was called already");
    assert_eq!(take(&mut world, &mut crossed), 4);
}

#[test]
fn a_port_that_comes_back_is_crossed_to_again_though_its_receive_queue_here_went() {
    let mut world = World::new();
    let (mut crossed, _bell) = neighbour(&mut world);
    let receives = || {
        let mut lane = Lane::interface(WAN, 1, Port::Memory(Memory::new()));
        lane.can_send = false;
        lane
    };
    let now = world.now;
    for _ in 0..2 {
        world.worker.obey(Command::Close(WAN), now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 0);
        world.worker.obey(Command::Open(receives()), now);
        world.worker.obey(Command::Cross(WAN, 1), now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 1);
        // The queue's device failed: what others send by is not touched.
        world.worker.close(|lane| lane.port == WAN, now);
        world.receive(ethernet(&udp_v4(FAR_V4, b"x")));
        assert_eq!(take(&mut world, &mut crossed), 1);
    }
    assert_eq!(world.totals().drops[DropReason::PortDown as usize], 2);
}

/// With two rings that send, packets of a flow could overtake each other when one is full.
#[test]
fn of_a_ports_lanes_one_sends() {
    let mut world = World::new();
    world.worker.open(Lane::interface(WAN, 1, Port::Memory(Memory::new())));
    let sends = |world: &World| world.worker.lanes.iter().filter(|lane| lane.port == WAN && lane.sends).count();
    assert_eq!(sends(&world), 1);
    let now = world.now;
    world.worker.obey(Command::Close(WAN), now);
    world.worker.open(Lane::interface(WAN, 1, Port::Memory(Memory::new())));
    assert_eq!(sends(&world), 1);
}

/// The numbers of the datagrams of a flow, in the order in which they were sent.
fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|frame| frame[ETHERNET + 28]).collect()
}

#[test]
fn a_flow_keeps_its_order_when_one_of_the_ports_rings_is_full_and_when_it_goes() {
    let mut world = World::new();
    let now = world.now;
    let never = Faults { jam: 1000, ..Faults::default() };
    let jammed = Port::Faulty(Box::new(Faulty::new(Port::Memory(Memory::new()), never, 1)));
    world.worker.obey(Command::Close(WAN), now);
    world.worker.obey(Command::Open(Lane::interface(WAN, 0, jammed)), now);
    world.worker.obey(Command::Open(Lane::interface(WAN, 1, Port::Memory(Memory::new()))), now);
    for number in 0..3 {
        world.receive(ethernet(&udp_v4(FAR_V4, &[number])));
    }
    assert_eq!(world.totals().queued, 3, "they wait for the queue that the flow takes");
    // The first queue goes: what waits takes the other, all of it.
    let first = world.worker.lanes.iter_mut().find(|lane| lane.port == WAN).expect("it was opened");
    first.alive = false;
    world.worker.close(|lane| !lane.alive, now);
    world.receive(ethernet(&udp_v4(FAR_V4, &[3])));
    assert_eq!(numbers(&world.sent(WAN)), [0, 1, 2, 3]);
    world.assert_balance();
}

/// Two workers: what leaves the first by the WAN port crosses to the second, by a ring with so much room.
fn near_and_far(room: usize) -> (World, World) {
    let (mut near, mut far) = (World::new(), World::new());
    let (ring, crossed) = rtrb::RingBuffer::new(room);
    let bell = Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
    near.worker.cross_to(Outbound::new(1, ring, bell));
    far.worker.cross_from(crossed);
    near.peers.push(far.worker.pipeline.tally.page());
    far.peers.push(near.worker.pipeline.tally.page());
    let now = near.now;
    near.worker.obey(Command::Close(WAN), now);
    near.worker.obey(Command::Cross(WAN, 1), now);
    (near, far)
}

/// The first of two workers may sleep by the time its packets arrive at the second.
#[test]
fn what_crosses_is_queued_until_it_arrives_and_not_until_its_sender_looks() {
    let (mut near, mut far) = near_and_far(8);
    (0..3).for_each(|_| near.put(LAN, ethernet(&udp_v4(FAR_V4, b"x"))));
    near.poll();
    assert_eq!((near.totals().queued, near.totals().forwarded), (3, 0));
    assert!(near.totals().balances());
    far.poll();
    assert_eq!((far.sent(WAN).len(), near.totals().queued, near.totals().forwarded), (3, 0, 3));
    assert!(near.totals().balances());
}

/// A card may hash a first fragment by its ports and the rest by addresses alone: they reach two workers.
#[test]
fn fragments_that_reach_two_workers_meet_at_one() {
    let inner = framed(TUNNEL_MAC, FAR_MAC, &udp_v4(FAR_V4, &[7; 600]));
    let whole = vxlan(AWS_A, &inner);
    let (data, middle) = (&whole[ETHERNET + 20..], 320);
    let fragment = |data: &[u8], offset: usize, more| {
        let ip = raw_v4(WAN_V4, data, |header| {
            (header.source, header.protocol) = (REMOTE_V4, etherparse::ip_number::UDP);
            header.fragment_offset = IpFragOffset::try_new(offset as u16 / 8).expect("13 bits");
            header.more_fragments = more;
        });
        framed(WAN_MAC, ROUTER_MAC, &ip)
    };
    let fragments = [fragment(&data[..middle], 0, true), fragment(&data[middle..], middle, false)];
    let mut sent = Vec::new();
    for first in 0..2 {
        let mut workers = [World::new(), World::new()];
        let bell = || Arc::new(Doorbell::new(Arc::new(Wake::new().expect("a descriptor is free"))));
        for (from, to) in [(0, 1), (1, 0)] {
            let (ring, crossed) = rtrb::RingBuffer::new(8);
            workers[from].worker.cross_to(Outbound::new(to, ring, bell()));
            workers[to].worker.cross_from(crossed);
            let page = workers[to].worker.pipeline.tally.page();
            workers[from].peers.push(page);
            workers[from].worker.slow.share(from, 2);
        }
        workers[first].put(WAN, fragments[0].clone());
        workers[1 - first].put(WAN, fragments[1].clone());
        for round in 0..3 {
            workers.iter_mut().for_each(World::poll);
            assert!(workers[0].totals().balances(), "round {round}: {:?}", workers[0].totals());
        }
        let totals = workers[0].totals();
        assert_eq!((totals.received, totals.absorbed, totals.forwarded, totals.queued), (2, 1, 1, 0));
        sent.push(workers.each_mut().map(|world| world.sent(WAN).len()));
    }
    assert!(sent == [[1, 0]; 2] || sent == [[0, 1]; 2], "always the same: {sent:?}");
    // No room on the way there is a loss with a name.
    let mut world = World::new();
    let (mut crossed, _bell) = neighbour(&mut world);
    let owner = usize::from(sent[0] == [0, 1]);
    world.worker.slow.share(1 - owner, 2);
    world.worker.outbound[0].peer = owner;
    for _ in 0..12 {
        world.put(WAN, fragments[1].clone());
        world.poll();
    }
    world.poll();
    assert_eq!((world.totals().drops[DropReason::QueueFull as usize], world.totals().queued), (4, 8));
    assert_eq!(take(&mut world, &mut crossed), 8);
}

/// The gateway of the picture, whose ports check sources; ids 14 and 15 are a link and a group of both ways out.
fn filtering(lan: ReversePath, vlan: ReversePath, wan: ReversePath) -> World {
    World::with(Limiter::new(1_000_000), |tables| {
        let mut ports: Vec<_> = tables.ports.iter().map(|(_, port)| port.clone()).collect();
        for (port, rpf) in [(LAN, lan), (VLAN, vlan), (WAN, wan)] {
            ports[port.index()].rpf = rpf;
        }
        tables.ports = crate::tables::Ports::new(ports);
        let link = Adjacency { egress: LAN, ..Adjacency::of(Resolution::OnLink) };
        tables.adjacencies.set(AdjacencyId(to::LAN_LINK), link, wire::Rewrite::empty());
        let failed = Adjacency { egress: LAN, ..Adjacency::of(Resolution::Failed) };
        tables.adjacencies.set(AdjacencyId(to::FAILED), failed, wire::Rewrite::empty());
        let member = |id, up| Member { id: AdjacencyId(id), identity: id.into(), weight: 1, up };
        let members = [member(to::ROUTER, true), member(to::CLIENT, false)];
        tables.adjacencies.set_group(AdjacencyId(to::NARROW), Arc::new(Group::new(&members)));
    })
}

/// RFC 3704 §2.2 and §2.4, by what the source's route is.
#[test]
fn a_source_must_have_a_route_back_or_that_of_its_port() {
    use DropReason::{MartianSource, ReversePath as Refused};
    use ReversePath::{Loose, Off, Strict};
    // What happens at lan0, strictly and loosely, and strictly at its VLAN.
    let table = [
        (CLIENT_V4, None, None, Some(Refused)),
        (FAR_V4, Some(Refused), None, Some(Refused)),
        (SITE_A_V4, Some(Refused), None, Some(Refused)),
        ([10, 36, 0, 9], Some(Refused), None, None),
        ([10, 33, 0, 9], None, None, Some(Refused)),
        ([10, 34, 0, 9], Some(Refused), None, Some(Refused)),
        ([10, 35, 0, 9], Some(Refused), None, Some(Refused)),
        ([10, 37, 0, 9], None, None, Some(Refused)),
        ([10, 30, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([10, 31, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([10, 32, 0, 9], Some(Refused), Some(Refused), Some(Refused)),
        ([9, 9, 9, 9], Some(Refused), Some(Refused), Some(Refused)),
        (LAN_V4, Some(MartianSource), Some(MartianSource), Some(MartianSource)),
        ([127, 0, 0, 1], Some(MartianSource), Some(MartianSource), Some(MartianSource)),
        // No route is for a link-local source, and none is asked.
        ([169, 254, 1, 1], Some(DropReason::MartianDestination), Some(DropReason::MartianDestination), None),
    ];
    let after = |lan, vlan, frame: Vec<u8>| {
        let mut world = filtering(lan, vlan, Off);
        world.receive(frame);
        world.assert_balance();
        world.only_drop()
    };
    for (source, strict, loose, of_vlan) in &table {
        let frame = ethernet(&raw_v4(FAR_V4, b"x", |header| header.source = *source));
        assert_eq!(after(Strict, Off, frame.clone()), *strict, "{source:?}");
        assert_eq!(after(Loose, Off, frame.clone()), *loose, "{source:?}");
        let of_vlan = if source[0] == 169 { Some(DropReason::MartianDestination) } else { *of_vlan };
        assert_eq!(after(Off, Strict, tagged(7, &frame)), of_vlan, "{source:?}");
        // Another's setting is none of a port's business.
        let martian = |reason: &Option<DropReason>| reason.filter(|reason| *reason != Refused);
        assert_eq!(after(Off, Strict, frame.clone()), martian(strict), "{source:?}");
        assert_eq!(after(Strict, Off, tagged(7, &frame)), martian(strict), "{source:?}");
    }
    for (source, expected) in [(CLIENT_V6, None), (FAR_V6, Some(Refused)), ("2001:db8:ffff::1", Some(Refused))] {
        let ip = written(PacketBuilder::ipv6(v6(source), v6(FAR_V6), 9).udp(1, 2), b"x");
        assert_eq!(after(Strict, Off, ethernet(&ip)), expected, "{source}");
    }
}

/// The tunnel's other end may come this way; whom it speaks for is the tunnel's affair.
#[test]
fn the_outer_source_is_checked_and_not_the_inner_one() {
    let inner = |source| framed(TUNNEL_MAC, FAR_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = source));
    let mut world = filtering(ReversePath::Off, ReversePath::Off, ReversePath::Strict);
    for source in [SITE_A_V4, FAR_V4, [9, 9, 9, 9]] {
        world.put(WAN, vxlan(AWS_A, &inner(source)));
    }
    // In clear, the same is refused: its way back is the tunnel.
    world.put(WAN, framed(WAN_MAC, ROUTER_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = SITE_A_V4)));
    world.put(WAN, framed(WAN_MAC, ROUTER_MAC, &raw_v4(CLIENT_V4, b"x", |header| header.source = FAR_V4)));
    world.poll();
    assert_eq!((world.sent(LAN).len(), world.only_drop()), (4, Some(DropReason::ReversePath)));
    world.assert_balance();
}
