//! What happens to the queues beside the packets' way: changed, emptied, looked at.

use super::delays::Histogram;
use super::leaf::{GREEN, Leaf, Record, State, YELLOW};
use super::numbers::Renumbering;
use super::ring::Ring;
use super::spec::{Spec, SpecError};
use super::store::Store;
use super::{Fifo, Queue, Scheduler, Shaper};
use crate::packet::{Class, DropReason, Exit, Exits, Packet, PortId, TenantId, Time, TunnelId};
use std::mem;
use std::sync::Arc;

/// Schedulers that have been built, for a worker to go on with.
#[derive(Debug)]
pub struct Plan {
    schedulers: Vec<Option<Box<Scheduler>>>,
    spec: Arc<Spec>,
}

impl Plan {
    /// For ports `0..ports`.
    ///
    /// # Errors
    ///
    /// The specification cannot be kept.
    pub fn new(spec: &Arc<Spec>, ports: usize) -> Result<Self, SpecError> {
        spec.check()?;
        let mut schedulers: Vec<_> = (0..ports).map(|_| None).collect();
        for port in &spec.ports {
            if let Some(place) = schedulers.get_mut(port.port.index()) {
                *place = Some(Box::new(Scheduler::new(spec, *port)));
            }
        }
        Ok(Self { schedulers, spec: Arc::clone(spec) })
    }
}

impl Shaper {
    /// Goes on under another plan. What waits stays, in its order within each flow; tokens stay too, as far as they
    /// fit. A packet that finds no room under the new plan is dropped.
    ///
    /// Gives back what is no longer needed, so that it can be freed elsewhere.
    pub fn adopt(&mut self, plan: Plan, exits: &mut Exits, now: Time) -> Plan {
        let Plan { schedulers, spec } = plan;
        self.store.resize(spec.buffer);
        let old_spec = self.spec.replace(Arc::clone(&spec));
        match &old_spec {
            Some(old) => self.numbers.change(Renumbering::between(old, &spec), spec.numbering),
            None => self.numbers.now = spec.numbering,
        }
        let mut old: Vec<_> = (0..self.queues.len()).map(|_| None).collect();
        let schedulers = schedulers.into_iter().chain(std::iter::repeat_with(|| None)).take(self.queues.len());
        for (at, next) in schedulers.enumerate() {
            let before = match &self.queues[at] {
                Queue::Closed | Queue::Crossing(_) => {
                    old[at] = mem::replace(&mut self.idle[at], next);
                    continue;
                }
                Queue::Fifo(_) if next.is_none() => continue,
                Queue::Fifo(fifo) => fifo.len(),
                Queue::Shaped(scheduler) => scheduler.len(),
            };
            let next = match next {
                Some(scheduler) => Queue::Shaped(scheduler),
                None => Queue::Fifo(Fifo::new(self.limit)),
            };
            let was = mem::replace(&mut self.queues[at], next);
            let mut leave = |packet, reason| exits.push(packet, Exit::Drop(reason));
            let full = DropReason::QueueFull;
            match (was, &mut self.queues[at]) {
                (Queue::Shaped(mut was), Queue::Shaped(next)) => {
                    next.take_over(&mut was, &mut self.store, now, &mut |packet| leave(packet, full));
                    old[at] = Some(was);
                }
                (Queue::Fifo(mut was), Queue::Shaped(next)) => {
                    while let Some(mut packet) = was.pop(usize::MAX) {
                        if !self.numbers.renew(&mut packet) {
                            leave(packet, DropReason::UnknownNumbering);
                            continue;
                        }
                        let since = packet.arrived.min(now);
                        let put = next.put(packet, &mut self.store, since, now);
                        put.unwrap_or_else(|packet| leave(packet, full));
                    }
                }
                (Queue::Shaped(mut was), Queue::Fifo(next)) => {
                    was.drain(&mut self.store, |packet| {
                        next.push(packet).unwrap_or_else(|packet| leave(packet, full));
                    });
                    old[at] = Some(was);
                }
                _ => {}
            }
            let after = match &self.queues[at] {
                Queue::Closed | Queue::Crossing(_) => 0,
                Queue::Fifo(fifo) => fifo.len(),
                Queue::Shaped(scheduler) => scheduler.len(),
            };
            self.waiting = self.waiting + after - before;
        }
        self.shaped = self.queues.iter().filter(|queue| matches!(queue, Queue::Shaped(_))).count();
        Plan { schedulers: old, spec: old_spec.unwrap_or(spec) }
    }

    /// How a port's scheduler does; `None` for a port without one.
    pub fn report(&self, port: PortId) -> Option<PortReport> {
        let mut report = self.report_without_leaves(port)?;
        self.report_leaves(&mut report, 0, usize::MAX);
        Some(report)
    }

    /// The same without its leaves, which may be many: see [`report_leaves`](Self::report_leaves).
    pub fn report_without_leaves(&self, port: PortId) -> Option<PortReport> {
        Some(self.shaped(port)?.report())
    }

    /// Adds to a port's report what there is to say of `count` leaves from `first` on, and returns how many there are.
    pub fn report_leaves(&self, report: &mut PortReport, first: usize, count: usize) -> usize {
        let Some(scheduler) = self.shaped(report.port) else { return 0 };
        let all = scheduler.leaves.len();
        report.leaves.extend((first..all.min(first.saturating_add(count))).filter_map(|at| scheduler.report_leaf(at)));
        all
    }

    pub(super) fn shaped(&self, port: PortId) -> Option<&Scheduler> {
        match self.queues.get(port.index())? {
            Queue::Shaped(scheduler) => Some(scheduler),
            _ => None,
        }
    }

    /// Whether no slot of the schedulers' memory is lost or counted twice: for tests.
    pub fn is_whole(&self) -> bool {
        let shaped = self.queues.iter().map(|queue| match queue {
            Queue::Shaped(scheduler) => scheduler.len(),
            _ => 0,
        });
        self.store.is_whole() && shaped.sum::<usize>() == self.store.len()
    }
}

impl Scheduler {
    /// Takes all packets out, each flow's in order.
    pub(super) fn drain(&mut self, store: &mut Store, mut gone: impl FnMut(Box<Packet>)) {
        for leaf in 0..self.leaves.len() {
            while self.leaves[leaf].mask != 0 {
                let class = self.leaves[leaf].mask.trailing_zeros() as usize;
                match self.take(leaf, class, store) {
                    Some((packet, _)) => gone(packet),
                    None => break,
                }
            }
        }
    }

    /// Takes over packets, tokens and counters of `old`: tenants and tunnels are the same if their names are. Packets
    /// of a tenant that is gone are those of `default`; of a tunnel that is gone, the port's own: when they leave, the
    /// tables say what becomes of them.
    pub(super) fn take_over(
        &mut self,
        old: &mut Scheduler,
        store: &mut Store,
        now: Time,
        refuse: &mut impl FnMut(Box<Packet>),
    ) {
        let spec = Arc::clone(&self.spec);
        let numbers = Renumbering::between(&old.spec, &spec);
        let ways = numbers.tunnels.iter().map(|tunnel| tunnel.map(|at| usize::from(at) + 1));
        let way_of: Vec<_> = std::iter::once(Some(0)).chain(ways).collect();
        old.refill(now);
        self.inherit_link(old);
        for (old, to) in old.tenants.iter().zip(&numbers.tenants) {
            if let Some(to) = to {
                self.tenants[usize::from(*to)].inherit(old);
            }
        }
        for (old, to) in old.ways.iter().zip(&way_of) {
            if let Some(to) = to {
                self.ways[*to].caps.inherit(&old.caps);
            }
        }
        self.delays = old.delays.clone();
        for leaf in 0..old.leaves.len() {
            let (tenant, way) = (usize::from(old.leaves[leaf].tenant), usize::from(old.leaves[leaf].way));
            if let Some(way) = way_of[way] {
                let tenant = usize::from(numbers.tenants[tenant].unwrap_or(0));
                self.inherit_leaf(way * spec.tenants.len() + tenant, old, leaf);
            }
            while old.leaves[leaf].mask != 0 {
                let class = old.leaves[leaf].mask.trailing_zeros() as usize;
                let Some((mut packet, since)) = old.take(leaf, class, store) else { break };
                numbers.apply(&mut packet, spec.numbering);
                self.put(packet, store, since, now).unwrap_or_else(&mut *refuse);
            }
        }
    }

    fn inherit_leaf(&mut self, to: usize, old: &Scheduler, from: usize) {
        for class in 0..Class::COUNT {
            let before = &old.leaves[from].queues[class];
            let queue = &mut self.leaves[to].queues[class];
            queue.due = queue.due.max(before.due);
            let record = &mut self.records[to * Class::COUNT + class];
            let was = old.records[from * Class::COUNT + class].with(before.sent);
            *record = Record { codel: was.codel, ..record.and(&was) };
        }
        self.leaves[to].uneasy |= old.leaves[from].uneasy;
        self.inherit_bound(to as u32, old, from as u32);
    }

    /// What one tenant sends by one way; `None` if that has had no packets.
    fn report_leaf(&self, at: usize) -> Option<LeafReport> {
        let leaf = &self.leaves[at];
        let record = |class: usize| self.records[at * Class::COUNT + class].with(leaf.queues[class].sent);
        let records: [Record; Class::COUNT] = std::array::from_fn(record);
        (leaf.mask != 0 || records.iter().any(|record| !record.is_empty())).then(|| LeafReport {
            tenant: TenantId(leaf.tenant),
            tunnel: leaf.way.checked_sub(1).map(TunnelId),
            throttled: matches!(leaf.state, State::Parked | State::Bound) || self.ways[usize::from(leaf.way)].is_shut,
            classes: std::array::from_fn(|class| ClassReport {
                sent_packets: records[class].sent_packets,
                sent_octets: records[class].sent_octets,
                queue_octets: leaf.queues[class].queue.load().octets(),
                marked: records[class].marked,
                dropped: records[class].dropped,
                refused: records[class].refused,
            }),
        })
    }

    /// How it does, without its leaves.
    fn report(&self) -> PortReport {
        let class = |at: usize| Class::new(at as u8).unwrap_or_default();
        PortReport {
            port: self.port.port,
            waiting: self.len(),
            leaves: Vec::new(),
            delays_ns: std::array::from_fn(|at| [0.5, 0.99, 0.999].map(|share| self.delays.quantile(class(at), share))),
            delays: std::array::from_fn(|at| self.delays.histogram(class(at))),
        }
    }

    /// Whether lists, masks and counts agree: for tests.
    pub fn is_consistent(&self) -> bool {
        let all = |which: fn(&Leaf) -> bool| self.leaves.iter().filter(|leaf| which(leaf)).count();
        let (mut yellow, mut green) = (0, 0);
        for (number, way) in self.ways.iter().enumerate() {
            let leaf = |turns: &Ring, at: usize| &self.leaves[turns.ahead(at as u32) as usize];
            let own = |leaf: &Leaf| usize::from(leaf.way) == number;
            (yellow, green) = (yellow + way.yellow.len(), green + way.green.len());
            let listed = self.leaves.iter().filter(|leaf| own(leaf) && leaf.state == State::Listed);
            if way.is_astray()
                || way.shares[YELLOW].quanta != listed.map(|leaf| i64::from(leaf.turns[YELLOW].quantum)).sum::<i64>()
                || way.shares[GREEN].quanta
                    != (0..way.green.len()).map(|at| i64::from(leaf(&way.green, at).turns[GREEN].quantum)).sum::<i64>()
                || !(0..way.yellow.len()).map(|at| leaf(&way.yellow, at)).all(|leaf| own(leaf) && leaf.in_yellow)
                || !(0..way.green.len()).map(|at| leaf(&way.green, at)).all(|leaf| own(leaf) && leaf.in_green)
            {
                return false;
            }
        }
        // Each has one place, since there are as many as have one.
        let in_turns = (all(|leaf| leaf.in_yellow), all(|leaf| leaf.in_green)) == (yellow, green);
        let turns = all(|leaf| leaf.state == State::Listed && !leaf.in_yellow && !leaf.in_green) == 0;
        let idle_without = self.leaves.iter().all(|leaf| (leaf.mask == 0) == (leaf.state == State::Idle));
        let masks = self.leaves.iter().all(|leaf| {
            (0..Class::COUNT).all(|class| (leaf.mask >> class & 1 == 0) == leaf.queues[class].queue.load().is_empty())
        });
        in_turns && turns && idle_without && masks
    }
}

/// A port's scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct PortReport {
    /// Which port.
    pub port: PortId,
    /// Packets that wait.
    pub waiting: usize,
    /// Leaves that have or had packets.
    pub leaves: Vec<LeafReport>,
    /// The delays that half, 99 % and 99.9 % of each class's packets did not exceed.
    pub delays_ns: [[Option<u64>; 3]; Class::COUNT],
    /// How many packets of each class waited how long.
    pub delays: [Histogram; Class::COUNT],
}

/// What one tenant sends by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafReport {
    /// Whose.
    pub tenant: TenantId,
    /// Into which tunnel; `None`: by the port directly.
    pub tunnel: Option<TunnelId>,
    /// A limit holds it back now.
    pub throttled: bool,
    /// By class.
    pub classes: [ClassReport; Class::COUNT],
}

/// One class of a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassReport {
    /// Packets sent.
    pub sent_packets: u64,
    /// Octets of them, as its port counts them.
    pub sent_octets: u64,
    /// Octets that wait.
    pub queue_octets: u64,
    /// Packets marked.
    pub marked: u64,
    /// Packets dropped early, in place of a mark.
    pub dropped: u64,
    /// Packets for which the buffer had no room.
    pub refused: u64,
}
