//! Policers: rates, bursts, and what happens to what is above them.

use super::{Given, Resolver, place, start};
use crate::config::Policer;
use crate::config::error::FaultKind;
use crate::config::file::{self, Reaction};
use crate::config::legal::ValueError;
use crate::config::values;
use crate::qos::policer::{Action, Kind, Profile};
use serde_spanned::Spanned;

/// Nanoseconds of a rate that a burst holds when the file does not say.
const DEFAULT_BURST_NS: u64 = 10_000_000;
/// Nanoseconds of a rate that a burst holds at least: packets come in batches.
const LEAST_BURST_NS: u64 = 50_000;
/// Two jumbo packets.
const DEFAULT_BURST: u64 = 18_000;
/// Two packets of Ethernet's usual length.
const LEAST_BURST: u64 = 3_000;

const fn octets_in(rate: u64, ns: u64) -> u64 {
    (rate as u128 * ns as u128 / 8_000_000_000) as u64
}

impl Resolver<'_> {
    /// The policer that a table names.
    pub(super) fn policer_of(&mut self, given: &Given) -> Option<usize> {
        self.refer("policer", given, |resolver, name| resolver.policers.find("policer", name))
    }

    pub(super) fn policer(&mut self, name: &Spanned<String>, table: &file::Policer) -> Option<Policer> {
        self.declare("policer", name, values::new_name);
        let at = (&*format!("policer {:?}", name.get_ref()), start(name));
        let kind = self.need(at, "kind", &table.kind, values::POLICER_KIND);
        let kind = kind.and_then(|kind| self.parse("kind", kind, values::policer_kind));
        let cir = self.need(at, "cir", &table.cir, ValueError::Rate);
        let cir = cir.and_then(|cir| self.parse("cir", cir, values::rate));
        // Of another kind the other keys mean something else.
        let kind = kind?;
        let (word, keys, legal) = match kind {
            Kind::Rfc2697 => ("rfc2697", &["ebs"][..], "cir, cbs, ebs"),
            Kind::Rfc2698 => ("rfc2698", &["pir", "pbs"][..], "cir, cbs, pir, pbs"),
            Kind::Rfc4115 => ("rfc4115", &["eir", "ebs"][..], "cir, cbs, eir, ebs"),
        };
        let seconds = [("pir", &table.pir), ("eir", &table.eir), ("pbs", &table.pbs), ("ebs", &table.ebs)];
        for (key, given) in seconds.into_iter().filter(|(key, _)| !keys.contains(key)) {
            if let Some(at) = place(given) {
                self.faults.push((at, FaultKind::NotOfPolicer { key, kind: word, legal }));
            }
        }
        let (rate_key, rate_given) = if kind == Kind::Rfc2698 { ("pir", &table.pir) } else { ("eir", &table.eir) };
        let pir = match kind {
            Kind::Rfc2697 => Some(0),
            _ => self
                .need(at, rate_key, rate_given, ValueError::Rate)
                .and_then(|it| self.parse(rate_key, it, values::rate)),
        };
        if let (Kind::Rfc2698, Some(cir), Some(pir), Some(at), Some(first)) =
            (kind, cir, pir, place(&table.pir), place(&table.cir))
            && pir < cir
        {
            self.faults.push((at, FaultKind::PeakBelow { pir, cir, first: self.source.line(first) }));
        }
        let (burst_key, burst_given) = if kind == Kind::Rfc2698 { ("pbs", &table.pbs) } else { ("ebs", &table.ebs) };
        let cbs = self.burst("cbs", &table.cbs, cir.unwrap_or(0));
        let pbs = match (kind, burst_given) {
            // Two colours: what the rate lets pass, and what not.
            (Kind::Rfc2697, None) => 0,
            (Kind::Rfc2697, given) => self.burst(burst_key, given, 0),
            (_, given) => self.burst(burst_key, given, pir.unwrap_or(0)),
        };
        let profile = Profile {
            kind,
            cir: cir?,
            pir: pir?,
            cbs,
            pbs,
            packets: self.get("packets", &table.packets, values::packets).unwrap_or(0),
            colour_aware: self.get("colour_aware", &table.colour_aware, values::boolean).unwrap_or(false),
            exceed: self.reaction("exceed", table.exceed.as_ref()).unwrap_or(Action::Pass),
            violate: self.reaction("violate", table.violate.as_ref()).unwrap_or(Action::Drop),
        };
        Some(Policer { name: name.get_ref().clone(), profile })
    }

    fn burst(&mut self, key: &'static str, given: &Given, rate: u64) -> u32 {
        let default = octets_in(rate, DEFAULT_BURST_NS).clamp(DEFAULT_BURST, Profile::MOST_BURST.into());
        let Some(octets) = self.get(key, given, values::burst) else { return default as u32 };
        let least = octets_in(rate, LEAST_BURST_NS).max(LEAST_BURST);
        if u64::from(octets) < least {
            self.faults.push((place(given).unwrap_or(0), FaultKind::SmallBurst { key, octets, least }));
        }
        octets
    }

    fn reaction(&mut self, key: &'static str, given: Option<&Spanned<Reaction>>) -> Option<Action> {
        let given = given?;
        match given.get_ref() {
            Reaction::Word(word) => match values::reaction(word) {
                Ok(action) => Some(action),
                Err(legal) => self.wrong(start(given), FaultKind::Value { key, value: word.to_string(), legal }),
            },
            Reaction::Table(mark) => {
                let dscp = self.need((key, start(given)), "dscp", &mark.dscp, ValueError::Reaction)?;
                self.parse("dscp", dscp, values::plain_dscp).map(Action::Dscp)
            }
        }
    }
}
