//! The routes as they were given, ordered so that the block of an /18 is built in one sweep.
//!
//! Routes longer than 18 bits are sorted in the chunk of their /18. Shorter ones are in a binary
//! tree without pointers, cut at /8 so that a small VRF costs little: the node of a prefix of
//! length `l` is `2^l` plus its bits.

use super::*;
use crate::Prefix4;
use crate::arena::Block;

/// The routes of all VRFs, and which /18s changed since they were last built.
#[derive(Debug)]
pub(super) struct Routes {
    vrfs: Box<[Option<Box<Vrf>>]>,
    chunks: Vec<Chunk>,
    unused_chunks: Vec<u32>,
    /// Each once: VRF and /18.
    dirty: Vec<(u16, u32)>,
}

#[derive(Debug)]
struct Vrf {
    count: usize,
    /// Prefixes of 0..=7 bits. The default route is the root, and none of the others see it: no
    /// block contains it.
    top: [u16; 256],
    /// One for each /8.
    pages: Box<[Option<Box<Page>>]>,
}

/// An /8: as much as 4 KiB of entries cover.
#[derive(Debug)]
struct Page {
    /// Prefixes of 8..=18 bits.
    short: [u16; 2 * PAGE_CHUNKS],
    /// Where the longer ones are: a chunk's number, [`NONE`] where there are none.
    chunks: [u32; PAGE_CHUNKS],
    /// One bit for each /18.
    dirty: [u64; PAGE_CHUNKS / 64],
}

/// The routes of an /18 that are longer than it.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// In order of address, then length: whatever holds a route comes before it.
    pub routes: Vec<Route>,
    /// The block of its own that its entry points to, if not one that is shared.
    pub block: Option<Block>,
    /// The slots that changed since it was built, one bit each.
    pub changed: u64,
    /// The value of the longest route, the default apart, that held all of the /18 when it was built last. It is so still
    /// unless all slots have changed: a route that holds the /18 changes them all.
    covering: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    /// The last 14 bits of the address.
    pub low: u16,
    /// 19..=32.
    pub len: u8,
    pub value: u16,
}

impl Route {
    /// The slots of its /18 that it covers or is in: first and count.
    pub fn slots(self) -> (u32, u32) {
        (u32::from(self.low >> 8), 1 << 24_u8.saturating_sub(self.len))
    }
}

impl Routes {
    pub fn new(vrfs: u16) -> Self {
        Self {
            vrfs: (0..vrfs).map(|_| None).collect(),
            chunks: Vec::new(),
            unused_chunks: Vec::new(),
            dirty: Vec::new(),
        }
    }

    pub fn has(&self, vrf: u16) -> bool {
        usize::from(vrf) < self.vrfs.len()
    }

    pub fn count(&self, vrf: u16) -> usize {
        self.vrf(vrf).map_or(0, |vrf| vrf.count)
    }

    pub fn value(&self, vrf: u16, prefix: Prefix4) -> Option<Value> {
        let vrf = self.vrf(vrf)?;
        let value = match prefix.len() {
            0..8 => vrf.top[node(prefix, 0)],
            8..=18 => vrf.page(prefix)?.short[node(prefix, 8)],
            _ => {
                let chunk = &self.chunks.get(vrf.page(prefix)?.chunks[in_page(chunk(prefix))] as usize)?;
                chunk.routes[chunk.find(prefix).ok()?].value
            }
        };
        Value::in_entry(u32::from(value))
    }

    /// Asks for what a change of a long prefix will read, and gives back the block of its /18, if there is one: these are
    /// misses that would else come one after the other.
    pub fn prefetch(&self, vrf: u16, prefix: Prefix4) -> Option<Block> {
        if prefix.len() <= 18 {
            return None;
        }
        let number = self.vrf(vrf)?.page(prefix)?.chunks[in_page(chunk(prefix))];
        let chunk = self.chunks.get(number as usize)?;
        for line in chunk.routes.chunks(64 / size_of::<Route>()) {
            sys::prefetch_read(&line[0]);
        }
        if let Some(last) = chunk.routes.last() {
            sys::prefetch_read(last);
        }
        chunk.block
    }

    /// Sets, or with `None` removes, a route of a VRF that there is; returns what it was. The
    /// /18s that it concerns are dirty then.
    pub fn set(&mut self, vrf: u16, prefix: Prefix4, value: Option<Value>) -> Option<Value> {
        let new = value.map_or(0, Value::as_u16);
        let slot = &mut self.vrfs[usize::from(vrf)];
        let routes = match (slot, new) {
            (Some(routes), _) => routes,
            (None, 0) => return None,
            (empty, _) => empty.insert(Box::new(Vrf::new())),
        };
        let old = if prefix.len() > 18 {
            let dirty = &mut self.dirty;
            routes.set_long(vrf, prefix, new, &mut self.chunks, &mut self.unused_chunks, dirty)
        } else {
            routes.set_short(vrf, prefix, new, &mut self.chunks, &mut self.dirty)
        };
        routes.count += usize::from(new != 0);
        routes.count -= usize::from(old != 0);
        Value::in_entry(u32::from(old))
    }

    /// How many /18s are dirty.
    pub fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// The dirty /18 with this number: VRF, /18, the chunk of its longer routes, and the value of
    /// the longest route, the default apart, that holds all of it, or zero.
    pub fn dirty_at(&self, number: usize) -> (u16, u32, Option<&Chunk>, u16) {
        let (vrf, chunk) = self.dirty[number];
        let routes = self.vrf(vrf).expect("what is dirty had a route");
        let page = routes.pages[chunk as usize / PAGE_CHUNKS].as_deref().expect("as above");
        let long = self.chunks.get(page.chunks[in_page(chunk)] as usize);
        let covering = match long {
            // The way up the tree is several lines that nothing else has brought into the cache.
            Some(long) if long.changed != !0 => long.covering,
            _ => routes.covering(page, chunk),
        };
        (vrf, chunk, long, covering)
    }

    /// The dirty /18 with this number is as its block says: with `block`, if it has one of its own, and built with that
    /// `covering`. Gives back VRF and /18, the block that it had, and the slots that had changed.
    pub fn built(&mut self, number: usize, block: Option<Block>, covering: u16) -> (u16, u32, Option<Block>, u64) {
        let (vrf, at) = self.dirty[number];
        let routes = self.vrfs[usize::from(vrf)].as_mut().expect("what is dirty had a route");
        let page = routes.pages[at as usize / PAGE_CHUNKS].as_mut().expect("as above");
        let index = in_page(at);
        page.dirty[index / 64] &= !(1 << (index % 64));
        let Some(chunk) = self.chunks.get_mut(page.chunks[index] as usize) else {
            debug_assert_eq!(block, None, "an /18 without longer routes has one value");
            return (vrf, at, None, !0);
        };
        let changed = std::mem::take(&mut chunk.changed);
        chunk.covering = covering;
        let old = std::mem::replace(&mut chunk.block, block);
        if chunk.routes.is_empty() {
            debug_assert_eq!(block, None);
            chunk.routes = Vec::new();
            self.unused_chunks.push(page.chunks[index]);
            page.chunks[index] = NONE;
        }
        (vrf, at, old, changed)
    }

    /// All that was dirty is built.
    pub fn settle(&mut self) {
        self.dirty.clear();
    }

    /// Forgets what is dirty: what it was before is set again.
    pub fn forget(&mut self) {
        for number in 0..self.dirty.len() {
            let (_, _, long, _) = self.dirty_at(number);
            let (block, covering) = long.map_or((None, 0), |chunk| (chunk.block, chunk.covering));
            self.built(number, block, covering);
        }
        self.dirty.clear();
    }

    /// Takes all routes of a VRF out, and calls `each` with every /18 that may have an entry and
    /// the block that it has of its own.
    pub fn clear(&mut self, vrf: u16, mut each: impl FnMut(u32, Option<Block>)) -> usize {
        let Some(routes) = self.vrfs.get_mut(usize::from(vrf)).and_then(Option::take) else {
            return 0;
        };
        for (number, page) in routes.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            for (index, &number_of_chunk) in page.chunks.iter().enumerate() {
                let mut block = None;
                if let Some(chunk) = self.chunks.get_mut(number_of_chunk as usize) {
                    block = std::mem::take(chunk).block;
                    self.unused_chunks.push(number_of_chunk);
                }
                each((number * PAGE_CHUNKS + index) as u32, block);
            }
        }
        routes.count
    }

    /// /8s with pages of entries, all VRFs together.
    pub fn pages(&self) -> usize {
        self.vrfs.iter().flatten().map(|vrf| vrf.pages.iter().flatten().count()).sum()
    }

    /// Routes of all VRFs.
    pub fn total(&self) -> usize {
        self.vrfs.iter().flatten().map(|vrf| vrf.count).sum()
    }

    fn vrf(&self, vrf: u16) -> Option<&Vrf> {
        self.vrfs.get(usize::from(vrf))?.as_deref()
    }
}

impl Vrf {
    fn new() -> Self {
        Self { count: 0, top: [0; 256], pages: (0..256).map(|_| None).collect() }
    }

    fn page(&self, prefix: Prefix4) -> Option<&Page> {
        self.pages[(prefix.address() >> 24) as usize].as_deref()
    }

    fn set_long(
        &mut self,
        vrf: u16,
        prefix: Prefix4,
        new: u16,
        chunks: &mut Vec<Chunk>,
        unused: &mut Vec<u32>,
        dirty: &mut Vec<(u16, u32)>,
    ) -> u16 {
        let at = chunk(prefix);
        let slot = &mut self.pages[at as usize / PAGE_CHUNKS];
        let page = match (slot, new) {
            (Some(page), _) => page,
            (None, 0) => return 0,
            (empty, _) => empty.insert(Page::new()),
        };
        let number = &mut page.chunks[in_page(at)];
        if *number == NONE {
            if new == 0 {
                return 0;
            }
            *number = unused.pop().unwrap_or_else(|| {
                chunks.push(Chunk::default());
                chunks.len() as u32 - 1
            });
            chunks[*number as usize].changed = !0;
        }
        let long = &mut chunks[*number as usize];
        let route = Route { low: (prefix.address() & LOW) as u16, len: prefix.len(), value: new };
        // What is loaded in order goes to the end.
        let place = match long.routes.last() {
            Some(last) if (last.low, last.len) < (route.low, route.len) => Err(long.routes.len()),
            _ => long.find(prefix),
        };
        let old = match place {
            Ok(place) if new != 0 => std::mem::replace(&mut long.routes[place].value, new),
            Ok(place) => long.routes.remove(place).value,
            Err(place) if new != 0 => {
                long.routes.insert(place, route);
                0
            }
            Err(_) => return 0,
        };
        if old != new {
            let (first, count) = route.slots();
            long.changed |= !0 >> (64 - count) << first;
            page.touch(vrf, at, dirty);
        }
        old
    }

    fn set_short(
        &mut self,
        vrf: u16,
        prefix: Prefix4,
        new: u16,
        chunks: &mut [Chunk],
        dirty: &mut Vec<(u16, u32)>,
    ) -> u16 {
        if prefix.len() == 0 {
            return std::mem::replace(&mut self.top[1], new);
        }
        let mut touched = |page: &mut Page, at: u32| {
            if let Some(long) = chunks.get_mut(page.chunks[in_page(at)] as usize) {
                long.changed = !0;
            }
            page.touch(vrf, at, dirty);
        };
        let number = prefix.address() >> 24;
        if prefix.len() >= 8 {
            let slot = &mut self.pages[number as usize];
            let page = match (slot, new) {
                (Some(page), _) => page,
                (None, 0) => return 0,
                (empty, _) => empty.insert(Page::new()),
            };
            let node = node(prefix, 8);
            let old = std::mem::replace(&mut page.short[node], new);
            if old != new {
                page.uncovered(node, number, &mut touched);
            }
            return old;
        }
        let node = node(prefix, 0);
        let old = std::mem::replace(&mut self.top[node], new);
        if old != new {
            let count = 1 << (8 - prefix.len());
            for number in number..number + count {
                // Up from the /8 to the prefix: is there another between?
                let between = std::iter::successors(Some((number as usize + 256) / 2), |node| Some(node / 2));
                if between.take_while(|&up| up != node).any(|up| self.top[up] != 0) {
                    continue;
                }
                let page = self.pages[number as usize].get_or_insert_with(Page::new);
                if page.short[1] == 0 {
                    page.uncovered(1, number, &mut touched);
                }
            }
        }
        old
    }

    fn covering(&self, page: &Page, chunk: u32) -> u16 {
        let mut node = PAGE_CHUNKS + in_page(chunk);
        while node > 0 {
            if page.short[node] != 0 {
                return page.short[node];
            }
            node /= 2;
        }
        let mut node = (chunk as usize / PAGE_CHUNKS + 256) / 2;
        while node > 1 {
            if self.top[node] != 0 {
                return self.top[node];
            }
            node /= 2;
        }
        0
    }
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self { short: [0; 2 * PAGE_CHUNKS], chunks: [NONE; PAGE_CHUNKS], dirty: [0; PAGE_CHUNKS / 64] })
    }

    fn touch(&mut self, vrf: u16, chunk: u32, dirty: &mut Vec<(u16, u32)>) {
        let index = in_page(chunk);
        let bit = 1 << (index % 64);
        if self.dirty[index / 64] & bit == 0 {
            self.dirty[index / 64] |= bit;
            dirty.push((vrf, chunk));
        }
    }

    /// Calls `each` with the /18s below a node that no longer prefix of up to 18 bits holds.
    fn uncovered(&mut self, node: usize, number: u32, each: &mut impl FnMut(&mut Self, u32)) {
        if node >= PAGE_CHUNKS {
            each(self, number * PAGE_CHUNKS as u32 + (node - PAGE_CHUNKS) as u32);
            return;
        }
        for below in [2 * node, 2 * node + 1] {
            if self.short[below] == 0 {
                self.uncovered(below, number, each);
            }
        }
    }
}

impl Chunk {
    fn find(&self, prefix: Prefix4) -> Result<usize, usize> {
        let key = ((prefix.address() & LOW) as u16, prefix.len());
        self.routes.binary_search_by_key(&key, |route| (route.low, route.len))
    }
}

/// The node of a prefix in a tree whose root is of `root` bits.
fn node(prefix: Prefix4, root: u32) -> usize {
    let bits = u32::from(prefix.len()) - root;
    // In 64 bits, where a shift by 32 gives the zero that a /0 needs.
    let below = u64::from(prefix.address()) << root & u64::from(u32::MAX);
    1 << bits | (below >> (32 - bits)) as usize
}

fn chunk(prefix: Prefix4) -> u32 {
    prefix.address() >> CHUNK_SHIFT
}

fn in_page(chunk: u32) -> usize {
    chunk as usize % PAGE_CHUNKS
}

/// /18s in an /8.
pub(super) const PAGE_CHUNKS: usize = 1 << 10;
const LOW: u32 = (1 << CHUNK_SHIFT) - 1;
/// No chunk.
const NONE: u32 = u32::MAX;
