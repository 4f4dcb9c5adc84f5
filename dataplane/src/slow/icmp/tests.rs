use super::*;
use crate::packet::{DropReason, FlowHash};
use crate::testing::{
    AWS_A, CLIENT_MAC, CLIENT_V4, CLIENT_V6, FAR_MAC, LAN, LAN_MAC, LAN_V4, LAN_V6, TUNNEL_MAC, VNI_A, WAN, WAN_V4,
    World, ethernet, framed, raw_v4, tunnel, udp_v4, udp_v6, v6, with_ip, written,
};
use crate::tunnel::Tunnels;
use etherparse::{Icmpv4Slice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;

/// The error that came back to the client: source, type, code, the word behind, and the packet quoted.
struct Heard {
    from: IpAddr,
    kind: u8,
    code: u8,
    rest: u32,
    quoted: Vec<u8>,
}

#[track_caller]
fn heard(frame: &[u8], to: IpAddr) -> Heard {
    assert_eq!(frame[..12], [CLIENT_MAC, LAN_MAC].concat(), "to the client");
    let sliced = SlicedPacket::from_ethernet(frame).expect("a good frame");
    let message = |slice: &[u8], from: IpAddr| Heard {
        from,
        kind: slice[0],
        code: slice[1],
        rest: u32::from_be_bytes(slice[4..8].try_into().expect("four octets")),
        quoted: slice[8..].to_vec(),
    };
    match (sliced.net, sliced.transport) {
        (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
            let header = ip.header();
            assert_eq!((IpAddr::from(header.destination()), header.ttl(), header.slice()[1]), (to, 64, 0xc0));
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert!(icmp.is_checksum_valid_for_test());
            assert!(usize::from(header.total_len()) <= 576, "RFC 1812 §4.3.2.3");
            message(icmp.slice(), header.source().into())
        }
        (Some(etherparse::NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            let header = ip.header();
            assert_eq!((IpAddr::from(header.destination()), header.hop_limit()), (to, 64));
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            assert!(frame.len() - 14 <= 1280, "RFC 4443 §2.4 c");
            message(icmp.slice(), header.source().into())
        }
        other => panic!("{other:?}"),
    }
}

trait Checked {
    fn is_checksum_valid_for_test(&self) -> bool;
}

impl Checked for Icmpv4Slice<'_> {
    /// etherparse computes what it should be.
    fn is_checksum_valid_for_test(&self) -> bool {
        self.icmp_type().calc_checksum(self.payload()) == self.checksum()
    }
}

/// What the client hears about `ip`; `None` if nothing comes back.
fn answer_to(world: &mut World, ip: &[u8]) -> Option<Heard> {
    world.receive(ethernet(ip));
    world.assert_balance();
    let to = if ip[0] >> 4 == 4 { CLIENT_V4.into() } else { v6(CLIENT_V6).into() };
    let mut sent = world.sent(LAN);
    assert!(sent.len() <= 1, "at most one error about a packet");
    sent.pop().map(|frame| heard(&frame, to))
}

fn with_ttl(mut ip: Vec<u8>, ttl: u8) -> Vec<u8> {
    if ip[0] >> 4 == 6 {
        ip[7] = ttl;
        return ip;
    }
    ip[8] = ttl;
    let header = wire::header_mut::<Ipv4>(&mut ip, 0).expect("a header");
    header.checksum = Be16::new(header.computed_checksum(&[]));
    ip
}

fn df(ip: Vec<u8>, set: bool) -> Vec<u8> {
    let mut ip = ip;
    ip[6] = if set { 0x40 } else { 0 };
    let ttl = ip[8];
    with_ttl(ip, ttl)
}

#[test]
fn tells_the_sender_why_in_the_words_of_the_rfcs() {
    #[track_caller]
    fn check(ip: &[u8], reason: DropReason, expected: (u8, u8, u32)) {
        let mut world = World::new();
        let heard = answer_to(&mut world, ip).expect("an error is owed");
        assert_eq!(world.only_drop(), Some(reason));
        assert_eq!((heard.kind, heard.code, heard.rest), expected);
        let (own, quoted) = if ip[0] >> 4 == 4 { (IpAddr::from(LAN_V4), 548) } else { (v6(LAN_V6).into(), 1232) };
        assert_eq!(heard.from, own, "the first address of the interface it came in by");
        assert_eq!(heard.quoted.len(), ip.len().min(quoted));
        assert_eq!(heard.quoted[ip.len().min(40)..], ip[ip.len().min(40)..ip.len().min(quoted)]);
        let totals = world.totals();
        assert_eq!((totals.received, totals.originated, totals.forwarded, totals.icmp_suppressed), (1, 1, 1, 0));
    }
    let far = [198, 51, 100, 77];
    check(&with_ttl(udp_v4(far, b"x"), 1), DropReason::TtlExpired, (11, 0, 0));
    check(&with_ttl(udp_v4(far, &[7; 1_000]), 0), DropReason::TtlExpired, (11, 0, 0));
    check(&udp_v4([9, 9, 9, 9], b"x"), DropReason::NoRoute, (3, 0, 0));
    check(&udp_v4([10, 31, 0, 1], b"x"), DropReason::Unreachable, (3, 0, 0));
    check(&udp_v4([10, 32, 0, 1], b"x"), DropReason::Prohibited, (3, 13, 0));
    check(&udp_v4([10, 33, 0, 1], b"x"), DropReason::NeighbourUnresolved, (3, 1, 0));
    check(&df(udp_v4([10, 37, 0, 1], &[7; 600]), true), DropReason::FragmentationNeeded, (3, 4, 576));
    check(&df(udp_v4([10, 20, 0, 1], &[7; 1_430]), true), DropReason::FragmentationNeeded, (3, 4, 1450));
    check(&with_ttl(udp_v6("2001:db8:100::9", b"x"), 1), DropReason::TtlExpired, (3, 0, 0));
    check(&udp_v6("2001:db8:9999::9", b"x"), DropReason::NoRoute, (1, 0, 0));
    // RFC 8200 §5: nobody is told less, whatever the link is.
    check(&udp_v6("2001:db8:37::9", &[7; 600]), DropReason::PacketTooBig, (2, 0, 1280));
    check(&udp_v6("2001:db8:21::9", &[7; 1_400]), DropReason::PacketTooBig, (2, 0, 1430));
}

#[test]
fn is_silent_where_no_error_may_be_sent() {
    #[track_caller]
    fn check(frame: Vec<u8>, reason: DropReason) {
        let mut world = World::new();
        world.receive(frame);
        world.assert_balance();
        assert_eq!((world.sent(LAN), world.sent(WAN)), (vec![], vec![]));
        assert_eq!(world.only_drop(), Some(reason));
        let totals = world.totals();
        assert_eq!((totals.originated, totals.icmp_suppressed), (0, 0));
    }
    let icmp = |kind: u8| {
        let mut ip = Vec::new();
        let builder = PacketBuilder::ipv4(CLIENT_V4, [9, 9, 9, 9], 64);
        builder.icmpv4_raw(kind, 0, [0; 4]).write(&mut ip, &[0; 28]).expect("it fits");
        ethernet(&ip)
    };
    let icmp6 = |kind: u8| {
        let mut ip = Vec::new();
        let builder = PacketBuilder::ipv6(v6(CLIENT_V6), v6("2001:db8:9999::9"), 64);
        builder.icmpv6_raw(kind, 0, [0; 4]).write(&mut ip, &[0; 48]).expect("it fits");
        ethernet(&ip)
    };
    for kind in [3, 4, 5, 11, 12] {
        check(icmp(kind), DropReason::NoRoute);
    }
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        check(icmp6(kind), DropReason::NoRoute);
    }
    // A question is no error.
    for frame in [icmp(8), icmp(0), icmp(13), icmp6(128), icmp6(129)] {
        let mut world = World::new();
        world.receive(frame);
        assert_eq!((world.totals().originated, world.sent(LAN).len()), (1, 1));
    }
    let cut = raw_v4([9, 9, 9, 9], &[8, 0, 0], |header| header.protocol = etherparse::ip_number::ICMP);
    check(ethernet(&cut), DropReason::NoRoute);
    let later = raw_v4([9, 9, 9, 9], &[0; 64], |header| {
        header.fragment_offset = etherparse::IpFragOffset::try_new(9).expect("13 bits");
    });
    check(ethernet(&later), DropReason::NoRoute);
    check(framed([0xff; 6], CLIENT_MAC, &udp_v4([9, 9, 9, 9], b"x")), DropReason::NoRoute);
    check(framed([1, 0, 0x5e, 0, 0, 9], CLIENT_MAC, &udp_v4([9, 9, 9, 9], b"x")), DropReason::NoRoute);
    check(ethernet(&udp_v4([10, 30, 0, 1], b"x")), DropReason::Blackhole);
    check(ethernet(&udp_v4([240, 0, 0, 1], b"x")), DropReason::MartianDestination);
    let first = raw_v4([9, 9, 9, 9], &[0; 64], |header| header.more_fragments = true);
    assert!(answer_to(&mut World::new(), &first).is_some(), "about a first fragment there is one");
}

#[test]
fn owes_nothing_about_its_own_errors() {
    // The sender of the packet is somewhere that has no route.
    let ip = written(PacketBuilder::ipv4([8, 8, 8, 8], [9, 9, 9, 9], 64).udp(1, 2), b"x");
    let mut world = World::new();
    world.receive(ethernet(&ip));
    world.assert_balance();
    let totals = world.totals();
    assert_eq!((totals.received, totals.originated, totals.dropped(), totals.forwarded), (1, 1, 2, 0));
}

#[test]
fn speaks_from_the_receiving_interface_else_the_leaving_one_else_the_lowest_of_the_vrf_else_not_at_all() {
    #[track_caller]
    fn check(lan: Vec<IpAddr>, wan: Vec<IpAddr>, others: &[IpAddr], expected: Option<IpAddr>) {
        // The sender is behind the router, so the error leaves by wan0.
        let ip = written(PacketBuilder::ipv4([198, 51, 100, 9], [9, 9, 9, 9], 64).udp(1, 2), b"x");
        let mut world = World::with(Limiter::new(1000), |tables| {
            let mut ports: Vec<_> = tables.ports.iter().map(|(_, port)| port.clone()).collect();
            (ports[0].addresses, ports[1].addresses) = (lan, wan);
            tables.ports = crate::tables::Ports::new(ports);
            tables.locals = Default::default();
            others.iter().for_each(|address| tables.locals.insert(Vrf::DEFAULT, *address));
            tables.locals.insert(Vrf(1), IpAddr::from([192, 0, 2, 0]));
        });
        world.receive(ethernet(&ip));
        world.assert_balance();
        let sent = world.sent(WAN);
        let from = sent.first().map(|frame| IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).expect("four octets")));
        assert_eq!(from, expected);
        assert_eq!(world.totals().icmp_suppressed, u64::from(expected.is_none()));
        assert_eq!(world.totals().originated, u64::from(expected.is_some()));
    }
    let (a, b, c, d): ([IpAddr; 2], _, _, _) = (
        [[203, 0, 113, 5].into(), [203, 0, 113, 1].into()],
        IpAddr::from([192, 0, 2, 9]),
        IpAddr::from([192, 0, 2, 77]),
        IpAddr::from([192, 0, 2, 66]),
    );
    let v6_only = vec![v6(LAN_V6).into()];
    check(a.to_vec(), vec![b], &[d], Some(a[0]));
    check([&v6_only[..], &a].concat(), vec![b], &[d], Some(a[0]));
    check(v6_only.clone(), vec![b], &[d], Some(b));
    check(vec![], vec![], &[c, d], Some(d));
    check(vec![], v6_only, &[v6(LAN_V6).into()], None);
    // Link-local addresses mean nothing beyond their link (RFC 3927 §2.7), and would not be forwarded.
    check(vec![[169, 254, 10, 2].into()], vec![b], &[d], Some(b));
}

#[test]
fn speaks_from_the_tunnel_that_the_packet_came_out_of() {
    let inside: IpAddr = [10, 99, 0, 2].into();
    let mut world = World::with(Limiter::new(1000), |tables| {
        let with_address = crate::tunnel::Tunnel { addresses: vec![inside], ..tunnel(AWS_A) };
        tables.tunnels = Tunnels::new(vec![with_address]);
    });
    let inner = written(PacketBuilder::ipv4([10, 20, 0, 9], CLIENT_V4, 1).udp(1, 2), b"x");
    let [_, a, b, c] = VNI_A.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0][..], &framed(TUNNEL_MAC, FAR_MAC, &inner)].concat();
    let outer = PacketBuilder::ipv4(crate::testing::REMOTE_V4, WAN_V4, 64).udp(50_000, wire::Vxlan::PORT);
    world.put(WAN, framed(LAN_MAC, CLIENT_MAC, &written(outer, &payload)));
    world.poll();
    world.assert_balance();
    assert_eq!(world.only_drop(), Some(DropReason::TtlExpired));
    let sent = world.sent(WAN);
    let [frame] = &sent[..] else { panic!("{sent:?}") };
    let back = SlicedPacket::from_ethernet(&frame[50..]).expect("a frame inside the tunnel");
    let Some(etherparse::NetSlice::Ipv4(ip)) = back.net else { panic!("not IPv4") };
    assert_eq!(IpAddr::from(ip.header().source()), inside);
    assert_eq!(ip.header().destination(), [10, 20, 0, 9], "to the inner source, through the tunnel");
}

#[test]
fn sends_so_many_and_counts_those_it_does_not() {
    let mut world = World::with(Limiter::new(10), |_| {});
    for _ in 0..150 {
        world.put(LAN, ethernet(&udp_v4([9, 9, 9, 9], b"x")));
    }
    (0..3).for_each(|_| world.poll());
    assert_eq!((world.totals().originated, world.totals().icmp_suppressed), (BURST, 150 - BURST));
    world.assert_balance();
    world.now = Time(world.now.0 + Time::SECOND / 2);
    for _ in 0..20 {
        world.put(LAN, ethernet(&udp_v4([9, 9, 9, 9], b"x")));
    }
    world.poll();
    assert_eq!(world.totals().originated, BURST + 5);
    let mut off = World::with(Limiter::new(0), |_| {});
    off.receive(ethernet(&udp_v4([9, 9, 9, 9], b"x")));
    assert_eq!((off.totals().originated, off.totals().icmp_suppressed), (0, 1));
}

proptest! {
    /// The bucket's promise: in any stretch of time, at most the burst plus what the rate has earned.
    #[test]
    fn never_admits_more_than_burst_plus_rate(rate in 0..5_000u32, steps in vec(0..20_000_000u64, 1..600)) {
        let mut limiter = Limiter::new(rate);
        let (mut now, mut admitted) = (Time(7), vec![]);
        for step in steps {
            now.0 += step;
            if limiter.admit(now) {
                admitted.push(now);
            }
        }
        for (from, first) in admitted.iter().enumerate().step_by(7) {
            for (to, last) in admitted.iter().enumerate().skip(from) {
                let earned = u128::from(rate) * u128::from(last.0 - first.0) / u128::from(Time::SECOND);
                prop_assert!((to - from) as u128 <= u128::from(BURST) + earned);
            }
        }
    }

    /// Whoever asks less often than the rate allows is never refused.
    #[test]
    fn admits_all_that_is_below_the_rate(rate in 1..100_000u32, count in 1..400u32) {
        let mut limiter = Limiter::new(rate);
        for n in 0..u64::from(count) {
            prop_assert!(limiter.admit(Time(n * Time::SECOND.div_ceil(rate.into()))));
        }
    }

    /// Several have together what one would, but for what rounding up gives each.
    #[test]
    fn shares_are_parts_of_the_whole(rate in 0..5_000u32, workers in 1..64u32, pause in 0..30 * Time::SECOND) {
        let share = Limiter::new(rate).shared_by(workers);
        let admitted = |mut limiter: Limiter| {
            let burst = (0..1_000).filter(|_| limiter.admit(Time(0))).count() as u64;
            burst + (0..200_000).take_while(|_| limiter.admit(Time(pause))).count() as u64
        };
        let (one, all) = (admitted(Limiter::new(rate)), u64::from(workers) * admitted(share));
        // Each may have less than one a second more than its part.
        let rounded = u64::from(workers) * (2 + pause.div_ceil(Time::SECOND));
        prop_assert!(all <= one + rounded, "{} {}", one, all);
        prop_assert!(all + 2 * u64::from(workers) >= one, "{} {}", one, all);
    }

    #[test]
    fn asks_any_octets_whether_an_error_may_be_sent(octets in vec(any::<u8>(), 1..80)) {
        with_ip(0, &octets, |packet| {
            let _parsed = packet.parse(&FlowHash::default());
            may_be_sent_about(packet)
        });
    }
}
