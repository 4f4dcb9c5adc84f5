//! Who sends next by a port: way out, tenant, class, flow.
//!
//! ```text
//! port ─┬─ green ways ─► way ─┬─ green leaves ─► leaf ─► strict classes, then DRR ─► (flow queues) ─► packet
//!       └─ all ways           └─ all leaves
//! ```
//!
//! A leaf is what one tenant sends by one way: a tunnel, or the port itself. It is green while its tenant is below its
//! guarantee. Green leaves go first, and it costs them nothing of their turns in the list of all, in which what is
//! left is shared by weight, and which they join when the guarantee is used up. What is above a limit is in no
//! list: a way, a tenant or a leaf that is shut waits on the wheel until its buckets have tokens again. So the work for
//! a packet does not depend on how many others wait.
//!
//! Turns are of octets, not of packets: green ones in proportion to the guarantee, the others to the weight. Ways take turns of
//! the length of all their leaves' turns: a tenant's share of a port does not depend on how many others use the same tunnel.

mod arrival;
mod departure;
mod eligible;
mod outstanding;

pub use outstanding::Room;

use super::bucket::{Bucket, Caps};
use super::delays::Delays;
use super::fq::{FlowLists, Flows};
use super::leaf::{ClassQueue, Counting, Discipline, GREEN, Leaf, QUANTUM, Record, Tenant, Way, YELLOW, green_quantum};
use super::list::List;
use super::red::Random;
use super::spec::{Limit, PortSpec, Rate, Spec};
use super::store::{Store, Sum, Taken};
use super::wheel::Wheel;
use crate::packet::{Class, Packet, Time};
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
    pub(super) records: Box<[Record]>,
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
    counting: Counting,
    pub(super) delays: Delays,
    /// What waits for the port.
    backlog: Sum,
}

/// Flow queues of a port at most.
const MOST_FLOWS: usize = 1 << 16;
impl Scheduler {
    /// With empty queues and full buckets. `spec` has been checked.
    pub fn new(spec: &Arc<Spec>, port: PortSpec) -> Self {
        let (tenants, ways) = (spec.tenants.len(), spec.tunnels.len() + 1);
        let classes = Discipline::all(&spec.classes);
        let flow_classes = classes.iter().filter(|class| class.has_flows).count();
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
        let has_flows = |(at, class): (usize, &Discipline)| u8::from(class.has_flows) << at;
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
            records: in_huge_pages(leaves.len() * Class::COUNT, Record::default()),
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
            counting: port.account.into(),
            delays: Delays::new(),
            backlog: Sum::default(),
            spec: Arc::clone(spec),
            port,
        }
    }

    /// How many packets wait.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.backlog.packets as usize
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.backlog.packets == 0
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
        let ClassQueue { queue, .. } = &mut leaf.queues[class];
        let taken = if leaf.flowing >> class & 1 != 0 {
            let lists = &mut self.lists[index * self.flow_classes + usize::from(self.classes[class].flows)];
            let taken = self.flows.take(lists, queue, store, usize::MAX).0;
            if queue.load().is_empty() {
                self.flows.forget(lists);
            }
            taken
        } else {
            store.unlink(queue, usize::MAX)
        };
        let is_last = queue.load().is_empty();
        let Taken { packet, size, since } = taken?;
        let gone = Sum::of(size);
        store.give_back(gone);
        self.backlog.subtract(gone);
        leaf.close(class, is_last);
        if leaf.mask == 0 {
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
