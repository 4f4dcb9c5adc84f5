//! What `penstock` says when it cannot: one sentence, and a status.
#![forbid(unsafe_code)]

use integration::penstock::{binary, penstock};
use integration::program::Outcome;
use integration::site::{CLIENT, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Lab, LinkOptions, Site, require};
use std::path::Path;

#[track_caller]
fn assert_one_sentence(outcome: &Outcome, status: i32, names: &[&str]) {
    assert_eq!(outcome.code, Some(status), "{outcome:?}");
    let said: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("penstock: ")).collect();
    let [sentence] = said.as_slice() else { panic!("not one sentence: {outcome:?}") };
    for name in names {
        assert!(sentence.contains(name), "{name:?} is not in {sentence:?}");
    }
    assert!(outcome.stderr.trim_end().ends_with(*sentence), "nor one line: {outcome:?}");
    assert!(sentence.matches("os error").count() <= 1, "said twice: {sentence:?}");
}

fn write(lab: &Lab, config: &str) -> String {
    let path = lab.folder().join("gateway.toml");
    std::fs::write(&path, config).expect("the lab's folder is ours");
    path.display().to_string()
}

#[test]
fn a_wrong_file_is_named_with_line_and_legal_values() {
    let lab = Lab::new("wrong");
    let path = write(&lab, "[interface.lan0]\nmode = \"fast\"\n");
    for command in ["check", "run"] {
        let outcome = penstock(&[command, &path]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        for part in ["gateway.toml:2", "fast", "zero-copy", "generic"] {
            assert!(outcome.stderr.contains(part), "{command}: no {part:?} in {}", outcome.stderr);
        }
    }
}

#[test]
fn a_missing_file_and_a_missing_gateway_are_named() {
    let lab = Lab::new("missing");
    let none = lab.folder().join("none.toml").display().to_string();
    for command in ["check", "run", "replay"] {
        assert_one_sentence(&penstock(&[command, &none]), 2, &["none.toml", "cannot be read", "No such file"]);
    }
    let socket = lab.folder().join("none.sock").display().to_string();
    let outcome = penstock(&["show", "interfaces", "--control", &socket]);
    assert_one_sentence(&outcome, 1, &["none.sock"]);
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    require!();
    let lab = Lab::new("absent");
    let host = lab.host("gateway");
    let path = write(&lab, "[interface.nosuch0]\n");
    let outcome = host.start(&format!("{} run {path}", binary().display())).outcome();
    assert_one_sentence(&outcome, 1, &["nosuch0"]);
}

#[test]
fn a_lack_of_privilege_is_named() {
    require!("setpriv");
    let lab = Lab::new("privilege");
    let (host, peer) = (lab.host("gateway"), lab.host("peer"));
    lab.link((&host, "lan0"), (&peer, "eth0"), LinkOptions::default());
    let path = write(&lab, "[interface.lan0]\n");
    let bare = "setpriv --bounding-set=-all --inh-caps=-all --";
    let outcome = host.start(&format!("{bare} {} run {path}", binary().display())).outcome();
    assert_one_sentence(&outcome, 1, &["lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON"]);
    // One of them alone is missed too: without it the verifier would refuse the program, in many lines.
    let most = "setpriv --bounding-set=-perfmon,-sys_admin --inh-caps=-all --";
    let outcome = host.start(&format!("{most} {} run {path}", binary().display())).outcome();
    assert_one_sentence(&outcome, 1, &["needs CAP_NET_ADMIN", "lacks CAP_PERFMON: run it as root"]);
    assert!(!host.run("ip -d link show lan0").contains("xdp"), "nothing is left behind");
}

#[test]
fn an_interface_that_cannot_be_had_is_named_with_the_mend_and_left_as_it_was() {
    require!();
    let lab = Lab::new("cannot");
    let (host, peer) = (lab.host("gateway"), lab.host("peer"));
    lab.link((&host, "lan0"), (&peer, "eth0"), LinkOptions::default());
    let control = lab.folder().join("control.sock");
    let run = |config: &str| {
        let path = write(&lab, &format!("[gateway]\ncontrol = {:?}\n{config}", control.display().to_string()));
        host.start(&format!("{} run {path}", binary().display())).outcome()
    };
    let outcome = run("[interface.lan0]\nmode = \"zero-copy\"\n");
    assert_one_sentence(&outcome, 1, &["lan0", "cannot do zero-copy", "`auto`"]);
    let outcome = run("[interface.lan0]\n[interface.\"lan0.7\"]\nparent = \"lan0\"\nvlan = 7\n");
    assert_one_sentence(&outcome, 1, &["lan0.7", "ip link add link lan0 name lan0.7 type vlan id 7"]);
    let mend = "set `[gateway] metrics` to an address of this host and a port that is free";
    let outcome = run("metrics = \"192.0.2.77:9473\"\n[interface.lan0]\n");
    assert_one_sentence(&outcome, 1, &["metrics 192.0.2.77:9473", "Cannot assign requested address", mend]);
    let taken = host.within(|| std::net::TcpListener::bind("127.0.0.1:9473").expect("nobody else is here"));
    let outcome = run("metrics = \"127.0.0.1:9473\"\n[interface.lan0]\n");
    assert_one_sentence(&outcome, 1, &["metrics 127.0.0.1:9473", "Address already in use", mend]);
    drop(taken);
    // The last that could fail has: what was made before is gone.
    host.run("ip link add site-b type veth peer name other");
    let tunnel = "[tunnel.site-b]\ntype = \"vxlan\"\nvni = 1\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
        address = [\"198.18.0.1/30\"]\n";
    let outcome = run(&format!("[interface.lan0]\n{tunnel}"));
    assert_one_sentence(&outcome, 1, &["site-b", "there is a device of kind veth of that name", "delete it"]);
    let links = host.run("ip -d link show");
    assert!(!links.contains("xdp") && !links.contains("penstock0"), "{links}");
    assert!(!control.exists());

    std::fs::write(&control, "precious").expect("the lab's folder is ours");
    assert_one_sentence(&run("[interface.lan0]\n"), 1, &["control.sock", "no socket", "[gateway] control"]);
    assert_eq!(std::fs::read(&control).expect("it is left alone"), b"precious");
    std::fs::remove_file(&control).expect("ours");
    host.run("ip link add br0 type bridge");
    host.run("ip link set lan0 master br0");
    assert_one_sentence(&run("[interface.lan0]\n"), 1, &["lan0 is a port of br0", "take it out"]);
}

#[test]
fn a_capture_is_not_written_over() {
    let lab = Lab::new("captures");
    let config = "[interface.lan0]\nmac = \"02:00:00:00:00:01\"\n[interface.wan0]\nmac = \"02:00:00:00:00:02\"\n";
    let path = write(&lab, config);
    let file = |port: &str, name: &str| format!("{port}={}", lab.folder().join(name).display());
    let replay = |arguments: &[&str]| penstock(&[&["replay", &path], arguments].concat());

    let outcome = replay(&["--in", &file("lan0", "in.pcap")]);
    assert_one_sentence(&outcome, 1, &["in.pcap", "No such file"]);
    let two = [file("lan0", "out.pcap"), file("wan0", "out.pcap")];
    let outcome = replay(&["--out", &two[0], "--out", &two[1]]);
    assert_one_sentence(&outcome, 2, &["out.pcap", "wan0", "a file of its own"]);
    let outcome = replay(&["--out", &file("lan0", "out.pcap"), "--out", "wan0=/dev/null"]);
    assert!(outcome.success, "{outcome:?}");
    let outcome = replay(&["--in", &two[0], "--out", &two[1]]);
    assert_one_sentence(&outcome, 2, &["out.pcap", "wan0", "a file of its own"]);
}

/// By its control socket, and if that is another, by what only one can have.
#[test]
fn a_second_gateway_is_refused_and_the_first_goes_on() {
    require!();
    let site = Site::new("second", Plan::default());
    let gateway = site.start();
    let with_control = |path: &Path| {
        let control = format!("[gateway]\ncontrol = {:?}", path.display().to_string());
        write(&site.lab, &site.config().replacen("[gateway]", &control, 1))
    };
    let start = |path: &str| site.gateway.start(&format!("{} run {path}", binary().display())).outcome();

    let outcome = start(&with_control(gateway.control()));
    assert_one_sentence(&outcome, 1, &[&gateway.control().display().to_string(), "another gateway is running"]);
    let outcome = start(&with_control(&site.lab.folder().join("second.sock")));
    assert_one_sentence(&outcome, 1, &[TUNNEL, "in use by another program", "Penstock running already"]);
    assert!(!site.lab.folder().join("second.sock").exists());

    assert!(site.client.pings(SERVER[0], 56, ""));
    gateway.assert_balance();
}

#[test]
fn the_start_says_what_each_interface_is_and_show_agrees() {
    require!();
    let site = Site::new("show", Plan { lan_queues: 2, wan_queues: 2, workers: 1, ..Plan::default() });
    let gateway = site.start();
    let log = gateway.log();
    for name in ["lan0", "wan0"] {
        let lines = log.lines().filter(|line| line.contains(name)).count();
        assert_eq!(lines, 1, "one line for {name}: {log}");
    }
    for (topic, name) in [
        ("interfaces", "lan0"),
        ("interfaces", "wan0"),
        ("tunnels", TUNNEL),
        ("routes", "198.18.2.0/24"),
        ("neighbours", "192.0.2.254"),
        ("neighbours", CLIENT[0]),
    ] {
        let shown = gateway.show(topic);
        assert!(shown.to_string().contains(name), "no {name} among the {topic}: {shown}");
    }
    transfer(&site.client, &site.server, site.servers()[0], 64 * 1024);
    gateway.assert_balance();
}

/// Every file that is shipped is legal.
#[test]
fn every_shipped_configuration_passes_the_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        // A list of prefixes is read with the file that names it.
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let outcome = penstock(&["check", &path.display().to_string()]);
        assert!(outcome.success, "{}: {}", path.display(), outcome.stderr);
        count += 1;
    }
    assert_ne!(count, 0);
}
