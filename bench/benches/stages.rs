//! The stages that cost most, each alone.

use bench::rig::{BATCH, GENEVE, GRE, IP4IP6, IP6IP6, IPIP, Ip, Load, Path, Rig, SIT, Stage, VXLAN};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

fn stages(criterion: &mut Criterion) {
    for (name, ip) in [("ipv4", Ip::V4), ("ipv6", Ip::V6)] {
        stage(criterion, "parse", name, Path::Plain(ip), Stage::Parse);
        stage(criterion, "lookup", name, Path::Plain(ip), Stage::Lookup);
    }
    let tunnels = [
        ("vxlan-v4", VXLAN, Ip::V4),
        ("vxlan-v6", VXLAN, Ip::V6),
        ("geneve-v4", GENEVE, Ip::V4),
        ("geneve-v6", GENEVE, Ip::V6),
        ("gre-v4", GRE, Ip::V4),
        ("gre-v6", GRE, Ip::V6),
        ("ipip-v4", IPIP, Ip::V4),
        ("sit-v4", SIT, Ip::V4),
        ("ip6ip6-v6", IP6IP6, Ip::V6),
        ("ip4ip6-v6", IP4IP6, Ip::V6),
    ];
    for (name, kind, ip) in tunnels {
        stage(criterion, "encap", name, Path::Encap(kind, ip), Stage::Encap);
        stage(criterion, "decap", name, Path::Decap(kind, ip), Stage::Decap);
    }
}

fn stage(criterion: &mut Criterion, layer: &str, name: &str, path: Path, stage: Stage) {
    let mut group = criterion.benchmark_group(layer);
    group.throughput(Throughput::Elements(BATCH as u64));
    // Made when it is asked for.
    let mut rig = None;
    group.bench_function(name, |bencher| {
        let rig = rig.get_or_insert_with(|| Rig::new(path, Load::Hot));
        bencher.iter_custom(|rounds| rig.stage(rounds, stage));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = stages
}
criterion_main!(benches);
