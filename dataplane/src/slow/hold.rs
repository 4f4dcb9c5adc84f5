//! Packets that wait for a neighbour's answer: a few, and not for long.

use crate::packet::{AdjacencyId, DropReason, Exit, Exits, Packet, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
/// Wishes that are remembered for that long; when there are more, neighbours that failed are not asked for again.
const REMEMBERED: usize = 256;

/// A neighbour: an adjacency, and on a link also an address, since there every destination is one.
type Key = (AdjacencyId, Option<IpAddr>);

/// Tells control which neighbours to resolve.
pub struct Wanted {
    to: Option<(Wishes, Arc<Wake>)>,
    /// Wished for since then.
    recent: BTreeSet<Key>,
    since: Time,
}

/// Adjacencies and the addresses that packets by them were for.
type Wishes = rtrb::Producer<(AdjacencyId, IpAddr)>;

impl Wanted {
    /// Through a ring, with a bell for control.
    pub const fn new(ring: Wishes, bell: Arc<Wake>) -> Self {
        Self { to: Some((ring, bell)), recent: BTreeSet::new(), since: Time(0) }
    }

    /// Nobody is told: in `replay`.
    pub const fn nobody() -> Self {
        Self { to: None, recent: BTreeSet::new(), since: Time(0) }
    }

    fn ask(&mut self, key: Key, address: IpAddr, now: Time) {
        let Some((ring, bell)) = &mut self.to else { return };
        if now.since(self.since) >= AGAIN {
            self.recent.clear();
        }
        if self.recent.contains(&key) {
            return;
        }
        // Full: control is behind. The packet's sender will try again, and so shall we.
        if ring.push((key.0, address)).is_ok() {
            bell.notify();
            if self.recent.is_empty() {
                self.since = now;
            }
            if self.recent.len() < REMEMBERED {
                self.recent.insert(key);
            }
        }
    }

    /// The same for one that has failed.
    fn ask_again(&mut self, key: Key, address: IpAddr, now: Time) {
        let forgets = self.recent.len() >= REMEMBERED && now.since(self.since) < AGAIN;
        if !forgets {
            self.ask(key, address, now);
        }
    }
}

/// Packets in the order of their arrival, each with the time from which its patience counts.
type Waiting = VecDeque<(Box<Packet>, Time)>;

/// All packets that wait, by the neighbour they wait for.
pub struct Hold {
    waiting: BTreeMap<Key, Waiting>,
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

    /// Has control ask for a neighbour again that failed. `on_link`: it is the destination itself.
    pub fn ask_again(&mut self, id: AdjacencyId, destination: IpAddr, on_link: bool, now: Time) {
        self.wanted.ask_again((id, on_link.then_some(destination)), destination, now);
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
                self.wanted.ask(key, destination, now);
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
