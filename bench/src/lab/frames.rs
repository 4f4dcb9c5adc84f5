//! The frames that are sent, and what has to become of them.

use super::site::{DUT_IN, DUT_OUT, FAR_END, GENERATOR, SINK, TUNNEL_NEAR, TUNNEL_PEER, VNI};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::net::Ipv4Addr;

/// Octets of a frame, without the check sequence.
pub const FRAME: usize = 64;
/// How many flows there are: each has a destination and a source port of its own.
pub const FLOWS: u32 = 1024;
/// The TTL that frames start with.
const TTL: u8 = 64;

/// The frame of one flow.
pub fn sent(flow: u32) -> Vec<u8> {
    packet(flow, GENERATOR, DUT_IN, TTL)
}

/// What the sink has to get of that frame, forwarded without a tunnel.
pub fn forwarded(flow: u32) -> Vec<u8> {
    packet(flow, DUT_OUT, SINK, TTL - 1)
}

fn packet(flow: u32, source: [u8; 6], destination: [u8; 6], ttl: u8) -> Vec<u8> {
    let [_, _, high, low] = flow.to_be_bytes();
    let builder = PacketBuilder::ethernet2(source, destination)
        .ipv4([203, 0, 113, 2], [198, 18, high, low], ttl)
        .udp(1024 + flow as u16, 9);
    let payload = vec![0x5a; FRAME - builder.size(0)];
    let mut frame = Vec::with_capacity(FRAME);
    builder.write(&mut frame, &payload).expect("a frame of 64 octets fits its fields");
    frame
}

/// How a frame that reached the sink differs from what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Not the frame of any flow, with the TTL one lower and the right MAC addresses.
    #[error("not one of the sent packets with its TTL one lower, from the right MAC address to the right one")]
    Inside,
    /// No VXLAN.
    #[error("no VXLAN over UDP port 4789 over IPv4")]
    Protocol,
    /// Between others.
    #[error("the outer addresses, or its MAC addresses, are not those of the tunnel's ends")]
    Ends,
    /// The header of VXLAN itself.
    #[error("the VXLAN header does not say VNI 5001 and nothing else")]
    Vni,
    /// Outer checksum.
    #[error("the outer IPv4 or UDP checksum is wrong")]
    Checksum,
}

/// Checks a frame without a tunnel, octet for octet.
pub fn check_plain(frame: &[u8]) -> Result<(), Wrong> {
    (0..FLOWS).any(|flow| forwarded(flow) == frame).then_some(()).ok_or(Wrong::Inside)
}

/// Checks the outer headers of a frame, and what is inside octet for octet.
pub fn check_vxlan(frame: &[u8]) -> Result<(), Wrong> {
    let outer = SlicedPacket::from_ethernet(frame).map_err(|_| Wrong::Protocol)?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&outer.net, &outer.transport) else {
        return Err(Wrong::Protocol);
    };
    if udp.destination_port() != 4789 {
        return Err(Wrong::Protocol);
    }
    let header = ip.header();
    let ends = (header.source_addr(), header.destination_addr());
    if ends != (TUNNEL_NEAR, FAR_END) || frame[..6] != SINK || frame[6..12] != DUT_OUT {
        return Err(Wrong::Ends);
    }
    let with_checksum = udp.to_header().calc_checksum_ipv4(&header.to_header(), udp.payload());
    let udp_right = udp.checksum() == 0 || with_checksum.is_ok_and(|sum| sum == udp.checksum());
    if header.header_checksum() != header.to_header().calc_header_checksum() || !udp_right {
        return Err(Wrong::Checksum);
    }
    let Some((vxlan, inside)) = udp.payload().split_first_chunk::<8>() else { return Err(Wrong::Vni) };
    let [high, middle, low] = [(VNI >> 16) as u8, (VNI >> 8) as u8, VNI as u8];
    if *vxlan != [8, 0, 0, 0, high, middle, low, 0] {
        return Err(Wrong::Vni);
    }
    // The tunnel's own MAC address is the device's business.
    let is_inside = |flow| inside.get(..6) == Some(&TUNNEL_PEER) && inside.get(12..) == Some(&forwarded(flow)[12..]);
    (0..FLOWS).any(is_inside).then_some(()).ok_or(Wrong::Inside)
}

/// What the sink counts: four octets at an offset, under a mask, in network order.
pub type Field = (u32, u32, u32);

/// The fields of a frame that tell a right one from all others: TTL and protocol, and the destination.
pub fn plain_fields() -> [Field; 2] {
    [(22, 0xffff_0000, ttl_and_udp()), (30, 0xfffe_0000, Ipv4Addr::new(198, 18, 0, 0).to_bits())]
}

/// The same in a tunnel: the VNI, and the inner TTL and protocol.
pub fn vxlan_fields() -> [Field; 2] {
    [(46, 0xffff_ff00, VNI << 8), (72, 0xffff_0000, ttl_and_udp())]
}

fn ttl_and_udp() -> u32 {
    u32::from_be_bytes([TTL - 1, 17, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encapsulated(flow: u32) -> Vec<u8> {
        let mut inside = forwarded(flow);
        inside[..6].copy_from_slice(&TUNNEL_PEER);
        let vxlan = [8, 0, 0, 0, 0, 0x13, 0x89, 0];
        let builder =
            PacketBuilder::ethernet2(DUT_OUT, SINK).ipv4(TUNNEL_NEAR.octets(), FAR_END.octets(), 64).udp(50_000, 4789);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[&vxlan[..], &inside].concat()).expect("it fits");
        frame
    }

    fn matches(frame: &[u8], fields: [Field; 2]) -> bool {
        fields.iter().all(|(at, mask, value)| {
            let at = *at as usize;
            u32::from_be_bytes(frame[at..at + 4].try_into().expect("four octets")) & mask == *value
        })
    }

    #[test]
    fn each_flow_has_a_frame_of_64_octets_of_its_own() {
        let mut all: Vec<_> = (0..FLOWS).map(sent).collect();
        assert!(all.iter().all(|frame| frame.len() == FRAME));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), FLOWS as usize);
    }

    #[test]
    fn takes_what_a_router_makes_of_a_frame_and_nothing_else() {
        let right = forwarded(700);
        assert_eq!(check_plain(&right), Ok(()));
        assert!(matches(&right, plain_fields()));
        assert!(!matches(&sent(700), plain_fields()), "its TTL is the old one");
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            assert!(check_plain(&wrong).is_err(), "octet {at}");
        }
        assert!(check_plain(&right[..63]).is_err());
    }

    #[test]
    fn takes_what_a_tunnel_makes_of_a_frame_and_nothing_else() {
        let right = encapsulated(3);
        assert_eq!(check_vxlan(&right), Ok(()));
        assert!(matches(&right, vxlan_fields()));
        let mut unsummed = right.clone();
        unsummed[40..42].fill(0);
        assert_eq!(check_vxlan(&unsummed), Ok(()), "over IPv4 the outer UDP checksum may be left out");
        for at in (0..right.len()).filter(|at| !(56..62).contains(at)) {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            assert!(check_vxlan(&wrong).is_err(), "octet {at}");
        }
        // Without the checksum, only the look at the fields themselves tells; the source port may be any.
        for at in (0..right.len()).filter(|at| !(56..62).contains(at) && !(34..36).contains(at)) {
            let mut wrong = unsummed.clone();
            wrong[at] ^= 4;
            assert!(check_vxlan(&wrong).is_err(), "octet {at} without a checksum");
        }
        for at in 0..right.len() {
            assert!(check_vxlan(&right[..at]).is_err(), "cut at {at}");
        }
    }
}
