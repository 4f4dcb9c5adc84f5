//! Memory of what waits: nothing is lost, nothing is had twice (Q13).

use super::lab::spec;
use super::*;
use crate::packet::{Class, TenantId};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    /// Port, class, chunks, octets; so many packets.
    Offer(u16, u8, usize, u32, u32),
    /// Port, nanoseconds, room.
    Poll(u16, u64, usize),
    Open(u16),
    Crosses(u16),
    HandOver(u16),
    Close(u16),
    /// Which ports have a scheduler, flow queues, frames.
    Adopt([bool; 2], bool, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..2_u16, 0..8_u8, 1..5_usize, 64..9_000_u32, 1..20_u32)
            .prop_map(|(port, class, chunks, octets, count)| Step::Offer(port, class, chunks, octets, count)),
        20 => (0..2_u16, 0..2_000_000_u64, 0..20_usize).prop_map(|(port, ns, room)| Step::Poll(port, ns, room)),
        4 => (0..2_u16).prop_map(Step::Open),
        1 => (0..2_u16).prop_map(Step::Crosses),
        2 => (0..2_u16).prop_map(Step::HandOver),
        2 => (0..2_u16).prop_map(Step::Close),
        3 => (any::<[bool; 2]>(), any::<bool>(), 64..300_u32).prop_map(|(ports, flows, frames)| Step::Adopt(ports, flows, frames)),
    ]
}

fn plan(ports: [bool; 2], with_flows: bool, frames: u32) -> Plan {
    let limit = Limit { burst: Some(3_000), ..Limit::of(Rate::new(50_000_000).expect("a rate")) };
    let mut spec = spec(Some(100_000_000), &[(None, limit, 1), (None, Limit::NONE, 1)]);
    if with_flows {
        spec.classes = gpu_gateway();
    }
    spec.buffer.frames = frames;
    let port = spec.ports[0];
    let has = |at: &usize| ports[*at];
    spec.ports = (0..2).filter(has).map(|at| PortSpec { port: PortId(at as u16), ..port }).collect();
    Plan::new(&Arc::new(spec), 2).expect("a specification that can be kept")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Q13: of packets with chunks of real memory, whatever becomes of ports, plans and the buffer's size: each that came in
    /// comes out once, whole; what is in use and what is free is all there is.
    #[test]
    fn whatever_happens_to_ports_and_plans_nothing_is_lost_and_nothing_is_had_twice(steps in vec(step(), 1..250)) {
        let mut stock = stock();
        let mut shaper = Shaper::new(2, 16);
        let (mut batch, mut exits, mut now) = (Batch::new(), Exits::new(), Time(1_000));
        // Chunks of what waits, by number.
        let mut inside: HashMap<u32, usize> = HashMap::new();
        for (first, step) in (0..).step_by(32).zip(steps.into_iter().chain([Step::Close(0), Step::Close(1)])) {
            match step {
                Step::Offer(port, class, chunks, octets, count) => {
                    for number in first..first + count {
                        if inside.values().sum::<usize>() + chunks > CHUNKS - 80 {
                            break;
                        }
                        let mut packet = packet(&mut stock, chunks, PortId(port), number % 5);
                        (packet.generation, packet.len, packet.tos) = (number, octets, (number % 4) as u8);
                        packet.class = Class::new(class ^ (number % 3 / 2) as u8).expect("a class");
                        packet.tenant = TenantId((number % 3) as u16);
                        inside.insert(number, chunks);
                        batch.push(packet);
                    }
                    shaper.enqueue(&mut batch, &mut exits, now);
                }
                Step::Poll(port, ns, room) => {
                    now = Time(now.0 + ns);
                    shaper.dequeue(PortId(port), room, &mut batch, &mut exits, now);
                    prop_assert!(batch.iter().map(|packet| packet.frame.chunks()).sum::<usize>() <= room);
                }
                Step::Open(port) => shaper.open(PortId(port)),
                Step::Crosses(port) => shaper.open_crossing(PortId(port)),
                Step::HandOver(port) => shaper.hand_over(PortId(port)).into_iter().for_each(|packet| batch.push(packet)),
                Step::Close(port) => shaper.close(PortId(port), &mut exits),
                Step::Adopt(ports, with_flows, frames) => drop(shaper.adopt(plan(ports, with_flows, frames), &mut exits, now)),
            }
            let out: Vec<_> = batch.drain().chain(exits.drain().map(|(packet, _)| packet)).collect();
            for packet in out {
                let chunks = packet.frame.chunks();
                prop_assert_eq!(inside.remove(&packet.generation), Some(chunks), "it was not inside");
                stock.put(packet);
            }
            prop_assert!(shaper.is_whole(), "a slot, a chunk or an octet is lost");
            prop_assert_eq!(shaper.waiting(), inside.len());
            prop_assert_eq!(shaper.backlog(PortId(0)) + shaper.backlog(PortId(1)), inside.len());
            for queue in &shaper.queues {
                prop_assert!(!matches!(queue, Queue::Shaped(scheduler) if !scheduler.is_consistent()));
            }
        }
        prop_assert_eq!(inside.len(), 0);
        drop(stock);
        prop_assert_eq!(umem().free(), CHUNKS);
    }
}
