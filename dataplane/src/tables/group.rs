//! Several next hops as one: which of them a flow takes.
//!
//! A group has a fixed number of buckets, and each bucket ranks the members by a hash of its own (rendezvous hashing,
//! Thaler and Ravishankar 1998; the weights as in Schindelhauer and Schomaker 2005). It belongs to the first of them that is up. So
//! the loss of a member moves only its own buckets, its return takes back only those, and gateways that agree about
//! the members agree about every flow, without a word between them.

use crate::packet::AdjacencyId;

/// Buckets of a group: with two equal members each has half of them within 2 %.
pub const BUCKETS: usize = 4096;
/// Members of a group at most.
pub const MEMBERS: usize = 255;

/// A next hop that shares a group's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its flows go.
    pub id: AdjacencyId,
    /// What tells it from the others, the same on every gateway.
    pub identity: u64,
    /// Its share, 1..=256, against the sum of all.
    pub weight: u16,
    /// It can take flows.
    pub up: bool,
}

/// Next hops that share flows.
#[derive(Clone, Debug)]
pub struct Group {
    members: Box<[AdjacencyId]>,
    buckets: Box<[u8; BUCKETS]>,
}

impl Group {
    /// Divides the buckets. While no member is up, each has the share that it would have: packets then meet what is wrong
    /// with it.
    ///
    /// # Panics
    ///
    /// Without members, or with more than [`MEMBERS`].
    pub fn new(members: &[Member]) -> Self {
        assert!((1..=MEMBERS).contains(&members.len()), "a group has 1..={MEMBERS} members");
        let none_is_up = members.iter().all(|member| !member.up);
        let candidates: Vec<(u8, &Member)> =
            (0_u8..).zip(members).filter(|(_, member)| member.up || none_is_up).collect();
        let mut buckets = Box::new([0; BUCKETS]);
        for (bucket, owner) in (0_u64..).zip(buckets.iter_mut()) {
            let rank = |member: &Member| Rank { cost: cost(mix(member.identity ^ mix(bucket))), weight: member.weight };
            let best = candidates.iter().map(|(at, member)| (rank(member), *at)).min_by(|a, b| a.0.order(&b.0));
            *owner = best.map_or(0, |(_, at)| at);
        }
        Self { members: members.iter().map(|member| member.id).collect(), buckets }
    }

    /// The member that a flow takes.
    #[inline]
    pub fn choose(&self, flow: u32) -> AdjacencyId {
        // The upper bits: the outer UDP source port is the lower ones, so that within a member no port is rarer.
        let bucket = flow >> (32 - BUCKETS.ilog2());
        let member = self.buckets[bucket as usize % BUCKETS];
        self.members.get(usize::from(member)).copied().unwrap_or(AdjacencyId::NONE)
    }

    /// All members, in their order.
    pub fn members(&self) -> &[AdjacencyId] {
        &self.members
    }

    /// How many buckets each member has, in their order.
    pub fn shares(&self) -> Vec<usize> {
        let mut shares = vec![0; self.members.len()];
        self.buckets.iter().for_each(|owner| shares[usize::from(*owner)] += 1);
        shares
    }
}

/// A member's standing in a bucket: the least `cost / weight` wins.
struct Rank {
    cost: u64,
    weight: u16,
}

impl Rank {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        (self.cost * u64::from(other.weight)).cmp(&(other.cost * u64::from(self.weight)))
    }
}

/// −log₂ of `random` as a fraction of 2⁶⁴, with 20 fractional bits: exponentially distributed, as weights ask for. Integers, so
/// that every machine agrees.
fn cost(random: u64) -> u64 {
    let random = random.max(1);
    let zeros = u64::from(random.leading_zeros());
    // 1.0 is 2⁶³ here; squaring doubles the logarithm, so each overflow is its next bit.
    let mut mantissa = random << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let overflow = square >> 64 != 0;
        mantissa = (square >> u32::from(overflow)) as u64;
        fraction = fraction << 1 | u64::from(overflow);
    }
    ((zeros + 1) << FRACTION) - fraction
}

const FRACTION: u32 = 20;

/// Spreads every bit over all (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(at, weight): (u32, &u16)| Member {
            id: AdjacencyId(at + 1),
            identity: mix(u64::from(at) + 77),
            weight: *weight,
            up: true,
        };
        (0..).zip(weights).map(member).collect()
    }

    /// Who has each bucket.
    fn owners(members: &[Member]) -> Vec<AdjacencyId> {
        let group = Group::new(members);
        group.buckets.iter().map(|owner| group.members[usize::from(*owner)]).collect()
    }

    #[test]
    fn the_cost_is_the_logarithm() {
        for random in [1, 2, 3, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX, 0x0123_4567_89ab_cdef] {
            let exact = -((random as f64) / 2_f64.powi(64)).log2();
            let found = cost(random) as f64 / f64::from(1 << FRACTION);
            assert!((exact - found).abs() < 2e-6, "{random}: {exact} {found}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        for weights in [&[1, 1][..], &[2, 1], &[1, 1, 1, 1], &[4, 3, 2, 1], &[256, 128, 64], &[1; 16]] {
            let shares = Group::new(&members(weights)).shares();
            let sum: u16 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(weights) {
                let part = f64::from(*weight) / f64::from(sum);
                // Four standard deviations of a binomial.
                let tolerance = 4.0 * (part * (1.0 - part) * BUCKETS as f64).sqrt();
                let expected = part * BUCKETS as f64;
                assert!((*share as f64 - expected).abs() < tolerance, "{weights:?}: {shares:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Only the flows of members that went down move, and all of these; and they come back.
        #[test]
        fn a_loss_moves_only_the_lost_ones_flows(
            weights in proptest::collection::vec(1..=8_u16, 2..12),
            lost in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let mut all = members(&weights);
            let before = owners(&all);
            all.iter_mut().zip(&lost).for_each(|(member, lost)| member.up = !lost);
            let some_left = all.iter().any(|member| member.up);
            let after = owners(&all);
            for (before, after) in before.iter().zip(&after) {
                let was_lost = lost[before.index() - 1];
                if was_lost && some_left {
                    prop_assert!(!lost[after.index() - 1]);
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }

        /// The same holds when a member leaves the configuration, and its place in the list does not matter.
        #[test]
        fn a_member_less_moves_only_its_own_flows(weights in proptest::collection::vec(1..=8_u16, 2..12), at in 0..12_usize) {
            let mut some = members(&weights);
            let before = owners(&some);
            let gone = some.remove(at % weights.len()).id;
            some.reverse();
            for (before, after) in before.iter().zip(owners(&some)) {
                prop_assert!(*before == gone || *before == after);
            }
        }
    }
}
