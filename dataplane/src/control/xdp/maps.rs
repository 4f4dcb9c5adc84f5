//! The program's maps: what they hold, and the difference to what they should.

use super::XdpError;
use super::error::map_error;
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use steering::HostTables;
use steering::tables::{
    INTERFACES, Ingress, Interface, Keeper, LOCALS, Local, LocalV4, LocalV6, Quick, ROUTES, RouteV4, RouteV6, TUNNELS,
    TunnelV4, TunnelV6,
};
use steering::verdict::CODES;
use zerocopy::{Immutable, IntoBytes};

/// How long a quick place stays empty before it is written again: much longer than a packet takes.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Maps by the octets of key and value: [`aya::Pod`] is not ours to promise for what they mean.
type Hash<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;
type Trie<const K: usize, const V: usize> = LpmTrie<MapData, [u8; K], [u8; V]>;

pub(super) struct Maps {
    pub(super) interfaces: Table<Ingress, Interface, Hash<8, 16>>,
    pub(super) quick: QuickPlaces<Array<MapData, [u8; 20]>>,
    pub(super) locals_v4: Table<LocalV4, Local, Hash<8, 4>>,
    pub(super) locals_v6: Table<LocalV6, Local, Hash<20, 4>>,
    pub(super) tunnels_v4: Table<TunnelV4, u32, Hash<16, 4>>,
    pub(super) tunnels_v6: Table<TunnelV6, u32, Hash<40, 4>>,
    pub(super) routes_v4: Table<Prefix<RouteV4>, Keeper, Trie<8, 4>>,
    pub(super) routes_v6: Table<Prefix<RouteV6>, Keeper, Trie<20, 4>>,
    pub(super) sockets: XskMap<MapData>,
    pub(super) counters: PerCpuArray<MapData, [u64; CODES]>,
}

impl Maps {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            interfaces: Table::new(map(ebpf, "INTERFACES")?, "interfaces", INTERFACES),
            quick: QuickPlaces { map: map(ebpf, "QUICK")?, written: BTreeMap::new(), emptied: BTreeMap::new() },
            locals_v4: Table::new(map(ebpf, "LOCALS_V4")?, "IPv4 addresses", LOCALS),
            locals_v6: Table::new(map(ebpf, "LOCALS_V6")?, "IPv6 addresses", LOCALS),
            tunnels_v4: Table::new(map(ebpf, "TUNNELS_V4")?, "tunnels over IPv4", TUNNELS),
            tunnels_v6: Table::new(map(ebpf, "TUNNELS_V6")?, "tunnels over IPv6", TUNNELS),
            routes_v4: Table::new(map(ebpf, "ROUTES_V4")?, "IPv4 prefixes", ROUTES),
            routes_v6: Table::new(map(ebpf, "ROUTES_V6")?, "IPv6 prefixes", ROUTES),
            sockets: map(ebpf, "SOCKETS")?,
            counters: map(ebpf, "COUNTERS")?,
        })
    }
}

fn map<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, XdpError> {
    let absent = XdpError::Object { name };
    match ebpf.take_map(name) {
        Some(map) => map.try_into().map_err(|_| absent),
        None => Err(absent),
    }
}

/// What the maps should hold.
pub(super) struct Wanted {
    pub(super) interfaces: BTreeMap<Ingress, Interface>,
    pub(super) locals_v4: BTreeMap<LocalV4, Local>,
    pub(super) locals_v6: BTreeMap<LocalV6, Local>,
    pub(super) tunnels_v4: BTreeMap<TunnelV4, u32>,
    pub(super) tunnels_v6: BTreeMap<TunnelV6, u32>,
    pub(super) routes_v4: BTreeMap<Prefix<RouteV4>, Keeper>,
    pub(super) routes_v6: BTreeMap<Prefix<RouteV6>, Keeper>,
}

impl Wanted {
    pub(super) fn of(tables: &HostTables) -> Self {
        Self {
            interfaces: tables.interfaces().collect(),
            locals_v4: tables.locals_v4().collect(),
            locals_v6: tables.locals_v6().collect(),
            tunnels_v4: tables.tunnels_v4().map(|key| (key, 0)).collect(),
            tunnels_v6: tables.tunnels_v6().map(|key| (key, 0)).collect(),
            routes_v4: tables.routes_v4().into_iter().map(|(bits, data, k)| (Prefix { bits, data }, k)).collect(),
            routes_v6: tables.routes_v6().into_iter().map(|(bits, data, k)| (Prefix { bits, data }, k)).collect(),
        }
    }
}

/// A map, and what is in it.
pub(super) struct Table<K, V, M> {
    pub(super) map: M,
    written: BTreeMap<K, V>,
    pub(super) what: &'static str,
    limit: u32,
}

impl<K: Ord + Copy + Encode, V: PartialEq + Copy + Encode, M: Store> Table<K, V, M> {
    fn new(map: M, what: &'static str, limit: u32) -> Self {
        Self { map, written: BTreeMap::new(), what, limit }
    }

    /// Writes what is new or different, of those values that are `these`.
    pub(super) fn set(&mut self, wanted: &BTreeMap<K, V>, these: impl Fn(&V) -> bool) -> Result<(), XdpError> {
        for (key, value) in wanted {
            if these(value) && self.written.get(key) != Some(value) {
                let result = self.map.put(&key.encode(), &value.encode());
                result.map_err(|e| map_error(self.what, self.limit, e))?;
                self.written.insert(*key, *value);
            }
        }
        Ok(())
    }

    /// Removes what is not wanted, of those values that are `these`.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<K, V>, these: impl Fn(&V) -> bool) -> Result<(), XdpError> {
        let gone = self.written.iter().filter(|(key, value)| these(value) && !wanted.contains_key(key));
        for key in gone.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.map.take(&key.encode()).map_err(|e| map_error(self.what, self.limit, e))?;
            self.written.remove(&key);
        }
        Ok(())
    }
}

/// The copies of untagged interfaces ([`Quick`]).
pub(super) struct QuickPlaces<M> {
    pub(super) map: M,
    pub(super) written: BTreeMap<u32, Quick>,
    /// When a place was emptied that is empty since.
    pub(super) emptied: BTreeMap<u32, Instant>,
}

impl<M: Places> QuickPlaces<M> {
    /// Empties the places of what has changed, and fills those that have been empty for long enough. What finds no
    /// place is found in the map of interfaces, until a later call.
    pub(super) fn follow(&mut self, interfaces: &BTreeMap<Ingress, Interface>, now: Instant) -> Result<(), XdpError> {
        let untagged = interfaces.iter().filter(|(ingress, _)| ingress.vlan == 0);
        let mut missing: BTreeMap<u32, Interface> = untagged.map(|(ingress, i)| (ingress.device, *i)).collect();
        let stale: Vec<(u32, Quick)> = (self.written.iter())
            .filter(|(_, quick)| match missing.get(&quick.device) {
                Some(interface) if *interface == quick.interface => missing.remove(&quick.device).is_none(),
                _ => true,
            })
            .map(|(place, quick)| (*place, *quick))
            .collect();
        // The old facts go first: two places that contradict each other would each be right for some packets.
        for (place, quick) in stale {
            self.write(place, Quick { device: 0, ..quick })?;
            self.written.remove(&place);
            self.emptied.insert(place, now);
        }
        for (device, interface) in missing {
            let first = Quick::place(device);
            let rested = |place: &u32| match self.emptied.get(place) {
                Some(when) => now.duration_since(*when) >= REST,
                None => !self.written.contains_key(place),
            };
            let Some(place) = [first, first + 1].into_iter().find(rested) else { continue };
            let quick = Quick { device, interface };
            self.write(place, Quick { device: 0, ..quick })?;
            self.write(place, quick)?;
            self.written.insert(place, quick);
            self.emptied.remove(&place);
        }
        Ok(())
    }

    fn write(&mut self, place: u32, quick: Quick) -> Result<(), XdpError> {
        self.map.write(place, quick).map_err(|e| map_error("interfaces", Quick::PLACES, e))
    }
}

pub(super) trait Places {
    fn write(&mut self, place: u32, quick: Quick) -> Result<(), MapError>;
}

impl Places for Array<MapData, [u8; 20]> {
    fn write(&mut self, place: u32, quick: Quick) -> Result<(), MapError> {
        self.set(place, sized::<20>(quick.as_bytes()), 0)
    }
}

/// A trie's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix<K> {
    pub(super) bits: u32,
    pub(super) data: K,
}

/// Plain data as the octets that a map holds.
pub(super) trait Encode {
    fn encode(&self) -> Vec<u8>;
}

impl<T: IntoBytes + Immutable> Encode for T {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl<K: IntoBytes + Immutable> Encode for Prefix<K> {
    fn encode(&self) -> Vec<u8> {
        [self.bits.as_bytes(), self.data.as_bytes()].concat()
    }
}

pub(super) trait Store {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError>;
    fn take(&mut self, key: &[u8]) -> Result<(), MapError>;
}

impl<const K: usize, const V: usize> Store for Hash<K, V> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.insert(sized::<K>(key), sized::<V>(value), 0)
    }

    fn take(&mut self, key: &[u8]) -> Result<(), MapError> {
        self.remove(&sized::<K>(key))
    }
}

impl<const K: usize, const V: usize> Store for Trie<K, V> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        self.insert(&trie_key(key), sized::<V>(value), 0)
    }

    fn take(&mut self, key: &[u8]) -> Result<(), MapError> {
        self.remove(&trie_key(key))
    }
}

fn trie_key<const K: usize>(key: &[u8]) -> Key<[u8; K]> {
    let (bits, data) = key.split_at(size_of::<u32>());
    Key::new(u32::from_ne_bytes(sized(bits)), sized(data))
}

fn sized<const N: usize>(octets: &[u8]) -> [u8; N] {
    octets.try_into().expect("`Maps` names the sizes of its keys and values, and loading compared them")
}
