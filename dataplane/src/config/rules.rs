//! What two keys or two tables must agree upon: conflicts name both lines, doubts become warnings.
//!
//! The file need not tell addresses: a running gateway reads them from the kernel. So whatever depends
//! on them is said only where the file gives them all, and only as a warning where a kernel route may help.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::{Fault, FaultKind};
use super::guarantees::Fit;
use super::resolve::{Faults, HopPlace, InterfacePlace, Places, ViaPlace};
use super::source::Source;
use super::{Config, Hop, On, Route, Tunnel, UdpChecksum, Via};
use crate::packet::{Family, is_link_local};
use crate::tunnel::Kind;

/// Finds everything that does not fit together: in the file, and in those of lists. Warnings go into the
/// configuration.
pub fn check(config: &mut Config, places: &Places, source: &Source<'_>) -> (Faults, Vec<Fault>) {
    let mut rules = Rules {
        reach: Reach::new(config, places, source),
        config,
        places,
        source,
        faults: Vec::new(),
        listed: Vec::new(),
        warnings: Vec::new(),
    };
    rules.names();
    rules.vrfs();
    rules.kernel_routes();
    for index in 0..config.interfaces.len() {
        rules.interface(index);
        rules.guarantees(index);
    }
    rules.vlans();
    rules.tunnel_keys();
    for (index, tunnel) in config.tunnels.iter().enumerate() {
        rules.tunnel(index, tunnel);
    }
    rules.same_routes();
    for place in &places.vias {
        rules.via(place);
    }
    rules.next_hops();
    rules.neighbours();
    let Rules { faults, listed, mut warnings, .. } = rules;
    warnings.sort_by_key(|(offset, _)| *offset);
    config.warnings = warnings.into_iter().map(|(offset, message)| source.warning(offset, message)).collect();
    (faults, listed)
}

/// IPv6 needs links of this many octets (RFC 8200 §5).
const IPV6_MTU: u16 = 1280;

/// What leads to an address, as far as the file tells.
struct Reach {
    /// Longest match by VRF and prefix. Connected prefixes win over static routes of the same length.
    ways: HashMap<(usize, IpNet), Way>,
    /// The gateway's own addresses by VRF, and the line that gives each.
    own: HashMap<(usize, IpAddr), usize>,
    /// Whether the file tells all interface addresses of a VRF.
    told: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Connected,
    /// The index of a route.
    Static(usize),
}

impl Reach {
    fn new(config: &Config, places: &Places, source: &Source<'_>) -> Self {
        let mut reach = Self { ways: HashMap::new(), own: HashMap::new(), told: vec![false; config.vrfs.len()] };
        for (index, route) in config.routes.iter().enumerate() {
            reach.ways.insert((route.vrf, route.prefix), Way::Static(index));
        }
        let interfaces = config.interfaces.iter().zip(&places.interfaces);
        let interfaces = interfaces.map(|(it, place)| (it.vrf, &it.addresses, place.name));
        let tunnels = config.tunnels.iter().zip(&places.tunnels);
        let tunnels = tunnels.map(|(it, place)| (it.vrf, &it.addresses, place.name));
        for (vrf, addresses, offset) in interfaces.chain(tunnels) {
            for subnet in addresses {
                reach.ways.insert((vrf, subnet.trunc()), Way::Connected);
                reach.own.entry((vrf, subnet.addr())).or_insert_with(|| source.line(offset));
            }
        }
        for (vrf, told) in reach.told.iter_mut().enumerate() {
            let mut interfaces = config.interfaces.iter().filter(|it| it.vrf == vrf).peekable();
            *told = interfaces.peek().is_some() && interfaces.all(|it| !it.addresses.is_empty());
        }
        reach
    }

    /// The longest prefix of the VRF that has the address.
    fn way(&self, vrf: usize, address: IpAddr) -> Option<Way> {
        let host = IpNet::from(address);
        std::iter::successors(Some(host), IpNet::supernet).find_map(|prefix| self.ways.get(&(vrf, prefix)).copied())
    }
}

struct Rules<'a> {
    config: &'a Config,
    places: &'a Places,
    source: &'a Source<'a>,
    reach: Reach,
    faults: Faults,
    /// What is wrong in the files of lists, or in whichever file has a route.
    listed: Vec<Fault>,
    warnings: Vec<(usize, String)>,
}

impl Rules<'_> {
    fn vrf_name(&self, vrf: usize) -> String {
        self.config.vrfs[vrf].name.clone()
    }

    /// Interfaces and tunnels are both devices, and `[[neighbour]] interface` names either.
    fn names(&mut self) {
        let interfaces: HashMap<&str, &InterfacePlace> =
            self.config.interfaces.iter().map(|it| it.name.as_str()).zip(&self.places.interfaces).collect();
        for (tunnel, place) in self.config.tunnels.iter().zip(&self.places.tunnels) {
            if let Some(taken) = interfaces.get(tunnel.name.as_str()) {
                let (earlier, later) = (taken.name.min(place.name), taken.name.max(place.name));
                let fault = FaultKind::NameTaken { name: tunnel.name.clone(), first: self.source.line(earlier) };
                self.faults.push((later, fault));
            }
        }
    }

    fn vrfs(&mut self) {
        let mut tables: HashMap<u32, usize> = HashMap::new();
        for (index, vrf) in self.config.vrfs.iter().enumerate() {
            let Some(table) = vrf.table else { continue };
            let Some(other) = tables.insert(table, index) else { continue };
            // `default` may stand anywhere in the file or not at all; the second VRF always has its table written.
            let (_, at) = self.places.vrfs[index];
            let first = self.places.vrfs[other].0.map(|name| self.source.line(name));
            let fault = FaultKind::TableTaken { table, vrf: self.vrf_name(other), first };
            self.faults.push((at.unwrap_or(0), fault));
        }
    }

    fn kernel_routes(&mut self) {
        let mut mirrored: HashMap<(u32, usize), usize> = HashMap::new();
        for (entry, at) in self.config.kernel_routes.iter().zip(&self.places.kernel_routes) {
            if let Some(first) = mirrored.insert((entry.table, entry.vrf), *at) {
                let first = self.source.line(first);
                let fault = FaultKind::MirroredTwice { table: entry.table, vrf: self.vrf_name(entry.vrf), first };
                self.faults.push((*at, fault));
            }
        }
    }

    fn interface(&mut self, index: usize) {
        let (interface, place) = (&self.config.interfaces[index], &self.places.interfaces[index]);
        self.mtu_for_ipv6(interface.mtu, place.mtu, &interface.addresses);
        let Some((parent, _)) = interface.parent else { return };
        let parent = &self.config.interfaces[parent];
        if parent.parent.is_some() {
            let fault = FaultKind::ParentIsVlan { parent: parent.name.clone() };
            self.faults.push((place.parent.unwrap_or(place.name), fault));
        }
        if let Some(mode) = place.mode {
            self.faults.push((mode, FaultKind::VlanMode { parent: parent.name.clone() }));
        }
        if let (Some(mtu), Some(parent), Some(at)) = (interface.mtu, parent.mtu, place.mtu)
            && mtu > parent
        {
            self.faults.push((at, FaultKind::VlanMtu { mtu, parent }));
        }
    }

    fn vlans(&mut self) {
        let mut tags: HashMap<(usize, u16), usize> = HashMap::new();
        for (interface, place) in self.config.interfaces.iter().zip(&self.places.interfaces) {
            let Some((parent, vlan)) = interface.parent else { continue };
            let at = place.vlan.unwrap_or(place.name);
            if let Some(first) = tags.insert((parent, vlan), at) {
                let parent = self.config.interfaces[parent].name.clone();
                self.faults.push((at, FaultKind::VlanTaken { vlan, parent, first: self.source.line(first) }));
            }
        }
    }

    fn mtu_for_ipv6(&mut self, mtu: Option<u16>, at: Option<usize>, addresses: &[IpNet]) {
        let (Some(mtu), Some(at)) = (mtu, at) else { return };
        let Some(what) = addresses.iter().find(|address| matches!(address, IpNet::V6(_))) else { return };
        if mtu < IPV6_MTU {
            self.faults.push((at, FaultKind::MtuTooSmallForIpv6 { mtu, what: *what }));
        }
    }

    /// A received packet belongs to the one tunnel that has its key.
    fn tunnel_keys(&mut self) {
        let (mut keys, mut types) = (HashMap::new(), HashMap::new());
        for (index, tunnel) in self.config.tunnels.iter().enumerate() {
            let between = (tunnel.underlay_vrf, tunnel.local, tunnel.remote, tunnel.kind.carrier());
            let more = match tunnel.kind {
                Kind::Vxlan(_) | Kind::Geneve(_) => ", port and vni",
                Kind::Gre(_) => " and key",
                Kind::Ip(_) => " and type",
            };
            let fault = |other: usize| {
                let first = self.source.line(self.places.tunnels[other].name);
                (tunnel.name.clone(), self.config.tunnels[other].name.clone(), first)
            };
            let first_type = *types.entry(between).or_insert(index);
            let kind = if self.config.tunnels[first_type].kind.name() != tunnel.kind.name() {
                let (name, other, first) = fault(first_type);
                FaultKind::SamePort { name, other, first }
            } else if let Some(other) = keys.insert((between, tunnel.kind.identifier()), index) {
                let (name, other, first) = fault(other);
                FaultKind::SameKey { name, more, other, first }
            } else {
                continue;
            };
            self.faults.push((self.places.tunnels[index].name, kind));
        }
    }

    fn tunnel(&mut self, index: usize, tunnel: &Tunnel) {
        let place = &self.places.tunnels[index];
        self.mtu_for_ipv6(tunnel.mtu, place.mtu, &tunnel.addresses);
        if tunnel.local.is_ipv4() != tunnel.remote.is_ipv4() {
            let other = format!("local = \"{}\"", tunnel.local);
            let fault = FaultKind::FamiliesDiffer { key: "remote", address: tunnel.remote, other };
            self.faults.push((place.remote, fault));
            return;
        }
        if let Some(outer) = tunnel.kind.outer()
            && outer != Family::of(tunnel.local)
        {
            let (address, kind, legal) = (tunnel.local, tunnel.kind.name(), outer.name());
            self.faults.push((place.local, FaultKind::OuterFamily { key: "local", address, kind, legal }));
            return;
        }
        if let Some(address) = tunnel.addresses.iter().find(|address| not_carried(tunnel, **address)) {
            let what = format!("address = \"{address}\"");
            self.faults.push((place.address.unwrap_or(place.name), cannot_carry(tunnel, what)));
        }
        if tunnel.local == tunnel.remote {
            let first = self.source.line(place.local);
            let fault = FaultKind::OwnAddress { key: "remote", address: tunnel.remote, first };
            self.faults.push((place.remote, fault));
            return;
        }
        self.not_own(place.remote, "remote", tunnel.underlay_vrf, tunnel.remote);
        if tunnel.kind.ethernet() && tunnel.remote_mac.is_none() && tunnel.addresses.is_empty() {
            self.faults.push((place.name, FaultKind::NoRemoteMac { name: tunnel.name.clone() }));
        }
        if let (UdpChecksum::Zero, IpAddr::V6(_), Some(at)) = (tunnel.checksum, tunnel.local, place.checksum) {
            self.warnings.push((at, "checksum = \"zero\": Linux drops such packets over IPv6 by default".to_owned()));
        }
        if let (Some(mtu), Some(at), Some((_, underlay))) = (tunnel.mtu, place.mtu, self.config.underlay(tunnel)) {
            let fits = underlay.saturating_sub(tunnel.overhead());
            if mtu > fits {
                let text = format!("mtu = {mtu}: over an underlay of {underlay} octets only {fits} fit unfragmented");
                self.warnings.push((at, text));
            }
        }
        self.underlay(index, tunnel);
    }

    /// A tunnel whose packets have no way out, as far as the file tells.
    fn underlay(&mut self, index: usize, tunnel: &Tunnel) {
        let (place, vrf) = (&self.places.tunnels[index], tunnel.underlay_vrf);
        let way = self.reach.way(vrf, tunnel.remote);
        if let Some(Way::Static(route)) = way
            && let route = &self.config.routes[route]
            && self
                .config
                .flatten(&route.via)
                .any(|(via, _)| matches!(via, Via::Tunnel { tunnel, .. } if tunnel == index))
        {
            let text = format!("remote = \"{}\": is routed into the tunnel itself, {}", tunnel.remote, route.place);
            self.warnings.push((place.remote, text));
        }
        if !self.reach.told[vrf] {
            return;
        }
        let name = &self.config.vrfs[vrf].name;
        if !self.reach.own.contains_key(&(vrf, tunnel.local)) {
            let text = format!("local = \"{}\": no interface of VRF {name:?} has this address", tunnel.local);
            self.warnings.push((place.local, text));
        }
        let nowhere = match way {
            None => true,
            Some(Way::Static(route)) => {
                let route = &self.config.routes[route];
                route.via.iter().any(|hop| matches!(hop.via, Via::Blackhole | Via::Unreachable))
            }
            Some(Way::Connected) => false,
        };
        if nowhere {
            let text = format!(
                "remote = \"{}\": no connected or static route of VRF {name:?} leads to it, so the kernel must have one",
                tunnel.remote
            );
            self.warnings.push((place.remote, text));
        }
    }

    /// Refuses guarantees that an interface's rate cannot keep, whatever the packets; doubts those that usual packets do not
    /// leave room for.
    fn guarantees(&mut self, index: usize) {
        let config = self.config;
        let (interface, place) = (&config.interfaces[index], &self.places.interfaces[index]);
        let last = config.tenants.iter().rev().find(|tenant| tenant.guarantee.is_some());
        let (Some(last), Some(at), Some(rate), Some(fit)) = (last, place.rate, interface.rate, config.fit(interface))
        else {
            return;
        };
        let (rate, guaranteed, last) = (rate.bits(), config.guaranteed(), last.line);
        match fit {
            Fit::From(_) => {}
            Fit::Tight(octets) => self.warnings.push((
                at,
                format!(
                    "rate: {rate} bit/s on the wire keep all guarantees, {guaranteed} bit/s (the last in line {last}), only \
                     with packets of {octets} octets or more on average: shorter ones share what there is"
                ),
            )),
            Fit::Never { most, octets } => {
                self.faults.push((at, FaultKind::Guarantees { guaranteed, rate, last, most, octets }));
            }
        }
    }

    /// Refuses what the gateway itself has.
    fn not_own(&mut self, at: usize, key: &'static str, vrf: usize, address: IpAddr) {
        if let Some(first) = self.reach.own.get(&(vrf, address)) {
            self.faults.push((at, FaultKind::OwnAddress { key, address, first: *first }));
        }
    }

    fn same_routes(&mut self) {
        let mut prefixes: HashMap<(usize, IpNet), usize> = HashMap::with_capacity(self.config.routes.len());
        for (index, route) in self.config.routes.iter().enumerate() {
            let Some(first) = prefixes.insert((route.vrf, route.prefix), index) else { continue };
            let (place, first) = (&route.place, &self.config.routes[first].place);
            let first = match &first.list {
                _ if first.list == place.list => format!("line {}", first.line),
                Some(_) => first.to_string(),
                None => format!("{}:{}", self.source.path.display(), first.line),
            };
            let kind = FaultKind::SameRoute { prefix: route.prefix, vrf: self.vrf_name(route.vrf), first };
            let file = place.list.as_deref().unwrap_or(&self.source.path).to_path_buf();
            self.listed.push(Fault { file, line: place.line, column: place.column, kind });
        }
    }

    /// The ways of one route, or those that the routes of a list share: for the first route of each family.
    fn via(&mut self, place: &ViaPlace) {
        let routes = &self.config.routes[place.routes.clone()];
        let Some(any) = routes.first() else {
            self.warnings.push((place.at, "file: has no prefix".to_owned()));
            return;
        };
        if !self.hops(&any.via, place) {
            return;
        }
        let of_family = |ipv4: bool| routes.iter().find(|route| route.prefix.addr().is_ipv4() == ipv4);
        for route in [of_family(true), of_family(false)].into_iter().flatten() {
            for (hop, place) in route.via.iter().zip(&place.hops) {
                self.hop(route, hop.via, place);
            }
        }
    }

    /// None twice, and not too many; `false` if something is wrong.
    fn hops(&mut self, hops: &[Hop], place: &ViaPlace) -> bool {
        let (count, max) = (self.config.flatten(hops).count(), Config::MAX_MEMBERS);
        if count > max {
            self.faults.push((place.at, FaultKind::TooManyMembers { key: "via", count, max }));
            return false;
        }
        let before = self.faults.len();
        let mut seen = HashSet::new();
        for (hop, place) in hops.iter().zip(&place.hops) {
            for (via, _) in self.config.flatten(std::slice::from_ref(hop)) {
                if !seen.insert(via) {
                    let hop = self.hop_name(hop.via, via);
                    self.faults.push((place.on, FaultKind::Twice { hop, of: "next hops" }));
                }
            }
        }
        self.faults.len() == before
    }

    /// As it is written; `via` is what a group stands for.
    fn hop_name(&self, hop: Via, via: Via) -> String {
        let tunnel = |tunnel: usize| &self.config.tunnels[tunnel].name;
        match (hop, via) {
            (Via::Group(group), Via::Tunnel { tunnel: of, .. }) => {
                format!("group = {:?}: tunnel {:?}", self.config.groups[group].name, tunnel(of))
            }
            (_, Via::Tunnel { tunnel: at, .. }) => format!("tunnel = {:?}", tunnel(at)),
            (_, Via::NextHop { address, .. }) => format!("next_hop = \"{address}\""),
            (_, Via::Blackhole | Via::Unreachable | Via::Group(_)) => "via".to_owned(),
        }
    }

    /// A FIB entry has 15 bits for where it leads.
    fn next_hops(&mut self) {
        let (mut single, mut several) = (HashSet::new(), HashSet::new());
        for place in &self.places.vias {
            let Some(route) = self.config.routes.get(place.routes.start) else { continue };
            let hops: Vec<(Via, u32)> = self.config.flatten(&route.via).collect();
            single.extend(hops.iter().map(|(via, _)| *via));
            if hops.len() > 1 {
                several.insert(hops);
            }
            let max = Config::MAX_NEXT_HOPS;
            if single.len() + several.len() > max {
                let table = "distinct next hops, and sets of several";
                self.faults.push((place.at, FaultKind::TooMany { table, max }));
                return;
            }
        }
    }

    /// A group's tunnels, for a route by it.
    fn members(&mut self, route: &Route, group: usize, place: &HopPlace) {
        let group = &self.config.groups[group];
        for member in &group.members {
            let tunnel = &self.config.tunnels[member.tunnel];
            if tunnel.vrf != route.vrf && !route.leak {
                let (its, ours) = (self.vrf_name(tunnel.vrf), self.vrf_name(route.vrf));
                let (group, tunnel) = (group.name.clone(), tunnel.name.clone());
                self.faults.push((place.on, FaultKind::GroupVrf { group, tunnel, its, ours }));
            }
            if not_carried(tunnel, route.prefix) {
                let what = format!("group = {:?}: prefix \"{}\"", group.name, route.prefix);
                self.faults.push((place.on, cannot_carry(tunnel, what)));
            }
            if let Some(mtu) = too_small(tunnel, route.prefix) {
                let (group, tunnel) = (group.name.clone(), tunnel.name.clone());
                self.faults.push((place.on, FaultKind::GroupMtu { group, tunnel, mtu, what: route.prefix }));
            }
        }
    }

    fn hop(&mut self, route: &Route, via: Via, place: &HopPlace) {
        let (address, key, name, vrf) = match via {
            Via::Blackhole | Via::Unreachable => return,
            Via::Group(group) => return self.members(route, group, place),
            Via::Tunnel { tunnel, next_hop } => {
                let tunnel = &self.config.tunnels[tunnel];
                if not_carried(tunnel, route.prefix) {
                    self.faults.push((place.on, cannot_carry(tunnel, format!("prefix \"{}\"", route.prefix))));
                }
                if let Some(mtu) = too_small(tunnel, route.prefix) {
                    self.faults.push((place.on, FaultKind::MtuTooSmallForIpv6 { mtu, what: route.prefix }));
                }
                (next_hop, "tunnel", Some((&tunnel.name, &tunnel.addresses)), tunnel.vrf)
            }
            Via::NextHop { address, interface: Some(interface) } => {
                let interface = &self.config.interfaces[interface];
                (Some(address), "interface", Some((&interface.name, &interface.addresses)), interface.vrf)
            }
            Via::NextHop { address, interface: None } => (Some(address), "", None, route.vrf),
        };
        if let (true, Some((name, _))) = (vrf != route.vrf && !route.leak, name) {
            let (its, ours) = (self.vrf_name(vrf), self.vrf_name(route.vrf));
            self.faults.push((place.on, FaultKind::OtherVrf { key, name: name.clone(), its, ours }));
        }
        let Some(address) = address else { return };
        if address.is_ipv4() != route.prefix.addr().is_ipv4() {
            let other = match route.place.list {
                Some(_) => format!("prefix = \"{}\", {}", route.prefix, route.place),
                None => format!("prefix = \"{}\"", route.prefix),
            };
            self.faults.push((place.next_hop, FaultKind::FamiliesDiffer { key: "next_hop", address, other }));
            return;
        }
        self.not_own(place.next_hop, "next_hop", vrf, address);
        let off_link = match name {
            // Link-local addresses are on every link.
            _ if is_link_local(address) && name.is_some() && address.is_ipv6() => return,
            None if is_link_local(address) && address.is_ipv6() => {
                self.faults.push((place.next_hop, FaultKind::LinkLocalNextHop { address }));
                return;
            }
            Some((name, subnets)) => {
                let off = !subnets.is_empty() && !subnets.iter().any(|subnet| subnet.contains(&address));
                off.then(|| format!("no subnet of {name:?}"))
            }
            None => {
                let off = self.reach.told[vrf] && self.reach.way(vrf, address) != Some(Way::Connected);
                off.then(|| format!("no connected subnet of VRF {:?}", self.config.vrfs[vrf].name))
            }
        };
        if let Some(whose) = off_link {
            self.warnings.push((place.next_hop, format!("next_hop = \"{address}\": {whose} has this address")));
        }
    }

    fn neighbours(&mut self) {
        let mut known: HashMap<(On, IpAddr), usize> = HashMap::new();
        for (neighbour, at) in self.config.neighbours.iter().zip(&self.places.neighbours) {
            let (name, vrf) = match neighbour.on {
                On::Interface(index) => (&self.config.interfaces[index].name, self.config.interfaces[index].vrf),
                On::Tunnel(index) => (&self.config.tunnels[index].name, self.config.tunnels[index].vrf),
            };
            if let On::Tunnel(index) = neighbour.on
                && !self.config.tunnels[index].kind.ethernet()
            {
                let fault = FaultKind::NotOfTunnel { key: "neighbour", of: "with IP inside".to_owned() };
                self.faults.push((*at, fault));
            }
            if let Some(first) = known.insert((neighbour.on, neighbour.address), *at) {
                let (address, first) = (neighbour.address, self.source.line(first));
                self.faults.push((*at, FaultKind::SameNeighbour { address, on: name.clone(), first }));
            }
            self.not_own(*at, "address", vrf, neighbour.address);
        }
    }
}

/// Whether what an address or prefix stands for cannot be inside a tunnel.
fn not_carried(tunnel: &Tunnel, prefix: IpNet) -> bool {
    !tunnel.kind.carries(Family::of(prefix.addr()))
}

fn cannot_carry(tunnel: &Tunnel, what: String) -> FaultKind {
    let legal = if tunnel.kind.carries(Family::V4) { Family::V4 } else { Family::V6 }.name();
    FaultKind::NotCarried { what, name: tunnel.name.clone(), kind: tunnel.kind.name(), legal }
}

/// The MTU of a tunnel that does not carry what the prefix is for.
fn too_small(tunnel: &Tunnel, prefix: IpNet) -> Option<u16> {
    tunnel.mtu.filter(|mtu| *mtu < IPV6_MTU && matches!(prefix, IpNet::V6(_)))
}
