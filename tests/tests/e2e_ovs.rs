//! Open vSwitch's datapath in user space at the far end: it shares no code with Linux's tunnels, nor with ours.
#![forbid(unsafe_code)]

use integration::forms::{End, Form, GENEVE, GRE, GRE_ETHERNET, GRE_ETHERNET_KEY, GRE_KEY, MTU, VXLAN};
use integration::frames::decode;
use integration::ovs::{self, INSIDE_DEVICE, Ovs};
use integration::pcap::Capture;
use integration::site::{PATIENCE, Plan};
use integration::{Penstock, Site, require, until};
use std::net::IpAddr;

/// The far end of a form: the switch's type, its options, and what these add to the form's overhead.
struct Far {
    form: Form,
    kind: &'static str,
    options: &'static str,
    more: u16,
}

const fn far(form: Form, kind: &'static str, options: &'static str) -> Far {
    Far { form, kind, options, more: 0 }
}

/// The same with the checksum of GRE (RFC 2784 §2.1), which we do not send but check.
const fn with_checksum(far: Far) -> Far {
    Far { more: 4, ..far }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The switch takes part, and has routes to the clients. There is one end of a tunnel at a time.
#[track_caller]
fn make_far_end(site: &Site, ovs: &Ovs, far: &Far) {
    let Far { form, kind, options, more } = *far;
    ovs.carry(form, kind, options, MTU - form.overhead - more);
    for (prefix, by) in [("198.18.1.0/24", "198.18.255.1"), ("2001:db8:1::/64", "2001:db8:ff::")] {
        site.remote.run(&format!("ip route replace {prefix} via {by} dev {INSIDE_DEVICE}"));
    }
}

/// Everything each way through each form; what the switch does with congestion is [`marks`].
#[track_caller]
fn carry(name: &str, far: &[Far]) {
    require!("ovs-vsctl", "ovs-vswitchd", "ovsdb-server", "tcpdump");
    let site = Site::bare(name, Plan::default());
    let ovs = Ovs::start(&site.remote);
    mark_congestion(&ovs);
    for far in far {
        let &Far { form, options, more, .. } = far;
        let context = format!("{} {options}", form.name);
        make_far_end(&site, &ovs, far);
        let mut gateway = Penstock::start(&site.gateway, &ovs::suit(form, &form.config(End::Near)));
        form.carry_both_ways(&site, more, &context);
        for inside in form.far_inside() {
            assert!(site.gateway.pings(inside, 56, ""), "{context}: the gateway reaches {inside} in the tunnel");
        }
        for (client, server) in form.clients().zip(form.servers()) {
            marks(&site, &context, client, server);
        }
        form.assert_counted(&gateway, &context);
        gateway.stop();
    }
}

/// What can be marked is, outside and in both directions: as if the network between the two were congested.
fn mark_congestion(ovs: &Ovs) {
    for family in ["ip", "ipv6"] {
        ovs.add_flow_to("br-phy", &format!("priority=9,{family},nw_ecn=2,actions=mod_nw_ecn:3,NORMAL"));
    }
}

/// RFC 6040 with the switch: ECT(0) leaves as CE at either end, what is not capable and what is marked stay so, and
/// DSCP goes through.
#[track_caller]
fn marks(site: &Site, context: &str, client: &str, server: &str) {
    let ends = [(&site.client, client, &site.remote, INSIDE_DEVICE), (&site.server, server, &site.client, "eth0")];
    for (at, (host, from, beyond, interface)) in ends.into_iter().enumerate() {
        let to = if at == 0 { server } else { client };
        for (sent, arrives) in [(0xb8, 0xb8), (0x2a, 0x2b), (0xbb, 0xbb)] {
            let capture = beyond.capture(interface);
            assert!(host.pings(to, 56, &format!("-Q {sent}")), "{context}: {from} > {to} with {sent:#x}");
            let seen = || traffic_class(&capture, address(from), address(to));
            until(&format!("{context}: {from} > {to} is seen"), PATIENCE, || seen().is_some());
            assert_eq!(seen(), Some(arrives), "{context}: {from} > {to}, sent with {sent:#x}");
        }
    }
}

/// TOS or traffic class of a packet between two addresses.
fn traffic_class(capture: &Capture, from: IpAddr, to: IpAddr) -> Option<u8> {
    let frames = capture.so_far();
    let mut found = frames.iter().filter_map(|frame| decode(&frame.octets).ok()?.ip);
    found.find(|ip| ip.source == from && ip.destination == to).map(|ip| ip.tos)
}

#[test]
fn vxlan() {
    let options = "options:key=5001";
    carry("ovs-vxlan", &VXLAN.map(|form| far(form, "vxlan", options)));
}

#[test]
fn geneve() {
    let options = "options:key=5002";
    let [v4, v6] = GENEVE;
    let checksum = far(v4, "geneve", "options:key=5002 options:csum=true");
    carry("ovs-geneve", &[far(v4, "geneve", options), checksum, far(v6, "geneve", options)]);
}

#[test]
fn gre_with_ethernet_inside() {
    let checksum = "options:key=4294967295 options:csum=true";
    let [v4, v6] = GRE_ETHERNET_KEY;
    carry(
        "ovs-gre",
        &[
            far(GRE_ETHERNET[0], "gre", ""),
            far(v4, "gre", "options:key=4294967295"),
            with_checksum(far(v4, "gre", checksum)),
            with_checksum(far(v6, "ip6gre", checksum)),
        ],
    );
}

#[test]
fn gre_with_ip_inside() {
    let key = "options:packet_type=legacy_l3 options:key=7";
    let [v4, v6] = GRE_KEY;
    carry(
        "ovs-gre-ip",
        &[
            far(GRE[0], "gre", "options:packet_type=legacy_l3"),
            far(v4, "gre", key),
            with_checksum(far(v4, "gre", "options:packet_type=legacy_l3 options:key=7 options:csum=true")),
            far(v6, "gre", key),
        ],
    );
}
