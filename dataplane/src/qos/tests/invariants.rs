//! What the shaper promises, one promise a test, in virtual time. What holds for any specification is in `model`.

use super::lab::{Lab, Offer, PORT, rate, spec};
use crate::packet::{DropReason, Exit, Time};
use crate::qos::{Aqm, Codel, LeafSpec, Limit, PacketRate, Red, Service, Spec, TunnelSpec};
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn limit(bits: u64) -> Limit {
    Limit::of(rate(bits))
}

/// What a tenant sent from 20 ms on, in bits per second.
fn bits(lab: &Lab, tenant: u16) -> f64 {
    let (from, to) = (21 * MS, lab.now + 1);
    lab.octets(from, to, |sent| sent.tenant == tenant) as f64 * 8e9 / (to - from) as f64
}

/// Jain's index of fairness: 1 is fair.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

/// Where a rate is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Port,
    Tunnel,
    Tenant,
    Pair,
}

/// One tenant that sends into one tunnel, with one bound.
fn bound_at(level: Level, bits: u64) -> Spec {
    let at = |which| if level == which { limit(bits) } else { Limit::NONE };
    let mut spec = spec((level == Level::Port).then_some(bits), &[(None, at(Level::Tenant), 1)]);
    spec.tunnels.push(TunnelSpec { name: "t".into(), cap: at(Level::Tunnel) });
    if level == Level::Pair {
        spec.leaves.push(LeafSpec { tenant: 0, tunnel: Some(0), limit: limit(bits) });
    }
    spec
}

/// Q2: a rate is reached, whatever it is, wherever it binds and whatever the packets' sizes.
#[test]
fn a_rate_is_kept_to_a_thousandth() {
    for (limited, packets, step, gone, ns, tolerance) in [
        (1_000_000, 40, 20_000, 220 * MS, 20_000 * MS, 0.005),
        (10_000_000, 40, 10_000, 220 * MS, 20_000 * MS, 0.001),
        (250_000_000, 60, 5_000, 20 * MS, 2_000 * MS, 0.001),
        (10_000_000_000, 400, 5_000, 20 * MS, 200 * MS, 0.001),
        (100_000_000_000, 1_000, 2_000, 20 * MS, 200 * MS, 0.001),
    ] {
        for level in [Level::Port, Level::Tunnel, Level::Tenant, Level::Pair] {
            let mut lab = Lab::new(bound_at(level, limited));
            for at in 0..packets {
                lab.offer(Offer { into: Some(0), ..Offer::of(0, 2, [64, 1_500, 577, 9_000][at % 4]) });
            }
            // The burst has gone by then. A slow one takes longer to send enough for its packets not to count.
            lab.saturate(gone, step);
            let from = lab.now + 1;
            lab.saturate(ns, step);
            let counted = |octets: u32| u64::from(if level == Level::Port { (octets + 38).max(84) } else { octets });
            let got: u64 = lab.sent.iter().filter(|sent| sent.at >= from).map(|sent| counted(sent.octets)).sum();
            let off = got as f64 * 8e9 / ns as f64 / limited as f64 - 1.0;
            assert!(off.abs() <= tolerance, "{limited} bit/s of a {level:?}: {off:+.5}");
        }
    }
}

/// Q1 and issue: bits and packets each bind in turn.
#[test]
fn a_tunnel_is_capped_in_bits_and_in_packets() {
    for (octets, expected_bits, expected_packets) in
        [(64, 64.0 * 8.0 * 140_000.0, 140_000.0), (1_500, 1.25e9, 1.25e9 / 12_000.0)]
    {
        let mut spec = spec(Some(10_000_000_000), &[(None, Limit::NONE, 1)]);
        let cap = Limit { rate: Some(rate(1_250_000_000)), packets: PacketRate::new(140_000), ..Limit::NONE };
        spec.tunnels.push(TunnelSpec { name: "aws-a".into(), cap });
        let mut lab = Lab::new(spec);
        (0..300).for_each(|_| lab.offer(Offer { into: Some(0), ..Offer::of(0, 2, octets) }));
        lab.saturate(220 * MS, 5_000);
        let (from, to) = (21 * MS, lab.now + 1);
        let packets = lab.sent.iter().filter(|sent| sent.at >= from).count() as f64 * 1e9 / (to - from) as f64;
        assert!((packets / expected_packets - 1.0).abs() < 0.001, "{packets} of {expected_packets}");
        assert!((bits(&lab, 0) / expected_bits - 1.0).abs() < 0.001, "{} of {expected_bits}", bits(&lab, 0));
    }
}

/// The link's own rate counts what passes on the wire, headers of tunnels included.
#[test]
fn a_port_sends_what_its_link_carries() {
    let mut lab = Lab::new(spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]));
    (0..200).for_each(|_| lab.offer(Offer::of(0, 2, 46)));
    lab.saturate(120 * MS, 5_000);
    // 84 octets on the wire for 46: 1.488 million packets per second.
    let packets = bits(&lab, 0) / 8.0 / 46.0;
    assert!((packets / 1_488_095.0 - 1.0).abs() < 0.001, "{packets}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Q4: what is guaranteed is had in every 10 ms, whatever others ask for and whatever their weight.
    #[test]
    fn a_guarantee_holds_whatever_others_do(
        guarantee in 200_000_000..4_000_000_000_u64,
        other in prop_oneof![Just(None), (100_000_000..5_000_000_000_u64).prop_map(Some)],
        weight in 1..1_000_u16,
        sizes in (64..1_500_u32, 64..9_000_u32),
        tunnels in 0..3_u16,
    ) {
        // Guarantees are of the packets' own octets here, and the link has to have time for what is beside them.
        let on_link = |bits: u64, octets: u32| bits as f64 * f64::from(octets + 38) / f64::from(octets);
        prop_assume!(on_link(guarantee, sizes.0) + on_link(other.unwrap_or(0), sizes.1) <= 9.9e9);
        let tenants = [(Some(guarantee), Limit::NONE, 1), (other, Limit::NONE, weight), (None, Limit::NONE, weight)];
        let mut spec = spec(Some(10_000_000_000), &tenants);
        (0..3).for_each(|at| spec.tunnels.push(TunnelSpec { name: format!("t{at}"), cap: Limit::NONE }));
        let mut lab = Lab::new(spec);
        for at in 0..300 {
            lab.offer(Offer { flow: at, into: (tunnels > 0).then_some(0), ..Offer::of(0, 2, sizes.0) });
            lab.offer(Offer::of(1, 2, sizes.1));
            lab.offer(Offer { into: (tunnels > 1).then_some(1), ..Offer::of(2, 3, sizes.1) });
        }
        lab.saturate(60 * MS, 3_000);
        let needs = guarantee as f64 / 8.0 * 0.010 * 0.995;
        for from in (11..50).step_by(3).map(|ms| ms * MS) {
            let got = lab.octets(from, from + 10 * MS, |sent| sent.tenant == 0) as f64;
            prop_assert!(got >= needs, "{got} octets of {needs} from {from}");
        }
    }

    /// Q5: what is left is shared by weight, whatever way it takes.
    #[test]
    fn what_is_left_is_shared_by_weight(weights in proptest::collection::vec(1..30_u16, 2..12), ways in 1..4_u16) {
        let tenants: Vec<_> = weights.iter().map(|weight| (None, Limit::NONE, *weight)).collect();
        let mut spec = spec(Some(10_000_000_000), &tenants);
        (0..3).for_each(|at| spec.tunnels.push(TunnelSpec { name: format!("t{at}"), cap: Limit::NONE }));
        let mut lab = Lab::new(spec);
        for tenant in 0..weights.len() as u16 {
            let into = (tenant % ways).checked_sub(1);
            (0..40).for_each(|_| lab.offer(Offer { into, ..Offer::of(tenant, 2, 1_500) }));
        }
        // Turns of 300 packets each, for as many tenants; 40 of each wait, so a poll sends no more than that.
        lab.saturate(120 * MS, 20_000);
        let shares: Vec<_> = (0..).zip(&weights).map(|(at, weight)| bits(&lab, at) / f64::from(*weight)).collect();
        prop_assert!(jain(&shares) >= 0.99, "{shares:?}: {}", jain(&shares));
    }
}

/// Guarantees first, then weights: 2 guaranteed of 10, the other 8 shared 1 to 3.
#[test]
fn the_excess_is_what_guarantees_leave() {
    let tenants = [(Some(2_000_000_000), Limit::NONE, 1), (None, Limit::NONE, 3)];
    let mut lab = Lab::new(spec(Some(10_000_000_000), &tenants));
    for _ in 0..300 {
        (0..2).for_each(|tenant| lab.offer(Offer::of(tenant, 2, 1_462)));
    }
    lab.saturate(120 * MS, 5_000);
    let link = 10e9 * 1_462.0 / 1_500.0;
    let expected = [2e9 + (link - 2e9) / 4.0, (link - 2e9) * 3.0 / 4.0];
    for (tenant, expected) in (0..).zip(expected) {
        let got = bits(&lab, tenant);
        assert!((got / expected - 1.0).abs() < 0.01, "tenant {tenant}: {got} of {expected}");
    }
}

/// Q7: each class is served in turn, by its share.
#[test]
fn no_class_starves() {
    let mut lab = Lab::new(spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]));
    for class in 2..8 {
        (0..200).for_each(|_| lab.offer(Offer::of(0, class, 1_462)));
    }
    lab.saturate(400 * MS, 10_000);
    // A round is at most what all quanta are, one packet each beyond: 100 shares of 256 octets.
    let round = (100 * 256 + 6 * 1_500) * 8 + 64 * 1_500 * 8;
    let shares = [50.0, 20.0, 15.0, 13.0, 1.0, 1.0];
    let mut fair = Vec::new();
    for (class, share) in (2..8).zip(shares) {
        let times: Vec<_> = lab.sent.iter().filter(|sent| sent.class == class).map(|sent| sent.at).collect();
        let worst = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("it is served");
        // The least of the shares has a packet every six rounds.
        let turns = (1_462.0_f64 / (256.0 * share)).ceil() as u64;
        assert!(worst <= turns * round + 20_000, "class {class} waits {worst} ns");
        fair.push(times.len() as f64 / share);
    }
    assert!(jain(&fair) >= 0.99, "{fair:?}");
}

/// Q8: a strict packet waits for no more than what has been let go, one packet, and the poll.
#[test]
fn a_strict_class_goes_first() {
    let mut spec = spec(Some(10_000_000_000), &[(None, Limit::NONE, 1)]);
    spec.classes[0].service = Service::Strict { percent: 50 };
    let mut lab = Lab::new(spec);
    (0..400).for_each(|_| lab.offer(Offer::of(0, 3, 1_500)));
    let step = 2_000;
    for round in 0..20_000 {
        lab.now += step;
        if round % 10 == 0 {
            lab.offer(Offer::of(0, 0, 64));
        }
        let sent = lab.poll(usize::MAX).to_vec();
        for sent in sent {
            if sent.class == 0 {
                assert!(sent.at - sent.since <= step + 1_538 * 8 / 10, "{} ns", sent.at - sent.since);
            } else {
                lab.offer(Offer::of(0, 3, 1_500));
            }
        }
    }
    assert_eq!(lab.sent.iter().filter(|sent| sent.class == 0).count(), 2_000);
}

/// A strict class has no more than its limit while others have packets, and all that is left when they have none.
#[test]
fn a_strict_class_is_limited() {
    let mut lab = Lab::new(spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]));
    (0..200).for_each(|_| lab.offer(Offer::of(0, 0, 1_462)));
    let alone = {
        lab.saturate(120 * MS, 5_000);
        bits(&lab, 0)
    };
    assert!(alone > 0.97e9, "{alone}");
    let mut lab = Lab::new(spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]));
    for _ in 0..200 {
        lab.offer(Offer::of(0, 0, 1_462));
        lab.offer(Offer::of(0, 3, 1_462));
    }
    lab.saturate(120 * MS, 5_000);
    let strict = lab.octets(21 * MS, lab.now + 1, |sent| sent.class == 0) as f64 * 8e9 / (100 * MS) as f64;
    assert!((strict / 0.05e9 - 1.0).abs() < 0.02, "{strict}");
}

/// Q12: what leaves late is marked, and what leaves early is not; only what is capable.
#[test]
fn marks_are_for_delay_and_for_the_capable() {
    let mut spec = spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]);
    spec.classes[2].aqm = Aqm::Red(Red::SWITCH);
    spec.classes[2].not_capable = crate::qos::NotCapable::Pass;
    let mut lab = Lab::new(spec);
    for at in 0..400_u32 {
        lab.offer(Offer { tos: [0, 1, 2, 3][at as usize % 4], flow: at % 4, ..Offer::of(0, 2, 1_462) });
    }
    while lab.shaper.waiting() != 0 {
        lab.now += 2_000;
        lab.poll(usize::MAX);
    }
    for sent in &lab.sent {
        let delay = sent.at - sent.since;
        match sent.flow {
            0 => assert_eq!(sent.tos, 0, "it cannot carry a mark"),
            3 => assert_eq!(sent.tos, 3, "a mark stays"),
            _ if delay <= 12_000 => assert_ne!(sent.tos, 3, "after {delay} ns"),
            _ if delay >= 120_000 => assert_eq!(sent.tos, 3, "after {delay} ns"),
            _ => {}
        }
    }
    assert_eq!(lab.exits.len(), 0);
    let report = lab.shaper.report(PORT).expect("it has a shaper");
    let marked = lab.sent.iter().filter(|sent| sent.tos == 3 && sent.flow != 3).count() as u64;
    let by_class = report.leaves[0].classes.map(|class| class.marked);
    assert_eq!(by_class, [0, 0, marked, 0, 0, 0, 0, 0]);
}

/// A queue's own count has few bits; a change of the plan in the middle loses none of them.
#[test]
fn counts_go_on_beyond_what_a_queue_counts_itself_and_through_changes() {
    let spec = || {
        let mut spec = spec(Some(100_000_000_000), &[(None, Limit::NONE, 1)]);
        spec.classes[2].aqm = Aqm::Red(Red { start_ns: 0, end_ns: 1, most_permille: 1_000 });
        spec
    };
    let mut lab = Lab::new(spec());
    (0..200).for_each(|_| lab.offer(Offer { tos: 2, ..Offer::of(0, 2, 100) }));
    for part in 1..=2 {
        while lab.sent.len() < part * 70_000 {
            lab.now += 1_000;
            let sent = lab.poll(usize::MAX).to_vec();
            sent.iter().for_each(|_| lab.offer(Offer { tos: 2, ..Offer::of(0, 2, 100) }));
        }
        lab.adopt(spec());
        let report = lab.shaper.report(PORT).expect("it has a shaper");
        let marked = lab.sent.iter().filter(|sent| sent.tos == 3).count() as u64;
        assert!(marked > 69_000 * part as u64);
        let counts = &report.leaves[0].classes[2];
        let sent = lab.sent.len() as u64;
        assert_eq!((counts.marked, counts.sent_packets, counts.sent_octets), (marked, sent, 100 * sent));
    }
}

/// CoDel keeps a queue that cannot be marked short by dropping, and says why.
#[test]
fn what_cannot_be_marked_is_dropped_early() {
    let mut spec = spec(Some(100_000_000), &[(None, Limit::NONE, 1)]);
    spec.classes[4].aqm = Aqm::Codel(Codel::DATA_CENTRE);
    let mut lab = Lab::new(spec);
    (0..100).for_each(|_| lab.offer(Offer::of(0, 4, 1_462)));
    lab.saturate(200 * MS, 10_000);
    let exits: Vec<_> = lab.exits.drain().map(|(_, exit)| exit).collect();
    assert!(exits.len() > 10 && exits.iter().all(|exit| *exit == Exit::Drop(DropReason::EarlyDrop)), "{exits:?}");
    assert_eq!(lab.shaper.waiting() + exits.len(), 100, "each that left was replaced, none that was dropped");
    let report = lab.shaper.report(PORT).expect("it has a shaper");
    assert_eq!(report.leaves[0].classes[4].dropped, exits.len() as u64);
    lab.assert_sound();
}

/// RFC 8290: a flow of one packet at a time does not wait for a flow with many.
#[test]
fn a_sparse_flow_does_not_wait_for_a_bulky_one() {
    let mut spec = spec(Some(1_000_000_000), &[(None, Limit::NONE, 1)]);
    spec.classes[5].aqm = Aqm::FqCodel(Codel { target_ns: u32::MAX, ..Codel::WAN });
    let mut lab = Lab::new(spec);
    (0..300).for_each(|_| lab.offer(Offer { flow: 1, ..Offer::of(0, 5, 1_462) }));
    (0..300).for_each(|_| lab.offer(Offer { flow: 2, ..Offer::of(0, 5, 1_462) }));
    for round in 0..2_000 {
        lab.now += 5_000;
        if round % 20 == 0 {
            lab.offer(Offer { flow: 3, ..Offer::of(0, 5, 64) });
        }
        let sent = lab.poll(usize::MAX).to_vec();
        for sent in sent {
            match sent.flow {
                3 => assert!(sent.at - sent.since <= 3 * 12_000 + 5_000, "{} ns", sent.at - sent.since),
                flow => lab.offer(Offer { flow, ..Offer::of(0, 5, 1_462) }),
            }
        }
    }
    let of = |flow| lab.sent.iter().filter(|sent| sent.flow == flow).count();
    assert!(of(1).abs_diff(of(2)) <= 2, "{} and {}", of(1), of(2));
    lab.assert_sound();
}

/// Q13: a port that sends nothing takes no more than its share of the buffer, whatever is offered for it.
#[test]
fn a_slow_port_leaves_room_for_others() {
    for together in [1, 62] {
        let mut spec = spec(Some(10_000_000), &[(None, Limit::NONE, 1)]);
        spec.buffer.frames = 900;
        let mut lab = Lab::new(spec);
        for class in 0..8 {
            (0..900 / together).for_each(|_| lab.offer_together((0..together).map(|_| Offer::of(0, class, 1_500))));
        }
        // Twice what is free: two thirds.
        assert!((590..=610).contains(&lab.shaper.waiting()), "{} in batches of {together}", lab.shaper.waiting());
        assert!(lab.exits.drain().all(|(_, exit)| exit == Exit::Drop(DropReason::QueueFull)));
        lab.assert_sound();
    }
}

/// A queue may have as many eighths of what is free as its class says, at the moment at which a batch comes; whatever it is
/// refused, the other packets of the batch are not.
#[test]
fn a_queue_has_its_share_of_what_is_free() {
    for together in [1, 64] {
        let mut spec = spec(None, &[(None, Limit::NONE, 1)]);
        spec.buffer.frames = 900;
        (spec.classes[2].alpha_eighths, spec.classes[3].alpha_eighths) = (8, 2);
        let mut lab = Lab::new(spec);
        let mut offered = 0;
        let mut fill = |lab: &mut Lab, class| {
            for _ in 0..900 / together {
                lab.offer_together((0..together).map(|_| Offer::of(0, class, 1_500)));
                offered += together;
            }
            lab.assert_sound();
            lab.shaper.waiting()
        };
        // As much as is free: half. Then a quarter of what is free: a fifth of that.
        let first = fill(&mut lab, 2);
        assert!((450..450 + together).contains(&first), "{first} in batches of {together}");
        let second = fill(&mut lab, 3) - first;
        let share = (900 - first).div_ceil(5);
        assert!((share..share + together).contains(&second), "{second}, not {share}, in batches of {together}");
        let report = lab.shaper.report(PORT).expect("it has a shaper");
        let refused: u64 = report.leaves[0].classes.iter().map(|class| class.refused).sum();
        assert_eq!((refused as usize, lab.exits.len()), (offered - first - second, offered - first - second));
        lab.offer_together([3, 4, 3].map(|class| Offer::of(0, class, 1_500)));
        assert_eq!(lab.shaper.waiting(), first + second + 1, "a queue that was empty");
    }
}

/// Q6 where a pair's bound and its tenant's limit open while nobody looks: neither keeps back what the other lets go.
#[test]
fn a_pair_is_not_kept_back_by_what_its_tenant_had_before() {
    let mut spec = spec(None, &[(None, limit(64_000_000), 1)]);
    spec.tunnels.push(TunnelSpec { name: "t".into(), cap: Limit::NONE });
    let bound = Limit { burst: Some(3_000), ..limit(16_000_000) };
    spec.leaves.push(LeafSpec { tenant: 0, tunnel: None, limit: bound });
    let mut lab = Lab::new(spec);
    // The first packet takes the pair's burst and twice as much; all three take the tenant's, 18,000, to the last octet.
    for (into, octets) in [(None, 6_000), (Some(0), 5_000), (None, 100), (Some(0), 7_000)] {
        lab.offer(Offer { into, ..Offer::of(0, 2, octets) });
    }
    assert_eq!(lab.poll(usize::MAX).len(), 3);
    // 3,000 octets take a millisecond and a half, and the wheel a tick.
    lab.now += 1_500_000 + 2 * 512;
    assert_eq!(lab.poll(usize::MAX).len(), 1);
}

/// The worker may sleep until then, and has missed nothing.
#[test]
fn the_deadline_is_when_something_may_go() {
    let mut lab = Lab::new(spec(None, &[(None, Limit { burst: Some(18_000), ..limit(8_000_000) }, 1)]));
    (0..30).for_each(|_| lab.offer(Offer::of(0, 2, 1_500)));
    assert_eq!(lab.shaper.deadline(Time(lab.now)), Some(Time(lab.now)));
    assert_eq!(lab.poll(usize::MAX).len(), 12);
    for _ in 0..5 {
        let mut deadline = lab.shaper.deadline(Time(lab.now)).expect("packets wait");
        assert!(lab.shaper.deadline(Time(lab.now)) > Some(Time(lab.now)));
        // What is beyond the wheel's horizon is looked at in between.
        for _ in 0..3 {
            lab.now = deadline.0;
            if !lab.poll(usize::MAX).is_empty() {
                break;
            }
            deadline = lab.shaper.deadline(Time(lab.now)).expect("packets wait");
        }
        assert_eq!(lab.sent.last().map(|sent| sent.at), Some(lab.now));
    }
    let apart: Vec<_> = lab.sent[12..].windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(apart.iter().all(|ns| ns.abs_diff(1_500_000) <= 1_024), "{apart:?}");
}

/// A change loses neither packets nor debts, and takes effect at once.
#[test]
fn a_change_keeps_packets_and_tokens() {
    let before = spec(None, &[(None, limit(80_000_000), 1), (None, limit(80_000_000), 1)]);
    let mut lab = Lab::new(before.clone());
    for _ in 0..100 {
        (0..2).for_each(|tenant| lab.offer(Offer::of(tenant, 2, 1_500)));
    }
    lab.poll(usize::MAX);
    let burst = lab.sent.len();
    // The order of tenants is another, and one is new; the burst is not had again.
    let mut after = before;
    after.tenants.insert(1, after.tenants[0].clone());
    after.tenants[1].name = "new".into();
    after.tenants.swap(0, 2);
    after.tenants[0].limit = limit(160_000_000);
    lab.adopt(after);
    assert_eq!(lab.shaper.waiting() + burst, 200);
    assert_eq!(lab.poll(usize::MAX).len(), 0);
    lab.now += 30 * MS;
    while lab.sent.len() < 200 {
        lab.now += 10_000;
        lab.poll(usize::MAX);
    }
    let of = |tenant| lab.sent[burst..].iter().filter(|sent| sent.tenant == tenant).map(|sent| sent.at).max();
    assert!(of(0) < of(2), "what was tenant-1 has twice the rate: {:?} {:?}", of(0), of(2));
    lab.assert_sound();
}
