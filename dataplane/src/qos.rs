//! Where packets wait for their port.
//!
//! One queue per port so far, first in, first out; classes, tenants and rates come in here, behind the same two
//! calls.

mod fifo;
pub mod policer;

pub use fifo::Fifo;
pub use policer::Policers;

use crate::packet::{Batch, DropReason, Exit, Exits, Packet, PortId, Time};

/// Packets that wait for a port at most, of each worker.
pub const QUEUE_LIMIT: usize = 4096;

/// The queues of one worker.
#[derive(Debug)]
pub struct Shaper {
    /// By the port that packets leave by; `None` for a port that nobody serves.
    queues: Vec<Option<Fifo>>,
    limit: usize,
    waiting: usize,
}

impl Shaper {
    /// For ports `0..ports`, none open yet; each queue will hold at most `limit` packets.
    pub fn new(ports: usize, limit: usize) -> Self {
        Self { queues: (0..ports).map(|_| None).collect(), limit, waiting: 0 }
    }

    /// Packets for this port have somewhere to go from now on.
    pub fn open(&mut self, port: PortId) {
        if let Some(queue) = self.queues.get_mut(port.index()) {
            queue.get_or_insert_with(|| Fifo::new(self.limit));
        }
    }

    /// Nobody serves the port any more: what waits for it leaves, and so will what comes.
    pub fn close(&mut self, port: PortId, exits: &mut Exits) {
        let Some(mut queue) = self.queues.get_mut(port.index()).and_then(Option::take) else { return };
        while let Some(packet) = queue.pop(usize::MAX) {
            self.waiting -= 1;
            exits.push(packet, Exit::Drop(DropReason::PortDown));
        }
    }

    /// Takes every packet of the batch into its queue. They wait bare: headers go on when they leave.
    #[inline]
    pub fn enqueue(&mut self, batch: &mut Batch, exits: &mut Exits, _now: Time) {
        for packet in batch.drain() {
            match self.queue(packet.egress) {
                Some(queue) => match queue.push(packet) {
                    Ok(()) => self.waiting += 1,
                    Err(packet) => exits.push(packet, Exit::Drop(DropReason::QueueFull)),
                },
                None => exits.push(packet, Exit::Drop(DropReason::PortDown)),
            }
        }
    }

    /// Lets packets go to a port that has `room` descriptors, a batch at most.
    #[inline]
    pub fn dequeue(&mut self, port: PortId, room: usize, out: &mut Batch, _now: Time) {
        let Some(Some(queue)) = self.queues.get_mut(port.index()) else { return };
        let mut room = room;
        while out.room() > 0 {
            let Some(packet) = queue.pop(room) else { break };
            room -= packet.frame.chunks();
            self.waiting -= 1;
            out.push(packet);
        }
    }

    #[inline(always)]
    fn queue(&mut self, port: PortId) -> Option<&mut Fifo> {
        self.queues.get_mut(port.index()).and_then(Option::as_mut)
    }

    /// How many packets wait for a port.
    pub fn backlog(&self, port: PortId) -> usize {
        self.queues.get(port.index()).and_then(Option::as_ref).map_or(0, Fifo::len)
    }

    /// How many packets wait in all.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes one packet out for another worker's queue of the same port.
    pub fn hand_over(&mut self, port: PortId) -> Option<Box<Packet>> {
        let packet = self.queue(port)?.pop(usize::MAX)?;
        self.waiting -= 1;
        Some(packet)
    }
}

#[cfg(test)]
mod tests;
