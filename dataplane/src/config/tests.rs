//! What a legal file means. `faults.rs` has what is wrong with others.

mod faults;
mod lists;
mod properties;
mod qos;
mod routes;
mod tunnels;

use super::*;

fn legal(text: &str) -> Config {
    text.parse().unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

#[test]
fn an_empty_file_has_the_defaults() {
    let config = legal("");
    let gateway = Gateway {
        workers: Workers::Auto,
        control: "/run/penstock/control.sock".into(),
        metrics: None,
        icmp_errors_pps: 1000,
        hash_seed: 0,
        hash: HashMode::Flow,
    };
    let expected = Config {
        gateway,
        vrfs: vec![Vrf { name: "default".into(), table: Some(254) }],
        interfaces: vec![],
        kernel_routes: vec![KernelRoutes { table: 254, vrf: 0, protocols: None }],
        tunnels: vec![],
        groups: vec![],
        routes: vec![],
        neighbours: vec![],
        acl: vec![],
        policers: vec![],
        tenants: vec![],
        qos: None,
        warnings: vec![],
    };
    assert_eq!(config, expected);
}

/// The defaults, written out: must read as what is absent does.
#[test]
fn defaults_written_out_mean_the_same_as_absent_ones() {
    let sparse = r#"
        [interface.wan0]
        [tunnel.a]
        type = "vxlan"
        vni = 1
        local = "192.0.2.1"
        remote = "192.0.2.2"
        address = ["198.18.255.1/30"]
        [[route]]
        prefix = "198.51.100.0/24"
        via = [{ tunnel = "a" }]
        [tunnel-group.g]
        members = [{ tunnel = "a" }]
    "#;
    let full = r#"
        [interface.wan0]
        mode = "auto"
        vrf = "default"
        fallback = "kernel"
        rpf = "off"
        [tunnel.a]
        type = "vxlan"
        vni = 1
        local = "192.0.2.1"
        remote = "192.0.2.2"
        address = ["198.18.255.1/30"]
        port = 4789
        vrf = "default"
        underlay_vrf = "default"
        mac = "auto"
        mtu = "auto"
        mss = "auto"
        dscp = "copy"
        ecn = "normal"
        ttl = 64
        df = "set"
        checksum = "auto"
        [[route]]
        prefix = "198.51.100.0/24"
        vrf = "default"
        via = [{ tunnel = "a", weight = 1 }]
        kernel = true
        leak = false
        [tunnel-group.g]
        members = [{ tunnel = "a", weight = 1 }]
        [gateway]
        workers = "auto"
        control = "/run/penstock/control.sock"
        icmp_errors = "1kpps"
        hash_seed = 0
        hash = "flow"
        [vrf.default]
        table = 254
        [kernel]
        routes = [{ table = 254, vrf = "default" }]
    "#;
    let (sparse, mut full) = (legal(sparse), legal(full));
    assert_eq!((sparse.routes[0].place.line, full.routes[0].place.line), (10, 25));
    full.routes[0].place.line = sparse.routes[0].place.line;
    assert_eq!((sparse.groups[0].line, full.groups[0].line), (12, 30));
    full.groups[0].line = sparse.groups[0].line;
    assert_eq!(sparse, full);
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let config = legal(
        r#"
        [gateway]
        workers = [2, 3]
        control = "/tmp/c"
        metrics = "[2001:db8::1]:9473"
        icmp_errors = "1.5kpps"
        hash_seed = 18446744073709551615
        hash = "symmetric"
        [vrf.red]
        table = 7
        [vrf.blue]
        [interface.wan0]
        mode = "zero-copy"
        fallback = "drop"
        rpf = "strict"
        mac = "02:aB:00:00:00:01"
        address = ["192.0.2.1/24", "2001:db8::1/64"]
        mtu = 9000
        [interface.lan0]
        mode = "copy"
        vrf = "red"
        [interface."lan0.5"]
        parent = "lan0"
        vlan = 5
        vrf = "blue"
        fallback = "kernel"
        [kernel]
        routes = [{ table = 7, vrf = "red", protocols = ["bgp", 12] }, { table = 254, protocols = [] }]
        [tunnel.t]
        type = "vxlan"
        vni = 16777215
        local = "2001:db8::1"
        remote = "2001:db8::2"
        port = 8472
        vrf = "blue"
        underlay_vrf = "red"
        address = ["10.0.0.1/30"]
        mac = "02:00:00:00:00:0a"
        remote_mac = "02:00:00:00:00:0b"
        mtu = 1400
        mss = "off"
        dscp = 46
        ecn = "compatible"
        ttl = "copy"
        df = "clear"
        checksum = "full"
        allowed_sources = ["10.2.0.0/16"]
        [tunnel-group.g]
        members = [{ tunnel = "t", weight = 256 }]
        [[route]]
        prefix = "10.2.0.0/16"
        vrf = "blue"
        via = [{ tunnel = "t", next_hop = "10.0.0.2" }]
        kernel = false
        [[route]]
        prefix = "10.3.0.0/16"
        vrf = "blue"
        via = [{ next_hop = "192.0.2.9", interface = "wan0" }]
        leak = true
        [[route]]
        prefix = "10.4.0.0/16"
        via = "unreachable"
        [[route]]
        prefix = "10.5.0.0/16"
        vrf = "blue"
        via = [{ next_hop = "10.0.0.2", weight = 3 }, { group = "g", weight = 2 }]
        [[neighbour]]
        interface = "t"
        address = "10.0.0.2"
        mac = "02:00:00:00:00:0c"
        "#,
    );
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let gateway = Gateway {
        workers: Workers::Cpus(vec![2, 3]),
        control: "/tmp/c".into(),
        metrics: Some("[2001:db8::1]:9473".parse().unwrap()),
        icmp_errors_pps: 1500,
        hash_seed: u64::MAX,
        hash: HashMode::Symmetric,
    };
    assert_eq!(config.gateway, gateway);
    let vrfs = [("default", Some(254)), ("red", Some(7)), ("blue", None)];
    assert_eq!(config.vrfs, vrfs.map(|(name, table)| Vrf { name: name.into(), table }));
    let wan = Interface {
        policer: None,
        rate: None,
        name: "wan0".into(),
        mode: Mode::ZeroCopy,
        vrf: 0,
        fallback: Fallback::Drop,
        rpf: ReversePath::Strict,
        parent: None,
        mac: Some([2, 0xab, 0, 0, 0, 1]),
        addresses: vec![net("192.0.2.1/24"), net("2001:db8::1/64")],
        mtu: Some(9000),
    };
    let lan = Interface {
        policer: None,
        rate: None,
        name: "lan0".into(),
        mode: Mode::Copy,
        vrf: 1,
        fallback: Fallback::Drop,
        rpf: ReversePath::Off,
        parent: None,
        mac: None,
        addresses: vec![],
        mtu: None,
    };
    let vlan = Interface {
        policer: None,
        rate: None,
        name: "lan0.5".into(),
        mode: Mode::Auto,
        vrf: 2,
        fallback: Fallback::Kernel,
        parent: Some((1, 5)),
        ..lan.clone()
    };
    assert_eq!(config.interfaces, [wan, lan, vlan]);
    let bgp = KernelRoutes { table: 7, vrf: 1, protocols: Some(vec![Protocol(186), Protocol(12)]) };
    assert_eq!(config.kernel_routes, [bgp, KernelRoutes { table: 254, vrf: 0, protocols: Some(vec![]) }]);
    let tunnel = Tunnel {
        policer: None,
        cap: Limit::NONE,
        name: "t".into(),
        kind: Kind::Vxlan(crate::tunnel::Vxlan { vni: wire::Vni::new(16_777_215).unwrap(), port: 8472 }),
        local: ip("2001:db8::1"),
        remote: ip("2001:db8::2"),
        vrf: 2,
        underlay_vrf: 1,
        addresses: vec![net("10.0.0.1/30")],
        mac: Some([2, 0, 0, 0, 0, 10]),
        remote_mac: Some([2, 0, 0, 0, 0, 11]),
        mtu: Some(1400),
        mss: false,
        dscp: Some(46),
        ecn: EcnMode::Compatible,
        ttl: None,
        df: Df::Clear,
        checksum: UdpChecksum::Full,
        allowed_sources: Some(vec![net("10.2.0.0/16")]),
    };
    assert_eq!(config.tunnels, [tunnel]);
    let members = vec![Member { tunnel: 0, weight: 256 }];
    assert_eq!(config.groups, [TunnelGroup { name: "g".into(), members, line: 48 }]);
    let route = |prefix, vrf, via: &[(Via, u16)], kernel, leak, line| {
        let via = via.iter().map(|&(via, weight)| Hop { via, weight }).collect();
        Route { prefix: net(prefix), vrf, via, kernel, leak, place: Place { list: None, line, column: 18 } }
    };
    let next_hop = |address, interface| Via::NextHop { address: ip(address), interface };
    let routes = [
        route("10.2.0.0/16", 2, &[(Via::Tunnel { tunnel: 0, next_hop: Some(ip("10.0.0.2")) }, 1)], false, false, 51),
        route("10.3.0.0/16", 2, &[(next_hop("192.0.2.9", Some(0)), 1)], true, true, 56),
        route("10.4.0.0/16", 0, &[(Via::Unreachable, 1)], true, false, 61),
        route("10.5.0.0/16", 2, &[(next_hop("10.0.0.2", None), 3), (Via::Group(0), 2)], true, false, 64),
    ];
    assert_eq!(config.routes, routes);
    let flat: Vec<_> = config.flatten(&config.routes[3].via).collect();
    assert_eq!(flat, [(next_hop("10.0.0.2", None), 3), (Via::Tunnel { tunnel: 0, next_hop: None }, 512)]);
    let neighbour = Neighbour { on: On::Tunnel(0), address: ip("10.0.0.2"), mac: [2, 0, 0, 0, 0, 12] };
    assert_eq!(config.neighbours, [neighbour]);
}

#[test]
fn a_vrf_with_a_table_mirrors_it_unless_kernel_routes_says_otherwise() {
    let tables = |text: &str| legal(text).kernel_routes.iter().map(|it| (it.table, it.vrf)).collect::<Vec<_>>();
    assert_eq!(tables("[vrf.red]\ntable = 7\n[vrf.blue]\n"), [(254, 0), (7, 1)]);
    assert_eq!(tables("[vrf.red]\ntable = 7\n[kernel]\n"), [(254, 0), (7, 1)]);
    assert_eq!(tables("[vrf.red]\ntable = 7\n[kernel]\nroutes = []\n"), []);
}

#[test]
fn one_value_says_the_same_as_a_list_of_one() {
    let one = "[interface.wan0]\naddress = \"192.0.2.1/24\"\n[[route]]\nprefix = \"10.0.0.0/8\"\nvia = \"blackhole\"\n";
    let list = one.replace("\"192.0.2.1/24\"", "[\"192.0.2.1/24\"]").replace("\"blackhole\"", "[\"blackhole\"]");
    assert_eq!(legal(one), legal(&list));
}

#[test]
fn interfaces_and_tunnels_keep_the_order_of_the_file() {
    let config = legal("[interface.z]\n[interface.a]\n[vrf.y]\n[interface.m]\n[vrf.b]\n");
    assert_eq!(config.interfaces.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
    assert_eq!(config.vrfs.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["default", "y", "b"]);
}

#[test]
fn a_file_that_cannot_be_read_is_one_sentence() {
    let error = Config::load("/nowhere/penstock.toml").unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/penstock.toml cannot be read: No such file or directory (os error 2)");
    assert!(error.faults().is_empty());
    let path = std::env::temp_dir().join(format!("penstock-config-{}.toml", std::process::id()));
    std::fs::write(&path, b"[gateway]\n# \xff\n").unwrap();
    let latin = Config::load(&path).unwrap_err().to_string();
    std::fs::write(&path, vec![b'\n'; Config::MAX_FILE + 1]).unwrap();
    let large = Config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(latin, format!("{}:2:3: not UTF-8", path.display()));
    assert_eq!(large, format!("{}: a configuration has at most 16777216 octets", path.display()));
}

#[test]
fn every_shipped_file_loads_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.warnings, [], "in {}", path.display());
            count += 1;
        }
    }
    assert!(count >= 5, "configs/ has {count} files");
}

#[test]
fn a_rule_is_read_as_it_is_shown() {
    let config = legal(
        r#"
        [vrf.red]
        [interface.lan0]
        vrf = "red"
        [[acl]]
        action = "permit"
        [[acl]]
        action = "reject"
        vrf = "red"
        interface = "lan0"
        source = "10.66.0.0/16"
        destination = ["10.0.0.0/8", "2001:db8::/32"]
        protocol = ["tcp", 17]
        destination_port = [22, "6000-6063"]
        dscp = [0, 46]
        "#,
    );
    let shown: Vec<_> =
        config.acl.iter().map(|entry| (entry.line, entry.rule.action, entry.describe(&config))).collect();
    let all = "vrf red, interface lan0, protocol tcp,udp, source 10.66.0.0/16, destination 10.0.0.0/8,2001:db8::/32, \
               destination_port 22,6000-6063, dscp 0,46";
    let expected = [(5, acl::Action::Permit, "any".into()), (7, acl::Action::Reject, all.to_owned())];
    assert_eq!(shown, expected);
}

#[test]
fn policers_have_bursts_of_ten_milliseconds() {
    let config = legal(
        r#"
        [interface.lan0]
        policer = "b"
        [tenant.red]
        match = { source = "203.0.113.0/24" }
        policer = "c"
        [tenant.default]
        [policer.a]
        kind = "rfc2697"
        cir = "1.25G"
        [policer.b]
        kind = "rfc2698"
        cir = "8k"
        pir = "9.5M"
        packets = "140kpps"
        colour_aware = true
        exceed = { dscp = 8 }
        violate = "ce"
        [policer.c]
        kind = "rfc4115"
        cir = "100M"
        eir = "1T"
        cbs = "3kB"
        ebs = "1GB"
        exceed = "ce"
        violate = "pass"
        "#,
    );
    use policer::{Action, Kind, Profile};
    let a = Profile {
        kind: Kind::Rfc2697,
        cir: 1_250_000_000,
        pir: 0,
        cbs: 1_562_500,
        pbs: 0,
        packets: 0,
        colour_aware: false,
        exceed: Action::Pass,
        violate: Action::Drop,
    };
    let b = Profile {
        kind: Kind::Rfc2698,
        cir: 8_000,
        pir: 9_500_000,
        cbs: 18_000,
        pbs: 18_000,
        packets: 140_000,
        colour_aware: true,
        exceed: Action::Dscp(8),
        violate: Action::Ce,
    };
    let c = Profile {
        kind: Kind::Rfc4115,
        cir: 100_000_000,
        pir: 1_000_000_000_000,
        cbs: 3_000,
        pbs: 1_000_000_000,
        exceed: Action::Ce,
        violate: Action::Pass,
        ..a
    };
    assert_eq!(config.policers.iter().map(|policer| policer.profile).collect::<Vec<_>>(), [a, b, c]);
    assert_eq!(config.interfaces[0].policer, Some(1));
    assert_eq!(config.tenants.iter().map(|tenant| tenant.policer).collect::<Vec<_>>(), [Some(2), None]);
}

#[test]
fn tenants_classes_and_caps() {
    let config = legal(
        r#"
        [interface.wan0]
        rate = "25G"
        [tunnel.a]
        type = "ipip"
        local = "192.0.2.1"
        remote = "198.51.100.7"
        cap = "aws-vpn-standard"
        [tunnel.b]
        type = "ipip"
        local = "192.0.2.1"
        remote = "198.51.100.8"
        cap = { rate = "1G", packets = "5kpps", burst = "2MB" }
        [tenant.red]
        match = { source = "203.0.113.0/24", tunnel = "a" }
        guarantee = "20G"
        limit = "24G"
        packets = "2Mpps"
        weight = 4
        [qos]
        account = "l1"
        [[qos.class]]
        name = "urgent"
        service = "strict"
        limit = 10
        aqm = "tail"
        match = { dscp = [46], cnp = true }
        [[qos.class]]
        name = "rest"
        share = 7
        aqm = { kind = "codel", target = "500us", interval = "10ms", ce_threshold = "100us" }
        "#,
    );
    assert_eq!(config.interfaces[0].rate, Rate::new(25_000_000_000));
    let limit =
        |rate, packets| Limit { rate: Rate::new(rate), packets: crate::qos::PacketRate::new(packets), ..Limit::NONE };
    // 3 percent less than what the cloud would drop.
    assert_eq!(config.tunnels[0].cap, limit(1_212_500_000, 135_800));
    assert_eq!(config.tunnels[1].cap, Limit { burst: Some(2_000_000), ..limit(1_000_000_000, 5_000) });
    let red = &config.tenants[0];
    assert_eq!(
        (red.guarantee, red.limit, red.weight.value()),
        (Rate::new(20_000_000_000), limit(24_000_000_000, 2_000_000), 4)
    );
    assert_eq!((red.matches.tunnel, red.matches.sources.len()), (Some(crate::packet::TunnelId(0)), 1));
    let qos = config.qos.expect("it is there");
    assert_eq!(qos.account, Account::L1);
    assert_eq!(
        (qos.rules.len(), qos.rules[0].1, qos.rest),
        (1, Class::new(0).expect("small"), Class::new(1).expect("small"))
    );
    assert!(qos.rules[0].0.cnp && qos.rules[0].0.dscps == [46]);
    use crate::qos::{Aqm, Codel, Service};
    assert_eq!((qos.classes[0].service, qos.classes[0].aqm), (Service::Strict { percent: 10 }, Aqm::Tail));
    let codel = Codel { target_ns: 500_000, interval_ns: 10_000_000, ce_threshold_ns: Some(100_000) };
    assert_eq!((qos.classes[1].service, qos.classes[1].aqm), (Service::Drr { share: 7 }, Aqm::Codel(codel)));
}
