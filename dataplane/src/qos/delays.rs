//! How long packets waited, by class: counts in steps of an eighth of each power of two.

use crate::packet::Class;

/// Steps of a power of two.
const STEP_BITS: u32 = 3;
/// The powers of two before this one are one in a histogram: less than a microsecond.
const FIRST_POWER: u32 = 6;
/// Delays from about 8 seconds on are one.
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

    /// How many of a class's packets waited how long.
    pub fn histogram(&self, class: Class) -> Histogram {
        let mut histogram = Histogram::default();
        for (at, count) in self.counts[class.index()].iter().enumerate() {
            let place = (at >> STEP_BITS).saturating_sub(FIRST_POWER as usize);
            histogram.counts[place.min(Histogram::BOUNDS_NS.len())] += count;
            let least = if at == 0 { 0 } else { upper(at - 1) + 1 };
            histogram.sum_seconds += *count as f64 * (least + upper(at)) as f64 / 2e9;
        }
        histogram
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

/// How many packets of a class waited how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Those that waited no longer than each of the bounds, but longer than the one before; last, those beyond them all.
    pub counts: [u64; Self::BOUNDS_NS.len() + 1],
    /// What all waited together, to a sixteenth: steps are taken by their middle.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Nanoseconds: where each power of two has its last step, from a microsecond to 4 seconds.
    pub const BOUNDS_NS: [u64; 23] = {
        let (mut bounds, mut at) = ([0; 23], 0);
        while at < bounds.len() {
            bounds[at] = upper(((FIRST_POWER as usize + at + 1) << STEP_BITS) - 1);
            at += 1;
        }
        bounds
    };
}

/// By the exponent and the first bits of the mantissa of a floating-point number, which are exact up to 2⁵³.
#[inline(always)]
fn bucket(ns: u64) -> usize {
    const CUT: u32 = f64::MANTISSA_DIGITS - 1 - STEP_BITS;
    const FIRST: u64 = ((1 << STEP_BITS) as f64).to_bits() >> CUT;
    // The first eight are exact, so that each later power of two has eight steps. Of a signed number the conversion is one
    // instruction, and what is below zero is as bits more than all.
    let ns = ns.wrapping_add(1 << STEP_BITS).cast_signed();
    let at = ((ns as f64).to_bits() >> CUT).wrapping_sub(FIRST);
    (at as usize).min(BUCKETS - 1)
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
    fn a_histogram_has_each_packet_once_below_its_bound() {
        let mut delays = Delays::new();
        let bounds = Histogram::BOUNDS_NS;
        assert_eq!((bounds[0], bounds[10], bounds[22]), (1_015, (1 << 20) - 9, (1 << 32) - 9));
        let counts = |delays: &Delays| delays.histogram(Class::new(2).expect("a class")).counts;
        for (at, bound) in bounds.into_iter().enumerate() {
            let before = counts(&delays);
            [bound, bound + 1].iter().for_each(|ns| delays.record(2, *ns));
            let after = counts(&delays);
            let grown: Vec<_> = (0..after.len()).filter(|at| after[*at] != before[*at]).collect();
            assert_eq!(grown, [at, at + 1], "{bound} ns");
        }
        delays.record(2, 0);
        [u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX].iter().for_each(|ns| delays.record(2, *ns));
        let counts = counts(&delays);
        assert_eq!((counts[0], counts[1], counts[23], counts.iter().sum::<u64>()), (2, 2, 4, 50));
        assert_eq!(delays.histogram(Class::default()), Histogram::default(), "another class");
    }

    #[test]
    fn a_histograms_sum_is_right_to_a_sixteenth() {
        let mut delays = Delays::new();
        (1..=1_000).for_each(|us| delays.record(2, us * 1_000));
        let sum = delays.histogram(Class::new(2).expect("a class")).sum_seconds;
        assert!((sum / 0.5005 - 1.0).abs() < 1.0 / 16.0, "{sum}");
        delays = Delays::new();
        delays.record(2, 1_000_000);
        let sum = delays.histogram(Class::new(2).expect("a class")).sum_seconds;
        assert!((sum / 0.001 - 1.0).abs() < 1.0 / 16.0, "{sum}");
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
