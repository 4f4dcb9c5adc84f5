//! What XDP is told of a plan.

use super::{Plan, Target};
use crate::config::{Config, Fallback};
use crate::packet::{PortId, Vrf};
use ipnet::IpNet;
use steering::HostTables;
use steering::tables::{Ingress, Interface, InterfaceFlags, Keeper};

/// Prefixes of a VRF that XDP tells apart at most, by who forwards them.
const KEEPERS: usize = 65_536;

impl Plan {
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
            let (protocol, port) = tunnel.kind.carrier();
            let (local, remote) = (tunnel.local, Some(tunnel.remote));
            tables.tunnel(tunnel.underlay_vrf as u32, local, remote, protocol, port);
        }
        for &(vrf, address) in &self.broadcasts {
            tables.broadcast(vrf.0.into(), address);
        }
        for vrf in (0..config.vrfs.len() as u16).map(Vrf) {
            self.keepers(vrf, &mut tables);
        }
        tables
    }

    /// The prefixes that the kernel forwards, and those within them that the workers do. What changes nothing is
    /// left out: most VRFs have none, and a full table has a million.
    fn keepers(&self, vrf: Vrf, tables: &mut HostTables) {
        if !self.has_kept(vrf) {
            return;
        }
        let mut covering: Vec<(IpNet, Keeper)> = Vec::new();
        let mut needed = Vec::new();
        for (prefix, route) in self.rib.routes(vrf) {
            while covering.last().is_some_and(|(cover, _)| !cover.contains(&prefix)) {
                covering.pop();
            }
            let kept = self.targets(self.rib.way(route.way)).iter().any(|(target, _)| *target == Target::Kernel);
            let keeper = if kept { Keeper::KERNEL } else { Keeper::WORKER };
            if covering.last().map_or(Keeper::WORKER, |(_, keeper)| *keeper) != keeper {
                needed.push((prefix, keeper));
            }
            covering.push((prefix, keeper));
        }
        // Too many for XDP to tell apart: the workers get all of them, and hand the kernel what is the kernel's.
        if needed.len() <= KEEPERS {
            for (prefix, keeper) in needed {
                tables.route(vrf.0.into(), prefix.addr(), prefix.prefix_len(), keeper);
            }
        }
    }

    /// Whether any route of a VRF is the kernel's to forward.
    pub fn has_kept(&self, vrf: Vrf) -> bool {
        let through = self.hops.values().flatten().any(|(target, _)| *target == Target::Kernel);
        through || self.rib.kept(vrf) != 0
    }
}
