//! Packets of a flow leave in the order in which they came (Q9). What is between workers is in `worker::tests::crossing`.

use super::lab::{Lab, Offer, PORT, Sent, rate, spec};
use crate::packet::Time;
use crate::qos::red::Random;
use crate::qos::{Aqm, Codel, Limit, Spec, TunnelSpec, gpu_gateway};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;

/// The first packet that left after one that came later.
fn overtaken(lab: &Lab, same: impl Fn(u32, &Sent) -> u64) -> Option<Sent> {
    let mut last = HashMap::new();
    lab.sent.iter().copied().find(|sent| last.insert(same(sent.number, sent), sent.number) > Some(sent.number))
}

/// Q9 in flow queues: more flows than the table of them has places, so that strangers share a queue, and leave it again.
#[test]
fn flows_that_find_no_queue_of_their_own_keep_their_order() {
    let mut spec = spec(None, &[(None, Limit::NONE, 1)]);
    for class in [2, 3, 5] {
        spec.classes[class].aqm = Aqm::FqCodel(Codel { target_ns: u32::MAX, ..Codel::WAN });
    }
    spec.buffer.frames = 400_000;
    let mut lab = Lab::new(spec);
    let mut random = Random::new(5);
    // It fills, it empties to a part, three times; at last nothing waits.
    for (offers, room) in [(150_000, 20), (100_000, 120), (100_000, 20), (150_000, 140), (50_000, 20), (0, 200)] {
        let mut left = offers;
        while left > 0 || (offers == 0 && lab.shaper.waiting() > 0) {
            for _ in 0..64.min(left) {
                let class = [2, 3, 5][random.next() as usize % 3];
                lab.offer(Offer { flow: random.next() % 30_000, ..Offer::of(0, class, 64 + random.next() % 1_400) });
            }
            left -= 64.min(left);
            lab.now += 10_000;
            for _ in 0..room / 20 {
                lab.poll(random.next() as usize % (room as usize));
            }
        }
    }
    assert_eq!(lab.sent.len(), 550_000, "nothing is lost");
    let flow = |_, sent: &Sent| (sent.class as u64) << 32 | u64::from(sent.flow);
    assert_eq!(overtaken(&lab, flow), None);
}

/// Of 10 Gbit/s, 20 µs are 25,000 octets: so much goes as it came, and what comes behind it by flows.
#[test]
fn packets_that_are_soon_gone_need_no_flow_queues() {
    let mut spec = spec(Some(10_000_000_000), &[(None, Limit::NONE, 1)]);
    spec.classes[5].aqm = Aqm::FqCodel(Codel::WAN);
    let mut lab = Lab::new(spec);
    // A long flow, a short one among its packets, and one behind.
    let flows = [&[1; 8][..], &[2], &[1; 15], &[3], &[1; 10], &[2]].concat();
    flows.iter().for_each(|flow| lab.offer(Offer { flow: *flow, ..Offer::of(0, 5, 1_000) }));
    lab.now += 1_000_000;
    let sent: Vec<u32> = lab.poll(usize::MAX).iter().map(|sent| sent.flow).collect();
    let expected = [&[1; 8][..], &[2], &[1; 15], &[3], &[1; 2], &[2], &[1; 8]].concat();
    assert_eq!(sent, expected, "the last of flow 2 comes before most of what flow 1 has in its queue");
}

#[derive(Clone, Debug)]
enum Step {
    /// Tenant, tunnel, class, flow, octets.
    Offer(usize, usize, u8, u32, u32),
    Poll(u64, usize),
    /// An order of tenants and tunnels by a seed; with or without a scheduler; with queues for flows or not.
    Reload(u32, bool, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..3_usize, 0..3_usize, 0..8_u8, 0..4_u32, 64..1_500_u32)
            .prop_map(|(tenant, tunnel, class, flow, octets)| Step::Offer(tenant, tunnel, class, flow, octets)),
        8 => (0..300_000_u64, 0..20_usize).prop_map(|(ns, room)| Step::Poll(ns, room)),
        2 => (any::<u32>(), prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(seed, shaped, flows)| Step::Reload(seed, shaped, flows)),
    ]
}

/// Tenants and tunnels in an order by a seed.
fn shuffled(seed: u32, with_flows: bool) -> Spec {
    let mut random = Random::new(seed.into());
    let limit =
        Limit { burst: Some(3_000), ..Limit::of(rate(20_000_000 + u64::from(random.next() % 200) * 1_000_000)) };
    let mut spec =
        spec(Some(400_000_000), &[(None, limit, 1), (Some(100_000_000), Limit::NONE, 2), (None, Limit::NONE, 7)]);
    if with_flows {
        spec.classes = gpu_gateway();
        // Nothing is dropped early.
        spec.classes.iter_mut().for_each(|class| class.not_capable = crate::qos::NotCapable::Pass);
    }
    spec.tunnels = (0..2).map(|at| TunnelSpec { name: format!("t{at}"), cap: limit }).collect();
    // The first tenant stays `default`.
    if random.next().is_multiple_of(2) {
        spec.tenants.swap(1, 2);
    }
    if random.next().is_multiple_of(2) {
        spec.tunnels.swap(0, 1);
    }
    spec
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Q9 across reloads: other orders of tenants and tunnels, other limits and disciplines, no scheduler at all and one
    /// again; nothing is lost either.
    #[test]
    fn a_reload_keeps_the_order_of_each_flow(steps in vec(step(), 1..300)) {
        let mut spec = shuffled(0, false);
        let mut lab = Lab::new(spec.clone());
        let mut flows = HashMap::new();
        let mut is_shaped = true;
        for step in steps {
            match step {
                Step::Offer(tenant, tunnel, class, flow, octets) => {
                    let (tenant_name, tunnel_name) = (format!("tenant-{tenant}"), format!("t{tunnel}"));
                    let tenant = spec.tenants.iter().position(|it| it.name == tenant_name).expect("it stays");
                    let into = spec.tunnels.iter().position(|it| it.name == tunnel_name).map(|at| at as u16);
                    let before = lab.shaper.waiting();
                    flows.insert(lab.numbers, (tenant_name, into.map(|_| tunnel_name), class, flow));
                    lab.offer(Offer { into, flow, tos: 2, ..Offer::of(tenant as u16, class, octets) });
                    lab.exits.drain().for_each(drop);
                    prop_assert!(lab.shaper.waiting() == before + 1 || !is_shaped);
                }
                Step::Poll(ns, room) => {
                    lab.now += ns;
                    lab.poll(room);
                }
                Step::Reload(seed, shaped, with_flows) => {
                    // Without a scheduler nobody looks at whose a packet is: numbers must mean the same before and after.
                    let mut next = shuffled(seed, with_flows);
                    if !(is_shaped && shaped) {
                        (next.tenants, next.tunnels) = (spec.tenants.clone(), spec.tunnels.clone());
                    }
                    spec = next.clone();
                    if !shaped {
                        next.ports.clear();
                    }
                    is_shaped = shaped;
                    let waiting = lab.shaper.waiting();
                    lab.adopt(next);
                    // A queue without a scheduler holds 64.
                    let refused = lab.exits.drain().count();
                    prop_assert_eq!(lab.shaper.waiting() + refused, waiting);
                    prop_assert!(refused == 0 || !shaped);
                }
            }
            lab.assert_sound();
        }
        for _ in 0..4_000 {
            lab.now += 100_000;
            lab.poll(usize::MAX);
        }
        prop_assert_eq!(lab.shaper.waiting(), 0);
        prop_assert_eq!(lab.shaper.deadline(Time(lab.now)), None);
        prop_assert_eq!(lab.shaper.backlog(PORT), 0);
        let mut ids = HashMap::new();
        let ids: HashMap<_, _> = flows.into_iter().map(|(number, flow)| {
            let next = ids.len() as u64;
            (number, *ids.entry(flow).or_insert(next))
        }).collect();
        prop_assert_eq!(overtaken(&lab, |number, _| ids[&number]), None);
    }
}
