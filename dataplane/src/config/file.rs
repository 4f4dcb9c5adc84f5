//! The file as it is written: what serde reads, before anything is known to be legal.
//!
//! Every value keeps its place ([`Spanned`]) and its type, so that what is wrong with it can be said
//! by whoever knows what is legal. Each struct is one table; its fields are that table's keys.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_spanned::Spanned;

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
