//! The XDP program in the kernel: loaded, its maps filled, attached to devices, and left behind where that is wanted.
//!
//! In this order, so that no packet meets a half-told program:
//!
//! ```text
//! Xdp::load  →  apply(&HostTables)  →  attach(device) …  →  adopted()  →  set_socket(port, queue) …
//! ```
//!
//! `apply` is called again whenever what steering should know has changed; it writes the difference. A device with
//! `fallback = "drop"` has its link pinned in bpffs, so that the program stays when this process is gone, and drops
//! what nobody takes. The next process finds the link and puts its own program in the old one's place, atomically:
//! at no moment is the device without one. [`Xdp::stop`] is the clean end, after which nothing is left.
//!
//! Left out on purpose: sockets (crate `xsk`), and what the tables say (whoever calls `apply`).

use aya::Ebpf;
use aya::programs::XdpMode;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use steering::HostTables;
use steering::tables::{Interface, Keeper, Local, PORTS, QUEUES, ROWS};
use steering::verdict::CODES;

mod error;
mod maps;
mod pins;
#[cfg(test)]
mod tests;

pub use error::{Refusal, XdpError};

use error::{attach_error, errno, io_error, is_busy, map_error};
use maps::{Maps, Wanted};
use pins::Pins;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/steer.bpf.o");

/// Where the kernel's file system for pinned BPF objects is.
pub const BPFFS: &str = "/sys/fs/bpf";

/// How long a device may stay busy before that is an error: the kernel takes a moment to let go of the program of a
/// process that has just ended.
const BUSY: Duration = Duration::from_millis(500);
/// The same where the program was our own, kept by a file that has just been removed: it will go, but the kernel does it behind
/// our back, on a busy machine much later.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Where in the driver the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes its packet of a frame.
    Native,
    /// After that: any device can, but it is slower.
    Generic,
}

/// A device to steer.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Interface index.
    pub index: u32,
    /// Name, for messages.
    pub name: &'a str,
    /// Where the program is to run.
    pub mode: Mode,
    /// Whether the program must stay when this process dies (`fallback = "drop"`).
    pub outlives: bool,
}

/// What became of attaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// An earlier process had left its program on the device; it was replaced without a gap.
    pub replaced: bool,
    /// The program will still be there when this process is gone. `false`, though it was asked for, where bpffs is
    /// seen by this process alone (as under `ip netns exec`) and vanishes with it.
    pub outlives: bool,
}

/// The loaded program with its maps and links.
///
/// Dropped without [`Self::stop`], it leaves what it would leave if the process died: links of devices that are
/// `outlives` stay, the others go.
pub struct Xdp {
    ebpf: Ebpf,
    maps: Maps,
    links: BTreeMap<u32, Held>,
    pins: Pins,
}

/// A link; closed, it is gone, unless a file in bpffs keeps it.
struct Held {
    link: FdLink,
    pin: Option<PathBuf>,
}

impl Xdp {
    /// Loads the program and its maps, empty: everything would pass.
    ///
    /// `instance` names this gateway among those of the host, as a file name without dots; links that are to outlive
    /// the process are pinned in `/sys/fs/bpf/penstock/<instance>/<network namespace>/`.
    pub fn load(instance: &str) -> Result<Self, XdpError> {
        Self::load_in(Path::new(BPFFS), instance)
    }

    fn load_in(bpffs: &Path, instance: &str) -> Result<Self, XdpError> {
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| match errno(&error) {
            Some(Errno::PERM | Errno::ACCESS) => XdpError::Privilege { action: "loading the XDP program" },
            _ => XdpError::Load(error),
        })?;
        program(&mut ebpf)?.load().map_err(|error| match errno(&error) {
            Some(Errno::PERM) => XdpError::Privilege { action: "loading the XDP program" },
            _ => XdpError::Verify(Refusal(error)),
        })?;
        let maps = Maps::of(&mut ebpf)?;
        Ok(Self { ebpf, maps, links: BTreeMap::new(), pins: Pins::new(bpffs, instance) })
    }

    /// Mounts bpffs where it is missing, so that a link can be left behind. That takes a privilege that
    /// [`Self::attach`] does without from then on.
    pub fn prepare(&mut self) -> Result<(), XdpError> {
        self.pins.prepare()
    }

    /// Makes the maps say what the tables say.
    ///
    /// Interfaces come last and go last, and what a prefix leaves to the workers is there before a wider one that is
    /// the kernel's, and goes after it: so a packet that neither the old nor the new tables leave to the kernel does
    /// not get there in between. A device that has left the tables must have been detached before.
    ///
    /// On an error the maps hold a part, and another call goes on from there.
    pub fn apply(&mut self, tables: &HostTables) -> Result<(), XdpError> {
        for (_, interface) in tables.interfaces() {
            in_range("port", interface.port.into(), PORTS)?;
            in_range("row of counters", interface.counters.into(), ROWS)?;
        }
        let wanted = Wanted::of(tables);
        let maps = &mut self.maps;
        let all_locals = |_: &Local| true;
        let all_tunnels = |_: &u32| true;
        let all_interfaces = |_: &Interface| true;
        maps.locals_v4.set(&wanted.locals_v4, all_locals)?;
        maps.locals_v6.set(&wanted.locals_v6, all_locals)?;
        maps.tunnels_v4.set(&wanted.tunnels_v4, all_tunnels)?;
        maps.tunnels_v6.set(&wanted.tunnels_v6, all_tunnels)?;
        for keeper in [Keeper::WORKER, Keeper::KERNEL] {
            maps.routes_v4.set(&wanted.routes_v4, |k| *k == keeper)?;
            maps.routes_v6.set(&wanted.routes_v6, |k| *k == keeper)?;
        }
        maps.interfaces.set(&wanted.interfaces, all_interfaces)?;
        maps.quick.follow(&wanted.interfaces, Instant::now())?;

        for keeper in [Keeper::KERNEL, Keeper::WORKER] {
            maps.routes_v4.keep(&wanted.routes_v4, |k| *k == keeper)?;
            maps.routes_v6.keep(&wanted.routes_v6, |k| *k == keeper)?;
        }
        maps.tunnels_v4.keep(&wanted.tunnels_v4, all_tunnels)?;
        maps.tunnels_v6.keep(&wanted.tunnels_v6, all_tunnels)?;
        maps.locals_v4.keep(&wanted.locals_v4, all_locals)?;
        maps.locals_v6.keep(&wanted.locals_v6, all_locals)?;
        maps.interfaces.keep(&wanted.interfaces, all_interfaces)
    }

    /// Puts the program on a device. What [`Self::apply`] wrote before is what it goes by from its first packet on.
    ///
    /// A program that an earlier process of this instance left there is replaced. On a device that is attached
    /// already, only `outlives` is brought up to date: to change its mode, detach it first.
    pub fn attach(&mut self, device: Device<'_>) -> Result<Attached, XdpError> {
        if device.outlives {
            self.pins.prepare()?;
            self.pins.make_folder()?;
        }
        let path = self.pins.file(device.index, device.mode);
        let mut replaced = false;
        let mut held = match self.links.remove(&device.index) {
            Some(held) => held,
            None => match self.replace(&path) {
                Some(held) => {
                    replaced = true;
                    held
                }
                None => {
                    // What is there is of a device that is gone, or in the other mode, which cannot be replaced in
                    // place.
                    let patience = if self.pins.remove(device.index)? { LETTING_GO } else { BUSY };
                    Held { link: self.create(device, patience)?, pin: None }
                }
            },
        };
        if device.outlives && held.pin.is_none() {
            let pinned =
                held.link.pin(&path).map_err(|e| XdpError::Pin { path: path.clone(), source: io_error(&e) })?;
            held = Held { link: pinned.into(), pin: Some(path) };
        } else if !device.outlives && held.pin.take().is_some() {
            self.pins.remove(device.index)?;
        }
        self.links.insert(device.index, held);
        Ok(Attached { replaced, outlives: device.outlives && self.pins.outlive })
    }

    /// Takes the program off a device; without one, nothing happens.
    pub fn detach(&mut self, device: u32) -> Result<(), XdpError> {
        if let Some(Held { link, pin }) = self.links.remove(&device) {
            drop(link);
            if pin.is_some() {
                self.pins.remove(device)?;
            }
        }
        Ok(())
    }

    /// Takes off what an earlier process of this instance left on devices that are no longer attached here. To be
    /// called once all are.
    pub fn adopted(&mut self) -> Result<(), XdpError> {
        for device in self.pins.left()? {
            if !self.links.contains_key(&device) {
                self.pins.remove(device)?;
            }
        }
        Ok(())
    }

    /// The clean end: no program is left on any device.
    pub fn stop(mut self) -> Result<(), XdpError> {
        let devices: Vec<u32> = self.links.keys().copied().collect();
        let results: Vec<_> = devices.into_iter().map(|device| self.detach(device)).collect();
        self.pins.clean();
        results.into_iter().collect()
    }

    /// Whether an earlier process of this instance left programs that drop what nobody takes.
    pub fn left_any(&self) -> Result<bool, XdpError> {
        Ok(!self.pins.left()?.is_empty())
    }

    /// Lets a socket have what a receive queue of a port gets for the workers. The socket must be bound to that
    /// device and queue, or its frames are lost.
    pub fn set_socket(&mut self, port: u16, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        let index = socket_index(port, queue)?;
        self.maps.sockets.set(index, socket.as_raw_fd(), 0).map_err(|e| map_error("sockets", PORTS * QUEUES, e))
    }

    /// Takes the socket from a queue: what it would have got meets the fallback. The kernel does so by itself when a
    /// socket is closed.
    pub fn clear_socket(&mut self, port: u16, queue: u32) -> Result<(), XdpError> {
        let index = socket_index(port, queue)?;
        match self.maps.sockets.unset(index) {
            Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(()),
            other => other.map_err(|e| map_error("sockets", PORTS * QUEUES, e)),
        }
    }

    /// How often each verdict fell in a row of counters, by [`steering::Verdict::code`], all CPUs together.
    pub fn counters(&self, row: u16) -> Result<[u64; CODES], XdpError> {
        in_range("row of counters", row.into(), ROWS)?;
        let cpus = self.maps.counters.get(&row.into(), 0).map_err(|e| map_error("counters", ROWS, e))?;
        let mut sum = [0u64; CODES];
        for cpu in cpus.iter() {
            sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum = sum.wrapping_add(*count));
        }
        Ok(sum)
    }

    /// Replaces the program behind a pinned link; `None` where there is no link, or its device is gone.
    fn replace(&mut self, path: &Path) -> Option<Held> {
        let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(path).ok()?)).ok()?;
        let program = program(&mut self.ebpf).ok()?;
        let id = program.attach_to_link(link).ok()?;
        Some(Held { link: take(program, id)?, pin: Some(path.into()) })
    }

    fn create(&mut self, device: Device<'_>, patience: Duration) -> Result<FdLink, XdpError> {
        let mode = match device.mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let program = program(&mut self.ebpf)?;
        let give_up = Instant::now() + patience;
        let id = loop {
            match program.attach_to_if_index(device.index, mode) {
                Ok(id) => break id,
                Err(error) if is_busy(&error) && Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(attach_error(device.name, error)),
            }
        };
        take(program, id).ok_or_else(|| XdpError::Driver { device: device.name.into() })
    }
}

/// The link as a file descriptor of its own. `None`: it was attached without a link, which no kernel that we run on
/// does, and which dropping undoes.
fn take(program: &mut aya::programs::Xdp, id: XdpLinkId) -> Option<FdLink> {
    program.take_link(id).ok()?.try_into().ok()
}

fn program(ebpf: &mut Ebpf) -> Result<&mut aya::programs::Xdp, XdpError> {
    let absent = XdpError::Object { name: "steer" };
    match ebpf.program_mut("steer") {
        Some(program) => program.try_into().map_err(|_| absent),
        None => Err(absent),
    }
}

fn socket_index(port: u16, queue: u32) -> Result<u32, XdpError> {
    in_range("port", port.into(), PORTS)?;
    in_range("receive queue", queue, QUEUES)?;
    Ok(u32::from(port) * QUEUES + queue)
}

fn in_range(what: &'static str, value: u32, limit: u32) -> Result<(), XdpError> {
    if value < limit { Ok(()) } else { Err(XdpError::Range { what, value, limit }) }
}
