//! DPDK's tables, the same for both families.

use crate::family::Family;
use crate::routes::Route;
use lpm::Prefix;
use rte::{Error, Lookup, Started, Width};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A family whose routes DPDK can hold too.
pub trait Rival: Family {
    /// An address as DPDK wants it.
    type Key: Copy + Send + Sync;
    /// DPDK's table.
    type Fib: Send;
    /// Its writing side.
    type Changes<'fib>: Send;
    /// Its reading side.
    type Lookups<'fib>: Send;
    /// This address.
    fn key(self) -> Self::Key;
    /// See [`rte::Fib4::new`].
    fn fib(started: Started, routes: usize, groups: usize, width: Width) -> Result<Self::Fib, Error>;
    /// See [`rte::Fib4::select`].
    fn select(fib: &mut Self::Fib, lookup: Lookup) -> Result<(), Error>;
    /// Both sides, for two threads.
    fn split(fib: &mut Self::Fib) -> (Self::Changes<'_>, Self::Lookups<'_>);
    /// Gives a route a next hop, or takes it out.
    fn change(changes: &mut Self::Changes<'_>, prefix: Prefix<Self>, next_hop: Option<u16>) -> Result<(), Error>;
    /// Looks all up.
    fn look_up(lookups: &Self::Lookups<'_>, keys: &[Self::Key], next_hops: &mut [u64]);
    /// A number of groups of 256 entries to begin with: the routes may take so many or more.
    fn groups(routes: &[Route<Self>]) -> usize;
}

macro_rules! rival {
    ($address:ty, $key:ty, $fib:ident, $writer:ident, $reader:ident, $to_key:expr, $groups:expr) => {
        impl Rival for $address {
            type Key = $key;
            type Fib = rte::$fib;
            type Changes<'fib> = rte::$writer<'fib>;
            type Lookups<'fib> = rte::$reader<'fib>;

            fn key(self) -> $key {
                $to_key(self)
            }

            fn fib(started: Started, routes: usize, groups: usize, width: Width) -> Result<rte::$fib, Error> {
                rte::$fib::new(started, routes, groups, width)
            }

            fn select(fib: &mut rte::$fib, lookup: Lookup) -> Result<(), Error> {
                fib.select(lookup)
            }

            fn split(fib: &mut rte::$fib) -> (rte::$writer<'_>, rte::$reader<'_>) {
                fib.split()
            }

            fn change(
                changes: &mut rte::$writer<'_>,
                prefix: Prefix<Self>,
                next_hop: Option<u16>,
            ) -> Result<(), Error> {
                let (address, len) = (prefix.address().key(), prefix.len());
                match next_hop {
                    Some(next_hop) => changes.add(address, len, next_hop),
                    None => changes.delete(address, len),
                }
            }

            #[inline]
            fn look_up(lookups: &rte::$reader<'_>, keys: &[$key], next_hops: &mut [u64]) {
                lookups.lookup(keys, next_hops);
            }

            fn groups(routes: &[Route<Self>]) -> usize {
                $groups(routes)
            }
        }
    };
}

rival!(u32, u32, Fib4, Writer4, Reader4, |address| address, |routes: &[Route<u32>]| {
    let below: HashSet<_> =
        routes.iter().filter(|(prefix, _)| prefix.len() > 24).map(|(prefix, _)| prefix.address() >> 8).collect();
    below.len() + 1
});
// `rte_fib6` takes a route only where a group would be left for each further octet of its length, shared or not. How many
// that makes depends on the order too.
rival!(u128, [u8; 16], Fib6, Writer6, Reader6, u128::to_be_bytes, |routes: &[Route<u128>]| { routes.len() + 64 });

/// A table of DPDK's with all routes in it.
pub struct Loaded<A: Rival> {
    /// The table.
    pub fib: A::Fib,
    /// What its tables for lookups take: 2²⁴ entries, and the groups that it has to be given before it takes the routes.
    pub bytes: usize,
    /// So many groups.
    pub groups: usize,
    /// Time of adding the routes alone.
    pub took: Duration,
}

impl<A: Rival> Loaded<A> {
    /// With the fewest groups that do, to within an eighth of the routes.
    ///
    /// # Errors
    ///
    /// DPDK has no room for the table.
    pub fn new(started: Started, routes: &[Route<A>]) -> Result<Self, Error> {
        let mut groups = A::groups(routes);
        loop {
            match Self::with_groups(started, routes, groups) {
                Err(Error::Refused(_)) if groups < 1 << 20 => groups += routes.len() / 8 + 64,
                loaded_or_refused => return loaded_or_refused,
            }
        }
    }

    /// With a quarter more, for changes: `rte_fib6` counts more groups when a route comes back than it did when that went.
    ///
    /// # Errors
    ///
    /// DPDK has no room for the table.
    pub fn for_changes(started: Started, routes: &[Route<A>]) -> Result<Self, Error> {
        let groups = Self::new(started, routes)?.groups;
        Self::with_groups(started, routes, groups + groups / 4)
    }

    /// With so many groups.
    ///
    /// # Errors
    ///
    /// DPDK has no room for the table, or the table none for the routes.
    pub fn with_groups(started: Started, routes: &[Route<A>], groups: usize) -> Result<Self, Error> {
        let width = if groups <= 32_767 { Width::Two } else { Width::Four };
        let mut fib = A::fib(started, routes.len() + 1, groups, width)?;
        let (mut changes, _) = A::split(&mut fib);
        let start = Instant::now();
        routes.iter().try_for_each(|&(prefix, value)| A::change(&mut changes, prefix, Some(value.as_u16())))?;
        let took = start.elapsed();
        drop(changes);
        Ok(Self { fib, bytes: ((1 << 24) + groups * 256) * width.bytes(), groups, took })
    }
}
