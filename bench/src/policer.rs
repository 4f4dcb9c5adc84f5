//! Policers and packets for them: many policers in any order, so that their state comes from the second cache.

use crate::random::Random;
use crate::rig::{BATCH, median};
use dataplane::packet::Time;
use dataplane::qos::policer::{Action, Colour, Kind, Policer, Profile};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many there are.
const POLICERS: usize = 4096;
/// Octets of IP of each packet.
const OCTETS: u32 = 50;
/// Between two batches, in nanoseconds: 64 packets at 64 million a second.
const GAP: u64 = 1_000;

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
        // A packet of 50 octets each 64 µs: 6.25 Mbit/s.
        let profile = Profile {
            kind,
            cir: 4_000_000,
            pir: if kind == Kind::Rfc2697 { 0 } else { 5_000_000 },
            cbs: 3_000,
            pbs: 3_000,
            packets: 0,
            colour_aware: false,
            exceed: Action::Pass,
            violate: Action::Drop,
        };
        let mut order: Vec<usize> = (0..POLICERS).collect();
        Random::new(0x901).shuffle(&mut order);
        let policers = (0..POLICERS).map(|_| Policer::new(&profile)).collect();
        let mut policed = Self { policers, order, at: 0, now: Time(0) };
        // Until the bursts are used up.
        policed.rounds(300 * (POLICERS / BATCH) as u64);
        policed
    }

    /// The time that `rounds` batches take: so many times the median round.
    pub fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::with_capacity(rounds as usize);
        for _ in 0..rounds {
            self.now = Time(self.now.0 + GAP);
            let order = &self.order[self.at..self.at + BATCH];
            self.at = (self.at + BATCH) % POLICERS;
            let start = Instant::now();
            for policer in order {
                black_box(self.policers[*policer].colour(OCTETS, Colour::Green, self.now));
            }
            took.push(start.elapsed());
        }
        median(took) * rounds as u32
    }
}
