//! Whose packets are that were told by other numbers: of tenants and tunnels that had them before a change.
//!
//! Packets carry which numbers theirs are ([`Numbering`]). Those in a scheduler have its own. Those in a plain queue, on
//! their way between two workers or bound by tables that are about to go may have older ones, until a scheduler takes them.
//! So whoever changes numbers gives every worker its plan first, and then publishes the tables.

use super::spec::Spec;
use crate::packet::{Numbering, Packet, TenantId, TunnelId};
use std::collections::HashMap;

/// From one specification to the next, by name.
#[derive(Clone, Debug)]
pub struct Renumbering {
    from: Numbering,
    /// By old number: the new one, if there is such a tenant.
    pub tenants: Vec<Option<u16>>,
    /// By old number: the new one, if there is such a tunnel.
    pub tunnels: Vec<Option<u16>>,
}

impl Renumbering {
    /// Tenants and tunnels are the same if their names are.
    pub fn between(old: &Spec, new: &Spec) -> Self {
        fn map<'n>(old: impl Iterator<Item = &'n String>, new: impl Iterator<Item = &'n String>) -> Vec<Option<u16>> {
            let numbers: HashMap<_, _> = new.zip(0..).collect();
            old.map(|name| numbers.get(name).copied()).collect()
        }
        Self {
            from: old.numbering,
            tenants: map(old.tenants.iter().map(|it| &it.name), new.tenants.iter().map(|it| &it.name)),
            tunnels: map(old.tunnels.iter().map(|it| &it.name), new.tunnels.iter().map(|it| &it.name)),
        }
    }

    /// And on to the next.
    fn follow(&mut self, next: &Self) {
        let follow = |numbers: &mut Vec<Option<u16>>, next: &[Option<u16>]| {
            numbers.iter_mut().for_each(|it| *it = it.and_then(|number| next.get(usize::from(number)).copied()?));
        };
        follow(&mut self.tenants, &next.tenants);
        follow(&mut self.tunnels, &next.tunnels);
    }

    /// The packet as it is told now. What was a tenant's that is gone is `default`'s; what was to go into a tunnel that is
    /// gone is the port's own: when it leaves, the tables say what becomes of it.
    pub fn apply(&self, packet: &mut Packet, now: Numbering) {
        let new = |numbers: &[Option<u16>], old: usize| numbers.get(old).copied().flatten();
        packet.tenant = new(&self.tenants, packet.tenant.index()).map_or(TenantId::DEFAULT, TenantId);
        packet.into = new(&self.tunnels, packet.into.index()).map_or(TunnelId::NONE, TunnelId);
        packet.class = packet.class.numbered(now);
    }
}

/// The numbers of now, and how to get there from those before.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Those of now.
    pub now: Numbering,
    /// The latest last.
    before: Vec<Renumbering>,
}

/// Changes that are remembered.
const REMEMBERED: usize = 8;

impl Numbers {
    /// Others from now on.
    pub fn change(&mut self, renumbering: Renumbering, now: Numbering) {
        self.before.iter_mut().for_each(|before| before.follow(&renumbering));
        if renumbering.from != now {
            self.before.push(renumbering);
        }
        self.before.retain(|before| before.from != now);
        let forgotten = self.before.len().saturating_sub(REMEMBERED);
        self.before.drain(..forgotten);
        self.now = now;
    }

    /// Whether the packet is told by the numbers of now: it is, if those that it has are known.
    #[inline]
    pub fn renew(&self, packet: &mut Packet) -> bool {
        packet.class.numbering() == self.now || self.translate(packet)
    }

    #[cold]
    fn translate(&self, packet: &mut Packet) -> bool {
        let before = self.before.iter().find(|before| before.from == packet.class.numbering());
        before.inspect(|before| before.apply(packet, self.now)).is_some()
    }
}
