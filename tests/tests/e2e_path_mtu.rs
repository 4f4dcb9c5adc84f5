//! A link in the middle of the underlay is narrower than both ends know: a real router says so, and hosts hear it.
#![forbid(unsafe_code)]

use integration::site::{CLIENT, PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Site, Underlay, require, until};
use std::net::UdpSocket;
use std::time::Duration;

#[track_caller]
fn check(underlay: Underlay) {
    let site = Site::new("path", Plan { underlay, narrow: Some(1400), ..Plan::default() });
    let gateway = site.start();
    let narrow = 1400 - underlay.overhead();
    let fits = usize::from(narrow) - 28;
    // The first is lost on the way, and whoever sent it learns why.
    let too_long = format!("ping -n -c 1 -W 1 -M do -s {} {}", 1500 - underlay.overhead() - 28, SERVER[0]);
    let told = format!("mtu = {narrow}");
    until("the client hears of the narrow link", PATIENCE, || site.client.try_run(&too_long).stdout.contains(&told));
    let tunnel = &gateway.show("tunnels")["tunnels"][0];
    assert_eq!((&tunnel["mtu"], &tunnel["path_mtu"]), (&narrow.into(), &1400.into()), "{tunnel}");
    until("the device follows", PATIENCE, || {
        site.gateway.run(&format!("ip link show {TUNNEL}")).contains(&format!("mtu {narrow} "))
    });
    assert!(gateway.log().contains("carries 1400 octets"), "{}", gateway.log());
    site.client.run("ip route flush cache");
    assert!(site.client.pings(SERVER[0], fits, "-M do"), "{narrow} octets fit");
    assert!(!site.client.pings(SERVER[0], fits + 1, "-M do"), "one more does not");
    // What may be cut is cut before it enters the tunnel.
    site.client.run("ip route flush cache");
    assert!(site.client.pings(SERVER[0], 1472, "-M dont"));
    site.client.run("ip route flush cache");
    for server in site.servers() {
        transfer(&site.client, &site.server, server, 1 << 20);
    }
    let balance = gateway.assert_balance();
    assert!(balance.total("absorbed") >= 1, "{balance:?}");
}

#[test]
fn a_narrow_link_of_an_ipv4_underlay_is_found_and_told() {
    require!();
    check(Underlay::V4);
}

#[test]
fn a_narrow_link_of_an_ipv6_underlay_is_found_and_told() {
    require!();
    check(Underlay::V6);
}

/// No sender of IPv6 can go below 1,280 octets (RFC 8200 §5): the outer datagram is cut, and Linux puts it together.
#[test]
fn ipv6_of_the_least_mtu_passes_a_path_that_leaves_less() {
    require!();
    let site = Site::new("least", Plan { narrow: Some(1400), ..Plan::default() });
    let gateway = site.start();
    // Its VXLAN device stays at 1,350; below 1,280 Linux would take IPv6 from it.
    let router = site.remote.namespace().replace("-remote", "-router");
    site.remote.run(&format!("ip -n {router} link set eth1 mtu 1300"));
    site.remote.run("ip link set wan0 mtu 1300");

    let server = site.server.within(|| UdpSocket::bind((SERVER[1], 5000)).expect("an address of that host"));
    server.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
    let client = site.client.within(|| UdpSocket::bind((CLIENT[1], 0)).expect("an address of that host"));
    let datagram = [0x5a; 1280 - 48];
    let mut received = [0; 2048];
    // The first are lost on the way: so the gateway learns what the path carries.
    until("a datagram arrives over the narrow path", PATIENCE, || {
        client.send_to(&datagram, (SERVER[1], 5000)).expect("1,280 octets are never too long");
        server.recv(&mut received).is_ok_and(|length| received[..length] == datagram)
    });
    let tunnel = &gateway.show("tunnels")["tunnels"][0];
    assert_eq!(tunnel["path_mtu"], 1300, "{tunnel}");
    let balance = gateway.assert_balance();
    assert!(balance.total("originated") >= 1 && balance.dropped("packet_too_big") == 0, "{balance:?}");
}
