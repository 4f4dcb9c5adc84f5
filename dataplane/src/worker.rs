//! One thread, one core: the poll loop.

mod lane;

pub use lane::Lane;

use crate::io::{Driver, Outlets};
use crate::packet::{Batch, DropReason, Exit, Packet, PortId, Stock, Time};
use crate::pipeline::Pipeline;
use crate::qos;
use crate::slow::Slow;
use crate::tables::{Reader, Tables};
use std::collections::VecDeque;
use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::mpsc;
use std::time::Duration;
use sys::Wake;

/// What control asks of a worker between two rounds.
#[expect(clippy::large_enum_variant, reason = "a command is rare and moves once")]
pub enum Command {
    /// Poll this too.
    Open(Lane),
    /// Packets for the port go to that worker from now on, because this one has no ring of the port's.
    Cross(PortId, usize),
    /// Give a port up: its device is gone.
    Close(PortId),
    /// Punt to these devices from now on.
    Outlets(Outlets),
    /// Queue under this plan from now on.
    Shape(Box<qos::Plan>),
    /// Say how the schedulers do, within some rounds.
    Report(mpsc::Sender<Vec<qos::PortReport>>),
}

/// What wakes a sleeping worker: for others than control, without a system call while it is awake.
pub struct Doorbell {
    wake: Arc<Wake>,
    asleep: AtomicBool,
}

impl Doorbell {
    /// Over what wakes the worker.
    pub const fn new(wake: Arc<Wake>) -> Self {
        Self { wake, asleep: AtomicBool::new(false) }
    }

    /// After something was left for the worker.
    fn ring(&self) {
        // Pairs with the fence in `falls_asleep`: either the worker sees what was left, or this sees it asleep.
        fence(SeqCst);
        if self.asleep.load(Relaxed) && self.asleep.swap(false, Relaxed) {
            self.wake.notify();
        }
    }

    /// The worker is about to sleep; it looks once more at what it may have been left after this.
    fn falls_asleep(&self) {
        self.asleep.store(true, Relaxed);
        fence(SeqCst);
    }

    fn wakes(&self) {
        self.asleep.store(false, Relaxed);
    }
}

/// The ring to another worker. A packet crosses without its box.
pub struct Outbound {
    /// That worker.
    peer: usize,
    /// Ports whose packets go there, because this worker has no ring of theirs.
    ports: Vec<PortId>,
    ring: rtrb::Producer<Packet>,
    bell: Arc<Doorbell>,
}

impl Outbound {
    /// To worker `peer`, for no port yet.
    pub const fn new(peer: usize, ring: rtrb::Producer<Packet>, bell: Arc<Doorbell>) -> Self {
        Self { peer, ports: Vec::new(), ring, bell }
    }

    /// Packets for the other worker's ports, as far as the ring has room; the rest stays in its queue.
    fn send(&mut self, pipeline: &mut Pipeline, stock: &mut Stock) -> usize {
        let mut sent = 0;
        for port in &self.ports {
            while !self.ring.is_full()
                && let Some(mut place) = pipeline.shaper.hand_over(*port)
            {
                let packet = mem::replace(&mut *place, Packet::empty());
                stock.put(place);
                let pushed = self.ring.push(packet);
                debug_assert!(pushed.is_ok(), "only this thread pushes, and there was room");
                sent += 1;
            }
        }
        if sent != 0 {
            pipeline.tally.crossed_out(sent as u64);
            self.bell.ring();
        }
        sent
    }

    /// One packet for the other worker itself; `false`, and the packet stays, when the ring has no room.
    fn hand(&mut self, place: &mut Packet) -> bool {
        if self.ring.is_full() {
            return false;
        }
        let pushed = self.ring.push(mem::replace(place, Packet::empty()));
        debug_assert!(pushed.is_ok(), "only this thread pushes, and there was room");
        self.bell.ring();
        true
    }
}

/// Packets from another worker, each into a box of this one.
fn receive_crossing(ring: &mut rtrb::Consumer<Packet>, batch: &mut Batch, stock: &mut Stock) {
    while batch.room() > 0
        && let Ok(packet) = ring.pop()
    {
        let mut place = stock.empty();
        *place = packet;
        batch.push(place);
    }
}

/// Everything that one core touches.
pub struct Worker {
    /// Ports, in the order of their polling.
    pub lanes: Vec<Lane>,
    outbound: Vec<Outbound>,
    inbound: Vec<rtrb::Consumer<Packet>>,
    /// Free frames and boxes.
    pub stock: Stock,
    /// The page.
    pub pipeline: Pipeline,
    /// What leaves it.
    pub slow: Slow,
    tables: Reader<Tables>,
    batch: Batch,
    /// What control waits to hear.
    asked: VecDeque<Asked>,
}

/// How the schedulers do, in the making: a little in each round, because packets wait meanwhile.
struct Asked {
    answer: mpsc::Sender<Vec<qos::PortReport>>,
    reports: Vec<qos::PortReport>,
    /// How many of the reports have all their leaves, and how many leaves the next one has been through.
    ports: usize,
    leaves: usize,
}

impl Asked {
    fn start_again(&mut self) {
        self.reports.clear();
        (self.ports, self.leaves) = (0, 0);
    }
}

impl Worker {
    /// Without ports.
    pub fn new(stock: Stock, pipeline: Pipeline, slow: Slow, tables: Reader<Tables>) -> Self {
        Self {
            lanes: Vec::new(),
            outbound: Vec::new(),
            inbound: Vec::new(),
            stock,
            pipeline,
            slow,
            tables,
            batch: Batch::new(),
            asked: VecDeque::new(),
        }
    }

    /// Polls this too from now on.
    pub fn open(&mut self, lane: Lane) {
        if lane.can_send {
            self.pipeline.shaper.open(lane.port);
        }
        self.lanes.push(lane);
        self.choose_senders();
    }

    /// Of the lanes of one port only the first that can sends: with two, one that is full would let later packets of a
    /// flow overtake by the other.
    fn choose_senders(&mut self) {
        for at in 0..self.lanes.len() {
            let (before, lane) = self.lanes.split_at(at);
            let chosen = before.iter().any(|other| other.sends && other.port == lane[0].port);
            self.lanes[at].sends = self.lanes[at].can_send && !chosen;
        }
    }

    /// A way to another worker. Packets take it once a port is said to be served there ([`Command::Cross`]).
    pub fn cross_to(&mut self, outbound: Outbound) {
        self.outbound.push(outbound);
    }

    /// Packets of another worker come from this ring.
    pub fn cross_from(&mut self, ring: rtrb::Consumer<Packet>) {
        self.inbound.push(ring);
    }

    /// One round over all ports. Returns how many packets came or went: 0 is an idle round.
    #[inline]
    pub fn poll(&mut self, now: Time) -> usize {
        let tables = self.tables.load();
        let mut moved = 0;
        for lane in &mut self.lanes {
            let lost = lane.driver.receive(lane.port, &mut self.stock, &mut self.batch, now);
            if lost != 0 {
                self.pipeline.tally.dropped_on_receipt(DropReason::NoFrame, lane.port, lost);
            }
            if self.batch.is_empty() {
                continue;
            }
            moved += self.batch.len();
            if lane.injects {
                self.pipeline.inject(&mut self.batch, tables, now);
            } else {
                self.pipeline.run(&mut self.batch, tables, now);
            }
            self.slow.settle(&mut self.pipeline, &mut self.stock, tables, now);
        }
        for ring in &mut self.inbound {
            receive_crossing(ring, &mut self.batch, &mut self.stock);
            if self.batch.is_empty() {
                continue;
            }
            moved += self.batch.len();
            self.pipeline.resume(&mut self.batch, now);
        }
        let is_quiet = moved == 0;
        for lane in &mut self.lanes {
            if lane.sends {
                moved += lane.transmit(&mut self.pipeline, &mut self.stock, &mut self.batch, (tables, now), is_quiet);
            }
            lane.alive &= lane.driver.flush(&mut self.stock);
        }
        for outbound in &mut self.outbound {
            moved += outbound.send(&mut self.pipeline, &mut self.stock);
        }
        // What settling queues (an answer, a packet whose neighbour was found) is sent in the next round, which is due;
        // so is what its last round sent away.
        let before = self.pipeline.shaper.waiting();
        self.slow.settle(&mut self.pipeline, &mut self.stock, tables, now);
        moved += self.pipeline.shaper.waiting().saturating_sub(before) + self.pipeline.exits.len();
        while let Some((owner, mut packet)) = self.slow.for_another() {
            moved += 1;
            let outbound = self.outbound.iter_mut().find(|outbound| outbound.peer == owner);
            if outbound.is_some_and(|outbound| outbound.hand(&mut packet)) {
                self.pipeline.tally.crossed_out(1);
                self.stock.put(packet);
            } else {
                self.pipeline.exits.push(packet, Exit::Drop(DropReason::QueueFull));
            }
        }
        self.count_waiting();
        moved
    }

    /// Everything that has come and not gone: in queues, held for neighbours, and sent away in the last of settling's
    /// rounds. What is on its way to another worker is counted by both, as it crosses: this one may sleep when it arrives.
    #[inline]
    fn count_waiting(&mut self) {
        let waiting = self.pipeline.shaper.waiting() + self.slow.waiting() + self.pipeline.exits.len();
        self.pipeline.tally.queued(waiting as u64);
    }

    /// Does what control asks, and closes ports whose device is gone.
    pub fn obey(&mut self, command: Command, now: Time) {
        match command {
            Command::Open(lane) => self.open(lane),
            Command::Cross(port, peer) => {
                if let Some(outbound) = self.outbound.iter_mut().find(|outbound| outbound.peer == peer) {
                    outbound.ports.push(port);
                    self.pipeline.shaper.open_crossing(port);
                }
            }
            Command::Close(port) => {
                self.outbound.iter_mut().for_each(|outbound| outbound.ports.retain(|other| *other != port));
                self.shut(port);
                self.close(|lane| lane.port == port, now);
            }
            Command::Outlets(outlets) => *self.slow.outlets() = outlets,
            Command::Report(answer) => self.asked.push_back(Asked { answer, reports: Vec::new(), ports: 0, leaves: 0 }),
            Command::Shape(plan) => {
                let Pipeline { shaper, exits, .. } = &mut self.pipeline;
                // What it goes without is freed here: once a change, with no packet in it.
                let _old = shaper.adopt(*plan, exits, now);
                let tables = self.tables.load();
                self.slow.settle(&mut self.pipeline, &mut self.stock, tables, now);
                self.count_waiting();
                // Leaves have other numbers now.
                self.asked.iter_mut().for_each(Asked::start_again);
            }
        }
    }

    /// Goes on with what control has asked for, as far as packets can wait for it.
    fn answer_some(&mut self) {
        let Some(asked) = self.asked.front_mut() else { return };
        let shaper = &self.pipeline.shaper;
        if let Some(report) = asked.reports.get_mut(asked.ports) {
            let all = shaper.report_leaves(report, asked.leaves, LEAVES_AT_ONCE);
            asked.leaves += LEAVES_AT_ONCE;
            if asked.leaves >= all {
                (asked.ports, asked.leaves) = (asked.ports + 1, 0);
            }
            return;
        }
        let told = |port: PortId| asked.reports.iter().any(|report| report.port == port);
        let mut ports = self.lanes.iter().filter(|lane| lane.sends && !told(lane.port));
        if let Some(report) = ports.find_map(|lane| shaper.report_without_leaves(lane.port)) {
            asked.reports.push(report);
        } else if let Some(Asked { answer, reports, .. }) = self.asked.pop_front() {
            // Whoever asked may have gone.
            let _gone = answer.send(reports);
        }
    }

    /// Closes lanes. When a port has none left here, what waits for it is dropped; when none is left at all, also what
    /// waits for neighbours.
    fn close(&mut self, which: impl Fn(&Lane) -> bool, now: Time) {
        let (gone, kept) = mem::take(&mut self.lanes).into_iter().partition::<Vec<_>, _>(which);
        self.lanes = kept;
        self.choose_senders();
        for mut lane in gone {
            self.pipeline.tally.port_lost(lane.port, lane.driver.losses());
            lane.driver.close(&mut self.stock);
            self.shut(lane.port);
        }
        if self.lanes.is_empty() {
            // Whatever the neighbours answer, nothing leads to them any more.
            self.slow.give_up(&mut self.pipeline.exits);
        }
        let tables = self.tables.load();
        self.slow.settle(&mut self.pipeline, &mut self.stock, tables, now);
        self.count_waiting();
    }

    /// Drops what waits for a port that nobody serves, neither here nor across a ring.
    fn shut(&mut self, port: PortId) {
        let served = self.lanes.iter().any(|lane| lane.port == port && lane.can_send)
            || self.outbound.iter().any(|outbound| outbound.ports.contains(&port));
        if !served {
            self.pipeline.shaper.close(port, &mut self.pipeline.exits);
        }
    }

    /// Polls until `stop`, then until nothing waits, for at most a second; sleeps when idle. `commands` come from
    /// control, which notifies what the doorbell rings; workers ring it when packets crossed.
    pub fn run(&mut self, commands: &mut rtrb::Consumer<Command>, bell: &Doorbell, stop: &AtomicBool) {
        let now = || Time(sys::clock::monotonic_ns());
        let mut waiter = xsk::Waiter::new();
        let mut idle = 0;
        let mut looked = now();
        while !stop.load(Relaxed) {
            while let Ok(command) = commands.pop() {
                self.obey(command, now());
            }
            self.answer_some();
            if self.lanes.iter().any(|lane| !lane.alive) {
                self.close(|lane| !lane.alive, now());
            }
            let round = now();
            idle = if self.poll(round) == 0 { idle + 1 } else { 0 };
            if round.since(looked) > Time::SECOND {
                looked = round;
                self.count_losses();
            }
            if idle > IDLE_ROUNDS && self.asked.is_empty() {
                self.sleep(&mut waiter, bell, now());
            }
        }
        let deadline = now().0 + Time::SECOND;
        while (self.pipeline.shaper.waiting() != 0 || self.is_called()) && now().0 < deadline {
            self.poll(now());
        }
        self.close(|_| true, now());
    }

    /// Asks the drivers what was lost: a system call each, so once a second.
    fn count_losses(&mut self) {
        for lane in &mut self.lanes {
            self.pipeline.tally.port_lost(lane.port, lane.driver.losses());
        }
    }

    /// Whether packets from another worker are here.
    fn is_called(&self) -> bool {
        self.inbound.iter().any(|ring| !ring.is_empty())
    }

    /// Nanoseconds in which nothing is to be done unless something comes.
    fn patience(&self, now: Time) -> u64 {
        let patience = self.slow.deadline().map_or(LONGEST_SLEEP, |deadline| deadline.since(now).max(1_000_000));
        let stalls = self.lanes.iter().filter_map(|lane| lane.stalls_for(now));
        let patience = stalls.fold(patience, u64::min);
        let is_stalled = |port| self.lanes.iter().any(|lane| lane.port == port && lane.stalls_for(now).is_some());
        match self.pipeline.shaper.deadline_of(|port| !is_stalled(port), now) {
            // It waits for room in the ring to another worker.
            Some(due) if due <= now => patience.min(SHORTEST_SLEEP),
            Some(due) => patience.min(due.since(now)),
            None => patience,
        }
        .min(LONGEST_SLEEP)
    }

    /// Sleeps until something can be received, control or another worker calls, or a held packet gives up.
    fn sleep(&mut self, waiter: &mut xsk::Waiter, bell: &Doorbell, now: Time) {
        bell.falls_asleep();
        if !self.is_called() {
            let fds = self.lanes.iter().filter_map(|lane| lane.driver.wait_on()).chain([(*bell.wake).as_fd()]);
            let patience = self.patience(now);
            if patience != 0 {
                self.tables.rest();
                // Under a wait that fails, this is a busy loop and no worse.
                let _ready = waiter.wait(fds, Some(Duration::from_nanos(patience)));
                self.tables.wake();
            }
        }
        bell.wakes();
        bell.wake.drain();
    }
}

/// Leaves that a report goes through in one round: some 15 µs.
const LEAVES_AT_ONCE: usize = 1024;
/// Rounds without a packet before the worker sleeps: a poll costs less than a wake-up.
const IDLE_ROUNDS: u32 = 64;
/// Nanoseconds of sleep at most: a full ring that nobody signals is looked at again.
const LONGEST_SLEEP: u64 = 100_000_000;
/// Nanoseconds of sleep at most while packets wait for room in the ring to another worker.
const SHORTEST_SLEEP: u64 = 1_000_000;

#[cfg(test)]
mod tests;
