//! Which chunks the kernel holds.

/// One bit per chunk of the UMEM: set while the kernel has it for one purpose.
///
/// What the kernel says it gives back is believed only if the bit is set, so even a bogus completion
/// cannot make a second owner. And when a device is gone, this says what its rings held.
pub(crate) struct Held {
    words: Box<[u64]>,
    count: usize,
}

impl Held {
    pub(crate) fn new(chunks: usize) -> Self {
        Self { words: vec![0; chunks.div_ceil(64)].into(), count: 0 }
    }

    /// How many the kernel holds.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Chunk `index` goes to the kernel. The caller owns it, so the bit is clear.
    #[inline]
    pub(crate) fn set(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        debug_assert!(self.words[index / 64] & bit == 0, "one owner");
        self.words[index / 64] |= bit;
        self.count += 1;
    }

    /// The kernel gives chunk `index` back; `false` if it does not have it, or there is none such.
    #[inline]
    pub(crate) fn clear(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        match self.words.get_mut(index / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                self.count -= 1;
                true
            }
            _ => false,
        }
    }

    /// Takes back all that are held, whatever the kernel says: only when it can use them no more.
    /// The iterator must be run to its end.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = usize> {
        self.count = 0;
        self.words.iter_mut().enumerate().flat_map(|(at, word)| {
            let mut bits = std::mem::take(word);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0..200_usize), 0..400)) {
            let mut held = Held::new(130);
            let mut oracle = BTreeSet::new();
            for (give, index) in steps {
                if give {
                    if index < 130 && oracle.insert(index) {
                        held.set(index);
                    }
                } else {
                    prop_assert_eq!(held.clear(index), oracle.remove(&index));
                }
                prop_assert_eq!(held.count(), oracle.len());
            }
            prop_assert!(held.drain().eq(oracle));
            prop_assert_eq!(held.count(), 0);
            prop_assert_eq!(held.drain().count(), 0);
        }
    }
}
