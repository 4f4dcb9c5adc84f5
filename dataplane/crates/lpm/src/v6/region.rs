//! The routes below an entry, and the lines or the array that it points to.
//!
//! Routes are kept in a tree of the shape that readers walk: sorted where lines are built from
//! them, spread over cells where there is an array. A change marks the regions that it touches;
//! [`Region::rebuild`] makes what they will point to, and only [`Region::publish`] shows it.

use super::build::{Blocks, Interval, Refused};
use super::*;
use crate::arena::Arena;
use crate::{Address, Prefix6};

/// The addresses of a prefix of `depth` bits, which whoever holds the region knows.
#[derive(Debug)]
pub(super) struct Region {
    /// What readers see.
    entry: u32,
    /// The value of the longest route above that holds all of it, or zero: when the entry was
    /// made, and next time.
    cover: u16,
    pub next_cover: u16,
    /// Routes in it.
    count: usize,
    is_dirty: bool,
    body: Body,
    next: Option<Next>,
}

#[derive(Debug)]
enum Body {
    Flat {
        /// In order of address, then length: whatever holds a route comes before it.
        routes: Vec<Route>,
        blocks: Vec<Block>,
    },
    Array(Box<Array>),
}

#[derive(Debug)]
struct Array {
    stride: u32,
    block: Block,
    /// How many routes there were when the stride was chosen.
    chosen_for: usize,
    /// The routes that hold whole cells, as a binary tree: the node of a prefix that is `l` bits
    /// longer than the region's is `2^l` plus these bits.
    short: Box<[u16]>,
    /// The routes that are longer, by cell.
    cells: Box<[Option<Box<Region>>]>,
    /// One bit for each cell.
    dirty: [u64; CELLS / 64],
    /// Cells that get one value.
    next: Vec<(usize, u32)>,
}

/// What takes the place of what readers see.
#[derive(Debug)]
enum Next {
    Lines(u32, Vec<Block>),
    Whole(Box<Region>),
    /// Cells of the array only.
    Cells,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// In halves, which need less alignment.
    high: u64,
    low: u64,
    len: u8,
    value: u16,
}

/// There is no room; nothing has been shown.
#[derive(Debug)]
pub(super) struct Full;

/// What rebuilding needs each time, kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    intervals: Vec<Interval>,
    open: Vec<(u128, u16)>,
}

impl Route {
    fn new(prefix: Prefix6, value: u16) -> Self {
        let address = prefix.address();
        Self { high: (address >> 64) as u64, low: address as u64, len: prefix.len(), value }
    }

    fn address(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn order(&self) -> (u64, u64, u8) {
        (self.high, self.low, self.len)
    }
}

impl Region {
    /// Without routes: an entry of one value, `cover`.
    pub fn empty(entry: u32, cover: u16) -> Self {
        let body = Body::Flat { routes: Vec::new(), blocks: Vec::new() };
        Self { entry, cover, next_cover: cover, count: 0, is_dirty: false, body, next: None }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Has to be rebuilt, because what is above it changed.
    pub fn touch(&mut self, cover: u16) {
        self.next_cover = cover;
        self.is_dirty = true;
    }

    pub fn value(&self, depth: u32, prefix: Prefix6) -> u16 {
        match &self.body {
            Body::Flat { routes, .. } => find(routes, prefix).map_or(0, |place| routes[place].value),
            Body::Array(array) if u32::from(prefix.len()) <= depth + array.stride => {
                array.short[array.node(depth, prefix)]
            }
            Body::Array(array) => {
                let cell = &array.cells[array.cell(depth, prefix.address())];
                cell.as_ref().map_or(0, |cell| cell.value(depth + array.stride, prefix))
            }
        }
    }

    /// Sets, or with zero removes, a route that is longer than the region's prefix; returns the
    /// value it had.
    pub fn set(&mut self, table: &Table, depth: u32, prefix: Prefix6, new: u16) -> u16 {
        let old = match &mut self.body {
            Body::Flat { routes, .. } => set_sorted(routes, prefix, new),
            Body::Array(array) => array.set(table, depth, prefix, new),
        };
        self.is_dirty |= old != new;
        self.count += usize::from(new != 0);
        self.count -= usize::from(old != 0);
        old
    }

    /// Makes what a dirty region will point to.
    pub fn rebuild(&mut self, blocks: &mut Blocks, scratch: &mut Scratch, depth: u32, end: u128) -> Result<(), Full> {
        debug_assert!(self.next.is_none());
        let cover = self.next_cover;
        let routes = match &mut self.body {
            Body::Flat { routes, .. } if routes.len() <= MOST_FLAT => {
                let mut new = Vec::new();
                match lines(routes, blocks, scratch, depth, end, cover, &mut new) {
                    Ok(entry) => {
                        self.next = Some(Next::Lines(entry, new));
                        return Ok(());
                    }
                    Err(refused) => {
                        new.into_iter().for_each(|block| blocks.arena.give(block));
                        if refused == Refused::Full {
                            return Err(Full);
                        }
                    }
                }
                routes.clone()
            }
            Body::Flat { routes, .. } => routes.clone(),
            Body::Array(array) => {
                let is_fit = array.is_fit_for(self.count);
                // Where there is no room for another shape, the one it has will do.
                if !is_fit && let Ok(whole) = self.reshape(blocks, scratch, depth, end) {
                    self.next = Some(Next::Whole(whole));
                    return Ok(());
                }
                self.next = Some(Next::Cells);
                let Body::Array(array) = &mut self.body else { unreachable!("it was one above") };
                return array.rebuild(blocks, scratch, depth, end, (self.cover, cover));
            }
        };
        self.next = Some(Next::Whole(Self::build(routes, blocks, scratch, depth, end, cover)?));
        Ok(())
    }

    /// The same routes in the shape that suits them now.
    fn reshape(&self, blocks: &mut Blocks, scratch: &mut Scratch, depth: u32, end: u128) -> Result<Box<Self>, Full> {
        let mut routes = Vec::with_capacity(self.count);
        self.gather(depth, end, &mut routes);
        routes.sort_unstable_by_key(Route::order);
        Self::build(routes, blocks, scratch, depth, end, self.next_cover)
    }

    /// Shows readers what was made, in the entry that points to the region.
    pub fn publish(&mut self, blocks: &mut Blocks, slot: &AtomicU32) {
        match self.next.take() {
            Some(Next::Lines(entry, new)) => {
                slot.store(entry, Release);
                let Body::Flat { blocks: held, .. } = &mut self.body else {
                    unreachable!("lines are made from sorted routes");
                };
                let held = std::mem::replace(held, new);
                blocks.end(std::mem::replace(&mut self.entry, entry), &held, Arena::retire);
            }
            Some(Next::Whole(new)) => {
                slot.store(new.entry, Release);
                std::mem::replace(self, *new).end(blocks, Arena::retire);
            }
            Some(Next::Cells) => {
                if let Body::Array(array) = &mut self.body {
                    array.publish(blocks);
                }
            }
            None => {}
        }
        self.cover = self.next_cover;
        self.is_dirty = false;
    }

    /// Gives back what was made, or was to be made: the routes are as they were.
    pub fn forget(&mut self, blocks: &mut Blocks) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        match self.next.take() {
            Some(Next::Lines(entry, new)) => blocks.end(entry, &new, Arena::give),
            Some(Next::Whole(new)) => new.end(blocks, Arena::give),
            Some(Next::Cells) | None => {}
        }
        if let Body::Array(array) = &mut self.body {
            for (_, entry) in array.next.drain(..) {
                blocks.release(entry, 1, Arena::give);
            }
            for cell in std::mem::take(&mut array.dirty).into_iter().enumerate().flat_map(bits) {
                if let Some(region) = &mut array.cells[cell] {
                    region.forget(blocks);
                }
            }
        }
        self.next_cover = self.cover;
    }

    /// All of it goes.
    pub fn end(self, blocks: &mut Blocks, end: fn(&mut Arena, Block)) {
        match self.body {
            Body::Flat { blocks: held, .. } => blocks.end(self.entry, &held, end),
            Body::Array(array) => {
                for (cell, region) in array.cells.into_iter().enumerate() {
                    match region {
                        Some(region) => region.end(blocks, end),
                        None => blocks.release(blocks.table.words(array.block)[cell].load(Relaxed), 1, end),
                    }
                }
                end(&mut blocks.arena, array.block);
            }
        }
    }

    /// A region of sorted routes that no reader has seen.
    fn build(
        routes: Vec<Route>,
        blocks: &mut Blocks,
        scratch: &mut Scratch,
        depth: u32,
        end: u128,
        cover: u16,
    ) -> Result<Box<Self>, Full> {
        let count = routes.len();
        if count <= MOST_FLAT {
            let mut new = Vec::new();
            match lines(&routes, blocks, scratch, depth, end, cover, &mut new) {
                Ok(entry) => {
                    let body = Body::Flat { routes, blocks: new };
                    let is_dirty = false;
                    return Ok(Box::new(Self { entry, cover, next_cover: cover, count, is_dirty, body, next: None }));
                }
                Err(refused) => {
                    new.into_iter().for_each(|block| blocks.arena.give(block));
                    if refused == Refused::Full {
                        return Err(Full);
                    }
                }
            }
        }
        let (entry, array) = Array::build(routes, blocks, scratch, depth, end, cover)?;
        let body = Body::Array(Box::new(array));
        Ok(Box::new(Self { entry, cover, next_cover: cover, count, is_dirty: false, body, next: None }))
    }

    /// All routes, those of arrays in no order.
    fn gather(&self, depth: u32, end: u128, routes: &mut Vec<Route>) {
        let array = match &self.body {
            Body::Flat { routes: held, .. } => return routes.extend_from_slice(held),
            Body::Array(array) => array,
        };
        for (node, &value) in array.short.iter().enumerate().filter(|(_, value)| **value != 0) {
            let bits = node.ilog2();
            let len = (depth + bits) as u8;
            let address = end.first(depth as u8) | (node as u128 & !(1 << bits)) << (128 - depth - bits);
            routes.push(Route::new(Prefix6::containing(address, len).expect("as long as it was"), value));
        }
        for (cell, region) in array.cells.iter().enumerate() {
            if let Some(region) = region {
                region.gather(depth + array.stride, array.cell_end(depth, end, cell), routes);
            }
        }
    }
}

impl Array {
    fn build(
        routes: Vec<Route>,
        blocks: &mut Blocks,
        scratch: &mut Scratch,
        depth: u32,
        end: u128,
        cover: u16,
    ) -> Result<(u32, Self), Full> {
        let stride = stride(&routes, depth);
        let count = 1 << stride;
        let mut array = Self {
            stride,
            block: Block { word: 0, size: crate::arena::Size::holding(LINE_BYTES) },
            chosen_for: routes.len(),
            short: vec![0; 2 * count].into(),
            cells: (0..count).map(|_| None).collect(),
            dirty: [0; CELLS / 64],
            next: Vec::new(),
        };
        let mut by_cell = vec![Vec::new(); count];
        for route in routes {
            if u32::from(route.len) <= depth + stride {
                let prefix = Prefix6::containing(route.address(), route.len).expect("it was one");
                let node = array.node(depth, prefix);
                array.short[node] = route.value;
            } else {
                by_cell[array.cell(depth, route.address())].push(route);
            }
        }
        let mut entries = Vec::with_capacity(count);
        let mut built = Ok(());
        for (cell, routes) in by_cell.into_iter().enumerate() {
            let cover = array.cover(cell, cover);
            let entry = if routes.is_empty() {
                blocks.constant(cover, 1).ok_or(Full)
            } else {
                let end = array.cell_end(depth, end, cell);
                Region::build(routes, blocks, scratch, depth + stride, end, cover).map(|region| {
                    let entry = region.entry;
                    array.cells[cell] = Some(region);
                    entry
                })
            };
            match entry {
                Ok(entry) => entries.push(entry),
                Err(full) => {
                    built = Err(full);
                    break;
                }
            }
        }
        if built.is_ok()
            && let Some((entry, block)) = blocks.array(&entries)
        {
            array.block = block;
            return Ok((entry, array));
        }
        for (region, entry) in array.cells.into_iter().zip(entries) {
            match region {
                Some(region) => region.end(blocks, Arena::give),
                None => blocks.release(entry, 1, Arena::give),
            }
        }
        Err(Full)
    }

    fn set(&mut self, table: &Table, depth: u32, prefix: Prefix6, new: u16) -> u16 {
        if u32::from(prefix.len()) <= depth + self.stride {
            let node = self.node(depth, prefix);
            let old = std::mem::replace(&mut self.short[node], new);
            if old != new {
                let (first, last) = (self.cell(depth, prefix.address()), self.cell(depth, prefix.last()));
                (first..=last).for_each(|cell| self.touch(cell));
            }
            return old;
        }
        let cell = self.cell(depth, prefix.address());
        let region = match &mut self.cells[cell] {
            Some(region) => region,
            None if new == 0 => return 0,
            empty => {
                let entry = table.words(self.block)[cell].load(Relaxed);
                empty.insert(Box::new(Region::empty(entry, table.constant(entry))))
            }
        };
        let old = region.set(table, depth + self.stride, prefix, new);
        if old != new {
            self.touch(cell);
        }
        old
    }

    fn touch(&mut self, cell: usize) {
        self.dirty[cell / 64] |= 1 << (cell % 64);
    }

    fn rebuild(
        &mut self,
        blocks: &mut Blocks,
        scratch: &mut Scratch,
        depth: u32,
        end: u128,
        (old_cover, cover): (u16, u16),
    ) -> Result<(), Full> {
        if old_cover != cover {
            (0..self.cells.len()).for_each(|cell| self.touch(cell));
        }
        for cell in self.dirty.into_iter().enumerate().flat_map(bits) {
            let cover = self.cover(cell, cover);
            let end = self.cell_end(depth, end, cell);
            match &mut self.cells[cell] {
                Some(region) if region.count > 0 => {
                    if region.is_dirty || region.cover != cover {
                        region.touch(cover);
                        region.rebuild(blocks, scratch, depth + self.stride, end)?;
                    }
                }
                // A cell whose last route goes is one of one value again.
                _ => self.next.push((cell, blocks.constant(cover, 1).ok_or(Full)?)),
            }
        }
        Ok(())
    }

    fn publish(&mut self, blocks: &mut Blocks) {
        let table = std::sync::Arc::clone(&blocks.table);
        let words = table.words(self.block);
        for (cell, entry) in self.next.drain(..) {
            let old = words[cell].load(Relaxed);
            words[cell].store(entry, Release);
            match self.cells[cell].take() {
                Some(region) => region.end(blocks, Arena::retire),
                None => blocks.release(old, 1, Arena::retire),
            }
        }
        for cell in std::mem::take(&mut self.dirty).into_iter().enumerate().flat_map(bits) {
            if let Some(region) = &mut self.cells[cell] {
                region.publish(blocks, &words[cell]);
            }
        }
    }

    /// The value of the longest route that holds all of a cell, where `above` is that of those
    /// above the region.
    fn cover(&self, cell: usize, above: u16) -> u16 {
        let mut node = self.cells.len() + cell;
        while node > 1 {
            if self.short[node] != 0 {
                return self.short[node];
            }
            node /= 2;
        }
        above
    }

    /// Whether the stride suits so many routes; else all is built anew, which is rare enough for
    /// its cost, because the number has to become another by half first.
    fn is_fit_for(&self, count: usize) -> bool {
        count > LEAST_ARRAY
            && count > self.chosen_for / 4
            && (self.stride == MOST_STRIDE || count < self.chosen_for * 4)
    }

    fn node(&self, depth: u32, prefix: Prefix6) -> usize {
        let bits = u32::from(prefix.len()) - depth;
        1 << bits | (key(prefix.address(), depth) >> (32 - bits)) as usize
    }

    fn cell(&self, depth: u32, address: u128) -> usize {
        (key(address, depth) >> (32 - self.stride)) as usize
    }

    /// The last address of a cell of the region that ends with `end`.
    fn cell_end(&self, depth: u32, end: u128, cell: usize) -> u128 {
        let after = (self.cells.len() - 1 - cell) as u128;
        end - (after << (128 - depth - self.stride))
    }
}

/// The lines of sorted routes.
fn lines(
    routes: &[Route],
    blocks: &mut Blocks,
    scratch: &mut Scratch,
    depth: u32,
    end: u128,
    cover: u16,
    new: &mut Vec<Block>,
) -> Result<u32, Refused> {
    scratch.sweep(routes, depth, end, cover);
    blocks.lines(depth, &scratch.intervals, end, new)
}

impl Scratch {
    /// The intervals of sorted routes, `cover` where there are none.
    fn sweep(&mut self, routes: &[Route], depth: u32, end: u128, cover: u16) {
        let Self { intervals, open } = self;
        intervals.clear();
        let mut next = end.first(depth as u8);
        for route in routes {
            let first = route.address();
            while let Some((last, value)) = open.pop_if(|(last, _)| *last < first) {
                close(intervals, &mut next, last, value);
            }
            if next < first {
                push(intervals, first - 1, open.last().map_or(cover, |&(_, value)| value));
                next = first;
            }
            open.push((first.last(route.len), route.value));
        }
        while let Some((last, value)) = open.pop() {
            close(intervals, &mut next, last, value);
        }
        if intervals.last().is_none_or(|interval| interval.last != end) {
            push(intervals, end, cover);
        }
    }
}

fn close(intervals: &mut Vec<Interval>, next: &mut u128, last: u128, value: u16) {
    // What ends with a route inside it ends there; `next` is zero after the last address.
    if intervals.last().is_none_or(|interval| interval.last < last) {
        push(intervals, last, value);
        *next = last.wrapping_add(1);
    }
}

fn push(intervals: &mut Vec<Interval>, last: u128, value: u16) {
    match intervals.last_mut() {
        Some(before) if before.value == value => before.last = last,
        _ => intervals.push(Interval { last, value }),
    }
}

fn find(routes: &[Route], prefix: Prefix6) -> Result<usize, usize> {
    let wanted = Route::new(prefix, 0).order();
    // What is loaded in order goes to the end.
    match routes.last() {
        Some(last) if last.order() < wanted => Err(routes.len()),
        _ => routes.binary_search_by_key(&wanted, Route::order),
    }
}

fn set_sorted(routes: &mut Vec<Route>, prefix: Prefix6, new: u16) -> u16 {
    match find(routes, prefix) {
        Ok(place) if new != 0 => std::mem::replace(&mut routes[place].value, new),
        Ok(place) => routes.remove(place).value,
        Err(place) => {
            if new != 0 {
                routes.insert(place, Route::new(prefix, new));
            }
            0
        }
    }
}

/// The stride that takes the least memory or nearly so, and of those the greatest: a level less
/// is one access less.
fn stride(routes: &[Route], depth: u32) -> u32 {
    let most = MOST_STRIDE.min(128 - depth);
    let mut counts = [0_u32; CELLS];
    for route in routes {
        counts[(key(route.address(), depth) >> (32 - most)) as usize] += 1;
    }
    let cost = |stride: u32| -> u32 {
        let cells = counts[..1 << most].chunks(1 << (most - stride));
        let lines = cells.map(|cell| match cell.iter().sum() {
            0_u32 => 0,
            // Half as many intervals again as routes is what tables have.
            routes @ ..=5 => u32::from(routes > 0),
            routes @ ..=100 => 1 + (routes * 3).div_ceil(16),
            // An array more.
            routes => 8 + (routes * 3).div_ceil(16),
        });
        (4 << stride) + lines.sum::<u32>() * LINE_BYTES as u32
    };
    let costs: Vec<u32> = (1..=most).map(cost).collect();
    let least = costs.iter().min().expect("a region of full depth has no routes");
    let best = costs.iter().rposition(|cost| *cost <= least + least / 8).expect("the least itself");
    best as u32 + 1
}

/// The numbers of the bits that are set in the words of a set.
fn bits((word, mut bits): (usize, u64)) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros() as usize;
        (bits != 0).then(|| {
            bits &= bits - 1;
            word * 64 + bit
        })
    })
}

/// Routes that lines are built from at once; more are split by an array.
const MOST_FLAT: usize = 256;
/// Routes below which an array is given up.
const LEAST_ARRAY: usize = 48;
