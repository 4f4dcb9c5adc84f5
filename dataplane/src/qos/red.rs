//! Marks with a probability that grows with the delay: what DCQCN and DCTCP expect of a switch, in units of time.

use super::spec::Red;

/// The curve, ready to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Curve {
    start_ns: u64,
    end_ns: u64,
    /// Probability that is added by a nanosecond, in 2⁻³².
    slope: u64,
}

impl Curve {
    /// From 0 at the curve's start to its most just before the end, all from there.
    pub fn new(red: &Red) -> Self {
        let (start_ns, end_ns) = (u64::from(red.start_ns), u64::from(red.end_ns));
        let most = (u64::from(red.most_permille.min(1_000)) << 32) / 1_000;
        Self { start_ns, end_ns, slope: most / end_ns.saturating_sub(start_ns).max(1) }
    }

    /// Whether a packet with this delay carries a signal, `random` being uniform.
    #[inline(always)]
    pub fn signals(&self, delay: u64, random: u32) -> bool {
        if delay <= self.start_ns {
            return false;
        }
        delay >= self.end_ns || u64::from(random) < (delay - self.start_ns) * self.slope
    }
}

/// Uniform numbers, the same for the same seed: xorshift64*, some cycles each.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one.
    #[inline(always)]
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_as_often_as_the_curve_says_and_ever_more() {
        for red in [Red::SWITCH, Red::DCQCN_PAPER, Red::BLUEPRINT] {
            let (curve, mut random) = (Curve::new(&red), Random::new(7));
            let mut before = 0.0;
            for tenth in 0..=12_u32 {
                let delay = red.start_ns + (red.end_ns - red.start_ns) / 10 * tenth;
                let marked = (0..100_000).filter(|_| curve.signals(delay.into(), random.next())).count();
                let share = marked as f64 / 1e5;
                let expected = if delay >= red.end_ns {
                    1.0
                } else {
                    f64::from(red.most_permille) / 1e3 * f64::from(tenth) / 10.0
                };
                assert!((share - expected).abs() < 0.02, "{red:?} at {delay}: {share}, not {expected}");
                assert!(share >= before - 0.01, "{red:?} at {delay}: {share} after {before}");
                before = share;
            }
            assert!(!curve.signals(red.start_ns.into(), 0));
        }
    }
}
