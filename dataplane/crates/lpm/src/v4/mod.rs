//! IPv4: one entry for each /18, and below it runs of equal values.
//!
//! ```text
//!  direct[vrf][first 18 bits] ─► block of the /18: 64 slots, a /24 each
//!      deep offsets, u32 ... │ run ends, u64 │ values of the runs, u16, the last run's first
//!                  ▲         └ the entry points here       │
//!                  └───── number of a deep offset ◄────────┤ with DEEP
//!      block of the /24: 256 slots, an address each        └─► value, or 0: none but the
//!      run ends, 4 u64 │ counts behind each, 4 u8 │ values     default route's
//! ```
//!
//! A run is a sequence of slots with the same answer, so that a table takes about 3 octets for
//! each route, and the run of a slot, counted from the last, is the number of run ends from it on:
//! one shift and one `popcnt`. All answers of up to 24 bits take exactly two loads that may miss the cache, the
//! entry and the block, and no branch depends on the address. An /18 without longer routes points
//! to a block of one run, which all /18s with the same value share; untouched entries are zero
//! and point into the memory's margin, whose zeros read as a block without any run.
//!
//! A change builds the blocks of the /18s that it touches anew (deep blocks that it does not
//! touch stay in use) and switches each by one store of its entry.

mod build;
mod reader;
mod rib;
mod writer;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use sys::Pages;

use crate::Value;
use crate::arena::Memory;
use crate::defaults::Defaults;

pub use reader::Reader4;
pub use writer::Writer4;

/// What readers and the writer share.
#[derive(Debug)]
struct Table {
    /// For each VRF, and for one more that stays empty, an entry for each /18.
    direct: Pages,
    /// The value of each VRF's /0, or zero; the last is of the empty VRF.
    defaults: Defaults,
    memory: Memory,
}

impl Table {
    fn reserve(vrfs: u16, memory: Memory) -> Option<Self> {
        let all = usize::from(vrfs) + 1;
        Some(Self {
            direct: Pages::reserve(all * CHUNKS * size_of::<AtomicU32>()).ok()?,
            defaults: Defaults::new(all),
            memory,
        })
    }

    fn set_default(&self, vrf: u16, value: Option<Value>) {
        self.defaults.set(vrf, value.map_or(0, Value::as_u16));
    }

    fn entry(&self, vrf: u16, chunk: u32) -> &AtomicU32 {
        &self.direct.as_u32()[usize::from(vrf) * CHUNKS + chunk as usize]
    }

    /// The block that an entry points to.
    fn block(&self, entry: u32) -> View<'_> {
        View { words: self.memory.words(), at: entry as usize }
    }
}

/// A block of an /18, as the writer reads it.
#[derive(Clone, Copy)]
struct View<'t> {
    words: &'t [AtomicU64],
    /// The word with the run ends.
    at: usize,
}

impl View<'_> {
    fn ends(self) -> u64 {
        self.words[self.at].load(Relaxed)
    }

    /// The value of the run with this number, from the last, perhaps with [`DEEP`].
    fn run(self, run: usize) -> u16 {
        (self.words[self.at + 1 + run / 4].load(Relaxed) >> (run % 4 * 16)) as u16
    }

    /// The value of a slot, 0..64.
    fn slot(self, slot: u32) -> u16 {
        self.run((self.ends() >> slot).count_ones() as usize - 1)
    }

    /// Where the deep block is that a value with [`DEEP`] stands for.
    fn deep(self, value: u16) -> u32 {
        let number = usize::from(value & !DEEP);
        (self.words[self.at - 1 - number / 2].load(Relaxed) >> (number % 2 * 32)) as u32
    }
}

/// /18s in a VRF.
const CHUNKS: usize = 1 << 18;
/// Bits of an address below an /18.
const CHUNK_SHIFT: u32 = 14;
/// Set in a value that is the number of a deep offset.
const DEEP: u16 = 1 << 15;
/// In a deep block: where the counts are, in words, and where values begin, in 16 bits.
const DEEP_COUNTS: usize = 4;
const DEEP_VALUES: usize = 18;
/// Octets before the values of a deep block.
const DEEP_HEAD_BYTES: usize = DEEP_VALUES * 2;
