use super::*;
use crate::packet::{FlowHash, PuntReason};
use crate::stats::TunnelTotals;
use crate::testing::{
    AWS_A, AWS_B, CHUNKS as MEMORY, FAR_MAC, FAR_V4, REMOTE_V4, REMOTE_V6, ROUTER_MAC, TUNNEL_MAC, VNI_A, VNI_B, WAN,
    WAN_MAC, WAN_V4, WAN_V6, World, framed, octets, raw_v4, stock, udp_v4, umem, v6, written,
};
use etherparse::{IpFragOffset, PacketBuilder};
use proptest::collection::vec;
use proptest::prelude::*;

const ETHERNET: usize = 14;
const UDP: u8 = 17;
const VXLAN: u16 = 4789;

/// An IPv4 fragment from the tunnel's other end.
fn v4_fragment(id: u16, offset: usize, more: bool, tos: u8, data: &[u8]) -> Vec<u8> {
    raw_v4(WAN_V4, data, |header| {
        (header.source, header.protocol, header.identification) = (REMOTE_V4, etherparse::IpNumber(UDP), id);
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset as u16 / 8).expect("13 bits");
        header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("6 bits");
        header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("2 bits");
    })
}

/// An IPv6 packet from the tunnel's other end, with these octets behind its header.
fn v6_packet(next: u8, tos: u8, behind: &[u8]) -> Vec<u8> {
    let length = (behind.len() as u16).to_be_bytes();
    let start = [0x60 | tos >> 4, tos << 4, 0, 0, length[0], length[1], next, 60];
    [&start[..], &v6(REMOTE_V6), &v6(WAN_V6), behind].concat()
}

/// The fragment header of IPv6.
fn fragment_header(next: u8, id: u32, offset: usize, more: bool) -> Vec<u8> {
    let offset_more = (offset as u16 | u16::from(more)).to_be_bytes();
    [&[next, 0, offset_more[0], offset_more[1]][..], &id.to_be_bytes()].concat()
}

fn v6_fragment(id: u32, offset: usize, more: bool, tos: u8, data: &[u8]) -> Vec<u8> {
    v6_packet(protocol::FRAGMENT, tos, &[&fragment_header(UDP, id, offset, more), data].concat())
}

/// What the tunnel carries, in UDP with a checksum: IP header and all.
fn datagram(id: crate::packet::TunnelId, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = if id == AWS_A { VNI_A } else { VNI_B }.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0], inner].concat();
    if id == AWS_A {
        written(PacketBuilder::ipv4(REMOTE_V4, WAN_V4, 60).udp(50_000, VXLAN), &payload)
    } else {
        written(PacketBuilder::ipv6(v6(REMOTE_V6), v6(WAN_V6), 60).udp(50_000, VXLAN), &payload)
    }
}

/// The datagram cut after so many octets of data each time; the rest is the last.
fn cut(ip: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let v6 = ip[0] >> 4 == 6;
    let data = &ip[if v6 { 40 } else { 20 }..];
    let ends = cuts.iter().copied().chain([data.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    starts
        .zip(ends)
        .map(|(from, to)| {
            let (more, data) = (to < data.len(), &data[from..to]);
            if v6 { v6_fragment(7, from, more, 0, data) } else { v4_fragment(7, from, more, 0, data) }
        })
        .collect()
}

fn framed_from_router(ip: &[u8]) -> Vec<u8> {
    framed(WAN_MAC, ROUTER_MAC, ip)
}

/// As a worker has it when it finds out that it is a fragment.
fn parsed(stock: &mut Stock, ip: &[u8]) -> Box<Packet> {
    let frame = stock.frames.frame_of(&framed_from_router(ip)).expect("there is memory");
    let mut packet = stock.wrap(frame, WAN, false, Time(0));
    packet.l3 = ETHERNET as u16;
    packet.family = if ip[0] >> 4 == 6 { Family::V6 } else { Family::V4 };
    packet.parse(&FlowHash::default()).expect("a good header");
    packet
}

/// A table with memory of its own, and what it said about each fragment.
struct Bench {
    stock: Stock,
    reassembly: Reassembly,
    exits: Exits,
}

impl Bench {
    fn new() -> Self {
        Self { stock: stock(), reassembly: Reassembly::new(0, 1), exits: Exits::new() }
    }

    /// The datagram that became whole; absorbed; reasons of those that left.
    fn push(&mut self, ip: &[u8], now: u64) -> (Option<Vec<u8>>, u64, Vec<DropReason>) {
        let packet = parsed(&mut self.stock, ip);
        let (whole, absorbed) = self.reassembly.push(packet, &mut self.stock, &mut self.exits, Time(now));
        let whole = whole.map(|mut packet| {
            packet.parse(&FlowHash::default()).expect("as good as its fragments");
            let ip = octets(&packet).split_off(packet.l3.into());
            assert_eq!(ip.len(), packet.len as usize, "nothing behind it");
            assert!(packet.frame.bytes().len() > 100.min(ip.len()), "its headers are in the first chunk");
            self.stock.put(packet);
            ip
        });
        (whole, absorbed, self.left())
    }

    fn left(&mut self) -> Vec<DropReason> {
        let Self { exits, stock, .. } = self;
        let reason = |(packet, exit)| {
            stock.put(packet);
            match exit {
                Exit::Drop(reason) => reason,
                other => panic!("{other:?}"),
            }
        };
        exits.drain().map(reason).collect()
    }

    /// After a minute nothing is left, and all memory is back.
    #[track_caller]
    fn finish(mut self) {
        self.reassembly.expire(&mut self.exits, Time(60 * Time::SECOND));
        self.left();
        assert!(self.reassembly.is_quiet());
        assert_eq!((self.reassembly.len(), self.reassembly.chunks, self.reassembly.datagrams.len()), (0, 0, 0));
        drop(self.stock);
        assert_eq!(umem().free(), MEMORY, "every frame is back");
    }
}

/// What happens to these fragments, one after the other.
#[track_caller]
fn check(fragments: &[Vec<u8>], expected: &[(bool, u64, &[DropReason])]) {
    let mut bench = Bench::new();
    for (at, (fragment, (whole, absorbed, left))) in fragments.iter().zip(expected).enumerate() {
        let got = bench.push(fragment, at as u64);
        assert_eq!((got.0.is_some(), got.1, &got.2[..]), (*whole, *absorbed, *left), "fragment {at}");
    }
    assert_eq!(fragments.len(), expected.len());
    bench.finish();
}

const WAITS: (bool, u64, &[DropReason]) = (false, 0, &[]);

#[test]
fn octets_that_differ_where_there_are_some_end_the_datagram() {
    let (a, b) = ([1; 16], [2; 16]);
    let first = |data: &[u8]| v4_fragment(1, 0, true, 0, data);
    let at = |offset, more, data: &[u8]| v4_fragment(1, offset, more, 0, data);
    let both: &[_] = &[FragmentOverlap; 2];
    // Other octets; a part of it; around it; over its end.
    check(&[first(&a), first(&b)], &[WAITS, (false, 0, both)]);
    check(&[first(&a), at(8, true, &a)], &[WAITS, (false, 0, both)]);
    check(&[at(8, true, &[1; 8]), first(&a)], &[WAITS, (false, 0, both)]);
    check(&[at(8, true, &a), first(&a)], &[WAITS, (false, 0, both)]);
    // What comes after is refused too, also what would have fitted.
    let one: (bool, u64, &[_]) = (false, 0, &[FragmentOverlap]);
    check(&[first(&a), first(&b), at(16, false, &a), first(&a)], &[WAITS, (false, 0, both), one, one]);
    // The end is said to be elsewhere, or lies before what is there.
    check(&[at(16, false, &a), at(32, false, &a)], &[WAITS, (false, 0, both)]);
    check(&[at(16, false, &a), at(32, true, &a)], &[WAITS, (false, 0, both)]);
    check(&[at(32, true, &a), at(16, false, &a)], &[WAITS, (false, 0, both)]);
    check(&[at(16, true, &a), at(16, false, &a)], &[WAITS, (false, 0, both)]);
    check(&[at(16, false, &a), at(8, false, &a[..4])], &[WAITS, (false, 0, both)]);
    // Another datagram goes on.
    check(
        &[first(&a), v4_fragment(2, 0, true, 0, &b), at(16, false, &b), v4_fragment(2, 16, false, 0, &b)],
        &[WAITS, WAITS, (true, 1, &[]), (true, 1, &[])],
    );
}

/// RFC 8200 §4.5: "an implementation may choose to detect this case and drop exact duplicate fragments".
#[test]
fn what_comes_twice_counts_once() {
    let (first, last) = (v4_fragment(1, 0, true, 0, &[1; 16]), v4_fragment(1, 16, false, 0, &[2; 3]));
    let again = (false, 1, &[][..]);
    check(&[first.clone(), first.clone(), last.clone()], &[WAITS, again, (true, 1, &[])]);
    check(&[last.clone(), last, first.clone(), first], &[WAITS, again, (true, 1, &[]), WAITS]);
}

#[test]
fn what_no_datagram_can_have_is_dropped_alone() {
    let refused: (bool, u64, &[_]) = (false, 0, &[FragmentMalformed]);
    check(&[v4_fragment(1, 0, true, 0, &[0; 12])], &[refused]);
    check(&[v4_fragment(1, 0, true, 0, &[])], &[refused]);
    check(&[v4_fragment(1, 8, false, 0, &[])], &[refused]);
    check(&[v4_fragment(1, 65_512, false, 0, &[0; 4])], &[refused]);
    check(&[v4_fragment(1, 65_512, false, 0, &[0; 3])], &[WAITS]);
    check(&[v6_fragment(1, 0, true, 0, &[0; 12])], &[refused]);
    check(&[v6_fragment(1, 65_528, false, 0, &[0; 7])], &[WAITS]);
    // RFC 7112: the first fragment has all headers.
    check(&[v6_fragment(1, 0, true, 0, &[0; 8])], &[WAITS]);
    let options = |length: u8| [&[UDP, length][..], &[0; 14]].concat();
    let first = |length| v6_packet(protocol::FRAGMENT, 0, &[fragment_header(60, 1, 0, true), options(length)].concat());
    check(&[first(0), first(1)], &[WAITS, refused]);
    // The rest of the datagram is none the worse for it.
    let (first, last) = (v4_fragment(1, 0, true, 0, &[1; 16]), v4_fragment(1, 16, false, 0, &[2; 3]));
    check(&[first, v4_fragment(1, 16, true, 0, &[2; 3]), last], &[WAITS, refused, (true, 1, &[])]);
}

/// Each fragment is short enough, and with the header of the first they are too long.
#[test]
fn a_datagram_that_only_its_first_header_makes_too_long_is_dropped() {
    let mut bench = Bench::new();
    let hops = [&[44, 7][..], &[1, 60], &[0; 60]].concat();
    let mut first = Vec::new();
    for at in 0..40 {
        let (from, data) = (at * 1632, vec![at as u8; if at == 39 { 65_535 - 39 * 1632 } else { 1632 }]);
        let fragment = if at == 0 {
            first = v6_packet(60, 0, &[hops.clone(), fragment_header(UDP, 7, 0, true), data].concat());
            continue;
        } else if at == 39 {
            v6_fragment(7, 40 * 1632 - 1632, false, 0, &data)
        } else {
            v6_fragment(7, from, true, 0, &data)
        };
        let (whole, absorbed, left) = bench.push(&fragment, 0);
        assert_eq!((whole, absorbed, left), (None, 0, vec![]), "fragment {at}");
    }
    assert_eq!(bench.push(&first, 0), (None, 0, vec![FragmentMalformed; 40]));
    bench.finish();
}

/// RFC 3168 §5.3, all sets of code points of two fragments.
#[test]
fn a_mark_on_a_fragment_is_one_on_the_datagram_or_its_end() {
    let check = |first: u8, second: u8, expected: Result<u8, DropReason>| {
        for family in [Family::V4, Family::V6] {
            let mut bench = Bench::new();
            let (dscp, data) = (46 << 2, [1; 16]);
            let fragment = |at, more, tos: u8| match family {
                Family::V4 => v4_fragment(1, at, more, dscp | tos, &data),
                Family::V6 => v6_fragment(1, at, more, dscp | tos, &data),
            };
            assert_eq!(bench.push(&fragment(0, true, first), 0).0, None);
            let (whole, _, left) = bench.push(&fragment(16, false, second), 0);
            let tos = whole.as_ref().map(|ip| if ip[0] == 0x45 { ip[1] } else { ip[0] << 4 | ip[1] >> 4 });
            assert_eq!(tos, expected.ok().map(|ecn| dscp | ecn), "{first} and {second}");
            assert_eq!(left, expected.err().map_or(vec![], |reason| vec![reason; 2]), "{first} and {second}");
            bench.finish();
        }
    };
    let lost = Err(FragmentEcn);
    let table = [
        [Ok(0), lost, lost, lost],
        [lost, Ok(1), Ok(1), Ok(3)],
        [lost, Ok(2), Ok(2), Ok(3)],
        [lost, Ok(3), Ok(3), Ok(3)],
    ];
    for (first, row) in (0..).zip(table) {
        (0..).zip(row).for_each(|(second, expected)| check(first, second, expected));
    }
}

#[test]
fn the_first_fragment_says_what_the_whole_is() {
    let mut bench = Bench::new();
    // An atomic fragment header (RFC 6946) before the one that counts, and destination options around it.
    let options = |next| [&[next, 0][..], &[1, 4, 0, 0, 0, 0]].concat();
    let before = [options(44), fragment_header(44, 5, 0, false)].concat();
    let udp = [&[0, 1, 0, 2, 0, 24, 0, 0][..], &[9; 16]].concat();
    let data = [options(UDP), udp].concat();
    let last = v6_fragment(8, 16, false, 0, &data[16..]);
    assert_eq!(bench.push(&last, 0).0, None);
    let first = v6_packet(60, 0, &[&before[..], &fragment_header(60, 8, 0, true), &data[..16]].concat());
    let (whole, absorbed, _) = bench.push(&first, 0);
    let mut expected = v6_packet(60, 0, &[&before[..], &data].concat());
    expected[40 + 8] = 60;
    assert_eq!((whole, absorbed), (Some(expected), 1));
    bench.finish();
    // Options of IPv4 are those of the first fragment.
    let mut bench = Bench::new();
    let first = raw_v4(WAN_V4, &[1; 16], |header| {
        (header.source, header.protocol, header.identification) = (REMOTE_V4, etherparse::IpNumber(UDP), 1);
        (header.more_fragments, header.options) = (true, [7, 7, 4, 0, 0, 0, 0, 0].into());
    });
    assert_eq!(bench.push(&first, 0).0, None);
    let (whole, _, _) = bench.push(&v4_fragment(1, 16, false, 0, &[2; 5]), 0);
    let whole = whole.expect("both are here");
    assert_eq!((&whole[..4], &whole[20..28]), (&[0x47, 0, 0, 28 + 21][..], &first[20..28]));
    assert_eq!(whole[28..], [&[1; 16][..], &[2; 5]].concat());
    bench.finish();
}

#[test]
fn has_bounds_and_the_oldest_go_first() {
    let mut bench = Bench::new();
    let first = |id| v4_fragment(id, 0, true, 0, &[1; 16]);
    for id in 0..DATAGRAMS as u16 {
        assert_eq!(bench.push(&first(id), 0), (None, 0, vec![]));
    }
    // One more: the oldest goes, and no other.
    assert_eq!(bench.push(&first(999), 1), (None, 0, vec![ReassemblyFull]));
    assert!(bench.push(&v4_fragment(1, 16, false, 0, &[2; 5]), 2).0.is_some(), "the second is still there");
    assert!(bench.push(&v4_fragment(255, 16, false, 0, &[2; 5]), 2).0.is_some(), "the one before as well");
    assert!(bench.push(&v4_fragment(999, 16, false, 0, &[2; 5]), 3).0.is_some(), "the last as well");
    assert!(bench.push(&v4_fragment(0, 16, false, 0, &[2; 5]), 4).0.is_none(), "the oldest is gone");
    bench.finish();
    // A flood of first fragments between two that belong together does no harm, as long as it is no larger than the table.
    let mut bench = Bench::new();
    bench.push(&first(5000), 0);
    for id in 0..DATAGRAMS as u16 - 1 {
        bench.push(&first(id), 1);
    }
    assert!(bench.push(&v4_fragment(5000, 16, false, 0, &[2; 5]), 2).0.is_some());
    bench.finish();
    // Fragments of one datagram.
    let mut bench = Bench::new();
    for at in 1..=FRAGMENTS {
        assert_eq!(bench.push(&v4_fragment(1, at * 8, true, 0, &[1; 8]), 0), (None, 0, vec![]));
    }
    let (whole, _, left) = bench.push(&v4_fragment(1, 0, true, 0, &[1; 8]), 0);
    assert_eq!((whole, left), (None, vec![ReassemblyFull; FRAGMENTS + 1]));
    bench.finish();
    // Memory: the limit is all that there is in this test, so it is set lower by what is counted as in use.
    let mut bench = Bench::new();
    bench.push(&first(1), 0);
    bench.push(&first(2), 0);
    bench.reassembly.chunks += CHUNKS - 2;
    assert_eq!(bench.push(&first(3), 0), (None, 0, vec![ReassemblyFull]));
    assert_eq!(bench.push(&v4_fragment(2, 32, true, 0, &[1; 8]), 0), (None, 0, vec![ReassemblyFull]), "not itself");
    bench.reassembly.chunks -= CHUNKS - 2;
    bench.finish();
}

#[test]
fn gives_a_datagram_two_seconds_from_its_first_fragment_on() {
    let mut bench = Bench::new();
    bench.push(&v4_fragment(1, 0, true, 0, &[1; 16]), 0);
    bench.push(&v4_fragment(2, 0, true, 0, &[1; 16]), 5);
    bench.push(&v4_fragment(1, 32, true, 0, &[1; 16]), PATIENCE - 1);
    assert_eq!(bench.reassembly.deadline(), Some(Time(PATIENCE)));
    bench.reassembly.expire(&mut bench.exits, Time(PATIENCE - 1));
    assert_eq!(bench.left(), []);
    bench.reassembly.expire(&mut bench.exits, Time(PATIENCE));
    assert_eq!(bench.left(), [ReassemblyTimeout; 2]);
    assert_eq!((bench.reassembly.deadline(), bench.reassembly.len()), (Some(Time(PATIENCE + 5)), 1));
    bench.finish();
}

/// What the far end cut comes out as if it had not been.
#[test]
fn a_tunnels_datagram_goes_its_way_whichever_fragment_comes_first() {
    for id in [AWS_A, AWS_B] {
        let inner = framed(TUNNEL_MAC, FAR_MAC, &udp_v4(FAR_V4, &[5; 1400]));
        let mut plain = World::new();
        plain.put(WAN, framed_from_router(&datagram(id, &inner)));
        plain.poll();
        let expected = plain.sent(WAN);
        assert_eq!(expected.len(), 1);
        drop(plain);
        for turned in [false, true] {
            let mut world = World::new();
            let mut fragments = cut(&datagram(id, &inner), &[8, 1232]);
            if turned {
                fragments.reverse();
            }
            for (at, fragment) in (0..).zip(&fragments) {
                assert_eq!(world.totals().queued, at);
                world.put(WAN, framed_from_router(fragment));
                world.poll();
                world.assert_balance();
            }
            assert_eq!(world.sent(WAN), expected);
            let totals = world.totals();
            assert_eq!((totals.received, totals.forwarded, totals.absorbed, totals.queued), (3, 1, 2, 0));
            let tunnel = TunnelTotals::of([world.page()], id);
            assert_eq!((tunnel.decapsulated_packets, tunnel.decapsulated_bytes), (1, inner.len() as u64 - 14));
        }
    }
}

#[test]
fn what_is_no_tunnels_goes_to_the_host_whole() {
    let mut world = World::new();
    let other = written(PacketBuilder::ipv4(REMOTE_V4, WAN_V4, 60).udp(500, 500), &[3; 40_000]);
    let cuts: Vec<_> = (1..28).map(|at| at * 1480).collect();
    for fragment in cut(&other, &cuts) {
        world.put(WAN, framed_from_router(&fragment));
        world.poll();
    }
    world.assert_balance();
    let totals = world.totals();
    assert_eq!((totals.punts[PuntReason::Local as usize], totals.absorbed, totals.dropped()), (1, 27, 0));
    // Fragments between others are nobody's business.
    let foreign = raw_v4(FAR_V4, &[1; 16], |header| header.more_fragments = true);
    world.receive(crate::testing::ethernet(&foreign));
    assert_eq!((world.totals().forwarded, world.totals().queued), (1, 0));
}

/// RFC 1122 §3.3.2, RFC 8200 §4.5: only with the first fragment in hand.
#[test]
fn the_far_end_hears_of_a_loss_if_the_first_fragment_came() {
    for (id, error) in [(AWS_A, (11, 1)), (AWS_B, (3, 1))] {
        let fragments = cut(&datagram(id, &[0; 200]), &[64, 128]);
        for (present, told) in [(&[0, 1][..], true), (&[1, 2], false), (&[2, 0], true)] {
            let mut world = World::new();
            for at in present {
                world.put(WAN, framed_from_router(&fragments[*at]));
            }
            world.poll();
            assert_eq!(world.totals().queued, 2);
            world.now = Time(world.now.0 + PATIENCE);
            world.poll();
            world.poll();
            world.assert_balance();
            assert_eq!(world.totals().drops[ReassemblyTimeout as usize], 2);
            let sent = world.sent(WAN);
            assert_eq!(sent.len(), usize::from(told), "{present:?}");
            for frame in sent {
                let icmp = ETHERNET + if id == AWS_A { 20 } else { 40 };
                assert_eq!((frame[icmp], frame[icmp + 1]), error);
                assert!(frame[icmp + 8..].starts_with(&fragments[0][..60]), "it quotes the first");
            }
        }
    }
}

/// What a test's key, offset and content stand for.
#[derive(Clone, Debug)]
struct Thrown {
    id: u16,
    /// In units of 8 octets.
    at: usize,
    length: usize,
    more: bool,
    /// Of another datagram with the same name.
    other: bool,
}

impl Thrown {
    fn data(&self) -> Vec<u8> {
        (0..self.length).map(|at| (self.at * 8 + at) as u8 ^ if self.other { 0xff } else { 0 }).collect()
    }
}

fn thrown() -> impl Strategy<Value = Thrown> {
    let lengths = prop_oneof![9 => (1..4_usize).prop_map(|units| units * 8), 1 => 0..24_usize];
    (0..3_u16, 0..6_usize, lengths, any::<bool>(), 0..12).prop_map(|(id, at, length, more, other)| Thrown {
        id,
        at,
        length,
        // What starts at the start and has no more is no fragment.
        more: more || at == 0,
        other: other == 0,
    })
}

/// A map of octets, and the fragments that made it.
#[derive(Default)]
struct Naive {
    octets: Vec<Option<u8>>,
    end: Option<usize>,
    taken: Vec<(usize, bool, Vec<u8>)>,
    refused: bool,
}

impl Naive {
    fn push(&mut self, fragment: &Thrown) -> (Option<Vec<u8>>, u64, Vec<DropReason>) {
        let (data, from) = (fragment.data(), fragment.at * 8);
        let to = from + data.len();
        if data.is_empty() || (fragment.more && data.len() % 8 != 0) {
            return (None, 0, vec![FragmentMalformed]);
        }
        if self.taken.contains(&(from, fragment.more, data.clone())) {
            return (None, 1, vec![]);
        }
        self.octets.resize(self.octets.len().max(to), None);
        let beyond_end = self.end.is_some_and(|end| to > end || !fragment.more);
        let end_before = !fragment.more && self.octets[to..].iter().any(Option::is_some);
        if self.refused || beyond_end || end_before || self.octets[from..to].iter().any(Option::is_some) {
            self.refused = true;
            return (None, 0, vec![FragmentOverlap; mem::take(&mut self.taken).len() + 1]);
        }
        self.octets[from..to].iter_mut().zip(&data).for_each(|(place, octet)| *place = Some(*octet));
        self.taken.push((from, fragment.more, data));
        self.end = self.end.or((!fragment.more).then_some(to));
        let Some(end) = self.end else { return (None, 0, vec![]) };
        match self.octets[..end].iter().copied().collect::<Option<Vec<u8>>>() {
            None => (None, 0, vec![]),
            Some(whole) => {
                let absorbed = self.taken.len() as u64 - 1;
                *self = Self::default();
                (Some(whole), absorbed, vec![])
            }
        }
    }
}

proptest! {
    /// Whatever arrives, in whatever order, twice, overlapping or never: what comes out is what a map of octets says.
    #[test]
    fn agrees_with_a_map_of_octets(fragments in vec(thrown(), 0..60), v6 in any::<bool>()) {
        let mut bench = Bench::new();
        let mut naive: [Naive; 3] = Default::default();
        let mut waiting = 0;
        for fragment in &fragments {
            let Thrown { id, at, more, .. } = *fragment;
            let ip = if v6 {
                v6_fragment(id.into(), at * 8, more, 0, &fragment.data())
            } else {
                v4_fragment(id, at * 8, more, 0, &fragment.data())
            };
            let (whole, absorbed, left) = bench.push(&ip, 0);
            let expected = naive[usize::from(id)].push(fragment);
            prop_assert_eq!(&(whole.as_ref().map(|ip| ip[if v6 { 40 } else { 20 }..].to_vec()), absorbed, left.clone()), &expected);
            waiting = waiting + 1 - left.len() - absorbed as usize - usize::from(whole.is_some());
            prop_assert_eq!(bench.reassembly.len(), waiting);
        }
        bench.finish();
    }

    /// However a datagram was cut and mixed up, it comes out as it was.
    #[test]
    fn puts_together_what_was_cut_anywhere(
        length in 1..20_000_usize, sizes in vec(1..400_usize, 1..60), order in any::<u64>(), v6 in any::<bool>(),
    ) {
        let payload: Vec<u8> = (0..length).map(|at| ((at * 31) >> 3) as u8).collect();
        let ip = if v6 {
            written(PacketBuilder::ipv6(self::v6(REMOTE_V6), self::v6(WAN_V6), 60).udp(1, 2), &payload)
        } else {
            written(PacketBuilder::ipv4(REMOTE_V4, WAN_V4, 64).udp(1, 2), &payload)
        };
        let cuts: Vec<usize> = sizes.iter().scan(0, |at, size| { *at += size * 8; Some(*at) }).take_while(|at| *at < length + 8).collect();
        prop_assume!(!cuts.is_empty());
        let mut fragments = cut(&ip, &cuts);
        let mut random = order;
        for at in (1..fragments.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            fragments.swap(at, (random >> 33) as usize % (at + 1));
        }
        let mut bench = Bench::new();
        let (last, before) = fragments.split_last().expect("two at least");
        for fragment in before {
            prop_assert_eq!(bench.push(fragment, 0), (None, 0, vec![]));
        }
        let (whole, absorbed, _) = bench.push(last, 0);
        let whole = whole.expect("all are here");
        // The fragments of this test have another name and checksum than the packet.
        let same = if v6 { 8.min(whole.len()) } else { 12 };
        prop_assert_eq!(&whole[same..], &ip[same..]);
        prop_assert_eq!(whole.len(), ip.len());
        prop_assert_eq!(absorbed, before.len() as u64);
        bench.finish();
    }

    /// Fragments of nonsense, between the ends of a tunnel: each packet has one fate, and no frame is lost.
    #[test]
    fn survives_any_fragment(
        packets in vec((any::<bool>(), 0..4_u32, any::<u16>(), vec(any::<u8>(), 0..80), 0..0x1_0000_0000_u64), 0..40),
    ) {
        let mut world = World::new();
        for (v6, id, word, data, pause) in packets {
            let ip = if v6 {
                let header = [&[[0, 17, 44, 60][id as usize], 0][..], &word.to_be_bytes(), &id.to_be_bytes()].concat();
                v6_packet(protocol::FRAGMENT, 0, &[&header[..], &data].concat())
            } else {
                v4_fragment(id as u16, usize::from(word & 0xff) * 8, word & 0x100 != 0, 0, &data)
            };
            world.put(WAN, framed_from_router(&ip));
            world.poll();
            world.now = Time(world.now.0 + pause);
            world.poll();
            world.assert_balance();
        }
    }
}
