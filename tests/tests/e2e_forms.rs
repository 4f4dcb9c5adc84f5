//! Every form of tunnel between two gateways: what goes through, what tshark sees in between, and what `show` says.
#![forbid(unsafe_code)]

use integration::forms::{
    End, Form, GENEVE, GENEVE_IP, GRE, GRE_ETHERNET, GRE_ETHERNET_KEY, GRE_KEY, IP4IP6, IP6IP6, IPIP, MTU, SIT, VXLAN,
};
use integration::pcap::Frame;
use integration::penstock::binary;
use integration::site::{Plan, TUNNEL};
use integration::tshark::dissect;
use integration::{Penstock, Site, Underlay, require};
use std::process::Command;

/// What tshark finds in the packets of a form: its layers behind Ethernet (inside, `ethertype` is tshark's word for what
/// an Ethernet header leads to), and a field with its values.
struct Oracle {
    form: Form,
    layers: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const fn oracle(form: Form, layers: &'static str, fields: &'static [(&'static str, &'static str)]) -> Oracle {
    Oracle { form, layers, fields }
}

/// What the two gateways sent to each other, as tshark reads it.
#[track_caller]
fn assert_oracle_agrees(site: &Site, oracle: &Oracle, frames: &[Frame]) {
    let Oracle { form, layers, fields } = oracle;
    let mut asked =
        vec!["frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.options.mss_val", "frame.len"];
    asked.extend(fields.iter().map(|(field, _)| *field));
    let rows = dissect(site.lab.folder(), frames, &asked);
    let ends = [form.underlay.local(), form.underlay.remote()];
    let (mut seen, mut offered) = ([0_u64; 2], 0);
    for row in &rows {
        let [wrong, protocols, v4, to_v4, v6, to_v6, mss, length] = &row[..8] else { panic!("{row:?}") };
        let (from, to) = if form.underlay == Underlay::V6 { (v6, to_v6) } else { (v4, to_v4) };
        let outermost = |list: &str| list.split(',').next().unwrap_or_default().to_owned();
        let Some(way) = ends.iter().position(|end| *end == outermost(from)) else { continue };
        assert_eq!(outermost(to), ends[1 - way], "{}: {row:?}", form.name);
        assert_eq!(wrong, "false", "{}: {row:?}", form.name);
        assert!(length.parse::<u16>().expect("a number") <= 14 + MTU, "{}: {row:?}", form.name);
        let inside = protocols.strip_prefix(&format!("eth:ethertype:{layers}:"));
        let inside = inside.unwrap_or_else(|| panic!("{}: {protocols} should start with {layers}", form.name));
        assert!(["ip:", "ipv6:", "arp"].iter().any(|start| inside.starts_with(start)), "{}: {row:?}", form.name);
        for ((field, value), found) in fields.iter().zip(&row[8..]) {
            assert_eq!(found, value, "{}: {field} of {protocols}", form.name);
        }
        if !mss.is_empty() {
            let headers = if inside.starts_with("ip:") { 40 } else { 60 };
            assert_eq!(*mss, (MTU - form.overhead - headers).to_string(), "{}: MSS, {row:?}", form.name);
            offered += 1;
        }
        seen[way] += 1;
    }
    assert!(seen.iter().all(|count| *count > form.least_packets()), "{}: {seen:?} of {}", form.name, rows.len());
    assert!(offered >= 4 * form.inside.len(), "{}: {offered} SYNs", form.name);
}

/// The tunnel's row for programs and for people.
#[track_caller]
fn assert_shown(gateway: &Penstock, form: Form, end: End) {
    let row = gateway.show("tunnels")["tunnels"][0].clone();
    let (near, far) = (form.underlay.local(), form.underlay.remote());
    let (local, remote) = if end == End::Near { (near, far) } else { (far, near) };
    // Written as TOML, and so read.
    for line in form.keys.lines() {
        let (key, value) = line.split_once(" = ").expect("a key and its value");
        assert_eq!(row[key].to_string(), value, "{row}");
    }
    assert_eq!(row["inner"], if form.ethernet { "ethernet" } else { "ip" }, "{row}");
    assert_eq!(row["mac"].is_string(), form.ethernet, "what the far end has to send to: {row}");
    assert_eq!((&row["local"], &row["remote"]), (&local.into(), &remote.into()), "{row}");
    assert_eq!((&row["mtu"], &row["state"]), (&(MTU - form.overhead).into(), &"ready".into()), "{row}");
    assert_eq!(row["counters"]["ecn_alarms"], 0, "{row}");

    let mut show = Command::new(binary());
    show.args(["show", "tunnels", "--control"]).arg(gateway.control());
    let table = String::from_utf8(show.output().expect("it is built").stdout).expect("text");
    let line = table.lines().nth(1).expect("one tunnel");
    let inner = if form.ethernet { "ethernet" } else { "ip" };
    let kind = row["type"].as_str().expect("a type");
    let identifier = row["id"].as_u64().map_or_else(|| "-".into(), |id| id.to_string());
    let mtu = (MTU - form.overhead).to_string();
    let mac = row["mac"].as_str().unwrap_or("-");
    let words = format!("{TUNNEL} {kind} {identifier} {inner} {local} {remote} {mac} default {mtu} ready");
    assert!(line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(&words), "{words}:\n{table}");
}

/// A site of two gateways, one form after the other.
#[track_caller]
fn carry(name: &str, oracles: &[Oracle]) {
    require!("tshark", "tcpdump");
    let site = Site::bare(name, Plan::default());
    for oracle in oracles {
        let form = oracle.form;
        let mut far = Penstock::start(&site.remote, &form.config(End::Far));
        let mut near = Penstock::start(&site.gateway, &form.config(End::Near));
        let capture = site.capture_underlay();
        form.carry_both_ways(&site, 0, form.name);
        for inside in form.far_inside() {
            assert!(site.gateway.pings(inside, 56, ""), "{}: the gateway reaches {inside} in the tunnel", form.name);
        }
        let frames = capture.stop();
        assert_oracle_agrees(&site, oracle, &frames);
        for (gateway, end) in [(&mut near, End::Near), (&mut far, End::Far)] {
            assert_shown(gateway, form, end);
            form.assert_counted(gateway, form.name);
            gateway.stop();
        }
    }
}

#[test]
fn vxlan() {
    let fields = &[("vxlan.vni", "5001"), ("vxlan.flags", "0x0800")];
    carry(
        "vxlan",
        &[
            oracle(VXLAN[0], "ip:udp:vxlan:eth:ethertype", fields),
            oracle(VXLAN[1], "ipv6:udp:vxlan:eth:ethertype", fields),
        ],
    );
}

#[test]
fn geneve() {
    let ethernet = &[("geneve.vni", "0x00138a"), ("geneve.proto_type", "0x6558"), ("geneve.flags", "0x00")];
    let ip = &[("geneve.vni", "0x00138b"), ("geneve.flags", "0x00"), ("geneve.version", "0")];
    carry(
        "geneve",
        &[
            oracle(GENEVE[0], "ip:udp:geneve:eth:ethertype", ethernet),
            oracle(GENEVE[1], "ipv6:udp:geneve:eth:ethertype", ethernet),
            oracle(GENEVE_IP[0], "ip:udp:geneve", ip),
            oracle(GENEVE_IP[1], "ipv6:udp:geneve", ip),
        ],
    );
}

#[test]
fn gre_with_ip_inside() {
    let plain = &[("gre.flags_and_version", "0x0000"), ("gre.key", "")];
    let key = &[("gre.flags_and_version", "0x2000"), ("gre.key", "0x00000007")];
    carry(
        "gre",
        &[
            oracle(GRE[0], "ip:gre", plain),
            oracle(GRE[1], "ipv6:gre", plain),
            oracle(GRE_KEY[0], "ip:gre", key),
            oracle(GRE_KEY[1], "ipv6:gre", key),
        ],
    );
}

#[test]
fn gre_with_ethernet_inside() {
    let plain = &[("gre.flags_and_version", "0x0000"), ("gre.proto", "0x6558"), ("gre.key", "")];
    let key = &[("gre.flags_and_version", "0x2000"), ("gre.proto", "0x6558"), ("gre.key", "0xffffffff")];
    carry(
        "gre-ethernet",
        &[
            oracle(GRE_ETHERNET[0], "ip:gre:eth:ethertype", plain),
            oracle(GRE_ETHERNET[1], "ipv6:gre:eth:ethertype", plain),
            oracle(GRE_ETHERNET_KEY[0], "ip:gre:eth:ethertype", key),
            oracle(GRE_ETHERNET_KEY[1], "ipv6:gre:eth:ethertype", key),
        ],
    );
}

#[test]
fn ip_in_ip() {
    carry(
        "ip",
        &[
            oracle(IPIP, "ip", &[("ip.version", "4,4")]),
            oracle(SIT, "ip", &[("ip.version", "4,6")]),
            oracle(IP6IP6, "ipv6", &[("ip.version", "6,6")]),
            oracle(IP4IP6, "ipv6", &[("ip.version", "6,4")]),
        ],
    );
}
