//! Where routes lead: the small part that stages before the queue touch, and the headers put on after it.

use super::Group;
use crate::hash::QuickMap;
use crate::packet::{AdjacencyId, PortId, TunnelId};
use std::net::IpAddr;
use std::sync::Arc;
use wire::Rewrite;

/// How far an adjacency is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Headers are known.
    Ready,
    /// The packet's destination is on this link: see the neighbour of that address.
    OnLink,
    /// The neighbour was asked and has not answered yet.
    Waiting,
    /// The neighbour did not answer.
    Failed,
    /// The host itself.
    Local,
    /// A device that is not ours: the kernel forwards it.
    Kernel,
    /// Several next hops: see the group of that id.
    Group,
    /// No route.
    None,
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told.
    Unreachable,
    /// Dropped, and the sender told that it is by policy.
    Prohibited,
}

/// A next hop, resolved. Small: it is touched for every packet before the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Moves on with every change of the rewrite.
    pub generation: u32,
    /// The logical port that packets leave by.
    pub egress: PortId,
    /// The port whose queue they wait in: of a VLAN, its parent.
    pub queue: PortId,
    /// The tunnel that they go into.
    pub tunnel: TunnelId,
    /// Octets that the tunnel puts before the IP packet, link layer of the outside not counted; 0 without one. Set
    /// with the headers.
    pub overhead: u8,
    /// Largest IP packet that fits, octets.
    pub mtu: u16,
    /// How far it is resolved.
    pub resolution: Resolution,
    /// A tunnel that clamps the MSS of TCP.
    pub clamp: bool,
}

impl Adjacency {
    /// One that leads nowhere.
    pub const fn of(resolution: Resolution) -> Self {
        Self {
            generation: 0,
            egress: PortId::NONE,
            queue: PortId::NONE,
            tunnel: TunnelId::NONE,
            overhead: 0,
            mtu: u16::MAX,
            resolution,
            clamp: false,
        }
    }
}

/// All adjacencies by id. Id 0 is "no route".
#[derive(Clone, Debug)]
pub struct Adjacencies {
    small: Vec<Adjacency>,
    rewrites: Vec<Rewrite>,
    /// By adjacency, of those that are groups.
    groups: Vec<Option<Arc<Group>>>,
    /// Neighbours of on-link adjacencies.
    neighbours: QuickMap<(AdjacencyId, IpAddr), AdjacencyId>,
}

impl Default for Adjacencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Adjacencies {
    /// Only "no route".
    pub fn new() -> Self {
        Self {
            small: vec![Adjacency::of(Resolution::None)],
            rewrites: vec![Rewrite::empty()],
            groups: Vec::new(),
            neighbours: QuickMap::default(),
        }
    }

    /// Puts an adjacency at `id`, with its headers.
    pub fn set(&mut self, id: AdjacencyId, mut adjacency: Adjacency, mut rewrite: Rewrite) {
        let at = id.index();
        if at >= self.small.len() {
            self.small.resize(at + 1, Adjacency::of(Resolution::None));
            self.rewrites.resize(at + 1, Rewrite::empty());
        }
        rewrite.generation = adjacency.generation;
        rewrite.egress = adjacency.egress.0;
        rewrite.mtu = adjacency.mtu;
        adjacency.overhead = if rewrite.outer == 0 { 0 } else { rewrite.count.saturating_sub(rewrite.outer) };
        self.small[at] = adjacency;
        self.rewrites[at] = rewrite;
    }

    /// Puts a group at `id`.
    pub fn set_group(&mut self, id: AdjacencyId, group: Arc<Group>) {
        self.set(id, Adjacency::of(Resolution::Group), Rewrite::empty());
        let needed = self.groups.len().max(id.index() + 1);
        self.groups.resize(needed, None);
        self.groups[id.index()] = Some(group);
    }

    /// The member of a group that a flow takes; "no route" where there is no group.
    #[inline]
    pub fn choose(&self, id: AdjacencyId, flow: u32) -> AdjacencyId {
        match self.groups.get(id.index()) {
            Some(Some(group)) => group.choose(flow),
            _ => AdjacencyId::NONE,
        }
    }

    /// The members of a group; none where there is no group.
    pub fn members(&self, id: AdjacencyId) -> &[AdjacencyId] {
        match self.groups.get(id.index()) {
            Some(Some(group)) => group.members(),
            _ => &[],
        }
    }

    /// Says which adjacency is the neighbour `address` of the link that `on_link` leads to.
    pub fn set_neighbour(&mut self, on_link: AdjacencyId, address: IpAddr, id: AdjacencyId) {
        self.neighbours.insert((on_link, address), id);
    }

    /// The adjacency of an id; "no route" for one that does not exist.
    #[inline(always)]
    pub fn at(&self, id: AdjacencyId) -> &Adjacency {
        const NOWHERE: &Adjacency = &Adjacency::of(Resolution::None);
        self.small.get(id.index()).unwrap_or(NOWHERE)
    }

    /// The headers of an id, none of them if nothing leaves by it.
    #[inline(always)]
    pub fn headers(&self, id: AdjacencyId) -> Option<&Rewrite> {
        self.rewrites.get(id.index())
    }

    /// The headers of an id; `None` if nothing leaves by it.
    #[inline(always)]
    pub fn rewrite(&self, id: AdjacencyId) -> Option<&Rewrite> {
        match self.small.get(id.index()) {
            Some(adjacency) if adjacency.resolution != Resolution::None => self.rewrites.get(id.index()),
            _ => None,
        }
    }

    /// The neighbour `address` of an on-link adjacency.
    pub fn neighbour(&self, on_link: AdjacencyId, address: IpAddr) -> Option<AdjacencyId> {
        self.neighbours.get(&(on_link, address)).copied()
    }

    /// How many ids there are, unused ones among them.
    pub fn len(&self) -> usize {
        self.small.len()
    }

    /// Whether there is nothing but "no route".
    pub fn is_empty(&self) -> bool {
        self.small.len() <= 1
    }
}
