//! From intervals to lines.

use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::Address;
use crate::arena::{Arena, Size};

/// The blocks of all VRFs, as the writer keeps them.
#[derive(Debug)]
pub(super) struct Blocks {
    pub table: Arc<Table>,
    pub arena: Arena,
    /// Indexed by value: the leaf that all entries share whose every address has it.
    constants: Vec<Constant>,
    /// Octets that a block must leave free.
    pub spare_bytes: usize,
    /// What the last block that did not fit would have taken.
    pub refused_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Constant {
    block: Block,
    /// Entries that point to it; when none does, there is no block.
    users: u32,
}

/// Addresses with the same answer, from the end of the interval before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub last: u128,
    pub value: u16,
}

/// Why there are no lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No room.
    Full,
    /// More intervals than a node can have.
    TooMany,
}

/// What a key stands for.
enum Cell {
    Value(u16),
    /// These intervals, up to the last address of the key.
    Child(Range<usize>, u128),
}

impl Blocks {
    pub fn new(table: Arc<Table>, arena: Arena) -> Self {
        Self { table, arena, constants: Vec::new(), spare_bytes: 0, refused_bytes: 0 }
    }

    /// Lines for the addresses of a prefix of `depth` bits up to its `end`, and their entry.
    /// All blocks are added to `blocks`, also when it fails; an entry of one value has none.
    pub fn lines(
        &mut self,
        depth: u32,
        intervals: &[Interval],
        end: u128,
        blocks: &mut Vec<Block>,
    ) -> Result<u32, Refused> {
        if let [all] = intervals {
            return self.constant(all.value, 1).ok_or(Refused::Full);
        }
        // The bits of an address that a key has not.
        let below = u128::MAX.checked_shr(depth + 32).unwrap_or(0);
        let (_, inner) = intervals.split_last().expect("every address is in an interval");
        if inner.len() <= HOST_KEYS && inner.iter().any(|interval| interval.last & below != below) {
            return self.host(intervals, blocks);
        }
        let cells = cells(depth, below, intervals, end);
        let leaves = leaves(&cells).ok_or(Refused::TooMany)?;
        let mut lines = Vec::with_capacity(leaves.len() + 1);
        if leaves.len() > 1 {
            lines.push(node(&cells, &leaves));
        }
        for leaf in &leaves {
            lines.push(self.leaf(depth, intervals, &cells[leaf.clone()], blocks)?);
        }
        let block = self.take(lines.len() * LINE_BYTES, blocks).ok_or(Refused::Full)?;
        for (line, words) in lines.iter().zip(self.table.words(block).chunks(LINE_WORDS)) {
            line.store(words);
        }
        Ok(octets(block) | if leaves.len() > 1 { NODE } else { LEAF })
    }

    /// An array of these entries.
    pub fn array(&mut self, entries: &[u32]) -> Option<(u32, Block)> {
        let block = self.take(size_of_val(entries), &mut Vec::new())?;
        for (word, &entry) in self.table.words(block).iter().zip(entries) {
            word.store(entry, Relaxed);
        }
        Some((octets(block) | entries.len().trailing_zeros() << STRIDE_SHIFT | ARRAY, block))
    }

    /// The shared leaf of a value, with so many users more.
    pub fn constant(&mut self, value: u16, users: u32) -> Option<u32> {
        if value == 0 {
            return Some(0);
        }
        let index = usize::from(value);
        if self.constants.len() <= index {
            let none = Constant { block: Block { word: 0, size: Size::holding(LINE_BYTES) }, users: 0 };
            self.constants.resize(index + 1, none);
        }
        if self.constants[index].users == 0 {
            let block = self.take(LINE_BYTES, &mut Vec::new())?;
            let mut line = Line::leaf();
            (0..=LEAF_KEYS).for_each(|number| line.set_half(LEAF_VALUES + number, value));
            line.store(self.table.words(block));
            self.constants[index].block = block;
        }
        let constant = &mut self.constants[index];
        constant.users += users;
        Some(octets(constant.block))
    }

    /// So many users less of the shared leaf that an entry points to.
    pub fn release(&mut self, entry: u32, users: u32, end: fn(&mut Arena, Block)) {
        if entry != 0 && users != 0 {
            let constant = &mut self.constants[usize::from(self.table.constant(entry))];
            debug_assert_eq!(octets(constant.block), entry);
            constant.users -= users;
            if constant.users == 0 {
                end(&mut self.arena, constant.block);
            }
        }
    }

    /// An entry and its blocks are out of use.
    pub fn end(&mut self, entry: u32, blocks: &[Block], end: fn(&mut Arena, Block)) {
        if blocks.is_empty() {
            self.release(entry, 1, end);
        }
        for &block in blocks {
            end(&mut self.arena, block);
        }
    }

    fn host(&mut self, intervals: &[Interval], blocks: &mut Vec<Block>) -> Result<u32, Refused> {
        let mut line = Line([0; LINE_WORDS]);
        for number in 0..HOST_KEYS {
            // What has no interval has the key of the last one, which no address is above.
            let last = intervals[..intervals.len() - 1].get(number).map_or(u128::MAX, |interval| interval.last);
            for word in 0..4 {
                line.0[number * 4 + word] = (last >> (32 * word)) as u32;
            }
        }
        for (number, interval) in intervals.iter().enumerate() {
            line.set_half(HOST_VALUES + number, interval.value);
        }
        let block = self.take(LINE_BYTES, blocks).ok_or(Refused::Full)?;
        line.store(self.table.words(block));
        Ok(octets(block) | HOST)
    }

    fn leaf(
        &mut self,
        depth: u32,
        intervals: &[Interval],
        cells: &[(u32, Cell)],
        blocks: &mut Vec<Block>,
    ) -> Result<Line, Refused> {
        let mut line = Line::leaf();
        let mut children = 0;
        for (number, (key, cell)) in cells.iter().enumerate() {
            if number + 1 < cells.len() {
                line.0[number] = key ^ BIAS;
            }
            let value = match cell {
                Cell::Value(value) => *value,
                Cell::Child(range, end) => {
                    line.0[LEAF_CHILDREN + children] =
                        self.lines(depth + 32, &intervals[range.clone()], *end, blocks)?;
                    children += 1;
                    CHILD | (children - 1) as u16
                }
            };
            line.set_half(LEAF_VALUES + number, value);
        }
        Ok(line)
    }

    fn take(&mut self, bytes: usize, blocks: &mut Vec<Block>) -> Option<Block> {
        // A line each at least: entries are numbers of lines.
        let size = Size::holding(bytes.max(LINE_BYTES));
        let block =
            if self.arena.free_bytes() < size.bytes() + self.spare_bytes { None } else { self.arena.take(size) };
        match block {
            Some(block) => blocks.push(block),
            None => self.refused_bytes = size.bytes(),
        }
        block
    }
}

/// A line that no reader has seen yet.
struct Line([u32; LINE_WORDS]);

impl Line {
    fn leaf() -> Self {
        let mut line = Self([0; LINE_WORDS]);
        line.0[..LEAF_KEYS].fill(NO_KEY);
        line
    }

    fn set_half(&mut self, index: usize, value: u16) {
        self.0[index / 2] |= u32::from(value) << (index % 2 * 16);
    }

    fn store(&self, words: &[AtomicU32]) {
        for (word, &value) in words.iter().zip(&self.0) {
            word.store(value, Relaxed);
        }
    }
}

/// The intervals by the 32 bits of keys: the last key of each, and what it is.
fn cells(depth: u32, below: u128, intervals: &[Interval], end: u128) -> Vec<(u32, Cell)> {
    let mut cells = Vec::with_capacity(intervals.len() + 4);
    let mut number = 0;
    // The first address not yet in a cell; always the first of its key.
    let mut next = end.first(depth as u8);
    while let Some(&Interval { last, value }) = intervals.get(number) {
        let last = last.min(end);
        if last & below == below {
            cells.push((key(last, depth), Cell::Value(value)));
            number += 1;
        } else {
            let first_of_key = last & !below;
            if next < first_of_key {
                cells.push((key(first_of_key - 1, depth), Cell::Value(value)));
            }
            let key_end = last | below;
            let from = number;
            while intervals[number].last.min(end) < key_end {
                number += 1;
            }
            cells.push((key(key_end, depth), Cell::Child(from..number + 1, key_end)));
            number += usize::from(intervals[number].last.min(end) == key_end);
        }
        next = match cells.last() {
            Some((_, Cell::Child(_, key_end))) => key_end.wrapping_add(1),
            _ => last.wrapping_add(1),
        };
        if next.wrapping_sub(1) == end {
            break;
        }
    }
    cells
}

/// Which cells are in a leaf together; `None` when there are more leaves than a node can have.
fn leaves(cells: &[(u32, Cell)]) -> Option<Vec<Range<usize>>> {
    let mut leaves = Vec::new();
    let (mut from, mut children) = (0, 0);
    for (number, (_, cell)) in cells.iter().enumerate() {
        let is_child = matches!(cell, Cell::Child(..));
        if number - from == LEAF_KEYS + 1 || (is_child && children == LEAF_MOST_CHILDREN) {
            leaves.push(from..number);
            (from, children) = (number, 0);
        }
        children += usize::from(is_child);
    }
    leaves.push(from..cells.len());
    (leaves.len() <= NODE_KEYS + 1).then_some(leaves)
}

fn node(cells: &[(u32, Cell)], leaves: &[Range<usize>]) -> Line {
    let mut line = Line([NO_KEY; LINE_WORDS]);
    for (number, leaf) in leaves[..leaves.len() - 1].iter().enumerate() {
        line.0[number] = cells[leaf.end - 1].0 ^ BIAS;
    }
    line
}

/// Where a block begins, in octets.
fn octets(block: Block) -> u32 {
    block.word * 8
}
