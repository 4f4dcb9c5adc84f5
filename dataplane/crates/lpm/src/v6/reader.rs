//! The reading side.
#![expect(
    unsafe_code,
    reason = "bounds checks and comparing keys one by one take twice the time: see `Lookup`, `Avx2`"
)]

use std::sync::Arc;

use super::*;
use crate::Value;
use crate::arena::MARGIN_WORDS;

/// An IPv6 table's reading side. Cheap to clone, one for each thread.
#[derive(Clone, Debug)]
pub struct Reader6 {
    table: Arc<Table>,
    level: Level,
}

impl Reader6 {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, level: Level::of_this_cpu() }
    }

    /// The value of the longest prefix of `vrf` that holds `address`; `None` when there is
    /// none, or no such VRF.
    #[inline]
    pub fn lookup(&self, vrf: u16, address: u128) -> Option<Value> {
        self.level.single(&self.table, vrf, address)
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
    pub fn lookup_batch(&self, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
        assert!(
            vrfs.len() == addresses.len() && values.len() == addresses.len(),
            "a batch has one VRF, one address and one place for a value each"
        );
        self.level.batch(&self.table, vrfs, addresses, values);
    }
}

/// Which instructions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// What the compiler may use anyway.
    Portable,
    /// x86-64 from 2013 on: compares eight keys at once.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Avx2,
}

impl Level {
    fn of_this_cpu() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("popcnt")
            && std::arch::is_x86_feature_detected!("bmi2")
        {
            return Self::Avx2;
        }
        Self::Portable
    }

    #[inline(always)]
    fn single(self, table: &Table, vrf: u16, address: u128) -> Option<Value> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        #[target_feature(enable = "avx2,popcnt,bmi2")]
        fn avx2(table: &Table, vrf: u16, address: u128) -> Option<Value> {
            let value = Lookup::new(table, Avx2(())).single(vrf, address);
            std::arch::x86_64::_mm256_zeroupper();
            value
        }
        match self {
            Self::Portable => Lookup::new(table, Portable).single(vrf, address),
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the level says that the CPU has them.
            Self::Avx2 => unsafe { avx2(table, vrf, address) },
        }
    }

    #[inline(always)]
    fn batch(self, table: &Table, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        #[target_feature(enable = "avx2,popcnt,bmi2")]
        fn avx2(table: &Table, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
            Lookup::new(table, Avx2(())).batch(vrfs, addresses, values);
            std::arch::x86_64::_mm256_zeroupper();
        }
        match self {
            Self::Portable => Lookup::new(table, Portable).batch(vrfs, addresses, values),
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the level says that the CPU has them.
            Self::Avx2 => unsafe { avx2(table, vrfs, addresses, values) },
        }
    }
}

/// How the keys of a line are compared.
trait Search: Copy {
    /// How many of the keys of a leaf are below a key.
    fn leaf(self, keys: &[AtomicU32; LEAF_KEYS], key: u32) -> usize;
    /// The same of a node.
    fn node(self, keys: &[AtomicU32; NODE_KEYS], key: u32) -> usize;
}

/// In plain Rust.
#[derive(Clone, Copy, Debug)]
struct Portable;

impl Search for Portable {
    #[inline(always)]
    fn leaf(self, keys: &[AtomicU32; LEAF_KEYS], key: u32) -> usize {
        below(keys, key)
    }

    #[inline(always)]
    fn node(self, keys: &[AtomicU32; NODE_KEYS], key: u32) -> usize {
        below(keys, key)
    }
}

#[inline(always)]
fn below<const N: usize>(keys: &[AtomicU32; N], key: u32) -> usize {
    let key = (key ^ BIAS).cast_signed();
    keys.iter().map(|other| usize::from(other.load(Relaxed).cast_signed() < key)).sum()
}

/// Eight keys at once. Made by [`Level`] alone, where the CPU has AVX2 and `popcnt`.
///
/// In assembly, because Rust has no load of 32 octets that others may write meanwhile, and they
/// may where the owner reclaims too early. Such a load is one of x86-64 that gives some octets.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[derive(Clone, Copy, Debug)]
struct Avx2(());

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Search for Avx2 {
    #[inline(always)]
    fn leaf(self, keys: &[AtomicU32; LEAF_KEYS], key: u32) -> usize {
        let below: u64;
        // SAFETY: reads the 32 octets of `keys`, and changes its own registers and flags only.
        // The CPU has the instructions, for `self` exists.
        unsafe {
            std::arch::asm!(
                "vmovd {key:x}, {bits:e}",
                "vpbroadcastd {key:y}, {key:x}",
                "vpcmpgtd {key:y}, {key:y}, ymmword ptr [{keys}]",
                "vmovmskps {bits:e}, {key:y}",
                "popcnt {bits:e}, {bits:e}",
                key = out(xmm_reg) _,
                bits = inout(reg) u64::from(key ^ BIAS) => below,
                keys = in(reg) keys,
                options(pure, readonly, nostack),
            );
        }
        below as usize
    }

    #[inline(always)]
    fn node(self, keys: &[AtomicU32; NODE_KEYS], key: u32) -> usize {
        let below: u64;
        // SAFETY: as above, 64 octets.
        unsafe {
            std::arch::asm!(
                "vmovd {key:x}, {bits:e}",
                "vpbroadcastd {key:y}, {key:x}",
                "vpcmpgtd {high:y}, {key:y}, ymmword ptr [{keys} + 32]",
                "vpcmpgtd {key:y}, {key:y}, ymmword ptr [{keys}]",
                // Two octets of ones for each key below.
                "vpackssdw {key:y}, {key:y}, {high:y}",
                "vpmovmskb {bits:e}, {key:y}",
                "popcnt {bits:e}, {bits:e}",
                key = out(xmm_reg) _,
                high = out(xmm_reg) _,
                bits = inout(reg) u64::from(key ^ BIAS) => below,
                keys = in(reg) keys,
                options(pure, readonly, nostack),
            );
        }
        below as usize / 2
    }
}

/// A table with what a lookup needs of it at hand.
///
/// Indices are not checked. They are in bounds whatever readers and writer do:
///
/// * [`Lookup::vrf`] is the index of a default, and there are [`SLOTS`] entries for each
///   ([`Table::reserve`]).
/// * The writer stores no entries in them but zero and those of blocks, even when the block has
///   been freed and is part of another since. Behind both there is memory for [`MARGIN_WORDS`]
///   more, 4 KiB, and from one entry nobody reads further than 18 lines or 256 cells and a line.
/// * What a block says may be anything, if it has become part of another. So its entries are
///   limited to the memory less the margin.
#[derive(Clone, Copy)]
struct Lookup<'t, S> {
    direct: &'t [AtomicU32],
    words: &'t [AtomicU32],
    defaults: &'t [AtomicU16],
    search: S,
}

/// What a lookup has come to.
enum Step {
    Value(u16),
    /// Go on from this entry, at this depth.
    Entry(u32, u32),
}

impl<'t, S: Search> Lookup<'t, S> {
    #[inline(always)]
    fn new(table: &'t Table, search: S) -> Self {
        Self { direct: table.direct.as_u32(), words: table.memory.as_u32(), defaults: &table.defaults, search }
    }

    #[inline(always)]
    fn single(self, vrf: u16, address: u128) -> Option<Value> {
        let vrf = self.vrf(vrf);
        let value = self.walk(self.entry(vrf, address), SLOT_BITS, address);
        answer(value, self.default(vrf))
    }

    #[inline(always)]
    fn walk(self, mut entry: u32, mut depth: u32, address: u128) -> u16 {
        // Each step but those from a node goes at least a bit deeper. What is read of a block
        // that has been freed too early may say otherwise, and must not hold a reader for ever.
        for _ in 0..256 {
            match self.step(entry, depth, address) {
                Step::Value(value) => return value,
                Step::Entry(next, deeper) => (entry, depth) = (next, deeper),
            }
        }
        0
    }

    #[inline(always)]
    fn step(self, entry: u32, depth: u32, address: u128) -> Step {
        match entry & TAG {
            ARRAY => Step::Entry(self.cell(entry, depth, address), depth + stride(entry)),
            NODE => Step::Entry(self.leaf_of(entry, depth, address), depth),
            HOST => Step::Value(self.host(entry, address)),
            _ => {
                let value = self.leaf(entry, depth, address);
                if value & CHILD == 0 { Step::Value(value) } else { Step::Entry(self.child(entry, value), depth + 32) }
            }
        }
    }

    #[inline(always)]
    fn batch(self, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
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
        addresses: &'a [u128],
        values: &'a mut [Option<Value>],
    ) -> (&'a [u16], &'a [u128], &'a mut [Option<Value>]) {
        let (vrfs, vrfs_left) = vrfs.as_chunks::<N>();
        let (addresses, addresses_left) = addresses.as_chunks::<N>();
        let (values, values_left) = values.as_chunks_mut::<N>();
        for ((vrfs, addresses), values) in vrfs.iter().zip(addresses).zip(values) {
            // Mostly all are in one VRF, and then a part of the work is done once.
            let first = vrfs[0];
            if vrfs.iter().fold(0, |differ, vrf| differ | (vrf ^ first)) == 0 {
                let vrf = self.vrf(first);
                let found = self.resolve(|_| vrf, addresses);
                let default = self.default(vrf);
                for (value, found) in values.iter_mut().zip(found) {
                    *value = answer(found, default);
                }
            } else {
                let found = self.resolve(|lane: usize| self.vrf(vrfs[lane]), addresses);
                for lane in 0..N {
                    values[lane] = answer(found[lane], self.default(self.vrf(vrfs[lane])));
                }
            }
        }
        (vrfs_left, addresses_left, values_left)
    }

    /// A batch, the default routes apart, in passes: each begins what the next one waits for.
    /// Lanes that have the same to do are gathered, so that no branch asks for each.
    #[inline(always)]
    fn resolve<const N: usize>(self, vrf: impl Fn(usize) -> usize, addresses: &[u128; N]) -> [u16; N] {
        let mut entries = [0_u32; N];
        let mut depths = [SLOT_BITS as u8; N];
        let (mut arrays, mut nodes) = (Lanes::<N>::new(), Lanes::<N>::new());
        for lane in 0..N {
            let entry = self.entry(vrf(lane), addresses[lane]);
            entries[lane] = entry;
            self.prefetch(entry, SLOT_BITS, addresses[lane]);
            arrays.add_if(lane, entry & TAG == ARRAY);
            nodes.add_if(lane, entry & TAG == NODE);
        }
        // As often as depths can grow: see `walk`.
        for _ in SLOT_BITS..128 {
            if arrays.count == 0 {
                break;
            }
            let count = std::mem::take(&mut arrays.count);
            for index in 0..count {
                let lane = arrays.at(index);
                let (entry, depth) = (entries[lane], u32::from(depths[lane]));
                let next = self.cell(entry, depth, addresses[lane]);
                let depth = depth + stride(entry);
                (entries[lane], depths[lane]) = (next, depth as u8);
                self.prefetch(next, depth, addresses[lane]);
                // Never before the lane that is read next.
                arrays.add_if(lane, next & TAG == ARRAY);
                nodes.add_if(lane, next & TAG == NODE);
            }
        }
        for index in 0..nodes.count {
            let lane = nodes.at(index);
            entries[lane] = self.leaf_of(entries[lane], u32::from(depths[lane]), addresses[lane]);
            self.prefetch(entries[lane], 0, 0);
        }
        let mut found = [0; N];
        let mut deeper = Lanes::<N>::new();
        for lane in 0..N {
            found[lane] = self.leaf(entries[lane], u32::from(depths[lane]), addresses[lane]);
            deeper.add_if(lane, (found[lane] & CHILD != 0) | (entries[lane] & TAG == HOST));
        }
        for index in 0..deeper.count {
            let lane = deeper.at(index);
            if entries[lane] & TAG != HOST {
                entries[lane] = self.child(entries[lane], found[lane]);
                depths[lane] = depths[lane].wrapping_add(32);
                self.prefetch(entries[lane], 0, 0);
            }
        }
        for index in 0..deeper.count {
            let lane = deeper.at(index);
            found[lane] = self.walk(entries[lane], u32::from(depths[lane]), addresses[lane]);
        }
        found
    }

    /// A VRF beyond the table has no routes: it is the empty one at the end.
    #[inline(always)]
    fn vrf(self, vrf: u16) -> usize {
        usize::from(vrf).min(self.defaults.len() - 1)
    }

    /// Acquire pairs with the writer's release: who sees an entry sees the lines below it.
    #[inline(always)]
    fn entry(self, vrf: usize, address: u128) -> u32 {
        let index = vrf * SLOTS + (address >> SLOT_SHIFT) as usize;
        debug_assert!(index < self.direct.len());
        // SAFETY: the first point above; an address has 24 bits above `SLOT_SHIFT`.
        unsafe { self.direct.get_unchecked(index) }.load(Acquire)
    }

    #[inline(always)]
    fn default(self, vrf: usize) -> u16 {
        // SAFETY: `vrf` is from `Lookup::vrf`: the first point.
        unsafe { self.defaults.get_unchecked(vrf) }.load(Acquire)
    }

    /// Asks for what the next step reads of an entry.
    #[inline(always)]
    fn prefetch(self, entry: u32, depth: u32, address: u128) {
        sys::prefetch_read(self.word(entry, cell(entry, depth, address)));
    }

    /// The entry of an array.
    #[inline(always)]
    fn cell(self, entry: u32, depth: u32, address: u128) -> u32 {
        self.limit(self.word(entry, cell(entry, depth, address)).load(Acquire))
    }

    /// The entry of the leaf behind a node.
    #[inline(always)]
    fn leaf_of(self, entry: u32, depth: u32, address: u128) -> u32 {
        let leaf = self.search.node(self.keys(entry), key(address, depth));
        (entry & LINE) + (LINE_BYTES * (1 + leaf)) as u32
    }

    #[inline(always)]
    fn leaf(self, entry: u32, depth: u32, address: u128) -> u16 {
        let number = self.search.leaf(self.keys(entry), key(address, depth));
        self.half(entry, LEAF_VALUES + number)
    }

    /// The entry of a leaf's child; the writer stores it while readers are there.
    #[inline(always)]
    fn child(self, entry: u32, value: u16) -> u32 {
        self.limit(self.word(entry, LEAF_CHILDREN + usize::from(value & 3)).load(Relaxed))
    }

    #[inline(always)]
    fn host(self, entry: u32, address: u128) -> u16 {
        let keys: &[AtomicU32; HOST_KEYS * 4] = self.keys(entry);
        let key = |[a, b, c, d]: &[AtomicU32; 4]| {
            let half =
                |low: &AtomicU32, high: &AtomicU32| u64::from(high.load(Relaxed)) << 32 | u64::from(low.load(Relaxed));
            u128::from(half(c, d)) << 64 | u128::from(half(a, b))
        };
        let number: usize = keys.as_chunks().0.iter().map(|words| usize::from(key(words) < address)).sum();
        self.half(entry, HOST_VALUES + number)
    }

    /// An entry out of a block: the third point.
    #[inline(always)]
    fn limit(self, entry: u32) -> u32 {
        entry.min(((self.words.len() - 2 * MARGIN_WORDS) * size_of::<u32>()) as u32)
    }

    #[inline(always)]
    fn keys<const N: usize>(self, entry: u32) -> &'t [AtomicU32; N] {
        const { assert!(N <= LINE_WORDS) };
        debug_assert!((entry & LINE) as usize / 4 + N <= self.words.len());
        // SAFETY: an entry is in bounds, and less than the margin is read behind it: the second
        // and third point. An array of atomics is aligned as they are.
        unsafe { &*self.words.as_ptr().add((entry & LINE) as usize / 4).cast() }
    }

    /// The 16 bits of a line at `index`, counted in such, the lowest of a word first.
    #[inline(always)]
    fn half(self, entry: u32, index: usize) -> u16 {
        (self.word(entry, index / 2).load(Relaxed) >> (index % 2 * 16)) as u16
    }

    /// The word of what an entry points to, up to one cell beyond the most that an array has.
    #[inline(always)]
    fn word(self, entry: u32, index: usize) -> &'t AtomicU32 {
        let index = (entry & LINE) as usize / 4 + index;
        debug_assert!(index < self.words.len());
        // SAFETY: as in `keys`: an index is below 256, in an array and in a line.
        unsafe { self.words.get_unchecked(index) }
    }
}

/// Lanes of a batch that have the same to do.
struct Lanes<const N: usize> {
    lanes: [u8; N],
    count: usize,
}

impl<const N: usize> Lanes<N> {
    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [0; N], count: 0 }
    }

    /// Written in any case: the next one goes to the same place if this one has nothing to do.
    #[inline(always)]
    fn add_if(&mut self, lane: usize, is_one: bool) {
        self.lanes[self.count % N] = lane as u8;
        self.count += usize::from(is_one);
    }

    #[inline(always)]
    fn at(&self, index: usize) -> usize {
        usize::from(self.lanes[index % N]) % N
    }
}

/// The bits of an array's index.
#[inline(always)]
fn stride(entry: u32) -> u32 {
    entry >> STRIDE_SHIFT & 15
}

/// The index in what an entry points to: zero where that is no array.
#[inline(always)]
fn cell(entry: u32, depth: u32, address: u128) -> usize {
    // Limited to what an array can have.
    (u64::from(key(address, depth)) >> (32 - stride(entry))) as usize & (CELLS - 1)
}

#[inline(always)]
fn answer(value: u16, default: u16) -> Option<Value> {
    Value::in_entry(u32::from(if value == 0 { default } else { value }))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::naive::Intervals;
    use crate::{Limits, Prefix6, Writer6};

    proptest! {
        /// In batches of every length, over arrays, nodes, leaves, children and host lines.
        #[test]
        fn every_level_of_instructions_answers_as_the_intervals_do(
            routes in vec((any::<u128>(), 20..=128_u8, 0..100_u32, 1..=Value::MAX), 0..600),
            default in proptest::option::of(1..=Value::MAX),
            picks in vec((any::<usize>(), any::<bool>()), 0..200),
            is_mixed in any::<bool>(),
        ) {
            // Below a /21, and the larger the shift, the more of them meet deeper down.
            let routes: Vec<_> = routes
                .into_iter()
                .map(|(address, len, shift, number)| {
                    let address = 0x2001_0800 << 96 | address >> 21 >> shift;
                    (Prefix6::containing(address, len).unwrap(), Value::new(number).unwrap())
                })
                .chain(default.map(|number| (Prefix6::new(0, 0).unwrap(), Value::new(number).unwrap())))
                .collect();
            let mut writer = Writer6::new(Limits { vrfs: 2, bytes: 4 << 20 }).unwrap();
            for &(prefix, value) in &routes {
                writer.insert(1, prefix, value).unwrap();
            }
            let oracle = Intervals::new(routes);
            let starts: Vec<u128> = oracle.starts().collect();
            let addresses: Vec<u128> = picks
                .into_iter()
                .map(|(pick, is_before)| starts[pick % starts.len()].wrapping_sub(u128::from(is_before)))
                .collect();
            // Two of five in a VRF without routes, or in none.
            let vrf = |lane: usize| if is_mixed { [1, 0, 1, 1, 2][lane % 5] } else { 1 };
            let vrfs: Vec<u16> = (0..addresses.len()).map(vrf).collect();
            let expect = |(&vrf, &address): (&u16, &u128)| oracle.lookup(address).filter(|_| vrf == 1);
            let expected: Vec<_> = vrfs.iter().zip(&addresses).map(expect).collect();
            let table = &writer.reader().table;
            for level in [Level::Portable, Level::of_this_cpu()] {
                let mut values = vec![None; addresses.len()];
                level.batch(table, &vrfs, &addresses, &mut values);
                prop_assert_eq!(&values, &expected, "{:?}", level);
                for ((&vrf, &address), &expected) in vrfs.iter().zip(&addresses).zip(&expected) {
                    prop_assert_eq!(level.single(table, vrf, address), expected, "{:?}", level);
                }
            }
        }
    }
}
