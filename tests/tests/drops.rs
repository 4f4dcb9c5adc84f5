//! Every way in which a packet can be dropped, and what provokes it.
//!
//! A new [`DropReason`] does not compile until it has its line in [`provoke`].
#![forbid(unsafe_code)]

use dataplane::control::host::{MirroredRoute, Neigh, NeighState, RouteKey, RouteKind};
use dataplane::control::offline;
use dataplane::io::{Outlet, Outlets};
use dataplane::packet::DropReason::{self, *};
use dataplane::packet::{PortId, Time};
use dataplane::qos::{Account, Aqm, NotCapable, Plan, PortSpec, Rate, Red, Spec};
use dataplane::worker::Command;
use etherparse::PacketBuilder;
use integration::frames::{decode, vxlan};
use integration::require;
use integration::scene::{
    CHUNKS, CLIENT, LAN, MACS, SERVER, Scene, VNI, WAN, answer4, framed, from_client, from_site_a, from_site_a_as,
    inside, ipv4, tagged, udp4, udp6,
};
use std::sync::Arc;
use sys::tun::{Kind, Tun};

/// The table: a gateway that has just dropped a packet for that reason and for no other. `None` for the one that needs
/// a device of the kernel, which has a test of its own.
fn provoke(reason: DropReason) -> Option<Scene> {
    Some(match reason {
        Truncated => lan(&udp4(10)[..37]),
        NotIp => from_tunnel(&[&inside(&answer4())[..12], &[0x12, 0x34], &[0; 46]].concat()),
        UnknownVlan => unsteered(LAN, tagged(7, &from_client(&udp4(10)))),
        BadVersion => given(Scene::new(), LAN, with(&from_client(&udp6(10)), 14, 0x50)),
        BadHeaderLength => lan(&with(&ipv4(SERVER, 20, |_| {}), 0, 0x44)),
        BadLength => lan(&ipv4(SERVER, 20, |header| header.total_len = 19)),
        BadChecksum => lan(&spoilt(&ipv4(SERVER, 20, |_| {}), 10)),
        MartianSource => lan(&ipv4(SERVER, 20, |header| header.source = [127, 0, 0, 1])),
        ReversePath => by_a_vlan_that_does_not_lead_back(),
        MartianDestination => lan(&ipv4([240, 0, 0, 1], 20, |_| {})),
        TtlExpired => lan(&ipv4(SERVER, 20, |header| header.time_to_live = 1)),
        NoRoute => lan(&ipv4([198, 18, 99, 1], 20, |_| {})),
        Blackhole => with_route("\"blackhole\""),
        Unreachable => with_route("\"unreachable\""),
        Prohibited => prohibited(),
        FragmentationNeeded => lan(&ipv4(SERVER, 1480, |header| header.dont_fragment = true)),
        PacketTooBig => lan(&udp6(1452)),
        NeighbourUnresolved => failed_neighbour(),
        HoldFull => seventeen_for_a_stranger(),
        AdjacencyGone => neighbour_that_went_while_packets_waited(),
        NoLocalPath => from_tunnel(&framed([0xff; 6], MACS.far, &answer4())),
        DeviceFull => return None,
        QueueFull => more_than_a_queue_holds(),
        UnknownNumbering => numbers_that_no_queue_has_heard_of(),
        EarlyDrop => more_delay_than_a_class_suffers(),
        NoFrame => given(Scene::with("", 1500, 1, |_| {}), LAN, from_client(&udp4(1700))),
        TooLong => given(Scene::with("", 65_535, CHUNKS, |_| {}), LAN, from_client(&udp4(40_000))),
        PortDown => port_that_went(),
        FragmentMalformed => wan(fragment(1, 0, &[1; 12], 0)),
        FragmentOverlap => given(wan(fragment(1, 0, &[1; 16], 0)), WAN, fragment(1, 1, &[1; 16], 0)),
        FragmentEcn => given(wan(fragment(1, 0, &[1; 16], 2)), WAN, fragment(1, 2, &[1; 4], 0)),
        ReassemblyTimeout => fragment_that_waits_in_vain(),
        ReassemblyFull => (0..257).fold(Scene::new(), |scene, id| given(scene, WAN, fragment(id, 0, &[1; 16], 0))),
        TunnelTruncated => wan(from_site_a(&vxlan(VNI, &[])[..7], |_| {})),
        TunnelChecksum => wan(spoilt(&from_site_a(&vxlan(VNI, &inside(&answer4())), |_| {}), 100)),
        IcmpChecksum => wrong_error(),
        TunnelHeader => wan(from_site_a(&with(&vxlan(VNI, &inside(&answer4())), 0, 0), |_| {})),
        CriticalOption => of_type(&geneve_with_option(0x80), 17),
        UnknownKey => of_type(&[0x20, 0, 8, 0, 0, 0, 0, 9], 47),
        InnerType => of_type(&[0x20, 0, 8, 6, 0, 0, 0, 8], 47),
        UnknownVni => wan(from_site_a(&vxlan(VNI + 9, &inside(&answer4())), |_| {})),
        NotOurMac => from_tunnel(&framed(MACS.far, MACS.far, &answer4())),
        SpoofedSource => from_tunnel(&inside(&ipv4(CLIENT, 20, |header| header.source = [198, 18, 66, 1]))),
        EcnNotCapable => wan(from_site_a(&vxlan(VNI, &inside(&answer4())), |header| {
            header.ecn = etherparse::IpEcn::try_new(3).expect("2 bits");
        })),
        Policed => more_than_a_policer_lets_pass(),
        AclDeny => with_acl("action = \"deny\""),
        AclReject => with_acl("action = \"reject\""),
    })
}

/// Each reason is provoked, nothing else happens, and the sender hears what it is owed and no more.
#[test]
fn every_reason_to_drop_is_provoked_and_answered_as_it_owes() {
    for &reason in DropReason::ALL {
        let Some(mut scene) = provoke(reason) else { continue };
        let answers: Vec<_> = std::iter::from_fn(|| scene.sent(LAN).or_else(|| scene.sent(WAN))).collect();
        let totals = scene.drops_only_for(reason);
        let count = totals.drops[reason as usize];
        // A datagram is dropped whole, and counted as what it was received as.
        let expected = if matches!(reason, FragmentOverlap | FragmentEcn) { 2 } else { 1 };
        assert_eq!(count, expected, "{reason:?}: {totals:?}");
        let heard: Vec<_> = answers.iter().map(|frame| kind_of_error(frame)).collect();
        assert_eq!(heard, owed(reason).into_iter().collect::<Vec<_>>(), "{reason:?}");
        assert_eq!((totals.originated, totals.icmp_suppressed), (heard.len() as u64, 0), "{reason:?}");
    }
}

/// The one reason that only a device of the kernel knows.
#[test]
fn a_device_that_takes_nothing_is_a_reason_too() {
    require!();
    sys::netns::in_new(|| {
        // Not switched on: the kernel refuses what is written to it.
        let device = Tun::open("down0", Kind::Tun).expect("a name that is free in a new namespace");
        let mut outlets = Outlets::none();
        outlets.set_host(Outlet::Device(Arc::new(device)));
        let mut scene = Scene::new();
        scene.gateway.worker.obey(Command::Outlets(outlets), Time(0));
        // XDP would have passed it: what is for the host comes this way only out of a tunnel.
        scene.receive(
            WAN,
            from_site_a(&vxlan(VNI, &inside(&ipv4([198, 18, 1, 1], 20, |header| header.source = SERVER))), |_| {}),
        );
        assert_eq!(scene.drops_only_for(DeviceFull).drops[DeviceFull as usize], 1);
    })
    .expect("root may make a namespace");
}

/// Type and code of the ICMP error in a frame.
fn kind_of_error(frame: &[u8]) -> (u8, u8) {
    let ip = decode(frame).expect("what a gateway makes is right").ip.expect("IP");
    ip.icmp.expect("ICMP")
}

/// What the sender of a packet that is dropped hears (RFC 792, 1812 §5.2.7, 4443): type and code.
const fn owed(reason: DropReason) -> Option<(u8, u8)> {
    match reason {
        TtlExpired => Some((11, 0)),
        ReassemblyTimeout => Some((11, 1)),
        NoRoute | Unreachable => Some((3, 0)),
        NeighbourUnresolved => Some((3, 1)),
        FragmentationNeeded => Some((3, 4)),
        Prohibited | AclReject => Some((3, 13)),
        // The packet of the table is IPv6.
        PacketTooBig => Some((2, 0)),
        _ => None,
    }
}

/// A part of a datagram from the far end of a tunnel, at an offset in units of 8 octets. It is the last if its length says so.
fn fragment(id: u16, offset: u16, data: &[u8], ecn: u8) -> Vec<u8> {
    let packet = ipv4([192, 0, 2, 1], data.len(), |header| {
        (header.source, header.protocol, header.identification) = ([198, 51, 100, 7], etherparse::ip_number::UDP, id);
        header.fragment_offset = etherparse::IpFragOffset::try_new(offset).expect("13 bits");
        header.more_fragments = data.len() > 4;
        header.ecn = etherparse::IpEcn::try_new(ecn).expect("2 bits");
    });
    framed(MACS.wan, MACS.router, &packet)
}

fn fragment_that_waits_in_vain() -> Scene {
    let mut scene = wan(fragment(1, 0, &[1; 16], 0));
    scene.finish();
    scene
}

/// Tunnels of other types beside the picture's.
const TYPES: &str = r#"
    [tunnel.geneve]
    type = "geneve"
    vni = 7
    inner = "ip"
    local = "192.0.2.1"
    remote = "198.51.100.7"
    [tunnel.gre]
    type = "gre"
    key = 8
    local = "192.0.2.1"
    remote = "198.51.100.7"
"#;

/// Site a sends this behind the outer IP header.
fn of_type(payload: &[u8], protocol: u8) -> Scene {
    given(Scene::with(TYPES, 1500, CHUNKS, |_| {}), WAN, from_site_a_as(protocol, payload))
}

/// A router tells of a loss, and what it says was spoilt on its way.
fn wrong_error() -> Scene {
    let mut scene = Scene::new();
    scene.receive(LAN, from_client(&udp4(10)));
    let outer = scene.sent(WAN).expect("it fits");
    let mut error = Vec::new();
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ipv4([203, 0, 113, 1], [192, 0, 2, 1], 60)
        .icmpv4_raw(3, 1, [0; 4])
        .write(&mut error, &outer[14..])
        .expect("a Vec takes everything");
    given(scene, WAN, spoilt(&error, 80))
}

/// UDP and GENEVE 7 with one option of this type, and nothing inside.
fn geneve_with_option(kind: u8) -> Vec<u8> {
    let udp = [0xc0, 0, 0x17, 0xc1, 0, 20, 0, 0];
    let geneve = [1, 0x40, 8, 0, 0, 0, 7, 0];
    [&udp[..], &geneve, &[1, 8, kind, 0]].concat()
}

fn given(mut scene: Scene, port: PortId, frame: Vec<u8>) -> Scene {
    scene.receive(port, frame);
    scene
}

/// The client sends a packet.
fn lan(packet: &[u8]) -> Scene {
    given(Scene::new(), LAN, from_client(packet))
}

/// The router sends a frame.
fn wan(frame: Vec<u8>) -> Scene {
    given(Scene::new(), WAN, frame)
}

/// Site a sends a frame through its tunnel.
fn from_tunnel(frame: &[u8]) -> Scene {
    wan(from_site_a(&vxlan(VNI, frame), |_| {}))
}

/// XDP let a frame through by older tables than the worker's.
fn unsteered(port: PortId, frame: Vec<u8>) -> Scene {
    let mut scene = Scene::new();
    scene.receive_unsteered(port, frame);
    scene
}

/// The octets with one changed.
fn with(octets: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut octets = octets.to_vec();
    octets[at] = value;
    octets
}

/// The octets with one that is wrong.
fn spoilt(octets: &[u8], at: usize) -> Vec<u8> {
    with(octets, at, octets[at] ^ 1)
}

fn with_route(via: &str) -> Scene {
    let more = format!("[[route]]\nprefix = \"198.18.7.0/24\"\nvia = [{via}]\n");
    given(Scene::with(&more, 1500, CHUNKS, |_| {}), LAN, from_client(&ipv4([198, 18, 7, 1], 20, |_| {})))
}

/// The client's link is lan0 itself.
fn by_a_vlan_that_does_not_lead_back() -> Scene {
    let more = "[interface.\"lan0.111\"]\nparent = \"lan0\"\nvlan = 111\nrpf = \"strict\"\n";
    given(Scene::with(more, 1500, CHUNKS, |_| {}), LAN, tagged(111, &from_client(&ipv4(SERVER, 20, |_| {}))))
}

/// Three packets at once, where there is room for two.
fn more_than_a_policer_lets_pass() -> Scene {
    let more = "[policer.p]\nkind = \"rfc2697\"\ncir = \"1M\"\ncbs = \"3kB\"\n\
                [interface.\"lan0.120\"]\nparent = \"lan0\"\nvlan = 120\npolicer = \"p\"\nmac = \"02:00:00:00:00:01\"\n";
    let packet = || tagged(120, &from_client(&udp4(1400)));
    let mut scene = (0..3).fold(Scene::with(more, 1500, CHUNKS, |_| {}), |scene, _| given(scene, LAN, packet()));
    assert_eq!(std::iter::from_fn(|| scene.sent(WAN)).count(), 2);
    scene
}

/// A rule for what the client sends.
fn with_acl(action: &str) -> Scene {
    let more = format!(
        "[[acl]]\n{action}\nsource = \"198.18.1.0/24\"\nprotocol = \"udp\"\ndestination_port = [22, \"5000-5009\"]\n"
    );
    given(Scene::with(&more, 1500, CHUNKS, |_| {}), LAN, from_client(&udp4(10)))
}

/// The file has no such route; the kernel has.
fn prohibited() -> Scene {
    let scene = Scene::with("", 1500, CHUNKS, |host| {
        let prefix = "198.18.7.0/24".parse().expect("a prefix");
        let key = RouteKey { table: 254, prefix, tos: 0, metric: 0 };
        let (kind, next_hops) = (RouteKind::Prohibit, Vec::new());
        let route = MirroredRoute { protocol: 4, kind, next_hops, prefsrc: None, next_hop_id: None };
        host.routes.insert(key, route.into());
    });
    given(scene, LAN, from_client(&ipv4([198, 18, 7, 1], 20, |_| {})))
}

const STRANGER: [u8; 4] = [198, 18, 1, 77];

fn failed_neighbour() -> Scene {
    let scene = Scene::with("", 1500, CHUNKS, |host| {
        let (lan, _) = host.link_by_name("lan0").expect("it is in the file");
        host.neighbours.insert((lan, STRANGER.into()), Neigh { mac: None, state: NeighState::Failed });
    });
    given(scene, LAN, from_client(&ipv4(STRANGER, 20, |_| {})))
}

fn seventeen_for_a_stranger() -> Scene {
    (0..17).fold(Scene::new(), |scene, _| given(scene, LAN, from_client(&ipv4(STRANGER, 20, |_| {}))))
}

fn neighbour_that_went_while_packets_waited() -> Scene {
    let more = "[[route]]\nprefix = \"198.18.7.0/24\"\nvia = [{ next_hop = \"192.0.2.9\" }]\n\
                [[neighbour]]\ninterface = \"wan0\"\naddress = \"192.0.2.9\"\nmac = \"02:00:00:00:01:09\"\n";
    let mut scene = Scene::with(more, 1500, CHUNKS, |_| {});
    scene.set_sending(WAN, false);
    scene.receive(LAN, from_client(&ipv4([198, 18, 7, 1], 20, |_| {})));
    let without = Scene::config("", 1500);
    // The id is free after the first, and gone from the tables with the second.
    for _ in 0..2 {
        scene.gateway.update(&without, &offline::host(&without)).expect("it is smaller than before");
    }
    scene.set_sending(WAN, true);
    scene
}

fn more_than_a_queue_holds() -> Scene {
    let limit = dataplane::qos::QUEUE_LIMIT;
    let mut scene = Scene::with("", 1500, 2 * limit, |_| {});
    scene.set_sending(WAN, false);
    for _ in 0..=limit {
        scene.receive(LAN, from_client(&udp4(0)));
    }
    scene
}

fn more_delay_than_a_class_suffers() -> Scene {
    let mut scene = Scene::new();
    let mut spec = Spec::plain(0);
    spec.ports.push(PortSpec { port: WAN, rate: Rate::new(10_000_000), account: Account::L1 });
    let red = Red { start_ns: 0, end_ns: 1, most_permille: 1_000 };
    spec.classes.iter_mut().for_each(|class| (class.aqm, class.not_capable) = (Aqm::Red(red), NotCapable::Drop));
    let plan = Plan::new(&Arc::new(spec), 8).expect("a specification that can be kept");
    scene.gateway.worker.obey(Command::Shape(Box::new(plan)), Time(0));
    // A microsecond is too long.
    scene.set_sending(WAN, false);
    scene.receive(LAN, from_client(&udp4(10)));
    scene.pass(Time(1_000));
    scene.set_sending(WAN, true);
    scene
}

/// Tables were published before the plan whose numbers theirs are.
fn numbers_that_no_queue_has_heard_of() -> Scene {
    let mut scene = Scene::new();
    let mut spec = Spec::plain(0);
    spec.numbering = spec.numbering.next();
    spec.ports.push(PortSpec { port: WAN, rate: None, account: Account::L1 });
    let plan = Plan::new(&Arc::new(spec.clone()), 8).expect("a specification that can be kept");
    scene.gateway.worker.obey(Command::Shape(Box::new(plan)), Time(0));
    given(scene, LAN, from_client(&udp4(10)))
}

fn port_that_went() -> Scene {
    let mut scene = Scene::new();
    scene.close(WAN);
    given(scene, LAN, from_client(&udp4(10)))
}
