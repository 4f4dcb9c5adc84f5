//! Tenants, classes, and what tunnels and tenants never exceed.

use super::acl::Asked;
use super::{Given, Resolver, in_file_order, place, start};
use crate::config::error::FaultKind;
use crate::config::file::{self, Either};
use crate::config::legal::ValueError;
use crate::config::values;
use crate::config::{Config, Qos, Tenant};
use crate::packet::Class;
use crate::qos::{
    Account, Aqm, ClassSpec, Codel, Limit, NotCapable, PacketRate, Rate, Red, Service, Spec, Weight, gpu_gateway,
};
use crate::tables::filter::Match;
use serde_spanned::Spanned;
use wire::protocol;

/// Two packets of the largest usual length.
const LEAST_BURST: u64 = 3_000;
/// Nanoseconds of a rate that a burst holds at least: packets come in batches.
const LEAST_BURST_NS: u64 = 50_000;

/// What clouds let a tunnel do, less 3 percent, so that it is here that packets wait and are marked: name, bits per
/// second, packets per second. That of Google counts both directions, so that half of it is for each.
const PRESETS: [(&str, Option<u64>, Option<u32>); 4] = [
    ("aws-vpn-standard", Some(1_250_000_000), Some(140_000)),
    ("aws-vpn-large", Some(5_000_000_000), None),
    ("aws-tgw-connect", Some(5_000_000_000), None),
    ("gcp-ha-vpn", None, Some(125_000)),
];

/// For messages.
const PRESET_NAMES: [&str; PRESETS.len()] = {
    let [(a, ..), (b, ..), (c, ..), (d, ..)] = PRESETS;
    [a, b, c, d]
};

/// Percent of a preset that are used.
const SHARE: u64 = 97;

/// The class of what no rule is for, in the preset.
const DEFAULT_CLASS: u8 = 5;

impl Resolver<'_> {
    /// An interface's rate.
    pub(super) fn link_rate(&mut self, table: &file::Interface) -> Option<Rate> {
        if let (Some(_), Some(at)) = (&table.parent, place(&table.rate)) {
            self.faults.push((at, FaultKind::NotTogether { key: "rate", other: "parent" }));
        }
        self.get("rate", &table.rate, values::rate).and_then(Rate::new)
    }

    /// What a tunnel never exceeds.
    pub(super) fn cap(&mut self, cap: Option<&Spanned<Either<file::Cap>>>) -> Limit {
        let Some(cap) = cap else { return Limit::NONE };
        match cap.get_ref() {
            Either::Word(word) => match values::cap(word, &PRESET_NAMES) {
                Ok(at) => Limit {
                    rate: PRESETS[at].1.and_then(|bits| Rate::new(bits * SHARE / 100)),
                    packets: PRESETS[at].2.and_then(|packets| PacketRate::new(packets * SHARE as u32 / 100)),
                    ..Limit::NONE
                },
                Err(legal) => {
                    self.faults.push((start(cap), FaultKind::Value { key: "cap", value: word.to_string(), legal }));
                    Limit::NONE
                }
            },
            Either::Table(table) => {
                if table.rate.is_none() && table.packets.is_none() {
                    let missing = FaultKind::Missing { table: "cap".into(), key: "rate", legal: ValueError::Cap };
                    self.faults.push((start(cap), missing));
                }
                self.bound(&table.rate, "rate", &table.burst, &table.packets)
            }
        }
    }

    fn bound(&mut self, rate: &Given, key: &'static str, burst: &Given, packets: &Given) -> Limit {
        let limit = Limit {
            rate: self.get(key, rate, values::rate).and_then(Rate::new),
            burst: self.get("burst", burst, values::burst),
            packets: self.get("packets", packets, values::packets).and_then(PacketRate::new),
            packet_burst: None,
        };
        self.sound_burst(burst, limit.burst, limit.rate);
        limit
    }

    fn sound_burst(&mut self, given: &Given, burst: Option<u32>, rate: Option<Rate>) {
        let (Some(octets), Some(at)) = (burst, place(given)) else { return };
        let least = rate.map_or(0, |rate| rate.octets_in(LEAST_BURST_NS)).max(LEAST_BURST);
        if u64::from(octets) < least {
            self.faults.push((at, FaultKind::SmallBurst { key: "burst", octets, least }));
        }
    }

    /// The tenants. `config` has the VRFs, interfaces and tunnels.
    pub(super) fn tenants(&mut self, tables: &[(&Spanned<String>, &file::Tenant)], config: &Config) -> Vec<Tenant> {
        let last = tables.last().map(|last| start(last.0));
        self.limit("tenant", tables.len(), Config::MAX_TENANTS, last);
        let others = tables.iter().filter(|(name, _)| name.get_ref() != Tenant::DEFAULT).count();
        let (tenants, ways) = (others + 1, config.tunnels.len() + 1);
        if let (true, Some(last)) = (tenants * ways > Spec::MOST_LEAVES, last) {
            self.faults.push((last, FaultKind::TooManyPairs { tenants, ways, most: Spec::MOST_LEAVES }));
        }
        tables.iter().map(|(name, table)| self.tenant(name, table, config)).collect()
    }

    fn tenant(&mut self, name: &Spanned<String>, table: &file::Tenant, config: &Config) -> Tenant {
        self.declare("tenant", name, values::new_name);
        let is_default = name.get_ref() == Tenant::DEFAULT;
        let matches = match &table.r#match {
            Some(given) if is_default => {
                self.faults.push((start(given), FaultKind::DefaultMatches));
                Match::default()
            }
            Some(given) => {
                let it = given.get_ref();
                let asked = Asked {
                    vrf: &it.vrf,
                    interface: &it.interface,
                    tunnel: &it.tunnel,
                    source: &it.source,
                    destination: &it.destination,
                    ..Asked::default()
                };
                let faults = self.faults.len();
                let matches = self.matches(&asked, config);
                if matches == Match::default() && self.faults.len() == faults {
                    self.faults.push((start(given), FaultKind::EmptyMatch));
                }
                matches
            }
            None if is_default => Match::default(),
            None => {
                let table = format!("tenant {:?}", name.get_ref());
                self.faults
                    .push((start(name), FaultKind::Missing { table, key: "match", legal: ValueError::TenantMatch }));
                Match::default()
            }
        };
        let guarantee = self.get("guarantee", &table.guarantee, values::rate).and_then(Rate::new);
        let limit = self.bound(&table.limit, "limit", &table.burst, &table.packets);
        // The burst is the guarantee's too.
        self.sound_burst(&table.burst, limit.burst.filter(|_| limit.rate.is_none()), guarantee);
        if let (Some(guarantee), Some(limit), Some(at), Some(first)) =
            (guarantee, limit.rate, place(&table.guarantee), place(&table.limit))
            && guarantee > limit
        {
            let first = self.source.line(first);
            self.faults.push((at, FaultKind::AboveLimit { guarantee: guarantee.bits(), limit: limit.bits(), first }));
        }
        Tenant {
            name: name.get_ref().clone(),
            matches,
            guarantee,
            limit,
            weight: self
                .get("weight", &table.weight, values::tenant_weight)
                .and_then(Weight::new)
                .unwrap_or(Weight::ONE),
            policer: self.policer_of(&table.policer),
            via: self.tenant_via(table, limit, config),
            line: self.source.line(place(&table.guarantee).unwrap_or(start(name))),
        }
    }

    /// What a tenant never sends more of into single tunnels. A bound that never binds is a mistake.
    fn tenant_via(&mut self, tenant: &file::Tenant, of_tenant: Limit, config: &Config) -> Vec<(usize, Limit)> {
        let mut list = Vec::new();
        for (name, table) in in_file_order(&tenant.via) {
            let tunnel = match self.tunnels.find("via", name.get_ref()) {
                Ok(tunnel) => tunnel,
                Err(fault) => {
                    self.faults.push((start(name), fault));
                    continue;
                }
            };
            if table.limit.is_none() && table.packets.is_none() {
                let missing = FaultKind::Missing {
                    table: format!("via {:?}", name.get_ref()),
                    key: "limit",
                    legal: ValueError::Via,
                };
                self.faults.push((start(name), missing));
            }
            let limit = self.bound(&table.limit, "limit", &table.burst, &table.packets);
            // A tunnel that is wrong itself has been left out.
            let carried = config.tunnels.iter().zip(&self.places.tunnels).find(|(it, _)| it.name == *name.get_ref());
            let cap = carried
                .and_then(|(it, places)| Some((format!("the cap of tunnel {:?}", it.name), it.cap.rate?, places.cap)));
            let own = of_tenant.rate.map(|rate| ("the tenant's limit".to_owned(), rate, place(&tenant.limit)));
            for (of, most, first) in own.into_iter().chain(cap) {
                let (Some(rate), Some(at)) = (limit.rate, place(&table.limit)) else { continue };
                if rate > most {
                    let first = first.map(|first| self.source.line(first));
                    let fault = FaultKind::NeverBinds { limit: rate.bits(), of, most: most.bits(), first };
                    self.faults.push((at, fault));
                }
            }
            list.push((tunnel, limit));
        }
        list
    }

    /// Classes, as the file says or as the preset does.
    pub(super) fn qos(&mut self, table: &file::Qos, config: &Config) -> Qos {
        let account = self.get("account", &table.account, values::account).unwrap_or_default();
        let preset = self.get("classes", &table.classes, values::classes);
        if let (Some(_), Some(first)) = (preset, table.class.first()) {
            self.faults.push((start(first), FaultKind::NotTogether { key: "class", other: "classes" }));
        }
        if table.class.is_empty() {
            return Qos { account, ..Qos::gpu_gateway() };
        }
        let most = if table.class.len() > Class::COUNT { table.class.get(Class::COUNT).map(start) } else { None };
        self.limit("class", table.class.len(), Class::COUNT, most);
        let mut qos = Qos { account, ..Qos::gpu_gateway() };
        qos.rules.clear();
        let mut names: Vec<(String, usize)> = Vec::new();
        let mut strict = 0;
        for (at, spanned) in table.class.iter().enumerate().take(Class::COUNT) {
            let (place_of, class) = (start(spanned), spanned.get_ref());
            let spec = self.class(place_of, class);
            if let Some((_, first)) = names.iter().find(|(name, _)| *name == spec.name) {
                let (name, first) = (spec.name.clone(), self.source.line(*first));
                self.faults.push((place_of, FaultKind::SameClass { name, first }));
            }
            names.push((spec.name.clone(), place_of));
            strict += usize::from(matches!(spec.service, Service::Strict { .. }));
            if strict > 2 && matches!(spec.service, Service::Strict { .. }) {
                self.faults.push((place(&class.service).unwrap_or(place_of), FaultKind::ThirdStrict));
            }
            let number = Class::new(at as u8).unwrap_or_default();
            match &class.r#match {
                Some(given) => {
                    let matches = self.class_match(given.get_ref(), config);
                    qos.rules.push((matches, number));
                }
                None => qos.rest = number,
            }
            qos.classes[at] = spec;
        }
        let without = table.class.iter().filter(|class| class.get_ref().r#match.is_none()).count();
        if without != 1 {
            let last = table.class.last().map_or(0, start);
            self.faults.push((last, FaultKind::OneRest { count: without }));
        }
        for (at, class) in qos.classes.iter_mut().enumerate().skip(table.class.len()) {
            // Nothing is ever in it.
            let service = Service::Drr { share: 1 };
            *class = ClassSpec {
                name: format!("unused-{at}"),
                service,
                aqm: Aqm::Tail,
                not_capable: NotCapable::Pass,
                alpha_eighths: 4,
            };
        }
        qos
    }

    fn class(&mut self, at: usize, table: &file::QosClass) -> ClassSpec {
        let name = self.need(("[[qos.class]]", at), "name", &table.name, ValueError::NewName);
        let name = name.and_then(|name| self.parse("name", name, values::class_name)).unwrap_or_default();
        let known = self.get("service", &table.service, values::service);
        let strict = known.unwrap_or(false);
        let (other, only) = if strict { (&table.share, "share") } else { (&table.limit, "limit") };
        if let Some(at) = place(other) {
            let other = if strict { "service = \"strict\"" } else { "service = \"drr\"" };
            self.faults.push((at, FaultKind::NotTogether { key: only, other }));
        }
        let service = if known.is_none() && table.service.is_some() {
            // What else it needs depends on what it should have been.
            Service::Drr { share: 1 }
        } else if strict {
            let percent = self.need(("[[qos.class]]", at), "limit", &table.limit, ValueError::Percent);
            Service::Strict { percent: percent.and_then(|it| self.parse("limit", it, values::percent)).unwrap_or(1) }
        } else {
            let share = self.need(("[[qos.class]]", at), "share", &table.share, ValueError::Share);
            Service::Drr { share: share.and_then(|it| self.parse("share", it, values::share)).unwrap_or(1) }
        };
        let aqm = table.aqm.as_ref().map_or(Aqm::FqCodel(Codel::WAN), |given| self.aqm(given));
        let not_capable = self.get("not_ecn", &table.not_ecn, values::not_ecn).unwrap_or(match aqm {
            Aqm::Tail => NotCapable::Pass,
            _ => NotCapable::Drop,
        });
        let alpha_eighths = match (strict, aqm) {
            (true, Aqm::Tail) => 64,
            (_, Aqm::Red(_)) => 16,
            _ => 4,
        };
        ClassSpec { name, service, aqm, not_capable, alpha_eighths }
    }

    fn aqm(&mut self, given: &Spanned<Either<file::Aqm>>) -> Aqm {
        let table = match given.get_ref() {
            Either::Word(word) => {
                let aqm = values::aqm(word);
                return aqm.unwrap_or_else(|legal| {
                    let fault = FaultKind::Value { key: "aqm", value: word.to_string(), legal };
                    self.faults.push((start(given), fault));
                    Aqm::Tail
                });
            }
            Either::Table(table) => table,
        };
        let kind = self.need(("aqm", start(given)), "kind", &table.kind, values::AQM);
        let Some(kind) = kind.and_then(|kind| self.parse("kind", kind, values::aqm)) else { return Aqm::Tail };
        let curve = [("start", &table.start), ("end", &table.end), ("probability", &table.probability)];
        let codel = [("target", &table.target), ("interval", &table.interval), ("ce_threshold", &table.ce_threshold)];
        let foreign: &[_] = match kind {
            Aqm::Tail => &[curve, codel],
            Aqm::Red(_) => &[codel],
            Aqm::Codel(_) | Aqm::FqCodel(_) => &[curve],
        };
        for (key, given) in foreign.iter().flatten() {
            if let Some(at) = place(given) {
                self.faults.push((at, FaultKind::NotTogether { key, other: "this kind" }));
            }
        }
        let with = |resolver: &mut Self, codel: Codel| {
            let codel = Codel {
                target_ns: resolver.get("target", &table.target, values::time).unwrap_or(codel.target_ns),
                interval_ns: resolver.get("interval", &table.interval, values::time).unwrap_or(codel.interval_ns),
                ce_threshold_ns: resolver.get("ce_threshold", &table.ce_threshold, values::time),
            };
            if let (Some(at), true) = (place(&table.target), codel.target_ns >= codel.interval_ns) {
                resolver.faults.push((at, FaultKind::NotBelow { key: "target", other: "interval" }));
            }
            codel
        };
        match kind {
            Aqm::Tail => Aqm::Tail,
            Aqm::Codel(codel) => Aqm::Codel(with(self, codel)),
            Aqm::FqCodel(codel) => Aqm::FqCodel(with(self, codel)),
            Aqm::Red(red) => {
                let red = Red {
                    start_ns: self.get("start", &table.start, values::time).unwrap_or(red.start_ns),
                    end_ns: self.get("end", &table.end, values::time).unwrap_or(red.end_ns),
                    most_permille: self
                        .get("probability", &table.probability, values::percent)
                        .map_or(red.most_permille, |percent| u16::from(percent) * 10),
                };
                let at = place(&table.start).or(place(&table.end)).unwrap_or(start(given));
                if red.start_ns >= red.end_ns {
                    self.faults.push((at, FaultKind::NotBelow { key: "start", other: "end" }));
                    return Aqm::Tail;
                }
                Aqm::Red(red)
            }
        }
    }

    fn class_match(&mut self, table: &file::ClassMatch, config: &Config) -> Match {
        let asked = Asked {
            vrf: &table.vrf,
            interface: &table.interface,
            tunnel: &table.tunnel,
            source: &table.source,
            destination: &table.destination,
            protocol: &table.protocol,
            source_port: &table.source_port,
            destination_port: &table.destination_port,
            dscp: &table.dscp,
        };
        Match {
            vlan: self.get("vlan", &table.vlan, values::vlan),
            cnp: self.get("cnp", &table.cnp, values::boolean).unwrap_or(false),
            ..self.matches(&asked, config)
        }
    }
}

impl Qos {
    /// The preset `gpu-gateway`.
    pub fn gpu_gateway() -> Self {
        let class = |number: u8| Class::new(number).unwrap_or_default();
        let dscps = |number, dscps: &[u8]| (Match { dscps: dscps.to_vec(), ..Match::default() }, class(number));
        let port = |number, protocol: u8, port: u16| {
            let one = Match { protocols: vec![protocol], destination_ports: vec![port..=port], ..Match::default() };
            let other = Match { protocols: vec![protocol], source_ports: vec![port..=port], ..Match::default() };
            [(one, class(number)), (other, class(number))]
        };
        let mut rules = vec![(Match { cnp: true, ..Match::default() }, class(0)), dscps(0, &[48, 56])];
        // BGP, IKE, BFD.
        rules.extend(port(0, protocol::TCP, 179));
        rules.extend(port(0, protocol::UDP, 500));
        for bfd in [3784, 3785, 4784] {
            rules.push(port(0, protocol::UDP, bfd)[0].clone());
        }
        rules.extend([dscps(1, &[46, 34]), dscps(2, &[26, 24])]);
        rules.push(port(2, protocol::UDP, 4791)[0].clone());
        rules.extend([dscps(3, &[18, 20]), dscps(4, &[10, 12]), dscps(6, &[8, 1])]);
        Self { account: Account::default(), classes: gpu_gateway(), rules, rest: class(DEFAULT_CLASS) }
    }
}
