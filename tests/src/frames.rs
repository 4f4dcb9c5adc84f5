//! Frames made and read with etherparse: another opinion on every header and checksum.

use crate::pcap::Frame;
use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpSlice, Ipv4Slice, Ipv6Slice, LinkExtSlice, NetSlice, SlicedPacket, TcpSlice,
    TransportSlice, UdpSlice, checksum,
};
use std::net::IpAddr;

/// UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;

/// What is in a frame, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Destination MAC.
    pub to: [u8; 6],
    /// Source MAC.
    pub from: [u8; 6],
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// The IP packet, if it is one.
    pub ip: Option<Ip>,
}

/// An IP packet, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN, as one octet.
    pub tos: u8,
    /// IPv4: don't fragment.
    pub dont_fragment: bool,
    /// Offset in octets, more to come; `None` for a whole packet.
    pub fragment: Option<(u16, bool)>,
    /// Octets, IP header included.
    pub length: usize,
    /// What follows the IP header and its extensions.
    pub protocol: u8,
    /// That, octet by octet.
    pub payload: Vec<u8>,
    /// Ports of UDP or TCP.
    pub ports: Option<(u16, u16)>,
    /// MSS option of TCP.
    pub mss: Option<u16>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
    /// VNI and inner frame of VXLAN.
    pub vxlan: Option<(u32, Box<Decoded>)>,
}

/// Frames of a capture of the underlay whose outermost addresses are those of what belongs into a tunnel.
pub fn in_clear(frames: &[Frame], tenant: &[IpAddr]) -> Vec<String> {
    let leaked = |frame: &Frame| {
        let ip = decode(&frame.octets).ok()?.ip?;
        let inner = tenant.contains(&ip.source) || tenant.contains(&ip.destination);
        inner.then(|| format!("{} > {}", ip.source, ip.destination))
    };
    frames.iter().filter_map(leaked).collect()
}

/// Whether a capture has seen a tunnel.
pub fn has_vxlan(frames: &[Frame]) -> bool {
    let is_vxlan = |frame: &Frame| Some(decode(&frame.octets).ok()?.ip?.vxlan.is_some());
    frames.iter().any(|frame| is_vxlan(frame) == Some(true))
}

impl Decoded {
    /// The packet inside the tunnel, or the packet itself where there is none.
    pub fn innermost(&self) -> Option<&Ip> {
        match self.ip.as_ref()? {
            Ip { vxlan: Some((_, inner)), .. } => inner.innermost(),
            ip => Some(ip),
        }
    }
}

/// Reads a frame with everything in it.
///
/// # Errors
///
/// What is wrong with it: a header cut short, or a checksum that is not right.
pub fn decode(frame: &[u8]) -> Result<Decoded, Wrong> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|_| Wrong::Cut)?;
    let (to, from) = (*frame.first_chunk().ok_or(Wrong::Cut)?, *frame[6..].first_chunk().ok_or(Wrong::Cut)?);
    let vlan = sliced.link_exts.iter().find_map(|header| match header {
        LinkExtSlice::Vlan(vlan) => Some(vlan.vlan_identifier().value()),
        _ => None,
    });
    let ip = match &sliced.net {
        Some(NetSlice::Ipv4(slice)) => Some(decode_v4(slice, sliced.transport.as_ref())?),
        Some(NetSlice::Ipv6(slice)) => Some(decode_v6(slice, sliced.transport.as_ref())?),
        _ => None,
    };
    Ok(Decoded { to, from, vlan, ip })
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A header or what its length promises is not there.
    Cut,
    /// The checksum of the IPv4 header.
    Ipv4Checksum,
    /// The checksum of UDP.
    UdpChecksum,
    /// The checksum of TCP.
    TcpChecksum,
    /// The checksum of ICMP.
    IcmpChecksum,
    /// The VXLAN header has reserved bits set, or lacks the I flag.
    VxlanHeader,
}

fn decode_v4(slice: &Ipv4Slice<'_>, transport: Option<&TransportSlice<'_>>) -> Result<Ip, Wrong> {
    let header = slice.header();
    if header.to_header().calc_header_checksum() != header.header_checksum() {
        return Err(Wrong::Ipv4Checksum);
    }
    let offset = header.fragments_offset().byte_offset();
    let ip = Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        ttl: header.ttl(),
        tos: header.dcp().value() << 2 | header.ecn().value(),
        dont_fragment: header.dont_fragment(),
        fragment: header.is_fragmenting_payload().then_some((offset, header.more_fragments())),
        length: header.total_len().into(),
        protocol: slice.payload_ip_number().0,
        payload: slice.payload().payload.to_vec(),
        ports: None,
        mss: None,
        icmp: None,
        vxlan: None,
    };
    with_transport(ip, transport)
}

fn decode_v6(slice: &Ipv6Slice<'_>, transport: Option<&TransportSlice<'_>>) -> Result<Ip, Wrong> {
    let header = slice.header();
    let ip = Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        ttl: header.hop_limit(),
        tos: header.traffic_class(),
        dont_fragment: false,
        fragment: None,
        length: usize::from(header.payload_length()) + 40,
        protocol: slice.payload().ip_number.0,
        payload: slice.payload().payload.to_vec(),
        ports: None,
        mss: None,
        icmp: None,
        vxlan: None,
    };
    with_transport(ip, transport)
}

fn with_transport(mut ip: Ip, transport: Option<&TransportSlice<'_>>) -> Result<Ip, Wrong> {
    match transport {
        Some(TransportSlice::Udp(udp)) => udp_into(&mut ip, udp)?,
        Some(TransportSlice::Tcp(tcp)) => tcp_into(&mut ip, tcp)?,
        Some(TransportSlice::Icmpv4(icmp)) => icmpv4_into(&mut ip, icmp)?,
        Some(TransportSlice::Icmpv6(icmp)) => icmpv6_into(&mut ip, icmp)?,
        _ => {}
    }
    Ok(ip)
}

fn udp_into(ip: &mut Ip, udp: &UdpSlice<'_>) -> Result<(), Wrong> {
    if usize::from(udp.length()) != ip.payload.len() {
        return Err(Wrong::Cut);
    }
    // Zero means none: IPv4 allows it, and tunnels over IPv6 (RFC 6935).
    if udp.checksum() != 0 && !sums_up(ip) {
        return Err(Wrong::UdpChecksum);
    }
    ip.ports = Some((udp.source_port(), udp.destination_port()));
    if udp.destination_port() == VXLAN_PORT {
        let (header, inner) = udp.payload().split_first_chunk::<8>().ok_or(Wrong::Cut)?;
        let [8, 0, 0, 0, a, b, c, 0] = *header else { return Err(Wrong::VxlanHeader) };
        ip.vxlan = Some((u32::from_be_bytes([0, a, b, c]), Box::new(decode(inner)?)));
    }
    Ok(())
}

fn tcp_into(ip: &mut Ip, tcp: &TcpSlice<'_>) -> Result<(), Wrong> {
    if !sums_up(ip) {
        return Err(Wrong::TcpChecksum);
    }
    ip.ports = Some((tcp.source_port(), tcp.destination_port()));
    ip.mss = tcp.options_iterator().flatten().find_map(|option| match option {
        etherparse::TcpOptionElement::MaximumSegmentSize(mss) => Some(mss),
        _ => None,
    });
    Ok(())
}

fn icmpv4_into(ip: &mut Ip, icmp: &Icmpv4Slice<'_>) -> Result<(), Wrong> {
    let sum = checksum::Sum16BitWords::new().add_slice(&ip.payload).ones_complement();
    ip.icmp = Some((icmp.type_u8(), icmp.code_u8()));
    if sum == 0 { Ok(()) } else { Err(Wrong::IcmpChecksum) }
}

fn icmpv6_into(ip: &mut Ip, icmp: &Icmpv6Slice<'_>) -> Result<(), Wrong> {
    ip.icmp = Some((icmp.type_u8(), icmp.code_u8()));
    if sums_up(ip) { Ok(()) } else { Err(Wrong::IcmpChecksum) }
}

/// Whether payload and pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) sum up to what a right checksum makes of them.
fn sums_up(ip: &Ip) -> bool {
    let mut sum = checksum::Sum16BitWords::new().add_slice(&ip.payload).add_2bytes([0, ip.protocol]);
    sum = sum.add_4bytes((ip.payload.len() as u32).to_be_bytes());
    let sum = match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum.add_4bytes(source.octets()).add_4bytes(destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum.add_16bytes(source.octets()).add_16bytes(destination.octets())
        }
        _ => return false,
    };
    sum.ones_complement() == 0
}

/// The IP packet of a frame: no Ethernet header, no padding.
///
/// # Panics
///
/// If the frame is not IP.
#[track_caller]
pub fn ip_of(frame: &[u8]) -> &[u8] {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a frame of ours");
    let packet = sliced.ether_payload().expect("a frame of ours").payload;
    let length = match IpSlice::from_slice(packet).expect("a frame of ours") {
        IpSlice::Ipv4(slice) => usize::from(slice.header().total_len()),
        IpSlice::Ipv6(slice) => usize::from(slice.header().payload_length()) + 40,
    };
    &packet[..length]
}

/// Wraps a frame in VXLAN: UDP payload of the outer packet.
pub fn vxlan(vni: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[8, 0, 0, 0, a, b, c, 0], inner].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn frame() -> Vec<u8> {
        let mut inner = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 18, 1, 10], [198, 18, 2, 10], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut inner, b"inside")
            .expect("it fits");
        let mut outer = Vec::new();
        PacketBuilder::ethernet2([6; 6], [8; 6])
            .ipv6([1; 16], [3; 16], 64)
            .udp(50_000, VXLAN_PORT)
            .write(&mut outer, &vxlan(5001, &inner))
            .expect("it fits");
        outer
    }

    #[test]
    fn reads_what_is_inside_a_tunnel() {
        let decoded = decode(&frame()).expect("every checksum is right");
        let (vni, _) = decoded.ip.as_ref().and_then(|ip| ip.vxlan.as_ref()).expect("VXLAN");
        assert_eq!(*vni, 5001);
        assert_eq!(decoded.innermost().and_then(|ip| ip.ports), Some((1, 2)));
    }

    #[test]
    fn notices_every_octet_that_a_checksum_covers() {
        let good = frame();
        // From the outer IPv6 addresses on, a UDP checksum covers everything.
        for at in 14 + 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let (udp, zeroed) = (14 + 40, bad[14 + 40 + 6..14 + 40 + 8] == [0, 0]);
            assert!(zeroed || decode(&bad).is_err(), "octet {at}, UDP header at {udp}");
        }
    }
}
