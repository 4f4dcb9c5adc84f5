//! Tunnels: what each type needs, has and carries, and what two of them must not share.

use super::faults::{BASE, errors, warns, wrong, wrong_below, wrong_in_tunnel};
use super::*;
use crate::packet::Family;
use crate::tunnel::{Geneve, Gre, IpInIp};

const TYPES: &str = "legal: \"vxlan\", \"geneve\", \"gre\", \"ipip\", \"sit\", \"ip6ip6\", \"ip4ip6\"";

/// A tunnel of a type between two addresses of its outer family, with more lines: the fourth and on.
fn tunnel(name: &str, kind: &str, more: &str) -> String {
    let (local, remote) = if kind.starts_with("ip6") || kind == "ip4ip6" {
        ("2001:db8::1", "2001:db8::2")
    } else {
        ("192.0.2.1", "192.0.2.2")
    };
    format!("[tunnel.{name}]\ntype = \"{kind}\"\nlocal = \"{local}\"\nremote = \"{remote}\"\n{more}\n")
}

#[test]
fn a_tunnel_needs_what_has_no_default() {
    wrong("[tunnel.a]\n", &[&format!("1:9: tunnel \"a\": type is missing: {TYPES}")]);
    wrong(
        "[tunnel.a]\ntype = \"vxlan\"\n",
        &[
            "1:9: tunnel \"a\": vni is missing: a VNI is 0..=16777215",
            "1:9: tunnel \"a\": local is missing: a unicast IPv4 or IPv6 address that is not link-local",
            "1:9: tunnel \"a\": remote is missing: a unicast IPv4 or IPv6 address that is not link-local",
        ],
    );
    wrong(
        "[tunnel.a]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\naddress = []\n",
        &["1:9: tunnel \"a\": a tunnel with Ethernet inside needs remote_mac, or address to resolve it"],
    );
}

#[test]
fn only_a_tunnel_with_a_device_needs_a_device_name() {
    let named = |name: &str, rest: &str| {
        format!("[tunnel.{name:?}]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n{rest}\n")
    };
    let (device, mac) = ("address = \"10.0.0.1/30\"", "remote_mac = \"02:00:00:00:00:01\"");
    let long = "the-tunnel-to-site-b";
    wrong(
        &named(long, device),
        &[
            "1:9: tunnel = \"the-tunnel-to-site-b\": a Linux interface name is 1..=15 octets without '/', ':' and whitespace, and neither \".\" nor \"..\"",
        ],
    );
    wrong(
        &named("penstock0", device),
        &["1:9: tunnel = \"penstock0\": the name of a device that the host or Penstock itself has"],
    );
    assert_eq!(legal(&named(long, mac)).tunnels[0].name, long);
    wrong(
        &named("a b", mac),
        &["1:9: tunnel = \"a b\": a name is 1..=64 octets without whitespace and control characters"],
    );
}

#[test]
fn conflicts_between_tunnels_name_both_lines() {
    let tunnel = |name: &str, rest: &str| {
        format!(
            "[tunnel.{name}]\ntype = \"vxlan\"\nremote = \"192.0.2.2\"\nremote_mac = \"02:00:00:00:00:01\"\n{rest}\n"
        )
    };
    let same = tunnel("b", "vni = 1\nlocal = \"192.0.2.1\"");
    wrong_below(
        &same,
        &["32:9: tunnel \"b\": has the same underlay_vrf, local, remote, port and vni as tunnel \"site-a\", line 12"],
    );
    for other in [
        "vni = 3\nlocal = \"192.0.2.1\"",
        "vni = 1\nlocal = \"192.0.2.1\"\nport = 8472",
        "vni = 1\nlocal = \"192.0.2.1\"\nunderlay_vrf = \"red\"",
    ] {
        wrong_below(&tunnel("b", other), &[]);
    }
    wrong_below(
        &tunnel("lan0", "vni = 3\nlocal = \"192.0.2.1\""),
        &["32:9: \"lan0\": interfaces and tunnels share one set of names, and line 5 has this one"],
    );
    let own = tunnel("b", "vni = 3\nlocal = \"192.0.2.1\"").replace("192.0.2.2", "198.18.1.1");
    wrong_below(&own, &["34:10: remote = \"198.18.1.1\": an address of this gateway itself, line 5; legal: another's"]);
}

/// Every type, its defaults, and its overhead before an inner IP packet (research: RFC 7348, 8926, 2784, 2890, 2003, 2473).
#[test]
fn each_type_has_its_own_keys_and_overhead() {
    let vni = |id| wire::Vni::new(id).unwrap();
    let check = |kind: &str, more: &str, expected: Kind, v4: u16, v6: u16| {
        let config = legal(&tunnel("a", kind, more));
        let found = &config.tunnels[0];
        assert_eq!(found.kind, expected, "{kind} {more}");
        assert_eq!(found.overhead(), if found.local.is_ipv4() { v4 } else { v6 }, "{kind} {more}");
        if expected.outer().is_none() {
            let over = tunnel("a", kind, more).replace("192.0.2.", "2001:db8::");
            assert_eq!(legal(&over).tunnels[0].overhead(), v6, "{kind} {more}");
        }
    };
    let mac = "remote_mac = \"02:00:00:00:00:01\"";
    let geneve = |port, ethernet| Kind::Geneve(Geneve { vni: vni(7), port, ethernet });
    check("geneve", &format!("vni = 7\n{mac}"), geneve(6081, true), 50, 70);
    check("geneve", "vni = 7\nport = 6082\ninner = \"ip\"", geneve(6082, false), 36, 56);
    let gre = |key, ethernet| Kind::Gre(Gre { key, ethernet });
    check("gre", "", gre(None, false), 24, 44);
    check("gre", "key = 0", gre(Some(0), false), 28, 48);
    check("gre", &format!("key = 4294967295\ninner = \"ethernet\"\n{mac}"), gre(Some(u32::MAX), true), 42, 62);
    let ip = |outer, inner| Kind::Ip(IpInIp { outer, inner });
    check("ipip", "", ip(Family::V4, Family::V4), 20, 0);
    check("sit", "", ip(Family::V4, Family::V6), 20, 0);
    check("ip6ip6", "", ip(Family::V6, Family::V6), 0, 40);
    check("ip4ip6", "", ip(Family::V6, Family::V4), 0, 40);
}

#[test]
fn a_key_of_another_type_is_refused() {
    for (kind, more) in [("gre", ""), ("ipip", "")] {
        for key in ["vni = 3", "port = 4789", "checksum = \"auto\""] {
            let name = key.split(' ').next().unwrap();
            let sentence = format!("5:{}: {name}: a tunnel of type {kind:?} has none", name.len() + 4);
            wrong(&tunnel("a", kind, &format!("{key}\n{more}")), &[&sentence]);
        }
    }
    wrong_in_tunnel("key = 3", "7: key: a tunnel of type \"vxlan\" has none");
    wrong_in_tunnel("inner = \"ethernet\"", "9: inner: a tunnel of type \"vxlan\" has none");
    wrong(&tunnel("a", "sit", "inner = \"ip\""), &["5:9: inner: a tunnel of type \"sit\" has none"]);
    for key in ["mac = \"02:00:00:00:00:01\"", "remote_mac = \"02:00:00:00:00:01\""] {
        let name = key.split(' ').next().unwrap();
        let sentence = format!("5:{}: {name}: a tunnel with IP inside has none", name.len() + 4);
        wrong(&tunnel("a", "gre", key), &[&sentence]);
    }
    let neighbour = "[[neighbour]]\ninterface = \"a\"\naddress = \"198.18.0.2\"\nmac = \"02:00:00:00:00:01\"\n";
    wrong(&format!("{}{neighbour}", tunnel("a", "gre", "")), &["8:11: neighbour: a tunnel with IP inside has none"]);
    wrong(&tunnel("a", "gre", "key = -1"), &["5:7: key = -1: a GRE key is 0..=4294967295"]);
    wrong(&tunnel("a", "gre", "inner = \"mpls\""), &["5:9: inner = \"mpls\": legal: \"ethernet\", \"ip\""]);
    wrong(
        &tunnel("a", "gre", "inner = \"ethernet\""),
        &["1:9: tunnel \"a\": a tunnel with Ethernet inside needs remote_mac, or address to resolve it"],
    );
}

/// The type says which IP is outside and which inside; a route of the other family has no way through.
#[test]
fn a_family_that_a_type_has_not_is_refused() {
    let outside = |kind: &str, local: &str, legal: &str| {
        let text =
            tunnel("a", kind, "").replace("192.0.2.", "#").replace("2001:db8::", "192.0.2.").replace('#', "2001:db8::");
        let sentence = format!("3:9: local = \"{local}\": outside of a tunnel of type {kind:?} is {legal}");
        wrong(&text, &[&sentence]);
    };
    outside("ipip", "2001:db8::1", "IPv4");
    outside("sit", "2001:db8::1", "IPv4");
    outside("ip6ip6", "192.0.2.1", "IPv6");
    outside("ip4ip6", "192.0.2.1", "IPv6");
    for (kind, carried, other, legal) in [
        ("ipip", "198.18.9.0/24", "2001:db8:9::/64", "IPv4"),
        ("sit", "2001:db8:9::/64", "198.18.9.0/24", "IPv6"),
        ("ip6ip6", "2001:db8:9::/64", "198.18.9.0/24", "IPv6"),
        ("ip4ip6", "198.18.9.0/24", "2001:db8:9::/64", "IPv4"),
    ] {
        let route = |prefix: &str, via: &str| format!("[[route]]\nprefix = \"{prefix}\"\nvia = [{{ {via} }}]\n");
        let base = tunnel("a", kind, "") + "[tunnel-group.g]\nmembers = [{ tunnel = \"a\" }]\n";
        let carries = format!("tunnel \"a\" is of type {kind:?} and carries {legal} only");
        for via in ["tunnel = \"a\"", "group = \"g\""] {
            assert_eq!(errors(&(base.clone() + &route(carried, via))), [""; 0]);
            let found = errors(&(base.clone() + &route(other, via)));
            assert!(found.len() == 1 && found[0].ends_with(&format!("prefix \"{other}\": {carries}")), "{found:?}");
        }
        let address = other.replace("/64", "1/64").replace(".0/", ".1/");
        let sentence = format!("5:11: address = \"{address}\": {carries}");
        wrong(&tunnel("a", kind, &format!("address = \"{address}\"")), &[&sentence]);
    }
}

/// What arrives must be some one tunnel's, and of one format.
#[test]
fn tunnels_of_other_types_may_share_their_ends_but_not_a_port() {
    let mac = "remote_mac = \"02:00:00:00:00:01\"";
    let all = [
        tunnel("a", "geneve", &format!("vni = 1\n{mac}")),
        tunnel("b", "gre", ""),
        tunnel("c", "gre", "key = 0"),
        tunnel("d", "ipip", ""),
        tunnel("e", "sit", ""),
        tunnel("f", "ip6ip6", ""),
        tunnel("g", "ip4ip6", ""),
    ];
    warns(&format!("{BASE}{}", all.concat()), &[]);
    let twice = |first: &str, second: &str, more: &str| {
        let sentence = format!(
            "{}:9: tunnel \"y\": has the same underlay_vrf, local, remote{more} as tunnel \"x\", line 1",
            first.lines().count() + 1
        );
        wrong(&format!("{first}{second}"), &[&sentence]);
    };
    let geneve = |name: &str, inner: &str| tunnel(name, "geneve", &format!("vni = 1\ninner = \"{inner}\""));
    twice(&geneve("x", "ip"), &geneve("y", "ip"), ", port and vni");
    twice(&tunnel("x", "gre", "key = 7"), &tunnel("y", "gre", "key = 7"), " and key");
    twice(&tunnel("x", "sit", ""), &tunnel("y", "sit", ""), " and type");
    let sentence = "32:9: tunnel \"x\": has the same underlay_vrf, local, remote and port as tunnel \"site-a\", line 12, \
                    which is of another type; legal: another port";
    wrong_below(&tunnel("x", "geneve", "vni = 9\nport = 4789\ninner = \"ip\""), &[sentence]);
}
