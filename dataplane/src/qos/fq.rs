//! Queues of single flows under a class: FQ-CoDel (RFC 8290), over one table for all classes of a port.
//!
//! A flow's place is one of eight that its hash allows. When others have all eight it waits in its class's common queue,
//! and from then on so does every flow without a place until that queue is empty: none overtakes itself.
//!
//! Flows are told apart once there is a queue: packets that wait no longer than it takes to serve them go in the order in
//! which they came, through the common queue.

use super::codel;
use super::list::NIL;
use super::store::{Queue, Store, Taken};

/// Flows that have or had packets lately.
#[derive(Debug)]
pub struct Flows {
    flows: Box<[Flow]>,
    /// What each place is taken by, mixed into a number; 0: free. Eight of them are half a line of memory.
    tags: Box<[u32]>,
}

/// One flow of one class of one leaf.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Its packets.
    pub queue: Queue,
    /// When it signals.
    pub codel: codel::State,
    /// Octets that it may still send in this turn.
    pub deficit: i32,
    next: u32,
    /// Which class of which leaf; `NIL`: free.
    owner: u32,
    hash: u32,
}

/// The flows of one class of one leaf: those that have just begun go before the others.
#[derive(Clone, Copy, Debug)]
pub struct FlowLists {
    new: (u32, u32),
    old: (u32, u32),
    /// The common queue has had its turn.
    common: bool,
    /// The common queue has packets of flows that found no place.
    overflows: bool,
    /// Chunks in the common queue that came before flows were told apart, and go before them.
    ahead: u32,
}

impl Default for FlowLists {
    fn default() -> Self {
        Self { new: (NIL, NIL), old: (NIL, NIL), common: false, overflows: false, ahead: 0 }
    }
}

/// Octets of a flow's turn.
const QUANTUM: i32 = 1514;
/// Places that a hash allows.
const SET: usize = 8;

impl Flows {
    /// So many, rounded up.
    pub fn new(flows: usize) -> Self {
        let free = Flow {
            queue: Queue::default(),
            codel: codel::State::default(),
            deficit: 0,
            next: NIL,
            owner: NIL,
            hash: 0,
        };
        let count = flows.next_power_of_two().max(SET);
        Self { flows: vec![free; count].into(), tags: vec![0; count].into() }
    }

    /// A flow's place, taken for it if need be; `None`: the common queue.
    #[inline]
    pub fn place(&mut self, lists: &mut FlowLists, owner: u32, hash: u32) -> Option<u32> {
        let (first, tag) = self.set_of(owner, hash);
        let (mut same, mut free) = (0_u32, 0_u32);
        for (at, other) in self.tags[first..first + SET].iter().enumerate() {
            same |= u32::from(*other == tag) << at;
            free |= u32::from(*other == 0) << at;
        }
        while same != 0 {
            let at = first + same.trailing_zeros() as usize;
            if (self.flows[at].owner, self.flows[at].hash) == (owner, hash) {
                return Some(at as u32);
            }
            same &= same - 1;
        }
        if free == 0 || lists.overflows {
            lists.overflows = true;
            return None;
        }
        let at = first + free.trailing_zeros() as usize;
        self.tags[at] = tag;
        let flow = &mut self.flows[at];
        *flow = Flow { owner, hash, deficit: QUANTUM, codel: codel::State::default(), next: NIL, ..*flow };
        self.push(&mut lists.new, at as u32);
        Some(at as u32)
    }

    /// The first place that a flow may have, and its tag.
    #[inline(always)]
    fn set_of(&self, owner: u32, hash: u32) -> (usize, u32) {
        let mixed = u64::from(hash ^ owner.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = ((mixed >> 20) as usize).wrapping_mul(SET) & (self.flows.len() - 1);
        (first, (mixed >> 32) as u32 | 1)
    }

    /// From now on a class's packets have flow queues: those in its common queue go before them.
    #[inline(always)]
    pub const fn begin(lists: &mut FlowLists, common: &Queue) {
        lists.ahead = common.load().chunks();
    }

    /// Asks for the memory that `place` will want.
    #[inline(always)]
    pub fn prefetch(&self, owner: u32, hash: u32) {
        let (first, _) = self.set_of(owner, hash);
        sys::prefetch_read(&self.tags[first]);
        // Most sets have few flows, in their first places.
        sys::prefetch_read(&self.flows[first]);
    }

    /// The flow whose turn it is, with a packet; `None`: the common queue's. What has its turn without a packet that
    /// leaves keeps it.
    #[inline]
    fn turn(&mut self, lists: &mut FlowLists, common: &Queue) -> Option<u32> {
        if common.is_empty() {
            lists.overflows = false;
        } else if lists.ahead != 0 || !lists.common {
            return None;
        }
        loop {
            let is_new = lists.new.0 != NIL;
            let at = if is_new { lists.new.0 } else { lists.old.0 };
            let flow = self.flows.get_mut(at as usize)?;
            if flow.deficit > 0 && !flow.queue.is_empty() {
                return Some(at);
            }
            let spent = flow.deficit <= 0;
            if spent {
                flow.deficit += QUANTUM;
            }
            let from = if is_new { &mut lists.new } else { &mut lists.old };
            from.0 = flow.next;
            if from.0 == NIL {
                from.1 = NIL;
            }
            // What has emptied passes once through the old ones, or it could be new all the time (RFC 8290 §4.2).
            if spent || is_new {
                flow.next = NIL;
                self.push(&mut lists.old, at);
            } else {
                flow.owner = NIL;
                self.tags[at as usize] = 0;
            }
        }
    }

    /// Takes out the class's next packet, if it has at most `room` chunks: with the octets behind it, and what says when
    /// the flow's queue signals, if it has one of its own. `common` is the common queue, and the sum of all.
    #[inline]
    pub fn take(
        &mut self,
        lists: &mut FlowLists,
        common: &mut Queue,
        store: &mut Store,
        room: usize,
    ) -> (Option<Taken>, u64, Option<&mut codel::State>) {
        let Some(place) = self.turn(lists, common) else {
            let taken = store.unlink(common, room);
            if let Some(Taken { size, .. }) = &taken {
                lists.common = true;
                lists.ahead = lists.ahead.saturating_sub(size.chunks());
            }
            return (taken, common.load().octets(), None);
        };
        let flow = &mut self.flows[place as usize];
        let taken = store.unlink(&mut flow.queue, room);
        if let Some(Taken { size, .. }) = &taken {
            common.load_mut().subtract(size.load());
            flow.deficit -= size.octets() as i32;
            lists.common = false;
        }
        (taken, flow.queue.load().octets(), Some(&mut flow.codel))
    }

    /// Asks for the memory of the flow that is likely to be next.
    #[inline(always)]
    pub fn prefetch_next(&self, lists: &FlowLists) {
        let at = if lists.new.0 != NIL { lists.new.0 } else { lists.old.0 };
        if let Some(flow) = self.flows.get(at as usize) {
            sys::prefetch_read(flow);
        }
    }

    /// All flows of a class, which has no packet left, are forgotten.
    pub fn forget(&mut self, lists: &mut FlowLists) {
        for mut at in [lists.new.0, lists.old.0] {
            while let Some(flow) = self.flows.get_mut(at as usize) {
                flow.owner = NIL;
                self.tags[at as usize] = 0;
                at = flow.next;
            }
        }
        *lists = FlowLists::default();
    }

    /// One that was placed.
    #[inline(always)]
    pub fn at(&mut self, at: u32) -> &mut Flow {
        &mut self.flows[at as usize]
    }

    fn push(&mut self, list: &mut (u32, u32), at: u32) {
        match self.flows.get_mut(list.1 as usize) {
            Some(tail) => tail.next = at,
            None => list.0 = at,
        }
        list.1 = at;
    }
}
