//! The oracles: a list of routes and a scan of all of them, and for tables too large for that,
//! the list of intervals that have the same answer.
//!
//! They answer as the tables must, in the plainest way there is. For tests, here and in what
//! builds on this crate.

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

/// The routes of one VRF as intervals of addresses: no trie, no bitmap, one binary search.
#[derive(Clone, Debug)]
pub struct Intervals<A> {
    /// Where each begins, and its answer; it ends where the next begins.
    starts: Vec<(A, Option<Value>)>,
}

impl<A: Address> Intervals<A> {
    /// Of two routes with the same prefix, the later one counts.
    pub fn new(routes: impl IntoIterator<Item = (Prefix<A>, Value)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        // Stable, so that of two the later one stays later.
        routes.sort_by_key(|&(prefix, _)| (prefix.address(), prefix.len()));
        let mut starts = vec![(A::ZERO, None)];
        // The routes that hold the address that the sweep has come to, the longest last.
        let mut open: Vec<(Prefix<A>, Value)> = Vec::new();
        for (prefix, value) in routes {
            close(&mut open, &mut starts, |last| last < prefix.address());
            starts.push((prefix.address(), Some(value)));
            open.push((prefix, value));
        }
        close(&mut open, &mut starts, |_| true);
        // Of several that begin at the same address, the last was the longest.
        starts.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                earlier.1 = later.1;
            }
            is_same
        });
        Self { starts }
    }

    /// The value of the longest prefix that holds `address`.
    pub fn lookup(&self, address: A) -> Option<Value> {
        self.starts[self.starts.partition_point(|&(start, _)| start <= address) - 1].1
    }

    /// The first address of every interval: where the answers change.
    pub fn starts(&self) -> impl Iterator<Item = A> {
        self.starts.iter().map(|&(start, _)| start)
    }
}

/// Ends the open routes whose last address is one of those: what is after them has the answer of
/// the route around them.
fn close<A: Address>(
    open: &mut Vec<(Prefix<A>, Value)>,
    starts: &mut Vec<(A, Option<Value>)>,
    is_over: impl Fn(A) -> bool,
) {
    while let Some((prefix, _)) = open.pop_if(|(prefix, _)| is_over(prefix.last())) {
        if let Some(next) = prefix.last().next() {
            starts.push((next, open.last().map(|&(_, value)| value)));
        }
    }
}
