//! A shaper in virtual time, and a record of what it let go.

use crate::packet::{Batch, Class, Exits, Packet, PortId, TenantId, Time, TunnelId};
use crate::qos::{Account, Limit, Plan, PortSpec, Queue, Rate, Room, Shaper, Spec, TenantSpec, Weight};
use std::sync::Arc;

/// The one port of the lab.
pub const PORT: PortId = PortId(0);

/// What left, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: u64,
    pub tenant: u16,
    pub into: u16,
    pub class: usize,
    pub flow: u32,
    pub octets: u32,
    pub tos: u8,
    /// When it was offered.
    pub since: u64,
    /// Which of all that were offered.
    pub number: u32,
}

pub struct Lab {
    pub shaper: Shaper,
    pub now: u64,
    pub sent: Vec<Sent>,
    pub exits: Exits,
    batch: Batch,
    /// Numbers that flows carry, so that order can be told.
    pub numbers: u32,
}

/// A packet to be offered; it has no frame, as nothing here looks into one.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub tenant: u16,
    pub into: Option<u16>,
    pub class: u8,
    pub octets: u32,
    pub flow: u32,
    pub tos: u8,
}

impl Offer {
    pub const fn of(tenant: u16, class: u8, octets: u32) -> Self {
        Self { tenant, into: None, class, octets, flow: 0, tos: 0 }
    }
}

pub fn rate(bits: u64) -> Rate {
    Rate::new(bits).expect("a rate of the test")
}

pub fn weight(weight: u16) -> Weight {
    Weight::new(weight).expect("a weight of the test")
}

/// A specification with one port of that rate, L3 accounting, no classes' AQM, and a large buffer.
pub fn spec(link: Option<u64>, tenants: &[(Option<u64>, Limit, u16)]) -> Spec {
    let mut spec = Spec::plain(0);
    spec.ports.push(PortSpec { port: PORT, rate: link.map(rate), account: Account::L3Outer });
    spec.buffer.frames = 4096;
    spec.buffer.bytes = 1 << 30;
    spec.tenants = tenants
        .iter()
        .enumerate()
        .map(|(at, (guarantee, limit, share))| TenantSpec {
            name: format!("tenant-{at}"),
            guarantee: guarantee.map(rate),
            limit: *limit,
            weight: weight(*share),
        })
        .collect();
    for class in &mut spec.classes {
        class.aqm = crate::qos::Aqm::Tail;
        class.alpha_eighths = 800;
    }
    spec
}

impl Lab {
    pub fn new(spec: Spec) -> Self {
        let mut lab = Self {
            shaper: Shaper::new(1, 64),
            now: 1_000_000,
            sent: Vec::new(),
            exits: Exits::new(),
            batch: Batch::new(),
            numbers: 0,
        };
        lab.adopt(spec);
        lab.shaper.open(PORT);
        lab
    }

    pub fn adopt(&mut self, spec: Spec) {
        let plan = Plan::new(&Arc::new(spec), 1).expect("a specification that can be kept");
        self.shaper.adopt(plan, &mut self.exits, Time(self.now));
    }

    pub fn offer(&mut self, offer: Offer) {
        self.offer_together([offer]);
    }

    /// Offers packets in one batch.
    pub fn offer_together(&mut self, offers: impl IntoIterator<Item = Offer>) {
        offers.into_iter().for_each(|offer| self.push(offer));
        self.shaper.enqueue(&mut self.batch, &mut self.exits, Time(self.now));
    }

    fn push(&mut self, offer: Offer) {
        let mut packet = Box::new(Packet::empty());
        packet.egress = PORT;
        packet.tenant = TenantId(offer.tenant);
        packet.into = offer.into.map_or(TunnelId::NONE, TunnelId);
        packet.class = Class::new(offer.class).expect("a class");
        packet.len = offer.octets;
        packet.flow = offer.flow;
        packet.tos = offer.tos;
        packet.arrived = Time(self.now);
        packet.generation = self.numbers;
        self.numbers += 1;
        self.batch.push(packet);
    }

    /// One poll, of as much as there is room for; the record's new part.
    pub fn poll(&mut self, room: impl Into<Room>) -> &[Sent] {
        let before = self.sent.len();
        self.shaper.dequeue(PORT, room, &mut self.batch, &mut self.exits, Time(self.now));
        let at = self.now;
        self.sent.extend(self.batch.drain().map(|packet| Sent {
            at,
            tenant: packet.tenant.0,
            into: packet.into.0,
            class: packet.class.index(),
            flow: packet.flow,
            octets: packet.len + u32::from(packet.overhead),
            tos: packet.tos,
            since: packet.arrived.0,
            number: packet.generation,
        }));
        &self.sent[before..]
    }

    /// Polls every `step` ns for `ns`; each packet that leaves is replaced by one like it.
    pub fn saturate(&mut self, ns: u64, step: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.now += step;
            let new = self.poll(usize::MAX).to_vec();
            self.again(&new);
        }
    }

    /// Offers packets like those that left.
    pub fn again(&mut self, sent: &[Sent]) {
        for sent in sent {
            let into = (sent.into != TunnelId::NONE.0).then_some(sent.into);
            let like = Offer::of(sent.tenant, sent.class as u8, sent.octets);
            self.offer(Offer { into, flow: sent.flow, tos: sent.tos, ..like });
        }
    }

    /// Octets that a tenant sent in `from..to`.
    pub fn octets(&self, from: u64, to: u64, which: impl Fn(&Sent) -> bool) -> u64 {
        self.sent
            .iter()
            .filter(|sent| (from..to).contains(&sent.at) && which(sent))
            .map(|sent| u64::from(sent.octets))
            .sum()
    }

    /// Whether memory, lists and counts agree.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.shaper.is_whole(), "a slot is lost");
        if let Some(Queue::Shaped(scheduler)) = self.shaper.queues.first() {
            assert!(scheduler.is_consistent(), "lists and queues disagree");
        }
    }
}
