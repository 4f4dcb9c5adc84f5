//! Tenants, an interactive flow and a port that is too slow for all of them: what each gets, and how long it waits.
//!
//! ```text
//! red  203.0.113.2 ── red0  ┐
//!                           [ gateway ] wan0, a rate ── 192.0.2.2 far
//! blue 203.0.113.6 ── blue0 ┘
//! ```
//!
//! Everybody is the kernel: TCP with ECN, UDP at twice what may pass, and a probe that comes back at once. The same story is
//! told with Penstock on the gateway, and with Linux's HTB and `fq_codel` where this kernel has them. The port is
//! slow, so that no CPU is what bounds anything.

mod flows;
mod gateway;
mod plot;
mod report;
mod site;

use crate::lab::host;
use crate::lab::{CommandError, ForwarderError};
use crate::results::Figure;
use flows::Stage;
use gateway::{Gateway, Kind};
use report::Told;
use site::Site;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use sys::caps::{Capability, has};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seconds of each part of the story, [`LEAST_SECONDS`] or more.
    pub seconds: u64,
    /// What the port and everybody on it have.
    pub rates: Rates,
    /// This machine is an emulated one: its figures have names of their own.
    pub emulated: bool,
    /// The binary `penstock`.
    pub penstock: PathBuf,
    /// Where the plot goes.
    pub plot: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ShapingError {
    /// Not root.
    #[error("it makes network namespaces and attaches XDP programs: run it as root")]
    Privilege,
    /// A command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Penstock.
    #[error(transparent)]
    Gateway(#[from] ForwarderError),
    /// Sockets or threads.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The plot.
    #[error("{}: {message}", path.display())]
    Plot {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// As the plot calls it.
    pub name: &'static str,
    /// Its host.
    pub host: &'static str,
    /// Its address.
    pub address: [u8; 4],
}

const fn tenant(name: &'static str, host: &'static str, last: u8) -> Tenant {
    Tenant { name, host, address: [203, 0, 113, last] }
}

/// All, in the order in which they are numbered.
pub const TENANTS: [Tenant; 8] = [
    tenant("red", "red", 2),
    tenant("blue", "blue", 6),
    tenant("one", "blue", 65),
    tenant("two", "blue", 66),
    tenant("three", "blue", 67),
    tenant("four", "blue", 68),
    tenant("bits", "blue", 69),
    tenant("packets", "blue", 70),
];

const RED: usize = 0;
const BLUE: usize = 1;
const EQUALS: [usize; 4] = [2, 3, 4, 5];
const BITS: usize = 6;
const PACKETS: usize = 7;

/// What the port and everybody on it have: all are parts of the port's rate, so that the story is the same on a machine that
/// is too slow for the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Bits per second of the port, with all that is around a frame.
    pub port: u64,
}

impl Rates {
    /// What `red` is guaranteed.
    pub const fn guarantee(self) -> u64 {
        self.port / 10 * 7
    }

    /// What `blue` never exceeds.
    pub const fn limit(self) -> u64 {
        self.port / 5 * 2
    }

    /// What `bits` never exceeds.
    pub const fn bit_limit(self) -> u64 {
        self.port / 4
    }

    /// What `packets` never exceeds, packets per second.
    pub const fn packet_limit(self) -> u64 {
        self.port / 20_000
    }

    /// What the interactive class never exceeds.
    pub const fn interactive(self) -> u64 {
        self.port / 5
    }
}

/// What is sent meanwhile.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// So many TCP connections.
    Tcp { tenant: usize, connections: usize },
    /// Datagrams of so many octets of payload, one per second for each so many bits per second that the port has.
    Udp { tenant: usize, octets: usize, each: u64 },
}

/// A part of the story.
struct Part {
    /// As the plot calls it.
    name: &'static str,
    loads: &'static [Load],
}

const QUIET: usize = 0;
const BULK: usize = 1;
const CAPPED: usize = 2;
const FAIR: usize = 3;
const RATE: usize = 4;
const STORY: [Part; 6] = [
    Part { name: "quiet", loads: &[] },
    // Many connections do not get more than few.
    Part {
        name: "red against blue",
        loads: &[Load::Tcp { tenant: RED, connections: 2 }, Load::Tcp { tenant: BLUE, connections: 12 }],
    },
    Part { name: "blue alone", loads: &[Load::Tcp { tenant: BLUE, connections: 4 }] },
    Part {
        name: "four equals",
        loads: &[
            Load::Tcp { tenant: EQUALS[0], connections: 1 },
            Load::Tcp { tenant: EQUALS[1], connections: 2 },
            Load::Tcp { tenant: EQUALS[2], connections: 4 },
            Load::Tcp { tenant: EQUALS[3], connections: 8 },
        ],
    },
    Part { name: "bits", loads: &[Load::Udp { tenant: BITS, octets: BITS_OCTETS, each: 20_000 }] },
    Part { name: "packets", loads: &[Load::Udp { tenant: PACKETS, octets: 64, each: 10_000 }] },
];

/// Payload of a datagram of `bits`: twice what it may send.
const BITS_OCTETS: usize = 1_200;

/// How often the receivers' counters are read.
const TICK: Duration = Duration::from_millis(100);
/// What is left out at the start of each part: TCP looks for its rate.
const WARM_UP: Duration = Duration::from_secs(2);
/// So that five seconds of each part count: over a shorter time a rate on the wall clock says little.
pub const LEAST_SECONDS: u64 = 7;

/// Measures, says on the way what it does, prints the table, draws the plot, and returns the figures.
///
/// # Errors
///
/// Without privilege or binary; when a command fails. Namespaces and processes are gone in any case.
pub fn run(options: &Options) -> Result<Vec<Figure>, ShapingError> {
    if ![Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::SysAdmin].into_iter().all(has) {
        return Err(ShapingError::Privilege);
    }
    site::sweep();
    let machine = host::describe();
    println!("{}, Linux {}, load {:.2}", machine.0, machine.1, host::load());
    if options.emulated {
        println!(
            "an emulated machine: only what these two did in this one run compares, and no delay is a real machine's"
        );
    }
    println!("a port of {} Mbit/s, parts of {} s", options.rates.port / 1_000_000, options.seconds);
    let mut told = Vec::new();
    for kind in Kind::ALL {
        match tell(kind, options) {
            Ok(story) => told.push(story),
            // An opponent that this kernel has not is no failure.
            Err(ShapingError::Command(error)) if kind == Kind::Linux => {
                println!("without Linux's HTB and fq_codel beside: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    report::print(&told, options);
    plot::draw(&told, options).map_err(|message| ShapingError::Plot { path: options.plot.clone(), message })?;
    println!("plot: {}", options.plot.display());
    Ok(report::figures(&told, options, &machine))
}

/// The whole story with one gateway.
fn tell(kind: Kind, options: &Options) -> Result<Told, ShapingError> {
    let site = Site::new()?;
    let gateway = Gateway::start(kind, &site, options)?;
    let stage = Stage::new();
    let mut samples = Vec::new();
    let mut starts = Vec::new();
    let length = Duration::from_secs(options.seconds.max(LEAST_SECONDS));
    let probed = std::thread::scope(|scope| {
        let played = (|| {
            stage.receive(scope, &site)?;
            let probe = stage.probe(scope, &site)?;
            let begin = Instant::now();
            for (at, part) in STORY.iter().enumerate() {
                println!("{:<24} {}/{} {}", kind.label(), at + 1, STORY.len(), part.name);
                let act = stage.begin(at);
                for load in part.loads {
                    match *load {
                        Load::Tcp { tenant, connections } => {
                            (0..connections).try_for_each(|_| act.tcp(scope, &site, tenant))?
                        }
                        Load::Udp { tenant, octets, each } => {
                            act.udp(scope, &site, tenant, octets, options.rates.port / each)?
                        }
                    }
                }
                let start = Instant::now();
                starts.push((samples.len(), start - begin));
                while start.elapsed() < length {
                    std::thread::sleep(TICK);
                    samples.push((begin.elapsed(), stage.counts()));
                }
            }
            Ok::<_, io::Error>(probe)
        })();
        stage.end();
        match played {
            Ok(probe) => probe.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(error),
        }
    })?;
    let marks = gateway.marks();
    Ok(Told::new(kind, &samples, &starts, probed, marks))
}
