//! What a running gateway may still do, and that it is enough.
#![forbid(unsafe_code)]

use integration::penstock::binary;
use integration::site::{PATIENCE, Plan, SERVER, TUNNEL};
use integration::traffic::transfer;
use integration::{Penstock, Site, require, until};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const BPF: u64 = 1 << 39;

/// A numbered line of a thread's `status` in /proc; sets of capabilities are hexadecimal.
fn number(status: &str, name: &str) -> u64 {
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let text = lines.next().unwrap_or_else(|| panic!("no {name} in {status}"));
    u64::from_str_radix(text.trim(), 16).expect("it is a number")
}

/// The `status` of each thread of a gateway, by the thread's name.
fn threads(gateway: &Penstock) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).expect("it runs");
    let read = |folder: &Path, file: &str| std::fs::read_to_string(folder.join(file)).expect("the thread runs");
    let folders = tasks.map(|task| task.expect("/proc can be read").path());
    folders.map(|task| (read(&task, "comm").trim().to_owned(), read(&task, "status"))).collect()
}

#[track_caller]
fn assert_least_privilege(gateway: &Penstock, workers: usize) {
    let threads = threads(gateway);
    assert_eq!(threads.len(), workers + 1, "{:?}", threads.keys());
    for (name, status) in &threads {
        let needed = if name.starts_with("worker-") { 0 } else { NET_ADMIN | NET_RAW | IPC_LOCK | BPF };
        for (set, expected) in [("CapEff", needed), ("CapPrm", needed), ("CapInh", 0), ("CapAmb", 0), ("NoNewPrivs", 1)]
        {
            assert_eq!(number(status, set), expected, "{set} of {name}");
        }
    }
}

#[test]
fn workers_may_nothing_and_control_what_it_needs() {
    require!();
    let site = Site::new("caps", Plan { lan_queues: 2, wan_queues: 2, workers: 2, ..Plan::default() });
    let gateway = site.start();
    assert_least_privilege(&gateway, 2);
    for (name, status) in threads(&gateway) {
        assert_eq!(number(&status, "CapBnd"), 0, "{name}");
    }
    // All that needs a privilege while it runs: another XDP program, other sockets, memory registered again.
    site.gateway.run("ip link del lan0");
    site.link_lan();
    until("the new interface forwards", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    transfer(&site.client, &site.server, site.servers()[0], 256 * 1024);
    assert_least_privilege(&gateway, 2);
    gateway.assert_balance();
}

fn has_offload(site: &Site, interface: &str, offload: &str) -> bool {
    let shown = site.gateway.run(&format!("ethtool -k {interface}"));
    let mut lines = shown.lines().filter_map(|line| line.strip_prefix(offload)?.strip_prefix(": "));
    lines.next().unwrap_or_else(|| panic!("no {offload} in {shown}")).starts_with("on")
}

/// In generic mode, so that there are offloads to restore.
#[test]
fn what_is_left_suffices_to_take_everything_back() {
    require!("ethtool");
    let site = Site::new("back", Plan::default());
    site.gateway.run("ethtool -K lan0 gro on");
    let config = site.config().replace("[interface.lan0]", "[interface.lan0]\nmode = \"generic\"");
    let mut gateway = Penstock::start(&site.gateway, &config);
    until("the tunnel works", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    transfer(&site.client, &site.server, site.servers()[0], 256 * 1024);
    assert_least_privilege(&gateway, 1);
    assert!(gateway.log().contains("lan0: generic XDP"), "{}", gateway.log());
    assert!(!has_offload(&site, "lan0", "generic-receive-offload"));
    let exported = || site.gateway.run("ip route show proto 80") + &site.gateway.run("ip -6 route show proto 80");
    assert!(exported().contains("198.18.2.0/24"), "{}", exported());

    gateway.stop();
    assert!(has_offload(&site, "lan0", "generic-receive-offload"));
    assert_eq!(exported(), "");
    let links = site.gateway.run("ip -d link show");
    for left in ["xdp", TUNNEL, "penstock0"] {
        assert!(!links.contains(left), "{left} is left: {links}");
    }
    assert!(!gateway.log().contains("stopping: "), "{}", gateway.log());
}

/// As a systemd unit with `User=` and `AmbientCapabilities=` does.
#[test]
fn an_ordinary_user_with_a_few_capabilities_forwards() {
    require!("setpriv", "unshare");
    let site = Site::new("user", Plan::default());
    let folder = site.lab.folder();
    // Both where anybody may go: the binary to be executed, the folder to make the control socket in.
    let penstock = folder.join("penstock");
    std::fs::copy(binary(), &penstock).expect("the lab's folder is ours");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("the lab's folder is ours");
    // A device file that everybody may open, as udev makes it, whatever this machine has.
    let script = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec setpriv \
        --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,$CAPS --ambient-caps=-all,$CAPS -- \"$@\"";
    let script = script.replace("$CAPS", "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock");
    let mut launcher: Vec<OsString> = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(OsString::from).into();
    launcher.push(penstock.into());

    let mut gateway = Penstock::start_by(launcher, &site.gateway, &site.config());
    until("the tunnel works", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    assert_least_privilege(&gateway, 1);
    site.gateway.run("ip link del lan0");
    site.link_lan();
    until("an interface that was made again forwards", PATIENCE, || site.client.pings(SERVER[0], 56, ""));
    gateway.assert_balance();
    gateway.stop();
    assert!(!gateway.log().contains("stopping: "), "{}", gateway.log());
    assert!(!site.gateway.run("ip -d link show").contains("xdp"));
}
