//! Real routing tables, and larger ones grown from them. Where they are from: `bench/data/README.md`.
//!
//! For tests too. All that is drawn is drawn from fixed seeds, so every run, on every machine, has the same tables.

use crate::random::{Draw, Random};
use lpm::{Prefix, Value};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where a prefix leads.
pub type Route<A> = (Prefix<A>, Value);

/// Next hops of all tables are 1 to this.
pub const NEXT_HOPS: u16 = 255;

/// A full Internet table of IPv4: 901,899 routes, by address, then length. No default route.
pub fn internet_v4() -> Vec<Route<u32>> {
    read::<Ipv4Addr, u32>(include_bytes!("../data/rt4.txt.zst"), Ipv4Addr::to_bits)
}

/// A full Internet table of IPv6: 160,147 routes, by address, then length. No default route.
pub fn internet_v6() -> Vec<Route<u128>> {
    read::<Ipv6Addr, u128>(include_bytes!("../data/rt6.txt.zst"), Ipv6Addr::to_bits)
}

/// [`internet_v4`] with more specific prefixes of /22 to /24 up to a million routes, then 100,000 host routes: as when
/// a cloud announces its instances. 1,100,000 in all, in no order.
///
/// Six hosts in ten lie densely, 300 in each of 200 pools of a /20; the others lie alone, each in some prefix. A new
/// prefix has the next hop of the one around it, a host one of its own.
pub fn with_hosts_v4() -> Vec<Route<u32>> {
    let mut random = Random::new(0x7274_3468);
    let mut table = Growing::new(internet_v4());
    let wide: Vec<_> = table.routes.iter().copied().filter(|(prefix, _)| (16..=22).contains(&prefix.len())).collect();
    while table.routes.len() < 1_000_000 {
        let (around, value) = wide[random.below(wide.len())];
        let len = match random.below(100) {
            0..75 => 24,
            75..91 => 23,
            _ => 22,
        };
        if len > around.len() {
            table.add(containing(u32::within(around, &mut random), len), value);
        }
    }
    let announced = table.routes.clone();
    let pools: Vec<_> = (0..200)
        .map(|_| {
            let (around, _) = announced[random.below(announced.len())];
            containing(around.address(), 20)
        })
        .collect();
    while table.routes.len() < 1_100_000 {
        let dense = table.routes.len() < 1_060_000;
        let around = if dense { pools[random.below(pools.len())] } else { announced[random.below(announced.len())].0 };
        let value = next_hop(&mut random);
        table.add(Prefix::host(u32::within(around, &mut random)), value);
    }
    table.routes
}

/// [`internet_v6`] with copies of what is announced below some /32s below other /32s near them, which nobody announces,
/// then 20,000 host routes, each in some prefix. 270,167 in all, in no order.
///
/// A copy has the next hops of its model, a host one of its own.
pub fn with_hosts_v6() -> Vec<Route<u128>> {
    let mut random = Random::new(0x7274_3668);
    let mut table = Growing::new(internet_v6());
    let real: Vec<_> = table.routes.iter().copied().filter(|(prefix, _)| prefix.len() >= 32).collect();
    let subtrees: Vec<_> = real.chunk_by(|a, b| slash32(a.0) == slash32(b.0)).collect();
    let mut taken: HashSet<u32> = real.iter().map(|route| slash32(route.0)).collect();
    while table.routes.len() < 250_167 {
        let model = subtrees[random.below(subtrees.len())];
        let from = slash32(model[0].0);
        // In the same /20: registries give a region's networks addresses that are close to each other.
        let to = from ^ (1 + random.below(0xfff)) as u32;
        if taken.insert(to) {
            for &(prefix, value) in model.iter().take(250_167 - table.routes.len()) {
                table.add(containing(prefix.address() ^ u128::from(from ^ to) << 96, prefix.len()), value);
            }
        }
    }
    let announced = table.routes.clone();
    while table.routes.len() < 270_167 {
        // A subnet's number is anything, a server's within it is small.
        let inside = u128::within(announced[random.below(announced.len())].0, &mut random);
        let host = inside >> 64 << 64 | random.below(0x1_0000) as u128;
        let value = next_hop(&mut random);
        table.add(Prefix::host(host), value);
    }
    table.routes
}

/// The same prefixes, each with a next hop of its own choice: the worst case, since no two neighbours can share.
pub fn scattered<A: Copy>(routes: &[Route<A>]) -> Vec<Route<A>> {
    let mut random = Random::new(0x5ca7);
    routes.iter().map(|&(prefix, _)| (prefix, next_hop(&mut random))).collect()
}

fn read<T, A>(compressed: &[u8], bits: fn(T) -> A) -> Vec<Route<A>>
where
    T: FromStr,
    A: lpm::Address,
{
    let text = ruzstd::decoding::StreamingDecoder::new(compressed).expect("the file is zstd's");
    let mut routes = Vec::with_capacity(1 << 20);
    for line in BufReader::with_capacity(1 << 16, text).lines() {
        let line = line.expect("the file is whole, and text");
        let route = route(&line, bits).unwrap_or_else(|| panic!("{line}: no route"));
        routes.push(route);
    }
    routes
}

fn route<T: FromStr, A: lpm::Address>(line: &str, bits: fn(T) -> A) -> Option<Route<A>> {
    let (prefix, value) = line.split_once(' ')?;
    let (address, len) = prefix.split_once('/')?;
    let prefix = Prefix::new(bits(address.parse().ok()?), len.parse().ok()?).ok()?;
    Some((prefix, Value::new(value.parse().ok()?)?))
}

/// Routes, no two with the same prefix.
struct Growing<A> {
    routes: Vec<Route<A>>,
    known: HashSet<Prefix<A>>,
}

impl<A: lpm::Address> Growing<A> {
    fn new(routes: Vec<Route<A>>) -> Self {
        let known = routes.iter().map(|route| route.0).collect();
        Self { routes, known }
    }

    /// Adds a route, unless its prefix has one.
    fn add(&mut self, prefix: Prefix<A>, value: Value) {
        if self.known.insert(prefix) {
            self.routes.push((prefix, value));
        }
    }
}

fn slash32(prefix: Prefix<u128>) -> u32 {
    (prefix.address() >> 96) as u32
}

fn containing<A: lpm::Address>(address: A, len: u8) -> Prefix<A> {
    Prefix::containing(address, len).expect("a length of the family")
}

fn next_hop(random: &mut Random) -> Value {
    Value::new(1 + random.below(NEXT_HOPS.into()) as u16).expect("from 1 to 255")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths<A: lpm::Address>(routes: &[Route<A>], len: u8) -> usize {
        routes.iter().filter(|(prefix, _)| prefix.len() == len).count()
    }

    #[track_caller]
    fn check<A: lpm::Address>(routes: &[Route<A>], count: usize) {
        let prefixes: HashSet<_> = routes.iter().map(|route| route.0).collect();
        assert_eq!(prefixes.len(), count, "no prefix is there twice");
        assert_eq!(routes.len(), count);
        assert!(routes.iter().all(|(prefix, value)| prefix.len() > 0 && value.as_u16() <= NEXT_HOPS));
    }

    #[test]
    fn reads_both_tables_whole() {
        let v4 = internet_v4();
        check(&v4, 901_899);
        assert_eq!((lengths(&v4, 8), lengths(&v4, 24), lengths(&v4, 32)), (16, 537_698, 886));
        let v6 = internet_v6();
        check(&v6, 160_147);
        assert_eq!((lengths(&v6, 29), lengths(&v6, 48), lengths(&v6, 64)), (4371, 75_488, 184));
    }

    #[test]
    fn grows_the_same_tables_each_time_with_as_many_hosts_as_promised() {
        let v4 = with_hosts_v4();
        check(&v4, 1_100_000);
        assert_eq!(lengths(&v4, 32), 886 + 100_000);
        assert!(v4 == with_hosts_v4());
        let v6 = with_hosts_v6();
        check(&v6, 270_167);
        assert!(lengths(&v6, 128) >= 20_000);
        assert!(v6 == with_hosts_v6());
    }

    #[test]
    fn spreads_next_hops_over_all_there_are() {
        let values: HashSet<_> = scattered(&internet_v6()).into_iter().map(|route| route.1).collect();
        assert_eq!(values.len(), usize::from(NEXT_HOPS));
    }
}
