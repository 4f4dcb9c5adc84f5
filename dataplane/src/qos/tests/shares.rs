//! Who gets how much and how soon, whatever others ask for: guarantees, turns, and classes that go first.

use super::lab::{Lab, Offer, PORT, rate, spec};
use crate::packet::Outstanding;
use crate::qos::leaf::green_quantum;
use crate::qos::{Account, Limit, Rate, Service, TunnelSpec};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

const MS: u64 = 1_000_000;
/// Octets of a guarantee that may be had at once: some jumbo packets, and some microseconds of the link.
const BURST: u32 = 40_000;

/// Octets of time on an Ethernet link.
fn on_wire(octets: u32) -> u64 {
    u64::from((octets + 38).max(84))
}

/// Q4, whatever the packets' length and the ways: others wake with what they have saved, so that for a moment all together are
/// promised more than the link is. Who sends short packets among their long ones has its part of that moment too, or what it
/// earns meanwhile would be more than it may save.
#[test]
fn a_guarantee_is_of_octets_however_short_the_packets() {
    const LINK: u64 = 10_000_000_000;
    for ways in [0, 1, 2, 5] {
        let limit = Limit { burst: Some(20_000), ..Limit::NONE };
        let mut spec = spec(Some(LINK), &[(Some(LINK / 5), limit, 1); 5]);
        spec.ports[0].account = Account::L1;
        spec.tunnels.extend((0..ways).map(|at| TunnelSpec { name: format!("t{at}"), cap: Limit::NONE }));
        let mut lab = Lab::new(spec);
        let offer = |tenant: u16| {
            let into = (ways > 0).then(|| tenant % ways);
            Offer { into, ..Offer::of(tenant, 2, if tenant == 0 { 46 } else { 1_462 }) }
        };
        (0..500).for_each(|_| lab.offer(offer(0)));
        let start = lab.now;
        for ms in 0..50 {
            // Every other millisecond the others ask, as long as they do.
            let asks = ms % 2 == 0;
            (0..20 * u32::from(asks)).for_each(|_| (1..5).for_each(|tenant| lab.offer(offer(tenant))));
            for _ in 0..500 {
                lab.now += 2_000;
                for sent in lab.poll(usize::MAX).to_vec() {
                    if sent.tenant == 0 || asks {
                        lab.again(&[sent]);
                    }
                }
            }
        }
        for tenant in 0..5 {
            // Of the milliseconds in which all ask.
            let counts = |at: u64| at > start && ((at - start - 1) / MS).is_multiple_of(2);
            let sent = lab.sent.iter().filter(|sent| sent.tenant == tenant && counts(sent.at));
            let got: u64 = sent.map(|sent| on_wire(sent.octets)).sum();
            let share = got as f64 / (LINK / 5 / 8 * 25 / 1_000) as f64;
            assert!(share >= 0.99, "tenant {tenant} by {ways} tunnels has {share:.4} of its guarantee");
        }
    }
}

/// Who was alone before others came owes them nothing for it: neither what it sent since, nor what it owed before.
#[test]
fn a_class_that_was_alone_owes_nothing() {
    let mut spec = spec(None, &[(None, Limit::NONE, 1_000)]);
    spec.classes[2].service = Service::Drr { share: 1 };
    spec.classes[3].service = Service::Drr { share: 1_000 };
    let mut lab = Lab::new(spec);
    let all = |lab: &mut Lab| while !lab.poll(usize::MAX).is_empty() {};
    // One packet, for which many turns are to be saved up: the other's packets are gone before it, or it owes them.
    lab.offer(Offer::of(0, 2, 9_000));
    (0..200).for_each(|_| lab.offer(Offer::of(0, 3, 1_000)));
    all(&mut lab);
    for alone in [1, 500] {
        (0..alone).for_each(|_| lab.offer(Offer::of(0, 2, 64)));
        all(&mut lab);
        (0..200).for_each(|_| lab.offer(Offer::of(0, 3, 1_000)));
        (0..20).for_each(|_| lab.offer(Offer::of(0, 2, 64)));
        let before = lab.sent.len();
        all(&mut lab);
        let first = lab.sent[before..].iter().position(|sent| sent.class == 2).expect("it is served");
        // A turn of the other is 16,384 octets.
        assert!(first <= 17, "behind {first} packets of the other, {alone} alone");
    }
}

/// Turns of ways are cut where they end, not where the turn of a leaf does: who has much weight and wakes in the middle of one
/// waits for the next.
#[test]
fn a_heavy_tenant_that_wakes_does_not_prolong_its_ways_turn() {
    let mut spec = spec(None, &[(None, Limit::NONE, 1), (None, Limit::NONE, 1_000)]);
    spec.tunnels.extend((0..2).map(|at| TunnelSpec { name: format!("t{at}"), cap: Limit::NONE }));
    let mut lab = Lab::new(spec);
    let offer = |tenant, into| Offer { into: Some(into), ..Offer::of(tenant, 2, 500) };
    (0..2).for_each(|_| lab.offer(offer(0, 0)));
    (0..100).for_each(|_| lab.offer(offer(0, 1)));
    // In the middle of the first way's turn, of 1,514 octets.
    assert_eq!(lab.poll(1)[0].into, 0);
    (0..100).for_each(|_| lab.offer(offer(1, 0)));
    let sent: Vec<_> = lab.poll(usize::MAX).iter().map(|sent| (sent.into, sent.tenant)).collect();
    assert_eq!(sent[..4], [(0, 0), (0, 1), (0, 1), (1, 0)]);
}

/// Whoever wakes with each packet has a turn like those who never sleep, and owes what it sent beyond it.
#[test]
fn who_comes_and_goes_has_turns_like_others() {
    for octets in [1_500, 9_000] {
        let mut lab = Lab::new(spec(Some(1_000_000_000), &[(None, Limit::NONE, 1), (None, Limit::NONE, 1)]));
        (0..20).for_each(|_| lab.offer(Offer::of(0, 2, 1_500)));
        // One packet at a time.
        lab.offer(Offer::of(1, 2, octets));
        lab.saturate(100 * MS, 10_000);
        let sent = |tenant| lab.octets(0, u64::MAX, |sent| sent.tenant == tenant) as f64;
        let share = sent(1) / sent(0);
        assert!((0.95..=1.05).contains(&share), "{share:.3} of the other with packets of {octets} octets");
    }
}

/// Who has had its guarantee has a share of the rest at once, though it woke below it and another tunnel of its own used it up.
#[test]
fn who_woke_below_its_guarantee_shares_the_rest() {
    let limit = Limit { burst: Some(3_000), ..Limit::NONE };
    let mut spec = spec(Some(1_000_000_000), &[(None, Limit::NONE, 1), (Some(1_000_000), limit, 1)]);
    let cap = Limit { rate: Some(rate(100_000_000)), burst: Some(1_500), ..Limit::NONE };
    spec.tunnels.extend([Limit::NONE, cap].map(|cap| TunnelSpec { name: format!("{cap:?}"), cap }));
    let mut lab = Lab::new(spec);
    let offer = |tenant, into| Offer { into: Some(into), ..Offer::of(tenant, 2, 1_500) };
    (0..20).for_each(|_| lab.offer(offer(0, 0)));
    // The second tunnel is above its cap for 120 µs, its next packet green; the first one's use the guarantee up.
    lab.offer(offer(1, 1));
    assert_eq!(lab.poll(1)[0].into, 1);
    lab.offer(offer(1, 1));
    (0..2).for_each(|_| lab.offer(offer(1, 0)));
    let start = lab.now;
    lab.saturate(20 * MS, 10_000);
    lab.assert_sound();
    let sent = |into| lab.octets(start, u64::MAX, |sent| (sent.tenant, sent.into) == (1, into)) as f64;
    // Of 2.5 MB, the capped tunnel has its 250 kB, and the other's tenants share the rest.
    assert!((0.9..=1.02).contains(&(sent(1) / 250_000.0)), "{} octets by the capped tunnel", sent(1));
    assert!((0.9..=1.1).contains(&(sent(0) / 1_125_000.0)), "{} octets by the other", sent(0));
}

/// Who has saved a guarantee sends just as much of it before others, and a packet in excess.
#[test]
fn what_was_saved_of_a_guarantee_goes_before_others_to_the_packet() {
    let limit = Limit { burst: Some(2_000), ..Limit::NONE };
    let mut lab = Lab::new(spec(Some(100_000_000_000), &[(None, Limit::NONE, 1), (Some(10_000_000_000), limit, 1)]));
    (0..100).for_each(|_| lab.offer(Offer::of(0, 2, 64)));
    (0..100).for_each(|_| lab.offer(Offer::of(1, 2, 64)));
    let green = lab.poll(usize::MAX).iter().take_while(|sent| sent.tenant == 1).count();
    assert_eq!(green, 2_000_usize.div_ceil(64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Q4, among adversaries: with packets of any length in any class, and one without a guarantee has all the weight. Whoever
    /// asks has 99.5 % in every 10 ms, but for a packet, and one more if it is longer than a green turn: several are saved up for
    /// it. Some come and go each millisecond as they like: what each has saved while it slept goes before, once each time; and
    /// where guarantees are the whole link, what each may be ahead.
    #[test]
    fn guarantees_that_fit_the_link_are_kept_to_everyone_who_asks(
        percent in prop::sample::select(vec![50_u64, 90, 100]),
        parts in vec((1..20_u64, 64..9_000_u32, 0..8_u8), 1..5),
        moods in prop_oneof![Just(vec![u8::MAX; 60]), vec(any::<u8>(), 60)],
        greed in (64..9_000_u32, 0..8_u8),
    ) {
        let link = 10_000_000_000;
        let sum: u64 = parts.iter().map(|(part, ..)| part).sum();
        let guarantees: Vec<_> = parts.iter().map(|(part, ..)| link / 100 * percent / sum * part).collect();
        let limit = Limit { burst: Some(BURST), ..Limit::NONE };
        let mut tenants: Vec<_> = guarantees.iter().map(|bits| (Some(*bits), limit, 1)).collect();
        tenants.push((None, Limit::NONE, 1_000));
        let mut spec = spec(Some(link), &tenants);
        // Guarantees are of what the link is counted in, or they would be more than the link.
        spec.ports[0].account = Account::L1;
        let mut lab = Lab::new(spec);
        let kinds: Vec<_> = parts.iter().map(|(_, octets, class)| (*octets, *class)).chain([greed]).collect();
        let offer = |tenant: usize| Offer::of(tenant as u16, kinds[tenant].1, kinds[tenant].0);
        // The first asks all the time, of the others each in its own milliseconds.
        let asks = |tenant: usize, ms: usize| tenant == 0 || moods[ms] >> tenant & 1 == 1;
        let mut waiting = vec![0_usize; kinds.len()];
        for (ms, _) in moods.iter().enumerate() {
            for tenant in (0..kinds.len()).filter(|tenant| asks(*tenant, ms)) {
                for _ in waiting[tenant]..200 {
                    lab.offer(offer(tenant));
                }
                waiting[tenant] = 200;
            }
            for _ in 0..500 {
                lab.now += 2_000;
                for sent in lab.poll(usize::MAX).to_vec() {
                    let tenant = usize::from(sent.tenant);
                    if asks(tenant, ms) { lab.offer(offer(tenant)) } else { waiting[tenant] -= 1 }
                }
            }
        }
        let start = 1_000_000;
        for from in (1..moods.len() as u64 - 10).map(|ms| start + ms * MS) {
            let windows = (0..parts.len()).filter(|tenant| (0..10).all(|ms| asks(*tenant, ((from - start) / MS + ms) as usize)));
            for tenant in windows {
                let sent = lab.sent.iter().filter(|sent| usize::from(sent.tenant) == tenant && (from..from + 10 * MS).contains(&sent.at));
                let got: u64 = sent.map(|sent| on_wire(sent.octets)).sum();
                let first = ((from - start) / MS) as usize;
                let wakes = |other: usize, ms: usize| asks(other, ms) && !asks(other, ms - 1);
                let wakes = (1..parts.len()).map(|other| (first..first + 10).filter(|ms| wakes(other, *ms)).count());
                let ahead = if percent == 100 { parts.len() - 1 } else { 0 };
                let octets = on_wire(kinds[tenant].0);
                let turn = green_quantum(Rate::new(guarantees[tenant]).expect("a rate")) as u64;
                let packets = if octets > turn { 2 * octets } else { octets };
                let but_for = packets as f64 + ((wakes.sum::<usize>() + ahead) * BURST as usize) as f64;
                let needs = guarantees[tenant] as f64 / 8.0 * 0.010 * 0.995 - but_for;
                prop_assert!(got as f64 >= needs, "tenant {tenant}: {got} octets of {needs} from {from}, {guarantees:?}");
            }
        }
    }

    /// Q5, the bound: in no stretch of time is one ahead of another by more than two turns and a packet, per weight.
    #[test]
    fn nobody_is_ahead_by_more_than_two_turns(
        tenants in vec((1..20_u16, 64..1_500_u32, 64..1_500_u32), 2..6),
    ) {
        let specs: Vec<_> = tenants.iter().map(|(weight, ..)| (None, Limit::NONE, *weight)).collect();
        let mut lab = Lab::new(spec(Some(1_000_000_000), &specs));
        for at in 0..250 {
            for (tenant, (_, short, long)) in (0..).zip(&tenants) {
                lab.offer(Offer::of(tenant, 2, if at % 3 == 0 { *long } else { *short }));
            }
        }
        lab.saturate(50 * MS, 2_000);
        for (i, (weight_i, ..)) in tenants.iter().enumerate() {
            for (j, (weight_j, ..)) in tenants.iter().enumerate().skip(i + 1) {
                // How far one is ahead since the beginning: between its least and its most lies the worst stretch.
                let (mut ahead, mut least, mut most) = (0.0_f64, 0.0_f64, 0.0_f64);
                for sent in &lab.sent {
                    let tenant = usize::from(sent.tenant);
                    ahead += if tenant == i { f64::from(sent.octets) / f64::from(*weight_i) } else { 0.0 };
                    ahead -= if tenant == j { f64::from(sent.octets) / f64::from(*weight_j) } else { 0.0 };
                    (least, most) = (least.min(ahead), most.max(ahead));
                }
                prop_assert!(most - least <= 2.0 * 1_514.0 + 1_500.0, "{i} and {j}: {least} to {most}");
            }
        }
    }

    /// Q7: whatever the shares and the lengths, and whatever strict classes have, every class that waits is served within its
    /// rounds: all quanta, a packet each beyond, at the rate that strict classes leave.
    #[test]
    fn every_class_is_served_within_its_rounds(
        shares in vec(1..=60_u16, 6),
        sizes in vec(64..1_500_u32, 6),
        strict in prop::option::of((1..=50_u8, 64..1_500_u32)),
    ) {
        let rate = 1_000_000_000;
        let mut spec = spec(Some(rate), &[(None, Limit::NONE, 1)]);
        for (class, share) in spec.classes[2..].iter_mut().zip(&shares) {
            class.service = Service::Drr { share: *share };
        }
        if let Some((percent, _)) = strict {
            spec.classes[0].service = Service::Strict { percent };
        }
        let mut lab = Lab::new(spec);
        for _ in 0..100 {
            (2..8).zip(&sizes).for_each(|(class, octets)| lab.offer(Offer::of(0, class, *octets)));
            if let Some((_, octets)) = strict {
                lab.offer(Offer::of(0, 0, octets));
            }
        }
        let step = 5_000;
        lab.saturate(150 * MS, step);
        // The least of the shares has a quantum of 256 octets.
        let least = f64::from(*shares.iter().min().expect("six"));
        let quanta: Vec<_> = shares.iter().map(|share| 256.0 * f64::from(*share) / least).collect();
        let wire = |(quantum, octets): (&f64, &u32)| (quantum + f64::from(*octets)) * on_wire(*octets) as f64 / f64::from(*octets);
        let round: f64 = quanta.iter().zip(&sizes).map(wire).sum();
        // What strict classes leave: their limit is of octets of IP, the link's time of those on the wire, and half a
        // millisecond they may be ahead.
        let (taken, ahead) = strict.map_or((0.0, 0.0), |(percent, octets)| {
            let taken = f64::from(percent) / 100.0 * on_wire(octets) as f64 / f64::from(octets);
            (taken, taken * 500_000.0)
        });
        prop_assume!(taken < 0.9);
        for (class, (quantum, octets)) in (2..).zip(quanta.iter().zip(&sizes)) {
            let rounds = (f64::from(*octets) / quantum).ceil() + 1.0;
            let bound = (rounds * round * 8.0 + ahead) / (1.0 - taken) + (64 * 1_538 * 8) as f64 + step as f64;
            let times: Vec<_> = lab.sent.iter().filter(|sent| sent.class == class).map(|sent| sent.at).collect();
            let ends = times.iter().copied().chain([lab.now]);
            let worst = ends.scan(MS, |last, at| Some(at - std::mem::replace(last, at))).max().expect("it is served");
            prop_assert!(worst as f64 <= bound, "class {class} waits {worst} ns, more than {bound}: {quanta:?}");
        }
    }

    /// Q8: a packet of a strict class waits no longer than what came at once before it takes (σ/C), one packet that had begun
    /// (Lmax/C), what the ring had been given (tx_outstanding/C), and the poll. At 100 Gbit/s that is 60 µs at most for 99.9 %,
    /// unless two batches of jumbo frames take longer.
    #[test]
    fn a_strict_packet_waits_for_the_burst_a_packet_the_ring_and_the_poll(
        link in prop::sample::select(vec![1_000_000_000_u64, 10_000_000_000, 100_000_000_000]),
        burst in 1..40_usize,
        gap in 1..5_u64,
        sizes in (64..1_500_u32, prop_oneof![64..1_500_u32, 64..9_000_u32]),
        step in 500..3_000_u64,
    ) {
        let mut spec = spec(Some(link), &[(None, Limit::NONE, 1), (None, Limit::NONE, 1_000)]);
        spec.classes[0].service = Service::Strict { percent: 100 };
        let mut lab = Lab::new(spec);
        (0..400).for_each(|_| lab.offer(Offer::of(0, 3, sizes.1)));
        let takes = |octets: u32| on_wire(octets) as f64 * 8e9 / link as f64;
        // 20 µs of the link, or two batches of whatever is longer; and the packet in excess.
        let longest = takes(sizes.0.max(sizes.1));
        let outstanding = f64::max(20_000.0, 128.0 * longest) + longest;
        // A burst each time that the one before has long left.
        let pause = (gap as f64 * burst as f64 * takes(sizes.0)) as u64 + 10 * step;
        // Octets of each packet in the ring, and when it is out.
        let mut ring: VecDeque<(u64, f64)> = VecDeque::new();
        let (mut free_at, mut next) = (lab.now as f64, lab.now);
        let mut delays = Vec::new();
        let mut bursts = 0;
        while delays.len() < 100 * burst {
            lab.now += step;
            if lab.now >= next && bursts < 100 {
                bursts += 1;
                (0..burst).for_each(|_| lab.offer(Offer::of(0, 0, sizes.0)));
                next = lab.now + pause;
            }
            let now = lab.now as f64;
            while ring.front().is_some_and(|(_, out)| *out <= now) {
                ring.pop_front();
            }
            loop {
                let held = Outstanding { descriptors: ring.len(), octets: ring.iter().map(|(octets, _)| octets).sum() };
                let room = lab.shaper.room(PORT, 2_048, held);
                let given = lab.poll(room).to_vec();
                if given.is_empty() {
                    break;
                }
                for sent in given {
                    free_at = free_at.max(now) + takes(sent.octets);
                    ring.push_back((on_wire(sent.octets), free_at));
                    if sent.class == 0 {
                        delays.push(free_at - sent.since as f64);
                    } else {
                        lab.again(&[sent]);
                    }
                }
            }
        }
        let bound = burst as f64 * takes(sizes.0) + takes(sizes.1) + outstanding + step as f64;
        let most = delays.iter().copied().fold(0.0, f64::max);
        prop_assert!(most <= bound, "{most} ns, more than {bound}");
        delays.sort_by(f64::total_cmp);
        let p999 = delays[delays.len() * 999 / 1_000];
        prop_assert!(link < 100_000_000_000 || sizes.1 > 1_500 || p999 <= 60_000.0, "{p999} ns");
    }
}
