//! From intervals to the lines that readers search.

use std::sync::Arc;

use super::sketch::{Keyed, keyed};
use super::*;
use crate::arena::{Arena, Size};

/// The blocks of all VRFs, as the writer keeps them.
#[derive(Debug)]
pub(super) struct Blocks {
    pub table: Arc<Table>,
    pub arena: Arena,
    /// Indexed by value: the line that all entries share that have it for all their addresses.
    constants: Vec<Constant>,
    /// Octets that a block must leave free.
    pub spare_bytes: usize,
    /// What the last block that did not fit would have taken.
    pub refused_bytes: usize,
    keys: Vec<Keyed>,
}

#[derive(Clone, Copy, Debug)]
struct Constant {
    entry: Entry,
    block: Block,
    /// Entries that are this; when none is, there is no line.
    users: u32,
}

/// Why there is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No room in the arena.
    Full,
    /// More intervals than a node's leaves hold: it takes an array.
    Crowded,
}

/// What becomes of a block that is no longer used.
pub(super) type End = fn(&mut Arena, Block);

impl Blocks {
    pub fn new(table: Arc<Table>, arena: Arena) -> Self {
        Self { table, arena, constants: Vec::new(), spare_bytes: 0, refused_bytes: 0, keys: Vec::new() }
    }

    /// The entry for the intervals up to `last`, for `users` places; keys begin at `octet`.
    /// Nothing is taken when it is refused.
    pub fn entry(
        &mut self,
        starts: &[(u128, u16)],
        last: u128,
        octet: u8,
        most_leaves: usize,
        users: u32,
    ) -> Result<Entry, Refused> {
        if let &[(_, value)] = starts {
            return self.constant(value, users);
        }
        let mut keys = std::mem::take(&mut self.keys);
        let entry = self.search(starts, last, octet, most_leaves, &mut keys);
        self.keys = keys;
        entry
    }

    /// The same for intervals that begin at whole keys.
    pub fn whole_entry(
        &mut self,
        starts: impl ExactSizeIterator<Item = (u32, u16)>,
        octet: u8,
        most_leaves: usize,
        users: u32,
    ) -> Result<Entry, Refused> {
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        keys.extend(starts.map(|(key, value)| Keyed::plain(key, value)));
        let entry = match keys[..] {
            [only] => self.constant(only.value, users),
            _ => self.leaves(&[], octet, most_leaves, &keys),
        };
        self.keys = keys;
        entry
    }

    fn search(
        &mut self,
        starts: &[(u128, u16)],
        last: u128,
        octet: u8,
        most_leaves: usize,
        keys: &mut Vec<Keyed>,
    ) -> Result<Entry, Refused> {
        keyed(starts, last, 96 - 8 * u32::from(octet), keys);
        if starts.len() <= HOST_KEYS + 1 && keys.iter().any(|keyed| keyed.is_child()) {
            return self.host(starts);
        }
        self.leaves(starts, octet, most_leaves, keys)
    }

    /// A leaf, or a node with leaves.
    fn leaves(
        &mut self,
        starts: &[(u128, u16)],
        octet: u8,
        most_leaves: usize,
        keys: &[Keyed],
    ) -> Result<Entry, Refused> {
        let mut ends = [0; NODE_LEAVES];
        let leaves = pack(keys, &mut ends[..most_leaves]).ok_or(Refused::Crowded)?;
        let mut entries = Vec::new();
        let mut child_keys = Vec::new();
        for keyed in keys.iter().filter(|keyed| keyed.is_child()) {
            match self.child(starts, *keyed, octet, &mut child_keys) {
                Ok(entry) => entries.push(entry),
                Err(refused) => {
                    self.give_all(&entries);
                    return Err(refused);
                }
            }
        }
        let head = usize::from(leaves > 1);
        let Some(block) = self.take((head + leaves) * LINE_BYTES) else {
            self.give_all(&entries);
            return Err(Refused::Full);
        };
        let table = Arc::clone(&self.table);
        let line = block.word as usize / LINE_WORDS;
        if head > 0 {
            let first = |leaf: usize| keys.get(usize::from(*ends[..leaves - 1].get(leaf)?));
            for (at, half) in table.line(line).iter().enumerate() {
                half.store(first(at).map_or(UNUSED_KEY, |keyed| kept_key(keyed.key)), Relaxed);
            }
        }
        let (mut from, mut entries) = (0, &entries[..]);
        for (leaf, &end) in ends[..leaves].iter().enumerate() {
            entries = write_leaf(table.line(line + head + leaf), &keys[from..usize::from(end)], entries);
            from = usize::from(end);
        }
        Ok(Entry::new(if head > 0 { Entry::NODE } else { Entry::LEAF }, block, octet))
    }

    /// The entry for what is below a key.
    fn child(
        &mut self,
        starts: &[(u128, u16)],
        keyed: Keyed,
        octet: u8,
        keys: &mut Vec<Keyed>,
    ) -> Result<Entry, Refused> {
        let below = (1_u128 << (96 - 8 * u32::from(octet))) - 1;
        let inside = &starts[keyed.from as usize..keyed.to as usize];
        let first = inside[0].0 & !below;
        let inside: Vec<_> = std::iter::once((first, keyed.value)).chain(inside.iter().copied()).collect();
        self.search(&inside, first | below, (octet + 4).min(LAST_KEY), NODE_LEAVES, keys)
    }

    fn host(&mut self, starts: &[(u128, u16)]) -> Result<Entry, Refused> {
        let block = self.take(LINE_BYTES).ok_or(Refused::Full)?;
        let words = &self.table.memory.words()[block.word as usize..][..LINE_WORDS];
        let last = starts[starts.len() - 1];
        let mut values = u64::from(starts[0].1);
        for at in 0..HOST_KEYS {
            // Where the last address of all is counted too, it is the same value as before.
            let (start, value) = starts.get(at + 1).copied().unwrap_or((u128::MAX, last.1));
            words[2 * at].store((start >> 64) as u64, Relaxed);
            words[2 * at + 1].store(start as u64, Relaxed);
            values |= u64::from(value) << (16 * (at + 1));
        }
        words[HOST_VALUES].store(values, Relaxed);
        Ok(Entry::new(Entry::HOST, block, LAST_KEY))
    }

    /// The shared line of a value, with more users.
    pub fn constant(&mut self, value: u16, users: u32) -> Result<Entry, Refused> {
        if value == 0 {
            return Ok(Entry::NONE);
        }
        let index = usize::from(value);
        if self.constants.len() <= index {
            let block = Block { word: 0, size: Size::holding(LINE_BYTES) };
            self.constants.resize(index + 1, Constant { entry: Entry::NONE, block, users: 0 });
        }
        if self.constants[index].users == 0 {
            let block = self.take(LINE_BYTES).ok_or(Refused::Full)?;
            let line = self.table.line(block.word as usize / LINE_WORDS);
            write_leaf(line, &[Keyed::plain(0, value)], &[]);
            let constant = &mut self.constants[index];
            (constant.entry, constant.block) = (Entry::new(Entry::LEAF, block, DIRECT), block);
        }
        self.constants[index].users += users;
        Ok(self.constants[index].entry)
    }

    /// 256 entries, whatever they hold.
    pub fn array(&mut self, octet: u8) -> Result<(Entry, Block), Refused> {
        let block = self.take(FAN * size_of::<AtomicU32>()).ok_or(Refused::Full)?;
        Ok((Entry::new(Entry::ARRAY, block, octet), block))
    }

    /// Ends all that is behind an entry that so many places have, arrays excepted.
    pub fn end(&mut self, entry: Entry, users: u32, end: End) {
        if entry == Entry::NONE {
            return;
        }
        let table = Arc::clone(&self.table);
        let block =
            |lines: usize| Block { word: (entry.line() * LINE_WORDS) as u32, size: Size::holding(lines * LINE_BYTES) };
        match entry.kind() {
            Entry::LEAF => {
                let line = table.line(entry.line());
                let value = value(line, 0);
                if let Some(constant) = self.constants.get_mut(usize::from(value))
                    && constant.users > 0
                    && constant.entry == entry
                {
                    constant.users -= users;
                    if constant.users == 0 {
                        end(&mut self.arena, constant.block);
                    }
                    return;
                }
                self.end_children(line, end);
                end(&mut self.arena, block(1));
            }
            Entry::NODE => {
                let keys = table.line(entry.line());
                let leaves = 1 + keys.iter().take_while(|key| key.load(Relaxed) != UNUSED_KEY).count();
                for leaf in 0..leaves {
                    self.end_children(table.line(entry.leaf(leaf).line()), end);
                }
                end(&mut self.arena, block(1 + leaves));
            }
            Entry::HOST => end(&mut self.arena, block(1)),
            _ => unreachable!("arrays are ended by those who know what is in them"),
        }
    }

    fn end_children(&mut self, leaf: &[AtomicU32; LINE_HALVES], end: End) {
        for child in &leaf[CHILDREN..] {
            self.end(Entry(child.load(Relaxed)), 1, end);
        }
    }

    fn give_all(&mut self, entries: &[Entry]) {
        for &entry in entries {
            self.end(entry, 1, Arena::give);
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
}

/// Whether all of it fits into a leaf.
pub(super) fn is_leaf(keys: &[Keyed]) -> bool {
    pack(keys, &mut [0]).is_some()
}

/// Deals keys out to leaves, as many as there are ends, and says where each ends and how many it
/// took.
fn pack(keys: &[Keyed], ends: &mut [u16]) -> Option<usize> {
    let (mut leaf, mut values, mut children) = (0, 0, 0);
    for (at, keyed) in keys.iter().enumerate() {
        let child = usize::from(keyed.is_child());
        if values == LEAF_VALUES || children + child > LEAF_CHILDREN {
            *ends.get_mut(leaf)? = at as u16;
            (leaf, values, children) = (leaf + 1, 0, 0);
        }
        values += 1;
        children += child;
    }
    *ends.get_mut(leaf)? = keys.len() as u16;
    Some(leaf + 1)
}

/// Writes a leaf that takes its children from `entries`, and returns the others.
fn write_leaf<'e>(line: &[AtomicU32; LINE_HALVES], keys: &[Keyed], entries: &'e [Entry]) -> &'e [Entry] {
    let mut children = 0;
    let mut values = [0_u16; 2 * (CHILDREN - VALUE_WORDS)];
    for (value, keyed) in values.iter_mut().zip(keys) {
        *value = if keyed.is_child() { CHILD | children as u16 } else { keyed.value };
        children += usize::from(keyed.is_child());
    }
    let last = values[keys.len() - 1];
    values[keys.len()..].fill(last);
    for (at, half) in line[..LEAF_KEYS].iter().enumerate() {
        let key = keys.get(at + 1).map_or(UNUSED_KEY, |keyed| kept_key(keyed.key));
        half.store(key, Relaxed);
    }
    for (at, pair) in values.as_chunks::<2>().0.iter().enumerate() {
        line[VALUE_WORDS + at].store(u32::from(pair[0]) | u32::from(pair[1]) << 16, Relaxed);
    }
    let (own, others) = entries.split_at(children);
    for at in 0..LEAF_CHILDREN {
        line[CHILDREN + at].store(own.get(at).map_or(0, |entry| entry.0), Relaxed);
    }
    others
}

/// A leaf's value.
fn value(line: &[AtomicU32; LINE_HALVES], at: usize) -> u16 {
    (line[VALUE_WORDS + at / 2].load(Relaxed) >> (at % 2 * 16)) as u16
}
