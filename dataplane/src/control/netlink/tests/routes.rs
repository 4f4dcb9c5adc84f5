//! Routes, one at a time.

use super::*;

#[test]
fn routes_of_every_kind_come_change_and_go() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let mut mirror = Mirror::open().expect("in the namespace");
        let left = index(mirror.host(), "left");
        let right = index(mirror.host(), "right");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 2001:db8::1/64 dev left nodad");
        ip("route add default via 192.0.2.254 proto bgp metric 20 src 192.0.2.1");
        ip("route add 198.51.100.0/24 metric 5 nexthop via 192.0.2.2 weight 3 nexthop dev right");
        ip("route add 203.0.113.0/24 via inet6 2001:db8::2 dev left");
        ip("route add unreachable 198.18.0.0/15 proto 80 table 1001");
        ip("route add blackhole 2001:db8:bad::/48");
        ip("route add 2001:db8:1::/48 nexthop via 2001:db8::2 nexthop via 2001:db8::3 weight 2");
        let v6 = key("2001:db8:1::/48", 1024);
        let changes = await_host(&mut mirror, |host| host.routes.contains_key(&v6));
        let routes = &mirror.host().routes;
        let hop = |ifindex, gateway: &str, weight| KernelHop {
            ifindex: Some(ifindex),
            gateway: Some(gateway).filter(|text| !text.is_empty()).map(address),
            weight,
        };

        let default = &routes[&key("0.0.0.0/0", 20)];
        assert_eq!(default.protocol, 186);
        assert_eq!(default.prefsrc, Some(address("192.0.2.1")));
        assert_eq!(default.next_hops, [hop(left, "192.0.2.254", 1)]);
        let shared = &routes[&key("198.51.100.0/24", 5)];
        assert_eq!(shared.kind, RouteKind::Unicast);
        assert_eq!(shared.next_hops, [hop(left, "192.0.2.2", 3), hop(right, "", 1)]);
        let via_other_family = &routes[&key("203.0.113.0/24", 0)];
        assert_eq!(via_other_family.next_hops, [hop(left, "2001:db8::2", 1)]);
        let unreachable = &routes[&RouteKey { table: 1001, ..key("198.18.0.0/15", 0) }];
        assert_eq!((unreachable.kind, unreachable.protocol), (RouteKind::Unreachable, PROTOCOL));
        let blackhole = &routes[&key("2001:db8:bad::/48", 1024)];
        assert_eq!(blackhole.kind, RouteKind::Blackhole);
        assert!(blackhole.next_hops.is_empty());
        assert_eq!(routes[&v6].next_hops, [hop(left, "2001:db8::2", 1), hop(left, "2001:db8::3", 2)]);
        let local = &routes[&RouteKey { table: 255, ..key("192.0.2.1/32", 0) }];
        assert_eq!(local.kind, RouteKind::Local);
        assert!(changes.routes.contains(&key("0.0.0.0/0", 20)));
        assert_current(&mut mirror);

        ip("route change default via 192.0.2.253 metric 20");
        ip("route delete 2001:db8:1::/48 via 2001:db8::2 dev left");
        ip("route append 2001:db8:1::/48 via 2001:db8::4");
        ip("route replace 2001:db8:bad::/48 via 2001:db8::9");
        ip("route delete 198.51.100.0/24 metric 5");
        await_host(&mut mirror, |host| !host.routes.contains_key(&key("198.51.100.0/24", 5)));
        let routes = &mirror.host().routes;
        assert_eq!(routes[&key("0.0.0.0/0", 20)].next_hops, [hop(left, "192.0.2.253", 1)]);
        assert_eq!(routes[&v6].next_hops, [hop(left, "2001:db8::3", 2), hop(left, "2001:db8::4", 1)]);
        assert_current(&mut mirror);
    });
}

#[test]
fn of_routes_with_one_key_the_one_in_use_is_mirrored() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        let mut mirror = Mirror::open().expect("in the namespace");
        let used = |host: &Host, prefix: &str| {
            let route = host.routes.get(&key(prefix, 7))?;
            Some(route.next_hops.first()?.gateway?.to_string())
        };
        ip("route add 198.51.100.0/24 via 192.0.2.2 metric 7");
        ip("route append 198.51.100.0/24 via 192.0.2.3 metric 7");
        ip("route prepend 198.51.100.0/24 via 192.0.2.4 metric 7");
        await_host(&mut mirror, |host| used(host, "198.51.100.0/24").as_deref() == Some("192.0.2.4"));
        assert_current(&mut mirror);
        // Each deletion leaves the next in line.
        for (deleted, then) in [("4", Some("192.0.2.2")), ("2", Some("192.0.2.3")), ("3", None)] {
            ip(&format!("route delete 198.51.100.0/24 via 192.0.2.{deleted} metric 7"));
            await_host(&mut mirror, |host| used(host, "198.51.100.0/24").as_deref() == then);
            assert_current(&mut mirror);
        }
    });
}

#[test]
fn ipv6_routes_that_differ_only_in_their_device_are_one_with_both() {
    in_namespace(|| {
        let mut mirror = Mirror::open().expect("in the namespace");
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let link_local = key("fe80::/64", 256);
        let hops = |host: &Host| host.route(&link_local).map_or(0, |route| route.next_hops.len());
        await_host(&mut mirror, |host| hops(host) == 2);
        assert_current(&mut mirror);
        ip("link set left down");
        await_host(&mut mirror, |host| hops(host) == 1);
        let right = index(mirror.host(), "right");
        assert_eq!(mirror.host().routes[&link_local].next_hops[0].ifindex, Some(right));
        assert_current(&mut mirror);
    });
}

#[test]
fn ipv4_routes_that_the_kernel_drops_in_silence_go_from_the_mirror_too() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 203.0.113.1/32 dev right");
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        ip("route add 198.18.0.0/15 dev right src 203.0.113.1");
        let mut mirror = Mirror::open().expect("in the namespace");
        let (via_link, via_source) = (key("198.51.100.0/24", 0), key("198.18.0.0/15", 0));
        assert!(mirror.host().routes.contains_key(&via_link));
        assert!(mirror.host().routes.contains_key(&via_source));

        ip("address delete 203.0.113.1/32 dev right");
        let changes = await_host(&mut mirror, |host| !host.routes.contains_key(&via_source));
        assert!(changes.routes.contains(&via_source));
        assert_current(&mut mirror);

        ip("link set left down");
        let changes = await_host(&mut mirror, |host| !host.routes.contains_key(&via_link));
        assert!(changes.routes.contains(&via_link));
        assert_current(&mut mirror);

        ip("link set left up");
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        await_host(&mut mirror, |host| host.routes.contains_key(&via_link));
        ip("link delete left");
        await_host(&mut mirror, |host| !host.routes.contains_key(&via_link));
        assert_current(&mut mirror);
    });
}

#[test]
fn the_route_of_least_metric_comes_first_and_the_next_after_it() {
    in_namespace(|| {
        ip("link set lo up");
        let mut mirror = Mirror::open().expect("in the namespace");
        let prefix = net("198.51.100.0/24");
        ip("route add unreachable 198.51.100.0/24 metric 30");
        ip("route add prohibit 198.51.100.0/24 metric 20");
        ip("route add blackhole 198.51.100.0/24 metric 10");
        ip("route add unreachable 198.51.100.0/25 metric 1");
        ip("route add unreachable 198.51.100.0/24 table 7");
        let kinds = |host: &Host| host.routes_to(254, prefix).map(|(_, route)| route.kind).collect::<Vec<_>>();
        let all = [RouteKind::Blackhole, RouteKind::Prohibit, RouteKind::Unreachable];
        await_host(&mut mirror, |host| kinds(host) == all);
        ip("route delete 198.51.100.0/24 metric 10");
        let changes = await_host(&mut mirror, |host| kinds(host) == all[1..]);
        assert_eq!(changes.routes.into_iter().collect::<Vec<_>>(), [key("198.51.100.0/24", 10)]);
        assert_current(&mut mirror);
    });
}

#[test]
fn a_hop_goes_with_its_link_and_comes_back_with_it() {
    in_namespace(|| {
        for name in ["left", "other"] {
            ip(&format!("link add {name} type veth peer name {name}-peer"));
            ip(&format!("link set {name}-peer up"));
            ip(&format!("link set {name} up"));
        }
        ip("address add 192.0.2.1/25 dev left");
        ip("address add 192.0.2.129/25 dev other");
        ip("address add 2001:db8::1/64 dev left nodad");
        ip("address add 2001:db8:0:1::1/64 dev other nodad");
        // Or IPv6 forgets an address with its link.
        std::fs::write("/proc/sys/net/ipv6/conf/other/keep_addr_on_down", "1").expect("the namespace is ours");
        ip("route add 198.51.100.0/24 nexthop via 192.0.2.2 nexthop via 192.0.2.130 weight 2");
        ip("route add 2001:db8:9::/48 nexthop via 2001:db8::2 nexthop via 2001:db8:0:1::2 weight 2");
        let mut mirror = Mirror::open().expect("in the namespace");
        let (v4, v6) = (key("198.51.100.0/24", 0), key("2001:db8:9::/48", 1024));
        let hops = |host: &Host| [v4, v6].map(|key| host.route(&key).map_or(0, |route| route.next_hops.len()));
        assert_eq!(hops(mirror.host()), [2, 2]);
        ip("link set other down");
        let changes = await_host(&mut mirror, |host| hops(host) == [1, 1]);
        assert!(changes.routes.contains(&v4) && changes.routes.contains(&v6));
        assert_current(&mut mirror);
        ip("link set other up");
        await_host(&mut mirror, |host| hops(host)[0] == 2);
        assert_current(&mut mirror);
    });
}
