//! What no struct of the file has a place for, taken out and named before serde reads the rest.
//!
//! serde would stop at the first, and could not tell what is unknown from what is not there yet.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::FaultKind;
use super::file::{
    Acl, Aqm, Cap, ClassMatch, File, Gateway, Hop, Interface, Kernel, KernelRoutes, Mark, Member, Neighbour, Policer,
    Qos, QosClass, Route, RouteList, Tenant, TenantMatch, TenantVia, Tunnel, TunnelGroup, Vrf,
};

/// The keys of a table: what serde derived from the fields of its struct.
fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
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

/// Takes out of the file every key that its table's struct does not have, and says where each was and what may stand there.
pub fn prune(root: &mut DeTable<'_>) -> Vec<(usize, FaultKind)> {
    let mut faults = Vec::new();
    prune_one::<File>(root, ROOT, &mut faults);
    prune_forms(root, &mut faults);
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

/// Takes out the tables of the file that are written in another form than [`File`] has them, such as a list of tables that
/// should each have a name.
fn prune_forms(root: &mut DeTable<'_>, faults: &mut Vec<(usize, FaultKind)>) {
    let is_table = |value: &Spanned<DeValue<'_>>| matches!(value.get_ref(), DeValue::Table(_));
    let mut wrong = Vec::new();
    for (key, value) in root.iter() {
        let name = key.get_ref();
        let (is_right, legal) = match name.as_ref() {
            "gateway" | "kernel" | "qos" => (is_table(value), format!("one table, [{name}]")),
            "route" | "route_list" | "neighbour" | "acl" => {
                let is_right = matches!(value.get_ref(), DeValue::Array(list) if list.iter().all(is_table));
                (is_right, format!("a list of tables, [[{name}]]"))
            }
            _ => {
                let is_right = matches!(value.get_ref(), DeValue::Table(named) if named.values().all(is_table));
                (is_right, format!("tables with names, such as [{name}.NAME]"))
            }
        };
        if !is_right {
            wrong.push((key.span().start, name.to_string(), legal));
        }
    }
    for (offset, key, legal) in wrong {
        root.remove(key.as_str());
        faults.push((offset, FaultKind::Form { key, legal }));
    }
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
