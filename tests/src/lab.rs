//! Hosts that are network namespaces, joined by veth pairs, gone when the lab is dropped.

use crate::pcap::Capture;
use crate::program::{Outcome, Program};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything a test makes outside its process: namespaces and a folder. Gone when dropped, also by a panic.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// An empty lab. Its names hold the process number, so labs of other tests do not meet it.
    ///
    /// # Panics
    ///
    /// If its folder cannot be made.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("px-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(format!("{prefix}-{name}"));
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Self { prefix, folder, namespaces: Mutex::default() }
    }

    /// Where the test keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A host without interfaces but `lo`. It takes addresses at once (no duplicate address detection), asks no
    /// router for any, and answers with ICMP as often as it is asked.
    ///
    /// # Panics
    ///
    /// If the namespace cannot be made.
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        let namespace = format!("{}-{name}", self.prefix);
        let made = Command::new("ip").args(["netns", "add", &namespace]).output().expect("iproute2 is installed");
        assert!(made.status.success(), "{namespace}: {}", String::from_utf8_lossy(&made.stderr));
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        let host = Host { namespace: namespace.into(), folder: self.folder.clone().into() };
        for (key, value) in [
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
            // Tools that read captures guess what is in a datagram by its ports, and have heard of none of these.
            ("ipv4/ip_local_port_range", "50000 54000"),
        ] {
            host.sysctl(key, value);
        }
        host.run("ip link set lo up");
        host
    }

    /// A veth pair between two hosts, both ends up. Checksum offload stays on, as it is on a new veth.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[track_caller]
    pub fn link(&self, left: (&Host, &str), right: (&Host, &str), options: LinkOptions) {
        let LinkOptions { mtu, queues } = options;
        let end = |(host, name): (&Host, &str)| {
            format!("{name} netns {} mtu {mtu} numrxqueues {queues} numtxqueues {queues}", host.namespace)
        };
        left.0.run(&format!("ip link add {} type veth peer name {}", end(left), end(right)));
        for (host, name) in [left, right] {
            host.run(&format!("ip link set {name} up"));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.namespaces.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // What a test could do about a failure, nobody could: the next one says more.
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a link is like.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// IP MTU of both ends, octets.
    pub mtu: u16,
    /// Queues of each direction at both ends.
    pub queues: u16,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { mtu: 1500, queues: 1 }
    }
}

/// A host: the name of a network namespace.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Arc<str>,
    folder: Arc<Path>,
}

impl Host {
    /// Runs `body` on a thread that is in the host's namespace; so are the sockets and programs that it makes.
    ///
    /// Unlike `ip netns exec` this mounts nothing anew: `/sys`, and what is pinned below it, are the machine's.
    ///
    /// # Panics
    ///
    /// If `body` does.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let outcome = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    sys::netns::enter(&Path::new("/run/netns").join(&*self.namespace)).expect("the host exists");
                    body()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command line, its words split at spaces, to its end.
    ///
    /// # Panics
    ///
    /// If its status is not 0.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let outcome = self.try_run(line);
        assert!(outcome.success, "{line}: {:?} {}{}", outcome.code, outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Runs a command line, its words split at spaces, to its end.
    ///
    /// # Panics
    ///
    /// If there is no such program.
    #[track_caller]
    pub fn try_run(&self, line: &str) -> Outcome {
        let mut command = command(line);
        self.within(|| command.output()).unwrap_or_else(|error| panic!("{line}: {error}")).into()
    }

    /// Starts a command line in the background.
    #[track_caller]
    pub fn start(&self, line: &str) -> Program {
        self.start_command(command(line))
    }

    /// Starts a command in the background.
    #[track_caller]
    pub fn start_command(&self, command: Command) -> Program {
        self.within(|| Program::start(command))
    }

    /// Sets a value below `/proc/sys/net`.
    ///
    /// # Panics
    ///
    /// If the kernel refuses it.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(key);
        self.within(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
    }

    /// One echo request of `octets` octets of data, with further options of ping(8). Whether the answer came.
    #[track_caller]
    pub fn pings(&self, address: &str, octets: usize, options: &str) -> bool {
        self.try_run(&format!("ping -n -c 1 -W 1 -s {octets} {options} {address}")).success
    }

    /// Captures what an interface sends and receives, from now on.
    ///
    /// # Panics
    ///
    /// If tcpdump does not start.
    #[track_caller]
    pub fn capture(&self, interface: &str) -> Capture {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.folder.join(format!("{interface}-{}.pcap", NEXT.fetch_add(1, Relaxed)));
        let line = format!("tcpdump -Z root -n -U -s 0 -B 65536 --immediate-mode -i {interface} -w {}", path.display());
        let mut tcpdump = self.start(&line);
        tcpdump.await_message("listening on");
        Capture::new(tcpdump, path)
    }

    /// The name of its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The folder of the host's lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A command line as a command. No shell: words are what spaces separate.
fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command line has a first word"));
    command.args(words);
    command
}
