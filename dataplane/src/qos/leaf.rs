//! What the scheduler keeps of each tenant, way out and leaf, in the order in which it is touched.

use super::bucket::{Bucket, Caps};
use super::codel;
use super::list::{Link, Linked};
use super::red::Curve;
use super::ring::Ring;
use super::spec::{Account, Aqm, ClassSpec, Codel, NotCapable, Rate, Service, TenantSpec};
use super::store::{Queue, Size};
use crate::packet::Class;

/// Whether a leaf waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no packet.
    Idle,
    /// It is in its way's lists.
    Listed,
    /// Its tenant is above its limit.
    Parked,
    /// It is above its own.
    Bound,
}

/// The list of a port's ways with leaves below their guarantee.
pub const GREEN: usize = 0;
/// The list of a port's ways with leaves in the turns of all.
pub const YELLOW: usize = 1;

/// The packets of one tenant for one way out: a line of memory, and half a line for each class.
#[repr(C, align(64))]
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What it may send in its turn, by list: in proportion to its tenant's guarantee among the green, to its weight among all.
    pub turns: [Turn; 2],
    /// Nanoseconds that an octet takes at the least of the rates above, in Q16.16; 0: no time.
    pub slowness: u32,
    /// Whose.
    pub tenant: u16,
    /// By which way.
    pub way: u16,
    /// Classes that have packets.
    pub mask: u8,
    /// The class whose turn it is.
    pub turn: u8,
    /// Where it waits.
    pub state: State,
    /// It has a bound of its own.
    pub bounded: bool,
    /// Its tenant has a guarantee.
    pub is_guaranteed: bool,
    /// It has a place in its way's turns of green leaves. It may have one while it is none, until its turn comes.
    pub in_green: bool,
    /// It has a place in its way's turns of all; likewise.
    pub in_yellow: bool,
    /// Classes whose packets have flow queues: a few need none.
    pub flowing: u8,
    /// Classes whose queue is not calm: see [`Record::codel`].
    pub uneasy: u8,
    /// What each class may still send in its turn, in units of four octets.
    pub deficits: [i16; Class::COUNT],
    /// By class.
    pub queues: [ClassQueue; Class::COUNT],
}

/// A leaf's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Octets that may still be sent in this one.
    pub deficit: i32,
    /// Octets of one.
    pub quantum: i32,
}

impl Turn {
    const fn new(quantum: i32) -> Self {
        Self { deficit: 0, quantum }
    }

    /// Begins one. What was not used is lost, and what was had before is owed.
    #[inline(always)]
    pub const fn begin(&mut self) {
        let owed = if self.deficit < 0 { self.deficit } else { 0 };
        self.deficit = owed + self.quantum;
    }
}

const _: () = assert!(size_of::<Leaf>() == 320 && size_of::<ClassQueue>() == 32 && size_of::<Tenant>() == 128);
const _: () = assert!(size_of::<Record>() == 64);

impl Leaf {
    /// Without packets.
    pub fn new(tenant: u16, way: u16) -> Self {
        Self {
            turns: [Turn::new(LEAST_GREEN), Turn::new(QUANTUM)],
            slowness: 0,
            tenant,
            way,
            mask: 0,
            turn: 0,
            state: State::Idle,
            bounded: false,
            is_guaranteed: false,
            in_green: false,
            in_yellow: false,
            flowing: 0,
            uneasy: 0,
            deficits: [0; Class::COUNT],
            queues: [ClassQueue::default(); Class::COUNT],
        }
    }
}

/// One class of a leaf: what each of its packets touches, in half a line of memory.
#[repr(align(32))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassQueue {
    /// Its packets; of a class with flow queues those without a place, and the sum of all.
    pub queue: Queue,
    /// A strict class: when what it has sent would have left at its limit, in 1/256 ns.
    pub due: u64,
    /// What was sent lately.
    pub sent: Lately,
}

/// The lower bits of counters that change with each packet: octets (32), packets (16), marks (16). They go to the [`Record`]
/// before they overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lately(u64);

impl Lately {
    const PACKET: u64 = 1 << 32;
    const MARK: u64 = 1 << 48;
    /// Half of what there is room for.
    const FULL: u64 = 1 << 31 | 1 << 47;

    /// A packet was sent, of so many octets; whether it is time to record.
    #[inline(always)]
    pub const fn count(&mut self, octets: u32) -> bool {
        self.0 += Self::PACKET + octets as u64;
        self.0 & Self::FULL != 0
    }

    /// It was marked. No more are than were sent.
    #[inline(always)]
    pub const fn count_mark(&mut self) {
        self.0 += Self::MARK;
    }
}

/// One class of a leaf: what few packets touch, each a line of memory.
#[repr(align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it signals, if it has no flow queues.
    pub codel: codel::State,
    /// Packets sent, but for those of [`Lately`].
    pub sent_packets: u64,
    /// Octets of them, outer headers included; likewise.
    pub sent_octets: u64,
    /// Packets of them that were marked; likewise.
    pub marked: u64,
    /// Packets dropped early, in place of a mark.
    pub dropped: u64,
    /// Packets for which the buffer had no room.
    pub refused: u64,
}

impl Record {
    /// And what was counted lately.
    #[must_use]
    pub fn with(self, lately: Lately) -> Self {
        Self {
            sent_packets: self.sent_packets + (lately.0 / Lately::PACKET) % (Lately::MARK / Lately::PACKET),
            sent_octets: self.sent_octets + lately.0 % Lately::PACKET,
            marked: self.marked + lately.0 / Lately::MARK,
            ..self
        }
    }

    /// What it counted, and another did before a change.
    #[must_use]
    pub const fn and(self, other: &Self) -> Self {
        Self {
            codel: self.codel,
            sent_packets: self.sent_packets + other.sent_packets,
            sent_octets: self.sent_octets + other.sent_octets,
            marked: self.marked + other.marked,
            dropped: self.dropped + other.dropped,
            refused: self.refused + other.refused,
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self { codel: self.codel, ..Self::default() }
    }
}

/// A tenant on one port: two lines of memory.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    /// What it never exceeds.
    pub caps: Caps,
    /// What it is guaranteed.
    pub guarantee: Bucket,
    /// Octets of guarantee that make it green again: so many that it is not for each packet.
    pub threshold: u32,
    /// There is a guarantee.
    pub is_guaranteed: bool,
    /// It is below its guarantee.
    pub is_green: bool,
    /// Its leaves are parked.
    pub is_parked: bool,
}

/// Octets of a turn of weight 1.
pub const QUANTUM: i32 = 1514;
/// Octets of a green turn at least: less is no turn for most packets.
const LEAST_GREEN: i32 = 512;
/// Of a guarantee, that are a green turn: so all turns together take no longer than that, if the link keeps the guarantees. And
/// that make a tenant green, but no less than a packet: all its leaves go between lists for it.
const THRESHOLD_NS: u64 = 10_000;

/// Octets of the green turn of a leaf whose tenant has that guarantee.
pub fn green_quantum(guarantee: Rate) -> i32 {
    (guarantee.octets_in(THRESHOLD_NS) as i32).max(LEAST_GREEN)
}

impl Tenant {
    /// With full buckets.
    pub fn new(spec: &TenantSpec) -> Self {
        let burst = |rate| spec.limit.burst_of(rate);
        Self {
            caps: Caps::new(&spec.limit),
            guarantee: spec.guarantee.map_or_else(Bucket::default, |rate| Bucket::octets(rate, burst(rate))),
            threshold: spec.guarantee.map_or(0, |rate| {
                rate.octets_in(THRESHOLD_NS).max(QUANTUM as u64).min(u64::from(burst(rate)) / 2) as u32
            }),
            is_guaranteed: spec.guarantee.is_some(),
            is_green: false,
            is_parked: false,
        }
    }
}

/// A way out: the port itself, or a tunnel that leaves by it.
#[derive(Clone, Debug)]
pub struct Way {
    /// What it never exceeds.
    pub caps: Caps,
    /// Leaves below their guarantee.
    pub green: Ring,
    /// Leaves that may send: those in green turns only if they were above their guarantee before.
    pub yellow: Ring,
    green_link: Link,
    yellow_link: Link,
    /// Its turns among the other ways, by list.
    pub shares: [Share; 2],
    /// It is above its cap.
    pub is_shut: bool,
    /// It is in the port's list of green ways.
    pub in_green: bool,
    /// It is in the port's list of all ways.
    pub in_yellow: bool,
}

/// A way's turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Octets of one: of a turn of all its leaves.
    pub quanta: i64,
    /// Octets that its leaves may still send in this one.
    pub budget: i64,
}

impl Way {
    /// Without leaves that have packets; there will be `leaves` at most.
    pub fn new(caps: Caps, leaves: usize) -> Self {
        Self {
            caps,
            green: Ring::new(leaves),
            yellow: Ring::new(leaves),
            green_link: Link::default(),
            yellow_link: Link::default(),
            shares: [Share::default(); 2],
            is_shut: false,
            in_green: false,
            in_yellow: false,
        }
    }
}

impl Way {
    /// Gives a leaf a turn among all, behind them, unless it has one.
    #[inline(always)]
    pub fn join(&mut self, leaf: &mut Leaf, index: u32) {
        if !leaf.in_yellow {
            leaf.in_yellow = true;
            leaf.turns[YELLOW].begin();
            self.yellow.push(index);
        }
    }

    /// A leaf that was listed is not any more.
    #[inline(always)]
    pub fn leave(&mut self, leaf: &mut Leaf, index: u32) {
        self.shares[YELLOW].quanta -= i64::from(leaf.turns[YELLOW].quantum);
        self.pass(leaf, index);
    }

    /// Takes a leaf out of the turns in which it is the first.
    #[inline(always)]
    pub fn pass(&mut self, leaf: &mut Leaf, index: u32) {
        if leaf.in_yellow && self.yellow.first() == index {
            leaf.in_yellow = false;
            self.yellow.pop();
        }
        if leaf.in_green && self.green.first() == index {
            self.pass_green(leaf);
        }
    }

    /// Takes a leaf out of the green turns, in which it is the first.
    #[inline(always)]
    pub fn pass_green(&mut self, leaf: &mut Leaf) {
        leaf.in_green = false;
        self.shares[GREEN].quanta -= i64::from(leaf.turns[GREEN].quantum);
        self.green.pop();
    }

    /// Whether the port's lists have it where it should not be, or not where it should.
    #[inline(always)]
    pub const fn is_astray(&self) -> bool {
        self.in_green != (!self.is_shut && !self.green.is_empty())
            || self.in_yellow != (!self.is_shut && !self.yellow.is_empty())
    }
}

impl Linked<GREEN> for Way {
    #[inline(always)]
    fn link(&mut self) -> &mut Link {
        &mut self.green_link
    }
}

impl Linked<YELLOW> for Way {
    #[inline(always)]
    fn link(&mut self) -> &mut Link {
        &mut self.yellow_link
    }
}

/// How a class is served, ready to be used.
#[derive(Clone, Copy, Debug)]
pub struct Discipline {
    /// What its queue does.
    pub aqm: Signal,
    /// A delay up to this is no concern of `aqm`.
    pub quiet_ns: u64,
    /// Above this delay all that is capable is marked.
    pub threshold_ns: u64,
    /// What cannot be marked is dropped.
    pub drops: bool,
    /// Eighths of the free buffer that a queue may have.
    pub alpha: u32,
    /// A turn, in units of four octets; 0: a strict class.
    pub quantum: i16,
    /// A strict class: how many times as long as at the full rate its octets take at its limit, in 1/256.
    pub stretch: u32,
    /// Flow queues are kept.
    pub has_flows: bool,
    /// Classes before this one that have flow queues.
    pub flows: u8,
}

/// When a class's queue signals.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Never.
    Never,
    /// By a curve.
    Red(Curve),
    /// By RFC 8289.
    Codel(Codel),
}

impl Discipline {
    /// Of all classes.
    pub fn all(classes: &[ClassSpec; Class::COUNT]) -> [Self; Class::COUNT] {
        let shares = classes.iter().filter_map(|class| match class.service {
            Service::Drr { share } => Some(i32::from(share)),
            Service::Strict { .. } => None,
        });
        let (least, most) = shares.fold((1_000, 1), |(least, most), share| (least.min(share), most.max(share)));
        // A turn of the least is a quarter of a packet where that makes none too large: turns are short, and a turn
        // without a packet costs little.
        let unit = |share: i32| ((share * 256 / least).min(share * 16_384 / most).max(64) / 4) as i16;
        let mut before = 0;
        classes.each_ref().map(|class| {
            let has_flows = matches!(class.aqm, Aqm::FqCodel(_));
            let flows = before;
            before += u8::from(has_flows);
            Self {
                aqm: match class.aqm {
                    Aqm::Tail => Signal::Never,
                    Aqm::Red(red) => Signal::Red(Curve::new(&red)),
                    Aqm::Codel(codel) | Aqm::FqCodel(codel) => Signal::Codel(codel),
                },
                quiet_ns: match class.aqm {
                    Aqm::Tail => u64::MAX,
                    Aqm::Red(red) => red.start_ns.into(),
                    Aqm::Codel(codel) | Aqm::FqCodel(codel) => {
                        u64::from(codel.target_ns - 1).min(codel.ce_threshold_ns.map_or(u64::MAX, u64::from))
                    }
                },
                threshold_ns: match class.aqm {
                    Aqm::Codel(Codel { ce_threshold_ns: Some(ns), .. })
                    | Aqm::FqCodel(Codel { ce_threshold_ns: Some(ns), .. }) => ns.into(),
                    _ => u64::MAX,
                },
                drops: class.not_capable == NotCapable::Drop,
                alpha: class.alpha_eighths.into(),
                quantum: match class.service {
                    Service::Drr { share } => unit(share.into()),
                    Service::Strict { .. } => 0,
                },
                stretch: match class.service {
                    Service::Strict { percent } => 25_600 / u32::from(percent.max(1)),
                    Service::Drr { .. } => 0,
                },
                has_flows,
                flows,
            }
        })
    }
}

/// Which octets of a packet count, ready to be used.
#[derive(Clone, Copy, Debug)]
pub struct Counting {
    /// Octets beside the packet's own.
    beside: u32,
    /// Octets at least.
    least: u32,
    /// Which bits of the length of the outer headers do not count.
    without: u32,
}

impl From<Account> for Counting {
    fn from(account: Account) -> Self {
        match account {
            Account::L1 => Self { beside: WIRE_BESIDE, least: WIRE_LEAST, without: 0 },
            Account::L2 => Self { beside: 14, least: 0, without: 0 },
            Account::L3Outer => Self { beside: 0, least: 0, without: 0 },
            Account::Inner => Self { beside: 0, least: 0, without: u32::MAX },
        }
    }
}

impl Counting {
    /// The octets that count of a packet.
    #[inline(always)]
    pub fn octets(self, size: Size) -> u32 {
        (size.octets() - (size.overhead() & self.without) + self.beside).max(self.least)
    }
}

/// Octets of time that a packet takes beside itself on an Ethernet link: header, check sequence, preamble, gap.
const WIRE_BESIDE: u32 = 38;
/// And at least, with padding.
const WIRE_LEAST: u32 = 84;

/// Octets of time that a packet takes on an Ethernet link.
#[inline(always)]
pub fn wire_octets(size: Size) -> u32 {
    (size.octets() + WIRE_BESIDE).max(WIRE_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;

    #[test]
    fn a_packets_octets_are_counted_as_the_account_says() {
        let octets = |account, len, overhead| {
            let mut packet = Packet::empty();
            (packet.len, packet.overhead) = (len, overhead);
            Counting::from(account).octets(Size::of(&packet))
        };
        // With header, check sequence, preamble and gap; with the header; with outer headers; without.
        for (account, long, short) in [
            (Account::L1, 1_500 + 50 + 38, 84),
            (Account::L2, 1_500 + 50 + 14, 40 + 14),
            (Account::L3Outer, 1_500 + 50, 40),
            (Account::Inner, 1_500, 40),
        ] {
            assert_eq!((octets(account, 1_500, 50), octets(account, 40, 0)), (long, short), "{account:?}");
        }
    }

    #[test]
    fn what_was_counted_lately_is_recorded_before_it_overflows() {
        let (mut lately, mut record, mut octets) = (Lately::default(), Record::default(), 0);
        for packets in 1..=200_000_u64 {
            // The longest, then short ones.
            let size = if packets < 60_000 { 0x1_ffff } else { 64 };
            octets += u64::from(size);
            lately.count_mark();
            if lately.count(size) {
                record = record.with(std::mem::take(&mut lately));
            }
            let Record { sent_packets, sent_octets, marked, .. } = record.with(lately);
            assert_eq!((sent_packets, sent_octets, marked), (packets, octets, packets));
        }
    }
}
