//! Who is policed by what: numbers of policers, whose buckets are the workers' own.

use crate::packet::{Packet, PortId, TunnelId};
use std::sync::Arc;

/// The policer of each interface, of each tunnel and of each tenant; where nobody is policed, it costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Policing {
    ways: Option<Arc<Ways>>,
    tenants: Option<Arc<[Option<u16>]>>,
}

#[derive(Debug)]
struct Ways {
    interfaces: Box<[Option<u16>]>,
    tunnels: Box<[Option<u16>]>,
}

impl Policing {
    /// By interface, by tunnel, and by tenant, of which the first is `default`.
    pub fn new(interfaces: Vec<Option<u16>>, tunnels: Vec<Option<u16>>, tenants: Vec<Option<u16>>) -> Self {
        let any = |policers: &[Option<u16>]| policers.iter().any(Option::is_some);
        let ways = any(&interfaces) || any(&tunnels);
        Self {
            ways: ways.then(|| Arc::new(Ways { interfaces: interfaces.into(), tunnels: tunnels.into() })),
            tenants: any(&tenants).then(|| tenants.into()),
        }
    }

    /// Whether any way in is policed.
    #[inline(always)]
    pub const fn polices_ways(&self) -> bool {
        self.ways.is_some()
    }

    /// Whether any tenant is policed.
    #[inline(always)]
    pub const fn polices_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// The policer of the way that a packet came in: a tunnel's, if it came out of one.
    #[inline(always)]
    pub fn of_way(&self, packet: &Packet) -> Option<usize> {
        let ways = self.ways.as_ref()?;
        let policer = match (packet.tunnel, packet.ingress) {
            (TunnelId::NONE, PortId(port)) => ways.interfaces.get(usize::from(port)),
            (TunnelId(tunnel), _) => ways.tunnels.get(usize::from(tunnel)),
        };
        policer.copied().flatten().map(usize::from)
    }

    /// The policer of whose the packet is, unless the way that it came in has the same one: it is asked once.
    #[inline(always)]
    pub fn of_tenant(&self, packet: &Packet) -> Option<usize> {
        let policer = self.tenants.as_ref()?.get(packet.tenant.index()).copied().flatten().map(usize::from);
        policer.filter(|_| policer != self.of_way(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TenantId;
    use crate::testing::{udp_v4, with_ip};

    #[test]
    fn where_nobody_is_policed_no_packet_is_looked_at() {
        let polices = |ways: Option<u16>, tenant: Option<u16>| {
            let policing = Policing::new(vec![None, ways], vec![None], vec![None, tenant]);
            (policing.polices_ways(), policing.polices_tenants())
        };
        assert_eq!(polices(None, None), (false, false));
        assert_eq!(polices(Some(0), None), (true, false));
        assert_eq!(polices(None, Some(0)), (false, true));
        let of_tunnel = Policing::new(Vec::new(), vec![Some(0)], Vec::new());
        assert!(of_tunnel.polices_ways() && !of_tunnel.polices_tenants());
    }

    #[test]
    fn a_tenants_packet_has_a_policer_whatever_way_it_came_but_never_one_twice() {
        let policing = Policing::new(vec![Some(0), None], vec![Some(1)], vec![Some(2), None, Some(0), Some(1)]);
        let policers = |port, tunnel, tenant| {
            with_ip(14, &udp_v4([10, 20, 0, 7], &[]), |packet| {
                (packet.ingress, packet.tunnel, packet.tenant) = (PortId(port), tunnel, TenantId(tenant));
                (policing.of_way(packet), policing.of_tenant(packet))
            })
        };
        let (none, tunnel) = (TunnelId::NONE, TunnelId(0));
        assert_eq!(policers(0, none, 0), (Some(0), Some(2)), "`default` has one too");
        assert_eq!(policers(0, none, 1), (Some(0), None));
        assert_eq!(policers(0, none, 2), (Some(0), None), "the same one");
        assert_eq!(policers(1, none, 2), (None, Some(0)));
        assert_eq!(policers(0, tunnel, 2), (Some(1), Some(0)), "it came by the tunnel, not by the port under it");
        assert_eq!(policers(0, tunnel, 3), (Some(1), None), "the same one");
        assert_eq!(policers(1, none, 4), (None, None), "no such tenant");
    }
}
