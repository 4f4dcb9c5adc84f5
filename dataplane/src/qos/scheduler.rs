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
//! Ways take turns of the length of all their leaves' turns: a tenant's share of a port does not depend on how
//! many others use the same tunnel.

mod eligible;

use super::bucket::{Bucket, Caps};
use super::delays::Delays;
use super::fq::{FlowLists, Flows};
use super::leaf::{ClassQueue, Discipline, GREEN, Leaf, QUANTUM, Signal, State, Tenant, Way, YELLOW, wire_octets};
use super::list::{List, NIL};
use super::red::Random;
use super::ring::Ring;
use super::spec::{Account, Limit, PortSpec, Rate, Spec};
use super::store::{Size, Store, Sum, Taken};
use super::wheel::Wheel;
use crate::packet::{Batch, Class, DropReason, Exit, Exits, Packet, Time, TunnelId};
use std::sync::Arc;
use wire::Ecn;

/// The queues of one port.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) spec: Arc<Spec>,
    pub(super) port: PortSpec,
    /// The link itself.
    link: Caps,
    green: List<GREEN>,
    yellow: List<YELLOW>,
    pub(super) ways: Box<[Way]>,
    pub(super) tenants: Box<[Tenant]>,
    /// By tenant, a bit for each way by which it has packets: whole words for each.
    active: Box<[u64]>,
    /// By way, and of one way by tenant.
    pub(super) leaves: Box<[Leaf]>,
    /// By leaf, and of one leaf by class.
    pub(super) queues: Box<[ClassQueue]>,
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

/// What a call lets go.
struct Departure<'a> {
    out: &'a mut Batch,
    exits: &'a mut Exits,
    /// Descriptors.
    room: usize,
    /// Early drops that are still allowed: more are made in the next call.
    drops: usize,
    /// Which of `out` are to be marked: once their memory is there.
    marks: u64,
    now: Time,
    /// What has left its queue.
    gone: Sum,
}

/// Flow queues of a port at most.
const MOST_FLOWS: usize = 1 << 16;
/// A port may have so many eighths of the free buffer.
const PORT_ALPHA: u32 = 16;
/// Nanoseconds that a strict class may be ahead of its limit, at its limit's rate.
const STRICT_BURST_NS: u64 = 500_000;
/// Packets of a way's green leaves before the next way's: neighbours' memory is asked for ahead.
const GREENS: u8 = 8;
/// Turns ahead for which a leaf's first packet is asked for, then its queue, and first of all the leaf.
const NEAR: u32 = 2;
const FAR: u32 = 4;
const FARTHER: u32 = 7;
/// Early drops of one call at most.
const DROPS: usize = Batch::SIZE;

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
            leaf.quantum = QUANTUM * i32::from(spec.tenants[usize::from(leaf.tenant)].weight.value());
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
            green: List::default(),
            yellow: List::default(),
            ways: (0..ways).map(|at| Way::new(caps(at), tenants)).collect(),
            active: vec![0; tenants * ways.div_ceil(64)].into(),
            tenants: spec.tenants.iter().map(Tenant::new).collect(),
            queues: in_huge_pages(leaves.len() * Class::COUNT, ClassQueue::default()),
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
        let way = if packet.into != TunnelId::NONE && way < self.ways.len() { way } else { 0 };
        way * tenants + tenant
    }

    /// Asks for the memory that `enqueue` will want.
    #[inline(always)]
    pub fn prefetch(&self, packet: &Packet) {
        let leaf = self.leaf_of(packet);
        let at = leaf * Class::COUNT + packet.class.index();
        sys::prefetch_read(&self.leaves[leaf]);
        sys::prefetch_read(&self.queues[at]);
        if let Some(tenant) = self.tenants.get(packet.tenant.index()) {
            tenant.prefetch();
        }
        if self.flow_mask >> packet.class.index() & 1 != 0 {
            self.flows.prefetch(at as u32, packet.flow);
        }
    }

    /// Takes a packet into its queue.
    ///
    /// # Errors
    ///
    /// Gives it back when its queue or its port has its share of the buffer.
    #[inline]
    pub fn enqueue(&mut self, packet: Box<Packet>, store: &mut Store, now: Time) -> Result<(), Box<Packet>> {
        self.put(packet, store, now, now)
    }

    /// Takes in a packet that has waited before.
    #[inline]
    pub(super) fn put(
        &mut self,
        packet: Box<Packet>,
        store: &mut Store,
        since: Time,
        now: Time,
    ) -> Result<(), Box<Packet>> {
        let index = self.leaf_of(&packet);
        let class = packet.class.index();
        let size = Size::of(&packet);
        let leaf = &mut self.leaves[index];
        let line = &mut self.queues[index * Class::COUNT + class];
        let alpha = self.classes[class].alpha;
        if !store.admits(&line.queue, alpha, size) || !store.admits(&self.backlog, PORT_ALPHA, size) {
            self.tenants[usize::from(leaf.tenant)].refused += 1;
            return Err(packet);
        }
        // A class's only packet needs no flow queue; the next ones go behind it, whichever their flow.
        if self.flow_mask & leaf.mask & 1 << class == 0 {
            store.push(&mut line.queue, packet, size, since)?;
        } else {
            self.put_in_flow(index, class, packet, size, store, since)?;
        }
        self.backlog.count(size, true);
        self.waiting += 1;
        let leaf = &mut self.leaves[index];
        leaf.mask |= 1 << class;
        if leaf.state == State::Idle {
            self.activate(index as u32, now);
        }
        Ok(())
    }

    /// Takes a packet into the queue of its flow.
    #[inline]
    fn put_in_flow(
        &mut self,
        leaf: usize,
        class: usize,
        packet: Box<Packet>,
        size: Size,
        store: &mut Store,
        since: Time,
    ) -> Result<(), Box<Packet>> {
        let at = leaf * Class::COUNT + class;
        let of = self.classes[class].flows.unwrap_or_default();
        let lists = &mut self.lists[leaf * self.flow_classes + usize::from(of)];
        self.leaves[leaf].flowing |= 1 << class;
        let queue = &mut self.queues[at].queue;
        match self.flows.place(lists, at as u32, packet.flow) {
            None => store.push(queue, packet, size, since)?,
            Some(flow) => {
                store.push(&mut self.flows.at(flow).queue, packet, size, since)?;
                queue.count(size, true);
            }
        }
        Ok(())
    }

    /// Lets packets go to a port that has `room` descriptors, a batch at most.
    #[inline]
    pub fn dequeue(&mut self, store: &mut Store, room: usize, out: &mut Batch, exits: &mut Exits, now: Time) {
        while let Some(node) = self.wheel.due(now) {
            self.look_again(node, now);
        }
        self.link.refill(now);
        let gone = Sum::default();
        let mut departure = Departure { out, exits, room, drops: DROPS, marks: 0, now, gone };
        while departure.out.room() > 0 && self.link.is_open() {
            let way = if self.green.is_empty() { self.yellow.head } else { self.green.head };
            if way == NIL || !self.serve(way, store, &mut departure) {
                break;
            }
        }
        let Departure { marks, gone, .. } = departure;
        self.waiting -= gone.packets as usize;
        self.backlog.subtract(gone);
        store.give_back(gone);
        if marks != 0 {
            let marked = |(at, _): &(usize, &mut Packet)| marks >> at & 1 != 0;
            out.iter_mut().enumerate().filter(marked).for_each(|(_, packet)| packet.frame.prefetch());
            out.iter_mut().enumerate().filter(marked).for_each(|(_, packet)| packet.set_ecn(Ecn::Ce));
        }
    }

    /// When there will be something to let go: `None` when nothing waits.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let due = if self.green.is_empty() && self.yellow.is_empty() { self.wheel.deadline()? } else { now };
        Some(Time(due.0.max(now.0.saturating_add(self.link.wait()))))
    }

    /// One step on the way to a packet, or a packet. `false`: there is no room for the packet whose turn it is.
    #[inline(always)]
    fn serve(&mut self, at: u32, store: &mut Store, departure: &mut Departure<'_>) -> bool {
        let now = departure.now;
        let way = &mut self.ways[at as usize];
        way.caps.refill(now);
        if !way.caps.is_open() {
            self.shut(at, now);
            return true;
        }
        let way = &self.ways[at as usize];
        let is_green = way.in_green;
        let turns = if is_green { &way.green } else { &way.yellow };
        let index = turns.first();
        self.look_ahead(turns, store);
        let way = &mut self.ways[at as usize];
        let leaf = &mut self.leaves[index as usize];
        if leaf.state != State::Listed {
            self.pass(index);
            return true;
        }
        if !is_green && way.budget <= 0 && !self.yellow.is_single() {
            way.budget += way.quanta;
            self.yellow.rotate(&mut self.ways);
            return true;
        }
        let tenant = &mut self.tenants[usize::from(leaf.tenant)];
        let is_open = tenant.refill(now);
        if !is_open | leaf.bounded {
            return self.serve_bounded(index, is_green, store, departure);
        }
        if is_green && !tenant.is_green {
            self.fade(index, now);
            return true;
        }
        if !is_green && leaf.deficit <= 0 {
            leaf.deficit += leaf.quantum;
            way.yellow.rotate();
            return true;
        }
        self.send(index, is_green, store, departure)
    }

    /// Asks for memory of the leaves whose turns come, in the order in which one part leads to the next.
    #[inline(always)]
    fn look_ahead(&self, turns: &Ring, store: &Store) {
        let queue = |at: u32, leaf: &Leaf| {
            let class = leaf.mask.trailing_zeros() as usize % Class::COUNT;
            self.queues.get(at as usize * Class::COUNT + class)
        };
        let at = turns.ahead(NEAR);
        if let Some(leaf) = self.leaves.get(at as usize) {
            if let Some(queue) = queue(at, leaf) {
                store.prefetch(&queue.queue);
            }
            if let Some(lists) = self.lists_of(at, leaf) {
                self.flows.prefetch_next(lists);
            }
        }
        let at = turns.ahead(FAR);
        if let Some(leaf) = self.leaves.get(at as usize) {
            if let Some(queue) = queue(at, leaf) {
                sys::prefetch_read(queue);
            }
            if let Some(lists) = self.lists_of(at, leaf) {
                sys::prefetch_read(lists);
            }
            self.tenants[usize::from(leaf.tenant)].prefetch();
        }
        if let Some(leaf) = self.leaves.get(turns.ahead(FARTHER) as usize) {
            sys::prefetch_read(leaf);
        }
    }

    /// The flows of the class that is likely to be next.
    #[inline(always)]
    fn lists_of(&self, at: u32, leaf: &Leaf) -> Option<&FlowLists> {
        if leaf.flowing == 0 {
            return None;
        }
        let of = self.classes[leaf.mask.trailing_zeros() as usize % Class::COUNT].flows?;
        self.lists.get(at as usize * self.flow_classes + usize::from(of))
    }

    /// The same from the leaf on, for a tenant or a leaf that may be above its limit.
    #[cold]
    fn serve_bounded(&mut self, index: u32, is_green: bool, store: &mut Store, departure: &mut Departure<'_>) -> bool {
        let now = departure.now;
        let leaf = self.leaves[index as usize];
        let tenant = &mut self.tenants[usize::from(leaf.tenant)];
        if !tenant.caps.is_open() {
            self.lift(index);
            self.file(index, now);
            return true;
        }
        if let Some(own) = self.own_of(index) {
            let caps = &mut self.own[own].1;
            caps.refill(now);
            if !caps.is_open() {
                self.lift(index);
                self.file(index, now);
                return true;
            }
        }
        if is_green && !self.tenants[usize::from(leaf.tenant)].is_green {
            self.fade(index, now);
            return true;
        }
        if !is_green && leaf.deficit <= 0 {
            self.leaves[index as usize].deficit += leaf.quantum;
            self.ways[usize::from(leaf.way)].yellow.rotate();
            return true;
        }
        self.send(index, is_green, store, departure)
    }

    /// Lets the leaf's next packet go. `false`: there is no room for it.
    #[inline(always)]
    fn send(&mut self, index: u32, is_green: bool, store: &mut Store, departure: &mut Departure<'_>) -> bool {
        let now = departure.now;
        let leaf = &mut self.leaves[index as usize];
        let Some(queues) = self.queues.get_mut(index as usize * Class::COUNT..) else { return false };
        let Some(queues) = queues.first_chunk_mut::<{ Class::COUNT }>() else { return false };
        let class = pick(leaf, queues, &self.classes, self.strict, now);
        let discipline = &self.classes[class];
        let line = &mut queues[class];
        let (taken, left, codel) = match discipline.flows {
            Some(of) if leaf.flowing >> class & 1 != 0 => {
                let lists = &mut self.lists[index as usize * self.flow_classes + usize::from(of)];
                self.flows.take(lists, &mut line.queue, &mut line.codel, store, departure.room)
            }
            _ => (store.unlink(&mut line.queue, departure.room), line.queue.octets(), &mut line.codel),
        };
        let Some(Taken { packet, size, since }) = taken else { return false };
        sys::prefetch_read(&*packet);
        departure.gone.add(size);
        let delay = now.since(since);
        self.delays.record(class, delay);
        let tenant = &mut self.tenants[usize::from(leaf.tenant)];
        let mut packet = Some(packet);
        if delay > discipline.quiet_ns {
            let signals = match &discipline.aqm {
                Signal::Never => false,
                Signal::Red(curve) => curve.signals(delay, self.random.next()),
                Signal::Codel(parameters) => {
                    codel.signals(parameters, delay, left, now) || (delay > discipline.threshold_ns && is_capable(size))
                }
            };
            if signals {
                departure.signal(&mut packet, tenant, size, discipline.drops);
            }
        } else {
            codel.calm();
        }
        if let Some(packet) = packet {
            departure.push(packet, size);
            let octets = self.account.octets(size);
            self.link.spend(wire_octets(size));
            let way = &mut self.ways[usize::from(leaf.way)];
            way.caps.spend(octets);
            tenant.caps.spend(octets);
            if is_green {
                tenant.guarantee.spend_octets(octets);
                tenant.is_green = tenant.guarantee.is_open();
            } else {
                leaf.deficit -= octets as i32;
                way.budget = if self.yellow.is_single() { 0 } else { way.budget - i64::from(octets) };
            }
            charge(leaf, line, class, octets, discipline.stretch, now);
            if leaf.bounded
                && let Ok(own) = self.own.binary_search_by_key(&index, |(leaf, _)| *leaf)
            {
                self.own[own].1.spend(octets);
            }
        }
        self.settle(index, class, is_green)
    }

    /// After a packet has left a leaf: it may have been the class's last, or the leaf's. `true`, always.
    #[inline(always)]
    fn settle(&mut self, index: u32, class: usize, is_green: bool) -> bool {
        let at = index as usize * Class::COUNT + class;
        let leaf = &mut self.leaves[index as usize];
        if self.queues[at].queue.chunks() == 0 {
            leaf.mask &= !(1 << class);
            leaf.deficits[class] = leaf.deficits[class].min(0);
            if leaf.flowing >> class & 1 != 0
                && let Some(of) = self.classes[class].flows
            {
                leaf.flowing &= !(1 << class);
                self.flows.forget(&mut self.lists[index as usize * self.flow_classes + usize::from(of)]);
            }
            if leaf.mask == 0 {
                self.retire(index);
                return true;
            }
        }
        if is_green {
            let way = &mut self.ways[usize::from(leaf.way)];
            way.green.rotate();
            way.greens = way.greens.wrapping_add(1);
            if way.greens.is_multiple_of(GREENS) {
                self.green.rotate(&mut self.ways);
            }
        }
        true
    }

    #[inline]
    fn own_of(&self, leaf: u32) -> Option<usize> {
        self.own.binary_search_by_key(&leaf, |(leaf, _)| *leaf).ok()
    }

    /// The oldest packet of a class, whatever is above it: for what becomes of the queues in a change.
    pub(super) fn take(&mut self, leaf: usize, class: usize, store: &mut Store) -> Option<(Box<Packet>, Time)> {
        let ClassQueue { queue, codel, .. } = &mut self.queues[leaf * Class::COUNT + class];
        let taken = match self.classes[class].flows {
            Some(of) if self.leaves[leaf].flowing >> class & 1 != 0 => {
                let lists = &mut self.lists[leaf * self.flow_classes + usize::from(of)];
                self.flows.take(lists, queue, codel, store, usize::MAX).0
            }
            _ => store.unlink(queue, usize::MAX),
        };
        let Taken { packet, size, since } = taken?;
        let mut gone = Sum::default();
        gone.add(size);
        store.give_back(gone);
        self.waiting -= 1;
        self.backlog.count(size, false);
        self.settle(leaf as u32, class, false);
        Some((packet, since))
    }

    /// All buckets have earned what they earn until now.
    pub(super) fn refill(&mut self, now: Time) {
        self.link.refill(now);
        self.ways.iter_mut().for_each(|way| _ = way.caps.refill(now));
        self.tenants.iter_mut().for_each(|tenant| _ = tenant.refill(now));
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

    /// Earns; whether a packet may go.
    #[inline(always)]
    fn refill(&mut self, now: Time) -> bool {
        let elapsed = self.caps.refill(now);
        if elapsed != 0 && self.is_guaranteed {
            self.guarantee.earn(elapsed);
        }
        self.caps.is_open()
    }

    fn is_above_threshold(&self) -> bool {
        self.guarantee.wait(self.threshold.into()) == 0
    }

    /// Goes on at the levels that it had before a change.
    pub(super) fn inherit(&mut self, other: &Self) {
        self.caps.inherit(&other.caps);
        Bucket::inherit(&mut self.guarantee, &other.guarantee);
        (self.marked, self.dropped, self.refused) = (other.marked, other.dropped, other.refused);
    }
}

impl Departure<'_> {
    /// A packet goes.
    #[inline(always)]
    fn push(&mut self, packet: Box<Packet>, size: Size) {
        self.room -= size.chunks() as usize;
        self.out.push(packet);
    }

    /// A packet is to carry a signal: marked if it can be, else dropped if its class wants that.
    #[inline]
    fn signal(&mut self, packet: &mut Option<Box<Packet>>, tenant: &mut Tenant, size: Size, drops: bool) {
        if is_capable(size) {
            tenant.marked += 1;
            self.marks |= 1 << (self.out.len() % Batch::SIZE);
        } else if drops
            && self.drops != 0
            && size.ecn() == Ecn::NotEct
            && let Some(packet) = packet.take()
        {
            self.drops -= 1;
            tenant.dropped += 1;
            self.exits.push(packet, Exit::Drop(DropReason::EarlyDrop));
        }
    }
}

/// The class whose turn it is. The leaf has one.
#[inline(always)]
fn pick(
    leaf: &mut Leaf,
    queues: &[ClassQueue; Class::COUNT],
    classes: &[Discipline; Class::COUNT],
    strict: u8,
    now: Time,
) -> usize {
    if leaf.mask & leaf.mask.wrapping_sub(1) == 0 {
        // Alone it owes nothing to others for what it sends.
        let class = leaf.mask.trailing_zeros() as usize % Class::COUNT;
        leaf.deficits[class] = leaf.deficits[class].max(1);
        return class;
    }
    let mut urgent = leaf.mask & strict;
    while urgent != 0 {
        let class = urgent.trailing_zeros() as usize % Class::COUNT;
        if ahead(queues[class].due, now) <= STRICT_BURST_NS << 8 {
            return class;
        }
        urgent &= urgent - 1;
    }
    let mask = leaf.mask & !strict;
    if mask == 0 {
        return leaf.mask.trailing_zeros() as usize % Class::COUNT;
    }
    let mut class = usize::from(leaf.turn) % Class::COUNT;
    while mask & 1 << class == 0 || leaf.deficits[class] <= 0 {
        let ahead = mask & (0xfe_u8.wrapping_shl(class as u32));
        class = if ahead != 0 { ahead } else { mask }.trailing_zeros() as usize % Class::COUNT;
        leaf.deficits[class] += classes[class].quantum;
    }
    leaf.turn = class as u8;
    class
}

/// A packet went: its class pays. Turns are not looked at in a strict class, and the moment in no other: to reckon both
/// is less than to guess which.
#[inline(always)]
fn charge(leaf: &mut Leaf, queue: &mut ClassQueue, class: usize, octets: u32, stretch: u32, now: Time) {
    queue.sent_packets += 1;
    queue.sent_octets += u64::from(octets);
    leaf.deficits[class] = leaf.deficits[class].saturating_sub(octets.div_ceil(4) as i16);
    // Q16.16 ns per octet, 1/256: 2⁻²⁴ ns; kept in 1/256 ns.
    let takes = (u64::from(octets) * u64::from(leaf.slowness) * u64::from(stretch)) >> 16;
    queue.due = (now.0 << 8).wrapping_add(ahead(queue.due, now)).wrapping_add(takes);
}

/// Memory that is looked at in no order wants few pages.
pub(super) fn in_huge_pages<T: Clone>(count: usize, value: T) -> Box<[T]> {
    let mut all = Vec::with_capacity(count);
    sys::advise_huge(all.spare_capacity_mut());
    all.resize(count, value);
    all.into()
}

/// How far a strict class is ahead of its limit, in 1/256 ns. The moment wraps around in years, and under a clock that jumped
/// means nothing: more than minutes, which no packet takes at any rate, are none.
#[inline(always)]
const fn ahead(due: u64, now: Time) -> u64 {
    let ahead = due.wrapping_sub(now.0 << 8);
    if ahead >> 46 == 0 { ahead } else { 0 }
}

#[inline(always)]
const fn is_capable(size: Size) -> bool {
    matches!(size.ecn(), Ecn::Ect0 | Ecn::Ect1)
}

const fn later(now: Time, ns: u64) -> Time {
    Time(now.0.saturating_add(ns))
}

/// Nanoseconds per octet in Q16.16, as far as it reaches.
fn slowness(rate: Option<Rate>) -> u32 {
    rate.map_or(0, |rate| ((8_000_000_000_u64 << 16) / rate.bits()).min(u32::MAX.into()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_class_is_ahead_across_the_wrap_of_its_moment_and_not_under_a_clock_that_jumped() {
        // 2⁵⁶ ns are 2.3 years.
        let wrap = 1_u64 << 56;
        let due = (Time(wrap - 1_000).0 << 8).wrapping_add(3_000 << 8);
        assert_eq!(ahead(due, Time(wrap - 1_000)), 3_000 << 8);
        assert_eq!(ahead(due, Time(wrap + 500)), 1_500 << 8);
        assert_eq!(ahead(due, Time(wrap + 2_001)), 0);
        let hour = 3_600_000_000_000;
        assert_eq!(ahead(Time(2 * hour).0 << 8, Time(hour)), 0, "the clock went back by an hour");
        assert_eq!(ahead(0, Time(5)), 0);
    }
}
