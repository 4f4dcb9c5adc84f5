//! A link in the middle of the underlay is narrower than both ends know: a real router says so, and hosts hear it.
#![forbid(unsafe_code)]

use integration::site::{PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Site, Underlay, require, until};

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
