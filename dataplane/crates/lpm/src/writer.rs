//! The one place that changes a table.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::blocks::Blocks;
use crate::rib::Rib;
use crate::table::{self, Block, ROOT_OCTETS, Reader, Table, is_block, to_block, to_value};
use crate::{Address, Limits, Mark, Prefix, TableError, Usage, Value};

/// A table's writing side. There is one for each table.
#[derive(Debug)]
pub struct Writer<A> {
    table: Arc<Table>,
    ribs: Vec<Option<Box<Rib<A>>>>,
    blocks: Blocks,
    prefixes: usize,
}

impl<A: Address> Writer<A> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`TableError::NoMemory`].
    pub fn new(limits: Limits) -> Result<Self, TableError> {
        let count = limits.bytes / BLOCK_BYTES;
        let table = i32::try_from(count)
            .ok()
            .and_then(|_| Table::reserve(usize::from(limits.vrfs), count + 1))
            .ok_or(TableError::NoMemory { bytes: limits.bytes, vrfs: limits.vrfs })?;
        Ok(Self {
            table: Arc::new(table),
            ribs: (0..limits.vrfs).map(|_| None).collect(),
            blocks: Blocks::new(count),
            prefixes: 0,
        })
    }

    /// A reading side of this table.
    pub fn reader(&self) -> Reader<A> {
        Reader::new(Arc::clone(&self.table))
    }

    /// Sets the value of a prefix, and returns the one it had.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchVrf`] and [`TableError::Full`]; nothing has changed then.
    pub fn insert(&mut self, vrf: u16, prefix: Prefix<A>, value: Value) -> Result<Option<Value>, TableError> {
        let vrfs = self.ribs.len() as u16;
        let rib = self.ribs.get_mut(usize::from(vrf));
        let rib = rib.ok_or(TableError::NoSuchVrf { vrf, vrfs })?;
        let rib = rib.get_or_insert_with(|| Box::new(Rib::new()));
        let old = rib.value(prefix);

        if prefix.len() == 0 {
            self.table.defaults[usize::from(vrf)].store(to_value(value, 0), Release);
        } else {
            let way = Way::to(&self.table, vrf, prefix);
            if way.missing > self.blocks.available() {
                return Err(TableError::Full {
                    needed_bytes: way.missing * BLOCK_BYTES,
                    free_bytes: self.blocks.available() * BLOCK_BYTES,
                    retired_bytes: self.blocks.retired() * BLOCK_BYTES,
                    limit_bytes: self.blocks.limit() * BLOCK_BYTES,
                });
            }
            rib.pages |= pages(prefix);
            let entry = to_value(value, prefix.len());
            if way.missing == 0 {
                way.paint(&self.table, |held| (table::len(held) <= prefix.len()).then_some(entry));
                if let (None, Some(last)) = (old, way.last()) {
                    self.blocks.keep(last);
                }
            } else {
                way.extend(&self.table, &mut self.blocks, prefix, entry);
            }
        }
        rib.insert(prefix, value);
        self.prefixes += usize::from(old.is_none());
        Ok(old)
    }

    /// Takes a prefix out, and returns the value it had; `None` when it was not there.
    ///
    /// Its addresses fall back to the next shorter prefix that holds them.
    pub fn remove(&mut self, vrf: u16, prefix: Prefix<A>) -> Option<Value> {
        let rib = self.ribs.get_mut(usize::from(vrf))?.as_mut()?;
        let old = rib.remove(prefix)?;
        self.prefixes -= 1;

        if prefix.len() == 0 {
            self.table.defaults[usize::from(vrf)].store(0, Release);
            return Some(old);
        }
        let covering = rib.covering(prefix);
        let entry = covering.map_or(0, |(shorter, value)| to_value(value, shorter.len()));
        let way = Way::to(&self.table, vrf, prefix);
        way.paint(&self.table, |held| (table::len(held) == prefix.len()).then_some(entry));
        way.shrink(&self.table, &mut self.blocks, entry);
        Some(old)
    }

    /// Takes all prefixes of a VRF out, and returns how many there were.
    ///
    /// The VRF can be used again at once; its number stands for another VRF only after the
    /// readers have passed.
    pub fn remove_vrf(&mut self, vrf: u16) -> usize {
        let Some(Some(rib)) = self.ribs.get_mut(usize::from(vrf)) else {
            return 0;
        };
        // Before the rest: an address must not fall to a default route that goes too.
        self.table.defaults[usize::from(vrf)].store(0, Release);
        let root = &self.table.roots[usize::from(vrf)];
        for (page, slots) in root.chunks(PAGE_ENTRIES).enumerate() {
            if rib.pages >> page & 1 != 0 {
                clear(&self.table, &mut self.blocks, slots);
            }
        }
        let count = rib.len();
        rib.clear();
        self.prefixes -= count;
        count
    }

    /// The value of exactly this prefix.
    pub fn value(&self, vrf: u16, prefix: Prefix<A>) -> Option<Value> {
        self.ribs.get(usize::from(vrf))?.as_ref()?.value(prefix)
    }

    /// How many prefixes a VRF has.
    pub fn prefixes(&self, vrf: u16) -> usize {
        let rib = self.ribs.get(usize::from(vrf)).and_then(Option::as_ref);
        rib.map_or(0, |rib| rib.len())
    }

    /// A mark that covers everything taken out of the table so far. Give it to
    /// [`Writer::reclaim`] when every reader has finished the lookup or batch that it was in
    /// when the mark was made.
    pub fn retire_mark(&mut self) -> Mark {
        self.blocks.mark()
    }

    /// Makes what `mark` and earlier marks cover free again, and returns its octets.
    pub fn reclaim(&mut self, mark: Mark) -> usize {
        self.blocks.reclaim(mark) * BLOCK_BYTES
    }

    /// What the table holds and takes.
    pub fn usage(&self) -> Usage {
        let ribs = self.ribs.iter().flatten();
        let pages: usize = ribs.map(|rib| rib.pages.count_ones() as usize).sum();
        Usage {
            prefixes: self.prefixes,
            used_bytes: self.blocks.in_use() * BLOCK_BYTES,
            retired_bytes: self.blocks.retired() * BLOCK_BYTES,
            limit_bytes: self.blocks.limit() * BLOCK_BYTES,
            resident_bytes: self.blocks.ever_used() * BLOCK_BYTES
                + pages * PAGE_ENTRIES * size_of::<AtomicU32>()
                + size_of_val(&*self.table.defaults),
        }
    }
}

/// The way from a VRF's root to the entries of a prefix, as far as it exists.
struct Way<A> {
    vrf: u16,
    prefix: Prefix<A>,
    /// The blocks on the way, the first `depth` of them.
    blocks: [u32; MOST_BLOCKS],
    depth: usize,
    /// How many blocks there must be more to reach the prefix.
    missing: usize,
}

impl<A: Address> Way<A> {
    fn to(table: &Table, vrf: u16, prefix: Prefix<A>) -> Self {
        let mut way = Self {
            vrf,
            prefix,
            blocks: [0; MOST_BLOCKS],
            depth: 0,
            missing: usize::from(prefix.len()).div_ceil(8).saturating_sub(ROOT_OCTETS),
        };
        while way.missing > 0 {
            let held = way.slots(table)[way.index(way.depth)].load(Relaxed);
            if !is_block(held) {
                break;
            }
            way.blocks[way.depth] = table::block(held) as u32;
            way.depth += 1;
            way.missing -= 1;
        }
        way
    }

    fn last(&self) -> Option<u32> {
        self.blocks[..self.depth].last().copied()
    }

    /// The entries where the way ends.
    fn slots<'t>(&self, table: &'t Table) -> &'t [AtomicU32] {
        self.slots_at(table, self.depth)
    }

    fn slots_at<'t>(&self, table: &'t Table, level: usize) -> &'t [AtomicU32] {
        match level.checked_sub(1) {
            None => &table.roots[usize::from(self.vrf)],
            Some(above) => &table.blocks[self.blocks[above] as usize],
        }
    }

    /// Where the prefix's first address is, `level` blocks below the root.
    fn index(&self, level: usize) -> usize {
        index(self.prefix.address(), level)
    }

    /// Offers every entry of the prefix, however deep, to `change`.
    fn paint(&self, table: &Table, change: impl Fn(u32) -> Option<u32>) {
        debug_assert_eq!(self.missing, 0);
        let last = index(self.prefix.last(), self.depth);
        paint(table, &self.slots(table)[self.index(self.depth)..=last], &change);
    }

    /// Builds the missing blocks with `entry` for the prefix, and then shows them at once.
    fn extend(self, table: &Table, blocks: &mut Blocks, prefix: Prefix<A>, entry: u32) {
        let slot = &self.slots(table)[self.index(self.depth)];
        // What the slot holds is the longest match so far of all that will be below it.
        let around = slot.load(Relaxed);
        let end = self.depth + self.missing;
        let mut below = entry;
        for level in (self.depth + 1..=end).rev() {
            let block = blocks.take().expect("there were enough when it was asked");
            let entries: &Block = &table.blocks[block as usize];
            let first = index(prefix.address(), level);
            let last = if level == end { index(prefix.last(), level) } else { first };
            for (at, slot) in entries.iter().enumerate() {
                let is_inside = (first..=last).contains(&at);
                slot.store(if is_inside { below } else { around }, Relaxed);
            }
            blocks.keep(block);
            below = to_block(block);
        }
        if let Some(last) = self.last() {
            blocks.keep(last);
        }
        slot.store(below, Release);
    }

    /// Lets go of the blocks that only the prefix had kept; `entry` is what all their addresses
    /// match now.
    fn shrink(self, table: &Table, blocks: &mut Blocks, entry: u32) {
        for level in (0..self.depth).rev() {
            let block = self.blocks[level];
            if !blocks.release(block) {
                break;
            }
            self.slots_at(table, level)[self.index(level)].store(entry, Release);
            blocks.retire(block);
        }
    }
}

/// Where `address` is among the entries `level` blocks below the root.
fn index<A: Address>(address: A, level: usize) -> usize {
    match level.checked_sub(1) {
        None => usize::from(address.top()),
        Some(above) => usize::from(address.octet(ROOT_OCTETS + above)),
    }
}

fn paint(table: &Table, slots: &[AtomicU32], change: &impl Fn(u32) -> Option<u32>) {
    for slot in slots {
        let held = slot.load(Relaxed);
        if is_block(held) {
            paint(table, &table.blocks[table::block(held)], change);
        } else if let Some(entry) = change(held) {
            slot.store(entry, Release);
        }
    }
}

/// Empties entries of a root, and retires all that is below them.
fn clear(table: &Table, blocks: &mut Blocks, slots: &[AtomicU32]) {
    for slot in slots {
        let held = slot.load(Relaxed);
        if held != 0 {
            slot.store(0, Release);
            retire(table, blocks, held);
        }
    }
}

/// Retires the block of an entry and those below it, their contents untouched: readers may
/// be in them.
fn retire(table: &Table, blocks: &mut Blocks, held: u32) {
    if is_block(held) {
        let block = table::block(held);
        for slot in &table.blocks[block] {
            retire(table, blocks, slot.load(Relaxed));
        }
        blocks.retire(block as u32);
    }
}

/// The pages of a root that a prefix has entries in.
fn pages<A: Address>(prefix: Prefix<A>) -> u64 {
    let first = index(prefix.address(), 0) / PAGE_ENTRIES;
    let last = index(prefix.last(), 0) / PAGE_ENTRIES;
    (first..=last).fold(0, |pages, page| pages | 1 << page)
}

const BLOCK_BYTES: usize = size_of::<Block>();
/// Blocks below a root for the longest prefix there is, a /128.
const MOST_BLOCKS: usize = 14;
/// Entries of a root in a page of 4 KiB: 64 pages make a root.
const PAGE_ENTRIES: usize = 1024;
