//! The routes as they were given, cut up as the table is, so that little is built anew for each.
//!
//! Where an entry leads to an array there is a [`Fan`] with the routes of its octet; where it
//! leads to a leaf, node or host line, a [`Part`] with its routes in order.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::*;
use crate::{Prefix6, Value};

/// The routes of all VRFs, and where they changed since the table was last built.
#[derive(Debug)]
pub(super) struct Routes {
    vrfs: Box<[Option<Box<Vrf>>]>,
    pub parts: Slab<Part>,
    pub fans: Slab<Fan>,
    /// Entries, perhaps more than once.
    pub dirty: Vec<(Home, u8)>,
    /// VRFs whose routes of up to [`SHORT_LEN`] bits changed.
    pub dirty_shorts: Vec<u16>,
}

#[derive(Debug)]
pub(super) struct Vrf {
    count: usize,
    /// Routes of 0..=8 bits, in a binary tree without pointers: the node of a prefix of length `l`
    /// is `2^l` plus its bits.
    short: Box<[u16; 2 * SHORTS]>,
    /// Those that are longer, but not longer than a slot, and how many there are of each length.
    middle: BTreeMap<(u32, u8), u16>,
    middle_lens: [u32; 8 * DIRECT as usize + 1],
    pub slots: HashMap<u32, Slot, BuildHasherDefault<Spread>>,
}

/// A slot with longer routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub cell: Cell,
    /// The value of the longest route that holds all of it, short ones apart, or zero.
    pub base: u16,
}

/// What routes there are below an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// None, or none that the entry's surroundings do not know.
    Empty,
    /// Few.
    Part(u32),
    /// Many.
    Fan(u32),
}

/// Where an entry is: the VRF and number of a slot, or the number of a fan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Home {
    Slot(u16, u32),
    Fan(u32),
}

/// The routes below an entry that leads to an array.
#[derive(Debug)]
pub(super) struct Fan {
    /// The entry that leads to it.
    pub home: Home,
    pub byte: u8,
    /// The first address.
    pub start: u128,
    /// The octet that is the index.
    pub octet: u8,
    /// The value of the longest route that holds all of it, short ones apart, or zero.
    pub base: u16,
    /// Routes, all below included.
    pub count: u32,
    pub block: Block,
    /// Routes that end within the octet, in a tree as [`Vrf::short`]; the root is never used.
    pub cover: Box<[u16]>,
    pub cells: Box<[Cell]>,
}

/// The routes below an entry, or below neighbours in an array that are the same.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// In order of address, then length: whatever holds a route comes before it.
    pub routes: Vec<Route>,
    /// Those that do not fit there, in the same order.
    pub long: Vec<Long>,
    /// The octets that it is below; 0 and 0 in a slot.
    pub first: u8,
    pub last: u8,
    /// Intervals that it takes, or 255.
    pub size: u8,
}

/// A route of up to 32 bits more than a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The 32 bits below the slot.
    pub low: u32,
    pub len: u8,
    pub value: u16,
}

impl Route {
    /// The 32 bits of an address below its slot.
    pub fn low(address: u128) -> u32 {
        low(address)
    }

    /// The last of the 32 bits' numbers that it holds.
    pub fn last(self) -> u32 {
        // At least one bit longer than a slot.
        self.low | u32::MAX >> 1 >> (self.len - 8 * DIRECT - 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Long {
    pub address: u128,
    pub len: u8,
    pub value: u16,
}

impl Routes {
    pub fn new(vrfs: u16) -> Self {
        Self {
            vrfs: (0..vrfs).map(|_| None).collect(),
            parts: Slab::new(),
            fans: Slab::new(),
            dirty: Vec::new(),
            dirty_shorts: Vec::new(),
        }
    }

    pub fn has(&self, vrf: u16) -> bool {
        usize::from(vrf) < self.vrfs.len()
    }

    pub fn count(&self, vrf: u16) -> usize {
        self.vrf(vrf).map_or(0, |vrf| vrf.count)
    }

    /// Routes of all VRFs.
    pub fn total(&self) -> usize {
        self.vrfs.iter().flatten().map(|vrf| vrf.count).sum()
    }

    pub fn vrf(&self, vrf: u16) -> Option<&Vrf> {
        self.vrfs.get(usize::from(vrf))?.as_deref()
    }

    pub fn vrf_mut(&mut self, vrf: u16) -> Option<&mut Vrf> {
        self.vrfs.get_mut(usize::from(vrf))?.as_deref_mut()
    }

    /// All of a VRF.
    pub fn take_vrf(&mut self, vrf: u16) -> Option<Box<Vrf>> {
        self.vrfs.get_mut(usize::from(vrf))?.take()
    }

    pub fn value(&self, vrf: u16, prefix: Prefix6) -> Option<Value> {
        let vrf = self.vrf(vrf)?;
        let value = if prefix.len() <= SHORT_LEN {
            vrf.short[node(prefix, 0)]
        } else if prefix.len() <= 8 * DIRECT {
            *vrf.middle.get(&middle(prefix))?
        } else {
            let mut cell = vrf.slots.get(&slot(prefix.address()))?.cell;
            loop {
                match cell {
                    Cell::Empty => return None,
                    Cell::Part(number) => break self.parts.items[number as usize].value(prefix)?,
                    Cell::Fan(number) => {
                        let fan = &self.fans.items[number as usize];
                        if prefix.len() <= 8 * fan.octet + 8 {
                            break fan.cover[node(prefix, fan.octet)];
                        }
                        cell = fan.cells[octet(prefix.address(), fan.octet)];
                    }
                }
            }
        };
        Value::in_entry(u32::from(value))
    }

    /// Sets, or with `None` removes, a route of a VRF that there is; returns what it was. The
    /// entries that it concerns are dirty then.
    pub fn set(&mut self, vrf: u16, prefix: Prefix6, value: Option<Value>) -> Option<Value> {
        let new = value.map_or(0, Value::as_u16);
        if self.vrfs[usize::from(vrf)].is_none() {
            if new == 0 {
                return None;
            }
            self.vrfs[usize::from(vrf)] = Some(Box::new(Vrf::new()));
        }
        let old = if prefix.len() <= SHORT_LEN {
            self.dirty_shorts.push(vrf);
            let routes = self.vrfs[usize::from(vrf)].as_mut().expect("just made");
            std::mem::replace(&mut routes.short[node(prefix, 0)], new)
        } else if prefix.len() <= 8 * DIRECT {
            self.set_middle(vrf, prefix, new)
        } else {
            self.set_long(vrf, prefix, new)
        };
        let routes = self.vrfs[usize::from(vrf)].as_mut().expect("just made");
        routes.count += usize::from(new != 0);
        routes.count -= usize::from(old != 0);
        Value::in_entry(u32::from(old))
    }

    fn set_middle(&mut self, vrf: u16, prefix: Prefix6, new: u16) -> u16 {
        let routes = self.vrfs[usize::from(vrf)].as_mut().expect("the caller made it");
        let key = middle(prefix);
        let old = if new == 0 { routes.middle.remove(&key) } else { routes.middle.insert(key, new) };
        let old = old.unwrap_or(0);
        let lens = &mut routes.middle_lens[usize::from(prefix.len())];
        *lens += u32::from(new != 0);
        *lens -= u32::from(old != 0);
        if old != new {
            for slot in key.0..key.0 + (1 << (8 * DIRECT - prefix.len())) {
                self.dirty.push((Home::Slot(vrf, slot), 0));
                let routes = self.vrfs[usize::from(vrf)].as_mut().expect("as above");
                if routes.slots.contains_key(&slot) {
                    let base = routes.covering(slot);
                    let held = routes.slots.get_mut(&slot).expect("it is there");
                    held.base = base;
                    let cell = held.cell;
                    self.set_base(cell, base);
                }
            }
        }
        old
    }

    fn set_long(&mut self, vrf: u16, prefix: Prefix6, new: u16) -> u16 {
        let routes = self.vrfs[usize::from(vrf)].as_mut().expect("the caller made it");
        let address = prefix.address();
        let number = slot(address);
        let (mut home, mut byte) = (Home::Slot(vrf, number), 0);
        let mut cell = match routes.slots.get(&number) {
            Some(slot) => slot.cell,
            None if new == 0 => return 0,
            None => {
                let base = routes.covering(number);
                routes.slots.insert(number, Slot { cell: Cell::Empty, base });
                Cell::Empty
            }
        };
        // The fans on the way.
        let (mut way, mut depth) = ([0; 16], 0);
        let old = loop {
            match cell {
                Cell::Fan(number) => {
                    let fan = &mut self.fans.items[number as usize];
                    way[depth] = number;
                    depth += 1;
                    if prefix.len() <= 8 * fan.octet + 8 {
                        let node = node(prefix, fan.octet);
                        let old = std::mem::replace(&mut fan.cover[node], new);
                        if old != new {
                            self.uncovered(number, node);
                        }
                        break old;
                    }
                    (home, byte) = (Home::Fan(number), octet(address, fan.octet) as u8);
                    cell = fan.cells[usize::from(byte)];
                    continue;
                }
                Cell::Empty if new == 0 => break 0,
                Cell::Empty => {
                    let number = self.parts.add(Part { first: byte, last: byte, ..Part::default() });
                    self.put(home, byte, byte, Cell::Part(number));
                    cell = Cell::Part(number);
                }
                Cell::Part(number) => {
                    let old = self.parts.items[number as usize].set(prefix, new);
                    if old != new {
                        self.touch(home, byte);
                    }
                    break old;
                }
            }
        };
        for &number in &way[..depth] {
            let count = &mut self.fans.items[number as usize].count;
            *count += u32::from(new != 0);
            *count -= u32::from(old != 0);
        }
        old
    }

    fn touch(&mut self, home: Home, byte: u8) {
        // What is loaded in order is often in the same.
        if self.dirty.last() != Some(&(home, byte)) {
            self.dirty.push((home, byte));
        }
    }

    /// All that is below a node of a fan's covers and not below another that is set: its base is
    /// the longest cover now.
    fn uncovered(&mut self, number: u32, node: usize) {
        if node >= FAN {
            let byte = node - FAN;
            let fan = &self.fans.items[number as usize];
            let (cell, base) = (fan.cells[byte], fan.cover(byte as u8));
            self.touch(Home::Fan(number), byte as u8);
            self.set_base(cell, base);
            return;
        }
        for below in [2 * node, 2 * node + 1] {
            if self.fans.items[number as usize].cover[below] == 0 {
                self.uncovered(number, below);
            }
        }
    }

    /// What a cell that may be a fan has around it is this now.
    fn set_base(&mut self, cell: Cell, base: u16) {
        if let Cell::Fan(number) = cell {
            let fan = &mut self.fans.items[number as usize];
            if fan.base != base {
                fan.base = base;
                self.uncovered(number, 1);
            }
        }
    }

    pub fn cell(&self, home: Home, byte: u8) -> Cell {
        match home {
            Home::Slot(vrf, slot) => {
                self.vrf(vrf).and_then(|vrf| vrf.slots.get(&slot)).map_or(Cell::Empty, |slot| slot.cell)
            }
            Home::Fan(number) => self.fans.items[number as usize].cells[usize::from(byte)],
        }
    }

    /// The value around what is in a cell.
    pub fn base(&self, home: Home, byte: u8) -> u16 {
        match home {
            Home::Slot(vrf, number) => {
                let Some(routes) = self.vrf(vrf) else { return 0 };
                routes.slots.get(&number).map_or_else(|| routes.covering(number), |slot| slot.base)
            }
            Home::Fan(number) => self.fans.items[number as usize].cover(byte),
        }
    }

    pub fn put(&mut self, home: Home, first: u8, last: u8, cell: Cell) {
        match home {
            Home::Slot(vrf, number) => {
                let Some(routes) = self.vrf_mut(vrf) else { return };
                match (routes.slots.get_mut(&number), cell) {
                    (Some(_), Cell::Empty) => drop(routes.slots.remove(&number)),
                    (Some(slot), cell) => slot.cell = cell,
                    (None, cell) => debug_assert_eq!(cell, Cell::Empty, "a slot is made with its first route"),
                }
            }
            Home::Fan(number) => {
                let cells = &mut self.fans.items[number as usize].cells;
                cells[usize::from(first)..=usize::from(last)].fill(cell);
            }
        }
    }

    /// Nothing is dirty: what was has been set back.
    pub fn forget(&mut self) {
        for (home, byte) in std::mem::take(&mut self.dirty) {
            match self.cell(home, byte) {
                Cell::Part(number) if self.parts.items[number as usize].is_empty() => {
                    self.parts.remove(number);
                    self.put(home, byte, byte, Cell::Empty);
                }
                Cell::Empty => self.put(home, byte, byte, Cell::Empty),
                _ => {}
            }
        }
        self.dirty_shorts.clear();
    }
}

impl Vrf {
    fn new() -> Self {
        Self {
            count: 0,
            short: Box::new([0; 2 * SHORTS]),
            middle: BTreeMap::new(),
            middle_lens: [0; 8 * DIRECT as usize + 1],
            slots: HashMap::default(),
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn default(&self) -> u16 {
        self.short[1]
    }

    /// Whether there are routes of 1..=8 bits.
    pub fn has_shorts(&self) -> bool {
        self.short[2..].iter().any(|&value| value != 0)
    }

    /// The value of the longest route of 1..=8 bits that holds these addresses, or zero.
    pub fn short(&self, first_octet: usize) -> u16 {
        let up = std::iter::successors(Some(SHORTS + first_octet), |node| Some(node / 2));
        up.take_while(|&node| node > 1).map(|node| self.short[node]).find(|&value| value != 0).unwrap_or(0)
    }

    /// The value of the longest route that holds all of a slot, short ones apart, or zero.
    fn covering(&self, slot: u32) -> u16 {
        let lens = (SHORT_LEN + 1..=8 * DIRECT).rev().filter(|&len| self.middle_lens[usize::from(len)] > 0);
        let found = lens.map(|len| {
            let host_bits = 8 * DIRECT - len;
            self.middle.get(&(slot >> host_bits << host_bits, len))
        });
        found.flatten().next().copied().unwrap_or(0)
    }

    /// Slots that a route covers, some perhaps more than once.
    pub fn covered(&self) -> impl Iterator<Item = u32> {
        self.middle.keys().flat_map(|&(first, len)| first..first + (1 << (8 * DIRECT - len)))
    }
}

impl Fan {
    /// The value of the longest route that holds all below an entry, short ones apart, or zero.
    pub fn cover(&self, byte: u8) -> u16 {
        let mut node = FAN + usize::from(byte);
        while node > 1 {
            if self.cover[node] != 0 {
                return self.cover[node];
            }
            node /= 2;
        }
        self.base
    }
}

impl Part {
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.long.is_empty()
    }

    pub fn count(&self) -> usize {
        self.routes.len() + self.long.len()
    }

    fn value(&self, prefix: Prefix6) -> Option<u16> {
        let (address, len) = (prefix.address(), prefix.len());
        Some(if len <= ROUTE_LEN {
            self.routes[self.routes.binary_search_by_key(&(low(address), len), Route::key).ok()?].value
        } else {
            self.long[self.long.binary_search_by_key(&(address, len), Long::key).ok()?].value
        })
    }

    /// Sets a route, or with zero removes it, and returns what it was.
    fn set(&mut self, prefix: Prefix6, value: u16) -> u16 {
        let (address, len) = (prefix.address(), prefix.len());
        if len <= ROUTE_LEN {
            let route = Route::new(address, len, value);
            change(&mut self.routes, route, Route::key, |route| &mut route.value)
        } else {
            change(&mut self.long, Long { address, len, value }, Long::key, |long| &mut long.value)
        }
    }
}

fn change<T: Copy, K: Ord>(list: &mut Vec<T>, new: T, key: fn(&T) -> K, value: fn(&mut T) -> &mut u16) -> u16 {
    let mut new = new;
    // What is loaded in order goes to the end.
    let place = match list.last() {
        Some(last) if key(last) >= key(&new) => list.binary_search_by_key(&key(&new), key),
        _ => Err(list.len()),
    };
    match place {
        Ok(place) if *value(&mut new) == 0 => *value(&mut list.remove(place)),
        Ok(place) => std::mem::replace(value(&mut list[place]), *value(&mut new)),
        Err(_) if *value(&mut new) == 0 => 0,
        Err(place) => {
            list.insert(place, new);
            0
        }
    }
}

impl Route {
    pub fn new(address: u128, len: u8, value: u16) -> Self {
        Self { low: low(address), len, value }
    }

    pub fn key(&self) -> (u32, u8) {
        (self.low, self.len)
    }
}

impl Long {
    pub fn key(&self) -> (u128, u8) {
        (self.address, self.len)
    }
}

/// Both kinds of routes of a slot, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both<'r> {
    /// The slot's first address.
    pub start: u128,
    pub routes: &'r [Route],
    pub long: &'r [Long],
}

impl<'r> Both<'r> {
    /// Routes of the slot that an address is in.
    pub fn new(address: u128, routes: &'r [Route], long: &'r [Long]) -> Self {
        Self { start: address >> SLOT_SHIFT << SLOT_SHIFT, routes, long }
    }

    /// Those before `rest`, which are the last of these.
    pub fn without(self, rest: Self) -> Self {
        let routes = &self.routes[..self.routes.len() - rest.routes.len()];
        Self { routes, long: &self.long[..self.long.len() - rest.long.len()], ..self }
    }

    /// None of them.
    pub fn none(self) -> Self {
        Self { routes: &[], long: &[], ..self }
    }

    pub fn count(self) -> usize {
        self.routes.len() + self.long.len()
    }

    /// Those that begin up to `last`, and the others.
    pub fn split(self, last: u128) -> (Self, Self) {
        let is_in = |route: &Route| self.address(*route) <= last;
        // They are taken from the front, a few at a time.
        let routes = self.routes.iter().take_while(|route| is_in(route)).count();
        let long = self.long.partition_point(|long| long.address <= last);
        let ((routes, routes_left), (long, long_left)) = (self.routes.split_at(routes), self.long.split_at(long));
        (Self { routes, long, ..self }, Self { routes: routes_left, long: long_left, ..self })
    }

    fn address(self, route: Route) -> u128 {
        self.start | u128::from(route.low) << LOW_SHIFT
    }
}

impl Iterator for Both<'_> {
    type Item = (u128, u8, u16);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let short = self.routes.first().map(|&route| (self.address(route), route.len, route.value));
        let Some(long) = self.long.first() else {
            self.routes = self.routes.get(1..).unwrap_or(&[]);
            return short;
        };
        match short {
            Some(short) if (short.0, short.1) < (long.address, long.len) => {
                self.routes = &self.routes[1..];
                Some(short)
            }
            _ => {
                self.long = &self.long[1..];
                Some((long.address, long.len, long.value))
            }
        }
    }
}

/// Things with numbers that stay.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pub items: Vec<T>,
    unused: Vec<u32>,
}

impl<T> Slab<T> {
    fn new() -> Self {
        Self { items: Vec::new(), unused: Vec::new() }
    }

    pub fn add(&mut self, item: T) -> u32 {
        match self.unused.pop() {
            Some(number) => {
                self.items[number as usize] = item;
                number
            }
            None => {
                self.items.push(item);
                self.items.len() as u32 - 1
            }
        }
    }
}

impl<T: Default> Slab<T> {
    pub fn remove(&mut self, number: u32) -> T {
        self.unused.push(number);
        std::mem::take(&mut self.items[number as usize])
    }
}

impl Default for Fan {
    /// What is left in the place of one that is gone.
    fn default() -> Self {
        Self {
            home: Home::Fan(u32::MAX),
            byte: 0,
            start: 0,
            octet: 0,
            base: 0,
            count: 0,
            block: Block { word: 0, size: crate::arena::Size::holding(1) },
            cover: Box::default(),
            cells: Box::default(),
        }
    }
}

/// Hashes the number of a slot: those in use are mostly neighbours, and nobody chooses them to
/// collide who could not announce as many routes.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.write_u32(u32::from(octet));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // The table takes both its ends.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// The node of a prefix in a tree that begins at an octet.
pub(super) fn node(prefix: Prefix6, octet: u8) -> usize {
    let bits = u32::from(prefix.len() - 8 * octet);
    let below = (prefix.address() << (8 * u32::from(octet)) >> 120) as usize;
    1 << bits | below >> (8 - bits)
}

fn middle(prefix: Prefix6) -> (u32, u8) {
    (slot(prefix.address()), prefix.len())
}

pub(super) fn slot(address: u128) -> u32 {
    (address >> SLOT_SHIFT) as u32
}

pub(super) fn octet(address: u128, octet: u8) -> usize {
    usize::from(octet_of(address, octet))
}

fn low(address: u128) -> u32 {
    (address >> LOW_SHIFT) as u32
}

const LOW_SHIFT: u32 = SLOT_SHIFT - 32;
/// The longest that is a [`Route`].
pub(super) const ROUTE_LEN: u8 = 8 * DIRECT + 32;
