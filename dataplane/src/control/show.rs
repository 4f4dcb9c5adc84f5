//! What `show` tells: gathered here in the gateway, laid out in tables by the command.

use super::host::Host;
use super::plan::{Plan, Target};
use super::ports::{Attached, Interfaces};
use super::resolve::Resolver;
use super::rib::Route;
use super::server::{Question, RouteQuery};
use super::shaping;
use super::workers::Team;
use super::xdp::{Mode, Xdp};
use crate::config::{Config, Fallback};
use crate::packet::{PortId, TunnelId, Vrf};
use crate::qos::ClassReport;
use crate::qos::policer::{self, Colour};
use crate::replay::Balance;
use crate::stats::{CountTotals, Page, PortTotals, Totals, TunnelTotals};
use crate::tables::{BUCKETS, PortKind, Resolution};
use crate::tunnel::Kind;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use steering::Verdict;

/// Routes in one answer: a full table must not keep the control loop from its work.
const PAGE: usize = 4096;

/// Everything that answers come from.
pub struct View<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// The plan in force.
    pub plan: &'a Plan,
    /// The kernel's tables.
    pub host: &'a Host,
    /// Adjacencies.
    pub resolver: &'a Resolver,
    /// Attached interfaces.
    pub interfaces: &'a Interfaces,
    /// Steering's counters.
    pub xdp: &'a Xdp,
    /// The workers' counters.
    pub pages: Vec<Arc<Page>>,
    /// The workers, whose schedulers are asked.
    pub team: RefCell<&'a mut Team>,
    /// Since the start.
    pub uptime: Duration,
}

impl View<'_> {
    /// The answer to a question.
    pub fn answer(&self, question: Question) -> Value {
        match question {
            Question::Interfaces => self.interfaces(),
            Question::Tunnels => self.tunnels(),
            Question::Routes(query) => self.routes(&query),
            Question::Neighbours => self.neighbours(),
            Question::Policers => self.policers(),
            Question::Acl => self.acl(),
            Question::Qos => self.qos(),
            Question::Drops => self.drops(),
        }
    }

    pub(super) fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter().map(|page| &**page)
    }

    fn interfaces(&self) -> Value {
        let ports = self.plan.ports.iter().enumerate().take(self.config.interfaces.len());
        let rows = ports.map(|(at, port)| {
            let id = PortId(at as u16);
            let interface = &self.config.interfaces[at];
            let attached = self.attached(at);
            let mode = attached.map(|attached| match (attached.xdp, attached.zero_copy) {
                (Mode::Generic, _) => "generic",
                (Mode::Native, true) => "zero-copy",
                (Mode::Native, false) => "copy",
            });
            let vlan = match port.kind {
                PortKind::Vlan { id, .. } => Some(id),
                _ => None,
            };
            json!({
                "name": port.name,
                "state": self.interface_state(at),
                "mode": mode,
                "why_copy": attached.and_then(|attached| attached.why_copy.clone()),
                "queues": attached.map(|attached| attached.queues.receive),
                "vrf": self.vrf(interface.vrf),
                "vlan": vlan,
                "mac": port.mac.to_string(),
                "mtu": port.mtu,
                "addresses": port.addresses,
                "fallback": match interface.fallback {
                    Fallback::Kernel => "kernel",
                    Fallback::Drop => "drop",
                },
                "rpf": interface.rpf.name(),
                "counters": PortTotals::of(self.pages(), id),
                "steering": self.steering(at as u16),
            })
        });
        json!({ "interfaces": rows.collect::<Vec<_>>() })
    }

    /// The sockets that an interface has, or its parent has for it.
    pub(super) fn attached(&self, at: usize) -> Option<&Attached> {
        self.interfaces.get(match self.plan.ports[at].kind {
            PortKind::Vlan { parent, .. } => parent,
            _ => PortId(at as u16),
        })
    }

    /// As an operator would say it; "up" if it forwards.
    pub(super) fn interface_state(&self, at: usize) -> &'static str {
        match (self.attached(at), self.host.link_by_name(&self.plan.ports[at].name)) {
            (_, None) => "missing",
            (None, _) => "detached",
            (Some(_), Some((_, link))) if !link.up => "down",
            (Some(_), Some((_, link))) if !link.running => "no carrier",
            _ => "up",
        }
    }

    fn steering(&self, row: u16) -> Value {
        let Ok(counters) = self.xdp.counters(row) else { return Value::Null };
        let named = Verdict::ALL.iter().map(|verdict| (verdict.name(), counters[usize::from(verdict.code())]));
        named.filter(|(_, count)| *count != 0).map(|(name, count)| (name.to_owned(), Value::from(count))).collect()
    }

    fn tunnels(&self) -> Value {
        let rows = self.config.tunnels.iter().enumerate().map(|(at, tunnel)| {
            let id = TunnelId(at as u16);
            let (vni, key) = match tunnel.kind {
                Kind::Vxlan(vxlan) => (Some(vxlan.vni.value()), None),
                Kind::Geneve(geneve) => (Some(geneve.vni.value()), None),
                Kind::Gre(gre) => (None, gre.key),
                Kind::Ip(_) => (None, None),
            };
            let (_, port) = tunnel.kind.carrier();
            json!({
                "name": tunnel.name,
                "type": tunnel.kind.name(),
                "inner": if tunnel.kind.ethernet() { "ethernet" } else { "ip" },
                "id": vni.or(key),
                "vni": vni,
                "key": key,
                "port": (port != 0).then_some(port),
                "local": tunnel.local,
                "remote": tunnel.remote,
                "mac": tunnel.kind.ethernet().then(|| tunnel.inside_mac().to_string()),
                "vrf": self.vrf(tunnel.vrf),
                "underlay_vrf": self.vrf(tunnel.underlay_vrf),
                "state": self.resolver.tunnel(id).map_or("no route to remote", state),
                "mtu": Resolver::mtu(self.config, self.plan, id),
                "path_mtu": self.plan.paths.mtu(id),
                "device": !tunnel.addresses.is_empty(),
                "addresses": tunnel.addresses,
                "counters": TunnelTotals::of(self.pages(), id),
            })
        });
        json!({ "tunnels": rows.collect::<Vec<_>>() })
    }

    /// One page of routes, what there are in all, and what they take.
    fn routes(&self, query: &RouteQuery) -> Value {
        let vrfs = self.config.vrfs.iter().enumerate().map(|(at, vrf)| (Vrf(at as u16), vrf.name.as_str()));
        let asked = |name: &str| query.vrf.as_ref().is_none_or(|vrf| vrf == name);
        let vrfs: Vec<_> = vrfs.filter(|(_, name)| asked(name)).collect();
        if vrfs.is_empty() {
            let known: Vec<_> = self.config.vrfs.iter().map(|vrf| vrf.name.as_str()).collect();
            let name = query.vrf.as_deref().unwrap_or_default();
            return json!({ "error": format!("no VRF {name}: this gateway has {}", known.join(", ")) });
        }
        let (mut rows, mut next) = (Vec::new(), None);
        for &(vrf, name) in &vrfs {
            if let Some(address) = query.lookup {
                let found = self.plan.rib.lookup(vrf, address);
                rows.extend(found.map(|(prefix, route)| self.route(name, prefix, route)));
                continue;
            }
            let after = match &query.after {
                Some((at, _)) if usize::from(*at) > vrf.index() => continue,
                Some((at, prefix)) if usize::from(*at) == vrf.index() => Some(*prefix),
                _ => None,
            };
            for (prefix, route) in self.plan.rib.after(vrf, after, query.prefix) {
                if rows.len() == PAGE {
                    break;
                }
                next = Some((vrf.0, prefix));
                rows.push(self.route(name, prefix, route));
            }
        }
        let counts = self.config.vrfs.iter().enumerate().map(|(at, vrf)| {
            let vrf_id = Vrf(at as u16);
            json!({ "vrf": vrf.name, "routes": self.plan.rib.len(vrf_id) })
        });
        let [v4, v6] = self.resolver.usage().map(
            |usage| json!({ "prefixes": usage.prefixes, "bytes": usage.used_bytes, "limit_bytes": usage.limit_bytes }),
        );
        json!({
            "next": next.filter(|_| rows.len() == PAGE),
            "routes": rows,
            "counts": counts.collect::<Vec<_>>(),
            "fib": { "ipv4": v4, "ipv6": v6, "next_hops": self.plan.rib.ways().count() },
        })
    }

    fn route(&self, vrf: &str, prefix: IpNet, route: Route) -> Value {
        let way = self.plan.rib.way(route.way);
        let (resolution, shares) = self.resolver.way(route.way);
        let targets = self.plan.targets(way);
        let names: Vec<String> = way.targets().map(|(target, _)| self.target(target)).collect();
        let mut row = json!({
            "vrf": vrf,
            "prefix": prefix,
            "source": route.source.name(),
            "via": names.join(" | "),
            "state": state(resolution),
        });
        if targets.len() > 1 {
            let shares = shares.into_iter().chain(std::iter::repeat(0));
            let members = targets.iter().zip(shares).map(|((target, weight), buckets)| {
                json!({
                    "via": self.target(*target),
                    "weight": weight,
                    "up": self.plan.is_up(*target),
                    "share": buckets as f64 / BUCKETS as f64,
                })
            });
            row["members"] = members.collect();
        }
        row
    }

    fn target(&self, target: Target) -> String {
        let port = |id: PortId| self.plan.ports[id.index()].name.as_str();
        let tunnel = |id: TunnelId| self.config.tunnels[id.index()].name.as_str();
        match target {
            Target::Local => "local".into(),
            Target::Kernel => "kernel".into(),
            Target::Blackhole => "blackhole".into(),
            Target::Unreachable => "unreachable".into(),
            Target::Prohibited => "prohibit".into(),
            Target::OnLink(id) => port(id).into(),
            Target::Neighbour(id, address) => format!("{address} on {}", port(id)),
            Target::Tunnel(id) | Target::TunnelOnLink(id) | Target::Bridged(id) => format!("tunnel {}", tunnel(id)),
            Target::TunnelNeighbour(id, address) => format!("{address} in tunnel {}", tunnel(id)),
            Target::Via(_, address) | Target::Leak(_, address) => address.to_string(),
        }
    }

    fn neighbours(&self) -> Value {
        let ours = self.plan.ifindex.iter().enumerate().filter_map(|(at, index)| Some(((*index)?, at)));
        let ours: std::collections::BTreeMap<u32, usize> = ours.collect();
        let rows = self.host.neighbours.iter().filter_map(|(&(index, address), neighbour)| {
            let port = &self.plan.ports[*ours.get(&index)?];
            Some(json!({
                "interface": port.name,
                "address": address,
                "mac": neighbour.mac.map(|mac| wire::Mac::new(mac).to_string()),
                "state": neighbour.state.name(),
            }))
        });
        json!({ "neighbours": rows.collect::<Vec<_>>() })
    }

    /// Every rule, and last what becomes of packets that meet none.
    fn acl(&self) -> Value {
        let rules = self.config.acl.iter().enumerate().map(|(at, entry)| {
            json!({
                "rule": at + 1,
                "line": entry.line,
                "action": entry.rule.action.name(),
                "match": entry.describe(self.config),
                "counters": CountTotals::of_rule(self.pages(), at),
            })
        });
        let others = (!self.config.acl.is_empty()).then(|| {
            let counters = CountTotals::of_rule(self.pages(), self.config.acl.len());
            json!({ "rule": null, "line": null, "action": "permit", "match": "no rule", "counters": counters })
        });
        json!({ "acl": rules.chain(others).collect::<Vec<_>>() })
    }

    /// One row for each class of each tenant by each way that had packets.
    fn qos(&self) -> Value {
        let (tenant, class_name) = (shaping::tenant_names(self.config), shaping::class_names(self.config));
        let (mut rows, mut links) = (Vec::new(), Vec::new());
        for report in self.team.borrow_mut().shapers() {
            let name = &self.config.interfaces[report.port.index()].name;
            for leaf in &report.leaves {
                for (at, class) in leaf.classes.iter().enumerate() {
                    if *class == ClassReport::default() {
                        continue;
                    }
                    rows.push(json!({
                        "interface": name,
                        "tunnel": leaf.tunnel.map(|tunnel| self.config.tunnels[tunnel.index()].name.clone()),
                        "tenant": tenant[leaf.tenant.index()],
                        "class": class_name[at],
                        "sent_packets": class.sent_packets,
                        "sent_bytes": class.sent_octets,
                        "queue_bytes": class.queue_octets,
                        "marked": class.marked,
                        "dropped": { "early_drop": class.dropped, "queue_full": class.refused },
                        "throttled": leaf.throttled,
                    }));
                }
            }
            for (at, [half, most, nearly_all]) in report.delays_ns.iter().enumerate() {
                if half.is_some() {
                    links.push(json!({
                        "interface": name,
                        "class": class_name[at],
                        "delay_p50_ns": half,
                        "delay_p99_ns": most,
                        "delay_p999_ns": nearly_all,
                    }));
                }
            }
        }
        json!({ "qos": rows, "delays": links })
    }

    fn policers(&self) -> Value {
        let rows = self.config.policers.iter().enumerate().map(|(at, policer)| {
            let profile = policer.profile;
            let interfaces = self.config.interfaces.iter().filter(|it| it.policer == Some(at)).map(|it| &*it.name);
            let tunnels = self.config.tunnels.iter().filter(|it| it.policer == Some(at)).map(|it| &*it.name);
            let tenants = self.config.tenants.iter().filter(|it| it.policer == Some(at));
            let tenants = tenants.map(|it| format!("tenant {}", it.name));
            let of = interfaces.chain(tunnels).map(str::to_owned).chain(tenants);
            let mut row = json!({
                "name": policer.name,
                "kind": match profile.kind {
                    policer::Kind::Rfc2697 => "rfc2697",
                    policer::Kind::Rfc2698 => "rfc2698",
                    policer::Kind::Rfc4115 => "rfc4115",
                },
                "of": of.collect::<Vec<_>>().join(","),
                "cir_bits": profile.cir,
                "cbs_bytes": profile.cbs,
                "second_rate_bits": profile.pir,
                "second_burst_bytes": profile.pbs,
                "packets_per_second": (profile.packets != 0).then_some(profile.packets),
                "colour_aware": profile.colour_aware,
            });
            for colour in Colour::ALL {
                row[colour.name()] = json!(CountTotals::of_colour(self.pages(), at, colour));
            }
            row
        });
        json!({ "policers": rows.collect::<Vec<_>>() })
    }

    fn drops(&self) -> Value {
        let totals = Totals::of(self.pages());
        let mut value = serde_json::to_value(Balance::from(&totals)).unwrap_or_default();
        value["icmp_suppressed"] = totals.icmp_suppressed.into();
        value
    }

    fn vrf(&self, at: usize) -> &str {
        &self.config.vrfs[at].name
    }
}

/// As an operator would say it.
pub(super) const fn state(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Ready => "ready",
        Resolution::OnLink => "on link",
        Resolution::Waiting => "waiting for neighbour",
        Resolution::Failed => "neighbour failed",
        Resolution::Local => "local",
        Resolution::Kernel => "kernel",
        Resolution::None => "none",
        Resolution::Blackhole => "blackhole",
        Resolution::Unreachable => "unreachable",
        Resolution::Prohibited => "prohibited",
        Resolution::Group => "shared",
    }
}
