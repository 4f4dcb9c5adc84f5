use super::*;
use crate::packet::FlowHash;
use crate::slow::Limiter;
use crate::stats::CountTotals;
use crate::testing::{FAR_V4, LAN, WAN, World, ethernet, octets, raw_v4, udp_v4, udp_v6, with_ip};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wire::{Ipv4, Octets};

use Colour::{Green, Red, Yellow};
use Kind::{Rfc2697, Rfc2698, Rfc4115};

/// 1 octet per microsecond, 2 of the second rate; 1,000 octets in the first bucket, 2,000 in the second.
fn profile(kind: Kind) -> Profile {
    Profile {
        kind,
        cir: 8_000_000,
        pir: if kind == Rfc2697 { 0 } else { 16_000_000 },
        cbs: 1_000,
        pbs: 2_000,
        packets: 0,
        colour_aware: false,
        exceed: Action::Pass,
        violate: Action::Drop,
    }
}

/// Packets (microsecond, octets, colour that they come with), and the colour that each gets.
#[track_caller]
fn check(profile: Profile, packets: &[(u64, u32, Colour, Colour)]) {
    let mut policer = Policer::new(&profile);
    for (number, (at, octets, came, expected)) in packets.iter().enumerate() {
        let colour = policer.colour(*octets, *came, Time(at * 1_000));
        assert_eq!(colour, *expected, "packet {number} of {packets:?}");
    }
}

/// RFC 2697 §3.
#[test]
fn a_single_rate_fills_the_second_bucket_with_what_the_first_spills() {
    let aware = Profile { colour_aware: true, ..profile(Rfc2697) };
    check(
        profile(Rfc2697),
        &[
            (0, 1_000, Green, Green),
            (0, 1_500, Red, Yellow), // blind
            (0, 501, Green, Red),
            (0, 500, Green, Yellow),
            (0, 1, Green, Red),
            (999, 1_000, Green, Red),
            (999, 999, Green, Green),
            // The first fills before the second gets anything.
            (1_999, 1_001, Green, Red),
            (2_499, 500, Green, Green), // 1,500 were earned: 1,000 kept, 500 spilt
            (2_499, 501, Green, Red),
            (2_499, 500, Green, Green),
            (2_499, 500, Green, Yellow),
            (2_499, 1, Green, Red),
        ],
    );
    check(
        aware,
        &[
            (0, 1_000, Yellow, Yellow), // leaves the first bucket alone
            (0, 1_000, Green, Green),
            (0, 1, Red, Red),
            (0, 1_000, Green, Yellow),
            (0, 1, Yellow, Red),
            (500, 1, Yellow, Red), // only what is spilt is for yellow
        ],
    );
}

/// RFC 2698 §3.
#[test]
fn a_peak_rate_counts_what_is_green_too() {
    let aware = Profile { colour_aware: true, ..profile(Rfc2698) };
    check(
        profile(Rfc2698),
        &[
            (0, 1_000, Green, Green),
            (0, 1_000, Green, Yellow),
            (0, 1, Green, Red),
            (500, 500, Green, Green), // 1,000 of the peak earned, 500 committed
            (500, 500, Green, Yellow),
            (500, 1, Green, Red),
            (750, 501, Green, Red),
            (750, 251, Green, Yellow),
        ],
    );
    check(
        aware,
        &[
            (0, 500, Yellow, Yellow),
            (0, 500, Red, Red),
            (0, 1_000, Green, Green),
            (0, 500, Green, Yellow),
            (0, 1, Yellow, Red),
        ],
    );
}

/// RFC 4115 §4.
#[test]
fn an_excess_rate_comes_on_top() {
    let aware = Profile { colour_aware: true, ..profile(Rfc4115) };
    check(
        profile(Rfc4115),
        &[
            (0, 1_000, Green, Green),
            (0, 2_000, Green, Yellow), // green has taken nothing of it
            (0, 1, Green, Red),
            (500, 500, Green, Green),
            (500, 1_000, Green, Yellow),
            (500, 1, Green, Red),
        ],
    );
    check(aware, &[(0, 2_000, Yellow, Yellow), (0, 1, Yellow, Red), (0, 1, Red, Red), (0, 1_000, Green, Green)]);
}

#[test]
fn packets_are_counted_beside_octets() {
    let profile = Profile { packets: 1_000, cbs: 1_000_000, ..profile(Rfc4115) };
    let mut policer = Policer::new(&profile);
    let passed = |policer: &mut Policer, at| (0..200).filter(|_| policer.colour(64, Green, Time(at)) != Red).count();
    assert_eq!(passed(&mut policer, 0), 64, "at once");
    assert_eq!(passed(&mut policer, 9_999_999), 9, "a nanosecond before the tenth");
    assert_eq!(passed(&mut policer, 10_000_000), 1);
    // What its octets make red takes no packet.
    assert_eq!(policer.colour(2_000_000, Green, Time(11_000_000)), Red);
    assert_eq!(policer.colour(64, Green, Time(11_000_000)), Green);
}

#[test]
fn colours_that_come_are_drop_precedences() {
    let of = |dscps: &[u8]| dscps.iter().map(|dscp| Colour::of_dscp(*dscp)).collect::<Vec<_>>();
    assert_eq!(of(&[10, 18, 26, 34]), [Green; 4], "AF11, AF21, AF31, AF41");
    assert_eq!(of(&[12, 20, 28, 36]), [Yellow; 4]);
    assert_eq!(of(&[14, 22, 30, 38]), [Red; 4]);
    assert_eq!(of(&[0, 8, 40, 44, 46, 48, 54, 63, 1, 6]), [Green; 10], "no assured forwarding");
}

#[test]
fn workers_shares_add_up_and_hold_the_longest_packets() {
    let whole = Profile { cir: 1_000_001, cbs: 100_000, pbs: 2_000, packets: 7, ..profile(Rfc4115) };
    let shares: Vec<_> = (0..3).map(|at| whole.share(at, 3)).collect();
    assert_eq!(shares.iter().map(|share| share.cir).sum::<u64>(), whole.cir);
    assert_eq!(shares.iter().map(|share| share.pir).sum::<u64>(), whole.pir);
    assert_eq!(shares.iter().map(|share| share.packets).collect::<Vec<_>>(), [3, 2, 2]);
    assert_eq!((shares[0].cbs, shares[0].pbs), (33_333, 2_000));
    assert_eq!(whole.share(0, 1), whole);
    assert_eq!(Profile { packets: 0, ..whole }.share(0, 3).packets, 0, "any number");
}

/// Marks the packet as a policer without tokens does, and returns its octets.
fn marked(ip: &[u8], violate: Action) -> Result<Vec<u8>, Exit> {
    let profile = Profile { cbs: 0, pbs: 0, violate, ..profile(Rfc2698) };
    let mut policers = Policers::new(std::iter::once(profile));
    let mut tally = Tally::new(crate::stats::Room { policers: 1, ..Default::default() });
    with_ip(14, ip, |packet| {
        packet.parse(&FlowHash::default()).expect("a packet that is right");
        policers.police(packet, 0, Time(0), &mut tally)?;
        // What was written is what a router expects, and what the packet says of itself.
        let tos = packet.tos;
        packet.parse(&FlowHash::default()).expect("its checksum is right still");
        assert_eq!(packet.tos, tos);
        Ok(octets(packet)[14..].to_vec())
    })
}

#[test]
fn marks_are_written_with_a_right_checksum() {
    for (ecn, dscp) in [(0, 0), (1, 63), (2, 10), (3, 46)] {
        let v4 = raw_v4([10, 20, 0, 7], &[7; 30], |header| {
            header.dscp = etherparse::IpDscp::try_new(dscp).expect("6 bits");
            header.ecn = etherparse::IpEcn::try_new(ecn).expect("2 bits");
        });
        let mut v6 = udp_v6("2001:db8:20::7", &[7; 30]);
        let tos = dscp << 2 | ecn;
        (v6[0], v6[1]) = (0x60 | tos >> 4, tos << 4 | v6[1] & 0xf);
        let tos_of = |v4: &[u8], v6: &[u8]| (v4[1], v6[0] << 4 | v6[1] >> 4);
        let [new4, new6] = [&v4, &v6].map(|ip| marked(ip, Action::Dscp(8)).expect("it passes"));
        assert_eq!(tos_of(&new4, &new6), (8 << 2 | ecn, 8 << 2 | ecn));
        let (Ok(new4), Ok(new6)) = (marked(&v4, Action::Ce), marked(&v6, Action::Ce)) else {
            assert_eq!(ecn, 0, "only what cannot carry the mark is dropped");
            continue;
        };
        assert_eq!(tos_of(&new4, &new6), (dscp << 2 | 3, dscp << 2 | 3));
        assert_eq!((&new4[12..], &new6[2..]), (&v4[12..], &v6[2..]), "nothing else is touched");
        let header: &Ipv4 = new4[..].header(0).expect("a header");
        assert_eq!(header.checksum.value(), header.computed_checksum(&[]));
    }
}

/// Four packets of 1,000 octets at once, which have these policers: what each of the two made of them, and what was sent.
fn coloured(way: u16, tenant: u16) -> ([[u64; 3]; 2], usize) {
    let policing = Policing::new(vec![Some(way)], Vec::new(), vec![Some(tenant)]);
    let mut world = World::with(Limiter::new(1_000), |tables| tables.policing = policing);
    let first = Profile { cbs: 3_000, pbs: 0, ..profile(Rfc2697) };
    let second = Profile { cbs: 1_000, pbs: 1_000, ..first };
    world.worker.pipeline.policers = Policers::new([first, second].into_iter());
    for _ in 0..4 {
        world.put(LAN, ethernet(&udp_v4(FAR_V4, &[0; 972])));
    }
    world.poll();
    world.assert_balance();
    let packets = |policer, colour| CountTotals::of_colour([world.page()], policer, colour).packets;
    let counts = [0, 1].map(|policer| Colour::ALL.map(|colour| packets(policer, colour)));
    (counts, world.sent(WAN).len())
}

#[test]
fn a_tenants_policer_is_asked_after_that_of_the_way_in_and_about_what_is_left() {
    assert_eq!(coloured(0, 1), ([[3, 0, 1], [1, 1, 1]], 2));
    assert_eq!(coloured(1, 0), ([[2, 0, 0], [1, 1, 2]], 2));
    assert_eq!(coloured(0, 0), ([[3, 0, 1], [0, 0, 0]], 3), "one that both name is asked once");
}

/// Buckets as the RFCs describe them, in numbers that are wide enough for anything.
struct Model {
    profile: Profile,
    committed: u128,
    second: u128,
    /// In billionths of one.
    packets: u128,
    last: u128,
}

impl Model {
    fn colour(&mut self, octets: u32, came: Colour, now: u64) -> Colour {
        const OCTET: u128 = 8_000_000_000;
        const PACKET: u128 = 1_000_000_000;
        let Profile { kind, cir, pir, cbs, pbs, packets, colour_aware, .. } = self.profile;
        let (cbs, pbs) = (u128::from(cbs) * OCTET, u128::from(pbs) * OCTET);
        let elapsed = u128::from(now).saturating_sub(self.last);
        self.last = self.last.max(now.into());
        let total = self.committed + u128::from(cir) * elapsed;
        self.committed = total.min(cbs);
        let second = if kind == Rfc2697 { total - self.committed } else { u128::from(pir) * elapsed };
        self.second = (self.second + second).min(pbs);
        self.packets = (self.packets + u128::from(packets) * elapsed).min(Self::most_packets(packets));
        let (size, came) = (u128::from(octets) * OCTET, if colour_aware { came } else { Green });
        let colour = match kind {
            _ if packets != 0 && self.packets < PACKET => Red,
            Rfc2698 if came == Red || size > self.second => Red,
            Rfc2698 if came == Yellow || size > self.committed => Yellow,
            Rfc2698 => Green,
            _ if came == Green && size <= self.committed => Green,
            _ if came != Red && size <= self.second => Yellow,
            _ => Red,
        };
        if colour == Green {
            self.committed -= size;
        }
        if colour == Yellow || (colour == Green && kind == Rfc2698) {
            self.second -= size;
        }
        if colour != Red {
            self.packets = self.packets.saturating_sub(PACKET);
        }
        colour
    }

    /// Those of 10 ms, and 64 at least.
    fn most_packets(packets: u32) -> u128 {
        (u128::from(packets) * 10_000_000).max(64_000_000_000)
    }
}

fn profiles() -> impl Strategy<Value = Profile> {
    // Bursts and gaps must fit the rates, or buckets are never empty and nothing is tested.
    let kind = select(vec![Rfc2697, Rfc2698, Rfc4115]);
    let rate = select(vec![1, 7_999, 1_000_003, 100_000_000, 3_333_333_333, 400_000_000_000, 1_600_000_000_000]);
    let burst = || select(vec![0_u32, 64, 1_500, 18_000, 1_000_000, Profile::MOST_BURST]);
    let packets = select(vec![0_u32, 0, 1, 9_999, 1_000_003, u32::MAX]);
    let many = (kind, rate, 1..4_u64, burst(), burst(), packets, any::<bool>());
    many.prop_map(|(kind, cir, times, cbs, pbs, packets, colour_aware)| {
        let pir = if kind == Rfc2697 { 0 } else { cir * times };
        Profile { kind, cir, pir, cbs, pbs, packets, colour_aware, ..profile(kind) }
    })
}

/// Gaps of time, some of them long, some backwards.
fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0_i64), 8 => 0..2_000_i64, 4 => 0..10_000_000_i64, 1 => -1_000_000..0_i64, 1 => 0..=i64::MAX / 400]
}

/// Gaps that let buckets empty, of packets too: a long one fills them.
fn busy() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0_i64), 8 => 0..2_000_i64, 1 => -1_000..0_i64]
}

fn came() -> impl Strategy<Value = Colour> {
    select(vec![Green, Green, Yellow, Red])
}

proptest! {
    /// Q11 and Q14: bit for bit what the RFCs say, and no more packets than the rate of packets, over any time, backwards too.
    #[test]
    fn colours_are_those_of_the_rfcs(
        profile in profiles(),
        packets in prop_oneof![vec((gap(), 0..=9_000_u32, came()), 1..300), vec((busy(), 0..=9_000_u32, came()), 1..300)],
    ) {
        let mut policer = Policer::new(&profile);
        let full = |burst: u32| u128::from(burst) * 8_000_000_000;
        let packets_at_once = Model::most_packets(profile.packets);
        let (committed, second) = (full(profile.cbs), full(profile.pbs));
        let mut model = Model { profile, committed, second, packets: packets_at_once, last: 0 };
        let mut now = 0_i64;
        for (gap, octets, came) in packets {
            now = (now + gap).max(0);
            let colour = policer.colour(octets, came, Time(now as u64));
            prop_assert_eq!(colour, model.colour(octets, came, now as u64), "at {} {:?}", now, profile);
        }
    }

    /// The bucket's promise: between any two moments, at most the burst plus what the rate has earned. Q1.
    #[test]
    fn never_admits_more_than_burst_plus_rate(
        kind in select(vec![Rfc2697, Rfc2698, Rfc4115]),
        rate in 1_000..=10_000_000_u64,
        burst in 1_500..=20_000_u32,
        packets in prop_oneof![Just(0_u32), 100..10_000_u32],
        arrivals in vec((0..500_000_u64, 64..=1_500_u32), 1..200),
    ) {
        let pir = if kind == Rfc2697 { 0 } else { 2 * rate };
        let profile = Profile { kind, cir: 8 * rate, pir: 8 * pir, cbs: burst, pbs: burst, packets, ..profile(kind) };
        let mut policer = Policer::new(&profile);
        let mut now = 0;
        let mut passed: Vec<(u64, u64, Colour)> = Vec::new();
        for (gap, octets) in arrivals {
            now += gap;
            let colour = policer.colour(octets, Green, Time(now));
            passed.push((now, octets.into(), colour));
        }
        let all_rate = match kind { Rfc2697 => rate, Rfc2698 => pir, Rfc4115 => rate + pir };
        let all_burst = if kind == Rfc2698 { u64::from(burst) } else { 2 * u64::from(burst) };
        for from in 0..passed.len() {
            let (mut green, mut all, mut count) = (0, 0, 0_u64);
            for (at, octets, colour) in &passed[from..] {
                green += if *colour == Green { *octets } else { 0 };
                all += if *colour == Red { 0 } else { *octets };
                count += u64::from(*colour != Red);
                let elapsed = at - passed[from].0;
                prop_assert!(green * 1_000_000_000 <= u64::from(burst) * 1_000_000_000 + rate * elapsed);
                prop_assert!(all * 1_000_000_000 <= all_burst * 1_000_000_000 + all_rate * elapsed);
                let most = u64::from(packets / 100).max(64) * 1_000_000_000 + u64::from(packets) * (10_000_000 + elapsed);
                prop_assert!(packets == 0 || count * 1_000_000_000 <= most);
            }
        }
    }
}
