//! Which flow a packet belongs to, as 32 bits that every gateway computes alike.
//!
//! What goes in is what all packets of a flow have in common and no tunnel changes: addresses, protocol, ports, the
//! IPv6 flow label, and the destination queue pair of RoCEv2, whose ports say little. Fragments have neither ports nor
//! the transport protocol (only the first knows them), so that all of a packet stay together. The VRF is left out:
//! its number is the gateway's own affair, and the same flow gets the same hash behind each of them.
//!
//! What comes out is used in two places that must not know of each other. A group takes its bucket from the **top**
//! bits (`flow × buckets >> 32`); a tunnel's UDP source port and flow label take the **low** ones
//! ([`FlowHash::port`], [`FlowHash::label`]). So the flows of one member still have every source port, and the fabric
//! behind the tunnel can spread them: of 32 bits, 12 for 4,096 buckets and 20 for the label share none, and a second
//! mix would add nothing.

use super::Traits;
use wire::protocol;

/// How flows are told apart: keys out of the seed, and whether a flow's two directions are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash {
    keys: [u64; 4],
    symmetric: bool,
}

impl FlowHash {
    /// Gateways that replace each other have the same seed, consecutive tiers different ones: else all that reach one
    /// member of the first tier would choose alike in the second.
    pub const fn new(seed: u64, symmetric: bool) -> Self {
        // A multiplication by less than 2⁶³ would leave upper bits of the product empty.
        Self { keys: [draw(seed, 1), draw(seed, 2) | 1 << 63, draw(seed, 3), draw(seed, 4) | 1 << 63], symmetric }
    }

    /// The UDP source port of a tunnel's packet: the dynamic range (RFC 6335 §6), as RFC 7348 §5 recommends.
    #[inline(always)]
    pub const fn port(flow: u32) -> u16 {
        0xc000 | (flow & 0x3fff) as u16
    }

    /// The flow label of a tunnel's packet over IPv6 (RFC 6438).
    #[inline(always)]
    pub const fn label(flow: u32) -> u32 {
        flow & 0x000f_ffff
    }

    /// Of an IPv4 packet.
    #[inline(always)]
    pub(super) fn v4(&self, source: u32, destination: u32, transport: Transport) -> u32 {
        if self.symmetric {
            return self.symmetric_v4(source, destination, transport);
        }
        self.mix(u64::from(source) << 32 | u64::from(destination), transport.word)
    }

    /// Of an IPv6 packet.
    #[inline(always)]
    pub(super) fn v6(&self, source: u128, destination: u128, label: u32, transport: Transport) -> u32 {
        if self.symmetric {
            return self.symmetric_v6(source, destination, transport);
        }
        self.mix(self.ends(source, destination) ^ u64::from(label) << 20, transport.word)
    }

    /// Apart, so that what is asked for rarely takes no registers from what is always done.
    #[inline(never)]
    fn symmetric_v4(&self, source: u32, destination: u32, transport: Transport) -> u32 {
        let (source, destination, word) = ordered(source, destination, transport);
        self.mix(u64::from(source) << 32 | u64::from(destination), word)
    }

    /// Without the flow label: each direction has one of its own (RFC 6437 §2).
    #[inline(never)]
    fn symmetric_v6(&self, source: u128, destination: u128, transport: Transport) -> u32 {
        let (source, destination, word) = ordered(source, destination, transport);
        self.mix(self.ends(source, destination), word)
    }

    /// Both addresses. Each is mixed by itself: a sum or difference of them would be one for many pairs.
    #[inline(always)]
    fn ends(&self, source: u128, destination: u128) -> u64 {
        let source = mix64(source as u64 ^ self.keys[0], (source >> 64) as u64 ^ self.keys[1]);
        let destination = mix64(destination as u64 ^ self.keys[2], (destination >> 64) as u64 ^ self.keys[3]);
        source ^ destination.rotate_left(23)
    }

    #[inline(always)]
    fn mix(&self, a: u64, b: u64) -> u32 {
        let once = mix64(a ^ self.keys[0], b ^ self.keys[1]);
        (mix64(once, self.keys[3]) >> 32) as u32
    }
}

/// The seed that a configuration has when it does not say, and flows with a direction.
impl Default for FlowHash {
    fn default() -> Self {
        Self::new(0, false)
    }
}

/// What of a flow stands behind the IP header.
#[derive(Clone, Copy)]
pub(super) struct Transport {
    /// From the top: destination queue pair of RoCEv2 (24 bits), both ports, protocol. 0 of a fragment.
    word: u64,
}

impl Transport {
    /// Reads the header at `l4`, as far as every packet of the flow has it.
    #[inline(always)]
    pub fn read(octets: &[u8], l4: usize, protocol: u8, traits: Traits) -> Self {
        if traits.has(Traits::FRAGMENT) {
            return Self { word: 0 };
        }
        let alone = Self { word: protocol.into() };
        if !matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return alone;
        }
        let Some(rest) = octets.get(l4..) else { return alone };
        let Some(ports) = rest.first_chunk::<4>().map(|ports| u64::from(u32::from_be_bytes(*ports))) else {
            return alone;
        };
        let mut word = ports << 8 | u64::from(protocol);
        if ports as u16 == ROCE && protocol == protocol::UDP {
            // Destination QP: the last three octets of the base transport header's second word (InfiniBand §9.2).
            let second = rest.get(ROCE_QP_AT..).and_then(|rest| rest.first_chunk::<4>());
            word |= second.map_or(0, |word| u64::from(u32::from_be_bytes(*word))) << 40;
        }
        Self { word }
    }
}

/// UDP port of RoCEv2.
const ROCE: u16 = 4791;
/// Where the word that ends in the destination QP stands behind the UDP header's start.
const ROCE_QP_AT: usize = 8 + 4;

/// The same for both directions: the lesser end first.
///
/// RoCEv2 goes to its port both ways, from ports and to queue pairs that each end chooses for itself: nothing but
/// the addresses tells that an answer belongs to what it answers. So those, and the protocol, are all that is left.
fn ordered<A: Ord>(source: A, destination: A, transport: Transport) -> (A, A, u64) {
    let word = transport.word & 0x00ff_ffff_ffff;
    let (from, to) = ((word >> 24) as u16, (word >> 8) as u16);
    let protocol = word & 0xff;
    let word = if protocol == u64::from(protocol::UDP) && (from == ROCE || to == ROCE) { protocol } else { word };
    let turned = protocol | (word >> 8 & 0xffff) << 24 | (word >> 24) << 8;
    if (&source, word >> 24) <= (&destination, word >> 8 & 0xffff) {
        (source, destination, word)
    } else {
        (destination, source, turned)
    }
}

/// Multiplies and folds (the step of wyhash).
#[inline(always)]
const fn mix64(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// The `n`-th number of SplitMix64, started at the seed.
const fn draw(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests;
