//! Numbers for outer IPv4 headers that may be fragmented.

/// Gives a worker's packets their numbers. Workers take turns, so that no two number packets between the same two ends
/// alike (RFC 6864 §4.1) without asking each other: worker `n` has every number that is `n` modulo a power of two that
/// is no less than their count, which the wrap at 2¹⁶ keeps so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification {
    next: u16,
    step: u16,
}

impl Identification {
    /// Worker `at` of `count`.
    pub fn of(at: usize, count: usize) -> Self {
        let step = count.next_power_of_two().min(1 << 15) as u16;
        Self { next: at as u16 % step, step }
    }

    /// The number of one more packet.
    #[inline(always)]
    pub fn take(&mut self) -> u16 {
        let number = self.next;
        self.next = number.wrapping_add(self.step);
        number
    }
}

impl Default for Identification {
    /// Of the only worker.
    fn default() -> Self {
        Self::of(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_workers_give_the_same_number() {
        for count in 1..=9 {
            let mut given = BTreeSet::new();
            for at in 0..count {
                let mut worker = Identification::of(at, count);
                // Once round, and into the next.
                let own: BTreeSet<u16> = (0..1 << 16).map(|_| worker.take()).collect();
                assert_eq!(own.len(), (1 << 16) / count.next_power_of_two(), "worker {at} of {count}");
                given.extend(own.iter().map(|number| (*number, at)));
            }
            let numbers: BTreeSet<u16> = given.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers.len(), given.len(), "{count} workers");
        }
    }

    #[test]
    fn uses_all_its_numbers_before_it_uses_one_again() {
        let mut only = Identification::default();
        let given: BTreeSet<u16> = (0..1 << 16).map(|_| only.take()).collect();
        assert_eq!(given.len(), 1 << 16);
    }
}
