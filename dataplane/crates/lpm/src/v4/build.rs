//! From the routes of an /18 to its block.

use std::sync::Arc;

use super::rib::{Chunk, Route};
use super::*;
use crate::Prefix4;
use crate::arena::{Arena, Block, Size};

/// The blocks of all VRFs, as the writer keeps them.
#[derive(Debug)]
pub(super) struct Blocks {
    pub table: Arc<Table>,
    pub arena: Arena,
    /// Indexed by value: the block that all /18s share whose every slot has it.
    constants: Vec<Constant>,
    /// Octets that a block must leave free: see [`Blocks::build`].
    pub spare_bytes: usize,
    /// What the last block that did not fit would have taken.
    pub refused_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Constant {
    block: Block,
    /// /18s that point to it; when none does, there is no block.
    users: u32,
}

/// An entry that no reader has seen yet, and the block that it points to, if not a shared one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Built {
    pub entry: u32,
    pub block: Option<Block>,
    /// Of what the block was built for.
    pub covering: u16,
}

impl Blocks {
    pub fn new(table: Arc<Table>, arena: Arena) -> Self {
        Self { table, arena, constants: Vec::new(), spare_bytes: 0, refused_bytes: 0 }
    }

    /// Asks for the first entry of a prefix.
    pub fn prefetch_entry(&self, vrf: u16, prefix: Prefix4) {
        sys::prefetch_read(self.table.entry(vrf, prefix.address() >> CHUNK_SHIFT));
    }

    /// Asks for a block, and what the arena knows of it.
    pub fn prefetch(&self, block: Block) {
        let words = &self.table.memory.words()[block.word as usize..][..block.size.bytes() / 8];
        words.iter().step_by(8).for_each(sys::prefetch_read);
        self.arena.prefetch(block);
    }

    /// The block of an /18 from its longer routes and the value of the longest route that holds
    /// all of it, or zero. Slots that have not changed keep their deep blocks. `None` when there
    /// is no room, and then nothing has changed.
    pub fn build(&mut self, vrf: u16, chunk: u32, long: Option<&Chunk>, covering: u16) -> Option<Built> {
        let Some(long) = long.filter(|chunk| !chunk.routes.is_empty()) else {
            return self.constant(covering, covering);
        };
        let table = Arc::clone(&self.table);
        let old = table.block(table.entry(vrf, chunk).load(Relaxed));
        let mut slots = [covering; 64];
        // Where a run may begin.
        let mut edges = 1_u64;
        let mut deep = [0_u32; 64];
        let mut count = 0;
        let mut routes = &long.routes[..];
        while let Some(&route) = routes.first() {
            let (slot, width) = route.slots();
            let range = slot as usize..(slot + width) as usize;
            edges |= (1 << slot) | (2 << (range.end - 1));
            if route.len <= 24 {
                // Most are a /24: no loop for these.
                if width == 1 {
                    slots[slot as usize] = route.value;
                } else {
                    slots[range].fill(route.value);
                }
                routes = &routes[1..];
                continue;
            }
            let same = routes.iter().take_while(|other| other.low >> 8 == route.low >> 8).count();
            let (group, rest) = routes.split_at(same);
            routes = rest;
            let base = slots[range.start];
            slots[range.start] = if long.changed >> slot & 1 == 0 {
                let value = old.slot(slot);
                if value & DEEP != 0 {
                    deep[count] = old.deep(value);
                    count += 1;
                    DEEP | (count - 1) as u16
                } else {
                    value
                }
            } else {
                match self.build_deep(group, base) {
                    Some(Deep::Value(value)) => value,
                    Some(Deep::Block(word)) => {
                        deep[count] = word;
                        count += 1;
                        DEEP | (count - 1) as u16
                    }
                    None => {
                        self.give_deep(&slots, &deep, long.changed);
                        return None;
                    }
                }
            };
        }

        let runs = Runs::of(&slots, [edges]);
        if runs.count == 1 && count == 0 {
            return self.constant(slots[0], covering);
        }
        let head = count.div_ceil(2);
        let Some(block) = self.take(head * 8 + 8 + runs.count * 2) else {
            self.give_deep(&slots, &deep, long.changed);
            return None;
        };
        let entry = block.word as usize + head;
        let words = table.memory.words();
        for number in 0..head {
            let pair = u64::from(deep[2 * number]) | u64::from(deep[2 * number + 1]) << 32;
            words[entry - 1 - number].store(pair, Relaxed);
        }
        words[entry].store(runs.ends()[0], Relaxed);
        store_values(&words[entry + 1..], 0, runs.values());
        Some(Built { entry: entry as u32, block: Some(block), covering })
    }

    /// Shows an entry to readers, and retires what the one before it pointed to: the block of its
    /// own that it had, or its part in a shared one, and the deep blocks of changed slots.
    pub fn publish(&mut self, vrf: u16, chunk: u32, new: u32, old_block: Option<Block>, changed: u64) {
        let table = Arc::clone(&self.table);
        let entry = table.entry(vrf, chunk);
        let old = entry.load(Relaxed);
        entry.store(new, Release);
        self.retire(old, old_block, changed);
    }

    /// Takes back what [`Blocks::build`] made.
    pub fn discard(&mut self, built: Built, changed: u64) {
        match built.block {
            Some(block) => {
                self.each_deep(built.entry, block, changed, Arena::give);
                self.arena.give(block);
            }
            None => self.release(built.entry, Arena::give),
        }
    }

    fn retire(&mut self, old: u32, old_block: Option<Block>, changed: u64) {
        match old_block {
            Some(block) => {
                self.each_deep(old, block, changed, Arena::retire);
                self.arena.retire(block);
            }
            None => self.release(old, Arena::retire),
        }
    }

    fn take(&mut self, bytes: usize) -> Option<Block> {
        let size = Size::holding(bytes);
        let block =
            if self.arena.free_bytes() < size.bytes() + self.spare_bytes { None } else { self.arena.take(size) };
        if block.is_none() {
            self.refused_bytes = size.bytes();
        }
        block
    }

    /// The shared block of a value, with one user more.
    fn constant(&mut self, value: u16, covering: u16) -> Option<Built> {
        if value == 0 {
            return Some(Built { entry: 0, block: None, covering });
        }
        let index = usize::from(value);
        if self.constants.len() <= index {
            self.constants.resize(index + 1, Constant { block: Block { word: 0, size: Size::holding(16) }, users: 0 });
        }
        if self.constants[index].users == 0 {
            let block = self.take(16)?;
            let words = self.table.memory.words();
            words[block.word as usize].store(1 << 63, Relaxed);
            words[block.word as usize + 1].store(u64::from(value), Relaxed);
            self.constants[index].block = block;
        }
        let constant = &mut self.constants[index];
        constant.users += 1;
        Some(Built { entry: constant.block.word, block: None, covering })
    }

    /// One user less of the shared block that an entry points to, if it does.
    fn release(&mut self, entry: u32, end: fn(&mut Arena, Block)) {
        if entry != 0 {
            let value = self.table.block(entry).run(0);
            let constant = &mut self.constants[usize::from(value)];
            constant.users -= 1;
            if constant.users == 0 {
                end(&mut self.arena, constant.block);
            }
        }
    }

    /// The deep blocks of an entry, whose own block this is, in those slots.
    fn each_deep(&mut self, entry: u32, block: Block, slots: u64, each: fn(&mut Arena, Block)) {
        if entry == block.word {
            // Nothing lies before the run ends, where their offsets would be.
            return;
        }
        let table = Arc::clone(&self.table);
        let view = table.block(entry);
        let ends = view.ends();
        for (before, slot) in (1..).zip(bits(ends)) {
            // A deep run is one slot.
            let value = view.run(ends.count_ones() as usize - before);
            if value & DEEP != 0 && slots >> slot & 1 != 0 {
                each(&mut self.arena, deep_block(&table, view.deep(value)));
            }
        }
    }

    /// Gives back the deep blocks that a build made before it ran out of room.
    fn give_deep(&mut self, slots: &[u16; 64], deep: &[u32; 64], changed: u64) {
        let table = Arc::clone(&self.table);
        for slot in bits(changed).filter(|&slot| slots[slot as usize] & DEEP != 0) {
            let number = slots[slot as usize] & !DEEP;
            self.arena.give(deep_block(&table, deep[usize::from(number)]));
        }
    }

    /// The block of a /24 from the routes longer than it, and the value of all else in it.
    fn build_deep(&mut self, routes: &[Route], base: u16) -> Option<Deep> {
        let mut slots = [base; 256];
        let mut edges = [1_u64, 0, 0, 0];
        for route in routes {
            let first = usize::from(route.low & 0xff);
            let end = first + (1 << (32 - route.len));
            slots[first..end].fill(route.value);
            edges[first / 64] |= 1 << (first % 64);
            if end < slots.len() {
                edges[end / 64] |= 1 << (end % 64);
            }
        }
        let runs = Runs::of(&slots, edges);
        if runs.count == 1 {
            return Some(Deep::Value(slots[0]));
        }
        let block = self.take(DEEP_HEAD_BYTES + runs.count * 2)?;
        let words = &self.table.memory.words()[block.word as usize..];
        let mut behind = 0;
        let mut counts = 0_u64;
        for (quarter, ends) in runs.ends().into_iter().enumerate().rev() {
            words[quarter].store(ends, Relaxed);
            counts |= behind << (8 * quarter);
            behind += u64::from(ends.count_ones());
        }
        // The first two values share a word with the counts.
        words[DEEP_COUNTS].store(counts, Relaxed);
        store_values(&words[DEEP_COUNTS..], DEEP_VALUES % 4, runs.values());
        Some(Deep::Block(block.word))
    }
}

enum Deep {
    /// All addresses have the same.
    Value(u16),
    /// Where the block is.
    Block(u32),
}

/// The deep block at a word: its size follows from its runs.
fn deep_block(table: &Table, word: u32) -> Block {
    let ends = &table.memory.words()[word as usize..][..DEEP_COUNTS];
    let runs: u32 = ends.iter().map(|ends| ends.load(Relaxed).count_ones()).sum();
    Block { word, size: Size::holding(DEEP_HEAD_BYTES + runs as usize * 2) }
}

/// Slots as sequences of equal values.
struct Runs<const SLOTS: usize, const WORDS: usize> {
    starts: [u64; WORDS],
    values: [u16; SLOTS],
    count: usize,
}

impl<const SLOTS: usize, const WORDS: usize> Runs<SLOTS, WORDS> {
    /// Runs begin at `edges` only, and not at all of them; the first slot is one.
    fn of(slots: &[u16; SLOTS], edges: [u64; WORDS]) -> Self {
        let mut runs = Self { starts: [0; WORDS], values: [0; SLOTS], count: 0 };
        // No value is this: a deep offset has a number below 64.
        let mut last = u16::MAX;
        for (word, edges) in edges.into_iter().enumerate() {
            for bit in bits(edges) {
                let value = slots[word * 64 + bit as usize];
                runs.starts[word] |= u64::from(value != last) << bit;
                // Written in vain where no run begins: the next one goes to the same place.
                runs.values[runs.count] = value;
                runs.count += usize::from(value != last);
                last = value;
            }
        }
        runs
    }

    /// The last slot of each run.
    fn ends(&self) -> [u64; WORDS] {
        // One before the next start, or the last of all.
        std::array::from_fn(|word| self.starts[word] >> 1 | self.starts.get(word + 1).map_or(1, |next| next & 1) << 63)
    }

    /// As they are kept, the last run's first.
    fn values(&self) -> impl ExactSizeIterator<Item = u16> {
        self.values[..self.count].iter().rev().copied()
    }
}

/// Writes values from the 16 bits with number `first` on. What the first word has is kept.
fn store_values(words: &[AtomicU64], first: usize, values: impl ExactSizeIterator<Item = u16>) {
    let mut word = if first == 0 { 0 } else { words[0].load(Relaxed) };
    let end = first + values.len();
    for (at, value) in (first..).zip(values) {
        word |= u64::from(value) << (at % 4 * 16);
        if at % 4 == 3 {
            words[at / 4].store(word, Relaxed);
            word = 0;
        }
    }
    if !end.is_multiple_of(4) {
        words[end / 4].store(word, Relaxed);
    }
}

/// The numbers of the bits that are set, lowest first.
fn bits(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        (bits != 0).then(|| {
            bits &= bits - 1;
            bit
        })
    })
}
