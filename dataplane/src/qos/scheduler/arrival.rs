//! Packets arrive: into which queue each goes, and whether there is room for it.

use super::Scheduler;
use crate::packet::{Batch, Class, Packet, Time};
use crate::qos::fq::Flows;
use crate::qos::store::{Queue, Size, Store, Sum};

/// Where the packets of a batch go, and what they take together.
#[derive(Debug)]
pub struct Arrivals {
    of: [Arrival; Batch::SIZE],
    sum: Sum,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, Default)]
struct Arrival {
    /// Which class of which leaf: see [`owner`].
    owner: u32,
    /// Hash of its flow.
    flow: u32,
    size: Size,
}

/// A port may have so many eighths of the free buffer.
const PORT_ALPHA: u32 = 16;
/// Packets ahead for which what their leaf leads to is asked for.
const NEAR: usize = 4;

impl Scheduler {
    /// Where a packet goes.
    #[inline(always)]
    fn arrival(&self, packet: &Packet) -> Arrival {
        let owner = owner(self.leaf_of(packet), packet.class.index() % Class::COUNT);
        Arrival { owner, flow: packet.flow, size: Size::of(packet) }
    }

    /// The leaf that a packet waits in.
    #[inline(always)]
    fn leaf_of(&self, packet: &Packet) -> usize {
        let tenants = self.tenants.len();
        let tenant = if packet.tenant.index() < tenants { packet.tenant.index() } else { 0 };
        let way = packet.into.index() + 1;
        // No tunnel has the highest number, and is beyond all ways.
        let way = if way < self.ways.len() { way } else { 0 };
        way * tenants + tenant
    }

    /// Finds out where packets go, a batch at most, and asks for memory of that. `None` if one is `foreign`.
    #[inline(always)]
    pub fn arrivals<'a>(
        &self,
        packets: impl Iterator<Item = &'a Packet>,
        foreign: impl Fn(&Packet) -> bool,
    ) -> Option<Arrivals> {
        let mut arrivals = Arrivals { of: [Arrival::default(); Batch::SIZE], sum: Sum::default() };
        let mut any_foreign = false;
        for (arrival, packet) in arrivals.of.iter_mut().zip(packets) {
            *arrival = self.arrival(packet);
            arrivals.sum.add(Sum::of(arrival.size));
            let (leaf, class) = place(arrival.owner);
            sys::prefetch_read(&self.leaves[leaf]);
            sys::prefetch_read(&self.leaves[leaf].queues[class]);
            any_foreign |= foreign(packet);
        }
        (!any_foreign).then_some(arrivals)
    }

    /// Takes the packets of a batch, of which `arrivals` are all, into their queues.
    #[inline]
    pub fn enqueue(
        &mut self,
        packets: impl Iterator<Item = Box<Packet>>,
        arrivals: &Arrivals,
        store: &mut Store,
        now: Time,
        mut refuse: impl FnMut(Box<Packet>),
    ) {
        let mut backlog = self.backlog;
        backlog.add(arrivals.sum);
        if !store.has_room(arrivals.sum) || !store.free().without(arrivals.sum).admits(backlog.load(), PORT_ALPHA) {
            // There may be room for some of them.
            return packets.for_each(|packet| self.put(packet, store, now, now).unwrap_or_else(&mut refuse));
        }
        let (free, mut came) = (store.free(), arrivals.sum);
        // Whether a packet is its leaf's first is as good as random, and whether the leaf has a guarantee: nothing waits
        // for the answers, and leaves for which the work is the same are activated together.
        let (mut woken, mut counts) = ([[0; Batch::SIZE]; 2], [0; 2]);
        for (at, packet) in packets.enumerate() {
            self.ask_for(arrivals.of[(at + NEAR) % Batch::SIZE]);
            let arrival = arrivals.of[at % Batch::SIZE];
            let (index, class) = place(arrival.owner);
            let leaf = &self.leaves[index];
            if !free.admits(leaf.queues[class].queue.load(), self.classes[class].alpha) {
                self.records[arrival.owner as usize].refused += 1;
                came.subtract(Sum::of(arrival.size));
                refuse(packet);
                continue;
            }
            let run = usize::from(leaf.is_guaranteed);
            woken[run][counts[run] % Batch::SIZE] = index as u32;
            counts[run] += usize::from(leaf.mask == 0);
            self.accept(packet, arrival, store, now);
        }
        store.charge(came);
        self.backlog.add(came);
        for (woken, count) in woken.iter().zip(counts) {
            woken[..count].iter().for_each(|leaf| self.activate(*leaf, now));
        }
    }

    /// Asks for what the leaf of a packet leads to.
    #[inline(always)]
    fn ask_for(&self, arrival: Arrival) {
        let (index, class) = place(arrival.owner);
        let leaf = &self.leaves[index];
        if let Some(tenant) = self.tenants.get(usize::from(leaf.tenant)) {
            sys::prefetch_read(&tenant.guarantee);
        }
        if leaf.flowing >> class & 1 != 0 {
            self.flows.prefetch(arrival.owner, arrival.flow);
        }
    }

    /// Takes in a packet that has waited since then.
    ///
    /// # Errors
    ///
    /// Gives it back when its queue or its port has its share of the buffer.
    pub fn put(&mut self, packet: Box<Packet>, store: &mut Store, since: Time, now: Time) -> Result<(), Box<Packet>> {
        let arrival = self.arrival(&packet);
        let (index, class) = place(arrival.owner);
        let leaf = &self.leaves[index];
        let (free, came) = (store.free(), Sum::of(arrival.size));
        let is_admitted = store.has_room(came)
            && free.admits(leaf.queues[class].queue.load(), self.classes[class].alpha)
            && free.admits(self.backlog.load(), PORT_ALPHA);
        if !is_admitted {
            self.records[arrival.owner as usize].refused += 1;
            return Err(packet);
        }
        let was_idle = leaf.mask == 0;
        self.accept(packet, arrival, store, since);
        store.charge(came);
        self.backlog.add(came);
        if was_idle {
            self.activate(index as u32, now);
        }
        Ok(())
    }

    /// Puts a packet, for which there is room, into its queue, in a leaf that is to be activated if it had none.
    #[inline(always)]
    fn accept(&mut self, packet: Box<Packet>, arrival: Arrival, store: &mut Store, since: Time) {
        let (index, class) = place(arrival.owner);
        let leaf = &mut self.leaves[index];
        let queue = &mut leaf.queues[class].queue;
        // Few packets need no flow queues; the next ones go behind them, whichever their flow.
        let has_flows = self.flow_mask & leaf.mask & 1 << class != 0;
        if !has_flows || (leaf.flowing >> class & 1 == 0) & is_short(queue, arrival.size, leaf.slowness) {
            store.link(queue, packet, arrival.size, since);
            leaf.mask |= 1 << class;
        } else {
            self.put_in_flow(packet, arrival, store, since);
        }
    }

    /// Puts a packet into the queue of its flow. Apart, so that the way of others is short.
    #[inline(never)]
    fn put_in_flow(&mut self, packet: Box<Packet>, arrival: Arrival, store: &mut Store, since: Time) {
        let Arrival { owner, flow, size } = arrival;
        let (index, class) = place(owner);
        let lists = &mut self.lists[index * self.flow_classes + usize::from(self.classes[class].flows)];
        let leaf = &mut self.leaves[index];
        let queue = &mut leaf.queues[class].queue;
        if leaf.flowing >> class & 1 == 0 {
            leaf.flowing |= 1 << class;
            Flows::begin(lists, queue);
        }
        match self.flows.place(lists, owner, flow) {
            None => store.link(queue, packet, size, since),
            Some(flow) => {
                store.link(&mut self.flows.at(flow).queue, packet, size, since);
                queue.load_mut().add(size.load());
            }
        }
    }
}

/// Nanoseconds in which a queue without flow queues passes at the least of the rates above.
const SHORT_NS: u64 = 20_000;

/// Whether flows need not be told apart yet: with this packet it is a batch at most, and soon gone.
#[inline(always)]
fn is_short(queue: &Queue, size: Size, slowness: u32) -> bool {
    let octets = queue.load().octets() + u64::from(size.octets());
    (queue.load().chunks() < Batch::SIZE as u32) & (octets * u64::from(slowness) <= SHORT_NS << 16)
}

/// What the queues of a leaf's class are known by.
#[inline(always)]
const fn owner(leaf: usize, class: usize) -> u32 {
    (leaf * Class::COUNT + class) as u32
}

/// Which class of which leaf that is.
#[inline(always)]
const fn place(owner: u32) -> (usize, usize) {
    (owner as usize / Class::COUNT, owner as usize % Class::COUNT)
}
