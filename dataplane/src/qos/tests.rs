mod buffers;
mod conformance;
mod invariants;
mod lab;
mod marks;
mod model;
mod numbers;
mod order;
mod shares;

use super::*;
use crate::packet::Stock;
use crate::testing::{CHUNKS, stock, umem};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A packet of so many chunks, bound for a port, told apart by its flow.
fn packet(stock: &mut Stock, chunks: usize, egress: PortId, flow: u32) -> Box<Packet> {
    let mut frame = stock.frames.take().expect("the test's memory has more");
    for _ in 1..chunks {
        frame.chain(stock.frames.take().expect("the test's memory has more"));
    }
    let mut packet = stock.wrap(frame, PortId(0), false, Time(0));
    (packet.egress, packet.flow) = (egress, flow);
    packet
}

proptest! {
    /// Against a list for each port: order, bound, room in descriptors, and counts.
    #[test]
    fn queues_are_in_order_bounded_and_whole(
        steps in vec(prop_oneof![
            (0..4u16, 1..4usize).prop_map(|(port, chunks)| (true, port, chunks)),
            (0..3u16, 0..9usize).prop_map(|(port, room)| (false, port, room)),
        ], 1..80),
    ) {
        const LIMIT: usize = 5;
        let mut stock = stock();
        let mut shaper = Shaper::new(3, LIMIT);
        // The third is never opened; a fourth does not exist.
        (0..2).for_each(|port| shaper.open(PortId(port)));
        let mut model = [VecDeque::new(), VecDeque::new()];
        let (mut batch, mut exits) = (Batch::new(), Exits::new());
        for (flow, (enqueue, port, n)) in steps.into_iter().enumerate() {
            let flow = flow as u32;
            if enqueue {
                batch.push(packet(&mut stock, n, PortId(port), flow));
                shaper.enqueue(&mut batch, &mut exits, Time(0));
                let expected = match model.get_mut(usize::from(port)) {
                    None => Some(DropReason::PortDown),
                    Some(queue) if queue.len() == LIMIT => Some(DropReason::QueueFull),
                    Some(queue) => {
                        queue.push_back((flow, n));
                        None
                    }
                };
                let left: Vec<_> = exits.drain().collect();
                prop_assert_eq!(left.first().map(|(packet, exit)| (packet.flow, *exit)), expected.map(|reason| (flow, Exit::Drop(reason))));
                left.into_iter().for_each(|(packet, _)| stock.put(packet));
            } else {
                shaper.dequeue(PortId(port), n, &mut batch, &mut exits, Time(0));
                let (mut room, mut expected) = (n, vec![]);
                while let Some(queue) = model.get_mut(usize::from(port))
                    && let Some((flow, chunks)) = queue.front().copied()
                    && chunks <= room
                {
                    room -= chunks;
                    expected.push(flow);
                    queue.pop_front();
                }
                prop_assert_eq!(batch.iter().map(|packet| packet.flow).collect::<Vec<_>>(), expected);
                batch.drain().for_each(|packet| stock.put(packet));
            }
            prop_assert_eq!(shaper.waiting(), model.iter().map(VecDeque::len).sum::<usize>());
            for (port, queue) in model.iter().enumerate() {
                prop_assert_eq!(shaper.backlog(PortId(port as u16)), queue.len());
            }
        }
        for port in 0..2 {
            shaper.close(PortId(port), &mut exits);
        }
        let left: Vec<_> = exits.drain().map(|(packet, exit)| { let flow = packet.flow; stock.put(packet); (flow, exit) }).collect();
        let expected: Vec<_> = model.iter().flatten().map(|(flow, _)| (*flow, Exit::Drop(DropReason::PortDown))).collect();
        prop_assert_eq!(left, expected);
        prop_assert_eq!(shaper.waiting(), 0);
        drop(stock);
        prop_assert_eq!(umem().free(), CHUNKS);
    }
}

#[test]
fn lets_a_batch_go_at_most() {
    let mut stock = stock();
    let mut shaper = Shaper::new(1, 200);
    shaper.open(PortId(0));
    let (mut batch, mut exits) = (Batch::new(), Exits::new());
    for flow in 0..100 {
        batch.push(packet(&mut stock, 1, PortId(0), flow));
    }
    shaper.enqueue(&mut batch, &mut exits, Time(0));
    shaper.dequeue(PortId(0), usize::MAX, &mut batch, &mut exits, Time(0));
    assert_eq!((batch.len(), shaper.waiting()), (Batch::SIZE, 100 - Batch::SIZE));
    batch.drain().for_each(|packet| stock.put(packet));
    shaper.close(PortId(0), &mut exits);
    exits.drain().for_each(|(packet, _)| stock.put(packet));
}
