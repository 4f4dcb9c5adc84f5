//! How long packets waited, by class: counts in steps of an eighth of each power of two.

use crate::packet::Class;

/// Steps of a power of two.
const STEP_BITS: u32 = 3;
/// Delays from about 4 seconds on are one.
const BUCKETS: usize = 30 << STEP_BITS;

/// The counts of all classes of a port.
#[derive(Clone, Debug)]
pub struct Delays {
    counts: Box<[[u64; BUCKETS]; Class::COUNT]>,
}

impl Default for Delays {
    fn default() -> Self {
        Self::new()
    }
}

impl Delays {
    /// All zero.
    pub fn new() -> Self {
        Self { counts: Box::new([[0; BUCKETS]; Class::COUNT]) }
    }

    /// A packet waited so many nanoseconds.
    #[inline(always)]
    pub fn record(&mut self, class: usize, ns: u64) {
        self.counts[class % Class::COUNT][bucket(ns)] += 1;
    }

    /// The delay, in nanoseconds, that a share of a class's packets did not exceed, to an eighth of it; `None` if it had none.
    pub fn quantile(&self, class: Class, share: f64) -> Option<u64> {
        let counts = &self.counts[class.index()];
        let all: u64 = counts.iter().sum();
        let wanted = (share * all as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        (0..BUCKETS).find_map(|at| {
            sum += counts[at];
            (sum >= wanted && all != 0).then(|| upper(at))
        })
    }
}

#[inline(always)]
const fn bucket(ns: u64) -> usize {
    // The first eight are exact, so that each later power of two has eight steps.
    let ns = ns + (1 << STEP_BITS);
    let power = 63 - ns.leading_zeros();
    let step = (ns >> (power - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
    let at = ((power - STEP_BITS) << STEP_BITS) as usize + step;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The largest delay of a bucket.
const fn upper(at: usize) -> u64 {
    let (power, step) = (at as u32 >> STEP_BITS, at as u64 & ((1 << STEP_BITS) - 1));
    (((1 << STEP_BITS) + step + 1) << power) - 1 - (1 << STEP_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_is_in_the_bucket_that_ends_at_or_just_above_it() {
        for ns in (0..2_000).chain((0..32).map(|bit| 1 << bit)).chain([3_999_999_999]) {
            let at = bucket(ns);
            assert!(upper(at) >= ns && (at == 0 || upper(at - 1) < ns), "{ns} in {at}");
            assert!(upper(at) <= ns + ns / 8 + 1, "{ns} within {}", upper(at));
        }
    }

    #[test]
    fn quantiles_are_of_one_class() {
        let mut delays = Delays::new();
        (1..=100).for_each(|us| delays.record(2, us * 1_000));
        delays.record(3, u64::MAX / 2);
        let class = |at| Class::new(at).expect("a class");
        let median = delays.quantile(class(2), 0.5).expect("a hundred packets");
        assert!((50_000..=56_250).contains(&median), "{median}");
        assert_eq!(delays.quantile(class(0), 0.5), None);
    }
}
