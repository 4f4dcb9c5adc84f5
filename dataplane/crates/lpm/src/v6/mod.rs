//! IPv6: one entry for each /24, and below it whatever tells the routes there apart soonest.
//!
//! ```text
//!  direct[vrf][first 24 bits] ─► one of
//!
//!  leaf   line: 8 keys of 32 bits, 9 values of 16, 3 entries of 32
//!                                  └ with CHILD: which of the entries goes on, 32 bits further down
//!  node   line of 16 keys, and behind it up to 17 leaves
//!  array  256 entries, indexed by the next octet; neighbours may share a leaf
//!  host   line: 3 addresses of 128 bits, 4 values
//! ```
//!
//! Keys, and addresses in a host line, are where an interval of equal answers ends and the next
//! begins; the number of those below an address, which one or two vector compares give, is the
//! index of its value. A key is 32 bits of the address from the octet on that the entry names, so
//! that nothing but the entry says how deep a lookup is. A host line compares whole addresses: a
//! /128 takes one line more, wherever it is. Entries with one value for all their addresses point
//! to a line that all such entries share. Zero points into the memory's margin, whose zeros read
//! as a leaf without any value.
//!
//! Routes of up to 8 bits are in none of this, for their entries would take megabytes: the answer
//! to an address without longer match is in a table of 256, or the default route's.
//!
//! Arrays are changed in place, an entry at a time. All else is built anew for the few entries
//! that a change concerns, and shown to readers by a store to each of those.

mod build;
mod reader;
mod rib;
mod search;
mod shape;
mod sketch;
mod writer;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use sys::Pages;

use crate::arena::{Block, Memory};
use crate::defaults::Defaults;

pub use reader::Reader6;
pub use writer::Writer6;

/// What readers and the writer share.
#[derive(Debug)]
struct Table {
    /// For each VRF, and for one more that stays empty, an entry for each slot.
    direct: Pages,
    /// For each of these, a bit for each first octet that an entry was ever under: mostly a few,
    /// so what is under none needs no look into the pages of `direct`.
    octets: Box<[Octets]>,
    /// For each VRF as well, the values of the longest route of 1..=8 bits for each first octet.
    short: Pages,
    /// The value of each VRF's /0, or zero, with [`SHORT`] where `short` is to be asked before;
    /// the last is of the empty VRF.
    defaults: Defaults,
    memory: Memory,
}

impl Table {
    fn reserve(vrfs: u16, memory: Memory) -> Option<Self> {
        let all = usize::from(vrfs) + 1;
        let lines = memory.words().len() / LINE_WORDS;
        if lines > 1 << (u32::BITS - Entry::LINE_SHIFT) {
            return None;
        }
        Some(Self {
            direct: Pages::reserve(all * SLOTS * size_of::<AtomicU32>()).ok()?,
            octets: (0..all).map(|_| Octets::default()).collect(),
            short: Pages::reserve(all * SHORTS * size_of::<AtomicU32>()).ok()?,
            defaults: Defaults::new(all),
            memory,
        })
    }

    fn slot(&self, vrf: u16, slot: u32) -> &AtomicU32 {
        &self.direct.as_u32()[usize::from(vrf) * SLOTS + slot as usize]
    }

    /// Before an entry of a slot is shown.
    fn mark_octet(&self, vrf: u16, slot: u32) {
        let octet = slot >> (8 * (DIRECT - 1));
        let bits = &self.octets[usize::from(vrf)][octet as usize / 64];
        // Nobody else writes.
        bits.store(bits.load(Relaxed) | 1 << (octet % 64), Release);
    }

    fn shorts(&self, vrf: u16) -> &[AtomicU32] {
        &self.short.as_u32()[usize::from(vrf) * SHORTS..][..SHORTS]
    }

    /// The 16 words of 32 bits of a line.
    fn line(&self, line: usize) -> &[AtomicU32; LINE_HALVES] {
        let halves = self.memory.as_u32();
        (&halves[line * LINE_HALVES..][..LINE_HALVES]).try_into().expect("as many as asked for")
    }

    /// The entries of an array.
    fn array(&self, block: Block) -> &[AtomicU32] {
        &self.memory.as_u32()[block.word as usize * 2..][..FAN]
    }
}

/// A bit for each octet.
type Octets = [AtomicU64; 256 / 64];

/// Where a lookup goes on: the number of a line, and how to read what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

impl Entry {
    /// Kinds. Bit 0 alone and bit 1 alone are what a batch gathers in lists.
    const LEAF: u32 = 0;
    const NODE: u32 = 1;
    const ARRAY: u32 = 2;
    const HOST: u32 = 3;
    const LINE_SHIFT: u32 = 6;
    /// No route at all.
    const NONE: Self = Self(0);

    /// Of a leaf or node, `octet` is the first of the four in its keys, 0..=12; of an array, the
    /// one that is its index, 0..=15.
    fn new(kind: u32, block: Block, octet: u8) -> Self {
        let last = if kind == Self::ARRAY { 15 } else { LAST_KEY };
        let line = block.word / LINE_WORDS as u32;
        Self(line << Self::LINE_SHIFT | u32::from(last - octet) << 2 | kind)
    }

    #[inline(always)]
    fn kind(self) -> u32 {
        self.0 & 3
    }

    #[inline(always)]
    fn line(self) -> usize {
        (self.0 >> Self::LINE_SHIFT) as usize
    }

    /// Octets of the address below those that it is about.
    #[inline(always)]
    fn below(self) -> usize {
        (self.0 >> 2) as usize & 15
    }

    /// The leaf with this number behind a node's keys.
    #[inline(always)]
    fn leaf(self, number: usize) -> Self {
        Self((self.0 - Self::NODE).wrapping_add((number as u32 + 1) << Self::LINE_SHIFT))
    }
}

/// Octets of an address that the direct table has an entry for. With fewer, the interpreter that
/// looks for undefined behaviour has memory for a test.
const DIRECT: u8 = if cfg!(miri) { 2 } else { 3 };
/// Bits of an address below those.
const SLOT_SHIFT: u32 = 128 - 8 * DIRECT as u32;
/// Entries of a VRF.
const SLOTS: usize = 1 << (8 * DIRECT);
/// Routes of so many bits are left out of the entries.
const SHORT_LEN: u8 = 8;
/// First octets of an address.
const SHORTS: usize = 1 << SHORT_LEN;
/// Set in a default where there are such routes.
const SHORT: u16 = 1 << 15;
/// Entries of an array.
const FAN: usize = 256;
/// The last octet that four can begin at.
const LAST_KEY: u8 = 12;

const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / size_of::<AtomicU64>();
const LINE_HALVES: usize = LINE_BYTES / size_of::<AtomicU32>();
/// Keys of a leaf, of which a value more; and where values are, in 16 bits and in 32.
const LEAF_KEYS: usize = 8;
const LEAF_VALUES: usize = LEAF_KEYS + 1;
const VALUES: usize = 2 * VALUE_WORDS;
const VALUE_WORDS: usize = LEAF_KEYS;
/// Where the entries of children are, in 32 bits.
const CHILDREN: usize = 13;
const LEAF_CHILDREN: usize = LINE_HALVES - CHILDREN;
/// Set in a value that is the number of a child.
const CHILD: u16 = 1 << 15;
const NODE_KEYS: usize = LINE_HALVES;
const NODE_LEAVES: usize = NODE_KEYS + 1;
/// Addresses in a host line, each as two words, the high one first; then come the values.
const HOST_KEYS: usize = 3;
const HOST_VALUES: usize = 2 * HOST_KEYS;

/// The octet of an address at that position, counted from the most significant, 0..16.
#[inline]
fn octet_of(address: u128, position: u8) -> u8 {
    // One load of one octet, where a shift of 128 bits takes six instructions.
    address.to_le_bytes()[usize::from(15 - position) % 16]
}

/// A key as it is kept: the last of the interval before, so that one that is larger is behind it,
/// and as a signed number, which is what vector units compare. All ones, as an unused key is,
/// stay all ones in this order: nothing is larger.
fn kept_key(first: u32) -> u32 {
    debug_assert!(first > 0, "nothing is before it");
    biased(first - 1)
}

/// Unsigned order as signed order.
#[inline(always)]
const fn biased(key: u32) -> u32 {
    key ^ 1 << 31
}

const UNUSED_KEY: u32 = biased(u32::MAX);

#[cfg(test)]
mod tests;
