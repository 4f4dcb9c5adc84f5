//! A running gateway: start-up, the control loop, and the end.
//!
//! One thread does all this. It sleeps until the kernel reports a change, a worker wants a neighbour, an operator
//! asks, or a signal comes; then it plans anew and changes what differs.

#![expect(clippy::result_large_err, reason = "an error here ends the start, once")]

use super::devices;
use super::host::Host;
use super::http::{Http, ListenError};
use super::metrics::Metrics;
use super::neighbours::Neighbours;
use super::netlink::{self, Changes, Commander, Mirror};
use super::plan::{Delta, Plan};
use super::ports::{self, Interfaces, PortError};
use super::resolve::{ResolveError, Resolver};
use super::server::{OpenError, Server};
use super::shaping;
use super::tunnels::TunnelDevices;
use super::workers::{self, Equipment, Queues, Team};
use super::xdp::{Xdp, XdpError};
use crate::config::{Config, Fallback, Tunnel};
use crate::io::{Port, Tap};
use crate::packet::{PortId, Time, Vrf};
use crate::qos::Rate;
use crate::sentence::Sentence;
use crate::slow::Wish;
use crate::tables::{Published, Tables};
use crate::worker::Lane;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};
use sys::Wake;
use sys::caps::Capability;
use sys::poll::{PollFd, PollFlags};
use sys::signals::{Signal, Signals};
use xsk::Umem;

/// Chunks for each socket: its fill and RX rings, and as many on their way out.
const CHUNKS_PER_SOCKET: usize = 3 * 4096;
/// Chunks beside those, for each worker: its pool, its batch, what waits.
const CHUNKS_PER_WORKER: usize = 8192;
/// What the start cannot do without.
const NEEDED: [Capability; 4] = [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::Perfmon];
/// What is kept for an interface that is made again, a route or a neighbour that changes, and the end. CAP_PERFMON is
/// for loading the XDP program, which is done once. CAP_IPC_LOCK is, where the limit of locked memory is low, for
/// registering packet memory again when the last socket that shared it has gone with its interface.
const KEPT: [Capability; 4] = [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::IpcLock];
/// How long changes are gathered before they are acted on.
const GATHER: Duration = Duration::from_millis(5);
/// How long at most: where something changes all the time, the rest waits for the next round.
const LONGEST_GATHER: Duration = Duration::from_millis(50);
/// Routes that change in one go at most, so that a storm of them is followed while it lasts.
const AT_ONCE: usize = 16_384;
/// How often control looks around without a reason.
const ROUND: Duration = Duration::from_millis(500);
/// How long workers may take to see new tables.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Privileges are missing.
    #[error(
        "`penstock run` needs {}, and lacks {}: run it as root, or grant them (AmbientCapabilities= in a systemd unit, \
         or setcap(8))",
        names(&NEEDED), names(.0)
    )]
    Privilege(Vec<Capability>),
    /// An interface cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The XDP program cannot.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// A tunnel's device cannot.
    #[error(transparent)]
    Device(#[from] devices::Error),
    /// The kernel's tables cannot be read or changed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Tables do not fit.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Packet memory cannot be had.
    #[error(transparent)]
    Memory(#[from] xsk::Error),
    /// The control socket cannot be opened.
    #[error("control socket {0}")]
    Control(#[from] OpenError),
    /// Nor the one for metrics.
    #[error(transparent)]
    Metrics(#[from] ListenError),
    /// The system refuses something small.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A worker thread ended by itself.
    #[error("a worker has ended unexpectedly: the gateway stops")]
    WorkerEnded,
}

/// A gateway with everything that it holds of the host.
pub struct Gateway {
    config: Config,
    mirror: Mirror,
    commander: Commander,
    plan: Plan,
    resolver: Resolver,
    neighbours: Neighbours,
    xdp: Xdp,
    interfaces: Interfaces,
    tunnels: TunnelDevices,
    team: Team,
    bell: Arc<Wake>,
    server: Server,
    http: Option<Http>,
    started: Instant,
    steering: Steering,
    log: Log,
}

/// What XDP was told, and when it is told again.
struct Steering {
    stale: bool,
    /// Some prefixes are the kernel's to forward.
    kept: bool,
    due: Instant,
}

/// One line each to standard error, and none twice in a row.
#[derive(Default)]
struct Log {
    last: String,
}

impl Log {
    fn line(&mut self, text: impl fmt::Display) {
        let text = text.to_string();
        if text != self.last {
            eprintln!("{text}");
            self.last = text;
        }
    }

    fn error(&mut self, error: &(dyn Error + 'static)) {
        self.line(Sentence(error));
    }
}

impl Gateway {
    /// Takes the interfaces of the configuration and starts to forward.
    ///
    /// # Errors
    ///
    /// In one sentence, what is missing and how to mend it. Nothing is left behind in the host.
    pub fn start(config: Config) -> Result<Self, GatewayError> {
        let lacking: Vec<_> = NEEDED.into_iter().filter(|capability| !sys::caps::has(*capability)).collect();
        if !lacking.is_empty() {
            return Err(GatewayError::Privilege(lacking));
        }
        let mut log = Log::default();
        for warning in &config.warnings {
            log.line(format_args!("warning: line {warning}"));
        }
        if config.interfaces.is_empty() {
            log.line("warning: the configuration has no [interface.NAME]: nothing is forwarded");
        }
        let mirror = Mirror::open()?;
        let mut commander = Commander::open()?;
        ports::check(&config, mirror.host())?;
        let server = Server::open(&config.gateway.control)?;
        let http = config.gateway.metrics.map(Http::open).transpose()?;
        let system = |what| move |source| GatewayError::System { what, source };
        let bell = Arc::new(Wake::new().map_err(system("making an event descriptor"))?);
        let queues = all_queues(&config, mirror.host());
        let cpus = sys::affinity::available().map_or(1, |cpus| cpus.len());
        let cpus = workers::count(&config.gateway.workers, queues.values().copied(), cpus);
        let sockets: usize = queues.values().map(|queues| queues.receive as usize).sum();
        let chunks = sockets * CHUNKS_PER_SOCKET + cpus.len() * CHUNKS_PER_WORKER;
        let umem = Umem::new(chunks, ports::chunk_size(&config, mirror.host()))?;
        let resolver = Resolver::new()?;
        let instance = config.gateway.control.file_stem().map(|stem| stem.to_string_lossy().replace('.', "-"));
        let mut xdp = Xdp::load(instance.as_deref().unwrap_or("control"))?;
        let inherited = xdp.left_any()?;
        if config.interfaces.iter().any(|interface| interface.fallback == Fallback::Drop) {
            xdp.prepare()?;
        }
        // Before any interface is taken: so what works at the start works when one is made again. The workers are
        // started by this thread and give up the rest.
        sys::caps::keep_only(&KEPT).map_err(system("giving up privileges"))?;
        // The first thing of the host that is changed.
        let tunnels = TunnelDevices::establish(&config, mirror.host(), &mut commander)?;
        let team = match Team::start(
            &cpus,
            &Equipment {
                config: &config,
                umem: &umem,
                tables: resolver.published(),
                outlets: &tunnels.outlets(&config),
                control: &bell,
                spec: shaping::spec(&config, link_rate),
            },
        ) {
            Ok(team) => team,
            Err(error) => {
                let keep = tunnels.are_inherited();
                tunnels.end(keep, &mut commander);
                return Err(system("starting the workers")(error));
            }
        };
        let mut gateway = Self {
            plan: Plan::default(),
            interfaces: Interfaces::new(umem, sockets),
            neighbours: Neighbours::default(),
            config,
            mirror,
            commander,
            resolver,
            xdp,
            tunnels,
            team,
            bell,
            server,
            http,
            started: Instant::now(),
            steering: Steering { stale: true, kept: false, due: Instant::now() },
            log,
        };
        match gateway.take_over() {
            Ok(()) => Ok(gateway),
            Err(error) => {
                // What an earlier run left to keep packets from leaving in clear goes on doing that.
                let keep = gateway.tunnels.are_inherited() || inherited;
                gateway.stop(keep);
                Err(error)
            }
        }
    }

    /// The first plan, and what of it must succeed.
    fn take_over(&mut self) -> Result<(), GatewayError> {
        // The devices' own links and addresses are among what the mirror knows from here on.
        let changes = self.mirror.poll()?;
        let delta = self.plan.renew(&self.config, self.mirror.host());
        self.apply(&delta)?;
        self.export(&changes, &delta);
        let events =
            self.interfaces.follow(&self.config, &self.plan, self.mirror.host(), &mut self.xdp, &mut self.team);
        for event in events {
            self.log.line(event?);
        }
        for (at, interface) in self.config.interfaces.iter().enumerate() {
            if interface.parent.is_none() && self.interfaces.get(PortId(at as u16)).is_none() {
                self.log.line(format_args!("{}: is down; it is taken when it comes up", interface.name));
            }
        }
        // Last: what the host sends into a tunnel has an interface to leave by.
        for (port, device) in self.tunnels.read(&self.config) {
            self.team.open(Lane::device(port, Port::Tap(Tap::new(Arc::clone(device)))));
        }
        self.xdp.adopted()?;
        for (name, rate) in shaping::overcommitted(&self.config, link_rate) {
            let megabits = rate.bits() / 1_000_000;
            self.log.line(format_args!(
                "{name}: its link has {megabits} Mbit/s, less than is guaranteed to tenants: what there is they share; \
                 [interface.{name}] rate = \"..\" says what it should have"
            ));
        }
        for warning in std::mem::take(&mut self.plan.warnings) {
            eprintln!("warning: {warning}");
        }
        let workers = self.team.len();
        self.log.line(format_args!("ready: {workers} worker{}", if workers == 1 { "" } else { "s" }));
        notify_systemd("READY=1");
        Ok(())
    }

    /// Runs until SIGTERM or SIGINT, then takes everything back that it changed in the host. After an error it leaves what
    /// keeps packets from leaving in clear, as if it had been killed.
    ///
    /// # Errors
    ///
    /// Only what makes going on pointless.
    pub fn run(mut self, signals: &mut Signals) -> Result<(), GatewayError> {
        let result = self.serve(signals);
        notify_systemd("STOPPING=1");
        self.stop(result.is_err());
        result
    }

    fn serve(&mut self, signals: &mut Signals) -> Result<(), GatewayError> {
        let system = |what| move |source| GatewayError::System { what, source };
        loop {
            self.sleep(signals)?;
            while let Some(signal) = signals.read().map_err(system("reading a signal"))? {
                match signal {
                    Signal::Terminate | Signal::Interrupt => return Ok(()),
                    Signal::HangUp => self.log.line("SIGHUP: this version cannot reload; restart it instead"),
                }
            }
            self.bell.drain();
            if self.team.any_ended() {
                return Err(GatewayError::WorkerEnded);
            }
            self.follow_host();
            self.follow_workers();
            self.answer();
            notify_systemd("WATCHDOG=1");
        }
    }

    fn sleep(&self, signals: &Signals) -> Result<(), GatewayError> {
        let mut fds: Vec<PollFd<'_>> = [signals.as_fd(), self.bell.as_fd(), self.mirror.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .into();
        fds.extend(self.server.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let http = self.http.iter().flat_map(Http::descriptors);
        fds.extend(http.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let patience = self.neighbours.due().saturating_duration_since(Instant::now()).min(ROUND);
        sys::poll::poll(&mut fds, Some(patience))
            .map(|_| ())
            .map_err(|source| GatewayError::System { what: "waiting for events", source })
    }

    /// What the kernel reports, all that comes within a moment at once.
    fn follow_host(&mut self) {
        let mut changes = Changes::default();
        let begun = Instant::now();
        loop {
            match self.mirror.poll() {
                Ok(more) if more.is_empty() => break,
                Ok(more) => changes.extend(more),
                Err(error) => {
                    self.log.line(format_args!("reading the kernel's tables: {}", Sentence(&error)));
                    break;
                }
            }
            let mut fds = [PollFd::from_borrowed_fd(self.mirror.as_fd(), PollFlags::IN)];
            let enough = changes.routes.len() > AT_ONCE || begun.elapsed() > LONGEST_GATHER;
            if enough || !matches!(sys::poll::poll(&mut fds, Some(GATHER)), Ok(1..)) {
                break;
            }
        }
        let delta = self.plan.follow(&self.config, self.mirror.host(), &changes);
        // Also without a change: a route that did not fit is tried again.
        if let Err(error) = self.apply(&delta) {
            self.log.error(&error);
        }
        // Also without a change: what the kernel could not take yet is tried again.
        self.export(&changes, &delta);
        for warning in std::mem::take(&mut self.plan.warnings) {
            self.log.line(format_args!("warning: {warning}"));
        }
        // Also without a change: an interface that was refused is tried again.
        let events =
            self.interfaces.follow(&self.config, &self.plan, self.mirror.host(), &mut self.xdp, &mut self.team);
        for event in events {
            match event {
                Ok(line) => self.log.line(line),
                Err(error) => self.log.error(&error),
            }
        }
    }

    /// Changes what differs, in the workers' tables, in XDP's and in the host.
    fn apply(&mut self, delta: &Delta) -> Result<(), GatewayError> {
        // What one of these refuses must not keep the others from what they can do.
        let resolved = self.resolver.update(&self.config, &mut self.plan, delta, &mut wait(&self.team));
        if !delta.is_empty() {
            self.team.wake();
        }
        let steered = self.steer(delta);
        if delta.next_hops {
            self.follow_tunnels();
            let errors = self.neighbours.manage(&self.config, &self.plan, self.mirror.host(), &mut self.commander);
            for error in errors {
                self.log.error(&error);
            }
        }
        resolved?;
        Ok(steered?)
    }

    /// Tells XDP. Which prefixes the kernel forwards takes a walk over all routes, so it waits while that has been done
    /// a moment ago: meanwhile workers hand the kernel what is the kernel's.
    fn steer(&mut self, delta: &Delta) -> Result<(), XdpError> {
        let at_once = delta.host || delta.next_hops;
        self.steering.stale |= at_once || delta.routes.iter().any(|(vrf, _)| self.plan.has_kept(*vrf));
        // The last of them to go is not among those that are left.
        self.steering.stale |= !delta.routes.is_empty() && self.steering.kept;
        if !self.steering.stale || (!at_once && Instant::now() < self.steering.due) {
            return Ok(());
        }
        let begun = Instant::now();
        self.steering.stale = false;
        self.steering.kept = (0..self.config.vrfs.len() as u16).any(|vrf| self.plan.has_kept(Vrf(vrf)));
        let result = self.xdp.apply(&self.plan.steering(&self.config));
        self.steering.due = Instant::now() + 10 * begun.elapsed();
        result
    }

    /// The host's side of tunnels. A device that is new has a worker read it.
    fn follow_tunnels(&mut self) {
        let Self { config, plan, mirror, commander, tunnels, team, log, .. } = self;
        let (made, errors) = tunnels.follow(config, plan, mirror.host(), commander);
        if !made.is_empty() {
            team.set_outlets(&tunnels.outlets(config));
        }
        for (port, device) in tunnels.read(config).filter(|(port, _)| made.contains(port)) {
            log.line(format_args!("{}: the device was deleted, and is made again", plan.ports[port.index()].name));
            team.close(port);
            team.open(Lane::device(port, Port::Tap(Tap::new(Arc::clone(device)))));
        }
        errors.iter().for_each(|error| log.error(error));
    }

    /// The kernel's copies of routes, after what changed.
    fn export(&mut self, changes: &Changes, delta: &Delta) {
        let told = (changes, self.mirror.host());
        let errors = self.tunnels.export(&self.config, &self.plan, delta.next_hops, told, &mut self.commander);
        errors.iter().for_each(|error| self.log.line(error));
    }

    /// What workers ask for: neighbours, and to follow what the underlay says of a path.
    fn follow_workers(&mut self) {
        let now = Time(sys::clock::monotonic_ns());
        let mut moved = self.plan.paths.expire(now);
        while let Some(wish) = self.team.wanted() {
            match wish {
                Wish::Neighbour(id, address) => {
                    let (wish, host) = ((id, address), self.mirror.host());
                    let asked =
                        self.neighbours.want(wish, &self.config, &self.plan, &self.resolver, host, &mut self.commander);
                    if let Err(error) = asked {
                        self.log.error(&error);
                    }
                }
                Wish::Path(id, mtu) => {
                    if self.plan.paths.lower(&self.config, id, mtu, now) {
                        moved = true;
                        let Tunnel { name, remote, .. } = &self.config.tunnels[id.index()];
                        self.log.line(format_args!("{name}: the path to {remote} carries {mtu} octets"));
                    }
                }
            }
        }
        if moved && let Err(error) = self.apply(&Delta { next_hops: true, ..Delta::default() }) {
            self.log.error(&error);
        }
        let host = self.mirror.host();
        let pages = self.team.pages();
        for error in
            self.neighbours.confirm(&self.config, &self.plan, &self.resolver, &pages, host, &mut self.commander)
        {
            self.log.error(&error);
        }
    }

    /// What operators ask.
    fn answer(&mut self) {
        let view = super::show::View {
            config: &self.config,
            plan: &self.plan,
            host: self.mirror.host(),
            resolver: &self.resolver,
            interfaces: &self.interfaces,
            xdp: &self.xdp,
            pages: self.team.pages(),
            team: RefCell::new(&mut self.team),
            uptime: self.started.elapsed(),
        };
        self.server.serve(|question| view.answer(question));
        if let Some(http) = &mut self.http {
            http.serve(Instant::now(), |format| Metrics::of(&view).write(format));
        }
    }

    /// Takes back what was changed in the host; with `keep`, all but what keeps packets from leaving in clear. Errors are
    /// told and do not keep the rest from it.
    fn stop(self, keep: bool) {
        let Self { xdp, mut team, mut interfaces, tunnels, mut commander, .. } = self;
        // The kernel forwards again before the workers end: nothing is received that would not be sent. A pinned
        // link stays when it is merely dropped.
        let tell = |error: &(dyn Error + 'static)| eprintln!("stopping: {}", Sentence(error));
        if keep {
            drop(xdp);
        } else if let Err(error) = xdp.stop() {
            tell(&error);
        }
        team.stop();
        tunnels.end(keep, &mut commander);
        interfaces.restore().iter().for_each(|error| tell(error));
    }
}

fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(", ")
}

fn all_queues(config: &Config, host: &Host) -> BTreeMap<PortId, Queues> {
    let interfaces = config.interfaces.iter().enumerate().filter(|(_, interface)| interface.parent.is_none());
    interfaces
        .filter_map(|(at, interface)| {
            let (_, link) = host.link_by_name(&interface.name)?;
            Some((PortId(at as u16), ports::queues(&interface.name, link)))
        })
        .collect()
}

/// The rate that a driver says its link has.
fn link_rate(device: &str) -> Option<Rate> {
    let mbps = sys::ethtool::speed_mbps(device).ok().flatten()?;
    Rate::new(u64::from(mbps) * 1_000_000)
}

/// Returns once every worker has passed a version, as one that sleeps has; or after a time, and then whether they have.
fn wait(team: &Team) -> impl FnMut(&Published<Tables>, u64) -> bool + '_ {
    |published, version| {
        let deadline = Instant::now() + PATIENCE;
        while !published.passed(version) {
            if team.any_ended() || Instant::now() >= deadline {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

/// Tells systemd, if it asked to be told (sd_notify(3)).
fn notify_systemd(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    // Without a listener there is nobody to tell that there is none.
    let _sent = sent;
}
