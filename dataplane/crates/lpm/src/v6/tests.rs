//! What IPv6 alone has: arrays that come and go, host lines, short routes; and a storm.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::naive::{Intervals, Naive};
use crate::tests::storm::{StopAtEnd, wait_for};
use crate::{Address, Change, Limits, Prefix6, TableError, Value};

fn v6(text: &str) -> Prefix6 {
    let net: ipnet::Ipv6Net = text.parse().expect("the test writes a prefix");
    Prefix6::try_from(net).expect("the test sets no host bits")
}

fn at(text: &str) -> u128 {
    v6(&format!("{text}/128")).address()
}

fn value(number: u16) -> Value {
    Value::new(number).expect("the test gives 1..=32767")
}

fn small(bytes: usize) -> Writer6 {
    Writer6::new(Limits { vrfs: 2, bytes }).expect("so little can be reserved")
}

fn set(vrf: u16, prefix: Prefix6, number: u16) -> Change<u128> {
    Change { vrf, prefix, value: Some(value(number)) }
}

fn reclaim(writer: &mut Writer6) {
    let mark = writer.retire_mark();
    writer.reclaim(mark);
}

/// Every address where the answer changes, and its neighbours, in batches and alone.
#[track_caller]
fn same_as_intervals(writer: &Writer6, routes: &BTreeMap<Prefix6, Value>) {
    let oracle = Intervals::new(routes.iter().map(|(&prefix, &value)| (prefix, value)));
    let addresses: Vec<u128> =
        oracle.starts().flat_map(|start| [start.wrapping_sub(1), start, start.wrapping_add(1)]).collect();
    let mut values = vec![None; addresses.len()];
    let reader = writer.reader();
    reader.lookup_batch(&vec![0; addresses.len()], &addresses, &mut values);
    for (&address, &value) in addresses.iter().zip(&values) {
        assert_eq!(value, oracle.lookup(address), "{} in a batch", address.to_ip());
        assert_eq!(reader.lookup(0, address), value, "{} alone", address.to_ip());
    }
}

/// Routes that crowd: below a few slots, in some places at every length, in others all of one.
fn dense(random: &mut u64) -> Prefix6 {
    let mut next = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) as u32
    };
    let (shape, a, b) = (next() % 10, next(), next());
    let slot = 0x2001_0d00_u128 << 96 | u128::from(a & 3) << 104;
    let (below, len) = match shape {
        // The hosts of a subnet, in clusters.
        0 | 1 => (1 << 40 | u128::from(b % 8) << 32 | u128::from(b >> 8 & 0x3ff), 128),
        2 => (u128::from(b) << 48 | 1 << 20, 120 + (a >> 8) as u8 % 9),
        3 => (u128::from(b & 0xff) << 64, 57 + (a >> 8) as u8 % 72),
        4 => (u128::from(b) << 72, 9 + (a >> 8) as u8 % 120),
        5 => (u128::from(b & 0xfff) << 64 | 7 << 96, 64),
        6 | 7 => (u128::from(b & 0xffff) << 80 | 5 << 96, 48),
        _ => (u128::from(b) << 72, 25 + (a >> 8) as u8 % 32),
    };
    Prefix6::containing(slot | below, len).expect("at most 128")
}

#[test]
fn a_large_table_answers_as_its_intervals_do_and_after_churn_takes_little_more_than_a_fresh_one() {
    let mut random = 7;
    let count = if cfg!(miri) { 300 } else { 30_000_u32 };
    let number = |round: u32| value(1 + (round.wrapping_mul(2_654_435_761) >> 20) as u16 % 50);
    let mut routes: BTreeMap<Prefix6, Value> = (0..count).map(|at| (dense(&mut random), number(at))).collect();
    let fill = |routes: &BTreeMap<Prefix6, Value>| {
        let mut writer = small(16 << 20);
        let all = routes.iter().map(|(&prefix, &value)| Change { vrf: 0, prefix, value: Some(value) });
        writer.apply(all).expect("it has room");
        writer
    };
    let mut writer = fill(&routes);
    same_as_intervals(&writer, &routes);

    // Down to a hundredth and up again, so that arrays go and come.
    for (rounds, one_in) in [(2 * count, 8), (2 * count, 2)] {
        for round in 0..rounds {
            let prefix = dense(&mut random);
            if round % one_in == 0 {
                let value = number(round + 1);
                assert_eq!(writer.insert(0, prefix, value).expect("it has room"), routes.insert(prefix, value));
            } else if let Some((&gone, _)) = routes.range(prefix..).next() {
                assert_eq!(writer.value(0, gone), routes.get(&gone).copied());
                assert_eq!(writer.remove(0, gone).expect("it has room"), routes.remove(&gone));
            }
            if round % 32 == 0 {
                reclaim(&mut writer);
            }
        }
        assert_eq!(writer.prefixes(0), routes.len());
        same_as_intervals(&writer, &routes);
        reclaim(&mut writer);
        let (churned, fresh) = (writer.usage(), fill(&routes).usage());
        // Arrays stay longer than they would come.
        assert!(churned.used_bytes <= fresh.used_bytes * 5 / 4 + (8 << 10), "{churned:?} against {fresh:?}");
    }

    let all: Vec<_> = routes.keys().copied().collect();
    let (by_one, by_vrf) = all.split_at(all.len() / 2);
    for &prefix in by_one {
        writer.remove(0, prefix).expect("it has room");
        reclaim(&mut writer);
    }
    assert_eq!(writer.remove_vrf(0), by_vrf.len());
    reclaim(&mut writer);
    assert_eq!(writer.usage().used_bytes, 0);
    same_as_intervals(&writer, &BTreeMap::new());
}

#[test]
fn a_table_emptied_route_by_route_is_empty() {
    let mut random = 9;
    let mut writer = small(8 << 20);
    let all: Vec<_> = (0..if cfg!(miri) { 100 } else { 5000_u16 }).map(|at| (dense(&mut random), 1 + at % 7)).collect();
    writer.apply(all.iter().map(|&(prefix, number)| set(1, prefix, number))).expect("it has room");
    for (prefix, _) in all {
        writer.remove(1, prefix).expect("it has room");
        reclaim(&mut writer);
    }
    assert_eq!((writer.prefixes(1), writer.usage().used_bytes), (0, 0));
}

proptest! {
    /// Bulk changes of crowded routes in memory of any size: all of a change is there, or nothing.
    #[test]
    fn a_change_of_many_routes_that_does_not_fit_changes_nothing(
        bytes in prop_oneof![0..200_000_usize, 0..40_000_usize],
        bulks in vec((any::<u32>(), 0..600_usize, any::<bool>()), 1..6),
    ) {
        let mut writer = small(bytes);
        let mut routes = BTreeMap::new();
        for (seed, count, goes) in bulks {
            let mut random = u64::from(seed);
            let mut changes: Vec<_> = (0..count).map(|at| set(0, dense(&mut random), 1 + at as u16 % 9)).collect();
            if goes {
                changes.extend(routes.keys().step_by(2).map(|&prefix| Change { vrf: 0, prefix, value: None }));
            }
            let before = writer.usage();
            match writer.apply(changes.iter().copied()) {
                Ok(()) => {
                    for Change { prefix, value, .. } in changes {
                        match value {
                            Some(value) => routes.insert(prefix, value),
                            None => routes.remove(&prefix),
                        };
                    }
                }
                Err(error) => {
                    let is_full = matches!(error, TableError::Full { .. });
                    prop_assert!(is_full, "{error}");
                    let after = writer.usage();
                    prop_assert_eq!((after.used_bytes, after.retired_bytes), (before.used_bytes, before.retired_bytes));
                }
            }
            prop_assert_eq!(writer.prefixes(0), routes.len());
            same_as_intervals(&writer, &routes);
            reclaim(&mut writer);
        }
        prop_assert_eq!(writer.remove_vrf(0), routes.len());
        reclaim(&mut writer);
        prop_assert_eq!(writer.usage().used_bytes, 0);
    }

    /// Routes of up to 8 bits and a few longer ones, against the scan.
    #[test]
    fn short_routes_answer_where_no_longer_one_does(
        routes in vec((0..2_u16, any::<u128>(), 0..=10_u8, proptest::option::weighted(0.8, 1..9_u16)), 0..40),
    ) {
        let mut writer = small(1 << 20);
        let mut naive = Naive::new();
        for &(vrf, address, len, number) in &routes {
            let prefix = Prefix6::containing(address, len).unwrap();
            match number {
                Some(number) => prop_assert_eq!(
                    writer.insert(vrf, prefix, value(number)).unwrap(),
                    naive.insert(vrf, prefix, value(number))
                ),
                None => prop_assert_eq!(writer.remove(vrf, prefix).unwrap(), naive.remove(vrf, prefix)),
            }
        }
        let addresses: Vec<u128> = (0..1024).map(|top| top << 118).chain(routes.iter().map(|route| route.1)).collect();
        for vrfs in [vec![0; addresses.len()], vec![1; addresses.len()], (0..).take(addresses.len()).map(|at| at % 3).collect()] {
            let mut values = vec![None; addresses.len()];
            writer.reader().lookup_batch(&vrfs, &addresses, &mut values);
            for ((&vrf, &address), value) in vrfs.iter().zip(&addresses).zip(values) {
                prop_assert_eq!(value, naive.lookup(vrf, address));
                prop_assert_eq!(writer.reader().lookup(vrf, address), value);
            }
        }
    }
}

#[test]
fn short_and_default_routes_take_no_memory() {
    let mut writer = small(1 << 20);
    writer.insert(0, v6("2001:db8::/32"), value(1)).unwrap();
    let before = writer.usage();
    for (number, prefix) in (2..).zip(["::/0", "2000::/3", "2000::/8", "fc00::/7", "8000::/1"]) {
        writer.insert(0, v6(prefix), value(number)).unwrap();
    }
    let after = writer.usage();
    assert_eq!((after.used_bytes, after.resident_bytes), (before.used_bytes, before.resident_bytes));
    let answers = ["2001:db8::1", "::1", "3000::", "2001:db9::", "fd00::", "ff02::1"];
    let answers = answers.map(|address| writer.reader().lookup(0, at(address)).map_or(0, Value::as_u16));
    assert_eq!(answers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(writer.remove_vrf(0), 6);
    assert_eq!(writer.reader().lookup(0, at("fd00::")), None);
}

#[test]
fn memory_that_cannot_be_numbered_is_refused() {
    Writer6::new(Limits { vrfs: 1, bytes: 5 << 30 }).unwrap_err();
    Writer6::new(Limits { vrfs: 1, bytes: usize::MAX }).unwrap_err();
}

#[test]
fn a_vrf_beyond_the_table_is_refused_and_has_no_routes() {
    let mut writer = small(1 << 20);
    let error = writer.apply([set(0, v6("2001:db8::/32"), 1), set(2, v6("2001:db8::/32"), 1)]).unwrap_err();
    assert_eq!(error.to_string(), "vrf 2: the table holds 2 VRFs, numbered from 0");
    assert_eq!((writer.prefixes(0), writer.usage().used_bytes), (0, 0));
    assert_eq!(writer.remove(2, v6("2001:db8::/32")), Ok(None));
    assert_eq!((writer.remove_vrf(2), writer.prefixes(2)), (0, 0));
    assert_eq!(writer.reader().lookup(2, at("2001:db8::")), None);
}

/// What readers of the storm see: which slot, and the routes of it that come and go. Route `i` has
/// the values `8 i + 1 ..= 8 i + 8`, so an answer tells which route it came from. The first stays.
fn storm() -> Vec<Prefix6> {
    let mut random = 3;
    let mut all = vec![v6("2001::/16")];
    let hosts = ["2001:d00::1/128", "2001:d00::2/128", "2001:d01:5::/64", "2001:d05::/32", "2001:d05:5::/48"];
    all.extend(hosts.map(v6));
    while all.len() < if cfg!(miri) { 40 } else { 1500 } {
        let prefix = dense(&mut random);
        if prefix.len() > 16 && !all.contains(&prefix) {
            all.push(prefix);
        }
    }
    all
}

/// Every answer is that of a route that holds the address.
fn read(reader: &Reader6, routes: &[Prefix6], epoch: &AtomicU64, seen: &AtomicU64, stop: &AtomicBool) -> u64 {
    let addresses: Vec<u128> = routes.iter().flat_map(|route| [route.address(), route.last()]).collect();
    let vrfs = vec![0; addresses.len()];
    let mut values = vec![None; addresses.len()];
    let mut rounds = 0;
    while !stop.load(Acquire) {
        for ((vrfs, addresses), values) in vrfs.chunks(64).zip(addresses.chunks(64)).zip(values.chunks_mut(64)) {
            reader.lookup_batch(vrfs, addresses, values);
            seen.store(epoch.load(Acquire), Release);
        }
        for (&address, &answer) in addresses.iter().zip(&values) {
            let number = answer.expect("a route that stays holds every address").as_u16();
            let route = routes.get(usize::from(number - 1) / 8).expect("no route has this value");
            assert!(route.contains(address), "{route} for {}", address.to_ip());
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn two_readers_in_a_storm_of_updates_see_old_or_new_answers_only() {
    // So little room that each block is used again and again.
    let mut writer = small(if cfg!(miri) { 12 << 10 } else { 192 << 10 });
    let routes = storm();
    writer.insert(0, routes[0], value(1)).unwrap();
    let epoch = AtomicU64::new(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    thread::scope(|scope| {
        let readers = [0, 1].map(|index| {
            let (reader, routes, epoch, seen, stop) = (writer.reader(), &routes, &epoch, &seen[index], &stop);
            scope.spawn(move || {
                // A failed reader must not leave the writer waiting for it.
                let result = std::panic::catch_unwind(|| read(&reader, routes, epoch, seen, stop));
                while !stop.load(Acquire) {
                    seen.store(epoch.load(Acquire), Release);
                    thread::yield_now();
                }
                result
            })
        });
        let stopping = StopAtEnd(&stop);
        let mut random = 1_u32;
        for _ in 0..if cfg!(miri) { 150 } else { 40_000 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 12) as usize % routes.len();
            let goes = index > 0 && random >> 31 == 0;
            let number = (!goes).then(|| value(8 * index as u16 + 1 + (random >> 28) as u16 % 8));
            let change = Change { vrf: 0, prefix: routes[index], value: number };
            if writer.apply([change]).is_err() {
                // All room waits for the readers: let them pass.
                refused += 1;
                let mark = writer.retire_mark();
                wait_for(&epoch, &seen);
                assert!(writer.reclaim(mark) > 0);
                writer.apply([change]).expect("the blocks came back");
            }
        }
        drop(stopping);
        for reader in readers {
            let rounds = reader.join().expect("panics were caught").expect("a reader saw it");
            assert!(rounds > 0, "a reader never got to read");
        }
    });
    assert!(refused > 10 || cfg!(miri), "blocks were to be used again, but only {refused} times");
}
