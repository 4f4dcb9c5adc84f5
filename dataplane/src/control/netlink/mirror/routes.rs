//! Routes and the next-hop objects that they may lead by.
//!
//! The kernel takes routes away with their next-hop object, and changes them with it, without an event of their own
//! (`net.ipv4.nexthop_compat_mode` = 0), or without any for IPv4. So a route by an object is as the object is now,
//! whatever its own message said.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};

use super::dump::Part;
use crate::control::host::{IfIndex, KernelHop, MirroredRoute, RouteKey, RouteKind};
use crate::control::netlink::route::{Found, NextHop};

type Live = BTreeMap<RouteKey, Arc<MirroredRoute>>;

/// What is known of routes beside the routes.
#[derive(Default)]
pub(super) struct Routes {
    objects: BTreeMap<u32, NextHop>,
    /// Objects that are not as routes have them.
    replaced: BTreeSet<u32>,
    /// What routes are shared from: of IPv4, of IPv6.
    shared: [Shared; 2],
    /// Keys that the kernel has more than one route for; the one that it uses is mirrored.
    shadowed: BTreeSet<RouteKey>,
    /// Links that were down and led nowhere, so that routes get hops back when they come up.
    dead: BTreeSet<IfIndex>,
    /// What changed since it was last told of, as it was then.
    before: BTreeMap<RouteKey, Option<Arc<MirroredRoute>>>,
}

/// What an event leaves to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Certain,
    /// It adds to or takes from what is mirrored, and so is as right as that.
    Partial,
    /// Which of several routes it means.
    Unclear,
}

impl Routes {
    /// The keys whose route is not what it was when this was asked before.
    pub(super) fn changed(&mut self, live: &Live) -> BTreeSet<RouteKey> {
        let before = std::mem::take(&mut self.before);
        before.into_iter().filter(|(key, before)| live.get(key) != before.as_ref()).map(|(key, _)| key).collect()
    }

    /// A route as it was listed, not yet by its object.
    pub(super) fn share(&mut self, found: &Found) -> Arc<MirroredRoute> {
        self.dead.extend(&found.dead);
        self.shared[family(&found.key)].share(&found.route)
    }

    /// An event says that there is such a route; `flags` are its message's.
    pub(super) fn is_now(&mut self, live: &mut Live, found: Found, flags: u16) -> Verdict {
        self.dead.extend(&found.dead);
        let key = found.key;
        let route = self.resolved(found.route);
        let Some(before) = live.get(&key) else {
            self.put(live, key, &route);
            return Verdict::Certain;
        };
        if **before == route {
            return Verdict::Certain;
        }
        let replaces = flags & NLM_F_REPLACE != 0;
        if joins(&key, before, &route) {
            let extends = before.kind == route.kind && contains(&route, before);
            if replaces {
                // Which of the routes without a gateway was replaced, it does not say.
                let clear = extends || before.next_hops.iter().all(|hop| hop.gateway.is_some());
                self.put(live, key, &route);
                return if clear { Verdict::Certain } else { Verdict::Unclear };
            }
            let route = join(before, &route);
            self.put(live, key, &route);
            return if extends { Verdict::Certain } else { Verdict::Partial };
        }
        if !replaces {
            self.shadowed.insert(key);
            // Appended behind the one in use, as always in IPv6, or put before it.
            if flags & NLM_F_APPEND != 0 || key.prefix.addr().is_ipv6() {
                return Verdict::Certain;
            }
        }
        self.put(live, key, &route);
        Verdict::Certain
    }

    /// An event says that there is no such route any more.
    pub(super) fn is_gone(&mut self, live: &mut Live, found: Found) -> Verdict {
        let key = found.key;
        let route = self.resolved(found.route);
        let Some(before) = live.get(&key) else {
            return Verdict::Certain;
        };
        if joins(&key, before, &route) && !route.next_hops.is_empty() {
            let hops = before.next_hops.iter().filter(|hop| !same_hop(&route, hop)).copied();
            let left = MirroredRoute { next_hops: hops.collect(), ..before.as_ref().clone() };
            if !left.next_hops.is_empty() {
                self.put(live, key, &left);
                return Verdict::Partial;
            }
        }
        let mut verdict = Verdict::Certain;
        if self.shadowed.contains(&key) {
            // Whether it was the one in use, and which comes after it, it does not say.
            verdict = Verdict::Unclear;
            if **before != route {
                return verdict;
            }
        }
        self.take(live, key);
        verdict
    }

    /// A dump has listed all routes of one part; what events `told` of stands. Without what is neither, if `sweep`
    /// says so.
    pub(super) fn are_now(
        &mut self,
        live: &mut Live,
        part: Part,
        mut listed: Vec<(RouteKey, Arc<MirroredRoute>)>,
        told: &BTreeSet<RouteKey>,
        sweep: bool,
    ) {
        self.resolve_all(&mut listed);
        // Stable: the kernel lists routes of one key in the order in which it looks at them.
        listed.sort_by_key(|(key, _)| *key);
        self.shadowed.retain(|key| Part::of_route(key) != part || told.contains(key));
        listed.dedup_by(|(key, more), (of, first)| {
            if key != of {
                return false;
            }
            if joins(key, first, more) {
                *first = self.shared[family(key)].share(&join(first, more));
            } else {
                self.shadowed.insert(*key);
            }
            true
        });
        listed.retain(|(key, _)| !told.contains(key));

        // Both are in order.
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut listed = listed.into_iter().peekable();
        for (key, route) in live.iter().filter(|(key, _)| Part::of_route(key) == part) {
            while let Some(missing) = listed.next_if(|(listed, _)| listed < key) {
                new.push(missing);
            }
            match listed.next_if(|(listed, _)| listed == key) {
                Some((_, listed)) if listed == *route => {}
                Some(other) => new.push(other),
                None if sweep && !told.contains(key) => gone.push(*key),
                None => {}
            }
        }
        new.extend(listed);
        gone.into_iter().for_each(|key| self.take(live, key));
        if new.len() <= live.len() {
            new.into_iter().for_each(|(key, route)| self.put_shared(live, key, route));
            return;
        }
        // The first list: a map is built of what is in order in a fraction of the time.
        let mut before: BTreeMap<_, _> = new.iter().map(|(key, _)| (*key, live.get(key).cloned())).collect();
        before.append(&mut self.before);
        self.before = before;
        live.append(&mut new.into_iter().collect());
    }

    /// The numbers of all next-hop objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = u32> {
        self.objects.keys().copied()
    }

    /// There is such a next-hop object. Routes are by it once [`follow_objects`](Self::follow_objects) has run.
    pub(super) fn object_is(&mut self, id: u32, object: NextHop) {
        if self.objects.get(&id) != Some(&object) {
            self.objects.insert(id, object);
            self.replaced.insert(id);
        }
    }

    /// There are no such next-hop objects any more, and so no routes by them. Whether IPv4 routes may now show that
    /// stood behind those.
    pub(super) fn objects_gone(&mut self, live: &mut Live, ids: &BTreeSet<u32>) -> bool {
        for id in ids {
            self.objects.remove(id);
            // Groups are without it until the kernel says so itself.
            self.replaced.insert(*id);
        }
        let by_them = |route: &MirroredRoute| route.next_hop_id.is_some_and(|id| ids.contains(&id));
        if !self.shared.iter().any(|shared| shared.used().any(|route| by_them(route))) {
            return false;
        }
        let gone: Vec<_> = live.iter().filter(|(_, route)| by_them(route)).map(|(key, _)| *key).collect();
        let shown = gone.iter().any(|key| self.shadowed.contains(key));
        gone.into_iter().for_each(|key| self.take(live, key));
        shown
    }

    /// Makes routes what their next-hop objects are.
    pub(super) fn follow_objects(&mut self, live: &mut Live) {
        let mut replaced = std::mem::take(&mut self.replaced);
        if replaced.is_empty() {
            return;
        }
        let groups = self.objects.iter().filter(|(_, object)| match object {
            NextHop::Group(members) => members.iter().any(|(id, _)| replaced.contains(id)),
            _ => false,
        });
        let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
        replaced.extend(groups);
        let mut moved = HashMap::new();
        for family in 0..self.shared.len() {
            let by_them = |route: &&Arc<MirroredRoute>| route.next_hop_id.is_some_and(|id| replaced.contains(&id));
            let old: Vec<_> = self.shared[family].used().filter(by_them).map(Arc::clone).collect();
            for old in old {
                let new = self.resolved(old.as_ref().clone());
                if new != *old {
                    moved.insert(Arc::as_ptr(&old), self.shared[family].share(&new));
                }
            }
        }
        if moved.is_empty() {
            return;
        }
        for (key, route) in live.iter_mut().filter(|(_, route)| route.next_hop_id.is_some()) {
            if let Some(new) = moved.get(&Arc::as_ptr(route)) {
                let before = std::mem::replace(route, Arc::clone(new));
                self.before.entry(*key).or_insert(Some(before));
            }
        }
    }

    /// Which parts have a route of that sort.
    pub(super) fn parts_of(&self, sort: impl Fn(&MirroredRoute) -> bool) -> BTreeSet<Part> {
        let parts = [Part::Ipv4Routes, Part::Ipv6Routes].into_iter().zip(&self.shared);
        parts.filter(|(_, shared)| shared.used().any(|route| sort(route))).map(|(part, _)| part).collect()
    }

    /// Whether a next-hop object leaves by one of the links.
    pub(super) fn objects_leave_by(&self, links: &BTreeSet<IfIndex>) -> bool {
        self.objects.values().any(|object| match object {
            NextHop::Single(hop) => leaves_by(std::slice::from_ref(hop), links),
            NextHop::Dead | NextHop::Blackhole | NextHop::Group(_) => false,
        })
    }

    /// Whether routes may have got hops back that they had lost, now that a link is up.
    pub(super) fn revives(&mut self, link: IfIndex) -> bool {
        self.dead.remove(&link)
    }

    /// The same route, by its object as that is now.
    fn resolved(&self, route: MirroredRoute) -> MirroredRoute {
        let by_object = route.next_hop_id.filter(|_| matches!(route.kind, RouteKind::Unicast | RouteKind::Blackhole));
        // The object of a route may be told of after the route.
        match by_object.and_then(|id| self.hops(id)) {
            Some((kind, next_hops)) => MirroredRoute { kind, next_hops, ..route },
            None => route,
        }
    }

    fn hops(&self, id: u32) -> Option<(RouteKind, Vec<KernelHop>)> {
        Some(match self.objects.get(&id)? {
            NextHop::Single(hop) => (RouteKind::Unicast, vec![*hop]),
            NextHop::Dead => (RouteKind::Unicast, Vec::new()),
            NextHop::Blackhole => (RouteKind::Blackhole, Vec::new()),
            NextHop::Group(members) => {
                // A group is of single ones, or of one blackhole alone.
                let members = || members.iter().filter_map(|(id, weight)| Some((self.objects.get(id)?, *weight)));
                let hops = members().filter_map(|(object, weight)| match object {
                    NextHop::Single(hop) => Some(KernelHop { weight, ..*hop }),
                    _ => None,
                });
                let blackhole = members().any(|(object, _)| *object == NextHop::Blackhole);
                (if blackhole { RouteKind::Blackhole } else { RouteKind::Unicast }, hops.collect())
            }
        })
    }

    fn resolve_all(&mut self, listed: &mut [(RouteKey, Arc<MirroredRoute>)]) {
        // The same again and again.
        let mut last: Option<(Arc<MirroredRoute>, Arc<MirroredRoute>)> = None;
        for (key, route) in listed.iter_mut().filter(|(_, route)| route.next_hop_id.is_some()) {
            let resolved = match last.take() {
                Some((from, to)) if Arc::ptr_eq(&from, route) => to,
                _ => {
                    let resolved = self.resolved(route.as_ref().clone());
                    self.shared[family(key)].share(&resolved)
                }
            };
            last = Some((std::mem::replace(route, Arc::clone(&resolved)), resolved));
        }
    }

    fn put(&mut self, live: &mut Live, key: RouteKey, route: &MirroredRoute) {
        let route = self.shared[family(&key)].share(route);
        self.put_shared(live, key, route);
    }

    fn put_shared(&mut self, live: &mut Live, key: RouteKey, route: Arc<MirroredRoute>) {
        let before = live.insert(key, route);
        self.before.entry(key).or_insert(before);
    }

    fn take(&mut self, live: &mut Live, key: RouteKey) {
        let before = live.remove(&key);
        self.before.entry(key).or_insert(before);
    }
}

/// One of each that routes have in common.
#[derive(Default)]
struct Shared {
    known: HashSet<Arc<MirroredRoute>>,
    /// How many there may be before those that no route has any more are thrown out.
    enough: usize,
}

impl Shared {
    fn share(&mut self, route: &MirroredRoute) -> Arc<MirroredRoute> {
        if let Some(known) = self.known.get(route) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.enough {
            self.known.retain(|route| Arc::strong_count(route) > 1);
            self.enough = (self.known.len() * 2).max(LEAST_SHARED);
        }
        let route = Arc::new(route.clone());
        self.known.insert(Arc::clone(&route));
        route
    }

    /// Those that a route has, and perhaps some that one had a moment ago.
    fn used(&self) -> impl Iterator<Item = &Arc<MirroredRoute>> {
        self.known.iter().filter(|route| Arc::strong_count(route) > 1)
    }
}

const LEAST_SHARED: usize = 1024;

fn family(key: &RouteKey) -> usize {
    usize::from(key.prefix.addr().is_ipv6())
}

pub(super) fn leaves_by(hops: &[KernelHop], links: &BTreeSet<IfIndex>) -> bool {
    hops.iter().any(|hop| hop.ifindex.is_some_and(|index| links.contains(&index)))
}

/// Whether two routes of one key are mirrored as one: IPv6 has several where they differ in their device, and so it has
/// them by next hops of their own.
fn joins(key: &RouteKey, left: &MirroredRoute, right: &MirroredRoute) -> bool {
    key.prefix.addr().is_ipv6() && left.next_hop_id.is_none() && right.next_hop_id.is_none()
}

/// Both as one with all next hops; what they differ in is the newer's.
fn join(route: &MirroredRoute, more: &MirroredRoute) -> MirroredRoute {
    let mut joined = more.clone();
    if route.kind == more.kind {
        joined.next_hops.clone_from(&route.next_hops);
        for hop in &more.next_hops {
            match joined.next_hops.iter_mut().find(|known| same_way(known, hop)) {
                Some(known) => *known = *hop,
                None => joined.next_hops.push(*hop),
            }
        }
    }
    joined
}

fn same_way(left: &KernelHop, right: &KernelHop) -> bool {
    left.ifindex == right.ifindex && left.gateway == right.gateway
}

fn same_hop(route: &MirroredRoute, hop: &KernelHop) -> bool {
    route.next_hops.iter().any(|other| same_way(other, hop))
}

/// Whether `route` has all next hops of `other`.
fn contains(route: &MirroredRoute, other: &MirroredRoute) -> bool {
    other.next_hops.iter().all(|hop| same_hop(route, hop))
}
