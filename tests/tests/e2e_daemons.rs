//! Routing daemons speak through tunnels: a tunnel's device is a device like any other.
#![forbid(unsafe_code)]

use integration::bird::Bird;
use integration::forms::{End, Form, GRE, GRE_ETHERNET_KEY};
use integration::ovs::{self, INSIDE_DEVICE, Ovs};
use integration::site::{PATIENCE, Plan, SERVER, TUNNEL};
use integration::{Penstock, Site, require, until};
use std::fmt::Write as _;

/// What the far BIRD announces.
const ANNOUNCED: [&str; 2] = ["198.18.2.0/24", "2001:db8:2::/64"];

/// eBGP inside the tunnel, one session a family. A neighbour of eBGP is one hop away: it is sent with a TTL of 1.
fn bgp([own, peer]: [[&str; 2]; 2], [system, theirs]: [u16; 2], carries: [&str; 2]) -> String {
    let mut config = format!("router id {};\nprotocol device {{}}\n", own[0]);
    for (at, family) in ["ipv4", "ipv6"].into_iter().enumerate() {
        write!(
            config,
            "protocol bgp session{at} {{\n local {} as {system}; neighbor {} as {theirs};\n connect delay time 1; \
             connect retry time 1; error wait time 1, 2;\n {family} {{ {} }};\n}}\n",
            own[at], peer[at], carries[at]
        )
        .expect("a String takes what it is given");
    }
    config
}

const NEAR: [&str; 2] = ["198.18.255.1", "2001:db8:ff::"];
const FAR: [&str; 2] = ["198.18.255.2", "2001:db8:ff::1"];

/// What a BIRD announces, and takes into its kernel what it hears.
fn announces(prefixes: [&str; 2]) -> String {
    let mut config = String::new();
    for (family, prefix) in ["ipv4", "ipv6"].into_iter().zip(prefixes) {
        write!(
            config,
            "protocol static own_{family} {{ {family}; route {prefix} unreachable; }}\n\
             protocol kernel kernel_{family} {{ {family} {{ import none; export where source != RTS_STATIC; }}; }}\n"
        )
        .expect("a String takes what it is given");
    }
    config
}

/// Where the gateway sends packets for an address.
fn via(gateway: &Penstock, address: &str) -> String {
    let route = gateway.show(&format!("routes --lookup {address}"))["routes"][0].clone();
    route["via"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn bgp_through(name: &str, form: Form, options: &str) {
    require!("bird", "birdc", "ovs-vsctl", "tcpdump");
    let site = Site::bare(name, Plan::default());
    let ovs = Ovs::start(&site.remote);
    ovs.carry(form, "gre", options, 1500 - form.overhead);
    let gateway = Penstock::start(&site.gateway, &ovs::suit(form, &form.config_without_routes(End::Near)));
    let line = format!("tcpdump -n -l -v --immediate-mode -i {TUNNEL} tcp port 179");
    let mut on_device = site.gateway.start(&line);
    on_device.await_message("listening on");
    let says = ["import all; export where source = RTS_STATIC;"; 2];
    let near = bgp([NEAR, FAR], [64500, 64501], says) + &announces(["198.18.1.0/24", "2001:db8:1::/64"]);
    let far = bgp([FAR, NEAR], [64501, 64500], says) + &announces(ANNOUNCED);
    let _near = Bird::start(&site.gateway, "near", &near);
    let far = Bird::start(&site.remote, "far", &far);
    for server in SERVER {
        until(&format!("{server} is reached"), PATIENCE, || site.client.pings(server, 56, ""));
        assert!(via(&gateway, server).ends_with(&format!("tunnel {TUNNEL}")), "{}", via(&gateway, server));
    }
    // Both ends' daemons see a neighbour one hop away.
    until("tcpdump has seen both families", PATIENCE, || {
        let text = on_device.stdout();
        text.contains(" ttl 1,") && text.contains(" hlim 1,")
    });

    // A route is withdrawn, then a session ends.
    assert!(far.tell("disable own_ipv4").contains("disabled"));
    until("the route is gone", PATIENCE, || via(&gateway, SERVER[0]).is_empty());
    assert!(!site.client.pings(SERVER[0], 56, ""));
    assert!(site.client.pings(SERVER[1], 56, ""), "the other family's is there");
    assert!(far.tell("disable session1").contains("disabled"));
    until("the routes are gone with the session", PATIENCE, || via(&gateway, SERVER[1]).is_empty());
    gateway.assert_balance();
}

#[test]
fn bgp_through_a_gre_tunnel() {
    bgp_through("bgp-gre", GRE[0], "options:packet_type=legacy_l3");
}

#[test]
fn bgp_through_a_tunnel_with_ethernet_inside() {
    bgp_through("bgp-gretap", GRE_ETHERNET_KEY[0], "options:key=4294967295");
}

/// OSPF finds its neighbour by multicast, which goes to the tunnel's device and nowhere else.
#[test]
fn ospf_finds_its_neighbour_through_a_gre_tunnel() {
    require!("bird", "birdc", "ovs-vsctl");
    let form = GRE[0];
    let site = Site::bare("ospf", Plan::default());
    let ovs = Ovs::start(&site.remote);
    ovs.carry(form, "gre", "options:packet_type=legacy_l3", 1500 - form.overhead);
    let gateway = Penstock::start(&site.gateway, &form.config_without_routes(End::Near));
    let ospf = |id: &str, tunnel: &str, lan: &str| {
        format!(
            "router id {id};\nprotocol device {{}}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n\
             protocol ospf v2 {{ ipv4 {{ import all; }}; area 0 {{ interface \"{tunnel}\" {{ type ptp; hello 1; dead 4; }}; \
             interface \"{lan}\" {{ stub; }}; }}; }}\n"
        )
    };
    let near = Bird::start(&site.gateway, "near", &ospf(NEAR[0], TUNNEL, "lan0"));
    let far = Bird::start(&site.remote, "far", &ospf(FAR[0], INSIDE_DEVICE, "site0"));
    until("the server is reached", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    assert!(near.tell("show ospf neighbors").contains("Full/PtP"));
    assert!(via(&gateway, SERVER[0]).ends_with(&format!("tunnel {TUNNEL}")));
    assert!(far.tell("disable ospf1").contains("disabled"));
    until("the route is gone with its neighbour", PATIENCE, || via(&gateway, SERVER[0]).is_empty());
    gateway.assert_balance();
}
