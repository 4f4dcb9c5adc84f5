//! From the configuration to what schedulers and the classifier are built from.

use crate::config::{Config, Qos, Tenant};
use crate::packet::{Class, Numbering, PortId};
use crate::qos::{Buffer, LeafSpec, Limit, PortSpec, Rate, Spec, TenantSpec, TunnelSpec};
use crate::tables::Marks;
use std::sync::Arc;

/// What may wait with one worker: its own part of packet memory.
const BUFFER: Buffer = Buffer { frames: 8_192, bytes: 64 << 20 };

/// Whether anything is shaped at all.
fn is_shaped(config: &Config) -> bool {
    config.qos.is_some()
        || !config.tenants.is_empty()
        || config.interfaces.iter().any(|interface| interface.rate.is_some())
        || config.tunnels.iter().any(|tunnel| tunnel.cap != Limit::NONE)
}

/// What makes packets a tenant's, and of a class; `None` where nothing is queued by it.
pub fn marks(config: &Config) -> Option<Marks> {
    is_shaped(config).then(|| {
        let others = tenants(config).skip(1).flatten();
        let (classes, rest) = match &config.qos {
            Some(qos) => (qos.rules.clone(), qos.rest),
            // One class, with a queue for each flow.
            None => (Vec::new(), Qos::gpu_gateway().rest),
        };
        Marks {
            numbering: Numbering::default(),
            tenants: others.map(|tenant| tenant.matches.clone()).collect(),
            classes,
            rest,
        }
    })
}

/// Whether an interface has a shaper: with classes and tenants each has one, else those with a rate, and those that a
/// tunnel with a cap may leave by. A VLAN's packets wait for its parent.
pub fn has_shaper(config: &Config, interface: usize) -> bool {
    let it = &config.interfaces[interface];
    let carries = |tunnel: &crate::config::Tunnel| {
        tunnel.cap != Limit::NONE
            && config.interfaces.iter().enumerate().any(|(at, other)| {
                let port = other.parent.map_or(at, |(parent, _)| parent);
                port == interface && other.vrf == tunnel.underlay_vrf
            })
    };
    it.parent.is_none()
        && (config.qos.is_some()
            || !config.tenants.is_empty()
            || it.rate.is_some()
            || config.tunnels.iter().any(carries))
}

/// Interfaces whose link, by its driver's word, has less than is guaranteed, with that rate. The file's own rates have been
/// checked; a link that came up slower than it should is no reason not to forward.
pub fn overcommitted(config: &Config, speed: impl Fn(&str) -> Option<Rate>) -> Vec<(&str, Rate)> {
    let shaped = config.interfaces.iter().enumerate().filter(|(at, it)| it.rate.is_none() && has_shaper(config, *at));
    let slow = shaped.filter_map(|(_, it)| Some((&*it.name, speed(&it.name)?)));
    slow.filter(|(_, rate)| rate.bits() < config.guaranteed()).collect()
}

/// What schedulers are built from. `speed` is what the driver says of an interface that the file has no rate of; where that
/// is less than the guarantees, it is the driver's room that bounds the port.
pub fn spec(config: &Config, speed: impl Fn(&str) -> Option<Rate>) -> Option<Arc<Spec>> {
    let qos = config.qos.clone().unwrap_or_else(Qos::gpu_gateway);
    let shaped = (0..config.interfaces.len()).filter(|at| has_shaper(config, *at));
    let ports: Vec<_> = shaped
        .map(|at| {
            let interface = &config.interfaces[at];
            let enough = |rate: &Rate| rate.bits() >= config.guaranteed();
            let rate = interface.rate.or_else(|| speed(&interface.name).filter(enough));
            PortSpec { port: PortId(at as u16), rate, account: qos.account }
        })
        .collect();
    if ports.is_empty() {
        return None;
    }
    let of = |tenant: &Tenant| TenantSpec {
        name: tenant.name.clone(),
        guarantee: tenant.guarantee,
        limit: tenant.limit,
        weight: tenant.weight,
    };
    let via = |(tenant, table): (usize, Option<&Tenant>)| {
        let bound = move |(tunnel, limit): &(usize, Limit)| LeafSpec {
            tenant: tenant as u16,
            tunnel: Some(*tunnel as u16),
            limit: *limit,
        };
        table.map_or(&[][..], |table| &table.via).iter().map(bound).collect::<Vec<_>>()
    };
    let leaves = tenants(config).enumerate().flat_map(via).collect();
    let tenants = tenants(config).map(|tenant| tenant.map_or_else(TenantSpec::default, of)).collect();
    let tunnels = config.tunnels.iter().map(|tunnel| TunnelSpec { name: tunnel.name.clone(), cap: tunnel.cap });
    let classes = qos.classes;
    Some(Arc::new(Spec {
        numbering: Numbering::default(),
        ports,
        tunnels: tunnels.collect(),
        tenants,
        classes,
        leaves,
        buffer: BUFFER,
    }))
}

/// The worker whose scheduler sees all packets of a port, of the first `owners`: a port keeps its own as far as it can
/// when there are more or fewer (highest random weight; Thaler and Ravishankar, 1998).
pub fn owner(port: PortId, owners: usize) -> usize {
    let weight = |worker: &usize| crate::tables::mix(u64::from(port.0) << 32 | *worker as u64);
    (0..owners.max(1)).max_by_key(weight).unwrap_or(0)
}

/// The classes' names, for people.
pub fn class_names(config: &Config) -> [String; Class::COUNT] {
    config.qos.clone().unwrap_or_else(Qos::gpu_gateway).classes.map(|class| class.name)
}

/// The tenants' names by their ids, for people.
pub fn tenant_names(config: &Config) -> Vec<&str> {
    tenants(config).map(|tenant| tenant.map_or(Tenant::DEFAULT, |tenant| &tenant.name)).collect()
}

/// All tenants by their ids: `default`, which is there without a table too, then the others in the file's order.
pub fn tenants(config: &Config) -> impl Iterator<Item = Option<&Tenant>> {
    let default = config.tenants.iter().find(|tenant| tenant.name == Tenant::DEFAULT);
    let others = config.tenants.iter().filter(|tenant| tenant.name != Tenant::DEFAULT);
    std::iter::once(default).chain(others.map(Some))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qos::PacketRate;

    fn config(text: &str) -> Config {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    const TENANT: &str = "[tenant.a]\nmatch = { source = \"10.0.0.0/8\" }\nguarantee = \"5G\"\n";

    /// The shaped ports and their rates in gigabits.
    fn ports(text: &str, speed: u64) -> Vec<(u16, Option<u64>)> {
        let spec = spec(&config(text), |_| Rate::new(speed * 1_000_000_000));
        let ports = spec.iter().flat_map(|spec| &spec.ports);
        ports.map(|port| (port.port.0, port.rate.map(|rate| rate.bits() / 1_000_000_000))).collect()
    }

    #[test]
    fn a_port_with_nothing_to_share_has_no_shaper() {
        let two = "[interface.wan0]\n[interface.lan0]\n";
        assert_eq!(ports(two, 25), []);
        assert!(marks(&config(two)).is_none());
        assert_eq!(ports("[interface.lan0]\n[interface.wan0]\nrate = \"10G\"\n", 25), [(1, Some(10))]);
        assert_eq!(ports(&format!("{two}{TENANT}"), 25), [(0, Some(25)), (1, Some(25))]);
        assert_eq!(ports(&format!("{two}[qos]\n"), 25), [(0, Some(25)), (1, Some(25))]);
    }

    #[test]
    fn a_bound_of_a_tenants_part_of_a_tunnel_is_the_leafs_whatever_the_order_of_tables() {
        let tunnel = |name: &str, key: u8| {
            format!("[tunnel.{name}]\ntype = \"gre\"\nkey = {key}\nlocal = \"192.0.2.1\"\nremote = \"198.51.100.7\"\n")
        };
        let file = format!(
            "{TENANT}[tenant.a.via.y]\npackets = \"1kpps\"\nlimit = \"1G\"\n[tenant.default.via.x]\nlimit = \"2G\"\n\
             [interface.wan0]\n{}{}",
            tunnel("x", 1),
            tunnel("y", 2)
        );
        let spec = spec(&config(&file), |_| None).expect("it has tenants");
        let bounds: Vec<_> = spec.leaves.iter().map(|leaf| (leaf.tenant, leaf.tunnel, leaf.limit.rate)).collect();
        let rate = |gigabits: u64| Rate::new(gigabits * 1_000_000_000);
        assert_eq!(bounds, [(0, Some(0), rate(2)), (1, Some(1), rate(1))]);
        assert_eq!(spec.leaves[1].limit.packets, PacketRate::new(1_000));
    }

    #[test]
    fn a_tunnel_with_a_cap_shapes_the_ports_of_its_underlay() {
        let file = "[vrf.in]\n[interface.lan0]\nvrf = \"in\"\n[interface.wan0]\n[tunnel.a]\ntype = \"ipip\"\n\
                    local = \"192.0.2.1\"\nremote = \"198.51.100.7\"\nvrf = \"in\"\ncap = { rate = \"1G\" }\n";
        assert_eq!(ports(file, 25), [(1, Some(25))]);
        let vlan = file.replace(
            "[interface.wan0]\n",
            "[interface.wan0]\nvrf = \"in\"\n[interface.\"wan0.7\"]\nparent = \"wan0\"\nvlan = 7\n",
        );
        assert_eq!(ports(&vlan, 25), [(1, Some(25))], "a VLAN's packets wait for its parent");
    }

    #[test]
    fn a_link_that_is_slower_than_what_is_guaranteed_is_told_and_bounded_by_its_driver() {
        let file = format!("[interface.lan0]\n[interface.wan0]\nrate = \"10G\"\n{TENANT}");
        let slow = |_: &str| Rate::new(1_000_000_000);
        assert_eq!(overcommitted(&config(&file), slow), [("lan0", Rate::new(1_000_000_000).expect("a rate"))]);
        assert_eq!(ports(&file, 1), [(0, None), (1, Some(10))]);
        assert_eq!(overcommitted(&config(&file), |_| Rate::new(5_000_000_000)), []);
    }

    #[test]
    fn an_owner_that_is_added_takes_over_its_share_and_moves_nothing_else() {
        let of = |owners| (0..256).map(|port| owner(PortId(port), owners)).collect::<Vec<_>>();
        let (three, four) = (of(3), of(4));
        assert!(three.iter().zip(&four).all(|(before, after)| before == after || *after == 3));
        assert!(
            (0..4).all(|worker| (32..96).contains(&four.iter().filter(|owner| **owner == worker).count())),
            "{four:?}"
        );
        assert!(of(1).iter().all(|owner| *owner == 0));
    }
}
