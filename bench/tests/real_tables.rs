//! The tables of `lpm` with all of the Internet's routes, against intervals.
//!
//! An answer changes at the first address of an interval and nowhere else. So the address before it, itself and the one
//! after it, for all of them, are every place where a table can be off by one.

use bench::family::{Family, Read, Write};
use bench::routes::{self, Route};
use bench::traffic::Pattern;
use lpm::naive::Intervals;
use lpm::{Change, Limits};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Not the first, so that a table that forgets the VRF is found out.
const VRF: u16 = 3;

/// As much room as there is by default.
fn limits() -> Limits {
    Limits { vrfs: VRF + 2, ..Limits::default() }
}

#[track_caller]
fn check<A: Family>(reader: &A::Reader, routes: &[Route<A>]) {
    let oracle = Intervals::new(routes.iter().copied());
    let starts: Vec<A> = oracle.starts().collect();
    let addresses: Vec<A> = (starts.iter().copied().map(A::before))
        .chain(starts.iter().copied())
        .chain(starts.iter().copied().map(A::after))
        .chain(routes.iter().map(|(prefix, _)| prefix.last()))
        .collect();
    let vrfs = vec![VRF; addresses.len()];
    let mut values = vec![None; addresses.len()];
    reader.lookup_batch(&vrfs, &addresses, &mut values);
    for (address, value) in addresses.into_iter().zip(values) {
        let expected = oracle.lookup(address);
        assert_eq!(value, expected, "of a batch, for {}", address.to_ip());
        assert_eq!(reader.lookup(VRF, address), expected, "alone, for {}", address.to_ip());
        assert_eq!(reader.lookup(VRF + 1, address), None, "the next VRF has no route for {}", address.to_ip());
    }
}

fn changes<A: Family>(routes: &[Route<A>]) -> impl Iterator<Item = Change<A>> {
    routes.iter().map(|&(prefix, value)| Change { vrf: VRF, prefix, value: Some(value) })
}

/// Gives every route another next hop, all at once, and then again, while a reader asks for each of them.
fn swap_under_a_reader<A: Family>(routes: &[Route<A>]) {
    let mut writer = A::Writer::new(limits()).expect("address space is there");
    let reader = writer.reader();
    let next = routes::scattered(routes);
    writer.apply(changes(routes)).expect("a full table fits");
    let addresses = Pattern::PrefixUniform.destinations(routes, 1 << 16);
    let oracles = [routes, &next].map(|routes| Intervals::new(routes.iter().copied()));
    let allowed: Vec<_> =
        addresses.iter().map(|address| oracles.each_ref().map(|oracle| oracle.lookup(*address))).collect();
    let is_over = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (vrfs, mut values) = (vec![VRF; addresses.len()], vec![None; addresses.len()]);
            let mut seen = [false; 2];
            while !is_over.load(Relaxed) {
                reader.lookup_batch(&vrfs, &addresses, &mut values);
                rounds.fetch_add(1, Release);
                for ((value, allowed), address) in values.iter().zip(&allowed).zip(&addresses) {
                    assert!(allowed.contains(value), "{}: {value:?} is none of {allowed:?}", address.to_ip());
                    (0..2)
                        .filter(|at| allowed[0] != allowed[1] && allowed[*at] == *value)
                        .for_each(|at| seen[at] = true);
                }
            }
            seen
        });
        for table in [&next, routes, &next, routes] {
            writer.apply(changes(table)).expect("two full tables fit");
            let mark = writer.retire_mark();
            // The round that was under way when the mark was made ends, and another.
            let since = rounds.load(Acquire);
            while rounds.load(Acquire) < since + 2 && !reading.is_finished() {
                std::thread::yield_now();
            }
            writer.reclaim(mark);
        }
        is_over.store(true, Relaxed);
        assert_eq!(reading.join().expect("every answer was allowed"), [true; 2], "the reader has seen both tables");
    });
}

fn withdrawals<A: Family>(routes: &[Route<A>]) -> impl Iterator<Item = Change<A>> {
    routes.iter().map(|&(prefix, _)| Change { vrf: VRF, prefix, value: None })
}

/// Loads a table, swaps it for another while nobody looks, and back, one route at a time.
fn story<A: Family>(first: &[Route<A>], second: &[Route<A>]) {
    let mut writer = A::Writer::new(limits()).expect("address space is there");
    let reader = writer.reader();

    writer.apply(changes(first)).expect("a full table fits");
    assert_eq!(writer.usage().prefixes, first.len());
    check(&reader, first);

    writer.apply(withdrawals(first).chain(changes(second))).expect("two full tables fit");
    assert_eq!(writer.usage().prefixes, second.len());
    check(&reader, second);
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    assert_eq!(writer.usage().retired_bytes, 0);

    for &(prefix, value) in second {
        assert_eq!(writer.remove(VRF, prefix), Ok(Some(value)));
        let mark = writer.retire_mark();
        writer.reclaim(mark);
    }
    assert_eq!((writer.usage().prefixes, writer.usage().used_bytes), (0, 0), "an empty table holds nothing");
    for &(prefix, value) in first {
        assert_eq!(writer.insert(VRF, prefix, value), Ok(None));
        let mark = writer.retire_mark();
        writer.reclaim(mark);
    }
    check(&reader, first);
}

#[test]
fn answers_at_every_boundary_of_the_ipv4_internet_and_after_a_swap_for_one_with_hosts() {
    story(&routes::internet_v4(), &routes::with_hosts_v4());
}

#[test]
fn answers_at_every_boundary_of_the_ipv6_internet_and_after_a_swap_for_one_with_hosts() {
    story(&routes::internet_v6(), &routes::with_hosts_v6());
}

#[test]
fn answers_at_every_boundary_where_each_ipv4_prefix_has_a_next_hop_of_its_own() {
    let routes = routes::internet_v4();
    story(&routes::scattered(&routes), &routes);
}

#[test]
fn answers_at_every_boundary_where_each_ipv6_prefix_has_a_next_hop_of_its_own() {
    let routes = routes::internet_v6();
    story(&routes::scattered(&routes), &routes);
}

#[test]
fn swaps_the_whole_ipv4_internet_under_a_reader_who_gets_old_or_new_answers_only() {
    swap_under_a_reader(&routes::internet_v4());
}

#[test]
fn swaps_the_whole_ipv6_internet_under_a_reader_who_gets_old_or_new_answers_only() {
    swap_under_a_reader(&routes::internet_v6());
}
