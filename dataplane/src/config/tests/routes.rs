//! What can be wrong with routes, neighbours and groups.

use super::faults::*;

#[test]
fn route_values() {
    let route = |prefix: &str, rest: &str| format!("[[route]]\nprefix = \"{prefix}\"\n{rest}\n");
    wrong(
        "[[route]]\nvia = \"blackhole\"\n",
        &["1:1: [[route]]: prefix is missing: a prefix is an address with its length, such as \"192.0.2.0/24\""],
    );
    wrong(
        &route("10.0.0.0", "via = \"blackhole\""),
        &["2:10: prefix = \"10.0.0.0\": a prefix is an address with its length, such as \"192.0.2.0/24\""],
    );
    wrong(
        &route("10.0.0.1/8", "via = \"blackhole\""),
        &["2:10: prefix = \"10.0.0.1/8\": has bits set beyond its length; legal: \"10.0.0.0/8\""],
    );
    wrong(
        &route("2001:db8::1/32", "via = \"blackhole\""),
        &["2:10: prefix = \"2001:db8::1/32\": has bits set beyond its length; legal: \"2001:db8::/32\""],
    );
    let via = "via: legal: a list of { group = \"..\" }, { tunnel = \"..\" } (next_hop optional), { next_hop = \"..\" } (interface optional), each with an optional weight; or \"blackhole\", \"unreachable\"";
    wrong(&route("10.0.0.0/8", ""), &[&format!("1:1: {via}")]);
    for (value, column) in
        [("[]", 7), ("\"drop\"", 7), ("[{}]", 8), ("[[\"blackhole\"]]", 8), ("[{ weight = 2 }]", 8), ("[\"drop\"]", 8)]
    {
        wrong(&route("10.0.0.0/8", &format!("via = {value}")), &[&format!("3:{column}: {via}")]);
    }
    wrong_below(&route("10.0.0.0/8", "via = { interface = \"wan0\" }"), &[&format!("34:7: {via}")]);
    wrong_below(
        &route("10.0.0.0/8", "via = [{ tunnel = \"x\" }]"),
        &["34:19: tunnel = \"x\": no such tunnel; declared: \"site-a\", \"red-a\""],
    );
    wrong_below(
        &route("10.0.0.0/8", "via = [{ next_hop = \"192.0.2.9\", interface = \"x\" }]"),
        &["34:46: interface = \"x\": no such interface; declared: \"wan0\", \"lan0\", \"lan0.110\""],
    );
    wrong_below(
        &route("10.0.0.0/8", "via = [{ tunnel = \"site-a\", interface = \"wan0\" }]"),
        &["34:41: interface: not together with tunnel"],
    );
    wrong_below(
        &route("10.0.0.0/8", "via = [{ next_hop = \"224.0.0.1\" }]"),
        &["34:21: next_hop = \"224.0.0.1\": a unicast IPv4 or IPv6 address"],
    );
    wrong_below(&route("10.0.0.0/8", "via = \"blackhole\"\nkernel = 1"), &["35:10: kernel = 1: legal: true, false"]);
    wrong_below(
        &route("10.0.0.0/8", "via = \"blackhole\"\nleak = \"yes\""),
        &["35:8: leak = \"yes\": legal: true, false"],
    );
    wrong_below(
        &route("10.0.0.0/8", "via = \"blackhole\"\nvrf = \"x\""),
        &["35:7: vrf = \"x\": no such VRF; declared: \"default\", \"red\""],
    );
}

#[test]
fn routes_that_do_not_fit_their_next_hop() {
    let route = |prefix: &str, rest: &str| format!("[[route]]\nprefix = \"{prefix}\"\n{rest}\n");
    wrong_below(
        &route("198.51.100.0/24", "via = \"blackhole\""),
        &["33:10: prefix = \"198.51.100.0/24\": VRF \"default\" has this route, line 30"],
    );
    wrong_below(&route("198.51.100.0/24", "via = \"blackhole\"\nvrf = \"red\""), &[]);
    wrong_below(
        &route("2001:db8:1::/48", "via = [{ next_hop = \"192.0.2.9\" }]"),
        &["34:21: next_hop = \"192.0.2.9\": not of one family with prefix = \"2001:db8:1::/48\""],
    );
    wrong_below(
        &route("10.1.0.0/16", "via = [{ next_hop = \"192.0.2.1\" }]"),
        &["34:21: next_hop = \"192.0.2.1\": an address of this gateway itself, line 3; legal: another's"],
    );
    wrong_below(
        &route("2001:db8:1::/48", "via = [{ next_hop = \"fe80::1\" }]"),
        &["34:21: next_hop = \"fe80::1\": a link-local next hop needs interface or tunnel beside it"],
    );
    warns(
        &format!("{BASE}{}", route("2001:db8:1::/48", "via = [{ next_hop = \"fe80::1\", interface = \"wan0\" }]")),
        &[],
    );
    let leak = "legal: one of \"red\", or leak = true";
    let other = route("10.1.0.0/16", "via = [{ next_hop = \"192.0.2.9\", interface = \"wan0\" }]\nvrf = \"red\"");
    wrong_below(
        &other,
        &[&format!("34:46: interface = \"wan0\": is in VRF \"default\", the route in \"red\"; {leak}")],
    );
    warns(&format!("{BASE}{other}leak = true\n"), &[]);
    let other = route("10.1.0.0/16", "via = [{ tunnel = \"site-a\" }]\nvrf = \"red\"");
    wrong_below(&other, &[&format!("34:19: tunnel = \"site-a\": is in VRF \"default\", the route in \"red\"; {leak}")]);
    warns(&format!("{BASE}{other}leak = true\n"), &[]);
    let small = BASE.replace("vni = 1\n", "vni = 1\nmtu = 1279\n")
        + &route("2001:db8:1::/48", "via = [{ tunnel = \"site-a\" }]");
    wrong(&small, &["35:19: mtu = 1279: IPv6 needs 1280..=65535 (RFC 8200 §5), and there is 2001:db8:1::/48"]);
}

#[test]
fn neighbour_values() {
    let neighbour = |on: &str, address: &str, mac: &str| {
        format!("[[neighbour]]\ninterface = \"{on}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n")
    };
    let mac = "02:00:00:00:00:03";
    wrong(
        "[[neighbour]]\n",
        &[
            "1:1: [[neighbour]]: interface is missing: a name of a table of this file",
            "1:1: [[neighbour]]: address is missing: a unicast IPv4 or IPv6 address",
            "1:1: [[neighbour]]: mac is missing: a MAC is six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"",
        ],
    );
    wrong_below(
        &neighbour("x", "192.0.2.3", mac),
        &[
            "33:13: interface = \"x\": no such interface or tunnel; declared: \"wan0\", \"lan0\", \"lan0.110\", \"site-a\", \"red-a\"",
        ],
    );
    wrong_below(
        &neighbour("wan0", "224.0.0.1", mac),
        &["34:11: address = \"224.0.0.1\": a unicast IPv4 or IPv6 address"],
    );
    wrong_below(
        &neighbour("wan0", "192.0.2.3", "01:00:00:00:00:00"),
        &[
            "35:7: mac = \"01:00:00:00:00:00\": a MAC is six octets in hexadecimal, unicast and not zero, such as \"02:00:00:00:00:01\"",
        ],
    );
    wrong_below(
        &neighbour("wan0", "192.0.2.2", mac),
        &["34:11: address = \"192.0.2.2\": \"wan0\" has this neighbour, line 27"],
    );
    wrong_below(
        &neighbour("lan0", "198.18.1.1", mac),
        &["34:11: address = \"198.18.1.1\": an address of this gateway itself, line 5; legal: another's"],
    );
    wrong_below(&neighbour("lan0.110", "192.0.2.2", mac), &[]);
}

#[test]
fn distinct_next_hops_have_a_bound() {
    let route = |index: usize, via: &str| {
        let [_, _, high, low] = (index as u32).to_be_bytes();
        format!("[[route]]\nprefix = \"10.{high}.{low}.0/24\"\nvia = [{via}]\n")
    };
    let next_hop = |index: usize| {
        let [_, _, high, low] = (index as u32).to_be_bytes();
        format!("{{ next_hop = \"198.18.{high}.{low}\" }}")
    };
    let fault = |line| format!("{line}:7: distinct next hops, and sets of several: at most 32767 are supported");
    let mut text: String = (0..32_767).map(|index| route(index, &next_hop(index))).collect();
    wrong(&text, &[]);
    text += &route(32_767, &next_hop(0));
    wrong(&text, &[]);
    // A set of several takes an entry of its own, also if each of them has one.
    let several = route(32_768, &format!("{}, {}", next_hop(0), next_hop(1)));
    wrong(&format!("{text}{several}"), &[&fault(98_307)]);
    wrong(&format!("{text}{}", route(32_768, &next_hop(32_768))), &[&fault(98_307)]);
}

#[test]
fn tunnel_groups() {
    let group = |members: &str| format!("[tunnel-group.g]\nmembers = {members}\n");
    let members = "a list of at least one tunnel, such as [{ tunnel = \"..\", weight = 2 }, ..]";
    wrong("[tunnel-group.g]\n", &[&format!("1:15: tunnel-group \"g\": members is missing: {members}")]);
    wrong(&group("[]"), &[&format!("2:11: members = []: {members}")]);
    wrong(
        &group("[\"a\"]"),
        &["2:12: invalid type: string \"a\", expected a member, such as { tunnel = \"..\", weight = 2 }"],
    );
    wrong(&group("[{}]"), &["2:12: members: tunnel is missing: a name of a table of this file"]);
    wrong_below(
        &group("[{ tunnel = \"site-b\" }]"),
        &["33:23: tunnel = \"site-b\": no such tunnel; declared: \"site-a\", \"red-a\""],
    );
    wrong_below(
        &group("[{ tunnel = \"site-a\", weight = 2 }, { tunnel = \"site-a\" }]"),
        &["33:58: tunnel = \"site-a\": is among the members twice; legal: once, with a weight"],
    );
    for value in ["0", "257", "-1", "\"1\"", "1.5"] {
        let sentence = format!("33:42: weight = {value}: a weight is 1..=256");
        wrong_below(&group(&format!("[{{ tunnel = \"site-a\", weight = {value} }}]")), &[&sentence]);
    }
    wrong_below(
        "[tunnel-group.\"a b\"]\nmembers = [{ tunnel = \"site-a\" }]\n",
        &["32:15: tunnel-group = \"a b\": a name is 1..=64 octets without whitespace and control characters"],
    );
    let tunnels = |count| -> String {
        let tunnel = |index| {
            format!(
                "tunnel.t{index} = {{ type = \"vxlan\", vni = {index}, local = \"192.0.2.1\", remote = \"192.0.2.2\", remote_mac = \"02:00:00:00:00:01\" }}\n"
            )
        };
        let member = |index| format!("{{ tunnel = \"t{index}\" }}");
        let members = (0..count).map(member).collect::<Vec<_>>().join(", ");
        (0..70).map(tunnel).collect::<String>() + &group(&format!("[{members}]"))
    };
    wrong(&tunnels(64), &[]);
    wrong(&tunnels(65), &["72:11: members: 65 with the members of each group; at most 64"]);
    let route = |via: &str| tunnels(64) + &format!("[[route]]\nprefix = \"10.0.0.0/8\"\nvia = [{via}]\n");
    wrong(&route("{ group = \"g\" }"), &[]);
    wrong(
        &route("{ group = \"g\" }, { tunnel = \"t64\" }"),
        &["75:7: via: 65 with the members of each group; at most 64"],
    );
}

#[test]
fn several_next_hops_of_a_route() {
    let group = "[tunnel-group.g]\nmembers = [{ tunnel = \"site-a\", weight = 2 }]\n";
    let below = |via: &str| format!("[[route]]\nprefix = \"10.0.0.0/8\"\nvia = [{via}]\n{group}");
    wrong_below(&below("{ group = \"g\", weight = 3 }, { next_hop = \"192.0.2.9\", weight = 256 }"), &[]);
    wrong_below(
        &below("{ group = \"site-a\" }"),
        &["34:18: group = \"site-a\": no such tunnel-group; declared: \"g\""],
    );
    for value in ["0", "257", "\"2\""] {
        let sentence = format!("34:32: weight = {value}: a weight is 1..=256");
        wrong_below(&below(&format!("{{ group = \"g\", weight = {value} }}")), &[&sentence]);
    }
    for (key, value, at) in [("tunnel", "site-a", 32), ("next_hop", "192.0.2.9", 34), ("interface", "wan0", 35)] {
        let sentence = format!("34:{at}: {key}: not together with group");
        wrong_below(&below(&format!("{{ group = \"g\", {key} = \"{value}\" }}")), &[&sentence]);
    }
    for word in ["blackhole", "unreachable"] {
        let sentence = format!("34:25: {word:?}: stands alone; legal: no other next hop beside it");
        wrong_below(&below(&format!("{{ group = \"g\" }}, {word:?}")), &[&sentence]);
    }
    wrong_below(
        &below("{ next_hop = \"224.0.0.1\" }, { tunnel = \"x\" }"),
        &[
            "34:21: next_hop = \"224.0.0.1\": a unicast IPv4 or IPv6 address",
            "34:47: tunnel = \"x\": no such tunnel; declared: \"site-a\", \"red-a\"",
        ],
    );
    let twice = "is among the next hops twice; legal: once, with a weight";
    wrong_below(
        &below("{ tunnel = \"site-a\" }, { group = \"g\" }"),
        &[&format!("34:41: group = \"g\": tunnel \"site-a\": {twice}")],
    );
    wrong_below(
        &below("{ next_hop = \"192.0.2.9\" }, { next_hop = \"192.0.2.9\", weight = 2 }"),
        &[&format!("34:36: next_hop = \"192.0.2.9\": {twice}")],
    );
    wrong_below(
        &below("{ group = \"g\" }, { group = \"g\" }"),
        &[&format!("34:35: group = \"g\": tunnel \"site-a\": {twice}")],
    );
    wrong_below(&below("{ next_hop = \"192.0.2.9\" }, { next_hop = \"192.0.2.9\", interface = \"wan0\" }"), &[]);
    // Each is asked what one alone is.
    wrong_below(
        &below("{ group = \"g\" }, { tunnel = \"red-a\" }"),
        &[
            "34:36: tunnel = \"red-a\": is in VRF \"red\", the route in \"default\"; legal: one of \"default\", or leak = true",
        ],
    );
    let red = below("{ group = \"g\" }").replace("via =", "vrf = \"red\"\nvia =");
    wrong_below(
        &red,
        &[
            "35:18: group = \"g\": tunnel \"site-a\" is in VRF \"default\", the route in \"red\"; legal: one of \"red\", or leak = true",
        ],
    );
    wrong_below(&red.replace("via =", "leak = true\nvia ="), &[]);
    let small = BASE.replace("vni = 1\n", "vni = 1\nmtu = 1279\n") + &below("{ group = \"g\" }");
    wrong(&small, &[]);
    wrong(
        &small.replace("10.0.0.0/8", "2001:db8:1::/48"),
        &[
            "35:18: group = \"g\": tunnel \"site-a\" has mtu = 1279, IPv6 needs 1280..=65535 (RFC 8200 §5), and there is 2001:db8:1::/48",
        ],
    );
    let itself = BASE.replace("remote = \"192.0.2.2\"\naddress", "remote = \"203.0.113.9\"\naddress")
        + &below("{ next_hop = \"192.0.2.9\" }, { group = \"g\" }").replace("10.0.0.0/8", "203.0.113.0/24");
    warns(&itself, &["16:10: remote = \"203.0.113.9\": is routed into the tunnel itself, line 33"]);
}
