//! Who may send: leaves go between the lists of their ways, the wheel, and nowhere.
//!
//! A leaf with packets has a place among its way's green turns while its tenant is below its guarantee, else in the turns
//! of all. None of these comes while a port has a green one: so who is green needs none, joins them, behind all, when its
//! tenant has had its guarantee, and keeps that place when the tenant is green again. Above its tenant's limit a leaf is
//! parked, above its own it is bound; a way above its cap is in no list of its port. The wheel says when to look again.
//!
//! A leaf that may not send keeps a place that is not the first, and is passed over when its turn comes: if it may send
//! again by then, it is where it was.

use super::{Scheduler, later};
use crate::packet::Time;
use crate::qos::leaf::{GREEN, State, YELLOW};

impl Scheduler {
    /// The leaf has its first packet.
    #[inline(never)]
    pub(super) fn activate(&mut self, index: u32, now: Time) {
        let leaf = &mut self.leaves[index as usize];
        let (tenant, way) = (usize::from(leaf.tenant), usize::from(leaf.way));
        if leaf.is_guaranteed {
            let had = self.has_packets(tenant);
            let tenant = &mut self.tenants[tenant];
            tenant.refill(now);
            if !had {
                tenant.is_green = tenant.guarantee.is_open();
            }
        }
        self.active[tenant * self.words + way / 64] |= 1 << (way % 64);
        self.list(index, now);
    }

    /// The leaf has no packet left.
    #[inline]
    pub(super) fn retire(&mut self, index: u32) {
        let leaf = &self.leaves[index as usize];
        let (tenant, way) = (usize::from(leaf.tenant), usize::from(leaf.way));
        self.active[tenant * self.words + way / 64] &= !(1 << (way % 64));
        self.lift(index);
        self.leaves[index as usize].state = State::Idle;
    }

    /// Whether a tenant has packets.
    #[inline(always)]
    fn has_packets(&self, tenant: usize) -> bool {
        self.active[tenant * self.words..][..self.words].iter().any(|word| *word != 0)
    }

    /// Gives a leaf its turns: whether its tenant may send is seen when they come.
    #[inline(always)]
    pub(super) fn list(&mut self, index: u32, now: Time) {
        let leaf = &mut self.leaves[index as usize];
        leaf.state = State::Listed;
        let at = usize::from(leaf.way);
        let way = &mut self.ways[at];
        way.shares[YELLOW].quanta += i64::from(leaf.turns[YELLOW].quantum);
        if leaf.is_guaranteed {
            self.colour(index, now);
        } else {
            way.join(leaf, index);
        }
        if self.ways[at].is_astray() {
            self.relist(at);
        }
    }

    /// Parks a leaf that has no turns, or gives it some, as its tenant's buckets and its own say.
    pub(super) fn file(&mut self, index: u32, now: Time) {
        let leaf = &mut self.leaves[index as usize];
        let ways = self.ways.len() as u32;
        let tenant = &mut self.tenants[usize::from(leaf.tenant)];
        if !tenant.caps.is_open() {
            tenant.is_parked = true;
            leaf.state = State::Parked;
            self.wheel.file(ways + u32::from(leaf.tenant), later(now, tenant.caps.wait()));
            return;
        }
        if leaf.bounded
            && let Some(own) = self.own_of(index)
        {
            let caps = &mut self.own[own].1;
            caps.refill(now);
            if !caps.is_open() {
                self.leaves[index as usize].state = State::Bound;
                self.wheel.file(ways + (self.tenants.len() + own) as u32, later(now, caps.wait()));
                return;
            }
        }
        self.list(index, now);
    }

    /// Gives a leaf with a guarantee a green turn if its tenant is below it; else one among all, and the tenant will be
    /// looked at again.
    pub(super) fn colour(&mut self, index: u32, now: Time) {
        let leaf = &mut self.leaves[index as usize];
        let tenant = &self.tenants[usize::from(leaf.tenant)];
        let way = &mut self.ways[usize::from(leaf.way)];
        if tenant.is_green {
            if !leaf.in_green {
                leaf.in_green = true;
                leaf.turns[GREEN].begin();
                way.shares[GREEN].quanta += i64::from(leaf.turns[GREEN].quantum);
                way.green.push(index);
            }
        } else {
            way.join(leaf, index);
            let node = self.ways.len() as u32 + u32::from(leaf.tenant);
            // Whatever it is filed for, it will be looked at and filed for this.
            if !self.wheel.has(node) {
                self.wheel.file(node, later(now, tenant.guarantee.wait(tenant.threshold.into())));
            }
        }
    }

    /// A leaf has no more turns.
    #[inline]
    pub(super) fn lift(&mut self, index: u32) {
        let leaf = &mut self.leaves[index as usize];
        if leaf.state == State::Listed {
            let at = usize::from(leaf.way);
            let way = &mut self.ways[at];
            way.leave(leaf, index);
            if way.is_astray() {
                self.relist(at);
            }
        }
    }

    /// The tenant of the leaf whose green turn it is has had its guarantee.
    pub(super) fn fade(&mut self, index: u32, now: Time) {
        let leaf = &mut self.leaves[index as usize];
        let at = usize::from(leaf.way);
        self.ways[at].pass_green(leaf);
        self.colour(index, now);
        self.relist(at);
    }

    /// A way is in the port's lists if it has leaves in its own and is not shut.
    pub(super) fn relist(&mut self, at: usize) {
        let way = &mut self.ways[at];
        let green = !way.is_shut && !way.green.is_empty();
        let yellow = !way.is_shut && !way.yellow.is_empty();
        let was = (way.in_green, way.in_yellow);
        (way.in_green, way.in_yellow) = (green, yellow);
        match (was.0, green) {
            (false, true) => self.green.push(&mut self.ways, at as u32),
            (true, false) => self.green.remove(&mut self.ways, at as u32),
            _ => {}
        }
        match (was.1, yellow) {
            (false, true) => self.yellow.push(&mut self.ways, at as u32),
            (true, false) => self.yellow.remove(&mut self.ways, at as u32),
            _ => {}
        }
    }

    /// A way is above its cap.
    #[cold]
    pub(super) fn shut(&mut self, at: u32, now: Time) {
        let way = &mut self.ways[at as usize];
        way.is_shut = true;
        self.wheel.file(at, later(now, way.caps.wait()));
        self.relist(at as usize);
    }

    /// Something on the wheel is due.
    pub(super) fn look_again(&mut self, node: u32, now: Time) {
        let (ways, tenants) = (self.ways.len(), self.tenants.len());
        let node = node as usize;
        if node < ways {
            let way = &mut self.ways[node];
            way.caps.refill(now);
            if way.caps.is_open() {
                way.is_shut = false;
                self.relist(node);
            } else {
                self.wheel.file(node as u32, later(now, way.caps.wait()));
            }
        } else if node < ways + tenants {
            self.look_at_tenant(node - ways, now);
        } else {
            let (leaf, caps) = &mut self.own[node - ways - tenants];
            caps.refill(now);
            let leaf = *leaf;
            if self.leaves[leaf as usize].state == State::Bound {
                // Its tenant may have been looked at last when it had no tokens.
                self.tenants[usize::from(self.leaves[leaf as usize].tenant)].refill(now);
                self.file(leaf, now);
            }
        }
    }

    pub(super) fn look_at_tenant(&mut self, at: usize, now: Time) {
        let ways = self.ways.len();
        let tenant = &mut self.tenants[at];
        let node = (ways + at) as u32;
        tenant.refill(now);
        if !tenant.caps.is_open() {
            self.wheel.file(node, later(now, tenant.caps.wait()));
            return;
        }
        let was_parked = std::mem::take(&mut tenant.is_parked);
        let turns_green = tenant.is_guaranteed && !tenant.is_green && tenant.is_above_threshold();
        tenant.is_green |= turns_green;
        let again = later(now, tenant.guarantee.wait(tenant.threshold.into()));
        if tenant.is_guaranteed && !tenant.is_green && self.has_packets(at) {
            self.wheel.file(node, again);
        }
        if !was_parked && !turns_green {
            return;
        }
        for word in 0..self.words {
            let mut bits = self.active[at * self.words + word];
            while bits != 0 {
                let index = ((word * 64 + bits.trailing_zeros() as usize) * self.tenants.len() + at) as u32;
                bits &= bits - 1;
                let leaf = &self.leaves[index as usize];
                let way = usize::from(leaf.way);
                match leaf.state {
                    State::Parked if was_parked => self.file(index, now),
                    State::Listed if turns_green => {
                        self.colour(index, now);
                        self.relist(way);
                    }
                    _ => {}
                }
            }
        }
    }
}
