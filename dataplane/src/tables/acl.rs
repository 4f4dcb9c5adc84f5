//! What may pass, stateless: the first rule that a packet meets decides, and what meets none passes.

use super::filter::{Filter, Match, Ways};
use crate::packet::{AdjacencyId, Batch, DropReason, Exit, Exits};
use crate::stats::Tally;
use lpm::TableError;
use std::sync::Arc;

/// What happens to a packet that meets a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes.
    Permit,
    /// It is dropped in silence.
    Deny,
    /// It is dropped, and its sender told.
    Reject,
}

impl Action {
    /// As the file says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which packets.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
}

/// All rules; without any, they cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Acl(Option<Arc<Compiled>>);

#[derive(Debug)]
struct Compiled {
    rules: Vec<Rule>,
    ways: Ways,
    filter: Filter,
    /// By rule, and last of packets that meet none: looked up, not branched on, for which it is nobody can guess.
    verdicts: Box<[Result<(), Exit>]>,
}

impl Acl {
    /// Of rules in their order, for packets that come in by these ways.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    pub fn new(rules: Vec<Rule>, ways: Ways) -> Result<Self, TableError> {
        if rules.is_empty() {
            return Ok(Self(None));
        }
        let matches: Vec<Match> = rules.iter().map(|rule| rule.matches.clone()).collect();
        let filter = Filter::new(&matches, &ways)?;
        let verdict = |action| match action {
            Action::Permit => Ok(()),
            Action::Deny => Err(Exit::Drop(DropReason::AclDeny)),
            Action::Reject => Err(Exit::Drop(DropReason::AclReject)),
        };
        let verdicts = rules.iter().map(|rule| verdict(rule.action)).chain([Ok(())]).collect();
        Ok(Self(Some(Arc::new(Compiled { rules, ways, filter, verdicts }))))
    }

    /// Whether these are its rules: then there is nothing to compile.
    pub fn is_of<'r>(&self, mut rules: impl Iterator<Item = &'r Rule>, ways: &Ways) -> bool {
        match &self.0 {
            Some(compiled) => compiled.ways == *ways && compiled.rules.iter().eq(rules),
            None => rules.next().is_none(),
        }
    }

    /// Lets go what may pass, counted by rule: what meets none behind the last. What may not goes to `exits`.
    #[inline(always)]
    pub fn admit(&self, batch: &mut Batch, exits: &mut Exits, tally: &mut Tally) {
        if let Some(compiled) = &self.0 {
            compiled.admit(batch, exits, tally);
        }
    }
}

impl Compiled {
    #[inline(never)]
    fn admit(&self, batch: &mut Batch, exits: &mut Exits, tally: &mut Tally) {
        batch.chunks_mut().for_each(|packets| self.filter.first(packets));
        batch.retain(exits, |packet| {
            let at = packet.adjacency.index().min(self.verdicts.len() - 1);
            packet.adjacency = AdjacencyId::NONE;
            tally.rule_met(at, packet.len.into());
            self.verdicts[at]
        });
    }
}
