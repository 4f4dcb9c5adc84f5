//! Who forwards: Penstock, or the kernel in one of two ways.

use super::WORKER_CPU;
use super::command::{self, CommandError};
use super::host::Thread;
use super::site::{FAR_END, Site, TUNNEL_NEAR, TUNNEL_PEER, VNI, text};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long Penstock may take to forward, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker on its own CPU.
    Penstock,
    /// The kernel, in the soft interrupts of the generator.
    Inline,
    /// The kernel, in a thread of its own (threaded NAPI) on the CPU that Penstock's worker has.
    Threaded,
}

impl Kind {
    /// All, in the order in which a round runs them.
    pub const ALL: [Self; 3] = [Self::Penstock, Self::Inline, Self::Threaded];

    /// As the table says it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Inline => "linux, inline",
            Self::Threaded => "linux, threaded",
        }
    }
}

/// What is done to the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Routed.
    Ipv4,
    /// Routed into a VXLAN tunnel.
    Vxlan,
}

impl Way {
    /// All.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Vxlan];

    /// As figures and table say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Vxlan => "vxlan",
        }
    }
}

/// Why a forwarder does not forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file of ours.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Penstock cannot be started.
    #[error("penstock cannot be started with nsenter and setpriv, which are part of Debian's util-linux: {0}")]
    Start(io::Error),
    /// Penstock ended, or is not ready in time.
    #[error("penstock is not ready: {0}")]
    NotReady(String),
    /// The thread that does the work is not there.
    #[error("there is no thread `{0}`")]
    NoThread(String),
}

/// A forwarder at work in a site.
#[derive(Debug)]
pub struct Forwarder {
    /// The thread on [`WORKER_CPU`] that forwards; without one, the generator's does.
    pub thread: Option<Thread>,
    /// How it receives, for the result.
    pub mode: String,
    process: Option<Process>,
}

impl Forwarder {
    /// Sets the site's forwarder up. `folder` is for its files.
    ///
    /// # Errors
    ///
    /// A command fails, or Penstock does not get ready.
    pub fn start(kind: Kind, path: Way, site: &Site, folder: &Path, penstock: &Path) -> Result<Self, ForwarderError> {
        match kind {
            Kind::Penstock => start_penstock(path, site, folder, penstock),
            Kind::Inline => {
                start_linux(path, site)?;
                Ok(Self { thread: None, mode: "veth, NAPI in the generator's thread".into(), process: None })
            }
            Kind::Threaded => {
                start_linux(path, site)?;
                let thread = give_a_thread(site)?;
                Ok(Self { thread: Some(thread), mode: "veth, threaded NAPI".into(), process: None })
            }
        }
    }

    /// Whether it still runs; the kernel always does.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_none_or(Process::is_running)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }
}

/// Plain routing by the kernel, or into its own VXLAN device.
fn start_linux(path: Way, site: &Site) -> Result<(), CommandError> {
    site.on_dut("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")?;
    site.on_dut(&format!("sysctl -qw net.ipv4.conf.{}.rp_filter=0", site.receiving))?;
    // Redirected frames are taken only by a veth that polls, which it does for GRO.
    site.on_dut(&format!("ethtool -K {} gro on", site.receiving))?;
    if path == Way::Ipv4 {
        return site.ip(&format!("route add 198.18.0.0/15 via {FAR_END}"));
    }
    let peer = text(TUNNEL_PEER);
    site.ip(&format!(
        "link add vx0 mtu 1450 type vxlan id {VNI} local {TUNNEL_NEAR} remote {FAR_END} dstport 4789 ttl 64 df set \
         noudpcsum nolearning"
    ))?;
    site.ip("link set vx0 up")?;
    site.ip("address add 198.51.100.1/30 dev vx0")?;
    site.ip(&format!("neighbour replace 198.51.100.2 lladdr {peer} nud permanent dev vx0"))?;
    command::run(&format!("bridge -n {} fdb replace {peer} dev vx0 dst {FAR_END} self permanent", site.name("dut")))?;
    site.ip("route add 198.18.0.0/15 via 198.51.100.2 dev vx0")
}

/// Moves the polling of the receiving device to a thread on the worker's CPU.
fn give_a_thread(site: &Site) -> Result<Thread, ForwarderError> {
    let device = &site.receiving;
    let write = format!("tee /sys/class/net/{device}/threaded");
    let status = Command::new("ip")
        .args(["netns", "exec", &site.name("dut")])
        .args(write.split(' '))
        .stdin(one()?)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let name = format!("napi/{device}-");
    let thread = Thread::of_kernel(&name).filter(|_| status.is_ok_and(|status| status.success()));
    let thread = thread.ok_or(ForwarderError::NoThread(name))?;
    thread.pin(WORKER_CPU)?;
    Ok(thread)
}

/// A pipe that holds the digit 1.
fn one() -> Result<io::PipeReader, ForwarderError> {
    let (reader, mut writer) = io::pipe().map_err(ForwarderError::Start)?;
    io::Write::write_all(&mut writer, b"1").map_err(ForwarderError::Start)?;
    Ok(reader)
}

/// The file for Penstock. Plain routing follows the kernel's own routes.
fn config(path: Way, receiving: &str, control: &Path) -> String {
    let common = format!(
        "[gateway]\nworkers = [{WORKER_CPU}]\ncontrol = {:?}\n\n[interface.{receiving}]\n[interface.out]\n",
        control.display().to_string()
    );
    let peer = text(TUNNEL_PEER);
    match path {
        Way::Ipv4 => common,
        Way::Vxlan => format!(
            "{common}\n[tunnel.site]\ntype = \"vxlan\"\nvni = {VNI}\nlocal = \"{TUNNEL_NEAR}\"\nremote = \"{FAR_END}\"\n\
             remote_mac = \"{peer}\"\n\n[[route]]\nprefix = \"198.18.0.0/15\"\nvia = [{{ tunnel = \"site\" }}]\n"
        ),
    }
}

fn start_penstock(path: Way, site: &Site, folder: &Path, binary: &Path) -> Result<Forwarder, ForwarderError> {
    // What is not Penstock's to forward shall not reach the sink by another way.
    site.on_dut("sysctl -qw net.ipv4.ip_forward=0")?;
    if path == Way::Ipv4 {
        site.ip(&format!("route add 198.18.0.0/15 via {FAR_END}"))?;
    }
    let file = folder.join(format!("{}.toml", site.receiving));
    let text = config(path, &site.receiving, &file.with_extension("sock"));
    let process = Process::start(&site.path("dut"), &file, &text, binary)?;
    let name = "worker-0";
    let thread = Thread::named(process.child.id(), name).ok_or_else(|| ForwarderError::NoThread(name.into()))?;
    Ok(Forwarder { thread: Some(thread), mode: "veth, AF_XDP copy".into(), process: Some(process) })
}

/// A running Penstock. Ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Writes its file and starts it in a namespace; returns when it forwards.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or it is not ready in time.
    pub fn start(namespace: &Path, file: &Path, config: &str, binary: &Path) -> Result<Self, ForwarderError> {
        std::fs::write(file, config).map_err(|source| ForwarderError::File { path: file.into(), source })?;
        let log = file.with_extension("log");
        let output = File::create(&log).map_err(|source| ForwarderError::File { path: log.clone(), source })?;
        let child = Command::new("nsenter")
            .arg(format!("--net={}", namespace.display()))
            // So that it ends with this process, whatever ends that.
            .args(["setpriv", "--pdeathsig", "TERM", "--"])
            .arg(binary)
            .arg("run")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(ForwarderError::Start)?;
        let mut process = Self { child, log };
        let deadline = Instant::now() + PATIENCE;
        while !process.said().contains("ready") {
            if !process.is_running() || Instant::now() > deadline {
                return Err(ForwarderError::NotReady(process.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has logged.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _gone = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
