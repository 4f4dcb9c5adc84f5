//! Single values: from what the file says to what the program uses, or what would have been legal.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use wire::Vni;

use super::file::Value;
use super::legal::{IP_PROTOCOLS, ValueError};
use super::{Config, Df, EcnMode, Fallback, HashMode, Mode, Protocol, UdpChecksum, Workers};
use crate::packet::{Family, is_link_local};
use crate::qos::policer::{self, Kind, Profile};
use crate::qos::{Account, Aqm, Codel, NotCapable, Red, Weight};
use crate::tables::ReversePath;
use crate::tables::acl::Action;
use crate::tunnel::IpInIp;

/// The word's meaning, or all the words that have one.
macro_rules! choice {
    ($name:ident -> $type:ty { $($word:literal => $meaning:expr),+ $(,)? }) => {
        pub fn $name(value: &Value) -> Result<$type, ValueError> {
            match text(value) {
                $(Some($word) => Ok($meaning),)+
                _ => Err(ValueError::Word(&[$($word),+])),
            }
        }
    };
}

choice!(mode -> Mode {
    "auto" => Mode::Auto, "zero-copy" => Mode::ZeroCopy, "copy" => Mode::Copy, "generic" => Mode::Generic,
});
choice!(fallback -> Fallback { "kernel" => Fallback::Kernel, "drop" => Fallback::Drop });
choice!(rpf -> ReversePath {
    "off" => ReversePath::Off, "loose" => ReversePath::Loose, "strict" => ReversePath::Strict,
});
choice!(hash -> HashMode { "flow" => HashMode::Flow, "symmetric" => HashMode::Symmetric });
choice!(action -> Action { "permit" => Action::Permit, "deny" => Action::Deny, "reject" => Action::Reject });
choice!(policer_kind -> Kind { "rfc2697" => Kind::Rfc2697, "rfc2698" => Kind::Rfc2698, "rfc4115" => Kind::Rfc4115 });
choice!(inner -> bool { "ethernet" => true, "ip" => false });
choice!(mss -> bool { "auto" => true, "off" => false });
choice!(ecn -> EcnMode { "normal" => EcnMode::Normal, "compatible" => EcnMode::Compatible });
choice!(df -> Df { "set" => Df::Set, "copy" => Df::Copy, "clear" => Df::Clear });
choice!(checksum -> UdpChecksum {
    "auto" => UdpChecksum::Auto, "zero" => UdpChecksum::Zero, "full" => UdpChecksum::Full,
});

choice!(account -> Account {
    "l1" => Account::L1, "l2" => Account::L2, "l3-outer" => Account::L3Outer, "inner" => Account::Inner,
});
choice!(classes -> () { "gpu-gateway" => () });
choice!(service -> bool { "strict" => true, "drr" => false });
choice!(not_ecn -> NotCapable { "drop" => NotCapable::Drop, "pass" => NotCapable::Pass });
choice!(aqm -> Aqm {
    "tail" => Aqm::Tail, "red" => Aqm::Red(Red::SWITCH), "codel" => Aqm::Codel(Codel::WAN),
    "fq-codel" => Aqm::FqCodel(Codel::WAN),
});

/// Of an AQM that has no kind.
pub const AQM: ValueError = ValueError::Word(&["tail", "red", "codel", "fq-codel"]);

/// Which of the presets a cap is.
pub fn cap(value: &Value, presets: &'static [&'static str]) -> Result<usize, ValueError> {
    let preset = text(value).and_then(|text| presets.iter().position(|preset| *preset == text));
    preset.ok_or(ValueError::Preset(presets))
}

/// A tenant's share of what is left.
pub fn tenant_weight(value: &Value) -> Result<u16, ValueError> {
    integer::<u16>(value).filter(|weight| (1..=Weight::MAX).contains(weight)).ok_or(ValueError::TenantWeight)
}

/// A class's share of its tenant's turn.
pub fn share(value: &Value) -> Result<u16, ValueError> {
    integer::<u16>(value).filter(|share| (1..=1_000).contains(share)).ok_or(ValueError::Share)
}

pub fn percent(value: &Value) -> Result<u8, ValueError> {
    integer::<u8>(value).filter(|percent| (1..=100).contains(percent)).ok_or(ValueError::Percent)
}

/// Nanoseconds.
pub fn time(value: &Value) -> Result<u32, ValueError> {
    let ns = with_unit(value, &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)]);
    let ns = ns.and_then(|ns| u32::try_from(ns).ok());
    ns.filter(|ns| (1..=4_000_000_000).contains(ns)).ok_or(ValueError::Time)
}

/// Of a policer that has no kind.
pub const POLICER_KIND: ValueError = ValueError::Word(&["rfc2697", "rfc2698", "rfc4115"]);

/// What happens to a packet, in a word.
pub fn reaction(value: &Value) -> Result<policer::Action, ValueError> {
    match text(value) {
        Some("pass") => Ok(policer::Action::Pass),
        Some("drop") => Ok(policer::Action::Drop),
        Some("ce") => Ok(policer::Action::Ce),
        _ => Err(ValueError::Reaction),
    }
}

/// Of a rule that has no action.
pub const ACTION: ValueError = ValueError::Word(&["permit", "deny", "reject"]);

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// An integer that the type can hold.
fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    match value {
        Value::Integer(number) => T::try_from(*number).ok(),
        _ => None,
    }
}

pub fn boolean(value: &Value) -> Result<bool, ValueError> {
    match value {
        Value::Boolean(truth) => Ok(*truth),
        _ => Err(ValueError::Boolean),
    }
}

/// A name that refers to a table.
pub fn name(value: &Value) -> Result<String, ValueError> {
    text(value).map(str::to_owned).ok_or(ValueError::Name)
}

/// The name of a class, which has no table of its own.
pub fn class_name(value: &Value) -> Result<String, ValueError> {
    let name = text(value).filter(|name| new_name(name).is_ok());
    name.map(str::to_owned).ok_or(ValueError::NewName)
}

/// A name that a table gives to what has no Linux device.
pub fn new_name(name: &str) -> Result<(), ValueError> {
    let legal = (1..=64).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if legal { Ok(()) } else { Err(ValueError::NewName) }
}

/// The TUN for packets to the host's own addresses in the default VRF.
pub const LOCAL_DEVICE: &str = "penstock0";

/// A name that a Linux device can have (the kernel's `dev_valid_name`), and that is not taken.
pub fn device_name(name: &str) -> Result<(), ValueError> {
    let foreign = |c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
    if !(1..=15).contains(&name.len()) || name.contains(foreign) || matches!(name, "." | "..") {
        return Err(ValueError::DeviceName);
    }
    if matches!(name, "lo" | LOCAL_DEVICE) { Err(ValueError::ReservedName) } else { Ok(()) }
}

pub fn workers(value: &Value) -> Result<Workers, ValueError> {
    let workers = match value {
        Value::Text(text) if text == "auto" => Workers::Auto,
        Value::Integer(_) => {
            let count = integer::<u16>(value).filter(|count| (1..=Config::MAX_WORKERS).contains(&usize::from(*count)));
            Workers::Count(count.ok_or(ValueError::Workers)?)
        }
        Value::List(list) if (1..=Config::MAX_WORKERS).contains(&list.len()) => {
            let mut cpus = Vec::with_capacity(list.len());
            for value in list {
                let cpu = integer::<u16>(value.get_ref()).filter(|cpu| *cpu < 1024 && !cpus.contains(cpu));
                cpus.push(cpu.ok_or(ValueError::Workers)?);
            }
            Workers::Cpus(cpus)
        }
        _ => return Err(ValueError::Workers),
    };
    Ok(workers)
}

pub fn socket_path(value: &Value) -> Result<PathBuf, ValueError> {
    // unix(7): sun_path has 108 octets, the last of them zero.
    let legal = |path: &&str| path.len() <= 107 && path.starts_with('/') && !path.contains('\0');
    text(value).filter(legal).map(PathBuf::from).ok_or(ValueError::SocketPath)
}

/// Where to listen for TCP.
pub fn listen(value: &Value) -> Result<SocketAddr, ValueError> {
    let address: Option<SocketAddr> = text(value).and_then(|text| text.parse().ok());
    let legal = |address: &SocketAddr| {
        let group = match address.ip() {
            // Limited broadcast and what lies below it (RFC 1112 §4) no host can have.
            IpAddr::V4(address) => address.octets()[0] >= 224,
            IpAddr::V6(address) => address.is_multicast(),
        };
        address.port() != 0 && !group
    };
    address.filter(legal).ok_or(ValueError::Listen)
}

/// A rate in packets per second, written `"1kpps"` or `"1.5Mpps"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate(pub u32);

impl FromStr for PacketRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.strip_suffix("pps").ok_or(ValueError::PacketRate)?.trim_end();
        let (number, unit) = match number.as_bytes().last() {
            Some(b'k') => (&number[..number.len() - 1], 1_000),
            Some(b'M') => (&number[..number.len() - 1], 1_000_000),
            Some(b'G') => (&number[..number.len() - 1], 1_000_000_000),
            _ => (number, 1),
        };
        let rate = decimal(number.trim_end(), unit).and_then(|rate| u32::try_from(rate).ok());
        rate.map(Self).ok_or(ValueError::PacketRate)
    }
}

/// A decimal number such as `1.25`, times its unit: exact, or `None` where a fraction of one would remain.
fn decimal(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| (1..=10).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // Ten digits times 10¹² stay far below what u128 holds: no product overflows.
    let (scale, unit) = (10_u128.pow(u32::try_from(fraction.len()).ok()?), u128::from(unit));
    let (whole, fraction): (u128, u128) = (whole.parse().ok()?, fraction.parse().ok()?);
    if !(fraction * unit).is_multiple_of(scale) {
        return None;
    }
    u64::try_from(whole * unit + fraction * unit / scale).ok()
}

pub fn packet_rate(value: &Value) -> Result<u32, ValueError> {
    let rate: PacketRate = text(value).ok_or(ValueError::PacketRate)?.parse()?;
    Ok(rate.0)
}

/// A packet rate that lets something pass.
pub fn packets(value: &Value) -> Result<u32, ValueError> {
    packet_rate(value).ok().filter(|rate| (1..=1_000_000_000).contains(rate)).ok_or(ValueError::Packets)
}

/// The number before the first of `units` that the text ends in, times that unit.
fn with_unit(value: &Value, units: &[(&str, u64)]) -> Option<u64> {
    let text = text(value)?;
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    decimal(number.trim_end(), unit)
}

/// Bits per second.
pub fn rate(value: &Value) -> Result<u64, ValueError> {
    let units = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];
    with_unit(value, &units).filter(|rate| (8_000..=1_600_000_000_000).contains(rate)).ok_or(ValueError::Rate)
}

/// Octets.
pub fn burst(value: &Value) -> Result<u32, ValueError> {
    let units = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1)];
    let octets = with_unit(value, &units).and_then(|octets| u32::try_from(octets).ok());
    octets.filter(|octets| (1..=Profile::MOST_BURST).contains(octets)).ok_or(ValueError::Burst)
}

pub fn hash_seed(value: &Value) -> Result<u64, ValueError> {
    integer(value).ok_or(ValueError::HashSeed)
}

pub fn weight(value: &Value) -> Result<u16, ValueError> {
    integer::<u16>(value).filter(|weight| (1..=Config::MAX_WEIGHT).contains(weight)).ok_or(ValueError::Weight)
}

/// Absolute, or relative to the folder of the configuration.
pub fn list_file(value: &Value) -> Result<PathBuf, ValueError> {
    let legal = |path: &&str| !path.is_empty() && !path.contains('\0');
    text(value).filter(legal).map(PathBuf::from).ok_or(ValueError::ListFile)
}

pub fn table(value: &Value) -> Result<u32, ValueError> {
    integer::<u32>(value).filter(|table| !matches!(table, 0 | 255)).ok_or(ValueError::Table)
}

pub fn default_table(value: &Value) -> Result<u32, ValueError> {
    integer::<u32>(value).filter(|table| *table == super::DEFAULT_TABLE).ok_or(ValueError::DefaultTable)
}

pub fn vlan(value: &Value) -> Result<u16, ValueError> {
    integer::<u16>(value).filter(|vlan| (1..=4094).contains(vlan)).ok_or(ValueError::Vlan)
}

/// A unicast MAC that is not zero, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut mac = [0; 6];
        let mut octets = text.split(':');
        for octet in &mut mac {
            // `from_str_radix` alone would take a sign.
            let digits = octets.next().filter(|two| two.len() == 2 && two.bytes().all(|c| c.is_ascii_hexdigit()));
            *octet = digits.and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or(ValueError::Mac)?;
        }
        // The first octet's lowest bit makes a group address of it.
        let legal = octets.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6];
        if legal { Ok(Self(mac)) } else { Err(ValueError::Mac) }
    }
}

pub fn mac(value: &Value) -> Result<[u8; 6], ValueError> {
    let mac: Mac = text(value).ok_or(ValueError::Mac)?.parse()?;
    Ok(mac.0)
}

/// `None` for `"auto"`.
pub fn mac_or_auto(value: &Value) -> Result<Option<[u8; 6]>, ValueError> {
    match text(value) {
        Some("auto") => Ok(None),
        _ => mac(value).map(Some).map_err(|_| ValueError::MacOrAuto),
    }
}

pub fn mtu(value: &Value) -> Result<u16, ValueError> {
    // RFC 791 §3.2: 576 octets are what every host accepts; below that path MTU discovery ends.
    integer::<u16>(value).filter(|mtu| *mtu >= 576).ok_or(ValueError::Mtu)
}

/// `None` for `"auto"`.
pub fn mtu_or_auto(value: &Value) -> Result<Option<u16>, ValueError> {
    match text(value) {
        Some("auto") => Ok(None),
        _ => mtu(value).map(Some).map_err(|_| ValueError::MtuOrAuto),
    }
}

/// An address that one host can have, in the ranges that are forwarded (RFC 1812 §5.3.7).
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        // An IPv4-mapped one is IPv4 in disguise, and no packet carries it (RFC 4038 §4.2).
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
                && address.to_ipv4_mapped().is_none()
        }
    }
}

/// An address with its subnet; host bits are kept.
pub fn address(value: &Value) -> Result<IpNet, ValueError> {
    let subnet: IpNet = text(value).and_then(|text| text.parse().ok()).ok_or(ValueError::Address)?;
    if !is_unicast(subnet.addr()) || subnet.prefix_len() == 0 {
        return Err(ValueError::Address);
    }
    // RFC 3021: the two addresses of a /31 are both hosts; so is that of a /32. IPv6 has no broadcast,
    // and its subnet-router anycast address may be configured.
    if let IpNet::V4(subnet) = subnet
        && subnet.prefix_len() < 31
        && (subnet.addr() == subnet.network() || subnet.addr() == subnet.broadcast())
    {
        return Err(ValueError::SubnetAddress);
    }
    Ok(subnet)
}

pub fn prefix(value: &Value) -> Result<IpNet, ValueError> {
    text(value).ok_or(ValueError::Prefix).and_then(prefix_of)
}

/// A prefix without host bits.
pub fn prefix_of(text: &str) -> Result<IpNet, ValueError> {
    let prefix: IpNet = text.parse().map_err(|_| ValueError::Prefix)?;
    if prefix == prefix.trunc() { Ok(prefix) } else { Err(ValueError::HostBits(prefix.trunc())) }
}

pub fn unicast(value: &Value) -> Result<IpAddr, ValueError> {
    let address = text(value).and_then(|text| text.parse().ok()).filter(|address| is_unicast(*address));
    address.ok_or(ValueError::Unicast)
}

/// An end of a tunnel. Link-local ones never reach a worker: those are the host's own affair.
pub fn endpoint(value: &Value) -> Result<IpAddr, ValueError> {
    unicast(value).ok().filter(|address| !is_link_local(*address)).ok_or(ValueError::Endpoint)
}

pub fn remote(value: &Value) -> Result<IpAddr, ValueError> {
    if text(value) == Some("any") { Err(ValueError::AnyEndpoint) } else { endpoint(value) }
}

/// A tunnel's type, before what only that type has.
#[derive(Clone, Copy)]
pub enum Type {
    Vxlan,
    Geneve,
    Gre,
    Ip(IpInIp),
}

pub fn tunnel_type(value: &Value) -> Result<Type, ValueError> {
    use Family::{V4, V6};
    let ip = |outer, inner| Ok(Type::Ip(IpInIp { outer, inner }));
    match text(value) {
        Some("vxlan") => Ok(Type::Vxlan),
        Some("geneve") => Ok(Type::Geneve),
        Some("gre") => Ok(Type::Gre),
        Some("ipip") => ip(V4, V4),
        Some("sit") => ip(V4, V6),
        Some("ip6ip6") => ip(V6, V6),
        Some("ip4ip6") => ip(V6, V4),
        Some("esp" | "wireguard") => Err(ValueError::TypeLater),
        _ => Err(ValueError::Type),
    }
}

pub fn key(value: &Value) -> Result<u32, ValueError> {
    integer::<u32>(value).ok_or(ValueError::Key)
}

pub fn vni(value: &Value) -> Result<Vni, ValueError> {
    integer::<u32>(value).and_then(Vni::new).ok_or(ValueError::Vni)
}

pub fn port(value: &Value) -> Result<u16, ValueError> {
    integer::<u16>(value).filter(|port| *port != 0).ok_or(ValueError::Port)
}

/// `None` for `"copy"`.
pub fn dscp(value: &Value) -> Result<Option<u8>, ValueError> {
    match text(value) {
        Some("copy") => Ok(None),
        _ => integer::<u8>(value).filter(|dscp| *dscp < 64).map(Some).ok_or(ValueError::Dscp),
    }
}

pub fn plain_dscp(value: &Value) -> Result<u8, ValueError> {
    integer::<u8>(value).filter(|dscp| *dscp < 64).ok_or(ValueError::Dscps)
}

/// A port, or a range of them.
pub fn ports(value: &Value) -> Result<RangeInclusive<u16>, ValueError> {
    let number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let range = match value {
        Value::Text(text) => text.split_once('-').and_then(|(from, to)| Some(number(from)?..=number(to)?)),
        _ => integer(value).map(|port: u16| port..=port),
    };
    range.filter(|range| !range.is_empty()).ok_or(ValueError::Ports)
}

/// A number of IANA's, or one of its names.
pub fn ip_protocol(value: &Value) -> Result<u8, ValueError> {
    let number = match value {
        Value::Text(name) => IP_PROTOCOLS.iter().find(|known| known.0 == name).map(|known| known.1),
        _ => integer::<u8>(value),
    };
    number.ok_or(ValueError::IpProtocol)
}

/// `None` for `"copy"`.
pub fn ttl(value: &Value) -> Result<Option<u8>, ValueError> {
    match text(value) {
        Some("copy") => Ok(None),
        _ => integer::<u8>(value).filter(|ttl| *ttl != 0).map(Some).ok_or(ValueError::Ttl),
    }
}

/// A number, or a name of rtnetlink's `rt_protos`.
pub fn protocol(value: &Value) -> Result<Protocol, ValueError> {
    let number = match value {
        Value::Text(name) => PROTOCOLS.iter().find(|known| known.0 == name).map(|known| known.1),
        _ => integer::<u8>(value),
    };
    number.filter(|number| *number != OWN_PROTOCOL).map(Protocol).ok_or(ValueError::Protocol)
}

/// What Penstock writes on the routes that it installs; they are never mirrored back.
const OWN_PROTOCOL: u8 = 80;

/// As in `/etc/iproute2/rt_protos`.
const PROTOCOLS: &[(&str, u8)] = &[
    ("unspec", 0),
    ("redirect", 1),
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dnrouted", 13),
    ("xorp", 14),
    ("ntk", 15),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("ovn", 84),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];
