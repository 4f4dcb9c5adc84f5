//! What the tests of the core share: packets by etherparse, and a gateway in memory.
//!
//! ```text
//!            lan0 203.0.113.1  ┌─────────┐  wan0 192.0.2.1  ── router ── 198.51.100.0/24, 2001:db8:100::/48
//!  203.0.113.9 ────────────────┤ gateway ├──── aws-a: VXLAN over IPv4 ── 10.20.0.0/16, 2001:db8:20::/48
//!            lan0.7 (tagged)   └─────────┘──── aws-b: VXLAN over IPv6 ── 10.21.0.0/16, 2001:db8:21::/48
//! ```

use crate::fib::Fib;
use crate::io::{Memory, Outlet, Outlets, Port as Driver};
use crate::packet::{AdjacencyId, DropReason, Family, FlowHash, Packet, PortId, Stock, Time, TunnelId, Vrf};
use crate::pipeline::Pipeline;
use crate::qos::Shaper;
use crate::slow::{Limiter, Slow, Wanted};
use crate::stats::{Page, Room, Tally, Totals};
use crate::tables::{
    Adjacencies, Adjacency, Classifier, Locals, Policing, Port, PortKind, Ports, Published, Resolution, ReversePath,
    Tables, published,
};
use crate::tunnel::{Ends, Kind, Outer, Tunnel, Tunnels, Vxlan};
use crate::worker::{Lane, Worker};
use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder};
use lpm::{Limits, Prefix4, Prefix6, Value, Writer4, Writer6};
use std::net::IpAddr;
use std::sync::Arc;
use wire::{EtherType, Mac, Rewrite, Vni};
use xsk::{ChunkSize, Umem};

/// Chunks of a test's memory.
pub const CHUNKS: usize = 512;

thread_local! {
    // A UMEM is never unmapped, so the cases of a property share one.
    static UMEM: Umem = Umem::new(CHUNKS, ChunkSize::Octets2048).expect("a megabyte is there");
}

/// This thread's memory.
pub fn umem() -> Umem {
    UMEM.with(|umem| *umem)
}

/// Frames and boxes of this thread's memory.
pub fn stock() -> Stock {
    Stock::new(umem().pool(8, 64), 64)
}

/// Calls `test` with an IP packet that stands `before` octets into its frame, not parsed yet. The frame is put back.
pub fn with_ip<T>(before: usize, ip: &[u8], test: impl FnOnce(&mut Packet) -> T) -> T {
    let frame = [vec![0; before], ip.to_vec()].concat();
    with_frame(&[&frame], |packet| {
        packet.l3 = before as u16;
        packet.family = if ip.first().is_some_and(|first| first >> 4 == 6) { Family::V6 } else { Family::V4 };
        test(packet)
    })
}

/// Calls `test` with a frame of these chunks. The frame is put back.
pub fn with_frame<T>(chunks: &[&[u8]], test: impl FnOnce(&mut Packet) -> T) -> T {
    let mut stock = stock();
    let mut frame = xsk::Frame::empty();
    for chunk in chunks {
        let mut next = stock.frames.take().expect("the test's memory has more");
        assert!(next.extend(chunk), "a chunk holds that much");
        frame.chain(next);
    }
    let mut packet = stock.wrap(frame, LAN, false, Time(0));
    let result = test(&mut packet);
    stock.put(packet);
    drop(stock);
    assert_eq!(umem().free(), CHUNKS, "every frame is back");
    result
}

/// All octets of a packet's frame.
pub fn octets(packet: &Packet) -> Vec<u8> {
    packet.frame.segments().flatten().copied().collect()
}

/// A UDP datagram in IPv4 from the client to `to`.
pub fn udp_v4(to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(CLIENT_V4, to, 64).udp(4000, 9);
    written(builder, payload)
}

/// A UDP datagram in IPv6 from the client to `to`.
pub fn udp_v6(to: &str, payload: &[u8]) -> Vec<u8> {
    written(PacketBuilder::ipv6(v6(CLIENT_V6), v6(to), 64).udp(4000, 9), payload)
}

/// An IPv4 packet of protocol 253 with a header of the test's making.
pub fn raw_v4(to: [u8; 4], payload: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut header = Ipv4Header {
        total_len: 0,
        time_to_live: 64,
        protocol: etherparse::IpNumber(253),
        source: CLIENT_V4,
        destination: to,
        identification: 77,
        dont_fragment: false,
        fragment_offset: IpFragOffset::ZERO,
        ..Ipv4Header::default()
    };
    change(&mut header);
    header.total_len = (header.header_len() + payload.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// The packet in an Ethernet frame from the client to lan0.
pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    framed(LAN_MAC, CLIENT_MAC, ip)
}

/// The packet in an Ethernet frame.
pub fn framed(to: [u8; 6], from: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if ip[0] >> 4 == 6 { EtherType::IPV6 } else { EtherType::IPV4 };
    [&to[..], &from, &ethertype.to_be_bytes(), ip].concat()
}

/// A transport header and payload behind the headers that the builder has.
pub fn written(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    builder.write(&mut octets, payload).expect("the payload fits");
    octets
}

/// An IPv6 address.
pub fn v6(address: &str) -> [u8; 16] {
    address.parse::<std::net::Ipv6Addr>().expect("an address of the test").octets()
}

pub const LAN: PortId = PortId(0);
pub const WAN: PortId = PortId(1);
pub const VLAN: PortId = PortId(2);
pub const TAP: PortId = PortId(3);
pub const AWS_A: TunnelId = TunnelId(0);
pub const AWS_B: TunnelId = TunnelId(1);

pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 9];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 254];
pub const TUNNEL_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

pub const CLIENT_V4: [u8; 4] = [203, 0, 113, 9];
pub const CLIENT_V6: &str = "2001:db8:2::9";
pub const LAN_V4: [u8; 4] = [203, 0, 113, 1];
pub const LAN_V6: &str = "2001:db8:2::1";
pub const WAN_V4: [u8; 4] = [192, 0, 2, 1];
pub const WAN_V6: &str = "2001:db8:1::1";
/// Behind the router.
pub const FAR_V4: [u8; 4] = [198, 51, 100, 77];
pub const FAR_V6: &str = "2001:db8:100::77";
/// Behind the tunnels.
pub const SITE_A_V4: [u8; 4] = [10, 20, 0, 7];
pub const SITE_A_V6: &str = "2001:db8:20::7";
pub const SITE_B_V4: [u8; 4] = [10, 21, 0, 7];
pub const REMOTE_V4: [u8; 4] = [198, 51, 100, 7];
pub const REMOTE_V6: &str = "2001:db8:100::7";

pub const VNI_A: u32 = 5001;
pub const VNI_B: u32 = 5002;
/// Inner MTU of the tunnels over an underlay of 1,500.
pub const MTU_A: u16 = 1450;
pub const MTU_B: u16 = 1430;

/// Adjacencies by what they are for.
pub mod to {
    pub const LOCAL: u32 = 1;
    pub const LAN_LINK: u32 = 2;
    pub const CLIENT: u32 = 3;
    pub const ROUTER: u32 = 4;
    pub const AWS_A: u32 = 5;
    pub const AWS_B: u32 = 6;
    pub const BLACKHOLE: u32 = 7;
    pub const UNREACHABLE: u32 = 8;
    pub const PROHIBITED: u32 = 9;
    pub const FAILED: u32 = 10;
    pub const WAITING: u32 = 11;
    pub const KERNEL: u32 = 12;
    pub const VLAN_CLIENT: u32 = 13;
    pub const DEVICE_A: u32 = 14;
    pub const NARROW: u32 = 15;
}

/// The VXLAN tunnels of the picture.
pub fn outer(tunnel: TunnelId) -> Outer {
    let parse = |address: &str| address.parse().expect("an address of the test");
    let (local, remote) = if tunnel == AWS_A {
        (IpAddr::from(WAN_V4), IpAddr::from(REMOTE_V4))
    } else {
        (parse(WAN_V6), parse(REMOTE_V6))
    };
    Outer {
        ends: Ends::new(Vrf::DEFAULT, local, remote).expect("of one family"),
        dscp: None,
        copy_ecn: true,
        ttl: Some(64),
        df: Some(true),
        udp_checksum: tunnel == AWS_B,
    }
}

/// Its type.
pub fn kind(tunnel: TunnelId) -> Kind {
    let vni = Vni::new(if tunnel == AWS_A { VNI_A } else { VNI_B }).expect("24 bits");
    Kind::Vxlan(Vxlan { vni, port: wire::Vxlan::PORT })
}

/// Headers to the router, and a tunnel's behind them.
pub fn tunnel_rewrite(tunnel: TunnelId, outer: &Outer, inner: Option<([u8; 6], [u8; 6])>) -> Rewrite {
    let ethertype = if outer.ends.family() == Family::V4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let mut rewrite = link(ROUTER_MAC, WAN_MAC, ethertype);
    let inner = inner.map(|(to, from)| (Mac::new(to), Mac::new(from)));
    kind(tunnel).headers(outer, inner, &mut rewrite);
    rewrite
}

/// A plain Ethernet header.
pub fn link(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Rewrite {
    let mut rewrite = Rewrite::empty();
    rewrite.push(&to);
    rewrite.push(&from);
    rewrite.push(&ethertype.to_be_bytes());
    rewrite
}

/// The gateway of the picture, on memory drivers.
pub struct World {
    pub worker: Worker,
    /// A copy of what the worker reads, to be changed and published.
    pub tables: Tables,
    published: Published<Tables>,
    page: Arc<Page>,
    /// Counters of workers that it exchanges packets with.
    pub peers: Vec<Arc<Page>>,
    pub now: Time,
}

impl World {
    /// All neighbours known, no limit to ICMP errors that a test would meet.
    pub fn new() -> Self {
        Self::with(Limiter::new(1_000_000), |_| {})
    }

    /// With another rate of ICMP errors, and changes to what is read.
    pub fn with(limiter: Limiter, change: impl FnOnce(&mut Tables)) -> Self {
        let small = Limits { vrfs: 4, bytes: 1 << 20 };
        let mut v4 = Writer4::new(small).expect("a megabyte is there");
        let mut table6 = Writer6::new(small).expect("a megabyte is there");
        for (net, length, id) in [
            (CLIENT_V4, 24, to::LAN_LINK),
            (LAN_V4, 32, to::LOCAL),
            (WAN_V4, 32, to::LOCAL),
            ([198, 51, 100, 0], 24, to::ROUTER),
            ([10, 20, 0, 0], 16, to::AWS_A),
            ([10, 21, 0, 0], 16, to::AWS_B),
            ([10, 30, 0, 0], 16, to::BLACKHOLE),
            ([10, 31, 0, 0], 16, to::UNREACHABLE),
            ([10, 32, 0, 0], 16, to::PROHIBITED),
            ([10, 33, 0, 0], 16, to::FAILED),
            ([10, 34, 0, 0], 16, to::WAITING),
            ([10, 35, 0, 0], 16, to::KERNEL),
            ([10, 36, 0, 0], 16, to::VLAN_CLIENT),
            ([10, 37, 0, 0], 16, to::NARROW),
        ] {
            let prefix = Prefix4::containing(u32::from_be_bytes(net), length).expect("a length");
            v4.insert(0, prefix, value(id)).expect("there is room");
        }
        for (net, length, id) in [
            (CLIENT_V6, 64, to::LAN_LINK),
            (LAN_V6, 128, to::LOCAL),
            (WAN_V6, 128, to::LOCAL),
            ("2001:db8:100::", 48, to::ROUTER),
            ("2001:db8:20::", 48, to::AWS_A),
            ("2001:db8:21::", 48, to::AWS_B),
            ("2001:db8:37::", 48, to::NARROW),
        ] {
            let prefix = Prefix6::containing(u128::from_be_bytes(v6(net)), length).expect("a length");
            table6.insert(0, prefix, value(id)).expect("there is room");
        }
        let mut tables = Tables {
            generation: 1,
            hash: FlowHash::default(),
            ports: ports(),
            locals: locals(),
            tunnels: Tunnels::new(vec![tunnel(AWS_A), tunnel(AWS_B)]),
            classifier: Classifier::default(),
            policing: Policing::default(),
            fib: Fib { v4: v4.reader(), v6: table6.reader() },
            adjacencies: adjacencies(),
        };
        change(&mut tables);
        let published = published(tables.clone());
        let tally = Tally::new(Room { ports: 4, tunnels: 2, adjacencies: 32, rules: 8, policers: 2 });
        let page = tally.page();
        let mut outlets = Outlets::none();
        outlets.set_host(Outlet::Virtual);
        outlets.set_tunnel(AWS_A, Outlet::Virtual, true);
        let slow = Slow::new(limiter, outlets, Wanted::nobody());
        let pipeline = Pipeline::new(Shaper::new(4, 256), tally);
        let mut worker = Worker::new(stock(), pipeline, slow, published.reader());
        worker.open(Lane::interface(LAN, 0, Driver::Memory(Memory::new())));
        worker.open(Lane::interface(WAN, 0, Driver::Memory(Memory::new())));
        worker.open(Lane::device(TAP, Driver::Memory(Memory::new())));
        Self { worker, tables, published, page, peers: Vec::new(), now: Time(Time::SECOND) }
    }

    /// What the worker reads from its next round on.
    pub fn publish(&mut self, change: impl FnOnce(&mut Tables)) {
        change(&mut self.tables);
        self.tables.generation += 1;
        self.published.publish(self.tables.clone());
    }

    /// A frame arrives. It is looked at in the next round.
    pub fn put(&mut self, port: PortId, frame: Vec<u8>) {
        match &mut self.worker.lanes.iter_mut().find(|lane| lane.port == port).expect("a port of the picture").driver {
            Driver::Memory(memory) => memory.put(frame),
            _ => unreachable!("all ports are in memory"),
        }
    }

    /// A round.
    pub fn poll(&mut self) {
        self.worker.poll(self.now);
    }

    /// A frame arrives at lan0 and is dealt with.
    pub fn receive(&mut self, frame: Vec<u8>) {
        self.put(LAN, frame);
        self.poll();
    }

    /// The frames that were sent.
    pub fn sent(&mut self, port: PortId) -> Vec<Vec<u8>> {
        match &mut self.worker.lanes.iter_mut().find(|lane| lane.port == port).expect("a port of the picture").driver {
            Driver::Memory(memory) => std::iter::from_fn(|| memory.take()).map(|(_, frame)| frame).collect(),
            _ => unreachable!("all ports are in memory"),
        }
    }

    /// Where the packets are, of all workers.
    pub fn totals(&self) -> Totals {
        Totals::of([&self.page].into_iter().chain(&self.peers).map(|page| &**page))
    }

    /// The counters.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Every packet and every frame is somewhere, and nowhere else.
    #[track_caller]
    pub fn assert_balance(&self) {
        let totals = self.totals();
        assert!(totals.balances(), "{totals:?}");
        let account = umem().account().with_pool(&self.worker.stock.frames);
        assert!(account.in_packets() as u64 >= totals.queued, "{account:?} {totals:?}");
        if totals.queued == 0 {
            assert_eq!(account.in_packets(), 0, "{account:?} {totals:?}");
        }
    }

    /// The one drop that there was; `None` if there was none.
    ///
    /// # Panics
    ///
    /// If there were several.
    #[track_caller]
    pub fn only_drop(&self) -> Option<DropReason> {
        let drops: Vec<_> = self.totals().drops_by_name().collect();
        assert!(drops.len() <= 1 && drops.first().is_none_or(|drop| drop.1 == 1), "{drops:?}");
        drops.first().map(|drop| drop.0)
    }
}

impl Drop for World {
    /// What still waits goes back, so that the memory can be used again.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.now = Time(self.now.0 + 100 * Time::SECOND);
        self.poll();
        self.poll();
        assert_eq!(self.totals().queued, 0, "nothing waits for a hundred seconds");
    }
}

fn value(id: u32) -> Value {
    Value::new(id as u16).expect("small and not zero")
}

fn ports() -> Ports {
    let port = |kind, name: &str, mac, mtu, addresses: Vec<IpAddr>| Port {
        kind,
        name: name.into(),
        vrf: Vrf::DEFAULT,
        mac: Mac::new(mac),
        mtu,
        rpf: ReversePath::Off,
        addresses,
    };
    let device = PortKind::Tunnel { tunnel: AWS_A, into: AdjacencyId(to::DEVICE_A), ethernet: true };
    Ports::new(vec![
        port(PortKind::Interface, "lan0", LAN_MAC, 1500, vec![LAN_V4.into(), v6(LAN_V6).into()]),
        port(PortKind::Interface, "wan0", WAN_MAC, 1500, vec![WAN_V4.into(), v6(WAN_V6).into()]),
        port(PortKind::Vlan { parent: LAN, id: 7 }, "lan0.7", LAN_MAC, 1500, Vec::new()),
        port(device, "aws-a", TUNNEL_MAC, MTU_A, Vec::new()),
    ])
}

fn locals() -> Locals {
    let mut locals = Locals::default();
    for address in [IpAddr::from(LAN_V4), v6(LAN_V6).into(), WAN_V4.into(), v6(WAN_V6).into()] {
        locals.insert(Vrf::DEFAULT, address);
    }
    locals
}

/// A tunnel of the picture.
pub fn tunnel(id: TunnelId) -> Tunnel {
    Tunnel {
        name: if id == AWS_A { "aws-a" } else { "aws-b" }.into(),
        kind: kind(id),
        vrf: Vrf::DEFAULT,
        ends: outer(id).ends,
        mtu: if id == AWS_A { MTU_A } else { MTU_B },
        clamp: true,
        mac: Mac::new(TUNNEL_MAC),
        has_device: id == AWS_A,
        allowed_sources: None,
        addresses: Vec::new(),
    }
}

/// An adjacency that is ready.
pub fn ready(egress: PortId, queue: PortId, tunnel: TunnelId, mtu: u16) -> Adjacency {
    let clamp = tunnel != TunnelId::NONE;
    Adjacency { generation: 1, egress, queue, tunnel, mtu, clamp, ..Adjacency::of(Resolution::Ready) }
}

fn adjacencies() -> Adjacencies {
    let none = TunnelId::NONE;
    let mut all = Adjacencies::new();
    for (id, resolution) in [
        (to::LOCAL, Resolution::Local),
        (to::LAN_LINK, Resolution::OnLink),
        (to::BLACKHOLE, Resolution::Blackhole),
        (to::UNREACHABLE, Resolution::Unreachable),
        (to::PROHIBITED, Resolution::Prohibited),
        (to::FAILED, Resolution::Failed),
        (to::WAITING, Resolution::Waiting),
        (to::KERNEL, Resolution::Kernel),
    ] {
        all.set(AdjacencyId(id), Adjacency::of(resolution), Rewrite::empty());
    }
    let plain = |mac, from| link(mac, from, EtherType::IPV4);
    all.set(AdjacencyId(to::CLIENT), ready(LAN, LAN, none, 1500), plain(CLIENT_MAC, LAN_MAC));
    all.set_neighbour(AdjacencyId(to::LAN_LINK), CLIENT_V4.into(), AdjacencyId(to::CLIENT));
    all.set_neighbour(AdjacencyId(to::LAN_LINK), v6(CLIENT_V6).into(), AdjacencyId(to::CLIENT));
    all.set(AdjacencyId(to::ROUTER), ready(WAN, WAN, none, 1500), plain(ROUTER_MAC, WAN_MAC));
    all.set(AdjacencyId(to::NARROW), ready(WAN, WAN, none, 576), plain(ROUTER_MAC, WAN_MAC));
    let mut tagged = Rewrite::empty();
    tagged.push(&CLIENT_MAC);
    tagged.push(&LAN_MAC);
    tagged.push(&[0x81, 0x00, 0x00, 0x07, 0x08, 0x00]);
    all.set(AdjacencyId(to::VLAN_CLIENT), ready(VLAN, LAN, none, 1500), tagged);
    let inner = Some((FAR_MAC, TUNNEL_MAC));
    for (id, tunnel, mtu) in [(to::AWS_A, AWS_A, MTU_A), (to::AWS_B, AWS_B, MTU_B)] {
        all.set(AdjacencyId(id), ready(WAN, WAN, tunnel, mtu), tunnel_rewrite(tunnel, &outer(tunnel), inner));
    }
    all.set(AdjacencyId(to::DEVICE_A), ready(WAN, WAN, AWS_A, MTU_A), tunnel_rewrite(AWS_A, &outer(AWS_A), None));
    all
}
