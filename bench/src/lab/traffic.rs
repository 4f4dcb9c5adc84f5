//! The generator and the sink: the programs of `ebpf/traffic`.

use super::frames::{self, FLOWS, FRAME, Field};
use super::site::Site;
use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, TestRun, Xdp, XdpMode};
use aya::{Ebpf, EbpfError, TestRunAttrs, TestRunOptions};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::ScopedJoinHandle;

#[path = "../../../ebpf/traffic/src/plan.rs"]
#[expect(dead_code, reason = "the programs use the rest")]
mod plan;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/traffic.bpf.o");

/// Frames that the kernel makes at once. More would overflow the 256 places of a veth.
const BATCH: u32 = 64;

/// Why there is no traffic.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The kernel does not take the object.
    #[error("the programs of the bench cannot be loaded: {0}")]
    Load(#[from] EbpfError),
    /// The kernel does not take, attach or run a program.
    #[error("a program of the bench cannot be used: {0}")]
    Program(#[from] ProgramError),
    /// A map.
    #[error("a map of the bench's programs cannot be used: {0}")]
    Map(#[from] MapError),
    /// A namespace.
    #[error("a namespace of the bench cannot be entered: {0}")]
    Namespace(#[from] io::Error),
    /// The embedded object is another one.
    #[error("ebpf/traffic.bpf.o has no `{0}`: rebuild it")]
    Object(&'static str),
}

/// Frames so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent by the generator.
    pub sent: u64,
    /// Got by the sink, and right as far as it looks.
    pub taken: u64,
    /// Got by the sink, and not what it should be.
    pub strange: u64,
}

/// What takes the frames at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A plain veth peer, as a container has: its kernel drops what is for another MAC address, and the device counts.
    ///
    /// What that costs does not depend on who sent the frame.
    Stack,
    /// The program `sink` in the driver, which looks at each frame it counts.
    ///
    /// On veth, XDP wants 256 octets of room before a frame. Those that the kernel routes have it; those that it
    /// encapsulated, and those of AF_XDP, have not and are copied once more, on the sender's CPU.
    Xdp,
}

/// The generator and the sink of one site.
pub struct Traffic {
    ebpf: Ebpf,
    wanted: Array<MapData, [u32; 4]>,
    counts: PerCpuArray<MapData, u64>,
    /// The counters of the sink's devices, where its kernel is the sink.
    devices: Option<File>,
}

impl Traffic {
    /// Loads them, attaches the sink, and lets the generator send by the site's device.
    ///
    /// # Errors
    ///
    /// The kernel does not take a program.
    pub fn new(site: &Site, sink: Sink) -> Result<Self, TrafficError> {
        let device = within(site, "gen", || Ok(sys::netdev::index("g0")?))?;
        let mut traffic = Self::load(device)?;
        match sink {
            Sink::Stack => {
                traffic.devices = Some(within(site, "sink", || Ok(File::open("/proc/thread-self/net/dev")?))?)
            }
            Sink::Xdp => {
                let sink = program(&mut traffic.ebpf, "sink")?;
                within(site, "sink", || Ok(sink.attach_to_if_index(sys::netdev::index("s0")?, XdpMode::Driver)?))?;
            }
        }
        Ok(traffic)
    }

    /// A generator whose frames go nowhere: there is no device with that number.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn into_nothing() -> Result<Self, TrafficError> {
        Self::load(i32::MAX as u32)
    }

    fn load(device: u32) -> Result<Self, TrafficError> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        for name in ["generate", "sink"] {
            program(&mut ebpf, name)?.load()?;
        }
        let mut templates: Array<_, [u64; plan::TEMPLATE_WORDS]> = map(&mut ebpf, "TEMPLATES")?;
        for flow in 0..FLOWS {
            let mut octets = [0; plan::TEMPLATE];
            octets[..FRAME].copy_from_slice(&frames::sent(flow));
            let words = octets.as_chunks::<8>().0;
            templates.set(flow, std::array::from_fn(|at| u64::from_ne_bytes(words[at])), 0)?;
        }
        let plan = plan::Plan { device, flows: FLOWS, random: false };
        let mut plans: Array<_, [u32; 4]> = map(&mut ebpf, "PLAN")?;
        plans.set(0, plan.to_words(), 0)?;
        let (wanted, counts) = (map(&mut ebpf, "WANTED")?, map(&mut ebpf, "COUNTS")?);
        Ok(Self { ebpf, wanted, counts, devices: None })
    }

    /// Which frames are right from now on, where the sink looks; all others go to its kernel.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub fn want(&mut self, fields: [Field; 2]) -> Result<(), TrafficError> {
        for (index, (at, mask, value)) in (0..).zip(fields) {
            self.wanted.set(index, plan::Match { at, mask, value }.to_words(), 0)?;
        }
        Ok(())
    }

    /// Everything so far.
    ///
    /// # Errors
    ///
    /// The map cannot be read.
    pub fn counts(&self) -> Result<Counts, TrafficError> {
        let sum = |index| Ok::<u64, MapError>(self.counts.get(&index, 0)?.iter().sum());
        let sent = sum(plan::GENERATED)?;
        match &self.devices {
            Some(devices) => Ok(Counts { sent, taken: received_by(devices, "s0")?, strange: 0 }),
            None => Ok(Counts { sent, taken: sum(plan::TAKEN)?, strange: sum(plan::PASSED)? }),
        }
    }

    /// Sends frames as fast as they go, on the calling thread, which is in the generator's namespace.
    ///
    /// # Errors
    ///
    /// The kernel does not run the program.
    pub fn send(&self, frames: u32) -> Result<(), TrafficError> {
        let program = self.ebpf.program("generate").ok_or(TrafficError::Object("generate"))?;
        let program: &Xdp = program.try_into()?;
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let blank = [0; FRAME];
        let options = TestRunOptions { data_in: Some(&blank), repeat: frames, attrs, ..Default::default() };
        match program.test_run(options) {
            // A signal for another thread cuts a run short: the counters say how short.
            Err(error) if is_interruption(&error) => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }
}

/// Runs something on a thread of its own in one of a site's namespaces.
///
/// # Errors
///
/// As what is run, or the namespace cannot be entered.
pub fn within<T: Send>(
    site: &Site,
    host: &str,
    action: impl FnOnce() -> Result<T, TrafficError> + Send,
) -> Result<T, TrafficError> {
    std::thread::scope(|scope| {
        joined(scope.spawn(|| {
            sys::netns::enter(&site.path(host))?;
            action()
        }))
    })
}

/// What a thread returned.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Packets that a device has received, of the table that the kernel prints.
fn received_by(devices: &File, name: &str) -> io::Result<u64> {
    let mut text = [0; 2048];
    let length = devices.read_at(&mut text, 0)?;
    Ok(received_in(&String::from_utf8_lossy(&text[..length]), name).unwrap_or(0))
}

fn received_in(table: &str, name: &str) -> Option<u64> {
    let columns = table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    // Octets, then packets.
    columns.split_whitespace().nth(1)?.parse().ok()
}

fn is_interruption(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::Interrupted) || error.source().is_some_and(is_interruption)
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, TrafficError> {
    Ok(ebpf.program_mut(name).ok_or(TrafficError::Object(name))?.try_into()?)
}

fn map<T: TryFrom<aya::maps::Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, TrafficError> {
    Ok(ebpf.take_map(name).ok_or(TrafficError::Object(name))?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_packets_that_a_device_received() {
        let table = "Inter-|   Receive\n face |bytes packets errs\n    lo: 10 1 0\n    s0: 1280 20 0\n   s01: 5 3 0\n";
        assert_eq!(received_in(table, "s0"), Some(20));
        assert_eq!(received_in(table, "lo"), Some(1));
        assert_eq!(received_in(table, "s"), None);
    }
}
