//! The whole page, `run` and `transmit`: 64 frames in turn, 64 routes.

use bench::rig::{BATCH, Ip, Path, Rig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BATCH as u64));
    let paths = [
        ("ipv4", Path::Plain(Ip::V4)),
        ("ipv6", Path::Plain(Ip::V6)),
        ("vxlan", Path::Encap(Ip::V4)),
        ("vxlan-v6", Path::Encap(Ip::V6)),
        ("vxlan-decap", Path::Decap(Ip::V4)),
        ("vxlan-decap-v6", Path::Decap(Ip::V6)),
    ];
    for (name, path) in paths {
        let mut rig = Rig::new(path);
        group.bench_function(name, |bencher| bencher.iter_custom(|rounds| rig.rounds(rounds)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = pipeline
}
criterion_main!(benches);
