//! Tables and frames that reach every verdict: what the host library's tests and those of the BPF object share.

use crate::HostTables;
use crate::tables::*;
use crate::verdict::{PassReason::*, Verdict, WorkerReason::*};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{EtherType, Mac, icmpv4, icmpv6, protocol};

/// MAC of the untagged interface.
pub const MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x01]);
/// MAC of the interface behind [`VLAN`].
pub const VLAN_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x02]);
/// The VLAN that has an interface, in VRF 1, with the fallback to drop.
pub const VLAN: u16 = 110;
/// Row of counters of the untagged interface.
pub const ROW: u16 = 5;
/// Row of counters of the interface behind [`VLAN`].
pub const VLAN_ROW: u16 = 6;

const OTHER_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x99]);
const UDP: u8 = protocol::UDP;
const VXLAN: u16 = 4789;
const GENEVE: u16 = 6081;
const ESP_IN_UDP: u16 = 4500;

const OWN: [u8; 4] = [192, 0, 2, 1];
/// Ends tunnels from anywhere, but is no address of the host.
const ANY_END: [u8; 4] = [192, 0, 2, 2];
const NEIGHBOUR: [u8; 4] = [192, 0, 2, 77];
const REMOTE: [u8; 4] = [198, 51, 100, 7];
const GRE_REMOTE: [u8; 4] = [198, 51, 100, 8];
const ESP_REMOTE: [u8; 4] = [198, 51, 100, 9];
const ROUTER: [u8; 4] = [203, 0, 113, 99];
const AWAY: [u8; 4] = [203, 0, 113, 50];

const fn six(net: u16, last: u16) -> [u8; 16] {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last).octets()
}
const OWN6: [u8; 16] = six(0, 1);
const ANY_END6: [u8; 16] = six(0, 2);
const REMOTE6: [u8; 16] = six(7, 7);
const IP6IP6_REMOTE: [u8; 16] = six(8, 8);
const AWAY6: [u8; 16] = six(0x50, 1);

fn v4(address: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(address))
}

fn v6(address: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(address))
}

/// The tables that [`frames`] go with, for what `device` receives; its sockets are those of port 3.
pub fn tables(device: u32) -> HostTables {
    let mut tables = tables_without_routes(device);
    tables
        .route(0, v4([198, 18, 0, 0]), 15, Keeper::KERNEL)
        .route(0, v4([198, 18, 5, 0]), 24, Keeper::WORKER)
        .route(0, v6(six(0xaaaa, 0)), 48, Keeper::KERNEL)
        .route(0, v6(six(0xaaaa, 0x55)), 128, Keeper::WORKER);
    tables
}

/// The same, but no prefix is the kernel's.
pub fn tables_without_routes(device: u32) -> HostTables {
    let mut tables = HostTables::new();
    let interface = Interface { mac: MAC, port: 3, counters: ROW, flags: InterfaceFlags::default(), vrf: 0 };
    let flags = InterfaceFlags::FALLBACK_DROP;
    let behind = Interface { mac: VLAN_MAC, counters: VLAN_ROW, flags, vrf: 1, ..interface };
    tables
        .interface(Ingress { device, vlan: 0 }, interface)
        .interface(Ingress { device, vlan: VLAN.into() }, behind)
        .own(0, v4(OWN))
        .own(0, v6(OWN6))
        .own(1, v4(AWAY))
        .broadcast(0, v4([192, 0, 2, 255]))
        .tunnel(0, v4(OWN), Some(v4(REMOTE)), UDP, VXLAN)
        .tunnel(0, v4(OWN), Some(v4(GRE_REMOTE)), protocol::GRE, 0)
        .tunnel(0, v4(OWN), Some(v4(ESP_REMOTE)), UDP, ESP_IN_UDP)
        .tunnel(0, v4(ANY_END), None, UDP, GENEVE)
        .tunnel(0, v6(OWN6), Some(v6(REMOTE6)), UDP, VXLAN)
        .tunnel(0, v6(OWN6), Some(v6(IP6IP6_REMOTE)), protocol::IPV6, 0)
        .tunnel(0, v6(ANY_END6), None, UDP, GENEVE);
    tables
}

/// A frame, what it is, and what becomes of it.
pub struct Sample {
    /// What the frame is.
    pub what: &'static str,
    /// What steering decides.
    pub verdict: Verdict,
    /// The frame.
    pub frame: Vec<u8>,
}

/// An Ethernet frame.
pub fn ethernet(destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination.octets()[..], &[0x02, 0, 0, 0, 0, 0x50], &ethertype.to_be_bytes(), payload].concat()
}

/// The same behind an 802.1Q tag.
pub fn tagged(destination: Mac, id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let tag = [id.to_be_bytes(), ethertype.to_be_bytes()].concat();
    ethernet(destination, EtherType::VLAN, &[&tag, payload].concat())
}

/// An IPv4 packet; `fragment` is the word of flags and offset, `options` a multiple of four octets. Its checksum is
/// left out: nothing here looks.
pub fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let length = (20 + options.len() + payload.len()) as u16;
    let start = [0x45 + (options.len() / 4) as u8, 0];
    let fragment = fragment.to_be_bytes();
    let middle = [0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
    [&start[..], &length.to_be_bytes(), &middle, &source, &destination, options, payload].concat()
}

/// An IPv6 packet.
pub fn ipv6(source: [u8; 16], destination: [u8; 16], next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next_header, 64][..], &source, &destination, payload].concat()
}

/// A UDP datagram.
pub fn udp(destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    [&50_000u16.to_be_bytes()[..], &destination.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// An ICMP or ICMPv6 message.
pub fn icmp(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat()
}

/// An IPv6 extension header of `units` times eight octets.
pub fn extension(next_header: u8, units: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(units) * 8];
    header[0] = next_header;
    header[1] = units - 1;
    header
}

/// An IPv6 fragment header.
pub fn fragment(next_header: u8, offset: u16, more: bool) -> Vec<u8> {
    let word = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
    vec![next_header, 0, word[0], word[1], 0, 0, 0, 1]
}

/// The frames; all but one verdict is among them: [`UnknownInterface`] needs another device.
pub fn frames() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |what, verdict, frame| samples.push(Sample { what, verdict, frame });
    let ip = |packet: Vec<u8>| ethernet(MAC, EtherType::IPV4, &packet);
    let ip6 = |packet: Vec<u8>| ethernet(MAC, EtherType::IPV6, &packet);
    let to = |destination| ipv4(NEIGHBOUR, destination, UDP, 0, &[], &udp(53, b"payload"));
    let to6 = |destination| ipv6(AWAY6, destination, UDP, &udp(53, b"payload"));
    let pass = Verdict::Pass;
    let worker = Verdict::Worker;

    add("empty", pass(NotIp), vec![]);
    add("ARP", pass(NotIp), ethernet(Mac::BROADCAST, EtherType::ARP, &[0; 28]));
    add("ARP of a VLAN", pass(NotIp), tagged(Mac::BROADCAST, VLAN, EtherType::ARP, &[0; 28]));
    add("802.3 length", pass(NotIp), ethernet(MAC, 0x0026, &[0x42; 38]));
    add("unknown VLAN", pass(UnknownVlan), tagged(MAC, 111, EtherType::IPV4, &to(AWAY)));
    add("two tags", pass(StackedTags), tagged(VLAN_MAC, VLAN, EtherType::VLAN, &[0, 5, 8, 0, 0x45, 0]));
    add("service tag", pass(StackedTags), ethernet(MAC, EtherType::QINQ, &[0, 5, 8, 0, 0x45, 0]));
    add("foreign MAC", pass(NotOurMac), ethernet(OTHER_MAC, EtherType::IPV4, &to(AWAY)));
    add("the parent's MAC", pass(NotOurMac), tagged(MAC, VLAN, EtherType::IPV4, &to(AWAY)));
    add("foreign MAC, malformed", pass(NotOurMac), ethernet(OTHER_MAC, EtherType::IPV4, &[0x35]));
    add("broadcast MAC", pass(GroupMac), ethernet(Mac::BROADCAST, EtherType::IPV4, &to(AWAY)));
    add("multicast MAC", pass(GroupMac), ethernet(Mac::new([0x33, 0x33, 0, 0, 0, 1]), EtherType::IPV6, &to6(AWAY6)));
    add("224.0.0.5", pass(Multicast), ip(to([224, 0, 0, 5])));
    add("239.255.255.255", pass(Multicast), ip(to([239, 255, 255, 255])));
    add("ff02::1", pass(Multicast), ip6(to6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets())));
    add("169.254.169.254", pass(LinkLocal), ip(to([169, 254, 169, 254])));
    add("fe80::1", pass(LinkLocal), ip6(to6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets())));
    add("febf::1", pass(LinkLocal), ip6(to6(Ipv6Addr::new(0xfebf, 0, 0, 0, 0, 0, 0, 1).octets())));
    add("fec0::1", worker(Forward), ip6(to6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 1).octets())));
    add("127.0.0.1", pass(Loopback), ip(to([127, 0, 0, 1])));
    add("::1", pass(Loopback), ip6(to6(Ipv6Addr::LOCALHOST.octets())));
    add("255.255.255.255", pass(LimitedBroadcast), ip(to([255; 4])));
    add("240.0.0.1", worker(Forward), ip(to([240, 0, 0, 1])));
    add("subnet broadcast", pass(SubnetBroadcast), ip(to([192, 0, 2, 255])));
    add("subnet broadcast, other VRF", worker(Forward), tagged(VLAN_MAC, VLAN, EtherType::IPV4, &to([192, 0, 2, 255])));
    add("DHCP answer", pass(Dhcp), ip(ipv4(NEIGHBOUR, AWAY, UDP, 0, &[], &udp(68, &[0; 20]))));
    add("DHCP answer, options", pass(Dhcp), ip(ipv4(NEIGHBOUR, AWAY, UDP, 0, &[1; 40], &udp(68, &[0; 20]))));
    add("TCP to 68", worker(Forward), ip(ipv4(NEIGHBOUR, AWAY, protocol::TCP, 0, &[], &udp(68, &[0; 20]))));
    add("later fragment, 68 within", worker(Forward), ip(ipv4(NEIGHBOUR, AWAY, UDP, 100, &[], &udp(68, &[0; 20]))));
    add("DHCPv6 answer", pass(Dhcp), ip6(ipv6(REMOTE6, AWAY6, UDP, &udp(546, &[0; 20]))));
    add("IKE", pass(Ike), ip(ipv4(AWAY, OWN, UDP, 0, &[], &udp(500, &[1; 28]))));
    add("IKE over IPv6", pass(Ike), ip6(ipv6(AWAY6, OWN6, UDP, &udp(500, &[1; 28]))));
    add("IKE, NAT", pass(Ike), ip(ipv4(ESP_REMOTE, OWN, UDP, 0, &[], &udp(4500, &[0, 0, 0, 0, 1, 1]))));
    add("ESP, NAT", worker(Tunnel), ip(ipv4(ESP_REMOTE, OWN, UDP, 0, &[], &udp(4500, &[0, 0, 0, 7, 1, 1]))));
    add("NAT keepalive", worker(Tunnel), ip(ipv4(ESP_REMOTE, OWN, UDP, 0, &[], &udp(4500, &[0xff]))));
    add("IKE of others", worker(Forward), ip(ipv4(NEIGHBOUR, AWAY, UDP, 0, &[], &udp(500, &[1; 28]))));
    add("own address", pass(OwnAddress), ip(to(OWN)));
    add("own address, priority tag", pass(OwnAddress), tagged(MAC, 0x6000, EtherType::IPV4, &to(OWN)));
    add("own address, VLAN", pass(OwnAddress), tagged(VLAN_MAC, VLAN | 0xa000, EtherType::IPV4, &to(AWAY)));
    add("own address of another VRF", worker(Forward), tagged(VLAN_MAC, VLAN, EtherType::IPV4, &to(OWN)));
    add("own IPv6 address", pass(OwnAddress), ip6(to6(OWN6)));
    add("ping", pass(OwnAddress), ip(ipv4(AWAY, OWN, protocol::ICMP, 0, &[], &icmp(icmpv4::ECHO_REQUEST, &[0; 56]))));
    add("another's VXLAN", pass(OwnAddress), ip(ipv4(AWAY, OWN, UDP, 0, &[], &udp(VXLAN, &[8; 16]))));
    add("another port", pass(OwnAddress), ip(ipv4(REMOTE, OWN, UDP, 0, &[], &udp(8472, &[8; 16]))));
    add("TCP to the tunnel's port", pass(OwnAddress), ip(ipv4(REMOTE, OWN, 6, 0, &[], &udp(VXLAN, &[8; 16]))));
    add("VXLAN", worker(Tunnel), ip(ipv4(REMOTE, OWN, UDP, 0, &[], &udp(VXLAN, &[8; 16]))));
    add("VXLAN, options", worker(Tunnel), ip(ipv4(REMOTE, OWN, UDP, 0, &[1; 8], &udp(VXLAN, &[8; 16]))));
    add("VXLAN, DF", worker(Tunnel), ip(ipv4(REMOTE, OWN, UDP, 0x4000, &[], &udp(VXLAN, &[8; 16]))));
    add("GRE", worker(Tunnel), ip(ipv4(GRE_REMOTE, OWN, protocol::GRE, 0, &[], &[0; 24])));
    add("GRE from elsewhere", pass(OwnAddress), ip(ipv4(REMOTE, OWN, protocol::GRE, 0, &[], &[0; 24])));
    add("GENEVE from anywhere", worker(Tunnel), ip(ipv4(AWAY, ANY_END, UDP, 0, &[], &udp(GENEVE, &[0; 16]))));
    add("end without address", worker(Forward), ip(to(ANY_END)));
    add("VXLAN over IPv6", worker(Tunnel), ip6(ipv6(REMOTE6, OWN6, UDP, &udp(VXLAN, &[8; 16]))));
    add("GENEVE over IPv6", worker(Tunnel), ip6(ipv6(AWAY6, ANY_END6, UDP, &udp(GENEVE, &[8; 16]))));
    // What Linux sends by default: a destination option with the encapsulation limit (RFC 2473 §4.1.1).
    let limited = [extension(protocol::IPV6, 1), vec![0x60; 40]].concat();
    add("ip6ip6, limit option", worker(Tunnel), ip6(ipv6(IP6IP6_REMOTE, OWN6, 60, &limited)));
    let limited = [fragment(60, 0, true), extension(protocol::IPV6, 1), vec![0x60; 40]].concat();
    add("ip6ip6, limit, fragment", worker(TunnelFragment), ip6(ipv6(IP6IP6_REMOTE, OWN6, 44, &limited)));
    add("first fragment", worker(TunnelFragment), ip(ipv4(REMOTE, OWN, UDP, 0x2000, &[], &udp(VXLAN, &[8; 16]))));
    add("last fragment", worker(TunnelFragment), ip(ipv4(REMOTE, OWN, UDP, 100, &[], &[8; 16])));
    add("fragment, any end", worker(TunnelFragment), ip(ipv4(AWAY, ANY_END, UDP, 100, &[], &[8; 16])));
    add("fragment from elsewhere", pass(OwnAddress), ip(ipv4(AWAY, OWN, UDP, 100, &[], &[8; 16])));
    let last = [fragment(UDP, 1200, false), vec![8; 16]].concat();
    add("IPv6 fragment", worker(TunnelFragment), ip6(ipv6(REMOTE6, OWN6, 44, &last)));
    add("IPv6 fragment, any end", worker(TunnelFragment), ip6(ipv6(AWAY6, ANY_END6, 44, &last)));
    add("IPv6 fragment from elsewhere", pass(OwnAddress), ip6(ipv6(AWAY6, OWN6, 44, &last)));
    add("fragment in transit", worker(Forward), ip6(ipv6(REMOTE6, AWAY6, 44, &last)));

    let sent = ipv4(OWN, REMOTE, UDP, 0x4000, &[], &udp(VXLAN, &[8; 16]));
    let error = |kind, quoted: &[u8]| ip(ipv4(ROUTER, OWN, protocol::ICMP, 0, &[], &icmp(kind, quoted)));
    add("frag needed", worker(TunnelError), error(icmpv4::UNREACHABLE, &sent));
    add("frag needed, eight octets", worker(TunnelError), error(icmpv4::UNREACHABLE, &sent[..28]));
    add("time exceeded", worker(TunnelError), error(icmpv4::TIME_EXCEEDED, &sent));
    add("redirect", pass(OwnAddress), error(icmpv4::REDIRECT, &sent));
    let piece = ipv4(OWN, REMOTE, UDP, 100, &[], &[8; 16]);
    add("error about a fragment", worker(TunnelError), error(icmpv4::TIME_EXCEEDED, &piece));
    let back = ipv4(REMOTE, OWN, UDP, 0, &[], &udp(VXLAN, &[8; 16]));
    add("quote the wrong way round", pass(OwnAddress), error(icmpv4::UNREACHABLE, &back));
    let other = ipv4(OWN, AWAY, UDP, 0, &[], &udp(VXLAN, &[8; 16]));
    add("error about another's packet", pass(OwnAddress), error(icmpv4::UNREACHABLE, &other));
    add("error without a quote", pass(OwnAddress), error(icmpv4::UNREACHABLE, &[]));
    let gre = ipv4(OWN, GRE_REMOTE, protocol::GRE, 0, &[], &[0; 8]);
    add("error about GRE", worker(TunnelError), error(icmpv4::UNREACHABLE, &gre));
    let geneve = ipv4(ANY_END, AWAY, UDP, 0, &[], &udp(GENEVE, &[0; 8]));
    let to_any = ipv4(ROUTER, ANY_END, protocol::ICMP, 0, &[], &icmp(icmpv4::UNREACHABLE, &geneve));
    add("error to any end", worker(TunnelError), ip(to_any));
    let sent = ipv6(OWN6, REMOTE6, UDP, &udp(VXLAN, &[8; 16]));
    let error = |kind, quoted: &[u8]| ip6(ipv6(AWAY6, OWN6, protocol::ICMPV6, &icmp(kind, quoted)));
    add("packet too big", worker(TunnelError), error(icmpv6::PACKET_TOO_BIG, &sent));
    add("IPv6 redirect", pass(OwnAddress), error(icmpv6::REDIRECT, &sent));
    let piece = ipv6(OWN6, REMOTE6, 44, &last);
    add("error about an IPv6 fragment", worker(TunnelError), error(icmpv6::TIME_EXCEEDED, &piece));

    add("kernel's prefix", pass(KernelRoute), ip(to([198, 19, 1, 1])));
    add("ours within the kernel's", worker(Forward), ip(to([198, 18, 5, 1])));
    add("kernel's prefix, other VRF", worker(Forward), tagged(VLAN_MAC, VLAN, EtherType::IPV4, &to([198, 19, 1, 1])));
    add("kernel's IPv6 prefix", pass(KernelRoute), ip6(to6(six(0xaaaa, 1))));
    add("ours within the kernel's, IPv6", worker(Forward), ip6(to6(six(0xaaaa, 0x55))));
    add("transit", worker(Forward), ip(to(AWAY)));
    add("IPv6 transit", worker(Forward), ip6(to6(AWAY6)));
    add("a header's worth of IPv4", worker(Malformed), ethernet(MAC, EtherType::IPV4, &to(AWAY)[..19]));
    add("version 5", worker(Malformed), ethernet(MAC, EtherType::IPV4, &[0x55; 40]));
    add("IPv6 in an IPv4 frame", worker(Malformed), ethernet(MAC, EtherType::IPV4, &to6(AWAY6)));
    add(
        "IPv4 in an IPv6 frame",
        worker(Malformed),
        ethernet(MAC, EtherType::IPV6, &[&to(AWAY)[..], &[0; 20]].concat()),
    );
    add("IHL 4", worker(Malformed), ethernet(MAC, EtherType::IPV4, &[0x44; 40]));
    let chain = |count: u8| {
        let mut chain: Vec<u8> = (1..count).flat_map(|_| extension(60, 1)).collect();
        chain.extend(extension(UDP, 2));
        chain.extend(udp(VXLAN, &[8; 16]));
        ip6(ipv6(REMOTE6, OWN6, 60, &chain))
    };
    add("four extension headers", worker(Tunnel), chain(4));
    add("five extension headers", worker(Extensions), chain(5));
    add("extensions in transit", worker(Forward), ip6(ipv6(REMOTE6, AWAY6, 0, &[60; 24])));
    add("cut extension header", worker(Malformed), ip6(ipv6(REMOTE6, OWN6, 60, &[60, 9, 0, 0, 0, 0, 0, 0])));
    samples
}
