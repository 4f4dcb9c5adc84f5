//! The one place that changes an IPv4 table.

use std::sync::Arc;

use super::build::{Blocks, Built};
use super::rib::{PAGE_CHUNKS, Routes};
use super::*;
use crate::arena::Arena;
use crate::{Change, Limits, Mark, Prefix4, TableError, Usage, Value};

/// An IPv4 table's writing side. There is one for each table.
#[derive(Debug)]
pub struct Writer4 {
    routes: Routes,
    blocks: Blocks,
    vrfs: u16,
    prefixes: usize,
    /// Of the change under way: empty between changes, kept for their memory.
    built: Vec<Built>,
    undo: Vec<Change<u32>>,
}

impl Writer4 {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`TableError::NoMemory`].
    pub fn new(limits: Limits) -> Result<Self, TableError> {
        let refused = TableError::NoMemory { bytes: limits.bytes, vrfs: limits.vrfs };
        let (mut arena, memory) = Arena::new(limits.bytes).ok_or(refused)?;
        // For blocks alone, which all VRFs share. Between packets, where small pages are not in the
        // TLB either, a full table's lookups take a tenth less time, and with many host routes a
        // fifth. Entries of 2 MiB would be those of two VRFs, however few they have.
        arena.advise_huge(&memory);
        let table = Table::reserve(limits.vrfs, memory).ok_or(refused)?;
        Ok(Self {
            routes: Routes::new(limits.vrfs),
            blocks: Blocks::new(Arc::new(table), arena),
            vrfs: limits.vrfs,
            prefixes: 0,
            built: Vec::new(),
            undo: Vec::new(),
        })
    }

    /// A reading side of this table.
    pub fn reader(&self) -> Reader4 {
        Reader4::new(Arc::clone(&self.blocks.table))
    }

    /// Sets the value of a prefix, and returns the one it had.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchVrf`] and [`TableError::Full`]; nothing has changed then.
    pub fn insert(&mut self, vrf: u16, prefix: Prefix4, value: Value) -> Result<Option<Value>, TableError> {
        if !self.routes.has(vrf) {
            return Err(TableError::NoSuchVrf { vrf, vrfs: self.vrfs });
        }
        self.change(vrf, prefix, Some(value))
    }

    /// Takes a prefix out, and returns the value it had; `None` when it was not there.
    ///
    /// Its addresses fall back to the next shorter prefix that holds them.
    ///
    /// # Errors
    ///
    /// [`TableError::Full`] when what replaces it finds no room, and then it is still there. A
    /// sixteenth of the table is kept for this, so that it takes thousands of changes without
    /// [`Writer4::reclaim`].
    pub fn remove(&mut self, vrf: u16, prefix: Prefix4) -> Result<Option<Value>, TableError> {
        if !self.routes.has(vrf) {
            return Ok(None);
        }
        self.change(vrf, prefix, None)
    }

    /// Makes all changes, or none. Much cheaper than one by one where they are close to each
    /// other: what several of them touch is built once, and readers see it change once.
    /// Removing a prefix that is not there changes nothing.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchVrf`] and [`TableError::Full`]; nothing has changed then. While it is
    /// at it, the table holds what was and what will be.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change<u32>>) -> Result<(), TableError> {
        self.undo.clear();
        for change in changes {
            if !self.routes.has(change.vrf) {
                self.roll_back();
                return Err(TableError::NoSuchVrf { vrf: change.vrf, vrfs: self.vrfs });
            }
            let old = self.routes.set(change.vrf, change.prefix, change.value);
            self.undo.push(Change { value: old, ..change });
        }
        self.blocks.spare_bytes = self.blocks.arena.limit_bytes() / SPARE;
        if let Err(full) = self.commit() {
            self.roll_back();
            return Err(full);
        }
        for change in self.undo.drain(..) {
            if change.prefix.len() == 0 {
                let value = self.routes.value(change.vrf, change.prefix);
                self.blocks.table.set_default(change.vrf, value);
            }
        }
        self.prefixes = self.routes.total();
        Ok(())
    }

    /// Takes all prefixes of a VRF out, and returns how many there were.
    ///
    /// The VRF can be used again at once; its number stands for another VRF only after the
    /// readers have passed.
    pub fn remove_vrf(&mut self, vrf: u16) -> usize {
        if !self.routes.has(vrf) {
            return 0;
        }
        // Before the rest: an address must not fall to a default route that goes too.
        self.blocks.table.set_default(vrf, None);
        let blocks = &mut self.blocks;
        let count = self.routes.clear(vrf, |chunk, block| blocks.publish(vrf, chunk, 0, block, !0));
        self.prefixes -= count;
        count
    }

    /// The value of exactly this prefix.
    pub fn value(&self, vrf: u16, prefix: Prefix4) -> Option<Value> {
        self.routes.value(vrf, prefix)
    }

    /// How many prefixes a VRF has.
    pub fn prefixes(&self, vrf: u16) -> usize {
        self.routes.count(vrf)
    }

    /// A mark that covers everything taken out of the table so far. Give it to
    /// [`Writer4::reclaim`] when every reader has finished the lookup or batch that it was in
    /// when the mark was made.
    pub fn retire_mark(&mut self) -> Mark {
        self.blocks.arena.mark()
    }

    /// Makes what `mark` and earlier marks cover free again, and returns its octets.
    pub fn reclaim(&mut self, mark: Mark) -> usize {
        self.blocks.arena.reclaim(mark)
    }

    /// What the table holds and takes.
    pub fn usage(&self) -> Usage {
        let Blocks { arena, table, .. } = &self.blocks;
        Usage {
            prefixes: self.prefixes,
            used_bytes: arena.in_use_bytes(),
            retired_bytes: arena.retired_bytes(),
            limit_bytes: arena.limit_bytes(),
            resident_bytes: arena.touched_bytes()
                + self.routes.pages() * PAGE_CHUNKS * size_of::<AtomicU32>()
                + size_of_val(table.defaults.all()),
        }
    }

    fn change(&mut self, vrf: u16, prefix: Prefix4, value: Option<Value>) -> Result<Option<Value>, TableError> {
        self.blocks.prefetch_entry(vrf, prefix);
        if let Some(block) = self.routes.prefetch(vrf, prefix) {
            self.blocks.prefetch(block);
        }
        let old = self.routes.set(vrf, prefix, value);
        if prefix.len() == 0 {
            self.blocks.table.set_default(vrf, value);
        }
        self.blocks.spare_bytes = if value.is_some() { self.blocks.arena.limit_bytes() / SPARE } else { 0 };
        if let Err(full) = self.commit() {
            self.routes.set(vrf, prefix, old);
            self.routes.forget();
            return Err(full);
        }
        self.prefixes += usize::from(value.is_some());
        self.prefixes -= usize::from(old.is_some());
        Ok(old)
    }

    /// Builds all that is dirty, and only when all of it is there, shows it to readers.
    fn commit(&mut self) -> Result<(), TableError> {
        self.built.clear();
        for number in 0..self.routes.dirty() {
            let (vrf, chunk, long, covering) = self.routes.dirty_at(number);
            if let Some(built) = self.blocks.build(vrf, chunk, long, covering) {
                self.built.push(built);
                continue;
            }
            for (number, built) in self.built.drain(..).enumerate() {
                let (.., long, _) = self.routes.dirty_at(number);
                self.blocks.discard(built, long.map_or(0, |chunk| chunk.changed));
            }
            return Err(self.full());
        }
        for (number, new) in self.built.drain(..).enumerate() {
            let (vrf, chunk, old_block, changed) = self.routes.built(number, new.block, new.covering);
            self.blocks.publish(vrf, chunk, new.entry, old_block, changed);
        }
        self.routes.settle();
        Ok(())
    }

    fn roll_back(&mut self) {
        // Backwards: a prefix that was changed twice gets the value from before both.
        for change in self.undo.drain(..).rev() {
            self.routes.set(change.vrf, change.prefix, change.value);
        }
        self.routes.forget();
    }

    fn full(&self) -> TableError {
        let Blocks { arena, refused_bytes, .. } = &self.blocks;
        TableError::Full {
            needed_bytes: *refused_bytes,
            free_bytes: arena.free_bytes(),
            retired_bytes: arena.retired_bytes(),
            limit_bytes: arena.limit_bytes(),
        }
    }
}

/// The part of the table that additions leave to removals.
const SPARE: usize = 16;
