//! Who sends next by a port: way out, tenant, class, flow.
//!
//! ```text
//! port ─┬─ green ways ─► way ─┬─ green leaves ─► leaf ─► strict classes, then DRR ─► (flow queues) ─► packet
//!       └─ all ways           └─ all leaves
//! ```
//!
//! A leaf is what one tenant sends by one way: a tunnel, or the port itself. It is green while its tenant is below its
//! guarantee. Green leaves go first, and it costs them nothing of their turns in the list of all, in which what is
//! left is shared by weight. What is above a limit is in no
//! list: a way, a tenant or a leaf that is shut waits on the wheel until its buckets have tokens again. So the work for
//! a packet does not depend on how many others wait.
//!
//! Turns are of octets, not of packets: green ones in proportion to the guarantee, the others to the weight. Ways take turns of
//! the length of all their leaves' turns: a tenant's share of a port does not depend on how many others use the same tunnel.

mod departure;
mod eligible;
mod outstanding;

pub use outstanding::Room;

use super::bucket::{Bucket, Caps};
use super::delays::Delays;
use super::fq::{FlowLists, Flows};
use super::leaf::{ClassQueue, Discipline, GREEN, Leaf, QUANTUM, Signals, Tenant, Way, YELLOW, green_quantum};
use super::list::List;
use super::red::Random;
use super::spec::{Account, Limit, PortSpec, Rate, Spec};
use super::store::{Queue, Size, Store, Sum, Taken};
use super::wheel::Wheel;
use crate::packet::{Batch, Class, Packet, Time};
use outstanding::Bound;
use std::sync::Arc;

/// The queues of one port.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) spec: Arc<Spec>,
    pub(super) port: PortSpec,
    /// The link itself.
    link: Caps,
    pub(super) bound: Bound,
    green: List<GREEN>,
    yellow: List<YELLOW>,
    pub(super) ways: Box<[Way]>,
    pub(super) tenants: Box<[Tenant]>,
    /// By tenant, a bit for each way by which it has packets: so many words for each.
    words: usize,
    active: Box<[u64]>,
    /// By way, and of one way by tenant.
    pub(super) leaves: Box<[Leaf]>,
    /// By leaf, and of one leaf by class.
    pub(super) signals: Box<[Signals]>,
    /// Bounds of single leaves, ordered by leaf.
    own: Box<[(u32, Caps)]>,
    classes: [Discipline; Class::COUNT],
    strict: u8,
    /// Classes with flow queues.
    flow_mask: u8,
    flows: Flows,
    /// By leaf, and of one leaf by class with flow queues.
    lists: Box<[FlowLists]>,
    flow_classes: usize,
    /// Ways, then tenants, then own bounds.
    wheel: Wheel,
    random: Random,
    account: Account,
    pub(super) delays: Delays,
    pub(super) waiting: usize,
    /// Chunks and octets that wait for the port.
    backlog: super::store::Queue,
}

/// Flow queues of a port at most.
const MOST_FLOWS: usize = 1 << 16;
/// A port may have so many eighths of the free buffer.
const PORT_ALPHA: u32 = 16;
impl Scheduler {
    /// With empty queues and full buckets. `spec` has been checked.
    pub fn new(spec: &Arc<Spec>, port: PortSpec) -> Self {
        let (tenants, ways) = (spec.tenants.len(), spec.tunnels.len() + 1);
        let classes = Discipline::all(&spec.classes);
        let flow_classes = classes.iter().filter(|class| class.flows.is_some()).count();
        let flows = if flow_classes == 0 { 0 } else { (2 * spec.buffer.frames as usize).min(MOST_FLOWS) };
        let mut leaves = in_huge_pages(ways * tenants, Leaf::new(0, 0));
        for (at, leaf) in leaves.iter_mut().enumerate() {
            *leaf = Leaf::new((at % tenants) as u16, (at / tenants) as u16);
        }
        let mut own: Vec<_> = spec
            .leaves
            .iter()
            .map(|leaf| {
                let way = leaf.tunnel.map_or(0, |tunnel| usize::from(tunnel) + 1);
                ((way * tenants + usize::from(leaf.tenant)) as u32, Caps::new(&leaf.limit), leaf.limit.rate)
            })
            .collect();
        own.sort_by_key(|(leaf, ..)| *leaf);
        own.dedup_by_key(|(leaf, ..)| *leaf);
        for leaf in &mut leaves {
            let tunnel = usize::from(leaf.way).checked_sub(1).and_then(|tunnel| spec.tunnels[tunnel].cap.rate);
            let least = [port.rate, tunnel, spec.tenants[usize::from(leaf.tenant)].limit.rate];
            leaf.slowness = slowness(least.into_iter().flatten().min());
            let tenant = &spec.tenants[usize::from(leaf.tenant)];
            if let Some(guarantee) = tenant.guarantee {
                leaf.is_guaranteed = true;
                leaf.turns[GREEN].quantum = green_quantum(guarantee);
            }
            leaf.turns[YELLOW].quantum = QUANTUM * i32::from(tenant.weight.value());
        }
        for (at, _, rate) in &own {
            let leaf = &mut leaves[*at as usize];
            leaf.bounded = true;
            leaf.slowness = leaf.slowness.max(slowness(*rate));
        }
        let caps =
            |at: usize| at.checked_sub(1).map_or_else(Caps::default, |tunnel| Caps::new(&spec.tunnels[tunnel].cap));
        let has_flows = |(at, class): (usize, &Discipline)| u8::from(class.flows.is_some()) << at;
        let strict = |(at, class): (usize, &Discipline)| u8::from(class.stretch != 0) << at;
        Self {
            link: Caps::new(&Limit { rate: port.rate, ..Limit::NONE }),
            bound: Bound::new(port.rate),
            green: List::default(),
            yellow: List::default(),
            ways: (0..ways).map(|at| Way::new(caps(at), tenants)).collect(),
            words: ways.div_ceil(64),
            active: vec![0; tenants * ways.div_ceil(64)].into(),
            tenants: spec.tenants.iter().map(Tenant::new).collect(),
            signals: in_huge_pages(leaves.len() * Class::COUNT, Signals::default()),
            lists: vec![FlowLists::default(); leaves.len() * flow_classes].into(),
            flows: Flows::new(flows),
            flow_classes,
            wheel: Wheel::new(ways + tenants + own.len()),
            flow_mask: classes.iter().enumerate().map(has_flows).sum(),
            strict: classes.iter().enumerate().map(strict).sum(),
            leaves,
            own: own.into_iter().map(|(leaf, caps, _)| (leaf, caps)).collect(),
            classes,
            random: Random::new(0x9e37_79b9_7f4a_7c15 ^ u64::from(port.port.0)),
            account: port.account,
            delays: Delays::new(),
            waiting: 0,
            backlog: super::store::Queue::default(),
            spec: Arc::clone(spec),
            port,
        }
    }

    /// How many packets wait.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Where a packet waits.
    #[inline(always)]
    pub(super) fn leaf_of(&self, packet: &Packet) -> usize {
        let tenants = self.tenants.len();
        let tenant = if packet.tenant.index() < tenants { packet.tenant.index() } else { 0 };
        let way = packet.into.index() + 1;
        // No tunnel has the highest number, and is beyond all ways.
        let way = if way < self.ways.len() { way } else { 0 };
        way * tenants + tenant
    }

    /// Asks for the memory that `enqueue` will want.
    #[inline(always)]
    pub fn prefetch(&self, packet: &Packet) {
        let (at, class) = (self.leaf_of(packet), packet.class.index() % Class::COUNT);
        let leaf = &self.leaves[at];
        sys::prefetch_read(leaf);
        sys::prefetch_read(&leaf.queues[class]);
        if let Some(tenant) = self.tenants.get(packet.tenant.index()) {
            sys::prefetch_read(&tenant.guarantee);
        }
        if self.flow_mask >> class & 1 != 0 {
            self.flows.prefetch(owner(at, class), packet.flow);
        }
    }

    /// Takes packets into their queues, those of a batch or more.
    #[inline]
    pub fn enqueue(
        &mut self,
        packets: impl Iterator<Item = Box<Packet>>,
        store: &mut Store,
        now: Time,
        mut refuse: impl FnMut(Box<Packet>),
    ) {
        // Whether a packet is its leaf's first is as good as random: nothing waits for the answer.
        let (mut woken, mut count) = ([0; Batch::SIZE], 0);
        for packet in packets {
            let index = self.leaf_of(&packet);
            let was_idle = self.leaves[index].mask == 0;
            match self.put_at(index, packet, store, now) {
                Ok(()) => {
                    woken[count % Batch::SIZE] = index as u32;
                    count += usize::from(was_idle);
                }
                Err(packet) => refuse(packet),
            }
            if count == Batch::SIZE {
                woken.iter().for_each(|leaf| self.activate(*leaf, now));
                count = 0;
            }
        }
        woken[..count].iter().for_each(|leaf| self.activate(*leaf, now));
    }

    /// Takes in a packet that has waited since then.
    ///
    /// # Errors
    ///
    /// Gives it back when its queue or its port has its share of the buffer.
    pub(super) fn put(
        &mut self,
        packet: Box<Packet>,
        store: &mut Store,
        since: Time,
        now: Time,
    ) -> Result<(), Box<Packet>> {
        let index = self.leaf_of(&packet);
        let was_idle = self.leaves[index].mask == 0;
        self.put_at(index, packet, store, since)?;
        if was_idle {
            self.activate(index as u32, now);
        }
        Ok(())
    }

    /// Takes a packet into its queue in a leaf, which is to be activated if it had none.
    #[inline(always)]
    fn put_at(&mut self, index: usize, packet: Box<Packet>, store: &mut Store, since: Time) -> Result<(), Box<Packet>> {
        let class = packet.class.index() % Class::COUNT;
        let size = Size::of(&packet);
        let leaf = &mut self.leaves[index];
        let queue = &mut leaf.queues[class].queue;
        let is_admitted = store.has_room(size)
            & store.admits(queue, self.classes[class].alpha)
            & store.admits(&self.backlog, PORT_ALPHA);
        if !is_admitted {
            self.signals[index * Class::COUNT + class].refused += 1;
            return Err(packet);
        }
        // Few packets need no flow queues; the next ones go behind them, whichever their flow.
        let has_flows = self.flow_mask & leaf.mask & 1 << class != 0;
        if !has_flows || (leaf.flowing >> class & 1 == 0) & is_short(queue, size, leaf.slowness) {
            store.push(queue, packet, size, since)?;
            leaf.mask |= 1 << class;
        } else {
            self.put_in_flow(index, class, packet, size, store, since)?;
        }
        self.backlog.count(size, true);
        self.waiting += 1;
        Ok(())
    }

    /// Takes a packet into the queue of its flow. Apart, so that the way of others is short.
    #[inline(never)]
    fn put_in_flow(
        &mut self,
        index: usize,
        class: usize,
        packet: Box<Packet>,
        size: Size,
        store: &mut Store,
        since: Time,
    ) -> Result<(), Box<Packet>> {
        let of = self.classes[class].flows.unwrap_or_default();
        let lists = &mut self.lists[index * self.flow_classes + usize::from(of)];
        let leaf = &mut self.leaves[index];
        let queue = &mut leaf.queues[class].queue;
        if leaf.flowing >> class & 1 == 0 {
            leaf.flowing |= 1 << class;
            Flows::begin(lists, queue);
        }
        match self.flows.place(lists, owner(index, class), packet.flow) {
            None => store.push(queue, packet, size, since)?,
            Some(flow) => {
                store.push(&mut self.flows.at(flow).queue, packet, size, since)?;
                queue.count(size, true);
            }
        }
        Ok(())
    }

    /// When there will be something to let go: `None` when nothing waits.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let due = if self.green.is_empty() && self.yellow.is_empty() { self.wheel.deadline()? } else { now };
        Some(Time(due.0.max(now.0.saturating_add(self.link.wait()))))
    }

    #[inline]
    fn own_of(&self, leaf: u32) -> Option<usize> {
        self.own.binary_search_by_key(&leaf, |(leaf, _)| *leaf).ok()
    }

    /// The oldest packet of a class, whatever is above it: for what becomes of the queues in a change.
    pub(super) fn take(&mut self, index: usize, class: usize, store: &mut Store) -> Option<(Box<Packet>, Time)> {
        let leaf = &mut self.leaves[index];
        let ClassQueue { queue, codel, .. } = &mut leaf.queues[class];
        let taken = match self.classes[class].flows {
            Some(of) if leaf.flowing >> class & 1 != 0 => {
                let lists = &mut self.lists[index * self.flow_classes + usize::from(of)];
                let taken = self.flows.take(lists, queue, codel, store, usize::MAX).0;
                if queue.chunks() == 0 {
                    self.flows.forget(lists);
                }
                taken
            }
            _ => store.unlink(queue, usize::MAX),
        };
        let is_last = queue.chunks() == 0;
        let Taken { packet, size, since } = taken?;
        let mut gone = Sum::default();
        gone.add(size);
        store.give_back(gone);
        self.waiting -= 1;
        self.backlog.count(size, false);
        if is_last && leaf.close(class) {
            self.retire(index as u32);
        }
        Some((packet, since))
    }

    /// All buckets have earned what they earn until now.
    pub(super) fn refill(&mut self, now: Time) {
        self.link.refill(now);
        self.ways.iter_mut().for_each(|way| _ = way.caps.refill(now));
        self.tenants.iter_mut().for_each(|tenant| tenant.refill(now));
        self.own.iter_mut().for_each(|(_, caps)| _ = caps.refill(now));
    }

    /// Goes on with the bound that a leaf had before a change.
    pub(super) fn inherit_bound(&mut self, leaf: u32, old: &Self, from: u32) {
        if let (Some(own), Some(was)) = (self.own_of(leaf), old.own_of(from)) {
            self.own[own].1.inherit(&old.own[was].1);
        }
    }

    /// Goes on with the link's bucket before a change.
    pub(super) fn inherit_link(&mut self, other: &Self) {
        self.link.inherit(&other.link);
    }
}

impl Tenant {
    /// Asks for its memory.
    #[inline(always)]
    fn prefetch(&self) {
        sys::prefetch_read(&self.caps);
        sys::prefetch_read(&self.guarantee);
    }

    /// Earns.
    #[inline(always)]
    fn refill(&mut self, now: Time) {
        let elapsed = self.caps.refill(now);
        self.guarantee.earn(elapsed);
    }

    fn is_above_threshold(&self) -> bool {
        self.guarantee.wait(self.threshold.into()) == 0
    }

    /// Goes on at the levels that it had before a change.
    pub(super) fn inherit(&mut self, other: &Self) {
        self.caps.inherit(&other.caps);
        Bucket::inherit(&mut self.guarantee, &other.guarantee);
    }
}

/// Nanoseconds in which a queue without flow queues passes at the least of the rates above.
const SHORT_NS: u64 = 20_000;

/// Whether flows need not be told apart yet: with this packet it is a batch at most, and soon gone.
#[inline(always)]
fn is_short(queue: &Queue, size: Size, slowness: u32) -> bool {
    let octets = u64::from(queue.octets() + size.octets());
    (queue.chunks() < Batch::SIZE as u32) & (octets * u64::from(slowness) <= SHORT_NS << 16)
}

/// What the flows of a leaf's class are known by.
#[inline(always)]
const fn owner(leaf: usize, class: usize) -> u32 {
    (leaf * Class::COUNT + class) as u32
}

/// Memory that is looked at in no order wants few pages.
pub(super) fn in_huge_pages<T: Clone>(count: usize, value: T) -> Box<[T]> {
    let mut all = Vec::with_capacity(count);
    sys::advise_huge(all.spare_capacity_mut());
    all.resize(count, value);
    all.into()
}

const fn later(now: Time, ns: u64) -> Time {
    Time(now.0.saturating_add(ns))
}

/// Nanoseconds per octet in Q16.16, as far as it reaches.
fn slowness(rate: Option<Rate>) -> u32 {
    rate.map_or(0, |rate| ((8_000_000_000_u64 << 16) / rate.bits()).min(u32::MAX.into()) as u32)
}
