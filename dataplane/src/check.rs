//! `penstock check`: what a configuration means, told without touching the host.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{Config, ConfigError, Fallback, Fit, Interface, Mode, Tenant, Tunnel, TunnelGroup, Via};
use crate::packet::Family;
use crate::qos::{Limit, PacketRate, Rate};
use crate::tunnel::Kind;

/// Reads and checks a file.
pub fn check(path: impl AsRef<Path>) -> Result<Report, ConfigError> {
    let path = path.as_ref();
    Ok(Report::new(&Config::load(path)?, path))
}

/// A legal configuration, as an operator wants to see it. Displays as tables, and serialises for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// In the file's order.
    pub interfaces: Vec<InterfaceReport>,
    /// `default`, then in the file's order.
    pub vrfs: Vec<VrfReport>,
    /// In the file's order.
    pub tunnels: Vec<TunnelReport>,
    /// In the file's order.
    pub groups: Vec<GroupReport>,
    /// Tenants, in the order of their matching.
    pub tenants: Vec<TenantReport>,
    /// What has a rate or a cap, and how much of it is guaranteed.
    pub rates: Vec<RateReport>,
    /// What is legal but probably not meant.
    pub warnings: Vec<WarningReport>,
}

/// One tenant. Rates are bits and packets per second, of each port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// What it gets whatever others do.
    pub guarantee: Option<u64>,
    /// What it never gets more of.
    pub limit: Option<u64>,
    /// The same in packets.
    pub packets: Option<u32>,
    /// Its share of what is left.
    pub weight: u16,
    /// The policer of what comes in.
    pub policer: Option<String>,
}

/// An interface with a rate, a tunnel with a cap, or a tenant's part of a tunnel with a limit. Rates are bits and packets per
/// second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RateReport {
    /// Its name.
    pub name: String,
    /// What passes at most.
    pub rate: Option<u64>,
    /// The same in packets.
    pub packets: Option<u32>,
    /// The sum of all tenants' guarantees: an interface keeps them.
    pub guaranteed: Option<u64>,
    /// Octets that its packets must have on average for that.
    pub guaranteed_from: Option<u16>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceReport {
    /// Linux name.
    pub name: String,
    /// Its VRF.
    pub vrf: String,
    /// Driver mode, as the file spells it.
    pub mode: &'static str,
    /// What happens to its packets when Penstock is not running, as the file spells it.
    pub fallback: &'static str,
    /// What the sources of its packets are checked against, as the file spells it.
    pub rpf: &'static str,
    /// For a VLAN, the interface that carries it.
    pub parent: Option<String>,
    /// For a VLAN, its tag.
    pub vlan: Option<u16>,
    /// Those of the file; a running gateway asks the kernel.
    pub addresses: Vec<String>,
    /// That of the file, in octets; a running gateway asks the kernel.
    pub mtu: Option<u16>,
}

/// One VRF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VrfReport {
    /// Its name.
    pub name: String,
    /// The kernel table that it mirrors and exports to.
    pub table: Option<u32>,
    /// How many interfaces it has.
    pub interfaces: usize,
    /// How many tunnels have their inside in it.
    pub tunnels: usize,
    /// How many static routes it has.
    pub routes: usize,
}

/// One tunnel, and what fits into it. Sizes are octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TunnelReport {
    /// Its name.
    pub name: String,
    /// Its type and identifier, as in `vxlan 5001`.
    pub kind: String,
    /// VRF of the inside.
    pub vrf: String,
    /// Outer source.
    pub local: String,
    /// Outer destination.
    pub remote: String,
    /// The gateway's own MAC inside, to which the remote end sends; `None` if it carries no Ethernet.
    pub mac: Option<String>,
    /// The interface whose MTU counts; `None` if the file does not tell, and 1,500 are assumed.
    pub underlay: Option<String>,
    /// What the tunnel puts before an inner packet, the outer IP header included.
    pub overhead: u16,
    /// The greatest inner packet.
    pub mtu: u16,
    /// The greatest TCP segment over IPv4 that SYNs are clamped to; `None` without clamping, or if IPv4 is not carried.
    pub mss_ipv4: Option<u16>,
    /// The same over IPv6; `None` also where IPv6 does not fit.
    pub mss_ipv6: Option<u16>,
    /// The greatest RDMA MTU whose RoCEv2 packets fit over IPv4.
    pub rdma_mtu_ipv4: Option<u16>,
    /// The same over IPv6.
    pub rdma_mtu_ipv6: Option<u16>,
}

/// One group of tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// In the file's order.
    pub members: Vec<MemberReport>,
    /// How many static routes lead into it.
    pub routes: usize,
    /// The greatest inner packet that fits whichever member it takes, in octets.
    pub mtu: u16,
}

/// One tunnel of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberReport {
    /// The tunnel.
    pub tunnel: String,
    /// Its share relative to the others'.
    pub weight: u16,
}

/// Something legal that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WarningReport {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// One sentence.
    pub message: String,
}

impl Report {
    /// Tells what a configuration means that was read from `file`.
    pub fn new(config: &Config, file: impl Into<PathBuf>) -> Self {
        let mut routes = vec![0; config.vrfs.len()];
        let mut into = vec![0; config.groups.len()];
        for route in &config.routes {
            routes[route.vrf] += 1;
            for hop in route.via.iter() {
                if let Via::Group(group) = hop.via {
                    into[group] += 1;
                }
            }
        }
        let vrfs = config.vrfs.iter().enumerate().map(|(index, vrf)| VrfReport {
            name: vrf.name.clone(),
            table: vrf.table,
            interfaces: config.interfaces.iter().filter(|it| it.vrf == index).count(),
            tunnels: config.tunnels.iter().filter(|it| it.vrf == index).count(),
            routes: routes[index],
        });
        let warnings = config.warnings.iter().map(|warning| WarningReport {
            line: warning.line,
            column: warning.column,
            message: warning.message.clone(),
        });
        Self {
            file: file.into(),
            interfaces: config.interfaces.iter().map(|it| InterfaceReport::new(config, it)).collect(),
            vrfs: vrfs.collect(),
            tunnels: config.tunnels.iter().map(|it| TunnelReport::new(config, it)).collect(),
            groups: config.groups.iter().zip(into).map(|(it, routes)| GroupReport::new(config, it, routes)).collect(),
            tenants: config.tenants.iter().map(|it| TenantReport::new(config, it)).collect(),
            rates: RateReport::all(config),
            warnings: warnings.collect(),
        }
    }

    /// What `--json` prints.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a struct of strings and numbers always has JSON")
    }
}

impl TenantReport {
    fn new(config: &Config, tenant: &Tenant) -> Self {
        Self {
            name: tenant.name.clone(),
            guarantee: tenant.guarantee.map(Rate::bits),
            limit: tenant.limit.rate.map(Rate::bits),
            packets: tenant.limit.packets.map(PacketRate::packets),
            weight: tenant.weight.value(),
            policer: tenant.policer.map(|policer| config.policers[policer].name.clone()),
        }
    }
}

impl RateReport {
    fn all(config: &Config) -> Vec<Self> {
        let guaranteed = config.guaranteed();
        let interfaces = config.interfaces.iter().filter(|it| it.rate.is_some()).map(|it| Self {
            name: it.name.clone(),
            rate: it.rate.map(Rate::bits),
            packets: None,
            guaranteed: Some(guaranteed),
            guaranteed_from: config.fit(it).and_then(|fit| match fit {
                Fit::From(octets) | Fit::Tight(octets) => Some(octets),
                Fit::Never { .. } => None,
            }),
        });
        let tunnels = config.tunnels.iter().filter(|it| it.cap != Limit::NONE).map(|it| Self {
            name: it.name.clone(),
            rate: it.cap.rate.map(Rate::bits),
            packets: it.cap.packets.map(PacketRate::packets),
            guaranteed: None,
            guaranteed_from: None,
        });
        let of = |tenant: &Tenant, (tunnel, limit): &(usize, Limit)| Self {
            name: format!("{} via {}", tenant.name, config.tunnels[*tunnel].name),
            rate: limit.rate.map(Rate::bits),
            packets: limit.packets.map(PacketRate::packets),
            guaranteed: None,
            guaranteed_from: None,
        };
        let via = config
            .tenants
            .iter()
            .flat_map(|tenant| tenant.via.iter().map(|bound| of(tenant, bound)).collect::<Vec<_>>());
        interfaces.chain(tunnels).chain(via).collect()
    }
}

impl InterfaceReport {
    fn new(config: &Config, interface: &Interface) -> Self {
        let carrier = interface.parent.map(|(parent, _)| &config.interfaces[parent]);
        Self {
            name: interface.name.clone(),
            vrf: config.vrfs[interface.vrf].name.clone(),
            mode: match carrier.unwrap_or(interface).mode {
                Mode::Auto => "auto",
                Mode::ZeroCopy => "zero-copy",
                Mode::Copy => "copy",
                Mode::Generic => "generic",
            },
            fallback: match interface.fallback {
                Fallback::Kernel => "kernel",
                Fallback::Drop => "drop",
            },
            rpf: interface.rpf.name(),
            parent: carrier.map(|carrier| carrier.name.clone()),
            vlan: interface.parent.map(|(_, vlan)| vlan),
            addresses: interface.addresses.iter().map(ToString::to_string).collect(),
            mtu: interface.mtu,
        }
    }
}

impl TunnelReport {
    fn new(config: &Config, tunnel: &Tunnel) -> Self {
        let mtu = config.inner_mtu(tunnel);
        let ipv4 = tunnel.kind.carries(Family::V4);
        let ipv6 = tunnel.kind.carries(Family::V6) && mtu >= IPV6_MTU;
        let name = tunnel.kind.name();
        let kind = match tunnel.kind {
            Kind::Vxlan(vxlan) => format!("{name} {}", vxlan.vni),
            Kind::Geneve(geneve) => format!("{name} {}", geneve.vni),
            Kind::Gre(gre) => gre.key.map_or(name.to_owned(), |key| format!("{name} {key}")),
            Kind::Ip(_) => name.to_owned(),
        };
        Self {
            name: tunnel.name.clone(),
            kind,
            vrf: config.vrfs[tunnel.vrf].name.clone(),
            local: tunnel.local.to_string(),
            remote: tunnel.remote.to_string(),
            mac: tunnel.kind.ethernet().then(|| tunnel.inside_mac().to_string()),
            underlay: config.underlay(tunnel).map(|(index, _)| config.interfaces[index].name.clone()),
            overhead: tunnel.overhead(),
            mtu,
            // IP and TCP headers without options (RFC 6691).
            mss_ipv4: (tunnel.mss && ipv4).then(|| mtu.saturating_sub(IPV4 + 20)),
            mss_ipv6: (tunnel.mss && ipv6).then(|| mtu.saturating_sub(IPV6 + 20)),
            rdma_mtu_ipv4: rdma_mtu(mtu, IPV4).filter(|_| ipv4),
            rdma_mtu_ipv6: rdma_mtu(mtu, IPV6).filter(|_| ipv6),
        }
    }
}

impl GroupReport {
    fn new(config: &Config, group: &TunnelGroup, routes: usize) -> Self {
        let tunnels = || group.members.iter().map(|member| &config.tunnels[member.tunnel]);
        let members = tunnels().zip(&group.members);
        Self {
            name: group.name.clone(),
            members: members
                .map(|(tunnel, member)| MemberReport { tunnel: tunnel.name.clone(), weight: member.weight })
                .collect(),
            routes,
            mtu: tunnels().map(|tunnel| config.inner_mtu(tunnel)).min().expect("a group has members"),
        }
    }
}

const IPV4: u16 = 20;
const IPV6: u16 = 40;
/// RFC 8200 §5.
const IPV6_MTU: u16 = 1280;

/// RoCEv2 after the IP header: UDP, base transport header, RDMA extended transport header, invariant CRC.
const ROCE: u16 = 8 + 12 + 16 + 4;

/// The path MTUs that InfiniBand knows, in octets of payload.
const RDMA_MTUS: [u16; 5] = [4096, 2048, 1024, 512, 256];

/// The greatest of them whose largest packet fits.
fn rdma_mtu(mtu: u16, ip: u16) -> Option<u16> {
    RDMA_MTUS.into_iter().find(|payload| payload + ip + ROCE <= mtu)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        writeln!(f, "{file}: legal, warnings: {}", self.warnings.len())?;
        for warning in &self.warnings {
            writeln!(f, "{file}:{}:{}: warning: {}", warning.line, warning.column, warning.message)?;
        }
        let interfaces = self.interfaces.iter().map(|it| {
            let vlan = it.parent.as_ref().zip(it.vlan).map(|(parent, vlan)| format!("{vlan} of {parent}"));
            let addresses = if it.addresses.is_empty() { "-".to_owned() } else { it.addresses.join(", ") };
            [
                it.name.clone(),
                it.vrf.clone(),
                it.mode.into(),
                it.fallback.into(),
                it.rpf.into(),
                or_dash(vlan),
                or_dash(it.mtu),
                addresses,
            ]
        });
        table(f, ["interface", "vrf", "mode", "fallback", "rpf", "vlan", "mtu", "address"], interfaces.collect())?;
        let vrfs = self.vrfs.iter().map(|it| {
            let counts = [it.interfaces, it.tunnels, it.routes].map(|count| count.to_string());
            let [interfaces, tunnels, routes] = counts;
            [it.name.clone(), or_dash(it.table), interfaces, tunnels, routes]
        });
        table(f, ["vrf", "table", "interfaces", "tunnels", "routes"], vrfs.collect())?;
        let tunnels = self.tunnels.iter().map(|it| {
            let numbers =
                [Some(it.overhead), Some(it.mtu), it.mss_ipv4, it.mss_ipv6, it.rdma_mtu_ipv4, it.rdma_mtu_ipv6];
            let [overhead, mtu, mss_4, mss_6, rdma_4, rdma_6] = numbers.map(or_dash);
            let ends = format!("{} > {}", it.local, it.remote);
            let underlay = it.underlay.clone().unwrap_or_else(|| "1500 assumed".to_owned());
            let (name, kind, vrf) = (it.name.clone(), it.kind.clone(), it.vrf.clone());
            let mac = or_dash(it.mac.as_deref());
            [name, kind, vrf, ends, mac, underlay, overhead, mtu, mss_4, mss_6, rdma_4, rdma_6]
        });
        let heads = [
            "tunnel", "type", "vrf", "ends", "mac", "underlay", "overhead", "mtu", "mss v4", "mss v6", "rdma v4",
            "rdma v6",
        ];
        table(f, heads, tunnels.collect())?;
        let groups = self.groups.iter().map(|it| {
            let members = it.members.iter().map(|member| format!("{} {}", member.tunnel, member.weight));
            let members = members.collect::<Vec<_>>().join(", ");
            [it.name.clone(), it.routes.to_string(), it.mtu.to_string(), members]
        });
        table(f, ["group", "routes", "mtu", "members and weights"], groups.collect())?;
        let tenants = self.tenants.iter().map(|it| {
            let numbers = [or_dash(it.guarantee), or_dash(it.limit), or_dash(it.packets), it.weight.to_string()];
            let [guarantee, limit, packets, weight] = numbers;
            [it.name.clone(), guarantee, limit, packets, weight, or_dash(it.policer.as_deref())]
        });
        let heads = ["tenant", "guarantee bit/s", "limit bit/s", "limit packets/s", "weight", "policer"];
        table(f, heads, tenants.collect())?;
        let rates = self.rates.iter().map(|it| {
            [
                it.name.clone(),
                or_dash(it.rate),
                or_dash(it.packets),
                or_dash(it.guaranteed),
                or_dash(it.guaranteed_from),
            ]
        });
        table(f, ["rate of", "bit/s", "packets/s", "guaranteed bit/s", "from octets"], rates.collect())
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Aligned columns below their heads, after an empty line; nothing if there are no rows.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, heads: [&str; N], rows: Vec<[String; N]>) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let heads = heads.map(str::to_owned);
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().chain([&heads]);
        cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    writeln!(f)?;
    for row in [&heads].into_iter().chain(&rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str) -> Report {
        check(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)).unwrap()
    }

    #[track_caller]
    fn fits(mtu: u16, ipv4: Option<u16>, ipv6: Option<u16>) {
        assert_eq!((rdma_mtu(mtu, IPV4), rdma_mtu(mtu, IPV6)), (ipv4, ipv6), "in {mtu} octets");
    }

    #[test]
    fn rdma_mtu_is_the_greatest_whose_packet_fits() {
        fits(315, None, None);
        fits(316, Some(256), None);
        fits(335, Some(256), None);
        fits(336, Some(256), Some(256));
        fits(1083, Some(512), Some(512));
        fits(1084, Some(1024), Some(512));
        fits(1450, Some(1024), Some(1024));
        fits(4155, Some(2048), Some(2048));
        fits(4156, Some(4096), Some(2048));
        fits(4176, Some(4096), Some(4096));
        fits(u16::MAX, Some(4096), Some(4096));
    }

    #[test]
    fn tells_what_fits_into_a_tunnel_over_ipv4() {
        let report = report("vxlan.toml");
        let tunnel = &report.tunnels[0];
        assert_eq!(tunnel.underlay.as_deref(), Some("wan0"));
        assert_eq!((tunnel.overhead, tunnel.mtu), (50, 1450));
        assert_eq!(tunnel.mac.as_deref(), Some("02:bc:47:97:93:62"), "the remote end has to know it");
        assert_eq!((tunnel.mss_ipv4, tunnel.mss_ipv6), (Some(1410), Some(1390)));
        assert_eq!((tunnel.rdma_mtu_ipv4, tunnel.rdma_mtu_ipv6), (Some(1024), Some(1024)));
    }

    #[test]
    fn tells_what_fits_into_a_tunnel_over_ipv6() {
        let report = report("ipv6.toml");
        let tunnel = &report.tunnels[0];
        assert_eq!((tunnel.overhead, tunnel.mtu), (70, 8930));
        assert_eq!((tunnel.mss_ipv4, tunnel.mss_ipv6), (Some(8890), Some(8870)));
        assert_eq!((tunnel.rdma_mtu_ipv4, tunnel.rdma_mtu_ipv6), (Some(4096), Some(4096)));
    }

    #[test]
    fn no_ipv6_figures_for_a_tunnel_too_small_for_ipv6() {
        let text = "[tunnel.a]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
                    remote_mac = \"02:00:00:00:00:01\"\nmtu = 1279\n";
        let report = Report::new(&text.parse().unwrap(), "a.toml");
        let tunnel = &report.tunnels[0];
        assert_eq!((tunnel.underlay.as_deref(), tunnel.mss_ipv4, tunnel.mss_ipv6), (None, Some(1239), None));
        assert_eq!((tunnel.rdma_mtu_ipv4, tunnel.rdma_mtu_ipv6), (Some(1024), None));

        let of_one_family = |kind: &str| {
            let tunnel = format!("[tunnel.a]\ntype = {kind:?}\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n");
            let config: Config = tunnel.parse().expect("legal");
            let report = Report::new(&config, "p.toml").tunnels.remove(0);
            (report.kind, report.overhead, report.mss_ipv4, report.mss_ipv6, report.rdma_mtu_ipv4, report.rdma_mtu_ipv6)
        };
        assert_eq!(of_one_family("ipip"), ("ipip".into(), 20, Some(1440), None, Some(1024), None));
        assert_eq!(of_one_family("sit"), ("sit".into(), 20, None, Some(1420), None, Some(1024)));
    }

    #[test]
    fn prints_aligned_tables_after_the_warnings() {
        let text = "[interface.wan0]\naddress = \"192.0.2.1/24\"\n[[route]]\nprefix = \"198.51.100.0/24\"\n\
                    via = [{ next_hop = \"203.0.113.1\" }]\n";
        let report = Report::new(&text.parse().unwrap(), "a.toml");
        let expected = "\
a.toml: legal, warnings: 1
a.toml:5:21: warning: next_hop = \"203.0.113.1\": no connected subnet of VRF \"default\" has this address

interface  vrf      mode  fallback  rpf  vlan  mtu  address
wan0       default  auto  kernel    off  -     -    192.0.2.1/24

vrf      table  interfaces  tunnels  routes
default  254    1           0        1
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn tells_who_shares_a_groups_traffic_and_what_fits_all_of_them() {
        let text = "[tunnel.a]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
                    remote_mac = \"02:00:00:00:00:01\"\n[tunnel.b]\ntype = \"vxlan\"\nvni = 1\nlocal = \"2001:db8::1\"\n\
                    remote = \"2001:db8::2\"\nremote_mac = \"02:00:00:00:00:01\"\n\
                    [tunnel-group.both]\nmembers = [{ tunnel = \"b\", weight = 3 }, { tunnel = \"a\" }]\n\
                    [tunnel-group.one]\nmembers = [{ tunnel = \"a\" }]\n[[route]]\nprefix = \"198.51.100.0/24\"\n\
                    via = [{ group = \"both\" }]\n";
        let report = Report::new(&text.parse().unwrap(), "a.toml");
        let printed = report.to_string();
        let expected = "
group  routes  mtu   members and weights
both   1       1430  b 3, a 1
one    0       1450  a 1
";
        assert!(printed.ends_with(expected), "{printed}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let members = serde_json::json!([{ "tunnel": "b", "weight": 3 }, { "tunnel": "a", "weight": 1 }]);
        assert_eq!((&json["groups"][0]["members"], &json["groups"][0]["mtu"]), (&members, &1430.into()));
    }

    #[test]
    fn tells_what_tenants_are_promised_and_who_polices_them() {
        let text = "[tenant.red]\nmatch = { source = \"203.0.113.0/24\" }\nlimit = \"1G\"\npolicer = \"p\"\n\
                    [tenant.default]\nweight = 3\n[policer.p]\nkind = \"rfc2697\"\ncir = \"1G\"\n";
        let report = Report::new(&text.parse().unwrap(), "a.toml");
        let printed = report.to_string();
        let expected = "
tenant   guarantee bit/s  limit bit/s  limit packets/s  weight  policer
red      -                1000000000   -                1       p
default  -                -            -                3       -
";
        assert!(printed.contains(expected), "{printed}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["tenants"][0]["policer"], &json["tenants"][1]["policer"]), (&"p".into(), &().into()));
    }

    #[test]
    fn a_vlan_has_its_parents_mode() {
        let text = "[interface.lan0]\nmode = \"copy\"\n[interface.\"lan0.5\"]\nparent = \"lan0\"\nvlan = 5\n";
        let report = Report::new(&text.parse().unwrap(), "a.toml");
        let vlan = &report.interfaces[1];
        assert_eq!((vlan.mode, vlan.parent.as_deref(), vlan.vlan), ("copy", Some("lan0"), Some(5)));
    }

    #[test]
    fn json_has_the_same_figures() {
        let json: serde_json::Value = serde_json::from_str(&report("vxlan.toml").to_json()).unwrap();
        assert_eq!(json["tunnels"][0]["name"], "site-b");
        assert_eq!(json["tunnels"][0]["mtu"], 1450);
        assert_eq!(json["interfaces"][1]["addresses"][0], "192.0.2.1/24");
        assert_eq!(json["vrfs"][0]["routes"], 2);
        assert_eq!(json["warnings"].as_array().map(Vec::len), Some(0));
    }
}
