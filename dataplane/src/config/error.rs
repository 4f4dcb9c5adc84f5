//! What can be wrong with a configuration, each with its place in the file.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use thiserror::Error;

use super::Config;
use super::legal::ValueError;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{} cannot be read: {reason}", path.display())]
    Read {
        /// Its path, as given.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The file is not what a person would write.
    #[error("{}: a configuration has at most {} octets", path.display(), Config::MAX_FILE)]
    TooLarge {
        /// Its path, as given.
        path: PathBuf,
    },
    /// The file was read, and is not legal.
    #[error("{0}")]
    Invalid(Faults),
}

impl ConfigError {
    /// What is wrong with the text, in its order; nothing when it could not be read at all.
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Invalid(faults) => faults.list(),
            Self::Read { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

/// All that was found wrong in a file, in its order, and then in those that it names; at least one. Displays one on a line, and not
/// more of them than a screen holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        assert!(!faults.is_empty(), "an error without a fault says nothing");
        Self(faults)
    }

    /// In the order of the file; at least one.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(SHOWN).enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{fault}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// One thing that is wrong, and where. Displays as `penstock.toml:12:7: vni = 16777216: a VNI is 0..=16777215`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}:{line}:{column}: {kind}", file.display())]
pub struct Fault {
    /// The file, as it was named by the caller.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What can be wrong at one place of the file. `first` is the line of what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// Not TOML, or a table where a value belongs; in the words of the TOML reader.
    #[error("{message}")]
    Syntax {
        /// What it expected.
        message: String,
    },
    /// A tenant that all packets are of, so that those behind it and `default` have none.
    #[error("match: is empty, so that all packets meet it; legal: {}, or [tenant.default]", ValueError::TenantMatch)]
    EmptyMatch,
    /// A key or a table that is there already.
    #[error("{key}: a second time in its table; legal: once")]
    DuplicateKey {
        /// Its name, as the file spells it.
        key: String,
    },
    /// Octets that are no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// A key or table that this version does not know, nor any planned one.
    #[error("{key}: {table} has no such key; legal: {}", legal.join(", "))]
    UnknownKey {
        /// As written.
        key: String,
        /// Where it stands.
        table: &'static str,
        /// What may stand there.
        legal: &'static [&'static str],
    },
    /// A table of the file, or what stands in its place, in another form.
    #[error("{key}: legal: {legal}")]
    Form {
        /// The table's name.
        key: String,
        /// The form that it has.
        legal: String,
    },
    /// A key, table or form that a later version brings.
    #[error("{key}: not supported by this version ({feature})")]
    NotSupported {
        /// As written.
        key: &'static str,
        /// What it belongs to.
        feature: &'static str,
    },
    /// A key that must be given.
    #[error("{table}: {key} is missing: {legal}")]
    Missing {
        /// The table that lacks it.
        table: String,
        /// Its name.
        key: &'static str,
        /// What its values are.
        legal: ValueError,
    },
    /// A value outside what is legal.
    #[error("{key} = {value}: {legal}")]
    Value {
        /// The key, or the kind of table whose name is wrong.
        key: &'static str,
        /// As it would be written in TOML.
        value: String,
        /// What is legal.
        legal: ValueError,
    },
    /// A name that no table declares.
    #[error("{key} = {name:?}: no such {what}; declared: {declared}")]
    NotDeclared {
        /// The key that names it.
        key: &'static str,
        /// The name.
        name: String,
        /// What it should name.
        what: &'static str,
        /// Those that there are, or the first of them.
        declared: String,
    },
    /// More tables than there is room for.
    #[error("{table}: at most {max} are supported")]
    TooMany {
        /// Their kind.
        table: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// Two devices of one name.
    #[error("{name:?}: interfaces and tunnels share one set of names, and line {first} has this one")]
    NameTaken {
        /// The name.
        name: String,
        /// The other's line.
        first: usize,
    },
    /// Two VRFs that would mirror one kernel table.
    #[error("table = {table}: VRF {vrf:?} has this table{}", at(*first))]
    TableTaken {
        /// The kernel table.
        table: u32,
        /// The VRF that has it.
        vrf: String,
        /// Its line, unless it is `default` without one.
        first: Option<usize>,
    },
    /// Two interfaces for one tag.
    #[error("vlan = {vlan}: line {first} has this VLAN of {parent:?}")]
    VlanTaken {
        /// The tag.
        vlan: u16,
        /// The interface that carries it.
        parent: String,
        /// The other's line.
        first: usize,
    },
    /// Only one of a pair of keys.
    #[error("{key}: needs {other} beside it")]
    Alone {
        /// The one given.
        key: &'static str,
        /// The one missing.
        other: &'static str,
    },
    /// A VLAN of a VLAN.
    #[error("parent = {parent:?}: is itself a VLAN; a parent is an interface without one")]
    ParentIsVlan {
        /// The interface named.
        parent: String,
    },
    /// A VLAN has no sockets of its own.
    #[error("mode: a VLAN has that of its parent {parent:?}")]
    VlanMode {
        /// The parent.
        parent: String,
    },
    /// A VLAN that would not fit its parent.
    #[error("mtu = {mtu}: a VLAN has at most its parent's, {parent}")]
    VlanMtu {
        /// The VLAN's, in octets.
        mtu: u16,
        /// The parent's, in octets.
        parent: u16,
    },
    /// IPv6 needs links of 1,280 octets (RFC 8200 §5).
    #[error("mtu = {mtu}: IPv6 needs 1280..=65535 (RFC 8200 §5), and there is {what}")]
    MtuTooSmallForIpv6 {
        /// The one given, in octets.
        mtu: u16,
        /// The IPv6 prefix that is there.
        what: IpNet,
    },
    /// One kernel table mirrored twice into one VRF.
    #[error("table = {table}: line {first} mirrors it into VRF {vrf:?}")]
    MirroredTwice {
        /// The kernel table.
        table: u32,
        /// The VRF.
        vrf: String,
        /// The other's line.
        first: usize,
    },
    /// Two addresses of which one is IPv4 and one IPv6.
    #[error("{key} = \"{address}\": not of one family with {other}")]
    FamiliesDiffer {
        /// The second one's key.
        key: &'static str,
        /// The second one.
        address: IpAddr,
        /// The first one, with its key.
        other: String,
    },
    /// An address that should be somebody else's.
    #[error("{key} = \"{address}\": an address of this gateway itself, line {first}; legal: another's")]
    OwnAddress {
        /// The key.
        key: &'static str,
        /// The address.
        address: IpAddr,
        /// Where it is given to us.
        first: usize,
    },
    /// Two tunnels that no received packet could tell apart.
    #[error("tunnel {name:?}: has the same underlay_vrf, local, remote{more} as tunnel {other:?}, line {first}")]
    SameKey {
        /// The second one.
        name: String,
        /// What else is the same.
        more: &'static str,
        /// The first one.
        other: String,
        /// The first one's line.
        first: usize,
    },
    /// Two tunnels of different types whose packets arrive at one port.
    #[error(
        "tunnel {name:?}: has the same underlay_vrf, local, remote and port as tunnel {other:?}, line {first}, which is of \
         another type; legal: another port"
    )]
    SamePort {
        /// The second one.
        name: String,
        /// The first one.
        other: String,
        /// The first one's line.
        first: usize,
    },
    /// A key that means nothing to a tunnel.
    #[error("{key}: a tunnel {of} has none")]
    NotOfTunnel {
        /// The key.
        key: &'static str,
        /// Of which type, or with what inside.
        of: String,
    },
    /// An outer address of the family that the tunnel's type has not outside.
    #[error("{key} = \"{address}\": outside of a tunnel of type {kind:?} is {legal}")]
    OuterFamily {
        /// Which end's.
        key: &'static str,
        /// The address.
        address: IpAddr,
        /// The tunnel's type.
        kind: &'static str,
        /// What it should be.
        legal: &'static str,
    },
    /// What a tunnel is given to carry and cannot.
    #[error("{what}: tunnel {name:?} is of type {kind:?} and carries {legal} only")]
    NotCarried {
        /// An address or a route.
        what: String,
        /// The tunnel.
        name: String,
        /// Its type.
        kind: &'static str,
        /// What it carries.
        legal: &'static str,
    },
    /// Ethernet inside, and no way to know the inner destination MAC.
    #[error("tunnel {name:?}: a tunnel with Ethernet inside needs remote_mac, or address to resolve it")]
    NoRemoteMac {
        /// The tunnel.
        name: String,
    },
    /// Two static routes for one prefix.
    #[error("prefix = \"{prefix}\": VRF {vrf:?} has this route, {first}")]
    SameRoute {
        /// The prefix.
        prefix: IpNet,
        /// The VRF.
        vrf: String,
        /// Where the other is: its line, and its file if that is not this one.
        first: String,
    },
    /// `via` without a next hop.
    #[error(
        "via: legal: a list of {{ group = \"..\" }}, {{ tunnel = \"..\" }} (next_hop optional), {{ next_hop = \"..\" }} \
         (interface optional), each with an optional weight; or \"blackhole\", \"unreachable\""
    )]
    Via,
    /// A key of a next hop that contradicts another.
    #[error("{key}: not together with {other}")]
    NotTogether {
        /// The one too many.
        key: &'static str,
        /// The one that it contradicts.
        other: &'static str,
    },
    /// A word that says that there is no next hop, and a next hop.
    #[error("{word:?}: stands alone; legal: no other next hop beside it")]
    NotAlone {
        /// The word.
        word: String,
    },
    /// The same next hop, or the same tunnel of a group, twice.
    #[error("{hop}: is among the {of} twice; legal: once, with a weight")]
    Twice {
        /// The one that was there.
        hop: String,
        /// What it is one of.
        of: &'static str,
    },
    /// More than a group has buckets for.
    #[error("{key}: {count} with the members of each group; at most {max}")]
    TooManyMembers {
        /// The key.
        key: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A group with a tunnel outside the route's VRF.
    #[error(
        "group = {group:?}: tunnel {tunnel:?} is in VRF {its:?}, the route in {ours:?}; legal: one of {ours:?}, or \
         leak = true"
    )]
    GroupVrf {
        /// The group.
        group: String,
        /// Its tunnel.
        tunnel: String,
        /// The tunnel's VRF.
        its: String,
        /// The route's.
        ours: String,
    },
    /// A group with a tunnel that does not carry IPv6 (RFC 8200 §5).
    #[error(
        "group = {group:?}: tunnel {tunnel:?} has mtu = {mtu}, IPv6 needs 1280..=65535 (RFC 8200 §5), and there is \
         {what}"
    )]
    GroupMtu {
        /// The group.
        group: String,
        /// Its tunnel.
        tunnel: String,
        /// The tunnel's, in octets.
        mtu: u16,
        /// The IPv6 prefix that is there.
        what: IpNet,
    },
    /// The file of a list could not be read.
    #[error("file = \"{}\": {reason}", file.display())]
    ListRead {
        /// Its path.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file of a list is not what a person or a feed would write.
    #[error("file = \"{}\": a list has at most {max} octets", file.display(), max = Config::MAX_LIST_FILE)]
    ListTooLarge {
        /// Its path.
        file: PathBuf,
    },
    /// So much is wrong in the file of a list that it may be something else.
    #[error("the rest of this list is not looked at")]
    ListEnds,
    /// A next hop outside the route's VRF.
    #[error("{key} = {name:?}: is in VRF {its:?}, the route in {ours:?}; legal: one of {ours:?}, or leak = true")]
    OtherVrf {
        /// What is named.
        key: &'static str,
        /// Its name.
        name: String,
        /// Its VRF.
        its: String,
        /// The route's.
        ours: String,
    },
    /// A link-local next hop means nothing without its link.
    #[error("next_hop = \"{address}\": a link-local next hop needs interface or tunnel beside it")]
    LinkLocalNextHop {
        /// The address.
        address: IpAddr,
    },
    /// A rule for a port or tunnel of one VRF and for packets of another.
    #[error("{key} = {name:?}: is in VRF {its:?}, the rule is for {ours:?}: no packet would meet it")]
    RuleVrf {
        /// What is named.
        key: &'static str,
        /// Its name.
        name: String,
        /// Its VRF.
        its: String,
        /// The rule's.
        ours: String,
    },
    /// Sources of one family, destinations of the other.
    #[error("destination: of another family than source: no packet would meet the rule")]
    RuleFamilies,
    /// A rule for ports, and for packets that have none.
    #[error(
        "{key}: only packets of some protocols have ports; legal: protocol = \"tcp\", \"udp\" or \"sctp\" beside it, or a list of these"
    )]
    RulePorts {
        /// Which ports.
        key: &'static str,
    },
    /// A key that means nothing to a policer.
    #[error("{key}: a policer of kind {kind:?} has none; legal: {legal}")]
    NotOfPolicer {
        /// The key.
        key: &'static str,
        /// The policer's kind.
        kind: &'static str,
        /// Which it has.
        legal: &'static str,
    },
    /// A peak rate below the committed one.
    #[error("pir: a peak of {pir} bit/s is below cir, {cir} bit/s, line {first}")]
    PeakBelow {
        /// The peak.
        pir: u64,
        /// The committed rate.
        cir: u64,
        /// The committed rate's line.
        first: usize,
    },
    /// A burst that a few packets fill.
    #[error(
        "{key}: a burst of {octets} octets is too small; legal: at least {least} (two packets, and 50 µs of its rate)"
    )]
    SmallBurst {
        /// The key.
        key: &'static str,
        /// The burst.
        octets: u32,
        /// The least.
        least: u64,
    },
    /// A guarantee that can never be had.
    #[error("guarantee: {guarantee} bit/s are more than limit, {limit} bit/s, line {first}")]
    AboveLimit {
        /// The guarantee.
        guarantee: u64,
        /// The limit.
        limit: u64,
        /// The limit's line.
        first: usize,
    },
    /// A bound above another that is always met first.
    #[error("limit: {limit} bit/s are more than {of}, {most} bit/s{}; legal: less", at(*first))]
    NeverBinds {
        /// The bound.
        limit: u64,
        /// What is met first.
        of: String,
        /// That one.
        most: u64,
        /// Its line, where that is known.
        first: Option<usize>,
    },
    /// Guarantees that a link cannot keep.
    #[error(
        "rate: {rate} bit/s on the wire are {most} in packets of {octets} octets, less than all guarantees, {guaranteed} bit/s \
         (the last in line {last}); legal: a sum of at most {most}"
    )]
    Guarantees {
        /// The link's rate.
        rate: u64,
        /// All tenants' guarantees.
        guaranteed: u64,
        /// Line of the last of them.
        last: usize,
        /// What of the rate guarantees can be, with the longest packets.
        most: u64,
        /// Octets of those.
        octets: u16,
    },
    /// More queues than there may be.
    #[error(
        "{tenants} tenants (with `default`) on {ways} ways out (tunnels, and the port itself); legal: at most {most} pairs"
    )]
    TooManyPairs {
        /// Tenants.
        tenants: usize,
        /// Tunnels and one.
        ways: usize,
        /// The limit.
        most: usize,
    },
    /// A tenant that is whoever is left, with a match.
    #[error("match: tenant \"default\" has what no other tenant matches; legal: no match")]
    DefaultMatches,
    /// Two classes of one name.
    #[error("name = {name:?}: another class has this name, line {first}")]
    SameClass {
        /// The name.
        name: String,
        /// The other's line.
        first: usize,
    },
    /// More classes before all others than there may be.
    #[error("service = \"strict\": a third strict class; legal: at most 2")]
    ThirdStrict,
    /// No class, or several, for what no other matches.
    #[error("{count} classes without a match; legal: one, for what no other class matches")]
    OneRest {
        /// How many.
        count: usize,
    },
    /// A value that another must be above.
    #[error("{key}: is not below {other}; legal: less")]
    NotBelow {
        /// The key.
        key: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Two static entries for one neighbour.
    #[error("address = \"{address}\": {on:?} has this neighbour, line {first}")]
    SameNeighbour {
        /// The address.
        address: IpAddr,
        /// The interface or tunnel.
        on: String,
        /// The other's line.
        first: usize,
    },
}

/// How many faults of one file are shown.
const SHOWN: usize = 20;

fn at(first: Option<usize>) -> String {
    first.map(|line| format!(", line {line}")).unwrap_or_default()
}
