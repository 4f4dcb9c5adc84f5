//! Sources that do not lead back the way they came: Penstock's `rpf` decides as Linux's `rp_filter` does (RFC 3704).
#![forbid(unsafe_code)]

use integration::site::{PATIENCE, PLAIN_CLIENT, PLAIN_SERVER, Plan};
use integration::{Penstock, Site, require, until};
use std::net::UdpSocket;
use std::time::Duration;

/// Behind the interface that they come by; behind another one; behind none.
const SOURCES: [&str; 3] = [PLAIN_CLIENT, "203.0.113.77", "198.18.99.1"];
const PORT: u16 = 5000;

/// Which sources arrive at the server.
fn arriving(site: &Site) -> [bool; 3] {
    let server = site.remote.within(|| UdpSocket::bind((PLAIN_SERVER, PORT)).expect("an address of that host"));
    server.set_read_timeout(Some(Duration::from_millis(400))).expect("not zero");
    SOURCES.map(|source| {
        let client = site.client.within(|| UdpSocket::bind((source, 0)).expect("an address of that host"));
        // One that is lost is what this is about.
        let _lost = client.send_to(b"x", (PLAIN_SERVER, PORT));
        server.recv(&mut [0; 4]).is_ok()
    })
}

#[test]
fn strict_and_loose_let_in_what_linux_lets_in() {
    require!();
    let site = Site::new("rpf", Plan::default());
    for source in &SOURCES[1..] {
        site.client.run(&format!("ip address add {source}/32 dev lo"));
    }
    let mut decisions = Vec::new();
    for (mode, rp_filter) in [("off", "0"), ("loose", "2"), ("strict", "1")] {
        site.gateway.sysctl("ipv4/ip_forward", "1");
        site.gateway.sysctl("ipv4/conf/lan0/rp_filter", rp_filter);
        until("the kernel forwards", PATIENCE, || site.plain_path_works());
        let linux = arriving(&site);
        site.gateway.sysctl("ipv4/ip_forward", "0");
        site.gateway.sysctl("ipv4/conf/lan0/rp_filter", "0");

        let config = format!("[gateway]\nworkers = 1\n[interface.lan0]\nrpf = \"{mode}\"\n[interface.wan0]\n");
        let mut gateway = Penstock::start(&site.gateway, &config);
        until("penstock forwards", PATIENCE, || site.plain_path_works());
        let before = gateway.assert_balance().dropped("reverse_path");
        let ours = arriving(&site);
        assert_eq!(ours, linux, "{mode}");
        let dropped = gateway.assert_balance().dropped("reverse_path") - before;
        assert_eq!(dropped, ours.iter().filter(|arrived| !**arrived).count() as u64, "{mode}");
        gateway.stop();
        decisions.push(ours);
    }
    assert_eq!(decisions, [[true; 3], [true, true, false], [true, false, false]]);
}
