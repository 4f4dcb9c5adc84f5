//! From slices of time to a figure.

use crate::lab::report::Spread;
use crate::results::{Better, Figure};
use serde_json::{Map, json};

/// What was measured in turns, slice by slice: ours, and DPDK's by the name of its code.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Ours.
    pub ours: Vec<f64>,
    /// DPDK's, as often; what it takes by default is the first.
    pub theirs: Vec<(&'static str, Vec<f64>)>,
    /// What is added to both before they are compared: of what takes three percent longer than before and what takes six,
    /// the one takes 103 and the other 106.
    pub base: f64,
}

impl Series {
    /// The first of DPDK's.
    pub fn opponent(&self) -> Option<&(&'static str, Vec<f64>)> {
        self.theirs.first()
    }

    /// How many times better ours is, where less is better: the median over neighbouring slices.
    pub fn ratio(&self, theirs: &[f64]) -> f64 {
        median(
            &self
                .ours
                .iter()
                .zip(theirs)
                .map(|(ours, theirs)| (self.base + theirs) / (self.base + ours))
                .collect::<Vec<_>>(),
        )
    }

    /// The figure. All of them are better when they are lower.
    pub fn figure(&self, name: String, unit: &str, mut details: Map<String, serde_json::Value>) -> Figure {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let ours = spread(&self.ours);
        details.insert("spread".into(), json!([rounded(ours.min), rounded(ours.max)]));
        for (code, theirs) in &self.theirs {
            details.insert((*code).into(), json!(rounded(median(theirs))));
            details.insert(format!("{code}_ratio"), json!(rounded(self.ratio(theirs))));
        }
        let opponent = self.opponent();
        Figure {
            name,
            value: rounded(ours.median),
            unit: unit.into(),
            better: Better::Lower,
            runs: self.ours.len(),
            against: opponent.map(|(code, _)| (*code).into()),
            ratio: opponent.map(|(_, theirs)| rounded(self.ratio(theirs))),
            details,
        }
    }
}

/// The median; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values.iter().copied()).median
}

/// Three digits behind the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_neighbouring_slices_with_the_code_that_the_opponent_takes_by_default() {
        let series = Series {
            ours: vec![2.0, 4.0, 3.0],
            theirs: vec![("rte_fib", vec![4.0, 8.0, 9.0]), ("rte_fib_avx512", vec![9.0, 9.0, 9.0])],
            base: 0.0,
        };
        let figure = series.figure("lpm/v4/zipf".into(), "ns/lookup", Map::new());
        assert_eq!((figure.value, figure.ratio, figure.against.as_deref()), (3.0, Some(2.0), Some("rte_fib")));
        assert_eq!(
            (&figure.details["rte_fib_avx512"], &figure.details["rte_fib_avx512_ratio"]),
            (&json!(9.0), &json!(3.0))
        );
        let alone = Series { ours: vec![1.0], ..Series::default() }.figure("lpm/v4/load".into(), "ms", Map::new());
        assert_eq!((alone.value, alone.ratio, alone.against), (1.0, None, None));
    }
}
