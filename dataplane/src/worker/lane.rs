//! A port as its worker sees it, and what it does when the ring is full.

use crate::io::{Driver, Port};
use crate::packet::{Batch, PortId, Stock, Time};
use crate::pipeline::Pipeline;
use crate::qos::Shaper;
use crate::tables::Tables;

/// One of a worker's ports: a queue of an interface, or a device.
pub struct Lane {
    /// The port it belongs to.
    pub port: PortId,
    /// Which of the port's queues.
    pub queue: u32,
    /// How packets come and go.
    pub driver: Port,
    /// A tunnel's device: what comes from it has been routed by the kernel.
    pub injects: bool,
    /// Packets may be sent by it: not by a device, nor by a receive queue that has no send queue.
    pub can_send: bool,
    /// Packets are sent by it: the worker chooses one lane of each port.
    pub sends: bool,
    /// The driver has not said that its device is gone.
    pub alive: bool,
    stall: Stall,
}

impl Lane {
    /// A queue of an interface.
    pub const fn interface(port: PortId, queue: u32, driver: Port) -> Self {
        Self { port, queue, driver, injects: false, can_send: true, sends: false, alive: true, stall: Stall::NONE }
    }

    /// A tunnel's device.
    pub const fn device(port: PortId, driver: Port) -> Self {
        Self { port, queue: 0, driver, injects: true, can_send: false, sends: false, alive: true, stall: Stall::NONE }
    }
}

/// Whether a lane's ring keeps back what could go.
#[derive(Clone, Copy, Debug)]
struct Stall {
    /// Since when it does, if it does.
    since: Option<Time>,
    /// How long it took the last time until half of the ring was empty.
    took_ns: u64,
}

impl Stall {
    const NONE: Self = Self { since: None, took_ns: 0 };
}

impl Lane {
    /// Sends what may go and has room; how many packets that were. In a round in which nothing else happened, a ring that
    /// was full is not looked at before half of it is empty: to give it one packet at a time is to never sleep.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        pipeline: &mut Pipeline,
        stock: &mut Stock,
        batch: &mut Batch,
        (tables, now): (&Tables, Time),
        is_quiet: bool,
    ) -> usize {
        if self.stall.since.is_some() && !self.goes_on(&pipeline.shaper, is_quiet, now) {
            return 0;
        }
        let mut sent = 0;
        while pipeline.shaper.backlog(self.port) != 0 {
            let room = pipeline.shaper.room(self.port, self.driver.room(), self.driver.outstanding());
            pipeline.transmit(self.port, room, batch, tables, now);
            if batch.is_empty() {
                let is_due = pipeline.shaper.deadline_of(|port| port == self.port, now).is_some_and(|due| due <= now);
                self.stall.since = is_due.then(|| self.stall.since.unwrap_or(now));
                break;
            }
            sent += batch.len();
            for packet in batch.drain() {
                self.driver.send(packet, stock);
            }
        }
        sent
    }

    /// Whether there is something to do for a lane whose ring was full.
    fn goes_on(&mut self, shaper: &Shaper, is_quiet: bool, now: Time) -> bool {
        let is_half_empty = shaper.is_half_empty(self.port, self.driver.room(), self.driver.outstanding());
        if is_half_empty && let Some(since) = self.stall.since.take() {
            self.stall.took_ns = now.since(since);
        }
        is_half_empty || !is_quiet
    }

    /// If its ring keeps back what could go: for how long that is not worth a look. A ring that is half empty within
    /// some microseconds is worth one all the time.
    pub(super) fn stalls_for(&self, now: Time) -> Option<u64> {
        let stalled = now.since(self.stall.since?);
        Some((stalled.max(self.stall.took_ns) / 2).min(LONGEST_NAP)).map(|ns| if ns < SHORTEST_NAP { 0 } else { ns })
    }
}

/// Nanoseconds of sleep at least: less than that is not had from the kernel.
const SHORTEST_NAP: u64 = 50_000;
/// Nanoseconds of sleep at most while packets wait for room.
const LONGEST_NAP: u64 = 1_000_000;
