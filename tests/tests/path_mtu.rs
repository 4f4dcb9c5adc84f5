//! What routers of the underlay say of packets that went into a tunnel: the tunnel's MTU follows, for a while, and who
//! had sent the packet hears it.
#![forbid(unsafe_code)]

use dataplane::packet::{DropReason, Time};
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder, icmpv4, icmpv6};
use integration::frames::decode;
use integration::scene::{
    CHUNKS, CLIENT, LAN, MACS, SERVER, Scene, VNI, WAN, answer4, from_client, from_site_a, inside, ipv4, tagged, udp6,
};

/// A router on the way to site a, and one on the way to site b.
const ROUTER: [u8; 4] = [203, 0, 113, 1];
const ROUTER6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Outer IPv4, UDP, VXLAN, inner Ethernet.
const OVERHEAD: u16 = 50;

/// A packet of the client for the server, with DF, so long.
fn packet(length: usize) -> Vec<u8> {
    ipv4(SERVER, length - 20, |header| header.dont_fragment = true)
}

/// The client sends it; what goes into the tunnel, without its Ethernet header.
fn sent(scene: &mut Scene, frame: Vec<u8>) -> Option<Vec<u8>> {
    scene.receive(LAN, frame);
    scene.sent(WAN).map(|frame| frame[14..].to_vec())
}

/// A router tells that an IPv4 packet of ours, of which it quotes so many octets, is lost.
fn error4(kind: Icmpv4Type, outer: &[u8], quoted: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ipv4(ROUTER, [192, 0, 2, 1], 60)
        .icmpv4(kind)
        .write(&mut frame, &outer[..quoted.min(outer.len())])
        .expect("a Vec takes everything");
    frame
}

fn too_big4(mtu: u16, outer: &[u8], quoted: usize) -> Vec<u8> {
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    error4(Icmpv4Type::DestinationUnreachable(needed), outer, quoted)
}

fn error6(kind: Icmpv6Type, outer: &[u8], quoted: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let own = outer[8..24].try_into().expect("an IPv6 header");
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ipv6(ROUTER6, own, 60)
        .icmpv6(kind)
        .write(&mut frame, &outer[..quoted.min(outer.len())])
        .expect("a Vec takes everything");
    frame
}

/// What the client hears: type, code, MTU, and what is quoted.
fn heard(scene: &mut Scene) -> Option<((u8, u8), u16, Vec<u8>)> {
    let ip = decode(&scene.sent(LAN)?).expect("what a gateway makes is right").ip.expect("IP");
    let kind = ip.icmp.expect("ICMP");
    Some((kind, u16::from_be_bytes([ip.payload[6], ip.payload[7]]), ip.payload[8..].to_vec()))
}

/// The greatest packet that goes into the tunnel, as the client learns it.
#[track_caller]
fn mtu(scene: &mut Scene) -> u16 {
    assert_eq!(sent(scene, from_client(&packet(1500))), None);
    let ((kind, code), mtu, _) = heard(scene).expect("an error is owed");
    assert_eq!((kind, code), (3, 4));
    assert!(sent(scene, from_client(&packet(mtu.into()))).is_some(), "{mtu} fit");
    assert_eq!(heard(scene), None);
    mtu
}

#[test]
fn a_narrow_path_lowers_the_mtu_for_ten_minutes_and_the_sender_hears_it_at_once() {
    let mut scene = Scene::new();
    assert_eq!(mtu(&mut scene), 1450);
    let lost = packet(1440);
    let outer = sent(&mut scene, from_client(&lost)).expect("it fits");
    scene.receive(WAN, too_big4(1400, &outer, 548));
    let (kind, mtu_told, quoted) = heard(&mut scene).expect("relayed");
    assert_eq!((kind, mtu_told), ((3, 4), 1400 - OVERHEAD));
    // As it was inside: one hop less.
    assert_eq!((&quoted[..8], quoted[8], &quoted[12..]), (&lost[..8], 63, &lost[12..quoted.len()]));
    let totals = scene.totals();
    assert_eq!((totals.absorbed, totals.originated), (1, 2), "{totals:?}");
    assert_eq!(mtu(&mut scene), 1400 - OVERHEAD);
    // It is not widened by a router further on.
    scene.receive(WAN, too_big4(1420, &outer, 548));
    assert_eq!(heard(&mut scene).map(|(_, mtu, _)| mtu), Some(1400 - OVERHEAD));
    assert_eq!(mtu(&mut scene), 1400 - OVERHEAD);
    scene.pass(Time(590 * Time::SECOND));
    assert_eq!(mtu(&mut scene), 1400 - OVERHEAD);
    scene.pass(Time(11 * Time::SECOND));
    assert_eq!(mtu(&mut scene), 1450);
    scene.close_all();
}

/// Routers need quote no more than eight octets behind the IP header (RFC 792): no VNI, and nothing of the inner packet.
#[test]
fn eight_quoted_octets_are_enough_for_the_mtu_and_too_few_for_the_sender() {
    for (quoted, relayed) in [(28, false), (36, false), (20 + 8 + 8 + 14 + 19, false), (20 + 8 + 8 + 14 + 28, true)] {
        let mut scene = Scene::new();
        let outer = sent(&mut scene, from_client(&packet(1440))).expect("it fits");
        scene.receive(WAN, too_big4(1400, &outer, quoted));
        assert_eq!(heard(&mut scene).is_some(), relayed, "{quoted} quoted");
        assert_eq!(mtu(&mut scene), 1350, "{quoted} quoted");
    }
}

/// What nobody would say of a packet that was lost for its length, or what would cost too much if it were forged.
#[test]
fn what_is_not_credible_is_not_believed() {
    let check = |told: u16, expected: u16| {
        let mut scene = Scene::new();
        let outer = sent(&mut scene, from_client(&packet(1440))).expect("it fits");
        scene.receive(WAN, too_big4(told, &outer, 28));
        assert_eq!(mtu(&mut scene), expected, "told {told}");
        scene.close_all();
    };
    check(1490, 1450); // as long as the packet itself
    check(1489, 1439);
    check(68, 576 - OVERHEAD);
    check(575, 576 - OVERHEAD);
    check(577, 577 - OVERHEAD);
    check(0, 1006 - OVERHEAD); // the plateau below 1490
}

#[test]
fn errors_that_are_not_about_a_tunnels_packet_are_the_hosts() {
    let mut scene = Scene::new();
    let outer = sent(&mut scene, from_client(&packet(1440))).expect("it fits");
    let turned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut outer = outer.clone();
        change(&mut outer);
        too_big4(1400, &outer, 548)
    };
    // Another far end, another port, a later fragment, another protocol; and no error at all.
    for frame in [
        turned(&|outer| outer[19] ^= 1),
        turned(&|outer| outer[23] ^= 1),
        turned(&|outer| outer[9] = IpNumber::TCP.0),
        error4(Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 1 }), &outer, 548),
    ] {
        scene.receive(WAN, frame);
    }
    let totals = scene.totals();
    assert_eq!((totals.punted(), totals.absorbed, totals.dropped()), (4, 0, 0));
    assert_eq!(heard(&mut scene), None);
    assert_eq!(mtu(&mut scene), 1450);
    let mut spoilt = too_big4(1400, &outer, 548);
    spoilt[90] ^= 1;
    let mut scene = Scene::new();
    scene.receive(WAN, spoilt);
    assert_eq!(heard(&mut scene), None);
    assert_eq!(scene.drops_only_for(DropReason::IcmpChecksum).dropped(), 1);
}

/// Over IPv6, in a VRF, with IPv6 inside.
#[test]
fn packet_too_big_is_heard_and_relayed_too() {
    let client = r#"
        [[neighbour]]
        interface = "lan0.110"
        address = "2001:db8:1::10"
        mac = "02:00:00:00:01:01"
    "#;
    let mut scene = Scene::with(client, 1500, CHUNKS, |_| {});
    let lost = udp6(1340);
    let frame = tagged(110, &from_client(&lost));
    let outer = sent(&mut scene, frame.clone()).expect("it fits");
    let too_big = |mtu| Icmpv6Type::PacketTooBig { mtu };
    for unbelieved in [1279, 1458, 70_000] {
        scene.receive(WAN, error6(too_big(unbelieved), &outer, 1000));
        assert_eq!(heard(&mut scene), None, "told {unbelieved}");
        assert!(sent(&mut scene, frame.clone()).is_some(), "told {unbelieved}");
    }
    scene.receive(WAN, error6(too_big(1400), &outer, 1000));
    let (kind, mtu, quoted) = heard(&mut scene).expect("relayed");
    assert_eq!((kind, mtu), ((2, 0), 1400 - 70));
    assert_eq!((&quoted[..7], quoted[7], &quoted[8..]), (&lost[..7], 63, &lost[8..quoted.len()]));
    // From now on our own answer.
    assert_eq!(sent(&mut scene, frame), None);
    assert_eq!(heard(&mut scene).map(|(kind, mtu, _)| (kind, mtu)), Some(((2, 0), 1400 - 70)));
    let unreachable = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Address);
    scene.receive(WAN, error6(unreachable, &outer, 1000));
    assert_eq!(heard(&mut scene).map(|(kind, ..)| kind), Some((1, 3)));
    assert_eq!(scene.drops_only_for(DropReason::PacketTooBig).absorbed, 5);
}

/// RFC 2003 §4.1: to the sender inside, whatever keeps packets from the other end is a host that is not reached.
#[test]
fn what_keeps_packets_from_the_other_end_reaches_their_sender_as_unreachable() {
    use icmpv4::DestUnreachableHeader::{Host, Port};
    use icmpv4::TimeExceededCode::TtlExceededInTransit;
    let mut scene = Scene::new();
    let outer = sent(&mut scene, from_client(&packet(200))).expect("it fits");
    for kind in [
        Icmpv4Type::DestinationUnreachable(Host),
        Icmpv4Type::DestinationUnreachable(Port),
        Icmpv4Type::TimeExceeded(TtlExceededInTransit),
    ] {
        scene.receive(WAN, error4(kind.clone(), &outer, 548));
        assert_eq!(heard(&mut scene).map(|(kind, mtu, _)| (kind, mtu)), Some(((3, 1), 0)), "{kind:?}");
    }
    assert_eq!(mtu(&mut scene), 1450);
}

/// RFC 1812 §4.3.2.7 for the inner packet; and who lets it be cut is not told to send shorter ones.
#[test]
fn nobody_hears_of_what_no_error_may_be_sent_about() {
    let mut scene = Scene::new();
    let mut relayed = |inner: &[u8], told: Option<u16>| {
        let outer = sent(&mut scene, from_client(inner)).expect("it fits");
        scene.receive(
            WAN,
            match told {
                Some(mtu) => too_big4(mtu, &outer, 548),
                None => error4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host), &outer, 548),
            },
        );
        heard(&mut scene).is_some()
    };
    let whole = ipv4(SERVER, 1000, |header| header.dont_fragment = false);
    assert!(!relayed(&whole, Some(900)), "without DF");
    assert!(relayed(&ipv4(SERVER, 600, |_| {}), None));
    let later = ipv4(SERVER, 64, |header| {
        header.fragment_offset = etherparse::IpFragOffset::try_new(8).expect("13 bits");
    });
    assert!(!relayed(&later, None), "a later fragment");
    let mut error = Vec::new();
    PacketBuilder::ipv4(CLIENT, SERVER, 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port))
        .write(&mut error, &[0; 28])
        .expect("a Vec takes everything");
    assert!(!relayed(&error, None), "an ICMP error");
}

/// Anybody can send such errors: so many are listened to in a second.
#[test]
fn a_flood_of_errors_is_listened_to_at_its_rate() {
    let mut scene = Scene::new();
    let outer = sent(&mut scene, from_client(&packet(200))).expect("it fits");
    let error = error4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host), &outer, 548);
    let mut relayed = || {
        (0..300).for_each(|_| scene.receive(WAN, error.clone()));
        let relayed = std::iter::from_fn(|| heard(&mut scene)).count();
        // By then the errors that the gateway may send would be a hundred again, and those that it hears are fifty.
        scene.pass(Time(Time::SECOND / 2));
        relayed
    };
    assert_eq!([relayed(), relayed()], [100, 50]);
    assert_eq!(scene.totals().absorbed, 600);
    scene.close_all();
}

/// The path is that between two addresses, whichever tunnel the packet was in.
#[test]
fn tunnels_between_the_same_ends_share_what_was_heard() {
    let beside = r#"
        [tunnel.beside]
        type = "gre"
        key = 9
        local = "192.0.2.1"
        remote = "198.51.100.7"
        [[route]]
        prefix = "198.18.3.0/24"
        via = [{ tunnel = "beside" }]
    "#;
    let mut scene = Scene::with(beside, 1500, CHUNKS, |_| {});
    let by_gre = ipv4([198, 18, 3, 10], 1440 - 20, |header| header.dont_fragment = true);
    let outer = sent(&mut scene, from_client(&by_gre)).expect("it fits");
    scene.receive(WAN, too_big4(1300, &outer, 28));
    assert_eq!(mtu(&mut scene), 1300 - OVERHEAD);
    assert_eq!(sent(&mut scene, from_client(&by_gre)), None);
    assert_eq!(heard(&mut scene).map(|(kind, mtu, _)| (kind, mtu)), Some(((3, 4), 1300 - 28)));
    // TCP learns it by its MSS, both ways.
    let mut syn = Vec::new();
    PacketBuilder::ipv4(CLIENT, SERVER, 64)
        .tcp(4000, 80, 1, 64_000)
        .syn()
        .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
        .expect("it fits")
        .write(&mut syn, &[])
        .expect("a Vec takes everything");
    scene.receive(LAN, from_client(&syn));
    let out = decode(&scene.sent(WAN).expect("it fits")).expect("right");
    assert_eq!(out.innermost().expect("IP").mss, Some(1300 - OVERHEAD - 40));
    scene.receive(WAN, from_site_a(&integration::frames::vxlan(VNI, &inside(&answer4())), |_| {}));
    assert!(scene.sent(LAN).is_some());
}
