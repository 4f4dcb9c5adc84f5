//! What becomes due later: a wheel of 4,096 slots and two levels of bits that say which are in use.
//!
//! Finding the next slot takes two bit scans however many nodes wait (Eiffel, NSDI 2019). What lies beyond the wheel's
//! two milliseconds waits in its last slot, and is filed again by whoever finds it not due.

use super::list::{Link, List, NIL};
use crate::packet::Time;

/// Nodes by the moment at which each is to be looked at. A node is filed once at most.
#[derive(Debug)]
pub struct Wheel {
    /// Which words of `words` have a bit set.
    summary: u64,
    /// Which slots have a node.
    words: [u64; WORDS],
    slots: Box<[List]>,
    links: Box<[Link]>,
    /// The tick that each node is filed under, `READY` or `FREE`.
    ticks: Box<[u64]>,
    /// Due and not taken out yet.
    ready: List,
    /// All ticks up to here have been looked at.
    now: u64,
    filed: usize,
}

const WORDS: usize = 64;
const SLOTS: u64 = 64 * WORDS as u64;
/// A tick is 512 ns: a tenth of what a batch takes.
const TICK_BITS: u32 = 9;
const FREE: u64 = u64::MAX;
/// Due: it is looked at before time goes on.
const READY: u64 = 0;

impl Wheel {
    /// Octet-exact deadlines are rounded up to this many nanoseconds.
    pub const TICK_NS: u64 = 1 << TICK_BITS;

    /// For nodes `0..nodes`, none filed.
    pub fn new(nodes: usize) -> Self {
        Self {
            summary: 0,
            words: [0; WORDS],
            slots: vec![List::default(); SLOTS as usize].into(),
            links: vec![Link::default(); nodes].into(),
            ticks: vec![FREE; nodes].into(),
            ready: List::default(),
            now: 0,
            filed: 0,
        }
    }

    /// Files a node under a moment, unless it is under an earlier one.
    #[inline]
    pub fn file(&mut self, node: u32, at: Time) {
        let tick = (at.0.div_ceil(Self::TICK_NS)).clamp(self.now + 1, self.now + SLOTS - 1);
        let old = self.ticks[node as usize];
        if old <= tick {
            return;
        }
        if old != FREE {
            self.take(node);
        }
        let slot = (tick % SLOTS) as usize;
        self.slots[slot].push(&mut self.links, node);
        self.words[slot / 64] |= 1 << (slot % 64);
        self.summary |= 1 << (slot / 64);
        self.ticks[node as usize] = tick;
        self.filed += 1;
    }

    /// Whether a node is filed, be it under a later moment.
    #[inline(always)]
    pub fn has(&self, node: u32) -> bool {
        self.ticks[node as usize] != FREE
    }

    fn take(&mut self, node: u32) {
        let slot = (self.ticks[node as usize] % SLOTS) as usize;
        self.slots[slot].remove(&mut self.links, node);
        if self.slots[slot].is_empty() {
            self.words[slot / 64] &= !(1 << (slot % 64));
            if self.words[slot / 64] == 0 {
                self.summary &= !(1 << (slot / 64));
            }
        }
        self.ticks[node as usize] = FREE;
        self.filed -= 1;
    }

    /// Takes out a node that is due, if there is one. To be called until there is none; a node that is filed meanwhile
    /// is not due at the same moment.
    ///
    /// Under a clock that went back all that is filed is due: the moments that it was filed under mean nothing any more.
    #[inline]
    pub fn due(&mut self, now: Time) -> Option<u32> {
        let tick = now.0 >> TICK_BITS;
        if tick != self.now {
            self.turn(tick);
        }
        let node = self.ready.head;
        if node == NIL {
            return None;
        }
        self.ready.remove(&mut self.links, node);
        self.ticks[node as usize] = FREE;
        Some(node)
    }

    /// Collects all that is due, before anything is filed again.
    fn turn(&mut self, tick: u64) {
        let back = tick < self.now;
        while let Some(next) = self.next_tick()
            && (back || next <= tick)
        {
            let node = self.slots[(next % SLOTS) as usize].head;
            self.take(node);
            self.ready.push(&mut self.links, node);
            self.ticks[node as usize] = READY;
        }
        self.now = tick;
    }

    /// When the next node is due.
    pub fn deadline(&self) -> Option<Time> {
        Some(Time(self.next_tick()? << TICK_BITS))
    }

    /// The tick of the first slot in use, counted from `now` around the wheel.
    #[inline]
    fn next_tick(&self) -> Option<u64> {
        if self.summary == 0 {
            return None;
        }
        let start = ((self.now + 1) % SLOTS) as usize;
        let (word, bit) = (start / 64, start % 64);
        let here = self.words[word] & (u64::MAX << bit);
        let slot = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            // Words after this one, then from the first around to this one, whose lower bits come last.
            let after = self.summary & u64::MAX.checked_shl(word as u32 + 1).unwrap_or(0);
            let word = if after != 0 { after } else { self.summary }.trailing_zeros() as usize;
            word * 64 + self.words[word].trailing_zeros() as usize
        };
        let node = self.slots[slot].head;
        if node == NIL { None } else { Some(self.ticks[node as usize]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a sorted map: what is due comes out in order, within a tick, and nothing comes early.
        #[test]
        fn lets_each_node_out_in_its_tick(steps in vec((0..32_u32, 0..4_000_000_u64, 0..200_000_u64), 1..200)) {
            let mut wheel = Wheel::new(32);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (node, ahead, passes) in steps {
                let at = now + ahead;
                wheel.file(node, Time(at));
                // Beyond the horizon it is due early, to be filed again.
                let tick = at.div_ceil(512).clamp(now / 512 + 1, now / 512 + 4095);
                let entry = model.entry(node).or_insert(tick);
                *entry = tick.min(*entry);
                prop_assert_eq!(wheel.deadline(), model.values().min().map(|tick| Time(tick * 512)));
                now += passes;
                let mut last = 0;
                while let Some(node) = wheel.due(Time(now)) {
                    let tick = model.remove(&node);
                    prop_assert!(tick.is_some_and(|tick| tick <= now / 512 && tick >= last), "{:?} at {}", tick, now / 512);
                    last = tick.unwrap_or(0);
                }
                prop_assert!(model.values().all(|tick| *tick > now / 512), "{:?} at {}", model, now / 512);
                prop_assert_eq!(wheel.filed, model.len());
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_lets_all_out() {
        let mut wheel = Wheel::new(2);
        assert_eq!(wheel.due(Time(3_600_000_000_000)), None);
        wheel.file(0, Time(3_600_000_001_000));
        wheel.file(1, Time(3_600_001_000_000));
        let mut out: Vec<_> = std::iter::from_fn(|| wheel.due(Time(5))).collect();
        out.sort_unstable();
        assert_eq!(out, [0, 1]);
        wheel.file(0, Time(2_000));
        assert_eq!((wheel.due(Time(1_000)), wheel.due(Time(2_048))), (None, Some(0)));
    }
}
