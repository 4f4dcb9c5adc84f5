//! What follows from the file and the host: ports, routes and where they lead. No I/O, so `replay` plans exactly as
//! a running gateway does.
//!
//! It follows the host: a route or a neighbour that changes costs what it changes, a link or an address a new plan.
//! What a next hop needs to be usable is found out by [`super::resolve`].

use super::host::{Host, IfIndex, KernelHop, Link, MirroredRoute, NeighState, RouteKey, RouteKind};
use super::netlink::Changes;
use super::paths::Paths;
use super::rib::{Rib, Source, Way};
use crate::config::{self, Config, Via};
use crate::packet::{Family, PortId, TunnelId, Vrf};
use crate::tables::{MEMBERS, Port, PortKind, ReversePath};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use wire::Mac;

/// The TUN device by which packets for the host leave the workers when no tunnel's device does.
pub const PUNT_DEVICE: &str = "penstock0";
/// The routing protocol number of our own routes in the kernel's tables.
pub const ROUTE_PROTOCOL: u8 = 80;
/// The MTU of an interface when neither file nor host says.
const DEFAULT_MTU: u16 = 1500;

/// Where a route leads. The key of an adjacency: the same target keeps its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The host itself.
    Local,
    /// A device that is not ours.
    Kernel,
    /// Dropped in silence.
    Blackhole,
    /// Dropped, and the sender told.
    Unreachable,
    /// Dropped by policy, and the sender told.
    Prohibited,
    /// On this link, whoever the packet is for.
    OnLink(PortId),
    /// A neighbour on a link.
    Neighbour(PortId, IpAddr),
    /// A tunnel whose inner destination MAC is configured.
    Tunnel(TunnelId),
    /// A neighbour inside a tunnel.
    TunnelNeighbour(TunnelId, IpAddr),
    /// Inside a tunnel, whoever the packet is for.
    TunnelOnLink(TunnelId),
    /// A tunnel, for frames that bring their inner Ethernet header.
    Bridged(TunnelId),
    /// Wherever the route of this VRF leads for this address: a next hop that the file gives without an interface.
    Via(Vrf, IpAddr),
    /// The same, in the VRF or else in the first other one that has a route.
    Leak(Vrf, IpAddr),
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC.
    Known(Mac),
    /// It did not answer.
    Failed,
    /// It did not answer, and is asked again.
    Retried,
}

/// What follows from the file and the host.
#[derive(Debug, Default)]
pub struct Plan {
    /// By [`PortId`]: the file's interfaces, the tunnels' devices, `penstock0`.
    pub ports: Vec<Port>,
    /// The kernel's index of each port; `None` while it does not exist.
    pub ifindex: Vec<Option<IfIndex>>,
    /// By port: it is there, switched on, and has carrier.
    pub usable: Vec<bool>,
    /// Own addresses.
    pub locals: BTreeSet<(Vrf, IpAddr)>,
    /// Broadcast addresses of connected subnets.
    broadcasts: BTreeSet<(Vrf, IpAddr)>,
    /// All routes.
    pub rib: Rib,
    /// Neighbours by port: of a tunnel's device, those inside the tunnel.
    pub neighbours: BTreeMap<(PortId, IpAddr), Neighbour>,
    /// By tunnel: the neighbour that outer packets go to.
    pub underlays: Vec<Option<(PortId, IpAddr)>>,
    /// What the underlay has said of tunnels' paths.
    pub paths: Paths,
    /// What the file says and the host does not follow: one sentence each.
    pub warnings: Vec<String>,
    /// What is wrong with the first route that was refused, and how many more were.
    refused: Option<(String, usize)>,
    /// Where [`Target::Via`] and [`Target::Leak`] lead.
    hops: BTreeMap<Target, Vec<(Target, u16)>>,
}

/// What differs from the plan before.
#[derive(Debug, Default)]
pub struct Delta {
    /// Prefixes whose route leads elsewhere, or nowhere.
    pub routes: BTreeSet<(Vrf, IpNet)>,
    /// What a next hop is made of: a port, an address, a neighbour, a tunnel's underlay.
    pub next_hops: bool,
    /// Ports, addresses or devices: more than routes and neighbours.
    pub host: bool,
}

impl Delta {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && !self.next_hops && !self.host
    }
}

impl Plan {
    /// Plans for a host. Interfaces that do not exist have no addresses and no neighbours.
    pub fn new(config: &Config, host: &Host) -> Self {
        let mut plan = Self::default();
        plan.renew(config, host);
        plan
    }

    /// Follows what changed in the host since.
    pub fn follow(&mut self, config: &Config, host: &Host, changes: &Changes) -> Delta {
        if !changes.links.is_empty() || !changes.addresses.is_empty() {
            return self.renew(config, host);
        }
        let mut delta = Delta::default();
        if !changes.neighbours.is_empty() {
            let before = std::mem::take(&mut self.neighbours);
            self.plan_neighbours(config, host, &before);
            delta.next_hops = before != self.neighbours;
        }
        if !changes.routes.is_empty() {
            let ours = self.ports_by_index().collect();
            for key in &changes.routes {
                self.mirror(config, &ours, key, host.route(key));
            }
            self.warn_of_refused();
        }
        delta.next_hops |= self.lead_on(config) | self.rib.take_fresh();
        delta.routes = self.rib.take_changed();
        delta
    }

    /// Plans anew, whatever changed.
    pub fn renew(&mut self, config: &Config, host: &Host) -> Delta {
        let neighbours = std::mem::take(&mut self.neighbours);
        let rib = std::mem::take(&mut self.rib);
        let paths = std::mem::take(&mut self.paths);
        *self = Self { rib, paths, ..Self::default() };
        let former = self.rib.begin_renewal();
        self.plan_ports(config, host);
        self.plan_addresses(config, host);
        self.plan_neighbours(config, host, &neighbours);
        self.plan_static_routes(config);
        let ours = self.ports_by_index().collect();
        for (key, route) in &host.routes {
            self.mirror(config, &ours, key, Some(route));
        }
        self.warn_of_refused();
        self.rib.end_renewal(former);
        self.lead_on(config);
        self.rib.take_fresh();
        Delta { routes: self.rib.take_changed(), next_hops: true, host: true }
    }

    /// The port of a tunnel's device, whether it has one or not.
    pub fn tunnel_port(config: &Config, id: TunnelId) -> PortId {
        PortId((config.interfaces.len() + id.index()) as u16)
    }

    /// The port of `penstock0`.
    pub fn punt_port(config: &Config) -> PortId {
        PortId((config.interfaces.len() + config.tunnels.len()) as u16)
    }

    /// Which sockets serve an interface: interfaces with rings are counted in the file's order.
    pub fn slot(&self, port: PortId) -> u16 {
        let before = self.ports.iter().take(port.index());
        before.filter(|port| port.kind == PortKind::Interface).count() as u16
    }

    /// What a way comes to: no target of it leads to another.
    pub fn targets(&self, way: &Way) -> Vec<(Target, u16)> {
        let through = |(target, weight): (Target, u16)| match self.hops.get(&target) {
            Some(hops) => hops.iter().map(|(hop, part)| (*hop, part.saturating_mul(weight))).collect(),
            None => vec![(target, weight)],
        };
        Way::of(way.targets().flat_map(through)).targets().take(MEMBERS).collect()
    }

    /// Whether packets may be given to a target when there are others.
    pub fn is_up(&self, target: Target) -> bool {
        let usable = |port: PortId| self.usable.get(port.index()).copied().unwrap_or(false);
        let answers = |port, address| {
            !matches!(self.neighbours.get(&(port, address)), Some(Neighbour::Failed | Neighbour::Retried))
        };
        let over = |id: TunnelId| {
            let underlay = self.underlays.get(id.index()).copied().flatten();
            underlay.is_some_and(|(port, address)| usable(port) && answers(port, address))
        };
        match target {
            Target::OnLink(port) => usable(port),
            Target::Neighbour(port, address) => usable(port) && answers(port, address),
            Target::Tunnel(id) | Target::TunnelOnLink(id) | Target::Bridged(id) => over(id),
            Target::TunnelNeighbour(id, address) => {
                // The ports are interfaces, then tunnels' devices, then `penstock0`.
                let device = self.ports.len() - 1 - self.underlays.len() + id.index();
                over(id) && answers(PortId(device as u16), address)
            }
            Target::Via(..) | Target::Leak(..) | Target::Unreachable | Target::Local => false,
            Target::Kernel | Target::Blackhole | Target::Prohibited => true,
        }
    }

    /// Finds out anew where next hops and tunnels' far ends are. Returns whether any moved.
    fn lead_on(&mut self, config: &Config) -> bool {
        // Also for ways that no route has any more: until the FIB has let go of them, packets take them.
        let targets = self.rib.ways().flat_map(|(_, way)| way.targets());
        let asked = targets.filter(|(target, _)| matches!(target, Target::Via(..) | Target::Leak(..)));
        let hops = asked.map(|(target, _)| (target, self.hop(target, &mut Vec::new()))).collect();
        let mut moved = std::mem::replace(&mut self.hops, hops) != self.hops;
        let underlays = (0..config.tunnels.len()).map(|at| self.underlay(&config.tunnels[at], at)).collect();
        moved |= std::mem::replace(&mut self.underlays, underlays) != self.underlays;
        moved
    }

    /// The targets that a next hop comes to; none when no route leads there, or only one that leads back here.
    fn hop(&self, target: Target, asked: &mut Vec<Target>) -> Vec<(Target, u16)> {
        let (vrf, address, others) = match target {
            Target::Via(vrf, address) => (vrf, address, 0),
            Target::Leak(vrf, address) => (vrf, address, self.rib.vrfs()),
            target => return vec![(target, 1)],
        };
        if asked.contains(&target) {
            return Vec::new();
        }
        asked.push(target);
        let elsewhere = (0..others as u16).map(Vrf).filter(|other| *other != vrf);
        let found = std::iter::once(vrf).chain(elsewhere).find_map(|vrf| self.rib.lookup(vrf, address));
        let mut targets = Vec::new();
        if let Some((_, route)) = found {
            for (next, weight) in self.rib.way(route.way).targets() {
                let there = match next {
                    Target::OnLink(port) => vec![(Target::Neighbour(port, address), 1)],
                    Target::TunnelOnLink(tunnel) => vec![(Target::TunnelNeighbour(tunnel, address), 1)],
                    // Our own address is no next hop.
                    Target::Local => Vec::new(),
                    next => self.hop(next, asked),
                };
                targets.extend(there.into_iter().map(|(target, part)| (target, part.saturating_mul(weight))));
            }
        }
        asked.pop();
        targets
    }

    /// The neighbour by which a tunnel's far end is reached. Where several lead there, tunnels take them in turn.
    fn underlay(&self, tunnel: &config::Tunnel, at: usize) -> Option<(PortId, IpAddr)> {
        let hops = self.hop(Target::Via(Vrf(tunnel.underlay_vrf as u16), tunnel.remote), &mut Vec::new());
        // A tunnel in a tunnel, or a device that is not ours: not from here.
        let links = hops.iter().filter_map(|(target, _)| match target {
            Target::Neighbour(port, address) => Some((*port, *address)),
            _ => None,
        });
        let mut links: Vec<_> = links.collect();
        let turn = at % links.len().max(1);
        links.rotate_left(turn);
        let up = links.iter().find(|(port, address)| self.is_up(Target::Neighbour(*port, *address)));
        up.or(links.first()).copied()
    }

    fn plan_ports(&mut self, config: &Config, host: &Host) {
        for interface in &config.interfaces {
            let kind = match interface.parent {
                Some((parent, id)) => PortKind::Vlan { parent: PortId(parent as u16), id },
                None => PortKind::Interface,
            };
            let link = host.link_by_name(&interface.name);
            let mac = link.map(|(_, link)| link.mac).or(interface.mac).unwrap_or_default();
            let mtu = link.and_then(|(_, link)| u16::try_from(link.mtu).ok()).or(interface.mtu);
            if let Some((_, link)) = link {
                self.compare(&interface.name, "mac", interface.mac.map(Mac::new), Mac::new(link.mac));
                self.compare(&interface.name, "mtu", interface.mtu.map(u32::from), link.mtu);
            }
            self.add_port(
                Port {
                    kind,
                    name: interface.name.clone(),
                    vrf: Vrf(interface.vrf as u16),
                    mac: Mac::new(mac),
                    mtu: mtu.unwrap_or(DEFAULT_MTU),
                    rpf: interface.rpf,
                    addresses: Vec::new(),
                },
                link,
            );
        }
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            let id = TunnelId(at as u16);
            let link = host.link_by_name(&tunnel.name).filter(|_| !tunnel.addresses.is_empty());
            self.add_port(
                Port {
                    // Which adjacency it leads to is known once adjacencies have ids.
                    kind: PortKind::Tunnel {
                        tunnel: id,
                        into: crate::packet::AdjacencyId::NONE,
                        ethernet: tunnel.kind.ethernet(),
                    },
                    name: tunnel.name.clone(),
                    vrf: Vrf(tunnel.vrf as u16),
                    mac: tunnel.inside_mac(),
                    mtu: DEFAULT_MTU,
                    rpf: ReversePath::Off,
                    addresses: Vec::new(),
                },
                link,
            );
        }
        self.add_port(
            Port {
                kind: PortKind::Punt,
                name: PUNT_DEVICE.into(),
                vrf: Vrf::DEFAULT,
                mac: Mac::default(),
                mtu: u16::MAX,
                rpf: ReversePath::Off,
                addresses: Vec::new(),
            },
            host.link_by_name(PUNT_DEVICE),
        );
    }

    fn add_port(&mut self, port: Port, link: Option<(IfIndex, &Link)>) {
        self.ports.push(port);
        self.ifindex.push(link.map(|(index, _)| index));
        self.usable.push(link.is_some_and(|(_, link)| link.up && link.running));
    }

    fn compare<T: PartialEq + ToString>(&mut self, name: &str, key: &str, file: Option<T>, host: T) {
        if let Some(file) = file
            && file != host
        {
            let (file, host) = (file.to_string(), host.to_string());
            self.warnings
                .push(format!("interface {name}: {key} = {file} in the file, {host} in the kernel, which counts"));
        }
    }

    /// Own addresses: a local route each, and a connected one for the subnet.
    fn plan_addresses(&mut self, config: &Config, host: &Host) {
        let ours: BTreeMap<IfIndex, PortId> = self.ports_by_index().collect();
        for &(index, address) in &host.addresses {
            match ours.get(&index) {
                Some(&port) => self.add_address(port, address, config),
                // `lo` and unconfigured devices belong to `default`.
                None if !address.addr().is_loopback() && !is_link_local(address.addr()) => {
                    self.add_local(Vrf::DEFAULT, address.addr());
                }
                None => {}
            }
        }
        // Without a host to ask, the file's addresses hold; a tunnel's are the file's always.
        for at in 0..config.interfaces.len() + config.tunnels.len() {
            let (from_file, absent): (&[IpNet], bool) = match config.interfaces.get(at) {
                Some(interface) => (&interface.addresses, self.ifindex[at].is_none()),
                None => (&config.tunnels[at - config.interfaces.len()].addresses, true),
            };
            if absent {
                from_file.iter().for_each(|address| self.add_address(PortId(at as u16), *address, config));
            }
        }
    }

    fn ports_by_index(&self) -> impl Iterator<Item = (IfIndex, PortId)> + '_ {
        self.ifindex.iter().enumerate().filter_map(|(at, index)| index.map(|index| (index, PortId(at as u16))))
    }

    fn add_local(&mut self, vrf: Vrf, address: IpAddr) {
        self.locals.insert((vrf, address));
        self.add_route(vrf, address.into(), Source::Address, &Way::One(Target::Local));
    }

    fn add_address(&mut self, id: PortId, address: IpNet, config: &Config) {
        let port = &mut self.ports[id.index()];
        let vrf = port.vrf;
        if !port.addresses.contains(&address.addr()) {
            // An address that is worth quoting comes before a link-local one.
            let at = if is_link_local(address.addr()) { port.addresses.len() } else { 0 };
            let at = if at == 0 { port.addresses.iter().take_while(|a| !is_link_local(**a)).count() } else { at };
            port.addresses.insert(at, address.addr());
        }
        let on_link = match port.kind {
            PortKind::Tunnel { tunnel, .. } if is_resolved(&config.tunnels[tunnel.index()]) => {
                Target::TunnelOnLink(tunnel)
            }
            PortKind::Tunnel { tunnel, .. } => Target::Tunnel(tunnel),
            PortKind::Punt => return,
            PortKind::Interface | PortKind::Vlan { .. } => Target::OnLink(id),
        };
        self.add_local(vrf, address.addr());
        if !is_link_local(address.addr()) || address.addr().is_ipv4() {
            self.add_route(vrf, address.trunc(), Source::Connected, &Way::One(on_link));
        }
        if let IpNet::V4(subnet) = address
            && subnet.prefix_len() < 31
        {
            self.broadcasts.insert((vrf, subnet.broadcast().into()));
        }
    }

    fn add_route(&mut self, vrf: Vrf, prefix: IpNet, source: Source, way: &Way) {
        if let Err(error) = self.rib.set(vrf, prefix, source, way) {
            match self.refused.take() {
                None => self.refused = Some((format!("route {prefix}: {error}: it stays as it was"), 0)),
                Some((first, more)) => self.refused = Some((first, more + 1)),
            }
        }
    }

    /// Says what was refused: once, though it be a hundred thousand routes.
    fn warn_of_refused(&mut self) {
        match self.refused.take() {
            None => {}
            Some((first, 0)) => self.warnings.push(first),
            Some((first, more)) => self.warnings.push(format!("{first}; so do {more} more")),
        }
    }

    fn plan_neighbours(&mut self, config: &Config, host: &Host, before: &BTreeMap<(PortId, IpAddr), Neighbour>) {
        let ours: BTreeMap<IfIndex, PortId> = self.ports_by_index().collect();
        for (&(index, address), neighbour) in &host.neighbours {
            let Some(&port) = ours.get(&index) else { continue };
            let known = match (neighbour.state, neighbour.mac) {
                (NeighState::Failed, _) => Neighbour::Failed,
                // Being asked again is no answer: who shares its flows with others keeps none meanwhile.
                (NeighState::Incomplete, _) | (_, None) => match before.get(&(port, address)) {
                    Some(Neighbour::Failed | Neighbour::Retried) => Neighbour::Retried,
                    _ => continue,
                },
                (_, Some(mac)) => Neighbour::Known(Mac::new(mac)),
            };
            self.neighbours.insert((port, address), known);
        }
        for neighbour in &config.neighbours {
            let port = match neighbour.on {
                config::On::Interface(at) => PortId(at as u16),
                config::On::Tunnel(at) => Self::tunnel_port(config, TunnelId(at as u16)),
            };
            // Where the kernel has one, its word is newer.
            let known = self.neighbours.entry((port, neighbour.address)).or_insert(Neighbour::Failed);
            if matches!(known, Neighbour::Failed | Neighbour::Retried) {
                *known = Neighbour::Known(Mac::new(neighbour.mac));
            }
        }
    }

    fn plan_static_routes(&mut self, config: &Config) {
        for route in &config.routes {
            let way = Way::of(static_targets(config, route));
            self.add_route(Vrf(route.vrf as u16), route.prefix, Source::Static, &way);
        }
    }

    /// Takes a route of the kernel over as it is now, as far as the file asks for it.
    fn mirror(
        &mut self,
        config: &Config,
        ours: &BTreeMap<IfIndex, PortId>,
        key: &RouteKey,
        route: Option<&MirroredRoute>,
    ) {
        if key.tos != 0 || is_link_local(key.prefix.addr()) {
            return;
        }
        let way = route.filter(|route| route.protocol != ROUTE_PROTOCOL);
        let way = way.and_then(|route| Some((route.protocol, self.mirrored(config, ours, key, route)?)));
        let source = Source::Kernel(key.metric, key.table);
        // A VRF has one entry for a table at most.
        for entry in config.kernel_routes.iter().filter(|entry| entry.table == key.table) {
            let takes = |protocol: u8| match &entry.protocols {
                Some(protocols) => protocols.iter().any(|listed| listed.0 == protocol),
                None => true,
            };
            let vrf = Vrf(entry.vrf as u16);
            match way.as_ref().filter(|(protocol, _)| takes(*protocol)) {
                Some((_, way)) => self.add_route(vrf, key.prefix, source, way),
                None => self.rib.unset(vrf, key.prefix, source),
            }
        }
    }

    /// Where a route of the kernel leads. Its devices decide.
    fn mirrored(
        &self,
        config: &Config,
        ours: &BTreeMap<IfIndex, PortId>,
        key: &RouteKey,
        route: &MirroredRoute,
    ) -> Option<Way> {
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => return Some(Way::One(Target::Blackhole)),
            RouteKind::Unreachable => return Some(Way::One(Target::Unreachable)),
            RouteKind::Prohibit => return Some(Way::One(Target::Prohibited)),
            _ => return None,
        }
        if key.prefix.addr().is_multicast() || route.next_hops.is_empty() {
            return None;
        }
        let target = |hop: &KernelHop| {
            let port = *hop.ifindex.and_then(|index| ours.get(&index))?;
            Some(match (self.ports[port.index()].kind, hop.gateway) {
                (PortKind::Tunnel { tunnel, .. }, gateway) => into_tunnel(config, tunnel.index(), gateway, key.prefix),
                (PortKind::Punt, _) => return None,
                (_, Some(gateway)) => Target::Neighbour(port, gateway),
                (_, None) => Target::OnLink(port),
            })
        };
        let targets: Option<Vec<_>> =
            route.next_hops.iter().map(|hop| target(hop).map(|target| (target, hop.weight))).collect();
        // Where any way is by a device that is not ours, the kernel shares the flows out.
        Some(targets.map_or(Way::One(Target::Kernel), Way::of))
    }
}

/// Where a static route leads, with the shares of several ways.
pub fn static_targets(config: &Config, route: &config::Route) -> impl Iterator<Item = (Target, u16)> {
    let vrf = Vrf(route.vrf as u16);
    config.flatten(&route.via).map(move |(via, weight)| {
        let target = match via {
            Via::Tunnel { tunnel, next_hop } => into_tunnel(config, tunnel, next_hop, route.prefix),
            Via::NextHop { address, interface: Some(at) } => Target::Neighbour(PortId(at as u16), address),
            Via::NextHop { address, interface: None } if route.leak => Target::Leak(vrf, address),
            Via::NextHop { address, interface: None } => Target::Via(vrf, address),
            Via::Blackhole => Target::Blackhole,
            // A group was flattened into its tunnels.
            Via::Unreachable | Via::Group(_) => Target::Unreachable,
        };
        (target, u16::try_from(weight).unwrap_or(u16::MAX))
    })
}

/// Where a route into a tunnel leads: the inner destination MAC is the configured one; without it, that of the route's
/// next hop, else of the other end of a /30, /31, /126 or /127, else of the packet's destination (DESIGN §6).
fn into_tunnel(config: &Config, at: usize, next_hop: Option<IpAddr>, prefix: IpNet) -> Target {
    let (id, tunnel) = (TunnelId(at as u16), &config.tunnels[at]);
    if !tunnel.kind.carries(Family::of(prefix.addr())) {
        // Only the kernel's routes can say so: the file's were refused.
        return Target::Unreachable;
    }
    if !is_resolved(tunnel) {
        return Target::Tunnel(id);
    }
    let of_family = |address: &&IpNet| address.addr().is_ipv4() == prefix.addr().is_ipv4();
    let subnets = || tunnel.addresses.iter().filter(of_family).chain(&tunnel.addresses);
    match next_hop.or_else(|| subnets().find_map(other_end)) {
        Some(address) => Target::TunnelNeighbour(id, address),
        None => Target::TunnelOnLink(id),
    }
}

/// Whether the inner destination MAC is asked for on the tunnel's device.
const fn is_resolved(tunnel: &config::Tunnel) -> bool {
    tunnel.kind.ethernet() && tunnel.remote_mac.is_none()
}

/// The other address of a subnet with two.
pub fn other_end(address: &IpNet) -> Option<IpAddr> {
    let point_to_point = match address {
        IpNet::V4(subnet) => matches!(subnet.prefix_len(), 30 | 31),
        IpNet::V6(subnet) => matches!(subnet.prefix_len(), 126 | 127),
    };
    if !point_to_point {
        return None;
    }
    // RFC 3021, RFC 6164: with two addresses there is no broadcast. Of four, the first and last are no hosts.
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let pair = address.max_prefix_len() - address.prefix_len() == 1;
    let own = bits(address.addr());
    let other = if pair { own ^ 1 } else { own ^ 3 };
    Some(match address {
        IpNet::V4(_) => std::net::Ipv4Addr::from_bits(other as u32).into(),
        IpNet::V6(_) => std::net::Ipv6Addr::from_bits(other).into(),
    })
}

/// Link-local: 169.254/16 is ordinary for a tunnel's inside, so only IPv6 counts here.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

mod keepers;

#[cfg(test)]
mod follow;
#[cfg(test)]
mod tests;
