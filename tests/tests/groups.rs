//! Flows that several tunnels or next hops share: who gets which, what moves when one fails, and that nothing is lost.
#![forbid(unsafe_code)]

use dataplane::config::Config;
use dataplane::control::host::{Host, Neigh, NeighState};
use dataplane::control::offline;
use dataplane::packet::{PortId, Time};
use dataplane::simulate::Simulated;
use etherparse::PacketBuilder;
use integration::memory::memory;
use integration::scene::framed;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
/// Flows of a test.
const FLOWS: u16 = 3000;
/// The kernel's index of the WAN.
const WAN_INDEX: u32 = 2;

/// Three tunnels, each over a router of its own.
const FILE: &str = r#"
    [interface.lan0]
    mac = "02:00:00:00:00:01"
    address = ["198.18.1.1/24"]
    [interface.wan0]
    mac = "02:00:00:00:00:02"
    address = ["192.0.2.1/24"]
    [tunnel.a]
    type = "vxlan"
    vni = 1
    local = "192.0.2.1"
    remote = "198.51.100.1"
    remote_mac = "02:00:00:00:02:01"
    [tunnel.b]
    type = "vxlan"
    vni = 2
    local = "192.0.2.1"
    remote = "198.51.100.2"
    remote_mac = "02:00:00:00:02:02"
    [tunnel.c]
    type = "vxlan"
    vni = 3
    local = "192.0.2.1"
    remote = "198.51.100.3"
    remote_mac = "02:00:00:00:02:03"
    [tunnel-group.all]
    members = [{ tunnel = "a", weight = 2 }, { tunnel = "b" }, { tunnel = "c" }]
    [[route]]
    prefix = "198.18.2.0/24"
    via = [{ group = "all" }]
    [[route]]
    prefix = "198.18.3.0/24"
    via = [{ next_hop = "192.0.2.251" }, { next_hop = "192.0.2.252", weight = 3 }]
    [[route]]
    prefix = "198.51.100.1/32"
    via = [{ next_hop = "192.0.2.251" }]
    [[route]]
    prefix = "198.51.100.2/32"
    via = [{ next_hop = "192.0.2.252" }]
    [[route]]
    prefix = "198.51.100.3/32"
    via = [{ next_hop = "192.0.2.253" }]
"#;

/// A gateway and the host that it is on.
struct Gateway {
    config: Config,
    host: Host,
    simulated: Simulated,
    now: Time,
}

impl Gateway {
    fn new(more: &str) -> Self {
        let config: Config = format!("{FILE}{more}").parse().unwrap_or_else(|error| panic!("{error}"));
        let mut host = offline::host(&config);
        for router in 251..=253 {
            host.neighbours.insert(key(router), known(router));
        }
        let simulated = Simulated::with(&config, &host, &memory(0, 512), |_, port| port).expect("there is memory");
        Self { config, host, simulated, now: Time(Time::SECOND) }
    }

    fn set(&mut self, router: u8, neighbour: Neigh) {
        self.host.neighbours.insert(key(router), neighbour);
        self.simulated.update(&self.config, &self.host).expect("it fits");
    }

    /// Where each flow to a network goes: the router's last octet and, into a tunnel, the VNI.
    fn ways(&mut self, to: [u8; 3]) -> BTreeMap<u16, (u8, u8)> {
        let mut ways = BTreeMap::new();
        for flow in 0..FLOWS {
            self.simulated.receive(LAN, packet(to, flow), self.now);
            let (_, frame) = self.simulated.sent(WAN).unwrap_or_else(|| panic!("flow {flow} is not forwarded"));
            // Of VXLAN: Ethernet, IPv4, UDP, and the last octet of the identifier.
            let vni = if frame.len() > 100 { frame[14 + 20 + 8 + 6] } else { 0 };
            ways.insert(flow, (frame[5], vni));
        }
        assert!(self.simulated.totals().balances());
        assert_eq!(self.simulated.totals().dropped(), 0);
        ways
    }
}

fn key(router: u8) -> (u32, std::net::IpAddr) {
    (WAN_INDEX, Ipv4Addr::new(192, 0, 2, router).into())
}

fn known(router: u8) -> Neigh {
    Neigh { mac: Some([2, 0, 0, 0, 1, router]), state: NeighState::Reachable }
}

fn packet(to: [u8; 3], flow: u16) -> Vec<u8> {
    let destination = [to[0], to[1], to[2], (flow % 200) as u8 + 1];
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([198, 18, 1, 10], destination, 64).udp(10_000 + flow, 4791);
    builder.write(&mut packet, &[0; 20]).expect("it fits");
    framed([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 9, 9], &packet)
}

fn share(ways: &BTreeMap<u16, (u8, u8)>, router: u8) -> f64 {
    ways.values().filter(|way| way.0 == router).count() as f64 / f64::from(FLOWS)
}

const GROUP: [u8; 3] = [198, 18, 2];
const HOPS: [u8; 3] = [198, 18, 3];

#[test]
fn flows_are_shared_by_weight_and_each_keeps_its_way() {
    let mut gateway = Gateway::new("");
    let ways = gateway.ways(GROUP);
    for (router, expected) in [(251, 0.5), (252, 0.25), (253, 0.25)] {
        let found = share(&ways, router);
        assert!((found - expected).abs() < 0.05, "{router}: {found}");
    }
    assert!(ways.values().all(|(router, vni)| router - 250 == *vni), "a tunnel goes over its own router");
    assert_eq!(ways, gateway.ways(GROUP));
    let hops = gateway.ways(HOPS);
    assert!((share(&hops, 252) - 0.75).abs() < 0.05, "{}", share(&hops, 252));
    assert!(hops.values().all(|(_, vni)| *vni == 0));
}

#[test]
fn a_member_that_fails_loses_its_flows_and_gets_just_these_back() {
    let mut gateway = Gateway::new("");
    let before = gateway.ways(GROUP);
    gateway.set(252, Neigh { mac: None, state: NeighState::Failed });
    let without = gateway.ways(GROUP);
    assert_eq!(share(&without, 252), 0.0);
    for (flow, way) in &before {
        assert!(way.0 == 252 || without[flow] == *way, "flow {flow} had nothing to do with it");
    }
    // Being asked again is no answer.
    gateway.set(252, Neigh { mac: None, state: NeighState::Incomplete });
    assert_eq!(gateway.ways(GROUP), without);
    gateway.set(252, known(252));
    assert_eq!(gateway.ways(GROUP), before);
}

#[test]
fn gateways_that_share_a_seed_agree_and_others_differ() {
    let [one, same, other] = ["", "", "[gateway]\nhash_seed = 7\n"].map(|more| Gateway::new(more).ways(GROUP));
    assert_eq!(one, same);
    let moved = one.iter().filter(|(flow, way)| other[*flow] != **way).count();
    assert!(moved > usize::from(FLOWS) / 3, "consecutive tiers must not see the same flows: {moved}");
}

/// A next hop that changes is one entry of the tables, whatever waits: packets in the queue take the new headers.
#[test]
fn what_waits_in_a_queue_goes_by_the_tables_of_its_leaving() {
    let mut gateway = Gateway::new("");
    let lanes = |simulated: &mut Simulated, sends: bool| {
        simulated.worker.lanes.iter_mut().filter(|lane| lane.port == WAN).for_each(|lane| lane.sends = sends);
    };
    lanes(&mut gateway.simulated, false);
    for flow in 0..100 {
        gateway.simulated.receive(LAN, packet(GROUP, flow), gateway.now);
    }
    assert_eq!(gateway.simulated.totals().queued, 100);
    gateway.set(251, Neigh { mac: Some([2, 0, 0, 0, 1, 77]), state: NeighState::Reachable });
    gateway.set(252, Neigh { mac: None, state: NeighState::Failed });
    lanes(&mut gateway.simulated, true);
    gateway.simulated.poll(gateway.now);
    let mut routers = BTreeMap::new();
    while let Some((_, frame)) = gateway.simulated.sent(WAN) {
        *routers.entry(frame[5]).or_insert(0) += 1;
    }
    assert_eq!(routers.values().sum::<i32>(), 100, "{routers:?}");
    assert!(routers.contains_key(&77) && routers.contains_key(&253), "{routers:?}");
    assert!(!routers.contains_key(&251), "{routers:?}");
    assert!(gateway.simulated.totals().balances());
}
