//! What decides what a packet may do and when it goes: the access list, policers, and the scheduler.

use bench::acl::List;
use bench::policer::Policed;
use bench::queues::Queues;
use bench::rig::BATCH;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::qos::policer::Kind;
use std::time::Duration;

fn acl(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acl");
    group.throughput(Throughput::Elements(BATCH as u64));
    for rules in [100, 1000, 4000] {
        let mut list = None;
        group.bench_function(rules.to_string(), |bencher| {
            let list = list.get_or_insert_with(|| List::new(rules));
            bencher.iter_custom(|rounds| list.rounds(rounds));
        });
    }
    group.finish();
}

fn policer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policer");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, kind) in [("rfc2697", Kind::Rfc2697), ("rfc2698", Kind::Rfc2698), ("rfc4115", Kind::Rfc4115)] {
        let mut policed = None;
        group.bench_function(name, |bencher| {
            let policed = policed.get_or_insert_with(|| Policed::new(kind));
            bencher.iter_custom(|rounds| policed.rounds(rounds));
        });
    }
    group.finish();
}

/// In and out, by leaves.
fn qos(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("qos");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, leaves, backlog) in Queues::CASES {
        let mut queues = None;
        group.bench_function(name, |bencher| {
            let queues = queues.get_or_insert_with(|| Queues::new(leaves, backlog));
            bencher.iter_custom(|rounds| queues.rounds(rounds));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = acl, policer, qos
}
criterion_main!(benches);
