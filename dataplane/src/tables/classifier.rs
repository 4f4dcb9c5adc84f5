//! What a packet meets first of each ordered list: a rule of the access list, a tenant, a class (RFC 2475 §2.3.1).
//!
//! The lists ask for the same things of a packet, so it is looked at once for all of them.

use super::acl::Rule;
use super::filter::{Filter, LISTS, Match, Ways};
use crate::packet::{AdjacencyId, Batch, Class, Exit, Exits, Numbering, Origin, Packet, TenantId};
use crate::stats::Tally;
use lpm::TableError;
use std::sync::Arc;

/// What makes packets a tenant's, or of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Which numbers tenants have, in their order from 1 on.
    pub numbering: Numbering,
    /// Of each tenant but `default`, in their order.
    pub tenants: Vec<Match>,
    /// In their order.
    pub classes: Vec<(Match, Class)>,
    /// Of packets that meet none of them.
    pub rest: Class,
}

/// All lists; without any, they cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Classifier(Option<Arc<Compiled>>);

#[derive(Debug)]
struct Compiled {
    rules: Vec<Rule>,
    marks: Option<Marks>,
    ways: Ways,
    /// One for all lists, or one for each where all together would be too much; which lists each one answers for.
    filters: Vec<([bool; LISTS], Filter)>,
    /// By rule, and last of packets that meet none: looked up, not branched on, for which it is nobody can guess.
    verdicts: Box<[Result<(), Exit>]>,
    /// By class's rule, likewise; as packets have them.
    classes: Box<[Class]>,
    /// How many there are but `default`.
    tenants: u16,
}

impl Classifier {
    /// Of an access list's rules in their order, and of tenants and classes where something is queued by them, for packets
    /// that come in by these ways.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new(rules: Vec<Rule>, marks: Option<Marks>, ways: Ways) -> Result<Self, TableError> {
        if rules.is_empty() && marks.is_none() {
            return Ok(Self(None));
        }
        let of_marks = marks.clone().unwrap_or_default();
        let (matches, classes): (Vec<Match>, Vec<Class>) = of_marks.classes.into_iter().unzip();
        let tenants = of_marks.tenants.len() as u16;
        let lists = [rules.iter().map(|rule| rule.matches.clone()).collect(), of_marks.tenants, matches];
        let verdicts = rules.iter().map(|rule| rule.action.verdict()).chain([Ok(())]).collect();
        let classes = classes.into_iter().chain([of_marks.rest]);
        let classes = classes.map(|class| class.numbered(of_marks.numbering)).collect();
        let filters = filters(lists, &ways)?;
        Ok(Self(Some(Arc::new(Compiled { rules, marks, ways, filters, verdicts, classes, tenants }))))
    }

    /// Whether these are its lists: then there is nothing to compile.
    pub fn is_of<'r>(&self, mut rules: impl Iterator<Item = &'r Rule>, marks: Option<&Marks>, ways: &Ways) -> bool {
        match &self.0 {
            Some(compiled) => {
                compiled.ways == *ways && compiled.marks.as_ref() == marks && compiled.rules.iter().eq(rules)
            }
            None => marks.is_none() && rules.next().is_none(),
        }
    }

    /// Lets go what may pass, counted by rule: what meets none behind the last. What may not goes to `exits`. Fills in
    /// tenant and class.
    ///
    /// The packets are parsed.
    #[inline(always)]
    pub fn admit(&self, batch: &mut Batch, exits: &mut Exits, tally: &mut Tally) {
        match &self.0 {
            Some(compiled) if compiled.rules.is_empty() => compiled.mark(batch),
            Some(compiled) => compiled.admit(batch, exits, tally),
            None => (),
        }
    }

    /// Fills in tenant and class of packets that no access list is asked about.
    #[inline(always)]
    pub fn mark(&self, batch: &mut Batch) {
        if let Some(compiled) = &self.0
            && compiled.marks.is_some()
        {
            compiled.mark(batch);
        }
    }

    /// Packets that waited where nobody minds numbers are told by today's again. The gateway's own are `default`'s always.
    pub fn renumber(&self, batch: &mut Batch) {
        let Some(compiled) = &self.0 else { return };
        let Some(numbering) = compiled.marks.as_ref().map(|marks| marks.numbering) else { return };
        for packet in batch.chunks_mut().flatten().filter(|packet| packet.class.numbering() != numbering) {
            if packet.origin == Origin::Gateway {
                packet.class = packet.class.numbered(numbering);
            } else {
                compiled.look(std::slice::from_mut(packet), |_, _| ());
            }
        }
    }
}

/// Prefixes and ports of all lists in one filter at most: what tells them apart has 15 bits.
const VALUES: usize = 16_384;

/// Filters, and which lists each one answers for: one for all if that is the better way, else one for each.
fn filters(lists: [Vec<Match>; LISTS], ways: &Ways) -> Result<Vec<([bool; LISTS], Filter)>, TableError> {
    let values = |rule: &Match| {
        rule.sources.len() + rule.destinations.len() + rule.source_ports.len() + rule.destination_ports.len()
    };
    if lists.iter().flatten().map(values).sum::<usize>() <= VALUES {
        let all = Filter::new(&lists, ways)?;
        if all.is_folded() {
            return Ok(vec![([true; LISTS], all)]);
        }
    }
    let alone = lists.into_iter().enumerate().map(|(at, list)| {
        let (mut lists, mut answers) = ([const { Vec::new() }; LISTS], [false; LISTS]);
        (lists[at], answers[at]) = (list, true);
        Ok((answers, Filter::new(&lists, ways)?))
    });
    alone.collect()
}

impl Compiled {
    #[inline(never)]
    fn admit(&self, batch: &mut Batch, exits: &mut Exits, tally: &mut Tally) {
        // As in other lookups before the route's, the answer is in the packet's adjacency.
        let note = |packet: &mut Packet, rule: u16| packet.adjacency = AdjacencyId(rule.into());
        match (&self.marks, &self.filters[..]) {
            (None, [(_, filter), ..]) => {
                batch.chunks_mut().for_each(|packets| filter.first(packets, |packet, [rule]| note(packet, rule)));
            }
            _ => batch.chunks_mut().for_each(|packets| self.look(packets, note)),
        }
        batch.retain(exits, |packet| {
            let at = packet.adjacency.index().min(self.verdicts.len() - 1);
            packet.adjacency = AdjacencyId::NONE;
            tally.rule_met(at, packet.len.into());
            self.verdicts[at]
        });
    }

    #[inline(never)]
    fn mark(&self, batch: &mut Batch) {
        batch.chunks_mut().for_each(|packets| self.look(packets, |_, _| ()));
    }

    /// Fills in tenant and class, and hands on which rule was met.
    #[inline(always)]
    fn look(&self, packets: &mut [Box<Packet>], mut note: impl FnMut(&mut Packet, u16)) {
        let (tenants, rest) = (self.tenants, self.classes.len() - 1);
        for &([of_rule, of_tenant, of_class], ref filter) in &self.filters {
            filter.first(packets, |packet, [rule, tenant, class]| {
                if of_rule {
                    note(packet, rule);
                }
                if of_tenant {
                    // Rules begin with the second tenant: the number of none becomes that of `default`.
                    packet.tenant = TenantId(if tenant < tenants { tenant + 1 } else { 0 });
                }
                if of_class {
                    packet.class = self.classes[usize::from(class).min(rest)];
                }
            });
        }
    }
}
