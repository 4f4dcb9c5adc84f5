//! Links and addresses.

use super::*;

#[test]
fn a_link_appears_changes_and_vanishes() {
    in_namespace(|| {
        let mut mirror = Mirror::open().expect("in the namespace");
        let lo = mirror.host().link_by_name("lo").expect("always there").1;
        assert_eq!((lo.up, lo.kind.as_deref()), (false, None));

        ip("link add left address 02:00:00:00:00:01 mtu 9000 numrxqueues 4 numtxqueues 3 type veth peer name right");
        ip("tuntap add dev tap0 mode tap");
        ip("tuntap add dev tun0 mode tun");
        let changes = await_host(&mut mirror, |host| host.link_by_name("tun0").is_some());
        let host = mirror.host();
        let (left, link) = host.link_by_name("left").expect("made");
        assert!(changes.links.contains(&left));
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 1]);
        assert_eq!((link.mtu, link.rx_queues, link.tx_queues), (9000, 4, 3));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.parent, Some(index(host, "right")));
        assert_eq!((link.up, link.running, link.tun), (false, false, None));
        let kinds = ["tap0", "tun0"].map(|name| {
            let (_, link) = host.link_by_name(name).expect("made");
            (link.kind.as_deref(), link.tun)
        });
        assert_eq!(kinds, [(Some("tun"), Some(TunKind::Tap)), (Some("tun"), Some(TunKind::Tun))]);

        ip("link set left up");
        ip("link set right up");
        ip("link set left mtu 1500");
        await_host(&mut mirror, |host| {
            let (_, link) = host.link_by_name("left").expect("still there");
            link.up && link.running && link.mtu == 1500
        });
        assert_current(&mut mirror);

        ip("link delete left");
        let changes = await_host(&mut mirror, |host| host.link_by_name("right").is_none());
        assert!(changes.links.contains(&left));
        assert_eq!(mirror.host().link_by_name("left"), None);
        assert_current(&mut mirror);
    });
}

#[test]
fn a_port_that_leaves_its_bridge_is_still_a_link() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        let mut mirror = Mirror::open().expect("in the namespace");
        // Not every kernel has bridges; bonds and VRFs are masters alike.
        let made = ["bridge", "vrf table 7", "bond"].iter().any(|kind| {
            Command::new("ip")
                .args(["link", "add", "up0", "type"])
                .args(kind.split_whitespace())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        if !made {
            eprintln!("skipped: needs bridge, VRF or bonding devices");
            return;
        }
        ip("link set left master up0");
        let master = |host: &Host| host.link_by_name("left").expect("there").1.master;
        await_host(&mut mirror, |host| master(host).is_some());
        assert_eq!(master(mirror.host()), Some(index(mirror.host(), "up0")), "{:?}", mirror.host().links);
        ip("link set left nomaster");
        await_host(&mut mirror, |host| master(host).is_none());
        assert_current(&mut mirror);
    });
}

#[test]
fn addresses_come_and_go_link_local_ones_too() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        let mut mirror = Mirror::open().expect("in the namespace");
        ip("address add 192.0.2.1/24 dev left");
        ip("address add 198.51.100.1 peer 198.51.100.2/32 dev left");
        ip("address add 198.51.100.9 peer 203.0.113.0/24 dev left");
        ip("address add 2001:db8::1/64 dev left nodad");
        ip("link set left up");
        ip("link set right up");
        let left = index(mirror.host(), "left");
        let changes = await_host(&mut mirror, |host| host.addresses_of(left).count() == 5);
        let addresses: Vec<IpNet> = mirror.host().addresses_of(left).collect();
        let mut expected = ["192.0.2.1/24", "198.51.100.1/32", "198.51.100.9/32", "2001:db8::1/64"].map(net).to_vec();
        for address in &addresses {
            assert!(changes.addresses.contains(&(left, *address)));
            if address.to_string().starts_with("fe80:") {
                expected.push(*address);
            }
        }
        expected.sort();
        assert_eq!(addresses, expected);

        ip("address delete 192.0.2.1/24 dev left");
        let changes = await_host(&mut mirror, |host| !host.addresses.contains(&(left, net("192.0.2.1/24"))));
        assert!(changes.addresses.contains(&(left, net("192.0.2.1/24"))));
        ip("link delete left");
        await_host(&mut mirror, |host| host.addresses.is_empty());
        assert_current(&mut mirror);
    });
}
