//! IP packets between the client and the server of a [`pair`](crate::pair), by etherparse.

use crate::scene::{CLIENT, CLIENT6, SERVER, SERVER6};
use dataplane::packet::Family::{self, V4, V6};
use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpOptionElement};

/// An IP packet after so many hops: TTL less, and the IPv4 header checksum computed again.
pub fn after_hops(packet: &[u8], hops: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= hops;
    } else {
        packet[8] -= hops;
        mend(&mut packet);
    }
    packet
}

/// Makes the checksum of the IPv4 header at the start right.
pub fn mend(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..header]).ones_complement();
        // The sum is in memory order.
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// The packet with another DSCP and ECN.
pub fn marked(packet: &[u8], tos: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = tos << 4 | packet[1] & 0xf;
    } else {
        packet[1] = tos;
        mend(&mut packet);
    }
    packet
}

/// DSCP and ECN of a packet.
pub fn tos_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 6 { packet[0] << 4 | packet[1] >> 4 } else { packet[1] }
}

/// An IP header from the client to the server, or back.
pub fn ip(family: Family, back: bool) -> IpHeaders {
    match family {
        V4 => {
            let (source, destination) = if back { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
            let mut header = Ipv4Header::new(0, 64, 17.into(), source, destination).expect("it is short");
            (header.dont_fragment, header.identification) = (false, 0x1234);
            IpHeaders::Ipv4(header, Default::default())
        }
        V6 => {
            let (source, destination) = if back { (SERVER6, CLIENT6) } else { (CLIENT6, SERVER6) };
            let flow_label = 0x1_2345.try_into().expect("20 bits");
            let header = Ipv6Header { source, destination, hop_limit: 64, flow_label, ..Default::default() };
            IpHeaders::Ipv6(header, Default::default())
        }
    }
}

/// Octets that are not all the same.
pub fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn builder(family: Family) -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ip(ip(family, false))
}

/// UDP from the client to the server.
pub fn udp(family: Family, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(family).udp(4000, 5000).write(&mut packet, &data(payload)).expect("it fits");
    packet
}

/// A TCP segment from the client to the server.
pub fn tcp(family: Family, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(family).tcp(4000, 80, 1000, 64_000).write(&mut packet, &data(payload)).expect("it fits");
    packet
}

/// An echo request from the client to the server.
pub fn echo(family: Family, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    match family {
        V4 => builder(V4).icmpv4_echo_request(7, 1).write(&mut packet, &data(payload)),
        V6 => builder(V6).icmpv6_echo_request(7, 1).write(&mut packet, &data(payload)),
    }
    .expect("it fits");
    packet
}

/// A SYN with an MSS, from the client to the server or back.
pub fn syn(family: Family, back: bool, mss: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ip(ip(family, back))
        .tcp(4000, 80, 1000, 64_000)
        .syn()
        .options(&[TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(mss)])
        .expect("they fit")
        .write(&mut packet, &[])
        .expect("it fits");
    packet
}

/// A packet of exactly so many octets, as `make` makes it of a length of payload.
pub fn of_length(length: usize, make: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let headers = make(0).len();
    make(length - headers)
}

/// UDP in IPv4 that routers may not cut.
pub fn whole(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[6] |= 0x40;
        mend(&mut packet);
    }
    packet
}
