//! Packets leave: whose turn it is, who pays, and which of them carry a signal.

use super::{Room, Scheduler};
use crate::packet::{Batch, Class, DropReason, Exit, Exits, Packet, Time};
use crate::qos::bucket::Left;
use crate::qos::codel;
use crate::qos::fq::{FlowLists, Flows};
use crate::qos::leaf::{ClassQueue, Discipline, GREEN, Leaf, Signal, State, Tenant, YELLOW, wire_octets};
use crate::qos::list::NIL;
use crate::qos::ring::Ring;
use crate::qos::store::{Size, Store, Sum, Taken};
use std::mem;
use wire::Ecn;

/// What a call lets go.
struct Departure<'a> {
    out: &'a mut Batch,
    exits: &'a mut Exits,
    /// Packets.
    left: usize,
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

/// What became of a packet that was to carry a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Marked,
    Dropped,
    /// Nothing: it cannot be marked, and its class does not drop.
    None,
}

/// What may still be sent, of which the last packet may be in excess.
#[derive(Clone, Copy)]
struct Credit {
    /// Octets of the link.
    wire: i64,
    /// Octets as the port counts them.
    octets: i64,
    packets: i64,
}

/// Why a leaf sends no more.
enum Ends {
    /// There is no room for its next packet.
    NoRoom,
    /// It has sent what it may.
    Spent,
    /// It has no packet left.
    Idle,
}

/// Why a way's turn is interrupted. Leaves are told by their numbers.
enum Pause {
    /// No packet may go any more, or there is no room for the next.
    End,
    /// It is another way's turn.
    Next,
    /// It is above its cap.
    Shut,
    /// The leaf or its tenant is above a limit.
    Park(u32),
    /// The tenant of the leaf whose green turn it is has had its guarantee.
    Fade(u32),
    /// The last leaf is gone from one of its lists.
    Empty,
}

/// Turns ahead for which a leaf's first packet is asked for, then its queue, and first of all the leaf.
const NEAR: u32 = 2;
const FAR: u32 = 4;
const FARTHER: u32 = 7;
/// Early drops of one call at most.
const DROPS: usize = Batch::SIZE;
/// Nanoseconds that a strict class may be ahead of its limit, at its limit's rate.
const STRICT_BURST_NS: u64 = 500_000;

impl Scheduler {
    /// Lets packets go to a port that has `room`, a batch at most.
    #[inline]
    pub fn dequeue(&mut self, store: &mut Store, room: Room, out: &mut Batch, exits: &mut Exits, now: Time) {
        while let Some(node) = self.wheel.due(now) {
            self.look_again(node, now);
        }
        self.link.refill(now);
        let withheld = self.link.withhold(room.octets);
        let (left, room, gone) = (out.room(), room.descriptors, Sum::default());
        let mut departure = Departure { out, exits, left, room, drops: DROPS, marks: 0, now, gone };
        while departure.left > 0 && self.link.is_open() {
            let way = if self.green.is_empty() { self.yellow.head } else { self.green.head };
            if way == NIL {
                break;
            }
            match self.serve(way, store, &mut departure) {
                Pause::End => break,
                Pause::Next if self.ways[way as usize].in_green => self.green.rotate(&mut self.ways),
                Pause::Next => self.yellow.rotate(&mut self.ways),
                Pause::Shut => self.shut(way, now),
                Pause::Park(leaf) => {
                    self.lift(leaf);
                    self.file(leaf, now);
                }
                Pause::Fade(leaf) => self.fade(leaf, now),
                Pause::Empty => self.relist(way as usize),
            }
        }
        let Departure { marks, gone, .. } = departure;
        self.link.restore(withheld);
        self.backlog.subtract(gone);
        store.give_back(gone);
        if marks != 0 {
            out.for_each_of(marks, |packet| packet.frame.prefetch());
            out.for_each_of(marks, |packet| packet.set_ecn(Ecn::Ce));
        }
    }

    /// Lets packets of one way go, as long as it has its turn.
    #[inline]
    fn serve(&mut self, at: u32, store: &mut Store, departure: &mut Departure<'_>) -> Pause {
        let way = &mut self.ways[at as usize];
        way.caps.refill(departure.now);
        let Left { octets, packets } = way.caps.left();
        let whole = Credit { wire: self.link.left().octets, octets, packets };
        let mut credit = whole;
        let pause = self.take_turns(at, &mut credit, store, departure);
        self.link.spend(whole.wire - credit.wire, 0);
        self.ways[at as usize].caps.spend(whole.octets - credit.octets, whole.packets - credit.packets);
        pause
    }

    /// Lets leaves of a way have their turns, as far as the port and the way may send.
    #[inline(always)]
    fn take_turns(&mut self, at: u32, credit: &mut Credit, store: &mut Store, departure: &mut Departure<'_>) -> Pause {
        let now = departure.now;
        let way = &mut self.ways[at as usize];
        let is_green = way.in_green;
        // Of green ways the only one takes turns with itself: that is rare, and they are long.
        let alone = !is_green & self.yellow.is_single();
        let list = if is_green { GREEN } else { YELLOW };
        while departure.left > 0 && credit.wire > 0 {
            if (credit.octets <= 0) | (credit.packets <= 0) {
                return Pause::Shut;
            }
            let turns = if is_green { &mut way.green } else { &mut way.yellow };
            let index = turns.first();
            // Nobody comes after one that is alone.
            if turns.len() > 1 {
                let flows = (&*self.lists, self.flow_classes, &self.flows);
                look_ahead(turns, &self.leaves, &self.tenants, flows, store);
            }
            let leaf = &mut self.leaves[index as usize];
            if leaf.state != State::Listed {
                way.pass(leaf, index);
                if way.is_astray() {
                    return Pause::Empty;
                }
                continue;
            }
            let share = &mut way.shares[list];
            if share.budget <= 0 && !alone {
                share.budget += share.quanta;
                return Pause::Next;
            }
            let tenant = &mut self.tenants[usize::from(leaf.tenant)];
            tenant.refill(now);
            let mut left = tenant.caps.left();
            let mut own = None;
            if leaf.bounded
                && let Ok(at) = self.own.binary_search_by_key(&index, |(leaf, _)| *leaf)
            {
                let caps = &mut self.own[at].1;
                caps.refill(now);
                left = left.min(caps.left());
                own = Some(caps);
            }
            if (left.octets <= 0) | (left.packets <= 0) {
                return Pause::Park(index);
            }
            if is_green {
                if !tenant.is_green {
                    return Pause::Fade(index);
                }
                left.octets = left.octets.min(tenant.guarantee.left_octets());
            }
            let turn = &mut leaf.turns[list];
            if turn.deficit <= 0 {
                turn.deficit += turn.quantum;
                turns.rotate();
                continue;
            }
            // What the leaf may send at once, of which the last packet may be in excess.
            let budget = if alone { i64::MAX } else { share.budget };
            let octets = left.octets.min(turn.deficit.into()).min(budget).min(credit.octets);
            let packets = left.packets.min(credit.packets).min(departure.left as i64);
            let whole = Credit { wire: credit.wire, octets, packets };
            let mut rest = whole;
            let ends = loop {
                let class = leaf.pick(&self.classes, self.strict, now);
                let discipline = &self.classes[class];
                let line = &mut leaf.queues[class];
                let flows = index as usize * self.flow_classes + usize::from(discipline.flows);
                let (taken, behind, flow) = if leaf.flowing >> class & 1 != 0 {
                    self.flows.take(&mut self.lists[flows], &mut line.queue, store, departure.room)
                } else {
                    (store.unlink(&mut line.queue, departure.room), line.queue.load().octets(), None)
                };
                let Some(Taken { packet, size, since }) = taken else { break Ends::NoRoom };
                sys::prefetch_read(&*packet);
                departure.gone.add(Sum::of(size));
                let delay = now.since(since);
                self.delays.record(class, delay);
                let mut packet = Some(packet);
                let record = &mut self.records[index as usize * Class::COUNT + class];
                if delay > discipline.quiet_ns {
                    let signals = match &discipline.aqm {
                        Signal::Never => false,
                        Signal::Red(curve) => curve.signals(delay, self.random.next()),
                        Signal::Codel(parameters) => {
                            let is_above = codel::is_above(parameters, delay, behind);
                            let calm = !is_above & (leaf.uneasy >> class & 1 == 0);
                            let codel = match flow {
                                None if calm => None,
                                None => {
                                    leaf.uneasy = leaf.uneasy & !(1 << class) | u8::from(is_above) << class;
                                    Some(&mut record.codel)
                                }
                                flow => flow,
                            };
                            codel.is_some_and(|codel| codel.signals(parameters, is_above, now))
                                || (delay > discipline.threshold_ns && is_capable(size))
                        }
                    };
                    if signals {
                        match departure.signal(&mut packet, size, discipline.drops) {
                            Sign::Marked => line.sent.count_mark(),
                            Sign::Dropped => record.dropped += 1,
                            Sign::None => {}
                        }
                    }
                } else if let Some(codel) = flow {
                    codel.calm();
                } else if leaf.uneasy >> class & 1 != 0 {
                    leaf.uneasy &= !(1 << class);
                    record.codel.calm();
                }
                let is_last = line.queue.load().is_empty();
                if let Some(packet) = packet {
                    departure.push(packet, size);
                    let octets = self.counting.octets(size);
                    rest.wire -= i64::from(wire_octets(size));
                    rest.octets -= i64::from(octets);
                    rest.packets -= 1;
                    if leaf.charge(class, octets, discipline, now) {
                        *record = record.with(mem::take(&mut leaf.queues[class].sent));
                    }
                }
                if is_last & (leaf.flowing >> class & 1 != 0) {
                    self.flows.forget(&mut self.lists[flows]);
                }
                leaf.close(class, is_last);
                if leaf.mask == 0 {
                    break Ends::Idle;
                }
                if (rest.octets <= 0) | (rest.packets <= 0) | (rest.wire <= 0) {
                    break Ends::Spent;
                }
            };
            let (octets, packets) = (whole.octets - rest.octets, whole.packets - rest.packets);
            credit.wire = rest.wire;
            credit.octets -= octets;
            credit.packets -= packets;
            share.budget = if alone { 0 } else { share.budget - octets };
            tenant.caps.spend(octets, packets);
            if let Some(own) = own {
                own.spend(octets, packets);
            }
            if is_green {
                tenant.guarantee.spend_octets(octets);
                tenant.is_green = tenant.guarantee.is_open();
                if !tenant.is_green {
                    // It has no more of this turn.
                    leaf.turns[GREEN].deficit = 0;
                }
            }
            leaf.turns[list].deficit -= octets as i32;
            match ends {
                Ends::NoRoom => return Pause::End,
                Ends::Spent => {}
                Ends::Idle => {
                    leaf.state = State::Idle;
                    let (word, bit) = (usize::from(leaf.way) / 64, 1 << (leaf.way % 64));
                    self.active[usize::from(leaf.tenant) * self.words + word] &= !bit;
                    way.leave(leaf, index);
                    if way.is_astray() {
                        return Pause::Empty;
                    }
                }
            }
        }
        Pause::End
    }
}

impl Departure<'_> {
    /// A packet goes.
    #[inline(always)]
    fn push(&mut self, packet: Box<Packet>, size: Size) {
        self.left -= 1;
        self.room -= size.chunks() as usize;
        self.out.push(packet);
    }

    /// A packet is to carry a signal: marked if it can be, else dropped if its class wants that.
    #[inline]
    fn signal(&mut self, packet: &mut Option<Box<Packet>>, size: Size, drops: bool) -> Sign {
        if is_capable(size) {
            self.marks |= 1 << (self.out.len() % Batch::SIZE);
            Sign::Marked
        } else if drops
            && self.drops != 0
            && size.ecn() == Ecn::NotEct
            && let Some(packet) = packet.take()
        {
            self.drops -= 1;
            self.exits.push(packet, Exit::Drop(DropReason::EarlyDrop));
            Sign::Dropped
        } else {
            Sign::None
        }
    }
}

impl Leaf {
    /// The class whose turn it is. There is one.
    #[inline(always)]
    fn pick(&mut self, classes: &[Discipline; Class::COUNT], strict: u8, now: Time) -> usize {
        if self.mask & self.mask.wrapping_sub(1) == 0 {
            return self.mask.trailing_zeros() as usize % Class::COUNT;
        }
        let mut urgent = self.mask & strict;
        while urgent != 0 {
            let class = urgent.trailing_zeros() as usize % Class::COUNT;
            if ahead(self.queues[class].due, now) <= STRICT_BURST_NS << 8 {
                return class;
            }
            urgent &= urgent - 1;
        }
        let mask = self.mask & !strict;
        if mask == 0 {
            return self.mask.trailing_zeros() as usize % Class::COUNT;
        }
        let mut class = usize::from(self.turn) % Class::COUNT;
        while mask & 1 << class == 0 || self.deficits[class] <= 0 {
            let ahead = mask & (0xfe_u8.wrapping_shl(class as u32));
            class = if ahead != 0 { ahead } else { mask }.trailing_zeros() as usize % Class::COUNT;
            self.deficits[class] += classes[class].quantum;
        }
        self.turn = class as u8;
        class
    }

    /// A packet went: its class pays. Turns are not looked at in a strict class, and the moment in no other: to reckon
    /// both is less than to guess which. A class that is alone owes nothing to others, and has saved nothing. Returns whether
    /// it is time to record what was sent.
    #[inline(always)]
    fn charge(&mut self, class: usize, octets: u32, discipline: &Discipline, now: Time) -> bool {
        let ClassQueue { due, sent, .. } = &mut self.queues[class];
        let alone = self.mask & self.mask.wrapping_sub(1) == 0;
        // One that is not had something left, so that this is no less than a packet below zero.
        let rest = self.deficits[class].wrapping_sub(octets.div_ceil(4) as i16);
        self.deficits[class] = if alone | (discipline.quantum == 0) { 0 } else { rest };
        // Q16.16 ns per octet, 1/256: 2⁻²⁴ ns; kept in 1/256 ns.
        let takes = (u64::from(octets) * u64::from(self.slowness) * u64::from(discipline.stretch)) >> 16;
        *due = (now.0 << 8).wrapping_add(ahead(*due, now)).wrapping_add(takes);
        sent.count(octets)
    }

    /// A class has no packet left, if this was its last.
    #[inline(always)]
    pub(super) fn close(&mut self, class: usize, is_last: bool) {
        let last = u8::from(is_last) << class;
        self.mask &= !last;
        self.flowing &= !last;
        self.deficits[class] = self.deficits[class].min(if is_last { 0 } else { i16::MAX });
    }

    /// The first and the last class with packets: few leaves have more.
    #[inline(always)]
    const fn ends(&self) -> [&ClassQueue; 2] {
        let (first, last) = (self.mask.trailing_zeros(), self.mask.leading_zeros() ^ 7);
        [&self.queues[first as usize % Class::COUNT], &self.queues[last as usize % Class::COUNT]]
    }
}

/// Asks for memory of the leaves whose turns come, in the order in which one part leads to the next. `flows` are their lists
/// by leaf, how many each has, and all flows.
#[inline(always)]
fn look_ahead(turns: &Ring, leaves: &[Leaf], tenants: &[Tenant], flows: (&[FlowLists], usize, &Flows), store: &Store) {
    let (lists, flow_classes, flows) = flows;
    let near = turns.ahead(NEAR) as usize;
    if let Some(leaf) = leaves.get(near) {
        let [first, last] = leaf.ends();
        store.prefetch(&first.queue);
        store.prefetch(&last.queue);
        if leaf.flowing != 0
            && let Some(lists) = lists.get(near * flow_classes)
        {
            flows.prefetch_next(lists);
        }
    }
    let far = turns.ahead(FAR) as usize;
    if let Some(leaf) = leaves.get(far) {
        leaf.ends().into_iter().for_each(sys::prefetch_read);
        if let Some(tenant) = tenants.get(usize::from(leaf.tenant)) {
            tenant.prefetch();
        }
        if leaf.flowing != 0
            && let Some(lists) = lists.get(far * flow_classes)
        {
            sys::prefetch_read(lists);
        }
    }
    if let Some(leaf) = leaves.get(turns.ahead(FARTHER) as usize) {
        sys::prefetch_read(leaf);
    }
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
