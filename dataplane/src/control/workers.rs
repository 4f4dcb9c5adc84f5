//! The worker threads: who owns which queue, the rings between them, and how control talks to them.

use super::plan::Plan;
use super::resolve::Resolver;
use super::shaping;
use crate::config::{Config, Workers};
use crate::io::Outlets;
use crate::packet::{Packet, PortId, Stock};
use crate::pipeline::Pipeline;
use crate::qos::{self, Policers, PortReport, QUEUE_LIMIT, Shaper, Spec};
use crate::slow::{Limiter, Slow, Wanted, Wish};
use crate::stats::{Page, Tally};
use crate::tables::{Published, Tables};
use crate::tunnel::Identification;
use crate::worker::{Command, Doorbell, Lane, Outbound, Worker};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use sys::Wake;
use xsk::Umem;

/// Packets on their way from one worker to another at most; fewer where there are so many workers that all the rings
/// together would take more than [`CROSSING_BYTES`].
const CROSSING: usize = 1024;
const CROSSING_BYTES: usize = 64 << 20;
/// Requests for neighbours that wait for control at most, per worker.
const WANTED: usize = 512;
/// Commands that wait for a worker at most.
const COMMANDS: usize = 256;
/// Free chunks that a worker fetches, and keeps, at once.
const POOL: (usize, usize) = (256, 1024);
/// Boxes that a worker has from the start.
const BOXES: usize = 8192;

/// Queues of an interface: how many receive, and how many of those also send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues; at least 1.
    pub receive: u32,
    /// Queues that do both; at least 1.
    pub both: u32,
}

/// How many workers there are, and on which CPU each stays, if any.
pub fn count(wanted: &Workers, queues: impl Iterator<Item = Queues>, cpus: usize) -> Vec<Option<usize>> {
    match wanted {
        Workers::Auto => {
            let most = queues.map(|queues| queues.receive as usize).max().unwrap_or(1);
            vec![None; most.min(cpus.saturating_sub(1)).max(1)]
        }
        Workers::Count(count) => vec![None; (*count).into()],
        Workers::Cpus(cpus) => cpus.iter().map(|cpu| Some((*cpu).into())).collect(),
    }
}

/// The worker that owns a queue.
pub const fn owner(queue: u32, workers: usize) -> usize {
    queue as usize % workers
}

/// Places in the ring from one of `workers` to another.
fn crossing(workers: usize) -> usize {
    let rings = (workers * workers.saturating_sub(1)).max(1);
    (CROSSING_BYTES / rings / size_of::<Packet>()).clamp(64, CROSSING)
}

/// The worker whose ring `worker` uses to send by an interface, which is itself if it owns one.
fn sender(worker: usize, queues: Queues, workers: usize) -> usize {
    let owners = (queues.both as usize).min(workers);
    if worker < owners { worker } else { worker % owners }
}

/// One worker as control sees it.
struct Handle {
    thread: Option<JoinHandle<()>>,
    commands: rtrb::Producer<Command>,
    wanted: rtrb::Consumer<Wish>,
    wake: Arc<Wake>,
    page: Arc<Page>,
}

/// All workers.
pub struct Team {
    handles: Vec<Handle>,
    /// What ports with a shaper are built from: such a port has one worker, whose scheduler sees all its packets.
    spec: Option<Arc<Spec>>,
    stop: Arc<AtomicBool>,
}

/// What every worker is made with.
pub struct Equipment<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Packet memory.
    pub umem: &'a Umem,
    /// Where tables come from.
    pub tables: &'a Published<Tables>,
    /// Devices to punt to.
    pub outlets: &'a Outlets,
    /// What schedulers are built from, if any port has one.
    pub spec: Option<Arc<Spec>>,
    /// Notified when a worker wants a neighbour.
    pub control: &'a Arc<Wake>,
}

impl Team {
    /// Starts the threads. They have no ports yet, and no privilege any more.
    ///
    /// # Errors
    ///
    /// A thread or a wake-up could not be made.
    pub fn start(cpus: &[Option<usize>], equipment: &Equipment<'_>) -> io::Result<Self> {
        let count = cpus.len();
        let Equipment { config, umem, tables, outlets, control, spec } = equipment;
        let ports = Plan::punt_port(config).index() + 1;
        let stop = Arc::new(AtomicBool::new(false));
        let mut bells = Vec::new();
        for _ in 0..count {
            let wake = Arc::new(Wake::new()?);
            bells.push((Arc::clone(&wake), Arc::new(Doorbell::new(wake))));
        }
        // From each to each other: which ports cross where is said when interfaces come, and changes with their queues.
        let mut outbound: Vec<Vec<Outbound>> = (0..count).map(|_| Vec::new()).collect();
        let mut inbound: Vec<Vec<rtrb::Consumer<Packet>>> = (0..count).map(|_| Vec::new()).collect();
        let capacity = crossing(count);
        for (from, outbound) in outbound.iter_mut().enumerate() {
            for to in (0..count).filter(|to| *to != from) {
                let (producer, consumer) = rtrb::RingBuffer::new(capacity);
                outbound.push(Outbound::new(to, producer, Arc::clone(&bells[to].1)));
                inbound[to].push(consumer);
            }
        }
        let mut team = Self { handles: Vec::new(), spec: spec.clone(), stop };
        let (ready, started) = mpsc::channel();
        let errors = Limiter::new(config.gateway.icmp_errors_pps).shared_by(count as u32);
        for (at, (outbound, inbound)) in outbound.into_iter().zip(inbound).enumerate() {
            let (commands, mut orders) = rtrb::RingBuffer::new(COMMANDS);
            let (wishes, wanted) = rtrb::RingBuffer::new(WANTED);
            let (wake, bell) = bells[at].clone();
            let tally = Tally::new(Resolver::room(config, ports));
            let page = tally.page();
            let wanted_by_slow = Wanted::new(wishes, Some(Arc::clone(control)));
            let mut slow = Slow::new(errors, (*outlets).clone(), wanted_by_slow);
            slow.share(at, count);
            let stock = Stock::new(umem.pool(POOL.0, POOL.1), BOXES);
            let mut pipeline = Pipeline::new(Shaper::new(ports, QUEUE_LIMIT), tally);
            pipeline.identification = Identification::of(at, count);
            pipeline.policers = Policers::new(config.policers.iter().map(|policer| policer.profile.share(at, count)));
            let mut worker = Worker::new(stock, pipeline, slow, tables.reader());
            outbound.into_iter().for_each(|outbound| worker.cross_to(outbound));
            inbound.into_iter().for_each(|ring| worker.cross_from(ring));
            let (stop, cpu, ready) = (Arc::clone(&team.stop), cpus[at], ready.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{at}")).spawn(move || {
                if let Some(cpu) = cpu
                    && let Err(error) = sys::affinity::pin_current_thread(cpu)
                {
                    eprintln!("worker {at}: cannot stay on CPU {cpu}: {error}");
                }
                // A worker reads and writes what control has opened, and parses what strangers send.
                let given_up = sys::caps::keep_only(&[]);
                let starts = given_up.is_ok();
                // Nobody listens when another thread could not be made: then this one is of no use either.
                if ready.send(given_up).is_ok() && starts {
                    drop(ready);
                    worker.run(&mut orders, &bell, &stop);
                }
            })?;
            team.handles.push(Handle { thread: Some(thread), commands, wanted, wake, page });
        }
        drop(ready);
        // Ends when every thread has told.
        started.into_iter().collect::<io::Result<()>>()?;
        if let Some(spec) = spec {
            for at in 0..count {
                let plan = qos::Plan::new(spec, ports).map_err(io::Error::other)?;
                team.command(at, Command::Shape(Box::new(plan)));
            }
        }
        Ok(team)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// The one worker that sends by a port with a shaper.
    fn shaper(&self, port: PortId, queues: Queues) -> Option<usize> {
        let is_shaped = self.spec.as_ref()?.ports.iter().any(|shaped| shaped.port == port);
        is_shaped.then(|| shaping::owner(port, (queues.both as usize).min(self.handles.len())))
    }

    /// Tells the workers without a queue of a port that sends whose to use. All but one are without if it has a shaper.
    pub fn route(&mut self, port: PortId, queues: Queues) {
        let count = self.handles.len();
        let shaper = self.shaper(port, queues);
        for at in 0..count {
            let to = shaper.unwrap_or(sender(at, queues, count));
            if to != at {
                self.command(at, Command::Cross(port, to));
            }
        }
    }

    /// Gives a queue to the worker that owns it, or a device to the first.
    pub fn open(&mut self, lane: Lane) {
        let at = owner(lane.queue, self.handles.len());
        self.command(at, Command::Open(lane));
    }

    /// Gives an interface's queue to the worker that owns it. It sends, if it can and no other worker does for all.
    pub fn open_queue(&mut self, mut lane: Lane, queues: Queues) {
        let at = owner(lane.queue, self.handles.len());
        let sends = self.shaper(lane.port, queues).is_none_or(|shaper| shaper == at);
        lane.can_send = lane.queue < queues.both && sends;
        self.open(lane);
    }

    /// How the schedulers do. A worker answers a little in each of its rounds; one that does not, within a second, is left
    /// out.
    pub fn shapers(&mut self) -> Vec<PortReport> {
        let (sender, answers) = mpsc::channel();
        let Some(spec) = self.spec.clone() else { return Vec::new() };
        for at in 0..self.handles.len() {
            self.command(at, Command::Report(sender.clone()));
        }
        drop(sender);
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut reports = Vec::new();
        while let Ok(report) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            reports.extend(report);
        }
        reports.retain(|report: &PortReport| spec.ports.iter().any(|port| port.port == report.port));
        reports.sort_by_key(|report| report.port);
        reports
    }

    /// Has all workers give a port up.
    pub fn close(&mut self, port: PortId) {
        for at in 0..self.handles.len() {
            self.command(at, Command::Close(port));
        }
    }

    /// Has all workers write to these devices from now on.
    pub fn set_outlets(&mut self, outlets: &Outlets) {
        for at in 0..self.handles.len() {
            self.command(at, Command::Outlets(outlets.clone()));
        }
    }

    fn command(&mut self, at: usize, command: Command) {
        let handle = &mut self.handles[at];
        let mut command = command;
        // Full only while the worker is behind by hundreds: it catches up within a round.
        while let Err(rtrb::PushError::Full(back)) = handle.commands.push(command) {
            if handle.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return;
            }
            handle.wake.notify();
            std::thread::yield_now();
            command = back;
        }
        handle.wake.notify();
    }

    /// The next thing that a worker wants.
    pub fn wanted(&mut self) -> Option<Wish> {
        self.handles.iter_mut().find_map(|handle| handle.wanted.pop().ok())
    }

    /// Wakes all, so that they see new tables: a packet that waits may go on.
    pub fn wake(&self) {
        self.handles.iter().for_each(|handle| handle.wake.notify());
    }

    /// All counters.
    pub fn pages(&self) -> Vec<Arc<Page>> {
        self.handles.iter().map(|handle| Arc::clone(&handle.page)).collect()
    }

    /// Whether a worker has ended, which none does by itself.
    pub fn any_ended(&self) -> bool {
        self.handles.iter().any(|handle| handle.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// Lets them send what waits, and ends them.
    pub fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        self.wake();
        for handle in &mut self.handles {
            if let Some(thread) = handle.thread.take() {
                // A worker that panicked has said so.
                let _ended = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_most_queues_but_leaves_a_cpu() {
        let queues = |receive| Queues { receive, both: receive };
        let of = |list: &[u32], cpus| count(&Workers::Auto, list.iter().map(|n| queues(*n)), cpus).len();
        assert_eq!(of(&[1, 4, 2], 16), 4);
        assert_eq!(of(&[8], 4), 3);
        assert_eq!(of(&[8], 1), 1);
        assert_eq!(of(&[], 4), 1);
    }

    #[test]
    fn a_worker_without_a_ring_of_a_port_sends_through_one_that_has_it() {
        let one = Queues { receive: 1, both: 1 };
        assert_eq!((0..4).map(|worker| sender(worker, one, 4)).collect::<Vec<_>>(), [0, 0, 0, 0]);
        let three = Queues { receive: 3, both: 3 };
        assert_eq!((0..4).map(|worker| sender(worker, three, 4)).collect::<Vec<_>>(), [0, 1, 2, 0]);
        let more = Queues { receive: 8, both: 8 };
        assert_eq!((0..4).map(|worker| sender(worker, more, 4)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
