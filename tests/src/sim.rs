//! A world in virtual time: two gateways joined by a VXLAN tunnel over an underlay that behaves as badly as it is told
//! to, with smoltcp hosts at the edges. The same seed gives the same run, to the octet and the nanosecond.
//!
//! ```text
//! host 0 ──── lan0 [gateway 0] wan0 ════ underlay ════ wan0 [gateway 1] lan0 ──── host 1
//! 198.18.1.10     .1      192.0.2.1                 192.0.2.2      .1     198.18.2.10
//! 2001:db8:1::10  ::1   2001:db8:f::1             2001:db8:f::2   ::1  2001:db8:2::10
//! ```
//!
//! The gateways are [`Simulated`]: the pipeline, slow path, plan and table changes of `penstock run`, on memory drivers
//! inside [`Faulty`]. There is no ARP and no Neighbour Discovery: those are the kernel's.

mod host;

pub use host::{Host, pattern};

use crate::frames::decode;
use crate::memory::memory;
use crate::site::Underlay;
use dataplane::config::Config;
use dataplane::control::offline;
use dataplane::io::{Faults, Faulty, Port};
use dataplane::packet::{DropReason, PortId, Time};
use dataplane::simulate::Simulated;
use dataplane::stats::Totals;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use xsk::Umem;

/// The interface to the hosts.
pub const LAN: PortId = PortId(0);
/// The interface to the underlay.
pub const WAN: PortId = PortId(1);
/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
/// From one end of a link to the other, nanoseconds.
const LATENCY: u64 = 50_000;
/// Frames arrive at multiples of this, so that what was sent together is received together, nanoseconds.
const GRID: u64 = 10_000;
/// How long something may take before it counts as never, nanoseconds.
const PATIENCE: u64 = 600 * Time::SECOND;
/// Between two polls of a gateway in which something waits, nanoseconds.
const ROUND: u64 = 100_000;

/// What the underlay does to frames, in 1/1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// A frame does not arrive.
    pub loss: u32,
    /// A frame arrives up to a millisecond late, behind others.
    pub delay: u32,
    /// A bit of a frame changes.
    pub corrupt: u32,
    /// A frame arrives twice.
    pub twice: u32,
}

/// What a world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// All chance follows from it.
    pub seed: u64,
    /// What carries the tunnel.
    pub underlay: Underlay,
    /// MTU of hosts and LANs, octets.
    pub lan_mtu: u16,
    /// MTU of the underlay, octets.
    pub wan_mtu: u16,
    /// Between the gateways.
    pub weather: Weather,
    /// In the gateways' LAN drivers.
    pub lan_faults: Faults,
    /// In the gateways' WAN drivers.
    pub wan_faults: Faults,
    /// Packet memory of each gateway, in chunks.
    pub chunks: usize,
    /// Gateways forget each other's MAC now and then in the first seconds, and learn it again.
    pub flapping: bool,
}

impl Setting {
    /// Nothing goes wrong: Ethernet everywhere.
    pub const fn calm(seed: u64, underlay: Underlay) -> Self {
        let none = Faults { corrupt: 0, cut: 0, reorder: 0, jam: 0 };
        Self {
            seed,
            underlay,
            lan_mtu: 1500,
            wan_mtu: 1500,
            weather: Weather { loss: 0, delay: 0, corrupt: 0, twice: 0 },
            lan_faults: none,
            wan_faults: none,
            chunks: PLENTY,
            flapping: false,
        }
    }

    /// Jumbo frames everywhere.
    pub const fn jumbo(self) -> Self {
        Self { lan_mtu: 9000, wan_mtu: 9000, ..self }
    }

    /// Whether an octet may be changed on the way.
    const fn corrupts(&self) -> bool {
        self.weather.corrupt != 0 || self.wan_faults.corrupt != 0 || self.lan_faults.corrupt != 0
    }

    /// Whether what one host sends reaches the other unless a gateway has a reason.
    const fn is_calm(&self) -> bool {
        !self.corrupts()
            && self.weather.loss == 0
            && self.wan_faults.cut == 0
            && self.lan_faults.cut == 0
            && self.chunks >= PLENTY
            && !self.flapping
    }

    /// The longest packet that passes the tunnel, octets.
    pub const fn path_mtu(&self) -> usize {
        let tunnel = self.wan_mtu - self.underlay.overhead();
        if tunnel < self.lan_mtu { tunnel as usize } else { self.lan_mtu as usize }
    }
}

/// Chunks that no run uses up.
const PLENTY: usize = 2048;

/// A gateway, and what went in and out of it by our own count.
pub struct Gateway {
    simulated: Simulated,
    umem: Umem,
    known: Config,
    unknown: Config,
    given: u64,
    taken: u64,
}

impl Gateway {
    fn new(at: usize, setting: &Setting) -> Self {
        let known: Config = text(at, setting, true).parse().expect("the file is legal");
        let unknown: Config = text(at, setting, false).parse().expect("the file is legal");
        let umem = memory(at, setting.chunks);
        let mut seed = setting.seed.wrapping_mul(4).wrapping_add(2 * at as u64);
        let driver = |port: PortId, driver: Port| {
            seed = seed.wrapping_add(1);
            let faults = if port == LAN { setting.lan_faults } else { setting.wan_faults };
            Port::Faulty(Box::new(Faulty::new(driver, faults, seed)))
        };
        let simulated =
            Simulated::with(&known, &offline::host(&known), &umem, driver).expect("there is memory for tables");
        Self { simulated, umem, known, unknown, given: 0, taken: 0 }
    }

    /// Where its packets went.
    pub fn totals(&self) -> Totals {
        self.simulated.totals()
    }

    /// Chunks that are in packets: queued, held, or kept back by a driver.
    fn in_packets(&self) -> usize {
        self.umem.account().with_pool(&self.simulated.worker.stock.frames).in_packets()
    }

    fn sent(&mut self, port: PortId) -> Option<Vec<u8>> {
        let (_, frame) = self.simulated.sent(port)?;
        self.taken += 1;
        Some(frame)
    }
}

/// Where a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Host(usize),
    Lan(usize),
    Wan(usize),
    /// No frame: the gateway knows, or does not, who is at the other end of the underlay.
    Neighbour(usize, bool),
}

/// A moment, a number that keeps order among equals, and what happens then.
type Arrival = Reverse<(u64, u64, End, Vec<u8>)>;

/// Everything. Dropped by a panic, it says how to make the same again.
pub struct World {
    setting: Setting,
    /// The hosts.
    pub hosts: [Host; 2],
    /// The gateways.
    pub gateways: [Gateway; 2],
    arrivals: BinaryHeap<Arrival>,
    number: u64,
    now: u64,
    random: Random,
    sequence: u16,
    most_queued: u64,
}

impl World {
    /// As in the setting.
    pub fn new(setting: Setting) -> Self {
        let mut random = Random(setting.seed);
        let hosts = [1, 2].map(|net| Host::new(net, setting.lan_mtu, random.next()));
        let gateways = [0, 1].map(|at| Gateway::new(at, &setting));
        let arrivals = BinaryHeap::new();
        // Not at zero: what is due "at once" lies before now.
        let mut world =
            Self { setting, hosts, gateways, arrivals, number: 0, now: 1_000_000, random, sequence: 0, most_queued: 0 };
        if setting.flapping {
            (0..2).for_each(|at| world.plan_flaps(at));
        }
        world
    }

    /// A gateway forgets the other's MAC four times, at most for longer than a packet waits.
    fn plan_flaps(&mut self, at: usize) {
        let mut moment = self.now;
        for known in [false, true].repeat(4) {
            moment += self.random.below(if known { Time::SECOND * 3 / 2 } else { Time::SECOND / 4 });
            self.arrive(moment, End::Neighbour(at, known), Vec::new());
        }
    }

    /// Virtual time since the start.
    pub const fn now(&self) -> Time {
        Time(self.now)
    }

    /// Nobody begins anything for so many nanoseconds.
    pub fn wait(&mut self, ns: u64) {
        self.run(self.now + ns, |_| false);
    }

    /// Pings from one host to the other with a packet of `length` octets, smaller if a router says so, again if it
    /// gets lost. Returns how long the packet was that was answered.
    #[track_caller]
    pub fn ping(&mut self, from: usize, is_v6: bool, length: usize) -> usize {
        let to = self.hosts[1 - from].address(is_v6);
        let mut length = length;
        for _ in 0..TRIES {
            self.sequence += 1;
            let sequence = self.sequence;
            self.hosts[from].told_mtu = None;
            self.hosts[from].send_ping(to, sequence, length);
            let end = self.now + Time::SECOND / 2;
            let mut answered = false;
            self.run(end, |world| {
                answered = world.hosts[from].has_answer(to, sequence);
                answered || world.hosts[from].told_mtu.is_some()
            });
            if answered {
                return length;
            }
            match self.hosts[from].told_mtu {
                Some(mtu) => {
                    assert!((mtu as usize) < length, "{length} octets are too long for {mtu}?");
                    length = mtu as usize;
                }
                None => assert!(!self.setting.is_calm(), "no answer to a ping of {length} octets: {}", self.state()),
            }
        }
        panic!("no answer to {TRIES} pings of {length} octets: {}", self.state());
    }

    /// Opens a connection from one host to the other and sends so many octets each way at once; they arrive as they
    /// were.
    #[track_caller]
    pub fn transfer(&mut self, from: usize, is_v6: bool, octets: usize) {
        self.sequence += 1;
        let (source, destination) = (40_000 + self.sequence, 80 + self.sequence);
        let to = self.hosts[1 - from].address(is_v6);
        let server = self.hosts[1 - from].listen(destination);
        let client = self.hosts[from].connect(to, (source, destination));
        let mut flows = [(from, client), (1 - from, server)].map(|(host, handle)| Flow {
            host,
            handle,
            sends: pattern(host + 1, octets),
            sent: 0,
            received: Vec::new(),
        });
        let done = self.run(self.now + PATIENCE, |world| {
            for flow in &mut flows {
                flow.go_on(&mut world.hosts);
            }
            flows.iter().all(|flow| flow.received.len() >= octets && flow.sent == octets)
        });
        let arrived = [&flows[0], &flows[1]].map(|flow| flow.received.len());
        assert!(done, "{arrived:?} of {octets} octets arrived: {}", self.state());
        for flow in &flows {
            // Not by assert_eq: nobody reads a hundred thousand octets.
            let good = flow.received == pattern(2 - flow.host, octets);
            assert!(good, "host {} received something else: {}", flow.host, self.state());
            self.hosts[flow.host].close(flow.handle);
        }
    }

    /// What is on its way arrives, what waits goes; then every packet has had one fate and every frame is back.
    #[track_caller]
    pub fn settle(&mut self) -> [Totals; 2] {
        self.run(self.now + PATIENCE, |world| world.is_quiet());
        assert!(self.is_quiet(), "packets go on waiting: {}", self.state());
        for gateway in &self.gateways {
            let totals = gateway.totals();
            assert!(totals.balances(), "{}", self.state());
            let counted = (totals.received, totals.forwarded, totals.queued);
            assert_eq!(counted, (gateway.given, gateway.taken, 0), "received, forwarded, queued: {}", self.state());
            let free = gateway.umem.free() + gateway.simulated.worker.stock.frames.free();
            assert_eq!(free, self.setting.chunks, "every frame is back in the pools: {}", self.state());
        }
        [self.gateways[0].totals(), self.gateways[1].totals()]
    }

    /// How often a gateway dropped for a reason, both together.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.gateways.iter().map(|gateway| gateway.totals().drops[reason as usize]).sum()
    }

    /// How many packets have waited in a gateway at most, between two events.
    pub const fn most_queued(&self) -> u64 {
        self.most_queued
    }

    fn is_quiet(&self) -> bool {
        self.arrivals.is_empty() && self.gateways.iter().all(|gateway| gateway.in_packets() == 0)
    }

    /// Time goes on until `done` says so, which is asked after each event; `false`: not before `end`.
    fn run(&mut self, end: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.exchange();
            if done(self) {
                return true;
            }
            // What `done` did may be due now.
            let next = self.next_event();
            match next {
                Some(next) if next <= end => self.now = next,
                _ => {
                    self.now = end;
                    return false;
                }
            }
        }
    }

    /// When something happens next.
    fn next_event(&mut self) -> Option<u64> {
        let now = self.now;
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let hosts = self.hosts.iter_mut().filter_map(|host| host.due(now).map(|due| due.max(now + 1_000)));
        let gateways = self.gateways.iter().filter(|gateway| gateway.in_packets() != 0).map(|_| now + ROUND);
        arrival.into_iter().chain(hosts).chain(gateways).min()
    }

    /// Everything that is due now happens.
    fn exchange(&mut self) {
        let now = self.now;
        while let Some(Reverse((at, ..))) = self.arrivals.peek()
            && *at <= now
            && let Some(Reverse((_, _, end, frame))) = self.arrivals.pop()
        {
            match end {
                End::Host(at) => self.hosts[at].receive(&frame),
                End::Lan(at) => self.give(at, LAN, frame),
                End::Wan(at) => self.give(at, WAN, frame),
                End::Neighbour(at, known) => self.learn(at, known),
            }
        }
        for gateway in &mut self.gateways {
            gateway.simulated.poll(Time(now));
        }
        let queued = self.gateways.iter().map(|gateway| gateway.totals().queued).max();
        self.most_queued = self.most_queued.max(queued.unwrap_or(0));
        for host in &mut self.hosts {
            host.poll(now);
        }
        for at in 0..2 {
            while let Some(packet) = self.hosts[at].sent() {
                self.arrive(now + LATENCY, End::Lan(at), framed(at, &packet));
            }
            while let Some(frame) = self.gateways[at].sent(LAN) {
                self.look_at(&frame, self.setting.lan_mtu, self.setting.corrupts());
                self.arrive(now + LATENCY, End::Host(at), frame);
            }
            while let Some(frame) = self.gateways[at].sent(WAN) {
                // Octets change on the underlay and behind it, so what enters it is right but for LAN faults.
                self.look_at(&frame, self.setting.wan_mtu, self.setting.lan_faults.corrupt != 0);
                self.look_outside(&frame);
                self.cross(End::Wan(1 - at), frame);
            }
        }
    }

    fn give(&mut self, at: usize, port: PortId, frame: Vec<u8>) {
        self.gateways[at].given += 1;
        self.gateways[at].simulated.advance(Time(self.now));
        self.gateways[at].simulated.put(port, frame);
    }

    fn learn(&mut self, at: usize, known: bool) {
        let gateway = &mut self.gateways[at];
        gateway.simulated.advance(Time(self.now));
        let config = if known { &gateway.known } else { &gateway.unknown };
        gateway.simulated.update(config, &offline::host(config)).expect("it is no larger than before");
    }

    /// A gateway sends nothing that is too long or, where nobody has touched it, wrong.
    fn look_at(&self, frame: &[u8], mtu: u16, touched: bool) {
        assert!(frame.len() <= usize::from(mtu) + ETHERNET, "{} octets on a link of {mtu}", frame.len());
        if !touched && let Err(wrong) = decode(frame) {
            panic!("a gateway sent a wrong frame ({wrong:?}): {frame:02x?}");
        }
    }

    /// Nothing is in clear on the underlay, and over IPv6 a checksum covers all of it (RFC 6935 lets tunnels do without,
    /// Linux does not).
    fn look_outside(&self, frame: &[u8]) {
        if self.setting.corrupts() {
            return;
        }
        let ip = decode(frame).ok().and_then(|frame| frame.ip);
        let outer = ip.filter(|ip| ip.vxlan.is_some()).unwrap_or_else(|| panic!("in clear: {frame:02x?}"));
        assert_eq!(outer.payload[6..8] != [0, 0], self.setting.underlay == Underlay::V6, "outer checksum");
    }

    /// A frame goes over the underlay, whatever the weather.
    fn cross(&mut self, end: End, mut frame: Vec<u8>) {
        let weather = self.setting.weather;
        let copies = if self.random.happens(weather.twice) { 2 } else { 1 };
        if self.random.happens(weather.loss) {
            return;
        }
        if self.random.happens(weather.corrupt) {
            let (at, bit) = (self.random.below(frame.len() as u64) as usize, self.random.below(8));
            frame[at] ^= 1 << bit;
        }
        for _ in 0..copies {
            let delay = if self.random.happens(weather.delay) { self.random.below(1_000_000) } else { 0 };
            self.arrive(self.now + LATENCY + delay, end, frame.clone());
        }
    }

    fn arrive(&mut self, at: u64, end: End, frame: Vec<u8>) {
        self.number += 1;
        self.arrivals.push(Reverse((at.next_multiple_of(GRID), self.number, end, frame)));
    }

    /// For messages.
    fn state(&self) -> String {
        let gateway = |at: usize| {
            let gateway = &self.gateways[at];
            let drops: Vec<_> = gateway.totals().drops_by_name().map(|(r, n)| format!("{} {n}", r.name())).collect();
            let (given, taken, packets) = (gateway.given, gateway.taken, gateway.in_packets());
            format!(
                "gateway {at}: given {given}, taken {taken}, frames in packets {packets}, {:?}, drops {drops:?}",
                gateway.totals()
            )
        };
        format!("at {} ns\n  {}\n  {}", self.now, gateway(0), gateway(1))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: the same again with {:?}", self.setting.seed, self.setting);
        }
    }
}

/// Pings before one counts as never answered.
const TRIES: usize = 40;

/// One end of a connection.
struct Flow {
    host: usize,
    handle: smoltcp::iface::SocketHandle,
    sends: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

impl Flow {
    fn go_on(&mut self, hosts: &mut [Host; 2]) {
        let socket = hosts[self.host].tcp(self.handle);
        if socket.can_send() && self.sent < self.sends.len() {
            self.sent += socket.send_slice(&self.sends[self.sent..]).expect("it can send");
        }
        while socket.can_recv() {
            let taken = |octets: &mut [u8]| (octets.len(), octets.to_vec());
            self.received.extend(socket.recv(taken).expect("it can receive"));
        }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille != 0 && self.below(1_000) < per_mille.into()
    }
}

/// A host's packet on its way to its gateway.
fn framed(at: usize, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    let (to, from) = ([2, 0, 0, 0, at as u8, 1], [2, 0, 0, 0, at as u8, 10]);
    [&to[..], &from, &ethertype, packet].concat()
}

/// The file of a gateway; `known`: with the MAC of the other one.
fn text(at: usize, setting: &Setting, known: bool) -> String {
    let (own, other) = (at + 1, 2 - at);
    let prefix = match setting.underlay {
        Underlay::V4 => "192.0.2.",
        Underlay::V6 => "2001:db8:f::",
    };
    let Setting { lan_mtu, wan_mtu, .. } = setting;
    let neighbour = |interface: &str, address: String, mac: String| {
        format!("[[neighbour]]\ninterface = \"{interface}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n")
    };
    let mut text = format!(
        r#"
        [gateway]
        icmp_errors = "100kpps"
        [interface.lan0]
        mac = "02:00:00:00:0{at}:01"
        mtu = {lan_mtu}
        address = ["198.18.{own}.1/24", "2001:db8:{own}::1/64"]
        [interface.wan0]
        mac = "02:00:00:00:0{at}:02"
        mtu = {wan_mtu}
        address = ["192.0.2.{own}/24", "2001:db8:f::{own}/64"]
        [tunnel.peer]
        type = "vxlan"
        vni = 5001
        local = "{prefix}{own}"
        remote = "{prefix}{other}"
        mac = "02:00:00:00:ff:0{own}"
        remote_mac = "02:00:00:00:ff:0{other}"
        [[route]]
        prefix = "198.18.{other}.0/24"
        via = [{{ tunnel = "peer" }}]
        [[route]]
        prefix = "2001:db8:{other}::/64"
        via = [{{ tunnel = "peer" }}]
        "#
    );
    let host = format!("02:00:00:00:0{at}:0a");
    text += &neighbour("lan0", format!("198.18.{own}.10"), host.clone());
    text += &neighbour("lan0", format!("2001:db8:{own}::10"), host);
    if known {
        text += &neighbour("wan0", format!("{prefix}{other}"), format!("02:00:00:00:0{}:02", 1 - at));
    }
    text
}
