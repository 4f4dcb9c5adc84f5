//! Metrics of a running gateway, scraped over HTTP.
#![forbid(unsafe_code)]

use integration::metrics::{Scrape, ask};
use integration::site::{PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Penstock, Site, require, until};
use std::net::TcpStream;

/// Below 1024: only who has CAP_NET_BIND_SERVICE may listen there, and a running gateway has not.
const ADDRESS: &str = "127.0.0.1:973";

fn start(site: &Site) -> Penstock {
    start_with(site, "")
}

/// With more behind its file.
fn start_with(site: &Site, more: &str) -> Penstock {
    let config = site.config().replace("[gateway]", &format!("[gateway]\nmetrics = {ADDRESS:?}")) + more;
    let gateway = Penstock::start(&site.gateway, &config);
    for server in SERVER {
        until("the tunnel works", PATIENCE, || site.client.pings(server, 56, ""));
    }
    gateway
}

#[test]
fn a_scrape_sees_the_counters_move_and_the_balance_hold() {
    require!();
    let site = Site::new("metrics", Plan { lan_queues: 2, wan_queues: 2, workers: 2, ..Plan::default() });
    let gateway = start(&site);
    gateway.assert_balance();
    let before = Scrape::of(&site.gateway, ADDRESS);
    transfer(&site.client, &site.server, site.servers()[0], 1 << 20);
    assert!(!site.client.pings("198.51.100.200", 56, ""), "there is no route");
    let balance = gateway.assert_balance();
    let after = Scrape::of(&site.gateway, ADDRESS);

    assert!(after.balances(), "{after:?}");
    for fate in ["received", "originated", "forwarded", "absorbed"] {
        assert_eq!(after.value(&format!("penstock_{fate}_packets_total")), balance.total(fate) as f64, "{fate}");
    }
    let moved = |series: &str| after.value(series) - before.value(series);
    assert_eq!(moved("penstock_dropped_packets_total{reason=\"no_route\"}"), 1.0);
    assert_eq!(moved("penstock_originated_packets_total"), 1.0, "its sender is told");
    let tunnel = |counter: &str| moved(&format!("penstock_tunnel_{counter}_total{{tunnel=\"{TUNNEL}\"}}"));
    assert!(tunnel("encapsulated_bytes") >= (1 << 20) as f64, "{after:?}");
    assert!(tunnel("decapsulated_packets") > 0.0 && tunnel("dropped_packets") == 0.0, "{after:?}");
    let interface = |counter: &str, name: &str| moved(&format!("penstock_{counter}_total{{interface=\"{name}\"}}"));
    assert!(interface("interface_received_bytes", "lan0") >= (1 << 20) as f64, "{after:?}");
    let longer = interface("interface_sent_bytes", "wan0") - interface("interface_received_bytes", "lan0");
    assert!(longer > 50.0 * 700.0, "each packet gets 50 octets more on its way: {longer}");
    assert!(moved("penstock_interface_steered_packets_total{interface=\"lan0\",verdict=\"forward\"}") > 0.0);

    for (series, value) in [
        ("penstock_workers", 2.0),
        ("penstock_interface_up{interface=\"wan0\"}", 1.0),
        ("penstock_interface_zero_copy{interface=\"wan0\"}", 0.0),
        ("penstock_routes{vrf=\"default\",family=\"ipv4\",source=\"static\"}", 2.0),
        ("penstock_routes{vrf=\"default\",family=\"ipv6\",source=\"static\"}", 2.0),
        ("penstock_routes{vrf=\"default\",family=\"ipv4\",source=\"kernel\"}", 1.0),
    ] {
        assert_eq!(after.value(series), value, "{series}");
    }
    assert_eq!(after.value(&format!("penstock_tunnel_up{{tunnel={TUNNEL:?}}}")), 1.0);
    assert!(after.sum("penstock_neighbours") >= 2.0 && after.sum("penstock_adjacencies") >= 2.0, "{after:?}");
    assert!(after.value("penstock_fib_used_bytes{family=\"ipv4\"}") > 0.0);

    // Routes come and go with the kernel's.
    site.gateway.run("ip route add 203.0.113.128/25 via 192.0.2.254");
    until("the new route is counted", PATIENCE, || {
        let scrape = Scrape::of(&site.gateway, ADDRESS);
        scrape.value("penstock_routes{vrf=\"default\",family=\"ipv4\",source=\"kernel\"}") == 2.0
    });
    let (head, _) = ask(&site.gateway, ADDRESS, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    gateway.assert_balance();
}

/// The same figures as `show` has.
#[test]
fn a_scrape_sees_rules_policers_tenants_and_how_long_their_packets_waited() {
    require!();
    let site = Site::new("scraped", Plan { lan_queues: 2, wan_queues: 2, workers: 2, ..Plan::default() });
    let [client, _] = site.clients();
    let gateway = start_with(
        &site,
        &format!(
            "[qos]\nclasses = \"gpu-gateway\"\n\
             [tenant.red]\nmatch = {{ source = \"{client}/32\" }}\npolicer = \"p\"\n\
             [policer.p]\nkind = \"rfc2697\"\ncir = \"40M\"\nviolate = \"pass\"\n\
             [[acl]]\naction = \"deny\"\ndestination = \"198.51.100.200/32\"\n"
        ),
    );
    assert!(!site.client.pings("198.51.100.200", 56, ""), "a rule is against it");
    assert!(site.client.pings(&site.servers()[0].to_string(), 56, "-Q 184"), "the class of DSCP 46");
    transfer(&site.client, &site.server, site.servers()[0], 4 << 20);
    gateway.assert_balance();
    let scrape = Scrape::of(&site.gateway, ADDRESS);

    let met = |rule: &str| scrape.value(&format!("penstock_acl_met_packets_total{{{rule}}}"));
    assert_eq!(met("rule=\"1\",action=\"deny\""), 1.0);
    assert!(met("rule=\"none\",action=\"permit\"") > 2_000.0, "{scrape:?}");
    let policers = gateway.show("policers");
    let policer = &policers["policers"][0];
    assert_eq!(policer["of"], "tenant red");
    for (colour, action) in [("green", "pass"), ("yellow", "pass"), ("red", "pass")] {
        let labels = format!("{{policer=\"p\",colour=\"{colour}\",action=\"{action}\"}}");
        let packets = scrape.value(&format!("penstock_policer_coloured_packets_total{labels}"));
        let shown = policer[colour]["packets"].as_u64().expect("a count");
        assert_eq!(packets, shown as f64, "{colour}");
        assert_eq!(packets > 0.0, colour != "yellow", "{colour}: there is no second bucket");
    }
    let of = |class: &str| format!("{{interface=\"wan0\",tunnel=\"{TUNNEL}\",tenant=\"red\",class=\"{class}\"}}");
    let sent = |class: &str| scrape.value(&format!("penstock_qos_sent_packets_total{}", of(class)));
    assert!(sent("realtime") >= 1.0 && sent("default") > 2_000.0, "{scrape:?}");
    assert!(scrape.value(&format!("penstock_qos_sent_bytes_total{}", of("default"))) >= f64::from(4 << 20));
    assert_eq!(scrape.value(&format!("penstock_qos_queued_bytes{}", of("default"))), 0.0);
    assert_eq!(scrape.value("penstock_qos_waiting_packets{interface=\"wan0\"}"), 0.0);
    let dropped = of("default").replace('}', ",reason=\"queue_full\"}");
    assert_eq!(
        scrape.value(&format!("penstock_qos_dropped_packets_total{dropped}")),
        0.0,
        "there is a line before the first drop"
    );
    let waited = "penstock_qos_delay_seconds_count{interface=\"wan0\",class=\"realtime\"}";
    assert!(scrape.value(waited) >= sent("realtime"), "{scrape:?}");
    gateway.assert_balance();
}

#[test]
fn clients_that_say_nothing_hold_up_neither_packets_nor_operators() {
    require!();
    let site = Site::new("silent", Plan::default());
    let gateway = start(&site);
    let silent = site.gateway.within(|| {
        let connect = |_| TcpStream::connect(ADDRESS).expect("it listens");
        (0..16).map(connect).collect::<Vec<_>>()
    });
    transfer(&site.client, &site.server, site.servers()[1], 1 << 20);
    gateway.assert_balance();
    // Waits for its turn, which comes when the time of those before it is over.
    assert!(Scrape::of(&site.gateway, ADDRESS).balances());
    drop(silent);
}

/// And its port is free as soon as it has gone.
#[test]
fn nobody_listens_unless_told_to_and_a_restart_listens_again() {
    require!();
    let site = Site::new("restart", Plan::default());
    let mut gateway = site.start();
    let listening = || site.gateway.run("ss -H -t -l -n");
    assert_eq!(listening(), "");
    gateway.stop();
    let mut gateway = start(&site);
    assert!(listening().contains(ADDRESS), "{}", listening());
    for _ in 0..2 {
        let before = Scrape::of(&site.gateway, ADDRESS);
        assert!(before.value("penstock_uptime_seconds") < 60.0);
        gateway.kill9();
        gateway.restart();
    }
    gateway.stop();
    assert_eq!(listening(), "");
}
