//! The lookups of a batch, which are lanes, as bits of a mask: so that no branch asks each of them.
#![cfg_attr(
    all(target_arch = "x86_64", not(miri)),
    expect(unsafe_code, reason = "one instruction for what takes three for each lane: see `Found`")
)]

use crate::Value;

/// Lanes that a vector holds the values of.
pub(crate) const GROUP: usize = 8;

/// What so many lanes have found: 15 bits for a value or none, and a flag.
#[derive(Clone, Copy)]
pub(crate) struct Found(Vector);

#[cfg(all(target_arch = "x86_64", not(miri)))]
type Vector = std::arch::x86_64::__m128i;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
type Vector = [u16; GROUP];

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Found {
    /// What each lane has.
    #[inline(always)]
    pub fn of(lane: impl Fn(usize) -> u16) -> Self {
        use std::arch::x86_64::*;
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(|at| lane(at).cast_signed());
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_setr_epi16(a, b, c, d, e, f, g, h) })
    }

    /// The flags, that of the first lane lowest.
    #[inline(always)]
    pub fn flags(self) -> u8 {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_movemask_epi8(_mm_packs_epi16(self.0, _mm_setzero_si128())) as u8 }
    }

    /// What the lanes have, and where that is neither value nor flag, what the others have.
    #[inline(always)]
    pub fn or(self, others: Self) -> Self {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let none = _mm_cmpeq_epi16(self.0, _mm_setzero_si128());
            Self(_mm_or_si128(self.0, _mm_and_si128(none, others.0)))
        }
    }

    /// The values.
    #[inline(always)]
    pub fn values(self) -> [Option<Value>; GROUP] {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of x86-64. An `Option<Value>` is as an `Option<NonZeroU16>`, which
        // is as its number or zero, and no number is above `Value::MAX`.
        unsafe { std::mem::transmute(_mm_and_si128(self.0, _mm_set1_epi16(Value::MAX.cast_signed()))) }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
impl Found {
    /// What each lane has.
    #[inline(always)]
    pub fn of(lane: impl Fn(usize) -> u16) -> Self {
        Self(std::array::from_fn(lane))
    }

    /// The flags, that of the first lane lowest.
    #[inline(always)]
    pub fn flags(self) -> u8 {
        self.0.iter().rev().fold(0, |mask, found| mask << 1 | (found >> 15) as u8)
    }

    /// What the lanes have, and where that is neither value nor flag, what the others have.
    #[inline(always)]
    pub fn or(self, others: Self) -> Self {
        Self(std::array::from_fn(|at| if self.0[at] == 0 { others.0[at] } else { self.0[at] }))
    }

    /// The values.
    #[inline(always)]
    pub fn values(self) -> [Option<Value>; GROUP] {
        self.0.map(|found| Value::in_entry(found.into()))
    }
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
    fn the_lanes_of_a_mask_are_those_with_a_flag_in_their_order() {
        for bits in 0..=u8::MAX {
            let found = Found::of(|lane| if bits >> lane & 1 == 0 { 0x7fff } else { 0x8000 });
            assert_eq!(found.flags(), bits);
            let expected: Vec<_> = (0..GROUP).filter(|lane| bits >> lane & 1 != 0).collect();
            assert_eq!(lanes::<64>(bits.into()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(lanes::<64>(1 << 63 | 1).collect::<Vec<_>>(), [0, 63]);
    }

    #[test]
    fn only_a_lane_with_neither_value_nor_flag_takes_the_others() {
        let found = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0, 9];
        let others = [5, 6, 7, 8, 9, 10, 0, 11];
        let both = Found::of(|lane| found[lane]).or(Found::of(|lane| others[lane]));
        assert_eq!(both.flags(), 0b0011_1000);
        let expected = [5, 1, 0x7fff, 0, 1, 0x7fff, 0, 9];
        assert_eq!(both.values(), expected.map(Value::new));
    }
}
