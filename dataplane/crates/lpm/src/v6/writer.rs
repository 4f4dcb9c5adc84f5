//! The one place that changes an IPv6 table.

use std::sync::Arc;

use super::build::Blocks;
use super::rib::Routes;
use super::shape::Tree;
use super::*;
use crate::arena::Arena;
use crate::{Change, Limits, Mark, Prefix6, TableError, Usage, Value};

/// An IPv6 table's writing side. There is one for each table.
#[derive(Debug)]
pub struct Writer6 {
    tree: Tree,
    vrfs: u16,
    prefixes: usize,
    /// Of the change under way: empty between changes, kept for its memory.
    undo: Vec<Change<u128>>,
}

impl Writer6 {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`TableError::NoMemory`]; also for more than 4 GiB.
    pub fn new(limits: Limits) -> Result<Self, TableError> {
        let refused = TableError::NoMemory { bytes: limits.bytes, vrfs: limits.vrfs };
        let (arena, memory) = Arena::new(limits.bytes).ok_or(refused)?;
        let table = Table::reserve(limits.vrfs, memory).ok_or(refused)?;
        let tree = Tree::new(Routes::new(limits.vrfs), Blocks::new(Arc::new(table), arena));
        Ok(Self { tree, vrfs: limits.vrfs, prefixes: 0, undo: Vec::new() })
    }

    /// A reading side of this table.
    pub fn reader(&self) -> Reader6 {
        Reader6::new(Arc::clone(&self.tree.blocks.table))
    }

    /// Sets the value of a prefix, and returns the one it had.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchVrf`] and [`TableError::Full`]; nothing has changed then.
    pub fn insert(&mut self, vrf: u16, prefix: Prefix6, value: Value) -> Result<Option<Value>, TableError> {
        if !self.tree.routes.has(vrf) {
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
    /// [`Writer6::reclaim`].
    pub fn remove(&mut self, vrf: u16, prefix: Prefix6) -> Result<Option<Value>, TableError> {
        if !self.tree.routes.has(vrf) {
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
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change<u128>>) -> Result<(), TableError> {
        let mut changes: Vec<_> = changes.into_iter().collect();
        // Neighbours together; of two of the same prefix, the later one stays later.
        changes.sort_by_key(|change| (change.vrf, change.prefix.address(), change.prefix.len()));
        self.undo.clear();
        for change in changes {
            if !self.tree.routes.has(change.vrf) {
                self.roll_back();
                return Err(TableError::NoSuchVrf { vrf: change.vrf, vrfs: self.vrfs });
            }
            let old = self.tree.routes.set(change.vrf, change.prefix, change.value);
            self.undo.push(Change { value: old, ..change });
        }
        self.tree.blocks.spare_bytes = self.tree.blocks.arena.limit_bytes() / SPARE;
        if self.tree.stage().is_err() {
            self.roll_back();
            return Err(self.full());
        }
        self.commit();
        self.prefixes = self.tree.routes.total();
        Ok(())
    }

    /// Takes all prefixes of a VRF out, and returns how many there were.
    ///
    /// The VRF can be used again at once; its number stands for another VRF only after the
    /// readers have passed.
    pub fn remove_vrf(&mut self, vrf: u16) -> usize {
        let table = Arc::clone(&self.tree.blocks.table);
        if vrf < self.vrfs {
            // Before the rest: an address must not fall to a default route that goes too.
            let had_shorts = table.defaults.bits(vrf) & SHORT != 0;
            table.defaults.set(vrf, 0);
            if had_shorts {
                for short in table.shorts(vrf) {
                    short.store(0, Release);
                }
            }
        }
        let count = self.tree.clear(vrf);
        self.prefixes -= count;
        count
    }

    /// The value of exactly this prefix.
    pub fn value(&self, vrf: u16, prefix: Prefix6) -> Option<Value> {
        self.tree.routes.value(vrf, prefix)
    }

    /// How many prefixes a VRF has.
    pub fn prefixes(&self, vrf: u16) -> usize {
        self.tree.routes.count(vrf)
    }

    /// A mark that covers everything taken out of the table so far. Give it to
    /// [`Writer6::reclaim`] when every reader has finished the lookup or batch that it was in
    /// when the mark was made.
    pub fn retire_mark(&mut self) -> Mark {
        self.tree.blocks.arena.mark()
    }

    /// Makes what `mark` and earlier marks cover free again, and returns its octets.
    pub fn reclaim(&mut self, mark: Mark) -> usize {
        self.tree.blocks.arena.reclaim(mark)
    }

    /// What the table holds and takes.
    pub fn usage(&self) -> Usage {
        let Blocks { arena, table, .. } = &self.tree.blocks;
        Usage {
            prefixes: self.prefixes,
            used_bytes: arena.in_use_bytes(),
            retired_bytes: arena.retired_bytes(),
            limit_bytes: arena.limit_bytes(),
            resident_bytes: arena.touched_bytes()
                + self.tree.direct_bytes()
                + size_of_val(table.defaults.all())
                + size_of_val(&*table.octets),
        }
    }

    fn change(&mut self, vrf: u16, prefix: Prefix6, value: Option<Value>) -> Result<Option<Value>, TableError> {
        let old = self.tree.routes.set(vrf, prefix, value);
        let Blocks { arena, spare_bytes, .. } = &mut self.tree.blocks;
        *spare_bytes = if value.is_some() { arena.limit_bytes() / SPARE } else { 0 };
        if self.tree.stage().is_err() {
            self.tree.routes.set(vrf, prefix, old);
            self.tree.routes.forget();
            return Err(self.full());
        }
        self.commit();
        self.prefixes += usize::from(value.is_some());
        self.prefixes -= usize::from(old.is_some());
        Ok(old)
    }

    fn commit(&mut self) {
        self.tree.commit();
        let mut vrfs = std::mem::take(&mut self.tree.routes.dirty_shorts);
        vrfs.dedup();
        for vrf in vrfs.drain(..) {
            self.publish_shorts(vrf);
        }
        self.tree.routes.dirty_shorts = vrfs;
    }

    /// Shows the routes of up to 8 bits: for a default route alone, one store.
    fn publish_shorts(&self, vrf: u16) {
        let table = &self.tree.blocks.table;
        let Some(routes) = self.tree.routes.vrf(vrf) else { return };
        let has_others = routes.has_shorts();
        let bits = table.defaults.bits(vrf);
        if has_others || bits & SHORT != 0 {
            // Readers compare this alone, and it says that the others change.
            table.defaults.set(vrf, bits);
            for (octet, short) in table.shorts(vrf).iter().enumerate() {
                let value = u32::from(routes.short(octet));
                if short.load(Relaxed) != value {
                    short.store(value, Release);
                }
            }
        }
        table.defaults.set(vrf, routes.default() | if has_others { SHORT } else { 0 });
    }

    fn roll_back(&mut self) {
        // Backwards: a prefix that was changed twice gets the value from before both.
        for change in self.undo.drain(..).rev() {
            self.tree.routes.set(change.vrf, change.prefix, change.value);
        }
        self.tree.routes.forget();
    }

    fn full(&self) -> TableError {
        let Blocks { arena, refused_bytes, .. } = &self.tree.blocks;
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
