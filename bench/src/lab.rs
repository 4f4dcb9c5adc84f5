//! End to end: Penstock and the kernel forward the same frames from veth to veth, in turns.
//!
//! ```text
//! CPU 0: generator (live frames of BPF_PROG_TEST_RUN) ─► veth ─► NAPI, XDP `steer`, copy to the AF_XDP ring
//! CPU 1: Penstock's worker ─► veth ─► a kernel that drops and counts, or XDP `sink`
//! ```
//!
//! The kernel forwards either in the generator's soft interrupts on CPU 0 (inline), or in a thread on CPU 1 (threaded
//! NAPI); Penstock is compared with the better. The sink is the same for all and runs on the CPU that forwards; which
//! of the two it is matters, see [`Sink`]. Before and after each run some frames are compared octet for octet, and
//! XDP `sink` counts only those that have the right destination or VNI, and a TTL one lower.
//!
//! CPU time per packet is that of the thread on CPU 1 per received packet, plus what the generator's thread takes
//! beyond generating, per offered packet (so reception is counted, but not its overload). Inline, it is what that
//! thread takes beyond generating, per received packet. The sink's time is in all of them.

mod capture;
pub(crate) mod command;
mod forwarder;
mod frames;
pub(crate) mod host;
pub(crate) mod report;
mod site;
mod traffic;

use crate::results::Figure;
use capture::Capture;
use forwarder::{Forwarder, Kind};
use host::Thread;
use report::{Comparison, Run, Series, Spread};
use site::Site;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use sys::caps::{Capability, has};
use sys::poll::{PollFd, PollFlags, poll};
use sys::signals::Signals;
use traffic::{Counts, Traffic, TrafficError, joined, within};

pub use command::CommandError;
pub(crate) use forwarder::Process;
pub use forwarder::{ForwarderError, Way};
pub(crate) use site::sweep_of;
pub use traffic::Sink;

/// Where frames are made.
const GENERATOR_CPU: usize = 0;
/// Where they are forwarded, if not there.
const WORKER_CPU: usize = 1;
/// Traffic before the clock starts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Frames that are sent to be looked at.
const SAMPLE: u32 = 256;
/// Fewer than so many of them mean that something is wrong.
const SAMPLE_AT_LEAST: usize = 64;
/// Of a million frames at the sink, how many may be strange: none is ours, but the kernel may say something.
const STRANGE_PPM: u64 = 100;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each forwarder runs, 1 or more.
    pub rounds: usize,
    /// Seconds of each run.
    pub seconds: u64,
    /// Who takes the frames.
    pub sink: Sink,
    /// The binary `penstock`.
    pub penstock: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error("the lab makes network namespaces and attaches XDP programs: run it as root")]
    Privilege,
    /// One CPU.
    #[error("the lab needs two CPUs, one for the generator and one for the forwarder: this machine lets it have {0}")]
    Cpus(usize),
    /// No binary.
    #[error("{}: no such file; build it with `cargo build --release --package dataplane`", .0.display())]
    NoBinary(PathBuf),
    /// A signal.
    #[error("interrupted")]
    Interrupted,
    /// A command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A forwarder.
    #[error(transparent)]
    Forwarder(#[from] ForwarderError),
    /// Generator or sink.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Something of the system.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Too few frames at the sink.
    #[error("{who}: of {SAMPLE} frames only {count} reached the sink\n{log}")]
    Lost {
        /// Forwarder and way.
        who: String,
        /// How many did.
        count: usize,
        /// What the forwarder has logged.
        log: String,
    },
    /// A frame is not what it should be.
    #[error("{who}: a frame at the sink is {wrong}: {octets}")]
    Wrong {
        /// Forwarder and way.
        who: String,
        /// In which way.
        wrong: frames::Wrong,
        /// In hexadecimal.
        octets: String,
    },
    /// Frames that are not to be counted.
    #[error("{who}: {strange} frames at the sink are not what they should be, beside {taken} that are")]
    Strange {
        /// Forwarder and way.
        who: String,
        /// Not right.
        strange: u64,
        /// Right.
        taken: u64,
    },
    /// It ended by itself.
    #[error("penstock has ended: {0}")]
    Ended(String),
}

/// Measures, says on the way what it does, prints the table, and returns the figures.
///
/// # Errors
///
/// Without privilege, binary or second CPU; when anything fails, or frames arrive that are not what they should be.
/// Namespaces and processes are gone in any case.
pub fn run(options: &Options) -> Result<Vec<Figure>, LabError> {
    if ![Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::SysAdmin].into_iter().all(has) {
        return Err(LabError::Privilege);
    }
    let cpus = sys::affinity::available()?;
    if ![GENERATOR_CPU, WORKER_CPU].iter().all(|cpu| cpus.contains(cpu)) {
        return Err(LabError::Cpus(cpus.len()));
    }
    if !options.penstock.exists() {
        return Err(LabError::NoBinary(options.penstock.clone()));
    }
    let mut lab = Lab::new()?;
    let machine = host::describe();
    println!("{}, Linux {}, load {:.2}", machine.0, machine.1, host::load());
    println!(
        "{}-octet frames, {} flows, {} rounds of {} s",
        frames::FRAME,
        frames::FLOWS,
        options.rounds,
        options.seconds
    );
    let mut stations = lab.stations(options.sink, &options.penstock)?;
    if !lab.preferred {
        println!("a higher priority is not allowed here: other work on this machine disturbs the figures");
    }
    let mut series: Vec<_> = stations
        .iter()
        .map(|station| Series { kind: station.kind, mode: station.forwarder.mode.clone(), runs: Vec::new() })
        .collect();
    for round in 0..options.rounds {
        let generating_ns = lab.generating_ns()?;
        // Every other round backwards, so that nobody always comes after the same.
        let mut order: Vec<_> = (0..stations.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let run = lab.measure(&mut stations[at], Duration::from_secs(options.seconds), generating_ns)?;
            println!(
                "round {}/{}  {:<24}  offered {:>6.3} Mpps  received {:>6.3} Mpps  CPU {:>6.0} ns/packet",
                round + 1,
                options.rounds,
                stations[at].who(),
                run.offered / 1e6,
                run.received / 1e6,
                run.cpu_ns
            );
            series[at].runs.push(run);
        }
    }
    let count = Kind::ALL.len();
    let mut figures = Vec::new();
    print_head();
    for (way, series) in Way::ALL.into_iter().zip(series.chunks(count)) {
        series.iter().for_each(|series| print_series(way, series));
        if let Some(comparison) = Comparison::new(way, series) {
            print_comparison(&comparison);
            figures.extend(comparison.figures(options.sink, &machine));
        }
    }
    Ok(figures)
}

/// What all stations share. Its folder is gone when dropped.
struct Lab {
    folder: PathBuf,
    signals: Signals,
    nowhere: Traffic,
    /// All threads that count get more of their CPU than ordinary ones.
    preferred: bool,
}

/// A forwarder in its site, with its traffic. In the order in which they have to go.
struct Station {
    way: Way,
    kind: Kind,
    forwarder: Forwarder,
    traffic: Traffic,
    site: Site,
    /// Frames per second that the generator last sent.
    pace: f64,
}

impl Station {
    fn who(&self) -> String {
        format!("{:<6} {}", self.way.name(), self.kind.label())
    }
}

/// Everything that is read at the start and at the end of a run.
struct Moment {
    at: Instant,
    counts: Counts,
    generator_ns: u64,
    forwarder_ns: u64,
}

impl Lab {
    fn new() -> Result<Self, LabError> {
        site::sweep();
        // Before any thread is started.
        let signals = Signals::take()?;
        // It reads counters while two other threads keep both CPUs busy.
        let preferred = Thread::current().prefer();
        let nowhere = Traffic::into_nothing()?;
        let folder = site::folder();
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, signals, nowhere, preferred })
    }

    /// One per way and forwarder, each tried once.
    fn stations(&mut self, sink: Sink, penstock: &Path) -> Result<Vec<Station>, LabError> {
        let mut stations = Vec::new();
        for way in Way::ALL {
            for kind in Kind::ALL {
                let site = Site::new(stations.len())?;
                let traffic = Traffic::new(&site, sink)?;
                let forwarder = Forwarder::start(kind, way, &site, &self.folder, penstock)?;
                if let Some(thread) = forwarder.thread {
                    self.preferred &= thread.prefer();
                }
                let mut station = Station { way, kind, forwarder, traffic, site, pace: 1e6 };
                self.measure(&mut station, Duration::from_millis(300), 0.0)?;
                stations.push(station);
            }
        }
        Ok(stations)
    }

    /// Nanoseconds that the generator takes for a frame that goes nowhere.
    fn generating_ns(&self) -> Result<f64, LabError> {
        let nowhere = &self.nowhere;
        let frames = 1 << 22;
        let used = std::thread::scope(|scope| {
            joined(scope.spawn(move || {
                let thread = become_generator()?;
                let before = thread.cpu_ns();
                nowhere.send(frames)?;
                Ok::<_, TrafficError>(thread.cpu_ns() - before)
            }))
        })?;
        Ok(used as f64 / f64::from(frames))
    }

    /// Looks at a few frames, then sends for a while and counts.
    fn measure(&mut self, station: &mut Station, length: Duration, generating_ns: f64) -> Result<Run, LabError> {
        check(station)?;
        let Station { traffic, site, forwarder, pace, .. } = &mut *station;
        let (traffic, gateway, thread) = (&*traffic, site.path("gen"), forwarder.thread);
        // One call for the whole run: between two, the kernel waits for tens of milliseconds.
        let spare = Duration::from_millis(200);
        let frames = (*pace * (WARM_UP + length + spare).as_secs_f64()).clamp(65_536.0, 1e9) as u32;
        let stop = &AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        let signals = &mut self.signals;
        let (start, end) = std::thread::scope(|scope| {
            let generator = scope.spawn(move || {
                sys::netns::enter(&gateway)?;
                let _gone = sender.send(become_generator()?);
                while !stop.load(Relaxed) {
                    traffic.send(frames)?;
                }
                Ok::<_, TrafficError>(())
            });
            let watched = (|| {
                // A generator that failed says why when it is joined.
                let Ok(generator) = receiver.recv() else { return Ok(None) };
                let look = || {
                    let forwarder_ns = thread.map_or(0, |thread| cpu_ns(thread, WORKER_CPU));
                    let generator_ns = cpu_ns(generator, GENERATOR_CPU);
                    Ok::<_, LabError>(Moment {
                        at: Instant::now(),
                        counts: traffic.counts()?,
                        generator_ns,
                        forwarder_ns,
                    })
                };
                pause(signals, WARM_UP)?;
                let start = look()?;
                pause(signals, length)?;
                Ok::<_, LabError>(Some((start, look()?)))
            })();
            stop.store(true, Relaxed);
            joined(generator)?;
            watched?.ok_or(LabError::Interrupted)
        })?;
        let run = run_between(&start, &end, thread.is_some(), generating_ns);
        *pace = run.offered;
        if !station.forwarder.is_running() {
            return Err(LabError::Ended(station.forwarder.log()));
        }
        // What it counted was as it should be up to the end.
        check(station)?;
        let (taken, strange) = (end.counts.taken - start.counts.taken, end.counts.strange - start.counts.strange);
        if strange * 1_000_000 > taken * STRANGE_PPM {
            return Err(LabError::Strange { who: station.who(), strange, taken });
        }
        Ok(run)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It is in the temporary folder anyway.
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes the calling thread one that generates.
fn become_generator() -> Result<Thread, TrafficError> {
    sys::affinity::pin_current_thread(GENERATOR_CPU)?;
    let thread = Thread::current();
    // Whether that is allowed has been said.
    thread.prefer();
    Ok(thread)
}

/// A thread's time with that of the soft interrupts in its place, however the kernel counts those.
fn cpu_ns(thread: Thread, cpu: usize) -> u64 {
    let apart = if host::counts_soft_interrupts_apart() { host::soft_interrupt_ns(cpu) } else { 0 };
    thread.cpu_ns() + apart
}

/// Waits, unless a signal comes first.
fn pause(signals: &mut Signals, length: Duration) -> Result<(), LabError> {
    let end = Instant::now() + length;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(left))?;
        if signals.read()?.is_some() {
            return Err(LabError::Interrupted);
        }
    }
}

/// Sends a few frames and compares what comes out, octet for octet.
fn check(station: &mut Station) -> Result<(), LabError> {
    // Nothing is right, so that the sink leaves all to its kernel.
    station.traffic.want([(0, u32::MAX, u32::MAX); 2])?;
    let capture = within(&station.site, "sink", || Ok(Capture::open()?))?;
    let traffic = &station.traffic;
    within(&station.site, "gen", || {
        become_generator()?;
        traffic.send(SAMPLE)
    })?;
    let frames = capture.frames(SAMPLE as usize, Duration::from_millis(500))?;
    if frames.len() < SAMPLE_AT_LEAST {
        return Err(LabError::Lost { who: station.who(), count: frames.len(), log: station.forwarder.log() });
    }
    let (check, fields): (fn(&[u8]) -> _, _) = match station.way {
        Way::Ipv4 => (frames::check_plain, frames::plain_fields()),
        Way::Vxlan => (frames::check_vxlan, frames::vxlan_fields()),
    };
    for frame in &frames {
        check(frame).map_err(|wrong| {
            let octets = frame.iter().map(|octet| format!("{octet:02x}")).collect();
            LabError::Wrong { who: station.who(), wrong, octets }
        })?;
    }
    Ok(station.traffic.want(fields)?)
}

/// `own_thread`: something else than the generator's thread forwards.
fn run_between(start: &Moment, end: &Moment, own_thread: bool, generating_ns: f64) -> Run {
    let passed = (end.at - start.at).as_secs_f64();
    let sent = (end.counts.sent - start.counts.sent) as f64;
    let taken = (end.counts.taken - start.counts.taken) as f64;
    let generator = (end.generator_ns - start.generator_ns) as f64;
    let forwarder = (end.forwarder_ns - start.forwarder_ns) as f64;
    let beyond = (generator - sent * generating_ns).max(0.0);
    let (forwarding_ns, receiving_ns) =
        if own_thread { (forwarder / taken, beyond / sent) } else { (beyond / taken, 0.0) };
    Run {
        offered: sent / passed,
        received: taken / passed,
        cpu_ns: forwarding_ns + receiving_ns,
        forwarding_ns,
        receiving_ns,
        share: if own_thread { forwarder } else { generator } / passed / 1e9,
    }
}

fn print_head() {
    println!();
    println!("{:<24} {:>12} {:>22} {:>22} {:>6}", "", "offered Mpps", "received Mpps", "CPU ns/packet", "share");
}

fn print_series(way: Way, series: &Series) {
    let text = |spread: Spread, scale: f64, digits: usize| {
        let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| value / scale);
        format!("{median:.digits$} [{min:.digits$} {max:.digits$}]")
    };
    println!(
        "{:<24} {:>12.3} {:>22} {:>22} {:>6.2}",
        format!("{:<6} {}", way.name(), series.kind.label()),
        series.spread(|run| run.offered).median / 1e6,
        text(series.spread(|run| run.received), 1e6, 3),
        text(series.spread(|run| run.cpu_ns), 1.0, 0),
        series.spread(|run| run.share).median
    );
}

fn print_comparison(comparison: &Comparison<'_>) {
    let text = |spread: Spread| format!("{:.2} [{:.2} {:.2}]", spread.median, spread.min, spread.max);
    println!(
        "{:<6} penstock / {}, paired: rate {}, CPU {} (above 1: penstock is ahead)",
        comparison.way.name(),
        comparison.theirs.kind.label(),
        text(comparison.rate_ratio()),
        text(comparison.cpu_ratio())
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reception_by_what_was_offered_and_forwarding_by_what_arrived() {
        let at = Instant::now();
        let start = Moment { at, counts: Counts::default(), generator_ns: 0, forwarder_ns: 0 };
        let counts = Counts { sent: 3_000_000, taken: 1_000_000, strange: 0 };
        let at = at + Duration::from_secs(1);
        let end = Moment { at, counts, generator_ns: 900_000_000, forwarder_ns: 800_000_000 };
        let apart = run_between(&start, &end, true, 100.0);
        assert_eq!((apart.offered, apart.received), (3e6, 1e6));
        assert_eq!((apart.forwarding_ns, apart.receiving_ns, apart.cpu_ns, apart.share), (800.0, 200.0, 1000.0, 0.8));
        let inline = run_between(&start, &end, false, 100.0);
        assert_eq!((inline.forwarding_ns, inline.receiving_ns, inline.cpu_ns, inline.share), (600.0, 0.0, 600.0, 0.9));
    }
}
