//! What is wrong with access lists, policers, tenants, classes and caps.

use super::faults::{wrong, wrong_below, wrong_in, wrong_in_tunnel};
use super::*;

/// What is wrong with a rule that has these lines; the first of them is line 34.
#[track_caller]
fn wrong_in_rule(lines: &str, expected: &[&str]) {
    wrong_below(&format!("[[acl]]\naction = \"deny\"\n{lines}\n"), expected);
}

#[test]
fn rules_of_an_access_list() {
    wrong_below("[[acl]]\n", &["32:1: [[acl]]: action is missing: legal: \"permit\", \"deny\", \"reject\""]);
    wrong_below("[[acl]]\naction = \"drop\"\n", &["33:10: action = \"drop\": legal: \"permit\", \"deny\", \"reject\""]);
    wrong_in_rule("vrf = \"blue\"", &["34:7: vrf = \"blue\": no such VRF; declared: \"default\", \"red\""]);
    wrong_in_rule("interface = \"lan0\"\ntunnel = \"site-a\"", &["35:10: tunnel: not together with interface"]);
    let never = "is in VRF \"default\", the rule is for \"red\": no packet would meet it";
    wrong_in_rule("vrf = \"red\"\ninterface = \"lan0\"", &[&format!("35:13: interface = \"lan0\": {never}")]);
    wrong_in_rule("vrf = \"red\"\ntunnel = \"site-a\"", &[&format!("35:10: tunnel = \"site-a\": {never}")]);
    wrong_in_rule(
        "source = \"10.0.0.1/8\"",
        &["34:10: source = \"10.0.0.1/8\": has bits set beyond its length; legal: \"10.0.0.0/8\""],
    );
    wrong_in_rule("source = []", &["34:10: source = []: a list of at least one"]);
    wrong_in_rule(
        "source = \"10.0.0.0/8\"\ndestination = [\"2001:db8::/32\"]",
        &["35:15: destination: of another family than source: no packet would meet the rule"],
    );
    let protocol = "an IP protocol is 0..=255, or one of \"icmp\", \"tcp\", \"udp\", \"gre\", \"esp\", \"ah\", \"icmpv6\", \
                    \"ospf\", \"vrrp\", \"sctp\", or a list of these";
    wrong_in_rule("protocol = \"ip\"", &[&format!("34:12: protocol = \"ip\": {protocol}")]);
    wrong_in_rule("protocol = 256", &[&format!("34:12: protocol = 256: {protocol}")]);
    let ports = "a port is 0..=65535 or a range such as \"6000-6063\", or a list of these";
    for value in ["65536", "\"9-8\"", "\"+1-2\"", "\"1-\"", "\"80\""] {
        let lines = format!("protocol = \"tcp\"\ndestination_port = {value}");
        wrong_in_rule(&lines, &[&format!("35:20: destination_port = {value}: {ports}")]);
    }
    let without = "only packets of some protocols have ports; legal: protocol = \"tcp\", \"udp\" or \"sctp\" beside it, or a \
                   list of these";
    wrong_in_rule("source_port = 9", &[&format!("34:15: source_port: {without}")]);
    wrong_in_rule("protocol = [\"tcp\", 1]\nsource_port = 9", &[&format!("35:15: source_port: {without}")]);
    wrong_in_rule("dscp = 64", &["34:8: dscp = 64: a DSCP is 0..=63, or a list of these"]);
    wrong_in_rule(
        "port = 9",
        &["34:1: port: [[acl]] has no such key; legal: action, vrf, interface, tunnel, source, destination, \
                                 protocol, source_port, destination_port, dscp"],
    );
}

/// What is wrong with a policer that has these lines behind its kind and a rate; the first of them is line 4.
#[track_caller]
fn wrong_in_policer(kind: &str, lines: &str, expected: &[&str]) {
    wrong(&format!("[policer.p]\nkind = \"{kind}\"\ncir = \"1G\"\n{lines}\n"), expected);
}

#[test]
fn policers() {
    let rate = "a rate is a number of bits per second with \"k\", \"M\", \"G\" or \"T\", such as \"1.25G\", in \"8k\"..=\"1.6T\"";
    let kinds = "legal: \"rfc2697\", \"rfc2698\", \"rfc4115\"";
    wrong(
        "[policer.p]\n",
        &[
            &format!("1:10: policer \"p\": kind is missing: {kinds}"),
            &format!("1:10: policer \"p\": cir is missing: {rate}"),
        ],
    );
    for value in ["\"1000\"", "1000", "\"0G\"", "\"-1G\"", "\"1.0000000001k\"", "\"2T\"", "\"7k\"", "\"1Gbit\""] {
        let lines = format!("[policer.p]\nkind = \"rfc2697\"\ncir = {value}\n");
        wrong(&lines, &[&format!("3:7: cir = {value}: {rate}")]);
    }
    wrong_in_policer("rfc2698", "", &[&format!("1:10: policer \"p\": pir is missing: {rate}")]);
    wrong_in_policer("rfc4115", "", &[&format!("1:10: policer \"p\": eir is missing: {rate}")]);
    wrong_in_policer(
        "rfc2698",
        "pir = \"999M\"",
        &["4:7: pir: a peak of 999000000 bit/s is below cir, 1000000000 bit/s, line 3"],
    );
    wrong_in_policer(
        "rfc2697",
        "pir = \"2G\"",
        &["4:7: pir: a policer of kind \"rfc2697\" has none; legal: cir, cbs, ebs"],
    );
    let small = "octets is too small; legal: at least";
    let why = "(two packets, and 50 µs of its rate)";
    wrong_in_policer("rfc2697", "cbs = \"6249B\"", &[&format!("4:7: cbs: a burst of 6249 {small} 6250 {why}")]);
    wrong_in_policer("rfc2697", "ebs = \"1kB\"", &[&format!("4:7: ebs: a burst of 1000 {small} 3000 {why}")]);
    let burst = "a burst is a number of octets with \"B\", \"kB\", \"MB\" or \"GB\", such as \"2MB\", above 0 and at most \"1GB\"";
    wrong_in_policer("rfc2697", "cbs = 20000", &[&format!("4:7: cbs = 20000: {burst}")]);
    let packets = "a packet rate is a number with \"pps\", \"kpps\", \"Mpps\" or \"Gpps\", such as \"140kpps\", above 0 and at most \"1Gpps\"";
    for value in ["\"0pps\"", "\"140k\"", "\"2Gpps\""] {
        wrong_in_policer("rfc2697", &format!("packets = {value}"), &[&format!("4:11: packets = {value}: {packets}")]);
    }
    let reaction = "legal: \"pass\", \"drop\", \"ce\", { dscp = 0..=63 }";
    wrong_in_policer("rfc2697", "violate = \"mark\"", &[&format!("4:11: violate = \"mark\": {reaction}")]);
    wrong_in_policer("rfc2697", "exceed = {}", &[&format!("4:10: exceed: dscp is missing: {reaction}")]);
    wrong_in_policer("rfc2697", "exceed = { dscp = 64 }", &["4:19: dscp = 64: a DSCP is 0..=63, or a list of these"]);
    wrong_in_policer(
        "rfc2697",
        "exceed = { dcsp = 8 }",
        &[&format!("4:10: exceed: dscp is missing: {reaction}"), "4:12: dcsp: a mark has no such key; legal: dscp"],
    );
    wrong("[interface.lan0]\npolicer = \"p\"\n", &["2:11: policer = \"p\": no such policer; declared: none"]);
}

#[test]
fn tenants_and_what_they_are_promised() {
    let rate = "a rate is a number of bits per second with \"k\", \"M\", \"G\" or \"T\", such as \"1.25G\", in \"8k\"..=\"1.6T\"";
    wrong(
        "[tenant.a]\n",
        &[
            "1:9: tenant \"a\": match is missing: a table such as { vrf = \"research\" }, of vrf, interface, tunnel, source, destination",
        ],
    );
    wrong(
        "[tenant.a]\nmatch = {}\n",
        &["2:9: match: is empty, so that all packets meet it; legal: a table such as { vrf = \"research\" }, of vrf, \
             interface, tunnel, source, destination, or [tenant.default]"],
    );
    wrong(
        "[tenant.default]\nmatch = {}\n",
        &["2:9: match: tenant \"default\" has what no other tenant matches; legal: no match"],
    );
    wrong_in("[tenant.default]", "guarantee = \"20\"", &format!("13: guarantee = \"20\": {rate}"));
    for weight in ["0", "1001", "\"2\""] {
        wrong_in(
            "[tenant.default]",
            &format!("weight = {weight}"),
            &format!("10: weight = {weight}: a weight is 1..=1000"),
        );
    }
    wrong(
        "[tenant.default]\nguarantee = \"2G\"\nlimit = \"1G\"\n",
        &["2:13: guarantee: 2000000000 bit/s are more than limit, 1000000000 bit/s, line 3"],
    );
    wrong(
        "[tenant.default]\nguarantee = \"1G\"\nburst = \"6249B\"\n",
        &["3:9: burst: a burst of 6249 octets is too small; legal: at least 6250 (two packets, and 50 µs of its rate)"],
    );
    wrong(
        "[tenant.default]\nweight = 1\n[tenant.default]\nweight = 2\n",
        &["3:9: default: a second time in its table; legal: once"],
    );
    wrong(
        "[tenant.default]\npolicer = \"slow\"\n[policer.a]\nkind = \"rfc2697\"\ncir = \"1G\"\n",
        &["2:11: policer = \"slow\": no such policer; declared: \"a\""],
    );
    wrong("[tenant.default]\npolicer = 1\n", &["2:11: policer = 1: a name of a table of this file"]);
    wrong_in(
        "[tenant.default]",
        "police = \"a\"",
        "1: police: [tenant] has no such key; legal: match, guarantee, limit, packets, burst, weight, policer, via",
    );
    wrong(
        "[tenant.a]\nmatch = { vrf = \"default\", port = 1 }\n",
        &["2:28: port: match has no such key; legal: vrf, interface, tunnel, source, destination"],
    );
    wrong(
        "[interface.wan0]\nrate = \"1G\"\n[tenant.a]\nmatch = { source = \"10.0.0.0/8\" }\nguarantee = \"600M\"\n\
         [tenant.b]\nmatch = { source = \"192.0.2.0/24\" }\nguarantee = \"401M\"\n",
        &[
            "2:8: rate: 1000000000 bit/s on the wire are 995795529 in packets of 9000 octets, less than all guarantees, \
             1001000000 bit/s (the last in line 8); legal: a sum of at most 995795529",
        ],
    );
}

/// The wire has more than guarantees count: what fits only with long packets is said, what fits the usual ones is not.
#[test]
fn guarantees_that_only_long_packets_leave_room_for() {
    let file = |guarantee: &str| -> Config {
        let text = format!(
            "[interface.wan0]\nmtu = 1500\nrate = \"1G\"\n[tenant.a]\nmatch = {{ source = \"10.0.0.0/8\" }}\n\
             guarantee = {guarantee:?}\n"
        );
        text.parse().expect("legal")
    };
    assert_eq!(file("890M").warnings, []);
    let warnings = file("950M").warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(
        (warning.line, warning.column, &warning.message[..]),
        (
            3,
            8,
            "rate: 1000000000 bit/s on the wire keep all guarantees, 950000000 bit/s (the last in line 6), only with packets \
             of 722 octets or more on average: shorter ones share what there is"
        )
    );
    wrong(
        "[interface.wan0]\nmtu = 1500\nrate = \"1G\"\n[tenant.default]\nguarantee = \"976M\"\n",
        &[
            "3:8: rate: 1000000000 bit/s on the wire are 975292587 in packets of 1500 octets, less than all guarantees, \
           976000000 bit/s (the last in line 5); legal: a sum of at most 975292587",
        ],
    );
}

/// What is wrong with a tenant's bound for a tunnel that has these lines; the first of them is line 11.
#[track_caller]
fn wrong_via(lines: &str, expected: &[&str]) {
    let tunnel =
        "[tunnel.a]\ntype = \"ipip\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\ncap = { rate = \"2G\" }\n";
    wrong(
        &format!("[interface.wan0]\n{tunnel}[tenant.default]\n\nlimit = \"3G\"\n[tenant.default.via.a]\n{lines}\n"),
        expected,
    );
}

#[test]
fn bounds_of_a_tenant_in_single_tunnels() {
    wrong_via("", &["10:21: via \"a\": limit is missing: limit, packets, or both"]);
    wrong_via(
        "limit = \"1G\"\n[tenant.default.via.b]\nlimit = \"1G\"",
        &["12:21: via = \"b\": no such tunnel; declared: \"a\""],
    );
    wrong_via(
        "rate = \"1G\"\nlimit = \"1G\"",
        &["11:1: rate: [tenant.via] has no such key; legal: limit, packets, burst"],
    );
    wrong_via(
        "limit = \"4G\"",
        &[
            "11:9: limit: 4000000000 bit/s are more than the tenant's limit, 3000000000 bit/s, line 9; legal: less",
            "11:9: limit: 4000000000 bit/s are more than the cap of tunnel \"a\", 2000000000 bit/s, line 6; legal: less",
        ],
    );
    wrong_via(
        "limit = \"1G\"\nburst = \"6249B\"",
        &[
            "12:9: burst: a burst of 6249 octets is too small; legal: at least 6250 (two packets, and 50 µs of its rate)",
        ],
    );
}

#[test]
fn caps_of_tunnels() {
    let presets = "\"aws-vpn-standard\", \"aws-vpn-large\", \"aws-tgw-connect\", \"gcp-ha-vpn\"";
    let table = "{ rate = \"1.25G\", packets = \"140kpps\", burst = \"2MB\" }";
    wrong_in_tunnel("cap = \"aws\"", &format!("7: cap = \"aws\": legal: {presets} or {table}"));
    wrong_in_tunnel("cap = 5", &format!("7: cap = 5: legal: {presets} or {table}"));
    wrong_in_tunnel("cap = {}", "7: cap: rate is missing: rate, packets, or both");
    wrong_in_tunnel("cap = { rate = \"1G\", pps = 1 }", "22: pps: a cap has no such key; legal: rate, burst, packets");
    wrong(
        "[interface.wan0]\n[interface.\"wan0.7\"]\nparent = \"wan0\"\nvlan = 7\nrate = \"1G\"\n",
        &["5:8: rate: not together with parent"],
    );
}

/// What the clouds say, and 97 % of it. Google counts packets of both directions: each has half.
#[test]
fn presets_of_caps() {
    #[track_caller]
    fn preset(name: &str, bits: Option<u64>, packets: Option<u32>) {
        let text =
            format!("[tunnel.a]\ntype = \"ipip\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\ncap = {name:?}\n");
        let cap = text.parse::<Config>().expect("legal").tunnels[0].cap;
        let found = (cap.rate.map(Rate::bits), cap.packets.map(crate::qos::PacketRate::packets));
        assert_eq!(found, (bits, packets), "{name}");
    }
    preset("aws-vpn-standard", Some(1_212_500_000), Some(135_800));
    preset("aws-vpn-large", Some(4_850_000_000), None);
    preset("aws-tgw-connect", Some(4_850_000_000), None);
    preset("gcp-ha-vpn", None, Some(121_250));
}

/// What is wrong with classes that have these lines behind a name; the first of them is line 3.
#[track_caller]
fn wrong_in_class(lines: &str, expected: &[&str]) {
    wrong(&format!("[[qos.class]]\nname = \"a\"\n{lines}\n"), expected);
}

#[test]
fn classes() {
    wrong("[qos]\nclasses = \"cisco\"\n", &["2:11: classes = \"cisco\": legal: \"gpu-gateway\""]);
    wrong(
        "[[qos.class]]\nshare = 1\n",
        &["1:1: [[qos.class]]: name is missing: a name is 1..=64 octets without whitespace and control characters"],
    );
    wrong(
        "[[qos.class]]\nname = \"a b\"\nshare = 1\n",
        &["2:8: name = \"a b\": a name is 1..=64 octets without whitespace and control characters"],
    );
    wrong_in_class("service = \"fast\"", &["3:11: service = \"fast\": legal: \"strict\", \"drr\""]);
    wrong_in_class("", &["1:1: [[qos.class]]: share is missing: a share is 1..=1000"]);
    wrong_in_class("share = 0", &["3:9: share = 0: a share is 1..=1000"]);
    wrong_in_class("service = \"strict\"", &["1:1: [[qos.class]]: limit is missing: a percentage is 1..=100"]);
    wrong_in_class("share = 1\nlimit = 5", &["4:9: limit: not together with service = \"drr\""]);
    wrong_in_class(
        "share = 1\naqm = \"pie\"",
        &["4:7: aqm = \"pie\": legal: \"tail\", \"red\", \"codel\", \"fq-codel\""],
    );
    wrong_in_class(
        "share = 1\naqm = { kind = \"codel\", target = \"5\", end = \"1ms\" }",
        &[
            "4:34: target = \"5\": a time is a number with \"us\", \"ms\" or \"s\", such as \"300us\", above 0 and at most \"4s\"",
            "4:45: end: not together with this kind",
        ],
    );
    wrong_in_class(
        "share = 1\naqm = { kind = \"red\", start = \"50us\", end = \"50us\" }",
        &["4:31: start: is not below end; legal: less"],
    );
    wrong_in_class(
        "share = 1\nmatch = { dscp = 1 }",
        &["1:1: 0 classes without a match; legal: one, for what no other class matches"],
    );
    let strict = |name: &str| {
        format!("[[qos.class]]\nname = \"{name}\"\nservice = \"strict\"\nlimit = 5\nmatch = {{ cnp = true }}\n")
    };
    wrong(
        &["[[qos.class]]\nname = \"x\"\nshare = 1\n".to_owned(), strict("a"), strict("b"), strict("c")].concat(),
        &["16:11: service = \"strict\": a third strict class; legal: at most 2"],
    );
    wrong_in_class(
        "share = 1\n[[qos.class]]\nname = \"a\"\nshare = 1\nmatch = { cnp = true }",
        &["4:1: name = \"a\": another class has this name, line 1"],
    );
}

#[test]
fn pairs_of_tenants_and_tunnels_have_a_bound() {
    let tunnel = |at: usize| {
        format!(
            "[tunnel.t{at}]\ntype = \"ipip\"\nlocal = \"192.0.2.1\"\nremote = \"198.18.{}.{}\"\n",
            at / 250,
            1 + at % 250
        )
    };
    let tenant = |at: usize| format!("[tenant.a{at}]\nmatch = {{ source = \"10.0.{at}.0/24\" }}\n");
    let file = |tenants: usize| {
        let tunnels: String = (0..4_095).map(tunnel).collect();
        format!("[interface.wan0]\n{tunnels}{}", (0..tenants).map(tenant).collect::<String>())
    };
    file(63).parse::<Config>().expect("64 x 4096");
    wrong(
        &file(64),
        &[
            "16508:9: 65 tenants (with `default`) on 4096 ways out (tunnels, and the port itself); legal: at most 262144 pairs",
        ],
    );
}
