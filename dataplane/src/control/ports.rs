//! Interfaces while the gateway runs: attached when they are there, given up when they go, attached again when they
//! come back.

#![expect(clippy::result_large_err, reason = "an error here is told once per change of a link")]

use super::ethtool::{self, Offload, Offloads, Outcome};
use super::host::{Host, IfIndex, Link};
use super::plan::Plan;
use super::workers::{Queues, Team};
use super::xdp::{Device, Mode as XdpMode, Xdp, XdpError};
use crate::config::{Config, Fallback, Mode};
use crate::io::{Port, Xdp as XdpDriver};
use crate::packet::PortId;
use crate::worker::Lane;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use xsk::{Bound, ChunkSize, Pool, Socket, Umem};

/// What an interface is refused for; each in one sentence with its mend.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The file names an interface that the host has not.
    #[error("interface {name}: there is none of that name in this network namespace (see `ip link`)")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Packets of a port belong to its bond or bridge.
    #[error("interface {name} is a port of {master}: take it out, or configure {master} instead")]
    Enslaved {
        /// Its name.
        name: String,
        /// The bond or bridge.
        master: String,
    },
    /// A VLAN of the file is not what Linux has under that name.
    #[error(
        "interface {name}: VLAN {vlan} of {parent} is wanted; make it: ip link add link {parent} name {name} type vlan id {vlan}"
    )]
    NotThatVlan {
        /// Its name.
        name: String,
        /// Of the file.
        parent: String,
        /// Of the file.
        vlan: u16,
    },
    /// A zero-copy request that cannot be met, and everything else about sockets.
    #[error("interface {name}: {source}")]
    Socket {
        /// Its name.
        name: String,
        /// Why.
        source: xsk::Error,
    },
    /// The XDP program.
    #[error("interface {name}: {source}")]
    Xdp {
        /// Its name.
        name: String,
        /// Why.
        source: XdpError,
    },
    /// Zero-copy is asked for, and frames would arrive in pieces.
    #[error(
        "interface {name}: in zero-copy its driver cuts frames at {limit} octets, and an MTU of {mtu} needs more: restart \
         penstock, which may make larger chunks; or lower the MTU; or set mode = \"copy\""
    )]
    Cut {
        /// Its name.
        name: String,
        /// Octets of a frame.
        limit: usize,
        /// Octets of a packet.
        mtu: u32,
    },
    /// More queues than packet memory was made for at the start, by far.
    #[error(
        "interface {name}: there is no packet memory for {queues} queues: restart penstock, or give it fewer by `ethtool -L {name}`"
    )]
    Memory {
        /// Its name.
        name: String,
        /// How many it has.
        queues: u32,
    },
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
}

/// What an attached interface is like.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The kernel's index.
    pub ifindex: IfIndex,
    /// Where the XDP program runs.
    pub xdp: XdpMode,
    /// Whether frames are copied between kernel and workers.
    pub zero_copy: bool,
    /// Why not zero-copy.
    pub why_copy: Option<String>,
    /// Its queues.
    pub queues: Queues,
    /// Frames of several chunks.
    pub multi_buffer: bool,
    /// The other end may be a kernel that hands over frames beyond the MTU, to be cut later. In the driver, attaching
    /// ends that; in generic mode they come, and no socket takes them.
    pub beyond_mtu: bool,
    /// The XDP program stays when the process dies.
    pub outlives: bool,
    /// Offloads that were turned off.
    pub turned_off: Vec<Offload>,
}

/// Interfaces with rings, by port.
pub struct Interfaces {
    umem: Umem,
    pool: Pool,
    /// Sockets that there is packet memory for.
    room: usize,
    attached: BTreeMap<PortId, Attached>,
    offloads: Offloads,
    /// When the number of queues was last looked at.
    looked: Instant,
}

/// How often the number of queues is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What happens to an interface when the process is gone, for the line that `run` prints.
pub struct Fate<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it is attached.
    pub attached: &'a Attached,
    /// As configured.
    pub fallback: Fallback,
}

impl fmt::Display for Fate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attached { xdp, zero_copy, why_copy, queues, multi_buffer, beyond_mtu, outlives, turned_off, .. } =
            self.attached;
        let place = match xdp {
            XdpMode::Native => "XDP in the driver",
            XdpMode::Generic => "generic XDP",
        };
        let copy = if *zero_copy { "zero-copy" } else { "copy" };
        let count = queues.receive;
        write!(f, "{}: {place}, {copy}, {count} queue{}", self.name, if count == 1 { "" } else { "s" })?;
        if *multi_buffer {
            f.write_str(", jumbo frames")?;
        }
        if let Some(why) = why_copy {
            write!(f, " (no zero-copy: {why})")?;
        }
        for offload in turned_off {
            write!(f, "; {offload} is off until the end")?;
        }
        if *beyond_mtu {
            f.write_str("; TCP needs `ethtool -K PEER tso off` at its other end")?;
        }
        f.write_str(match (self.fallback, outlives) {
            (Fallback::Kernel, _) => "; if Penstock dies, the kernel forwards by its own routes",
            (Fallback::Drop, true) => "; if Penstock dies, what is to be forwarded is dropped",
            (Fallback::Drop, false) => {
                "; if Penstock dies, NOTHING keeps the kernel from forwarding: /sys/fs/bpf is not the host's here"
            }
        })
    }
}

impl Interfaces {
    /// None attached. Sockets share the packet memory, which is made for `room` of them.
    pub fn new(umem: Umem, room: usize) -> Self {
        Self {
            umem,
            pool: umem.pool(256, 4096),
            room,
            attached: BTreeMap::new(),
            offloads: Offloads::default(),
            looked: Instant::now(),
        }
    }

    /// An attached interface.
    pub fn get(&self, port: PortId) -> Option<&Attached> {
        self.attached.get(&port)
    }

    /// Attaches what is there and is not attached, and gives up what has gone, changed its index, or needs other
    /// sockets. Returns what happened: a line, or why not.
    pub fn follow(
        &mut self,
        config: &Config,
        plan: &Plan,
        host: &Host,
        xdp: &mut Xdp,
        team: &mut Team,
    ) -> Vec<Result<String, PortError>> {
        let mut events = Vec::new();
        // The kernel does not report a change of queues (`ethtool -L`), and to ask takes a lock of its.
        let look_closer = self.looked.elapsed() >= LOOK;
        if look_closer {
            self.looked = Instant::now();
        }
        for (at, interface) in config.interfaces.iter().enumerate() {
            if interface.parent.is_some() {
                continue;
            }
            let port = PortId(at as u16);
            let link = host.link_by_name(&interface.name);
            if let Some(attached) = self.attached.get(&port) {
                let same = link.is_some_and(|(index, link)| {
                    index == attached.ifindex
                        && needs_several_chunks(&self.umem, link) == attached.multi_buffer
                        && (!look_closer || queues(&interface.name, link) == attached.queues)
                });
                if same {
                    continue;
                }
                events.push(Ok(format!("{}: is gone or has changed, gives up its sockets", interface.name)));
                self.detach(port, plan, xdp, team);
            }
            let Some((index, link)) = link.filter(|(_, link)| link.up) else { continue };
            match self.attach(port, index, link, config, plan, xdp, team) {
                Ok(()) => {
                    let attached = &self.attached[&port];
                    let fate = Fate { name: &interface.name, attached, fallback: interface.fallback };
                    events.push(Ok(fate.to_string()));
                    let (room, sockets) = (self.room, self.sockets());
                    if sockets > room {
                        events.push(Ok(format!(
                            "packet memory was made for {room} queues, and there are {sockets}: a restart makes more"
                        )));
                    }
                }
                Err(error) => events.push(Err(error)),
            }
        }
        events
    }

    /// How many sockets there are.
    fn sockets(&self) -> usize {
        self.attached.values().map(|attached| attached.queues.receive as usize).sum()
    }

    fn detach(&mut self, port: PortId, plan: &Plan, xdp: &mut Xdp, team: &mut Team) {
        team.close(port);
        if let Some(attached) = self.attached.remove(&port) {
            let slot = plan.slot(port);
            for queue in 0..attached.queues.receive {
                // A socket that is closed has left the map by itself.
                let _gone = xdp.clear_socket(slot, queue);
            }
            // A device that is gone has taken the program with it.
            let _gone = xdp.detach(attached.ifindex);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that an interface touches meets here, once")]
    fn attach(
        &mut self,
        port: PortId,
        index: IfIndex,
        link: &Link,
        config: &Config,
        plan: &Plan,
        xdp: &mut Xdp,
        team: &mut Team,
    ) -> Result<(), PortError> {
        let interface = &config.interfaces[port.index()];
        let name = || interface.name.clone();
        let queues = queues(&interface.name, link);
        // With twice as many sockets as planned each still has what the kernel holds of it. With more of them, nobody
        // would receive anything.
        if self.sockets() + queues.receive as usize > 2 * self.room {
            return Err(PortError::Memory { name: name(), queues: queues.receive });
        }
        let tagged = config.interfaces.iter().any(|other| other.parent.is_some_and(|(at, _)| at == port.index()));
        let generic = interface.mode == Mode::Generic;
        // A NIC strips the tags of all VLANs, also of those that are the host's own: these would enter as untagged.
        let strips_tags = tagged || link.kind.is_none();
        let mut turned_off = self.turn_off(&interface.name, strips_tags, generic)?;
        // The program first, in the driver if it can; without sockets it goes by its fallback.
        let outlives = interface.fallback == Fallback::Drop;
        let device = |mode| Device { index, name: &interface.name, mode, outlives };
        let refuse = |source| PortError::Xdp { name: name(), source };
        let (mode, attached) = match generic {
            true => (XdpMode::Generic, xdp.attach(device(XdpMode::Generic)).map_err(refuse)?),
            false => match xdp.attach(device(XdpMode::Native)) {
                Ok(attached) => (XdpMode::Native, attached),
                Err(XdpError::Driver { .. } | XdpError::Mtu { .. }) if interface.mode == Mode::Auto => {
                    turned_off.extend(self.turn_off(&interface.name, false, true)?);
                    (XdpMode::Generic, xdp.attach(device(XdpMode::Generic)).map_err(refuse)?)
                }
                Err(source) => return Err(refuse(source)),
            },
        };
        let multi_buffer = needs_several_chunks(&self.umem, link);
        let cut = cut(&interface.name, link, self.umem.chunk_size());
        if let (Some(limit), Mode::ZeroCopy) = (cut, interface.mode) {
            let _gone = xdp.detach(index);
            return Err(PortError::Cut { name: name(), limit, mtu: link.mtu });
        }
        let mut why_copy = cut.map(|limit| format!("its driver would cut frames at {limit} octets"));
        let mut zero_copy = true;
        let slot = plan.slot(port);
        for queue in 0..queues.receive {
            let wanted = match (mode, interface.mode) {
                (XdpMode::Generic, _) => xsk::Mode::Generic,
                (_, Mode::ZeroCopy) => xsk::Mode::ZeroCopy,
                (_, Mode::Copy) => xsk::Mode::Copy,
                _ if cut.is_some() => xsk::Mode::Copy,
                _ => xsk::Mode::Auto,
            };
            let wish = xsk::Config { mode: wanted, multi_buffer, ..xsk::Config::new(index, queue) };
            let bound = Socket::bind(&self.umem, &mut self.pool, &wish)
                .map_err(|source| PortError::Socket { name: name(), source })
                .and_then(|socket| match xdp.set_socket(slot, queue, socket.as_fd()) {
                    Ok(()) => Ok(socket),
                    Err(source) => {
                        socket.close(&mut self.pool);
                        Err(refuse(source))
                    }
                });
            let socket = match bound {
                Ok(socket) => socket,
                Err(error) => {
                    // All queues or none: half an interface would lose half of the flows.
                    team.close(port);
                    let _gone = xdp.detach(index);
                    return Err(error);
                }
            };
            zero_copy &= socket.bound() == Bound::ZeroCopy;
            why_copy = why_copy.or_else(|| socket.not_zero_copy().map(|reason| reason.to_string()));
            let driver = Port::Xdp(XdpDriver::new(socket, leaves_checksums(&interface.name, link)));
            team.open_queue(Lane::interface(port, queue, driver), queues);
        }
        team.route(port, queues);
        let attached = Attached {
            ifindex: index,
            xdp: mode,
            zero_copy,
            why_copy,
            queues,
            multi_buffer,
            beyond_mtu: mode == XdpMode::Generic && matches!(link.kind.as_deref(), Some("veth" | "netkit")),
            outlives: attached.outlives,
            turned_off,
        };
        self.attached.insert(port, attached);
        Ok(())
    }

    /// Turns off what hides packets from XDP.
    fn turn_off(&mut self, name: &str, strips_tags: bool, generic: bool) -> Result<Vec<Offload>, PortError> {
        let mut off = Vec::new();
        let mut unwanted = Vec::new();
        if strips_tags {
            unwanted.push(Offload::RxVlan);
        }
        if generic {
            unwanted.extend([Offload::Gro, Offload::Lro]);
        }
        for offload in unwanted {
            if self.offloads.turn_off(name, offload)? == Outcome::TurnedOff {
                off.push(offload);
            }
        }
        Ok(off)
    }

    /// The end: offloads are as they were. What could not be restored is returned.
    pub fn restore(&mut self) -> Vec<ethtool::Error> {
        self.offloads.restore()
    }
}

/// Checks what can be told before anything is touched.
///
/// # Errors
///
/// An interface of the file is missing, belongs to a bond or bridge, or is another VLAN.
pub fn check(config: &Config, host: &Host) -> Result<(), PortError> {
    for interface in &config.interfaces {
        let name = || interface.name.clone();
        let Some((_, link)) = host.link_by_name(&interface.name) else {
            return Err(match interface.parent {
                None => PortError::Missing { name: name() },
                Some((parent, vlan)) => {
                    PortError::NotThatVlan { name: name(), parent: config.interfaces[parent].name.clone(), vlan }
                }
            });
        };
        if let Some(master) = link.master.and_then(|index| host.links.get(&index))
            && matches!(master.kind.as_deref(), Some("bond" | "bridge" | "team"))
        {
            return Err(PortError::Enslaved { name: name(), master: master.name.clone() });
        }
        if let Some((at, vlan)) = interface.parent {
            let parent = &config.interfaces[at].name;
            let over = link.parent.and_then(|index| host.links.get(&index)).map(|link| &link.name);
            if link.vlan != Some(vlan) || over != Some(parent) {
                return Err(PortError::NotThatVlan { name: name(), parent: parent.clone(), vlan });
            }
        }
    }
    Ok(())
}

/// Queues as the driver groups them; what it does not say, from the link.
pub fn queues(name: &str, link: &Link) -> Queues {
    let channels = sys::ethtool::channels(name).ok();
    let (receive, send) = match channels {
        Some(channels) => (channels.combined + channels.rx, channels.combined + channels.tx),
        None => (link.rx_queues, link.tx_queues),
    };
    let receive = receive.clamp(1, steering::tables::QUEUES);
    Queues { receive, both: receive.min(send).max(1) }
}

/// Whether the longest frame of a link, its VLAN tag included, needs more than one chunk.
fn needs_several_chunks(umem: &Umem, link: &Link) -> bool {
    link.mtu as usize + wire::Ethernet::SIZE + wire::VlanTag::SIZE > umem.chunk_size().longest_frame()
}

/// Drivers that tell their device the size of a buffer in whole KiB (ixgbe: for the 82599): of a chunk of 2,048 octets
/// less headroom that is 1,024. In zero-copy a longer frame fills several buffers, and igb (seen with Linux 6.18)
/// hands over each as if it were a frame.
const WHOLE_KIB: [&str; 3] = ["igb", "igc", "ixgbe"];

/// At how many octets zero-copy would cut the longest frame of an interface, if it does.
fn cut(name: &str, link: &Link, chunk_size: ChunkSize) -> Option<usize> {
    let limit = chunk_size.longest_frame() / 1024 * 1024;
    let longest = link.mtu as usize + wire::Ethernet::SIZE + wire::VlanTag::SIZE;
    let driver = || ethtool::facts(name).ok().and_then(|facts| facts.driver);
    (longest > limit && driver().is_some_and(|driver| WHOLE_KIB.contains(&driver.name.as_str()))).then_some(limit)
}

/// Small chunks, unless a driver would cut frames to fit them.
pub fn chunk_size(config: &Config, host: &Host) -> ChunkSize {
    let small = ChunkSize::Octets2048;
    let own = config.interfaces.iter().filter(|interface| interface.parent.is_none());
    let cut = own.filter(|interface| matches!(interface.mode, Mode::Auto | Mode::ZeroCopy)).any(|interface| {
        let link = host.link_by_name(&interface.name);
        link.is_some_and(|(_, link)| cut(&interface.name, link, small).is_some())
    });
    if cut { ChunkSize::Octets4096 } else { small }
}

/// Whether the peer may be a kernel that leaves transport checksums to hardware: another namespace, or the host of
/// a virtual machine.
fn leaves_checksums(name: &str, link: &Link) -> bool {
    let virtual_nic = || {
        let driver = ethtool::facts(name).ok().and_then(|facts| facts.driver);
        driver.is_some_and(|driver| matches!(driver.name.as_str(), "virtio_net" | "vmxnet3" | "hv_netvsc"))
    };
    match link.kind.as_deref() {
        Some(kind) => matches!(kind, "veth" | "tun" | "netkit" | "macvlan" | "ipvlan"),
        None => virtual_nic(),
    }
}
