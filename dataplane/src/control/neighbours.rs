//! Keeps the kernel's neighbours fresh: the kernel sees no transit, so it would let them go stale and never learn
//! that a MAC has changed (DESIGN §5.5).
//!
//! Configured next hops and tunnels' underlay are managed by the kernel itself (NTF_EXT_MANAGED). Hosts on a link are
//! asked for when a packet waits for them, and every 10 seconds while packets go to them. Confirming means probing: the kernel takes a
//! neighbour for reachable for up to 45 seconds, and a MAC that changed without a word must be found sooner.

use super::host::{Host, IfIndex, NeighState};
use super::netlink::{Commander, Error};
use super::plan::{Plan, Target};
use super::resolve::Resolver;
use crate::config::Config;
use crate::packet::{AdjacencyId, PortId, TunnelId};
use crate::stats::Page;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often neighbours in use are confirmed.
const CONFIRM: Duration = Duration::from_secs(10);
/// How soon one that did not answer is asked for again.
const AGAIN: Duration = Duration::from_millis(900);
/// Requests remembered at most; a scan of a large subnet must not fill the memory.
const REMEMBERED: usize = 4096;

/// What is asked for, when, and what goes by which neighbour.
pub struct Neighbours {
    managed: BTreeSet<(IfIndex, IpAddr)>,
    asked: BTreeMap<(IfIndex, IpAddr), Instant>,
    used: BTreeMap<Target, u64>,
    next: Instant,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { managed: BTreeSet::new(), asked: BTreeMap::new(), used: BTreeMap::new(), next: Instant::now() + CONFIRM }
    }
}

impl Neighbours {
    /// Has the kernel manage every next hop that the plan names and the kernel does not know yet. Errors of single
    /// neighbours are returned: the rest is done.
    pub fn manage(&mut self, config: &Config, plan: &Plan, host: &Host, commander: &mut Commander) -> Vec<Error> {
        let wanted = next_hops(config, plan);
        self.managed.retain(|key| wanted.contains(key) && host.neighbours.contains_key(key));
        let mut errors = Vec::new();
        for key in wanted {
            if !self.managed.contains(&key) {
                match commander.manage(key.0, key.1, host.neighbours.get(&key)) {
                    Ok(_) => {
                        self.managed.insert(key);
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        errors
    }

    /// A packet waits for this, or found it failed.
    pub fn want(
        &mut self,
        (id, destination): (AdjacencyId, IpAddr),
        config: &Config,
        plan: &Plan,
        resolver: &Resolver,
        host: &Host,
        commander: &mut Commander,
    ) -> Result<(), Error> {
        let Some(target) = resolver.target(plan, id) else { return Ok(()) };
        let now = Instant::now();
        if self.asked.len() >= REMEMBERED {
            self.asked.retain(|_, at| now.duration_since(*at) < AGAIN);
        }
        for (port, address) in leads_over(config, plan, target, Some(destination)) {
            let Some(Some(index)) = plan.ifindex.get(port.index()) else { continue };
            let key = (*index, address);
            let recently = self.asked.get(&key).is_some_and(|at| now.duration_since(*at) < AGAIN);
            let known = host.neighbours.get(&key);
            let usable = known.is_some_and(|n| !matches!(n.state, NeighState::Incomplete | NeighState::Failed));
            if recently || usable || self.asked.len() >= REMEMBERED {
                continue;
            }
            self.asked.insert(key, now);
            if self.managed.contains(&key) {
                commander.manage(key.0, key.1, known)?;
            } else {
                commander.resolve(key.0, key.1, known)?;
            }
        }
        Ok(())
    }

    /// When [`Self::confirm`] is due.
    pub const fn due(&self) -> Instant {
        self.next
    }

    /// Probes every next hop, and every other neighbour that packets went to since the last time, if it is time to.
    pub fn confirm(
        &mut self,
        config: &Config,
        plan: &Plan,
        resolver: &Resolver,
        pages: &[Arc<Page>],
        host: &Host,
        commander: &mut Commander,
    ) -> Vec<Error> {
        if Instant::now() < self.next {
            return Vec::new();
        }
        self.next = Instant::now() + CONFIRM;
        let mut errors = Vec::new();
        let mut used = BTreeMap::new();
        for (target, id, _) in resolver.adjacencies(plan) {
            if matches!(target, Target::Neighbour(..) | Target::TunnelNeighbour(..)) {
                *used.entry(target).or_default() += pages.iter().map(|page| page.adjacency(id)).sum::<u64>();
            }
        }
        for (&target, &count) in &used {
            let (port, address) = match target {
                Target::Neighbour(port, address) => (port, address),
                Target::TunnelNeighbour(tunnel, address) => (Plan::tunnel_port(config, tunnel), address),
                _ => continue,
            };
            let Some(Some(index)) = plan.ifindex.get(port.index()) else { continue };
            let key = (*index, address);
            let idle = self.used.get(&target).copied().unwrap_or(0) == count;
            let managed = self.managed.contains(&key);
            if idle && !managed {
                continue;
            }
            if let Err(error) = commander.probe(key.0, key.1, host.neighbours.get(&key), managed) {
                errors.push(error);
            }
        }
        self.used = used;
        errors
    }
}

/// Next hops of routes, and of tunnels' other ends.
fn next_hops(config: &Config, plan: &Plan) -> BTreeSet<(IfIndex, IpAddr)> {
    let targets = plan.rib.ways().flat_map(|(_, way)| plan.targets(way));
    let of_routes = targets.flat_map(|(target, _)| leads_over(config, plan, target, None));
    let of_tunnels = plan.underlays.iter().flatten().copied();
    of_routes
        .chain(of_tunnels)
        .filter_map(|(port, address)| plan.ifindex.get(port.index())?.map(|index| (index, address)))
        .collect()
}

/// The neighbours that a way needs: on its link, and for a tunnel outside and inside. `destination` is the packet's,
/// where the way is a link.
fn leads_over(config: &Config, plan: &Plan, target: Target, destination: Option<IpAddr>) -> Vec<(PortId, IpAddr)> {
    let outside = |id: TunnelId| plan.underlays.get(id.index()).copied().flatten();
    let inside = |id, address: Option<IpAddr>| address.map(|address| (Plan::tunnel_port(config, id), address));
    match target {
        Target::OnLink(port) => destination.map(|address| (port, address)).into_iter().collect(),
        Target::Neighbour(port, address) => vec![(port, address)],
        Target::Tunnel(id) | Target::Bridged(id) => outside(id).into_iter().collect(),
        Target::TunnelNeighbour(id, address) => outside(id).into_iter().chain(inside(id, Some(address))).collect(),
        Target::TunnelOnLink(id) => outside(id).into_iter().chain(inside(id, destination)).collect(),
        Target::Local | Target::Kernel | Target::Blackhole | Target::Unreachable | Target::Prohibited => Vec::new(),
        // What these lead to was put in their place.
        Target::Via(..) | Target::Leak(..) => Vec::new(),
    }
}
