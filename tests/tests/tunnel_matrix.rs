//! Every tunnel type, with every packet that it carries, over every underlay: what one gateway puts in, another takes out
//! as it was.
//!
//! What is on the link between is read by etherparse and by a table of octets, never by Penstock.
#![forbid(unsafe_code)]

use dataplane::packet::Family::{self, V4, V6};
use integration::packets::{after_hops, data, echo, mend, of_length, syn, tcp, udp, whole};
use integration::pair::{Cell, Pair, Setup, cells};

const WRONG: &str = "a wrong UDP checksum";

/// Packets of every kind, with names.
fn packets(family: Family) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = [0, 1, 2, 17, 64, 500, 1001]
        .into_iter()
        .flat_map(|size| {
            [("UDP", udp(family, size)), ("TCP", tcp(family, size)), ("ICMP", echo(family, size))]
                .map(|(name, packet)| (format!("{name} with {size} octets"), packet))
        })
        .collect();
    all.push(("a SYN".into(), syn(family, false, 500)));
    let of_protocol = |protocol: u8| {
        let mut packet = udp(family, 40);
        packet[if family == V4 { 9 } else { 6 }] = protocol;
        mend(&mut packet);
        packet
    };
    all.extend([1, 47, 50, 132, 253].map(|protocol| (format!("protocol {protocol}"), of_protocol(protocol))));
    // Too short for a checksum.
    for (name, protocol, length) in
        [("a cut TCP header", 6, 12), ("a cut UDP header", 17, 5), ("TCP with nothing", 6, 0)]
    {
        let mut packet = of_protocol(protocol);
        packet.truncate(if family == V4 { 20 } else { 40 } + length);
        set_length(&mut packet);
        all.push((name.into(), packet));
    }
    // UDP options (RFC 9868): octets behind what UDP's length and checksum cover.
    let mut surplus = udp(family, 40);
    surplus.extend(data(13));
    set_length(&mut surplus);
    all.push(("UDP shorter than its packet".into(), surplus));
    let transport = if family == V4 { 20 } else { 40 };
    for (name, octets) in [("no UDP checksum", [0, 0]), (WRONG, [0x12, 0x34])] {
        let mut packet = udp(family, 33);
        packet[transport + 6..transport + 8].copy_from_slice(&octets);
        all.push((name.into(), packet));
    }
    all.extend(match family {
        V4 => only_v4(),
        V6 => only_v6(),
    });
    all
}

fn only_v4() -> Vec<(String, Vec<u8>)> {
    // Router alert, and an option with an odd length (RFC 791 §3.1).
    let mut options = udp(V4, 77);
    options.splice(20..20, [148, 4, 0, 0, 131, 7, 4, 1, 2, 3, 4, 0]);
    options[0] = 0x48;
    set_length(&mut options);
    let fragment = |field: u16| {
        let mut packet = udp(V4, 64);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        mend(&mut packet);
        packet
    };
    let mut bare = udp(V4, 0);
    bare.truncate(20);
    set_length(&mut bare);
    vec![
        ("IPv4 options".into(), options),
        ("the first fragment".into(), fragment(0x2000)),
        ("a middle fragment".into(), fragment(0x2009)),
        ("the last fragment".into(), fragment(0x0012)),
        ("a header alone".into(), bare),
        ("a packet with DF".into(), whole(udp(V4, 50))),
    ]
}

fn only_v6() -> Vec<(String, Vec<u8>)> {
    // Each names the next (RFC 8200 §4); the lengths are in words of eight octets behind the first.
    let extended = |first: u8, headers: &[u8]| {
        let mut packet = udp(V6, 77);
        packet.splice(40..40, headers.iter().copied());
        packet[6] = first;
        set_length(&mut packet);
        packet
    };
    let mut bare = udp(V6, 0);
    bare.truncate(40);
    bare[6] = 59;
    set_length(&mut bare);
    vec![
        ("hop-by-hop options".into(), extended(0, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("destination options".into(), extended(60, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        (
            "routing of type 4".into(),
            extended(43, &[17, 2, 4, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
        ),
        ("an atomic fragment".into(), extended(44, &[17, 0, 0, 0, 0, 0, 0, 9])),
        ("the first fragment".into(), extended(44, &[17, 0, 0, 1, 0, 0, 0, 9])),
        ("a later fragment".into(), extended(44, &[17, 0, 0, 0x48, 0, 0, 0, 9])),
        (
            "a chain of headers".into(),
            extended(0, &[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 9]),
        ),
        ("a header alone".into(), bare),
    ]
}

/// Makes the length of the IP header that of the packet, and its checksum right.
fn set_length(packet: &mut [u8]) {
    let length = packet.len() as u16;
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    } else {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        mend(packet);
    }
}

/// One packet from end to end: one frame on the link, of exactly that much more, and the packet back.
#[track_caller]
fn check(pair: &mut Pair, name: &str, packet: &[u8]) {
    let cell = pair.cell;
    let frames = pair.send(packet);
    let [frame] = frames.as_slice() else { panic!("{cell}: {name}: {} frames", frames.len()) };
    assert_eq!(frame.len(), 14 + cell.overhead() + packet.len(), "{cell}: {name}");
    let seen = cell.read(frame);
    assert_eq!(seen.packet, after_hops(packet, 1), "{cell}: {name}: on the link");
    assert!(seen.source_port.is_none_or(|port| port >= 0xc000), "{cell}: {name}: {seen:?}");
    let got = pair.deliver(frame.clone());
    let drops = pair.far_drops();
    assert_eq!(got, [after_hops(packet, 2)], "{cell}: {name}: at the server; {drops:?}");
}

/// All packets through all cells, and what was counted.
fn check_all(setup: Setup<'_>, packets: impl Fn(Cell) -> Vec<(String, Vec<u8>)>) {
    for cell in cells() {
        let mut pair = Pair::new(cell, setup);
        let packets = packets(cell);
        packets.iter().for_each(|(name, packet)| check(&mut pair, name, packet));
        let (count, octets) = (packets.len() as u64, packets.iter().map(|(_, packet)| packet.len() as u64).sum());
        let (near, far) = pair.tunnels();
        assert_eq!((near.encapsulated_packets, near.encapsulated_bytes), (count, octets), "{cell}");
        assert_eq!((far.decapsulated_packets, far.decapsulated_bytes), (count, octets), "{cell}");
        let others = (near.decapsulated_packets, near.dropped, near.ecn_alarms, far.encapsulated_packets, far.dropped);
        assert_eq!((others, far.ecn_alarms), ((0, 0, 0, 0, 0), 0), "{cell}");
        let (near, far) = pair.finish();
        for totals in [near, far] {
            assert_eq!((totals.received, totals.forwarded), (count, count), "{cell}: {totals:?}");
        }
    }
}

#[test]
fn what_one_gateway_puts_into_a_tunnel_another_takes_out_as_it_was() {
    check_all(Setup::default(), |cell| {
        // Over IPv6 there is an outer UDP checksum, and that is as wrong as the one it is computed from.
        let wrong_too = cell.kind.port.is_some() && cell.outer == V6;
        packets(cell.inner).into_iter().filter(|(name, _)| !wrong_too || name != WRONG).collect()
    });
}

/// The full outer checksum is computed from the inner one where there is one: none of the packets must mislead it, but the
/// one whose own is wrong.
#[test]
fn the_same_with_an_outer_checksum_over_everything() {
    for cell in cells().into_iter().filter(|cell| cell.kind.port.is_some()) {
        let mut pair = Pair::with(cell, "checksum = \"full\"");
        for (name, packet) in packets(cell.inner) {
            let frames = pair.send(&packet);
            let seen = cell.read(&frames[0]);
            // Who gets a packet whose checksum is wrong drops it: the tunnel's other end may as well.
            assert_eq!((seen.has_checksum, seen.checksum_is_right), (true, name != WRONG), "{cell}: {name}");
            if seen.checksum_is_right {
                assert_eq!(pair.deliver(frames[0].clone()), [after_hops(&packet, 2)], "{cell}: {name}");
            }
        }
        pair.finish();
    }
}

#[test]
fn every_size_up_to_the_mtu_passes() {
    check_all(Setup::default(), |cell| {
        let mtu = 1500 - cell.overhead();
        let sizes = (48..mtu).step_by(97).chain(mtu - 3..=mtu);
        sizes.map(|size| (format!("{size} octets"), of_length(size, |payload| udp(cell.inner, payload)))).collect()
    });
}

/// Packets of several chunks, in links that carry them; lengths around those at which a chunk ends.
#[test]
fn jumbo_packets_pass_in_several_chunks() {
    let setup = Setup { lan_mtu: 9000, wan_mtu: 9000, ..Setup::default() };
    check_all(setup, |cell| {
        let mtu = 9000 - cell.overhead();
        let ends = [1648, 1664, 3500, 3696, 5744].into_iter().flat_map(|end| end - 40..end + 40).step_by(7);
        ends.chain([2500, 7001, mtu - 1, mtu])
            .flat_map(|size| {
                [
                    (format!("UDP of {size} octets"), of_length(size, |payload| udp(cell.inner, payload))),
                    (format!("ICMP of {size} octets"), of_length(size, |payload| echo(cell.inner, payload))),
                ]
            })
            .collect()
    });
}
