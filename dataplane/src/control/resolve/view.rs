//! What a target's adjacency and headers are, and a tunnel's inside.

use crate::config::{Config, Df, EcnMode, UdpChecksum};
use crate::control::plan::{Neighbour, Plan, Target};
use crate::hash;
use crate::packet::{Family, PortId, TunnelId, Vrf};
use crate::tables::{Adjacency, PortKind, Resolution};
use crate::tunnel::{Ends, Outer, Tunnel};
use std::collections::BTreeSet;
use std::net::IpAddr;
use wire::{Be16, EtherType, Ethernet, Mac, Rewrite, VlanTag};
use zerocopy::IntoBytes;

/// A plan with the file it came from: what a target's headers follow from.
pub(super) struct View<'a> {
    pub(super) config: &'a Config,
    pub(super) plan: &'a Plan,
}

impl View<'_> {
    /// What packets are bound to beside ways: members of groups, neighbours of links, tunnels' devices.
    pub(super) fn targets(&self, members: impl Iterator<Item = Target>) -> BTreeSet<Target> {
        let mut targets: BTreeSet<Target> = members.collect();
        targets.extend((0..self.config.tunnels.len()).map(|at| Target::Bridged(TunnelId(at as u16))));
        targets.extend(self.plan.neighbours.keys().filter_map(|&(port, address)| {
            match self.plan.ports[port.index()].kind {
                PortKind::Interface | PortKind::Vlan { .. } => Some(Target::Neighbour(port, address)),
                PortKind::Tunnel { tunnel, .. } => Some(Target::TunnelNeighbour(tunnel, address)),
                PortKind::Punt => None,
            }
        }));
        targets
    }

    /// What tells a target from others in its group, on this gateway and on those that share its work: where it leads,
    /// not how it is named or numbered here.
    pub(super) fn identity(&self, target: Target) -> u64 {
        let text = match target {
            Target::Neighbour(_, address) => format!("neighbour {address}"),
            Target::OnLink(port) => format!("link {}", self.plan.ports[port.index()].name),
            Target::Tunnel(id) | Target::Bridged(id) | Target::TunnelOnLink(id) | Target::TunnelNeighbour(id, _) => {
                let tunnel = &self.config.tunnels[id.index()];
                let (kind, (_, port)) = (tunnel.kind, tunnel.kind.carrier());
                format!("{} {} {port} {}", kind.name(), kind.identifier(), tunnel.remote)
            }
            other => format!("{other:?}"),
        };
        hash::stable(&text)
    }

    /// How a target is now.
    pub(super) fn build(&self, target: Target) -> (Adjacency, Rewrite) {
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
                let tunnel = &self.config.tunnels[id.index()];
                let inside = match tunnel.remote_mac {
                    _ if !tunnel.kind.ethernet() => Inside::Brought,
                    Some(mac) => Inside::Mac(Mac::new(mac)),
                    None => Inside::Waiting,
                };
                self.tunnel_adjacency(id, inside)
            }
            Target::TunnelNeighbour(id, address) => {
                let port = Plan::tunnel_port(self.config, id);
                let inside = match self.plan.neighbours.get(&(port, address)) {
                    Some(Neighbour::Known(mac)) => Inside::Mac(*mac),
                    Some(Neighbour::Failed) => Inside::Failed,
                    Some(Neighbour::Retried) | None => Inside::Waiting,
                };
                self.tunnel_adjacency(id, inside)
            }
            Target::TunnelOnLink(id) => {
                let (adjacency, _) = self.tunnel_adjacency(id, Inside::Waiting);
                (Adjacency { resolution: Resolution::OnLink, ..adjacency }, Rewrite::empty())
            }
            Target::Bridged(id) => self.tunnel_adjacency(id, Inside::Brought),
            // What these lead to was put in their place.
            Target::Via(..) | Target::Leak(..) => nowhere(Resolution::Unreachable),
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
            Some(Neighbour::Retried) | None => Resolution::Waiting,
        };
        let adjacency = self.by_port(port, resolution, &mut rewrite);
        if let Some(Neighbour::Known(mac)) = known {
            rewrite.octets[..6].copy_from_slice(&mac.octets());
        }
        (adjacency, rewrite)
    }

    /// The way to a tunnel's other end.
    fn underlay(&self, id: TunnelId) -> Option<(Adjacency, Rewrite)> {
        let (port, address) = (*self.plan.underlays.get(id.index())?)?;
        Some(self.neighbour(port, address))
    }

    /// What the path leaves, and no more than the file says: a longer packet would be lost on the way.
    pub(super) fn tunnel_mtu(&self, id: TunnelId) -> u16 {
        let tunnel = &self.config.tunnels[id.index()];
        let overhead = tunnel.overhead();
        // RFC 791 §3.1: every link carries 68 octets. One that does not leave them loses what is longer.
        let room = |path: u16| path.saturating_sub(overhead).max(68);
        let narrow = self.plan.paths.mtu(id).unwrap_or(u16::MAX);
        match (self.underlay(id), tunnel.mtu) {
            (Some((underlay, _)), wanted) => room(underlay.mtu.min(narrow)).min(wanted.unwrap_or(u16::MAX)),
            (None, wanted) => wanted.unwrap_or(room(1500)),
        }
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
        let ethertype = match Family::of(tunnel.local) {
            Family::V4 => EtherType::IPV4,
            Family::V6 => EtherType::IPV6,
        };
        rewrite.octets[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        let own = tunnel.inside_mac();
        let inner = match inside {
            Inside::Mac(mac) => Some((mac, own)),
            Inside::Brought => None,
            Inside::Waiting | Inside::Failed => Some((Mac::default(), own)),
        };
        if let Some(outer) = outer(tunnel) {
            tunnel.kind.headers(&outer, inner, &mut rewrite);
        }
        let adjacency = Adjacency { tunnel: id, mtu: self.tunnel_mtu(id), resolution, clamp: tunnel.mss, ..underlay };
        (adjacency, rewrite)
    }

    /// The inside of a tunnel, for decapsulation.
    pub(super) fn tunnel(&self, id: TunnelId) -> Tunnel {
        let tunnel = &self.config.tunnels[id.index()];
        let port = &self.plan.ports[Plan::tunnel_port(self.config, id).index()];
        let underlay = Vrf(tunnel.underlay_vrf as u16);
        Tunnel {
            name: tunnel.name.clone(),
            kind: tunnel.kind,
            vrf: Vrf(tunnel.vrf as u16),
            ends: Ends::new(underlay, tunnel.local, tunnel.remote)
                .expect("the configuration has one family per tunnel"),
            mtu: self.tunnel_mtu(id),
            clamp: tunnel.mss,
            mac: tunnel.inside_mac(),
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
    /// The packet needs no header, or has its own.
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
