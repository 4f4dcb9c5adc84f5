//! The routes of all VRFs: those of up to 24 bits by themselves, the others by /24.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::region::Region;
use super::*;
use crate::{Address, Prefix6};

#[derive(Debug)]
pub(super) struct Vrf {
    pub count: usize,
    pub default: u16,
    /// Prefixes of 1..=24 bits: the first 24 bits of the address and the length.
    pub short: BTreeMap<(u32, u8), u16>,
    /// By the first 14 bits: /24s with longer routes.
    pages: BTreeMap<u32, Box<[Option<Box<Region>>; PAGE_SLOTS]>>,
    /// One bit for each page of entries that was ever written.
    written: Box<[u64; PAGES / 64]>,
}

impl Vrf {
    pub fn new() -> Self {
        Self {
            count: 0,
            default: 0,
            short: BTreeMap::new(),
            pages: BTreeMap::new(),
            written: Box::new([0; PAGES / 64]),
        }
    }

    pub fn value(&self, prefix: Prefix6) -> u16 {
        match prefix.len() {
            0 => self.default,
            1..=SLOT_LEN => self.short.get(&short_key(prefix)).copied().unwrap_or(0),
            _ => self.region(slot(prefix.address())).map_or(0, |region| region.value(SLOT_BITS, prefix)),
        }
    }

    pub fn region(&self, slot: u32) -> Option<&Region> {
        self.pages.get(&(slot / PAGE_SLOTS as u32))?[slot as usize % PAGE_SLOTS].as_deref()
    }

    pub fn region_mut(&mut self, slot: u32) -> Option<&mut Region> {
        self.place(slot)?.as_deref_mut()
    }

    /// Where the region of a /24 is, if there is one.
    pub fn place(&mut self, slot: u32) -> Option<&mut Option<Box<Region>>> {
        Some(&mut self.pages.get_mut(&(slot / PAGE_SLOTS as u32))?[slot as usize % PAGE_SLOTS])
    }

    /// Sets a route; returns the value it had, and whether its region became dirty by it.
    pub fn set(&mut self, table: &Table, vrf: u16, prefix: Prefix6, new: u16) -> (u16, bool) {
        let (old, is_dirty) = match prefix.len() {
            0 => (std::mem::replace(&mut self.default, new), false),
            1..=SLOT_LEN if new == 0 => (self.short.remove(&short_key(prefix)).unwrap_or(0), false),
            1..=SLOT_LEN => (self.short.insert(short_key(prefix), new).unwrap_or(0), false),
            _ => {
                let slot = slot(prefix.address());
                if new == 0 && self.region(slot).is_none() {
                    return (0, false);
                }
                let page = self.pages.entry(slot / PAGE_SLOTS as u32);
                let page = page.or_insert_with(|| Box::new([const { None }; PAGE_SLOTS]));
                let region = page[slot as usize % PAGE_SLOTS].get_or_insert_with(|| {
                    let entry = table.entry(vrf, slot).load(Relaxed);
                    Box::new(Region::empty(entry, table.constant(entry)))
                });
                let was_dirty = region.is_dirty();
                let old = region.set(table, SLOT_BITS, prefix, new);
                (old, region.is_dirty() && !was_dirty)
            }
        };
        self.count += usize::from(new != 0);
        self.count -= usize::from(old != 0);
        (old, is_dirty)
    }

    /// The value of the longest route that holds a prefix of up to 24 bits, the default apart, or
    /// zero.
    pub fn cover(&self, prefix: Prefix6) -> u16 {
        let lens = (1..=prefix.len()).rev();
        lens.filter_map(|len| self.short.get(&short_key(prefix.shortened(len)))).next().copied().unwrap_or(0)
    }

    /// The /24s of a prefix of up to 24 bits that no longer one of these holds: first and last of
    /// each range.
    pub fn uncovered(&self, prefix: Prefix6) -> Vec<(u32, u32)> {
        let (first, len) = short_key(prefix);
        let last = slot(prefix.last());
        let inside = (Bound::Excluded((first, len)), Bound::Included((last, SLOT_LEN)));
        let mut ranges = Vec::new();
        let mut next = first;
        for &(inner, inner_len) in self.short.range(inside).map(|(key, _)| key) {
            if inner < next {
                continue;
            }
            if next < inner {
                ranges.push((next, inner - 1));
            }
            next = inner + (1 << (SLOT_LEN - inner_len));
        }
        if next <= last {
            ranges.push((next, last));
        }
        ranges
    }

    /// The /24s in a range that have regions.
    pub fn regions_in(&self, first: u32, last: u32) -> Vec<u32> {
        let size = PAGE_SLOTS as u32;
        let mut slots = Vec::new();
        for (&page, regions) in self.pages.range(first / size..=last / size) {
            let all = (page * size..).zip(regions.iter());
            let with = all.filter(|(slot, region)| region.is_some() && (first..=last).contains(slot));
            slots.extend(with.map(|(slot, _)| slot));
        }
        slots
    }

    /// The entries from the first to the last are written from now on.
    pub fn write(&mut self, first: u32, last: u32) {
        for page in first as usize / PAGE_SLOTS..=last as usize / PAGE_SLOTS {
            self.written[page / 64] |= 1 << (page % 64);
        }
    }

    /// Octets of entries that were ever written.
    pub fn written_bytes(&self) -> usize {
        let pages: u32 = self.written.iter().map(|pages| pages.count_ones()).sum();
        pages as usize * PAGE_SLOTS * size_of::<AtomicU32>()
    }

    /// The /24s whose entry may have been written.
    pub fn written_slots(&self) -> impl Iterator<Item = u32> {
        let is_written = |page: &usize| self.written[page / 64] >> (page % 64) & 1 != 0;
        (0..PAGES)
            .filter(is_written)
            .flat_map(|page| (page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS).map(|slot| slot as u32))
    }
}

pub(super) fn slot(address: u128) -> u32 {
    (address >> SLOT_SHIFT) as u32
}

/// The last address of a /24.
pub(super) fn slot_end(slot: u32) -> u128 {
    (u128::from(slot) << SLOT_SHIFT).last(SLOT_LEN)
}

fn short_key(prefix: Prefix6) -> (u32, u8) {
    (slot(prefix.address()), prefix.len())
}

/// /24s whose entries are a page of memory.
const PAGE_SLOTS: usize = 1 << 10;
const PAGES: usize = SLOTS / PAGE_SLOTS;
pub(super) const SLOT_LEN: u8 = SLOT_BITS as u8;
