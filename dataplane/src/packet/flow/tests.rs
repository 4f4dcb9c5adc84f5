use super::*;
use crate::packet::Packet;
use crate::testing::{CLIENT_V4, CLIENT_V6, FAR_V4, FAR_V6, raw_v4, udp_v4, udp_v6, v6, with_ip, written};
use etherparse::{IpFragOffset, PacketBuilder};
use proptest::prelude::*;

const FLOW: FlowHash = FlowHash::new(0, false);
const SYMMETRIC: FlowHash = FlowHash::new(0, true);

fn flow(hash: &FlowHash, ip: &[u8]) -> u32 {
    with_ip(14, ip, |packet: &mut Packet| packet.parse(hash).map(|()| packet.flow)).expect("a good packet")
}

/// The checksum of a changed IPv4 header made right again.
fn with(ip: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut ip = ip.to_vec();
    change(&mut ip);
    if ip[0] >> 4 == 4 {
        let header: &mut wire::Ipv4 = wire::header_mut(&mut ip, 0).expect("a header");
        header.checksum = wire::Be16::new(header.computed_checksum(&[]));
    }
    ip
}

/// A RoCEv2 packet: a base transport header to a queue pair, in UDP from a port.
fn roce(is_v6: bool, port: u16, qp: u32) -> Vec<u8> {
    let [_, high, middle, low] = qp.to_be_bytes();
    let bth = [0x04, 0x40, 0xff, 0xff, 0, high, middle, low, 0, 0, 0, 1];
    if is_v6 {
        written(PacketBuilder::ipv6(v6(CLIENT_V6), v6(FAR_V6), 64).udp(port, ROCE), &bth)
    } else {
        written(PacketBuilder::ipv4(CLIENT_V4, FAR_V4, 64).udp(port, ROCE), &bth)
    }
}

#[test]
fn what_all_packets_of_a_flow_share_is_hashed_and_nothing_else() {
    let (v4, v6) = (udp_v4(FAR_V4, b"12345678"), udp_v6(FAR_V6, b"12345678"));
    // Source, destination, protocol, ports.
    for at in [12, 15, 16, 19, 20, 21, 22, 23] {
        assert_ne!(flow(&FLOW, &v4), flow(&FLOW, &with(&v4, |ip| ip[at] ^= 1)), "octet {at}");
    }
    assert_ne!(flow(&FLOW, &v4), flow(&FLOW, &with(&v4, |ip| ip[9] = protocol::TCP)));
    // TOS, identification, DF, TTL, UDP length and checksum, payload.
    for (at, value) in [(1, 0xb8), (4, 7), (5, 7), (6, 0x40), (8, 3), (25, 1), (26, 9), (27, 9), (28, 0), (35, 0)] {
        assert_eq!(flow(&FLOW, &v4), flow(&FLOW, &with(&v4, |ip| ip[at] = value)), "octet {at}");
    }
    // Flow label, source, destination, ports.
    for at in [1, 2, 3, 9, 23, 25, 39, 40, 41, 42, 43] {
        assert_ne!(flow(&FLOW, &v6), flow(&FLOW, &with(&v6, |ip| ip[at] ^= 1)), "octet {at}");
    }
    for at in [7, 45, 46, 50] {
        assert_eq!(flow(&FLOW, &v6), flow(&FLOW, &with(&v6, |ip| ip[at] ^= 1)), "octet {at}");
    }
    assert_eq!(flow(&FLOW, &v6), flow(&FLOW, &with(&v6, |ip| ip[0] |= 0xb)), "the traffic class");
}

/// Every fourth octet of what is behind the header would be a port, if it had ports.
#[test]
fn a_protocol_without_ports_has_addresses_and_its_number() {
    let of = |protocol: u8, payload: &[u8]| {
        flow(&FLOW, &raw_v4(FAR_V4, payload, |header| header.protocol = etherparse::IpNumber(protocol)))
    };
    assert_eq!(of(protocol::ICMP, &[8, 0, 1, 2, 3, 4, 5, 6]), of(protocol::ICMP, &[9; 8]));
    assert_ne!(of(protocol::ICMP, &[9; 8]), of(253, &[9; 8]));
    assert_ne!(of(protocol::SCTP, &[8, 0, 1, 2, 3, 4, 5, 6]), of(protocol::SCTP, &[9; 8]));
    // Too short to have any.
    for length in 0..4 {
        assert_eq!(of(protocol::TCP, &vec![7; length]), of(protocol::TCP, &[]), "{length} octets");
    }
}

#[test]
fn roce_v2_has_its_destination_queue_pair() {
    for is_v6 in [false, true] {
        let ip = roce(is_v6, 49152, 0x12_3456);
        let bth = ip.len() - 12;
        for bit in 0..24 {
            assert_ne!(flow(&FLOW, &ip), flow(&FLOW, &roce(is_v6, 49152, 0x12_3456 ^ 1 << bit)), "bit {bit}");
        }
        // Opcode, flags, partition key, the reserved octet, sequence number.
        for at in [0, 1, 2, 3, 4, 8, 11] {
            assert_eq!(flow(&FLOW, &ip), flow(&FLOW, &with(&ip, |ip| ip[bth + at] ^= 1)), "octet {at} of the BTH");
        }
        let other = with(&ip, |ip| ip[bth - 5] ^= 1);
        assert_eq!(flow(&FLOW, &other), flow(&FLOW, &with(&other, |ip| ip[bth + 7] ^= 1)), "another port");
    }
    // Cut within the BTH.
    let short = |payload: &[u8]| written(PacketBuilder::ipv4(CLIENT_V4, FAR_V4, 64).udp(49152, ROCE), payload);
    assert_eq!(flow(&FLOW, &short(&[1; 7])), flow(&FLOW, &short(&[])));
}

#[test]
fn fragments_of_a_packet_stay_together() {
    for hash in [FLOW, SYMMETRIC] {
        let v4 = |offset: u16, more: bool, payload: &[u8]| {
            let ip = raw_v4(FAR_V4, payload, |header| {
                header.protocol = etherparse::ip_number::UDP;
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
            });
            flow(&hash, &ip)
        };
        let first = v4(0, true, &[0xc0, 0, 0x12, 0xb7, 0, 40, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(first, v4(2, true, &[9; 16]));
        assert_eq!(first, v4(4, false, &[7; 3]));
        assert_ne!(first, v4(0, false, &[0xc0, 0, 0x12, 0xb7, 0, 40, 0, 0]));
        // Behind the fragment header only the first has the destination options and the UDP header behind them.
        let v6 = |offset: u16, more: bool, payload: &[u8]| {
            let mut ip = udp_v6(FAR_V6, &[]);
            ip.truncate(40);
            ip[5] = 8 + payload.len() as u8;
            ip[6] = protocol::FRAGMENT;
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            ip.extend([60, 0, high, low, 0, 0, 0, 7]);
            ip.extend(payload);
            flow(&hash, &ip)
        };
        let first = v6(0, true, &[protocol::UDP, 0, 1, 4, 0, 0, 0, 0, 0xc0, 0, 0x12, 0xb7, 0, 8, 0, 0]);
        assert_eq!(first, v6(2, true, &[9; 16]));
        assert_eq!(first, v6(4, false, &[7; 3]));
    }
}

#[test]
fn both_directions_are_one_flow_on_request_also_of_roce() {
    let answer = |ip: &[u8], port: u16, qp: u8| {
        let ends = if ip[0] >> 4 == 4 { 12..20 } else { 8..40 };
        let half = ends.len() / 2;
        with(ip, |ip| {
            ip[ends].rotate_left(half);
            let at = ip.len() - 20;
            ip[at..at + 2].copy_from_slice(&port.to_be_bytes());
            *ip.last_chunk_mut::<5>().expect("a BTH") = [qp; 5];
        })
    };
    for is_v6 in [false, true] {
        let asked = roce(is_v6, 49152, 0x12_3456);
        let answered = answer(&asked, 50000, 9);
        assert_eq!(flow(&SYMMETRIC, &asked), flow(&SYMMETRIC, &answered));
        assert_ne!(flow(&FLOW, &asked), flow(&FLOW, &answered));
    }
}

/// Two gateways that run on different machines choose alike, and so does the next version.
#[test]
fn the_same_on_every_machine_and_in_every_version() {
    let packets = [udp_v4(FAR_V4, b"1"), udp_v6(FAR_V6, b"1"), roce(false, 49152, 0x12_3456), roce(true, 49152, 7)];
    let of = |hash: FlowHash| packets.each_ref().map(|ip| flow(&hash, ip));
    assert_eq!(of(FLOW), [0xa420_aa06, 0xe550_4a69, 0x8056_a6b6, 0x8ca5_1425]);
    assert_eq!(of(SYMMETRIC), [0xda50_bb16, 0xe550_4a69, 0xadfd_0ff8, 0x703c_c5e3]);
    let other = FlowHash::new(u64::MAX, false);
    assert_eq!(of(other), [0xa618_8d08, 0x6aa0_39dd, 0xa512_f671, 0xf8cd_b89d]);
}

/// By how many standard deviations a spread over equal buckets is worse than chance's: Pearson's χ², whose mean is
/// the degrees of freedom and whose variance is twice that.
fn excess(buckets: &[u32]) -> f64 {
    let flows: u32 = buckets.iter().sum();
    let expected = f64::from(flows) / buckets.len() as f64;
    let chi: f64 = buckets.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    let freedom = (buckets.len() - 1) as f64;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

/// A name, and the source, destination and transport of each flow by its number.
type Sequence = (&'static str, fn(u32) -> (u128, u128, u64));

/// Flows as sites have them: numbers that follow upon each other.
fn sequences() -> Vec<Sequence> {
    const TCP: u64 = 443 << 8 | 6;
    const QP: u64 = 49152 << 24 | 4791 << 8 | 17;
    const A: u128 = 0x0a00_0001;
    const B: u128 = 0x0a14_0000;
    vec![
        ("destinations", |i| (A, B + u128::from(i), TCP)),
        ("sources", |i| (A + u128::from(i), B, TCP)),
        ("sources and destinations", |i| (A + u128::from(i >> 9), B + u128::from(i & 511), TCP)),
        ("subnets", |i| (A + u128::from(i >> 9) * 256, B + u128::from(i & 511) * 256, TCP)),
        ("source ports and destinations", |i| (A, B + u128::from(i >> 12), TCP | u64::from(i & 0xfff | 0xc000) << 24)),
        ("both ports", |i| (A, B, u64::from(i & 511 | 0xc000) << 24 | u64::from(i >> 9) << 8 | 6)),
        ("queue pairs", |i| (A, B, QP | u64::from(i) << 40)),
        ("sources and queue pairs", |i| (A + u128::from(i >> 9), B, QP | u64::from(17 + (i & 511)) << 40)),
        ("all to all, 64 queue pairs each", |i| {
            (A + u128::from(i >> 12), B + u128::from(i >> 6 & 63), QP | u64::from(17 + (i & 63)) << 40)
        }),
    ]
}

/// Over buckets, over source ports, over the ports of each sixteenth of the buckets, and over the buckets of two
/// tiers at once: as even as chance makes it, no matter which numbers follow upon each other.
#[test]
fn flows_that_follow_upon_each_other_spread_as_by_chance() {
    const FLOWS: u32 = 1 << 17;
    for seed in [0, 1, 2, 0xdead_beef, u64::MAX] {
        let hashes = [FlowHash::new(seed, false), FlowHash::new(seed, true)];
        let next = FlowHash::new(seed.wrapping_add(1), false);
        for (name, make) in sequences() {
            // A symmetric hash leaves queue pairs out: one flow only.
            let hashes = hashes.iter().filter(|hash| !hash.symmetric || !name.contains("queue pairs"));
            for (hash, is_v6) in hashes.flat_map(|hash| [(hash, false), (hash, true)]) {
                let mut buckets = vec![0; 4096];
                let mut ports = vec![0; 1 << 14];
                let mut ports_by_bucket = vec![0; 1 << 14];
                let mut tiers = vec![0; 4096];
                for at in 0..FLOWS {
                    let (source, destination, word) = make(at);
                    let of = |hash: &FlowHash| {
                        let transport = Transport { word };
                        let net = 0x2001_0db8 << 96;
                        match is_v6 {
                            true => hash.v6(net | source, net | destination << 64, 0, transport),
                            false => hash.v4(source as u32, destination as u32, transport),
                        }
                    };
                    let flow = of(hash);
                    let (top, port) =
                        (((u64::from(flow) * 4096) >> 32) as usize, usize::from(FlowHash::port(flow) & 0x3fff));
                    buckets[top] += 1;
                    ports[port] += 1;
                    ports_by_bucket[top >> 8 << 10 | port >> 4] += 1;
                    tiers[top >> 6 << 6 | (of(&next) >> 26) as usize] += 1;
                }
                for (what, counts) in
                    [("buckets", buckets), ("ports", ports), ("ports of a bucket", ports_by_bucket), ("tiers", tiers)]
                {
                    let excess = excess(&counts);
                    assert!(excess < 6.0, "seed {seed}, {hash:?}, {name}, {what}: {excess:.1} deviations");
                }
            }
        }
    }
}

/// One bit of what goes in changes each bit of what comes out, every other time.
#[test]
fn every_bit_counts() {
    const FLOWS: u32 = 4096;
    // Six deviations of a fair coin thrown that often.
    let fair = f64::from(FLOWS) / 2.0 - 6.0 * 32.0..f64::from(FLOWS) / 2.0 + 6.0 * 32.0;
    let mut seed = 0;
    let mut random = || {
        seed += 1;
        draw(77, seed)
    };
    for bit in 0..128 + 128 + 20 + 64 {
        let (mut v4, mut v6) = ([0u32; 32], [0u32; 32]);
        for _ in 0..FLOWS {
            let [a, b, c, d, word, label] = [(); 6].map(|()| random());
            let (source, destination) = (u128::from(a) << 64 | u128::from(b), u128::from(c) << 64 | u128::from(d));
            let (mut s, mut t, mut l, mut w) = (source, destination, label as u32 & 0x000f_ffff, word);
            match bit {
                0..128 => s ^= 1 << bit,
                128..256 => t ^= 1 << (bit - 128),
                256..276 => l ^= 1 << (bit - 256),
                _ => w ^= 1 << (bit - 276),
            }
            let changed4 = FLOW.v4(source as u32, destination as u32, Transport { word })
                ^ FLOW.v4(s as u32, t as u32, Transport { word: w });
            let changed6 = FLOW.v6(source, destination, label as u32 & 0x000f_ffff, Transport { word })
                ^ FLOW.v6(s, t, l, Transport { word: w });
            for (counts, changed) in [(&mut v4, changed4), (&mut v6, changed6)] {
                counts.iter_mut().enumerate().for_each(|(out, count)| *count += changed >> out & 1);
            }
        }
        let in_v4 = matches!(bit, 0..32 | 128..160 | 276..);
        for (family, counts) in [("IPv4", v4), ("IPv6", v6)].iter().filter(|(family, _)| *family == "IPv6" || in_v4) {
            for (out, count) in counts.iter().enumerate() {
                assert!(
                    fair.contains(&f64::from(*count)),
                    "{family}: bit {bit} of the flow, {out} of the hash: {count}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn a_symmetric_hash_is_blind_to_direction_and_a_plain_one_is_not(
        seed: u64, v6_ends: [u128; 2], label: u32, answers: u32, ports: [u16; 2], protocol in prop::sample::select(&[1u8, 6, 17, 47, 132][..]),
        same_ends: bool,
    ) {
        let [a, b] = if same_ends { [v6_ends[0]; 2] } else { v6_ends };
        let word = |from: u16, to: u16| match protocol {
            6 | 17 | 132 => Transport { word: u64::from(from) << 24 | u64::from(to) << 8 | u64::from(protocol) },
            _ => Transport { word: protocol.into() },
        };
        let [from, to] = ports;
        let (asked, answered) = (word(from, to), word(to, from));
        let [symmetric, plain] = [true, false].map(|symmetric| FlowHash::new(seed, symmetric));
        let v4 = |hash: &FlowHash| (hash.v4(a as u32, b as u32, asked), hash.v4(b as u32, a as u32, answered));
        let v6 = |hash: &FlowHash| (hash.v6(a, b, label, asked), hash.v6(b, a, answers, answered));
        prop_assert_eq!(v4(&symmetric).0, v4(&symmetric).1);
        prop_assert_eq!(v6(&symmetric).0, v6(&symmetric).1);
        if a as u32 != b as u32 {
            prop_assert_ne!(v4(&plain).0, v4(&plain).1);
            prop_assert_ne!(v6(&plain).0, v6(&plain).1);
        }
    }

    /// One end apart, or one port: another flow, whichever way it is asked.
    #[test]
    fn a_symmetric_hash_tells_flows_apart(a: u32, b: u32, c: u32, from: u16, to: u16, other: u16) {
        prop_assume!(c != a && c != b && other != from && other != to && ![from, to, other].contains(&ROCE));
        let of = |a: u32, b: u32, from: u16, to: u16| {
            SYMMETRIC.v4(a, b, Transport { word: u64::from(from) << 24 | u64::from(to) << 8 | 17 })
        };
        prop_assert_ne!(of(a, b, from, to), of(a, c, from, to));
        prop_assert_ne!(of(a, b, from, to), of(c, b, from, to));
        prop_assert_ne!(of(a, b, from, to), of(a, b, from, other));
        if a != b && from != to {
            prop_assert_ne!(of(a, b, from, to), of(a, b, to, from), "ends are ordered with their ports");
        }
    }
}
