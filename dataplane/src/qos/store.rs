//! The memory that all queues of a worker share, and how much of it each may have.
//!
//! A queue takes a share of what is *free* (Choudhury and Hahne, 1998): few long queues may be long, many must be short,
//! and something always remains for one that was empty. Frames are counted beside octets, because what waits is what
//! the interface cannot receive into.

use super::list::NIL;
use super::spec::Buffer;
use crate::packet::{Packet, Time};
use std::mem;
use wire::Ecn;

/// A packet that waits: beside its box what the scheduler needs of it, so that it is not touched until it leaves.
#[derive(Debug)]
struct Slot {
    packet: Option<Box<Packet>>,
    since: Time,
    next: u32,
    size: Size,
}

/// What a packet takes, as a [`Load`], and behind that octets of outer headers (8 bits) and the ECN field (2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    const OVERHEAD: u32 = 48;
    const ECN: u32 = 56;

    /// Of a packet.
    #[inline(always)]
    pub fn of(packet: &Packet) -> Self {
        let overhead = u64::from(packet.overhead);
        let octets = (u64::from(packet.len) + overhead).min(0x1_ffff);
        let chunks = packet.frame.chunks().clamp(1, 0x1f) as u64;
        Self(octets | chunks << Load::CHUNKS | overhead << Self::OVERHEAD | u64::from(packet.tos & 3) << Self::ECN)
    }

    /// What it takes.
    #[inline(always)]
    pub const fn load(self) -> Load {
        Load(self.0 & ((1 << Self::OVERHEAD) - 1))
    }

    /// Octets, outer headers included: 17 bits.
    #[inline(always)]
    pub const fn octets(self) -> u32 {
        self.0 as u32
    }

    /// Octets of outer headers.
    #[inline(always)]
    pub const fn overhead(self) -> u32 {
        (self.0 >> Self::OVERHEAD) as u32 & 0xff
    }

    /// Chunks of memory.
    #[inline(always)]
    pub const fn chunks(self) -> u32 {
        self.load().chunks()
    }

    /// What the packet can carry of congestion.
    #[inline(always)]
    pub const fn ecn(self) -> Ecn {
        Ecn::of((self.0 >> Self::ECN) as u8)
    }
}

/// What packets take together: octets with outer headers (38 bits), and chunks (26). A buffer has at most 2²⁴ chunks of 2¹²
/// octets, and as many outer headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load(u64);

impl Load {
    const CHUNKS: u32 = 38;

    /// Octets.
    #[inline(always)]
    pub const fn octets(self) -> u64 {
        self.0 & ((1 << Self::CHUNKS) - 1)
    }

    /// Chunks.
    #[inline(always)]
    pub const fn chunks(self) -> u32 {
        (self.0 >> Self::CHUNKS) as u32
    }

    /// Whether it is nothing.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// And what another takes.
    #[inline(always)]
    pub const fn add(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// Without what another takes, that is in it.
    #[inline(always)]
    pub const fn subtract(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

/// A queue of packets in the store, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Of an empty queue any.
    head: u32,
    /// Of an empty queue `NIL`.
    tail: u32,
    /// What waits.
    load: Load,
}

impl Default for Queue {
    fn default() -> Self {
        Self { head: 0, tail: NIL, load: Load::default() }
    }
}

impl Queue {
    /// Whether nothing waits.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.tail == NIL
    }

    /// What waits: of a queue that is the [sum](Self::load_mut) of others, in all.
    #[inline(always)]
    pub const fn load(&self) -> Load {
        self.load
    }

    /// The same, for a packet that came into, or left, a queue that this one is the sum of.
    #[inline(always)]
    pub const fn load_mut(&mut self) -> &mut Load {
        &mut self.load
    }
}

/// Several packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// How many.
    pub packets: u32,
    load: Load,
}

impl Sum {
    /// One.
    #[inline(always)]
    pub const fn of(size: Size) -> Self {
        Self { packets: 1, load: size.load() }
    }

    /// And others.
    #[inline(always)]
    pub const fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.load.add(other.load);
    }

    /// Without others that are among them.
    #[inline(always)]
    pub const fn subtract(&mut self, other: Self) {
        self.packets -= other.packets;
        self.load.subtract(other.load);
    }

    /// What they take.
    #[inline(always)]
    pub const fn load(self) -> Load {
        self.load
    }
}

/// What is free of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    chunks: u32,
    /// A packet that was taken in when few were free may take them below zero.
    octets: i64,
}

impl Free {
    /// What is left if these come.
    #[inline(always)]
    pub const fn without(self, sum: Sum) -> Self {
        Self { chunks: self.chunks.wrapping_sub(sum.load.chunks()), octets: self.octets - sum.load.octets() as i64 }
    }

    /// What there is when these are gone.
    #[inline(always)]
    const fn with(self, sum: Sum) -> Self {
        Self { chunks: self.chunks.wrapping_add(sum.load.chunks()), octets: self.octets + sum.load.octets() as i64 }
    }

    /// Whether a queue may have a packet more, if there is room at all.
    #[inline(always)]
    pub const fn admits(self, queue: Load, alpha_eighths: u32) -> bool {
        queue.octets() < LEAST
            || (((queue.octets() as i64) << 3) < self.octets * alpha_eighths as i64
                && ((queue.chunks() as u64) << 3) < self.chunks as u64 * alpha_eighths as u64)
    }
}

/// A packet that waited.
#[derive(Debug)]
pub struct Taken {
    /// Itself.
    pub packet: Box<Packet>,
    /// What it takes.
    pub size: Size,
    /// When it came.
    pub since: Time,
}

/// The slots.
#[derive(Debug)]
pub struct Store {
    slots: Vec<Slot>,
    /// The first one without a packet.
    empty: u32,
    packets: usize,
    free: Free,
    whole: Buffer,
}

impl Store {
    /// All free.
    pub fn new(whole: Buffer) -> Self {
        let mut store = Self {
            slots: Vec::new(),
            empty: NIL,
            packets: 0,
            free: Free { chunks: 0, octets: 0 },
            whole: Buffer { frames: 0, bytes: 0 },
        };
        store.resize(whole);
        store
    }

    /// Holds so much from now on; what waits beyond it stays.
    pub fn resize(&mut self, whole: Buffer) {
        let used = self.whole.frames.saturating_sub(self.free.chunks);
        self.free.chunks = whole.frames.saturating_sub(used);
        self.free.octets += whole.bytes as i64 - self.whole.bytes as i64;
        self.slots.reserve_exact((whole.frames as usize).saturating_sub(self.slots.len()));
        sys::advise_huge(self.slots.spare_capacity_mut());
        while self.slots.len() < whole.frames as usize {
            self.slots.push(Slot { packet: None, since: Time(0), next: self.empty, size: Size::default() });
            self.empty = self.slots.len() as u32 - 1;
        }
        self.whole = Buffer { frames: whole.frames.max(used), ..whole };
    }

    /// How many packets wait.
    pub const fn len(&self) -> usize {
        self.packets
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Whether nothing is missing: what is free and what waits make the whole.
    pub fn is_whole(&self) -> bool {
        let waiting = || self.slots.iter().filter(|slot| slot.packet.is_some());
        let mut empty = 0;
        let mut at = self.empty;
        while at != NIL && empty <= self.slots.len() {
            (empty, at) = (empty + 1, self.slots[at as usize].next);
        }
        let chunks: u32 = waiting().map(|slot| slot.size.chunks()).sum();
        let octets: i64 = waiting().map(|slot| i64::from(slot.size.octets())).sum();
        waiting().count() == self.packets
            && empty + self.packets == self.slots.len()
            && self.free.chunks + chunks == self.whole.frames
            && self.free.octets + octets == self.whole.bytes as i64
    }

    /// What is free.
    #[inline(always)]
    pub const fn free(&self) -> Free {
        self.free
    }

    /// Whether there is room for so many packets.
    #[inline(always)]
    pub const fn has_room(&self, sum: Sum) -> bool {
        (sum.load.chunks() <= self.free.chunks) & (self.packets + sum.packets as usize <= self.slots.len())
    }

    /// Puts a packet at a queue's end. There is room, and what it takes is [charged](Self::charge) to the store apart.
    #[inline(always)]
    pub fn link(&mut self, queue: &mut Queue, packet: Box<Packet>, size: Size, now: Time) {
        let at = self.empty;
        let slot = &mut self.slots[at as usize];
        self.empty = slot.next;
        (slot.since, slot.size) = (now, size);
        // An empty slot has none, which need not be found out here.
        mem::forget(slot.packet.replace(packet));
        // Whether a queue is empty is as good as random: its first packet is put behind itself.
        let (head, tail) = if queue.is_empty() { (at, at) } else { (queue.head, queue.tail) };
        self.slots[tail as usize].next = at;
        (queue.head, queue.tail) = (head, at);
        queue.load.add(size.load());
    }

    /// These packets have come.
    #[inline(always)]
    pub const fn charge(&mut self, came: Sum) {
        self.packets += came.packets as usize;
        self.free = self.free.without(came);
    }

    /// What these packets took is free for others.
    #[inline(always)]
    pub const fn give_back(&mut self, gone: Sum) {
        self.packets -= gone.packets as usize;
        self.free = self.free.with(gone);
    }

    /// Takes a queue's first packet out, if it has one of at most `room` chunks. What it took is free for others once it
    /// is given back.
    #[inline(always)]
    pub fn unlink(&mut self, queue: &mut Queue, room: usize) -> Option<Taken> {
        let at = queue.head;
        let slot = if queue.is_empty() { None } else { self.slots.get_mut(at as usize) }?;
        let (size, since) = (slot.size, slot.since);
        if size.chunks() as usize > room {
            return None;
        }
        let packet = slot.packet.take()?;
        queue.head = slot.next;
        queue.tail = if at == queue.tail { NIL } else { queue.tail };
        slot.next = self.empty;
        self.empty = at;
        self.prefetch(queue);
        queue.load.subtract(size.load());
        Some(Taken { packet, size, since })
    }

    /// Asks for the memory of a queue's first packet.
    #[inline(always)]
    pub fn prefetch(&self, queue: &Queue) {
        sys::prefetch_element(&self.slots, queue.head as usize);
    }
}

/// A queue may have so many octets whatever others have, as long as there is room at all: two packets.
const LEAST: u64 = 3_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The parts of a size do not touch each other, also in the sum of a full queue.
        #[test]
        fn a_size_keeps_what_the_scheduler_needs_of_a_packet(len in 0..70_000_u32, overhead: u8, tos: u8, count in 1..1_000_u32) {
            let mut packet = Packet::empty();
            (packet.len, packet.overhead, packet.tos) = (len, overhead, tos);
            let size = Size::of(&packet);
            let octets = len + u32::from(overhead);
            prop_assert_eq!((size.octets(), size.overhead(), size.chunks()), (octets, overhead.into(), 1));
            prop_assert_eq!(size.ecn(), Ecn::of(tos & 3));
            let mut sum = Sum::default();
            (0..count).for_each(|_| sum.add(Sum::of(size)));
            prop_assert_eq!((sum.load().octets(), sum.load().chunks()), (u64::from(octets) * u64::from(count), count));
            sum.subtract(Sum::of(size));
            prop_assert_eq!((sum.packets, sum.load().is_empty()), (count - 1, count == 1));
        }
    }
}
