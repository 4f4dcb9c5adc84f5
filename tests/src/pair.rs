//! Two gateways back to back with a tunnel of any type between them, and another opinion on what is on their link.
//!
//! ```text
//! client ── lan0 [ near ] wan0 ═══ wan0 [ far ] lan0 ── server
//! ```
//!
//! [`KINDS`] says what each type's header looks like on the wire, octet by octet: nothing of it is asked of Penstock.

use crate::memory::memory;
use crate::scene::{LAN, WAN};
use dataplane::config::Config;
use dataplane::control::offline;
use dataplane::packet::{DropReason, Family, Time, TunnelId};
use dataplane::simulate::Simulated;
use dataplane::stats::{Totals, TunnelTotals};
use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::fmt;
use xsk::Umem;

use Family::{V4, V6};

/// A tunnel type with what decides its headers.
#[derive(Debug)]
pub struct Kind {
    /// For people; starts with the type.
    pub name: &'static str,
    /// Its keys in the configuration.
    keys: &'static str,
    /// Outer protocol; `None`: by what is inside.
    protocol: Option<u8>,
    /// Outer UDP port.
    pub port: Option<u16>,
    /// Its header, behind the outer IP header or behind UDP.
    header: &'static [u8],
    /// Where in that the type of what is inside stands, if that is IP.
    ethertype_at: Option<usize>,
    /// Ethernet inside.
    pub ethernet: bool,
    /// What can be inside.
    carries: &'static [Family],
    /// What can be outside.
    over: &'static [Family],
}

const UDP: Option<u8> = Some(17);
const GRE: Option<u8> = Some(47);
const BOTH: &[Family] = &[V4, V6];

/// Every type, with every header that it may have.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "vxlan",
        keys: "type = \"vxlan\"\nvni = 5001",
        protocol: UDP,
        port: Some(4789),
        header: &[8, 0, 0, 0, 0, 0x13, 0x89, 0],
        ethertype_at: None,
        ethernet: true,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "geneve",
        keys: "type = \"geneve\"\nvni = 5001",
        protocol: UDP,
        port: Some(6081),
        header: &[0, 0, 0x65, 0x58, 0, 0x13, 0x89, 0],
        ethertype_at: None,
        ethernet: true,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "geneve, IP",
        keys: "type = \"geneve\"\nvni = 5001\ninner = \"ip\"",
        protocol: UDP,
        port: Some(6081),
        header: &[0, 0, 0, 0, 0, 0x13, 0x89, 0],
        ethertype_at: Some(2),
        ethernet: false,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "gre",
        keys: "type = \"gre\"",
        protocol: GRE,
        port: None,
        header: &[0, 0, 0, 0],
        ethertype_at: Some(2),
        ethernet: false,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "gre, key",
        keys: "type = \"gre\"\nkey = 5001",
        protocol: GRE,
        port: None,
        header: &[0x20, 0, 0, 0, 0, 0, 0x13, 0x89],
        ethertype_at: Some(2),
        ethernet: false,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "gre, Ethernet",
        keys: "type = \"gre\"\ninner = \"ethernet\"",
        protocol: GRE,
        port: None,
        header: &[0, 0, 0x65, 0x58],
        ethertype_at: None,
        ethernet: true,
        carries: BOTH,
        over: BOTH,
    },
    Kind {
        name: "gre, Ethernet, key",
        keys: "type = \"gre\"\ninner = \"ethernet\"\nkey = 5001",
        protocol: GRE,
        port: None,
        header: &[0x20, 0, 0x65, 0x58, 0, 0, 0x13, 0x89],
        ethertype_at: None,
        ethernet: true,
        carries: BOTH,
        over: BOTH,
    },
    bare("ipip", "type = \"ipip\"", &[V4], &[V4]),
    bare("sit", "type = \"sit\"", &[V6], &[V4]),
    bare("ip6ip6", "type = \"ip6ip6\"", &[V6], &[V6]),
    bare("ip4ip6", "type = \"ip4ip6\"", &[V4], &[V6]),
];

const fn bare(name: &'static str, keys: &'static str, carries: &'static [Family], over: &'static [Family]) -> Kind {
    Kind { name, keys, protocol: None, port: None, header: &[], ethertype_at: None, ethernet: false, carries, over }
}

/// A type, what is inside and what is outside.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The type.
    pub kind: &'static Kind,
    /// Which IP is inside.
    pub inner: Family,
    /// Which IP is outside.
    pub outer: Family,
}

/// All that there are.
pub fn cells() -> Vec<Cell> {
    let of = |kind: &'static Kind| {
        let over = move |inner| kind.over.iter().map(move |&outer| Cell { kind, inner, outer });
        kind.carries.iter().copied().flat_map(over)
    };
    KINDS.iter().flat_map(of).collect()
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} over {}", self.kind.name, self.inner.name(), self.outer.name())
    }
}

/// MACs inside a tunnel: the near gateway's, the far one's.
pub const INSIDE: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 2, 2]);
/// MACs on the link between.
pub const LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]);
/// MACs on the LANs.
const LANS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 4]);
const HOSTS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 4]);
/// The tunnel's ends.
pub const ENDS4: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [192, 0, 2, 2]);
/// The tunnel's ends.
pub const ENDS6: ([u8; 16], [u8; 16]) = (six(1), six(2));

const fn six(host: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

impl Cell {
    /// Octets before the inner IP packet, outer IP header included.
    pub fn overhead(&self) -> usize {
        let udp = if self.kind.port.is_some() { 8 } else { 0 };
        let ethernet = if self.kind.ethernet { 14 } else { 0 };
        self.outer_header() + udp + self.kind.header.len() + ethernet
    }

    /// Octets of the outer IP header.
    pub const fn outer_header(&self) -> usize {
        match self.outer {
            V4 => 20,
            V6 => 40,
        }
    }

    fn protocol(&self) -> u8 {
        self.kind.protocol.unwrap_or(if self.inner == V4 { 4 } else { 41 })
    }

    const fn ethertype(&self) -> [u8; 2] {
        match self.inner {
            V4 => [8, 0],
            V6 => [0x86, 0xdd],
        }
    }

    /// The tunnel header.
    pub fn header(&self) -> Vec<u8> {
        let mut header = self.kind.header.to_vec();
        if let Some(at) = self.kind.ethertype_at {
            header[at..at + 2].copy_from_slice(&self.ethertype());
        }
        header
    }

    /// What is behind the tunnel header: the packet, with an Ethernet header if the type has it, from near to far.
    pub fn inside(&self, packet: &[u8]) -> Vec<u8> {
        if self.kind.ethernet {
            [&INSIDE.1[..], &INSIDE.0, &self.ethertype(), packet].concat()
        } else {
            packet.to_vec()
        }
    }

    /// The frame in which the near gateway might send this to the far one: no options, a UDP checksum.
    pub fn frame(&self, header: &[u8], inside: &[u8]) -> Vec<u8> {
        self.frame_with(0, header, inside)
    }

    /// The same with DSCP and ECN.
    pub fn frame_with(&self, tos: u8, header: &[u8], inside: &[u8]) -> Vec<u8> {
        let payload = [header, inside].concat();
        let ip = match self.outer {
            V4 => {
                let mut ip = Ipv4Header::new(0, 64, self.protocol().into(), ENDS4.0, ENDS4.1).expect("it is short");
                ip.dscp = (tos >> 2).try_into().expect("6 bits");
                ip.ecn = (tos & 3).try_into().expect("2 bits");
                IpHeaders::Ipv4(ip, Default::default())
            }
            V6 => {
                let (source, destination) = ENDS6;
                let ip = Ipv6Header { source, destination, hop_limit: 64, traffic_class: tos, ..Default::default() };
                IpHeaders::Ipv6(ip, Default::default())
            }
        };
        let builder = PacketBuilder::ethernet2(LINK.0, LINK.1).ip(ip);
        let mut frame = Vec::new();
        match self.kind.port {
            Some(port) => builder.udp(50_000, port).write(&mut frame, &payload).expect("it fits"),
            None => builder.write(&mut frame, self.protocol().into(), &payload).expect("it fits"),
        }
        frame
    }

    /// A frame between the two ends with these octets behind the outer IP header, and a right checksum where that has one.
    pub fn frame_of(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.frame(&[], &[]);
        let ip = 14 + self.outer_header();
        frame.truncate(ip);
        frame.extend_from_slice(payload);
        let length = (payload.len() as u16).to_be_bytes();
        if self.outer == V4 {
            frame[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            crate::packets::mend(&mut frame[14..]);
        } else {
            frame[18..20].copy_from_slice(&length);
        }
        frame
    }

    /// What an independent reader finds in a frame between the gateways.
    ///
    /// # Panics
    ///
    /// If any header, length or checksum is not as the type's RFC has it.
    #[track_caller]
    pub fn read(&self, frame: &[u8]) -> Outer {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{self}: {error}"));
        assert_eq!(frame[..12], [LINK.1, LINK.0].concat(), "{self}");
        let (mut seen, payload) = match sliced.net {
            Some(NetSlice::Ipv4(ip)) if self.outer == V4 => {
                let header = ip.header();
                assert_eq!((header.source(), header.destination()), ENDS4, "{self}");
                assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "{self}");
                assert_eq!((usize::from(header.total_len()), header.slice().len()), (frame.len() - 14, 20), "{self}");
                assert!(!header.is_fragmenting_payload(), "{self}");
                assert_eq!(header.protocol().0, self.protocol(), "{self}");
                let df = header.dont_fragment();
                let seen = Outer {
                    tos: header.slice()[1],
                    ttl: header.ttl(),
                    dont_fragment: Some(df),
                    identification: Some(header.identification()),
                    ..Outer::default()
                };
                (seen, &frame[34..])
            }
            Some(NetSlice::Ipv6(ip)) if self.outer == V6 => {
                let header = ip.header();
                assert_eq!((header.source(), header.destination()), ENDS6, "{self}");
                assert_eq!(usize::from(header.payload_length()), frame.len() - 54, "{self}");
                assert_eq!(header.next_header().0, self.protocol(), "{self}");
                let (tos, label) = (header.traffic_class(), header.flow_label().value());
                (Outer { tos, ttl: header.hop_limit(), label: Some(label), ..Outer::default() }, &frame[54..])
            }
            other => panic!("{self}: {other:?}"),
        };
        let payload = match self.kind.port {
            None => payload,
            Some(port) => {
                let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("{self}: no UDP") };
                assert_eq!((udp.destination_port(), usize::from(udp.length())), (port, payload.len()), "{self}");
                let header = udp.to_header();
                let right = match self.outer {
                    V4 => header.calc_checksum_ipv4_raw(ENDS4.0, ENDS4.1, udp.payload()),
                    V6 => header.calc_checksum_ipv6_raw(ENDS6.0, ENDS6.1, udp.payload()),
                };
                seen.source_port = Some(udp.source_port());
                seen.has_checksum = udp.checksum() != 0;
                seen.checksum_is_right = udp.checksum() == right.expect("it fits");
                &payload[8..]
            }
        };
        let header = self.header();
        // GENEVE: how many words of options follow.
        let options = if self.kind.port == Some(6081) { usize::from(payload[0] & 0x3f) * 4 } else { 0 };
        seen.options = payload[header.len()..header.len() + options].to_vec();
        let mut expected = header.clone();
        if options != 0 {
            expected[0] |= (options / 4) as u8;
        }
        assert_eq!(payload[..header.len()], expected, "{self}: the tunnel header");
        seen.inside = payload[header.len() + options..].to_vec();
        let link = self.inside(&[]);
        assert_eq!(seen.inside[..link.len()], link, "{self}: the inner Ethernet header");
        seen.packet = seen.inside[link.len()..].to_vec();
        seen
    }
}

/// What the headers of a frame between the gateways say.
#[derive(Clone, Debug, Default)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Of IPv4.
    pub dont_fragment: Option<bool>,
    /// Of IPv4.
    pub identification: Option<u16>,
    /// Flow label of IPv6.
    pub label: Option<u32>,
    /// Of UDP.
    pub source_port: Option<u16>,
    /// A UDP checksum that is not zero.
    pub has_checksum: bool,
    /// It is what etherparse computes.
    pub checksum_is_right: bool,
    /// GENEVE options.
    pub options: Vec<u8>,
    /// Everything behind them.
    pub inside: Vec<u8>,
    /// The inner IP packet.
    pub packet: Vec<u8>,
}

/// Two gateways.
pub struct Pair {
    /// What is between them.
    pub cell: Cell,
    /// On the client's side.
    pub near: Simulated,
    /// On the server's.
    pub far: Simulated,
    umems: [Umem; 2],
    now: Time,
}

/// What the two gateways of a pair differ in, and what of it is not as usual.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Further keys of the tunnel, of both gateways.
    pub keys: &'a str,
    /// MTU of both LANs.
    pub lan_mtu: u16,
    /// MTU of the link between.
    pub wan_mtu: u16,
    /// Which of those pairs it is that a thread has at once.
    pub place: usize,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { keys: "", lan_mtu: 1500, wan_mtu: 1500, place: 0 }
    }
}

impl Pair {
    /// Joined by a tunnel.
    pub fn new(cell: Cell, setup: Setup<'_>) -> Self {
        let umems = [0, 1].map(|at| memory(2 * setup.place + at, 256));
        let [near, far] = [false, true].map(|is_far| {
            let config = config(cell, setup, is_far);
            Simulated::with(&config, &offline::host(&config), &umems[usize::from(is_far)], |_, port| port)
                .expect("there is memory for tables")
        });
        Self { cell, near, far, umems, now: Time(Time::SECOND) }
    }

    /// Joined by a tunnel, with everything as usual but these keys.
    pub fn with(cell: Cell, keys: &str) -> Self {
        Self::new(cell, Setup { keys, ..Setup::default() })
    }

    /// The client sends a packet. What the near gateway puts on the link.
    pub fn send(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let frame = [&LANS.0[..], &HOSTS.0, &self.cell.ethertype(), packet].concat();
        self.near.receive(LAN, frame, self.now);
        std::iter::from_fn(|| self.near.sent(WAN)).map(|(_, frame)| frame).collect()
    }

    /// The far gateway receives a frame from the link. The packets that the server gets.
    #[track_caller]
    pub fn deliver(&mut self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        self.far.receive(WAN, frame, self.now);
        let got = std::iter::from_fn(|| self.far.sent(LAN)).map(|(_, frame)| frame);
        got.map(|frame| server_packet(&frame)).collect()
    }

    /// The server sends a packet, and what the far gateway makes of it reaches the near one. The packets that the client
    /// gets.
    pub fn answer(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let frame = [&LANS.1[..], &HOSTS.1, &self.cell.ethertype(), packet].concat();
        self.far.receive(LAN, frame, self.now);
        while let Some((_, frame)) = self.far.sent(WAN) {
            self.near.receive(WAN, frame, self.now);
        }
        self.heard()
    }

    /// The packets that the client got from the near gateway.
    pub fn heard(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.near.sent(LAN)).map(|(_, frame)| frame[14..].to_vec()).collect()
    }

    /// The tunnel's counters of the near gateway, and of the far one.
    pub fn tunnels(&self) -> (TunnelTotals, TunnelTotals) {
        let of = |gateway: &Simulated| TunnelTotals::of([gateway.page()], TunnelId(0));
        (of(&self.near), of(&self.far))
    }

    /// What the far gateway dropped, by reason.
    pub fn far_drops(&self) -> Vec<(DropReason, u64)> {
        self.far.totals().drops_by_name().collect()
    }

    /// The far gateway receives this from the link, whatever it is: it is accounted for, with all that it may have caused,
    /// and every frame is back.
    #[track_caller]
    pub fn endure(&mut self, frame: Vec<u8>) {
        let before = self.far.totals().received;
        self.far.receive(WAN, frame, self.now);
        self.far.finish(100 * Time::SECOND);
        self.now.0 += 100 * Time::SECOND;
        for port in [LAN, WAN] {
            while self.far.sent(port).is_some() {}
        }
        let totals = self.far.totals();
        assert!(totals.balances(), "{}: {totals:?}", self.cell);
        assert_eq!((totals.received, totals.queued), (before + 1, 0), "{}", self.cell);
        let free = self.umems[1].free() + self.far.worker.stock.frames.free();
        assert_eq!(free, self.umems[1].chunks(), "{}: every frame is back", self.cell);
    }

    /// Every packet has one fate, and all memory is free but for what pools keep.
    #[track_caller]
    pub fn finish(mut self) -> (Totals, Totals) {
        for gateway in [&mut self.near, &mut self.far] {
            gateway.finish(100 * Time::SECOND);
        }
        let both = [&self.near, &self.far].map(Simulated::totals);
        for (gateway, umem) in [&self.near, &self.far].into_iter().zip(&self.umems) {
            let totals = gateway.totals();
            assert!(totals.balances() && totals.queued == 0, "{}: {totals:?}", self.cell);
            let free = umem.free() + gateway.worker.stock.frames.free();
            assert_eq!(free, umem.chunks(), "{}: every frame is back", self.cell);
        }
        self.close();
        let [near, far] = both;
        (near, far)
    }

    fn close(&mut self) {
        for gateway in [&mut self.near, &mut self.far] {
            let ports: Vec<_> = gateway.worker.lanes.iter().map(|lane| lane.port).collect();
            ports.into_iter().for_each(|port| gateway.worker.obey(dataplane::worker::Command::Close(port), self.now));
        }
    }
}

#[track_caller]
fn server_packet(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[..12], [HOSTS.1, LANS.1].concat());
    frame[14..].to_vec()
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn config(cell: Cell, setup: Setup<'_>, is_far: bool) -> Config {
    let turn = |(near, far): ([u8; 6], [u8; 6])| if is_far { (far, near) } else { (near, far) };
    let (own, other) = if is_far { (2, 1) } else { (1, 2) };
    let (lan, host, link, inside) = (turn(LANS).0, turn(HOSTS).0, turn(LINK), turn(INSIDE));
    let ends = match cell.outer {
        V4 => format!("local = \"192.0.2.{own}\"\nremote = \"192.0.2.{other}\""),
        V6 => format!("local = \"2001:db8:f::{own}\"\nremote = \"2001:db8:f::{other}\""),
    };
    let mut addresses = format!("\"192.0.2.{own}/24\"");
    // On a link that is too narrow for it there is no IPv6.
    if setup.wan_mtu >= 1280 {
        addresses += &format!(", \"2001:db8:f::{own}/64\"");
    }
    let macs = format!("mac = \"{}\"\nremote_mac = \"{}\"", mac(inside.0), mac(inside.1));
    let mut text = format!(
        r#"
        [interface.lan0]
        mac = "{}"
        mtu = {}
        address = ["198.18.{own}.1/24", "2001:db8:{own}::1/64"]
        [interface.wan0]
        mac = "{}"
        mtu = {}
        address = [{}]
        [tunnel.site]
        {}
        {ends}
        {}
        {}
        "#,
        mac(lan),
        setup.lan_mtu,
        mac(link.0),
        setup.wan_mtu,
        addresses,
        cell.kind.keys,
        if cell.kind.ethernet { &macs } else { "" },
        setup.keys,
    );
    for (family, prefix) in [(V4, format!("198.18.{other}.0/24")), (V6, format!("2001:db8:{other}::/64"))] {
        if cell.kind.carries.contains(&family) {
            text += &format!("[[route]]\nprefix = \"{prefix}\"\nvia = [{{ tunnel = \"site\" }}]\n");
        }
    }
    for (interface, address, mac_of) in [
        ("lan0", format!("198.18.{own}.10"), host),
        ("lan0", format!("2001:db8:{own}::10"), host),
        ("wan0", format!("192.0.2.{other}"), link.1),
        ("wan0", format!("2001:db8:f::{other}"), link.1),
    ] {
        if setup.wan_mtu < 1280 && interface == "wan0" && address.contains(':') {
            continue;
        }
        text += &format!(
            "[[neighbour]]\ninterface = \"{interface}\"\naddress = \"{address}\"\nmac = \"{}\"\n",
            mac(mac_of)
        );
    }
    text.parse().unwrap_or_else(|error| panic!("{cell}: {error}\n{text}"))
}
