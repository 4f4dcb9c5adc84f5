//! What the tests of sockets stand on: namespaces with veth pairs, a redirect program, raw sockets.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

/// Whether this test must be skipped: it needs namespaces, links and BPF programs.
pub fn lacks_privilege() -> bool {
    const NEEDED: u64 = (1 << 12) | (1 << 13) | (1 << 21); // NET_ADMIN, NET_RAW, SYS_ADMIN
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .expect("the kernel reports capabilities");
    if effective & NEEDED == NEEDED {
        return false;
    }
    assert!(std::env::var_os("PENSTOCK_NO_SKIP").is_none(), "this test needs CAP_NET_ADMIN");
    println!("skipped: needs CAP_NET_ADMIN");
    true
}

/// A network namespace of its own, deleted when dropped.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("px-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        // Nothing of the kernel's own on the wires.
        namespace.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
        namespace
    }

    /// Runs a command line inside.
    pub fn run(&self, line: &str) {
        let mut arguments = vec!["netns", "exec", &self.name];
        arguments.extend(line.split_whitespace());
        run("ip", &arguments);
    }

    /// A veth pair, both ends up, with so many queues each.
    pub fn veth(&self, near: &str, far: &str, queues: u32, mtu: u32) {
        self.run(&format!(
            "ip link add name {near} mtu {mtu} numrxqueues {queues} numtxqueues {queues} \
             type veth peer name {far} mtu {mtu} numrxqueues {queues} numtxqueues {queues}"
        ));
        self.run(&format!("ip link set dev {near} up"));
        self.run(&format!("ip link set dev {far} up"));
    }

    /// Runs `body` in a thread inside; its panic is ours.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
                    // SAFETY: a valid descriptor; only this thread changes its namespace.
                    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                    assert_eq!(result, 0, "setns: {}", io::Error::last_os_error());
                    body()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// The kernel's number of an interface of this thread's namespace.
pub fn ifindex(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("no NUL in a name");
    // SAFETY: a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no interface {name:?}");
    index
}

/// An XDP program on one interface that gives every packet to the socket of its queue, or to the
/// kernel if there is none. Detached when dropped.
pub struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    pub fn attach(ifindex: u32) -> Self {
        let map = map_create(8);
        let program = program_load(map.as_raw_fd());
        let link = link_create(program.as_raw_fd(), ifindex);
        Self { map, _program: program, _link: link }
    }

    /// Puts the socket in its place.
    pub fn serve(&self, queue: u32, socket: RawFd) {
        let value = socket as u32;
        let mut attribute = Attribute::default();
        attribute.u32(0, self.map.as_raw_fd() as u32);
        attribute.u64(8, (&raw const queue) as u64);
        attribute.u64(16, (&raw const value) as u64);
        // SAFETY: key and value are valid u32, the sizes of the map, for the duration of the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attribute) }.expect("the map takes the socket");
    }
}

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_PASS: i32 = 2;

/// `union bpf_attr`, by offset.
#[derive(Default)]
struct Attribute([u64; 16]);

impl Attribute {
    fn u32(&mut self, at: usize, value: u32) {
        let shift = 8 * (at % 8);
        self.0[at / 8] |= u64::from(value) << if cfg!(target_endian = "big") { 32 - shift } else { shift };
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at / 8] = value;
    }
}

/// # Safety
///
/// Addresses in the attribute are valid for what the command does with them.
unsafe fn bpf(command: libc::c_int, attribute: &Attribute) -> io::Result<RawFd> {
    // SAFETY: the attribute is 128 initialised octets; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.0.as_ptr(), size_of_val(&attribute.0)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as RawFd)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: fresh from bpf(2), nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn map_create(entries: u32) -> OwnedFd {
    let mut attribute = Attribute::default();
    attribute.u32(0, BPF_MAP_TYPE_XSKMAP);
    attribute.u32(4, 4); // key size
    attribute.u32(8, 4); // value size
    attribute.u32(12, entries);
    // SAFETY: no addresses.
    owned(unsafe { bpf(BPF_MAP_CREATE, &attribute) }.expect("an XSKMAP"))
}

fn program_load(map: RawFd) -> OwnedFd {
    let instruction = |code: u8, target: u8, source: u8, offset: i16, value: i32| {
        u64::from(code)
            | u64::from(target | source << 4) << 8
            | u64::from(offset as u16) << 16
            | u64::from(value as u32) << 32
    };
    let program = [
        instruction(0x61, 2, 1, 16, 0),       // r2 = context->rx_queue_index
        instruction(0x18, 1, 1, 0, map),      // r1 = the map (BPF_PSEUDO_MAP_FD)
        instruction(0, 0, 0, 0, 0),           // second half of the above
        instruction(0xb7, 3, 0, 0, XDP_PASS), // r3 = what a miss does
        instruction(0x85, 0, 0, 0, 51),       // r0 = bpf_redirect_map(r1, r2, r3)
        instruction(0x95, 0, 0, 0, 0),        // return r0
    ];
    let license = c"Dual MIT/GPL";
    let mut attribute = Attribute::default();
    attribute.u32(0, BPF_PROG_TYPE_XDP);
    attribute.u32(4, program.len() as u32);
    attribute.u64(8, program.as_ptr() as u64);
    attribute.u64(16, license.as_ptr() as u64);
    attribute.u32(44, BPF_F_XDP_HAS_FRAGS); // prog_flags
    // SAFETY: program and license are alive and as long as stated.
    owned(unsafe { bpf(BPF_PROG_LOAD, &attribute) }.expect("the verifier takes the program"))
}

fn link_create(program: RawFd, ifindex: u32) -> OwnedFd {
    let mut attribute = Attribute::default();
    attribute.u32(0, program as u32);
    attribute.u32(4, ifindex);
    attribute.u32(8, BPF_XDP);
    // SAFETY: no addresses.
    owned(unsafe { bpf(BPF_LINK_CREATE, &attribute) }.expect("the interface takes the program"))
}

/// A packet socket on one interface: sends and receives whole frames as they are.
pub struct Wire(OwnedFd);

/// For local experiments (IEEE 802): no stack has a use for it.
pub const ETHERTYPE: u16 = 0x88b5;

impl Wire {
    pub fn new(ifindex: u32) -> Self {
        let protocol = ETHERTYPE.to_be();
        // SAFETY: no addresses.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: new, nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zero is a value of sockaddr_ll, an aggregate of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: a valid address of its size.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
        assert_eq!(result, 0, "bind: {}", io::Error::last_os_error());
        let patience = libc::timeval { tv_sec: 10, tv_usec: 0 };
        // SAFETY: a valid timeval of its size.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of_val(&patience) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "timeout: {}", io::Error::last_os_error());
        Self(socket)
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: a valid slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame of [`ETHERTYPE`].
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        // SAFETY: the kernel writes at most the length of the buffer.
        let len = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert!(len >= 0, "nothing received: {}", io::Error::last_os_error());
        buffer.truncate(len as usize);
        buffer
    }
}

/// A frame of `len` octets whose content depends on `seed`.
pub fn frame(len: usize, seed: u64) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
    let mut random = Random(seed);
    for octet in &mut frame[14..] {
        *octet = random.next() as u8;
    }
    frame
}

/// A splitmix64 generator.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
