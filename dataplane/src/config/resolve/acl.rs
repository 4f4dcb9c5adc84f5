//! Rules: what a packet must be to meet one, and what happens then.

use super::{Given, Resolver, each, place, start};
use crate::config::error::FaultKind;
use crate::config::file::{self, Value};
use crate::config::legal::ValueError;
use crate::config::values;
use crate::config::{AclRule, Config};
use crate::packet::{Family, PortId, TunnelId, Vrf};
use crate::tables::acl::{Action, Rule};
use crate::tables::filter::Match;
use ipnet::IpNet;
use serde_spanned::Spanned;

/// The access list. `config` has the VRFs, interfaces and tunnels.
pub fn resolve(resolver: &mut Resolver<'_>, tables: &[Spanned<file::Acl>], config: &Config) -> Vec<AclRule> {
    let (mut prefixes, mut ranges) = (0, 0);
    let mut rules = Vec::with_capacity(tables.len());
    for spanned in tables {
        let (at, table) = (start(spanned), spanned.get_ref());
        let action = resolver.need(("[[acl]]", at), "action", &table.action, values::ACTION);
        let action = action.and_then(|action| resolver.parse("action", action, values::action));
        let matches = resolver.matches(&Asked::from(table), config);
        prefixes += matches.sources.len() + matches.destinations.len();
        ranges += matches.source_ports.len() + matches.destination_ports.len();
        let action = action.unwrap_or(Action::Deny);
        rules.push(AclRule { rule: Rule { matches, action }, line: resolver.source.line(at) });
    }
    for (what, count) in [("prefixes of acl", prefixes), ("ranges of ports of acl", ranges)] {
        resolver.limit(what, count, Config::MAX_RULE_VALUES, tables.last().map(start));
    }
    rules
}

/// What a table asks for of packets.
pub struct Asked<'a> {
    pub vrf: &'a Given,
    pub interface: &'a Given,
    pub tunnel: &'a Given,
    pub source: &'a Given,
    pub destination: &'a Given,
    pub protocol: &'a Given,
    pub source_port: &'a Given,
    pub destination_port: &'a Given,
    pub dscp: &'a Given,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            vrf: &None,
            interface: &None,
            tunnel: &None,
            source: &None,
            destination: &None,
            protocol: &None,
            source_port: &None,
            destination_port: &None,
            dscp: &None,
        }
    }
}

impl<'a> From<&'a file::Acl> for Asked<'a> {
    fn from(table: &'a file::Acl) -> Self {
        Self {
            vrf: &table.vrf,
            interface: &table.interface,
            tunnel: &table.tunnel,
            source: &table.source,
            destination: &table.destination,
            protocol: &table.protocol,
            source_port: &table.source_port,
            destination_port: &table.destination_port,
            dscp: &table.dscp,
        }
    }
}

impl Resolver<'_> {
    pub(super) fn matches(&mut self, table: &Asked<'_>, config: &Config) -> Match {
        let vrf = table.vrf.as_ref().map(|_| self.vrf("vrf", table.vrf));
        let interface = self.refer("interface", table.interface, |it, name| it.interfaces.find("interface", name));
        let tunnel = self.refer("tunnel", table.tunnel, |it, name| it.tunnels.find("tunnel", name));
        if let (Some(_), Some(at)) = (table.interface, place(table.tunnel)) {
            self.faults.push((at, FaultKind::NotTogether { key: "tunnel", other: "interface" }));
        }
        let interface_vrf = interface.and_then(|at| config.interfaces.get(at)).map(|it| (it.name.clone(), it.vrf));
        let tunnel_vrf = tunnel.and_then(|at| config.tunnels.get(at)).map(|it| (it.name.clone(), it.vrf));
        let ways = [("interface", table.interface, interface_vrf), ("tunnel", table.tunnel, tunnel_vrf)];
        for (key, given, way) in ways {
            if let (Some(ours), Some((name, its)), Some(at)) = (vrf, way, place(given))
                && ours != its
            {
                let name_of = |vrf: usize| config.vrfs[vrf].name.clone();
                self.faults.push((at, FaultKind::RuleVrf { key, name, its: name_of(its), ours: name_of(ours) }));
            }
        }
        let matches = Match {
            vrf: vrf.map(|vrf| Vrf(vrf as u16)),
            interface: interface.map(|at| PortId(at as u16)),
            tunnel: tunnel.map(|at| TunnelId(at as u16)),
            vlan: None,
            sources: self.some("source", table.source, values::prefix),
            destinations: self.some("destination", table.destination, values::prefix),
            protocols: self.some("protocol", table.protocol, values::ip_protocol),
            source_ports: self.some("source_port", table.source_port, values::ports),
            destination_ports: self.some("destination_port", table.destination_port, values::ports),
            dscps: self.some("dscp", table.dscp, values::plain_dscp),
            cnp: false,
        };
        let both = |family| {
            let has = |list: &[IpNet]| list.is_empty() || list.iter().any(|net| Family::of(net.addr()) == family);
            has(&matches.sources) && has(&matches.destinations)
        };
        if let (false, Some(at)) = (both(Family::V4) || both(Family::V6), place(table.destination)) {
            self.faults.push((at, FaultKind::RuleFamilies));
        }
        let with_ports = !matches.protocols.is_empty()
            && matches.protocols.iter().all(|protocol| Match::WITH_PORTS.contains(protocol));
        // A protocol that is wrong has been named already.
        let told = table.protocol.is_some() && matches.protocols.is_empty();
        for (key, given) in [("source_port", table.source_port), ("destination_port", table.destination_port)] {
            if let (false, false, Some(at)) = (with_ports, told, place(given)) {
                self.faults.push((at, FaultKind::RulePorts { key }));
            }
        }
        matches
    }

    /// One value or several; none where the key is absent.
    fn some<T>(&mut self, key: &'static str, given: &Given, parse: fn(&Value) -> Result<T, ValueError>) -> Vec<T> {
        if let Some(value) = given
            && each(value).is_empty()
        {
            let fault = FaultKind::Value { key, value: "[]".to_owned(), legal: ValueError::EmptyList };
            self.faults.push((start(value), fault));
        }
        self.list(key, given, parse).unwrap_or_default()
    }
}
