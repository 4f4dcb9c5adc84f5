//! The table against the oracle, against memory that runs out, and against readers.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::naive::{Intervals, Naive};
use crate::{
    Address, Change, Limits, Mark, Prefix, Prefix4, Prefix6, Reader4, Reader6, TableError, Usage, Value, Writer4,
    Writer6,
};

const VRFS: u16 = 3;

/// What both families have in common.
trait Table<A> {
    type Reader: Lookup<A>;
    fn new(limits: Limits) -> Self;
    fn insert(&mut self, vrf: u16, prefix: Prefix<A>, value: Value) -> Result<Option<Value>, TableError>;
    fn remove(&mut self, vrf: u16, prefix: Prefix<A>) -> Result<Option<Value>, TableError>;
    fn apply(&mut self, changes: Vec<Change<A>>) -> Result<(), TableError>;
    fn remove_vrf(&mut self, vrf: u16) -> usize;
    fn value(&self, vrf: u16, prefix: Prefix<A>) -> Option<Value>;
    fn prefixes(&self, vrf: u16) -> usize;
    fn usage(&self) -> Usage;
    fn retire_mark(&mut self) -> Mark;
    fn reclaim(&mut self, mark: Mark) -> usize;
    fn reader(&self) -> Self::Reader;
}

trait Lookup<A>: Send {
    fn lookup(&self, vrf: u16, address: A) -> Option<Value>;
    fn lookup_batch(&self, vrfs: &[u16], addresses: &[A], values: &mut [Option<Value>]);
}

macro_rules! table {
    ($writer:ty, $reader:ty, $address:ty) => {
        impl Table<$address> for $writer {
            type Reader = $reader;
            fn new(limits: Limits) -> Self {
                Self::new(limits).expect("so little can be reserved")
            }
            fn insert(
                &mut self,
                vrf: u16,
                prefix: Prefix<$address>,
                value: Value,
            ) -> Result<Option<Value>, TableError> {
                self.insert(vrf, prefix, value)
            }
            fn remove(&mut self, vrf: u16, prefix: Prefix<$address>) -> Result<Option<Value>, TableError> {
                self.remove(vrf, prefix)
            }
            fn apply(&mut self, changes: Vec<Change<$address>>) -> Result<(), TableError> {
                self.apply(changes)
            }
            fn remove_vrf(&mut self, vrf: u16) -> usize {
                self.remove_vrf(vrf)
            }
            fn value(&self, vrf: u16, prefix: Prefix<$address>) -> Option<Value> {
                self.value(vrf, prefix)
            }
            fn prefixes(&self, vrf: u16) -> usize {
                self.prefixes(vrf)
            }
            fn usage(&self) -> Usage {
                self.usage()
            }
            fn retire_mark(&mut self) -> Mark {
                self.retire_mark()
            }
            fn reclaim(&mut self, mark: Mark) -> usize {
                self.reclaim(mark)
            }
            fn reader(&self) -> $reader {
                self.reader()
            }
        }
        impl Lookup<$address> for $reader {
            fn lookup(&self, vrf: u16, address: $address) -> Option<Value> {
                self.lookup(vrf, address)
            }
            fn lookup_batch(&self, vrfs: &[u16], addresses: &[$address], values: &mut [Option<Value>]) {
                self.lookup_batch(vrfs, addresses, values);
            }
        }
    };
}

table!(Writer4, Reader4, u32);
table!(Writer6, Reader6, u128);

/// The neighbours of an address, round the ends of the space.
trait Neighbours {
    fn before(self) -> Self;
    fn after(self) -> Self;
}

macro_rules! neighbours {
    ($($address:ty)*) => {$(
        impl Neighbours for $address {
            fn before(self) -> Self {
                self.wrapping_sub(1)
            }
            fn after(self) -> Self {
                self.wrapping_add(1)
            }
        }
    )*};
}

neighbours!(u32 u128);

fn value(number: u16) -> Value {
    Value::new(number).expect("the test gives 1..=32767")
}

fn v4(text: &str) -> Prefix4 {
    let net: ipnet::Ipv4Net = text.parse().expect("the test writes a prefix");
    Prefix4::try_from(net).expect("the test sets no host bits")
}

fn v6(text: &str) -> Prefix6 {
    let net: ipnet::Ipv6Net = text.parse().expect("the test writes a prefix");
    Prefix6::try_from(net).expect("the test sets no host bits")
}

fn small<A: Address, T: Table<A>>(bytes: usize) -> T {
    T::new(Limits { vrfs: VRFS, bytes })
}

#[derive(Clone, Debug)]
enum Step<A> {
    Insert(u16, Prefix<A>, Value),
    Remove(u16, Prefix<A>),
    Apply(Vec<Change<A>>),
    /// Removes one of the routes there are, the index modulo their number.
    RemoveOne(usize),
    RemoveVrf(u16),
    Mark,
    /// With the oldest mark not yet given back.
    Reclaim,
}

/// Addresses that share long beginnings, so that prefixes nest and meet; the ends of the space;
/// and anything.
fn address<A>(any: impl Strategy<Value = A> + 'static) -> BoxedStrategy<A>
where
    A: Address + From<u32> + std::ops::Shl<u32, Output = A> + std::ops::BitXor<Output = A> + std::ops::Not<Output = A>,
{
    let base = prop_oneof![
        Just(A::from(0)),
        Just(!A::from(0)),
        Just(A::from(0x0a01_0203) << u32::from(A::BITS - 32)),
        Just(!(A::from(0x0a01_0203) << u32::from(A::BITS - 32))),
    ];
    let near = (base, 0..A::BITS).prop_map(|(base, bit)| base ^ (A::from(1) << u32::from(bit)));
    prop_oneof![9 => near, 1 => any].boxed()
}

/// Every length, and more often those around the edges of a level.
fn len<A: Address>() -> impl Strategy<Value = u8> {
    let edges: Vec<u8> = (0..=A::BITS / 8)
        .flat_map(|octet| [(8 * octet).saturating_sub(1), 8 * octet, 8 * octet + 1])
        .filter(|&len| len <= A::BITS && len >= A::BITS / 16)
        .collect();
    // Shorter ones than this take as long as all others together.
    let shortest = A::BITS / 16 + 1;
    prop_oneof![
        30 => shortest..=A::BITS,
        30 => proptest::sample::select(edges),
        1 => 0..shortest,
        10 => Just(0),
        10 => Just(A::BITS),
        20 => 8..=25_u8,
    ]
}

fn steps<A: Address>(address: BoxedStrategy<A>) -> impl Strategy<Value = Vec<Step<A>>> {
    let prefix = (address, len::<A>())
        .prop_map(|(address, len)| Prefix::containing(address, len).expect("within the width"))
        .boxed();
    let number = prop_oneof![Just(1), Just(2), Just(Value::MAX), 1..=Value::MAX];
    let change = (0..VRFS, prefix.clone(), proptest::option::of(number.clone()))
        .prop_map(|(vrf, prefix, number)| Change { vrf, prefix, value: number.map(value) });
    let insert =
        (0..VRFS, prefix.clone(), number).prop_map(|(vrf, prefix, number)| Step::Insert(vrf, prefix, value(number)));
    vec(
        prop_oneof![
            24 => insert,
            2 => (0..VRFS, prefix).prop_map(|(vrf, prefix)| Step::Remove(vrf, prefix)),
            4 => vec(change, 0..10).prop_map(Step::Apply),
            8 => any::<usize>().prop_map(Step::RemoveOne),
            1 => (0..VRFS).prop_map(Step::RemoveVrf),
            2 => Just(Step::Mark),
            2 => Just(Step::Reclaim),
        ],
        1..40,
    )
}

/// The first and last address of every prefix, and their neighbours outside.
fn boundaries<A>(steps: &[Step<A>]) -> Vec<A>
where
    A: Address + From<u32> + std::ops::Add<Output = A> + std::ops::Sub<Output = A>,
{
    let (zero, one) = (A::from(0), A::from(1));
    let mut all = BTreeSet::from([zero, zero.last(0)]);
    let of_step = |step: &Step<A>| match step {
        Step::Insert(_, prefix, _) | Step::Remove(_, prefix) => vec![*prefix],
        Step::Apply(changes) => changes.iter().map(|change| change.prefix).collect(),
        _ => Vec::new(),
    };
    for prefix in steps.iter().flat_map(of_step) {
        {
            let (first, last) = (prefix.address(), prefix.last());
            all.extend([first, last]);
            all.extend((first != zero).then(|| first - one));
            all.extend((last != zero.last(0)).then(|| last + one));
        }
    }
    all.into_iter().collect()
}

/// Same answers one by one, in a batch of one VRF, and in a batch that mixes them; also for a
/// VRF that the table does not have.
#[track_caller]
fn same<A: Address>(writer: &impl Table<A>, naive: &Naive<A>, addresses: &[A]) {
    let mut queries = Vec::new();
    for &address in addresses {
        queries.extend((0..=VRFS).map(|vrf| (vrf, address)));
    }
    let (vrfs, addresses): (Vec<u16>, Vec<A>) = queries.into_iter().unzip();
    let mut batch = vec![Some(value(9)); vrfs.len()];
    let reader = writer.reader();
    reader.lookup_batch(&vrfs, &addresses, &mut batch);
    for ((&vrf, &address), &in_batch) in vrfs.iter().zip(&addresses).zip(&batch) {
        let expected = naive.lookup(vrf, address);
        let ip = address.to_ip();
        assert_eq!(reader.lookup(vrf, address), expected, "{ip} in VRF {vrf}, alone");
        assert_eq!(in_batch, expected, "{ip} in VRF {vrf}, in a batch");
    }
    assert_eq!(writer.usage().prefixes, naive.routes().len());
}

/// Removes a route; when there is no room for what replaces it, after a reclaim.
#[track_caller]
fn remove<A: Address>(writer: &mut impl Table<A>, naive: &mut Naive<A>, vrf: u16, prefix: Prefix<A>) {
    let before = writer.usage();
    let removed = writer.remove(vrf, prefix).or_else(|_| {
        assert_eq!(Usage { resident_bytes: 0, ..writer.usage() }, Usage { resident_bytes: 0, ..before });
        let mark = writer.retire_mark();
        writer.reclaim(mark);
        writer.remove(vrf, prefix)
    });
    match removed {
        Ok(old) => assert_eq!(old, naive.remove(vrf, prefix)),
        // A table so small that it has no room for the old and the new.
        Err(full) => {
            assert!(before.limit_bytes < 64 << 10, "{full}");
            let count = writer.prefixes(vrf);
            assert_eq!(writer.remove_vrf(vrf), count);
            naive.remove_vrf(vrf);
        }
    }
}

fn agrees_with_the_oracle<A, T: Table<A>>(bytes: usize, steps: &[Step<A>], order: &[usize])
where
    A: Address + From<u32> + std::ops::Add<Output = A> + std::ops::Sub<Output = A>,
{
    let addresses = boundaries(steps);
    let mut writer = small::<A, T>(bytes);
    let empty = writer.usage();
    let mut naive = Naive::new();
    let mut marks = Vec::new();
    for step in steps {
        match *step {
            Step::Insert(vrf, prefix, value) => {
                let before = writer.usage();
                match writer.insert(vrf, prefix, value) {
                    Ok(old) => assert_eq!(old, naive.insert(vrf, prefix, value)),
                    // A page of entries, or a line that was tried, may stay.
                    Err(_) => {
                        assert_eq!(Usage { resident_bytes: 0, ..writer.usage() }, Usage { resident_bytes: 0, ..before })
                    }
                }
            }
            Step::Remove(vrf, prefix) => remove(&mut writer, &mut naive, vrf, prefix),
            Step::Apply(ref changes) => {
                let before = writer.usage();
                match writer.apply(changes.clone()) {
                    Ok(()) => {
                        for Change { vrf, prefix, value } in changes.iter().copied() {
                            match value {
                                Some(value) => drop(naive.insert(vrf, prefix, value)),
                                None => drop(naive.remove(vrf, prefix)),
                            }
                        }
                    }
                    Err(_) => {
                        assert_eq!(Usage { resident_bytes: 0, ..writer.usage() }, Usage { resident_bytes: 0, ..before })
                    }
                }
            }
            Step::RemoveOne(index) => {
                if let Some(index) = index.checked_rem(naive.routes().len()) {
                    let (vrf, prefix, value) = naive.routes()[index];
                    assert_eq!(writer.value(vrf, prefix), Some(value));
                    remove(&mut writer, &mut naive, vrf, prefix);
                }
            }
            Step::RemoveVrf(vrf) => {
                assert_eq!(writer.remove_vrf(vrf), naive.remove_vrf(vrf));
                assert_eq!(writer.prefixes(vrf), 0);
            }
            Step::Mark => marks.push(writer.retire_mark()),
            Step::Reclaim if marks.is_empty() => {}
            Step::Reclaim => {
                let before = writer.usage();
                let freed = writer.reclaim(marks.remove(0));
                assert_eq!(writer.usage().retired_bytes, before.retired_bytes - freed);
            }
        }
        same(&writer, &naive, &addresses);
    }

    for (count, index) in order.iter().cycle().enumerate() {
        let Some(index) = index.checked_rem(naive.routes().len()) else { break };
        let (vrf, prefix, _) = naive.routes()[index];
        remove(&mut writer, &mut naive, vrf, prefix);
        if count % 4 == 0 {
            same(&writer, &naive, &addresses);
        }
        let mark = writer.retire_mark();
        writer.reclaim(mark);
    }
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    let left = writer.usage();
    assert_eq!((left.prefixes, left.used_bytes, left.retired_bytes), (0, 0, 0));
    assert_eq!(left.limit_bytes, empty.limit_bytes);
}

/// Room for all that the steps can ask for, or for nearly nothing.
fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(4 << 20), 1 => 0..2000_usize, 1 => 0..30_000_usize]
}

proptest! {
    /// After every step: each boundary address has the oracle's answer in each VRF, a route
    /// that did not fit has changed nothing, and in the end all memory is back.
    #[test]
    fn answers_as_a_scan_of_all_ipv4_routes_does(
        bytes in bytes(),
        steps in steps::<u32>(address(any::<u32>())),
        order in vec(any::<usize>(), 1..60),
    ) {
        agrees_with_the_oracle::<u32, Writer4>(bytes, &steps, &order);
    }

    #[test]
    fn answers_as_a_scan_of_all_ipv6_routes_does(
        bytes in bytes(),
        steps in steps::<u128>(address(any::<u128>())),
        order in vec(any::<usize>(), 1..60),
    ) {
        agrees_with_the_oracle::<u128, Writer6>(bytes, &steps, &order);
    }

    /// Whatever the number of addresses, the last lanes too.
    #[test]
    fn a_batch_of_any_length_answers_as_single_lookups_do(
        queries in vec((0..=VRFS, address(any::<u32>())), 0..200),
        steps in steps::<u32>(address(any::<u32>())),
    ) {
        let mut writer = small::<u32, Writer4>(4 << 20);
        for step in steps {
            if let Step::Insert(vrf, prefix, value) = step {
                writer.insert(vrf, prefix, value).expect("the table is large enough");
            }
        }
        let reader = writer.reader();
        let (vrfs, addresses): (Vec<u16>, Vec<u32>) = queries.iter().copied().unzip();
        let mut values = vec![None; queries.len()];
        reader.lookup_batch(&vrfs, &addresses, &mut values);
        let single: Vec<_> = queries.iter().map(|&(vrf, address)| reader.lookup(vrf, address)).collect();
        prop_assert_eq!(values, single);
    }
}

#[test]
#[should_panic(expected = "a batch has one VRF")]
fn a_batch_with_a_vrf_too_few_is_refused() {
    small::<u32, Writer4>(0).reader().lookup_batch(&[0], &[1, 2], &mut [None, None]);
}

#[test]
fn a_route_that_does_not_fit_says_what_is_missing_and_fits_after_a_reclaim() {
    let mut writer = small::<u32, Writer4>(192);
    let reader = writer.reader();
    writer.insert(0, v4("192.0.2.0/24"), value(1)).unwrap();
    writer.insert(0, v4("192.0.2.1/32"), value(2)).unwrap();

    let error = writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap_err();
    assert_eq!(error.to_string(), "table full: the route needs 32 bytes, 80 of 192 are free and 16 wait for readers");
    assert_eq!(reader.lookup(1, 0xc633_6401), None);

    let early = writer.retire_mark();
    writer.remove(0, v4("192.0.2.1/32")).unwrap();
    assert_eq!(reader.lookup(0, 0xc000_0201), Some(value(1)));
    assert_eq!(writer.reclaim(early), 16, "the mark is older than the removal");
    writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap_err();

    let mark = writer.retire_mark();
    assert_eq!(writer.reclaim(mark), 64 + 32);
    writer.insert(1, v4("198.51.100.1/32"), value(3)).unwrap();
    assert_eq!(reader.lookup(1, 0xc633_6401), Some(value(3)));
    assert_eq!(reader.lookup(0, 0xc000_0201), Some(value(1)));
}

#[test]
fn changes_that_do_not_all_fit_or_name_no_vrf_leave_all_as_it_was() {
    let mut writer = small::<u32, Writer4>(256);
    let (net, all) = (v4("192.0.2.0/24"), v4("0.0.0.0/0"));
    writer.insert(0, net, value(1)).unwrap();
    writer.insert(0, all, value(2)).unwrap();
    let before = writer.usage();

    let twice = |prefix| [3, 4].map(|number| Change { vrf: 0, prefix, value: Some(value(number)) });
    let gone = Change { vrf: 0, prefix: v4("198.51.100.0/24"), value: None };
    let hosts = (0..8).map(|host| Change { vrf: 1, prefix: Prefix::host(host << 16), value: Some(value(5)) });
    let nowhere = Change { vrf: VRFS, prefix: net, value: Some(value(6)) };
    let fitting: Vec<_> = twice(net).into_iter().chain(twice(all)).chain([gone]).collect();

    let error = writer.apply(fitting.iter().copied().chain(hosts)).unwrap_err();
    assert!(matches!(error, TableError::Full { .. }), "{error}");
    for error in [error, writer.apply(fitting.iter().copied().chain([nowhere])).unwrap_err()] {
        assert_eq!(Usage { resident_bytes: before.resident_bytes, ..writer.usage() }, before, "after {error}");
        assert_eq!((writer.value(0, net), writer.value(0, all)), (Some(value(1)), Some(value(2))));
        assert_eq!((writer.prefixes(0), writer.prefixes(1)), (2, 0));
        assert_eq!(writer.reader().lookup(0, 0xc000_0201), Some(value(1)));
        assert_eq!(writer.reader().lookup(0, 0xc633_6401), Some(value(2)));
        assert_eq!(writer.reader().lookup(1, 1 << 16), None);
    }

    writer.apply(fitting).unwrap();
    assert_eq!(writer.reader().lookup(0, 0xc000_0201), Some(value(4)));
    assert_eq!(writer.reader().lookup(0, 0xc633_6401), Some(value(4)));
}

/// Whatever stage of building arrays, nodes, leaves and shared leaves the memory ends in.
#[test]
fn a_large_ipv6_change_without_room_leaves_all_as_it_was() {
    let mut state = 3;
    let mut next = |number: u16| {
        let mut word = || u128::from(random(&mut state));
        let address = 0x2001_0d00 << 96 | word() << 72 | (word() << 32 | word()) >> (word() % 40);
        let len = [23, 33, 40, 48, 64, 128][word() as usize % 6];
        (Prefix::containing(address, len).expect("at most 128"), value(1 + number % 999))
    };
    let first: BTreeMap<Prefix6, Value> = (0..1000).map(&mut next).collect();
    let second: Vec<_> = (0..2000).map(&mut next).collect();
    let change = |(prefix, value)| Change { vrf: 0, prefix, value: Some(value) };
    for kib in (160..400).step_by(16) {
        let mut writer = small::<u128, Writer6>(kib << 10);
        if writer.apply(first.clone().into_iter().map(change)).is_err() {
            continue;
        }
        let before = writer.usage();
        let mut routes = first.clone();
        if writer.apply(second.iter().copied().map(change)).is_ok() {
            routes.extend(second.iter().copied());
        } else {
            assert_eq!(Usage { resident_bytes: 0, ..writer.usage() }, Usage { resident_bytes: 0, ..before });
        }
        same_as_intervals(&writer, &routes);
        // The longest first: what takes away a short one builds all that is below it.
        let mut order: Vec<_> = routes.keys().collect();
        order.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        for prefix in order {
            while writer.remove(0, *prefix).is_err() {
                let mark = writer.retire_mark();
                assert!(writer.reclaim(mark) > 0);
            }
        }
        let mark = writer.retire_mark();
        writer.reclaim(mark);
        assert_eq!(writer.usage().used_bytes, 0);
    }
}

#[test]
fn a_vrf_beyond_the_table_is_refused_by_number() {
    let error = small::<u32, Writer4>(0).insert(VRFS, v4("192.0.2.0/24"), value(1)).unwrap_err();
    assert_eq!(error.to_string(), "vrf 3: the table holds 3 VRFs, numbered from 0");
}

#[test]
fn memory_that_cannot_be_numbered_is_refused() {
    let bytes = usize::MAX;
    let error = Writer4::new(Limits { vrfs: 1, bytes }).unwrap_err();
    assert_eq!(error.to_string(), "cannot reserve 18446744073709551615 bytes and 1 VRFs for routes");
}

#[test]
fn a_vrf_with_a_default_route_and_a_few_others_takes_less_than_32_kib() {
    let mut writer = small::<u32, Writer4>(100 << 10);
    let before = writer.usage().resident_bytes;
    writer.insert(1, v4("0.0.0.0/0"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes, before);
    for (number, prefix) in (1..).zip(["192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24"]) {
        writer.insert(1, v4(prefix), value(number)).unwrap();
    }
    assert!(writer.usage().resident_bytes - before <= 32 << 10);
}

#[test]
fn blocks_of_all_ipv4_vrfs_share_a_page_of_2_mib() {
    let mut writer = Writer4::new(Limits { vrfs: 2, bytes: 8 << 20 }).unwrap();
    let empty = writer.usage().resident_bytes;
    writer.insert(0, v4("192.0.2.0/24"), value(1)).unwrap();
    let one = writer.usage().resident_bytes;
    assert_eq!(one - empty, (2 << 20) + (4 << 10), "a large page of blocks, and a small one of entries");
    writer.insert(1, v4("192.0.2.0/24"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes - one, 4 << 10);
}

#[test]
fn a_host_route_of_ipv6_takes_a_line_wherever_it_is() {
    let mut writer = small::<u128, Writer6>(100 << 10);
    let used = |writer: &Writer6| writer.usage().used_bytes;
    writer.insert(1, v6("2001:db8::7/128"), value(1)).unwrap();
    assert_eq!(used(&writer), 64);
    writer.insert(1, v6("3fff::/20"), value(2)).unwrap();
    let before = used(&writer);
    for (number, prefix) in (0..).zip(["3fff:0:1::1/128", "3fff:100:0:1::1/128", "3fff:200::1/128"]) {
        writer.insert(1, v6(prefix), value(3)).unwrap();
        assert_eq!(used(&writer), before + 64 * (number + 1));
    }
    // Beside others: the line that they are in, and one for the host.
    for (number, prefix) in (4..).zip(["3fff:300::/32", "3fff:301::/32", "3fff:302::/32", "3fff:303::/48"]) {
        writer.insert(1, v6(prefix), value(number)).unwrap();
    }
    let before = used(&writer);
    writer.insert(1, v6("3fff:302:5:6:7::8/128"), value(5)).unwrap();
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    assert_eq!(used(&writer), before + 64);
}

#[test]
fn a_vrf_with_a_few_ipv6_routes_takes_less_than_32_kib() {
    let mut writer = small::<u128, Writer6>(100 << 10);
    let before = writer.usage().resident_bytes;
    writer.insert(1, v6("::/0"), value(1)).unwrap();
    assert_eq!(writer.usage().resident_bytes, before);
    for (number, prefix) in (1..).zip(["2001:db8::/32", "2001:db8::7/128", "3fff::/48", "fd00::/64"]) {
        writer.insert(1, v6(prefix), value(number)).unwrap();
    }
    assert!(writer.usage().resident_bytes - before <= 32 << 10);
}

#[test]
fn readers_go_to_other_threads_and_outlive_the_writer() {
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let mut writer = small::<u32, Writer4>(1024);
    let reader = writer.reader();
    is_shared(&reader);
    writer.insert(0, v4("192.0.2.0/24"), value(1)).unwrap();
    drop(writer);
    assert_eq!(reader.lookup(0, 0xc000_02ff), Some(value(1)));
}

/// A sequence that looks like none, the same in every run.
fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}

#[track_caller]
fn same_as_intervals<A: Address + Neighbours>(writer: &impl Table<A>, routes: &BTreeMap<Prefix<A>, Value>) {
    let oracle = Intervals::new(routes.iter().map(|(&prefix, &value)| (prefix, value)));
    let addresses: Vec<A> = oracle.starts().flat_map(|start| [start.before(), start, start.after()]).collect();
    let mut values = vec![None; addresses.len()];
    writer.reader().lookup_batch(&vec![0; addresses.len()], &addresses, &mut values);
    for (&address, &value) in addresses.iter().zip(&values) {
        assert_eq!(value, oracle.lookup(address), "{}", address.to_ip());
    }
}

/// Routes come and go; in the end the table is as if it had never known the others.
#[track_caller]
fn is_as_a_fresh_one_after_churn<A: Address + Neighbours, T: Table<A>>(
    mut next: impl FnMut() -> (Prefix<A>, Value),
    slack: usize,
) {
    let mut routes: BTreeMap<Prefix<A>, Value> = (0..30_000).map(|_| next()).collect();
    let fill = |routes: &BTreeMap<Prefix<A>, Value>| {
        let mut writer = small::<A, T>(16 << 20);
        let all = routes.iter().map(|(&prefix, &value)| Change { vrf: 0, prefix, value: Some(value) });
        writer.apply(all.collect()).expect("it has room");
        writer
    };
    let mut writer = fill(&routes);
    same_as_intervals(&writer, &routes);

    for round in 0..30_000 {
        let (prefix, value) = next();
        if round % 2 == 0 {
            let gone = routes.range(prefix..).next().map(|(&prefix, _)| prefix);
            if let Some(gone) = gone {
                assert_eq!(writer.remove(0, gone).expect("it has room"), routes.remove(&gone));
            }
        } else {
            assert_eq!(writer.insert(0, prefix, value).expect("it has room"), routes.insert(prefix, value));
        }
        if round % 32 == 0 {
            let mark = writer.retire_mark();
            writer.reclaim(mark);
        }
    }
    same_as_intervals(&writer, &routes);
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    let (churned, fresh) = (writer.usage(), fill(&routes).usage());
    assert_eq!(churned.retired_bytes, 0);
    assert!(
        churned.used_bytes.abs_diff(fresh.used_bytes) <= fresh.used_bytes / 100 * slack,
        "{churned:?} against {fresh:?}"
    );
    assert!(churned.resident_bytes < fresh.resident_bytes * 3 / 2, "{churned:?} against {fresh:?}");

    assert_eq!(writer.remove_vrf(0), routes.len());
    let mark = writer.retire_mark();
    writer.reclaim(mark);
    assert_eq!(writer.usage().used_bytes, 0);
}

/// Dense below a few /12s, with all lengths and hosts in clusters.
#[test]
fn a_large_ipv4_table_answers_as_its_intervals_do_and_after_churn_takes_what_a_fresh_one_takes() {
    let mut state = 7;
    let next = || {
        let (address, shape) = (random(&mut state), random(&mut state));
        let address = 0x0a00_0000 | (address & 3) << 21 | (address >> 8 & 0xf_ffff);
        let (len, address) = match shape % 8 {
            0 => (8 + (shape >> 8) as u8 % 25, address),
            1 => (32, address & !0xf_0000),
            2 => (25 + (shape >> 8) as u8 % 8, address),
            _ => (19 + (shape >> 8) as u8 % 6, address),
        };
        let prefix = Prefix::containing(address, len).expect("at most 32");
        (prefix, value(1 + (shape >> 16) as u16 % 50))
    };
    is_as_a_fresh_one_after_churn::<u32, Writer4>(next, 0);
}

/// A few dense /24s, and a /64 full of hosts. Strides are chosen for the routes that there were at
/// the time, so that the memory is not the same to the octet.
#[test]
fn a_large_ipv6_table_answers_as_its_intervals_do_and_after_churn_takes_about_what_a_fresh_one_takes() {
    let mut state = 7;
    let next = || {
        let mut word = || u128::from(random(&mut state));
        let (address, shape) = (word() << 96 | word() << 64 | word() << 32 | word(), word() as u32);
        let address = 0x2001_0d00 << 96 | address & ((3 << 104) | ((1 << 100) - 1));
        let host = 0x2001_0d00_dead_beef << 64 | address & 0x1fff;
        let (len, address) = match shape % 8 {
            0 => (17 + (shape >> 8) as u8 % 112, address),
            1 => (128, host),
            2 => (65 + (shape >> 8) as u8 % 64, host),
            3 => (128, address),
            _ => (29 + (shape >> 8) as u8 % 36, address),
        };
        let prefix = Prefix::containing(address, len).expect("at most 128");
        (prefix, value(1 + (shape >> 16) as u16 % 50))
    };
    is_as_a_fresh_one_after_churn::<u128, Writer6>(next, 15);
}

/// The routes of a storm. Route `i` has the values `4 i + 1 ..= 4 i + 4`, so an answer tells which
/// route it came from. The first and the eighth stay, each around those up to the next that does;
/// the others come and go.
struct Storm<A> {
    routes: [Prefix<A>; 12],
    /// A host that is in none of them, and a route around it. The host's value counts up all the while, and so does that of
    /// the default route, which the address behind the route around falls to: a reader must see neither go back nor away.
    counter: [Prefix<A>; 2],
}

const STAYS: [usize; 2] = [0, 7];

/// One reader of the storm: every answer is that of a route that holds the address, and the
/// route that stays hides all shorter ones.
fn read<A: Address + Neighbours>(
    storm: &Storm<A>,
    reader: &impl Lookup<A>,
    epoch: &AtomicU64,
    seen: &AtomicU64,
    stop: &AtomicBool,
) -> u64 {
    let routes = &storm.routes;
    let mut addresses: Vec<A> = Vec::new();
    for route in routes {
        addresses.extend([route.address(), route.last(), route.last().before()]);
    }
    let counters = [storm.counter[0].address(), storm.counter[1].last().after()];
    addresses.extend(counters);
    let vrfs = vec![0; addresses.len()];
    let mut values = vec![None; addresses.len()];
    let mut counts = [0; 2];
    let mut rounds = 0;
    while !stop.load(Acquire) {
        reader.lookup_batch(&vrfs, &addresses, &mut values);
        for (&address, &answer) in addresses.iter().zip(&values) {
            let number = answer.expect("a route that stays holds every address").as_u16();
            if let Some(counter) = counters.iter().position(|&counter| counter == address) {
                let count = std::mem::replace(&mut counts[counter], number);
                assert!(number >= count, "{number} came after {count}");
                continue;
            }
            let route = routes.get(usize::from(number - 1) / 4).expect("no route has this value");
            assert!(route.contains(address), "{route} for {}", address.to_ip());
            let stays = STAYS.map(|index| routes[index]).into_iter().find(|stays| stays.contains(address));
            let stays = stays.expect("one that stays holds every address");
            assert!(route.len() >= stays.len(), "{route} is hidden by {stays}");
        }
        rounds += 1;
        seen.store(epoch.load(Acquire), Release);
    }
    rounds
}

/// Waits until each reader has finished the batch that it was in. It must also have read
/// something that was written after the change: a reader that only counts its batches may still
/// find the old entry in the next one.
fn wait_for(epoch: &AtomicU64, seen: &[AtomicU64; 2]) {
    let now = epoch.load(Acquire) + 1;
    epoch.store(now, Release);
    for seen in seen {
        while seen.load(Acquire) < now {
            thread::yield_now();
        }
    }
}

/// Stops the readers however the writer ends, so that a failure does not hang.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

#[test]
fn two_readers_in_a_storm_of_ipv4_updates_see_old_or_new_answers_only() {
    let routes = [
        "192.0.0.0/8",
        "192.0.2.0/24",
        "192.0.2.64/26",
        "192.0.2.77/32",
        "192.0.2.200/32",
        "192.0.0.0/15",
        "192.0.3.0/24",
        "198.51.0.0/16",
        "198.51.100.0/25",
        "198.51.100.1/32",
        "198.51.100.2/32",
        "192.0.2.192/27",
    ];
    let storm = Storm { routes: routes.map(v4), counter: ["203.0.113.9/32", "203.0.113.0/24"].map(v4) };
    rages::<u32, Writer4>(&storm, if cfg!(miri) { 2 << 10 } else { 32 << 10 });
}

#[test]
fn two_readers_in_a_storm_of_ipv6_updates_see_old_or_new_answers_only() {
    let routes = [
        "2001:d00::/24",
        "2001:db8::/32",
        "2001:db8:0:4000::/50",
        "2001:db8:0:4000::77/128",
        "2001:db8::c8/128",
        "2001:d80::/25",
        "2001:db9::/32",
        "2001:e00::/26",
        "2001:e02::/57",
        "2001:e02::1/128",
        "2001:e02::2/128",
        "2001:db8:0:c000::/90",
    ];
    let storm = Storm { routes: routes.map(v6), counter: ["2001:f00::9/128", "2001:f00::/48"].map(v6) };
    rages::<u128, Writer6>(&storm, if cfg!(miri) { 4 << 10 } else { 64 << 10 });
}

/// Another default route comes and goes while a host that else falls to it has a route of its own.
#[test]
fn a_default_route_that_never_was_a_hosts_is_none_of_its_answers() {
    let host = v4("192.0.2.77/32");
    let mut writer = small::<u32, Writer4>(64 << 10);
    let default = Prefix::containing(host.address(), 0).unwrap();
    let [first, other, own] = [1, 2, 3].map(value);
    writer.insert(0, default, first).unwrap();
    let stop = AtomicBool::new(false);
    let epoch = AtomicU64::new(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        let readers = [0, 1].map(|index| {
            let (reader, epoch, seen, stop) = (writer.reader(), &epoch, &seen[index], &stop);
            scope.spawn(move || {
                let (vrfs, addresses) = ([0; 65], [host.address(); 65]);
                let (mut values, mut wrong) = ([None; 65], 0);
                while !stop.load(Acquire) {
                    reader.lookup_batch(&vrfs, &addresses, &mut values);
                    wrong += values.iter().filter(|&&value| value != Some(first) && value != Some(own)).count();
                    seen.store(epoch.load(Acquire), Release);
                }
                wrong
            })
        });
        let stopping = StopAtEnd(&stop);
        for round in 0..if cfg!(miri) { 30 } else { 20_000 } {
            writer.insert(0, host, own).unwrap();
            writer.insert(0, default, other).unwrap();
            writer.insert(0, default, first).unwrap();
            writer.remove(0, host).unwrap();
            if round % 64 == 0 {
                let mark = writer.retire_mark();
                wait_for(&epoch, &seen);
                writer.reclaim(mark);
            }
        }
        drop(stopping);
        let wrong = readers.map(|reader| reader.join().expect("a reader counts, and does not fail"));
        assert_eq!(wrong, [0; 2], "answers that never were the host's");
    });
}

/// With little room, so that each block is used again and again.
fn rages<A: Address + Neighbours, T: Table<A>>(storm: &Storm<A>, bytes: usize) {
    let mut writer = small::<A, T>(bytes);
    for index in STAYS {
        writer.insert(0, storm.routes[index], value(4 * index as u16 + 1)).unwrap();
    }
    let default = Prefix::containing(storm.counter[0].address(), 0).unwrap();
    for prefix in storm.counter.into_iter().chain([default]) {
        writer.insert(0, prefix, value(1)).unwrap();
    }

    let epoch = AtomicU64::new(0);
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    let stop = AtomicBool::new(false);
    let mut refused = 0;
    thread::scope(|scope| {
        let readers = [0, 1].map(|index| {
            let (reader, epoch, seen, stop) = (writer.reader(), &epoch, &seen[index], &stop);
            scope.spawn(move || {
                // A failed reader must not leave the writer waiting for it.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| read(storm, &reader, epoch, seen, stop)));
                while !stop.load(Acquire) {
                    seen.store(epoch.load(Acquire), Release);
                    thread::yield_now();
                }
                result
            })
        });
        let stopping = StopAtEnd(&stop);
        // A fixed sequence that looks like none: multiplication by a generator modulo 2^32.
        let mut random = 1_u32;
        for round in 0..if cfg!(miri) { 300 } else { 30_000_u32 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 16) as usize % storm.routes.len();
            let prefix = storm.routes[index];
            let stays = STAYS.contains(&index);
            let goes = !stays && random >> 30 & 1 == 0;
            let number = value(4 * index as u16 + 1 + (random >> 28) as u16 % 4);
            let count = value(1 + (round / 2) as u16);
            let counted = [storm.counter[0], default].map(|prefix| (prefix, Some(count)));
            for (prefix, value) in [(prefix, (!goes).then_some(number))].into_iter().chain(counted) {
                let change = Change { vrf: 0, prefix, value };
                if writer.apply(vec![change]).is_err() {
                    // All room waits for the readers: let them pass.
                    refused += 1;
                    let mark = writer.retire_mark();
                    wait_for(&epoch, &seen);
                    assert!(writer.reclaim(mark) > 0);
                    writer.apply(vec![change]).expect("the blocks came back");
                }
            }
        }
        drop(stopping);
        for reader in readers {
            let rounds = reader.join().expect("panics were caught").expect("a reader saw it");
            assert!(rounds > 0, "a reader never got to read");
        }
    });
    assert!(refused > if cfg!(miri) { 1 } else { 50 }, "blocks were to be used again, but only {refused} times");
}
