//! The routes of one VRF as they were given: what an address falls back to when one goes.

use std::collections::BTreeMap;

use crate::{Address, Prefix, Value};

/// Prefixes and values of one VRF, the default route among them.
#[derive(Debug)]
pub(crate) struct Rib<A> {
    routes: BTreeMap<Prefix<A>, Value>,
    /// How many routes there are of each length, so that the search for a covering route asks
    /// only for lengths that exist.
    of_len: Vec<u32>,
    /// Which 4 KiB pages of the VRF's root were ever written, from the lowest addresses on.
    pub pages: u64,
}

impl<A: Address> Rib<A> {
    pub fn new() -> Self {
        Self { routes: BTreeMap::new(), of_len: vec![0; usize::from(A::BITS) + 1], pages: 0 }
    }

    pub fn value(&self, prefix: Prefix<A>) -> Option<Value> {
        self.routes.get(&prefix).copied()
    }

    pub fn insert(&mut self, prefix: Prefix<A>, value: Value) {
        if self.routes.insert(prefix, value).is_none() {
            self.of_len[usize::from(prefix.len())] += 1;
        }
    }

    pub fn remove(&mut self, prefix: Prefix<A>) -> Option<Value> {
        let value = self.routes.remove(&prefix)?;
        self.of_len[usize::from(prefix.len())] -= 1;
        Some(value)
    }

    /// The longest prefix that is shorter than `prefix` and holds it, the default route apart.
    pub fn covering(&self, prefix: Prefix<A>) -> Option<(Prefix<A>, Value)> {
        (1..prefix.len())
            .rev()
            .filter(|&len| self.of_len[usize::from(len)] > 0)
            .map(|len| prefix.shortened(len))
            .find_map(|shorter| Some((shorter, self.value(shorter)?)))
    }

    pub fn clear(&mut self) {
        self.routes.clear();
        self.of_len.fill(0);
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }
}
