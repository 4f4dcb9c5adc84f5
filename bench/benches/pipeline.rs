//! The whole page, `run` and `transmit`: with all it needs in the caches, and with little of it.

use bench::rig::{BATCH, Ip, Load, Path, Rig, VXLAN};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BATCH as u64));
    let paths = [
        ("ipv4", Path::Plain(Ip::V4), Load::Hot),
        ("ipv6", Path::Plain(Ip::V6), Load::Hot),
        ("vxlan", Path::Encap(VXLAN, Ip::V4), Load::Hot),
        ("vxlan-v6", Path::Encap(VXLAN, Ip::V6), Load::Hot),
        ("vxlan-decap", Path::Decap(VXLAN, Ip::V4), Load::Hot),
        ("vxlan-decap-v6", Path::Decap(VXLAN, Ip::V6), Load::Hot),
        ("ipv4-cold", Path::Plain(Ip::V4), Load::Cold),
        ("ipv6-cold", Path::Plain(Ip::V6), Load::Cold),
        ("vxlan-cold", Path::Encap(VXLAN, Ip::V4), Load::Cold),
    ];
    for (name, path, load) in paths {
        // Made when it is asked for: full tables take a second.
        let mut rig = None;
        group.bench_function(name, |bencher| {
            let rig = rig.get_or_insert_with(|| Rig::new(path, load));
            bencher.iter_custom(|rounds| rig.rounds(rounds));
        });
    }
    let mut rig = None;
    group.bench_function("everything", |bencher| {
        let rig = rig.get_or_insert_with(Rig::with_everything);
        bencher.iter_custom(|rounds| rig.rounds(rounds));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = pipeline
}
criterion_main!(benches);
