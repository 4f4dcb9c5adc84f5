use super::pins::is_bpffs;
use super::*;
use aya::programs::TestRun;
use aya::{TestRunAttrs, TestRunOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use steering::samples::{self, ROW, VLAN_ROW};
use steering::tables::{INTERFACES, Ingress, InterfaceFlags};
use steering::verdict::{UNSERVED_DROPPED, UNSERVED_TO_KERNEL};
use steering::{Verdict, WorkerReason};
use wire::{EtherType, Mac};
use zerocopy::IntoBytes;

const ABORTED: u32 = 0;
const DROP: u32 = 1;
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

/// The loopback device, which a test run takes its frames to come from.
const LOOPBACK: u32 = 1;

/// A loaded program, its links pinned in a BPF file system of the test's own; `None`: no privilege.
fn load(bpffs: &Bpffs) -> Option<Xdp> {
    match Xdp::load_in(&bpffs.0, "test") {
        Err(XdpError::Privilege { .. }) if std::env::var_os("PENSTOCK_NO_SKIP").is_none() => {
            println!("skipped: needs CAP_NET_ADMIN");
            None
        }
        other => Some(other.expect("the committed object loads")),
    }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Bpffs(PathBuf);

impl Bpffs {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("penstock-xdp-{}", unique()));
        fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if is_bpffs(&self.0) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// A network namespace of its own with two ends of a veth pair, `v0` and `v1`, both up.
struct Lab(String);

impl Lab {
    fn new() -> Self {
        let lab = Self(format!("px-{}", unique()));
        run(&format!("ip netns add {}", lab.0));
        lab.ip("link set lo up");
        lab.ip("link add name v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:50");
        // Otherwise the kernel's own router solicitations would be counted too.
        lab.ip("link set v0 addrgenmode none");
        lab.ip("link set v1 addrgenmode none");
        lab.ip("link set v0 up");
        lab.ip("link set v1 up");
        lab
    }

    fn ip(&self, command: &str) -> String {
        run(&format!("ip -n {} {command}", self.0))
    }

    /// Runs a test inside: namespaces belong to threads.
    fn inside<T: Send>(&self, test: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = fs::File::open(format!("/run/netns/{}", self.0)).expect("`ip netns add` made it");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are privileged");
                test()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn index(&self, device: &str) -> u32 {
        let line = self.ip(&format!("-o link show dev {device}"));
        line.split(':').next().and_then(|number| number.trim().parse().ok()).expect("`ip` prints the index first")
    }

    /// Waits until no program is on a device: the kernel lets go of a link behind our back.
    fn lets_go_of(&self, device: &str) -> bool {
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.runs_xdp(device) && Instant::now() < give_up {
            thread::yield_now();
        }
        !self.runs_xdp(device)
    }

    fn runs_xdp(&self, device: &str) -> bool {
        self.ip(&format!("link show dev {device}")).contains("prog/xdp")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.0));
    }
}

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect("iproute2 is installed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("`ip` prints text")
}

fn native(index: u32, outlives: bool) -> Device<'static> {
    Device { index, name: "v0", mode: Mode::Native, outlives }
}

/// Pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % below as u64) as usize
    }
}

fn test_run(xdp: &mut Xdp, frame: &[u8]) -> u32 {
    let options = TestRunOptions { data_in: Some(frame), ..Default::default() };
    program(&mut xdp.ebpf).expect("it is loaded").test_run(options).expect("test runs work").return_value
}

/// What the library decides about a frame, from an even address as in a driver's buffer.
fn decide(tables: &HostTables, frame: &[u8]) -> (Verdict, Option<Interface>) {
    let mut even = vec![0u16; frame.len().div_ceil(2)];
    let octets = even.as_mut_slice().as_mut_bytes();
    octets[..frame.len()].copy_from_slice(frame);
    let host = tables.at(LOOPBACK);
    let decision = steering::steer(&octets[..frame.len()], &host);
    (decision.verdict, decision.interface.copied())
}

/// The same frame through the program in the kernel and through the library: same counter, same fate.
#[track_caller]
fn compare(xdp: &mut Xdp, tables: &HostTables, what: &str, frame: &[u8]) {
    // The kernel runs nothing on less than an Ethernet header.
    if frame.len() < 14 {
        return;
    }
    let rows = |xdp: &Xdp| [ROW, VLAN_ROW].map(|row| xdp.counters(row).expect("the row exists"));
    let before = rows(xdp);
    let action = test_run(xdp, frame);
    let after = rows(xdp);

    let (verdict, interface) = decide(tables, frame);
    let mut expected = before;
    let mut expected_action = PASS;
    if let Some(interface) = interface {
        let row = &mut expected[usize::from(interface.counters == VLAN_ROW)];
        row[usize::from(verdict.code())] += 1;
        if let Verdict::Worker(_) = verdict {
            let drop = interface.flags.has(InterfaceFlags::FALLBACK_DROP);
            row[usize::from(if drop { UNSERVED_DROPPED } else { UNSERVED_TO_KERNEL })] += 1;
            expected_action = if drop { DROP } else { PASS };
        }
    }
    assert!(after == expected && action == expected_action, "{what}: library says {verdict:?}; {frame:02x?}");
}

#[test]
fn the_program_decides_as_the_library_on_every_sample_cut_anywhere() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let tables = samples::tables(LOOPBACK);
    xdp.apply(&tables).expect("there is room");
    for sample in samples::frames() {
        assert_eq!(decide(&tables, &sample.frame).0, sample.verdict, "{}", sample.what);
        for length in 0..=sample.frame.len() {
            compare(&mut xdp, &tables, sample.what, &sample.frame[..length]);
        }
    }
}

#[test]
fn the_program_decides_as_the_library_on_spoilt_and_random_frames() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let tables = samples::tables(LOOPBACK);
    xdp.apply(&tables).expect("there is room");
    let samples = samples::frames();
    let mut random = Random(1);
    for round in 0..4000 {
        let mut frame = samples[random.next(samples.len())].frame.clone();
        for _ in 0..=random.next(3) {
            // Mostly in the headers, and mostly values that mean something there.
            if !frame.is_empty() {
                let at = random.next(frame.len().min(90));
                frame[at] = [0, 1, 6, 17, 44, 60, 0x45, 0x60, 0xff, random.next(256) as u8][random.next(10)];
            }
        }
        compare(&mut xdp, &tables, &format!("spoilt frame {round}"), &frame);
        let frame: Vec<u8> = (0..14 + random.next(100)).map(|_| random.next(256) as u8).collect();
        compare(&mut xdp, &tables, &format!("random frame {round}"), &frame);
    }
}

#[test]
fn everything_passes_before_the_tables_are_applied() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    for sample in samples::frames().iter().filter(|sample| sample.frame.len() >= 14) {
        assert_eq!(test_run(&mut xdp, &sample.frame), PASS, "{}", sample.what);
    }
}

#[test]
fn what_has_no_place_is_refused_by_name() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let interface = Interface { mac: samples::MAC, port: 0, counters: 0, flags: InterfaceFlags::default(), vrf: 0 };
    let mut tables = HostTables::new();
    tables.interface(Ingress { device: 1, vlan: 0 }, Interface { port: 64, ..interface });
    assert_eq!(xdp.apply(&tables).expect_err("no such port").to_string(), "port 64: it must be below 64");

    let mut tables = HostTables::new();
    for device in 0..=INTERFACES {
        tables.interface(Ingress { device, vlan: 0 }, interface);
    }
    let error = xdp.apply(&tables).expect_err("one too many");
    assert_eq!(error.to_string(), "more than 1024 interfaces: that is what the XDP program has room for");

    let file = fs::File::open("/dev/null").expect("every system has it");
    assert!(matches!(xdp.set_socket(0, 0, file.as_fd()), Err(XdpError::Map { what: "sockets", .. })));
    assert!(matches!(xdp.set_socket(0, 256, file.as_fd()), Err(XdpError::Range { what: "receive queue", .. })));
    assert!(matches!(xdp.counters(256), Err(XdpError::Range { .. })));
    xdp.clear_socket(0, 0).expect("nothing was there, nothing is");
}

/// What the kernel was handed of a transit packet, and how the program counted it.
fn transit(flags: InterfaceFlags) -> Option<(u64, [u64; CODES])> {
    let bpffs = Bpffs::new();
    let mut xdp = load(&bpffs)?;
    let (here, there) = (Lab::new(), Lab::new());
    there.ip("link del v0");
    here.ip(&format!("link set v1 netns {}", there.0));
    here.ip("addr add 192.0.2.1/24 dev v0");
    for command in [
        "link set v1 addrgenmode none",
        "addr add 192.0.2.77/24 dev v1",
        "link set v1 up",
        "neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev v1",
        "route add 203.0.113.0/24 via 192.0.2.1",
    ] {
        there.ip(command);
    }
    let index = here.index("v0");
    let interface = Interface { mac: samples::MAC, port: 3, counters: ROW, flags, vrf: 0 };
    let mut tables = HostTables::new();
    tables.interface(Ingress { device: index, vlan: 0 }, interface);
    xdp.apply(&tables).expect("there is room");
    here.inside(|| {
        let received = || {
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts");
            let values = snmp.lines().filter(|line| line.starts_with("Ip:")).nth(1).expect("names, then values");
            values.split_whitespace().nth(3).and_then(|n| n.parse::<u64>().ok()).expect("InReceives is third")
        };
        xdp.attach(native(index, false)).expect("veth has native XDP");
        let before = received();
        there.inside(|| {
            let socket = UdpSocket::bind("192.0.2.77:0").expect("it is our address");
            socket.send_to(&[0; 64], "203.0.113.50:9").expect("there is a route");
        });
        let worker = usize::from(Verdict::Worker(WorkerReason::Forward).code());
        let give_up = Instant::now() + Duration::from_secs(10);
        let counters = loop {
            let counters = xdp.counters(ROW).expect("the row exists");
            if counters[worker] > 0 || Instant::now() > give_up {
                break counters;
            }
            thread::yield_now();
        };
        // A frame that was sent later and is surely for the kernel: when it is there, the first has been dealt with.
        let after = loop {
            let after = received();
            if after > before || counters[usize::from(UNSERVED_DROPPED)] > 0 || Instant::now() > give_up {
                break after;
            }
            thread::yield_now();
        };
        Some((after - before, counters))
    })
}

#[test]
fn without_a_socket_the_kernel_has_what_falls_back_to_it() {
    let Some((received, counters)) = transit(InterfaceFlags::default()) else { return };
    assert_eq!(received, 1);
    assert_eq!(counters[usize::from(UNSERVED_TO_KERNEL)], 1);
    assert_eq!(counters.iter().sum::<u64>(), 2, "the verdict and the fallback: {counters:?}");
}

#[test]
fn without_a_socket_what_falls_back_to_drop_never_reaches_the_kernel() {
    let Some((received, counters)) = transit(InterfaceFlags::FALLBACK_DROP) else { return };
    assert_eq!(received, 0);
    assert_eq!(counters[usize::from(UNSERVED_DROPPED)], 1);
    assert_eq!(counters.iter().sum::<u64>(), 2, "the verdict and the fallback: {counters:?}");
}

#[test]
fn a_link_that_outlives_its_process_is_taken_over_by_the_next() {
    let bpffs = Bpffs::new();
    if load(&bpffs).is_none() {
        return;
    }
    let lab = Lab::new();
    let index = lab.index("v0");
    let id = |xdp: &Xdp| xdp.links[&index].link.info().expect("it is a link").id();
    lab.inside(|| {
        // The folder is named after the namespace, so each is loaded inside.
        let mut first = load(&bpffs).expect("it was possible before");
        assert_eq!(
            first.attach(native(index, true)).expect("nothing is there"),
            Attached { replaced: false, outlives: true }
        );
        let link = id(&first);
        drop(first);
        assert!(lab.runs_xdp("v0"), "it stays");

        let mut second = load(&bpffs).expect("it was possible before");
        let attached = second.attach(native(index, true)).expect("our own link is no obstacle");
        assert_eq!(attached, Attached { replaced: true, outlives: true });
        assert_eq!(id(&second), link, "the link is the same all the time: only what it runs has changed");
        second.adopted().expect("there is nothing else");
        assert!(lab.runs_xdp("v0"));
        second.stop().expect("it can be taken off");
        assert!(lab.lets_go_of("v0"), "a clean end leaves nothing");
        assert!(!bpffs.0.join("penstock").exists(), "not even a folder");
    });
}

#[test]
fn a_link_that_does_not_outlive_goes_with_its_process() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let lab = Lab::new();
    let index = lab.index("v0");
    lab.inside(|| xdp.attach(native(index, false))).expect("nothing is there");
    assert!(lab.runs_xdp("v0"));
    drop(xdp);
    assert!(lab.lets_go_of("v0"));
}

#[test]
fn what_is_left_on_a_device_that_is_no_longer_ours_is_taken_off() {
    let bpffs = Bpffs::new();
    if load(&bpffs).is_none() {
        return;
    }
    let lab = Lab::new();
    let (a, b) = (lab.index("v0"), lab.index("v1"));
    lab.inside(|| {
        let mut first = load(&bpffs).expect("it was possible before");
        first.attach(native(a, true)).expect("nothing is there");
        first.attach(native(b, true)).expect("nothing is there");
        drop(first);
        let mut second = load(&bpffs).expect("it was possible before");
        second.attach(native(a, true)).expect("our own link is no obstacle");
        assert!(lab.runs_xdp("v1"), "until all are attached");
        second.adopted().expect("it can be taken off");
        assert!(lab.runs_xdp("v0") && lab.lets_go_of("v1"));
        second.stop().expect("it can be taken off");
    });
}

#[test]
fn a_device_made_anew_is_attached_anew() {
    let bpffs = Bpffs::new();
    if load(&bpffs).is_none() {
        return;
    }
    let lab = Lab::new();
    let index = lab.index("v0");
    lab.inside(|| {
        let mut first = load(&bpffs).expect("it was possible before");
        first.attach(native(index, true)).expect("nothing is there");
        drop(first);
        lab.ip("link del v0");
        lab.ip(&format!("link add name v0 index {index} type veth peer name v1"));
        let mut second = load(&bpffs).expect("it was possible before");
        let attached = second.attach(native(index, true)).expect("the old link is dead");
        assert_eq!(attached, Attached { replaced: false, outlives: true });
        assert!(lab.runs_xdp("v0"));
        second.stop().expect("it can be taken off");
    });
}

#[test]
fn outliving_can_be_asked_for_and_called_off_later() {
    let bpffs = Bpffs::new();
    if load(&bpffs).is_none() {
        return;
    }
    let lab = Lab::new();
    let index = lab.index("v0");
    lab.inside(|| {
        let mut xdp = load(&bpffs).expect("it was possible before");
        xdp.attach(native(index, false)).expect("nothing is there");
        xdp.attach(native(index, true)).expect("it is ours");
        drop(xdp);
        assert!(lab.runs_xdp("v0"));
        let mut xdp = load(&bpffs).expect("it was possible before");
        assert!(xdp.attach(native(index, false)).expect("our own link is no obstacle").replaced);
        drop(xdp);
        assert!(lab.lets_go_of("v0"));
    });
}

#[test]
fn another_mode_takes_the_place_of_what_was_left() {
    let bpffs = Bpffs::new();
    if load(&bpffs).is_none() {
        return;
    }
    let lab = Lab::new();
    let index = lab.index("v0");
    lab.inside(|| {
        let mut first = load(&bpffs).expect("it was possible before");
        first.attach(native(index, true)).expect("nothing is there");
        drop(first);
        let mut second = load(&bpffs).expect("it was possible before");
        let generic = Device { mode: Mode::Generic, ..native(index, true) };
        assert!(!second.attach(generic).expect("the old one is taken off").replaced);
        assert!(lab.ip("link show dev v0").contains("xdpgeneric"));
        second.stop().expect("it can be taken off");
    });
}

#[test]
fn why_a_device_cannot_be_had_is_one_sentence() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let mut other = load(&bpffs).expect("it was possible before");
    let lab = Lab::new();
    let index = lab.index("v0");
    lab.inside(|| {
        let said = |result: Result<Attached, XdpError>| result.expect_err("it cannot be had").to_string();
        assert_eq!(said(xdp.attach(native(99_999, false))), "v0: no such device");
        assert_eq!(
            said(xdp.attach(Device { name: "lo", ..native(LOOPBACK, false) })),
            "lo: its driver cannot run XDP: use `mode = \"generic\"`"
        );
        other.attach(native(index, false)).expect("nothing is there");
        assert_eq!(
            said(xdp.attach(native(index, false))),
            "v0: another XDP program is attached: stop whoever attached it, `ip link set dev v0 xdp off`, or remove the \
             file that keeps it below /sys/fs/bpf"
        );
    });
}

#[test]
fn jumbo_frames_are_no_obstacle() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let lab = Lab::new();
    lab.ip("link set v0 mtu 9000");
    lab.ip("link set v1 mtu 9000");
    let index = lab.index("v0");
    lab.inside(|| xdp.attach(native(index, false))).expect("the program takes frames in several buffers");
}

/// Prints what a frame costs; nothing is asserted. The empty program is what the harness itself takes.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_verdict() {
    let bpffs = Bpffs::new();
    let Some(mut xdp) = load(&bpffs) else { return };
    let tables = samples::tables(LOOPBACK);
    xdp.apply(&tables).expect("there is room");
    let best = |program: &aya::programs::Xdp, frame: &[u8]| {
        let run = || {
            let options = TestRunOptions { data_in: Some(frame), repeat: 300_000, ..Default::default() };
            program.test_run(options).expect("test runs work").duration
        };
        (0..10).map(|_| run()).min().expect("ten runs were made").as_nanos()
    };
    let empty = traffic::empty_program();
    println!("{:>4} ns  the empty program", best(traffic::pass(&empty), &[0; 64]));
    let program = program(&mut xdp.ebpf).expect("it is loaded");
    for what in ["ARP", "foreign MAC", "own address", "transit", "IPv6 transit", "VXLAN", "VXLAN over IPv6"] {
        let sample = samples::frames().into_iter().find(|sample| sample.what == what).expect("there is one");
        println!("{:>4} ns  {what}", best(program, &sample.frame));
    }
    xdp.apply(&samples::tables_without_routes(LOOPBACK)).expect("there is room");
    let program = super::program(&mut xdp.ebpf).expect("it is loaded");
    for what in ["transit", "IPv6 transit"] {
        let sample = samples::frames().into_iter().find(|sample| sample.what == what).expect("there is one");
        println!("{:>4} ns  {what}, no prefix of the kernel", best(program, &sample.frame));
    }
}

mod maps;
mod traffic;
