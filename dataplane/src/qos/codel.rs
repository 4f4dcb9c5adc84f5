//! CoDel (RFC 8289): signals when the delay of a queue has been above its target for an interval.

use super::spec::Codel;
use crate::packet::Time;

/// The state of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When the delay will have been above the target for an interval; 0: it is not above.
    above_until: u64,
    /// When the next signal is due.
    next: u64,
    /// Signals of this spell.
    count: u32,
    /// Those of the spell before, or'ed with `SIGNALLING`.
    last: u16,
}

/// The queue is in a spell of signals.
const SIGNALLING: u16 = 1 << 15;
/// The queue is short enough, whatever its delay: a packet that is on its way cannot be waited for (RFC 8289 §4.4).
const MTU: u64 = 1514;

impl State {
    /// A packet left without delay.
    #[inline(always)]
    pub const fn calm(&mut self) {
        self.above_until = 0;
        self.last &= !SIGNALLING;
    }

    /// Whether the packet that leaves now carries a signal.
    #[inline(always)]
    pub fn signals(&mut self, codel: &Codel, is_above: bool, now: Time) -> bool {
        if !is_above {
            self.calm();
        }
        is_above && self.above(codel, now.0)
    }

    fn above(&mut self, codel: &Codel, now: u64) -> bool {
        let interval = u64::from(codel.interval_ns);
        if self.above_until == 0 {
            self.above_until = now + interval;
            return false;
        }
        if now < self.above_until {
            return false;
        }
        if self.last & SIGNALLING != 0 {
            if now < self.next {
                return false;
            }
            self.count = self.count.saturating_add(1);
            self.next += step(interval, self.count);
            return true;
        }
        // A spell soon after another starts at the rate that the last one ended with (RFC 8289 §5.4).
        let more = self.count.wrapping_sub(u32::from(self.last & !SIGNALLING)).min(u32::from(!SIGNALLING));
        self.count = if more > 1 && now.wrapping_sub(self.next) < 16 * interval { more } else { 1 };
        self.last = self.count as u16 | SIGNALLING;
        self.next = now + step(interval, self.count);
        true
    }
}

/// Whether a packet's delay is above the target. `left` are the octets behind it.
#[inline(always)]
pub fn is_above(codel: &Codel, delay: u64, left: u64) -> bool {
    (delay >= u64::from(codel.target_ns)) & (left > MTU)
}

/// The interval divided by the square root of `count`, in 2⁻¹⁶ of it.
fn step(interval: u64, count: u32) -> u64 {
    (interval * ((1_u64 << 32) / u64::from(count.max(1))).isqrt()) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODEL: Codel = Codel { target_ns: 5_000_000, interval_ns: 100_000_000, ce_threshold_ns: None };

    /// When a queue with this delay carries signals, if a packet leaves every millisecond for a second.
    fn signals(state: &mut State, start_ms: u64, delay: u64, left: u64) -> Vec<u64> {
        (start_ms..start_ms + 1_000)
            .filter(|ms| state.signals(&CODEL, is_above(&CODEL, delay, left), Time(ms * 1_000_000)))
            .collect()
    }

    #[test]
    fn the_signals_of_a_spell_come_at_the_inverse_square_root() {
        let mut state = State::default();
        let times = signals(&mut state, 1, 6_000_000, 9_000);
        // RFC 8289 §3.3: next = previous + interval / √count, from the first.
        let (mut expected, mut next) = (vec![], 101.0);
        for count in 1.. {
            let ms = f64::ceil(next - 1e-4) as u64;
            if ms > 1_000 {
                break;
            }
            expected.push(ms);
            next += 100.0 / f64::from(count).sqrt();
        }
        assert_eq!(times, expected);
    }

    #[test]
    fn a_queue_below_the_target_or_shorter_than_a_packet_has_none() {
        let mut state = State::default();
        assert!(signals(&mut state, 1, 4_999_999, 9_000).is_empty());
        assert!(signals(&mut state, 2_000, 60_000_000, MTU).is_empty());
    }

    #[test]
    fn a_spell_soon_after_another_does_not_start_from_one() {
        let mut state = State::default();
        let first = signals(&mut state, 1, 6_000_000, 9_000);
        assert!(!state.signals(&CODEL, is_above(&CODEL, 0, 9_000), Time(1_001_000_000)));
        let second = signals(&mut state, 1_002, 6_000_000, 9_000);
        assert!(second.len() > first.len(), "{} after {}", second.len(), first.len());
    }
}
