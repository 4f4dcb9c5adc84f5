//! The golden cases: what goes in is made here, what must come out is in `tests/golden/<case>/`.
//!
//! | File | Is |
//! |---|---|
//! | `config.toml` | the gateway |
//! | `in-PORT.pcap` | what a port receives: made by [`CASES`], and committed |
//! | `out-PORT.pcap` | what a port must send, to the octet and the nanosecond |
//! | `balance.json` | what `replay --json` must print |

use crate::frames::{VXLAN_PORT, vxlan};
use crate::pcap::Frame;
use etherparse::{IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, TcpOptionElement, VlanId};
use std::path::PathBuf;

/// The gateway's MAC on the LAN.
pub const LAN: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The gateway's MAC on the WAN.
pub const WAN: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The client's MAC.
pub const CLIENT: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The MAC of the router on the WAN.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// The gateway's MAC inside the tunnel.
pub const INSIDE: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// The far end's MAC inside the tunnel.
pub const FAR: [u8; 6] = [2, 0, 0, 0, 2, 2];

const CLIENT4: [u8; 4] = [198, 18, 1, 10];
const SERVER4: [u8; 4] = [198, 18, 2, 10];
const CLIENT6: [u8; 16] = six(1, 0x10);
const SERVER6: [u8; 16] = six(2, 0x10);
/// The tunnel's ends.
const LOCAL4: [u8; 4] = [192, 0, 2, 1];
const REMOTE4: [u8; 4] = [198, 51, 100, 7];
const LOCAL6: [u8; 16] = six(0xf, 1);
const REMOTE6: [u8; 16] = six(0xb, 7);
const VNI: u32 = 5001;

const fn six(net: u8, host: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

/// The start of every capture, nanoseconds since 1970.
const START_NS: u64 = 1_000_000_000 * 1_000_000_000;
/// Between two frames.
const STEP_NS: u64 = 1_000_000;

/// A port and the frames that it receives.
type Input = (&'static str, Vec<Vec<u8>>);

/// A case: its name, and the frames that each port receives.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its folder.
    pub name: &'static str,
    inputs: fn() -> Vec<Input>,
}

impl Case {
    /// The frames that each port receives, with their times. All ports' frames alternate.
    pub fn inputs(&self) -> Vec<(&'static str, Vec<Frame>)> {
        let ports = (self.inputs)();
        let count = ports.len() as u64;
        let stamp = |port: usize, frames: Vec<Vec<u8>>| {
            let at = |number: usize| START_NS + (number as u64 * count + port as u64) * STEP_NS;
            frames.into_iter().enumerate().map(|(n, octets)| Frame { at_ns: at(n), octets }).collect()
        };
        ports.into_iter().enumerate().map(|(at, (port, frames))| (port, stamp(at, frames))).collect()
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(self.name)
    }
}

/// Every case there is.
pub const CASES: &[Case] = &[
    Case { name: "ipv4", inputs: || vec![("lan0", plain4()), ("wan0", plain4_back())] },
    Case { name: "ipv6", inputs: || vec![("lan0", plain6()), ("wan0", plain6_back())] },
    Case { name: "vlan", inputs: || vec![("lan0", tagged()), ("wan0", plain4_back())] },
    Case { name: "vxlan-encap-v4", inputs: || vec![("lan0", flows())] },
    Case { name: "vxlan-encap-v6", inputs: || vec![("lan0", flows())] },
    Case { name: "vxlan-decap-v4", inputs: || vec![("wan0", tunnelled(over4))] },
    Case { name: "vxlan-decap-v6", inputs: || vec![("wan0", tunnelled(over6))] },
    Case { name: "reassembly-v4", inputs: || vec![("wan0", outer_fragments(over4))] },
    Case { name: "reassembly-v6", inputs: || vec![("wan0", outer_fragments(over6))] },
    Case { name: "tunnels", inputs: || vec![("lan0", of_every_type())] },
    Case { name: "fragmentation", inputs: || vec![("lan0", long4(false))] },
    Case { name: "too-big", inputs: || vec![("lan0", [long4(true), long6()].concat())] },
    Case { name: "ttl-expired", inputs: || vec![("lan0", expiring())] },
    Case { name: "mss-clamp", inputs: || vec![("lan0", handshakes()), ("wan0", handshakes_back())] },
    Case { name: "malformed", inputs: || vec![("lan0", malformed())] },
    Case { name: "no-route", inputs: || vec![("lan0", astray())] },
];

/// Octets that are not all the same.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7) as u8).collect()
}

fn v4(source: [u8; 4], destination: [u8; 4], protocol: IpNumber, payload: &[u8]) -> Ipv4Header {
    Ipv4Header::new(payload.len() as u16, 64, protocol, source, destination).expect("a short payload")
}

/// UDP in the IPv4 header given, in Ethernet.
fn udp4(to: [u8; 6], from: [u8; 6], header: Ipv4Header, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .expect("a Vec takes everything");
    frame
}

/// UDP in an IPv6 header, in Ethernet.
fn udp6(to: [u8; 6], from: [u8; 6], header: Ipv6Header, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ip(etherparse::IpHeaders::Ipv6(header, Default::default()))
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .expect("a Vec takes everything");
    frame
}

/// An IPv4 header for UDP from client to server; lengths and checksum are filled in by the builder.
fn to_server4() -> Ipv4Header {
    let mut header = v4(CLIENT4, SERVER4, IpNumber::UDP, &[]);
    header.identification = 0x1234;
    header
}

fn to_server6() -> Ipv6Header {
    Ipv6Header { source: CLIENT6, destination: SERVER6, hop_limit: 64, ..Default::default() }
}

/// UDP, TCP, ICMP, IP options, the shortest frame with its padding, a fragment.
fn plain4() -> Vec<Vec<u8>> {
    let mut options = to_server4();
    // Record route with room for two (RFC 791 §3.1), and the end of the list.
    options.options = Ipv4Options::from([7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut first = to_server4();
    (first.dont_fragment, first.more_fragments) = (false, true);
    let mut later = first.clone();
    (later.fragment_offset, later.more_fragments) = (9.try_into().expect("small"), false);
    let mut padded = udp4(LAN, CLIENT, to_server4(), (4000, 5000), b"");
    padded.resize(60, 0);
    vec![
        udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(100)),
        tcp4((LAN, CLIENT), (CLIENT4, SERVER4), None, &data(33)),
        echo4(64, &data(56)),
        udp4(LAN, CLIENT, options, (4000, 5000), &data(9)),
        padded,
        udp4(LAN, CLIENT, first, (4000, 5000), &data(64)),
        raw4(LAN, CLIENT, later, &data(20)),
        // Full size: 1500 octets of IP.
        udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(1472)),
    ]
}

fn plain4_back() -> Vec<Vec<u8>> {
    let back = v4(SERVER4, CLIENT4, IpNumber::UDP, &[]);
    vec![udp4(WAN, ROUTER, back, (5000, 4000), &data(100)), tcp4((WAN, ROUTER), (SERVER4, CLIENT4), None, &data(33))]
}

/// UDP, TCP, hop-by-hop options, a flow label and a traffic class.
fn plain6() -> Vec<Vec<u8>> {
    let mut labelled = to_server6();
    labelled.flow_label = 0x4_2123.try_into().expect("20 bits");
    labelled.traffic_class = 0xb9;
    let udp = udp6(LAN, CLIENT, to_server6(), (4000, 5000), &data(100));
    // Hop-by-hop with padding only (RFC 8200 §4.2) between header and UDP: eight octets more.
    let mut hop_by_hop = udp.clone();
    hop_by_hop.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    hop_by_hop[20] = 0;
    hop_by_hop[19] += 8;
    vec![
        udp,
        tcp6((LAN, CLIENT), (CLIENT6, SERVER6), None, &data(33)),
        udp6(LAN, CLIENT, labelled, (4000, 5000), &data(100)),
        hop_by_hop,
        udp6(LAN, CLIENT, to_server6(), (4000, 5000), &data(1452)),
    ]
}

fn plain6_back() -> Vec<Vec<u8>> {
    let back = Ipv6Header { source: SERVER6, destination: CLIENT6, hop_limit: 2, ..Default::default() };
    vec![udp6(WAN, ROUTER, back, (5000, 4000), &data(100))]
}

/// With the tag of an interface, with another one, and without.
fn tagged() -> Vec<Vec<u8>> {
    let tagged = |id: u16| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT, LAN)
            .single_vlan(VlanId::try_new(id).expect("12 bits"))
            .ipv4(CLIENT4, SERVER4, 64)
            .udp(4000, 5000)
            .write(&mut frame, &data(100))
            .expect("a Vec takes everything");
        frame
    };
    vec![tagged(110), tagged(111), udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(100))]
}

/// Flows that differ in port, DSCP and ECN; both families; the longest packets that fit a tunnel over IPv6.
fn flows() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for port in [4000, 4001, 4002] {
        frames.push(udp4(LAN, CLIENT, to_server4(), (port, 5000), &data(100)));
        frames.push(udp6(LAN, CLIENT, to_server6(), (port, 5000), &data(100)));
    }
    for tos in [0x01, 0x02, 0x03, 0xb8, 0xba] {
        let mut header = to_server4();
        header.dscp = (tos >> 2).try_into().expect("6 bits");
        header.ecn = (tos & 3).try_into().expect("2 bits");
        frames.push(udp4(LAN, CLIENT, header, (4000, 5000), &data(100)));
        let header = Ipv6Header { traffic_class: tos, ..to_server6() };
        frames.push(udp6(LAN, CLIENT, header, (4000, 5000), &data(100)));
    }
    frames.push(tcp4((LAN, CLIENT), (CLIENT4, SERVER4), None, &data(33)));
    frames.push(udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(1402)));
    frames.push(udp6(LAN, CLIENT, to_server6(), (4000, 5000), &data(1382)));
    // Odd lengths: the last octet of a checksum stands alone.
    frames.push(udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(101)));
    frames
}

/// Where a tunnel leads of each type, by `config.toml`: the third part of an address there, and what can be inside.
pub const TUNNELS: &[(u8, &[u8])] = &[
    // Over IPv4: VXLAN, GENEVE, the same with IP inside, GRE, with a key, with Ethernet, with both, ipip, sit.
    (20, &[4, 6]),
    (21, &[4, 6]),
    (22, &[4, 6]),
    (23, &[4, 6]),
    (24, &[4, 6]),
    (25, &[4, 6]),
    (26, &[4, 6]),
    (27, &[4]),
    (28, &[6]),
    // Over IPv6: the same without the last two, ip6ip6, ip4ip6.
    (40, &[4, 6]),
    (41, &[4, 6]),
    (42, &[4, 6]),
    (43, &[4, 6]),
    (44, &[4, 6]),
    (45, &[4, 6]),
    (46, &[4, 6]),
    (49, &[6]),
    (50, &[4]),
];

/// A packet into each.
fn of_every_type() -> Vec<Vec<u8>> {
    let frame = |net: u8, family: u8| {
        if family == 4 {
            let mut header = to_server4();
            header.destination[2] = net;
            udp4(LAN, CLIENT, header, (4000, 5000), &data(51))
        } else {
            // As it is written in the file: 20 is 0x20.
            let net = net / 10 * 16 + net % 10;
            udp6(LAN, CLIENT, Ipv6Header { destination: six(net, 0x10), ..to_server6() }, (4000, 5000), &data(51))
        }
    };
    TUNNELS.iter().flat_map(|(net, families)| families.iter().map(|family| frame(*net, *family))).collect()
}

/// VXLAN over IPv4, as the far end sends it: no checksum, or a full one.
fn over4(vni: u32, tos: u8, checksum: bool, inner: &[u8]) -> Vec<u8> {
    let mut header = v4(REMOTE4, LOCAL4, IpNumber::UDP, &[]);
    header.dont_fragment = true;
    header.dscp = (tos >> 2).try_into().expect("6 bits");
    header.ecn = (tos & 3).try_into().expect("2 bits");
    let mut frame = udp4(WAN, ROUTER, header, (0xc123, VXLAN_PORT), &vxlan(vni, inner));
    if !checksum {
        frame[40..42].fill(0);
    }
    frame
}

fn over6(vni: u32, tos: u8, checksum: bool, inner: &[u8]) -> Vec<u8> {
    let header =
        Ipv6Header { source: REMOTE6, destination: LOCAL6, hop_limit: 60, traffic_class: tos, ..Default::default() };
    let mut frame = udp6(WAN, ROUTER, header, (0xc123, VXLAN_PORT), &vxlan(vni, inner));
    if !checksum {
        frame[60..62].fill(0);
    }
    frame
}

/// Good ones; every ECN combination (RFC 6040 §4.2); a foreign VNI, MAC, source; a wrong checksum; no I flag; cut.
fn tunnelled(over: fn(u32, u8, bool, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let inner4 = |ecn: u8| {
        let mut header = v4(SERVER4, CLIENT4, IpNumber::UDP, &[]);
        header.ecn = ecn.try_into().expect("2 bits");
        udp4(INSIDE, FAR, header, (5000, 4000), &data(100))
    };
    let inner6 = |ecn: u8| {
        let header = Ipv6Header {
            source: SERVER6,
            destination: CLIENT6,
            hop_limit: 64,
            traffic_class: ecn,
            ..Default::default()
        };
        udp6(INSIDE, FAR, header, (5000, 4000), &data(100))
    };
    let mut frames = vec![over(VNI, 0, false, &inner4(0)), over(VNI, 0, true, &inner6(0))];
    for outer in 0..4 {
        for inner in 0..4 {
            frames.push(over(VNI, outer, false, &inner4(inner)));
            frames.push(over(VNI, outer, true, &inner6(inner)));
        }
    }
    frames.push(over(VNI + 1, 0, true, &inner4(0)));
    let mut foreign = inner4(0);
    foreign[..6].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    frames.push(over(VNI, 0, true, &foreign));
    let spoofed = udp4(INSIDE, FAR, v4([198, 18, 66, 1], CLIENT4, IpNumber::UDP, &[]), (5000, 4000), &data(10));
    frames.push(over(VNI, 0, true, &spoofed));
    let mut wrong = over(VNI, 0, true, &inner4(0));
    *wrong.last_mut().expect("not empty") ^= 1;
    frames.push(wrong);
    frames.push(over(VNI, 0, true, &inner4(0)[..20]));
    let mut no_flag = over(VNI, 0, false, &inner4(0));
    let flags = no_flag.len() - inner4(0).len() - 8;
    no_flag[flags] = 0;
    frames.push(no_flag);
    // One hop left: expires here, and the error goes back into the tunnel.
    let mut last_hop = v4(SERVER4, CLIENT4, IpNumber::UDP, &[]);
    last_hop.time_to_live = 1;
    frames.push(over(VNI, 0, true, &udp4(INSIDE, FAR, last_hop, (5000, 4000), &data(10))));
    frames
}

/// The frame's packet cut into fragments of at most `size` octets of data (RFC 791 §3.2, RFC 8200 §4.5).
fn cut(frame: &[u8], size: usize, id: u8) -> Vec<Vec<u8>> {
    let is_v4 = frame[14] >> 4 == 4;
    let (headers, data) = frame.split_at(14 + if is_v4 { 20 } else { 40 });
    let count = data.len().div_ceil(size);
    let fragment = |(at, data): (usize, &[u8])| {
        let more = at + 1 < count;
        if is_v4 {
            let mut header = Ipv4Header::from_slice(&headers[14..]).expect("a frame of ours").0;
            (header.dont_fragment, header.more_fragments, header.identification) = (false, more, id.into());
            header.fragment_offset = ((at * size / 8) as u16).try_into().expect("13 bits");
            header.total_len = 20 + data.len() as u16;
            header.header_checksum = header.calc_header_checksum();
            return [&headers[..14], &header.to_bytes(), data].concat();
        }
        let mut headers = headers.to_vec();
        headers[18..20].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        let next = std::mem::replace(&mut headers[20], 44);
        let offset = ((at * size) as u16 | u16::from(more)).to_be_bytes();
        [&headers[..], &[next, 0, offset[0], offset[1], 0, 0, 0, id], data].concat()
    };
    data.chunks(size).enumerate().map(fragment).collect()
}

/// Tunnel packets in order, turned round, with one fragment twice, marked on the way; two that overlap; one that stays alone; and
/// one that is no tunnel's.
fn outer_fragments(over: fn(u32, u8, bool, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let mut header = v4(SERVER4, CLIENT4, IpNumber::UDP, &[]);
    header.ecn = 2.try_into().expect("2 bits");
    let whole = over(VNI, 2, true, &udp4(INSIDE, FAR, header, (5000, 4000), &data(1400)));
    let in_order = cut(&whole, 1232, 1);
    let turned: Vec<_> = cut(&whole, 504, 2).into_iter().rev().collect();
    let mut twice = cut(&whole, 720, 3);
    twice.insert(1, twice[0].clone());
    // The first as it was, the second as a router under load left it.
    let mut marked = cut(&whole, 1232, 4);
    mark(&mut marked[1]);
    let overlapping = [cut(&whole, 1232, 5).remove(0), cut(&whole, 504, 5).remove(1)];
    let alone = cut(&whole, 1232, 6).remove(0);
    let mut other = over(VNI, 0, false, &data(1400));
    let udp = other.len() - 1400 - 8 - 8;
    other[udp + 3] ^= 1;
    let other = cut(&other, 1232, 7);
    [in_order, turned, twice, marked, overlapping.to_vec(), vec![alone], other].concat()
}

/// Congestion is marked on an IP packet that can carry it.
fn mark(frame: &mut [u8]) {
    if frame[14] >> 4 == 4 {
        let mut header = Ipv4Header::from_slice(&frame[14..]).expect("a frame of ours").0;
        header.ecn = 3.try_into().expect("2 bits");
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
    } else {
        frame[15] |= 3 << 4;
    }
}

/// What just fits, one octet more, and the longest of the link.
fn long4(dont_fragment: bool) -> Vec<Vec<u8>> {
    let long = |length: usize| {
        let mut header = to_server4();
        header.dont_fragment = dont_fragment;
        udp4(LAN, CLIENT, header, (4000, 5000), &data(length - 28))
    };
    [1450, 1451, 1500].map(long).into()
}

fn long6() -> Vec<Vec<u8>> {
    [1450, 1451, 1500].map(|length| udp6(LAN, CLIENT, to_server6(), (4000, 5000), &data(length - 48))).into()
}

/// One hop left, two hops left; and an ICMP error with one left, which is not answered (RFC 1812 §4.3.2.7).
fn expiring() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for hops in [1, 2, 0] {
        let mut header = to_server4();
        header.time_to_live = hops;
        frames.push(udp4(LAN, CLIENT, header, (4000, 33434), &data(40)));
        let header = Ipv6Header { hop_limit: hops, ..to_server6() };
        frames.push(udp6(LAN, CLIENT, header, (4000, 33434), &data(40)));
        frames.push(echo4(hops, &data(40)));
    }
    // Far longer than an error may quote.
    let mut header = to_server4();
    header.time_to_live = 1;
    frames.push(udp4(LAN, CLIENT, header, (4000, 33434), &data(1400)));
    frames.push(udp6(LAN, CLIENT, Ipv6Header { hop_limit: 1, ..to_server6() }, (4000, 33434), &data(1400)));
    // Destination unreachable, port unreachable, with one hop left.
    let mut error = Vec::new();
    PacketBuilder::ethernet2(CLIENT, LAN)
        .ipv4(CLIENT4, SERVER4, 1)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut error, &data(28))
        .expect("a Vec takes everything");
    frames.push(error);
    frames
}

/// To where no route leads, to what is refused, to nowhere.
fn astray() -> Vec<Vec<u8>> {
    let to4 =
        |destination: [u8; 4]| udp4(LAN, CLIENT, v4(CLIENT4, destination, IpNumber::UDP, &[]), (4000, 5000), &data(40));
    let to6 =
        |destination: [u8; 16]| udp6(LAN, CLIENT, Ipv6Header { destination, ..to_server6() }, (4000, 5000), &data(40));
    vec![
        to4([203, 0, 113, 9]),
        to6(six(0x99, 1)),
        // The file says unreachable, and blackhole.
        to4([198, 18, 7, 1]),
        to6(six(7, 1)),
        to4([198, 18, 8, 1]),
        to6(six(8, 1)),
        // On the WAN's subnet, but nobody there has answered: it waits a second, then the sender is told.
        to4([192, 0, 2, 99]),
    ]
}

/// A SYN with an MSS, or another segment.
fn tcp4(
    macs: ([u8; 6], [u8; 6]),
    ends: ([u8; 4], [u8; 4]),
    syn: Option<&[TcpOptionElement]>,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let tcp = PacketBuilder::ethernet2(macs.1, macs.0).ipv4(ends.0, ends.1, 64).tcp(4000, 80, 1000, 64_000);
    match syn {
        Some(options) => tcp.syn().options(options).expect("they fit").write(&mut frame, payload),
        None => tcp.ack(2000).psh().write(&mut frame, payload),
    }
    .expect("a Vec takes everything");
    frame
}

fn tcp6(
    macs: ([u8; 6], [u8; 6]),
    ends: ([u8; 16], [u8; 16]),
    syn: Option<&[TcpOptionElement]>,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let tcp = PacketBuilder::ethernet2(macs.1, macs.0).ipv6(ends.0, ends.1, 64).tcp(4000, 80, 1000, 64_000);
    match syn {
        Some(options) => tcp.syn().options(options).expect("they fit").write(&mut frame, payload),
        None => tcp.ack(2000).psh().write(&mut frame, payload),
    }
    .expect("a Vec takes everything");
    frame
}

/// SYNs with an MSS above, at and below what fits, on even and odd offsets, without one; and a segment that is no SYN.
fn handshakes() -> Vec<Vec<u8>> {
    use TcpOptionElement::{MaximumSegmentSize as Mss, Noop, SelectiveAcknowledgementPermitted as Sack, WindowScale};
    let options: &[&[TcpOptionElement]] = &[
        &[Mss(1460)],
        &[Mss(1440)],
        &[Mss(1410)],
        &[Mss(1390)],
        &[Mss(536)],
        &[Noop, Mss(1460), WindowScale(7)],
        &[Sack, Noop, Noop, Noop, Mss(9000)],
        &[WindowScale(7)],
    ];
    let mut frames = Vec::new();
    for options in options {
        frames.push(tcp4((LAN, CLIENT), (CLIENT4, SERVER4), Some(options), &[]));
        frames.push(tcp6((LAN, CLIENT), (CLIENT6, SERVER6), Some(options), &[]));
    }
    frames.push(tcp4((LAN, CLIENT), (CLIENT4, SERVER4), None, &data(100)));
    frames
}

/// The same out of the tunnel.
fn handshakes_back() -> Vec<Vec<u8>> {
    let options = [TcpOptionElement::MaximumSegmentSize(1460)];
    let syn4 = tcp4((INSIDE, FAR), (SERVER4, CLIENT4), Some(&options), &[]);
    let syn6 = tcp6((INSIDE, FAR), (SERVER6, CLIENT6), Some(&options), &[]);
    vec![over4(VNI, 0, false, &syn4), over4(VNI, 0, false, &syn6)]
}

/// An IPv4 packet of this header around octets that are no transport's start.
fn raw4(to: [u8; 6], from: [u8; 6], mut header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    header.set_payload_len(payload.len()).expect("it fits");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&to[..], &from[..], &[8, 0]].concat();
    header.write(&mut frame).expect("a Vec takes everything");
    frame.extend_from_slice(payload);
    frame
}

fn echo4(ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT, LAN)
        .ipv4(CLIENT4, SERVER4, ttl)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, payload)
        .expect("a Vec takes everything");
    frame
}

/// What no router forwards: each frame has one fault.
fn malformed() -> Vec<Vec<u8>> {
    let good = udp4(LAN, CLIENT, to_server4(), (4000, 5000), &data(60));
    let good6 = udp6(LAN, CLIENT, to_server6(), (4000, 5000), &data(60));
    let with = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    /// Puts the IPv4 header checksum right again.
    fn repaired(mut frame: Vec<u8>) -> Vec<u8> {
        frame[24..26].fill(0);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&frame[14..34]).ones_complement();
        // The sum is in memory order.
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
        frame
    }
    let from4 = |source: [u8; 4]| udp4(LAN, CLIENT, v4(source, SERVER4, IpNumber::UDP, &[]), (1, 2), &data(10));
    let from6 = |source: [u8; 16]| udp6(LAN, CLIENT, Ipv6Header { source, ..to_server6() }, (1, 2), &data(10));
    let mut loopback6 = [0; 16];
    loopback6[15] = 1;
    let mut group6 = [0; 16];
    group6[0] = 0xff;
    vec![
        // Checksum, version, header length, total length below the header and beyond the frame.
        with(&good, 24, good[24] ^ 1),
        repaired(with(&good, 14, 0x55)),
        repaired(with(&good, 14, 0x44)),
        repaired(with(&good, 17, 19)),
        repaired(with(&good, 17, 200)),
        good[..30].to_vec(),
        good6[..50].to_vec(),
        with(&good6, 14, 0x50),
        with(&good6, 19, 200),
        // Martians, and the gateway's own address.
        from4([127, 0, 0, 1]),
        from4([0, 0, 0, 1]),
        from4([224, 0, 0, 1]),
        from4([255, 255, 255, 255]),
        from4([198, 18, 1, 1]),
        from6([0; 16]),
        from6(loopback6),
        from6(group6),
        // To another station: not ours to drop, the kernel's to ignore.
        udp4([2, 0, 0, 0, 9, 9], CLIENT, to_server4(), (1, 2), &data(10)),
    ]
}
