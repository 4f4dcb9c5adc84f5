//! From a plan to tables: targets get adjacency ids and headers, routes get into the FIB, in an order in which no
//! worker ever follows a pointer to nothing.
//!
//! To add: publish adjacencies, wait until every worker has passed, write the FIB. To withdraw: write the FIB, wait,
//! free the id. No id is used again before (DESIGN §4).

use super::plan::{Delta, Plan, Target};
use super::rib::WayId;
use super::shaping;
use crate::config::{Config, HashMode};
use crate::fib::Fib;
use crate::packet::{AdjacencyId, FlowHash, TunnelId, Vrf};
use crate::stats::Room;
use crate::tables::filter::Ways;
use crate::tables::{
    Adjacencies, Adjacency, Classifier, Group, Locals, Member, Policing, Port, PortKind, Ports, Published, Resolution,
    Tables, mix, published,
};
use crate::tunnel::Tunnels;
use ipnet::IpNet;
use lpm::{Change, Limits, Prefix4, Prefix6, TableError, Usage, Value, Writer4, Writer6};
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use wire::Rewrite;

#[cfg(test)]
mod tests;
mod view;

use view::View;

/// Why new tables were refused; the old ones stay.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// More neighbours and group members than there are adjacencies.
    #[error("more than {most} neighbours and members of groups")]
    TooManyNeighbours {
        /// How many there may be.
        most: usize,
    },
    /// The routing table is full.
    #[error("route {prefix}: {source}")]
    Table {
        /// The route that did not fit.
        prefix: IpNet,
        /// Why.
        source: TableError,
    },
    /// What packets meet could not be told apart.
    #[error("access list, tenants and classes: {0}")]
    Classifier(TableError),
    /// A worker holds on to tables that are long out of date.
    #[error("a worker is stuck: what changed waits for it")]
    Behind,
    /// The routing tables could not be made.
    #[error(transparent)]
    Start(#[from] TableError),
}

/// An adjacency in use.
#[derive(Clone, Debug)]
struct Slot {
    id: AdjacencyId,
    adjacency: Adjacency,
    rewrite: Rewrite,
    /// Of a way that several share: who, and how.
    group: Option<(Vec<Member>, Arc<Group>)>,
}

/// What a slot is made of.
enum Made {
    /// One next hop.
    One(Adjacency, Rewrite),
    /// Several.
    Group(Vec<Member>),
}

/// Makes tables of plans. One per gateway.
///
/// Ways are adjacencies whose ids the FIB holds; the rest, which it never names, are numbered above them: neighbours
/// on links, members of groups, tunnels' devices.
pub struct Resolver {
    v4: Writer4,
    v6: Writer6,
    ways: BTreeMap<WayId, Slot>,
    targets: BTreeMap<Target, Slot>,
    free: Vec<AdjacencyId>,
    /// Those that are free once every worker has passed.
    freed: Vec<AdjacencyId>,
    next: u32,
    /// Next hops changed and are not resolved again yet.
    stale: bool,
    /// Prefixes that did not fit, to be tried again.
    unwritten: BTreeSet<(Vrf, IpNet)>,
    /// Ways without routes, whose numbers may still be read.
    dead: Vec<WayId>,
    published: Published<Tables>,
    generation: u64,
    /// As last compiled.
    classifier: Classifier,
}

impl Resolver {
    /// Adjacencies at most: ways, and as many neighbours again three times.
    pub const MOST: usize = 1 << 17;

    /// Empty tables.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new() -> Result<Self, ResolveError> {
        Self::with(Limits::default())
    }

    /// With so much room for the routes of each family.
    fn with(limits: Limits) -> Result<Self, ResolveError> {
        let (v4, v6) = (Writer4::new(limits)?, Writer6::new(limits)?);
        let tables = Tables {
            generation: 0,
            hash: FlowHash::default(),
            ports: Ports::default(),
            locals: Locals::default(),
            tunnels: Tunnels::default(),
            classifier: Classifier::default(),
            policing: Policing::default(),
            fib: Fib { v4: v4.reader(), v6: v6.reader() },
            adjacencies: Adjacencies::new(),
        };
        Ok(Self {
            v4,
            v6,
            ways: BTreeMap::new(),
            targets: BTreeMap::new(),
            free: Vec::new(),
            freed: Vec::new(),
            next: u32::from(Value::MAX) + 1,
            stale: false,
            unwritten: BTreeSet::new(),
            dead: Vec::new(),
            published: published(tables),
            generation: 0,
            classifier: Classifier::default(),
        })
    }

    /// For how many things workers count.
    pub fn room(config: &Config, ports: usize) -> Room {
        Room {
            ports,
            tunnels: config.tunnels.len(),
            adjacencies: Self::MOST,
            rules: config.acl.len(),
            policers: config.policers.len(),
        }
    }

    /// What workers read from.
    pub const fn published(&self) -> &Published<Tables> {
        &self.published
    }

    /// Routes that the FIB holds, and the memory that they take.
    pub fn usage(&self) -> [Usage; 2] {
        [self.v4.usage(), self.v6.usage()]
    }

    /// The target of an adjacency; `None` for a group.
    pub fn target(&self, plan: &Plan, id: AdjacencyId) -> Option<Target> {
        let by_way = self.ways.iter().find(|(_, slot)| slot.id == id).map(|(way, _)| *way);
        match by_way {
            Some(way) => match plan.targets(plan.rib.way(way))[..] {
                [(target, _)] => Some(target),
                _ => None,
            },
            None => self.targets.iter().find(|(_, slot)| slot.id == id).map(|(target, _)| *target),
        }
    }

    /// Adjacencies of single next hops: target, id, and how far resolved. A target may have two.
    pub fn adjacencies<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (Target, AdjacencyId, Resolution)> + 'a {
        let ways = self.ways.iter().filter_map(|(way, slot)| match plan.targets(plan.rib.way(*way))[..] {
            [(target, _)] => Some((target, slot)),
            _ => None,
        });
        let all = ways.chain(self.targets.iter().map(|(target, slot)| (*target, slot)));
        all.map(|(target, slot)| (target, slot.id, slot.adjacency.resolution))
    }

    /// How far the way to a tunnel's other end is resolved.
    pub fn tunnel(&self, id: TunnelId) -> Option<Resolution> {
        self.targets.get(&Target::Bridged(id)).map(|slot| slot.adjacency.resolution)
    }

    /// How far each adjacency is resolved.
    pub fn resolutions(&self) -> impl Iterator<Item = Resolution> + '_ {
        self.ways.values().chain(self.targets.values()).map(|slot| slot.adjacency.resolution)
    }

    /// How far a way is resolved, and of a group the buckets that each of its targets has.
    pub fn way(&self, id: WayId) -> (Resolution, Vec<usize>) {
        match self.ways.get(&id) {
            Some(Slot { group: Some((_, group)), .. }) => (Resolution::Group, group.shares()),
            Some(slot) => (slot.adjacency.resolution, Vec::new()),
            None => (Resolution::None, Vec::new()),
        }
    }

    /// The largest inner packet of a tunnel.
    pub fn mtu(config: &Config, plan: &Plan, id: TunnelId) -> u16 {
        View { config, plan }.tunnel_mtu(id)
    }

    /// Brings the tables to what the plan says. `wait` returns whether every worker has passed the version, once they have
    /// or after a time.
    ///
    /// # Errors
    ///
    /// Too many next hops: the tables are as before. A worker has not passed: no route has changed. Or a route does not
    /// fit: it leads where it led, and all others are as planned. Each is tried again with the next update.
    pub fn update(
        &mut self,
        config: &Config,
        plan: &mut Plan,
        delta: &Delta,
        wait: &mut dyn FnMut(&Published<Tables>, u64) -> bool,
    ) -> Result<(), ResolveError> {
        self.stale |= delta.next_hops;
        if self.stale {
            match self.resolve(&View { config, plan }) {
                Ok((version, freed)) => {
                    self.freed.extend(freed);
                    let routes = !delta.routes.is_empty() || !self.unwritten.is_empty();
                    // Ids that are free may be used the next time.
                    if routes || !self.freed.is_empty() {
                        if !wait(&self.published, version) {
                            self.unwritten.extend(&delta.routes);
                            return Err(ResolveError::Behind);
                        }
                        self.free.append(&mut self.freed);
                    }
                }
                Err(error) => {
                    self.unwritten.extend(&delta.routes);
                    return Err(error);
                }
            }
            self.stale = false;
        }
        self.dead.extend(plan.rib.take_dead());
        if delta.routes.is_empty() && self.unwritten.is_empty() && self.dead.is_empty() {
            return Ok(());
        }
        let again = mem::take(&mut self.unwritten);
        let keys = || again.difference(&delta.routes).chain(&delta.routes);
        let [first, last] = defaults(plan, keys);
        let first = self.write_all(plan, || first.iter());
        let others = self.write_all(plan, || keys().filter(|(_, prefix)| prefix.prefix_len() != 0));
        let mut result = first.and(others);
        // What was withdrawn is still being read until every worker has passed once more.
        let (mark4, mark6) = (self.v4.retire_mark(), self.v6.retire_mark());
        if !wait(&self.published, self.published.mark()) {
            self.unwritten.extend(last);
            // A later mark covers this one's too.
            return Err(ResolveError::Behind);
        }
        self.v4.reclaim(mark4);
        self.v6.reclaim(mark6);
        if !last.is_empty() {
            result = result.and(self.write_all(plan, || last.iter()));
            if !wait(&self.published, self.published.mark()) {
                return Err(ResolveError::Behind);
            }
        }
        // A prefix that did not fit may still lead by a way that no route has.
        if self.unwritten.is_empty() {
            for way in plan.rib.release(mem::take(&mut self.dead)) {
                self.ways.remove(&way);
            }
        }
        result
    }

    /// Gives everything that a packet may be bound to its headers as they are now, and shows the workers. Returns the
    /// version, and the ids that are free once all have passed it.
    fn resolve(&mut self, view: &View<'_>) -> Result<(u64, Vec<AdjacencyId>), ResolveError> {
        let ways: Vec<_> = view.plan.rib.ways().map(|(id, way)| (id, view.plan.targets(way))).collect();
        let members = ways.iter().filter(|(_, targets)| targets.len() > 1).flat_map(|(_, targets)| targets);
        let wanted = view.targets(members.map(|(target, _)| *target));
        let room = Self::MOST - usize::from(Value::MAX) - 1;
        if wanted.len() > room {
            return Err(ResolveError::TooManyNeighbours { most: room });
        }
        self.compile_lists(view)?;
        // Nothing refers to what is taken out here once the new tables are seen.
        let (targets, gone) = mem::take(&mut self.targets).into_iter().partition(|(target, _)| wanted.contains(target));
        self.targets = targets;
        let freed: Vec<AdjacencyId> = BTreeMap::into_values(gone).map(|slot: Slot| slot.id).collect();
        for target in wanted {
            let (adjacency, rewrite) = view.build(target);
            let old = self.targets.remove(&target);
            let id = match &old {
                Some(slot) => slot.id,
                None => self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    AdjacencyId(self.next - 1)
                }),
            };
            let slot = self.renewed(old, id, Made::One(adjacency, rewrite));
            self.targets.insert(target, slot);
        }
        for (way, targets) in ways {
            let made = match targets[..] {
                [(target, _)] => {
                    let (adjacency, rewrite) = view.build(target);
                    Made::One(adjacency, rewrite)
                }
                _ => Made::Group(self.members(&targets, view)),
            };
            let old = self.ways.remove(&way);
            let slot = self.renewed(old, way.adjacency(), made);
            self.ways.insert(way, slot);
        }
        Ok((self.publish(view), freed))
    }

    /// What packets meet as it is now, compiled anew only if it differs.
    fn compile_lists(&mut self, view: &View<'_>) -> Result<(), ResolveError> {
        let ways = Ways::new(&view.plan.ports, view.config.tunnels.iter().map(|tunnel| Vrf(tunnel.vrf as u16)));
        let rules = view.config.acl.iter().map(|entry| &entry.rule);
        let marks = shaping::marks(view.config);
        if !self.classifier.is_of(rules.clone(), marks.as_ref(), &ways) {
            let made = Classifier::new(rules.cloned().collect(), marks, ways);
            self.classifier = made.map_err(ResolveError::Classifier)?;
        }
        Ok(())
    }

    /// A group's members. Equal identities are told apart by their order.
    fn members(&self, targets: &[(Target, u16)], view: &View<'_>) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::with_capacity(targets.len());
        for &(target, weight) in targets {
            let Some(slot) = self.targets.get(&target) else { continue };
            let mut identity = view.identity(target);
            while members.iter().any(|member| member.identity == identity) {
                identity = mix(identity);
            }
            members.push(Member { id: slot.id, identity, weight, up: view.plan.is_up(target) });
        }
        members
    }

    /// A slot as it is to be: its generation moves on if its headers changed.
    fn renewed(&self, old: Option<Slot>, id: AdjacencyId, made: Made) -> Slot {
        // A new user of an old id: generations of packets still queued under it must not match.
        let fresh = self.generation as u32 + 1;
        match made {
            Made::Group(members) => {
                let group = match old.and_then(|slot| slot.group) {
                    Some((before, group)) if before == members => group,
                    _ => Arc::new(Group::new(&members)),
                };
                let adjacency = Adjacency { generation: fresh, ..Adjacency::of(Resolution::Group) };
                Slot { id, adjacency, rewrite: Rewrite::empty(), group: Some((members, group)) }
            }
            Made::One(adjacency, rewrite) => {
                let before = old.filter(|slot| slot.group.is_none());
                let same = before.as_ref().is_some_and(|slot| {
                    Adjacency { generation: slot.adjacency.generation, ..adjacency } == slot.adjacency
                        && rewrite == slot.rewrite
                });
                let generation = match before {
                    Some(slot) if same => slot.adjacency.generation,
                    Some(slot) => slot.adjacency.generation.wrapping_add(1).max(fresh),
                    None => fresh,
                };
                Slot { id, adjacency: Adjacency { generation, ..adjacency }, rewrite, group: None }
            }
        }
    }

    fn publish(&mut self, view: &View<'_>) -> u64 {
        self.generation += 1;
        let mut adjacencies = Adjacencies::new();
        for slot in self.ways.values().chain(self.targets.values()) {
            match &slot.group {
                Some((_, group)) => adjacencies.set_group(slot.id, Arc::clone(group)),
                None => adjacencies.set(slot.id, slot.adjacency, slot.rewrite),
            }
        }
        let on_link = |target| match target {
            Target::OnLink(_) | Target::TunnelOnLink(_) => Some(target),
            _ => None,
        };
        let mut links: BTreeMap<Target, Vec<AdjacencyId>> = BTreeMap::new();
        for (target, id, _) in self.adjacencies(view.plan) {
            if let Some(link) = on_link(target) {
                links.entry(link).or_default().push(id);
            }
        }
        for (target, slot) in &self.targets {
            let (link, address) = match target {
                Target::Neighbour(port, address) => (Target::OnLink(*port), *address),
                Target::TunnelNeighbour(tunnel, address) => (Target::TunnelOnLink(*tunnel), *address),
                _ => continue,
            };
            for link in links.get(&link).into_iter().flatten() {
                adjacencies.set_neighbour(*link, address, slot.id);
            }
        }
        let View { config, plan } = view;
        let mut locals = Locals::default();
        plan.locals.iter().for_each(|(vrf, address)| locals.insert(*vrf, *address));
        let ports = plan.ports.iter().map(|port| self.finish_port(port, view)).collect();
        self.published.publish(Tables {
            generation: self.generation,
            hash: FlowHash::new(config.gateway.hash_seed, config.gateway.hash == HashMode::Symmetric),
            ports: Ports::new(ports),
            locals,
            tunnels: Tunnels::new((0..config.tunnels.len()).map(|at| view.tunnel(TunnelId(at as u16))).collect()),
            classifier: self.classifier.clone(),
            policing: policing(config),
            fib: Fib { v4: self.v4.reader(), v6: self.v6.reader() },
            adjacencies,
        })
    }

    fn finish_port(&self, port: &Port, view: &View<'_>) -> Port {
        let mut port = port.clone();
        if let PortKind::Tunnel { tunnel, into, ethernet } = &mut port.kind {
            let bridged = self.targets.get(&Target::Bridged(*tunnel));
            *into = bridged.map_or(AdjacencyId::NONE, |slot| slot.id);
            *ethernet = view.config.tunnels[tunnel.index()].kind.ethernet();
            port.mtu = view.tunnel_mtu(*tunnel);
        }
        port
    }

    /// Writes where these prefixes lead now: all at once, which is much cheaper than one by one; or, if they do not fit,
    /// those that do.
    fn write_all<'k, I: Iterator<Item = &'k (Vrf, IpNet)>>(
        &mut self,
        plan: &Plan,
        keys: impl Fn() -> I,
    ) -> Result<(), ResolveError> {
        let value = |vrf, prefix| plan.rib.chosen(vrf, prefix).map(|route| route.way.value());
        let v4 = keys().filter_map(|&(vrf, prefix)| {
            let IpNet::V4(net) = prefix else { return None };
            Some(Change { vrf: vrf.0, prefix: Prefix4::try_from(net).ok()?, value: value(vrf, prefix) })
        });
        let v6 = keys().filter_map(|&(vrf, prefix)| {
            let IpNet::V6(net) = prefix else { return None };
            Some(Change { vrf: vrf.0, prefix: Prefix6::try_from(net).ok()?, value: value(vrf, prefix) })
        });
        let (done4, done6) = (self.v4.apply(v4).is_ok(), self.v6.apply(v6).is_ok());
        let is_done = |prefix: &IpNet| if prefix.addr().is_ipv4() { done4 } else { done6 };
        let mut result = Ok(());
        for &(vrf, prefix) in keys().filter(|(_, prefix)| !is_done(prefix)) {
            if let Err(source) = self.write(vrf, prefix, value(vrf, prefix)) {
                self.unwritten.insert((vrf, prefix));
                result = Err(ResolveError::Table { prefix, source });
            }
        }
        result
    }

    fn write(&mut self, vrf: Vrf, prefix: IpNet, value: Option<Value>) -> Result<(), TableError> {
        match prefix {
            IpNet::V4(prefix) => {
                let Ok(prefix) = Prefix4::try_from(prefix) else { return Ok(()) };
                match value {
                    Some(value) => self.v4.insert(vrf.0, prefix, value).map(|_| ()),
                    None => self.v4.remove(vrf.0, prefix).map(|_| ()),
                }
            }
            IpNet::V6(prefix) => {
                let Ok(prefix) = Prefix6::try_from(prefix) else { return Ok(()) };
                match value {
                    Some(value) => self.v6.insert(vrf.0, prefix, value).map(|_| ()),
                    None => self.v6.remove(vrf.0, prefix).map(|_| ()),
                }
            }
        }
    }
}

/// The default routes that change: those to be written before other routes, and those after everybody has passed.
///
/// A lookup asks for the default route last, when it has found no other. So one that comes is there before others go.
/// One that goes stays while others come, until whoever has missed those has had its answer; but where nothing comes
/// it goes first, or an address whose own route goes too would fall to it.
fn defaults<'k, I: Iterator<Item = &'k (Vrf, IpNet)>>(plan: &Plan, keys: impl Fn() -> I) -> [Vec<(Vrf, IpNet)>; 2] {
    let comes = |&(vrf, prefix): &(Vrf, IpNet)| plan.rib.chosen(vrf, prefix).is_some();
    let (defaults, others) =
        (|| keys().filter(|key| key.1.prefix_len() == 0), || keys().filter(|key| key.1.prefix_len() != 0));
    if defaults().all(comes) {
        return [defaults().copied().collect(), Vec::new()];
    }
    let come: BTreeSet<_> =
        others().filter(|key| comes(key)).map(|(vrf, prefix)| (vrf, prefix.addr().is_ipv4())).collect();
    defaults().copied().partition(|key| comes(key) || !come.contains(&(&key.0, key.1.addr().is_ipv4()))).into()
}

/// Which policer each way in and each tenant has.
fn policing(config: &Config) -> Policing {
    let number = |policer: Option<usize>| policer.map(|policer| policer as u16);
    let interfaces = config.interfaces.iter().map(|interface| number(interface.policer)).collect();
    let tunnels = config.tunnels.iter().map(|tunnel| number(tunnel.policer)).collect();
    let tenants = shaping::tenants(config).map(|tenant| number(tenant?.policer)).collect();
    Policing::new(interfaces, tunnels, tenants)
}
