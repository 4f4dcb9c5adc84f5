//! What a router asks of every IP packet, once: RFC 1812 §5.2.2 and RFC 8200; and what it changes in it.

use super::flow::Transport;
use super::{DropReason, Exit, Family, FlowHash, Origin, Packet, Traits};
use wire::checksum::{Sum, update};
use wire::{Be16, Ecn, Ipv4, Ipv6, Ipv6Fragment, Octets, Tcp, Udp, header_mut, is_extension, protocol};
use zerocopy::IntoBytes;

use DropReason::{
    BadChecksum, BadHeaderLength, BadLength, BadVersion, FragmentationNeeded, MartianDestination, MartianSource,
    PacketTooBig, Truncated, TtlExpired,
};

/// Zero, as a sum of 16-bit words from which a few can be taken away.
const NOTHING: u64 = 0xffff << 32;

/// Extension headers that are followed in search of the transport header.
const EXTENSIONS: usize = 8;

impl Packet {
    /// Writes the ECN field of the IP header, the checksum updated (RFC 1624). What is no IP packet stays as it is.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        self.set_tos(self.tos & !3 | ecn as u8);
    }

    /// Checks the IP header at `l3`, whose family the layer below has announced, and fills in what later stages
    /// ask for. Octets behind the IP packet (Ethernet padding) are cut off.
    ///
    /// # Errors
    ///
    /// The drop whose RFC clause the header violates.
    #[inline(always)]
    pub fn parse(&mut self, hash: &FlowHash) -> Result<(), Exit> {
        match self.family {
            Family::V4 => self.parse_v4(hash),
            Family::V6 => self.parse_v6(hash),
        }?;
        if self.traits.has(Traits::UNFINISHED) {
            self.finish_checksum();
        }
        Ok(())
    }

    #[inline(always)]
    fn parse_v4(&mut self, hash: &FlowHash) -> Result<(), Exit> {
        let header: &Ipv4 = self.frame.bytes().header(self.l3.into()).ok_or(Exit::Drop(Truncated))?;
        // Twice the same: nearly every header is of this length, and a known length saves a quarter of the work.
        if header.version_ihl == 0x45 { self.read_v4(Ipv4::SIZE, hash) } else { self.read_v4_with_options(hash) }
    }

    #[cold]
    fn read_v4_with_options(&mut self, hash: &FlowHash) -> Result<(), Exit> {
        let header: &Ipv4 = self.frame.bytes().header(self.l3.into()).ok_or(Exit::Drop(Truncated))?;
        // RFC 1812 §5.2.2: (3) version, (4) header length.
        if header.version() != 4 {
            return Err(Exit::Drop(BadVersion));
        }
        if header.header_length() < Ipv4::SIZE {
            return Err(Exit::Drop(BadHeaderLength));
        }
        self.read_v4(header.header_length(), hash)
    }

    #[inline(always)]
    fn read_v4(&mut self, header_length: usize, hash: &FlowHash) -> Result<(), Exit> {
        let l3 = usize::from(self.l3);
        let octets = self.frame.bytes();
        let header: &Ipv4 = octets.header(l3).ok_or(Exit::Drop(Truncated))?;
        // RFC 1812 §5.2.2: (5) total length, (2) checksum.
        let total = usize::from(header.total_length.value());
        if total < header_length {
            return Err(Exit::Drop(BadLength));
        }
        let sum = if header_length == Ipv4::SIZE {
            sum_of_plain(header)
        } else {
            let mut sum = Sum::new();
            sum.add(octets.get(l3..l3 + header_length).ok_or(Exit::Drop(Truncated))?);
            sum.folded()
        };
        if sum != 0xffff {
            return Err(Exit::Drop(BadChecksum));
        }
        let (source, destination) = (header.source.value(), header.destination.value());
        let mut traits = self.traits;
        if NOT_UNICAST[(source >> 24) as usize] | NOT_UNICAST[(destination >> 24) as usize] {
            traits.set(judge_v4(source, destination)?);
        }
        let fragment = header.fragment.value();
        if fragment & Ipv4::DF != 0 {
            traits.set(Traits::DONT_FRAGMENT);
        }
        if fragment & (Ipv4::MF | Ipv4::OFFSET) != 0 {
            traits.set(of_fragment(fragment & Ipv4::OFFSET != 0));
        }
        let l4 = l3 + header_length;
        self.flow = hash.v4(source, destination, Transport::read(octets, l4, header.protocol, traits));
        self.protocol = header.protocol;
        self.tos = header.tos;
        self.traits = traits;
        self.len = total as u32;
        self.l4 = l4 as u16;
        self.trim(l3 + total)
    }

    #[inline(always)]
    fn parse_v6(&mut self, hash: &FlowHash) -> Result<(), Exit> {
        let l3 = usize::from(self.l3);
        let octets = self.frame.bytes();
        let header: &Ipv6 = octets.header(l3).ok_or(Exit::Drop(Truncated))?;
        if header.version() != 6 {
            return Err(Exit::Drop(BadVersion));
        }
        let total = Ipv6::SIZE + usize::from(header.payload_length.value());
        let (source, destination) = (header.source_bits(), header.destination_bits());
        let mut traits = self.traits;
        traits.set(Traits::DONT_FRAGMENT); // RFC 8200 §5: no router fragments IPv6
        // RFC 4291 §2.5.2, §2.5.3, §2.7.
        if martian_v6(source) {
            return Err(Exit::Drop(MartianSource));
        }
        if martian_v6(destination) {
            return Err(Exit::Drop(MartianDestination));
        }
        if source >> 118 == 0x3fa || destination >> 118 == 0x3fa {
            traits.set(Traits::LINK_LOCAL);
        }
        let (tos, flow_label) = (header.traffic_class(), header.flow_label());
        let (mut next, mut l4) = (header.next_header, l3 + Ipv6::SIZE);
        if is_extension(next) || next == protocol::FRAGMENT {
            (next, l4) = self.follow_extensions(next, l4, &mut traits);
        }
        let transport = Transport::read(self.frame.bytes(), l4, next, traits);
        self.flow = hash.v6(source, destination, flow_label, transport);
        self.protocol = next;
        self.tos = tos;
        self.traits = traits;
        self.len = total as u32;
        self.l4 = l4 as u16;
        self.trim(l3 + total)
    }

    /// Reads the header of a packet of which only the start is there, quoted in an ICMP error: what an error about it
    /// depends on. `false` if it is none that a host sends.
    pub(crate) fn read_quoted(&mut self) -> bool {
        let l3 = usize::from(self.l3);
        let octets = self.frame.bytes();
        let mut traits = self.traits;
        let (protocol, l4) = match self.family {
            Family::V4 => {
                let Some(header) = octets.header::<Ipv4>(l3) else { return false };
                let end = l3 + header.header_length();
                let (source, destination) = (header.source.value(), header.destination.value());
                let Some(options) = octets.get(l3 + Ipv4::SIZE..end) else { return false };
                if header.version() != 4
                    || header.checksum.value() != header.computed_checksum(options)
                    || judge_v4(source, destination).is_err()
                {
                    return false;
                }
                let fragment = header.fragment.value();
                if fragment & Ipv4::DF != 0 {
                    traits.set(Traits::DONT_FRAGMENT);
                }
                if fragment & (Ipv4::MF | Ipv4::OFFSET) != 0 {
                    traits.set(of_fragment(fragment & Ipv4::OFFSET != 0));
                }
                (header.protocol, end)
            }
            Family::V6 => {
                let Some(header) = octets.header::<Ipv6>(l3) else { return false };
                if header.version() != 6 || martian_v6(header.source_bits()) || martian_v6(header.destination_bits()) {
                    return false;
                }
                traits.set(Traits::DONT_FRAGMENT);
                self.follow_extensions(header.next_header, l3 + Ipv6::SIZE, &mut traits)
            }
        };
        (self.protocol, self.l4, self.traits) = (protocol, l4 as u16, traits);
        true
    }

    /// Where the chain of extension headers leads. They are forwarded untouched, hop-by-hop options too (RFC 8200
    /// §4.8), so what cannot be followed is no error: the packet has no transport header that we know.
    #[cold]
    fn follow_extensions(&self, mut next: u8, mut at: usize, traits: &mut Traits) -> (u8, usize) {
        let octets = self.frame.bytes();
        for _ in 0..EXTENSIONS {
            if next == protocol::FRAGMENT {
                let Some(fragment) = octets.header::<Ipv6Fragment>(at) else { break };
                // An "atomic" fragment (RFC 6946) is whole.
                if fragment.offset_more.value() & !0x6 != 0 {
                    traits.set(Traits::FRAGMENT);
                }
                (next, at) = (fragment.next_header, at + Ipv6Fragment::SIZE);
                if fragment.offset() != 0 {
                    traits.set(Traits::LATER_FRAGMENT);
                    return (next, at);
                }
            } else if is_extension(next) {
                let Some([following, length]) = octets.get(at..at + 2) else { break };
                (next, at) = (*following, at + 8 * (1 + usize::from(*length)));
            } else {
                return (next, at);
            }
        }
        (protocol::NO_NEXT, at)
    }

    /// Cuts off what is behind the IP packet.
    #[inline(always)]
    fn trim(&mut self, end: usize) -> Result<(), Exit> {
        if self.frame.set_len(end) { Ok(()) } else { Err(Exit::Drop(Truncated)) }
    }

    /// Completes a transport checksum of which the sender has only written the pseudo-header's sum, leaving the
    /// rest to hardware (Linux: CHECKSUM_PARTIAL, which a veth or TAP hands over as it is).
    ///
    /// A finished checksum that happens to equal that sum is computed again to the same value: harmless.
    #[cold]
    fn finish_checksum(&mut self) {
        if self.traits.has(Traits::FRAGMENT) {
            return;
        }
        let Some(at) = self.checksum_at() else { return };
        let Some(field) = self.frame.bytes().header::<Be16>(at).map(|f| f.value()) else { return };
        let pseudo = self.pseudo_header().folded();
        if field != pseudo || (field == 0 && self.protocol == protocol::UDP) {
            return;
        }
        let sum = self.transport_sum(Sum::new()).checksum();
        // RFC 768: a computed zero is sent as all ones.
        let sum = if sum == 0 && self.protocol == protocol::UDP { 0xffff } else { sum };
        if let Some(field) = header_mut(self.frame.bytes_mut(), at) {
            *field = Be16::new(sum);
        }
    }

    /// Where the checksum field of TCP or UDP stands in the frame.
    fn checksum_at(&self) -> Option<usize> {
        let l4 = usize::from(self.l4);
        match self.protocol {
            protocol::TCP => Some(l4 + Tcp::CHECKSUM_AT),
            protocol::UDP => Some(l4 + Udp::SIZE - 2),
            _ => None,
        }
    }

    /// Sum of the pseudo-header of the transport.
    #[inline]
    pub(crate) fn pseudo_header(&self) -> Sum {
        let mut sum = Sum::new();
        let length = (u32::from(self.l3) + self.len).saturating_sub(self.l4.into());
        if let Some(header) = self.ipv4() {
            sum.add_pseudo_v4(header.source.value(), header.destination.value(), self.protocol, length);
        } else if let Some(header) = self.ipv6() {
            sum.add_pseudo_v6(header.source_bits(), header.destination_bits(), self.protocol, length);
        }
        sum
    }

    /// The sum of the whole IP packet in 16-bit words, not folded, where that follows from its transport checksum: with the
    /// pseudo-header, everything from the transport header on sums up to zero, and so does an IPv4 header by itself (RFC
    /// 1071; ones' complement: to take away is to add the complement). A checksum that is wrong already makes this wrong
    /// too, and harms nobody: who gets the packet would drop it for the one or the other.
    #[inline(always)]
    pub(crate) fn known_sum(&self) -> Option<u64> {
        if self.traits.has(Traits::FRAGMENT) {
            return None;
        }
        let packet = self.frame.bytes().get(self.l3.into()..)?;
        let word = |octets: &[u8], at: usize| {
            octets.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from(u32::from_be_bytes(*word)))
        };
        // Behind options or extension headers the pseudo-header may be of another destination (RFC 8200 §8.1).
        match self.family {
            Family::V4 if self.l4.wrapping_sub(self.l3) == Ipv4::SIZE as u16 => {
                let head: &[u8; Ipv4::SIZE + Udp::SIZE] = packet.first_chunk()?;
                let length = self.len.wrapping_sub(Ipv4::SIZE as u32) as u16;
                let pseudo = word(head, 12) + word(head, 16) + u64::from(self.protocol) + u64::from(length);
                self.covers_all(head.last_chunk()?, length).then_some(NOTHING - pseudo)
            }
            Family::V6 if self.l4.wrapping_sub(self.l3) == Ipv6::SIZE as u16 => {
                let head: &[u8; Ipv6::SIZE + Udp::SIZE] = packet.first_chunk()?;
                let length = self.len.wrapping_sub(Ipv6::SIZE as u32) as u16;
                // Addresses are in the header and in the pseudo-header: the one takes away what the other adds.
                let pseudo = u64::from(self.protocol) + u64::from(length);
                self.covers_all(head.last_chunk()?, length).then_some(NOTHING + word(head, 0) + word(head, 4) - pseudo)
            }
            _ => None,
        }
    }

    /// Whether the transport, of so many octets, has a checksum that covers them all.
    #[inline(always)]
    fn covers_all(&self, transport: &[u8; Udp::SIZE], length: u16) -> bool {
        let [.., l0, l1, c0, c1] = *transport;
        match self.protocol {
            // None; or over less than the packet, behind which there are options (RFC 9868).
            protocol::UDP => [c0, c1] != [0, 0] && u16::from_be_bytes([l0, l1]) == length,
            protocol::TCP => usize::from(length) >= Tcp::SIZE,
            _ => false,
        }
    }

    /// Adds everything from the transport header on, along the chain.
    pub(crate) fn transport_sum(&self, mut sum: Sum) -> Sum {
        let mut skip = usize::from(self.l4);
        for segment in self.frame.segments() {
            sum.add(segment.get(skip..).unwrap_or(&[]));
            skip = skip.saturating_sub(segment.len());
        }
        sum
    }

    /// One hop less, for what a port received.
    ///
    /// # Errors
    ///
    /// The packet has no hop left. After the lookup: a router looks at the TTL only of what it forwards (RFC 1812
    /// §4.2.2.9).
    #[inline(always)]
    pub fn decrement_ttl(&mut self) -> Result<(), Exit> {
        if self.origin != Origin::Port {
            return Ok(());
        }
        let l3 = usize::from(self.l3);
        match self.family {
            Family::V4 => {
                let header: &mut Ipv4 = header_mut(self.frame.bytes_mut(), l3).ok_or(Exit::Drop(Truncated))?;
                if header.ttl <= 1 {
                    return Err(Exit::Drop(TtlExpired));
                }
                header.decrement_ttl();
            }
            Family::V6 => {
                let header: &mut Ipv6 = header_mut(self.frame.bytes_mut(), l3).ok_or(Exit::Drop(Truncated))?;
                if header.hop_limit <= 1 {
                    return Err(Exit::Drop(TtlExpired));
                }
                header.hop_limit -= 1;
            }
        }
        Ok(())
    }

    /// Writes DSCP and ECN anew (RFC 2474, RFC 3168).
    pub fn set_tos(&mut self, tos: u8) {
        let l3 = usize::from(self.l3);
        match self.family {
            Family::V4 => {
                if let Some(header) = header_mut::<Ipv4>(self.frame.bytes_mut(), l3)
                    && header.version() == 4
                {
                    let old = u16::from_be_bytes([header.version_ihl, header.tos]);
                    let new = u16::from_be_bytes([header.version_ihl, tos]);
                    header.tos = tos;
                    header.checksum = Be16::new(update(header.checksum.value(), old, new));
                }
            }
            Family::V6 => {
                if let Some(header) = header_mut::<Ipv6>(self.frame.bytes_mut(), l3)
                    && header.version() == 6
                {
                    header.set_traffic_class(tos);
                }
            }
        }
        self.tos = tos;
    }

    /// Whether the packet fits into `mtu` octets.
    ///
    /// # Errors
    ///
    /// To be cut (IPv4 without DF; IPv6 that every link has to carry, RFC 8200 §5), or dropped with an error owed
    /// (RFC 1191, RFC 8201).
    #[inline(always)]
    pub fn fits(&self, mtu: u16) -> Result<(), Exit> {
        if self.len <= u32::from(mtu) {
            return Ok(());
        }
        Err(match self.family {
            Family::V4 if self.traits.has(Traits::DONT_FRAGMENT) => Exit::Drop(FragmentationNeeded),
            Family::V4 => Exit::Fragment,
            Family::V6 if self.len <= u32::from(Ipv6::LEAST_MTU) => Exit::Fragment,
            Family::V6 => Exit::Drop(PacketTooBig),
        })
    }

    /// Lowers the MSS option of a TCP SYN to what a packet of `mtu` octets carries (RFC 6691): less 40 over IPv4,
    /// less 60 over IPv6. 0: as it is.
    #[inline(always)]
    pub fn clamp_mss(&mut self, mtu: u16) {
        if mtu != 0 && self.protocol == protocol::TCP {
            self.clamp_mss_of_syn(mtu);
        }
    }

    #[inline(never)]
    fn clamp_mss_of_syn(&mut self, mtu: u16) {
        if self.traits.has(Traits::LATER_FRAGMENT) {
            return;
        }
        let l4 = usize::from(self.l4);
        let Some(tcp) = self.frame.bytes().header::<Tcp>(l4) else { return };
        if tcp.flags & Tcp::SYN == 0 {
            return;
        }
        let end = l4 + tcp.header_length();
        let limit = mtu.saturating_sub(if self.family == Family::V4 { 40 } else { 60 });
        let Some(options) = self.frame.bytes().get(l4 + Tcp::SIZE..end) else { return };
        let Some(at) = mss_option(options) else { return };
        let at = l4 + Tcp::SIZE + at;
        let octets = self.frame.bytes_mut();
        let old = u16::from_be_bytes([octets[at], octets[at + 1]]);
        if old <= limit {
            return;
        }
        octets[at..at + 2].copy_from_slice(&limit.to_be_bytes());
        // An option may stand on an odd offset: its octets then count in the other half of their words.
        let (from, to) =
            if (at - l4).is_multiple_of(2) { (old, limit) } else { (old.swap_bytes(), limit.swap_bytes()) };
        if let Some(tcp) = header_mut::<Tcp>(octets, l4) {
            tcp.checksum = Be16::new(update(tcp.checksum.value(), from, to));
        }
    }
}

/// Offset of the value of the MSS option (RFC 9293 §3.2) among `options`.
fn mss_option(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            0 => return None,
            1 => at += 1,
            2 if *options.get(at + 1)? == 4 && at + 4 <= options.len() => return Some(at + 2),
            _ => at += usize::from(*options.get(at + 1)?).max(2),
        }
    }
}

/// First octets of addresses that are not simply a host's somewhere: one look instead of five comparisons.
static NOT_UNICAST: [bool; 256] = {
    let mut table = [false; 256];
    let mut first = 0;
    while first < 256 {
        table[first] = matches!(first, 0 | 127 | 169 | 224..);
        first += 1;
    }
    table
};

/// RFC 1812 §5.3.7: 0/8, 127/8 and 224/3 neither send nor are forwarded to.
#[cold]
fn judge_v4(source: u32, destination: u32) -> Result<u8, Exit> {
    let martian = |address: u32| matches!(address >> 24, 0 | 127 | 224..);
    let link_local = |address: u32| address >> 16 == 0xa9fe;
    if martian(source) {
        return Err(Exit::Drop(MartianSource));
    }
    if martian(destination) {
        return Err(Exit::Drop(MartianDestination));
    }
    Ok(if link_local(source) || link_local(destination) { Traits::LINK_LOCAL } else { 0 })
}

/// The traits of a fragment, later ones and the first.
#[cold]
const fn of_fragment(later: bool) -> u8 {
    if later { Traits::FRAGMENT | Traits::LATER_FRAGMENT } else { Traits::FRAGMENT }
}

#[inline(always)]
const fn martian_v6(address: u128) -> bool {
    address <= 1 || address >> 120 == 0xff
}

/// Folded sum of a header without options, in words of 64 bits with the carry brought round: a loop over smaller
/// words becomes vectors, which are slower on so few octets.
#[inline(always)]
fn sum_of_plain(header: &Ipv4) -> u16 {
    let octets = header.as_bytes();
    let [a, b] = [0, 8].map(|at| octets[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word)));
    let c = octets.last_chunk().map_or(0, |word| u64::from(u32::from_ne_bytes(*word)));
    let (sum, carry) = a.overflowing_add(b);
    let (sum, carried) = sum.overflowing_add(c + u64::from(carry));
    let sum = (sum & 0xffff_ffff) + (sum >> 32) + u64::from(carried);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests;
