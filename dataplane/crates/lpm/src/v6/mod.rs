//! IPv6: one entry for each /24, and below it lines of 64 octets that are searched at once.
//!
//! ```text
//!  direct[vrf][first 24 bits] ─► entry: where a line is, and what
//!
//!  leaf   8 keys, u32                        │ 9 values, u16 │ - │ 3 children, u32
//!  node   16 keys, u32                       │ 17 leaves behind it
//!  array  2^s entries, u32, 1 <= s <= 8
//!  host   3 keys, u128            │ 4 values, u16 │ -
//! ```
//!
//! Below an entry, addresses are intervals with the same answer. A key is the last address of an
//! interval: in leaves and nodes the 32 bits below the depth that the walk has come to, in a host
//! line all of it. The interval of an address has the number of keys below it, so that a line is
//! searched by comparing all of its keys at once, without a branch. Where an interval ends within
//! the 32 bits of a key, the value is the number of a child, one line for the addresses with these
//! bits, 32 bits deeper. With at most four intervals, however deep, the child is a host line, and
//! so a /128 costs one line.
//!
//! Up to 9 intervals are a leaf, up to 153 a node and its leaves, and more are split by an array.
//! Untouched entries are zero and point to the leaf in the memory's margin, all of whose values
//! are zero; entries of one value share a leaf of it.
//!
//! A change builds the lines below the entry that it touches anew, the entry of a /24 or of an
//! array, and switches them by one store of it.

mod build;
mod reader;
mod region;
mod routes;
mod writer;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32};

use sys::Pages;

use crate::Value;
use crate::arena::{Block, Memory};

pub use reader::Reader6;
pub use writer::Writer6;

/// What readers and the writer share.
#[derive(Debug)]
struct Table {
    /// For each VRF, and for one more that stays empty, an entry for each /24.
    direct: Pages,
    /// The value of each VRF's /0, or zero; the last is of the empty VRF.
    defaults: Box<[AtomicU16]>,
    memory: Memory,
}

impl Table {
    fn reserve(vrfs: u16, memory: Memory) -> Option<Self> {
        // Where a line is, an entry says in octets.
        u32::try_from(memory.as_u32().len() * size_of::<u32>()).ok()?;
        let all = usize::from(vrfs) + 1;
        Some(Self {
            direct: Pages::reserve(all * SLOTS * size_of::<AtomicU32>()).ok()?,
            defaults: (0..all).map(|_| AtomicU16::new(0)).collect(),
            memory,
        })
    }

    fn set_default(&self, vrf: u16, value: Option<Value>) {
        self.defaults[usize::from(vrf)].store(value.map_or(0, Value::as_u16), Release);
    }

    fn entry(&self, vrf: u16, slot: u32) -> &AtomicU32 {
        &self.direct.as_u32()[usize::from(vrf) * SLOTS + slot as usize]
    }

    /// Those from the first to the last /24.
    fn entries(&self, vrf: u16, first: u32, last: u32) -> &[AtomicU32] {
        &self.direct.as_u32()[usize::from(vrf) * SLOTS..][first as usize..=last as usize]
    }

    /// The words of a block.
    fn words(&self, block: Block) -> &[AtomicU32] {
        &self.memory.as_u32()[block.word as usize * 2..][..block.size.bytes() / 4]
    }

    /// The value that all addresses below an entry have which points to a leaf of one value.
    fn constant(&self, entry: u32) -> u16 {
        debug_assert_eq!(entry & TAG, LEAF);
        self.memory.as_u32()[(entry & LINE) as usize / 4 + LEAF_KEYS].load(Relaxed) as u16
    }
}

/// The 32 bits of an address below a depth, zeros after the last.
#[inline(always)]
fn key(address: u128, depth: u32) -> u32 {
    (address.wrapping_shl(depth) >> 96) as u32
}

/// /24s in a VRF.
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 24;
/// Bits of an address below a /24.
const SLOT_SHIFT: u32 = 128 - SLOT_BITS;

/// What an entry points to: the lowest two bits. Above them, of an array, the bits of its index.
const TAG: u32 = 3;
const LEAF: u32 = 0;
const NODE: u32 = 1;
const ARRAY: u32 = 2;
const HOST: u32 = 3;
const STRIDE_SHIFT: u32 = 2;
const MOST_STRIDE: u32 = 8;
/// The most entries of an array.
const CELLS: usize = 1 << MOST_STRIDE;
/// Where the line is, in octets from the beginning of the memory.
const LINE: u32 = !63;

const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / 4;
/// Keys are stored less 2^31, because CPUs compare signed numbers faster.
const BIAS: u32 = 1 << 31;
/// The key of no interval: no address is above it.
const NO_KEY: u32 = u32::MAX ^ BIAS;
const LEAF_KEYS: usize = 8;
const NODE_KEYS: usize = 16;
/// In a leaf: the first value, in 16 bits, and the first child, in 32.
const LEAF_VALUES: usize = 16;
const LEAF_CHILDREN: usize = 13;
const LEAF_MOST_CHILDREN: usize = 3;
/// Set in a value that is the number of a child.
const CHILD: u16 = 1 << 15;
const HOST_KEYS: usize = 3;
/// In a host line: the first value, in 16 bits.
const HOST_VALUES: usize = 24;
