//! In network namespaces of their own, with the `ip` command as the other hand.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sys::caps::{Capability, testable};
use sys::poll::{PollFd, PollFlags};

use super::*;
use crate::control::host::{Host, IfIndex, KernelHop, Neigh, NeighState, RouteKey, RouteKind, TunKind};

/// Runs `story` in a fresh namespace, if we may.
pub(in crate::control) fn in_namespace(story: impl FnOnce() + Send) {
    if testable(Capability::NetAdmin) && testable(Capability::SysAdmin) {
        sys::netns::in_new(story).expect("we may unshare");
    }
}

#[track_caller]
pub(in crate::control) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Many commands in one process.
#[track_caller]
fn ip_batch(commands: impl IntoIterator<Item = String>) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2 is installed");
    let mut input = child.stdin.take().expect("piped");
    for command in commands {
        writeln!(input, "{command}").expect("ip reads");
    }
    drop(input);
    assert!(child.wait().expect("ip ends").success());
}

/// Polls until `wanted` is true of the host and nothing is being read again; all that changed
/// on the way.
#[track_caller]
fn await_host(mirror: &mut Mirror, wanted: impl Fn(&Host) -> bool) -> Changes {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = Changes::default();
    loop {
        let changes = mirror.poll().expect("the kernel answers");
        all.links.extend(changes.links);
        all.addresses.extend(changes.addresses);
        all.neighbours.extend(changes.neighbours);
        all.routes.extend(changes.routes);
        if wanted(mirror.host()) && !mirror.is_resynchronising() {
            return all;
        }
        let left = deadline
            .checked_duration_since(Instant::now())
            .unwrap_or_else(|| panic!("not within 20 s; the host is {:#?}", mirror.host()));
        let mut fds = [PollFd::new(&*mirror, PollFlags::IN)];
        sys::poll::poll(&mut fds, Some(left)).expect("one open descriptor");
    }
}

/// What the mirror has agrees with what a new one reads.
#[track_caller]
fn assert_current(mirror: &mut Mirror) {
    // The kernel makes link-local addresses, and their routes, some time after a link came up: between the two readings
    // perhaps, but not each time.
    let fresh = (0..10).find_map(|attempt| {
        let fresh = Mirror::open().expect("a second one");
        await_host(mirror, |_| true);
        let (ours, theirs) = (mirror.host(), fresh.host());
        let agree = ours.addresses == theirs.addresses && ours.routes == theirs.routes;
        (agree || attempt == 9).then_some(fresh)
    });
    let fresh = fresh.expect("the last attempt counts");
    assert_eq!(mirror.host().links, fresh.host().links);
    assert_eq!(mirror.host().addresses, fresh.host().addresses);
    assert_eq!(learned(mirror.host()), learned(fresh.host()));
    assert_eq!(mirror.host().routes, fresh.host().routes);
    assert_eq!(mirror.undecoded(), 0);
}

/// The neighbours without those that the kernel makes up, of which it has no event.
fn learned(host: &Host) -> Vec<(&(IfIndex, IpAddr), &Neigh)> {
    let made_up = |neighbour: &Neigh| neighbour.state == NeighState::Noarp;
    host.neighbours.iter().filter(|(_, neighbour)| !made_up(neighbour)).collect()
}

/// Waits for what other threads' children delay: between fork and exec they hold copies of
/// our descriptors.
#[track_caller]
pub(in crate::control) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "not within 20 s");
        std::thread::yield_now();
    }
}

fn index(host: &Host, name: &str) -> IfIndex {
    host.link_by_name(name).expect("it is there").0
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(prefix: &str, metric: u32) -> RouteKey {
    RouteKey { table: 254, prefix: net(prefix), tos: 0, metric }
}

#[test]
fn a_link_appears_changes_and_vanishes() {
    in_namespace(|| {
        let mut mirror = Mirror::open().expect("in the namespace");
        let lo = mirror.host().link_by_name("lo").expect("always there").1;
        assert_eq!((lo.up, lo.kind.as_deref()), (false, None));

        ip("link add left address 02:00:00:00:00:01 mtu 9000 numrxqueues 4 numtxqueues 3 type veth peer name right");
        ip("tuntap add dev tap0 mode tap");
        ip("tuntap add dev tun0 mode tun");
        let changes = await_host(&mut mirror, |host| host.link_by_name("tun0").is_some());
        let host = mirror.host();
        let (left, link) = host.link_by_name("left").expect("made");
        assert!(changes.links.contains(&left));
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 1]);
        assert_eq!((link.mtu, link.rx_queues, link.tx_queues), (9000, 4, 3));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.parent, Some(index(host, "right")));
        assert_eq!((link.up, link.running, link.tun), (false, false, None));
        let kinds = ["tap0", "tun0"].map(|name| {
            let (_, link) = host.link_by_name(name).expect("made");
            (link.kind.as_deref(), link.tun)
        });
        assert_eq!(kinds, [(Some("tun"), Some(TunKind::Tap)), (Some("tun"), Some(TunKind::Tun))]);

        ip("link set left up");
        ip("link set right up");
        ip("link set left mtu 1500");
        await_host(&mut mirror, |host| {
            let (_, link) = host.link_by_name("left").expect("still there");
            link.up && link.running && link.mtu == 1500
        });
        assert_current(&mut mirror);

        ip("link delete left");
        let changes = await_host(&mut mirror, |host| host.link_by_name("right").is_none());
        assert!(changes.links.contains(&left));
        assert_eq!(mirror.host().link_by_name("left"), None);
        assert_current(&mut mirror);
    });
}

#[test]
fn a_port_that_leaves_its_bridge_is_still_a_link() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        let mut mirror = Mirror::open().expect("in the namespace");
        // Not every kernel has bridges; bonds and VRFs are masters alike.
        let made = ["bridge", "vrf table 7", "bond"].iter().any(|kind| {
            Command::new("ip")
                .args(["link", "add", "up0", "type"])
                .args(kind.split_whitespace())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        if !made {
            eprintln!("skipped: needs bridge, VRF or bonding devices");
            return;
        }
        ip("link set left master up0");
        let master = |host: &Host| host.link_by_name("left").expect("there").1.master;
        await_host(&mut mirror, |host| master(host).is_some());
        assert_eq!(master(mirror.host()), Some(index(mirror.host(), "up0")), "{:?}", mirror.host().links);
        ip("link set left nomaster");
        await_host(&mut mirror, |host| master(host).is_none());
        assert_current(&mut mirror);
    });
}

#[test]
fn addresses_come_and_go_link_local_ones_too() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        let mut mirror = Mirror::open().expect("in the namespace");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 198.51.100.1 peer 198.51.100.2/32 dev left");
        ip("address add 198.51.100.9 peer 203.0.113.0/24 dev left");
        ip("address add 2001:db8::1/64 dev left nodad");
        ip("link set left up");
        ip("link set right up");
        let left = index(mirror.host(), "left");
        let changes = await_host(&mut mirror, |host| host.addresses_of(left).count() == 5);
        let addresses: Vec<IpNet> = mirror.host().addresses_of(left).collect();
        let mut expected = ["192.0.2.1/24", "198.51.100.1/32", "198.51.100.9/32", "2001:db8::1/64"].map(net).to_vec();
        for address in &addresses {
            assert!(changes.addresses.contains(&(left, *address)));
            if address.to_string().starts_with("fe80:") {
                expected.push(*address);
            }
        }
        expected.sort();
        assert_eq!(addresses, expected);

        ip("address delete 192.0.2.1/24 dev left");
        let changes = await_host(&mut mirror, |host| !host.addresses.contains(&(left, net("192.0.2.1/24"))));
        assert!(changes.addresses.contains(&(left, net("192.0.2.1/24"))));
        ip("link delete left");
        await_host(&mut mirror, |host| host.addresses.is_empty());
        assert_current(&mut mirror);
    });
}

#[test]
fn neighbours_come_change_and_go() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev left nud permanent");
        let mut mirror = Mirror::open().expect("in the namespace");
        let left = index(mirror.host(), "left");
        let second = (left, address("192.0.2.2"));
        let known = mirror.host().neighbours[&second];
        assert_eq!(known.mac, Some([2, 0, 0, 0, 0, 2]));
        assert_eq!(known.state, NeighState::Permanent);

        ip("neighbour add 2001:db8::2 lladdr 02:00:00:00:00:06 dev left nud stale");
        ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:22 dev left nud reachable");
        let sixth = (left, address("2001:db8::2"));
        let changes = await_host(&mut mirror, |host| host.neighbours[&second].mac == Some([2, 0, 0, 0, 0, 0x22]));
        assert!(changes.neighbours.contains(&second) && changes.neighbours.contains(&sixth));
        assert_eq!(mirror.host().neighbours[&second].state, NeighState::Reachable);
        assert_eq!(mirror.host().neighbours[&sixth].state, NeighState::Stale);

        ip("neighbour delete 192.0.2.2 dev left");
        await_host(&mut mirror, |host| {
            // Deleted by hand it fails first, and is then collected.
            host.neighbours.get(&second).is_none_or(|neighbour| neighbour.state == NeighState::Failed)
        });
        ip("link set left down");
        await_host(&mut mirror, |host| !host.neighbours.contains_key(&second) && !host.neighbours.contains_key(&sixth));
        assert_current(&mut mirror);
    });
}

#[test]
fn the_kernel_resolves_manages_and_forgets_neighbours_when_asked() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev left nud permanent");
        let mut mirror = Mirror::open().expect("in the namespace");
        let mut commander = Commander::open().expect("in the namespace");
        let left = index(mirror.host(), "left");
        // Nobody answers, so it fails: after three probes, one a second.
        let second = (left, address("192.0.2.2"));
        assert!(commander.resolve(left, second.1, None).expect("allowed"));
        await_host(&mut mirror, |host| {
            host.neighbours
                .get(&second)
                .is_some_and(|neighbour| matches!(neighbour.state, NeighState::Failed | NeighState::Incomplete))
        });
        let third = (left, address("192.0.2.3"));
        assert!(commander.manage(left, third.1, None).expect("allowed"));
        let shown = Command::new("ip")
            .args(["neighbour", "show", "192.0.2.3", "dev", "left"])
            .output()
            .expect("iproute2 is installed");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("managed"), "{shown}");

        // What was set by hand stays as it was.
        let ninth = (left, address("192.0.2.9"));
        let known = mirror.host().neighbours[&ninth];
        assert!(!commander.manage(left, ninth.1, Some(&known)).expect("left alone"));
        assert!(!commander.resolve(left, ninth.1, Some(&known)).expect("left alone"));
        await_host(&mut mirror, |_| true);
        assert_eq!(mirror.host().neighbours[&ninth], known);

        commander.delete_neighbour(left, ninth.1).expect("allowed");
        commander.delete_neighbour(left, address("192.0.2.77")).expect("there is none, which is as it should be");
        await_host(&mut mirror, |host| {
            host.neighbours.get(&ninth).is_none_or(|neighbour| neighbour.state == NeighState::Failed)
        });
    });
}

#[test]
fn a_neighbour_that_answers_becomes_reachable() {
    in_namespace(|| {
        // The far end is this namespace too: it answers for its own address over the pair.
        ip("link add left type veth peer name right");
        let (reader, mut writer) = std::io::pipe().expect("descriptors are free");
        let (mut done, finish) = std::io::pipe().expect("descriptors are free");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Read;
                sys::netns::enter_new().expect("we may unshare");
                let id = std::fs::read_link("/proc/thread-self").expect("/proc is mounted");
                let id = id.file_name().expect("a thread").to_string_lossy().into_owned();
                writer.write_all(id.as_bytes()).expect("read by the test");
                drop(writer);
                // The namespace lives while this thread does.
                let _ = done.read(&mut [0]);
            });
            let id = std::io::read_to_string(reader).expect("written by the thread");
            ip(&format!("link set right netns {id}"));
            ip("link set left up");
            ip("address add 192.0.2.1/24 dev left");
            let mut mirror = Mirror::open().expect("in the namespace");
            let mut commander = Commander::open().expect("in the namespace");
            let left = index(mirror.host(), "left");
            assert_eq!(mirror.host().links[&left].parent, None, "its peer is elsewhere");
            in_namespace_of(
                &id,
                &["link set right address 02:00:00:00:00:02 up", "address add 192.0.2.2/24 dev right"],
            );
            await_host(&mut mirror, |host| host.links[&left].running);
            let second = (left, address("192.0.2.2"));
            commander.resolve(left, second.1, None).expect("allowed");
            await_host(&mut mirror, |host| {
                host.neighbours.get(&second).is_some_and(|neighbour| {
                    neighbour.mac == Some([2, 0, 0, 0, 0, 2]) && neighbour.state == NeighState::Reachable
                })
            });
            drop(finish);
        });
    });
}

#[track_caller]
fn in_namespace_of(thread: &str, commands: &[&str]) {
    for command in commands {
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{thread}/ns/net"))
            .arg("ip")
            .args(command.split_whitespace())
            .status()
            .expect("util-linux is installed");
        assert!(status.success(), "{command}");
    }
}

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
        let hops = |host: &Host| host.routes.get(&link_local).map_or(0, |route| route.next_hops.len());
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
fn a_mirror_that_lost_events_reads_everything_again() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("route add 198.51.100.0/24 via 192.0.2.99");
        ip("neighbour add 192.0.2.66 lladdr 02:00:00:00:00:66 dev left");
        // The least that the kernel gives: a handful of events.
        let mut mirror = Mirror::open_with_buffer(1).expect("in the namespace");
        let storm = (0..2000_u32).flat_map(|i| {
            let (high, low) = (18 + i / 256, i % 256);
            [
                format!("route add 198.{high}.{low}.0/24 via 192.0.2.7"),
                format!("neighbour add 198.{high}.{low}.1 lladdr 02:00:00:00:00:07 dev left"),
            ]
        });
        ip_batch(storm);
        ip("route delete 198.51.100.0/24");
        ip("route add 203.0.113.0/24 via 192.0.2.7");
        ip("neighbour delete 192.0.2.66 dev left");
        ip("address add 203.0.113.1/32 dev left");
        ip("link add tail type veth peer name tail-peer");
        let gone = key("198.51.100.0/24", 0);
        let last = key("203.0.113.0/24", 0);
        let changes =
            await_host(&mut mirror, |host| host.link_by_name("tail-peer").is_some() && host.routes.contains_key(&last));
        assert!(mirror.overruns() > 0, "the storm was too small");
        assert!(!mirror.host().routes.contains_key(&gone));
        assert!(changes.routes.contains(&gone) && changes.routes.contains(&last));
        assert!(changes.routes.len() >= 2000, "{}", changes.routes.len());
        assert_current(&mut mirror);
        // Only what changed was told of.
        assert!(!changes.routes.contains(&key("192.0.2.0/24", 0)));
    });
}

#[test]
fn a_mirror_that_keeps_losing_events_while_it_reads_is_right_in_the_end() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 2001:db8::1/64 dev left nodad");
        let mut mirror = Mirror::open_with_buffer(1).expect("in the namespace");
        let churn = (0..20_000_u32).map(|i| {
            // Every route is added, replaced, extended, thinned and deleted, at odds with the others.
            let (n, step) = (i * 7919 % 500, i / 500 % 5);
            let v6 = format!("2001:db8:{n:x}::/48");
            let v4 = format!("198.18.{}.{}/32", n / 250, n % 250);
            match (step, n % 2) {
                (0, 0) => format!("route add {v4} via 192.0.2.2"),
                (1, 0) => format!("route replace {v4} via 192.0.2.3"),
                (2, 0) => format!("route append {v4} via 192.0.2.4"),
                (3, 0) => format!("route delete {v4} via 192.0.2.3"),
                (_, 0) => format!("route delete {v4} via 192.0.2.4"),
                (0, _) => format!("route add {v6} via 2001:db8::2"),
                (1, _) => format!("route append {v6} via 2001:db8::3"),
                (2, _) => format!("route delete {v6} via 2001:db8::2"),
                (3, _) => format!("route replace {v6} via 2001:db8::4"),
                (_, _) => format!("route delete {v6}"),
            }
        });
        // What stays: the last round stops half way.
        let churn = churn.take(18_100);
        std::thread::scope(|scope| {
            let churning = scope.spawn(|| ip_batch(churn));
            while !churning.is_finished() {
                let mut fds = [PollFd::new(&mirror, PollFlags::IN)];
                sys::poll::poll(&mut fds, Some(Duration::from_millis(10))).expect("open");
                mirror.poll().expect("the kernel answers");
            }
        });
        assert_current(&mut mirror);
        assert!(mirror.overruns() > 0, "the churn was too slow");
        assert!(mirror.host().routes.len() > 200, "nothing was left to compare");
    });
}

#[test]
fn a_hundred_thousand_routes_are_mirrored() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        ip("address add 192.0.2.1/24 dev left");
        let mut mirror = Mirror::open().expect("in the namespace");
        let route = |i: u32| {
            let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + i);
            format!("route add {address}/32 via 192.0.2.7")
        };
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| ip_batch((0..100_000).map(route)));
            // Read while they come, as the control loop would.
            while !adding.is_finished() {
                let mut fds = [PollFd::new(&mirror, PollFlags::IN)];
                sys::poll::poll(&mut fds, Some(Duration::from_millis(10))).expect("open");
                mirror.poll().expect("the kernel answers");
            }
        });
        await_host(&mut mirror, |host| host.routes.len() > 100_000);
        assert_current(&mut mirror);
        ip("route flush proto boot");
        await_host(&mut mirror, |host| host.routes.len() < 100);
        assert_current(&mut mirror);
    });
}

#[test]
fn orders_are_carried_out_and_repeating_them_is_fine() {
    in_namespace(|| {
        ip("tuntap add dev tap0 mode tap");
        let mut commander = Commander::open().expect("in the namespace");
        let (tap, _) = commander.link("tap0").expect("asked").expect("there");
        for _ in 0..2 {
            commander.set_mac(tap, [2, 0, 0, 0, 0, 1]).expect("a TAP has one");
            commander.set_mtu(tap, 1450).expect("legal");
            commander.set_up(tap, true).expect("allowed");
            commander.add_address(tap, net("192.0.2.1/24")).expect("free");
            commander.add_address(tap, net("2001:db8::1/64")).expect("free");
        }
        let (_, link) = commander.link("tap0").expect("asked").expect("there");
        assert_eq!((link.mac, link.mtu, link.up), ([2, 0, 0, 0, 0, 1], 1450, true));
        let mut addresses = commander.addresses(tap).expect("asked");
        addresses.retain(|address| !address.to_string().starts_with("fe80:"));
        addresses.sort();
        assert_eq!(addresses, ["192.0.2.1/24", "2001:db8::1/64"].map(net));
        for _ in 0..2 {
            for address in &addresses {
                commander.delete_address(tap, *address).expect("ours");
            }
            commander.set_up(tap, false).expect("allowed");
        }
        assert_eq!(commander.addresses(tap).expect("asked"), []);
        assert_eq!(commander.link("px-none").expect("asked"), None);
    });
}

#[test]
fn a_refusal_is_a_sentence_that_names_the_device() {
    in_namespace(|| {
        let mut commander = Commander::open().expect("in the namespace");
        let (lo, _) = commander.link("lo").expect("asked").expect("there");
        ip("tuntap add dev tun0 mode tun");
        let (tun, _) = commander.link("tun0").expect("asked").expect("there");
        let cases = [
            (commander.set_mtu(tun, 10), "cannot set the MTU of tun0 to 10: Invalid argument (os error 22)"),
            (
                commander.set_mac(tun, [2, 0, 0, 0, 0, 1]),
                "cannot set the MAC of tun0: Operation not supported (os error 95)",
            ),
            (commander.set_up(lo + 1000, true), "cannot set interface 1001 up: No such device (os error 19)"),
        ];
        for (result, sentence) in cases {
            assert_eq!(result.expect_err("impossible").to_string(), sentence);
        }
    });
}
