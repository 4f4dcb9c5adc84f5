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

mod memory;
pub(crate) mod storm;

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
