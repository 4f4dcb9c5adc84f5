//! What readers walk: a trie of fixed strides, 16 bits and then 8 at a time.
//!
//! ```text
//!  roots[vrf][first 16 bits] ──┬─► value: the longest match, done
//!                              ├─► block ──► blocks[b][next 8 bits] ──► value or block ...
//!                              └─► nothing ──► defaults[vrf]
//! ```
//!
//! Every entry holds the longest match of all its addresses ("leaf pushing"), so a lookup never
//! looks back. The default route alone is not spread over the entries: a VRF would pay 65,536
//! stores and 256 KiB for it. All memory is reserved at the start and never moves; what is not
//! touched is the kernel's zero page, and an entry of zero means "nothing here".

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;

use zerocopy::FromZeros;

use crate::{Address, Value};

/// A table's reading side. Cheap to clone, one for each thread.
#[derive(Clone, Debug)]
pub struct Reader<A> {
    table: Arc<Table>,
    width: PhantomData<A>,
}

impl<A: Address> Reader<A> {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, width: PhantomData }
    }

    /// The value of the longest prefix of `vrf` that holds `address`; `None` when there is
    /// none, or no such VRF.
    #[inline]
    pub fn lookup(&self, vrf: u16, address: A) -> Option<Value> {
        let table = &*self.table;
        let mut entry = table.root(vrf, address);
        for position in ROOT_OCTETS..octets::<A>() {
            if !is_block(entry) {
                break;
            }
            entry = load(&table.blocks, block(entry), address.octet(position));
        }
        Value::in_entry(entry).or_else(|| table.default(vrf))
    }

    /// Looks up `addresses[i]` in `vrfs[i]` and writes the answer to `values[i]`, for slices
    /// of any length; multiples of 8 are best. VRFs may be mixed.
    ///
    /// Faster than single lookups where the depth of the matches is mixed: the loads of
    /// several addresses overlap, and no branch depends on how deep one of them goes.
    ///
    /// # Panics
    ///
    /// When the slices differ in length: a mistake of the caller.
    #[inline]
    pub fn lookup_batch(&self, vrfs: &[u16], addresses: &[A], values: &mut [Option<Value>]) {
        assert!(
            vrfs.len() == addresses.len() && values.len() == addresses.len(),
            "a batch has one VRF, one address and one place for a value each"
        );
        let (vrfs, vrfs_left) = vrfs.as_chunks();
        let (addresses, addresses_left) = addresses.as_chunks();
        let (values, values_left) = values.as_chunks_mut();
        for ((vrfs, addresses), values) in vrfs.iter().zip(addresses).zip(values) {
            self.table.resolve(vrfs, addresses, values);
        }
        let left = vrfs_left.iter().zip(addresses_left).zip(values_left);
        for ((&vrf, &address), value) in left {
            *value = self.lookup(vrf, address);
        }
    }
}

/// The memory that readers and the writer share.
#[derive(Debug)]
pub(crate) struct Table {
    /// The value of /0 for each VRF, or zero.
    pub defaults: Box<[AtomicU32]>,
    pub roots: Box<[Root]>,
    /// Block 0 stays empty: a lookup that is done reads it while its batch goes on.
    pub blocks: Box<[Block]>,
}

impl Table {
    /// Reserves address space, which costs memory only where it is written. `None` when the
    /// system refuses.
    pub fn reserve(vrfs: usize, blocks: usize) -> Option<Self> {
        Some(Self {
            defaults: <[AtomicU32]>::new_box_zeroed_with_elems(vrfs).ok()?,
            roots: <[Root]>::new_box_zeroed_with_elems(vrfs).ok()?,
            blocks: <[Block]>::new_box_zeroed_with_elems(blocks).ok()?,
        })
    }

    /// A VRF beyond the table has no routes.
    #[inline]
    fn root<A: Address>(&self, vrf: u16, address: A) -> u32 {
        match self.roots.get(usize::from(vrf)) {
            Some(root) => root[usize::from(address.top())].load(Acquire),
            None => 0,
        }
    }

    #[inline]
    fn default(&self, vrf: u16) -> Option<Value> {
        Value::in_entry(self.defaults.get(usize::from(vrf))?.load(Acquire))
    }

    /// One pass per level over all lanes, until none goes deeper.
    #[inline]
    fn resolve<A: Address>(&self, vrfs: &[u16; LANES], addresses: &[A; LANES], values: &mut [Option<Value>; LANES]) {
        let mut entries = [0_u32; LANES];
        let mut all = 0;
        for lane in 0..LANES {
            entries[lane] = self.root(vrfs[lane], addresses[lane]);
            all |= entries[lane];
        }
        for position in ROOT_OCTETS..octets::<A>() {
            if !is_block(all) {
                break;
            }
            all = 0;
            for lane in 0..LANES {
                let entry = entries[lane];
                // All ones where there is a block to enter, else zero: lanes that are done
                // read block 0 and keep what they have, without a branch to mispredict.
                let enter = (entry.cast_signed() >> 31).cast_unsigned();
                let next = load(&self.blocks, block(entry & enter), addresses[lane].octet(position));
                entries[lane] = (next & enter) | (entry & !enter);
                all |= entries[lane];
            }
        }
        for lane in 0..LANES {
            values[lane] = Value::in_entry(entries[lane]).or_else(|| self.default(vrfs[lane]));
        }
    }
}

/// Entries for the first 16 bits of an address.
pub(crate) type Root = [AtomicU32; 1 << 16];
/// Entries for the next 8 bits.
pub(crate) type Block = [AtomicU32; 1 << 8];

/// Octets that the root consumes.
pub(crate) const ROOT_OCTETS: usize = 2;
/// Addresses looked up at a time: as many entries as fit in registers.
const LANES: usize = 8;

pub(crate) const fn octets<A: Address>() -> usize {
    A::BITS as usize / 8
}

/// An entry is zero; or a value with the length of its prefix in bits 16..=23, which is for the
/// writer; or a block's number with this bit set.
const IS_BLOCK: u32 = 1 << 31;

#[inline]
pub(crate) const fn is_block(entry: u32) -> bool {
    entry & IS_BLOCK != 0
}

#[inline]
pub(crate) const fn block(entry: u32) -> usize {
    (entry & !IS_BLOCK) as usize
}

pub(crate) const fn to_block(block: u32) -> u32 {
    IS_BLOCK | block
}

pub(crate) const fn to_value(value: Value, len: u8) -> u32 {
    (len as u32) << 16 | value.as_u16() as u32
}

/// Length of the prefix that an entry's value came from; 0 when the entry is empty.
pub(crate) const fn len(entry: u32) -> u8 {
    (entry >> 16) as u8
}

/// Acquire pairs with the writer's release: who sees a block sees what is in it.
#[inline]
fn load(blocks: &[Block], block: usize, octet: u8) -> u32 {
    match blocks.get(block) {
        Some(entries) => entries[usize::from(octet)].load(Acquire),
        // The writer hands out no such block.
        None => 0,
    }
}
