//! DPDK's scheduler `rte_sched` and its policers `rte_meter`, in turns with ours.
//!
//! Each side runs in slices of milliseconds, one after the other on the same CPU, and is timed batch by batch as criterion
//! times ours: a slice is the median of its batches, a ratio the median over neighbouring slices. What the two are asked
//! is the same: packets of 64 octets for any way out, any tenant there, and one of eight queues, at a constant backlog, with
//! RED; or policers with the same rates and bursts in the same order.
//!
//! A way out with a limit of its own is a subport of `rte_sched`, and a tenant there a pipe. How long it takes with all
//! pipes in one subport, so that no way out has a limit of its own, is measured too.

use crate::lab::host;
use crate::policer::{self, Policed};
use crate::queues::{Queues, WAYS};
use crate::random::Random;
use crate::results::Figure;
use crate::rig::{BATCH, median};
use crate::series::Series;
use dataplane::qos::policer::Kind;
use rte::{Meter, Meters, Scheduler, Started};
use serde_json::json;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

/// Slices of each side.
const SLICES: usize = 100;
/// MiB that DPDK is given: twice 65,536 pipes of eight queues with 64 places each, and packets.
const HEAP_MIB: usize = 2048;
/// Octets of a packet.
const OCTETS: u32 = 64;

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum RivalError {
    /// DPDK is not there, or refuses.
    #[error(transparent)]
    Rival(#[from] rte::Error),
    /// The thread cannot stay on its CPU.
    #[error("a thread cannot be bound to a CPU: {0}")]
    Cpu(#[from] io::Error),
}

/// Puts those of the figures that DPDK has an opponent for into `of_both`, each with that and the ratio. Their values stay;
/// that of ours in turns with the opponent is in the detail `beside`.
///
/// # Errors
///
/// See [`RivalError`]; what was measured before is there.
pub fn beside(figures: &[Figure], of_both: &mut Vec<Figure>) -> Result<(), RivalError> {
    let mut started = None;
    for figure in figures {
        let Some(contest) = Contest::of(&figure.name) else { continue };
        let started = match started {
            Some(started) => started,
            None => *started.insert(start()?),
        };
        let (cpu, kernel) = host::describe();
        let details = [("cpu", json!(cpu)), ("kernel", json!(kernel)), ("batch", json!(BATCH))];
        let details = details.map(|(name, value)| (name.into(), value)).into_iter().collect();
        let mut both = contest.run(started)?.figure(figure.name.clone(), &figure.unit, details);
        both.details.insert("beside".into(), json!(both.value));
        of_both.push(Figure { value: figure.value, runs: figure.runs, ..both });
    }
    Ok(())
}

fn start() -> Result<Started, RivalError> {
    let cpus = sys::affinity::available()?;
    // The first serves most interrupts.
    let cpu = cpus[cpus.len() - 1];
    sys::affinity::pin_current_thread(cpu)?;
    Ok(rte::start(cpu, HEAP_MIB)?)
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contest {
    Queues { leaves: usize, backlog: usize },
    Policers(Kind),
}

impl Contest {
    /// Of the figure with this name.
    fn of(name: &str) -> Option<Self> {
        match name {
            "policer/rfc2697" => Some(Self::Policers(Kind::Rfc2697)),
            "policer/rfc2698" => Some(Self::Policers(Kind::Rfc2698)),
            "policer/rfc4115" => Some(Self::Policers(Kind::Rfc4115)),
            _ => {
                let (_, leaves, backlog) =
                    Queues::CASES.into_iter().find(|(case, ..)| name == format!("qos/{case}"))?;
                Some(Self::Queues { leaves, backlog })
            }
        }
    }

    fn run(self, started: Started) -> Result<Series, rte::Error> {
        match self {
            Self::Queues { leaves, backlog } => {
                let mut ours = Queues::new(leaves, backlog);
                let mut alike = Pipes::new(started, WAYS, leaves, backlog)?;
                let mut flat = Pipes::new(started, 1, leaves, backlog)?;
                let theirs: [Side<'_>; 2] = [
                    ("rte_sched", &mut |rounds| alike.rounds(rounds)),
                    ("rte_sched_one_subport", &mut |rounds| flat.rounds(rounds)),
                ];
                Ok(in_turns(4_000, |rounds| ours.rounds(rounds), theirs))
            }
            Self::Policers(kind) => {
                let (mut ours, mut theirs) = (Policed::new(kind), Metered::new(started, kind)?);
                let theirs: Side<'_> = ("rte_meter", &mut |rounds| theirs.rounds(rounds));
                Ok(in_turns(10_000, |rounds| ours.rounds(rounds), [theirs]))
            }
        }
    }
}

/// One of DPDK's, and how long so many rounds of it take.
type Side<'a> = (&'static str, &'a mut dyn FnMut(u64) -> Duration);

/// Nanoseconds per packet of all, from slices of so many rounds.
fn in_turns<const N: usize>(rounds: u64, mut ours: impl FnMut(u64) -> Duration, mut theirs: [Side<'_>; N]) -> Series {
    let per_packet = |took: Duration| took.as_nanos() as f64 / (rounds * BATCH as u64) as f64;
    let mut series =
        Series { theirs: theirs.iter().map(|(code, _)| (*code, Vec::new())).collect(), ..Series::default() };
    for _ in 0..SLICES {
        series.ours.push(per_packet(ours(rounds)));
        for ((_, side), (_, slices)) in theirs.iter_mut().zip(&mut series.theirs) {
            slices.push(per_packet(side(rounds)));
        }
    }
    series
}

/// `rte_sched` with the pattern of [`Queues`].
struct Pipes {
    scheduler: Scheduler,
    random: Random,
    subports: usize,
    /// Of each.
    pipes: usize,
}

impl Pipes {
    fn new(started: Started, subports: usize, leaves: usize, backlog: usize) -> Result<Self, rte::Error> {
        let pipes = leaves / subports;
        let scheduler = Scheduler::new(started, subports as u32, pipes as u32, backlog + 2 * BATCH, OCTETS)?;
        let mut pipes = Self { scheduler, random: Random::new(0x5f1e), subports, pipes };
        for _ in 0..backlog / BATCH {
            pipes.fill();
            assert_eq!(pipes.scheduler.enqueue(), BATCH, "there is room for the backlog");
        }
        pipes.rounds(4 * (backlog / BATCH) as u64);
        Ok(pipes)
    }

    fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::with_capacity(rounds as usize);
        for _ in 0..rounds {
            self.fill();
            let start = Instant::now();
            let taken = self.scheduler.enqueue();
            let come = self.scheduler.dequeue(BATCH);
            took.push(start.elapsed());
            assert_eq!((taken, come), (BATCH, BATCH), "what waits may go");
            self.scheduler.recycle();
        }
        median(took) * rounds as u32
    }

    fn fill(&mut self) {
        for _ in 0..BATCH {
            let any = self.random.number();
            let (subport, pipe) = ((any >> 32) as usize % self.subports, any as usize % self.pipes);
            let queue = (any >> 48) as u32 % Scheduler::QUEUES;
            assert!(self.scheduler.put(subport as u32, pipe as u32, queue), "as many as the backlog and two batches");
        }
    }
}

/// `rte_meter` with the pattern of [`Policed`].
struct Metered {
    meters: Meters,
    at: usize,
}

impl Metered {
    fn new(started: Started, kind: Kind) -> Result<Self, rte::Error> {
        let meter = match kind {
            Kind::Rfc2697 => Meter::Rfc2697,
            Kind::Rfc2698 => Meter::Rfc2698,
            Kind::Rfc4115 => Meter::Rfc4115,
        };
        let ours = policer::profile(kind);
        let profile = rte::Profile { cir: ours.cir, pir: ours.pir, cbs: u64::from(ours.cbs), pbs: u64::from(ours.pbs) };
        let mut metered = Self { meters: Meters::new(started, meter, profile, policer::order())?, at: 0 };
        metered.rounds(policer::UNTIL_BURSTS_ARE_USED_UP);
        Ok(metered)
    }

    fn rounds(&mut self, rounds: u64) -> Duration {
        let mut took = Vec::with_capacity(rounds as usize);
        for _ in 0..rounds {
            let at = self.at;
            self.next();
            let start = Instant::now();
            black_box(self.meters.colour(at..at + BATCH, policer::OCTETS));
            took.push(start.elapsed());
        }
        median(took) * rounds as u32
    }

    /// On to the next batch.
    fn next(&mut self) {
        self.meters.pass(policer::GAP);
        self.at = (self.at + BATCH) % policer::POLICERS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_an_opponent_of_each_size_and_each_standard_and_of_nothing_else() {
        assert_eq!(Contest::of("qos/4096"), Some(Contest::Queues { leaves: 4_096, backlog: 4_096 }));
        assert_eq!(Contest::of("qos/65536"), Some(Contest::Queues { leaves: 65_536, backlog: 32_768 }));
        assert_eq!(Contest::of("policer/rfc4115"), Some(Contest::Policers(Kind::Rfc4115)));
        assert_eq!((Contest::of("qos/4096-shuffled"), Contest::of("acl/1000")), (None, None));
    }

    #[cfg(feature = "dpdk")]
    #[test]
    fn compares_policers_that_give_the_same_colours() {
        let started = start().expect("a gigabyte is there");
        for kind in [Kind::Rfc2697, Kind::Rfc2698, Kind::Rfc4115] {
            let (mut ours, mut theirs) = (Policed::new(kind), Metered::new(started, kind).expect("there is room"));
            let mut counts = [0_u32; 3];
            let rounds = 100 * (policer::POLICERS / BATCH) as u64;
            for _ in 0..rounds {
                let at = theirs.at;
                theirs.next();
                theirs.meters.colour(at..at + BATCH, policer::OCTETS).iter().for_each(|at| counts[*at as usize] += 1);
            }
            let packets = (rounds * BATCH as u64) as f64;
            for (ours, theirs) in ours.colours(rounds).into_iter().zip(counts) {
                let apart = (f64::from(ours) - f64::from(theirs)).abs() / packets;
                assert!(apart < 0.005, "{kind:?}: {ours} and {theirs} of {packets}");
            }
        }
    }
}
