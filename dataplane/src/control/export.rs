//! Routes that Penstock keeps in the kernel's tables, under protocol number 80.
//!
//! They outlive a process that is killed, as tunnels' devices do and for the same reason: what belongs to a tunnel must
//! not leave in clear when nobody is there to encapsulate it. Which routes there should be, control says.
//!
//! [`Exports`] knows what is there from the mirror and writes what differs, so that its work is that of the change;
//! [`export`] asks the kernel and compares all.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Host, MirroredRoute, RouteKey};
use super::netlink::{self, Commander, ExportedRoute, PROTOCOL, RouteOrder, Target};

/// Metric of exported routes: before any that a routing daemon installs (1 is the least that
/// IPv6 has), since static routes come before mirrored ones.
pub const EXPORT_METRIC: u32 = 1;

/// What was written to the kernel.
#[derive(Debug, Default)]
pub struct Exported {
    /// Routes that were added or changed.
    pub set: Vec<RouteKey>,
    /// Routes that were removed.
    pub removed: Vec<RouteKey>,
    /// What could not be done; all else was. EEXIST where a route of somebody else's has the key,
    /// which is left alone.
    pub failed: Vec<(RouteKey, netlink::Error)>,
}

/// The exported routes as they should be, and what of that the kernel does not have yet.
///
/// Say what should be with [`set`](Self::set), [`remove`](Self::remove) or [`replace`](Self::replace), hand over what
/// the mirror reports with [`follow`](Self::follow), then [`write`](Self::write): that costs nothing when nothing is
/// due. Wants are kept where the kernel refuses them: [`retry`](Self::retry).
#[derive(Debug, Default)]
pub struct Exports {
    wanted: BTreeMap<RouteKey, Target>,
    /// Keys of which the kernel has a route of ours, as far as is known.
    present: BTreeSet<RouteKey>,
    /// Keys where the kernel may have something else than what is wanted.
    due: BTreeSet<RouteKey>,
    /// Keys that the kernel refused.
    refused: BTreeSet<RouteKey>,
}

impl Exports {
    /// Takes over what an earlier run left: it goes with the first [`write`](Self::write) unless it is wanted by then.
    pub fn adopt(host: &Host) -> Self {
        let ours = host.routes.iter().filter(|(_, route)| is_ours(route));
        let present: BTreeSet<_> = ours.map(|(key, _)| *key).collect();
        Self { due: present.clone(), present, ..Self::default() }
    }

    /// Whether there is none, neither wanted nor left.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.present.is_empty()
    }

    /// Wants a route, in the place of the one with that key.
    pub fn set(&mut self, route: ExportedRoute) {
        let key = normal(route.key);
        if self.wanted.insert(key, route.target) != Some(route.target) {
            self.due.insert(key);
        }
    }

    /// Wants no route of that key any more.
    pub fn remove(&mut self, key: RouteKey) {
        let key = normal(key);
        if self.wanted.remove(&key).is_some() {
            self.due.insert(key);
        }
    }

    /// Wants these routes and no others. Costs a comparison each, also when nothing changed.
    pub fn replace(&mut self, wanted: impl IntoIterator<Item = ExportedRoute>) {
        let wanted: BTreeMap<_, _> = wanted.into_iter().map(|route| (normal(route.key), route.target)).collect();
        let gone = self.wanted.keys().filter(|key| !wanted.contains_key(key));
        let other = wanted.iter().filter(|(key, target)| self.wanted.get(key) != Some(target)).map(|(key, _)| key);
        self.due.extend(gone.chain(other));
        self.wanted = wanted;
    }

    /// Looks at what `changed` in the kernel, by whoever's hand: the kernel takes IPv4 routes away with their link.
    pub fn follow(&mut self, changed: &BTreeSet<RouteKey>, host: &Host) {
        for key in changed {
            let route = host.route(key);
            let ours = route.filter(|route| is_ours(route));
            if ours.is_some() {
                self.present.insert(*key);
            } else {
                self.present.remove(key);
            }
            let is_so = match (self.wanted.get(key), ours) {
                (Some(target), Some(route)) => target.is_of(route),
                (None, None) => true,
                // Somebody else's is in the way, which is known.
                (Some(_), None) if route.is_some() && self.refused.contains(key) => true,
                _ => false,
            };
            if is_so {
                self.due.remove(key);
            } else {
                self.due.insert(*key);
            }
        }
    }

    /// Has what the kernel refused tried again: due when a link has come up.
    pub fn retry(&mut self) {
        self.due.append(&mut self.refused);
    }

    /// Writes what is due: sets first, then removes, so that no packet finds neither the old nor the new.
    ///
    /// # Errors
    /// [`netlink::Error::Socket`]; all of it is then still due. What fails for one route is in [`Exported::failed`].
    pub fn write(&mut self, host: &Host, commander: &mut Commander) -> Result<Exported, netlink::Error> {
        let mut orders = Vec::with_capacity(self.due.len());
        let mut deletions = Vec::new();
        for &key in &self.due {
            match self.wanted.get(&key) {
                Some(&target) => orders.push(order(ExportedRoute { key, target }, self.present.contains(&key))),
                None => deletions.push(RouteOrder::Delete(key)),
            }
        }
        orders.append(&mut deletions);
        let exported = carry_out(&orders, commander)?;
        let mut due = std::mem::take(&mut self.due);
        for (key, error) in &exported.failed {
            due.remove(key);
            let taken = error.errno() == Some(libc::EEXIST);
            if taken && host.route(key).is_none_or(is_ours) {
                // The mirror has yet to hear of what is there: by then it is known whose it is.
                self.due.insert(*key);
            } else {
                self.refused.insert(*key);
            }
        }
        for key in due {
            self.refused.remove(&key);
            if self.wanted.contains_key(&key) {
                self.present.insert(key);
            } else {
                self.present.remove(&key);
            }
        }
        Ok(exported)
    }
}

/// Makes the kernel's routes of protocol 80 exactly those that are `wanted`: sets first,
/// then removes, so that no packet finds neither the old nor the new. Touches nothing that is so
/// already; safe to repeat. With nothing wanted, a clean stop.
///
/// # Errors
/// When the kernel's routes cannot be read; what fails for one route is in [`Exported::failed`].
pub fn export(
    wanted: impl IntoIterator<Item = ExportedRoute>,
    commander: &mut Commander,
) -> Result<Exported, netlink::Error> {
    let mut present: BTreeMap<RouteKey, _> = commander.exported_routes()?.into_iter().collect();
    let mut orders = Vec::new();
    for route in wanted {
        let route = ExportedRoute { key: normal(route.key), ..route };
        match present.remove(&route.key) {
            Some(there) if route.target.is_of(&there) => {}
            there => orders.push(order(route, there.is_some())),
        }
    }
    orders.extend(present.into_keys().map(RouteOrder::Delete));
    carry_out(&orders, commander)
}

fn is_ours(route: &MirroredRoute) -> bool {
    route.protocol == PROTOCOL
}

/// What is ours may be replaced.
fn order(route: ExportedRoute, ours_is_there: bool) -> RouteOrder {
    if ours_is_there { RouteOrder::Replace(route) } else { RouteOrder::Add(route) }
}

fn carry_out(orders: &[RouteOrder], commander: &mut Commander) -> Result<Exported, netlink::Error> {
    let mut exported = Exported::default();
    let mut refused = commander.write_routes(orders)?.into_iter().peekable();
    for (at, order) in orders.iter().enumerate() {
        let key = order.key();
        match (refused.next_if(|(which, _)| *which == at), order) {
            (Some((_, error)), _) => exported.failed.push((key, error)),
            (None, RouteOrder::Delete(_)) => exported.removed.push(key),
            (None, _) => exported.set.push(key),
        }
    }
    Ok(exported)
}

/// The key that the kernel makes of one: IPv6 has no metric 0.
fn normal(key: RouteKey) -> RouteKey {
    if key.prefix.addr().is_ipv6() && key.metric == 0 { RouteKey { metric: IPV6_DEFAULT_METRIC, ..key } } else { key }
}

/// What the kernel makes of metric 0 in IPv6 (IP6_RT_PRIO_USER).
const IPV6_DEFAULT_METRIC: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::super::devices::{Device, Spec};
    use super::super::host::TunKind;
    use super::super::netlink::Mirror;
    use super::super::netlink::tests::{in_namespace, ip};
    use super::*;
    use std::sync::Arc;

    fn device(commander: &mut Commander) -> Device {
        let name = "aws-a".to_owned();
        let spec = Spec { name, kind: TunKind::Tun, mac: None, mtu: 1450, ipv6: true, addresses: Vec::new() };
        Device::establish(&spec, commander).expect("free")
    }

    fn route(prefix: &str, table: u32, target: Target) -> ExportedRoute {
        ExportedRoute {
            key: RouteKey { table, prefix: prefix.parse().expect("a prefix"), tos: 0, metric: EXPORT_METRIC },
            target,
        }
    }

    fn of_ours() -> BTreeMap<RouteKey, Arc<MirroredRoute>> {
        let mirror = Mirror::open().expect("in the namespace");
        let mut routes = mirror.host().routes.clone();
        routes.retain(|_, route| route.protocol == PROTOCOL);
        routes
    }

    #[test]
    fn exported_routes_are_exactly_those_wanted() {
        in_namespace(|| {
            let mut commander = Commander::open().expect("in the namespace");
            let device = device(&mut commander);
            let out = Target::Device(device.ifindex());
            ip("route add unreachable 203.0.113.0/24 metric 9 proto static");
            let mut wanted = vec![
                route("198.51.100.0/24", 254, out),
                route("198.18.0.0/15", 1001, Target::Unreachable),
                route("2001:db8:1::/48", 254, out),
                route("2001:db8:2::/48", 1001, Target::Blackhole),
                route("0.0.0.0/0", 1001, out),
            ];
            let exported = export(wanted.clone(), &mut commander).expect("readable");
            assert!(exported.failed.is_empty(), "{:?}", exported.failed);
            assert_eq!((exported.set.len(), exported.removed.len()), (5, 0));
            let present = of_ours();
            assert_eq!(present.len(), 5);
            for route in &wanted {
                assert!(route.target.is_of(&present[&route.key]), "{route:?}");
            }

            // Nothing to do.
            let exported = export(wanted.clone(), &mut commander).expect("readable");
            assert!(exported.set.is_empty() && exported.removed.is_empty());

            // One changed, one gone, one new, and one that somebody added under our number.
            ip("route add unreachable 192.0.2.128/25 proto 80");
            wanted[0].target = Target::Unreachable;
            wanted[2].target = Target::Unreachable;
            wanted.pop();
            wanted.push(route("2001:db8:3::/48", 254, out));
            let exported = export(wanted.clone(), &mut commander).expect("readable");
            assert!(exported.failed.is_empty(), "{:?}", exported.failed);
            assert_eq!((exported.set.len(), exported.removed.len()), (3, 2));
            let present = of_ours();
            assert_eq!(present.len(), 5);
            for route in &wanted {
                assert!(route.target.is_of(&present[&route.key]), "{route:?}");
            }

            // The kernel takes IPv4 routes away with the link, and we put them back.
            ip("link set aws-a down");
            ip("link set aws-a up");
            wanted.push(route("198.51.100.128/25", 254, out));
            export(wanted.clone(), &mut commander).expect("readable");
            assert_eq!(of_ours().len(), 6);

            let exported = export([], &mut commander).expect("readable");
            assert!(exported.failed.is_empty(), "{:?}", exported.failed);
            assert_eq!(exported.removed.len(), 6);
            assert!(of_ours().is_empty());
            let mirror = Mirror::open().expect("in the namespace");
            let foreign = RouteKey { metric: 9, ..route("203.0.113.0/24", 254, out).key };
            assert!(mirror.host().routes.contains_key(&foreign));
        });
    }

    #[test]
    fn a_route_of_somebody_elses_is_not_overwritten_and_the_others_are_exported() {
        in_namespace(|| {
            ip("link set lo up");
            ip("route add 198.51.100.0/24 dev lo proto static metric 1");
            let mut commander = Commander::open().expect("in the namespace");
            let wanted =
                [route("198.51.100.0/24", 254, Target::Unreachable), route("203.0.113.0/24", 254, Target::Unreachable)];
            let exported = export(wanted, &mut commander).expect("readable");
            assert_eq!(exported.set, [wanted[1].key]);
            let [(key, error)] = &exported.failed[..] else { panic!("{:?}", exported.failed) };
            assert_eq!(*key, wanted[0].key);
            assert_eq!(
                error.to_string(),
                "cannot add the route unreachable 198.51.100.0/24 in table 254: File exists (os error 17)"
            );
            assert_eq!(of_ours().len(), 1);
        });
    }

    /// Writes until nothing is due, as the control loop does; what was written.
    fn settle(exports: &mut Exports, mirror: &mut Mirror, commander: &mut Commander) -> Exported {
        let mut all = Exported::default();
        loop {
            let changes = mirror.poll().expect("the kernel answers");
            exports.follow(&changes.routes, mirror.host());
            let mut done = exports.write(mirror.host(), commander).expect("the kernel answers");
            let quiet = done.set.is_empty() && done.removed.is_empty() && changes.is_empty();
            all.set.append(&mut done.set);
            all.removed.append(&mut done.removed);
            all.failed.append(&mut done.failed);
            if quiet && !mirror.is_resynchronising() {
                return all;
            }
        }
    }

    #[test]
    fn exports_are_written_once_follow_every_change_and_come_back_when_the_kernel_loses_them() {
        in_namespace(|| {
            let mut commander = Commander::open().expect("in the namespace");
            let device = device(&mut commander);
            let out = Target::Device(device.ifindex());
            // Left by an earlier run.
            ip("route add unreachable 192.0.2.128/25 proto 80");
            ip("route add unreachable 198.51.100.0/24 metric 1 proto 80");
            let mut mirror = Mirror::open().expect("in the namespace");
            let mut exports = Exports::adopt(mirror.host());
            let wanted = [
                route("198.51.100.0/24", 254, out),
                route("203.0.113.0/24", 254, out),
                ExportedRoute {
                    key: RouteKey { metric: 0, ..route("2001:db8:1::/48", 254, out).key },
                    target: Target::Unreachable,
                },
            ];
            exports.replace(wanted);
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert!(done.failed.is_empty(), "{:?}", done.failed);
            assert_eq!((done.set.len(), done.removed.len()), (3, 1));
            let present = of_ours();
            assert_eq!(present.len(), 3);
            assert!(wanted[..2].iter().all(|route| route.target.is_of(&present[&route.key])), "{present:?}");

            // Nothing changed, nothing to do; not for the routes' own events either.
            exports.replace(wanted);
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert_eq!((done.set.len(), done.removed.len()), (0, 0));

            exports.set(route("203.0.113.0/24", 254, Target::Blackhole));
            exports.remove(wanted[2].key);
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert_eq!((done.set, done.removed.len()), (vec![wanted[1].key], 1));

            // Gone with the link and refused without it, in one word each; back with it.
            ip("link set aws-a down");
            let done = settle(&mut exports, &mut mirror, &mut commander);
            let failed: Vec<_> = done.failed.iter().map(|(key, _)| *key).collect();
            assert_eq!(failed, [wanted[0].key]);
            assert!(settle(&mut exports, &mut mirror, &mut commander).failed.is_empty());
            ip("link set aws-a up");
            exports.retry();
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert_eq!((done.set, done.failed.len()), (vec![wanted[0].key], 0));

            exports.replace([]);
            settle(&mut exports, &mut mirror, &mut commander);
            assert!(of_ours().is_empty());
        });
    }

    #[test]
    fn an_export_takes_the_place_of_somebody_elses_route_when_that_goes() {
        in_namespace(|| {
            ip("link set lo up");
            ip("route add 198.51.100.0/24 dev lo proto static metric 1");
            let mut commander = Commander::open().expect("in the namespace");
            let mut mirror = Mirror::open().expect("in the namespace");
            let mut exports = Exports::adopt(mirror.host());
            let wanted = route("198.51.100.0/24", 254, Target::Unreachable);
            exports.set(wanted);
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert_eq!(done.failed.len(), 1, "{:?}", done.failed);
            // Whatever becomes of it meanwhile.
            ip("route change 198.51.100.0/24 dev lo proto bgp metric 1");
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert!(done.failed.is_empty() && done.set.is_empty(), "{done:?}");
            ip("route delete 198.51.100.0/24 dev lo metric 1");
            let done = settle(&mut exports, &mut mirror, &mut commander);
            assert_eq!(done.set, [wanted.key]);
            assert_eq!(of_ours().len(), 1);
        });
    }

    #[test]
    fn many_routes_are_exported_with_the_refused_ones_named() {
        in_namespace(|| {
            ip("link set lo up");
            let prefix = |i: u32| format!("198.{}.{}.{}/32", 18 + (i >> 16), i >> 8 & 255, i & 255);
            // In the first batch, at its end, and in the last.
            for i in [3, 1023, 9_999] {
                ip(&format!("route add {} dev lo metric 1", prefix(i)));
            }
            let mut commander = Commander::open().expect("in the namespace");
            let wanted: Vec<_> = (0..10_000).map(|i| route(&prefix(i), 254, Target::Unreachable)).collect();
            let exported = export(wanted.clone(), &mut commander).expect("readable");
            let failed: Vec<_> = exported.failed.iter().map(|(key, _)| *key).collect();
            assert_eq!(failed, [3, 1023, 9_999].map(|i| wanted[i].key));
            assert_eq!(exported.set.len(), 10_000 - 3);
            assert_eq!(of_ours().len(), 10_000 - 3);
            // Every one refused: a thousand answers come at once.
            let orders: Vec<_> = wanted.iter().map(|route| RouteOrder::Add(*route)).collect();
            assert_eq!(commander.write_routes(&orders).expect("there is room for them").len(), 10_000);
            assert_eq!(export([], &mut commander).expect("readable").removed.len(), 10_000 - 3);
            assert!(of_ours().is_empty());
        });
    }

    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_hundred_thousand_exports() {
        use std::time::Instant;
        in_namespace(|| {
            let mut commander = Commander::open().expect("in the namespace");
            let device = device(&mut commander);
            let out = Target::Device(device.ifindex());
            let prefix = |i: u32| format!("10.{}.{}.{}/32", i >> 16, i >> 8 & 255, i & 255);
            let wanted: Vec<_> = (0..100_000).map(|i| route(&prefix(i), 254, out)).collect();
            let mut mirror = Mirror::open().expect("in the namespace");
            let mut exports = Exports::adopt(mirror.host());
            let mut timed = |what: &str, work: &mut dyn FnMut(&mut Exports, &mut Mirror, &mut Commander)| {
                let start = Instant::now();
                work(&mut exports, &mut mirror, &mut commander);
                eprintln!("{what}: {:?}", start.elapsed());
            };
            timed("100000 wanted", &mut |exports, _, _| exports.replace(wanted.clone()));
            timed("written", &mut |exports, mirror, commander| {
                assert_eq!(exports.write(mirror.host(), commander).expect("allowed").set.len(), 100_000);
            });
            timed("their events followed", &mut |exports, mirror, commander| {
                assert!(settle(exports, mirror, commander).set.is_empty());
            });
            timed("nothing due", &mut |exports, mirror, commander| {
                assert!(exports.write(mirror.host(), commander).expect("allowed").set.is_empty());
            });
            timed("the same wanted again", &mut |exports, _, _| exports.replace(wanted.clone()));
            timed("compared with the kernel's", &mut |_, _, commander| {
                assert!(export(wanted.clone(), commander).expect("readable").set.is_empty());
            });
            timed("removed", &mut |_, _, commander| {
                assert_eq!(export([], commander).expect("readable").removed.len(), 100_000);
            });
        });
    }
}
