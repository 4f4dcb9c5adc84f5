//! The one place that changes an IPv6 table.

use std::sync::Arc;

use super::build::Blocks;
use super::region::{Full, Scratch};
use super::routes::{SLOT_LEN, Vrf, slot, slot_end};
use super::*;
use crate::arena::Arena;
use crate::{Change, Limits, Mark, Prefix6, TableError, Usage, Value};

/// An IPv6 table's writing side. There is one for each table.
#[derive(Debug)]
pub struct Writer6 {
    vrfs: Box<[Option<Box<Vrf>>]>,
    blocks: Blocks,
    prefixes: usize,
    /// Of the change under way: empty between changes, kept for their memory.
    undo: Vec<Change<u128>>,
    /// The /24s to rebuild, each once, and the prefixes of up to 24 bits that changed.
    dirty: Vec<(u16, u32)>,
    short: Vec<(u16, Prefix6)>,
    spans: Vec<Span>,
    scratch: Scratch,
}

/// The /24s from the first to the last of a VRF, none of which has longer routes, get an entry.
#[derive(Clone, Copy, Debug)]
struct Span {
    vrf: u16,
    first: u32,
    last: u32,
    entry: u32,
}

impl Writer6 {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`TableError::NoMemory`].
    pub fn new(limits: Limits) -> Result<Self, TableError> {
        let refused = TableError::NoMemory { bytes: limits.bytes, vrfs: limits.vrfs };
        let (arena, memory) = Arena::new(limits.bytes).ok_or(refused)?;
        let table = Table::reserve(limits.vrfs, memory).ok_or(refused)?;
        Ok(Self {
            vrfs: (0..limits.vrfs).map(|_| None).collect(),
            blocks: Blocks::new(Arc::new(table), arena),
            prefixes: 0,
            undo: Vec::new(),
            dirty: Vec::new(),
            short: Vec::new(),
            spans: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// A reading side of this table.
    pub fn reader(&self) -> Reader6 {
        Reader6::new(Arc::clone(&self.blocks.table))
    }

    /// Sets the value of a prefix, and returns the one it had.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchVrf`] and [`TableError::Full`]; nothing has changed then.
    pub fn insert(&mut self, vrf: u16, prefix: Prefix6, value: Value) -> Result<Option<Value>, TableError> {
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
        if self.vrf(vrf).is_none() {
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
        for change in changes {
            match self.set(change.vrf, change.prefix, change.value) {
                Ok(old) => self.undo.push(Change { value: old, ..change }),
                Err(error) => {
                    self.roll_back();
                    return Err(error);
                }
            }
        }
        self.blocks.spare_bytes = self.blocks.arena.limit_bytes() / SPARE;
        self.commit()
    }

    /// Takes all prefixes of a VRF out, and returns how many there were.
    ///
    /// The VRF can be used again at once; its number stands for another VRF only after the
    /// readers have passed.
    pub fn remove_vrf(&mut self, vrf: u16) -> usize {
        let Some(mut routes) = self.vrfs.get_mut(usize::from(vrf)).and_then(Option::take) else {
            return 0;
        };
        // Before the rest: an address must not fall to a default route that goes too.
        self.blocks.table.set_default(vrf, None);
        let table = Arc::clone(&self.blocks.table);
        let slots: Vec<u32> = routes.written_slots().collect();
        for slot in slots {
            let entry = table.entry(vrf, slot);
            let old = entry.load(Relaxed);
            if old != 0 {
                entry.store(0, Release);
            }
            match routes.place(slot).and_then(Option::take) {
                Some(region) => region.end(&mut self.blocks, Arena::retire),
                None => self.blocks.release(old, 1, Arena::retire),
            }
        }
        self.prefixes -= routes.count;
        routes.count
    }

    /// The value of exactly this prefix.
    pub fn value(&self, vrf: u16, prefix: Prefix6) -> Option<Value> {
        Value::in_entry(u32::from(self.vrf(vrf)?.value(prefix)))
    }

    /// How many prefixes a VRF has.
    pub fn prefixes(&self, vrf: u16) -> usize {
        self.vrf(vrf).map_or(0, |routes| routes.count)
    }

    /// A mark that covers everything taken out of the table so far. Give it to
    /// [`Writer6::reclaim`] when every reader has finished the lookup or batch that it was in
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
                + self.vrfs.iter().flatten().map(|vrf| vrf.written_bytes()).sum::<usize>()
                + size_of_val(&*table.defaults),
        }
    }

    fn vrf(&self, vrf: u16) -> Option<&Vrf> {
        self.vrfs.get(usize::from(vrf))?.as_deref()
    }

    fn change(&mut self, vrf: u16, prefix: Prefix6, value: Option<Value>) -> Result<Option<Value>, TableError> {
        let old = self.set(vrf, prefix, value)?;
        self.undo.push(Change { vrf, prefix, value: old });
        self.blocks.spare_bytes = if value.is_some() { self.blocks.arena.limit_bytes() / SPARE } else { 0 };
        self.commit()?;
        Ok(old)
    }

    /// Changes a route, but nothing that readers see.
    fn set(&mut self, vrf: u16, prefix: Prefix6, value: Option<Value>) -> Result<Option<Value>, TableError> {
        let vrfs = self.vrfs.len() as u16;
        let routes = match self.vrfs.get_mut(usize::from(vrf)) {
            Some(Some(routes)) => routes,
            Some(None) if value.is_none() => return Ok(None),
            Some(empty) => empty.insert(Box::new(Vrf::new())),
            None => return Err(TableError::NoSuchVrf { vrf, vrfs }),
        };
        let new = value.map_or(0, Value::as_u16);
        let (old, is_dirty) = routes.set(&self.blocks.table, vrf, prefix, new);
        if is_dirty {
            self.dirty.push((vrf, slot(prefix.address())));
        }
        if old != new && (1..=SLOT_LEN).contains(&prefix.len()) {
            self.short.push((vrf, prefix));
        }
        self.prefixes += usize::from(new != 0);
        self.prefixes -= usize::from(old != 0);
        Ok(Value::in_entry(u32::from(old)))
    }

    /// Builds all that changed, and only when all of it is there, shows it to readers.
    fn commit(&mut self) -> Result<(), TableError> {
        if self.build().is_err() {
            let Blocks { arena, refused_bytes, .. } = &self.blocks;
            let full = TableError::Full {
                needed_bytes: *refused_bytes,
                free_bytes: arena.free_bytes(),
                retired_bytes: arena.retired_bytes(),
                limit_bytes: arena.limit_bytes(),
            };
            self.roll_back();
            return Err(full);
        }
        self.publish();
        for change in self.undo.drain(..) {
            if change.prefix.len() == 0 {
                let default = self.vrfs[usize::from(change.vrf)].as_ref().map_or(0, |routes| routes.default);
                self.blocks.table.set_default(change.vrf, Value::in_entry(u32::from(default)));
            }
        }
        Ok(())
    }

    fn build(&mut self) -> Result<(), Full> {
        for &(vrf, prefix) in &self.short {
            let routes = self.vrfs[usize::from(vrf)].as_mut().expect("a route of it changed");
            let cover = routes.cover(prefix);
            for (mut first, last) in routes.uncovered(prefix) {
                for slot in routes.regions_in(first, last) {
                    let region = routes.region_mut(slot).expect("it was found");
                    if !region.is_dirty() {
                        self.dirty.push((vrf, slot));
                    }
                    region.touch(cover);
                    if first < slot {
                        let entry = self.blocks.constant(cover, slot - first).ok_or(Full)?;
                        self.spans.push(Span { vrf, first, last: slot - 1, entry });
                    }
                    first = slot + 1;
                }
                if first <= last {
                    let entry = self.blocks.constant(cover, last - first + 1).ok_or(Full)?;
                    self.spans.push(Span { vrf, first, last, entry });
                }
            }
        }
        for &(vrf, slot) in &self.dirty {
            let region = self.vrfs[usize::from(vrf)].as_mut().and_then(|routes| routes.region_mut(slot));
            let region = region.expect("what is dirty is a region");
            region.rebuild(&mut self.blocks, &mut self.scratch, SLOT_BITS, slot_end(slot))?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        self.short.clear();
        let table = Arc::clone(&self.blocks.table);
        for Span { vrf, first, last, entry } in self.spans.drain(..) {
            let routes = self.vrfs[usize::from(vrf)].as_mut().expect("a route of it changed");
            routes.write(first, last);
            // Neighbours mostly had the same, and a /1 has 2^23 of them.
            let (mut old, mut users) = (0, 0);
            for place in table.entries(vrf, first, last) {
                let held = place.load(Relaxed);
                place.store(entry, Release);
                if held != old {
                    self.blocks.release(old, users, Arena::retire);
                    (old, users) = (held, 0);
                }
                users += 1;
            }
            self.blocks.release(old, users, Arena::retire);
        }
        for (vrf, slot) in self.dirty.drain(..) {
            let routes = self.vrfs[usize::from(vrf)].as_mut().expect("a route of it changed");
            routes.write(slot, slot);
            let place = routes.place(slot).expect("what is dirty is a region");
            let region = place.as_mut().expect("as above");
            region.publish(&mut self.blocks, table.entry(vrf, slot));
            if region.count() == 0 {
                *place = None;
            }
        }
    }

    fn roll_back(&mut self) {
        for Span { first, last, entry, .. } in std::mem::take(&mut self.spans) {
            self.blocks.release(entry, last - first + 1, Arena::give);
        }
        // Backwards: a prefix that was changed twice gets the value from before both.
        while let Some(change) = self.undo.pop() {
            self.set(change.vrf, change.prefix, change.value).expect("it was a VRF of the table");
        }
        self.short.clear();
        for (vrf, slot) in self.dirty.drain(..) {
            let region = self.vrfs[usize::from(vrf)].as_mut().and_then(|routes| routes.region_mut(slot));
            region.expect("what is dirty is a region").forget(&mut self.blocks);
        }
    }
}

/// The part of the table that additions leave to removals.
const SPARE: usize = 16;
