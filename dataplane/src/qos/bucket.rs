//! Token buckets in fixed point, refilled when they are looked at.
//!
//! Tokens are spent before they are there: a packet may go while the level is above zero, and takes it below. So from any
//! moment to any later one no more passes than the burst, what the rate earns, and one packet.

use super::spec::{Limit, PacketRate, Rate};
use crate::packet::Time;

/// A level in units of 2⁻ⁿ octets or packets, and what it earns in a nanosecond in the same unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    level: i64,
    /// 0: earns nothing.
    earns: u64,
    burst: i64,
}

/// Octets are counted in Q32.32: a rate of a megabit per second is off by two millionths.
const OCTET_BITS: u32 = 32;
/// Packets are counted in Q16.48, because their rates are small numbers.
const PACKET_BITS: u32 = 48;

impl Bucket {
    /// Open as long as nothing is spent.
    const OPEN: Self = Self { level: 1, earns: 0, burst: 1 };

    /// A full bucket of octets.
    pub fn octets(rate: Rate, burst: u32) -> Self {
        let burst = i64::from(burst.min(i32::MAX as u32)) << OCTET_BITS;
        Self { level: burst, earns: rate.octets_per_ns(), burst }
    }

    /// A full bucket of packets.
    pub fn packets(rate: PacketRate, burst: u16) -> Self {
        let burst = i64::from(burst.min(i16::MAX as u16)) << PACKET_BITS;
        Self { level: burst, earns: rate.packets_per_ns(), burst }
    }

    /// Earns for `elapsed` nanoseconds, up to the burst.
    #[inline(always)]
    pub fn earn(&mut self, elapsed: u64) {
        let earned = u128::from(elapsed) * u128::from(self.earns);
        // The burst is never below the level, and their difference below 2⁶⁴.
        let lacks = self.burst.wrapping_sub(self.level) as u64;
        self.level = if earned >= u128::from(lacks) { self.burst } else { self.level.wrapping_add(earned as i64) };
    }

    /// Spends octets. What is spent is no more than there is and a packet, and far from what a level can hold.
    #[inline(always)]
    pub const fn spend_octets(&mut self, octets: i64) {
        self.level = self.level.wrapping_sub(octets << OCTET_BITS);
    }

    /// Spends packets.
    #[inline(always)]
    pub const fn spend_packets(&mut self, packets: i64) {
        self.level = self.level.wrapping_sub(packets << PACKET_BITS);
    }

    /// How many octets can be spent until it is not open.
    #[inline(always)]
    pub const fn left_octets(&self) -> i64 {
        (self.level.wrapping_sub(1) >> OCTET_BITS) + 1
    }

    /// How many packets can be spent until it is not open.
    #[inline(always)]
    const fn left_packets(&self) -> i64 {
        (self.level.wrapping_sub(1) >> PACKET_BITS) + 1
    }

    /// Whether a packet may go.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.level > 0
    }

    /// Nanoseconds until the level is above `octets`, 0 if it is.
    pub fn wait(&self, octets: i64) -> u64 {
        let goal = (octets << OCTET_BITS) + 1;
        if self.level >= goal {
            return 0;
        }
        (goal.wrapping_sub(self.level) as u64).div_ceil(self.earns.max(1))
    }

    /// Takes out what is above so many octets; how much that was.
    pub const fn withhold(&mut self, octets: u64) -> i64 {
        if octets >= i32::MAX as u64 || self.level <= (octets as i64) << OCTET_BITS {
            return 0;
        }
        let withheld = self.level - ((octets as i64) << OCTET_BITS);
        self.level -= withheld;
        withheld
    }

    /// Whole octets in the bucket.
    #[cfg(test)]
    pub const fn level_octets(&self) -> i64 {
        self.level >> OCTET_BITS
    }

    /// Goes on at the level of `other`, as far as it fits.
    pub fn inherit(&mut self, other: &Self) {
        if other.earns != 0 && self.earns != 0 {
            self.level = other.level.min(self.burst);
        }
    }
}

/// What bounds a node: octets and packets per second, either or both. The bucket of what is not bounded is open for ever.
#[repr(align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    octets: Bucket,
    packets: Bucket,
    /// When both were last refilled.
    last: u64,
    has_octets: bool,
    has_packets: bool,
}

/// What may go: of the octets the last packet may be in excess. 0 and below: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Octets.
    pub octets: i64,
    /// Packets.
    pub packets: i64,
}

impl Left {
    /// What both allow.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self { octets: self.octets.min(other.octets), packets: self.packets.min(other.packets) }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::new(&Limit::NONE)
    }
}

impl Caps {
    /// Full buckets for a limit.
    pub fn new(limit: &Limit) -> Self {
        Self {
            octets: limit.rate.map_or(Bucket::OPEN, |rate| Bucket::octets(rate, limit.burst_of(rate))),
            packets: limit.packets.map_or(Bucket::OPEN, |rate| Bucket::packets(rate, limit.packet_burst_of(rate))),
            last: 0,
            has_octets: limit.rate.is_some(),
            has_packets: limit.packets.is_some(),
        }
    }

    /// Nanoseconds since this was last asked, and the level of that moment. Under a clock that went back nothing is
    /// earned, and it goes on from there.
    #[inline(always)]
    pub fn refill(&mut self, now: Time) -> u64 {
        let elapsed = now.0.saturating_sub(self.last);
        self.last = now.0;
        self.octets.earn(elapsed);
        self.packets.earn(elapsed);
        elapsed
    }

    /// Whether a packet may go.
    #[inline(always)]
    pub const fn is_open(&self) -> bool {
        self.octets.is_open() & self.packets.is_open()
    }

    /// Packets went, no more than were [left](Self::left).
    #[inline(always)]
    pub fn spend(&mut self, octets: i64, packets: i64) {
        self.octets.spend_octets(octets * i64::from(self.has_octets));
        self.packets.spend_packets(packets * i64::from(self.has_packets));
    }

    /// What may go before it is not open.
    #[inline(always)]
    pub fn left(&self) -> Left {
        Left {
            octets: if self.has_octets { self.octets.left_octets() } else { i64::MAX },
            packets: if self.has_packets { self.packets.left_packets() } else { i64::MAX },
        }
    }

    /// Lets no more octets go than so many, and the rest of a packet, until [`restore`](Self::restore) has what this gives.
    pub fn withhold(&mut self, octets: u64) -> i64 {
        if self.has_octets { self.octets.withhold(octets) } else { 0 }
    }

    /// Gives back what was withheld.
    pub fn restore(&mut self, withheld: i64) {
        self.octets.level += withheld;
    }

    /// Nanoseconds until a packet may go.
    pub fn wait(&self) -> u64 {
        let octets = if self.has_octets { self.octets.wait(0) } else { 0 };
        let packets = if self.has_packets { self.packets.wait(0) } else { 0 };
        octets.max(packets)
    }

    /// Goes on at the levels of `other`, whose limits were others.
    pub fn inherit(&mut self, other: &Self) {
        self.octets.inherit(&other.octets);
        self.packets.inherit(&other.packets);
        self.last = other.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn rate(bits: u64) -> Rate {
        Rate::new(bits).expect("a rate of the test")
    }

    proptest! {
        /// The bucket's promise, against whole numbers: the level is the burst and what is earned, less what is spent.
        #[test]
        fn holds_what_the_rate_earns_less_what_is_spent(
            bits in prop_oneof![Rate::MIN..10_000_000, 10_000_000..=Rate::MAX],
            burst in 1_500..200_000_u32,
            steps in vec((0..500_000_u64, 64..9_000_u32), 1..200),
        ) {
            let mut bucket = Bucket::octets(rate(bits), burst);
            // In 10⁻⁹ of a bit.
            let full = i128::from(burst) * 8_000_000_000;
            let (mut model, mut passed) = (full, 0_u64);
            for (elapsed, len) in steps {
                bucket.earn(elapsed);
                passed += elapsed;
                model = full.min(model + i128::from(elapsed) * i128::from(bits));
                let exact = model.div_euclid(8_000_000_000) as i64;
                // The rate is cut to 2⁻³² octets per nanosecond: never more, and less by that for each nanosecond.
                let cut = (passed >> 32) as i64 + 1;
                prop_assert!((exact - cut..=exact).contains(&bucket.level_octets()), "{} of {exact}", bucket.level_octets());
                let spent = |octets| {
                    let mut then = bucket;
                    then.spend_octets(octets);
                    then
                };
                let left = bucket.left_octets();
                prop_assert!(!spent(left).is_open() && spent(left - 1).is_open(), "{left} of {}", bucket.level_octets());
                if bucket.is_open() {
                    bucket.spend_octets(len.into());
                    model -= i128::from(len) * 8_000_000_000;
                } else {
                    let wait = bucket.wait(0);
                    let mut then = bucket;
                    then.earn(wait - 1);
                    prop_assert!(!then.is_open());
                    then.earn(1);
                    prop_assert!(then.is_open());
                }
            }
        }
    }

    #[test]
    fn what_is_left_is_the_least_of_what_bounds() {
        let both = Limit {
            rate: Some(rate(8_000_000_000)),
            burst: Some(10_000),
            packets: PacketRate::new(1_000_000),
            packet_burst: Some(32),
        };
        let mut caps = Caps::new(&both);
        assert_eq!(caps.left(), Left { octets: 10_000, packets: 32 });
        caps.spend(10_001, 30);
        assert_eq!((caps.left(), caps.is_open()), (Left { octets: -1, packets: 2 }, false));
        caps.refill(Time(3));
        assert_eq!((caps.left(), caps.is_open()), (Left { octets: 2, packets: 3 }, true));
        let mut none = Caps::default();
        assert_eq!(none.left(), Left { octets: i64::MAX, packets: i64::MAX });
        none.spend(1 << 30, 1 << 30);
        assert!(none.is_open());
        assert_eq!(none.left().min(caps.left()), Left { octets: 2, packets: 3 });
    }

    #[test]
    fn an_hour_back_or_ahead_earns_no_more_than_the_burst() {
        let limit = Limit { rate: Some(rate(1_000_000_000)), burst: Some(10_000), ..Limit::NONE };
        let mut caps = Caps::new(&limit);
        let hour = 3_600_000_000_000;
        caps.refill(Time(hour));
        caps.spend(15_000, 1);
        assert!(!caps.is_open());
        caps.refill(Time(0));
        assert!(!caps.is_open(), "going back earns nothing");
        caps.refill(Time(hour));
        assert_eq!(caps.octets.level_octets(), 10_000);
        caps.refill(Time(u64::MAX));
        assert_eq!(caps.octets.level_octets(), 10_000);
    }
}
