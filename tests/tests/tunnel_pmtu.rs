//! No tunnel swallows what is too long for it: every type, inside and outside, is a row.
//!
//! RFC 1191, RFC 8201: the sender is told, and told exactly. RFC 4459 §3.2: what may be cut is cut before it is
//! encapsulated. RFC 6691: TCP never comes to that.
#![forbid(unsafe_code)]

use dataplane::packet::DropReason::{self, FragmentationNeeded, PacketTooBig};
use dataplane::packet::Family::{self, V4, V6};
use integration::frames::{Ip, decode};
use integration::packets::{after_hops, of_length, syn, tcp, udp, whole};
use integration::pair::{Cell, LINK, Pair, Setup, cells};
use std::net::IpAddr;

/// What a row is: a cell, and how long the link's packets are at most.
#[derive(Clone, Copy)]
struct Row {
    cell: Cell,
    wan_mtu: u16,
}

impl Row {
    fn pair(&self) -> Pair {
        Pair::new(self.cell, Setup { lan_mtu: 9000, wan_mtu: self.wan_mtu, ..Setup::default() })
    }

    fn mtu(&self) -> usize {
        usize::from(self.wan_mtu) - self.cell.overhead()
    }
}

/// Each cell over the usual link, over the shortest that IPv6 inside leaves room for, and over a jumbo one.
fn rows() -> impl Iterator<Item = Row> {
    cells().into_iter().flat_map(|cell| [1500, 1400, 8500].map(|wan_mtu| Row { cell, wan_mtu }))
}

/// Calls `check` for each row; what failed is a table.
#[track_caller]
fn each(check: impl Fn(&Row) -> Result<(), String>) {
    let of = |row: Row| check(&row).err().map(|wrong| format!("  {}, link MTU {}: {wrong}", row.cell, row.wan_mtu));
    let wrong: Vec<_> = rows().filter_map(of).collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows().count(), wrong.join("\n"));
}

/// `Err` with what was there instead.
fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

/// What a packet is made by, of a family and a length of payload.
type Make = fn(Family, usize) -> Vec<u8>;

const TRANSPORTS: [(&str, Make); 2] = [("TCP", tcp), ("UDP", udp)];

/// A packet of so many octets that may not be cut.
fn long(family: Family, make: Make, length: usize) -> Vec<u8> {
    of_length(length, |payload| whole(make(family, payload)))
}

#[test]
fn the_longest_that_fits_passes() {
    each(|row| {
        let mut pair = row.pair();
        for (name, make) in TRANSPORTS {
            let packet = long(row.cell.inner, make, row.mtu());
            let frames = pair.send(&packet);
            expect(name, frames.len(), 1)?;
            expect("octets on the link", frames[0].len(), 14 + usize::from(row.wan_mtu))?;
            expect(name, pair.deliver(frames[0].clone()), vec![after_hops(&packet, 2)])?;
        }
        let (near, far) = pair.finish();
        expect("drops", near.dropped() + far.dropped(), 0)
    });
}

/// An IP packet, decoded.
fn decoded(packet: &[u8]) -> Result<Ip, String> {
    let ethertype = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&LINK.0[..], &LINK.1, &ethertype, packet].concat();
    decode(&frame).map_err(|wrong| format!("{wrong:?}"))?.ip.ok_or_else(|| "not IP".to_owned())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The only drops.
fn drops(pair: &Pair) -> Vec<(DropReason, u64)> {
    pair.near.totals().drops_by_name().collect()
}

#[test]
fn one_octet_more_is_answered_with_the_mtu_to_the_octet() {
    each(|row| {
        let mut pair = row.pair();
        let (client, gateway, kind, reason, longest) = match row.cell.inner {
            V4 => ("198.18.1.10", "198.18.1.1", (3, 4), FragmentationNeeded, 576),
            V6 => ("2001:db8:1::10", "2001:db8:1::1", (2, 0), PacketTooBig, 1280),
        };
        for (name, make) in TRANSPORTS {
            for length in [row.mtu() + 1, usize::from(row.wan_mtu), 9000] {
                let packet = long(row.cell.inner, make, length.max(row.mtu() + 1));
                expect("frames on the link", pair.send(&packet).len(), 0)?;
                let heard = pair.heard();
                expect("answers", heard.len(), 1)?;
                let answer = decoded(&heard[0])?;
                expect("to", answer.destination, address(client))?;
                expect("from", answer.source, address(gateway))?;
                expect("type and code", answer.icmp, Some(kind))?;
                let mtu = if row.cell.inner == V4 { &answer.payload[6..8] } else { &answer.payload[4..8] };
                let mtu = mtu.iter().fold(0, |mtu, octet| mtu << 8 | usize::from(*octet));
                expect("MTU", mtu, row.mtu())?;
                expect("is short enough", answer.length <= longest, true)?;
                // Addresses and ports of what was sent: the sender finds its connection by them.
                let quoted = &answer.payload[8..];
                let ends = if row.cell.inner == V4 { 12..24 } else { 8..44 };
                expect(name, &quoted[ends.clone()], &packet[ends])?;
            }
        }
        expect("drops", drops(&pair), vec![(reason, 6)])?;
        pair.finish();
        Ok(())
    });
}

#[test]
fn what_may_be_cut_is_cut_before_it_is_encapsulated() {
    each(|row| {
        if row.cell.inner == V6 {
            return Ok(());
        }
        let mut pair = row.pair();
        for (name, make) in TRANSPORTS {
            for length in [row.mtu() + 1, 2 * row.mtu(), 9000] {
                let packet = of_length(length.min(9000), |payload| make(V4, payload));
                let frames = pair.send(&packet);
                expect("is cut", frames.len() > 1, true)?;
                let mut payload = Vec::new();
                for (number, frame) in frames.iter().enumerate() {
                    expect("fits the link", frame.len() <= 14 + usize::from(row.wan_mtu), true)?;
                    // Reads the outer header as one of no fragment.
                    let piece = row.cell.read(frame).packet;
                    expect("came out", pair.deliver(frame.clone()), vec![after_hops(&piece, 1)])?;
                    let field = u16::from_be_bytes([piece[6], piece[7]]);
                    expect("offset", usize::from(field & 0x1fff) * 8, payload.len())?;
                    expect("more to come", field & 0x2000 != 0, number + 1 != frames.len())?;
                    // All but length, fragment, checksum and TTL.
                    expect("identification", &piece[4..6], &packet[4..6])?;
                    expect("header", (&piece[..2], piece[8], &piece[9..10], &piece[12..20]), {
                        (&packet[..2], packet[8] - 1, &packet[9..10], &packet[12..20])
                    })?;
                    payload.extend_from_slice(&piece[20..]);
                }
                expect(name, &payload[..], &packet[20..])?;
            }
        }
        let (near, far) = pair.finish();
        expect("drops", near.dropped() + far.dropped(), 0)?;
        expect("originated", near.originated, near.forwarded - near.received)
    });
}

/// RFC 8200 §5, RFC 2473 §7.1, RFC 4213 §3.2.1: no sender of IPv6 can go below 1,280 octets, so below that it is the outer
/// datagram that is cut; what is longer is told 1,280 and no less.
#[test]
fn ipv6_of_1280_octets_passes_however_narrow_the_path_is() {
    for cell in cells().into_iter().filter(|cell| cell.inner == V6) {
        for wan_mtu in [600, 1000, 1280, 1299] {
            let row = Row { cell, wan_mtu };
            if (cell.outer == V6 && wan_mtu < 1280) || row.mtu() >= 1280 {
                continue;
            }
            let mut pair = row.pair();
            let what = format!("{cell}, link MTU {wan_mtu}");
            for (name, make) in TRANSPORTS {
                for length in [row.mtu() + 1, 1280] {
                    let packet = long(V6, make, length);
                    let frames = pair.send(&packet);
                    assert!(frames.len() > 1, "{what}, {name} of {length}: {} frames", frames.len());
                    assert!(frames.iter().all(|frame| frame.len() <= 14 + usize::from(wan_mtu)), "{what}");
                    // DF would have a router on the way drop what it may cut.
                    assert!(frames.iter().all(|frame| frame[14] >> 4 == 6 || frame[20] & 0x40 == 0), "{what}");
                    let came: Vec<_> = frames.into_iter().flat_map(|frame| pair.deliver(frame)).collect();
                    assert_eq!(came, vec![after_hops(&packet, 2)], "{what}, {name} of {length}");
                }
                assert_eq!(pair.send(&long(V6, make, 1281)).len(), 0, "{what}");
                let heard = pair.heard();
                let answer = decoded(&heard[0]).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
                assert_eq!((answer.icmp, &answer.payload[4..8]), (Some((2, 0)), &[0, 0, 5, 0][..]), "{what}");
            }
            let (near, far) = pair.tunnels();
            assert_eq!((near.encapsulated_packets, far.decapsulated_packets), (4, 4), "{what}");
            pair.finish();
        }
    }
}

#[test]
fn the_mss_of_a_syn_is_lowered_both_ways_and_never_raised() {
    each(|row| {
        let mut pair = row.pair();
        let limit = row.mtu() as u16 - if row.cell.inner == V4 { 40 } else { 60 };
        for mss in [1, 536, limit - 1, limit, limit + 1, 8960, 65535] {
            let what = format!("MSS {mss}");
            let frames = pair.send(&syn(row.cell.inner, false, mss));
            let there = pair.deliver(frames[0].clone());
            let back = pair.answer(&syn(row.cell.inner, true, mss));
            for (way, got) in [("there", there), ("back", back)] {
                // The checksum of TCP is looked at too.
                let got = decoded(got.first().ok_or(format!("{what}, {way}: nothing came"))?)?;
                expect(&format!("{what}, {way}"), got.mss, Some(mss.min(limit)))?;
            }
        }
        pair.finish();
        Ok(())
    });
}

/// `mss = "off"` leaves it to path-MTU discovery.
#[test]
fn an_mss_is_left_alone_where_the_tunnel_says_so() {
    for cell in cells() {
        let mut pair = Pair::with(cell, "mss = \"off\"");
        let packet = syn(cell.inner, false, 1460);
        let frames = pair.send(&packet);
        assert_eq!(pair.deliver(frames[0].clone()), [after_hops(&packet, 2)], "{cell}");
    }
}

/// The file's `mtu` is what counts where it is less than what the path leaves.
#[test]
fn a_given_mtu_is_what_the_sender_is_told() {
    for cell in cells() {
        let mut pair = Pair::with(cell, "mtu = 1300");
        assert_eq!(pair.send(&of_length(1300, |payload| whole(udp(cell.inner, payload)))).len(), 1, "{cell}");
        assert_eq!(pair.send(&of_length(1301, |payload| whole(udp(cell.inner, payload)))).len(), 0, "{cell}");
        let answer = decoded(&pair.heard()[0]).unwrap_or_else(|wrong| panic!("{cell}: {wrong}"));
        assert_eq!(answer.payload[6..8], 1300_u16.to_be_bytes(), "{cell}");
        let mut pair = Pair::with(cell, "mtu = 9000");
        let fits = 1500 - cell.overhead();
        assert_eq!(pair.send(&of_length(fits + 1, |payload| whole(udp(cell.inner, payload)))).len(), 0, "{cell}");
        let answer = decoded(&pair.heard()[0]).unwrap_or_else(|wrong| panic!("{cell}: {wrong}"));
        assert_eq!(answer.payload[6..8], (fits as u16).to_be_bytes(), "{cell}");
    }
}
