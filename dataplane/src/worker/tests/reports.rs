//! What a worker tells of its schedulers while packets come and go.

use super::*;
use crate::qos::{Account, PortReport, PortSpec, Spec, TenantSpec};
use std::sync::mpsc::Receiver;

/// Queues of so many tenants by three ways, each of which is a leaf.
fn plan(tenants: usize) -> Command {
    let mut spec = Spec::plain(2);
    spec.ports.push(PortSpec { port: WAN, rate: None, account: Account::L3Outer });
    spec.tenants = (0..tenants).map(|at| TenantSpec { name: at.to_string(), ..TenantSpec::default() }).collect();
    spec.tenants[0] = TenantSpec::default();
    Command::Shape(Box::new(qos::Plan::new(&Arc::new(spec), 4).expect("it can be built")))
}

/// After a packet by the port itself and one by each tunnel.
fn shaped(tenants: usize) -> World {
    let mut world = World::new();
    world.worker.obey(plan(tenants), world.now);
    for to in [FAR_V4, SITE_A_V4, SITE_B_V4] {
        world.put(LAN, ethernet(&udp_v4(to, b"payload")));
    }
    world.poll();
    assert_eq!(world.sent(WAN).len(), 3);
    world
}

fn ask(world: &mut World) -> Receiver<Vec<PortReport>> {
    let (sender, answer) = mpsc::channel();
    world.worker.obey(Command::Report(sender), world.now);
    answer
}

/// Rounds until it is answered, at most a thousand; and the answer.
#[track_caller]
fn rounds(world: &mut World, answer: &Receiver<Vec<PortReport>>) -> (usize, Vec<PortReport>) {
    for round in 1..1_000 {
        world.worker.answer_some();
        world.poll();
        if let Ok(reports) = answer.try_recv() {
            return (round, reports);
        }
    }
    panic!("no answer")
}

/// All that there is to say, at once.
fn whole(world: &World) -> Vec<PortReport> {
    world.worker.pipeline.shaper.report(WAN).into_iter().collect()
}

#[test]
fn a_report_of_many_leaves_takes_rounds_in_which_packets_go_on() {
    let mut world = shaped(2_000);
    let answer = ask(&mut world);
    // One round for the port, six for its leaves, and one to see that there is no other port.
    assert_eq!(rounds(&mut world, &answer), (8, whole(&world)));
    let [report] = &whole(&world)[..] else { panic!("one port has a scheduler") };
    let tunnels: Vec<_> = report.leaves.iter().map(|leaf| leaf.tunnel).collect();
    assert_eq!(tunnels, [None, Some(AWS_A), Some(AWS_B)], "those that had packets");

    let (first, second) = (ask(&mut world), ask(&mut world));
    assert_eq!(rounds(&mut world, &first).1, whole(&world), "in the order of asking");
    assert_eq!(rounds(&mut world, &second), (8, whole(&world)));
    assert!(world.worker.asked.is_empty(), "nothing keeps it from sleep");

    let answer = ask(&mut world);
    (0..3).for_each(|_| world.worker.answer_some());
    world.receive(ethernet(&udp_v4(FAR_V4, b"payload")));
    assert_eq!(world.sent(WAN).len(), 1, "nobody waits for the end of a report");
    assert_eq!(rounds(&mut world, &answer).0, 5);
}

#[test]
fn a_report_begins_again_when_leaves_get_other_numbers() {
    let mut world = shaped(2_000);
    let answer = ask(&mut world);
    (0..4).for_each(|_| world.worker.answer_some());
    world.worker.obey(plan(1), world.now);
    let (_, reports) = rounds(&mut world, &answer);
    assert_eq!(reports, whole(&world));
    assert_eq!(reports[0].leaves.len(), 3);
}

#[test]
fn a_port_that_goes_while_it_is_told_of_keeps_nobody_waiting() {
    let mut world = shaped(2_000);
    let answer = ask(&mut world);
    (0..4).for_each(|_| world.worker.answer_some());
    world.worker.obey(Command::Close(WAN), world.now);
    assert!(rounds(&mut world, &answer).0 < 8);
    let answer = ask(&mut world);
    assert_eq!(rounds(&mut world, &answer), (1, Vec::new()));
}
