//! GENEVE options: those that a packet came with go on into another GENEVE tunnel, with every piece of it, and take room
//! there. Towards all else they are left behind.
#![forbid(unsafe_code)]

use dataplane::packet::Family::V4;
use etherparse::PacketBuilder;
use integration::frames::{Ip, decode};
use integration::packets::{after_hops, data, of_length, tcp, udp, whole};
use integration::scene::{CHUNKS, CLIENT, LAN, MACS, SERVER, Scene, WAN, framed};

/// Where the options came from, and ways on: by destination 198.18.20.0 to 198.18.26.0.
const TUNNELS: &str = r#"
    [tunnel.in]
    type = "geneve"
    vni = 1
    inner = "ip"
    local = "192.0.2.1"
    remote = "198.51.100.7"
    [[route]]
    prefix = "198.51.100.0/24"
    via = [{ next_hop = "192.0.2.254" }]
    [[route]]
    prefix = "2001:db8:c::/64"
    via = [{ next_hop = "2001:db8:f::fe" }]
"#;

/// A way on: the third octet of its destinations, its keys, over IPv6, octets before the inner packet.
struct Way {
    net: u8,
    keys: &'static str,
    over_v6: bool,
    overhead: usize,
    keeps: bool,
}

const fn way(net: u8, keys: &'static str, over_v6: bool, overhead: usize, keeps: bool) -> Way {
    Way { net, keys, over_v6, overhead, keeps }
}

const ETHERNET: &str = "type = \"geneve\"\nvni = 9\nremote_mac = \"02:00:00:00:02:02\"\nchecksum = \"full\"";
const IP: &str = "type = \"geneve\"\nvni = 9\ninner = \"ip\"\nchecksum = \"full\"";
const VXLAN: &str = "type = \"vxlan\"\nvni = 9\nremote_mac = \"02:00:00:00:02:02\"";

const WAYS: &[Way] = &[
    way(20, ETHERNET, false, 50, true),
    way(21, ETHERNET, true, 70, true),
    way(22, IP, false, 36, true),
    way(23, IP, true, 56, true),
    way(24, VXLAN, false, 50, false),
    way(25, "type = \"gre\"", true, 44, false),
    way(26, "type = \"ipip\"", false, 20, false),
];

fn scene() -> Scene {
    let mut text = TUNNELS.to_owned();
    for Way { net, keys, over_v6, .. } in WAYS {
        let (local, remote) = if *over_v6 {
            ("2001:db8:f::1", format!("2001:db8:c::{net}"))
        } else {
            ("192.0.2.1", format!("198.51.100.{net}"))
        };
        text += &format!(
            "[tunnel.out-{net}]\n{keys}\nlocal = \"{local}\"\nremote = \"{remote}\"\n\
             [[route]]\nprefix = \"198.18.{net}.0/24\"\nvia = [{{ tunnel = \"out-{net}\" }}]\n"
        );
    }
    Scene::with(&text, 1500, CHUNKS, |_| {})
}

/// Options of so many words together, none critical.
fn options(words: usize) -> Vec<u8> {
    let mut options = Vec::new();
    while options.len() < words * 4 {
        let more = (words - options.len() / 4 - 1).min(31);
        options.extend([1, 8, 0x7f, more as u8]);
        options.extend(data(more * 4));
    }
    options
}

/// The packet as it comes out of tunnel `in`, with options.
fn arriving(options: &[u8], packet: &[u8]) -> Vec<u8> {
    let geneve = [(options.len() / 4) as u8, 0, 8, 0, 0, 0, 1, 0];
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACS.router, MACS.wan)
        .ipv4([198, 51, 100, 7], [192, 0, 2, 1], 64)
        .udp(50_000, 6081)
        .write(&mut frame, &[&geneve, options, packet].concat())
        .expect("it fits");
    frame
}

fn to(net: u8, mut packet: Vec<u8>) -> Vec<u8> {
    packet[18] = net;
    // The checksum of the transport covers the address: none, for UDP.
    packet[26..28].fill(0);
    integration::packets::mend(&mut packet);
    packet
}

/// The outer packet, checked by etherparse.
#[track_caller]
fn sent(scene: &mut Scene) -> Option<Ip> {
    scene.sent(WAN).map(|frame| decode(&frame).unwrap_or_else(|wrong| panic!("{wrong:?}")).ip.expect("IP"))
}

/// Options and inner packet of what goes on.
#[track_caller]
fn read(way: &Way, outer: &Ip) -> (Vec<u8>, Vec<u8>) {
    let ethernet = way.keys == ETHERNET;
    if !way.keeps {
        let before = way.overhead - if way.over_v6 { 40 } else { 20 };
        return (Vec::new(), outer.payload[before..].to_vec());
    }
    let (geneve, rest) = outer.payload[8..].split_at(8);
    assert_eq!(outer.ports.map(|ports| ports.1), Some(6081));
    assert_ne!(outer.payload[6..8], [0, 0], "a checksum, which decode has looked at");
    let (options, inside) = rest.split_at(usize::from(geneve[0]) * 4);
    let kind: &[u8] = if ethernet { &[0x65, 0x58] } else { &[8, 0] };
    assert_eq!((&geneve[1..4], &geneve[4..]), (&[&[0], kind].concat()[..], &[0, 0, 9, 0][..]), "{}", way.keys);
    (options.to_vec(), inside[if ethernet { 14 } else { 0 }..].to_vec())
}

#[test]
fn options_go_on_into_geneve_and_nowhere_else() {
    let mut scene = scene();
    for way in WAYS {
        for words in [0, 1, 2, 31, 32, 33, 63] {
            for size in [0, 1, 40, 700] {
                let packet = to(way.net, udp(V4, size));
                scene.receive(WAN, arriving(&options(words), &packet));
                let outer = sent(&mut scene).unwrap_or_else(|| panic!("{}: {:?}", way.keys, scene.totals()));
                let (kept, inner) = read(way, &outer);
                assert_eq!(kept, if way.keeps { options(words) } else { Vec::new() }, "{}: {words}", way.keys);
                assert_eq!(inner, after_hops(&packet, 1), "{}: {words} words, {size} octets", way.keys);
            }
        }
    }
    // Nor onto a link.
    let mut back = udp(V4, 40);
    back[12..20].copy_from_slice(&[SERVER, CLIENT].concat());
    let back = to(CLIENT[2], back);
    scene.receive(WAN, arriving(&options(63), &back));
    assert_eq!(scene.sent(LAN), Some(framed(MACS.client, MACS.lan, &after_hops(&back, 1))));
    assert_eq!(scene.totals().dropped(), 0);
    scene.close_all();
}

/// Options take their room: what fits without them does not fit with them, and the sender is told of what is left.
#[test]
fn options_count_towards_the_mtu() {
    for way in WAYS {
        for words in [0, 1, 8, 63] {
            let mut scene = scene();
            let mtu = 1500 - way.overhead - if way.keeps { words * 4 } else { 0 };
            let packet = |length| to(way.net, of_length(length, |payload| whole(udp(V4, payload))));
            scene.receive(WAN, arriving(&options(words), &packet(mtu)));
            let outer = sent(&mut scene).expect("it fits");
            assert_eq!(outer.length, 1500, "{}: {words} words", way.keys);
            scene.receive(WAN, arriving(&options(words), &packet(mtu + 1)));
            assert_eq!(sent(&mut scene), None, "{}: {words} words", way.keys);
            let heard = scene.sent(LAN).expect("an answer");
            let answer = decode(&heard).expect("it is right").ip.expect("IP");
            assert_eq!(
                (answer.icmp, &answer.payload[6..8]),
                (Some((3, 4)), &(mtu as u16).to_be_bytes()[..]),
                "{}",
                way.keys
            );
            scene.close_all();
        }
    }
}

#[test]
fn every_piece_has_the_options() {
    for way in WAYS {
        for words in [0, 1, 8, 63] {
            let mut scene = scene();
            let packet = to(way.net, of_length(3000, |payload| udp(V4, payload)));
            scene.receive(WAN, arriving(&options(words), &packet));
            let (mut payload, mut pieces) = (Vec::new(), 0);
            while let Some(outer) = sent(&mut scene) {
                assert!(outer.length <= 1500, "{}: {words} words", way.keys);
                let (kept, inner) = read(way, &outer);
                assert_eq!(kept, if way.keeps { options(words) } else { Vec::new() }, "{}: {words}", way.keys);
                payload.extend_from_slice(&inner[20..]);
                pieces += 1;
            }
            assert!(pieces >= 3 && payload == packet[20..], "{}: {words} words, {pieces} pieces", way.keys);
            scene.close_all();
        }
    }
}

/// A checksum over everything, computed from that of TCP, with options between.
#[test]
fn the_outer_checksum_covers_the_options() {
    let mut scene = scene();
    for way in WAYS.iter().filter(|way| way.keeps) {
        for words in [1, 63] {
            let mut packet = tcp(V4, 100);
            // TCP's checksum follows the address (RFC 1624).
            packet[18] = way.net;
            let by = u16::from(way.net - 2) << 8;
            let sum = u16::from_be_bytes([packet[36], packet[37]]);
            let (less, borrow) = sum.overflowing_sub(by);
            packet[36..38].copy_from_slice(&(less - u16::from(borrow)).to_be_bytes());
            integration::packets::mend(&mut packet);
            scene.receive(WAN, arriving(&options(words), &packet));
            // Which looks at the outer checksum.
            let outer = sent(&mut scene).expect("it fits");
            let (kept, inner) = read(way, &outer);
            assert_eq!((kept, &inner), (options(words), &after_hops(&packet, 1)), "{}", way.keys);
            decode(&framed(MACS.lan, MACS.client, &inner)).expect("TCP's checksum is right");
        }
    }
    scene.close_all();
}
