//! What tunnels are to the host: a device each, and the kernel's copies of routes that lead into them.

use super::devices::{self, Device, EXPORT_METRIC, Spec};
use super::host::{Host, RouteKey, TunKind};
use super::netlink::{self, Commander, ExportedRoute, Target as ExportTarget};
use super::plan::{self, PUNT_DEVICE, Plan, Target};
use super::resolve::{Resolver, tunnel_mac};
use super::rib::Way;
use crate::config::Config;
use crate::io::{Outlet, Outlets};
use crate::packet::{PortId, TunnelId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use sys::tun::Tun;

/// The devices of all tunnels that have an address, and `penstock0`.
pub struct TunnelDevices {
    devices: BTreeMap<PortId, Device>,
    /// An earlier run left something: whoever fails to take over must leave it too.
    inherited: bool,
}

impl TunnelDevices {
    /// Makes them, or takes over what an earlier run left.
    ///
    /// # Errors
    ///
    /// A name is taken, or the kernel refuses. What was there is there still, what was not is not.
    pub fn establish(config: &Config, host: &Host, commander: &mut Commander) -> Result<Self, devices::Error> {
        let plan = Plan::new(config, host);
        let wanted = specs(config, |id| Resolver::mtu(config, &plan, id));
        let left = |spec: &Spec| host.link_by_name(&spec.name).is_some_and(|(_, link)| link.tun.is_some());
        let inherited = wanted.iter().any(|(_, spec)| left(spec)) || !commander.exported_routes()?.is_empty();
        let mut all = Self { devices: BTreeMap::new(), inherited };
        for (port, spec) in wanted {
            match Device::establish(&spec, commander) {
                Ok(device) => {
                    all.devices.insert(port, device);
                }
                Err(error) => {
                    all.end(inherited, commander);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// An earlier run left something in the host.
    pub const fn are_inherited(&self) -> bool {
        self.inherited
    }

    /// The devices that a worker reads: those of tunnels.
    pub fn read<'a>(&'a self, config: &Config) -> impl Iterator<Item = (PortId, &'a Arc<Tun>)> + 'a {
        let punt = Plan::punt_port(config);
        self.devices.iter().filter(move |(port, _)| **port != punt).map(|(port, device)| (*port, device.tun()))
    }

    /// Where workers write what is for the host.
    pub fn outlets(&self, config: &Config) -> Outlets {
        let mut outlets = Outlets::none();
        for at in 0..config.tunnels.len() {
            let id = TunnelId(at as u16);
            if let Some(device) = self.devices.get(&Plan::tunnel_port(config, id)) {
                outlets.set_tunnel(id, Outlet::Device(Arc::clone(device.tun())));
            }
        }
        if let Some(device) = self.devices.get(&Plan::punt_port(config)) {
            outlets.set_host(Outlet::Device(Arc::clone(device.tun())));
        }
        outlets
    }

    /// Keeps them as they should be: a tunnel's MTU follows its path's, and one that somebody deleted is made again.
    /// Returns the ports of these, and what went wrong.
    pub fn follow(
        &mut self,
        config: &Config,
        plan: &Plan,
        host: &Host,
        commander: &mut Commander,
    ) -> (Vec<PortId>, Vec<devices::Error>) {
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for (port, spec) in specs(config, |id| Resolver::mtu(config, plan, id)) {
            let known = self.devices.get(&port).and_then(|device| host.links.get(&device.ifindex()));
            if known.is_some_and(|link| link.mtu == spec.mtu && link.up && link.name == spec.name) {
                continue;
            }
            let done = match self.devices.get_mut(&port) {
                Some(device) if known.is_some() => device.configure(&spec, commander),
                _ => Device::establish(&spec, commander).map(|device| {
                    self.devices.insert(port, device);
                    made.push(port);
                }),
            };
            errors.extend(done.err());
        }
        (made, errors)
    }

    /// Static routes into tunnels are also the kernel's, so that neither the host nor a dead gateway sends a tenant's
    /// packets in clear. Returns what went wrong.
    pub fn export(&self, config: &Config, plan: &Plan, commander: &mut Commander) -> Vec<ExportError> {
        match devices::export(self.exported(config, plan), commander) {
            Ok(done) => done.failed.into_iter().map(|(key, error)| ExportError { key: Some(key), error }).collect(),
            Err(error) => vec![ExportError { key: None, error }],
        }
    }

    /// The kernel's copies. Of several tunnels, it gets the first one that is up.
    fn exported(&self, config: &Config, plan: &Plan) -> Vec<ExportedRoute> {
        let tunnel = |target: &Target| match target {
            Target::Tunnel(id) | Target::TunnelOnLink(id) | Target::TunnelNeighbour(id, _) => Some(*id),
            _ => None,
        };
        let wanted = config.routes.iter().filter(|route| route.kernel);
        let export = |route: &crate::config::Route| {
            let targets = plan.targets(&Way::of(plan::static_targets(config, route)));
            let into: Vec<_> = targets.iter().filter_map(|(target, _)| Some((*target, tunnel(target)?))).collect();
            let (target, id) = into.iter().find(|(target, _)| plan.is_up(*target)).or(into.first())?;
            let table = config.vrfs[route.vrf].table?;
            let device = self.devices.get(&Plan::tunnel_port(config, *id)).map(Device::ifindex);
            let target = match (device, target) {
                (Some(index), Target::TunnelNeighbour(_, gateway))
                    if gateway.is_ipv4() == route.prefix.addr().is_ipv4() =>
                {
                    ExportTarget::Gateway(index, *gateway)
                }
                (Some(index), _) => ExportTarget::Device(index),
                (None, _) => ExportTarget::Unreachable,
            };
            let key = RouteKey { table, prefix: route.prefix, tos: 0, metric: EXPORT_METRIC };
            Some(ExportedRoute { key, target })
        };
        wanted.filter_map(export).collect()
    }

    /// The end: takes devices and routes back; or, with `keep`, leaves them to whoever comes next, so that what belongs
    /// into a tunnel does not leave in clear. Errors are told: nobody can do more about them.
    pub fn end(self, keep: bool, commander: &mut Commander) {
        if keep {
            return;
        }
        let tell = |error: &dyn fmt::Display| eprintln!("stopping: {error}");
        match devices::export([], commander) {
            Ok(done) => done.failed.iter().for_each(|(_, error)| tell(error)),
            Err(error) => tell(&error),
        }
        for device in self.devices.into_values() {
            if let Err(error) = device.remove() {
                tell(&error);
            }
        }
    }
}

/// A copy of a route that the kernel did not take, or all of them.
#[derive(Debug)]
pub struct ExportError {
    key: Option<RouteKey>,
    error: netlink::Error,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "route {} in table {}: {}", key.prefix, key.table, self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

fn specs(config: &Config, mtu: impl Fn(TunnelId) -> u16) -> Vec<(PortId, Spec)> {
    let ids = (0..config.tunnels.len() as u16).map(TunnelId).zip(&config.tunnels);
    let tunnels = ids.filter(|(_, tunnel)| !tunnel.addresses.is_empty()).map(|(id, tunnel)| {
        let spec = Spec {
            name: tunnel.name.clone(),
            kind: TunKind::Tap,
            mac: Some(tunnel_mac(tunnel).octets()),
            mtu: mtu(id).into(),
            addresses: tunnel.addresses.clone(),
        };
        (Plan::tunnel_port(config, id), spec)
    });
    let punt = Spec { name: PUNT_DEVICE.into(), kind: TunKind::Tun, mac: None, mtu: 65_535, addresses: Vec::new() };
    tunnels.chain([(Plan::punt_port(config), punt)]).collect()
}
