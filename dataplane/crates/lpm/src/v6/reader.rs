//! The reading side.

use std::sync::Arc;

use super::*;
use crate::Value;

/// An IPv6 table's reading side. Cheap to clone, one for each thread.
#[derive(Clone, Debug)]
pub struct Reader6 {
    table: Arc<Table>,
}

impl Reader6 {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// The value of the longest prefix of `vrf` that holds `address`; `None` when there is
    /// none, or no such VRF.
    #[inline]
    pub fn lookup(&self, vrf: u16, address: u128) -> Option<Value> {
        Lookup::new(&self.table, Portable).single(vrf, address)
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
        Lookup::new(&self.table, Portable).batch(vrfs, addresses, values);
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

/// A table with what a lookup needs of it at hand.
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
        // Each step but the last goes at least a bit deeper. What is read of a block that has
        // been freed too early may say otherwise, and must not hold a reader for ever.
        for _ in 0..128 {
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
            ARRAY => {
                let stride = stride(entry);
                Step::Entry(self.cell(entry, depth, address), depth + stride)
            }
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
        let (vrfs, vrfs_left) = vrfs.as_chunks::<64>();
        let (addresses, addresses_left) = addresses.as_chunks::<64>();
        let (values, values_left) = values.as_chunks_mut::<64>();
        for ((vrfs, addresses), values) in vrfs.iter().zip(addresses).zip(values) {
            self.resolve(vrfs, addresses, values);
        }
        for ((&vrf, &address), value) in vrfs_left.iter().zip(addresses_left).zip(values_left) {
            *value = self.single(vrf, address);
        }
    }

    #[inline(always)]
    fn resolve<const N: usize>(self, vrfs: &[u16; N], addresses: &[u128; N], values: &mut [Option<Value>; N]) {
        for lane in 0..N {
            values[lane] = self.single(vrfs[lane], addresses[lane]);
        }
    }

    /// A VRF beyond the table has no routes: it is the empty one at the end.
    #[inline(always)]
    fn vrf(self, vrf: u16) -> usize {
        usize::from(vrf).min(self.defaults.len() - 1)
    }

    /// Acquire pairs with the writer's release: who sees an entry sees the lines below it.
    #[inline(always)]
    fn entry(self, vrf: usize, address: u128) -> u32 {
        self.direct[vrf * SLOTS + (address >> SLOT_SHIFT) as usize].load(Acquire)
    }

    #[inline(always)]
    fn default(self, vrf: usize) -> u16 {
        self.defaults[vrf].load(Acquire)
    }

    /// The entry of an array.
    #[inline(always)]
    fn cell(self, entry: u32, depth: u32, address: u128) -> u32 {
        self.words[(entry & LINE) as usize / 4 + cell(entry, depth, address)].load(Acquire)
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

    #[inline(always)]
    fn child(self, entry: u32, value: u16) -> u32 {
        self.words[(entry & LINE) as usize / 4 + LEAF_CHILDREN + usize::from(value & 3)].load(Relaxed)
    }

    #[inline(always)]
    fn host(self, entry: u32, address: u128) -> u16 {
        let keys: &[AtomicU32; HOST_KEYS * 4] = self.keys(entry);
        let number: usize = keys
            .as_chunks()
            .0
            .iter()
            .map(|[a, b, c, d]| {
                let half = |low: &AtomicU32, high: &AtomicU32| {
                    u64::from(high.load(Relaxed)) << 32 | u64::from(low.load(Relaxed))
                };
                usize::from((u128::from(half(c, d)) << 64 | u128::from(half(a, b))) < address)
            })
            .sum();
        self.half(entry, HOST_VALUES + number)
    }

    #[inline(always)]
    fn keys<const N: usize>(self, entry: u32) -> &'t [AtomicU32; N] {
        self.words[(entry & LINE) as usize / 4..].first_chunk().expect("there is memory behind every line")
    }

    /// The 16 bits of a line at `index`, counted in such, the lowest of a word first.
    #[inline(always)]
    fn half(self, entry: u32, index: usize) -> u16 {
        let word = self.words[(entry & LINE) as usize / 4 + index / 2].load(Relaxed);
        (word >> (index % 2 * 16)) as u16
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
    (u64::from(key(address, depth)) >> (32 - stride(entry))) as usize
}

#[inline(always)]
fn answer(value: u16, default: u16) -> Option<Value> {
    Value::in_entry(u32::from(if value == 0 { default } else { value }))
}
