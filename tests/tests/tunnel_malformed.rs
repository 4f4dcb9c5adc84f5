//! What another end may send that is not as the tunnel's RFC has it, for every type: it dies under the name for it, or is
//! let through where the RFC says so, and nothing else is counted.
#![forbid(unsafe_code)]

use dataplane::packet::DropReason::{
    BadChecksum, BadVersion, CriticalOption, InnerType, MartianSource, NoLocalPath, NotIp, NotOurMac, SpoofedSource,
    Truncated, TunnelChecksum, TunnelHeader, TunnelTruncated, UnknownKey, UnknownVni,
};
use dataplane::packet::{DropReason, Family::V4, Family::V6};
use etherparse::checksum::Sum16BitWords;
use integration::packets::{mend, udp};
use integration::pair::{Cell, Pair, cells};

/// Where a frame ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// At the server.
    Passes,
    /// Dropped.
    Drops(DropReason),
    /// With the host: it is no tunnel's.
    Host,
}

use Fate::{Drops, Host, Passes};

/// What it is, the frame, and where it ends.
type Case = (String, Vec<u8>, Fate);

/// The far gateway receives it: one packet more is where it should be, and nothing else has moved.
#[track_caller]
fn check(pair: &mut Pair, (name, frame, fate): Case) {
    let cell = pair.cell;
    let before = pair.far.totals();
    let got = pair.deliver(frame.clone());
    let after = pair.far.totals();
    let drops: Vec<_> = after
        .drops_by_name()
        .map(|(reason, count)| (reason, count - before.drops[reason as usize]))
        .filter(|(_, count)| *count != 0)
        .collect();
    let expected = Vec::from_iter(if let Drops(reason) = fate { Some((reason, 1)) } else { None });
    assert_eq!(drops, expected, "{cell}: {name}: {frame:02x?}");
    let moved = |of: fn(&dataplane::stats::Totals) -> u64| of(&after) - of(&before);
    assert_eq!(moved(|totals| totals.received), 1, "{cell}: {name}");
    assert_eq!(moved(|totals| totals.forwarded), u64::from(fate == Passes), "{cell}: {name}");
    assert_eq!((got.len() as u64, moved(|totals| totals.originated)), (u64::from(fate == Passes), 0), "{cell}: {name}");
    assert_eq!(moved(|totals| totals.punted()), u64::from(fate == Host), "{cell}: {name}");
}

/// Every row through every cell that it is for.
fn each(rows: impl Fn(Cell) -> Vec<Case>) {
    for cell in cells() {
        let mut pair = Pair::with(cell, "allowed_sources = [\"198.18.1.0/24\", \"2001:db8:1::/64\"]");
        rows(cell).into_iter().for_each(|case| check(&mut pair, case));
        let (_, far) = pair.finish();
        assert_eq!((far.queued, far.icmp_suppressed), (0, 0), "{cell}");
    }
}

fn row(name: impl Into<String>, frame: Vec<u8>, fate: Fate) -> Case {
    (name.into(), frame, fate)
}

/// The header with an octet changed, and the rest good.
fn changed(cell: Cell, at: usize, octet: u8) -> Vec<u8> {
    let mut header = cell.header();
    header[at] = octet;
    cell.frame(&header, &good(cell))
}

/// What is inside of a good one.
fn good(cell: Cell) -> Vec<u8> {
    cell.inside(&udp(cell.inner, 40))
}

const fn outer(cell: Cell) -> usize {
    match cell.outer {
        V4 => 20,
        V6 => 40,
    }
}

#[test]
fn a_frame_cut_at_any_octet_ends_here() {
    for cell in cells() {
        let mut pair = Pair::with(cell, "");
        let frame = cell.frame(&cell.header(), &good(cell));
        for end in 0..frame.len() {
            let before = pair.far.totals();
            assert!(pair.deliver(frame[..end].to_vec()).is_empty(), "{cell}: {end} octets");
            let after = pair.far.totals();
            // Where there is not enough to be sure that it is a tunnel's it is left to the kernel.
            let (punted, truncated) = (after.punted() - before.punted(), after.dropped() - before.dropped());
            assert_eq!(punted + truncated, 1, "{cell}: {end} octets");
            assert!(after.drops_by_name().all(|(reason, _)| reason == Truncated), "{cell}: {end}: {after:?}");
            // Everything that tells whose it is was there.
            assert!(truncated == 1 || end < 14 + outer(cell) + 8, "{cell}: {end} octets");
        }
        pair.finish();
    }
}

/// The outer lengths say what is there, and that is not enough.
#[test]
fn what_is_cut_further_in_dies_by_how_far_it_got() {
    each(|cell| {
        let (header, inside) = (cell.header(), good(cell));
        let of_header = (0..header.len()).map(|end| {
            row(format!("{end} octets of the header"), cell.frame(&header[..end], &[]), Drops(TunnelTruncated))
        });
        let of_inside = (0..inside.len())
            .map(|end| row(format!("{end} octets inside"), cell.frame(&header, &inside[..end]), Drops(Truncated)));
        let more = row("padding inside", cell.frame(&header, &[&inside[..], &[0xee; 19]].concat()), Passes);
        of_header.chain(of_inside).chain([more]).collect()
    });
}

#[test]
fn what_is_between_other_ends_is_no_tunnels() {
    each(|cell| {
        let frame = cell.frame(&cell.header(), &good(cell));
        let edited = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            let end = 14 + outer(cell);
            mend(&mut frame[14..end]);
            frame
        };
        let (source, protocol) = if cell.outer == V4 { (29, 23) } else { (37, 20) };
        let mut rows = vec![
            row("from another source", edited(source, 9), Host),
            row("of another protocol", edited(protocol, 89), Host),
        ];
        if cell.kind.port.is_some() {
            rows.push(row("to another port", edited(14 + outer(cell) + 3, 0x35), Host));
        }
        rows
    });
}

#[test]
fn udp_is_as_long_as_it_says_and_its_checksum_is_right_or_zero() {
    each(|cell| {
        if cell.kind.port.is_none() {
            return Vec::new();
        }
        let frame = cell.frame(&cell.header(), &good(cell));
        let udp = 14 + outer(cell);
        let length = (frame.len() - udp) as u16;
        let with_length = |length: u16| {
            let mut frame = frame.clone();
            frame[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
            frame[udp + 6..udp + 8].fill(0);
            frame
        };
        let spoilt = |at: usize| {
            let mut frame = frame.clone();
            frame[at] ^= 1;
            frame
        };
        let mut rows = vec![row("no checksum", with_length(length), Passes)];
        for other in [0, 7, 8, length - 1, length + 1, u16::MAX] {
            rows.push(row(format!("UDP length {other}"), with_length(other), Drops(TunnelTruncated)));
        }
        // Ports and lengths decide before the checksum does; a change of the checksum itself counts.
        for at in [udp, udp + 6, udp + 7, udp + 8, udp + 20, frame.len() - 1] {
            rows.push(row(format!("octet {at} spoilt"), spoilt(at), Drops(TunnelChecksum)));
        }
        rows
    });
}

#[test]
fn vxlan_needs_its_flag_and_its_identifier() {
    each(|cell| {
        if cell.kind.name != "vxlan" {
            return Vec::new();
        }
        vec![
            row("good", changed(cell, 0, 8), Passes),
            row("no I flag", changed(cell, 0, 0xf7), Drops(TunnelHeader)),
            row("reserved flags", changed(cell, 0, 0xff), Passes),
            row("reserved octets", changed(cell, 2, 0xff), Passes),
            row("the last reserved octet", changed(cell, 7, 0xff), Passes),
            row("another VNI", changed(cell, 6, 0x8a), Drops(UnknownVni)),
            row("VNI 0", cell.frame(&[8, 0, 0, 0, 0, 0, 0, 0], &good(cell)), Drops(UnknownVni)),
        ]
    });
}

/// A GENEVE frame with these octets as options.
fn with_options(cell: Cell, words: u8, options: &[u8]) -> Vec<u8> {
    let mut header = cell.header();
    header[0] |= words;
    cell.frame(&[&header[..], options].concat(), &good(cell))
}

#[test]
fn geneve_reads_over_options_and_refuses_what_it_must_not() {
    each(|cell| {
        if cell.kind.port != Some(6081) {
            return Vec::new();
        }
        let other = if cell.kind.ethernet { [8, 0] } else { [0x65, 0x58] };
        let of_type = |octets: [u8; 2]| {
            let mut header = cell.header();
            header[2..4].copy_from_slice(&octets);
            cell.frame(&header, &good(cell))
        };
        let mut rows = vec![
            row("version 1", changed(cell, 0, 0x40), Drops(TunnelHeader)),
            row("a control message", changed(cell, 1, 0x80), Drops(TunnelHeader)),
            row("C without a critical option", changed(cell, 1, 0x40), Passes),
            row("reserved flags", changed(cell, 1, 0x3f), Passes),
            row("the reserved octet", changed(cell, 7, 0xff), Passes),
            row("another VNI", changed(cell, 6, 0x8a), Drops(UnknownVni)),
            row("ARP inside", of_type([8, 6]), Drops(InnerType)),
            row("what the tunnel does not carry", of_type(other), Drops(InnerType)),
            row("an empty option", with_options(cell, 1, &[1, 2, 3, 0]), Passes),
            row("reserved bits of an option", with_options(cell, 1, &[1, 2, 3, 0xe0]), Passes),
            row("a critical option", with_options(cell, 1, &[1, 2, 0x83, 0]), Drops(CriticalOption)),
            row(
                "a critical one behind another",
                with_options(cell, 3, &[1, 2, 3, 1, 9, 9, 9, 9, 1, 2, 0x80, 0]),
                Drops(CriticalOption),
            ),
            row("an option that overruns", with_options(cell, 1, &[1, 2, 3, 1]), Drops(TunnelHeader)),
            row("a second that overruns", with_options(cell, 2, &[1, 2, 3, 0, 1, 2, 3, 5]), Drops(TunnelHeader)),
            row("options beyond the packet", cell.frame(&[63, 0, 0x65, 0x58, 0, 0x13, 0x89, 0], &[1; 200]), {
                Drops(TunnelTruncated)
            }),
        ];
        for words in 1..=63_u8 {
            // The longest option is of 31 words beside its head.
            let mut options = Vec::new();
            let mut left = words;
            while left != 0 {
                let data = (left - 1).min(31);
                options.extend([&[1, 2, 3, data][..], &vec![data; usize::from(data) * 4]].concat());
                left -= 1 + data;
            }
            rows.push(row(format!("options of {words} words"), with_options(cell, words, &options), Passes));
        }
        rows
    });
}

/// A GRE header of these flags, and fields in their order, with the type of what is inside.
fn gre(cell: Cell, flags: u16, fields: &[[u8; 4]]) -> Vec<u8> {
    let ethertype = &cell.header()[2..4];
    [&flags.to_be_bytes(), ethertype, &fields.concat()].concat()
}

#[test]
fn gre_checks_what_it_is_given_and_refuses_what_it_does_not_know() {
    const KEY: [u8; 4] = [0, 0, 0x13, 0x89];
    each(|cell| {
        if !cell.kind.name.starts_with("gre") {
            return Vec::new();
        }
        let (flags, key) = if cell.kind.name.ends_with("key") { (0x2000, vec![KEY]) } else { (0, vec![]) };
        let frame = |header: Vec<u8>| cell.frame(&header, &good(cell));
        let plain = |more: u16| frame(gre(cell, flags | more, &key));
        let summed = |spoil: u8, more: u16, behind: &[[u8; 4]]| {
            let fields = [&[[0; 4]][..], &key, behind].concat();
            let mut header = gre(cell, flags | more | 0x8000, &fields);
            let sum = Sum16BitWords::new().add_slice(&header).add_slice(&good(cell)).ones_complement();
            header[4..6].copy_from_slice(&sum.to_ne_bytes());
            header[5] ^= spoil;
            frame(header)
        };
        let of_type = |octets: [u8; 2]| {
            let mut header = cell.header();
            header[2..4].copy_from_slice(&octets);
            frame(header)
        };
        let other = if cell.kind.ethernet { [8, 0] } else { [0x65, 0x58] };
        let mut rows = vec![
            row("good", plain(0), Passes),
            row("reserved bits 6 to 12", plain(0x03f8), Passes),
            row("a right checksum", summed(0, 0, &[]), Passes),
            row("a wrong checksum", summed(1, 0, &[]), Drops(TunnelChecksum)),
            row("a sequence number", frame(gre(cell, flags | 0x1000, &[&key[..], &[[0, 0, 0, 9]]].concat())), Passes),
            row("checksum and sequence number", summed(0, 0x1000, &[[1, 2, 3, 4]]), Passes),
            row("the same, wrong", summed(0x80, 0x1000, &[[1, 2, 3, 4]]), Drops(TunnelChecksum)),
            row("ARP inside", of_type([8, 6]), Drops(InnerType)),
            row("what the tunnel does not carry", of_type(other), Drops(InnerType)),
            row("another key", frame(gre(cell, 0x2000, &[[0, 0, 0x13, 0x8a]])), Drops(UnknownKey)),
            row("key 0", frame(gre(cell, 0x2000, &[[0; 4]])), Drops(UnknownKey)),
            row("a key that is cut", cell.frame(&gre(cell, 0x2000, &[])[..4], &[0, 0]), Drops(TunnelTruncated)),
        ];
        let (without, fate) = (frame(gre(cell, 0, &[])), if flags == 0 { Passes } else { Drops(UnknownKey) });
        rows.push(row("no key", without, fate));
        rows.extend((1..8).map(|version| row(format!("version {version}"), plain(version), Drops(TunnelHeader))));
        for bit in [0x4000, 0x0800, 0x0400] {
            rows.push(row(format!("bit {bit:04x} of RFC 1701"), plain(bit), Drops(TunnelHeader)));
        }
        rows
    });
}

#[test]
fn what_comes_out_gets_every_check_of_what_comes_in() {
    each(|cell| {
        let header = cell.header();
        let of = |packet: &[u8]| cell.frame(&header, &cell.inside(packet));
        let edited = |at: usize, octet: u8| {
            let mut packet = udp(cell.inner, 40);
            packet[at] = octet;
            packet
        };
        let mended = |mut packet: Vec<u8>| {
            mend(&mut packet);
            packet
        };
        let (source, wrong_version) = if cell.inner == V4 { (14, 0x65) } else { (13, 0x45) };
        let mut rows = vec![
            row("another version", of(&edited(0, wrong_version)), Drops(BadVersion)),
            row("a source from elsewhere", of(&mended(edited(source, 0x77))), Drops(SpoofedSource)),
        ];
        // An outer checksum that is computed from the inner one is as right as that.
        if cell.inner == V4 {
            rows.push(row("a wrong header checksum", of(&edited(10, 0)), Drops(BadChecksum)));
            rows.push(row("from loopback", of(&mended(edited(12, 127))), Drops(MartianSource)));
            rows.push(row(
                "to a group",
                of(&mended(edited(16, 224))),
                Drops(if cell.kind.ethernet { DropReason::MartianDestination } else { NoLocalPath }),
            ));
        } else {
            rows.push(row("from a group", of(&edited(8, 0xff)), Drops(MartianSource)));
        }
        if cell.kind.ethernet {
            let frame = |at: usize, octets: &[u8]| {
                let mut inside = good(cell);
                inside[at..at + octets.len()].copy_from_slice(octets);
                cell.frame(&header, &inside)
            };
            rows.push(row("another MAC", frame(0, &[2, 0, 0, 0, 9, 9]), Drops(NotOurMac)));
            rows.push(row("to all stations", frame(0, &[0xff; 6]), Drops(NoLocalPath)));
            rows.push(row("ARP", frame(12, &[8, 6]), Drops(NotIp)));
            rows.push(row("a VLAN tag", frame(12, &[0x81, 0]), Drops(NotIp)));
            let other = if cell.inner == V6 { [8, 0] } else { [0x86, 0xdd] };
            rows.push(row("the type of the other IP", frame(12, &other), Drops(BadVersion)));
        }
        rows
    });
}
