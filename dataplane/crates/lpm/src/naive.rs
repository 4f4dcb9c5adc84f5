//! The oracle: a list of routes and a scan of all of them.
//!
//! It answers as [`crate::Writer`] and [`crate::Reader`] must, in the plainest way there is.
//! For tests, here and in what builds on this crate.

use crate::{Address, Prefix, Value};

/// All routes of all VRFs in one list. No bound, one owner.
#[derive(Clone, Debug, Default)]
pub struct Naive<A> {
    routes: Vec<(u16, Prefix<A>, Value)>,
}

impl<A: Address> Naive<A> {
    /// A table without routes.
    pub fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Sets the value of a prefix, and returns the one it had.
    pub fn insert(&mut self, vrf: u16, prefix: Prefix<A>, value: Value) -> Option<Value> {
        let old = self.remove(vrf, prefix);
        self.routes.push((vrf, prefix, value));
        old
    }

    /// Takes a prefix out, and returns the value it had.
    pub fn remove(&mut self, vrf: u16, prefix: Prefix<A>) -> Option<Value> {
        let is_it = |route: &(u16, Prefix<A>, Value)| route.0 == vrf && route.1 == prefix;
        let at = self.routes.iter().position(is_it)?;
        Some(self.routes.swap_remove(at).2)
    }

    /// Takes all prefixes of a VRF out, and returns how many there were.
    pub fn remove_vrf(&mut self, vrf: u16) -> usize {
        let before = self.routes.len();
        self.routes.retain(|route| route.0 != vrf);
        before - self.routes.len()
    }

    /// The value of the longest prefix of `vrf` that holds `address`.
    pub fn lookup(&self, vrf: u16, address: A) -> Option<Value> {
        self.routes
            .iter()
            .filter(|route| route.0 == vrf && route.1.contains(address))
            .max_by_key(|route| route.1.len())
            .map(|route| route.2)
    }

    /// Every route: VRF, prefix, value, in no order.
    pub fn routes(&self) -> &[(u16, Prefix<A>, Value)] {
        &self.routes
    }
}
