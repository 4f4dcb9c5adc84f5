//! One line per thing that can be wrong: the exact place and sentence.

use super::*;

/// Everything that is not under test, legal: two VRFs, two interfaces, one VLAN, two tunnels. 31 lines.
pub const BASE: &str = r#"[vrf.red]
table = 1001
[interface.wan0]
address = ["192.0.2.1/24", "2001:db8::1/64"]
[interface.lan0]
address = ["198.18.1.1/24"]
[interface."lan0.110"]
parent = "lan0"
vlan = 110
vrf = "red"
address = ["10.0.0.1/24"]
[tunnel.site-a]
type = "vxlan"
vni = 1
local = "192.0.2.1"
remote = "192.0.2.2"
address = ["198.18.255.1/30"]
[tunnel.red-a]
type = "vxlan"
vni = 2
local = "192.0.2.1"
remote = "192.0.2.2"
vrf = "red"
remote_mac = "02:00:00:00:00:01"
[[neighbour]]
interface = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:02"
[[route]]
prefix = "198.51.100.0/24"
via = [{ next_hop = "192.0.2.254" }]
"#;

/// The errors of a text, each as `line:column: sentence`.
pub fn errors(text: &str) -> Vec<String> {
    let error = match Config::parse(text, "p.toml") {
        Ok(_) => return Vec::new(),
        Err(error) => error,
    };
    let strip = |fault: &Fault| fault.to_string().strip_prefix("p.toml:").expect("names its file").to_owned();
    error.faults().iter().map(strip).collect()
}

/// What is wrong with a text.
#[track_caller]
pub fn wrong(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "in\n{text}");
}

/// What is wrong with lines added below [`BASE`]; the first of them is line 32.
#[track_caller]
pub fn wrong_below(lines: &str, expected: &[&str]) {
    wrong(&format!("{BASE}{lines}"), expected);
}

/// What is wrong with a table of one line; that line is line 2.
#[track_caller]
pub(super) fn wrong_in(table: &str, line: &str, sentence: &str) {
    wrong(&format!("{table}\n{line}\n"), &[&format!("2:{sentence}")]);
}

/// What is wrong with a tunnel that has one line more or another than a legal one; that line is line 7.
#[track_caller]
pub fn wrong_in_tunnel(line: &str, sentence: &str) {
    let key = line.split(' ').next().unwrap();
    let legal = ["type = \"vxlan\"", "vni = 1", "local = \"192.0.2.1\"", "remote = \"192.0.2.2\""];
    let mac = "remote_mac = \"02:00:00:00:00:01\"";
    let lines = legal.iter().chain([&mac]).map(|legal| if legal.starts_with(&format!("{key} ")) { "" } else { legal });
    let lines = lines.collect::<Vec<_>>().join("\n");
    wrong(&format!("[tunnel.a]\n{lines}\n{line}\n"), &[&format!("7:{sentence}")]);
}

/// The warnings of a legal text, each as `line:column: sentence`.
#[track_caller]
pub fn warns(text: &str, expected: &[&str]) {
    let config = Config::parse(text, "p.toml").unwrap_or_else(|error| panic!("{error}\nin\n{text}"));
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, expected, "in\n{text}");
}

#[test]
fn the_base_of_these_tests_is_legal_without_warnings() {
    warns(BASE, &[]);
    assert_eq!(BASE.lines().count(), 31);
}

#[test]
fn what_is_not_toml_says_where() {
    wrong("[gateway]\nworkers = \n", &["2:11: string values must be quoted, expected literal string"]);
    wrong("[gateway]\nworkers = 1\nworkers = 2\n", &["3:1: workers: a second time in its table; legal: once"]);
    wrong(
        "[[route]]\nvia = 3\n",
        &["2:7: invalid type: integer `3`, expected a list of next hops, \"blackhole\" or \"unreachable\""],
    );
}

#[test]
fn a_table_in_another_form_is_told_its_own() {
    for name in ["vrf", "interface", "tunnel", "tunnel-group", "policer", "tenant"] {
        let legal = format!("{name}: legal: tables with names, such as [{name}.NAME]");
        wrong(&format!("{name} = 3\n"), &[&format!("1:1: {legal}")]);
        wrong(&format!("[[{name}]]\n"), &[&format!("1:3: {legal}")]);
        wrong(&format!("[{name}]\nname = \"a\"\n"), &[&format!("1:2: {legal}")]);
    }
    for name in ["gateway", "kernel", "qos"] {
        wrong(&format!("[[{name}]]\n"), &[&format!("1:3: {name}: legal: one table, [{name}]")]);
    }
    for name in ["route", "route_list", "neighbour", "acl"] {
        let legal = format!("{name}: legal: a list of tables, [[{name}]]");
        wrong(&format!("[{name}]\n"), &[&format!("1:2: {legal}")]);
        wrong(&format!("{name} = [{{}}, 3]\n"), &[&format!("1:1: {legal}")]);
    }
    // All of them, and what is wrong beside.
    wrong(
        "gateway = 1\nroute = 2\n[vrf.a]\ntabel = 7\n",
        &[
            "1:1: gateway: legal: one table, [gateway]",
            "2:1: route: legal: a list of tables, [[route]]",
            "4:1: tabel: [vrf] has no such key; legal: table",
        ],
    );
}

#[test]
fn columns_count_characters() {
    wrong(
        "[interface.\"ä\"]\n\"ü\" = 1\n",
        &[
            "2:1: ü: [interface] has no such key; legal: parent, vlan, mode, vrf, fallback, rpf, mac, address, mtu, policer, rate",
        ],
    );
    wrong(
        "gateway = { control = \"é\", workers = 0 }\n",
        &[
            "1:23: control = \"é\": a path is absolute and at most 107 octets, the longest of a Unix socket",
            "1:38: workers = 0: legal: \"auto\", a count in 1..=256, or a list of CPU numbers in 0..=1023, none twice",
        ],
    );
}

#[test]
fn an_unknown_key_is_named_with_what_is_legal_there() {
    wrong(
        "colour = 1\n",
        &[
            "1:1: colour: the file has no such key; legal: gateway, vrf, interface, kernel, tunnel, tunnel-group, route, route_list, neighbour, acl, policer, tenant, qos",
        ],
    );
    wrong(
        "[colour]\n",
        &[
            "1:2: colour: the file has no such key; legal: gateway, vrf, interface, kernel, tunnel, tunnel-group, route, route_list, neighbour, acl, policer, tenant, qos",
        ],
    );
    wrong_in(
        "[gateway]",
        "wrokers = 1",
        "1: wrokers: [gateway] has no such key; legal: workers, control, metrics, icmp_errors, hash_seed, hash",
    );
    wrong_in("[vrf.red]", "tabel = 1", "1: tabel: [vrf] has no such key; legal: table");
    wrong_in("[kernel]", "route = []", "1: route: [kernel] has no such key; legal: routes");
    wrong_in(
        "[kernel]",
        "routes = [{ table = 1, proto = [] }]",
        "24: proto: routes has no such key; legal: table, vrf, protocols",
    );
    wrong_below(
        "[[neighbour]]\ninterface = \"wan0\"\naddress = \"192.0.2.3\"\nmac = \"02:00:00:00:00:02\"\nvlan = 3\n",
        &["36:1: vlan: [[neighbour]] has no such key; legal: interface, address, mac"],
    );
    wrong_below("metric = 3\n", &["32:1: metric: [[route]] has no such key; legal: prefix, vrf, via, kernel, leak"]);
    wrong_in_tunnel(
        "vin = 3",
        "1: vin: [tunnel] has no such key; legal: type, vni, key, local, remote, port, inner, vrf, underlay_vrf, address, mac, remote_mac, mtu, mss, dscp, ecn, ttl, df, checksum, allowed_sources, policer, cap",
    );
    wrong(
        "[[route]]\nprefix = \"10.0.0.0/8\"\nvia = [{ next_hpo = \"192.0.2.2\" }]\n",
        &["3:10: next_hpo: via has no such key; legal: group, tunnel, next_hop, interface, weight"],
    );
    wrong_below(
        "[tunnel-group.g]\nmembers = [{ tunnel = \"site-a\" }]\nmember = []\n",
        &["34:1: member: [tunnel-group] has no such key; legal: members"],
    );
    wrong_below(
        "[tunnel-group.g]\nmembers = [{ tunnel = \"site-a\", wieght = 2 }]\n",
        &["33:33: wieght: members has no such key; legal: tunnel, weight"],
    );
    let list = "[[route_list]]\nprefix = \"10.0.0.0/8\"\nfile = \"/dev/null\"\nvia = \"blackhole\"\n";
    wrong_below(list, &["33:1: prefix: [[route_list]] has no such key; legal: file, vrf, via, kernel, leak"]);
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    let later = |feature: &str, key: &str| format!("{key}: not supported by this version ({feature})");
    wrong_in_tunnel("gwlb = 1", &format!("1: {}", later("Gateway Load Balancer mode", "gwlb")));
    let types = "legal: \"vxlan\", \"geneve\", \"gre\", \"ipip\", \"sit\", \"ip6ip6\", \"ip4ip6\"";
    for name in ["esp", "wireguard"] {
        let sentence = format!("2:8: type = {name:?}: not supported by this version; {types}");
        wrong(&format!("[tunnel.a]\ntype = {name:?}\n"), &[&sentence]);
    }
    wrong("[tunnel.a]\ntype = \"vlxan\"\n", &[&format!("2:8: type = \"vlxan\": {types}")]);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    wrong(
        "[gateway]\nworkers = 0\n[interface.wan0]\nrate = 1\nvrf = \"red\"\nmtu = 1\n",
        &[
            "2:11: workers = 0: legal: \"auto\", a count in 1..=256, or a list of CPU numbers in 0..=1023, none twice",
            "4:8: rate = 1: a rate is a number of bits per second with \"k\", \"M\", \"G\" or \"T\", such as \"1.25G\", in \"8k\"..=\"1.6T\"",
            "5:7: vrf = \"red\": no such VRF; declared: \"default\"",
            "6:7: mtu = 1: an MTU is 576..=65535",
        ],
    );
}

#[test]
fn gateway_values() {
    let workers = "legal: \"auto\", a count in 1..=256, or a list of CPU numbers in 0..=1023, none twice";
    for (value, shown) in [
        ("0", "0"),
        ("257", "257"),
        ("-1", "-1"),
        ("\"all\"", "\"all\""),
        ("[]", "[]"),
        ("[1, 1]", "[..]"),
        ("[1024]", "[..]"),
        ("[-1]", "[..]"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("99999999999999999999", "99999999999999999999"),
    ] {
        wrong_in("[gateway]", &format!("workers = {value}"), &format!("11: workers = {shown}: {workers}"));
    }
    let path = "a path is absolute and at most 107 octets, the longest of a Unix socket";
    wrong_in("[gateway]", "control = \"run/c\"", &format!("11: control = \"run/c\": {path}"));
    let long = "x".repeat(107);
    wrong_in("[gateway]", &format!("control = \"/{long}\""), &format!("11: control = \"/{}\"..: {path}", &long[..59]));
    let listen = "an address of this host and a TCP port 1..=65535, such as \"127.0.0.1:9473\" or \"[::1]:9473\"; 0.0.0.0 and [::] are all its addresses";
    for value in [
        "9473",
        "true",
        "\"9473\"",
        "\":9473\"",
        "\"localhost:9473\"",
        "\"127.0.0.1\"",
        "\"127.0.0.1:0\"",
        "\"127.0.0.1:65536\"",
        "\"::1:9473\"",
        "\"::1\"",
        "\"224.0.0.1:9473\"",
        "\"255.255.255.255:9473\"",
        "\"[ff02::1]:9473\"",
    ] {
        wrong_in("[gateway]", &format!("metrics = {value}"), &format!("11: metrics = {value}: {listen}"));
    }
    for address in ["127.0.0.1:9473", "[::1]:9473", "0.0.0.0:1", "[::]:65535"] {
        let metrics = legal(&format!("gateway.metrics = \"{address}\"")).gateway.metrics;
        assert_eq!(metrics.map(|address| address.to_string()).as_deref(), Some(address));
    }
    let rate = "a packet rate is a number with \"pps\", \"kpps\", \"Mpps\" or \"Gpps\", such as \"1kpps\", and at most 4294967295 pps";
    for value in [
        "\"1k\"",
        "\"pps\"",
        "\"-1pps\"",
        "\"1.0005kpps\"",
        "\"4294967296pps\"",
        "\"1Tpps\"",
        "\"1e3pps\"",
        "\"99999999999pps\"",
        "\"9999999999.9999999999Gpps\"",
        "1000",
    ] {
        wrong_in("[gateway]", &format!("icmp_errors = {value}"), &format!("15: icmp_errors = {value}: {rate}"));
    }
    for (value, pps) in [
        ("0pps", 0),
        ("1pps", 1),
        ("1kpps", 1000),
        ("1.5 Mpps", 1_500_000),
        ("0.001kpps", 1),
        ("4294967295pps", u32::MAX),
    ] {
        assert_eq!(legal(&format!("gateway.icmp_errors = \"{value}\"")).gateway.icmp_errors_pps, pps, "{value}");
    }
    assert_eq!(legal("gateway.workers = 256").gateway.workers, Workers::Count(256));
    for value in ["-1", "18446744073709551616", "\"0\"", "1.0"] {
        let sentence = format!("13: hash_seed = {value}: a seed is 0..=18446744073709551615");
        wrong_in("[gateway]", &format!("hash_seed = {value}"), &sentence);
    }
    wrong_in("[gateway]", "hash = \"5-tuple\"", "8: hash = \"5-tuple\": legal: \"flow\", \"symmetric\"");
}

#[test]
fn vrf_values() {
    let table = "a kernel table is 1..=4294967295, but not 255, the kernel's own \"local\"";
    for value in ["0", "255", "4294967296", "-1", "\"main\""] {
        wrong_in("[vrf.red]", &format!("table = {value}"), &format!("9: table = {value}: {table}"));
    }
    wrong_in("[vrf.default]", "table = 253", "9: table = 253: the VRF \"default\" has table 254");
    wrong(
        "[vrf.\"a b\"]\n",
        &["1:6: vrf = \"a b\": a name is 1..=64 octets without whitespace and control characters"],
    );
    wrong_in("[vrf.red]", "table = 254", "9: table = 254: VRF \"default\" has this table");
    wrong("[vrf.default]\n[vrf.red]\ntable = 254\n", &["3:9: table = 254: VRF \"default\" has this table, line 1"]);
    wrong_below("[vrf.blue]\ntable = 1001\n", &["33:9: table = 1001: VRF \"red\" has this table, line 1"]);
}

#[test]
fn interface_values() {
    let device =
        "a Linux interface name is 1..=15 octets without '/', ':' and whitespace, and neither \".\" nor \"..\"";
    for name in ["", ".", "..", "a/b", "a:b", "a b", "abcdefghijklmnop"] {
        wrong(&format!("[interface.\"{name}\"]\n"), &[&format!("1:12: interface = {name:?}: {device}")]);
    }
    for name in ["lo", "penstock0"] {
        let sentence = format!("1:12: interface = {name:?}: the name of a device that the host or Penstock itself has");
        wrong(&format!("[interface.{name}]\n"), &[&sentence]);
    }
    assert_eq!(legal("[interface.abcdefghijklmno]").interfaces.len(), 1);
    let lan = "[interface.lan0]";
    wrong_in(lan, "mode = \"xdp\"", "8: mode = \"xdp\": legal: \"auto\", \"zero-copy\", \"copy\", \"generic\"");
    wrong_in(lan, "fallback = true", "12: fallback = true: legal: \"kernel\", \"drop\"");
    wrong_in(lan, "rpf = \"on\"", "7: rpf = \"on\": legal: \"off\", \"loose\", \"strict\"");
    wrong_in(lan, "vrf = \"red\"", "7: vrf = \"red\": no such VRF; declared: \"default\"");
    wrong_in(lan, "vrf = 3", "7: vrf = 3: a name of a table of this file");
    let mac = "a MAC is six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"";
    for value in [
        "\"00:00:00:00:00:00\"",
        "\"01:00:5e:00:00:01\"",
        "\"ff:ff:ff:ff:ff:ff\"",
        "\"02:00:00:00:00\"",
        "\"02:00:00:00:00:01:02\"",
        "\"2:0:0:0:0:1\"",
        "\"02:00:00:00:00:+1\"",
        "7",
    ] {
        wrong_in(lan, &format!("mac = {value}"), &format!("7: mac = {value}: {mac}"));
    }
    let address = "an interface's address is unicast and has its prefix length, such as \"192.0.2.1/24\"";
    for value in [
        "192.0.2.1",
        "192.0.2.1/33",
        "224.0.0.1/24",
        "127.0.0.1/8",
        "0.0.0.1/24",
        "192.0.2.1/0",
        "::1/128",
        "ff02::1/64",
        "::ffff:192.0.2.1/128",
    ] {
        wrong_in(lan, &format!("address = [\"{value}\"]"), &format!("12: address = \"{value}\": {address}"));
    }
    for value in ["192.0.2.0/24", "192.0.2.255/24", "192.0.2.3/30"] {
        let sentence =
            format!("11: address = \"{value}\": is the subnet's own or broadcast address, not one of a host");
        wrong_in(lan, &format!("address = \"{value}\""), &sentence);
    }
    assert_eq!(
        legal("interface.a.address = [\"192.0.2.0/31\", \"192.0.2.9/32\", \"2001:db8::/64\"]").interfaces[0]
            .addresses
            .len(),
        3
    );
    for value in ["575", "65536", "\"auto\""] {
        wrong_in(lan, &format!("mtu = {value}"), &format!("7: mtu = {value}: an MTU is 576..=65535"));
    }
    wrong(
        "[interface.a]\naddress = \"2001:db8::1/64\"\nmtu = 1279\n",
        &["3:7: mtu = 1279: IPv6 needs 1280..=65535 (RFC 8200 §5), and there is 2001:db8::1/64"],
    );
}

#[test]
fn vlans_and_parents() {
    for value in ["0", "4095", "\"5\""] {
        let text = format!("[interface.lan0]\n[interface.\"lan0.5\"]\nparent = \"lan0\"\nvlan = {value}\n");
        wrong(&text, &[&format!("4:8: vlan = {value}: a VLAN is 1..=4094")]);
    }
    wrong_in("[interface.a]", "vlan = 5", "8: vlan: needs parent beside it");
    wrong_below("[interface.a]\nparent = \"lan0\"\n", &["33:10: parent: needs vlan beside it"]);
    wrong_below(
        "[interface.a]\nparent = \"lan1\"\nvlan = 5\n",
        &["33:10: parent = \"lan1\": no such interface; declared: \"wan0\", \"lan0\", \"lan0.110\", \"a\""],
    );
    wrong_below(
        "[interface.a]\nparent = \"lan0.110\"\nvlan = 5\n",
        &["33:10: parent = \"lan0.110\": is itself a VLAN; a parent is an interface without one"],
    );
    wrong_below(
        "[interface.a]\nparent = \"a\"\nvlan = 5\n",
        &["33:10: parent = \"a\": is itself a VLAN; a parent is an interface without one"],
    );
    wrong_below(
        "[interface.a]\nparent = \"lan0\"\nvlan = 110\n",
        &["34:8: vlan = 110: line 9 has this VLAN of \"lan0\""],
    );
    wrong_below(
        "[interface.a]\nparent = \"lan0\"\nvlan = 5\nmode = \"copy\"\n",
        &["35:8: mode: a VLAN has that of its parent \"lan0\""],
    );
    wrong(
        "[interface.a]\nmtu = 1500\n[interface.b]\nparent = \"a\"\nvlan = 5\nmtu = 1501\n",
        &["6:7: mtu = 1501: a VLAN has at most its parent's, 1500"],
    );
}

#[test]
fn kernel_routes() {
    wrong_in(
        "[kernel]",
        "routes = [{ vrf = \"default\" }]",
        "11: routes: table is missing: a kernel table is 1..=4294967295, but not 255, the kernel's own \"local\"",
    );
    wrong_in(
        "[kernel]",
        "routes = [{ table = 1, vrf = \"x\" }]",
        "30: vrf = \"x\": no such VRF; declared: \"default\"",
    );
    wrong_in(
        "[kernel]",
        "routes = [{ table = 1 }, { table = 1 }]",
        "36: table = 1: line 2 mirrors it into VRF \"default\"",
    );
    let protocols = "a list of route protocols: 0..=255 without 80, which is Penstock's own, or names such as \"kernel\", \
                     \"boot\", \"static\", \"ra\", \"dhcp\", \"bird\", \"zebra\", \"bgp\", \"ospf\", \"isis\"";
    for value in ["80", "256", "\"bpg\""] {
        let line = format!("routes = [{{ table = 1, protocols = [{value}] }}]");
        wrong_in("[kernel]", &line, &format!("37: protocols = {value}: {protocols}"));
    }
}

#[test]
fn tunnel_values() {
    let vni = "a VNI is 0..=16777215";
    for value in ["16777216", "-1", "\"5\"", "2.0"] {
        wrong_in_tunnel(&format!("vni = {value}"), &format!("7: vni = {value}: {vni}"));
    }
    let endpoint = "a unicast IPv4 or IPv6 address that is not link-local";
    for value in
        ["192.0.2.1/24", "224.0.0.1", "0.0.0.0", "255.255.255.255", "127.0.0.1", "169.254.0.1", "fe80::1", "::", "site"]
    {
        wrong_in_tunnel(&format!("local = \"{value}\""), &format!("9: local = \"{value}\": {endpoint}"));
        wrong_in_tunnel(&format!("remote = \"{value}\""), &format!("10: remote = \"{value}\": {endpoint}"));
    }
    wrong_in_tunnel(
        "remote = \"any\"",
        "10: remote = \"any\": \"any\" is only for GENEVE with gwlb and WireGuard; legal: a unicast IPv4 or IPv6 address",
    );
    wrong_in_tunnel(
        "remote = \"2001:db8::2\"",
        "10: remote = \"2001:db8::2\": not of one family with local = \"192.0.2.1\"",
    );
    wrong_in_tunnel(
        "remote = \"192.0.2.1\"",
        "10: remote = \"192.0.2.1\": an address of this gateway itself, line 4; legal: another's",
    );
    wrong_in_tunnel("port = 0", "8: port = 0: a UDP port is 1..=65535");
    wrong_in_tunnel("port = 65536", "8: port = 65536: a UDP port is 1..=65535");
    wrong_in_tunnel("vrf = \"x\"", "7: vrf = \"x\": no such VRF; declared: \"default\"");
    wrong_in_tunnel("underlay_vrf = \"x\"", "16: underlay_vrf = \"x\": no such VRF; declared: \"default\"");
    wrong_in_tunnel(
        "address = \"10.0.0.0/24\"",
        "11: address = \"10.0.0.0/24\": is the subnet's own or broadcast address, not one of a host",
    );
    wrong_in_tunnel(
        "mac = \"x\"",
        "7: mac = \"x\": a MAC is \"auto\", or six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"",
    );
    wrong_in_tunnel(
        "remote_mac = \"auto\"",
        "14: remote_mac = \"auto\": a MAC is six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"",
    );
    wrong_in_tunnel("mtu = 575", "7: mtu = 575: an MTU is 576..=65535, or \"auto\"");
    wrong_in_tunnel("mss = 1400", "7: mss = 1400: legal: \"auto\", \"off\"");
    wrong_in_tunnel("dscp = 64", "8: dscp = 64: a DSCP is 0..=63, or \"copy\"");
    wrong_in_tunnel("ecn = \"off\"", "7: ecn = \"off\": legal: \"normal\", \"compatible\"");
    wrong_in_tunnel("ttl = 0", "7: ttl = 0: a TTL is 1..=255, or \"copy\"");
    wrong_in_tunnel("ttl = 256", "7: ttl = 256: a TTL is 1..=255, or \"copy\"");
    wrong_in_tunnel("df = 1", "6: df = 1: legal: \"set\", \"copy\", \"clear\"");
    wrong_in_tunnel("checksum = \"none\"", "12: checksum = \"none\": legal: \"auto\", \"zero\", \"full\"");
    wrong_in_tunnel(
        "allowed_sources = [\"10.0.0.1/8\"]",
        "20: allowed_sources = \"10.0.0.1/8\": has bits set beyond its length; legal: \"10.0.0.0/8\"",
    );
}

#[test]
fn doubts_become_warnings() {
    let below = |lines: &str| format!("{BASE}{lines}");
    let route = |next_hop: &str| below(&format!("[[route]]\nprefix = \"10.0.0.0/8\"\nvia = [{{ {next_hop} }}]\n"));
    warns(
        &route("next_hop = \"203.0.113.1\""),
        &["34:21: next_hop = \"203.0.113.1\": no connected subnet of VRF \"default\" has this address"],
    );
    warns(
        &route("next_hop = \"203.0.113.1\", interface = \"wan0\""),
        &["34:21: next_hop = \"203.0.113.1\": no subnet of \"wan0\" has this address"],
    );
    warns(
        &route("tunnel = \"site-a\", next_hop = \"203.0.113.1\""),
        &["34:40: next_hop = \"203.0.113.1\": no subnet of \"site-a\" has this address"],
    );
    warns(
        &BASE.replace("remote = \"192.0.2.2\"\naddress", "remote = \"203.0.113.9\"\naddress"),
        &[
            "16:10: remote = \"203.0.113.9\": no connected or static route of VRF \"default\" leads to it, so the kernel must have one",
        ],
    );
    warns(&BASE.replace("remote = \"192.0.2.2\"\naddress", "remote = \"198.51.100.9\"\naddress"), &[]);
    let into_itself = BASE.replace("remote = \"192.0.2.2\"\naddress", "remote = \"203.0.113.9\"\naddress")
        + "[[route]]\nprefix = \"203.0.113.0/24\"\nvia = [{ tunnel = \"site-a\" }]\n";
    warns(&into_itself, &["16:10: remote = \"203.0.113.9\": is routed into the tunnel itself, line 33"]);
    warns(
        &BASE.replace("vni = 1\nlocal = \"192.0.2.1\"", "vni = 1\nlocal = \"192.0.2.77\""),
        &["15:9: local = \"192.0.2.77\": no interface of VRF \"default\" has this address"],
    );
    warns(
        &BASE.replace("vni = 1\n", "vni = 1\nmtu = 1451\n"),
        &["15:7: mtu = 1451: over an underlay of 1500 octets only 1450 fit unfragmented"],
    );
    warns(&BASE.replace("vni = 1\n", "vni = 1\nmtu = 1450\n"), &[]);
    let over_ipv6 = BASE.replace(
        "vni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"",
        "vni = 1\nchecksum = \"zero\"\nlocal = \"2001:db8::1\"\nremote = \"2001:db8::2\"",
    );
    warns(&over_ipv6, &["15:12: checksum = \"zero\": Linux drops such packets over IPv6 by default"]);
    // Without addresses in the file the kernel knows them, and nothing is doubtful.
    let untold = BASE.replace("address = [\"192.0.2.1/24\", \"2001:db8::1/64\"]", "");
    warns(&untold.replace("remote = \"192.0.2.2\"\naddress", "remote = \"203.0.113.9\"\naddress"), &[]);
}

#[test]
fn counts_have_a_bound() {
    let many = |count: usize, table: &dyn Fn(usize) -> String| (0..count).map(table).collect::<String>();
    let interfaces = |count| many(count, &|index| format!("[interface.e{index}]\n"));
    wrong(&interfaces(257), &["257:12: interface: at most 256 are supported"]);
    wrong(&interfaces(256), &[]);
    let vrfs = |count| many(count, &|index| format!("[vrf.v{index}]\n"));
    wrong(&vrfs(1024), &["1024:6: vrf: at most 1024 are supported"]);
    wrong(&vrfs(1023), &[]);
    let tunnel = |index: usize| {
        format!(
            "tunnel.t{index} = {{ type = \"vxlan\", vni = {index}, local = \"192.0.2.1\", remote = \"192.0.2.2\", remote_mac = \"02:00:00:00:00:01\" }}\n"
        )
    };
    wrong(&many(4097, &tunnel), &["4097:8: tunnel: at most 4096 are supported"]);
    wrong(&many(4096, &tunnel), &[]);
    let groups = |count| {
        let table = |index| format!("tunnel-group.g{index} = {{ members = [{{ tunnel = \"t0\" }}] }}\n");
        tunnel(0) + &many(count, &table)
    };
    wrong(&groups(4097), &["4098:14: tunnel-group: at most 4096 are supported"]);
    wrong(&groups(4096), &[]);
}

#[test]
fn a_long_list_of_names_or_faults_is_cut() {
    let vrfs: String = (0..20).map(|index| format!("[vrf.v{index}]\n")).collect();
    let error = errors(&format!("{vrfs}[interface.a]\nvrf = \"x\"\n"));
    assert!(error[0].ends_with("\"v9\", \"v10\", and 9 more"), "{error:?}");
    let wrong: String = (0..25).map(|index| format!("[vrf.v{index}]\ntable = 0\n")).collect();
    let shown = Config::parse(&wrong, "p.toml").unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 21);
    assert_eq!(shown.lines().last(), Some("and 5 more"));
}
