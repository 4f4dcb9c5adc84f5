//! Packets that wait for a neighbour's answer: a few, and not for long.

use crate::packet::{AdjacencyId, DropReason, Exit, Exits, Packet, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use sys::Wake;

/// Packets that wait for one neighbour at most.
const PER_NEIGHBOUR: usize = 16;
/// Neighbours waited for at most: a scan of a /16 must not hold the pool.
const NEIGHBOURS: usize = 256;
/// How long a packet waits, nanoseconds.
const PATIENCE: u64 = Time::SECOND;

/// How long a wish is not repeated, nanoseconds: packets for a neighbour that does not answer come by the million.
const AGAIN: u64 = Time::SECOND;
/// Wishes that are remembered for that long.
const REMEMBERED: usize = 16;

/// Tells control which neighbours to resolve.
pub struct Wanted {
    to: Option<(Wishes, Arc<Wake>)>,
    /// The last wishes, the oldest first.
    recent: VecDeque<(AdjacencyId, IpAddr, Time)>,
}

/// Adjacencies and the addresses that packets by them were for.
type Wishes = rtrb::Producer<(AdjacencyId, IpAddr)>;

impl Wanted {
    /// Through a ring, with a bell for control.
    pub const fn new(ring: Wishes, bell: Arc<Wake>) -> Self {
        Self { to: Some((ring, bell)), recent: VecDeque::new() }
    }

    /// Nobody is told: in `replay`.
    pub const fn nobody() -> Self {
        Self { to: None, recent: VecDeque::new() }
    }

    fn ask(&mut self, id: AdjacencyId, address: IpAddr, now: Time) {
        let Some((ring, bell)) = &mut self.to else { return };
        while self.recent.front().is_some_and(|(.., at)| now.since(*at) >= AGAIN) {
            self.recent.pop_front();
        }
        if self.recent.iter().any(|(of, to, _)| (*of, *to) == (id, address)) {
            return;
        }
        // Full: control is behind. The packet's sender will try again, and so shall we.
        if ring.push((id, address)).is_ok() {
            bell.notify();
            if self.recent.len() == REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((id, address, now));
        }
    }
}

/// Packets in the order of their arrival, each with the time from which its patience counts.
type Waiting = VecDeque<(Box<Packet>, Time)>;

/// All packets that wait, by the neighbour they wait for.
pub struct Hold {
    /// By adjacency, and on a link also by address: there, every destination is a neighbour.
    waiting: BTreeMap<(AdjacencyId, Option<IpAddr>), Waiting>,
    packets: usize,
    wanted: Wanted,
    /// No packet gives up before.
    earliest: Time,
}

impl Hold {
    pub fn new(wanted: Wanted) -> Self {
        Self { waiting: BTreeMap::new(), packets: 0, wanted, earliest: Time(u64::MAX) }
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

    /// Has control ask for a neighbour again.
    pub fn ask(&mut self, id: AdjacencyId, address: IpAddr, now: Time) {
        self.wanted.ask(id, address, now);
    }

    /// Takes a packet in. `on_link`: the neighbour that it waits for is its own destination.
    ///
    /// # Errors
    ///
    /// Gives it back when too many wait for that neighbour, or neighbours are waited for.
    pub fn push(
        &mut self,
        packet: Box<Packet>,
        id: AdjacencyId,
        on_link: bool,
        now: Time,
    ) -> Result<(), (Box<Packet>, DropReason)> {
        let destination = packet.destination();
        let key = (id, on_link.then_some(destination));
        let neighbours = self.waiting.len();
        let queue = match self.waiting.get_mut(&key) {
            Some(queue) => queue,
            None if neighbours >= NEIGHBOURS => return Err((packet, DropReason::HoldFull)),
            None => {
                self.wanted.ask(id, destination, now);
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
