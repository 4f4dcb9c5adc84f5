//! Packets that come by numbers of before: from another worker, or from where they waited for something else.

use super::*;
use crate::packet::{Numbering, TenantId, TunnelId};
use std::sync::Arc;

const PORT: PortId = PortId(0);
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A specification with tenants and tunnels in an order by a seed; some are not there.
fn spec_of(seed: u64, numbering: Numbering, shaped: bool) -> Spec {
    let mut random = crate::qos::red::Random::new(seed);
    let mut pick = |prefix: &str| {
        let mut names: Vec<_> = NAMES.iter().map(|name| format!("{prefix}{name}")).collect();
        (0..NAMES.len()).for_each(|at| names.swap(at, random.next() as usize % NAMES.len()));
        names.truncate(2 + random.next() as usize % 3);
        names
    };
    let (tenants, tunnels) = (pick("tenant-"), pick("tunnel-"));
    let mut spec = Spec { numbering, ..Spec::plain(0) };
    spec.tenants.extend(tenants.into_iter().map(|name| TenantSpec { name, ..TenantSpec::default() }));
    spec.tunnels.extend(tunnels.into_iter().map(|name| TunnelSpec { name, cap: Limit::NONE }));
    if shaped {
        spec.ports.push(PortSpec { port: PORT, rate: None, account: Account::L3Outer });
    }
    spec
}

/// A tenant and a tunnel, by name.
type Names = (String, Option<String>);

fn names(spec: &Spec, packet: &Packet) -> Names {
    let tunnel = spec.tunnels.get(packet.into.index()).map(|tunnel| tunnel.name.clone());
    (spec.tenants[packet.tenant.index()].name.clone(), tunnel)
}

#[derive(Clone, Debug)]
enum Step {
    /// Told by the numbers of so many changes ago; tenant and tunnel.
    Offer(usize, u16, u16),
    /// An order of names; a scheduler or none; other numbers than before even if the names are the same.
    Change(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..11_usize, 0..6_u16, 0..6_u16).prop_map(|(ago, tenant, tunnel)| Step::Offer(ago, tenant, tunnel)),
        1 => (any::<u64>(), prop::bool::weighted(0.7)).prop_map(|(seed, shaped)| Step::Change(seed, shaped)),
    ]
}

proptest! {
    /// Whenever a packet was told whose it is and where it goes, and whatever changed since: it is sent as the one of that name. Those
    /// whose name is gone are `default`'s, or leave by the port itself; those of too long ago are dropped. Numbers wrap around.
    #[test]
    fn a_packet_stays_its_tenants_and_its_tunnels_through_changes(steps in vec(step(), 1..160)) {
        let mut shaper = Shaper::new(1, 1_000);
        let (mut batch, mut exits) = (Batch::new(), Exits::new());
        let mut specs = vec![spec_of(1, Numbering::default(), true)];
        let plan = |spec: &Spec| Plan::new(&Arc::new(spec.clone()), 1).expect("a specification that can be kept");
        shaper.adopt(plan(&specs[0]), &mut exits, Time(0));
        shaper.open(PORT);
        // By the flow that tells packets apart: when it was told, and by which names; what a plain queue holds is told when it is
        // asked, so that a name which is gone meanwhile stays gone.
        let mut offered: Vec<(usize, Names)> = Vec::new();
        let renamed = |specs: &[Spec], at: usize, (mut tenant, mut tunnel): Names| {
            for spec in &specs[at + 1..] {
                if spec.tenants.iter().all(|it| it.name != tenant) {
                    tenant = "default".into();
                }
                tunnel = tunnel.filter(|tunnel| spec.tunnels.iter().any(|it| it.name == *tunnel));
            }
            (tenant, tunnel)
        };
        for step in steps.into_iter().chain([Step::Change(9, true)]) {
            match step {
                Step::Offer(ago, tenant, tunnel) => {
                    let at = specs.len().saturating_sub(1 + ago);
                    let spec = &specs[at];
                    let mut packet = Box::new(Packet::empty());
                    packet.egress = PORT;
                    packet.tenant = TenantId(tenant % spec.tenants.len() as u16);
                    packet.into = if usize::from(tunnel) < spec.tunnels.len() { TunnelId(tunnel) } else { TunnelId::NONE };
                    packet.class = packet.class.numbered(spec.numbering);
                    packet.flow = offered.len() as u32;
                    offered.push((at, names(spec, &packet)));
                    batch.push(packet);
                    shaper.enqueue(&mut batch, &mut exits, Time(0));
                }
                Step::Change(seed, shaped) => {
                    let numbering = specs[specs.len() - 1].numbering.next();
                    specs.push(spec_of(seed, numbering, shaped));
                    shaper.adopt(plan(&specs[specs.len() - 1]), &mut exits, Time(0));
                }
            }
            prop_assert!(shaper.is_whole());
            let now = specs.len() - 1;
            for (packet, exit) in exits.drain() {
                prop_assert_eq!(exit, Exit::Drop(DropReason::UnknownNumbering));
                prop_assert!(now - offered[packet.flow as usize].0 > 8, "eight changes are remembered");
            }
        }
        let now = &specs[specs.len() - 1];
        while shaper.waiting() != 0 {
            shaper.dequeue(PORT, usize::MAX, &mut batch, &mut exits, Time(1));
            for packet in batch.drain() {
                let (at, names_then) = offered[packet.flow as usize].clone();
                prop_assert_eq!(names(now, &packet), renamed(&specs, at, names_then));
                prop_assert_eq!(packet.class.numbering(), now.numbering);
            }
        }
    }
}
