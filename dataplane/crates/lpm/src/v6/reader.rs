//! The reading side.
#![expect(unsafe_code, reason = "vectors that the CPU has, and no bounds checks: see `Search` and `Lookup`")]

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::search::*;
use super::*;
use crate::Value;
use crate::arena::MARGIN_WORDS;
use crate::defaults::{read, settled};
use crate::lanes::{Found, GROUP, lanes};

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
    /// Faster than single lookups: what one waits for from memory overlaps with the others, and no
    /// branch depends on how deep one of them goes.
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
    #[cfg(all(target_arch = "aarch64", target_endian = "little", not(miri)))]
    Neon,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Sse2,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Avx2,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Avx512,
}

/// Runs a function with the instructions of a level.
macro_rules! with_level {
    ($level:expr, $search:ident => fn $name:ident($($argument:ident: $type:ty),*) $(-> $return:ty)? $body:block) => {{
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx2($($argument: $type),*) $(-> $return)? {
            type $search = Avx2;
            $body
        }
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx512($($argument: $type),*) $(-> $return)? {
            type $search = Avx512;
            $body
        }
        match $level {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the level says that the CPU has them.
            Level::Avx512 => unsafe { avx512($($argument),*) },
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the level says that the CPU has them.
            Level::Avx2 => unsafe { avx2($($argument),*) },
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Level::Sse2 => {
                type $search = Sse2;
                $body
            }
            #[cfg(all(target_arch = "aarch64", target_endian = "little", not(miri)))]
            Level::Neon => {
                type $search = Neon;
                $body
            }
            Level::Portable => {
                type $search = Portable;
                $body
            }
        }
    }};
}

impl Level {
    fn of_this_cpu() -> Self {
        *Self::all().last().expect("there is the portable one")
    }

    /// Those that this CPU has, the best last.
    fn all() -> &'static [Self] {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let all = &[Self::Portable, Self::Sse2, Self::Avx2, Self::Avx512];
            let has_avx2 = std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("bmi1")
                && std::arch::is_x86_feature_detected!("bmi2")
                && std::arch::is_x86_feature_detected!("popcnt")
                && std::arch::is_x86_feature_detected!("lzcnt");
            let has_avx512 = has_avx2
                && std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl");
            &all[..2 + usize::from(has_avx2) + usize::from(has_avx512)]
        }
        #[cfg(all(target_arch = "aarch64", target_endian = "little", not(miri)))]
        {
            &[Self::Portable, Self::Neon]
        }
        #[cfg(any(miri, not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))))]
        &[Self::Portable]
    }

    #[inline(always)]
    fn single(self, table: &Table, vrf: u16, address: u128) -> Option<Value> {
        with_level!(self, S => fn single(table: &Table, vrf: u16, address: u128) -> Option<Value> {
            Lookup::new(table).single::<S>(vrf, address)
        })
    }

    #[inline(always)]
    fn batch(self, table: &Table, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
        with_level!(self, S => fn batch(
            table: &Table, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]
        ) {
            Lookup::new(table).batch::<S>(vrfs, addresses, values);
        });
    }
}

/// A table with what a lookup needs of it at hand.
///
/// Indices are not checked. They are in bounds whatever readers and writer do:
///
/// * [`Lookup::vrf`] is the index of a default, and there are [`SLOTS`] entries for each
///   ([`Table::reserve`]).
/// * The writer stores no entries in the direct table but zero and those of blocks, even when the
///   block has been freed and is part of another since. [`MARGIN_WORDS`] behind there is memory:
///   the 17 leaves of a node and the 1,024 octets of an array.
/// * What a block says may be anything, if it has become part of another. So an entry from an array
///   or a leaf is limited to the memory less the margin ([`Start::limited`]).
#[derive(Clone, Copy)]
struct Lookup<'t> {
    direct: &'t [AtomicU32],
    octets: &'t [Octets],
    halves: &'t [AtomicU32],
    words: &'t [AtomicU64],
    defaults: &'t [AtomicU32],
    shorts: &'t [AtomicU32],
}

impl<'t> Lookup<'t> {
    #[inline(always)]
    fn new(table: &'t Table) -> Self {
        Self {
            direct: table.direct.as_u32(),
            octets: &table.octets,
            halves: table.memory.as_u32(),
            words: table.memory.words(),
            defaults: table.defaults.all(),
            shorts: table.short.as_u32(),
        }
    }

    #[inline(always)]
    fn single<S: Search>(self, vrf: u16, address: u128) -> Option<Value> {
        let vrf = self.vrf(vrf);
        settled(
            || self.default(vrf),
            |&default| {
                let value = self.descend::<S>(self.start(vrf).entry(address), address);
                self.answer(vrf, default as u16, address, value)
            },
        )
    }

    /// From an entry on, one address alone.
    #[inline(always)]
    fn descend<S: Search>(self, mut entry: Entry, address: u128) -> u16 {
        for _ in 0..MOST_STEPS {
            match entry.kind() {
                Entry::LEAF => {
                    let value = self.leaf::<S>(entry, &address);
                    if value & CHILD == 0 {
                        return value;
                    }
                    entry = self.child(entry, value);
                }
                Entry::NODE => entry = self.node::<S>(entry, &address),
                Entry::ARRAY => entry = self.array(entry, (address >> (8 * entry.below())) as u8),
                _ => return self.host(entry, address),
            }
        }
        0
    }

    #[inline(always)]
    fn batch<S: Search>(self, vrfs: &[u16], addresses: &[u128], values: &mut [Option<Value>]) {
        let left = self.batches::<S, 64>(vrfs, addresses, values);
        let left = self.batches::<S, 16>(left.0, left.1, left.2);
        for ((&vrf, &address), value) in left.0.iter().zip(left.1).zip(left.2) {
            *value = self.single::<S>(vrf, address);
        }
    }

    /// As many batches of `N` as there are; returns what is left.
    #[inline(always)]
    fn batches<'a, S: Search, const N: usize>(
        self,
        vrfs: &'a [u16],
        addresses: &'a [u128],
        values: &'a mut [Option<Value>],
    ) -> (&'a [u16], &'a [u128], &'a mut [Option<Value>]) {
        let (vrfs, vrfs_left) = vrfs.as_chunks::<N>();
        let (addresses, addresses_left) = addresses.as_chunks::<N>();
        let (values, values_left) = values.as_chunks_mut::<N>();
        for ((vrfs, addresses), values) in vrfs.iter().zip(addresses).zip(values) {
            // Mostly all are in one VRF, and then a quarter of the work is done once.
            let first = vrfs[0];
            if vrfs.iter().fold(0, |differ, vrf| differ | (vrf ^ first)) == 0 {
                let vrf = self.vrf(first);
                let before = self.default(vrf);
                let found = self.resolve::<S, N>(Some(vrf), vrfs, addresses);
                let default = before as u16;
                if default & SHORT == 0 {
                    for (value, found) in values.iter_mut().zip(found) {
                        *value = to_value(if found == 0 { default } else { found });
                    }
                } else {
                    for lane in 0..N {
                        values[lane] = self.answer(vrf, default, addresses[lane], found[lane]);
                    }
                }
                if self.default(vrf) != before {
                    self.again::<S, N>(vrfs, addresses, values);
                }
            } else {
                let defaults = || vrfs.map(|vrf| self.default(self.vrf(vrf)));
                let before = defaults();
                let found = self.resolve::<S, N>(None, vrfs, addresses);
                for lane in 0..N {
                    let default = before[lane] as u16;
                    values[lane] = self.answer(self.vrf(vrfs[lane]), default, addresses[lane], found[lane]);
                }
                if defaults() != before {
                    self.again::<S, N>(vrfs, addresses, values);
                }
            }
        }
        (vrfs_left, addresses_left, values_left)
    }

    /// A batch during which a default route changed, one by one: see [`settled`].
    #[cold]
    #[inline(never)]
    fn again<S: Search, const N: usize>(self, vrfs: &[u16; N], addresses: &[u128; N], values: &mut [Option<Value>; N]) {
        for lane in 0..N {
            values[lane] = self.single::<S>(vrfs[lane], addresses[lane]);
        }
    }

    /// A batch, the short routes apart, in passes: each begins what the next one waits for. Which
    /// lanes go through an array or a node is a mask, so that no branch asks each.
    #[inline(always)]
    fn resolve<S: Search, const N: usize>(
        self,
        vrf: Option<usize>,
        vrfs: &[u16; N],
        addresses: &[u128; N],
    ) -> [u16; N] {
        const { assert!(N <= LANES, "a bit for each lane") };
        let mut entries = [Entry::NONE; N];
        let mut kinds = Kinds::default();
        match vrf {
            Some(vrf) => kinds = S::arrive(self.start(vrf), addresses, &mut entries),
            None => {
                for lane in 0..N {
                    entries[lane] = self.start(self.vrf(vrfs[lane])).first(addresses[lane]);
                    kinds.add(lane, entries[lane]);
                }
            }
        }
        let octets = addresses.as_bytes();
        // An array has an octet of the address less below it than the one before, but when it has
        // become something else.
        for _ in 0..16 {
            if kinds.arrays == 0 {
                break;
            }
            for lane in lanes::<N>(std::mem::take(&mut kinds.arrays)) {
                let entry = entries[lane];
                let entry = self.array(entry, octets[lane * 16 + octet_at(entry.below())]);
                entries[lane] = entry;
                self.start(0).prefetch(entry, 0);
                kinds.add(lane, entry);
            }
        }
        for lane in lanes::<N>(kinds.nodes) {
            let leaf = self.node::<S>(entries[lane], &addresses[lane]);
            entries[lane] = leaf;
            self.start(0).prefetch(leaf, 0);
        }
        // What a host line gives if it is read as a leaf is no matter.
        let (mut found, mut all) = ([0; N], 0);
        if kinds.empty.count_ones() as usize > N / 2 {
            for lane in lanes::<N>(!kinds.empty & u64::MAX >> (LANES - N)) {
                found[lane] = self.leaf::<S>(entries[lane], &addresses[lane]);
                all |= found[lane];
            }
        } else {
            // Nor is what an empty one gives: it is zero.
            for lane in 0..N {
                found[lane] = self.leaf::<S>(entries[lane], &addresses[lane]);
                all |= found[lane];
            }
        }
        for lane in lanes::<N>(kinds.hosts) {
            found[lane] = self.host(entries[lane], addresses[lane]);
        }
        if all & CHILD != 0 {
            let groups = found.as_chunks::<GROUP>().0;
            let children = groups
                .iter()
                .rev()
                .fold(0, |mask, group| mask << GROUP | u64::from(Found::of(|lane| group[lane]).flags()));
            for lane in lanes::<N>(children) {
                entries[lane] = self.child(entries[lane], found[lane]);
                self.start(0).prefetch(entries[lane], 0);
            }
            for lane in lanes::<N>(children) {
                found[lane] = self.descend::<S>(entries[lane], addresses[lane]);
            }
        }
        found
    }

    /// A VRF beyond the table has no routes: it is the empty one at the end.
    #[inline(always)]
    fn vrf(self, vrf: u16) -> usize {
        usize::from(vrf).min(self.defaults.len() - 1)
    }

    /// Where the addresses of a VRF are looked up.
    #[inline(always)]
    fn start(self, vrf: usize) -> Start<'t> {
        debug_assert!((vrf + 1) * SLOTS <= self.direct.len());
        // SAFETY: the first point above; an array of atomics is as aligned as these are.
        let direct = unsafe { &*self.direct.as_ptr().add(vrf * SLOTS).cast() };
        // SAFETY: as many as defaults.
        let octets = unsafe { self.octets.get_unchecked(vrf) };
        let last = ((self.words.len() - MARGIN_WORDS) / LINE_WORDS) as u32;
        Start { direct, octets, halves: self.halves, last: last << Entry::LINE_SHIFT }
    }

    /// Where an array goes on.
    #[inline(always)]
    fn array(self, entry: Entry, octet: u8) -> Entry {
        let index = entry.line() * LINE_HALVES + usize::from(octet);
        debug_assert!(index < self.halves.len());
        // SAFETY: at most 256 behind an entry, so within the margin.
        self.start(0).limited(unsafe { self.halves.get_unchecked(index) }.load(Acquire))
    }

    /// Where a leaf goes on that has the number of a child for the address.
    #[inline(always)]
    fn child(self, entry: Entry, value: u16) -> Entry {
        let at = CHILDREN + usize::from(value & !CHILD) % LEAF_CHILDREN;
        self.start(0).limited(self.line(entry)[at].load(Relaxed))
    }

    /// The leaf of a node that has the address.
    #[inline(always)]
    fn node<S: Search>(self, entry: Entry, address: &u128) -> Entry {
        entry.leaf(S::node(self.line(entry), key(address, entry.below())))
    }

    /// What a leaf has for an address: a value, the number of a child, or zero.
    #[inline(always)]
    fn leaf<S: Search>(self, entry: Entry, address: &u128) -> u16 {
        let number = S::leaf(self.line(entry), key(address, entry.below()));
        let index = entry.line() * 2 * LINE_HALVES + VALUES + number;
        debug_assert!(number <= LEAF_KEYS && index / 2 < self.halves.len());
        if cfg!(target_endian = "little") {
            let values = self.halves.as_ptr().cast::<u16>().cast_mut();
            // SAFETY: within the entry's line, and aligned. Writer and readers share it through
            // atomics only. Their widths differ, which Rust allows where one access happens before
            // the other: a line is written before the entry that leads to it is released, and
            // written again only after the owner has said that no reader is in it. Where that is
            // not true, the load is still one of x86-64 and aarch64 that gives some 16 bits.
            unsafe { AtomicU16::from_ptr(values.add(index)) }.load(Relaxed)
        } else {
            (self.line(entry)[VALUE_WORDS + number / 2].load(Relaxed) >> (number % 2 * 16)) as u16
        }
    }

    #[inline(always)]
    fn host(self, entry: Entry, address: u128) -> u16 {
        let at = entry.line() * LINE_WORDS;
        debug_assert!(at + LINE_WORDS <= self.words.len());
        // SAFETY: the line of an entry.
        let words = unsafe { self.words.get_unchecked(at..at + LINE_WORDS) };
        let mut number = 0;
        for at in 0..HOST_KEYS {
            let first = u128::from(words[2 * at].load(Relaxed)) << 64 | u128::from(words[2 * at + 1].load(Relaxed));
            number += u32::from(first <= address);
        }
        (words[HOST_VALUES].load(Relaxed) >> (16 * number)) as u16
    }

    #[inline(always)]
    fn line(self, entry: Entry) -> &'t Line {
        let at = entry.line() * LINE_HALVES;
        debug_assert!(at + LINE_HALVES <= self.halves.len());
        // SAFETY: the line of an entry, or of a leaf behind a node, so within the margin; words are
        // shared through atomics, and a line is an array of those.
        unsafe { &*self.halves.as_ptr().add(at).cast::<Line>() }
    }

    #[inline(always)]
    fn default(self, vrf: usize) -> u32 {
        debug_assert!(vrf < self.defaults.len());
        // SAFETY: `vrf` is from `Lookup::vrf`: the first point.
        read(unsafe { self.defaults.get_unchecked(vrf) })
    }

    #[inline(always)]
    fn answer(self, vrf: usize, default: u16, address: u128, found: u16) -> Option<Value> {
        let mut value = found;
        if value == 0 && default & SHORT != 0 {
            value = self.shorts[vrf * SHORTS + (address >> 120) as usize].load(Acquire) as u16;
        }
        to_value(if value == 0 { default } else { value })
    }
}

#[inline(always)]
fn to_value(value: u16) -> Option<Value> {
    Value::in_entry(u32::from(value))
}

/// The 32 bits of an address that have so many octets below them.
#[inline(always)]
fn key(address: &u128, below: usize) -> u32 {
    // No valid entry has more.
    let below = below.min(usize::from(LAST_KEY));
    if cfg!(target_endian = "little") {
        // One load, where a shift of 128 bits takes six instructions.
        let octets = std::ptr::from_ref(address).cast::<u8>();
        // SAFETY: four octets from at most the thirteenth of sixteen on.
        unsafe { octets.add(below).cast::<u32>().read_unaligned() }
    } else {
        (*address >> (8 * below)) as u32
    }
}

/// Where the octet is, in memory, that has so many below it.
#[inline(always)]
fn octet_at(below: usize) -> usize {
    if cfg!(target_endian = "little") { below } else { 15 - below }
}

/// More than any lookup takes: 13 arrays, then a node and a leaf four times.
const MOST_STEPS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Change, Limits, Prefix6, Writer6};

    proptest! {
        /// In one VRF and in a mix of them, in batches of every length, with every kind of entry.
        #[test]
        fn every_level_of_instructions_gives_the_same_answers(
            routes in vec((0..2_u16, any::<[u8; 16]>(), 30..=128_u8, 1..=Value::MAX), 0..1000),
            queries in vec((0..3_u16, any::<[u8; 16]>()), 0..200),
            default in proptest::option::of(1..=Value::MAX),
            is_mixed in any::<bool>(),
        ) {
            // One slot and few values in each octet below, so that there are arrays below arrays,
            // routes nest, and queries hit.
            let address = |octets: [u8; 16]| {
                let mut octets = octets.map(|octet| octet & 0x81);
                (octets[0], octets[1], octets[2], octets[3]) = (0x20, 1, 0xd, octets[3] & 1);
                u128::from_be_bytes(octets)
            };
            let mut writer = Writer6::new(Limits { vrfs: 2, bytes: 8 << 20 }).unwrap();
            let mut changes: Vec<_> = routes.into_iter().map(|(vrf, octets, len, number)| {
                let prefix = Prefix6::containing(address(octets), len).unwrap();
                Change { vrf, prefix, value: Value::new(number) }
            }).collect();
            changes.extend(default.map(|number| {
                Change { vrf: 1, prefix: Prefix6::new(0, 0).unwrap(), value: Value::new(number) }
            }));
            writer.apply(changes).unwrap();
            let table = &writer.reader().table;
            let vrfs: Vec<u16> = queries.iter().map(|query| if is_mixed { query.0 } else { 1 }).collect();
            let addresses: Vec<u128> = queries.iter().map(|query| address(query.1)).collect();
            let expected: Vec<_> =
                vrfs.iter().zip(&addresses).map(|(&vrf, &address)| Level::Portable.single(table, vrf, address)).collect();
            for level in Level::all() {
                let mut values = vec![None; queries.len()];
                level.batch(table, &vrfs, &addresses, &mut values);
                prop_assert_eq!(&values, &expected, "{:?}", level);
                for ((&vrf, &address), &expected) in vrfs.iter().zip(&addresses).zip(&expected) {
                    prop_assert_eq!(level.single(table, vrf, address), expected, "{:?}", level);
                }
            }
        }
    }

    /// Which octets have entries is kept beside these.
    #[test]
    fn a_route_is_found_under_any_first_octet_and_none_beside_it() {
        let under = |octet: u8| u128::from(octet) << 120 | 0xdb8 << 104;
        for octet in 0..=u8::MAX {
            let mut writer = Writer6::new(Limits { vrfs: 2, bytes: 1 << 20 }).unwrap();
            let value = Value::new(u16::from(octet) + 1);
            writer.insert(1, Prefix6::new(under(octet), 32).unwrap(), value.unwrap()).unwrap();
            let table = &writer.reader().table;
            let addresses: Vec<_> = (0..=u8::MAX).map(under).collect();
            let expected: Vec<_> = (0..=u8::MAX).map(|other| value.filter(|_| other == octet)).collect();
            for level in Level::all() {
                let mut values = vec![None; addresses.len()];
                level.batch(table, &[1; 256], &addresses, &mut values);
                assert_eq!(values, expected, "{level:?}");
            }
        }
    }
}
