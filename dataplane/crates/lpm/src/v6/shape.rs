//! Which entries lead where: routes cut into parts and fans, and what each becomes in the table.
//!
//! A change is made in two steps. All that it needs is built, with nothing shown or given back
//! ([`Tree::stage`]); and only when all of it is there, it takes the place of what was before
//! ([`Tree::commit`]), or else it is thrown away ([`Tree::discard`]).

use std::collections::HashSet;
use std::sync::Arc;

use super::build::{Blocks, End, Refused, is_leaf};
use super::rib::{Both, Cell, Fan, Home, Long, Part, ROUTE_LEN, Route, Routes, node};
use super::sketch::{Keyed, Sketch, keyed};
use super::*;
use crate::arena::Arena;
use crate::{Address, Prefix6};

/// The routes and the table that is built from them.
#[derive(Debug)]
pub(super) struct Tree {
    pub routes: Routes,
    pub blocks: Blocks,
    /// Of the change under way.
    staged: Vec<Staged>,
    sketch: Sketch<u128>,
    low_sketch: Sketch<u64>,
    keys: Vec<Keyed>,
    /// 4 KiB of the direct table that were ever written.
    pages: HashSet<u32>,
}

/// Neighbouring entries that are to be the same.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u8,
    last: u8,
    cell: Cell,
    entry: Entry,
    size: u8,
}

#[derive(Clone, Copy, Debug)]
struct Staged {
    home: Home,
    piece: Piece,
}

/// Where parts are: the entries of a slot or fan.
#[derive(Clone, Copy, Debug)]
struct Place {
    home: Home,
    start: u128,
    /// The octet that is the index, or none in a slot, of which there is one.
    octet: Option<u8>,
}

impl Place {
    /// The octet that is the first of the keys of a part.
    fn key_octet(self, is_single: bool) -> u8 {
        let octet = self.octet.map_or(DIRECT, |octet| octet + u8::from(is_single));
        octet.min(LAST_KEY)
    }

    fn byte(self, address: u128) -> u8 {
        self.octet.map_or(0, |octet| octet_of(address, octet))
    }

    /// The first and last address below an entry.
    fn range(self, byte: u8) -> (u128, u128) {
        let len = self.octet.map_or(8 * DIRECT, |octet| 8 * octet + 8);
        // A slot's only byte is 0.
        let first = self.start | u128::from(byte).checked_shl(128 - u32::from(len)).unwrap_or(0);
        (first, first.last(len))
    }
}

impl Tree {
    pub fn new(routes: Routes, blocks: Blocks) -> Self {
        Self {
            routes,
            blocks,
            staged: Vec::new(),
            sketch: Sketch::default(),
            low_sketch: Sketch::default(),
            keys: Vec::new(),
            pages: HashSet::new(),
        }
    }

    /// Octets of the direct table that are there.
    pub fn direct_bytes(&self) -> usize {
        self.pages.len() * PAGE_SLOTS * size_of::<AtomicU32>()
    }

    /// Builds what is dirty. When there is no room for it, all that was built is gone again.
    pub fn stage(&mut self) -> Result<(), Refused> {
        let mut dirty = std::mem::take(&mut self.routes.dirty);
        if dirty.len() > 1 {
            dirty.sort_unstable();
            dirty.dedup();
        }
        let mut result = Ok(());
        let mut done: Option<(Home, u8)> = None;
        for &(home, byte) in &dirty {
            if done.is_some_and(|done| done.0 == home && byte <= done.1) {
                continue;
            }
            match self.stage_cell(home, byte) {
                Ok(last) => done = Some((home, last)),
                Err(refused) => {
                    result = Err(refused);
                    break;
                }
            }
        }
        self.routes.dirty = dirty;
        if result.is_err() {
            self.discard();
        }
        result
    }

    /// Builds what an entry leads to; the last of those that lead to the same.
    fn stage_cell(&mut self, home: Home, byte: u8) -> Result<u8, Refused> {
        match self.routes.cell(home, byte) {
            // Its own entries are dirty where they change.
            Cell::Fan(_) => Ok(byte),
            Cell::Part(number) if !self.routes.parts.items[number as usize].is_empty() => {
                self.stage_part(home, byte, number)
            }
            cell => {
                let (first, last) = self.extent(cell, byte);
                for byte in first..=last {
                    let entry = self.blocks.constant(self.routes.base(home, byte), 1)?;
                    let piece = Piece { first: byte, last: byte, cell: Cell::Empty, entry, size: 1 };
                    self.staged.push(Staged { home, piece });
                }
                Ok(last)
            }
        }
    }

    fn extent(&self, cell: Cell, byte: u8) -> (u8, u8) {
        match cell {
            Cell::Part(number) => {
                let part = &self.routes.parts.items[number as usize];
                (part.first, part.last)
            }
            _ => (byte, byte),
        }
    }

    fn place(&self, home: Home) -> Place {
        match home {
            Home::Slot(_, slot) => Place { home, start: u128::from(slot) << SLOT_SHIFT, octet: None },
            Home::Fan(number) => {
                let fan = &self.routes.fans.items[number as usize];
                Place { home, start: fan.start, octet: Some(fan.octet) }
            }
        }
    }

    fn stage_part(&mut self, home: Home, byte: u8, number: u32) -> Result<u8, Refused> {
        let place = self.place(home);
        let part = &self.routes.parts.items[number as usize];
        let (first, last) = (part.first, part.last);
        if part.count() <= MOST_ROUTES {
            let is_single = first == last;
            let leaves = if is_single { NODE_LEAVES } else { 1 };
            let users = u32::from(last - first) + 1;
            let octet = place.key_octet(is_single);
            let (entry, intervals) = if part.long.is_empty() {
                sketch_low(&mut self.low_sketch, &self.routes, place, part);
                let starts = &self.low_sketch.starts;
                let shift = 8 * (octet - DIRECT);
                let keys = starts.iter().map(|&(low, value)| ((low as u32) << shift, value));
                (self.blocks.whole_entry(keys, octet, leaves, users), starts.len())
            } else {
                self.sketch.starts.clear();
                let mut routes = Both::new(place.start, &part.routes, &part.long);
                for byte in first..=last {
                    let (inside, others) = routes.split(place.range(byte).1);
                    sketch_cell(&mut self.sketch, &self.routes, place, byte, inside);
                    routes = others;
                }
                let starts = &self.sketch.starts;
                (self.blocks.entry(starts, place.range(last).1, octet, leaves, users), starts.len())
            };
            match entry {
                Ok(entry) => {
                    let piece = Piece { first, last, cell: Cell::Part(number), entry, size: size(intervals) };
                    self.staged.push(Staged { home, piece });
                    return Ok(last);
                }
                Err(Refused::Full) => return Err(Refused::Full),
                Err(Refused::Crowded) => {}
            }
        }
        let part = &self.routes.parts.items[number as usize];
        let (routes, long) = (part.routes.clone(), part.long.clone());
        let all = Both::new(place.start, &routes, &long);
        let mut pieces = Vec::new();
        let result = if first == last {
            self.crowd(place, byte, all, &mut pieces)
        } else {
            self.pack(place, first, last, all, &mut pieces)
        };
        self.staged.extend(pieces.into_iter().map(|piece| Staged { home, piece }));
        result.map(|()| last)
    }

    /// Too many routes for one part below an entry: a fan.
    fn crowd(&mut self, place: Place, byte: u8, all: Both<'_>, pieces: &mut Vec<Piece>) -> Result<(), Refused> {
        let octet = place.octet.map_or(DIRECT, |octet| octet + 1);
        let (entry, block) = self.blocks.array(octet)?;
        let mut fan = Fan {
            home: place.home,
            byte,
            start: place.range(byte).0,
            octet,
            base: self.routes.base(place.home, byte),
            count: all.count() as u32,
            block,
            cover: vec![0; 2 * FAN].into(),
            cells: vec![Cell::Empty; FAN].into(),
        };
        let len = 8 * octet + 8;
        for (address, route_len, value) in all {
            if route_len <= len {
                fan.cover[node(Prefix6::containing(address, route_len).expect("a route"), octet)] = value;
            }
        }
        let routes: Vec<Route> = all.routes.iter().filter(|route| route.len > len).copied().collect();
        let long: Vec<Long> = all.long.iter().filter(|long| long.len > len).copied().collect();
        let below = Both { routes: &routes, long: &long, ..all };
        let place =
            Place { home: Home::Fan(self.routes.fans.add(fan)), start: place.range(byte).0, octet: Some(octet) };
        let Home::Fan(number) = place.home else { unreachable!("just made") };

        let mut inside = Vec::new();
        let result = self.pack(place, 0, u8::MAX, below, &mut inside);
        if result.is_err() {
            self.end_pieces(&inside, Arena::give);
            self.routes.fans.remove(number);
            self.blocks.arena.give(block);
            return result;
        }
        for piece in inside {
            // No reader can see it yet.
            self.show(place.home, piece);
        }
        pieces.push(Piece { first: byte, last: byte, cell: Cell::Fan(number), entry, size: u8::MAX });
        Ok(())
    }

    /// Deals routes below a fan's entries out to parts, as many neighbours to a leaf as fit. Adds
    /// to `pieces`, also what was built before it is refused.
    fn pack(
        &mut self,
        place: Place,
        first: u8,
        last: u8,
        all: Both<'_>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Refused> {
        let mut sketch = Sketch::default();
        let mut open: Option<Open<'_>> = None;
        let mut left = all;
        // What is before this is in a piece.
        let mut from = u16::from(first);
        while let Some((address, ..)) = left.clone().next() {
            let byte = place.byte(address);
            let whole = left;
            let (inside, others) = left.split(place.range(byte).1);
            left = others;
            if let Some(group) = &mut open {
                let kept = sketch.starts.len();
                for gap in group.last + 1..byte {
                    sketch_cell(&mut sketch, &self.routes, place, gap, inside.none());
                }
                sketch_cell(&mut sketch, &self.routes, place, byte, inside);
                let routes = group.whole.without(left);
                if routes.count() <= MOST_GROUPED && self.is_leaf(place, &sketch, byte) {
                    (group.last, group.routes) = (byte, routes);
                    continue;
                }
                sketch.starts.truncate(kept);
                self.close(place, *group, &sketch, &mut from, pieces)?;
            }
            sketch.starts.clear();
            sketch_cell(&mut sketch, &self.routes, place, byte, inside);
            open = Some(Open { first: byte, last: byte, routes: inside, whole });
        }
        if let Some(group) = open {
            self.close(place, group, &sketch, &mut from, pieces)?;
        }
        self.gap(place, from..u16::from(last) + 1, pieces)
    }

    fn is_leaf(&mut self, place: Place, sketch: &Sketch<u128>, last: u8) -> bool {
        let shift = 96 - 8 * u32::from(place.key_octet(false));
        // Each may end up as a key of its own or with others below one.
        keyed(&sketch.starts, place.range(last).1, shift, &mut self.keys);
        is_leaf(&self.keys)
    }

    /// Makes a part of what was gathered, and pieces of the entries before it that have no routes.
    fn close(
        &mut self,
        place: Place,
        group: Open<'_>,
        sketch: &Sketch<u128>,
        from: &mut u16,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Refused> {
        let Open { first, last, routes, .. } = group;
        self.gap(place, *from..u16::from(first), pieces)?;
        *from = u16::from(last) + 1;
        let is_single = first == last;
        let leaves = if is_single { NODE_LEAVES } else { 1 };
        let users = u32::from(last - first) + 1;
        let result = if routes.count() <= MOST_ROUTES {
            self.blocks.entry(&sketch.starts, place.range(last).1, place.key_octet(is_single), leaves, users)
        } else {
            Err(Refused::Crowded)
        };
        let entry = match result {
            Err(Refused::Crowded) => return self.crowd(place, first, routes, pieces),
            other => other?,
        };
        let size = size(sketch.starts.len());
        let part = Part { routes: routes.routes.to_vec(), long: routes.long.to_vec(), first, last, size };
        let cell = Cell::Part(self.routes.parts.add(part));
        pieces.push(Piece { first, last, cell, entry, size });
        Ok(())
    }

    /// Pieces of entries without routes of their own.
    fn gap(&mut self, place: Place, bytes: std::ops::Range<u16>, pieces: &mut Vec<Piece>) -> Result<(), Refused> {
        let mut bytes = bytes.map(|byte| byte as u8).peekable();
        while let Some(first) = bytes.next() {
            let base = self.routes.base(place.home, first);
            let mut last = first;
            while let Some(next) = bytes.next_if(|&next| self.routes.base(place.home, next) == base) {
                last = next;
            }
            let entry = self.blocks.constant(base, u32::from(last - first) + 1)?;
            pieces.push(Piece { first, last, cell: Cell::Empty, entry, size: 1 });
        }
        Ok(())
    }

    /// Shows to readers what was staged, and retires what was there before.
    pub fn commit(&mut self) {
        let mut done: Option<(Home, u8)> = None;
        let mut staged = std::mem::take(&mut self.staged);
        for &Staged { home, piece } in &staged {
            let mut byte = u16::from(piece.first);
            // A part that is now in several pieces was retired with the first.
            if let Some((_, last)) = done.filter(|done| done.0 == home) {
                byte = byte.max(u16::from(last) + 1);
            }
            while byte <= u16::from(piece.last) {
                let last = self.retire(home, byte as u8, piece.cell);
                done = Some((home, last));
                byte = u16::from(last) + 1;
            }
            self.show(home, piece);
        }
        staged.clear();
        self.staged = staged;
        let dirty = std::mem::take(&mut self.routes.dirty);
        for &(home, byte) in &dirty {
            self.tidy(home, byte);
        }
        self.routes.dirty = dirty;
        self.routes.dirty.clear();
    }

    /// Throws away what was staged.
    pub fn discard(&mut self) {
        for Staged { home, piece } in std::mem::take(&mut self.staged) {
            if self.routes.cell(home, piece.first) == piece.cell {
                self.blocks.end(piece.entry, piece.users(), Arena::give);
            } else {
                self.end_piece(piece, Arena::give);
            }
        }
    }

    /// Takes all of a VRF out, but for its short routes, and returns how many there were.
    pub fn clear(&mut self, vrf: u16) -> usize {
        let Some(routes) = self.routes.take_vrf(vrf) else { return 0 };
        let table = Arc::clone(&self.blocks.table);
        let covered = routes.covered().map(|slot| (slot, Cell::Empty));
        for (slot, cell) in routes.slots.iter().map(|(&slot, held)| (slot, held.cell)).chain(covered) {
            let entry = table.slot(vrf, slot);
            let old = Entry(entry.load(Relaxed));
            if old != Entry::NONE {
                entry.store(0, Release);
            }
            match cell {
                Cell::Fan(number) => self.end_fan(number, Arena::retire),
                Cell::Part(number) => {
                    self.routes.parts.remove(number);
                    self.blocks.end(old, 1, Arena::retire);
                }
                Cell::Empty => self.blocks.end(old, 1, Arena::retire),
            }
        }
        routes.count()
    }

    /// Retires what an entry leads to, unless it is a fan that stays, and returns the last of those
    /// that lead to the same. `new` takes its place.
    fn retire(&mut self, home: Home, byte: u8, new: Cell) -> u8 {
        let cell = self.routes.cell(home, byte);
        if let Cell::Fan(number) = cell {
            self.end_fan(number, Arena::retire);
            return byte;
        }
        let entry = Entry(self.place_entry(home, byte));
        let (first, last) = self.extent(cell, byte);
        self.blocks.end(entry, u32::from(last - first) + 1, Arena::retire);
        if let Cell::Part(number) = cell
            && cell != new
        {
            self.routes.parts.remove(number);
        }
        last
    }

    fn place_entry(&self, home: Home, byte: u8) -> u32 {
        let table = &self.blocks.table;
        match home {
            Home::Slot(vrf, slot) => table.slot(vrf, slot).load(Relaxed),
            Home::Fan(number) => {
                table.array(self.routes.fans.items[number as usize].block)[usize::from(byte)].load(Relaxed)
            }
        }
    }

    fn show(&mut self, home: Home, piece: Piece) {
        let table = &self.blocks.table;
        match home {
            Home::Slot(vrf, slot) => {
                let entry = table.slot(vrf, slot);
                if piece.entry != Entry::NONE && entry.load(Relaxed) == 0 {
                    table.mark_octet(vrf, slot);
                    self.pages.insert((u32::from(vrf) << PAGE_BITS) + slot / PAGE_SLOTS as u32);
                }
                entry.store(piece.entry.0, Release);
            }
            Home::Fan(number) => {
                let entries = table.array(self.routes.fans.items[number as usize].block);
                for entry in &entries[usize::from(piece.first)..=usize::from(piece.last)] {
                    entry.store(piece.entry.0, Release);
                }
            }
        }
        if let Cell::Part(number) = piece.cell {
            self.routes.parts.items[number as usize].size = piece.size;
        }
        self.routes.put(home, piece.first, piece.last, piece.cell);
    }

    fn end_pieces(&mut self, pieces: &[Piece], end: End) {
        for &piece in pieces {
            self.end_piece(piece, end);
        }
    }

    fn end_piece(&mut self, piece: Piece, end: End) {
        match piece.cell {
            Cell::Fan(number) => return self.end_fan(number, end),
            Cell::Part(number) => drop(self.routes.parts.remove(number)),
            Cell::Empty => {}
        }
        self.blocks.end(piece.entry, piece.users(), end);
    }

    /// A fan with all below it.
    fn end_fan(&mut self, number: u32, end: End) {
        let fan = self.routes.fans.remove(number);
        let table = Arc::clone(&self.blocks.table);
        let entries = table.array(fan.block);
        let mut byte = 0;
        while byte < FAN {
            let cell = fan.cells[byte];
            let (first, last) = self.extent(cell, byte as u8);
            let entry = Entry(entries[byte].load(Relaxed));
            self.end_piece(Piece { first, last, cell, entry, size: 0 }, end);
            byte = usize::from(last) + 1;
        }
        end(&mut self.blocks.arena, fan.block);
    }

    /// Where a change left few routes: a fan becomes a part again, and a part joins a neighbour.
    /// It is as well without, so where there is no room, nothing changes.
    fn tidy(&mut self, home: Home, byte: u8) {
        let Home::Fan(number) = home else { return };
        let fan = &self.routes.fans.items[number as usize];
        if fan.cells.is_empty() {
            // It went with another.
            return;
        }
        if (fan.count as usize) < FEW_ROUTES {
            let mut number = number;
            while let Home::Fan(above) = self.routes.fans.items[number as usize].home
                && (self.routes.fans.items[above as usize].count as usize) < FEW_ROUTES
            {
                number = above;
            }
            return self.fold(number);
        }
        let Cell::Part(part) = fan.cells[usize::from(byte)] else { return };
        let part = &self.routes.parts.items[part as usize];
        if part.size > FEW_INTERVALS {
            return;
        }
        let is_part = |cell: &&Cell| **cell != Cell::Empty;
        let before = fan.cells[..usize::from(part.first)].iter().rev().find(is_part);
        let behind = fan.cells[usize::from(part.last) + 1..].iter().find(is_part);
        let sides = [before, behind].into_iter().flatten();
        let others = sides.filter_map(|&cell| match cell {
            Cell::Part(number) => Some(&self.routes.parts.items[number as usize]),
            _ => None,
        });
        let together = others.map(|other| if other.first < part.first { (other, part) } else { (part, other) });
        let fits = |(left, right): &(&Part, &Part)| usize::from(left.size) + usize::from(right.size) < LEAF_VALUES;
        let Some((left, right)) = together.into_iter().find(fits) else { return };
        let routes = [&left.routes[..], &right.routes].concat();
        let long = [&left.long[..], &right.long].concat();
        self.join(home, left.first, right.last, &routes, &long);
    }

    fn join(&mut self, home: Home, first: u8, last: u8, routes: &[Route], long: &[Long]) {
        let place = self.place(home);
        let mut pieces = Vec::new();
        match self.pack(place, first, last, Both::new(place.start, routes, long), &mut pieces) {
            Ok(()) => self.replace(home, first, last, &pieces),
            Err(_) => self.end_pieces(&pieces, Arena::give),
        }
    }

    fn fold(&mut self, number: u32) {
        let (mut routes, mut long) = (Vec::new(), Vec::new());
        self.gather(number, &mut routes, &mut long);
        routes.sort_unstable_by_key(Route::key);
        long.sort_unstable_by_key(Long::key);
        let fan = &self.routes.fans.items[number as usize];
        let (home, byte) = (fan.home, fan.byte);
        let place = self.place(home);
        self.sketch.starts.clear();
        let all = Both::new(place.start, &routes, &long);
        sketch_cell(&mut self.sketch, &self.routes, place, byte, all);
        let end = place.range(byte).1;
        let starts = &self.sketch.starts;
        if let Ok(entry) = self.blocks.entry(starts, end, place.key_octet(true), NODE_LEAVES, 1) {
            let size = size(starts.len());
            let cell = Cell::Part(self.routes.parts.add(Part { routes, long, first: byte, last: byte, size }));
            self.replace(home, byte, byte, &[Piece { first: byte, last: byte, cell, entry, size }]);
        }
    }

    fn gather(&self, number: u32, routes: &mut Vec<Route>, long: &mut Vec<Long>) {
        let fan = &self.routes.fans.items[number as usize];
        for (node, &value) in fan.cover.iter().enumerate().skip(2).filter(|(_, value)| **value != 0) {
            let bits = node.ilog2() as u8;
            let index = (node - (1 << bits)) as u128;
            let len = 8 * fan.octet + bits;
            let address = fan.start | index << (128 - u32::from(len));
            if len <= ROUTE_LEN {
                routes.push(Route::new(address, len, value));
            } else {
                long.push(Long { address, len, value });
            }
        }
        let mut byte = 0;
        while byte < FAN {
            match fan.cells[byte] {
                Cell::Part(part) => {
                    let part = &self.routes.parts.items[part as usize];
                    routes.extend_from_slice(&part.routes);
                    long.extend_from_slice(&part.long);
                    byte = usize::from(part.last);
                }
                Cell::Fan(below) => self.gather(below, routes, long),
                Cell::Empty => {}
            }
            byte += 1;
        }
    }

    /// Puts pieces in the place of whatever is there.
    fn replace(&mut self, home: Home, first: u8, last: u8, pieces: &[Piece]) {
        let mut byte = u16::from(first);
        while byte <= u16::from(last) {
            byte = u16::from(self.retire(home, byte as u8, Cell::Empty)) + 1;
        }
        for &piece in pieces {
            self.show(home, piece);
        }
    }
}

/// What may become a part.
#[derive(Clone, Copy, Debug)]
struct Open<'r> {
    first: u8,
    last: u8,
    routes: Both<'r>,
    /// These and all that follow.
    whole: Both<'r>,
}

impl Piece {
    fn users(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }
}

/// Adds what is below an entry.
fn sketch_cell(sketch: &mut Sketch<u128>, routes: &Routes, place: Place, byte: u8, inside: Both<'_>) {
    let (first, last) = place.range(byte);
    let inside = inside.map(|(address, len, value)| (address, address.last(len), value));
    sketch.add(first, last, routes.base(place.home, byte), inside);
}

/// All that is in a part without long routes, by the 32 bits below the slot. There is a bit more,
/// for the end of the last.
fn sketch_low(sketch: &mut Sketch<u64>, routes: &Routes, place: Place, part: &Part) {
    sketch.starts.clear();
    let mut left = &part.routes[..];
    for byte in part.first..=part.last {
        let (first, last) = place.range(byte);
        let (first, last) = (Route::low(first), Route::low(last));
        let count = match byte == part.last {
            true => left.len(),
            false => left.iter().take_while(|route| route.low <= last).count(),
        };
        let (inside, others) = left.split_at(count);
        left = others;
        let inside = inside.iter().map(|route| (u64::from(route.low), u64::from(route.last()), route.value));
        sketch.add(u64::from(first), u64::from(last), routes.base(place.home, byte), inside);
    }
}

fn size(intervals: usize) -> u8 {
    u8::try_from(intervals).unwrap_or(u8::MAX)
}

/// Routes of a part below a single entry, and of one that neighbours share: more are not worth
/// going through for each change.
const MOST_ROUTES: usize = 256;
const MOST_GROUPED: usize = 32;
/// A fan with fewer becomes a part.
const FEW_ROUTES: usize = 64;
/// A part with no more looks for a neighbour.
const FEW_INTERVALS: u8 = 4;
/// Slots in a page of 4 KiB, and the pages of a VRF as a power of two.
const PAGE_SLOTS: usize = 1024;
const PAGE_BITS: u32 = SLOTS.ilog2() - PAGE_SLOTS.ilog2();
