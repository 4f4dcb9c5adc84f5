//! What a ring holds, in octets: completions only say how many descriptors they are of.

use crate::packet::Outstanding;

/// The octets of all that was given to a ring, by descriptor. Completions are taken to come in order; where a few do not, the
/// octets are off by as much as those differ, until all of them have come.
#[derive(Debug)]
pub struct Ledger {
    /// Octets given with this descriptor and all before it. A power of two of them.
    sums: Box<[u64]>,
    /// Descriptors given.
    given: usize,
    /// Octets given.
    octets: u64,
}

impl Ledger {
    /// For a ring that holds so many descriptors at most.
    pub fn new(most: usize) -> Self {
        Self { sums: vec![0; (most + 1).next_power_of_two()].into(), given: 0, octets: 0 }
    }

    /// A packet was given to the ring, as so many descriptors: a frame of so many octets. They count until the last of them completes.
    #[inline]
    pub fn give(&mut self, descriptors: usize, octets: usize) {
        for number in 1..=descriptors {
            if number == descriptors {
                self.octets += (octets as u64 + ETHERNET).max(LEAST);
            }
            let place = self.place(self.given);
            self.sums[place] = self.octets;
            self.given = self.given.wrapping_add(1);
        }
    }

    /// What the ring holds when it has not completed so many descriptors.
    #[inline]
    pub fn outstanding(&self, descriptors: usize) -> Outstanding {
        let completed = self.sums[self.place(self.given.wrapping_sub(descriptors + 1))];
        let octets = if descriptors == 0 { 0 } else { self.octets - completed };
        Outstanding { descriptors, octets }
    }

    #[inline]
    const fn place(&self, at: usize) -> usize {
        at & (self.sums.len() - 1)
    }
}

/// Octets on the wire beside a frame, and of the shortest.
const ETHERNET: u64 = 24;
const LEAST: u64 = 84;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against a queue of lengths, full and across the wrap.
        #[test]
        fn knows_the_octets_of_what_has_not_completed(
            most in 4..40_usize,
            steps in vec((1..4_usize, 40..9_000_usize, 0..8_usize), 1..200),
        ) {
            let (mut ledger, mut model) = (Ledger::new(most), VecDeque::new());
            ledger.given = usize::MAX - 30;
            for (descriptors, octets, completes) in steps {
                if model.len() + descriptors <= most {
                    ledger.give(descriptors, octets);
                    model.extend((1..=descriptors).map(|at| if at == descriptors { (octets as u64 + 24).max(84) } else { 0 }));
                }
                model.drain(..completes.min(model.len()));
                let octets = model.iter().sum();
                prop_assert_eq!(ledger.outstanding(model.len()), Outstanding { descriptors: model.len(), octets });
            }
        }
    }
}
