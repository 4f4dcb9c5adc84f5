//! One gateway in virtual time, and frames for it.
//!
//! ```text
//! client ── lan0 [ gateway ] wan0 ── router ── site a: VXLAN 5001 over IPv4 ── 198.18.2.0/24, 2001:db8:2::/64
//!           lan0.110 (tenant)                  site b: VXLAN 5002 over IPv6 ── tenant's 198.18.2.0/24, 2001:db8:2::/64
//! ```
//!
//! Neither tunnel has a device of the kernel.

use crate::frames::{VXLAN_PORT, vxlan};
use crate::memory::memory;
use dataplane::config::Config;
use dataplane::control::host::Host;
use dataplane::control::offline;
use dataplane::io::{Memory, Port};
use dataplane::packet::{DropReason, PortId, Time};
use dataplane::simulate::Simulated;
use dataplane::stats::Totals;
use dataplane::worker::Command;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpOptionElement};
use xsk::Umem;

/// The interface to the client.
pub const LAN: PortId = PortId(0);
/// The interface to the router.
pub const WAN: PortId = PortId(1);

/// Packet memory that is enough for most, in chunks.
pub const CHUNKS: usize = 512;

/// The MACs of the picture.
pub const MACS: Macs = Macs {
    lan: [2, 0, 0, 0, 0, 1],
    wan: [2, 0, 0, 0, 0, 2],
    inside: [2, 0, 0, 0, 2, 1],
    client: [2, 0, 0, 0, 1, 1],
    router: [2, 0, 0, 0, 1, 2],
    far: [2, 0, 0, 0, 2, 2],
};

/// Who is who on the links.
#[derive(Clone, Copy, Debug)]
pub struct Macs {
    /// The gateway on the LAN.
    pub lan: [u8; 6],
    /// The gateway on the WAN.
    pub wan: [u8; 6],
    /// The gateway inside the tunnels.
    pub inside: [u8; 6],
    /// The client.
    pub client: [u8; 6],
    /// The router on the WAN.
    pub router: [u8; 6],
    /// The far ends inside the tunnels.
    pub far: [u8; 6],
}

/// On the LAN.
pub const CLIENT: [u8; 4] = [198, 18, 1, 10];
/// Behind the tunnels.
pub const SERVER: [u8; 4] = [198, 18, 2, 10];
/// On the LAN.
pub const CLIENT6: [u8; 16] = six(1, 0x10);
/// Behind the tunnels.
pub const SERVER6: [u8; 16] = six(2, 0x10);
/// The VNI of site a.
pub const VNI: u32 = 5001;

const fn six(net: u8, host: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// The file of the picture. `MTU` stands for that of both interfaces.
const FILE: &str = r#"
    [vrf.tenant]
    [interface.lan0]
    mac = "02:00:00:00:00:01"
    mtu = MTU
    address = ["198.18.1.1/24", "2001:db8:1::1/64"]
    [interface.wan0]
    mac = "02:00:00:00:00:02"
    mtu = MTU
    address = ["192.0.2.1/24", "2001:db8:f::1/64"]
    [interface."lan0.110"]
    parent = "lan0"
    vlan = 110
    vrf = "tenant"
    address = ["198.18.1.1/24", "2001:db8:1::1/64"]
    [tunnel.site-a]
    type = "vxlan"
    vni = 5001
    local = "192.0.2.1"
    remote = "198.51.100.7"
    mac = "02:00:00:00:02:01"
    remote_mac = "02:00:00:00:02:02"
    allowed_sources = ["198.18.2.0/24", "2001:db8:2::/64"]
    [tunnel.site-b]
    type = "vxlan"
    vni = 5002
    vrf = "tenant"
    local = "2001:db8:f::1"
    remote = "2001:db8:b::7"
    mac = "02:00:00:00:02:01"
    remote_mac = "02:00:00:00:02:02"
    [[route]]
    prefix = "198.18.2.0/24"
    via = [{ tunnel = "site-a" }]
    [[route]]
    prefix = "2001:db8:2::/64"
    via = [{ tunnel = "site-a" }]
    [[route]]
    vrf = "tenant"
    prefix = "198.18.2.0/24"
    via = [{ tunnel = "site-b" }]
    [[route]]
    vrf = "tenant"
    prefix = "2001:db8:2::/64"
    via = [{ tunnel = "site-b" }]
    [[route]]
    prefix = "198.51.100.7/32"
    via = [{ next_hop = "192.0.2.254" }]
    [[route]]
    prefix = "2001:db8:b::7/128"
    via = [{ next_hop = "2001:db8:f::fe" }]
    [[route]]
    prefix = "203.0.113.0/24"
    via = [{ next_hop = "192.0.2.254" }]
    [[neighbour]]
    interface = "lan0"
    address = "198.18.1.10"
    mac = "02:00:00:00:01:01"
    [[neighbour]]
    interface = "lan0"
    address = "2001:db8:1::10"
    mac = "02:00:00:00:01:01"
    [[neighbour]]
    interface = "lan0.110"
    address = "198.18.1.10"
    mac = "02:00:00:00:01:01"
    [[neighbour]]
    interface = "wan0"
    address = "192.0.2.254"
    mac = "02:00:00:00:01:02"
    [[neighbour]]
    interface = "wan0"
    address = "2001:db8:f::fe"
    mac = "02:00:00:00:01:02"
"#;

/// A gateway, and its memory.
pub struct Scene {
    /// The gateway.
    pub gateway: Simulated,
    umem: Umem,
    now: Time,
}

impl Scene {
    /// The picture, Ethernet everywhere. A thread has one scene at a time.
    pub fn new() -> Self {
        Self::with("", 1500, CHUNKS, |_| {})
    }

    /// With something behind the file, another MTU on both links, other memory, and a host that says more than the file.
    ///
    /// # Panics
    ///
    /// If the file is not legal then.
    #[track_caller]
    pub fn with(more: &str, mtu: u16, chunks: usize, change: impl FnOnce(&mut Host)) -> Self {
        let config = Self::config(more, mtu);
        let mut host = offline::host(&config);
        change(&mut host);
        let umem = memory(0, chunks);
        let gateway = Simulated::with(&config, &host, &umem, |_, port| port).expect("there is memory for tables");
        Self { gateway, umem, now: Time(Time::SECOND) }
    }

    /// The file.
    ///
    /// # Panics
    ///
    /// If it is not legal.
    #[track_caller]
    pub fn config(more: &str, mtu: u16) -> Config {
        let text = FILE.replace("MTU", &mtu.to_string()) + more;
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A frame arrives.
    pub fn receive(&mut self, port: PortId, frame: Vec<u8>) {
        self.gateway.receive(port, frame, self.now);
    }

    /// A frame arrives that XDP let through by older tables than the worker's.
    ///
    /// # Panics
    ///
    /// If there is no such port.
    pub fn receive_unsteered(&mut self, port: PortId, frame: Vec<u8>) {
        let mut lanes = self.gateway.worker.lanes.iter_mut();
        match &mut lanes.find(|lane| lane.port == port).expect("a port of the picture").driver {
            Port::Memory(memory) => Memory::put(memory, frame),
            _ => unreachable!("all ports are in memory"),
        }
        self.gateway.poll(self.now);
    }

    /// Whether a port sends.
    pub fn set_sending(&mut self, port: PortId, sends: bool) {
        self.gateway.worker.lanes.iter_mut().filter(|lane| lane.port == port).for_each(|lane| lane.sends = sends);
        self.gateway.poll(self.now);
    }

    /// A port's device is gone.
    pub fn close(&mut self, port: PortId) {
        self.gateway.worker.obey(Command::Close(port), self.now);
    }

    /// So much time passes.
    pub fn pass(&mut self, time: Time) {
        self.now = Time(self.now.0 + time.0);
        self.gateway.poll(self.now);
    }

    /// Time goes on until nothing waits.
    pub fn finish(&mut self) {
        self.gateway.finish(100 * Time::SECOND);
        self.now = Time(self.now.0 + 100 * Time::SECOND);
    }

    /// Where the packets went.
    pub fn totals(&self) -> Totals {
        self.gateway.totals()
    }

    /// The next frame that a port sent.
    pub fn sent(&mut self, port: PortId) -> Option<Vec<u8>> {
        self.gateway.sent(port).map(|(_, frame)| frame)
    }

    /// How many drops there were for a reason; there are none for another, the balance holds, and after all ports are
    /// closed every frame is back.
    #[track_caller]
    pub fn drops_only_for(mut self, reason: DropReason) -> Totals {
        let totals = self.totals();
        let others: Vec<_> = totals.drops_by_name().filter(|(other, _)| *other != reason).collect();
        assert!(others.is_empty(), "{others:?} beside {reason:?}");
        self.close_all();
        totals
    }

    /// Every packet has one fate, and every frame is back once all ports are closed.
    #[track_caller]
    pub fn close_all(&mut self) {
        assert!(self.totals().balances(), "{:?}", self.totals());
        let ports: Vec<_> = self.gateway.worker.lanes.iter().map(|lane| lane.port).collect();
        ports.into_iter().for_each(|port| self.close(port));
        assert!(self.totals().balances(), "{:?}", self.totals());
        let free = self.umem.free() + self.gateway.worker.stock.frames.free();
        assert_eq!((free, self.totals().queued), (self.umem.chunks(), 0), "every frame is back");
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// An IPv4 packet of protocol 253 from the client, with a header of the test's making; its checksum is right.
pub fn ipv4(destination: [u8; 4], payload: usize, change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut header =
        Ipv4Header { time_to_live: 64, source: CLIENT, destination, protocol: IpNumber(253), ..Default::default() };
    header.total_len = (20 + payload) as u16;
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], &data(payload)].concat()
}

/// UDP in IPv4 from the client to the server.
pub fn udp4(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(CLIENT, SERVER, 64).udp(4000, 5000);
    builder.write(&mut packet, &data(payload)).expect("a Vec takes everything");
    packet
}

/// UDP in IPv6 from the client to the server.
pub fn udp6(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let header = Ipv6Header {
        source: CLIENT6,
        destination: SERVER6,
        hop_limit: 64,
        traffic_class: 0x2a,
        flow_label: Ipv6FlowLabel::try_new(0x1_2345).expect("20 bits"),
        ..Default::default()
    };
    let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv6(header, Default::default())).udp(4000, 5000);
    builder.write(&mut packet, &data(payload)).expect("a Vec takes everything");
    packet
}

/// An answer of the server, as it is inside the tunnels.
pub fn answer4() -> Vec<u8> {
    ipv4(CLIENT, 40, |header| header.source = SERVER)
}

/// The packet in Ethernet.
pub fn framed(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [&to[..], &from, &ethertype, packet].concat()
}

/// The packet from the client to the gateway.
pub fn from_client(packet: &[u8]) -> Vec<u8> {
    framed(MACS.lan, MACS.client, packet)
}

/// The packet as it is inside a tunnel.
pub fn inside(packet: &[u8]) -> Vec<u8> {
    framed(MACS.inside, MACS.far, packet)
}

/// With a VLAN tag.
pub fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

/// What site a sends with this VXLAN payload: UDP in IPv4 with a checksum.
pub fn from_site_a(payload: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 60, IpNumber::UDP, [198, 51, 100, 7], [192, 0, 2, 1]).expect("it is short");
    header.dont_fragment = true;
    change(&mut header);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .udp(50_000, VXLAN_PORT)
        .write(&mut frame, payload)
        .expect("a Vec takes everything");
    frame
}

/// What site a sends behind its IPv4 header, of any protocol.
pub fn from_site_a_as(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header::new(payload.len() as u16, 60, IpNumber(protocol), [198, 51, 100, 7], [192, 0, 2, 1])
        .expect("it is short");
    header.dont_fragment = true;
    header.header_checksum = header.calc_header_checksum();
    framed(MACS.wan, MACS.router, &[&header.to_bytes()[..], payload].concat())
}

/// What site b sends with this inner frame: VXLAN 5002 in UDP in IPv6.
pub fn from_site_b(frame: &[u8]) -> Vec<u8> {
    let mut outer = Vec::new();
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ipv6(six(0xb, 7), six(0xf, 1), 60)
        .udp(50_000, VXLAN_PORT)
        .write(&mut outer, &vxlan(5002, frame))
        .expect("a Vec takes everything");
    outer
}

/// Octets that are not all the same.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7) as u8).collect()
}

/// Frames of every kind that means something to the gateway, with the port that they come in by. None has octets behind
/// its packet.
pub fn samples() -> Vec<(PortId, Vec<u8>)> {
    let options = ipv4(SERVER, 60, |header| {
        header.options = [131, 7, 4, 1, 2, 3, 4, 0].into();
        header.total_len += 8;
    });
    let fragment = ipv4(SERVER, 64, |header| {
        (header.more_fragments, header.fragment_offset) = (true, IpFragOffset::try_new(8).expect("13 bits"));
    });
    let mut syn = Vec::new();
    PacketBuilder::ipv4(CLIENT, SERVER, 64)
        .tcp(4000, 80, 1, 64_000)
        .syn()
        .options(&[TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(1460)])
        .expect("they fit")
        .write(&mut syn, &[])
        .expect("a Vec takes everything");
    // Destination options and an atomic fragment between header and UDP.
    let mut extended = udp6(40);
    extended.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 7]);
    (extended[6], extended[5]) = (60, extended[5] + 16);
    let mut expiring = udp6(30);
    expiring[7] = 1;
    vec![
        (LAN, from_client(&udp4(10))),
        (LAN, from_client(&udp6(10))),
        (LAN, from_client(&options)),
        (LAN, from_client(&fragment)),
        (LAN, from_client(&syn)),
        (LAN, from_client(&extended)),
        (LAN, from_client(&expiring)),
        (LAN, from_client(&ipv4(SERVER, 1470, |_| {}))),
        (LAN, from_client(&udp6(1440))),
        (LAN, from_client(&ipv4([203, 0, 113, 9], 20, |_| {}))),
        (LAN, from_client(&ipv4([198, 18, 1, 77], 20, |_| {}))),
        (LAN, from_client(&ipv4([198, 18, 99, 1], 20, |_| {}))),
        (LAN, tagged(110, &from_client(&udp4(20)))),
        (LAN, tagged(110, &from_client(&udp6(20)))),
        (LAN, tagged(111, &from_client(&udp4(20)))),
        (WAN, from_site_a(&vxlan(VNI, &inside(&answer4())), |_| {})),
        (WAN, from_site_a(&vxlan(VNI, &inside(&syn)), |_| {})),
        (WAN, from_site_b(&inside(&answer4()))),
        (WAN, from_site_b(&inside(&expiring))),
    ]
}
