//! The Internet's routes of both families, and destinations as they are asked for there.

use super::{Ip, Path};
use crate::family::{Family, Write};
use crate::routes::{NEXT_HOPS, Route, internet_v4, internet_v6};
use crate::traffic::Pattern;
use dataplane::fib::Fib;
use dataplane::tables::Tables;
use lpm::{Change, Limits};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub fn tables_and_frames(path: Path, count: usize) -> (Tables, Vec<Vec<u8>>) {
    let (v4, v6) = (internet_v4(), internet_v6());
    let destinations: Vec<IpAddr> = match path.inner() {
        Ip::V4 => zipf(&v4, count).map(|bits| Ipv4Addr::from_bits(bits).into()).collect(),
        Ip::V6 => zipf(&v6, count).map(|bits| Ipv6Addr::from_bits(bits).into()).collect(),
    };
    let frames = destinations.into_iter().enumerate().map(|(at, destination)| super::frame(path, at, destination));
    let fib = Fib { v4: reader(&v4), v6: reader(&v6) };
    (super::tables(path, fib, NEXT_HOPS.into()), frames.collect())
}

fn zipf<A: Family>(routes: &[Route<A>], count: usize) -> impl Iterator<Item = A> {
    Pattern::Zipf.destinations(routes, count).into_iter()
}

fn reader<A: Family>(routes: &[Route<A>]) -> A::Reader {
    let mut writer = A::Writer::new(Limits::default()).expect("address space is there");
    let changes = routes.iter().map(|&(prefix, value)| Change { vrf: 0, prefix, value: Some(value) });
    writer.apply(changes).expect("a full table fits");
    writer.reader()
}
