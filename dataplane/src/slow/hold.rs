//! Packets that wait for a neighbour's answer: a few, and not for long.

use super::wanted::Wanted;
use crate::packet::{AdjacencyId, DropReason, Exit, Exits, Packet, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Packets that wait for one neighbour at most.
const PER_NEIGHBOUR: usize = 16;
/// Neighbours waited for at most: a scan of a /16 must not hold the pool.
const NEIGHBOURS: usize = 256;
/// How long a packet waits, nanoseconds.
const PATIENCE: u64 = Time::SECOND;

/// Packets in the order of their arrival, each with the time from which its patience counts.
type Waiting = VecDeque<(Box<Packet>, Time)>;

/// All packets that wait, by the neighbour they wait for: an adjacency, and on a link also an address, since there every
/// destination is one.
pub struct Hold {
    waiting: BTreeMap<(AdjacencyId, Option<IpAddr>), Waiting>,
    packets: usize,
    /// No packet gives up before.
    earliest: Time,
}

impl Hold {
    pub const fn new() -> Self {
        Self { waiting: BTreeMap::new(), packets: 0, earliest: Time(u64::MAX) }
    }

    pub const fn is_quiet(&self) -> bool {
        self.packets == 0
    }

    pub const fn len(&self) -> usize {
        self.packets
    }

    pub fn deadline(&self) -> Option<Time> {
        if self.packets == 0 { None } else { Some(self.earliest) }
    }

    /// Takes a packet in, and has control ask for the neighbour. `on_link`: it is the packet's own destination.
    ///
    /// # Errors
    ///
    /// Gives it back when too many wait for that neighbour, or neighbours are waited for.
    pub fn push(
        &mut self,
        packet: Box<Packet>,
        id: AdjacencyId,
        on_link: bool,
        wanted: &mut Wanted,
        now: Time,
    ) -> Result<(), (Box<Packet>, DropReason)> {
        let destination = packet.destination();
        let key = (id, on_link.then_some(destination));
        let neighbours = self.waiting.len();
        let queue = match self.waiting.get_mut(&key) {
            Some(queue) => queue,
            None if neighbours >= NEIGHBOURS => return Err((packet, DropReason::HoldFull)),
            None => {
                wanted.ask(key, destination, now);
                self.waiting.entry(key).or_default()
            }
        };
        if queue.len() == PER_NEIGHBOUR {
            return Err((packet, DropReason::HoldFull));
        }
        // A packet that was released and found nothing new keeps its first deadline: `arrived` is when it came.
        let since = Time(packet.arrived.0.max(now.0.saturating_sub(PATIENCE)));
        self.earliest = self.earliest.min(Time(since.0 + PATIENCE));
        queue.push_back((packet, since));
        self.packets += 1;
        Ok(())
    }

    /// The tables changed: all try again, in their order.
    pub fn release(&mut self, mut retry: impl FnMut(Box<Packet>)) {
        for (_, queue) in std::mem::take(&mut self.waiting) {
            for (packet, _) in queue {
                retry(packet);
            }
        }
        self.packets = 0;
        self.earliest = Time(u64::MAX);
    }

    /// Those that waited too long leave.
    pub fn expire(&mut self, exits: &mut Exits, now: Time) {
        if self.packets == 0 || now < self.earliest {
            return;
        }
        let mut earliest = Time(u64::MAX);
        let mut left = 0;
        self.waiting.retain(|_, queue| {
            while let Some((_, since)) = queue.front() {
                if now.since(*since) < PATIENCE {
                    earliest = earliest.min(Time(since.0 + PATIENCE));
                    break;
                }
                if let Some((packet, _)) = queue.pop_front() {
                    exits.push(packet, Exit::Drop(DropReason::NeighbourUnresolved));
                    left += 1;
                }
            }
            !queue.is_empty()
        });
        self.packets -= left;
        self.earliest = earliest;
    }
}

#[cfg(test)]
mod tests;
