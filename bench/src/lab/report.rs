//! From runs to figures.

use super::forwarder::{Kind, Way};
use super::frames::FRAME;
use super::traffic::Sink;
use crate::results::{Better, Figure};
use serde_json::{Map, Value, json};

/// What one run measured. Rates in packets per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Frames that the generator sent.
    pub offered: f64,
    /// Right frames that the sink got.
    pub received: f64,
    /// Nanoseconds of CPU per packet, of both parts below together.
    pub cpu_ns: f64,
    /// Of the forwarding thread and the sink in its soft interrupts, per received packet. All of it where the
    /// generator's thread forwards.
    pub forwarding_ns: f64,
    /// Of the receiving device's soft interrupts on the generator's CPU, per offered packet; 0 where that thread forwards.
    pub receiving_ns: f64,
    /// How much of its CPU the thread that forwards has had, 0 to 1.
    pub share: f64,
}

/// The runs of one forwarder, by round.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which.
    pub kind: Kind,
    /// How it receives.
    pub mode: String,
    /// In the order of the rounds.
    pub runs: Vec<Run>,
}

/// Smallest, median and largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value; zeros of none.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: (low + high) / 2.0, min: *min, max: *max }
    }

    fn json(self, scale: i32) -> Value {
        let [median, min, max] = [self.median, self.min, self.max].map(|value| rounded(value, scale));
        json!({ "median": median, "min": min, "max": max })
    }
}

impl Series {
    /// Of one number of each run.
    pub fn spread(&self, value: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(value))
    }
}

/// Penstock against the faster of the kernel's two ways.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// What was done to the packets.
    pub way: Way,
    /// Penstock.
    pub ours: &'a Series,
    /// The kernel, in the way of the higher median.
    pub theirs: &'a Series,
}

impl<'a> Comparison<'a> {
    /// `None` without runs of both.
    pub fn new(way: Way, all: &'a [Series]) -> Option<Self> {
        let rate = |series: &&Series| series.spread(|run| run.received).median;
        let (ours, theirs): (Vec<_>, Vec<_>) = all.iter().partition(|series| series.kind == Kind::Penstock);
        let theirs = theirs.into_iter().max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
        Some(Self { way, ours: ours.first()?, theirs })
    }

    /// How many times the kernel's rate is reached, round by round.
    pub fn rate_ratio(&self) -> Spread {
        Spread::of(self.pairs().map(|(ours, theirs)| ours.received / theirs.received))
    }

    /// How many times the CPU the kernel takes, round by round.
    pub fn cpu_ratio(&self) -> Spread {
        Spread::of(self.pairs().map(|(ours, theirs)| theirs.cpu_ns / ours.cpu_ns))
    }

    fn pairs(&self) -> impl Iterator<Item = (&Run, &Run)> {
        self.ours.runs.iter().zip(&self.theirs.runs)
    }

    /// Rate and CPU, with what is needed to judge them. `machine` is CPU model and kernel release.
    pub fn figures(&self, sink: Sink, machine: &(String, String)) -> [Figure; 2] {
        let mut details = Map::new();
        let (cpu, kernel) = machine;
        details.insert("cpu".into(), json!(cpu));
        details.insert("kernel".into(), json!(kernel));
        details.insert("frame_bytes".into(), json!(FRAME));
        let (sink, suffix) = match sink {
            Sink::Stack => ("veth, dropped by its kernel", ""),
            Sink::Xdp => ("veth, dropped by XDP in the driver", "-xdp-sink"),
        };
        details.insert("sink".into(), json!(sink));
        for (name, series) in [("penstock", self.ours), ("linux", self.theirs)] {
            let side = json!({
                "mode": series.mode,
                "offered_pps": series.spread(|run| run.offered).json(0),
                "received_pps": series.spread(|run| run.received).json(0),
                "cpu_ns": series.spread(|run| run.cpu_ns).json(1),
                "cpu_ns_forwarding": series.spread(|run| run.forwarding_ns).json(1),
                "cpu_ns_receiving": series.spread(|run| run.receiving_ns).json(1),
                "cpu_share": series.spread(|run| run.share).json(3),
            });
            details.insert(name.into(), side);
        }
        let figure = |name: String, value, unit: &str, better, ratio: Spread| {
            let mut details = details.clone();
            details.insert("ratio_spread".into(), ratio.json(3));
            Figure {
                name,
                value,
                unit: unit.into(),
                better,
                runs: self.ours.runs.len(),
                against: Some("linux".into()),
                ratio: Some(rounded(ratio.median, 3)),
                details,
            }
        };
        let name = format!("{}{suffix}", self.way.name());
        let rate = rounded(self.ours.spread(|run| run.received).median, 0);
        let cpu_ns = rounded(self.ours.spread(|run| run.cpu_ns).median, 1);
        [
            figure(format!("lab/{name}"), rate, "pps", Better::Higher, self.rate_ratio()),
            figure(format!("lab/{name}-cpu"), cpu_ns, "ns/packet", Better::Lower, self.cpu_ratio()),
        ]
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(kind: Kind, received: &[f64]) -> Series {
        let run = |received: &f64| Run {
            offered: 3e6,
            received: *received,
            cpu_ns: 1e9 / received,
            forwarding_ns: 1e9 / received,
            receiving_ns: 0.0,
            share: 1.0,
        };
        Series { kind, mode: "veth".into(), runs: received.iter().map(run).collect() }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0].into_iter()), Spread { median: 3.0, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).median, 2.5);
        assert_eq!(Spread::of(std::iter::empty()).median, 0.0);
    }

    #[test]
    fn compares_with_the_kernels_better_way_round_by_round() {
        let all = [
            series(Kind::Inline, &[1e6, 2e6, 1e6]),
            series(Kind::Threaded, &[9e5, 9e5, 4e6]),
            series(Kind::Penstock, &[2e6, 2e6, 3e6]),
        ];
        let comparison = Comparison::new(Way::Vxlan, &all).expect("both ran");
        assert_eq!(comparison.theirs.kind, Kind::Inline);
        assert_eq!(comparison.rate_ratio(), Spread { median: 2.0, min: 1.0, max: 3.0 });
        let [rate, cpu] = comparison.figures(Sink::Stack, &("a CPU".into(), "6.1".into()));
        assert_eq!((rate.name.as_str(), rate.value, rate.ratio, rate.runs), ("lab/vxlan", 2e6, Some(2.0), 3));
        assert_eq!((cpu.name.as_str(), cpu.value, cpu.ratio), ("lab/vxlan-cpu", 500.0, Some(2.0)));
        assert_eq!(rate.details["kernel"], "6.1");
        let [rate, cpu] = comparison.figures(Sink::Xdp, &("a CPU".into(), "6.1".into()));
        assert_eq!((rate.name.as_str(), cpu.name.as_str()), ("lab/vxlan-xdp-sink", "lab/vxlan-xdp-sink-cpu"));
        assert!(Comparison::new(Way::Ipv4, &all[..2]).is_none());
    }
}
