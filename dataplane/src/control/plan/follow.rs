//! A plan that follows its host, and next hops that lead on.

use super::super::host::{KernelHop, Link, Neigh};
use super::*;
use proptest::prelude::*;
use std::sync::Arc;

/// Two links, two tunnels that share the way to their ends, static routes that lean on each other.
const FILE: &str = r#"
    [vrf.blue]
    [interface.lan0]
    [interface.wan0]
    [interface.wan1]
    [interface.blue0]
    vrf = "blue"
    [kernel]
    routes = [{ table = 254, vrf = "default", protocols = ["kernel", "bgp", "static", "boot"] }, { table = 7, vrf = "blue" }]
    [tunnel.a]
    type = "vxlan"
    vni = 1
    local = "192.0.2.1"
    remote = "198.51.100.1"
    remote_mac = "02:00:00:00:00:01"
    [tunnel.b]
    type = "vxlan"
    vni = 2
    local = "192.0.2.1"
    remote = "198.51.100.2"
    address = ["10.255.0.1/30"]
    [[route]]
    prefix = "10.1.0.0/16"
    via = [{ tunnel = "a" }]
    [[route]]
    prefix = "10.2.0.0/16"
    via = [{ next_hop = "10.3.0.1" }]
    [[route]]
    prefix = "10.3.0.0/16"
    via = [{ next_hop = "198.51.100.9" }]
    [[route]]
    prefix = "198.51.100.0/24"
    via = [{ next_hop = "192.0.2.254" }]
    [[route]]
    prefix = "10.9.0.0/16"
    vrf = "blue"
    leak = true
    via = [{ next_hop = "192.0.2.253" }]
"#;

fn config() -> Config {
    FILE.parse().expect("a legal file")
}

fn net(prefix: &str) -> IpNet {
    prefix.parse().expect("a prefix of the test")
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address of the test")
}

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

fn host() -> Host {
    let mut host = Host::default();
    for (index, name) in (1..).zip(["lan0", "wan0", "wan1", "blue0", "other0", "b"]) {
        let link = Link { name: name.into(), mtu: 1500, up: true, running: true, ..Link::default() };
        host.links.insert(index, link);
    }
    for (index, address) in [(1, "203.0.113.1/24"), (2, "192.0.2.1/24"), (3, "192.0.2.129/25"), (4, "10.8.0.1/16")] {
        host.addresses.insert((index, net(address)));
    }
    host
}

fn kernel_route(protocol: u8, hops: &[(u32, Option<&str>)]) -> Arc<MirroredRoute> {
    let route = MirroredRoute {
        protocol,
        kind: RouteKind::Unicast,
        next_hops: hops
            .iter()
            .map(|(index, gateway)| KernelHop { ifindex: Some(*index), gateway: gateway.map(ip), weight: 1 })
            .collect(),
        prefsrc: None,
        next_hop_id: None,
    };
    Arc::new(route)
}

fn key(table: u32, prefix: &str, metric: u32) -> RouteKey {
    RouteKey { table, prefix: net(prefix), tos: 0, metric }
}

/// What a route comes to.
#[track_caller]
fn check(plan: &Plan, vrf: u16, address: &str, expected: &[(Target, u16)]) {
    let route = plan.rib.lookup(Vrf(vrf), ip(address)).map(|(_, route)| plan.targets(plan.rib.way(route.way)));
    assert_eq!(route.unwrap_or_default(), expected, "{address}");
}

#[test]
fn next_hops_lead_on_over_each_other_in_any_order_of_the_file() {
    let plan = Plan::new(&config(), &host());
    let router = [(Target::Neighbour(WAN, ip("192.0.2.254")), 1)];
    // wan1's /25 is the longer match for it.
    let router_wan1 = [(Target::Neighbour(PortId(2), ip("192.0.2.254")), 1)];
    check(&plan, 0, "198.51.100.77", &router_wan1);
    check(&plan, 0, "10.3.4.4", &router_wan1);
    check(&plan, 0, "10.2.4.4", &router_wan1);
    assert_eq!(plan.underlays, [Some((PortId(2), ip("192.0.2.254"))), Some((PortId(2), ip("192.0.2.254")))]);
    let mut host = host();
    host.links.remove(&3);
    host.addresses.retain(|(index, _)| *index != 3);
    let plan = Plan::new(&config(), &host);
    check(&plan, 0, "10.2.4.4", &router);
    check(&plan, 1, "10.9.4.4", &[(Target::Neighbour(WAN, ip("192.0.2.253")), 1)]);
}

#[test]
fn a_next_hop_that_leads_back_to_itself_is_unreachable() {
    let file = FILE.replace("next_hop = \"192.0.2.254\"", "next_hop = \"10.2.0.1\"");
    let plan = Plan::new(&file.parse().expect("legal"), &host());
    for address in ["10.2.0.9", "10.3.0.9", "198.51.100.9"] {
        check(&plan, 0, address, &[(Target::Unreachable, 1)]);
    }
    assert_eq!(plan.underlays, [None, None]);
}

#[test]
fn several_hops_of_the_kernel_share_and_one_that_is_not_ours_makes_the_route_the_kernels() {
    let mut host = host();
    host.routes
        .insert(key(254, "0.0.0.0/0", 0), kernel_route(186, &[(2, Some("192.0.2.7")), (1, Some("203.0.113.7"))]));
    host.routes.insert(key(254, "10.50.0.0/16", 0), kernel_route(186, &[(2, Some("192.0.2.7")), (5, None)]));
    host.routes.insert(key(254, "10.51.0.0/16", 0), kernel_route(99, &[(2, Some("192.0.2.7"))]));
    host.routes.insert(key(7, "10.52.0.0/16", 0), kernel_route(99, &[(4, Some("10.8.0.7"))]));
    let plan = Plan::new(&config(), &host);
    let both = [(Target::Neighbour(LAN, ip("203.0.113.7")), 1), (Target::Neighbour(WAN, ip("192.0.2.7")), 1)];
    check(&plan, 0, "8.8.8.8", &both);
    check(&plan, 0, "10.50.0.1", &[(Target::Kernel, 1)]);
    check(&plan, 0, "10.51.0.1", &both);
    check(&plan, 1, "10.52.0.1", &[(Target::Neighbour(PortId(3), ip("10.8.0.7")), 1)]);
    let kept: Vec<_> = plan.steering(&config()).routes_v4().into_iter().map(|(len, _, keeper)| (len, keeper)).collect();
    assert_eq!(kept.len(), 1, "only the kernel's: {kept:?}");
}

#[test]
fn a_neighbour_that_failed_is_not_up_until_it_answers() {
    let (config, mut host) = (config(), host());
    let (at, router) = ((3, ip("192.0.2.254")), Target::Neighbour(PortId(2), ip("192.0.2.254")));
    let changes = Changes { neighbours: [at].into(), ..Changes::default() };
    let mut plan = Plan::new(&config, &host);
    assert!(plan.is_up(router), "not known yet: it is asked for");
    for (state, mac, up) in [
        (NeighState::Failed, None, false),
        (NeighState::Incomplete, None, false),
        (NeighState::Failed, None, false),
        (NeighState::Reachable, Some([2; 6]), true),
        (NeighState::Stale, Some([2; 6]), true),
    ] {
        host.neighbours.insert(at, Neigh { mac, state });
        plan.follow(&config, &host, &changes);
        assert_eq!(plan.is_up(router), up, "{state:?}");
        assert_eq!(plan.is_up(Target::Tunnel(TunnelId(0))), up, "{state:?}");
    }
    host.links.get_mut(&3).expect("wan1").running = false;
    plan.follow(&config, &host, &Changes { links: [3].into(), ..Changes::default() });
    assert!(!plan.is_up(router), "no carrier");
}

#[test]
fn a_change_says_what_it_touches() {
    let (config, mut host) = (config(), host());
    let mut plan = Plan::new(&config, &host);
    let at = (2, ip("192.0.2.50"));
    let changes = Changes { neighbours: [at].into(), ..Changes::default() };
    host.neighbours.insert(at, Neigh { mac: Some([2; 6]), state: NeighState::Reachable });
    assert!(plan.follow(&config, &host, &changes).next_hops);
    host.neighbours.insert(at, Neigh { mac: Some([2; 6]), state: NeighState::Stale });
    assert!(plan.follow(&config, &host, &changes).is_empty(), "the same MAC: nothing to do");
    let route = key(254, "10.77.0.0/16", 5);
    host.routes.insert(route, kernel_route(186, &[(2, Some("192.0.2.7"))]));
    let delta = plan.follow(&config, &host, &Changes { routes: [route].into(), ..Changes::default() });
    assert_eq!(
        (delta.routes, delta.next_hops, delta.host),
        ([(Vrf(0), route.prefix)].into(), true, false),
        "a new hop"
    );
    let route = key(254, "10.78.0.0/16", 5);
    host.routes.insert(route, kernel_route(186, &[(2, Some("192.0.2.7"))]));
    let delta = plan.follow(&config, &host, &Changes { routes: [route].into(), ..Changes::default() });
    assert_eq!((delta.routes, delta.next_hops, delta.host), ([(Vrf(0), route.prefix)].into(), false, false), "known");
    // Under a tunnel's far end, a route moves what is over it.
    let route = key(254, "198.51.100.1/32", 5);
    host.routes.insert(route, kernel_route(186, &[(2, Some("192.0.2.7"))]));
    let delta = plan.follow(&config, &host, &Changes { routes: [route].into(), ..Changes::default() });
    assert!(delta.next_hops && !delta.host);
    assert_eq!(plan.underlays[0], Some((WAN, ip("192.0.2.7"))));
}

#[derive(Clone, Debug)]
enum Event {
    Route(RouteKey, Option<Arc<MirroredRoute>>),
    Neighbour((u32, IpAddr), Option<NeighState>),
    Link(u32, bool),
    Address(u32, IpNet),
}

fn events() -> impl Strategy<Value = Event> {
    let prefix = prop::sample::select(vec![
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.2.0.0/16",
        "198.51.100.0/24",
        "198.51.100.1/32",
        "192.0.2.254/32",
        "2001:db8::/32",
    ]);
    let hop = (1..8_u32, prop::option::of(prop::sample::select(vec!["192.0.2.7", "203.0.113.7", "198.51.100.9"])));
    let route = (
        prop::collection::vec(hop, 1..3),
        prop::sample::select(vec![2_u8, 80, 99, 186]),
        prop::sample::select(vec![RouteKind::Unicast, RouteKind::Unicast, RouteKind::Blackhole, RouteKind::Throw]),
    )
        .prop_map(|(hops, protocol, kind)| {
            Arc::new(MirroredRoute { kind, ..(*kernel_route(protocol, &hops)).clone() })
        });
    let table = prop::sample::select(vec![254_u32, 254, 7, 100]);
    let address = prop::sample::select(vec!["192.0.2.7", "192.0.2.254", "203.0.113.7", "10.255.0.2"]);
    let state = prop::sample::select(vec![NeighState::Reachable, NeighState::Stale, NeighState::Failed]);
    prop_oneof![
        6 => (table, prefix, 0..3_u32, prop::option::of(route))
            .prop_map(|(table, prefix, metric, route)| Event::Route(key(table, prefix, metric), route)),
        4 => (1..7_u32, address, prop::option::of(state))
            .prop_map(|(index, address, state)| Event::Neighbour((index, ip(address)), state)),
        1 => (1..6_u32, any::<bool>()).prop_map(|(index, up)| Event::Link(index, up)),
        1 => (1..5_u32, prop::sample::select(vec!["192.0.2.66/24", "10.0.0.1/30", "2001:db8::1/64"]))
            .prop_map(|(index, address)| Event::Address(index, net(address))),
    ]
}

proptest! {
    /// Following the host step by step comes to what planning for the host as it is then would.
    #[test]
    fn following_is_the_same_as_planning_anew(batches in prop::collection::vec(prop::collection::vec(events(), 1..5), 1..10)) {
        let (config, mut host) = (config(), host());
        let mut plan = Plan::new(&config, &host);
        for batch in batches {
            let mut changes = Changes::default();
            let before: BTreeMap<_, _> = routes(&plan);
            for event in batch {
                match event {
                    Event::Route(key, route) => {
                        changes.routes.insert(key);
                        match route {
                            Some(route) => host.routes.insert(key, route),
                            None => host.routes.remove(&key),
                        };
                    }
                    Event::Neighbour(at, state) => {
                        changes.neighbours.insert(at);
                        match state {
                            Some(state) => {
                                let mac = (state != NeighState::Failed).then_some([2; 6]);
                                host.neighbours.insert(at, Neigh { mac, state });
                            }
                            None => {
                                host.neighbours.remove(&at);
                            }
                        }
                    }
                    Event::Link(index, up) => {
                        changes.links.insert(index);
                        let link = host.links.get_mut(&index).expect("there from the start");
                        (link.up, link.running) = (up, up);
                    }
                    Event::Address(index, address) => {
                        changes.addresses.insert((index, address));
                        if !host.addresses.remove(&(index, address)) {
                            host.addresses.insert((index, address));
                        }
                    }
                }
            }
            let delta = plan.follow(&config, &host, &changes);
            let anew = Plan::new(&config, &host);
            let (now, expected) = (routes(&plan), routes(&anew));
            prop_assert_eq!(&now, &expected);
            prop_assert_eq!(&plan.underlays, &anew.underlays);
            prop_assert_eq!(&plan.hops, &anew.hops);
            prop_assert_eq!(&plan.neighbours, &anew.neighbours);
            prop_assert_eq!(plan.steering(&config), anew.steering(&config));
            for (key, way) in before.iter().filter(|(key, way)| now.get(key) != Some(way)) {
                prop_assert!(delta.routes.contains(key), "{:?} led to {:?} and that it changed is not told", key, way);
            }
        }
    }
}

fn routes(plan: &Plan) -> BTreeMap<(Vrf, IpNet), Way> {
    let all =
        (0..2).map(Vrf).flat_map(|vrf| plan.rib.routes(vrf).map(move |(prefix, route)| ((vrf, prefix), route.way)));
    all.map(|(key, way)| (key, plan.rib.way(way).clone())).collect()
}
