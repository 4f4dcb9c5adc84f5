//! Every route that control knows, of every source, and which one of each prefix is chosen (DESIGN §5.2).
//!
//! Where a route leads is a [`Way`], and equal ways are one: routes name it by a number, which is also what the FIB
//! holds. So a next hop that fails or moves is one entry in the workers' tables, however many routes lead there.

use super::plan::Target;
use crate::packet::{AdjacencyId, Family, Vrf};
use ipnet::IpNet;
use lpm::Value;
use prefix_trie::joint::map::JointPrefixMap;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// One target takes all.
    One(Target),
    /// Several share the flows, by weight. In order, each once.
    Several(Box<[(Target, u16)]>),
}

impl Way {
    /// Of targets with their weights; those of equal targets add up. Unreachable without any.
    pub fn of(targets: impl IntoIterator<Item = (Target, u16)>) -> Self {
        let mut sum: Vec<(Target, u16)> = Vec::new();
        for (target, weight) in targets {
            match sum.iter_mut().find(|(known, _)| *known == target) {
                Some((_, share)) => *share = share.saturating_add(weight),
                None => sum.push((target, weight)),
            }
        }
        sum.sort_unstable();
        match sum[..] {
            [] => Self::One(Target::Unreachable),
            [(target, _)] => Self::One(target),
            _ => Self::Several(sum.into()),
        }
    }

    /// Its targets and their weights.
    pub fn targets(&self) -> impl Iterator<Item = (Target, u16)> + '_ {
        let (one, several): (Option<Target>, &[(Target, u16)]) = match self {
            Self::One(target) => (Some(*target), &[]),
            Self::Several(targets) => (None, targets),
        };
        one.map(|target| (target, 1)).into_iter().chain(several.iter().copied())
    }
}

/// Number of a way, 1..=[`Value::MAX`]: the FIB's value, and the id of its adjacency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WayId(u16);

impl WayId {
    /// What the FIB holds.
    pub fn value(self) -> Value {
        Value::new(self.0).expect("ways are numbered as values are")
    }

    /// The adjacency that it becomes.
    pub const fn adjacency(self) -> AdjacencyId {
        AdjacencyId(self.0 as u32)
    }
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
    /// The kernel: the route's metric, and its table.
    Kernel(u32, u32),
}

impl Source {
    /// As operators know it.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.number()]
    }

    const NAMES: [&'static str; 4] = ["address", "static", "connected", "kernel"];

    const fn number(self) -> usize {
        match self {
            Self::Address => 0,
            Self::Static => 1,
            Self::Connected => 2,
            Self::Kernel(..) => 3,
        }
    }
}

/// One source's route of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who says so.
    pub source: Source,
    /// Where it leads.
    pub way: WayId,
}

/// The routes of a prefix: the chosen one, and those that wait for it to go.
#[derive(Debug)]
struct Entry {
    chosen: Route,
    others: Vec<Route>,
}

/// There are as many ways already as the FIB can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {} distinct next hops", Value::MAX)]
pub struct TooManyWays;

/// All routes of all VRFs.
#[derive(Debug, Default)]
pub struct Rib {
    vrfs: Vec<Table>,
    ways: Ways,
    changed: BTreeSet<(Vrf, IpNet)>,
}

#[derive(Debug, Default)]
struct Table {
    routes: JointPrefixMap<IpNet, Entry>,
    /// How many chosen routes are the kernel's to forward.
    kept: usize,
    /// How many chosen routes there are by family and by source.
    counts: [[usize; Source::NAMES.len()]; 2],
}

impl Rib {
    /// Adds a source's route, or changes it.
    ///
    /// # Errors
    ///
    /// [`TooManyWays`]; the routes are as before.
    pub fn set(&mut self, vrf: Vrf, prefix: IpNet, source: Source, way: &Way) -> Result<(), TooManyWays> {
        let route = Route { source, way: self.ways.take(way)? };
        if vrf.index() >= self.vrfs.len() {
            self.vrfs.resize_with(vrf.index() + 1, Table::default);
        }
        let table = &mut self.vrfs[vrf.index()];
        let Some(entry) = table.routes.get_mut(&prefix) else {
            table.routes.insert(prefix, Entry { chosen: route, others: Vec::new() });
            self.note(vrf, prefix, None, Some(route));
            return Ok(());
        };
        let before = entry.chosen;
        let known = std::iter::once(&mut entry.chosen).chain(&mut entry.others).find(|known| known.source == source);
        match known {
            Some(known) => self.ways.give_back(mem::replace(known, route).way),
            None => entry.others.push(route),
        }
        if let Some(best) = entry.others.iter_mut().find(|other| other.source < entry.chosen.source) {
            mem::swap(best, &mut entry.chosen);
        }
        let after = entry.chosen;
        self.note(vrf, prefix, Some(before), Some(after));
        Ok(())
    }

    /// Takes a source's route away, if it is there.
    pub fn unset(&mut self, vrf: Vrf, prefix: IpNet, source: Source) {
        let Some(table) = self.vrfs.get_mut(vrf.index()) else { return };
        let Some(entry) = table.routes.get_mut(&prefix) else { return };
        if let Some(at) = entry.others.iter().position(|other| other.source == source) {
            self.ways.give_back(entry.others.swap_remove(at).way);
            return;
        }
        if entry.chosen.source != source {
            return;
        }
        let before = entry.chosen;
        self.ways.give_back(before.way);
        let next = (0..entry.others.len()).min_by_key(|at| entry.others[*at].source);
        let after = next.map(|at| entry.others.swap_remove(at));
        match after {
            Some(after) => entry.chosen = after,
            None => {
                table.routes.remove(&prefix);
            }
        }
        self.note(vrf, prefix, Some(before), after);
    }

    /// What the choice of a prefix was and is.
    fn note(&mut self, vrf: Vrf, prefix: IpNet, before: Option<Route>, after: Option<Route>) {
        let kept = |route: Option<Route>| usize::from(route.is_some_and(|route| self.ways.is_kept(route.way)));
        let (gone, come) = (kept(before), kept(after));
        if let Some(table) = self.vrfs.get_mut(vrf.index()) {
            table.kept = table.kept + come - gone;
            let counts = &mut table.counts[usize::from(prefix.addr().is_ipv6())];
            if let Some(after) = after {
                counts[after.source.number()] += 1;
            }
            if let Some(before) = before {
                counts[before.source.number()] -= 1;
            }
        }
        if before.map(|route| route.way) != after.map(|route| route.way) {
            self.changed.insert((vrf, prefix));
        }
    }

    /// Takes all routes out, to be set again: what then differs from before is found by [`Self::end_renewal`].
    pub fn begin_renewal(&mut self) -> Former {
        Former(mem::take(&mut self.vrfs))
    }

    /// What was before and is not as it was has changed.
    pub fn end_renewal(&mut self, former: Former) {
        // Everything that was set since counts as changed so far: what is as it was is taken out again.
        for (at, table) in former.0.into_iter().enumerate() {
            let vrf = Vrf(at as u16);
            for (prefix, entry) in &table.routes {
                match self.chosen(vrf, prefix) {
                    Some(now) if now.way == entry.chosen.way => self.changed.remove(&(vrf, prefix)),
                    _ => self.changed.insert((vrf, prefix)),
                };
            }
            for entry in table.routes.values() {
                std::iter::once(&entry.chosen).chain(&entry.others).for_each(|route| self.ways.give_back(route.way));
            }
        }
    }

    /// The prefixes whose way changed since the last time.
    pub fn take_changed(&mut self) -> BTreeSet<(Vrf, IpNet)> {
        mem::take(&mut self.changed)
    }

    /// The chosen route of exactly this prefix.
    pub fn chosen(&self, vrf: Vrf, prefix: IpNet) -> Option<Route> {
        Some(self.vrfs.get(vrf.index())?.routes.get(&prefix)?.chosen)
    }

    /// The route for an address.
    pub fn lookup(&self, vrf: Vrf, address: IpAddr) -> Option<(IpNet, Route)> {
        let (prefix, entry) = self.vrfs.get(vrf.index())?.routes.get_lpm(&address.into())?;
        Some((prefix, entry.chosen))
    }

    /// The chosen routes of a VRF, each after those that cover it, IPv4 first.
    pub fn routes(&self, vrf: Vrf) -> impl Iterator<Item = (IpNet, Route)> + '_ {
        let table = self.vrfs.get(vrf.index());
        table.into_iter().flat_map(|table| table.routes.iter().map(|(prefix, entry)| (prefix, entry.chosen)))
    }

    /// Those behind `after` in that order, within a prefix where one is given.
    pub fn after(
        &self,
        vrf: Vrf,
        after: Option<IpNet>,
        within: Option<IpNet>,
    ) -> impl Iterator<Item = (IpNet, Route)> + '_ {
        let table = self.vrfs.get(vrf.index());
        table.into_iter().flat_map(move |table| {
            // Before all others stands the default route of IPv4.
            let first = IpNet::default();
            let routes = match (after, within) {
                (Some(after), _) => table.routes.iter_from(&after, false),
                (None, Some(within)) => table.routes.iter_from(&within, true),
                (None, None) => table.routes.iter_from(&first, true),
            };
            let inside = move |prefix: &IpNet| within.is_none_or(|within| within.contains(prefix));
            routes.map(|(prefix, entry)| (prefix, entry.chosen)).take_while(move |(prefix, _)| inside(prefix))
        })
    }

    /// How many VRFs may have routes.
    pub fn vrfs(&self) -> usize {
        self.vrfs.len()
    }

    /// How many prefixes a VRF has.
    pub fn len(&self, vrf: Vrf) -> usize {
        self.vrfs.get(vrf.index()).map_or(0, |table| table.routes.len())
    }

    /// How many prefixes a VRF has of each family and of each source that won: 8 numbers, kept as routes come and go.
    pub fn counts(&self, vrf: Vrf) -> impl Iterator<Item = (Family, &'static str, usize)> {
        let counts = self.vrfs.get(vrf.index()).map(|table| table.counts).unwrap_or_default();
        let families = [Family::V4, Family::V6].into_iter().zip(counts);
        families
            .flat_map(|(family, counts)| Source::NAMES.into_iter().zip(counts).map(move |(name, n)| (family, name, n)))
    }

    /// How many of them are the kernel's to forward.
    pub fn kept(&self, vrf: Vrf) -> usize {
        self.vrfs.get(vrf.index()).map_or(0, |table| table.kept)
    }

    /// The way of a number.
    pub fn way(&self, id: WayId) -> &Way {
        self.ways.get(id)
    }

    /// All ways in use.
    pub fn ways(&self) -> impl Iterator<Item = (WayId, &Way)> + '_ {
        self.ways.iter()
    }

    /// Whether there are ways that there were not when this was asked last.
    pub fn take_fresh(&mut self) -> bool {
        mem::take(&mut self.ways.fresh)
    }

    /// The ways that no route has any more. Their numbers are not used again before [`Self::release`].
    pub fn take_dead(&mut self) -> Vec<WayId> {
        mem::take(&mut self.ways.dead)
    }

    /// Nobody reads the numbers of these ways any more, unless a route has taken one up again. Returns which are free.
    pub fn release(&mut self, dead: Vec<WayId>) -> Vec<WayId> {
        dead.into_iter().filter(|id| self.ways.release(*id)).collect()
    }
}

/// Routes that are being renewed.
#[must_use = "its ways are in use until the renewal ends"]
pub struct Former(Vec<Table>);

/// Ways by number, counted by the routes that lead there.
#[derive(Debug, Default)]
struct Ways {
    ids: HashMap<Arc<Way>, WayId>,
    /// By number less one.
    slots: Vec<Option<Slot>>,
    free: Vec<WayId>,
    fresh: bool,
    dead: Vec<WayId>,
}

#[derive(Debug)]
struct Slot {
    way: Arc<Way>,
    routes: usize,
}

impl Ways {
    fn take(&mut self, way: &Way) -> Result<WayId, TooManyWays> {
        if let Some(&id) = self.ids.get(way) {
            if let Some(slot) = self.slot(id) {
                slot.routes += 1;
            }
            return Ok(id);
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.slots.len() < usize::from(Value::MAX) => {
                self.slots.push(None);
                WayId(self.slots.len() as u16)
            }
            None => return Err(TooManyWays),
        };
        let way = Arc::new(way.clone());
        self.ids.insert(Arc::clone(&way), id);
        self.slots[usize::from(id.0) - 1] = Some(Slot { way, routes: 1 });
        self.fresh = true;
        Ok(id)
    }

    fn slot(&mut self, id: WayId) -> Option<&mut Slot> {
        self.slots[usize::from(id.0) - 1].as_mut()
    }

    fn give_back(&mut self, id: WayId) {
        if let Some(slot) = self.slot(id) {
            slot.routes -= 1;
            if slot.routes == 0 {
                self.dead.push(id);
            }
        }
    }

    fn release(&mut self, id: WayId) -> bool {
        let place = &mut self.slots[usize::from(id.0) - 1];
        if place.as_ref().is_none_or(|slot| slot.routes != 0) {
            return false;
        }
        if let Some(slot) = place.take() {
            self.ids.remove(&*slot.way);
            self.free.push(id);
        }
        true
    }

    fn get(&self, id: WayId) -> &Way {
        const NOWHERE: &Way = &Way::One(Target::Unreachable);
        self.slots[usize::from(id.0) - 1].as_ref().map_or(NOWHERE, |slot| &slot.way)
    }

    fn is_kept(&self, id: WayId) -> bool {
        *self.get(id) == Way::One(Target::Kernel)
    }

    fn iter(&self) -> impl Iterator<Item = (WayId, &Way)> + '_ {
        let numbered = (1..).map(WayId).zip(&self.slots);
        numbered.filter_map(|(id, slot)| slot.as_ref().map(|slot| (id, &*slot.way)))
    }
}

#[cfg(test)]
mod tests;
