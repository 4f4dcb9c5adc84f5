//! An interface outside the default VRF: nothing that comes in by it is forwarded but by Penstock.
#![forbid(unsafe_code)]

use integration::frames::{has_vxlan, in_clear};
use integration::site::{PATIENCE, PLAIN_CLIENT, PLAIN_SERVER, Plan, SERVER};
use integration::{Penstock, Site, require, until};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

/// The LAN and the tunnel's inside in a VRF of their own; what the kernel would do with a tenant's packets is to send
/// them in clear by its default route.
fn tenant_site(name: &str) -> (Site, String) {
    let site = Site::new(name, Plan::default());
    site.gateway.run("ip route add default via 192.0.2.254");
    site.gateway.run("ip -6 route add default via 2001:db8:f::fe");
    let mut config = site.config().replace("[interface.lan0]", "[vrf.red]\n\n[interface.lan0]\nvrf = \"red\"");
    for inside in ["address = [", "prefix = \"198.18.2.0/24\"", "prefix = \"2001:db8:2::/64\""] {
        config = config.replace(inside, &format!("vrf = \"red\"\n{inside}"));
    }
    (site, config)
}

/// All that must not leave the gateway as it is.
fn tenant(site: &Site) -> Vec<IpAddr> {
    let plain = [PLAIN_CLIENT, PLAIN_SERVER].map(|address| address.parse().expect("an address"));
    site.tenant().into_iter().chain(plain).collect()
}

/// The files that keep the XDP programs of a host's interfaces.
fn pins(site: &Site) -> Vec<PathBuf> {
    let namespace = site.gateway.run("readlink /proc/self/ns/net");
    let number: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let list = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    list("/sys/fs/bpf/penstock".into()).flat_map(|instance| list(instance.join(&number))).collect()
}

/// Removes, at the end of a test, what a killed gateway has left in bpffs: that outlives the namespaces too.
struct Unpin<'a>(&'a Site);

impl Drop for Unpin<'_> {
    fn drop(&mut self) {
        for pin in pins(self.0) {
            // Whoever comes first; and a folder goes only when it is empty.
            let _ = std::fs::remove_file(&pin);
            pin.ancestors().skip(1).take(3).for_each(|folder| drop(std::fs::remove_dir(folder)));
        }
    }
}

fn runs_xdp(site: &Site, interface: &str) -> bool {
    site.gateway.run(&format!("ip -d link show {interface}")).contains("prog/xdp")
}

#[test]
fn with_fallback_drop_nothing_passes_a_killed_gateway_and_a_restart_takes_over() {
    require!("tcpdump");
    let (site, config) = tenant_site("drop");
    let _unpin = Unpin(&site);
    let mut gateway = Penstock::start(&site.gateway, &config);
    assert!(gateway.log().contains("lan0: XDP in the driver"), "{}", gateway.log());
    assert!(gateway.log().contains("if Penstock dies, what is to be forwarded is dropped"), "{}", gateway.log());
    until("the tunnel works", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    let kept = pins(&site);
    assert_eq!(kept.len(), 1, "lan0's alone: {kept:?}");
    let capture = site.remote.capture("eth0");
    // All the time, so that a gap between the old program and the new would be seen.
    let flood = site.client.start(&format!("ping -n -q -i 0.002 {}", SERVER[0]));
    assert!(site.client.pings(SERVER[1], 56, ""));

    gateway.kill9();
    assert!(runs_xdp(&site, "lan0") && !runs_xdp(&site, "wan0"), "it outlives the process where it must");
    assert!(SERVER.iter().all(|server| !site.client.pings(server, 56, "")), "the tunnel is dead");
    assert!(!site.plain_path_works(), "nor does the kernel forward");
    assert!(site.client.pings("198.18.1.1", 56, ""), "but the host itself goes on");

    let start = Instant::now();
    gateway.restart();
    until("the tunnel works again", PATIENCE, || site.client.pings(SERVER[0], 56, "-W 0.2"));
    println!("the tunnel works {:?} after the start", start.elapsed());
    assert_eq!(pins(&site), kept, "the same link all the time");
    drop(flood);
    let frames = capture.stop();
    assert!(has_vxlan(&frames), "the capture has seen the tunnel while it worked");
    assert_eq!(in_clear(&frames, &tenant(&site)), [""; 0]);
    gateway.assert_balance();
}

#[test]
fn with_fallback_drop_a_clean_stop_gives_the_interface_back() {
    require!("tcpdump");
    let (site, config) = tenant_site("give-back");
    let _unpin = Unpin(&site);
    let mut gateway = Penstock::start(&site.gateway, &config);
    until("the tunnel works", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    assert!(!site.plain_path_works(), "the other VRF's routes are not this one's");
    gateway.stop();
    assert!(pins(&site).is_empty());
    // The kernel lets go of an unpinned link when it gets round to it.
    until("the program is off the interface", PATIENCE, || !runs_xdp(&site, "lan0"));
    let capture = site.remote.capture("eth0");
    until("the kernel forwards", PATIENCE, || site.plain_path_works());
    assert!(!site.client.pings(SERVER[0], 56, ""), "in clear, to where nobody knows it");
    assert_ne!(in_clear(&capture.stop(), &tenant(&site)), [""; 0], "what the other test looks for can be seen");
}

#[test]
fn with_fallback_drop_an_interface_that_is_made_again_is_kept_too() {
    require!();
    let (site, config) = tenant_site("kept");
    let _unpin = Unpin(&site);
    let mut gateway = Penstock::start(&site.gateway, &config);
    let before = pins(&site);
    site.gateway.run("ip link del lan0");
    site.link_lan();
    until("the new interface forwards", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    let after = pins(&site);
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(after, before, "another device, another link");
    gateway.kill9();
    assert!(!site.plain_path_works());
    gateway.restart();
    until("the tunnel works again", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    gateway.stop();
    assert!(pins(&site).is_empty());
}
