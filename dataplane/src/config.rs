//! The configuration: one TOML file in, checked values out.
//!
//! There are two shapes. `File` (in `file.rs`) is what serde reads: the tables and keys of the file, each
//! value with its place. [`Config`] is what the program uses: every name is an index, every value is
//! legal, every default is filled in. Whoever holds a `Config` has nothing left to check.
//!
//! What only the host can tell is left out: whether an interface exists, what addresses the kernel
//! gave it, which driver mode it can do. Control finds that out and compares.

mod error;
mod file;
mod guarantees;
mod legal;
mod list;
mod prune;
mod resolve;
mod rules;
mod source;
mod values;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use source::Source;

use crate::hash;
use crate::packet::{Class, Family};
use crate::qos::{Account, ClassSpec, Limit, Rate, Weight, policer};
use crate::tables::filter::Match;
use crate::tables::{ReversePath, acl};
use crate::tunnel::Kind;
use wire::Mac;

pub use error::{ConfigError, Fault, FaultKind, Faults};
pub use guarantees::Fit;
pub use legal::ValueError;
pub use values::LOCAL_DEVICE;

/// A whole configuration, checked. Indices point into the lists of this same value.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What concerns the process as a whole.
    pub gateway: Gateway,
    /// The routing table instances. The first is always `default`, then in the file's order.
    pub vrfs: Vec<Vrf>,
    /// The interfaces that Penstock takes packets from, in the file's order. At most [`Config::MAX_INTERFACES`].
    pub interfaces: Vec<Interface>,
    /// Which kernel routes are mirrored, and where to.
    pub kernel_routes: Vec<KernelRoutes>,
    /// The tunnels, in the file's order. At most [`Config::MAX_TUNNELS`].
    pub tunnels: Vec<Tunnel>,
    /// The groups of tunnels, in the file's order. At most [`Config::MAX_GROUPS`].
    pub groups: Vec<TunnelGroup>,
    /// The static routes: those of `[[route]]` in the file's order, then those of each `[[route_list]]`. No VRF has
    /// two for one prefix.
    pub routes: Vec<Route>,
    /// The static neighbours, in the file's order.
    pub neighbours: Vec<Neighbour>,
    /// The access list, in the file's order. At most [`Config::MAX_RULES`].
    pub acl: Vec<AclRule>,
    /// The policers, in the file's order. At most [`Config::MAX_POLICERS`].
    pub policers: Vec<Policer>,
    /// The tenants, in the file's order, which is that of their matching. At most [`Config::MAX_TENANTS`].
    pub tenants: Vec<Tenant>,
    /// Classes; without, all packets of a tenant are of one class.
    pub qos: Option<Qos>,
    /// What is legal but probably not meant, in the file's order.
    pub warnings: Vec<Warning>,
}

/// `[gateway]`: the process as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// How many worker threads there are, and on which CPUs.
    pub workers: Workers,
    /// The control socket, an absolute path.
    pub control: PathBuf,
    /// Where metrics are read by HTTP; nowhere when absent. The port is not zero.
    pub metrics: Option<SocketAddr>,
    /// ICMP errors sent at most, in packets per second; 0 sends none.
    pub icmp_errors_pps: u32,
    /// Seeds the flow hash: gateways that replace each other share it, consecutive tiers differ.
    pub hash_seed: u64,
    /// What the flow hash tells apart.
    pub hash: HashMode,
}

/// What the flow hash tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashMode {
    /// Everything that a flow has in all its packets.
    Flow,
    /// The same for both directions of a flow: a stateful box behind a group sees the two.
    Symmetric,
}

/// How many worker threads there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Workers {
    /// As many as the most queues of any interface, but one fewer than the CPUs; at least one.
    Auto,
    /// This many, on CPUs of our choice: 1..=[`Config::MAX_WORKERS`].
    Count(u16),
    /// One on each of these CPUs: none twice, at least one.
    Cpus(Vec<u16>),
}

/// `[vrf.NAME]`: a routing table instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Vrf {
    /// Its name in this file.
    pub name: String,
    /// The kernel table that it mirrors and exports to; 254 for `default`. No two VRFs share one.
    pub table: Option<u32>,
}

/// `[interface.NAME]`: a Linux interface, or a VLAN of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// The Linux name.
    pub name: String,
    /// How its sockets are bound. A VLAN has its parent's.
    pub mode: Mode,
    /// Index of the VRF in which its packets are looked up.
    pub vrf: usize,
    /// What XDP does with packets that no socket takes.
    pub fallback: Fallback,
    /// What the sources of its packets are checked against.
    pub rpf: ReversePath,
    /// For a VLAN: the index of the interface that carries it (itself no VLAN), and the tag, 1..=4094.
    pub parent: Option<(usize, u16)>,
    /// Its MAC, for when there is no host to ask. Unicast, not zero.
    pub mac: Option<[u8; 6]>,
    /// Its addresses with their subnets (host bits are kept), for when there is no host to ask.
    pub addresses: Vec<IpNet>,
    /// Its MTU in octets, for when there is no host to ask.
    pub mtu: Option<u16>,
    /// Index of the policer of what comes in by it, but not out of a tunnel.
    pub policer: Option<usize>,
    /// The link's rate, for guarantees and shares. A VLAN has its parent's.
    pub rate: Option<Rate>,
}

/// How AF_XDP sockets of an interface are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The fastest that the driver can do.
    Auto,
    /// Driver mode, the NIC writes into our memory. Refused where the driver cannot.
    ZeroCopy,
    /// Driver mode, the kernel copies each frame.
    Copy,
    /// After the kernel has made its own packet buffer: any driver, slowest.
    Generic,
}

/// What XDP does with packets that no socket takes: before start, and after the process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The kernel forwards them by its own routes. The default in the VRF `default`.
    Kernel,
    /// They are dropped: a tenant's packets never leave in clear. The default in all other VRFs.
    Drop,
}

/// An entry of `[kernel] routes`: kernel routes that are mirrored.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelRoutes {
    /// The kernel's table.
    pub table: u32,
    /// Index of the VRF that gets the routes.
    pub vrf: usize,
    /// Only routes of these protocols; `None` takes all, an empty list none.
    pub protocols: Option<Vec<Protocol>>,
}

/// Who put a route into the kernel: the `rtm_protocol` of rtnetlink. Never Penstock's own, 80.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

/// `[tunnel.NAME]`: an encapsulation towards one remote end.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnel {
    /// Its name in this file, and that of its Linux device if it has addresses.
    pub name: String,
    /// The type, and what only that type has.
    pub kind: Kind,
    /// Outer source address. Unicast, of the same family as `remote`.
    pub local: IpAddr,
    /// Outer destination address. Unicast.
    pub remote: IpAddr,
    /// Index of the VRF of the inside.
    pub vrf: usize,
    /// Index of the VRF of the outside.
    pub underlay_vrf: usize,
    /// Inside addresses with their subnets (host bits are kept). With any, the tunnel has a Linux device.
    pub addresses: Vec<IpNet>,
    /// Inside MAC; `None` derives one from name, local and remote.
    pub mac: Option<[u8; 6]>,
    /// Inner destination MAC; `None` resolves it on the device.
    pub remote_mac: Option<[u8; 6]>,
    /// Inner MTU in octets; `None` is the path's less the overhead.
    pub mtu: Option<u16>,
    /// Whether the MSS of TCP SYNs is lowered to what fits.
    pub mss: bool,
    /// Outer DSCP, 0..=63; `None` copies the inner one (RFC 2983).
    pub dscp: Option<u8>,
    /// How ECN is carried to the outer header (RFC 6040 §4.1).
    pub ecn: EcnMode,
    /// Outer TTL or hop limit, 1..=255; `None` copies the inner one.
    pub ttl: Option<u8>,
    /// The outer IPv4 header's Don't Fragment bit.
    pub df: Df,
    /// The outer UDP checksum.
    pub checksum: UdpChecksum,
    /// What inner source addresses are let in; `None` is any.
    pub allowed_sources: Option<Vec<IpNet>>,
    /// Index of the policer of what comes out of it.
    pub policer: Option<usize>,
    /// What goes into it at most.
    pub cap: Limit,
}

/// How ECN is carried to the outer header (RFC 6040 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcnMode {
    /// The inner field is copied.
    Normal,
    /// The outer field is Not-ECT: for a remote end that does not know RFC 6040.
    Compatible,
}

/// The outer IPv4 header's Don't Fragment bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Df {
    /// Always set: path MTU discovery works.
    Set,
    /// As in the inner header; set for inner IPv6.
    Copy,
    /// Never set.
    Clear,
}

/// The outer UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    /// Zero over IPv4, full over IPv6.
    Auto,
    /// Zero: over IPv6 by RFC 6935 only, and many receivers drop it.
    Zero,
    /// Always computed.
    Full,
}

/// `[tunnel-group.NAME]`: several tunnels as one next hop.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelGroup {
    /// Its name in this file.
    pub name: String,
    /// Who shares its traffic, in the file's order: at least one, no tunnel twice, at most [`Config::MAX_MEMBERS`].
    pub members: Vec<Member>,
    /// Line of the file, from 1.
    pub line: usize,
}

/// A tunnel of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its index.
    pub tunnel: usize,
    /// Its share relative to the others', 1..=[`Config::MAX_WEIGHT`].
    pub weight: u16,
}

/// `[[route]]`, or a line of a `[[route_list]]`'s file: a static route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Where to; no host bits are set.
    pub prefix: IpNet,
    /// Index of the VRF that has the route.
    pub vrf: usize,
    /// By which ways: at least one, none twice; [`Via::Blackhole`] and [`Via::Unreachable`] stand alone. The routes of a
    /// list share one.
    pub via: Arc<[Hop]>,
    /// Whether a route by a tunnel is also installed in the kernel's table of the VRF.
    pub kernel: bool,
    /// Whether the next hop may be in another VRF.
    pub leak: bool,
    /// Where it is written.
    pub place: Place,
}

/// Where a route is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The list's file, if it is not the configuration itself.
    pub list: Option<Arc<Path>>,
    /// Line of that file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// `cloud-prefixes.txt:3`, or `line 3` of the configuration itself.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.list {
            Some(list) => write!(f, "{}:{}", list.display(), self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}

/// One of the ways that a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Where to.
    pub via: Via,
    /// Its share relative to the others', 1..=[`Config::MAX_WEIGHT`].
    pub weight: u16,
}

/// Where a route points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Into a tunnel.
    Tunnel {
        /// Its index.
        tunnel: usize,
        /// The inside address whose MAC the inner frame gets.
        next_hop: Option<IpAddr>,
    },
    /// Into one of the tunnels of the group of this index.
    Group(usize),
    /// To a neighbour.
    NextHop {
        /// Its address, of the prefix's family.
        address: IpAddr,
        /// Index of the interface it is on; `None` looks it up in the route's VRF.
        interface: Option<usize>,
    },
    /// Dropped without a word.
    Blackhole,
    /// Dropped with an ICMP unreachable.
    Unreachable,
}

/// `[[neighbour]]`: a static neighbour where the kernel has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// Where it is.
    pub on: On,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC. Unicast, not zero.
    pub mac: [u8; 6],
}

/// Where a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    /// On the interface of this index.
    Interface(usize),
    /// Inside the tunnel of this index.
    Tunnel(usize),
}

/// `[[acl]]`: a rule of the access list.
#[derive(Clone, Debug, PartialEq)]
pub struct AclRule {
    /// Which packets, and what happens to them.
    pub rule: acl::Rule,
    /// Line of the file, from 1.
    pub line: usize,
}

/// `[policer.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policer {
    /// Its name in this file.
    pub name: String,
    /// What it promises.
    pub profile: policer::Profile,
}

/// `[tenant.NAME]`: whose packets share what they wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name in this file.
    pub name: String,
    /// Which packets are its own. Of `default`, all that are nobody else's.
    pub matches: Match,
    /// What it gets of each port whatever others do.
    pub guarantee: Option<Rate>,
    /// What it never gets more of, of each port.
    pub limit: Limit,
    /// Its share of what is left.
    pub weight: Weight,
    /// Index of the policer of what is its own, whatever way it comes in.
    pub policer: Option<usize>,
    /// What it never sends more of into a tunnel, by the tunnel's index, in the file's order.
    pub via: Vec<(usize, Limit)>,
    /// Line of its guarantee, else of its name, from 1.
    pub line: usize,
}

impl Tenant {
    /// Whose packets are that no other tenant matches.
    pub const DEFAULT: &str = "default";
}

/// `[qos]`: what tenants' packets wait in.
#[derive(Clone, Debug, PartialEq)]
pub struct Qos {
    /// Which octets count.
    pub account: Account,
    /// All classes, by number.
    pub classes: [ClassSpec; Class::COUNT],
    /// What makes a packet of a class: the first that it meets.
    pub rules: Vec<(Match, Class)>,
    /// The class of all others.
    pub rest: Class,
}

impl AclRule {
    /// What packets it is for, in one line: names of this configuration, the words of the file.
    pub fn describe(&self, config: &Config) -> String {
        let rule = &self.rule.matches;
        let list = |values: Vec<String>| values.join(",");
        let protocol = |number: &u8| {
            let known = legal::IP_PROTOCOLS.iter().find(|known| known.1 == *number);
            known.map_or_else(|| number.to_string(), |known| known.0.to_owned())
        };
        let ports = |ranges: &[RangeInclusive<u16>]| {
            let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
                (from, to) if from == to => from.to_string(),
                (from, to) => format!("{from}-{to}"),
            };
            list(ranges.iter().map(one).collect())
        };
        let prefixes = |nets: &[IpNet]| list(nets.iter().map(IpNet::to_string).collect());
        let numbers = |numbers: &[u8]| list(numbers.iter().map(u8::to_string).collect());
        let parts = [
            ("vrf", rule.vrf.map(|vrf| config.vrfs[vrf.index()].name.clone()).unwrap_or_default()),
            ("interface", rule.interface.map(|id| config.interfaces[id.index()].name.clone()).unwrap_or_default()),
            ("tunnel", rule.tunnel.map(|id| config.tunnels[id.index()].name.clone()).unwrap_or_default()),
            ("protocol", list(rule.protocols.iter().map(protocol).collect())),
            ("source", prefixes(&rule.sources)),
            ("source_port", ports(&rule.source_ports)),
            ("destination", prefixes(&rule.destinations)),
            ("destination_port", ports(&rule.destination_ports)),
            ("dscp", numbers(&rule.dscps)),
        ];
        let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
        let given: Vec<_> = given.map(|(key, value)| format!("{key} {value}")).collect();
        if given.is_empty() { "any".to_owned() } else { given.join(", ") }
    }
}

/// Something legal that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line of the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl Config {
    /// A port's number fits `u16` with room for queues beside it.
    pub const MAX_INTERFACES: usize = 256;
    /// Tunnels at most.
    pub const MAX_TUNNELS: usize = 4096;
    /// Tenants at most.
    pub const MAX_TENANTS: usize = 4096;
    /// VRFs at most, `default` included.
    pub const MAX_VRFS: usize = 1024;
    /// Groups of tunnels at most.
    pub const MAX_GROUPS: usize = 4096;
    /// Ways that one route has at most, the members of its groups counted.
    pub const MAX_MEMBERS: usize = 64;
    /// The greatest weight.
    pub const MAX_WEIGHT: u16 = 256;
    /// Static routes at most, those of lists apart.
    pub const MAX_ROUTES: usize = 65_536;
    /// Lists of routes at most.
    pub const MAX_LISTS: usize = 1024;
    /// Static routes of all lists together at most: more than a full table of the Internet.
    pub const MAX_LISTED: usize = 1 << 20;
    /// Distinct next hops at most, and among them distinct sets of several: what a FIB entry can tell apart.
    pub const MAX_NEXT_HOPS: usize = 32_767;
    /// Static neighbours at most.
    pub const MAX_NEIGHBOURS: usize = 65_536;
    /// Rules of the access list at most.
    pub const MAX_RULES: usize = 4096;
    /// Prefixes, and likewise ranges of ports, of all rules together at most.
    pub const MAX_RULE_VALUES: usize = 16_384;
    /// Policers at most.
    pub const MAX_POLICERS: usize = 4096;
    /// Worker threads at most.
    pub const MAX_WORKERS: usize = 256;
    /// Octets that a file has at most.
    pub const MAX_FILE: usize = 16 << 20;
    /// Octets that the file of a list has at most.
    pub const MAX_LIST_FILE: usize = 64 << 20;

    /// Reads and checks a file, and those that it names.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let octets = read(path, Self::MAX_FILE);
        let octets = octets.map_err(|reason| ConfigError::Read { path: path.to_owned(), reason })?;
        let octets = octets.ok_or_else(|| ConfigError::TooLarge { path: path.to_owned() })?;
        match str::from_utf8(&octets) {
            Ok(text) => Self::parse(text, path),
            Err(error) => {
                let text = str::from_utf8(&octets[..error.valid_up_to()]).expect("valid up to there, the error says");
                let source = Source::new(path.to_owned(), text);
                Err(source.error(vec![(text.len(), FaultKind::NotUtf8)], Vec::new()))
            }
        }
    }

    /// Checks a text; errors name `path` as its file, and the files of lists are relative to its folder.
    pub fn parse(text: &str, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let source = Source::new(path.into(), text);
        let (mut table, mut faults) = match toml::de::DeTable::parse(text) {
            Ok(table) => (table, Vec::new()),
            Err(error) => return Err(source.error(vec![syntax(&error, text)], Vec::new())),
        };
        faults.extend(prune::prune(table.get_mut()));
        let file = match file::File::deserialize(toml::de::Deserializer::from(table)) {
            Ok(file) => file,
            Err(error) => {
                faults.push(syntax(&error, text));
                return Err(source.error(faults, Vec::new()));
            }
        };
        let (mut config, places, faults, listed) = resolve::resolve(&file, &source, faults);
        if !faults.is_empty() || !listed.is_empty() {
            return Err(source.error(faults, listed));
        }
        let (faults, listed) = rules::check(&mut config, &places, &source);
        if faults.is_empty() && listed.is_empty() { Ok(config) } else { Err(source.error(faults, listed)) }
    }

    /// The ways of a route with their weights, and in the place of each group its members: those have the product of
    /// the two weights, so that a group stands for its tunnels. None is a [`Via::Group`]; the first way's are the first.
    pub fn flatten(&self, hops: &[Hop]) -> impl Iterator<Item = (Via, u32)> {
        hops.iter().flat_map(|hop| {
            let (members, single) = match hop.via {
                Via::Group(group) => (&self.groups[group].members[..], None),
                via => (&[][..], Some((via, hop.weight.into()))),
            };
            let members = members.iter().map(|member| {
                let via = Via::Tunnel { tunnel: member.tunnel, next_hop: None };
                (via, u32::from(hop.weight) * u32::from(member.weight))
            });
            members.chain(single)
        })
    }

    /// The interface that a tunnel's packets leave by, and its MTU in octets, as far as the file tells: the one
    /// of the underlay VRF whose subnet has the tunnel's local address.
    pub fn underlay(&self, tunnel: &Tunnel) -> Option<(usize, u16)> {
        let mut candidates = self.interfaces.iter().enumerate().filter(|(_, it)| it.vrf == tunnel.underlay_vrf);
        let (index, interface) =
            candidates.find(|(_, it)| it.addresses.iter().any(|subnet| subnet.contains(&tunnel.local)))?;
        Some((index, interface.mtu.unwrap_or(DEFAULT_MTU)))
    }

    /// The inner MTU of a tunnel in octets, as far as the file tells: its own, else the underlay's less the overhead.
    pub fn inner_mtu(&self, tunnel: &Tunnel) -> u16 {
        let underlay = self.underlay(tunnel).map_or(DEFAULT_MTU, |(_, mtu)| mtu);
        tunnel.mtu.unwrap_or_else(|| underlay.saturating_sub(tunnel.overhead()))
    }
}

impl Tunnel {
    /// Octets that the tunnel puts before an inner IP packet, the outer IP header included.
    pub fn overhead(&self) -> u16 {
        self.kind.overhead(Family::of(self.local))
    }

    /// The MAC of the gateway inside a tunnel that carries Ethernet: the file's, or one made of name and ends, so that it
    /// is the same after a restart and in `replay`. Locally administered, unicast.
    pub fn inside_mac(&self) -> Mac {
        let made = || {
            let octets = hash::stable(&format!("{} {} {}", self.name, self.local, self.remote)).to_be_bytes();
            [0x02, octets[3], octets[4], octets[5], octets[6], octets[7]]
        };
        Mac::new(self.mac.unwrap_or_else(made))
    }
}

/// Checks a text that has no file; errors call it `config`.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, "config")
    }
}

/// The whole of a file; `None` if it is longer than `max` octets.
fn read(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut octets = Vec::new();
    // One more than allowed, to tell the end from a cut.
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut octets)?;
    Ok((octets.len() <= max).then_some(octets))
}

fn syntax(error: &toml::de::Error, text: &str) -> (usize, FaultKind) {
    let span = error.span().unwrap_or_default();
    let kind = match (error.message(), text.get(span.clone())) {
        ("duplicate key", Some(key)) if !key.is_empty() => FaultKind::DuplicateKey { key: key.to_owned() },
        (message, _) => FaultKind::Syntax { message: message.to_owned() },
    };
    (span.start, kind)
}

/// The kernel's main table.
const DEFAULT_TABLE: u32 = 254;
/// Of an interface that the file does not give one, in octets.
const DEFAULT_MTU: u16 = 1500;
const DEFAULT_CONTROL: &str = "/run/penstock/control.sock";
const DEFAULT_ICMP_ERRORS_PPS: u32 = 1_000;
const DEFAULT_TTL: u8 = 64;
