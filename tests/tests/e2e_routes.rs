//! Routes of the kernel, whoever put them there: a gateway forwards by them, and by those that come after them.
#![forbid(unsafe_code)]

use integration::bird::Bird;
use integration::site::{CLIENT, PATIENCE, PLAIN_CLIENT, Plan};
use integration::{Penstock, Site, require, until};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Instant;

/// What the far BIRD announces, and an address in each: over IPv4, over IPv6, and of IPv4 by a next hop of IPv6 (RFC
/// 5549).
const ANNOUNCED: [(&str, &str); 3] =
    [("198.18.40.0/24", "198.18.40.1"), ("2001:db8:40::/48", "2001:db8:40::1"), ("198.18.41.0/24", "198.18.41.1")];

/// A gateway that has no routes of its own.
const CONFIG: &str = "[gateway]\nworkers = 1\n[interface.lan0]\n[interface.wan0]\n";

/// Sessions over both families, which come up within a second; what they carry is `families`.
fn sessions(host: &str, own: [&str; 2], peer: [&str; 2], systems: [u16; 2], families: [&str; 2]) -> String {
    let mut config = format!("router id {};\nprotocol device {{}}\n", own[0]);
    for at in 0..2 {
        let (own, peer, carries, [system, theirs]) = (own[at], peer[at], families[at], systems);
        write!(
            config,
            "protocol bgp {host}{at} {{\n local {own} as {system}; neighbor {peer} as {theirs};\n connect delay time 1; \
             connect retry time 1; error wait time 1, 2;\n {carries}\n}}\n"
        )
        .expect("a String takes what it is given");
    }
    config
}

/// The gateway's: what it hears goes into the kernel.
fn near() -> String {
    let hears = "import all; export none;";
    sessions(
        "near",
        ["192.0.2.1", "2001:db8:f::1"],
        ["192.0.2.254", "2001:db8:f::fe"],
        [64500, 64501],
        [&format!("ipv4 {{ {hears} }};"), &format!("ipv6 {{ {hears} }}; ipv4 {{ extended next hop; {hears} }};")],
    ) + "protocol kernel kernel4 { ipv4 { import none; export all; }; }\n\
         protocol kernel kernel6 { ipv6 { import none; export all; }; }\n"
}

/// The other site's: what it announces is its own, and has nothing to do with its kernel.
fn far() -> String {
    let says = |name: &str| format!("import none; export where proto = \"{name}\"; next hop self;");
    let mut config = sessions(
        "far",
        ["192.0.2.254", "2001:db8:f::fe"],
        ["192.0.2.1", "2001:db8:f::1"],
        [64501, 64500],
        [
            &format!("ipv4 {{ {} }};", says("route0")),
            &format!("ipv6 {{ {} }}; ipv4 {{ extended next hop; {} }};", says("route1"), says("route2")),
        ],
    );
    for (at, (prefix, _)) in ANNOUNCED.iter().enumerate() {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        writeln!(config, "protocol static route{at} {{ {family}; route {prefix} unreachable; }}")
            .expect("a String takes what it is given");
    }
    config
}

/// Where the gateway sends packets for an address: the row of `show routes --lookup`.
fn lookup(gateway: &Penstock, address: &str) -> Value {
    gateway.show(&format!("routes --lookup {address}"))["routes"][0].clone()
}

/// Routes of the default VRF.
fn count(gateway: &Penstock) -> u64 {
    gateway.show("routes --lookup 192.0.2.1")["counts"][0]["routes"].as_u64().expect("a count")
}

fn reaches(site: &Site, address: &str) -> bool {
    let from = if address.contains(':') { CLIENT[1] } else { PLAIN_CLIENT };
    site.client.pings(address, 56, &format!("-I {from}"))
}

/// A site whose far side has what is announced.
fn announcing_site(name: &str) -> Site {
    let site = Site::new(name, Plan::default());
    for (_, address) in ANNOUNCED {
        site.remote.run(&format!("ip address add {address} dev lo"));
    }
    site.remote.run("ip route replace 2001:db8:1::/64 via 2001:db8:f::1");
    site
}

#[test]
fn traffic_follows_what_bird_hears_and_what_it_hears_no_more() {
    require!("bird", "birdc");
    let site = announcing_site("bird");
    let gateway = Penstock::start(&site.gateway, CONFIG);
    let _near = Bird::start(&site.gateway, "near", &near());
    // What is there for when nobody announces a thing.
    site.gateway.run("ip route add prohibit 198.18.40.0/24 metric 500");
    for (_, address) in ANNOUNCED {
        assert!(!reaches(&site, address), "{address} is not announced yet");
    }
    assert_eq!(lookup(&gateway, ANNOUNCED[0].1)["state"], "prohibited");

    let far = Bird::start(&site.remote, "far", &far());
    for (prefix, address) in ANNOUNCED {
        until(&format!("{address} is reached"), PATIENCE, || reaches(&site, address));
        let route = lookup(&gateway, address);
        assert_eq!((&route["prefix"], &route["source"]), (&prefix.into(), &"kernel".into()), "{route}");
        let before = gateway.assert_balance().total("forwarded");
        assert!(reaches(&site, address));
        // On a busy machine a late answer to an earlier ping comes on top.
        let after = gateway.assert_balance().total("forwarded");
        assert!(after >= before + 2, "request and answer, by the worker: {before}, {after}");
    }
    let over_v6 = lookup(&gateway, ANNOUNCED[2].1);
    assert_eq!(over_v6["via"], "2001:db8:f::fe on wan0", "IPv4 by a router's IPv6 address");

    for at in 0..ANNOUNCED.len() {
        assert!(far.tell(&format!("disable route{at}")).contains("disabled"));
    }
    for (prefix, address) in &ANNOUNCED[1..] {
        until(&format!("{prefix} is gone"), PATIENCE, || lookup(&gateway, address)["prefix"] != **prefix);
        assert!(!reaches(&site, address));
    }
    until("the next metric takes over", PATIENCE, || lookup(&gateway, ANNOUNCED[0].1)["state"] == "prohibited");
    let refused = site.client.try_run(&format!("ping -n -c 1 -W 1 -I {PLAIN_CLIENT} {}", ANNOUNCED[0].1));
    assert!(refused.stdout.contains("filtered"), "{refused:?}");
    gateway.assert_balance();
}

/// Whether or not routes by an object tell of its hops too.
#[test]
fn traffic_follows_a_next_hop_object_that_is_replaced_under_its_routes() {
    require!();
    for compatible in ["1", "0"] {
        let site = announcing_site("object");
        site.gateway.sysctl("ipv4/nexthop_compat_mode", compatible);
        let gateway = Penstock::start(&site.gateway, CONFIG);
        let (prefix, address) = ANNOUNCED[0];
        site.gateway.run("ip nexthop add id 7 via 192.0.2.77 dev wan0");
        site.gateway.run("ip nexthop add id 8 group 7");
        site.gateway.run(&format!("ip route add {prefix} nhid 8"));
        until("the route is mirrored", PATIENCE, || lookup(&gateway, address)["via"] == "192.0.2.77 on wan0");
        assert!(!reaches(&site, address), "there is no 192.0.2.77");
        site.gateway.run("ip nexthop replace id 7 via 192.0.2.254 dev wan0");
        until(&format!("{address} is reached"), PATIENCE, || reaches(&site, address));
        site.gateway.run("ip nexthop delete id 7");
        until("the route is gone with its object", PATIENCE, || lookup(&gateway, address)["prefix"] != prefix);
        gateway.assert_balance();
    }
}

#[test]
fn a_hundred_thousand_routes_are_mirrored_whole_while_traffic_goes_on() {
    require!();
    const MANY: u64 = 100_000;
    let site = announcing_site("many");
    // 100.64.0.0/10 is nobody's.
    let route = |i: u64| format!("100.{}.{}.{}/32 via 192.0.2.254", 64 + (i >> 16), i >> 8 & 255, i & 255);
    let batch = |verb: &str| {
        let path = site.lab.folder().join(verb);
        let lines: String = (0..MANY).map(|i| format!("route {verb} {}\n", route(i))).collect();
        std::fs::write(&path, lines).expect("the lab's folder is ours");
        site.gateway.run(&format!("ip -batch {}", path.display()));
    };
    let mut gateway = Penstock::start(&site.gateway, CONFIG);
    let without = count(&gateway);
    let (prefix, address) = ANNOUNCED[0];
    site.gateway.run(&format!("ip route add {prefix} via 192.0.2.254"));

    let start = Instant::now();
    batch("add");
    println!("{MANY} routes were added in {:?}", start.elapsed());
    let late = until("all are mirrored", PATIENCE, || count(&gateway) == without + MANY + 1);
    println!("they were all mirrored {late:?} after the last");
    assert_eq!(lookup(&gateway, "100.65.134.159")["via"], "192.0.2.254 on wan0", "the last of them");
    assert!(reaches(&site, address));

    // Found there, rather than told of.
    gateway.stop();
    let start = Instant::now();
    gateway.restart();
    println!("a gateway that finds them is ready in {:?}", start.elapsed());
    assert_eq!(count(&gateway), without + MANY + 1);
    assert!(reaches(&site, address));

    batch("delete");
    until("all are gone", PATIENCE, || count(&gateway) == without + 1);
    assert!(reaches(&site, address));
    gateway.assert_balance();
}
