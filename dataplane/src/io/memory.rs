//! A port made of two queues: what is put in is received, what is sent can be taken out.

use super::Driver;
use super::ledger::Ledger;
use crate::packet::{Batch, Outstanding, Packet, PortId, Stock, Time};
use std::collections::VecDeque;

/// Queues of frames as octets.
#[derive(Debug, Default)]
pub struct Memory {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<(Time, Vec<u8>)>,
    /// The peer leaves transport checksums to hardware, as a veth's does.
    unfinished: bool,
    now: Time,
    ring: Option<Ring>,
}

/// A ring whose packets are out, and complete when they are told to.
#[derive(Debug)]
struct Ring {
    ledger: Ledger,
    size: usize,
    held: usize,
}

impl Memory {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a peer that leaves checksums unfinished.
    pub fn unfinished() -> Self {
        Self { unfinished: true, ..Self::default() }
    }

    /// With a ring of so many descriptors, of which none completes by itself.
    pub fn with_ring(size: usize) -> Self {
        Self { ring: Some(Ring { ledger: Ledger::new(size), size, held: 0 }), ..Self::default() }
    }

    /// The ring's oldest descriptors complete, so many at most.
    pub fn complete(&mut self, count: usize) {
        if let Some(ring) = &mut self.ring {
            ring.held = ring.held.saturating_sub(count);
        }
    }

    /// A frame that will be received.
    pub fn put(&mut self, frame: Vec<u8>) {
        self.inbound.push_back(frame);
    }

    /// The oldest frame that was sent, and when.
    pub fn take(&mut self) -> Option<(Time, Vec<u8>)> {
        self.outbound.pop_front()
    }

    /// Whether nothing waits to be received.
    pub fn is_idle(&self) -> bool {
        self.inbound.is_empty()
    }
}

impl Driver for Memory {
    fn receive(&mut self, port: PortId, stock: &mut Stock, batch: &mut Batch, now: Time) -> u64 {
        self.now = now;
        let mut lost = 0;
        while batch.room() > 0
            && let Some(octets) = self.inbound.pop_front()
        {
            match stock.frames.frame_of(&octets) {
                Some(frame) => {
                    let packet = stock.wrap(frame, port, self.unfinished, now);
                    batch.push(packet);
                }
                None => lost += 1,
            }
        }
        lost
    }

    fn room(&self) -> usize {
        self.ring.as_ref().map_or(xsk::MAX_CHUNKS * Batch::SIZE, |ring| ring.size - ring.held)
    }

    fn outstanding(&self) -> Outstanding {
        self.ring.as_ref().map_or(Outstanding::default(), |ring| ring.ledger.outstanding(ring.held))
    }

    fn send(&mut self, packet: Box<Packet>, stock: &mut Stock) {
        if let Some(ring) = &mut self.ring {
            ring.held += packet.frame.chunks();
            ring.ledger.give(packet.frame.chunks(), packet.frame.total());
        }
        self.outbound.push_back((self.now, packet.frame.segments().flatten().copied().collect()));
        stock.put(packet);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        true
    }

    fn close(self, _stock: &mut Stock) {}
}
