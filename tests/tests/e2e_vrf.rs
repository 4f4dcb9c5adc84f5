//! A VRF of Penstock's that is one of Linux's: the host's own table, and the host's own addresses in it.
#![forbid(unsafe_code)]

use integration::needs::Feature;
use integration::site::{PATIENCE, PLAIN_SERVER, Plan};
use integration::{Penstock, Site, require, require_kernel, until};

const CONFIG: &str = r#"
[gateway]
workers = 1

[vrf.research]
table = 1001

[interface.lan0]
vrf = "research"

[interface.wan0]
vrf = "research"

[kernel]
routes = [{ table = 1001, vrf = "research", protocols = ["boot"] }]
"#;

#[test]
fn interfaces_of_a_vrf_device_forward_by_its_table() {
    require!();
    require_kernel!(Feature::Module("vrf"));
    let site = Site::new("vrf", Plan::default());
    site.gateway.run("ip link add research type vrf table 1001");
    site.gateway.run("ip link set research up");
    for name in ["lan0", "wan0"] {
        site.gateway.run(&format!("ip link set {name} master research"));
    }
    let mut gateway = Penstock::start(&site.gateway, CONFIG);
    // What is known of it before it comes, and of what other tables say, must not matter.
    site.gateway.run("ip route add unreachable 203.0.113.0/24");
    assert!(!site.plain_path_works(), "the table has no such route yet");
    site.gateway.run("ip route add 203.0.113.0/24 via 192.0.2.254 table 1001");
    until("the route is followed", PATIENCE, || site.plain_path_works());

    let before = gateway.assert_balance();
    assert!(site.plain_path_works());
    assert!(site.client.pings("198.18.3.1", 56, ""), "the host answers in its VRF");
    let after = gateway.assert_balance();
    assert_eq!(after.total("forwarded"), before.total("forwarded") + 2, "request and answer: {after:?}");

    let row = &gateway.show(&format!("routes --lookup {PLAIN_SERVER} --vrf research"))["routes"][0];
    assert_eq!((&row["prefix"], &row["via"]), (&"203.0.113.0/24".into(), &"192.0.2.254 on wan0".into()), "{row}");
    gateway.stop();
}
