//! Up to 64 packets in their order, and those that left.

use super::{Exit, Packet};
use std::cell::Cell;
use std::mem;

/// Boxes of packets. Boxed on purpose: a batch, a queue and a ring move 8 octets where a packet has 64.
#[derive(Debug, Default)]
pub struct Batch {
    #[expect(clippy::vec_box, reason = "the box is the point: packets do not move")]
    packets: Vec<Box<Packet>>,
}

impl Batch {
    /// Packets in a batch that a port fills.
    pub const SIZE: usize = 64;

    /// An empty batch with room for [`Self::SIZE`].
    pub fn new() -> Self {
        Self { packets: Vec::with_capacity(Self::SIZE) }
    }

    /// Adds one at the end.
    #[inline(always)]
    pub fn push(&mut self, packet: Box<Packet>) {
        self.packets.push(packet);
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many more make [`Self::SIZE`].
    #[inline(always)]
    pub fn room(&self) -> usize {
        Self::SIZE.saturating_sub(self.packets.len())
    }

    /// In order.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter().map(|packet| &**packet)
    }

    /// In order.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Packet> {
        self.packets.iter_mut().map(|packet| &mut **packet)
    }

    /// Calls `each` for those of the first [`Self::SIZE`] whose bit is set, in order.
    #[inline(always)]
    pub fn for_each_of(&mut self, mut bits: u64, mut each: impl FnMut(&mut Packet)) {
        while let Some(packet) = self.packets.get_mut(bits.trailing_zeros() as usize)
            && bits != 0
        {
            each(packet);
            bits &= bits - 1;
        }
    }

    /// In order, at most [`Self::SIZE`] at a time.
    #[inline(always)]
    pub fn chunks_mut(&mut self) -> impl Iterator<Item = &mut [Box<Packet>]> {
        self.packets.chunks_mut(Self::SIZE)
    }

    /// Takes all out, in order; the room stays.
    #[inline(always)]
    pub fn drain(&mut self) -> impl Iterator<Item = Box<Packet>> {
        self.packets.drain(..)
    }

    /// Runs a stage over all. Those that it sends away go to `exits`; both orders are kept.
    ///
    /// While nothing leaves, nothing moves. The stage is called from one place, so that it becomes part of the loop.
    #[inline(always)]
    pub fn retain(&mut self, exits: &mut Exits, mut stage: impl FnMut(&mut Packet) -> Result<(), Exit>) {
        let reason = Cell::new(None);
        let leaves = |packet: &mut Box<Packet>| match stage(packet) {
            Ok(()) => false,
            Err(exit) => {
                reason.set(Some(exit));
                true
            }
        };
        for packet in self.packets.extract_if(.., leaves) {
            exits.0.extend(reason.take().map(|exit| (packet, exit)));
        }
    }
}

/// Packets that left the page, in their order, each with its reason.
#[derive(Debug, Default)]
pub struct Exits(Vec<(Box<Packet>, Exit)>);

impl Exits {
    /// None, with room for a batch.
    pub fn new() -> Self {
        Self(Vec::with_capacity(2 * Batch::SIZE))
    }

    /// Adds one.
    #[inline(always)]
    pub fn push(&mut self, packet: Box<Packet>, exit: Exit) {
        self.0.push((packet, exit));
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all, leaving the room of `spare`.
    pub fn take(&mut self, spare: &mut Exits) {
        debug_assert!(spare.is_empty());
        mem::swap(self, spare);
    }

    /// Takes all out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Box<Packet>, Exit)> {
        self.0.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::DropReason::NoRoute;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_both_orders_and_asks_about_each_packet_once(leaves in proptest::collection::vec(any::<bool>(), 0..64)) {
            let (mut batch, mut exits, mut asked) = (Batch::new(), Exits::new(), Vec::new());
            for flow in 0..leaves.len() as u32 {
                let mut packet = Box::new(Packet::empty());
                packet.flow = flow;
                batch.push(packet);
            }
            batch.retain(&mut exits, |packet| {
                asked.push(packet.flow);
                if leaves[packet.flow as usize] { Err(Exit::Drop(NoRoute)) } else { Ok(()) }
            });
            let of = |wanted: bool| (0..leaves.len() as u32).filter(|f| leaves[*f as usize] == wanted).collect::<Vec<_>>();
            prop_assert_eq!(asked, (0..leaves.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(batch.iter().map(|p| p.flow).collect::<Vec<_>>(), of(false));
            prop_assert_eq!(exits.drain().map(|(p, _)| p.flow).collect::<Vec<_>>(), of(true));
        }

        #[test]
        fn calls_for_those_whose_bit_is_set_and_that_are_there(bits: u64, count in 0..80_u32) {
            let (mut batch, mut called) = (Batch::new(), Vec::new());
            for flow in 0..count {
                let mut packet = Box::new(Packet::empty());
                packet.flow = flow;
                batch.push(packet);
            }
            batch.for_each_of(bits, |packet| called.push(packet.flow));
            let is_set = |flow: &u32| *flow < 64 && bits >> flow & 1 != 0;
            prop_assert_eq!(called, (0..count).filter(is_set).collect::<Vec<_>>());
        }
    }
}
