//! Routes by next-hop objects (`ip nexthop`).

use super::*;
use std::collections::BTreeSet;

/// Links with addresses; routes by an object say only its number, or their hops too.
fn wired(compatible: bool) {
    // The kernel has blackholes there.
    ip("link set lo up");
    for name in ["left", "right"] {
        ip(&format!("link add {name} type veth peer name {name}-peer"));
        ip(&format!("link set {name}-peer up"));
        ip(&format!("link set {name} up"));
    }
    ip("address add 192.0.2.1/25 dev left");
    ip("address add 192.0.2.129/25 dev right");
    ip("address add 2001:db8::1/64 dev left nodad");
    let mode = if compatible { "1" } else { "0" };
    std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", mode).expect("the namespace is ours");
}

/// In a namespace of each mode.
fn in_both_modes(story: impl Fn() + Send + Sync) {
    for compatible in [false, true] {
        in_namespace(|| {
            wired(compatible);
            story();
        });
    }
}

/// Gateways with weights, of a route that is there.
fn ways(host: &Host, key: &RouteKey) -> Vec<(String, u16)> {
    let route = host.route(key).unwrap_or_else(|| panic!("no route of {key:?}"));
    assert_eq!(route.kind, RouteKind::Unicast);
    let name = |hop: &KernelHop| hop.gateway.map_or("on link".to_owned(), |gateway| gateway.to_string());
    route.next_hops.iter().map(|hop| (name(hop), hop.weight)).collect()
}

fn way(gateway: &str, weight: u16) -> (String, u16) {
    (gateway.to_owned(), weight)
}

#[test]
fn a_route_leads_where_its_object_does() {
    in_both_modes(|| {
        let mut mirror = Mirror::open().expect("in the namespace");
        ip("nexthop add id 1 via 192.0.2.2 dev left");
        ip("nexthop add id 2 via 192.0.2.130 dev right");
        ip("nexthop add id 3 group 1,3/2,2");
        ip("nexthop add id 4 group 1,7/2,2 type resilient buckets 16");
        ip("nexthop add id 5 blackhole");
        ip("nexthop add id 6 via 2001:db8::2 dev left");
        ip("route add 198.51.100.0/25 nhid 1");
        ip("route add 198.51.100.0/26 nhid 3");
        ip("route add 198.51.100.0/27 nhid 4");
        ip("route add 198.51.100.0/28 nhid 5");
        ip("route add 198.51.100.0/29 nhid 6");
        ip("route add 2001:db8:9::/48 nhid 6");
        let last = key("2001:db8:9::/48", 1024);
        await_host(&mut mirror, |host| host.route(&last).is_some());
        let host = mirror.host();
        let v4 = |length: u8| key(&format!("198.51.100.0/{length}"), 0);
        assert_eq!(ways(host, &v4(25)), [way("192.0.2.2", 1)]);
        assert_eq!(ways(host, &v4(26)), [way("192.0.2.2", 3), way("192.0.2.130", 2)]);
        assert_eq!(ways(host, &v4(27)), [way("192.0.2.2", 7), way("192.0.2.130", 2)]);
        let dropped = host.route(&v4(28)).expect("added");
        assert_eq!((dropped.kind, dropped.next_hops.len(), dropped.next_hop_id), (RouteKind::Blackhole, 0, Some(5)));
        assert_eq!(ways(host, &v4(29)), [way("2001:db8::2", 1)]);
        assert_eq!(ways(host, &last), [way("2001:db8::2", 1)]);
        assert_eq!(host.route(&last).expect("added").next_hops[0].ifindex, Some(index(host, "left")));
        assert_current(&mut mirror);
    });
}

#[test]
fn routes_follow_an_object_that_is_replaced_without_events_of_their_own() {
    in_both_modes(|| {
        ip("nexthop add id 1 via 192.0.2.2 dev left");
        ip("nexthop add id 2 via 192.0.2.130 dev right");
        ip("nexthop add id 3 group 1/2");
        ip_batch((0..200).map(|i| format!("route add 198.51.100.{i}/32 nhid {}", [1, 3][i % 2])));
        ip("route add 203.0.113.0/24 nhid 2");
        let mut mirror = Mirror::open().expect("in the namespace");
        let keys = |from: usize, step| -> BTreeSet<RouteKey> {
            (from..200).step_by(step).map(|i| key(&format!("198.51.100.{i}/32"), 0)).collect()
        };
        let (single, group) = (key("198.51.100.0/32", 0), key("198.51.100.1/32", 0));
        // The group has the object too.
        ip("nexthop replace id 1 via 192.0.2.3 dev left");
        let changes = await_host(&mut mirror, |host| ways(host, &single) == [way("192.0.2.3", 1)]);
        assert_eq!(in_main(&changes), keys(0, 1));
        assert_eq!(ways(mirror.host(), &group), [way("192.0.2.3", 1), way("192.0.2.130", 1)]);
        assert_current(&mut mirror);

        ip("nexthop replace id 3 group 1,2/2,250");
        let changes = await_host(&mut mirror, |host| ways(host, &group)[1].1 == 250);
        assert_eq!(in_main(&changes), keys(1, 2));
        assert_current(&mut mirror);

        // A group has no blackhole beside others.
        ip("nexthop replace id 3 group 2");
        ip("nexthop replace id 1 blackhole");
        let gone = |host: &Host| host.route(&single).expect("stays").kind == RouteKind::Blackhole;
        await_host(&mut mirror, |host| gone(host) && ways(host, &group) == [way("192.0.2.130", 1)]);
        assert_current(&mut mirror);
    });
}

#[test]
fn routes_go_with_their_object_and_those_behind_them_show() {
    in_both_modes(|| {
        ip("nexthop add id 1 via 192.0.2.2 dev left");
        ip("nexthop add id 2 via 192.0.2.130 dev right");
        ip("nexthop add id 3 group 1/2");
        ip("nexthop add id 6 via 2001:db8::2 dev left");
        ip("route add 198.51.100.0/24 nhid 1");
        ip("route append 198.51.100.0/24 via 192.0.2.9");
        ip("route add 203.0.113.0/24 nhid 3");
        ip("route add 2001:db8:9::/48 nhid 6");
        let mut mirror = Mirror::open().expect("in the namespace");
        let (shown, group, v6) = (key("198.51.100.0/24", 0), key("203.0.113.0/24", 0), key("2001:db8:9::/48", 1024));
        assert_eq!(ways(mirror.host(), &shown), [way("192.0.2.2", 1)]);
        ip("nexthop delete id 1");
        ip("nexthop delete id 6");
        await_host(&mut mirror, |host| ways(host, &shown) == [way("192.0.2.9", 1)] && host.route(&v6).is_none());
        assert_eq!(ways(mirror.host(), &group), [way("192.0.2.130", 1)]);
        assert_current(&mut mirror);

        // At once another of the same number: who was by the old one is not by the new one.
        ip_batch(["nexthop delete id 2", "nexthop add id 2 via 192.0.2.131 dev right"].map(str::to_owned));
        await_host(&mut mirror, |host| host.route(&group).is_none());
        assert_current(&mut mirror);
    });
}

#[test]
fn objects_go_with_their_link_in_silence() {
    in_both_modes(|| {
        ip("nexthop add id 1 via 192.0.2.2 dev left");
        ip("nexthop add id 2 via 192.0.2.130 dev right");
        ip("nexthop add id 3 group 1/2");
        ip("route add 198.51.100.0/24 nhid 2");
        ip("route add 203.0.113.0/24 nhid 3");
        let mut mirror = Mirror::open().expect("in the namespace");
        let (single, group) = (key("198.51.100.0/24", 0), key("203.0.113.0/24", 0));
        ip("link set right down");
        await_host(&mut mirror, |host| host.route(&single).is_none());
        assert_current(&mut mirror);
        assert_eq!(ways(mirror.host(), &group), [way("192.0.2.2", 1)]);
        ip("link delete left");
        await_host(&mut mirror, |host| host.route(&group).is_none());
        assert_current(&mut mirror);
    });
}

/// Changes of the main table: the kernel is late with its own routes to IPv6 addresses.
fn in_main(changes: &Changes) -> BTreeSet<RouteKey> {
    changes.routes.iter().filter(|key| key.table == 254).copied().collect()
}
