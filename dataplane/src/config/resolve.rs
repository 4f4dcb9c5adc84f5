//! From the file as written to values and indices.
//!
//! Here each key is looked at by itself: its value, and the name it may refer to. What two keys or two
//! tables must agree upon is in `rules.rs`, which runs only over what is right so far.

mod acl;
mod policer;
mod qos;
mod routes;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use serde_spanned::Spanned;

use super::error::{Fault, FaultKind};
use super::file::{self, File, Given, Named, Value};
use super::legal::ValueError;
use super::source::Source;
use super::values::{self, Type};
use super::{
    Config, DEFAULT_ICMP_ERRORS_PPS, DEFAULT_TABLE, DEFAULT_TTL, Df, EcnMode, Fallback, Gateway, HashMode, Interface,
    KernelRoutes, Member, Mode, Neighbour, On, Route, Tunnel, TunnelGroup, UdpChecksum, Vrf, Workers,
};
use crate::tables::ReversePath;
use crate::tunnel::{Geneve, Gre, Kind, Vxlan};
use wire::{Vni, protocol};

/// Where what is in a [`Config`] was written: offsets into the file, in lists of the same order.
#[derive(Default)]
pub struct Places {
    /// Each VRF's name and table; for `default` only where the file has it.
    pub vrfs: Vec<(Option<usize>, Option<usize>)>,
    pub interfaces: Vec<InterfacePlace>,
    pub kernel_routes: Vec<usize>,
    pub tunnels: Vec<TunnelPlace>,
    /// Each `[[route]]`, then each `[[route_list]]`.
    pub vias: Vec<ViaPlace>,
    /// Each neighbour's address.
    pub neighbours: Vec<usize>,
}

pub struct InterfacePlace {
    pub name: usize,
    pub parent: Option<usize>,
    pub vlan: Option<usize>,
    pub mode: Option<usize>,
    pub mtu: Option<usize>,
    pub rate: Option<usize>,
}

pub struct TunnelPlace {
    pub name: usize,
    pub local: usize,
    pub remote: usize,
    pub mtu: Option<usize>,
    pub checksum: Option<usize>,
    pub address: Option<usize>,
    pub cap: Option<usize>,
}

/// What several routes share.
pub struct ViaPlace {
    /// Which routes: one, or those of a list.
    pub routes: Range<usize>,
    /// `via` itself, or the file of the list.
    pub at: usize,
    pub hops: Vec<HopPlace>,
}

pub struct HopPlace {
    /// The next hop's address, else the whole hop.
    pub next_hop: usize,
    /// The interface, tunnel or group that it is on, else the whole hop.
    pub on: usize,
}

/// Reads the whole file; what is wrong goes into `faults`, and something legal takes its place until the end.
/// Last comes what is wrong in the files of lists.
pub fn resolve(file: &File, source: &Source<'_>, faults: Faults) -> (Config, Places, Faults, Vec<Fault>) {
    let vrfs = in_file_order(&file.vrf);
    let interfaces = in_file_order(&file.interface);
    let tunnels = in_file_order(&file.tunnel);
    let groups = in_file_order(&file.tunnel_group);
    let policers = in_file_order(&file.policer);
    let mut vrf_names = Names::new("VRF", [DEFAULT]);
    for (name, _) in vrfs.iter().filter(|(name, _)| name.get_ref() != DEFAULT) {
        vrf_names.add(name.get_ref());
    }
    let mut resolver = Resolver {
        interfaces: Names::new("interface", interfaces.iter().map(|(name, _)| name.get_ref().as_str())),
        tunnels: Names::new("tunnel", tunnels.iter().map(|(name, _)| name.get_ref().as_str())),
        groups: Names::new("tunnel-group", groups.iter().map(|(name, _)| name.get_ref().as_str())),
        policers: Names::new("policer", policers.iter().map(|(name, _)| name.get_ref().as_str())),
        vrfs: vrf_names,
        source,
        places: Places::default(),
        faults,
        listed: Vec::new(),
    };
    resolver.limit("vrf", resolver.vrfs.declared.len(), Config::MAX_VRFS, vrfs.last().map(|last| start(last.0)));
    resolver.limit("interface", interfaces.len(), Config::MAX_INTERFACES, interfaces.last().map(|last| start(last.0)));
    resolver.limit("tunnel", tunnels.len(), Config::MAX_TUNNELS, tunnels.last().map(|last| start(last.0)));
    resolver.limit("tunnel-group", groups.len(), Config::MAX_GROUPS, groups.last().map(|last| start(last.0)));
    resolver.limit("route_list", file.route_list.len(), Config::MAX_LISTS, file.route_list.last().map(start));
    resolver.limit("route", file.route.len(), Config::MAX_ROUTES, file.route.last().map(start));
    resolver.limit("policer", policers.len(), Config::MAX_POLICERS, policers.last().map(|last| start(last.0)));
    resolver.limit("acl", file.acl.len(), Config::MAX_RULES, file.acl.last().map(start));
    resolver.limit("neighbour", file.neighbour.len(), Config::MAX_NEIGHBOURS, file.neighbour.last().map(start));

    let gateway = resolver.gateway(file.gateway.as_ref().unwrap_or(&file::Gateway::default()));
    let vrfs = resolver.all_vrfs(&vrfs);
    let mut config = Config {
        kernel_routes: resolver.all_kernel_routes(file.kernel.as_ref(), &vrfs),
        gateway,
        interfaces: interfaces.iter().map(|(name, table)| resolver.interface(name, table)).collect(),
        tunnels: tunnels.iter().filter_map(|(name, table)| resolver.tunnel(name, table)).collect(),
        groups: groups.iter().map(|(name, table)| resolver.group(name, table)).collect(),
        routes: resolver.all_routes(file),
        neighbours: file.neighbour.iter().filter_map(|table| resolver.neighbour(table)).collect(),
        acl: Vec::new(),
        policers: policers.iter().filter_map(|(name, table)| resolver.policer(name, table)).collect(),
        tenants: Vec::new(),
        qos: None,
        warnings: Vec::new(),
        vrfs,
    };
    config.acl = acl::resolve(&mut resolver, &file.acl, &config);
    config.tenants = resolver.tenants(&in_file_order(&file.tenant), &config);
    config.qos = file.qos.as_ref().map(|qos| resolver.qos(qos, &config));
    (config, resolver.places, resolver.faults, resolver.listed)
}

/// What was found wrong, and at which offset.
pub type Faults = Vec<(usize, FaultKind)>;

/// The VRF that always is, with index 0.
pub const DEFAULT: &str = "default";

fn in_file_order<T>(tables: &Named<T>) -> Vec<(&Spanned<String>, &T)> {
    let mut list: Vec<_> = tables.iter().collect();
    list.sort_by_key(|(name, _)| start(name));
    list
}

fn start<T>(spanned: &Spanned<T>) -> usize {
    spanned.span().start
}

fn place(given: &Given) -> Option<usize> {
    given.as_ref().map(start)
}

/// One value, or each of a list: `address = "192.0.2.1/24"` says the same as a list of one.
fn each(value: &Spanned<Value>) -> Vec<&Spanned<Value>> {
    match value.get_ref() {
        Value::List(list) => list.iter().collect(),
        _ => vec![value],
    }
}

/// The names that tables of one kind declare, and their indices.
struct Names {
    what: &'static str,
    declared: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Names {
    fn new<'a>(what: &'static str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = Self { what, declared: Vec::new(), indices: HashMap::new() };
        for name in names {
            list.add(name);
        }
        list
    }

    fn add(&mut self, name: &str) {
        self.indices.insert(name.to_owned(), self.declared.len());
        self.declared.push(name.to_owned());
    }

    fn find(&self, key: &'static str, name: &str) -> Result<usize, FaultKind> {
        self.indices.get(name).copied().ok_or_else(|| self.unknown(key, name))
    }

    fn unknown(&self, key: &'static str, name: &str) -> FaultKind {
        FaultKind::NotDeclared { key, name: name.to_owned(), what: self.what, declared: some(self.declared.iter()) }
    }
}

/// What a list of names shows at most: a file may declare thousands.
const NAMES: usize = 12;

fn some<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(NAMES);
    let mut list: Vec<String> = names.take(NAMES).map(|name| format!("{name:?}")).collect();
    match (list.len(), more) {
        (0, _) => list.push("none".to_owned()),
        (_, 0) => {}
        _ => list.push(format!("and {more} more")),
    }
    list.join(", ")
}

struct Resolver<'a> {
    vrfs: Names,
    interfaces: Names,
    tunnels: Names,
    groups: Names,
    policers: Names,
    source: &'a Source<'a>,
    places: Places,
    faults: Faults,
    /// What is wrong in the files of lists.
    listed: Vec<Fault>,
}

impl Resolver<'_> {
    fn limit(&mut self, table: &'static str, count: usize, max: usize, last: Option<usize>) {
        if count > max {
            self.faults.push((last.unwrap_or(0), FaultKind::TooMany { table, max }));
        }
    }

    /// What the value means; `None` if it is absent, or wrong and noted.
    fn get<T>(&mut self, key: &'static str, given: &Given, parse: fn(&Value) -> Result<T, ValueError>) -> Option<T> {
        given.as_ref().and_then(|value| self.parse(key, value, parse))
    }

    fn parse<T>(
        &mut self,
        key: &'static str,
        value: &Spanned<Value>,
        parse: fn(&Value) -> Result<T, ValueError>,
    ) -> Option<T> {
        parse(value.get_ref())
            .map_err(|legal| {
                let value_shown = value.get_ref().to_string();
                self.faults.push((start(value), FaultKind::Value { key, value: value_shown, legal }));
            })
            .ok()
    }

    /// A key without a default. `table` and `at` say which table lacks it.
    fn need<'g>(
        &mut self,
        (table, at): (&str, usize),
        key: &'static str,
        given: &'g Given,
        legal: ValueError,
    ) -> Option<&'g Spanned<Value>> {
        if given.is_none() {
            self.faults.push((at, FaultKind::Missing { table: table.to_owned(), key, legal }));
        }
        given.as_ref()
    }

    /// Each value of a list, `None` if the key is absent.
    fn list<T>(
        &mut self,
        key: &'static str,
        given: &Given,
        parse: fn(&Value) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        given.as_ref().map(|value| each(value).into_iter().filter_map(|one| self.parse(key, one, parse)).collect())
    }

    /// The index that a name has.
    fn refer(
        &mut self,
        key: &'static str,
        given: &Given,
        names: impl Fn(&Self, &str) -> Result<usize, FaultKind>,
    ) -> Option<usize> {
        let name = self.get(key, given, values::name)?;
        let found = names(self, &name);
        found.map_err(|fault| self.faults.push((place(given).unwrap_or(0), fault))).ok()
    }

    /// The index of a VRF, `default` if none is given.
    fn vrf(&mut self, key: &'static str, given: &Given) -> usize {
        self.refer(key, given, |resolver, name| resolver.vrfs.find(key, name)).unwrap_or(0)
    }

    /// A name that a table declares.
    fn declare(&mut self, kind: &'static str, name: &Spanned<String>, check: fn(&str) -> Result<(), ValueError>) {
        if let Err(legal) = check(name.get_ref()) {
            let value = Value::Text(name.get_ref().clone()).to_string();
            self.faults.push((start(name), FaultKind::Value { key: kind, value, legal }));
        }
    }

    fn gateway(&mut self, table: &file::Gateway) -> Gateway {
        Gateway {
            workers: self.get("workers", &table.workers, values::workers).unwrap_or(Workers::Auto),
            control: self
                .get("control", &table.control, values::socket_path)
                .unwrap_or_else(|| super::DEFAULT_CONTROL.into()),
            metrics: self.get("metrics", &table.metrics, values::listen),
            icmp_errors_pps: self
                .get("icmp_errors", &table.icmp_errors, values::packet_rate)
                .unwrap_or(DEFAULT_ICMP_ERRORS_PPS),
            hash_seed: self.get("hash_seed", &table.hash_seed, values::hash_seed).unwrap_or(0),
            hash: self.get("hash", &table.hash, values::hash).unwrap_or(HashMode::Flow),
        }
    }

    fn all_vrfs(&mut self, tables: &[(&Spanned<String>, &file::Vrf)]) -> Vec<Vrf> {
        let mut vrfs = vec![Vrf { name: DEFAULT.to_owned(), table: Some(DEFAULT_TABLE) }];
        self.places.vrfs.push((None, None));
        for (name, table) in tables {
            let places = (Some(start(name)), place(&table.table));
            if name.get_ref() == DEFAULT {
                self.get("table", &table.table, values::default_table);
                self.places.vrfs[0] = places;
                continue;
            }
            self.declare("vrf", name, values::new_name);
            self.places.vrfs.push(places);
            let table = self.get("table", &table.table, values::table);
            vrfs.push(Vrf { name: name.get_ref().clone(), table });
        }
        vrfs
    }

    fn all_kernel_routes(&mut self, table: Option<&file::Kernel>, vrfs: &[Vrf]) -> Vec<KernelRoutes> {
        let Some(tables) = table.and_then(|table| table.routes.as_ref()) else {
            // So that a host that forwards goes on as before; a VRF with a table mirrors that.
            let mirrored = vrfs.iter().enumerate().filter_map(|(vrf, it)| it.table.map(|table| (table, vrf)));
            return mirrored.map(|(table, vrf)| KernelRoutes { table, vrf, protocols: None }).collect();
        };
        let mut list = Vec::with_capacity(tables.len());
        for spanned in tables {
            let entry = spanned.get_ref();
            let at = start(spanned);
            let Some(table) = self.need(("routes", at), "table", &entry.table, ValueError::Table) else { continue };
            self.places.kernel_routes.push(start(table));
            let table = self.parse("table", table, values::table).unwrap_or(DEFAULT_TABLE);
            let vrf = self.vrf("vrf", &entry.vrf);
            let protocols = self.list("protocols", &entry.protocols, values::protocol);
            list.push(KernelRoutes { table, vrf, protocols });
        }
        list
    }

    fn interface(&mut self, name: &Spanned<String>, table: &file::Interface) -> Interface {
        self.declare("interface", name, values::device_name);
        self.places.interfaces.push(InterfacePlace {
            name: start(name),
            parent: place(&table.parent),
            vlan: place(&table.vlan),
            mode: place(&table.mode),
            mtu: place(&table.mtu),
            rate: place(&table.rate),
        });
        let parent = self.refer("parent", &table.parent, |it, name| it.interfaces.find("parent", name));
        let vlan = self.get("vlan", &table.vlan, values::vlan);
        for (one, key, other) in [(&table.parent, "parent", "vlan"), (&table.vlan, "vlan", "parent")] {
            let both = table.parent.is_some() && table.vlan.is_some();
            if let (Some(at), false) = (place(one), both) {
                self.faults.push((at, FaultKind::Alone { key, other }));
            }
        }
        let vrf = self.vrf("vrf", &table.vrf);
        let own_way = if vrf == 0 { Fallback::Kernel } else { Fallback::Drop };
        Interface {
            name: name.get_ref().clone(),
            mode: self.get("mode", &table.mode, values::mode).unwrap_or(Mode::Auto),
            vrf,
            fallback: self.get("fallback", &table.fallback, values::fallback).unwrap_or(own_way),
            rpf: self.get("rpf", &table.rpf, values::rpf).unwrap_or(ReversePath::Off),
            parent: parent.zip(vlan),
            mac: self.get("mac", &table.mac, values::mac),
            addresses: self.list("address", &table.address, values::address).unwrap_or_default(),
            mtu: self.get("mtu", &table.mtu, values::mtu),
            policer: self.policer_of(&table.policer),
            rate: self.link_rate(table),
        }
    }

    fn tunnel(&mut self, name: &Spanned<String>, table: &file::Tunnel) -> Option<Tunnel> {
        // An address makes a Linux device of the tunnel; without one the name is only ours.
        let device = table.address.as_ref().is_some_and(|addresses| !each(addresses).is_empty());
        self.declare("tunnel", name, if device { values::device_name } else { values::new_name });
        let at = (&*format!("tunnel {:?}", name.get_ref()), start(name));
        let r#type = self.need(at, "type", &table.r#type, ValueError::Type)?;
        // Of another type the keys mean something else, so there is no more to say.
        let r#type = self.parse("type", r#type, values::tunnel_type)?;
        let kind = self.kind(at, r#type, table);
        let local_given = self.need(at, "local", &table.local, ValueError::Endpoint);
        let local = local_given.and_then(|local| self.parse("local", local, values::endpoint));
        let remote_given = self.need(at, "remote", &table.remote, ValueError::Endpoint);
        let remote = remote_given.and_then(|remote| self.parse("remote", remote, values::remote));
        let rest = Tunnel {
            name: name.get_ref().clone(),
            kind,
            local: local.unwrap_or(ANY_ADDRESS),
            remote: remote.unwrap_or(ANY_ADDRESS),
            vrf: self.vrf("vrf", &table.vrf),
            underlay_vrf: self.vrf("underlay_vrf", &table.underlay_vrf),
            addresses: self.list("address", &table.address, values::address).unwrap_or_default(),
            mac: self.get("mac", &table.mac, values::mac_or_auto).flatten(),
            remote_mac: self.get("remote_mac", &table.remote_mac, values::mac),
            mtu: self.get("mtu", &table.mtu, values::mtu_or_auto).flatten(),
            mss: self.get("mss", &table.mss, values::mss).unwrap_or(true),
            dscp: self.get("dscp", &table.dscp, values::dscp).flatten(),
            ecn: self.get("ecn", &table.ecn, values::ecn).unwrap_or(EcnMode::Normal),
            ttl: self.get("ttl", &table.ttl, values::ttl).unwrap_or(Some(DEFAULT_TTL)),
            df: self.get("df", &table.df, values::df).unwrap_or(Df::Set),
            checksum: self.get("checksum", &table.checksum, values::checksum).unwrap_or(UdpChecksum::Auto),
            allowed_sources: self.list("allowed_sources", &table.allowed_sources, values::prefix),
            policer: self.policer_of(&table.policer),
            cap: self.cap(table.cap.as_ref()),
        };
        self.places.tunnels.push(TunnelPlace {
            name: start(name),
            local: local_given.map_or(0, start),
            remote: remote_given.map_or(0, start),
            mtu: place(&table.mtu),
            checksum: place(&table.checksum),
            address: place(&table.address),
            cap: table.cap.as_ref().map(start),
        });
        Some(rest)
    }

    /// What only the type has; keys of other types are refused.
    fn kind(&mut self, at: (&str, usize), r#type: Type, table: &file::Tunnel) -> Kind {
        let kind = match r#type {
            Type::Vxlan => {
                Kind::Vxlan(Vxlan { vni: self.vni(at, table), port: self.udp_port(table, wire::Vxlan::PORT) })
            }
            Type::Geneve => Kind::Geneve(Geneve {
                vni: self.vni(at, table),
                port: self.udp_port(table, wire::Geneve::PORT),
                ethernet: self.get("inner", &table.inner, values::inner).unwrap_or(true),
            }),
            Type::Gre => Kind::Gre(Gre {
                key: self.get("key", &table.key, values::key),
                ethernet: self.get("inner", &table.inner, values::inner).unwrap_or(false),
            }),
            Type::Ip(ip) => Kind::Ip(ip),
        };
        let udp = kind.carrier().0 == protocol::UDP;
        let keys = [
            ("vni", &table.vni, udp),
            ("key", &table.key, matches!(kind, Kind::Gre(_))),
            ("port", &table.port, udp),
            ("checksum", &table.checksum, udp),
            ("inner", &table.inner, matches!(kind, Kind::Geneve(_) | Kind::Gre(_))),
        ];
        let of_ethernet = [("mac", &table.mac), ("remote_mac", &table.remote_mac)];
        let of_type = keys.into_iter().filter(|(_, _, has)| !has);
        let of_type = of_type.map(|(key, given, _)| (key, given, format!("of type {:?}", kind.name())));
        let of_ethernet = of_ethernet.into_iter().filter(|_| !kind.ethernet());
        let of_ethernet = of_ethernet.map(|(key, given)| (key, given, "with IP inside".to_owned()));
        for (key, given, of) in of_type.chain(of_ethernet) {
            if let Some(at) = place(given) {
                self.faults.push((at, FaultKind::NotOfTunnel { key, of }));
            }
        }
        kind
    }

    fn vni(&mut self, at: (&str, usize), table: &file::Tunnel) -> Vni {
        let vni = self.need(at, "vni", &table.vni, ValueError::Vni);
        vni.and_then(|vni| self.parse("vni", vni, values::vni)).unwrap_or(ANY_VNI)
    }

    fn udp_port(&mut self, table: &file::Tunnel, default: u16) -> u16 {
        self.get("port", &table.port, values::port).unwrap_or(default)
    }

    fn group(&mut self, name: &Spanned<String>, table: &file::TunnelGroup) -> TunnelGroup {
        self.declare("tunnel-group", name, values::new_name);
        let line = self.source.line(start(name));
        let mut group = TunnelGroup { name: name.get_ref().clone(), members: Vec::new(), line };
        let given = match &table.members {
            Some(given) if !given.get_ref().is_empty() => given,
            Some(empty) => {
                let fault = FaultKind::Value { key: "members", value: "[]".to_owned(), legal: ValueError::Members };
                self.faults.push((start(empty), fault));
                return group;
            }
            None => {
                let table = format!("tunnel-group {:?}", group.name);
                let fault = FaultKind::Missing { table, key: "members", legal: ValueError::Members };
                self.faults.push((start(name), fault));
                return group;
            }
        };
        let (count, max) = (given.get_ref().len(), Config::MAX_MEMBERS);
        if count > max {
            self.faults.push((start(given), FaultKind::TooManyMembers { key: "members", count, max }));
        }
        for spanned in given.get_ref() {
            let member = spanned.get_ref();
            let weight = self.get("weight", &member.weight, values::weight).unwrap_or(1);
            self.need(("members", start(spanned)), "tunnel", &member.tunnel, ValueError::Name);
            let tunnel = self.refer("tunnel", &member.tunnel, |it, name| it.tunnels.find("tunnel", name));
            let Some(tunnel) = tunnel else { continue };
            if group.members.iter().any(|other| other.tunnel == tunnel) {
                let hop = format!("tunnel = {:?}", self.tunnels.declared[tunnel]);
                let at = place(&member.tunnel).unwrap_or(start(spanned));
                self.faults.push((at, FaultKind::Twice { hop, of: "members" }));
            }
            group.members.push(Member { tunnel, weight });
        }
        group
    }

    fn all_routes(&mut self, file: &File) -> Vec<Route> {
        let mut routes = Vec::with_capacity(file.route.len());
        for table in &file.route {
            self.route(table, &mut routes);
        }
        let own = routes.len();
        for table in &file.route_list {
            self.route_list(table, &mut routes);
            if routes.len() - own > Config::MAX_LISTED {
                let fault = FaultKind::TooMany { table: "prefixes of route lists", max: Config::MAX_LISTED };
                self.faults.push((start(table), fault));
                break;
            }
        }
        routes
    }

    fn wrong<T>(&mut self, at: usize, fault: FaultKind) -> Option<T> {
        self.faults.push((at, fault));
        None
    }

    fn neighbour(&mut self, table: &Spanned<file::Neighbour>) -> Option<Neighbour> {
        let at = ("[[neighbour]]", start(table));
        let table = table.get_ref();
        let on = self.need(at, "interface", &table.interface, ValueError::Name);
        let on = on.and_then(|_| self.on(&table.interface));
        let address_given = self.need(at, "address", &table.address, ValueError::Unicast);
        let address = address_given.and_then(|address| self.parse("address", address, values::unicast));
        let mac = self.need(at, "mac", &table.mac, ValueError::Mac);
        let mac = mac.and_then(|mac| self.parse("mac", mac, values::mac));
        let neighbour = Neighbour { on: on?, address: address?, mac: mac? };
        self.places.neighbours.push(start(address_given?));
        Some(neighbour)
    }

    /// An interface, or a tunnel: no name is both.
    fn on(&mut self, given: &Given) -> Option<On> {
        let name = self.get("interface", given, values::name)?;
        if let Some(index) = self.tunnels.indices.get(&name) {
            return Some(On::Tunnel(*index));
        }
        if let Some(index) = self.interfaces.indices.get(&name) {
            return Some(On::Interface(*index));
        }
        let all: Vec<&String> = self.interfaces.declared.iter().chain(&self.tunnels.declared).collect();
        let declared = some(all.into_iter());
        let fault = FaultKind::NotDeclared { key: "interface", name, what: "interface or tunnel", declared };
        self.wrong(place(given)?, fault)
    }
}

/// Stand in for what was wrong; no `Config` with one is ever given out.
const ANY_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const ANY_VNI: Vni = Vni::new(0).expect("zero has 24 bits");
