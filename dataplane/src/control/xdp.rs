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

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, XdpMode};
use aya::{Ebpf, EbpfError};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};
use steering::HostTables;
use steering::tables::{
    INTERFACES, Ingress, Interface, Keeper, LOCALS, Local, LocalV4, LocalV6, PORTS, QUEUES, Quick, ROUTES, ROWS,
    RouteV4, RouteV6, TUNNELS, TunnelV4, TunnelV6,
};
use steering::verdict::CODES;
use zerocopy::{Immutable, IntoBytes};

#[cfg(test)]
mod tests;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/steer.bpf.o");

/// Where the kernel's file system for pinned BPF objects is.
pub const BPFFS: &str = "/sys/fs/bpf";

/// How long a device may stay busy before that is an error: the kernel takes a moment to let go of the program of a
/// process that has just ended.
const BUSY: Duration = Duration::from_millis(500);
/// The same where the program was our own, kept by a file that has just been removed: it will go, but the kernel does it behind
/// our back, on a busy machine much later.
const LETTING_GO: Duration = Duration::from_secs(10);

/// How long a quick place stays empty before it is written again: much longer than a packet takes.
const REST: Duration = Duration::from_secs(1);

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

/// What can go wrong with the XDP program.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Not allowed.
    #[error("{action} needs CAP_BPF and CAP_NET_ADMIN: run as root, or grant them")]
    Privilege {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel does not take the program or its maps.
    #[error("the kernel refuses the XDP program: Linux 6.1 or newer is needed, with BPF and BTF")]
    Load(#[source] EbpfError),
    /// The verifier or the loader does not take the program.
    #[error("the kernel refuses the XDP program: {0}: Linux 6.1 or newer is needed")]
    Verify(Refusal),
    /// The embedded object lacks something: it is not the one that this version was built with.
    #[error("the embedded XDP object has no `{name}`: rebuild it from its source")]
    Object {
        /// A program or map.
        name: &'static str,
    },
    /// No such device.
    #[error("{device}: no such device")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// Somebody else's program.
    #[error(
        "{device}: another XDP program is attached: stop whoever attached it, `ip link set dev {device} xdp off`, or \
         remove the file that keeps it below {BPFFS}"
    )]
    Busy {
        /// The device.
        device: String,
    },
    /// Frames that do not fit the driver's buffers.
    #[error("{device}: its MTU is larger than its driver takes with XDP: lower it, or use `mode = \"generic\"`")]
    Mtu {
        /// The device.
        device: String,
    },
    /// No XDP in the driver.
    #[error("{device}: its driver cannot run XDP: use `mode = \"generic\"`")]
    Driver {
        /// The device.
        device: String,
    },
    /// Anything else about attaching.
    #[error("{device}: the XDP program cannot be attached")]
    Attach {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A map has no room.
    #[error("more than {limit} {what}: that is what the XDP program has room for")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How many would fit.
        limit: u32,
    },
    /// A number that has no place in the tables.
    #[error("{what} {value}: it must be below {limit}")]
    Range {
        /// What the number counts.
        what: &'static str,
        /// The number.
        value: u32,
        /// The first that is too large.
        limit: u32,
    },
    /// A map cannot be read or written.
    #[error("the XDP program's {what} cannot be changed or read")]
    Map {
        /// What is in the map.
        what: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// No place to leave a program behind.
    #[error(
        "{0}: `fallback = \"drop\"` needs a BPF file system there, and mounting it failed: `mount -t bpf bpf {0}` as root",
        path.display()
    )]
    Bpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A link cannot be left behind, or one that was left is in the way.
    #[error("{}: the link of the XDP program cannot be kept there", path.display())]
    Pin {
        /// The file in bpffs.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the verifier minds: of its log, which lists every instruction on the way, what it says last.
#[derive(Debug)]
pub struct Refusal(ProgramError);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProgramError::LoadError { io_error, verifier_log } = &self.0 else { return write!(f, "{}", self.0) };
        write!(f, "{io_error}")?;
        last_words(&verifier_log.to_string()).map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

fn last_words(log: &str) -> Option<&str> {
    // Statistics come after them.
    let reason = log.split("verification time").next()?;
    reason.lines().map(str::trim).rfind(|line| !line.is_empty())
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

/// Maps by the octets of key and value: [`aya::Pod`] is not ours to promise for what they mean.
type Hash<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;
type Trie<const K: usize, const V: usize> = LpmTrie<MapData, [u8; K], [u8; V]>;

struct Maps {
    interfaces: Table<Ingress, Interface, Hash<8, 16>>,
    quick: QuickPlaces<Array<MapData, [u8; 20]>>,
    locals_v4: Table<LocalV4, Local, Hash<8, 4>>,
    locals_v6: Table<LocalV6, Local, Hash<20, 4>>,
    tunnels_v4: Table<TunnelV4, u32, Hash<16, 4>>,
    tunnels_v6: Table<TunnelV6, u32, Hash<40, 4>>,
    routes_v4: Table<Prefix<RouteV4>, Keeper, Trie<8, 4>>,
    routes_v6: Table<Prefix<RouteV6>, Keeper, Trie<20, 4>>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; CODES]>,
}

impl Maps {
    fn of(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            interfaces: Table::new(map(ebpf, "INTERFACES")?, "interfaces", INTERFACES),
            quick: QuickPlaces { map: map(ebpf, "QUICK")?, written: BTreeMap::new(), emptied: BTreeMap::new() },
            locals_v4: Table::new(map(ebpf, "LOCALS_V4")?, "IPv4 addresses", LOCALS),
            locals_v6: Table::new(map(ebpf, "LOCALS_V6")?, "IPv6 addresses", LOCALS),
            tunnels_v4: Table::new(map(ebpf, "TUNNELS_V4")?, "tunnels over IPv4", TUNNELS),
            tunnels_v6: Table::new(map(ebpf, "TUNNELS_V6")?, "tunnels over IPv6", TUNNELS),
            routes_v4: Table::new(map(ebpf, "ROUTES_V4")?, "IPv4 prefixes", ROUTES),
            routes_v6: Table::new(map(ebpf, "ROUTES_V6")?, "IPv6 prefixes", ROUTES),
            sockets: map(ebpf, "SOCKETS")?,
            counters: map(ebpf, "COUNTERS")?,
        })
    }
}

fn map<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, XdpError> {
    let absent = XdpError::Object { name };
    match ebpf.take_map(name) {
        Some(map) => map.try_into().map_err(|_| absent),
        None => Err(absent),
    }
}

/// What the maps should hold.
struct Wanted {
    interfaces: BTreeMap<Ingress, Interface>,
    locals_v4: BTreeMap<LocalV4, Local>,
    locals_v6: BTreeMap<LocalV6, Local>,
    tunnels_v4: BTreeMap<TunnelV4, u32>,
    tunnels_v6: BTreeMap<TunnelV6, u32>,
    routes_v4: BTreeMap<Prefix<RouteV4>, Keeper>,
    routes_v6: BTreeMap<Prefix<RouteV6>, Keeper>,
}

impl Wanted {
    fn of(tables: &HostTables) -> Self {
        Self {
            interfaces: tables.interfaces().collect(),
            locals_v4: tables.locals_v4().collect(),
            locals_v6: tables.locals_v6().collect(),
            tunnels_v4: tables.tunnels_v4().map(|key| (key, 0)).collect(),
            tunnels_v6: tables.tunnels_v6().map(|key| (key, 0)).collect(),
            routes_v4: tables.routes_v4().into_iter().map(|(bits, data, k)| (Prefix { bits, data }, k)).collect(),
            routes_v6: tables.routes_v6().into_iter().map(|(bits, data, k)| (Prefix { bits, data }, k)).collect(),
        }
    }
}

/// A map, and what is in it.
struct Table<K, V, M> {
    map: M,
    written: BTreeMap<K, V>,
    what: &'static str,
    limit: u32,
}

impl<K: Ord + Copy + Encode, V: PartialEq + Copy + Encode, M: Store> Table<K, V, M> {
    fn new(map: M, what: &'static str, limit: u32) -> Self {
        Self { map, written: BTreeMap::new(), what, limit }
    }

    /// Writes what is new or different, of those values that are `these`.
    fn set(&mut self, wanted: &BTreeMap<K, V>, these: impl Fn(&V) -> bool) -> Result<(), XdpError> {
        for (key, value) in wanted {
            if these(value) && self.written.get(key) != Some(value) {
                let result = self.map.put(&key.encode(), &value.encode());
                result.map_err(|e| map_error(self.what, self.limit, e))?;
                self.written.insert(*key, *value);
            }
        }
        Ok(())
    }

    /// Removes what is not wanted, of those values that are `these`.
    fn keep(&mut self, wanted: &BTreeMap<K, V>, these: impl Fn(&V) -> bool) -> Result<(), XdpError> {
        let gone = self.written.iter().filter(|(key, value)| these(value) && !wanted.contains_key(key));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.map.take(&key.encode()).map_err(|e| map_error(self.what, self.limit, e))?;
            self.written.remove(&key);
        }
        Ok(())
    }
}

/// The copies of untagged interfaces ([`Quick`]).
struct QuickPlaces<M> {
    map: M,
    written: BTreeMap<u32, Quick>,
    /// When a place was emptied that is empty since.
    emptied: BTreeMap<u32, Instant>,
}

impl<M: Places> QuickPlaces<M> {
    /// Empties the places of what has changed, and fills those that have been empty for long enough. What finds no
    /// place is found in the map of interfaces, until a later call.
    fn follow(&mut self, interfaces: &BTreeMap<Ingress, Interface>, now: Instant) -> Result<(), XdpError> {
        let untagged = interfaces.iter().filter(|(ingress, _)| ingress.vlan == 0);
        let mut missing: BTreeMap<u32, Interface> = untagged.map(|(ingress, i)| (ingress.device, *i)).collect();
        let stale: Vec<(u32, Quick)> = (self.written.iter())
            .filter(|(_, quick)| match missing.get(&quick.device) {
                Some(interface) if *interface == quick.interface => missing.remove(&quick.device).is_none(),
                _ => true,
            })
            .map(|(place, quick)| (*place, *quick))
            .collect();
        // The old facts go first: two places that contradict each other would each be right for some packets.
        for (place, quick) in stale {
            self.write(place, Quick { device: 0, ..quick })?;
            self.written.remove(&place);
            self.emptied.insert(place, now);
        }
        for (device, interface) in missing {
            let first = Quick::place(device);
            let rested = |place: &u32| match self.emptied.get(place) {
                Some(when) => now.duration_since(*when) >= REST,
                None => !self.written.contains_key(place),
            };
            let Some(place) = [first, first + 1].into_iter().find(rested) else { continue };
            let quick = Quick { device, interface };
            self.write(place, Quick { device: 0, ..quick })?;
            self.write(place, quick)?;
            self.written.insert(place, quick);
            self.emptied.remove(&place);
        }
        Ok(())
    }

    fn write(&mut self, place: u32, quick: Quick) -> Result<(), XdpError> {
        self.map.write(place, quick).map_err(|e| map_error("interfaces", Quick::PLACES, e))
    }
}

trait Places {
    fn write(&mut self, place: u32, quick: Quick) -> Result<(), MapError>;
}

impl Places for Array<MapData, [u8; 20]> {
    fn write(&mut self, place: u32, quick: Quick) -> Result<(), MapError> {
        self.set(place, sized::<20>(quick.as_bytes()), 0)
    }
}

/// A trie's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix<K> {
    bits: u32,
    data: K,
}

/// Plain data as the octets that a map holds.
trait Encode {
    fn encode(&self) -> Vec<u8>;
}

impl<T: IntoBytes + Immutable> Encode for T {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl<K: IntoBytes + Immutable> Encode for Prefix<K> {
    fn encode(&self) -> Vec<u8> {
        [self.bits.as_bytes(), self.data.as_bytes()].concat()
    }
}

trait Store {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError>;
    fn take(&mut self, key: &[u8]) -> Result<(), MapError>;
}

impl<const K: usize, const V: usize> Store for Hash<K, V> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.insert(sized::<K>(key), sized::<V>(value), 0)
    }

    fn take(&mut self, key: &[u8]) -> Result<(), MapError> {
        self.remove(&sized::<K>(key))
    }
}

impl<const K: usize, const V: usize> Store for Trie<K, V> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.insert(&trie_key(key), sized::<V>(value), 0)
    }

    fn take(&mut self, key: &[u8]) -> Result<(), MapError> {
        self.remove(&trie_key(key))
    }
}

fn trie_key<const K: usize>(key: &[u8]) -> Key<[u8; K]> {
    let (bits, data) = key.split_at(size_of::<u32>());
    Key::new(u32::from_ne_bytes(sized(bits)), sized(data))
}

fn sized<const N: usize>(octets: &[u8]) -> [u8; N] {
    octets.try_into().expect("`Maps` names the sizes of its keys and values, and loading compared them")
}

/// The files in bpffs that keep links alive.
struct Pins {
    bpffs: PathBuf,
    folder: PathBuf,
    /// What is pinned stays when this process is gone.
    outlive: bool,
}

impl Pins {
    fn new(bpffs: &Path, instance: &str) -> Self {
        // An interface index means something within its network namespace only.
        let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
        let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let folder = bpffs.join("penstock").join(instance).join(number);
        Self { bpffs: bpffs.into(), folder, outlive: true }
    }

    /// No dots in the name: bpffs refuses them.
    fn file(&self, device: u32, mode: Mode) -> PathBuf {
        let mode = if mode == Mode::Native { "native" } else { "generic" };
        self.folder.join(format!("{mode}_{device}"))
    }

    /// Sees to it that there is a BPF file system.
    fn prepare(&mut self) -> Result<(), XdpError> {
        if !is_bpffs(&self.bpffs) {
            rustix::mount::mount("bpf", &self.bpffs, "bpf", rustix::mount::MountFlags::empty(), None)
                .map_err(|e| XdpError::Bpffs { path: self.bpffs.clone(), source: e.into() })?;
            // A mount of our own, in a namespace that our parent does not share, ends with us. Asked now, since to look
            // at a process that may more than we do is not allowed.
            let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
            let parent = rustix::process::getppid().and_then(|parent| namespace(&parent.as_raw_nonzero().to_string()));
            self.outlive = parent.is_some() && parent == namespace("thread-self");
        }
        Ok(())
    }

    fn make_folder(&self) -> Result<(), XdpError> {
        fs::create_dir_all(&self.folder).map_err(|source| XdpError::Pin { path: self.folder.clone(), source })
    }

    /// The devices whose links an earlier process of this instance left.
    fn left(&self) -> Result<BTreeSet<u32>, XdpError> {
        let error = |source| XdpError::Pin { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.map_err(error)?,
        };
        let mut left = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(error)?.file_name();
            left.extend(name.to_string_lossy().split_once('_').and_then(|(_, device)| device.parse::<u32>().ok()));
        }
        Ok(left)
    }

    /// Removes what keeps a device's link alive; whether anything did.
    fn remove(&self, device: u32) -> Result<bool, XdpError> {
        let mut any = false;
        for mode in [Mode::Native, Mode::Generic] {
            let path = self.file(device, mode);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(XdpError::Pin { path, source }),
                removed => any |= removed.is_ok(),
            }
        }
        Ok(any)
    }

    /// Removes the folders, as far as nobody else has something in them.
    fn clean(&self) {
        for folder in self.folder.ancestors().take(3) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

fn is_bpffs(path: &Path) -> bool {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}

fn attach_error(name: &str, error: ProgramError) -> XdpError {
    let device = name.into();
    match errno(&error) {
        Some(Errno::PERM | Errno::ACCESS) => XdpError::Privilege { action: "attaching the XDP program" },
        Some(Errno::NODEV | Errno::NXIO) => XdpError::NoDevice { device },
        _ if is_busy(&error) => XdpError::Busy { device },
        Some(Errno::RANGE) => XdpError::Mtu { device },
        Some(Errno::OPNOTSUPP) => XdpError::Driver { device },
        _ => XdpError::Attach { device, source: error },
    }
}

/// Another program is there: in this mode, or (EEXIST) in the other.
fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(Errno::BUSY | Errno::EXIST))
}

fn map_error(what: &'static str, limit: u32, error: MapError) -> XdpError {
    match errno(&error) {
        Some(Errno::TOOBIG | Errno::NOSPC) => XdpError::Full { what, limit },
        Some(Errno::PERM) => XdpError::Privilege { action: "changing the XDP program's maps" },
        _ => XdpError::Map { what, source: error },
    }
}

/// The system's error behind one of aya's, wherever in the chain it is.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Errno::from_io_error(io);
        }
        next = error.source();
    }
    None
}

fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    match errno(error) {
        Some(errno) => errno.into(),
        None => io::Error::other(error.to_string()),
    }
}
