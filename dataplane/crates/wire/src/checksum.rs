//! The Internet checksum (RFC 1071) and its update (RFC 1624).

/// A one's complement sum under way.
///
/// Octets are added as they lie in memory and swapped once at the end: the sum does not depend on byte order
/// (RFC 1071 §2 B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    sum: u64,
    /// An odd number of octets went before: what follows counts in the other half of its word.
    odd: bool,
}

impl Sum {
    /// Of nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds octets that follow those added before, wherever those ended.
    #[inline]
    pub fn add(&mut self, octets: &[u8]) {
        let part = native(octets);
        self.sum += if self.odd { part.swap_bytes() as u64 } else { part as u64 };
        self.odd ^= octets.len() % 2 == 1;
    }

    /// Adds one 16-bit field. Only between fields: after an even number of octets.
    #[inline(always)]
    pub fn add_u16(&mut self, value: u16) {
        self.sum += value.to_be() as u64;
    }

    /// Adds one 32-bit field. Only after an even number of octets.
    #[inline(always)]
    pub fn add_u32(&mut self, value: u32) {
        self.sum += value.to_be() as u64;
    }

    /// Adds the pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1).
    #[inline(always)]
    pub fn add_pseudo_v4(&mut self, source: u32, destination: u32, protocol: u8, length: u32) {
        self.add_u32(source);
        self.add_u32(destination);
        self.add_u32(protocol as u32);
        self.add_u32(length);
    }

    /// Adds the pseudo-header of IPv6 (RFC 8200 §8.1).
    #[inline(always)]
    pub fn add_pseudo_v6(&mut self, source: u128, destination: u128, protocol: u8, length: u32) {
        for address in [source, destination] {
            self.add_u32((address >> 96) as u32);
            self.add_u32((address >> 64) as u32);
            self.add_u32((address >> 32) as u32);
            self.add_u32(address as u32);
        }
        self.add_u32(protocol as u32);
        self.add_u32(length);
    }

    /// The sum in 16 bits; 0xffff for what sums to zero without being all zeros, as over a good checksum.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// What goes into a checksum field that was zero when it was added.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Folded sum in memory order; an odd last octet is padded with zero.
#[inline]
fn native(octets: &[u8]) -> u16 {
    let mut sum = 0u64;
    // Words of 32 bits into lanes of 64: nothing to carry, and the compiler makes vectors of it.
    let (blocks, rest) = octets.as_chunks::<32>();
    for block in blocks {
        for word in block.as_chunks::<4>().0 {
            sum += u32::from_ne_bytes(*word) as u64;
        }
    }
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        sum += u16::from_ne_bytes(*word) as u64;
    }
    if let [last] = rest {
        sum += u16::from_ne_bytes([*last, 0]) as u64;
    }
    fold(sum)
}

/// The checksum after a 16-bit field changed from `old` to `new` (RFC 1624, equation 3).
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §3's example.
    #[test]
    fn sums_the_example_of_the_rfc() {
        let mut sum = Sum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    fn naive(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition_however_the_octets_are_cut(
            octets in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let mut at: std::vec::Vec<usize> = cuts.iter().map(|c| c.index(octets.len() + 1)).collect();
            at.push(0);
            at.push(octets.len());
            at.sort_unstable();
            let mut sum = Sum::new();
            for pair in at.windows(2) {
                sum.add(&octets[pair[0]..pair[1]]);
            }
            prop_assert_eq!(sum.folded(), naive(&octets));
        }

        #[test]
        fn an_update_equals_a_new_computation(mut words in proptest::collection::vec(any::<u16>(), 2..20), new: u16) {
            let of = |words: &[u16]| {
                let mut sum = Sum::new();
                words.iter().for_each(|w| sum.add_u16(*w));
                sum.checksum()
            };
            // Two forms of zero exist only over all-zero data, which no header is.
            words[1] |= 1;
            let before = of(&words);
            let old = core::mem::replace(&mut words[0], new);
            prop_assert_eq!(update(before, old, new), of(&words));
        }
    }
}
