//! Whose a packet is, and which of its owner's queues it waits in: the first tenant and the first class that it meets.

use super::filter::{Filter, Match, Ways};
use crate::packet::{AdjacencyId, Batch, Class, Packet, TenantId};
use lpm::TableError;
use std::sync::Arc;

/// What makes packets a tenant's, or of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Of each tenant but `default`, in their order.
    pub tenants: Vec<Match>,
    /// In their order.
    pub classes: Vec<(Match, Class)>,
    /// Of packets that meet none of them.
    pub rest: Class,
}

/// All tenants and classes; where nothing is queued by them, they cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Classes(Option<Arc<Compiled>>);

#[derive(Debug)]
struct Compiled {
    rules: Rules,
    ways: Ways,
    tenants: Option<Filter>,
    classes: Option<Filter>,
}

impl Classes {
    /// Of rules, for packets that come in by these ways.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new(rules: Option<Rules>, ways: Ways) -> Result<Self, TableError> {
        let Some(rules) = rules else { return Ok(Self(None)) };
        let filter = |matches: Vec<Match>| (!matches.is_empty()).then(|| Filter::new(&matches, &ways)).transpose();
        let tenants = filter(rules.tenants.clone())?;
        let classes = filter(rules.classes.iter().map(|(matches, _)| matches.clone()).collect())?;
        Ok(Self(Some(Arc::new(Compiled { rules, ways, tenants, classes }))))
    }

    /// Whether these are its rules: then there is nothing to compile.
    pub fn is_of(&self, rules: Option<&Rules>, ways: &Ways) -> bool {
        match (&self.0, rules) {
            (Some(compiled), Some(rules)) => compiled.ways == *ways && compiled.rules == *rules,
            (None, None) => true,
            _ => false,
        }
    }

    /// Fills in tenant and class of packets that are parsed.
    #[inline(always)]
    pub fn classify(&self, batch: &mut Batch) {
        if let Some(compiled) = &self.0 {
            batch.chunks_mut().for_each(|packets| compiled.classify(packets));
        }
    }
}

impl Compiled {
    #[inline(never)]
    fn classify(&self, packets: &mut [Box<Packet>]) {
        // Lookups answer in the adjacency, which what comes from a device has already.
        let mut kept = [AdjacencyId::NONE; Batch::SIZE];
        for (kept, packet) in kept.iter_mut().zip(&*packets) {
            *kept = packet.adjacency;
        }
        if let Some(filter) = &self.tenants {
            filter.first(packets);
            for packet in &mut *packets {
                // Rules begin with the second tenant: the number of none becomes that of `default`.
                let rule = packet.adjacency.index();
                packet.tenant = TenantId(if rule < self.rules.tenants.len() { rule as u16 + 1 } else { 0 });
            }
        }
        match &self.classes {
            Some(filter) => {
                filter.first(packets);
                for packet in &mut *packets {
                    let met = self.rules.classes.get(packet.adjacency.index());
                    packet.class = met.map_or(self.rules.rest, |(_, class)| *class);
                }
            }
            None => packets.iter_mut().for_each(|packet| packet.class = self.rules.rest),
        }
        for (kept, packet) in kept.iter().zip(packets) {
            packet.adjacency = *kept;
        }
    }
}
