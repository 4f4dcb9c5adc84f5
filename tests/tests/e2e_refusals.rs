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
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
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
    let outcome = penstock(&["check", &none]);
    assert!(outcome.code != Some(0) && outcome.stderr.contains("none.toml"), "{outcome:?}");
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
    assert_one_sentence(&outcome, 1, &["CAP_"]);
    assert!(!host.run("ip -d link show lan0").contains("xdp"), "nothing is left behind");
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
    let site = Site::new("show", Plan { queues: 2, workers: 1, ..Plan::default() });
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
