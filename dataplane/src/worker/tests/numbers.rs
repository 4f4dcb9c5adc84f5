//! Whose packets are that waited while tenants were given other numbers.

use super::*;
use crate::packet::Numbering;
use crate::qos::{Account, PortSpec, Spec, TenantSpec};
use crate::tables::filter::{Match, Ways};
use crate::tables::{Classifier, Marks};

/// Tenants by name, each with the UDP source port of its packets, in an order.
type Tenants<'a> = &'a [(&'a str, u16)];

fn change_plan(world: &mut World, numbering: Numbering, tenants: Tenants<'_>) {
    let mut spec = Spec { numbering, ..Spec::plain(2) };
    spec.ports.push(PortSpec { port: WAN, rate: None, account: Account::L3Outer });
    let tenant = |(name, _): &(&str, u16)| TenantSpec { name: (*name).into(), ..TenantSpec::default() };
    spec.tenants.extend(tenants.iter().map(tenant));
    let plan = qos::Plan::new(&Arc::new(spec), 4).expect("a specification that can be kept");
    let now = world.now;
    world.worker.obey(Command::Shape(Box::new(plan)), now);
}

fn change_tables(world: &mut World, numbering: Numbering, tenants: Tenants<'_>) {
    let tenant = |(_, port): &(&str, u16)| Match {
        protocols: vec![wire::protocol::UDP],
        source_ports: vec![*port..=*port],
        ..Match::default()
    };
    let marks = Marks { numbering, tenants: tenants.iter().map(tenant).collect(), ..Marks::default() };
    let made = Classifier::new(Vec::new(), Some(marks), Ways::default()).expect("there is memory");
    world.publish(|tables| tables.classifier = made);
}

/// Packets that each tenant has sent, by its number.
fn sent_by(world: &World) -> Vec<(u16, u64)> {
    let report = world.worker.pipeline.shaper.report(WAN).expect("it has a scheduler");
    let sent = |leaf: &qos::LeafReport| leaf.classes.iter().map(|class| class.sent_packets).sum();
    report.leaves.iter().map(|leaf| (leaf.tenant.0, sent(leaf))).collect()
}

fn frame(to: [u8; 4], port: u16) -> Vec<u8> {
    ethernet(&written(PacketBuilder::ipv4(CLIENT_V4, to, 64).udp(port, 9), b"x"))
}

const BEFORE: Tenants<'_> = &[("red", 1_000), ("blue", 2_000)];
const AFTER: Tenants<'_> = &[("green", 3_000), ("red", 1_000)];

/// It waits for a neighbour, then in a queue whose adjacency changes: neither is classified again but for this.
#[test]
fn what_waited_outside_of_the_queues_is_told_by_todays_numbers() {
    let (old, new) = (Numbering::default(), Numbering::default().next());
    let mut world = World::new();
    change_plan(&mut world, old, BEFORE);
    change_tables(&mut world, old, BEFORE);
    set(&mut world, to::AWS_A, Resolution::Waiting, 2);
    for port in [1_000, 2_000, 4_000] {
        world.receive(frame(SITE_A_V4, port));
    }
    assert_eq!(world.totals().queued, 3);
    change_plan(&mut world, new, AFTER);
    change_tables(&mut world, new, AFTER);
    set(&mut world, to::AWS_A, Resolution::Ready, 3);
    world.poll();
    world.poll();
    assert_eq!(world.sent(WAN).len(), 3);
    // Blue is gone: its packets are `default`'s, as are those that never were a tenant's.
    assert_eq!(sent_by(&world), [(0, 2), (2, 1)]);

    // The scheduler renumbers what waits in it, and the tables of departure route it again.
    world.worker.lanes[1].sends = false;
    world.receive(frame(SITE_A_V4, 1_000));
    change_plan(&mut world, new.next(), BEFORE);
    change_tables(&mut world, new.next(), BEFORE);
    set(&mut world, to::AWS_A, Resolution::Ready, 4);
    world.worker.lanes[1].sends = true;
    world.poll();
    world.poll();
    assert_eq!(world.sent(WAN).len(), 1);
    // It left the queue twice.
    assert_eq!(sent_by(&world), [(0, 2), (1, 3)]);
    world.assert_balance();
    assert_eq!(world.totals().dropped(), 0);
}

/// An ICMP error is the gateway's own, whatever the numbers are.
#[test]
fn what_the_gateway_says_is_defaults_by_any_numbers() {
    let numbering = Numbering::default().next();
    let mut world = World::new();
    change_plan(&mut world, numbering, AFTER);
    change_tables(&mut world, numbering, AFTER);
    let expired = framed(WAN_MAC, ROUTER_MAC, &written(PacketBuilder::ipv4(FAR_V4, CLIENT_V4, 1).udp(1_000, 9), b"x"));
    world.put(WAN, expired);
    world.poll();
    world.poll();
    assert_eq!(world.totals().originated, 1);
    assert_eq!((world.sent(WAN).len(), sent_by(&world)), (1, vec![(0, 1)]));
    world.assert_balance();
}

/// A plan has queues for all ports with a shaper, and this worker may have none of their rings.
#[test]
fn what_crosses_to_another_worker_does_so_under_any_plan() {
    let (old, new) = (Numbering::default(), Numbering::default().next());
    let (mut here, mut there) = near_and_far(1);
    for world in [&mut here, &mut there] {
        change_plan(world, old, BEFORE);
        change_tables(world, old, BEFORE);
    }
    // One is in the ring, the other waits for a place there.
    for port in [1_000, 2_000] {
        here.receive(frame(FAR_V4, port));
    }
    assert_eq!(here.worker.pipeline.shaper.waiting(), 1);
    for world in [&mut here, &mut there] {
        change_plan(world, new, AFTER);
    }
    for _ in 0..2 {
        there.poll();
        here.poll();
    }
    assert_eq!(there.sent(WAN).len(), 2, "{:?}", here.totals());
    assert_eq!(sent_by(&there), [(0, 1), (2, 1)], "red's by its new number; blue is gone");
    assert!(here.totals().balances() && here.totals().queued == 0, "{:?}", here.totals());
}
