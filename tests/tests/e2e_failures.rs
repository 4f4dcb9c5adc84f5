//! What happens when something goes away, comes back, or changes without a word.
#![forbid(unsafe_code)]

use integration::frames::{has_vxlan, in_clear};
use integration::program::Signal;
use integration::site::{FAR_INSIDE, PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Penstock, Site, require, until};
use std::time::Duration;

/// Longer than a neighbour's silent move may go unnoticed.
const HEALS: Duration = Duration::from_secs(30);

fn tunnel_works(site: &Site) -> bool {
    site.client.pings(SERVER[0], 56, "")
}

#[test]
fn a_killed_gateway_leaves_the_kernel_forwarding_and_nothing_of_the_tunnel_in_clear() {
    require!("tcpdump");
    let site = Site::new("kill", Plan::default());
    let mut gateway = site.start();
    until("the plain path works", PATIENCE, || site.plain_path_works());
    let capture = site.remote.capture("eth0");
    assert!(tunnel_works(&site));

    gateway.kill9();
    until("the kernel forwards in clear what is not the tunnel's", PATIENCE, || site.plain_path_works());
    for server in SERVER {
        assert!(!site.client.pings(server, 56, ""), "{server} is behind the tunnel, which is dead");
    }
    assert!(!site.server.pings("198.18.1.10", 56, ""), "nor does the way back work");
    let frames = capture.stop();
    assert!(has_vxlan(&frames), "the capture has seen the tunnel while it worked");
    assert_eq!(in_clear(&frames, &site.tenant()), [""; 0]);

    gateway.restart();
    let took = until("a restarted gateway takes over", PATIENCE, || tunnel_works(&site));
    println!("the tunnel works {took:?} after the start");
    assert!(site.plain_path_works());
    gateway.assert_balance();
}

#[test]
fn a_start_that_fails_after_a_kill_leaves_what_keeps_the_tunnels_packets_from_the_clear() {
    require!("tcpdump");
    let site = Site::new("failed-start", Plan::default());
    let mut gateway = site.start();
    gateway.kill9();
    let said =
        gateway.fails_to_restart(|file| file.replace("[interface.lan0]", "[interface.lan0]\nmode = \"zero-copy\""));
    assert!(said.contains("zero-copy"), "{said}");
    let routes = site.gateway.run("ip route show proto 80");
    assert!(routes.contains("198.18.2.0/24"), "{routes}");
    let capture = site.remote.capture("eth0");
    // The kernel has a default route now, by which the tunnel's packets would leave if nothing held them.
    site.gateway.run("ip route add default via 192.0.2.254");
    until("the kernel forwards what is not the tunnel's", PATIENCE, || site.plain_path_works());
    assert!(!tunnel_works(&site));
    assert_eq!(in_clear(&capture.stop(), &site.tenant()), [""; 0]);
    site.gateway.run("ip route del default via 192.0.2.254");
    gateway.restart();
    until("the tunnel works again", PATIENCE, || tunnel_works(&site));
    gateway.stop();
    assert_eq!(site.gateway.run("ip route show proto 80"), "", "a clean stop takes it all back");
}

#[test]
fn a_tunnels_device_that_is_deleted_is_made_again() {
    require!();
    let site = Site::new("device-gone", Plan::default());
    let gateway = site.start();
    site.gateway.run(&format!("ip link del {TUNNEL}"));
    until("the device is back and answers", PATIENCE, || site.gateway.pings(FAR_INSIDE[0], 56, ""));
    until("so is the tunnel", PATIENCE, || tunnel_works(&site));
    assert!(site.gateway.run("ip route show proto 80").contains("198.18.2.0/24"));
    gateway.assert_balance();
}

/// What a ring had no room for is in no balance, so it has a number of its own.
#[test]
fn frames_that_no_worker_has_seen_are_counted() {
    require!();
    let site = Site::new("missed", Plan::default());
    let mut gateway = site.start();
    let missed = |gateway: &Penstock| gateway.show("interfaces")["interfaces"][0]["counters"]["missed"].as_u64();
    assert_eq!(missed(&gateway), Some(0));
    gateway.signal(Signal::STOP);
    site.client.within(|| {
        let socket = std::net::UdpSocket::bind("198.18.1.10:0").expect("the client's address");
        for _ in 0..20_000 {
            // A full queue of the sender's own is as good.
            let _sent = socket.send_to(&[0; 64], "198.18.2.10:9");
        }
    });
    gateway.signal(Signal::CONT);
    let took = until("the gateway tells what it missed", PATIENCE, || missed(&gateway) > Some(0));
    println!("told after {took:?}");
    let took = until("and it forwards", PATIENCE, || tunnel_works(&site));
    println!("forwards after {took:?}");
    gateway.assert_balance();
}

#[test]
fn a_stopped_gateway_cleans_up_and_can_start_again() {
    require!();
    let site = Site::new("stop", Plan::default());
    let mut gateway = site.start();
    gateway.assert_balance();
    gateway.stop();
    until("the kernel forwards", PATIENCE, || site.plain_path_works());
    assert!(!tunnel_works(&site));
    let shown = site.gateway.run("ip -d link show");
    assert!(!shown.contains("prog/xdp"), "{shown}");
    gateway.restart();
    until("the tunnel works again", PATIENCE, || tunnel_works(&site));
}

#[test]
fn an_interface_that_is_deleted_and_made_again_forwards_again() {
    require!();
    let site = Site::new("recreate", Plan::default());
    let gateway = site.start();
    for round in 0..2 {
        site.gateway.run("ip link del lan0");
        assert!(!gateway.show("interfaces").is_null(), "the gateway lives");
        site.link_lan();
        until("the new interface forwards", PATIENCE, || tunnel_works(&site));
        transfer(&site.client, &site.server, site.servers()[0], 256 * 1024);
        assert!(gateway.assert_balance().total("forwarded") > 0, "round {round}");
    }
}

#[test]
fn a_link_that_goes_down_and_up_forwards_again() {
    require!();
    let site = Site::new("flap", Plan::default());
    let gateway = site.start();
    site.remote.run("ip link set eth0 down");
    assert!(!tunnel_works(&site));
    site.remote.run("ip link set eth0 up");
    // The kernel has forgotten what went with the link at that end; the gateway's own has stayed.
    site.remote.run("ip route replace 198.18.3.0/24 via 192.0.2.1");
    until("the link is back", PATIENCE, || tunnel_works(&site));
    gateway.assert_balance();
}

#[test]
fn a_neighbour_that_appears_late_is_found() {
    require!();
    let site = Site::new("late", Plan::default());
    site.remote.run("ip address del 192.0.2.254/24 dev eth0");
    let gateway = Penstock::start(&site.gateway, &site.config());
    assert!(!tunnel_works(&site), "nobody answers for the next hop");
    site.remote.run("ip address add 192.0.2.254/24 dev eth0");
    site.remote.run("ip route replace 198.18.3.0/24 via 192.0.2.1");
    until("the next hop is found", PATIENCE, || tunnel_works(&site));
    gateway.assert_balance();
}

#[test]
fn a_neighbour_that_silently_changes_its_mac_is_found_again() {
    require!();
    let site = Site::new("mac", Plan::default());
    let gateway = site.start();
    // The remote asks nothing and says nothing: the gateway alone must notice.
    let mac = mac_of(&site, "wan0");
    site.remote.run(&format!("ip neigh replace 192.0.2.1 lladdr {mac} dev eth0 nud permanent"));
    site.remote.sysctl("ipv4/conf/eth0/arp_notify", "0");
    site.remote.run("ip link set eth0 address 02:00:00:00:77:77");
    assert!(!tunnel_works(&site), "frames go to where nobody is");
    let took = until("the gateway has found the new MAC", HEALS, || tunnel_works(&site));
    println!("healed after {took:?}");
    gateway.assert_balance();
}

#[test]
fn a_neighbour_inside_a_tunnel_that_silently_changes_its_mac_is_found_again() {
    require!();
    let site = Site::new("inside-mac", Plan::default());
    let gateway = site.start();
    let mac = mac_of(&site, TUNNEL);
    for (near, options) in [("198.18.255.1", ""), ("2001:db8:ff::", "-6")] {
        site.remote.run(&format!("ip {options} neigh replace {near} lladdr {mac} dev vx0 nud permanent"));
    }
    site.remote.sysctl("ipv4/conf/vx0/arp_notify", "0");
    site.remote.run("ip link set vx0 address 02:00:00:00:77:78");
    assert!(!tunnel_works(&site), "frames go to where nobody is");
    let took = until("the gateway has found the new MAC", HEALS, || tunnel_works(&site));
    println!("healed after {took:?}");
    gateway.assert_balance();
}

fn mac_of(site: &Site, interface: &str) -> String {
    let shown = site.gateway.run(&format!("ip -o link show {interface}"));
    shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("Ethernet has one").to_owned()
}

/// Tunnels of other programs: the same port to another end, and another port to the same end.
#[test]
fn other_tunnels_of_the_host_go_on_working() {
    require!();
    let site = Site::new("others", Plan::default());
    for (name, options, near, far) in [
        ("other-end", "id 77 dstport 4789 local 192.0.2.1 remote 192.0.2.254", "198.18.77.1", "198.18.77.2"),
        ("other-port", "id 5001 dstport 4790 local 192.0.2.1 remote 198.51.100.7", "198.18.78.1", "198.18.78.2"),
    ] {
        let mirrored = options.replacen("local 192.0.2.1 remote ", "local ", 1) + " remote 192.0.2.1";
        for (host, options, address) in [(&site.gateway, options, near), (&site.remote, mirrored.as_str(), far)] {
            host.run(&format!("ip link add {name} type vxlan {options}"));
            host.run(&format!("ip address add {address}/24 dev {name}"));
            host.run(&format!("ip link set {name} up"));
        }
    }
    site.gateway.run("ip route add 198.51.100.7 via 192.0.2.254");
    for far in ["198.18.77.2", "198.18.78.2"] {
        until("it works before", PATIENCE, || site.gateway.pings(far, 56, ""));
    }
    let gateway = site.start();
    for far in ["198.18.77.2", "198.18.78.2"] {
        assert!(site.gateway.pings(far, 1000, ""), "{far} while the gateway forwards");
    }
    assert!(tunnel_works(&site));
    gateway.assert_balance();
}
