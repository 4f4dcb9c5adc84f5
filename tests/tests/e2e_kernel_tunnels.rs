//! Linux's own tunnels at the far end, of every type that it has. Where the kernel lacks one, `scripts/e2e --kernel` runs
//! these under another. Its VXLAN is in `e2e_tunnel.rs`.
#![forbid(unsafe_code)]

use integration::forms::{
    End, Form, GENEVE, GENEVE_IP, GRE, GRE_ETHERNET, GRE_ETHERNET_KEY, GRE_KEY, INSIDE, IP4IP6, IP6IP6, IPIP, MTU, SIT,
    VXLAN,
};
use integration::needs::Feature::Module;
use integration::site::Plan;
use integration::{Penstock, Site, require, require_kernel};

/// The far end of a form: what follows `ip link add tun0 type`, and the octets that it adds beyond the form's overhead.
struct Far {
    form: Form,
    device: &'static str,
    more: u16,
}

const fn far(form: Form, device: &'static str) -> Far {
    Far { form, device, more: 0 }
}

/// Linux's end of the tunnel, with its routes.
#[track_caller]
fn make_far_end(site: &Site, far: &Far) {
    let Far { form, device, more } = *far;
    let (near, own) = (form.underlay.local(), form.underlay.remote());
    let remote = &site.remote;
    // GENEVE has no local address: its packets leave by the route's.
    let local = if device.starts_with("geneve") { String::new() } else { format!("local {own}") };
    remote.run(&format!("ip route replace {near} dev eth0 src {own}"));
    remote.run(&format!("ip link add tun0 mtu {} type {device} remote {near} {local}", MTU - form.overhead - more));
    for address in form.fitting(INSIDE[1]) {
        remote.run(&format!("ip address add {address} dev tun0"));
    }
    remote.run("ip link set tun0 up");
    for route in form.fitting(["198.18.1.0/24 via 198.18.255.1", "2001:db8:1::/64 via 2001:db8:ff::"]) {
        remote.run(&format!("ip route add {route} dev tun0"));
    }
}

/// Everything each way through each form.
#[track_caller]
fn carry(name: &str, far: &[Far]) {
    let site = Site::bare(name, Plan::default());
    for far in far {
        let context = format!("{}, {}", far.form.name, far.device);
        make_far_end(&site, far);
        let mut gateway = Penstock::start(&site.gateway, &far.form.config(End::Near));
        far.form.carry_both_ways(&site, far.more, &context);
        for inside in far.form.far_inside() {
            assert!(site.gateway.pings(inside, 56, ""), "{context}: the gateway reaches {inside} in the tunnel");
        }
        for own in far.form.fitting(["198.18.255.1", "2001:db8:ff::"]) {
            assert!(site.remote.pings(own, 56, ""), "{context}: the far end reaches {own} of the gateway");
        }
        far.form.assert_counted(&gateway, &context);
        gateway.stop();
        site.remote.run("ip link delete tun0");
    }
}

#[test]
fn gre() {
    require!();
    require_kernel!(Module("ip_gre"));
    // It sends checksums; were it told to expect them too, it would take nothing of ours.
    let checksum = Far { more: 4, ..far(GRE_KEY[0], "gre ttl 64 key 7 ocsum") };
    carry("kernel-gre", &[far(GRE[0], "gre ttl 64"), far(GRE_KEY[0], "gre ttl 64 key 7"), checksum]);
}

#[test]
fn gretap() {
    require!();
    require_kernel!(Module("ip_gre"));
    let key = "gretap ttl 64 key 4294967295";
    carry("kernel-gretap", &[far(GRE_ETHERNET[0], "gretap ttl 64"), far(GRE_ETHERNET_KEY[0], key)]);
}

/// Its default is to say in an option how often a packet may be encapsulated further (RFC 2473 §5.1): 8 octets more.
#[test]
fn ip6gre() {
    require!();
    require_kernel!(Module("ip6_gre"));
    let limit = Far { more: 8, ..far(GRE[1], "ip6gre ttl 64") };
    carry(
        "kernel-ip6gre",
        &[limit, far(GRE[1], "ip6gre ttl 64 encaplimit none"), far(GRE_KEY[1], "ip6gre ttl 64 key 7 encaplimit none")],
    );
}

#[test]
fn ip6gretap() {
    require!();
    require_kernel!(Module("ip6_gre"));
    let key = "ip6gretap ttl 64 key 4294967295 encaplimit none";
    let limit = Far { more: 8, ..far(GRE_ETHERNET[1], "ip6gretap ttl 64") };
    carry("kernel-ip6gretap", &[limit, far(GRE_ETHERNET_KEY[1], key)]);
}

#[test]
fn geneve() {
    require!();
    require_kernel!(Module("geneve"));
    carry(
        "kernel-geneve",
        &[
            far(GENEVE[0], "geneve id 5002"),
            far(GENEVE[1], "geneve id 5002"),
            far(GENEVE[1], "geneve id 5002 udp6zerocsumtx udp6zerocsumrx"),
        ],
    );
}

/// Its word for IP inside; iproute2 has it since 6.1. It keeps room for an inner Ethernet header all the same.
#[test]
fn geneve_with_ip_inside() {
    require!();
    require_kernel!(Module("geneve"));
    carry("kernel-geneve-ip", &GENEVE_IP.map(|form| Far { more: 14, ..far(form, "geneve id 5003 innerprotoinherit") }));
}

#[test]
fn ipip_and_sit() {
    require!();
    require_kernel!(Module("ipip"), Module("sit"));
    carry("kernel-ipip", &[far(IPIP, "ipip ttl 64"), far(SIT, "sit ttl 64")]);
}

/// With the option of RFC 2473 §5.1, which is its default, and without.
#[test]
fn ip6tnl() {
    require!();
    require_kernel!(Module("ip6_tunnel"));
    carry(
        "kernel-ip6tnl",
        &[
            Far { more: 8, ..far(IP6IP6, "ip6tnl mode ip6ip6 ttl 64") },
            far(IP6IP6, "ip6tnl mode ip6ip6 ttl 64 encaplimit none"),
            Far { more: 8, ..far(IP4IP6, "ip6tnl mode ipip6 ttl 64") },
            far(IP4IP6, "ip6tnl mode ipip6 ttl 64 encaplimit none"),
        ],
    );
}

/// Every kernel has this one.
#[test]
fn vxlan_over_ipv6() {
    require!();
    carry("kernel-vxlan", &[far(VXLAN[1], "vxlan id 5001 dstport 4789"), far(VXLAN[0], "vxlan id 5001 dstport 4789")]);
}
