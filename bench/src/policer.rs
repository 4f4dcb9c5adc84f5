//! Policers and packets for them: many policers in any order, so that their state comes from the second cache.

use crate::random::Random;
use crate::rig::{BATCH, median};
use dataplane::packet::Time;
use dataplane::qos::policer::{Action, Colour, Kind, Policer, Profile};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many there are.
pub(crate) const POLICERS: usize = 4096;
/// Octets of IP of each packet.
pub(crate) const OCTETS: u32 = 50;
/// Between two batches, in nanoseconds: 64 packets at 64 million a second.
pub(crate) const GAP: u64 = 1_000;
/// Rounds before anything counts.
pub(crate) const UNTIL_BURSTS_ARE_USED_UP: u64 = 300 * (POLICERS / BATCH) as u64;

/// Policers, in which order packets come to them, and the time.
pub struct Policed {
    policers: Vec<Policer>,
    order: Vec<usize>,
    at: usize,
    now: Time,
}

impl Policed {
    /// Of one kind. Each gets half again as much as its committed rate, and no less than its bursts beforehand.
    pub fn new(kind: Kind) -> Self {
        let policers = (0..POLICERS).map(|_| Policer::new(&profile(kind))).collect();
        let mut policed = Self { policers, order: order(), at: 0, now: Time(0) };
        policed.rounds(UNTIL_BURSTS_ARE_USED_UP);
        policed
    }

    /// The time that `rounds` batches take: so many times the median round.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::with_capacity(rounds as usize);
        for _ in 0..rounds {
            let at = self.next();
            let order = &self.order[at..at + BATCH];
            let start = Instant::now();
            for policer in order {
                black_box(self.policers[*policer].colour(OCTETS, Colour::Green, self.now));
            }
            took.push(start.elapsed());
        }
        median(took) * rounds as u32
    }
    /// How many packets of so many rounds are green, yellow and red.
    #[cfg(all(test, feature = "dpdk"))]
    pub(crate) fn colours(&mut self, rounds: u64) -> [u32; 3] {
        let mut counts = [0; 3];
        for _ in 0..rounds {
            let at = self.next();
            for policer in &self.order[at..at + BATCH] {
                counts[self.policers[*policer].colour(OCTETS, Colour::Green, self.now) as usize] += 1;
            }
        }
        counts
    }

    /// The time of the next batch has come; where it is in the order.
    fn next(&mut self) -> usize {
        self.now = Time(self.now.0 + GAP);
        let at = self.at;
        self.at = (at + BATCH) % POLICERS;
        at
    }
}

/// What each has.
pub(crate) const fn profile(kind: Kind) -> Profile {
    // A packet of 50 octets each 64 µs: 6.25 Mbit/s.
    Profile {
        kind,
        cir: 4_000_000,
        pir: if matches!(kind, Kind::Rfc2697) { 0 } else { 5_000_000 },
        cbs: 3_000,
        pbs: 3_000,
        packets: 0,
        colour_aware: false,
        exceed: Action::Pass,
        violate: Action::Drop,
    }
}

/// In which packets come to them.
pub(crate) fn order() -> Vec<usize> {
    let mut order: Vec<usize> = (0..POLICERS).collect();
    Random::new(0x901).shuffle(&mut order);
    order
}
