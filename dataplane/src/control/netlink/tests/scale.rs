//! Many routes, and events that are lost.

use super::*;
use std::collections::BTreeSet;

/// A pair of links that are up, the left with addresses. None of them is the kernel's own, which come when they like.
fn wired() {
    ip("link add left type veth peer name right");
    for name in ["left", "right"] {
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("link set {name} up"));
    }
    ip("address add 192.0.2.1/24 dev left");
    ip("address add 2001:db8::1/64 dev left nodad");
}

/// How often each table was read again.
fn read_again(mirror: &Mirror) -> Vec<(&'static str, u64)> {
    mirror.dumps().map(|(part, count)| (part, count - 1)).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_mirror_that_lost_events_tells_of_what_differs_and_of_nothing_else() {
    in_namespace(|| {
        wired();
        ip("route add 198.51.100.0/24 via 192.0.2.99");
        ip("route add 203.0.113.0/25 via 192.0.2.99");
        ip("neighbour add 192.0.2.66 lladdr 02:00:00:00:00:66 dev left");
        let mut mirror = Mirror::open_cramped(true, true).expect("in the namespace");
        // Much ado, of which a tenth stays.
        ip_batch((0..2000_u32).flat_map(|i| {
            let prefix = format!("198.{}.{}.0/24", 18 + i / 256, i % 256);
            let neighbour = format!("198.18.{}.{} lladdr 02:00:00:00:00:07 dev left", i / 256, i % 256);
            let mut commands = vec![format!("route add {prefix} via 192.0.2.7"), format!("neighbour add {neighbour}")];
            commands.extend((i % 10 != 0).then(|| format!("route delete {prefix}")));
            commands
        }));
        ip("route delete 198.51.100.0/24");
        ip("route replace 203.0.113.0/25 via 192.0.2.7");
        ip("neighbour delete 192.0.2.66 dev left");
        ip("address add 203.0.113.1/32 dev left");
        ip("tuntap add dev tail mode tap");
        let changes = await_host(&mut mirror, |host| host.link_by_name("tail").is_some());
        assert!(mirror.overruns() > 0, "the storm was too small");
        let mut expected: BTreeSet<RouteKey> =
            (0..2000_u32).step_by(10).map(|i| key(&format!("198.{}.{}.0/24", 18 + i / 256, i % 256), 0)).collect();
        expected.extend([key("198.51.100.0/24", 0), key("203.0.113.0/25", 0)]);
        expected.insert(RouteKey { table: 255, ..key("203.0.113.1/32", 0) });
        // That of the IPv6 address comes when a kernel thread comes to it.
        let told: BTreeSet<_> = changes.routes.into_iter().filter(|key| key.prefix.addr().is_ipv4()).collect();
        assert_eq!(told, expected);
        assert!(changes.neighbours.len() > 2000 - 10, "{}", changes.neighbours.len());
        assert_current(&mut mirror);
    });
}

#[test]
fn only_what_the_lost_events_told_of_is_read_again() {
    in_namespace(|| {
        wired();
        let neighbours = || {
            ip_batch((0..3000_u32).map(|i| {
                format!("neighbour replace 198.18.{}.{} lladdr 02:00:00:00:00:07 dev left", i / 256, i % 256)
            }));
        };
        let routes = || {
            ip_batch((0..3000_u32).map(|i| format!("route add 198.18.{}.{}/32 via 192.0.2.7", i / 256, i % 256)));
        };
        let mut mirror = Mirror::open_cramped(true, false).expect("in the namespace");
        neighbours();
        assert_current(&mut mirror);
        assert!(mirror.overruns() > 0, "the storm was too small");
        let again = |mirror: &Mirror| read_again(mirror).into_iter().map(|(part, _)| part).collect::<Vec<_>>();
        assert_eq!(again(&mirror), ["neighbours"]);

        let mut mirror = Mirror::open_cramped(false, true).expect("in the namespace");
        routes();
        assert_current(&mut mirror);
        assert!(mirror.overruns() > 0, "the storm was too small");
        assert_eq!(again(&mirror), ["next-hop objects", "IPv4 routes", "IPv6 routes"]);
    });
}

#[test]
fn a_mirror_that_keeps_losing_events_while_it_reads_is_right_in_the_end() {
    in_namespace(|| {
        wired();
        let mut mirror = Mirror::open_cramped(true, true).expect("in the namespace");
        ip("nexthop add id 1 via 192.0.2.2 dev left");
        ip("nexthop add id 2 via 192.0.2.3 dev left");
        ip("nexthop add id 3 group 1/2");
        let churn = (0..20_000_u32).map(|i| {
            // Every route is added, replaced, extended, thinned and deleted, at odds with the others.
            let (n, step) = (i * 7919 % 500, i / 500 % 5);
            let v6 = format!("2001:db8:{n:x}::/48");
            let v4 = format!("198.18.{}.{}/32", n / 250, n % 250);
            match (step, n % 2) {
                // Objects change under the routes by them.
                _ if n == 7 => format!("nexthop replace id 2 via 192.0.2.{} dev left", 3 + i % 5),
                _ if n == 9 => format!("nexthop replace id 3 group 1,{}/2", 1 + i % 5),
                (0, 0) if n < 100 => format!("route add {v4} nhid 3"),
                (1, 0) if n < 100 => format!("route replace {v4} nhid 2"),
                (2..=3, 0) if n < 100 => format!("route replace {v4} nhid {}", step - 1),
                (_, 0) if n < 100 => format!("route delete {v4}"),
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
        wired();
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

/// Octets of memory that are in use.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a count of pages") * 4096
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_million_routes() {
    in_namespace(|| {
        wired();
        let (left, _) = Commander::open().expect("in the namespace").link("left").expect("asked").expect("there");
        let order = |i: u32| {
            let prefix = IpNet::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into(), 32).expect("32 bits");
            let key = RouteKey { table: 254, prefix, tos: 0, metric: 20 };
            let gateway = std::net::Ipv4Addr::from_bits(0xc000_0202 + i % 64);
            RouteOrder::Add(ExportedRoute { key, target: Target::Gateway(left, gateway.into()) })
        };
        for count in [100_000, 1_000_000] {
            sys::netns::in_new(|| {
                wired();
                let orders: Vec<_> = (0..count).map(order).collect();
                let mut commander = Commander::open().expect("in the namespace");
                let start = Instant::now();
                assert_eq!(commander.write_routes(&orders).expect("the kernel answers").len(), 0);
                eprintln!("{count} routes written in {:?}", start.elapsed());
                drop(orders);
                let (start, before) = (Instant::now(), resident());
                let mut mirror = Mirror::open().expect("in the namespace");
                let took = start.elapsed();
                assert!(mirror.host().routes.len() > count as usize);
                eprintln!("{count} routes read in {took:?}, {} octets each", (resident() - before) / count as usize);
                mirror.read_again();
                let start = Instant::now();
                assert!(await_host(&mut mirror, |_| true).is_empty());
                eprintln!("{count} routes read again and compared in {:?}", start.elapsed());
                // Waiting: as many as the buffer holds, and then they are read.
                let storm: Vec<_> =
                    (0..50_000).map(|i| RouteOrder::Delete(order(i * (count / 50_000)).key())).collect();
                assert_eq!(commander.write_routes(&storm).expect("the kernel answers").len(), 0);
                let start = Instant::now();
                let changes = await_host(&mut mirror, |host| host.routes.len() + 50_000 < count as usize + 100);
                assert_eq!((changes.routes.len(), mirror.overruns()), (50_000, 0));
                eprintln!("50000 events read in {:?}", start.elapsed());
            })
            .expect("we may unshare");
        }
    });
}
