use super::*;
use crate::packet::{Origin, PortId, Time};
use crate::testing::{
    AWS_A, AWS_B, CLIENT_V4, FAR_MAC, LAN_MAC, REMOTE_V4, REMOTE_V6, ROUTER_MAC, SITE_A_V4, SITE_A_V6, TUNNEL_MAC,
    VNI_A, WAN_MAC, WAN_V4, WAN_V6, framed, kind, octets, outer, raw_v4, tunnel, tunnel_rewrite, udp_v4, udp_v6, v6,
    with_frame, with_ip, written,
};
use DropReason::{EcnNotCapable, MartianSource, NotIp, NotOurMac, SpoofedSource};
use DropReason::{NoLocalPath, TunnelChecksum, TunnelHeader, TunnelTruncated, UnknownVni};
use etherparse::{IpFragOffset, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::{EtherType, Follows, Rewrite, header_mut};

const ETHERNET: usize = 14;

/// The frame that leaves when `ip`, received behind an Ethernet header, goes into a tunnel with this outer header.
fn encapsulated(outer: &Outer, ip: &[u8], identification: &mut Identification) -> Vec<u8> {
    let id = if outer.ends.family() == Family::V4 { AWS_A } else { AWS_B };
    let rewrite = tunnel_rewrite(id, outer, Some((FAR_MAC, TUNNEL_MAC)));
    with_ip(ETHERNET, ip, |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        assert_eq!(apply(&rewrite, packet, identification), Ok(()));
        octets(packet)
    })
}

/// What etherparse reads of a frame, and the frame inside.
struct Seen {
    tos: u8,
    ttl: u8,
    /// Identification and DF of IPv4, flow label of IPv6.
    id: u16,
    df: bool,
    label: u32,
    source_port: u16,
    udp_checksum: u16,
    inner: Vec<u8>,
}

/// Reads the frame strictly: etherparse checks every length, and here every checksum is computed again.
#[track_caller]
fn decoded(frame: &[u8], from: IpAddr, to: IpAddr) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a good frame");
    assert_eq!(frame[..12], [ROUTER_MAC, WAN_MAC].concat());
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP: {sliced:?}") };
    assert_eq!(udp.destination_port(), wire::Vxlan::PORT);
    assert_eq!(usize::from(udp.length()), udp.slice().len(), "the UDP length is that of the rest");
    let header = udp.to_header();
    let (vxlan, inner) = udp.payload().split_at(8);
    let [flags, .., reserved] = vxlan else { panic!("cut") };
    assert_eq!((flags, reserved), (&8, &0));
    let (mut seen, full) = match sliced.net.expect("it is IP") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            assert_eq!((IpAddr::from(ip.source()), IpAddr::from(ip.destination())), (from, to));
            assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
            assert_eq!(usize::from(ip.total_len()), frame.len() - ETHERNET);
            let (tos, id, df) = (ip.slice()[1], ip.identification(), ip.dont_fragment());
            let seen = Seen { tos, ttl: ip.ttl(), id, df, label: 0, source_port: 0, udp_checksum: 0, inner: vec![] };
            (seen, header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload()))
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            assert_eq!((IpAddr::from(ip.source()), IpAddr::from(ip.destination())), (from, to));
            assert_eq!(usize::from(ip.payload_length()), frame.len() - ETHERNET - 40);
            let (tos, label) = (ip.traffic_class(), ip.flow_label().value());
            let seen = Seen {
                tos,
                ttl: ip.hop_limit(),
                id: 0,
                df: true,
                label,
                source_port: 0,
                udp_checksum: 0,
                inner: vec![],
            };
            (seen, header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload()))
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    if udp.checksum() != 0 {
        assert_eq!(udp.checksum(), full.expect("it fits"), "the UDP checksum is right where there is one");
    }
    (seen.source_port, seen.udp_checksum, seen.inner) = (udp.source_port(), udp.checksum(), inner.to_vec());
    seen
}

fn ends_of(outer: &Outer) -> (IpAddr, IpAddr) {
    (outer.ends.local(), outer.ends.remote())
}

fn any_inner() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), any::<u8>(), 2..=255u8, any::<bool>(), vec(any::<u8>(), 0..200)).prop_map(
        |(is_v6, tos, ttl, df, payload)| {
            if is_v6 {
                let mut ip = udp_v6(SITE_A_V6, &payload);
                (ip[0], ip[1], ip[7]) = (0x60 | tos >> 4, tos << 4 | 5, ttl);
                ip
            } else {
                raw_v4(SITE_A_V4, &payload, |header| {
                    header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
                    header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
                    (header.time_to_live, header.dont_fragment) = (ttl, df);
                })
            }
        },
    )
}

fn any_outer() -> impl Strategy<Value = Outer> {
    let dscp = prop::option::of(0..64u8);
    let ttl = prop::option::of(1..=255u8);
    let df = prop::option::of(any::<bool>());
    (any::<bool>(), dscp, any::<bool>(), ttl, df, any::<bool>()).prop_map(
        |(v6, dscp, copy_ecn, ttl, df, udp_checksum)| {
            let ends = outer(if v6 { AWS_B } else { AWS_A }).ends;
            Outer { ends, dscp, copy_ecn, ttl, df, udp_checksum }
        },
    )
}

fn tos_of(ip: &[u8]) -> u8 {
    if ip[0] >> 4 == 4 { ip[1] } else { ip[0] << 4 | ip[1] >> 4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Over every combination of the keys of a tunnel: lengths and checksums are right, and each field follows what
    /// it was told to.
    #[test]
    fn writes_headers_that_another_implementation_reads(ip in any_inner(), outer in any_outer(), id: u16) {
        // Of as many workers as there may be, each has two numbers.
        let mut numbers = Identification::of(id.into(), 1 << 15);
        if id >= 1 << 15 {
            numbers.take();
        }
        let mut rest = numbers;
        let frame = encapsulated(&outer, &ip, &mut numbers);
        let seen = decoded(&frame, ends_of(&outer).0, ends_of(&outer).1);
        prop_assert_eq!(&seen.inner, &framed(FAR_MAC, TUNNEL_MAC, &ip));
        let tos = tos_of(&ip);
        let dscp = outer.dscp.unwrap_or(tos >> 2);
        prop_assert_eq!(seen.tos, dscp << 2 | if outer.copy_ecn { tos & 3 } else { 0 });
        let (inner_ttl, inner_df) = if ip[0] >> 4 == 4 { (ip[8], ip[6] & 0x40 != 0) } else { (ip[7], true) };
        prop_assert_eq!(seen.ttl, outer.ttl.unwrap_or(inner_ttl));
        prop_assert!(seen.source_port >= 49_152);
        prop_assert_eq!(seen.udp_checksum != 0, outer.udp_checksum);
        if outer.ends.family() == Family::V4 {
            prop_assert_eq!(seen.df, outer.df.unwrap_or(inner_df));
            // RFC 6864: what may be cut has a number of its own.
            prop_assert_eq!(seen.id, if seen.df { 0 } else { rest.take() });
            prop_assert_eq!(numbers, rest);
        }
    }

    #[test]
    fn what_went_into_a_tunnel_comes_out_as_it_was(ip in any_inner(), is_v6: bool, checksum: bool) {
        let id = if is_v6 { AWS_B } else { AWS_A };
        // The far end: the same tunnel, with the ends exchanged.
        let near = outer(id);
        let ends = Ends::new(Vrf::DEFAULT, near.ends.remote(), near.ends.local()).expect("of one family");
        let far = Outer { ends, udp_checksum: checksum, ..near };
        let rewrite = tunnel_rewrite(id, &far, Some((TUNNEL_MAC, FAR_MAC)));
        let frame = with_ip(ETHERNET, &ip, |packet| {
            assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            assert_eq!(apply(&rewrite, packet, &mut Identification::default()), Ok(()));
            octets(packet)
        });
        let (result, tunnel, inner) = received(&tunnels(), &frame);
        prop_assert_eq!((result, tunnel), (Ok(()), id));
        prop_assert_eq!(inner, framed(TUNNEL_MAC, FAR_MAC, &ip));
    }

    #[test]
    fn the_udp_checksum_runs_over_a_whole_chain(cuts in vec(60..1_000usize, 1..4), is_v6: bool) {
        let ip = udp_v4(SITE_A_V4, &(0..2_000).map(|n| (n * 7) as u8).collect::<Vec<_>>());
        let mut at = cuts;
        at.extend([0, 1_000, ip.len()]);
        at.sort_unstable();
        let chunks: Vec<_> = at.windows(2).map(|ends| &ip[ends[0]..ends[1]]).collect();
        let outer = Outer { udp_checksum: true, ..outer(if is_v6 { AWS_B } else { AWS_A }) };
        let rewrite = tunnel_rewrite(AWS_A, &outer, Some((FAR_MAC, TUNNEL_MAC)));
        let frame = with_frame(&chunks, |packet| {
            (packet.l3, packet.family) = (0, Family::V4);
            assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
            assert_eq!(apply(&rewrite, packet, &mut Identification::default()), Ok(()));
            octets(packet)
        });
        let seen = decoded(&frame, ends_of(&outer).0, ends_of(&outer).1);
        prop_assert!(seen.udp_checksum != 0);
        prop_assert_eq!(&seen.inner[ETHERNET..], &ip[..]);
    }
}

#[test]
fn spreads_flows_over_source_ports_and_flow_labels() {
    let seen: Vec<_> = (0..200u8)
        .map(|last| {
            let over_v4 = decoded_of(AWS_A, &udp_v4([10, 20, 0, last], b"x"));
            (over_v4.source_port, decoded_of(AWS_B, &udp_v4([10, 20, 0, last], b"x")).label)
        })
        .collect();
    let ports: std::collections::BTreeSet<_> = seen.iter().map(|seen| seen.0).collect();
    let labels: std::collections::BTreeSet<_> = seen.iter().map(|seen| seen.1).collect();
    assert!(ports.len() > 190 && labels.len() > 190, "{} ports, {} labels", ports.len(), labels.len());
}

fn decoded_of(id: TunnelId, ip: &[u8]) -> Seen {
    let outer = outer(id);
    decoded(&encapsulated(&outer, ip, &mut Identification::default()), ends_of(&outer).0, ends_of(&outer).1)
}

#[test]
fn keeps_a_frame_that_brings_its_own_ethernet_header() {
    let arp = [&[0xff; 6][..], &TUNNEL_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0xee; 20]].concat();
    for outer in [outer(AWS_A), Outer { ttl: None, df: None, ..outer(AWS_A) }] {
        let rewrite = tunnel_rewrite(AWS_A, &outer, None);
        let frame = with_frame(&[&arp], |packet| {
            assert_eq!(packet.read_own(true, &FlowHash::default()), Ok(()));
            assert_eq!(apply(&rewrite, packet, &mut Identification::default()), Ok(()));
            octets(packet)
        });
        let seen = decoded(&frame, WAN_V4.into(), REMOTE_V4.into());
        assert_eq!(seen.inner, arp);
        assert_eq!((seen.ttl, seen.df), (64, true), "nothing is read from what is not IP");
    }
}

#[test]
fn a_plain_header_names_the_family_of_the_packet() {
    for (ip, ethertype) in [(udp_v4(SITE_A_V4, b"x"), EtherType::IPV4), (udp_v6(SITE_A_V6, b"x"), EtherType::IPV6)] {
        for before in [0, 14, 18] {
            let rewrite = crate::testing::link(ROUTER_MAC, WAN_MAC, EtherType::IPV4);
            with_ip(before, &ip, |packet| {
                assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
                assert_eq!(apply(&rewrite, packet, &mut Identification::default()), Ok(()));
                let expected = [&ROUTER_MAC[..], &WAN_MAC, &ethertype.to_be_bytes(), &ip].concat();
                assert_eq!(octets(packet), expected, "from {before} octets");
            });
        }
    }
}

#[test]
fn refuses_what_has_no_room_for_its_headers() {
    let mut long = Rewrite::empty();
    long.push(&[0; Rewrite::CAPACITY]);
    with_ip(0, &udp_v4(SITE_A_V4, b"x"), |packet| {
        assert_eq!(packet.parse(&FlowHash::default()), Ok(()));
        let mut wrapped = 0;
        while apply(&long, packet, &mut Identification::default()) == Ok(()) {
            // As it would be behind a further tunnel.
            packet.l3 = 0;
            wrapped += 1;
        }
        assert_eq!(wrapped, 3, "384 octets of headroom");
        assert_eq!(apply(&long, packet, &mut Identification::default()), Err(Exit::Drop(DropReason::TooLong)));
    });
}

fn tunnels() -> Tunnels {
    Tunnels::new(vec![tunnel(AWS_A), tunnel(AWS_B)])
}

/// A VXLAN frame as the far end sends it.
fn arriving(id: TunnelId, vni: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0], inner].concat();
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, LAN_MAC);
    let with_ip =
        if id == AWS_A { builder.ipv4(REMOTE_V4, WAN_V4, 60) } else { builder.ipv6(v6(REMOTE_V6), v6(WAN_V6), 60) };
    written(with_ip.udp(50_000, wire::Vxlan::PORT), &payload)
}

/// Parses a frame and takes it out of its tunnel, if it is in one. What is left of it.
fn received(tunnels: &Tunnels, frame: &[u8]) -> (Result<(), Exit>, TunnelId, Vec<u8>) {
    with_frame(&[frame], |packet| {
        let result = packet
            .read_ethernet()
            .and_then(|_| packet.parse(&FlowHash::default()))
            .and_then(|()| tunnels.decap(packet, &FlowHash::default()));
        (result, packet.tunnel, octets(packet))
    })
}

#[track_caller]
fn check(frame: &[u8], expected: DropReason) {
    assert_eq!(received(&tunnels(), frame).0, Err(Exit::Drop(expected)));
}

/// The same with the outer UDP checksum, and the IPv4 one, right for the changed frame.
fn mended(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    changes.iter().for_each(|(at, octet)| frame[*at] = *octet);
    frame[40..42].fill(0);
    if let Some(header) = header_mut::<Ipv4>(&mut frame, ETHERNET) {
        header.checksum = Be16::new(header.computed_checksum(&[]));
    }
    frame
}

fn inner() -> Vec<u8> {
    framed(TUNNEL_MAC, FAR_MAC, &udp_v4(CLIENT_V4, b"inside"))
}

#[test]
fn takes_the_tunnels_packets_out_and_leaves_all_others() {
    let good = arriving(AWS_A, VNI_A, &inner());
    assert_eq!(received(&tunnels(), &good), (Ok(()), AWS_A, inner()));
    let zero = mended(good.clone(), &[]);
    assert_eq!(received(&tunnels(), &zero), (Ok(()), AWS_A, inner()), "without a UDP checksum");
    // Another sender, another receiver, another port: not ours.
    for changes in [(29, 8), (33, 2), (37, 0xb6)] {
        let other = mended(good.clone(), &[changes]);
        assert_eq!(received(&tunnels(), &other), (Ok(()), TunnelId::NONE, other.clone()), "{changes:?}");
    }
    // In another VRF the addresses mean something else.
    with_frame(&[&good], |packet| {
        packet.vrf = Vrf(1);
        packet.read_ethernet().and_then(|_| packet.parse(&FlowHash::default())).expect("a good packet");
        assert_eq!((tunnels().decap(packet, &FlowHash::default()), packet.tunnel), (Ok(()), TunnelId::NONE));
    });
    // RFC 7348 §5: reserved bits are ignored.
    let reserved = mended(good.clone(), &[(42, 0xff), (43, 0xff), (49, 0xff)]);
    assert_eq!(received(&tunnels(), &reserved), (Ok(()), AWS_A, inner()));
}

#[test]
fn names_what_is_wrong_with_a_tunnels_packet() {
    let good = arriving(AWS_A, VNI_A, &inner());
    let mut bad = good.clone();
    bad[41] ^= 1;
    check(&bad, TunnelChecksum);
    let mut bad = good.clone();
    *bad.last_mut().expect("not empty") ^= 1;
    check(&bad, TunnelChecksum);
    for length in [0, 7, 8, 15, 200] {
        check(&mended(good.clone(), &[(38, 0), (39, length)]), TunnelTruncated);
    }
    check(&mended(good.clone(), &[(42, 0xf7)]), TunnelHeader);
    check(&arriving(AWS_A, VNI_A + 1, &inner()), UnknownVni);
    check(&arriving(AWS_A, crate::testing::VNI_B, &inner()), UnknownVni);
    check(&arriving(AWS_A, VNI_A, &framed(FAR_MAC, FAR_MAC, &udp_v4(CLIENT_V4, b"x"))), NotOurMac);
    check(&arriving(AWS_B, crate::testing::VNI_B, &framed([0xff; 6], FAR_MAC, &udp_v4(CLIENT_V4, b"x"))), NoLocalPath);
    let arp = [&TUNNEL_MAC[..], &FAR_MAC, &[8, 6], &[0; 28]].concat();
    check(&arriving(AWS_B, crate::testing::VNI_B, &arp), NotIp);
    let martian = written(PacketBuilder::ipv4([127, 0, 0, 1], CLIENT_V4, 9).udp(1, 2), b"x");
    check(&arriving(AWS_A, VNI_A, &framed(TUNNEL_MAC, FAR_MAC, &martian)), MartianSource);
    // Cut inside: the outer lengths are right.
    for end in 0..inner().len() {
        let expected =
            if end == 0 { [DropReason::Truncated; 2] } else { [DropReason::Truncated, DropReason::BadVersion] };
        let result = received(&tunnels(), &arriving(AWS_A, VNI_A, &inner()[..end])).0;
        assert!(expected.iter().any(|reason| result == Err(Exit::Drop(*reason))), "{end}: {result:?}");
    }
    // Cut before the VXLAN header ends.
    let [short, ..] = [0, 1, 7].map(|octets| {
        let builder = PacketBuilder::ethernet2(ROUTER_MAC, LAN_MAC).ipv4(REMOTE_V4, WAN_V4, 60);
        written(builder.udp(50_000, wire::Vxlan::PORT), &vec![8; octets])
    });
    check(&short, TunnelTruncated);
}

#[test]
fn hands_to_the_device_what_lives_on_the_tunnels_link() {
    let arp = [&[0xff; 6][..], &FAR_MAC, &[8, 6], &[0; 28]].concat();
    let group = framed([1, 0, 0x5e, 0, 0, 5], FAR_MAC, &udp_v4([224, 0, 0, 5], b"x"));
    let unicast_arp = [&TUNNEL_MAC[..], &FAR_MAC, &[8, 6], &[0; 28]].concat();
    for frame in [arp, group, unicast_arp] {
        let (result, id, left) = received(&tunnels(), &arriving(AWS_A, VNI_A, &frame));
        assert_eq!((result, id), (Err(Exit::Punt(crate::packet::PuntReason::Link)), AWS_A));
        assert_eq!(left, frame, "the whole inner frame");
    }
}

/// A later fragment does not tell whose the datagram is: what is between a tunnel's ends waits, all else is somebody else's.
#[test]
fn keeps_every_fragment_between_two_ends() {
    let fragment = |source, to, protocol, offset| {
        let udp = [&4000_u16.to_be_bytes()[..], &53_u16.to_be_bytes(), &[0; 60]].concat();
        let ip = raw_v4(to, &udp, |h| {
            (h.source, h.protocol, h.more_fragments) = (source, etherparse::IpNumber(protocol), true);
            h.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        });
        received(&tunnels(), &framed(LAN_MAC, ROUTER_MAC, &ip)).0
    };
    let waits = Err(Exit::Reassemble);
    for (protocol, offset) in [(17, 0), (17, 100), (1, 0), (253, 100)] {
        assert_eq!(fragment(REMOTE_V4, WAN_V4, protocol, offset), waits, "{protocol} {offset}");
        assert_eq!(fragment(CLIENT_V4, WAN_V4, protocol, offset), Ok(()), "somebody else's");
        assert_eq!(fragment(REMOTE_V4, SITE_A_V4, protocol, offset), Ok(()), "to somebody else");
    }
    let of_six = |offset_more: [u8; 2]| {
        let header = [&[17, 0][..], &offset_more, &[0, 0, 0, 7]].concat();
        let mut ip = udp_v6(&std::net::Ipv6Addr::from(v6(WAN_V6)).to_string(), &[0; 40]);
        ip.splice(40..40, header);
        (ip[6], ip[5]) = (44, ip[5] + 8);
        ip[8..24].copy_from_slice(&v6(REMOTE_V6));
        received(&tunnels(), &framed(LAN_MAC, ROUTER_MAC, &ip)).0
    };
    assert_eq!((of_six([0, 1]), of_six([1, 0])), (waits, waits));
    assert_eq!(of_six([0, 0]), Ok(()), "a fragment that is the whole packet (RFC 6946)");
}

#[test]
fn lets_only_allowed_sources_out() {
    let allowed = |prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
        Tunnels::new(vec![Tunnel { allowed_sources: Some(prefixes), ..tunnel(AWS_A) }])
    };
    let v4 = arriving(AWS_A, VNI_A, &inner());
    let v6 = arriving(AWS_A, VNI_A, &framed(TUNNEL_MAC, FAR_MAC, &udp_v6("2001:db8:2::8", b"x")));
    let spoofed = Err(Exit::Drop(SpoofedSource));
    for (prefixes, expected_v4, expected_v6) in [
        (&["203.0.113.0/24"][..], Ok(()), spoofed),
        (&["203.0.113.10/31", "2001:db8:2::/48"], spoofed, Ok(())),
        (&["203.0.113.9/32", "::/0"], Ok(()), Ok(())),
        (&[], spoofed, spoofed),
    ] {
        assert_eq!(received(&allowed(prefixes), &v4).0, expected_v4, "{prefixes:?}");
        assert_eq!(received(&allowed(prefixes), &v6).0, expected_v6, "{prefixes:?}");
    }
    // The other end's own link-local address may speak; a destination of that kind excuses no source.
    let between = |from: [u8; 4], to: [u8; 4]| {
        let ip = raw_v4(to, b"x", |h| h.source = from);
        received(&allowed(&["203.0.113.0/24"]), &arriving(AWS_A, VNI_A, &framed(TUNNEL_MAC, FAR_MAC, &ip))).0
    };
    assert_eq!(between([169, 254, 10, 1], [169, 254, 10, 2]), Ok(()));
    assert_eq!(between([10, 66, 0, 1], [169, 254, 10, 2]), spoofed);
}

/// RFC 6040 §4.2, figure 4, through real packets: every outer and inner family, all sixteen rows.
#[test]
fn carries_congestion_from_outside_to_inside() {
    for id in [AWS_A, AWS_B] {
        for is_v6 in [false, true] {
            for (outer, inner) in (0..16u8).map(|both| (both >> 2, both & 3)) {
                check_ecn(id, is_v6, outer, inner, TUNNEL_MAC);
                // Also what the tunnel's device gets, where there is one.
                if id == AWS_A {
                    check_ecn(id, is_v6, outer, inner, [0x33, 0x33, 0, 0, 0, 1]);
                }
            }
        }
    }
}

fn check_ecn(id: TunnelId, is_v6: bool, outer: u8, inner: u8, to: [u8; 6]) {
    let class = 0xb8; // stays as it is
    let ip = if is_v6 {
        let mut ip = udp_v6("2001:db8:2::8", b"x");
        (ip[0], ip[1]) = (0x60 | (class | inner) >> 4, (class | inner) << 4 | 3);
        ip
    } else {
        raw_v4(CLIENT_V4, b"x", |header| {
            header.dscp = etherparse::IpDscp::try_new(class >> 2).expect("six bits");
            header.ecn = etherparse::IpEcn::try_new(inner).expect("two bits");
        })
    };
    let vni = if id == AWS_A { VNI_A } else { crate::testing::VNI_B };
    let mut frame = arriving(id, vni, &framed(to, FAR_MAC, &ip));
    if id == AWS_A {
        frame = mended(frame, &[(15, outer)]);
    } else {
        frame[15] = outer << 4; // no checksum covers it
    }
    let rule = decapsulate(Ecn::of(inner), Ecn::of(outer));
    with_frame(&[&frame], |packet| {
        let result = packet
            .read_ethernet()
            .and_then(|_| packet.parse(&FlowHash::default()))
            .and_then(|()| tunnels().decap(packet, &FlowHash::default()));
        assert_eq!(packet.traits.has(Traits::ECN_ALARM), rule.alarm, "{inner} in {outer}");
        let Some(expected) = rule.inner else {
            return assert_eq!(result, Err(Exit::Drop(EcnNotCapable)), "{inner} in {outer}");
        };
        let passed = if to == TUNNEL_MAC { Ok(()) } else { Err(Exit::Punt(crate::packet::PuntReason::Link)) };
        assert_eq!(result, passed, "{inner} in {outer}");
        let now = octets(packet);
        assert_eq!((tos_of(&now[ETHERNET..]), packet.tos), (class | expected as u8, class | expected as u8));
        let mut mark = ip.clone();
        if is_v6 {
            mark[1] = (class | expected as u8) << 4 | 3;
        } else {
            mark[1] = class | expected as u8;
            let header = header_mut::<Ipv4>(&mut mark, 0).expect("a header");
            header.checksum = Be16::new(header.computed_checksum(&[]));
        }
        assert_eq!(now[ETHERNET..], mark, "the checksum follows, and nothing else changes");
    });
}

#[test]
fn a_packet_out_of_a_tunnel_belongs_to_the_tunnels_vrf_and_has_its_hops() {
    let tunnels = Tunnels::new(vec![Tunnel { vrf: Vrf(3), ..tunnel(AWS_A) }]);
    with_frame(&[&arriving(AWS_A, VNI_A, &inner())], |packet| {
        packet.read_ethernet().and_then(|_| packet.parse(&FlowHash::default())).expect("a good packet");
        assert_eq!(tunnels.decap(packet, &FlowHash::default()), Ok(()));
        assert_eq!((packet.vrf, packet.ingress, packet.origin), (Vrf(3), PortId(0), Origin::Port));
        assert_eq!(packet.ipv4().map(|header| header.ttl), Some(64));
        assert_eq!(packet.arrived, Time(0));
    });
}

#[test]
fn overhead_is_what_the_headers_are_long() {
    for (id, family) in [(AWS_A, Family::V4), (AWS_B, Family::V6)] {
        let rewrite = tunnel_rewrite(id, &outer(id), Some((FAR_MAC, TUNNEL_MAC)));
        assert_eq!(u16::from(rewrite.count) - ETHERNET as u16, kind(id).overhead(family));
        assert!(rewrite.follows.has(Follows::UDP));
    }
    assert_eq!((kind(AWS_A).overhead(Family::V4), kind(AWS_A).overhead(Family::V6)), (50, 70));
}
