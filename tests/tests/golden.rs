//! The golden cases through `penstock replay`; then other decoders look at what came out.
//!
//! `UPDATE_GOLDEN=1 cargo test -p integration --test golden every_case` writes the captures and balances anew. Read
//! the difference before you keep it.
#![forbid(unsafe_code)]

use integration::frames::{Decoded, Ip, decode, ip_of};
use integration::golden::{CASES, CLIENT, Case, FAR, INSIDE, LAN, ROUTER, TUNNELS, WAN};
use integration::pcap::{Frame, encode, read};
use integration::penstock::{Balance, penstock};
use integration::{Lab, needs};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

const PORTS: [&str; 2] = ["lan0", "wan0"];

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// What a port has sent, by the committed capture.
fn sent(case: &Case, port: &str) -> Vec<Frame> {
    read(&case.folder().join(format!("out-{port}.pcap")))
}

/// The same, decoded: every header and checksum is right.
#[track_caller]
fn decoded(case: &Case, port: &str) -> Vec<Decoded> {
    let right = |(number, frame): (usize, &Frame)| {
        decode(&frame.octets).unwrap_or_else(|wrong| panic!("{}: {port}, frame {}: {wrong:?}", case.name, number + 1))
    };
    sent(case, port).iter().enumerate().map(right).collect()
}

/// What a port receives, by the committed capture.
fn received(case: &Case, port: &str) -> Vec<Frame> {
    read(&case.folder().join(format!("in-{port}.pcap")))
}

fn balance(case: &Case) -> Balance {
    let path = case.folder().join("balance.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Balance::of(&serde_json::from_str(&text).expect("it was printed by the program"))
}

/// A committed file is what was made now; or becomes that, if asked.
#[track_caller]
fn assert_file(path: &Path, made: &[u8]) {
    if updating() {
        std::fs::write(path, made).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let committed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(committed == made, "{} differs: UPDATE_GOLDEN=1 writes it anew", path.display());
}

fn replay(case: &Case) {
    let lab = Lab::new(case.name);
    let folder = case.folder();
    let mut arguments = vec!["replay".to_owned(), folder.join("config.toml").display().to_string(), "--json".into()];
    for (port, frames) in case.inputs() {
        let path = folder.join(format!("in-{port}.pcap"));
        assert_file(&path, &encode(&frames));
        arguments.extend(["--in".into(), format!("{port}={}", path.display())]);
    }
    for port in PORTS {
        arguments.extend(["--out".into(), format!("{port}={}", lab.folder().join(port).display())]);
    }
    let outcome = penstock(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{}", case.name);
    let printed: Value = serde_json::from_str(&outcome.stdout).expect("JSON was asked for");
    let pretty = serde_json::to_string_pretty(&printed).expect("it was JSON") + "\n";
    assert_file(&folder.join("balance.json"), pretty.as_bytes());
    for port in PORTS {
        let made = std::fs::read(lab.folder().join(port)).expect("every --out is written");
        assert_file(&folder.join(format!("out-{port}.pcap")), &made);
    }
}

#[test]
fn every_case_comes_out_as_committed() {
    CASES.iter().for_each(replay);
    let folders = std::fs::read_dir(case("ipv4").folder().join("..")).expect("the cases are there");
    assert_eq!(folders.count(), CASES.len(), "a folder without a case");
}

#[test]
fn every_packet_has_exactly_one_fate_and_every_frame_sent_is_counted() {
    for case in CASES {
        let balance = balance(case);
        assert!(balance.balances(), "{}: {balance:?}", case.name);
        let frames: usize = case.inputs().iter().map(|(_, frames)| frames.len()).sum();
        assert_eq!(balance.total("received"), frames as u64, "{}", case.name);
        let sent: usize = PORTS.iter().map(|port| sent(case, port).len()).sum();
        assert_eq!(balance.total("forwarded"), sent as u64, "{}", case.name);
    }
}

#[test]
fn every_checksum_that_is_sent_is_right() {
    for case in CASES {
        PORTS.iter().for_each(|port| drop(decoded(case, port)));
    }
}

/// The program that most people will look with.
#[test]
fn tshark_finds_nothing_wrong_either() {
    if !needs::installed("tshark") {
        return needs::skip("tshark");
    }
    // Status 0 is bad; what an ICMP error quotes may be cut, and is not asked about.
    let wrong = "(ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0 || \
                 icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || _ws.malformed)";
    // One run for all: tshark takes long to start.
    let lab = Lab::new("tshark");
    let path = lab.folder().join("all.pcap");
    let all = CASES.iter().flat_map(|case| PORTS.map(|port| (case, port)));
    let (names, frames): (Vec<_>, Vec<_>) = all
        .flat_map(|(case, port)| {
            sent(case, port).into_iter().map(move |frame| (format!("{}, {port}", case.name), frame))
        })
        .unzip();
    std::fs::write(&path, encode(&frames)).expect("the lab's folder is ours");
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.arg("-n").arg("-r").arg(&path).args(["-Y", wrong, "-T", "fields", "-e", "frame.number"]);
    let output = tshark.output().expect("it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<_> = numbers.lines().map(|line| line.parse::<usize>().map(|number| &names[number - 1])).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// What tshark sees in a frame of case `tunnels`, in order: the headers, and what tells tunnels apart.
const SEEN: &[(&str, &str)] = &[
    ("eth:ethertype:ip:udp:vxlan:eth:ethertype:IN:udp:data", "5001"),
    ("eth:ethertype:ip:udp:geneve:eth:ethertype:IN:udp:data", "0x00138a"),
    ("eth:ethertype:ip:udp:geneve:IN:udp:data", "0x00138b"),
    ("eth:ethertype:ip:gre:IN:udp:data", ""),
    ("eth:ethertype:ip:gre:IN:udp:data", "0x0000138d"),
    ("eth:ethertype:ip:gre:eth:ethertype:IN:udp:data", ""),
    ("eth:ethertype:ip:gre:eth:ethertype:IN:udp:data", "0x0000138f"),
    ("eth:ethertype:ip:IN:udp:data", ""),
    ("eth:ethertype:ip:IN:udp:data", ""),
    ("eth:ethertype:ipv6:udp:vxlan:eth:ethertype:IN:udp:data", "5001"),
    ("eth:ethertype:ipv6:udp:geneve:eth:ethertype:IN:udp:data", "0x00138a"),
    ("eth:ethertype:ipv6:udp:geneve:IN:udp:data", "0x00138b"),
    ("eth:ethertype:ipv6:gre:IN:udp:data", ""),
    ("eth:ethertype:ipv6:gre:IN:udp:data", "0x0000138d"),
    ("eth:ethertype:ipv6:gre:eth:ethertype:IN:udp:data", ""),
    ("eth:ethertype:ipv6:gre:eth:ethertype:IN:udp:data", "0x0000138f"),
    ("eth:ethertype:ipv6:IN:udp:data", ""),
    ("eth:ethertype:ipv6:IN:udp:data", ""),
];

#[test]
fn tshark_sees_every_type_of_tunnel() {
    if !needs::installed("tshark") {
        return needs::skip("tshark");
    }
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "udp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.arg("-n").arg("-r").arg(case("tunnels").folder().join("out-wan0.pcap")).args(["-T", "fields"]);
    // `_ws.expert.severity`: a warning is 0x600000, an error 0x800000; a remark is none of either.
    for field in ["frame.protocols", "vxlan.vni", "geneve.vni", "gre.key", "_ws.expert.severity", "_ws.malformed"] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = SEEN.iter().zip(TUNNELS).flat_map(|((headers, identifier), (_, families))| {
        families
            .iter()
            .map(move |family| (headers.replace("IN", if *family == 4 { "ip" } else { "ipv6" }), *identifier))
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    for (line, (headers, identifier)) in text.lines().zip(&expected) {
        let fields: Vec<_> = line.split('\t').collect();
        let [protocols, vxlan, geneve, gre, severity, malformed] = fields[..] else { panic!("{line}") };
        assert_eq!((protocols, [vxlan, geneve, gre].concat().as_str()), (headers.as_str(), *identifier));
        assert_eq!((severity, malformed), ("", ""), "{line}");
    }
}

/// An IP packet after one hop: TTL less one, and with it the IPv4 header checksum; nothing else.
fn after_a_hop(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    let header = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&packet[..header]).ones_complement();
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    packet
}

#[test]
fn a_router_changes_the_macs_and_one_hop() {
    for name in ["ipv4", "ipv6"] {
        let case = case(name);
        for (from, to, macs) in [("lan0", "wan0", (ROUTER, WAN)), ("wan0", "lan0", (CLIENT, LAN))] {
            let (received, sent) = (received(case, from), sent(case, to));
            assert_eq!(received.len(), sent.len(), "{name}");
            for (before, after) in received.iter().zip(&sent) {
                assert_eq!((&after.octets[..6], &after.octets[6..12]), (&macs.0[..], &macs.1[..]), "{name}");
                assert_eq!(after.octets[14..], after_a_hop(ip_of(&before.octets)), "{name}");
                assert_eq!(after.at_ns, before.at_ns, "{name}: nothing waits here");
            }
        }
    }
}

#[test]
fn a_vlan_tag_is_taken_off_and_put_on() {
    let case = case("vlan");
    // Of the LAN's three frames one has the tag of an interface; one goes unsteered to the kernel.
    let out: Vec<_> = decoded(case, "wan0").iter().map(|frame| frame.vlan).collect();
    assert_eq!(out.iter().filter(|vlan| vlan.is_some()).count(), 0, "{out:?}");
    assert!(!out.is_empty());
    for frame in decoded(case, "lan0") {
        assert_eq!((frame.vlan, frame.to, frame.from), (Some(110), CLIENT, LAN));
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn what_goes_into_the_tunnel_arrives_whole() {
    for (name, local, remote) in
        [("vxlan-encap-v4", "192.0.2.1", "198.51.100.7"), ("vxlan-encap-v6", "2001:db8:f::1", "2001:db8:b::7")]
    {
        let case = case(name);
        let (received, sent) = (received(case, "lan0"), sent(case, "wan0"));
        assert_eq!(received.len(), sent.len(), "{name}");
        for (before, after) in received.iter().zip(&sent) {
            let outer = decode(&after.octets).expect("checked elsewhere").ip.expect("IP");
            assert_eq!((outer.source, outer.destination, outer.ttl), (address(local), address(remote), 64), "{name}");
            assert_eq!(outer.dont_fragment, outer.source.is_ipv4(), "{name}: df = \"set\"");
            let (source_port, _) = outer.ports.expect("UDP");
            assert!(source_port >= 0xc000, "{name}: {source_port} is below the dynamic range");
            // RFC 6040 §4.1 and RFC 2983: DSCP and ECN go along.
            let inner = decode(&before.octets).expect("made by the generator").ip.expect("IP");
            assert_eq!(outer.tos, inner.tos, "{name}");
            let (vni, frame) = outer.vxlan.expect("VXLAN");
            assert_eq!((vni, frame.to, frame.from), (5001, FAR, INSIDE), "{name}");
            assert!(after.octets.ends_with(&after_a_hop(ip_of(&before.octets))), "{name}");
        }
    }
}

#[test]
fn a_flow_keeps_its_source_port_and_flows_differ() {
    for name in ["vxlan-encap-v4", "vxlan-encap-v6"] {
        let mut ports = std::collections::BTreeMap::new();
        for frame in decoded(case(name), "wan0") {
            let flow = frame.innermost().map(|ip| (ip.source, ip.protocol, ip.ports));
            let outer = frame.ip.and_then(|ip| ip.ports).expect("UDP");
            let first = *ports.entry(flow).or_insert(outer);
            assert_eq!(first, outer, "{name}: one flow, one path");
        }
        let distinct: std::collections::BTreeSet<_> = ports.values().collect();
        assert_eq!(distinct.len(), ports.len(), "{name}: {ports:?}");
    }
}

#[test]
fn what_comes_out_of_the_tunnel_is_what_went_in_with_the_outer_congestion_mark() {
    for name in ["vxlan-decap-v4", "vxlan-decap-v6"] {
        let case = case(name);
        let balance = balance(case);
        for (reason, count) in [
            // RFC 6040 §4.2: CE outside, not ECN-capable inside, of both families.
            ("ecn_not_capable", 2),
            ("unknown_vni", 1),
            ("not_our_mac", 1),
            ("spoofed_source", 1),
            ("tunnel_checksum", 1),
            ("tunnel_header", 1),
            ("truncated", 1),
            ("ttl_expired", 1),
        ] {
            assert_eq!(balance.dropped(reason), count, "{name}: {reason}");
        }
        assert_eq!(balance.all_dropped(), 9, "{name}");
        let mut out = sent(case, "lan0").into_iter();
        for frame in received(case, "wan0").iter().take(2 + 32) {
            let outer = decode(&frame.octets).expect("made by the generator").ip.expect("IP");
            let (_, inner) = outer.vxlan.expect("VXLAN");
            let inner = inner.ip.expect("IP");
            let Some(ecn) = decapsulated(inner.tos & 3, outer.tos & 3) else { continue };
            let after = decode(&out.next().expect("as many as are not dropped").octets).expect("checked elsewhere");
            assert_eq!((after.to, after.from), (CLIENT, LAN), "{name}");
            let after = after.ip.expect("IP");
            assert_eq!(after, Ip { tos: inner.tos & !3 | ecn, ttl: inner.ttl - 1, ..inner }, "{name}");
        }
        assert_eq!(out.count(), 0, "{name}");
        // The one whose hops ran out inside: the error goes back the way it came.
        let errors = decoded(case, "wan0");
        let [error] = errors.as_slice() else { panic!("{name}: {errors:?}") };
        let inner = error.innermost().expect("IP");
        assert_eq!((inner.source, inner.destination), (address("198.18.255.1"), address("198.18.2.10")), "{name}");
        assert_eq!(inner.icmp, Some((11, 0)), "{name}");
    }
}

/// RFC 6040 figure 4, by hand. `None`: dropped.
const fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const CE: u8 = 3;
    match (inner, outer) {
        (NOT, CE) => None,
        (NOT, _) => Some(NOT),
        (CE, _) | (_, CE) => Some(CE),
        (_, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

#[test]
fn fragments_fit_the_tunnel_and_make_up_the_packet() {
    let case = case("fragmentation");
    let inner: Vec<Ip> = decoded(case, "wan0").iter().map(|frame| frame.innermost().expect("IP").clone()).collect();
    assert_eq!(inner.len(), 1 + 2 + 2, "one fits, two are cut in two");
    let mut fragments = inner.iter();
    for frame in received(case, "lan0") {
        let whole = decode(&frame.octets).expect("made by the generator").ip.expect("IP");
        let mut payload = Vec::new();
        loop {
            let fragment = fragments.next().expect("more to come");
            assert!(fragment.length <= 1450, "{} octets", fragment.length);
            assert_eq!(fragment.ttl, whole.ttl - 1, "one hop, cut or not");
            let (offset, more) = fragment.fragment.unwrap_or((0, false));
            assert_eq!(usize::from(offset), payload.len());
            payload.extend_from_slice(&fragment.payload);
            if !more {
                break;
            }
        }
        assert_eq!(payload, whole.payload);
    }
    assert_eq!(balance(case).total("originated"), 2, "the second half of each");
}

#[test]
fn what_is_too_big_is_answered_with_the_mtu_of_the_tunnel() {
    let case = case("too-big");
    let answers = decoded(case, "lan0");
    let inputs = received(case, "lan0");
    let mut answers = answers.iter().map(|frame| frame.ip.as_ref().expect("IP"));
    for frame in &inputs {
        let packet = ip_of(&frame.octets);
        if packet.len() <= 1450 {
            continue;
        }
        let answer = answers.next().expect("an answer for each");
        let sender = decode(&frame.octets).expect("made by the generator").ip.expect("IP").source;
        assert_eq!(answer.destination, sender);
        let (kind, mtu, longest, quoted) = if sender.is_ipv4() {
            // RFC 1191 §4: the MTU in the lower half; RFC 1812 §4.3.2.3: at most 576 octets.
            ((3, 4), &answer.payload[6..8], 576, &answer.payload[8..])
        } else {
            // RFC 4443 §3.2, §2.4 (c).
            ((2, 0), &answer.payload[6..8], 1280, &answer.payload[8..])
        };
        assert_eq!((answer.icmp, mtu), (Some(kind), &1450_u16.to_be_bytes()[..]));
        assert!(answer.length <= longest && answer.length + 8 > longest, "quotes as much as may be: {}", answer.length);
        // A router quotes what arrived, or what would have left: the TTL may differ, addresses may not.
        assert_eq!(quoted[12..], packet[12..quoted.len()], "what was sent");
    }
    assert_eq!(answers.count(), 0);
    assert_eq!(decoded(case, "wan0").len(), 2, "what fits goes through");
    assert_eq!((balance(case).dropped("fragmentation_needed"), balance(case).dropped("packet_too_big")), (2, 2));
}

#[test]
fn time_exceeded_goes_to_the_sender_and_never_answers_an_error() {
    let case = case("ttl-expired");
    let kinds: Vec<_> = decoded(case, "lan0")
        .iter()
        .map(|frame| frame.ip.clone().expect("IP"))
        .map(|ip| {
            let from = if ip.source.is_ipv4() { "198.18.1.1" } else { "2001:db8:1::1" };
            assert_eq!(ip.source, address(from));
            ip.icmp.expect("ICMP")
        })
        .collect();
    // Hops 1 and 0: UDP over both families and an echo request; then two long ones.
    assert_eq!(kinds, [(11, 0), (3, 0), (11, 0), (11, 0), (3, 0), (11, 0), (11, 0), (3, 0)]);
    assert_eq!(decoded(case, "wan0").len(), 3, "two hops are enough");
    assert_eq!(balance(case).dropped("ttl_expired"), 9);
    assert_eq!(balance(case).total("originated"), 8);
}

#[test]
fn unreachable_is_told_and_a_blackhole_is_silent() {
    let case = case("no-route");
    let kinds: Vec<_> = decoded(case, "lan0").iter().map(|frame| frame.ip.as_ref().expect("IP").icmp).collect();
    // RFC 1812 §5.2.7.1, RFC 4443 §3.1: no route; unreachable; the neighbour that does not answer.
    assert_eq!(kinds, [Some((3, 0)), Some((1, 0)), Some((3, 0)), Some((1, 0)), Some((3, 1))]);
    let balance = balance(case);
    let counts = ["no_route", "unreachable", "blackhole", "neighbour_unresolved"].map(|reason| balance.dropped(reason));
    assert_eq!(counts, [2, 2, 2, 1]);
}

#[test]
fn mss_is_lowered_to_what_fits_and_never_raised() {
    let case = case("mss-clamp");
    let mss = |ip: &Ip, limit4: u16| (ip.mss, if ip.source.is_ipv4() { limit4 } else { limit4 - 20 });
    for (from, to) in [("lan0", "wan0"), ("wan0", "lan0")] {
        let (received, sent) = (received(case, from), decoded(case, to));
        assert_eq!(received.len(), sent.len());
        for (before, after) in received.iter().zip(&sent) {
            let before = decode(&before.octets).expect("made by the generator");
            let (before, limit) = mss(before.innermost().expect("IP"), 1450 - 40);
            let (after, _) = mss(after.innermost().expect("IP"), 0x100);
            assert_eq!(after, before.map(|mss| mss.min(limit)), "{from}");
        }
    }
}

#[test]
fn malformed_packets_die_each_under_its_name() {
    let case = case("malformed");
    assert!(decoded(case, "wan0").is_empty());
    assert!(decoded(case, "lan0").is_empty(), "nobody is told");
    let balance = balance(case);
    for reason in ["bad_checksum", "bad_version", "bad_header_length", "bad_length", "truncated", "martian_source"] {
        assert_ne!(balance.dropped(reason), 0, "{reason}: {balance:?}");
    }
    assert_eq!(balance.total("punted"), 1, "to another station: {balance:?}");
}
