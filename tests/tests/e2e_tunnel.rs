//! A gateway between a LAN and Linux's own VXLAN device: what goes through, and how it arrives.
#![forbid(unsafe_code)]

use etherparse::PacketBuilder;
use integration::frames::{VXLAN_PORT, decode, vxlan};
use integration::needs;
use integration::penstock::binary;
use integration::site::{CLIENT, FAR_INSIDE, PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Penstock, Site, Underlay, require, until};
use std::net::{Ipv6Addr, UdpSocket};

const MIB: usize = 1024 * 1024;

/// Pings, and moves `octets` octets each way, over both inner families.
#[track_caller]
fn both_ways(site: &Site, octets: usize) {
    for (client, server) in site.clients().into_iter().zip(site.servers()) {
        assert!(site.server.pings(&client.to_string(), 56, ""), "the server reaches {client}");
        transfer(&site.client, &site.server, server, octets);
        transfer(&site.server, &site.client, client, octets);
    }
}

/// Everything went through the tunnel, and nothing was lost without a name.
#[track_caller]
fn assert_forwarded(gateway: &Penstock, at_least: u64) {
    let balance = gateway.assert_balance();
    assert!(balance.total("forwarded") >= at_least, "{balance:?}");
    assert_eq!(balance.total("queued"), 0, "{balance:?}");
}

#[test]
fn ping_and_tcp_both_ways_over_an_ipv4_underlay() {
    require!();
    let site = Site::new("v4", Plan::default());
    let gateway = site.start();
    both_ways(&site, 4 * MIB);
    assert_forwarded(&gateway, 4 * 4 * MIB as u64 / 1450);
}

#[test]
fn ping_and_tcp_both_ways_over_an_ipv6_underlay() {
    require!();
    let site = Site::new("v6", Plan { underlay: Underlay::V6, ..Plan::default() });
    let gateway = site.start();
    both_ways(&site, 4 * MIB);
    assert_forwarded(&gateway, 4 * 4 * MIB as u64 / 1430);
}

/// What any device can do, whatever its driver. Not on its own: where the driver runs XDP, a veth's peer stops making
/// frames of 64 KiB.
#[test]
fn generic_mode_forwards_too() {
    require!("ethtool");
    let site = Site::new("generic", Plan::default());
    for peer in [&site.client, &site.remote] {
        peer.run("ethtool -K eth0 tso off");
    }
    let mut config = site.config();
    for name in ["lan0", "wan0"] {
        config = config.replace(&format!("[interface.{name}]"), &format!("[interface.{name}]\nmode = \"generic\""));
    }
    let gateway = Penstock::start(&site.gateway, &config);
    for name in ["lan0", "wan0"] {
        let line = gateway.log().lines().find(|line| line.starts_with(&format!("{name}: "))).map(str::to_owned);
        let line = line.expect("each has its line");
        assert!(line.contains("generic XDP, copy") && line.contains("tso off"), "{line}");
        assert!(site.gateway.run(&format!("ip -d link show {name}")).contains("xdpgeneric"));
    }
    for server in SERVER {
        until("the tunnel works", PATIENCE, || site.client.pings(server, 56, ""));
    }
    both_ways(&site, MIB / 4);
    assert_forwarded(&gateway, MIB as u64 / 1450);
}

/// 1500 at the hosts, 1500 on the underlay, 1450 between.
#[test]
fn hosts_at_the_mtu_of_the_underlay_are_told_or_helped() {
    require!();
    let site = Site::new("mtu", Plan::default());
    let gateway = site.start();
    let [server4, server6] = SERVER;

    let told = site.client.try_run(&format!("ping -n -c 1 -W 1 -M do -s 1472 {server4}"));
    assert!(!told.success, "1500 octets do not fit 1450");
    assert!(told.stdout.contains("mtu = 1450"), "{told:?}");
    let told = site.client.try_run(&format!("ping -n -c 1 -W 1 -M do -s 1452 {server6}"));
    assert!(!told.success, "1500 octets do not fit 1450");
    assert!(told.stdout.contains("mtu=1450"), "{told:?}");

    // What the host has just learned would make it cut the packet itself.
    site.client.run("ip route flush cache");
    assert!(site.client.pings(server4, 1472, "-M dont"), "1500 octets that may be cut");
    assert!(site.client.pings(server4, 1422, "-M do"), "1450 octets fit");
    site.client.run("ip route flush cache");
    both_ways(&site, MIB);

    let balance = gateway.assert_balance();
    assert_eq!((balance.dropped("fragmentation_needed"), balance.dropped("packet_too_big")), (1, 1), "{balance:?}");
    // Two errors, and one fragment more than there were packets.
    assert!(balance.total("originated") >= 3, "{balance:?}");
}

#[test]
fn frames_of_9000_octets_end_to_end() {
    require!();
    for underlay in [Underlay::V4, Underlay::V6] {
        let site = Site::new("jumbo", Plan { underlay, mtu: 9000, ..Plan::default() });
        if needs::release() < (6, 6) {
            let path = site.lab.folder().join("jumbo.toml");
            let control = format!("[gateway]\ncontrol = {:?}", site.lab.folder().join("jumbo.sock"));
            std::fs::write(&path, site.config().replacen("[gateway]", &control, 1)).expect("the lab's folder is ours");
            let run = format!("{} run {}", binary().display(), path.display());
            let outcome = site.gateway.start(&run).outcome();
            assert!(!outcome.success && outcome.stderr.contains("that takes Linux 6.6"), "{outcome:?}");
            continue;
        }
        let gateway = site.start();
        let fits = usize::from(9000 - underlay.overhead());
        assert!(site.client.pings(SERVER[0], fits - 28, "-M do"), "{fits} octets over {underlay:?}");
        assert!(!site.client.pings(SERVER[0], fits - 27, "-M do"), "one octet too many over {underlay:?}");
        assert!(site.server.pings(CLIENT[1], fits - 48, "-M do"), "{fits} octets back over {underlay:?}");
        both_ways(&site, 8 * MIB);
        // Segments of 1,448 would need 23,000 packets for the data alone.
        let balance = gateway.assert_balance();
        assert!(balance.total("forwarded") < 20_000, "large frames were cut: {balance:?}");
    }
}

#[test]
fn two_workers_share_four_queues() {
    require!();
    let site = Site::new("queues", Plan { lan_queues: 4, wan_queues: 4, workers: 2, ..Plan::default() });
    let gateway = site.start();
    let [server, _] = site.servers();
    let [client, _] = site.clients();
    // Flows by the dozen, so that every queue has some; both directions at once.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| transfer(&site.client, &site.server, server, MIB));
            scope.spawn(|| transfer(&site.server, &site.client, client, MIB));
        }
    });
    assert_forwarded(&gateway, 12 * MIB as u64 / 1450);
}

/// The hosts leave checksums to hardware that a veth does not have: whoever forwards must finish them.
#[test]
fn checksums_that_the_hosts_left_to_hardware_arrive_finished() {
    require!("tcpdump", "ethtool");
    let site = Site::new("checksum", Plan::default());
    let gateway = site.start();
    for (host, link) in [(&site.client, "eth0"), (&site.server, "eth0")] {
        let features = host.run(&format!("ethtool -k {link}"));
        assert!(features.contains("tx-checksumming: on"), "{features}");
    }
    let capture = site.remote.capture("eth0");
    for server in site.servers() {
        transfer(&site.client, &site.server, server, MIB / 4);
    }
    let frames: Vec<_> = capture.stop();
    let ours = |octets: &[u8]| octets[6..12] == mac_of_wan(&site);
    let mut segments = 0;
    for frame in frames.iter().filter(|frame| ours(&frame.octets)) {
        let decoded = decode(&frame.octets).unwrap_or_else(|wrong| panic!("{wrong:?}: {:02x?}", frame.octets));
        segments += u32::from(decoded.innermost().is_some_and(|ip| ip.protocol == 6));
    }
    assert!(segments > 2 * (MIB / 4 / 1400) as u32, "{segments} segments of TCP");
    gateway.assert_balance();
}

fn mac_of_wan(site: &Site) -> [u8; 6] {
    let shown = site.gateway.run("ip -o link show wan0");
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("Ethernet has one");
    let octets: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect();
    octets.try_into().expect("six octets")
}

#[test]
fn traceroute_shows_the_gateway_on_the_way() {
    require!("traceroute");
    let site = Site::new("trace", Plan::default());
    let gateway = site.start();
    for (server, family, hops) in [
        (SERVER[0], "-4", ["198.18.1.1", FAR_INSIDE[0], SERVER[0]]),
        (SERVER[1], "-6", ["2001:db8:1::1", FAR_INSIDE[1], SERVER[1]]),
    ] {
        let shown = site.client.run(&format!("traceroute {family} -n -q 1 -w 2 {server}"));
        let shown: Vec<_> = shown.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(shown, hops);
    }
    let balance = gateway.assert_balance();
    assert_eq!(balance.dropped("ttl_expired"), 2, "{balance:?}");
    // One answer each; the hosts' own chatter without a route may have been answered too.
    assert!(balance.total("originated") >= 2, "{balance:?}");
}

#[test]
fn the_tunnel_is_a_device_of_the_gateway() {
    require!("tcpdump");
    let site = Site::new("device", Plan::default());
    let gateway = site.start();
    let capture = site.gateway.capture(TUNNEL);
    for address in FAR_INSIDE {
        assert!(site.gateway.pings(address, 56, ""), "the gateway reaches {address} in the tunnel");
        assert!(site.gateway.pings(address, 1000, "-M do"), "and with more");
    }
    for address in ["198.18.255.1", "2001:db8:ff::"] {
        assert!(site.remote.pings(address, 56, ""), "the far end reaches {address} of the gateway");
    }
    until("tcpdump has seen both directions", PATIENCE, || {
        let seen: Vec<_> = capture.so_far().iter().filter_map(|frame| decode(&frame.octets).ok()?.ip?.icmp).collect();
        [(8, 0), (0, 0), (128, 0), (129, 0)].iter().all(|kind| seen.contains(kind))
    });
    gateway.assert_balance();
}

#[test]
fn the_gateway_itself_stays_reachable_while_it_forwards() {
    require!();
    let site = Site::new("own", Plan::default());
    let gateway = site.start();
    let own = ["198.18.1.1", "2001:db8:1::1"];
    let [server, _] = site.servers();
    std::thread::scope(|scope| {
        scope.spawn(|| transfer(&site.client, &site.server, server, 8 * MIB));
        for address in own {
            assert!(site.client.pings(address, 56, ""), "{address} answers");
            transfer(&site.client, &site.gateway, address.parse().expect("an address"), MIB);
        }
    });
    assert!(site.gateway.pings("192.0.2.254", 56, ""), "the gateway reaches its own neighbour");
    gateway.assert_balance();
}

#[test]
fn what_needs_no_tunnel_is_forwarded_in_clear() {
    require!();
    let site = Site::new("plain", Plan::default());
    let gateway = site.start();
    let before = gateway.assert_balance().total("forwarded");
    assert!(site.plain_path_works());
    // On a busy machine a late answer to an earlier ping comes on top.
    let after = gateway.assert_balance().total("forwarded");
    assert!(after >= before + 2, "request and answer, by the worker: {before}, {after}");
}

/// The far end's path is narrower than it tells the hosts behind it: Linux cuts what its VXLAN device sends.
#[test]
fn what_linux_cut_on_the_underlay_arrives_whole() {
    require!();
    let site = Site::new("cut", Plan::default());
    // As on many systems, for devices that are made.
    site.gateway.sysctl("ipv4/conf/default/rp_filter", "2");
    let gateway = site.start();
    site.remote.run("ip route add 192.0.2.1/32 dev eth0 mtu lock 1280");
    // Linux would otherwise learn from its own tunnel what the path carries.
    site.remote.run("ip route replace 198.18.1.0/24 via 198.18.255.1 mtu lock 1450");
    site.remote.run("ip route replace 2001:db8:1::/64 via 2001:db8:ff:: mtu lock 1450");
    let before = gateway.assert_balance().total("absorbed");
    both_ways(&site, MIB);
    let balance = gateway.assert_balance();
    assert!(
        balance.total("absorbed") - before > 2 * MIB as u64 / 1450,
        "both families came in two pieces: {balance:?}"
    );
    for reason in ["fragment_malformed", "fragment_overlap", "fragment_ecn", "tunnel_checksum"] {
        assert_eq!(balance.dropped(reason), 0, "{balance:?}");
    }
    assert_host_hears(&site, &gateway, ["192.0.2.1", "198.51.100.7"]);
}

/// Linux does not cut what its tunnels send over IPv6, but what a socket does: so one sends what the VXLAN device would.
#[test]
fn what_linux_cut_of_ipv6_arrives_whole() {
    require!();
    let site = Site::new("cut6", Plan { underlay: Underlay::V6, ..Plan::default() });
    let gateway = site.start();
    site.remote.run("ip route add 2001:db8:f::1/128 dev eth0 mtu lock 1280");
    let device = site.gateway.run(&format!("ip -br link show dev {TUNNEL}"));
    let mac: Vec<u8> = device.split_whitespace().nth(2).expect("name, state, MAC").split(':').map(octet).collect();
    let [server, client] = [SERVER[1], CLIENT[1]].map(|address| address.parse::<Ipv6Addr>().expect("an address"));
    let data: Vec<u8> = (0..1300_u32).map(|at| (at * 7) as u8).collect();
    let mut inner = Vec::new();
    PacketBuilder::ethernet2([2; 6], mac.try_into().expect("six octets"))
        .ipv6(server.octets(), client.octets(), 64)
        .udp(4000, 4001)
        .write(&mut inner, &data)
        .expect("a Vec takes everything");

    let before = gateway.assert_balance();
    let hears = site.client.within(|| UdpSocket::bind((client, 4001)).expect("an address of the client"));
    hears.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let speaks = site.remote.within(|| UdpSocket::bind((Underlay::V6.remote(), 0)).expect("an address of the far end"));
    for _ in 0..20 {
        speaks.send_to(&vxlan(5001, &inner), (Underlay::V6.local(), VXLAN_PORT)).expect("there is a route");
        let mut heard = [0; 2000];
        let length = hears.recv(&mut heard).expect("it has not been lost");
        assert_eq!(heard[..length], data);
    }
    let balance = gateway.assert_balance();
    assert_eq!(balance.total("absorbed") - before.total("absorbed"), 20, "{balance:?}");
    assert_host_hears(&site, &gateway, ["2001:db8:f::1", "2001:db8:b::7"]);
}

fn octet(text: &str) -> u8 {
    u8::from_str_radix(text, 16).expect("two digits")
}

/// What is cut between the same two ends and is no tunnel's reaches the host: here, pings that are longer than any link.
#[track_caller]
fn assert_host_hears(site: &Site, gateway: &Penstock, [local, remote]: [&str; 2]) {
    // Its answers take the kernel's routes.
    site.gateway.run("ip route add 198.51.100.7 via 192.0.2.254");
    site.gateway.run("ip route add 2001:db8:b::7 via 2001:db8:f::fe");
    for size in [3000, 40_000, 65_000] {
        assert!(site.remote.pings(local, size, &format!("-I {remote}")), "{size} octets");
    }
    let balance = gateway.assert_balance();
    assert!(balance.total("punted") >= 3, "{balance:?}");
}
