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

mod anything;
mod crossing;
mod numbers;
mod outstanding;
mod reverse_path;
mod rings;

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
