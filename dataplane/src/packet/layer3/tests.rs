use super::*;
use crate::testing::{
    CLIENT_V4, CLIENT_V6, FAR_V4, FAR_V6, octets, raw_v4, udp_v4, udp_v6, v6, with_frame, with_ip, written,
};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::header_mut;

/// Whether parse lets an IP packet pass, or under which name it ends. The frame starts with `before` other octets.
fn parsed(before: usize, ip: &[u8]) -> Result<(), Exit> {
    with_ip(before, ip, |packet| packet.parse(&FlowHash::default()))
}

#[track_caller]
fn check(ip: &[u8], expected: Result<(), DropReason>) {
    for before in [0, 14, 18] {
        assert_eq!(parsed(before, ip), expected.map_err(Exit::Drop), "{ip:02x?}");
    }
}

/// The packet with other octets at some places, and the header checksum right again if it is IPv4.
fn with(ip: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut ip = ip.to_vec();
    for (at, octet) in changes {
        ip[*at] = *octet;
    }
    if changes.iter().all(|(at, _)| *at != 0)
        && let Some(header) = header_mut::<Ipv4>(&mut ip, 0)
        && header.version_ihl == 0x45
    {
        header.checksum = Be16::new(header.computed_checksum(&[]));
    }
    ip
}

#[test]
fn asks_of_ipv4_what_rfc_1812_asks() {
    let good = udp_v4(FAR_V4, b"12345678");
    check(&good, Ok(()));
    check(&with(&good, &[(0, 0x55)]), Err(BadVersion));
    // Announced as IPv4 by the link layer, whatever it says itself.
    let liar = with(&good, &[(0, 0x65)]);
    let seen = with_ip(14, &liar, |packet| {
        packet.family = Family::V4;
        packet.parse(&FlowHash::default())
    });
    assert_eq!(seen, Err(Exit::Drop(BadVersion)));
    check(&with(&good, &[(0, 0x44)]), Err(BadHeaderLength));
    check(&with(&good, &[(0, 0x40)]), Err(BadHeaderLength));
    check(&with(&good, &[(0, 0x46)]), Err(BadChecksum)); // an octet more belongs to the header, and its sum is wrong
    check(&with(&good, &[(0, 0x4f)]), Err(BadLength)); // 60 octets of header in a packet of 36
    check(&with(&good, &[(2, 0), (3, 19)]), Err(BadLength));
    check(&with(&good, &[(2, 0), (3, 20)]), Ok(()));
    check(&with(&good, &[(2, 0), (3, 37)]), Err(Truncated));
    check(&with(&good, &[(2, 0xff), (3, 0xff)]), Err(Truncated));
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    check(&flipped, Err(BadChecksum));
    for bit in 0..160 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(parsed(14, &flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn asks_of_ipv6_what_rfc_8200_asks() {
    let good = udp_v6(FAR_V6, b"12345678");
    check(&good, Ok(()));
    with_ip(14, &with(&good, &[(0, 0x40)]), |packet| {
        packet.family = Family::V6;
        assert_eq!(packet.parse(&FlowHash::default()), Err(Exit::Drop(BadVersion)));
    });
    check(&with(&good, &[(5, 17)]), Err(Truncated));
    check(&with(&good, &[(4, 0xff)]), Err(Truncated));
    check(&with(&good, &[(5, 0)]), Ok(()));
    check(&with(&good, &[(6, protocol::NO_NEXT)]), Ok(()));
}

#[test]
fn names_what_is_cut_at_any_octet_truncated() {
    let options = raw_v4(FAR_V4, &[0; 20], |header| header.options = [7, 3, 4, 0].into());
    let chain = [&extension(60, 0)[..], &extension(6, 8)].concat();
    for whole in [udp_v4(FAR_V4, b"123"), options, udp_v6(FAR_V6, b"123"), v6_with(0, &chain, &[0; 20])] {
        check(&whole, Ok(()));
        for end in 1..whole.len() {
            check(&whole[..end], Err(Truncated));
        }
    }
    check(&[], Err(Truncated));
}

#[test]
fn refuses_addresses_that_nobody_may_send_from_or_to() {
    let v4 =
        |source: [u8; 4], destination: [u8; 4]| written(PacketBuilder::ipv4(source, destination, 9).udp(1, 2), b"x");
    for martian in
        [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [127, 255, 255, 255], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]]
    {
        check(&v4(martian, FAR_V4), Err(MartianSource));
        check(&v4(CLIENT_V4, martian), Err(MartianDestination));
    }
    for ordinary in
        [[1, 0, 0, 0], [10, 1, 1, 1], [100, 64, 0, 1], [126, 0, 0, 1], [128, 0, 0, 1], [192, 0, 2, 1], [223, 1, 1, 1]]
    {
        check(&v4(ordinary, FAR_V4), Ok(()));
        check(&v4(CLIENT_V4, ordinary), Ok(()));
    }
    let v6 =
        |source: &str, destination: &str| written(PacketBuilder::ipv6(v6(source), v6(destination), 9).udp(1, 2), b"x");
    for martian in ["::", "::1", "ff00::", "ff02::1", "ffff::1"] {
        check(&v6(martian, FAR_V6), Err(MartianSource));
        check(&v6(CLIENT_V6, martian), Err(MartianDestination));
    }
    for ordinary in ["::2", "64:ff9b::1", "2001:db8::", "fc00::1", "feff::1"] {
        check(&v6(ordinary, FAR_V6), Ok(()));
        check(&v6(CLIENT_V6, ordinary), Ok(()));
    }
}

#[test]
fn marks_link_local_addresses_and_no_others() {
    let marked = |ip: &[u8]| {
        with_ip(0, ip, |packet| packet.parse(&FlowHash::default()).map(|()| packet.traits.has(Traits::LINK_LOCAL)))
    };
    let v4 = |to| udp_v4(to, b"x");
    assert_eq!(marked(&v4([169, 254, 0, 1])), Ok(true));
    assert_eq!(marked(&v4([169, 253, 255, 255])), Ok(false));
    assert_eq!(marked(&v4([169, 255, 0, 0])), Ok(false));
    assert_eq!(marked(&udp_v6("fe80::1", b"x")), Ok(true));
    assert_eq!(marked(&udp_v6("febf::1", b"x")), Ok(true));
    assert_eq!(marked(&udp_v6("fec0::1", b"x")), Ok(false));
    assert_eq!(marked(&udp_v6("fe7f::1", b"x")), Ok(false));
    let from = written(PacketBuilder::ipv4([169, 254, 9, 9], FAR_V4, 9).udp(1, 2), b"x");
    assert_eq!(marked(&from), Ok(true));
    let from = written(PacketBuilder::ipv6(v6("fe80::9"), v6(FAR_V6), 9).udp(1, 2), b"x");
    assert_eq!(marked(&from), Ok(true));
}

#[test]
fn cuts_off_what_stands_behind_the_packet() {
    for ip in [udp_v4(FAR_V4, b"1"), udp_v6(FAR_V6, b"1")] {
        with_ip(14, &[&ip[..], &[0xee; 17]].concat(), |packet| {
            assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            assert_eq!(packet.frame.total(), 14 + ip.len());
            assert_eq!(packet.len as usize, ip.len());
        });
    }
    // Also where it begins in another chunk.
    let ip = udp_v4(FAR_V4, &[7; 100]);
    with_frame(&[&ip[..60], &[&ip[60..], &[0xee; 9]].concat(), &[0xee; 5]], |packet| {
        packet.family = Family::V4;
        packet.l3 = 0;
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        assert_eq!(octets(packet), ip);
    });
}

/// A header of the common form: next header, length in units of 8 octets less one, and padding.
fn extension(next: u8, more: usize) -> Vec<u8> {
    let mut octets = vec![0; 8 + more];
    (octets[0], octets[1]) = (next, (more / 8) as u8);
    octets
}

fn fragment(next: u8, offset_more: u16) -> Vec<u8> {
    let [high, low] = offset_more.to_be_bytes();
    vec![next, 0, high, low, 0, 0, 0, 9]
}

fn v6_with(next: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let payload = [extensions, payload].concat();
    let mut ip = written(PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), 64).udp(1, 2), &[]);
    ip.truncate(Ipv6::SIZE);
    ip[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    ip[6] = next;
    [ip, payload].concat()
}

/// What stands behind the chain: protocol, where, and which of the traits of fragments.
#[track_caller]
fn check_chain(next: u8, extensions: &[u8], expected: (u8, usize, u8)) {
    let ip = v6_with(next, extensions, &[0; 20]);
    with_ip(14, &ip, |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        assert_eq!((packet.protocol, usize::from(packet.l4) - 14 - Ipv6::SIZE), (expected.0, expected.1));
        for bit in [Traits::FRAGMENT, Traits::LATER_FRAGMENT] {
            assert_eq!(packet.traits.has(bit), expected.2 & bit != 0, "bit {bit:#x}");
        }
        assert_eq!(octets(packet)[14..], ip, "forwarded untouched");
    });
}

#[test]
fn follows_extension_headers_to_the_transport() {
    let (tcp, udp) = (protocol::TCP, protocol::UDP);
    check_chain(udp, &[], (udp, 0, 0));
    check_chain(0, &extension(udp, 0), (udp, 8, 0));
    check_chain(60, &extension(tcp, 16), (tcp, 24, 0));
    check_chain(0, &[extension(60, 8), extension(43, 0), extension(135, 0), extension(udp, 0)].concat(), (udp, 40, 0));
    check_chain(50, &extension(udp, 0), (50, 0, 0)); // what is encrypted has no next header to be read
    check_chain(0, &extension(protocol::NO_NEXT, 0), (protocol::NO_NEXT, 8, 0));
    // A first fragment has its transport header, a later one has not; an atomic one (RFC 6946) is whole.
    let first = Traits::FRAGMENT;
    check_chain(44, &fragment(udp, 0x0001), (udp, 8, first));
    check_chain(44, &fragment(udp, 0x0008), (udp, 8, first | Traits::LATER_FRAGMENT));
    check_chain(44, &fragment(udp, 0x0000), (udp, 8, 0));
    check_chain(44, &fragment(udp, 0x0006), (udp, 8, 0)); // reserved bits say nothing
    check_chain(44, &[fragment(60, 0x0000), extension(udp, 0)].concat(), (udp, 16, 0));
    check_chain(44, &[fragment(60, 0x0010), extension(udp, 0)].concat(), (60, 8, first | Traits::LATER_FRAGMENT));
    // Longer than the packet, or longer than anyone follows: no transport that we know.
    check_chain(0, &[60, 255, 0, 0, 0, 0, 0, 0], (protocol::NO_NEXT, 2048, 0));
    let eight = extension(60, 0).repeat(9);
    check_chain(60, &eight, (protocol::NO_NEXT, 64, 0));
}

#[test]
fn keeps_options_where_they_are() {
    let options = [148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
    let ip = raw_v4(FAR_V4, b"payload", |header| header.options = options.into());
    let now = with_ip(14, &ip, |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        assert_eq!(packet.l4, 14 + 32);
        assert_eq!(packet.decrement_ttl(), Ok(()));
        octets(packet)
    });
    assert_eq!(now[14 + 20..14 + 32], options);
    assert_eq!(parsed(0, &now[14..]), Ok(()), "the checksum over the options is right");
    let mut bad = ip.clone();
    bad[25] ^= 0x10;
    check(&bad, Err(BadChecksum));
}

#[test]
fn marks_fragments_and_what_may_not_be_cut() {
    #[track_caller]
    fn check(fragment: u16, expected: [bool; 3]) {
        let mut ip = udp_v4(FAR_V4, b"12345678");
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        with_ip(0, &with(&ip, &[(8, 64)]), |packet| {
            assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            let traits = [Traits::FRAGMENT, Traits::LATER_FRAGMENT, Traits::DONT_FRAGMENT];
            assert_eq!(traits.map(|bit| packet.traits.has(bit)), expected, "{fragment:#06x}");
        });
    }
    check(0x0000, [false, false, false]);
    check(0x4000, [false, false, true]);
    check(0x8000, [false, false, false]);
    check(0x2000, [true, false, false]);
    check(0x2001, [true, true, false]);
    check(0x0001, [true, true, false]);
    check(0x1fff, [true, true, false]);
    with_ip(0, &udp_v6(FAR_V6, b"1"), |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        assert!(packet.traits.has(Traits::DONT_FRAGMENT), "no router fragments IPv6");
    });
}

/// A packet with a random but legal shape: what etherparse builds for these numbers.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let shape = (any::<bool>(), any::<bool>(), vec(any::<u8>(), 0..120), any::<[u16; 2]>(), 0..8usize, 1..=255u8);
    shape.prop_map(|(is_v6, tcp, payload, [from, to], options, ttl)| {
        let mut octets = Vec::new();
        let builder = if is_v6 {
            PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), ttl)
        } else {
            let mut header = etherparse::Ipv4Header::new(0, ttl, etherparse::ip_number::UDP, CLIENT_V4, FAR_V4)
                .expect("no payload yet");
            header.options = vec![1; 4 * options].as_slice().try_into().expect("at most 28 octets");
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        };
        if tcp {
            builder.tcp(from, to, 1, 2).write(&mut octets, &payload).expect("it fits");
        } else {
            builder.udp(from, to).write(&mut octets, &payload).expect("it fits");
        }
        octets
    })
}

/// Where the transport header starts, its checksum, and the full computation of it.
fn transport(ip: &[u8]) -> (usize, u16, u16) {
    let sliced = SlicedPacket::from_ip(ip).expect("a good packet");
    let net = sliced.net.expect("it is IP");
    let at = |slice: &[u8]| slice.as_ptr() as usize - ip.as_ptr() as usize;
    let full = |v4: &dyn Fn([u8; 4], [u8; 4]) -> u16, v6: &dyn Fn([u8; 16], [u8; 16]) -> u16| match &net {
        NetSlice::Ipv4(ip) => v4(ip.header().source(), ip.header().destination()),
        NetSlice::Ipv6(ip) => v6(ip.header().source(), ip.header().destination()),
        NetSlice::Arp(_) => unreachable!("it is IP"),
    };
    match sliced.transport.expect("TCP or UDP") {
        TransportSlice::Tcp(tcp) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let full = full(&|s, d| header.calc_checksum_ipv4_raw(s, d, payload).expect("it fits"), &|s, d| {
                header.calc_checksum_ipv6_raw(s, d, payload).expect("it fits")
            });
            (at(tcp.slice()), tcp.checksum(), full)
        }
        TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let full = full(&|s, d| header.calc_checksum_ipv4_raw(s, d, payload).expect("it fits"), &|s, d| {
                header.calc_checksum_ipv6_raw(s, d, payload).expect("it fits")
            });
            (at(udp.slice()), udp.checksum(), full)
        }
        other => unreachable!("{other:?}"),
    }
}

/// Writes into the checksum field what Linux leaves there for hardware: the pseudo-header's sum.
fn leave_unfinished(ip: &mut [u8]) {
    let (at, ..) = transport(ip);
    let (protocol, length) = if ip[0] >> 4 == 4 { (ip[9], ip.len() - at) } else { (ip[6], ip.len() - at) };
    let mut sum = 0u32;
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    for pair in addresses.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    sum += u32::from(protocol) + length as u32;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let field = at + if protocol == protocol::TCP { 16 } else { 6 };
    ip[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

fn parse_unfinished(chunks: &[&[u8]]) -> Vec<u8> {
    with_frame(chunks, |packet| {
        packet.l3 = 0;
        packet.family = if chunks[0][0] >> 4 == 4 { Family::V4 } else { Family::V6 };
        packet.traits.set(Traits::UNFINISHED);
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        octets(packet)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn reads_a_packet_as_etherparse_does(ip in any_packet(), before in (0..10usize).prop_map(|half| 2 * half)) {
        let (l4, ..) = transport(&ip);
        let protocol = if ip[0] >> 4 == 4 { ip[9] } else { ip[6] };
        with_ip(before, &ip, |packet| {
            prop_assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            prop_assert_eq!((packet.protocol, usize::from(packet.l4)), (protocol, before + l4));
            prop_assert_eq!(packet.len as usize, ip.len());
            prop_assert_eq!(&octets(packet)[before..], &ip[..]);
            Ok(())
        })?;
    }

    #[test]
    fn finishes_a_checksum_that_was_left_to_hardware(ip in any_packet(), cuts in vec(any::<prop::sample::Index>(), 0..3)) {
        let mut unfinished = ip.clone();
        leave_unfinished(&mut unfinished);
        // Headers stand in the first chunk; the rest lies in pieces, odd ones too.
        let headers = transport(&ip).0 + 20;
        let mut at: Vec<_> = cuts.iter().map(|cut| headers.min(ip.len()) + cut.index(ip.len().saturating_sub(headers) + 1)).collect();
        at.extend([0, ip.len()]);
        at.sort_unstable();
        let chunks: Vec<_> = at.windows(2).map(|ends| &unfinished[ends[0]..ends[1]]).collect();
        let finished = parse_unfinished(&chunks);
        let (_, found, full) = transport(&finished);
        // RFC 768: a UDP checksum of zero is sent as all ones.
        let udp = [ip[9], ip[6]][usize::from(ip[0] >> 4 == 6)] == protocol::UDP;
        prop_assert_eq!(found, if full == 0 && udp { 0xffff } else { full });
        prop_assert_eq!(&finished, &ip, "and nothing else has changed");
    }

    #[test]
    fn leaves_a_finished_checksum_as_it_is(ip in any_packet(), wrong in any::<bool>()) {
        let mut ip = ip;
        if wrong {
            // Damage on the way is for the receiver to find.
            *ip.last_mut().expect("not empty") ^= 0x55;
        }
        prop_assert_eq!(parse_unfinished(&[&ip]), ip);
    }

    #[test]
    fn a_hop_less_leaves_the_checksum_right(ip in any_packet()) {
        with_ip(14, &ip, |packet| {
            prop_assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            let ttl = if ip[0] >> 4 == 4 { ip[8] } else { ip[7] };
            if ttl <= 1 {
                prop_assert_eq!(packet.decrement_ttl(), Err(Exit::Drop(TtlExpired)));
                prop_assert_eq!(&octets(packet)[14..], &ip[..], "an error quotes it as it came");
            } else {
                prop_assert_eq!(packet.decrement_ttl(), Ok(()));
                let now = &octets(packet)[14..];
                prop_assert_eq!(if ip[0] >> 4 == 4 { now[8] } else { now[7] }, ttl - 1);
                if let Some(header) = packet.ipv4() {
                    let options = &now[20..header.header_length()];
                    prop_assert_eq!(header.checksum.value(), header.computed_checksum(options));
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn never_panics_whatever_the_octets(octets in vec(any::<u8>(), 0..200), before in 0..30usize, unfinished: bool) {
        with_ip(before, &octets, |packet| {
            if unfinished {
                packet.traits.set(Traits::UNFINISHED);
            }
            if packet.parse(&FlowHash::default()).is_ok() {
                packet.clamp_mss(576);
                let _left = packet.decrement_ttl();
            }
        });
    }

    #[test]
    fn clamps_the_mss_wherever_it_stands(
        is_v6: bool, ack: bool, before in 0..8usize, after in 0..8usize, mss: u16, mtu in 68..=9_000u16, payload in vec(any::<u8>(), 0..9),
    ) {
        let options = [vec![1; before], vec![2, 4], mss.to_be_bytes().to_vec(), vec![1; after]].concat();
        let ip = syn(is_v6, ack, &options, &payload);
        let limit = mtu.saturating_sub(if is_v6 { 60 } else { 40 });
        let now = clamped(&ip, mtu);
        let at = if is_v6 { 40 } else { 20 } + 20 + before + 2;
        prop_assert_eq!(u16::from_be_bytes([now[at], now[at + 1]]), mss.min(limit));
        let (_, found, full) = transport(&now);
        prop_assert_eq!(found, full);
        let mut expected = ip;
        expected[at..at + 2].copy_from_slice(&mss.min(limit).to_be_bytes());
        let checksum = if is_v6 { 40 } else { 20 } + Tcp::CHECKSUM_AT;
        expected[checksum..checksum + 2].copy_from_slice(&found.to_be_bytes());
        prop_assert_eq!(now, expected, "and nothing else has changed");
    }
}

/// RFC 768: a zero in the field would say that there is no checksum.
#[test]
fn sends_a_udp_checksum_of_zero_as_all_ones() {
    for build in [|payload: &[u8]| udp_v4(FAR_V4, payload), |payload: &[u8]| udp_v6(FAR_V6, payload)] {
        // The two octets that bring the sum to all ones are the checksum of the packet that has zeros there.
        let (_, complement, _) = transport(&build(&[0; 2]));
        let mut ip = build(&complement.to_be_bytes());
        leave_unfinished(&mut ip);
        assert_eq!(transport(&parse_unfinished(&[&ip])).1, 0xffff);
    }
}

fn syn(is_v6: bool, ack: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(1000, 443, 7, 65_535);
    (tcp.syn, tcp.ack) = (true, ack);
    tcp.set_options_raw(options).expect("at most 40 octets");
    tcp_with(is_v6, tcp, payload)
}

fn tcp_with(is_v6: bool, tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let builder = if is_v6 {
        PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), 64)
    } else {
        PacketBuilder::ipv4(CLIENT_V4, FAR_V4, 64)
    };
    builder.tcp_header(tcp).write(&mut octets, payload).expect("it fits");
    octets
}

fn clamped(ip: &[u8], mtu: u16) -> Vec<u8> {
    with_ip(0, ip, |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        packet.clamp_mss(mtu);
        octets(packet)
    })
}

#[test]
fn clamps_nothing_but_the_mss_of_a_syn() {
    #[track_caller]
    fn untouched(ip: &[u8], mtu: u16) {
        assert_eq!(clamped(ip, mtu), ip);
    }
    let mss = [2, 4, 0x05, 0xb4];
    assert_ne!(clamped(&syn(false, false, &mss, &[]), 1000), syn(false, false, &mss, &[]), "this one is clamped");
    assert_ne!(clamped(&syn(false, true, &mss, &[]), 1000), syn(false, true, &mss, &[]), "and a SYN-ACK");
    untouched(&syn(false, false, &mss, &[]), 0); // off
    untouched(&syn(false, false, &mss, &[]), 1500); // as low already
    untouched(&syn(true, false, &mss, &[]), 1520);
    untouched(&syn(false, false, &[], &[]), 1000);
    untouched(&syn(false, false, &[3, 3, 7], &[]), 1000);
    untouched(&syn(false, false, &[0, 2, 4, 0x05, 0xb4], &[]), 1000); // behind the end of options
    untouched(&syn(false, false, &[2, 3, 0x05, 0xb4], &[]), 1000); // of the wrong length
    untouched(&syn(false, false, &[3, 9, 2, 4, 0x05, 0xb4], &[]), 1000); // inside another option
    untouched(&syn(false, false, &[1, 1, 2, 4], &[]), 1000); // cut
    let mut plain = TcpHeader::new(1000, 443, 7, 65_535);
    plain.ack = true;
    plain.set_options_raw(&mss).expect("at most 40 octets");
    untouched(&tcp_with(false, plain, b"data"), 1000);
    untouched(&udp_v4(FAR_V4, &[2; 40]), 100);
    // A later fragment has payload where a TCP header would be.
    let mut fragment = syn(false, false, &mss, &[]);
    fragment[7] = 1;
    untouched(&with(&fragment, &[(8, 64)]), 1000);
    // A data offset beyond the packet.
    let mut beyond = syn(false, false, &mss, &[]);
    beyond[32] = 0xf2;
    untouched(&beyond, 1000);
}

#[test]
fn what_does_not_fit_is_cut_or_answered() {
    #[track_caller]
    fn check(ip: &[u8], mtu: u16, expected: Result<(), Exit>) {
        with_ip(0, ip, |packet| {
            assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            assert_eq!(packet.fits(mtu), expected, "{} into {mtu}", packet.len);
        });
    }
    let (v4, v6) = (udp_v4(FAR_V4, &[0; 100]), udp_v6(FAR_V6, &[0; 100]));
    let df = with(&v4, &[(6, 0x40)]);
    let free = with(&v4, &[(6, 0)]);
    check(&df, 128, Ok(()));
    check(&df, 127, Err(Exit::Drop(FragmentationNeeded)));
    check(&free, 128, Ok(()));
    check(&free, 127, Err(Exit::Fragment));
    check(&v6, 148, Ok(()));
    check(&v6, 147, Err(Exit::Fragment)); // every link has to carry it (RFC 8200 §5)
    let least = udp_v6(FAR_V6, &[0; 1232]);
    check(&least, 1279, Err(Exit::Fragment));
    check(&udp_v6(FAR_V6, &[0; 1233]), 1280, Err(Exit::Drop(PacketTooBig)));
}
