//! From rules to rows: once for each change of the configuration, so cost counts little and bounds much.

use super::rows::{self, Fold, GROUP, Group, PortClasses, Rows, WORD};
use super::{CNP, Family, Filter, LISTS, Lists, Match, Rest, Side, WayIn};
use ipnet::IpNet;
use lpm::{Limits, Prefix4, Prefix6, Reader4, Reader6, TableError, Value, Writer4, Writer6};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use wire::protocol;

/// Pairs of classes in one table at most. A table of that many no longer stays in the second cache.
const PAIRS: usize = 1 << 18;
/// Groups of all combinations together at most: 16 MiB.
const GROUPS: usize = 1 << 19;

/// What a longest match is compiled into.
pub trait Classes: Sized {
    /// A table with these prefixes and their classes.
    fn new(prefixes: &[(IpNet, Value)]) -> Result<Self, TableError>;
}

impl Classes for Reader4 {
    fn new(prefixes: &[(IpNet, Value)]) -> Result<Self, TableError> {
        let mut table = Writer4::new(LIMITS)?;
        for (prefix, value) in prefixes {
            if let IpNet::V4(prefix) = prefix
                && let Ok(prefix) = Prefix4::try_from(*prefix)
            {
                table.insert(0, prefix, *value)?;
            }
        }
        Ok(table.reader())
    }
}

impl Classes for Reader6 {
    fn new(prefixes: &[(IpNet, Value)]) -> Result<Self, TableError> {
        let mut table = Writer6::new(LIMITS)?;
        for (prefix, value) in prefixes {
            if let IpNet::V6(prefix) = prefix
                && let Ok(prefix) = Prefix6::try_from(*prefix)
            {
                table.insert(0, prefix, *value)?;
            }
        }
        Ok(table.reader())
    }
}

/// How many ports there are.
const PORTS: u32 = 1 << 16;
/// Address space until it is used.
const LIMITS: Limits = Limits { vrfs: 1, bytes: 64 << 20 };

/// The rules as packets of one family meet them.
pub fn side<R: Classes>(lists: &[Vec<Match>; LISTS], ways: &[WayIn], family: Family) -> Result<Side<R>, TableError> {
    let of_family = |prefixes: &[IpNet]| prefixes.is_empty() || prefixes.iter().any(|net| is_of(*net, family));
    let may_meet = |rule: &Match| of_family(&rule.sources) && of_family(&rule.destinations);
    let words = lists.iter().map(|list| list.iter().filter(|rule| may_meet(rule)).count().div_ceil(WORD));
    let unit = if words.sum::<usize>() <= GROUP / WORD { WORD } else { GROUP };
    let (mut numbers, mut rules, mut spans) = (Vec::new(), Vec::new(), [const { 0..0 }; LISTS]);
    for (list, span) in lists.iter().zip(&mut spans) {
        let first = numbers.len() / unit;
        for (number, rule) in (0..).zip(list).filter(|(_, rule)| may_meet(rule)) {
            numbers.push(number);
            rules.push(Some(rule));
        }
        // A list ends with its words or groups: a place without a rule is one that no packet meets.
        let end = numbers.len().next_multiple_of(unit);
        numbers.resize(end, Filter::NONE);
        rules.resize(end, None);
        assert!(end <= Rows::MOST, "the configuration has a lower limit");
        *span = first..end / unit;
    }
    let lists = if unit == WORD {
        numbers.resize(GROUP + 1, Filter::NONE);
        Lists::Words(spans.map(|span| std::array::from_fn(|word| if span.contains(&word) { u64::MAX } else { 0 })))
    } else {
        Lists::Groups(spans.map(|span| span.fold(0, |groups, at| groups | 1 << at)))
    };
    let (sources, source_rows) = addresses(&rules, family, |rule| &rule.sources)?;
    let (destinations, destination_rows) = addresses(&rules, family, |rule| &rule.destinations)?;

    let mut way_rows = Interner::new(rules.len());
    // A packet by an unknown way, which there is none of, meets what minds no way.
    way_rows.class(&row(&rules, Match::minds_no_way));
    let ways = ways.iter().map(|way| way_rows.class(&row(&rules, |rule| rule.meets_way(*way)))).collect();
    let mut protocol_rows = Interner::new(rules.len());
    let protocols = (0..=CNP).map(|at| protocol_rows.class(&row(&rules, |rule| meets_protocol(rule, at)))).collect();
    let mut dscp_rows = Interner::new(rules.len());
    let meets_dscp = |rule: &Match, dscp| rule.dscps.is_empty() || rule.dscps.contains(&dscp);
    let dscps = (0..64).map(|dscp| dscp_rows.class(&row(&rules, |rule| meets_dscp(rule, dscp)))).collect();
    let (source_ports, from_rows) = ports(&rules, |rule| &rule.source_ports);
    let (destination_ports, to_rows) = ports(&rules, |rule| &rule.destination_ports);

    let rest = [way_rows, protocol_rows, dscp_rows, from_rows, to_rows].map(Interner::rows);
    let rest = folded(&rest, rules.len()).unwrap_or_else(|| Rest::Apart(Box::new(rest)));
    Ok(Side {
        rules: numbers.into(),
        lists,
        sources,
        source_rows,
        destinations,
        destination_rows,
        ways,
        protocols,
        dscps,
        source_ports,
        destination_ports,
        rest,
    })
}

fn meets_protocol(rule: &Match, at: usize) -> bool {
    // A congestion notification is UDP too.
    let number = if at == CNP { protocol::UDP } else { at as u8 };
    (rule.protocols.is_empty() || rule.protocols.contains(&number)) && (at == CNP || !rule.cnp)
}

fn is_of(net: IpNet, family: Family) -> bool {
    Family::of(net.addr()) == family
}

/// The bits of the rules that do not mind.
fn row(rules: &[Option<&Match>], meets: impl Fn(&Match) -> bool) -> Vec<Group> {
    let mut row = empty(rules.len());
    for at in (0..rules.len()).filter(|at| rules[*at].is_some_and(&meets)) {
        set(&mut row, at);
    }
    row
}

/// Places with a rule.
fn occupied<'r>(rules: &'r [Option<&'r Match>]) -> impl Iterator<Item = (usize, &'r Match)> {
    rules.iter().enumerate().filter_map(|(at, rule)| Some((at, (*rule)?)))
}

fn empty(rules: usize) -> Vec<Group> {
    vec![[0; 4]; width(rules)]
}

/// Groups of a row. One even without a rule, so that there is something to look at.
fn width(rules: usize) -> usize {
    rules.div_ceil(GROUP).max(1)
}

fn set(row: &mut [Group], bit: usize) {
    row[bit / GROUP][bit % GROUP / 64] |= 1 << (bit % 64);
}

fn both(one: &[Group], other: &[Group]) -> Vec<Group> {
    one.iter().zip(other).map(|(one, other)| rows::both(one, other)).collect()
}

/// Gives each distinct row one class.
struct Interner {
    width: usize,
    groups: Vec<Group>,
    seen: HashMap<Vec<Group>, u16>,
}

impl Interner {
    fn new(rules: usize) -> Self {
        Self { width: width(rules), groups: Vec::new(), seen: HashMap::new() }
    }

    /// The class of a row. The configuration has limits that leave room for all.
    fn class(&mut self, row: &[Group]) -> u16 {
        self.try_class(row).expect("the lists of a configuration are shorter")
    }

    /// `None` where there are too many already.
    fn try_class(&mut self, row: &[Group]) -> Option<u16> {
        if let Some(class) = self.seen.get(row) {
            return Some(*class);
        }
        let class = u16::try_from(self.seen.len()).ok()?;
        self.seen.insert(row.to_vec(), class);
        self.groups.extend_from_slice(row);
        Some(class)
    }

    fn rows(self) -> Rows {
        Rows::new(self.width, self.groups)
    }
}

/// An address meets what the longest prefix that holds it meets: prefixes nest, so each has the bits of the next
/// shorter one and its own.
fn addresses<R: Classes>(
    rules: &[Option<&Match>],
    family: Family,
    of: fn(&Match) -> &Vec<IpNet>,
) -> Result<(Option<R>, Rows), TableError> {
    let mut interner = Interner::new(rules.len());
    let any = row(rules, |rule| of(rule).is_empty());
    interner.class(&any);
    // In this order, what holds a prefix comes before it, and nothing foreign between them.
    let mut own: BTreeMap<(IpAddr, u8), (IpNet, Vec<usize>)> = BTreeMap::new();
    for (at, rule) in occupied(rules) {
        for net in of(rule).iter().filter(|net| is_of(**net, family)) {
            own.entry((net.network(), net.prefix_len())).or_insert_with(|| (*net, Vec::new())).1.push(at);
        }
    }
    let mut around: Vec<(IpNet, Vec<Group>)> = Vec::new();
    let mut prefixes = Vec::with_capacity(own.len());
    for (net, bits) in own.into_values() {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
            around.pop();
        }
        let mut row = around.last().map_or_else(|| any.clone(), |(_, row)| row.clone());
        bits.into_iter().for_each(|bit| set(&mut row, bit));
        let class = Value::new(interner.class(&row));
        prefixes.push((net, class.expect("a prefix has a bit that no prefix has not, so it is not class 0")));
        around.push((net, row));
    }
    let table = if prefixes.is_empty() { None } else { Some(R::new(&prefixes)?) };
    Ok((table, interner.rows()))
}

/// Ports meet the same rules between any two that some range begins or ends at.
fn ports(rules: &[Option<&Match>], of: fn(&Match) -> &Vec<RangeInclusive<u16>>) -> (PortClasses, Interner) {
    let mut interner = Interner::new(rules.len());
    let mut row = row(rules, |rule| of(rule).is_empty());
    let none = interner.class(&row);
    // Which rules' ranges begin and end at a port; a rule's own ranges may overlap.
    let mut changes: BTreeMap<u32, Vec<(usize, i32)>> = BTreeMap::from([(0, Vec::new())]);
    for (at, rule) in occupied(rules) {
        for range in of(rule) {
            changes.entry((*range.start()).into()).or_default().push((at, 1));
            changes.entry(u32::from(*range.end()) + 1).or_default().push((at, -1));
        }
    }
    let mut open = vec![0; rules.len()];
    let mut classes = Vec::with_capacity(PORTS as usize);
    let mut starts = changes.into_iter().peekable();
    while let Some((start, changed)) = starts.next() {
        for (at, by) in changed {
            open[at] += by;
            let word = &mut row[at / GROUP][at % GROUP / 64];
            *word = if open[at] > 0 { *word | 1 << (at % 64) } else { *word & !(1 << (at % 64)) };
        }
        let end = starts.peek().map_or(PORTS, |(next, _)| *next);
        if start < PORTS {
            classes.resize(end as usize, interner.class(&row));
        }
    }
    (PortClasses::new(&classes, none), interner)
}

/// All combinations of way in, protocol, DSCP and ports; `None` where there are too many.
fn folded(rest: &[Rows; 5], rules: usize) -> Option<Rest> {
    let [way, protocol, dscp, from, to] = rest;
    let (ways, rows) = fold(way, protocol, rules)?;
    let (dscps, left) = fold(&rows, dscp, rules)?;
    let (ports, right) = fold(from, to, rules)?;
    let (all, rows) = fold(&left, &right, rules)?;
    Some(Rest::Folded { ways, dscps, ports, all, rows })
}

fn fold(first: &Rows, second: &Rows, rules: usize) -> Option<(Fold, Rows)> {
    if first.len() * second.len() > PAIRS {
        return None;
    }
    let mut interner = Interner::new(rules);
    let mut classes = Vec::with_capacity(first.len() * second.len());
    for one in 0..first.len() {
        for other in 0..second.len() {
            classes.push(interner.try_class(&both(first.groups(one), second.groups(other)))?);
            if interner.groups.len() > GROUPS {
                return None;
            }
        }
    }
    Some((Fold::new(second.len(), classes), interner.rows()))
}
