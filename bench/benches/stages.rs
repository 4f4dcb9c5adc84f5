//! The stages that cost most, each alone.

use bench::rig::{BATCH, Ip, Load, Path, Rig, Stage};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn stages(criterion: &mut Criterion) {
    let stages = [
        ("parse", "ipv4", Path::Plain(Ip::V4), Stage::Parse),
        ("parse", "ipv6", Path::Plain(Ip::V6), Stage::Parse),
        ("lookup", "ipv4", Path::Plain(Ip::V4), Stage::Lookup),
        ("lookup", "ipv6", Path::Plain(Ip::V6), Stage::Lookup),
        ("encap", "vxlan-v4", Path::Encap(Ip::V4), Stage::Encap),
        ("encap", "vxlan-v6", Path::Encap(Ip::V6), Stage::Encap),
        ("decap", "vxlan-v4", Path::Decap(Ip::V4), Stage::Decap),
        ("decap", "vxlan-v6", Path::Decap(Ip::V6), Stage::Decap),
    ];
    for (layer, name, path, stage) in stages {
        let mut group = criterion.benchmark_group(layer);
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut rig = Rig::new(path, Load::Hot);
        group.bench_function(name, |bencher| bencher.iter_custom(|rounds| rig.stage(rounds, stage)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = stages
}
criterion_main!(benches);
