//! A gateway in virtual time, on ports in memory: what `replay` and the simulation tests run.
//!
//! The pipeline, the slow path, the steering decision, the plan and the way in which tables change are those of a
//! running gateway. There is one worker, no thread, no device, and a host made of the file, which may change.

use crate::config::Config;
use crate::control::host::Host;
use crate::control::offline;
use crate::control::plan::{Delta, Plan};
use crate::control::resolve::{ResolveError, Resolver};
use crate::control::shaping;
use crate::io::{Memory, Outlet, Outlets, Port};
use crate::packet::{PortId, PuntReason, Stock, Time, TunnelId};
use crate::pipeline::Pipeline;
use crate::qos::{self, Policers, QUEUE_LIMIT, Shaper, SpecError};
use crate::slow::{Limiter, Slow, Wanted, Wish};
use crate::stats::{Page, Tally, Totals};
use crate::worker::{Lane, Worker};
use std::sync::Arc;
use steering::{HostTables, Verdict, steer};
use xsk::{ChunkSize, Umem};

/// Packet memory, in chunks, where none is given.
const CHUNKS: usize = 8192;

/// Wishes of the worker that wait for control, which looks at them after each round.
const WISHES: usize = 256;

/// Why there is no simulated gateway.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Tables could not be made.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Packet memory could not be had.
    #[error(transparent)]
    Memory(#[from] xsk::Error),
    /// Queues could not be made.
    #[error(transparent)]
    Shape(#[from] SpecError),
}

/// A gateway in virtual time: one worker, ports in memory, devices that swallow.
pub struct Simulated {
    /// The worker.
    pub worker: Worker,
    plan: Plan,
    resolver: Resolver,
    page: Arc<Page>,
    steering: HostTables,
    config: Config,
    wanted: rtrb::Consumer<Wish>,
    now: Time,
}

impl Simulated {
    /// A gateway of a configuration, on a host that is as the file says.
    ///
    /// # Errors
    ///
    /// Tables or packet memory could not be made.
    pub fn new(config: &Config) -> Result<Self, SimulateError> {
        Self::with(config, &offline::host(config), &Umem::new(CHUNKS, ChunkSize::Octets2048)?, |_, port| port)
    }

    /// The same on a given host, over packet memory that is there already. Each port is what `driver` makes of it:
    /// it may put faults around it.
    ///
    /// # Errors
    ///
    /// Tables could not be made.
    pub fn with(
        config: &Config,
        host: &Host,
        umem: &Umem,
        mut driver: impl FnMut(PortId, Port) -> Port,
    ) -> Result<Self, SimulateError> {
        let mut plan = Plan::default();
        let delta = plan.renew(config, host);
        let mut resolver = Resolver::new()?;
        // Nobody reads yet, so there is nobody to wait for.
        resolver.update(config, &mut plan, &delta, &mut |_, _| true)?;
        let mut outlets = Outlets::none();
        for (at, tunnel) in config.tunnels.iter().enumerate() {
            if !tunnel.addresses.is_empty() {
                outlets.set_tunnel(TunnelId(at as u16), Outlet::Virtual, tunnel.kind.ethernet());
            }
        }
        outlets.set_host(Outlet::Virtual);
        let ports = plan.ports.len();
        let tally = Tally::new(Resolver::room(config, ports));
        let page = tally.page();
        let (wishes, wanted) = rtrb::RingBuffer::new(WISHES);
        let slow = Slow::new(Limiter::new(config.gateway.icmp_errors_pps), outlets, Wanted::new(wishes, None));
        let mut pipeline = Pipeline::new(Shaper::new(ports, QUEUE_LIMIT), tally);
        pipeline.policers = Policers::new(config.policers.iter().map(|policer| policer.profile));
        if let Some(spec) = shaping::spec(config, |_| None) {
            let shape = qos::Plan::new(&spec, ports)?;
            // Nothing waits yet, so nothing leaves.
            let _nothing = pipeline.shaper.adopt(shape, &mut pipeline.exits, Time(0));
        }
        let stock = Stock::new(umem.pool(64, 256), umem.chunks().min(CHUNKS));
        let mut worker = Worker::new(stock, pipeline, slow, resolver.published().reader());
        for (at, interface) in config.interfaces.iter().enumerate() {
            if interface.parent.is_none() {
                let port = PortId(at as u16);
                worker.open(Lane::interface(port, 0, driver(port, Port::Memory(Memory::new()))));
            }
        }
        for at in 0..config.tunnels.len() {
            let port = Plan::tunnel_port(config, TunnelId(at as u16));
            worker.open(Lane::device(port, driver(port, Port::Memory(Memory::new()))));
        }
        let steering = plan.steering(config);
        Ok(Self { worker, plan, resolver, page, steering, config: config.clone(), wanted, now: Time(0) })
    }

    /// File or host changed: the tables follow, whatever waits. The ports must be the same.
    ///
    /// # Errors
    ///
    /// The new tables do not fit; the old ones stay.
    pub fn update(&mut self, config: &Config, host: &Host) -> Result<(), SimulateError> {
        let delta = self.plan.renew(config, host);
        self.config = config.clone();
        self.resolve(&delta)?;
        self.steering = self.plan.steering(config);
        self.settle();
        Ok(())
    }

    fn resolve(&mut self, delta: &Delta) -> Result<(), ResolveError> {
        let Self { worker, plan, resolver, config, now, .. } = self;
        resolver.update(config, plan, delta, &mut |published, version| {
            while !published.passed(version) {
                worker.poll(*now);
            }
            true
        })
    }

    /// What control does of itself: follows what workers heard of paths, and forgets it in time. Returns whether anything
    /// changed.
    fn follow(&mut self) -> bool {
        let mut moved = self.plan.paths.expire(self.now);
        while let Ok(wish) = self.wanted.pop() {
            // Neighbours are the file's: there is nobody to ask.
            if let Wish::Path(id, mtu) = wish {
                moved |= self.plan.paths.lower(&self.config, id, mtu, self.now);
            }
        }
        // An MTU needs no more room than there was: nothing can be refused.
        moved && self.resolve(&Delta { next_hops: true, ..Delta::default() }).is_ok()
    }

    /// A frame arrives at an interface, or comes from a tunnel's device, at `now`.
    pub fn receive(&mut self, port: PortId, frame: Vec<u8>, now: Time) {
        self.advance(now);
        self.put(port, frame);
        self.settle();
    }

    /// The same, but it is looked at in the next poll, with others that arrived at the same moment.
    pub fn put(&mut self, port: PortId, frame: Vec<u8>) {
        let injects = self.worker.lanes.iter().any(|lane| lane.port == port && lane.injects);
        let steered = steer(frame.as_slice(), &self.steering.at(u32::from(port.0) + 1)).verdict;
        if !injects && matches!(steered, Verdict::Pass(_)) {
            // The kernel's: no worker sees it.
            self.worker.pipeline.tally.received(port, 1, frame.len() as u64);
            self.worker.pipeline.tally.punted(PuntReason::Steered);
            return;
        }
        if let Some(memory) = self.memory(port) {
            memory.put(frame);
        }
    }

    /// Time goes on to `now`, stopping wherever something is due.
    pub fn advance(&mut self, now: Time) {
        while let Some(due) = self.deadline().filter(|due| *due < now) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = self.now.max(now);
    }

    /// Time goes on to `now`, and all ports get another chance: those that had no room, and those that kept something
    /// back.
    pub fn poll(&mut self, now: Time) {
        self.advance(now);
        self.settle();
    }

    /// Time goes on until nothing waits, for at most `patience` nanoseconds.
    pub fn finish(&mut self, patience: u64) {
        let end = Time(self.now.0.saturating_add(patience));
        while self.totals().queued != 0
            && let Some(due) = self.next_of_worker().filter(|due| *due <= end)
        {
            self.now = self.now.max(due);
            self.settle();
        }
    }

    /// When something is due.
    fn deadline(&self) -> Option<Time> {
        self.next_of_worker().into_iter().chain(self.plan.paths.due()).min()
    }

    /// When the worker has something to do: what is due at once waits for room, which time does not bring.
    fn next_of_worker(&self) -> Option<Time> {
        let queued = self.worker.pipeline.shaper.deadline(self.now).filter(|due| *due > self.now);
        self.worker.slow.deadline().into_iter().chain(queued).min()
    }

    /// Rounds until nothing moves.
    fn settle(&mut self) {
        while self.worker.poll(self.now) != 0 || self.follow() {}
    }

    /// The oldest frame that a port sent.
    pub fn sent(&mut self, port: PortId) -> Option<(Time, Vec<u8>)> {
        self.memory(port)?.take()
    }

    fn memory(&mut self, port: PortId) -> Option<&mut Memory> {
        let lane = self.worker.lanes.iter_mut().find(|lane| lane.port == port)?;
        let mut driver = &mut lane.driver;
        while let Port::Faulty(faulty) = driver {
            driver = faulty.inner();
        }
        match driver {
            Port::Memory(memory) => Some(memory),
            _ => None,
        }
    }

    /// Where every packet went.
    pub fn totals(&self) -> Totals {
        Totals::of([&*self.page])
    }

    /// The counters.
    pub fn page(&self) -> &Page {
        &self.page
    }
}
