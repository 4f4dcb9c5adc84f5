//! Where packets wait for their port.
//!
//! A port with classes, tenants, a cap or a rate has a [`Scheduler`]; any other one a queue, first in, first out. What
//! a scheduler is built from is plain data, a [`Spec`]; whoever has built new ones gives them over as a [`Plan`], and
//! what waits goes on under it.
//!
//! ```text
//! Shaper ─► Scheduler ─► leaf (tenants, ways, leaves) ─► bucket      list, wheel: who is next, and when
//!    │          ├──────► fq, codel, red: queues kept short
//!    └─► Fifo   └──────► store: packets, and how much of it each queue may have
//! ```

mod bucket;
mod change;
mod codel;
mod delays;
mod fifo;
mod fq;
mod leaf;
mod list;
mod numbers;
pub mod policer;
mod red;
mod ring;
mod scheduler;
mod spec;
mod store;
mod wheel;

pub use change::{ClassReport, LeafReport, Plan, PortReport};
pub use delays::Histogram;
pub use fifo::Fifo;
pub use policer::Policers;
pub use scheduler::{Room, Scheduler};
pub use spec::{
    Account, Aqm, Buffer, ClassSpec, Codel, LeafSpec, Limit, NotCapable, PacketRate, PortSpec, Rate, Red, Service,
    Spec, SpecError, TenantSpec, TunnelSpec, Weight, gpu_gateway,
};

use crate::packet::{Batch, DropReason, Exit, Exits, Outstanding, Packet, PortId, Time};
use numbers::Numbers;
use std::sync::Arc;
use store::Store;

/// Packets that wait for a port without a shaper at most, of each worker.
pub const QUEUE_LIMIT: usize = 4096;

/// The queues of one worker.
#[derive(Debug)]
pub struct Shaper {
    /// By the port that packets leave by.
    queues: Vec<Queue>,
    /// Schedulers of ports that are not open.
    idle: Vec<Option<Box<Scheduler>>>,
    /// What waits in schedulers.
    store: Store,
    /// What they are built from, and which numbers tenants and tunnels have there and had before.
    spec: Option<Arc<Spec>>,
    numbers: Numbers,
    limit: usize,
    waiting: usize,
    /// Open ports with a scheduler.
    shaped: usize,
}

/// What packets of a port wait in.
#[derive(Debug)]
enum Queue {
    /// Nobody serves the port.
    Closed,
    Fifo(Fifo),
    /// Another worker serves it: they wait for room in the ring that leads there, under any plan.
    Crossing(Fifo),
    Shaped(Box<Scheduler>),
}

impl Shaper {
    /// For ports `0..ports`, none open yet; each queue will hold at most `limit` packets.
    pub fn new(ports: usize, limit: usize) -> Self {
        Self {
            queues: (0..ports).map(|_| Queue::Closed).collect(),
            idle: (0..ports).map(|_| None).collect(),
            store: Store::new(Buffer { frames: 0, bytes: 0 }),
            spec: None,
            numbers: Numbers::default(),
            limit,
            waiting: 0,
            shaped: 0,
        }
    }

    /// Packets for this port have somewhere to go from now on: its scheduler, if the plan has one.
    pub fn open(&mut self, port: PortId) {
        let Some(queue @ Queue::Closed) = self.queues.get_mut(port.index()) else { return };
        *queue = match self.idle[port.index()].take() {
            Some(scheduler) => {
                self.shaped += 1;
                Queue::Shaped(scheduler)
            }
            None => Queue::Fifo(Fifo::new(self.limit)),
        };
    }

    /// Packets for this port go to another worker from now on, whose scheduler sees all of them; here they only wait to
    /// cross.
    pub fn open_crossing(&mut self, port: PortId) {
        if let Some(queue @ Queue::Closed) = self.queues.get_mut(port.index()) {
            *queue = Queue::Crossing(Fifo::new(self.limit));
        }
    }

    /// Nobody serves the port any more: what waits for it leaves, and so will what comes.
    pub fn close(&mut self, port: PortId, exits: &mut Exits) {
        let Some(queue) = self.queues.get_mut(port.index()) else { return };
        let gone = |packet| exits.push(packet, Exit::Drop(DropReason::PortDown));
        match std::mem::replace(queue, Queue::Closed) {
            Queue::Closed => {}
            Queue::Fifo(mut fifo) | Queue::Crossing(mut fifo) => {
                self.waiting -= fifo.len();
                std::iter::from_fn(|| fifo.pop(usize::MAX)).for_each(gone);
            }
            Queue::Shaped(mut scheduler) => {
                self.waiting -= scheduler.len();
                self.shaped -= 1;
                scheduler.drain(&mut self.store, gone);
                self.idle[port.index()] = Some(scheduler);
            }
        }
    }

    /// Takes every packet of the batch into its queue. They wait bare: headers go on when they leave.
    #[inline]
    pub fn enqueue(&mut self, batch: &mut Batch, exits: &mut Exits, now: Time) {
        if self.shaped != 0 && self.enqueue_shaped(batch, exits, now) {
            return;
        }
        for mut packet in batch.drain() {
            let port = packet.egress;
            let refused = match self.queues.get_mut(port.index()) {
                Some(Queue::Fifo(fifo) | Queue::Crossing(fifo)) => fifo.push(packet),
                Some(Queue::Shaped(_)) if !self.numbers.renew(&mut packet) => {
                    exits.push(packet, Exit::Drop(DropReason::UnknownNumbering));
                    continue;
                }
                Some(Queue::Shaped(scheduler)) => scheduler.put(packet, &mut self.store, now, now),
                Some(Queue::Closed) | None => {
                    exits.push(packet, Exit::Drop(DropReason::PortDown));
                    continue;
                }
            };
            match refused {
                Ok(()) => self.waiting += 1,
                Err(packet) => exits.push(packet, Exit::Drop(DropReason::QueueFull)),
            }
        }
    }

    /// The same for a batch all of whose packets leave by one port with a scheduler, told by its numbers; whether it is one.
    #[inline]
    fn enqueue_shaped(&mut self, batch: &mut Batch, exits: &mut Exits, now: Time) -> bool {
        let Some(port) = batch.iter().next().map(|packet| packet.egress) else { return true };
        let Some(Queue::Shaped(scheduler)) = self.queues.get_mut(port.index()) else { return false };
        if batch.len() > Batch::SIZE {
            return false;
        }
        let foreign = |packet: &Packet| (packet.egress != port) | (packet.class.numbering() != self.numbers.now);
        let Some(arrivals) = scheduler.arrivals(batch.iter(), foreign) else { return false };
        let before = scheduler.len();
        let refuse = |packet| exits.push(packet, Exit::Drop(DropReason::QueueFull));
        scheduler.enqueue(batch.drain(), &arrivals, &mut self.store, now, refuse);
        self.waiting += scheduler.len() - before;
        true
    }

    /// What may go to a port whose ring has `free` descriptors and holds so much: all that there is room for, but for a
    /// port with a scheduler.
    #[inline]
    pub fn room(&self, port: PortId, free: usize, held: Outstanding) -> Room {
        self.shaped(port).map_or(Room::of(free), |scheduler| scheduler.bound.room(free, held))
    }

    /// Whether half of what such a ring may hold is gone.
    pub fn is_half_empty(&self, port: PortId, free: usize, held: Outstanding) -> bool {
        free >= held.descriptors.max(1) && self.shaped(port).is_none_or(|scheduler| scheduler.bound.is_half_empty(held))
    }

    /// Lets packets go to a port that has `room`, a batch at most. Those that their queue drops instead are among the
    /// exits.
    #[inline]
    pub fn dequeue(&mut self, port: PortId, room: impl Into<Room>, out: &mut Batch, exits: &mut Exits, now: Time) {
        let room = room.into();
        match self.queues.get_mut(port.index()) {
            Some(Queue::Fifo(fifo)) => {
                let mut room = room.descriptors;
                while out.room() > 0 {
                    let Some(packet) = fifo.pop(room) else { break };
                    room -= packet.frame.chunks();
                    self.waiting -= 1;
                    out.push(packet);
                }
            }
            Some(Queue::Shaped(scheduler)) => {
                let before = scheduler.len();
                scheduler.dequeue(&mut self.store, room, out, exits, now);
                self.waiting -= before - scheduler.len();
            }
            Some(Queue::Closed | Queue::Crossing(_)) | None => {}
        }
    }

    /// How many packets wait for a port.
    pub fn backlog(&self, port: PortId) -> usize {
        match self.queues.get(port.index()) {
            Some(Queue::Fifo(fifo) | Queue::Crossing(fifo)) => fifo.len(),
            Some(Queue::Shaped(scheduler)) => scheduler.len(),
            Some(Queue::Closed) | None => 0,
        }
    }

    /// How many packets wait in all.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// When a packet may go next, by the rates of its port; `None` when none waits. Ports without a scheduler let
    /// theirs go at any time.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        self.deadline_of(|_| true, now)
    }

    /// The same for some of the ports.
    pub fn deadline_of(&self, which: impl Fn(PortId) -> bool, now: Time) -> Option<Time> {
        let of = |(at, queue): (usize, &Queue)| match queue {
            _ if !which(PortId(at as u16)) => None,
            Queue::Fifo(fifo) | Queue::Crossing(fifo) if !fifo.is_empty() => Some(now),
            Queue::Shaped(scheduler) if !scheduler.is_empty() => scheduler.deadline(now),
            _ => None,
        };
        self.queues.iter().enumerate().filter_map(of).min()
    }

    /// Takes one packet out for another worker's queue of the same port.
    pub fn hand_over(&mut self, port: PortId) -> Option<Box<Packet>> {
        let Some(Queue::Crossing(fifo)) = self.queues.get_mut(port.index()) else { return None };
        let packet = fifo.pop(usize::MAX)?;
        self.waiting -= 1;
        Some(packet)
    }
}

#[cfg(test)]
mod tests;
