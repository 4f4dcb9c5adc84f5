//! Real drivers, each with its own way to take AF_XDP: what the gateway makes of it, and that it forwards.
#![forbid(unsafe_code)]

use integration::needs::{self, Feature};
use integration::site::{Plan, SERVER};
use integration::traffic::transfer;
use integration::{Nic, Penstock, Site, require, require_kernel};
use serde_json::Value;

/// Emulated, a worker moves some megabytes a second.
const OCTETS: usize = 1024 * 1024;

/// From this release on, of those that were tried, `igb` and `virtio_net` have zero-copy.
const ZERO_COPY_SINCE: (u32, u32) = (6, 16);

/// A site with such an interface to the underlay.
#[track_caller]
fn site(nic: Nic, queues: u16) -> Site {
    let plan = Plan { wan_nic: Some(nic), wan_queues: queues, lan_queues: queues, workers: queues, ..Plan::default() };
    Site::new(nic.name(), plan)
}

/// An interface, as the gateway shows it.
#[track_caller]
fn shown(gateway: &Penstock, name: &str) -> Value {
    let shown = gateway.show("interfaces");
    let rows = shown["interfaces"].as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name).cloned().expect("it is configured")
}

/// The gateway's interface to the underlay is of this mode, and said so at the start.
#[track_caller]
fn assert_mode(gateway: &Penstock, name: &str, mode: &str, queues: u16) -> Value {
    let row = shown(gateway, name);
    assert_eq!((&row["mode"], &row["queues"]), (&mode.into(), &queues.into()), "{row}\n{}", gateway.log());
    let told = match mode {
        "generic" => "generic XDP, copy".to_owned(),
        mode => format!("XDP in the driver, {mode}"),
    };
    let log = gateway.log();
    let line = log.lines().find(|line| line.starts_with(&format!("{name}: "))).expect("each has its line");
    assert!(line.contains(&told), "{line}");
    row
}

/// Pings and TCP both ways, over both families, and beside the tunnel; every packet has had its fate; the end is clean.
#[track_caller]
fn forwards(site: &Site, mut gateway: Penstock) {
    let lost = || {
        ["lan0", "wan0"].map(|name| ["missed", "unsent"].map(|what| shown(&gateway, name)["counters"][what].clone()))
    };
    // Some drivers take their link down when they are attached to.
    let before = lost();
    for (client, server) in site.clients().into_iter().zip(site.servers()) {
        assert!(site.server.pings(&client.to_string(), 56, ""), "the server reaches {client}");
        // As large as the tunnel takes: its packets fill the underlay.
        assert!(site.client.pings(&server.to_string(), 1450 - 48, ""), "the client reaches {server}");
        transfer(&site.client, &site.server, server, OCTETS);
        transfer(&site.server, &site.client, client, OCTETS);
    }
    assert!(site.plain_path_works());
    let balance = gateway.assert_balance();
    // Acknowledgements come on top.
    assert!(balance.total("forwarded") >= 4 * OCTETS as u64 / 1450, "{balance:?}");
    assert_eq!(balance.total("queued"), 0, "{balance:?}");
    assert_eq!(lost(), before, "frames missed and unsent");
    gateway.stop();
    for name in ["lan0", "wan0"] {
        let link = site.gateway.run(&format!("ip link show {name}"));
        assert!(!link.contains("xdp"), "{link}");
    }
}

/// Zero-copy where the kernel has it; where not, copy, and the driver's answer (EOPNOTSUPP) told.
#[track_caller]
fn assert_best_mode(gateway: &Penstock, name: &str) {
    if needs::release() >= ZERO_COPY_SINCE {
        assert_mode(gateway, name, "zero-copy", 2);
    } else {
        let row = assert_mode(gateway, name, "copy", 2);
        assert_eq!(row["why_copy"], "its driver has no AF_XDP zero-copy");
    }
}

#[test]
fn both_queues_of_igb_forward_without_a_copy_where_the_kernel_can() {
    require!("ethtool");
    require_kernel!(Feature::Nic(Nic::Igb));
    let site = site(Nic::Igb, 2);
    let gateway = site.start();
    assert_best_mode(&gateway, "wan0");
    forwards(&site, gateway);
}

#[test]
fn both_queues_of_virtio_forward_without_a_copy_where_the_kernel_can() {
    require!("ethtool");
    require_kernel!(Feature::Nic(Nic::VirtioIommu));
    let site = site(Nic::VirtioIommu, 2);
    let gateway = site.start();
    assert_best_mode(&gateway, "wan0");
    forwards(&site, gateway);
}

/// No veth on the way: what one driver receives, the other sends from the same memory.
#[test]
fn packets_go_from_one_driver_to_another_without_a_copy() {
    require!("ethtool");
    require_kernel!(Feature::Nic(Nic::VirtioIommu), Feature::Nic(Nic::Igb));
    let plan = Plan { lan_nic: Some(Nic::VirtioIommu), wan_nic: Some(Nic::Igb), workers: 2, ..Plan::default() };
    let site = Site::new("both", plan);
    let gateway = site.start();
    for name in ["lan0", "wan0"] {
        assert_best_mode(&gateway, name);
    }
    forwards(&site, gateway);
}

/// The driver has zero-copy, but the device it drives has no memory access of its own (EINVAL).
#[test]
fn virtio_that_refuses_zero_copy_is_taken_by_copy_and_says_so() {
    require!("ethtool");
    require_kernel!(Feature::Nic(Nic::Virtio));
    let site = site(Nic::Virtio, 1);
    let mut gateway = site.start();
    gateway.stop();
    let insists = |config: String| config.replace("[interface.wan0]", "[interface.wan0]\nmode = \"zero-copy\"");
    let refused = gateway.fails_to_restart(insists);
    assert!(refused.contains("wan0") && refused.contains("cannot do zero-copy"), "{refused}");
    let gateway = site.start();
    let why = assert_mode(&gateway, "wan0", "copy", 1)["why_copy"].clone();
    let expected = match needs::release() >= ZERO_COPY_SINCE {
        true => "its driver refuses zero-copy as configured",
        false => "its driver has no AF_XDP zero-copy",
    };
    assert!(why.as_str().is_some_and(|why| why.starts_with(expected)), "{why}");
    forwards(&site, gateway);
}

#[test]
fn e1000e_that_knows_no_xdp_is_taken_in_generic_mode() {
    require!("ethtool");
    require_kernel!(Feature::Nic(Nic::E1000e));
    let site = site(Nic::E1000e, 1);
    let gateway = site.start();
    assert_mode(&gateway, "wan0", "generic", 1);
    let offloads = || site.gateway.run("ethtool -k wan0");
    let (gro, tags) = ("generic-receive-offload: ", "rx-vlan-offload: ");
    let during = offloads();
    assert!(during.contains(&format!("{gro}off")) && during.contains(&format!("{tags}off")), "{during}");
    forwards(&site, gateway);
    let after = offloads();
    assert!(after.contains(&format!("{gro}on")) && after.contains(&format!("{tags}on")), "{after}");
}

/// The underlay is a VLAN of the interface: a NIC would take the tags off if it were let.
#[track_caller]
fn forwards_over_a_vlan(nic: Option<Nic>) {
    let plan = Plan { wan_nic: nic, wan_vlan: Some(110), ..Plan::default() };
    let site = Site::new("vlan", plan);
    let gateway = site.start();
    let row = shown(&gateway, "wan0.110");
    assert_eq!((&row["vlan"], &row["state"]), (&110.into(), &"up".into()), "{row}");
    let tagged = site.remote.capture("eth0");
    assert!(site.client.pings(SERVER[0], 56, ""));
    let frames = tagged.stop();
    let tag = [0x81, 0x00, 0, 110];
    assert!(frames.iter().filter(|frame| frame.octets[12..16] == tag).count() >= 2, "request and answer: {frames:x?}");
    assert!(frames.iter().all(|frame| frame.octets[12..14] != [0x08, 0x00]), "IPv4 without a tag: {frames:x?}");
    forwards(&site, gateway);
}

#[test]
fn a_vlan_carries_the_underlay() {
    require!("ethtool", "tcpdump");
    require_kernel!(Feature::Module("8021q"));
    forwards_over_a_vlan(None);
}

#[test]
fn a_vlan_of_a_real_driver_carries_the_underlay() {
    require!("ethtool", "tcpdump");
    require_kernel!(Feature::Module("8021q"), Feature::Nic(Nic::Igb), Feature::Nic(Nic::E1000e));
    for nic in [Nic::Igb, Nic::VirtioIommu, Nic::E1000e] {
        forwards_over_a_vlan(Some(nic));
    }
}
