//! What workers read: one snapshot, loaded once per poll. Only the FIB inside it changes while it is read.

pub mod acl;
mod adjacency;
mod classifier;
pub mod filter;
mod group;
mod locals;
mod policing;
mod ports;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;

/// What `snapshot` is made of; a test of the package has the same names from a library that tries every order.
mod sync {
    pub use std::sync::atomic::{AtomicU64, fence};
    pub use std::sync::{Arc, Mutex, MutexGuard};
}

pub use adjacency::{Adjacencies, Adjacency, Resolution};
pub use classifier::{Classifier, Marks};
pub use group::{BUCKETS, Group, MEMBERS, Member, mix};
pub use locals::Locals;
pub use policing::Policing;
pub use ports::{Port, PortKind, Ports, ReversePath};
pub use snapshot::{Published, Reader, published};

use crate::fib::Fib;
use crate::packet::{
    AdjacencyId, DropReason, Exit, Family, FlowHash, Origin, Packet, PortId, PuntReason, Traits, TunnelId,
    is_link_local,
};
use crate::tunnel::{Kind, Tunnels};
use std::mem;
use wire::{Rewrite, protocol};

/// A consistent view of everything that decides a packet's fate.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Moves on with every change of any table.
    pub generation: u64,
    /// How flows are told apart.
    pub hash: FlowHash,
    /// Interfaces, VLANs and devices.
    pub ports: Ports,
    /// The gateway's own addresses.
    pub locals: Locals,
    /// What comes out of tunnels.
    pub tunnels: Tunnels,
    /// What may pass, whose packets are, and which queue they wait in.
    pub classifier: Classifier,
    /// Who is policed.
    pub policing: Policing,
    /// Routes.
    pub fib: Fib,
    /// Where routes lead.
    pub adjacencies: Adjacencies,
}

impl Tables {
    /// Where the packet goes, after the lookup.
    ///
    /// # Errors
    ///
    /// No route or one that forbids, the host itself, or a neighbour that is not known yet.
    #[inline(always)]
    pub fn adjacency(&self, packet: &mut Packet) -> Result<&Adjacency, Exit> {
        let adjacency = self.adjacencies.at(packet.adjacency);
        match adjacency.resolution {
            Resolution::Ready if !packet.traits.has(Traits::LINK_LOCAL) => Ok(adjacency),
            Resolution::Group => self.member(packet),
            _ => self.unready(packet),
        }
    }

    /// The member of a group that the packet's flow takes.
    #[inline]
    fn member(&self, packet: &mut Packet) -> Result<&Adjacency, Exit> {
        packet.adjacency = self.adjacencies.choose(packet.adjacency, packet.flow);
        let adjacency = self.adjacencies.at(packet.adjacency);
        if adjacency.resolution == Resolution::Ready && !packet.traits.has(Traits::LINK_LOCAL) {
            return Ok(adjacency);
        }
        self.unready(packet)
    }

    #[inline(never)]
    fn unready(&self, packet: &mut Packet) -> Result<&Adjacency, Exit> {
        let mut adjacency = self.adjacencies.at(packet.adjacency);
        if adjacency.resolution == Resolution::Local {
            return Err(Exit::Punt(PuntReason::Local));
        }
        // RFC 3927 §7, RFC 4291 §2.5.6: link-local is never forwarded.
        if packet.traits.has(Traits::LINK_LOCAL) {
            return Err(Exit::Drop(DropReason::MartianDestination));
        }
        if adjacency.resolution == Resolution::OnLink {
            // The route only says which link: the neighbour is the destination itself.
            match self.adjacencies.neighbour(packet.adjacency, packet.destination()) {
                Some(id) => {
                    packet.adjacency = id;
                    adjacency = self.adjacencies.at(id);
                }
                None => return Err(Exit::Hold(packet.adjacency)),
            }
        }
        match adjacency.resolution {
            Resolution::Ready => Ok(adjacency),
            Resolution::Waiting | Resolution::OnLink => Err(Exit::Hold(packet.adjacency)),
            Resolution::Failed => Err(Exit::Drop(DropReason::NeighbourUnresolved)),
            // A group of groups is flattened when it is made.
            Resolution::None | Resolution::Group => Err(Exit::Drop(DropReason::NoRoute)),
            Resolution::Blackhole => Err(Exit::Drop(DropReason::Blackhole)),
            Resolution::Unreachable => Err(Exit::Drop(DropReason::Unreachable)),
            Resolution::Prohibited => Err(Exit::Drop(DropReason::Prohibited)),
            Resolution::Local => Err(Exit::Punt(PuntReason::Local)),
            Resolution::Kernel => Err(Exit::Punt(PuntReason::KernelRoute)),
        }
    }

    /// Whether the source of a received packet, which was looked up, leads back the way it came.
    ///
    /// # Errors
    ///
    /// The drop `ReversePath`. Never of a link-local source, which no route is for. What is not to be forwarded at all is
    /// left to the checks that have a name for it.
    pub fn admit_path(&self, packet: &mut Packet) -> Result<(), Exit> {
        let way_back = mem::replace(&mut packet.adjacency, AdjacencyId::NONE);
        let rpf = self.ports.get(packet.ingress).map_or(ReversePath::Off, |port| port.rpf);
        if rpf == ReversePath::Off || (packet.traits.has(Traits::LINK_LOCAL) && is_link_local(packet.source())) {
            return Ok(());
        }
        let admits = |adjacency: &Adjacency| match adjacency.resolution {
            Resolution::Ready | Resolution::OnLink | Resolution::Waiting | Resolution::Failed => {
                rpf == ReversePath::Loose || (adjacency.egress == packet.ingress && adjacency.tunnel == TunnelId::NONE)
            }
            Resolution::Kernel => rpf == ReversePath::Loose,
            // Our own: a martian.
            Resolution::Local => true,
            // A group of groups is flattened when it is made.
            Resolution::None | Resolution::Group => false,
            Resolution::Blackhole | Resolution::Unreachable | Resolution::Prohibited => false,
        };
        let mut members = self.adjacencies.members(way_back).iter().map(|id| self.adjacencies.at(*id));
        if admits(self.adjacencies.at(way_back)) || members.any(admits) {
            return Ok(());
        }
        Err(Exit::Drop(DropReason::ReversePath))
    }

    /// Where a packet from a tunnel's device goes: into the tunnel as it is. No lookup and no TTL: the kernel has
    /// routed it (a BFD packet keeps its 255).
    ///
    /// # Errors
    ///
    /// The way to the tunnel's other end is not there, or the packet does not fit.
    #[inline]
    pub fn inject(&self, packet: &mut Packet) -> Result<&Adjacency, Exit> {
        let Some(Port { kind: PortKind::Tunnel { tunnel, into, ethernet }, vrf, .. }) = self.ports.get(packet.ingress)
        else {
            return Err(Exit::Drop(DropReason::NoRoute));
        };
        packet.origin = Origin::Device;
        packet.adjacency = *into;
        packet.vrf = *vrf;
        packet.read_own(*ethernet, &self.hash)?;
        // The kernel's route may lead IPv4 to a tunnel that is for IPv6.
        if !*ethernet && !self.tunnels.get(*tunnel).is_some_and(|tunnel| tunnel.kind.carries(packet.family)) {
            return Err(Exit::Drop(DropReason::InnerType));
        }
        let adjacency = self.adjacencies.at(*into);
        match adjacency.resolution {
            Resolution::Ready => match packet.fits(adjacency.mtu) {
                // The kernel knows the device's MTU: what is longer is not worth cutting.
                Err(Exit::Fragment) if packet.family == Family::V4 => Err(Exit::Drop(DropReason::FragmentationNeeded)),
                Err(exit) => Err(exit),
                Ok(()) => Ok(adjacency),
            },
            Resolution::Waiting => Err(Exit::Hold(*into)),
            Resolution::Failed => Err(Exit::Drop(DropReason::NeighbourUnresolved)),
            _ => Err(Exit::Drop(DropReason::NoRoute)),
        }
    }

    /// The largest packet that fits an adjacency as this one does: GENEVE options that go on with it take their room.
    #[inline(always)]
    pub fn mtu(&self, packet: &Packet, adjacency: &Adjacency) -> u16 {
        if packet.options == 0 { adjacency.mtu } else { self.mtu_beside_options(packet, adjacency) }
    }

    #[cold]
    fn mtu_beside_options(&self, packet: &Packet, adjacency: &Adjacency) -> u16 {
        match self.tunnels.get(adjacency.tunnel).map(|tunnel| tunnel.kind) {
            Some(Kind::Geneve(_)) => adjacency.mtu.saturating_sub(u16::from(packet.options) * 4),
            _ => adjacency.mtu,
        }
    }

    /// The MTU that a TCP SYN's segments must fit, the smaller of the way in and the way out, where either is a
    /// tunnel that clamps; else 0.
    #[inline(always)]
    pub fn mss_mtu(&self, packet: &Packet, adjacency: &Adjacency) -> u16 {
        if packet.protocol != protocol::TCP || (packet.tunnel == TunnelId::NONE && !adjacency.clamp) {
            return 0;
        }
        let (mtu, clamp) = match self.tunnels.get(packet.tunnel) {
            Some(tunnel) => (tunnel.mtu, tunnel.clamp),
            None => (self.ports.get(packet.ingress).map_or(u16::MAX, |port| port.mtu), false),
        };
        if clamp || adjacency.clamp { mtu.min(self.mtu(packet, adjacency)) } else { 0 }
    }

    /// The headers for a packet that leaves its queue.
    ///
    /// # Errors
    ///
    /// The adjacency changed while the packet waited, so it is routed again, or is gone.
    #[inline(always)]
    pub fn rewrite(&self, packet: &Packet) -> Result<&Rewrite, Exit> {
        match self.adjacencies.headers(packet.adjacency) {
            Some(rewrite) if rewrite.generation == packet.generation && rewrite.count != 0 => Ok(rewrite),
            _ if self.has(packet.adjacency) => Err(Exit::Reroute),
            _ => Err(Exit::Drop(DropReason::AdjacencyGone)),
        }
    }

    /// Whether there is such an adjacency.
    pub fn has(&self, id: AdjacencyId) -> bool {
        self.adjacencies.rewrite(id).is_some()
    }
}

impl Packet {
    /// The packet is to leave by this adjacency, whatever else happens to it in the queue.
    ///
    /// # Errors
    ///
    /// More chunks than a driver sends at once.
    #[inline(always)]
    pub fn bind(&mut self, adjacency: &Adjacency) -> Result<(), Exit> {
        if self.frame.chunks() > xsk::MAX_CHUNKS {
            return Err(Exit::Drop(DropReason::TooLong));
        }
        self.generation = adjacency.generation;
        self.egress = adjacency.queue;
        self.into = adjacency.tunnel;
        self.overhead = adjacency.overhead;
        Ok(())
    }

    /// Whether it is.
    #[inline(always)]
    pub fn is_bound(&self) -> bool {
        self.egress != PortId::NONE
    }
}
