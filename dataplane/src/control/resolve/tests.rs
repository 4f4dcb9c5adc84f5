use super::*;
use crate::control::host::{Host, Neigh, NeighState};
use crate::control::offline;
use crate::control::rib::Way;
use crate::packet::PortId;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
const VLAN: PortId = PortId(2);
const A: TunnelId = TunnelId(0);
const B: TunnelId = TunnelId(1);

const FILE: &str = r#"
    [interface.lan0]
    mac = "02:00:00:00:00:01"
    address = ["203.0.113.1/24"]
    [interface.wan0]
    mac = "02:00:00:00:00:02"
    mtu = 9000
    address = ["192.0.2.1/24", "2001:db8:1::1/64"]
    [interface."wan0.110"]
    parent = "wan0"
    vlan = 110
    mtu = 1500
    address = ["198.51.100.1/24"]
    [tunnel.a]
    type = "vxlan"
    vni = 5001
    local = "192.0.2.1"
    remote = "192.0.2.7"
    mac = "02:00:00:00:02:01"
    remote_mac = "02:00:00:00:02:02"
    [tunnel.b]
    type = "vxlan"
    vni = 5002
    local = "2001:db8:1::1"
    remote = "2001:db8:1::7"
    address = ["169.254.10.1/30"]
    mtu = 1400
    mss = "off"
"#;

/// Neighbours on the links and inside tunnel b.
const NEIGHBOURS: [(&str, &str); 5] = [
    ("wan0", "192.0.2.7"),
    ("wan0", "2001:db8:1::7"),
    ("wan0.110", "198.51.100.9"),
    ("b", "169.254.10.2"),
    ("lan0", "203.0.113.9"),
];

fn neighbour(at: usize, mac: u8) -> String {
    let (on, address) = NEIGHBOURS[at];
    format!("[[neighbour]]\ninterface = \"{on}\"\naddress = \"{address}\"\nmac = \"02:00:00:00:09:{mac:02x}\"\n")
}

fn route(prefix: &str, via: &str) -> String {
    format!("[[route]]\nprefix = \"{prefix}\"\nvia = [{via}]\n")
}

fn config(more: &str) -> Config {
    format!("{FILE}{more}").parse().unwrap_or_else(|error| panic!("{error}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address of the test")
}

/// How a target is resolved with the file and more, on a host of the test's making.
fn built_on(more: &str, target: Target, change: impl FnOnce(&mut Host)) -> (Adjacency, Rewrite) {
    let config = config(more);
    let mut host = offline::host(&config);
    change(&mut host);
    View { config: &config, plan: &Plan::new(&config, &host) }.build(target)
}

fn built(more: &str, target: Target) -> (Adjacency, Rewrite) {
    built_on(more, target, |_| {})
}

#[test]
fn a_neighbour_is_ready_once_its_mac_is_known() {
    let target = Target::Neighbour(WAN, ip("192.0.2.7"));
    let (adjacency, rewrite) = built(&neighbour(0, 7), target);
    let expected = Adjacency {
        egress: WAN,
        queue: WAN,
        mtu: 9000,
        resolution: Resolution::Ready,
        ..Adjacency::of(Resolution::Ready)
    };
    assert_eq!(adjacency, expected);
    assert_eq!(rewrite.headers(), [2, 0, 0, 0, 9, 7, 2, 0, 0, 0, 0, 2, 0, 0]);
    assert_eq!((rewrite.outer, rewrite.keep), (0, 0));
    assert_eq!(built("", target).0.resolution, Resolution::Waiting);
    let (failed, _) = built_on("", target, |host| {
        host.neighbours.insert((2, ip("192.0.2.7")), Neigh { mac: None, state: NeighState::Failed });
    });
    assert_eq!(failed.resolution, Resolution::Failed);
}

#[test]
fn a_vlans_packets_are_tagged_and_wait_with_its_parents() {
    let (adjacency, rewrite) = built(&neighbour(2, 8), Target::Neighbour(VLAN, ip("198.51.100.9")));
    assert_eq!((adjacency.egress, adjacency.queue, adjacency.mtu), (VLAN, WAN, 1500));
    assert_eq!(rewrite.headers(), [2, 0, 0, 0, 9, 8, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 110, 0, 0]);
}

#[test]
fn what_leads_nowhere_has_no_headers() {
    for (target, resolution) in [
        (Target::Local, Resolution::Local),
        (Target::Kernel, Resolution::Kernel),
        (Target::Blackhole, Resolution::Blackhole),
        (Target::Unreachable, Resolution::Unreachable),
        (Target::Prohibited, Resolution::Prohibited),
        (Target::OnLink(WAN), Resolution::OnLink),
    ] {
        let (adjacency, rewrite) = built("", target);
        assert_eq!((adjacency.resolution, rewrite.count), (resolution, 0), "{target:?}");
    }
}

#[test]
fn a_tunnel_is_ready_when_both_its_ends_are_known() {
    #[track_caller]
    fn check(more: &str, target: Target, expected: Resolution) {
        assert_eq!(built(more, target).0.resolution, expected, "{target:?}");
    }
    use Resolution::{Failed, OnLink, Ready, Unreachable, Waiting};
    let far = Target::TunnelNeighbour(B, ip("169.254.10.2"));
    let (underlay_a, underlay_b, inside) = (neighbour(0, 7), neighbour(1, 7), neighbour(3, 7));
    check(&underlay_a, Target::Tunnel(A), Ready);
    check(&underlay_a, Target::Bridged(A), Ready);
    check("", Target::Tunnel(A), Waiting);
    check(&underlay_b, Target::Tunnel(B), Waiting);
    check(&(underlay_b.clone() + &inside), far, Ready);
    check(&underlay_b, far, Waiting);
    check(&inside, far, Waiting);
    check(&underlay_b, Target::TunnelOnLink(B), OnLink);
    let failed = |index, address: &'static str| {
        move |host: &mut Host| {
            host.neighbours.insert((index, ip(address)), Neigh { mac: None, state: NeighState::Failed });
        }
    };
    assert_eq!(built_on("", Target::Tunnel(A), failed(2, "192.0.2.7")).0.resolution, Failed);
    // Nothing leads to the other end.
    let absent = |host: &mut Host| host.addresses.retain(|(index, _)| *index != 2);
    assert_eq!(built_on("", Target::Tunnel(A), absent).0.resolution, Unreachable);
}

#[test]
fn a_tunnels_mtu_is_what_its_path_leaves_or_what_the_file_says() {
    let (a, _) = built(&neighbour(0, 7), Target::Tunnel(A));
    assert_eq!((a.mtu, a.clamp, a.tunnel, a.egress), (9000 - 50, true, A, WAN));
    let (b, _) = built(&neighbour(1, 7), Target::Bridged(B));
    assert_eq!((b.mtu, b.clamp, b.tunnel), (1400, false, B));
    let routed = route("192.0.2.7/32", "{ next_hop = \"198.51.100.9\" }") + &neighbour(2, 7);
    let (over_vlan, rewrite) = built(&routed, Target::Tunnel(A));
    assert_eq!((over_vlan.mtu, over_vlan.egress, over_vlan.queue), (1500 - 50, VLAN, WAN));
    assert_eq!(rewrite.headers()[12..18], [0x81, 0, 0, 110, 8, 0]);
}

#[test]
fn a_tunnels_headers_are_those_of_its_file() {
    let (_, rewrite) = built(&neighbour(0, 7), Target::Tunnel(A));
    let headers = rewrite.headers();
    assert_eq!((headers.len(), rewrite.outer, rewrite.keep), (14 + 50, 14, 0));
    assert_eq!(headers[..14], [2, 0, 0, 0, 9, 7, 2, 0, 0, 0, 0, 2, 8, 0]);
    assert_eq!(headers[26..34], [192, 0, 2, 1, 192, 0, 2, 7]);
    assert_eq!(headers[46..49], [0, 0x13, 0x89], "the VNI");
    assert_eq!(headers[50..62], [2, 0, 0, 0, 2, 2, 2, 0, 0, 0, 2, 1], "the inner Ethernet header");
    let (_, bridged) = built(&neighbour(1, 7), Target::Bridged(B));
    assert_eq!((bridged.headers().len(), bridged.keep), (14 + 40 + 8 + 8, 1), "the frame brings its own");
    assert_eq!(bridged.headers()[12..14], [0x86, 0xdd]);
}

#[test]
fn a_tunnels_mac_is_the_same_on_every_start_and_a_hosts() {
    let tunnels = |text: &str| config(text).tunnels;
    let [a, b] = &tunnels("")[..] else { panic!("two tunnels") };
    assert_eq!(a.inside_mac().octets(), [2, 0, 0, 0, 2, 1], "the file's");
    let made = b.inside_mac();
    assert_eq!(made.octets()[0], 2, "locally administered, and no group");
    // To peers this is a neighbour's MAC: it may not change with a version.
    assert_eq!(made.octets(), [2, 19, 84, 94, 182, 255]);
    let mut other = b.clone();
    other.name = "c".into();
    assert_ne!(other.inside_mac(), made);
}

/// A resolver, with the plans it was given.
struct Bench {
    resolver: Resolver,
    plan: Plan,
    waits: usize,
}

impl Bench {
    fn new() -> Self {
        Self { resolver: Resolver::new().expect("there is memory"), plan: Plan::default(), waits: 0 }
    }

    fn update(&mut self, more: &str) {
        let config = config(more);
        let delta = self.plan.renew(&config, &offline::host(&config));
        let Self { resolver, plan, waits } = self;
        resolver
            .update(&config, plan, &delta, &mut |_, _| {
                *waits += 1;
                true
            })
            .expect("it fits");
    }

    fn id(&self, target: Target) -> Option<AdjacencyId> {
        self.resolver.adjacencies(&self.plan).find(|(of, ..)| *of == target).map(|(_, id, _)| id)
    }

    fn generation(&self, target: Target) -> u32 {
        let id = self.id(target).expect("it is in use");
        self.resolver.published().current().adjacencies.at(id).generation
    }
}

#[test]
fn a_target_keeps_its_id_and_its_generation_moves_with_its_headers_alone() {
    let mut bench = Bench::new();
    let far = route("10.0.0.0/8", "{ next_hop = \"192.0.2.7\" }");
    let target = Target::Neighbour(WAN, ip("192.0.2.7"));
    bench.update(&(far.clone() + &neighbour(0, 7)));
    let (id, generation) = (bench.id(target), bench.generation(target));
    // Another route, another neighbour: not this one's business.
    bench.update(&(far.clone() + &neighbour(0, 7) + &neighbour(4, 1) + &route("10.1.0.0/16", "\"blackhole\"")));
    assert_eq!((bench.id(target), bench.generation(target)), (id, generation));
    bench.update(&(far.clone() + &neighbour(0, 8)));
    assert_eq!(bench.id(target), id);
    let changed = bench.generation(target);
    assert!(changed > generation, "its MAC is another");
    bench.update(&far);
    assert!(bench.generation(target) > changed, "its MAC is not known any more");
}

#[test]
fn an_id_that_is_used_again_does_not_look_like_the_old_one() {
    let mut bench = Bench::new();
    let (first, second) = (Target::Neighbour(WAN, ip("192.0.2.71")), Target::Neighbour(WAN, ip("192.0.2.72")));
    let via = |last: u8| route("10.0.0.0/8", &format!("{{ next_hop = \"192.0.2.{last}\" }}"));
    bench.update(&via(71));
    let (id, generation) = (bench.id(first), bench.generation(first));
    bench.update(&via(72));
    assert_eq!(bench.id(first), None);
    assert_ne!(bench.id(second), id, "the old one was still being read");
    // Now it is free.
    bench.update(&(via(72) + &route("10.1.0.0/16", "{ next_hop = \"192.0.2.73\" }")));
    let third = Target::Neighbour(WAN, ip("192.0.2.73"));
    assert_eq!(bench.id(third), id);
    assert!(bench.generation(third) > generation, "a packet in a queue would take its headers");
}

#[test]
fn nobody_waits_for_what_changes_no_route() {
    let mut bench = Bench::new();
    bench.update(&route("10.0.0.0/8", "\"blackhole\""));
    let waits = bench.waits;
    assert_eq!(waits, 2, "once before the routes are written, once before ids are free");
    bench.update(&route("10.0.0.0/8", "\"blackhole\""));
    assert_eq!(bench.waits, waits);
}

/// Of 10.9.9.9, and of what only a default route leads to: how they resolve whenever a worker may look.
#[track_caller]
fn answers(before: &str, after: &str) -> Vec<[Resolution; 2]> {
    let mut bench = Bench::new();
    bench.update(before);
    let config = config(after);
    let delta = bench.plan.renew(&config, &offline::host(&config));
    let mut seen = Vec::new();
    let look = |tables: &Tables| ["10.9.9.9", "172.16.0.1"].map(|probe| found(tables, probe).resolution);
    let Bench { mut resolver, mut plan, .. } = bench;
    let mut wait = |published: &Published<Tables>, _| {
        seen.push(look(&published.current()));
        true
    };
    resolver.update(&config, &mut plan, &delta, &mut wait).expect("it fits");
    seen.push(look(&resolver.published().current()));
    seen
}

#[test]
fn a_default_route_stays_until_those_that_come_for_it_are_seen() {
    use Resolution::{Blackhole, None, Unreachable};
    let default = route("0.0.0.0/0", "\"blackhole\"");
    let other = route("10.0.0.0/8", "\"unreachable\"");
    let halfway = [Unreachable, Blackhole];
    assert_eq!(answers(&default, &other)[1..], [halfway, [Unreachable, None], [Unreachable, None]]);
    // Nothing comes, so nobody may fall to it.
    let both = default.clone() + &other;
    assert_eq!(answers(&both, "")[1..], [[None, None], [None, None]]);
    assert_eq!(answers(&both, &other)[1..], [[Unreachable, None], [Unreachable, None]]);
    assert_eq!(answers(&other, &default).last(), Some(&[Blackhole, Blackhole]));
}

#[test]
fn an_on_link_route_finds_the_neighbours_of_its_link() {
    let mut bench = Bench::new();
    bench.update(&(neighbour(4, 1) + &neighbour(0, 2)));
    let tables = bench.resolver.published().current();
    let (link, other) = (bench.id(Target::OnLink(LAN)).expect("a subnet"), bench.id(Target::OnLink(WAN)).expect("one"));
    assert_eq!(tables.fib.lookup_one(Vrf::DEFAULT, ip("203.0.113.9")), link);
    let known = bench.id(Target::Neighbour(LAN, ip("203.0.113.9")));
    assert!(known.is_some());
    assert_eq!(tables.adjacencies.neighbour(link, ip("203.0.113.9")), known);
    assert_eq!(tables.adjacencies.neighbour(other, ip("203.0.113.9")), None);
    assert_eq!(tables.adjacencies.neighbour(link, ip("203.0.113.8")), None);
    bench.update("");
    assert_eq!(bench.resolver.published().current().adjacencies.neighbour(link, ip("203.0.113.9")), None);
}

#[test]
fn the_tunnels_device_leads_into_the_tunnel() {
    let mut bench = Bench::new();
    bench.update(&neighbour(1, 7));
    let tables = bench.resolver.published().current();
    let device = tables.ports.iter().find(|(_, port)| port.name == "b").map(|(_, port)| (port.kind, port.mtu));
    let into = bench.id(Target::Bridged(B)).expect("every tunnel has one");
    assert_eq!(device, Some((PortKind::Tunnel { tunnel: B, into, ethernet: true }, 1400)));
}

/// The error names a route, those that fit are there, and the others lead where they led.
#[test]
fn routes_that_outgrow_the_table_are_refused_and_taken_in_when_there_is_room() {
    let limits = Limits { vrfs: 2, bytes: 64 << 10 };
    let mut bench = Bench { resolver: Resolver::with(limits).expect("there is memory"), ..Bench::new() };
    let wide = route("10.0.0.0/8", "\"unreachable\"");
    bench.update(&wide);
    let before = bench.resolver.usage();
    let hosts: Vec<IpAddr> =
        (0..4096).map(|at: u32| std::net::Ipv4Addr::from_bits(0x0a00_0001 + (at << 12)).into()).collect();
    let many: String = hosts.iter().map(|host| route(&format!("{host}/32"), "\"blackhole\"")).collect();
    let config = config(&(wide.clone() + &many));
    let delta = bench.plan.renew(&config, &offline::host(&config));
    let update = |bench: &mut Bench, delta: &Delta| {
        let Bench { resolver, plan, .. } = bench;
        resolver.update(&config, plan, delta, &mut |_, _| true).map_err(|error| error.to_string())
    };
    let answers = |bench: &Bench| {
        let tables = bench.resolver.published().current();
        hosts.iter().map(|host| found(&tables, &host.to_string()).resolution).collect::<Vec<_>>()
    };
    // Again without a change: what is refused is tried again each time.
    for delta in [delta, Delta::default()] {
        let error = update(&mut bench, &delta).expect_err("they do not fit");
        assert!(error.starts_with("route 10.") && error.contains("/32: table full: the route needs"), "{error}");
        let answers = answers(&bench);
        let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
        let (fits, others) = (count(Resolution::Blackhole), count(Resolution::Unreachable));
        assert!(fits > 100 && others > 100 && fits + others == hosts.len(), "{fits} fit, {others} do not");
        assert_eq!(bench.resolver.usage()[0].retired_bytes, 0);
    }
    bench.update(&wide);
    assert!(answers(&bench).iter().all(|answer| *answer == Resolution::Unreachable));
    let now = bench.resolver.usage();
    assert_eq!(
        now.map(|usage| (usage.prefixes, usage.used_bytes)),
        before.map(|usage| (usage.prefixes, usage.used_bytes))
    );
    let few: String = hosts[..4].iter().map(|host| route(&format!("{host}/32"), "\"blackhole\"")).collect();
    bench.update(&(wide + &few));
    let answers = answers(&bench);
    assert!(answers.iter().enumerate().all(|(at, answer)| (at < 4) == (*answer == Resolution::Blackhole)));
}

#[test]
fn refuses_more_neighbours_than_there_are_adjacencies_and_goes_on_with_the_old() {
    let mut bench = Bench::new();
    bench.update(&route("10.0.0.0/8", "\"blackhole\""));
    let (id, target) = (bench.id(Target::Blackhole), Target::Neighbour(LAN, ip("198.18.0.7")));
    let config = config("");
    let crowd = |count: u32| {
        let mut host = offline::host(&config);
        for number in 0..count {
            let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + number);
            let mac = Some([2, 0, 0, 0, 0, 9]);
            host.neighbours.insert((1, address.into()), Neigh { mac, state: NeighState::Reachable });
        }
        host
    };
    let Bench { resolver, plan, .. } = &mut bench;
    let delta = plan.renew(&config, &crowd(100_000));
    let refused = resolver.update(&config, plan, &delta, &mut |_, _| true);
    assert!(matches!(refused, Err(ResolveError::TooManyNeighbours { .. })), "{refused:?}");
    assert_eq!(
        refused.map_err(|error| error.to_string()),
        Err("more than 98304 neighbours and members of groups".into())
    );
    let found = resolver.published().current().fib.lookup_one(Vrf::DEFAULT, ip("10.9.9.9"));
    assert_eq!(Some(found), id, "the route that the refused plan does not have");
    // More neighbours than the FIB has values are no matter; what was refused is made good.
    let delta = plan.renew(&config, &crowd(40_000));
    resolver.update(&config, plan, &delta, &mut |_, _| true).expect("it fits");
    let found = resolver.published().current().fib.lookup_one(Vrf::DEFAULT, ip("10.9.9.9"));
    assert_eq!(found, AdjacencyId::NONE);
    assert!(bench.id(target).is_some_and(|id| id.0 > u32::from(Value::MAX)));
}

/// Routes and neighbours of a random file: each route one of these ways, or none.
const WAYS: [Option<&str>; 6] = [
    None,
    Some("\"blackhole\""),
    Some("{ next_hop = \"192.0.2.7\" }"),
    Some("{ next_hop = \"198.51.100.9\" }"),
    Some("{ tunnel = \"a\" }"),
    Some("{ tunnel = \"b\" }"),
];
const PREFIXES: [&str; 5] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.7/32"];
const PROBES: [&str; 6] = ["10.9.9.9", "10.1.9.9", "10.1.2.9", "192.0.2.7", "203.0.113.9", "172.16.0.1"];

fn any_file() -> impl Strategy<Value = String> {
    let ways = vec(prop::sample::select(WAYS.to_vec()), PREFIXES.len());
    let macs = vec(prop::option::of(1..4u8), NEIGHBOURS.len());
    (ways, macs).prop_map(|(ways, macs)| {
        let routes = PREFIXES.iter().zip(ways).filter_map(|(prefix, way)| way.map(|way| route(prefix, way)));
        let known = macs.iter().enumerate().filter_map(|(at, mac)| mac.map(|mac| neighbour(at, mac)));
        routes.chain(known).collect()
    })
}

/// The way of a probe's route.
fn planned_way(plan: &Plan, probe: &str) -> Option<Way> {
    plan.rib.lookup(Vrf::DEFAULT, ip(probe)).map(|(_, route)| plan.rib.way(route.way).clone())
}

/// Where the plan sends a probe.
fn planned(plan: &Plan, probe: &str) -> Option<Target> {
    let (_, route) = plan.rib.lookup(Vrf::DEFAULT, ip(probe))?;
    plan.targets(plan.rib.way(route.way)).first().map(|(target, _)| *target)
}

/// How that is resolved, its generation aside.
fn resolved(view: &View<'_>, target: Option<Target>) -> Adjacency {
    target.map_or(Adjacency::of(Resolution::None), |target| {
        let (adjacency, rewrite) = view.build(target);
        // The tables add what they read from the headers.
        let mut table = Adjacencies::new();
        table.set(AdjacencyId(1), adjacency, rewrite);
        *table.at(AdjacencyId(1))
    })
}

/// How the tables resolve a probe, its generation aside.
fn found(tables: &Tables, probe: &str) -> Adjacency {
    let id = tables.fib.lookup_one(Vrf::DEFAULT, ip(probe));
    assert!(id == AdjacencyId::NONE || tables.has(id), "{probe} leads to nothing");
    Adjacency { generation: 0, ..*tables.adjacencies.at(id) }
}

/// The probe that only a default route leads to.
const DEFAULT_ALONE: usize = 5;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// After each change the tables say what the plan says; and at every moment at which a worker may look, each
    /// address has its old answer or its new one.
    #[test]
    fn a_change_of_tables_never_shows_anything_but_before_and_after(files in vec(any_file(), 1..6)) {
        let mut resolver = Resolver::new().expect("there is memory");
        let mut plan = Plan::default();
        let mut before = PROBES.map(|_| (None, Adjacency::of(Resolution::None)));
        for file in files {
            let config = config(&file);
            let delta = plan.renew(&config, &offline::host(&config));
            let mut seen = Vec::new();
            resolver.update(&config, &mut plan, &delta, &mut |published, version| {
                assert!(published.passed(version), "nobody reads, so everybody has passed");
                seen.push(PROBES.map(|probe| found(&published.current(), probe)));
                true
            }).expect("it fits");
            let tables = resolver.published().current();
            let view = View { config: &config, plan: &plan };
            for (at, probe) in PROBES.iter().enumerate() {
                let target = planned(&plan, probe);
                let now = resolved(&view, target);
                prop_assert_eq!(found(&tables, probe), now, "{}", probe);
                let id = tables.fib.lookup_one(Vrf::DEFAULT, ip(probe));
                prop_assert_eq!(resolver.target(&plan, id), target, "{}", probe);
                if let (Some(target), Some(rewrite)) = (target, tables.adjacencies.rewrite(id)) {
                    let (_, built) = view.build(target);
                    prop_assert_eq!(rewrite.headers(), built.headers(), "{}", probe);
                }
                // Meanwhile a way that stays may already be resolved by what is known today.
                let (way, then) = &before[at];
                let today = way.as_ref().and_then(|way| plan.targets(way).first().map(|(target, _)| *target));
                // Or it falls to a default route that stays until others are seen.
                let (way, _) = &before[DEFAULT_ALONE];
                let default = way.as_ref().and_then(|way| plan.targets(way).first().map(|(target, _)| *target));
                let legal = [*then, resolved(&view, today), now, resolved(&view, default), before[DEFAULT_ALONE].1];
                for seen in &seen {
                    prop_assert!(legal.contains(&seen[at]), "{}: {:?} is none of {:?}", probe, seen[at], legal);
                }
                before[at] = (planned_way(&plan, probe), now);
            }
        }
    }
}
