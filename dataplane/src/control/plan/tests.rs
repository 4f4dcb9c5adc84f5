use super::*;
use crate::control::host::{KernelHop, Link, Neigh};
use crate::control::offline;
use crate::packet::AdjacencyId;
use steering::Host as _;
use steering::tables::{Interface, InterfaceFlags, Local, LocalV4, RouteV4};

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
const VLAN: PortId = PortId(2);
const TENANT: PortId = PortId(3);
const MAC_TUNNEL: TunnelId = TunnelId(0);
const PAIR_TUNNEL: TunnelId = TunnelId(1);
const NET_TUNNEL: TunnelId = TunnelId(2);

/// Two interfaces, a VLAN, a tenant's interface, and tunnels that differ in how the inner destination is found.
const FILE: &str = r#"
    [vrf.tenant]
    table = 1001
    [interface.lan0]
    mac = "02:00:00:00:00:01"
    address = ["203.0.113.1/24", "2001:db8:2::1/64"]
    [interface.wan0]
    mac = "02:00:00:00:00:02"
    mtu = 9000
    address = ["192.0.2.1/24", "2001:db8:1::1/64"]
    [interface."wan0.110"]
    parent = "wan0"
    vlan = 110
    address = ["198.51.100.1/31"]
    [interface.lan1]
    mac = "02:00:00:00:00:03"
    vrf = "tenant"
    address = ["203.0.113.1/24"]
    [tunnel.mac]
    type = "vxlan"
    vni = 1
    local = "192.0.2.1"
    remote = "192.0.2.7"
    remote_mac = "02:00:00:00:02:01"
    [tunnel.pair]
    type = "vxlan"
    vni = 2
    local = "192.0.2.1"
    remote = "192.0.2.7"
    address = ["169.254.10.2/30", "2001:db8:10::/127"]
    [tunnel.net]
    type = "vxlan"
    vni = 3
    local = "192.0.2.1"
    remote = "192.0.2.7"
    address = ["10.3.0.1/24"]
"#;

fn config(more: &str) -> Config {
    format!("{FILE}{more}").parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The plan of the file and more, on the host that it describes.
fn plan(more: &str) -> Plan {
    plan_on(more, |_| {})
}

/// The same on a host of the test's making.
fn plan_on(more: &str, change: impl FnOnce(&mut Host)) -> Plan {
    let config = config(more);
    let mut host = offline::host(&config);
    change(&mut host);
    Plan::new(&config, &host)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address of the test")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix of the test")
}

/// A static route's lines.
fn route(prefix: &str, via: &str) -> String {
    format!("[[route]]\nprefix = \"{prefix}\"\nvia = [{via}]\n")
}

/// What the plan has for exactly this prefix in the default VRF.
fn target(plan: &Plan, prefix: &str) -> Option<Target> {
    target_in(plan, Vrf::DEFAULT, net(prefix))
}

fn target_in(plan: &Plan, vrf: Vrf, prefix: IpNet) -> Option<Target> {
    plan.rib.chosen(vrf, prefix).map(|route| only(plan, route))
}

/// The one target that a route comes to.
fn only(plan: &Plan, route: crate::control::rib::Route) -> Target {
    match plan.targets(plan.rib.way(route.way))[..] {
        [(target, _)] => target,
        ref several => panic!("{several:?}"),
    }
}

#[track_caller]
fn check_static(prefix: &str, via: &str, expected: Target) {
    assert_eq!(target(&plan(&route(prefix, via)), prefix), Some(expected), "{prefix} via {via}");
}

#[test]
fn a_static_route_leads_where_it_says() {
    check_static("10.0.0.0/8", "\"blackhole\"", Target::Blackhole);
    check_static("10.0.0.0/8", "\"unreachable\"", Target::Unreachable);
    check_static("10.0.0.0/8", "{ next_hop = \"192.0.2.254\" }", Target::Neighbour(WAN, ip("192.0.2.254")));
    check_static("2001:db8:9::/48", "{ next_hop = \"2001:db8:2::9\" }", Target::Neighbour(LAN, ip("2001:db8:2::9")));
    check_static("10.0.0.0/8", "{ next_hop = \"198.51.100.0\" }", Target::Neighbour(VLAN, ip("198.51.100.0")));
    // An interface that is named is taken at its word, whatever its subnets.
    let named = "{ next_hop = \"198.51.100.9\", interface = \"wan0\" }";
    check_static("10.0.0.0/8", named, Target::Neighbour(WAN, ip("198.51.100.9")));
    // No route leads there.
    check_static("10.0.0.0/8", "{ next_hop = \"100.64.0.1\" }", Target::Unreachable);
    // An address of the host, of which the file does not know.
    let own = plan_on(&route("10.0.0.0/8", "{ next_hop = \"192.0.2.9\" }"), |host| {
        host.addresses.insert((OTHER, net("192.0.2.9/32")));
    });
    assert_eq!(target(&own, "10.0.0.0/8"), Some(Target::Unreachable));
}

#[test]
fn a_next_hop_may_be_behind_another_route() {
    let first = route("10.0.0.0/8", "{ next_hop = \"192.0.2.254\" }");
    let second = route("10.1.0.0/16", "{ next_hop = \"10.0.0.9\" }");
    let gateway = Some(Target::Neighbour(WAN, ip("192.0.2.254")));
    assert_eq!(target(&plan(&(first.clone() + &second)), "10.1.0.0/16"), gateway);
    assert_eq!(target(&plan(&(second + &first)), "10.1.0.0/16"), gateway, "or after");
}

#[test]
fn a_route_into_a_tunnel_finds_the_inner_destination() {
    let neighbour = |address| Target::TunnelNeighbour(PAIR_TUNNEL, ip(address));
    check_static("10.0.0.0/8", "{ tunnel = \"mac\" }", Target::Tunnel(MAC_TUNNEL));
    check_static("10.0.0.0/8", "{ tunnel = \"pair\" }", neighbour("169.254.10.1"));
    check_static("2001:db8:9::/48", "{ tunnel = \"pair\" }", neighbour("2001:db8:10::1"));
    check_static("10.0.0.0/8", "{ tunnel = \"net\" }", Target::TunnelOnLink(NET_TUNNEL));
    let to = |address| Target::TunnelNeighbour(NET_TUNNEL, ip(address));
    check_static("10.0.0.0/8", "{ tunnel = \"net\", next_hop = \"10.3.0.9\" }", to("10.3.0.9"));
    // By the subnet of the tunnel's inside.
    check_static("10.0.0.0/8", "{ next_hop = \"10.3.0.9\" }", to("10.3.0.9"));
}

#[test]
fn only_a_route_that_says_leak_leaves_its_vrf() {
    let of_tenant = |more: &str| {
        let text = format!("[[route]]\nvrf = \"tenant\"\nprefix = \"10.0.0.0/8\"\n{more}");
        target_in(&plan(&text), Vrf(1), net("10.0.0.0/8")).expect("a static route")
    };
    let own = "via = [{ next_hop = \"203.0.113.9\" }]\n";
    assert_eq!(of_tenant(own), Target::Neighbour(TENANT, ip("203.0.113.9")), "both VRFs have that subnet");
    let foreign = "via = [{ next_hop = \"192.0.2.254\" }]\n";
    assert_eq!(of_tenant(&format!("{foreign}leak = true\n")), Target::Neighbour(WAN, ip("192.0.2.254")));
    assert_eq!(of_tenant(foreign), Target::Unreachable);
}

/// The other end of a subnet with two.
#[test]
fn the_other_end_is_that_of_a_subnet_with_two_hosts() {
    #[track_caller]
    fn check(address: &str, expected: Option<&str>) {
        assert_eq!(other_end(&net(address)), expected.map(ip), "{address}");
    }
    check("169.254.10.1/30", Some("169.254.10.2"));
    check("169.254.10.2/30", Some("169.254.10.1"));
    check("169.254.10.9/30", Some("169.254.10.10"));
    check("192.0.2.0/31", Some("192.0.2.1"));
    check("192.0.2.1/31", Some("192.0.2.0"));
    check("2001:db8::1/126", Some("2001:db8::2"));
    check("2001:db8::/127", Some("2001:db8::1"));
    check("2001:db8::ffff/127", Some("2001:db8::fffe"));
    for none in ["192.0.2.1/29", "192.0.2.1/32", "192.0.2.1/24", "2001:db8::1/128", "2001:db8::1/64"] {
        check(none, None);
    }
}

/// A unicast route of the kernel's main table.
fn kernel_route(prefix: &str, hop: KernelHop) -> (RouteKey, MirroredRoute) {
    let key = RouteKey { table: 254, prefix: net(prefix), tos: 0, metric: 0 };
    (
        key,
        MirroredRoute { protocol: 4, kind: RouteKind::Unicast, next_hops: vec![hop], prefsrc: None, next_hop_id: None },
    )
}

const fn hop(ifindex: IfIndex, gateway: Option<IpAddr>) -> KernelHop {
    KernelHop { ifindex: Some(ifindex), gateway, weight: 1 }
}

/// The kernel's index of a link of the file, and of one that is not in it.
const WAN_INDEX: IfIndex = 2;
const OTHER: IfIndex = 99;

/// One route of the kernel, changed.
#[track_caller]
fn check_mirrored(prefix: &str, change: impl FnOnce(&mut RouteKey, &mut MirroredRoute), expected: Option<Target>) {
    let (mut key, mut route) = kernel_route(prefix, hop(WAN_INDEX, Some(ip("192.0.2.254"))));
    change(&mut key, &mut route);
    let key_of = key.prefix;
    let plan = plan_on("", |host| drop(host.routes.insert(key, route.into())));
    let found = target_in(&plan, Vrf::DEFAULT, key_of);
    assert_eq!(found, expected);
}

#[test]
fn a_route_of_the_kernel_goes_where_its_device_says() {
    let gateway = Some(Target::Neighbour(WAN, ip("192.0.2.254")));
    check_mirrored("10.0.0.0/8", |_, _| {}, gateway);
    check_mirrored("0.0.0.0/0", |_, _| {}, gateway);
    check_mirrored("10.0.0.0/8", |_, route| route.next_hops[0].gateway = None, Some(Target::OnLink(WAN)));
    check_mirrored("10.0.0.0/8", |_, route| route.next_hops[0].ifindex = Some(OTHER), Some(Target::Kernel));
    check_mirrored("10.0.0.0/8", |_, route| route.next_hops[0].ifindex = None, Some(Target::Kernel));
    check_mirrored("10.0.0.0/8", |_, route| route.next_hops.push(hop(OTHER, None)), Some(Target::Kernel));
    // RFC 5549: an IPv4 route may have an IPv6 next hop.
    let v6 = ip("2001:db8:1::fe");
    check_mirrored("10.0.0.0/8", |_, r| r.next_hops[0].gateway = Some(v6), Some(Target::Neighbour(WAN, v6)));
    for (kind, expected) in [
        (RouteKind::Blackhole, Some(Target::Blackhole)),
        (RouteKind::Unreachable, Some(Target::Unreachable)),
        (RouteKind::Prohibit, Some(Target::Prohibited)),
        (RouteKind::Local, None),
        (RouteKind::Broadcast, None),
        (RouteKind::Anycast, None),
        (RouteKind::Multicast, None),
        (RouteKind::Throw, None),
        (RouteKind::Other(77), None),
    ] {
        check_mirrored("10.0.0.0/8", |_, route| route.kind = kind, expected);
    }
}

/// Each by a router of its own, as no host has but a mistake in a routing daemon may bring.
#[test]
fn more_next_hops_of_the_kernel_than_the_fib_can_name_are_refused_in_one_sentence() {
    let config = config("");
    let mut host = offline::host(&config);
    let by = |number: u32, router: u32| {
        let router = std::net::Ipv4Addr::from_bits(0x0b00_0000 + router).into();
        let prefix = format!("{}/32", std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        kernel_route(&prefix, hop(WAN_INDEX, Some(router)))
    };
    for number in 0..40_000 {
        let (key, route) = by(number, number);
        host.routes.insert(key, route.into());
    }
    let mut plan = Plan::new(&config, &host);
    let routes = plan.rib.routes(Vrf::DEFAULT).count();
    let [warning] = &std::mem::take(&mut plan.warnings)[..] else { panic!("not one warning") };
    assert!(warning.starts_with("route 10.0."), "{warning}");
    assert!(warning.contains("/32: more than 32767 distinct next hops: it stays as it was; so do "), "{warning}");
    assert!((32_000..=32_800).contains(&routes), "{routes} that fit are there");

    // A route that is there keeps its way when the new one is refused, and changes to one that is known.
    let first = |router| by(0, router);
    let follow = |plan: &mut Plan, host: &mut Host, (key, route): (RouteKey, MirroredRoute)| {
        host.routes.insert(key, route.into());
        let changes = Changes { routes: [key].into(), ..Changes::default() };
        plan.follow(&config, host, &changes);
    };
    let router = |last: u32| Some(Target::Neighbour(WAN, std::net::Ipv4Addr::from_bits(0x0b00_0000 + last).into()));
    follow(&mut plan, &mut host, first(50_000));
    assert_eq!(target(&plan, "10.0.0.0/32"), router(0));
    let expected = "route 10.0.0.0/32: more than 32767 distinct next hops: it stays as it was";
    assert_eq!(std::mem::take(&mut plan.warnings), [expected]);
    follow(&mut plan, &mut host, first(7));
    assert_eq!(target(&plan, "10.0.0.0/32"), router(7));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn what_is_not_asked_for_is_not_mirrored() {
    check_mirrored("10.0.0.0/8", |key, _| key.table = 253, None);
    check_mirrored("10.0.0.0/8", |key, _| key.tos = 8, None);
    check_mirrored("10.0.0.0/8", |_, route| route.protocol = ROUTE_PROTOCOL, None);
    check_mirrored("10.0.0.0/8", |_, route| route.next_hops.clear(), None);
    check_mirrored("224.0.0.0/4", |_, _| {}, None);
    check_mirrored("fe80::/64", |_, _| {}, None);
    let (key, bgp) = kernel_route("10.0.0.0/8", hop(WAN_INDEX, None));
    let bgp = MirroredRoute { protocol: 186, ..bgp };
    for (routes, expected) in [
        ("[kernel]\nroutes = []\n", None),
        ("[kernel]\nroutes = [{ table = 254, protocols = [\"bgp\"] }]\n", Some(Target::OnLink(WAN))),
        ("[kernel]\nroutes = [{ table = 254, protocols = [\"static\"] }]\n", None),
        ("[kernel]\nroutes = [{ table = 254 }]\n", Some(Target::OnLink(WAN))),
    ] {
        let plan = plan_on(routes, |host| drop(host.routes.insert(key, bgp.clone().into())));
        assert_eq!(target(&plan, "10.0.0.0/8"), expected, "{routes}");
    }
    let to_tenant = "[kernel]\nroutes = [{ table = 254, vrf = \"tenant\" }]\n";
    let plan = plan_on(to_tenant, |host| drop(host.routes.insert(key, bgp.into())));
    assert_eq!(target(&plan, "10.0.0.0/8"), None);
    assert!(plan.rib.chosen(Vrf(1), net("10.0.0.0/8")).is_some());
}

#[test]
fn a_route_of_the_kernel_by_a_device_of_ours_goes_into_the_tunnel_or_stays() {
    let (pair, punt) = (50, 51);
    let plan = plan_on("", |host| {
        for (index, name) in [(pair, "pair"), (punt, PUNT_DEVICE)] {
            host.links.insert(index, Link { name: name.into(), ..Link::default() });
        }
        host.routes.extend(
            [
                kernel_route("10.1.0.0/16", hop(pair, None)),
                kernel_route("10.2.0.0/16", hop(pair, Some(ip("169.254.10.9")))),
                kernel_route("10.3.0.0/16", hop(punt, None)),
            ]
            .map(|(key, route)| (key, route.into())),
        );
    });
    let neighbour = |address| Some(Target::TunnelNeighbour(PAIR_TUNNEL, ip(address)));
    assert_eq!(target(&plan, "10.1.0.0/16"), neighbour("169.254.10.1"));
    assert_eq!(target(&plan, "10.2.0.0/16"), neighbour("169.254.10.9"));
    assert_eq!(target(&plan, "10.3.0.0/16"), Some(Target::Kernel));
}

/// Who wins a prefix that several sources have.
#[track_caller]
fn check_winner(prefix: &str, file: &str, metrics: &[u32], expected: Source) {
    let plan = plan_on(file, |host| {
        for &metric in metrics {
            let (key, route) = kernel_route(prefix, hop(WAN_INDEX, None));
            host.routes.insert(RouteKey { metric, ..key }, route.into());
        }
    });
    assert_eq!(plan.rib.chosen(Vrf::DEFAULT, net(prefix)).map(|route| route.source), Some(expected), "{prefix}");
}

#[test]
fn an_address_comes_before_the_file_before_a_subnet_before_the_kernel() {
    let blackhole = |prefix| route(prefix, "\"blackhole\"");
    check_winner("203.0.113.1/32", &blackhole("203.0.113.1/32"), &[0], Source::Address);
    check_winner("203.0.113.0/24", &blackhole("203.0.113.0/24"), &[0], Source::Static);
    check_winner("203.0.113.0/24", "", &[0], Source::Connected);
    check_winner("10.0.0.0/8", &blackhole("10.0.0.0/8"), &[0], Source::Static);
    check_winner("10.0.0.0/8", "", &[300, 20, 100], Source::Kernel(20, 254));
}

#[test]
fn finds_the_longest_match_in_its_own_vrf() {
    let plan = plan(&(route("10.0.0.0/8", "\"blackhole\"") + &route("10.1.0.0/16", "\"unreachable\"")));
    let found = |vrf, address| plan.rib.lookup(vrf, ip(address)).map(|(prefix, route)| (prefix, only(&plan, route)));
    assert_eq!(found(Vrf::DEFAULT, "10.1.2.3"), Some((net("10.1.0.0/16"), Target::Unreachable)));
    assert_eq!(found(Vrf::DEFAULT, "10.2.2.3"), Some((net("10.0.0.0/8"), Target::Blackhole)));
    assert_eq!(found(Vrf::DEFAULT, "203.0.113.1"), Some((net("203.0.113.1/32"), Target::Local)));
    assert_eq!(found(Vrf::DEFAULT, "203.0.113.2"), Some((net("203.0.113.0/24"), Target::OnLink(LAN))));
    assert_eq!(found(Vrf(1), "203.0.113.2"), Some((net("203.0.113.0/24"), Target::OnLink(TENANT))));
    assert_eq!((found(Vrf(1), "10.1.2.3"), found(Vrf::DEFAULT, "2001:db8:77::")), (None, None));
}

#[test]
fn the_kernels_addresses_count_where_the_interface_exists_and_the_files_where_not() {
    let there = plan_on("", |host| {
        host.addresses.retain(|(index, _)| *index != WAN_INDEX);
        host.addresses.insert((WAN_INDEX, net("198.18.0.1/16")));
    });
    assert!(there.locals.contains(&(Vrf::DEFAULT, ip("198.18.0.1"))));
    assert!(!there.locals.contains(&(Vrf::DEFAULT, ip("192.0.2.1"))), "the file's, which the kernel has not");
    assert_eq!(target(&there, "198.18.0.0/16"), Some(Target::OnLink(WAN)));
    let absent = plan_on("", |host| {
        host.links.remove(&WAN_INDEX);
        host.addresses.retain(|(index, _)| *index != WAN_INDEX);
    });
    assert!(absent.locals.contains(&(Vrf::DEFAULT, ip("192.0.2.1"))));
    assert_eq!(absent.ifindex[WAN.index()], None);
}

#[test]
fn addresses_of_other_devices_are_the_default_vrfs() {
    let plan = plan_on("", |host| {
        for (index, address) in [
            (1, "fe80::1/64"),
            (OTHER, "198.18.9.1/24"),
            (OTHER, "fe80::2/64"),
            (OTHER, "127.0.0.1/8"),
            (OTHER, "::1/128"),
        ] {
            host.addresses.insert((index, net(address)));
        }
    });
    assert_eq!(target(&plan, "198.18.9.1/32"), Some(Target::Local));
    assert_eq!(target(&plan, "198.18.9.0/24"), None, "its subnet is not on a link of ours");
    for address in ["127.0.0.1", "::1", "fe80::2"] {
        assert!(!plan.locals.contains(&(Vrf::DEFAULT, ip(address))), "{address}");
    }
    // An interface's own link-local address is local, the prefix is not routed.
    assert_eq!((target(&plan, "fe80::1/128"), target(&plan, "fe80::/64")), (Some(Target::Local), None));
    // And it is the last to be quoted in an ICMP error.
    assert_eq!(plan.ports[LAN.index()].addresses, [ip("203.0.113.1"), ip("2001:db8:2::1"), ip("fe80::1")]);
}

#[test]
fn a_neighbour_that_may_be_there_is_used_and_the_file_fills_gaps() {
    #[track_caller]
    fn check(kernel: Option<(NeighState, Option<[u8; 6]>)>, file: bool, expected: Option<Neighbour>) {
        let entry = "[[neighbour]]\ninterface = \"wan0\"\naddress = \"192.0.2.9\"\nmac = \"02:00:00:00:09:99\"\n";
        let plan = plan_on(if file { entry } else { "" }, |host| {
            if let Some((state, mac)) = kernel {
                host.neighbours.insert((WAN_INDEX, ip("192.0.2.9")), Neigh { mac, state });
                host.neighbours.insert((OTHER, ip("192.0.2.8")), Neigh { mac, state });
            }
        });
        assert_eq!(plan.neighbours.get(&(WAN, ip("192.0.2.9"))).copied(), expected, "{kernel:?}, {file}");
        assert!(plan.neighbours.len() <= 1, "that of a device of ours only");
    }
    let mac = [2, 0, 0, 0, 9, 9];
    let (known, of_file) = (Some(Neighbour::Known(Mac::new(mac))), Neighbour::Known(Mac::new([2, 0, 0, 0, 9, 0x99])));
    use NeighState::*;
    for state in [Reachable, Stale, Delay, Probe, Noarp, Permanent] {
        check(Some((state, Some(mac))), false, known);
        check(Some((state, Some(mac))), true, known);
    }
    check(Some((Incomplete, None)), false, None);
    check(Some((Noarp, None)), false, None);
    check(Some((Failed, None)), false, Some(Neighbour::Failed));
    check(Some((Failed, Some(mac))), false, Some(Neighbour::Failed));
    check(Some((Failed, None)), true, Some(of_file));
    check(Some((Incomplete, None)), true, Some(of_file));
    check(None, true, Some(of_file));
    check(None, false, None);
}

#[test]
fn says_where_the_kernel_differs_and_follows_it() {
    assert_eq!(plan("").warnings, [""; 0]);
    let plan = plan_on("", |host| {
        let link = host.links.get_mut(&WAN_INDEX).expect("wan0");
        (link.mtu, link.mac) = (1400, [2, 0, 0, 0, 0, 0x22]);
    });
    assert_eq!((plan.ports[WAN.index()].mtu, plan.ports[WAN.index()].mac.octets()), (1400, [2, 0, 0, 0, 0, 0x22]));
    let [mac, mtu] = &plan.warnings[..] else { panic!("{:?}", plan.warnings) };
    assert!(mac.contains("wan0") && mac.contains("02:00:00:00:00:02") && mac.contains("02:00:00:00:00:22"), "{mac}");
    assert!(mtu.contains("wan0") && mtu.contains("9000") && mtu.contains("1400"), "{mtu}");
}

#[test]
fn ports_are_interfaces_then_tunnels_then_the_way_to_the_host() {
    let (config, plan) = (config(""), plan(""));
    let kinds: Vec<_> = plan.ports.iter().map(|port| port.kind).collect();
    let device = |tunnel| PortKind::Tunnel { tunnel, into: AdjacencyId::NONE, ethernet: true };
    let expected = [
        PortKind::Interface,
        PortKind::Interface,
        PortKind::Vlan { parent: WAN, id: 110 },
        PortKind::Interface,
        device(MAC_TUNNEL),
        device(PAIR_TUNNEL),
        device(NET_TUNNEL),
        PortKind::Punt,
    ];
    assert_eq!(kinds, expected);
    assert_eq!((Plan::tunnel_port(&config, NET_TUNNEL), Plan::punt_port(&config)), (PortId(6), PortId(7)));
    // Of a VLAN, the MTU and MAC are its parent's where nobody says otherwise.
    let vlan = &plan.ports[VLAN.index()];
    assert_eq!((vlan.mtu, vlan.mac.octets()), (9000, [2, 0, 0, 0, 0, 2]));
    // Sockets are counted by interfaces that have rings.
    assert_eq!([LAN, WAN, TENANT].map(|port| plan.slot(port)), [0, 1, 2]);
}

#[test]
fn steering_learns_whose_an_address_is() {
    let config = config("");
    let mut host = offline::host(&config);
    let (key, route) = kernel_route("10.9.0.0/16", hop(OTHER, None));
    host.routes.insert(key, route.into());
    host.links.remove(&1);
    let plan = Plan::new(&config, &host);
    let tables = plan.steering(&config);
    let interfaces: BTreeMap<_, _> = tables.interfaces().map(|(key, of)| ((key.device, key.vlan), of)).collect();
    assert_eq!(interfaces.keys().copied().collect::<Vec<_>>(), [(2, 0), (2, 110), (4, 0)], "lan0 does not exist");
    let (wan, vlan, tenant) = (interfaces[&(2, 0)], interfaces[&(2, 110)], interfaces[&(4, 0)]);
    assert_eq!((wan.port, vlan.port, tenant.port), (1, 1, 2), "a VLAN has its parent's sockets");
    assert_eq!((wan.counters, vlan.counters, tenant.counters), (1, 2, 3));
    assert_eq!((wan.vrf, vlan.vrf, tenant.vrf), (0, 0, 1));
    // DESIGN §5.4: a tenant's packets are not the kernel's to forward.
    let drops = |of: Interface| of.flags.has(InterfaceFlags::FALLBACK_DROP);
    assert_eq!((drops(wan), drops(tenant)), (false, true));
    let at = tables.at(2);
    let local = |vrf, address: &str| match ip(address) {
        IpAddr::V4(address) => at.local_v4(LocalV4 { vrf, address: address.to_bits() }),
        IpAddr::V6(_) => unreachable!("only IPv4 is asked for"),
    };
    assert!(local(0, "192.0.2.1").has(Local::OWN) && local(0, "192.0.2.1").has(Local::TUNNEL));
    assert!(local(0, "192.0.2.255").has(Local::BROADCAST));
    assert_eq!((local(0, "198.51.100.0"), local(1, "192.0.2.255")), (Local::NONE, Local::NONE), "a /31 has none");
    let kernels = |vrf, address: u32| at.kernel_route_v4(RouteV4::new(vrf, address));
    assert_eq!([kernels(0, 0x0a09_0001), kernels(1, 0x0a09_0001), kernels(0, 0x0a0a_0001)], [true, false, false]);
}
