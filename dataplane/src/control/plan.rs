//! What follows from the file and the host: ports, routes and where they lead. No I/O, so `replay` plans exactly as
//! a running gateway does.
//!
//! Routes come from three sources and are ranked here (DESIGN §5.2): own addresses, the file, connected subnets,
//! the kernel. What a next hop needs to be usable is found out by [`super::resolve`].

use super::host::{Host, IfIndex, MirroredRoute, NeighState, RouteKey, RouteKind};
use crate::config::{Config, Fallback, Via};
use crate::packet::{PortId, TunnelId, Vrf};
use crate::tables::{Port, PortKind};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use steering::HostTables;
use steering::tables::{Ingress, Interface, InterfaceFlags, Keeper};
use wire::{Mac, protocol};

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
}

/// Which source a route comes from: the least wins among equal prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An own address.
    Address,
    /// The file.
    Static,
    /// The subnet of an own address.
    Connected,
    /// The kernel, with the route's metric.
    Kernel(u32),
}

/// A route as chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who says so.
    pub source: Source,
    /// Where it leads.
    pub target: Target,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC.
    Known(Mac),
    /// It did not answer.
    Failed,
}

/// What follows from the file and the host.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// By [`PortId`]: the file's interfaces, the tunnels' devices, `penstock0`.
    pub ports: Vec<Port>,
    /// The kernel's index of each port; `None` while it does not exist.
    pub ifindex: Vec<Option<IfIndex>>,
    /// Own addresses.
    pub locals: BTreeSet<(Vrf, IpAddr)>,
    /// The chosen routes.
    pub routes: BTreeMap<(Vrf, IpNet), Route>,
    /// Neighbours by port: of a tunnel's device, those inside the tunnel.
    pub neighbours: BTreeMap<(PortId, IpAddr), Neighbour>,
    /// What the file says and the host does not follow: one sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Plans for a host. Interfaces that do not exist have no addresses and no neighbours.
    pub fn new(config: &Config, host: &Host) -> Self {
        let mut plan = Self::default();
        plan.plan_ports(config, host);
        plan.plan_addresses(config, host);
        plan.plan_neighbours(config, host);
        plan.plan_static_routes(config);
        plan.plan_mirrored_routes(config, host);
        plan
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

    /// The route for an address.
    pub fn lookup(&self, vrf: Vrf, address: IpAddr) -> Option<(IpNet, Route)> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            self.routes.get(&(vrf, prefix)).map(|route| (prefix, *route))
        })
    }

    /// Where packets for a next hop's address go: a link that has it, or a route towards it.
    pub fn next_hop(&self, vrf: Vrf, address: IpAddr) -> Option<Target> {
        match self.lookup(vrf, address)?.1.target {
            Target::OnLink(port) => Some(Target::Neighbour(port, address)),
            Target::TunnelOnLink(tunnel) => Some(Target::TunnelNeighbour(tunnel, address)),
            target => Some(target),
        }
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
                    addresses: Vec::new(),
                },
                link.map(|(index, _)| index),
            );
        }
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            let id = TunnelId(at as u16);
            let link = host.link_by_name(&tunnel.name).filter(|_| !tunnel.addresses.is_empty());
            self.add_port(
                Port {
                    // Which adjacency it leads to is known once adjacencies have ids.
                    kind: PortKind::Tunnel { tunnel: id, into: crate::packet::AdjacencyId::NONE, ethernet: true },
                    name: tunnel.name.clone(),
                    vrf: Vrf(tunnel.vrf as u16),
                    mac: super::resolve::tunnel_mac(tunnel),
                    mtu: DEFAULT_MTU,
                    addresses: Vec::new(),
                },
                link.map(|(index, _)| index),
            );
        }
        self.add_port(
            Port {
                kind: PortKind::Punt,
                name: PUNT_DEVICE.into(),
                vrf: Vrf::DEFAULT,
                mac: Mac::default(),
                mtu: u16::MAX,
                addresses: Vec::new(),
            },
            host.link_by_name(PUNT_DEVICE).map(|(index, _)| index),
        );
    }

    fn add_port(&mut self, port: Port, ifindex: Option<IfIndex>) {
        self.ports.push(port);
        self.ifindex.push(ifindex);
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
        self.add_route(vrf, address.into(), Route { source: Source::Address, target: Target::Local });
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
            PortKind::Tunnel { tunnel, .. } => match config.tunnels[tunnel.index()].remote_mac {
                Some(_) => Target::Tunnel(tunnel),
                None => Target::TunnelOnLink(tunnel),
            },
            PortKind::Punt => return,
            PortKind::Interface | PortKind::Vlan { .. } => Target::OnLink(id),
        };
        self.add_local(vrf, address.addr());
        if !is_link_local(address.addr()) || address.addr().is_ipv4() {
            let source = Source::Connected;
            self.add_route(vrf, address.trunc(), Route { source, target: on_link });
        }
    }

    fn add_route(&mut self, vrf: Vrf, prefix: IpNet, route: Route) {
        let chosen = self.routes.entry((vrf, prefix)).or_insert(route);
        if route.source < chosen.source {
            *chosen = route;
        }
    }

    fn plan_neighbours(&mut self, config: &Config, host: &Host) {
        let ours: BTreeMap<IfIndex, PortId> = self.ports_by_index().collect();
        for (&(index, address), neighbour) in &host.neighbours {
            let Some(&port) = ours.get(&index) else { continue };
            let known = match (neighbour.state, neighbour.mac) {
                (NeighState::Failed, _) => Neighbour::Failed,
                (NeighState::Incomplete, _) | (_, None) => continue,
                (_, Some(mac)) => Neighbour::Known(Mac::new(mac)),
            };
            self.neighbours.insert((port, address), known);
        }
        for neighbour in &config.neighbours {
            let port = match neighbour.on {
                crate::config::On::Interface(at) => PortId(at as u16),
                crate::config::On::Tunnel(at) => Self::tunnel_port(config, TunnelId(at as u16)),
            };
            // Where the kernel has one, its word is newer.
            let known = self.neighbours.entry((port, neighbour.address)).or_insert(Neighbour::Failed);
            if *known == Neighbour::Failed {
                *known = Neighbour::Known(Mac::new(neighbour.mac));
            }
        }
    }

    fn plan_static_routes(&mut self, config: &Config) {
        // Next hops are found on connected subnets first, then by routes of the file that stand before.
        for route in &config.routes {
            let vrf = Vrf(route.vrf as u16);
            // The first way only: sharing among several is the group's part.
            let Some((via, _)) = config.flatten(&route.via).next() else { continue };
            let target = match via {
                Via::Blackhole => Target::Blackhole,
                Via::Unreachable | Via::Group(_) => Target::Unreachable,
                Via::Tunnel { tunnel, next_hop } => into_tunnel(config, tunnel, next_hop, route.prefix),
                Via::NextHop { address, interface: Some(at) } => Target::Neighbour(PortId(at as u16), address),
                Via::NextHop { address, interface: None } => {
                    let vrfs = (0..config.vrfs.len() as u16).map(Vrf).filter(|other| route.leak && *other != vrf);
                    match std::iter::once(vrf).chain(vrfs).find_map(|vrf| self.next_hop(vrf, address)) {
                        Some(Target::Local) | None => Target::Unreachable,
                        Some(target) => target,
                    }
                }
            };
            self.add_route(vrf, route.prefix, Route { source: Source::Static, target });
        }
    }

    fn plan_mirrored_routes(&mut self, config: &Config, host: &Host) {
        let ours: BTreeMap<IfIndex, PortId> = self.ports_by_index().collect();
        for wanted in &config.kernel_routes {
            let vrf = Vrf(wanted.vrf as u16);
            for (key, route) in host.routes.iter().filter(|(key, _)| key.table == wanted.table && key.tos == 0) {
                let listed = match &wanted.protocols {
                    Some(protocols) => protocols.iter().any(|protocol| protocol.0 == route.protocol),
                    None => true,
                };
                if !listed || route.protocol == ROUTE_PROTOCOL || is_link_local(key.prefix.addr()) {
                    continue;
                }
                if let Some(target) = self.mirrored(config, &ours, key, route) {
                    self.add_route(vrf, key.prefix, Route { source: Source::Kernel(key.metric), target });
                }
            }
        }
    }

    /// Where a route of the kernel leads. Its device decides.
    fn mirrored(
        &self,
        config: &Config,
        ours: &BTreeMap<IfIndex, PortId>,
        key: &RouteKey,
        route: &MirroredRoute,
    ) -> Option<Target> {
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => return Some(Target::Blackhole),
            RouteKind::Unreachable => return Some(Target::Unreachable),
            RouteKind::Prohibit => return Some(Target::Prohibited),
            _ => return None,
        }
        if key.prefix.addr().is_multicast() {
            return None;
        }
        let hop = route.next_hops.first()?;
        let Some(&port) = hop.ifindex.and_then(|index| ours.get(&index)) else { return Some(Target::Kernel) };
        Some(match (self.ports[port.index()].kind, hop.gateway) {
            (PortKind::Tunnel { tunnel, .. }, gateway) => into_tunnel(config, tunnel.index(), gateway, key.prefix),
            (PortKind::Punt, _) => Target::Kernel,
            (_, Some(gateway)) => Target::Neighbour(port, gateway),
            (_, None) => Target::OnLink(port),
        })
    }

    /// What XDP needs to know, for the interfaces that exist.
    pub fn steering(&self, config: &Config) -> HostTables {
        let mut tables = HostTables::new();
        for (at, interface) in config.interfaces.iter().enumerate() {
            let (parent, vlan) = interface.parent.map_or((at, 0), |(parent, vlan)| (parent, vlan));
            let Some(device) = self.ifindex[parent] else { continue };
            let flags = match interface.fallback {
                Fallback::Drop => InterfaceFlags::FALLBACK_DROP,
                Fallback::Kernel => InterfaceFlags::default(),
            };
            tables.interface(
                Ingress { device, vlan: vlan.into() },
                Interface {
                    mac: self.ports[at].mac,
                    port: self.slot(PortId(parent as u16)),
                    counters: at as u16,
                    flags,
                    vrf: interface.vrf as u32,
                },
            );
        }
        for &(vrf, address) in &self.locals {
            tables.own(vrf.0.into(), address);
        }
        for tunnel in &config.tunnels {
            let crate::config::TunnelKind::Vxlan { port, .. } = tunnel.kind;
            let (local, remote) = (tunnel.local, Some(tunnel.remote));
            tables.tunnel(tunnel.underlay_vrf as u32, local, remote, protocol::UDP, port);
        }
        for (&(vrf, prefix), route) in &self.routes {
            let keeper = if route.target == Target::Kernel { Keeper::KERNEL } else { Keeper::WORKER };
            tables.route(vrf.0.into(), prefix.addr(), prefix.prefix_len(), keeper);
            if route.source == Source::Connected
                && let IpNet::V4(subnet) = prefix
                && subnet.prefix_len() < 31
            {
                tables.broadcast(vrf.0.into(), subnet.broadcast().into());
            }
        }
        tables
    }
}

/// Where a route into a tunnel leads: the inner destination MAC is the configured one; without it, that of the route's
/// next hop, else of the other end of a /30, /31, /126 or /127, else of the packet's destination (DESIGN §6).
fn into_tunnel(config: &Config, at: usize, next_hop: Option<IpAddr>, prefix: IpNet) -> Target {
    let (id, tunnel) = (TunnelId(at as u16), &config.tunnels[at]);
    if tunnel.remote_mac.is_some() {
        return Target::Tunnel(id);
    }
    let of_family = |address: &&IpNet| address.addr().is_ipv4() == prefix.addr().is_ipv4();
    let subnets = || tunnel.addresses.iter().filter(of_family).chain(&tunnel.addresses);
    match next_hop.or_else(|| subnets().find_map(other_end)) {
        Some(address) => Target::TunnelNeighbour(id, address),
        None => Target::TunnelOnLink(id),
    }
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
