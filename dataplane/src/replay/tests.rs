use super::*;
use crate::packet::DropReason;
use crate::testing::{CLIENT_MAC, CLIENT_V4, FAR_V4, LAN_MAC, ROUTER_MAC, WAN_MAC, framed, written};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use std::path::Path;

const FILE: &str = r#"
    [interface.lan0]
    mac = "02:00:00:00:00:01"
    address = ["203.0.113.1/24"]
    [interface.wan0]
    mac = "02:00:00:00:00:02"
    address = ["192.0.2.1/24"]
    [interface."wan0.110"]
    parent = "wan0"
    vlan = 110
    [interface.bare0]
    [tunnel.with-device]
    type = "vxlan"
    vni = 1
    local = "192.0.2.1"
    remote = "192.0.2.254"
    address = ["169.254.10.2/30"]
    [tunnel.without]
    type = "vxlan"
    vni = 2
    local = "192.0.2.1"
    remote = "192.0.2.254"
    remote_mac = "02:00:00:00:02:01"
    [[route]]
    prefix = "198.51.100.0/24"
    via = [{ next_hop = "192.0.2.254" }]
    [[neighbour]]
    interface = "wan0"
    address = "192.0.2.254"
    mac = "02:00:00:00:01:fe"
    [[neighbour]]
    interface = "lan0"
    address = "203.0.113.9"
    mac = "02:00:00:00:01:09"
"#;

fn config() -> Config {
    FILE.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// A folder of the test's own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-replay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("there is room for a few captures");
        Self(path)
    }

    fn at(&self, port: &str, file: &str) -> PortFile {
        PortFile { port: port.into(), path: self.0.join(file) }
    }

    /// A capture of frames, each with the time at which it came.
    fn capture(&self, port: &str, file: &str, frames: &[(u64, Vec<u8>)]) -> PortFile {
        let made = self.at(port, file);
        let mut out = PcapOut::create(&made.path).expect("the folder is ours");
        for (at, octets) in frames {
            out.write(Time(*at), octets).expect("the folder is ours");
        }
        out.finish().expect("the folder is ours");
        made
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// When each frame left, and the payload of its UDP.
fn read(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut capture = PcapIn::open(path, Capture::Ethernet).expect("it was written");
    let records = std::iter::from_fn(|| capture.read().expect("whole frames"));
    records
        .map(|record| {
            let sliced = SlicedPacket::from_ethernet(&record.octets).expect("a good frame");
            let payload = match &sliced.transport {
                Some(TransportSlice::Udp(udp)) => udp.payload().to_vec(),
                _ => b"icmp".to_vec(),
            };
            (record.at.0, payload)
        })
        .collect()
}

/// From the client through the gateway to somebody.
fn to(destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    framed(LAN_MAC, CLIENT_MAC, &written(PacketBuilder::ipv4(CLIENT_V4, destination, 64).udp(1, 2), payload))
}

/// From behind the router to the client.
fn back(payload: &[u8]) -> Vec<u8> {
    framed(WAN_MAC, ROUTER_MAC, &written(PacketBuilder::ipv4(FAR_V4, CLIENT_V4, 64).udp(1, 2), payload))
}

/// Captures start in 2001: nothing may depend on a start at zero.
const START: u64 = 1_000_000_000 * Time::SECOND;

#[test]
fn a_port_and_its_file_are_written_with_a_sign_between() {
    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let parsed = text.parse::<PortFile>();
        let expected = expected.map(|(port, path)| PortFile { port: port.into(), path: path.into() });
        assert_eq!(parsed.as_ref().ok(), expected.as_ref(), "{text}");
        assert!(parsed.is_ok() || parsed.is_err_and(|error| error.is_usage()), "{text}");
    }
    check("lan0=in.pcap", Some(("lan0", "in.pcap")));
    check("wan0.110=a=b.pcap", Some(("wan0.110", "a=b.pcap")));
    for wrong in ["", "lan0", "=in.pcap", "lan0=", "="] {
        check(wrong, None);
    }
}

#[test]
fn names_that_are_no_ports_are_refused_with_those_that_are() {
    #[track_caller]
    fn check(input: &str, output: &str, names: &[&str]) {
        let folder = Folder::new("names");
        let inputs: Vec<_> = [input].iter().filter(|i| !i.is_empty()).map(|i| folder.capture(i, "in", &[])).collect();
        let ports = output.split_whitespace().enumerate();
        let outputs: Vec<_> = ports.map(|(at, port)| folder.at(port, &format!("out-{at}"))).collect();
        match replay(&config(), &inputs, &outputs) {
            Ok(_) => assert!(names.is_empty(), "{input} {output} was taken"),
            Err(error) => {
                assert!(error.is_usage(), "{error}");
                let said = error.to_string();
                assert!(!names.is_empty() && names.iter().all(|name| said.contains(name)), "{said}");
            }
        }
    }
    check("lan0", "wan0 lan0", &[]);
    check("with-device", "", &[]);
    check("nosuch0", "", &["nosuch0", "lan0", "wan0", "bare0"]);
    check("", "nosuch0", &["nosuch0", "lan0, wan0, bare0"]);
    // A VLAN's frames come and go by its parent.
    check("wan0.110", "", &["wan0.110", "parent"]);
    check("", "wan0.110", &["wan0.110", "parent"]);
    // A tunnel without a device has nothing to feed.
    check("without", "", &["without"]);
    check("", "with-device", &["with-device"]);
    check("", "wan0 wan0", &["wan0", "two files"]);
    check("bare0", "", &["bare0", "mac"]);
}

#[test]
fn a_capture_that_cannot_be_read_is_no_wrong_usage() {
    let folder = Folder::new("unreadable");
    let missing = replay(&config(), &[folder.at("lan0", "none.pcap")], &[]);
    assert!(matches!(missing, Err(ReplayError::Capture(CaptureError::Io { .. }))), "{missing:?}");
    std::fs::write(folder.0.join("text"), "this is not a capture of anything").expect("the folder is ours");
    let text = replay(&config(), &[folder.at("lan0", "text")], &[]);
    assert!(matches!(text, Err(ReplayError::Capture(CaptureError::NotPcap { .. }))), "{text:?}");
    let cut = folder.capture("lan0", "cut", &[(START, to(FAR_V4, b"whole")), (START, to(FAR_V4, b"cut"))]);
    let octets = std::fs::read(&cut.path).expect("it was written");
    std::fs::write(&cut.path, &octets[..octets.len() - 1]).expect("the folder is ours");
    let cut = replay(&config(), &[cut], &[]);
    assert!(matches!(cut, Err(ReplayError::Capture(CaptureError::Damaged { number: 2, .. }))), "{cut:?}");
    for error in [missing, text, cut] {
        assert!(!error.expect_err("each is an error").is_usage());
    }
}

#[test]
fn captures_merge_by_time_and_ties_keep_the_commands_order() {
    let folder = Folder::new("merge");
    let first = folder.capture("lan0", "1", &[(START + 10, to(FAR_V4, b"b")), (START + 30, to(FAR_V4, b"e"))]);
    let second = folder.capture("wan0", "2", &[(START + 20, back(b"x"))]);
    let third = folder.capture("lan0", "3", &[(START, to(FAR_V4, b"a")), (START + 10, to(FAR_V4, b"c"))]);
    let outputs = [folder.at("wan0", "out-wan0"), folder.at("lan0", "out-lan0")];
    let balance = replay(&config(), &[first.clone(), second.clone(), third.clone()], &outputs).expect("it runs");
    let left = |letters: &[(u64, &str)]| -> Vec<_> {
        letters.iter().map(|(at, payload)| (START + at, payload.as_bytes().to_vec())).collect()
    };
    assert_eq!(read(&outputs[0].path), left(&[(0, "a"), (10, "b"), (10, "c"), (30, "e")]));
    assert_eq!(read(&outputs[1].path), left(&[(20, "x")]));
    assert_eq!((balance.received, balance.forwarded), (5, 5));
    // The other way round in the command: the tie goes the other way.
    replay(&config(), &[third, second, first], &outputs).expect("it runs");
    assert_eq!(read(&outputs[0].path), left(&[(0, "a"), (10, "c"), (10, "b"), (30, "e")]));
}

#[test]
fn what_waits_is_due_in_virtual_time_and_the_end_waits_for_it() {
    let folder = Folder::new("time");
    // A stranger on the WAN; and, three seconds later, a packet that has nothing to do with it.
    let frames = [(START, to([192, 0, 2, 99], b"s")), (START + 3 * Time::SECOND, to(FAR_V4, b"late"))];
    let outputs = [folder.at("lan0", "out-lan0"), folder.at("wan0", "out-wan0")];
    let balance = replay(&config(), &[folder.capture("lan0", "in", &frames)], &outputs).expect("it runs");
    assert_eq!(read(&outputs[0].path), [(START + Time::SECOND, b"icmp".to_vec())], "when its second was over");
    assert_eq!(read(&outputs[1].path), [(START + 3 * Time::SECOND, b"late".to_vec())]);
    let lost = BTreeMap::from([(DropReason::NeighbourUnresolved.name(), 1)]);
    let expected =
        Balance { received: 2, originated: 1, forwarded: 2, punted: 0, absorbed: 0, queued: 0, dropped: lost };
    assert_eq!(balance, expected);
    // As the last frame: time runs on.
    let alone = replay(&config(), &[folder.capture("lan0", "in", &frames[..1])], &outputs).expect("it runs");
    assert_eq!((alone.queued, alone.dropped), (0, balance.dropped));
    assert_eq!(read(&outputs[0].path).len(), 1);
    assert_eq!(read(&outputs[1].path), [], "written, though empty");
}

#[test]
fn a_port_without_a_file_sends_into_nothing_and_what_steering_passes_is_punted() {
    let folder = Folder::new("nothing");
    let arp = [&[0xff; 6][..], &CLIENT_MAC, &[8, 6], &[0; 28]].concat();
    let frames = [(START, to(FAR_V4, b"x")), (START, arp), (START, to([203, 0, 113, 1], b"to the host"))];
    let balance = replay(&config(), &[folder.capture("lan0", "in", &frames)], &[]).expect("it runs");
    assert_eq!((balance.received, balance.forwarded, balance.punted, balance.dropped.len()), (3, 1, 2, 0));
}

#[test]
fn a_tunnels_device_is_fed_with_frames_as_the_device_would() {
    let folder = Folder::new("device");
    let ip = written(PacketBuilder::ipv4([169, 254, 10, 2], [169, 254, 10, 1], 1).udp(1, 2), b"bfd");
    let input = folder.capture("with-device", "in", &[(START, framed(CLIENT_MAC, ROUTER_MAC, &ip))]);
    let output = folder.at("wan0", "out");
    let balance = replay(&config(), &[input], std::slice::from_ref(&output)).expect("it runs");
    assert_eq!((balance.received, balance.forwarded), (1, 1), "{balance}");
    let [(_, payload)] = &read(&output.path)[..] else { panic!("one packet") };
    assert!(payload.ends_with(&ip), "TTL and all");
}

#[test]
fn the_balance_is_printed_in_words_and_in_json() {
    let balance = Balance {
        received: 5,
        originated: 1,
        forwarded: 3,
        punted: 1,
        absorbed: 0,
        queued: 0,
        dropped: BTreeMap::from([("no_route", 1), ("ttl_expired", 1)]),
    };
    let text = balance.to_string();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["received", "5"]);
    assert_eq!(rows[6..], [["dropped", "2"], ["no_route", "1"], ["ttl_expired", "1"]]);
    let json = serde_json::to_string(&balance).expect("plain numbers");
    let expected = r#"{"received":5,"originated":1,"forwarded":3,"punted":1,"absorbed":0,"queued":0,"dropped":{"no_route":1,"ttl_expired":1}}"#;
    assert_eq!(json, expected);
}
