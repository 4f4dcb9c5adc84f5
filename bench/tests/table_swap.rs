//! A whole table is replaced by another while a worker forwards: every packet leaves by the old or by the new next hop,
//! and none is lost.
//!
//! The worker has a thread of its own, as in a running gateway; the test is control, and changes what the kernel's
//! routing daemon would change. Ports are in memory, so no packet is late and each is seen.

use bench::family::Family;
use bench::random::Random;
use bench::routes::{self, Route};
use bench::traffic::Pattern;
use dataplane::config::Config;
use dataplane::control::host::{Host, KernelHop, MirroredRoute, RouteKey, RouteKind};
use dataplane::control::netlink::Changes;
use dataplane::control::offline;
use dataplane::control::plan::Plan;
use dataplane::control::resolve::Resolver;
use dataplane::io::{Memory, Outlets, Port};
use dataplane::packet::{PortId, Stock, Time};
use dataplane::pipeline::Pipeline;
use dataplane::qos::{QUEUE_LIMIT, Shaper};
use dataplane::slow::{Limiter, Slow, Wanted};
use dataplane::stats::{Page, Room, Tally, Totals};
use dataplane::tables::{Published, Tables};
use dataplane::worker::{Lane, Worker};
use etherparse::PacketBuilder;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use xsk::{ChunkSize, Umem};

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
/// The kernel's index of wan0, as `offline` numbers it.
const WAN_INDEX: u32 = 2;

const FILE: &str = r#"
[interface.lan0]
mac = "02:00:00:00:00:01"
address = ["198.18.1.1/24", "2001:db8:1::1/64"]
[interface.wan0]
mac = "02:00:00:00:00:02"
address = ["192.0.2.1/24", "2001:db8:f::1/64"]
[[neighbour]]
interface = "wan0"
address = "192.0.2.7"
mac = "02:00:00:00:00:07"
[[neighbour]]
interface = "wan0"
address = "2001:db8:f::7"
mac = "02:00:00:00:00:07"
[[neighbour]]
interface = "wan0"
address = "192.0.2.8"
mac = "02:00:00:00:00:08"
[[neighbour]]
interface = "wan0"
address = "2001:db8:f::8"
mac = "02:00:00:00:00:08"
"#;

/// A router on wan0: the end of its addresses and of its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Router {
    Seven = 7,
    Eight = 8,
}

impl Router {
    fn address(self, like: IpNet) -> IpAddr {
        let last = self as u8;
        match like {
            IpNet::V4(_) => [192, 0, 2, last].into(),
            IpNet::V6(_) => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, last.into()].into(),
        }
    }
}

/// Where frames went, as the worker's thread sees them.
#[derive(Default)]
struct Seen {
    /// Frames that were received, and of them those that were sent to each router.
    put: AtomicU64,
    sent: [AtomicU64; 2],
    /// Sent to a router that is not among those that may have it.
    astray: AtomicU64,
    /// Which routers may have a packet: a set of [`bit`].
    allowed: AtomicUsize,
    over: AtomicBool,
}

const fn bit(router: Router) -> usize {
    1 << (router as usize - 7)
}

impl Seen {
    fn of(&self, router: Router) -> u64 {
        self.sent[router as usize - 7].load(Relaxed)
    }

    /// Waits until so many more frames went through.
    #[track_caller]
    fn await_more(&self, frames: u64) {
        let (start, until) = (Instant::now(), self.put.load(Relaxed) + frames);
        while self.put.load(Relaxed) < until {
            assert!(start.elapsed() < Duration::from_secs(60), "the worker stands still");
            std::thread::yield_now();
        }
    }
}

/// Receives each frame in turn, again and again, and looks at what comes out.
fn forward(mut worker: Worker, frames: &[Vec<u8>], seen: &Seen) -> Worker {
    let mut now = Time(Time::SECOND);
    let mut stream = frames.iter().cycle();
    while !seen.over.load(Relaxed) {
        // Read before the packets are looked up, so a set that grows is never seen too late; it shrinks when every
        // worker has passed.
        let allowed = seen.allowed.load(Relaxed);
        for frame in stream.by_ref().take(64) {
            memory(&mut worker, LAN).put(frame.clone());
        }
        now = Time(now.0 + 10_000);
        while worker.poll(now) != 0 {}
        while let Some((_, frame)) = memory(&mut worker, WAN).take() {
            let router = usize::from(frame[5]).wrapping_sub(7);
            match seen.sent.get(router) {
                Some(count) if allowed & 1 << router != 0 => count.fetch_add(1, Relaxed),
                _ => seen.astray.fetch_add(1, Relaxed),
            };
        }
        // What went wrong is in the counters.
        while memory(&mut worker, LAN).take().is_some() {}
        seen.put.fetch_add(64, Relaxed);
    }
    worker
}

fn memory(worker: &mut Worker, port: PortId) -> &mut Memory {
    let lane = worker.lanes.iter_mut().find(|lane| lane.port == port);
    match lane.map(|lane| &mut lane.driver) {
        Some(Port::Memory(memory)) => memory,
        _ => unreachable!("both ports are in memory"),
    }
}

/// Control, and the host that it mirrors.
struct Control {
    config: Config,
    host: Host,
    plan: Plan,
    resolver: Resolver,
}

impl Control {
    fn new() -> Self {
        let config: Config = FILE.parse().expect("it is legal");
        let host = offline::host(&config);
        let mut plan = Plan::default();
        let delta = plan.renew(&config, &host);
        let mut resolver = Resolver::new().expect("there is memory");
        resolver.update(&config, &mut plan, &delta, &mut |_, _| true).expect("it fits");
        Self { config, host, plan, resolver }
    }

    fn worker(&self, umem: &Umem) -> (Worker, Arc<Page>) {
        let ports = self.plan.ports.len();
        let tally = Tally::new(Room { ports, adjacencies: Resolver::MOST, ..Room::default() });
        let page = tally.page();
        let slow = Slow::new(Limiter::new(1000), Outlets::none(), Wanted::nobody());
        let pipeline = Pipeline::new(Shaper::new(ports, QUEUE_LIMIT), tally);
        let stock = Stock::new(umem.pool(64, 256), umem.chunks());
        let mut worker = Worker::new(stock, pipeline, slow, self.resolver.published().reader());
        for port in [LAN, WAN] {
            worker.open(Lane::interface(port, 0, Port::Memory(Memory::new())));
        }
        (worker, page)
    }

    /// The kernel's routes become these, all by one router.
    fn replace(&mut self, table: &[IpNet], router: Router) {
        let key = |prefix| RouteKey { table: 254, prefix, tos: 0, metric: 20 };
        let mut changes = Changes::default();
        changes.routes.extend(self.host.routes.keys().copied());
        self.host.routes.clear();
        for &prefix in table {
            let hop = KernelHop { ifindex: Some(WAN_INDEX), gateway: Some(router.address(prefix)), weight: 1 };
            let route = MirroredRoute {
                protocol: 186,
                kind: RouteKind::Unicast,
                next_hops: vec![hop],
                next_hop_id: None,
                prefsrc: None,
            };
            self.host.routes.insert(key(prefix), Arc::new(route));
        }
        changes.routes.extend(self.host.routes.keys().copied());
        let Self { config, host, plan, resolver } = self;
        let delta = plan.follow(config, host, &changes);
        resolver.update(config, plan, &delta, &mut wait).expect("it fits");
    }

    /// Octets of both tables that lookups reach, and those that wait for readers.
    fn usage(&self) -> ([usize; 2], [usize; 2]) {
        let usage = self.resolver.usage();
        (usage.map(|usage| usage.used_bytes), usage.map(|usage| usage.retired_bytes))
    }
}

/// As a gateway waits for its workers.
fn wait(published: &Published<Tables>, version: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !published.passed(version) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Each prefix as its two halves: none of the addresses is lost, and none of the prefixes stays.
fn halves(table: &[IpNet]) -> Vec<IpNet> {
    let split = |net: &IpNet| -> Vec<IpNet> {
        net.subnets(net.prefix_len() + 1).map_or_else(|_| vec![*net], |halves| halves.collect())
    };
    let all: BTreeSet<IpNet> = table.iter().flat_map(split).collect();
    all.into_iter().collect()
}

/// Some of the real routes of a family, without those that are for the gateway or for nobody.
fn real<A: Family>(
    routes: Vec<Route<A>>,
    count: usize,
    net: impl Fn(Route<A>) -> IpNet,
) -> (Vec<Route<A>>, Vec<IpNet>) {
    let mut routes = routes;
    Random::new(0x5a4b).shuffle(&mut routes);
    routes.truncate(count);
    let nets = routes.iter().map(|route| net(*route)).collect();
    (routes, nets)
}

/// A frame from the client to each of the destinations.
fn frames(destinations: impl IntoIterator<Item = IpAddr>) -> Vec<Vec<u8>> {
    let frame = |destination| {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 0, 1]);
        let mut frame = Vec::new();
        let written = match destination {
            IpAddr::V4(to) => {
                ethernet.ipv4([198, 18, 1, 10], to.octets(), 64).udp(4000, 5000).write(&mut frame, &[7; 18])
            }
            IpAddr::V6(to) => {
                let from = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
                ethernet.ipv6(from, to.octets(), 64).udp(4000, 5000).write(&mut frame, &[7; 18])
            }
        };
        written.expect("a Vec takes everything");
        frame
    };
    destinations.into_iter().map(frame).collect()
}

#[test]
fn a_full_table_is_swapped_while_a_worker_forwards_and_no_packet_is_lost() {
    let (v4, nets4) = real(routes::internet_v4(), 120_000, |(prefix, _)| Ipv4Net::from(prefix).into());
    let (v6, nets6) = real(routes::internet_v6(), 40_000, |(prefix, _)| Ipv6Net::from(prefix).into());
    let table = [nets4, nets6].concat();
    let defaults = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let v4: Vec<u32> = Pattern::PrefixUniform.destinations(&v4, 1 << 14);
    let v6: Vec<u128> = Pattern::PrefixUniform.destinations(&v6, 1 << 14);
    let each =
        v4.into_iter().zip(v6).flat_map(|(v4, v6)| [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())]);
    let frames = frames(each);

    let mut control = Control::new();
    let empty = control.usage();
    control.replace(&table, Router::Seven);
    let first = control.usage();
    let umem = Umem::new(4096, ChunkSize::Octets2048).expect("a few megabytes are there");
    let (worker, page) = control.worker(&umem);
    let seen = Seen { allowed: bit(Router::Seven).into(), ..Seen::default() };
    let sound = |what: &str| {
        let totals = Totals::of([&*page]);
        let drops: Vec<_> = totals.drops_by_name().collect();
        let astray = seen.astray.load(Relaxed);
        assert!(drops.is_empty() && astray == 0, "{what}: {drops:?}, {astray} astray");
    };
    let worker = std::thread::scope(|scope| {
        let worker = scope.spawn(|| forward(worker, &frames, &seen));
        // Whatever fails here, the thread has to end.
        let swaps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seen.await_more(frames.len() as u64);
            sound("before");
            let halves = halves(&table);
            let steps = [
                ("the same prefixes by the other router", &table, Router::Eight),
                ("more specific prefixes", &halves, Router::Seven),
                ("less specific prefixes", &table, Router::Eight),
                ("one default route", &defaults, Router::Seven),
                ("a full table for a default route", &table, Router::Eight),
                ("and back", &table, Router::Seven),
            ];
            for (what, table, router) in steps {
                let old = seen.allowed.load(Relaxed);
                seen.allowed.store(old | bit(router), Relaxed);
                // A round whose packets may still have been judged by the smaller set is over.
                seen.await_more(2 * 64);
                let before = seen.put.load(Relaxed);
                control.replace(table, router);
                let during = seen.put.load(Relaxed) - before;
                assert!(during > 64, "{what}: nothing was forwarded while it was swapped");
                seen.await_more(2 * 64);
                seen.allowed.store(bit(router), Relaxed);
                let sent = seen.of(router);
                seen.await_more(frames.len() as u64);
                sound(what);
                assert!(seen.of(router) > sent, "{what}: nothing goes by it");
                assert_eq!(control.usage().1, [0, 0], "{what}: what was replaced is given back");
            }
            assert_eq!(control.usage(), first, "the same table takes the same memory");
            seen.allowed.store(bit(Router::Seven), Relaxed);
        }));
        seen.over.store(true, Relaxed);
        let worker = worker.join().expect("the worker does not panic");
        if let Err(panic) = swaps {
            std::panic::resume_unwind(panic);
        }
        worker
    });

    let totals = Totals::of([&*page]);
    assert!(totals.balances() && totals.queued == 0, "{totals:?}");
    assert_eq!((totals.received, totals.forwarded), (seen.put.load(Relaxed), seen.put.load(Relaxed)), "{totals:?}");
    drop(worker);
    control.replace(&[], Router::Seven);
    assert_eq!(control.usage(), empty, "and none takes none");
}
