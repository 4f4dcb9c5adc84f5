//! What tunnels are to the host: a device each, and the kernel's copies of routes that lead into them.

use super::devices::{self, Device, Spec};
use super::export::{EXPORT_METRIC, Exports, export};
use super::host::{Host, RouteKey, TunKind};
use super::netlink::{self, Changes, Commander, ExportedRoute, Target as ExportTarget};
use super::plan::{self, PUNT_DEVICE, Plan, Target};
use super::resolve::Resolver;
use super::rib::Way;
use crate::config::Config;
use crate::io::{Outlet, Outlets};
use crate::packet::{Family, PortId, TunnelId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use sys::tun::Tun;

/// Routes whose refusal is told one by one; of more, how many.
const TOLD: usize = 10;

/// The devices of all tunnels that have an address, and `penstock0`; and the kernel's copies of the file's routes.
pub struct TunnelDevices {
    devices: BTreeMap<PortId, Device>,
    exports: Exports,
    /// Where they lead.
    led: Vec<Led>,
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
        let exports = Exports::adopt(host);
        let inherited = wanted.iter().any(|(_, spec)| left(spec)) || !exports.is_empty();
        let mut all = Self { devices: BTreeMap::new(), exports, led: Vec::new(), inherited };
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
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            let id = TunnelId(at as u16);
            if let Some(device) = self.devices.get(&Plan::tunnel_port(config, id)) {
                outlets.set_tunnel(id, Outlet::Device(Arc::clone(device.tun())), tunnel.kind.ethernet());
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
    /// packets in clear. Writes what `changes` in the host undid, and with `led` what leads elsewhere now. Returns what
    /// went wrong.
    pub fn export(
        &mut self,
        config: &Config,
        plan: &Plan,
        led: bool,
        (changes, host): (&Changes, &Host),
        commander: &mut Commander,
    ) -> Vec<ExportError> {
        self.exports.follow(&changes.routes, host);
        if !changes.links.is_empty() {
            self.exports.retry();
        }
        if led {
            let led = self.lead(config, plan);
            if led != self.led {
                self.exports.replace(exported(config, &led));
                self.led = led;
            }
        }
        let failed = match self.exports.write(host, commander) {
            Ok(done) => done.failed,
            Err(error) => return vec![ExportError::All(error)],
        };
        let more = failed.len().saturating_sub(TOLD);
        let told = failed.into_iter().take(TOLD).map(|(key, error)| ExportError::Route { key, error });
        told.chain((more > 0).then_some(ExportError::More(more))).collect()
    }

    /// Where the kernel's copies lead: of several tunnels, it gets the first one that is up.
    fn lead(&self, config: &Config, plan: &Plan) -> Vec<Led> {
        let tunnel = |target: &Target| match target {
            Target::Tunnel(id) | Target::TunnelOnLink(id) | Target::TunnelNeighbour(id, _) => Some(*id),
            _ => None,
        };
        let target = |route: &crate::config::Route| {
            if !route.kernel || config.vrfs[route.vrf].table.is_none() {
                return None;
            }
            let targets = plan.targets(&Way::of(plan::static_targets(config, route)));
            let into: Vec<_> = targets.iter().filter_map(|(target, _)| Some((*target, tunnel(target)?))).collect();
            let (target, id) = into.iter().find(|(target, _)| plan.is_up(*target)).or(into.first())?;
            let device = self.devices.get(&Plan::tunnel_port(config, *id)).map(Device::ifindex);
            Some(match (device, target) {
                (Some(index), Target::TunnelNeighbour(_, gateway))
                    if gateway.is_ipv4() == route.prefix.addr().is_ipv4() =>
                {
                    ExportTarget::Gateway(index, *gateway)
                }
                (Some(index), _) => ExportTarget::Device(index),
                (None, _) => ExportTarget::Unreachable,
            })
        };
        let alike = |left: &crate::config::Route, right: &crate::config::Route| {
            Arc::ptr_eq(&left.via, &right.via)
                && (left.vrf, left.kernel, left.leak, left.prefix.addr().is_ipv4())
                    == (right.vrf, right.kernel, right.leak, right.prefix.addr().is_ipv4())
        };
        // A list has a hundred thousand that lead alike.
        let runs = config.routes.chunk_by(alike);
        runs.map(|run| Led { routes: run.len(), target: target(&run[0]) }).collect()
    }

    /// The end: takes devices and routes back; or, with `keep`, leaves them to whoever comes next, so that what belongs
    /// into a tunnel does not leave in clear. Errors are told: nobody can do more about them.
    pub fn end(self, keep: bool, commander: &mut Commander) {
        if keep {
            return;
        }
        let tell = |error: &dyn fmt::Display| eprintln!("stopping: {error}");
        match export([], commander) {
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

/// Where the kernel's copies of so many of the file's routes lead, one after the other; `None` where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Led {
    routes: usize,
    target: Option<ExportTarget>,
}

fn exported(config: &Config, led: &[Led]) -> impl Iterator<Item = ExportedRoute> {
    let targets = led.iter().flat_map(|led| std::iter::repeat_n(led.target, led.routes));
    config.routes.iter().zip(targets).filter_map(|(route, target)| {
        let table = config.vrfs[route.vrf].table?;
        let key = RouteKey { table, prefix: route.prefix, tos: 0, metric: EXPORT_METRIC };
        Some(ExportedRoute { key, target: target? })
    })
}

/// What the kernel did not take.
#[derive(Debug)]
pub enum ExportError {
    /// The copy of one route.
    Route {
        /// Which.
        key: RouteKey,
        /// Why.
        error: netlink::Error,
    },
    /// So many more, for the like reasons.
    More(usize),
    /// Any.
    All(netlink::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { key, error } => write!(f, "route {} in table {}: {error}", key.prefix, key.table),
            Self::More(count) => write!(f, "and {count} more routes"),
            Self::All(error) => write!(f, "{error}"),
        }
    }
}

/// The kernel takes IPv6 and its addresses off a device that carries less than 1,280 octets, and a path that was called
/// narrow may be wide again: so the device stays, and what does not fit is answered by the worker.
fn device_mtu(tunnel: &crate::config::Tunnel, mtu: u16) -> u16 {
    let least = if tunnel.addresses.iter().any(|address| address.addr().is_ipv6()) { 1280 } else { 0 };
    mtu.max(least)
}

fn specs(config: &Config, mtu: impl Fn(TunnelId) -> u16) -> Vec<(PortId, Spec)> {
    let ids = (0..config.tunnels.len() as u16).map(TunnelId).zip(&config.tunnels);
    let tunnels = ids.filter(|(_, tunnel)| !tunnel.addresses.is_empty()).map(|(id, tunnel)| {
        let spec = Spec {
            name: tunnel.name.clone(),
            kind: if tunnel.kind.ethernet() { TunKind::Tap } else { TunKind::Tun },
            mac: tunnel.kind.ethernet().then(|| tunnel.inside_mac().octets()),
            mtu: device_mtu(tunnel, mtu(id)).into(),
            ipv6: tunnel.kind.carries(Family::V6),
            addresses: tunnel.addresses.clone(),
        };
        (Plan::tunnel_port(config, id), spec)
    });
    let punt = Spec {
        name: PUNT_DEVICE.into(),
        kind: TunKind::Tun,
        mac: None,
        mtu: 65_535,
        ipv6: true,
        addresses: Vec::new(),
    };
    tunnels.chain([(Plan::punt_port(config), punt)]).collect()
}
