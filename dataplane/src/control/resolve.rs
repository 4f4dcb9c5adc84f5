//! From a plan to tables: targets get adjacency ids and headers, routes get into the FIB, in an order in which no
//! worker ever follows a pointer to nothing.
//!
//! To add: publish adjacencies, wait until every worker has passed, write the FIB. To withdraw: write the FIB, wait,
//! free the id. No id is used again before (DESIGN §4).

use super::plan::{Neighbour, Plan, Target};
use crate::config::{Config, Df, EcnMode, TunnelKind, UdpChecksum};
use crate::fib::Fib;
use crate::packet::{AdjacencyId, Family, PortId, TunnelId, Vrf};
use crate::tables::{Adjacencies, Adjacency, Locals, Port, PortKind, Ports, Published, Resolution, Tables, published};
use crate::tunnel::{Ends, Kind, Outer, Tunnel, Tunnels, Vxlan};
use ipnet::IpNet;
use lpm::{Limits, Prefix4, Prefix6, TableError, Value, Writer4, Writer6};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use wire::{Be16, EtherType, Ethernet, Mac, Rewrite, VlanTag};
use zerocopy::IntoBytes;

/// Why new tables were refused; the old ones stay.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// More distinct next hops than a route can name.
    #[error("more than {} next hops", Value::MAX)]
    TooManyNextHops,
    /// The routing table is full.
    #[error("route {prefix}: {source}")]
    Table {
        /// The route that did not fit.
        prefix: IpNet,
        /// Why.
        source: TableError,
    },
    /// The routing tables could not be made.
    #[error(transparent)]
    Start(#[from] TableError),
}

/// An adjacency in use.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: AdjacencyId,
    adjacency: Adjacency,
    rewrite: Rewrite,
}

/// Makes tables of plans. One per gateway.
pub struct Resolver {
    v4: Writer4,
    v6: Writer6,
    slots: BTreeMap<Target, Slot>,
    free: Vec<AdjacencyId>,
    next: u32,
    installed: BTreeMap<(Vrf, IpNet), Target>,
    published: Published<Tables>,
    generation: u64,
}

impl Resolver {
    /// Empty tables.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new() -> Result<Self, ResolveError> {
        let (v4, v6) = (Writer4::new(Limits::default())?, Writer6::new(Limits::default())?);
        let tables = Tables {
            generation: 0,
            ports: Ports::default(),
            locals: Locals::default(),
            tunnels: Tunnels::default(),
            fib: Fib { v4: v4.reader(), v6: v6.reader() },
            adjacencies: Adjacencies::new(),
        };
        Ok(Self {
            v4,
            v6,
            slots: BTreeMap::new(),
            free: Vec::new(),
            next: 1,
            installed: BTreeMap::new(),
            published: published(tables),
            generation: 0,
        })
    }

    /// What workers read from.
    pub const fn published(&self) -> &Published<Tables> {
        &self.published
    }

    /// The target of an adjacency.
    pub fn target(&self, id: AdjacencyId) -> Option<Target> {
        self.slots.iter().find(|(_, slot)| slot.id == id).map(|(target, _)| *target)
    }

    /// Adjacencies in use: target, id, and how far resolved.
    pub fn adjacencies(&self) -> impl Iterator<Item = (Target, AdjacencyId, Resolution)> + '_ {
        self.slots.iter().map(|(target, slot)| (*target, slot.id, slot.adjacency.resolution))
    }

    /// The largest inner packet of a tunnel as last resolved.
    pub fn tunnel_mtu(&self, config: &Config, plan: &Plan, id: TunnelId) -> u16 {
        View { config, plan }.tunnel_mtu(id)
    }

    /// Brings the tables to what the plan says. `wait` returns once every worker has passed the version.
    ///
    /// # Errors
    ///
    /// Too many next hops or routes; the tables are as before.
    pub fn update(
        &mut self,
        config: &Config,
        plan: &Plan,
        wait: &mut dyn FnMut(&Published<Tables>, u64),
    ) -> Result<(), ResolveError> {
        let view = View { config, plan };
        let targets = view.targets();
        let fresh = targets.iter().filter(|target| !self.slots.contains_key(target)).count();
        if self.next as usize + fresh > usize::from(Value::MAX) + 1 + self.free.len() {
            return Err(ResolveError::TooManyNextHops);
        }
        for target in &targets {
            self.assign(*target, &view);
        }
        let version = self.publish(config, &view, &targets);
        let wanted: BTreeMap<(Vrf, IpNet), Target> =
            plan.routes.iter().map(|(key, route)| (*key, route.target)).collect();
        let unchanged = wanted == self.installed;
        let gone: Vec<Target> = self.slots.keys().copied().filter(|target| !targets.contains(target)).collect();
        if unchanged && gone.is_empty() {
            return Ok(());
        }
        wait(&self.published, version);
        self.write_routes(&wanted)?;
        // What was withdrawn is still being read until every worker has passed once more.
        let (mark4, mark6) = (self.v4.retire_mark(), self.v6.retire_mark());
        for target in gone {
            if let Some(slot) = self.slots.remove(&target) {
                self.free.push(slot.id);
            }
        }
        let version = self.published.mark();
        wait(&self.published, version);
        self.v4.reclaim(mark4);
        self.v6.reclaim(mark6);
        Ok(())
    }

    /// Gives a target an id if it has none, and moves its generation on if its headers changed.
    fn assign(&mut self, target: Target, view: &View<'_>) {
        let (adjacency, rewrite) = view.build(target);
        let slot = self.slots.entry(target).or_insert_with(|| {
            let id = self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                AdjacencyId(self.next - 1)
            });
            // A new user of an old id: generations of packets still queued under it must not match.
            let generation = (self.generation as u32).wrapping_add(1);
            Slot { id, adjacency: Adjacency { generation, ..adjacency }, rewrite }
        });
        let same = Adjacency { generation: slot.adjacency.generation, ..adjacency } == slot.adjacency;
        if !same || rewrite != slot.rewrite {
            let generation = slot.adjacency.generation.wrapping_add(1).max(self.generation as u32 + 1);
            slot.adjacency = Adjacency { generation, ..adjacency };
            slot.rewrite = rewrite;
        }
    }

    fn publish(&mut self, config: &Config, view: &View<'_>, targets: &BTreeSet<Target>) -> u64 {
        self.generation += 1;
        let mut adjacencies = Adjacencies::new();
        for slot in self.slots.values() {
            adjacencies.set(slot.id, slot.adjacency, slot.rewrite);
        }
        for (target, slot) in &self.slots {
            let on_link = match target {
                Target::Neighbour(port, address) => Some((Target::OnLink(*port), *address)),
                Target::TunnelNeighbour(tunnel, address) => Some((Target::TunnelOnLink(*tunnel), *address)),
                _ => None,
            };
            if let Some((on_link, address)) = on_link
                && targets.contains(target)
                && let Some(link) = self.slots.get(&on_link)
            {
                adjacencies.set_neighbour(link.id, address, slot.id);
            }
        }
        let mut locals = Locals::default();
        view.plan.locals.iter().for_each(|(vrf, address)| locals.insert(*vrf, *address));
        let ports = view.plan.ports.iter().map(|port| self.finish_port(port, config, view)).collect();
        self.published.publish(Tables {
            generation: self.generation,
            ports: Ports::new(ports),
            locals,
            tunnels: Tunnels::new((0..config.tunnels.len()).map(|at| view.tunnel(TunnelId(at as u16))).collect()),
            fib: Fib { v4: self.v4.reader(), v6: self.v6.reader() },
            adjacencies,
        })
    }

    fn finish_port(&self, port: &Port, config: &Config, view: &View<'_>) -> Port {
        let mut port = port.clone();
        if let PortKind::Tunnel { tunnel, into, ethernet } = &mut port.kind {
            let bridged = self.slots.get(&Target::Bridged(*tunnel));
            *into = bridged.map_or(AdjacencyId::NONE, |slot| slot.id);
            *ethernet = kind(&config.tunnels[tunnel.index()].kind).ethernet();
            port.mtu = view.tunnel_mtu(*tunnel);
        }
        port
    }

    fn write_routes(&mut self, wanted: &BTreeMap<(Vrf, IpNet), Target>) -> Result<(), ResolveError> {
        // New and changed ones first: a route that moves to a longer prefix is never missing.
        let changed: Vec<_> = wanted.iter().filter(|(key, target)| self.installed.get(key) != Some(target)).collect();
        for (at, (key, target)) in changed.iter().enumerate() {
            if let Err(source) = self.write(**key, Some(**target)) {
                for (key, _) in &changed[..at] {
                    // What was there fits again.
                    let _fits = self.write(**key, self.installed.get(key).copied());
                }
                return Err(ResolveError::Table { prefix: key.1, source });
            }
        }
        let gone: Vec<_> = self.installed.keys().copied().filter(|key| !wanted.contains_key(key)).collect();
        for key in gone {
            self.write(key, None)?;
        }
        self.installed.clone_from(wanted);
        Ok(())
    }

    fn write(&mut self, (vrf, prefix): (Vrf, IpNet), target: Option<Target>) -> Result<(), TableError> {
        let id = target.and_then(|target| self.slots.get(&target)).map(|slot| slot.id.0 as u16);
        let value = id.and_then(Value::new);
        match (prefix, value) {
            (IpNet::V4(prefix), Some(value)) => {
                if let Ok(prefix) = Prefix4::try_from(prefix) {
                    self.v4.insert(vrf.0, prefix, value)?;
                }
            }
            (IpNet::V6(prefix), Some(value)) => {
                if let Ok(prefix) = Prefix6::try_from(prefix) {
                    self.v6.insert(vrf.0, prefix, value)?;
                }
            }
            (IpNet::V4(prefix), None) => {
                if let Ok(prefix) = Prefix4::try_from(prefix) {
                    self.v4.remove(vrf.0, prefix);
                }
            }
            (IpNet::V6(prefix), None) => {
                if let Ok(prefix) = Prefix6::try_from(prefix) {
                    self.v6.remove(vrf.0, prefix);
                }
            }
        }
        Ok(())
    }
}

/// A plan with the file it came from: what a target's headers follow from.
struct View<'a> {
    config: &'a Config,
    plan: &'a Plan,
}

impl View<'_> {
    /// Everything that a packet may be bound to: where routes lead, what those ways lead over, and the neighbours
    /// of links.
    fn targets(&self) -> BTreeSet<Target> {
        let mut targets: BTreeSet<Target> = self.plan.routes.values().map(|route| route.target).collect();
        for at in 0..self.config.tunnels.len() {
            targets.insert(Target::Bridged(TunnelId(at as u16)));
        }
        for &(port, address) in self.plan.neighbours.keys() {
            match self.plan.ports[port.index()].kind {
                PortKind::Interface | PortKind::Vlan { .. } => targets.insert(Target::Neighbour(port, address)),
                PortKind::Tunnel { tunnel, .. } => targets.insert(Target::TunnelNeighbour(tunnel, address)),
                PortKind::Punt => false,
            };
        }
        targets
    }

    /// How a target is now.
    fn build(&self, target: Target) -> (Adjacency, Rewrite) {
        let nowhere = |resolution| (Adjacency::of(resolution), Rewrite::empty());
        match target {
            Target::Local => nowhere(Resolution::Local),
            Target::Kernel => nowhere(Resolution::Kernel),
            Target::Blackhole => nowhere(Resolution::Blackhole),
            Target::Unreachable => nowhere(Resolution::Unreachable),
            Target::Prohibited => nowhere(Resolution::Prohibited),
            Target::OnLink(port) => {
                let mut rewrite = Rewrite::empty();
                let adjacency = self.by_port(port, Resolution::OnLink, &mut rewrite);
                (adjacency, Rewrite::empty())
            }
            Target::Neighbour(port, address) => self.neighbour(port, address),
            Target::Tunnel(id) => {
                let remote = self.config.tunnels[id.index()].remote_mac.map(Mac::new);
                self.tunnel_adjacency(id, remote.map_or(Inside::Waiting, Inside::Mac))
            }
            Target::TunnelNeighbour(id, address) => {
                let port = Plan::tunnel_port(self.config, id);
                let inside = match self.plan.neighbours.get(&(port, address)) {
                    Some(Neighbour::Known(mac)) => Inside::Mac(*mac),
                    Some(Neighbour::Failed) => Inside::Failed,
                    None => Inside::Waiting,
                };
                self.tunnel_adjacency(id, inside)
            }
            Target::TunnelOnLink(id) => {
                let (adjacency, _) = self.tunnel_adjacency(id, Inside::Waiting);
                (Adjacency { resolution: Resolution::OnLink, ..adjacency }, Rewrite::empty())
            }
            Target::Bridged(id) => self.tunnel_adjacency(id, Inside::Brought),
        }
    }

    /// An adjacency that leaves by a port; `rewrite` gets the Ethernet header but for its destination.
    fn by_port(&self, id: PortId, resolution: Resolution, rewrite: &mut Rewrite) -> Adjacency {
        let port = &self.plan.ports[id.index()];
        let source = port.mac;
        let (queue, ethertype) = match port.kind {
            PortKind::Vlan { parent, .. } => (parent, EtherType::VLAN),
            _ => (id, 0),
        };
        let header = Ethernet { destination: Mac::default(), source, ethertype: Be16::new(ethertype) };
        rewrite.push(header.as_bytes());
        if let PortKind::Vlan { id, .. } = port.kind {
            rewrite.push(VlanTag { control: Be16::new(id), ethertype: Be16::new(0) }.as_bytes());
        }
        Adjacency { egress: id, queue, mtu: port.mtu, ..Adjacency::of(resolution) }
    }

    /// A neighbour on a link: `rewrite` is its Ethernet header.
    fn neighbour(&self, port: PortId, address: IpAddr) -> (Adjacency, Rewrite) {
        let mut rewrite = Rewrite::empty();
        let known = self.plan.neighbours.get(&(port, address));
        let resolution = match known {
            Some(Neighbour::Known(_)) => Resolution::Ready,
            Some(Neighbour::Failed) => Resolution::Failed,
            None => Resolution::Waiting,
        };
        let adjacency = self.by_port(port, resolution, &mut rewrite);
        if let Some(Neighbour::Known(mac)) = known {
            rewrite.octets[..6].copy_from_slice(&mac.octets());
        }
        (adjacency, rewrite)
    }

    /// The way to a tunnel's other end.
    fn underlay(&self, id: TunnelId) -> Option<(Adjacency, Rewrite)> {
        let tunnel = &self.config.tunnels[id.index()];
        match self.plan.next_hop(Vrf(tunnel.underlay_vrf as u16), tunnel.remote)? {
            Target::Neighbour(port, address) => Some(self.neighbour(port, address)),
            // A tunnel in a tunnel, or a device that is not ours: not from here.
            _ => None,
        }
    }

    fn tunnel_mtu(&self, id: TunnelId) -> u16 {
        let tunnel = &self.config.tunnels[id.index()];
        let path = self.underlay(id).map_or(1500, |(underlay, _)| underlay.mtu);
        let overhead = kind(&tunnel.kind).overhead(family(tunnel.local));
        tunnel.mtu.unwrap_or_else(|| path.saturating_sub(overhead))
    }

    fn tunnel_adjacency(&self, id: TunnelId, inside: Inside) -> (Adjacency, Rewrite) {
        let tunnel = &self.config.tunnels[id.index()];
        let Some((underlay, mut rewrite)) = self.underlay(id) else {
            return (Adjacency { tunnel: id, ..Adjacency::of(Resolution::Unreachable) }, Rewrite::empty());
        };
        let resolution = match (underlay.resolution, inside) {
            (Resolution::Ready, Inside::Mac(_) | Inside::Brought) => Resolution::Ready,
            (Resolution::Failed, _) | (_, Inside::Failed) => Resolution::Failed,
            _ => Resolution::Waiting,
        };
        // The outer IP's type is known here.
        let at = usize::from(rewrite.count) - 2;
        let ethertype = match family(tunnel.local) {
            Family::V4 => EtherType::IPV4,
            Family::V6 => EtherType::IPV6,
        };
        rewrite.octets[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        let own = tunnel_mac(tunnel);
        let inner = match inside {
            Inside::Mac(mac) => Some((mac, own)),
            Inside::Brought => None,
            Inside::Waiting | Inside::Failed => Some((Mac::default(), own)),
        };
        if let Some(outer) = outer(tunnel) {
            kind(&tunnel.kind).headers(&outer, inner, &mut rewrite);
        }
        let adjacency = Adjacency { tunnel: id, mtu: self.tunnel_mtu(id), resolution, clamp: tunnel.mss, ..underlay };
        (adjacency, rewrite)
    }

    /// The inside of a tunnel, for decapsulation.
    fn tunnel(&self, id: TunnelId) -> Tunnel {
        let tunnel = &self.config.tunnels[id.index()];
        let port = &self.plan.ports[Plan::tunnel_port(self.config, id).index()];
        let underlay = Vrf(tunnel.underlay_vrf as u16);
        Tunnel {
            name: tunnel.name.clone(),
            kind: kind(&tunnel.kind),
            vrf: Vrf(tunnel.vrf as u16),
            ends: Ends::new(underlay, tunnel.local, tunnel.remote)
                .expect("the configuration has one family per tunnel"),
            mtu: self.tunnel_mtu(id),
            clamp: tunnel.mss,
            mac: tunnel_mac(tunnel),
            has_device: !tunnel.addresses.is_empty(),
            allowed_sources: tunnel.allowed_sources.clone(),
            addresses: port.addresses.clone(),
        }
    }
}

/// What is known of the inner destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Its MAC.
    Mac(Mac),
    /// The frame has its own header.
    Brought,
    /// Being asked for.
    Waiting,
    /// It did not answer.
    Failed,
}

fn outer(tunnel: &crate::config::Tunnel) -> Option<Outer> {
    let underlay = Vrf(tunnel.underlay_vrf as u16);
    Some(Outer {
        ends: Ends::new(underlay, tunnel.local, tunnel.remote)?,
        dscp: tunnel.dscp,
        copy_ecn: tunnel.ecn == EcnMode::Normal,
        ttl: tunnel.ttl,
        df: match tunnel.df {
            Df::Set => Some(true),
            Df::Copy => None,
            Df::Clear => Some(false),
        },
        udp_checksum: match tunnel.checksum {
            UdpChecksum::Auto => tunnel.local.is_ipv6(),
            UdpChecksum::Zero => false,
            UdpChecksum::Full => true,
        },
    })
}

/// The fast path's view of a tunnel type.
fn kind(kind: &TunnelKind) -> Kind {
    match *kind {
        TunnelKind::Vxlan { vni, port } => Kind::Vxlan(Vxlan { vni, port }),
    }
}

const fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A tunnel's inner MAC: the configured one, or one made of name and ends, so that it is the same after a restart and
/// in `replay`. Locally administered, unicast.
pub fn tunnel_mac(tunnel: &crate::config::Tunnel) -> Mac {
    if let Some(mac) = tunnel.mac {
        return Mac::new(mac);
    }
    // FNV-1a: stable over versions and machines, which is all that is asked of it.
    let text = format!("{} {} {}", tunnel.name, tunnel.local, tunnel.remote);
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3));
    let octets = hash.to_be_bytes();
    Mac::new([0x02, octets[3], octets[4], octets[5], octets[6], octets[7]])
}
