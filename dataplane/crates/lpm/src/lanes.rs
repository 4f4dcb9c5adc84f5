//! The lookups of a batch, which are lanes, as bits of a mask: so that no branch asks each of them.
#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "one instruction for what takes three for each lane: see `highest_bits`")
)]

/// Lanes that a vector holds the values of.
pub(crate) const GROUP: usize = 8;

/// The highest bit of each value, that of the first one lowest.
#[inline(always)]
pub(crate) fn highest_bits(values: [u16; GROUP]) -> u8 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::*;
        let [a, b, c, d, e, f, g, h] = values.map(u16::cast_signed);
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_movemask_epi8(_mm_packs_epi16(_mm_setr_epi16(a, b, c, d, e, f, g, h), _mm_setzero_si128())) as u8 }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    values.iter().rev().fold(0, |mask, value| mask << 1 | (value >> 15) as u8)
}

/// The numbers of the bits that are set, lowest first.
#[inline(always)]
pub(crate) fn lanes<const N: usize>(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize % N;
        (mask != 0).then(|| {
            mask &= mask - 1;
            lane
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_of_a_mask_are_those_with_the_highest_bit_in_their_order() {
        for bits in 0..=u8::MAX {
            let values = std::array::from_fn(|lane| if bits >> lane & 1 == 0 { 0x7fff } else { 0x8000 });
            assert_eq!(highest_bits(values), bits);
            let expected: Vec<_> = (0..GROUP).filter(|lane| bits >> lane & 1 != 0).collect();
            assert_eq!(lanes::<64>(bits.into()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(lanes::<64>(1 << 63 | 1).collect::<Vec<_>>(), [0, 63]);
    }
}
