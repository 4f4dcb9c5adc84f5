//! What the outer header says and what becomes of it, for every tunnel type: congestion (RFC 6040), DSCP (RFC 2983), TTL,
//! don't fragment, checksums. etherparse and tables of octets have the say.
#![forbid(unsafe_code)]

use dataplane::packet::DropReason::EcnNotCapable;
use dataplane::packet::Family::{self, V4, V6};
use integration::packets::{after_hops, echo, marked, mend, tcp, tos_of, udp, whole};
use integration::pair::{Cell, Outer, Pair, cells};

const NOT: u8 = 0;
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// RFC 6040 figure 4: a row for what was inside; columns Not-ECT, ECT(0), ECT(1), CE outside. `None`: dropped.
const DECAPSULATION: [(u8, [Option<u8>; 4]); 4] = [
    (NOT, [Some(NOT), Some(NOT), Some(NOT), None]),
    (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
    (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];
const COLUMNS: [u8; 4] = [NOT, ECT0, ECT1, CE];
/// Its cells marked (!!!) and (!), inside first.
const ALARMS: [(u8, u8); 5] = [(NOT, ECT0), (NOT, ECT1), (NOT, CE), (ECT1, ECT0), (CE, ECT1)];
/// Stays as it is.
const DSCP: u8 = 0xb8;

/// A router on the way marks the frame.
fn remarked(cell: Cell, frame: &[u8], ecn: u8) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    let outer = match cell.outer {
        V4 => 20,
        V6 => 40,
    };
    let mut header = packet[..outer].to_vec();
    header = marked(&header, tos_of(&header) & 0xfc | ecn);
    packet[..outer].copy_from_slice(&header);
    [&frame[..14], &packet].concat()
}

#[test]
fn congestion_on_the_way_reaches_the_inside_by_the_sixteen_rows_of_rfc_6040() {
    for cell in cells() {
        let mut pair = Pair::with(cell, "");
        let (mut alarms, mut drops) = (0, 0);
        for (inner, row) in DECAPSULATION {
            for (outer, expected) in COLUMNS.into_iter().zip(row) {
                let what = format!("{cell}: {inner:02b} in {outer:02b}");
                let packet = marked(&udp(cell.inner, 40), DSCP | inner);
                let frames = pair.send(&packet);
                let got = pair.deliver(remarked(cell, &frames[0], outer));
                let expected = expected.map(|ecn| marked(&after_hops(&packet, 2), DSCP | ecn));
                drops += u64::from(expected.is_none());
                assert_eq!(got, Vec::from_iter(expected), "{what}");
                alarms += u64::from(ALARMS.contains(&(inner, outer)));
                assert_eq!(pair.tunnels().1.ecn_alarms, alarms, "{what}");
                let dropped: Vec<_> = [(EcnNotCapable, drops)].into_iter().filter(|drop| drop.1 != 0).collect();
                assert_eq!((pair.far_drops(), pair.tunnels().1.dropped), (dropped, drops), "{what}");
            }
        }
        assert_eq!((alarms, drops), (5, 1), "{cell}");
        let (near, far) = pair.finish();
        assert_eq!((near.forwarded, far.forwarded, far.received), (16, 15, 16), "{cell}");
    }
}

/// What the near gateway puts on the link for a packet; the far one takes it out.
#[track_caller]
fn outer(pair: &mut Pair, packet: &[u8]) -> Outer {
    let cell = pair.cell;
    let frames = pair.send(packet);
    let [frame] = frames.as_slice() else { panic!("{cell}: {} frames", frames.len()) };
    let seen = cell.read(frame);
    assert_eq!(seen.packet, after_hops(packet, 1), "{cell}: nothing inside changes");
    assert_eq!(pair.deliver(frame.clone()).len(), 1, "{cell}: {:?}", pair.far_drops());
    seen
}

/// RFC 6040 §4.1 and RFC 2983: every DSCP and ECN, copied or not.
#[test]
fn dscp_and_ecn_go_out_as_the_tunnel_is_told() {
    for cell in cells() {
        for (keys, dscp, copies_ecn) in [
            ("", None, true),
            ("dscp = \"copy\"\necn = \"normal\"", None, true),
            ("ecn = \"compatible\"", None, false),
            ("dscp = 0", Some(0), true),
            ("dscp = 46\necn = \"compatible\"", Some(46), false),
            ("dscp = 63", Some(63), true),
        ] {
            let mut pair = Pair::with(cell, keys);
            for tos in [0x00, 0x01, 0x02, 0x03, 0xb8, 0xba, 0x2b, 0xff] {
                let seen = outer(&mut pair, &marked(&udp(cell.inner, 40), tos));
                let expected = dscp.unwrap_or(tos >> 2) << 2 | if copies_ecn { tos & 3 } else { 0 };
                assert_eq!(seen.tos, expected, "{cell}: {keys}: {tos:02x}");
            }
        }
    }
}

fn with_ttl(family: Family, ttl: u8) -> Vec<u8> {
    let mut packet = udp(family, 40);
    packet[if family == V4 { 8 } else { 7 }] = ttl;
    mend(&mut packet);
    packet
}

#[test]
fn the_outer_ttl_is_the_tunnels_or_what_the_packet_has_left() {
    for cell in cells() {
        for (keys, expected) in
            [("", Some(64)), ("ttl = 1", Some(1)), ("ttl = 255", Some(255)), ("ttl = \"copy\"", None)]
        {
            let mut pair = Pair::with(cell, keys);
            for ttl in [3, 64, 255] {
                let seen = outer(&mut pair, &with_ttl(cell.inner, ttl));
                assert_eq!(seen.ttl, expected.unwrap_or(ttl - 1), "{cell}: {keys}");
            }
        }
    }
}

/// RFC 6864 §4: what may be cut on its way has a number that differs from the one before; what may not needs none.
#[test]
fn the_outer_packet_may_be_cut_only_where_the_tunnel_says_so() {
    for cell in cells().into_iter().filter(|cell| cell.outer == V4) {
        let free = udp(cell.inner, 40);
        let fixed = whole(free.clone());
        // IPv6 is never cut on its way (RFC 8200 §5).
        let copied = cell.inner == V6;
        for (keys, of_free, of_fixed) in [
            ("", true, true),
            ("df = \"set\"", true, true),
            ("df = \"clear\"", false, false),
            ("df = \"copy\"", copied, true),
        ] {
            let mut pair = Pair::with(cell, keys);
            for (packet, expected) in [(&free, of_free), (&fixed, of_fixed)] {
                assert_eq!(outer(&mut pair, packet).dont_fragment, Some(expected), "{cell}: {keys}");
            }
            let numbers = [(); 3].map(|()| cell.read(&pair.send(&free)[0]).identification);
            let differ = numbers[0] != numbers[1] && numbers[1] != numbers[2];
            assert_eq!(differ, !of_free, "{cell}: {keys}: {numbers:?}");
        }
    }
}

#[test]
fn the_outer_udp_checksum_is_zero_or_right_as_the_tunnel_is_told() {
    for cell in cells().into_iter().filter(|cell| cell.kind.port.is_some()) {
        for (keys, expected) in [
            ("", cell.outer == V6),
            ("checksum = \"auto\"", cell.outer == V6),
            ("checksum = \"zero\"", false),
            ("checksum = \"full\"", true),
        ] {
            // With every other field that follows the packet, too.
            for more in ["", "\nttl = \"copy\"\ndscp = 5", "\necn = \"compatible\"\ndf = \"copy\""] {
                let mut pair = Pair::with(cell, &format!("{keys}{more}"));
                for packet in [udp(cell.inner, 40), udp(cell.inner, 41), tcp(cell.inner, 7), echo(cell.inner, 9)] {
                    let seen = outer(&mut pair, &packet);
                    assert_eq!(
                        (seen.has_checksum, seen.checksum_is_right),
                        (expected, expected),
                        "{cell}: {keys}{more}"
                    );
                }
            }
        }
    }
}

/// RFC 6438 and RFC 7348 §5: a flow keeps to its path, and flows spread.
#[test]
fn flows_spread_over_source_ports_and_flow_labels() {
    for cell in cells() {
        let mut pair = Pair::with(cell, "");
        let mut seen = std::collections::BTreeSet::new();
        for port in 0..64_u16 {
            let transport = if cell.inner == V4 { 20 } else { 40 };
            let mut packet = udp(cell.inner, 40);
            packet[transport..transport + 2].copy_from_slice(&(4000 + port).to_be_bytes());
            let [first, second] = [(); 2].map(|()| cell.read(&pair.send(&packet)[0]));
            assert_eq!((first.source_port, first.label), (second.source_port, second.label), "{cell}");
            seen.insert((first.source_port, first.label));
        }
        // GRE and IP in IP over IPv4 have nothing that could differ.
        let varies = cell.kind.port.is_some() || cell.outer == V6;
        assert!(if varies { seen.len() > 60 } else { seen.len() == 1 }, "{cell}: {}", seen.len());
    }
}

/// What is for the tunnel's own device (routing protocols, ARP) came out of the tunnel: it is counted, and its congestion
/// marks are judged, like everything else.
#[test]
fn what_goes_to_a_tunnels_device_is_counted_and_its_congestion_judged() {
    for cell in cells() {
        let address = if cell.inner == V4 { "198.18.255.1/24" } else { "2001:db8:ff::1/64" };
        let mut pair = Pair::with(cell, &format!("address = [\"{address}\"]"));
        let mut packet = whole(udp(cell.inner, 8));
        match cell.inner {
            V4 => packet[16..20].copy_from_slice(&[224, 0, 0, 5]),
            V6 => packet[24..40].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]),
        }
        mend(&mut packet);
        for (inner, outer) in [(ECT0, NOT), (ECT0, CE), (CE, ECT1), (NOT, CE)] {
            let mut inside = cell.inside(&marked(&packet, inner));
            if cell.kind.ethernet {
                inside[0] |= 1;
            }
            pair.deliver(cell.frame_with(outer, &cell.header(), &inside));
        }
        let far = pair.tunnels().1;
        assert_eq!((far.decapsulated_packets, far.ecn_alarms), (3, 2), "{cell}");
        assert_eq!(far.decapsulated_bytes, 3 * packet.len() as u64, "{cell}");
        // There is no device in virtual time, so all are dropped in the end.
        assert!(pair.far_drops().contains(&(EcnNotCapable, 1)), "{cell}: {:?}", pair.far_drops());
        pair.finish();
    }
}
