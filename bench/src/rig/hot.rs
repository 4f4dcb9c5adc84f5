//! 64 routes, each with a next hop and a frame of its own.

use super::{BATCH, Ip, Path};
use dataplane::fib::Fib;
use dataplane::tables::Tables;
use lpm::{Limits, Prefix4, Prefix6, Value, Writer4, Writer6};
use std::net::{Ipv4Addr, Ipv6Addr};

pub fn tables(path: Path) -> Tables {
    let mut v4 = Writer4::new(Limits::default()).expect("address space is there");
    let mut v6 = Writer6::new(Limits::default()).expect("address space is there");
    for at in 0..BATCH {
        let value = Value::new(1 + at as u16).expect("from 1 to 64");
        let (v4_net, v6_net) = (destination_v4(at).to_bits(), destination_v6(at).to_bits());
        v4.insert(0, Prefix4::containing(v4_net, 24).expect("24 is a length"), value).expect("there is room");
        v6.insert(0, Prefix6::containing(v6_net, 64).expect("64 is a length"), value).expect("there is room");
    }
    super::tables(path, Fib { v4: v4.reader(), v6: v6.reader() }, BATCH)
}

pub fn frames(path: Path) -> Vec<Vec<u8>> {
    let destination = |at| match path.inner() {
        Ip::V4 => destination_v4(at).into(),
        Ip::V6 => destination_v6(at).into(),
    };
    (0..BATCH).map(|at| super::frame(path, at, destination(at))).collect()
}

fn destination_v4(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, at as u8, 9)
}

fn destination_v6(at: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, at as u16, 0, 0, 0, 9)
}
