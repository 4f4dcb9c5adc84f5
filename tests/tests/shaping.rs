//! From the file to departure times, in virtual time: caps, guarantees, classes and marks of the whole gateway.
#![forbid(unsafe_code)]

use dataplane::packet::{DropReason, Time};
use dataplane::qos::policer::Colour;
use dataplane::stats::CountTotals;
use integration::scene::{CHUNKS, CLIENT, LAN, Scene, WAN, from_client, ipv4};

/// Where the tunnel with a cap leads.
const CAPPED: [u8; 4] = [198, 18, 9, 1];
const OUTER: usize = 14 + 20;

/// A tunnel with a cap, and more.
fn capped(cap: &str, more: &str) -> Scene {
    let file = format!(
        "[tunnel.slow]\ntype = \"ipip\"\nlocal = \"192.0.2.1\"\nremote = \"198.51.100.9\"\ncap = {{ {cap} }}\n\
         [[route]]\nprefix = \"198.18.9.0/24\"\nvia = [{{ tunnel = \"slow\" }}]\n\
         [[route]]\nprefix = \"198.51.100.9/32\"\nvia = [{{ next_hop = \"192.0.2.254\" }}]\n{more}\n"
    );
    Scene::with(&file, 1500, CHUNKS, |_| {})
}

/// A packet of so many octets from the client, of a flow that its last octet of source tells.
fn packet(octets: usize, tos: u8, host: u8) -> Vec<u8> {
    from_client(&ipv4(CAPPED, octets - 20, |header| {
        header.source = [CLIENT[0], CLIENT[1], CLIENT[2], host];
        header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("6 bits");
        header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("2 bits");
    }))
}

/// Departure in nanoseconds since the first, and the frame.
fn departures(scene: &mut Scene) -> Vec<(u64, Vec<u8>)> {
    let all: Vec<_> = std::iter::from_fn(|| scene.gateway.sent(WAN)).collect();
    let first = all.first().map_or(0, |(at, _)| at.0);
    all.into_iter().map(|(at, frame)| (at.0 - first, frame)).collect()
}

#[test]
fn a_cap_in_bits_spaces_packets_by_their_octets_outer_header_included() {
    // Tail drop: nothing is lost early. 8 Mbit/s are an octet in a microsecond.
    let class = "[[qos.class]]\nname = \"all\"\nshare = 1\naqm = \"tail\"\n";
    let mut scene = capped("rate = \"8M\", burst = \"3kB\"", class);
    (0..200).for_each(|_| scene.receive(LAN, packet(980, 0, 10)));
    scene.finish();
    let departures = departures(&mut scene);
    assert_eq!(departures.len(), 200);
    // Of the first three octets of a burst of 3,000 three go at once, and the fourth waits for what they overdrew.
    assert!(
        departures[2].0 == 0 && departures[3].0 > 0,
        "{:?}",
        &departures[..5].iter().map(|it| it.0).collect::<Vec<_>>()
    );
    // What has gone by any moment is the burst, the rate, and a packet at most.
    for (at, (time, _)) in departures.iter().enumerate() {
        let gone = 1_000 * (at as u64 + 1);
        assert!(gone <= 3_000 + time / 1_000 + 1_000, "{gone} octets after {time} ns");
    }
    // From packet to packet a millisecond, to a tenth of a percent and what a tick of the wheel is.
    let took = departures[199].0 - departures[10].0;
    assert!(took.abs_diff(189 * 1_000_000) <= 189_000 + 1_024, "{took} ns for 189 packets");
    scene.close_all();
}

#[test]
fn a_cap_in_packets_spaces_them_whatever_their_length() {
    let class = "[[qos.class]]\nname = \"all\"\nshare = 1\naqm = \"tail\"\n";
    let mut scene = capped("packets = \"1kpps\"", class);
    (0..150).for_each(|at| scene.receive(LAN, packet(40 + at * 7, 0, 10)));
    scene.finish();
    let departures = departures(&mut scene);
    assert_eq!(departures.len(), 150);
    let took = departures[149].0 - departures[49].0;
    assert!(took.abs_diff(100 * 1_000_000) <= 100_000 + 1_024, "{took} ns for 100 packets");
    scene.close_all();
}

#[test]
fn what_waits_too_long_is_marked_inside_and_the_mark_is_outside_too() {
    let mut scene = capped("rate = \"8M\"", "");
    // Capable of ECN: for longer than CoDel's interval of 100 ms above its target.
    (0..300).for_each(|_| scene.receive(LAN, packet(980, 2, 10)));
    scene.finish();
    let departures = departures(&mut scene);
    assert_eq!(departures.len(), 300, "what can be marked is not dropped");
    let tos = |frame: &[u8]| (frame[15] & 3, frame[OUTER + 1] & 3);
    let marks = departures.iter().filter(|(_, frame)| tos(frame) == (3, 3)).count();
    let plain = departures.iter().filter(|(_, frame)| tos(frame) == (2, 2)).count();
    assert!(marks > 0 && marks + plain == 300, "{marks} marked, {plain} not");
    let first = departures.iter().position(|(_, frame)| tos(frame).0 == 3).map(|at| departures[at].0);
    assert!(first.is_some_and(|at| at > 100_000_000), "none before the interval is over: {first:?}");
    // Checksums of marked headers are right.
    for (_, frame) in &departures {
        integration::frames::decode(frame).expect("a right frame");
    }
    scene.close_all();
}

#[test]
fn what_cannot_be_marked_is_dropped_early() {
    let mut scene = capped("rate = \"8M\"", "");
    (0..300).for_each(|_| scene.receive(LAN, packet(980, 0, 10)));
    scene.finish();
    let sent = departures(&mut scene).len() as u64;
    let dropped = scene.totals().drops[DropReason::EarlyDrop as usize];
    assert!(dropped > 0 && sent + dropped == 300, "{sent} sent, {dropped} dropped");
    scene.drops_only_for(DropReason::EarlyDrop);
}

#[test]
fn a_guarantee_comes_first_and_the_rest_is_shared_by_weight() {
    let more = "[interface.lan1]\nrate = \"1G\"\n\
        [[qos.class]]\nname = \"all\"\nshare = 1\naqm = \"tail\"\n\
        [tenant.red]\nmatch = { source = \"198.18.1.16/28\" }\nguarantee = \"5M\"\nburst = \"3kB\"\n\
        [tenant.blue]\nmatch = { source = \"198.18.1.32/28\" }\nweight = 2\n";
    let mut scene = capped("rate = \"8M\", burst = \"3kB\"", more);
    (0..120).for_each(|_| [16, 32, 64].iter().for_each(|host| scene.receive(LAN, packet(980, 0, *host))));
    scene.finish();
    // While all three have packets: red has 5 of 8 and a quarter of the rest, blue twice as much of it as the others.
    let departures = departures(&mut scene);
    let count = |host: u8| departures[10..130].iter().filter(|(_, frame)| frame[OUTER + 15] == host).count() as f64;
    let [red, blue, others] = [16, 32, 64].map(count);
    let shares = [red, blue, others].map(|count| count / 120.0);
    for (share, expected) in shares.iter().zip([(5.0 + 0.75) / 8.0, 1.5 / 8.0, 0.75 / 8.0]) {
        assert!((share - expected).abs() < 0.04, "{shares:?}");
    }
    scene.close_all();
}

#[test]
fn a_tenants_policer_admits_its_burst_and_its_rate_and_leaves_others_alone() {
    let more = "[tenant.red]\nmatch = { source = \"198.18.1.16/28\" }\npolicer = \"p\"\n\
        [policer.p]\nkind = \"rfc2697\"\ncir = \"8M\"\ncbs = \"3kB\"\n";
    let mut scene = capped("rate = \"1G\"", more);
    // A packet of 980 octets where the rate earns 500.
    for _ in 0..200 {
        [16, 64].iter().for_each(|host| scene.receive(LAN, packet(980, 0, *host)));
        scene.pass(Time(500_000));
    }
    scene.finish();
    let departures = departures(&mut scene);
    let count = |host: u8| departures.iter().filter(|(_, frame)| frame[OUTER + 15] == host).count();
    assert_eq!((count(16), count(64)), ((3_000 + 199 * 500) / 980, 200));
    let coloured = |colour| CountTotals::of_colour([scene.gateway.page()], 0, colour);
    assert_eq!(coloured(Colour::Green), CountTotals { packets: 104, bytes: 104 * 980 });
    assert_eq!(coloured(Colour::Red), CountTotals { packets: 96, bytes: 96 * 980 });
    assert_eq!(scene.drops_only_for(DropReason::Policed).dropped(), 96);
}

#[test]
fn a_strict_class_overtakes_what_came_before_it() {
    let mut scene = capped("rate = \"8M\", burst = \"3kB\"", "[qos]\nclasses = \"gpu-gateway\"\n");
    (0..20).for_each(|_| scene.receive(LAN, packet(980, 0, 10)));
    scene.receive(LAN, packet(980, 46 << 2, 10));
    scene.finish();
    let departures = departures(&mut scene);
    let place = departures.iter().position(|(_, frame)| frame[OUTER + 1] >> 2 == 46);
    assert!(place.is_some_and(|place| place <= 4), "{place:?}");
    scene.close_all();
}
