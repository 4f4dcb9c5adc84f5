//! Any specification, any arrivals, any clock: against buckets of exact numbers and lists of packets.

use super::lab::{Lab, Offer, Sent, rate, spec, weight};
use crate::packet::{DropReason, Exit};
use crate::qos::{LeafSpec, Limit, PacketRate, Spec, TenantSpec, TunnelSpec};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

/// A bucket in numbers that cannot be wrong: 10⁻⁹ bits, or 10⁻⁹ packets.
#[derive(Clone, Debug)]
struct Exact {
    level: i128,
    rate: i128,
    burst: i128,
    unit: i128,
    last: u64,
}

impl Exact {
    /// Those of a limit: octets, packets.
    fn of(limit: &Limit) -> Vec<(bool, Self)> {
        let octets = limit.rate.map(|rate| {
            let burst = i128::from(limit.burst_of(rate)) * 8_000_000_000;
            (true, Self { level: burst, rate: rate.bits().into(), burst, unit: 8_000_000_000, last: 0 })
        });
        let packets = limit.packets.map(|rate| {
            let burst = i128::from(limit.packet_burst_of(rate)) * 1_000_000_000;
            (false, Self { level: burst, rate: rate.packets().into(), burst, unit: 1_000_000_000, last: 0 })
        });
        octets.into_iter().chain(packets).collect()
    }

    fn refill(&mut self, now: u64) {
        self.level = self.burst.min(self.level + i128::from(now.saturating_sub(self.last)) * self.rate);
        self.last = now;
    }

    /// Whether it was above zero, for certain, a tick of the wheel ago. The rates of the shaper are cut by at most
    /// a 10,000th (of 8 kbit/s), and buckets fill more slowly by that.
    fn was_open(&self, now: u64) -> bool {
        let slack = self.burst / 5_000 + self.unit;
        self.level - i128::from(now.saturating_sub(self.last).max(600)) * self.rate - slack > 0
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer(Offer),
    /// Nanoseconds, then a poll with so much room.
    Poll(u64, usize),
    Change(Box<Spec>),
    /// The clock goes back, or an hour ahead.
    Jump(bool),
}

fn limit() -> impl Strategy<Value = Limit> {
    let octets = prop_oneof![Just(None), (20_u32..36).prop_map(|bits| Some(rate(1 << bits)))];
    let packets = prop_oneof![3 => Just(None), 1 => (1_000..5_000_000_u32).prop_map(PacketRate::new)];
    (octets, packets, prop_oneof![Just(None), (3_000..50_000_u32).prop_map(Some)])
        .prop_map(|(rate, packets, burst)| Limit { rate, packets, burst, packet_burst: None })
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let tenant = (prop_oneof![Just(None), (20_u32..30).prop_map(|bits| Some(rate(1 << bits)))], limit(), 1..20_u16);
    let own = vec((0..4_u16, prop_oneof![Just(None), (0..2_u16).prop_map(Some)], limit()), 0..3);
    (
        prop_oneof![Just(None), Just(Some(10_000_000_000)), Just(Some(40_000_000_000))],
        vec(tenant, 4),
        vec(limit(), 2),
        own,
        any::<bool>(),
    )
        .prop_map(|(link, tenants, tunnels, own, with_aqm)| {
            let mut all = spec(link, &[]);
            if with_aqm {
                all.classes = crate::qos::gpu_gateway();
            }
            all.buffer.frames = 256;
            all.tenants = tenants
                .into_iter()
                .enumerate()
                .map(|(at, (guarantee, limit, share))| TenantSpec {
                    name: format!("tenant-{at}"),
                    guarantee,
                    limit,
                    weight: weight(share),
                })
                .collect();
            all.tunnels = tunnels
                .into_iter()
                .enumerate()
                .map(|(at, cap)| TunnelSpec { name: format!("tunnel-{at}"), cap })
                .collect();
            all.leaves = own.into_iter().map(|(tenant, tunnel, limit)| LeafSpec { tenant, tunnel, limit }).collect();
            all.leaves.sort_by_key(|leaf| (leaf.tunnel, leaf.tenant));
            all.leaves.dedup_by_key(|leaf| (leaf.tunnel, leaf.tenant));
            all
        })
}

fn step() -> impl Strategy<Value = Step> {
    let offer =
        (0..4_u16, prop_oneof![Just(None), (0..2_u16).prop_map(Some)], 0..8_u8, 28..9_000_u32, 0..6_u32, 0..4_u8)
            .prop_map(|(tenant, into, class, octets, flow, tos)| {
                Step::Offer(Offer { tenant, into, class, octets, flow, tos })
            });
    let poll = (prop_oneof![0..2_000_u64, 0..3_000_000_u64], prop_oneof![0..4_usize, Just(100)])
        .prop_map(|(ns, room)| Step::Poll(ns, room));
    prop_oneof![
        60 => offer,
        30 => poll,
        1 => any_spec().prop_map(|spec| Step::Change(Box::new(spec))),
        1 => any::<bool>().prop_map(Step::Jump),
    ]
}

/// What bounds a packet.
struct Bounds {
    /// On the wire, of all packets.
    link: Vec<(bool, Exact)>,
    tenants: Vec<Vec<(bool, Exact)>>,
    tunnels: Vec<Vec<(bool, Exact)>>,
    own: HashMap<(u16, u16), Vec<(bool, Exact)>>,
}

impl Bounds {
    fn of(spec: &Spec) -> Self {
        Self {
            link: Exact::of(&Limit { rate: spec.ports[0].rate, ..Limit::NONE }),
            tenants: spec.tenants.iter().map(|tenant| Exact::of(&tenant.limit)).collect(),
            tunnels: spec.tunnels.iter().map(|tunnel| Exact::of(&tunnel.cap)).collect(),
            own: spec
                .leaves
                .iter()
                .map(|leaf| ((leaf.tenant, leaf.tunnel.unwrap_or(u16::MAX)), Exact::of(&leaf.limit)))
                .collect(),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Exact> {
        let nodes = self.tenants.iter_mut().chain(&mut self.tunnels).chain(self.own.values_mut());
        nodes.chain([&mut self.link]).flatten().map(|(_, bucket)| bucket)
    }

    /// Those of a packet, but for the link.
    fn above(&mut self, tenant: u16, into: u16) -> impl Iterator<Item = &mut (bool, Exact)> {
        let tunnel = self.tunnels.get_mut(usize::from(into)).into_iter().flatten();
        let own = self.own.get_mut(&(tenant, into)).into_iter().flatten();
        self.tenants[usize::from(tenant)].iter_mut().chain(tunnel).chain(own)
    }
}

/// A flow: tenant, tunnel, class, hash.
type Flow = (u16, u16, usize, u32);

fn flow(sent: &Sent) -> Flow {
    (sent.tenant, sent.into, sent.class, sent.flow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Conformance to every bound (Q1, Q14), work conservation (Q6), order in each flow (Q9), marks only where they may
    /// be (Q12), and nothing lost (Q13).
    #[test]
    fn keeps_every_promise(first in any_spec(), steps in vec(step(), 1..250)) {
        let mut bounds = Bounds::of(&first);
        let mut lab = Lab::new(first);
        let mut waiting: HashMap<Flow, VecDeque<(u64, u32, u8)>> = HashMap::new();
        let mut conserves = true;
        for step in steps {
            match step {
                Step::Offer(offer) => {
                    let before = lab.shaper.waiting();
                    lab.offer(offer);
                    if lab.shaper.waiting() > before {
                        let flow = (offer.tenant, offer.into.unwrap_or(u16::MAX), usize::from(offer.class), offer.flow);
                        waiting.entry(flow).or_default().push_back((lab.now, offer.octets, offer.tos));
                    } else {
                        let (_, exit) = lab.exits.drain().next().expect("it went somewhere");
                        prop_assert_eq!(exit, Exit::Drop(DropReason::QueueFull));
                    }
                }
                Step::Poll(ns, room) => {
                    lab.now += ns;
                    let now = lab.now;
                    let sent = lab.poll(room).to_vec();
                    let dropped: Vec<_> = lab.exits.drain().collect();
                    for (packet, exit) in &dropped {
                        prop_assert_eq!(*exit, Exit::Drop(DropReason::EarlyDrop));
                        prop_assert_eq!(packet.tos, 0, "what is capable is not dropped");
                        let flow = (packet.tenant.0, packet.into.0, packet.class.index(), packet.flow);
                        let queue = waiting.get_mut(&flow).expect("it was offered");
                        let at = queue.iter().position(|(since, octets, tos)| (*since, *octets, *tos) == (packet.arrived.0, packet.len, 0));
                        prop_assert!(at.is_some());
                        queue.remove(at.expect("checked"));
                    }
                    for packet in &sent {
                        let queue = waiting.get_mut(&flow(packet)).expect("it was offered");
                        let (since, octets, tos) = queue.pop_front().expect("it was offered");
                        prop_assert_eq!((since, octets), (packet.since, packet.octets), "in order");
                        prop_assert!(packet.tos == tos || (packet.tos == 3 && tos != 0), "{} of {}", packet.tos, tos);
                        for (is_octets, bucket) in bounds.above(packet.tenant, packet.into) {
                            bucket.refill(now);
                            prop_assert!(bucket.level > 0, "{bucket:?} at {now} by {packet:?}");
                            bucket.level -= if *is_octets { i128::from(packet.octets) * bucket.unit } else { bucket.unit };
                        }
                        for (_, link) in &mut bounds.link {
                            link.refill(now);
                            prop_assert!(link.level > 0, "{link:?} at {now} by {packet:?}");
                            link.level -= i128::from((packet.octets + 38).max(84)) * link.unit;
                        }
                    }
                    let link_was_open = bounds.link.iter_mut().all(|(_, link)| {
                        link.refill(now);
                        link.was_open(now)
                    });
                    if sent.len() < 64 && sent.len() < room && link_was_open && conserves {
                        for ((tenant, into, ..), queue) in &waiting {
                            let open = bounds.above(*tenant, *into).all(|(_, bucket)| {
                                let mut then = bucket.clone();
                                then.refill(now);
                                then.last = now;
                                then.was_open(now)
                            });
                            prop_assert!(queue.is_empty() || !open, "{tenant} into {into} could send at {now}");
                        }
                    }
                }
                Step::Change(next) => {
                    lab.adopt(*next.clone());
                    prop_assert_eq!(lab.exits.drain().count(), 0, "the buffer is as large as before");
                    bounds.all().for_each(|bucket| bucket.refill(lab.now));
                    let old = std::mem::replace(&mut bounds, Bounds::of(&next));
                    // Levels go on where a bucket was and is, in whichever unit; a new one is full.
                    let carry = |new: &mut Vec<(bool, Exact)>, old: &[(bool, Exact)]| {
                        for (is_octets, bucket) in new {
                            if let Some((_, was)) = old.iter().find(|(kind, _)| kind == is_octets) {
                                bucket.level = was.level.min(bucket.burst);
                                bucket.last = was.last;
                            }
                        }
                    };
                    for (new, old) in bounds.tenants.iter_mut().zip(&old.tenants) { carry(new, old); }
                    for (new, old) in bounds.tunnels.iter_mut().zip(&old.tunnels) { carry(new, old); }
                    carry(&mut bounds.link, &old.link);
                    for (leaf, new) in &mut bounds.own {
                        if let Some(old) = old.own.get(leaf) { carry(new, old); }
                    }
                }
                Step::Jump(back) => {
                    let hour = 3_600_000_000_000;
                    // What was earned until then is had; going back earns nothing, going ahead no more than the burst.
                    for bucket in bounds.all() {
                        bucket.refill(lab.now);
                        if back {
                            bucket.last = lab.now.saturating_sub(hour);
                        }
                    }
                    lab.now = if back { lab.now.saturating_sub(hour) } else { lab.now + hour };
                    // A bucket that was not looked at before the clock went back has lost what it would have earned.
                    conserves &= !back;
                }
            }
            lab.assert_sound();
            prop_assert_eq!(lab.shaper.waiting(), waiting.values().map(VecDeque::len).sum::<usize>());
        }
        lab.shaper.close(super::lab::PORT, &mut lab.exits);
        prop_assert_eq!(lab.exits.drain().count(), waiting.values().map(VecDeque::len).sum::<usize>());
        prop_assert!(lab.shaper.is_whole() && lab.shaper.waiting() == 0);
    }
}
