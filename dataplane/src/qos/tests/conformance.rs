//! Nothing above a limit, in any stretch of time, whatever the clock does.

use super::lab::{Lab, Offer, Sent, rate, spec};
use crate::qos::{LeafSpec, Limit, PacketRate, Spec, TunnelSpec, gpu_gateway};
use proptest::collection::vec;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const HOUR: u64 = 3_600_000 * MS;

/// All stretches of time that end now at once: the most that any of them holds above what its length earns, in 10⁻⁹ of a bit
/// or of a packet.
#[derive(Clone, Debug)]
struct Windows {
    above: i128,
    rate: i128,
    burst: i128,
    unit: i128,
}

impl Windows {
    /// Those of a limit: octets, packets.
    fn of(limit: &Limit) -> [Option<Self>; 2] {
        let octets = limit.rate.map(|rate| (rate.bits(), u64::from(limit.burst_of(rate)), 8_000_000_000_i128));
        let packets =
            limit.packets.map(|rate| (rate.packets().into(), limit.packet_burst_of(rate).into(), 1_000_000_000));
        [octets, packets].map(|it| {
            it.map(|(rate, burst, unit)| Self { above: 0, rate: rate.into(), burst: i128::from(burst) * unit, unit })
        })
    }

    /// A packet left. What each stretch held before it was below the burst; so with it there is a packet more at most.
    fn hold(&mut self, amount: u32) -> bool {
        let held = self.above < self.burst;
        self.above += i128::from(amount) * self.unit;
        held
    }
}

/// Everything that bounds a packet of a specification.
struct Bounds {
    link: [Option<Windows>; 2],
    tenants: Vec<[Option<Windows>; 2]>,
    tunnels: Vec<[Option<Windows>; 2]>,
    own: Vec<(u16, u16, [Option<Windows>; 2])>,
}

impl Bounds {
    fn of(spec: &Spec) -> Self {
        Self {
            link: Windows::of(&Limit { rate: spec.ports[0].rate, ..Limit::NONE }),
            tenants: spec.tenants.iter().map(|tenant| Windows::of(&tenant.limit)).collect(),
            tunnels: spec.tunnels.iter().map(|tunnel| Windows::of(&tunnel.cap)).collect(),
            own: spec
                .leaves
                .iter()
                .map(|leaf| (leaf.tenant, leaf.tunnel.unwrap_or(u16::MAX), Windows::of(&leaf.limit)))
                .collect(),
        }
    }

    fn pass(&mut self, ns: u64) {
        let own = self.own.iter_mut().map(|(.., windows)| windows);
        let all = self.tenants.iter_mut().chain(&mut self.tunnels).chain(own).chain([&mut self.link]);
        all.flatten()
            .flatten()
            .for_each(|windows| windows.above = 0.max(windows.above - windows.rate * i128::from(ns)));
    }

    /// Whether a packet that left was within all that bounds it.
    fn hold(&mut self, sent: &Sent) -> bool {
        let on_wire = (sent.octets + 38).max(84);
        let own = self.own.iter_mut().filter(|(tenant, into, _)| (*tenant, *into) == (sent.tenant, sent.into));
        let above = self.tunnels.get_mut(usize::from(sent.into)).into_iter();
        let above = above.chain([&mut self.tenants[usize::from(sent.tenant)]]).chain(own.map(|(.., windows)| windows));
        let mut held = true;
        for [octets, packets] in above {
            held &= octets.as_mut().is_none_or(|windows| windows.hold(sent.octets));
            held &= packets.as_mut().is_none_or(|windows| windows.hold(1));
        }
        held & self.link[0].as_mut().is_none_or(|windows| windows.hold(on_wire))
    }
}

fn limit() -> impl Strategy<Value = Limit> {
    let octets = (prop_oneof![10_000_000..2_000_000_000_u64, 2_000_000_000..20_000_000_000_u64], 1_500..200_000_u32);
    let packets = (5_000..5_000_000_u32, 1..300_u16);
    (prop::option::weighted(0.6, octets), prop::option::weighted(0.4, packets)).prop_map(|(octets, packets)| Limit {
        rate: octets.map(|(bits, _)| rate(bits)),
        burst: octets.map(|(_, burst)| burst),
        packets: packets.and_then(|(packets, _)| PacketRate::new(packets)),
        packet_burst: packets.map(|(_, burst)| burst),
    })
}

/// Two tenants, two tunnels, each pair of them with or without a bound.
fn bounded() -> impl Strategy<Value = Spec> {
    let link = prop::option::of(100_000_000..20_000_000_000_u64);
    (link, vec(limit(), 2), vec(limit(), 2), vec(prop::option::of(limit()), 6)).prop_map(
        |(link, tenants, tunnels, own)| {
            let mut spec = spec(link, &[(None, tenants[0], 1), (None, tenants[1], 3)]);
            spec.tunnels = (0..).zip(tunnels).map(|(at, cap)| TunnelSpec { name: format!("t{at}"), cap }).collect();
            let pairs = (0..2).flat_map(|tenant| [None, Some(0), Some(1)].map(|tunnel| (tenant, tunnel)));
            let bound =
                |((tenant, tunnel), limit): (_, Option<_>)| limit.map(|limit| LeafSpec { tenant, tunnel, limit });
            spec.leaves = pairs.zip(own).filter_map(bound).collect();
            spec
        },
    )
}

/// Packets of all pairs, of unlike lengths, enough for every poll.
fn fill(lab: &mut Lab, class: impl Fn(u32) -> u8) {
    for at in 0..900_u32 {
        let (tenant, into) = ((at % 2) as u16, [None, Some(0), Some(1)][at as usize / 2 % 3]);
        let octets = [64, 1_500, 300, 9_000, 577][at as usize % 5];
        lab.offer(Offer { into, flow: at % 7, tos: (at % 4) as u8, ..Offer::of(tenant, class(at), octets) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Q1: between any two moments no more passes than the burst, what the rate has earned, and one packet: in octets and in
    /// packets, by the port, a tunnel, a tenant, and a pair of both.
    #[test]
    fn no_stretch_of_time_holds_more_than_burst_and_rate(
        spec in bounded(),
        polls in vec(prop_oneof![6 => 0..20_000_u64, 2 => 0..500_000_u64, 1 => 0..20_000_000_u64], 1..300),
    ) {
        let mut bounds = Bounds::of(&spec);
        let mut lab = Lab::new(spec);
        fill(&mut lab, |_| 2);
        for ns in polls {
            lab.now += ns;
            bounds.pass(ns);
            let sent = lab.poll(usize::MAX).to_vec();
            for packet in &sent {
                prop_assert!(bounds.hold(packet), "{packet:?}");
            }
            lab.again(&sent);
        }
    }

    /// Q14: a clock that goes back or ahead by up to an hour earns nobody more than a burst, stops nobody, and breaks nothing,
    /// with every queue discipline there is.
    #[test]
    fn a_clock_that_jumps_gives_a_burst_at_most_and_stops_nobody(
        spec in bounded(),
        steps in vec((0..200_000_u64, prop_oneof![
            8 => Just(0_i64),
            1 => -10_000..10_000_i64,
            1 => -(HOUR as i64)..HOUR as i64,
            1 => prop::sample::select(vec![-(HOUR as i64), HOUR as i64]),
        ]), 1..200),
    ) {
        let mut bounds = Bounds::of(&spec);
        let mut lab = Lab::new(Spec { classes: gpu_gateway(), ..spec });
        lab.now = 100 * HOUR;
        fill(&mut lab, |at| (at / 6 % 8) as u8);
        for (ns, jump) in steps {
            // The hour ahead is earned up to the burst; the hour back is not, and what comes after it is.
            lab.now = lab.now.saturating_add(ns).saturating_add_signed(jump);
            bounds.pass(ns.saturating_add_signed(jump));
            let sent = lab.poll(usize::MAX).to_vec();
            for packet in &sent {
                prop_assert!(bounds.hold(packet), "{packet:?}");
            }
            lab.again(&sent);
            lab.exits.drain().for_each(drop);
            lab.assert_sound();
        }
        // A packet of 9,000 octets in debt at 10 Mbit/s, or one at 5,000 per second; and the wheel's horizon.
        for _ in 0..40 {
            let before = lab.sent.len();
            for _ in 0..12 {
                lab.now += MS;
                lab.poll(usize::MAX);
            }
            prop_assert!(lab.shaper.waiting() == 0 || lab.sent.len() + lab.exits.len() > before, "it stands still");
        }
    }
}
