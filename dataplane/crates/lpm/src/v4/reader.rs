//! The reading side.
#![expect(
    unsafe_code,
    reason = "with checks and words a batch takes a quarter longer, without popcnt two fifths: see `Lookup`, `Level`"
)]

use std::sync::Arc;

use super::*;
use crate::Value;
use crate::arena::MARGIN_WORDS;
use crate::defaults::{read, settled};
use crate::lanes::{Found, GROUP, lanes};

/// An IPv4 table's reading side. Cheap to clone, one for each thread.
#[derive(Clone, Debug)]
pub struct Reader4 {
    table: Arc<Table>,
    level: Level,
}

impl Reader4 {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, level: Level::of_this_cpu() }
    }

    /// The value of the longest prefix of `vrf` that holds `address`; `None` when there is
    /// none, or no such VRF.
    #[inline]
    pub fn lookup(&self, vrf: u16, address: u32) -> Option<Value> {
        self.level.single(Lookup::new(&self.table), vrf, address)
    }

    /// Looks up `addresses[i]` in `vrfs[i]` and writes the answer to `values[i]`, for slices
    /// of any length; multiples of 64 are best. VRFs may be mixed.
    ///
    /// Faster than single lookups: what one waits for from memory overlaps with the others.
    ///
    /// # Panics
    ///
    /// When the slices differ in length: a mistake of the caller.
    #[inline]
    pub fn lookup_batch(&self, vrfs: &[u16], addresses: &[u32], values: &mut [Option<Value>]) {
        assert!(
            vrfs.len() == addresses.len() && values.len() == addresses.len(),
            "a batch has one VRF, one address and one place for a value each"
        );
        self.level.batch(Lookup::new(&self.table), vrfs, addresses, values);
    }
}

/// Which instructions there are: without `popcnt`, a batch takes two fifths longer; with it, a random
/// address of a full table takes 1.2 ns, and with AVX2 too 1.0 (Zen 5). Gathers are no help: each
/// lane of one takes as long as six other instructions (with AVX-512, 1.5 ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What the compiler may use anyway. Counts bits in one instruction on aarch64.
    Portable,
    /// x86-64-v3, which is most from 2013 on: counts bits in one instruction instead of twelve, and puts
    /// what it finds into vectors straight from memory.
    #[cfg(target_arch = "x86_64")]
    V3,
}

impl Level {
    fn of_this_cpu() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("popcnt")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("avx2")
        {
            return Self::V3;
        }
        Self::Portable
    }

    #[inline(always)]
    fn single(self, lookup: Lookup<'_>, vrf: u16, address: u32) -> Option<Value> {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "popcnt,bmi1,bmi2,avx2")]
        fn v3(lookup: Lookup<'_>, vrf: u16, address: u32) -> Option<Value> {
            lookup.single(vrf, address)
        }
        match self {
            Self::Portable => lookup.single(vrf, address),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level says that the CPU has them.
            Self::V3 => unsafe { v3(lookup, vrf, address) },
        }
    }

    #[inline(always)]
    fn batch(self, lookup: Lookup<'_>, vrfs: &[u16], addresses: &[u32], values: &mut [Option<Value>]) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "popcnt,bmi1,bmi2,avx2")]
        fn v3(lookup: Lookup<'_>, vrfs: &[u16], addresses: &[u32], values: &mut [Option<Value>]) {
            lookup.batch(vrfs, addresses, values);
        }
        match self {
            Self::Portable => lookup.batch(vrfs, addresses, values),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level says that the CPU has them.
            Self::V3 => unsafe { v3(lookup, vrfs, addresses, values) },
        }
    }
}

/// A table with what a lookup needs of it at hand.
///
/// Indices are not checked, and values are read as the 16 bits that they are: a random address of
/// a full table takes 1.9 ns in a batch of 64 with checks, 1.75 without, and 1.5 with both (Zen 5).
/// Indices are in bounds whatever readers and writer do:
///
/// * [`Lookup::vrf`] is the index of a default, and there are [`CHUNKS`] entries for each
///   ([`Table::reserve`]).
/// * The writer stores no entries but zero and words of blocks, even when the block has been freed
///   and is part of another since. Up to [`MARGIN_WORDS`] around both there is memory, before
///   zero excepted; and there nobody reads, for the words from zero on stay zero and hold no
///   [`DEEP`].
/// * What a block says may be anything, if it has become part of another. So the word of a deep
///   block is limited to the memory less the margin.
#[derive(Clone, Copy)]
struct Lookup<'t> {
    direct: &'t [AtomicU32],
    words: &'t [AtomicU64],
    defaults: &'t [AtomicU32],
}

impl<'t> Lookup<'t> {
    #[inline(always)]
    fn new(table: &'t Table) -> Self {
        Self { direct: table.direct.as_u32(), words: table.memory.words(), defaults: table.defaults.all() }
    }

    #[inline(always)]
    fn single(self, vrf: u16, address: u32) -> Option<Value> {
        let vrf = self.vrf(vrf);
        settled(
            || self.default(vrf),
            |&default| {
                let entry = entry(self.direct(vrf), address);
                let mut value = self.value(entry, address);
                if value & DEEP != 0 {
                    value = self.deep_value(self.deep(entry, value), address);
                }
                answer(value, default)
            },
        )
    }

    #[inline(always)]
    fn batch(self, vrfs: &[u16], addresses: &[u32], values: &mut [Option<Value>]) {
        let left = self.batches::<64>(vrfs, addresses, values);
        let left = self.batches::<16>(left.0, left.1, left.2);
        for ((&vrf, &address), value) in left.0.iter().zip(left.1).zip(left.2) {
            *value = self.single(vrf, address);
        }
    }

    /// As many batches of `N` as there are; returns what is left.
    #[inline(always)]
    fn batches<'a, const N: usize>(
        self,
        vrfs: &'a [u16],
        addresses: &'a [u32],
        values: &'a mut [Option<Value>],
    ) -> (&'a [u16], &'a [u32], &'a mut [Option<Value>]) {
        let (vrfs, vrfs_left) = vrfs.as_chunks::<N>();
        let (addresses, addresses_left) = addresses.as_chunks::<N>();
        let (values, values_left) = values.as_chunks_mut::<N>();
        for ((vrfs, addresses), values) in vrfs.iter().zip(addresses).zip(values) {
            // Mostly all are in one VRF, and then a part of the work is done once.
            let first = vrfs[0];
            // With `max`, as a few vectors; with `|`, the compiler makes it a chain of comparisons.
            if vrfs.iter().fold(0, |differ, vrf| (vrf ^ first).max(differ)) == 0 {
                let vrf = self.vrf(first);
                let direct = self.direct(vrf);
                let before = self.default(vrf);
                self.resolve(|_| direct, || self.default(vrf), |default, _| *default, addresses, values);
                if self.default(vrf) != before {
                    self.again(vrfs, addresses, values);
                }
            } else {
                let direct = |lane: usize| self.direct(self.vrf(vrfs[lane]));
                let defaults = || vrfs.map(|vrf| self.default(self.vrf(vrf)));
                let before = defaults();
                self.resolve(direct, defaults, |defaults, lane| defaults[lane], addresses, values);
                if defaults() != before {
                    self.again(vrfs, addresses, values);
                }
            }
        }
        (vrfs_left, addresses_left, values_left)
    }

    /// A batch during which a default route changed, one by one: see [`settled`]. As a loop around the batch, which the
    /// compiler then arranges otherwise, it costs each lookup a third more.
    #[cold]
    #[inline(never)]
    fn again<const N: usize>(self, vrfs: &[u16; N], addresses: &[u32; N], values: &mut [Option<Value>; N]) {
        for lane in 0..N {
            values[lane] = self.single(vrfs[lane], addresses[lane]);
        }
    }

    /// A batch in passes: each begins what the next one waits for. `defaults` reads the default
    /// routes, and `default` takes a lane's out of what that read.
    #[inline(always)]
    fn resolve<const N: usize, D>(
        self,
        direct: impl Fn(usize) -> &'t Direct,
        defaults: impl FnOnce() -> D,
        default: impl Fn(&D, usize) -> u32,
        addresses: &[u32; N],
        values: &mut [Option<Value>; N],
    ) {
        const { assert!(N.is_multiple_of(GROUP) && N <= u64::BITS as usize, "whole groups, and a bit for each lane") };
        let mut entries = [0; N];
        for group in (0..N).step_by(GROUP) {
            for lane in group..group + GROUP {
                entries[lane] = entry(direct(lane), addresses[lane]);
                self.prefetch(entries[lane]);
            }
        }
        let defaults = defaults();
        // The lanes whose /24 has longer routes, as a mask, so that no branch asks each. Of these,
        // the values are the numbers of deep offsets for now.
        let mut deep = 0;
        for group in (0..N).step_by(GROUP) {
            let found = Found::of(|at| self.value(entries[group + at], addresses[group + at]));
            let defaults = Found::of(|at| default(&defaults, group + at) as u16);
            deep |= u64::from(found.flags()) << group;
            values[group..group + GROUP].copy_from_slice(&found.or(defaults).values());
        }
        for lane in lanes::<N>(deep) {
            entries[lane] = self.deep(entries[lane], values[lane].map_or(0, Value::as_u16));
            self.prefetch(entries[lane]);
        }
        for lane in lanes::<N>(deep) {
            values[lane] = answer(self.deep_value(entries[lane], addresses[lane]), default(&defaults, lane));
        }
    }

    /// A VRF beyond the table has no routes: it is the empty one at the end.
    #[inline(always)]
    fn vrf(self, vrf: u16) -> usize {
        usize::from(vrf).min(self.defaults.len() - 1)
    }

    /// The entries of a VRF.
    #[inline(always)]
    fn direct(self, vrf: usize) -> &'t Direct {
        debug_assert!((vrf + 1) * CHUNKS <= self.direct.len());
        // SAFETY: the first point above; an array of atomics is as aligned as these are.
        unsafe { &*self.direct.as_ptr().add(vrf * CHUNKS).cast() }
    }

    #[inline(always)]
    fn prefetch(self, word: u32) {
        debug_assert!((word as usize) < self.words.len());
        // SAFETY: an entry or the word of a deep block, which are in bounds themselves.
        sys::prefetch_read(unsafe { self.words.get_unchecked(word as usize) });
    }

    /// What the block of an /18 has for an address: a value, the number of a deep offset, or zero.
    #[inline(always)]
    fn value(self, entry: u32, address: u32) -> u16 {
        // SAFETY: an entry is in bounds: the second point.
        let ends = unsafe { self.plain_word(entry as usize) };
        let runs = (ends >> (address >> 8 & 63)).count_ones();
        // Values begin behind the 4 times 16 bits of the ends, and runs count from one. A block
        // without runs is all zero, and so is the highest part of its ends.
        // SAFETY: at most 64 runs, so less than the margin behind an entry.
        unsafe { self.half(entry as usize * 4 + 3 + runs as usize) }
    }

    /// The word of the deep block that a value with [`DEEP`] stands for.
    #[inline(always)]
    fn deep(self, entry: u32, value: u16) -> u32 {
        let number = usize::from(value & 63);
        // SAFETY: at most 32 words, so less than the margin, before an entry that is not zero.
        let pair = unsafe { self.word(entry as usize - 1 - number / 2) };
        let last = (self.words.len() - MARGIN_WORDS) as u32;
        ((pair >> (number % 2 * 32)) as u32).min(last)
    }

    /// What the deep block at a word, which [`Lookup::deep`] returned, has for an address.
    #[inline(always)]
    fn deep_value(self, word: u32, address: u32) -> u16 {
        let at = word as usize;
        let quarter = (address >> 6 & 3) as usize;
        // SAFETY: the next four words, with the margin behind `word`: the third point.
        let (ends, counts) = unsafe { (self.word(at + quarter), self.word(at + DEEP_COUNTS)) };
        let behind = counts >> (quarter * 8) & 0xff;
        let runs = (ends >> (address & 63)).count_ones();
        // SAFETY: at most 18 + 255 + 64 times 16 bits, so less than the margin.
        unsafe { self.half(at * 4 + DEEP_VALUES - 1 + behind as usize + runs as usize) }
    }

    #[inline(always)]
    fn default(self, vrf: usize) -> u32 {
        // SAFETY: `vrf` is from `Lookup::vrf`: the first point.
        read(unsafe { self.defaults.get_unchecked(vrf) })
    }

    /// # Safety
    ///
    /// The index is below the number of words.
    #[inline(always)]
    unsafe fn word(self, index: usize) -> u64 {
        debug_assert!(index < self.words.len());
        // SAFETY: the caller's promise.
        unsafe { self.words.get_unchecked(index) }.load(Relaxed)
    }

    /// The same where it is of a block, or of the margin: in one instruction with what is done with it, into which the
    /// compiler merges no atomic load.
    ///
    /// # Safety
    ///
    /// As for [`Lookup::word`].
    #[inline(always)]
    unsafe fn plain_word(self, index: usize) -> u64 {
        debug_assert!(index < self.words.len());
        if PLAIN {
            // SAFETY: the caller's promise, and about races, see `PLAIN`.
            unsafe { self.words.as_ptr().cast::<u64>().add(index).read() }
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.word(index) }
        }
    }

    /// The 16 bits at `index` of a block or the margin, counted in such, the lowest of a word first.
    ///
    /// # Safety
    ///
    /// The index is below four times the number of words.
    #[inline(always)]
    unsafe fn half(self, index: usize) -> u16 {
        debug_assert!(index / 4 < self.words.len());
        if cfg!(target_endian = "little") {
            // SAFETY: within the words, by the caller's promise, and aligned.
            let half = unsafe { self.words.as_ptr().cast::<u16>().add(index) };
            if PLAIN {
                // SAFETY: as above, and about races, see `PLAIN`.
                return unsafe { half.read() };
            }
            // SAFETY: as above. Writer and readers share it through atomics only. Their widths
            // differ, which Rust allows where one access happens before the other: a block is
            // written before its entry is released, and written again only after the owner has
            // said that no reader is in it. Where that is not true, the load is still one of
            // aarch64 that gives some 16 bits.
            unsafe { AtomicU16::from_ptr(half.cast_mut()) }.load(Relaxed)
        } else {
            // SAFETY: the caller's promise.
            (unsafe { self.word(index / 4) } >> (index % 4 * 16)) as u16
        }
    }
}

/// Whether what is in blocks is read by plain loads, of memory that is otherwise seen through
/// atomics: a tenth of a batch's time. That is no race: a block is written before the entry that
/// leads to it is released, and again only after the owner has said that no reader is in it. Where
/// that is not true, each is still one instruction that loads some bits.
const PLAIN: bool = cfg!(all(target_arch = "x86_64", not(miri)));

/// The entries of a VRF, one for each /18.
type Direct = [AtomicU32; CHUNKS];

/// Acquire pairs with the writer's release: who sees a block sees what is in it, and in the deep
/// blocks below it.
#[inline(always)]
fn entry(direct: &Direct, address: u32) -> u32 {
    direct[(address >> CHUNK_SHIFT) as usize].load(Acquire)
}

#[inline(always)]
fn answer(value: u16, default: u32) -> Option<Value> {
    Value::in_entry(if value == 0 { default } else { u32::from(value) })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, Prefix4, Writer4};

    proptest! {
        /// In one VRF and in a mix of them, in batches of every length.
        #[test]
        fn every_level_of_instructions_gives_the_same_answers(
            routes in vec((0..2_u16, 0x0a00_0000..0x0a00_8000_u32, 15..=32_u8, 1..=Value::MAX), 0..200),
            default in proptest::option::of(1..=Value::MAX),
            queries in vec((0..3_u16, 0x09ff_ff00..0x0a00_8100_u32), 0..200),
            is_mixed in any::<bool>(),
        ) {
            let mut writer = Writer4::new(Limits { vrfs: 2, bytes: 1 << 20 }).unwrap();
            for (vrf, address, len, number) in routes {
                let prefix = Prefix4::containing(address, len).unwrap();
                writer.insert(vrf, prefix, Value::new(number).unwrap()).unwrap();
            }
            if let Some(number) = default {
                writer.insert(1, Prefix4::new(0, 0).unwrap(), Value::new(number).unwrap()).unwrap();
            }
            let reader = writer.reader();
            let lookup = Lookup::new(&reader.table);
            let vrfs: Vec<u16> = queries.iter().map(|query| if is_mixed { query.0 } else { 1 }).collect();
            let addresses: Vec<u32> = queries.iter().map(|query| query.1).collect();
            let expected: Vec<_> =
                vrfs.iter().zip(&addresses).map(|(&vrf, &address)| Level::Portable.single(lookup, vrf, address)).collect();
            for level in [Level::Portable, Level::of_this_cpu()] {
                let mut values = vec![None; queries.len()];
                level.batch(lookup, &vrfs, &addresses, &mut values);
                prop_assert_eq!(&values, &expected, "{:?}", level);
                for ((&vrf, &address), &expected) in vrfs.iter().zip(&addresses).zip(&expected) {
                    prop_assert_eq!(level.single(lookup, vrf, address), expected, "{:?}", level);
                }
            }
        }
    }
}
