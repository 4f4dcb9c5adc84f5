//! The time that everything is measured by.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC: since some moment before the start of the system, never
/// back, not while the machine sleeps. Read through the vDSO, about 20 ns and no system call;
/// once per poll, not once per packet.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative for this clock, and 2^64 ns are 584 years.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::monotonic_ns;
    use std::time::Instant;

    #[test]
    fn never_goes_back_and_is_the_clock_of_instant() {
        let outer = Instant::now();
        let start = monotonic_ns();
        let mut last = start;
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        // `Instant` reads the same clock, so what it saw around us is never less.
        assert!(outer.elapsed().as_nanos() >= u128::from(last - start));
        assert!(last > start, "the clock stands still");
    }
}
