//! From samples to figures.

use super::flows::{Count, Counts, Probed};
use super::gateway::Kind;
use super::{BITS, BLUE, BULK, CAPPED, EQUALS, FAIR, Options, PACKETS, QUIET, RATE, RED, STORY, TENANTS, WARM_UP};
use crate::results::{Better, Figure};
use serde_json::{Map, json};
use std::time::Duration;

/// The whole story with one gateway.
pub struct Told {
    /// Whose.
    pub kind: Kind,
    /// Seconds since the beginning, and megabits per second of each tenant until then.
    pub rates: Vec<(f64, [f64; TENANTS.len()])>,
    /// When each part began, seconds.
    pub starts: Vec<f64>,
    /// The probe's round-trip times.
    pub probed: Probed,
    /// Means over each part without its first seconds: bits and packets per second.
    pub means: Vec<[(f64, f64); TENANTS.len()]>,
    /// Packets that were marked.
    pub marks: Option<u64>,
}

impl Told {
    /// `samples` are counters at moments, `starts` the first sample of each part and its moment.
    pub fn new(
        kind: Kind,
        samples: &[(Duration, Counts)],
        starts: &[(usize, Duration)],
        probed: Probed,
        marks: Option<u64>,
    ) -> Self {
        let rates = samples.windows(2).map(|pair| {
            let ([(from, before), (to, after)] | [(from, before), (to, after), ..]) = pair else {
                return (0.0, [0.0; TENANTS.len()]);
            };
            (to.as_secs_f64(), between((*from, before), (*to, after)).map(|(bits, _)| bits / 1e6))
        });
        let ends = starts.iter().skip(1).map(|start| start.0).chain([samples.len()]);
        let means = starts.iter().zip(ends).map(|((first, start), end)| {
            let part = samples.get(*first..end).unwrap_or(&[]);
            let from = part.iter().find(|(at, _)| *at >= *start + WARM_UP);
            match (from, part.last()) {
                (Some((from, before)), Some((to, after))) if to > from => between((*from, before), (*to, after)),
                _ => Default::default(),
            }
        });
        Self {
            kind,
            rates: rates.collect(),
            starts: starts.iter().map(|(_, start)| start.as_secs_f64()).collect(),
            means: means.collect(),
            probed,
            marks,
        }
    }

    /// Bits per second of a tenant in a part.
    fn bits(&self, part: usize, tenant: usize) -> f64 {
        self.means.get(part).map_or(0.0, |means| means[tenant].0)
    }

    /// Packets per second of a tenant in a part.
    fn packets(&self, part: usize, tenant: usize) -> f64 {
        self.means.get(part).map_or(0.0, |means| means[tenant].1)
    }

    /// Jain's index of the four that are equal: 1 is fair, a quarter is one that has all.
    fn fairness(&self) -> f64 {
        jain(EQUALS.iter().map(|tenant| self.bits(FAIR, *tenant)))
    }

    /// A percentile of the probe's round-trip time in a part, microseconds.
    pub fn delay(&self, part: usize, percentile: f64) -> f64 {
        self.probed.get(part).map_or(0.0, |histogram| histogram.value_at_percentile(percentile) as f64 / 1e3)
    }
}

/// Bits and packets per second of each tenant.
fn between((from, before): (Duration, &Counts), (to, after): (Duration, &Counts)) -> [(f64, f64); TENANTS.len()] {
    let seconds = to.saturating_sub(from).as_secs_f64().max(1e-9);
    std::array::from_fn(|tenant| {
        let (Count { octets: o0, packets: p0 }, Count { octets: o1, packets: p1 }) = (before[tenant], after[tenant]);
        ((o1 - o0) as f64 * 8.0 / seconds, (p1 - p0) as f64 / seconds)
    })
}

/// (Jain, Chiu and Hawe, 1984.)
fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        (count, sum, squares) = (count + 1.0, sum + value, squares + value * value);
    }
    if squares == 0.0 { 0.0 } else { sum * sum / (count * squares) }
}

/// What is compared: name, unit, which way is good, and its value. Both of `accuracy/...` are invariant Q3: a rate on the
/// wall clock is within 1 % of what was asked for.
fn rows(told: &Told, options: &Options) -> Vec<(String, &'static str, Better, f64)> {
    let percent = |measured: f64, of: u64| measured * 100.0 / of as f64;
    let off = |measured, of| (percent(measured, of) - 100.0).abs();
    let rates = options.rates;
    let mut rows = vec![
        ("qos-lab/guarantee", "% of the guarantee", Better::Higher, percent(told.bits(BULK, RED), rates.guarantee())),
        ("qos-lab/limit", "% off the limit", Better::Lower, off(told.bits(CAPPED, BLUE), rates.limit())),
        ("qos-lab/fairness", "Jain's index", Better::Higher, told.fairness()),
        ("qos-lab/delay-p50-quiet", "us", Better::Lower, told.delay(QUIET, 50.0)),
        ("qos-lab/delay-p50-bulk", "us", Better::Lower, told.delay(BULK, 50.0)),
        ("qos-lab/delay-p99-quiet", "us", Better::Lower, told.delay(QUIET, 99.0)),
        ("qos-lab/delay-p99-bulk", "us", Better::Lower, told.delay(BULK, 99.0)),
        ("qos-lab/delay-p999-bulk", "us", Better::Lower, told.delay(BULK, 99.9)),
        ("accuracy/lab-bits", "% off the limit", Better::Lower, off(told.bits(RATE, BITS), rates.bit_limit())),
    ];
    if told.kind == Kind::Penstock {
        let packets = told.packets(STORY.len() - 1, PACKETS);
        rows.push(("accuracy/lab-packets", "% off the limit", Better::Lower, off(packets, rates.packet_limit())));
    }
    // Those of an emulated machine do not take the place of real ones.
    let name = |name: &str| if options.emulated { name.replacen("lab", "vm", 1) } else { name.into() };
    rows.into_iter().map(|(it, unit, better, value)| (name(it), unit, better, value)).collect()
}

/// Prints one line for each figure, one column for each gateway.
pub fn print(told: &[Told], options: &Options) {
    println!();
    print!("{:<26}", "");
    told.iter().for_each(|told| print!(" {:>22}", told.kind.label()));
    println!();
    let columns: Vec<_> = told.iter().map(|told| rows(told, options)).collect();
    for row in columns.first().into_iter().flatten() {
        print!("{:<26}", row.0);
        for column in &columns {
            match column.iter().find(|other| other.0 == row.0) {
                Some((.., value)) => print!(" {value:>22.3}"),
                None => print!(" {:>22}", "-"),
            }
        }
        println!("  {}", row.1);
    }
    for told in told {
        if let Some(marks) = told.marks {
            println!("{:<26} {marks:>22}  packets, {}", "marked", told.kind.label());
        }
    }
}

/// The figures of Penstock, with Linux's as the opponent where it was there.
pub fn figures(told: &[Told], options: &Options, machine: &(String, String)) -> Vec<Figure> {
    let of = |kind| told.iter().find(|told| told.kind == kind).map(|told| rows(told, options)).unwrap_or_default();
    let theirs = of(Kind::Linux);
    of(Kind::Penstock)
        .into_iter()
        .map(|(name, unit, better, value)| {
            let opponent = theirs.iter().find(|other| other.0 == name).map(|other| other.3);
            // What a wake-up costs in user space and in the kernel is emulated at different prices: of delays no ratio is told.
            let ratio = opponent.filter(|_| !(options.emulated && unit == "us")).map(|theirs| match better {
                Better::Higher => value / theirs,
                Better::Lower => theirs / value,
            });
            let mut details = Map::new();
            details.insert("cpu".into(), json!(machine.0));
            details.insert("kernel".into(), json!(machine.1));
            details.insert("port".into(), json!(options.rates.port));
            if let Some(theirs) = opponent {
                details.insert("linux-htb-fq_codel".into(), json!(rounded(theirs)));
            }
            Figure {
                name,
                value: rounded(value),
                unit: unit.into(),
                better,
                runs: 1,
                against: opponent.map(|_| "linux-htb-fq_codel".into()),
                // What is right to the last digit is infinitely better, which has no form in JSON.
                ratio: ratio.filter(|ratio| ratio.is_finite()).map(rounded),
                details,
            }
        })
        .collect()
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::super::Rates;
    use super::*;

    #[test]
    fn fairness_is_one_of_equals_and_a_share_where_one_has_all() {
        assert!((jain([3.0; 4].into_iter()) - 1.0).abs() < 1e-12);
        assert!((jain([8.0, 0.0, 0.0, 0.0].into_iter()) - 0.25).abs() < 1e-12);
        assert_eq!(jain(std::iter::empty()), 0.0);
    }

    #[test]
    fn an_emulated_machine_has_names_of_its_own_and_no_ratio_of_delays() {
        let told: Vec<_> = Kind::ALL.iter().map(|kind| Told::new(*kind, &[], &[], Vec::new(), None)).collect();
        let names = |emulated| -> Vec<_> {
            let rates = Rates { port: 20_000_000 };
            let options = Options { seconds: 7, rates, emulated, penstock: "p".into(), plot: "q".into() };
            let figures = figures(&told, &options, &("cpu".into(), "kernel".into()));
            assert!(figures.iter().all(|it| it.unit != "us" || !emulated || it.ratio.is_none()));
            figures.into_iter().map(|figure| figure.name).collect()
        };
        assert!(names(false).iter().all(|name| name.contains("lab")));
        assert!(names(true).iter().all(|name| name.contains("vm") && !name.contains("lab")));
    }

    #[test]
    fn means_leave_out_the_first_seconds_of_a_part() {
        let at = |tenths: u64, octets: u64| {
            let mut counts = Counts::default();
            counts[RED].octets = octets;
            (Duration::from_millis(tenths * 100), counts)
        };
        // A million octets at once, then 1,000 every tenth of a second.
        let samples: Vec<_> = (0..60).map(|tenth| at(tenth, 1_000_000 + tenth * 1_000)).collect();
        let told =
            Told::new(Kind::Penstock, &samples, &[(0, Duration::ZERO), (30, Duration::from_secs(3))], Vec::new(), None);
        assert_eq!(told.means.len(), 2);
        assert!((told.bits(0, RED) - 80_000.0).abs() < 1.0 && (told.bits(1, RED) - 80_000.0).abs() < 1.0);
        assert_eq!(told.rates.len(), 59);
        assert!((told.rates[7].1[RED] - 0.08).abs() < 1e-6);
    }
}
