//! Tenants, caps and marks between a LAN and Linux's own VXLAN device. The direction only: exact figures are those of
//! virtual time.
#![forbid(unsafe_code)]

use integration::site::{PATIENCE, Plan};
use integration::traffic::transfer;
use integration::{Penstock, Site, require, until};
use serde_json::Value;
use std::time::Instant;

const MIB: usize = 1024 * 1024;

/// A gateway with more in its file: behind the tunnel's type, behind `wan0`, and at the end.
fn start(site: &Site, tunnel: &str, wan: &str, more: &str) -> Penstock {
    let config = site.config().replacen("type = \"vxlan\"", &format!("type = \"vxlan\"\n{tunnel}"), 1).replacen(
        "[interface.wan0]",
        &format!("[interface.wan0]\n{wan}"),
        1,
    );
    let gateway = Penstock::start(&site.gateway, &format!("{config}\n{more}"));
    let servers = site.servers();
    until("the tunnel works", PATIENCE, || servers.iter().all(|server| site.client.pings(&server.to_string(), 56, "")));
    gateway
}

/// The sum of a field over all queues of a tenant.
fn sum(answer: &Value, who: &str, field: &str) -> u64 {
    let rows = answer["qos"].as_array().map_or(&[][..], Vec::as_slice);
    rows.iter().filter(|row| row["tenant"] == who).filter_map(|row| row.pointer(&format!("/{field}"))?.as_u64()).sum()
}

/// Seconds that octets from the client to a server take.
fn seconds(site: &Site, octets: usize) -> f64 {
    let start = Instant::now();
    transfer(&site.client, &site.server, site.servers()[0], octets);
    start.elapsed().as_secs_f64()
}

#[test]
fn a_guarantee_is_kept_and_no_limit_exceeded() {
    require!();
    let site = Site::new("tenants", Plan::default());
    let [client4, client6] = site.clients();
    let tenants = format!(
        "[qos]\nclasses = \"gpu-gateway\"\n\
         [tenant.red]\nmatch = {{ source = \"{client6}/128\" }}\nguarantee = \"35M\"\n\
         [tenant.blue]\nmatch = {{ source = \"{client4}/32\" }}\nlimit = \"20M\"\n"
    );
    let gateway = start(&site, "", "rate = \"60M\"", &tenants);
    let [server4, server6] = site.servers();
    let answer = std::thread::scope(|scope| {
        for (server, octets) in [(server6, 30 * MIB), (server4, 15 * MIB)] {
            let site = &site;
            scope.spawn(move || transfer(&site.client, &site.server, server, octets));
        }
        assert!(site.client.pings(&server6.to_string(), 56, "-Q 184"), "the class of DSCP 46 goes first");
        let mut answer = Value::Null;
        until("both TCPs have found their rates", PATIENCE, || {
            answer = gateway.show("qos");
            // What a busy machine makes the link lose is not red's.
            sum(&answer, "red", "rate_bits") > 35_000_000 * 9 / 10 && sum(&answer, "blue", "rate_bits") > 1_000_000
        });
        answer
    });
    let rate = |who| sum(&answer, who, "rate_bits");
    assert!(rate("blue") < 20_000_000 * 105 / 100, "{answer:#}");
    assert!(rate("red") + rate("blue") < 60_000_000 * 105 / 100, "{answer:#}");
    let realtime = answer["qos"].as_array().is_some_and(|rows| rows.iter().any(|row| row["class"] == "realtime"));
    assert!(realtime, "{answer:#}");
    gateway.assert_balance();
}

#[test]
fn tcp_with_ecn_slows_by_marks_that_come_through_the_tunnel_and_loses_nothing() {
    require!();
    let site = Site::new("ecn", Plan::default());
    for host in [&site.client, &site.server] {
        host.sysctl("ipv4/tcp_ecn", "1");
    }
    let gateway = start(&site, "cap = { rate = \"30M\" }", "", "[qos]\nclasses = \"gpu-gateway\"\n");
    let took = seconds(&site, 8 * MIB);
    assert!(took > 8.0 * MIB as f64 * 8.0 / 30e6 * 0.9, "{took} s are faster than the cap");
    let answer = gateway.show("qos");
    assert!(sum(&answer, "default", "marked") > 0, "{answer:#}");
    let drops = ["early_drop", "queue_full"].map(|why| sum(&answer, "default", &format!("dropped/{why}")));
    assert_eq!(drops, [0, 0], "{answer:#}");
    let balance = gateway.assert_balance();
    assert_eq!((balance.dropped("early_drop"), balance.dropped("queue_full")), (0, 0), "{balance:?}");
}

#[test]
fn a_cap_binds_in_bits_and_in_packets() {
    require!();
    let site = Site::new("caps", Plan::default());
    let mut gateway = start(&site, "cap = { rate = \"20M\", packets = \"100kpps\" }", "", "");
    let took = seconds(&site, 4 * MIB);
    assert!(took > 4.0 * MIB as f64 * 8.0 / 20e6 * 0.9, "{took} s are faster than the bits allow");
    gateway.stop();
    let gateway = start(&site, "cap = { rate = \"1G\", packets = \"1kpps\" }", "", "");
    let took = seconds(&site, 2 * MIB);
    assert!(took > 2.0 * MIB as f64 / 1_400.0 / 1e3 * 0.8, "{took} s are faster than the packets allow");
    assert!(!gateway.show("qos")["qos"].as_array().is_none_or(Vec::is_empty));
}
