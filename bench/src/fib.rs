//! The tables of `lpm` with real routes, in turns with DPDK's `rte_fib` and `rte_fib6` where those are there.
//!
//! Both have the same routes and are asked for the same addresses, 64 at a time, in slices of some milliseconds after each
//! other on the same CPU; all answers are compared before anything counts. A figure is the median over slices, a ratio
//! the median over neighbouring slices. Addresses come as each side likes them: host byte order for ours, octets for
//! `rte_fib6`; so do answers, of two and of eight octets. DPDK's lookups are the scalar ones, which it takes by default;
//! those with AVX-512 are measured too where the CPU has it.

mod churn;
mod lookup;
mod rival;

use crate::family::Write;
use crate::lab::host;
use crate::results::Figure;
use crate::routes::{self, Route};
use crate::series::{self, Series};
use crate::traffic::Pattern;
use lookup::Contest;
use lpm::{Change, Limits, Prefix, TableError};
use rival::Rival;
use rte::Started;
use serde_json::{Map, json};
use std::io;
use std::net::IpAddr;

/// The VRF that is looked up, out of so many.
const VRF: u16 = 1;
const VRFS: u16 = 4;
/// Destinations of a pattern.
const DESTINATIONS: usize = 1 << 20;
/// MiB that DPDK is given: four octets for each of 2²⁴ entries and half a million groups, and its list of routes.
const HEAP_MIB: usize = 1024;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Figures that have one of these in their name; all when there is none.
    pub only: Vec<String>,
    /// Slices of each figure.
    pub rounds: usize,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum FibError {
    /// Our table refuses.
    #[error(transparent)]
    Table(#[from] TableError),
    /// DPDK's refuses.
    #[error(transparent)]
    Rival(#[from] rte::Error),
    /// An answer that is not the longest prefix's.
    #[error("{who} has {value:?} for {address}, and {expected:?} is right")]
    Wrong {
        /// Whose answer.
        who: &'static str,
        /// The address.
        address: IpAddr,
        /// The answer.
        value: Option<u16>,
        /// What the intervals say.
        expected: Option<u16>,
    },
    /// A thread cannot stay on its CPU.
    #[error("a thread cannot be bound to a CPU: {0}")]
    Cpu(#[from] io::Error),
}

/// Measures, and prints each figure and puts it into `figures` when it is there.
///
/// # Errors
///
/// See [`FibError`]; what was measured before is there.
pub fn run(options: &Options, figures: &mut Vec<Figure>) -> Result<(), FibError> {
    let cpus = sys::affinity::available()?;
    // The first serves most interrupts.
    let (writer_cpu, reader_cpu) = (cpus[0], cpus[cpus.len() - 1]);
    sys::affinity::pin_current_thread(reader_cpu)?;
    let before = memory_bytes("AnonHugePages:");
    let started = match rte::start(reader_cpu, HEAP_MIB) {
        Ok(started) => Some(started),
        Err(error) => {
            println!("no opponent: {error}");
            None
        }
    };
    let huge = (memory_bytes("AnonHugePages:") - before) as f64 / (HEAP_MIB << 20) as f64;
    let rival_pages = format!("2 MiB: {:.0} %", huge * 100.0);
    let mut run = Run { options, started, writer_cpu, reader_cpu, pages: "", rival_pages, figures };
    let beside = if started.is_some() { "      rte_fib   ratio  with AVX-512" } else { "" };
    println!("{:<24} {:>12}  {:<10}{beside}", "name", "lpm", "unit");
    let v4 = Prefix::new(0x0a00_0000, 8).expect("no host bits");
    run.family(&Tables { real: routes::internet_v4, hosts: routes::with_hosts_v4, private: (v4, 24) })?;
    let v6 = Prefix::new(0xfd00_u128 << 112, 16).expect("no host bits");
    run.family(&Tables { real: routes::internet_v6, hosts: routes::with_hosts_v6, private: (v6, 64) })
}

/// A family's tables.
struct Tables<A> {
    real: fn() -> Vec<Route<A>>,
    hosts: fn() -> Vec<Route<A>>,
    /// What a tenant has its prefixes in, and how long those are.
    private: (Prefix<A>, u8),
}

struct Run<'a> {
    options: &'a Options,
    started: Option<Started>,
    writer_cpu: usize,
    reader_cpu: usize,
    /// What our tables of the family are made of.
    pages: &'static str,
    /// What of DPDK's heap is of large pages.
    rival_pages: String,
    figures: &'a mut Vec<Figure>,
}

impl Run<'_> {
    fn family<A: Rival>(&mut self, tables: &Tables<A>) -> Result<(), FibError> {
        let (started, rounds) = (self.started, self.options.rounds);
        let real = (tables.real)();
        self.pages = pages(&real)?;
        self.lookups(
            &real,
            [
                ("random", Pattern::Random, Contest::hot),
                ("prefix-uniform", Pattern::PrefixUniform, Contest::hot),
                ("zipf", Pattern::Zipf, Contest::hot),
                ("loop-zipf", Pattern::Zipf, Contest::between_packets),
                ("loop-hit", Pattern::PrefixUniform, Contest::between_packets),
            ],
        )?;
        if self.wants::<A>("hosts-hit") || self.wants::<A>("hosts-zipf") {
            self.lookups(
                &(tables.hosts)(),
                [
                    ("hosts-hit", Pattern::PrefixUniform, Contest::hot as Measure<A>),
                    ("hosts-zipf", Pattern::Zipf, Contest::hot),
                ],
            )?;
        }
        self.measure::<A>("update", "ns", || churn::update(&real, started, rounds))?;
        self.measure::<A>("load", "ms", || churn::load(&real, started, rounds.min(7)))?;
        self.measure::<A>("memory-bytes", "bytes", || churn::memory(&real, started))?;
        let writer_cpu = self.writer_cpu;
        if writer_cpu == self.reader_cpu {
            println!("lpm/{}/reader-slowdown needs two CPUs", A::NAME);
        } else {
            self.measure::<A>("reader-slowdown", "%", || churn::slowdown(&real, started, rounds.min(15), writer_cpu))?;
        }
        let (around, len) = tables.private;
        self.measure::<A>("idle-vrf-bytes", "bytes", || churn::idle_vrf(&churn::private(around, len), started))
    }

    fn lookups<A: Rival, const N: usize>(
        &mut self,
        routes: &[Route<A>],
        figures: [(&str, Pattern, Measure<A>); N],
    ) -> Result<(), FibError> {
        let wanted: Vec<_> = figures.into_iter().filter(|(name, ..)| self.wants::<A>(name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut contest = Contest::new(routes, self.started)?;
        for (name, pattern, measure) in wanted {
            let addresses = pattern.destinations(routes, DESTINATIONS);
            let rounds = self.options.rounds;
            self.measure::<A>(name, "ns/lookup", || measure(&mut contest, &addresses, rounds))?;
        }
        Ok(())
    }

    fn measure<A: Rival>(
        &mut self,
        name: &str,
        unit: &str,
        series: impl FnOnce() -> Result<Series, FibError>,
    ) -> Result<(), FibError> {
        if !self.wants::<A>(name) {
            return Ok(());
        }
        let series = series()?;
        let figure = series.figure(full_name::<A>(name), unit, self.details());
        let sides = series.theirs.iter().map(|(_, theirs)| (series::median(theirs), series.ratio(theirs)));
        let beside: String = sides.map(|(theirs, ratio)| format!(" {theirs:>12.2} {ratio:>7.2}")).collect();
        println!("{:<24} {:>12.2}  {:<10}{beside}", figure.name, figure.value, figure.unit);
        self.figures.push(figure);
        Ok(())
    }

    fn wants<A: Rival>(&self, name: &str) -> bool {
        let name = full_name::<A>(name);
        self.options.only.is_empty() || self.options.only.iter().any(|only| name.contains(only))
    }

    fn details(&self) -> Map<String, serde_json::Value> {
        let mut details = Map::new();
        let (cpu, kernel) = host::describe();
        details.insert("cpu".into(), json!(cpu));
        details.insert("kernel".into(), json!(kernel));
        details.insert("batch".into(), json!(lookup::BATCH));
        details.insert("pages".into(), json!(self.pages));
        if self.started.is_some() {
            details.insert("rte_fib_pages".into(), json!(self.rival_pages));
        }
        details
    }
}

/// One of the ways to look up.
type Measure<A> = fn(&mut Contest<A>, &[A], usize) -> Result<Series, FibError>;

fn full_name<A: Rival>(name: &str) -> String {
    format!("lpm/{}/{name}", A::NAME)
}

fn changes<A: Rival>(routes: &[Route<A>]) -> impl Iterator<Item = Change<A>> {
    routes.iter().map(|&(prefix, value)| Change { vrf: VRF, prefix, value: Some(value) })
}

/// Of which pages our table of these routes is.
fn pages<A: Rival>(routes: &[Route<A>]) -> Result<&'static str, FibError> {
    let before = memory_bytes("AnonHugePages:");
    let mut writer = A::Writer::new(Limits { vrfs: VRFS, ..Limits::default() })?;
    writer.apply(changes(routes))?;
    Ok(if memory_bytes("AnonHugePages:") > before { "2 MiB" } else { "4 KiB" })
}

/// Octets of the process's memory, of one kind.
fn memory_bytes(kind: &str) -> usize {
    let kinds = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = kinds.lines().find_map(|line| line.strip_prefix(kind));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).map_or(0, |kib| kib << 10)
}
