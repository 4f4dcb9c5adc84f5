//! What tshark, which shares nothing with Penstock, makes of captured frames.

use crate::pcap::{Frame, encode};
use std::path::Path;
use std::process::Command;

/// What is wrong with a frame: of checksums status 0 is bad.
const WRONG: &str = "(ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0 || \
                     icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || gre.checksum.status == 0 || _ws.malformed)";

/// Asks about each frame for the values of fields. Of a field that occurs several times, as headers in a tunnel do, all
/// values are there, from the outside in and with commas between. The first field answers whether anything is wrong:
/// malformed, or with a bad checksum.
///
/// # Panics
///
/// If tshark fails, or says something else than one line a frame.
#[track_caller]
pub fn dissect(folder: &Path, frames: &[Frame], fields: &[&str]) -> Vec<Vec<String>> {
    let path = folder.join("dissect.pcap");
    std::fs::write(&path, encode(frames)).expect("the lab's folder is ours");
    let wrong = ask(&path, &["-Y", WRONG, "-T", "fields", "-e", "frame.number"]);
    let wrong: Vec<usize> = wrong.lines().map(|line| line.parse().expect("a number")).collect();
    let mut arguments = vec!["-T", "fields"];
    for field in fields {
        arguments.extend(["-e", field]);
    }
    let rows = ask(&path, &arguments);
    let rows = rows.lines().enumerate().map(|(at, line)| {
        let wrong = wrong.contains(&(at + 1)).to_string();
        std::iter::once(wrong).chain(line.split('\t').map(str::to_owned)).collect()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    assert_eq!(rows.len(), frames.len());
    rows
}

#[track_caller]
fn ask(path: &Path, arguments: &[&str]) -> String {
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    let output = tshark.arg("-n").arg("-r").arg(path).args(arguments).output().expect("it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("fields are text")
}
