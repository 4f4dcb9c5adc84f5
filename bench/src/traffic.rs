//! Destinations to look up, in the patterns that decide what a table's memory costs.

use crate::random::{Draw, Random};
use crate::routes::Route;

/// How destinations are spread over a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any address: of IPv4 a quarter has no route, of IPv6 nearly all, since most of 2000::/3 is unannounced.
    Random,
    /// Any prefix, and any address within it: all parts of the table are used alike. A more specific prefix may take
    /// the packet.
    PrefixUniform,
    /// 200,000 such addresses, the one of rank r with a share in proportion to 1 / r, as in Internet traffic.
    Zipf,
}

impl Pattern {
    /// So many destinations, always the same for the same table.
    pub fn destinations<A: Draw>(self, routes: &[Route<A>], count: usize) -> Vec<A> {
        let mut random = Random::new(0x0de5 + self as u64);
        match self {
            Self::Random => (0..count).map(|_| A::anywhere(&mut random)).collect(),
            Self::PrefixUniform => (0..count).map(|_| routed(routes, &mut random)).collect(),
            Self::Zipf => {
                let ranked: Vec<_> = (0..RANKS).map(|_| routed(routes, &mut random)).collect();
                let ranks = Zipf::new(RANKS);
                (0..count).map(|_| ranked[ranks.draw(&mut random)]).collect()
            }
        }
    }
}

const RANKS: usize = 200_000;

fn routed<A: Draw>(routes: &[Route<A>], random: &mut Random) -> A {
    A::within(routes[random.below(routes.len())].0, random)
}

/// Ranks from 0, by Zipf's law with exponent 1.
struct Zipf {
    /// Up to and with each rank, the sum of all shares before it is divided by their total.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let shares = (1..=ranks).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { sums: shares.collect() }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let total = self.sums[self.sums.len() - 1];
        // 53 bits are what a double holds exactly.
        let drawn = (random.number() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.sums.partition_point(|sum| *sum <= drawn).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lpm::{Prefix, Value};
    use std::collections::HashMap;

    fn routes() -> Vec<Route<u32>> {
        let value = Value::new(1).expect("in range");
        (0..1000).map(|at| (Prefix::containing(at << 20, 14).expect("a length"), value)).collect()
    }

    #[test]
    fn gives_the_first_of_200_000_ranks_its_share_by_zipf() {
        let routes = routes();
        let count = 1_000_000;
        let mut times = HashMap::<_, usize>::new();
        for address in Pattern::Zipf.destinations(&routes, count) {
            assert!(routes.iter().any(|(prefix, _)| prefix.contains(address)) || times.contains_key(&address));
            *times.entry(address).or_default() += 1;
        }
        let mut times: Vec<_> = times.into_values().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        // The sum of 1 / r up to 200,000 is 12.78.
        for rank in 1..=20 {
            let expected = count as f64 / 12.78 / rank as f64;
            let got = times[rank - 1] as f64;
            assert!((got / expected - 1.0).abs() < 0.1, "rank {rank}: {got} of {expected}");
        }
    }

    #[test]
    fn draws_the_same_destinations_each_time_and_others_for_each_pattern() {
        let routes = routes();
        let all = [Pattern::Random, Pattern::PrefixUniform, Pattern::Zipf].map(|pattern| {
            let drawn = pattern.destinations(&routes, 1000);
            assert_eq!(drawn, pattern.destinations(&routes, 1000));
            drawn
        });
        assert!(all[0] != all[1] && all[1] != all[2]);
        assert!(all[1].iter().all(|address| routes.iter().any(|(prefix, _)| prefix.contains(*address))));
    }
}
