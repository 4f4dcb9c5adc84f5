//! From the configuration to what schedulers and the classifier are built from.

use crate::config::{Config, Qos, Tenant};
use crate::packet::{PortId, TenantId};
use crate::qos::{Buffer, Limit, PortSpec, Rate, Spec, TenantSpec, TunnelSpec};
use crate::tables::classes::Rules;
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
pub fn rules(config: &Config) -> Option<Rules> {
    is_shaped(config).then(|| {
        let others = config.tenants.iter().filter(|tenant| tenant.name != Tenant::DEFAULT);
        let (classes, rest) = match &config.qos {
            Some(qos) => (qos.rules.clone(), qos.rest),
            // One class, with a queue for each flow.
            None => (Vec::new(), Qos::gpu_gateway().rest),
        };
        Rules { tenants: others.map(|tenant| tenant.matches.clone()).collect(), classes, rest }
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

/// What schedulers are built from. `speed` is what the driver says of an interface that the file has no rate of.
pub fn spec(config: &Config, speed: impl Fn(&str) -> Option<Rate>) -> Option<Arc<Spec>> {
    let qos = config.qos.clone().unwrap_or_else(Qos::gpu_gateway);
    let shaped = (0..config.interfaces.len()).filter(|at| has_shaper(config, *at));
    let ports: Vec<_> = shaped
        .map(|at| {
            let interface = &config.interfaces[at];
            let rate = interface.rate.or_else(|| speed(&interface.name));
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
    let (default, others): (Vec<_>, Vec<_>) = config.tenants.iter().partition(|tenant| tenant.name == Tenant::DEFAULT);
    let mut tenants = vec![default.first().map_or_else(TenantSpec::default, |tenant| of(tenant))];
    tenants.extend(others.into_iter().map(of));
    let tunnels = config.tunnels.iter().map(|tunnel| TunnelSpec { name: tunnel.name.clone(), cap: tunnel.cap });
    let classes = qos.classes;
    Some(Arc::new(Spec { ports, tunnels: tunnels.collect(), tenants, classes, leaves: Vec::new(), buffer: BUFFER }))
}

/// The worker whose scheduler sees all packets of a port, of the first `owners`: a port keeps its own as far as it can
/// when there are more or fewer (highest random weight; Thaler and Ravishankar, 1998).
pub fn owner(port: PortId, owners: usize) -> usize {
    let weight = |worker: &usize| crate::tables::mix(u64::from(port.0) << 32 | *worker as u64);
    (0..owners.max(1)).max_by_key(weight).unwrap_or(0)
}

/// A class's name, for people.
pub fn class_name(config: &Config, class: usize) -> String {
    let name = |qos: &Qos| qos.classes.get(class).map(|class| class.name.clone()).unwrap_or_default();
    config.qos.as_ref().map_or_else(|| name(&Qos::gpu_gateway()), name)
}

/// A tenant's name, for people.
pub fn tenant_name(config: &Config, tenant: TenantId) -> String {
    let mut others = config.tenants.iter().filter(|tenant| tenant.name != Tenant::DEFAULT);
    let at = tenant.index().checked_sub(1);
    at.and_then(|at| others.nth(at)).map_or(Tenant::DEFAULT, |tenant| &tenant.name).to_owned()
}
