//! What decides what a packet may do: the access list.

use bench::acl::List;
use bench::rig::BATCH;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = acl
}
criterion_main!(benches);
