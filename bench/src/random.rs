//! Numbers that look random and are the same in every run: benches compare like with like, and a test that failed
//! fails again.

use lpm::{Address, Prefix};

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one addition and a mix, good enough for traffic.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of one seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // The high half of the product: uniform to within `end` / 2⁶⁴.
        ((u128::from(self.number()) * end as u128) >> 64) as usize
    }

    /// Puts all in another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (2..=all.len()).rev() {
            all.swap(end - 1, self.below(end));
        }
    }
}

/// Addresses that can be drawn, and counted through.
pub trait Draw: Address {
    /// Any address that is given to anyone: of IPv4 all 2³² numbers, of IPv6 those in 2000::/3.
    fn anywhere(random: &mut Random) -> Self;

    /// Any address of a prefix.
    fn within(prefix: Prefix<Self>, random: &mut Random) -> Self;

    /// The address before this one; the last before the first.
    fn before(self) -> Self;

    /// The address after this one; the first after the last.
    fn after(self) -> Self;
}

impl Draw for u32 {
    fn anywhere(random: &mut Random) -> Self {
        random.number() as u32
    }

    fn within(prefix: Prefix<Self>, random: &mut Random) -> Self {
        prefix.address() | random.number() as u32 & (prefix.last() - prefix.address())
    }

    fn before(self) -> Self {
        self.wrapping_sub(1)
    }

    fn after(self) -> Self {
        self.wrapping_add(1)
    }
}

impl Draw for u128 {
    fn anywhere(random: &mut Random) -> Self {
        1 << 125 | wide(random) >> 3
    }

    fn within(prefix: Prefix<Self>, random: &mut Random) -> Self {
        prefix.address() | wide(random) & (prefix.last() - prefix.address())
    }

    fn before(self) -> Self {
        self.wrapping_sub(1)
    }

    fn after(self) -> Self {
        self.wrapping_add(1)
    }
}

fn wide(random: &mut Random) -> u128 {
    u128::from(random.number()) << 64 | u128::from(random.number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn stays_within_its_bounds_and_reaches_both_ends() {
        let mut random = Random::new(1);
        let drawn: HashSet<_> = (0..1000).map(|_| random.below(3)).collect();
        assert_eq!(drawn, HashSet::from([0, 1, 2]));
        let prefix = Prefix::new(0x0a01_0200, 23).expect("no host bits");
        assert!((0..1000).all(|_| prefix.contains(u32::within(prefix, &mut random))));
        let prefix = Prefix::new(0x2001_0db8_u128 << 96, 32).expect("no host bits");
        let drawn: Vec<_> = (0..1000).map(|_| u128::within(prefix, &mut random)).collect();
        assert!(drawn.iter().all(|address| prefix.contains(*address)));
        // Every bit of the host part is drawn.
        let (all, any) = drawn.iter().fold((!0, 0), |(all, any), address| (all & address, any | address));
        assert_eq!((all, any), (prefix.address(), prefix.last()));
        assert!((0..1000).all(|_| u128::anywhere(&mut random) >> 125 == 1));
    }

    #[test]
    fn shuffles_without_losing_anything() {
        let mut numbers: Vec<_> = (0..100).collect();
        Random::new(2).shuffle(&mut numbers);
        assert_ne!(numbers, (0..100).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
