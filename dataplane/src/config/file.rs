//! The file as it is written: what serde reads, before anything is known to be legal.
//!
//! Every value keeps its place ([`Spanned`]) and its type, so that what is wrong with it can be said
//! by whoever knows what is legal. Each struct is one table; its fields are that table's keys, and
//! [`keys`] is where error messages learn them from.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::FaultKind;

/// A key's value: absent, or anything at its place.
pub type Given = Option<Spanned<Value>>;

/// Tables by name. TOML gives them no order: the places of the names are the file's.
pub type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub gateway: Option<Gateway>,
    #[serde(default)]
    pub vrf: Named<Vrf>,
    #[serde(default)]
    pub interface: Named<Interface>,
    pub kernel: Option<Kernel>,
    #[serde(default)]
    pub tunnel: Named<Tunnel>,
    #[serde(default, rename = "tunnel-group")]
    pub tunnel_group: Named<TunnelGroup>,
    #[serde(default)]
    pub route: Vec<Spanned<Route>>,
    #[serde(default)]
    pub route_list: Vec<Spanned<RouteList>>,
    #[serde(default)]
    pub neighbour: Vec<Spanned<Neighbour>>,
    #[serde(default)]
    pub acl: Vec<Spanned<Acl>>,
    #[serde(default)]
    pub policer: Named<Policer>,
    #[serde(default)]
    pub tenant: Named<Tenant>,
    pub qos: Option<Qos>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub workers: Given,
    pub control: Given,
    pub metrics: Given,
    pub icmp_errors: Given,
    pub hash_seed: Given,
    pub hash: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vrf {
    pub table: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub parent: Given,
    pub vlan: Given,
    pub mode: Given,
    pub vrf: Given,
    pub fallback: Given,
    pub rpf: Given,
    pub mac: Given,
    pub address: Given,
    pub mtu: Given,
    pub policer: Given,
    pub rate: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub routes: Option<Vec<Spanned<KernelRoutes>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRoutes {
    pub table: Given,
    pub vrf: Given,
    pub protocols: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    pub r#type: Given,
    pub vni: Given,
    pub key: Given,
    pub local: Given,
    pub remote: Given,
    pub port: Given,
    pub inner: Given,
    pub vrf: Given,
    pub underlay_vrf: Given,
    pub address: Given,
    pub mac: Given,
    pub remote_mac: Given,
    pub mtu: Given,
    pub mss: Given,
    pub dscp: Given,
    pub ecn: Given,
    pub ttl: Given,
    pub df: Given,
    pub checksum: Given,
    pub allowed_sources: Given,
    pub policer: Given,
    pub cap: Option<Spanned<Either<Cap>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelGroup {
    pub members: Option<Spanned<Vec<Spanned<Member>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a member, such as { tunnel = \"..\", weight = 2 }")]
pub struct Member {
    pub tunnel: Given,
    pub weight: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub prefix: Given,
    pub vrf: Given,
    pub via: Option<Spanned<Via>>,
    pub kernel: Given,
    pub leak: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteList {
    pub file: Given,
    pub vrf: Given,
    pub via: Option<Spanned<Via>>,
    pub kernel: Given,
    pub leak: Given,
}

/// A next hop, a list of them, or the word that says that there is none.
pub enum Via {
    Word(String),
    Hop(Box<Hop>),
    List(Vec<Spanned<Via>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    pub group: Given,
    pub tunnel: Given,
    pub next_hop: Given,
    pub interface: Given,
    pub weight: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    pub interface: Given,
    pub address: Given,
    pub mac: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    pub action: Given,
    pub vrf: Given,
    pub interface: Given,
    pub tunnel: Given,
    pub source: Given,
    pub destination: Given,
    pub protocol: Given,
    pub source_port: Given,
    pub destination_port: Given,
    pub dscp: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policer {
    pub kind: Given,
    pub cir: Given,
    pub pir: Given,
    pub eir: Given,
    pub cbs: Given,
    pub pbs: Given,
    pub ebs: Given,
    pub packets: Given,
    pub colour_aware: Given,
    pub exceed: Option<Spanned<Reaction>>,
    pub violate: Option<Spanned<Reaction>>,
}

/// A word, or a table that says more.
pub enum Either<T> {
    Word(Value),
    Table(Box<T>),
}

/// What happens to a packet: a word, or what to write.
pub type Reaction = Either<Mark>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub dscp: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    pub rate: Given,
    pub burst: Given,
    pub packets: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    pub r#match: Option<Spanned<TenantMatch>>,
    pub guarantee: Given,
    pub limit: Given,
    pub packets: Given,
    pub burst: Given,
    pub weight: Given,
    pub policer: Given,
    #[serde(default)]
    pub via: Named<TenantVia>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantVia {
    pub limit: Given,
    pub packets: Given,
    pub burst: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantMatch {
    pub vrf: Given,
    pub interface: Given,
    pub tunnel: Given,
    pub source: Given,
    pub destination: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qos {
    pub classes: Given,
    pub account: Given,
    #[serde(default)]
    pub class: Vec<Spanned<QosClass>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosClass {
    pub name: Given,
    pub r#match: Option<Spanned<ClassMatch>>,
    pub service: Given,
    pub share: Given,
    pub limit: Given,
    pub aqm: Option<Spanned<Either<Aqm>>>,
    pub not_ecn: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassMatch {
    pub vrf: Given,
    pub interface: Given,
    pub tunnel: Given,
    pub vlan: Given,
    pub source: Given,
    pub destination: Given,
    pub protocol: Given,
    pub source_port: Given,
    pub destination_port: Given,
    pub dscp: Given,
    pub cnp: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aqm {
    pub kind: Given,
    pub start: Given,
    pub end: Given,
    pub probability: Given,
    pub target: Given,
    pub interval: Given,
    pub ce_threshold: Given,
}

/// A value of any type. The integer is wide enough for every TOML integer to be shown as it was written.
pub enum Value {
    Integer(i128),
    Text(String),
    Boolean(bool),
    Float(f64),
    List(Vec<Spanned<Value>>),
    /// A table or a date: never legal where a value is read, so its content does not matter.
    Other,
}

/// What a message shows of a value at most, in characters.
const SHOWN: usize = 60;

/// As it would be written in TOML; long text is cut.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) if text.chars().count() > SHOWN => {
                write!(f, "{:?}..", text.chars().take(SHOWN).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::List(values) if values.is_empty() => f.write_str("[]"),
            Self::List(_) => f.write_str("[..]"),
            Self::Other => f.write_str("{..}"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }

            fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
                Ok(Value::Boolean(truth))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Float(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Either<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word in quotes, or a table in braces")
            }

            // Neither word nor table: whoever knows the legal words says so.
            fn visit_i64<E>(self, number: i64) -> Result<Either<T>, E> {
                Ok(Either::Word(Value::Integer(number.into())))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Either<T>, E> {
                Ok(Either::Word(Value::Float(number)))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Either<T>, E> {
                Ok(Either::Word(Value::Boolean(truth)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Either<T>, E> {
                Ok(Either::Word(Value::Text(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Either<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|table| Either::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Via {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Via;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of next hops, \"blackhole\" or \"unreachable\"")
            }

            fn visit_str<E>(self, text: &str) -> Result<Via, E> {
                Ok(Via::Word(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Via, A::Error> {
                let mut hops = Vec::new();
                while let Some(hop) = list.next_element()? {
                    hops.push(hop);
                }
                Ok(Via::List(hops))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Via, A::Error> {
                Hop::deserialize(de::value::MapAccessDeserializer::new(map)).map(|hop| Via::Hop(Box::new(hop)))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The keys of a table: what serde derived from the fields of its struct.
pub fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    /// Is asked for a struct, remembers its fields, and has nothing to give.
    struct Question<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Question<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("there is nothing to read"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // The answer is the side effect: the result is always the error above.
    let _ = T::deserialize(Question(&mut fields));
    fields
}

/// What later versions bring: table, key, and the feature it belongs to. Refused by name, so that nobody
/// relies on something that is not there.
const LATER: &[(&str, &str, &str)] = &[(TUNNEL, "gwlb", "Gateway Load Balancer mode")];

const ROOT: &str = "the file";
const GATEWAY: &str = "[gateway]";
const INTERFACE: &str = "[interface]";
const TUNNEL: &str = "[tunnel]";

/// Takes out of the file every key that no struct above has, and says where each was and what may stand there.
///
/// serde would stop at the first one, and could not tell what is unknown from what is not there yet.
pub fn prune(root: &mut DeTable<'_>) -> Vec<(usize, FaultKind)> {
    let mut faults = Vec::new();
    prune_one::<File>(root, ROOT, &mut faults);
    for (key, value) in root.iter_mut() {
        let value = value.get_mut();
        match key.get_ref().as_ref() {
            "gateway" => prune_each::<Gateway>(value, GATEWAY, &mut faults),
            "vrf" => each_named(value, |vrf| prune_each::<Vrf>(vrf, "[vrf]", &mut faults)),
            "interface" => each_named(value, |it| prune_each::<Interface>(it, INTERFACE, &mut faults)),
            "kernel" => {
                prune_each::<Kernel>(value, "[kernel]", &mut faults);
                each_named(value, |routes| prune_each::<KernelRoutes>(routes, "routes", &mut faults));
            }
            "tunnel" => each_named(value, |tunnel| {
                prune_each::<Tunnel>(tunnel, TUNNEL, &mut faults);
                prune_within::<Cap>(tunnel, "cap", "a cap", &mut faults);
            }),
            "tunnel-group" => each_named(value, |group| {
                prune_each::<TunnelGroup>(group, "[tunnel-group]", &mut faults);
                each_named(group, |members| prune_each::<Member>(members, "members", &mut faults));
            }),
            "route" => {
                prune_each::<Route>(value, "[[route]]", &mut faults);
                prune_within::<Hop>(value, "via", "via", &mut faults);
            }
            "route_list" => {
                prune_each::<RouteList>(value, "[[route_list]]", &mut faults);
                prune_within::<Hop>(value, "via", "via", &mut faults);
            }
            "neighbour" => prune_each::<Neighbour>(value, "[[neighbour]]", &mut faults),
            "policer" => each_named(value, |policer| {
                prune_each::<Policer>(policer, "[policer]", &mut faults);
                prune_within::<Mark>(policer, "exceed", "a mark", &mut faults);
                prune_within::<Mark>(policer, "violate", "a mark", &mut faults);
            }),
            "tenant" => each_named(value, |tenant| {
                prune_each::<Tenant>(tenant, "[tenant]", &mut faults);
                prune_within::<TenantMatch>(tenant, "match", "match", &mut faults);
                each_table(tenant, &mut |tenant| {
                    if let Some(tunnels) = tenant.get_mut("via") {
                        each_named(tunnels.get_mut(), |it| prune_each::<TenantVia>(it, "[tenant.via]", &mut faults));
                    }
                });
            }),
            "qos" => {
                prune_each::<Qos>(value, "[qos]", &mut faults);
                each_table(value, &mut |qos| {
                    if let Some(class) = qos.get_mut("class") {
                        prune_each::<QosClass>(class.get_mut(), "[[qos.class]]", &mut faults);
                        prune_within::<ClassMatch>(class.get_mut(), "match", "match", &mut faults);
                        prune_within::<Aqm>(class.get_mut(), "aqm", "aqm", &mut faults);
                    }
                });
            }
            "acl" => prune_each::<Acl>(value, "[[acl]]", &mut faults),
            _ => unreachable!("prune_one has left only the keys of File"),
        }
    }
    faults
}

/// The tables under a key of a table, or of each table of a list.
fn prune_within<'de, T: Deserialize<'de>>(
    value: &mut DeValue<'_>,
    key: &str,
    name: &'static str,
    faults: &mut Vec<(usize, FaultKind)>,
) {
    each_table(value, &mut |table| {
        if let Some(inner) = table.get_mut(key) {
            prune_each::<T>(inner.get_mut(), name, faults);
        }
    });
}

fn prune_one<'de, T: Deserialize<'de>>(
    table: &mut DeTable<'_>,
    name: &'static str,
    faults: &mut Vec<(usize, FaultKind)>,
) {
    let legal = keys::<T>();
    let foreign: Vec<(String, usize)> = table
        .keys()
        .filter(|key| !legal.contains(&key.get_ref().as_ref()))
        .map(|key| (key.get_ref().to_string(), key.span().start))
        .collect();
    for (key, offset) in foreign {
        table.remove(key.as_str());
        let later = LATER.iter().find(|later| (later.0, later.1) == (name, key.as_str()));
        faults.push(match later {
            Some(&(_, key, feature)) => (offset, FaultKind::NotSupported { key, feature }),
            None => (offset, FaultKind::UnknownKey { key, table: name, legal }),
        });
    }
}

/// The same for a table, or for each table of a list.
fn prune_each<'de, T: Deserialize<'de>>(
    value: &mut DeValue<'_>,
    name: &'static str,
    faults: &mut Vec<(usize, FaultKind)>,
) {
    each_table(value, &mut |table| prune_one::<T>(table, name, faults));
}

fn each_table(value: &mut DeValue<'_>, visit: &mut impl FnMut(&mut DeTable<'_>)) {
    match value {
        DeValue::Table(table) => visit(table),
        DeValue::Array(list) => {
            for value in list.iter_mut() {
                if let DeValue::Table(table) = value.get_mut() {
                    visit(table);
                }
            }
        }
        _ => {}
    }
}

fn each_named(value: &mut DeValue<'_>, mut visit: impl FnMut(&mut DeValue<'_>)) {
    if let DeValue::Table(tables) = value {
        for (_, value) in tables.iter_mut() {
            visit(value.get_mut());
        }
    }
}
